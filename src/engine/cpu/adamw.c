/* SPDX-License-Identifier: Apache-2.0 */
/* The optimiser's update and the gradient norm. */
#include <math.h>

#include "engine/cpu/cpu.h"
#include "engine/cpu/vec.h"

/* Float64 in lanes: a norm over 10^9 elements keeps its digits. */
FM_VEC_CLONES
void fm_engine_cpu_sum_squares(fm_engine_backend_t *be, double *sum,
                               const float *x, size_t count)
{
    double lanes[8] = {0};

    (void)be;
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        for (size_t lane = 0; lane < 8; lane++) {
            double v = (double)x[i + lane];
            lanes[lane] += v * v;
        }
    }
    for (; i < count; i++) {
        lanes[0] += (double)x[i] * (double)x[i];
    }
    *sum = ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) +
           ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
}

FM_VEC_CLONES
void fm_engine_cpu_adamw(fm_engine_backend_t *be, float *param,
                         const float *grad, float *m, float *v, size_t count,
                         const fm_engine_adamw_t *update)
{
    const fm_engine_adamw_t u = *update;

    (void)be;
    for (size_t i = 0; i < count; i++) {
        float g = grad[i] * u.grad_scale;
        m[i] = u.beta1 * m[i] + (1.0F - u.beta1) * g;
        v[i] = u.beta2 * v[i] + (1.0F - u.beta2) * g * g;
        float step =
            m[i] / u.correction1 / (sqrtf(v[i] / u.correction2) + u.eps);
        param[i] -= u.learning_rate * (step + u.weight_decay * param[i]);
    }
}
