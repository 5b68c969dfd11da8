/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file training.h
 * What the training operators share: the samples, the state that is trained,
 * the table of its steps and the checkpoints.
 *
 * What changes is the model, or with LoRA an adapter over a base that stays
 * resident and is shared with the next training.
 *
 * A run of sft, dpo or reward_model is a method (a row of functions) in the
 * hands of fm_ops_train(); ppo and grpo (policy.c) drive the same state.
 */
#ifndef FM_RUN_OPS_TRAIN_TRAINING_H
#define FM_RUN_OPS_TRAIN_TRAINING_H

#include "run/model/model.h"
#include "run/ops/internal.h"

/** Samples, pairs or rollouts of one item: what a step's row can name. */
#define OPS_SAMPLES_MAX 1000000
#define OPS_STEPS_MAX (INT64_C(1) << 40)

/** What is trained on: samples, or pairs. */
typedef struct fm_ops_samples {
    size_t count;
    fm_ops_sequence_t *sequences; /**< [sequence_count]: the tokens */
    size_t sequence_count;
    fm_engine_sample_t *samples; /**< [count], or NULL */
    fm_engine_pair_t *pairs;     /**< [count], or NULL */
} fm_ops_samples_t;

void fm_ops_samples_fini(fm_ops_samples_t *samples);
/** From {"samples": [{"messages"} | {"text"} | {"prompt", "completion"}, …]}.
 */
FM_MUST_USE fm_status_t fm_ops_samples_make(const fm_ops_model_t *model,
                                            const fm_json_t *value,
                                            const fm_ops_limit_t *limit,
                                            fm_ops_samples_t *out,
                                            fm_error_t *err);
/** From {"pairs": [{"prompt", "chosen", "rejected"}, …]} and, with
 *  @p reference, {"reference": [{"chosen": {"logprob"}, "rejected"}, …]}. */
FM_MUST_USE fm_status_t fm_ops_pairs_make(const fm_ops_model_t *model,
                                          const fm_json_t *value,
                                          const fm_ops_limit_t *limit,
                                          bool reference, fm_ops_samples_t *out,
                                          fm_error_t *err);

/** Those of a step in one array; free() it. */
FM_MUST_USE fm_status_t fm_ops_pairs_take(const fm_ops_samples_t *samples,
                                          const size_t *chosen, size_t count,
                                          fm_engine_pair_t **pairs_out,
                                          fm_error_t *err);

/** A figure of a step beyond loss, grad_norm and learning_rate. */
typedef struct fm_ops_column {
    const char *name;
    size_t offset; /**< of a double in fm_engine_metrics_t */
} fm_ops_column_t;

/** One line a step: canonical JSON, so that a resumed run gives the same
 *  bytes.  Zero-initialise it. */
typedef struct fm_ops_table {
    fm_buf_t text;
    size_t last; /**< where the last line begins */
} fm_ops_table_t;

void fm_ops_table_fini(fm_ops_table_t *table);
/** @param row  consumed; NULL: no memory. */
FM_MUST_USE fm_status_t fm_ops_table_add(fm_ops_table_t *table, fm_json_t *row,
                                         fm_error_t *err);
/** The rows from @p text, which they replace. */
FM_MUST_USE fm_status_t fm_ops_table_set(fm_ops_table_t *table,
                                         const fm_buf_t *text, fm_error_t *err);
/** The first or the last row; new reference, *row_out = NULL: there is none.
 */
FM_MUST_USE fm_status_t fm_ops_table_row(const fm_ops_table_t *table, bool last,
                                         fm_json_t **row_out, fm_error_t *err);

/** A scalar head that is trained along. */
typedef enum fm_ops_head {
    OPS_HEAD_NONE,
    OPS_HEAD_SCORE, /**< of a reward model: it is part of the result */
    OPS_HEAD_CRITIC /**< of a policy: it is part of the state alone */
} fm_ops_head_t;

/** A training under way. */
typedef struct fm_ops_training {
    fm_ops_run_t *run;
    size_t item;
    const fm_ops_column_t *columns; /**< of the method */
    size_t column_count;
    fm_ops_head_t head;
    const fm_ops_model_t *model; /**< what runs: own, or a resident base */
    fm_ops_model_t own;          /**< the model that changes; empty with LoRA */
    fm_model_adapter_t adapter;  /**< what changes with LoRA, else empty */
    fm_engine_value_t *value;    /**< the head, or NULL */
    fm_engine_trainer_t *trainer;
    fm_engine_train_options_t options;
    fm_ops_limit_t limit;
    fm_digest_t work; /**< of parameters and value: whose state it is */
    uint64_t tokens;  /**< run through the model so far */
    fm_ops_table_t table;
    double warmup_ratio; /**< of the schedule's steps; 0: warmup_steps say */
    /* when to say something and to save; no part of the result */
    uint64_t steps;      /**< of this run, once they are known */
    uint64_t step_begin; /**< of the trainer before this run */
    int64_t log_steps;   /**< 0: about a hundredth of the run */
    int64_t save_steps;  /**< 0: not by steps */
    int64_t save_ns;
    int64_t saved_ns;     /**< the last save, or the start */
    int64_t said_ns;      /**< the last progress, or the start */
    uint64_t said_tokens; /**< `tokens` then */
} fm_ops_training_t;

/**
 * Read params and hints, load or build what is to be trained.
 * @param training  run, item, columns, head set; the rest zero.
 */
FM_MUST_USE fm_status_t fm_ops_training_open(fm_ops_training_t *training,
                                             fm_error_t *err);
/** Let the schedule have @p total steps. */
void fm_ops_training_schedule(fm_ops_training_t *training, uint64_t total);
/** Make the trainer, once the options are final. */
FM_MUST_USE fm_status_t fm_ops_training_start(fm_ops_training_t *training,
                                              fm_error_t *err);
void fm_ops_training_fini(fm_ops_training_t *training);

/**
 * After a step: its row (with what @p row has already, consumed), progress,
 * a checkpoint when it is time.
 * @param more  whether another step follows.
 * @retval FM_ERR_CANCELLED  asked to stop; a checkpoint is saved.
 */
FM_MUST_USE fm_status_t fm_ops_training_stepped(
    fm_ops_training_t *training, const fm_engine_metrics_t *metrics,
    const size_t *samples, size_t count, uint64_t epoch, fm_json_t *row,
    bool more, fm_error_t *err);
/** model (and adapter), table and @p metrics (consumed) as the output. */
FM_MUST_USE fm_status_t fm_ops_training_output(fm_ops_training_t *training,
                                               fm_json_t *metrics,
                                               fm_ops_output_t *output,
                                               fm_error_t *err);

/* States (checkpoint.c). */
/** Store the state, not sealed.
 *  @param work    whose state it is.
 *  @param output  gets its objects, the manifest last. */
FM_MUST_USE fm_status_t fm_ops_state_put(fm_ops_training_t *training,
                                         const fm_digest_t *work,
                                         fm_ops_output_t *output,
                                         fm_digest_t *state_out,
                                         fm_error_t *err);
/** Continue from a state.  On failure nothing has changed, unless a write to
 *  the device failed.
 *  @retval FM_ERR_INVALID    no state, or that of other work.
 *  @retval FM_ERR_NOT_FOUND  it, or a part of it, is lost. */
FM_MUST_USE fm_status_t fm_ops_state_get(fm_ops_training_t *training,
                                         const fm_digest_t *state,
                                         const fm_digest_t *work,
                                         fm_error_t *err);
/** Store, seal and report the state. */
FM_MUST_USE fm_status_t fm_ops_checkpoint_save(fm_ops_training_t *training,
                                               fm_error_t *err);
/** Continue from run->checkpoint.  One that is lost or damaged is passed
 *  over: starting again gives the same result.
 *  @retval FM_ERR_INVALID  it is the state of other work. */
FM_MUST_USE fm_status_t fm_ops_checkpoint_load(fm_ops_training_t *training,
                                               fm_error_t *err);

/** A way to train on the samples of one item. */
typedef struct fm_ops_method {
    fm_status_t (*samples)(const fm_ops_training_t *training,
                           fm_ops_samples_t *out, fm_error_t *err);
    /** One optimiser step over chosen[count]. */
    fm_status_t (*step)(fm_ops_training_t *training,
                        const fm_ops_samples_t *samples, const size_t *chosen,
                        size_t count, fm_engine_metrics_t *metrics_out,
                        fm_error_t *err);
    const fm_ops_column_t *columns;
    size_t column_count;
    fm_ops_head_t head;
} fm_ops_method_t;

/** The operator of @p method (train.c). */
FM_MUST_USE fm_status_t fm_ops_train(fm_ops_run_t *run, size_t item,
                                     const fm_ops_method_t *method,
                                     fm_ops_output_t *output, fm_error_t *err);

#endif
