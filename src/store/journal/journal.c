/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open, append, flush, close.
 *
 * Two buffers: append fills `pending` under `lock`; flush swaps it with
 * `writing` under both locks and writes without `lock`, so an append never
 * waits for the disk.  Lock order: io_lock, then lock.
 */
#include "store/journal/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/mem.h"
#include "store/journal/internal.h"

#define OPEN_TRIES 8 /* a reader that loses this many races has bad luck */

fm_status_t fm_journal_write(int fd, const char *path, const void *bytes,
                             size_t len, uint64_t offset, fm_error_t *err)
{
    const uint8_t *at = bytes;

    while (len > 0) {
        ssize_t n = fm_fault("journal.write")
                        ? (errno = ENOSPC, -1)
                        : pwrite(fd, at, len, (off_t)offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return fm_error_set_errno(err, FM_ERR_IO, errno, "write %s", path);
        }
        at += n;
        len -= (size_t)n;
        offset += (uint64_t)n;
    }
    return FM_OK;
}

fm_status_t fm_journal_sync(int fd, const char *path, fm_error_t *err)
{
    if (fm_fault("journal.fsync") ? (errno = EIO, true) : fdatasync(fd) != 0) {
        return fm_error_set_errno(err, FM_ERR_IO, errno, "fdatasync %s", path);
    }
    return FM_OK;
}

void fm_journal_poison(fm_journal_t *journal, const fm_error_t *err)
{
    pthread_mutex_lock(&journal->lock);
    if (!journal->info.poisoned) {
        journal->info.poisoned = true;
        journal->poison = *err;
    }
    pthread_mutex_unlock(&journal->lock);
}

/* With lock held. */
static fm_status_t usable(const fm_journal_t *journal, fm_error_t *err)
{
    if (journal->info.poisoned) {
        return fm_error_set(err, FM_ERR_IO,
                            "the journal is closed to writing since an "
                            "earlier failure (%s); restart to continue from "
                            "what is on disk",
                            journal->poison.text);
    }
    if (journal->read_only) {
        return fm_error_set(err, FM_ERR_UNSUPPORTED,
                            "the journal was opened read only");
    }
    return FM_OK;
}

fm_status_t fm_journal_mark(fm_journal_t *journal, uint64_t seq,
                            uint64_t offset, fm_error_t *err)
{
    if (journal->mark_count > 0 &&
        offset - journal->marks[journal->mark_count - 1].offset <
            MARK_STRIDE_BYTES) {
        return FM_OK;
    }
    fm_status_t rc = fm_grow(&journal->marks, &journal->mark_capacity,
                             journal->mark_count, sizeof(*journal->marks), err);
    if (rc >= 0) {
        journal->marks[journal->mark_count++] =
            (struct mark){.seq = seq, .offset = offset};
    }
    return rc;
}

/* ---- append and flush --------------------------------------------------- */

static fm_status_t append_any(fm_journal_t *journal, unsigned type,
                              const void *bytes, size_t len, uint64_t *seq_out,
                              fm_error_t *err)
{
    pthread_mutex_lock(&journal->lock);
    fm_status_t rc = usable(journal, err);
    if (rc < 0) {
        goto out;
    }
    if (journal->pending.len + RECORD_HEADER_BYTES + len >
        FM_JOURNAL_PENDING_MAX_BYTES) {
        rc = fm_error_set(err, FM_ERR_FULL,
                          "journal: %zu bytes wait for the disk; flush first",
                          journal->pending.len);
        goto out;
    }
    if (journal->dir) {
        rc = fm_journal_encode(&journal->pending, journal->salt, type,
                               journal->info.next_seq, bytes, len, err);
        if (rc < 0) {
            goto out;
        }
    }
    if (seq_out) {
        *seq_out = journal->info.next_seq;
    }
    journal->info.next_seq++;
out:
    pthread_mutex_unlock(&journal->lock);
    return rc;
}

fm_status_t fm_journal_append(fm_journal_t *journal, unsigned type,
                              const void *bytes, size_t len, uint64_t *seq_out,
                              fm_error_t *err)
{
    if (type < FM_JOURNAL_TYPE_FIRST || type > UINT16_MAX) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "journal: record type %u is not %u … 65535", type,
                            FM_JOURNAL_TYPE_FIRST);
    }
    if (len > FM_JOURNAL_RECORD_MAX_BYTES) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "journal: a record of %zu bytes, at most %zu", len,
                            FM_JOURNAL_RECORD_MAX_BYTES);
    }
    return append_any(journal, type, bytes, len, seq_out, err);
}

/* Swap the buffers; false when there is nothing to write. */
static bool batch_take(fm_journal_t *journal, uint64_t *last_seq_out)
{
    fm_buf_t empty = journal->writing;

    *last_seq_out = journal->info.next_seq - 1;
    fm_buf_clear(&empty);
    journal->writing = journal->pending;
    journal->pending = empty;
    return *last_seq_out != atomic_load(&journal->durable_seq);
}

static fm_status_t batch_write(fm_journal_t *journal, uint64_t offset,
                               fm_error_t *err)
{
    fm_status_t rc = fm_journal_mark(
        journal, atomic_load(&journal->durable_seq) + 1, offset, err);

    if (rc < 0 || (rc = fm_journal_write(
                       journal->fd, journal->path, journal->writing.data,
                       journal->writing.len, offset, err)) < 0) {
        return rc;
    }
    return fm_journal_sync(journal->fd, journal->path, err);
}

fm_status_t fm_journal_flush_locked(fm_journal_t *journal, fm_error_t *err)
{
    uint64_t last_seq = 0;
    bool any = false;
    fm_error_t cause = {0};

    pthread_mutex_lock(&journal->lock);
    fm_status_t rc = usable(journal, err);
    if (rc >= 0) {
        any = batch_take(journal, &last_seq);
    }
    uint64_t offset = journal->info.file_bytes;
    pthread_mutex_unlock(&journal->lock);
    if (rc < 0 || !any) {
        return rc;
    }
    if (journal->dir && (rc = batch_write(journal, offset, &cause)) < 0) {
        fm_journal_poison(journal, &cause);
        return fm_error_set(err, rc, "%s", cause.text);
    }
    pthread_mutex_lock(&journal->lock);
    journal->info.file_bytes += journal->writing.len;
    journal->info.flush_count++;
    pthread_mutex_unlock(&journal->lock);
    atomic_store(&journal->durable_seq, last_seq);
    return FM_OK;
}

fm_status_t fm_journal_flush(fm_journal_t *journal, fm_error_t *err)
{
    pthread_mutex_lock(&journal->io_lock);
    fm_status_t rc = fm_journal_flush_locked(journal, err);
    pthread_mutex_unlock(&journal->io_lock);
    return rc;
}

uint64_t fm_journal_durable_seq(const fm_journal_t *journal)
{
    return atomic_load(&journal->durable_seq);
}

fm_journal_info_t fm_journal_info(fm_journal_t *journal)
{
    pthread_mutex_lock(&journal->lock);
    fm_journal_info_t info = journal->info;
    info.pending_bytes = journal->pending.len;
    pthread_mutex_unlock(&journal->lock);
    info.durable_seq = atomic_load(&journal->durable_seq);
    return info;
}

/* ---- open --------------------------------------------------------------- */

fm_status_t fm_journal_file_create(const char *path, struct file_header *header,
                                   const fm_buf_t *first, int *fd_out,
                                   fm_error_t *err)
{
    uint8_t bytes[HEADER_BYTES];
    fm_status_t rc = FM_OK;
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    if (fd < 0) {
        return fm_error_set_errno(err, FM_ERR_IO, errno, "create %s", path);
    }
    header->created_ns = (uint64_t)fm_clock_wall_ns();
    header->initial_bytes = HEADER_BYTES + first->len;
    fm_journal_header_encode(header, bytes);
    if ((rc = fm_journal_write(fd, path, bytes, sizeof(bytes), 0, err)) < 0 ||
        (rc = fm_journal_write(fd, path, first->data, first->len, sizeof(bytes),
                               err)) < 0 ||
        (rc = fm_journal_sync(fd, path, err)) < 0 ||
        (rc = fm_file_fsync_parent(path, err)) < 0) {
        (void)close(fd);
        (void)unlink(path);
        return rc;
    }
    *fd_out = fd;
    return FM_OK;
}

/* Generation 1 in an empty directory. */
static fm_status_t journal_create(fm_journal_t *journal, fm_error_t *err)
{
    struct file_header header = {.generation = 1, .first_seq = 1};
    const fm_buf_t nothing = {0};
    fm_status_t rc = fm_journal_dir_check_empty(journal->dir, err);

    if (rc < 0) {
        return rc;
    }
    if (getrandom(&header.salt, sizeof(header.salt), 0) !=
        (ssize_t)sizeof(header.salt)) {
        return fm_error_set_errno(err, FM_ERR_IO, errno, "getrandom");
    }
    if (!(journal->path = fm_journal_dir_path(journal->dir, 1))) {
        return fm_no_memory(err);
    }
    rc = fm_journal_file_create(journal->path, &header, &nothing, &journal->fd,
                                err);
    return rc < 0 ? rc : fm_journal_dir_switch(journal->dir, 1, err);
}

/* Open the file in force; a rotation may take it away under a reader. */
static fm_status_t current_open(fm_journal_t *journal, uint32_t *generation_out,
                                fm_error_t *err)
{
    int flags = (journal->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC;

    for (int i = 0; i < OPEN_TRIES; i++) {
        fm_status_t rc =
            fm_journal_dir_current(journal->dir, generation_out, err);
        if (rc < 0) {
            return rc;
        }
        free(journal->path);
        journal->path = fm_journal_dir_path(journal->dir, *generation_out);
        if (!journal->path) {
            return fm_no_memory(err);
        }
        if ((journal->fd = open(journal->path, flags)) >= 0) {
            return FM_OK;
        }
        if (errno != ENOENT) {
            return fm_error_set_errno(err, FM_ERR_IO, errno, "open %s",
                                      journal->path);
        }
    }
    return fm_error_set(err, FM_ERR_CORRUPT,
                        "%s:0: missing, but the manifest names it; restore "
                        "it from a backup",
                        journal->path);
}

static fm_status_t instance_read(const fm_journal_record_t *record,
                                 uint32_t *instance, fm_error_t *err)
{
    fm_reader_t reader = {.data = record->bytes, .len = record->len};
    uint32_t value = fm_read_u32(&reader);

    if (reader.failed || value < *instance) {
        return fm_error_set(err, FM_ERR_CORRUPT,
                            "%s:%llu: instance %u after %u; restore the file "
                            "from a backup",
                            record->file,
                            (unsigned long long)record->offset_bytes, value,
                            *instance);
    }
    *instance = value;
    return FM_OK;
}

static fm_status_t record_replay(fm_journal_t *journal,
                                 const fm_journal_record_t *record,
                                 fm_journal_replay_fn replay, void *ctx,
                                 fm_error_t *err)
{
    if (record->type == TYPE_INSTANCE) {
        return instance_read(record, &journal->info.instance, err);
    }
    if (record->type == TYPE_END) {
        return FM_OK;
    }
    if (record->type < FM_JOURNAL_TYPE_FIRST &&
        record->type != FM_JOURNAL_TYPE_SNAPSHOT) {
        return fm_error_set(err, FM_ERR_UNSUPPORTED,
                            "%s:%llu: unknown record type %u; use the release "
                            "that wrote it",
                            record->file,
                            (unsigned long long)record->offset_bytes,
                            record->type);
    }
    journal->info.replayed++;
    fm_status_t rc = replay ? replay(ctx, record, err) : FM_OK;
    if (rc < 0) {
        fm_error_wrap(err, "%s:%llu", record->file,
                      (unsigned long long)record->offset_bytes);
    }
    return rc;
}

static fm_status_t journal_replay(fm_journal_t *journal, uint32_t generation,
                                  fm_journal_replay_fn replay, void *ctx,
                                  fm_error_t *err)
{
    struct scan scan;
    fm_journal_record_t record;
    bool got = true;
    fm_status_t rc =
        fm_journal_scan_init(&scan, journal->fd, journal->path, err);

    if (rc < 0) {
        goto out;
    }
    if (scan.header.generation != generation) {
        rc = fm_error_set(err, FM_ERR_CORRUPT,
                          "%s:12: generation %u, but the manifest says %u; "
                          "restore the file from a backup",
                          journal->path, scan.header.generation, generation);
        goto out;
    }
    journal->salt = scan.header.salt;
    journal->first_seq = scan.header.first_seq;
    journal->info.instance = scan.header.instance;
    journal->info.generation = generation;
    while ((rc = fm_journal_scan_next(&scan, &record, &got, err)) >= 0 && got) {
        if ((rc = record_replay(journal, &record, replay, ctx, err)) < 0 ||
            (rc = fm_journal_mark(journal, record.seq, record.offset_bytes,
                                  err)) < 0) {
            goto out;
        }
    }
    journal->info.next_seq = scan.next_seq;
    journal->info.file_bytes = scan.offset;
    journal->info.torn_bytes = scan.torn_bytes;
    atomic_store(&journal->durable_seq, scan.next_seq - 1);
out:
    fm_journal_scan_fini(&scan);
    return rc;
}

static fm_status_t torn_cut(fm_journal_t *journal, fm_error_t *err)
{
    if (journal->info.torn_bytes == 0) {
        return FM_OK;
    }
    if (ftruncate(journal->fd, (off_t)journal->info.file_bytes) != 0) {
        return fm_error_set_errno(err, FM_ERR_IO, errno, "truncate %s",
                                  journal->path);
    }
    return FM_OK;
}

/* The first record of this handle: it also makes all that was replayed, and
 * the cut, durable before anyone acts on it. */
static fm_status_t instance_begin(fm_journal_t *journal, fm_error_t *err)
{
    fm_buf_t payload = {0};

    if (journal->info.instance == UINT32_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "%s: instance numbers are used "
                            "up",
                            journal->path);
    }
    journal->info.instance++;
    fm_buf_add_u32(&payload, journal->info.instance);
    fm_buf_add_u64(&payload, (uint64_t)fm_clock_wall_ns());
    fm_status_t rc = payload.failed
                         ? fm_no_memory(err)
                         : append_any(journal, TYPE_INSTANCE, payload.data,
                                      payload.len, NULL, err);
    fm_buf_fini(&payload);
    return rc < 0 ? rc : fm_journal_flush(journal, err);
}

static fm_status_t writable_open(fm_journal_t *journal,
                                 fm_journal_replay_fn replay, void *ctx,
                                 fm_error_t *err)
{
    uint32_t generation = 0;
    fm_status_t rc = fm_file_make_dirs(journal->dir, 0755, err);

    if (rc < 0 ||
        (rc = fm_journal_dir_lock(journal->dir, &journal->lock_fd, err)) < 0) {
        return rc;
    }
    rc = fm_journal_dir_current(journal->dir, &generation, err);
    if (rc == FM_ERR_NOT_FOUND) {
        if ((rc = journal_create(journal, err)) < 0) {
            return rc;
        }
        generation = 1;
    } else if (rc < 0 || (rc = current_open(journal, &generation, err)) < 0) {
        return rc;
    }
    if ((rc = journal_replay(journal, generation, replay, ctx, err)) < 0 ||
        (rc = torn_cut(journal, err)) < 0 ||
        (rc = fm_journal_dir_sweep(journal->dir, generation, err)) < 0) {
        return rc;
    }
    return instance_begin(journal, err);
}

fm_status_t fm_journal_open(const char *dir, const fm_journal_options_t *opts,
                            fm_journal_replay_fn replay, void *ctx,
                            fm_journal_t **journal_out, fm_error_t *err)
{
    fm_journal_t *journal = fm_calloc(1, sizeof(*journal));
    uint32_t generation = 0;
    fm_status_t rc = FM_OK;

    if (!journal) {
        return fm_no_memory(err);
    }
    journal->fd = journal->lock_fd = -1;
    pthread_mutex_init(&journal->lock, NULL);
    pthread_mutex_init(&journal->io_lock, NULL);
    journal->read_only = opts && opts->read_only;
    journal->info.generation = 1;
    journal->info.instance = dir ? 0 : 1;
    journal->info.next_seq = 1;
    if (!dir) {
        goto done;
    }
    if (!(journal->dir = fm_strdup(dir))) {
        rc = fm_no_memory(err);
        goto out;
    }
    if (!journal->read_only) {
        rc = writable_open(journal, replay, ctx, err);
    } else if ((rc = current_open(journal, &generation, err)) >= 0) {
        rc = journal_replay(journal, generation, replay, ctx, err);
    }
    if (rc < 0) {
        goto out;
    }
done:
    *journal_out = journal;
    journal = NULL;
out:
    if (rc < 0) {
        fm_error_wrap(err, "open journal");
        journal->info.poisoned = true; /* a failed open writes no end mark */
    }
    fm_journal_close(journal);
    return rc;
}

fm_journal_t *fm_journal_close(fm_journal_t *journal)
{
    if (!journal) {
        return NULL;
    }
    /* With an end mark behind them, the last real records cannot be taken
     * for a torn write.  Failing to add it loses nothing. */
    if (journal->dir && !journal->read_only && !journal->info.poisoned) {
        journal->info.next_seq = atomic_load(&journal->durable_seq) + 1;
        fm_buf_clear(&journal->pending);
        if (append_any(journal, TYPE_END, NULL, 0, NULL, NULL) >= 0) {
            fm_status_t ignored = fm_journal_flush(journal, NULL);
            (void)ignored;
        }
    }
    if (journal->fd >= 0) {
        (void)close(journal->fd);
    }
    if (journal->lock_fd >= 0) {
        (void)close(journal->lock_fd);
    }
    fm_buf_fini(&journal->pending);
    fm_buf_fini(&journal->writing);
    pthread_mutex_destroy(&journal->lock);
    pthread_mutex_destroy(&journal->io_lock);
    free(journal->marks);
    free(journal->path);
    free(journal->dir);
    free(journal);
    return NULL;
}
