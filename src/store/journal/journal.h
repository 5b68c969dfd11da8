/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file journal.h
 * An append-only log of typed records: what the control plane may not forget.
 * Format: docs/spec/journal.md.
 *
 * A record is durable once fm_journal_flush() that covers it has returned
 * FM_OK; until then nothing may be acknowledged.  A failed write or fsync
 * poisons the handle: which bytes reached the disk is then unknowable (a later
 * fsync may report success for pages the kernel has dropped), so every later
 * append and flush fails and the process has to start again from the file.
 *
 * Threads: append, durable_seq and info may run while ONE other thread (the
 * storage thread) flushes or rotates.  Open and close: no call in progress.
 * Fault points: "journal.write", "journal.fsync", "journal.rename".
 */
#ifndef FM_STORE_JOURNAL_JOURNAL_H
#define FM_STORE_JOURNAL_JOURNAL_H

#include <flowmesh/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct fm_journal fm_journal_t;

/** Largest record.  One wire message or HTTP body makes one record, and those
 *  are bound by 16 MiB too; a longer length can only be damage. */
#define FM_JOURNAL_RECORD_MAX_BYTES ((size_t)16 << 20)
/** Appended but not yet written: four of the largest records.  More means the
 *  disk does not keep up, and the caller has to push back. */
#define FM_JOURNAL_PENDING_MAX_BYTES ((size_t)64 << 20)
/** Largest snapshot: the journal's only record beyond the record bound. */
#define FM_JOURNAL_SNAPSHOT_MAX_BYTES ((size_t)1 << 30)

/** Types below FM_JOURNAL_TYPE_FIRST are the journal's own.  Of these only a
 *  snapshot is replayed: forget what you know and start from its bytes. */
#define FM_JOURNAL_TYPE_SNAPSHOT 2u
#define FM_JOURNAL_TYPE_FIRST 16u /**< first type of the caller's */

/** A replayed record; everything is borrowed for the call. */
typedef struct fm_journal_record {
    uint64_t seq; /**< a snapshot: the last sequence number it covers */
    uint16_t type;
    const uint8_t *bytes;
    size_t len;
    const char *file;      /**< path, for error text */
    uint64_t offset_bytes; /**< of the record in that file */
} fm_journal_record_t;

/** Called for every record in order; a failure ends the replay, and the open
 *  fails with it, prefixed by "file:offset". */
typedef fm_status_t (*fm_journal_replay_fn)(void *ctx,
                                            const fm_journal_record_t *record,
                                            fm_error_t *err);

/** Zero means default. */
typedef struct fm_journal_options {
    bool read_only; /**< no lock, no change; stops at the last whole record */
} fm_journal_options_t;

typedef struct fm_journal_info {
    uint32_t instance;    /**< writable opens so far, this one included */
    uint32_t generation;  /**< rotations so far + 1 */
    uint64_t next_seq;    /**< the next append gets this number */
    uint64_t durable_seq; /**< as fm_journal_durable_seq() */
    uint64_t file_bytes;  /**< written to the current file */
    uint64_t torn_bytes;  /**< cut off (read only: skipped) at open */
    uint64_t replayed;    /**< records given to the callback at open */
    size_t pending_bytes; /**< appended, not yet written */
    uint64_t flush_count; /**< flushes that had something to write */
    bool poisoned;        /**< a write failed; see above */
} fm_journal_info_t;

/**
 * Open the journal in @p dir, creating both when absent; replay it.
 *
 * A torn tail (an interrupted last write) is cut off: nothing in it was
 * acknowledged.  A damaged record with whole records behind it is not a torn
 * write: it is refused, and nothing is changed.
 *
 * @param dir     copied; NULL: a volatile journal that keeps nothing, with the
 *                same API (instance 1, a flush makes everything "durable").
 * @param opts    NULL for defaults; not kept.
 * @param replay  may be NULL.
 * @param journal_out  [out] for fm_journal_close(); untouched on failure.
 *
 * @retval FM_ERR_BUSY       another process (or handle) writes it: the text
 *                           names pid, host and start time.
 * @retval FM_ERR_CORRUPT    text "file:offset: what; mend".
 * @retval FM_ERR_NOT_FOUND  read only and nothing there.
 */
FM_MUST_USE fm_status_t fm_journal_open(const char *dir,
                                        const fm_journal_options_t *opts,
                                        fm_journal_replay_fn replay, void *ctx,
                                        fm_journal_t **journal_out,
                                        fm_error_t *err);
/** Mark a clean end unless poisoned, unlock, release.  What was not flushed
 *  is dropped: it was never durable.  NULL is ignored.  @return NULL */
fm_journal_t *fm_journal_close(fm_journal_t *journal);

/**
 * Buffer a record in memory; the bytes are copied.
 * @param type     FM_JOURNAL_TYPE_FIRST … 65535
 * @param seq_out  [out] its number, one more than the last; may be NULL.
 * @retval FM_ERR_LIMIT  larger than FM_JOURNAL_RECORD_MAX_BYTES
 * @retval FM_ERR_FULL   FM_JOURNAL_PENDING_MAX_BYTES wait: flush first
 * @retval FM_ERR_IO     poisoned; the text tells the first cause
 * @retval FM_ERR_UNSUPPORTED  opened read only
 */
FM_MUST_USE fm_status_t fm_journal_append(fm_journal_t *journal, unsigned type,
                                          const void *bytes, size_t len,
                                          uint64_t *seq_out, fm_error_t *err);
/** Write and fdatasync everything appended before this call. */
FM_MUST_USE fm_status_t fm_journal_flush(fm_journal_t *journal,
                                         fm_error_t *err);
/** The last sequence number that survives a crash. */
uint64_t fm_journal_durable_seq(const fm_journal_t *journal);
fm_journal_info_t fm_journal_info(fm_journal_t *journal);

/**
 * Compact: start a new file whose first record is @p snapshot, followed by
 * the records after @p covers_seq; then remove the old file.  A crash leaves
 * the old journal or the new one, never a mixture.
 *
 * Flushes first.  A failure before the switch leaves the old file in use and
 * the handle good; only a doubt which of the two is in force poisons it.
 *
 * @param covers_seq  the snapshot stands for all records up to this one;
 *                    at most the last appended.
 * @retval FM_ERR_INVALID  covers_seq is not in this journal.
 */
FM_MUST_USE fm_status_t fm_journal_rotate(fm_journal_t *journal,
                                          uint64_t covers_seq,
                                          const void *snapshot, size_t len,
                                          fm_error_t *err);

#endif
