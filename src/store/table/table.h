/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file table.h
 * Tables in foreign HDF5 files: a compound dataset, the columns of a group, or
 * a plain dataset, as JSON records (docs/spec/workflow.md §6.11).
 *
 * The HDF5 library is not written against hostile files, so a file is read by
 * a child process: whatever damage does to the library ends there.  External
 * files, external links, virtual datasets and filter plugins are not followed.
 *
 * Fault point: "table.read" (the child aborts).
 * Threads: a call forks; call it from the thread that may call HDF5.
 */
#ifndef FM_STORE_TABLE_TABLE_H
#define FM_STORE_TABLE_TABLE_H

#include "base/buf.h"

#define FM_TABLE_ROWS_MAX 1000000u
#define FM_TABLE_COLUMNS_MAX 4096u
/** Text of all records at most. */
#define FM_TABLE_TEXT_BYTES_MAX ((size_t)256 << 20)

/**
 * Read the table at @p path of an HDF5 file.
 *
 * @param image      bytes of the file.
 * @param path       of a dataset or group, such as "train/rows".
 * @param lines_out  appended: one JSON value a row, each with a line feed.
 * @retval FM_ERR_INVALID      no HDF5 file, no table, or a value that JSON
 *                             does not have: the text names dataset, column
 *                             and row; also where the library died of it.
 * @retval FM_ERR_UNSUPPORTED  a type of column that is not read.
 * @retval FM_ERR_LIMIT        more than the limits above.
 * @retval FM_ERR_TIMEOUT      not read within ten minutes.
 */
FM_MUST_USE fm_status_t fm_table_read(const void *image, size_t len,
                                      const char *path, fm_buf_t *lines_out,
                                      fm_error_t *err);

#endif
