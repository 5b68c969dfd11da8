/* SPDX-License-Identifier: Apache-2.0 */
/* Arrival processes: closed forms of the integrated rate, inverted. */
#include "role/scenario/arrivals.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "base/mem.h"

/* Arrivals of one ramp: the integral of its rate over its length. */
static double ramp_total(const fm_arrivals_t *a)
{
    double from = a->from_per_second;
    double to = a->to_per_second;

    return a->geometric && from != to
               ? a->seconds * (to - from) / log(to / from)
               : a->seconds * (from + to) / 2;
}

/* When the integral reaches @p k. */
static double ramp_time(const fm_arrivals_t *a, double k)
{
    double from = a->from_per_second;
    double to = a->to_per_second;

    if (from == to) {
        return k / from;
    }
    if (a->geometric) {
        double growth = log(to / from) / a->seconds;
        return log1p(k * growth / from) / growth;
    }
    double slope = (to - from) / a->seconds;
    return 2 * k / (from + sqrt(fmax(0, from * from + 2 * slope * k)));
}

/* Whole arrivals of a ramp; the last comes before its end.  The margin keeps
 * a total that is a whole number but for rounding. */
static double ramp_count(const fm_arrivals_t *a)
{
    return fmax(1, ceil(ramp_total(a) - 1e-9));
}

size_t fm_arrivals_count(const fm_arrivals_t *arrivals)
{
    double count = 0;

    switch (arrivals->process) {
    case FM_ARRIVAL_BATCHED:
    case FM_ARRIVAL_RANDOM:
    case FM_ARRIVAL_FIXED:
    case FM_ARRIVAL_POISSON:
        count = (double)arrivals->count;
        break;
    case FM_ARRIVAL_RAMP:
        count = ramp_count(arrivals);
        break;
    case FM_ARRIVAL_UP_RAMP:
        count = ramp_count(arrivals) * arrivals->cycles;
        break;
    case FM_ARRIVAL_TRACE:
        break;
    }
    return count < FM_ARRIVALS_MAX ? (size_t)count : FM_ARRIVALS_MAX;
}

void fm_arrivals_times(const fm_arrivals_t *arrivals, fm_rng_t *rng,
                       double *times_out)
{
    size_t count = fm_arrivals_count(arrivals);
    bool ramp = arrivals->process == FM_ARRIVAL_RAMP ||
                arrivals->process == FM_ARRIVAL_UP_RAMP;
    size_t each =
        ramp ? (size_t)fmin(ramp_count(arrivals), FM_ARRIVALS_MAX) : 1;
    double at = 0;

    for (size_t i = 0; i < count; i++) {
        size_t within = i % each; /* its cycle */
        switch (arrivals->process) {
        case FM_ARRIVAL_BATCHED:
        case FM_ARRIVAL_RANDOM:
        case FM_ARRIVAL_TRACE:
            break;
        case FM_ARRIVAL_FIXED:
            at = (double)i / arrivals->per_second;
            break;
        case FM_ARRIVAL_POISSON:
            at -= log1p(-fm_rng_uniform(rng)) / arrivals->per_second;
            break;
        case FM_ARRIVAL_RAMP:
        case FM_ARRIVAL_UP_RAMP:
            at = (double)(i - within) / (double)each * arrivals->seconds +
                 ramp_time(arrivals, (double)within);
            break;
        }
        times_out[i] = at;
    }
}

/* Fisher and Yates. */
static void shuffle(uint32_t *deck, size_t count, fm_rng_t *rng)
{
    for (size_t i = count; i > 1; i--) {
        size_t k = (size_t)fm_rng_below(rng, i);
        uint32_t held = deck[i - 1];
        deck[i - 1] = deck[k];
        deck[k] = held;
    }
}

fm_status_t fm_arrivals_kinds(const uint32_t *weights, size_t kind_count,
                              bool dealt, fm_rng_t *rng, uint32_t *kinds_out,
                              size_t count, fm_error_t *err)
{
    size_t size = 0;

    for (size_t i = 0; i < kind_count; i++) {
        size += weights[i];
    }
    if (size == 0) {
        return fm_error_set(err, FM_ERR_INVALID, "a mix of nothing");
    }
    uint32_t *deck = fm_calloc(size, sizeof(*deck));
    if (!deck) {
        return fm_no_memory(err);
    }
    size_t filled = 0;
    assert(size > 0);
    for (uint32_t i = 0; i < kind_count; i++) {
        for (uint32_t k = 0; k < weights[i]; k++) {
            deck[filled++] = i;
        }
    }
    for (size_t i = 0; i < count; i++) {
        if (dealt && i % size == 0) {
            shuffle(deck, size, rng);
        }
        kinds_out[i] = deck[dealt ? i % size : fm_rng_below(rng, size)];
    }
    free(deck);
    return FM_OK;
}
