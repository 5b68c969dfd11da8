/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file file.h
 * Whole-file I/O with errors that name the path, and crash-safe replacement.
 * Fault points: "base.write", "base.fsync", "base.rename".  Threads: safe.
 */
#ifndef FM_BASE_FILE_H
#define FM_BASE_FILE_H

#include "base/buf.h"

/** Read all of @p path, refusing more than @p limit_bytes (FM_ERR_LIMIT). */
FM_MUST_USE fm_status_t fm_file_read(const char *path, size_t limit_bytes,
                                     fm_buf_t *out, fm_error_t *err);
/** Replace @p path: temporary name, write, fsync, rename, fsync directory. */
FM_MUST_USE fm_status_t fm_file_replace(const char *path, const void *data,
                                        size_t len, fm_error_t *err);
/** Write all bytes to @p fd, whatever write() returns; @p path is for text. */
FM_MUST_USE fm_status_t fm_file_write_all(int fd, const void *data, size_t len,
                                          const char *path, fm_error_t *err);
FM_MUST_USE fm_status_t fm_file_fsync(int fd, const char *path,
                                      fm_error_t *err);
/** fsync the directory that holds @p path, making a rename durable. */
FM_MUST_USE fm_status_t fm_file_fsync_parent(const char *path, fm_error_t *err);
FM_MUST_USE fm_status_t fm_file_rename(const char *from, const char *to,
                                       fm_error_t *err);
/** mkdir -p with @p mode. */
FM_MUST_USE fm_status_t fm_file_make_dirs(const char *path, unsigned mode,
                                          fm_error_t *err);
/** rm -r; what is already gone is no error. */
FM_MUST_USE fm_status_t fm_file_remove_tree(const char *path, fm_error_t *err);
/** Directory of the running program, from /proc/self/exe; free() it. */
FM_MUST_USE char *fm_file_program_dir(void);

#endif
