/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Patterns: PCRE2 in UTF mode, interpreted, with bounds on steps and memory,
 * since both pattern and text come from outside.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>

#include "base/mem.h"
#include "run/ops/field.h"

#define PATTERN_BYTES_MAX 65536
#define STEPS_MAX 10000000u /* about a second */
#define HEAP_KIB_MAX 65536u

struct fm_ops_pattern {
    pcre2_code *code;
    pcre2_match_data *match;
    pcre2_match_context *limits;
};

fm_status_t fm_ops_pattern_create(const char *text, size_t len,
                                  const fm_ops_pattern_options_t *options,
                                  fm_ops_pattern_t **pattern_out,
                                  fm_error_t *err)
{
    uint32_t flags = PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C;
    fm_ops_pattern_t *pattern = NULL;
    PCRE2_SIZE at = 0;
    int code = 0;
    fm_status_t rc = FM_OK;

    if (len > PATTERN_BYTES_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "a pattern of more than %d bytes",
                            PATTERN_BYTES_MAX);
    }
    if (!(pattern = fm_calloc(1, sizeof(*pattern)))) {
        return fm_no_memory(err);
    }
    flags |= options->ignore_case ? PCRE2_CASELESS : 0;
    flags |= options->full ? PCRE2_ANCHORED | PCRE2_ENDANCHORED : 0;
    pattern->code =
        pcre2_compile((PCRE2_SPTR)text, len, flags, &code, &at, NULL);
    if (!pattern->code) {
        PCRE2_UCHAR why[128] = "";
        (void)pcre2_get_error_message(code, why, sizeof(why));
        rc = fm_error_set(err, FM_ERR_INVALID, "pattern, byte %zu: %s", at,
                          (const char *)why);
        goto out;
    }
    pattern->match = pcre2_match_data_create_from_pattern(pattern->code, NULL);
    pattern->limits = pcre2_match_context_create(NULL);
    if (!pattern->match || !pattern->limits) {
        rc = fm_no_memory(err);
        goto out;
    }
    (void)pcre2_set_match_limit(pattern->limits, STEPS_MAX);
    (void)pcre2_set_heap_limit(pattern->limits, HEAP_KIB_MAX);
    *pattern_out = pattern;
    pattern = NULL;
out:
    fm_ops_pattern_destroy(pattern);
    return rc;
}

void *fm_ops_pattern_destroy(fm_ops_pattern_t *pattern)
{
    if (pattern) {
        pcre2_match_context_free(pattern->limits);
        pcre2_match_data_free(pattern->match);
        pcre2_code_free(pattern->code);
        free(pattern);
    }
    return NULL;
}

size_t fm_ops_pattern_groups(const fm_ops_pattern_t *pattern)
{
    uint32_t count = 0;

    (void)pcre2_pattern_info(pattern->code, PCRE2_INFO_CAPTURECOUNT, &count);
    return count;
}

/* After an empty match the next one starts a character further. */
static size_t next_from(const char *text, size_t len, const PCRE2_SIZE *whole)
{
    size_t next = whole[1];

    if (whole[0] >= whole[1]) {
        do {
            next++;
        } while (next < len && ((unsigned char)text[next] & 0xc0) == 0x80);
    }
    return next;
}

fm_status_t fm_ops_pattern_match(const fm_ops_pattern_t *pattern,
                                 const char *text, size_t len, size_t from,
                                 size_t group, bool *matched_out,
                                 fm_ops_span_t *span_out, size_t *next_out,
                                 fm_error_t *err)
{
    int found = PCRE2_ERROR_NOMATCH;

    if (from <= len) {
        found = pcre2_match(pattern->code, (PCRE2_SPTR)text, len, from, 0,
                            pattern->match, pattern->limits);
    }
    if (found == PCRE2_ERROR_NOMATCH) {
        *matched_out = false;
        return FM_OK;
    }
    if (found == PCRE2_ERROR_NOMEMORY) {
        return fm_no_memory(err);
    }
    if (found < 0) {
        PCRE2_UCHAR why[128] = "";
        (void)pcre2_get_error_message(found, why, sizeof(why));
        return fm_error_set(err, FM_ERR_LIMIT,
                            "the pattern cannot be matched here: %s",
                            (const char *)why);
    }
    const PCRE2_SIZE *span = pcre2_get_ovector_pointer(pattern->match);
    if (span_out) {
        bool set = group < (size_t)found && span[2 * group] != PCRE2_UNSET &&
                   span[2 * group] <= span[2 * group + 1];
        span_out->start = set ? span[2 * group] : 0;
        span_out->end = set ? span[2 * group + 1] : 0;
    }
    if (next_out) {
        *next_out = next_from(text, len, span);
    }
    *matched_out = true;
    return FM_OK;
}
