/* SPDX-License-Identifier: Apache-2.0 */
/* Root-mean-square normalisation of rows, forward and backward. */
#include <math.h>

#include "engine/cpu/cpu.h"
#include "engine/cpu/vec.h"

FM_VEC_CLONES
void fm_engine_cpu_rmsnorm_forward(fm_engine_backend_t *be, float *out,
                                   float *rstd, const float *x,
                                   const float *weight, float eps, size_t rows,
                                   size_t width)
{
    (void)be;
    for (size_t r = 0; r < rows; r++, x += width, out += width) {
        vec_t squares = {0};
        for (size_t i = 0; i < width; i += FM_VEC_LANES) {
            vec_t v = vec_get(x, i, width);
            squares += v * v;
        }
        float scale = 1.0F / sqrtf(vec_sum(squares) / (float)width + eps);
        for (size_t i = 0; i < width; i += FM_VEC_LANES) {
            vec_put(out, i, width,
                    vec_get(x, i, width) * scale * vec_get(weight, i, width));
        }
        rstd[r] = scale;
    }
}

/* With x̂ = x·rstd: dx += rstd · (w·dout − x̂ · mean(w·dout·x̂)). */
FM_VEC_CLONES
void fm_engine_cpu_rmsnorm_backward(fm_engine_backend_t *be, float *dx,
                                    float *dweight, const float *dout,
                                    const float *x, const float *weight,
                                    const float *rstd, size_t rows,
                                    size_t width)
{
    (void)be;
    for (size_t r = 0; r < rows; r++) {
        vec_t dots = {0};
        for (size_t i = 0; i < width; i += FM_VEC_LANES) {
            vec_t normed = vec_get(x, i, width) * rstd[r];
            vec_t d = vec_get(dout, i, width);
            if (dweight) {
                vec_put(dweight, i, width,
                        vec_get(dweight, i, width) + d * normed);
            }
            dots += d * vec_get(weight, i, width) * normed;
        }
        float mean = vec_sum(dots) / (float)width;
        for (size_t i = 0; i < width; i += FM_VEC_LANES) {
            vec_t normed = vec_get(x, i, width) * rstd[r];
            vec_t d = vec_get(dout, i, width) * vec_get(weight, i, width);
            vec_put(dx, i, width,
                    vec_get(dx, i, width) + (d - normed * mean) * rstd[r]);
        }
        x += width;
        dout += width;
        dx += width;
    }
}
