/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The canonical text of a key is put together from its members in the order
 * of their names, so the parts that items share (head, tail) are made
 * canonical once.  The bytes equal fm_json_canonical() of the whole object.
 */
#include "plan/key/key.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"

#define KEY_FORMAT 1       /* "v": raised when the text means something else */
#define NAME_BYTES_MAX 255 /* numerics class, trust domain */

struct fm_key_maker {
    fm_digest_t batch;
    fm_buf_t text;   /* head, then what the item at hand adds */
    size_t head_len; /* {"numerics" … "params":{…} */
    fm_buf_t tail;   /* ,"trust":…,"v":1 */
};

static fm_status_t add_json(fm_buf_t *buf, const fm_json_t *value,
                            fm_error_t *err)
{
    char *text = value ? fm_json_canonical(value) : fm_strdup("null");

    if (!text) {
        return fm_no_memory(err);
    }
    fm_buf_add_str(buf, text);
    free(text);
    return FM_OK;
}

static fm_status_t add_text(fm_buf_t *buf, const char *what, const char *text,
                            fm_error_t *err)
{
    if (text[0] == '\0' || strlen(text) > NAME_BYTES_MAX) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "key: %s is empty or longer than %d bytes", what,
                            NAME_BYTES_MAX);
    }
    fm_json_t *value = fm_json_string(text);
    if (!value) {
        return fm_error_set(err, FM_ERR_INVALID, "key: %s is not UTF-8", what);
    }
    fm_status_t rc = add_json(buf, value, err);
    fm_json_drop(value);
    return rc;
}

static fm_status_t text_check(const fm_buf_t *buf, fm_error_t *err)
{
    if (buf->failed) {
        return fm_no_memory(err);
    }
    return buf->len <= FM_KEY_TEXT_BYTES_MAX
               ? FM_OK
               : fm_error_set(err, FM_ERR_LIMIT,
                              "key: %zu bytes of parameters and value, at most "
                              "%u: store the value and refer to its digest",
                              buf->len, FM_KEY_TEXT_BYTES_MAX);
}

static fm_status_t add_head(fm_buf_t *buf, const fm_key_parts_t *parts,
                            fm_error_t *err)
{
    const fm_key_task_t *task =
        parts->task_type ? fm_key_task_find(parts->task_type, NULL) : NULL;
    fm_status_t rc;

    if (!task) {
        return fm_error_set(err, FM_ERR_INVALID, "key: unknown task type '%s'",
                            parts->task_type ? parts->task_type : "");
    }
    if (parts->version < 0 ||
        (parts->params && !fm_json_is(parts->params, FM_JSON_OBJECT))) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "key: %s: parameters must be a map and the version "
                            "positive",
                            task->name);
    }
    fm_buf_add_str(buf, "{\"numerics\":");
    if ((rc = add_text(buf, "the numerics class",
                       parts->numerics ? parts->numerics : "exact", err)) < 0) {
        return rc;
    }
    fm_buf_printf(buf, ",\"operator\":\"%s\",\"operator_version\":%d",
                  task->name, parts->version ? parts->version : task->version);
    fm_buf_add_str(buf, ",\"params\":");
    if (!parts->params) {
        fm_buf_add_str(buf, "{}");
        return FM_OK;
    }
    return add_json(buf, parts->params, err);
}

fm_status_t fm_key_maker_create(const fm_key_parts_t *parts,
                                fm_key_maker_t **maker_out, fm_error_t *err)
{
    fm_key_maker_t *maker = fm_calloc(1, sizeof(*maker));
    fm_status_t rc = FM_OK;

    if (!maker) {
        return fm_no_memory(err);
    }
    if ((rc = add_head(&maker->text, parts, err)) < 0) {
        goto out;
    }
    maker->head_len = maker->text.len;
    fm_buf_add_str(&maker->tail, ",\"trust\":");
    if ((rc = add_text(&maker->tail, "the trust domain",
                       parts->trust ? parts->trust : "default", err)) < 0) {
        goto out;
    }
    fm_buf_printf(&maker->tail, ",\"v\":%d", KEY_FORMAT);
    fm_buf_add(&maker->text, maker->tail.data, maker->tail.len);
    fm_buf_add_str(&maker->text, "}");
    if ((rc = text_check(&maker->text, err)) < 0 ||
        (rc = text_check(&maker->tail, err)) < 0) {
        goto out;
    }
    maker->batch = fm_sha256(maker->text.data, maker->text.len);
    *maker_out = maker;
    maker = NULL;
out:
    fm_key_maker_destroy(maker);
    return rc;
}

void *fm_key_maker_destroy(fm_key_maker_t *maker)
{
    if (maker) {
        fm_buf_fini(&maker->text);
        fm_buf_fini(&maker->tail);
        free(maker);
    }
    return NULL;
}

fm_digest_t fm_key_maker_batch(const fm_key_maker_t *maker)
{
    return maker->batch;
}

/* Leave the whole text of one item in maker->text. */
static fm_status_t make_text(fm_key_maker_t *maker, const fm_json_t *value,
                             const int64_t *seed, fm_error_t *err)
{
    maker->text.len = maker->head_len;
    maker->text.failed = false;
    if (seed) {
        fm_buf_printf(&maker->text, ",\"seed\":%" PRId64, *seed);
    }
    fm_buf_add(&maker->text, maker->tail.data, maker->tail.len);
    fm_buf_add_str(&maker->text, ",\"value\":");
    fm_status_t rc = add_json(&maker->text, value, err);
    if (rc < 0) {
        return rc;
    }
    fm_buf_add_str(&maker->text, "}");
    return text_check(&maker->text, err);
}

fm_status_t fm_key_maker_action(fm_key_maker_t *maker, const fm_json_t *value,
                                const int64_t *seed, fm_digest_t *key_out,
                                fm_error_t *err)
{
    fm_status_t rc = make_text(maker, value, seed, err);

    if (rc == FM_OK) {
        *key_out = fm_sha256(maker->text.data, maker->text.len);
    }
    return rc;
}

fm_status_t fm_key_action(const fm_key_parts_t *parts, fm_digest_t *key_out,
                          fm_error_t *err)
{
    fm_key_maker_t *maker = NULL;
    fm_status_t rc = fm_key_maker_create(parts, &maker, err);

    if (rc == FM_OK) {
        rc =
            fm_key_maker_action(maker, parts->value, parts->seed, key_out, err);
    }
    fm_key_maker_destroy(maker);
    return rc;
}

fm_status_t fm_key_batch(const fm_key_parts_t *parts, fm_digest_t *key_out,
                         fm_error_t *err)
{
    fm_key_maker_t *maker = NULL;
    fm_status_t rc = fm_key_maker_create(parts, &maker, err);

    if (rc == FM_OK) {
        *key_out = maker->batch;
    }
    fm_key_maker_destroy(maker);
    return rc;
}

fm_status_t fm_key_action_text(const fm_key_parts_t *parts, char **text_out,
                               fm_error_t *err)
{
    fm_key_maker_t *maker = NULL;
    fm_status_t rc = fm_key_maker_create(parts, &maker, err);

    if (rc == FM_OK &&
        (rc = make_text(maker, parts->value, parts->seed, err)) == FM_OK) {
        char *text =
            fm_strndup((const char *)maker->text.data, maker->text.len);
        if (text) {
            *text_out = text;
        } else {
            rc = fm_no_memory(err);
        }
    }
    fm_key_maker_destroy(maker);
    return rc;
}
