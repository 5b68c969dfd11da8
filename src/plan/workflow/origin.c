/* SPDX-License-Identifier: Apache-2.0 */
/* Origins of records, and splits of files (W44 – W46). */
#include "plan/workflow/origin.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "plan/workflow/ref.h"

static const char *format_of(const char *type, const char *path)
{
    static const char *const suffixes[][2] = {{".jsonl", "jsonl"},
                                              {".csv", "csv"},
                                              {".txt", "text"},
                                              {".h5", "hdf5"},
                                              {".hdf5", "hdf5"}};
    size_t len = strlen(path);

    if (type && strcmp(type, "dataset") != 0) {
        return type;
    }
    for (size_t i = 0; i < FM_COUNT_OF(suffixes); i++) {
        size_t tail = strlen(suffixes[i][0]);
        if (len > tail && strcmp(path + len - tail, suffixes[i][0]) == 0) {
            return suffixes[i][1];
        }
    }
    return NULL;
}

static bool keys_only(const fm_yaml_value_t *data, const char *const *keys,
                      size_t count, const fm_yaml_source_t *source,
                      const char *what)
{
    for (size_t i = 0; i < count; i++) {
        const fm_yaml_member_t *member = fm_yaml_member(data, keys[i]);
        if (member) {
            (void)fm_yaml_fail(source, member->line, member->column,
                               FM_ERR_INVALID, "data.%s does not go with %s",
                               keys[i], what);
            return false;
        }
    }
    return true;
}

static fm_status_t read_file_form(const fm_yaml_value_t *data, const char *type,
                                  const fm_yaml_source_t *source,
                                  fm_wf_origin_t *out)
{
    fm_wf_split_t split = {0};
    const fm_yaml_value_t *written = fm_yaml_get(data, "split");
    const fm_yaml_value_t *fraction = fm_yaml_get(data, "test_fraction");

    out->form = FM_WF_FORM_FILE;
    if (!fm_wf_is_literal(out->path)) {
        return fm_yaml_fail_at(
            source, out->path ? out->path : data,
            "data has no literal path; files are stored before a "
            "workflow is submitted");
    }
    if (!(out->format = format_of(type, out->path->text))) {
        return fm_yaml_fail_at(
            source, out->path,
            "the format of this file is unknown; give data.type: "
            "jsonl, csv, text or hdf5");
    }
    bool tables = strcmp(out->format, "hdf5") == 0;
    const fm_yaml_value_t *dataset = fm_yaml_get(data, "dataset");
    if (tables != fm_wf_is_literal(dataset)) {
        return fm_yaml_fail_at(source, dataset ? dataset : data,
                               "data.dataset; allowed: with type hdf5, the "
                               "literal path of a table inside the file");
    }
    if (fm_yaml_get(data, "chunk") && strcmp(out->format, "text") != 0) {
        return fm_yaml_fail_at(source, fm_yaml_get(data, "chunk"),
                               "data.chunk goes with text files alone");
    }
    if (!written || fm_wf_ref_inside(written->text)) {
        return FM_OK;
    }
    if (!fm_wf_split_parse(written->text, &split)) {
        return fm_yaml_fail_at(
            source, written,
            "split; allowed: all, train or test, and a slice in "
            "records or percent, such as train[:200], all[10%:20%]");
    }
    if (strcmp(split.part, "test") == 0 && !fraction) {
        return fm_yaml_fail_at(source, written,
                               "split test without data.test_fraction");
    }
    return FM_OK;
}

/* One end of a split; absent is not the same as 0. */
struct bound {
    int64_t value;
    bool given, percent;
};

/* Behind the bound at @p at, which may be absent; NULL: out of range. */
static const char *bound_read(const char *at, struct bound *out)
{
    size_t digits = strspn(at + (*at == '-'), "0123456789");
    char *end = NULL;

    if (digits == 0 || digits > 12) {
        return at;
    }
    out->value = strtoll(at, &end, 10);
    out->given = true;
    out->percent = *end == '%';
    if (out->percent && (out->value < 0 || out->value > 100)) {
        return NULL;
    }
    return end + out->percent;
}

bool fm_wf_split_parse(const char *text, fm_wf_split_t *out)
{
    static const char *const parts[] = {"all", "train", "test"};
    size_t len = strcspn(text, "[");
    fm_wf_split_t split = {.open = true};
    struct bound bounds[2] = {{0}};

    for (size_t i = 0; i < FM_COUNT_OF(parts); i++) {
        if (strlen(parts[i]) == len && strncmp(parts[i], text, len) == 0) {
            split.part = parts[i];
        }
    }
    const char *at = text + len;
    if (!split.part) {
        return false;
    }
    if (*at) { /* [from:to] */
        at = *at == '[' ? bound_read(at + 1, &bounds[0]) : NULL;
        at = at && *at == ':' ? bound_read(at + 1, &bounds[1]) : NULL;
        if (!at || strcmp(at, "]") != 0) {
            return false;
        }
    }
    if (bounds[0].given && bounds[1].given &&
        bounds[0].percent != bounds[1].percent) {
        return false;
    }
    split.percent = bounds[0].percent || bounds[1].percent;
    split.from = bounds[0].value;
    split.to = bounds[1].value;
    split.open = !bounds[1].given;
    *out = split;
    return true;
}

static fm_status_t read_jsonl_form(const fm_yaml_value_t *data,
                                   const fm_yaml_value_t *jsonl,
                                   const fm_yaml_source_t *source,
                                   fm_wf_origin_t *out)
{
    out->path = fm_yaml_get(jsonl, "path");
    out->node = fm_yaml_get(jsonl, "node");
    if (!out->path == !out->node) {
        return fm_yaml_fail_at(source, jsonl,
                               "data.jsonl; allowed: one of path, node");
    }
    if (out->path) {
        return read_file_form(data, "jsonl", source, out);
    }
    out->form = FM_WF_FORM_NODE;
    out->wants_export = true;
    return FM_OK;
}

/* The form of the one origin that was given; whether data.type allows it. */
static fm_status_t read_form(const fm_yaml_value_t *data, const char *type,
                             const fm_yaml_source_t *source, bool *fits_out,
                             fm_wf_origin_t *out)
{
    const fm_yaml_value_t *jsonl = fm_yaml_get(data, "jsonl");

    if (jsonl) {
        *fits_out = !type || strcmp(type, "jsonl") == 0;
        return read_jsonl_form(data, jsonl, source, out);
    }
    if (out->nodes) {
        *fits_out = !type || strcmp(type, "node") == 0;
        out->form = FM_WF_FORM_NODES;
        return FM_OK;
    }
    if (out->node) {
        *fits_out = !type || strcmp(type, "node") == 0;
        out->form = FM_WF_FORM_NODE;
        out->node_path = fm_yaml_str(out->path);
        return FM_OK;
    }
    if (out->path) {
        *fits_out =
            !type || (strcmp(type, "list") != 0 && strcmp(type, "node") != 0 &&
                      strcmp(type, "graph_template") != 0);
        return *fits_out ? read_file_form(data, type, source, out) : FM_OK;
    }
    *fits_out =
        !type || strcmp(type, out->items ? "list" : "graph_template") == 0;
    out->form = out->items ? FM_WF_FORM_LIST : FM_WF_FORM_TEMPLATE;
    return FM_OK;
}

fm_status_t fm_wf_origin_read(const fm_yaml_value_t *data,
                              const fm_yaml_source_t *source,
                              fm_wf_origin_t *out)
{
    static const char *const reading[] = {"split",  "test_fraction", "shuffle",
                                          "seed",   "columns",       "chunk",
                                          "dataset"};
    static const char *const origins[] = {"items", "prompts",  "preferences",
                                          "jsonl", "template", "node",
                                          "nodes", "path"};
    const fm_yaml_value_t *kind = fm_yaml_get(data, "type");
    const char *type = fm_yaml_str(kind);
    size_t given = 0;
    fm_wf_origin_t o = {.items = fm_yaml_get(data, "items"),
                        .path = fm_yaml_get(data, "path"),
                        .node = fm_yaml_get(data, "node"),
                        .nodes = fm_yaml_get(data, "nodes")};
    bool fits = true;
    fm_status_t rc = FM_OK;

    o.items = o.items ? o.items : fm_yaml_get(data, "prompts");
    o.items = o.items ? o.items : fm_yaml_get(data, "preferences");
    for (size_t i = 0; i < FM_COUNT_OF(origins); i++) {
        given += fm_yaml_get(data, origins[i]) != NULL;
    }
    given -= o.node && o.path; /* the path is one into the node's result */
    if (given != 1 || (kind && !fm_wf_is_literal(kind))) {
        return fm_yaml_fail_at(
            source, data,
            "data says no origin, or more than one; allowed: one of "
            "items, prompts, preferences, path, node, nodes, jsonl, template");
    }
    if ((rc = read_form(data, type, source, &fits, &o)) < 0) {
        return rc;
    }
    if (!fits) {
        return fm_yaml_fail_at(source, kind,
                               "data.type does not fit the other keys");
    }
    if (o.form == FM_WF_FORM_NODE && !fm_wf_is_literal(o.node)) {
        return fm_yaml_fail_at(source, o.node,
                               "data.node is no literal node name");
    }
    for (size_t i = 0; o.nodes && i < o.nodes->count; i++) {
        if (!fm_wf_is_literal(o.nodes->members[i].value)) {
            return fm_yaml_fail_at(source, o.nodes->members[i].value,
                                   "data.nodes holds no literal node name");
        }
    }
    if (o.nodes && (o.nodes->type != FM_JSON_ARRAY || !o.nodes->count)) {
        return fm_yaml_fail_at(source, o.nodes,
                               "data.nodes; allowed: a list of node names");
    }
    if (o.form != FM_WF_FORM_FILE &&
        !keys_only(data, reading, FM_COUNT_OF(reading), source,
                   "records that are not read from a file")) {
        return FM_ERR_INVALID;
    }
    *out = o;
    return FM_OK;
}
