/* SPDX-License-Identifier: Apache-2.0 */
/* Operations of adapters, head and optimiser against their twins. */
#include "engine_twin.h"

/* Odd sizes: every loop has a tail. */
enum { ROWS = 5, WIDTH = 37, OUT = 11, VOCAB = 53, RANK = 3, LDO = 19 };

/* --- adapters: x[rows, k], a[rank, k], b[n, rank], out[rows, ldo] ----------
 */

static const float lora_scale = 1.75F;

static void lora_twin(const double *x, double *y)
{
    const double *a = x + ROWS * WIDTH;
    const double *b = a + RANK * WIDTH;
    const double *base = b + OUT * RANK;

    for (size_t r = 0; r < ROWS; r++) {
        memcpy(y + r * LDO, base + r * LDO, LDO * sizeof(*y));
        for (size_t o = 0; o < OUT; o++) {
            for (size_t q = 0; q < RANK; q++) {
                double low = 0;
                for (size_t i = 0; i < WIDTH; i++) {
                    low += x[r * WIDTH + i] * a[q * WIDTH + i];
                }
                y[r * LDO + o] += (double)lora_scale * low * b[o * RANK + q];
            }
        }
    }
}

static void test_lora(void)
{
    size_t a = ROWS * WIDTH;
    size_t b = a + RANK * WIDTH;
    size_t base = b + OUT * RANK;
    size_t m = ROWS * LDO;
    size_t n = base + m;
    float *x = random_floats(n);
    float *r = random_floats(m);
    float *y = floats(m);
    float *dx = floats(n);
    float *frozen = floats(a);
    float *scratch = floats(2 * ROWS * RANK);
    const fm_engine_lora_t lora = {
        .a = x + a, .b = x + b, .rank = RANK, .scale = lora_scale};

    memcpy(y, x + base, m * sizeof(*y));
    be->ops->lora_forward(be, y, LDO, x, &lora, scratch, ROWS, WIDTH, OUT);
    check_values("lora", lora_twin, x, n, y, m);
    memcpy(dx + base, r, m * sizeof(*r));
    be->ops->lora_backward(be, dx, dx + a, dx + b, r, LDO, x, &lora, scratch,
                           ROWS, WIDTH, OUT);
    check_gradient("lora gradient", lora_twin, x, n, r, m, dx);
    check_gradient_from("lora matrices", lora_twin, x, n, r, m, dx, a);
    be->ops->lora_backward(be, frozen, NULL, NULL, r, LDO, x, &lora, scratch,
                           ROWS, WIDTH, OUT);
    CU_ASSERT(memcmp(frozen, dx, a * sizeof(*dx)) == 0);
    free(x);
    free(r);
    free(y);
    free(dx);
    free(frozen);
    free(scratch);
}

/* --- dropout ---------------------------------------------------------------
 */

static const fm_engine_mask_t mask = {
    .key = 99, .first_row = 7, .rate = 0.375F};

static uint64_t splitmix(uint64_t key, uint64_t counter)
{
    uint64_t z = key + counter * UINT64_C(0x9E3779B97F4A7C15);

    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static void dropout_twin(const double *x, double *y)
{
    for (size_t r = 0; r < ROWS; r++) {
        for (size_t i = 0; i < WIDTH; i++) {
            uint64_t at = (mask.first_row + r) * WIDTH + i + 1;
            double share = (double)(splitmix(mask.key, at) >> 32) / 0x1p32;
            double keep = share < (double)mask.rate ? 0 : 1;
            y[r * WIDTH + i] =
                x[r * WIDTH + i] * keep / (1 - (double)mask.rate);
        }
    }
}

static void test_dropout(void)
{
    size_t m = ROWS * WIDTH;
    float *x = random_floats(m);
    float *r = random_floats(m);
    float *y = floats(m);
    float *dx = floats(m);
    size_t zeros = 0;

    be->ops->dropout(be, y, x, &mask, ROWS, WIDTH, false);
    check_values("dropout", dropout_twin, x, m, y, m);
    be->ops->dropout(be, dx, r, &mask, ROWS, WIDTH, false);
    check_gradient("dropout gradient", dropout_twin, x, m, r, m, dx);
    be->ops->dropout(be, dx, r, &mask, ROWS, WIDTH, true);
    for (size_t i = 0; i < m; i++) {
        zeros += y[i] == 0;
        dx[i] /= 2; /* += */
    }
    check_gradient("dropout twice", dropout_twin, x, m, r, m, dx);
    CU_ASSERT(zeros > m / 4 && zeros < m / 2); /* 0.375 of 185 */

    /* a row's mask is that of its number, wherever the cut is */
    fm_engine_mask_t later = mask;
    later.first_row += 2;
    be->ops->dropout(be, dx, x + 2 * WIDTH, &later, ROWS - 2, WIDTH, false);
    CU_ASSERT(memcmp(dx, y + 2 * WIDTH, (ROWS - 2) * WIDTH * sizeof(*y)) == 0);
    free(x);
    free(r);
    free(y);
    free(dx);
}

/* --- log-probability ---------------------------------------------------------
 */

static const int32_t targets[ROWS] = {0, 52, 17, 48, 47};

static void logprob_twin(const double *x, double *y)
{
    for (size_t r = 0; r < ROWS; r++) {
        double total = 0;
        for (size_t i = 0; i < VOCAB; i++) {
            total += exp(x[r * VOCAB + i]);
        }
        y[r] = x[r * VOCAB + (size_t)targets[r]] - log(total);
    }
}

static void test_logprob(void)
{
    size_t n = ROWS * VOCAB;
    float *x = random_floats(n);
    float *dx = floats(n);
    float scales[ROWS] = {1, -0.5F, 2, 0.25F, -3};
    float y[ROWS];

    memcpy(dx, x, n * sizeof(*x));
    be->ops->logprob(be, y, dx, targets, NULL, ROWS, VOCAB);
    CU_ASSERT(memcmp(dx, x, n * sizeof(*x)) == 0);
    check_values("logprob", logprob_twin, x, n, y, ROWS);
    be->ops->logprob(be, y, dx, targets, scales, ROWS, VOCAB);
    check_gradient("logprob gradient", logprob_twin, x, n, scales, ROWS, dx);

    x[0] = 1e4F; /* no overflow */
    x[VOCAB + 50] = NAN;
    x[2 * VOCAB + 3] = INFINITY;
    be->ops->logprob(be, y, x, targets, NULL, ROWS, VOCAB);
    CU_ASSERT(y[0] == 0);
    CU_ASSERT(isnan(y[1]) && !isfinite(y[2]) && isfinite(y[3]));
    free(x);
    free(dx);
}

/* y = [logp | entropy] */
static void entropy_twin(const double *x, double *y)
{
    logprob_twin(x, y);
    for (size_t r = 0; r < ROWS; r++) {
        const double *row = x + r * VOCAB;
        double total = 0;
        double entropy = 0;
        for (size_t i = 0; i < VOCAB; i++) {
            total += exp(row[i]);
        }
        for (size_t i = 0; i < VOCAB; i++) {
            double p = exp(row[i]) / total;
            entropy -= p * log(p);
        }
        y[ROWS + r] = entropy;
    }
}

static void test_logprob_entropy(void)
{
    size_t n = ROWS * VOCAB;
    float *x = random_floats(n);
    float *dx = floats(n);
    /* of log-probabilities, then of entropies */
    float scales[2 * ROWS] = {1, -0.5F, 2, 0.25F, -3, -2, 0, 0.75F, 1.5F, 1};
    float y[2 * ROWS];

    memcpy(dx, x, n * sizeof(*x));
    be->ops->logprob_entropy(be, y, y + ROWS, dx, targets, NULL, NULL, ROWS,
                             VOCAB);
    CU_ASSERT(memcmp(dx, x, n * sizeof(*x)) == 0);
    check_values("entropy", entropy_twin, x, n, y, 2 * ROWS);
    be->ops->logprob_entropy(be, y, y + ROWS, dx, targets, scales,
                             scales + ROWS, ROWS, VOCAB);
    check_values("entropy with gradient", entropy_twin, x, n, y, 2 * ROWS);
    check_gradient("entropy gradient", entropy_twin, x, n, scales, 2 * ROWS,
                   dx);
    free(x);
    free(dx);
}

/* --- rows, optimiser
 * ---------------------------------------------------------- */

static const int32_t ids[4] = {2, 0, 2, 1};

static void gather_twin(const double *x, double *y)
{
    for (size_t r = 0; r < 4; r++) {
        memcpy(y + r * WIDTH, x + (size_t)ids[r] * WIDTH, WIDTH * sizeof(*y));
    }
}

static void test_gather_scatter(void)
{
    float *r = random_floats(4 * WIDTH);
    float *dx = floats(3 * WIDTH);
    float *table = random_floats(3 * WIDTH);
    float *out = floats(4 * WIDTH);
    float *back = floats(3 * WIDTH);

    be->ops->gather(be, out, table, ids, 4, WIDTH);
    be->ops->scatter_add(be, back, out, ids, 4, WIDTH);
    for (size_t i = 0; i < WIDTH; i++) {
        CU_ASSERT(out[WIDTH + i] == table[i]);
        CU_ASSERT(back[i] == table[i]);
        CU_ASSERT(back[WIDTH + i] == table[WIDTH + i]);
        CU_ASSERT(back[2 * WIDTH + i] == 2 * table[2 * WIDTH + i]);
    }
    be->ops->scatter_add(be, dx, r, ids, 4, WIDTH);
    check_gradient("gather gradient", gather_twin, table, 3 * WIDTH, r,
                   4 * WIDTH, dx);
    free(r);
    free(dx);
    free(table);
    free(out);
    free(back);
}

static void test_adamw(void)
{
    const fm_engine_adamw_t u = {.learning_rate = 0.01F,
                                 .beta1 = 0.9F,
                                 .beta2 = 0.99F,
                                 .eps = 1e-6F,
                                 .weight_decay = 0.1F,
                                 .correction1 = 0.1F,
                                 .correction2 = 0.01F,
                                 .grad_scale = 0.5F};
    float *p = random_floats(WIDTH);
    float *g = random_floats(WIDTH);
    float *m = random_floats(WIDTH);
    float *v = random_floats(WIDTH);
    double squares = 0;
    double sum = 0;

    for (size_t i = 0; i < WIDTH; i++) {
        v[i] *= v[i];
    }
    double *p0 = widen(p, WIDTH);
    double *m0 = widen(m, WIDTH);
    double *v0 = widen(v, WIDTH);
    be->ops->adamw(be, p, g, m, v, WIDTH, &u);
    be->ops->sum_squares(be, &squares, g, WIDTH);
    for (size_t i = 0; i < WIDTH; i++) {
        double grad = (double)g[i] * 0.5;
        double m1 = 0.9 * m0[i] + 0.1 * grad;
        double v1 = 0.99 * v0[i] + 0.01 * grad * grad;
        double step = m1 / 0.1 / (sqrt(v1 / 0.01) + 1e-6);
        check_close("m", (double)m[i], m1, 1);
        check_close("v", (double)v[i], v1, 1);
        check_close("param", (double)p[i], p0[i] - 0.01 * (step + 0.1 * p0[i]),
                    1);
        sum += (double)g[i] * (double)g[i];
    }
    CU_ASSERT(fabs(squares - sum) < 1e-12 * sum);
    free(p);
    free(g);
    free(m);
    free(v);
    free(p0);
    free(m0);
    free(v0);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"adapter", test_lora},
        {"dropout", test_dropout},
        {"logprob", test_logprob},
        {"logprob and entropy", test_logprob_entropy},
        {"gather and scatter", test_gather_scatter},
        {"adamw", test_adamw},
    };

    return twin_main("engine operations of training", cases,
                     FM_COUNT_OF(cases));
}
