/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Encoding and reading of journal files.
 *
 * A record that fails its checksum is either a torn write or damage, and only
 * the former may be cut off.  A batch is written only after the batch before it
 * is durable, and every record tells how far back its own batch began.  So a
 * whole record whose batch began behind the bad place proves that the bad
 * place had been durable: damage.  The same holds below initial_bytes.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/mem.h"
#include "store/journal/internal.h"

#define WINDOW_BYTES ((size_t)1 << 20)

static const uint8_t magic[8] = {'F', 'M', 'J', 'R', 'N', 'L', '\r', '\n'};

static void put32(uint8_t *to, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++) {
        to[i] = (uint8_t)(value >> (8 * i));
    }
}

static void put64(uint8_t *to, uint64_t value)
{
    put32(to, (uint32_t)value);
    put32(to + 4, (uint32_t)(value >> 32));
}

void fm_journal_header_encode(const struct file_header *header,
                              uint8_t bytes[HEADER_BYTES])
{
    memcpy(bytes, magic, sizeof(magic));
    put32(bytes + 8, JOURNAL_VERSION);
    put32(bytes + 12, header->generation);
    put32(bytes + 16, header->instance);
    put32(bytes + 20, 0);
    put64(bytes + 24, header->first_seq);
    put64(bytes + 32, header->salt);
    put64(bytes + 40, header->created_ns);
    put64(bytes + 48, header->initial_bytes);
    put64(bytes + 56, fm_hash64(bytes, 56));
}

static fm_status_t header_decode(const uint8_t *bytes, const char *path,
                                 struct file_header *out, fm_error_t *err)
{
    fm_reader_t reader = {.data = bytes, .len = HEADER_BYTES};

    if (memcmp(fm_read_bytes(&reader, 8), magic, sizeof(magic)) != 0) {
        return fm_error_set(err, FM_ERR_CORRUPT,
                            "%s:0: not a journal file; restore it from a "
                            "backup",
                            path);
    }
    uint32_t version = fm_read_u32(&reader);
    out->generation = fm_read_u32(&reader);
    out->instance = fm_read_u32(&reader);
    (void)fm_read_u32(&reader);
    out->first_seq = fm_read_u64(&reader);
    out->salt = fm_read_u64(&reader);
    out->created_ns = fm_read_u64(&reader);
    out->initial_bytes = fm_read_u64(&reader);
    if (fm_read_u64(&reader) != fm_hash64(bytes, 56)) {
        return fm_error_set(err, FM_ERR_CORRUPT,
                            "%s:0: the header fails its checksum; restore "
                            "the file from a backup",
                            path);
    }
    if (version != JOURNAL_VERSION) {
        return fm_error_set(err, FM_ERR_UNSUPPORTED,
                            "%s:0: format version %u, this program reads %u; "
                            "use the release that wrote it",
                            path, version, JOURNAL_VERSION);
    }
    return FM_OK;
}

fm_status_t fm_journal_encode(fm_buf_t *buf, uint64_t salt, unsigned type,
                              uint64_t seq, const void *bytes, size_t len,
                              fm_error_t *err)
{
    size_t batch_offset = buf->len;
    uint8_t *at = fm_buf_reserve(buf, RECORD_HEADER_BYTES + len);

    if (!at) {
        buf->failed = false; /* what is in the buffer is still whole */
        return fm_no_memory(err);
    }
    put64(at + 8, seq);
    put32(at + 16, (uint32_t)len);
    put32(at + 20, (uint32_t)batch_offset);
    at[24] = (uint8_t)type;
    at[25] = (uint8_t)(type >> 8);
    at[26] = 0;
    at[27] = 0;
    if (len > 0) {
        memcpy(at + RECORD_HEADER_BYTES, bytes, len);
    }
    put64(at, fm_hash64(at + 8, RECORD_HEADER_BYTES - 8 + len) ^ salt);
    buf->len += RECORD_HEADER_BYTES + len;
    return FM_OK;
}

/* Borrow @p len bytes at @p offset; the caller knows that the file has them. */
static fm_status_t view(struct scan *scan, uint64_t offset, size_t len,
                        const uint8_t **out, fm_error_t *err)
{
    if (offset < scan->window_at ||
        offset + len > scan->window_at + scan->window.len) {
        uint64_t left = scan->file_bytes - offset;
        size_t wanted = len > WINDOW_BYTES ? len : WINDOW_BYTES;
        if (wanted > left) {
            wanted = (size_t)left;
        }
        fm_buf_clear(&scan->window);
        uint8_t *to = fm_buf_reserve(&scan->window, wanted);
        if (!to) {
            return fm_no_memory(err);
        }
        scan->window_at = offset;
        while (scan->window.len < wanted) {
            ssize_t n = pread(scan->fd, to + scan->window.len,
                              wanted - scan->window.len,
                              (off_t)(offset + scan->window.len));
            if (n < 0 && errno == EINTR) {
                continue;
            }
            if (n <= 0) {
                return fm_error_set_errno(err, FM_ERR_IO, n ? errno : EIO,
                                          "read %s:%llu", scan->path,
                                          (unsigned long long)offset);
            }
            scan->window.len += (size_t)n;
        }
    }
    *out = scan->window.data + (offset - scan->window_at);
    return FM_OK;
}

/* Is there a whole record at @p offset?  Structure first, checksum last. */
static fm_status_t record_at(struct scan *scan, uint64_t offset,
                             uint64_t seq_min, fm_journal_record_t *out,
                             uint64_t *batch_start_out, bool *whole_out,
                             fm_error_t *err)
{
    const uint8_t *at = NULL;
    uint64_t left = scan->file_bytes - offset;
    fm_status_t rc = FM_OK;

    *whole_out = false;
    if (left < RECORD_HEADER_BYTES ||
        (rc = view(scan, offset, RECORD_HEADER_BYTES, &at, err)) < 0) {
        return rc;
    }
    fm_reader_t reader = {.data = at, .len = RECORD_HEADER_BYTES};
    uint64_t checksum = fm_read_u64(&reader);
    uint64_t seq = fm_read_u64(&reader);
    size_t len = fm_read_u32(&reader);
    uint32_t batch_offset = fm_read_u32(&reader);
    unsigned type = fm_read_u8(&reader);
    type |= (unsigned)fm_read_u8(&reader) << 8;
    unsigned reserved = (unsigned)fm_read_u8(&reader) | fm_read_u8(&reader);
    size_t max = type == FM_JOURNAL_TYPE_SNAPSHOT
                     ? FM_JOURNAL_SNAPSHOT_MAX_BYTES
                     : FM_JOURNAL_RECORD_MAX_BYTES;
    if (reserved || type == 0 || len > max ||
        len > left - RECORD_HEADER_BYTES || seq < seq_min ||
        seq - seq_min > scan->file_bytes / RECORD_HEADER_BYTES) {
        return FM_OK;
    }
    rc = view(scan, offset, RECORD_HEADER_BYTES + len, &at, err);
    if (rc < 0) {
        return rc;
    }
    if ((fm_hash64(at + 8, RECORD_HEADER_BYTES - 8 + len) ^
         scan->header.salt) != checksum) {
        return FM_OK;
    }
    *out = (fm_journal_record_t){.seq = seq,
                                 .type = (uint16_t)type,
                                 .bytes = at + RECORD_HEADER_BYTES,
                                 .len = len,
                                 .file = scan->path,
                                 .offset_bytes = offset};
    *batch_start_out = offset > batch_offset ? offset - batch_offset : 0;
    *whole_out = true;
    return FM_OK;
}

/* The record at scan->offset is bad: damage, or a torn write? */
static fm_status_t bad_judge(struct scan *scan, fm_error_t *err)
{
    uint64_t bad = scan->offset;

    if (bad < scan->header.initial_bytes) {
        return fm_error_set(err, FM_ERR_CORRUPT,
                            "%s:%llu: a record fails its checksum; restore "
                            "the file from a backup",
                            scan->path, (unsigned long long)bad);
    }
    for (uint64_t at = bad + 1; at + RECORD_HEADER_BYTES <= scan->file_bytes;
         at++) {
        fm_journal_record_t record;
        uint64_t batch_start = 0;
        bool whole = false;
        fm_status_t rc = record_at(scan, at, scan->next_seq, &record,
                                   &batch_start, &whole, err);
        if (rc < 0) {
            return rc;
        }
        if (whole && batch_start > bad) {
            return fm_error_set(
                err, FM_ERR_CORRUPT,
                "%s:%llu: a record fails its checksum, and record %llu at "
                "%llu behind it is whole; restore the file from a backup, or "
                "truncate it to %llu bytes to give up what follows",
                scan->path, (unsigned long long)bad,
                (unsigned long long)record.seq, (unsigned long long)at,
                (unsigned long long)bad);
        }
    }
    scan->torn_bytes = scan->file_bytes - bad;
    return FM_OK;
}

fm_status_t fm_journal_scan_init(struct scan *scan, int fd, const char *path,
                                 fm_error_t *err)
{
    const uint8_t *bytes = NULL;
    struct stat st;

    *scan = (struct scan){.fd = fd, .path = path};
    if (fstat(fd, &st) != 0) {
        return fm_error_set_errno(err, FM_ERR_IO, errno, "stat %s", path);
    }
    scan->file_bytes = (uint64_t)st.st_size;
    if (scan->file_bytes < HEADER_BYTES) {
        return fm_error_set(err, FM_ERR_CORRUPT,
                            "%s:0: %llu bytes are too few for a header; "
                            "restore the file from a backup",
                            path, (unsigned long long)scan->file_bytes);
    }
    fm_status_t rc = view(scan, 0, HEADER_BYTES, &bytes, err);
    if (rc < 0 || (rc = header_decode(bytes, path, &scan->header, err)) < 0) {
        return rc;
    }
    if (scan->file_bytes < scan->header.initial_bytes) {
        return fm_error_set(err, FM_ERR_CORRUPT,
                            "%s:%llu: the file ends inside its snapshot; "
                            "restore it from a backup",
                            path, (unsigned long long)scan->file_bytes);
    }
    scan->offset = HEADER_BYTES;
    scan->next_seq = scan->header.first_seq;
    return FM_OK;
}

fm_status_t fm_journal_scan_next(struct scan *scan,
                                 fm_journal_record_t *record_out, bool *got_out,
                                 fm_error_t *err)
{
    fm_journal_record_t record;
    uint64_t batch_start = 0;
    bool whole = false;

    *got_out = false;
    if (scan->offset >= scan->file_bytes || scan->torn_bytes > 0) {
        return FM_OK;
    }
    fm_status_t rc = record_at(scan, scan->offset, scan->next_seq, &record,
                               &batch_start, &whole, err);
    if (rc < 0) {
        return rc;
    }
    if (!whole) {
        return bad_judge(scan, err);
    }
    if (record.seq != scan->next_seq) {
        return fm_error_set(err, FM_ERR_CORRUPT,
                            "%s:%llu: record %llu where %llu is due; restore "
                            "the file from a backup",
                            scan->path, (unsigned long long)scan->offset,
                            (unsigned long long)record.seq,
                            (unsigned long long)scan->next_seq);
    }
    scan->offset += RECORD_HEADER_BYTES + record.len;
    scan->next_seq++;
    *record_out = record;
    *got_out = true;
    return FM_OK;
}

void fm_journal_scan_fini(struct scan *scan)
{
    fm_buf_fini(&scan->window);
}
