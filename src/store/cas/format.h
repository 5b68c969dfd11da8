/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file format.h
 * Private: the bytes of a segment (docs/spec/segment.md), encoded and decoded
 * field by field.  Everything decoded is checked: nothing here trusts a file.
 */
#ifndef FM_STORE_CAS_FORMAT_H
#define FM_STORE_CAS_FORMAT_H

#include "store/cas/cas.h"

#define FM_CAS_FORMAT_VERSION 1
#define FM_CAS_HEADER_BYTES 4096 /* HDF5 user block: at least its alignment */
#define FM_CAS_ROW_BYTES 64
#define FM_CAS_SHAPE_BYTES 72
#define FM_CAS_SHAPE_NONE UINT32_MAX
/* Rows of one segment: bounds what a crafted header makes a reader allocate
 * (1 GiB), at 256 times what 64 MiB of 1 KiB objects need. */
#define FM_CAS_ROWS_MAX (UINT64_C(1) << 24)
/* Bytes outside objects are hashed in pieces of at most this. */
#define FM_CAS_PIECE_BYTES ((size_t)1 << 20)

/** Which dataset holds an object; numbers are part of the format. */
typedef enum fm_cas_place {
    FM_CAS_PLACE_DATA,  /**< /objects/data */
    FM_CAS_PLACE_BLOB,  /**< /blobs/<hex> */
    FM_CAS_PLACE_TENSOR /**< /tensors/<hex> */
} fm_cas_place_t;
#define FM_CAS_PLACE_COUNT 3

typedef struct fm_cas_shape {
    uint8_t dtype;
    uint8_t rank;
    uint64_t dims[FM_CAS_RANK_MAX];
} fm_cas_shape_t;

/** The user block. */
typedef struct fm_cas_header {
    uint64_t file_bytes;
    uint64_t row_address;
    uint64_t row_count;
    uint64_t shape_address;
    uint64_t shape_count;
    uint64_t pack_address;
    uint64_t pack_bytes;
    uint64_t index_hash; /**< XXH3 of rows, then shapes */
    uint64_t meta_hash;  /**< of all bytes outside header and objects */
    int64_t created_ns;
    char writer[FM_CAS_WRITER_BYTES_MAX + 1];
} fm_cas_header_t;

/** One row of /objects/index. */
typedef struct fm_cas_row {
    fm_digest_t digest;
    uint64_t address; /**< bytes from the start of the file */
    uint64_t length;
    uint64_t offset; /**< bytes from the start of the dataset */
    uint32_t shape;  /**< row of /objects/shapes, or FM_CAS_SHAPE_NONE */
    uint8_t kind;
    uint8_t place;
} fm_cas_row_t;

void fm_cas_header_encode(const fm_cas_header_t *header, fm_buf_t *out);
/** @param bytes  [FM_CAS_HEADER_BYTES]; @p file_bytes is the file's size. */
FM_MUST_USE fm_status_t fm_cas_header_decode(const uint8_t *bytes,
                                             uint64_t file_bytes,
                                             fm_cas_header_t *header_out,
                                             fm_error_t *err);
void fm_cas_row_encode(const fm_cas_row_t *row, fm_buf_t *out);
void fm_cas_shape_encode(const fm_cas_shape_t *shape, fm_buf_t *out);
FM_MUST_USE fm_status_t fm_cas_shape_decode(const uint8_t *bytes,
                                            fm_cas_shape_t *shape_out,
                                            fm_error_t *err);
/** @param shapes  [header->shape_count], decoded before. */
FM_MUST_USE fm_status_t fm_cas_row_decode(const uint8_t *bytes,
                                          const fm_cas_header_t *header,
                                          const fm_cas_shape_t *shapes,
                                          fm_cas_row_t *row_out,
                                          fm_error_t *err);
/** Bytes of a tensor; false when that passes FM_CAS_OBJECT_BYTES_MAX. */
bool fm_cas_shape_bytes(const fm_cas_shape_t *shape, uint64_t *bytes_out);
/** True for a writer name, or the name of a segment without ".h5". */
bool fm_cas_name_valid(const char *name, size_t len, size_t bytes_max);
/** True for the file name of a sealed segment. */
bool fm_cas_segment_name_valid(const char *name);
/** "/objects/data", "/blobs/<hex>" or "/tensors/<hex>" into @p text [80]. */
char *fm_cas_dataset_name(fm_cas_place_t place, const fm_digest_t *digest,
                          char *text);

#endif
