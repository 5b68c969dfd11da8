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
#include "base/mem.h"
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
    bool reward;     /* of `reward`: rollouts need not wait for a judge */
} fm_wf_ref_t;

/** A node of the file, before the sweep. */
typedef struct fm_wf_stage {
    const char *name;
    unsigned line, column;
    const fm_yaml_value_t *own;     /* its spec; NULL: the single task */
    const fm_yaml_value_t *depends; /* dependsOn as written; NULL: none */
    bool implied;                   /* depends on the stage before it */
    uint32_t *deps;                 /* stage indices */
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
    const fm_yaml_value_t *values; /* matrix: the list */
} fm_wf_axis_t;

typedef struct fm_wf_trial {
    fm_workflow_trial_t pub;
    const fm_yaml_value_t **values; /* by axis; NULL: not set */
    size_t *positions;              /* from 1, for names */
} fm_wf_trial_t;

/** The nodes of one ppo or grpo (W54): iteration i, from 1, has the `stride`
 *  nodes from first + (i − 1) · stride on, in the order of fm_wf_part_t.  The
 *  last of all is the owner. */
typedef struct fm_wf_chain {
    uint32_t first;
    uint32_t stride;
    uint32_t iterations;
    uint32_t rewards; /* nodes an iteration */
    bool reference;
} fm_wf_chain_t;

typedef enum fm_wf_part {
    FM_WF_PART_NONE, /* of no chain */
    FM_WF_PART_ROLLOUT,
    FM_WF_PART_REWARD,
    FM_WF_PART_REFERENCE,
    FM_WF_PART_UPDATE
} fm_wf_part_t;

typedef struct fm_wf_node_private {
    fm_workflow_node_t pub;
    int task;
    uint32_t stage;
    size_t trial;                /* 0 where shared */
    const fm_yaml_value_t *tree; /* nodes of a chain share their owner's */
    const fm_wf_ref_t *refs;
    size_t ref_count;
    uint32_t data;              /* internal node that reads the file, or NONE */
    uint32_t reference;         /* internal node of a dpo, or NONE */
    const fm_wf_chain_t *chain; /* NULL: of none */
    fm_wf_part_t part;
    uint32_t iteration; /* from 1 */
    uint32_t which;     /* of several rewards, from 0 */
} fm_wf_node_private_t;

struct fm_workflow {
    fm_yaml_arena_t arena;
    const char *file;
    const char *name, *owner, *tenant;
    int priority;
    double deadline_s;
    const fm_yaml_value_t *base; /* spec without stages, sweep, … */
    bool *base_used;             /* by member of base */
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
    uint64_t walked; /* values and edges so far, see nodes.c */
    fm_strmap_t *node_names;
    fm_workflow_file_t *files;
    size_t file_count, file_capacity;
    fm_strmap_t *file_paths;
};

/* document.c: root, metadata, stages, edges */
FM_MUST_USE fm_status_t fm_wf_document_read(fm_workflow_t *wf,
                                            const fm_yaml_value_t *root,
                                            const fm_yaml_value_t **sweep_out,
                                            const fm_yaml_source_t *source);
/** fm_yaml_suggest() among the stages and @p also (unless NULL); "" when
 *  memory is out. */
const char *fm_wf_suggest_stage(const fm_workflow_t *wf, const char *found,
                                const char *also, char *space, size_t bytes);
/* sweep.c */
FM_MUST_USE fm_status_t fm_wf_sweep_read(fm_workflow_t *wf,
                                         const fm_yaml_value_t *sweep,
                                         const fm_yaml_source_t *source);
/** Mark the stages that the sweep reaches (W41). */
void fm_wf_sweep_mark(fm_workflow_t *wf);
/** The effective spec of a stage in a trial. */
FM_MUST_USE fm_status_t fm_wf_effective(fm_workflow_t *wf, uint32_t stage,
                                        size_t trial,
                                        const fm_yaml_source_t *source,
                                        const fm_yaml_value_t **out);
/* nodes.c */
FM_MUST_USE fm_status_t fm_wf_nodes_build(fm_workflow_t *wf,
                                          const fm_yaml_source_t *source);
/** Node that stands for @p stage as seen from @p node. */
uint32_t fm_wf_target(const fm_workflow_t *wf, const fm_wf_node_private_t *node,
                      const char *stage);
/** Append a copy of @p model named after its stage, its trial and @p suffix;
 *  @p stage_name may be NULL.  Refs, deps and files are the caller's. */
FM_MUST_USE fm_status_t fm_wf_node_append(fm_workflow_t *wf,
                                          const fm_wf_node_private_t *model,
                                          const char *suffix,
                                          const char *stage_name,
                                          const fm_yaml_source_t *source,
                                          uint32_t *index_out);
/** Count @p values against what a sweep may make this module walk. */
FM_MUST_USE fm_status_t fm_wf_walk(fm_workflow_t *wf,
                                   const fm_wf_stage_t *stage, uint64_t values,
                                   const fm_yaml_source_t *source);

/* chain.c: a ppo or grpo as internal nodes */
/**
 * Make the nodes of a chain but the last.
 * @param owner  refs and data are bound; gets its part of the chain.
 * @param reads   @p read_count nodes that rollouts read, ascending.
 * @param judged  the same for rewards and updates.
 */
FM_MUST_USE fm_status_t fm_wf_chain_build(
    fm_workflow_t *wf, fm_wf_node_private_t *owner, const uint32_t *reads,
    size_t read_count, const uint32_t *judged, size_t judged_count,
    const fm_yaml_source_t *source);
/** Node of part @p part of iteration @p iteration. */
uint32_t fm_wf_chain_node(const fm_wf_chain_t *chain, fm_wf_part_t part,
                          uint32_t iteration, uint32_t which);

/* rules.c, rules_tasks.c: what the tables cannot say about one node */
FM_MUST_USE fm_status_t fm_wf_rules_task(const fm_yaml_value_t *tree, int task,
                                         const fm_yaml_source_t *source);
/** A condition of a filter (W62).  @param strict  false: a whole ${…} stands
 *  for any value. */
FM_MUST_USE fm_status_t fm_wf_where_check(const fm_json_t *where,
                                          const fm_yaml_value_t *at,
                                          bool strict,
                                          const fm_yaml_source_t *source);
/** Text of a module, or {path}; @p entrypoint may be NULL. */
FM_MUST_USE fm_status_t fm_wf_code_check(const fm_yaml_value_t *code,
                                         const fm_yaml_value_t *entrypoint,
                                         const fm_yaml_value_t *at,
                                         const fm_yaml_source_t *source);
FM_MUST_USE fm_status_t fm_wf_rules_check(const fm_yaml_value_t *tree, int task,
                                          const fm_yaml_source_t *source);

/* work: what expand() shares between its files */
typedef struct fm_wf_resolver {
    const fm_workflow_t *wf;
    const fm_wf_node_private_t *node;
    fm_workflow_upstream_fn upstream;
    void *ctx;
    const fm_json_t *files;
    fm_yaml_source_t source;
} fm_wf_resolver_t;

/** The node's data section; NULL when it has none. */
const fm_yaml_value_t *fm_wf_data_of(const fm_wf_resolver_t *r);
/** FM_ERR_INVALID that names the node's data and record @p index. */
fm_status_t fm_wf_record_fail(const fm_wf_resolver_t *r, size_t index,
                              const char *text);
static inline fm_status_t fm_wf_no_memory(const fm_wf_resolver_t *r)
{
    return fm_no_memory(r->source.err);
}
/** Where a node's records are (records.c); close it also after a failure. */
typedef struct fm_wf_records {
    size_t count;
    fm_json_t *list;              /* of records, or of {"output": record} */
    bool wrapped;                 /* the latter */
    const fm_yaml_value_t *items; /* instead of list: resolved one by one */
} fm_wf_records_t;
FM_MUST_USE fm_status_t fm_wf_records_open(const fm_wf_resolver_t *r,
                                           fm_wf_records_t *out);
void fm_wf_records_close(fm_wf_records_t *records);
/** New reference to record @p index. */
FM_MUST_USE fm_status_t fm_wf_record_at(const fm_wf_resolver_t *r,
                                        const fm_wf_records_t *records,
                                        size_t index, fm_json_t **out);
/** All of them, as a list. */
FM_MUST_USE fm_status_t fm_wf_records(const fm_wf_resolver_t *r,
                                      fm_json_t **out);

/* data.c: from records to samples and items (W45) */
/** How a node makes samples of its records; fini also after a failure. */
typedef struct fm_wf_sampler {
    const fm_wf_resolver_t *r;
    const char *column, *prompt, *response, *text, *messages, *chosen,
        *rejected, *choices, *answer;
    const char *separator;
    fm_json_t *system; /* system prompt, or NULL */
    bool chat;
    int group;        /* evaluate: fm_wf_metric_group() */
    const char *kind; /* of the sample before */
} fm_wf_sampler_t;
FM_MUST_USE fm_status_t fm_wf_sampler_init(fm_wf_sampler_t *s,
                                           const fm_wf_resolver_t *r);
void fm_wf_sampler_fini(fm_wf_sampler_t *s);
/** {"prompt"} or {"messages"} of a record. */
FM_MUST_USE fm_status_t fm_wf_prompt_make(const fm_wf_sampler_t *s,
                                          size_t index, const fm_json_t *record,
                                          fm_json_t **out);
/** The samples of all records, in order. */
FM_MUST_USE fm_status_t fm_wf_samples(const fm_wf_resolver_t *r,
                                      const fm_json_t *records,
                                      fm_json_t **out);
/** Metrics that go together (§6.8); −1: no metric. */
int fm_wf_metric_group(const char *name);
enum {
    FM_WF_GROUP_LOSS,
    FM_WF_GROUP_PREFERENCE,
    FM_WF_GROUP_ACCURACY,
    FM_WF_GROUP_PASS,
    FM_WF_GROUP_WIN
};

/* params.c and generate.c: parts of parameters */
/** A section of the node's spec, resolved and checked; an empty object where
 *  the spec has none. */
FM_MUST_USE fm_status_t fm_wf_section_read(const fm_wf_resolver_t *r,
                                           const char *name,
                                           const fm_yaml_section_t *section,
                                           fm_json_t **out);
/** {"digest": "sha256:…"} of a local file. */
FM_MUST_USE fm_status_t fm_wf_digest_of(const fm_wf_resolver_t *r,
                                        const fm_yaml_value_t *path,
                                        fm_json_t **out);
/** {"text"} or {"digest"} of `code`. */
FM_MUST_USE fm_status_t fm_wf_code_param(const fm_wf_resolver_t *r,
                                         const fm_yaml_value_t *code,
                                         fm_json_t **out);
/** Put the section's own seed, else the node's, else 0, into @p params. */
FM_MUST_USE fm_status_t fm_wf_put_seed(const fm_wf_resolver_t *r,
                                       const fm_json_t *section,
                                       fm_json_t *params);
/** Put the node's seed into @p params, null where it has none. */
FM_MUST_USE fm_status_t fm_wf_put_seed_or_null(const fm_wf_resolver_t *r,
                                               fm_json_t *params);
/** Set a member; takes @p value. */
FM_MUST_USE fm_status_t fm_wf_set(const fm_wf_resolver_t *r, fm_json_t *object,
                                  const char *key, fm_json_t *value);
/** `lora` of a training, where it is one of an adapter. */
FM_MUST_USE fm_status_t fm_wf_lora_params(const fm_wf_resolver_t *r,
                                          fm_json_t *params);
/** Hints of `training`, as given in @p given. */
FM_MUST_USE fm_status_t fm_wf_training_hints(const fm_wf_resolver_t *r,
                                             const fm_yaml_section_t *section,
                                             const fm_json_t *given,
                                             fm_json_t *hints);
/** temperature, top_p, …, stop of @p given; greedy ones made equal. */
FM_MUST_USE fm_status_t fm_wf_drawing_params(const fm_wf_resolver_t *r,
                                             const fm_yaml_section_t *section,
                                             const fm_json_t *given,
                                             double temperature,
                                             fm_json_t *params);
/** A list of distinct texts, sorted; a text alone is a list of one. */
FM_MUST_USE fm_status_t fm_wf_text_set(const fm_wf_resolver_t *r,
                                       const fm_json_t *given, const char *path,
                                       fm_json_t **out);
FM_MUST_USE fm_status_t fm_wf_evaluate_params(const fm_wf_resolver_t *r,
                                              fm_json_t *params);
FM_MUST_USE fm_status_t fm_wf_inference_params(const fm_wf_resolver_t *r,
                                               fm_json_t *params);
/** Parameters of data operators and data_retrieval (params_data.c). */
FM_MUST_USE fm_status_t fm_wf_data_params(const fm_wf_resolver_t *r,
                                          fm_json_t *params);
/** Fill in the parameters and the hints of training (params.c). */
FM_MUST_USE fm_status_t fm_wf_params(const fm_wf_resolver_t *r,
                                     fm_json_t *params, fm_json_t *hints);

/** Move parameter @p key, where there is one, into every item: what may differ
 *  within a batch is no parameter. */
FM_MUST_USE fm_status_t fm_wf_move_to_items(const fm_wf_resolver_t *r,
                                            const char *key, fm_json_t *params,
                                            fm_json_t *items);

/* chain.c, chain_work.c: the work of a node of a chain (W55, W56) */
FM_MUST_USE fm_status_t fm_wf_chain_work(const fm_wf_resolver_t *r,
                                         fm_json_t *params, fm_json_t *hints,
                                         fm_json_t **items_out);

#endif
