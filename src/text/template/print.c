/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values as text: Python's str() and repr(), and json.dumps() with
 * ensure_ascii off.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/template/internal.h"

typedef fm_template_value_t value_t;
typedef fm_template_state_t state_t;
typedef fm_template_sink_t sink_t;

static void add(state_t *state, sink_t *sink, const char *text)
{
    fm_template_sink_add(state, sink, text, strlen(text), 0);
}

/* repr() of a float: the shortest digits that read back the same; an exponent
 * below 1e-4 and from 1e16 on. */
static void real_print(state_t *state, sink_t *sink, double real, bool json)
{
    char digits[40];
    char text[64];

    if (!isfinite(real)) {
        add(state, sink,
            isnan(real) ? (json ? "NaN" : "nan")
            : real < 0  ? (json ? "-Infinity" : "-inf")
                        : (json ? "Infinity" : "inf"));
        return;
    }
    int precision = 0;
    do {
        (void)snprintf(digits, sizeof(digits), "%.*e", precision, real);
    } while (strtod(digits, NULL) != real && ++precision < 17);
    const char *mark = strchr(digits, 'e');
    int exponent = mark ? atoi(mark + 1) : 0;
    if (exponent < -4 || exponent >= 16) {
        (void)snprintf(text, sizeof(text), "%.*se%c%02d", (int)(mark - digits),
                       digits, exponent < 0 ? '-' : '+', abs(exponent));
    } else {
        int decimals = precision - exponent;
        (void)snprintf(text, sizeof(text), "%.*f", decimals > 1 ? decimals : 1,
                       real);
    }
    add(state, sink, text);
}

/* repr() of a string. */
static void string_repr(state_t *state, sink_t *sink,
                        const fm_template_str_t *str)
{
    bool single = memchr(str->data, '\'', str->len) != NULL;
    bool twin = memchr(str->data, '"', str->len) != NULL;
    char quote = single && !twin ? '"' : '\'';
    char text[8];

    fm_template_sink_add(state, sink, &quote, 1, 0);
    for (size_t i = 0; i < str->len; i++) {
        uint8_t c = (uint8_t)str->data[i];
        uint16_t mark = str->marks ? str->marks[i] : 0;
        const char *escape = c == '\n'   ? "\\n"
                             : c == '\r' ? "\\r"
                             : c == '\t' ? "\\t"
                             : c == '\\' ? "\\\\"
                                         : NULL;
        if (escape) {
            fm_template_sink_add(state, sink, escape, 2, mark);
        } else if (c == (uint8_t)quote) {
            (void)snprintf(text, sizeof(text), "\\%c", c);
            fm_template_sink_add(state, sink, text, 2, mark);
        } else if (c < 0x20 || c == 0x7F) {
            (void)snprintf(text, sizeof(text), "\\x%02x", c);
            fm_template_sink_add(state, sink, text, 4, mark);
        } else {
            fm_template_sink_add_str(state, sink, str, i, i + 1);
        }
    }
    fm_template_sink_add(state, sink, &quote, 1, 0);
}

static void string_json(state_t *state, sink_t *sink,
                        const fm_template_str_t *str)
{
    static const char escapes[] = "\"\"\\\\n\nr\rt\tb\bf\f";
    char text[8];

    add(state, sink, "\"");
    for (size_t i = 0; i < str->len; i++) {
        uint8_t c = (uint8_t)str->data[i];
        uint16_t mark = str->marks ? str->marks[i] : 0;
        const char *escape = NULL;
        for (size_t k = 0; k + 1 < sizeof(escapes); k += 2) {
            if ((uint8_t)escapes[k + 1] == c) {
                (void)snprintf(text, sizeof(text), "\\%c", escapes[k]);
                escape = text;
            }
        }
        if (!escape && c < 0x20) {
            (void)snprintf(text, sizeof(text), "\\u%04x", c);
            escape = text;
        }
        if (escape) {
            fm_template_sink_add(state, sink, escape, strlen(escape), mark);
        } else {
            fm_template_sink_add_str(state, sink, str, i, i + 1);
        }
    }
    add(state, sink, "\"");
}

static void repr_print(state_t *state, sink_t *sink, value_t value)
{
    char text[32];

    if (!fm_template_enter(state, state->at)) {
        return;
    }
    switch (value.type) {
    case FM_TPL_UNDEFINED:
        add(state, sink, "Undefined");
        break;
    case FM_TPL_NONE:
        add(state, sink, "None");
        break;
    case FM_TPL_BOOL:
        add(state, sink, value.truth ? "True" : "False");
        break;
    case FM_TPL_INT:
        (void)snprintf(text, sizeof(text), "%lld", (long long)value.integer);
        add(state, sink, text);
        break;
    case FM_TPL_REAL:
        real_print(state, sink, value.real, false);
        break;
    case FM_TPL_STRING:
        string_repr(state, sink, value.str);
        break;
    case FM_TPL_LIST:
        add(state, sink, value.list->tuple ? "(" : "[");
        for (size_t i = 0; i < value.list->count; i++) {
            add(state, sink, i ? ", " : "");
            repr_print(state, sink, value.list->items[i]);
        }
        if (value.list->tuple) {
            add(state, sink, value.list->count == 1 ? ",)" : ")");
        } else {
            add(state, sink, "]");
        }
        break;
    case FM_TPL_DICT:
        add(state, sink, "{");
        for (size_t i = 0; i < value.dict->count; i++) {
            add(state, sink, i ? ", " : "");
            repr_print(state, sink, value.dict->keys[i]);
            add(state, sink, ": ");
            repr_print(state, sink, value.dict->values[i]);
        }
        add(state, sink, "}");
        break;
    case FM_TPL_NAMESPACE:
    case FM_TPL_MACRO:
        fm_template_fail(state, FM_ERR_INVALID, "a %s has no text",
                         fm_template_type_name(value));
        break;
    }
    fm_template_leave(state);
}

void fm_template_print(state_t *state, sink_t *sink, value_t value)
{
    if (value.type == FM_TPL_STRING) {
        fm_template_sink_add_str(state, sink, value.str, 0, value.str->len);
    } else if (value.type != FM_TPL_UNDEFINED) {
        repr_print(state, sink, value);
    }
}

const fm_template_str_t *fm_template_str(state_t *state, value_t value)
{
    sink_t sink = {0};

    if (value.type == FM_TPL_STRING) {
        return value.str;
    }
    fm_template_print(state, &sink, value);
    value = fm_template_sink_take(state, &sink);
    return value.type == FM_TPL_STRING ? value.str : NULL;
}

/* --- JSON ------------------------------------------------------------------
 */

static void break_line(state_t *state, sink_t *sink, int64_t indent,
                       int64_t level)
{
    if (indent >= 0) {
        add(state, sink, "\n");
        for (int64_t i = 0; i < indent * level && !state->failed; i++) {
            add(state, sink, " ");
        }
    }
}

static void json_print(state_t *state, sink_t *sink, value_t value,
                       int64_t indent, int64_t level);

static void json_key(state_t *state, sink_t *sink, value_t key)
{
    if (key.type == FM_TPL_STRING) {
        string_json(state, sink, key.str);
    } else {
        add(state, sink, "\"");
        json_print(state, sink, key, -1, 0);
        add(state, sink, "\"");
    }
}

static void json_print(state_t *state, sink_t *sink, value_t value,
                       int64_t indent, int64_t level)
{
    size_t count = value.type == FM_TPL_LIST   ? value.list->count
                   : value.type == FM_TPL_DICT ? value.dict->count
                                               : 0;

    if (!fm_template_enter(state, state->at)) {
        return;
    }
    switch (value.type) {
    case FM_TPL_NONE:
        add(state, sink, "null");
        break;
    case FM_TPL_BOOL:
        add(state, sink, value.truth ? "true" : "false");
        break;
    case FM_TPL_INT:
        repr_print(state, sink, value);
        break;
    case FM_TPL_REAL:
        real_print(state, sink, value.real, true);
        break;
    case FM_TPL_STRING:
        string_json(state, sink, value.str);
        break;
    case FM_TPL_LIST:
    case FM_TPL_DICT:
        add(state, sink, value.type == FM_TPL_LIST ? "[" : "{");
        for (size_t i = 0; i < count; i++) {
            add(state, sink, i == 0 ? "" : indent >= 0 ? "," : ", ");
            break_line(state, sink, indent, level + 1);
            if (value.type == FM_TPL_DICT) {
                json_key(state, sink, value.dict->keys[i]);
                add(state, sink, ": ");
            }
            json_print(state, sink,
                       value.type == FM_TPL_DICT ? value.dict->values[i]
                                                 : value.list->items[i],
                       indent, level + 1);
        }
        if (count > 0) {
            break_line(state, sink, indent, level);
        }
        add(state, sink, value.type == FM_TPL_LIST ? "]" : "}");
        break;
    case FM_TPL_UNDEFINED:
    case FM_TPL_NAMESPACE:
    case FM_TPL_MACRO:
        fm_template_fail(state, FM_ERR_INVALID, "tojson: a value that is %s",
                         fm_template_type_name(value));
        break;
    }
    fm_template_leave(state);
}

void fm_template_print_json(state_t *state, sink_t *sink, value_t value,
                            int64_t indent)
{
    json_print(state, sink, value, indent, 0);
}
