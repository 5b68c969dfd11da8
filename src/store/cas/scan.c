/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The directory of the store: segments that came and went, counts, torn files.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "store/cas/store.h"

/* Damaged segments do not fail a refresh: one bad file may not take the whole
 * store away.  They are counted, and verify names them. */
static fm_status_t load_visit(fm_cas_t *cas, const char *name, void *ctx,
                              fm_error_t *err)
{
    (void)ctx;
    if (fm_cas_name_torn(name)) {
        return FM_OK;
    }
    uint32_t number = fm_cas_segment_number(cas, name);
    if (number == FM_CAS_NONE) {
        return fm_no_memory(err);
    }
    cas->segment[number].last_seen = cas->scan_count;
    fm_status_t rc = fm_cas_segment_load(cas, name, err);
    return rc == FM_ERR_NO_MEMORY || rc == FM_ERR_LIMIT ? rc : FM_OK;
}

/* Drop what others put in quarantine since. */
static void quarantine_apply(fm_cas_t *cas)
{
    size_t cursor = 0;
    const char *line = NULL;
    uint64_t value = 0;

    while (fm_strmap_next(cas->quarantine, &cursor, &line, &value)) {
        fm_cas_locator_t bound;
        fm_digest_t digest;
        size_t len = strcspn(line, " ");
        memcpy(bound.segment, line, len); /* checked when it was parsed */
        bound.segment[len] = '\0';
        const uint64_t *number =
            fm_strmap_get(cas->segment_names, bound.segment);
        if (number && fm_digest_parse(line + len + 1, &digest)) {
            (void)fm_cas_index_remove(cas, &digest, (uint32_t)*number);
        } else if (number) {
            fm_cas_segment_drop(cas, (uint32_t)*number, FM_CAS_SEGMENT_BAD);
        }
    }
}

/* A network filesystem may list a directory as it was before a segment came
 * that somebody told of, so an unlisted name is looked up. */
static bool file_gone(const fm_cas_t *cas, const char *name)
{
    char *path = fm_cas_segment_path(cas, name);
    bool gone = path && access(path, F_OK) != 0 && errno == ENOENT;

    free(path);
    return gone;
}

fm_status_t fm_cas_refresh(fm_cas_t *cas, fm_error_t *err)
{
    fm_status_t rc = fm_cas_quarantine_load(cas, err);

    if (rc < 0) {
        return rc;
    }
    quarantine_apply(cas);
    cas->scan_count++;
    rc = fm_cas_segment_each(cas, load_visit, NULL, err);
    for (uint32_t i = 0; i < cas->segment_count && rc >= 0; i++) {
        if (cas->segment[i].state != FM_CAS_SEGMENT_GONE &&
            cas->segment[i].last_seen != cas->scan_count &&
            file_gone(cas, cas->segment[i].name)) {
            fm_cas_segment_drop(cas, i, FM_CAS_SEGMENT_GONE);
        }
    }
    return rc;
}

static fm_status_t torn_count_visit(fm_cas_t *cas, const char *name, void *ctx,
                                    fm_error_t *err)
{
    uint64_t *count = ctx;

    (void)cas;
    (void)err;
    *count += fm_cas_name_torn(name) ? 1 : 0;
    return FM_OK;
}

static void stat_objects(const fm_cas_t *cas, fm_cas_stat_t *stat)
{
    size_t cursor = 0;
    fm_digest_t digest;
    uint64_t head = 0;

    while (fm_map_next(cas->index, &cursor, &digest, &head)) {
        const fm_cas_entry_t *entry = &cas->entries[head];
        stat->object_count++;
        stat->logical_bytes += entry->length;
        stat->kinds[entry->kind].object_count++;
        stat->kinds[entry->kind].logical_bytes += entry->length;
        while ((entry = fm_cas_index_next(cas, entry))) {
            stat->duplicate_count++;
            stat->duplicate_bytes += entry->length;
        }
    }
}

fm_status_t fm_cas_stat(fm_cas_t *cas, fm_cas_stat_t *stat_out, fm_error_t *err)
{
    fm_cas_stat_t stat = {.pending_count = cas->pending_count,
                          .put_count = cas->put_count,
                          .dedup_count = cas->dedup_count,
                          .dedup_bytes = cas->dedup_bytes};

    stat_objects(cas, &stat);
    for (size_t i = 0; i < cas->pending_count; i++) {
        stat.pending_bytes += cas->entries[cas->pending[i].entry].length;
    }
    for (size_t i = 0; i < cas->segment_count; i++) {
        if (cas->segment[i].state == FM_CAS_SEGMENT_GOOD) {
            stat.segment_count++;
            stat.physical_bytes += cas->segment[i].header.file_bytes;
        } else if (cas->segment[i].state == FM_CAS_SEGMENT_BAD) {
            stat.segment_bad_count++;
        }
    }
    fm_status_t rc =
        fm_cas_segment_each(cas, torn_count_visit, &stat.torn_count, err);
    if (rc >= 0) {
        *stat_out = stat;
    }
    return rc;
}

struct torn {
    time_t before;
    size_t removed;
};

static fm_status_t torn_remove_visit(fm_cas_t *cas, const char *name, void *ctx,
                                     fm_error_t *err)
{
    struct torn *torn = ctx;
    struct stat st;

    if (!fm_cas_name_torn(name)) {
        return FM_OK;
    }
    char *path = fm_cas_segment_path(cas, name);
    if (!path) {
        return fm_no_memory(err);
    }
    if (lstat(path, &st) == 0 && st.st_mtime < torn->before &&
        unlink(path) == 0) {
        torn->removed++;
    }
    free(path);
    return FM_OK;
}

fm_status_t fm_cas_remove_torn(fm_cas_t *cas, int64_t age_s,
                               size_t *removed_out, fm_error_t *err)
{
    struct torn torn = {.before = time(NULL) - (time_t)age_s};
    fm_status_t rc = fm_cas_segment_each(cas, torn_remove_visit, &torn, err);

    if (rc >= 0) {
        *removed_out = torn.removed;
    }
    return rc;
}
