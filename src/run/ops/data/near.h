/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file near.h
 * Near-duplicate texts by MinHash and locality-sensitive hashing
 * (docs/spec/workflow.md, W63; Broder, On the resemblance and containment of
 * documents, 1997).
 *
 * Memory of a text that is kept: 24 to 40 bytes a band, and 8 bytes a shingle
 * (exact) or 4 bytes a permutation (estimate).  Threads: safe for distinct
 * objects.
 */
#ifndef FM_RUN_OPS_DATA_NEAR_H
#define FM_RUN_OPS_DATA_NEAR_H

#include <flowmesh/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OPS_NEAR_PERMUTATIONS_MAX 1024

typedef struct fm_ops_near_options {
    double threshold;    /**< above 0, at most 1 */
    size_t ngram;        /**< words of a shingle, ≥ 1 */
    size_t permutations; /**< places of a signature */
    bool lowercase;      /**< ASCII letters count as lower case */
    bool exact;          /**< verify by shingles, else by signatures */
    uint64_t seed;
} fm_ops_near_options_t;

typedef struct fm_ops_near fm_ops_near_t;

FM_MUST_USE fm_status_t fm_ops_near_create(const fm_ops_near_options_t *options,
                                           fm_ops_near_t **near_out,
                                           fm_error_t *err);
void *fm_ops_near_destroy(fm_ops_near_t *near);
/** The banding chosen for the threshold. */
void fm_ops_near_bands(const fm_ops_near_t *near, size_t *bands_out,
                       size_t *rows_out);

/** What became of a text. */
typedef struct fm_ops_near_verdict {
    bool duplicate;
    uint32_t of;       /**< name of the kept text it duplicates */
    double similarity; /**< to it */
} fm_ops_near_verdict_t;
/** Look @p text up among those kept so far; one without equal is kept.
 *  @param name  what later verdicts call it. */
FM_MUST_USE fm_status_t fm_ops_near_add(fm_ops_near_t *near, uint32_t name,
                                        const char *text, size_t len,
                                        fm_ops_near_verdict_t *verdict_out,
                                        fm_error_t *err);

#endif
