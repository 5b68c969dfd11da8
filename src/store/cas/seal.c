/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Publish: lay out, copy structure and objects to a temporary file, fsync,
 * rename, fsync the directory; only then do entries point to the segment.
 * Invariant: whatever fails, no segment appears and what is pending stays
 * pending.  Fault points: cas.flush (layout.c), base.write, cas.fsync,
 * cas.rename, and base.fsync for the directory.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/mem.h"
#include "store/cas/layout.h"
#include "store/cas/store.h"

#define RENAME_ONLY_NEW 1u /* RENAME_NOREPLACE, absent from strict headers */
/* One call of a write: a single one of 64 MiB was measured 10 times slower,
 * since the kernel then gathers large pages first. */
#define WRITE_BYTES ((size_t)1 << 20)
#define SEQ_TRIES 1000 /* taken names skipped before giving up */

static fm_cas_part_t part_of(const fm_cas_t *cas, const fm_cas_pending_t *item)
{
    const fm_cas_entry_t *entry = &cas->entries[item->entry];
    fm_cas_part_t part = {
        .row = {.digest = item->digest,
                .length = entry->length,
                .kind = entry->kind,
                .place = entry->place},
        .data = item->data ? item->data : cas->pack.data + item->pack_offset,
    };

    if (entry->shape != FM_CAS_SHAPE_NONE) {
        part.shape = &cas->shapes[entry->shape];
    }
    return part;
}

static fm_status_t pieces_write(int fd, const uint8_t *data, size_t len,
                                const char *path, fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    while (len > 0 && rc >= 0) {
        size_t piece = len < WRITE_BYTES ? len : WRITE_BYTES;
        rc = fm_file_write_all(fd, data, piece, path, err);
        if (piece == WRITE_BYTES) {
            /* Start the disk now, so that the fsync waits less: a hint. */
            (void)sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
        }
        data += piece;
        len -= piece;
    }
    return rc;
}

/* Copy [address, end) of the image to the same place of fd; past its end it
 * is zero. */
static fm_status_t structure_copy(const fm_cas_layout_t *layout, int fd,
                                  uint64_t address, uint64_t end,
                                  const char *path, fm_error_t *err)
{
    static const uint8_t zeros[4096];
    fm_status_t rc = FM_OK;

    if (address < end && address < layout->image_bytes) {
        uint64_t len = end < layout->image_bytes
                           ? end - address
                           : layout->image_bytes - address;
        rc = pieces_write(fd, layout->image + address, (size_t)len, path, err);
        address += len;
    }
    while (address < end && rc >= 0) {
        uint64_t len =
            end - address < sizeof(zeros) ? end - address : sizeof(zeros);
        rc = fm_file_write_all(fd, zeros, (size_t)len, path, err);
        address += len;
    }
    return rc;
}

static int part_order(const void *a, const void *b)
{
    const fm_cas_part_t *x = a;
    const fm_cas_part_t *y = b;

    if (x->row.address != y->row.address) {
        return x->row.address < y->row.address ? -1 : 1;
    }
    return x->row.length < y->row.length ? -1 : x->row.length > y->row.length;
}

/* Parts from i on that lie together both in memory and in the file. */
static size_t run_length(const fm_cas_part_t *parts, size_t part_count,
                         size_t i, size_t *bytes_out)
{
    size_t count = 1;
    size_t bytes = (size_t)parts[i].row.length;

    while (i + count < part_count &&
           parts[i + count].row.address == parts[i].row.address + bytes &&
           (const uint8_t *)parts[i + count].data ==
               (const uint8_t *)parts[i].data + bytes) {
        bytes += (size_t)parts[i + count].row.length;
        count++;
    }
    *bytes_out = bytes;
    return count;
}

/* Write the file front to back, but for its header, which stays zero.  parts
 * are sorted by address. */
static fm_status_t body_write(const fm_cas_layout_t *layout,
                              const fm_cas_part_t *parts, size_t part_count,
                              int fd, const char *path, fm_error_t *err)
{
    uint64_t at = 0;
    fm_status_t rc = FM_OK;

    for (size_t i = 0; i < part_count && rc >= 0;) {
        size_t bytes = 0;
        size_t count = run_length(parts, part_count, i, &bytes);
        if (bytes > 0) {
            rc =
                structure_copy(layout, fd, at, parts[i].row.address, path, err);
            at = parts[i].row.address + bytes;
        }
        if (bytes > 0 && rc >= 0) {
            rc = pieces_write(fd, parts[i].data, bytes, path, err);
        }
        i += count;
    }
    if (rc >= 0) {
        rc = structure_copy(layout, fd, at, layout->header.file_bytes, path,
                            err);
    }
    return rc;
}

/* Checksum what was written, and write the header. */
static fm_status_t header_write(const fm_cas_layout_t *layout,
                                const fm_cas_part_t *parts, size_t part_count,
                                int fd, const char *path, fm_error_t *err)
{
    fm_cas_header_t header = layout->header;
    fm_buf_t bytes = {0};
    fm_cas_extent_t *extents = fm_calloc(part_count, sizeof(*extents));
    fm_status_t rc = extents ? FM_OK : fm_no_memory(err);

    for (size_t i = 0; i < part_count && rc >= 0; i++) {
        extents[i].address = parts[i].row.address;
        extents[i].length = parts[i].row.length;
    }
    if (rc >= 0) {
        rc = fm_cas_meta_hash(fd, header.file_bytes, extents, part_count,
                              &header.meta_hash, err);
    }
    fm_cas_header_encode(&header, &bytes);
    if (rc >= 0 && bytes.failed) {
        rc = fm_no_memory(err);
    }
    if (rc >= 0 && lseek(fd, 0, SEEK_SET) != 0) {
        rc = fm_error_set_errno(err, FM_ERR_IO, errno, "seek %s", path);
    }
    if (rc >= 0) {
        rc = fm_file_write_all(fd, bytes.data, bytes.len, path, err);
    }
    free(extents);
    fm_buf_fini(&bytes);
    return rc;
}

static fm_status_t file_write(const fm_cas_layout_t *layout,
                              const fm_cas_part_t *parts, size_t part_count,
                              const char *path, fm_error_t *err)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

    if (fd < 0 && errno == EEXIST) {
        return fm_error_set(err, FM_ERR_BUSY,
                            "%s exists: another live writer has this name; "
                            "give each writer its own",
                            path);
    }
    if (fd < 0) {
        return fm_error_set_errno(err, FM_ERR_IO, errno, "create %s", path);
    }
    fm_status_t rc = body_write(layout, parts, part_count, fd, path, err);
    if (rc >= 0) {
        rc = header_write(layout, parts, part_count, fd, path, err);
    }
    if (rc >= 0 &&
        (fm_fault("cas.fsync") ? (errno = EIO, true) : fsync(fd) != 0)) {
        rc = fm_error_set_errno(err, FM_ERR_IO, errno, "fsync %s", path);
    }
    if (close(fd) != 0 && rc >= 0) {
        rc = fm_error_set_errno(err, FM_ERR_IO, errno, "close %s", path);
    }
    if (rc < 0) {
        (void)unlink(path);
    }
    return rc;
}

/* Rename, never onto an existing file.  FM_ERR_EXISTS when to is taken. */
static fm_status_t rename_new(const char *from, const char *to, fm_error_t *err)
{
    if (fm_fault("cas.rename")) {
        return fm_error_set_errno(err, FM_ERR_IO, EIO, "rename %s", from);
    }
    long rc =
        syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, RENAME_ONLY_NEW);
    if (rc == 0) {
        return FM_OK;
    }
    if (errno == EINVAL || errno == ENOSYS) {
        /* Not on this filesystem: link() refuses a taken name as well, and
         * where there are no hard links a look has to do. */
        if (link(from, to) == 0) {
            (void)unlink(from);
            return FM_OK;
        }
        if (errno != EEXIST && access(to, F_OK) != 0) {
            return fm_file_rename(from, to, err);
        }
        errno = EEXIST;
    }
    return fm_error_set_errno(err, errno == EEXIST ? FM_ERR_EXISTS : FM_ERR_IO,
                              errno, "rename %s to %s", from, to);
}

/* Move the finished file to the next free name of this writer. */
static fm_status_t file_publish(fm_cas_t *cas, const char *temp,
                                char **name_out, fm_error_t *err)
{
    char *name = NULL;
    char *path = NULL;
    fm_status_t rc = FM_ERR_EXISTS;

    for (int tries = 0; tries < SEQ_TRIES && rc == FM_ERR_EXISTS; tries++) {
        free(name);
        free(path);
        path = NULL;
        name = fm_asprintf("%s-%" PRIu64 ".h5", cas->writer, cas->next_seq++);
        if (!name || !(path = fm_cas_segment_path(cas, name))) {
            rc = fm_no_memory(err);
            break;
        }
        rc = rename_new(temp, path, err);
    }
    if (rc < 0) {
        (void)unlink(temp);
    } else if ((rc = fm_file_fsync_parent(path, err)) < 0) {
        /* Not known to be durable, so it must not be found either. */
        (void)unlink(path);
    }
    free(path);
    if (rc < 0) {
        free(name);
        return rc;
    }
    *name_out = name;
    return FM_OK;
}

/* Point the entries of what was pending to the segment. */
static fm_status_t pending_settle(fm_cas_t *cas, const char *name,
                                  const fm_cas_header_t *header,
                                  const fm_cas_part_t *parts,
                                  const fm_cas_part_t *direct_part,
                                  fm_error_t *err)
{
    fm_status_t rc = FM_OK;
    uint32_t number = fm_cas_segment_number(cas, name);

    if (number == FM_CAS_NONE) {
        return fm_no_memory(err);
    }
    cas->segment[number].state = FM_CAS_SEGMENT_GOOD;
    cas->segment[number].header = *header;
    for (size_t i = 0; i < cas->pending_count; i++) {
        fm_cas_entry_t *entry = &cas->entries[cas->pending[i].entry];
        entry->segment = number;
        entry->address = parts[i].row.address;
        free(cas->pending[i].data);
    }
    cas->pending_count = 0;
    cas->pending_bytes = 0;
    fm_buf_clear(&cas->pack);
    if (direct_part) {
        fm_cas_entry_t entry = {.address = direct_part->row.address,
                                .length = direct_part->row.length,
                                .segment = number,
                                .shape = FM_CAS_SHAPE_NONE,
                                .kind = direct_part->row.kind,
                                .place = direct_part->row.place};
        if (direct_part->shape) {
            rc = fm_cas_shape_add(cas, direct_part->shape, &entry.shape, err);
        }
        if (rc >= 0) {
            rc = fm_cas_index_add(cas, &direct_part->row.digest, &entry, true,
                                  NULL, err);
        }
    }
    return rc;
}

fm_status_t fm_cas_seal_with(fm_cas_t *cas, const fm_cas_part_t *direct,
                             fm_error_t *err)
{
    size_t count = cas->pending_count + (direct ? 1 : 0);
    fm_cas_layout_t layout = {0};
    fm_cas_part_t *parts = fm_calloc(count + 1, sizeof(*parts));
    fm_cas_part_t *sorted = fm_calloc(count + 1, sizeof(*sorted));
    char *temp = fm_asprintf("%s/%s.tmp", cas->segments, cas->writer);
    char *name = NULL;
    fm_status_t rc = FM_OK;

    if (!parts || !sorted || !temp) {
        rc = fm_no_memory(err);
        goto out;
    }
    for (size_t i = 0; i < cas->pending_count; i++) {
        parts[i] = part_of(cas, &cas->pending[i]);
    }
    if (direct) {
        parts[count - 1] = *direct;
    }
    if ((rc = fm_cas_layout_make(parts, count, cas->writer, cas->fabric,
                                 fm_clock_wall_ns(), &layout, err)) < 0) {
        goto out;
    }
    memcpy(sorted, parts, count * sizeof(*parts));
    qsort(sorted, count, sizeof(*sorted), part_order);
    if ((rc = file_write(&layout, sorted, count, temp, err)) < 0 ||
        (rc = file_publish(cas, temp, &name, err)) < 0) {
        goto out;
    }
    rc = pending_settle(cas, name, &layout.header, parts,
                        direct ? &parts[count - 1] : NULL, err);
out:
    if (rc < 0) {
        fm_error_wrap(err, "seal %zu objects", count);
    }
    free(layout.image);
    free(parts);
    free(sorted);
    free(temp);
    free(name);
    return rc;
}
