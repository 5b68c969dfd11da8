/* SPDX-License-Identifier: Apache-2.0 */
/* A workflow as a whole: parse, destroy, accessors (see workflow.h). */
#include "plan/workflow/workflow.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "plan/workflow/graph.h"

_Static_assert(FM_WORKFLOW_TEXT_BYTES_MAX <= FM_YAML_TEXT_BYTES_MAX,
               "every workflow can be parsed");

fm_status_t fm_workflow_parse(const char *text, size_t len, const char *file,
                              fm_workflow_t **workflow_out, fm_error_t *err)
{
    fm_workflow_t *wf = fm_calloc(1, sizeof(*wf));
    const fm_yaml_value_t *root = NULL;
    const fm_yaml_value_t *sweep = NULL;
    fm_status_t rc = FM_ERR_NO_MEMORY;

    if (!wf || !(wf->stage_names = fm_strmap_create()) ||
        !(wf->node_names = fm_strmap_create()) ||
        !(wf->file_paths = fm_strmap_create()) ||
        !(wf->file = fm_yaml_text(&wf->arena, file, strlen(file)))) {
        (void)fm_no_memory(err);
        goto out;
    }
    const fm_yaml_source_t source = {.file = wf->file, .err = err};
    if ((rc = fm_yaml_parse(&wf->arena, text, len, &source, &root)) < 0 ||
        (rc = fm_wf_document_read(wf, root, &sweep, &source)) < 0 ||
        (sweep && (rc = fm_wf_sweep_read(wf, sweep, &source)) < 0)) {
        goto out;
    }
    fm_wf_sweep_mark(wf);
    if ((rc = fm_wf_nodes_build(wf, &source)) < 0) {
        goto out;
    }
    *workflow_out = wf;
    wf = NULL;
out:
    fm_workflow_destroy(wf);
    return rc;
}

void *fm_workflow_destroy(fm_workflow_t *workflow)
{
    if (workflow) {
        fm_strmap_destroy(workflow->stage_names);
        fm_strmap_destroy(workflow->node_names);
        fm_strmap_destroy(workflow->file_paths);
        free(workflow->nodes);
        free(workflow->files);
        fm_yaml_arena_fini(&workflow->arena);
        free(workflow);
    }
    return NULL;
}

const char *fm_workflow_name(const fm_workflow_t *workflow)
{
    return workflow->name;
}

const char *fm_workflow_owner(const fm_workflow_t *workflow)
{
    return workflow->owner;
}

const char *fm_workflow_tenant(const fm_workflow_t *workflow)
{
    return workflow->tenant;
}

int fm_workflow_priority(const fm_workflow_t *workflow)
{
    return workflow->priority;
}

double fm_workflow_deadline_s(const fm_workflow_t *workflow)
{
    return workflow->deadline_s;
}

size_t fm_workflow_node_count(const fm_workflow_t *workflow)
{
    return workflow->node_count;
}

const fm_workflow_node_t *fm_workflow_node(const fm_workflow_t *workflow,
                                           size_t index)
{
    assert(index < workflow->node_count);
    return &workflow->nodes[index].pub;
}

bool fm_workflow_find(const fm_workflow_t *workflow, const char *name,
                      uint32_t *index_out)
{
    const uint64_t *found = fm_strmap_get(workflow->node_names, name);

    if (found) {
        *index_out = (uint32_t)*found;
    }
    return found != NULL;
}

size_t fm_workflow_trial_count(const fm_workflow_t *workflow)
{
    return workflow->trial_count;
}

const fm_workflow_trial_t *fm_workflow_trial(const fm_workflow_t *workflow,
                                             size_t index)
{
    assert(index < workflow->trial_count);
    return &workflow->trials[index].pub;
}

bool fm_workflow_trial_node(const fm_workflow_t *workflow, size_t trial,
                            const char *stage, uint32_t *index_out)
{
    const char *slash = strchr(stage, '/');
    size_t len = slash ? (size_t)(slash - stage) : strlen(stage);
    uint32_t index = FM_WF_NONE;

    for (size_t i = 0; i < workflow->stage_count; i++) {
        const fm_wf_stage_t *s = &workflow->stages[i];
        if (strncmp(s->name, stage, len) == 0 && s->name[len] == '\0' &&
            (!s->swept || trial < workflow->trial_count)) {
            index = s->nodes[s->swept ? trial : 0];
        }
    }
    if (index != FM_WF_NONE && slash) {
        char *name =
            fm_asprintf("%s%s", workflow->nodes[index].pub.name, slash);
        bool found = name && fm_workflow_find(workflow, name, &index);
        free(name);
        return found && (*index_out = index, true);
    }
    if (index == FM_WF_NONE) {
        return false;
    }
    *index_out = index;
    return true;
}

size_t fm_workflow_file_count(const fm_workflow_t *workflow)
{
    return workflow->file_count;
}

const fm_workflow_file_t *fm_workflow_file(const fm_workflow_t *workflow,
                                           size_t index)
{
    assert(index < workflow->file_count);
    return &workflow->files[index];
}
