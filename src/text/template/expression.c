/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Expressions: recursive descent, one function a level of precedence, as Jinja
 * orders them.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/template/parser.h"

typedef fm_template_node_t node_t;

node_t *fm_parser_fail(fm_parser_t *p, fm_status_t status, const char *format,
                       ...)
{
    va_list args;

    if (p->rc >= 0) {
        va_start(args, format);
        p->rc = fm_template_fail_at(p->tpl, p->tokens[p->at].at, status, p->err,
                                    format, args);
        va_end(args);
    }
    return NULL;
}

const fm_template_token_t *fm_parser_peek(const fm_parser_t *p)
{
    return &p->tokens[p->at];
}

bool fm_parser_token_is(const fm_template_token_t *token,
                        fm_template_token_kind_t kind, const char *text)
{
    return token->kind == kind && token->len == strlen(text) &&
           memcmp(token->text, text, token->len) == 0;
}

bool fm_parser_is_op(const fm_parser_t *p, const char *text)
{
    return fm_parser_token_is(fm_parser_peek(p), FM_TPL_T_OPERATOR, text);
}

bool fm_parser_is_word(const fm_parser_t *p, const char *text)
{
    return fm_parser_token_is(fm_parser_peek(p), FM_TPL_T_NAME, text);
}

bool fm_parser_take_op(fm_parser_t *p, const char *text)
{
    bool there = fm_parser_is_op(p, text);

    p->at += there;
    return there;
}

bool fm_parser_take_word(fm_parser_t *p, const char *text)
{
    bool there = fm_parser_is_word(p, text);

    p->at += there;
    return there;
}

bool fm_parser_want_op(fm_parser_t *p, const char *text)
{
    if (!fm_parser_take_op(p, text)) {
        (void)fm_parser_fail(p, FM_ERR_INVALID, "want \"%s\" here", text);
    }
    return p->rc >= 0;
}

node_t *fm_parser_node(fm_parser_t *p, fm_template_kind_t kind)
{
    node_t *node = fm_template_arena_alloc(&p->tpl->arena, sizeof(*node));

    if (!node) {
        p->rc = fm_no_memory(p->err);
        return NULL;
    }
    node->kind = kind;
    node->at = fm_parser_peek(p)->at;
    return node;
}

node_t *fm_parser_name(fm_parser_t *p, fm_template_kind_t kind)
{
    const fm_template_token_t *token = fm_parser_peek(p);

    if (token->kind != FM_TPL_T_NAME) {
        return fm_parser_fail(p, FM_ERR_INVALID, "want a name here");
    }
    node_t *node = fm_parser_node(p, kind);
    if (node) {
        node->text = (fm_template_str_t){token->text, NULL, token->len};
        p->at++;
    }
    return node;
}

/* --- expressions -----------------------------------------------------------
 */

static node_t *parse_unary(fm_parser_t *p, bool filters);
static node_t *parse_postfix(fm_parser_t *p, node_t *node);

/* An expression; commas make a tuple. */
node_t *fm_parser_tuple(fm_parser_t *p)
{
    node_t *first = fm_parser_expression(p);

    if (!first || !fm_parser_is_op(p, ",")) {
        return first;
    }
    node_t *tuple = fm_parser_node(p, FM_TPL_MAKE_LIST);
    if (!tuple) {
        return NULL;
    }
    tuple->value.truth = true; /* printed in parentheses */
    tuple->first = first;
    node_t **tail = &first->next;
    while (fm_parser_take_op(p, ",")) {
        if (fm_parser_is_op(p, ")") ||
            fm_parser_peek(p)->kind == FM_TPL_T_TAG_END ||
            fm_parser_peek(p)->kind == FM_TPL_T_PRINT_END) {
            break;
        }
        if (!(*tail = fm_parser_expression(p))) {
            return NULL;
        }
        tail = &(*tail)->next;
    }
    return tuple;
}

static node_t *literal(fm_parser_t *p, fm_template_value_t value)
{
    node_t *node = fm_parser_node(p, FM_TPL_LITERAL);

    if (node) {
        node->value = value;
        p->at++;
    }
    return node;
}

static node_t *parse_string(fm_parser_t *p)
{
    node_t *node = fm_parser_node(p, FM_TPL_LITERAL);
    fm_buf_t text = {0};

    while (fm_parser_peek(p)->kind == FM_TPL_T_STRING) { /* neighbours join */
        fm_buf_add(&text, fm_parser_peek(p)->text, fm_parser_peek(p)->len);
        p->at++;
    }
    char *copy = fm_template_arena_alloc(&p->tpl->arena, text.len + 1);
    if (!node || !copy || text.failed) {
        p->rc = fm_no_memory(p->err);
        fm_buf_fini(&text);
        return NULL;
    }
    if (text.len > 0) {
        memcpy(copy, text.data, text.len);
    }
    node->text = (fm_template_str_t){copy, NULL, text.len};
    node->value = (fm_template_value_t){.type = FM_TPL_STRING};
    node->value.str = &node->text;
    fm_buf_fini(&text);
    return node;
}

/* Elements up to @p close; of a dict keys and values in turn. */
static node_t *parse_elements(fm_parser_t *p, fm_template_kind_t kind,
                              const char *close)
{
    node_t *node = fm_parser_node(p, kind);
    node_t **tail = node ? &node->first : NULL;

    p->at++;
    while (node && !fm_parser_take_op(p, close)) {
        if (node->first &&
            (!fm_parser_want_op(p, ",") || fm_parser_take_op(p, close))) {
            break;
        }
        if (!(*tail = fm_parser_expression(p))) {
            return NULL;
        }
        tail = &(*tail)->next;
        if (kind == FM_TPL_MAKE_DICT) {
            if (!fm_parser_want_op(p, ":") ||
                !(*tail = fm_parser_expression(p))) {
                return NULL;
            }
            tail = &(*tail)->next;
        }
    }
    return p->rc < 0 ? NULL : node;
}

static node_t *parse_primary(fm_parser_t *p)
{
    static const struct {
        const char *name;
        fm_template_value_t value;
    } words[] = {
        {"true", {.type = FM_TPL_BOOL, .truth = true}},
        {"True", {.type = FM_TPL_BOOL, .truth = true}},
        {"false", {.type = FM_TPL_BOOL}},
        {"False", {.type = FM_TPL_BOOL}},
        {"none", {.type = FM_TPL_NONE}},
        {"None", {.type = FM_TPL_NONE}},
    };
    const fm_template_token_t *token = fm_parser_peek(p);

    switch (token->kind) {
    case FM_TPL_T_NAME:
        for (size_t i = 0; i < FM_COUNT_OF(words); i++) {
            if (fm_parser_is_word(p, words[i].name)) {
                return literal(p, words[i].value);
            }
        }
        return fm_parser_name(p, FM_TPL_NAME);
    case FM_TPL_T_STRING:
        return parse_string(p);
    case FM_TPL_T_INT:
        return literal(p, fm_template_int(token->integer));
    case FM_TPL_T_REAL:
        return literal(p, fm_template_real(token->real));
    case FM_TPL_T_OPERATOR:
        if (fm_parser_is_op(p, "[")) {
            return parse_elements(p, FM_TPL_MAKE_LIST, "]");
        }
        if (fm_parser_is_op(p, "{")) {
            return parse_elements(p, FM_TPL_MAKE_DICT, "}");
        }
        if (fm_parser_take_op(p, "(")) {
            if (fm_parser_is_op(p, ")")) {
                node_t *empty = fm_parser_node(p, FM_TPL_MAKE_LIST);
                p->at++;
                return empty;
            }
            node_t *node = fm_parser_tuple(p);
            return node && fm_parser_want_op(p, ")") ? node : NULL;
        }
        break;
    case FM_TPL_T_END:
    case FM_TPL_T_TEXT:
    case FM_TPL_T_PRINT_BEGIN:
    case FM_TPL_T_PRINT_END:
    case FM_TPL_T_TAG_BEGIN:
    case FM_TPL_T_TAG_END:
        break;
    }
    return fm_parser_fail(p, FM_ERR_INVALID, "want an expression here");
}

/* (a, b, name=c): into first and named of @p node. */
static bool parse_arguments(fm_parser_t *p, node_t *node)
{
    node_t **tail = &node->first;
    node_t **named = &node->named;

    p->at++;
    while (!fm_parser_take_op(p, ")")) {
        if ((node->first || node->named) &&
            (!fm_parser_want_op(p, ",") || fm_parser_take_op(p, ")"))) {
            break;
        }
        const fm_template_token_t *next = fm_parser_peek(p) + 1;
        if (fm_parser_peek(p)->kind == FM_TPL_T_NAME &&
            fm_parser_token_is(next, FM_TPL_T_OPERATOR, "=")) {
            node_t *argument = fm_parser_name(p, FM_TPL_NAME);
            p->at++;
            if (!argument || !(argument->a = fm_parser_expression(p))) {
                return false;
            }
            *named = argument;
            named = &argument->next;
            continue;
        }
        if (node->named) {
            (void)fm_parser_fail(p, FM_ERR_INVALID,
                                 "a plain argument behind a named one");
            return false;
        }
        if (fm_parser_is_op(p, "*") || fm_parser_is_op(p, "**")) {
            (void)fm_parser_fail(p, FM_ERR_UNSUPPORTED,
                                 "* arguments are not supported");
            return false;
        }
        if (!(*tail = fm_parser_expression(p))) {
            return false;
        }
        tail = &(*tail)->next;
    }
    return p->rc >= 0;
}

/* What stands in brackets behind a value: an index or a slice. */
static node_t *parse_subscript(fm_parser_t *p, node_t *of)
{
    node_t *node = fm_parser_node(p, FM_TPL_GET);
    node_t *parts[3] = {0};
    size_t count = 0;

    p->at++;
    while (node && p->rc >= 0 && !fm_parser_is_op(p, "]")) {
        if (fm_parser_take_op(p, ":")) {
            node->kind = FM_TPL_SLICE;
            if (++count > 2) {
                return fm_parser_fail(p, FM_ERR_INVALID,
                                      "a slice of more than 3 parts");
            }
        } else if (parts[count]) {
            return fm_parser_fail(p, FM_ERR_INVALID, "want \"]\" here");
        } else {
            parts[count] = fm_parser_expression(p);
        }
    }
    if (!node || p->rc < 0 || !fm_parser_want_op(p, "]")) {
        return NULL;
    }
    if (node->kind == FM_TPL_GET && !parts[0]) {
        return fm_parser_fail(p, FM_ERR_INVALID, "want an index here");
    }
    node->a = of;
    node->b = parts[0];
    node->c = parts[1];
    node->first = parts[2];
    return node;
}

static node_t *parse_attribute(fm_parser_t *p, node_t *of)
{
    p->at++;
    if (fm_parser_peek(p)->kind == FM_TPL_T_INT) { /* x.0 */
        node_t *node = fm_parser_node(p, FM_TPL_GET);
        if (node) {
            node->a = of;
            node->b = literal(p, fm_template_int(fm_parser_peek(p)->integer));
        }
        return node && node->b ? node : NULL;
    }
    node_t *node = fm_parser_name(p, FM_TPL_ATTRIBUTE);
    if (!node) {
        return NULL;
    }
    node->a = of;
    if (fm_parser_is_op(p, "(")) {
        node->kind = FM_TPL_METHOD;
        return parse_arguments(p, node) ? node : NULL;
    }
    return node;
}

static node_t *parse_filter(fm_parser_t *p, node_t *value)
{
    p->at++;
    node_t *node = fm_parser_name(p, FM_TPL_FILTER);
    if (!node) {
        return NULL;
    }
    node->a = value;
    node->filter = fm_template_filter_find(node->text.data, node->text.len);
    if (!node->filter) {
        p->at--;
        return fm_parser_fail(p, FM_ERR_UNSUPPORTED,
                              "the filter \"%.*s\" is not known",
                              (int)node->text.len, node->text.data);
    }
    return !fm_parser_is_op(p, "(") || parse_arguments(p, node) ? node : NULL;
}

/* An argument of a test may stand behind it without parentheses. */
static bool test_argument_follows(const fm_parser_t *p)
{
    switch (fm_parser_peek(p)->kind) {
    case FM_TPL_T_NAME:
        return !fm_parser_is_word(p, "else") && !fm_parser_is_word(p, "or") &&
               !fm_parser_is_word(p, "and") && !fm_parser_is_word(p, "is") &&
               !fm_parser_is_word(p, "if") && !fm_parser_is_word(p, "in") &&
               !fm_parser_is_word(p, "not");
    case FM_TPL_T_STRING:
    case FM_TPL_T_INT:
    case FM_TPL_T_REAL:
        return true;
    case FM_TPL_T_OPERATOR:
        return fm_parser_is_op(p, "[") || fm_parser_is_op(p, "{");
    case FM_TPL_T_END:
    case FM_TPL_T_TEXT:
    case FM_TPL_T_PRINT_BEGIN:
    case FM_TPL_T_PRINT_END:
    case FM_TPL_T_TAG_BEGIN:
    case FM_TPL_T_TAG_END:
        break;
    }
    return false;
}

static node_t *parse_test(fm_parser_t *p, node_t *value)
{
    p->at++;
    bool negated = fm_parser_take_word(p, "not");
    node_t *node = fm_parser_name(p, FM_TPL_TEST);
    if (!node) {
        return NULL;
    }
    node->a = value;
    node->test = fm_template_test_find(node->text.data, node->text.len);
    if (!node->test) {
        p->at--;
        return fm_parser_fail(p, FM_ERR_UNSUPPORTED,
                              "the test \"%.*s\" is not known",
                              (int)node->text.len, node->text.data);
    }
    if (fm_parser_is_op(p, "(")) {
        if (!parse_arguments(p, node)) {
            return NULL;
        }
    } else if (test_argument_follows(p)) {
        node_t *argument = parse_primary(p);
        node->first = argument ? parse_postfix(p, argument) : NULL;
        if (!node->first) {
            return NULL;
        }
    }
    if (!negated) {
        return node;
    }
    node_t *not_node = fm_parser_node(p, FM_TPL_NOT);
    if (not_node) {
        not_node->a = node;
    }
    return not_node;
}

/* Attributes, subscripts and calls. */
static node_t *parse_postfix(fm_parser_t *p, node_t *node)
{
    while (node && p->rc >= 0) {
        if (fm_parser_is_op(p, ".")) {
            node = parse_attribute(p, node);
        } else if (fm_parser_is_op(p, "[")) {
            node = parse_subscript(p, node);
        } else if (fm_parser_is_op(p, "(")) {
            node_t *call = fm_parser_node(p, FM_TPL_CALL);
            if (!call) {
                return NULL;
            }
            call->a = node;
            node = parse_arguments(p, call) ? call : NULL;
        } else {
            break;
        }
    }
    return node;
}

static node_t *parse_unary(fm_parser_t *p, bool filters)
{
    node_t *node = NULL;

    if (++p->depth > FM_PARSER_DEPTH_MAX) {
        return fm_parser_fail(p, FM_ERR_LIMIT, "nested more than %d deep",
                              FM_PARSER_DEPTH_MAX);
    }
    if (fm_parser_is_op(p, "-") || fm_parser_is_op(p, "+")) {
        node = fm_parser_node(p, fm_parser_is_op(p, "-") ? FM_TPL_NEGATE
                                                         : FM_TPL_PLUS);
        p->at++;
        if (node && !(node->a = parse_unary(p, false))) {
            node = NULL;
        }
    } else {
        node = parse_primary(p);
    }
    node = node ? parse_postfix(p, node) : NULL;
    while (filters && node && p->rc >= 0) {
        if (fm_parser_is_op(p, "|")) {
            node = parse_filter(p, node);
        } else if (fm_parser_is_word(p, "is")) {
            node = parse_test(p, node);
        } else if (fm_parser_is_op(p, "(")) {
            node = parse_postfix(p, node);
        } else {
            break;
        }
    }
    p->depth--;
    return p->rc < 0 ? NULL : node;
}

struct level {
    const char *op;
    fm_template_op_t code;
};

/* Left-associative operators of one level; @p lower parses the operands. */
static node_t *parse_level(fm_parser_t *p, const struct level *ops,
                           size_t count, node_t *(*lower)(fm_parser_t *p))
{
    node_t *left = lower(p);
    size_t i = 0;

    while (left) {
        for (i = 0; i < count && !fm_parser_is_op(p, ops[i].op); i++) {
        }
        if (i == count) {
            break;
        }
        node_t *node = fm_parser_node(p, FM_TPL_BINARY);
        p->at++;
        if (!node || !(node->b = lower(p))) {
            return NULL;
        }
        node->op = ops[i].code;
        node->a = left;
        left = node;
    }
    return left;
}

static node_t *parse_operand(fm_parser_t *p)
{
    return parse_unary(p, true);
}

static node_t *parse_power(fm_parser_t *p)
{
    static const struct level ops[] = {{"**", FM_TPL_POW}};

    return parse_level(p, ops, FM_COUNT_OF(ops), parse_operand);
}

static node_t *parse_product(fm_parser_t *p)
{
    static const struct level ops[] = {{"*", FM_TPL_MUL},
                                       {"/", FM_TPL_DIV},
                                       {"//", FM_TPL_FLOORDIV},
                                       {"%", FM_TPL_MOD}};

    return parse_level(p, ops, FM_COUNT_OF(ops), parse_power);
}

static node_t *parse_concat(fm_parser_t *p)
{
    static const struct level ops[] = {{"~", FM_TPL_CONCAT}};

    return parse_level(p, ops, FM_COUNT_OF(ops), parse_product);
}

static node_t *parse_sum(fm_parser_t *p)
{
    static const struct level ops[] = {{"+", FM_TPL_ADD}, {"-", FM_TPL_SUB}};

    return parse_level(p, ops, FM_COUNT_OF(ops), parse_concat);
}

static bool comparison_take(fm_parser_t *p, fm_template_op_t *op_out)
{
    static const struct level ops[] = {{"==", FM_TPL_EQ}, {"!=", FM_TPL_NE},
                                       {"<=", FM_TPL_LE}, {">=", FM_TPL_GE},
                                       {"<", FM_TPL_LT},  {">", FM_TPL_GT}};

    for (size_t i = 0; i < FM_COUNT_OF(ops); i++) {
        if (fm_parser_take_op(p, ops[i].op)) {
            *op_out = ops[i].code;
            return true;
        }
    }
    if (fm_parser_take_word(p, "in")) {
        *op_out = FM_TPL_IN;
        return true;
    }
    if (fm_parser_is_word(p, "not") &&
        fm_parser_token_is(fm_parser_peek(p) + 1, FM_TPL_T_NAME, "in")) {
        p->at += 2;
        *op_out = FM_TPL_NOT_IN;
        return true;
    }
    return false;
}

/* a < b < c is a < b and b < c: a chain through c. */
static node_t *parse_compare(fm_parser_t *p)
{
    node_t *left = parse_sum(p);
    node_t *head = NULL;
    node_t **tail = &head;
    fm_template_op_t op = FM_TPL_EQ;

    while (left && comparison_take(p, &op)) {
        node_t *node = fm_parser_node(p, FM_TPL_COMPARE);
        if (!node || !(node->b = parse_sum(p))) {
            return NULL;
        }
        node->op = op;
        node->a = left;
        left = node->b;
        *tail = node;
        tail = &node->c;
    }
    return head ? head : left;
}

static node_t *parse_not(fm_parser_t *p)
{
    size_t count = 0;

    while (fm_parser_take_word(p, "not")) {
        count++;
    }
    node_t *node = parse_compare(p);
    for (count = count > 1 ? 2 - count % 2 : count; node && count > 0;
         count--) {
        node_t *not_node = fm_parser_node(p, FM_TPL_NOT);
        if (not_node) {
            not_node->a = node;
        }
        node = not_node;
    }
    return node;
}

static node_t *parse_word_level(fm_parser_t *p, const char *word,
                                fm_template_kind_t kind,
                                node_t *(*lower)(fm_parser_t *p))
{
    node_t *left = lower(p);

    while (left && fm_parser_take_word(p, word)) {
        node_t *node = fm_parser_node(p, kind);
        if (!node || !(node->b = lower(p))) {
            return NULL;
        }
        node->a = left;
        left = node;
    }
    return left;
}

static node_t *parse_and(fm_parser_t *p)
{
    return parse_word_level(p, "and", FM_TPL_AND, parse_not);
}

node_t *fm_parser_or(fm_parser_t *p)
{
    return parse_word_level(p, "or", FM_TPL_OR, parse_and);
}

node_t *fm_parser_expression(fm_parser_t *p)
{
    if (++p->depth > FM_PARSER_DEPTH_MAX) {
        return fm_parser_fail(p, FM_ERR_LIMIT, "nested more than %d deep",
                              FM_PARSER_DEPTH_MAX);
    }
    node_t *value = fm_parser_or(p);

    while (value && fm_parser_take_word(p, "if")) {
        node_t *node = fm_parser_node(p, FM_TPL_CHOOSE);
        if (!node || !(node->a = fm_parser_or(p))) {
            return NULL;
        }
        node->b = value;
        if (fm_parser_take_word(p, "else") &&
            !(node->c = fm_parser_expression(p))) {
            return NULL;
        }
        value = node;
    }
    p->depth--;
    return p->rc < 0 ? NULL : value;
}
