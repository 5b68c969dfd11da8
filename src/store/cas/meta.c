/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The checksum of the bytes of a segment that no digest covers: HDF5
 * structure, index, padding.  XXH3 of the little-endian XXH3s of every piece:
 * the gaps between objects in address order, each cut to FM_CAS_PIECE_BYTES.
 */
#include <stdlib.h>

#include "base/mem.h"
#include "store/cas/store.h"

static int extent_order(const void *a, const void *b)
{
    const fm_cas_extent_t *x = a;
    const fm_cas_extent_t *y = b;

    if (x->address != y->address) {
        return x->address < y->address ? -1 : 1;
    }
    return x->length < y->length ? -1 : x->length > y->length;
}

static fm_status_t gap_hash(int fd, uint64_t address, uint64_t end,
                            uint8_t *piece, fm_buf_t *hashes, fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    while (address < end && rc >= 0) {
        size_t len = end - address < FM_CAS_PIECE_BYTES
                         ? (size_t)(end - address)
                         : FM_CAS_PIECE_BYTES;
        rc = fm_cas_pread(fd, piece, len, address, err);
        if (rc >= 0) {
            fm_buf_add_u64(hashes, fm_hash64(piece, len));
            address += len;
        }
    }
    return rc;
}

fm_status_t fm_cas_meta_hash(int fd, uint64_t file_bytes,
                             fm_cas_extent_t *extents, size_t count,
                             uint64_t *hash_out, fm_error_t *err)
{
    uint64_t at = FM_CAS_HEADER_BYTES;
    fm_buf_t hashes = {0};
    uint8_t *piece = fm_malloc(FM_CAS_PIECE_BYTES);
    fm_status_t rc = piece ? FM_OK : fm_no_memory(err);

    if (count > 0) {
        qsort(extents, count, sizeof(*extents), extent_order);
    }
    for (size_t i = 0; i < count && rc >= 0; i++) {
        if (extents[i].length == 0) {
            continue;
        }
        rc = gap_hash(fd, at, extents[i].address, piece, &hashes, err);
        uint64_t end = extents[i].address + extents[i].length;
        at = end > at ? end : at; /* a crafted index may overlap objects */
    }
    if (rc >= 0) {
        rc = gap_hash(fd, at, file_bytes, piece, &hashes, err);
    }
    if (rc >= 0 && hashes.failed) {
        rc = fm_no_memory(err);
    }
    if (rc >= 0) {
        *hash_out = fm_hash64(hashes.data, hashes.len);
    }
    free(piece);
    fm_buf_fini(&hashes);
    return rc;
}
