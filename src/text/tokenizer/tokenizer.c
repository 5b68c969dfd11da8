/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tokenizers: reading a description, and what is the same for every kind.
 */
#include "text/tokenizer/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/tokenizer/kind.h"

void fm_tokens_fini(fm_tokens_t *tokens)
{
    free(tokens->ids);
    *tokens = (fm_tokens_t){0};
}

fm_status_t fm_tokens_add(fm_tokens_t *tokens, int32_t id, fm_error_t *err)
{
    fm_status_t rc = fm_grow(&tokens->ids, &tokens->capacity, tokens->count,
                             sizeof(id), err);

    if (rc >= 0) {
        tokens->ids[tokens->count++] = id;
    }
    return rc;
}

/* --- creation --------------------------------------------------------------
 */

static fm_status_t id_load(const fm_tokenizer_t *tokenizer,
                           const fm_json_t *value, const char *key,
                           int32_t *id_out, fm_error_t *err)
{
    int64_t id = fm_json_int_or(value, -1);

    if (fm_json_type(value) == FM_JSON_NULL) {
        *id_out = -1;
        return FM_OK;
    }
    if (id < 0 || id >= tokenizer->vocab_size) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "tokenizer.%s: want an id of 0 to %d", key,
                            tokenizer->vocab_size - 1);
    }
    *id_out = (int32_t)id;
    return FM_OK;
}

static fm_status_t ids_load(fm_tokenizer_t *tokenizer, fm_error_t *err)
{
    const fm_json_t *description = tokenizer->description;
    const fm_json_t *eos = fm_json_get(description, "eos");
    size_t count = fm_json_len(eos);
    fm_status_t rc = FM_OK;

    if ((rc = id_load(tokenizer, fm_json_get(description, "bos"), "bos",
                      &tokenizer->bos, err)) < 0 ||
        (rc = id_load(tokenizer, fm_json_get(description, "pad"), "pad",
                      &tokenizer->pad, err)) < 0) {
        return rc;
    }
    if ((eos && !fm_json_is(eos, FM_JSON_ARRAY)) || count > FM_ENGINE_EOS_MAX) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "tokenizer.eos: want an array of at most %d ids",
                            FM_ENGINE_EOS_MAX);
    }
    for (size_t i = 0; i < count && rc >= 0; i++) {
        rc = id_load(tokenizer, fm_json_at(eos, i), "eos", &tokenizer->eos[i],
                     err);
        if (rc >= 0 && tokenizer->eos[i] < 0) {
            rc = fm_error_set(err, FM_ERR_INVALID,
                              "tokenizer.eos[%zu]: want an id", i);
        }
    }
    tokenizer->eos_count = count;
    tokenizer->add_bos =
        fm_json_get_bool(description, "add_bos", false) && tokenizer->bos >= 0;
    tokenizer->add_eos =
        fm_json_get_bool(description, "add_eos", false) && count > 0;
    return rc;
}

static fm_status_t byte_load(fm_tokenizer_t *tokenizer, const void *json,
                             size_t len, fm_error_t *err)
{
    (void)json;
    (void)len;
    (void)err;
    tokenizer->kind = &fm_tokenizer_kind_byte;
    tokenizer->vocab_size = FM_TOKENIZER_BYTE_VOCAB;
    tokenizer->bos = FM_TOKENIZER_BYTE_BOS;
    tokenizer->eos[0] = FM_TOKENIZER_BYTE_EOS;
    tokenizer->eos_count = 1;
    tokenizer->pad = FM_TOKENIZER_BYTE_PAD;
    tokenizer->add_bos = true;
    tokenizer->add_eos = true;
    return FM_OK;
}

static fm_status_t json_load(fm_tokenizer_t *tokenizer, const void *json,
                             size_t len, fm_error_t *err)
{
    if (!json) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "tokenizer: type \"json\" wants the content of "
                            "tokenizer.json");
    }
    if (len > FM_TOKENIZER_BYTES_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "tokenizer.json: %zu bytes; the limit is %zu", len,
                            FM_TOKENIZER_BYTES_MAX);
    }
    fm_status_t rc = fm_bpe_create(json, len, &tokenizer->bpe, err);
    if (rc >= 0) {
        tokenizer->kind = &fm_tokenizer_kind_json;
        tokenizer->vocab_size = fm_bpe_id_limit(tokenizer->bpe);
        rc = ids_load(tokenizer, err);
    }
    return rc;
}

static fm_status_t chat_load(fm_tokenizer_t *tokenizer, fm_error_t *err)
{
    const fm_json_t *chat =
        fm_json_get(tokenizer->description, "chat_template");

    if (fm_json_type(chat) == FM_JSON_NULL) {
        return FM_OK;
    }
    if (!fm_json_str(chat)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "tokenizer.chat_template: want a string");
    }
    return fm_template_create(fm_json_str(chat), fm_json_str_len(chat),
                              "chat_template", &tokenizer->chat, err);
}

fm_status_t fm_tokenizer_create(const fm_json_t *description, const void *json,
                                size_t len, fm_tokenizer_t **tokenizer_out,
                                fm_error_t *err)
{
    static const struct {
        const char *name;
        fm_status_t (*load)(fm_tokenizer_t *tokenizer, const void *json,
                            size_t len, fm_error_t *err);
    } kinds[] = {{"byte", byte_load}, {"json", json_load}};
    const char *type = fm_json_get_str(description, "type");
    fm_tokenizer_t *tokenizer = NULL;
    fm_status_t rc = FM_ERR_UNSUPPORTED;
    size_t i = 0;

    if (!type) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "tokenizer: want an object with the string "
                            "\"type\", such as {\"type\": \"byte\"}");
    }
    while (i < FM_COUNT_OF(kinds) && strcmp(type, kinds[i].name) != 0) {
        i++;
    }
    if (i == FM_COUNT_OF(kinds)) {
        return fm_error_set(err, FM_ERR_UNSUPPORTED,
                            "tokenizer: type \"%.64s\" is unknown; known: "
                            "byte, json",
                            type);
    }
    if (!(tokenizer = fm_calloc(1, sizeof(*tokenizer))) ||
        !(tokenizer->description = fm_json_copy(description))) {
        rc = fm_no_memory(err);
        goto out;
    }
    if ((rc = kinds[i].load(tokenizer, json, len, err)) < 0 ||
        (rc = chat_load(tokenizer, err)) < 0) {
        goto out;
    }
    *tokenizer_out = tokenizer;
    tokenizer = NULL;
out:
    fm_tokenizer_destroy(tokenizer);
    return rc;
}

fm_status_t fm_tokenizer_create_byte(fm_tokenizer_t **tokenizer_out,
                                     fm_error_t *err)
{
    fm_json_t *description = fm_json_object();
    fm_status_t rc = FM_ERR_NO_MEMORY;

    if (!description ||
        fm_json_set(description, "type", fm_json_string("byte")) < 0) {
        (void)fm_no_memory(err);
    } else {
        rc = fm_tokenizer_create(description, NULL, 0, tokenizer_out, err);
    }
    fm_json_drop(description);
    return rc;
}

fm_json_t *fm_tokenizer_describe(const fm_tokenizer_t *tokenizer)
{
    return fm_json_copy(tokenizer->description);
}

fm_tokenizer_t *fm_tokenizer_destroy(fm_tokenizer_t *tokenizer)
{
    if (tokenizer) {
        fm_json_drop(tokenizer->description);
        fm_bpe_destroy(tokenizer->bpe);
        fm_template_destroy(tokenizer->chat);
        free(tokenizer);
    }
    return NULL;
}

/* --- what it is ------------------------------------------------------------
 */

int32_t fm_tokenizer_vocab_size(const fm_tokenizer_t *tokenizer)
{
    return tokenizer->vocab_size;
}

void fm_tokenizer_reach(fm_tokenizer_t *tokenizer, int32_t vocab_size)
{
    if (vocab_size > tokenizer->vocab_size) {
        tokenizer->vocab_size = vocab_size;
    }
}

int32_t fm_tokenizer_bos(const fm_tokenizer_t *tokenizer)
{
    return tokenizer->bos;
}

int32_t fm_tokenizer_eos(const fm_tokenizer_t *tokenizer)
{
    return tokenizer->eos_count > 0 ? tokenizer->eos[0] : -1;
}

int32_t fm_tokenizer_pad(const fm_tokenizer_t *tokenizer)
{
    return tokenizer->pad;
}

const int32_t *fm_tokenizer_eos_ids(const fm_tokenizer_t *tokenizer,
                                    size_t *count_out)
{
    *count_out = tokenizer->eos_count;
    return tokenizer->eos;
}

bool fm_tokenizer_is_eos(const fm_tokenizer_t *tokenizer, int32_t id)
{
    for (size_t i = 0; i < tokenizer->eos_count; i++) {
        if (tokenizer->eos[i] == id) {
            return true;
        }
    }
    return false;
}

bool fm_tokenizer_adds_bos(const fm_tokenizer_t *tokenizer)
{
    return tokenizer->add_bos;
}

bool fm_tokenizer_adds_eos(const fm_tokenizer_t *tokenizer)
{
    return tokenizer->add_eos;
}

bool fm_tokenizer_is_special(const fm_tokenizer_t *tokenizer, int32_t id)
{
    return tokenizer->kind->is_special(tokenizer, id);
}

int32_t fm_tokenizer_find(const fm_tokenizer_t *tokenizer, const char *token)
{
    return tokenizer->kind->find(tokenizer, token);
}

/* --- encode and decode -----------------------------------------------------
 */

static fm_status_t tokens_append(fm_tokens_t *tokens, const int32_t *ids,
                                 size_t count, fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    for (size_t i = 0; i < count && rc >= 0; i++) {
        rc = fm_tokens_add(tokens, ids[i], err);
    }
    return rc;
}

fm_status_t fm_tokenizer_encode_with(const fm_tokenizer_t *tokenizer,
                                     const char *text, size_t len,
                                     const fm_engine_encode_options_t *options,
                                     fm_tokens_t *tokens, fm_error_t *err)
{
    size_t before = tokens->count;
    size_t room = before < FM_TOKENIZER_ENCODE_LIMIT
                      ? FM_TOKENIZER_ENCODE_LIMIT - before
                      : 0;
    fm_bpe_ids_t ids = {0};
    const fm_bpe_encode_options_t how = {
        .parse_special = options->parse_special, .limit = room};
    fm_status_t rc = FM_OK;

    if (options->add_bos && tokenizer->add_bos) {
        rc = fm_tokens_add(tokens, tokenizer->bos, err);
    }
    if (rc >= 0) {
        rc = tokenizer->kind->encode(tokenizer, text, len, &how, &ids, err);
    }
    if (rc >= 0) {
        rc = tokens_append(tokens, ids.ids, ids.count, err);
    }
    if (rc >= 0 && options->add_eos && tokenizer->add_eos) {
        rc = fm_tokens_add(tokens, tokenizer->eos[0], err);
    }
    if (rc < 0) {
        tokens->count = before;
    }
    fm_bpe_ids_fini(&ids);
    return rc;
}

fm_status_t fm_tokenizer_encode(const fm_tokenizer_t *tokenizer,
                                const char *text, size_t len,
                                fm_tokens_t *tokens, fm_error_t *err)
{
    const fm_engine_encode_options_t options = {0};

    return fm_tokenizer_encode_with(tokenizer, text, len, &options, tokens,
                                    err);
}

fm_status_t fm_tokenizer_spell(const fm_tokenizer_t *tokenizer,
                               const int32_t *ids, size_t count,
                               const fm_bpe_decode_options_t *options,
                               fm_buf_t *text, fm_error_t *err)
{
    size_t begin = text->len;
    fm_buf_t made = {0};
    fm_status_t rc =
        tokenizer->kind->decode(tokenizer, ids, count, options, text, err);

    if (rc < 0 || options->raw || text->len == begin ||
        !memchr(text->data + begin, '\0', text->len - begin)) {
        return rc;
    }
    for (size_t i = begin; i < text->len; i++) {
        fm_buf_add(&made,
                   text->data[i] ? (const void *)(text->data + i)
                                 : "\xEF\xBF\xBD",
                   text->data[i] ? 1 : 3);
    }
    text->len = begin;
    fm_buf_add(text, made.data, made.len);
    bool failed = made.failed || text->failed;
    fm_buf_fini(&made);
    return failed ? fm_no_memory(err) : FM_OK;
}

static fm_status_t decode_with(const fm_tokenizer_t *tokenizer,
                               const int32_t *ids, size_t count,
                               const fm_bpe_decode_options_t *options,
                               fm_buf_t *text, fm_error_t *err)
{
    for (size_t i = 0; i < count; i++) {
        if (ids[i] < 0 || ids[i] >= tokenizer->vocab_size) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "token %zu is %d: ids are 0 to %d", i, ids[i],
                                tokenizer->vocab_size - 1);
        }
    }
    return fm_tokenizer_spell(tokenizer, ids, count, options, text, err);
}

fm_status_t fm_tokenizer_decode(const fm_tokenizer_t *tokenizer,
                                const int32_t *ids, size_t count,
                                fm_buf_t *text, fm_error_t *err)
{
    const fm_bpe_decode_options_t options = {.raw = true};

    return decode_with(tokenizer, ids, count, &options, text, err);
}

fm_status_t fm_tokenizer_decode_utf8(const fm_tokenizer_t *tokenizer,
                                     const int32_t *ids, size_t count,
                                     fm_buf_t *text, fm_error_t *err)
{
    const fm_bpe_decode_options_t options = {0};

    return decode_with(tokenizer, ids, count, &options, text, err);
}

fm_status_t fm_tokenizer_decode_all(const fm_tokenizer_t *tokenizer,
                                    const int32_t *ids, size_t count,
                                    fm_buf_t *text, fm_error_t *err)
{
    const fm_bpe_decode_options_t options = {.keep_special = true};

    return decode_with(tokenizer, ids, count, &options, text, err);
}
