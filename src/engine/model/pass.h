/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file pass.h
 * One forward and backward pass of a model over packed sequences.
 *
 * Sequences of any lengths lie end to end: no row is padding.  The pass owns
 * the activations in one arena, sized by the largest batch seen; it grows and
 * never shrinks.  The order is forward(), head() once or twice, backward().
 *
 * The result of a sequence in a forward() of several may depend in the last
 * bits on the others (matrix products see the whole batch); alone in a
 * forward() it depends on itself only.
 *
 * Threads: as its model.
 */
#ifndef FM_ENGINE_MODEL_PASS_H
#define FM_ENGINE_MODEL_PASS_H

#include "engine/model/adapter.h"
#include "engine/model/model.h"

typedef struct fm_engine_pass fm_engine_pass_t;

/** Sequences to run; host memory, not kept. */
typedef struct fm_engine_batch {
    const int32_t *tokens;  /**< [offsets[count]], each below vocab_size */
    const int32_t *offsets; /**< [count + 1], rising, offsets[0] = 0 */
    size_t count;
} fm_engine_batch_t;

/** Most tokens of one batch: keeps row numbers in 31 bits. */
#define FM_ENGINE_BATCH_TOKENS ((size_t)1 << 22)

/** What a pass keeps of its layers: flags of fm_engine_pass_create(). */
enum {
    /** Nothing: one set of activations for all layers; no backward(). */
    FM_ENGINE_PASS_INFER = 0,
    /** Everything that backward() needs. */
    FM_ENGINE_PASS_TRAIN = 1,
    /** With TRAIN: each layer's input alone; backward() runs a layer once more
     *  (Chen et al., 2016).  The same bits, a third more work, and memory for
     *  hidden_size floats a token and layer. */
    FM_ENGINE_PASS_CHECKPOINT = 2
};

/**
 * @param model  kept; must outlive the pass.
 * @param flags  FM_ENGINE_PASS_…
 */
FM_MUST_USE fm_status_t fm_engine_pass_create(fm_engine_model_t *model,
                                              unsigned flags,
                                              fm_engine_pass_t **pass_out,
                                              fm_error_t *err);
fm_engine_pass_t *fm_engine_pass_destroy(fm_engine_pass_t *pass);

/**
 * Add an adapter to the products from the next forward() on.
 * @param adapter  of a model of the same configuration; kept; NULL: none.
 */
void fm_engine_pass_set_adapter(fm_engine_pass_t *pass,
                                const fm_engine_adapter_t *adapter);
/** Where backward() adds the adapter's gradient: device [adapter size]; NULL:
 *  not wanted, as after fm_engine_pass_set_adapter(). */
void fm_engine_pass_set_adapter_grads(fm_engine_pass_t *pass, float *grads);

/** A stream of dropout masks for the inputs of the adapter's A. */
typedef struct fm_engine_dropout {
    uint64_t key;       /**< another one every step */
    uint64_t first_row; /**< tokens of the step before this batch: a token's
                             mask does not depend on how a step is cut */
} fm_engine_dropout_t;

/** Dropout at the adapter's rate from the next forward() to its backward();
 *  NULL turns it off. */
void fm_engine_pass_set_dropout(fm_engine_pass_t *pass,
                                const fm_engine_dropout_t *dropout);

/**
 * Run the layers; the final hidden states stay in the pass.
 * @retval FM_ERR_INVALID  a token outside the vocabulary, an empty sequence.
 * @retval FM_ERR_LIMIT    a sequence beyond max_position_embeddings, a batch
 *                         beyond FM_ENGINE_BATCH_TOKENS.
 */
FM_MUST_USE fm_status_t fm_engine_pass_forward(fm_engine_pass_t *pass,
                                               const fm_engine_batch_t *batch,
                                               fm_error_t *err);

/** What of the head is wanted; all arrays are of the host, one element a row.
 */
typedef struct fm_engine_head {
    const int32_t *rows;         /**< rows of the batch whose state predicts */
    const int32_t *targets;      /**< the token each row should predict */
    const float *scales;         /**< NULL: no gradient */
    const float *entropy_scales; /**< NULL: zeros; only with the other two */
    float *logp_out;
    float *entropy_out; /**< of the whole distribution; NULL: not wanted */
    /** Fills the scales of rows @p first … once their log-probs (and entropies)
     *  are known: a loss of rows costs one product with the head, not two.
     *  NULL: the scales are there. */
    fm_status_t (*slope)(void *ctx, size_t first, size_t count,
                         fm_error_t *err);
    void *ctx;
} fm_engine_head_t;

/**
 * Log-probabilities of targets, and with scales the gradient of
 * Σ scales·logp + entropy_scales·entropy with respect to the head and the
 * hidden states.  The logits exist in chunks of rows only, never for all rows
 * at once.
 *
 * @param grads  device [model size], +=; NULL: the head is frozen.
 */
FM_MUST_USE fm_status_t fm_engine_pass_logprobs(fm_engine_pass_t *pass,
                                                const fm_engine_head_t *head,
                                                size_t count, float *grads,
                                                fm_error_t *err);
/** The same without entropy. */
FM_MUST_USE fm_status_t fm_engine_pass_head(fm_engine_pass_t *pass,
                                            const int32_t *rows,
                                            const int32_t *targets,
                                            const float *scales, size_t count,
                                            float *grads, float *logp_out,
                                            fm_error_t *err);

/**
 * A scalar head over the final hidden states: values_out[i] = hidden[rows[i]]
 * · weight, and with @p scales the gradient of Σ scales·values.
 *
 * @param weight   device [hidden_size].
 * @param rows     host [count]: rows of the batch.
 * @param scales   host [count], or NULL for the values alone.
 * @param dweight  device [hidden_size], +=; NULL: not wanted.
 */
FM_MUST_USE fm_status_t fm_engine_pass_value(fm_engine_pass_t *pass,
                                             const float *weight,
                                             const int32_t *rows,
                                             const float *scales, size_t count,
                                             float *dweight, float *values_out,
                                             fm_error_t *err);

/** Logits of @p rows into host memory [count, vocab_size]. */
FM_MUST_USE fm_status_t fm_engine_pass_logits(fm_engine_pass_t *pass,
                                              const int32_t *rows, size_t count,
                                              float *logits_out,
                                              fm_error_t *err);

/** Final hidden states of rows [@p first, first + count), after the last norm,
 *  into host memory [count, hidden_size]. */
FM_MUST_USE fm_status_t fm_engine_pass_hidden(fm_engine_pass_t *pass,
                                              size_t first, size_t count,
                                              float *states_out,
                                              fm_error_t *err);

/** Carry what head() and value() left back through the layers: @p grads (of
 *  the model; NULL: it is frozen) +=, and the adapter's. */
FM_MUST_USE fm_status_t fm_engine_pass_backward(fm_engine_pass_t *pass,
                                                float *grads, fm_error_t *err);

#endif
