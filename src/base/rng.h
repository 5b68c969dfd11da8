/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file rng.h
 * Seeded random numbers that are the same on every machine: xoshiro256**
 * (Blackman and Vigna, 2018), seeded through SplitMix64.
 */
#ifndef FM_BASE_RNG_H
#define FM_BASE_RNG_H

#include <stdint.h>

typedef struct fm_rng {
    uint64_t state[4];
} fm_rng_t;

void fm_rng_init(fm_rng_t *rng, uint64_t seed);
uint64_t fm_rng_u64(fm_rng_t *rng);
/** Uniform in [0, 1), 53 bits. */
double fm_rng_uniform(fm_rng_t *rng);
/** Uniform in [0, bound), without bias; bound > 0. */
uint64_t fm_rng_below(fm_rng_t *rng, uint64_t bound);
/** Standard normal (Box-Muller, one of the pair). */
double fm_rng_normal(fm_rng_t *rng);

#endif
