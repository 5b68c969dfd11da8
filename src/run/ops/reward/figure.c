/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers in running text: sign, decimals, exponent, thousands separators,
 * fractions, per cent.  A digit that continues a word (x2, fig_3) begins none.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "run/ops/reward/verify.h"

#define NUMBER_BYTES 512 /* a longer run of digits is no answer */

static bool digit(const char *text, size_t len, size_t at)
{
    return at < len && text[at] >= '0' && text[at] <= '9';
}

static bool letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static size_t digits_end(const char *text, size_t len, size_t at)
{
    while (digit(text, len, at)) {
        at++;
    }
    return at;
}

/* 1 to 3 digits, then groups of a comma and three. */
static size_t grouped_end(const char *text, size_t len, size_t at)
{
    size_t end = digits_end(text, len, at);

    if (end - at > 3 || end == at) {
        return end;
    }
    while (end < len && text[end] == ',' &&
           digits_end(text, len, end + 1) == end + 4) {
        end += 4;
    }
    return end;
}

/* An unsigned decimal at @p at; returns its end, or @p at for none. */
static size_t decimal_read(const char *text, size_t len, size_t at,
                           double *value_out)
{
    char plain[NUMBER_BYTES + 1];
    size_t end = grouped_end(text, len, at), used = 0;

    if (digit(text, len, end + 1) && end < len && text[end] == '.') {
        end = digits_end(text, len, end + 1);
    }
    if (end > at && end < len && (text[end] == 'e' || text[end] == 'E')) {
        size_t power = end + 1;
        power += power < len && (text[power] == '+' || text[power] == '-');
        size_t stop = digits_end(text, len, power);
        if (stop > power && !(stop < len && letter(text[stop]))) {
            end = stop;
        }
    }
    if (end == at || end - at > NUMBER_BYTES) {
        return end > at ? end : at;
    }
    for (size_t i = at; i < end; i++) {
        if (text[i] != ',') {
            plain[used++] = text[i];
        }
    }
    plain[used] = '\0';
    *value_out = strtod(plain, NULL);
    return end;
}

/* Minus, as ASCII or U+2212, that is no dash between two words. */
static bool negative(const char *text, size_t at)
{
    size_t before = 0;

    if (at >= 1 && text[at - 1] == '-') {
        before = at - 1;
    } else if (at >= 3 && memcmp(text + at - 3, "\xe2\x88\x92", 3) == 0) {
        before = at - 3;
    } else {
        return false;
    }
    return before == 0 ||
           !(digit(text, before, before - 1) || letter(text[before - 1]) ||
             text[before - 1] == ')');
}

static bool percent_follows(const char *text, size_t len, size_t at)
{
    while (at < len && (text[at] == ' ' || text[at] == '\\')) {
        at++;
    }
    return at < len && text[at] == '%';
}

bool fm_ops_figure_next(const char *text, size_t len, size_t *at,
                        fm_ops_figure_t *figure_out)
{
    for (size_t i = *at; i < len; i++) {
        bool starts =
            digit(text, len, i) || (text[i] == '.' && digit(text, len, i + 1));
        double value = NAN, under = NAN;
        if (!starts) {
            continue;
        }
        size_t end = decimal_read(text, len, i, &value);
        bool in_word = i > 0 && letter(text[i - 1]);
        if (end < len && text[end] == '/' && digit(text, len, end + 1)) {
            size_t stop = decimal_read(text, len, end + 1, &under);
            if (under > 0) {
                value /= under;
                end = stop;
            }
        }
        if (in_word || !isfinite(value)) {
            i = end - 1;
            continue;
        }
        figure_out->value = negative(text, i) ? -value : value;
        figure_out->percent = percent_follows(text, len, end);
        *at = end;
        return true;
    }
    return false;
}
