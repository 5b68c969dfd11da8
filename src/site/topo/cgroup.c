/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control group limits (Linux: Documentation/admin-guide/cgroup-v1, -v2).
 *
 * /proc/self/cgroup has a line "ID:CONTROLLERS:PATH" for every hierarchy; the
 * unified one (v2) is "0::PATH".  A limit binds all groups below it, so each
 * ancestor of PATH is asked, up to the mount point.
 */
#include "site/topo/cgroup.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"

#define FILE_LIMIT_BYTES 65536 /* kernel files of one line a hierarchy */

/* Read a small kernel file into fresh text; NULL (and FM_OK) when absent. */
static fm_status_t read_text(const char *path, char **out, fm_error_t *err)
{
    fm_buf_t buf = {0};
    fm_status_t rc = fm_file_read(path, FILE_LIMIT_BYTES, &buf, NULL);

    *out = NULL;
    if (rc == FM_OK && !(*out = fm_strdup(fm_buf_cstr(&buf)))) {
        rc = FM_ERR_NO_MEMORY;
    }
    fm_buf_fini(&buf);
    return rc == FM_ERR_NO_MEMORY ? fm_no_memory(err) : FM_OK;
}

/* The number at *text, moving past it and one blank; 0 for "max", -1, junk. */
static uint64_t take_number(const char **text)
{
    char *end = NULL;

    if (**text < '0' || **text > '9') {
        *text += strcspn(*text, " \n");
        *text += **text == ' ';
        return 0;
    }
    errno = 0;
    unsigned long long value = strtoull(*text, &end, 10);
    *text = *end == ' ' ? end + 1 : end;
    /* v1 spells "no limit" as the largest whole page below 2^63 */
    return errno || value >= UINT64_C(1) << 62 ? 0 : value;
}

static fm_status_t group_file(const char *dir, const char *name, uint64_t *out,
                              uint64_t *second, fm_error_t *err)
{
    char *text = NULL;
    char *path = fm_asprintf("%s/%s", dir, name);

    if (!path) {
        return fm_no_memory(err);
    }
    fm_status_t rc = read_text(path, &text, err);
    if (text) {
        const char *at = text;
        *out = take_number(&at);
        if (second) {
            *second = take_number(&at);
        }
    }
    free(text);
    free(path);
    return rc;
}

static void tighten_memory(fm_cgroup_limits_t *limits, uint64_t bytes)
{
    if (bytes && (!limits->memory_bytes || bytes < limits->memory_bytes)) {
        limits->memory_bytes = bytes;
    }
}

static void tighten_cores(fm_cgroup_limits_t *limits, uint64_t quota,
                          uint64_t period)
{
    if (!quota || !period) {
        return;
    }
    uint64_t cores = quota / period + (quota % period != 0);
    if (cores <= UINT32_MAX &&
        (!limits->core_count || cores < limits->core_count)) {
        limits->core_count = (uint32_t)cores;
    }
}

/* Limits of the one group at @p dir, whichever version it is of. */
static fm_status_t group_read(const char *dir, fm_cgroup_limits_t *limits,
                              fm_error_t *err)
{
    uint64_t v1_memory = 0;
    uint64_t v2_memory = 0;
    uint64_t v1_quota = 0;
    uint64_t v1_period = 0;
    uint64_t v2_quota = 0;
    uint64_t v2_period = 0;
    const struct {
        const char *name;
        uint64_t *first;
        uint64_t *second;
    } files[] = {
        {"memory.max", &v2_memory, NULL},
        {"cpu.max", &v2_quota, &v2_period},
        {"memory.limit_in_bytes", &v1_memory, NULL},
        {"cpu.cfs_quota_us", &v1_quota, NULL},
        {"cpu.cfs_period_us", &v1_period, NULL},
    };

    for (size_t i = 0; i < FM_COUNT_OF(files); i++) {
        fm_status_t rc = group_file(dir, files[i].name, files[i].first,
                                    files[i].second, err);
        if (rc < 0) {
            return rc;
        }
    }
    tighten_memory(limits, v1_memory);
    tighten_memory(limits, v2_memory);
    tighten_cores(limits, v1_quota, v1_period);
    tighten_cores(limits, v2_quota, v2_period);
    return FM_OK;
}

/* From root/controllers/path up to root/controllers. */
static fm_status_t ancestors_read(const char *root, const char *controllers,
                                  const char *path, fm_cgroup_limits_t *limits,
                                  fm_error_t *err)
{
    char *dir = fm_asprintf("%s/%s%s", root, controllers, path);
    fm_status_t rc = FM_OK;

    if (!dir) {
        return fm_no_memory(err);
    }
    size_t top = strlen(root) + 1 + strlen(controllers);
    while (rc == FM_OK) {
        rc = group_read(dir, limits, err);
        char *slash = strrchr(dir, '/');
        if (!slash || (size_t)(slash - dir) < top) {
            break;
        }
        *slash = '\0';
    }
    free(dir);
    return rc;
}

fm_status_t fm_cgroup_limits_read(const char *root, const char *self,
                                  fm_cgroup_limits_t *out, fm_error_t *err)
{
    fm_cgroup_limits_t limits = {0};
    char *text = NULL;
    char *rest = NULL;
    fm_status_t rc = read_text(self, &text, err);

    for (char *line = text ? strtok_r(text, "\n", &rest) : NULL;
         line && rc == FM_OK; line = strtok_r(NULL, "\n", &rest)) {
        char *controllers = strchr(line, ':');
        char *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path || path[1] != '/' || strstr(path, "/..")) {
            continue; /* not a line we know; /.. lies outside our view */
        }
        *controllers++ = '\0';
        *path++ = '\0';
        rc = ancestors_read(root, controllers, path, &limits, err);
    }
    free(text);
    if (rc == FM_OK) {
        *out = limits;
    }
    return rc;
}
