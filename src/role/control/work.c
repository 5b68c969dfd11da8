/* SPDX-License-Identifier: Apache-2.0 */
#include "role/control/work.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "plan/cost/llm.h"
#include "plan/key/key.h"

#define ELEMENT_BYTES 4.0 /* of a weight in an engine's memory: float32 */
#define PROMPT_TOKENS 256 /* nominal, for the reads of the cache */
#define CLASS_BYTES (FM_COST_NAME_BYTES_MAX + 1)

/* What a call costs before anything was measured, of task types without a
 * model: a process start for scripts. */
static const struct seed {
    const char *task_type;
    fm_cost_task_t spec;
} seeds[] = {
    {"echo", {.overhead_s = 0.001, .bytes_per_unit = 1000}},
    {"command", {.overhead_s = 0.05}},
    {"python", {.overhead_s = 0.1}},
    {"data_retrieval", {.overhead_s = 0.02, .bytes_per_unit = 1e6}},
    {"reward", {.overhead_s = 0.005}},
    {"map", {.overhead_s = 0.1}},
    {"filter", {.overhead_s = 0.1}},
    {"dedup", {.overhead_s = 0.05}},
    {"split", {.overhead_s = 0.02}},
    {"shard", {.overhead_s = 0.02}},
    {"concat", {.overhead_s = 0.02}},
    {"sample", {.overhead_s = 0.02}},
    {"jsonl_export", {.overhead_s = 0.02}},
    {"data_profiling", {.overhead_s = 0.05}},
};

/* Task types whose work is tokens through a model. */
static const struct passes {
    const char *task_type;
    fm_cost_llm_kind_t kind;
} passes[] = {
    {"inference", FM_COST_LLM_INFERENCE}, {"rag", FM_COST_LLM_INFERENCE},
    {"agent", FM_COST_LLM_INFERENCE},     {"logprobs", FM_COST_LLM_FORWARD},
    {"evaluate", FM_COST_LLM_FORWARD},    {"score", FM_COST_LLM_FORWARD},
    {"embedding", FM_COST_LLM_FORWARD},   {"sft", FM_COST_LLM_TRAIN},
    {"reward_model", FM_COST_LLM_TRAIN},  {"dpo", FM_COST_LLM_TRAIN},
    {"ppo", FM_COST_LLM_TRAIN},           {"grpo", FM_COST_LLM_TRAIN},
    {"lora_sft", FM_COST_LLM_LORA_TRAIN},
};

fm_status_t fm_work_seed_cost(fm_cost_t *cost, const char *device_class,
                              uint32_t *device_out, fm_error_t *err)
{
    /* one core with vector units and its share of the memory channels */
    static const fm_cost_device_t core = {.flops_per_s = 3e10,
                                          .bytes_per_s = 8e9};
    fm_status_t rc =
        fm_cost_device_id(cost, device_class, &core, device_out, err);

    for (size_t i = 0; rc >= 0 && i < sizeof(seeds) / sizeof(seeds[0]); i++) {
        uint32_t id = 0;
        rc =
            fm_cost_task_id(cost, seeds[i].task_type, &seeds[i].spec, &id, err);
    }
    return rc;
}

static size_t item_bytes(const fm_vector_t *vector, uint32_t item)
{
    size_t end = item + 1 < vector->count ? vector->offsets[item + 1]
                                          : vector->texts.len;

    return end - vector->offsets[item];
}

/* Tokens that one item puts through the model: a byte of text is a token, each
 * completion of a prompt adds its own, an update passes over its item. */
static double tokens(const char *task_type, const fm_json_t *params,
                     double bytes)
{
    const fm_json_t *training = fm_json_get(params, "training");
    double epochs = fm_json_get_real(training, "num_train_epochs",
                                     fm_json_get_real(training, "epochs", 1));

    if (strcmp(task_type, "inference") == 0) {
        return bytes + fm_json_get_real(params, "max_tokens", 64) *
                           fm_json_get_real(params, "n", 1);
    }
    return training ? bytes * epochs : bytes;
}

/* --- classes -------------------------------------------------------------- */

/* Of a model that is made from a configuration: embeddings, and in each layer
 * attention (four squares) and a gated feed-forward (three blocks). */
static double config_parameters(const fm_json_t *config)
{
    double width = fm_json_get_real(config, "hidden_size", 0);
    double inner = fm_json_get_real(config, "intermediate_size", 0);
    double layers = fm_json_get_real(config, "num_hidden_layers", 0);
    double vocabulary = fm_json_get_real(config, "vocab_size", 0);

    return width * (vocabulary + layers * (4 * width + 3 * inner));
}

static double parameters_of(const fm_json_t *params, double model_bytes)
{
    return model_bytes > 0
               ? model_bytes / ELEMENT_BYTES
               : config_parameters(fm_json_path(params, "model.config"));
}

/* The least power of two that is not below: classes must be few. */
static double bucket(double tokens)
{
    return tokens > 1 ? exp2(ceil(log2(fmin(tokens, 1e9)))) : 1;
}

/* Weights, and what full training holds beside them (gradients and two
 * moments): less than any run takes, so nothing is refused that could run. */
static double least_memory(const fm_cost_llm_t *llm, double parameters)
{
    return parameters * ELEMENT_BYTES *
           (llm->kind == FM_COST_LLM_TRAIN ? 4 : 1);
}

/* Name and roofline of work with a model.  @p parameters are those that the
 * name says, so that the name decides the roofline. */
static void model_class(const struct passes *row, const fm_json_t *params,
                        double model_bytes, char name[CLASS_BYTES],
                        fm_cost_llm_t *llm)
{
    char size[FM_COST_SIZE_TEXT_BYTES];
    double parameters = parameters_of(params, model_bytes);
    double steps = bucket(fm_json_get_real(params, "max_tokens", 64));

    *llm = (fm_cost_llm_t){
        .kind = row->kind,
        .parameters = fmax(fm_cost_llm_round(parameters), 1e6),
        .bytes_per_parameter = ELEMENT_BYTES,
        .tokens_in = PROMPT_TOKENS,
    };
    (void)fm_cost_llm_size(parameters, size);
    if (row->kind == FM_COST_LLM_INFERENCE) {
        llm->tokens_out = steps;
        (void)snprintf(name, CLASS_BYTES, "%s/%s/%.0f", row->task_type, size,
                       steps);
    } else {
        (void)snprintf(name, CLASS_BYTES, "%s/%s", row->task_type, size);
    }
}

/* A program's name: the code, or the first words of the command line. */
static void program_class(const char *task_type, const fm_json_t *params,
                          char name[CLASS_BYTES])
{
    const fm_json_t *command = fm_json_get(params, "argv");
    char *parts[2] = {fm_json_canonical(fm_json_get(params, "code")
                                            ? fm_json_get(params, "code")
                                            : fm_json_at(command, 0)),
                      fm_json_canonical(fm_json_at(command, 1))};
    fm_buf_t text = {0};

    (void)snprintf(name, CLASS_BYTES, "%s", task_type);
    if (fm_json_get(params, "code") || fm_json_len(command) > 0) {
        fm_buf_printf(&text, "%s %s", parts[0] ? parts[0] : "",
                      parts[1] ? parts[1] : "");
        (void)snprintf(name, CLASS_BYTES, "%s/%08x", task_type,
                       (unsigned)fm_hash64(text.data, text.len));
    }
    fm_buf_fini(&text);
    free(parts[0]);
    free(parts[1]);
}

static const fm_cost_task_t *seed_of(const char *task_type)
{
    for (size_t i = 0; i < FM_COUNT_OF(seeds); i++) {
        if (strcmp(seeds[i].task_type, task_type) == 0) {
            return &seeds[i].spec;
        }
    }
    return NULL;
}

static void class_of(fm_cost_t *cost, const char *task_type,
                     const fm_json_t *params, fm_batch_info_t *info)
{
    const struct passes *row = NULL;
    const fm_cost_task_t *spec = seed_of(task_type);
    fm_cost_task_t made;
    char name[CLASS_BYTES];

    for (size_t i = 0; i < FM_COUNT_OF(passes) && !row; i++) {
        row = strcmp(passes[i].task_type, task_type) == 0 ? &passes[i] : NULL;
    }
    if (row) {
        fm_cost_llm_t llm;
        model_class(row, params, (double)info->model_bytes, name, &llm);
        made = fm_cost_llm_task(&llm);
        info->memory_bytes = (uint64_t)least_memory(
            &llm, fmin(parameters_of(params, (double)info->model_bytes), 1e14));
        spec = &made;
    } else {
        program_class(task_type, params, name);
    }
    /* beyond the bound on classes, and when memory is out: the bare type */
    if (fm_cost_task_id(cost, name, spec, &info->task_class, NULL) < 0) {
        (void)!fm_cost_task_id(cost, task_type, NULL, &info->task_class, NULL);
    }
}

double fm_work_describe(fm_cost_t *cost, const char *task_type,
                        const fm_json_t *params, const fm_json_t *hints,
                        const fm_vector_t *vector, fm_batch_info_t *info_out)
{
    const char *model = fm_json_str(fm_json_path(params, "model.digest"));
    double timeout_s = fm_json_get_real(hints, "timeout_s", 0);
    const fm_key_task_t *task = fm_key_task_find(task_type, NULL);
    fm_batch_info_t info = {0};
    double total = 0;

    (void)fm_key_task_find(task_type, &info.task_index);
    info.has_model = model && fm_digest_parse(model, &info.model);
    info.model_bytes = (uint64_t)fm_json_get_int(hints, "model_bytes", 0);
    info.deadline_ns = (int64_t)(timeout_s * 1e9);
    class_of(cost, task_type, params, &info);
    for (uint32_t i = 0; i < vector->count; i++) {
        size_t bytes = item_bytes(vector, i);
        total += (double)bytes;
        info.item_bytes_max =
            bytes > info.item_bytes_max ? bytes : info.item_bytes_max;
    }
    *info_out = info;
    if (!task || !task->numeric || vector->count == 0) {
        return 1;
    }
    return tokens(task_type, params, total / vector->count);
}

/* --- sites ---------------------------------------------------------------- */

static const struct field {
    const char *name;
    size_t offset;
} fields[] = {
    {"flops_per_s", offsetof(fm_work_site_t, spec.flops_per_s)},
    {"bytes_per_s", offsetof(fm_work_site_t, spec.bytes_per_s)},
    {"overhead_s", offsetof(fm_work_site_t, spec.overhead_s)},
    {"load_bytes_per_s", offsetof(fm_work_site_t, spec.load_bytes_per_s)},
    {"load_s", offsetof(fm_work_site_t, load_s)},
    {"load_bytes", offsetof(fm_work_site_t, load_bytes)},
};

char *fm_work_site_note(const char *placement, const fm_work_site_t *site)
{
    fm_json_t *json = NULL;
    fm_json_t *on = fm_json_object();
    char *text = NULL;
    bool ok = fm_json_set(on, "class", fm_json_string(site->device_class)) >= 0;

    if (fm_json_parse(placement, strlen(placement), "placement", &json, NULL) <
            0 ||
        !fm_json_is(json, FM_JSON_OBJECT)) {
        fm_json_drop(json);
        json = fm_json_object();
    }
    for (size_t i = 0; ok && i < FM_COUNT_OF(fields); i++) {
        double value;
        memcpy(&value, (const char *)site + fields[i].offset, sizeof(value));
        ok = value <= 0 ||
             fm_json_set(on, fields[i].name, fm_json_real(value)) >= 0;
    }
    if (ok) {
        ok = fm_json_set(json, "on", on) >= 0;
        on = NULL;
    }
    text = ok ? fm_json_canonical(json) : NULL;
    fm_json_drop(on);
    fm_json_drop(json);
    return text;
}

bool fm_work_site_read(const char *placement, fm_work_site_t *site_out,
                       fm_json_t **json_out)
{
    fm_work_site_t site = {0};
    fm_json_t *json = NULL;

    if (!*placement || fm_json_parse(placement, strlen(placement), "placement",
                                     &json, NULL) < 0) {
        return false;
    }
    const fm_json_t *on = fm_json_get(json, "on");
    if (!(site.device_class = fm_json_get_str(on, "class"))) {
        fm_json_drop(json);
        return false;
    }
    for (size_t i = 0; i < FM_COUNT_OF(fields); i++) {
        double value = fm_json_get_real(on, fields[i].name, 0);
        memcpy((char *)&site + fields[i].offset, &value, sizeof(value));
    }
    *site_out = site;
    *json_out = json;
    return true;
}
