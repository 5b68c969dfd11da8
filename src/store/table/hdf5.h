/* SPDX-License-Identifier: Apache-2.0 */
/** @file hdf5.h  Read a table in this process; fm_table_read() guards it. */
#ifndef FM_STORE_TABLE_HDF5_H
#define FM_STORE_TABLE_HDF5_H

#include "store/table/table.h"

/** Where lines go; @p bytes at a time, whole lines. */
typedef fm_status_t (*fm_table_sink_fn)(void *ctx, const void *data, size_t len,
                                        fm_error_t *err);

FM_MUST_USE fm_status_t fm_table_hdf5_read(const void *image, size_t len,
                                           const char *path,
                                           fm_table_sink_fn sink, void *ctx,
                                           fm_error_t *err);

#endif
