/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file train.h
 * Training a model: supervised fine-tuning (cross-entropy) and direct
 * preference optimisation, with AdamW.
 *
 * One call is one optimiser step over all its samples; the trainer cuts them,
 * in the order given, into micro-batches of whole samples and accumulates the
 * gradient.  A step that fails leaves parameters and optimiser unchanged.
 * The same samples, options, parameters and optimiser state give the same
 * bits, so a run resumed from a saved state equals one never interrupted.
 *
 * Threads: as its model.
 */
#ifndef FM_ENGINE_TRAIN_H
#define FM_ENGINE_TRAIN_H

#include "engine/model.h"

typedef enum fm_engine_schedule {
    FM_ENGINE_SCHEDULE_CONSTANT,
    FM_ENGINE_SCHEDULE_LINEAR, /**< to zero at total_steps */
    FM_ENGINE_SCHEDULE_COSINE  /**< half a cosine, to zero at total_steps */
} fm_engine_schedule_t;

/** Fill with fm_engine_train_defaults(), then change what you want. */
typedef struct fm_engine_train_options {
    double learning_rate; /**< 5e-5; ≥ 0 */
    double beta1;         /**< 0.9; in [0, 1) */
    double beta2;         /**< 0.999; in [0, 1) */
    double eps;           /**< 1e-8; > 0 */
    double weight_decay;  /**< 0; decoupled, on matrices only, not norms */
    double max_grad_norm; /**< 1; 0 turns clipping off */
    fm_engine_schedule_t schedule; /**< linear */
    uint64_t warmup_steps;         /**< 0; linear from 0 up to learning_rate */
    uint64_t total_steps;          /**< needed unless constant */
    uint64_t seed;                 /**< 0; for fm_engine_trainer_order() */
    size_t micro_batch_tokens;     /**< 4096; a longer sample runs alone */
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
    double reference_chosen;   /**< Σ log-prob under the frozen reference */
    double reference_rejected; /**< as fm_engine_score() gives them */
} fm_engine_pair_t;

typedef struct fm_engine_metrics {
    uint64_t step;        /**< the step just done, from 1 */
    double loss;          /**< mean over counted tokens (SFT), pairs (DPO) */
    double grad_norm;     /**< before clipping */
    double learning_rate; /**< used in this step */
    uint64_t tokens;      /**< tokens run through the model */
    uint64_t targets;     /**< tokens (SFT) or pairs (DPO) in the mean */
    /* DPO only: means over the pairs; reward = beta·(log π − log ref) */
    double reward_chosen;
    double reward_rejected;
    double accuracy; /**< fraction with reward_chosen > reward_rejected */
    double margin;   /**< reward_chosen − reward_rejected */
} fm_engine_metrics_t;

typedef struct fm_engine_trainer fm_engine_trainer_t;

/**
 * @param model    kept; must outlive the trainer; its parameters change.
 * @param options  NULL for defaults with a constant schedule; copied.
 * @retval FM_ERR_INVALID  names the option and its range.
 */
FM_MUST_USE fm_status_t fm_engine_trainer_create(
    fm_engine_model_t *model, const fm_engine_train_options_t *options,
    fm_engine_trainer_t **trainer_out, fm_error_t *err);
fm_engine_trainer_t *fm_engine_trainer_destroy(fm_engine_trainer_t *trainer);

/**
 * One step of supervised fine-tuning.
 * @param metrics_out  may be NULL.
 * @retval FM_ERR_INVALID  a bad sample (the text has its index), no counted
 *                         token, a loss or gradient that is not finite (the
 *                         text has step and sample).
 */
FM_MUST_USE fm_status_t fm_engine_trainer_sft(fm_engine_trainer_t *trainer,
                                              const fm_engine_sample_t *samples,
                                              size_t count,
                                              fm_engine_metrics_t *metrics_out,
                                              fm_error_t *err);
/**
 * One step of direct preference optimisation (Rafailov et al., 2023):
 * loss = −log σ(beta·((chosen − ref) − (rejected − ref))).
 * @param beta  > 0; 0.1 is usual.
 */
FM_MUST_USE fm_status_t fm_engine_trainer_dpo(fm_engine_trainer_t *trainer,
                                              const fm_engine_pair_t *pairs,
                                              size_t count, double beta,
                                              fm_engine_metrics_t *metrics_out,
                                              fm_error_t *err);

/** The learning rate of step @p step (from 1). */
double fm_engine_trainer_rate(const fm_engine_trainer_t *trainer,
                              uint64_t step);
/** A permutation of 0 … count−1 that depends on seed and @p epoch only. */
void fm_engine_trainer_order(const fm_engine_trainer_t *trainer, uint64_t epoch,
                             size_t count, size_t *order_out);

/* What a checkpoint holds besides the parameters. */
typedef enum fm_engine_moment {
    FM_ENGINE_MOMENT_FIRST, /**< Adam's m */
    FM_ENGINE_MOMENT_SECOND /**< Adam's v */
} fm_engine_moment_t;

/** Steps done. */
uint64_t fm_engine_trainer_step(const fm_engine_trainer_t *trainer);
void fm_engine_trainer_set_step(fm_engine_trainer_t *trainer, uint64_t step);
/** Copy elements of a moment; offsets and sizes are those of the model. */
FM_MUST_USE fm_status_t fm_engine_trainer_read(
    const fm_engine_trainer_t *trainer, fm_engine_moment_t moment,
    size_t offset, size_t count, float *host, fm_error_t *err);
FM_MUST_USE fm_status_t fm_engine_trainer_write(fm_engine_trainer_t *trainer,
                                                fm_engine_moment_t moment,
                                                size_t offset, size_t count,
                                                const float *host,
                                                fm_error_t *err);
/** Copy elements of the last step's gradient (before clipping). */
FM_MUST_USE fm_status_t fm_engine_trainer_read_gradient(
    const fm_engine_trainer_t *trainer, size_t offset, size_t count,
    float *host, fm_error_t *err);

#endif
