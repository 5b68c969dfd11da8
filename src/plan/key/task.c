/* SPDX-License-Identifier: Apache-2.0 */
/* The table of task types.  New rows go at the end: a row's place is its bit
 * in workers' masks.  Batch limits: an echo costs nothing but its messages,
 * an inference batch is what one device decodes together, training is a job of
 * its own. */
#include <string.h>

#include "base/mem.h"
#include "plan/key/key.h"

static const fm_key_task_t tasks[] = {
    {"echo", 1, FM_KEY_OTHER, false, false, 512},
    {"python", 1, FM_KEY_OTHER, false, false, 1},
    {"command", 1, FM_KEY_OTHER, false, false, 1},
    {"data_retrieval", 2, FM_KEY_OTHER, false, false, 16},
    {"inference", 2, FM_KEY_INFERENCE, true, false, 32},
    {"logprobs", 2, FM_KEY_INFERENCE, true, false, 32},
    {"reward", 1, FM_KEY_OTHER, false, false, 512},
    {"embedding", 1, FM_KEY_INFERENCE, true, false, 64},
    {"evaluate", 2, FM_KEY_INFERENCE, true, false, 16},
    {"sft", 2, FM_KEY_TRAINING, true, true, 1},
    {"lora_sft", 1, FM_KEY_TRAINING, true, true, 1},
    {"dpo", 2, FM_KEY_TRAINING, true, true, 1},
    {"ppo", 1, FM_KEY_TRAINING, true, true, 1},
    {"grpo", 1, FM_KEY_TRAINING, true, true, 1},
    {"data_profiling", 1, FM_KEY_OTHER, false, false, 16},
    {"rag", 1, FM_KEY_INFERENCE, true, false, 16},
    {"agent", 1, FM_KEY_INFERENCE, true, false, 1},
    {"api", 1, FM_KEY_OTHER, false, false, 16},
    {"map", 1, FM_KEY_OTHER, false, false, 16},
    {"filter", 1, FM_KEY_OTHER, false, false, 16},
    {"dedup", 1, FM_KEY_OTHER, false, false, 16},
    {"split", 1, FM_KEY_OTHER, false, false, 16},
    {"shard", 1, FM_KEY_OTHER, false, false, 16},
    {"concat", 1, FM_KEY_OTHER, false, false, 16},
    {"sample", 1, FM_KEY_OTHER, false, false, 16},
    {"jsonl_export", 1, FM_KEY_OTHER, false, false, 16},
    {"score", 1, FM_KEY_INFERENCE, true, false, 32},
    {"reward_model", 1, FM_KEY_TRAINING, true, true, 1},
};

const fm_key_task_t *fm_key_task_at(size_t index)
{
    return index < FM_COUNT_OF(tasks) ? &tasks[index] : NULL;
}

const fm_key_task_t *fm_key_task_find(const char *task_type,
                                      uint32_t *index_out)
{
    for (uint32_t i = 0; i < FM_COUNT_OF(tasks); i++) {
        if (strcmp(tasks[i].name, task_type) == 0) {
            if (index_out) {
                *index_out = i;
            }
            return &tasks[i];
        }
    }
    return NULL;
}
