/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lexer.  White space around tags goes as trim_blocks and lstrip_blocks
 * say: a tag alone on its line leaves nothing of the line, "-" at either side
 * of any tag eats all white space there, "+" keeps what would go.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/template/internal.h"

struct lexer {
    fm_template_t *tpl;
    const char *s;
    size_t len;
    size_t at;
    fm_template_token_t *tokens;
    size_t count;
    size_t capacity;
    fm_error_t *err;
};

fm_status_t fm_template_fail_at(const fm_template_t *tpl, size_t at,
                                fm_status_t status, fm_error_t *err,
                                const char *format, va_list args)
{
    size_t line = 1;
    size_t column = 1;
    char reason[FM_ERROR_TEXT_BYTES / 2];

    for (size_t i = 0; i < at && i < tpl->len; i++) {
        column++;
        if (tpl->source[i] == '\n') {
            line++;
            column = 1;
        }
    }
    (void)vsnprintf(reason, sizeof(reason), format, args);
    return fm_error_set(err, status, "%s:%zu:%zu: %s", tpl->what, line, column,
                        reason);
}

FM_PRINTF(3, 4)
static fm_status_t fail(const struct lexer *lexer, size_t at,
                        const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fm_status_t rc = fm_template_fail_at(lexer->tpl, at, FM_ERR_INVALID,
                                         lexer->err, format, args);
    va_end(args);
    return rc;
}

static fm_status_t token_add(struct lexer *lexer, fm_template_token_t token)
{
    fm_status_t rc = fm_grow(&lexer->tokens, &lexer->capacity, lexer->count,
                             sizeof(token), lexer->err);

    if (rc >= 0) {
        lexer->tokens[lexer->count++] = token;
    }
    return rc;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           (c >= '0' && c <= '9');
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* --- text ------------------------------------------------------------------
 */

/* The next "{{", "{%" or "{#" at or after @p from; len: none. */
static size_t tag_find(const struct lexer *lexer, size_t from)
{
    for (size_t i = from; i + 1 < lexer->len; i++) {
        if (lexer->s[i] == '{' &&
            (lexer->s[i + 1] == '{' || lexer->s[i + 1] == '%' ||
             lexer->s[i + 1] == '#')) {
            return i;
        }
    }
    return lexer->len;
}

/* End of the text [begin, tag) once the tag at @p tag has had its way. */
static size_t text_end(const struct lexer *lexer, size_t begin, size_t tag)
{
    size_t end = tag;

    if (tag == lexer->len) {
        return end;
    }
    char sign = tag + 2 < lexer->len ? lexer->s[tag + 2] : '\0';
    if (sign == '-') {
        while (end > begin && is_space(lexer->s[end - 1])) {
            end--;
        }
        return end;
    }
    if (lexer->s[tag + 1] != '{' && sign != '+') { /* lstrip_blocks */
        while (end > begin &&
               (lexer->s[end - 1] == ' ' || lexer->s[end - 1] == '\t')) {
            end--;
        }
        bool line_start = end > begin ? lexer->s[end - 1] == '\n'
                                      : end == 0 || lexer->s[end - 1] == '\n';
        end = line_start ? end : tag;
    }
    return end;
}

/* Behind a tag that ended at @p at: "-" eats white space, else a block's
 * newline goes. */
static size_t tag_after(const struct lexer *lexer, size_t at, char sign,
                        bool block)
{
    if (sign == '-') {
        while (at < lexer->len && is_space(lexer->s[at])) {
            at++;
        }
    } else if (block && sign != '+' && at < lexer->len &&
               lexer->s[at] == '\n') {
        at++;
    }
    return at;
}

static fm_status_t comment_skip(struct lexer *lexer)
{
    const char *end =
        memmem(lexer->s + lexer->at + 2, lexer->len - lexer->at - 2, "#}", 2);

    if (!end) {
        return fail(lexer, lexer->at, "a comment that does not end");
    }
    size_t at = (size_t)(end - lexer->s);
    char sign = at > lexer->at + 2 ? lexer->s[at - 1] : '\0';
    lexer->at = tag_after(lexer, at + 2, sign, true);
    return FM_OK;
}

/* --- within tags -----------------------------------------------------------
 */

static size_t escape_decode(const char *s, size_t left, char *out,
                            size_t *out_len)
{
    static const char names[] = "n\nt\tr\rb\bf\fv\va\a0\0\\\\'\'\"\"";
    char digits[9] = "";
    size_t want = s[1] == 'x' ? 2 : s[1] == 'u' ? 4 : s[1] == 'U' ? 8 : 0;

    for (size_t i = 0; i + 1 < sizeof(names); i += 2) {
        if (names[i] == s[1]) {
            out[(*out_len)++] = names[i + 1];
            return 2;
        }
    }
    if (s[1] == '\n') {
        return 2;
    }
    if (want > 0 && left >= 2 + want) {
        char *end = NULL;
        memcpy(digits, s + 2, want);
        unsigned long c = strtoul(digits, &end, 16);
        if (end == digits + want && c > 0 && c <= 0x10FFFF &&
            (c < 0xD800 || c > 0xDFFF)) {
            *out_len += fm_utf8_encode((uint32_t)c, out + *out_len);
            return 2 + want;
        }
        return 0;
    }
    out[(*out_len)++] = '\\'; /* not an escape: both characters */
    return 1;
}

static fm_status_t string_lex(struct lexer *lexer)
{
    size_t begin = lexer->at;
    char quote = lexer->s[begin];
    size_t i = begin + 1;
    size_t len = 0;

    while (i < lexer->len && lexer->s[i] != quote) {
        i += lexer->s[i] == '\\' ? 2 : 1;
    }
    if (i >= lexer->len) {
        return fail(lexer, begin, "a string that does not end");
    }
    char *text = fm_template_arena_alloc(&lexer->tpl->arena, i - begin + 4);
    if (!text) {
        return fm_no_memory(lexer->err);
    }
    for (size_t k = begin + 1; k < i;) {
        if (lexer->s[k] != '\\') {
            text[len++] = lexer->s[k++];
            continue;
        }
        size_t used = escape_decode(lexer->s + k, i - k, text, &len);
        if (used == 0) {
            return fail(lexer, k, "an escape that is no character");
        }
        k += used;
    }
    lexer->at = i + 1;
    return token_add(lexer, (fm_template_token_t){.kind = FM_TPL_T_STRING,
                                                  .at = begin,
                                                  .text = text,
                                                  .len = len});
}

static fm_status_t number_lex(struct lexer *lexer)
{
    size_t begin = lexer->at;
    size_t end = begin;
    bool real = false;
    char digits[64];

    while (end < lexer->len && is_digit(lexer->s[end])) {
        end++;
    }
    if (end + 1 < lexer->len && lexer->s[end] == '.' &&
        is_digit(lexer->s[end + 1])) {
        real = true;
        for (end++; end < lexer->len && is_digit(lexer->s[end]);) {
            end++;
        }
    }
    if (end - begin >= sizeof(digits) ||
        (end < lexer->len && is_name(lexer->s[end]))) {
        return fail(lexer, begin, "not a number");
    }
    memcpy(digits, lexer->s + begin, end - begin);
    digits[end - begin] = '\0';
    fm_template_token_t token = {.kind = real ? FM_TPL_T_REAL : FM_TPL_T_INT,
                                 .at = begin,
                                 .real = strtod(digits, NULL)};
    errno = 0;
    token.integer = real ? 0 : strtoll(digits, NULL, 10);
    if (errno != 0) {
        return fail(lexer, begin, "a number of more than 64 bits");
    }
    lexer->at = end;
    return token_add(lexer, token);
}

static fm_status_t operator_lex(struct lexer *lexer)
{
    static const char *const two[] = {"==", "!=", "<=", ">=", "//", "**"};
    size_t at = lexer->at;
    size_t len = 0;

    for (size_t i = 0; i < FM_COUNT_OF(two); i++) {
        if (at + 1 < lexer->len && memcmp(lexer->s + at, two[i], 2) == 0) {
            len = 2;
        }
    }
    if (len == 0 && strchr("+-*/%~<>=()[]{},.:|", lexer->s[at])) {
        len = 1;
    }
    if (len == 0 || lexer->s[at] == '\0') {
        return fail(lexer, at, "a character that does not belong here");
    }
    lexer->at += len;
    return token_add(lexer, (fm_template_token_t){.kind = FM_TPL_T_OPERATOR,
                                                  .at = at,
                                                  .text = lexer->s + at,
                                                  .len = len});
}

/* One token within a tag that ends with @p close ("%}" or "}}"); *done_out
 * when it was the end. @p braces counts open brackets of dicts. */
static fm_status_t inside_lex(struct lexer *lexer, const char *close,
                              int *braces, bool *done_out)
{
    const char *s = lexer->s + lexer->at;
    size_t left = lexer->len - lexer->at;
    bool block = close[0] == '%';
    size_t sign =
        left > 2 && (s[0] == '-' || s[0] == '+') && memcmp(s + 1, close, 2) == 0
            ? 1
            : 0;

    if (left >= 2 + sign && memcmp(s + sign, close, 2) == 0 &&
        (block || *braces == 0)) {
        *done_out = true;
        size_t at = lexer->at;
        lexer->at = tag_after(lexer, at + sign + 2, sign ? s[0] : '\0', block);
        return token_add(
            lexer, (fm_template_token_t){.kind = block ? FM_TPL_T_TAG_END
                                                       : FM_TPL_T_PRINT_END,
                                         .at = at});
    }
    if (is_space(s[0])) {
        lexer->at++;
        return FM_OK;
    }
    if (s[0] == '\'' || s[0] == '"') {
        return string_lex(lexer);
    }
    if (is_digit(s[0])) {
        return number_lex(lexer);
    }
    if (is_name(s[0])) {
        size_t end = lexer->at;
        while (end < lexer->len && is_name(lexer->s[end])) {
            end++;
        }
        fm_template_token_t token = {.kind = FM_TPL_T_NAME,
                                     .at = lexer->at,
                                     .text = s,
                                     .len = end - lexer->at};
        lexer->at = end;
        return token_add(lexer, token);
    }
    *braces += s[0] == '{' ? 1 : s[0] == '}' ? -1 : 0;
    return operator_lex(lexer);
}

static fm_status_t tag_lex(struct lexer *lexer)
{
    size_t begin = lexer->at;
    bool block = lexer->s[begin + 1] == '%';
    int braces = 0;
    bool done = false;
    fm_status_t rc = token_add(
        lexer, (fm_template_token_t){.kind = block ? FM_TPL_T_TAG_BEGIN
                                                   : FM_TPL_T_PRINT_BEGIN,
                                     .at = begin});

    lexer->at += 2;
    if (lexer->at < lexer->len &&
        (lexer->s[lexer->at] == '-' || (block && lexer->s[lexer->at] == '+'))) {
        lexer->at++;
    }
    while (rc >= 0 && !done) {
        if (lexer->at >= lexer->len) {
            return fail(lexer, begin, "a tag that does not end");
        }
        rc = inside_lex(lexer, block ? "%}" : "}}", &braces, &done);
    }
    return rc;
}

fm_status_t fm_template_lex(fm_template_t *tpl,
                            fm_template_token_t **tokens_out, fm_error_t *err)
{
    struct lexer lexer = {
        .tpl = tpl, .s = tpl->source, .len = tpl->len, .err = err};
    fm_status_t rc = FM_OK;

    while (lexer.at < lexer.len && rc >= 0) {
        size_t tag = tag_find(&lexer, lexer.at);
        size_t end = text_end(&lexer, lexer.at, tag);
        if (end > lexer.at) {
            rc = token_add(&lexer,
                           (fm_template_token_t){.kind = FM_TPL_T_TEXT,
                                                 .at = lexer.at,
                                                 .text = lexer.s + lexer.at,
                                                 .len = end - lexer.at});
        }
        lexer.at = tag;
        if (rc >= 0 && tag < lexer.len) {
            rc = lexer.s[tag + 1] == '#' ? comment_skip(&lexer)
                                         : tag_lex(&lexer);
        }
    }
    if (rc >= 0) {
        rc = token_add(&lexer, (fm_template_token_t){.kind = FM_TPL_T_END,
                                                     .at = tpl->len});
    }
    if (rc < 0) {
        free(lexer.tokens);
        return rc;
    }
    *tokens_out = lexer.tokens;
    return FM_OK;
}
