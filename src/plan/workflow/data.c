/* SPDX-License-Identifier: Apache-2.0 */
/* Records of a node's data, and the values of its items (W44 – W46). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "plan/workflow/graph.h"
#include "plan/workflow/origin.h"
#include "plan/workflow/ref.h"

static fm_status_t no_memory(const fm_wf_resolver_t *r)
{
    return fm_no_memory(r->source.err);
}

static const fm_wf_value_t *data_of(const fm_wf_resolver_t *r)
{
    return fm_wf_get(r->node->tree, "data");
}

static fm_status_t fail_record(const fm_wf_resolver_t *r, size_t index,
                               const char *text)
{
    const fm_wf_value_t *data = data_of(r);

    return fm_wf_fail(&r->source, data->line, data->column, FM_ERR_INVALID,
                      "node %s: record %zu: %s", r->node->pub.name, index,
                      text);
}

fm_status_t fm_wf_section_read(const fm_wf_resolver_t *r, const char *name,
                               const fm_wf_section_t *section, fm_json_t **out)
{
    const fm_wf_value_t *tree = fm_wf_get(r->node->tree, name);
    fm_json_t *json = tree ? NULL : fm_json_object();
    fm_status_t rc = tree || json ? FM_OK : no_memory(r);

    if (tree && (rc = fm_wf_resolve(r, tree, false, &json)) == FM_OK) {
        rc = fm_wf_check(section, json, tree, name, r->node->task, true,
                         &r->source);
    }
    if (rc == FM_OK) {
        *out = json;
        json = NULL;
    }
    fm_json_drop(json);
    return rc;
}

/* --- records -------------------------------------------------------------- */

/* Outputs of the items of @p result, as a list. */
static fm_status_t outputs_of(const fm_wf_resolver_t *r,
                              const fm_json_t *result, fm_json_t **out)
{
    const fm_json_t *items = fm_json_get(result, "items");
    fm_json_t *list = fm_json_array();

    for (size_t i = 0; list && i < fm_json_len(items); i++) {
        const fm_json_t *output = fm_json_get(fm_json_at(items, i), "output");
        if (fm_json_append(list, fm_json_keep(output)) < 0) {
            list = fm_json_drop(list);
        }
    }
    if (!list) {
        return no_memory(r);
    }
    *out = list;
    return FM_OK;
}

static fm_status_t node_records(const fm_wf_resolver_t *r,
                                const fm_wf_origin_t *origin, fm_json_t **out)
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
        return outputs_of(r, result, out);
    }
    if (rc == FM_OK && !fm_json_is(found, FM_JSON_ARRAY)) {
        rc = fm_wf_fail(&r->source, origin->node->line, origin->node->column,
                        FM_ERR_INVALID, "node %s: data from %s is no list (%s)",
                        r->node->pub.name, stage, fm_json_type_name(found));
    }
    if (rc == FM_OK) {
        *out = fm_json_keep(found);
    }
    return rc;
}

/* A column of a template: one value a row, or one for all rows. */
struct column {
    const char *label;
    const fm_json_t *fixed;
    const fm_json_t *items; /* with [*] */
    const char *rest;       /* path inside an item */
};

static fm_status_t read_column(const fm_wf_resolver_t *r,
                               const fm_wf_value_t *tree, struct column *out)
{
    const fm_wf_value_t *node = fm_wf_get(tree, "node");
    const char *path = fm_wf_str(fm_wf_get(tree, "path"));
    const fm_json_t *result = NULL;
    fm_status_t rc = FM_OK;

    path = path ? path : "items[*].output";
    *out = (struct column){.label = fm_wf_get(tree, "label")->text};
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
    const fm_wf_value_t *template = fm_wf_get(data_of(r), "template");
    const fm_wf_value_t *options = fm_wf_get(template, "options");
    const fm_wf_value_t *parts[] = {fm_wf_get(options, "intro"),
                                    fm_wf_get(options, "closing")};
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
                rc = fail_record(r, row, "a template column has no value");
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
        rc = no_memory(r);
    }
    fm_buf_fini(&buf);
    return rc;
}

static fm_status_t template_records(const fm_wf_resolver_t *r, fm_json_t **out)
{
    const fm_wf_value_t *tree =
        fm_wf_get(fm_wf_get(data_of(r), "template"), "columns");
    struct column *columns = fm_calloc(tree->count, sizeof(*columns));
    fm_json_t *prompts = fm_json_array();
    bool varying = false;
    size_t rows = 1;
    fm_status_t rc = columns && prompts ? FM_OK : no_memory(r);

    for (size_t i = 0; i < tree->count && rc == FM_OK; i++) {
        rc = read_column(r, tree->members[i].value, &columns[i]);
        if (rc == FM_OK && columns[i].items) {
            size_t len = fm_json_len(columns[i].items);
            if (varying && len != rows) {
                rc = fm_wf_fail(&r->source, tree->members[i].line,
                                tree->members[i].column, FM_ERR_INVALID,
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

static fm_status_t read_records(const fm_wf_resolver_t *r, fm_json_t **out)
{
    const fm_wf_value_t *data = data_of(r);
    const fm_json_t *result = NULL;
    fm_wf_origin_t origin = {0};
    fm_status_t rc = fm_wf_origin_read(data, &r->source, &origin);

    if (rc < 0) {
        return rc;
    }
    switch (origin.form) {
    case FM_WF_FORM_FILE:
        rc = fm_wf_result_of(r, r->node->data, &result);
        return rc < 0 ? rc : outputs_of(r, result, out);
    case FM_WF_FORM_NODE:
        return node_records(r, &origin, out);
    case FM_WF_FORM_TEMPLATE:
        return template_records(r, out);
    case FM_WF_FORM_LIST:
        break;
    }
    fm_json_t *items = NULL;
    rc = fm_wf_resolve(r, origin.items, true, &items);
    if (rc == FM_OK && !fm_json_is(items, FM_JSON_ARRAY)) {
        rc = fm_wf_fail(&r->source, origin.items->line, origin.items->column,
                        FM_ERR_INVALID, "node %s: data.items is no list (%s)",
                        r->node->pub.name, fm_json_type_name(items));
        items = fm_json_drop(items);
    }
    *out = items ? items : *out;
    return rc;
}

fm_status_t fm_wf_records(const fm_wf_resolver_t *r, fm_json_t **out)
{
    fm_json_t *all = NULL;
    fm_json_t *kept = NULL;
    const fm_wf_value_t *most = fm_wf_get(data_of(r), "max_samples");
    fm_json_t *limit = NULL;
    fm_status_t rc = read_records(r, &all);

    if (rc == FM_OK && most) {
        rc = fm_wf_resolve(r, most, false, &limit);
    }
    size_t count = fm_json_len(all);
    int64_t bound = fm_json_int_or(limit, INT64_MAX);
    if (rc == FM_OK && most && (bound < 1 || !fm_json_is(limit, FM_JSON_INT))) {
        rc = fm_wf_fail(&r->source, most->line, most->column, FM_ERR_INVALID,
                        "data.max_samples; allowed: an integer from 1");
    }
    if (rc == FM_OK && (uint64_t)bound < count) {
        count = (size_t)bound;
    }
    if (rc == FM_OK && count > FM_WORKFLOW_ITEMS_MAX) {
        rc = fm_wf_fail(&r->source, r->node->pub.line, r->node->pub.column,
                        FM_ERR_LIMIT, "node %s: more than %u records",
                        r->node->pub.name, FM_WORKFLOW_ITEMS_MAX);
    }
    if (rc == FM_OK && !(kept = fm_json_array())) {
        rc = no_memory(r);
    }
    for (size_t i = 0; i < count && rc == FM_OK; i++) {
        if (fm_json_append(kept, fm_json_keep(fm_json_at(all, i))) < 0) {
            rc = no_memory(r);
        }
    }
    if (rc == FM_OK) {
        *out = kept;
        kept = NULL;
    }
    fm_json_drop(kept);
    fm_json_drop(limit);
    fm_json_drop(all);
    return rc;
}

/* --- samples -------------------------------------------------------------- */

/* Names of the columns, and the separator, of a node's data. */
struct columns {
    const char *column, *prompt, *response, *text, *chosen, *rejected;
    const char *separator;
};

static const char *name_of(const fm_wf_value_t *data, const char *key,
                           const char *field)
{
    const char *name = fm_wf_str(fm_wf_get(data, key));

    return name ? name : fm_wf_str(fm_wf_get(fm_wf_get(data, "jsonl"), field));
}

static struct columns columns_of(const fm_wf_value_t *data)
{
    return (struct columns){
        .column = fm_wf_str(fm_wf_get(data, "column")),
        .prompt = name_of(data, "prompt_column", "prompt_field"),
        .response = name_of(data, "response_column", "response_field"),
        .text = name_of(data, "text_column", "text_field"),
        .chosen = name_of(data, "chosen_column", "chosen_field"),
        .rejected = name_of(data, "rejected_column", "rejected_field"),
        .separator = fm_wf_str(fm_wf_get(data, "separator")),
    };
}

/* Text of column @p name, else of @p fallbacks; NULL when there is none. */
static const fm_json_t *pick(const fm_json_t *record, const char *name,
                             const char *first, const char *second)
{
    if (name) {
        return fm_json_get(record, name);
    }
    const fm_json_t *value = fm_json_get(record, first);
    return value || !second ? value : fm_json_get(record, second);
}

/* A new text: @p value (numbers too) and @p tail; NULL where it is no text. */
static fm_json_t *text_with(const char *head, const fm_json_t *value,
                            const char *tail)
{
    fm_buf_t buf = {0};
    fm_json_t *text = NULL;

    if (!fm_json_is(value, FM_JSON_STRING) && !fm_json_is_number(value)) {
        return NULL;
    }
    if (head) {
        fm_buf_add_str(&buf, head);
        fm_buf_add_str(&buf, "\n\n");
    }
    fm_wf_add_text(&buf, value);
    fm_buf_add_str(&buf, tail ? tail : "");
    if (!buf.failed) {
        text = fm_json_stringn(buf.len ? (const char *)buf.data : "", buf.len);
    }
    fm_buf_fini(&buf);
    return text;
}

struct sampler {
    const fm_wf_resolver_t *r;
    struct columns columns;
    fm_json_t *inference; /* resolved section, for its system prompt */
    fm_json_t *out;
    const char *kind; /* evaluate: all samples are of one */
};

static fm_status_t add_member(const struct sampler *s, size_t index,
                              fm_json_t *sample, const char *key,
                              const fm_json_t *value, const char *tail)
{
    fm_json_t *text = text_with(NULL, value, tail);
    char message[96];

    if (!text) {
        (void)snprintf(message, sizeof(message),
                       "no text for %s; name its column in data", key);
        return fail_record(s->r, index, message);
    }
    return fm_json_set(sample, key, text) < 0 ? no_memory(s->r) : FM_OK;
}

static fm_status_t add_prompt(struct sampler *s, size_t index,
                              const fm_json_t *record)
{
    const char *name =
        s->columns.column ? s->columns.column : s->columns.prompt;
    const fm_json_t *value = fm_json_is(record, FM_JSON_OBJECT)
                                 ? pick(record, name, "prompt", "text")
                                 : record;
    fm_json_t *item = fm_json_object();
    fm_json_t *text =
        text_with(fm_json_get_str(s->inference, "system_prompt"), value, NULL);
    fm_status_t rc = FM_OK;

    if (!item || !text) {
        fm_json_drop(text);
        fm_json_drop(item);
        return item ? fail_record(s->r, index,
                                  "no prompt text; name its column in "
                                  "data.column")
                    : no_memory(s->r);
    }
    if (fm_json_set(item, "prompt", text) < 0) {
        fm_json_drop(item);
        return no_memory(s->r);
    }
    if (fm_json_append(s->out, item) < 0) {
        rc = no_memory(s->r);
    }
    return rc;
}

/* {prompt, chosen, rejected}, {prompt, completion} or {text} of a record. */
static fm_status_t make_sample(struct sampler *s, size_t index,
                               const fm_json_t *record, bool pairs, bool texts,
                               fm_json_t *sample)
{
    const struct columns *c = &s->columns;
    bool map = fm_json_is(record, FM_JSON_OBJECT);
    const fm_json_t *prompt = pick(record, c->prompt, "prompt", NULL);
    const fm_json_t *chosen = pick(record, c->chosen, "chosen", NULL);
    const fm_json_t *text = map ? pick(record, c->text, "text", NULL) : record;
    const char *kind = "text";
    fm_status_t rc = FM_OK;

    if (pairs && (chosen || !texts)) {
        const fm_json_t *rejected = pick(record, c->rejected, "rejected", NULL);
        kind = "pair";
        if ((rc = add_member(s, index, sample, "prompt", prompt,
                             c->separator)) < 0 ||
            (rc = add_member(s, index, sample, "chosen", chosen, NULL)) < 0 ||
            (rc = add_member(s, index, sample, "rejected", rejected, NULL)) <
                0) {
            return rc;
        }
    } else if (map && !c->text && (prompt || !text)) {
        kind = "completion";
        if ((rc = add_member(s, index, sample, "prompt", prompt,
                             c->separator)) < 0 ||
            (rc =
                 add_member(s, index, sample, "completion",
                            pick(record, c->response, "response", "completion"),
                            NULL)) < 0) {
            return rc;
        }
    } else if ((rc = add_member(s, index, sample, "text", text, NULL)) < 0) {
        return rc;
    }
    if (s->r->node->task == FM_WF_EVALUATE && s->kind &&
        strcmp(s->kind, kind) != 0) {
        return fail_record(s->r, index, "another kind of sample than before");
    }
    s->kind = kind;
    return FM_OK;
}

static fm_status_t add_sample(struct sampler *s, size_t index,
                              const fm_json_t *record)
{
    int task = s->r->node->task;
    bool pairs = task != FM_WF_SFT;
    bool texts = task == FM_WF_SFT || task == FM_WF_EVALUATE;
    fm_json_t *sample = fm_json_object();
    fm_status_t rc = sample
                         ? make_sample(s, index, record, pairs, texts, sample)
                         : no_memory(s->r);

    if (rc < 0) {
        fm_json_drop(sample);
        return rc;
    }
    return fm_json_append(s->out, sample) < 0 ? no_memory(s->r) : FM_OK;
}

/* echo: the record, or its column. */
static fm_status_t add_value(struct sampler *s, size_t index,
                             const fm_json_t *record)
{
    const char *column = s->columns.column;
    const fm_json_t *value = column ? fm_json_get(record, column) : record;
    fm_json_t *item = fm_json_object();

    if (!value) {
        fm_json_drop(item);
        return fail_record(s->r, index, "it has no such column");
    }
    if (!item || fm_json_set(item, "value", fm_json_keep(value)) < 0) {
        fm_json_drop(item);
        return no_memory(s->r);
    }
    return fm_json_append(s->out, item) < 0 ? no_memory(s->r) : FM_OK;
}

fm_status_t fm_wf_items(const fm_wf_resolver_t *r, const fm_json_t *records,
                        fm_json_t **out)
{
    struct sampler s = {.r = r, .columns = columns_of(data_of(r))};
    int task = r->node->task;
    fm_status_t rc = FM_OK;

    s.out = fm_json_array();
    if (!s.out) {
        return no_memory(r);
    }
    if (task == FM_WF_INFERENCE) {
        rc = fm_wf_section_read(r, "inference", &fm_wf_inference, &s.inference);
    }
    for (size_t i = 0; i < fm_json_len(records) && rc == FM_OK; i++) {
        const fm_json_t *record = fm_json_at(records, i);
        rc = task == FM_WF_INFERENCE ? add_prompt(&s, i, record)
             : task == FM_WF_ECHO    ? add_value(&s, i, record)
                                     : add_sample(&s, i, record);
    }
    if (rc == FM_OK) {
        *out = s.out;
        s.out = NULL;
    }
    fm_json_drop(s.inference);
    fm_json_drop(s.out);
    return rc;
}
