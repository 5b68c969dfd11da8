/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file field.h
 * Fields of records (docs/spec/workflow.md, W60), patterns and conditions over
 * them (W62).  Threads: safe for distinct objects.
 */
#ifndef FM_RUN_OPS_FIELD_H
#define FM_RUN_OPS_FIELD_H

#include "base/buf.h"
#include "base/json.h"

/** Field @p name of @p record, borrowed; NULL where it is missing or null.
 *  @param name  NULL: the record itself, whatever it is. */
fm_json_t *fm_ops_field(const fm_json_t *record, const char *name);
/** Append a value: a text as it is, others as canonical JSON. */
void fm_ops_field_add_text(fm_buf_t *text, const fm_json_t *value);
/** Characters of UTF-8 text. */
size_t fm_ops_text_characters(const char *text, size_t len);
/** The next run of bytes that are not ASCII white space, from *at on; false
 *  at the end.  Moves *at past it. */
bool fm_ops_text_word(const char *text, size_t len, size_t *at,
                      size_t *start_out, size_t *size_out);

/** A PCRE2 pattern over UTF-8 text. */
typedef struct fm_ops_pattern fm_ops_pattern_t;

typedef struct fm_ops_pattern_options {
    bool ignore_case;
    bool full; /**< matches the whole text only */
} fm_ops_pattern_options_t;

/** @retval FM_ERR_INVALID  no pattern: the text names the place. */
FM_MUST_USE fm_status_t fm_ops_pattern_create(
    const char *text, size_t len, const fm_ops_pattern_options_t *options,
    fm_ops_pattern_t **pattern_out, fm_error_t *err);
void *fm_ops_pattern_destroy(fm_ops_pattern_t *pattern);
/** Capturing groups it has. */
size_t fm_ops_pattern_groups(const fm_ops_pattern_t *pattern);

/** Where a group matched; an unset group is empty at 0. */
typedef struct fm_ops_span {
    size_t start, end;
} fm_ops_span_t;
/**
 * The first match at or after @p from.
 * @param span_out  of @p group; NULL: not wanted.  Group 0 is the match.
 * @param next_out  where to look for the next match; NULL: not wanted.
 * @retval FM_ERR_LIMIT  the pattern takes too many steps on this text.
 */
FM_MUST_USE fm_status_t fm_ops_pattern_match(const fm_ops_pattern_t *pattern,
                                             const char *text, size_t len,
                                             size_t from, size_t group,
                                             bool *matched_out,
                                             fm_ops_span_t *span_out,
                                             size_t *next_out, fm_error_t *err);

/** A condition over a record. */
typedef struct fm_ops_where fm_ops_where_t;

/** @param source  kept. */
FM_MUST_USE fm_status_t fm_ops_where_create(const fm_json_t *source,
                                            fm_ops_where_t **where_out,
                                            fm_error_t *err);
void *fm_ops_where_destroy(fm_ops_where_t *where);
/** @retval FM_ERR_INVALID  values that cannot be compared. */
FM_MUST_USE fm_status_t fm_ops_where_test(const fm_ops_where_t *where,
                                          const fm_json_t *record,
                                          bool *met_out, fm_error_t *err);

#endif
