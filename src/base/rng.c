/* SPDX-License-Identifier: Apache-2.0 */
#include "base/rng.h"

#include <math.h>

static uint64_t rotate_left(uint64_t x, unsigned k)
{
    return x << k | x >> (64 - k);
}

void fm_rng_init(fm_rng_t *rng, uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        seed += UINT64_C(0x9E3779B97F4A7C15);
        uint64_t z = seed;
        z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
        z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
        rng->state[i] = z ^ z >> 31;
    }
}

uint64_t fm_rng_u64(fm_rng_t *rng)
{
    uint64_t *s = rng->state;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

double fm_rng_uniform(fm_rng_t *rng)
{
    return (double)(fm_rng_u64(rng) >> 11) * 0x1.0p-53;
}

uint64_t fm_rng_below(fm_rng_t *rng, uint64_t bound)
{
    uint64_t reject = (UINT64_MAX - bound + 1) % bound;
    uint64_t value = fm_rng_u64(rng);

    while (value < reject) {
        value = fm_rng_u64(rng);
    }
    return value % bound;
}

double fm_rng_normal(fm_rng_t *rng)
{
    static const double two_pi = 6.283185307179586476925;
    double u = 1.0 - fm_rng_uniform(rng); /* in (0, 1]: log stays finite */
    double v = fm_rng_uniform(rng);

    return sqrt(-2.0 * log(u)) * cos(two_pi * v);
}
