/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests: value is name(argument).  One row each.
 */
#include <string.h>

#include "base/mem.h"
#include "text/template/internal.h"

typedef fm_template_value_t value_t;
typedef fm_template_state_t state_t;
typedef fm_template_args_t args_t;

#define TYPE_TEST(NAME, CONDITION)                                             \
    static bool test_##NAME(state_t *state, value_t value, const args_t *args) \
    {                                                                          \
        (void)state;                                                           \
        (void)args;                                                            \
        return CONDITION;                                                      \
    }

TYPE_TEST(defined, value.type != FM_TPL_UNDEFINED)
TYPE_TEST(undefined, value.type == FM_TPL_UNDEFINED)
TYPE_TEST(none, value.type == FM_TPL_NONE)
TYPE_TEST(boolean, value.type == FM_TPL_BOOL)
TYPE_TEST(true, value.type == FM_TPL_BOOL && value.truth)
TYPE_TEST(false, value.type == FM_TPL_BOOL && !value.truth)
TYPE_TEST(integer, value.type == FM_TPL_INT)
TYPE_TEST(float, value.type == FM_TPL_REAL)
TYPE_TEST(number, value.type == FM_TPL_INT || value.type == FM_TPL_REAL ||
                      value.type == FM_TPL_BOOL)
TYPE_TEST(string, value.type == FM_TPL_STRING)
TYPE_TEST(mapping, value.type == FM_TPL_DICT)
TYPE_TEST(sequence, value.type == FM_TPL_LIST || value.type == FM_TPL_STRING ||
                        value.type == FM_TPL_DICT ||
                        value.type == FM_TPL_UNDEFINED)
TYPE_TEST(callable, value.type == FM_TPL_MACRO)

static int64_t integer_of(state_t *state, value_t value)
{
    if (value.type != FM_TPL_INT) {
        fm_template_fail(state, FM_ERR_INVALID, "the test wants an integer");
        return 1;
    }
    return value.integer;
}

static bool test_odd(state_t *state, value_t value, const args_t *args)
{
    (void)args;
    return integer_of(state, value) % 2 != 0;
}

static bool test_even(state_t *state, value_t value, const args_t *args)
{
    (void)args;
    return integer_of(state, value) % 2 == 0;
}

static bool test_divisibleby(state_t *state, value_t value, const args_t *args)
{
    int64_t by = integer_of(state, fm_template_arg(args, 0, "num"));

    if (by == 0) {
        fm_template_fail(state, FM_ERR_INVALID, "divisibleby: zero");
        return false;
    }
    return by == -1 || integer_of(state, value) % by == 0;
}

static bool test_eq(state_t *state, value_t value, const args_t *args)
{
    (void)state;
    return fm_template_equal(value, fm_template_arg(args, 0, NULL));
}

static bool test_ne(state_t *state, value_t value, const args_t *args)
{
    return !test_eq(state, value, args);
}

static bool test_gt(state_t *state, value_t value, const args_t *args)
{
    return fm_template_order(state, value, fm_template_arg(args, 0, NULL)) > 0;
}

static bool test_ge(state_t *state, value_t value, const args_t *args)
{
    return fm_template_order(state, value, fm_template_arg(args, 0, NULL)) >= 0;
}

static bool test_lt(state_t *state, value_t value, const args_t *args)
{
    return fm_template_order(state, value, fm_template_arg(args, 0, NULL)) < 0;
}

static bool test_le(state_t *state, value_t value, const args_t *args)
{
    return fm_template_order(state, value, fm_template_arg(args, 0, NULL)) <= 0;
}

static bool test_in(state_t *state, value_t value, const args_t *args)
{
    return fm_template_contains(state, fm_template_arg(args, 0, NULL), value);
}

static bool recased_is_same(state_t *state, value_t value,
                            fm_template_case_t to)
{
    const fm_template_str_t *str = fm_template_str(state, value);
    value_t text = {.type = FM_TPL_STRING};

    text.str = str;
    return str && fm_template_equal(text, fm_template_recase(state, str, to));
}

static bool test_lower(state_t *state, value_t value, const args_t *args)
{
    (void)args;
    return recased_is_same(state, value, FM_TPL_LOWER);
}

static bool test_upper(state_t *state, value_t value, const args_t *args)
{
    (void)args;
    return recased_is_same(state, value, FM_TPL_UPPER);
}

static const fm_template_test_t tests[] = {
    {"boolean", test_boolean},
    {"callable", test_callable},
    {"defined", test_defined},
    {"divisibleby", test_divisibleby},
    {"eq", test_eq},
    {"equalto", test_eq},
    {"even", test_even},
    {"false", test_false},
    {"float", test_float},
    {"ge", test_ge},
    {"greaterthan", test_gt},
    {"gt", test_gt},
    {"in", test_in},
    {"integer", test_integer},
    {"iterable", test_sequence},
    {"le", test_le},
    {"lessthan", test_lt},
    {"lower", test_lower},
    {"lt", test_lt},
    {"mapping", test_mapping},
    {"ne", test_ne},
    {"none", test_none},
    {"number", test_number},
    {"odd", test_odd},
    {"sameas", test_eq},
    {"sequence", test_sequence},
    {"string", test_string},
    {"true", test_true},
    {"undefined", test_undefined},
    {"upper", test_upper},
};

const fm_template_test_t *fm_template_test_find(const char *name, size_t len)
{
    for (size_t i = 0; i < FM_COUNT_OF(tests); i++) {
        if (strlen(tests[i].name) == len &&
            memcmp(tests[i].name, name, len) == 0) {
            return &tests[i];
        }
    }
    return NULL;
}
