/* SPDX-License-Identifier: Apache-2.0 */
/* Low-rank updates of rows that belong to different adapters. */
#include "engine/cpu/cpu.h"

static void run_add(float *out, size_t ldo, const float *x, size_t rows,
                    size_t k, size_t n, const fm_engine_lora_t *lora,
                    float *low)
{
    fm_engine_cpu_linear_strided(low, lora->rank, x, lora->a, rows, k,
                                 lora->rank, false);
    for (size_t i = 0; i < rows * lora->rank; i++) {
        low[i] *= lora->scale;
    }
    fm_engine_cpu_linear_strided(out, ldo, low, lora->b, rows, lora->rank, n,
                                 true);
}

/* Neighbours of one adapter go together: their products read A and B once. */
void fm_engine_cpu_lora_rows(fm_engine_backend_t *be, float *out, size_t ldo,
                             const float *x, size_t rows, size_t k, size_t n,
                             const fm_engine_lora_t *adapters,
                             const int32_t *which)
{
    size_t rank = 0;
    size_t run = 0;

    for (size_t r = 0; r < rows; r++) {
        size_t one = which[r] < 0 ? 0 : adapters[which[r]].rank;
        rank = one > rank ? one : rank;
    }
    float *low = rank > 0 ? fm_engine_cpu_scratch(be, rows * rank) : NULL;
    for (size_t r = 0; low && r < rows; r += run) {
        for (run = 1; r + run < rows && which[r + run] == which[r]; run++) {
        }
        if (which[r] >= 0 && adapters[which[r]].a) {
            run_add(out + r * ldo, ldo, x + r * k, run, k, n,
                    &adapters[which[r]], low);
        }
    }
}
