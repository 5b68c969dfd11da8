/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file internal.h
 * What a scenario says, read into the simulator's own structures; shared by
 * the files of this module.
 *
 * A run is the scenario with the settings of one entry of `compare` put in:
 * each is read from the document by itself, so whatever may be written may be
 * varied.  Text in a run belongs to the scenario's arena.
 */
#ifndef FM_ROLE_SCENARIO_INTERNAL_H
#define FM_ROLE_SCENARIO_INTERNAL_H

#include "base/mem.h"
#include "role/scenario/arrivals.h"
#include "role/scenario/scenario.h"
#include "role/scenario/trace.h"
#include "text/yaml/number.h"
#include "text/yaml/schema.h"

#define TEMPLATES_MAX 256u
#define TENANTS_MAX 4096u
#define MIX_WEIGHT_MAX 1000u

/* Task types: bits of the workers' masks. */
typedef enum task {
    TASK_INFERENCE,
    TASK_FORWARD,
    TASK_SFT,
    TASK_LORA_SFT,
    TASK_DPO,
    TASK_PPO,
    TASK_SCRIPT,
    TASKS
} task_t;

/* A stage of a template: `stage` holds all but the rows. */
typedef struct stage_plan {
    fm_sim_stage_t stage;
    task_t task;
    bool own_rows; /* items or samples of a dataset, not of a stage */
} stage_plan_t;

typedef struct template
{
    const char *name;
    stage_plan_t *stages;
    size_t stage_count;
}
template_t;

typedef struct tenant {
    fm_sim_tenant_t sim;
    uint32_t share; /* of arrivals */
    int32_t priority;
    double deadline_s; /* 0: none */
} tenant_t;

typedef struct workload {
    fm_arrivals_t arrivals;
    uint32_t *mix; /* templates */
    uint32_t *weights;
    size_t mix_count;
    const char *mix_name;
    double overlap;          /* of items */
    double training_overlap; /* chance that a training is the common one */
} workload_t;

typedef struct trace_plan {
    const char *path; /* NULL: none */
    fm_trace_options_t options;
    uint32_t model; /* azure, mooncake */
    uint64_t memory_bytes;
    double reference_flops; /* alibaba_lora: of the device that was timed */
} trace_plan_t;

typedef struct run {
    const char *name;
    fm_sim_input_t input;
    fm_sim_model_t *models;
    fm_sim_class_t *classes;
    tenant_t *tenants;
    fm_sim_tenant_t *sim_tenants;
    template_t *templates;
    size_t template_count;
    workload_t workload;
    trace_plan_t trace;
} run_t;

struct fm_scenario {
    fm_yaml_arena_t arena;
    const char *file;
    const char *name;
    const fm_yaml_value_t *builtin;
    run_t *runs;
    size_t run_count;
};

/* Where a run is being read. */
typedef struct reader {
    fm_scenario_t *scenario;
    run_t *run;
    fm_yaml_source_t source;
} reader_t;

/* --- tables.c ------------------------------------------------------------- */

extern const fm_yaml_section_t fm_scenario_root;
extern const fm_yaml_section_t fm_scenario_metadata;
extern const fm_yaml_section_t fm_scenario_compare;
extern const fm_yaml_section_t fm_scenario_model;
extern const fm_yaml_section_t fm_scenario_class;
extern const fm_yaml_section_t fm_scenario_tenant;
extern const fm_yaml_section_t fm_scenario_workflow;
extern const fm_yaml_section_t fm_scenario_stage;

/* --- value.c -------------------------------------------------------------- */

/* Hold @p map against @p section; @p what names it in errors. */
FM_MUST_USE fm_status_t fm_scenario_check(const reader_t *r,
                                          const fm_yaml_section_t *section,
                                          const fm_yaml_value_t *map,
                                          const char *what);
/* A list of maps, or nothing: its length, checked against @p most. */
FM_MUST_USE fm_status_t fm_scenario_list(const reader_t *r,
                                         const fm_yaml_value_t *list,
                                         const char *what, size_t most,
                                         size_t *count_out);
/* "no WHAT is called NAME", with the nearest of @p names. */
fm_status_t fm_scenario_unknown(const reader_t *r, const fm_yaml_value_t *at,
                                const char *what, const char *const *names,
                                size_t count);
/* Text of a scalar as written: `02` is text here though YAML has a number. */
const char *fm_scenario_written(const fm_yaml_value_t *value);
/* Memory of the scenario; sets the error. */
FM_MUST_USE void *fm_scenario_alloc(const reader_t *r, size_t count,
                                    size_t bytes);

/* False when there is no such task. */
bool fm_scenario_task_find(const char *name, task_t *task_out);

/* --- cluster.c, workflows.c, workload.c, document.c ------------------------
 */

FM_MUST_USE fm_status_t fm_scenario_read_cluster(reader_t *r,
                                                 const fm_yaml_value_t *root);
FM_MUST_USE fm_status_t fm_scenario_read_models(reader_t *r,
                                                const fm_yaml_value_t *root);
FM_MUST_USE fm_status_t fm_scenario_read_workflows(reader_t *r,
                                                   const fm_yaml_value_t *root);
FM_MUST_USE fm_status_t fm_scenario_read_workload(reader_t *r,
                                                  const fm_yaml_value_t *root);
/* Index of the model or template of that name; its count when there is none. */
size_t fm_scenario_model_find(const run_t *run, const char *name);
size_t fm_scenario_template_find(const run_t *run, const char *name);

/* The built-in models, workflows and mixes, as text of this language; NULL
 * ends the parts. */
extern const char *const fm_scenario_builtin[];

#endif
