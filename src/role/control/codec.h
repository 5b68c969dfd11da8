/* SPDX-License-Identifier: Apache-2.0 */
/* The pieces that the records of record.c and decision.c are made of. */
#ifndef FM_ROLE_CONTROL_CODEC_H
#define FM_ROLE_CONTROL_CODEC_H

#include <string.h>

#include "base/mem.h"
#include "role/control/record.h"

#define VERSION 1

static inline void add_span(fm_buf_t *out, fm_span_t span)
{
    fm_buf_add_varint(out, span.len);
    fm_buf_add(out, span.text, span.len);
}

static inline fm_span_t read_span(fm_reader_t *in)
{
    uint64_t len = fm_read_varint(in);
    const uint8_t *at = len > in->len ? NULL : fm_read_bytes(in, (size_t)len);

    if (!at) {
        in->failed = true;
        return (fm_span_t){"", 0};
    }
    return (fm_span_t){(const char *)at, (size_t)len};
}

static inline void add_f64(fm_buf_t *out, double value)
{
    uint64_t bits = 0;

    memcpy(&bits, &value, sizeof(bits));
    fm_buf_add_u64(out, bits);
}

static inline double read_f64(fm_reader_t *in)
{
    uint64_t bits = fm_read_u64(in);
    double value = 0;

    memcpy(&value, &bits, sizeof(value));
    return value;
}

static inline uint32_t read_index(fm_reader_t *in)
{
    uint64_t value = fm_read_varint(in);

    in->failed = in->failed || value > UINT32_MAX;
    return (uint32_t)value;
}

static inline fm_digest_t read_digest(fm_reader_t *in)
{
    fm_digest_t digest = {{0}};
    const uint8_t *at = fm_read_bytes(in, sizeof(digest.bytes));

    if (at) {
        memcpy(digest.bytes, at, sizeof(digest.bytes));
    }
    return digest;
}

/* Open a record of a version up to @p newest. */
static inline fm_reader_t open_version(const uint8_t *bytes, size_t len,
                                       int newest, int *version_out)
{
    fm_reader_t in = {.data = bytes, .len = len};

    *version_out = fm_read_u8(&in);
    if (*version_out < VERSION || *version_out > newest) {
        in.failed = true;
    }
    return in;
}

static inline fm_reader_t open_record(const uint8_t *bytes, size_t len)
{
    int version = 0;

    return open_version(bytes, len, VERSION, &version);
}

static inline fm_status_t close_record(const fm_reader_t *in, const char *name,
                                       fm_error_t *err)
{
    if (in->failed || in->pos != in->len) {
        return fm_error_set(err, FM_ERR_CORRUPT,
                            "%s record: malformed at byte %zu of %zu", name,
                            in->pos, in->len);
    }
    return FM_OK;
}

#endif
