/* SPDX-License-Identifier: Apache-2.0 */
/** @file experience.h  What PPO and GRPO share.  Private to the engine. */
#ifndef FM_ENGINE_TRAIN_EXPERIENCE_H
#define FM_ENGINE_TRAIN_EXPERIENCE_H

#include "engine/train/rl.h"
#include "engine/train/trainer.h"

/** A rollout as kept: its tokens in the pool, its completion's rows. */
typedef struct fm_engine_kept_rollout {
    size_t tokens; /**< of prompt and completion, in the pool */
    size_t prompt_count;
    size_t count; /**< of the completion */
    size_t row;   /**< the completion's first element in the row arrays */
    double reward;
} fm_engine_kept_rollout_t;

/** One completion token in the loss. */
typedef struct fm_engine_rl_row {
    size_t index;  /**< in the row arrays */
    double share;  /**< in a mean over the tokens of the step */
    double weight; /**< in the loss */
    double logp;
    double value;
    double loss;        /**< += */
    double slope;       /**< += d loss / d logp, without weight */
    double value_slope; /**< += d loss / d value, without weight */
} fm_engine_rl_row_t;

struct fm_engine_experience {
    fm_engine_trainer_t *trainer;
    union {
        fm_engine_ppo_options_t ppo;
        fm_engine_grpo_options_t grpo;
    } options;
    /** Adds what a method has besides the clipped policy loss. */
    void (*extra)(const fm_engine_experience_t *e, fm_engine_rl_row_t *row,
                  fm_engine_metrics_t *m);
    bool values;         /**< a scalar head takes part */
    bool per_completion; /**< the loss is a mean of means */
    bool on_policy;      /**< one step and no values: it finds the old log-probs
                              itself, and no pass before it is needed */
    double clip_low;
    double clip_high;
    double entropy_coef;
    double target_kl; /**< 0: off */

    fm_engine_kept_rollout_t *rollouts; /**< [count] */
    size_t count;
    int32_t *pool;
    size_t rows;       /**< completion tokens of all rollouts */
    float *saved;      /**< [rows] old log-probs; [rows] values, if any */
    float *reference;  /**< [rows]; NULL: none was given */
    float *advantages; /**< [rows] */
    float *returns;    /**< [rows]; PPO only */

    size_t *order; /**< [count] of the epoch `order_epoch` */
    size_t order_epoch;
    size_t mini_batch; /**< rollouts of a step */
    size_t per_epoch;  /**< steps */
    size_t epochs;
    uint64_t first_epoch; /**< number of the iteration's first */
    size_t position;      /**< steps done */

    fm_engine_metrics_t iteration; /**< what all its steps report alike */
};

/** What both kinds of options say. */
typedef struct fm_engine_experience_plan {
    size_t epochs;
    size_t mini_batch_size;
    uint64_t iteration;
    bool references; /**< needed */
    const char *why; /**< the option that needs them */
} fm_engine_experience_plan_t;

/** Copy and check the rollouts; the method's fields follow. */
FM_MUST_USE fm_status_t fm_engine_experience_open(
    fm_engine_trainer_t *trainer, const fm_engine_rollout_t *rollouts,
    size_t count, const fm_engine_experience_plan_t *plan, bool values,
    fm_engine_experience_t **experience_out, fm_error_t *err);
/** Old log-probs and values: from @p saved, or run the policy. */
FM_MUST_USE fm_status_t fm_engine_experience_fill(fm_engine_experience_t *e,
                                                  const float *saved,
                                                  size_t saved_count,
                                                  fm_error_t *err);

/** A named rule about an option, for both methods. */
typedef struct fm_engine_rl_rule {
    const char *name;
    bool good;
    const char *range;
} fm_engine_rl_rule_t;

FM_MUST_USE fm_status_t fm_engine_rl_rules_check(
    const fm_engine_rl_rule_t *rules, size_t count, fm_error_t *err);

#endif
