/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file graph.h
 * What a parsed workflow is made of, shared by the files of this module.
 *
 * document → stages (as written) → trials (sweep) → nodes (stage × trial,
 * where swept, and internal ones).  All memory is in one arena.
 */
#ifndef FM_PLAN_WORKFLOW_GRAPH_H
#define FM_PLAN_WORKFLOW_GRAPH_H

#include "base/map.h"
#include "plan/workflow/schema.h"
#include "plan/workflow/workflow.h"

#define FM_WF_STAGES_MAX 10000u
#define FM_WF_SWEEP_KEYS_MAX 64u
#define FM_WF_NONE UINT32_MAX

/** A use of an upstream value, found in the text. */
typedef struct fm_wf_ref {
    const char *stage;
    const char *path;
    unsigned line, column;
    uint32_t target; /* node index */
    bool condition;  /* of `condition`: decides by itself about skipping */
} fm_wf_ref_t;

/** A node of the file, before the sweep. */
typedef struct fm_wf_stage {
    const char *name;
    unsigned line, column;
    const fm_wf_value_t *own;     /* its spec; NULL: the single task */
    const fm_wf_value_t *depends; /* dependsOn as written; NULL: none */
    bool implied;                 /* depends on the stage before it */
    uint32_t *deps;               /* stage indices */
    size_t dep_count;
    uint64_t *upstream; /* bit set: all transitive upstream stages */
    int task;
    bool swept;
    uint32_t *nodes; /* node index by trial, or one */
} fm_wf_stage_t;

/** A key of the sweep. */
typedef struct fm_wf_axis {
    const char *key;    /* as written */
    const char *suffix; /* shortest unambiguous end of it */
    uint32_t stage;     /* FM_WF_NONE: the base spec */
    const char *path;   /* inside the spec */
    unsigned line, column;
    const fm_wf_value_t *values; /* matrix: the list */
} fm_wf_axis_t;

typedef struct fm_wf_trial {
    fm_workflow_trial_t pub;
    const fm_wf_value_t **values; /* by axis; NULL: not set */
    size_t *positions;            /* from 1, for names */
} fm_wf_trial_t;

typedef struct fm_wf_node_private {
    fm_workflow_node_t pub;
    int task;
    uint32_t stage;
    size_t trial; /* 0 where shared */
    const fm_wf_value_t *tree;
    const fm_wf_ref_t *refs;
    size_t ref_count;
    uint32_t data;      /* internal node that reads the file, or NONE */
    uint32_t reference; /* internal node of a dpo, or NONE */
} fm_wf_node_private_t;

struct fm_workflow {
    fm_wf_arena_t arena;
    const char *file;
    const char *name, *owner, *tenant;
    int priority;
    double deadline_s;
    const fm_wf_value_t *base; /* spec without stages, sweep, … */
    bool *base_used;           /* by member of base */
    fm_wf_stage_t *stages;
    size_t stage_count;
    uint32_t *order; /* stages in topological order */
    fm_strmap_t *stage_names;
    fm_wf_axis_t *axes;
    size_t axis_count;
    fm_wf_trial_t *trials;
    size_t trial_count;
    fm_wf_node_private_t *nodes;
    size_t node_count, node_capacity;
    fm_strmap_t *node_names;
    fm_workflow_file_t *files;
    size_t file_count, file_capacity;
    fm_strmap_t *file_paths;
};

/* document.c: root, metadata, stages, edges */
FM_MUST_USE fm_status_t fm_wf_document_read(fm_workflow_t *wf,
                                            const fm_wf_value_t *root,
                                            const fm_wf_value_t **sweep_out,
                                            const fm_wf_source_t *source);
/** fm_wf_suggest() among the stages and @p also (unless NULL); "" when
 *  memory is out. */
const char *fm_wf_suggest_stage(const fm_workflow_t *wf, const char *found,
                                const char *also, char *space, size_t bytes);
/* sweep.c */
FM_MUST_USE fm_status_t fm_wf_sweep_read(fm_workflow_t *wf,
                                         const fm_wf_value_t *sweep,
                                         const fm_wf_source_t *source);
/** Mark the stages that the sweep reaches (W41). */
void fm_wf_sweep_mark(fm_workflow_t *wf);
/** The effective spec of a stage in a trial. */
FM_MUST_USE fm_status_t fm_wf_effective(fm_workflow_t *wf, uint32_t stage,
                                        size_t trial,
                                        const fm_wf_source_t *source,
                                        const fm_wf_value_t **out);
/* nodes.c */
FM_MUST_USE fm_status_t fm_wf_nodes_build(fm_workflow_t *wf,
                                          const fm_wf_source_t *source);
/** Node that stands for @p stage as seen from @p node. */
uint32_t fm_wf_target(const fm_workflow_t *wf, const fm_wf_node_private_t *node,
                      const char *stage);

/* rules.c: what the tables cannot say about one node */
FM_MUST_USE fm_status_t fm_wf_rules_check(const fm_wf_value_t *tree, int task,
                                          const fm_wf_source_t *source);

/* work: what expand() shares between its files */
typedef struct fm_wf_resolver {
    const fm_workflow_t *wf;
    const fm_wf_node_private_t *node;
    fm_workflow_upstream_fn upstream;
    void *ctx;
    const fm_json_t *files;
    fm_wf_source_t source;
} fm_wf_resolver_t;

/** The records of a node, and the values of its items (data.c). */
FM_MUST_USE fm_status_t fm_wf_records(const fm_wf_resolver_t *r,
                                      fm_json_t **out);
FM_MUST_USE fm_status_t fm_wf_items(const fm_wf_resolver_t *r,
                                    const fm_json_t *records, fm_json_t **out);
/** A section of the node's spec, resolved and checked; an empty object where
 *  the spec has none. */
FM_MUST_USE fm_status_t fm_wf_section_read(const fm_wf_resolver_t *r,
                                           const char *name,
                                           const fm_wf_section_t *section,
                                           fm_json_t **out);

/** {"digest": "sha256:…"} of a local file (params.c). */
FM_MUST_USE fm_status_t fm_wf_digest_of(const fm_wf_resolver_t *r,
                                        const fm_wf_value_t *path,
                                        fm_json_t **out);
/** Fill in the parameters and the hints of training (params.c). */
FM_MUST_USE fm_status_t fm_wf_params(const fm_wf_resolver_t *r,
                                     fm_json_t *params, fm_json_t *hints);

#endif
