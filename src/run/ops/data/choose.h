/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file choose.h
 * Which records go where: permutations, parts, samples
 * (docs/spec/workflow.md, W61, W64).  Threads: safe.
 */
#ifndef FM_RUN_OPS_DATA_CHOOSE_H
#define FM_RUN_OPS_DATA_CHOOSE_H

#include <flowmesh/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Fisher-Yates from the end over [count] numbers from 0. */
void fm_ops_permute(uint64_t seed, size_t *order, size_t count);

/** Parts at most of one split. */
#define OPS_PARTS_MAX 64u

typedef struct fm_ops_part {
    bool rest;       /**< takes what the others leave */
    size_t count;    /**< records, when the split goes by counts */
    double fraction; /**< else */
} fm_ops_part_t;

typedef struct fm_ops_split {
    const fm_ops_part_t *parts; /**< [part_count] */
    size_t part_count;          /**< 1 … OPS_PARTS_MAX */
    bool by_count;
    bool shuffle;
    uint64_t seed;
    const size_t *strata; /**< [count] number of each record's stratum, from 0
                               in order of first occurrence; NULL: one */
    size_t stratum_count; /**< 1 without strata */
} fm_ops_split_t;

/**
 * Put every one of @p count records into exactly one part.
 * @param part_out  [count] number of the part.
 * @retval FM_ERR_INVALID  the sizes do not add up to the records.
 */
FM_MUST_USE fm_status_t fm_ops_split(const fm_ops_split_t *split, size_t count,
                                     uint8_t *part_out, fm_error_t *err);

/**
 * Draw @p wanted of @p count records without replacement.
 * @param weights   [count] finite, ≥ 0; NULL: equal.  Source: Efraimidis and
 *                  Spirakis, Weighted random sampling with a reservoir, 2006.
 * @param kept_out  [count] whether drawn.
 * @retval FM_ERR_INVALID  fewer records, or fewer of positive weight.
 */
FM_MUST_USE fm_status_t fm_ops_sample(uint64_t seed, const double *weights,
                                      size_t count, size_t wanted,
                                      bool *kept_out, fm_error_t *err);

#endif
