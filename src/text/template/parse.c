/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parser: recursive descent, one function a level of precedence, as Jinja
 * orders them.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/template/internal.h"

/* Nesting of the syntax; a level of an expression takes some ten frames. */
#define PARSE_DEPTH_MAX 64

typedef fm_template_node_t node_t;

struct parser {
    fm_template_t *tpl;
    const fm_template_token_t *tokens;
    size_t at;
    int depth;
    int loops; /* open for loops: where break may stand */
    fm_status_t rc;
    fm_error_t *err;
};

FM_PRINTF(3, 4)
static node_t *fail(struct parser *p, fm_status_t status, const char *format,
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

static const fm_template_token_t *peek(const struct parser *p)
{
    return &p->tokens[p->at];
}

static bool token_is(const fm_template_token_t *token,
                     fm_template_token_kind_t kind, const char *text)
{
    return token->kind == kind && token->len == strlen(text) &&
           memcmp(token->text, text, token->len) == 0;
}

static bool is_op(const struct parser *p, const char *text)
{
    return token_is(peek(p), FM_TPL_T_OPERATOR, text);
}

static bool is_word(const struct parser *p, const char *text)
{
    return token_is(peek(p), FM_TPL_T_NAME, text);
}

static bool take_op(struct parser *p, const char *text)
{
    bool there = is_op(p, text);

    p->at += there;
    return there;
}

static bool take_word(struct parser *p, const char *text)
{
    bool there = is_word(p, text);

    p->at += there;
    return there;
}

static bool want_op(struct parser *p, const char *text)
{
    if (!take_op(p, text)) {
        (void)fail(p, FM_ERR_INVALID, "want \"%s\" here", text);
    }
    return p->rc >= 0;
}

static node_t *node_make(struct parser *p, fm_template_kind_t kind)
{
    node_t *node = fm_template_arena_alloc(&p->tpl->arena, sizeof(*node));

    if (!node) {
        p->rc = fm_no_memory(p->err);
        return NULL;
    }
    node->kind = kind;
    node->at = peek(p)->at;
    return node;
}

static node_t *name_take(struct parser *p, fm_template_kind_t kind)
{
    const fm_template_token_t *token = peek(p);

    if (token->kind != FM_TPL_T_NAME) {
        return fail(p, FM_ERR_INVALID, "want a name here");
    }
    node_t *node = node_make(p, kind);
    if (node) {
        node->text = (fm_template_str_t){token->text, NULL, token->len};
        p->at++;
    }
    return node;
}

/* --- expressions -----------------------------------------------------------
 */

static node_t *parse_choose(struct parser *p);
static node_t *parse_unary(struct parser *p, bool filters);
static node_t *parse_postfix(struct parser *p, node_t *node);

/* An expression; commas make a tuple. */
static node_t *parse_tuple(struct parser *p)
{
    node_t *first = parse_choose(p);

    if (!first || !is_op(p, ",")) {
        return first;
    }
    node_t *tuple = node_make(p, FM_TPL_MAKE_LIST);
    if (!tuple) {
        return NULL;
    }
    tuple->value.truth = true; /* printed in parentheses */
    tuple->first = first;
    node_t **tail = &first->next;
    while (take_op(p, ",")) {
        if (is_op(p, ")") || peek(p)->kind == FM_TPL_T_TAG_END ||
            peek(p)->kind == FM_TPL_T_PRINT_END) {
            break;
        }
        if (!(*tail = parse_choose(p))) {
            return NULL;
        }
        tail = &(*tail)->next;
    }
    return tuple;
}

static node_t *literal(struct parser *p, fm_template_value_t value)
{
    node_t *node = node_make(p, FM_TPL_LITERAL);

    if (node) {
        node->value = value;
        p->at++;
    }
    return node;
}

static node_t *parse_string(struct parser *p)
{
    node_t *node = node_make(p, FM_TPL_LITERAL);
    fm_buf_t text = {0};

    while (peek(p)->kind == FM_TPL_T_STRING) { /* neighbours join */
        fm_buf_add(&text, peek(p)->text, peek(p)->len);
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
static node_t *parse_elements(struct parser *p, fm_template_kind_t kind,
                              const char *close)
{
    node_t *node = node_make(p, kind);
    node_t **tail = node ? &node->first : NULL;

    p->at++;
    while (node && !take_op(p, close)) {
        if (node->first && (!want_op(p, ",") || take_op(p, close))) {
            break;
        }
        if (!(*tail = parse_choose(p))) {
            return NULL;
        }
        tail = &(*tail)->next;
        if (kind == FM_TPL_MAKE_DICT) {
            if (!want_op(p, ":") || !(*tail = parse_choose(p))) {
                return NULL;
            }
            tail = &(*tail)->next;
        }
    }
    return p->rc < 0 ? NULL : node;
}

static node_t *parse_primary(struct parser *p)
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
    const fm_template_token_t *token = peek(p);

    switch (token->kind) {
    case FM_TPL_T_NAME:
        for (size_t i = 0; i < FM_COUNT_OF(words); i++) {
            if (is_word(p, words[i].name)) {
                return literal(p, words[i].value);
            }
        }
        return name_take(p, FM_TPL_NAME);
    case FM_TPL_T_STRING:
        return parse_string(p);
    case FM_TPL_T_INT:
        return literal(p, fm_template_int(token->integer));
    case FM_TPL_T_REAL:
        return literal(p, fm_template_real(token->real));
    case FM_TPL_T_OPERATOR:
        if (is_op(p, "[")) {
            return parse_elements(p, FM_TPL_MAKE_LIST, "]");
        }
        if (is_op(p, "{")) {
            return parse_elements(p, FM_TPL_MAKE_DICT, "}");
        }
        if (take_op(p, "(")) {
            if (is_op(p, ")")) {
                node_t *empty = node_make(p, FM_TPL_MAKE_LIST);
                p->at++;
                return empty;
            }
            node_t *node = parse_tuple(p);
            return node && want_op(p, ")") ? node : NULL;
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
    return fail(p, FM_ERR_INVALID, "want an expression here");
}

/* (a, b, name=c): into first and named of @p node. */
static bool parse_arguments(struct parser *p, node_t *node)
{
    node_t **tail = &node->first;
    node_t **named = &node->named;

    p->at++;
    while (!take_op(p, ")")) {
        if ((node->first || node->named) &&
            (!want_op(p, ",") || take_op(p, ")"))) {
            break;
        }
        const fm_template_token_t *next = peek(p) + 1;
        if (peek(p)->kind == FM_TPL_T_NAME &&
            token_is(next, FM_TPL_T_OPERATOR, "=")) {
            node_t *argument = name_take(p, FM_TPL_NAME);
            p->at++;
            if (!argument || !(argument->a = parse_choose(p))) {
                return false;
            }
            *named = argument;
            named = &argument->next;
            continue;
        }
        if (node->named) {
            (void)fail(p, FM_ERR_INVALID,
                       "a plain argument behind a named one");
            return false;
        }
        if (is_op(p, "*") || is_op(p, "**")) {
            (void)fail(p, FM_ERR_UNSUPPORTED, "* arguments are not supported");
            return false;
        }
        if (!(*tail = parse_choose(p))) {
            return false;
        }
        tail = &(*tail)->next;
    }
    return p->rc >= 0;
}

/* What stands in brackets behind a value: an index or a slice. */
static node_t *parse_subscript(struct parser *p, node_t *of)
{
    node_t *node = node_make(p, FM_TPL_GET);
    node_t *parts[3] = {0};
    size_t count = 0;

    p->at++;
    while (node && p->rc >= 0 && !is_op(p, "]")) {
        if (take_op(p, ":")) {
            node->kind = FM_TPL_SLICE;
            if (++count > 2) {
                return fail(p, FM_ERR_INVALID, "a slice of more than 3 parts");
            }
        } else if (parts[count]) {
            return fail(p, FM_ERR_INVALID, "want \"]\" here");
        } else {
            parts[count] = parse_choose(p);
        }
    }
    if (!node || p->rc < 0 || !want_op(p, "]")) {
        return NULL;
    }
    if (node->kind == FM_TPL_GET && !parts[0]) {
        return fail(p, FM_ERR_INVALID, "want an index here");
    }
    node->a = of;
    node->b = parts[0];
    node->c = parts[1];
    node->first = parts[2];
    return node;
}

static node_t *parse_attribute(struct parser *p, node_t *of)
{
    p->at++;
    if (peek(p)->kind == FM_TPL_T_INT) { /* x.0 */
        node_t *node = node_make(p, FM_TPL_GET);
        if (node) {
            node->a = of;
            node->b = literal(p, fm_template_int(peek(p)->integer));
        }
        return node && node->b ? node : NULL;
    }
    node_t *node = name_take(p, FM_TPL_ATTRIBUTE);
    if (!node) {
        return NULL;
    }
    node->a = of;
    if (is_op(p, "(")) {
        node->kind = FM_TPL_METHOD;
        return parse_arguments(p, node) ? node : NULL;
    }
    return node;
}

static node_t *parse_filter(struct parser *p, node_t *value)
{
    p->at++;
    node_t *node = name_take(p, FM_TPL_FILTER);
    if (!node) {
        return NULL;
    }
    node->a = value;
    node->filter = fm_template_filter_find(node->text.data, node->text.len);
    if (!node->filter) {
        p->at--;
        return fail(p, FM_ERR_UNSUPPORTED, "the filter \"%.*s\" is not known",
                    (int)node->text.len, node->text.data);
    }
    return !is_op(p, "(") || parse_arguments(p, node) ? node : NULL;
}

/* An argument of a test may stand behind it without parentheses. */
static bool test_argument_follows(const struct parser *p)
{
    switch (peek(p)->kind) {
    case FM_TPL_T_NAME:
        return !is_word(p, "else") && !is_word(p, "or") && !is_word(p, "and") &&
               !is_word(p, "is") && !is_word(p, "if") && !is_word(p, "in") &&
               !is_word(p, "not");
    case FM_TPL_T_STRING:
    case FM_TPL_T_INT:
    case FM_TPL_T_REAL:
        return true;
    case FM_TPL_T_OPERATOR:
        return is_op(p, "[") || is_op(p, "{");
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

static node_t *parse_test(struct parser *p, node_t *value)
{
    p->at++;
    bool negated = take_word(p, "not");
    node_t *node = name_take(p, FM_TPL_TEST);
    if (!node) {
        return NULL;
    }
    node->a = value;
    node->test = fm_template_test_find(node->text.data, node->text.len);
    if (!node->test) {
        p->at--;
        return fail(p, FM_ERR_UNSUPPORTED, "the test \"%.*s\" is not known",
                    (int)node->text.len, node->text.data);
    }
    if (is_op(p, "(")) {
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
    node_t *not_node = node_make(p, FM_TPL_NOT);
    if (not_node) {
        not_node->a = node;
    }
    return not_node;
}

/* Attributes, subscripts and calls. */
static node_t *parse_postfix(struct parser *p, node_t *node)
{
    while (node && p->rc >= 0) {
        if (is_op(p, ".")) {
            node = parse_attribute(p, node);
        } else if (is_op(p, "[")) {
            node = parse_subscript(p, node);
        } else if (is_op(p, "(")) {
            node_t *call = node_make(p, FM_TPL_CALL);
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

static node_t *parse_unary(struct parser *p, bool filters)
{
    node_t *node = NULL;

    if (++p->depth > PARSE_DEPTH_MAX) {
        return fail(p, FM_ERR_LIMIT, "nested more than %d deep",
                    PARSE_DEPTH_MAX);
    }
    if (is_op(p, "-") || is_op(p, "+")) {
        node = node_make(p, is_op(p, "-") ? FM_TPL_NEGATE : FM_TPL_PLUS);
        p->at++;
        if (node && !(node->a = parse_unary(p, false))) {
            node = NULL;
        }
    } else {
        node = parse_primary(p);
    }
    node = node ? parse_postfix(p, node) : NULL;
    while (filters && node && p->rc >= 0) {
        if (is_op(p, "|")) {
            node = parse_filter(p, node);
        } else if (is_word(p, "is")) {
            node = parse_test(p, node);
        } else if (is_op(p, "(")) {
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
static node_t *parse_level(struct parser *p, const struct level *ops,
                           size_t count, node_t *(*lower)(struct parser *p))
{
    node_t *left = lower(p);
    size_t i = 0;

    while (left) {
        for (i = 0; i < count && !is_op(p, ops[i].op); i++) {
        }
        if (i == count) {
            break;
        }
        node_t *node = node_make(p, FM_TPL_BINARY);
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

static node_t *parse_operand(struct parser *p)
{
    return parse_unary(p, true);
}

static node_t *parse_power(struct parser *p)
{
    static const struct level ops[] = {{"**", FM_TPL_POW}};

    return parse_level(p, ops, FM_COUNT_OF(ops), parse_operand);
}

static node_t *parse_product(struct parser *p)
{
    static const struct level ops[] = {{"*", FM_TPL_MUL},
                                       {"/", FM_TPL_DIV},
                                       {"//", FM_TPL_FLOORDIV},
                                       {"%", FM_TPL_MOD}};

    return parse_level(p, ops, FM_COUNT_OF(ops), parse_power);
}

static node_t *parse_concat(struct parser *p)
{
    static const struct level ops[] = {{"~", FM_TPL_CONCAT}};

    return parse_level(p, ops, FM_COUNT_OF(ops), parse_product);
}

static node_t *parse_sum(struct parser *p)
{
    static const struct level ops[] = {{"+", FM_TPL_ADD}, {"-", FM_TPL_SUB}};

    return parse_level(p, ops, FM_COUNT_OF(ops), parse_concat);
}

static bool comparison_take(struct parser *p, fm_template_op_t *op_out)
{
    static const struct level ops[] = {{"==", FM_TPL_EQ}, {"!=", FM_TPL_NE},
                                       {"<=", FM_TPL_LE}, {">=", FM_TPL_GE},
                                       {"<", FM_TPL_LT},  {">", FM_TPL_GT}};

    for (size_t i = 0; i < FM_COUNT_OF(ops); i++) {
        if (take_op(p, ops[i].op)) {
            *op_out = ops[i].code;
            return true;
        }
    }
    if (take_word(p, "in")) {
        *op_out = FM_TPL_IN;
        return true;
    }
    if (is_word(p, "not") && token_is(peek(p) + 1, FM_TPL_T_NAME, "in")) {
        p->at += 2;
        *op_out = FM_TPL_NOT_IN;
        return true;
    }
    return false;
}

/* a < b < c is a < b and b < c: a chain through c. */
static node_t *parse_compare(struct parser *p)
{
    node_t *left = parse_sum(p);
    node_t *head = NULL;
    node_t **tail = &head;
    fm_template_op_t op = FM_TPL_EQ;

    while (left && comparison_take(p, &op)) {
        node_t *node = node_make(p, FM_TPL_COMPARE);
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

static node_t *parse_not(struct parser *p)
{
    size_t count = 0;

    while (take_word(p, "not")) {
        count++;
    }
    node_t *node = parse_compare(p);
    for (count = count > 1 ? 2 - count % 2 : count; node && count > 0;
         count--) {
        node_t *not_node = node_make(p, FM_TPL_NOT);
        if (not_node) {
            not_node->a = node;
        }
        node = not_node;
    }
    return node;
}

static node_t *parse_word_level(struct parser *p, const char *word,
                                fm_template_kind_t kind,
                                node_t *(*lower)(struct parser *p))
{
    node_t *left = lower(p);

    while (left && take_word(p, word)) {
        node_t *node = node_make(p, kind);
        if (!node || !(node->b = lower(p))) {
            return NULL;
        }
        node->a = left;
        left = node;
    }
    return left;
}

static node_t *parse_and(struct parser *p)
{
    return parse_word_level(p, "and", FM_TPL_AND, parse_not);
}

static node_t *parse_or(struct parser *p)
{
    return parse_word_level(p, "or", FM_TPL_OR, parse_and);
}

static node_t *parse_choose(struct parser *p)
{
    if (++p->depth > PARSE_DEPTH_MAX) {
        return fail(p, FM_ERR_LIMIT, "nested more than %d deep",
                    PARSE_DEPTH_MAX);
    }
    node_t *value = parse_or(p);

    while (value && take_word(p, "if")) {
        node_t *node = node_make(p, FM_TPL_CHOOSE);
        if (!node || !(node->a = parse_or(p))) {
            return NULL;
        }
        node->b = value;
        if (take_word(p, "else") && !(node->c = parse_choose(p))) {
            return NULL;
        }
        value = node;
    }
    p->depth--;
    return p->rc < 0 ? NULL : value;
}

/* --- statements ------------------------------------------------------------
 */

static bool parse_body(struct parser *p, const char *const *ends,
                       node_t **body_out);

static bool tag_end(struct parser *p)
{
    if (peek(p)->kind != FM_TPL_T_TAG_END) {
        (void)fail(p, FM_ERR_INVALID, "want the end of the tag here");
        return false;
    }
    p->at++;
    return true;
}

/* Body up to {% word %}, which is taken. */
static bool parse_block(struct parser *p, const char *word, node_t **body_out)
{
    const char *const ends[] = {word, NULL};

    if (!tag_end(p) || !parse_body(p, ends, body_out)) {
        return false;
    }
    p->at += 2; /* "{%" and the word */
    return tag_end(p);
}

static node_t *parse_if(struct parser *p)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    node_t *node = node_make(p, FM_TPL_IF);

    p->at++;
    if (!node || !(node->a = parse_choose(p)) || !tag_end(p) ||
        !parse_body(p, ends, &node->first)) {
        return NULL;
    }
    p->at++; /* "{%" */
    if (is_word(p, "elif")) {
        if (++p->depth > PARSE_DEPTH_MAX) {
            return fail(p, FM_ERR_LIMIT, "more than %d branches",
                        PARSE_DEPTH_MAX);
        }
        node->c = parse_if(p);
        p->depth--;
        return node->c ? node : NULL;
    }
    if (take_word(p, "else")) {
        return parse_block(p, "endif", &node->c) ? node : NULL;
    }
    p->at++;
    return tag_end(p) ? node : NULL;
}

/* name, or name, name, …: a list of FM_TPL_NAME. */
static node_t *parse_targets(struct parser *p)
{
    bool paren = take_op(p, "(");
    node_t *first = name_take(p, FM_TPL_NAME);
    node_t *last = first;

    while (last && take_op(p, ",")) {
        last->next = name_take(p, FM_TPL_NAME);
        last = last->next;
    }
    if (!last || (paren && !want_op(p, ")"))) {
        return NULL;
    }
    return first;
}

static node_t *parse_for(struct parser *p)
{
    static const char *const ends[] = {"else", "endfor", NULL};
    node_t *node = node_make(p, FM_TPL_FOR);

    p->at++;
    if (!node || !(node->named = parse_targets(p))) {
        return NULL;
    }
    if (!take_word(p, "in")) {
        return fail(p, FM_ERR_INVALID, "want \"in\" here");
    }
    /* "if" filters here; a choice has to stand in parentheses */
    if (!(node->a = parse_or(p)) ||
        (take_word(p, "if") && !(node->b = parse_choose(p)))) {
        return NULL;
    }
    if (is_word(p, "recursive")) {
        return fail(p, FM_ERR_UNSUPPORTED, "recursive loops are not supported");
    }
    p->loops++;
    bool good = tag_end(p) && parse_body(p, ends, &node->first);
    p->loops--;
    if (!good) {
        return NULL;
    }
    p->at++; /* "{%" */
    if (take_word(p, "else")) {
        return parse_block(p, "endfor", &node->c) ? node : NULL;
    }
    p->at++;
    return tag_end(p) ? node : NULL;
}

static node_t *parse_set(struct parser *p)
{
    node_t *node = node_make(p, FM_TPL_SET);

    p->at++;
    if (!node || !(node->named = parse_targets(p))) {
        return NULL;
    }
    if (!node->named->next && take_op(p, ".")) { /* namespace attribute */
        node_t *attribute = name_take(p, FM_TPL_ATTRIBUTE);
        if (!attribute) {
            return NULL;
        }
        attribute->a = node->named;
        node->named = attribute;
    }
    if (take_op(p, "=")) {
        node->a = parse_tuple(p);
        return node->a && tag_end(p) ? node : NULL;
    }
    if (node->named->next) {
        return fail(p, FM_ERR_INVALID, "want \"=\" here");
    }
    if (is_op(p, "|")) {
        return fail(p, FM_ERR_UNSUPPORTED,
                    "a filter on a set block is not supported");
    }
    return parse_block(p, "endset", &node->first) ? node : NULL;
}

static node_t *parse_macro(struct parser *p)
{
    p->at++;
    node_t *node = name_take(p, FM_TPL_DEFINE);
    if (!node || !want_op(p, "(")) {
        return NULL;
    }
    node_t **tail = &node->named;
    while (!take_op(p, ")")) {
        if (node->named && (!want_op(p, ",") || take_op(p, ")"))) {
            break;
        }
        node_t *parameter = name_take(p, FM_TPL_NAME);
        if (!parameter ||
            (take_op(p, "=") && !(parameter->a = parse_choose(p)))) {
            return NULL;
        }
        *tail = parameter;
        tail = &parameter->next;
    }
    int loops = p->loops;
    p->loops = 0;
    bool good = p->rc >= 0 && parse_block(p, "endmacro", &node->first);
    p->loops = loops;
    return good ? node : NULL;
}

static node_t *parse_generation(struct parser *p)
{
    node_t *node = node_make(p, FM_TPL_GENERATION);

    p->at++;
    p->tpl->has_generation = true;
    return node && parse_block(p, "endgeneration", &node->first) ? node : NULL;
}

static node_t *parse_jump(struct parser *p)
{
    node_t *node =
        node_make(p, is_word(p, "break") ? FM_TPL_BREAK : FM_TPL_CONTINUE);

    if (p->loops == 0) {
        return fail(p, FM_ERR_INVALID, "no loop is open here");
    }
    p->at++;
    return node && tag_end(p) ? node : NULL;
}

static node_t *parse_tag(struct parser *p)
{
    static const struct {
        const char *word;
        node_t *(*parse)(struct parser *p);
    } tags[] = {
        {"if", parse_if},
        {"for", parse_for},
        {"set", parse_set},
        {"macro", parse_macro},
        {"break", parse_jump},
        {"continue", parse_jump},
        {"generation", parse_generation},
    };

    p->at++; /* "{%" */
    for (size_t i = 0; i < FM_COUNT_OF(tags); i++) {
        if (is_word(p, tags[i].word)) {
            return tags[i].parse(p);
        }
    }
    const fm_template_token_t *token = peek(p);
    return token->kind == FM_TPL_T_NAME
               ? fail(p, FM_ERR_UNSUPPORTED,
                      "the tag \"%.*s\" is not known, or not open, here",
                      (int)(token->len < 40 ? token->len : 40), token->text)
               : fail(p, FM_ERR_INVALID, "want a tag's name here");
}

/* Statements up to a tag of @p ends (at "{%", not taken), or to the end of
 * the template where ends is NULL. */
static bool parse_body(struct parser *p, const char *const *ends,
                       node_t **body_out)
{
    node_t **tail = body_out;

    if (++p->depth > PARSE_DEPTH_MAX) {
        (void)fail(p, FM_ERR_LIMIT, "nested more than %d deep",
                   PARSE_DEPTH_MAX);
        return false;
    }
    while (p->rc >= 0) {
        const fm_template_token_t *token = peek(p);
        if (token->kind == FM_TPL_T_END) {
            if (ends) {
                (void)fail(p, FM_ERR_INVALID, "want {%% %s %%} before the end",
                           ends[0]);
            }
            break;
        }
        if (token->kind == FM_TPL_T_TEXT) {
            node_t *node = node_make(p, FM_TPL_TEXT);
            if (node) {
                node->text = (fm_template_str_t){token->text, NULL, token->len};
            }
            p->at++;
            *tail = node;
        } else if (token->kind == FM_TPL_T_PRINT_BEGIN) {
            node_t *node = node_make(p, FM_TPL_PRINT);
            p->at++;
            if (node && (node->a = parse_tuple(p)) &&
                peek(p)->kind != FM_TPL_T_PRINT_END) {
                (void)fail(p, FM_ERR_INVALID, "want \"}}\" here");
            }
            p->at += p->rc >= 0;
            *tail = node;
        } else {
            bool ended = false;
            for (size_t i = 0; ends && ends[i]; i++) {
                ended = ended || token_is(token + 1, FM_TPL_T_NAME, ends[i]);
            }
            if (ended) {
                break;
            }
            *tail = parse_tag(p);
        }
        if (p->rc < 0 || !*tail) {
            return false;
        }
        tail = &(*tail)->next;
    }
    p->depth--;
    return p->rc >= 0;
}

fm_status_t fm_template_parse(fm_template_t *tpl, fm_error_t *err)
{
    fm_template_token_t *tokens = NULL;
    fm_status_t rc = fm_template_lex(tpl, &tokens, err);

    if (rc < 0) {
        return rc;
    }
    struct parser p = {.tpl = tpl, .tokens = tokens, .err = err};
    (void)parse_body(&p, NULL, &tpl->body);
    free(tokens);
    return p.rc;
}
