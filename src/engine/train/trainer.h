/* SPDX-License-Identifier: Apache-2.0 */
/** @file trainer.h  What the training methods share.  Private. */
#ifndef FM_ENGINE_TRAIN_TRAINER_H
#define FM_ENGINE_TRAIN_TRAINER_H

#include "engine/model/pass.h"
#include "engine/train/train.h"
#include "text/tokenizer/tokenizer.h"

/**
 * Sequences gathered for one forward and backward, and the rows of them that
 * a loss looks at; host memory.
 */
typedef struct fm_engine_micro {
    fm_tokens_t tokens;
    fm_tokens_t offsets; /**< [sequences + 1] */
    fm_tokens_t rows;    /**< rows that are looked at */
    fm_tokens_t targets; /**< the next token of each */
    fm_tokens_t owners;  /**< sequence of each */
    size_t capacity;     /**< of the arrays below, one element a row */
    float *logp;
    float *entropy;
    float *values;
    float *scales;         /**< d loss / d logp */
    float *entropy_scales; /**< d loss / d entropy */
    float *value_scales;   /**< d loss / d value */
} fm_engine_micro_t;

enum { FM_ENGINE_BLOCKS_MAX = 2 };

/** Device memory of a block; all but params belong to the trainer. */
typedef struct fm_engine_planes {
    float *params;
    float *grads;
    float *moments[2];
} fm_engine_planes_t;

struct fm_engine_trainer {
    fm_engine_parts_t parts;
    fm_engine_backend_t *be;
    fm_engine_pass_t *pass;
    fm_engine_train_options_t options;
    uint64_t step;
    uint64_t step_rows;  /**< tokens of this step already run */
    const size_t *names; /**< of the samples, for error texts; or NULL */
    fm_engine_block_t blocks[FM_ENGINE_BLOCKS_MAX];
    fm_engine_planes_t planes[FM_ENGINE_BLOCKS_MAX];
    size_t block_count;
    float *model_grads; /**< of one of the planes; NULL: frozen */
    float *value_grads; /**< likewise; NULL: no scalar head */
    fm_engine_micro_t micro;
};

/* --- optimizer.c --------------------------------------------------------- */

fm_status_t fm_engine_train_options_check(const fm_engine_train_options_t *o,
                                          fm_error_t *err);
/** Clear the gradient before the first micro-batch of a step. */
void fm_engine_trainer_begin(fm_engine_trainer_t *trainer);
/** Norm, clipping, update; fills step, norm and rate of @p metrics. */
FM_MUST_USE fm_status_t fm_engine_trainer_update(fm_engine_trainer_t *trainer,
                                                 fm_engine_metrics_t *metrics,
                                                 fm_error_t *err);

/* --- micro.c ------------------------------------------------------------- */

/** How a method fills micro-batches and turns them into gradients. */
typedef struct fm_engine_method {
    /** Tokens of item @p i. */
    size_t (*length)(const void *ctx, size_t i);
    /** Append the sequences of item @p i. */
    fm_status_t (*add)(fm_engine_micro_t *micro, const void *ctx, size_t i,
                       fm_error_t *err);
    /** Layers and head were run forward over items @p first …: the loss, and
     *  the gradient up to the layers. */
    fm_status_t (*loss)(fm_engine_trainer_t *trainer, void *ctx, size_t first,
                        fm_engine_metrics_t *m, fm_error_t *err);
    bool dropout;
} fm_engine_method_t;

/** Cut @p count items into micro-batches; run each forward, take its loss and,
 *  with @p back, run it backward.  Adds to the gradient and to m->tokens. */
FM_MUST_USE fm_status_t fm_engine_micro_run(fm_engine_trainer_t *trainer,
                                            const fm_engine_method_t *method,
                                            void *ctx, size_t count, bool back,
                                            fm_engine_metrics_t *m,
                                            fm_error_t *err);
/** begin(), micro_run(), update(): a whole step. */
FM_MUST_USE fm_status_t fm_engine_micro_step(fm_engine_trainer_t *trainer,
                                             const fm_engine_method_t *method,
                                             void *ctx, size_t count,
                                             fm_engine_metrics_t *m,
                                             fm_error_t *err);

size_t fm_engine_micro_sequences(const fm_engine_micro_t *micro);
/** Open the next sequence; the one before it ends here. */
FM_MUST_USE fm_status_t fm_engine_micro_open(fm_engine_micro_t *micro,
                                             fm_error_t *err);
/** Append tokens to the open sequence.  With @p counts, those of @p mask (NULL:
 *  all) are predicted; the first token of a sequence never is. */
FM_MUST_USE fm_status_t fm_engine_micro_add(fm_engine_micro_t *micro,
                                            const int32_t *tokens,
                                            const uint8_t *mask, size_t count,
                                            bool counts, fm_error_t *err);
/** Look at the last token of the open sequence. */
FM_MUST_USE fm_status_t fm_engine_micro_last(fm_engine_micro_t *micro,
                                             fm_error_t *err);
/** Log-probs of the rows into micro->logp, with @p entropy also entropies;
 *  with @p back the gradient by scales and, with entropy, entropy_scales. */
FM_MUST_USE fm_status_t fm_engine_micro_logprobs(fm_engine_trainer_t *trainer,
                                                 bool entropy, bool back,
                                                 fm_error_t *err);
/** The same with entropies and the gradient, by the scales and entropy_scales
 *  that @p slope fills in (see fm_engine_head_t). */
FM_MUST_USE fm_status_t
fm_engine_micro_policy(fm_engine_trainer_t *trainer,
                       fm_status_t (*slope)(void *ctx, size_t first,
                                            size_t count, fm_error_t *err),
                       void *ctx, fm_error_t *err);
/** Scalar head at the rows into micro->values; with @p back by value_scales. */
FM_MUST_USE fm_status_t fm_engine_micro_values(fm_engine_trainer_t *trainer,
                                               bool back, fm_error_t *err);
void fm_engine_micro_fini(fm_engine_micro_t *micro);

/* --- checks; the texts name "<what> <index>" ----------------------------- */

FM_MUST_USE fm_status_t fm_tokens_check(const fm_engine_trainer_t *trainer,
                                        const char *what, size_t index,
                                        const int32_t *tokens, size_t count,
                                        fm_error_t *err);
FM_MUST_USE fm_status_t
fm_engine_length_check(const fm_engine_trainer_t *trainer, const char *what,
                       size_t index, size_t count, fm_error_t *err);
/** The error of a loss that is not finite. */
fm_status_t fm_engine_loss_refuse(const fm_engine_trainer_t *trainer,
                                  const char *what, size_t index,
                                  fm_error_t *err);

/* --- pairs.c ------------------------------------------------------------- */

/** Lengths and tokens of all; with @p references those too. */
FM_MUST_USE fm_status_t fm_engine_pairs_check(
    const fm_engine_trainer_t *trainer, const fm_engine_pair_t *pairs,
    size_t count, bool references, fm_error_t *err);
size_t fm_engine_pair_tokens(const fm_engine_pair_t *pair);
/** Two sequences, prompt + chosen and prompt + rejected; with @p last their
 *  last tokens are looked at, otherwise the completions. */
FM_MUST_USE fm_status_t fm_engine_pair_add(fm_engine_micro_t *micro,
                                           const fm_engine_pair_t *pair,
                                           bool last, fm_error_t *err);
/** log σ(x) without overflow. */
double fm_engine_log_sigmoid(double x);

#endif
