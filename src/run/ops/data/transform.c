/* SPDX-License-Identifier: Apache-2.0 */
/*
 * map, filter and jsonl_export: records to records, one at a time and in
 * order (docs/spec/workflow.md §6.11).
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "run/ops/data/records.h"
#include "run/ops/field.h"
#include "run/ops/internal.h"

#define STOP_EVERY 4096 /* records between looks at stopping() */

fm_status_t fm_ops_records(const fm_json_t *value, const char *key,
                           const fm_json_t **list_out, fm_error_t *err)
{
    const fm_json_t *list = fm_json_get(value, key);

    if (!fm_json_is(list, FM_JSON_ARRAY) ||
        fm_json_len(list) > OPS_RECORDS_MAX) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "%s: a list of at most %u is needed", key,
                            OPS_RECORDS_MAX);
    }
    *list_out = list;
    return FM_OK;
}

static fm_status_t items_set(fm_ops_output_t *output, const fm_json_t *items,
                             const char *name, size_t count, fm_error_t *err)
{
    fm_json_t *report = fm_json_object();

    output->value = fm_json_object();
    if (!report || !output->value ||
        fm_json_set(report, name, fm_json_int((int64_t)count)) < 0 ||
        fm_json_set(output->value, "items", fm_json_keep(items)) < 0 ||
        fm_json_set(output->value, "report", fm_json_keep(report)) < 0) {
        fm_json_drop(report);
        return fm_no_memory(err);
    }
    fm_json_drop(report);
    return FM_OK;
}

/* --- python -------------------------------------------------------------- */

/* Call the function with every record; a list of what it returned. */
static fm_status_t python_values(fm_ops_run_t *run, const fm_json_t *records,
                                 fm_json_t *values, fm_error_t *err)
{
    fm_json_t *arguments = fm_json_array(), *results = NULL;
    fm_ops_each_t each = {run->params, "main", arguments, true};
    fm_error_t ended = {0};
    fm_status_t rc = arguments ? FM_OK : fm_no_memory(err);

    for (size_t i = 0; rc >= 0 && i < fm_json_len(records); i++) {
        fm_json_t *list = fm_json_array();
        if (!list ||
            fm_json_append(list, fm_json_keep(fm_json_at(records, i))) < 0 ||
            fm_json_append(arguments, fm_json_keep(list)) < 0) {
            rc = fm_no_memory(err);
        }
        fm_json_drop(list);
    }
    if (rc >= 0) {
        rc = fm_ops_python_each(run, &each, &results, &ended, err);
    }
    for (size_t i = 0; rc >= 0 && i < fm_json_len(records); i++) {
        const fm_json_t *line = fm_json_at(results, i);
        fm_json_t *value = fm_json_get(line, "value");
        const char *why = fm_json_get_str(line, "error");
        if (!value) {
            rc = fm_error_set(err, FM_ERR_INVALID, "records[%zu]: %s", i,
                              why ? why : ended.text);
        } else if (fm_json_append(values, fm_json_keep(value)) < 0) {
            rc = fm_no_memory(err);
        }
    }
    fm_json_drop(arguments);
    fm_json_drop(results);
    return rc;
}

static fm_status_t values_flatten(const fm_json_t *values, fm_json_t *items,
                                  fm_error_t *err)
{
    for (size_t i = 0; i < fm_json_len(values); i++) {
        const fm_json_t *list = fm_json_at(values, i);
        if (!fm_json_is(list, FM_JSON_ARRAY)) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "records[%zu]: flatten wants a list; the "
                                "function returned a %s",
                                i, fm_json_type_name(list));
        }
        for (size_t j = 0; j < fm_json_len(list); j++) {
            if (fm_json_len(items) >= OPS_RECORDS_MAX) {
                return fm_error_set(err, FM_ERR_LIMIT,
                                    "records[%zu]: more than %u records", i,
                                    OPS_RECORDS_MAX);
            }
            if (fm_json_append(items, fm_json_keep(fm_json_at(list, j))) < 0) {
                return fm_no_memory(err);
            }
        }
    }
    return FM_OK;
}

/* --- terms --------------------------------------------------------------- */

/* One {FIELD} of a template: *at is after its brace. */
static fm_status_t reference_add(const char *template, size_t *at,
                                 const fm_json_t *record, fm_buf_t *text,
                                 fm_error_t *err)
{
    size_t size = strcspn(template + *at, "{}");
    char *name = fm_strndup(template + *at, size);
    fm_json_t *value = name ? fm_ops_field(record, name) : NULL;
    fm_status_t rc = FM_OK;

    if (!name) {
        return fm_no_memory(err);
    }
    if (template[*at + size] != '}') {
        rc = fm_error_set(err, FM_ERR_INVALID,
                          "template: { without }; a brace is written {{");
    } else if (!value) {
        rc =
            fm_error_set(err, FM_ERR_INVALID, "template: no field %.80s", name);
    } else {
        fm_ops_field_add_text(text, value);
        *at += size + 1;
    }
    free(name);
    return rc;
}

static fm_status_t template_fill(const char *template, const fm_json_t *record,
                                 fm_json_t **value_out, fm_error_t *err)
{
    fm_buf_t text = {0};
    fm_status_t rc = FM_OK;

    for (size_t at = 0; rc >= 0 && template[at];) {
        char c = template[at];
        if ((c == '{' || c == '}') && template[at + 1] == c) {
            fm_buf_add_u8(&text, (uint8_t)c);
            at += 2;
        } else if (c == '{') {
            at++;
            rc = reference_add(template, &at, record, &text, err);
        } else if (c == '}') {
            rc = fm_error_set(err, FM_ERR_INVALID,
                              "template: } without {; a brace is written }}");
        } else {
            fm_buf_add_u8(&text, (uint8_t)c);
            at++;
        }
    }
    if (rc >= 0) {
        const char *filled = fm_buf_cstr(&text); /* also where it is empty */
        *value_out = text.failed ? NULL : fm_json_stringn(filled, text.len);
        rc = *value_out ? FM_OK : fm_no_memory(err);
    }
    fm_buf_fini(&text);
    return rc;
}

static fm_status_t term_value(const fm_json_t *term, const fm_json_t *record,
                              fm_json_t **value_out, fm_error_t *err)
{
    const fm_json_t *value = fm_json_get(term, "value");
    const char *from = NULL, *template = NULL;
    fm_status_t rc;

    if (value) {
        *value_out = fm_json_keep(value);
        return FM_OK;
    }
    if (fm_json_get(term, "template")) {
        rc = fm_ops_get_text(term, "template", NULL, &template, err);
        return rc < 0 ? rc : template_fill(template, record, value_out, err);
    }
    if (fm_ops_get_text(term, "from", NULL, &from, err) < 0) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "a map with from, value or template is needed");
    }
    if (!(value = fm_ops_field(record, from)) &&
        !(value = fm_json_get(term, "default"))) {
        return fm_error_set(err, FM_ERR_INVALID, "no field %.80s", from);
    }
    *value_out = fm_json_keep(value);
    return FM_OK;
}

static fm_status_t fields_map(const fm_json_t *fields, bool keep,
                              const fm_json_t *record, fm_json_t **record_out,
                              fm_error_t *err)
{
    fm_json_t *mapped = fm_json_object(), *term = NULL, *value = NULL;
    void *iterator = NULL;
    const char *name = NULL;
    fm_status_t rc = mapped ? FM_OK : fm_no_memory(err);

    if (keep && !fm_json_is(record, FM_JSON_OBJECT)) {
        rc = fm_error_set(err, FM_ERR_INVALID, "keep: the record is a %s",
                          fm_json_type_name(record));
    }
    while (rc >= 0 && keep && fm_json_next(record, &iterator, &name, &value)) {
        if (fm_json_set(mapped, name, fm_json_keep(value)) < 0) {
            rc = fm_no_memory(err);
        }
    }
    iterator = NULL;
    while (rc >= 0 && fm_json_next(fields, &iterator, &name, &term)) {
        if ((rc = term_value(term, record, &value, err)) < 0) {
            fm_error_wrap(err, "fields.%.80s", name);
        } else if (fm_json_set(mapped, name, value) < 0) {
            rc = fm_no_memory(err);
        }
    }
    if (rc < 0) {
        fm_json_drop(mapped);
        return rc;
    }
    *record_out = mapped;
    return FM_OK;
}

static fm_status_t terms_map(fm_ops_run_t *run, const fm_json_t *records,
                             fm_json_t *items, fm_error_t *err)
{
    const fm_json_t *fields = fm_json_get(run->params, "fields");
    bool keep = fm_json_get_bool(run->params, "keep", false);
    fm_status_t rc = FM_OK;

    if (!fm_json_is(fields, FM_JSON_OBJECT)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "fields: a map of names to terms is needed");
    }
    for (size_t i = 0; rc >= 0 && i < fm_json_len(records); i++) {
        fm_json_t *mapped = NULL;
        if (i % STOP_EVERY == 0 && (rc = fm_ops_stopping(run, err)) < 0) {
            break;
        }
        if ((rc = fields_map(fields, keep, fm_json_at(records, i), &mapped,
                             err)) < 0) {
            fm_error_wrap(err, "records[%zu]", i);
        } else if (fm_json_append(items, mapped) < 0) {
            rc = fm_no_memory(err);
        }
    }
    return rc;
}

/* --- operators ----------------------------------------------------------- */

fm_status_t fm_ops_map(fm_ops_run_t *run, size_t item, fm_ops_output_t *output,
                       fm_error_t *err)
{
    fm_json_t *items = fm_json_array(), *values = fm_json_array();
    const fm_json_t *records = NULL;
    const char *method = NULL;
    fm_status_t rc = items && values ? FM_OK : fm_no_memory(err);

    if (rc < 0 ||
        (rc = fm_ops_get_text(run->params, "method", NULL, &method, err)) < 0 ||
        (rc = fm_ops_records(run->values[item], "records", &records, err)) <
            0) {
        goto out;
    }
    if (strcmp(method, "fields") == 0) {
        rc = terms_map(run, records, items, err);
    } else if (strcmp(method, "python") != 0) {
        rc = fm_error_set(err, FM_ERR_INVALID,
                          "method: python or fields is allowed");
    } else if (!fm_json_get_bool(run->params, "flatten", false)) {
        rc = python_values(run, records, items, err);
    } else if ((rc = python_values(run, records, values, err)) >= 0) {
        rc = values_flatten(values, items, err);
    }
    if (rc >= 0) {
        rc = items_set(output, items, "records", fm_json_len(records), err);
    }
out:
    fm_json_drop(items);
    fm_json_drop(values);
    return rc;
}

static fm_status_t where_values(fm_ops_run_t *run, const fm_json_t *records,
                                fm_json_t *values, fm_error_t *err)
{
    fm_ops_where_t *where = NULL;
    fm_status_t rc =
        fm_ops_where_create(fm_json_get(run->params, "where"), &where, err);

    for (size_t i = 0; rc >= 0 && i < fm_json_len(records); i++) {
        bool met = false;
        if (i % STOP_EVERY == 0 && (rc = fm_ops_stopping(run, err)) < 0) {
            break;
        }
        rc = fm_ops_where_test(where, fm_json_at(records, i), &met, err);
        if (rc < 0) {
            fm_error_wrap(err, "records[%zu]", i);
        } else if (fm_json_append(values, fm_json_bool(met)) < 0) {
            rc = fm_no_memory(err);
        }
    }
    fm_ops_where_destroy(where);
    return rc;
}

fm_status_t fm_ops_filter(fm_ops_run_t *run, size_t item,
                          fm_ops_output_t *output, fm_error_t *err)
{
    fm_json_t *items = fm_json_array(), *values = fm_json_array();
    const fm_json_t *records = NULL;
    const char *method = NULL;
    fm_status_t rc = items && values ? FM_OK : fm_no_memory(err);

    if (rc < 0 ||
        (rc = fm_ops_get_text(run->params, "method", NULL, &method, err)) < 0 ||
        (rc = fm_ops_records(run->values[item], "records", &records, err)) <
            0) {
        goto out;
    }
    if (strcmp(method, "where") == 0) {
        rc = where_values(run, records, values, err);
    } else if (strcmp(method, "python") == 0) {
        rc = python_values(run, records, values, err);
    } else {
        rc = fm_error_set(err, FM_ERR_INVALID,
                          "method: python or where is allowed");
    }
    for (size_t i = 0; rc >= 0 && i < fm_json_len(records); i++) {
        const fm_json_t *verdict = fm_json_at(values, i);
        if (!fm_json_is(verdict, FM_JSON_BOOL)) {
            rc = fm_error_set(err, FM_ERR_INVALID,
                              "records[%zu]: the function returned a %s; True "
                              "or False is needed",
                              i, fm_json_type_name(verdict));
        } else if (fm_json_bool_or(verdict, false) &&
                   fm_json_append(items, fm_json_keep(fm_json_at(records, i))) <
                       0) {
            rc = fm_no_memory(err);
        }
    }
    if (rc >= 0) {
        rc = items_set(output, items, "removed",
                       fm_json_len(records) - fm_json_len(items), err);
    }
out:
    fm_json_drop(items);
    fm_json_drop(values);
    return rc;
}

/* --- jsonl_export -------------------------------------------------------- */

static bool row_complete(const fm_json_t *row, const fm_json_t *required)
{
    for (size_t i = 0; i < fm_json_len(required); i++) {
        const char *name = fm_json_str(fm_json_at(required, i));
        const fm_json_t *value = name ? fm_json_get(row, name) : NULL;
        if (!value || fm_json_is(value, FM_JSON_NULL) ||
            (fm_json_str(value) && fm_json_str_len(value) == 0)) {
            return false;
        }
    }
    return true;
}

static fm_status_t row_make(const fm_json_t *fields, const fm_json_t *record,
                            fm_json_t **row_out, fm_error_t *err)
{
    fm_json_t *row = NULL, *field = NULL;
    void *iterator = NULL;
    const char *name = NULL;

    if (!fields) {
        *row_out = fm_json_keep(record);
        return FM_OK;
    }
    if (!(row = fm_json_object())) {
        return fm_no_memory(err);
    }
    while (fm_json_next(fields, &iterator, &name, &field)) {
        const char *from = fm_json_str(field);
        fm_json_t *value = from ? fm_ops_field(record, from) : NULL;
        if (!from) {
            fm_json_drop(row);
            return fm_error_set(err, FM_ERR_INVALID,
                                "fields.%.80s: the name of a field is needed",
                                name);
        }
        if (fm_json_set(row, name,
                        value ? fm_json_keep(value) : fm_json_null()) < 0) {
            fm_json_drop(row);
            return fm_no_memory(err);
        }
    }
    *row_out = row;
    return FM_OK;
}

static fm_status_t rows_write(fm_ops_run_t *run, const fm_json_t *records,
                              fm_buf_t *text, size_t *written_out,
                              fm_error_t *err)
{
    const fm_json_t *fields = fm_json_get(run->params, "fields");
    const fm_json_t *required = fm_json_get(run->params, "required");
    size_t written = 0;
    fm_status_t rc = FM_OK;

    if (fm_json_is(fields, FM_JSON_NULL)) {
        fields = NULL;
    }
    if ((fields && !fm_json_is(fields, FM_JSON_OBJECT)) ||
        (required && !fm_json_is(required, FM_JSON_ARRAY))) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "fields: a map of names to fields; required: a "
                            "list of names");
    }
    for (size_t i = 0; rc >= 0 && i < fm_json_len(records); i++) {
        fm_json_t *row = NULL;
        if ((rc = row_make(fields, fm_json_at(records, i), &row, err)) < 0) {
            break;
        }
        if (row_complete(row, required)) {
            char *line = fm_json_canonical(row);
            fm_buf_add_str(text, line ? line : "");
            fm_buf_add_u8(text, '\n');
            rc = line && !text->failed ? FM_OK : fm_no_memory(err);
            free(line);
            written++;
        }
        fm_json_drop(row);
    }
    *written_out = written;
    return rc;
}

fm_status_t fm_ops_jsonl_export(fm_ops_run_t *run, size_t item,
                                fm_ops_output_t *output, fm_error_t *err)
{
    const fm_json_t *records = NULL;
    fm_buf_t text = {0};
    fm_digest_t digest;
    char name[FM_DIGEST_TEXT_BYTES];
    size_t written = 0;
    fm_status_t rc =
        fm_ops_records(run->values[item], "records", &records, err);

    if (rc < 0 || (rc = rows_write(run, records, &text, &written, err)) < 0 ||
        (rc = fm_cas_put(run->ops->cas, FM_CAS_BLOB, text.data, text.len,
                         &digest, err)) < 0 ||
        (rc = fm_ops_output_object(output, &digest, err)) < 0) {
        goto out;
    }
    size_t dropped = fm_json_len(records) - written;
    if (!(output->value = fm_json_object()) ||
        fm_json_set(output->value, "file",
                    fm_json_string(fm_digest_format(&digest, name))) < 0 ||
        fm_json_set(output->value, "records", fm_json_int((int64_t)written)) <
            0 ||
        fm_json_set(output->value, "dropped", fm_json_int((int64_t)dropped)) <
            0 ||
        fm_json_set(output->value, "bytes", fm_json_int((int64_t)text.len)) <
            0) {
        rc = fm_no_memory(err);
    }
out:
    fm_buf_fini(&text);
    return rc;
}
