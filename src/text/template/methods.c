/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Methods of strings and mappings, and the functions a template may call.
 */
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "text/template/internal.h"

typedef fm_template_value_t value_t;
typedef fm_template_state_t state_t;
typedef fm_template_args_t args_t;
typedef fm_template_str_t str_t;

#define RANGE_MAX 100000 /* elements: more is no template's business */

/* --- strings ---------------------------------------------------------------
 */

static value_t str_strip(state_t *state, value_t value, const args_t *args)
{
    const str_t *chars = fm_template_arg_str(state, args, 0, "chars", false);

    return fm_template_strip(state, value.str, chars, true, true);
}

static value_t str_lstrip(state_t *state, value_t value, const args_t *args)
{
    const str_t *chars = fm_template_arg_str(state, args, 0, "chars", false);

    return fm_template_strip(state, value.str, chars, true, false);
}

static value_t str_rstrip(state_t *state, value_t value, const args_t *args)
{
    const str_t *chars = fm_template_arg_str(state, args, 0, "chars", false);

    return fm_template_strip(state, value.str, chars, false, true);
}

static value_t str_split(state_t *state, value_t value, const args_t *args)
{
    const str_t *separator = fm_template_arg_str(state, args, 0, "sep", false);
    value_t most = fm_template_arg(args, 1, "maxsplit");

    return fm_template_split(state, value.str, separator,
                             most.type == FM_TPL_INT ? most.integer : -1);
}

static value_t str_splitlines(state_t *state, value_t value, const args_t *args)
{
    (void)args;
    return fm_template_lines(state, value.str);
}

static bool ends_with(const str_t *str, const str_t *part, bool front)
{
    return part->len == 0 ||
           (part->len <= str->len &&
            memcmp(front ? str->data : str->data + str->len - part->len,
                   part->data, part->len) == 0);
}

/* The argument is a string, or a tuple of which any may match. */
static value_t affix_test(state_t *state, value_t value, const args_t *args,
                          bool front)
{
    value_t affix = fm_template_arg(args, 0, "prefix");
    bool found = false;

    if (affix.type == FM_TPL_LIST) {
        for (size_t i = 0; i < affix.list->count; i++) {
            value_t one = affix.list->items[i];
            found = found || (one.type == FM_TPL_STRING &&
                              ends_with(value.str, one.str, front));
        }
        return fm_template_bool(found);
    }
    const str_t *part = fm_template_arg_str(state, args, 0, "prefix", true);
    return fm_template_bool(part && ends_with(value.str, part, front));
}

static value_t str_startswith(state_t *state, value_t value, const args_t *args)
{
    return affix_test(state, value, args, true);
}

static value_t str_endswith(state_t *state, value_t value, const args_t *args)
{
    return affix_test(state, value, args, false);
}

static value_t str_removeprefix(state_t *state, value_t value,
                                const args_t *args)
{
    const str_t *part = fm_template_arg_str(state, args, 0, "prefix", true);

    return part && ends_with(value.str, part, true)
               ? fm_template_slice_of(state, value.str, part->len,
                                      value.str->len)
               : value;
}

static value_t str_removesuffix(state_t *state, value_t value,
                                const args_t *args)
{
    const str_t *part = fm_template_arg_str(state, args, 0, "suffix", true);

    return part && ends_with(value.str, part, false)
               ? fm_template_slice_of(state, value.str, 0,
                                      value.str->len - part->len)
               : value;
}

static value_t str_upper(state_t *state, value_t value, const args_t *args)
{
    (void)args;
    return fm_template_recase(state, value.str, FM_TPL_UPPER);
}

static value_t str_lower(state_t *state, value_t value, const args_t *args)
{
    (void)args;
    return fm_template_recase(state, value.str, FM_TPL_LOWER);
}

static value_t str_title(state_t *state, value_t value, const args_t *args)
{
    (void)args;
    return fm_template_recase(state, value.str, FM_TPL_TITLE);
}

static value_t str_capitalize(state_t *state, value_t value, const args_t *args)
{
    (void)args;
    return fm_template_recase(state, value.str, FM_TPL_CAPITALIZE);
}

static value_t str_replace(state_t *state, value_t value, const args_t *args)
{
    const str_t *old = fm_template_arg_str(state, args, 0, "old", true);
    const str_t *fresh = fm_template_arg_str(state, args, 1, "new", true);
    value_t count = fm_template_arg(args, 2, "count");

    return old && fresh ? fm_template_replace(
                              state, value.str, old, fresh,
                              count.type == FM_TPL_INT ? count.integer : -1)
                        : value;
}

static value_t str_find(state_t *state, value_t value, const args_t *args)
{
    const str_t *part = fm_template_arg_str(state, args, 0, "sub", true);
    size_t at = part ? fm_template_find(value.str, part, 0) : 0;

    fm_template_charge(state, 2 * value.str->len);

    return fm_template_int(
        at > value.str->len ? -1 : (int64_t)fm_utf8_count(value.str->data, at));
}

static value_t str_count(state_t *state, value_t value, const args_t *args)
{
    const str_t *part = fm_template_arg_str(state, args, 0, "sub", true);
    int64_t count = 0;

    fm_template_charge(state, value.str->len);
    for (size_t at = 0; part && part->len > 0; count++) {
        at = fm_template_find(value.str, part, at);
        if (at > value.str->len) {
            break;
        }
        at += part->len;
    }
    return fm_template_int(count);
}

static value_t str_join(state_t *state, value_t value, const args_t *args)
{
    const fm_template_list_t *list =
        fm_template_iterate(state, fm_template_arg(args, 0, "iterable"));

    return list ? fm_template_join(state, list, value.str) : value;
}

static value_t str_isdigit(state_t *state, value_t value, const args_t *args)
{
    bool digits = value.str->len > 0;

    (void)state;
    (void)args;
    for (size_t i = 0; i < value.str->len; i++) {
        digits =
            digits && value.str->data[i] >= '0' && value.str->data[i] <= '9';
    }
    return fm_template_bool(digits);
}

/* --- mappings --------------------------------------------------------------
 */

static value_t dict_get(state_t *state, value_t value, const args_t *args)
{
    value_t other = fm_template_arg(args, 1, "default");
    const value_t *found =
        fm_template_dict_find(value.dict, fm_template_arg(args, 0, "key"));

    (void)state;
    return found                            ? *found
           : other.type == FM_TPL_UNDEFINED ? fm_template_none()
                                            : other;
}

static value_t dict_items(state_t *state, value_t value, const args_t *args)
{
    value_t list = fm_template_list(state);

    (void)args;
    for (size_t i = 0; !state->failed && i < value.dict->count; i++) {
        value_t pair = fm_template_list(state);
        if (state->failed) {
            break;
        }
        pair.list->tuple = true;
        fm_template_list_add(state, pair.list, value.dict->keys[i]);
        fm_template_list_add(state, pair.list, value.dict->values[i]);
        fm_template_list_add(state, list.list, pair);
    }
    return list;
}

static value_t dict_keys(state_t *state, value_t value, const args_t *args)
{
    value_t list = {.type = FM_TPL_LIST};

    (void)args;
    list.list = fm_template_iterate(state, value);
    return list.list ? list : value;
}

static value_t dict_values(state_t *state, value_t value, const args_t *args)
{
    value_t list = fm_template_list(state);

    (void)args;
    for (size_t i = 0; !state->failed && i < value.dict->count; i++) {
        fm_template_list_add(state, list.list, value.dict->values[i]);
    }
    return list;
}

static const struct method {
    fm_template_type_t type;
    const char *name;
    value_t (*run)(state_t *state, value_t value, const args_t *args);
} methods[] = {
    {FM_TPL_STRING, "capitalize", str_capitalize},
    {FM_TPL_STRING, "count", str_count},
    {FM_TPL_STRING, "endswith", str_endswith},
    {FM_TPL_STRING, "find", str_find},
    {FM_TPL_STRING, "isdigit", str_isdigit},
    {FM_TPL_STRING, "join", str_join},
    {FM_TPL_STRING, "lower", str_lower},
    {FM_TPL_STRING, "lstrip", str_lstrip},
    {FM_TPL_STRING, "removeprefix", str_removeprefix},
    {FM_TPL_STRING, "removesuffix", str_removesuffix},
    {FM_TPL_STRING, "replace", str_replace},
    {FM_TPL_STRING, "rstrip", str_rstrip},
    {FM_TPL_STRING, "split", str_split},
    {FM_TPL_STRING, "splitlines", str_splitlines},
    {FM_TPL_STRING, "startswith", str_startswith},
    {FM_TPL_STRING, "strip", str_strip},
    {FM_TPL_STRING, "title", str_title},
    {FM_TPL_STRING, "upper", str_upper},
    {FM_TPL_DICT, "get", dict_get},
    {FM_TPL_DICT, "items", dict_items},
    {FM_TPL_DICT, "keys", dict_keys},
    {FM_TPL_DICT, "values", dict_values},
};

static bool name_is(const str_t *name, const char *text)
{
    return name->len == strlen(text) &&
           memcmp(name->data, text, name->len) == 0;
}

value_t fm_template_method(state_t *state, value_t value, const str_t *name,
                           const args_t *args)
{
    for (size_t i = 0; i < FM_COUNT_OF(methods); i++) {
        if (methods[i].type == value.type && name_is(name, methods[i].name)) {
            return methods[i].run(state, value, args);
        }
    }
    if (value.type == FM_TPL_DICT || value.type == FM_TPL_NAMESPACE) {
        const value_t *member =
            fm_template_dict_get(value.dict, name->data, name->len);
        if (member && member->type == FM_TPL_MACRO) {
            return fm_template_macro_call(state, member->macro, args);
        }
    }
    if (value.type == FM_TPL_UNDEFINED) {
        fm_template_fail(state, FM_ERR_INVALID, "\"%.64s\" is undefined",
                         value.name ? value.name : "the value");
    } else {
        fm_template_fail(
            state, FM_ERR_UNSUPPORTED, "a %s has no method \"%.*s\"",
            fm_template_type_name(value), (int)name->len, name->data);
    }
    return fm_template_none();
}

/* --- functions -------------------------------------------------------------
 */

static value_t function_raise(state_t *state, const args_t *args)
{
    const str_t *text = fm_template_str(state, fm_template_arg(args, 0, NULL));

    fm_template_fail(state, FM_ERR_INVALID, "the template refuses: %.*s",
                     text ? (int)(text->len < 400 ? text->len : 400) : 0,
                     text ? text->data : "");
    return fm_template_none();
}

/* One directive of strftime() in the C locale; false: not known. */
static bool date_add(fm_buf_t *text, const struct tm *t, char directive,
                     bool padded)
{
    static const char *const days[] = {"Sunday",    "Monday",   "Tuesday",
                                       "Wednesday", "Thursday", "Friday",
                                       "Saturday"};
    static const char *const months[] = {
        "January", "February", "March",     "April",   "May",      "June",
        "July",    "August",   "September", "October", "November", "December"};
    int number = 0;
    int width = 2;

    switch (directive) {
    case 'A':
        fm_buf_add_str(text, days[t->tm_wday]);
        return true;
    case 'a':
        fm_buf_add(text, days[t->tm_wday], 3);
        return true;
    case 'B':
        fm_buf_add_str(text, months[t->tm_mon]);
        return true;
    case 'b':
        fm_buf_add(text, months[t->tm_mon], 3);
        return true;
    case 'p':
        fm_buf_add_str(text, t->tm_hour < 12 ? "AM" : "PM");
        return true;
    case '%':
        fm_buf_add_u8(text, '%');
        return true;
    case 'Y':
        number = t->tm_year + 1900;
        width = 4;
        break;
    case 'y':
        number = t->tm_year % 100;
        break;
    case 'm':
        number = t->tm_mon + 1;
        break;
    case 'd':
        number = t->tm_mday;
        break;
    case 'j':
        number = t->tm_yday + 1;
        width = 3;
        break;
    case 'H':
        number = t->tm_hour;
        break;
    case 'I':
        number = t->tm_hour % 12 ? t->tm_hour % 12 : 12;
        break;
    case 'M':
        number = t->tm_min;
        break;
    case 'S':
        number = t->tm_sec;
        break;
    default:
        return false;
    }
    fm_buf_printf(text, "%0*d", padded ? width : 1, number);
    return true;
}

static value_t function_strftime(state_t *state, const args_t *args)
{
    const str_t *format = fm_template_arg_str(state, args, 0, "format", true);
    time_t now = (time_t)state->input->now_unix_s;
    struct tm parts;
    fm_buf_t text = {0};
    value_t value = fm_template_none();

    if (!format || !gmtime_r(&now, &parts)) {
        return value;
    }
    for (size_t i = 0; i < format->len && !state->failed; i++) {
        if (format->data[i] != '%') {
            fm_buf_add_u8(&text, (uint8_t)format->data[i]);
            continue;
        }
        bool padded = i + 1 >= format->len || format->data[i + 1] != '-';
        i += padded ? 1 : 2;
        char directive = i < format->len ? format->data[i] : '\0';
        if (!date_add(&text, &parts, directive, padded)) {
            fm_template_fail(state, FM_ERR_UNSUPPORTED,
                             "strftime_now: the directive %%%c is not known",
                             directive ? directive : ' ');
        }
    }
    if (text.failed) {
        fm_template_fail(state, FM_ERR_NO_MEMORY, "out of memory");
    } else if (!state->failed) {
        value = fm_template_text(state, fm_buf_cstr(&text));
    }
    fm_buf_fini(&text);
    return value;
}

static value_t function_range(state_t *state, const args_t *args)
{
    int64_t numbers[3] = {0, 0, 1};
    value_t list = fm_template_list(state);

    for (size_t i = 0; i < args->count && i < 3; i++) {
        if (args->list[i].type != FM_TPL_INT) {
            fm_template_fail(state, FM_ERR_INVALID, "range: want integers");
            return list;
        }
        numbers[args->count == 1 ? 1 : i] = args->list[i].integer;
    }
    if (args->count == 0 || args->count > 3 || numbers[2] == 0) {
        fm_template_fail(state, FM_ERR_INVALID,
                         "range: want 1 to 3 integers, the step not 0");
        return list;
    }
    for (int64_t at = numbers[0];
         !state->failed &&
         (numbers[2] > 0 ? at < numbers[1] : at > numbers[1]);) {
        fm_template_list_add(state, list.list, fm_template_int(at));
        if (list.list && list.list->count > RANGE_MAX) {
            fm_template_fail(state, FM_ERR_LIMIT,
                             "range: more than %d elements", RANGE_MAX);
        }
        if (__builtin_add_overflow(at, numbers[2], &at)) {
            break;
        }
    }
    return list;
}

static value_t function_dict(state_t *state, const args_t *args)
{
    value_t dict = fm_template_dict(state);

    if (args->count > 0) {
        value_t from = args->list[0];
        if (args->count > 1 || from.type != FM_TPL_DICT) {
            fm_template_fail(state, FM_ERR_INVALID,
                             "want named arguments, or one mapping");
            return dict;
        }
        for (size_t i = 0; !state->failed && i < from.dict->count; i++) {
            fm_template_dict_set(state, dict.dict, from.dict->keys[i],
                                 from.dict->values[i]);
        }
    }
    for (size_t i = 0; !state->failed && args->named && i < args->named->count;
         i++) {
        fm_template_dict_set(state, dict.dict, args->named->keys[i],
                             args->named->values[i]);
    }
    return dict;
}

static value_t function_namespace(state_t *state, const args_t *args)
{
    value_t space = function_dict(state, args);

    if (!state->failed) {
        space.type = FM_TPL_NAMESPACE;
    }
    return space;
}

value_t fm_template_function(state_t *state, const str_t *name,
                             const args_t *args, bool *found_out)
{
    static const struct {
        const char *name;
        value_t (*run)(state_t *state, const args_t *args);
    } functions[] = {
        {"dict", function_dict},
        {"namespace", function_namespace},
        {"raise_exception", function_raise},
        {"range", function_range},
        {"strftime_now", function_strftime},
    };

    for (size_t i = 0; i < FM_COUNT_OF(functions); i++) {
        if (name_is(name, functions[i].name)) {
            *found_out = true;
            return functions[i].run(state, args);
        }
    }
    *found_out = false;
    return fm_template_none();
}
