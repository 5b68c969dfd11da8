/* SPDX-License-Identifier: Apache-2.0 */
#include "base/json.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"

#define DEPTH_MAX 64 /* deeper text is an attack, not a workflow */

fm_json_t *fm_json_null(void)
{
    return json_null();
}

fm_json_t *fm_json_bool(bool value)
{
    return json_boolean(value);
}

fm_json_t *fm_json_int(int64_t value)
{
    return json_integer(value);
}

fm_json_t *fm_json_real(double value)
{
    return json_real(value);
}

fm_json_t *fm_json_string(const char *text)
{
    return json_string(text);
}

fm_json_t *fm_json_stringn(const char *text, size_t len)
{
    return json_stringn(text, len);
}

fm_json_t *fm_json_array(void)
{
    return json_array();
}

fm_json_t *fm_json_object(void)
{
    return json_object();
}

fm_json_t *fm_json_copy(const fm_json_t *value)
{
    return json_deep_copy(value);
}

/* jansson counts references through a non-const pointer. */
static json_t *unconst(const fm_json_t *value)
{
    union {
        const fm_json_t *from;
        json_t *to;
    } cast = {.from = value};

    return cast.to;
}

fm_json_t *fm_json_keep(const fm_json_t *value)
{
    return json_incref(unconst(value));
}

void *fm_json_drop(fm_json_t *value)
{
    json_decref(value);
    return NULL;
}

fm_json_type_t fm_json_type(const fm_json_t *value)
{
    if (!value) {
        return FM_JSON_NULL;
    }
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return FM_JSON_OBJECT;
    case JSON_ARRAY:
        return FM_JSON_ARRAY;
    case JSON_STRING:
        return FM_JSON_STRING;
    case JSON_INTEGER:
        return FM_JSON_INT;
    case JSON_REAL:
        return FM_JSON_REAL;
    case JSON_TRUE:
    case JSON_FALSE:
        return FM_JSON_BOOL;
    case JSON_NULL:
        break;
    }
    return FM_JSON_NULL;
}

const char *fm_json_type_name(const fm_json_t *value)
{
    static const char *const names[] = {
        "null", "boolean", "integer", "number", "string", "list", "map"};

    return names[fm_json_type(value)];
}

bool fm_json_is(const fm_json_t *value, fm_json_type_t type)
{
    return value && fm_json_type(value) == type;
}

bool fm_json_is_number(const fm_json_t *value)
{
    return json_is_number(value);
}

size_t fm_json_len(const fm_json_t *value)
{
    return json_is_array(value) ? json_array_size(value)
                                : json_object_size(value);
}

fm_json_t *fm_json_get(const fm_json_t *object, const char *key)
{
    return json_object_get(object, key);
}

fm_json_t *fm_json_at(const fm_json_t *array, size_t index)
{
    return json_array_get(array, index);
}

const char *fm_json_str(const fm_json_t *value)
{
    return json_string_value(value);
}

size_t fm_json_str_len(const fm_json_t *value)
{
    return json_string_length(value);
}

int64_t fm_json_int_or(const fm_json_t *value, int64_t fallback)
{
    return json_is_integer(value) ? json_integer_value(value) : fallback;
}

double fm_json_real_or(const fm_json_t *value, double fallback)
{
    return json_is_number(value) ? json_number_value(value) : fallback;
}

bool fm_json_bool_or(const fm_json_t *value, bool fallback)
{
    return json_is_boolean(value) ? json_is_true(value) : fallback;
}

const char *fm_json_get_str(const fm_json_t *object, const char *key)
{
    return fm_json_str(fm_json_get(object, key));
}

int64_t fm_json_get_int(const fm_json_t *object, const char *key,
                        int64_t fallback)
{
    return fm_json_int_or(fm_json_get(object, key), fallback);
}

double fm_json_get_real(const fm_json_t *object, const char *key,
                        double fallback)
{
    return fm_json_real_or(fm_json_get(object, key), fallback);
}

bool fm_json_get_bool(const fm_json_t *object, const char *key, bool fallback)
{
    return fm_json_bool_or(fm_json_get(object, key), fallback);
}

bool fm_json_equal(const fm_json_t *a, const fm_json_t *b)
{
    return json_equal(a, b);
}

bool fm_json_next(const fm_json_t *object, void **iterator,
                  const char **key_out, fm_json_t **value_out)
{
    json_t *map = unconst(object);

    *iterator = *iterator ? json_object_iter_next(map, *iterator)
                          : json_object_iter(map);
    if (!*iterator) {
        return false;
    }
    *key_out = json_object_iter_key(*iterator);
    *value_out = json_object_iter_value(*iterator);
    return true;
}

/* One step of a path: [index], or a name that ends at '.' or '['. */
static fm_json_t *path_step(const fm_json_t *value, const char **path)
{
    const char *at = *path;
    bool bracket = *at == '[';
    size_t len = bracket ? strcspn(++at, "]") : strcspn(at, ".[");
    char *name = fm_strndup(at, len);
    fm_json_t *next = NULL;

    if (name && json_is_array(value)) {
        char *end = NULL;
        unsigned long index = strtoul(name, &end, 10);
        if (end != name && *end == '\0') {
            next = json_array_get(value, index);
        }
    } else if (name) {
        next = json_object_get(value, name);
    }
    free(name);
    at += len;
    at += bracket && *at == ']' ? 1 : 0;
    at += *at == '.' ? 1 : 0;
    *path = at;
    return next;
}

fm_json_t *fm_json_path(const fm_json_t *value, const char *path)
{
    while (value && *path) {
        value = path_step(value, &path);
    }
    return unconst(value);
}

fm_status_t fm_json_set(fm_json_t *object, const char *key, fm_json_t *value)
{
    return json_object_set_new(object, key, value) == 0 ? FM_OK
                                                        : FM_ERR_NO_MEMORY;
}

fm_status_t fm_json_append(fm_json_t *array, fm_json_t *value)
{
    return json_array_append_new(array, value) == 0 ? FM_OK : FM_ERR_NO_MEMORY;
}

fm_status_t fm_json_replace(fm_json_t *array, size_t index, fm_json_t *value)
{
    return json_array_set_new(array, index, value) == 0 ? FM_OK
                                                        : FM_ERR_NO_MEMORY;
}

void fm_json_remove(fm_json_t *object, const char *key)
{
    (void)json_object_del(object, key);
}

/* jansson recurses; a cheap scan refuses what would go too deep. */
static bool too_deep(const char *text, size_t len)
{
    size_t depth = 0;
    bool in_string = false;

    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (in_string) {
            if (c == '\\') {
                i++;
            } else if (c == '"') {
                in_string = false;
            }
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > DEPTH_MAX) {
                return true;
            }
        } else if ((c == '}' || c == ']') && depth > 0) {
            depth--;
        }
    }
    return false;
}

fm_status_t fm_json_parse(const char *text, size_t len, const char *what,
                          fm_json_t **value_out, fm_error_t *err)
{
    json_error_t cause;

    if (too_deep(text, len)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "%s: JSON nested deeper than %d levels", what,
                            DEPTH_MAX);
    }
    json_t *value =
        json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &cause);
    if (!value) {
        bool memory = json_error_code(&cause) == json_error_out_of_memory;
        return fm_error_set(err, memory ? FM_ERR_NO_MEMORY : FM_ERR_INVALID,
                            "%s:%d:%d: %s", what, cause.line, cause.column,
                            cause.text);
    }
    *value_out = value;
    return FM_OK;
}

char *fm_json_dump(const fm_json_t *value)
{
    return json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
}

char *fm_json_dump_pretty(const fm_json_t *value)
{
    return json_dumps(value, JSON_INDENT(2) | JSON_ENCODE_ANY |
                                 JSON_REAL_PRECISION(9));
}

static void canonical_add(fm_buf_t *buf, const json_t *value);

static int compare_keys(const void *a, const void *b)
{
    const char *const *left = a;
    const char *const *right = b;

    return strcmp(*left, *right);
}

static void canonical_add_object(fm_buf_t *buf, const json_t *object)
{
    size_t count = json_object_size(object);
    const char **keys = fm_calloc(count, sizeof(*keys));
    size_t used = 0;
    void *iterator = NULL;
    fm_json_t *value = NULL;

    if (!keys) {
        buf->failed = true;
        return;
    }
    while (used < count &&
           fm_json_next(object, &iterator, &keys[used], &value)) {
        used++;
    }
    qsort(keys, used, sizeof(*keys), compare_keys);
    fm_buf_add_u8(buf, '{');
    for (size_t i = 0; i < used; i++) {
        json_t *key = json_string(keys[i]);
        if (i) {
            fm_buf_add_u8(buf, ',');
        }
        canonical_add(buf, key);
        fm_buf_add_u8(buf, ':');
        canonical_add(buf, json_object_get(object, keys[i]));
        json_decref(key);
    }
    fm_buf_add_u8(buf, '}');
    free(keys);
}

static void canonical_add_real(fm_buf_t *buf, double value)
{
    char text[32];

    if (value == floor(value) && fabs(value) < 9007199254740992.0) {
        fm_buf_printf(buf, "%lld", (long long)value);
        return;
    }
    for (int digits = 1; digits <= 17; digits++) {
        (void)snprintf(text, sizeof(text), "%.*g", digits, value);
        if (strtod(text, NULL) == value) {
            break;
        }
    }
    fm_buf_add_str(buf, text);
}

static void canonical_add_string(fm_buf_t *buf, const json_t *value)
{
    char *text = json_dumps(value, JSON_ENCODE_ANY);

    if (!text) {
        buf->failed = true;
        return;
    }
    fm_buf_add_str(buf, text);
    free(text);
}

static void canonical_add_array(fm_buf_t *buf, const json_t *array)
{
    fm_buf_add_u8(buf, '[');
    for (size_t i = 0; i < json_array_size(array); i++) {
        if (i) {
            fm_buf_add_u8(buf, ',');
        }
        canonical_add(buf, json_array_get(array, i));
    }
    fm_buf_add_u8(buf, ']');
}

static void canonical_add(fm_buf_t *buf, const json_t *value)
{
    switch (fm_json_type(value)) {
    case FM_JSON_NULL:
        fm_buf_add_str(buf, "null");
        break;
    case FM_JSON_BOOL:
        fm_buf_add_str(buf, json_is_true(value) ? "true" : "false");
        break;
    case FM_JSON_INT:
        fm_buf_printf(buf, "%lld", (long long)json_integer_value(value));
        break;
    case FM_JSON_REAL:
        canonical_add_real(buf, json_real_value(value));
        break;
    case FM_JSON_STRING:
        canonical_add_string(buf, value);
        break;
    case FM_JSON_ARRAY:
        canonical_add_array(buf, value);
        break;
    case FM_JSON_OBJECT:
        canonical_add_object(buf, value);
        break;
    }
}

char *fm_json_canonical(const fm_json_t *value)
{
    fm_buf_t buf = {0};

    canonical_add(&buf, value);
    fm_buf_add_u8(&buf, '\0');
    if (buf.failed) {
        fm_buf_fini(&buf);
    }
    return (char *)buf.data;
}
