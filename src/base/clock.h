/* SPDX-License-Identifier: Apache-2.0 */
/** @file clock.h  Time as int64_t nanoseconds.  Never used by src/plan. */
#ifndef FM_BASE_CLOCK_H
#define FM_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

#define FM_NS_PER_US INT64_C(1000)
#define FM_NS_PER_MS INT64_C(1000000)
#define FM_NS_PER_S INT64_C(1000000000)

/** Monotonic, unrelated to the date. */
int64_t fm_clock_mono_ns(void);
/** Nanoseconds since 1970-01-01T00:00Z. */
int64_t fm_clock_wall_ns(void);
/** CPU time of this process, user and system. */
int64_t fm_clock_cpu_ns(void);
/** @p wall_ns as "2026-01-31T12:00:00.123Z"; @p text holds ≥ 25 bytes. */
void fm_clock_format(int64_t wall_ns, char *text, size_t bytes);

#endif
