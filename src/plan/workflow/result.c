/* SPDX-License-Identifier: Apache-2.0 */
/* Conditions before a node, and its visible result after it (W30 – W33, W50,
 * W51). */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "plan/workflow/graph.h"
#include "plan/workflow/ref.h"

/* --- conditions ----------------------------------------------------------- */

static fm_status_t equal_canonical(const fm_json_t *a, const fm_json_t *b,
                                   bool *equal_out, fm_error_t *err)
{
    char *left = fm_json_canonical(a);
    char *right = fm_json_canonical(b);
    fm_status_t rc = left && right ? FM_OK : fm_no_memory(err);

    if (rc == FM_OK) {
        *equal_out = strcmp(left, right) == 0;
    }
    free(left);
    free(right);
    return rc;
}

static fm_status_t check_condition(const fm_wf_resolver_t *r,
                                   const fm_wf_ref_t *ref, bool *met)
{
    const fm_yaml_value_t *tree =
        fm_yaml_get(fm_yaml_get(r->node->tree, "condition"), "equals");
    const fm_json_t *result = NULL;
    fm_json_t *wanted = NULL;
    fm_status_t rc = fm_wf_result_of(r, ref->target, &result);

    if (rc < 0 || (rc = fm_wf_resolve(r, tree, false, &wanted)) < 0) {
        return rc;
    }
    const fm_json_t *found = fm_json_path(result, ref->path);
    *met = false;
    if (found) {
        rc = equal_canonical(found, wanted, met, r->source.err);
    }
    fm_json_drop(wanted);
    return rc;
}

/* Whether nothing that the node reads was skipped. */
static fm_status_t check_read(const fm_wf_resolver_t *r, uint32_t target,
                              bool *met)
{
    const fm_json_t *result = NULL;
    fm_status_t rc = fm_wf_result_of(r, target, &result);

    *met = !fm_json_get_bool(result, "skipped", false);
    return rc;
}

static fm_status_t check_reads(const fm_wf_resolver_t *r,
                               const fm_wf_node_private_t *node, bool *met)
{
    /* A rollout does not wait for a judge, so it cannot ask about one. */
    bool judges =
        node->part != FM_WF_PART_ROLLOUT && node->part != FM_WF_PART_REFERENCE;
    fm_status_t rc = FM_OK;

    for (size_t i = 0; i < r->node->ref_count && *met && rc == FM_OK; i++) {
        const fm_wf_ref_t *ref = &r->node->refs[i];
        if (!ref->condition && (judges || !ref->reward)) {
            rc = check_read(r, ref->target, met);
        }
    }
    for (size_t i = 0;
         node->chain && i < node->pub.dep_count && *met && rc == FM_OK; i++) {
        if (node->pub.deps[i] >= node->chain->first) {
            rc = check_read(r, node->pub.deps[i], met);
        }
    }
    return rc;
}

fm_status_t fm_workflow_condition(const fm_workflow_t *wf, uint32_t node,
                                  fm_workflow_upstream_fn upstream, void *ctx,
                                  bool *met_out, fm_error_t *err)
{
    /* An internal node runs when its owner will. */
    const fm_wf_node_private_t *owner = &wf->nodes[wf->nodes[node].pub.owner];
    const fm_wf_resolver_t r = {.wf = wf,
                                .node = owner,
                                .upstream = upstream,
                                .ctx = ctx,
                                .source = {.file = wf->file, .err = err}};
    bool met = true;
    fm_status_t rc = check_reads(&r, &wf->nodes[node], &met);

    for (size_t i = 0; i < owner->ref_count && met && rc == FM_OK; i++) {
        if (owner->refs[i].condition) {
            rc = check_condition(&r, &owner->refs[i], &met);
        }
    }
    if (rc == FM_OK) {
        *met_out = met;
    }
    return rc;
}

/* --- results -------------------------------------------------------------- */

fm_json_t *fm_workflow_result_skipped(void)
{
    fm_json_t *result = fm_json_object();

    if (!result || fm_json_set(result, "items", fm_json_array()) < 0 ||
        fm_json_set(result, "skipped", fm_json_bool(true)) < 0) {
        return fm_json_drop(result);
    }
    return result;
}

static fm_status_t add_item(fm_json_t *items, const fm_json_t *output)
{
    fm_json_t *item = fm_json_object();

    if (!item || fm_json_set(item, "output", fm_json_keep(output)) < 0) {
        fm_json_drop(item);
        return FM_ERR_NO_MEMORY;
    }
    return fm_json_append(items, item);
}

/* The list that a one-item operator with `emits: items` returned. */
static fm_status_t emitted(const fm_workflow_t *wf,
                           const fm_wf_node_private_t *node,
                           const fm_json_t *const *outputs, size_t count,
                           const fm_json_t **list_out, fm_error_t *err)
{
    const fm_json_t *list = count == 1 ? outputs[0] : NULL;

    if (fm_json_is(list, FM_JSON_OBJECT)) {
        list = fm_json_get(list, "items");
    }
    if (!fm_json_is(list, FM_JSON_ARRAY)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "%s:%u:%u: node %s emits items, but returned %s; "
                            "allowed: a list",
                            wf->file, node->pub.line, node->pub.column,
                            node->pub.name, fm_json_type_name(list));
    }
    *list_out = list;
    return FM_OK;
}

/* New reference to the value of a field of a row; null when missing. */
static fm_json_t *field_value(const fm_yaml_value_t *field,
                              const fm_json_t *output,
                              const fm_json_t *metadata, size_t index)
{
    const char *from = fm_yaml_get(field, "from")->text;
    const fm_yaml_value_t *key = fm_yaml_get(field, "key");
    const fm_json_t *found = output;

    if (strcmp(from, "literal") == 0) {
        const fm_yaml_value_t *value = fm_yaml_get(field, "value");
        return fm_json_keep(value->json); /* made with the node's spec */
    }
    if (strcmp(from, "metadata") == 0) {
        if (strcmp(key->text, "index") == 0) {
            return fm_json_int((int64_t)index);
        }
        found = metadata;
    }
    found = key ? fm_json_path(found, key->text) : found;
    return found ? fm_json_keep(found) : fm_json_null();
}

static bool is_missing(const fm_json_t *value)
{
    return !value || fm_json_is(value, FM_JSON_NULL) ||
           (fm_json_is(value, FM_JSON_STRING) && !*fm_json_str(value));
}

static fm_status_t add_row(const fm_yaml_value_t *export,
                           const fm_json_t *output, const fm_json_t *metadata,
                           size_t index, fm_json_t *rows)
{
    const fm_yaml_value_t *fields = fm_yaml_get(export, "fields");
    const fm_yaml_value_t *required = fm_yaml_get(export, "required_fields");
    fm_json_t *row = fm_json_object();
    bool drop = false;

    for (size_t i = 0; row && i < fields->count; i++) {
        const fm_yaml_member_t *field = &fields->members[i];
        if (fm_json_set(row, field->key,
                        field_value(field->value, output, metadata, index)) <
            0) {
            row = fm_json_drop(row);
        }
    }
    if (!row) {
        return FM_ERR_NO_MEMORY;
    }
    for (size_t i = 0; required && i < required->count; i++) {
        drop |= is_missing(fm_json_get(row, required->members[i].value->text));
    }
    if (drop) {
        fm_json_drop(row);
        return FM_OK;
    }
    return fm_json_append(rows, row);
}

static fm_status_t add_export(const fm_yaml_value_t *export,
                              const fm_json_t *metadata, fm_json_t *result)
{
    const fm_json_t *items = fm_json_get(result, "items");
    fm_json_t *rows = fm_json_array();
    fm_status_t rc = rows ? FM_OK : FM_ERR_NO_MEMORY;

    for (size_t i = 0; i < fm_json_len(items) && rc == FM_OK; i++) {
        rc = add_row(export, fm_json_get(fm_json_at(items, i), "output"),
                     fm_json_at(metadata, i), i, rows);
    }
    if (rc < 0) {
        fm_json_drop(rows);
        return rc;
    }
    return fm_json_set(result, "export", rows);
}

/* The records of every part of a split, by [from, to]. */
static fm_status_t add_parts(const fm_json_t *parts, const fm_json_t *list,
                             fm_json_t *result)
{
    const char *name = NULL;
    fm_json_t *range = NULL;
    void *at = NULL;
    fm_json_t *all = fm_json_object();
    fm_status_t rc = all ? FM_OK : FM_ERR_NO_MEMORY;

    while (rc == FM_OK && fm_json_next(parts, &at, &name, &range)) {
        int64_t from = fm_json_int_or(fm_json_at(range, 0), 0);
        int64_t to = fm_json_int_or(fm_json_at(range, 1), 0);
        fm_json_t *part = fm_json_array();
        rc = fm_json_set(all, name, fm_json_keep(part));
        for (int64_t i = from < 0 ? 0 : from;
             rc == FM_OK && i < to && (uint64_t)i < fm_json_len(list); i++) {
            rc =
                fm_json_append(part, fm_json_keep(fm_json_at(list, (size_t)i)));
        }
        fm_json_drop(part);
    }
    if (rc < 0) {
        fm_json_drop(all);
        return rc;
    }
    return fm_json_set(result, "parts", all);
}

fm_status_t fm_workflow_result(const fm_workflow_t *wf, uint32_t node,
                               const fm_json_t *records,
                               const fm_json_t *const *outputs, size_t count,
                               fm_json_t **result_out, fm_error_t *err)
{
    const fm_wf_node_private_t *n = &wf->nodes[node];
    const char *emits = fm_yaml_str(fm_yaml_get(n->tree, "emits"));
    const fm_yaml_value_t *export =
        n->pub.internal
            ? NULL
            : fm_yaml_get(fm_yaml_get(n->tree, "postprocess"), "jsonl_export");
    bool flatten = (n->task & (FM_WF_RETRIEVAL | FM_WF_RECORD_TASKS)) ||
                   (emits && strcmp(emits, "items") == 0);
    const fm_json_t *list = NULL;
    fm_json_t *result = fm_json_object();
    fm_json_t *items = fm_json_array();
    fm_status_t rc = result && items ? FM_OK : fm_no_memory(err);

    if (rc == FM_OK && flatten) {
        rc = emitted(wf, n, outputs, count, &list, err);
        count = fm_json_len(list);
    }
    if (rc < 0) {
        goto out;
    }
    for (size_t i = 0; i < count && rc == FM_OK; i++) {
        rc = add_item(items, flatten ? fm_json_at(list, i) : outputs[i]);
    }
    if (rc == FM_OK) {
        rc = fm_json_set(result, "items", fm_json_keep(items));
    }
    if (rc == FM_OK && export) {
        rc = add_export(export, records, result);
    }
    if (rc == FM_OK && n->task == FM_WF_SPLIT) {
        rc = add_parts(fm_json_get(outputs[0], "parts"), list, result);
    }
    if (rc < 0) {
        rc = fm_no_memory(err);
        goto out;
    }
    *result_out = result;
    result = NULL;
out:
    fm_json_drop(items);
    fm_json_drop(result);
    return rc;
}
