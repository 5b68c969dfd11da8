/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CUDA kernels against their CPU twins, with the tolerances their headers
 * state; twice, for equal bits; misaligned, for the same bits again; and with
 * guard elements after every output, which must survive.
 *
 * Exits 77 where there is no usable device.
 */
#include <cuda_runtime_api.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "fmtest.h"
#include "kernels/adamw.h"
#include "kernels/rmsnorm.h"
#include "kernels/swiglu.h"

enum { GUARD = 8, MAX_ARRAYS = 8 };
static const float GUARD_VALUE = 12345.0f;

/* A float array on both sides: host is what the twin sees, device (offset by
 * `shift` elements from an aligned block) what the kernel sees. */
struct array {
    float *host;
    float *block;
    float *device;
    float *back; /* what came back from the device */
    size_t count;
};

static struct array arrays[MAX_ARRAYS];
static size_t array_count;

#define CUDA_OK(call) CU_ASSERT_FATAL((call) == cudaSuccess)

static struct array *array_create(fm_rng_t *rng, size_t count, size_t shift)
{
    CU_ASSERT_FATAL(array_count < MAX_ARRAYS);
    struct array *a = &arrays[array_count++];
    const size_t padded = count + GUARD;

    a->count = count;
    a->host = fm_calloc(padded, sizeof(float));
    a->back = fm_calloc(padded, sizeof(float));
    CU_ASSERT_FATAL(a->host && a->back);
    for (size_t i = 0; i < count; i++) {
        a->host[i] = rng ? (float)fm_rng_normal(rng) : 0.0f;
    }
    for (size_t i = count; i < padded; i++) {
        a->host[i] = GUARD_VALUE;
    }
    CUDA_OK(cudaMalloc((void **)&a->block, (padded + shift) * sizeof(float)));
    a->device = a->block + shift;
    CUDA_OK(cudaMemcpy(a->device, a->host, padded * sizeof(float),
                       cudaMemcpyHostToDevice));
    return a;
}

static void array_fetch(struct array *a)
{
    CUDA_OK(cudaMemcpy(a->back, a->device, (a->count + GUARD) * sizeof(float),
                       cudaMemcpyDeviceToHost));
    for (size_t i = a->count; i < a->count + GUARD; i++) {
        CU_ASSERT(a->back[i] == GUARD_VALUE);
    }
}

static void arrays_destroy(void)
{
    while (array_count > 0) {
        struct array *a = &arrays[--array_count];
        free(a->host);
        free(a->back);
        CUDA_OK(cudaFree(a->block));
        memset(a, 0, sizeof(*a));
    }
}

static uint64_t bits_of(const struct array *a)
{
    uint64_t hash = UINT64_C(1469598103934665603); /* FNV-1a */
    const unsigned char *bytes = (const unsigned char *)a->back;
    for (size_t i = 0; i < a->count * sizeof(float); i++) {
        hash = (hash ^ bytes[i]) * UINT64_C(1099511628211);
    }
    return hash;
}

/* @p terms: the size of what was added up, element by element; NULL for 1. */
static void expect_near(const char *what, const struct array *a, double rel,
                        double abs_tolerance, const double *terms)
{
    size_t bad = 0;
    for (size_t i = 0; i < a->count; i++) {
        double want = (double)a->host[i];
        double tolerance =
            rel * fabs(want) + abs_tolerance * (terms ? terms[i] : 1.0);
        /* Negated so that a NaN is bad. */
        if (!(fabs((double)a->back[i] - want) <= tolerance) && bad++ == 0) {
            (void)fprintf(stderr, "%s[%zu]: kernel %.9g, twin %.9g\n", what, i,
                          (double)a->back[i], want);
        }
    }
    CU_ASSERT(bad == 0);
}

static const size_t SHAPES[][2] = {{1, 1},     {1, 3},     {2, 4},    {3, 31},
                                   {5, 257},   {7, 1024},  {4, 1025}, {9, 4096},
                                   {64, 5000}, {300, 768}, {70000, 8}};

/* The backward formulas over absolute values: the scale of the tolerance. */
static void rmsnorm_terms(double *dx_terms, double *dweight_terms,
                          const float *dout, const float *x,
                          const float *weight, const float *rstd, size_t rows,
                          size_t cols)
{
    for (size_t r = 0; r < rows; r++) {
        const double scale = (double)rstd[r];
        double mean = 0.0;
        for (size_t i = r * cols; i < (r + 1) * cols; i++) {
            double term = fabs((double)dout[i] * (double)x[i]);
            dweight_terms[i % cols] += term * scale;
            mean += term * fabs((double)weight[i % cols]) / (double)cols;
        }
        for (size_t i = r * cols; i < (r + 1) * cols; i++) {
            dx_terms[i] =
                scale * (fabs((double)dout[i] * (double)weight[i % cols]) +
                         fabs((double)x[i]) * mean * scale * scale);
        }
    }
}

static uint64_t rmsnorm_run(size_t rows, size_t cols, size_t shift)
{
    const float eps = 1e-5f;
    fm_rng_t rng;
    fm_rng_init(&rng, 11);
    struct array *x = array_create(&rng, rows * cols, shift);
    struct array *weight = array_create(&rng, cols, shift);
    struct array *dout = array_create(&rng, rows * cols, shift);
    struct array *dweight = array_create(&rng, cols, shift);
    struct array *out = array_create(NULL, rows * cols, shift);
    struct array *rstd = array_create(NULL, rows, shift);
    struct array *dx = array_create(NULL, rows * cols, shift);
    double *terms = fm_calloc((rows + 1) * cols, sizeof(*terms));
    CU_ASSERT_FATAL(terms != NULL);
    double *dx_terms = terms + cols;

    for (size_t c = 0; c < cols; c++) {
        terms[c] = fabs((double)dweight->host[c]);
    }
    fm_kernels_rmsnorm_forward_ref(out->host, rstd->host, x->host, weight->host,
                                   rows, cols, eps);
    fm_kernels_rmsnorm_backward_ref(dx->host, dweight->host, dout->host,
                                    x->host, weight->host, rstd->host, rows,
                                    cols);
    rmsnorm_terms(dx_terms, terms, dout->host, x->host, weight->host,
                  rstd->host, rows, cols);
    CU_ASSERT(fm_kernels_rmsnorm_forward(out->device, rstd->device, x->device,
                                         weight->device, rows, cols, eps,
                                         NULL) == 0);
    CU_ASSERT(fm_kernels_rmsnorm_backward(
                  dx->device, dweight->device, dout->device, x->device,
                  weight->device, rstd->device, rows, cols, NULL) == 0);
    CUDA_OK(cudaDeviceSynchronize());
    array_fetch(out);
    array_fetch(rstd);
    array_fetch(dx);
    array_fetch(dweight);
    expect_near("out", out, 1e-5, 1e-5, NULL);
    expect_near("rstd", rstd, 1e-5, 1e-5, NULL);
    expect_near("dx", dx, 1e-5, 1e-5, dx_terms);
    expect_near("dweight", dweight, 1e-5, 1e-5, terms);
    uint64_t bits =
        bits_of(out) ^ bits_of(rstd) ^ bits_of(dx) ^ bits_of(dweight);
    free(terms);
    arrays_destroy();
    return bits;
}

static void test_rmsnorm(void)
{
    for (size_t i = 0; i < FM_COUNT_OF(SHAPES); i++) {
        uint64_t bits = rmsnorm_run(SHAPES[i][0], SHAPES[i][1], 0);
        CU_ASSERT(rmsnorm_run(SHAPES[i][0], SHAPES[i][1], 0) == bits);
        CU_ASSERT(rmsnorm_run(SHAPES[i][0], SHAPES[i][1], 1) == bits);
    }
}

static void test_rmsnorm_in_place(void)
{
    const size_t rows = 5;
    const size_t cols = 516;
    fm_rng_t rng;
    fm_rng_init(&rng, 12);
    struct array *x = array_create(&rng, rows * cols, 0);
    struct array *weight = array_create(&rng, cols, 0);

    CU_ASSERT(fm_kernels_rmsnorm_forward(x->device, NULL, x->device,
                                         weight->device, rows, cols, 1e-5f,
                                         NULL) == 0);
    fm_kernels_rmsnorm_forward_ref(x->host, NULL, x->host, weight->host, rows,
                                   cols, 1e-5f);
    array_fetch(x);
    expect_near("x", x, 1e-5, 1e-5, NULL);
    arrays_destroy();
}

static uint64_t swiglu_run(size_t count, size_t shift)
{
    fm_rng_t rng;
    fm_rng_init(&rng, 13);
    struct array *gate = array_create(&rng, count, shift);
    struct array *up = array_create(&rng, count, shift);
    struct array *dout = array_create(&rng, count, shift);
    struct array *out = array_create(NULL, count, shift);
    double *terms = fm_calloc(3 * count, sizeof(*terms));
    CU_ASSERT_FATAL(terms != NULL);

    for (size_t i = 0; i < count; i++) {
        terms[i] = fabs((double)up->host[i]);
        terms[count + i] = fabs((double)dout->host[i] * (double)up->host[i]);
        terms[2 * count + i] = fabs((double)dout->host[i]);
    }
    CU_ASSERT(fm_kernels_swiglu_forward(out->device, gate->device, up->device,
                                        count, NULL) == 0);
    /* The gradients overwrite gate and up, as the header allows. */
    CU_ASSERT(fm_kernels_swiglu_backward(gate->device, up->device, dout->device,
                                         gate->device, up->device, count,
                                         NULL) == 0);
    fm_kernels_swiglu_forward_ref(out->host, gate->host, up->host, count);
    fm_kernels_swiglu_backward_ref(gate->host, up->host, dout->host, gate->host,
                                   up->host, count);
    CUDA_OK(cudaDeviceSynchronize());
    array_fetch(out);
    array_fetch(gate);
    array_fetch(up);
    expect_near("out", out, 1e-5, 1e-6, terms);
    expect_near("dgate", gate, 1e-5, 1e-6, terms + count);
    expect_near("dup", up, 1e-5, 1e-6, terms + 2 * count);
    uint64_t bits = bits_of(out) ^ bits_of(gate) ^ bits_of(up);
    free(terms);
    arrays_destroy();
    return bits;
}

static const size_t COUNTS[] = {1, 2, 3, 4, 5, 255, 1024, 4099, 1u << 20};

static void test_swiglu(void)
{
    for (size_t i = 0; i < FM_COUNT_OF(COUNTS); i++) {
        uint64_t bits = swiglu_run(COUNTS[i], 0);
        CU_ASSERT(swiglu_run(COUNTS[i], 0) == bits);
        CU_ASSERT(swiglu_run(COUNTS[i], 1) == bits);
    }
}

static const fm_kernels_adamw_t ADAMW = {.lr = 1e-2f,
                                         .beta1 = 0.9f,
                                         .beta2 = 0.999f,
                                         .eps = 1e-8f,
                                         .weight_decay = 0.1f,
                                         .grad_scale = 0.5f,
                                         .step = 3};

/* The sizes of the terms that make p, m and v: the scale of the tolerance. */
static void adamw_terms(double *terms, const float *p, const float *m,
                        const float *v, const float *grad, size_t count)
{
    const double beta1 = (double)ADAMW.beta1;
    const double beta2 = (double)ADAMW.beta2;
    const double bias1 = 1.0 - pow(beta1, (double)ADAMW.step);
    const double bias2 = 1.0 - pow(beta2, (double)ADAMW.step);

    for (size_t i = 0; i < count; i++) {
        double g = fabs((double)ADAMW.grad_scale * (double)grad[i]);
        double mean = beta1 * fabs((double)m[i]) + (1.0 - beta1) * g;
        double square = beta2 * (double)v[i] + (1.0 - beta2) * g * g;
        terms[i] = (double)ADAMW.lr *
                   (mean / bias1 / (sqrt(square / bias2) + (double)ADAMW.eps) +
                    (double)ADAMW.weight_decay * fabs((double)p[i]));
        terms[count + i] = mean;
        terms[2 * count + i] = square;
    }
}

static uint64_t adamw_run(size_t count, size_t shift)
{
    fm_rng_t rng;
    fm_rng_init(&rng, 14);
    struct array *param = array_create(&rng, count, shift);
    struct array *m = array_create(&rng, count, shift);
    struct array *grad = array_create(&rng, count, shift);
    struct array *v = array_create(NULL, count, shift);
    double *terms = fm_calloc(3 * count, sizeof(*terms));
    CU_ASSERT_FATAL(terms != NULL);

    for (size_t i = 0; i < count; i++) {
        v->host[i] = (float)(0.5 + fm_rng_uniform(&rng));
    }
    CUDA_OK(cudaMemcpy(v->device, v->host, count * sizeof(float),
                       cudaMemcpyHostToDevice));
    adamw_terms(terms, param->host, m->host, v->host, grad->host, count);
    CU_ASSERT(fm_kernels_adamw_step(param->device, m->device, v->device,
                                    grad->device, count, &ADAMW, NULL) == 0);
    fm_kernels_adamw_step_ref(param->host, m->host, v->host, grad->host, count,
                              &ADAMW);
    CUDA_OK(cudaDeviceSynchronize());
    array_fetch(param);
    array_fetch(m);
    array_fetch(v);
    expect_near("param", param, 1e-6, 1e-6, terms);
    expect_near("m", m, 1e-6, 1e-6, terms + count);
    expect_near("v", v, 1e-6, 1e-6, terms + 2 * count);
    uint64_t bits = bits_of(param) ^ bits_of(m) ^ bits_of(v);
    free(terms);
    arrays_destroy();
    return bits;
}

static void test_adamw(void)
{
    for (size_t i = 0; i < FM_COUNT_OF(COUNTS); i++) {
        uint64_t bits = adamw_run(COUNTS[i], 0);
        CU_ASSERT(adamw_run(COUNTS[i], 0) == bits);
        CU_ASSERT(adamw_run(COUNTS[i], 1) == bits);
    }
}

/* Refused before any launch, so the pointers are never followed. */
static void test_bad_arguments(void)
{
    float value[4] = {0};
    fm_kernels_adamw_t options = ADAMW;

    CU_ASSERT(fm_kernels_rmsnorm_forward(NULL, NULL, value, value, 1, 4, 0.1f,
                                         NULL) != 0);
    CU_ASSERT(fm_kernels_rmsnorm_forward(value, NULL, value, value, 1, 0, 0.1f,
                                         NULL) != 0);
    CU_ASSERT(fm_kernels_rmsnorm_forward(value, NULL, value, value, 1, 4, -1.0f,
                                         NULL) != 0);
    CU_ASSERT(fm_kernels_rmsnorm_forward(NULL, NULL, NULL, NULL, 0, 4, 0.1f,
                                         NULL) == 0);
    CU_ASSERT(fm_kernels_rmsnorm_backward(value, value, value, value, value,
                                          value, 1, 4, NULL) != 0);
    CU_ASSERT(fm_kernels_swiglu_forward(value, NULL, value, 4, NULL) != 0);
    CU_ASSERT(fm_kernels_swiglu_backward(value, value, value, value, value, 4,
                                         NULL) != 0);
    options.step = 0;
    CU_ASSERT(fm_kernels_adamw_step(value, value, value, value, 4, &options,
                                    NULL) != 0);
    options = ADAMW;
    options.beta2 = 1.0f;
    CU_ASSERT(fm_kernels_adamw_step(value, value, value, value, 4, &options,
                                    NULL) != 0);
}

static const fm_test_case_t CASES[] = {
    {"bad arguments", test_bad_arguments},
    {"rmsnorm", test_rmsnorm},
    {"rmsnorm in place", test_rmsnorm_in_place},
    {"swiglu", test_swiglu},
    {"adamw", test_adamw},
};

int main(void)
{
    int devices = 0;
    cudaError_t rc = cudaGetDeviceCount(&devices);

    if (rc != cudaSuccess || devices < 1) {
        (void)printf("skipped: no CUDA device: %s\n",
                     rc != cudaSuccess ? cudaGetErrorString(rc)
                                       : "the driver lists none");
        return 77;
    }
    return fm_test_main("gpu kernels", CASES, FM_COUNT_OF(CASES));
}
