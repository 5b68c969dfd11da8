/* SPDX-License-Identifier: Apache-2.0 */
/* Parsers of data files; every error names the line it is on. */
#include "run/ops/data/records.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"

/* Overlapping windows of one file, together. */
#define WINDOWS_BYTES_MAX ((size_t)1 << 30)

static fm_status_t record_add(fm_json_t *list, fm_json_t *record,
                              fm_error_t *err)
{
    if (fm_json_len(list) >= OPS_RECORDS_MAX) {
        fm_json_drop(record);
        return fm_error_set(err, FM_ERR_LIMIT, "more than %u records",
                            OPS_RECORDS_MAX);
    }
    return fm_json_append(list, record) < 0 ? fm_no_memory(err) : FM_OK;
}

static fm_status_t text_add(fm_json_t *list, const char *text, size_t len,
                            size_t line, fm_error_t *err)
{
    fm_json_t *record = fm_json_stringn(text, len);

    return record ? record_add(list, record, err)
                  : fm_error_set(err, FM_ERR_INVALID,
                                 "line %zu: not UTF-8 text; convert the file",
                                 line);
}

static bool blank(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (!strchr(" \t\r", text[i]) || !text[i]) {
            return false;
        }
    }
    return true;
}

/* The mark that editors and spreadsheets put in front of UTF-8. */
static size_t mark_skip(const char *text, size_t len)
{
    return len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
}

/* One record a line: JSON values or texts. */
static fm_status_t lines_parse(const char *text, size_t len, bool json,
                               fm_json_t *list, fm_error_t *err)
{
    size_t line = 1;

    for (size_t at = mark_skip(text, len); at < len; line++) {
        const char *end = memchr(text + at, '\n', len - at);
        size_t next = end ? (size_t)(end - text) : len;
        size_t size = next - at;
        fm_status_t rc = FM_OK;

        if (size > 0 && text[at + size - 1] == '\r') {
            size--;
        }
        if (!blank(text + at, size) && json) {
            fm_json_t *value = NULL;
            char what[32];
            (void)snprintf(what, sizeof(what), "line %zu", line);
            rc = fm_json_parse(text + at, size, what, &value, err);
            if (rc >= 0) {
                rc = record_add(list, value, err);
            }
        } else if (!blank(text + at, size)) {
            rc = text_add(list, text + at, size, line, err);
        }
        if (rc < 0) {
            return rc;
        }
        at = next + 1;
    }
    return FM_OK;
}

/* --- windows ------------------------------------------------------------- */

/* The nearest start of a character at or before @p at. */
static size_t boundary(const char *text, size_t len, size_t at)
{
    if (at >= len) {
        return len;
    }
    for (int i = 0; i < 3 && at > 0 && ((unsigned char)text[at] & 0xc0) == 0x80;
         i++) {
        at--;
    }
    return at;
}

static fm_status_t windows_parse(const char *text, size_t len, size_t window,
                                 size_t stride, fm_json_t *list,
                                 fm_error_t *err)
{
    size_t before = 0; /* end of the last window */
    size_t total = 0;

    for (size_t at = 0; at < len && before < len; at += stride) {
        size_t start = boundary(text, len, at);
        size_t end = boundary(text, len, window < len - at ? at + window : len);
        total += end - start;
        if (total > WINDOWS_BYTES_MAX) {
            return fm_error_set(err, FM_ERR_LIMIT,
                                "the windows hold more than %zu bytes "
                                "together; raise chunk.stride",
                                WINDOWS_BYTES_MAX);
        }
        if (end > start) {
            fm_json_t *record = fm_json_stringn(text + start, end - start);
            fm_status_t rc =
                record ? record_add(list, record, err)
                       : fm_error_set(err, FM_ERR_INVALID,
                                      "bytes %zu to %zu: not UTF-8 text", start,
                                      end);
            if (rc < 0) {
                return rc;
            }
            before = end;
        }
        if (stride > len - at) {
            break;
        }
    }
    return FM_OK;
}

/* --- CSV ----------------------------------------------------------------- */

typedef struct csv {
    const char *text;
    size_t len, at, line;
    char **fields; /* of the row */
    size_t *sizes;
    size_t count, capacity, size_capacity;
} csv_t;

static void row_clear(csv_t *csv)
{
    for (size_t i = 0; i < csv->count; i++) {
        free(csv->fields[i]);
    }
    csv->count = 0;
}

static fm_status_t field_add(csv_t *csv, const char *text, size_t len,
                             fm_error_t *err)
{
    fm_status_t rc;

    if (csv->count >= OPS_COLUMNS_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT, "line %zu: more than %u columns",
                            csv->line, OPS_COLUMNS_MAX);
    }
    if ((rc = fm_grow(&csv->fields, &csv->capacity, csv->count,
                      sizeof(*csv->fields), err)) < 0 ||
        (rc = fm_grow(&csv->sizes, &csv->size_capacity, csv->count,
                      sizeof(*csv->sizes), err)) < 0) {
        return rc;
    }
    char *copy = fm_malloc(len + 1);
    if (!copy) {
        return fm_no_memory(err);
    }
    if (len > 0) {
        memcpy(copy, text, len);
    }
    copy[len] = '\0';
    csv->fields[csv->count] = copy;
    csv->sizes[csv->count++] = len;
    return FM_OK;
}

/* After the opening quote; "" is one quote, line ends belong to the field. */
static fm_status_t quoted_parse(csv_t *csv, fm_error_t *err)
{
    size_t opened = csv->line;
    fm_buf_t field = {0};
    fm_status_t rc;

    for (;; csv->at++) {
        if (csv->at >= csv->len) {
            rc = fm_error_set(err, FM_ERR_INVALID,
                              "line %zu: a quote is never closed", opened);
            goto out;
        }
        char c = csv->text[csv->at];
        if (c == '"') {
            if (csv->at + 1 >= csv->len || csv->text[csv->at + 1] != '"') {
                break;
            }
            csv->at++;
        }
        csv->line += c == '\n';
        fm_buf_add_u8(&field, (uint8_t)c);
    }
    csv->at++;
    if (csv->at < csv->len &&
        (!csv->text[csv->at] || !strchr(",\r\n", csv->text[csv->at]))) {
        rc = fm_error_set(err, FM_ERR_INVALID,
                          "line %zu: text after a closing quote", csv->line);
        goto out;
    }
    rc = field.failed
             ? fm_no_memory(err)
             : field_add(csv, (const char *)field.data, field.len, err);
out:
    fm_buf_fini(&field);
    return rc;
}

static fm_status_t plain_parse(csv_t *csv, fm_error_t *err)
{
    size_t start = csv->at;

    while (csv->at < csv->len && csv->text[csv->at] != ',' &&
           csv->text[csv->at] != '\n') {
        if (csv->text[csv->at] == '"') {
            return fm_error_set(err, FM_ERR_INVALID,
                                "line %zu: a quote inside a field that does "
                                "not begin with one",
                                csv->line);
        }
        csv->at++;
    }
    size_t end = csv->at;
    if (end > start && csv->text[end - 1] == '\r' &&
        (end >= csv->len || csv->text[end] == '\n')) {
        end--;
    }
    if (end > start && memchr(csv->text + start, '\r', end - start)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "line %zu: a carriage return that ends no line; "
                            "lines end with LF or CR LF",
                            csv->line);
    }
    return field_add(csv, csv->text + start, end - start, err);
}

/* The next row; csv->count is its number of fields. */
static fm_status_t row_parse(csv_t *csv, fm_error_t *err)
{
    row_clear(csv);
    for (;;) {
        fm_status_t rc;
        if (csv->at < csv->len && csv->text[csv->at] == '"') {
            csv->at++;
            rc = quoted_parse(csv, err);
        } else {
            rc = plain_parse(csv, err);
        }
        if (rc < 0) {
            return rc;
        }
        if (csv->at < csv->len && csv->text[csv->at] == ',') {
            csv->at++;
            continue;
        }
        if (csv->at < csv->len && csv->text[csv->at] == '\r') {
            csv->at++;
        }
        if (csv->at < csv->len && csv->text[csv->at] == '\n') {
            csv->at++;
        }
        csv->line++;
        return FM_OK;
    }
}

static fm_status_t row_record(const csv_t *csv, char *const *names, size_t line,
                              fm_json_t **record_out, fm_error_t *err)
{
    fm_json_t *record = fm_json_object();

    for (size_t i = 0; record && i < csv->count; i++) {
        fm_json_t *value = fm_json_stringn(csv->fields[i], csv->sizes[i]);
        if (!value) {
            fm_json_drop(record);
            return fm_error_set(err, FM_ERR_INVALID,
                                "line %zu: column %s is not UTF-8 text; "
                                "convert the file",
                                line, names[i]);
        }
        if (fm_json_set(record, names[i], value) < 0) {
            record = fm_json_drop(record);
        }
    }
    *record_out = record;
    return record ? FM_OK : fm_no_memory(err);
}

static fm_status_t header_check(const csv_t *csv, fm_error_t *err)
{
    for (size_t i = 0; i < csv->count; i++) {
        fm_json_t *text = fm_json_stringn(csv->fields[i], csv->sizes[i]);
        bool bad = !text || strlen(csv->fields[i]) != csv->sizes[i];
        fm_json_drop(text);
        for (size_t j = 0; j < i && !bad; j++) {
            bad = strcmp(csv->fields[i], csv->fields[j]) == 0;
        }
        if (bad) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "line 1: column %zu: a name that is UTF-8 "
                                "text and unique is needed; rename it",
                                i + 1);
        }
    }
    return FM_OK;
}

static fm_status_t csv_parse(const char *text, size_t len, fm_json_t *list,
                             fm_error_t *err)
{
    csv_t csv = {.text = text, .len = len, .line = 1};
    char **names = NULL;
    size_t name_count = 0;
    fm_status_t rc = FM_OK;

    csv.at = mark_skip(text, len);
    if (csv.at >= len || (rc = row_parse(&csv, err)) < 0 ||
        (rc = header_check(&csv, err)) < 0) {
        goto out;
    }
    names = csv.fields; /* the header's texts are kept */
    name_count = csv.count;
    csv.fields = NULL;
    csv.count = csv.capacity = 0;
    while (rc >= 0 && csv.at < len) {
        fm_json_t *record = NULL;
        size_t line = csv.line;
        if ((rc = row_parse(&csv, err)) < 0) {
            break;
        }
        if (csv.count == 1 && csv.sizes[0] == 0 && name_count > 1) {
            continue; /* an empty line */
        }
        if (csv.count != name_count) {
            rc = fm_error_set(err, FM_ERR_INVALID,
                              "line %zu: %zu fields; the header has %zu: a "
                              "field that holds a comma is written in quotes",
                              line, csv.count, name_count);
            break;
        }
        if ((rc = row_record(&csv, names, line, &record, err)) >= 0) {
            rc = record_add(list, record, err);
        }
    }
out:
    row_clear(&csv);
    for (size_t i = 0; i < name_count; i++) {
        free(names[i]);
    }
    free(names);
    free(csv.fields);
    free(csv.sizes);
    return rc;
}

fm_status_t fm_ops_records_parse(const char *format, const char *text,
                                 size_t len, size_t window, size_t stride,
                                 fm_json_t *list, fm_error_t *err)
{
    if (strcmp(format, "jsonl") == 0) {
        return lines_parse(text, len, true, list, err);
    }
    if (strcmp(format, "csv") == 0) {
        return csv_parse(text, len, list, err);
    }
    if (strcmp(format, "text") != 0) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "format: jsonl, csv, text or hdf5 is allowed");
    }
    return window ? windows_parse(text, len, window, stride, list, err)
                  : lines_parse(text, len, false, list, err);
}
