/* SPDX-License-Identifier: Apache-2.0 */
/** @file table.h  The format as data; private to the codec. */
#ifndef FM_IO_WIRE_TABLE_H
#define FM_IO_WIRE_TABLE_H

#include "io/wire/wire.h"

/* How a field travels.  Lengths, counts and unsigned integers are varints. */
typedef enum fm_field_kind {
    FM_FIELD_BOOL,    /* bool: a byte 0 or 1 */
    FM_FIELD_U32,     /* uint32_t ≤ bound */
    FM_FIELD_U64,     /* uint64_t ≤ bound */
    FM_FIELD_I32,     /* int32_t: zigzag varint */
    FM_FIELD_I64,     /* int64_t: zigzag varint */
    FM_FIELD_F64,     /* double: 8 bytes; finite, ≥ 0, ≤ bound if not 0 */
    FM_FIELD_STRING,  /* const char *: length, bytes; bound in bytes */
    FM_FIELD_BYTES,   /* const uint8_t * + size_t: length, bytes */
    FM_FIELD_DIGEST,  /* fm_digest_t: 32 bytes */
    FM_FIELD_U64S,    /* const uint64_t * + size_t: count, values */
    FM_FIELD_STRINGS, /* const char *const * + size_t; bound is the count */
    FM_FIELD_STRUCTS  /* const T * + size_t: count, fields of each */
} fm_field_kind_t;

struct field {
    const char *name;
    fm_field_kind_t kind;
    size_t offset;       /* of the value in its struct */
    size_t count_offset; /* of the length or count in its struct */
    uint64_t bound;
    size_t string_bound;       /* of each of FM_FIELD_STRINGS */
    const struct layout *item; /* of FM_FIELD_STRUCTS */
};

struct layout {
    const struct field *fields;
    size_t count;
    size_t struct_bytes;
    size_t wire_bytes_min; /* of one; bounds counts before allocating */
};

struct message {
    const char *name;
    unsigned senders; /* FM_PEER_* */
    struct layout layout;
};

/** NULL for what is no type. */
const struct message *fm_wire_message(unsigned type);

#endif
