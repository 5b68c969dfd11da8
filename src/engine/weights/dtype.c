/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conversion by the bits, so that it is the same on every machine.  Elements
 * go through a short array: the compiler may then use vectors although source
 * and destination can be one block.
 */
#include "engine/weights/dtype.h"

#include <string.h>

#include "base/mem.h"

#define CHUNK 1024u

static const struct {
    const char *name;
    size_t bytes;
} dtypes[FM_ENGINE_DTYPE_COUNT] = {
    [FM_ENGINE_F32] = {"f32", 4},
    [FM_ENGINE_F16] = {"f16", 2},
    [FM_ENGINE_BF16] = {"bf16", 2},
};

const char *fm_engine_dtype_name(fm_engine_dtype_t dtype)
{
    return dtypes[dtype].name;
}

bool fm_engine_dtype_parse(const char *name, fm_engine_dtype_t *dtype_out)
{
    for (size_t i = 0; name && i < FM_COUNT_OF(dtypes); i++) {
        if (strcmp(dtypes[i].name, name) == 0) {
            *dtype_out = (fm_engine_dtype_t)i;
            return true;
        }
    }
    return false;
}

size_t fm_engine_dtype_bytes(fm_engine_dtype_t dtype)
{
    return dtypes[dtype].bytes;
}

/* --- widening ------------------------------------------------------------- */

static uint32_t half_widen(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000U) << 16;
    uint32_t exponent = (half >> 10) & 0x1fU;
    uint32_t fraction = half & 0x3ffU;

    if (exponent == 0x1f) { /* infinite, or not a number */
        return sign | 0x7f800000U | fraction << 13;
    }
    if (exponent > 0) {
        return sign | (exponent + 112) << 23 | fraction << 13;
    }
    if (fraction == 0) {
        return sign;
    }
    exponent = 113; /* subnormal there, normal here */
    while (!(fraction & 0x400U)) {
        fraction <<= 1;
        exponent--;
    }
    return sign | exponent << 23 | (fraction & 0x3ffU) << 13;
}

static void chunk_widen(fm_engine_dtype_t dtype, const uint16_t *from,
                        uint32_t *to, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        to[i] = dtype == FM_ENGINE_BF16 ? (uint32_t)from[i] << 16
                                        : half_widen(from[i]);
    }
}

void fm_engine_dtype_widen(fm_engine_dtype_t dtype, const void *from, float *to,
                           size_t count)
{
    const uint8_t *source = from;

    if (dtype == FM_ENGINE_F32) {
        memmove(to, from, count * sizeof(float));
        return;
    }
    /* Front to back: what is written never passes what is still to be read. */
    for (size_t done = 0; done < count;) {
        uint16_t narrow[CHUNK];
        uint32_t wide[CHUNK];
        size_t n = count - done < CHUNK ? count - done : CHUNK;
        memcpy(narrow, source + done * sizeof(*narrow), n * sizeof(*narrow));
        chunk_widen(dtype, narrow, wide, n);
        memcpy(to + done, wide, n * sizeof(*wide));
        done += n;
    }
}

/* --- narrowing ------------------------------------------------------------ */

static uint16_t bfloat_narrow(uint32_t bits)
{
    if ((bits & 0x7fffffffU) > 0x7f800000U) { /* stays not a number */
        return (uint16_t)(bits >> 16 | 0x40U);
    }
    return (uint16_t)((bits + 0x7fffU + (bits >> 16 & 1U)) >> 16);
}

static uint16_t half_narrow(uint32_t bits)
{
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000U);
    uint32_t rest = bits & 0x7fffffffU;

    if (rest > 0x7f800000U) {
        return (uint16_t)(sign | 0x7e00U | (rest >> 13 & 0x1ffU));
    }
    if (rest >= 0x47800000U) { /* 2^16 and above */
        return (uint16_t)(sign | 0x7c00U);
    }
    if (rest >= 0x38800000U) { /* normal: rebias, round; may carry to inf */
        rest -= 112U << 23;
        return (uint16_t)(sign | (rest + 0xfffU + (rest >> 13 & 1U)) >> 13);
    }
    if (rest < 0x33000000U) { /* below half of the least subnormal */
        return sign;
    }
    uint32_t shift = 126U - (rest >> 23); /* 14 … 24 */
    uint32_t fraction = (rest & 0x7fffffU) | 0x800000U;
    uint32_t half = 1U << (shift - 1);
    uint32_t low = fraction & ((1U << shift) - 1U);
    uint32_t value = fraction >> shift;
    value += low > half || (low == half && (value & 1U)) ? 1 : 0;
    return (uint16_t)(sign | value);
}

size_t fm_engine_dtype_narrow(fm_engine_dtype_t dtype, const float *from,
                              void *to, size_t count)
{
    uint32_t infinite = dtype == FM_ENGINE_BF16 ? 0x7f80U : 0x7c00U;
    uint8_t *sink = to;
    size_t overflows = 0;

    if (dtype == FM_ENGINE_F32) {
        memmove(to, from, count * sizeof(float));
        return 0;
    }
    for (size_t done = 0; done < count;) {
        uint32_t wide[CHUNK];
        uint16_t narrow[CHUNK];
        size_t n = count - done < CHUNK ? count - done : CHUNK;
        memcpy(wide, from + done, n * sizeof(*wide));
        for (size_t i = 0; i < n; i++) {
            narrow[i] = dtype == FM_ENGINE_BF16 ? bfloat_narrow(wide[i])
                                                : half_narrow(wide[i]);
            overflows += (narrow[i] & 0x7fffU) == infinite &&
                         (wide[i] & 0x7fffffffU) < 0x7f800000U;
        }
        memcpy(sink + done * sizeof(*narrow), narrow, n * sizeof(*narrow));
        done += n;
    }
    return overflows;
}
