/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file records.h
 * Files to lists of records: JSON lines, CSV (RFC 4180), lines of text and
 * windows of text.  Threads: safe for distinct lists.
 */
#ifndef FM_RUN_OPS_DATA_RECORDS_H
#define FM_RUN_OPS_DATA_RECORDS_H

#include "base/json.h"

/** Records of one file at most, as items of a node. */
#define OPS_RECORDS_MAX 1000000u
/** Columns of a CSV file at most. */
#define OPS_COLUMNS_MAX 4096u

/**
 * Append the records of @p text to @p list.
 * @param format  "jsonl", "csv" or "text".
 * @param window  bytes of a window, 0: text gives one record a line.
 * @param stride  bytes between starts of windows, ≥ 1 with a window.
 * @retval FM_ERR_INVALID  the text names the line.
 * @retval FM_ERR_LIMIT    more than OPS_RECORDS_MAX.
 */
FM_MUST_USE fm_status_t fm_ops_records_parse(const char *format,
                                             const char *text, size_t len,
                                             size_t window, size_t stride,
                                             fm_json_t *list, fm_error_t *err);

#endif
