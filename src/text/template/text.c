/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations on strings that filters and methods share; marks travel along.
 */
#include <string.h>

#include "text/template/internal.h"

typedef fm_template_value_t value_t;
typedef fm_template_state_t state_t;
typedef fm_template_str_t str_t;

size_t fm_template_find(const str_t *str, const str_t *part, size_t from)
{
    if (from > str->len || part->len > str->len - from) {
        return str->len + 1;
    }
    const char *at = part->len == 0 ? str->data + from
                                    : memmem(str->data + from, str->len - from,
                                             part->data, part->len);
    return at ? (size_t)(at - str->data) : str->len + 1;
}

/* Whether the character [at, at + bytes) is one of @p chars; NULL: white
 * space. */
static bool is_one_of(const str_t *str, size_t at, size_t bytes,
                      const str_t *chars)
{
    const str_t one = {str->data + at, NULL, bytes};
    size_t used = 0;

    return chars
               ? fm_template_find(chars, &one, 0) <= chars->len
               : fm_unicode_is_space(fm_utf8_decode(one.data, &used)) ||
                     (bytes == 1 && one.data[0] >= 0x1C && one.data[0] <= 0x1F);
}

value_t fm_template_strip(state_t *state, const str_t *str, const str_t *chars,
                          bool left, bool right)
{
    size_t begin = 0;
    size_t end = str->len;
    size_t bytes = 0;

    fm_template_charge(state, str->len);
    while (left && begin < end) {
        (void)fm_utf8_decode(str->data + begin, &bytes);
        if (!is_one_of(str, begin, bytes, chars)) {
            break;
        }
        begin += bytes;
    }
    while (right && end > begin) {
        bytes = 1;
        while (((uint8_t)str->data[end - bytes] & 0xC0) == 0x80) {
            bytes++;
        }
        if (!is_one_of(str, end - bytes, bytes, chars)) {
            break;
        }
        end -= bytes;
    }
    return fm_template_slice_of(state, str, begin, end);
}

value_t fm_template_replace(state_t *state, const str_t *str, const str_t *old,
                            const str_t *fresh, int64_t count)
{
    fm_template_sink_t sink = {0};
    size_t at = 0;

    for (int64_t n = 0; count < 0 || n < count; n++) {
        size_t found = fm_template_find(str, old, at);
        if (found > str->len || state->failed) {
            break;
        }
        fm_template_sink_add_str(state, &sink, str, at, found);
        fm_template_sink_add_str(state, &sink, fresh, 0, fresh->len);
        at = found + old->len;
        if (old->len == 0) { /* between all characters */
            size_t bytes = 1;
            if (found == str->len) {
                at = found;
                break;
            }
            (void)fm_utf8_decode(str->data + found, &bytes);
            fm_template_sink_add_str(state, &sink, str, found, found + bytes);
            at = found + bytes;
        }
    }
    fm_template_sink_add_str(state, &sink, str, at, str->len);
    return fm_template_sink_take(state, &sink);
}

static value_t split_spaces(state_t *state, const str_t *str, int64_t most)
{
    value_t list = fm_template_list(state);
    size_t at = 0;
    size_t bytes = 0;

    while (!state->failed) {
        while (at < str->len) {
            (void)fm_utf8_decode(str->data + at, &bytes);
            if (!is_one_of(str, at, bytes, NULL)) {
                break;
            }
            at += bytes;
        }
        if (at >= str->len) {
            break;
        }
        if (most >= 0 && (int64_t)list.list->count == most) {
            value_t rest = fm_template_slice_of(state, str, at, str->len);
            if (!state->failed) {
                fm_template_list_add(
                    state, list.list,
                    fm_template_strip(state, rest.str, NULL, false, true));
            }
            break;
        }
        size_t begin = at;
        while (at < str->len) {
            (void)fm_utf8_decode(str->data + at, &bytes);
            if (is_one_of(str, at, bytes, NULL)) {
                break;
            }
            at += bytes;
        }
        fm_template_list_add(state, list.list,
                             fm_template_slice_of(state, str, begin, at));
    }
    return list;
}

value_t fm_template_split(state_t *state, const str_t *str,
                          const str_t *separator, int64_t most)
{
    if (!separator) {
        return split_spaces(state, str, most);
    }
    if (separator->len == 0) {
        fm_template_fail(state, FM_ERR_INVALID, "split: an empty separator");
        return fm_template_none();
    }
    value_t list = fm_template_list(state);
    size_t at = 0;
    while (!state->failed && (most < 0 || (int64_t)list.list->count < most)) {
        size_t found = fm_template_find(str, separator, at);
        if (found > str->len) {
            break;
        }
        fm_template_list_add(state, list.list,
                             fm_template_slice_of(state, str, at, found));
        at = found + separator->len;
    }
    if (!state->failed) {
        fm_template_list_add(state, list.list,
                             fm_template_slice_of(state, str, at, str->len));
    }
    return list;
}

value_t fm_template_lines(state_t *state, const str_t *str)
{
    value_t list = fm_template_list(state);
    size_t begin = 0;

    for (size_t i = 0; i < str->len && !state->failed; i++) {
        if (str->data[i] == '\n' || str->data[i] == '\r') {
            fm_template_list_add(state, list.list,
                                 fm_template_slice_of(state, str, begin, i));
            i += str->data[i] == '\r' && i + 1 < str->len &&
                 str->data[i + 1] == '\n';
            begin = i + 1;
        }
    }
    if (begin < str->len && !state->failed) {
        fm_template_list_add(state, list.list,
                             fm_template_slice_of(state, str, begin, str->len));
    }
    return list;
}

value_t fm_template_join(state_t *state, const fm_template_list_t *list,
                         const str_t *separator)
{
    fm_template_sink_t sink = {0};

    for (size_t i = 0; i < list->count && !state->failed; i++) {
        if (i > 0) {
            fm_template_sink_add_str(state, &sink, separator, 0,
                                     separator->len);
        }
        fm_template_print(state, &sink, list->items[i]);
    }
    return fm_template_sink_take(state, &sink);
}

value_t fm_template_recase(state_t *state, const str_t *str,
                           fm_template_case_t to)
{
    fm_template_sink_t sink = {0};
    fm_buf_t made = {0};
    bool first = true;
    size_t bytes = 0;

    for (size_t i = 0; i < str->len && !state->failed; i += bytes) {
        uint32_t c = fm_utf8_decode(str->data + i, &bytes);
        bool upper = to == FM_TPL_UPPER || (to != FM_TPL_LOWER && first);
        fm_buf_clear(&made);
        if (upper) {
            fm_unicode_upper(str->data + i, bytes, &made);
        } else {
            fm_unicode_lower(str->data + i, bytes, &made);
        }
        fm_template_sink_add(state, &sink, (const char *)made.data, made.len,
                             str->marks ? str->marks[i] : 0);
        first = to == FM_TPL_TITLE && !fm_unicode_is_alpha(c);
    }
    if (made.failed) {
        fm_template_fail(state, FM_ERR_NO_MEMORY, "out of memory");
    }
    fm_buf_fini(&made);
    return fm_template_sink_take(state, &sink);
}
