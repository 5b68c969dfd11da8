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

#define FM_WF_ITERATIONS_MAX 10000 /* of one ppo or grpo */

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
    FM_WF_LORA_SFT = 1 << 9,
    FM_WF_REWARD_MODEL = 1 << 10,
    FM_WF_PPO = 1 << 11,
    FM_WF_GRPO = 1 << 12,
    FM_WF_SCORE = 1 << 13,
    FM_WF_EMBEDDING = 1 << 14,
    FM_WF_REWARD = 1 << 15,
    FM_WF_MAP_TASK = 1 << 16,
    FM_WF_FILTER = 1 << 17,
    FM_WF_DEDUP = 1 << 18,
    FM_WF_SPLIT = 1 << 19,
    FM_WF_SHARD = 1 << 20,
    FM_WF_CONCAT = 1 << 21,
    FM_WF_SAMPLE = 1 << 22,
    FM_WF_EXPORT = 1 << 23, /* jsonl_export */
    FM_WF_PROFILE = 1 << 24,
    FM_WF_ALL = (1 << 25) - 1
} fm_wf_task_t;

/* Families of task types. */
#define FM_WF_TUNING                                                           \
    (FM_WF_SFT | FM_WF_LORA_SFT | FM_WF_REWARD_MODEL | FM_WF_DPO)
#define FM_WF_POLICY (FM_WF_PPO | FM_WF_GRPO) /* unrolled, see chain.c */
#define FM_WF_TRAINING (FM_WF_TUNING | FM_WF_POLICY)
/* records in, {"items": [record]} out */
#define FM_WF_RECORD_TASKS                                                     \
    (FM_WF_MAP_TASK | FM_WF_FILTER | FM_WF_DEDUP | FM_WF_SPLIT | FM_WF_SHARD | \
     FM_WF_CONCAT | FM_WF_SAMPLE)
#define FM_WF_WITH_RECORDS (FM_WF_RECORD_TASKS | FM_WF_EXPORT | FM_WF_PROFILE)
#define FM_WF_WITH_MODEL                                                       \
    (FM_WF_INFERENCE | FM_WF_EVALUATE | FM_WF_LOGPROBS | FM_WF_SCORE |         \
     FM_WF_EMBEDDING | FM_WF_TRAINING)
#define FM_WF_WITH_DATA                                                        \
    (FM_WF_ECHO | FM_WF_RETRIEVAL | FM_WF_REWARD | FM_WF_WITH_RECORDS |        \
     FM_WF_WITH_MODEL)

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
    bool nullable;        /* null may be written: none */
    const char *same_as;  /* a second spelling of that key (W5) */
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
/* sections of a spec (tables.c) */
extern const fm_wf_section_t fm_wf_model;
extern const fm_wf_section_t fm_wf_model_config;
extern const fm_wf_section_t fm_wf_adapter; /* an entry of model.adapters */
extern const fm_wf_section_t fm_wf_data;
/* what to do, a section each (tables_tasks.c) */
extern const fm_wf_section_t fm_wf_inference;
extern const fm_wf_section_t fm_wf_generation;
extern const fm_wf_section_t fm_wf_training;
extern const fm_wf_section_t fm_wf_policy_training; /* of ppo and grpo */
extern const fm_wf_section_t fm_wf_lora;
extern const fm_wf_section_t fm_wf_reward;           /* an entry of reward */
extern const fm_wf_section_t fm_wf_published_reward; /* reward_model */
extern const fm_wf_section_t fm_wf_scoring;
extern const fm_wf_section_t fm_wf_embedding;
extern const fm_wf_section_t fm_wf_map;
extern const fm_wf_section_t fm_wf_filter;
extern const fm_wf_section_t fm_wf_dedup;
extern const fm_wf_section_t fm_wf_split_parts;
extern const fm_wf_section_t fm_wf_shard;
extern const fm_wf_section_t fm_wf_sample;
extern const fm_wf_section_t fm_wf_export;
extern const fm_wf_section_t fm_wf_profile;

/** The row of @p name that a task type of @p task takes; else one that others
 *  take; NULL when there is none. */
const fm_wf_key_t *fm_wf_key_find(const fm_wf_section_t *section,
                                  const char *name, int task);
/** Value of @p key in @p map under either spelling; NULL when absent. */
const fm_wf_value_t *fm_wf_get_either(const fm_wf_section_t *section,
                                      const fm_wf_value_t *map,
                                      const char *key);
const fm_json_t *fm_wf_json_either(const fm_wf_section_t *section,
                                   const fm_json_t *map, const char *key);
/** Bit of a task type's name; 0 where this version does not have it. */
int fm_wf_task_bit(const char *name);
const char *fm_wf_task_name(int bit);
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
