/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The robust line of fit.h.  The sums hold every sample since the line was
 * started; the prior enters when they are solved, not when they are fed, so a
 * better specification corrects what was learned little.
 */
#include "plan/cost/fit.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#define FORGET 0.98       /* weight of the past at each sample: ~50 samples */
#define PRIOR_SAMPLES 0.5 /* the roofline is worth half a result */
#define PRIOR_STDDEV 1.0  /* relative, of a bare roofline */
#define CLIP_STDDEVS 4.0
#define CLIP_STDDEV_MIN 0.05 /* below 5 % a deviation is no outlier */
#define START_FACTOR 2.0     /* the five that start a line, around it */
#define SECONDS_MIN 1e-7     /* nothing takes no time: T divides */

static double line_at(const fm_cost_line_t *line, double work)
{
    return fmax(line->call + line->unit * work, SECONDS_MIN);
}

/* Lower median of @p count ≤ 10 values, which are sorted. */
static double median(double *values, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        double value = values[i];
        size_t at = i;
        for (; at > 0 && values[at - 1] > value; at--) {
            values[at] = values[at - 1];
        }
        values[at] = value;
    }
    return values[(count - 1) / 2];
}

static size_t recent_count(const fm_cost_fit_t *fit)
{
    return (size_t)fmin(fmax(fit->count, 0), FM_COST_RECENT);
}

/* The roofline, scaled to what few results say. */
static fm_cost_line_t scaled(const fm_cost_fit_t *fit,
                             const fm_cost_line_t *prior)
{
    double ratios[FM_COST_RECENT];
    size_t count = recent_count(fit);

    for (size_t i = 0; i < count; i++) {
        ratios[i] = fit->seconds[i] / line_at(prior, fit->work[i]);
    }
    double by = count > 0 ? median(ratios, count) : 1;
    return (fm_cost_line_t){prior->call * by, prior->unit * by};
}

/*
 * Solve the 2×2 normal equations with the prior as a ridge on (a, b); where a
 * parameter comes out negative, it is zero and the other is fitted alone.
 * The prior is scaled to the results first: a roofline is wrong by a factor
 * far more often than in the ratio of its two parts.
 */
static fm_cost_line_t solve(const fm_cost_fit_t *m, const fm_cost_line_t *prior)
{
    double call = prior->call;
    double unit = prior->unit;
    double scale =
        (call * m->y + unit * m->xy) /
        (call * call * m->s + 2 * call * unit * m->x + unit * unit * m->xx);

    call *= scale;
    unit *= scale;
    if (!(m->xx > 0)) { /* all of no work: nothing is known of a unit */
        return (fm_cost_line_t){m->y / m->s, unit};
    }
    /* in the weight of a mean sample; less and less, or a wrong shape stays */
    double k = PRIOR_SAMPLES / fmax(m->n * m->n, 1);
    double ka = k * m->s;
    double kb = k * m->xx;
    double aa = m->s + ka;
    double bb = m->xx + kb;
    double ya = m->y + ka * call;
    double yb = m->xy + kb * unit;
    double det = aa * bb - m->x * m->x;
    double a = det > 0 ? (ya * bb - yb * m->x) / det : ya / aa;
    double b = det > 0 ? (yb * aa - ya * m->x) / det : 0;

    if (a < 0) {
        a = 0;
        b = yb / bb;
    } else if (b < 0) {
        b = 0;
        a = ya / aa;
    }
    return (fm_cost_line_t){a, b};
}

static fm_cost_line_t line_of(const fm_cost_fit_t *fit,
                              const fm_cost_line_t *prior)
{
    if (fit && fit->s > 0) {
        fm_cost_line_t line = solve(fit, prior);
        /* numbers from a file may be anything */
        if (isfinite(line.call) && isfinite(line.unit)) {
            return line;
        }
        return *prior;
    }
    return fit ? scaled(fit, prior) : *prior;
}

double fm_cost_fit_seconds(const fm_cost_fit_t *fit,
                           const fm_cost_line_t *prior, double work,
                           double *relative_out)
{
    fm_cost_line_t line = line_of(fit, prior);
    double seconds = line_at(&line, work);
    double n = fit ? fit->n : 0;
    double squares = fit ? fit->squares : 0;

    *relative_out =
        sqrt((squares + PRIOR_SAMPLES * PRIOR_STDDEV * PRIOR_STDDEV) /
             (n + PRIOR_SAMPLES));
    return isfinite(seconds) ? seconds : line_at(prior, work);
}

/* --- learning ------------------------------------------------------------- */

static void sums_add(fm_cost_fit_t *fit, double work, double seconds,
                     double residual)
{
    double reference = fit->call + fit->unit * work;
    double w = 1 / (reference * reference);

    fit->n = FORGET * fit->n + 1;
    fit->s = FORGET * fit->s + w;
    fit->x = FORGET * fit->x + w * work;
    fit->xx = FORGET * fit->xx + w * work * work;
    fit->y = FORGET * fit->y + w * seconds;
    fit->xy = FORGET * fit->xy + w * work * seconds;
    /* a residual of more than all says nothing of the spread */
    fit->squares = FORGET * fit->squares + fmin(residual * residual, 1);
}

/* Median of the slopes between all pairs, and of what is left for the call;
 * with too few distinct works, or where a part is negative, the roofline's
 * shape. */
static fm_cost_line_t theil_sen(const fm_cost_fit_t *fit,
                                const fm_cost_line_t *prior)
{
    double slopes[FM_COST_RECENT * (FM_COST_RECENT - 1) / 2];
    double calls[FM_COST_RECENT];
    size_t count = 0;

    for (size_t i = 0; i < FM_COST_RECENT; i++) {
        for (size_t j = 0; j < i; j++) {
            double run = fit->work[i] - fit->work[j];
            if (fabs(run) > 0) {
                slopes[count++] = (fit->seconds[i] - fit->seconds[j]) / run;
            }
        }
    }
    /* fewer than six of the ten: three or more share one work */
    double unit = count > 5 ? median(slopes, count) : -1;
    for (size_t i = 0; i < FM_COST_RECENT; i++) {
        calls[i] = fit->seconds[i] - unit * fit->work[i];
    }
    double call = median(calls, FM_COST_RECENT);
    return unit >= 0 && call >= 0 ? (fm_cost_line_t){call, unit}
                                  : scaled(fit, prior);
}

/* Begin the sums with the recent samples alone. */
static void restart(fm_cost_fit_t *fit, const fm_cost_line_t *prior)
{
    fm_cost_line_t line = theil_sen(fit, prior);

    fit->n = fit->s = fit->x = fit->xx = fit->y = fit->xy = 0;
    fit->squares = 0;
    fit->side = 0;
    for (size_t i = 0; i < FM_COST_RECENT; i++) {
        double expected = line_at(&line, fit->work[i]);
        double seconds = fmin(fmax(fit->seconds[i], expected / START_FACTOR),
                              expected * START_FACTOR);
        sums_add(fit, fit->work[i], seconds, seconds / expected - 1);
    }
}

static void recent_add(fm_cost_fit_t *fit, double work, double seconds)
{
    size_t count = recent_count(fit);

    if (count == FM_COST_RECENT) {
        count--;
        memmove(fit->work, fit->work + 1, count * sizeof(double));
        memmove(fit->seconds, fit->seconds + 1, count * sizeof(double));
    }
    fit->work[count] = work;
    fit->seconds[count] = seconds;
    fit->count = (double)(count + 1);
}

/* Few samples: spread around their own median, the line waits for five. */
static void learn_first(fm_cost_fit_t *fit, const fm_cost_line_t *prior)
{
    fm_cost_line_t line = scaled(fit, prior);
    size_t count = recent_count(fit);

    if (count == FM_COST_RECENT) {
        restart(fit, prior);
        return;
    }
    fit->n = (double)count;
    fit->squares = 0;
    for (size_t i = 0; i < count; i++) {
        double residual = fit->seconds[i] / line_at(&line, fit->work[i]) - 1;
        fit->squares += fmin(residual * residual, 1);
    }
}

void fm_cost_fit_learn(fm_cost_fit_t *fit, const fm_cost_line_t *prior,
                       double work, double seconds)
{
    double spread = 0;
    double expected = fm_cost_fit_seconds(fit, prior, work, &spread);
    double measured = fmax(seconds, SECONDS_MIN);
    double bound = 1 + CLIP_STDDEVS * fmax(spread, CLIP_STDDEV_MIN);

    if (recent_count(fit) == 0) {
        fit->call = prior->call;
        fit->unit = prior->unit;
    }
    recent_add(fit, work, measured);
    if (!(fit->s > 0)) {
        learn_first(fit, prior);
        return;
    }
    if (measured > expected * bound) {
        fit->side = fmax(fit->side, 0) + 1;
        measured = expected * bound;
    } else if (measured < expected / bound) {
        fit->side = fmin(fit->side, 0) - 1;
        measured = expected / bound;
    } else {
        fit->side = 0;
    }
    if (fabs(fit->side) >= FM_COST_RECENT) {
        restart(fit, prior);
    } else {
        sums_add(fit, work, measured, measured / expected - 1);
    }
}
