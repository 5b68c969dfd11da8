/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Statements: one function a tag.
 */
#include <stdlib.h>

#include "base/mem.h"
#include "text/template/parser.h"

typedef fm_template_node_t node_t;

/* --- statements ------------------------------------------------------------
 */

static bool parse_body(fm_parser_t *p, const char *const *ends,
                       node_t **body_out);

static bool tag_end(fm_parser_t *p)
{
    if (fm_parser_peek(p)->kind != FM_TPL_T_TAG_END) {
        (void)fm_parser_fail(p, FM_ERR_INVALID, "want the end of the tag here");
        return false;
    }
    p->at++;
    return true;
}

/* Body up to {% word %}, which is taken. */
static bool parse_block(fm_parser_t *p, const char *word, node_t **body_out)
{
    const char *const ends[] = {word, NULL};

    if (!tag_end(p) || !parse_body(p, ends, body_out)) {
        return false;
    }
    p->at += 2; /* "{%" and the word */
    return tag_end(p);
}

static node_t *parse_if(fm_parser_t *p)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    node_t *node = fm_parser_node(p, FM_TPL_IF);

    p->at++;
    if (!node || !(node->a = fm_parser_expression(p)) || !tag_end(p) ||
        !parse_body(p, ends, &node->first)) {
        return NULL;
    }
    p->at++; /* "{%" */
    if (fm_parser_is_word(p, "elif")) {
        if (++p->depth > FM_PARSER_DEPTH_MAX) {
            return fm_parser_fail(p, FM_ERR_LIMIT, "more than %d branches",
                                  FM_PARSER_DEPTH_MAX);
        }
        node->c = parse_if(p);
        p->depth--;
        return node->c ? node : NULL;
    }
    if (fm_parser_take_word(p, "else")) {
        return parse_block(p, "endif", &node->c) ? node : NULL;
    }
    p->at++;
    return tag_end(p) ? node : NULL;
}

/* name, or name, name, …: a list of FM_TPL_NAME. */
static node_t *parse_targets(fm_parser_t *p)
{
    bool paren = fm_parser_take_op(p, "(");
    node_t *first = fm_parser_name(p, FM_TPL_NAME);
    node_t *last = first;

    while (last && fm_parser_take_op(p, ",")) {
        last->next = fm_parser_name(p, FM_TPL_NAME);
        last = last->next;
    }
    if (!last || (paren && !fm_parser_want_op(p, ")"))) {
        return NULL;
    }
    return first;
}

static node_t *parse_for(fm_parser_t *p)
{
    static const char *const ends[] = {"else", "endfor", NULL};
    node_t *node = fm_parser_node(p, FM_TPL_FOR);

    p->at++;
    if (!node || !(node->named = parse_targets(p))) {
        return NULL;
    }
    if (!fm_parser_take_word(p, "in")) {
        return fm_parser_fail(p, FM_ERR_INVALID, "want \"in\" here");
    }
    /* "if" filters here; a choice has to stand in parentheses */
    if (!(node->a = fm_parser_or(p)) ||
        (fm_parser_take_word(p, "if") &&
         !(node->b = fm_parser_expression(p)))) {
        return NULL;
    }
    if (fm_parser_is_word(p, "recursive")) {
        return fm_parser_fail(p, FM_ERR_UNSUPPORTED,
                              "recursive loops are not supported");
    }
    p->loops++;
    bool good = tag_end(p) && parse_body(p, ends, &node->first);
    p->loops--;
    if (!good) {
        return NULL;
    }
    p->at++; /* "{%" */
    if (fm_parser_take_word(p, "else")) {
        return parse_block(p, "endfor", &node->c) ? node : NULL;
    }
    p->at++;
    return tag_end(p) ? node : NULL;
}

static node_t *parse_set(fm_parser_t *p)
{
    node_t *node = fm_parser_node(p, FM_TPL_SET);

    p->at++;
    if (!node || !(node->named = parse_targets(p))) {
        return NULL;
    }
    if (!node->named->next &&
        fm_parser_take_op(p, ".")) { /* namespace attribute */
        node_t *attribute = fm_parser_name(p, FM_TPL_ATTRIBUTE);
        if (!attribute) {
            return NULL;
        }
        attribute->a = node->named;
        node->named = attribute;
    }
    if (fm_parser_take_op(p, "=")) {
        node->a = fm_parser_tuple(p);
        return node->a && tag_end(p) ? node : NULL;
    }
    if (node->named->next) {
        return fm_parser_fail(p, FM_ERR_INVALID, "want \"=\" here");
    }
    if (fm_parser_is_op(p, "|")) {
        return fm_parser_fail(p, FM_ERR_UNSUPPORTED,
                              "a filter on a set block is not supported");
    }
    return parse_block(p, "endset", &node->first) ? node : NULL;
}

static node_t *parse_macro(fm_parser_t *p)
{
    p->at++;
    node_t *node = fm_parser_name(p, FM_TPL_DEFINE);
    if (!node || !fm_parser_want_op(p, "(")) {
        return NULL;
    }
    node_t **tail = &node->named;
    while (!fm_parser_take_op(p, ")")) {
        if (node->named &&
            (!fm_parser_want_op(p, ",") || fm_parser_take_op(p, ")"))) {
            break;
        }
        node_t *parameter = fm_parser_name(p, FM_TPL_NAME);
        if (!parameter || (fm_parser_take_op(p, "=") &&
                           !(parameter->a = fm_parser_expression(p)))) {
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

static node_t *parse_generation(fm_parser_t *p)
{
    node_t *node = fm_parser_node(p, FM_TPL_GENERATION);

    p->at++;
    p->tpl->has_generation = true;
    return node && parse_block(p, "endgeneration", &node->first) ? node : NULL;
}

static node_t *parse_jump(fm_parser_t *p)
{
    node_t *node = fm_parser_node(
        p, fm_parser_is_word(p, "break") ? FM_TPL_BREAK : FM_TPL_CONTINUE);

    if (p->loops == 0) {
        return fm_parser_fail(p, FM_ERR_INVALID, "no loop is open here");
    }
    p->at++;
    return node && tag_end(p) ? node : NULL;
}

static node_t *parse_tag(fm_parser_t *p)
{
    static const struct {
        const char *word;
        node_t *(*parse)(fm_parser_t *p);
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
        if (fm_parser_is_word(p, tags[i].word)) {
            return tags[i].parse(p);
        }
    }
    const fm_template_token_t *token = fm_parser_peek(p);
    return token->kind == FM_TPL_T_NAME
               ? fm_parser_fail(
                     p, FM_ERR_UNSUPPORTED,
                     "the tag \"%.*s\" is not known, or not open, here",
                     (int)(token->len < 40 ? token->len : 40), token->text)
               : fm_parser_fail(p, FM_ERR_INVALID, "want a tag's name here");
}

/* Statements up to a tag of @p ends (at "{%", not taken), or to the end of
 * the template where ends is NULL. */
static bool parse_body(fm_parser_t *p, const char *const *ends,
                       node_t **body_out)
{
    node_t **tail = body_out;

    if (++p->depth > FM_PARSER_DEPTH_MAX) {
        (void)fm_parser_fail(p, FM_ERR_LIMIT, "nested more than %d deep",
                             FM_PARSER_DEPTH_MAX);
        return false;
    }
    while (p->rc >= 0) {
        const fm_template_token_t *token = fm_parser_peek(p);
        if (token->kind == FM_TPL_T_END) {
            if (ends) {
                (void)fm_parser_fail(p, FM_ERR_INVALID,
                                     "want {%% %s %%} before the end", ends[0]);
            }
            break;
        }
        if (token->kind == FM_TPL_T_TEXT) {
            node_t *node = fm_parser_node(p, FM_TPL_TEXT);
            if (node) {
                node->text = (fm_template_str_t){token->text, NULL, token->len};
            }
            p->at++;
            *tail = node;
        } else if (token->kind == FM_TPL_T_PRINT_BEGIN) {
            node_t *node = fm_parser_node(p, FM_TPL_PRINT);
            p->at++;
            if (node && (node->a = fm_parser_tuple(p)) &&
                fm_parser_peek(p)->kind != FM_TPL_T_PRINT_END) {
                (void)fm_parser_fail(p, FM_ERR_INVALID, "want \"}}\" here");
            }
            p->at += p->rc >= 0;
            *tail = node;
        } else {
            bool ended = false;
            for (size_t i = 0; ends && ends[i]; i++) {
                ended = ended ||
                        fm_parser_token_is(token + 1, FM_TPL_T_NAME, ends[i]);
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
    fm_parser_t p = {.tpl = tpl, .tokens = tokens, .err = err};
    (void)parse_body(&p, NULL, &tpl->body);
    free(tokens);
    return p.rc;
}
