/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segment files as a reader sees them: header and index by pread, checked;
 * a bounded number of open files.
 * Invariant: the entries of a segment are in the index exactly while its state
 * is FM_CAS_SEGMENT_GOOD.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "store/cas/store.h"

#define FRESHEN_NS (60 * FM_NS_PER_S) /* collections think in hours */

bool fm_cas_name_torn(const char *name)
{
    size_t len = strlen(name);

    return len > 4 && strcmp(name + len - 4, ".tmp") == 0;
}

char *fm_cas_segment_path(const fm_cas_t *cas, const char *name)
{
    return fm_asprintf("%s/%s", cas->segments, name);
}

fm_status_t fm_cas_pread(int fd, void *data, size_t len, uint64_t address,
                         fm_error_t *err)
{
    uint8_t *at = data;

    while (len > 0) {
        ssize_t n = pread(fd, at, len, (off_t)address);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return fm_error_set_errno(err, FM_ERR_IO, errno, "read");
        }
        if (n == 0) {
            return fm_error_set(err, FM_ERR_CORRUPT, "file ends too early");
        }
        at += n;
        len -= (size_t)n;
        address += (uint64_t)n;
    }
    return FM_OK;
}

void fm_cas_table_fini(fm_cas_table_t *table)
{
    free(table->rows);
    free(table->shapes);
    memset(table, 0, sizeof(*table));
}

static fm_status_t header_read(int fd, fm_cas_header_t *header, fm_error_t *err)
{
    uint8_t bytes[FM_CAS_HEADER_BYTES];
    struct stat st;

    if (fstat(fd, &st) != 0) {
        return fm_error_set_errno(err, FM_ERR_IO, errno, "stat");
    }
    if (!S_ISREG(st.st_mode) || st.st_size < FM_CAS_HEADER_BYTES) {
        return fm_error_set(err, FM_ERR_CORRUPT, "too short for a segment");
    }
    fm_status_t rc = fm_cas_pread(fd, bytes, sizeof(bytes), 0, err);
    if (rc >= 0) {
        rc = fm_cas_header_decode(bytes, (uint64_t)st.st_size, header, err);
    }
    return rc;
}

/* Raw rows, then shapes, their checksum verified; header_check() has bounded
 * both by the size of the file. */
static fm_status_t index_read(int fd, const fm_cas_header_t *header,
                              uint8_t **bytes_out, fm_error_t *err)
{
    size_t row_bytes = (size_t)header->row_count * FM_CAS_ROW_BYTES;
    size_t shape_bytes = (size_t)header->shape_count * FM_CAS_SHAPE_BYTES;
    uint8_t *bytes = fm_malloc(row_bytes + shape_bytes + 1);
    fm_status_t rc = bytes ? FM_OK : fm_no_memory(err);

    if (rc >= 0) {
        rc = fm_cas_pread(fd, bytes, row_bytes, header->row_address, err);
    }
    if (rc >= 0) {
        rc = fm_cas_pread(fd, bytes + row_bytes, shape_bytes,
                          header->shape_address, err);
    }
    if (rc >= 0 &&
        fm_hash64(bytes, row_bytes + shape_bytes) != header->index_hash) {
        rc = fm_error_set(err, FM_ERR_CORRUPT, "index: bad checksum");
    }
    if (rc < 0) {
        free(bytes);
        return rc;
    }
    *bytes_out = bytes;
    return FM_OK;
}

fm_status_t fm_cas_table_read(int fd, fm_cas_table_t *table_out,
                              fm_error_t *err)
{
    fm_cas_table_t table = {0};
    fm_cas_header_t *header = &table.header;
    uint8_t *bytes = NULL;
    fm_status_t rc = header_read(fd, header, err);

    if (rc < 0 || (rc = index_read(fd, header, &bytes, err)) < 0) {
        goto out;
    }
    table.rows = fm_calloc((size_t)header->row_count + 1, sizeof(*table.rows));
    table.shapes =
        fm_calloc((size_t)header->shape_count + 1, sizeof(*table.shapes));
    if (!table.rows || !table.shapes) {
        rc = fm_no_memory(err);
        goto out;
    }
    const uint8_t *at = bytes + header->row_count * FM_CAS_ROW_BYTES;
    for (size_t i = 0; i < header->shape_count && rc >= 0; i++) {
        rc = fm_cas_shape_decode(at + i * FM_CAS_SHAPE_BYTES, &table.shapes[i],
                                 err);
    }
    for (size_t i = 0; i < header->row_count && rc >= 0; i++) {
        rc = fm_cas_row_decode(bytes + i * FM_CAS_ROW_BYTES, header,
                               table.shapes, &table.rows[i], err);
    }
    if (rc >= 0) {
        *table_out = table;
        memset(&table, 0, sizeof(table));
    }
out:
    fm_cas_table_fini(&table);
    free(bytes);
    return rc;
}

uint32_t fm_cas_segment_number(fm_cas_t *cas, const char *name)
{
    const uint64_t *known = fm_strmap_get(cas->segment_names, name);

    if (known) {
        return (uint32_t)*known;
    }
    if (cas->segment_count >= FM_CAS_NONE ||
        fm_grow(&cas->segment, &cas->segment_capacity, cas->segment_count,
                sizeof(*cas->segment), NULL) < 0) {
        return FM_CAS_NONE;
    }
    fm_cas_segment_t *segment = &cas->segment[cas->segment_count];
    memset(segment, 0, sizeof(*segment));
    segment->fd = -1;
    segment->state = FM_CAS_SEGMENT_BAD;
    segment->name = fm_strdup(name);
    if (!segment->name ||
        fm_strmap_put(cas->segment_names, name, cas->segment_count, NULL) < 0) {
        free(segment->name);
        return FM_CAS_NONE;
    }
    return (uint32_t)cas->segment_count++;
}

static void segment_close(fm_cas_t *cas, fm_cas_segment_t *segment)
{
    if (segment->fd >= 0) {
        (void)close(segment->fd);
        segment->fd = -1;
        cas->open_count--;
    }
}

void fm_cas_segment_drop(fm_cas_t *cas, uint32_t number,
                         fm_cas_segment_state_t state)
{
    fm_cas_segment_t *segment = &cas->segment[number];

    segment_close(cas, segment);
    if (segment->state == FM_CAS_SEGMENT_GOOD) {
        fm_cas_index_remove_segment(cas, number);
    }
    segment->state = state;
}

static void close_least_used(fm_cas_t *cas)
{
    fm_cas_segment_t *oldest = NULL;

    for (size_t i = 0; i < cas->segment_count; i++) {
        fm_cas_segment_t *segment = &cas->segment[i];
        if (segment->fd >= 0 &&
            (!oldest || segment->last_use < oldest->last_use)) {
            oldest = segment;
        }
    }
    if (oldest) {
        segment_close(cas, oldest);
    }
}

fm_status_t fm_cas_segment_fd(fm_cas_t *cas, uint32_t number, int *fd_out,
                              fm_error_t *err)
{
    fm_cas_segment_t *segment = &cas->segment[number];

    if (segment->fd < 0) {
        char *path = fm_cas_segment_path(cas, segment->name);
        if (!path) {
            return fm_no_memory(err);
        }
        if (cas->open_count >= cas->open_max) {
            close_least_used(cas);
        }
        segment->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY |
                                     O_NONBLOCK);
        int cause = errno;
        free(path);
        if (segment->fd < 0 && (cause == ENOENT || cause == ESTALE)) {
            fm_cas_segment_drop(cas, number, FM_CAS_SEGMENT_GONE);
            return fm_error_set(err, FM_ERR_NOT_FOUND,
                                "segment %s is gone: it was collected",
                                segment->name);
        }
        if (segment->fd < 0) {
            return fm_error_set_errno(err, FM_ERR_IO, cause, "segment %s",
                                      segment->name);
        }
        cas->open_count++;
    }
    segment->last_use = ++cas->use_clock;
    *fd_out = segment->fd;
    return FM_OK;
}

static fm_status_t table_index(fm_cas_t *cas, uint32_t number,
                               const fm_cas_table_t *table, fm_error_t *err)
{
    const char *name = cas->segment[number].name;
    fm_status_t rc = FM_OK;

    for (size_t i = 0; i < table->header.row_count && rc >= 0; i++) {
        const fm_cas_row_t *row = &table->rows[i];
        fm_cas_entry_t entry = {.address = row->address,
                                .length = row->length,
                                .segment = number,
                                .shape = FM_CAS_SHAPE_NONE,
                                .kind = row->kind,
                                .place = row->place};
        if (fm_cas_quarantine_has(cas, name, &row->digest)) {
            continue;
        }
        if (row->shape != FM_CAS_SHAPE_NONE) {
            rc = fm_cas_shape_add(cas, &table->shapes[row->shape], &entry.shape,
                                  err);
        }
        if (rc >= 0) {
            rc = fm_cas_index_add(cas, &row->digest, &entry, false, NULL, err);
        }
    }
    return rc;
}

fm_status_t fm_cas_segment_load(fm_cas_t *cas, const char *name,
                                fm_error_t *err)
{
    fm_cas_table_t table = {0};
    uint32_t number = fm_cas_segment_number(cas, name);
    fm_status_t rc = FM_OK;
    int fd = -1;

    if (number == FM_CAS_NONE) {
        return fm_no_memory(err);
    }
    if (cas->segment[number].state == FM_CAS_SEGMENT_GOOD) {
        return FM_OK;
    }
    if (fm_cas_quarantine_has(cas, name, NULL)) {
        return fm_error_set(err, FM_ERR_CORRUPT, "segment %s: in quarantine",
                            name);
    }
    if ((rc = fm_cas_segment_fd(cas, number, &fd, err)) < 0) {
        return rc;
    }
    if ((rc = fm_cas_table_read(fd, &table, err)) < 0) {
        fm_error_wrap(err, "segment %s", name);
        fm_cas_segment_drop(cas, number, FM_CAS_SEGMENT_BAD);
        return rc;
    }
    cas->segment[number].state = FM_CAS_SEGMENT_GOOD;
    cas->segment[number].header = table.header;
    if ((rc = table_index(cas, number, &table, err)) < 0) {
        fm_cas_segment_drop(cas, number, FM_CAS_SEGMENT_BAD);
    }
    fm_cas_table_fini(&table);
    return rc;
}

bool fm_cas_segment_freshen(fm_cas_t *cas, uint32_t number)
{
    fm_cas_segment_t *segment = &cas->segment[number];
    int64_t now = fm_clock_mono_ns();

    if (segment->freshened_ns != 0 &&
        now - segment->freshened_ns < FRESHEN_NS) {
        return true;
    }
    char *path = fm_cas_segment_path(cas, segment->name);
    if (!path) {
        return true;
    }
    /* Another user's file may refuse the time stamp; it is there all the
     * same. */
    bool gone = utimensat(AT_FDCWD, path, NULL, 0) != 0 && errno == ENOENT;
    free(path);
    if (gone) {
        fm_cas_segment_drop(cas, number, FM_CAS_SEGMENT_GONE);
        return false;
    }
    segment->freshened_ns = now;
    return true;
}

fm_status_t
fm_cas_segment_each(fm_cas_t *cas,
                    fm_status_t (*visit)(fm_cas_t *cas, const char *name,
                                         void *ctx, fm_error_t *err),
                    void *ctx, fm_error_t *err)
{
    fm_status_t rc = FM_OK;
    DIR *dir = opendir(cas->segments);

    if (!dir) {
        return fm_error_set_errno(
            err, errno == ENOENT ? FM_ERR_NOT_FOUND : FM_ERR_IO, errno,
            "read directory %s", cas->segments);
    }
    while (rc >= 0) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (!entry) {
            if (errno != 0) {
                rc = fm_error_set_errno(err, FM_ERR_IO, errno,
                                        "read directory %s", cas->segments);
            }
            break;
        }
        if (fm_cas_segment_name_valid(entry->d_name) ||
            fm_cas_name_torn(entry->d_name)) {
            rc = visit(cas, entry->d_name, ctx, err);
        }
    }
    (void)closedir(dir);
    return rc;
}
