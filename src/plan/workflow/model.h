/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file model.h
 * What a map such as `model` says: where a model comes from, and which adapter
 * goes with it (W49, W52).
 */
#ifndef FM_PLAN_WORKFLOW_MODEL_H
#define FM_PLAN_WORKFLOW_MODEL_H

#include "plan/workflow/graph.h"

typedef enum fm_wf_from {
    FM_WF_FROM_RANDOM,
    FM_WF_FROM_DIGEST,
    FM_WF_FROM_NODE,
    FM_WF_FROM_PATH,
    FM_WF_FROM_HUB,
    FM_WF_FROM_NAME
} fm_wf_from_t;

typedef struct fm_wf_model_origin {
    fm_wf_from_t from;
    const fm_yaml_value_t *source;     /* NULL: random without a source */
    const fm_yaml_value_t *identifier; /* DIGEST, PATH, HUB, NAME */
    const fm_yaml_value_t *node;       /* NODE */
    const char *path;               /* NODE: NULL: its model and its adapter */
    const char *revision;           /* HUB; NULL: none */
    const fm_yaml_value_t *adapter; /* entry of adapters, or NULL */
} fm_wf_model_origin_t;

/** Read and check a model. */
FM_MUST_USE fm_status_t fm_wf_model_read(const fm_yaml_value_t *model,
                                         const fm_yaml_source_t *source,
                                         fm_wf_model_origin_t *out);

/** A thing outside that a workflow names (W24). */
typedef struct fm_wf_outside {
    fm_workflow_file_kind_t kind;
    const fm_yaml_value_t *named; /* path or identifier */
    const char *revision;
} fm_wf_outside_t;
/** What a model and its adapter name outside: at most two. */
size_t fm_wf_model_outside(const fm_wf_model_origin_t *origin,
                           fm_wf_outside_t out[2]);
/** Its key in the table of files; free() it.  NULL: memory is out. */
FM_MUST_USE char *fm_wf_outside_key(const fm_wf_outside_t *outside);
/** Digest text of it, borrowed from the table. */
FM_MUST_USE fm_status_t fm_wf_outside_digest(const fm_wf_resolver_t *r,
                                             const fm_wf_outside_t *outside,
                                             const char **digest_out);

/**
 * {"digest"} or {"config", "seed"} of a model, and the digest of its adapter.
 * @param path         for error text, such as "model".
 * @param adapter_out  new reference to a text; NULL: the model has none.
 */
FM_MUST_USE fm_status_t fm_wf_model_params(const fm_wf_resolver_t *r,
                                           const fm_yaml_value_t *model,
                                           const char *path,
                                           fm_json_t **model_out,
                                           fm_json_t **adapter_out);
/** The model and the adapter that the output of a training names. */
FM_MUST_USE fm_status_t fm_wf_model_of_output(const fm_wf_resolver_t *r,
                                              uint32_t node,
                                              fm_json_t **model_out,
                                              fm_json_t **adapter_out);

#endif
