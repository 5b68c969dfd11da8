/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Causal grouped-query attention, a block of queries at a time.
 *
 * For BLOCK queries of one head the scores against all earlier keys fit the
 * second-level cache; keys after the block, or before the window of its first
 * query, are never touched.  The forward
 * pass keeps the log-sum-exp of each row only, and the backward pass computes
 * the probabilities anew from it.
 */
#include <cblas.h>
#include <math.h>
#include <string.h>

#include "engine/cpu/cpu.h"
#include "engine/cpu/vec.h"

enum { BLOCK = 64 };

/* One head of one sequence, and the block of queries at hand. */
typedef struct tile {
    const float *q; /* first row of the sequence; rows are `stride` apart */
    const float *k;
    const float *v;
    size_t stride;
    size_t dim;
    size_t first; /* queries [first, first + rows) of the sequence */
    size_t rows;
    size_t low;  /* keys [low, low + keys): what some query of the block sees */
    size_t keys; /* low + keys = first + rows */
} tile_t;

/* The part of a row of scores that its query sees. */
typedef struct span {
    size_t begin;
    size_t end;
    size_t width; /* of the row; zeros outside the span */
} span_t;

/* First position that the query at @p position sees. */
static size_t window_low(size_t position, size_t window)
{
    return window > 0 && position >= window ? position + 1 - window : 0;
}

static void tile_place(tile_t *t, size_t first, size_t length, size_t window)
{
    size_t left = length - first;

    t->first = first;
    t->rows = left < BLOCK ? left : BLOCK;
    t->low = window_low(first, window);
    t->keys = first + t->rows - t->low;
}

static span_t tile_span(const tile_t *t, size_t row, size_t window)
{
    return (span_t){.begin = window_low(t->first + row, window) - t->low,
                    .end = t->first + row + 1 - t->low,
                    .width = t->keys};
}

static void zero_outside(float *row, span_t span)
{
    memset(row, 0, span.begin * sizeof(float));
    memset(row + span.end, 0, (span.width - span.end) * sizeof(float));
}

static int as_int(size_t value)
{
    return (int)value; /* below 2^31: FM_ENGINE_BATCH_TOKENS, config limits */
}

/* scores[rows, keys] = q kᵀ / √dim */
static void tile_scores(const tile_t *t, float *scores)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, as_int(t->rows),
                as_int(t->keys), as_int(t->dim), 1.0F / sqrtf((float)t->dim),
                t->q + t->first * t->stride, as_int(t->stride),
                t->k + t->low * t->stride, as_int(t->stride), 0.0F, scores,
                as_int(t->keys));
}

/* exp(score − max) in place, zeros outside the span. */
FM_VEC_CLONES
static void softmax_row(float *scores, span_t span, float *sum_out,
                        float *max_out)
{
    float *row = scores + span.begin;
    size_t live = span.end - span.begin;
    vec_t best = vec_set(-INFINITY);
    vec_t sums = {0};
    float max = -INFINITY;

    size_t i = 0;
    for (; i + FM_VEC_LANES <= live; i += FM_VEC_LANES) {
        best = vec_max(best, vec_load(row + i));
    }
    for (size_t lane = 0; lane < FM_VEC_LANES; lane++) {
        max = best[lane] > max ? best[lane] : max;
    }
    for (; i < live; i++) {
        max = row[i] > max ? row[i] : max;
    }
    for (i = 0; i < live; i += FM_VEC_LANES) {
        vec_put(row, i, live, vec_exp(vec_get(row, i, live) - max));
    }
    for (i = 0; i < live; i += FM_VEC_LANES) {
        sums += vec_get(row, i, live);
    }
    zero_outside(scores, span);
    *sum_out = vec_sum(sums);
    *max_out = max;
}

static void tile_forward(const tile_t *t, size_t window, float *out,
                         size_t out_stride, float *lse, size_t lse_stride,
                         float *scores)
{
    float scale[BLOCK] = {0};

    tile_scores(t, scores);
    for (size_t r = 0; r < t->rows; r++) {
        float sum = 0;
        float max = 0;
        softmax_row(scores + r * t->keys, tile_span(t, r, window), &sum, &max);
        lse[(t->first + r) * lse_stride] = max + logf(sum);
        scale[r] = 1.0F / sum;
    }
    float *to = out + t->first * out_stride;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, as_int(t->rows),
                as_int(t->dim), as_int(t->keys), 1.0F, scores, as_int(t->keys),
                t->v + t->low * t->stride, as_int(t->stride), 0.0F, to,
                as_int(out_stride));
    for (size_t r = 0; r < t->rows; r++) {
        for (size_t i = 0; i < t->dim; i++) {
            to[r * out_stride + i] *= scale[r];
        }
    }
}

void fm_engine_cpu_attention_forward(fm_engine_backend_t *be, float *out,
                                     float *lse, const float *qkv,
                                     const fm_engine_pack_t *pack,
                                     const fm_engine_heads_t *heads)
{
    size_t dim = heads->head_dim;
    size_t stride = (heads->heads + 2 * heads->kv_heads) * dim;
    size_t out_stride = heads->heads * dim;
    float *scores = fm_engine_cpu_scratch(be, BLOCK * pack->longest);

    for (size_t s = 0; scores && s < pack->count; s++) {
        size_t begin = (size_t)pack->offsets[s];
        size_t length = (size_t)pack->offsets[s + 1] - begin;
        const float *rows = qkv + begin * stride;
        for (size_t h = 0; h < heads->heads; h++) {
            size_t group = h / (heads->heads / heads->kv_heads);
            tile_t t = {.q = rows + h * dim,
                        .k = rows + (heads->heads + group) * dim,
                        .stride = stride,
                        .dim = dim};
            t.v = t.k + heads->kv_heads * dim;
            for (size_t first = 0; first < length; first += BLOCK) {
                tile_place(&t, first, length, heads->window);
                tile_forward(&t, heads->window,
                             out + begin * out_stride + h * dim, out_stride,
                             lse + begin * heads->heads + h, heads->heads,
                             scores);
            }
        }
    }
}

FM_VEC_CLONES
static float dot(const float *a, const float *b, size_t count)
{
    return vec_dot(a, b, count);
}

/* Scores become probabilities p, dp becomes ds = p·(dp − delta)/√dim. */
FM_VEC_CLONES
static void softmax_backward_row(float *scores, float *dscores, span_t span,
                                 float lse, float delta, float scale)
{
    float *row = scores + span.begin;
    float *drow = dscores + span.begin;
    size_t live = span.end - span.begin;

    for (size_t i = 0; i < live; i += FM_VEC_LANES) {
        vec_t p = vec_exp(vec_get(row, i, live) - lse);
        vec_t ds = p * (vec_get(drow, i, live) - delta) * scale;
        vec_put(row, i, live, p);
        vec_put(drow, i, live, ds);
    }
    zero_outside(scores, span);
    zero_outside(dscores, span);
}

/* The gradients of one head of one sequence. */
typedef struct tile_gradient {
    float *dq; /* strides as in tile_t */
    float *dk;
    float *dv;
    const float *out; /* [length, heads·dim], at this head */
    const float *dout;
    const float *lse;  /* [length, heads], at this head */
    size_t out_stride; /* heads·dim */
    size_t lse_stride; /* heads */
} tile_gradient_t;

static void tile_backward(const tile_t *t, const tile_gradient_t *g,
                          size_t window, float *p, float *dp)
{
    int rows = as_int(t->rows);
    int keys = as_int(t->keys);
    int dim = as_int(t->dim);
    int stride = as_int(t->stride);
    int out_stride = as_int(g->out_stride);
    const float *dout = g->dout + t->first * g->out_stride;
    const float *out = g->out + t->first * g->out_stride;
    size_t low = t->low * t->stride;

    tile_scores(t, p);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, keys, dim, 1.0F,
                dout, out_stride, t->v + low, stride, 0.0F, dp, keys);
    for (size_t r = 0; r < t->rows; r++) {
        float delta =
            dot(dout + r * g->out_stride, out + r * g->out_stride, t->dim);
        softmax_backward_row(p + r * t->keys, dp + r * t->keys,
                             tile_span(t, r, window),
                             g->lse[(t->first + r) * g->lse_stride], delta,
                             1.0F / sqrtf((float)t->dim));
    }
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, keys, dim, rows, 1.0F,
                p, keys, dout, out_stride, 1.0F, g->dv + low, stride);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, dim, keys,
                1.0F, dp, keys, t->k + low, stride, 0.0F,
                g->dq + t->first * t->stride, stride);
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, keys, dim, rows, 1.0F,
                dp, keys, t->q + t->first * t->stride, stride, 1.0F,
                g->dk + low, stride);
}

void fm_engine_cpu_attention_backward(fm_engine_backend_t *be, float *dqkv,
                                      const float *dout, const float *out,
                                      const float *qkv, const float *lse,
                                      const fm_engine_pack_t *pack,
                                      const fm_engine_heads_t *heads)
{
    size_t dim = heads->head_dim;
    size_t stride = (heads->heads + 2 * heads->kv_heads) * dim;
    float *scratch = fm_engine_cpu_scratch(be, 2 * BLOCK * pack->longest);

    memset(dqkv, 0,
           (size_t)pack->offsets[pack->count] * stride * sizeof(float));
    for (size_t s = 0; scratch && s < pack->count; s++) {
        size_t begin = (size_t)pack->offsets[s];
        size_t length = (size_t)pack->offsets[s + 1] - begin;
        size_t at = begin * stride;
        for (size_t h = 0; h < heads->heads; h++) {
            size_t group = h / (heads->heads / heads->kv_heads);
            size_t q_at = at + h * dim;
            size_t k_at = at + (heads->heads + group) * dim;
            size_t v_at = k_at + heads->kv_heads * dim;
            size_t out_at = (begin * heads->heads + h) * dim;
            tile_t t = {.q = qkv + q_at,
                        .k = qkv + k_at,
                        .v = qkv + v_at,
                        .stride = stride,
                        .dim = dim};
            tile_gradient_t g = {.dq = dqkv + q_at,
                                 .dk = dqkv + k_at,
                                 .dv = dqkv + v_at,
                                 .out = out + out_at,
                                 .dout = dout + out_at,
                                 .lse = lse + begin * heads->heads + h,
                                 .out_stride = heads->heads * dim,
                                 .lse_stride = heads->heads};
            for (size_t first = 0; first < length; first += BLOCK) {
                tile_place(&t, first, length, heads->window);
                tile_backward(&t, &g, heads->window, scratch,
                              scratch + BLOCK * pack->longest);
            }
        }
    }
}
