/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text with the origin of each byte, and patterns.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/bpe/internal.h"

void fm_bpe_text_fini(fm_bpe_text_t *text)
{
    fm_buf_fini(&text->bytes);
    free(text->origins);
    *text = (fm_bpe_text_t){0};
}

void fm_bpe_text_clear(fm_bpe_text_t *text, bool tracked)
{
    fm_buf_clear(&text->bytes);
    text->tracked = tracked;
}

/* Room for the origins of @p len bytes that are about to be appended. */
static uint32_t *origins_reserve(fm_bpe_text_t *text, size_t len)
{
    size_t want = text->bytes.len + len;

    if (want > text->origins_capacity) {
        size_t capacity = want + want / 2 + 64;
        uint32_t *grown =
            fm_realloc(text->origins, capacity, sizeof(*text->origins));
        if (!grown) {
            text->bytes.failed = true;
            return NULL;
        }
        text->origins = grown;
        text->origins_capacity = capacity;
    }
    return text->origins + text->bytes.len;
}

void fm_bpe_text_add(fm_bpe_text_t *text, const char *bytes, size_t len,
                     uint32_t origin)
{
    uint32_t *origins = text->tracked ? origins_reserve(text, len) : NULL;

    for (size_t i = 0; origins && i < len; i++) {
        origins[i] = origin;
    }
    fm_buf_add(&text->bytes, bytes, len);
}

void fm_bpe_text_add_run(fm_bpe_text_t *text, const char *bytes, size_t len,
                         uint32_t origin)
{
    uint32_t *origins = text->tracked ? origins_reserve(text, len) : NULL;

    for (size_t i = 0; origins && i < len; i++) {
        origins[i] = origin + (uint32_t)i;
    }
    fm_buf_add(&text->bytes, bytes, len);
}

void fm_bpe_text_copy(fm_bpe_text_t *text, const fm_bpe_text_t *from,
                      size_t begin, size_t end)
{
    uint32_t *origins = text->tracked && end > begin
                            ? origins_reserve(text, end - begin)
                            : NULL;

    if (origins) {
        memcpy(origins, from->origins + begin,
               (end - begin) * sizeof(*origins));
    }
    if (end > begin) {
        fm_buf_add(&text->bytes, from->bytes.data + begin, end - begin);
    }
}

uint32_t fm_bpe_text_origin(const fm_bpe_text_t *text, size_t at)
{
    if (!text->tracked || text->bytes.len == 0) {
        return 0;
    }
    return at < text->bytes.len ? text->origins[at]
                                : text->origins[text->bytes.len - 1] + 1;
}

/* --- patterns --------------------------------------------------------------
 */

fm_status_t fm_bpe_pattern_load(const fm_json_t *json, const char *what,
                                fm_bpe_pattern_t *pattern_out, fm_error_t *err)
{
    const fm_json_t *value = fm_json_get(json, "String");
    const fm_json_t *regex = fm_json_get(json, "Regex");
    fm_bpe_pattern_t pattern = {0};
    fm_status_t rc = FM_OK;

    const char *text = fm_json_str(value ? value : regex);
    if (!text) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "%s.pattern: want {\"String\": text} or "
                            "{\"Regex\": text}",
                            what);
    }
    if (!(pattern.text = fm_strdup(text))) {
        return fm_no_memory(err);
    }
    pattern.len = strlen(text);
    if (!value && (rc = fm_regex_create(text, what, &pattern.regex, err)) < 0) {
        fm_bpe_pattern_fini(&pattern);
        return rc;
    }
    *pattern_out = pattern;
    return FM_OK;
}

void fm_bpe_pattern_fini(fm_bpe_pattern_t *pattern)
{
    free(pattern->text);
    fm_regex_destroy(pattern->regex);
    *pattern = (fm_bpe_pattern_t){0};
}

fm_status_t fm_bpe_pattern_find(const fm_bpe_pattern_t *pattern,
                                fm_regex_matcher_t *matcher, const char *text,
                                size_t len, size_t from, size_t *begin_out,
                                size_t *end_out, fm_error_t *err)
{
    if (pattern->regex) {
        return fm_regex_find(pattern->regex, matcher, text, len, from,
                             begin_out, end_out, err);
    }
    const char *at = pattern->len > 0 ? memmem(text + from, len - from,
                                               pattern->text, pattern->len)
                                      : NULL;
    *begin_out = at ? (size_t)(at - text) : len + 1;
    *end_out = at ? *begin_out + pattern->len : len + 1;
    return FM_OK;
}
