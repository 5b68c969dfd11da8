/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file bpe.h
 * A tokenizer.json of Hugging Face: byte-pair encoding with its normalizer,
 * pre-tokenizer, added tokens and decoder.
 *
 * Encode: added tokens that are not "normalized" are found in the text; what
 * lies between is normalised; the other added tokens are found; what lies
 * between is cut into words by the pre-tokenizer; each word is merged (Sennrich
 * et al. 2016: the pair of lowest rank first, of equals the leftmost).
 * Decode: the decoder's steps on the list of tokens.  Ids and texts are those
 * of the `tokenizers` library.  A part of the file that is not known is refused
 * by name; settings of truncation and padding are the caller's business and
 * ignored.
 *
 * Threads: immutable after creation, may be shared.
 */
#ifndef FM_TEXT_BPE_BPE_H
#define FM_TEXT_BPE_BPE_H

#include "base/buf.h"

/** Ids are below this: 16 times the largest published vocabulary. */
#define FM_BPE_ID_LIMIT ((int64_t)1 << 22)
/** Most entries of "merges". */
#define FM_BPE_MERGES_MAX ((size_t)1 << 22)
#define FM_BPE_ADDED_MAX ((size_t)1 << 16)

typedef struct fm_bpe fm_bpe_t;

/**
 * Read tokenizer.json.
 * @param json  @p len bytes of UTF-8; not kept.
 * @retval FM_ERR_INVALID      the text names the entry, such as
 *                             "model.merges[7]".
 * @retval FM_ERR_UNSUPPORTED  the text names the part.
 * @retval FM_ERR_LIMIT        one of the bounds above.
 */
FM_MUST_USE fm_status_t fm_bpe_create(const void *json, size_t len,
                                      fm_bpe_t **bpe_out, fm_error_t *err);
void *fm_bpe_destroy(fm_bpe_t *bpe);

/** One more than the largest id. */
int32_t fm_bpe_id_limit(const fm_bpe_t *bpe);
/** Text of @p id in the vocabulary, *@p len_out bytes; NULL: unused id. */
const char *fm_bpe_token(const fm_bpe_t *bpe, int32_t id, size_t *len_out);
/** The id of a text in the vocabulary or the added tokens; -1: none. */
int32_t fm_bpe_find(const fm_bpe_t *bpe, const char *token, size_t len);
bool fm_bpe_is_special(const fm_bpe_t *bpe, int32_t id);
/** What the post-processor puts around one text; -1: nothing. */
void fm_bpe_around(const fm_bpe_t *bpe, int32_t *before_out,
                   int32_t *after_out);

/** A growing list of ids with, where asked for, the byte each begins at. */
typedef struct fm_bpe_ids {
    int32_t *ids;
    uint32_t *begins; /**< offset in the text; only with options.offsets */
    size_t count;
    size_t capacity;
} fm_bpe_ids_t;
void fm_bpe_ids_fini(fm_bpe_ids_t *ids);

typedef struct fm_bpe_encode_options {
    bool parse_special; /**< find special tokens in the text */
    /** NULL, or one mark a byte of the text: a special token is found only
     *  where all its bytes have mark 0. */
    const uint16_t *marks;
    bool offsets; /**< fill begins */
    size_t limit; /**< most ids; more is FM_ERR_LIMIT */
} fm_bpe_encode_options_t;

/**
 * Append the ids of @p text, @p len bytes (< 2^32).
 * @retval FM_ERR_INVALID  not UTF-8; a character without a token (there is no
 *                         unk_token and no byte fallback for it).
 */
FM_MUST_USE fm_status_t fm_bpe_encode(const fm_bpe_t *bpe, const char *text,
                                      size_t len,
                                      const fm_bpe_encode_options_t *options,
                                      fm_bpe_ids_t *ids, fm_error_t *err);

typedef struct fm_bpe_decode_options {
    bool keep_special; /**< spell specials out */
    bool raw;          /**< bytes as they are, not U+FFFD for bad ones */
    bool continued;    /**< tokens came before: nothing is stripped in front */
} fm_bpe_decode_options_t;
/** Append the text of @p ids, which are all within 0…id_limit-1; an unused id
 *  gives nothing. */
FM_MUST_USE fm_status_t fm_bpe_decode(const fm_bpe_t *bpe, const int32_t *ids,
                                      size_t count,
                                      const fm_bpe_decode_options_t *options,
                                      fm_buf_t *out, fm_error_t *err);
/** Whether the decoder joins @p id with its neighbours of the same sort: one
 *  byte of a run that makes up characters together. */
bool fm_bpe_is_byte(const fm_bpe_t *bpe, int32_t id);

#endif
