/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file config.h
 * The fabric's configuration file: policy and scheduler, classes of workers
 * with their prices and power, tenants with their quotas, elasticity.
 * docs/spec/fabric.md is the language.
 *
 * Pure: text in, values out; who reads the file is role/launch.
 * Threads: a configuration is constant once parsed.
 */
#ifndef FM_PLAN_CONFIG_CONFIG_H
#define FM_PLAN_CONFIG_CONFIG_H

#include "base/json.h"
#include "plan/cost/catalogue.h"
#include "plan/place/place.h"
#include "plan/scale/scale.h"
#include "plan/tenant/tenant.h"

#define FM_CONFIG_TEXT_BYTES_MAX (1u << 20)
#define FM_CONFIG_CLASSES_MAX FM_SCALE_CLASSES_MAX
#define FM_CONFIG_TENANTS_MAX 4096u
#define FM_CONFIG_PATTERN_BYTES_MAX 255u
#define FM_CONFIG_STARTUP_S 120.0 /* of a class that does not say */

/** A class of workers as written. */
typedef struct fm_config_class {
    const char *name;
    /** Patterns (fm_cost_name_matches()) that a worker must match, each: on the
     *  device's name, the host's, the worker's.  NULL: any. */
    const char *match, *hosts, *workers;
    const fm_cost_catalogue_entry_t *entry; /**< key `device`; NULL: by name */
    const char *kind;                       /**< "cpu", "gpu"; NULL: not said */
    uint64_t memory_bytes;                  /**< 0: not said */
    fm_cost_device_t spec;                  /**< zeros: not said */
    double price_per_hour, watts, idle_watts; /**< < 0: not said */
    double fetch_bytes_per_s;                 /**< 0: not said */
    double hazard_per_hour;                   /**< preemptions of a worker */
    double startup_s;
    uint32_t min, max; /**< workers; max 0: none is ever started */
} fm_config_class_t;

typedef struct fm_config_tenant {
    const char *name; /**< "*": all that are not named */
    fm_tenant_config_t config;
} fm_config_tenant_t;

typedef struct fm_config {
    const char *file; /**< "" where there is none */
    fm_place_options_t place;
    fm_scale_options_t scale;
    const fm_config_class_t *classes; /**< in the order they are tried */
    size_t class_count;
    const fm_config_tenant_t *tenants;
    size_t tenant_count;
    struct fm_config_memory *memory; /**< holds the above */
} fm_config_t;

/**
 * Parse a configuration.
 * @param text,len  not kept.
 * @param file      named in errors, copied.
 * @retval FM_ERR_INVALID  "file:line:column: what; allowed: …".
 * @retval FM_ERR_LIMIT    longer or more than the bounds above.
 * @retval FM_ERR_NO_MEMORY
 */
FM_MUST_USE fm_status_t fm_config_parse(const char *text, size_t len,
                                        const char *file,
                                        fm_config_t **config_out,
                                        fm_error_t *err);
/** What holds without a file; NULL: memory is out. */
FM_MUST_USE fm_config_t *fm_config_default(void);
void *fm_config_destroy(fm_config_t *config);

/** What a worker reports of itself. */
typedef struct fm_config_device {
    const char *kind, *name; /**< of the device: "cpu" or other, and its name */
    const char *host, *worker;
    uint64_t memory_bytes;
    double price_per_hour, watts; /**< of FLOWMESH_…; 0: not said */
} fm_config_device_t;

/** What it is taken for. */
typedef struct fm_config_worker {
    char name[FM_COST_NAME_BYTES_MAX + 1]; /**< its device class */
    uint32_t class_index; /**< of the configuration; UINT32_MAX: none */
    const fm_cost_catalogue_entry_t *entry; /**< NULL: not in the catalogue */
    fm_cost_device_t spec;
    uint64_t memory_bytes; /**< 0: not limited */
    double price_per_hour, watts, idle_watts;
    double fetch_bytes_per_s; /**< 0: not said */
    double hazard_per_hour;
} fm_config_worker_t;

/**
 * Find the class of a worker: the first of the configuration that it matches,
 * else the catalogue's row of its device, else one by the device's name.  Each
 * figure is what the worker says, else the class, else the catalogue.  Workers
 * of equal names are one device class of plan/cost.
 */
void fm_config_worker(const fm_config_t *config,
                      const fm_config_device_t *device,
                      fm_config_worker_t *out);

/** The figures of a class of @p config for a worker that states none itself
 *  and has the device that the class names. */
void fm_config_class_site(const fm_config_t *config, const fm_config_class_t *c,
                          fm_config_worker_t *out);

/** The configuration in force, as an object with the keys of the file; what is
 *  not said is absent.  New reference, NULL when memory is out. */
FM_MUST_USE fm_json_t *fm_config_to_json(const fm_config_t *config);

#endif
