/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file arrivals.h
 * When workflows arrive, and in what order their kinds come.
 *
 * Pure and deterministic: randomness is an argument.  Threads: any.
 */
#ifndef FM_ROLE_SCENARIO_ARRIVALS_H
#define FM_ROLE_SCENARIO_ARRIVALS_H

#include <flowmesh/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/rng.h"

#define FM_ARRIVALS_MAX                                                        \
    1000000u /* of a run: what the simulator is made for                       \
              */

typedef enum fm_arrival_process {
    FM_ARRIVAL_BATCHED, /* all at once, kinds dealt from shuffled decks */
    FM_ARRIVAL_RANDOM,  /* all at once, kinds drawn with replacement */
    FM_ARRIVAL_FIXED,   /* at one rate */
    FM_ARRIVAL_RAMP,    /* the rate goes from one to another */
    FM_ARRIVAL_UP_RAMP, /* the same, several times over */
    FM_ARRIVAL_POISSON, /* at one rate, exponential gaps */
    FM_ARRIVAL_TRACE    /* as recorded */
} fm_arrival_process_t;

typedef struct fm_arrivals {
    fm_arrival_process_t process;
    size_t count;           /* batched, random, fixed, poisson */
    double per_second;      /* fixed, poisson: > 0 */
    double from_per_second; /* ramp, up_ramp: > 0 */
    double to_per_second;   /* > 0 */
    double seconds;         /* of a ramp, of one cycle */
    unsigned cycles;        /* up_ramp */
    bool geometric;         /* the rate changes by equal factors */
} fm_arrivals_t;

/** Arrivals of @p arrivals, at most FM_ARRIVALS_MAX; 0 for a trace. */
size_t fm_arrivals_count(const fm_arrivals_t *arrivals);

/**
 * Times in seconds from the start, ascending.  The k-th arrival of a ramp
 * comes when the integral of its rate reaches k, from 0.
 * @param times_out  [out] room for fm_arrivals_count().
 */
void fm_arrivals_times(const fm_arrivals_t *arrivals, fm_rng_t *rng,
                       double *times_out);

/**
 * The kind of each arrival, by weights that are whole numbers.  @p dealt: from
 * decks that hold kind i weights[i] times, shuffled anew for each; else each
 * kind is drawn by itself.
 * @param kinds_out  [out] room for @p count.
 * @retval FM_ERR_NO_MEMORY
 */
FM_MUST_USE fm_status_t fm_arrivals_kinds(const uint32_t *weights,
                                          size_t kind_count, bool dealt,
                                          fm_rng_t *rng, uint32_t *kinds_out,
                                          size_t count, fm_error_t *err);

#endif
