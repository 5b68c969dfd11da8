/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Filters: value | name(arguments).  One row each.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/template/internal.h"

typedef fm_template_value_t value_t;
typedef fm_template_state_t state_t;
typedef fm_template_args_t args_t;

value_t fm_template_arg(const args_t *args, size_t index, const char *name)
{
    const value_t *named =
        name && args->named
            ? fm_template_dict_get(args->named, name, strlen(name))
            : NULL;

    return index < args->count ? args->list[index]
           : named             ? *named
                               : fm_template_undefined(name);
}

const fm_template_str_t *fm_template_arg_str(state_t *state, const args_t *args,
                                             size_t index, const char *name,
                                             bool need)
{
    value_t value = fm_template_arg(args, index, name);

    if (value.type == FM_TPL_STRING) {
        return value.str;
    }
    if (need || (value.type != FM_TPL_UNDEFINED && value.type != FM_TPL_NONE)) {
        fm_template_fail(state, FM_ERR_INVALID,
                         "the argument \"%s\" has to be a string", name);
    }
    return NULL;
}

/* --- strings ---------------------------------------------------------------
 */

static value_t filter_trim(state_t *state, value_t value, const args_t *args)
{
    const fm_template_str_t *str = fm_template_str(state, value);
    const fm_template_str_t *chars =
        fm_template_arg_str(state, args, 0, "chars", false);

    return str ? fm_template_strip(state, str, chars, true, true) : value;
}

static value_t recase(state_t *state, value_t value, fm_template_case_t to)
{
    const fm_template_str_t *str = fm_template_str(state, value);

    return str ? fm_template_recase(state, str, to) : value;
}

static value_t filter_upper(state_t *state, value_t value, const args_t *args)
{
    (void)args;
    return recase(state, value, FM_TPL_UPPER);
}

static value_t filter_lower(state_t *state, value_t value, const args_t *args)
{
    (void)args;
    return recase(state, value, FM_TPL_LOWER);
}

static value_t filter_title(state_t *state, value_t value, const args_t *args)
{
    (void)args;
    return recase(state, value, FM_TPL_TITLE);
}

static value_t filter_capitalize(state_t *state, value_t value,
                                 const args_t *args)
{
    (void)args;
    return recase(state, value, FM_TPL_CAPITALIZE);
}

static value_t filter_replace(state_t *state, value_t value, const args_t *args)
{
    const fm_template_str_t *str = fm_template_str(state, value);
    const fm_template_str_t *old =
        fm_template_arg_str(state, args, 0, "old", true);
    const fm_template_str_t *fresh =
        fm_template_arg_str(state, args, 1, "new", true);
    value_t count = fm_template_arg(args, 2, "count");

    return str && old && fresh
               ? fm_template_replace(state, str, old, fresh,
                                     count.type == FM_TPL_INT ? count.integer
                                                              : -1)
               : value;
}

static value_t filter_string(state_t *state, value_t value, const args_t *args)
{
    value_t text = {.type = FM_TPL_STRING};

    (void)args;
    text.str = fm_template_str(state, value);
    return text.str ? text : value;
}

/* Lines but the first (and, unless asked, blank ones) get spaces in front. */
static value_t filter_indent(state_t *state, value_t value, const args_t *args)
{
    const fm_template_str_t *str = fm_template_str(state, value);
    value_t width = fm_template_arg(args, 0, "width");
    bool first = fm_template_truth(fm_template_arg(args, 1, "first"));
    bool blank = fm_template_truth(fm_template_arg(args, 2, "blank"));
    int64_t count = width.type == FM_TPL_INT ? width.integer : 4;
    fm_template_sink_t sink = {0};

    for (size_t i = 0; str && i < str->len && !state->failed; i++) {
        bool line_start = i == 0 ? first : str->data[i - 1] == '\n';
        if (line_start && (blank || i == 0 || str->data[i] != '\n')) {
            for (int64_t k = 0; k < count && !state->failed; k++) {
                fm_template_sink_add(state, &sink, " ", 1, 0);
            }
        }
        fm_template_sink_add_str(state, &sink, str, i, i + 1);
    }
    return fm_template_sink_take(state, &sink);
}

static value_t filter_tojson(state_t *state, value_t value, const args_t *args)
{
    value_t indent = fm_template_arg(args, SIZE_MAX, "indent");
    fm_template_sink_t sink = {0};

    if (args->count > 0 ||
        (args->named &&
         args->named->count > (indent.type != FM_TPL_UNDEFINED))) {
        fm_template_fail(state, FM_ERR_UNSUPPORTED,
                         "tojson: only the argument \"indent\" is supported");
    }
    if (indent.type == FM_TPL_INT && indent.integer > 64) {
        fm_template_fail(state, FM_ERR_LIMIT, "tojson: indent above 64");
    }
    fm_template_print_json(state, &sink, value,
                           indent.type == FM_TPL_INT ? indent.integer : -1);
    return fm_template_sink_take(state, &sink);
}

static value_t filter_same(state_t *state, value_t value, const args_t *args)
{
    (void)state;
    (void)args;
    return value;
}

/* --- numbers ---------------------------------------------------------------
 */

static value_t filter_int(state_t *state, value_t value, const args_t *args)
{
    value_t fallback = fm_template_arg(args, 0, "default");
    double real = 0.0;
    char text[32] = "";
    char *end = text;

    if (value.type == FM_TPL_INT) {
        return value;
    }
    if (value.type == FM_TPL_STRING && value.str->len < sizeof(text)) {
        memcpy(text, value.str->data, value.str->len);
        real = strtod(text, &end);
    }
    if ((end != text && *end == '\0') || fm_template_number(value, &real)) {
        if (fabs(real) < 9e18) {
            return fm_template_int((int64_t)real);
        }
        fm_template_fail(state, FM_ERR_LIMIT, "int: more than 64 bits");
    }
    return fallback.type == FM_TPL_UNDEFINED ? fm_template_int(0) : fallback;
}

static value_t filter_float(state_t *state, value_t value, const args_t *args)
{
    value_t fallback = fm_template_arg(args, 0, "default");
    double real = 0.0;
    char text[64] = "";
    char *end = text;

    (void)state;
    if (value.type == FM_TPL_STRING && value.str->len < sizeof(text)) {
        memcpy(text, value.str->data, value.str->len);
        real = strtod(text, &end);
    }
    if ((end != text && *end == '\0') || fm_template_number(value, &real)) {
        return fm_template_real(real);
    }
    return fallback.type == FM_TPL_UNDEFINED ? fm_template_real(0.0) : fallback;
}

static value_t filter_abs(state_t *state, value_t value, const args_t *args)
{
    double real = 0.0;

    (void)args;
    if (value.type == FM_TPL_INT && value.integer != INT64_MIN) {
        return fm_template_int(llabs(value.integer));
    }
    if (!fm_template_number(value, &real)) {
        fm_template_fail(state, FM_ERR_INVALID, "abs: want a number");
    }
    return fm_template_real(fabs(real));
}

/* --- any value -------------------------------------------------------------
 */

static value_t filter_default(state_t *state, value_t value, const args_t *args)
{
    value_t other = fm_template_arg(args, 0, "default_value");
    bool falsy = fm_template_truth(fm_template_arg(args, 1, "boolean"));

    if (value.type == FM_TPL_UNDEFINED ||
        (falsy && !fm_template_truth(value))) {
        return other.type == FM_TPL_UNDEFINED ? fm_template_text(state, "")
                                              : other;
    }
    return value;
}

static value_t filter_length(state_t *state, value_t value, const args_t *args)
{
    (void)args;
    if (value.type == FM_TPL_STRING) {
        fm_template_charge(state, value.str->len);
        return fm_template_int(
            (int64_t)fm_utf8_count(value.str->data, value.str->len));
    }
    if (value.type == FM_TPL_DICT) {
        return fm_template_int((int64_t)value.dict->count);
    }
    const fm_template_list_t *list = fm_template_iterate(state, value);
    return fm_template_int(list ? (int64_t)list->count : 0);
}

static value_t filter_list(state_t *state, value_t value, const args_t *args)
{
    const fm_template_list_t *from = fm_template_iterate(state, value);
    value_t list = fm_template_list(state);

    (void)args;
    for (size_t i = 0; from && !state->failed && i < from->count; i++) {
        fm_template_list_add(state, list.list, from->items[i]);
    }
    return list;
}

static value_t filter_first(state_t *state, value_t value, const args_t *args)
{
    const fm_template_list_t *list = fm_template_iterate(state, value);

    (void)args;
    return list && list->count > 0 ? list->items[0]
                                   : fm_template_undefined("first");
}

static value_t filter_last(state_t *state, value_t value, const args_t *args)
{
    const fm_template_list_t *list = fm_template_iterate(state, value);

    (void)args;
    return list && list->count > 0 ? list->items[list->count - 1]
                                   : fm_template_undefined("last");
}

static value_t filter_reverse(state_t *state, value_t value, const args_t *args)
{
    const fm_template_list_t *from = fm_template_iterate(state, value);
    value_t list = fm_template_list(state);

    (void)args;
    for (size_t i = from ? from->count : 0; i > 0 && !state->failed; i--) {
        fm_template_list_add(state, list.list, from->items[i - 1]);
    }
    return value.type == FM_TPL_STRING && !state->failed
               ? fm_template_join(state, list.list,
                                  &(fm_template_str_t){"", NULL, 0})
               : list;
}

static value_t filter_items(state_t *state, value_t value, const args_t *args)
{
    const fm_template_str_t name = {"items", NULL, 5};

    (void)args;
    if (value.type == FM_TPL_UNDEFINED) {
        return fm_template_list(state);
    }
    return fm_template_method(state, value, &name, &(args_t){0});
}

/* item.a.b by the text "a.b". */
static value_t attribute_of(state_t *state, value_t item,
                            const fm_template_str_t *path)
{
    const fm_template_str_t dot = {".", NULL, 1};

    for (size_t at = 0; at <= path->len && !state->failed;) {
        size_t end = fm_template_find(path, &dot, at);
        end = end > path->len ? path->len : end;
        item = fm_template_get(state, item,
                               fm_template_slice_of(state, path, at, end));
        at = end + 1;
    }
    return item;
}

static value_t filter_join(state_t *state, value_t value, const args_t *args)
{
    value_t separator = fm_template_arg(args, 0, "d");
    const fm_template_str_t *path =
        fm_template_arg_str(state, args, 1, "attribute", false);
    const fm_template_list_t *from = fm_template_iterate(state, value);
    const fm_template_str_t *between = fm_template_str(state, separator);
    value_t list = fm_template_list(state);

    for (size_t i = 0; from && !state->failed && i < from->count; i++) {
        fm_template_list_add(state, list.list,
                             path ? attribute_of(state, from->items[i], path)
                                  : from->items[i]);
    }
    return between && !state->failed
               ? fm_template_join(state, list.list, between)
               : list;
}

/* map(attribute="a", default=x), map("filter", arguments…) */
static value_t filter_map(state_t *state, value_t value, const args_t *args)
{
    const fm_template_list_t *from = fm_template_iterate(state, value);
    const fm_template_str_t *path =
        fm_template_arg_str(state, args, SIZE_MAX, "attribute", false);
    value_t fallback = fm_template_arg(args, SIZE_MAX, "default");
    const fm_template_filter_t *filter = NULL;
    value_t list = fm_template_list(state);

    if (!path && !state->failed) {
        const fm_template_str_t *name =
            fm_template_arg_str(state, args, 0, "filter", true);
        filter = name ? fm_template_filter_find(name->data, name->len) : NULL;
        if (!filter) {
            fm_template_fail(state, FM_ERR_INVALID,
                             "map: want a known filter or attribute=");
        }
    }
    if (!path && !filter) {
        return list;
    }
    const args_t rest = {args->count > 0 ? args->list + 1 : NULL,
                         args->count > 0 ? args->count - 1 : 0, NULL};
    for (size_t i = 0; from && !state->failed && i < from->count; i++) {
        value_t item = path ? attribute_of(state, from->items[i], path)
                            : filter->run(state, from->items[i], &rest);
        fm_template_list_add(state, list.list,
                             path && item.type == FM_TPL_UNDEFINED ? fallback
                                                                   : item);
    }
    return list;
}

/* select(test…), selectattr(attribute, test…) and their opposites. */
static value_t choose(state_t *state, value_t value, const args_t *args,
                      bool attribute, bool want)
{
    const fm_template_list_t *from = fm_template_iterate(state, value);
    size_t used = attribute ? 1 : 0;
    const fm_template_str_t *path =
        attribute ? fm_template_arg_str(state, args, 0, "attribute", true)
                  : NULL;
    const fm_template_test_t *test = NULL;
    value_t list = fm_template_list(state);

    if (args->count > used) {
        const fm_template_str_t *name =
            fm_template_arg_str(state, args, used, "test", true);
        test = name ? fm_template_test_find(name->data, name->len) : NULL;
        if (!test) {
            fm_template_fail(state, FM_ERR_INVALID, "the test is not known");
        }
        used++;
    }
    const args_t rest = {args->list + used,
                         args->count > used ? args->count - used : 0, NULL};
    for (size_t i = 0; from && !state->failed && i < from->count; i++) {
        value_t item =
            path ? attribute_of(state, from->items[i], path) : from->items[i];
        bool is =
            test ? test->run(state, item, &rest) : fm_template_truth(item);
        if (is == want) {
            fm_template_list_add(state, list.list, from->items[i]);
        }
    }
    return list;
}

static value_t filter_select(state_t *state, value_t value, const args_t *args)
{
    return choose(state, value, args, false, true);
}

static value_t filter_reject(state_t *state, value_t value, const args_t *args)
{
    return choose(state, value, args, false, false);
}

static value_t filter_selectattr(state_t *state, value_t value,
                                 const args_t *args)
{
    return choose(state, value, args, true, true);
}

static value_t filter_rejectattr(state_t *state, value_t value,
                                 const args_t *args)
{
    return choose(state, value, args, true, false);
}

static const fm_template_filter_t filters[] = {
    {"abs", filter_abs},
    {"capitalize", filter_capitalize},
    {"count", filter_length},
    {"d", filter_default},
    {"default", filter_default},
    {"first", filter_first},
    {"float", filter_float},
    {"indent", filter_indent},
    {"int", filter_int},
    {"items", filter_items},
    {"join", filter_join},
    {"last", filter_last},
    {"length", filter_length},
    {"list", filter_list},
    {"lower", filter_lower},
    {"map", filter_map},
    {"reject", filter_reject},
    {"rejectattr", filter_rejectattr},
    {"replace", filter_replace},
    {"reverse", filter_reverse},
    {"safe", filter_same},
    {"select", filter_select},
    {"selectattr", filter_selectattr},
    {"string", filter_string},
    {"title", filter_title},
    {"tojson", filter_tojson},
    {"trim", filter_trim},
    {"upper", filter_upper},
};

const fm_template_filter_t *fm_template_filter_find(const char *name,
                                                    size_t len)
{
    for (size_t i = 0; i < FM_COUNT_OF(filters); i++) {
        if (strlen(filters[i].name) == len &&
            memcmp(filters[i].name, name, len) == 0) {
            return &filters[i];
        }
    }
    return NULL;
}
