/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values: making, comparing, looking into them.
 */
#include <stdlib.h>
#include <string.h>

#include "text/template/internal.h"

typedef fm_template_value_t value_t;
typedef fm_template_state_t state_t;

/* --- failures, memory, sinks ------------------------------------------------
 */

void fm_template_fail(state_t *state, fm_status_t status, const char *format,
                      ...)
{
    va_list args;

    if (state->failed) {
        return;
    }
    va_start(args, format);
    state->failed = true;
    state->status = fm_template_fail_at(state->tpl, state->at, status,
                                        state->err, format, args);
    va_end(args);
}

void fm_template_charge(state_t *state, size_t bytes)
{
    size_t steps = bytes / 256;

    if (steps > FM_TEMPLATE_STEPS_MAX - state->steps) {
        fm_template_fail(state, FM_ERR_LIMIT, "more than %u steps",
                         FM_TEMPLATE_STEPS_MAX);
    } else {
        state->steps += (unsigned)steps;
    }
}

void *fm_template_alloc(state_t *state, size_t bytes)
{
    void *block = fm_template_arena_alloc(&state->arena, bytes);

    if (!block) {
        bool limit = state->arena.total + bytes > state->arena.limit;
        fm_template_fail(state, limit ? FM_ERR_LIMIT : FM_ERR_NO_MEMORY,
                         "the rendering takes more memory than %s",
                         limit ? "a template may" : "there is");
    }
    return block;
}

static bool sink_reserve(state_t *state, fm_template_sink_t *sink, size_t more)
{
    if (sink->len + more < sink->capacity) { /* one byte is left for a NUL */
        return true;
    }
    size_t capacity = 2 * (sink->len + more) + 32;
    char *data = fm_template_alloc(state, capacity);
    uint16_t *marks =
        data ? fm_template_alloc(state, capacity * sizeof(*marks)) : NULL;
    if (!marks) {
        return false;
    }
    if (sink->len > 0) {
        memcpy(data, sink->data, sink->len);
        memcpy(marks, sink->marks, sink->len * sizeof(*marks));
    }
    sink->data = data;
    sink->marks = marks;
    sink->capacity = capacity;
    return true;
}

void fm_template_sink_add(state_t *state, fm_template_sink_t *sink,
                          const char *bytes, size_t len, uint16_t mark)
{
    if (len == 0 || state->failed || !sink_reserve(state, sink, len)) {
        return;
    }
    memcpy(sink->data + sink->len, bytes, len);
    for (size_t i = 0; i < len; i++) {
        sink->marks[sink->len + i] = mark;
    }
    sink->len += len;
}

void fm_template_sink_add_str(state_t *state, fm_template_sink_t *sink,
                              const fm_template_str_t *str, size_t begin,
                              size_t end)
{
    size_t at = sink->len;

    if (begin >= end) {
        return;
    }
    fm_template_sink_add(state, sink, str->data + begin, end - begin, 0);
    if (!state->failed && str->marks) {
        memcpy(sink->marks + at, str->marks + begin,
               (end - begin) * sizeof(*str->marks));
    }
}

value_t fm_template_sink_take(state_t *state, const fm_template_sink_t *sink)
{
    fm_template_str_t *str = fm_template_alloc(state, sizeof(*str));
    value_t value = {.type = FM_TPL_STRING};

    if (!str) {
        return fm_template_none();
    }
    *str = (fm_template_str_t){sink->data ? sink->data : "", NULL, sink->len};
    for (size_t i = 0; i < sink->len; i++) {
        if (sink->marks[i] != 0) {
            str->marks = sink->marks;
            break;
        }
    }
    value.str = str;
    return value;
}

/* --- making ----------------------------------------------------------------
 */

value_t fm_template_none(void)
{
    return (value_t){.type = FM_TPL_NONE};
}

value_t fm_template_undefined(const char *name)
{
    return (value_t){.type = FM_TPL_UNDEFINED, .name = name};
}

value_t fm_template_bool(bool truth)
{
    return (value_t){.type = FM_TPL_BOOL, .truth = truth};
}

value_t fm_template_int(int64_t integer)
{
    return (value_t){.type = FM_TPL_INT, .integer = integer};
}

value_t fm_template_real(double real)
{
    return (value_t){.type = FM_TPL_REAL, .real = real};
}

value_t fm_template_text(state_t *state, const char *text)
{
    fm_template_sink_t sink = {0};

    fm_template_sink_add(state, &sink, text, strlen(text), 0);
    return fm_template_sink_take(state, &sink);
}

/* Strings are immutable: a part shares the bytes. */
value_t fm_template_slice_of(state_t *state, const fm_template_str_t *str,
                             size_t begin, size_t end)
{
    fm_template_str_t *part = fm_template_alloc(state, sizeof(*part));
    value_t value = {.type = FM_TPL_STRING};

    if (!part) {
        return fm_template_none();
    }
    *part = (fm_template_str_t){
        str->data + begin, str->marks ? str->marks + begin : NULL, end - begin};
    value.str = part;
    return value;
}

value_t fm_template_list(state_t *state)
{
    value_t value = {.type = FM_TPL_LIST};

    value.list = fm_template_alloc(state, sizeof(*value.list));
    return value.list ? value : fm_template_none();
}

void fm_template_list_add(state_t *state, fm_template_list_t *list,
                          value_t value)
{
    if (state->failed) {
        return;
    }
    if (list->count == list->capacity) {
        size_t capacity = 2 * list->capacity + 4;
        value_t *items =
            fm_template_alloc(state, capacity * sizeof(*list->items));
        if (!items) {
            return;
        }
        if (list->count > 0) {
            memcpy(items, list->items, list->count * sizeof(*items));
        }
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->count++] = value;
}

value_t fm_template_dict(state_t *state)
{
    value_t value = {.type = FM_TPL_DICT};

    value.dict = fm_template_alloc(state, sizeof(*value.dict));
    return value.dict ? value : fm_template_none();
}

value_t *fm_template_dict_find(const fm_template_dict_t *dict, value_t key)
{
    for (size_t i = 0; i < dict->count; i++) {
        if (fm_template_equal(dict->keys[i], key)) {
            return &dict->values[i];
        }
    }
    return NULL;
}

value_t *fm_template_dict_get(const fm_template_dict_t *dict, const char *key,
                              size_t len)
{
    const fm_template_str_t str = {key, NULL, len};
    value_t name = {.type = FM_TPL_STRING};

    name.str = &str;
    return fm_template_dict_find(dict, name);
}

/* A key that is known not to be there. */
static void dict_push(state_t *state, fm_template_dict_t *dict, value_t key,
                      value_t value)
{
    if (state->failed) {
        return;
    }
    if (dict->count == dict->capacity) {
        size_t capacity = 2 * dict->capacity + 4;
        value_t *keys = fm_template_alloc(state, capacity * sizeof(*keys));
        value_t *values =
            keys ? fm_template_alloc(state, capacity * sizeof(*values)) : NULL;
        if (!values) {
            return;
        }
        if (dict->count > 0) {
            memcpy(keys, dict->keys, dict->count * sizeof(*keys));
            memcpy(values, dict->values, dict->count * sizeof(*values));
        }
        dict->keys = keys;
        dict->values = values;
        dict->capacity = capacity;
    }
    dict->keys[dict->count] = key;
    dict->values[dict->count++] = value;
}

void fm_template_dict_set(state_t *state, fm_template_dict_t *dict, value_t key,
                          value_t value)
{
    value_t *known = fm_template_dict_find(dict, key);

    if (known) {
        *known = value;
    } else {
        dict_push(state, dict, key, value);
    }
}

static value_t string_of(state_t *state, const char *text, size_t len,
                         uint16_t mark)
{
    fm_template_sink_t sink = {0};

    fm_template_sink_add(state, &sink, text, len, mark);
    return fm_template_sink_take(state, &sink);
}

value_t fm_template_from_json(state_t *state, const fm_json_t *json,
                              uint16_t mark)
{
    switch (fm_json_type(json)) {
    case FM_JSON_NULL:
        break;
    case FM_JSON_BOOL:
        return fm_template_bool(fm_json_bool_or(json, false));
    case FM_JSON_INT:
        return fm_template_int(fm_json_int_or(json, 0));
    case FM_JSON_REAL:
        return fm_template_real(fm_json_real_or(json, 0.0));
    case FM_JSON_STRING:
        return string_of(state, fm_json_str(json), fm_json_str_len(json), mark);
    case FM_JSON_ARRAY: {
        value_t list = fm_template_list(state);
        for (size_t i = 0; !state->failed && i < fm_json_len(json); i++) {
            fm_template_list_add(
                state, list.list,
                fm_template_from_json(state, fm_json_at(json, i), mark));
        }
        return list;
    }
    case FM_JSON_OBJECT: {
        value_t dict = fm_template_dict(state);
        void *iterator = NULL;
        const char *key = NULL;
        fm_json_t *value = NULL;
        while (!state->failed && fm_json_next(json, &iterator, &key, &value)) {
            dict_push(state, dict.dict,
                      string_of(state, key, strlen(key), mark),
                      fm_template_from_json(state, value, mark));
        }
        return dict;
    }
    }
    return fm_template_none();
}

/* --- asking ----------------------------------------------------------------
 */

const char *fm_template_type_name(value_t value)
{
    static const char *const names[] = {
        [FM_TPL_UNDEFINED] = "undefined", [FM_TPL_NONE] = "none",
        [FM_TPL_BOOL] = "boolean",        [FM_TPL_INT] = "integer",
        [FM_TPL_REAL] = "float",          [FM_TPL_STRING] = "string",
        [FM_TPL_LIST] = "list",           [FM_TPL_DICT] = "mapping",
        [FM_TPL_NAMESPACE] = "namespace", [FM_TPL_MACRO] = "macro",
    };

    return names[value.type];
}

bool fm_template_truth(value_t value)
{
    switch (value.type) {
    case FM_TPL_UNDEFINED:
    case FM_TPL_NONE:
        return false;
    case FM_TPL_BOOL:
        return value.truth;
    case FM_TPL_INT:
        return value.integer != 0;
    case FM_TPL_REAL:
        return value.real != 0.0;
    case FM_TPL_STRING:
        return value.str->len > 0;
    case FM_TPL_LIST:
        return value.list->count > 0;
    case FM_TPL_DICT:
        return value.dict->count > 0;
    case FM_TPL_NAMESPACE:
    case FM_TPL_MACRO:
        break;
    }
    return true;
}

bool fm_template_is_string(value_t value, const char *text)
{
    return value.type == FM_TPL_STRING && value.str->len == strlen(text) &&
           memcmp(value.str->data, text, value.str->len) == 0;
}

bool fm_template_number(value_t value, double *real_out)
{
    switch (value.type) {
    case FM_TPL_BOOL:
        *real_out = value.truth;
        return true;
    case FM_TPL_INT:
        *real_out = (double)value.integer;
        return true;
    case FM_TPL_REAL:
        *real_out = value.real;
        return true;
    case FM_TPL_UNDEFINED:
    case FM_TPL_NONE:
    case FM_TPL_STRING:
    case FM_TPL_LIST:
    case FM_TPL_DICT:
    case FM_TPL_NAMESPACE:
    case FM_TPL_MACRO:
        break;
    }
    return false;
}

static bool lists_equal(const fm_template_list_t *a,
                        const fm_template_list_t *b)
{
    for (size_t i = 0; i < a->count && i < b->count; i++) {
        if (!fm_template_equal(a->items[i], b->items[i])) {
            return false;
        }
    }
    return a->count == b->count;
}

static bool dicts_equal(const fm_template_dict_t *a,
                        const fm_template_dict_t *b)
{
    for (size_t i = 0; i < a->count; i++) {
        const value_t *other = fm_template_dict_find(b, a->keys[i]);
        if (!other || !fm_template_equal(a->values[i], *other)) {
            return false;
        }
    }
    return a->count == b->count;
}

/* Values come from JSON and literals: trees of bounded depth, no cycles (a
 * namespace equals itself alone). */
bool fm_template_equal(value_t a, value_t b)
{
    double left = 0.0;
    double right = 0.0;

    if (a.type == FM_TPL_INT && b.type == FM_TPL_INT) {
        return a.integer == b.integer;
    }
    if (fm_template_number(a, &left) && fm_template_number(b, &right)) {
        return left == right;
    }
    if (a.type != b.type) {
        return false;
    }
    switch (a.type) {
    case FM_TPL_STRING:
        return a.str->len == b.str->len &&
               (a.str->len == 0 ||
                memcmp(a.str->data, b.str->data, a.str->len) == 0);
    case FM_TPL_LIST:
        return lists_equal(a.list, b.list);
    case FM_TPL_DICT:
        return dicts_equal(a.dict, b.dict);
    case FM_TPL_NAMESPACE:
        return a.dict == b.dict;
    case FM_TPL_MACRO:
        return a.macro == b.macro;
    case FM_TPL_UNDEFINED:
    case FM_TPL_NONE:
    case FM_TPL_BOOL:
    case FM_TPL_INT:
    case FM_TPL_REAL:
        break;
    }
    return true;
}

int fm_template_order(state_t *state, value_t a, value_t b)
{
    double left = 0.0;
    double right = 0.0;

    if (a.type == FM_TPL_INT && b.type == FM_TPL_INT) {
        return (a.integer > b.integer) - (a.integer < b.integer);
    }
    if (fm_template_number(a, &left) && fm_template_number(b, &right)) {
        return (left > right) - (left < right);
    }
    if (a.type == FM_TPL_STRING && b.type == FM_TPL_STRING) {
        size_t len = a.str->len < b.str->len ? a.str->len : b.str->len;
        int order = len > 0 ? memcmp(a.str->data, b.str->data, len) : 0;
        return order ? order
                     : (a.str->len > b.str->len) - (a.str->len < b.str->len);
    }
    fm_template_fail(state, FM_ERR_INVALID, "%s and %s have no order",
                     fm_template_type_name(a), fm_template_type_name(b));
    return 0;
}

bool fm_template_contains(state_t *state, value_t all, value_t one)
{
    switch (all.type) {
    case FM_TPL_STRING:
        if (one.type == FM_TPL_STRING) {
            fm_template_charge(state, all.str->len);
            return fm_template_find(all.str, one.str, 0) <= all.str->len;
        }
        break;
    case FM_TPL_LIST:
        fm_template_charge(state, 64 * all.list->count);
        for (size_t i = 0; i < all.list->count; i++) {
            if (fm_template_equal(all.list->items[i], one)) {
                return true;
            }
        }
        return false;
    case FM_TPL_DICT:
        return fm_template_dict_find(all.dict, one) != NULL;
    case FM_TPL_UNDEFINED:
        return false;
    case FM_TPL_NONE:
    case FM_TPL_BOOL:
    case FM_TPL_INT:
    case FM_TPL_REAL:
    case FM_TPL_NAMESPACE:
    case FM_TPL_MACRO:
        break;
    }
    fm_template_fail(state, FM_ERR_INVALID, "\"in\": a %s in a %s",
                     fm_template_type_name(one), fm_template_type_name(all));
    return false;
}

fm_template_list_t *fm_template_iterate(state_t *state, value_t value)
{
    if (value.type == FM_TPL_LIST) {
        return value.list;
    }
    value_t list = fm_template_list(state);
    if (state->failed) {
        return NULL;
    }
    if (value.type == FM_TPL_DICT) {
        for (size_t i = 0; i < value.dict->count; i++) {
            fm_template_list_add(state, list.list, value.dict->keys[i]);
        }
    } else if (value.type == FM_TPL_STRING) {
        size_t bytes = 0;
        for (size_t i = 0; i < value.str->len && !state->failed; i += bytes) {
            (void)fm_utf8_decode(value.str->data + i, &bytes);
            fm_template_list_add(
                state, list.list,
                fm_template_slice_of(state, value.str, i, i + bytes));
        }
    } else if (value.type != FM_TPL_UNDEFINED) {
        fm_template_fail(state, FM_ERR_INVALID, "a %s has no elements",
                         fm_template_type_name(value));
    }
    return state->failed ? NULL : list.list;
}

/* Index @p at of @p count, negative from the end; count: outside. */
static size_t index_of(int64_t at, size_t count)
{
    at += at < 0 ? (int64_t)count : 0;
    return at < 0 || at >= (int64_t)count ? count : (size_t)at;
}

value_t fm_template_get(state_t *state, value_t value, value_t key)
{
    const value_t *found = NULL;

    switch (value.type) {
    case FM_TPL_UNDEFINED:
        fm_template_fail(state, FM_ERR_INVALID, "\"%.64s\" is undefined",
                         value.name ? value.name : "the value");
        break;
    case FM_TPL_LIST:
        if (key.type == FM_TPL_INT) {
            size_t at = index_of(key.integer, value.list->count);
            found = at < value.list->count ? &value.list->items[at] : NULL;
        }
        break;
    case FM_TPL_DICT:
    case FM_TPL_NAMESPACE:
        found = fm_template_dict_find(value.dict, key);
        break;
    case FM_TPL_STRING:
        if (key.type == FM_TPL_INT) {
            const fm_template_str_t *str = value.str;
            size_t count = fm_utf8_count(str->data, str->len);
            fm_template_charge(state, 2 * str->len);
            size_t at = index_of(key.integer, count);
            if (at < count) {
                return fm_template_slice_of(
                    state, str, fm_utf8_offset(str->data, str->len, at),
                    fm_utf8_offset(str->data, str->len, at + 1));
            }
        }
        break;
    case FM_TPL_NONE:
    case FM_TPL_BOOL:
    case FM_TPL_INT:
    case FM_TPL_REAL:
    case FM_TPL_MACRO:
        break;
    }
    return found ? *found
                 : fm_template_undefined(
                       key.type == FM_TPL_STRING ? key.str->data : NULL);
}
