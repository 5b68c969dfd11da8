/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file buf.h
 * A growing byte buffer with little-endian append and bounds-checked read.
 *
 * Appends never return a status: the first failure sticks (buf->failed) and
 * later appends do nothing, so an encoder checks once, at its end.
 */
#ifndef FM_BASE_BUF_H
#define FM_BASE_BUF_H

#include <flowmesh/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct fm_buf {
    uint8_t *data;
    size_t len;
    size_t capacity;
    bool failed; /**< memory ran out; content is incomplete */
} fm_buf_t;

/** Release the memory; the buffer is empty and usable again. */
void fm_buf_fini(fm_buf_t *buf);
/** Forget the content, keep the memory. */
void fm_buf_clear(fm_buf_t *buf);
/** Room for @p bytes more; NULL when memory is out.  Does not change len. */
uint8_t *fm_buf_reserve(fm_buf_t *buf, size_t bytes);
void fm_buf_add(fm_buf_t *buf, const void *data, size_t bytes);
void fm_buf_add_str(fm_buf_t *buf, const char *text);
void fm_buf_printf(fm_buf_t *buf, const char *format, ...) FM_PRINTF(2, 3);
void fm_buf_add_u8(fm_buf_t *buf, uint8_t value);
void fm_buf_add_u32(fm_buf_t *buf, uint32_t value);
void fm_buf_add_u64(fm_buf_t *buf, uint64_t value);
/** LEB128, 1 to 10 bytes. */
void fm_buf_add_varint(fm_buf_t *buf, uint64_t value);
/** Drop the first @p bytes (≤ len), moving the rest down. */
void fm_buf_consume(fm_buf_t *buf, size_t bytes);
/** NUL-terminated view of the content, or "" when memory is out. */
const char *fm_buf_cstr(fm_buf_t *buf);

/** A cursor over foreign bytes; a short read sets failed and yields 0. */
typedef struct fm_reader {
    const uint8_t *data;
    size_t len;
    size_t pos;
    bool failed;
} fm_reader_t;

uint8_t fm_read_u8(fm_reader_t *reader);
uint32_t fm_read_u32(fm_reader_t *reader);
uint64_t fm_read_u64(fm_reader_t *reader);
uint64_t fm_read_varint(fm_reader_t *reader);
/** Borrow @p bytes; NULL (and failed) when fewer are left. */
const uint8_t *fm_read_bytes(fm_reader_t *reader, size_t bytes);

#endif
