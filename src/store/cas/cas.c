/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The handle: open, put, look up, iterate.
 * Invariants: pending_bytes stays within seal_bytes; an entry with segment
 * FM_CAS_NONE has its number in cas->pending as address.
 */
#include "store/cas/cas.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "store/cas/layout.h"
#include "store/cas/store.h"

/* What a pending object costs besides its bytes, so that empty objects fill a
 * segment too: its row in the index. */
#define PENDING_OVERHEAD_BYTES FM_CAS_ROW_BYTES

/* --- open and close --------------------------------------------------------
 */

static fm_status_t handle_create(const char *dir, const fm_cas_options_t *opts,
                                 fm_cas_t **cas_out, fm_error_t *err)
{
    fm_cas_t *cas = fm_calloc(1, sizeof(*cas));

    if (!cas) {
        return fm_no_memory(err);
    }
    cas->entry_free = FM_CAS_NONE;
    cas->seal_bytes =
        opts->seal_bytes ? opts->seal_bytes : FM_CAS_SEAL_BYTES_DEFAULT;
    cas->open_max =
        opts->open_files_max ? opts->open_files_max : FM_CAS_OPEN_FILES_DEFAULT;
    if (!(cas->dir = fm_strdup(dir)) ||
        !(cas->segments = fm_asprintf("%s/segments", dir)) ||
        !(cas->fabric = fm_strdup(opts->fabric ? opts->fabric : "")) ||
        (opts->writer && !(cas->writer = fm_strdup(opts->writer))) ||
        !(cas->index = fm_map_create()) ||
        !(cas->segment_names = fm_strmap_create()) ||
        !(cas->quarantine = fm_strmap_create()) ||
        !(cas->sha = fm_sha256_create())) {
        (void)fm_cas_close(cas);
        return fm_no_memory(err);
    }
    *cas_out = cas;
    return FM_OK;
}

/* Number of "<writer>-<n>.h5"; false for other names. */
static bool own_seq(const fm_cas_t *cas, const char *name, uint64_t *seq_out)
{
    size_t len = strlen(cas->writer);
    char *end = NULL;

    if (strncmp(name, cas->writer, len) != 0 || name[len] != '-' ||
        name[len + 1] < '0' || name[len + 1] > '9') {
        return false;
    }
    *seq_out = strtoull(name + len + 1, &end, 10);
    return strcmp(end, ".h5") == 0 && *seq_out < UINT64_MAX;
}

/* Continue behind this writer's segments, and remove what a dead writer of
 * this name left: names are unique among the living. */
static fm_status_t own_file_visit(fm_cas_t *cas, const char *name, void *ctx,
                                  fm_error_t *err)
{
    uint64_t seq = 0;
    size_t len = strlen(cas->writer);

    (void)ctx;
    if (fm_cas_name_torn(name)) {
        if (strlen(name) == len + 4 && strncmp(name, cas->writer, len) == 0) {
            char *path = fm_cas_segment_path(cas, name);
            if (!path) {
                return fm_no_memory(err);
            }
            (void)unlink(path);
            free(path);
        }
    } else if (own_seq(cas, name, &seq) && seq >= cas->next_seq) {
        cas->next_seq = seq + 1;
    }
    return FM_OK;
}

fm_status_t fm_cas_open(const char *dir, const fm_cas_options_t *opts,
                        fm_cas_t **cas_out, fm_error_t *err)
{
    static const fm_cas_options_t defaults;
    fm_cas_t *cas = NULL;
    fm_status_t rc = FM_OK;

    opts = opts ? opts : &defaults;
    if (opts->writer && !fm_cas_name_valid(opts->writer, strlen(opts->writer),
                                           FM_CAS_WRITER_BYTES_MAX)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "writer name \"%.80s\": use 1 to %d of "
                            "[A-Za-z0-9._-], no leading dot",
                            opts->writer, FM_CAS_WRITER_BYTES_MAX);
    }
    if (opts->fabric && strlen(opts->fabric) > FM_CAS_FABRIC_BYTES_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "fabric name longer than %d bytes",
                            FM_CAS_FABRIC_BYTES_MAX);
    }
    if ((rc = handle_create(dir, opts, &cas, err)) < 0) {
        return rc;
    }
    if (cas->writer &&
        ((rc = fm_file_make_dirs(cas->segments, 0755, err)) < 0 ||
         (rc = fm_cas_segment_each(cas, own_file_visit, NULL, err)) < 0)) {
        goto out;
    }
    if ((rc = fm_cas_refresh(cas, err)) < 0) {
        goto out;
    }
    *cas_out = cas;
    cas = NULL;
out:
    if (rc < 0) {
        fm_error_wrap(err, "open store %s", dir);
    }
    (void)fm_cas_close(cas);
    return rc;
}

void *fm_cas_close(fm_cas_t *cas)
{
    if (!cas) {
        return NULL;
    }
    for (size_t i = 0; i < cas->pending_count; i++) {
        free(cas->pending[i].data);
    }
    for (size_t i = 0; i < cas->segment_count; i++) {
        if (cas->segment[i].fd >= 0) {
            (void)close(cas->segment[i].fd);
        }
        free(cas->segment[i].name);
    }
    fm_buf_fini(&cas->pack);
    free(cas->pending);
    free(cas->segment);
    free(cas->entries);
    free(cas->shapes);
    (void)fm_map_destroy(cas->index);
    (void)fm_strmap_destroy(cas->segment_names);
    (void)fm_strmap_destroy(cas->quarantine);
    fm_sha256_destroy(cas->sha);
    free(cas->dir);
    free(cas->segments);
    free(cas->writer);
    free(cas->fabric);
    free(cas);
    return NULL;
}

/* --- put -------------------------------------------------------------------
 */

static fm_status_t pending_add(fm_cas_t *cas, const fm_cas_part_t *part,
                               fm_error_t *err)
{
    const fm_cas_row_t *row = &part->row;
    size_t len = (size_t)row->length;
    fm_cas_pending_t item = {.digest = row->digest,
                             .pack_offset = cas->pack.len};
    fm_cas_entry_t entry = {.address = cas->pending_count,
                            .length = row->length,
                            .segment = FM_CAS_NONE,
                            .shape = FM_CAS_SHAPE_NONE,
                            .kind = row->kind,
                            .place = row->place};
    fm_status_t rc = fm_grow(&cas->pending, &cas->pending_capacity,
                             cas->pending_count, sizeof(*cas->pending), err);

    if (rc >= 0 && part->shape) {
        rc = fm_cas_shape_add(cas, part->shape, &entry.shape, err);
    }
    if (rc < 0) {
        return rc;
    }
    if (row->place == FM_CAS_PLACE_DATA) {
        fm_buf_add(&cas->pack, part->data, len);
        if (cas->pack.failed) {
            cas->pack.failed = false; /* nothing was added */
            return fm_no_memory(err);
        }
    } else {
        if (!(item.data = fm_malloc(len + 1))) {
            return fm_no_memory(err);
        }
        if (len > 0) {
            memcpy(item.data, part->data, len);
        }
    }
    rc = fm_cas_index_add(cas, &row->digest, &entry, true, &item.entry, err);
    if (rc < 0) {
        cas->pack.len = item.pack_offset;
        free(item.data);
        return rc;
    }
    cas->pending[cas->pending_count++] = item;
    cas->pending_bytes += len + PENDING_OVERHEAD_BYTES;
    return FM_OK;
}

/* True when a sealed copy reads back whole; one that does not is dropped from
 * the index.  Without this look, what is made again because its only copy is
 * damaged would be taken for known, and be lost again. */
static bool copy_whole(fm_cas_t *cas, const fm_cas_entry_t *entry,
                       const fm_digest_t *digest)
{
    uint32_t segment = entry->segment;
    uint64_t address = entry->address;
    uint64_t length = entry->length;
    uint8_t *data = fm_malloc(length ? (size_t)length : 1);
    int fd = -1;
    fm_status_t rc =
        data ? fm_cas_segment_fd(cas, segment, &fd, NULL) : FM_ERR_NO_MEMORY;

    if (rc >= 0) {
        rc = fm_cas_copy_read(cas, fd, digest, address, length, data, NULL);
    }
    free(data);
    if (rc < 0 && rc != FM_ERR_NOT_FOUND) {
        (void)fm_cas_index_remove(cas, digest, segment);
    }
    return rc >= 0;
}

/* A copy that makes another one needless: not for a tensor whose only copies
 * have no shape.  Looking marks it as used, and finds out if it is gone or
 * damaged. */
static bool present(fm_cas_t *cas, const fm_cas_part_t *part)
{
    const fm_cas_entry_t *entry = NULL;

    while ((entry = part->shape
                        ? fm_cas_index_find_tensor(cas, &part->row.digest)
                        : fm_cas_index_find(cas, &part->row.digest))) {
        if (entry->segment == FM_CAS_NONE ||
            (fm_cas_segment_freshen(cas, entry->segment) &&
             copy_whole(cas, entry, &part->row.digest))) {
            return true;
        }
    }
    return false;
}

static fm_status_t part_put(fm_cas_t *cas, fm_cas_part_t *part,
                            fm_digest_t *digest_out, fm_error_t *err)
{
    size_t len = (size_t)part->row.length;
    fm_status_t rc = FM_OK;

    if (!cas->writer) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "store %s was opened read-only", cas->dir);
    }
    if (part->row.length > FM_CAS_OBJECT_BYTES_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "object of %zu bytes; the store takes %" PRIu64,
                            len, FM_CAS_OBJECT_BYTES_MAX);
    }
    part->row.digest = fm_sha256(part->data, len);
    if (present(cas, part)) {
        cas->dedup_count++;
        cas->dedup_bytes += len;
    } else if (len + PENDING_OVERHEAD_BYTES >
               cas->seal_bytes - cas->pending_bytes) {
        rc = fm_cas_seal_with(cas, part, err);
    } else {
        rc = pending_add(cas, part, err);
    }
    if (rc >= 0) {
        cas->put_count++;
        *digest_out = part->row.digest;
    }
    return rc;
}

fm_status_t fm_cas_put(fm_cas_t *cas, fm_cas_kind_t kind, const void *data,
                       size_t len, fm_digest_t *digest_out, fm_error_t *err)
{
    fm_cas_part_t part = {.row = {.length = len,
                                  .kind = (uint8_t)kind,
                                  .place = len <= FM_CAS_PACK_BYTES_MAX
                                               ? FM_CAS_PLACE_DATA
                                               : FM_CAS_PLACE_BLOB},
                          .data = data};

    if (!fm_cas_kind_name(kind) || kind == FM_CAS_TENSOR) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "kind %d: put any but a tensor, which has a "
                            "function of its own",
                            (int)kind);
    }
    return part_put(cas, &part, digest_out, err);
}

fm_status_t fm_cas_put_tensor(fm_cas_t *cas, fm_cas_dtype_t dtype,
                              const uint64_t *shape, size_t rank,
                              const void *data, fm_digest_t *digest_out,
                              fm_error_t *err)
{
    fm_cas_shape_t own = {.dtype = (uint8_t)dtype, .rank = (uint8_t)rank};
    fm_cas_part_t part = {
        .row = {.kind = FM_CAS_TENSOR, .place = FM_CAS_PLACE_TENSOR},
        .shape = &own,
        .data = data};

    if (!fm_cas_dtype_name(dtype) || rank > FM_CAS_RANK_MAX) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "tensor of dtype %d and rank %zu: at most %d "
                            "dimensions of a known dtype",
                            (int)dtype, rank, FM_CAS_RANK_MAX);
    }
    for (size_t i = 0; i < rank; i++) {
        own.dims[i] = shape[i];
    }
    if (!fm_cas_shape_bytes(&own, &part.row.length)) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "tensor larger than %" PRIu64 " bytes",
                            FM_CAS_OBJECT_BYTES_MAX);
    }
    return part_put(cas, &part, digest_out, err);
}

fm_status_t fm_cas_seal(fm_cas_t *cas, fm_error_t *err)
{
    return cas->pending_count > 0 ? fm_cas_seal_with(cas, NULL, err) : FM_OK;
}

size_t fm_cas_discard(fm_cas_t *cas)
{
    size_t count = cas->pending_count;

    for (size_t i = 0; i < count; i++) {
        (void)fm_cas_index_remove(cas, &cas->pending[i].digest, FM_CAS_NONE);
        free(cas->pending[i].data);
    }
    cas->pending_count = 0;
    cas->pending_bytes = 0;
    fm_buf_clear(&cas->pack);
    return count;
}

/* --- look up ---------------------------------------------------------------
 */

bool fm_cas_has(const fm_cas_t *cas, const fm_digest_t *digest)
{
    return fm_cas_index_find(cas, digest) != NULL;
}

static void locator_fill(const fm_cas_t *cas, const fm_digest_t *digest,
                         const fm_cas_entry_t *entry, fm_cas_locator_t *out)
{
    const fm_cas_segment_t *segment = &cas->segment[entry->segment];
    size_t len = strlen(segment->name); /* checked to fit when it was read */

    memset(out, 0, sizeof(*out));
    memcpy(out->segment, segment->name, len);
    (void)fm_cas_dataset_name((fm_cas_place_t)entry->place, digest,
                              out->dataset);
    out->offset = entry->place == FM_CAS_PLACE_DATA
                      ? entry->address - segment->header.pack_address
                      : 0;
    out->length = entry->length;
}

bool fm_cas_locate(const fm_cas_t *cas, const fm_digest_t *digest,
                   fm_cas_locator_t *locator_out)
{
    const fm_cas_entry_t *entry = fm_cas_index_find(cas, digest);

    while (entry && entry->segment == FM_CAS_NONE) {
        entry = fm_cas_index_next(cas, entry);
    }
    if (!entry) {
        return false;
    }
    locator_fill(cas, digest, entry, locator_out);
    return true;
}

fm_status_t fm_cas_learn(fm_cas_t *cas, const fm_digest_t *digest,
                         const fm_cas_locator_t *locator, fm_error_t *err)
{
    char text[FM_DIGEST_TEXT_BYTES];

    if (!memchr(locator->segment, '\0', sizeof(locator->segment)) ||
        !fm_cas_segment_name_valid(locator->segment)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "locator: \"%.95s\" is no segment name",
                            locator->segment);
    }
    fm_status_t rc = fm_cas_segment_load(cas, locator->segment, err);
    if (rc >= 0 && !fm_cas_has(cas, digest)) {
        rc = fm_error_set(err, FM_ERR_NOT_FOUND,
                          "object %s is not in segment %s",
                          fm_digest_format(digest, text), locator->segment);
    }
    return rc;
}

bool fm_cas_size(const fm_cas_t *cas, const fm_digest_t *digest,
                 fm_cas_kind_t *kind_out, uint64_t *bytes_out)
{
    const fm_cas_entry_t *entry = fm_cas_index_find(cas, digest);

    if (entry && kind_out) {
        *kind_out = (fm_cas_kind_t)entry->kind;
    }
    if (entry && bytes_out) {
        *bytes_out = entry->length;
    }
    return entry != NULL;
}

bool fm_cas_forget(fm_cas_t *cas, const fm_digest_t *digest)
{
    const fm_cas_entry_t *entry = fm_cas_index_find(cas, digest);
    bool forgot = false;

    while (entry && entry->segment != FM_CAS_NONE) {
        (void)fm_cas_index_remove(cas, digest, entry->segment);
        forgot = true;
        entry = fm_cas_index_find(cas, digest);
    }
    return forgot;
}

bool fm_cas_next(const fm_cas_t *cas, size_t *cursor,
                 fm_cas_object_t *object_out)
{
    fm_cas_object_t object = {0};
    uint64_t head = 0;

    if (!fm_map_next(cas->index, cursor, &object.digest, &head)) {
        return false;
    }
    const fm_cas_entry_t *entry = &cas->entries[head];
    object.kind = (fm_cas_kind_t)entry->kind;
    object.bytes = entry->length;
    object.sealed = fm_cas_locate(cas, &object.digest, &object.locator);
    *object_out = object;
    return true;
}
