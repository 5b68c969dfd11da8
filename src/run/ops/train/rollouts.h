/* SPDX-License-Identifier: Apache-2.0 */
/** @file rollouts.h  The item of ppo and grpo, read.  Private to run/ops. */
#ifndef FM_RUN_OPS_TRAIN_ROLLOUTS_H
#define FM_RUN_OPS_TRAIN_ROLLOUTS_H

#include "engine/train/rl.h"
#include "run/ops/train/training.h"

typedef struct fm_ops_rollouts {
    fm_engine_rollout_t *list; /**< [count]: completion j of rollout r is
                                    r · group + j */
    size_t count;
    size_t group;      /**< completions a rollout */
    int32_t **tokens;  /**< [count]: prompt and completion */
    float **reference; /**< [count], or NULL */
    /* over all completions */
    double reward_min, reward_max;
    double length_mean, length_min, length_max; /**< tokens */
    double truncated; /**< fraction that ended at max_tokens */
} fm_ops_rollouts_t;

void fm_ops_rollouts_fini(fm_ops_rollouts_t *rollouts);
/**
 * From {"rollouts": [{"prompt_tokens", "completions": [{"tokens", "finish"},
 * …]}, …], "rewards": [[number, …], …], "reference": [[[number, …], …], …]}.
 * @param group      completions a rollout must have; 0: as the first one has.
 * @param reference  whether "reference" is read.
 * @retval FM_ERR_INVALID  names rollout and completion.
 * @retval FM_ERR_LIMIT    one is longer than the model's positions.
 */
FM_MUST_USE fm_status_t fm_ops_rollouts_make(const fm_json_t *value,
                                             const fm_engine_config_t *config,
                                             size_t group, bool reference,
                                             fm_ops_rollouts_t *out,
                                             fm_error_t *err);

#endif
