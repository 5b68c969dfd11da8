/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file rl.h
 * Reinforcement learning from rollouts: PPO (Schulman et al., 2017, with the
 * reward of Ziegler et al., 2019) and GRPO (Shao et al., 2024).
 *
 * An experience is one iteration: its rollouts, the log-probabilities (and
 * values) of the policy that is about to be trained, the advantages, and the
 * order of its gradient steps.  Old log-probabilities are computed when the
 * experience is made, in the very micro-batches of the first epoch, so the
 * ratio of its first step is exactly 1.  (GRPO with one step an iteration
 * finds them in that step: a whole pass less.)
 *
 *     create_ppo() or create_grpo(); while (next()) step(); destroy()
 *
 * Dropout is off, and so log-probabilities are the policy's own.
 *
 * Threads: as its trainer.
 */
#ifndef FM_ENGINE_TRAIN_RL_H
#define FM_ENGINE_TRAIN_RL_H

#include "engine/train/train.h"

/** A completion that was sampled and judged; host memory, not kept. */
typedef struct fm_engine_rollout {
    const int32_t *prompt;
    size_t prompt_count; /**< ≥ 1 */
    const int32_t *completion;
    size_t completion_count; /**< ≥ 1; the end token included, if any */
    double reward;
    const float *reference; /**< [completion_count] log-probs under the
                                 reference; NULL only where none is used */
} fm_engine_rollout_t;

/**
 * Per-token rewards are −kl_coef·(log old − log ref), plus the rollout's
 * reward at its last token; advantages by GAE (Schulman et al., 2016); loss =
 * mean over the tokens of a step of
 *   max(−A r, −A clip(r, 1 − c, 1 + c))
 *   + value_coef · ½ max((V − R)², (clip(V, V_old ± v) − R)²)
 *   − entropy_coef · H.
 * Whitening: over all tokens of the iteration, A := (A − mean) / √(var +
 * 1e-8), var with n − 1.
 */
typedef struct fm_engine_ppo_options {
    double clip_range;       /**< 0.2; above 0, below 1 */
    double value_clip_range; /**< 0.2; at least 0; 0: values are not clipped */
    double value_coef;       /**< 0.1; at least 0 */
    double gamma;            /**< 1; 0 … 1 */
    double lam;              /**< 0.95; 0 … 1 */
    double kl_coef;          /**< 0.05; at least 0; 0: no reference needed */
    double entropy_coef;     /**< 0; at least 0 */
    double target_kl; /**< 0 (off); at least 0: a step whose KL(old ‖ π)
                           is above it is not made and ends the
                           iteration */
    bool whiten_advantages; /**< true */
    size_t epochs;          /**< 4; 1 … 1000 */
    size_t mini_batch_size; /**< 8; rollouts of a gradient step; ≥ 1 */
    uint64_t iteration;     /**< 1; from 1: another order every iteration */
} fm_engine_ppo_options_t;

/**
 * Rollouts i·group_size … (i+1)·group_size − 1 answer the same prompt; A =
 * (reward − mean of the group) / (std of the group + 1e-4), std with n − 1;
 * loss = mean over the completions of a step of the mean over the tokens of a
 * completion (eq. 3 of the paper; a long completion weighs no more than a
 * short one) of
 *   −min(A r, A clip(r, 1 − c, 1 + c_high)) + beta · k3
 * with k3 = exp(d) − d − 1, d = log ref − log π (Schulman, 2020).
 */
typedef struct fm_engine_grpo_options {
    size_t group_size;      /**< 8; ≥ 2 */
    double beta;            /**< 0.04; at least 0; 0: no reference needed */
    double clip_range;      /**< 0.2; above 0, below 1 */
    double clip_range_high; /**< 0: = clip_range */
    double entropy_coef;    /**< 0; at least 0: bonus, mean as the loss */
    double target_kl;       /**< as PPO's */
    bool scale_rewards;     /**< true; false: A = reward − mean */
    size_t epochs;          /**< 1 */
    size_t mini_batch_size; /**< 8 */
    uint64_t iteration;     /**< 1 */
} fm_engine_grpo_options_t;

void fm_engine_ppo_defaults(fm_engine_ppo_options_t *options_out);
void fm_engine_grpo_defaults(fm_engine_grpo_options_t *options_out);

typedef struct fm_engine_experience fm_engine_experience_t;

/**
 * @param trainer   kept; must outlive the experience; needs a scalar head for
 *                  PPO (see fm_engine_parts_t).
 * @param rollouts  copied.
 * @param saved     NULL: run the policy.  Otherwise what
 *                  fm_engine_experience_saved() gave when this iteration
 *                  began: the run goes on in the middle of it.
 * @param saved_count  elements of @p saved.
 * @retval FM_ERR_INVALID  no rollouts, a bad one (the text has its index), an
 *                         option outside its range, a log-probability that is
 *                         not finite, @p saved of another size.
 */
FM_MUST_USE fm_status_t fm_engine_experience_create_ppo(
    fm_engine_trainer_t *trainer, const fm_engine_rollout_t *rollouts,
    size_t count, const fm_engine_ppo_options_t *options, const float *saved,
    size_t saved_count, fm_engine_experience_t **experience_out,
    fm_error_t *err);
FM_MUST_USE fm_status_t fm_engine_experience_create_grpo(
    fm_engine_trainer_t *trainer, const fm_engine_rollout_t *rollouts,
    size_t count, const fm_engine_grpo_options_t *options, const float *saved,
    size_t saved_count, fm_engine_experience_t **experience_out,
    fm_error_t *err);
fm_engine_experience_t *
fm_engine_experience_destroy(fm_engine_experience_t *experience);

/**
 * The rollouts of the next step, owned by the experience until that step.
 * @return false when the iteration is over.
 */
bool fm_engine_experience_next(fm_engine_experience_t *experience,
                               const size_t **rollouts_out, size_t *count_out);
/** Epoch of the next step, from 0. */
size_t fm_engine_experience_epoch(const fm_engine_experience_t *experience);
/**
 * One optimiser step on the rollouts of fm_engine_experience_next().
 * @retval FM_ERR_INVALID  the iteration is over; a loss or gradient that is
 *                         not finite (the text has step and rollout).
 */
FM_MUST_USE fm_status_t
fm_engine_experience_step(fm_engine_experience_t *experience,
                          fm_engine_metrics_t *metrics_out, fm_error_t *err);

/** Steps of the whole iteration, and those done: with saved(), parameters,
 *  moments and the trainer's step, all that a checkpoint needs. */
size_t fm_engine_experience_steps(const fm_engine_experience_t *experience);
size_t fm_engine_experience_position(const fm_engine_experience_t *experience);
/** @p position up to steps(); the next step is that one. */
void fm_engine_experience_set_position(fm_engine_experience_t *experience,
                                       size_t position);
/** Old log-probs and values: host, owned by the experience. */
const float *
fm_engine_experience_saved(const fm_engine_experience_t *experience,
                           size_t *count_out);

#endif
