/* SPDX-License-Identifier: Apache-2.0 */
/* The CPU twin of adamw.cu. */
#include "kernels/adamw.h"

#include <math.h>

void fm_kernels_adamw_step_ref(float *param, float *m, float *v,
                               const float *grad, size_t count,
                               const fm_kernels_adamw_t *options)
{
    const double beta1 = (double)options->beta1;
    const double beta2 = (double)options->beta2;
    const double bias1 = 1.0 - pow(beta1, (double)options->step);
    const double bias2 = 1.0 - pow(beta2, (double)options->step);

    for (size_t i = 0; i < count; i++) {
        double g = (double)options->grad_scale * (double)grad[i];
        double mean = beta1 * (double)m[i] + (1.0 - beta1) * g;
        double square = beta2 * (double)v[i] + (1.0 - beta2) * g * g;
        double p = (double)param[i];
        double direction =
            mean / bias1 / (sqrt(square / bias2) + (double)options->eps);
        m[i] = (float)mean;
        v[i] = (float)square;
        param[i] =
            (float)(p - (double)options->lr *
                            (direction + (double)options->weight_decay * p));
    }
}
