/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file tokenizer.h
 * Text to token ids and back.
 *
 * The byte-level tokenizer has one token a byte and three specials after
 * them: ids 0…255 are the bytes, 256 begins a sequence, 257 ends one, 258
 * pads; the vocabulary is rounded up to 260.  Every byte string encodes, and
 * decode(encode(s)) = s.  Other kinds join behind the same functions.
 *
 * Threads: a tokenizer is immutable and may be shared.
 */
#ifndef FM_ENGINE_TOKENIZER_H
#define FM_ENGINE_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/json.h"

/** Ids of the byte-level tokenizer. */
#define FM_ENGINE_BYTE_BOS 256
#define FM_ENGINE_BYTE_EOS 257
#define FM_ENGINE_BYTE_PAD 258
#define FM_ENGINE_BYTE_VOCAB 260

/** Most tokens one encode yields: bounds a prompt before it reaches a model. */
#define FM_ENGINE_ENCODE_LIMIT ((size_t)1 << 24)

typedef struct fm_engine_tokenizer fm_engine_tokenizer_t;

/** A growing list of token ids; zero-initialise it. */
typedef struct fm_engine_tokens {
    int32_t *ids;
    size_t count;
    size_t capacity;
} fm_engine_tokens_t;

/** Release the memory; the list is empty and usable again. */
void fm_engine_tokens_fini(fm_engine_tokens_t *tokens);
FM_MUST_USE fm_status_t fm_engine_tokens_add(fm_engine_tokens_t *tokens,
                                             int32_t id, fm_error_t *err);

/** The byte-level tokenizer. */
FM_MUST_USE fm_status_t fm_engine_tokenizer_create_byte(
    fm_engine_tokenizer_t **tokenizer_out, fm_error_t *err);
/**
 * The tokenizer that @p description names, as fm_engine_tokenizer_describe()
 * writes it: {"type": "byte"}.
 * @retval FM_ERR_UNSUPPORTED  a type this build does not know.
 */
FM_MUST_USE fm_status_t fm_engine_tokenizer_create(
    const fm_json_t *description, fm_engine_tokenizer_t **tokenizer_out,
    fm_error_t *err);
/** Description for fm_engine_tokenizer_create(); new reference or NULL. */
FM_MUST_USE fm_json_t *
fm_engine_tokenizer_describe(const fm_engine_tokenizer_t *tokenizer);
fm_engine_tokenizer_t *
fm_engine_tokenizer_destroy(fm_engine_tokenizer_t *tokenizer);

/** Ids are below this; a model needs vocab_size of at least as much. */
int32_t fm_engine_tokenizer_vocab_size(const fm_engine_tokenizer_t *tokenizer);
int32_t fm_engine_tokenizer_bos(const fm_engine_tokenizer_t *tokenizer);
int32_t fm_engine_tokenizer_eos(const fm_engine_tokenizer_t *tokenizer);
int32_t fm_engine_tokenizer_pad(const fm_engine_tokenizer_t *tokenizer);

/**
 * Append the tokens of @p text (no specials: add bos and eos yourself).
 * @param text  @p len bytes, any content; specials cannot be spelled in it.
 * @retval FM_ERR_LIMIT  more than FM_ENGINE_ENCODE_LIMIT tokens in all.
 */
FM_MUST_USE fm_status_t fm_engine_tokenizer_encode(
    const fm_engine_tokenizer_t *tokenizer, const char *text, size_t len,
    fm_engine_tokens_t *tokens, fm_error_t *err);
/**
 * Append the text of @p ids; specials and unused ids give nothing.  The bytes
 * need not be UTF-8: a model may have sampled half a character.
 * @retval FM_ERR_INVALID  an id outside the vocabulary.
 */
FM_MUST_USE fm_status_t fm_engine_tokenizer_decode(
    const fm_engine_tokenizer_t *tokenizer, const int32_t *ids, size_t count,
    fm_buf_t *text, fm_error_t *err);
/**
 * Like fm_engine_tokenizer_decode(), with every byte that is not part of a
 * valid UTF-8 character replaced by U+FFFD, so the text fits a JSON string.
 */
FM_MUST_USE fm_status_t fm_engine_tokenizer_decode_utf8(
    const fm_engine_tokenizer_t *tokenizer, const int32_t *ids, size_t count,
    fm_buf_t *text, fm_error_t *err);

#endif
