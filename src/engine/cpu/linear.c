/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Matrix products.  Training and prefill go through the BLAS, which may treat
 * a row differently according to how many there are; decoding has a kernel of
 * its own in which every output is one dot product summed in one fixed order.
 */
#include <cblas.h>

#include "engine/cpu/cpu.h"
#include "engine/cpu/vec.h"

void fm_engine_cpu_linear_forward(fm_engine_backend_t *be, float *out,
                                  const float *x, const float *weight,
                                  size_t rows, size_t k, size_t n, bool add)
{
    (void)be;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)rows, (int)n,
                (int)k, 1.0F, x, (int)k, weight, (int)k, add ? 1.0F : 0.0F, out,
                (int)n);
}

void fm_engine_cpu_linear_backward(fm_engine_backend_t *be, float *dx,
                                   float *dweight, const float *dout,
                                   const float *x, const float *weight,
                                   size_t rows, size_t k, size_t n)
{
    (void)be;
    if (dx) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)rows,
                    (int)k, (int)n, 1.0F, dout, (int)n, weight, (int)k, 0.0F,
                    dx, (int)k);
    }
    if (dweight) {
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)n, (int)k,
                    (int)rows, 1.0F, dout, (int)n, x, (int)k, 1.0F, dweight,
                    (int)k);
    }
}

/* A tile of ROWS × COLS outputs; both are constants where it is called, so
 * the accumulators live in registers. */
FM_VEC_INLINE void tile(float *out, const float *x, const float *weight,
                        size_t k, size_t n, bool add, size_t rows, size_t cols)
{
    vec_t sums[4][4] = {{{0}}};

    for (size_t i = 0; i < k; i += FM_VEC_LANES) {
        vec_t w[4];
        for (size_t c = 0; c < cols; c++) {
            w[c] = vec_get(weight + c * k, i, k);
        }
        for (size_t r = 0; r < rows; r++) {
            vec_t v = vec_get(x + r * k, i, k);
            for (size_t c = 0; c < cols; c++) {
                sums[r][c] += v * w[c];
            }
        }
    }
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < cols; c++) {
            float sum = vec_sum(sums[r][c]);
            float *to = &out[r * n + c];
            *to = add ? *to + sum : sum;
        }
    }
}

FM_VEC_INLINE void tile_columns(float *out, const float *x, const float *weight,
                                size_t k, size_t n, bool add, size_t rows)
{
    size_t c = 0;

    for (; c + 4 <= n; c += 4) {
        tile(out + c, x, weight + c * k, k, n, add, rows, 4);
    }
    for (; c < n; c++) {
        tile(out + c, x, weight + c * k, k, n, add, rows, 1);
    }
}

FM_VEC_CLONES
void fm_engine_cpu_linear_rows(fm_engine_backend_t *be, float *out,
                               const float *x, const float *weight, size_t rows,
                               size_t k, size_t n, bool add)
{
    size_t r = 0;

    (void)be;
    for (; r + 4 <= rows; r += 4) {
        tile_columns(out + r * n, x + r * k, weight, k, n, add, 4);
    }
    for (; r < rows; r++) {
        tile_columns(out + r * n, x + r * k, weight, k, n, add, 1);
    }
}
