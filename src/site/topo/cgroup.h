/* SPDX-License-Identifier: Apache-2.0 */
/** @file cgroup.h  Limits that control groups (v1 or v2) put on a process. */
#ifndef FM_SITE_TOPO_CGROUP_H
#define FM_SITE_TOPO_CGROUP_H

#include <flowmesh/error.h>
#include <stdint.h>

/** Zero: no limit. */
typedef struct fm_cgroup_limits {
    uint64_t memory_bytes;
    uint32_t core_count; /**< CPU time quota, rounded up to whole cores */
} fm_cgroup_limits_t;

/**
 * The tightest limits over the process's groups and all their ancestors.
 * Files that are absent or unreadable limit nothing: a container shows only a
 * part of the tree, and a host without control groups is no error.
 *
 * @param root  where the hierarchies are mounted, such as /sys/fs/cgroup.
 * @param self  the process's groups, such as /proc/self/cgroup.
 */
FM_MUST_USE fm_status_t fm_cgroup_limits_read(const char *root,
                                              const char *self,
                                              fm_cgroup_limits_t *out,
                                              fm_error_t *err);

#endif
