/* SPDX-License-Identifier: Apache-2.0 */
/* Rules of one node that the tables cannot say (W30, W44 – W51). */
#include <string.h>

#include "base/mem.h"
#include "base/path.h"
#include "plan/workflow/graph.h"
#include "plan/workflow/model.h"
#include "plan/workflow/origin.h"
#include "plan/workflow/ref.h"
#include "text/yaml/number.h"

/* --- data ----------------------------------------------------------------- */

static fm_status_t check_template(const fm_yaml_value_t *template,
                                  const fm_yaml_source_t *source)
{
    static const char *const keys[] = {"label", "node", "path"};
    const fm_yaml_value_t *columns = fm_yaml_get(template, "columns");

    if (!columns || columns->type != FM_JSON_ARRAY || !columns->count) {
        return fm_yaml_fail_at(
            source, columns ? columns : template,
            "template.columns; allowed: a list of {label, node, path}");
    }
    for (size_t i = 0; i < columns->count; i++) {
        const fm_yaml_value_t *column = columns->members[i].value;
        size_t known = 0;
        for (size_t k = 0; k < FM_COUNT_OF(keys); k++) {
            const fm_yaml_value_t *value = fm_yaml_get(column, keys[k]);
            known += fm_wf_is_literal(value);
        }
        if (!fm_yaml_get(column, "label") || !fm_yaml_get(column, "node") ||
            known != column->count) {
            return fm_yaml_fail_at(
                source, column,
                "a template column; allowed: {label, node, path} of "
                "literal text");
        }
    }
    return FM_OK;
}

static fm_status_t check_data(const fm_yaml_value_t *tree, int task,
                              const fm_yaml_source_t *source)
{
    const fm_yaml_value_t *data = fm_yaml_get(tree, "data");
    const fm_yaml_value_t *columns = fm_yaml_get(data, "columns");
    static const char *const literal[] = {
        "column",          "prompt_column",  "response_column",
        "text_column",     "chosen_column",  "rejected_column",
        "separator",       "prompt_field",   "response_field",
        "chosen_field",    "rejected_field", "text_field",
        "messages_column", "messages_field", "choices_column",
        "answer_column",   "dataset"};
    fm_wf_origin_t origin = {0};
    fm_status_t rc = FM_OK;

    if (!data) {
        return fm_yaml_fail_at(source, tree, "this task type needs data");
    }
    if ((rc = fm_wf_origin_read(data, source, &origin)) < 0) {
        return rc;
    }
    for (size_t i = 0; columns && i < columns->count; i++) {
        if (!fm_wf_is_literal(columns->members[i].value)) {
            return fm_yaml_fail_at(source, columns->members[i].value,
                                   "data.columns; allowed: names");
        }
    }
    for (size_t i = 0; i < FM_COUNT_OF(literal); i++) {
        const fm_yaml_value_t *name = fm_yaml_get(data, literal[i]);
        name =
            name ? name : fm_yaml_get(fm_yaml_get(data, "jsonl"), literal[i]);
        if (name && fm_wf_ref_inside(fm_yaml_str(name))) {
            return fm_yaml_fail_at(source, name,
                                   "a reference; allowed: literal text");
        }
    }
    if (task == FM_WF_RETRIEVAL && origin.form != FM_WF_FORM_FILE) {
        return fm_yaml_fail_at(
            source, data,
            "data_retrieval reads a file; allowed: data.path with type "
            "jsonl, csv, text or hdf5");
    }
    return origin.form == FM_WF_FORM_TEMPLATE
               ? check_template(fm_yaml_get(data, "template"), source)
               : FM_OK;
}

/* --- scripts -------------------------------------------------------------- */

static fm_status_t check_inputs(const fm_yaml_value_t *inputs,
                                const fm_yaml_source_t *source)
{
    bool map = inputs->type == FM_JSON_OBJECT;

    if (!map && inputs->type != FM_JSON_ARRAY) {
        return fm_yaml_fail_at(
            source, inputs,
            "inputs; allowed: a list of paths, or {name: path, ${...} "
            "or {node, path}}");
    }
    for (size_t i = 0; i < inputs->count; i++) {
        const fm_yaml_member_t *input = &inputs->members[i];
        const char *text = fm_yaml_str(input->value);
        if (map ? !fm_path_is_inside(input->key)
                : !fm_wf_is_literal(input->value)) {
            return fm_yaml_fail(source, input->line, input->column,
                                FM_ERR_INVALID, "input; allowed: %s",
                                map ? "a relative name without .."
                                    : "a literal local path");
        }
        bool node = input->value->type == FM_JSON_OBJECT &&
                    input->value->count == 2 &&
                    fm_yaml_str(fm_yaml_get(input->value, "node")) &&
                    fm_yaml_str(fm_yaml_get(input->value, "path"));
        bool path = text && *text &&
                    (fm_wf_ref_is_whole(text) || !fm_wf_ref_inside(text));
        if (!path && !node) {
            return fm_yaml_fail_at(
                source, input->value,
                "input; allowed: a literal local path, ${...} or "
                "{node, path}");
        }
    }
    return FM_OK;
}

static fm_status_t check_command(const fm_yaml_value_t *tree,
                                 const fm_yaml_source_t *source)
{
    const fm_yaml_value_t *argv = fm_yaml_get(tree, "command");
    const fm_yaml_value_t *env = fm_yaml_get(tree, "env");
    const fm_yaml_value_t *inputs = fm_yaml_get(tree, "inputs");
    const fm_yaml_value_t *outputs = fm_yaml_get(tree, "outputs");
    fm_status_t rc = FM_OK;

    if (!argv || argv->type != FM_JSON_ARRAY || !argv->count) {
        return fm_yaml_fail_at(
            source, argv ? argv : tree,
            "command; allowed: a list of arguments, the program "
            "first");
    }
    for (size_t i = 0; i < argv->count; i++) {
        if (!argv->members[i].value->text) {
            return fm_yaml_fail_at(
                source, argv->members[i].value,
                "an argument that is a list or a map; allowed: text, "
                "numbers");
        }
    }
    for (size_t i = 0; env && i < env->count; i++) {
        const fm_yaml_member_t *member = &env->members[i];
        if (!*member->key || strchr(member->key, '=') || !member->value->text) {
            return fm_yaml_fail(
                source, member->line, member->column, FM_ERR_INVALID,
                "env %.60s; allowed: NAME: text, no = in NAME", member->key);
        }
    }
    for (size_t i = 0; outputs && i < outputs->count; i++) {
        if (!fm_path_is_inside(fm_yaml_str(outputs->members[i].value))) {
            return fm_yaml_fail_at(
                source, outputs->members[i].value,
                "output; allowed: a relative name without ..");
        }
    }
    if (inputs) {
        rc = check_inputs(inputs, source);
    }
    return rc;
}

fm_status_t fm_wf_code_check(const fm_yaml_value_t *code,
                             const fm_yaml_value_t *entrypoint,
                             const fm_yaml_value_t *at,
                             const fm_yaml_source_t *source)
{
    const char *text = fm_yaml_str(code);
    bool path = code && code->type == FM_JSON_OBJECT && code->count == 1 &&
                fm_wf_is_literal(fm_yaml_get(code, "path"));

    if (entrypoint && !fm_wf_is_literal(entrypoint)) {
        return fm_yaml_fail_at(source, entrypoint,
                               "a reference; allowed: literal text");
    }
    return path || (text && *text)
               ? FM_OK
               : fm_yaml_fail_at(source, code ? code : at,
                                 "python needs code: text, or {path: file.py}");
}

static fm_status_t check_python(const fm_yaml_value_t *tree,
                                const fm_yaml_source_t *source)
{
    const fm_yaml_value_t *emits = fm_yaml_get(tree, "emits");

    if (emits && !fm_wf_is_literal(emits)) {
        return fm_yaml_fail_at(source, emits,
                               "a reference; allowed: literal text");
    }
    return fm_wf_code_check(fm_yaml_get(tree, "code"),
                            fm_yaml_get(tree, "entrypoint"), tree, source);
}

static fm_status_t check_condition(const fm_yaml_value_t *condition,
                                   const fm_yaml_source_t *source)
{
    return fm_wf_is_literal(fm_yaml_get(condition, "node")) &&
                   fm_wf_is_literal(fm_yaml_get(condition, "field")) &&
                   fm_yaml_get(condition, "equals")
               ? FM_OK
               : fm_yaml_fail_at(source, condition,
                                 "condition; allowed: {node: NAME, field: "
                                 "items.0.output, equals: value}");
}

static fm_status_t check_field(const fm_yaml_member_t *field,
                               const fm_yaml_source_t *source)
{
    const fm_yaml_value_t *value = field->value;
    const char *from = fm_yaml_str(fm_yaml_get(value, "from"));
    const fm_yaml_value_t *key = fm_yaml_get(value, "key");
    const fm_yaml_value_t *literal = fm_yaml_get(value, "value");
    bool ok = false;

    if (from && strcmp(from, "literal") == 0) {
        ok = literal && !key && value->count == 2;
    } else if (from && strcmp(from, "metadata") == 0) {
        ok = fm_wf_is_literal(key) && value->count == 2;
    } else if (from && strcmp(from, "output") == 0) {
        ok = value->count == 1 || (fm_wf_is_literal(key) && value->count == 2);
    }
    return ok ? FM_OK
              : fm_yaml_fail(
                    source, field->line, field->column, FM_ERR_INVALID,
                    "export field %.60s; allowed: {from: output, key}, "
                    "{from: metadata, key}, {from: literal, value}",
                    field->key);
}

static fm_status_t check_export(const fm_yaml_value_t *tree,
                                const fm_yaml_source_t *source)
{
    const fm_yaml_value_t *export =
        fm_yaml_get(fm_yaml_get(tree, "postprocess"), "jsonl_export");
    const fm_yaml_value_t *fields = fm_yaml_get(export, "fields");
    const fm_yaml_value_t *required = fm_yaml_get(export, "required_fields");
    fm_status_t rc = FM_OK;

    if (!export) {
        return FM_OK;
    }
    if (!fields || fields->type != FM_JSON_OBJECT || !fields->count) {
        return fm_yaml_fail_at(source, export, "jsonl_export needs fields");
    }
    for (size_t i = 0; i < fields->count && rc == FM_OK; i++) {
        rc = check_field(&fields->members[i], source);
    }
    for (size_t i = 0; required && i < required->count && rc == FM_OK; i++) {
        const char *name = fm_yaml_str(required->members[i].value);
        if (!name || !fm_yaml_get(fields, name)) {
            rc = fm_yaml_fail_at(source, required->members[i].value,
                                 "required_fields; allowed: names of fields");
        }
    }
    return rc;
}

/* Sizes of memory are needs of the placement: not to be guessed at. */
static fm_status_t check_hardware(const fm_yaml_value_t *tree,
                                  const fm_yaml_source_t *source)
{
    const fm_yaml_value_t *hardware =
        fm_yaml_get(fm_yaml_get(tree, "resources"), "hardware");
    double bytes = 0;
    fm_status_t rc = fm_yaml_bytes(hardware, "memory", &bytes, source);

    return rc < 0 ? rc
                  : fm_yaml_bytes(fm_yaml_get(hardware, "gpu"), "memory",
                                  &bytes, source);
}

fm_status_t fm_wf_rules_check(const fm_yaml_value_t *tree, int task,
                              const fm_yaml_source_t *source)
{
    const fm_yaml_value_t *condition = fm_yaml_get(tree, "condition");
    const fm_yaml_value_t *model = fm_yaml_get(tree, "model");
    fm_wf_model_origin_t origin = {0};
    fm_status_t rc = FM_OK;

    if (condition && (rc = check_condition(condition, source)) < 0) {
        return rc;
    }
    if ((rc = check_hardware(tree, source)) < 0 ||
        (rc = check_export(tree, source)) < 0 ||
        ((task & FM_WF_WITH_DATA) &&
         (rc = check_data(tree, task, source)) < 0)) {
        return rc;
    }
    if ((task & FM_WF_WITH_MODEL) &&
        (rc = model ? fm_wf_model_read(model, source, &origin)
                    : fm_yaml_fail_at(source, tree,
                                      "this task type needs a model")) < 0) {
        return rc;
    }
    if (task == FM_WF_COMMAND) {
        return check_command(tree, source);
    }
    return task == FM_WF_PYTHON ? check_python(tree, source)
                                : fm_wf_rules_task(tree, task, source);
}
