/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of the fabric's configuration (schema.h); docs/spec/fabric.md
 * states what each key means. */
#include "plan/config/tables.h"

#include "plan/config/config.h"
#include "text/yaml/rows.h"

#define DOLLARS_MAX 1e12

static const fm_yaml_key_t metadata_keys[] = {
    {TEXT("name")},
    {TEXT("description")},
};
static TABLE(metadata, "metadata", metadata_keys);

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
    {LIST("without")},
};
static TABLE(scheduler, "scheduler", scheduler_keys);

static const fm_yaml_key_t scale_keys[] = {
    {REAL("wait_dollars_per_hour", 1e-6, 1e6)},
    {REAL("late_factor", 1e-6, 1e6)},
    {ANY("age_scale")},
    {REAL("margin", 1e-6, 1e3)},
    {REAL("keep", 1e-6, 1e3)},
    {ANY("grain")},
    {INT("workers_max", 1, FM_SCALE_WORKERS_MAX)},
    {INT("starts_max", 1, FM_SCALE_WORKERS_MAX)},
};
static TABLE(scale, "scale", scale_keys);

static const fm_yaml_key_t root_keys[] = {
    {TEXT("apiVersion"), .choices = "flowmesh/v1"},
    {TEXT("kind"), .choices = "Fabric"},
    {SECTION("metadata", metadata)},
    {TEXT("policy"),
     .choices = "flowmesh|static_worker|fixed_pipeline|round_robin|adaptive"},
    {SECTION("scheduler", scheduler)},
    {SECTION("scale", scale)},
    {LIST("classes")},
    {LIST("tenants")},
};
TABLE(fm_config_root, "the configuration", root_keys);

static const fm_yaml_key_t class_keys[] = {
    {TEXT("name")},
    {TEXT("match")},
    {TEXT("hosts")},
    {TEXT("workers")},
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
    {REAL("hazard_per_hour", 0, 1e6)},
    {ANY("startup")},
    {INT("min", 0, FM_SCALE_WORKERS_MAX)},
    {INT("max", 0, FM_SCALE_WORKERS_MAX)},
};
TABLE(fm_config_class, "a class of workers", class_keys);

static const fm_yaml_key_t tenant_keys[] = {
    {TEXT("name")},
    {REAL("weight", 1e-6, 1e6)},
    {INT("devices_max", 1, FM_SCALE_WORKERS_MAX)},
    {INT("queued_max", 1, BIG)},
    {REAL("dollars_max", 1e-9, DOLLARS_MAX)},
};
TABLE(fm_config_tenant, "a tenant", tenant_keys);
