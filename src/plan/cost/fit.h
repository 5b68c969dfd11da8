/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file fit.h
 * What was measured of one (task class, device class): a robust line through
 * (work, seconds).  Of plan/cost alone.
 *
 *   fewer than 5 results  the roofline, times the lower median of measured
 *                         over predicted: what disturbs a run only makes it
 *                         longer, and a first run most of all
 *   from the 5th on       weighted least squares, forgetting 2 % a result, with
 *                         the roofline's shape as a ridge worth half a result
 *                         over their number; started from a Theil-Sen line
 *                         (Sen, 1968) through the five, each held to within a
 *                         factor of 2 of it
 *   a result off by more than 4 standard deviations is taken as that far off
 *                         (Huber, 1964), so a stall changes little
 *   five such in a row on the same side are a change, not outliers: the line
 *                         starts anew from them
 *
 * Weights are 1 / reference(work)², the roofline's shape when the first result
 * came, so that a batch of seconds and one of hours weigh the same and weights
 * do not move with what is learned.
 */
#ifndef FM_PLAN_COST_FIT_H
#define FM_PLAN_COST_FIT_H

#include <stdbool.h>
#include <stdint.h>

#define FM_COST_RECENT 5u

typedef struct fm_cost_line {
    double call, unit; /* seconds */
} fm_cost_line_t;

typedef struct fm_cost_fit {
    double n;                       /* forgotten count of samples */
    double s, x, xx, y, xy;         /* sums of w, w·work, … */
    double squares;                 /* of relative residuals, forgotten */
    double call, unit;              /* the reference */
    double side;                    /* clipped in a row: < 0 too fast */
    double count;                   /* of recent, ≤ FM_COST_RECENT */
    double work[FM_COST_RECENT];    /* recent, the latest last */
    double seconds[FM_COST_RECENT]; /* of the same samples */
} fm_cost_fit_t;

/** Seconds of @p work, > 0 and finite; @p relative_out: their standard
 *  deviation over them.  @p prior has both parts > 0. */
double fm_cost_fit_seconds(const fm_cost_fit_t *fit,
                           const fm_cost_line_t *prior, double work,
                           double *relative_out);
/** Take in a sample; both numbers finite, ≥ 0. */
void fm_cost_fit_learn(fm_cost_fit_t *fit, const fm_cost_line_t *prior,
                       double work, double seconds);

#endif
