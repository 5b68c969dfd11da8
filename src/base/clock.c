/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"

#include <stdio.h>
#include <time.h>

static int64_t read_clock(clockid_t id)
{
    struct timespec ts = {0};

    (void)clock_gettime(id, &ts);
    return (int64_t)ts.tv_sec * FM_NS_PER_S + ts.tv_nsec;
}

int64_t fm_clock_mono_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

int64_t fm_clock_wall_ns(void)
{
    return read_clock(CLOCK_REALTIME);
}

int64_t fm_clock_cpu_ns(void)
{
    return read_clock(CLOCK_PROCESS_CPUTIME_ID);
}

void fm_clock_format(int64_t wall_ns, char *text, size_t bytes)
{
    time_t seconds = (time_t)(wall_ns / FM_NS_PER_S);
    int millis = (int)(wall_ns % FM_NS_PER_S / FM_NS_PER_MS);
    struct tm tm = {0};
    char date[24] = "";

    (void)gmtime_r(&seconds, &tm);
    (void)strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
    (void)snprintf(text, bytes, "%s.%03dZ", date, millis);
}
