/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

void fm_buf_fini(fm_buf_t *buf)
{
    free(buf->data);
    memset(buf, 0, sizeof(*buf));
}

void fm_buf_clear(fm_buf_t *buf)
{
    buf->len = 0;
    buf->failed = false;
}

uint8_t *fm_buf_reserve(fm_buf_t *buf, size_t bytes)
{
    if (buf->failed || bytes > SIZE_MAX / 2 - buf->len) {
        buf->failed = true;
        return NULL;
    }
    if (!buf->data || buf->len + bytes > buf->capacity) {
        size_t wanted = buf->capacity ? buf->capacity * 2 : 64;
        while (wanted < buf->len + bytes) {
            wanted *= 2;
        }
        uint8_t *grown = fm_realloc(buf->data, wanted, 1);
        if (!grown) {
            buf->failed = true;
            return NULL;
        }
        buf->data = grown;
        buf->capacity = wanted;
    }
    return buf->data + buf->len;
}

void fm_buf_add(fm_buf_t *buf, const void *data, size_t bytes)
{
    uint8_t *to = fm_buf_reserve(buf, bytes);

    if (to && bytes) {
        memcpy(to, data, bytes);
        buf->len += bytes;
    }
}

void fm_buf_add_str(fm_buf_t *buf, const char *text)
{
    fm_buf_add(buf, text, strlen(text));
}

void fm_buf_printf(fm_buf_t *buf, const char *format, ...)
{
    va_list args;
    va_list again;

    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    uint8_t *to = n < 0 ? NULL : fm_buf_reserve(buf, (size_t)n + 1);
    if (to) {
        (void)vsnprintf((char *)to, (size_t)n + 1, format, again);
        buf->len += (size_t)n;
    } else {
        buf->failed = true;
    }
    va_end(again);
    va_end(args);
}

void fm_buf_add_u8(fm_buf_t *buf, uint8_t value)
{
    fm_buf_add(buf, &value, 1);
}

void fm_buf_add_u32(fm_buf_t *buf, uint32_t value)
{
    uint8_t bytes[4];

    for (unsigned i = 0; i < 4; i++) {
        bytes[i] = (uint8_t)(value >> (8 * i));
    }
    fm_buf_add(buf, bytes, sizeof(bytes));
}

void fm_buf_add_u64(fm_buf_t *buf, uint64_t value)
{
    uint8_t bytes[8];

    for (unsigned i = 0; i < 8; i++) {
        bytes[i] = (uint8_t)(value >> (8 * i));
    }
    fm_buf_add(buf, bytes, sizeof(bytes));
}

void fm_buf_add_varint(fm_buf_t *buf, uint64_t value)
{
    uint8_t bytes[10];
    size_t n = 0;

    while (value >= 0x80) {
        bytes[n++] = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    bytes[n++] = (uint8_t)value;
    fm_buf_add(buf, bytes, n);
}

void fm_buf_consume(fm_buf_t *buf, size_t bytes)
{
    if (bytes < buf->len) {
        memmove(buf->data, buf->data + bytes, buf->len - bytes);
        buf->len -= bytes;
    } else {
        buf->len = 0;
    }
}

const char *fm_buf_cstr(fm_buf_t *buf)
{
    uint8_t *end = fm_buf_reserve(buf, 1);

    if (!end) {
        return "";
    }
    *end = '\0';
    return (const char *)buf->data;
}

const uint8_t *fm_read_bytes(fm_reader_t *reader, size_t bytes)
{
    if (reader->failed || bytes > reader->len - reader->pos) {
        reader->failed = true;
        return NULL;
    }
    const uint8_t *at = reader->data + reader->pos;
    reader->pos += bytes;
    return at;
}

uint8_t fm_read_u8(fm_reader_t *reader)
{
    const uint8_t *at = fm_read_bytes(reader, 1);

    return at ? at[0] : 0;
}

static uint64_t read_little_endian(fm_reader_t *reader, unsigned bytes)
{
    const uint8_t *at = fm_read_bytes(reader, bytes);
    uint64_t value = 0;

    for (unsigned i = 0; at && i < bytes; i++) {
        value |= (uint64_t)at[i] << (8 * i);
    }
    return value;
}

uint32_t fm_read_u32(fm_reader_t *reader)
{
    return (uint32_t)read_little_endian(reader, 4);
}

uint64_t fm_read_u64(fm_reader_t *reader)
{
    return read_little_endian(reader, 8);
}

uint64_t fm_read_varint(fm_reader_t *reader)
{
    uint64_t value = 0;

    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t byte = fm_read_u8(reader);
        if (reader->failed || (shift == 63 && byte > 1)) {
            break;
        }
        value |= (uint64_t)(byte & 0x7F) << shift;
        if (!(byte & 0x80)) {
            return value;
        }
    }
    reader->failed = true;
    return 0;
}
