/* SPDX-License-Identifier: Apache-2.0 */
/* The CPU twin of swiglu.cu. */
#include "kernels/swiglu.h"

#include <math.h>

static double sigmoid(double x)
{
    return 1.0 / (1.0 + exp(-x));
}

void fm_kernels_swiglu_forward_ref(float *out, const float *gate,
                                   const float *up, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        double g = (double)gate[i];
        out[i] = (float)(g * sigmoid(g) * (double)up[i]);
    }
}

/* d silu(g) / dg = s (1 + g (1 - s)), s = sigmoid(g). */
void fm_kernels_swiglu_backward_ref(float *dgate, float *dup, const float *dout,
                                    const float *gate, const float *up,
                                    size_t count)
{
    for (size_t i = 0; i < count; i++) {
        double g = (double)gate[i];
        double u = (double)up[i];
        double d = (double)dout[i];
        double s = sigmoid(g);
        dgate[i] = (float)(d * u * s * (1.0 + g * (1.0 - s)));
        dup[i] = (float)(d * g * s);
    }
}
