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

#include "text/yaml/schema.h"

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

extern const fm_yaml_section_t fm_wf_root; /* the document */
extern const fm_yaml_section_t fm_wf_metadata;
extern const fm_yaml_section_t
    fm_wf_base_only;                       /* keys of the base spec alone */
extern const fm_yaml_section_t fm_wf_node; /* an entry of stages or nodes */
extern const fm_yaml_section_t fm_wf_spec; /* what a node may hold */
/* sections of a spec (tables.c) */
extern const fm_yaml_section_t fm_wf_model;
extern const fm_yaml_section_t fm_wf_model_config;
extern const fm_yaml_section_t fm_wf_adapter; /* an entry of model.adapters */
extern const fm_yaml_section_t fm_wf_data;
/* what to do, a section each (tables_tasks.c) */
extern const fm_yaml_section_t fm_wf_inference;
extern const fm_yaml_section_t fm_wf_generation;
extern const fm_yaml_section_t fm_wf_training;
extern const fm_yaml_section_t fm_wf_policy_training; /* of ppo and grpo */
extern const fm_yaml_section_t fm_wf_lora;
extern const fm_yaml_section_t fm_wf_reward;           /* an entry of reward */
extern const fm_yaml_section_t fm_wf_published_reward; /* reward_model */
extern const fm_yaml_section_t fm_wf_scoring;
extern const fm_yaml_section_t fm_wf_embedding;
extern const fm_yaml_section_t fm_wf_map;
extern const fm_yaml_section_t fm_wf_filter;
extern const fm_yaml_section_t fm_wf_dedup;
extern const fm_yaml_section_t fm_wf_split_parts;
extern const fm_yaml_section_t fm_wf_shard;
extern const fm_yaml_section_t fm_wf_sample;
extern const fm_yaml_section_t fm_wf_export;
extern const fm_yaml_section_t fm_wf_profile;

/** Bit of a task type's name; 0 where this version does not have it. */
int fm_wf_task_bit(const char *name);
const char *fm_wf_task_name(int bit);
/** Check spec.taskType: unknown and not supported names are errors. */
FM_MUST_USE fm_status_t fm_wf_task_check(const fm_yaml_source_t *source,
                                         const fm_yaml_value_t *value,
                                         int *bit_out);

#endif
