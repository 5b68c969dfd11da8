/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file decoder.h
 * The layers over rows of any sequences, against the paged key-value cache.
 * Private to the engine.
 *
 * A row is one token at one position of one sequence: the newest token of a
 * text being continued or one of many tokens of a prompt, which is all the
 * same here.  Every operation is row-invariant, and within a layer all keys
 * and values are stored before any row attends: a row's result is a function
 * of the tokens before it in its sequence and of its adapter, whatever else a
 * step holds, however a prompt is cut into steps and whoever filled the pages.
 */
#ifndef FM_ENGINE_SERVE_DECODER_H
#define FM_ENGINE_SERVE_DECODER_H

#include "engine/model/adapter.h"
#include "engine/model/model.h"

typedef struct fm_engine_decoder fm_engine_decoder_t;

typedef struct fm_engine_decoder_options {
    size_t rows;      /**< most rows of a step */
    size_t sequences; /**< most sequences of a step */
    size_t stride;    /**< most pages of a sequence */
    size_t pages;     /**< of the cache */
} fm_engine_decoder_options_t;

/** Rows to run; host memory, not kept. */
typedef struct fm_engine_step {
    const int32_t *tokens;    /**< [count] */
    const int32_t *positions; /**< [count]; rising within a sequence */
    const int32_t *sequences; /**< [count]: row of tables */
    const int32_t *which;     /**< [count]: adapter of the row, or −1 */
    size_t count;
    const int32_t *tables; /**< [sequence_count, stride]: pages */
    size_t sequence_count;
    size_t stride; /**< at most that of the options */
    const fm_engine_adapter_t *const *adapters; /**< [adapter_count] */
    size_t adapter_count;
    const int32_t *wanted; /**< [wanted_count]: rows whose logits are wanted;
                                at most one a sequence */
    size_t wanted_count;
} fm_engine_step_t;

/** Bytes of a page over all layers, keys and values. */
size_t fm_engine_decoder_page_bytes(const fm_engine_config_t *config);

FM_MUST_USE fm_status_t fm_engine_decoder_create(
    fm_engine_model_t *model, const fm_engine_decoder_options_t *options,
    fm_engine_decoder_t **decoder_out, fm_error_t *err);
fm_engine_decoder_t *fm_engine_decoder_destroy(fm_engine_decoder_t *decoder);

/** Whether the adapter's matrices have the shapes of the model's. */
bool fm_engine_decoder_fits(const fm_engine_decoder_t *decoder,
                            const fm_engine_adapter_t *adapter);

/** @param logits_out  host [wanted_count, vocab_size]. */
FM_MUST_USE fm_status_t fm_engine_decoder_run(fm_engine_decoder_t *decoder,
                                              const fm_engine_step_t *step,
                                              float *logits_out,
                                              fm_error_t *err);

#endif
