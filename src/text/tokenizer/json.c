/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kind "json": a tokenizer.json, read by text/bpe.
 */
#include <string.h>

#include "text/tokenizer/kind.h"

static fm_status_t json_encode(const fm_tokenizer_t *tokenizer,
                               const char *text, size_t len,
                               const fm_bpe_encode_options_t *options,
                               fm_bpe_ids_t *ids, fm_error_t *err)
{
    return fm_bpe_encode(tokenizer->bpe, text, len, options, ids, err);
}

static fm_status_t json_decode(const fm_tokenizer_t *tokenizer,
                               const int32_t *ids, size_t count,
                               const fm_bpe_decode_options_t *options,
                               fm_buf_t *text, fm_error_t *err)
{
    return fm_bpe_decode(tokenizer->bpe, ids, count, options, text, err);
}

static bool json_is_special(const fm_tokenizer_t *tokenizer, int32_t id)
{
    return fm_bpe_is_special(tokenizer->bpe, id);
}

static bool json_is_byte(const fm_tokenizer_t *tokenizer, int32_t id)
{
    return fm_bpe_is_byte(tokenizer->bpe, id);
}

static int32_t json_find(const fm_tokenizer_t *tokenizer, const char *token)
{
    return fm_bpe_find(tokenizer->bpe, token, strlen(token));
}

static const char *json_token(const fm_tokenizer_t *tokenizer, int32_t id,
                              size_t *len_out)
{
    return fm_bpe_token(tokenizer->bpe, id, len_out);
}

const fm_tokenizer_kind_t fm_tokenizer_kind_json = {
    .name = "json",
    .encode = json_encode,
    .decode = json_decode,
    .is_special = json_is_special,
    .is_byte = json_is_byte,
    .find = json_find,
    .token = json_token,
};
