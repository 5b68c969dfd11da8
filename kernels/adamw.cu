/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bandwidth-bound: 4 loads and 3 stores an element, in one pass.  The bias
 * corrections are computed once, on the host and in double, since float
 * 1 - beta2^step loses most of its digits in the first steps.
 */
#include "kernels/adamw.h"

#include <math.h>

#include "kernels/device.cuh"

namespace
{

using fm::kThreads;

/* The options as the kernel wants them. */
struct step_t {
    float lr;
    float decay; /* lr * weight_decay */
    float beta1;
    float one_minus_beta1;
    float beta2;
    float one_minus_beta2;
    float eps;
    float grad_scale;
    float inv_bias1;
    float inv_bias2;
};

step_t step_from(const fm_kernels_adamw_t *options)
{
    const double beta1 = options->beta1;
    const double beta2 = options->beta2;
    const double step = (double)options->step;
    step_t s;

    s.lr = options->lr;
    s.decay = (float)((double)options->lr * options->weight_decay);
    s.beta1 = options->beta1;
    s.one_minus_beta1 = (float)(1.0 - beta1);
    s.beta2 = options->beta2;
    s.one_minus_beta2 = (float)(1.0 - beta2);
    s.eps = options->eps;
    s.grad_scale = options->grad_scale;
    s.inv_bias1 = (float)(1.0 / (1.0 - pow(beta1, step)));
    s.inv_bias2 = (float)(1.0 / (1.0 - pow(beta2, step)));
    return s;
}

__device__ __forceinline__ void update(float *p, float *m, float *v, float grad,
                                       const step_t &s)
{
    const float g = s.grad_scale * grad;
    const float mean = fmaf(s.beta1, *m, s.one_minus_beta1 * g);
    const float square = fmaf(s.beta2, *v, s.one_minus_beta2 * g * g);
    const float direction =
        mean * s.inv_bias1 / (sqrtf(square * s.inv_bias2) + s.eps);

    *m = mean;
    *v = square;
    *p -= fmaf(s.lr, direction, s.decay * *p);
}

template <bool kVector>
__global__ void __launch_bounds__(kThreads)
    step_kernel(float *__restrict__ param, float *__restrict__ m,
                float *__restrict__ v, const float *__restrict__ grad,
                size_t count, step_t s)
{
    const size_t stride = 4 * (size_t)gridDim.x * kThreads;

    for (size_t i = 4 * ((size_t)blockIdx.x * kThreads + threadIdx.x);
         i < count; i += stride) {
        float4 p4 = fm::load_quad<kVector>(param, i, count);
        float4 m4 = fm::load_quad<kVector>(m, i, count);
        float4 v4 = fm::load_quad<kVector>(v, i, count);
        const float4 g4 = fm::load_quad<kVector>(grad, i, count);
        update(&p4.x, &m4.x, &v4.x, g4.x, s);
        update(&p4.y, &m4.y, &v4.y, g4.y, s);
        update(&p4.z, &m4.z, &v4.z, g4.z, s);
        update(&p4.w, &m4.w, &v4.w, g4.w, s);
        fm::store_quad<kVector>(param, i, count, p4);
        fm::store_quad<kVector>(m, i, count, m4);
        fm::store_quad<kVector>(v, i, count, v4);
    }
}

/* Comparisons are written so that a NaN is refused. */
bool options_are_valid(const fm_kernels_adamw_t *o)
{
    return o && o->lr >= 0.0f && o->beta1 >= 0.0f && o->beta1 < 1.0f &&
           o->beta2 >= 0.0f && o->beta2 < 1.0f && o->eps > 0.0f &&
           o->weight_decay >= 0.0f && isfinite(o->grad_scale) && o->step >= 1;
}

} // namespace

extern "C" int fm_kernels_adamw_step(float *param, float *m, float *v,
                                     const float *grad, size_t count,
                                     const fm_kernels_adamw_t *options,
                                     void *stream)
{
    if (!options_are_valid(options)) {
        return cudaErrorInvalidValue;
    }
    if (count == 0) {
        return cudaSuccess;
    }
    if (!param || !m || !v || !grad) {
        return cudaErrorInvalidValue;
    }
    const size_t per_block = 4 * (size_t)kThreads;
    const unsigned grid =
        fm::grid_size(count / per_block + (count % per_block != 0));
    const cudaStream_t queue = static_cast<cudaStream_t>(stream);
    const step_t s = step_from(options);
    if (count % 4 == 0 && fm::is_aligned16(param) && fm::is_aligned16(m) &&
        fm::is_aligned16(v) && fm::is_aligned16(grad)) {
        step_kernel<true>
            <<<grid, kThreads, 0, queue>>>(param, m, v, grad, count, s);
    } else {
        step_kernel<false>
            <<<grid, kThreads, 0, queue>>>(param, m, v, grad, count, s);
    }
    return cudaGetLastError();
}
