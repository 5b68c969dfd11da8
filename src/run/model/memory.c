/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What may still be allocated.  The kernel says it in three places: the
 * machine (MemAvailable), the control groups of this process and all above
 * them (limit less what is used, file cache that can go not counted), and the
 * limit on its own address space.  What cannot be read binds nothing.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "run/model/model.h"

#define KERNEL_FILE_BYTES ((size_t)256 << 10)

/* Text of a kernel file; NULL when it is not there. */
static char *text_read(const char *path)
{
    fm_buf_t buf = {0};
    char *text = NULL;

    if (path && fm_file_read(path, KERNEL_FILE_BYTES, &buf, NULL) >= 0) {
        text = fm_strdup(fm_buf_cstr(&buf));
    }
    fm_buf_fini(&buf);
    return text;
}

/* The number behind a line's first word @p key; @p fallback without one. */
static uint64_t field_read(const char *text, const char *key, uint64_t fallback)
{
    size_t len = strlen(key);

    for (const char *line = text; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n' ? 1 : 0;
        if (strncmp(line, key, len) == 0 &&
            (line[len] == ' ' || line[len] == ':')) {
            return strtoull(line + len + 1, NULL, 10);
        }
    }
    return fallback;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t machine_free(void)
{
    char *text = text_read("/proc/meminfo");
    uint64_t kilobytes = field_read(text, "MemAvailable", UINT64_MAX >> 10);

    free(text);
    return kilobytes << 10;
}

/* A whole file that is one number; UINT64_MAX for "max" and for no file. */
static uint64_t number_read(const char *dir, const char *name)
{
    char *path = fm_asprintf("%s/%s", dir, name);
    char *text = text_read(path);
    uint64_t value = text && *text >= '0' && *text <= '9'
                         ? strtoull(text, NULL, 10)
                         : UINT64_MAX;

    free(text);
    free(path);
    return value;
}

/* What is left in the one group at @p dir. */
static uint64_t group_free(const char *dir, const char *limit_name,
                           const char *usage_name, const char *cache_key)
{
    uint64_t limit = number_read(dir, limit_name);
    uint64_t used = number_read(dir, usage_name);
    char *path = fm_asprintf("%s/memory.stat", dir);
    char *stat = text_read(path);
    uint64_t cache = field_read(stat, cache_key, 0);

    free(stat);
    free(path);
    if (limit == UINT64_MAX || used == UINT64_MAX) {
        return UINT64_MAX;
    }
    used -= least(used, cache);
    return limit - least(limit, used);
}

/* The groups from @p path of a hierarchy up to its mount point. */
static uint64_t groups_free(const char *mount, const char *path,
                            const char *limit_name, const char *usage_name,
                            const char *cache_key)
{
    char *dir = fm_asprintf("%s%s", mount, path);
    uint64_t bytes = UINT64_MAX;

    while (dir && strlen(dir) >= strlen(mount)) {
        bytes =
            least(bytes, group_free(dir, limit_name, usage_name, cache_key));
        char *slash = strrchr(dir, '/');
        *slash = '\0';
    }
    free(dir);
    return bytes;
}

static uint64_t cgroup_free(void)
{
    char *text = text_read("/proc/self/cgroup");
    char *save = NULL;
    uint64_t bytes = UINT64_MAX;

    for (char *line = text ? strtok_r(text, "\n", &save) : NULL; line;
         line = strtok_r(NULL, "\n", &save)) {
        char *controllers = strchr(line, ':');
        char *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path || path[1] != '/' || strstr(path, "..")) {
            continue;
        }
        *path++ = '\0';
        if (strcmp(controllers, ":") == 0) {
            bytes =
                least(bytes, groups_free("/sys/fs/cgroup", path, "memory.max",
                                         "memory.current", "inactive_file"));
        } else if (strcmp(controllers, ":memory") == 0) {
            bytes = least(bytes, groups_free("/sys/fs/cgroup/memory", path,
                                             "memory.limit_in_bytes",
                                             "memory.usage_in_bytes",
                                             "total_inactive_file"));
        }
    }
    free(text);
    return bytes;
}

/* Under a limit of the address space, what is mapped counts. */
static uint64_t process_free(void)
{
    struct rlimit limit;
    char *text = text_read("/proc/self/status");
    uint64_t mapped = field_read(text, "VmSize", 0) << 10;

    free(text);
    if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
        return UINT64_MAX;
    }
    return limit.rlim_cur - least(limit.rlim_cur, mapped);
}

uint64_t fm_model_memory_free(void)
{
    return least(machine_free(), least(cgroup_free(), process_free()));
}
