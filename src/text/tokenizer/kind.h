/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file tokenizer_kind.h
 * What a kind of tokenizer is, for the files of the tokenizer and of chat.
 */
#ifndef FM_TEXT_TOKENIZER_KIND_H
#define FM_TEXT_TOKENIZER_KIND_H

#include "text/bpe/bpe.h"
#include "text/template/template.h"
#include "text/tokenizer/tokenizer.h"

/** One row a kind. */
typedef struct fm_tokenizer_kind {
    const char *name;
    /** As fm_bpe_encode(): special tokens, marks, offsets, limit. */
    fm_status_t (*encode)(const fm_tokenizer_t *tokenizer, const char *text,
                          size_t len, const fm_bpe_encode_options_t *options,
                          fm_bpe_ids_t *ids, fm_error_t *err);
    /** As fm_bpe_decode(): all ids are within the vocabulary. */
    fm_status_t (*decode)(const fm_tokenizer_t *tokenizer, const int32_t *ids,
                          size_t count, const fm_bpe_decode_options_t *options,
                          fm_buf_t *text, fm_error_t *err);
    bool (*is_special)(const fm_tokenizer_t *tokenizer, int32_t id);
    /** Whether @p id is a byte of a run that must be decoded together. */
    bool (*is_byte)(const fm_tokenizer_t *tokenizer, int32_t id);
    int32_t (*find)(const fm_tokenizer_t *tokenizer, const char *token);
    /** Spelling of @p id, *@p len_out bytes; NULL: none. */
    const char *(*token)(const fm_tokenizer_t *tokenizer, int32_t id,
                         size_t *len_out);
} fm_tokenizer_kind_t;

extern const fm_tokenizer_kind_t fm_tokenizer_kind_byte;
extern const fm_tokenizer_kind_t fm_tokenizer_kind_json;

/** Most ids that end a sequence. */
#define FM_ENGINE_EOS_MAX 16

struct fm_tokenizer {
    const fm_tokenizer_kind_t *kind;
    fm_json_t *description;
    fm_bpe_t *bpe;       /* of kind json */
    fm_template_t *chat; /* NULL: none */
    int32_t vocab_size;
    int32_t bos; /* -1: none */
    int32_t pad;
    int32_t eos[FM_ENGINE_EOS_MAX];
    size_t eos_count;
    bool add_bos;
    bool add_eos;
};

/** kind->decode(), and where the text is UTF-8, U+FFFD for NUL: the JSON of
 *  this project has no strings with NUL. */
fm_status_t fm_tokenizer_spell(const fm_tokenizer_t *tokenizer,
                               const int32_t *ids, size_t count,
                               const fm_bpe_decode_options_t *options,
                               fm_buf_t *text, fm_error_t *err);

#endif
