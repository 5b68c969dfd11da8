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

/* The last k % 16 of k floats, zeros in the other lanes. */
FM_VEC_INLINE vec_t tail(const float *from, size_t k)
{
    const vec_bits_t lanes = {0, 1, 2,  3,  4,  5,  6,  7,
                              8, 9, 10, 11, 12, 13, 14, 15};
    uint32_t skip = (uint32_t)(FM_VEC_LANES - k % FM_VEC_LANES);

    if (k == FM_VEC_LANES / 2) { /* a usual rank of adapters */
        return vec_load_half(from);
    }
    if (k < FM_VEC_LANES) {
        return vec_load_part(from, k);
    }
    return vec_select((vec_bits_t)(lanes >= skip),
                      vec_load(from + k - FM_VEC_LANES), (vec_t){0});
}

/* A tile of ROWS x COLS outputs, at most 16; both are constants where it is
 * called, so the accumulators live in registers.  Which products a lane sums
 * and in what order follows from k alone, and the lanes are added in the order
 * of vec_sum(): the shape of the tile cannot be seen in the bits. */
FM_VEC_INLINE void tile(float *out, size_t ldo, const float *x,
                        const float *weight, size_t k, bool add, size_t rows,
                        size_t cols)
{
    vec_t sums[16] = {{0}};
    float totals[16];
    size_t i = 0;

    for (; i + FM_VEC_LANES <= k; i += FM_VEC_LANES) {
        vec_t w[16];
        for (size_t c = 0; c < cols; c++) {
            w[c] = vec_load(weight + c * k + i);
        }
        for (size_t r = 0; r < rows; r++) {
            vec_t v = vec_load(x + r * k + i);
            for (size_t c = 0; c < cols; c++) {
                sums[r * cols + c] += v * w[c];
            }
        }
    }
    if (i < k) {
        vec_t w[16];
        for (size_t c = 0; c < cols; c++) {
            w[c] = tail(weight + c * k, k);
        }
        for (size_t r = 0; r < rows; r++) {
            vec_t v = tail(x + r * k, k);
            for (size_t c = 0; c < cols; c++) {
                sums[r * cols + c] += v * w[c];
            }
        }
    }
    vec_store(totals, vec_sum_each(sums));
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < cols; c++) {
            float *to = &out[r * ldo + c];
            *to = add ? *to + totals[r * cols + c] : totals[r * cols + c];
        }
    }
}

/* All rows against COLS columns: the weights stay in the first-level cache,
 * the rows in the second. */
FM_VEC_INLINE void strip(float *out, size_t ldo, const float *x,
                         const float *weight, size_t rows, size_t k, bool add,
                         size_t cols)
{
    size_t r = 0;

    for (; cols <= 4 && r + 4 <= rows; r += 4) {
        tile(out + r * ldo, ldo, x + r * k, weight, k, add, 4, cols);
    }
    for (; r + 2 <= rows; r += 2) {
        tile(out + r * ldo, ldo, x + r * k, weight, k, add, 2, cols);
    }
    if (r < rows) {
        tile(out + r * ldo, ldo, x + r * k, weight, k, add, 1, cols);
    }
}

FM_VEC_CLONES
void fm_engine_cpu_linear_strided(float *out, size_t ldo, const float *x,
                                  const float *weight, size_t rows, size_t k,
                                  size_t n, bool add)
{
    size_t c = 0;

    for (; rows < 4 && c + 8 <= n; c += 8) {
        strip(out + c, ldo, x, weight + c * k, rows, k, add, 8);
    }
    for (; c + 4 <= n; c += 4) {
        strip(out + c, ldo, x, weight + c * k, rows, k, add, 4);
    }
    for (; c < n; c++) {
        strip(out + c, ldo, x, weight + c * k, rows, k, add, 1);
    }
}

void fm_engine_cpu_linear_rows(fm_engine_backend_t *be, float *out,
                               const float *x, const float *weight, size_t rows,
                               size_t k, size_t n, bool add)
{
    (void)be;
    fm_engine_cpu_linear_strided(out, n, x, weight, rows, k, n, add);
}
