/* SPDX-License-Identifier: Apache-2.0 */
/* The layers' operations against their twins; what stands around the layers is
 * in test_engine_ops_train.c. */
#include "engine_twin.h"

/* Odd sizes: every loop has a tail. */
enum { ROWS = 5, WIDTH = 37, OUT = 11, VOCAB = 53 };
enum { HEADS = 4, KV = 2, DIM = 22, QKV = (HEADS + 2 * KV) * DIM };
enum { TOKENS = 80, SEQUENCES = 3 };

static fm_engine_heads_t heads = {
    .heads = HEADS, .kv_heads = KV, .head_dim = DIM};
static const int32_t offsets[SEQUENCES + 1] = {0, 70, 71, 80};
static const fm_engine_pack_t pack = {
    .offsets = offsets, .count = SEQUENCES, .longest = 70};

/* --- RMS norm: x = [rows, width] then weight[width] ----------------------- */

static void rmsnorm_twin(const double *x, double *y)
{
    const double *weight = x + ROWS * WIDTH;

    for (size_t r = 0; r < ROWS; r++) {
        double sum = 0;
        for (size_t i = 0; i < WIDTH; i++) {
            sum += x[r * WIDTH + i] * x[r * WIDTH + i];
        }
        double scale = 1 / sqrt(sum / WIDTH + (double)1e-5F);
        for (size_t i = 0; i < WIDTH; i++) {
            y[r * WIDTH + i] = x[r * WIDTH + i] * scale * weight[i];
        }
    }
}

static void test_rmsnorm(void)
{
    size_t n = (ROWS + 1) * WIDTH;
    size_t m = ROWS * WIDTH;
    float *x = random_floats(n);
    float *r = random_floats(m);
    float *y = floats(m);
    float *dx = floats(n);
    float rstd[ROWS];

    be->ops->rmsnorm_forward(be, y, rstd, x, x + m, 1e-5F, ROWS, WIDTH);
    check_values("rmsnorm", rmsnorm_twin, x, n, y, m);
    be->ops->rmsnorm_backward(be, dx, dx + m, r, x, x + m, rstd, ROWS, WIDTH);
    check_gradient("rmsnorm gradient", rmsnorm_twin, x, n, r, m, dx);
    check_gradient_from("rmsnorm weight", rmsnorm_twin, x, n, r, m, dx, m);
    free(x);
    free(r);
    free(y);
    free(dx);
}

/* --- linear: x[rows, k] then weight[n, k] --------------------------------- */

static void linear_twin(const double *x, double *y)
{
    const double *weight = x + ROWS * WIDTH;

    for (size_t r = 0; r < ROWS; r++) {
        for (size_t o = 0; o < OUT; o++) {
            y[r * OUT + o] = 0;
            for (size_t i = 0; i < WIDTH; i++) {
                y[r * OUT + o] += x[r * WIDTH + i] * weight[o * WIDTH + i];
            }
        }
    }
}

static void test_linear(void)
{
    size_t n = (ROWS + OUT) * WIDTH;
    size_t m = ROWS * OUT;
    size_t w = ROWS * WIDTH;
    float *x = random_floats(n);
    float *r = random_floats(m);
    float *y = floats(m);
    float *twice = floats(m);
    float *dx = floats(n);

    be->ops->linear_forward(be, y, x, x + w, ROWS, WIDTH, OUT, false);
    check_values("linear", linear_twin, x, n, y, m);
    be->ops->linear_rows(be, y, x, x + w, ROWS, WIDTH, OUT, false);
    check_values("linear rows", linear_twin, x, n, y, m);
    be->ops->linear_rows(be, twice, x, x + w, ROWS, WIDTH, OUT, true);
    be->ops->linear_rows(be, twice, x, x + w, ROWS, WIDTH, OUT, true);
    for (size_t i = 0; i < m; i++) {
        CU_ASSERT(twice[i] == 2 * y[i]);
    }
    be->ops->linear_backward(be, dx, dx + w, r, x, x + w, ROWS, WIDTH, OUT);
    check_gradient("linear gradient", linear_twin, x, n, r, m, dx);
    free(x);
    free(r);
    free(y);
    free(twice);
    free(dx);
}

/* A row has the same bits alone, and among any others. */
static void test_linear_rows_invariant(void)
{
    enum { MANY = 23 };
    float *x = random_floats(MANY * WIDTH);
    float *w = random_floats(OUT * WIDTH);
    float *all = floats(MANY * OUT);
    float *one = floats(OUT);

    for (size_t rows = 1; rows <= MANY; rows++) {
        be->ops->linear_rows(be, all, x, w, rows, WIDTH, OUT, false);
        for (size_t r = 0; r < rows; r++) {
            be->ops->linear_rows(be, one, x + r * WIDTH, w, 1, WIDTH, OUT,
                                 false);
            CU_ASSERT(memcmp(one, all + r * OUT, OUT * sizeof(*one)) == 0);
        }
    }
    free(x);
    free(w);
    free(all);
    free(one);
}

/* --- bias: x[rows, n] then bias[n] --------------------------------------- */

static void bias_twin(const double *x, double *y)
{
    for (size_t r = 0; r < ROWS; r++) {
        for (size_t i = 0; i < WIDTH; i++) {
            y[r * WIDTH + i] = x[r * WIDTH + i] + x[ROWS * WIDTH + i];
        }
    }
}

static void test_bias(void)
{
    size_t m = ROWS * WIDTH;
    float *x = random_floats(m + WIDTH);
    float *r = random_floats(m);
    float *y = floats(m);
    float *dx = floats(m + WIDTH);

    memcpy(y, x, m * sizeof(*y));
    be->ops->bias_add(be, y, x + m, ROWS, WIDTH);
    check_values("bias", bias_twin, x, m + WIDTH, y, m);
    memcpy(dx, r, m * sizeof(*dx));
    be->ops->bias_backward(be, dx + m, r, ROWS, WIDTH);
    check_gradient("bias gradient", bias_twin, x, m + WIDTH, r, m, dx);
    check_gradient_from("bias alone", bias_twin, x, m + WIDTH, r, m, dx, m);
    be->ops->bias_backward(be, dx + m, r, ROWS, WIDTH); /* += */
    for (size_t i = 0; i < WIDTH; i++) {
        double sum = 0;
        for (size_t row = 0; row < ROWS; row++) {
            sum += (double)r[row * WIDTH + i];
        }
        check_close("bias twice", (double)dx[m + i], 2 * sum, 1);
    }
    free(x);
    free(r);
    free(y);
    free(dx);
}

/* --- norms of heads: x = qkv[rows, …], q_weight[dim], k_weight[dim] ------- */

enum { NORMED = HEADS + KV };

static void head_norm_twin(const double *x, double *y)
{
    const double *weights = x + ROWS * QKV;

    memcpy(y, x, ROWS * QKV * sizeof(*y));
    for (size_t r = 0; r < ROWS; r++) {
        for (size_t h = 0; h < NORMED; h++) {
            const double *weight = weights + (h < HEADS ? 0 : DIM);
            const double *from = x + r * QKV + h * DIM;
            double sum = 0;
            for (size_t i = 0; i < DIM; i++) {
                sum += from[i] * from[i];
            }
            double scale = 1 / sqrt(sum / DIM + (double)1e-5F);
            for (size_t i = 0; i < DIM; i++) {
                y[r * QKV + h * DIM + i] = from[i] * scale * weight[i];
            }
        }
    }
}

static void test_head_norm(void)
{
    size_t m = ROWS * QKV;
    size_t n = m + 2 * DIM;
    float *x = random_floats(n);
    float *r = random_floats(m);
    float *y = floats(m);
    float *bare = floats(m);
    float *dx = floats(n);
    float *frozen = floats(m);
    float *unit = floats(ROWS * NORMED * DIM);
    float rstd[ROWS * NORMED];

    memcpy(y, x, m * sizeof(*y));
    memcpy(bare, x, m * sizeof(*bare));
    be->ops->head_norm_forward(be, y, unit, rstd, x + m, x + m + DIM, 1e-5F,
                               ROWS, &heads);
    check_values("head norm", head_norm_twin, x, n, y, m);
    be->ops->head_norm_forward(be, bare, NULL, NULL, x + m, x + m + DIM, 1e-5F,
                               ROWS, &heads);
    CU_ASSERT(memcmp(bare, y, m * sizeof(*y)) == 0);
    memcpy(dx, r, m * sizeof(*dx));
    memcpy(frozen, r, m * sizeof(*dx));
    be->ops->head_norm_backward(be, dx, dx + m, dx + m + DIM, unit, rstd, x + m,
                                x + m + DIM, ROWS, &heads);
    check_gradient("head norm gradient", head_norm_twin, x, n, r, m, dx);
    check_gradient_from("head norm weights", head_norm_twin, x, n, r, m, dx, m);
    be->ops->head_norm_backward(be, frozen, NULL, NULL, unit, rstd, x + m,
                                x + m + DIM, ROWS, &heads);
    CU_ASSERT(memcmp(frozen, dx, m * sizeof(*dx)) == 0);
    free(x);
    free(r);
    free(y);
    free(bare);
    free(dx);
    free(frozen);
    free(unit);
}

/* --- rotary ----------------------------------------------------------------
 */

enum { POSITIONS = 9 };
static const int32_t positions[ROWS] = {0, 3, 8, 1, 3};
static float rope_table[POSITIONS * DIM];

static void rope_twin(const double *x, double *y)
{
    for (size_t r = 0; r < ROWS; r++) {
        const double *from = x + r * QKV;
        double *to = y + r * QKV;
        memcpy(to, from, QKV * sizeof(*to));
        for (size_t h = 0; h < HEADS + KV; h++) {
            for (size_t i = 0; i < DIM / 2; i++) {
                double angle =
                    (double)positions[r] * pow(10000, -2.0 * (double)i / DIM);
                double a = from[h * DIM + i];
                double b = from[h * DIM + DIM / 2 + i];
                to[h * DIM + i] = a * cos(angle) - b * sin(angle);
                to[h * DIM + DIM / 2 + i] = b * cos(angle) + a * sin(angle);
            }
        }
    }
}

static void test_rope(void)
{
    size_t n = ROWS * QKV;
    float *x = random_floats(n);
    float *y = floats(n);
    float *r = random_floats(n);
    float *dx = floats(n);

    for (size_t p = 0; p < POSITIONS; p++) {
        for (size_t i = 0; i < DIM / 2; i++) {
            double angle = (double)p * pow(10000, -2.0 * (double)i / DIM);
            rope_table[p * DIM + i] = (float)cos(angle);
            rope_table[p * DIM + DIM / 2 + i] = (float)sin(angle);
        }
    }
    memcpy(y, x, n * sizeof(*y));
    be->ops->rope(be, y, rope_table, positions, ROWS, &heads, false);
    check_values("rope", rope_twin, x, n, y, n);
    memcpy(dx, r, n * sizeof(*dx));
    be->ops->rope(be, dx, rope_table, positions, ROWS, &heads, true);
    check_gradient("rope gradient", rope_twin, x, n, r, n, dx);
    free(x);
    free(y);
    free(r);
    free(dx);
}

/* --- attention --------------------------------------------------------------
 */

static void attend(const double *qkv, size_t begin, size_t row, size_t head,
                   double *out)
{
    size_t group = head / (HEADS / KV);
    const double *q = qkv + row * QKV + head * DIM;
    size_t low = heads.window && row + 1 > begin + heads.window
                     ? row + 1 - heads.window
                     : begin;
    double weights[TOKENS];
    double total = 0;

    memset(out, 0, DIM * sizeof(*out));
    for (size_t j = low; j <= row; j++) {
        const double *k = qkv + j * QKV + (HEADS + group) * DIM;
        double score = 0;
        for (size_t i = 0; i < DIM; i++) {
            score += q[i] * k[i] / sqrt(DIM);
        }
        weights[j] = exp(score);
        total += weights[j];
    }
    for (size_t j = low; j <= row; j++) {
        const double *v = qkv + j * QKV + (HEADS + KV + group) * DIM;
        for (size_t i = 0; i < DIM; i++) {
            out[i] += weights[j] / total * v[i];
        }
    }
}

static void attention_twin(const double *x, double *y)
{
    for (size_t s = 0; s < SEQUENCES; s++) {
        for (size_t row = (size_t)offsets[s]; row < (size_t)offsets[s + 1];
             row++) {
            for (size_t h = 0; h < HEADS; h++) {
                attend(x, (size_t)offsets[s], row, h,
                       y + (row * HEADS + h) * DIM);
            }
        }
    }
}

/* None; itself alone; across tiles of 64; a tile; all of the longest. */
static const size_t windows[] = {0, 1, 7, 64, 69, 70, 1000};

static void check_attention(void)
{
    size_t n = TOKENS * QKV;
    size_t m = TOKENS * HEADS * DIM;
    float *x = random_floats(n);
    float *y = floats(m);
    float *r = random_floats(m);
    float *dx = floats(n);
    float *lse = floats(TOKENS * HEADS);

    be->ops->attention_forward(be, y, lse, x, &pack, &heads);
    check_values("attention", attention_twin, x, n, y, m);
    be->ops->attention_backward(be, dx, r, y, x, lse, &pack, &heads);
    check_gradient("attention gradient", attention_twin, x, n, r, m, dx);
    free(x);
    free(y);
    free(r);
    free(dx);
    free(lse);
}

static void test_attention(void)
{
    for (size_t i = 0; i < FM_COUNT_OF(windows); i++) {
        heads.window = windows[i];
        check_attention();
    }
    heads.window = 0;
}

/* Against pages that lie anywhere, a sequence in pieces of any length: what
 * the packed forward gives, and the same bits for any pieces. */
static void check_pages(size_t window)
{
    enum { STRIDE = 5, PAGES = SEQUENCES * STRIDE };
    size_t width = HEADS * DIM;
    size_t page = FM_ENGINE_PAGE_TOKENS * KV * DIM;
    float *x = random_floats(TOKENS * QKV);
    float *y = floats(TOKENS * width);
    float *out = floats(TOKENS * width);
    float *first = floats(TOKENS * width);
    float *lse = floats(TOKENS * HEADS);
    fm_engine_cache_t cache = {.keys = floats(PAGES * page),
                               .values = floats(PAGES * page)};
    int32_t tables[PAGES];
    fm_engine_heads_t h = heads;

    be->ops->attention_forward(be, y, lse, x, &pack, &heads);
    h.window = window;
    for (size_t i = 0; i < PAGES; i++) {
        tables[i] = (int32_t)((7 * i + 3) % PAGES); /* 7 and PAGES: coprime */
    }
    for (int32_t piece = 1; piece < 40; piece += 3) {
        for (size_t i = 0; i < PAGES * page; i++) { /* never read */
            cache.keys[i] = cache.values[i] = NAN;
        }
        for (int32_t s = 0; s < SEQUENCES; s++) {
            int32_t end = offsets[s + 1];
            for (int32_t row = offsets[s]; row < end; row += piece) {
                int32_t ids[2][40];
                int32_t count = end - row < piece ? end - row : piece;
                for (int32_t i = 0; i < count; i++) {
                    ids[0][i] = s;
                    ids[1][i] = row - offsets[s] + i;
                }
                const fm_engine_paging_t paging = {ids[0], ids[1], tables,
                                                   STRIDE};
                const float *qkv = x + (size_t)row * QKV;
                be->ops->cache_store(be, &cache, qkv, &paging, (size_t)count,
                                     &h);
                be->ops->attention_pages(be, out + (size_t)row * width, qkv,
                                         &cache, &paging, (size_t)count, &h);
            }
        }
        if (piece == 1) {
            memcpy(first, out, TOKENS * width * sizeof(*out));
        }
        CU_ASSERT(memcmp(first, out, TOKENS * width * sizeof(*out)) == 0);
    }
    for (size_t i = 0; window == 0 && i < TOKENS * width; i++) {
        check_close("pages", (double)out[i], (double)y[i], 1);
    }
    for (int32_t s = 0; window > 0 && s < SEQUENCES; s++) {
        for (int32_t row = offsets[s]; row < offsets[s + 1]; row++) {
            int32_t begin = row + 1 - (int32_t)window;
            begin = begin < offsets[s] ? offsets[s] : begin;
            for (size_t head = 0; head < HEADS; head++) {
                double want[DIM];
                double wide[TOKENS * QKV];
                for (size_t i = 0; i < TOKENS * QKV; i++) {
                    wide[i] = (double)x[i];
                }
                attend(wide, (size_t)begin, (size_t)row, head, want);
                for (size_t i = 0; i < DIM; i++) {
                    size_t at = ((size_t)row * HEADS + head) * DIM + i;
                    check_close("window", (double)out[at], want[i], 1);
                }
            }
        }
    }
    free(x);
    free(y);
    free(out);
    free(first);
    free(lse);
    free(cache.keys);
    free(cache.values);
}

static void test_attention_pages(void)
{
    check_pages(0);
    check_pages(1);
    check_pages(5);
    check_pages(20);
}

/* --- adapters by row -------------------------------------------------------
 */

static void test_lora_rows(void)
{
    enum { MANY = 19, ADAPTERS = 4, RANK = 24, LDO = OUT + 3 };
    float *x = random_floats(MANY * WIDTH);
    float *a = random_floats(ADAPTERS * RANK * WIDTH);
    float *b = random_floats(ADAPTERS * RANK * OUT);
    float *start = random_floats(MANY * LDO);
    float *out = floats(MANY * LDO);
    float *one = floats(LDO);
    int32_t which[MANY];
    fm_engine_lora_t loras[ADAPTERS];

    for (size_t i = 0; i < ADAPTERS; i++) {
        loras[i] = (fm_engine_lora_t){a + i * RANK * WIDTH, b + i * RANK * OUT,
                                      1 + 7 * i, 0.5F + (float)i};
    }
    loras[2].a = NULL;
    for (size_t r = 0; r < MANY; r++) {
        which[r] = (int32_t)(r * r / 3 % (ADAPTERS + 1)) - 1;
    }
    memcpy(out, start, MANY * LDO * sizeof(*out));
    be->ops->lora_rows(be, out, LDO, x, MANY, WIDTH, OUT, loras, which);
    for (size_t r = 0; r < MANY; r++) {
        const fm_engine_lora_t *l = which[r] < 0 ? NULL : &loras[which[r]];
        memcpy(one, start + r * LDO, LDO * sizeof(*one));
        be->ops->lora_rows(be, one, LDO, x + r * WIDTH, 1, WIDTH, OUT, loras,
                           &which[r]);
        CU_ASSERT(memcmp(one, out + r * LDO, LDO * sizeof(*one)) == 0);
        for (size_t o = 0; o < LDO; o++) {
            double want = (double)start[r * LDO + o];
            for (size_t j = 0; o < OUT && l && l->a && j < l->rank; j++) {
                double low = 0;
                for (size_t i = 0; i < WIDTH; i++) {
                    low +=
                        (double)x[r * WIDTH + i] * (double)l->a[j * WIDTH + i];
                }
                want += (double)l->scale * low * (double)l->b[o * l->rank + j];
            }
            check_close("lora rows", (double)out[r * LDO + o], want, 100);
        }
    }
    free(x);
    free(a);
    free(b);
    free(start);
    free(out);
    free(one);
}

/* --- gated activation -------------------------------------------------------
 */

static void swiglu_twin(const double *x, double *y)
{
    for (size_t r = 0; r < ROWS; r++) {
        for (size_t i = 0; i < WIDTH; i++) {
            double gate = x[r * 2 * WIDTH + i];
            double up = x[r * 2 * WIDTH + WIDTH + i];
            y[r * WIDTH + i] = gate / (1 + exp(-gate)) * up;
        }
    }
}

static void test_swiglu(void)
{
    size_t m = ROWS * WIDTH;
    float *x = random_floats(2 * m);
    float *y = floats(m);
    float *r = random_floats(m);
    float *dx = floats(2 * m);

    x[0] = 200; /* beyond the range of exp in float32, both ways */
    x[1] = -200;
    be->ops->swiglu_forward(be, y, x, ROWS, WIDTH);
    check_values("swiglu", swiglu_twin, x, 2 * m, y, m);
    be->ops->swiglu_backward(be, dx, r, x, ROWS, WIDTH);
    check_gradient("swiglu gradient", swiglu_twin, x, 2 * m, r, m, dx);
    free(x);
    free(y);
    free(r);
    free(dx);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"rmsnorm", test_rmsnorm},
        {"linear", test_linear},
        {"linear rows do not depend on others", test_linear_rows_invariant},
        {"bias", test_bias},
        {"norms of heads", test_head_norm},
        {"rope", test_rope},
        {"attention", test_attention},
        {"attention against pages", test_attention_pages},
        {"adapters by row", test_lora_rows},
        {"swiglu", test_swiglu},
    };

    return twin_main("engine operations", cases, FM_COUNT_OF(cases));
}
