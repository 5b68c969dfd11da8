/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UTF-8 by hand (hot, and simple), everything that needs tables by utf8proc.
 */
#include "text/unicode/unicode.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"

#define REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */

/* What the first byte announces: length (0: none) and the second's range. */
static size_t lead(uint8_t first, uint8_t *low, uint8_t *high)
{
    *low = 0x80;
    *high = 0xBF;
    if (first < 0x80) {
        return 1;
    }
    if (first >= 0xC2 && first <= 0xDF) {
        return 2;
    }
    if (first >= 0xE0 && first <= 0xEF) {
        *low = first == 0xE0 ? 0xA0 : 0x80;
        *high = first == 0xED ? 0x9F : 0xBF;
        return 3;
    }
    if (first >= 0xF0 && first <= 0xF4) {
        *low = first == 0xF0 ? 0x90 : 0x80;
        *high = first == 0xF4 ? 0x8F : 0xBF;
        return 4;
    }
    return 0;
}

/* Bytes at @p s that begin a character and fit, at most len and its length;
 * *whole_out says whether they are all of it. */
static size_t subpart(const char *s, size_t len, bool *whole_out)
{
    uint8_t low = 0;
    uint8_t high = 0;
    size_t want = lead((uint8_t)s[0], &low, &high);
    size_t have = want > 0 ? 1 : 0;

    while (have < want && have < len && (uint8_t)s[have] >= low &&
           (uint8_t)s[have] <= high) {
        have++;
        low = 0x80;
        high = 0xBF;
    }
    *whole_out = want > 0 && have == want;
    return have;
}

size_t fm_utf8_length(const char *s, size_t len)
{
    bool whole = false;
    size_t bytes = subpart(s, len, &whole);

    return whole ? bytes : 0;
}

uint32_t fm_utf8_decode(const char *s, size_t *bytes_out)
{
    const uint8_t *b = (const uint8_t *)s;

    if (b[0] < 0x80) {
        *bytes_out = 1;
        return b[0];
    }
    if (b[0] < 0xE0) {
        *bytes_out = 2;
        return (uint32_t)(b[0] & 0x1F) << 6 | (b[1] & 0x3F);
    }
    if (b[0] < 0xF0) {
        *bytes_out = 3;
        return (uint32_t)(b[0] & 0x0F) << 12 | (uint32_t)(b[1] & 0x3F) << 6 |
               (b[2] & 0x3F);
    }
    *bytes_out = 4;
    return (uint32_t)(b[0] & 0x07) << 18 | (uint32_t)(b[1] & 0x3F) << 12 |
           (uint32_t)(b[2] & 0x3F) << 6 | (b[3] & 0x3F);
}

size_t fm_utf8_encode(uint32_t c, char *s)
{
    if (c < 0x80) {
        s[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        s[0] = (char)(0xC0 | c >> 6);
        s[1] = (char)(0x80 | (c & 0x3F));
        return 2;
    }
    if (c < 0x10000) {
        s[0] = (char)(0xE0 | c >> 12);
        s[1] = (char)(0x80 | (c >> 6 & 0x3F));
        s[2] = (char)(0x80 | (c & 0x3F));
        return 3;
    }
    s[0] = (char)(0xF0 | c >> 18);
    s[1] = (char)(0x80 | (c >> 12 & 0x3F));
    s[2] = (char)(0x80 | (c >> 6 & 0x3F));
    s[3] = (char)(0x80 | (c & 0x3F));
    return 4;
}

size_t fm_utf8_valid(const char *s, size_t len)
{
    size_t i = 0;

    while (i < len) {
        size_t bytes =
            (uint8_t)s[i] < 0x80 ? 1 : fm_utf8_length(s + i, len - i);
        if (bytes == 0) {
            break;
        }
        i += bytes;
    }
    return i;
}

size_t fm_utf8_count(const char *s, size_t len)
{
    size_t count = 0;

    for (size_t i = 0; i < len; i++) {
        count += ((uint8_t)s[i] & 0xC0) != 0x80;
    }
    return count;
}

size_t fm_utf8_offset(const char *s, size_t len, size_t index)
{
    size_t i = 0;

    while (i < len) {
        if (((uint8_t)s[i] & 0xC0) != 0x80 && index-- == 0) {
            break;
        }
        i++;
    }
    return i;
}

void fm_utf8_add_lossy(fm_buf_t *buf, const char *s, size_t len)
{
    size_t from = 0; /* of the valid part not yet appended */
    size_t i = 0;

    while (i < len) {
        bool whole = false;
        size_t bytes = subpart(s + i, len - i, &whole);
        if (!whole) {
            fm_buf_add(buf, s + from, i - from);
            fm_buf_add_str(buf, REPLACEMENT);
            bytes = bytes > 0 ? bytes : 1;
            from = i + bytes;
        }
        i += bytes;
    }
    fm_buf_add(buf, s + from, len - from);
}

size_t fm_utf8_open_tail(const char *s, size_t len)
{
    for (size_t back = 1; back <= 3 && back <= len; back++) {
        bool whole = false;
        size_t bytes = subpart(s + len - back, back, &whole);
        if (bytes > 0) {
            return !whole && bytes == back ? back : 0;
        }
    }
    return 0;
}

/* --- normal forms ----------------------------------------------------------
 */

static bool is_ascii(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if ((uint8_t)s[i] >= 0x80) {
            return false;
        }
    }
    return true;
}

static fm_status_t marks_check(const char *s, size_t len, fm_error_t *err)
{
    size_t run = 0;

    for (size_t i = 0, bytes = 0; i < len; i += bytes) {
        uint32_t c = fm_utf8_decode(s + i, &bytes);
        bool mark = c >= 0x300 &&
                    utf8proc_get_property((int32_t)c)->combining_class != 0;
        run = mark ? run + 1 : 0;
        if (run > FM_UNICODE_MARKS_MAX) {
            return fm_error_set(err, FM_ERR_LIMIT,
                                "text: more than %d combining marks in a row "
                                "before byte %zu",
                                FM_UNICODE_MARKS_MAX, i + bytes);
        }
    }
    return FM_OK;
}

fm_status_t fm_unicode_normalize(fm_unicode_form_t form, const char *s,
                                 size_t len, fm_buf_t *out, fm_error_t *err)
{
    static const utf8proc_option_t options[] = {
        [FM_UNICODE_NFC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE,
        [FM_UNICODE_NFD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
        [FM_UNICODE_NFKC] =
            UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
        [FM_UNICODE_NFKD] =
            UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
    };
    utf8proc_uint8_t *made = NULL;

    if (is_ascii(s, len)) {
        fm_buf_add(out, s, len);
        return out->failed ? fm_no_memory(err) : FM_OK;
    }
    fm_status_t rc = marks_check(s, len, err);
    if (rc < 0) {
        return rc;
    }
    utf8proc_ssize_t bytes =
        utf8proc_map((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)len, &made,
                     options[form]);
    if (bytes < 0) {
        return bytes == UTF8PROC_ERROR_NOMEM
                   ? fm_no_memory(err)
                   : fm_error_set(err, FM_ERR_INVALID, "text: %s",
                                  utf8proc_errmsg(bytes));
    }
    fm_buf_add(out, made, (size_t)bytes);
    free(made);
    return out->failed ? fm_no_memory(err) : FM_OK;
}

/* --- case ------------------------------------------------------------------
 */

void fm_unicode_lower(const char *s, size_t len, fm_buf_t *out)
{
    char text[4];

    for (size_t i = 0, bytes = 0; i < len; i += bytes) {
        uint32_t c = fm_utf8_decode(s + i, &bytes);
        if (c == 0x130) { /* the one letter that becomes two */
            fm_buf_add_str(out, "i\xCC\x87");
            continue;
        }
        c = (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
        fm_buf_add(out, text, fm_utf8_encode(c, text));
    }
}

void fm_unicode_upper(const char *s, size_t len, fm_buf_t *out)
{
    char text[4];

    for (size_t i = 0, bytes = 0; i < len; i += bytes) {
        uint32_t c = fm_utf8_decode(s + i, &bytes);
        if (c == 0xDF) {
            fm_buf_add_str(out, "SS");
            continue;
        }
        c = (uint32_t)utf8proc_toupper((utf8proc_int32_t)c);
        fm_buf_add(out, text, fm_utf8_encode(c, text));
    }
}

/* --- properties ------------------------------------------------------------
 */

static utf8proc_category_t category(uint32_t c)
{
    return utf8proc_category((utf8proc_int32_t)c);
}

bool fm_unicode_is_space(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
           c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool fm_unicode_is_alpha(uint32_t c)
{
    utf8proc_category_t is = category(c);

    return (is >= UTF8PROC_CATEGORY_LU && is <= UTF8PROC_CATEGORY_LO) ||
           is == UTF8PROC_CATEGORY_NL || (c >= 0x24B6 && c <= 0x24E9);
}

bool fm_unicode_is_word(uint32_t c)
{
    utf8proc_category_t is = category(c);

    return fm_unicode_is_alpha(c) || is == UTF8PROC_CATEGORY_MN ||
           is == UTF8PROC_CATEGORY_MC || is == UTF8PROC_CATEGORY_ME ||
           is == UTF8PROC_CATEGORY_ND || is == UTF8PROC_CATEGORY_PC ||
           c == 0x200C || c == 0x200D;
}

bool fm_unicode_is_number(uint32_t c)
{
    utf8proc_category_t is = category(c);

    return is >= UTF8PROC_CATEGORY_ND && is <= UTF8PROC_CATEGORY_NO;
}

bool fm_unicode_is_punct(uint32_t c)
{
    utf8proc_category_t is = category(c);

    return (is >= UTF8PROC_CATEGORY_PC && is <= UTF8PROC_CATEGORY_PO) ||
           (c < 0x80 && ((c >= 33 && c <= 47) || (c >= 58 && c <= 64) ||
                         (c >= 91 && c <= 96) || (c >= 123 && c <= 126)));
}

bool fm_unicode_is_upper(uint32_t c)
{
    return category(c) == UTF8PROC_CATEGORY_LU;
}

bool fm_unicode_is_lower(uint32_t c)
{
    return category(c) == UTF8PROC_CATEGORY_LL;
}
