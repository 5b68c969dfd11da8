/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

#define LINE_BYTES 2048 /* one write() of a pipe stays whole below PIPE_BUF */

static const char *const level_names[] = {"ERROR", "WARN", "INFO", "DEBUG"};
static atomic_int threshold = -1;
static char process_name[32] = "flowmesh";

static int level_from_environment(void)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};
    const char *text = getenv("FM_LOG");

    for (int i = 0; text && i < 4; i++) {
        if (strcmp(text, names[i]) == 0) {
            return i;
        }
    }
    return FM_LOG_WARN;
}

void fm_log_set_level(fm_log_level_t level)
{
    atomic_store(&threshold, (int)level);
}

void fm_log_set_name(const char *name)
{
    (void)snprintf(process_name, sizeof(process_name), "%s", name);
}

void fm_log(fm_log_level_t level, const char *format, ...)
{
    int limit = atomic_load(&threshold);

    if (limit < 0) {
        limit = level_from_environment();
        atomic_store(&threshold, limit);
    }
    if ((int)level > limit) {
        return;
    }
    char line[LINE_BYTES];
    char when[32] = "";
    va_list args;

    fm_clock_format(fm_clock_wall_ns(), when, sizeof(when));
    int used = snprintf(line, sizeof(line), "%s %s %s: ", when,
                        level_names[level], process_name);
    if (used < 0) {
        return;
    }
    va_start(args, format);
    int n =
        vsnprintf(line + used, sizeof(line) - (size_t)used - 1, format, args);
    va_end(args);
    size_t len = n < 0 ? (size_t)used : strlen(line);
    line[len++] = '\n';
    if (write(STDERR_FILENO, line, len) < 0) {
        return; /* nowhere left to say it */
    }
}
