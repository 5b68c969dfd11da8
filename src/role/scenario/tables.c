/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of the scenario language (text/yaml/schema.h);
 * docs/spec/scenario.md states what each key means. */
#include "role/scenario/internal.h"
#include "text/yaml/rows.h"

#define SEED_MAX 9007199254740991.0 /* 2^53 − 1: exact in every JSON reader */
#define POLICIES "flowmesh|static_worker|fixed_pipeline|round_robin|adaptive"

/* --- the document --------------------------------------------------------- */

static const fm_yaml_key_t metadata_keys[] = {
    {TEXT("name")},
    {TEXT("description")},
};
TABLE(fm_scenario_metadata, "metadata", metadata_keys);

static const fm_yaml_key_t lambda_keys[] = {
    {REAL("inference", 1e-6, 1)},
    {REAL("training", 1e-6, 1)},
    {REAL("other", 1e-6, 1)},
};
static TABLE(lambda, "scheduler.lambda", lambda_keys);

static const fm_yaml_key_t scheduler_keys[] = {
    {SECTION("lambda", lambda)},
    {REAL("energy_per_kwh", 1e-9, 1e3)},
    {ANY("age_scale")},
    {ANY("grain")},
    {REAL("patience", 1e-6, 1e6)},
};
static TABLE(scheduler, "scheduler", scheduler_keys);

static const fm_yaml_key_t cluster_keys[] = {
    {TEXT("fleet"), .choices = "by_policy|fixed|elastic"},
    {ANY("scale_interval")},
    {REAL("count_scale", 1e-3, 1e6)},
    {LIST("classes")},
};
static TABLE(cluster, "cluster", cluster_keys);

static const fm_yaml_key_t flapping_keys[] = {
    {REAL("share", 0, 1)},
    {ANY("up")},
    {ANY("down")},
};
static TABLE(flapping, "failures.flapping", flapping_keys);

static const fm_yaml_key_t failures_keys[] = {
    {ANY("preemption")},
    {ANY("warning")},
    {ANY("node_loss")},
    {ANY("repair")},
    {SECTION("flapping", flapping)},
    {REAL("task_errors", 0, 0.5)},
};
static TABLE(failures, "failures", failures_keys);

static const fm_yaml_key_t execution_keys[] = {
    {REAL("noise", 0, 2)},
    {REAL("hidden", 0, 2)},
    {TEXT("costs"), .choices = "learned|known"},
    {REAL("load_scale", 0, 1e3)},
    {ANY("checkpoint")},
    {ANY("call")},
    {ANY("horizon")},
};
static TABLE(execution, "execution", execution_keys);

static const fm_yaml_key_t arrival_keys[] = {
    {TEXT("process"), .choices = "batched|random|fixed|ramp|up_ramp|poisson"},
    {INT("count", 1, FM_ARRIVALS_MAX)},
    {REAL("per_minute", 1e-6, 1e9)},
    {REAL("from_per_minute", 1e-6, 1e9)},
    {REAL("to_per_minute", 1e-6, 1e9)},
    {ANY("over")},
    {INT("cycles", 1, 1000)},
    {TEXT("shape"), .choices = "linear|geometric"},
    {REAL("rate_scale", 1e-6, 1e6)},
};
static TABLE(arrival, "workload.arrival", arrival_keys);

static const fm_yaml_key_t workload_keys[] = {
    {ANY("mix")},
    {SECTION("arrival", arrival)},
    {INT("users", 1, TENANTS_MAX)},
    {LIST("tenants")},
    {REAL("overlap", 0, 1)},
    {REAL("training_overlap", 0, 1)},
    {REAL("item_scale", 1e-3, 1e4)},
    {REAL("token_scale", 1e-3, 1e3)},
};
static TABLE(workload, "workload", workload_keys);

static const fm_yaml_key_t trace_keys[] = {
    {TEXT("path")},
    {TEXT("format"), .choices = "azure|mooncake|alibaba_lora"},
    {INT("limit", 1, FM_ARRIVALS_MAX)},
    {ANY("skip")},
    {REAL("speed", 1e-6, 1e6)},
    {TEXT("model")},
    {ANY("gpu_memory")},
    {TEXT("reference")},
};
static TABLE(trace, "trace", trace_keys);

static const fm_yaml_key_t root_keys[] = {
    {TEXT("apiVersion")},
    {TEXT("kind")},
    {SECTION("metadata", fm_scenario_metadata)},
    {INT("seed", 0, SEED_MAX)},
    {TEXT("policy"), .choices = POLICIES},
    {LIST("without")},
    {SECTION("scheduler", scheduler)},
    {LIST("models")},
    {SECTION("cluster", cluster)},
    {LIST("workflows")},
    {SECTION("workload", workload)},
    {SECTION("trace", trace), .nullable = true},
    {SECTION("failures", failures)},
    {SECTION("execution", execution)},
    {LIST("compare")},
};
TABLE(fm_scenario_root, "the scenario", root_keys);

static const fm_yaml_key_t compare_keys[] = {
    {TEXT("name")},
    {TEXT("policy"), .choices = POLICIES},
    {LIST("without")},
    {MAP("set")},
};
TABLE(fm_scenario_compare, "an entry of compare", compare_keys);

/* --- elements of lists ---------------------------------------------------- */

static const fm_yaml_key_t model_keys[] = {
    {TEXT("name")},
    {REAL("parameters", 1, 1e15)},
    {REAL("bytes_per_parameter", 0.1, 16)},
    {ANY("start")},
    {REAL("kv_bytes_per_token", 0, 1e9)},
    {ANY("adapter")},
};
TABLE(fm_scenario_model, "a model", model_keys);

static const fm_yaml_key_t class_keys[] = {
    {TEXT("name")},
    {TEXT("device")},
    {TEXT("kind"), .choices = "cpu|gpu"},
    {ANY("memory")},
    {REAL("flops_per_s", 1, 1e20)},
    {REAL("bytes_per_s", 1, 1e16)},
    {REAL("price_per_hour", 0, 1e6)},
    {REAL("watts", 0, 1e6)},
    {REAL("idle_watts", 0, 1e6)},
    {REAL("load_bytes_per_s", 1, 1e15)},
    {REAL("fetch_bytes_per_s", 1, 1e15)},
    {ANY("startup")},
    {INT("count", 0, FM_SIM_WORKERS_MAX)},
    {INT("min", 0, FM_SIM_WORKERS_MAX)},
    {INT("max", 0, FM_SIM_WORKERS_MAX)},
    {INT("warm", 0, FM_SIM_WORKERS_MAX)},
    {ANY("walltime")},
    {REAL("hazard_per_hour", 0, 1e6)},
    {INT("domain", 1, FM_SIM_WORKERS_MAX)},
    {LIST("tasks")},
};
TABLE(fm_scenario_class, "a class of workers", class_keys);

static const fm_yaml_key_t tenant_keys[] = {
    {TEXT("name")},
    {INT("share", 1, 1000000)},
    {REAL("weight", 1e-6, 1e6)},
    {INT("devices_max", 0, FM_SIM_WORKERS_MAX)},
    {INT("queued_max", 0, 1e9)},
    {REAL("dollars_max", 0, 1e12)},
    {INT("priority", -100, 100)},
    {ANY("deadline")},
};
TABLE(fm_scenario_tenant, "a tenant", tenant_keys);

static const fm_yaml_key_t workflow_keys[] = {
    {TEXT("name")},
    {LIST("stages")},
};
TABLE(fm_scenario_workflow, "a workflow", workflow_keys);

static const fm_yaml_key_t stage_keys[] = {
    {TEXT("name")},
    {TEXT("task"), .choices = "inference|forward|sft|lora_sft|dpo|ppo|script"},
    {TEXT("model")},
    {TEXT("model_of")},
    {TEXT("adapter_of")},
    {INT("items", 1, 1000000)},
    {REAL("prompt_tokens", 0, 1e7)},
    {REAL("output_tokens", 0, 1e7)},
    {REAL("spread", 0, 2)},
    {REAL("samples", 0, 1e9)},
    {REAL("epochs", 0, 1e6)},
    {REAL("sequence", 1, 1e7)},
    {ANY("seconds")},
    {TEXT("dataset")},
    {TEXT("of")},
    {ANY("after")},
    {ANY("gpu_memory")},
    {INT("batch_max", 1, 65536)},
    {INT("gang", 1, 4096)},
    {TEXT("device"), .choices = "any|cpu|gpu"},
};
TABLE(fm_scenario_stage, "a stage", stage_keys);
