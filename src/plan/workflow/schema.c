/* SPDX-License-Identifier: Apache-2.0 */
/* The task types by name. */
#include "plan/workflow/schema.h"

#include <string.h>

#include "base/mem.h"

static const struct {
    const char *name;
    int bit; /* 0: of the language, not of this version */
} tasks[] = {
    {"echo", FM_WF_ECHO},
    {"python", FM_WF_PYTHON},
    {"command", FM_WF_COMMAND},
    {"data_retrieval", FM_WF_RETRIEVAL},
    {"inference", FM_WF_INFERENCE},
    {"embedding", FM_WF_EMBEDDING},
    {"score", FM_WF_SCORE},
    {"reward", FM_WF_REWARD},
    {"sft", FM_WF_SFT},
    {"lora_sft", FM_WF_LORA_SFT},
    {"reward_model", FM_WF_REWARD_MODEL},
    {"dpo", FM_WF_DPO},
    {"ppo", FM_WF_PPO},
    {"grpo", FM_WF_GRPO},
    {"evaluate", FM_WF_EVALUATE},
    {"map", FM_WF_MAP_TASK},
    {"filter", FM_WF_FILTER},
    {"dedup", FM_WF_DEDUP},
    {"split", FM_WF_SPLIT},
    {"shard", FM_WF_SHARD},
    {"concat", FM_WF_CONCAT},
    {"sample", FM_WF_SAMPLE},
    {"jsonl_export", FM_WF_EXPORT},
    {"data_profiling", FM_WF_PROFILE},
    {"api", 0},
    {"rag", 0},
    {"agent", 0},
};
#define SUPPORTED                                                              \
    "supported: echo, python, command, data_retrieval, inference, embedding, " \
    "score, reward, sft, lora_sft, reward_model, dpo, ppo, grpo, evaluate, "   \
    "map, filter, dedup, split, shard, concat, sample, jsonl_export, "         \
    "data_profiling"

int fm_wf_task_bit(const char *name)
{
    for (size_t i = 0; i < FM_COUNT_OF(tasks); i++) {
        if (strcmp(tasks[i].name, name) == 0) {
            return tasks[i].bit;
        }
    }
    return strcmp(name, "logprobs") == 0 ? FM_WF_LOGPROBS : 0;
}

const char *fm_wf_task_name(int bit)
{
    for (size_t i = 0; i < FM_COUNT_OF(tasks); i++) {
        if (tasks[i].bit == bit) {
            return tasks[i].name;
        }
    }
    return "logprobs";
}

fm_status_t fm_wf_task_check(const fm_yaml_source_t *source,
                             const fm_yaml_value_t *value, int *bit_out)
{
    const char *names[FM_COUNT_OF(tasks)];
    const char *name = fm_yaml_str(value);
    char hint[96];

    if (!name) {
        return fm_yaml_fail(source, value->line, value->column, FM_ERR_INVALID,
                            "taskType is no text; " SUPPORTED);
    }
    for (size_t i = 0; i < FM_COUNT_OF(tasks); i++) {
        names[i] = tasks[i].name;
        if (strcmp(name, names[i]) == 0 && tasks[i].bit) {
            *bit_out = tasks[i].bit;
            return FM_OK;
        }
        if (strcmp(name, names[i]) == 0) {
            return fm_yaml_fail(
                source, value->line, value->column, FM_ERR_UNSUPPORTED,
                "taskType %s is not supported by this version; " SUPPORTED,
                name);
        }
    }
    return fm_yaml_fail(
        source, value->line, value->column, FM_ERR_INVALID,
        "unknown taskType %.60s%s; " SUPPORTED, name,
        fm_yaml_suggest(name, names, FM_COUNT_OF(names), hint, sizeof(hint)));
}
