/* SPDX-License-Identifier: Apache-2.0 */
/* Records of a node's data (W44, W46): opened, then taken one by one, since a
 * node of a chain reads a few of many. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "plan/workflow/graph.h"
#include "plan/workflow/origin.h"
#include "plan/workflow/ref.h"

const fm_yaml_value_t *fm_wf_data_of(const fm_wf_resolver_t *r)
{
    return fm_yaml_get(r->node->tree, "data");
}

fm_status_t fm_wf_record_fail(const fm_wf_resolver_t *r, size_t index,
                              const char *text)
{
    const fm_yaml_value_t *data = fm_wf_data_of(r);

    return fm_yaml_fail(&r->source, data->line, data->column, FM_ERR_INVALID,
                        "node %s: record %zu: %s", r->node->pub.name, index,
                        text);
}

/* --- records -------------------------------------------------------------- */

/* The items of a result: {"output": record} each. */
static void keep_items(const fm_json_t *result, fm_wf_records_t *out)
{
    out->list = fm_json_keep(fm_json_get(result, "items"));
    out->count = fm_json_len(out->list);
    out->wrapped = true;
}

static void keep_list(fm_json_t *list, fm_wf_records_t *out)
{
    out->list = list;
    out->count = fm_json_len(list);
}

static fm_status_t node_records(const fm_wf_resolver_t *r,
                                const fm_wf_origin_t *origin,
                                fm_wf_records_t *out)
{
    const char *stage = origin->node->text;
    const fm_json_t *result = NULL;
    const fm_json_t *found = NULL;
    fm_status_t rc =
        fm_wf_result_of(r, fm_wf_target(r->wf, r->node, stage), &result);

    if (rc < 0) {
        return rc;
    }
    if (origin->wants_export && fm_json_get(result, "export")) {
        found = fm_json_get(result, "export");
    } else if (origin->node_path && strcmp(origin->node_path, "items") != 0) {
        rc = fm_wf_ref_value(r, stage, origin->node_path, origin->node->line,
                             origin->node->column, &found);
    } else {
        keep_items(result, out);
        return FM_OK;
    }
    if (rc == FM_OK && !fm_json_is(found, FM_JSON_ARRAY)) {
        rc = fm_yaml_fail(&r->source, origin->node->line, origin->node->column,
                          FM_ERR_INVALID,
                          "node %s: data from %s is no list (%s)",
                          r->node->pub.name, stage, fm_json_type_name(found));
    }
    if (rc == FM_OK) {
        keep_list(fm_json_keep(found), out);
    }
    return rc;
}

/* The items of several nodes, one after the other. */
static fm_status_t nodes_records(const fm_wf_resolver_t *r,
                                 const fm_yaml_value_t *nodes,
                                 fm_wf_records_t *out)
{
    fm_json_t *all = fm_json_array();
    fm_status_t rc = all ? FM_OK : fm_wf_no_memory(r);

    for (size_t i = 0; i < nodes->count && rc == FM_OK; i++) {
        const char *stage = nodes->members[i].value->text;
        const fm_json_t *result = NULL;
        rc = fm_wf_result_of(r, fm_wf_target(r->wf, r->node, stage), &result);
        const fm_json_t *items = fm_json_get(result, "items");
        for (size_t k = 0; k < fm_json_len(items) && rc == FM_OK; k++) {
            if (fm_json_append(all, fm_json_keep(fm_json_at(items, k))) < 0) {
                rc = fm_wf_no_memory(r);
            }
        }
    }
    if (rc < 0) {
        fm_json_drop(all);
        return rc;
    }
    keep_list(all, out);
    out->wrapped = true;
    return FM_OK;
}

/* A column of a template: one value a row, or one for all rows. */
struct column {
    const char *label;
    const fm_json_t *fixed;
    const fm_json_t *items; /* with [*] */
    const char *rest;       /* path inside an item */
};

static fm_status_t read_column(const fm_wf_resolver_t *r,
                               const fm_yaml_value_t *tree, struct column *out)
{
    const fm_yaml_value_t *node = fm_yaml_get(tree, "node");
    const char *path = fm_yaml_str(fm_yaml_get(tree, "path"));
    const fm_json_t *result = NULL;
    fm_status_t rc = FM_OK;

    path = path ? path : "items[*].output";
    *out = (struct column){.label = fm_yaml_get(tree, "label")->text};
    if (strncmp(path, "items[*]", 8) != 0) {
        return fm_wf_ref_value(r, node->text, path, node->line, node->column,
                               &out->fixed);
    }
    rc = fm_wf_result_of(r, fm_wf_target(r->wf, r->node, node->text), &result);
    out->items = fm_json_get(result, "items");
    out->rest = path + 8 + (path[8] == '.');
    return rc;
}

static fm_status_t add_row(const fm_wf_resolver_t *r,
                           const struct column *columns, size_t count,
                           size_t row, fm_json_t *prompts)
{
    const fm_yaml_value_t *template = fm_yaml_get(fm_wf_data_of(r), "template");
    const fm_yaml_value_t *options = fm_yaml_get(template, "options");
    const fm_yaml_value_t *parts[] = {fm_yaml_get(options, "intro"),
                                      fm_yaml_get(options, "closing")};
    fm_buf_t buf = {0};
    fm_status_t rc = FM_OK;

    for (size_t i = 0; i < 2 && rc == FM_OK; i++) {
        fm_json_t *text = NULL;
        if (parts[i] &&
            (rc = fm_wf_resolve(r, parts[i], false, &text)) == FM_OK) {
            fm_buf_add_str(&buf, i ? "\n\n" : "");
            fm_wf_add_text(&buf, text);
            fm_buf_add_str(&buf, i ? "" : "\n\n");
        }
        fm_json_drop(text);
        for (size_t c = 0; i == 0 && c < count && rc == FM_OK; c++) {
            const struct column *col = &columns[c];
            const fm_json_t *value =
                col->items
                    ? fm_json_path(fm_json_at(col->items, row), col->rest)
                    : col->fixed;
            if (!value) {
                rc =
                    fm_wf_record_fail(r, row, "a template column has no value");
                break;
            }
            fm_buf_printf(&buf, "%s%s: ", c ? "\n" : "", col->label);
            fm_wf_add_text(&buf, value);
        }
    }
    if (rc == FM_OK &&
        (buf.failed ||
         fm_json_append(
             prompts, fm_json_stringn((const char *)buf.data, buf.len)) < 0)) {
        rc = fm_wf_no_memory(r);
    }
    fm_buf_fini(&buf);
    return rc;
}

static fm_status_t template_records(const fm_wf_resolver_t *r, fm_json_t **out)
{
    const fm_yaml_value_t *tree =
        fm_yaml_get(fm_yaml_get(fm_wf_data_of(r), "template"), "columns");
    struct column *columns = fm_calloc(tree->count, sizeof(*columns));
    fm_json_t *prompts = fm_json_array();
    bool varying = false;
    size_t rows = 1;
    fm_status_t rc = columns && prompts ? FM_OK : fm_wf_no_memory(r);

    for (size_t i = 0; i < tree->count && rc == FM_OK; i++) {
        rc = read_column(r, tree->members[i].value, &columns[i]);
        if (rc == FM_OK && columns[i].items) {
            size_t len = fm_json_len(columns[i].items);
            if (varying && len != rows) {
                rc = fm_yaml_fail(
                    &r->source, tree->members[i].line, tree->members[i].column,
                    FM_ERR_INVALID,
                    "node %s: column %.60s has %zu rows, the ones "
                    "before have %zu",
                    r->node->pub.name, columns[i].label, len, rows);
            }
            varying = true;
            rows = len;
        }
    }
    for (size_t row = 0; row < rows && rc == FM_OK; row++) {
        rc = add_row(r, columns, tree->count, row, prompts);
    }
    if (rc == FM_OK) {
        *out = prompts;
        prompts = NULL;
    }
    fm_json_drop(prompts);
    free(columns);
    return rc;
}

static fm_status_t list_records(const fm_wf_resolver_t *r,
                                const fm_yaml_value_t *items,
                                fm_wf_records_t *out)
{
    fm_json_t *list = NULL;
    fm_status_t rc = FM_OK;

    if (items->type == FM_JSON_ARRAY) {
        out->items = items;
        out->count = items->count;
        return FM_OK;
    }
    if ((rc = fm_wf_resolve(r, items, true, &list)) < 0) {
        return rc;
    }
    if (!fm_json_is(list, FM_JSON_ARRAY)) {
        rc = fm_yaml_fail(&r->source, items->line, items->column,
                          FM_ERR_INVALID, "node %s: data.items is no list (%s)",
                          r->node->pub.name, fm_json_type_name(list));
        fm_json_drop(list);
        return rc;
    }
    keep_list(list, out);
    return FM_OK;
}

static fm_status_t open_origin(const fm_wf_resolver_t *r, fm_wf_records_t *out)
{
    const fm_json_t *result = NULL;
    fm_json_t *prompts = NULL;
    fm_wf_origin_t origin = {0};
    fm_status_t rc = fm_wf_origin_read(fm_wf_data_of(r), &r->source, &origin);

    if (rc < 0) {
        return rc;
    }
    switch (origin.form) {
    case FM_WF_FORM_FILE:
        if ((rc = fm_wf_result_of(r, r->node->data, &result)) == FM_OK) {
            keep_items(result, out);
        }
        return rc;
    case FM_WF_FORM_NODE:
        return node_records(r, &origin, out);
    case FM_WF_FORM_NODES:
        return nodes_records(r, origin.nodes, out);
    case FM_WF_FORM_TEMPLATE:
        if ((rc = template_records(r, &prompts)) == FM_OK) {
            keep_list(prompts, out);
        }
        return rc;
    case FM_WF_FORM_LIST:
        break;
    }
    return list_records(r, origin.items, out);
}

fm_status_t fm_wf_records_open(const fm_wf_resolver_t *r, fm_wf_records_t *out)
{
    const fm_yaml_value_t *most = fm_yaml_get(fm_wf_data_of(r), "max_samples");
    fm_json_t *limit = NULL;
    fm_status_t rc = open_origin(r, out);

    if (rc == FM_OK && most) {
        rc = fm_wf_resolve(r, most, false, &limit);
    }
    int64_t bound = fm_json_int_or(limit, INT64_MAX);
    if (rc == FM_OK && most && (bound < 1 || !fm_json_is(limit, FM_JSON_INT))) {
        rc = fm_yaml_fail(&r->source, most->line, most->column, FM_ERR_INVALID,
                          "data.max_samples; allowed: an integer from 1");
    }
    if (rc == FM_OK && (uint64_t)bound < out->count) {
        out->count = (size_t)bound;
    }
    if (rc == FM_OK && out->count > FM_WORKFLOW_ITEMS_MAX) {
        rc = fm_yaml_fail(&r->source, r->node->pub.line, r->node->pub.column,
                          FM_ERR_LIMIT, "node %s: more than %u records",
                          r->node->pub.name, FM_WORKFLOW_ITEMS_MAX);
    }
    fm_json_drop(limit);
    return rc;
}

void fm_wf_records_close(fm_wf_records_t *records)
{
    records->list = fm_json_drop(records->list);
}

fm_status_t fm_wf_record_at(const fm_wf_resolver_t *r,
                            const fm_wf_records_t *records, size_t index,
                            fm_json_t **out)
{
    if (records->items) {
        return fm_wf_resolve(r, records->items->members[index].value, true,
                             out);
    }
    const fm_json_t *found = fm_json_at(records->list, index);
    fm_json_t *record =
        fm_json_keep(records->wrapped ? fm_json_get(found, "output") : found);
    if (!record) {
        return fm_wf_record_fail(r, index, "no output");
    }
    *out = record;
    return FM_OK;
}

fm_status_t fm_wf_records(const fm_wf_resolver_t *r, fm_json_t **out)
{
    fm_wf_records_t records = {0};
    fm_json_t *list = NULL;
    fm_status_t rc = fm_wf_records_open(r, &records);

    if (rc == FM_OK && !(list = fm_json_array())) {
        rc = fm_wf_no_memory(r);
    }
    for (size_t i = 0; i < records.count && rc == FM_OK; i++) {
        fm_json_t *record = NULL;
        if ((rc = fm_wf_record_at(r, &records, i, &record)) == FM_OK &&
            fm_json_append(list, record) < 0) {
            rc = fm_wf_no_memory(r);
        }
    }
    if (rc == FM_OK) {
        *out = list;
        list = NULL;
    }
    fm_json_drop(list);
    fm_wf_records_close(&records);
    return rc;
}
