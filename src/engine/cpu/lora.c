/* SPDX-License-Identifier: Apache-2.0 */
/* Low-rank updates of a product's columns, and dropout without a state. */
#include <cblas.h>

#include "engine/cpu/cpu.h"
#include "engine/cpu/vec.h"

/* c[m, n] (ldc) = beta·c + alpha · op(a) · op(b), row-major. */
static void product(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, size_t m, size_t n,
                    size_t k, float alpha, const float *a, size_t lda,
                    const float *b, size_t ldb, float beta, float *c,
                    size_t ldc)
{
    cblas_sgemm(CblasRowMajor, ta, tb, (int)m, (int)n, (int)k, alpha, a,
                (int)lda, b, (int)ldb, beta, c, (int)ldc);
}

void fm_engine_cpu_lora_forward(fm_engine_backend_t *be, float *out, size_t ldo,
                                const float *x, const fm_engine_lora_t *lora,
                                float *scratch, size_t rows, size_t k, size_t n)
{
    size_t r = lora->rank;

    (void)be;
    product(CblasNoTrans, CblasTrans, rows, r, k, 1, x, k, lora->a, k, 0,
            scratch, r);
    product(CblasNoTrans, CblasTrans, rows, n, r, lora->scale, scratch, r,
            lora->b, r, 1, out, ldo);
}

void fm_engine_cpu_lora_backward(fm_engine_backend_t *be, float *dx, float *da,
                                 float *db, const float *dout, size_t ldo,
                                 const float *x, const fm_engine_lora_t *lora,
                                 float *scratch, size_t rows, size_t k,
                                 size_t n)
{
    size_t r = lora->rank;
    float *down = scratch;             /* x · Aᵀ */
    float *ddown = scratch + rows * r; /* scale · dout · B */

    (void)be;
    product(CblasNoTrans, CblasNoTrans, rows, r, n, lora->scale, dout, ldo,
            lora->b, r, 0, ddown, r);
    product(CblasNoTrans, CblasNoTrans, rows, k, r, 1, ddown, r, lora->a, k, 1,
            dx, k);
    if (da) {
        product(CblasTrans, CblasNoTrans, r, k, rows, 1, ddown, r, x, k, 1, da,
                k);
    }
    if (db) {
        product(CblasNoTrans, CblasTrans, rows, r, k, 1, x, k, lora->a, k, 0,
                down, r);
        product(CblasTrans, CblasNoTrans, n, r, rows, lora->scale, dout, ldo,
                down, r, 1, db, r);
    }
}

FM_VEC_CLONES
void fm_engine_cpu_dropout(fm_engine_backend_t *be, float *out, const float *x,
                           const fm_engine_mask_t *mask, size_t rows,
                           size_t width, bool add)
{
    uint32_t limit = (uint32_t)((double)mask->rate * 0x1p32);
    float scale = 1 / (1 - mask->rate);
    uint64_t counter = mask->first_row * width;

    (void)be;
    for (size_t i = 0; i < rows * width; i++) {
        uint64_t z = mask->key + (++counter) * UINT64_C(0x9E3779B97F4A7C15);
        z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
        z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
        float kept = (uint32_t)((z ^ z >> 31) >> 32) >= limit ? scale : 0;
        out[i] = (add ? out[i] : 0) + x[i] * kept;
    }
}
