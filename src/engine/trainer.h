/* SPDX-License-Identifier: Apache-2.0 */
/** @file trainer.h  What train.c and optimizer.c share.  Private. */
#ifndef FM_ENGINE_TRAINER_H
#define FM_ENGINE_TRAINER_H

#include "engine/pass.h"
#include "engine/tokenizer.h"
#include "engine/train.h"

/** Sequences gathered for one forward and backward; host memory. */
typedef struct fm_engine_micro {
    fm_engine_tokens_t tokens;
    fm_engine_tokens_t offsets; /**< [sequences + 1] */
    fm_engine_tokens_t rows;    /**< rows whose next token counts */
    fm_engine_tokens_t targets; /**< that next token */
    fm_engine_tokens_t owners;  /**< sequence of each row in `rows` */
    float *scales;              /**< [rows] */
    float *logp;                /**< [rows] */
    size_t capacity;            /**< of scales and logp */
} fm_engine_micro_t;

struct fm_engine_trainer {
    fm_engine_model_t *model;
    fm_engine_backend_t *be;
    fm_engine_pass_t *pass;
    fm_engine_train_options_t options;
    uint64_t step;
    float *grads; /**< device, model size; so are the moments */
    float *moments[2];
    fm_engine_micro_t micro;
};

/** Clear the gradient before the first micro-batch of a step. */
void fm_engine_trainer_begin(fm_engine_trainer_t *trainer);
/** Norm, clipping, update; fills step, norm and rate of @p metrics. */
FM_MUST_USE fm_status_t fm_engine_trainer_update(fm_engine_trainer_t *trainer,
                                                 fm_engine_metrics_t *metrics,
                                                 fm_error_t *err);

#endif
