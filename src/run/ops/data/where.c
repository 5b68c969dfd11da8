/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conditions over records (docs/spec/workflow.md, W62).  A condition is
 * checked whole before the first record, so that only values that cannot be
 * compared fail later.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "run/ops/field.h"

#define DEPTH_MAX 16
#define TESTS_MAX 1000

typedef enum op {
    OP_EQ,
    OP_NE,
    OP_LT,
    OP_LE,
    OP_GT,
    OP_GE,
    OP_IN,
    OP_CONTAINS,
    OP_MATCHES,
    OP_EXISTS,
    OP_ALL,
    OP_ANY,
    OP_NOT
} op_t;

static const char *const op_names[] = {
    "eq", "ne", "lt", "le", "gt", "ge", "in", "contains", "matches", "exists"};

typedef enum of { OF_VALUE, OF_LENGTH, OF_WORDS } of_t;

typedef struct node {
    op_t op;
    of_t of;
    const char *field;      /* of the source; NULL: the record */
    const fm_json_t *value; /* of the source */
    fm_ops_pattern_t *pattern;
    struct node *parts; /* of all, any, not */
    size_t count;
} node_t;

struct fm_ops_where {
    fm_json_t *source;
    node_t root;
    size_t tests;
};

static void node_fini(node_t *node)
{
    for (size_t i = 0; node->parts && i < node->count; i++) {
        node_fini(&node->parts[i]);
    }
    free(node->parts);
    fm_ops_pattern_destroy(node->pattern);
}

void *fm_ops_where_destroy(fm_ops_where_t *where)
{
    if (where) {
        node_fini(&where->root);
        fm_json_drop(where->source);
        free(where);
    }
    return NULL;
}

static fm_status_t node_parse(fm_ops_where_t *where, const fm_json_t *source,
                              size_t depth, node_t *node, fm_error_t *err);

static fm_status_t parts_parse(fm_ops_where_t *where, op_t op,
                               const fm_json_t *source, size_t depth,
                               node_t *node, fm_error_t *err)
{
    size_t count = op == OP_NOT ? 1 : fm_json_len(source);
    fm_status_t rc = FM_OK;

    if (op != OP_NOT && (!fm_json_is(source, FM_JSON_ARRAY) || count == 0)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "all, any: a list of conditions is needed");
    }
    node->op = op;
    if (!(node->parts = fm_calloc(count, sizeof(*node->parts)))) {
        return fm_no_memory(err);
    }
    node->count = count;
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        rc = node_parse(where, op == OP_NOT ? source : fm_json_at(source, i),
                        depth + 1, &node->parts[i], err);
    }
    return rc;
}

static fm_status_t of_parse(const fm_json_t *source, of_t *of_out,
                            fm_error_t *err)
{
    static const char *const names[] = {"value", "length", "words"};
    const fm_json_t *of = fm_json_get(source, "of");

    if (!of) {
        *of_out = OF_VALUE;
        return FM_OK;
    }
    for (size_t i = 0; fm_json_str(of) && i < FM_COUNT_OF(names); i++) {
        if (strcmp(fm_json_str(of), names[i]) == 0) {
            *of_out = (of_t)i;
            return FM_OK;
        }
    }
    return fm_error_set(err, FM_ERR_INVALID,
                        "of: value, length or words is allowed");
}

static fm_status_t value_check(node_t *node, fm_error_t *err)
{
    const fm_json_t *value = node->value;
    const fm_ops_pattern_options_t options = {0};

    switch (node->op) {
    case OP_LT:
    case OP_LE:
    case OP_GT:
    case OP_GE:
        if (!fm_json_is_number(value) && !fm_json_str(value)) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "value: %s wants a number or a text",
                                op_names[node->op]);
        }
        break;
    case OP_IN:
        if (!fm_json_is(value, FM_JSON_ARRAY)) {
            return fm_error_set(err, FM_ERR_INVALID, "value: in wants a list");
        }
        break;
    case OP_MATCHES:
        if (!fm_json_str(value)) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "value: matches wants a pattern");
        }
        return fm_ops_pattern_create(fm_json_str(value), fm_json_str_len(value),
                                     &options, &node->pattern, err);
    case OP_EXISTS:
        if (!fm_json_is(value, FM_JSON_BOOL)) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "value: exists wants true or false");
        }
        break;
    case OP_EQ:
    case OP_NE:
    case OP_CONTAINS:
    case OP_ALL:
    case OP_ANY:
    case OP_NOT:
        break;
    }
    return FM_OK;
}

static fm_status_t test_parse(fm_ops_where_t *where, const fm_json_t *source,
                              node_t *node, fm_error_t *err)
{
    const char *op = fm_json_get_str(source, "op");
    const fm_json_t *field = fm_json_get(source, "field");
    fm_status_t rc;

    if (++where->tests > TESTS_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT, "more than %d tests", TESTS_MAX);
    }
    node->op = OP_ALL;
    for (size_t i = 0; op && i < FM_COUNT_OF(op_names); i++) {
        if (strcmp(op_names[i], op) == 0) {
            node->op = (op_t)i;
        }
    }
    if (node->op == OP_ALL) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "op: eq, ne, lt, le, gt, ge, in, contains, matches "
                            "or exists is allowed");
    }
    node->field = fm_json_str(field);
    if (!node->field && field && !fm_json_is(field, FM_JSON_NULL)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "field: a text, or null for the record");
    }
    if (!(node->value = fm_json_get(source, "value"))) {
        return fm_error_set(err, FM_ERR_INVALID, "value: is missing");
    }
    rc = of_parse(source, &node->of, err);
    return rc < 0 ? rc : value_check(node, err);
}

static fm_status_t node_parse(fm_ops_where_t *where, const fm_json_t *source,
                              size_t depth, node_t *node, fm_error_t *err)
{
    static const struct {
        const char *key;
        op_t op;
    } joints[] = {{"all", OP_ALL}, {"any", OP_ANY}, {"not", OP_NOT}};

    if (depth > DEPTH_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT, "more than %d levels",
                            DEPTH_MAX);
    }
    for (size_t i = 0; i < FM_COUNT_OF(joints); i++) {
        const fm_json_t *inner = fm_json_get(source, joints[i].key);
        if (inner && fm_json_len(source) != 1) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "%s: stands alone in its map", joints[i].key);
        }
        if (inner) {
            return parts_parse(where, joints[i].op, inner, depth, node, err);
        }
    }
    if (!fm_json_is(source, FM_JSON_OBJECT)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "a condition is a map with all, any, not, or "
                            "field, op and value");
    }
    return test_parse(where, source, node, err);
}

fm_status_t fm_ops_where_create(const fm_json_t *source,
                                fm_ops_where_t **where_out, fm_error_t *err)
{
    fm_ops_where_t *where = fm_calloc(1, sizeof(*where));
    fm_status_t rc;

    if (!where) {
        return fm_no_memory(err);
    }
    where->source = fm_json_keep(source);
    rc = node_parse(where, source, 1, &where->root, err);
    if (rc < 0) {
        fm_error_wrap(err, "where");
        fm_ops_where_destroy(where);
        return rc;
    }
    *where_out = where;
    return FM_OK;
}

/* --- tests --------------------------------------------------------------- */

/* What is tested: a value, or a count in its place. */
typedef struct subject {
    const fm_json_t *value; /* NULL: missing, or a count */
    bool number_known;
    double number; /* where known */
} subject_t;

static subject_t subject_of(const node_t *node, const fm_json_t *record)
{
    const fm_json_t *value = fm_ops_field(record, node->field);
    const char *text = fm_json_str(value);
    size_t len = fm_json_str_len(value);
    subject_t subject = {.value = value};

    if (node->of != OF_VALUE) {
        subject.value = NULL;
    }
    if (node->of == OF_LENGTH && value) {
        subject.number_known = true;
        subject.number = (double)(text ? fm_ops_text_characters(text, len)
                                       : fm_json_len(value));
    } else if (node->of == OF_WORDS && text) {
        size_t at = 0, start = 0, size = 0;
        subject.number_known = true;
        while (fm_ops_text_word(text, len, &at, &start, &size)) {
            subject.number += 1;
        }
    } else if (node->of == OF_VALUE && fm_json_is_number(value)) {
        subject.number_known = true;
        subject.number = fm_json_real_or(value, 0);
    }
    return subject;
}

static bool same(const subject_t *subject, const fm_json_t *value)
{
    if (subject->number_known && fm_json_is_number(value)) {
        return fm_json_is(subject->value, FM_JSON_INT) &&
                       fm_json_is(value, FM_JSON_INT)
                   ? fm_json_int_or(subject->value, 0) ==
                         fm_json_int_or(value, 0)
                   : subject->number == fm_json_real_or(value, 0);
    }
    return fm_json_equal(subject->value, value);
}

static int texts_compare(const fm_json_t *a, const fm_json_t *b)
{
    size_t left = fm_json_str_len(a), right = fm_json_str_len(b);
    int order =
        memcmp(fm_json_str(a), fm_json_str(b), left < right ? left : right);

    return order ? order : (left > right) - (left < right);
}

static bool text_number(const fm_json_t *value, double *number_out)
{
    const char *text = fm_json_str(value);
    char *end = NULL;

    if (!text || !*text || strlen(text) != fm_json_str_len(value) ||
        strspn(text, "+-0123456789.eE \t") != strlen(text)) {
        return false;
    }
    *number_out = strtod(text, &end);
    end += strspn(end, " \t");
    return end != text && *end == '\0' && isfinite(*number_out);
}

/* <0, 0, >0 in @p order_out. */
static fm_status_t compare(const node_t *node, const subject_t *subject,
                           int *order_out, fm_error_t *err)
{
    double left = subject->number;

    if (fm_json_is_number(node->value) &&
        (subject->number_known || text_number(subject->value, &left))) {
        double right = fm_json_real_or(node->value, 0);
        if (fm_json_is(subject->value, FM_JSON_INT) &&
            fm_json_is(node->value, FM_JSON_INT)) {
            int64_t a = fm_json_int_or(subject->value, 0);
            int64_t b = fm_json_int_or(node->value, 0);
            *order_out = (a > b) - (a < b);
        } else {
            *order_out = (left > right) - (left < right);
        }
        return FM_OK;
    }
    if (fm_json_str(subject->value) && fm_json_str(node->value)) {
        *order_out = texts_compare(subject->value, node->value);
        return FM_OK;
    }
    return fm_error_set(
        err, FM_ERR_INVALID, "%.80s is a %s, which %s cannot compare with a %s",
        node->field ? node->field : "the record",
        subject->value ? fm_json_type_name(subject->value) : "count",
        op_names[node->op], fm_json_type_name(node->value));
}

static bool list_has(const fm_json_t *list, const subject_t *subject)
{
    for (size_t i = 0; i < fm_json_len(list); i++) {
        if (same(subject, fm_json_at(list, i))) {
            return true;
        }
    }
    return false;
}

static bool contains(const fm_json_t *whole, const fm_json_t *part)
{
    if (fm_json_str(whole) && fm_json_str(part)) {
        return fm_json_str_len(part) == 0 ||
               memmem(fm_json_str(whole), fm_json_str_len(whole),
                      fm_json_str(part), fm_json_str_len(part)) != NULL;
    }
    if (!fm_json_is(whole, FM_JSON_ARRAY)) {
        return false;
    }
    for (size_t i = 0; i < fm_json_len(whole); i++) {
        const fm_json_t *element = fm_json_at(whole, i);
        const subject_t subject = {element, fm_json_is_number(element),
                                   fm_json_real_or(element, 0)};
        if (same(&subject, part)) {
            return true;
        }
    }
    return false;
}

static fm_status_t test_met(const node_t *node, const fm_json_t *record,
                            bool *met_out, fm_error_t *err)
{
    subject_t subject = subject_of(node, record);
    bool there = subject.value || subject.number_known;
    fm_status_t rc = FM_OK;
    int order = 0;

    if (node->op == OP_EXISTS) {
        *met_out = there == fm_json_bool_or(node->value, true);
        return FM_OK;
    }
    if (!there) {
        *met_out = node->op == OP_NE;
        return FM_OK;
    }
    switch (node->op) {
    case OP_EQ:
        *met_out = same(&subject, node->value);
        break;
    case OP_NE:
        *met_out = !same(&subject, node->value);
        break;
    case OP_IN:
        *met_out = list_has(node->value, &subject);
        break;
    case OP_CONTAINS:
        *met_out = contains(subject.value, node->value);
        break;
    case OP_MATCHES:
        *met_out = false;
        if (fm_json_str(subject.value)) {
            rc = fm_ops_pattern_match(node->pattern, fm_json_str(subject.value),
                                      fm_json_str_len(subject.value), 0, 0,
                                      met_out, NULL, NULL, err);
        }
        break;
    case OP_LT:
    case OP_LE:
    case OP_GT:
    case OP_GE:
        rc = compare(node, &subject, &order, err);
        *met_out = (order < 0 && (node->op == OP_LT || node->op == OP_LE)) ||
                   (order > 0 && (node->op == OP_GT || node->op == OP_GE)) ||
                   (order == 0 && (node->op == OP_LE || node->op == OP_GE));
        break;
    case OP_EXISTS:
    case OP_ALL:
    case OP_ANY:
    case OP_NOT:
        break;
    }
    return rc;
}

static fm_status_t node_met(const node_t *node, const fm_json_t *record,
                            bool *met_out, fm_error_t *err)
{
    bool met = node->op != OP_ANY;
    fm_status_t rc = FM_OK;

    if (!node->parts) {
        return test_met(node, record, met_out, err);
    }
    for (size_t i = 0; rc >= 0 && i < node->count; i++) {
        rc = node_met(&node->parts[i], record, &met, err);
        if (node->op == OP_NOT) {
            met = !met;
        } else if (met == (node->op == OP_ANY)) {
            break;
        }
    }
    *met_out = met;
    return rc;
}

fm_status_t fm_ops_where_test(const fm_ops_where_t *where,
                              const fm_json_t *record, bool *met_out,
                              fm_error_t *err)
{
    bool met = false;
    fm_status_t rc = node_met(&where->root, record, &met, err);

    if (rc >= 0) {
        *met_out = met;
    }
    return rc;
}
