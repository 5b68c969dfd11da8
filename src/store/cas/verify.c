/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verify: every byte of every segment is covered by exactly one of header
 * checksum, index checksum, meta checksum, object digest.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "store/cas/store.h"

struct verify {
    bool quarantine;
    bool changed; /* the quarantine file must be written */
    fm_cas_bad_fn_t *on_bad;
    void *ctx;
    fm_cas_verify_result_t result;
    fm_error_t cause; /* of the finding at hand */
};

static void report(struct verify *verify, const fm_cas_bad_t *bad)
{
    if (bad->damage == FM_CAS_DAMAGE_OBJECT) {
        verify->result.bad_object_count++;
    } else if (bad->damage == FM_CAS_DAMAGE_SEGMENT || !bad->digest) {
        verify->result.bad_segment_count++;
    }
    if (verify->on_bad) {
        verify->on_bad(verify->ctx, bad);
    }
}

/* Is digest known in another segment than this one? */
static bool elsewhere(const fm_cas_t *cas, const fm_digest_t *digest,
                      uint32_t segment)
{
    const fm_cas_entry_t *entry = fm_cas_index_find(cas, digest);

    while (entry && entry->segment == segment) {
        entry = fm_cas_index_next(cas, entry);
    }
    return entry != NULL;
}

static fm_status_t object_check(fm_cas_t *cas, uint32_t number, int fd,
                                const fm_cas_row_t *row, struct verify *verify,
                                fm_error_t *err)
{
    const char *name = cas->segment[number].name;
    fm_status_t rc = fm_cas_copy_read(cas, fd, &row->digest, row->address,
                                      row->length, NULL, &verify->cause);

    verify->result.object_count++;
    verify->result.bytes += row->length;
    if (rc == FM_ERR_NO_MEMORY) {
        return fm_no_memory(err);
    }
    if (rc >= 0) {
        return FM_OK;
    }
    report(verify,
           &(fm_cas_bad_t){.damage = FM_CAS_DAMAGE_OBJECT,
                           .digest = &row->digest,
                           .segment = name,
                           .reason = verify->cause.text,
                           .lost = !elsewhere(cas, &row->digest, number)});
    if (verify->quarantine) {
        (void)fm_cas_index_remove(cas, &row->digest, number);
        verify->changed = true;
        return fm_cas_quarantine_add(cas, name, &row->digest, err);
    }
    return FM_OK;
}

/* Header or index unreadable: name what this handle knew to be in it. */
static fm_status_t segment_lost(fm_cas_t *cas, uint32_t number,
                                struct verify *verify, fm_error_t *err)
{
    size_t cursor = 0;
    fm_digest_t digest;
    uint64_t head = 0;
    fm_cas_bad_t bad = {.damage = FM_CAS_DAMAGE_SEGMENT,
                        .segment = cas->segment[number].name,
                        .reason = verify->cause.text,
                        .lost = true};

    report(verify, &bad);
    bad.digest = &digest;
    while (fm_map_next(cas->index, &cursor, &digest, &head)) {
        const fm_cas_entry_t *entry = &cas->entries[head];
        while (entry && entry->segment != number) {
            entry = fm_cas_index_next(cas, entry);
        }
        if (entry && verify->on_bad) {
            bad.lost = !elsewhere(cas, &digest, number);
            verify->on_bad(verify->ctx, &bad);
        }
    }
    if (!verify->quarantine) {
        return FM_OK;
    }
    fm_cas_segment_drop(cas, number, FM_CAS_SEGMENT_BAD);
    verify->changed = true;
    return fm_cas_quarantine_add(cas, cas->segment[number].name, NULL, err);
}

static fm_status_t meta_check(fm_cas_t *cas, uint32_t number, int fd,
                              const fm_cas_table_t *table,
                              struct verify *verify, fm_error_t *err)
{
    size_t count = (size_t)table->header.row_count;
    uint64_t hash = 0;
    fm_cas_extent_t *extents = fm_calloc(count + 1, sizeof(*extents));

    if (!extents) {
        return fm_no_memory(err);
    }
    for (size_t i = 0; i < count; i++) {
        extents[i].address = table->rows[i].address;
        extents[i].length = table->rows[i].length;
    }
    fm_status_t rc = fm_cas_meta_hash(fd, table->header.file_bytes, extents,
                                      count, &hash, &verify->cause);
    free(extents);
    if (rc == FM_ERR_NO_MEMORY) {
        return fm_no_memory(err);
    }
    if (rc >= 0 && hash != table->header.meta_hash) {
        rc = fm_error_set(&verify->cause, FM_ERR_CORRUPT,
                          "HDF5 structure changed since it was sealed: the "
                          "objects are whole, HDF5 tools may fail");
    }
    if (rc < 0) {
        report(verify, &(fm_cas_bad_t){.damage = FM_CAS_DAMAGE_METADATA,
                                       .segment = cas->segment[number].name,
                                       .reason = verify->cause.text});
    }
    return FM_OK;
}

static fm_status_t segment_check(fm_cas_t *cas, uint32_t number,
                                 struct verify *verify, fm_error_t *err)
{
    fm_cas_table_t table = {0};
    const char *name = cas->segment[number].name;
    int fd = -1;

    if (cas->segment[number].state == FM_CAS_SEGMENT_GONE ||
        fm_cas_quarantine_has(cas, name, NULL)) {
        return FM_OK;
    }
    fm_status_t rc = fm_cas_segment_fd(cas, number, &fd, &verify->cause);
    if (rc == FM_ERR_NOT_FOUND) {
        return FM_OK; /* collected meanwhile */
    }
    verify->result.segment_count++;
    if (rc >= 0) {
        rc = fm_cas_table_read(fd, &table, &verify->cause);
    }
    if (rc == FM_ERR_NO_MEMORY) {
        return fm_no_memory(err);
    }
    if (rc == FM_ERR_IO || rc == FM_ERR_UNSUPPORTED) {
        /* Not proved damaged, so never put in quarantine. */
        report(verify, &(fm_cas_bad_t){.damage = FM_CAS_DAMAGE_SEGMENT,
                                       .segment = name,
                                       .reason = verify->cause.text});
        return FM_OK;
    }
    if (rc < 0) {
        return segment_lost(cas, number, verify, err);
    }
    rc = FM_OK;
    for (size_t i = 0; i < table.header.row_count && rc >= 0; i++) {
        if (!fm_cas_quarantine_has(cas, name, &table.rows[i].digest)) {
            rc = object_check(cas, number, fd, &table.rows[i], verify, err);
        }
    }
    if (rc >= 0) {
        rc = meta_check(cas, number, fd, &table, verify, err);
    }
    fm_cas_table_fini(&table);
    return rc;
}

fm_status_t fm_cas_verify(fm_cas_t *cas, bool quarantine,
                          fm_cas_bad_fn_t *on_bad, void *ctx,
                          fm_cas_verify_result_t *result_out, fm_error_t *err)
{
    struct verify verify = {
        .quarantine = quarantine, .on_bad = on_bad, .ctx = ctx};
    fm_status_t rc = fm_cas_refresh(cas, err);

    for (uint32_t i = 0; i < cas->segment_count && rc >= 0; i++) {
        rc = segment_check(cas, i, &verify, err);
    }
    if (verify.changed) {
        /* Also after a failure: what was found stays found. */
        fm_error_t save_err = {0};
        fm_status_t saved = fm_cas_quarantine_save(cas, &save_err);
        if (saved < 0 && rc >= 0) {
            rc = fm_error_set(err, saved, "%s", save_err.text);
        }
    }
    if (rc < 0) {
        fm_error_wrap(err, "verify store %s", cas->dir);
        return rc;
    }
    *result_out = verify.result;
    return FM_OK;
}
