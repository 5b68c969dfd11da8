/* SPDX-License-Identifier: Apache-2.0 */
/* Medians, spreads and the lines of bench/README.md. */
#include "report/report.h"

#include <stdio.h>
#include <stdlib.h>

static int value_order(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static fm_bench_series_t in_order(const fm_bench_series_t *series)
{
    fm_bench_series_t sorted = *series;

    qsort(sorted.values, sorted.count, sizeof(sorted.values[0]), value_order);
    return sorted;
}

void fm_bench_add(fm_bench_series_t *series, double value)
{
    if (series->count < FM_BENCH_ROUNDS_MAX) {
        series->values[series->count++] = value;
    }
}

double fm_bench_median(const fm_bench_series_t *series)
{
    fm_bench_series_t sorted = in_order(series);
    size_t middle = sorted.count / 2;

    if (sorted.count == 0) {
        return 0;
    }
    return sorted.count % 2
               ? sorted.values[middle]
               : (sorted.values[middle - 1] + sorted.values[middle]) / 2;
}

/* Three digits that count, never an exponent. */
static int digits(double value)
{
    return value >= 100 ? 0 : value >= 10 ? 1 : value >= 1 ? 2 : 4;
}

static void show(const char *name, const fm_bench_series_t *series,
                 const char *unit)
{
    fm_bench_series_t s = in_order(series);
    double low = s.count ? s.values[0] : 0;
    double high = s.count ? s.values[s.count - 1] : 0;
    double median = fm_bench_median(series);

    (void)printf("  %-24s %.*f %s", name, digits(median), median, unit);
    if (s.count > 1) {
        (void)printf(", %zu rounds from %.*f to %.*f", s.count, digits(low),
                     low, digits(high), high);
    }
    (void)printf("\n");
}

/* Ours to the peer's, round by round, above 1 when we are better. */
static fm_bench_series_t ratios(const fm_bench_series_t *ours,
                                const fm_bench_series_t *theirs,
                                fm_bench_sense_t sense)
{
    fm_bench_series_t out = {0};

    for (size_t i = 0; i < ours->count && i < theirs->count; i++) {
        double a = ours->values[i];
        double b = theirs->values[i];
        fm_bench_add(&out, sense == FM_BENCH_MORE ? a / b : b / a);
    }
    return out;
}

void fm_bench_print(const char *name, const fm_bench_series_t *ours,
                    const char *unit, fm_bench_sense_t sense,
                    const fm_bench_peer_t *peer)
{
    double value = fm_bench_median(ours);

    show(name, ours, unit);
    if (!peer) {
        (void)printf("BENCH %s %.*f %s\n", name, digits(value), value, unit);
    } else {
        double other = fm_bench_median(peer->series);
        fm_bench_series_t each = ratios(ours, peer->series, sense);
        show(peer->name, peer->series, unit);
        show("ratio", &each, "(1: equal, more: we are better)");
        (void)printf("BENCH %s %.*f %s %s %.*f %.2f\n", name, digits(value),
                     value, unit, peer->name, digits(other), other,
                     fm_bench_median(&each));
    }
    (void)fflush(stdout);
}

void fm_bench_skip(const char *name, const char *why)
{
    (void)printf("SKIP %s %s\n", name, why);
    (void)fflush(stdout);
}
