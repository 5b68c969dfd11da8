/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file regex.h
 * Regular expressions of untrusted tokenizer files: a fence around PCRE2.
 *
 * Patterns are in the dialect of published tokenizers (Oniguruma, Ruby
 * syntax) and are translated: \s, \w, \d have Unicode's meaning, ^ and $ hold
 * at every line.  What the two engines read differently (\h, {,n}, {n,m}+,
 * (?m), class intersections) is refused.  A search that backtracks more than a
 * bound fails instead of running on.
 *
 * Threads: a regex is immutable and may be shared; a matcher is not.
 */
#ifndef FM_TEXT_UNICODE_REGEX_H
#define FM_TEXT_UNICODE_REGEX_H

#include <flowmesh/error.h>
#include <stdbool.h>
#include <stddef.h>

/** Longest pattern; the longest published one has some 300 bytes. */
#define FM_REGEX_PATTERN_MAX ((size_t)16 << 10)

typedef struct fm_regex fm_regex_t;
typedef struct fm_regex_matcher fm_regex_matcher_t;

/**
 * @param what  where the pattern stands, for error text.
 * @retval FM_ERR_INVALID      not a pattern: the text has its reason.
 * @retval FM_ERR_UNSUPPORTED  see above.
 */
FM_MUST_USE fm_status_t fm_regex_create(const char *pattern, const char *what,
                                        fm_regex_t **regex_out,
                                        fm_error_t *err);
void *fm_regex_destroy(fm_regex_t *regex);

/** Working memory of searches; any number of regexes, one after the other. */
FM_MUST_USE fm_status_t
fm_regex_matcher_create(fm_regex_matcher_t **matcher_out, fm_error_t *err);
void *fm_regex_matcher_destroy(fm_regex_matcher_t *matcher);

/**
 * The leftmost match at or after @p from.
 * @param text       valid UTF-8; what stands before @p from is seen by
 *                   look-behind.
 * @param begin_out  byte offsets of the match; both @p len + 1 when there is
 *                   none.
 * @retval FM_ERR_LIMIT  the bound on backtracking.
 */
FM_MUST_USE fm_status_t fm_regex_find(const fm_regex_t *regex,
                                      fm_regex_matcher_t *matcher,
                                      const char *text, size_t len, size_t from,
                                      size_t *begin_out, size_t *end_out,
                                      fm_error_t *err);

#endif
