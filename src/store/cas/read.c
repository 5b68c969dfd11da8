/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading objects: pread at the address the index gives, digest verified
 * while the bytes are in the cache.  The bytes of a large object come in on a
 * second thread, which touches nothing but the file and the caller's buffer.
 * Fault point: cas.thread.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/mem.h"
#include "store/cas/store.h"

/* Read and hashed in pieces that stay in the second-level cache. */
#define READ_PIECE_BYTES ((size_t)256 << 10)
/* From here a thread costs less than it saves: its start 0.05 ms, the hash of
 * so much 0.5 ms. */
#define READ_AHEAD_BYTES ((uint64_t)1 << 20)

/* An object on its way from the file to memory. */
struct stream {
    int fd;
    uint64_t address;
    uint64_t length;
    uint8_t *data;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t moved;
    uint64_t done; /* bytes that lie in data */
    fm_status_t rc;
    fm_error_t err;
};

static void *stream_fill(void *arg)
{
    struct stream *s = arg;
    fm_status_t rc = FM_OK;

    for (uint64_t at = 0; at < s->length && rc >= 0;) {
        fm_error_t err = {0};
        size_t len = s->length - at < READ_PIECE_BYTES
                         ? (size_t)(s->length - at)
                         : READ_PIECE_BYTES;
        rc = fm_cas_pread(s->fd, s->data + at, len, s->address + at, &err);
        at += len;
        (void)pthread_mutex_lock(&s->lock);
        if (rc >= 0) {
            s->done = at;
        } else {
            s->rc = rc;
            s->err = err;
        }
        (void)pthread_cond_signal(&s->moved);
        (void)pthread_mutex_unlock(&s->lock);
    }
    return NULL;
}

/* Wait for more than @p at bytes; @p at itself when the reading failed. */
static uint64_t stream_wait(struct stream *s, uint64_t at)
{
    (void)pthread_mutex_lock(&s->lock);
    while (s->done == at && s->rc >= 0) {
        (void)pthread_cond_wait(&s->moved, &s->lock);
    }
    uint64_t done = s->done;
    (void)pthread_mutex_unlock(&s->lock);
    return done;
}

/* Read all of a large object, hashing one piece while the next comes in. */
static fm_status_t stream_read(fm_cas_t *cas, int fd, uint64_t address,
                               uint64_t length, uint8_t *data, fm_error_t *err)
{
    struct stream s = {.fd = fd,
                       .address = address,
                       .length = length,
                       .data = data,
                       .lock = PTHREAD_MUTEX_INITIALIZER,
                       .moved = PTHREAD_COND_INITIALIZER};
    pthread_t thread;
    bool started = !fm_fault("cas.thread") &&
                   pthread_create(&thread, NULL, stream_fill, &s) == 0;

    if (!started) { /* out of threads: one after the other, then */
        (void)stream_fill(&s);
    }
    for (uint64_t at = 0; at < length;) {
        uint64_t done = stream_wait(&s, at);
        if (done == at) {
            break;
        }
        fm_sha256_update(cas->sha, data + at, (size_t)(done - at));
        at = done;
    }
    if (started) {
        (void)pthread_join(thread, NULL);
    }
    if (s.rc < 0 && err) {
        *err = s.err;
    }
    return s.rc;
}

/* Read into data, or, when it is NULL, into one piece again and again. */
static fm_status_t pieces_read(fm_cas_t *cas, int fd, uint64_t address,
                               uint64_t length, uint8_t *data, fm_error_t *err)
{
    fm_status_t rc = FM_OK;
    uint8_t *scratch = NULL;
    uint64_t done = 0;

    if (!data && !(scratch = fm_malloc(READ_PIECE_BYTES))) {
        return fm_no_memory(err);
    }
    while (done < length && rc >= 0) {
        size_t len = length - done < READ_PIECE_BYTES ? (size_t)(length - done)
                                                      : READ_PIECE_BYTES;
        uint8_t *to = data ? data + done : scratch;
        rc = fm_cas_pread(fd, to, len, address + done, err);
        if (rc >= 0) {
            fm_sha256_update(cas->sha, to, len);
        }
        done += len;
    }
    free(scratch);
    return rc;
}

fm_status_t fm_cas_copy_read(fm_cas_t *cas, int fd, const fm_digest_t *digest,
                             uint64_t address, uint64_t length, uint8_t *data,
                             fm_error_t *err)
{
    fm_status_t rc = data && length >= READ_AHEAD_BYTES
                         ? stream_read(cas, fd, address, length, data, err)
                         : pieces_read(cas, fd, address, length, data, err);
    fm_digest_t found = fm_sha256_finish(cas->sha);

    if (rc >= 0 && !fm_digest_equal(&found, digest)) {
        rc = fm_error_set(err, FM_ERR_CORRUPT,
                          "bytes changed since they were sealed");
    }
    return rc;
}

static void pending_read(const fm_cas_t *cas, const fm_cas_entry_t *entry,
                         uint8_t *data)
{
    const fm_cas_pending_t *item = &cas->pending[entry->address];

    if (entry->length > 0) {
        memcpy(data,
               item->data ? item->data : cas->pack.data + item->pack_offset,
               (size_t)entry->length);
    }
}

/* Read the first whole copy known, dropping damaged ones. */
static fm_status_t known_read(fm_cas_t *cas, const fm_digest_t *digest,
                              uint8_t *data, size_t capacity_bytes,
                              size_t *len_out, fm_error_t *err)
{
    char text[FM_DIGEST_TEXT_BYTES];
    const fm_cas_entry_t *entry = NULL;
    fm_status_t rc =
        fm_error_set(err, FM_ERR_NOT_FOUND, "object %s is not in store %s",
                     fm_digest_format(digest, text), cas->dir);

    while ((entry = fm_cas_index_find(cas, digest))) {
        uint32_t segment = entry->segment;
        uint64_t length = entry->length;
        int fd = -1;
        if (length > capacity_bytes) {
            return fm_error_set(err, FM_ERR_LIMIT,
                                "object %s has %" PRIu64 " bytes, the buffer "
                                "%zu",
                                text, length, capacity_bytes);
        }
        if (segment == FM_CAS_NONE) {
            pending_read(cas, entry, data);
            *len_out = (size_t)length;
            return FM_OK;
        }
        rc = fm_cas_segment_fd(cas, segment, &fd, err);
        if (rc == FM_ERR_NOT_FOUND) {
            continue; /* its entries are dropped: on to the next copy */
        }
        if (rc >= 0) {
            rc = fm_cas_copy_read(cas, fd, digest, entry->address, length, data,
                                  err);
        }
        if (rc >= 0) {
            *len_out = (size_t)length;
        }
        if (rc == FM_ERR_CORRUPT) {
            fm_error_wrap(err,
                          "object %s in segment %s (run `flowmesh cas verify "
                          "--quarantine`; what made it will run again)",
                          text, cas->segment[segment].name);
            (void)fm_cas_index_remove(cas, digest, segment);
            continue;
        }
        return rc;
    }
    return rc;
}

/* Entry of digest, looking for new segments when it is not known. */
static fm_status_t find_or_refresh(fm_cas_t *cas, const fm_digest_t *digest,
                                   fm_cas_entry_t **entry_out, fm_error_t *err)
{
    char text[FM_DIGEST_TEXT_BYTES];
    fm_cas_entry_t *entry = fm_cas_index_find(cas, digest);

    if (!entry) {
        fm_status_t rc = fm_cas_refresh(cas, err);
        if (rc < 0) {
            return rc;
        }
        entry = fm_cas_index_find(cas, digest);
    }
    if (!entry) {
        return fm_error_set(err, FM_ERR_NOT_FOUND,
                            "object %s is not in store %s",
                            fm_digest_format(digest, text), cas->dir);
    }
    *entry_out = entry;
    return FM_OK;
}

fm_status_t fm_cas_read(fm_cas_t *cas, const fm_digest_t *digest, void *data,
                        size_t capacity_bytes, size_t *len_out, fm_error_t *err)
{
    fm_cas_entry_t *entry = NULL;
    fm_status_t rc = find_or_refresh(cas, digest, &entry, err);

    if (rc < 0) {
        return rc;
    }
    rc = known_read(cas, digest, data, capacity_bytes, len_out, err);
    if (rc == FM_ERR_NOT_FOUND) {
        /* Its segment was collected; it may live on in a rewritten one. */
        rc = find_or_refresh(cas, digest, &entry, err);
        if (rc >= 0) {
            rc = known_read(cas, digest, data, capacity_bytes, len_out, err);
        }
    }
    return rc;
}

fm_status_t fm_cas_get(fm_cas_t *cas, const fm_digest_t *digest, fm_buf_t *out,
                       fm_error_t *err)
{
    fm_cas_entry_t *entry = NULL;
    size_t len = 0;
    fm_status_t rc = find_or_refresh(cas, digest, &entry, err);

    if (rc < 0) {
        return rc;
    }
    uint8_t *to = fm_buf_reserve(out, (size_t)entry->length);
    if (!to) {
        return fm_no_memory(err);
    }
    rc = fm_cas_read(cas, digest, to, out->capacity - out->len, &len, err);
    if (rc >= 0) {
        out->len += len;
    }
    return rc;
}

bool fm_cas_tensor(const fm_cas_t *cas, const fm_digest_t *digest,
                   fm_cas_tensor_t *tensor_out)
{
    const fm_cas_entry_t *entry = fm_cas_index_find_tensor(cas, digest);

    if (!entry) {
        return false;
    }
    const fm_cas_shape_t *shape = &cas->shapes[entry->shape];
    memset(tensor_out, 0, sizeof(*tensor_out));
    tensor_out->dtype = (fm_cas_dtype_t)shape->dtype;
    tensor_out->rank = shape->rank;
    tensor_out->bytes = entry->length;
    memcpy(tensor_out->shape, shape->dims,
           shape->rank * sizeof(shape->dims[0]));
    return true;
}

fm_status_t fm_cas_get_tensor(fm_cas_t *cas, const fm_digest_t *digest,
                              fm_cas_tensor_t *tensor_out, void *data,
                              size_t capacity_bytes, fm_error_t *err)
{
    char text[FM_DIGEST_TEXT_BYTES];
    fm_cas_tensor_t tensor;
    fm_cas_entry_t *entry = NULL;
    size_t len = 0;
    fm_status_t rc = find_or_refresh(cas, digest, &entry, err);

    if (rc < 0) {
        return rc;
    }
    if (!fm_cas_tensor(cas, digest, &tensor)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "object %s was stored as %s, not as a tensor",
                            fm_digest_format(digest, text),
                            fm_cas_kind_name((fm_cas_kind_t)entry->kind));
    }
    rc = fm_cas_read(cas, digest, data, capacity_bytes, &len, err);
    if (rc >= 0) {
        *tensor_out = tensor;
    }
    return rc;
}
