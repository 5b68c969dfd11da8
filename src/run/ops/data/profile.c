/* SPDX-License-Identifier: Apache-2.0 */
/*
 * data_profiling: figures about records, column by column, so that memory is
 * that of one column (docs/spec/workflow.md, W65).
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "base/mem.h"
#include "run/ops/data/records.h"
#include "run/ops/field.h"
#include "run/ops/internal.h"

#define TOP_MAX 1000
#define QUANTILES_MAX 100
#define VALUE_BYTES 256 /* of a top value shown */

static const double quantiles_default[] = {0.01, 0.05, 0.25, 0.5,
                                           0.75, 0.95, 0.99};

typedef struct numbers {
    double *values;
    size_t count, capacity;
} numbers_t;

/* A distinct value: how often, and where first. */
typedef struct tally {
    uint64_t count;
    size_t first;
} tally_t;

typedef struct profile {
    const fm_json_t *records;
    double quantiles[QUANTILES_MAX];
    size_t quantile_count, top;
    /* Of the column at hand. */
    numbers_t numbers, bytes, characters, words;
    size_t empty, missing, types[FM_JSON_OBJECT + 1];
    fm_map_t *distinct; /* digest → place in tallies */
    tally_t *tallies;
    size_t tally_count, tally_capacity;
} profile_t;

static void column_clear(profile_t *profile)
{
    profile->numbers.count = profile->bytes.count = 0;
    profile->characters.count = profile->words.count = 0;
    profile->empty = profile->missing = profile->tally_count = 0;
    memset(profile->types, 0, sizeof(profile->types));
    profile->distinct = fm_map_destroy(profile->distinct);
}

static void profile_fini(profile_t *profile)
{
    column_clear(profile);
    free(profile->numbers.values);
    free(profile->bytes.values);
    free(profile->characters.values);
    free(profile->words.values);
    free(profile->tallies);
}

static fm_status_t number_add(numbers_t *numbers, double value, fm_error_t *err)
{
    fm_status_t rc = fm_grow(&numbers->values, &numbers->capacity,
                             numbers->count, sizeof(double), err);
    if (rc >= 0) {
        numbers->values[numbers->count++] = value;
    }
    return rc;
}

static fm_status_t value_tally(profile_t *profile, const fm_json_t *value,
                               size_t index, fm_error_t *err)
{
    char *text = fm_json_canonical(value);
    fm_status_t rc = FM_OK;

    if (!text) {
        return fm_no_memory(err);
    }
    fm_digest_t digest = fm_sha256(text, strlen(text));
    free(text);
    const uint64_t *place = fm_map_get(profile->distinct, &digest);
    if (place) {
        profile->tallies[*place].count++;
        return FM_OK;
    }
    if ((rc = fm_grow(&profile->tallies, &profile->tally_capacity,
                      profile->tally_count, sizeof(tally_t), err)) < 0 ||
        (rc = fm_map_put(profile->distinct, &digest, profile->tally_count,
                         err)) < 0) {
        return rc;
    }
    profile->tallies[profile->tally_count++] = (tally_t){1, index};
    return FM_OK;
}

static fm_status_t value_add(profile_t *profile, const fm_json_t *value,
                             size_t index, fm_error_t *err)
{
    const char *text = fm_json_str(value);
    size_t len = fm_json_str_len(value);
    fm_status_t rc = value_tally(profile, value, index, err);

    profile->types[fm_json_type(value)]++;
    if (rc >= 0 && fm_json_is_number(value)) {
        rc = number_add(&profile->numbers, fm_json_real_or(value, 0), err);
    }
    if (rc >= 0 && text) {
        size_t at = 0, start = 0, size = 0, words = 0;
        while (fm_ops_text_word(text, len, &at, &start, &size)) {
            words++;
        }
        profile->empty += len == 0;
        if ((rc = number_add(&profile->bytes, (double)len, err)) >= 0 &&
            (rc = number_add(&profile->characters,
                             (double)fm_ops_text_characters(text, len), err)) >=
                0) {
            rc = number_add(&profile->words, (double)words, err);
        }
    }
    return rc;
}

/* --- figures ------------------------------------------------------------- */

static int compare_reals(const void *a, const void *b)
{
    const double *left = a, *right = b;

    return *left < *right ? -1 : *left > *right;
}

/* Type 7 of Hyndman and Fan, Sample quantiles in statistical packages. */
static double quantile(const numbers_t *sorted, double at)
{
    double place = at * (double)(sorted->count - 1);
    size_t below = (size_t)place;
    double share = place - (double)below;

    if (below + 1 >= sorted->count) {
        return sorted->values[sorted->count - 1];
    }
    return sorted->values[below] * (1 - share) +
           sorted->values[below + 1] * share;
}

/* A real, or null where it is none: values near the end of the range. */
static fm_json_t *figure(double value)
{
    return isfinite(value) ? fm_json_real(value) : fm_json_null();
}

/* Mean and deviation; the sum is compensated (Neumaier 1974). */
static void moments(const numbers_t *numbers, double *mean_out, double *std_out)
{
    double sum = 0, lost = 0, squares = 0;

    for (size_t i = 0; i < numbers->count; i++) {
        double value = numbers->values[i], next = sum + value;
        lost += fabs(sum) >= fabs(value) ? (sum - next) + value
                                         : (value - next) + sum;
        sum = next;
    }
    *mean_out = (sum + lost) / (double)numbers->count;
    for (size_t i = 0; i < numbers->count; i++) {
        double gap = numbers->values[i] - *mean_out;
        squares += gap * gap;
    }
    *std_out = numbers->count > 1 ? sqrt(squares / (double)(numbers->count - 1))
                                  : INFINITY;
}

/* Sorts.  NULL: no memory; JSON null for no numbers. */
static fm_json_t *figures_make(const profile_t *profile, numbers_t *numbers)
{
    fm_json_t *figures = NULL, *quantiles = NULL;
    double mean = 0, std = 0;
    bool ok;

    if (numbers->count == 0) {
        return fm_json_null();
    }
    figures = fm_json_object();
    quantiles = fm_json_object();
    moments(numbers, &mean, &std);
    qsort(numbers->values, numbers->count, sizeof(double), compare_reals);
    ok = figures && quantiles &&
         fm_json_set(figures, "count", fm_json_int((int64_t)numbers->count)) >=
             0 &&
         fm_json_set(figures, "min", figure(numbers->values[0])) >= 0 &&
         fm_json_set(figures, "max",
                     figure(numbers->values[numbers->count - 1])) >= 0 &&
         fm_json_set(figures, "mean", figure(mean)) >= 0 &&
         fm_json_set(figures, "std", figure(std)) >= 0 &&
         fm_json_set(figures, "quantiles", fm_json_keep(quantiles)) >= 0;
    for (size_t i = 0; ok && i < profile->quantile_count; i++) {
        fm_json_t *at = fm_json_real(profile->quantiles[i]);
        char *name = at ? fm_json_canonical(at) : NULL;
        ok = name &&
             fm_json_set(quantiles, name,
                         figure(quantile(numbers, profile->quantiles[i]))) >= 0;
        free(name);
        fm_json_drop(at);
    }
    fm_json_drop(quantiles);
    return ok ? figures : fm_json_drop(figures);
}

static int compare_tallies(const void *a, const void *b)
{
    const tally_t *left = a, *right = b;

    if (left->count != right->count) {
        return left->count > right->count ? -1 : 1;
    }
    return left->first < right->first ? -1 : left->first > right->first;
}

/* {"value", "count"}; a long value is shown by its beginning. */
static fm_json_t *top_entry(const fm_json_t *value, uint64_t count)
{
    fm_json_t *entry = fm_json_object();
    char *text = fm_json_str(value)
                     ? fm_strndup(fm_json_str(value), fm_json_str_len(value))
                     : fm_json_canonical(value);
    size_t len =
        fm_json_str(value) ? fm_json_str_len(value) : (text ? strlen(text) : 0);
    bool cut = len > VALUE_BYTES;
    size_t size = VALUE_BYTES;

    while (cut && text && size > 0 &&
           ((unsigned char)text[size] & 0xc0) == 0x80) {
        size--;
    }
    bool ok = entry && text &&
              fm_json_set(entry, "value",
                          cut ? fm_json_stringn(text, size)
                              : fm_json_keep(value)) >= 0 &&
              fm_json_set(entry, "count", fm_json_int((int64_t)count)) >= 0 &&
              (!cut || fm_json_set(entry, "cut", fm_json_bool(true)) >= 0);
    free(text);
    return ok ? entry : fm_json_drop(entry);
}

static fm_json_t *top_make(profile_t *profile, const char *field)
{
    fm_json_t *top = fm_json_array();

    if (profile->tally_count > 0) {
        qsort(profile->tallies, profile->tally_count, sizeof(tally_t),
              compare_tallies);
    }
    for (size_t i = 0; top && i < profile->top && i < profile->tally_count;
         i++) {
        const tally_t *tally = &profile->tallies[i];
        const fm_json_t *value =
            fm_ops_field(fm_json_at(profile->records, tally->first), field);
        if (fm_json_append(top, top_entry(value, tally->count)) < 0) {
            top = fm_json_drop(top);
        }
    }
    return top;
}

static fm_json_t *types_make(const profile_t *profile)
{
    static const char *const names[] = {
        "null", "boolean", "integer", "number", "string", "list", "map"};
    fm_json_t *types = fm_json_object();

    for (size_t i = 0; types && i < FM_COUNT_OF(names); i++) {
        if (profile->types[i] > 0 &&
            fm_json_set(types, names[i],
                        fm_json_int((int64_t)profile->types[i])) < 0) {
            types = fm_json_drop(types);
        }
    }
    return types;
}

static fm_json_t *text_make(profile_t *profile)
{
    fm_json_t *text = NULL;

    if (profile->bytes.count == 0) {
        return fm_json_null();
    }
    text = fm_json_object();
    if (!text ||
        fm_json_set(text, "empty", fm_json_int((int64_t)profile->empty)) < 0 ||
        fm_json_set(text, "bytes", figures_make(profile, &profile->bytes)) <
            0 ||
        fm_json_set(text, "characters",
                    figures_make(profile, &profile->characters)) < 0 ||
        fm_json_set(text, "words", figures_make(profile, &profile->words)) <
            0) {
        return fm_json_drop(text);
    }
    return text;
}

static fm_status_t column_profile(profile_t *profile, const char *field,
                                  fm_json_t **column_out, fm_error_t *err)
{
    fm_json_t *column = fm_json_object();
    fm_status_t rc = FM_OK;

    column_clear(profile);
    if (!column || !(profile->distinct = fm_map_create())) {
        rc = fm_no_memory(err);
    }
    for (size_t i = 0; rc >= 0 && i < fm_json_len(profile->records); i++) {
        const fm_json_t *value =
            fm_ops_field(fm_json_at(profile->records, i), field);
        profile->missing += !value;
        rc = value ? value_add(profile, value, i, err) : FM_OK;
    }
    size_t distinct = profile->tally_count;
    if (rc >= 0 &&
        (fm_json_set(column, "types", types_make(profile)) < 0 ||
         fm_json_set(column, "missing",
                     fm_json_int((int64_t)profile->missing)) < 0 ||
         fm_json_set(column, "distinct", fm_json_int((int64_t)distinct)) < 0 ||
         fm_json_set(column, "numbers",
                     figures_make(profile, &profile->numbers)) < 0 ||
         fm_json_set(column, "text", text_make(profile)) < 0 ||
         fm_json_set(column, "top", top_make(profile, field)) < 0)) {
        rc = fm_no_memory(err);
    }
    if (rc < 0) {
        fm_json_drop(column);
        return rc;
    }
    *column_out = column;
    return FM_OK;
}

/* --- the operator -------------------------------------------------------- */

static fm_status_t options_parse(profile_t *profile, const fm_json_t *params,
                                 fm_error_t *err)
{
    const fm_json_t *list = fm_json_get(params, "quantiles");
    int64_t top = 0;
    fm_status_t rc = fm_ops_get_int(params, "top", 0, TOP_MAX, 10, &top, err);

    if (rc < 0) {
        return rc;
    }
    profile->top = (size_t)top;
    profile->quantile_count = FM_COUNT_OF(quantiles_default);
    memcpy(profile->quantiles, quantiles_default, sizeof(quantiles_default));
    if (!list || fm_json_is(list, FM_JSON_NULL)) {
        return FM_OK;
    }
    profile->quantile_count = fm_json_len(list);
    bool bad = !fm_json_is(list, FM_JSON_ARRAY) ||
               profile->quantile_count > QUANTILES_MAX;
    for (size_t i = 0; !bad && i < profile->quantile_count; i++) {
        double at = fm_json_real_or(fm_json_at(list, i), -1);
        bad = !(at >= 0 && at <= 1);
        profile->quantiles[i] = at;
    }
    return bad ? fm_error_set(err, FM_ERR_INVALID,
                              "quantiles: a list of at most %d numbers from 0 "
                              "to 1 is needed",
                              QUANTILES_MAX)
               : FM_OK;
}

/* All members of the records that are maps, as members of @p names. */
static fm_status_t names_collect(const profile_t *profile, fm_json_t *names,
                                 fm_error_t *err)
{
    for (size_t i = 0; i < fm_json_len(profile->records); i++) {
        const fm_json_t *record = fm_json_at(profile->records, i);
        void *iterator = NULL;
        const char *name = NULL;
        fm_json_t *value = NULL;
        bool map = fm_json_is(record, FM_JSON_OBJECT);
        if (fm_json_str(record) &&
            fm_json_set(names, "text", fm_json_null()) < 0) {
            return fm_no_memory(err);
        }
        while (map && fm_json_next(record, &iterator, &name, &value)) {
            if (!fm_json_get(names, name) &&
                fm_json_set(names, name, fm_json_null()) < 0) {
                return fm_no_memory(err);
            }
        }
        if (fm_json_len(names) > OPS_COLUMNS_MAX) {
            return fm_error_set(err, FM_ERR_LIMIT,
                                "more than %u columns; name the ones to look "
                                "at in columns",
                                OPS_COLUMNS_MAX);
        }
    }
    return FM_OK;
}

static fm_status_t names_make(const profile_t *profile,
                              const fm_json_t *columns, fm_json_t *names,
                              fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    if (!columns || fm_json_is(columns, FM_JSON_NULL)) {
        return names_collect(profile, names, err);
    }
    if (!fm_json_is(columns, FM_JSON_ARRAY) ||
        fm_json_len(columns) > OPS_COLUMNS_MAX) {
        rc = FM_ERR_INVALID;
    }
    for (size_t i = 0; rc >= 0 && i < fm_json_len(columns); i++) {
        const char *name = fm_json_str(fm_json_at(columns, i));
        if (!name) {
            rc = FM_ERR_INVALID;
        } else if (fm_json_set(names, name, fm_json_null()) < 0) {
            return fm_no_memory(err);
        }
    }
    return rc < 0 ? fm_error_set(err, rc,
                                 "columns: null, or a list of at most %u names",
                                 OPS_COLUMNS_MAX)
                  : FM_OK;
}

static fm_status_t columns_profile(fm_ops_run_t *run, profile_t *profile,
                                   const fm_json_t *names, fm_json_t *columns,
                                   fm_error_t *err)
{
    void *iterator = NULL;
    const char *name = NULL;
    fm_json_t *unused = NULL;
    fm_status_t rc = FM_OK;

    while (rc >= 0 && fm_json_next(names, &iterator, &name, &unused)) {
        fm_json_t *column = NULL;
        if ((rc = fm_ops_stopping(run, err)) >= 0 &&
            (rc = column_profile(profile, name, &column, err)) >= 0 &&
            fm_json_set(columns, name, column) < 0) {
            rc = fm_no_memory(err);
        }
    }
    return rc;
}

static fm_status_t duplicates_count(profile_t *profile, size_t *count_out,
                                    fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    column_clear(profile);
    if (!(profile->distinct = fm_map_create())) {
        return fm_no_memory(err);
    }
    for (size_t i = 0; rc >= 0 && i < fm_json_len(profile->records); i++) {
        rc = value_tally(profile, fm_json_at(profile->records, i), i, err);
    }
    *count_out = fm_json_len(profile->records) - profile->tally_count;
    return rc;
}

fm_status_t fm_ops_data_profiling(fm_ops_run_t *run, size_t item,
                                  fm_ops_output_t *output, fm_error_t *err)
{
    fm_json_t *names = fm_json_object(), *columns = fm_json_object();
    profile_t profile = {0};
    size_t duplicates = 0;
    fm_status_t rc = names && columns ? FM_OK : fm_no_memory(err);

    if (rc < 0 ||
        (rc = fm_ops_records(run->values[item], "records", &profile.records,
                             err)) < 0 ||
        (rc = options_parse(&profile, run->params, err)) < 0 ||
        (rc = names_make(&profile, fm_json_get(run->params, "columns"), names,
                         err)) < 0 ||
        (rc = columns_profile(run, &profile, names, columns, err)) < 0 ||
        (rc = duplicates_count(&profile, &duplicates, err)) < 0) {
        goto out;
    }
    int64_t count = (int64_t)fm_json_len(profile.records);
    if (!(output->value = fm_json_object()) ||
        fm_json_set(output->value, "records", fm_json_int(count)) < 0 ||
        fm_json_set(output->value, "duplicates",
                    fm_json_int((int64_t)duplicates)) < 0 ||
        fm_json_set(output->value, "columns", fm_json_keep(columns)) < 0) {
        rc = fm_no_memory(err);
    }
out:
    profile_fini(&profile);
    fm_json_drop(names);
    fm_json_drop(columns);
    return rc;
}
