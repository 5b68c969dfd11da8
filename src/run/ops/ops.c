/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of task types, and what is common to all: values are resolved,
 * every item is reported once, an output is canonical bytes and what it names
 * is sealed before anybody hears of it.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "run/ops/internal.h"

typedef struct operator_row {
    fm_ops_type_t type;
    fm_ops_one_fn one;   /**< either this */
    fm_ops_many_fn many; /**< or this */
} operator_row_t;

static const operator_row_t operators[] = {
    {{"echo", 1, false, true}, fm_ops_echo, NULL},
    {{"python", 1, false, false}, fm_ops_python, NULL},
    {{"command", 1, false, false}, fm_ops_command, NULL},
    {{"data_retrieval", 2, false, false}, fm_ops_data_retrieval, NULL},
    {{"inference", 2, true, true}, NULL, fm_ops_inference},
    {{"logprobs", 2, true, true}, fm_ops_logprobs, NULL},
    {{"score", 1, true, true}, fm_ops_score, NULL},
    {{"embedding", 1, true, true}, fm_ops_embedding, NULL},
    {{"sft", 2, true, false}, fm_ops_sft, NULL},
    {{"dpo", 2, true, false}, fm_ops_dpo, NULL},
    {{"lora_sft", 1, true, false}, fm_ops_lora_sft, NULL},
    {{"reward_model", 1, true, false}, fm_ops_reward_model, NULL},
    {{"ppo", 1, true, false}, fm_ops_ppo, NULL},
    {{"grpo", 1, true, false}, fm_ops_grpo, NULL},
    {{"evaluate", 2, true, false}, fm_ops_evaluate, NULL},
    {{"map", 1, false, false}, fm_ops_map, NULL},
    {{"filter", 1, false, false}, fm_ops_filter, NULL},
    {{"dedup", 1, false, false}, fm_ops_dedup, NULL},
    {{"split", 1, false, false}, fm_ops_split_records, NULL},
    {{"shard", 1, false, false}, fm_ops_shard, NULL},
    {{"concat", 1, false, false}, fm_ops_concat, NULL},
    {{"sample", 1, false, false}, fm_ops_sample_records, NULL},
    {{"jsonl_export", 1, false, false}, fm_ops_jsonl_export, NULL},
    {{"reward", 1, false, true}, NULL, fm_ops_reward},
    {{"data_profiling", 1, false, false}, fm_ops_data_profiling, NULL},
};
#define OPERATOR_COUNT FM_COUNT_OF(operators)

const fm_ops_type_t *fm_ops_types(size_t *count_out)
{
    static fm_ops_type_t types[OPERATOR_COUNT];

    for (size_t i = 0; i < OPERATOR_COUNT; i++) {
        types[i] = operators[i].type;
    }
    *count_out = OPERATOR_COUNT;
    return types;
}

static const operator_row_t *operator_find(const char *name)
{
    for (size_t i = 0; name && i < OPERATOR_COUNT; i++) {
        if (strcmp(operators[i].type.name, name) == 0) {
            return &operators[i];
        }
    }
    return NULL;
}

/* --- context ------------------------------------------------------------- */

fm_status_t fm_ops_create(const fm_ops_options_t *options, fm_ops_t **ops_out,
                          fm_error_t *err)
{
    const char *device = options->device ? options->device : "cpu";
    const char *root = options->work_root;
    fm_ops_t *ops = NULL;
    fm_status_t rc;

    if (strcmp(device, "cpu") != 0) {
        return fm_error_set(err, FM_ERR_UNSUPPORTED,
                            "device %s: this build has only cpu", device);
    }
    if (!root && !(root = getenv("TMPDIR"))) {
        root = "/tmp";
    }
    if (!(ops = fm_calloc(1, sizeof(*ops))) ||
        !(ops->work_root = fm_strdup(root))) {
        rc = fm_no_memory(err);
        goto out;
    }
    ops->cas = options->cas;
    if ((rc = fm_engine_backend_create_cpu(&ops->backend, err)) < 0 ||
        (rc = fm_ops_models_create(options->resident_bytes, &ops->models,
                                   err)) < 0) {
        goto out;
    }
    *ops_out = ops;
    ops = NULL;
out:
    fm_ops_destroy(ops);
    return rc;
}

void *fm_ops_destroy(fm_ops_t *ops)
{
    if (ops) {
        fm_ops_models_destroy(ops->models);
        fm_engine_backend_destroy(ops->backend);
        free(ops->work_root);
        free(ops);
    }
    return NULL;
}

const char *fm_ops_numerics(const fm_ops_t *ops)
{
    (void)ops;
    return "cpu-f32";
}

fm_json_t *fm_ops_resident(const fm_ops_t *ops)
{
    return fm_ops_models_resident(ops->models);
}

/* --- reporting ----------------------------------------------------------- */

void fm_ops_output_fini(fm_ops_output_t *output)
{
    fm_json_drop(output->value);
    free(output->objects);
    memset(output, 0, sizeof(*output));
}

fm_status_t fm_ops_output_object(fm_ops_output_t *output,
                                 const fm_digest_t *digest, fm_error_t *err)
{
    fm_status_t rc = fm_grow(&output->objects, &output->object_capacity,
                             output->object_count, sizeof(*digest), err);
    if (rc >= 0) {
        output->objects[output->object_count++] = *digest;
    }
    return rc;
}

/* Whether the place rather than the work is to blame for @p status. */
static bool is_infra(fm_status_t status)
{
    switch (status) {
    case FM_ERR_NO_MEMORY:
    case FM_ERR_NOT_FOUND: /* of an object: its producer must run again */
    case FM_ERR_IO:
    case FM_ERR_FULL:
    case FM_ERR_CORRUPT:
    case FM_ERR_BUSY:
    case FM_ERR_CANCELLED:
    case FM_ERR_CLOSED:
    case FM_ERR_INTERNAL:
        return true;
    case FM_OK:
    case FM_ERR_INVALID:
    case FM_ERR_EXISTS:
    case FM_ERR_TIMEOUT:
    case FM_ERR_PROTOCOL:
    case FM_ERR_UNSUPPORTED:
    case FM_ERR_LIMIT:
        break;
    }
    return false;
}

/* Whether a string of canonical JSON has the character U+0000, which no reader
 * of ours takes. */
static bool has_nul(const char *text)
{
    for (const char *at = text; (at = strchr(at, '\\')); at += 2) {
        if (strncmp(at + 1, "u0000", 5) == 0) {
            return true;
        }
    }
    return false;
}

fm_status_t fm_ops_report(fm_ops_run_t *run, size_t item,
                          const fm_ops_output_t *output, fm_error_t *err)
{
    char *text = fm_json_canonical(output->value);
    size_t len = text ? strlen(text) : 0;
    fm_ops_item_t report = {.index = run->indices[item],
                            .output = text,
                            .objects = output->objects,
                            .object_count = output->object_count};
    fm_status_t rc = FM_OK;

    if (!text) {
        return fm_no_memory(err);
    }
    if (has_nul(text)) {
        free(text);
        return fm_error_set(err, FM_ERR_INVALID,
                            "output: a text has the character U+0000; leave "
                            "it out");
    }
    if (len > FM_OPS_INLINE_BYTES) {
        report.output = NULL;
        rc = fm_cas_put(run->ops->cas, FM_CAS_ITEM, text, len, &report.digest,
                        err);
    }
    if (rc >= 0 && (!report.output || report.object_count > 0)) {
        rc = fm_cas_seal(run->ops->cas, err);
    }
    if (rc >= 0) {
        run->reported[item] = true;
        rc = run->sink->item(run->sink->ctx, &report, err);
    }
    free(text);
    return rc;
}

fm_status_t fm_ops_report_error(fm_ops_run_t *run, size_t item,
                                fm_status_t status, const fm_error_t *why,
                                fm_error_t *err)
{
    fm_ops_item_t report = {.index = run->indices[item],
                            .status = status,
                            .error = why->text,
                            .infra = is_infra(status)};

    run->reported[item] = true;
    return run->sink->item(run->sink->ctx, &report, err);
}

fm_status_t fm_ops_stopping(const fm_ops_run_t *run, fm_error_t *err)
{
    if (run->sink->stopping && run->sink->stopping(run->sink->ctx)) {
        return fm_error_set(err, FM_ERR_CANCELLED, "asked to stop");
    }
    return FM_OK;
}

/* --- batches ------------------------------------------------------------- */

static void run_fini(fm_ops_run_t *run)
{
    for (size_t i = 0; run->values && i < run->count; i++) {
        fm_json_drop(run->values[i]);
    }
    fm_engine_scorer_destroy(run->scorer);
    free(run->values);
    free(run->indices);
    free(run->reported);
}

static fm_status_t run_init(fm_ops_run_t *run, const fm_json_t *items,
                            fm_error_t *err)
{
    size_t count = fm_json_len(items);

    if (!fm_json_is(items, FM_JSON_ARRAY) || count == 0) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "items: a list of at least one {index, value}");
    }
    if (!(run->values = fm_calloc(count, sizeof(fm_json_t *))) ||
        !(run->indices = fm_calloc(count, sizeof(*run->indices))) ||
        !(run->reported = fm_calloc(count, sizeof(*run->reported)))) {
        return fm_no_memory(err);
    }
    run->count = count;
    for (size_t i = 0; i < count; i++) {
        int64_t index = fm_json_get_int(fm_json_at(items, i), "index", -1);
        if (index < 0 || index > UINT32_MAX) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "items[%zu].index: 0 to 2^32 - 1", i);
        }
        run->indices[i] = (uint32_t)index;
    }
    return FM_OK;
}

/* Resolve the values; an item that cannot be is reported as failed. */
static fm_status_t values_resolve(fm_ops_run_t *run, const fm_json_t *items,
                                  fm_error_t *err)
{
    for (size_t i = 0; i < run->count; i++) {
        fm_error_t why = {0};
        fm_status_t rc = fm_ops_resolve(
            run->ops->cas, fm_json_get(fm_json_at(items, i), "value"),
            &run->values[i], &why);
        if (rc < 0) {
            fm_error_wrap(&why, "value");
            if ((rc = fm_ops_report_error(run, i, rc, &why, err)) < 0) {
                return rc;
            }
        }
    }
    return FM_OK;
}

static fm_status_t items_fail(fm_ops_run_t *run, fm_status_t status,
                              const fm_error_t *why, fm_error_t *err)
{
    for (size_t i = 0; i < run->count; i++) {
        fm_status_t rc = run->reported[i]
                             ? FM_OK
                             : fm_ops_report_error(run, i, status, why, err);
        if (rc < 0) {
            return rc;
        }
    }
    return FM_OK;
}

/* One after the other; each ends in its own report. */
static fm_status_t one_by_one(fm_ops_run_t *run, fm_ops_one_fn one,
                              fm_error_t *err)
{
    for (size_t i = 0; i < run->count; i++) {
        fm_ops_output_t output = {0};
        fm_error_t why = {0};
        fm_status_t rc = FM_OK;

        if (run->reported[i]) {
            continue;
        }
        if ((rc = fm_ops_stopping(run, err)) < 0) {
            return rc;
        }
        rc = one(run, i, &output, &why);
        if (rc >= 0) {
            rc = fm_ops_report(run, i, &output, &why);
        }
        fm_ops_output_fini(&output);
        if (rc == FM_ERR_CANCELLED) {
            return fm_error_set(err, rc, "%s", why.text);
        }
        if (rc < 0 && run->reported[i]) { /* the sink's failure */
            return fm_error_set(err, rc, "%s", why.text);
        }
        if (rc < 0) {
            (void)fm_cas_discard(run->ops->cas);
            if ((rc = fm_ops_report_error(run, i, rc, &why, err)) < 0) {
                return rc;
            }
        }
    }
    return FM_OK;
}

static fm_status_t run_all(fm_ops_run_t *run, const operator_row_t *op,
                           const fm_json_t *items, fm_error_t *err)
{
    fm_status_t rc = values_resolve(run, items, err);
    fm_error_t why = {0};

    if (rc < 0) {
        return rc;
    }
    if (op->one) {
        return one_by_one(run, op->one, err);
    }
    rc = op->many(run, &why);
    if (rc == FM_ERR_CANCELLED) {
        return fm_error_set(err, rc, "%s", why.text);
    }
    return rc < 0 ? items_fail(run, rc, &why, err) : FM_OK;
}

fm_status_t fm_ops_run(fm_ops_t *ops, const fm_ops_batch_t *batch,
                       const fm_ops_sink_t *sink, fm_error_t *err)
{
    const operator_row_t *op = operator_find(batch->task_type);
    fm_ops_run_t run = {.ops = ops,
                        .sink = sink,
                        .task_type = batch->task_type,
                        .hints = batch->hints,
                        .checkpoint = batch->checkpoint};
    fm_json_t *params = NULL;
    fm_error_t why = {0};
    fm_status_t rc = run_init(&run, batch->items, err);

    if (rc < 0) {
        goto out;
    }
    fm_ops_models_begin(ops->models);
    ops->sink = sink;
    if (!op) {
        rc = fm_error_set(&why, FM_ERR_UNSUPPORTED,
                          "task type %s: not one "
                          "of ours",
                          batch->task_type ? batch->task_type : "");
        rc = items_fail(&run, rc, &why, err);
        goto out;
    }
    rc = batch->params ? fm_ops_resolve(ops->cas, batch->params, &params, &why)
                       : FM_OK;
    if (rc >= 0 && !batch->params && !(params = fm_json_object())) {
        rc = fm_no_memory(&why);
    }
    if (rc >= 0 && !fm_json_is(params, FM_JSON_OBJECT)) {
        rc = fm_error_set(&why, FM_ERR_INVALID, "not an object");
    }
    if (rc < 0) {
        fm_error_wrap(&why, "params");
        rc = items_fail(&run, rc, &why, err);
        goto out;
    }
    run.params = params;
    rc = run_all(&run, op, batch->items, err);
out:
    ops->sink = NULL;
    (void)fm_cas_discard(ops->cas);
    fm_json_drop(params);
    run_fini(&run);
    return rc;
}
