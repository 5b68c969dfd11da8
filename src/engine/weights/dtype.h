/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file dtype.h
 * The number formats that weights are stored in, and the way between them and
 * the float32 that the engine computes in.
 *
 * f16 is IEEE 754 binary16; bf16 is the upper half of a binary32.  Both widen
 * exactly.  Narrowing rounds to nearest, ties to even.
 *
 * Threads: safe.
 */
#ifndef FM_ENGINE_WEIGHTS_DTYPE_H
#define FM_ENGINE_WEIGHTS_DTYPE_H

#include <flowmesh/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** What a model's tensors may be stored as. */
typedef enum fm_engine_dtype {
    FM_ENGINE_F32,
    FM_ENGINE_F16,
    FM_ENGINE_BF16
} fm_engine_dtype_t;
#define FM_ENGINE_DTYPE_COUNT 3

/** "f32", "f16", "bf16". */
const char *fm_engine_dtype_name(fm_engine_dtype_t dtype);
/** False for any other name, and for NULL. */
bool fm_engine_dtype_parse(const char *name, fm_engine_dtype_t *dtype_out);
/** Bytes of an element. */
size_t fm_engine_dtype_bytes(fm_engine_dtype_t dtype);

/**
 * Widen @p count elements.
 * @param from  packed, little-endian, any alignment.  It may be the last
 *              count × bytes of the [count] floats at @p to: a tensor is read
 *              there and widened in place.
 */
void fm_engine_dtype_widen(fm_engine_dtype_t dtype, const void *from, float *to,
                           size_t count);
/**
 * Narrow @p count elements.
 * @param to  packed, little-endian; may be @p from itself.
 * @return how many finite values became infinite: too large for the format.
 */
size_t fm_engine_dtype_narrow(fm_engine_dtype_t dtype, const float *from,
                              void *to, size_t count);

#endif
