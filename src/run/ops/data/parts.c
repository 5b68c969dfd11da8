/* SPDX-License-Identifier: Apache-2.0 */
/*
 * split, shard, concat and sample: which records go where
 * (docs/spec/workflow.md §6.11).
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "base/mem.h"
#include "run/ops/data/choose.h"
#include "run/ops/data/records.h"
#include "run/ops/field.h"
#include "run/ops/internal.h"

#define SEED_MAX (INT64_C(1) << 53)

/* Take a reference to a list into the output. */
static fm_status_t items_set(fm_ops_output_t *output, fm_json_t *items,
                             fm_error_t *err)
{
    if (!items || !(output->value = fm_json_object()) ||
        fm_json_set(output->value, "items", fm_json_keep(items)) < 0) {
        return fm_no_memory(err);
    }
    return FM_OK;
}

static fm_status_t record_add(fm_json_t *items, const fm_json_t *records,
                              size_t index, fm_error_t *err)
{
    return fm_json_append(items, fm_json_keep(fm_json_at(records, index))) < 0
               ? fm_no_memory(err)
               : FM_OK;
}

/* --- split --------------------------------------------------------------- */

typedef struct split {
    fm_ops_split_t split;
    fm_ops_part_t parts[OPS_PARTS_MAX];
    const char *names[OPS_PARTS_MAX];
    size_t *strata;
} split_t;

static fm_status_t part_parse(split_t *split, const fm_json_t *source,
                              size_t index, bool *by_count, bool *by_fraction,
                              fm_error_t *err)
{
    fm_ops_part_t *part = &split->parts[index];
    const fm_json_t *fraction = fm_json_get(source, "fraction");
    const fm_json_t *count = fm_json_get(source, "count");
    bool has_fraction = fraction && !fm_json_is(fraction, FM_JSON_NULL);
    bool has_count = count && !fm_json_is(count, FM_JSON_NULL);
    int64_t number = 0;
    fm_status_t rc =
        fm_ops_get_text(source, "name", NULL, &split->names[index], err);

    for (size_t i = 0; rc >= 0 && i < index; i++) {
        if (strcmp(split->names[i], split->names[index]) == 0) {
            rc = fm_error_set(err, FM_ERR_INVALID,
                              "name: %.80s is taken by another part",
                              split->names[index]);
        }
    }
    if (rc >= 0) {
        rc = fm_ops_get_int(source, "count", 0, OPS_RECORDS_MAX, 0, &number,
                            err);
    }
    if (rc >= 0) {
        rc = fm_ops_get_real(source, "fraction", 0, 1, 0, &part->fraction, err);
    }
    if (rc < 0) {
        return rc;
    }
    if ((has_fraction && has_count) || (has_fraction && part->fraction <= 0)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "a count, or a fraction above 0, is allowed");
    }
    part->count = (size_t)number;
    part->rest = !has_fraction && !has_count;
    *by_count |= has_count;
    *by_fraction |= has_fraction;
    return FM_OK;
}

static fm_status_t parts_parse(split_t *split, const fm_json_t *list,
                               fm_error_t *err)
{
    bool by_count = false, by_fraction = false;
    size_t rests = 0;

    split->split.part_count = fm_json_len(list);
    split->split.parts = split->parts;
    if (!fm_json_is(list, FM_JSON_ARRAY) || split->split.part_count < 1 ||
        split->split.part_count > OPS_PARTS_MAX) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "parts: a list of 1 to %u is needed",
                            OPS_PARTS_MAX);
    }
    for (size_t i = 0; i < split->split.part_count; i++) {
        fm_status_t rc = part_parse(split, fm_json_at(list, i), i, &by_count,
                                    &by_fraction, err);
        if (rc < 0) {
            fm_error_wrap(err, "parts[%zu]", i);
            return rc;
        }
        rests += split->parts[i].rest;
    }
    if (rests > 1 || (by_count && by_fraction)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "parts: all by count or all by fraction, at most "
                            "one with neither");
    }
    split->split.by_count = by_count;
    return FM_OK;
}

/* Number the values of a field in order of first occurrence. */
static fm_status_t strata_number(split_t *split, const char *field,
                                 const fm_json_t *records, fm_error_t *err)
{
    size_t count = fm_json_len(records), next = 0;
    fm_map_t *seen = fm_map_create();
    fm_status_t rc = FM_OK;

    if (!seen ||
        !(split->strata = fm_calloc(count + 1, sizeof(*split->strata)))) {
        rc = fm_no_memory(err);
    }
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        const fm_json_t *value = fm_ops_field(fm_json_at(records, i), field);
        char *text = value ? fm_json_canonical(value) : fm_strdup("");
        if (!text) {
            rc = fm_no_memory(err);
            break;
        }
        fm_digest_t digest = fm_sha256(text, strlen(text));
        free(text);
        const uint64_t *number = fm_map_get(seen, &digest);
        split->strata[i] = number ? (size_t)*number : next;
        if (!number) {
            rc = fm_map_put(seen, &digest, next++, err);
        }
    }
    split->split.strata = split->strata;
    split->split.stratum_count = next ? next : 1;
    fm_map_destroy(seen);
    return rc;
}

static fm_status_t split_parse(split_t *split, const fm_json_t *params,
                               const fm_json_t *records, fm_error_t *err)
{
    const char *stratify = NULL;
    int64_t seed = 0;
    fm_status_t rc;

    if ((rc = parts_parse(split, fm_json_get(params, "parts"), err)) < 0 ||
        (rc = fm_ops_get_int(params, "seed", 0, SEED_MAX, 0, &seed, err)) < 0 ||
        (rc = fm_ops_get_text(params, "stratify", "", &stratify, err)) < 0) {
        return rc;
    }
    split->split.shuffle = fm_json_get_bool(params, "shuffle", true);
    split->split.seed = (uint64_t)seed;
    split->split.stratum_count = 1;
    if (!*stratify) {
        return FM_OK;
    }
    if (split->split.by_count) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "stratify: wants parts by fraction");
    }
    return strata_number(split, stratify, records, err);
}

/* Records part after part, and where each part lies. */
static fm_status_t split_report(const split_t *split, const fm_json_t *records,
                                const uint8_t *part, fm_ops_output_t *output,
                                fm_error_t *err)
{
    fm_json_t *items = fm_json_array(), *parts = fm_json_object();
    fm_json_t *sizes = fm_json_object(), *report = fm_json_object();
    fm_status_t rc =
        items && parts && sizes && report ? FM_OK : fm_no_memory(err);

    for (size_t p = 0; rc >= 0 && p < split->split.part_count; p++) {
        fm_json_t *range = fm_json_array();
        size_t from = fm_json_len(items);
        for (size_t i = 0; rc >= 0 && i < fm_json_len(records); i++) {
            if (part[i] == p) {
                rc = record_add(items, records, i, err);
            }
        }
        size_t to = fm_json_len(items);
        if (rc >= 0 &&
            (!range || fm_json_append(range, fm_json_int((int64_t)from)) < 0 ||
             fm_json_append(range, fm_json_int((int64_t)to)) < 0 ||
             fm_json_set(parts, split->names[p], fm_json_keep(range)) < 0 ||
             fm_json_set(sizes, split->names[p],
                         fm_json_int((int64_t)(to - from))) < 0)) {
            rc = fm_no_memory(err);
        }
        fm_json_drop(range);
    }
    if (rc >= 0 && (rc = items_set(output, items, err)) >= 0 &&
        (fm_json_set(output->value, "parts", fm_json_keep(parts)) < 0 ||
         fm_json_set(report, "sizes", fm_json_keep(sizes)) < 0 ||
         fm_json_set(output->value, "report", fm_json_keep(report)) < 0)) {
        rc = fm_no_memory(err);
    }
    fm_json_drop(items);
    fm_json_drop(parts);
    fm_json_drop(sizes);
    fm_json_drop(report);
    return rc;
}

fm_status_t fm_ops_split_records(fm_ops_run_t *run, size_t item,
                                 fm_ops_output_t *output, fm_error_t *err)
{
    const fm_json_t *records = NULL;
    split_t split = {0};
    uint8_t *part = NULL;
    fm_status_t rc =
        fm_ops_records(run->values[item], "records", &records, err);

    if (rc < 0 || (rc = split_parse(&split, run->params, records, err)) < 0) {
        goto out;
    }
    if (!(part = fm_calloc(fm_json_len(records) + 1, 1))) {
        rc = fm_no_memory(err);
        goto out;
    }
    if ((rc = fm_ops_split(&split.split, fm_json_len(records), part, err)) >=
        0) {
        rc = split_report(&split, records, part, output, err);
    }
out:
    free(part);
    free(split.strata);
    return rc;
}

/* --- shard, concat ------------------------------------------------------- */

fm_status_t fm_ops_shard(fm_ops_run_t *run, size_t item,
                         fm_ops_output_t *output, fm_error_t *err)
{
    bool contiguous = fm_json_get_bool(run->params, "contiguous", false);
    fm_json_t *items = fm_json_array();
    const fm_json_t *records = NULL;
    int64_t index = 0, count = 0;
    fm_status_t rc = items ? FM_OK : fm_no_memory(err);

    if (rc < 0 ||
        (rc = fm_ops_get_int(run->params, "count", 1, OPS_RECORDS_MAX, 0,
                             &count, err)) < 0 ||
        (rc = fm_ops_get_int(run->params, "index", 0, count - 1, -1, &index,
                             err)) < 0 ||
        (rc = fm_ops_records(run->values[item], "records", &records, err)) <
            0) {
        goto out;
    }
    size_t n = fm_json_len(records), of = (size_t)count, at = (size_t)index;
    size_t from = contiguous ? n * at / of : at;
    size_t to = contiguous ? n * (at + 1) / of : n;
    for (size_t i = from; rc >= 0 && i < to; i += contiguous ? 1 : of) {
        rc = record_add(items, records, i, err);
    }
    if (rc >= 0) {
        rc = items_set(output, items, err);
    }
out:
    fm_json_drop(items);
    return rc;
}

fm_status_t fm_ops_concat(fm_ops_run_t *run, size_t item,
                          fm_ops_output_t *output, fm_error_t *err)
{
    const fm_json_t *lists = NULL;
    fm_json_t *items = fm_json_array();
    fm_status_t rc = items ? FM_OK : fm_no_memory(err);

    if (rc >= 0) {
        rc = fm_ops_records(run->values[item], "lists", &lists, err);
    }
    for (size_t i = 0; rc >= 0 && i < fm_json_len(lists); i++) {
        const fm_json_t *list = fm_json_at(lists, i);
        if (!fm_json_is(list, FM_JSON_ARRAY) ||
            fm_json_len(list) > OPS_RECORDS_MAX - fm_json_len(items)) {
            rc = fm_error_set(err, FM_ERR_INVALID,
                              "lists[%zu]: lists of at most %u records "
                              "together are needed",
                              i, OPS_RECORDS_MAX);
        }
        for (size_t j = 0; rc >= 0 && j < fm_json_len(list); j++) {
            rc = record_add(items, list, j, err);
        }
    }
    if (rc >= 0) {
        rc = items_set(output, items, err);
    }
    fm_json_drop(items);
    return rc;
}

/* --- sample -------------------------------------------------------------- */

static fm_status_t weights_read(const char *field, const fm_json_t *records,
                                double *weights, fm_error_t *err)
{
    for (size_t i = 0; i < fm_json_len(records); i++) {
        const fm_json_t *value = fm_ops_field(fm_json_at(records, i), field);
        weights[i] = fm_json_real_or(value, -1);
        if (!(weights[i] >= 0) || !isfinite(weights[i])) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "records[%zu]: %.80s: a weight, a number from "
                                "0 on, is needed",
                                i, field);
        }
    }
    return FM_OK;
}

static fm_status_t wanted_read(const fm_json_t *params, size_t count,
                               size_t *wanted_out, fm_error_t *err)
{
    int64_t wanted = -1;
    double fraction = -1;
    fm_status_t rc;

    if ((rc = fm_ops_get_int(params, "count", 0, OPS_RECORDS_MAX, 0, &wanted,
                             err)) < 0 ||
        (rc = fm_ops_get_real(params, "fraction", 0, 1, 0, &fraction, err)) <
            0) {
        return rc;
    }
    bool by_count = fm_json_is(fm_json_get(params, "count"), FM_JSON_INT);
    bool by_fraction = fm_json_is_number(fm_json_get(params, "fraction"));
    if (by_count == by_fraction) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "either a count or a fraction is needed");
    }
    *wanted_out =
        by_count ? (size_t)wanted : (size_t)llround((double)count * fraction);
    return FM_OK;
}

fm_status_t fm_ops_sample_records(fm_ops_run_t *run, size_t item,
                                  fm_ops_output_t *output, fm_error_t *err)
{
    fm_json_t *items = fm_json_array();
    const fm_json_t *records = NULL;
    const char *field = NULL;
    double *weights = NULL;
    bool *kept = NULL;
    size_t wanted = 0;
    int64_t seed = 0;
    fm_status_t rc =
        fm_ops_records(run->values[item], "records", &records, err);
    size_t count = fm_json_len(records);

    if (rc < 0 || (rc = wanted_read(run->params, count, &wanted, err)) < 0 ||
        (rc = fm_ops_get_int(run->params, "seed", 0, SEED_MAX, 0, &seed, err)) <
            0 ||
        (rc = fm_ops_get_text(run->params, "weights", "", &field, err)) < 0) {
        goto out;
    }
    weights = fm_calloc(count + 1, sizeof(*weights));
    kept = fm_calloc(count + 1, sizeof(*kept));
    if (!items || !weights || !kept) {
        rc = fm_no_memory(err);
        goto out;
    }
    if ((*field && (rc = weights_read(field, records, weights, err)) < 0) ||
        (rc = fm_ops_sample((uint64_t)seed, *field ? weights : NULL, count,
                            wanted, kept, err)) < 0) {
        goto out;
    }
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        if (kept[i]) {
            rc = record_add(items, records, i, err);
        }
    }
    if (rc >= 0) {
        rc = items_set(output, items, err);
    }
out:
    free(weights);
    free(kept);
    fm_json_drop(items);
    return rc;
}
