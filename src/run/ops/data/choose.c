/* SPDX-License-Identifier: Apache-2.0 */
#include "run/ops/data/choose.h"

#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/rng.h"

void fm_ops_permute(uint64_t seed, size_t *order, size_t count)
{
    fm_rng_t rng;

    fm_rng_init(&rng, seed);
    for (size_t i = 0; i < count; i++) {
        order[i] = i;
    }
    for (size_t i = count; i-- > 1;) {
        size_t j = (size_t)fm_rng_below(&rng, i + 1);
        size_t kept = order[i];
        order[i] = order[j];
        order[j] = kept;
    }
}

/* --- parts --------------------------------------------------------------- */

static fm_status_t counts_of(const fm_ops_split_t *split, size_t count,
                             size_t *sizes, fm_error_t *err)
{
    size_t rest = SIZE_MAX, left = count;

    for (size_t i = 0; i < split->part_count; i++) {
        const fm_ops_part_t *part = &split->parts[i];
        rest = part->rest ? i : rest;
        sizes[i] = part->rest ? 0 : part->count;
        if (sizes[i] > left) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "parts: the counts add up to more than the %zu "
                                "records",
                                count);
        }
        left -= sizes[i];
    }
    if (rest < split->part_count) {
        sizes[rest] = left;
    } else if (left > 0) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "parts: %zu of %zu records belong to no part; "
                            "leave the count of one part out",
                            left, count);
    }
    return FM_OK;
}

static fm_status_t shares_of(const fm_ops_split_t *split, double *shares,
                             fm_error_t *err)
{
    size_t rest = SIZE_MAX;
    double sum = 0;

    for (size_t i = 0; i < split->part_count; i++) {
        const fm_ops_part_t *part = &split->parts[i];
        rest = part->rest ? i : rest;
        shares[i] = part->rest ? 0 : part->fraction;
        sum += shares[i];
    }
    if (sum > 1 + 1e-9 || (rest == SIZE_MAX && sum < 1 - 1e-9)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "parts: the fractions add up to %.10g; 1 is needed",
                            sum);
    }
    if (rest < split->part_count) {
        shares[rest] = sum < 1 ? 1 - sum : 0;
    }
    return FM_OK;
}

/* Largest remainder; @p carry is what earlier strata gave or took. */
static void sizes_round(const double *shares, size_t parts, size_t count,
                        double *carry, size_t *sizes)
{
    double target[OPS_PARTS_MAX];
    size_t sum = 0;

    for (size_t i = 0; i < parts; i++) {
        /* What is a whole number but for rounding errors is one. */
        target[i] = (double)count * shares[i] + carry[i];
        double floored = floor(target[i] + 1e-9);
        sizes[i] = floored > 0 ? (size_t)floored : 0;
        sum += sizes[i];
    }
    while (sum != count) {
        size_t best = SIZE_MAX;
        for (size_t i = 0; i < parts; i++) {
            double gap = target[i] - (double)sizes[i];
            double best_gap =
                best < parts ? target[best] - (double)sizes[best] : 0;
            if (sum < count
                    ? best == SIZE_MAX || gap > best_gap
                    : sizes[i] > 0 && (best == SIZE_MAX || gap < best_gap)) {
                best = i;
            }
        }
        sizes[best] += sum < count ? 1 : (size_t)-1;
        sum += sum < count ? 1 : (size_t)-1;
    }
    for (size_t i = 0; i < parts; i++) {
        carry[i] = target[i] - (double)sizes[i];
    }
}

/* Deal the records of @p order, grouped by stratum, to the parts. */
static fm_status_t deal(const fm_ops_split_t *split, const size_t *order,
                        const size_t *starts, size_t count, uint8_t *part_out,
                        fm_error_t *err)
{
    double shares[OPS_PARTS_MAX] = {0}, carry[OPS_PARTS_MAX] = {0};
    size_t sizes[OPS_PARTS_MAX] = {0};
    fm_status_t rc = split->by_count ? counts_of(split, count, sizes, err)
                                     : shares_of(split, shares, err);

    for (size_t s = 0; rc >= 0 && s < split->stratum_count; s++) {
        size_t at = starts[s];
        if (!split->by_count) {
            sizes_round(shares, split->part_count, starts[s + 1] - at, carry,
                        sizes);
        }
        for (size_t i = 0; i < split->part_count; i++) {
            for (size_t end = at + sizes[i]; at < end; at++) {
                part_out[order[at]] = (uint8_t)i;
            }
        }
    }
    return rc;
}

fm_status_t fm_ops_split(const fm_ops_split_t *split, size_t count,
                         uint8_t *part_out, fm_error_t *err)
{
    size_t *order = fm_calloc(count + 1, sizeof(*order));
    size_t *grouped = fm_calloc(count + 1, sizeof(*grouped));
    size_t *starts = fm_calloc(split->stratum_count + 2, sizeof(*starts));
    fm_status_t rc;

    if (!order || !grouped || !starts) {
        rc = fm_no_memory(err);
        goto out;
    }
    for (size_t i = 0; i < count; i++) {
        order[i] = i;
        starts[(split->strata ? split->strata[i] : 0) + 2]++;
    }
    if (split->shuffle) {
        fm_ops_permute(split->seed, order, count);
    }
    for (size_t s = 2; s < split->stratum_count + 2; s++) {
        starts[s] += starts[s - 1];
    }
    for (size_t i = 0; i < count; i++) { /* a counting sort, stable */
        size_t s = split->strata ? split->strata[order[i]] : 0;
        grouped[starts[s + 1]++] = order[i];
    }
    rc = deal(split, grouped, starts, count, part_out, err);
out:
    free(order);
    free(grouped);
    free(starts);
    return rc;
}

/* --- samples ------------------------------------------------------------- */

typedef struct draw {
    double key;
    size_t index;
} draw_t;

static int compare_draws(const void *a, const void *b)
{
    const draw_t *left = a, *right = b;

    if (left->key != right->key) {
        return left->key > right->key ? -1 : 1;
    }
    return left->index < right->index ? -1 : left->index > right->index;
}

static fm_status_t weighted(uint64_t seed, const double *weights, size_t count,
                            size_t wanted, bool *kept_out, fm_error_t *err)
{
    draw_t *draws = fm_calloc(count + 1, sizeof(*draws));
    size_t positive = 0;
    fm_rng_t rng;

    if (!draws) {
        return fm_no_memory(err);
    }
    fm_rng_init(&rng, seed);
    for (size_t i = 0; i < count; i++) {
        double u = fm_rng_uniform(&rng);
        if (weights[i] > 0) {
            double key = u > 0 ? log(u) / weights[i] : -INFINITY;
            draws[positive++] = (draw_t){key, i};
        }
    }
    if (positive < wanted) {
        free(draws);
        return fm_error_set(err, FM_ERR_INVALID,
                            "%zu records are asked for; %zu of %zu have a "
                            "positive weight",
                            wanted, positive, count);
    }
    qsort(draws, positive, sizeof(*draws), compare_draws);
    for (size_t i = 0; i < wanted; i++) {
        kept_out[draws[i].index] = true;
    }
    free(draws);
    return FM_OK;
}

fm_status_t fm_ops_sample(uint64_t seed, const double *weights, size_t count,
                          size_t wanted, bool *kept_out, fm_error_t *err)
{
    size_t *order = NULL;

    if (wanted > count) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "%zu records are asked for; there are %zu", wanted,
                            count);
    }
    for (size_t i = 0; i < count; i++) {
        kept_out[i] = false;
    }
    if (weights) {
        return weighted(seed, weights, count, wanted, kept_out, err);
    }
    if (!(order = fm_calloc(count + 1, sizeof(*order)))) {
        return fm_no_memory(err);
    }
    fm_ops_permute(seed, order, count);
    for (size_t i = 0; i < wanted; i++) {
        kept_out[order[i]] = true;
    }
    free(order);
    return FM_OK;
}
