/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file train.h
 * Training with AdamW: supervised fine-tuning, direct preference optimisation
 * and reward models.  Reinforcement learning stands on this in rl.h.
 *
 * What is trained is a set of parameter blocks: the model, or an adapter over
 * a frozen model, and a scalar head when there is one.  Gradients and moments
 * exist for the trained blocks only.
 *
 * One call is one optimiser step over all its samples; the trainer cuts them,
 * in the order given, into micro-batches of whole samples and accumulates the
 * gradient.  A step that fails leaves parameters and optimiser unchanged.
 * The same samples, options, parameters and optimiser state give the same
 * bits, dropout included, so a run resumed from a saved state equals one never
 * interrupted.
 *
 * docs/spec/training.md states what every method computes.
 *
 * Threads: as its model.
 */
#ifndef FM_ENGINE_TRAIN_TRAIN_H
#define FM_ENGINE_TRAIN_TRAIN_H

#include "engine/model/adapter.h"
#include "engine/model/model.h"
#include "engine/model/value.h"

typedef enum fm_engine_schedule {
    FM_ENGINE_SCHEDULE_CONSTANT,
    FM_ENGINE_SCHEDULE_LINEAR, /**< to the floor at total_steps */
    FM_ENGINE_SCHEDULE_COSINE  /**< half a cosine, to the floor likewise */
} fm_engine_schedule_t;

/** Fill with fm_engine_train_defaults(), then change what you want. */
typedef struct fm_engine_train_options {
    double learning_rate;     /**< 5e-5; ≥ 0 */
    double min_learning_rate; /**< 0; the floor, at most learning_rate */
    double beta1;             /**< 0.9; in [0, 1) */
    double beta2;             /**< 0.999; in [0, 1) */
    double eps;               /**< 1e-8; > 0 */
    double weight_decay;      /**< 0; decoupled, on matrices only, not norms */
    double max_grad_norm;     /**< 1; over all blocks; 0 turns clipping off */
    fm_engine_schedule_t schedule; /**< linear */
    uint64_t warmup_steps;         /**< 0; linear from 0 up to learning_rate */
    uint64_t total_steps;          /**< needed unless constant */
    uint64_t seed;                 /**< 0; order of samples, dropout */
    size_t micro_batch_tokens;     /**< 4096; a longer sample runs alone */
    bool gradient_checkpointing;   /**< false; less memory, the same bits */
} fm_engine_train_options_t;

void fm_engine_train_defaults(fm_engine_train_options_t *options_out);
/** "constant", "linear", "cosine"; false for anything else. */
bool fm_engine_schedule_parse(const char *text,
                              fm_engine_schedule_t *schedule_out);

/** A sequence to imitate; host memory, not kept. */
typedef struct fm_engine_sample {
    const int32_t *tokens; /**< [count] */
    const uint8_t *mask;   /**< [count] nonzero: predicting tokens[i] counts;
                                mask[0] is ignored; NULL: all count */
    size_t count;          /**< ≥ 2 */
} fm_engine_sample_t;

/** A preference; host memory, not kept.  Lengths ≥ 1 each. */
typedef struct fm_engine_pair {
    const int32_t *prompt;
    size_t prompt_count;
    const int32_t *chosen;
    size_t chosen_count;
    const int32_t *rejected;
    size_t rejected_count;
    double reference_chosen;   /**< DPO: Σ log-prob under the reference, */
    double reference_rejected; /**< as fm_engine_score() gives them */
} fm_engine_pair_t;

/** Of one step.  What a method does not have stays 0. */
typedef struct fm_engine_metrics {
    uint64_t step;        /**< the step just done, from 1 */
    double loss;          /**< what was minimised */
    double grad_norm;     /**< over all blocks, before clipping */
    double learning_rate; /**< used in this step */
    uint64_t tokens;      /**< tokens run through the model */
    uint64_t targets;     /**< in the mean: tokens (SFT, PPO, GRPO), pairs (DPO,
                               reward) */
    /* DPO, reward: means over the pairs; DPO's reward = beta·(log π − log
     * ref), a reward model's is its score */
    double reward_chosen;
    double reward_rejected;
    double accuracy; /**< fraction with reward_chosen > reward_rejected */
    double margin;   /**< reward_chosen − reward_rejected */
    /* PPO, GRPO: over the completion tokens of the step unless said
     * otherwise; π is the policy before the step, old that of the rollouts */
    double reward_mean; /**< of all rollouts of the iteration, as given */
    double reward_std;  /**< of the same; population */
    double policy_loss;
    double entropy;       /**< mean over tokens of −Σ π log π */
    double kl;            /**< to the reference, a token: PPO mean(log old −
                               log ref); GRPO k3 of π, weighted as the loss */
    double policy_kl;     /**< KL(old ‖ π): mean(r − 1 − log r) */
    double clip_fraction; /**< tokens whose gradient clipping took away */
    double ratio_mean;    /**< r = π / old */
    double ratio_min;
    double ratio_max;
    double advantage_mean; /**< as used in the loss */
    double advantage_std;
    double value_loss;          /**< PPO only, as all below */
    double value_clip_fraction; /**< tokens whose clipped loss was larger */
    double value_mean;          /**< before the iteration */
    double return_mean;
    double explained_variance; /**< 1 − var(return − value) / var(return) over
                                    the iteration; 0 when var(return) is 0 */
    bool stopped; /**< KL(old ‖ π) was above target_kl: nothing was changed,
                       step is that of the step before */
} fm_engine_metrics_t;

typedef struct fm_engine_trainer fm_engine_trainer_t;

/** What is trained; all kept, all must outlive the trainer. */
typedef struct fm_engine_parts {
    fm_engine_model_t *model;     /**< always; frozen beside an adapter */
    fm_engine_adapter_t *adapter; /**< NULL: the model itself is trained */
    fm_engine_value_t *value; /**< trained along; needed by reward and PPO */
} fm_engine_parts_t;

/**
 * @param options  NULL for defaults with a constant schedule; copied.
 * @retval FM_ERR_INVALID  names the option and its range.
 */
FM_MUST_USE fm_status_t fm_engine_trainer_create(
    const fm_engine_parts_t *parts, const fm_engine_train_options_t *options,
    fm_engine_trainer_t **trainer_out, fm_error_t *err);
fm_engine_trainer_t *fm_engine_trainer_destroy(fm_engine_trainer_t *trainer);

/**
 * One step of supervised fine-tuning: the mean cross-entropy of the counted
 * tokens of all samples.
 * @param metrics_out  may be NULL.
 * @retval FM_ERR_INVALID  no samples, a bad one (the text has its index), no
 *                         counted token, a loss or gradient that is not finite
 *                         (the text has step and sample).
 */
FM_MUST_USE fm_status_t fm_engine_trainer_sft(fm_engine_trainer_t *trainer,
                                              const fm_engine_sample_t *samples,
                                              size_t count,
                                              fm_engine_metrics_t *metrics_out,
                                              fm_error_t *err);

typedef enum fm_engine_dpo_loss {
    /** −(1−ε) log σ(z) − ε log σ(−z) with z = beta · h and h = (chosen − ref)
     *  − (rejected − ref): Rafailov et al., 2023; ε is label_smoothing. */
    FM_ENGINE_DPO_SIGMOID,
    /** (h − 1/(2 beta))²: Azar et al., 2023; sums, not means, of log-probs. */
    FM_ENGINE_DPO_IPO
} fm_engine_dpo_loss_t;

typedef struct fm_engine_dpo_options {
    double beta; /**< above 0, at most 1e6; 0.1 is usual */
    fm_engine_dpo_loss_t loss;
    double label_smoothing; /**< at least 0, below 0.5; 0 with IPO */
} fm_engine_dpo_options_t;

/** "sigmoid", "ipo"; false for anything else. */
bool fm_engine_dpo_loss_parse(const char *text, fm_engine_dpo_loss_t *loss_out);

/** One step of direct preference optimisation; the mean over the pairs. */
FM_MUST_USE fm_status_t fm_engine_trainer_dpo(
    fm_engine_trainer_t *trainer, const fm_engine_pair_t *pairs, size_t count,
    const fm_engine_dpo_options_t *options, fm_engine_metrics_t *metrics_out,
    fm_error_t *err);

/**
 * One step of a reward model (Bradley and Terry, 1952; Ouyang et al., 2022):
 * the mean over the pairs of −log σ(score(chosen) − score(rejected)), with
 * the score at the last token.  References of the pairs are ignored.
 * @retval FM_ERR_INVALID  also: the trainer has no scalar head.
 */
FM_MUST_USE fm_status_t fm_engine_trainer_reward(
    fm_engine_trainer_t *trainer, const fm_engine_pair_t *pairs, size_t count,
    fm_engine_metrics_t *metrics_out, fm_error_t *err);

/**
 * What error texts call the samples of the next steps: names[i] for sample i
 * of a call, where the caller numbers them otherwise.
 * @param names  borrowed until the next call of this; NULL: from 0.
 */
void fm_engine_trainer_name(fm_engine_trainer_t *trainer, const size_t *names);

/** The learning rate that @p options give step @p step (from 1). */
double fm_engine_schedule_rate(const fm_engine_train_options_t *options,
                               uint64_t step);
/** The learning rate of step @p step (from 1). */
double fm_engine_trainer_rate(const fm_engine_trainer_t *trainer,
                              uint64_t step);
/** A permutation of 0 … count−1 that depends on seed and @p epoch only. */
void fm_engine_trainer_order(const fm_engine_trainer_t *trainer, uint64_t epoch,
                             size_t count, size_t *order_out);

/* --- state: what a checkpoint holds -------------------------------------- */

/** A trained block: its parameters, its gradient and its moments have the
 *  same size and order. */
typedef struct fm_engine_block {
    const char *name;                /**< "model", "adapter" or "value" */
    size_t size;                     /**< elements */
    const fm_engine_param_t *params; /**< tensors, in block order */
    size_t param_count;
} fm_engine_block_t;

typedef enum fm_engine_plane {
    FM_ENGINE_PLANE_PARAMS,
    FM_ENGINE_PLANE_FIRST,   /**< Adam's m */
    FM_ENGINE_PLANE_SECOND,  /**< Adam's v */
    FM_ENGINE_PLANE_GRADIENT /**< of the last step, before clipping; no state */
} fm_engine_plane_t;

/** The blocks that are trained, the same order always; never NULL. */
const fm_engine_block_t *
fm_engine_trainer_blocks(const fm_engine_trainer_t *trainer, size_t *count_out);
/** Copy elements of one plane of block @p block (its index) to the host. */
FM_MUST_USE fm_status_t fm_engine_trainer_read(
    const fm_engine_trainer_t *trainer, size_t block, fm_engine_plane_t plane,
    size_t offset, size_t count, float *host, fm_error_t *err);
FM_MUST_USE fm_status_t fm_engine_trainer_write(
    fm_engine_trainer_t *trainer, size_t block, fm_engine_plane_t plane,
    size_t offset, size_t count, const float *host, fm_error_t *err);
/** Steps done. */
uint64_t fm_engine_trainer_step(const fm_engine_trainer_t *trainer);
void fm_engine_trainer_set_step(fm_engine_trainer_t *trainer, uint64_t step);

#endif
