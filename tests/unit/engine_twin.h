/* SPDX-License-Identifier: Apache-2.0 */
/** @file engine_twin.h  An operation of the CPU backend against a plain float64
 * twin: values directly, gradients against central differences of the twin.
 * The twin's differences are good to 1e-8, so the tolerance is float32's alone.
 */
#ifndef ENGINE_TWIN_H
#define ENGINE_TWIN_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "engine/backend.h"
#include "fmtest.h"

enum { PROBES = 150 };

/** y = f(x) in float64. */
typedef void (*twin_fn)(const double *x, double *y);

static fm_engine_backend_t *be;
static fm_rng_t rng;

static inline float *floats(size_t count)
{
    float *block = fm_calloc(count, sizeof(*block));

    CU_ASSERT_PTR_NOT_NULL_FATAL(block);
    return block;
}

static inline float *random_floats(size_t count)
{
    float *block = floats(count);

    for (size_t i = 0; i < count; i++) {
        block[i] = (float)fm_rng_normal(&rng);
    }
    return block;
}

static inline double *widen(const float *x, size_t count)
{
    double *wide = fm_calloc(count, sizeof(*wide));

    CU_ASSERT_PTR_NOT_NULL_FATAL(wide);
    for (size_t i = 0; i < count; i++) {
        wide[i] = (double)x[i];
    }
    return wide;
}

static inline void check_close(const char *what, double got, double want,
                               double size)
{
    bool good = fabs(got - want) <= 2e-5 * size + 2e-5 * fabs(want);

    if (!good) {
        (void)fprintf(stderr, "%s: got %.9g, want %.9g\n", what, got, want);
    }
    CU_ASSERT(good);
}

static inline void check_values(const char *what, twin_fn twin, const float *x,
                                size_t n, const float *y, size_t m)
{
    double *in = widen(x, n);
    double *out = fm_calloc(m, sizeof(*out));

    CU_ASSERT_PTR_NOT_NULL_FATAL(out);
    twin(in, out);
    for (size_t i = 0; i < m; i++) {
        check_close(what, (double)y[i], out[i], 1);
    }
    free(in);
    free(out);
}

/* dx against d(Σ r·y)/dx, at up to PROBES of the elements from @p first on. */
static inline void check_gradient_from(const char *what, twin_fn twin,
                                       const float *x, size_t n, const float *r,
                                       size_t m, const float *dx, size_t first)
{
    const double h = 1e-5;
    double *in = widen(x, n);
    double *out = fm_calloc(m, sizeof(*out));
    double largest = 0;

    CU_ASSERT_PTR_NOT_NULL_FATAL(out);
    size_t count = n - first;
    for (size_t i = first; i < n; i++) {
        largest = fmax(largest, fabs((double)dx[i]));
    }
    CU_ASSERT(largest > 1e-3);
    for (size_t probe = 0; probe < count && probe < PROBES; probe++) {
        size_t i =
            first +
            (count <= PROBES ? probe : (size_t)fm_rng_below(&rng, count));
        double slope = 0;
        for (int side = 1; side >= -1; side -= 2) {
            double keep = in[i];
            in[i] += side * h;
            twin(in, out);
            in[i] = keep;
            for (size_t j = 0; j < m; j++) {
                slope += side * (double)r[j] * out[j] / (2 * h);
            }
        }
        check_close(what, (double)dx[i], slope, largest);
    }
    free(in);
    free(out);
}

static inline void check_gradient(const char *what, twin_fn twin,
                                  const float *x, size_t n, const float *r,
                                  size_t m, const float *dx)
{
    check_gradient_from(what, twin, x, n, r, m, dx, 0);
}

/** Run the cases on a backend of their own. */
static inline int twin_main(const char *suite, const fm_test_case_t *cases,
                            size_t count)
{
    fm_error_t err = {0};

    if (fm_engine_backend_create_cpu(&be, &err) < 0) {
        (void)fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    fm_rng_init(&rng, 7);
    int failed = fm_test_main(suite, cases, count);
    fm_engine_backend_destroy(be);
    return failed;
}

#endif
