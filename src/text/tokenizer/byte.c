/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The byte-level kind: a token is a byte.  It has no state of its own.  Where
 * special tokens are asked for (chat templates), three spellings stand for
 * them.
 */
#include <string.h>

#include "base/mem.h"
#include "text/tokenizer/kind.h"
#include "text/unicode/unicode.h"

static const struct special {
    int32_t id;
    const char *text;
} specials[] = {
    {FM_TOKENIZER_BYTE_BOS, "<|bos|>"},
    {FM_TOKENIZER_BYTE_EOS, "<|eos|>"},
    {FM_TOKENIZER_BYTE_PAD, "<|pad|>"},
};

/* The special token spelled at @p at by bytes without marks, or NULL. */
static const struct special *special_at(const char *text, size_t len, size_t at,
                                        const fm_bpe_encode_options_t *options)
{
    const struct special *found = NULL;
    size_t size = 0;

    for (size_t i = 0; options->parse_special && i < FM_COUNT_OF(specials);
         i++) {
        size = strlen(specials[i].text);
        if (len - at >= size &&
            memcmp(text + at, specials[i].text, size) == 0) {
            found = &specials[i];
            break;
        }
    }
    for (size_t i = at; found && options->marks && i < at + size; i++) {
        if (options->marks[i] != 0) {
            return NULL;
        }
    }
    return found;
}

static fm_status_t byte_encode(const fm_tokenizer_t *tokenizer,
                               const char *text, size_t len,
                               const fm_bpe_encode_options_t *options,
                               fm_bpe_ids_t *ids, fm_error_t *err)
{
    (void)tokenizer;
    if (len > options->limit || ids->count > options->limit - len) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "text of %zu bytes after %zu tokens: the limit is "
                            "%zu tokens; split the text",
                            len, ids->count, options->limit);
    }
    size_t want = ids->count + len;
    if (want > ids->capacity) {
        int32_t *more = fm_realloc(ids->ids, want, sizeof(*more));
        if (!more) {
            return fm_no_memory(err);
        }
        ids->ids = more;
        uint32_t *begins = fm_realloc(ids->begins, want, sizeof(*begins));
        if (!begins) {
            return fm_no_memory(err);
        }
        ids->begins = begins;
        ids->capacity = want;
    }
    for (size_t i = 0; i < len;) {
        const struct special *special = special_at(text, len, i, options);
        ids->begins[ids->count] = (uint32_t)i;
        ids->ids[ids->count++] =
            special ? special->id : (int32_t)(unsigned char)text[i];
        i += special ? strlen(special->text) : 1;
    }
    return FM_OK;
}

static const char *byte_token(const fm_tokenizer_t *tokenizer, int32_t id,
                              size_t *len_out)
{
    (void)tokenizer;
    for (size_t i = 0; i < FM_COUNT_OF(specials); i++) {
        if (specials[i].id == id) {
            *len_out = strlen(specials[i].text);
            return specials[i].text;
        }
    }
    return NULL;
}

static int32_t byte_find(const fm_tokenizer_t *tokenizer, const char *token)
{
    (void)tokenizer;
    for (size_t i = 0; i < FM_COUNT_OF(specials); i++) {
        if (strcmp(specials[i].text, token) == 0) {
            return specials[i].id;
        }
    }
    return token[0] != '\0' && token[1] == '\0' ? (int32_t)(uint8_t)token[0]
                                                : -1;
}

/* Bytes as UTF-8: every byte that is not part of a character is one U+FFFD. */
static void utf8_add(fm_buf_t *text, const char *raw, size_t len)
{
    for (size_t i = 0; i < len;) {
        size_t bytes = fm_utf8_length(raw + i, len - i);
        if (bytes > 0) {
            fm_buf_add(text, raw + i, bytes);
        } else {
            fm_buf_add_str(text, "\xEF\xBF\xBD");
        }
        i += bytes > 0 ? bytes : 1;
    }
}

static fm_status_t byte_decode(const fm_tokenizer_t *tokenizer,
                               const int32_t *ids, size_t count,
                               const fm_bpe_decode_options_t *options,
                               fm_buf_t *text, fm_error_t *err)
{
    fm_buf_t raw = {0};

    for (size_t i = 0; i < count; i++) {
        size_t len = 0;
        const char *special = byte_token(tokenizer, ids[i], &len);
        if (ids[i] < 256) {
            fm_buf_add_u8(&raw, (uint8_t)ids[i]);
        } else if (special && options->keep_special) {
            fm_buf_add(&raw, special, len);
        }
    }
    if (options->raw) {
        fm_buf_add(text, raw.data, raw.len);
    } else {
        utf8_add(text, (const char *)raw.data, raw.len);
    }
    bool failed = raw.failed || text->failed;
    fm_buf_fini(&raw);
    return failed ? fm_no_memory(err) : FM_OK;
}

static bool byte_is_special(const fm_tokenizer_t *tokenizer, int32_t id)
{
    (void)tokenizer;
    return id >= 256;
}

static bool byte_is_byte(const fm_tokenizer_t *tokenizer, int32_t id)
{
    (void)tokenizer;
    (void)id;
    return false; /* an open character is held back, no more */
}

const fm_tokenizer_kind_t fm_tokenizer_kind_byte = {
    .name = "byte",
    .encode = byte_encode,
    .decode = byte_decode,
    .is_special = byte_is_special,
    .is_byte = byte_is_byte,
    .find = byte_find,
    .token = byte_token,
};
