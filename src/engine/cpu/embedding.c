/* SPDX-License-Identifier: Apache-2.0 */
/* Rows picked by index, and their gradient added back. */
#include <string.h>

#include "engine/cpu/cpu.h"

void fm_engine_cpu_gather(fm_engine_backend_t *be, float *out,
                          const float *table, const int32_t *ids, size_t rows,
                          size_t width)
{
    (void)be;
    for (size_t r = 0; r < rows; r++) {
        memcpy(out + r * width, table + (size_t)ids[r] * width,
               width * sizeof(float));
    }
}

void fm_engine_cpu_scatter_add(fm_engine_backend_t *be, float *dtable,
                               const float *dout, const int32_t *ids,
                               size_t rows, size_t width)
{
    (void)be;
    for (size_t r = 0; r < rows; r++) {
        float *to = dtable + (size_t)ids[r] * width;
        const float *from = dout + r * width;
        for (size_t i = 0; i < width; i++) {
            to[i] += from[i];
        }
    }
}
