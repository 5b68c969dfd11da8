/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file decoder.h
 * One token at a time for many sequences, over a key-value cache.  Private.
 *
 * A slot holds the keys and values of one sequence.  prefill() fills a slot
 * from a prompt, step() advances any set of slots by one token; the logits of
 * a slot never depend on the other slots.
 */
#ifndef FM_ENGINE_DECODER_H
#define FM_ENGINE_DECODER_H

#include "engine/pass.h"

typedef struct fm_engine_decoder fm_engine_decoder_t;

/**
 * @param slots     sequences at a time.
 * @param capacity  positions of a slot.
 */
FM_MUST_USE fm_status_t fm_engine_decoder_create(
    fm_engine_model_t *model, size_t slots, size_t capacity,
    fm_engine_decoder_t **decoder_out, fm_error_t *err);
fm_engine_decoder_t *fm_engine_decoder_destroy(fm_engine_decoder_t *decoder);

/** Fill @p slot with a prompt; @p logits_out is host [vocab_size]. */
FM_MUST_USE fm_status_t fm_engine_decoder_prefill(
    fm_engine_decoder_t *decoder, size_t slot, const int32_t *tokens,
    size_t count, float *logits_out, fm_error_t *err);

/**
 * @param inputs      host [3, rows]: token, position and slot of each row.
 * @param logits_out  host [rows, vocab_size].
 */
FM_MUST_USE fm_status_t fm_engine_decoder_step(fm_engine_decoder_t *decoder,
                                               const int32_t *inputs,
                                               size_t rows, float *logits_out,
                                               fm_error_t *err);

#endif
