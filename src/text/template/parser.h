/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file parser.h
 * What the two halves of the parser share: expression.c, parse.c.
 *
 * A parser that has failed (rc < 0) has written its error; functions that give
 * a node then give NULL.
 */
#ifndef FM_TEXT_TEMPLATE_PARSER_H
#define FM_TEXT_TEMPLATE_PARSER_H

#include "text/template/internal.h"

/** Nesting of the syntax; a level of an expression takes some ten frames. */
#define FM_PARSER_DEPTH_MAX 64

typedef struct fm_parser {
    fm_template_t *tpl;
    const fm_template_token_t *tokens;
    size_t at;
    int depth;
    int loops; /**< open for loops: where break may stand */
    fm_status_t rc;
    fm_error_t *err;
} fm_parser_t;

/** Record the first failure, at the token at hand; NULL. */
fm_template_node_t *fm_parser_fail(fm_parser_t *p, fm_status_t status,
                                   const char *format, ...) FM_PRINTF(3, 4);
const fm_template_token_t *fm_parser_peek(const fm_parser_t *p);
bool fm_parser_token_is(const fm_template_token_t *token,
                        fm_template_token_kind_t kind, const char *text);
bool fm_parser_is_op(const fm_parser_t *p, const char *text);
bool fm_parser_is_word(const fm_parser_t *p, const char *text);
/** Go past it if it is there. */
bool fm_parser_take_op(fm_parser_t *p, const char *text);
bool fm_parser_take_word(fm_parser_t *p, const char *text);
/** It has to be there. */
bool fm_parser_want_op(fm_parser_t *p, const char *text);
fm_template_node_t *fm_parser_node(fm_parser_t *p, fm_template_kind_t kind);
/** A node of the name at hand, which is taken. */
fm_template_node_t *fm_parser_name(fm_parser_t *p, fm_template_kind_t kind);

/** An expression; with commas a tuple; one without "x if y". */
fm_template_node_t *fm_parser_expression(fm_parser_t *p);
fm_template_node_t *fm_parser_tuple(fm_parser_t *p);
fm_template_node_t *fm_parser_or(fm_parser_t *p);

#endif
