/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host through hwloc.  Everything is read once, at open; the topology
 * itself is not kept.  Invariants of an open handle: devices[0] is the CPU,
 * all counts are at least one, usable never exceeds the machine's.
 */
#include "site/topo/topo.h"

#include <errno.h>
#include <hwloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "site/topo/cgroup.h"

struct fm_topo {
    fm_topo_host_t host;
    char *host_name;
    char *cpu_model;
    fm_topo_device_t devices[1]; /* the CPU */
};

static fm_status_t topology_load(const char *xml_path,
                                 hwloc_topology_t *topology_out,
                                 fm_error_t *err)
{
    hwloc_topology_t topology = NULL;
    fm_status_t rc = FM_ERR_NO_MEMORY;

    if (hwloc_topology_init(&topology) != 0) {
        return fm_no_memory(err);
    }
    if (xml_path && access(xml_path, R_OK) != 0) {
        rc = fm_error_set_errno(err, FM_ERR_NOT_FOUND, errno, "topology %s",
                                xml_path);
    } else if (xml_path && hwloc_topology_set_xml(topology, xml_path) != 0) {
        rc = fm_error_set(err, FM_ERR_CORRUPT,
                          "topology %s: not an hwloc XML file: write one with "
                          "`lstopo FILE.xml`",
                          xml_path);
    } else if (hwloc_topology_load(topology) != 0) {
        rc = fm_error_set_errno(err,
                                xml_path ? FM_ERR_CORRUPT : FM_ERR_UNSUPPORTED,
                                errno, "topology %s: hwloc cannot load it",
                                xml_path ? xml_path : "of this host");
    } else {
        *topology_out = topology;
        return FM_OK;
    }
    hwloc_topology_destroy(topology);
    return rc;
}

/* What the cpuset allows, less what the affinity mask of a live host takes
 * away.  NULL when memory is out. */
static hwloc_bitmap_t usable_cpus(hwloc_topology_t topology)
{
    hwloc_bitmap_t set =
        hwloc_bitmap_dup(hwloc_topology_get_allowed_cpuset(topology));
    hwloc_bitmap_t bound = hwloc_bitmap_alloc();

    if (set && bound && hwloc_topology_is_thissystem(topology) &&
        hwloc_get_cpubind(topology, bound, HWLOC_CPUBIND_PROCESS) == 0 &&
        hwloc_bitmap_intersects(set, bound)) {
        hwloc_bitmap_and(set, set, bound);
    }
    if (!bound) {
        hwloc_bitmap_free(set);
        set = NULL;
    }
    hwloc_bitmap_free(bound);
    return set;
}

/* Objects of a type that hold one of the CPUs in @p set (NULL: any). */
static uint32_t count_objects(hwloc_topology_t topology, hwloc_obj_type_t type,
                              hwloc_const_bitmap_t set)
{
    uint32_t count = 0;

    for (hwloc_obj_t obj = hwloc_get_next_obj_by_type(topology, type, NULL);
         obj; obj = hwloc_get_next_obj_by_type(topology, type, obj)) {
        count += !set || hwloc_bitmap_intersects(obj->cpuset, set);
    }
    return count;
}

static uint32_t at_least_one(uint32_t count)
{
    return count ? count : 1;
}

/* hwloc reads the memory in /sys; some containers have none. */
static uint64_t memory_by_sysconf(void)
{
    long pages = sysconf(_SC_PHYS_PAGES);
    long page_bytes = sysconf(_SC_PAGESIZE);

    return pages > 0 && page_bytes > 0 ? (uint64_t)pages * (uint64_t)page_bytes
                                       : 0;
}

static void counts_read(hwloc_topology_t topology, hwloc_const_bitmap_t set,
                        fm_topo_host_t *host)
{
    host->thread_count =
        at_least_one(count_objects(topology, HWLOC_OBJ_PU, set));
    host->core_count = count_objects(topology, HWLOC_OBJ_CORE, set);
    host->machine_core_count = count_objects(topology, HWLOC_OBJ_CORE, NULL);
    if (!host->core_count) { /* some virtual machines tell of no cores */
        host->core_count = host->thread_count;
        host->machine_core_count =
            at_least_one(count_objects(topology, HWLOC_OBJ_PU, NULL));
    }
    host->numa_count =
        at_least_one(count_objects(topology, HWLOC_OBJ_NUMANODE, set));
    host->memory_total_bytes = hwloc_get_root_obj(topology)->total_memory;
    if (!host->memory_total_bytes && hwloc_topology_is_thissystem(topology)) {
        host->memory_total_bytes = memory_by_sysconf();
    }
    host->memory_bytes = host->memory_total_bytes;
}

static void limits_apply(const fm_cgroup_limits_t *limits, fm_topo_host_t *host)
{
    if (limits->memory_bytes && limits->memory_bytes < host->memory_bytes) {
        host->memory_bytes = limits->memory_bytes;
    }
    if (limits->core_count && limits->core_count < host->core_count) {
        host->core_count = limits->core_count;
    }
    if (limits->core_count && limits->core_count < host->thread_count) {
        host->thread_count = limits->core_count;
    }
}

static fm_status_t names_read(hwloc_topology_t topology, fm_topo_t *topo,
                              fm_error_t *err)
{
    hwloc_obj_t root = hwloc_get_root_obj(topology);
    hwloc_obj_t package = hwloc_get_obj_by_type(topology, HWLOC_OBJ_PACKAGE, 0);
    const char *model =
        package ? hwloc_obj_get_info_by_name(package, "CPUModel") : NULL;
    const char *host = hwloc_obj_get_info_by_name(root, "HostName");
    char own[256] = "";

    if (!model) {
        model = hwloc_obj_get_info_by_name(root, "CPUModel");
    }
    if (!host) {
        (void)gethostname(own, sizeof(own) - 1);
        host = *own ? own : "localhost";
    }
    if (!(topo->cpu_model = fm_strdup(model ? model : "unknown CPU")) ||
        !(topo->host_name = fm_strdup(host))) {
        return fm_no_memory(err);
    }
    topo->host.cpu_model = topo->cpu_model;
    topo->host.host_name = topo->host_name;
    return FM_OK;
}

static fm_status_t limits_read(const fm_topo_options_t *opts,
                               fm_topo_host_t *host, fm_error_t *err)
{
    fm_cgroup_limits_t limits = {0};

    if (opts->xml_path && !opts->cgroup_root) {
        return FM_OK;
    }
    fm_status_t rc = fm_cgroup_limits_read(
        opts->cgroup_root ? opts->cgroup_root : "/sys/fs/cgroup",
        opts->cgroup_self ? opts->cgroup_self : "/proc/self/cgroup", &limits,
        err);
    if (rc == FM_OK) {
        limits_apply(&limits, host);
    }
    return rc;
}

fm_status_t fm_topo_open(const fm_topo_options_t *opts, fm_topo_t **topo_out,
                         fm_error_t *err)
{
    static const fm_topo_options_t this_host;
    hwloc_topology_t topology = NULL;
    hwloc_bitmap_t set = NULL;
    fm_topo_t *topo = NULL;
    fm_status_t rc = FM_OK;

    opts = opts ? opts : &this_host;
    if ((rc = topology_load(opts->xml_path, &topology, err)) < 0) {
        goto out;
    }
    if (!(topo = fm_calloc(1, sizeof(*topo))) ||
        !(set = usable_cpus(topology))) {
        rc = fm_no_memory(err);
        goto out;
    }
    if ((rc = names_read(topology, topo, err)) < 0) {
        goto out;
    }
    counts_read(topology, set, &topo->host);
    if ((rc = limits_read(opts, &topo->host, err)) < 0) {
        goto out;
    }
    topo->devices[0] = (fm_topo_device_t){
        .kind = FM_TOPO_DEVICE_CPU,
        .name = topo->cpu_model,
        .memory_bytes = topo->host.memory_bytes,
        .core_count = topo->host.core_count,
    };
    *topo_out = topo;
    topo = NULL;
out:
    hwloc_bitmap_free(set);
    if (topology) {
        hwloc_topology_destroy(topology);
    }
    fm_topo_close(topo);
    return rc;
}

void fm_topo_close(fm_topo_t *topo)
{
    if (topo) {
        free(topo->host_name);
        free(topo->cpu_model);
        free(topo);
    }
}

const fm_topo_host_t *fm_topo_host(const fm_topo_t *topo)
{
    return &topo->host;
}

size_t fm_topo_device_count(const fm_topo_t *topo)
{
    (void)topo;
    return FM_COUNT_OF(topo->devices);
}

const fm_topo_device_t *fm_topo_device(const fm_topo_t *topo, size_t index)
{
    return index < fm_topo_device_count(topo) ? &topo->devices[index] : NULL;
}

const char *fm_topo_device_kind_name(fm_topo_device_kind_t kind)
{
    switch (kind) {
    case FM_TOPO_DEVICE_CPU:
        return "cpu";
    case FM_TOPO_DEVICE_CUDA:
        return "cuda";
    }
    return "unknown";
}
