/* SPDX-License-Identifier: Apache-2.0 */
/* The CPU twin of rmsnorm.cu: the plainest code that states the result. */
#include "kernels/rmsnorm.h"

#include <math.h>

void fm_kernels_rmsnorm_forward_ref(float *out, float *rstd, const float *x,
                                    const float *weight, size_t rows,
                                    size_t cols, float eps)
{
    for (size_t r = 0; r < rows; r++) {
        const float *x_row = x + r * cols;
        double squares = 0.0;
        for (size_t c = 0; c < cols; c++) {
            squares += (double)x_row[c] * (double)x_row[c];
        }
        double scale = 1.0 / sqrt(squares / (double)cols + (double)eps);
        for (size_t c = 0; c < cols; c++) {
            out[r * cols + c] =
                (float)((double)x_row[c] * scale * (double)weight[c]);
        }
        if (rstd) {
            rstd[r] = (float)scale;
        }
    }
}

/* Adds to dweight before dx is written, so that here dx may be dout. */
void fm_kernels_rmsnorm_backward_ref(float *dx, float *dweight,
                                     const float *dout, const float *x,
                                     const float *weight, const float *rstd,
                                     size_t rows, size_t cols)
{
    for (size_t c = 0; dweight && c < cols; c++) {
        double sum = 0.0;
        for (size_t r = 0; r < rows; r++) {
            sum += (double)dout[r * cols + c] * (double)x[r * cols + c] *
                   (double)rstd[r];
        }
        dweight[c] += (float)sum;
    }
    for (size_t r = 0; r < rows; r++) {
        const float *x_row = x + r * cols;
        const float *dout_row = dout + r * cols;
        double scale = (double)rstd[r];
        double dot = 0.0;
        for (size_t c = 0; c < cols; c++) {
            dot += (double)dout_row[c] * (double)weight[c] * (double)x_row[c];
        }
        double mean = dot * scale * scale / (double)cols;
        for (size_t c = 0; c < cols; c++) {
            dx[r * cols + c] =
                (float)(scale * ((double)dout_row[c] * (double)weight[c] -
                                 (double)x_row[c] * mean));
        }
    }
}
