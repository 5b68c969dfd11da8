/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Regular expressions by PCRE2.  The translation walks the pattern once and
 * rewrites only escapes; everything else is the same in both dialects or
 * refused.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/unicode/regex.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"

/* Steps of one search.  A split regex of a tokenizer takes a few per
 * character of one word; a hostile one would take hours. */
#define MATCH_LIMIT 2000000u
#define DEPTH_LIMIT 20000u
#define JIT_STACK_BYTES ((size_t)1 << 20)

/* Members of a character class: White_Space, and \w of Unicode's UTS #18. */
#define SPACE                                                                  \
    "\\t-\\r \\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}"     \
    "\\x{202f}\\x{205f}\\x{3000}"
#define WORD "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}"

struct fm_regex {
    pcre2_code *code;
    char *what;
};

struct fm_regex_matcher {
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

static fm_status_t refuse(fm_error_t *err, const char *what, size_t at,
                          const char *part)
{
    return fm_error_set(err, FM_ERR_UNSUPPORTED,
                        "%s: at byte %zu of the pattern: %s is not supported",
                        what, at, part);
}

/* The escape at @p at (a backslash); returns the bytes it has, 0 refused. */
static size_t escape_add(const char *at, bool in_class, fm_buf_t *out,
                         const char **why)
{
    const char *open = in_class ? "" : "[";
    const char *close = in_class ? "" : "]";

    switch (at[1]) {
    case 's':
        fm_buf_printf(out, "%s%s%s", open, SPACE, close);
        return 2;
    case 'S':
        /* in a class the complement cannot be spelled; PCRE2's differs by
         * one character (U+180E) */
        fm_buf_add_str(out, in_class ? "\\S" : "[^" SPACE "]");
        return 2;
    case 'w':
        fm_buf_printf(out, "%s%s%s", open, WORD, close);
        return 2;
    case 'W':
        fm_buf_add_str(out, in_class ? "\\W" : "[^" WORD "]");
        return 2;
    case 'h':
    case 'H':
        *why = "\\h";
        return 0;
    case 'p':
    case 'P': {
        size_t end = at[2] == '{' ? strcspn(at, "}") : 0;
        if (at[2] == '{' && at[end] == '\0') {
            *why = "\\p{ without }";
            return 0;
        }
        const char *name = at + 3 + (at[2] == '{' && at[3] == '^');
        size_t name_len = end ? (size_t)(at + end - name) : 0;
        if (name_len > 2) { /* a script, and not its extensions */
            fm_buf_printf(out, "\\%c{%ssc:%.*s}", at[1],
                          name == at + 3 ? "" : "^", (int)name_len, name);
            return end + 1;
        }
        fm_buf_add(out, at, end ? end + 1 : 2);
        return end ? end + 1 : 2;
    }
    case '\0':
        *why = "a lone backslash";
        return 0;
    default: {
        /* a literal, or an escape that is the same in both */
        size_t bytes = 2;
        while ((at[bytes] & 0xC0) == 0x80) {
            bytes++;
        }
        fm_buf_add(out, at, bytes);
        return bytes;
    }
    }
}

static const char *construct_refused(const char *at)
{
    static const struct {
        const char *text;
        const char *name;
    } table[] = {
        {"{,", "{,n}"},       {"}+", "a possessive {n,m}+"},
        {"(?m", "(?m)"},      {"(?~", "an absence operator"},
        {"(*", "a verb"},     {"(?C", "a callout"},
        {"(?R", "recursion"}, {"(?0", "recursion"},
        {"(?&", "recursion"}, {"(?P>", "recursion"},
    };

    for (size_t i = 0; i < FM_COUNT_OF(table); i++) {
        if (strncmp(at, table[i].text, strlen(table[i].text)) == 0) {
            return table[i].name;
        }
    }
    return NULL;
}

static fm_status_t translate(const char *pattern, const char *what,
                             fm_buf_t *out, fm_error_t *err)
{
    bool in_class = false;
    size_t class_from = 0;

    for (size_t i = 0; pattern[i];) {
        const char *why = NULL;
        char c = pattern[i];
        if (c == '\\') {
            size_t bytes = escape_add(pattern + i, in_class, out, &why);
            if (bytes == 0) {
                return refuse(err, what, i, why);
            }
            i += bytes;
            continue;
        }
        if (in_class) {
            if (c == '[' || (c == '&' && pattern[i + 1] == '&')) {
                return refuse(err, what, i, "a class within a class");
            }
            in_class = c != ']' || i == class_from;
        } else if ((why = construct_refused(pattern + i))) {
            return refuse(err, what, i, why);
        } else if (c == '[') {
            in_class = true;
            class_from = i + 1 + (pattern[i + 1] == '^');
        }
        fm_buf_add_u8(out, (uint8_t)c);
        i++;
    }
    return out->failed ? fm_no_memory(err) : FM_OK;
}

fm_status_t fm_regex_create(const char *pattern, const char *what,
                            fm_regex_t **regex_out, fm_error_t *err)
{
    fm_buf_t text = {0};
    fm_regex_t *regex = NULL;
    int code = 0;
    PCRE2_SIZE at = 0;
    fm_status_t rc = FM_OK;

    if (strlen(pattern) > FM_REGEX_PATTERN_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "%s: a pattern of %zu bytes; the limit is %zu",
                            what, strlen(pattern), FM_REGEX_PATTERN_MAX);
    }
    if ((rc = translate(pattern, what, &text, err)) < 0) {
        goto out;
    }
    if (!(regex = fm_calloc(1, sizeof(*regex))) ||
        !(regex->what = fm_strdup(what))) {
        rc = fm_no_memory(err);
        goto out;
    }
    regex->code =
        pcre2_compile(text.data ? text.data : (const uint8_t *)"", text.len,
                      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE |
                          PCRE2_NO_AUTO_CAPTURE | PCRE2_NEVER_BACKSLASH_C,
                      &code, &at, NULL);
    if (!regex->code) {
        char cause[128] = "";
        (void)pcre2_get_error_message(code, (PCRE2_UCHAR *)cause,
                                      sizeof(cause));
        rc = fm_error_set(err, FM_ERR_INVALID, "%s: pattern \"%.100s\": %s",
                          what, pattern, cause);
        goto out;
    }
    (void)pcre2_jit_compile(regex->code, PCRE2_JIT_COMPLETE); /* or without */
    *regex_out = regex;
    regex = NULL;
out:
    fm_regex_destroy(regex);
    fm_buf_fini(&text);
    return rc;
}

void *fm_regex_destroy(fm_regex_t *regex)
{
    if (regex) {
        pcre2_code_free(regex->code);
        free(regex->what);
        free(regex);
    }
    return NULL;
}

fm_status_t fm_regex_matcher_create(fm_regex_matcher_t **matcher_out,
                                    fm_error_t *err)
{
    fm_regex_matcher_t *matcher = fm_calloc(1, sizeof(*matcher));

    if (!matcher || !(matcher->data = pcre2_match_data_create(1, NULL)) ||
        !(matcher->context = pcre2_match_context_create(NULL))) {
        fm_regex_matcher_destroy(matcher);
        return fm_no_memory(err);
    }
    (void)pcre2_set_match_limit(matcher->context, MATCH_LIMIT);
    (void)pcre2_set_depth_limit(matcher->context, DEPTH_LIMIT);
    /* without one (no JIT on this machine) the limits above still hold */
    matcher->stack = pcre2_jit_stack_create(32768, JIT_STACK_BYTES, NULL);
    if (matcher->stack) {
        pcre2_jit_stack_assign(matcher->context, NULL, matcher->stack);
    }
    *matcher_out = matcher;
    return FM_OK;
}

void *fm_regex_matcher_destroy(fm_regex_matcher_t *matcher)
{
    if (matcher) {
        pcre2_jit_stack_free(matcher->stack);
        pcre2_match_context_free(matcher->context);
        pcre2_match_data_free(matcher->data);
        free(matcher);
    }
    return NULL;
}

fm_status_t fm_regex_find(const fm_regex_t *regex, fm_regex_matcher_t *matcher,
                          const char *text, size_t len, size_t from,
                          size_t *begin_out, size_t *end_out, fm_error_t *err)
{
    int count =
        pcre2_match(regex->code, (PCRE2_SPTR)text, len, from,
                    PCRE2_NO_UTF_CHECK, matcher->data, matcher->context);

    if (count == PCRE2_ERROR_NOMATCH) {
        *begin_out = len + 1;
        *end_out = len + 1;
        return FM_OK;
    }
    if (count == PCRE2_ERROR_NOMEMORY) {
        return fm_no_memory(err);
    }
    if (count < 0) {
        char cause[128] = "";
        (void)pcre2_get_error_message(count, (PCRE2_UCHAR *)cause,
                                      sizeof(cause));
        return fm_error_set(err, FM_ERR_LIMIT,
                            "%s: the pattern on the text at byte %zu: %s",
                            regex->what, from, cause);
    }
    const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(matcher->data);
    /* \K within a look-around can put the end before the start */
    *begin_out = ends[0] <= ends[1] ? ends[0] : ends[1];
    *end_out = ends[1];
    return FM_OK;
}
