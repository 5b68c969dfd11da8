/* SPDX-License-Identifier: Apache-2.0 */
/* Status names and error text.  No state: all text lives with the caller. */
#include <flowmesh/error.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *fm_status_name(fm_status_t status)
{
    switch (status) {
    case FM_OK:
        return "ok";
    case FM_ERR_NO_MEMORY:
        return "out of memory";
    case FM_ERR_INVALID:
        return "invalid";
    case FM_ERR_NOT_FOUND:
        return "not found";
    case FM_ERR_EXISTS:
        return "exists";
    case FM_ERR_IO:
        return "i/o error";
    case FM_ERR_FULL:
        return "full";
    case FM_ERR_CORRUPT:
        return "corrupt";
    case FM_ERR_BUSY:
        return "busy";
    case FM_ERR_TIMEOUT:
        return "timed out";
    case FM_ERR_PROTOCOL:
        return "protocol error";
    case FM_ERR_UNSUPPORTED:
        return "unsupported";
    case FM_ERR_LIMIT:
        return "over a limit";
    case FM_ERR_CANCELLED:
        return "cancelled";
    case FM_ERR_CLOSED:
        return "closed";
    case FM_ERR_INTERNAL:
        return "internal error";
    }
    return "unknown status";
}

/* A cut must not leave half of a UTF-8 character behind. */
static void trim_partial_character(char *text, size_t len)
{
    size_t start = len;

    while (start > 0 && ((unsigned char)text[start - 1] & 0xC0u) == 0x80u) {
        start--;
    }
    if (start == 0) {
        return;
    }
    unsigned char lead = (unsigned char)text[start - 1];
    size_t want = lead >= 0xF0u ? 4 : lead >= 0xE0u ? 3 : lead >= 0xC0u ? 2 : 1;
    if (len - (start - 1) < want) {
        text[start - 1] = '\0';
    }
}

FM_PRINTF(2, 0)
static void format_text(char *text, const char *format, va_list args)
{
    int n = vsnprintf(text, FM_ERROR_TEXT_BYTES, format, args);

    if (n < 0) {
        text[0] = '\0';
    } else if (n >= FM_ERROR_TEXT_BYTES) {
        trim_partial_character(text, FM_ERROR_TEXT_BYTES - 1);
    }
}

/* The analyser sees macros of these names (error.h). */
#undef fm_error_set
#undef fm_error_set_errno

fm_status_t fm_error_set(fm_error_t *err, fm_status_t status,
                         const char *format, ...)
{
    if (err) {
        va_list args;

        err->status = status;
        va_start(args, format);
        format_text(err->text, format, args);
        va_end(args);
    }
    return status;
}

fm_status_t fm_error_set_errno(fm_error_t *err, fm_status_t status, int errnum,
                               const char *format, ...)
{
    if (status == FM_ERR_IO && (errnum == ENOSPC || errnum == EDQUOT)) {
        status = FM_ERR_FULL;
    }
    if (err) {
        char space[128] = "";
        va_list args;

        va_start(args, format);
        format_text(err->text, format, args);
        va_end(args);
        err->status = status;
        const char *cause = strerror_r(errnum, space, sizeof(space)); /* GNU */
        size_t used = strlen(err->text);
        (void)snprintf(err->text + used, sizeof(err->text) - used, ": %s",
                       cause);
    }
    return status;
}

void fm_error_wrap(fm_error_t *err, const char *format, ...)
{
    if (!err) {
        return;
    }
    char inner[FM_ERROR_TEXT_BYTES];
    va_list args;

    memcpy(inner, err->text, sizeof(inner));
    va_start(args, format);
    format_text(err->text, format, args);
    va_end(args);
    size_t used = strlen(err->text);
    int n = snprintf(err->text + used, sizeof(err->text) - used, ": %s", inner);
    if (n >= 0 && (size_t)n >= sizeof(err->text) - used) {
        trim_partial_character(err->text, sizeof(err->text) - 1);
    }
}
