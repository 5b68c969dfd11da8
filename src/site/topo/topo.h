/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file topo.h
 * What this host offers to this process: usable cores, memory, NUMA nodes,
 * CPU model, and the list of compute devices that a worker announces.
 *
 * "Usable" counts what the affinity mask, the cpuset and the cgroup limits
 * leave over (Slurm sets all three), not what the machine has.
 *
 * Threads: a handle may be read from any number of threads.
 */
#ifndef FM_SITE_TOPO_H
#define FM_SITE_TOPO_H

#include <flowmesh/error.h>
#include <stddef.h>
#include <stdint.h>

typedef struct fm_topo fm_topo_t;

/** Zero means: this host. */
typedef struct fm_topo_options {
    const char *xml_path;    /**< describe the machine of an hwloc XML file;
                                  limits of this process are then not applied
                                  unless cgroup_root is given */
    const char *cgroup_root; /**< instead of /sys/fs/cgroup */
    const char *cgroup_self; /**< instead of /proc/self/cgroup */
} fm_topo_options_t;

typedef enum fm_topo_device_kind {
    FM_TOPO_DEVICE_CPU, /**< all usable cores of the host as one device */
    FM_TOPO_DEVICE_CUDA /**< one GPU */
} fm_topo_device_kind_t;

/** Texts belong to the fm_topo_t. */
typedef struct fm_topo_device {
    fm_topo_device_kind_t kind;
    const char *name; /**< model, such as "Intel(R) Xeon(R) Gold 6338" */
    uint64_t memory_bytes;
    uint32_t core_count; /**< CPU cores; 0 for a GPU */
} fm_topo_device_t;

/** Texts belong to the fm_topo_t. */
typedef struct fm_topo_host {
    const char *host_name;
    const char *cpu_model;       /**< "unknown CPU" when nobody says */
    uint32_t core_count;         /**< usable cores, at least 1 */
    uint32_t thread_count;       /**< usable hardware threads, at least 1 */
    uint32_t numa_count;         /**< NUMA nodes with usable cores, ≥ 1 */
    uint64_t memory_bytes;       /**< usable memory */
    uint64_t memory_total_bytes; /**< of the machine */
    uint32_t machine_core_count; /**< of the machine */
} fm_topo_host_t;

/**
 * Look at the host: some milliseconds of reading /sys.
 *
 * @param opts     NULL for this host; not kept.
 * @param topo_out [out] new handle, owned by the caller (fm_topo_close()).
 * @retval FM_ERR_NOT_FOUND    xml_path cannot be read.
 * @retval FM_ERR_CORRUPT      xml_path is not an hwloc topology.
 * @retval FM_ERR_UNSUPPORTED  hwloc cannot describe this host.
 * @retval FM_ERR_NO_MEMORY
 */
FM_MUST_USE fm_status_t fm_topo_open(const fm_topo_options_t *opts,
                                     fm_topo_t **topo_out, fm_error_t *err);
/** Release; NULL is allowed. */
void fm_topo_close(fm_topo_t *topo);

/** The host; valid until fm_topo_close(). */
const fm_topo_host_t *fm_topo_host(const fm_topo_t *topo);

/** Compute devices: the CPU comes first, so there is at least one. */
size_t fm_topo_device_count(const fm_topo_t *topo);
/** Device @p index, or NULL past the end; valid until fm_topo_close(). */
const fm_topo_device_t *fm_topo_device(const fm_topo_t *topo, size_t index);

/** "cpu" or "cuda". */
const char *fm_topo_device_kind_name(fm_topo_device_kind_t kind);

#endif
