/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file vec.h
 * Sixteen floats at a time, in portable vector arithmetic: the compiler lowers
 * it to what the processor has.
 *
 * A function marked FM_VEC_CLONES is compiled for AVX-512, AVX2 and plain
 * x86-64, and the loader picks one: results are the same bits on processors
 * that pick the same clone.  A short tail is padded with zeros and takes the
 * same instructions as a full vector, so an element's value does not depend on
 * where a row ends.
 */
#ifndef FM_ENGINE_CPU_VEC_H
#define FM_ENGINE_CPU_VEC_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Not under ThreadSanitizer: it instruments the function that picks a clone,
 * which runs before the sanitizer does. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) &&         \
    !defined(__SANITIZE_THREAD__)
#define FM_VEC_CLONES                                                          \
    __attribute__((target_clones("avx512f", "arch=x86-64-v3", "default")))
#else
#define FM_VEC_CLONES
#endif
#define FM_VEC_INLINE static inline __attribute__((always_inline))

enum { FM_VEC_LANES = 16 };
typedef float vec_t __attribute__((vector_size(64)));
typedef uint32_t vec_bits_t __attribute__((vector_size(64)));

FM_VEC_INLINE vec_t vec_set(float value)
{
    return value - (vec_t){0};
}

FM_VEC_INLINE vec_t vec_load(const float *from)
{
    vec_t v;

    memcpy(&v, from, sizeof(v));
    return v;
}

FM_VEC_INLINE void vec_store(float *to, vec_t v)
{
    memcpy(to, &v, sizeof(v));
}

/** The first @p count < 16 lanes; zeros behind them. */
FM_VEC_INLINE vec_t vec_load_part(const float *from, size_t count)
{
    vec_t v = {0};

    memcpy(&v, from, count * sizeof(float));
    return v;
}

/** Eight lanes; zeros behind them. */
FM_VEC_INLINE vec_t vec_load_half(const float *from)
{
    typedef float half_t __attribute__((vector_size(32)));
    const half_t zeros = {0};
    half_t v;

    memcpy(&v, from, sizeof(v));
    return __builtin_shufflevector(v, zeros, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10,
                                   11, 12, 13, 14, 15);
}

FM_VEC_INLINE void vec_store_part(float *to, vec_t v, size_t count)
{
    memcpy(to, &v, count * sizeof(float));
}

/** Load or store lanes at @p i of an array of @p count. */
FM_VEC_INLINE vec_t vec_get(const float *array, size_t i, size_t count)
{
    return i + FM_VEC_LANES <= count ? vec_load(array + i)
                                     : vec_load_part(array + i, count - i);
}

FM_VEC_INLINE void vec_put(float *array, size_t i, size_t count, vec_t v)
{
    if (i + FM_VEC_LANES <= count) {
        vec_store(array + i, v);
    } else {
        vec_store_part(array + i, v, count - i);
    }
}

/** Lane-wise a where the mask is set, else b. */
FM_VEC_INLINE vec_t vec_select(vec_bits_t mask, vec_t a, vec_t b)
{
    return (vec_t)((mask & (vec_bits_t)a) | (~mask & (vec_bits_t)b));
}

/** Lane-wise maximum; a NaN in @p b stays. */
FM_VEC_INLINE vec_t vec_max(vec_t a, vec_t b)
{
    return vec_select((vec_bits_t)(a > b), a, b);
}

/** Sum of the lanes, by halves and always in the same order. */
FM_VEC_INLINE float vec_sum(vec_t v)
{
    typedef float half_t __attribute__((vector_size(32)));
    typedef float quarter_t __attribute__((vector_size(16)));

    half_t a = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
               __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
    quarter_t b = __builtin_shufflevector(a, a, 0, 1, 2, 3) +
                  __builtin_shufflevector(a, a, 4, 5, 6, 7);
    return (b[0] + b[2]) + (b[1] + b[3]);
}

/**
 * The sums of sixteen vectors, each the same bits as vec_sum() of it: a
 * fourth of the shuffles.
 */
FM_VEC_INLINE vec_t vec_sum_each(const vec_t v[16])
{
    vec_t halves[8];
    vec_t quarters[4];
    vec_t pairs[2];

    for (int i = 0; i < 8; i++) {
        vec_t a = v[2 * i];
        vec_t b = v[2 * i + 1];
        halves[i] = __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16,
                                            17, 18, 19, 20, 21, 22, 23) +
                    __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15,
                                            24, 25, 26, 27, 28, 29, 30, 31);
    }
    for (int i = 0; i < 4; i++) {
        vec_t a = halves[2 * i];
        vec_t b = halves[2 * i + 1];
        quarters[i] = __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11,
                                              16, 17, 18, 19, 24, 25, 26, 27) +
                      __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15,
                                              20, 21, 22, 23, 28, 29, 30, 31);
    }
    for (int i = 0; i < 2; i++) {
        vec_t a = quarters[2 * i];
        vec_t b = quarters[2 * i + 1];
        pairs[i] = __builtin_shufflevector(a, b, 0, 1, 4, 5, 8, 9, 12, 13, 16,
                                           17, 20, 21, 24, 25, 28, 29) +
                   __builtin_shufflevector(a, b, 2, 3, 6, 7, 10, 11, 14, 15, 18,
                                           19, 22, 23, 26, 27, 30, 31);
    }
    return __builtin_shufflevector(pairs[0], pairs[1], 0, 2, 4, 6, 8, 10, 12,
                                   14, 16, 18, 20, 22, 24, 26, 28, 30) +
           __builtin_shufflevector(pairs[0], pairs[1], 1, 3, 5, 7, 9, 11, 13,
                                   15, 17, 19, 21, 23, 25, 27, 29, 31);
}

/** Scalar product of two arrays. */
FM_VEC_INLINE float vec_dot(const float *a, const float *b, size_t count)
{
    vec_t sums = {0};

    for (size_t i = 0; i < count; i += FM_VEC_LANES) {
        sums += vec_get(a, i, count) * vec_get(b, i, count);
    }
    return vec_sum(sums);
}

/**
 * eˣ within 2 ulp for −87 ≤ x ≤ 88; outside that x is clamped, NaN stays.
 * Range reduction by ln 2 in two parts and a polynomial (Cephes, Moshier).
 */
FM_VEC_INLINE vec_t vec_exp(vec_t x)
{
    const float round_magic = 12582912.0F; /* 1.5·2²³: rounds to integer */

    x = vec_select((vec_bits_t)(x < -87.0F), vec_set(-87.0F), x);
    x = vec_select((vec_bits_t)(x > 88.0F), vec_set(88.0F), x);
    vec_t t = x * 1.44269504F + round_magic;
    vec_t n = t - round_magic;
    vec_t r = x - n * 0.693359375F + n * 2.12194440e-4F;
    vec_t p = r * 1.9875691500e-4F + 1.3981999507e-3F;
    p = p * r + 8.3334519073e-3F;
    p = p * r + 4.1665795894e-2F;
    p = p * r + 1.6666665459e-1F;
    p = p * r + 5.0000001201e-1F;
    p = p * r * r + r + 1.0F;
    vec_bits_t scale = ((vec_bits_t)t - 0x4B400000U + 127U) << 23;
    return p * (vec_t)scale;
}

#endif
