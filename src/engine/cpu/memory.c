/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much memory this process may still take.  Linux hands out more than
 * there is and kills who touches it; a job over its control group's limit is
 * killed likewise.  Asking first turns that into an error.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/file.h"
#include "engine/cpu/cpu.h"

enum { TEXT_MAX = 65536, PATH_BYTES = 4096, NAME_BYTES = 32 };

/* The number after @p key at the start of a line; false without. */
static bool number_after(const char *text, const char *key, size_t *value_out)
{
    size_t length = strlen(key);

    while (text) {
        if (strncmp(text, key, length) == 0) {
            char *end = NULL;
            unsigned long long value = strtoull(text + length, &end, 10);
            *value_out = (size_t)value;
            return end != text + length;
        }
        text = strchr(text, '\n');
        text = text ? text + 1 : NULL;
    }
    return false;
}

static bool file_number(const char *path, const char *key, size_t *value_out)
{
    fm_buf_t text = {0};
    bool found = fm_file_read(path, TEXT_MAX, &text, NULL) >= 0 &&
                 number_after(fm_buf_cstr(&text), key, value_out);

    fm_buf_fini(&text);
    return found;
}

/* What the group at @p dir leaves: its limit without what cannot be dropped
 * (the page cache can). */
static size_t group_left(const char *dir, const char *limit_file,
                         const char *used_key)
{
    char path[PATH_BYTES + NAME_BYTES];
    size_t limit = 0;
    size_t used = 0;

    (void)snprintf(path, sizeof(path), "%s/%s", dir, limit_file);
    if (!file_number(path, "", &limit)) { /* "max": no limit */
        return SIZE_MAX;
    }
    (void)snprintf(path, sizeof(path), "%s/memory.stat", dir);
    if (!file_number(path, used_key, &used)) {
        return SIZE_MAX;
    }
    return limit > used ? limit - used : 0;
}

/* The tightest of a group and those above it; @p root is where the hierarchy
 * is mounted, @p group the path below it. */
static size_t hierarchy_left(const char *root, const char *group,
                             const char *limit_file, const char *used_key)
{
    char dir[PATH_BYTES];
    size_t root_length = strlen(root);
    size_t least = SIZE_MAX;

    if (snprintf(dir, sizeof(dir), "%s%s", root, group) >= PATH_BYTES) {
        return SIZE_MAX;
    }
    for (;;) {
        size_t left = group_left(dir, limit_file, used_key);
        least = left < least ? left : least;
        char *slash = strrchr(dir, '/');
        if (!slash || (size_t)(slash - dir) < root_length) {
            return least;
        }
        *slash = '\0';
    }
}

/* The hierarchy that one line of /proc/self/cgroup names: 0::/path, or
 * 4:memory:/path where groups are of version 1. */
static size_t line_left(const char *line)
{
    static const char unified[] = "0::";
    static const char memory[] = ":memory:";
    char group[PATH_BYTES];
    const char *v1 = strstr(line, memory);
    size_t length = strcspn(line, "\n");

    if (length >= sizeof(group)) {
        return SIZE_MAX;
    }
    memcpy(group, line, length);
    group[length] = '\0';
    if (strncmp(group, unified, strlen(unified)) == 0) {
        return hierarchy_left("/sys/fs/cgroup", group + strlen(unified),
                              "memory.max", "anon ");
    }
    if (v1 && (size_t)(v1 - line) < length) {
        return hierarchy_left("/sys/fs/cgroup/memory",
                              group + (v1 - line) + strlen(memory),
                              "memory.limit_in_bytes", "total_rss ");
    }
    return SIZE_MAX;
}

size_t fm_engine_cpu_memory_left(void)
{
    fm_buf_t groups = {0};
    size_t least = SIZE_MAX;
    size_t kib = 0;

    if (file_number("/proc/meminfo", "MemAvailable:", &kib)) {
        least = kib * 1024;
    }
    if (fm_file_read("/proc/self/cgroup", TEXT_MAX, &groups, NULL) >= 0) {
        const char *line = fm_buf_cstr(&groups);
        while (line && *line) {
            size_t left = line_left(line);
            least = left < least ? left : least;
            line = strchr(line, '\n');
            line = line ? line + 1 : NULL;
        }
    }
    fm_buf_fini(&groups);
    return least;
}
