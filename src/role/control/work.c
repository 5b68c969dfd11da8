/* SPDX-License-Identifier: Apache-2.0 */
#include "role/control/work.h"

#include <string.h>

#include "plan/key/key.h"

/*
 * What a unit costs before anything was measured: flops of a token through a
 * model of a million parameters (2 forward, 6 with backward), a process start
 * for scripts.  The estimator replaces these by what it sees.
 */
static const struct seed {
    const char *task_type;
    fm_cost_task_t spec;
} seeds[] = {
    {"echo", {.overhead_s = 0.001, .bytes_per_unit = 1000}},
    {"command", {.overhead_s = 0.05}},
    {"python", {.overhead_s = 0.1}},
    {"data_retrieval", {.overhead_s = 0.02, .bytes_per_unit = 1e6}},
    {"inference",
     {.overhead_s = 0.01, .flops_per_unit = 2e6, .bytes_per_unit = 4e6}},
    {"logprobs", {.overhead_s = 0.01, .flops_per_unit = 2e6}},
    {"evaluate", {.overhead_s = 0.01, .flops_per_unit = 2e6}},
    {"score", {.overhead_s = 0.01, .flops_per_unit = 2e6}},
    {"embedding", {.overhead_s = 0.01, .flops_per_unit = 2e6}},
    {"sft", {.overhead_s = 0.05, .flops_per_unit = 6e6}},
    {"lora_sft", {.overhead_s = 0.05, .flops_per_unit = 4e6}},
    {"reward_model", {.overhead_s = 0.05, .flops_per_unit = 6e6}},
    {"dpo", {.overhead_s = 0.05, .flops_per_unit = 6e6}},
    {"ppo", {.overhead_s = 0.05, .flops_per_unit = 6e6}},
    {"grpo", {.overhead_s = 0.05, .flops_per_unit = 6e6}},
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
    /* the table above knows every task type: this adds nothing */
    (void)!fm_cost_task_id(cost, task_type, NULL, &info.task_class, NULL);
    info.has_model = model && fm_digest_parse(model, &info.model);
    info.model_bytes = (uint64_t)fm_json_get_int(hints, "model_bytes", 0);
    info.deadline_ns = (int64_t)(timeout_s * 1e9);
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
