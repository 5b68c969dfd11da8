/* SPDX-License-Identifier: Apache-2.0 */
/* Stages × trials to nodes: checks, references, internal nodes, files. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "plan/workflow/graph.h"
#include "plan/workflow/model.h"
#include "plan/workflow/origin.h"
#include "plan/workflow/ref.h"
#include "plan/workflow/reward.h"

/* Values and edges of all nodes: what a sweep may make this module walk. */
#define WALK_MAX 50000000u

fm_status_t fm_wf_walk(fm_workflow_t *wf, const fm_wf_stage_t *stage,
                       uint64_t values, const fm_yaml_source_t *source)
{
    wf->walked += values;
    return wf->walked <= WALK_MAX
               ? FM_OK
               : fm_yaml_fail(source, stage->line, stage->column, FM_ERR_LIMIT,
                              "the specs of all trials hold more than %u "
                              "values; put data into a file",
                              WALK_MAX);
}

uint32_t fm_wf_target(const fm_workflow_t *wf, const fm_wf_node_private_t *node,
                      const char *stage)
{
    const uint64_t *found = fm_strmap_get(wf->stage_names, stage);

    if (!found) {
        return FM_WF_NONE;
    }
    const fm_wf_stage_t *s = &wf->stages[*found];
    return s->nodes ? s->nodes[s->swept ? node->trial : 0] : FM_WF_NONE;
}

/* --- references and deps -------------------------------------------------- */

static fm_status_t fail_ref(const fm_workflow_t *wf, const fm_wf_stage_t *stage,
                            const fm_wf_ref_t *ref,
                            const fm_yaml_source_t *source)
{
    bool known = fm_strmap_get(wf->stage_names, ref->stage) != NULL;
    char hint[192];

    return fm_yaml_fail(
        source, ref->line, ref->column, FM_ERR_INVALID,
        known ? "%.80s is not upstream of node %s; add it to dependsOn%s"
              : "reference to %.80s, which is no node upstream of %s%s",
        ref->stage, stage->name,
        known ? ""
              : fm_wf_suggest_stage(wf, ref->stage, NULL, hint, sizeof(hint)));
}

static fm_status_t bind_refs(fm_workflow_t *wf, fm_wf_node_private_t *node,
                             const fm_yaml_source_t *source)
{
    const fm_wf_stage_t *stage = &wf->stages[node->stage];
    fm_wf_ref_t *refs = NULL;
    fm_status_t rc = fm_wf_refs_find(&wf->arena, node->tree, source, &refs,
                                     &node->ref_count);

    for (size_t i = 0; i < node->ref_count && rc == FM_OK; i++) {
        const uint64_t *found = fm_strmap_get(wf->stage_names, refs[i].stage);
        if (!found || !(stage->upstream[*found / 64] >> (*found % 64) & 1)) {
            return fail_ref(wf, stage, &refs[i], source);
        }
        refs[i].target = fm_wf_target(wf, node, refs[i].stage);
        const fm_yaml_value_t *up = wf->nodes[refs[i].target].tree;
        if (strncmp(refs[i].path, "export", 6) == 0 &&
            !fm_yaml_get(fm_yaml_get(up, "postprocess"), "jsonl_export")) {
            return fm_yaml_fail(source, refs[i].line, refs[i].column,
                                FM_ERR_INVALID,
                                "node %s has no export; give it "
                                "postprocess.jsonl_export",
                                refs[i].stage);
        }
    }
    node->refs = refs;
    return rc;
}

static int compare_u32(const void *a, const void *b)
{
    const uint32_t *left = a;
    const uint32_t *right = b;

    return *left < *right ? -1 : *left > *right;
}

/* Sort @p nodes and drop what is there twice. */
static size_t distinct(uint32_t *nodes, size_t count)
{
    size_t kept = 0;

    if (count > 1) {
        qsort(nodes, count, sizeof(*nodes), compare_u32);
    }
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || nodes[i] != nodes[i - 1]) {
            nodes[kept++] = nodes[i];
        }
    }
    return kept;
}

/* What the node reads: targets of its references, unless they are of rewards
 * and @p rewards is false, and its data. */
static fm_status_t list_reads(fm_workflow_t *wf,
                              const fm_wf_node_private_t *node, bool rewards,
                              size_t room, uint32_t **reads_out,
                              size_t *count_out, fm_error_t *err)
{
    uint32_t *reads = fm_yaml_alloc(&wf->arena, (node->ref_count + 1 + room) *
                                                    sizeof(*reads));
    size_t count = 0;

    if (!reads) {
        return fm_no_memory(err);
    }
    for (size_t i = 0; i < node->ref_count; i++) {
        if (rewards || !node->refs[i].reward) {
            reads[count++] = node->refs[i].target;
        }
    }
    if (node->data != FM_WF_NONE) {
        reads[count++] = node->data;
    }
    *count_out = distinct(reads, count);
    *reads_out = reads;
    return FM_OK;
}

static fm_status_t bind_deps(fm_workflow_t *wf, fm_wf_node_private_t *node,
                             fm_error_t *err)
{
    const fm_wf_stage_t *stage = &wf->stages[node->stage];
    const fm_wf_chain_t *chain = node->chain;
    uint32_t *deps = NULL;
    size_t count = 0;
    size_t room = stage->dep_count + 1 + (chain ? chain->stride + 1 : 0);
    fm_status_t rc = list_reads(wf, node, true, room, &deps, &count, err);

    if (rc < 0) {
        return rc;
    }
    for (size_t i = 0; i < stage->dep_count; i++) {
        deps[count++] = fm_wf_target(wf, node, wf->stages[stage->deps[i]].name);
    }
    if (node->reference != FM_WF_NONE) {
        deps[count++] = node->reference;
    }
    if (chain) {
        /* all of the last iteration but itself, and the update before */
        uint32_t last = chain->first + chain->stride * chain->iterations - 1;
        uint32_t from = last + 1 - chain->stride;
        from -= chain->iterations > 1 ? 1 : 0;
        while (from < last) {
            deps[count++] = from++;
        }
    }
    node->pub.deps = deps;
    node->pub.dep_count = distinct(deps, count);
    return FM_OK;
}

/* --- files ---------------------------------------------------------------- */

static fm_status_t add_file(fm_workflow_t *wf, uint32_t node,
                            const fm_wf_outside_t *outside,
                            const fm_yaml_source_t *source)
{
    const fm_yaml_value_t *at = outside->named;
    char *made = fm_wf_outside_key(outside);
    const char *key =
        made ? fm_yaml_text(&wf->arena, made, strlen(made)) : NULL;
    fm_status_t rc = FM_OK;

    free(made);
    if (!key) {
        return fm_no_memory(source->err);
    }
    const uint64_t *known = fm_strmap_get(wf->file_paths, key);
    if (known) {
        return wf->files[*known].kind == outside->kind
                   ? FM_OK
                   : fm_yaml_fail(source, at->line, at->column, FM_ERR_INVALID,
                                  "%.200s is a file and the name of a model; "
                                  "write the file as ./%.200s",
                                  key, key);
    }
    if ((rc = fm_grow(&wf->files, &wf->file_capacity, wf->file_count,
                      sizeof(*wf->files), source->err)) < 0 ||
        (rc = fm_strmap_put(wf->file_paths, key, wf->file_count, source->err)) <
            0) {
        return rc;
    }
    wf->files[wf->file_count++] =
        (fm_workflow_file_t){.key = key,
                             .kind = outside->kind,
                             .path = at->text,
                             .revision = outside->revision,
                             .node = node,
                             .line = at->line,
                             .column = at->column};
    return FM_OK;
}

static fm_status_t add_data_file(fm_workflow_t *wf, uint32_t node,
                                 const fm_yaml_value_t *path,
                                 const fm_yaml_source_t *source)
{
    const fm_wf_outside_t outside = {.kind = FM_WORKFLOW_FILE_DATA,
                                     .named = path};

    return add_file(wf, node, &outside, source);
}

/* {path} of the code of a section, where it is one. */
static fm_status_t add_code(fm_workflow_t *wf, uint32_t node,
                            const fm_yaml_value_t *section,
                            const fm_yaml_source_t *source)
{
    const fm_yaml_value_t *path =
        fm_yaml_get(fm_yaml_get(section, "code"), "path");

    return path ? add_data_file(wf, node, path, source) : FM_OK;
}

static fm_status_t add_model(fm_workflow_t *wf, uint32_t node,
                             const fm_yaml_value_t *model,
                             const fm_yaml_source_t *source)
{
    fm_wf_model_origin_t origin = {0};
    fm_wf_outside_t outside[2];
    fm_status_t rc = model ? fm_wf_model_read(model, source, &origin) : FM_OK;
    size_t count =
        model && rc == FM_OK ? fm_wf_model_outside(&origin, outside) : 0;

    for (size_t i = 0; i < count && rc == FM_OK; i++) {
        rc = add_file(wf, node, &outside[i], source);
    }
    return rc;
}

static fm_status_t add_files(fm_workflow_t *wf, uint32_t index,
                             const fm_yaml_source_t *source)
{
    static const char *const scripts[] = {"map", "filter"};
    static const char *const models[] = {"model", "opponent"};
    const fm_wf_node_private_t *node = &wf->nodes[index];
    const fm_yaml_value_t *tree = node->tree;
    const fm_yaml_value_t *inputs = fm_yaml_get(tree, "inputs");
    fm_status_t rc = FM_OK;

    if (node->task == FM_WF_RETRIEVAL) {
        fm_wf_origin_t origin = {0};
        rc = fm_wf_origin_read(fm_yaml_get(tree, "data"), source, &origin);
        return rc < 0 ? rc : add_data_file(wf, index, origin.path, source);
    }
    rc = add_code(wf, index, tree, source);
    for (size_t i = 0; i < FM_COUNT_OF(scripts) && rc == FM_OK; i++) {
        rc = add_code(wf, index, fm_yaml_get(tree, scripts[i]), source);
    }
    for (size_t i = 0; i < FM_COUNT_OF(models) && rc == FM_OK; i++) {
        rc = add_model(wf, index, fm_yaml_get(tree, models[i]), source);
    }
    for (size_t i = 0; i < fm_wf_reward_count(tree) && rc == FM_OK; i++) {
        const fm_yaml_value_t *entry = fm_wf_reward_at(tree, i);
        rc = add_code(wf, index, entry, source);
        rc = rc < 0 ? rc
                    : add_model(wf, index, fm_yaml_get(entry, "model"), source);
    }
    for (size_t i = 0; inputs && i < inputs->count && rc == FM_OK; i++) {
        const fm_yaml_value_t *path = inputs->members[i].value;
        if (fm_yaml_str(path) && !fm_wf_ref_inside(path->text)) {
            rc = add_data_file(wf, index, path, source);
        }
    }
    return rc;
}

/* --- making nodes --------------------------------------------------------- */

fm_status_t fm_wf_node_append(fm_workflow_t *wf,
                              const fm_wf_node_private_t *model,
                              const char *suffix, const char *stage_name,
                              const fm_yaml_source_t *source,
                              uint32_t *index_out)
{
    const fm_wf_stage_t *stage = &wf->stages[model->stage];
    uint32_t index = (uint32_t)wf->node_count;
    fm_status_t rc = FM_OK;

    if (wf->node_count >= FM_WORKFLOW_NODES_MAX) {
        return fm_yaml_fail(source, stage->line, stage->column, FM_ERR_LIMIT,
                            "more than %u nodes after the sweep, internal ones "
                            "included",
                            FM_WORKFLOW_NODES_MAX);
    }
    if ((rc = fm_grow(&wf->nodes, &wf->node_capacity, wf->node_count,
                      sizeof(*wf->nodes), source->err)) < 0) {
        return rc;
    }
    fm_wf_node_private_t *node = &wf->nodes[index];
    const fm_wf_trial_t *trial =
        stage->swept ? &wf->trials[model->trial] : NULL;
    *node = *model;
    node->pub.line = stage->line;
    node->pub.column = stage->column;
    node->pub.trial = trial ? trial->pub.name : NULL;
    node->pub.trial_values = trial ? trial->pub.values : NULL;
    node->pub.task_type = fm_wf_task_name(node->task);
    node->pub.stage =
        stage_name ? stage_name
                   : fm_yaml_printf(&wf->arena, "%s%s", stage->name, suffix);
    node->pub.name = trial ? fm_yaml_printf(&wf->arena, "%s@%s%s", stage->name,
                                            trial->pub.name, suffix)
                           : node->pub.stage;
    node->pub.spec = fm_yaml_json(&wf->arena, node->tree);
    if (!node->pub.name || !node->pub.stage || !node->pub.spec) {
        return fm_no_memory(source->err);
    }
    wf->node_count++;
    *index_out = index;
    return fm_strmap_put(wf->node_names, node->pub.name, index, source->err);
}

/* Append a node; its fields are set, its refs, deps and files bound. */
static fm_status_t add_node(fm_workflow_t *wf,
                            const fm_wf_node_private_t *model,
                            const char *suffix, const fm_yaml_source_t *source,
                            uint32_t *index_out)
{
    uint32_t index = 0;
    fm_status_t rc = fm_wf_node_append(wf, model, suffix, NULL, source, &index);

    if (rc < 0 ||
        (!model->refs && (rc = bind_refs(wf, &wf->nodes[index], source)) < 0) ||
        (rc = bind_deps(wf, &wf->nodes[index], source->err)) < 0 ||
        (rc = add_files(wf, index, source)) < 0) {
        return rc;
    }
    *index_out = index;
    return FM_OK;
}

/* The keys of @p map that are named, as a map. */
static const fm_yaml_value_t *pick(fm_yaml_arena_t *arena,
                                   const fm_yaml_value_t *map,
                                   const char *const *names, size_t count)
{
    fm_yaml_member_t members[16];
    size_t used = 0;

    for (size_t i = 0; i < count && used < FM_COUNT_OF(members); i++) {
        const fm_yaml_member_t *member = fm_yaml_member(map, names[i]);
        if (member) {
            members[used++] = *member;
        }
    }
    return fm_yaml_container(arena, FM_JSON_OBJECT, map->line, map->column,
                             members, used);
}

static fm_status_t put(fm_workflow_t *wf, const fm_yaml_value_t **tree,
                       const char *key, const fm_yaml_value_t *value,
                       fm_error_t *err)
{
    return value ? fm_yaml_put(&wf->arena, *tree, key, value, tree, err)
                 : fm_no_memory(err);
}

/* NODE/data: reads the file that a node's data names (W43). */
static fm_status_t add_data_node(fm_workflow_t *wf, fm_wf_node_private_t *owner,
                                 const fm_wf_origin_t *origin,
                                 const fm_yaml_source_t *source)
{
    static const char *const reading[] = {"split",  "test_fraction", "shuffle",
                                          "seed",   "columns",       "chunk",
                                          "dataset"};
    static const char *const terms[] = {"seed"};
    const fm_yaml_value_t *data = fm_yaml_get(owner->tree, "data");
    const fm_yaml_value_t *read =
        pick(&wf->arena, data, reading, FM_COUNT_OF(reading));
    const fm_yaml_value_t *tree =
        pick(&wf->arena, owner->tree, terms, FM_COUNT_OF(terms));
    fm_wf_node_private_t node = *owner;
    fm_error_t *err = source->err;
    fm_status_t rc = FM_OK;

    if (!read || !tree) {
        return fm_no_memory(err);
    }
    if ((rc = put(wf, &read, "type",
                  fm_yaml_string(&wf->arena, origin->format, data), err)) < 0 ||
        (rc = put(wf, &read, "path", origin->path, err)) < 0 ||
        (rc = put(wf, &tree, "taskType",
                  fm_yaml_string(&wf->arena, "data_retrieval", data), err)) <
            0 ||
        (rc = put(wf, &tree, "data", read, err)) < 0) {
        return rc;
    }
    node.task = FM_WF_RETRIEVAL;
    node.tree = tree;
    node.refs = NULL;
    node.pub.internal = true;
    return add_node(wf, &node, "/data", source, &owner->data);
}

/* NODE/reference: log-probabilities under the starting model (W43). */
static fm_status_t add_reference_node(fm_workflow_t *wf,
                                      fm_wf_node_private_t *owner,
                                      const fm_yaml_source_t *source)
{
    static const char *const terms[] = {"model", "data", "seed"};
    const fm_yaml_value_t *training = fm_yaml_get(owner->tree, "training");
    const fm_yaml_value_t *length = fm_yaml_get(training, "max_seq_length");
    const fm_yaml_value_t *truncate = fm_yaml_get(training, "truncate");
    const fm_yaml_value_t *tree =
        pick(&wf->arena, owner->tree, terms, FM_COUNT_OF(terms));
    fm_wf_node_private_t node = *owner;
    fm_status_t rc = FM_OK;

    if (!tree) {
        return fm_no_memory(source->err);
    }
    if ((rc = put(wf, &tree, "taskType",
                  fm_yaml_string(&wf->arena, "logprobs", owner->tree),
                  source->err)) < 0 ||
        (length && (rc = put(wf, &tree, "training.max_seq_length", length,
                             source->err)) < 0) ||
        (truncate && (rc = put(wf, &tree, "training.truncate", truncate,
                               source->err)) < 0)) {
        return rc;
    }
    node.task = FM_WF_LOGPROBS;
    node.tree = tree;
    node.pub.internal = true;
    return add_node(wf, &node, "/reference", source, &owner->reference);
}

/* A ppo or grpo: all that comes before its last update. */
static fm_status_t add_chain(fm_workflow_t *wf, fm_wf_node_private_t *owner,
                             const fm_yaml_source_t *source)
{
    uint32_t *reads = NULL;
    uint32_t *judged = NULL;
    size_t count = 0;
    size_t judged_count = 0;
    fm_status_t rc = bind_refs(wf, owner, source);

    if (rc < 0 ||
        (rc = list_reads(wf, owner, false, 0, &reads, &count, source->err)) <
            0 ||
        (rc = list_reads(wf, owner, true, 0, &judged, &judged_count,
                         source->err)) < 0) {
        return rc;
    }
    return fm_wf_chain_build(wf, owner, reads, count, judged, judged_count,
                             source);
}

static fm_status_t check_node(fm_workflow_t *wf, const fm_yaml_value_t **tree,
                              int task, const fm_yaml_source_t *source)
{
    const fm_json_t *json = fm_yaml_json(&wf->arena, *tree);
    fm_status_t rc = json ? fm_yaml_check(&fm_wf_spec, json, *tree, "", task,
                                          fm_wf_ref_is_whole, source)
                          : fm_no_memory(source->err);

    if (rc < 0 ||
        (rc = fm_wf_reward_normalize(&wf->arena, *tree, source, tree)) < 0) {
        return rc;
    }
    return fm_yaml_json(&wf->arena, *tree)
               ? fm_wf_rules_check(*tree, task, source)
               : fm_no_memory(source->err);
}

static fm_status_t make_node(fm_workflow_t *wf, uint32_t stage, size_t trial,
                             const fm_yaml_value_t *tree,
                             const fm_yaml_source_t *source)
{
    fm_wf_stage_t *s = &wf->stages[stage];
    fm_status_t rc = check_node(wf, &tree, s->task, source);
    fm_wf_node_private_t node = {.task = s->task,
                                 .stage = stage,
                                 .trial = trial,
                                 .tree = tree,
                                 .data = FM_WF_NONE,
                                 .reference = FM_WF_NONE};
    const fm_yaml_value_t *data = fm_yaml_get(tree, "data");

    fm_wf_origin_t origin = {0};
    if (rc < 0 ||
        (data && (rc = fm_wf_origin_read(data, source, &origin)) < 0)) {
        return rc;
    }
    if (data && origin.form == FM_WF_FORM_FILE && s->task != FM_WF_RETRIEVAL &&
        (rc = add_data_node(wf, &node, &origin, source)) < 0) {
        return rc;
    }
    if ((s->task == FM_WF_DPO &&
         (rc = add_reference_node(wf, &node, source)) < 0) ||
        ((s->task & FM_WF_POLICY) && (rc = add_chain(wf, &node, source)) < 0)) {
        return rc;
    }
    rc = add_node(wf, &node, "", source, &s->nodes[trial]);
    if (rc == FM_OK) {
        uint32_t index = s->nodes[trial];
        wf->nodes[index].pub.owner = index;
        if (node.data != FM_WF_NONE) {
            wf->nodes[node.data].pub.owner = index;
        }
        if (node.reference != FM_WF_NONE) {
            wf->nodes[node.reference].pub.owner = index;
        }
    }
    return rc;
}

/* An inherited key that no node takes was meant for something (W12). */
static fm_status_t check_base_used(const fm_workflow_t *wf,
                                   const fm_yaml_source_t *source)
{
    for (size_t i = 0; i < wf->base->count; i++) {
        if (!wf->base_used[i]) {
            return fm_yaml_fail(source, wf->base->members[i].line,
                                wf->base->members[i].column, FM_ERR_INVALID,
                                "%s in spec: the task type of no node takes it",
                                wf->base->members[i].key);
        }
    }
    return FM_OK;
}

fm_status_t fm_wf_nodes_build(fm_workflow_t *wf, const fm_yaml_source_t *source)
{
    fm_status_t rc = FM_OK;

    for (size_t i = 0; i < wf->stage_count; i++) {
        fm_wf_stage_t *stage = &wf->stages[wf->order[i]];
        size_t count = stage->swept ? wf->trial_count : 1;
        stage->nodes = fm_yaml_alloc(&wf->arena, count * sizeof(uint32_t));
        if (!stage->nodes) {
            return fm_no_memory(source->err);
        }
        for (size_t t = 0; t < count; t++) {
            const fm_yaml_value_t *tree = NULL;
            if ((rc = fm_wf_effective(wf, wf->order[i], t, source, &tree)) <
                0) {
                return rc;
            }
            if ((rc = fm_wf_walk(wf, stage, tree->size, source)) < 0 ||
                (rc = make_node(wf, wf->order[i], t, tree, source)) < 0) {
                return rc;
            }
        }
    }
    return check_base_used(wf, source);
}
