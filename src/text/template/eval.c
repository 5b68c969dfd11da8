/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Expressions to values.
 */
#include <math.h>
#include <string.h>

#include "text/template/internal.h"

typedef fm_template_value_t value_t;
typedef fm_template_state_t state_t;
typedef fm_template_node_t node_t;
typedef fm_template_args_t args_t;

/* Below one step and one level: false (and failed) past the bounds. */
bool fm_template_enter(state_t *state, size_t at)
{
    state->at = at;
    if (state->steps >= FM_TEMPLATE_STEPS_MAX) {
        fm_template_fail(state, FM_ERR_LIMIT,
                         "more than %u steps: a loop without end?",
                         FM_TEMPLATE_STEPS_MAX);
    } else if (state->depth >= FM_TEMPLATE_DEPTH_MAX) {
        fm_template_fail(state, FM_ERR_LIMIT, "more than %d levels deep",
                         FM_TEMPLATE_DEPTH_MAX);
    }
    if (state->failed) {
        return false;
    }
    state->steps++;
    state->depth++;
    return true;
}

static value_t name_eval(state_t *state, const fm_template_str_t *name)
{
    for (const fm_template_scope_t *scope = state->scope; scope;
         scope = scope->parent) {
        const value_t *found =
            fm_template_dict_get(&scope->vars, name->data, name->len);
        if (found) {
            return *found;
        }
    }
    char *copy = fm_template_alloc(state, name->len + 1);
    if (copy) {
        memcpy(copy, name->data, name->len);
    }
    return fm_template_undefined(copy);
}

/* --- arithmetic ------------------------------------------------------------
 */

static value_t integers_eval(state_t *state, fm_template_op_t op, int64_t a,
                             int64_t b)
{
    int64_t result = 0;
    bool overflow = false;

    if (op == FM_TPL_ADD) {
        overflow = __builtin_add_overflow(a, b, &result);
    } else if (op == FM_TPL_SUB) {
        overflow = __builtin_sub_overflow(a, b, &result);
    } else if (op == FM_TPL_MUL) {
        overflow = __builtin_mul_overflow(a, b, &result);
    } else if (b == 0 || (a == INT64_MIN && b == -1)) {
        fm_template_fail(state, FM_ERR_INVALID, "a division by zero");
    } else if (op == FM_TPL_FLOORDIV) {
        result = a / b - (a % b != 0 && (a < 0) != (b < 0));
    } else {
        result = a % b + (a % b != 0 && (a < 0) != (b < 0) ? b : 0);
    }
    if (overflow) {
        fm_template_fail(state, FM_ERR_LIMIT, "a number of more than 64 bits");
    }
    return fm_template_int(result);
}

static value_t numbers_eval(state_t *state, fm_template_op_t op, value_t a,
                            value_t b, double x, double y)
{
    bool whole = a.type != FM_TPL_REAL && b.type != FM_TPL_REAL;

    if (whole && op != FM_TPL_DIV && op != FM_TPL_POW) {
        return integers_eval(
            state, op,
            (int64_t)x == x && a.type == FM_TPL_BOOL ? (int64_t)x : a.integer,
            b.type == FM_TPL_BOOL ? (int64_t)y : b.integer);
    }
    if (y == 0.0 &&
        (op == FM_TPL_DIV || op == FM_TPL_FLOORDIV || op == FM_TPL_MOD)) {
        fm_template_fail(state, FM_ERR_INVALID, "a division by zero");
        return a;
    }
    switch (op) {
    case FM_TPL_ADD:
        return fm_template_real(x + y);
    case FM_TPL_SUB:
        return fm_template_real(x - y);
    case FM_TPL_MUL:
        return fm_template_real(x * y);
    case FM_TPL_DIV:
        return fm_template_real(x / y);
    case FM_TPL_FLOORDIV:
        return fm_template_real(floor(x / y));
    case FM_TPL_MOD:
        return fm_template_real(x - y * floor(x / y));
    case FM_TPL_POW: {
        double power = pow(x, y);
        return whole && y >= 0 && fabs(power) < 9007199254740992.0
                   ? fm_template_int((int64_t)power)
                   : fm_template_real(power);
    }
    case FM_TPL_CONCAT:
    case FM_TPL_EQ:
    case FM_TPL_NE:
    case FM_TPL_LT:
    case FM_TPL_LE:
    case FM_TPL_GT:
    case FM_TPL_GE:
    case FM_TPL_IN:
    case FM_TPL_NOT_IN:
        break;
    }
    return fm_template_none();
}

static value_t repeat(state_t *state, const fm_template_str_t *str,
                      int64_t count)
{
    fm_template_sink_t sink = {0};

    for (int64_t i = 0; i < count && str->len > 0 && !state->failed; i++) {
        fm_template_sink_add_str(state, &sink, str, 0, str->len);
    }
    return fm_template_sink_take(state, &sink);
}

static value_t lists_add(state_t *state, const fm_template_list_t *a,
                         const fm_template_list_t *b)
{
    value_t list = fm_template_list(state);

    for (size_t i = 0; !state->failed && i < a->count + b->count; i++) {
        fm_template_list_add(state, list.list,
                             i < a->count ? a->items[i]
                                          : b->items[i - a->count]);
    }
    return list;
}

static value_t binary_eval(state_t *state, const node_t *node)
{
    value_t a = fm_template_eval(state, node->a);
    value_t b = fm_template_eval(state, node->b);
    double x = 0.0;
    double y = 0.0;

    state->at = node->at;
    if (state->failed) {
        return a;
    }
    if (node->op == FM_TPL_CONCAT ||
        (node->op == FM_TPL_ADD && a.type == FM_TPL_STRING &&
         b.type == FM_TPL_STRING)) {
        fm_template_sink_t sink = {0};
        fm_template_print(state, &sink, a);
        fm_template_print(state, &sink, b);
        return fm_template_sink_take(state, &sink);
    }
    if (fm_template_number(a, &x) && fm_template_number(b, &y)) {
        return numbers_eval(state, node->op, a, b, x, y);
    }
    if (node->op == FM_TPL_ADD && a.type == FM_TPL_LIST &&
        b.type == FM_TPL_LIST) {
        return lists_add(state, a.list, b.list);
    }
    if (node->op == FM_TPL_MUL && a.type == FM_TPL_STRING &&
        b.type == FM_TPL_INT) {
        return repeat(state, a.str, b.integer);
    }
    fm_template_fail(state, FM_ERR_INVALID,
                     "no such operation on a %s and a %s",
                     fm_template_type_name(a), fm_template_type_name(b));
    return a;
}

/* --- comparison ------------------------------------------------------------
 */

static bool compare(state_t *state, fm_template_op_t op, value_t a, value_t b)
{
    switch (op) {
    case FM_TPL_EQ:
        return fm_template_equal(a, b);
    case FM_TPL_NE:
        return !fm_template_equal(a, b);
    case FM_TPL_LT:
        return fm_template_order(state, a, b) < 0;
    case FM_TPL_LE:
        return fm_template_order(state, a, b) <= 0;
    case FM_TPL_GT:
        return fm_template_order(state, a, b) > 0;
    case FM_TPL_GE:
        return fm_template_order(state, a, b) >= 0;
    case FM_TPL_IN:
        return fm_template_contains(state, b, a);
    case FM_TPL_NOT_IN:
        return !fm_template_contains(state, b, a);
    case FM_TPL_ADD:
    case FM_TPL_SUB:
    case FM_TPL_MUL:
    case FM_TPL_DIV:
    case FM_TPL_FLOORDIV:
    case FM_TPL_MOD:
    case FM_TPL_POW:
    case FM_TPL_CONCAT:
        break;
    }
    return false;
}

static value_t compare_eval(state_t *state, const node_t *node)
{
    value_t a = fm_template_eval(state, node->a);

    for (; node && !state->failed; node = node->c) {
        value_t b = fm_template_eval(state, node->b);
        state->at = node->at;
        if (a.type == b.type) {
            fm_template_charge(state,
                               a.type == FM_TPL_STRING ? a.str->len
                               : a.type == FM_TPL_LIST ? 256 * a.list->count
                               : a.type == FM_TPL_DICT ? 256 * a.dict->count
                                                       : 0);
        }
        if (state->failed || !compare(state, node->op, a, b)) {
            return fm_template_bool(false);
        }
        a = b;
    }
    return fm_template_bool(true);
}

/* --- parts of values --------------------------------------------------------
 */

/* One end of a slice as Python reads it. */
static int64_t slice_end(state_t *state, const node_t *node, int64_t count,
                         int64_t step, int64_t fallback)
{
    value_t value = node ? fm_template_eval(state, node) : fm_template_none();

    if (value.type == FM_TPL_NONE || state->failed) {
        return fallback;
    }
    if (value.type != FM_TPL_INT) {
        fm_template_fail(state, FM_ERR_INVALID, "a slice wants integers");
        return 0;
    }
    int64_t at = value.integer;
    at = at < -count ? -1 - count : at > count ? count : at;
    at += at < 0 ? count : 0;
    int64_t low = step < 0 ? -1 : 0;
    int64_t high = step < 0 ? count - 1 : count;
    return at < low ? low : at > high ? high : at;
}

static value_t slice_eval(state_t *state, const node_t *node)
{
    value_t of = fm_template_eval(state, node->a);
    bool text = of.type == FM_TPL_STRING;

    state->at = node->at;
    if (state->failed) {
        return of;
    }
    if (!text && of.type != FM_TPL_LIST) {
        fm_template_fail(state, FM_ERR_INVALID, "a slice of a %s",
                         fm_template_type_name(of));
        return of;
    }
    fm_template_charge(state, text ? 3 * of.str->len : of.list->count);
    int64_t count = text ? (int64_t)fm_utf8_count(of.str->data, of.str->len)
                         : (int64_t)of.list->count;
    value_t by =
        node->first ? fm_template_eval(state, node->first) : fm_template_none();
    int64_t step = by.type == FM_TPL_INT ? by.integer : 1;
    if (step == 0 || step > count + 1 || step < -count - 1) {
        step = step == 0 ? 0 : step > 0 ? count + 1 : -count - 1;
    }
    int64_t from =
        slice_end(state, node->b, count, step, step < 0 ? count - 1 : 0);
    int64_t to = slice_end(state, node->c, count, step, step < 0 ? -1 : count);
    if (step == 0) {
        fm_template_fail(state, FM_ERR_INVALID, "a slice with step 0");
    }
    if (state->failed) {
        return of;
    }
    if (text && step == 1) {
        size_t begin = fm_utf8_offset(of.str->data, of.str->len, (size_t)from);
        size_t end = from < to
                         ? fm_utf8_offset(of.str->data, of.str->len, (size_t)to)
                         : begin;
        return fm_template_slice_of(state, of.str, begin, end);
    }
    const fm_template_list_t *all = fm_template_iterate(state, of);
    value_t list = fm_template_list(state);
    for (int64_t i = from;
         !state->failed && (step > 0 ? i < to : i > to) && i >= 0 && i < count;
         i += step) {
        fm_template_list_add(state, list.list, all->items[i]);
    }
    return text && !state->failed
               ? fm_template_join(state, list.list,
                                  &(fm_template_str_t){"", NULL, 0})
               : list;
}

static value_t list_eval(state_t *state, const node_t *node)
{
    value_t list = fm_template_list(state);

    for (const node_t *item = node->first; item && !state->failed;
         item = item->next) {
        fm_template_list_add(state, list.list, fm_template_eval(state, item));
    }
    if (!state->failed) {
        list.list->tuple = node->value.truth;
    }
    return list;
}

static value_t dict_eval(state_t *state, const node_t *node)
{
    value_t dict = fm_template_dict(state);

    for (const node_t *key = node->first; key && !state->failed;
         key = key->next->next) {
        value_t name = fm_template_eval(state, key);
        fm_template_dict_set(state, dict.dict, name,
                             fm_template_eval(state, key->next));
    }
    return dict;
}

/* --- calls -----------------------------------------------------------------
 */

static args_t args_eval(state_t *state, const node_t *node)
{
    value_t list = fm_template_list(state);
    value_t named = node->named ? fm_template_dict(state) : fm_template_none();

    for (const node_t *item = node->first; item && !state->failed;
         item = item->next) {
        fm_template_list_add(state, list.list, fm_template_eval(state, item));
    }
    for (const node_t *item = node->named; item && !state->failed;
         item = item->next) {
        value_t name = {.type = FM_TPL_STRING};
        name.str = &item->text;
        fm_template_dict_set(state, named.dict, name,
                             fm_template_eval(state, item->a));
    }
    state->at = node->at;
    if (state->failed) {
        return (args_t){0};
    }
    return (args_t){list.list->items, list.list->count,
                    node->named ? named.dict : NULL};
}

static value_t call_eval(state_t *state, const node_t *node)
{
    value_t what = fm_template_eval(state, node->a);
    args_t args = args_eval(state, node);
    bool found = false;

    if (state->failed) {
        return what;
    }
    if (what.type == FM_TPL_MACRO) {
        return fm_template_macro_call(state, what.macro, &args);
    }
    if (what.type == FM_TPL_UNDEFINED && node->a->kind == FM_TPL_NAME) {
        value_t result =
            fm_template_function(state, &node->a->text, &args, &found);
        if (found) {
            return result;
        }
        fm_template_fail(state, FM_ERR_UNSUPPORTED,
                         "the function \"%.*s\" is not known",
                         (int)node->a->text.len, node->a->text.data);
        return what;
    }
    fm_template_fail(state, FM_ERR_INVALID, "a %s cannot be called",
                     fm_template_type_name(what));
    return what;
}

static value_t attribute_key(const node_t *node)
{
    value_t key = {.type = FM_TPL_STRING};

    key.str = &node->text;
    return key;
}

static value_t unary_eval(state_t *state, const node_t *node)
{
    value_t value = fm_template_eval(state, node->a);
    double real = 0.0;

    state->at = node->at;
    if (state->failed) {
        return value;
    }
    if (!fm_template_number(value, &real)) {
        fm_template_fail(state, FM_ERR_INVALID, "a sign before a %s",
                         fm_template_type_name(value));
        return value;
    }
    if (node->kind == FM_TPL_PLUS) {
        return value;
    }
    return value.type == FM_TPL_REAL
               ? fm_template_real(-real)
               : integers_eval(state, FM_TPL_SUB, 0,
                               value.type == FM_TPL_INT ? value.integer
                                                        : (int64_t)real);
}

static value_t filter_eval(state_t *state, const node_t *node)
{
    value_t value = fm_template_eval(state, node->a);
    args_t args = args_eval(state, node);

    return state->failed ? value : node->filter->run(state, value, &args);
}

static value_t test_eval(state_t *state, const node_t *node)
{
    value_t value = fm_template_eval(state, node->a);
    args_t args = args_eval(state, node);

    return fm_template_bool(!state->failed &&
                            node->test->run(state, value, &args));
}

static value_t method_eval(state_t *state, const node_t *node)
{
    value_t value = fm_template_eval(state, node->a);
    args_t args = args_eval(state, node);

    return state->failed ? value
                         : fm_template_method(state, value, &node->text, &args);
}

static value_t get_eval(state_t *state, const node_t *node)
{
    value_t value = fm_template_eval(state, node->a);
    value_t key = node->kind == FM_TPL_ATTRIBUTE
                      ? attribute_key(node)
                      : fm_template_eval(state, node->b);

    state->at = node->at;
    return state->failed ? value : fm_template_get(state, value, key);
}

static value_t node_eval(state_t *state, const node_t *node)
{
    value_t value;

    switch (node->kind) {
    case FM_TPL_LITERAL:
        return node->value;
    case FM_TPL_NAME:
        return name_eval(state, &node->text);
    case FM_TPL_MAKE_LIST:
        return list_eval(state, node);
    case FM_TPL_MAKE_DICT:
        return dict_eval(state, node);
    case FM_TPL_GET:
    case FM_TPL_ATTRIBUTE:
        return get_eval(state, node);
    case FM_TPL_SLICE:
        return slice_eval(state, node);
    case FM_TPL_CALL:
        return call_eval(state, node);
    case FM_TPL_METHOD:
        return method_eval(state, node);
    case FM_TPL_FILTER:
        return filter_eval(state, node);
    case FM_TPL_TEST:
        return test_eval(state, node);
    case FM_TPL_NOT:
        value = fm_template_eval(state, node->a);
        return fm_template_bool(!fm_template_truth(value));
    case FM_TPL_NEGATE:
    case FM_TPL_PLUS:
        return unary_eval(state, node);
    case FM_TPL_AND:
        value = fm_template_eval(state, node->a);
        return fm_template_truth(value) ? fm_template_eval(state, node->b)
                                        : value;
    case FM_TPL_OR:
        value = fm_template_eval(state, node->a);
        return fm_template_truth(value) ? value
                                        : fm_template_eval(state, node->b);
    case FM_TPL_CHOOSE:
        if (fm_template_truth(fm_template_eval(state, node->a))) {
            return fm_template_eval(state, node->b);
        }
        return node->c ? fm_template_eval(state, node->c)
                       : fm_template_undefined(NULL);
    case FM_TPL_COMPARE:
        return compare_eval(state, node);
    case FM_TPL_BINARY:
        return binary_eval(state, node);
    case FM_TPL_TEXT:
    case FM_TPL_PRINT:
    case FM_TPL_IF:
    case FM_TPL_FOR:
    case FM_TPL_SET:
    case FM_TPL_DEFINE:
    case FM_TPL_GENERATION:
    case FM_TPL_BREAK:
    case FM_TPL_CONTINUE:
        break;
    }
    return fm_template_none();
}

value_t fm_template_eval(state_t *state, const node_t *node)
{
    if (!fm_template_enter(state, node->at)) {
        return fm_template_none();
    }
    value_t value = node_eval(state, node);
    fm_template_leave(state);
    return state->failed ? fm_template_none() : value;
}
