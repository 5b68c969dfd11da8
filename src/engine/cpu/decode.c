/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The paged key-value cache, and attention of single queries against it.
 *
 * A page holds 16 positions of one layer: keys as [kv, dim, 16], so that one
 * vector has the same dimension of 16 keys and a score needs no sum across
 * lanes; values as [kv, 16, dim].  Every score sums over the dimensions in
 * rising order, every output over the positions likewise in four sums by
 * position % 4, each in a lane of its own: a query's result follows from its
 * position and what it sees, not from how queries are tiled.
 */
#include <math.h>
#include <string.h>

#include "engine/cpu/cpu.h"
#include "engine/cpu/vec.h"

enum {
    PAGE = FM_ENGINE_PAGE_TOKENS,
    QUERIES = 4, /* of a tile: share what they read of keys and values */
    PAGES = 2,   /* scored at once: hides the latency of the sums */
    MIX = 16     /* sums of values at once */
};
_Static_assert(FM_ENGINE_PAGE_TOKENS == FM_VEC_LANES,
               "a vector holds the keys of a page");

void fm_engine_cpu_cache_store(fm_engine_backend_t *be,
                               const fm_engine_cache_t *cache, const float *qkv,
                               const fm_engine_paging_t *paging, size_t rows,
                               const fm_engine_heads_t *heads)
{
    size_t dim = heads->head_dim;
    size_t width = heads->kv_heads * dim;
    size_t stride = heads->heads * dim + 2 * width;

    (void)be;
    for (size_t r = 0; r < rows; r++) {
        size_t position = (size_t)paging->positions[r];
        size_t page =
            (size_t)
                paging->tables[(size_t)paging->sequences[r] * paging->stride +
                               position / PAGE];
        size_t lane = position % PAGE;
        const float *k = qkv + r * stride + heads->heads * dim;
        float *keys = cache->keys + page * PAGE * width + lane;
        float *values = cache->values + page * PAGE * width + lane * dim;

        for (size_t i = 0; i < width; i++) {
            keys[i * PAGE] = k[i];
        }
        for (size_t g = 0; g < heads->kv_heads; g++) {
            memcpy(values + g * PAGE * dim, k + width + g * dim,
                   dim * sizeof(float));
        }
    }
}

/* Queries of one sequence and one key-value head. */
typedef struct tile {
    const float *q[QUERIES];
    float *out[QUERIES];
    size_t first[QUERIES]; /* positions it sees: [first, end) */
    size_t end[QUERIES];
    size_t count;      /* queries */
    const float *keys; /* of this head in page 0 */
    const float *values;
    const int32_t *table; /* page of each 16 positions */
    size_t page_floats;
    size_t dim;
    size_t begin;  /* of the positions that any of them sees, */
    size_t finish; /* whole pages */
    float *scores; /* [QUERIES, finish - begin] */
} tile_t;

FM_VEC_INLINE void score(const tile_t *t, size_t at, size_t query,
                         size_t queries, size_t pages)
{
    size_t width = t->finish - t->begin;
    vec_t sums[QUERIES][QUERIES] = {{{0}}};
    const float *keys[QUERIES];

    for (size_t p = 0; p < pages; p++) {
        keys[p] = t->keys + (size_t)t->table[at / PAGE + p] * t->page_floats;
    }
    for (size_t i = 0; i < t->dim; i++) {
        vec_t k[QUERIES];
        for (size_t p = 0; p < pages; p++) {
            k[p] = vec_load(keys[p] + i * PAGE);
        }
        for (size_t q = 0; q < queries; q++) {
            for (size_t p = 0; p < pages; p++) {
                sums[q][p] += k[p] * t->q[query + q][i];
            }
        }
    }
    for (size_t q = 0; q < queries; q++) {
        for (size_t p = 0; p < pages; p++) {
            vec_store(t->scores + (query + q) * width + at - t->begin +
                          p * PAGE,
                      sums[q][p]);
        }
    }
}

FM_VEC_INLINE void tile_scores(const tile_t *t)
{
    size_t at = t->begin;

    if (t->count == QUERIES) {
        for (; at + PAGES * PAGE <= t->finish; at += PAGES * PAGE) {
            score(t, at, 0, QUERIES, PAGES);
        }
        for (; at < t->finish; at += PAGE) {
            score(t, at, 0, QUERIES, 1);
        }
        return;
    }
    for (size_t q = 0; q < t->count; q++) {
        for (at = t->begin; at + 4 * PAGE <= t->finish; at += 4 * PAGE) {
            score(t, at, q, 1, 4);
        }
        for (; at < t->finish; at += PAGE) {
            score(t, at, q, 1, 1);
        }
    }
}

/* Scores to weights that sum to one; exact zeros where nothing is seen,
 * whatever the page holds there. */
FM_VEC_INLINE void tile_softmax(const tile_t *t, size_t query)
{
    const vec_bits_t lanes = {0, 1, 2,  3,  4,  5,  6,  7,
                              8, 9, 10, 11, 12, 13, 14, 15};
    size_t width = t->finish - t->begin;
    float *row = t->scores + query * width;
    uint32_t low = (uint32_t)(t->first[query] - t->begin);
    uint32_t high = (uint32_t)(t->end[query] - t->begin);
    float scale = 1.0F / sqrtf((float)t->dim);
    vec_t best = vec_set(-INFINITY);
    vec_t sums = {0};
    float max = -INFINITY;

    for (size_t j = 0; j < width; j += FM_VEC_LANES) {
        vec_bits_t at = lanes + (uint32_t)j;
        vec_bits_t seen = (vec_bits_t)(at >= low) & (vec_bits_t)(at < high);
        vec_t s =
            vec_select(seen, vec_load(row + j) * scale, vec_set(-INFINITY));
        vec_store(row + j, s);
        best = vec_max(best, s);
    }
    for (size_t lane = 0; lane < FM_VEC_LANES; lane++) {
        max = best[lane] > max || best[lane] != best[lane] ? best[lane] : max;
    }
    for (size_t j = 0; j < width; j += FM_VEC_LANES) {
        vec_bits_t at = lanes + (uint32_t)j;
        vec_bits_t seen = (vec_bits_t)(at >= low) & (vec_bits_t)(at < high);
        vec_t e =
            vec_select(seen, vec_exp(vec_load(row + j) - max), (vec_t){0});
        vec_store(row + j, e);
        sums += e;
    }
    float inverse = 1.0F / vec_sum(sums);
    for (size_t j = 0; j < width; j += FM_VEC_LANES) {
        vec_store(row + j, vec_load(row + j) * inverse);
    }
}

/* sums[position % 4] += weight · value for positions [low, high) of a page. */
FM_VEC_INLINE void mix_page(const tile_t *t, vec_t sums[MIX],
                            const float *value, size_t at, size_t low,
                            size_t high, size_t vecs, size_t last, size_t query,
                            size_t queries)
{
    size_t width = t->finish - t->begin;
    const float *weights = t->scores + query * width + at - t->begin;

    for (size_t j = low / 4 * 4; j < high; j += 4) {
        for (size_t u = 0; u < 4; u++) {
            if (j + u < low || j + u >= high) {
                continue;
            }
            for (size_t n = 0; n < vecs; n++) {
                const float *from = value + (j + u) * t->dim + n * FM_VEC_LANES;
                vec_t v = last == FM_VEC_LANES ? vec_load(from)
                                               : vec_load_part(from, last);
                for (size_t q = 0; q < queries; q++) {
                    sums[(q * vecs + n) * 4 + u] +=
                        v * weights[q * width + j + u];
                }
            }
        }
    }
}

/* Dimensions [i, i + 16·vecs) of the outputs; @p last of the only vector when
 * it is a part.  Four sums in turns hide the latency of each. */
FM_VEC_INLINE void mix(const tile_t *t, size_t i, size_t vecs, size_t last,
                       size_t query, size_t queries)
{
    vec_t sums[MIX] = {{0}};
    size_t first = t->first[query];
    size_t end = t->end[query + queries - 1];

    for (size_t at = first / PAGE * PAGE; at < end; at += PAGE) {
        const float *value =
            t->values + (size_t)t->table[at / PAGE] * t->page_floats + i;
        if (first <= at && at + PAGE <= end) {
            mix_page(t, sums, value, at, 0, PAGE, vecs, last, query, queries);
        } else {
            mix_page(t, sums, value, at, first > at ? first - at : 0,
                     end - at < PAGE ? end - at : PAGE, vecs, last, query,
                     queries);
        }
    }
    for (size_t q = 0; q < queries; q++) {
        for (size_t n = 0; n < vecs; n++) {
            const vec_t *four = sums + (q * vecs + n) * 4;
            vec_put(t->out[query + q] + i + n * FM_VEC_LANES, 0, last,
                    (four[0] + four[1]) + (four[2] + four[3]));
        }
    }
}

/* @p vecs vectors at a time, then what is left. */
FM_VEC_INLINE void tile_mix(const tile_t *t, size_t query, size_t queries,
                            size_t vecs)
{
    size_t i = 0;

    for (; i + vecs * FM_VEC_LANES <= t->dim; i += vecs * FM_VEC_LANES) {
        mix(t, i, vecs, FM_VEC_LANES, query, queries);
    }
    for (; i + FM_VEC_LANES <= t->dim; i += FM_VEC_LANES) {
        mix(t, i, 1, FM_VEC_LANES, query, queries);
    }
    if (i < t->dim) {
        mix(t, i, 1, t->dim - i, query, queries);
    }
}

FM_VEC_CLONES
static void tile_run(const tile_t *t)
{
    tile_scores(t);
    for (size_t q = 0; q < t->count; q++) {
        tile_softmax(t, q);
    }
    if (t->count == QUERIES) {
        tile_mix(t, 0, QUERIES, 1);
        return;
    }
    for (size_t q = 0; q < t->count; q++) {
        tile_mix(t, q, 1, 2);
    }
}

/* Queries r, h of rows [row, row + rows) of one sequence, whose positions
 * rise, against key-value head @p group. */
static void group_run(float *out, const float *qkv, tile_t t,
                      const int32_t *positions, size_t row, size_t rows,
                      size_t group, const fm_engine_heads_t *heads)
{
    size_t per_group = heads->heads / heads->kv_heads;
    size_t stride = (heads->heads + 2 * heads->kv_heads) * heads->head_dim;
    size_t queries = rows * per_group;

    for (size_t at = 0; at < queries; at += t.count) {
        t.count = queries - at < QUERIES ? queries - at : QUERIES;
        for (size_t q = 0; q < t.count; q++) {
            size_t r = row + (at + q) / per_group;
            size_t h = group * per_group + (at + q) % per_group;
            size_t seen = (size_t)positions[r] + 1;
            t.q[q] = qkv + r * stride + h * heads->head_dim;
            t.out[q] = out + (r * heads->heads + h) * heads->head_dim;
            t.end[q] = seen;
            t.first[q] = heads->window > 0 && seen > heads->window
                             ? seen - heads->window
                             : 0;
        }
        t.begin = t.first[0] / PAGE * PAGE;
        t.finish = (t.end[t.count - 1] + PAGE - 1) / PAGE * PAGE;
        tile_run(&t);
    }
}

void fm_engine_cpu_attention_pages(fm_engine_backend_t *be, float *out,
                                   const float *qkv,
                                   const fm_engine_cache_t *cache,
                                   const fm_engine_paging_t *paging,
                                   size_t rows, const fm_engine_heads_t *heads)
{
    size_t dim = heads->head_dim;
    float *scores = fm_engine_cpu_scratch(be, QUERIES * paging->stride * PAGE);
    size_t run = 0;

    for (size_t r = 0; scores && r < rows; r += run) {
        int32_t sequence = paging->sequences[r];
        for (run = 1; r + run < rows && paging->sequences[r + run] == sequence;
             run++) {
        }
        for (size_t g = 0; g < heads->kv_heads; g++) {
            const tile_t t = {.keys = cache->keys + g * PAGE * dim,
                              .values = cache->values + g * PAGE * dim,
                              .table = paging->tables +
                                       (size_t)sequence * paging->stride,
                              .page_floats = PAGE * heads->kv_heads * dim,
                              .dim = dim,
                              .scores = scores};
            group_run(out, qkv, t, paging->positions, r, run, g, heads);
        }
    }
}
