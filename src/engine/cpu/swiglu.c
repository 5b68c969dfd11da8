/* SPDX-License-Identifier: Apache-2.0 */
/* The gated activation silu(gate) · up of rows [gate | up]. */
#include "engine/cpu/cpu.h"
#include "engine/cpu/vec.h"

FM_VEC_INLINE vec_t sigmoid(vec_t x)
{
    return 1.0F / (1.0F + vec_exp(-x));
}

FM_VEC_CLONES
void fm_engine_cpu_swiglu_forward(fm_engine_backend_t *be, float *out,
                                  const float *gate_up, size_t rows,
                                  size_t width)
{
    (void)be;
    for (size_t r = 0; r < rows; r++) {
        const float *gate = gate_up + r * 2 * width;
        const float *up = gate + width;
        for (size_t i = 0; i < width; i += FM_VEC_LANES) {
            vec_t g = vec_get(gate, i, width);
            vec_put(out + r * width, i, width,
                    g * sigmoid(g) * vec_get(up, i, width));
        }
    }
}

FM_VEC_CLONES
void fm_engine_cpu_swiglu_backward(fm_engine_backend_t *be, float *dgate_up,
                                   const float *dout, const float *gate_up,
                                   size_t rows, size_t width)
{
    (void)be;
    for (size_t r = 0; r < rows; r++) {
        const float *gate = gate_up + r * 2 * width;
        const float *up = gate + width;
        float *dgate = dgate_up + r * 2 * width;
        float *dup = dgate + width;
        for (size_t i = 0; i < width; i += FM_VEC_LANES) {
            vec_t g = vec_get(gate, i, width);
            vec_t s = sigmoid(g);
            vec_t d = vec_get(dout + r * width, i, width);
            vec_put(dup, i, width, d * g * s);
            vec_put(dgate, i, width,
                    d * vec_get(up, i, width) * s * (1.0F + g * (1.0F - s)));
        }
    }
}
