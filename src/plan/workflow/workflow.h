/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file workflow.h
 * The workflow language flowmesh/v1: text to a validated graph of operators,
 * and, once a node's inputs are known, the node to its items.
 *
 * Pure: no clock, no file, no randomness.  The same text always gives the
 * same nodes in the same order, and the same upstream results always give the
 * same bytes of work.  docs/spec/workflow.md is the specification; its rule
 * numbers (W1 …) are cited from the code.
 *
 * A workflow is immutable once parsed.  Everything an accessor returns is
 * borrowed and lives as long as the workflow.  JSON values count references,
 * so a workflow belongs to one thread at a time.
 */
#ifndef FM_PLAN_WORKFLOW_WORKFLOW_H
#define FM_PLAN_WORKFLOW_WORKFLOW_H

#include "base/json.h"

#define FM_WORKFLOW_TEXT_BYTES_MAX (4u << 20) /**< longer text is refused */
#define FM_WORKFLOW_NODES_MAX                                                  \
    200000u /**< after the sweep, with internal                                \
               ones: 0.4 KiB each here */
#define FM_WORKFLOW_TRIALS_MAX 10000u
#define FM_WORKFLOW_ITEMS_MAX 1000000u /**< items of one node */

typedef struct fm_workflow fm_workflow_t;

/** One operator of the graph. */
typedef struct fm_workflow_node {
    const char *name;  /**< unique: "sft", "dpo@beta=0.1,seed=2",
                            "dpo@beta=0.1,seed=2/reference" (W40) */
    const char *stage; /**< the name in the file: "dpo", "dpo/reference" */
    const char *trial; /**< trial name; NULL when all trials share the node */
    const fm_json_t *trial_values; /**< {"dpo.training.beta": 0.1, …}, or NULL
                                        where trial is NULL */
    const char *task_type; /**< "inference", "sft", …; "logprobs" is internal */
    const fm_json_t *spec; /**< effective: merged and swept, defaults absent;
                                may still hold ${…} and {node, path} */
    const uint32_t *deps;  /**< direct upstream nodes, ascending, < own index */
    size_t dep_count;
    bool internal;   /**< made by the compiler: data to read, reference
                          log-probs; shown to users under its owner */
    uint32_t owner;  /**< of an internal node: who needs it; else own index */
    unsigned line;   /**< of the node in the text, from 1 */
    unsigned column; /**< from 1, in characters */
} fm_workflow_node_t;

/** One trial of a sweep. */
typedef struct fm_workflow_trial {
    const char *name;        /**< "beta=0.1,seed=2" */
    const fm_json_t *values; /**< {"dpo.training.beta": 0.1, …} */
} fm_workflow_trial_t;

/** What the outside has to find, store and name by digest. */
typedef enum fm_workflow_file_kind {
    FM_WORKFLOW_FILE_DATA,        /**< a local file, stored byte for byte */
    FM_WORKFLOW_FILE_MODEL_PATH,  /**< a local model: directory or file */
    FM_WORKFLOW_FILE_MODEL_HUB,   /**< "org/name" of a model hub's cache */
    FM_WORKFLOW_FILE_MODEL_NAME,  /**< the name of an imported model */
    FM_WORKFLOW_FILE_ADAPTER_PATH /**< a local adapter (PEFT): directory */
} fm_workflow_file_kind_t;

/** A file or model that the workflow names but does not hold (W24). */
typedef struct fm_workflow_file {
    const char *key; /**< its name in the table that fm_workflow_expand()
                          takes; of a DATA file its path */
    fm_workflow_file_kind_t kind;
    const char *path; /**< as written: a path, relative to where the text came
                           from, or an identifier */
    const char *revision; /**< MODEL_HUB: a revision, or NULL; else NULL */
    uint32_t node;        /**< the first node that reads it */
    unsigned line, column;
} fm_workflow_file_t;

/**
 * Parse and validate @p text (YAML 1.2 core schema, hence JSON too).
 *
 * @param text  UTF-8, at most FM_WORKFLOW_TEXT_BYTES_MAX; not kept.
 * @param file  name for error text, such as "wf.yaml".
 * @param workflow_out  [out] fm_workflow_destroy() it.
 *
 * @retval FM_ERR_INVALID      "file:line:column: what was found; what is
 *                             allowed", nothing was run.
 * @retval FM_ERR_UNSUPPORTED  known to the language, not to this version.
 * @retval FM_ERR_LIMIT        text, depth, values, trials or nodes.
 * @retval FM_ERR_NO_MEMORY
 */
FM_MUST_USE fm_status_t fm_workflow_parse(const char *text, size_t len,
                                          const char *file,
                                          fm_workflow_t **workflow_out,
                                          fm_error_t *err);
/** NULL is ignored; returns NULL. */
void *fm_workflow_destroy(fm_workflow_t *workflow);

const char *fm_workflow_name(const fm_workflow_t *workflow);
/** metadata.owner, or "default". */
const char *fm_workflow_owner(const fm_workflow_t *workflow);
/** metadata.tenant, else the owner. */
const char *fm_workflow_tenant(const fm_workflow_t *workflow);
/** −100 … 100, larger is sooner; default 0. */
int fm_workflow_priority(const fm_workflow_t *workflow);
/** Seconds from submission by which it should be done; 0: none. */
double fm_workflow_deadline_s(const fm_workflow_t *workflow);

size_t fm_workflow_node_count(const fm_workflow_t *workflow);
/** Nodes in topological order: deps come first.  @p index < node_count. */
const fm_workflow_node_t *fm_workflow_node(const fm_workflow_t *workflow,
                                           size_t index);
/** Node of that full name; false when there is none. */
bool fm_workflow_find(const fm_workflow_t *workflow, const char *name,
                      uint32_t *index_out);

/** 0 where the workflow has no sweep. */
size_t fm_workflow_trial_count(const fm_workflow_t *workflow);
const fm_workflow_trial_t *fm_workflow_trial(const fm_workflow_t *workflow,
                                             size_t index);
/** The node that stands for @p stage in trial @p trial (shared ones too). */
bool fm_workflow_trial_node(const fm_workflow_t *workflow, size_t trial,
                            const char *stage, uint32_t *index_out);

/** Distinct files and models in order of first use; the caller stores each
 *  before submission and passes key → "sha256:…" to fm_workflow_expand(): of
 *  the bytes of a DATA file, of the manifest of a model or an adapter. */
size_t fm_workflow_file_count(const fm_workflow_t *workflow);
const fm_workflow_file_t *fm_workflow_file(const fm_workflow_t *workflow,
                                           size_t index);

/**
 * Result of a finished upstream node, as fm_workflow_result() built it:
 * {"items": [{"output": …}, …]}, plus "export": [{…}, …] and "skipped": true.
 * @return borrowed until the calling function returns; NULL when not known,
 *         which is an error there.
 */
typedef const fm_json_t *(*fm_workflow_upstream_fn)(void *ctx, uint32_t node);

/**
 * Whether node @p node is to run, once all its deps are done.
 *
 * @param met_out  [out] false: the node is DONE, its result is
 *                 {"items": [], "skipped": true}.  Unmet are a condition that
 *                 does not hold and any use of a skipped node's value (W33).
 */
FM_MUST_USE fm_status_t fm_workflow_condition(const fm_workflow_t *workflow,
                                              uint32_t node,
                                              fm_workflow_upstream_fn upstream,
                                              void *ctx, bool *met_out,
                                              fm_error_t *err);

/** What a node has to do; release with fm_workflow_work_fini(). */
typedef struct fm_workflow_work {
    fm_json_t *params; /**< object: operator parameters, references resolved,
                            files as {"digest": "sha256:…"}, every default
                            explicit; only what affects the result */
    fm_json_t *items;  /**< array: the value of each item */
    fm_json_t *hints;  /**< object: what the result does not depend on:
                            resources, save_steps, timeout_s, records */
} fm_workflow_work_t;

/**
 * The work of node @p node, once all its deps are done and it is to run.
 *
 * @param files  object, key → "sha256:…", for every fm_workflow_file().
 * @retval FM_ERR_INVALID    an upstream value has the wrong shape: the text
 *                           says file:line:column, node and path.
 * @retval FM_ERR_NOT_FOUND  an upstream path or a file is missing.
 * @retval FM_ERR_LIMIT      more than FM_WORKFLOW_ITEMS_MAX items.
 */
FM_MUST_USE fm_status_t
fm_workflow_expand(const fm_workflow_t *workflow, uint32_t node,
                   const fm_json_t *files, fm_workflow_upstream_fn upstream,
                   void *ctx, fm_workflow_work_t *work_out, fm_error_t *err);
void fm_workflow_work_fini(fm_workflow_work_t *work);

/**
 * The visible result of a node from the outputs of its items (W50): vector
 * operators give one item an output; data_retrieval, and python with
 * `emits: items`, return one list (or {"items": list}) that becomes one item an
 * element.
 *
 * @param records  `records` of the work's hints, where it has them: what rows
 *                 of postprocess.jsonl_export call metadata; else NULL.
 * @param outputs  @p count values in item order, each non-NULL.
 * @param result_out  [out] new reference.
 */
FM_MUST_USE fm_status_t fm_workflow_result(const fm_workflow_t *workflow,
                                           uint32_t node,
                                           const fm_json_t *records,
                                           const fm_json_t *const *outputs,
                                           size_t count, fm_json_t **result_out,
                                           fm_error_t *err);
/** {"items": [], "skipped": true}; new reference, NULL when memory is out. */
FM_MUST_USE fm_json_t *fm_workflow_result_skipped(void);

#endif
