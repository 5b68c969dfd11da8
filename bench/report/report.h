/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file report.h
 * What every benchmark prints: repeated measurements, their median and
 * spread, and the line that bench/run.sh collects (bench/README.md).
 * Threads: none of this is shared.
 */
#ifndef FM_BENCH_REPORT_H
#define FM_BENCH_REPORT_H

#include <stdbool.h>
#include <stddef.h>

#define FM_BENCH_ROUNDS_MAX 100

/** One figure, measured once a round.  {0} is empty. */
typedef struct fm_bench_series {
    double values[FM_BENCH_ROUNDS_MAX];
    size_t count;
} fm_bench_series_t;

/** Append; beyond FM_BENCH_ROUNDS_MAX the value is dropped. */
void fm_bench_add(fm_bench_series_t *series, double value);
/** Middle value, the mean of the two middle ones; 0 of an empty series. */
double fm_bench_median(const fm_bench_series_t *series);

/** Who did the same work in the same rounds. */
typedef struct fm_bench_peer {
    const char *name; /**< without blanks */
    const fm_bench_series_t *series;
} fm_bench_peer_t;

typedef enum fm_bench_sense {
    FM_BENCH_MORE, /**< more is better: a rate */
    FM_BENCH_LESS  /**< less is better: a time, a size */
} fm_bench_sense_t;

/**
 * Print one figure: a line for people with the spread, and the BENCH line.
 *
 * The ratio is the median of the rounds' ratios, which noise that hits both
 * sides of a round leaves alone; so it may differ from the ratio of the
 * medians.  It is above 1 when we are better, whatever the sense.
 *
 * @param name  "module.figure", without blanks.
 * @param unit  without blanks.
 * @param peer  NULL: none; its series has as many rounds as ours.
 */
void fm_bench_print(const char *name, const fm_bench_series_t *ours,
                    const char *unit, fm_bench_sense_t sense,
                    const fm_bench_peer_t *peer);
/** Print why a figure was not measured, and what to do about it. */
void fm_bench_skip(const char *name, const char *why);

#endif
