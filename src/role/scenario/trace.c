/* SPDX-License-Identifier: Apache-2.0 */
/* Reading traces (trace.h): gzip behind zlib, then lines of one format. */
#include "role/scenario/trace.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/map.h"
#include "base/mem.h"

#define FIELDS_MAX 32u
#define LINE_BYTES_MAX (1u << 20)
#define READ_BYTES (1u << 18)

/* A trace being read, line by line. */
typedef struct reader {
    const fm_trace_options_t *options;
    const char *name;
    size_t line;
    fm_error_t *err;
    fm_trace_t trace;
    size_t row_capacity, user_capacity, model_capacity;
    fm_strmap_t *users, *models;
    size_t columns[8]; /* of the header, by the format's list of names */
} reader_t;

static fm_status_t fail(const reader_t *r, const char *text)
{
    return fm_error_set(r->err, FM_ERR_CORRUPT, "%s:%zu: %s", r->name, r->line,
                        text);
}

/* --- fields --------------------------------------------------------------- */

/* Cut a line of CSV at its commas, in place; these formats quote nothing. */
static size_t split(char *line, char **fields)
{
    size_t count = 0;

    while (line && count < FIELDS_MAX) {
        fields[count++] = line;
        if ((line = strchr(line, ','))) {
            *line++ = '\0';
        }
    }
    return count;
}

static bool number(const char *text, double most, double *out)
{
    char *end = NULL;
    double value = strtod(text, &end);

    if (end == text || *end != '\0' || !(value >= 0 && value <= most)) {
        return false;
    }
    *out = value;
    return true;
}

/* Days from 1970-01-01 of a proleptic Gregorian date. */
static int64_t days_from_civil(int64_t year, int64_t month, int64_t day)
{
    year -= month <= 2;
    int64_t era = year / 400;
    int64_t of_era = year - era * 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;

    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year -
           719468;
}

/* "2023-11-16 18:17:03.9799600" */
static bool date(const char *text, double *out)
{
    static const char shape[] = "dddd-dd-dd dd:dd:dd";
    double fraction = 0;
    int64_t part[6] = {0};
    size_t at = 0;

    for (size_t i = 0; shape[i]; i++) {
        bool digit = text[i] >= '0' && text[i] <= '9';
        if (shape[i] == 'd' ? !digit : text[i] != shape[i]) {
            return false;
        }
        at += shape[i] != 'd';
        part[at] = digit ? part[at] * 10 + (text[i] - '0') : part[at];
    }
    text += sizeof(shape) - 1;
    if (*text && (*text != '.' || !number(text, 1, &fraction))) {
        return false;
    }
    if (part[0] < 1970 || part[1] < 1 || part[1] > 12 || part[2] < 1 ||
        part[2] > 31 || part[3] > 23 || part[4] > 59 || part[5] > 60) {
        return false;
    }
    *out = (double)(days_from_civil(part[0], part[1], part[2]) * 86400 +
                    part[3] * 3600 + part[4] * 60 + part[5]) +
           fraction;
    return true;
}

/* Index of @p name, which is added when it is new. */
static fm_status_t intern(const reader_t *r, const char *name,
                          fm_strmap_t *index, char ***names, size_t *count,
                          size_t *capacity, uint32_t *out)
{
    const uint64_t *found = fm_strmap_get(index, name);
    fm_status_t rc = FM_OK;

    if (found) {
        *out = (uint32_t)*found;
        return FM_OK;
    }
    if (*count == FM_TRACE_NAMES_MAX) {
        return fm_error_set(r->err, FM_ERR_LIMIT,
                            "%s:%zu: more than %u users or models; take fewer "
                            "rows (trace.limit)",
                            r->name, r->line, FM_TRACE_NAMES_MAX);
    }
    if ((rc = fm_grow(names, capacity, *count, sizeof(**names), r->err)) < 0 ||
        (rc = fm_strmap_put(index, name, *count, r->err)) < 0) {
        return rc;
    }
    if (!((*names)[*count] = fm_strdup(name))) {
        return fm_no_memory(r->err);
    }
    *out = (uint32_t)(*count)++;
    return FM_OK;
}

/* --- formats -------------------------------------------------------------- */

static const char *const azure_columns[] = {"TIMESTAMP", "ContextTokens",
                                            "GeneratedTokens", NULL};
static const char *const alibaba_columns[] = {
    "gmt_create", "exec_time_seconds", "groupId", "checkpoint_model_version_id",
    NULL};

static const char *const *columns_of(fm_trace_format_t format)
{
    return format == FM_TRACE_AZURE          ? azure_columns
           : format == FM_TRACE_ALIBABA_LORA ? alibaba_columns
                                             : NULL;
}

static fm_status_t read_header(reader_t *r, char *line)
{
    const char *const *wanted = columns_of(r->options->format);
    char *fields[FIELDS_MAX];
    size_t count = split(line, fields);

    for (size_t i = 0; wanted[i]; i++) {
        size_t k = 0;
        while (k < count && strcmp(fields[k], wanted[i]) != 0) {
            k++;
        }
        if (k == count) {
            return fm_error_set(r->err, FM_ERR_CORRUPT,
                                "%s:%zu: no column %s: is this the format "
                                "that trace.format names?",
                                r->name, r->line, wanted[i]);
        }
        r->columns[i] = k;
    }
    return FM_OK;
}

static fm_status_t read_azure(reader_t *r, char **fields, fm_trace_row_t *row)
{
    row->content = r->line;
    return date(fields[r->columns[0]], &row->at_s) &&
                   number(fields[r->columns[1]], 1e9, &row->tokens_in) &&
                   number(fields[r->columns[2]], 1e9, &row->tokens_out)
               ? FM_OK
               : fail(r, "a time or a count of tokens is malformed");
}

static fm_status_t read_alibaba(reader_t *r, char **fields, fm_trace_row_t *row)
{
    fm_trace_t *t = &r->trace;
    fm_status_t rc = FM_OK;

    row->content = r->line;
    if (!date(fields[r->columns[0]], &row->at_s) ||
        !number(fields[r->columns[1]], 1e7, &row->seconds)) {
        return fail(r, "gmt_create or exec_time_seconds is malformed");
    }
    if ((rc = intern(r, fields[r->columns[2]], r->users, &t->users,
                     &t->user_count, &r->user_capacity, &row->user)) < 0) {
        return rc;
    }
    return intern(r, fields[r->columns[3]], r->models, &t->models,
                  &t->model_count, &r->model_capacity, &row->model);
}

/* Requests with the same blocks and lengths are the same request. */
static fm_status_t read_mooncake(reader_t *r, const char *line,
                                 fm_trace_row_t *row)
{
    fm_json_t *json = NULL;
    fm_buf_t content = {0};
    fm_status_t rc = fm_json_parse(line, strlen(line), "line", &json, r->err);

    if (rc < 0) {
        fm_error_wrap(r->err, "%s:%zu", r->name, r->line);
        return rc == FM_ERR_INVALID ? FM_ERR_CORRUPT : rc;
    }
    const fm_json_t *blocks = fm_json_get(json, "hash_ids");
    row->at_s = fm_json_get_real(json, "timestamp", -1) / 1000;
    row->tokens_in = fm_json_get_real(json, "input_length", -1);
    row->tokens_out = fm_json_get_real(json, "output_length", -1);
    fm_buf_add_u64(&content, (uint64_t)fmax(0, row->tokens_in));
    fm_buf_add_u64(&content, (uint64_t)fmax(0, row->tokens_out));
    for (size_t i = 0; i < fm_json_len(blocks); i++) {
        fm_buf_add_u64(&content,
                       (uint64_t)fm_json_int_or(fm_json_at(blocks, i), 0));
    }
    row->content = content.failed ? 0 : fm_hash64(content.data, content.len);
    rc = content.failed ? fm_no_memory(r->err)
         : row->at_s >= 0 && row->at_s < 1e12 && row->tokens_in >= 0 &&
                 row->tokens_in <= 1e9 && row->tokens_out >= 0 &&
                 row->tokens_out <= 1e9
             ? FM_OK
             : fail(r, "timestamp, input_length or output_length is missing or "
                       "malformed");
    fm_buf_fini(&content);
    fm_json_drop(json);
    return rc;
}

/* --- lines ---------------------------------------------------------------- */

static fm_status_t read_line(reader_t *r, char *line)
{
    fm_trace_format_t format = r->options->format;
    fm_trace_row_t row = {0};
    char *fields[FIELDS_MAX];
    fm_status_t rc = FM_OK;

    if (columns_of(format) && r->line == 1) {
        return read_header(r, line);
    }
    if (format == FM_TRACE_MOONCAKE) {
        rc = read_mooncake(r, line, &row);
    } else {
        size_t count = split(line, fields);
        for (size_t i = 0; columns_of(format)[i]; i++) {
            if (r->columns[i] >= count) {
                return fail(r, "fewer fields than the header names");
            }
        }
        rc = format == FM_TRACE_AZURE ? read_azure(r, fields, &row)
                                      : read_alibaba(r, fields, &row);
    }
    if (rc == FM_OK) {
        rc = fm_grow(&r->trace.rows, &r->row_capacity, r->trace.count,
                     sizeof(row), r->err);
    }
    if (rc == FM_OK) {
        r->trace.rows[r->trace.count++] = row;
    }
    return rc;
}

static fm_status_t read_lines(reader_t *r, const char *text, size_t len)
{
    fm_status_t rc = FM_OK;
    char *line = NULL;

    for (size_t at = 0; at < len && rc == FM_OK;) {
        const char *end = memchr(text + at, '\n', len - at);
        size_t bytes = end ? (size_t)(end - text) - at : len - at;
        size_t kept =
            bytes > 0 && text[at + bytes - 1] == '\r' ? bytes - 1 : bytes;
        r->line++;
        if (kept > LINE_BYTES_MAX || memchr(text + at, '\0', kept)) {
            return fail(r, "a line of more than 1 MiB, or with a NUL");
        }
        if (kept > 0) {
            if (!(line = fm_strndup(text + at, kept))) {
                return fm_no_memory(r->err);
            }
            rc = read_line(r, line);
            free(line);
        }
        at += bytes + 1;
    }
    return rc;
}

static int by_time(const void *a, const void *b)
{
    const fm_trace_row_t *x = a;
    const fm_trace_row_t *y = b;

    if (x->at_s != y->at_s) {
        return x->at_s < y->at_s ? -1 : 1;
    }
    return x->content < y->content ? -1 : x->content > y->content;
}

/* Rows in order of time, those asked for, from their own start. */
static fm_status_t choose(reader_t *r)
{
    const fm_trace_options_t *o = r->options;
    fm_trace_t *t = &r->trace;
    size_t first = 0;

    if (t->count > 0) {
        qsort(t->rows, t->count, sizeof(*t->rows), by_time);
    }
    while (first < t->count &&
           t->rows[first].at_s - t->rows[0].at_s < o->skip_s) {
        first++;
    }
    if (first == t->count) {
        return fm_error_set(r->err, FM_ERR_CORRUPT, "%s: no rows%s", r->name,
                            t->count ? " after trace.skip" : "");
    }
    t->count = t->count - first < o->limit ? t->count - first : o->limit;
    memmove(t->rows, t->rows + first, t->count * sizeof(*t->rows));
    double start = t->rows[0].at_s;
    for (size_t i = 0; i < t->count; i++) {
        t->rows[i].at_s = (t->rows[i].at_s - start) / o->speed;
    }
    return FM_OK;
}

fm_status_t fm_trace_parse(const char *text, size_t len, const char *name,
                           const fm_trace_options_t *options, fm_trace_t *out,
                           fm_error_t *err)
{
    reader_t r = {.options = options,
                  .name = name,
                  .err = err,
                  .users = fm_strmap_create(),
                  .models = fm_strmap_create()};
    fm_status_t rc =
        r.users && r.models ? read_lines(&r, text, len) : fm_no_memory(err);

    if (rc == FM_OK && (rc = choose(&r)) == FM_OK) {
        *out = r.trace;
        r.trace = (fm_trace_t){0};
    }
    fm_trace_fini(&r.trace);
    fm_strmap_destroy(r.users);
    fm_strmap_destroy(r.models);
    return rc;
}

/* --- files ---------------------------------------------------------------- */

static fm_status_t unpack(gzFile file, const char *path, fm_buf_t *out,
                          fm_error_t *err)
{
    int got = 0;

    do {
        uint8_t *room = fm_buf_reserve(out, READ_BYTES);
        if (!room) {
            return fm_no_memory(err);
        }
        if ((got = gzread(file, room, READ_BYTES)) < 0) {
            int code = 0;
            return fm_error_set(err, FM_ERR_CORRUPT, "%s: %s", path,
                                gzerror(file, &code));
        }
        out->len += (size_t)got;
        if (out->len > FM_TRACE_BYTES_MAX) {
            return fm_error_set(err, FM_ERR_LIMIT,
                                "%s: more than %u MiB when unpacked", path,
                                FM_TRACE_BYTES_MAX >> 20);
        }
    } while (got > 0);
    return FM_OK;
}

fm_status_t fm_trace_read(const char *path, const fm_trace_options_t *options,
                          fm_trace_t *out, fm_error_t *err)
{
    fm_buf_t text = {0};
    gzFile file = gzopen(path, "rb");

    if (!file) {
        return errno == ENOENT
                   ? fm_error_set(err, FM_ERR_NOT_FOUND,
                                  "%s: no such trace; name yours with --trace "
                                  "FILE or trace.path",
                                  path)
                   : fm_error_set_errno(err, FM_ERR_IO, errno ? errno : ENOMEM,
                                        "open %s", path);
    }
    fm_status_t rc = unpack(file, path, &text, err);
    if (gzclose(file) != Z_OK && rc == FM_OK) { /* a torn end shows here */
        rc = fm_error_set(err, FM_ERR_CORRUPT, "%s: the gzip data ends early",
                          path);
    }
    if (rc == FM_OK) {
        rc = fm_trace_parse(text.data ? (const char *)text.data : "", text.len,
                            path, options, out, err);
    }
    fm_buf_fini(&text);
    return rc;
}

void fm_trace_fini(fm_trace_t *trace)
{
    for (size_t i = 0; i < trace->user_count; i++) {
        free(trace->users[i]);
    }
    for (size_t i = 0; i < trace->model_count; i++) {
        free(trace->models[i]);
    }
    free(trace->users);
    free(trace->models);
    free(trace->rows);
    *trace = (fm_trace_t){0};
}
