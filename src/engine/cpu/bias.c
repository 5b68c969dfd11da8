/* SPDX-License-Identifier: Apache-2.0 */
/* A vector added to every row, and its gradient. */
#include "engine/cpu/cpu.h"
#include "engine/cpu/vec.h"

FM_VEC_INLINE void row_add(float *to, const float *from, size_t count)
{
    for (size_t i = 0; i < count; i += FM_VEC_LANES) {
        vec_put(to, i, count, vec_get(to, i, count) + vec_get(from, i, count));
    }
}

FM_VEC_CLONES
void fm_engine_cpu_bias_add(fm_engine_backend_t *be, float *x,
                            const float *bias, size_t rows, size_t n)
{
    (void)be;
    for (size_t r = 0; r < rows; r++) {
        row_add(x + r * n, bias, n);
    }
}

FM_VEC_CLONES
void fm_engine_cpu_bias_backward(fm_engine_backend_t *be, float *dbias,
                                 const float *dout, size_t rows, size_t n)
{
    (void)be;
    for (size_t r = 0; r < rows; r++) {
        row_add(dbias, dout + r * n, n);
    }
}
