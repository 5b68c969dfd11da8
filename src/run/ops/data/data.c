/* SPDX-License-Identifier: Apache-2.0 */
/*
 * data_retrieval: a stored file to records (docs/spec/workflow.md §6.2):
 * parse, part, shuffle, slice, columns, in this order.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "run/ops/data/choose.h"
#include "run/ops/data/records.h"
#include "run/ops/internal.h"
#include "store/table/table.h"

#define CHUNK_BYTES_MAX (INT64_C(1) << 20)

/* The table of an HDF5 file; path: params.dataset. */
static fm_status_t table_read(fm_ops_run_t *run, const fm_buf_t *bytes,
                              fm_json_t *list, fm_error_t *err)
{
    const char *path = NULL;
    fm_buf_t lines = {0};
    fm_status_t rc = fm_ops_get_text(run->params, "dataset", NULL, &path, err);

    if (rc >= 0 &&
        (rc = fm_table_read(bytes->data, bytes->len, path, &lines, err)) >= 0) {
        rc = fm_ops_records_parse("jsonl", (const char *)lines.data, lines.len,
                                  0, 0, list, err);
    }
    fm_buf_fini(&lines);
    return rc;
}

static fm_status_t records_read(fm_ops_run_t *run, fm_json_t *list,
                                fm_error_t *err)
{
    const fm_json_t *chunk = fm_json_get(run->params, "chunk");
    const char *format;
    int64_t window = 0, stride = 0;
    fm_digest_t digest;
    fm_buf_t bytes = {0};
    fm_status_t rc;

    if ((rc = fm_ops_get_text(run->params, "format", NULL, &format, err)) < 0) {
        return rc;
    }
    if (fm_json_is(chunk, FM_JSON_OBJECT) &&
        ((rc = fm_ops_get_int(chunk, "bytes", 1, CHUNK_BYTES_MAX, 512, &window,
                              err)) < 0 ||
         (rc = fm_ops_get_int(chunk, "stride", 1, CHUNK_BYTES_MAX, window,
                              &stride, err)) < 0)) {
        fm_error_wrap(err, "chunk");
        return rc;
    }
    if ((rc = fm_ops_get_digest(fm_json_get(run->params, "file"), "digest",
                                &digest, err)) < 0) {
        fm_error_wrap(err, "file");
        return rc;
    }
    uint64_t size = 0;
    if (fm_cas_size(run->ops->cas, &digest, NULL, &size) &&
        size > OPS_VALUE_BYTES_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "file: %llu bytes; at most %zu are read",
                            (unsigned long long)size, OPS_VALUE_BYTES_MAX);
    }
    if ((rc = fm_cas_get(run->ops->cas, &digest, &bytes, err)) >= 0 &&
        bytes.len > OPS_VALUE_BYTES_MAX) { /* not known above */
        rc = fm_error_set(err, FM_ERR_LIMIT, "file: at most %zu bytes are read",
                          OPS_VALUE_BYTES_MAX);
    } else if (rc >= 0) {
        rc = strcmp(format, "hdf5") == 0
                 ? table_read(run, &bytes, list, err)
                 : fm_ops_records_parse(format, (const char *)bytes.data,
                                        bytes.len, (size_t)window,
                                        (size_t)stride, list, err);
        if (rc < 0) {
            fm_error_wrap(err, "%s file", format);
        }
    }
    fm_buf_fini(&bytes);
    return rc;
}

/* Which records are kept: indices into the list, in their new order. */
typedef struct choice {
    size_t *index;
    size_t count;
} choice_t;

/* Keep the train or test part, in file order. */
static fm_status_t part_choose(const char *part, double fraction, uint64_t seed,
                               choice_t *choice, fm_error_t *err)
{
    bool test = strcmp(part, "test") == 0;
    size_t tests = (size_t)llround((double)choice->count * fraction);

    if (strcmp(part, "all") == 0) {
        return FM_OK;
    }
    if (!test && strcmp(part, "train") != 0) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "split.part: all, train or test is allowed");
    }
    size_t *order = fm_calloc(choice->count + 1, sizeof(*order));
    bool *in_test = fm_calloc(choice->count + 1, sizeof(*in_test));
    if (!order || !in_test) {
        free(order);
        free(in_test);
        return fm_no_memory(err);
    }
    fm_ops_permute(seed, order, choice->count);
    for (size_t i = 0; i < tests && i < choice->count; i++) {
        in_test[order[i]] = true;
    }
    size_t kept = 0;
    for (size_t i = 0; i < choice->count; i++) {
        if (in_test[i] == test) {
            choice->index[kept++] = choice->index[i];
        }
    }
    choice->count = kept;
    free(order);
    free(in_test);
    return FM_OK;
}

static fm_status_t shuffle(uint64_t seed, choice_t *choice, fm_error_t *err)
{
    size_t *order = fm_calloc(choice->count + 1, sizeof(*order));
    size_t *index = fm_calloc(choice->count + 1, sizeof(*index));

    if (!order || !index) {
        free(order);
        free(index);
        return fm_no_memory(err);
    }
    fm_ops_permute(seed, order, choice->count);
    for (size_t i = 0; i < choice->count; i++) {
        index[i] = choice->index[order[i]];
    }
    free(order);
    free(choice->index);
    choice->index = index;
    return FM_OK;
}

/* A bound in records or percent, negative ones from the end. */
static size_t bound(int64_t value, bool percent, size_t count)
{
    int64_t n = (int64_t)count;

    if (percent) {
        value = value < -100 ? -100 : value > 100 ? 100 : value;
        value = value * n / 100;
    }
    value = value < 0 ? value + n : value;
    return (size_t)(value < 0 ? 0 : value > n ? n : value);
}

static fm_status_t slice(const fm_json_t *split, choice_t *choice,
                         fm_error_t *err)
{
    const fm_json_t *to = fm_json_get(split, "to");
    bool ends = fm_json_is(to, FM_JSON_INT);
    const int64_t big = INT64_C(1) << 53;
    int64_t from = 0, until = 0;
    const char *unit;
    fm_status_t rc;

    if ((rc = fm_ops_get_int(split, "from", -big, big, 0, &from, err)) < 0 ||
        (rc = fm_ops_get_int(split, "to", -big, big, 0, &until, err)) < 0 ||
        (rc = fm_ops_get_text(split, "unit", "records", &unit, err)) < 0) {
        fm_error_wrap(err, "split");
        return rc;
    }
    bool percent = strcmp(unit, "percent") == 0;
    if (!percent && strcmp(unit, "records") != 0) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "split.unit: records or percent is allowed");
    }
    size_t start = bound(from, percent, choice->count);
    size_t end = ends ? bound(until, percent, choice->count) : choice->count;
    if (end <= start) {
        choice->count = 0;
        return FM_OK;
    }
    memmove(choice->index, choice->index + start,
            (end - start) * sizeof(*choice->index));
    choice->count = end - start;
    return FM_OK;
}

static fm_status_t choose(const fm_json_t *params, choice_t *choice,
                          fm_error_t *err)
{
    const fm_json_t *split = fm_json_get(params, "split");
    double fraction;
    int64_t seed;
    const char *part;
    fm_status_t rc;

    if ((rc = fm_ops_get_real(params, "test_fraction", 0, 0.999, 0, &fraction,
                              err)) < 0 ||
        (rc = fm_ops_get_int(params, "seed", 0, INT64_MAX - 1, 0, &seed, err)) <
            0 ||
        (rc = fm_ops_get_text(split, "part", "all", &part, err)) < 0 ||
        (rc = part_choose(part, fraction, (uint64_t)seed, choice, err)) < 0) {
        return rc;
    }
    if (fm_json_get_bool(params, "shuffle", false) &&
        (rc = shuffle((uint64_t)seed + 1, choice, err)) < 0) {
        return rc;
    }
    return slice(split, choice, err);
}

/* A record with only the named columns. */
static fm_status_t columns_keep(const fm_json_t *record,
                                const fm_json_t *columns,
                                fm_json_t **record_out, fm_error_t *err)
{
    fm_json_t *kept = fm_json_object();

    for (size_t i = 0; kept && i < fm_json_len(columns); i++) {
        const char *name = fm_json_str(fm_json_at(columns, i));
        fm_json_t *value = name ? fm_json_get(record, name) : NULL;
        if (!value) {
            fm_json_drop(kept);
            return fm_error_set(err, FM_ERR_INVALID,
                                "columns: a record has no %.80s",
                                name ? name : "such column");
        }
        if (fm_json_set(kept, name, fm_json_keep(value)) < 0) {
            kept = fm_json_drop(kept);
        }
    }
    *record_out = kept;
    return kept ? FM_OK : fm_no_memory(err);
}

static fm_status_t records_pick(const fm_json_t *list, const choice_t *choice,
                                const fm_json_t *columns, fm_json_t *out,
                                fm_error_t *err)
{
    for (size_t i = 0; i < choice->count; i++) {
        fm_json_t *record = fm_json_at(list, choice->index[i]);
        fm_status_t rc = FM_OK;

        if (fm_json_is(columns, FM_JSON_ARRAY)) {
            rc = columns_keep(record, columns, &record, err);
        } else {
            record = fm_json_keep(record);
        }
        if (rc >= 0 && fm_json_append(out, record) < 0) {
            rc = fm_no_memory(err);
        }
        if (rc < 0) {
            return rc;
        }
    }
    return FM_OK;
}

fm_status_t fm_ops_data_retrieval(fm_ops_run_t *run, size_t item,
                                  fm_ops_output_t *output, fm_error_t *err)
{
    fm_json_t *list = fm_json_array(), *picked = fm_json_array();
    choice_t choice = {0};
    fm_status_t rc;

    (void)item; /* the parameters say all */
    if (!list || !picked) {
        rc = fm_no_memory(err);
        goto out;
    }
    if ((rc = records_read(run, list, err)) < 0) {
        goto out;
    }
    choice.count = fm_json_len(list);
    if (!(choice.index = fm_calloc(choice.count + 1, sizeof(size_t)))) {
        rc = fm_no_memory(err);
        goto out;
    }
    for (size_t i = 0; i < choice.count; i++) {
        choice.index[i] = i;
    }
    if ((rc = choose(run->params, &choice, err)) < 0 ||
        (rc = records_pick(list, &choice, fm_json_get(run->params, "columns"),
                           picked, err)) < 0) {
        goto out;
    }
    if (!(output->value = fm_json_object()) ||
        fm_json_set(output->value, "items", fm_json_keep(picked)) < 0) {
        rc = fm_no_memory(err);
    }
out:
    free(choice.index);
    fm_json_drop(list);
    fm_json_drop(picked);
    return rc;
}
