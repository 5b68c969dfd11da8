/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file schema.h
 * The language as tables: one table a section, one row a key.
 *
 * A row says what a value may be, which task types take it, what it defaults
 * to and whether the result depends on it.  The same rows check the text when
 * it is submitted (unknown keys, types, ranges; a whole-string reference
 * stands for any type) and the resolved values when a node is expanded.
 */
#ifndef FM_PLAN_WORKFLOW_SCHEMA_H
#define FM_PLAN_WORKFLOW_SCHEMA_H

#include "plan/workflow/value.h"

/** Task types, as bits. */
typedef enum fm_wf_task {
    FM_WF_ECHO = 1 << 0,
    FM_WF_PYTHON = 1 << 1,
    FM_WF_COMMAND = 1 << 2,
    FM_WF_RETRIEVAL = 1 << 3,
    FM_WF_INFERENCE = 1 << 4,
    FM_WF_SFT = 1 << 5,
    FM_WF_DPO = 1 << 6,
    FM_WF_EVALUATE = 1 << 7,
    FM_WF_LOGPROBS = 1 << 8, /* internal: never written by users */
    FM_WF_ALL = (1 << 9) - 1
} fm_wf_task_t;

typedef enum fm_wf_type {
    FM_WF_ANY,
    FM_WF_BOOL,
    FM_WF_INT,
    FM_WF_REAL,
    FM_WF_TEXT,
    FM_WF_LIST,
    FM_WF_MAP,     /* free-form */
    FM_WF_SECTION, /* a map with a table of its own */
    FM_WF_REFUSED  /* part of the language, not of this version */
} fm_wf_type_t;

typedef struct fm_wf_key {
    const char *name;
    fm_wf_type_t type;
    double min, max;     /* FM_WF_INT, FM_WF_REAL; inclusive */
    const char *choices; /* FM_WF_TEXT: "a|b|c", else NULL */
    const struct fm_wf_section *section;
    const char *fallback; /* default as JSON text; NULL: none */
    int tasks;            /* task types that take it; 0: all */
    bool hint;            /* the result does not depend on it */
    const char *why;      /* FM_WF_REFUSED: the mend */
} fm_wf_key_t;

typedef struct fm_wf_section {
    const char *name;
    const fm_wf_key_t *keys;
    size_t count;
} fm_wf_section_t;

extern const fm_wf_section_t fm_wf_root; /* the document */
extern const fm_wf_section_t fm_wf_metadata;
extern const fm_wf_section_t fm_wf_base_only; /* keys of the base spec alone */
extern const fm_wf_section_t fm_wf_node;      /* an entry of stages or nodes */
extern const fm_wf_section_t fm_wf_spec;      /* what a node may hold */
extern const fm_wf_section_t fm_wf_model;
extern const fm_wf_section_t fm_wf_model_config;
extern const fm_wf_section_t fm_wf_data;
extern const fm_wf_section_t fm_wf_inference;
extern const fm_wf_section_t fm_wf_training;
extern const fm_wf_section_t fm_wf_generation;

const fm_wf_key_t *fm_wf_key_find(const fm_wf_section_t *section,
                                  const char *name);
/** Bit of a task type's name; 0 where this version does not have it. */
int fm_wf_task_bit(const char *name);
/** Check spec.taskType: unknown and not supported names are errors. */
FM_MUST_USE fm_status_t fm_wf_task_check(const fm_wf_source_t *source,
                                         const fm_wf_value_t *value,
                                         int *bit_out);

/**
 * Hold @p json against @p section, recursively.
 *
 * @param json    the values: those of @p tree, or what they resolve to.
 * @param tree    where they were written; same shape but for references.
 * @param path    for error text, such as "training"; "" at the root.
 * @param task    task type bit; a key it does not take is an error.
 * @param strict  false: a string that is one whole ${…} passes as any type.
 */
FM_MUST_USE fm_status_t fm_wf_check(const fm_wf_section_t *section,
                                    const fm_json_t *json,
                                    const fm_wf_value_t *tree, const char *path,
                                    int task, bool strict,
                                    const fm_wf_source_t *source);

/**
 * Copy @p json with every default filled in, hints and sections left out,
 * integers in real keys turned into reals.
 * @param json  checked; may be NULL: all defaults.
 * @return new reference; NULL when memory is out.
 */
FM_MUST_USE fm_json_t *fm_wf_fill(const fm_wf_section_t *section,
                                  const fm_json_t *json, int task);

#endif
