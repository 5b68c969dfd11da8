/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tokenizers.  Each kind is a row of functions; the byte-level kind has no
 * state of its own.
 */
#include "engine/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct kind {
    const char *name;
    int32_t vocab_size;
    int32_t bos;
    int32_t eos;
    int32_t pad;
    fm_status_t (*encode)(const fm_engine_tokenizer_t *tokenizer,
                          const char *text, size_t len,
                          fm_engine_tokens_t *tokens, fm_error_t *err);
    void (*decode)(const fm_engine_tokenizer_t *tokenizer, int32_t id,
                   fm_buf_t *text);
};

struct fm_engine_tokenizer {
    const struct kind *kind;
};

void fm_engine_tokens_fini(fm_engine_tokens_t *tokens)
{
    free(tokens->ids);
    *tokens = (fm_engine_tokens_t){0};
}

fm_status_t fm_engine_tokens_add(fm_engine_tokens_t *tokens, int32_t id,
                                 fm_error_t *err)
{
    fm_status_t rc = fm_grow(&tokens->ids, &tokens->capacity, tokens->count,
                             sizeof(id), err);

    if (rc >= 0) {
        tokens->ids[tokens->count++] = id;
    }
    return rc;
}

static fm_status_t byte_encode(const fm_engine_tokenizer_t *tokenizer,
                               const char *text, size_t len,
                               fm_engine_tokens_t *tokens, fm_error_t *err)
{
    (void)tokenizer;
    if (len > FM_ENGINE_ENCODE_LIMIT ||
        tokens->count > FM_ENGINE_ENCODE_LIMIT - len) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "text of %zu bytes after %zu tokens: the limit is "
                            "%zu tokens; split the text",
                            len, tokens->count, FM_ENGINE_ENCODE_LIMIT);
    }
    size_t before = tokens->count;
    for (size_t i = 0; i < len; i++) {
        fm_status_t rc =
            fm_engine_tokens_add(tokens, (int32_t)(unsigned char)text[i], err);
        if (rc < 0) {
            tokens->count = before;
            return rc;
        }
    }
    return FM_OK;
}

static void byte_decode(const fm_engine_tokenizer_t *tokenizer, int32_t id,
                        fm_buf_t *text)
{
    (void)tokenizer;
    if (id < 256) {
        fm_buf_add_u8(text, (uint8_t)id);
    }
}

static const struct kind kinds[] = {
    {"byte", FM_ENGINE_BYTE_VOCAB, FM_ENGINE_BYTE_BOS, FM_ENGINE_BYTE_EOS,
     FM_ENGINE_BYTE_PAD, byte_encode, byte_decode},
};

static fm_status_t kind_create(const struct kind *kind,
                               fm_engine_tokenizer_t **tokenizer_out,
                               fm_error_t *err)
{
    fm_engine_tokenizer_t *tokenizer = fm_calloc(1, sizeof(*tokenizer));

    if (!tokenizer) {
        return fm_no_memory(err);
    }
    tokenizer->kind = kind;
    *tokenizer_out = tokenizer;
    return FM_OK;
}

fm_status_t
fm_engine_tokenizer_create_byte(fm_engine_tokenizer_t **tokenizer_out,
                                fm_error_t *err)
{
    return kind_create(&kinds[0], tokenizer_out, err);
}

fm_status_t fm_engine_tokenizer_create(const fm_json_t *description,
                                       const void *json, size_t len,
                                       fm_engine_tokenizer_t **tokenizer_out,
                                       fm_error_t *err)
{
    (void)json;
    (void)len;
    const char *type = fm_json_get_str(description, "type");

    if (!type) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "tokenizer: want an object with the string "
                            "\"type\", such as {\"type\": \"byte\"}");
    }
    for (size_t i = 0; i < FM_COUNT_OF(kinds); i++) {
        if (strcmp(type, kinds[i].name) == 0) {
            return kind_create(&kinds[i], tokenizer_out, err);
        }
    }
    return fm_error_set(err, FM_ERR_UNSUPPORTED,
                        "tokenizer: type \"%.64s\" is unknown; known: byte",
                        type);
}

fm_json_t *fm_engine_tokenizer_describe(const fm_engine_tokenizer_t *tokenizer)
{
    fm_json_t *json = fm_json_object();

    if (json &&
        fm_json_set(json, "type", fm_json_string(tokenizer->kind->name)) < 0) {
        json = fm_json_drop(json);
    }
    return json;
}

fm_engine_tokenizer_t *
fm_engine_tokenizer_destroy(fm_engine_tokenizer_t *tokenizer)
{
    free(tokenizer);
    return NULL;
}

int32_t fm_engine_tokenizer_vocab_size(const fm_engine_tokenizer_t *tokenizer)
{
    return tokenizer->kind->vocab_size;
}

int32_t fm_engine_tokenizer_bos(const fm_engine_tokenizer_t *tokenizer)
{
    return tokenizer->kind->bos;
}

int32_t fm_engine_tokenizer_eos(const fm_engine_tokenizer_t *tokenizer)
{
    return tokenizer->kind->eos;
}

int32_t fm_engine_tokenizer_pad(const fm_engine_tokenizer_t *tokenizer)
{
    return tokenizer->kind->pad;
}

fm_status_t fm_engine_tokenizer_encode(const fm_engine_tokenizer_t *tokenizer,
                                       const char *text, size_t len,
                                       fm_engine_tokens_t *tokens,
                                       fm_error_t *err)
{
    return tokenizer->kind->encode(tokenizer, text, len, tokens, err);
}

fm_status_t fm_engine_tokenizer_decode(const fm_engine_tokenizer_t *tokenizer,
                                       const int32_t *ids, size_t count,
                                       fm_buf_t *text, fm_error_t *err)
{
    for (size_t i = 0; i < count; i++) {
        if (ids[i] < 0 || ids[i] >= tokenizer->kind->vocab_size) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "token %zu is %d: ids are 0 to %d", i, ids[i],
                                tokenizer->kind->vocab_size - 1);
        }
    }
    for (size_t i = 0; i < count; i++) {
        tokenizer->kind->decode(tokenizer, ids[i], text);
    }
    return text->failed ? fm_no_memory(err) : FM_OK;
}

/* Bytes of the valid UTF-8 character at @p s, 0 when there is none
 * (RFC 3629: no surrogates, no overlong forms, nothing past U+10FFFF). */
static size_t utf8_length(const uint8_t *s, size_t len)
{
    uint8_t low = 0x80; /* range of the second byte */
    uint8_t high = 0xBF;
    size_t want = 0;

    if (s[0] < 0x80) {
        return 1;
    }
    if (s[0] >= 0xC2 && s[0] <= 0xDF) {
        want = 2;
    } else if (s[0] >= 0xE0 && s[0] <= 0xEF) {
        want = 3;
        low = s[0] == 0xE0 ? 0xA0 : 0x80;
        high = s[0] == 0xED ? 0x9F : 0xBF;
    } else if (s[0] >= 0xF0 && s[0] <= 0xF4) {
        want = 4;
        low = s[0] == 0xF0 ? 0x90 : 0x80;
        high = s[0] == 0xF4 ? 0x8F : 0xBF;
    }
    if (want == 0 || want > len || s[1] < low || s[1] > high) {
        return 0;
    }
    for (size_t i = 2; i < want; i++) {
        if ((s[i] & 0xC0) != 0x80) {
            return 0;
        }
    }
    return want;
}

fm_status_t
fm_engine_tokenizer_decode_utf8(const fm_engine_tokenizer_t *tokenizer,
                                const int32_t *ids, size_t count,
                                fm_buf_t *text, fm_error_t *err)
{
    fm_buf_t raw = {0};
    fm_status_t rc =
        fm_engine_tokenizer_decode(tokenizer, ids, count, &raw, err);

    for (size_t i = 0; rc >= 0 && i < raw.len;) {
        size_t bytes = utf8_length(raw.data + i, raw.len - i);
        if (bytes > 0) {
            fm_buf_add(text, raw.data + i, bytes);
            i += bytes;
        } else {
            fm_buf_add(text, "\xEF\xBF\xBD", 3);
            i++;
        }
    }
    if (rc >= 0 && text->failed) {
        rc = fm_no_memory(err);
    }
    fm_buf_fini(&raw);
    return rc;
}
