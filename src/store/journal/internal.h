/* SPDX-License-Identifier: Apache-2.0 */
/** @file internal.h  What the files of the journal share. */
#ifndef FM_STORE_JOURNAL_INTERNAL_H
#define FM_STORE_JOURNAL_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/buf.h"
#include "store/journal/journal.h"

#define JOURNAL_VERSION 1u
#define HEADER_BYTES 64u
#define RECORD_HEADER_BYTES 28u
#define MARK_STRIDE_BYTES ((uint64_t)1 << 20)

#define TYPE_INSTANCE 1u
#define TYPE_END 3u

/** The head of a journal file; see docs/spec/journal.md §2. */
struct file_header {
    uint32_t generation;
    uint32_t instance;      /* when the file was started */
    uint64_t first_seq;     /* of its first record */
    uint64_t salt;          /* of the journal, mixed into every checksum */
    uint64_t created_ns;    /* wall clock */
    uint64_t initial_bytes; /* durable before the file came into force */
};

void fm_journal_header_encode(const struct file_header *header,
                              uint8_t bytes[HEADER_BYTES]);

/** Append an encoded record to @p buf, which holds one batch. */
FM_MUST_USE fm_status_t fm_journal_encode(fm_buf_t *buf, uint64_t salt,
                                          unsigned type, uint64_t seq,
                                          const void *bytes, size_t len,
                                          fm_error_t *err);

/** A walk over the records of one file, through a sliding window. */
struct scan {
    int fd;           /* borrowed */
    const char *path; /* borrowed */
    struct file_header header;
    uint64_t file_bytes; /* at the start of the walk */
    uint64_t offset;     /* of the next record */
    uint64_t next_seq;
    uint64_t torn_bytes; /* behind the last whole record, once at the end */
    fm_buf_t window;
    uint64_t window_at;
};

/** Read and check the header; the walk then stands before the first record.
 *  fm_journal_scan_fini() is due whatever is returned. */
FM_MUST_USE fm_status_t fm_journal_scan_init(struct scan *scan, int fd,
                                             const char *path, fm_error_t *err);
/** @param got_out  [out] false at the end: @p record_out is untouched then */
FM_MUST_USE fm_status_t fm_journal_scan_next(struct scan *scan,
                                             fm_journal_record_t *record_out,
                                             bool *got_out, fm_error_t *err);
void fm_journal_scan_fini(struct scan *scan);

/* The directory: lock, manifest, file names. */

/** Take the writer's lock. @param fd_out  [out] close() it to unlock */
FM_MUST_USE fm_status_t fm_journal_dir_lock(const char *dir, int *fd_out,
                                            fm_error_t *err);
/** Path of the file of @p generation; free() it; NULL when memory is out. */
FM_MUST_USE char *fm_journal_dir_path(const char *dir, uint32_t generation);
/** @retval FM_ERR_NOT_FOUND  there is no manifest */
FM_MUST_USE fm_status_t fm_journal_dir_current(const char *dir,
                                               uint32_t *generation_out,
                                               fm_error_t *err);
/** Put @p generation into force.  Fault point "journal.rename". */
FM_MUST_USE fm_status_t fm_journal_dir_switch(const char *dir,
                                              uint32_t generation,
                                              fm_error_t *err);
/** Remove journal files and temporaries that are not in force. */
FM_MUST_USE fm_status_t fm_journal_dir_sweep(const char *dir,
                                             uint32_t generation,
                                             fm_error_t *err);
/** Refuse to start afresh beside records that a lost manifest named. */
FM_MUST_USE fm_status_t fm_journal_dir_check_empty(const char *dir,
                                                   fm_error_t *err);

/** Where some record starts, so that a rotation need not read all. */
struct mark {
    uint64_t seq;
    uint64_t offset;
};

struct fm_journal {
    char *dir;  /* NULL: volatile */
    char *path; /* of the file in force */
    int lock_fd;
    int fd;
    bool read_only;
    uint64_t salt;
    uint64_t first_seq; /* of the file in force; under io_lock */

    pthread_mutex_t io_lock; /* one flush or rotation at a time */
    struct mark *marks;      /* under io_lock, ascending */
    size_t mark_count;
    size_t mark_capacity;
    fm_buf_t writing; /* under io_lock: the batch being written */

    pthread_mutex_t lock; /* never held across a system call */
    fm_buf_t pending;     /* under lock: the batch being built */
    fm_journal_info_t info;
    fm_error_t poison; /* the first cause; info.poisoned tells */
    atomic_uint_fast64_t durable_seq;
};

/** Write all of @p bytes at @p offset of @p fd.  Point "journal.write". */
FM_MUST_USE fm_status_t fm_journal_write(int fd, const char *path,
                                         const void *bytes, size_t len,
                                         uint64_t offset, fm_error_t *err);
/** fdatasync.  Fault point "journal.fsync". */
FM_MUST_USE fm_status_t fm_journal_sync(int fd, const char *path,
                                        fm_error_t *err);
/** Make every later append and flush fail with the cause in @p err. */
void fm_journal_poison(fm_journal_t *journal, const fm_error_t *err);
/** fm_journal_flush() for a caller that holds io_lock. */
FM_MUST_USE fm_status_t fm_journal_flush_locked(fm_journal_t *journal,
                                                fm_error_t *err);
FM_MUST_USE fm_status_t fm_journal_mark(fm_journal_t *journal, uint64_t seq,
                                        uint64_t offset, fm_error_t *err);
/** Create the file of @p header with @p first (may be empty) behind it,
 *  durable, but not yet in force. @param fd_out  [out] */
FM_MUST_USE fm_status_t fm_journal_file_create(const char *path,
                                               struct file_header *header,
                                               const fm_buf_t *first,
                                               int *fd_out, fm_error_t *err);

#endif
