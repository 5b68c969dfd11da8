/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CPU twins of kernels/: held against closed forms, and their gradients
 * against central differences of their forward pass.  The GPU kernels are
 * held against these twins in tests/gpu.
 */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "fmtest.h"
#include "kernels/adamw.h"
#include "kernels/rmsnorm.h"
#include "kernels/swiglu.h"

enum { ROWS = 3, COLS = 37, COUNT = ROWS * COLS };

/* Central differences of a float32 function: step 2^-7 balances truncation
 * against rounding of values near 1. */
static const double STEP = 0.0078125;
static const double GRADIENT_TOLERANCE = 2e-3;

static void fill(fm_rng_t *rng, float *data, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        data[i] = (float)fm_rng_normal(rng);
    }
}

static bool is_near(double a, double b, double tolerance)
{
    return fabs(a - b) <= tolerance * (1.0 + fabs(b));
}

static double dot(const float *a, const float *b, size_t count)
{
    double sum = 0.0;
    for (size_t i = 0; i < count; i++) {
        sum += (double)a[i] * (double)b[i];
    }
    return sum;
}

/* Slope of forward(context), weighted by dout, along *at. */
typedef void (*forward_fn)(void *context, float *out);

static double slope(forward_fn forward, void *context, float *at,
                    const float *dout)
{
    float out[COUNT];
    const float saved = *at;

    *at = (float)((double)saved + STEP);
    double step_up = (double)*at;
    forward(context, out);
    double above = dot(out, dout, COUNT);
    *at = (float)((double)saved - STEP);
    double width = step_up - (double)*at;
    forward(context, out);
    double below = dot(out, dout, COUNT);
    *at = saved;
    return (above - below) / width;
}

static void test_rmsnorm_closed_form(void)
{
    float x[4] = {3.0f, -3.0f, 3.0f, -3.0f};
    const float weight[4] = {1.0f, 2.0f, -1.0f, 0.5f};
    const float want[4] = {1.0f, -2.0f, -1.0f, -0.5f};
    float out[4];
    float rstd = 0.0f;

    fm_kernels_rmsnorm_forward_ref(out, &rstd, x, weight, 1, 4, 0.0f);
    CU_ASSERT(is_near((double)rstd, 1.0 / 3.0, 1e-7));
    for (size_t i = 0; i < 4; i++) {
        CU_ASSERT(is_near((double)out[i], (double)want[i], 1e-7));
    }
    /* In place, without rstd; eps halves a row whose mean square is eps/3. */
    fm_kernels_rmsnorm_forward_ref(x, NULL, x, weight, 1, 4, 27.0f);
    for (size_t i = 0; i < 4; i++) {
        CU_ASSERT(is_near((double)x[i], 0.5 * (double)want[i], 1e-7));
    }
}

static void test_rmsnorm_scale_invariance(void)
{
    fm_rng_t rng;
    float x[COUNT];
    float scaled[COUNT];
    float weight[COLS];
    float a[COUNT];
    float b[COUNT];

    fm_rng_init(&rng, 1);
    fill(&rng, x, COUNT);
    fill(&rng, weight, COLS);
    for (size_t i = 0; i < COUNT; i++) {
        scaled[i] = 1024.0f * x[i];
    }
    fm_kernels_rmsnorm_forward_ref(a, NULL, x, weight, ROWS, COLS, 0.0f);
    fm_kernels_rmsnorm_forward_ref(b, NULL, scaled, weight, ROWS, COLS, 0.0f);
    for (size_t i = 0; i < COUNT; i++) {
        CU_ASSERT(is_near((double)a[i], (double)b[i], 1e-6));
    }
}

struct rmsnorm_case {
    float x[COUNT];
    float weight[COLS];
    float dout[COUNT];
    float rstd[ROWS];
    float dx[COUNT];
    float dweight[COLS];
};

static void rmsnorm_forward(void *context, float *out)
{
    struct rmsnorm_case *t = context;
    fm_kernels_rmsnorm_forward_ref(out, NULL, t->x, t->weight, ROWS, COLS,
                                   1e-5f);
}

static void test_rmsnorm_gradient(void)
{
    struct rmsnorm_case t = {0};
    float out[COUNT];
    fm_rng_t rng;

    fm_rng_init(&rng, 2);
    fill(&rng, t.x, COUNT);
    fill(&rng, t.weight, COLS);
    fill(&rng, t.dout, COUNT);
    fm_kernels_rmsnorm_forward_ref(out, t.rstd, t.x, t.weight, ROWS, COLS,
                                   1e-5f);
    fm_kernels_rmsnorm_backward_ref(t.dx, t.dweight, t.dout, t.x, t.weight,
                                    t.rstd, ROWS, COLS);
    for (size_t i = 0; i < COUNT; i++) {
        CU_ASSERT(is_near((double)t.dx[i],
                          slope(rmsnorm_forward, &t, &t.x[i], t.dout),
                          GRADIENT_TOLERANCE));
    }
    for (size_t c = 0; c < COLS; c++) {
        CU_ASSERT(is_near((double)t.dweight[c],
                          slope(rmsnorm_forward, &t, &t.weight[c], t.dout),
                          GRADIENT_TOLERANCE));
    }
}

/* dweight accumulates, dx replaces, and a frozen weight is allowed. */
static void test_rmsnorm_backward_accumulates(void)
{
    struct rmsnorm_case t = {0};
    float once[COLS];
    float dx[COUNT];
    fm_rng_t rng;

    fm_rng_init(&rng, 3);
    fill(&rng, t.x, COUNT);
    fill(&rng, t.weight, COLS);
    fill(&rng, t.dout, COUNT);
    for (size_t r = 0; r < ROWS; r++) {
        t.rstd[r] = 1.0f;
    }
    fm_kernels_rmsnorm_backward_ref(t.dx, t.dweight, t.dout, t.x, t.weight,
                                    t.rstd, ROWS, COLS);
    memcpy(once, t.dweight, sizeof(once));
    memcpy(dx, t.dx, sizeof(dx));
    fm_kernels_rmsnorm_backward_ref(t.dx, t.dweight, t.dout, t.x, t.weight,
                                    t.rstd, ROWS, COLS);
    for (size_t c = 0; c < COLS; c++) {
        CU_ASSERT(is_near((double)t.dweight[c], 2.0 * (double)once[c], 1e-6));
    }
    CU_ASSERT(memcmp(dx, t.dx, sizeof(dx)) == 0);
    fm_kernels_rmsnorm_backward_ref(t.dout, NULL, t.dout, t.x, t.weight, t.rstd,
                                    ROWS, COLS);
    CU_ASSERT(memcmp(dx, t.dout, sizeof(dx)) == 0); /* in place */
}

static void test_swiglu_closed_form(void)
{
    const float gate[6] = {0.0f, 1.5f, -1.5f, 200.0f, -200.0f, 1.0f};
    float up[6] = {5.0f, 1.0f, 1.0f, 2.0f, 2.0f, -3.0f};
    float out[6];

    fm_kernels_swiglu_forward_ref(out, gate, up, 6);
    CU_ASSERT(out[0] == 0.0f);
    /* silu(g) - silu(-g) = g */
    CU_ASSERT(is_near((double)out[1] - (double)out[2], 1.5, 1e-7));
    CU_ASSERT(out[3] == 400.0f);
    CU_ASSERT(fabsf(out[4]) < 1e-30f);
    CU_ASSERT(is_near((double)out[5], -3.0 / (1.0 + exp(-1.0)), 1e-7));
    fm_kernels_swiglu_forward_ref(up, gate, up, 6); /* in place */
    CU_ASSERT(memcmp(up, out, sizeof(out)) == 0);
}

struct swiglu_case {
    float gate[COUNT];
    float up[COUNT];
};

static void swiglu_forward(void *context, float *out)
{
    struct swiglu_case *t = context;
    fm_kernels_swiglu_forward_ref(out, t->gate, t->up, COUNT);
}

static void test_swiglu_gradient(void)
{
    struct swiglu_case t;
    float dout[COUNT];
    float dgate[COUNT];
    float dup[COUNT];
    fm_rng_t rng;

    fm_rng_init(&rng, 4);
    fill(&rng, t.gate, COUNT);
    fill(&rng, t.up, COUNT);
    fill(&rng, dout, COUNT);
    fm_kernels_swiglu_backward_ref(dgate, dup, dout, t.gate, t.up, COUNT);
    for (size_t i = 0; i < COUNT; i++) {
        CU_ASSERT(is_near((double)dgate[i],
                          slope(swiglu_forward, &t, &t.gate[i], dout),
                          GRADIENT_TOLERANCE));
        CU_ASSERT(is_near((double)dup[i],
                          slope(swiglu_forward, &t, &t.up[i], dout),
                          GRADIENT_TOLERANCE));
    }
    /* Both outputs in place of inputs. */
    fm_kernels_swiglu_backward_ref(t.gate, t.up, dout, t.gate, t.up, COUNT);
    CU_ASSERT(memcmp(t.gate, dgate, sizeof(dgate)) == 0);
    CU_ASSERT(memcmp(t.up, dup, sizeof(dup)) == 0);
}

static const fm_kernels_adamw_t PLAIN = {.lr = 0.1f,
                                         .beta1 = 0.9f,
                                         .beta2 = 0.999f,
                                         .eps = 1e-12f,
                                         .weight_decay = 0.0f,
                                         .grad_scale = 1.0f,
                                         .step = 1};

/* With zero moments the first step is lr against the sign of the gradient,
 * whatever its size: bias correction at work. */
static void test_adamw_first_step(void)
{
    const float grad[4] = {1e-3f, -1e-3f, 50.0f, -7.0f};
    float param[4] = {1.0f, 1.0f, 1.0f, 1.0f};
    float m[4] = {0};
    float v[4] = {0};

    fm_kernels_adamw_step_ref(param, m, v, grad, 4, &PLAIN);
    for (size_t i = 0; i < 4; i++) {
        double want = grad[i] > 0.0f ? 0.9 : 1.1;
        CU_ASSERT(is_near((double)param[i], want, 1e-6));
        CU_ASSERT(is_near((double)m[i], 0.1 * (double)grad[i], 1e-6));
        double square = (double)grad[i] * (double)grad[i];
        CU_ASSERT(
            is_near((double)v[i], (1.0 - (double)PLAIN.beta2) * square, 1e-6));
    }
}

/* A constant gradient keeps the corrected moments constant: every step has
 * the same length. */
static void test_adamw_constant_gradient(void)
{
    const float grad = 0.25f;
    float param = 4.0f;
    float m = 0.0f;
    float v = 0.0f;
    fm_kernels_adamw_t options = PLAIN;

    for (options.step = 1; options.step <= 20; options.step++) {
        fm_kernels_adamw_step_ref(&param, &m, &v, &grad, 1, &options);
        CU_ASSERT(
            is_near((double)param, 4.0 - 0.1 * (double)options.step, 1e-5));
    }
}

/* Decay is decoupled: it acts with no gradient, and never enters a moment. */
static void test_adamw_decay(void)
{
    const float grad = 0.0f;
    float param = 8.0f;
    float m = 0.0f;
    float v = 0.0f;
    fm_kernels_adamw_t options = PLAIN;

    options.weight_decay = 0.5f;
    fm_kernels_adamw_step_ref(&param, &m, &v, &grad, 1, &options);
    CU_ASSERT(is_near((double)param, 8.0 * (1.0 - 0.1 * 0.5), 1e-7));
    CU_ASSERT(m == 0.0f && v == 0.0f);
}

static void test_adamw_grad_scale(void)
{
    const float grad = 0.75f;
    const float scaled = 0.75f * 0.125f;
    float param[2] = {1.0f, 1.0f};
    float m[2] = {0.5f, 0.5f};
    float v[2] = {0.25f, 0.25f};
    fm_kernels_adamw_t options = PLAIN;

    options.step = 7;
    fm_kernels_adamw_step_ref(&param[0], &m[0], &v[0], &scaled, 1, &options);
    options.grad_scale = 0.125f;
    fm_kernels_adamw_step_ref(&param[1], &m[1], &v[1], &grad, 1, &options);
    CU_ASSERT(param[0] == param[1] && m[0] == m[1] && v[0] == v[1]);
    CU_ASSERT(param[0] < 1.0f);
}

static const fm_test_case_t CASES[] = {
    {"rmsnorm closed form", test_rmsnorm_closed_form},
    {"rmsnorm ignores scale", test_rmsnorm_scale_invariance},
    {"rmsnorm gradient", test_rmsnorm_gradient},
    {"rmsnorm backward accumulates", test_rmsnorm_backward_accumulates},
    {"swiglu closed form", test_swiglu_closed_form},
    {"swiglu gradient", test_swiglu_gradient},
    {"adamw first step", test_adamw_first_step},
    {"adamw constant gradient", test_adamw_constant_gradient},
    {"adamw decay is decoupled", test_adamw_decay},
    {"adamw gradient scale", test_adamw_grad_scale},
};

int main(void)
{
    return fm_test_main("kernels", CASES, FM_COUNT_OF(CASES));
}
