/* SPDX-License-Identifier: Apache-2.0 */
/* The document: root keys, metadata, stages or graph, edges (W10 – W13). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "plan/workflow/graph.h"
#include "text/yaml/number.h"

#define NAME_BYTES_MAX 128u

static fm_status_t check_section(fm_workflow_t *wf,
                                 const fm_yaml_section_t *section,
                                 const fm_yaml_value_t *tree, const char *path,
                                 const fm_yaml_source_t *source)
{
    const fm_json_t *json = fm_yaml_json(&wf->arena, tree);

    return json ? fm_yaml_check(section, json, tree, path, FM_WF_ALL, NULL,
                                source)
                : fm_no_memory(source->err);
}

/* A key that may stand in metadata or in spec (W10). */
static fm_status_t find_either(const fm_yaml_value_t *root, const char *key,
                               const fm_yaml_source_t *source,
                               const fm_yaml_value_t **out)
{
    const fm_yaml_member_t *meta =
        fm_yaml_member(fm_yaml_get(root, "metadata"), key);
    const fm_yaml_member_t *spec =
        fm_yaml_member(fm_yaml_get(root, "spec"), key);

    if (meta && spec) {
        return fm_yaml_fail(source, spec->line, spec->column, FM_ERR_INVALID,
                            "%s is given in metadata (line %u) and in spec; "
                            "allowed: one of them",
                            key, meta->line);
    }
    *out = meta ? meta->value : spec ? spec->value : NULL;
    return FM_OK;
}

static fm_status_t read_terms(fm_workflow_t *wf, const fm_yaml_value_t *root,
                              const fm_yaml_source_t *source)
{
    const fm_yaml_value_t *meta = fm_yaml_get(root, "metadata");
    const fm_yaml_value_t *tenant = NULL;
    const fm_yaml_value_t *priority = NULL;
    const fm_yaml_value_t *deadline = NULL;
    const fm_yaml_value_t *name = fm_yaml_get(meta, "name");
    const fm_yaml_value_t *owner = fm_yaml_get(meta, "owner");
    fm_status_t rc = FM_OK;

    if ((rc = find_either(root, "tenant", source, &tenant)) < 0 ||
        (rc = find_either(root, "priority", source, &priority)) < 0 ||
        (rc = find_either(root, "deadline", source, &deadline)) < 0) {
        return rc;
    }
    wf->name = name ? name->text : "workflow";
    wf->owner = owner ? owner->text : "default";
    wf->tenant = tenant ? tenant->text : wf->owner;
    wf->priority = priority ? (int)priority->integer : 0;
    const fm_yaml_value_t *texts[] = {name, owner, tenant};
    for (size_t i = 0; i < FM_COUNT_OF(texts); i++) {
        if (texts[i] &&
            (!*texts[i]->text || strlen(texts[i]->text) > NAME_BYTES_MAX)) {
            return fm_yaml_fail(source, texts[i]->line, texts[i]->column,
                                FM_ERR_INVALID,
                                "a name of %zu bytes; allowed: 1 to %u",
                                strlen(texts[i]->text), NAME_BYTES_MAX);
        }
    }
    if (deadline) {
        wf->deadline_s = fm_yaml_seconds_of(deadline);
        if (!(wf->deadline_s > 0)) {
            return fm_yaml_fail(
                source, deadline->line, deadline->column, FM_ERR_INVALID,
                "deadline %.60s; allowed: seconds from "
                "submission, such as 90, 15m, 1h30m",
                deadline->text ? deadline->text : "of this type");
        }
    }
    return FM_OK;
}

static fm_status_t check_root(fm_workflow_t *wf, const fm_yaml_value_t *root,
                              const fm_yaml_source_t *source)
{
    static const char version[] = "flowmesh/v1";
    const fm_yaml_value_t *api = fm_yaml_get(root, "apiVersion");
    const fm_yaml_value_t *meta = fm_yaml_get(root, "metadata");
    fm_status_t rc = FM_OK;

    if (root->type != FM_JSON_OBJECT) {
        return fm_yaml_fail(source, root->line, root->column, FM_ERR_INVALID,
                            "a workflow is a map with apiVersion, metadata and "
                            "spec");
    }
    if ((rc = check_section(wf, &fm_wf_root, root, "", source)) < 0 ||
        (meta && (rc = check_section(wf, &fm_wf_metadata, meta, "metadata",
                                     source)) < 0)) {
        return rc;
    }
    if (!api || strcmp(api->text, version) != 0) {
        return fm_yaml_fail(source, api ? api->line : root->line,
                            api ? api->column : root->column, FM_ERR_INVALID,
                            "apiVersion %s%.60s; allowed: %s",
                            api ? "" : "is missing", api ? api->text : "",
                            version);
    }
    return fm_yaml_get(root, "spec")
               ? FM_OK
               : fm_yaml_fail(source, root->line, root->column, FM_ERR_INVALID,
                              "spec is missing");
}

/* --- stages --------------------------------------------------------------- */

static bool name_fits(const char *name)
{
    size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyz"
                              "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-");

    return len > 0 && len <= NAME_BYTES_MAX && name[len] == '\0' &&
           name[0] != '-' && !(name[0] >= '0' && name[0] <= '9') &&
           strcmp(name, "spec") != 0;
}

static fm_status_t read_stage(fm_workflow_t *wf, const fm_yaml_value_t *entry,
                              size_t index, bool chain,
                              const fm_yaml_source_t *source)
{
    fm_wf_stage_t *stage = &wf->stages[index];
    fm_status_t rc = FM_OK;

    if (entry->type != FM_JSON_OBJECT) {
        return fm_yaml_fail(source, entry->line, entry->column, FM_ERR_INVALID,
                            "a node is a map with name, dependsOn and spec");
    }
    if ((rc = check_section(wf, &fm_wf_node, entry, "", source)) < 0) {
        return rc;
    }
    const fm_yaml_value_t *name = fm_yaml_get(entry, "name");
    const fm_yaml_value_t *id = fm_yaml_get(entry, "id");
    if (!name == !id) {
        return fm_yaml_fail(source, entry->line, entry->column, FM_ERR_INVALID,
                            "a node has %s; allowed: one of name, id",
                            name ? "name and id" : "no name");
    }
    name = name ? name : id;
    if (!name_fits(name->text)) {
        return fm_yaml_fail(source, name->line, name->column, FM_ERR_INVALID,
                            "node name \"%.60s\"; allowed: letters, digits, _ "
                            "and -, first no digit or -, at most %u, not spec",
                            name->text, NAME_BYTES_MAX);
    }
    const uint64_t *first = fm_strmap_get(wf->stage_names, name->text);
    if (first) {
        return fm_yaml_fail(source, name->line, name->column, FM_ERR_INVALID,
                            "node %s is there already, at line %u", name->text,
                            wf->stages[*first].line);
    }
    *stage = (fm_wf_stage_t){
        .name = name->text,
        .line = entry->line,
        .column = entry->column,
        .own = fm_yaml_get(entry, "spec"),
        .depends = fm_yaml_get(entry, "dependsOn"),
    };
    if (!stage->own && !(stage->own = fm_yaml_container(
                             &wf->arena, FM_JSON_OBJECT, entry->line,
                             entry->column, NULL, 0))) {
        return fm_no_memory(source->err);
    }
    stage->implied = chain && !stage->depends && index > 0;
    return fm_strmap_put(wf->stage_names, stage->name, index, source->err);
}

static fm_status_t read_stages(fm_workflow_t *wf, const fm_yaml_value_t *spec,
                               const fm_yaml_source_t *source)
{
    const fm_yaml_value_t *stages = fm_yaml_get(spec, "stages");
    const fm_yaml_value_t *graph = fm_yaml_get(spec, "graph");
    const fm_yaml_value_t *list = stages ? stages : fm_yaml_get(graph, "nodes");
    fm_status_t rc = FM_OK;

    if (stages && graph) {
        return fm_yaml_fail(source, graph->line, graph->column, FM_ERR_INVALID,
                            "graph together with stages; allowed: one of them");
    }
    if (graph && (!list || graph->count != 1)) {
        return fm_yaml_fail(source, graph->line, graph->column, FM_ERR_INVALID,
                            "graph has other keys; allowed: nodes");
    }
    if (list && (list->type != FM_JSON_ARRAY || list->count == 0 ||
                 list->count > FM_WF_STAGES_MAX)) {
        return fm_yaml_fail(
            source, list->line, list->column, FM_ERR_INVALID,
            "%s; allowed: a list of 1 to %u nodes",
            list->type == FM_JSON_ARRAY ? "a list of another size" : "no list",
            FM_WF_STAGES_MAX);
    }
    wf->stage_count = list ? list->count : 1;
    wf->stages =
        fm_yaml_alloc(&wf->arena, wf->stage_count * sizeof(*wf->stages));
    if (!wf->stages) {
        return fm_no_memory(source->err);
    }
    if (!list) {
        wf->stages[0] = (fm_wf_stage_t){
            .name = "main", .line = spec->line, .column = spec->column};
        return fm_strmap_put(wf->stage_names, "main", 0, source->err);
    }
    for (size_t i = 0; i < list->count && rc == FM_OK; i++) {
        rc = read_stage(wf, list->members[i].value, i, stages != NULL, source);
    }
    return rc;
}

/* --- edges ---------------------------------------------------------------- */

const char *fm_wf_suggest_stage(const fm_workflow_t *wf, const char *found,
                                const char *also, char *space, size_t bytes)
{
    const char **names = fm_calloc(wf->stage_count + 1, sizeof(*names));
    size_t count = 0;

    if (!names) {
        return "";
    }
    for (size_t i = 0; i < wf->stage_count; i++) {
        names[count++] = wf->stages[i].name;
    }
    if (also) {
        names[count++] = also;
    }
    const char *hint = fm_yaml_suggest(found, names, count, space, bytes);
    free(names);
    return hint;
}

static fm_status_t fail_stage(const fm_workflow_t *wf,
                              const fm_yaml_value_t *name,
                              const fm_yaml_source_t *source)
{
    char hint[192];

    return fm_yaml_fail(source, name->line, name->column, FM_ERR_INVALID,
                        "dependsOn names %.80s, which is no node of this "
                        "workflow%s",
                        name->text ? name->text : "a value",
                        name->text ? fm_wf_suggest_stage(wf, name->text, NULL,
                                                         hint, sizeof(hint))
                                   : "");
}

static fm_status_t read_edge(const fm_workflow_t *wf, fm_wf_stage_t *stage,
                             const fm_yaml_value_t *name,
                             const fm_yaml_source_t *source)
{
    const uint64_t *found =
        fm_yaml_str(name) ? fm_strmap_get(wf->stage_names, name->text) : NULL;

    if (!found) {
        return fail_stage(wf, name, source);
    }
    for (size_t i = 0; i < stage->dep_count; i++) {
        if (stage->deps[i] == *found) {
            return FM_OK;
        }
    }
    stage->deps[stage->dep_count++] = (uint32_t)*found;
    return FM_OK;
}

static fm_status_t read_edges(fm_workflow_t *wf, const fm_yaml_source_t *source)
{
    fm_status_t rc = FM_OK;

    for (size_t i = 0; i < wf->stage_count && rc == FM_OK; i++) {
        fm_wf_stage_t *stage = &wf->stages[i];
        const fm_yaml_value_t *on = stage->depends;
        bool list = on && on->type == FM_JSON_ARRAY;
        size_t room = list ? on->count : 1;
        if (!(stage->deps =
                  fm_yaml_alloc(&wf->arena, room * sizeof(*stage->deps)))) {
            return fm_no_memory(source->err);
        }
        if (stage->implied) {
            stage->deps[stage->dep_count++] = (uint32_t)i - 1;
        } else if (list) {
            for (size_t k = 0; k < on->count && rc == FM_OK; k++) {
                rc = read_edge(wf, stage, on->members[k].value, source);
            }
        } else if (on && on->type != FM_JSON_NULL) {
            rc = read_edge(wf, stage, on, source);
        }
    }
    return rc;
}

/* A dependency that is not done; one exists where the stage is not. */
static uint32_t undone_dep(const fm_workflow_t *wf, const bool *done,
                           uint32_t at)
{
    const fm_wf_stage_t *stage = &wf->stages[at];
    size_t k = 0;

    while (done[stage->deps[k]]) {
        k++;
    }
    return stage->deps[k];
}

/* Walk back along unfinished deps: after stage_count steps the walk is on a
 * cycle; then once around it. */
static fm_status_t fail_cycle(const fm_workflow_t *wf, const bool *done,
                              const fm_yaml_source_t *source)
{
    fm_buf_t path = {0};
    uint32_t at = 0;

    while (done[at]) {
        at++;
    }
    for (size_t step = 0; step < wf->stage_count; step++) {
        at = undone_dep(wf, done, at);
    }
    uint32_t start = at;
    do {
        fm_buf_printf(&path, "%s -> ", wf->stages[at].name);
        at = undone_dep(wf, done, at);
    } while (at != start);
    fm_status_t rc = fm_yaml_fail(
        source, wf->stages[at].line, wf->stages[at].column, FM_ERR_INVALID,
        "a cycle of dependencies (each needs the next): %.600s%s",
        fm_buf_cstr(&path), wf->stages[at].name);
    fm_buf_fini(&path);
    return rc;
}

/* Kahn's algorithm, lowest index first (W13): repeated sweeps over the file
 * would be quadratic, so ready stages wait in a binary heap. */
static void heap_push(uint32_t *heap, size_t *count, uint32_t value)
{
    size_t i = (*count)++;

    while (i > 0 && heap[(i - 1) / 2] > value) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = value;
}

static uint32_t heap_pop(uint32_t *heap, size_t *count)
{
    uint32_t top = heap[0];
    uint32_t last = heap[--*count];
    size_t i = 0;

    for (size_t child = 1; child < *count; child = 2 * i + 1) {
        child += child + 1 < *count && heap[child + 1] < heap[child];
        if (heap[child] >= last) {
            break;
        }
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return top;
}

struct followers {
    uint32_t *first; /* by stage: index into next, +1 */
    uint32_t *target;
    uint32_t *next;
    uint32_t *missing; /* deps not yet done */
    uint32_t *heap;
    bool *done;
};

static fm_status_t sort_stages(fm_workflow_t *wf, struct followers *f,
                               const fm_yaml_source_t *source)
{
    size_t ready = 0;
    size_t sorted = 0;
    uint32_t edges = 0;

    for (uint32_t i = 0; i < wf->stage_count; i++) {
        const fm_wf_stage_t *stage = &wf->stages[i];
        f->missing[i] = (uint32_t)stage->dep_count;
        if (stage->dep_count == 0) {
            heap_push(f->heap, &ready, i);
        }
        for (size_t k = 0; k < stage->dep_count; k++) {
            f->target[edges] = i;
            f->next[edges] = f->first[stage->deps[k]];
            f->first[stage->deps[k]] = ++edges;
        }
    }
    while (ready > 0) {
        uint32_t at = heap_pop(f->heap, &ready);
        wf->order[sorted++] = at;
        f->done[at] = true;
        for (uint32_t e = f->first[at]; e; e = f->next[e - 1]) {
            if (--f->missing[f->target[e - 1]] == 0) {
                heap_push(f->heap, &ready, f->target[e - 1]);
            }
        }
    }
    return sorted < wf->stage_count ? fail_cycle(wf, f->done, source) : FM_OK;
}

static fm_status_t order_stages(fm_workflow_t *wf,
                                const fm_yaml_source_t *source)
{
    size_t n = wf->stage_count;
    size_t edges = 0;
    size_t words = (n + 63) / 64;

    for (size_t i = 0; i < n; i++) {
        edges += wf->stages[i].dep_count;
    }
    struct followers f = {
        .first = fm_yaml_alloc(&wf->arena, n * sizeof(uint32_t)),
        .target = fm_yaml_alloc(&wf->arena, edges * sizeof(uint32_t)),
        .next = fm_yaml_alloc(&wf->arena, edges * sizeof(uint32_t)),
        .missing = fm_yaml_alloc(&wf->arena, n * sizeof(uint32_t)),
        .heap = fm_yaml_alloc(&wf->arena, n * sizeof(uint32_t)),
        .done = fm_yaml_alloc(&wf->arena, n * sizeof(bool)),
    };
    wf->order = fm_yaml_alloc(&wf->arena, n * sizeof(*wf->order));
    if (!f.first || !f.target || !f.next || !f.missing || !f.heap || !f.done ||
        !wf->order) {
        return fm_no_memory(source->err);
    }
    fm_status_t rc = sort_stages(wf, &f, source);
    for (size_t i = 0; i < n && rc == FM_OK; i++) {
        fm_wf_stage_t *stage = &wf->stages[wf->order[i]];
        stage->upstream = fm_yaml_alloc(&wf->arena, words * sizeof(uint64_t));
        if (!stage->upstream) {
            return fm_no_memory(source->err);
        }
        for (size_t k = 0; k < stage->dep_count; k++) {
            uint32_t dep = stage->deps[k];
            stage->upstream[dep / 64] |= UINT64_C(1) << (dep % 64);
            for (size_t w = 0; w < words; w++) {
                stage->upstream[w] |= wf->stages[dep].upstream[w];
            }
        }
    }
    return rc;
}

/* --- the base spec -------------------------------------------------------- */

static fm_status_t read_base(fm_workflow_t *wf, const fm_yaml_value_t *spec,
                             const fm_yaml_source_t *source)
{
    fm_yaml_member_t *kept = fm_calloc(spec->count, sizeof(*kept));
    fm_yaml_member_t *only = fm_calloc(spec->count, sizeof(*only));
    size_t kept_count = 0;
    size_t only_count = 0;
    fm_status_t rc = FM_ERR_NO_MEMORY;

    for (size_t i = 0; kept && only && i < spec->count; i++) {
        if (fm_yaml_key_find(&fm_wf_base_only, spec->members[i].key,
                             FM_WF_ALL)) {
            only[only_count++] = spec->members[i];
        } else {
            kept[kept_count++] = spec->members[i];
        }
    }
    const fm_yaml_value_t *terms = NULL;
    if (!kept || !only ||
        !(wf->base = fm_yaml_container(&wf->arena, FM_JSON_OBJECT, spec->line,
                                       spec->column, kept, kept_count)) ||
        !(terms = fm_yaml_container(&wf->arena, FM_JSON_OBJECT, spec->line,
                                    spec->column, only, only_count)) ||
        !(wf->base_used = fm_yaml_alloc(&wf->arena, kept_count))) {
        (void)fm_no_memory(source->err);
        goto out;
    }
    rc = check_section(wf, &fm_wf_base_only, terms, "spec", source);
out:
    free(kept);
    free(only);
    return rc;
}

fm_status_t fm_wf_document_read(fm_workflow_t *wf, const fm_yaml_value_t *root,
                                const fm_yaml_value_t **sweep_out,
                                const fm_yaml_source_t *source)
{
    const fm_yaml_value_t *spec = fm_yaml_get(root, "spec");
    fm_status_t rc = FM_OK;

    if ((rc = check_root(wf, root, source)) < 0 ||
        (rc = read_base(wf, spec, source)) < 0 ||
        (rc = read_terms(wf, root, source)) < 0 ||
        (rc = read_stages(wf, spec, source)) < 0 ||
        (rc = read_edges(wf, source)) < 0 ||
        (rc = order_stages(wf, source)) < 0) {
        return rc;
    }
    *sweep_out = fm_yaml_get(spec, "sweep");
    return FM_OK;
}
