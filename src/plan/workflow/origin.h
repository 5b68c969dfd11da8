/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file origin.h
 * What the section `data` of a node says: where its records come from.
 */
#ifndef FM_PLAN_WORKFLOW_ORIGIN_H
#define FM_PLAN_WORKFLOW_ORIGIN_H

#include "text/yaml/yaml.h"

/** Where the records of `data` come from (W44). */
typedef enum fm_wf_form {
    FM_WF_FORM_LIST,
    FM_WF_FORM_FILE,
    FM_WF_FORM_NODE,
    FM_WF_FORM_NODES,
    FM_WF_FORM_TEMPLATE
} fm_wf_form_t;

typedef struct fm_wf_origin {
    fm_wf_form_t form;
    const fm_yaml_value_t *items; /* LIST */
    const fm_yaml_value_t *path;  /* FILE */
    const char *format;           /* FILE: jsonl, csv, text, hdf5 */
    const fm_yaml_value_t *node;  /* NODE */
    const char *node_path;        /* NODE: NULL: items or export */
    bool wants_export;            /* NODE by jsonl */
    const fm_yaml_value_t *nodes; /* NODES: list of names */
} fm_wf_origin_t;

/** Read `data`: one origin, and keys that go with it. */
FM_MUST_USE fm_status_t fm_wf_origin_read(const fm_yaml_value_t *data,
                                          const fm_yaml_source_t *source,
                                          fm_wf_origin_t *out);

typedef struct fm_wf_split {
    const char *part;
    bool percent;
    int64_t from, to;
    bool open; /* no `to` */
} fm_wf_split_t;
/** Parse "train[:200]"; false when malformed. */
bool fm_wf_split_parse(const char *text, fm_wf_split_t *out);

#endif
