/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dedup: keep the first of equal, or of nearly equal, records
 * (docs/spec/workflow.md §6.11, W63).
 */
#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "base/mem.h"
#include "run/ops/data/near.h"
#include "run/ops/field.h"
#include "run/ops/internal.h"

#define STOP_EVERY 256
#define FIELDS_MAX 256

typedef struct dedup {
    fm_ops_run_t *run;
    const fm_json_t *records, *fields; /* fields NULL: the whole record */
    fm_ops_near_t *near;               /* NULL: exact */
    fm_map_t *seen;                    /* exact: digest → first record */
    fm_map_t *clusters; /* (kept record) → place in the list of clusters */
    fm_json_t *items, *cluster_list;
} dedup_t;

/* A record's number as a key. */
static fm_digest_t number_key(size_t index)
{
    uint64_t number = index;

    return fm_sha256(&number, sizeof(number));
}

static fm_status_t removed_add(fm_json_t *removed, size_t index,
                               const double *similarity, fm_error_t *err)
{
    fm_json_t *entry = fm_json_object();

    if (!entry ||
        fm_json_set(entry, "index", fm_json_int((int64_t)index)) < 0 ||
        (similarity &&
         fm_json_set(entry, "similarity", fm_json_real(*similarity)) < 0) ||
        fm_json_append(removed, fm_json_keep(entry)) < 0) {
        fm_json_drop(entry);
        return fm_no_memory(err);
    }
    fm_json_drop(entry);
    return FM_OK;
}

/* Record @p index duplicates record @p of. */
static fm_status_t duplicate_add(dedup_t *dedup, size_t index, size_t of,
                                 const double *similarity, fm_error_t *err)
{
    fm_digest_t key = number_key(of);
    const uint64_t *place = fm_map_get(dedup->clusters, &key);
    fm_json_t *cluster = NULL, *removed = NULL;
    fm_status_t rc = FM_OK;

    if (place) {
        cluster = fm_json_at(dedup->cluster_list, (size_t)*place);
        return removed_add(fm_json_get(cluster, "removed"), index, similarity,
                           err);
    }
    cluster = fm_json_object();
    removed = fm_json_array();
    if (!cluster || !removed ||
        fm_json_set(cluster, "kept", fm_json_int((int64_t)of)) < 0 ||
        fm_json_set(cluster, "removed", fm_json_keep(removed)) < 0 ||
        fm_json_append(dedup->cluster_list, fm_json_keep(cluster)) < 0) {
        rc = fm_no_memory(err);
    } else if ((rc = fm_map_put(dedup->clusters, &key,
                                fm_json_len(dedup->cluster_list) - 1, err)) >=
               0) {
        rc = removed_add(removed, index, similarity, err);
    }
    fm_json_drop(cluster);
    fm_json_drop(removed);
    return rc;
}

static fm_status_t exact_add(dedup_t *dedup, size_t index, bool *kept,
                             fm_error_t *err)
{
    const fm_json_t *record = fm_json_at(dedup->records, index);
    fm_buf_t text = {0};
    const uint64_t *first;
    fm_status_t rc = FM_OK;

    if (!dedup->fields) {
        fm_ops_field_add_text(&text, record);
        /* A text is not the JSON that reads the same. */
        fm_buf_add_u8(&text, fm_json_str(record) != NULL);
    }
    for (size_t i = 0; i < fm_json_len(dedup->fields); i++) {
        const char *name = fm_json_str(fm_json_at(dedup->fields, i));
        const fm_json_t *value = fm_ops_field(record, name);
        char *canonical = value ? fm_json_canonical(value) : fm_strdup("");
        fm_buf_add_str(&text, canonical ? canonical : "");
        fm_buf_add_u8(&text, '\n');
        text.failed |= !canonical;
        free(canonical);
    }
    if (text.failed) {
        fm_buf_fini(&text);
        return fm_no_memory(err);
    }
    fm_digest_t digest = fm_sha256(text.data, text.len);
    fm_buf_fini(&text);
    first = fm_map_get(dedup->seen, &digest);
    *kept = !first;
    rc = first ? duplicate_add(dedup, index, (size_t)*first, NULL, err)
               : fm_map_put(dedup->seen, &digest, index, err);
    return rc;
}

static fm_status_t near_add(dedup_t *dedup, size_t index, bool *kept,
                            fm_error_t *err)
{
    const fm_json_t *record = fm_json_at(dedup->records, index);
    fm_ops_near_verdict_t verdict = {0};
    fm_buf_t text = {0};
    fm_status_t rc = FM_OK;

    if (!dedup->fields) {
        fm_ops_field_add_text(&text, record);
    }
    for (size_t i = 0; i < fm_json_len(dedup->fields); i++) {
        const char *name = fm_json_str(fm_json_at(dedup->fields, i));
        const fm_json_t *value = fm_ops_field(record, name);
        if (i > 0) {
            fm_buf_add_u8(&text, '\n');
        }
        if (value) {
            fm_ops_field_add_text(&text, value);
        }
    }
    if (text.failed) {
        rc = fm_no_memory(err);
    } else {
        rc = fm_ops_near_add(dedup->near, (uint32_t)index,
                             (const char *)text.data, text.len, &verdict, err);
    }
    fm_buf_fini(&text);
    *kept = !verdict.duplicate;
    if (rc >= 0 && verdict.duplicate) {
        rc = duplicate_add(dedup, index, verdict.of, &verdict.similarity, err);
    }
    return rc;
}

static fm_status_t near_parse(const fm_json_t *params, dedup_t *dedup,
                              fm_error_t *err)
{
    fm_ops_near_options_t options = {
        .lowercase = fm_json_get_bool(params, "lowercase", true)};
    const char *verify = NULL;
    int64_t ngram = 0, permutations = 0, seed = 0;
    fm_status_t rc;

    if ((rc = fm_ops_get_real(params, "threshold", 0, 1, 0.8,
                              &options.threshold, err)) < 0 ||
        (rc = fm_ops_get_int(params, "ngram", 1, 64, 5, &ngram, err)) < 0 ||
        (rc = fm_ops_get_int(params, "permutations", 16,
                             OPS_NEAR_PERMUTATIONS_MAX, 128, &permutations,
                             err)) < 0 ||
        (rc = fm_ops_get_int(params, "seed", 0, INT64_C(1) << 53, 0, &seed,
                             err)) < 0 ||
        (rc = fm_ops_get_text(params, "verify", "exact", &verify, err)) < 0) {
        return rc;
    }
    options.exact = strcmp(verify, "exact") == 0;
    if ((!options.exact && strcmp(verify, "estimate") != 0) ||
        options.threshold <= 0) {
        return fm_error_set(err, FM_ERR_INVALID,
                            options.threshold <= 0
                                ? "threshold: a number above 0 is needed"
                                : "verify: exact or estimate is allowed");
    }
    options.ngram = (size_t)ngram;
    options.permutations = (size_t)permutations;
    options.seed = (uint64_t)seed;
    return fm_ops_near_create(&options, &dedup->near, err);
}

static fm_status_t dedup_init(dedup_t *dedup, const fm_json_t *params,
                              fm_error_t *err)
{
    const fm_json_t *fields = fm_json_get(params, "fields");
    const char *method = NULL;
    fm_status_t rc = fm_ops_get_text(params, "method", NULL, &method, err);

    if (rc < 0) {
        return rc;
    }
    dedup->fields = fm_json_is(fields, FM_JSON_NULL) ? NULL : fields;
    bool bad = dedup->fields &&
               (!fm_json_is(fields, FM_JSON_ARRAY) || fm_json_len(fields) < 1 ||
                fm_json_len(fields) > FIELDS_MAX);
    for (size_t i = 0; !bad && i < fm_json_len(dedup->fields); i++) {
        bad = !fm_json_str(fm_json_at(fields, i));
    }
    if (bad) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "fields: null, or a list of 1 to %d names",
                            FIELDS_MAX);
    }
    dedup->items = fm_json_array();
    dedup->cluster_list = fm_json_array();
    dedup->clusters = fm_map_create();
    dedup->seen = fm_map_create();
    if (!dedup->items || !dedup->cluster_list || !dedup->clusters ||
        !dedup->seen) {
        return fm_no_memory(err);
    }
    if (strcmp(method, "minhash") == 0) {
        return near_parse(params, dedup, err);
    }
    return strcmp(method, "exact") == 0
               ? FM_OK
               : fm_error_set(err, FM_ERR_INVALID,
                              "method: exact or minhash is allowed");
}

static fm_status_t report_set(const dedup_t *dedup, fm_ops_output_t *output,
                              fm_error_t *err)
{
    fm_json_t *report = fm_json_object();
    size_t kept = fm_json_len(dedup->items), bands = 0, rows = 0;
    size_t removed = fm_json_len(dedup->records) - kept;
    fm_status_t rc = FM_OK;

    if (dedup->near) {
        fm_ops_near_bands(dedup->near, &bands, &rows);
    }
    output->value = fm_json_object();
    if (!report || !output->value ||
        fm_json_set(report, "kept", fm_json_int((int64_t)kept)) < 0 ||
        fm_json_set(report, "removed", fm_json_int((int64_t)removed)) < 0 ||
        (bands &&
         (fm_json_set(report, "bands", fm_json_int((int64_t)bands)) < 0 ||
          fm_json_set(report, "rows", fm_json_int((int64_t)rows)) < 0)) ||
        fm_json_set(report, "clusters", fm_json_keep(dedup->cluster_list)) <
            0 ||
        fm_json_set(output->value, "items", fm_json_keep(dedup->items)) < 0 ||
        fm_json_set(output->value, "report", fm_json_keep(report)) < 0) {
        rc = fm_no_memory(err);
    }
    fm_json_drop(report);
    return rc;
}

fm_status_t fm_ops_dedup(fm_ops_run_t *run, size_t item,
                         fm_ops_output_t *output, fm_error_t *err)
{
    dedup_t dedup = {.run = run};
    fm_status_t rc =
        fm_ops_records(run->values[item], "records", &dedup.records, err);

    if (rc >= 0) {
        rc = dedup_init(&dedup, run->params, err);
    }
    for (size_t i = 0; rc >= 0 && i < fm_json_len(dedup.records); i++) {
        bool kept = false;
        if (i % STOP_EVERY == 0 && (rc = fm_ops_stopping(run, err)) < 0) {
            break;
        }
        rc = dedup.near ? near_add(&dedup, i, &kept, err)
                        : exact_add(&dedup, i, &kept, err);
        if (rc >= 0 && kept &&
            fm_json_append(dedup.items,
                           fm_json_keep(fm_json_at(dedup.records, i))) < 0) {
            rc = fm_no_memory(err);
        }
    }
    if (rc >= 0) {
        rc = report_set(&dedup, output, err);
    }
    fm_ops_near_destroy(dedup.near);
    fm_map_destroy(dedup.seen);
    fm_map_destroy(dedup.clusters);
    fm_json_drop(dedup.items);
    fm_json_drop(dedup.cluster_list);
    return rc;
}
