/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The description of a published tokenizer, put together from the files that
 * each say a part of it.
 */
#include <string.h>

#include "base/mem.h"
#include "text/tokenizer/kind.h"

struct import {
    const fm_tokenizer_files_t *files;
    const fm_bpe_t *bpe;
    int32_t bos;
    int32_t pad;
    int32_t eos[FM_ENGINE_EOS_MAX];
    size_t eos_count;
    bool add_bos;
    bool add_eos;
    const char *chat_template;
};

/* A token is written as its text, or as an object with its "content". */
static const char *token_text(const fm_json_t *value)
{
    const char *content = fm_json_get_str(value, "content");

    return content ? content : fm_json_str(value);
}

/* The id of @p key in tokenizer_config or special_tokens_map; -1: not there. */
static fm_status_t token_find(const struct import *import, const char *key,
                              int32_t *id_out, fm_error_t *err)
{
    const char *text = token_text(fm_json_get(import->files->config, key));

    *id_out = -1;
    if (!text) {
        text = token_text(fm_json_get(import->files->specials, key));
    }
    if (!text) {
        return FM_OK;
    }
    *id_out = fm_bpe_find(import->bpe, text, strlen(text));
    return *id_out >= 0 ? FM_OK
                        : fm_error_set(err, FM_ERR_INVALID,
                                       "%s: \"%.64s\" is not in the vocabulary",
                                       key, text);
}

static fm_status_t eos_add(struct import *import, int64_t id, const char *where,
                           fm_error_t *err)
{
    if (id < 0 || id >= fm_bpe_id_limit(import->bpe)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "%s: eos_token_id: want ids of 0 to %d", where,
                            fm_bpe_id_limit(import->bpe) - 1);
    }
    for (size_t i = 0; i < import->eos_count; i++) {
        if (import->eos[i] == id) {
            return FM_OK;
        }
    }
    if (import->eos_count == FM_ENGINE_EOS_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "%s: eos_token_id: more than %d ids", where,
                            FM_ENGINE_EOS_MAX);
    }
    import->eos[import->eos_count++] = (int32_t)id;
    return FM_OK;
}

/* eos_token_id of one file: an id or a list of them. */
static fm_status_t eos_join(struct import *import, const fm_json_t *file,
                            const char *where, fm_error_t *err)
{
    const fm_json_t *value = fm_json_get(file, "eos_token_id");
    fm_status_t rc = FM_OK;

    if (fm_json_is(value, FM_JSON_INT)) {
        return eos_add(import, fm_json_int_or(value, -1), where, err);
    }
    for (size_t i = 0; i < fm_json_len(value) && rc >= 0; i++) {
        rc = eos_add(import, fm_json_int_or(fm_json_at(value, i), -1), where,
                     err);
    }
    return rc;
}

/* An id of config.json, where it is one of the tokenizer's. */
static int32_t model_id(const struct import *import, const char *key)
{
    int64_t id = fm_json_get_int(import->files->model, key, -1);

    return id >= 0 && id < fm_bpe_id_limit(import->bpe) ? (int32_t)id : -1;
}

static fm_status_t ids_find(struct import *import, fm_error_t *err)
{
    int32_t eos = -1;
    fm_status_t rc = FM_OK;

    if ((rc = token_find(import, "bos_token", &import->bos, err)) < 0 ||
        (rc = token_find(import, "pad_token", &import->pad, err)) < 0 ||
        (rc = token_find(import, "eos_token", &eos, err)) < 0) {
        return rc;
    }
    if (!import->files->config && !import->files->specials) {
        import->bos = model_id(import, "bos_token_id");
        import->pad = model_id(import, "pad_token_id");
    }
    if (eos >= 0 && (rc = eos_add(import, eos, "eos_token", err)) < 0) {
        return rc;
    }
    rc = eos_join(import, import->files->generation, "generation_config.json",
                  err);
    if (rc >= 0 && import->eos_count == 0) {
        rc = eos_join(import, import->files->model, "config.json", err);
    }
    return rc;
}

/* What stands around a text by itself. */
static fm_status_t around_find(struct import *import, fm_error_t *err)
{
    const fm_json_t *config = import->files->config;
    int32_t before = -1;
    int32_t after = -1;

    fm_bpe_around(import->bpe, &before, &after);
    if (before >= 0 && import->bos < 0) {
        import->bos = before;
    }
    if (after >= 0 && import->eos_count == 0) {
        import->eos[import->eos_count++] = after;
    }
    if ((before >= 0 && before != import->bos) ||
        (after >= 0 && after != import->eos[0])) {
        return fm_error_set(err, FM_ERR_UNSUPPORTED,
                            "post_processor: it adds id %d, which is neither "
                            "bos_token nor eos_token",
                            before >= 0 && before != import->bos ? before
                                                                 : after);
    }
    import->add_bos =
        before >= 0 ||
        (fm_json_get_bool(config, "add_bos_token", false) && import->bos >= 0);
    import->add_eos =
        after >= 0 || (fm_json_get_bool(config, "add_eos_token", false) &&
                       import->eos_count > 0);
    return FM_OK;
}

static const char *template_find(const fm_tokenizer_files_t *files)
{
    const fm_json_t *value = fm_json_get(files->config, "chat_template");
    const char *first = fm_json_get_str(fm_json_at(value, 0), "template");

    if (files->chat_template) {
        return files->chat_template;
    }
    for (size_t i = 0; i < fm_json_len(value); i++) {
        const fm_json_t *named = fm_json_at(value, i);
        const char *name = fm_json_get_str(named, "name");
        if (name && strcmp(name, "default") == 0) {
            return fm_json_get_str(named, "template");
        }
    }
    return fm_json_str(value) ? fm_json_str(value) : first;
}

static fm_json_t *id_json(int32_t id)
{
    return id >= 0 ? fm_json_int(id) : fm_json_null();
}

static fm_json_t *description_make(const struct import *import)
{
    fm_json_t *json = fm_json_object();
    fm_json_t *eos = fm_json_array();
    bool good = json && eos;

    for (size_t i = 0; good && i < import->eos_count; i++) {
        good = fm_json_append(eos, fm_json_int(import->eos[i])) >= 0;
    }
    good = good && fm_json_set(json, "type", fm_json_string("json")) >= 0 &&
           fm_json_set(json, "digest", fm_json_string(import->files->digest)) >=
               0 &&
           fm_json_set(json, "bos", id_json(import->bos)) >= 0 &&
           fm_json_set(json, "eos", fm_json_keep(eos)) >= 0 &&
           fm_json_set(json, "pad", id_json(import->pad)) >= 0 &&
           fm_json_set(json, "add_bos", fm_json_bool(import->add_bos)) >= 0 &&
           fm_json_set(json, "add_eos", fm_json_bool(import->add_eos)) >= 0 &&
           (!import->chat_template ||
            fm_json_set(json, "chat_template",
                        fm_json_string(import->chat_template)) >= 0);
    fm_json_drop(eos);
    return good ? json : fm_json_drop(json);
}

fm_status_t fm_tokenizer_import(const fm_tokenizer_files_t *files,
                                fm_json_t **description_out, fm_error_t *err)
{
    struct import import = {.files = files, .bos = -1, .pad = -1};
    fm_bpe_t *bpe = NULL;
    fm_template_t *chat = NULL;
    fm_json_t *description = NULL;
    fm_status_t rc = fm_bpe_create(files->json, files->json_len, &bpe, err);

    if (rc < 0) {
        return rc;
    }
    import.bpe = bpe;
    import.chat_template = template_find(files);
    if ((rc = ids_find(&import, err)) < 0 ||
        (rc = around_find(&import, err)) < 0) {
        goto out;
    }
    if (import.chat_template &&
        (rc = fm_template_create(import.chat_template,
                                 strlen(import.chat_template), "chat_template",
                                 &chat, err)) < 0) {
        goto out;
    }
    if (!(description = description_make(&import))) {
        rc = fm_no_memory(err);
        goto out;
    }
    *description_out = description;
out:
    fm_template_destroy(chat);
    fm_bpe_destroy(bpe);
    return rc;
}
