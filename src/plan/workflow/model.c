/* SPDX-License-Identifier: Apache-2.0 */
/* Models and adapters: where they come from, and their place in parameters
 * (W49, W52). */
#include "plan/workflow/model.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "plan/workflow/ref.h"

/* --- as written ----------------------------------------------------------- */

static const struct {
    const char *name;
    fm_wf_from_t from;
} types[] = {
    {"random", FM_WF_FROM_RANDOM}, {"digest", FM_WF_FROM_DIGEST},
    {"node", FM_WF_FROM_NODE},     {"path", FM_WF_FROM_PATH},
    {"hub", FM_WF_FROM_HUB},       {"huggingface", FM_WF_FROM_HUB},
    {"name", FM_WF_FROM_NAME},
};

static int64_t config_int(const fm_yaml_value_t *config, const char *key,
                          int64_t fallback)
{
    const fm_yaml_value_t *value = fm_yaml_get(config, key);

    return value && value->type == FM_JSON_INT ? value->integer : fallback;
}

/* Whether heads have a width of their own even when the key is absent. */
static bool has_head_dim(const char *family)
{
    return family && strcmp(family, "qwen3") == 0;
}

static fm_status_t check_config(const fm_yaml_value_t *config,
                                const fm_yaml_source_t *source)
{
    int64_t hidden = config_int(config, "hidden_size", 128);
    int64_t heads = config_int(config, "num_attention_heads", 4);
    int64_t kv_heads = config_int(config, "num_key_value_heads", heads);
    const fm_yaml_value_t *size = fm_yaml_get(config, "hidden_size");
    const char *family = fm_yaml_str(fm_yaml_get(config, "model_type"));

    if (!fm_yaml_get(config, "head_dim") && !has_head_dim(family) &&
        hidden % (2 * heads) != 0) {
        return fm_yaml_fail(source, (size ? size : config)->line,
                            (size ? size : config)->column, FM_ERR_INVALID,
                            "hidden_size is %lld; allowed: a multiple of twice "
                            "num_attention_heads (%lld)",
                            (long long)hidden, (long long)heads);
    }
    if (heads % kv_heads != 0) {
        const fm_yaml_value_t *at = fm_yaml_get(config, "num_key_value_heads");
        return fm_yaml_fail(
            source, at->line, at->column, FM_ERR_INVALID,
            "num_key_value_heads is %lld; allowed: a divisor of "
            "num_attention_heads (%lld)",
            (long long)kv_heads, (long long)heads);
    }
    return FM_OK;
}

static bool is_digest(const char *text)
{
    fm_digest_t digest;

    return text && fm_digest_parse(text, &digest);
}

/* ORG/NAME: no path, no address. */
static bool is_hub_name(const char *text)
{
    static const char chars[] = "abcdefghijklmnopqrstuvwxyz"
                                "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    size_t org = strspn(text, chars);
    size_t name = text[org] == '/' ? strspn(text + org + 1, chars) : 0;

    return org > 0 && name > 0 && text[org + 1 + name] == '\0' &&
           text[0] != '.' && text[org + 1] != '.';
}

/* What a source without a type means. */
static fm_wf_from_t guess(const fm_yaml_value_t *node,
                          const fm_yaml_value_t *identifier)
{
    const char *text = fm_yaml_str(identifier);

    if (node || !text) {
        return node ? FM_WF_FROM_NODE : FM_WF_FROM_RANDOM;
    }
    if (fm_wf_ref_is_whole(text) || strncmp(text, "sha256:", 7) == 0) {
        return FM_WF_FROM_DIGEST;
    }
    if (text[0] == '/' || text[0] == '.') {
        return FM_WF_FROM_PATH;
    }
    return is_hub_name(text) ? FM_WF_FROM_HUB : FM_WF_FROM_NAME;
}

static fm_status_t check_source(const fm_wf_model_origin_t *o,
                                const fm_yaml_source_t *source)
{
    const fm_yaml_value_t *from = o->source;
    bool named = o->from != FM_WF_FROM_RANDOM && o->from != FM_WF_FROM_NODE;
    const fm_yaml_value_t *trust = fm_yaml_get(from, "trust_remote_code");
    const char *text = fm_yaml_str(o->identifier);

    if (named != (o->identifier != NULL) ||
        (o->from == FM_WF_FROM_NODE) != (o->node != NULL)) {
        return fm_yaml_fail_at(
            source, from,
            "model.source; allowed: {type: random}, {type: node, node}, or "
            "{type, identifier} with type digest, path, hub or name");
    }
    if (o->node && !fm_wf_is_literal(o->node)) {
        return fm_yaml_fail_at(source, o->node,
                               "model.source.node is no literal node name");
    }
    if (!o->node && fm_yaml_get(from, "path")) {
        return fm_yaml_fail_at(source, fm_yaml_get(from, "path"),
                               "model.source.path goes with a node alone");
    }
    if (trust && (trust->type != FM_JSON_BOOL || trust->boolean)) {
        return fm_yaml_fail_at(source, trust,
                               "trust_remote_code; allowed: false: code of a "
                               "model is never run");
    }
    if (fm_yaml_get(from, "revision") &&
        (o->from != FM_WF_FROM_HUB || !o->revision)) {
        return fm_yaml_fail_at(source, fm_yaml_get(from, "revision"),
                               "model.source.revision; allowed: literal text, "
                               "with a model of type hub");
    }
    if (!named) {
        return FM_OK;
    }
    if (o->from == FM_WF_FROM_DIGEST
            ? !fm_wf_ref_is_whole(text) && !is_digest(text)
            : !fm_wf_is_literal(o->identifier) ||
                  (o->from == FM_WF_FROM_HUB && !is_hub_name(text))) {
        return fm_yaml_fail(source, o->identifier->line, o->identifier->column,
                            FM_ERR_INVALID, "model %.80s; allowed: %s", text,
                            o->from == FM_WF_FROM_DIGEST
                                ? "sha256:<64 hex digits>, or a reference such "
                                  "as ${NODE.items.0.output.model}"
                            : o->from == FM_WF_FROM_HUB ? "ORG/NAME"
                                                        : "literal text");
    }
    return FM_OK;
}

static fm_status_t read_adapter(const fm_yaml_value_t *list,
                                const fm_yaml_source_t *source,
                                const fm_yaml_value_t **out)
{
    static const char *const keys[] = {"node", "digest", "path"};
    const fm_yaml_value_t *entry =
        list->count == 1 ? list->members[0].value : NULL;
    const fm_yaml_value_t *url = fm_yaml_member(entry, "url")
                                     ? fm_yaml_member(entry, "url")->value
                                     : NULL;
    const fm_yaml_value_t *type = fm_yaml_get(entry, "type");
    const fm_yaml_value_t *named = NULL;
    size_t given = 0;

    if (list->type != FM_JSON_ARRAY || list->count > 1) {
        return fm_yaml_fail_at(source, list,
                               "model.adapters; allowed: a list of at most one "
                               "adapter");
    }
    if (!entry) {
        return FM_OK;
    }
    if (url) {
        return fm_yaml_fail(source, url->line, url->column, FM_ERR_UNSUPPORTED,
                            "model.adapters.0.url is not supported by this "
                            "version: copy the adapter and give its path, or "
                            "name the node that trains it");
    }
    for (size_t i = 0; i < FM_COUNT_OF(keys); i++) {
        const fm_yaml_value_t *value = fm_yaml_get(entry, keys[i]);
        given += value != NULL;
        named = value ? value : named;
    }
    bool digest = named && named == fm_yaml_get(entry, "digest");
    bool fits =
        named && fm_yaml_str(named) &&
        (digest ? is_digest(named->text) || fm_wf_ref_is_whole(named->text)
                : fm_wf_is_literal(named));
    if (given != 1 || entry->count != given + (type != NULL) || !fits ||
        (type && (!fm_yaml_str(type) || strcmp(type->text, "lora") != 0))) {
        return fm_yaml_fail_at(
            source, named && !fits ? named : entry,
            "an adapter; allowed: {type: lora, node: NAME}, "
            "{type: lora, digest: sha256:...} or {type: lora, "
            "path: PATH}");
    }
    *out = entry;
    return FM_OK;
}

fm_status_t fm_wf_model_read(const fm_yaml_value_t *model,
                             const fm_yaml_source_t *source,
                             fm_wf_model_origin_t *out)
{
    const fm_yaml_value_t *from = fm_yaml_get(model, "source");
    const fm_yaml_value_t *type = fm_yaml_get(from, "type");
    const fm_yaml_value_t *revision = fm_yaml_get(from, "revision");
    const fm_yaml_value_t *adapters = fm_yaml_get(model, "adapters");
    const fm_yaml_value_t *config = fm_yaml_get(model, "config");
    fm_wf_model_origin_t o = {.source = from,
                              .identifier = fm_yaml_get(from, "identifier"),
                              .node = fm_yaml_get(from, "node")};
    fm_status_t rc = FM_OK;

    if (model->type != FM_JSON_OBJECT ||
        (from && from->type != FM_JSON_OBJECT)) {
        return fm_yaml_fail_at(source, model,
                               "a model; allowed: {source: {...}, "
                               "config, seed, adapters}");
    }
    if ((o.identifier && !fm_yaml_str(o.identifier)) ||
        (o.node && !fm_yaml_str(o.node))) {
        return fm_yaml_fail_at(source, o.node ? o.node : o.identifier,
                               "model.source; allowed: text");
    }
    o.from = guess(o.node, o.identifier);
    for (size_t i = 0; fm_yaml_str(type) && i < FM_COUNT_OF(types); i++) {
        o.from =
            strcmp(types[i].name, type->text) == 0 ? types[i].from : o.from;
    }
    o.path = fm_yaml_str(fm_yaml_get(from, "path"));
    o.revision = fm_wf_is_literal(revision) ? revision->text : NULL;
    if ((from && (rc = check_source(&o, source)) < 0) ||
        (adapters && (rc = read_adapter(adapters, source, &o.adapter)) < 0) ||
        (config && o.from == FM_WF_FROM_RANDOM &&
         (rc = check_config(config, source)) < 0)) {
        return rc;
    }
    *out = o;
    return FM_OK;
}

/* --- outside -------------------------------------------------------------- */

size_t fm_wf_model_outside(const fm_wf_model_origin_t *origin,
                           fm_wf_outside_t out[2])
{
    const fm_yaml_value_t *path = fm_yaml_get(origin->adapter, "path");
    size_t count = 0;

    switch (origin->from) {
    case FM_WF_FROM_PATH:
        out[count++] = (fm_wf_outside_t){.kind = FM_WORKFLOW_FILE_MODEL_PATH,
                                         .named = origin->identifier};
        break;
    case FM_WF_FROM_HUB:
        out[count++] = (fm_wf_outside_t){.kind = FM_WORKFLOW_FILE_MODEL_HUB,
                                         .named = origin->identifier,
                                         .revision = origin->revision};
        break;
    case FM_WF_FROM_NAME:
        out[count++] = (fm_wf_outside_t){.kind = FM_WORKFLOW_FILE_MODEL_NAME,
                                         .named = origin->identifier};
        break;
    case FM_WF_FROM_RANDOM:
    case FM_WF_FROM_DIGEST:
    case FM_WF_FROM_NODE:
        break;
    }
    if (path) {
        out[count++] = (fm_wf_outside_t){.kind = FM_WORKFLOW_FILE_ADAPTER_PATH,
                                         .named = path};
    }
    return count;
}

char *fm_wf_outside_key(const fm_wf_outside_t *outside)
{
    static const char *const heads[] = {
        [FM_WORKFLOW_FILE_DATA] = "",
        [FM_WORKFLOW_FILE_MODEL_PATH] = "model:",
        [FM_WORKFLOW_FILE_MODEL_HUB] = "hub:",
        [FM_WORKFLOW_FILE_MODEL_NAME] = "name:",
        [FM_WORKFLOW_FILE_ADAPTER_PATH] = "adapter:",
    };

    assert(outside->named); /* a source without a name is refused */
    return fm_asprintf("%s%s%s%s", heads[outside->kind], outside->named->text,
                       outside->revision ? "@" : "",
                       outside->revision ? outside->revision : "");
}

fm_status_t fm_wf_outside_digest(const fm_wf_resolver_t *r,
                                 const fm_wf_outside_t *outside,
                                 const char **digest_out)
{
    char *key = fm_wf_outside_key(outside);
    const char *text = key ? fm_json_get_str(r->files, key) : NULL;
    fm_status_t rc = key ? FM_OK : fm_no_memory(r->source.err);

    if (rc == FM_OK && !is_digest(text)) {
        rc = fm_yaml_fail(&r->source, outside->named->line,
                          outside->named->column, FM_ERR_NOT_FOUND,
                          "node %s: %s %.200s was not stored with the workflow",
                          r->node->pub.name,
                          outside->kind == FM_WORKFLOW_FILE_DATA ? "file"
                          : outside->kind == FM_WORKFLOW_FILE_ADAPTER_PATH
                              ? "adapter"
                              : "model",
                          outside->named->text);
    }
    free(key);
    if (rc == FM_OK) {
        *digest_out = text;
    }
    return rc;
}

/* --- parameters ----------------------------------------------------------- */

static fm_status_t fail_digest(const fm_wf_resolver_t *r,
                               const fm_yaml_value_t *at, const char *what,
                               const fm_json_t *found)
{
    const char *text = fm_json_str(found);

    return fm_yaml_fail(&r->source, at->line, at->column, FM_ERR_INVALID,
                        "node %s: %s is %.80s; allowed: sha256:<64 hex digits>",
                        r->node->pub.name, what,
                        text ? text : fm_json_type_name(found));
}

/* {"digest": text} */
static fm_status_t stored_model(const fm_wf_resolver_t *r,
                                const fm_yaml_value_t *at,
                                const fm_json_t *identifier, fm_json_t **out)
{
    const char *text = fm_json_str(identifier);

    if (!is_digest(text)) {
        return fail_digest(r, at, "model", identifier);
    }
    fm_json_t *made = fm_json_object();
    if (!made || fm_json_set(made, "digest", fm_json_string(text)) < 0) {
        fm_json_drop(made);
        return fm_no_memory(r->source.err);
    }
    *out = made;
    return FM_OK;
}

/* What is not given and has no default is absent, so that the work of models
 * that need none of the keys of families is what it was. */
static void nulls_remove(fm_json_t *config)
{
    for (size_t i = 0; i < fm_wf_model_config.count; i++) {
        const char *name = fm_wf_model_config.keys[i].name;
        if (fm_json_is(fm_json_get(config, name), FM_JSON_NULL)) {
            fm_json_remove(config, name);
        }
    }
}

static fm_status_t random_model(const fm_wf_resolver_t *r,
                                const fm_yaml_value_t *at,
                                const fm_json_t *model, fm_json_t **out)
{
    const fm_json_t *given = fm_json_get(model, "config");
    fm_json_t *config = fm_yaml_fill(&fm_wf_model_config, given, r->node->task);
    fm_json_t *made = fm_json_object();
    fm_status_t rc = config && made ? FM_OK : fm_no_memory(r->source.err);
    int64_t heads = fm_json_get_int(config, "num_attention_heads", 1);
    int64_t kv_heads = fm_json_get_int(given, "num_key_value_heads", heads);
    nulls_remove(config);
    bool even = fm_json_get(config, "head_dim") ||
                has_head_dim(fm_json_get_str(config, "model_type")) ||
                fm_json_get_int(config, "hidden_size", 0) % (2 * heads) == 0;

    if (rc == FM_OK && (!even || heads % kv_heads)) {
        rc =
            fm_yaml_fail(&r->source, at->line, at->column, FM_ERR_INVALID,
                         "node %s: model.config: without head_dim hidden_size "
                         "must be a multiple of twice num_attention_heads, and "
                         "that one of num_key_value_heads",
                         r->node->pub.name);
    }
    if (rc == FM_OK &&
        (fm_json_set(config, "num_key_value_heads", fm_json_int(kv_heads)) <
             0 ||
         fm_json_set(made, "config", fm_json_keep(config)) < 0)) {
        rc = fm_no_memory(r->source.err);
    }
    if (rc == FM_OK) {
        rc = fm_wf_put_seed(r, model, made);
    }
    if (rc == FM_OK) {
        *out = made;
        made = NULL;
    }
    fm_json_drop(made);
    fm_json_drop(config);
    return rc;
}

/* The adapter that the list names; NULL stays where there is none. */
static fm_status_t listed_adapter(const fm_wf_resolver_t *r,
                                  const fm_yaml_value_t *entry,
                                  const fm_json_t *model, fm_json_t **out)
{
    const fm_yaml_value_t *node = fm_yaml_get(entry, "node");
    const fm_yaml_value_t *path = fm_yaml_get(entry, "path");
    const fm_json_t *found = NULL;
    const char *text = NULL;
    fm_status_t rc = FM_OK;

    if (path) {
        const fm_wf_outside_t outside = {.kind = FM_WORKFLOW_FILE_ADAPTER_PATH,
                                         .named = path};
        rc = fm_wf_outside_digest(r, &outside, &text);
    } else if (node) {
        rc = fm_wf_ref_value(r, node->text, "items.0.output.adapter",
                             node->line, node->column, &found);
        text = fm_json_str(found);
    } else {
        found = fm_json_path(model, "adapters.0.digest");
        text = fm_json_str(found);
    }
    if (rc == FM_OK && !is_digest(text)) {
        rc = fail_digest(r, entry, "adapter", found);
    }
    if (rc == FM_OK && !(*out = fm_json_string(text))) {
        rc = fm_no_memory(r->source.err);
    }
    return rc;
}

fm_status_t fm_wf_model_of_output(const fm_wf_resolver_t *r, uint32_t node,
                                  fm_json_t **model_out,
                                  fm_json_t **adapter_out)
{
    const fm_wf_node_private_t *from = &r->wf->nodes[node];
    const fm_yaml_value_t at = {.line = r->node->pub.line,
                                .column = r->node->pub.column};
    const fm_json_t *result = NULL;
    fm_json_t *model = NULL;
    fm_status_t rc = fm_wf_result_of(r, node, &result);

    if (rc < 0) {
        return rc;
    }
    const fm_json_t *output = fm_json_path(result, "items.0.output");
    const fm_json_t *adapter = fm_json_get(output, "adapter");
    if (!fm_json_get(output, "model")) {
        return fm_yaml_fail(&r->source, at.line, at.column, FM_ERR_NOT_FOUND,
                            "node %s: the result of %s has no "
                            "items.0.output.model",
                            r->node->pub.name, from->pub.name);
    }
    if ((rc = stored_model(r, &at, fm_json_get(output, "model"), &model)) < 0) {
        return rc;
    }
    if (adapter && !is_digest(fm_json_str(adapter))) {
        fm_json_drop(model);
        return fail_digest(r, &at, "adapter", adapter);
    }
    *model_out = model;
    *adapter_out = adapter ? fm_json_keep(adapter) : NULL;
    return FM_OK;
}

/* The model alone, or with the adapter that comes with it. */
static fm_status_t read_source(const fm_wf_resolver_t *r,
                               const fm_wf_model_origin_t *o,
                               const fm_yaml_value_t *tree,
                               const fm_json_t *model, fm_json_t **model_out,
                               fm_json_t **adapter_out)
{
    const fm_json_t *found = NULL;
    fm_wf_outside_t outside[2];
    const char *text = NULL;
    fm_status_t rc = FM_OK;

    switch (o->from) {
    case FM_WF_FROM_RANDOM:
        return random_model(r, tree, model, model_out);
    case FM_WF_FROM_DIGEST:
        return stored_model(r, o->identifier,
                            fm_json_path(model, "source.identifier"),
                            model_out);
    case FM_WF_FROM_NODE:
        if (!o->path) {
            return fm_wf_model_of_output(
                r, fm_wf_target(r->wf, r->node, o->node->text), model_out,
                adapter_out);
        }
        rc = fm_wf_ref_value(r, o->node->text, o->path, o->node->line,
                             o->node->column, &found);
        return rc < 0 ? rc : stored_model(r, o->node, found, model_out);
    case FM_WF_FROM_PATH:
    case FM_WF_FROM_HUB:
    case FM_WF_FROM_NAME:
        break;
    }
    (void)fm_wf_model_outside(o, outside);
    if ((rc = fm_wf_outside_digest(r, &outside[0], &text)) < 0) {
        return rc;
    }
    fm_json_t *digest = fm_json_string(text);
    rc = digest ? stored_model(r, o->identifier, digest, model_out)
                : fm_no_memory(r->source.err);
    fm_json_drop(digest);
    return rc;
}

fm_status_t fm_wf_model_params(const fm_wf_resolver_t *r,
                               const fm_yaml_value_t *tree, const char *path,
                               fm_json_t **model_out, fm_json_t **adapter_out)
{
    fm_wf_model_origin_t origin = {0};
    fm_json_t *given = NULL;
    fm_json_t *model = NULL;
    fm_json_t *own = NULL;
    fm_json_t *adapter = NULL;
    fm_status_t rc = fm_wf_resolve(r, tree, false, &given);

    if (rc < 0 ||
        (rc = fm_yaml_check(&fm_wf_model, given, tree, path, r->node->task,
                            NULL, &r->source)) < 0 ||
        (rc = fm_wf_model_read(tree, &r->source, &origin)) < 0 ||
        (rc = read_source(r, &origin, tree, given, &model, &own)) < 0 ||
        (origin.adapter &&
         (rc = listed_adapter(r, origin.adapter, given, &adapter)) < 0)) {
        goto out;
    }
    if (own && adapter) {
        rc =
            fm_yaml_fail(&r->source, origin.adapter->line,
                         origin.adapter->column, FM_ERR_INVALID,
                         "node %s: the model of %s brings an adapter; allowed: "
                         "no second one (source.path: items.0.output.model "
                         "takes the model alone)",
                         r->node->pub.name, origin.node->text);
        goto out;
    }
    *model_out = model;
    *adapter_out = own ? own : adapter;
    model = own = adapter = NULL;
out:
    fm_json_drop(given);
    fm_json_drop(model);
    fm_json_drop(own);
    fm_json_drop(adapter);
    return rc;
}
