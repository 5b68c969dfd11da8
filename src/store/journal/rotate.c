/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compaction.  The new file is complete and durable before the manifest names
 * it; the old one is removed after.  Appends go on meanwhile: they stay in
 * memory and are flushed to whichever file is in force afterwards.  Both files
 * share the salt, so records that are encoded already fit either.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/mem.h"
#include "store/journal/internal.h"

/* Offset of the record @p seq in the file in force, which has it. */
static fm_status_t offset_find(fm_journal_t *journal, uint64_t seq,
                               uint64_t *offset_out, fm_error_t *err)
{
    struct scan scan;
    fm_journal_record_t record;
    bool got = true;
    fm_status_t rc =
        fm_journal_scan_init(&scan, journal->fd, journal->path, err);

    for (size_t i = 0; rc >= 0 && i < journal->mark_count; i++) {
        if (journal->marks[i].seq <= seq) {
            scan.offset = journal->marks[i].offset;
            scan.next_seq = journal->marks[i].seq;
        }
    }
    while (rc >= 0 && scan.next_seq < seq && got) {
        rc = fm_journal_scan_next(&scan, &record, &got, err);
    }
    if (rc >= 0 && !got) {
        rc = fm_error_set(err, FM_ERR_CORRUPT,
                          "%s:%llu: record %llu is gone; restore the file "
                          "from a backup",
                          journal->path, (unsigned long long)scan.offset,
                          (unsigned long long)seq);
    }
    if (rc >= 0) {
        *offset_out = scan.offset;
    }
    fm_journal_scan_fini(&scan);
    return rc;
}

/* Append the records after @p covers_seq, as they are, to @p first. */
static fm_status_t tail_copy(fm_journal_t *journal, uint64_t covers_seq,
                             fm_buf_t *first, fm_error_t *err)
{
    uint64_t offset = journal->info.file_bytes;
    fm_status_t rc = FM_OK;

    if (covers_seq < atomic_load(&journal->durable_seq)) {
        rc = offset_find(journal, covers_seq + 1, &offset, err);
    }
    if (rc < 0) {
        return rc;
    }
    size_t left = (size_t)(journal->info.file_bytes - offset);
    uint8_t *to = fm_buf_reserve(first, left);
    if (!to) {
        return fm_no_memory(err);
    }
    while (left > 0) {
        ssize_t n =
            pread(journal->fd, first->data + first->len, left, (off_t)offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return fm_error_set_errno(err, FM_ERR_IO, n ? errno : EIO,
                                      "read %s:%llu", journal->path,
                                      (unsigned long long)offset);
        }
        first->len += (size_t)n;
        left -= (size_t)n;
        offset += (uint64_t)n;
    }
    return FM_OK;
}

/* Make the new file the journal's. */
static void file_adopt(fm_journal_t *journal, int fd, char *path,
                       const struct file_header *header)
{
    (void)close(journal->fd);
    (void)unlink(journal->path); /* a left-over is swept at the next open */
    free(journal->path);
    journal->fd = fd;
    journal->path = path;
    journal->mark_count = 0;
    journal->first_seq = header->first_seq;
    pthread_mutex_lock(&journal->lock);
    journal->info.generation = header->generation;
    journal->info.file_bytes = header->initial_bytes;
    pthread_mutex_unlock(&journal->lock);
}

/* Switch the manifest; when that fails, find out which file is in force. */
static fm_status_t switch_over(fm_journal_t *journal, uint32_t generation,
                               fm_error_t *err)
{
    uint32_t in_force = 0;
    fm_status_t rc = fm_journal_dir_switch(journal->dir, generation, err);

    if (rc < 0 && (fm_journal_dir_current(journal->dir, &in_force, NULL) < 0 ||
                   in_force != generation - 1)) {
        /* Renamed, but perhaps not durable: a crash may bring either back. */
        fm_error_t cause = {.status = rc};
        (void)fm_error_set(&cause, rc, "rotation to generation %u is in doubt",
                           generation);
        fm_journal_poison(journal, &cause);
    }
    return rc;
}

static fm_status_t rotate_locked(fm_journal_t *journal, uint64_t covers_seq,
                                 const void *snapshot, size_t len,
                                 fm_error_t *err)
{
    fm_buf_t first = {0};
    char *path = NULL;
    int fd = -1;
    fm_status_t rc = fm_journal_flush_locked(journal, err);

    if (rc < 0) {
        return rc;
    }
    fm_journal_info_t info = fm_journal_info(journal);
    if (covers_seq == 0 || covers_seq < journal->first_seq ||
        covers_seq > info.durable_seq) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "%llu is not a record of it (%llu … %llu)",
                            (unsigned long long)covers_seq,
                            (unsigned long long)journal->first_seq,
                            (unsigned long long)info.durable_seq);
    }
    if (!journal->dir) {
        return FM_OK;
    }
    struct file_header header = {.generation = info.generation + 1,
                                 .instance = info.instance,
                                 .first_seq = covers_seq,
                                 .salt = journal->salt};
    if (!(path = fm_journal_dir_path(journal->dir, header.generation))) {
        return fm_no_memory(err);
    }
    if ((rc = fm_journal_encode(&first, journal->salt, FM_JOURNAL_TYPE_SNAPSHOT,
                                covers_seq, snapshot, len, err)) < 0 ||
        (rc = tail_copy(journal, covers_seq, &first, err)) < 0 ||
        (rc = fm_journal_file_create(path, &header, &first, &fd, err)) < 0) {
        goto out;
    }
    if ((rc = switch_over(journal, header.generation, err)) < 0) {
        (void)close(fd); /* the file is swept at the next open */
        goto out;
    }
    file_adopt(journal, fd, path, &header);
    path = NULL;
out:
    free(path);
    fm_buf_fini(&first);
    return rc;
}

fm_status_t fm_journal_rotate(fm_journal_t *journal, uint64_t covers_seq,
                              const void *snapshot, size_t len, fm_error_t *err)
{
    if (len > FM_JOURNAL_SNAPSHOT_MAX_BYTES) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "journal: a snapshot of %zu bytes, at most %zu",
                            len, FM_JOURNAL_SNAPSHOT_MAX_BYTES);
    }
    pthread_mutex_lock(&journal->io_lock);
    fm_status_t rc = rotate_locked(journal, covers_seq, snapshot, len, err);
    pthread_mutex_unlock(&journal->io_lock);
    if (rc < 0) {
        fm_error_wrap(err, "rotate journal");
    }
    return rc;
}
