/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file layout.h
 * Private: let HDF5 lay out a segment, without the data of its objects.
 *
 * The structure is built in memory; the caller copies it to the disk with the
 * objects where it has holes for them.  So HDF5 never meets a full disk, after
 * which it cannot close a file cleanly, and data goes from the caller's memory
 * to the file once.
 */
#ifndef FM_STORE_CAS_LAYOUT_H
#define FM_STORE_CAS_LAYOUT_H

#include "store/cas/format.h"

/** One object to lay out. */
typedef struct fm_cas_part {
    fm_cas_row_t row; /**< digest, length, kind, place are inputs; address,
                           offset and shape are filled in */
    const fm_cas_shape_t *shape; /**< of a tensor */
    const void *data;            /**< [row.length], not touched here */
} fm_cas_part_t;

typedef struct fm_cas_layout {
    uint8_t *image;         /**< the file's first bytes, all structure in them;
                                 the caller frees it */
    size_t image_bytes;     /**< at most header.file_bytes; the rest is objects,
                                 or zero */
    fm_cas_header_t header; /**< without meta_hash */
} fm_cas_layout_t;

/**
 * @param parts      [part_count], at least one; FM_CAS_PLACE_DATA parts get
 *                   consecutive addresses in the order given.
 * @param layout_out [out] untouched on failure.
 */
FM_MUST_USE fm_status_t
fm_cas_layout_make(fm_cas_part_t *parts, size_t part_count, const char *writer,
                   const char *fabric, int64_t created_ns,
                   fm_cas_layout_t *layout_out, fm_error_t *err);

#endif
