/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading objects: pread at the address the index gives, digest verified
 * while the bytes are in the cache.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "store/cas/store.h"

/* Read and hashed in pieces that stay in the second-level cache. */
#define READ_PIECE_BYTES ((size_t)256 << 10)

fm_status_t fm_cas_copy_read(fm_cas_t *cas, int fd, const fm_digest_t *digest,
                             uint64_t address, uint64_t length, uint8_t *data,
                             fm_error_t *err)
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
    fm_digest_t found = fm_sha256_finish(cas->sha);
    if (rc >= 0 && !fm_digest_equal(&found, digest)) {
        rc = fm_error_set(err, FM_ERR_CORRUPT,
                          "bytes changed since they were sealed");
    }
    free(scratch);
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
