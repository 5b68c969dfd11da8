/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file unicode.h
 * UTF-8, normal forms and character properties: a fence around utf8proc.
 *
 * Properties are those that Rust's regular expressions and char methods have,
 * because published tokenizers were made with them.
 * Threads: safe.
 */
#ifndef FM_TEXT_UNICODE_UNICODE_H
#define FM_TEXT_UNICODE_UNICODE_H

#include "base/buf.h"

/**
 * Bytes of the valid character at @p s, 0 when there is none (RFC 3629: no
 * surrogates, no overlong forms, nothing past U+10FFFF).
 * @param len  bytes there are, at least 1.
 */
size_t fm_utf8_length(const char *s, size_t len);
/** The character at @p s, which is valid; *@p bytes_out gets its length. */
uint32_t fm_utf8_decode(const char *s, size_t *bytes_out);
/** Write @p c (≤ U+10FFFF) to @p s, at least 4 bytes; returns its length. */
size_t fm_utf8_encode(uint32_t c, char *s);
/** Bytes of the longest valid prefix: @p len when all is UTF-8. */
size_t fm_utf8_valid(const char *s, size_t len);
/** Characters of valid @p s. */
size_t fm_utf8_count(const char *s, size_t len);
/** Byte offset of character @p index (≤ count) of valid @p s. */
size_t fm_utf8_offset(const char *s, size_t len, size_t index);
/**
 * Append @p s with every ill-formed part replaced by one U+FFFD: "maximal
 * subparts" of the Unicode standard (3.9, table 3-8), as Rust does it.
 */
void fm_utf8_add_lossy(fm_buf_t *buf, const char *s, size_t len);
/** Bytes at the end of @p s that could still become a character. */
size_t fm_utf8_open_tail(const char *s, size_t len);

typedef enum fm_unicode_form {
    FM_UNICODE_NFC,
    FM_UNICODE_NFD,
    FM_UNICODE_NFKC,
    FM_UNICODE_NFKD
} fm_unicode_form_t;

/** Most combining marks in a row: normalising sorts them, in quadratic time. */
#define FM_UNICODE_MARKS_MAX 1024

/**
 * Append @p form of valid UTF-8 (UAX #15).
 * @retval FM_ERR_LIMIT  more than FM_UNICODE_MARKS_MAX marks in a row.
 */
FM_MUST_USE fm_status_t fm_unicode_normalize(fm_unicode_form_t form,
                                             const char *s, size_t len,
                                             fm_buf_t *out, fm_error_t *err);
/** Append valid UTF-8 in lower, upper case, character by character. */
void fm_unicode_lower(const char *s, size_t len, fm_buf_t *out);
void fm_unicode_upper(const char *s, size_t len, fm_buf_t *out);

bool fm_unicode_is_space(uint32_t c);  /**< White_Space */
bool fm_unicode_is_word(uint32_t c);   /**< \w: letters, marks, digits, _ */
bool fm_unicode_is_alpha(uint32_t c);  /**< categories L* and Nl */
bool fm_unicode_is_number(uint32_t c); /**< categories Nd, Nl, No */
bool fm_unicode_is_punct(uint32_t c);  /**< categories P*, and ASCII's */
bool fm_unicode_is_upper(uint32_t c);
bool fm_unicode_is_lower(uint32_t c);

#endif
