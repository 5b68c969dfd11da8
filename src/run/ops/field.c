/* SPDX-License-Identifier: Apache-2.0 */
/* Fields of records and their texts (docs/spec/workflow.md, W60). */
#include "run/ops/field.h"

#include <stdlib.h>
#include <string.h>

fm_json_t *fm_ops_field(const fm_json_t *record, const char *name)
{
    fm_json_t *value = NULL;

    if (!name) {
        return fm_json_path(record, ""); /* itself */
    }
    if (fm_json_str(record)) {
        return strcmp(name, "text") == 0 ? fm_json_path(record, "") : NULL;
    }
    if (!(value = fm_json_get(record, name)) && *name) {
        value = fm_json_path(record, name);
    }
    return fm_json_is(value, FM_JSON_NULL) ? NULL : value;
}

void fm_ops_field_add_text(fm_buf_t *text, const fm_json_t *value)
{
    char *canonical = NULL;

    if (fm_json_str(value)) {
        fm_buf_add(text, fm_json_str(value), fm_json_str_len(value));
    } else if ((canonical = fm_json_canonical(value))) {
        fm_buf_add_str(text, canonical);
    } else {
        text->failed = true;
    }
    free(canonical);
}

size_t fm_ops_text_characters(const char *text, size_t len)
{
    size_t count = 0;

    for (size_t i = 0; i < len; i++) {
        count += ((unsigned char)text[i] & 0xc0) != 0x80;
    }
    return count;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

bool fm_ops_text_word(const char *text, size_t len, size_t *at,
                      size_t *start_out, size_t *size_out)
{
    size_t start = *at;

    while (start < len && is_space(text[start])) {
        start++;
    }
    size_t end = start;
    while (end < len && !is_space(text[end])) {
        end++;
    }
    *at = end;
    *start_out = start;
    *size_out = end - start;
    return end > start;
}
