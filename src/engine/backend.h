/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file backend.h
 * What a device must do for the engine: memory, and one function an
 * operation, over raw row-major float32 arrays.
 *
 * Pointers are device pointers unless said otherwise; only upload() and
 * download() move data to and from the host.  Operations return nothing: the
 * first failure sticks, later operations may do nothing, and sync() reports
 * it.  Arrays of one call do not overlap unless stated.  "=" overwrites the
 * output, "+=" adds to it.
 *
 * Determinism: every operation gives the same bits for the same arguments on
 * the same device class.  Those marked *row-invariant* give a row the same
 * bits whatever the other rows hold and however many there are.
 *
 * Threads: a backend belongs to one thread at a time.
 */
#ifndef FM_ENGINE_BACKEND_H
#define FM_ENGINE_BACKEND_H

#include <flowmesh/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Heads of an attention; a row of qkv is [heads | kv | kv] × head_dim. */
typedef struct fm_engine_heads {
    size_t heads;
    size_t kv_heads; /**< divides heads (grouped queries) */
    size_t head_dim; /**< even */
    size_t window;   /**< last positions a query sees, its own included (Beltagy
                          et al., 2020); 0: all before it */
} fm_engine_heads_t;

/** Sequences laid end to end in the rows: no padding. */
typedef struct fm_engine_pack {
    const int32_t *offsets; /**< device [count + 1]: first row of each */
    size_t count;           /**< sequences */
    size_t longest;         /**< rows of the longest sequence */
} fm_engine_pack_t;

/** Positions in a page of the key-value cache. */
#define FM_ENGINE_PAGE_TOKENS ((size_t)16)

/** The cached keys and values of one layer: pages of kv_heads × head_dim ×
 *  FM_ENGINE_PAGE_TOKENS floats; how they lie in a page is the backend's
 *  business. */
typedef struct fm_engine_cache {
    float *keys;
    float *values;
} fm_engine_cache_t;

/** Where the rows of a call stand in the cache; device pointers. */
typedef struct fm_engine_paging {
    const int32_t *sequences; /**< [rows]: row of the table */
    const int32_t *positions; /**< [rows]; in a sequence they rise by one */
    const int32_t *tables;    /**< [sequences, stride]: page of each
                                   FM_ENGINE_PAGE_TOKENS positions */
    size_t stride;
} fm_engine_paging_t;

/** A low-rank update of a matrix [n, k]: scale · B·A (Hu et al., 2021). */
typedef struct fm_engine_lora {
    const float *a; /**< device [rank, k]; NULL: there is none */
    const float *b; /**< device [n, rank] */
    size_t rank;
    float scale; /**< alpha / rank */
} fm_engine_lora_t;

/** Which elements dropout takes away (see backend function dropout). */
typedef struct fm_engine_mask {
    uint64_t key;
    uint64_t first_row; /**< number of the call's first row */
    float rate;         /**< the share taken away; at least 0, below 1 */
} fm_engine_mask_t;

/** One AdamW update (see backend function adamw). */
typedef struct fm_engine_adamw {
    float learning_rate;
    float beta1;
    float beta2;
    float eps;
    float weight_decay;
    float correction1; /**< 1 − beta1^step */
    float correction2; /**< 1 − beta2^step */
    float grad_scale;  /**< multiplies the gradient first (clipping) */
} fm_engine_adamw_t;

typedef struct fm_engine_backend fm_engine_backend_t;

typedef struct fm_engine_ops {
    const char *name; /**< "cpu", "cuda" */
    void (*destroy)(fm_engine_backend_t *be);

    /** Zeroed memory, aligned to 64 bytes; NULL when there is none left. */
    void *(*alloc)(fm_engine_backend_t *be, size_t bytes);
    void (*release)(fm_engine_backend_t *be,
                    void *block); /**< NULL is ignored */
    void (*upload)(fm_engine_backend_t *be, void *dst, const void *host,
                   size_t bytes);
    /** Waits for the operations before it. */
    void (*download)(fm_engine_backend_t *be, void *host, const void *src,
                     size_t bytes);
    void (*copy)(fm_engine_backend_t *be, void *dst, const void *src,
                 size_t bytes);
    void (*zero)(fm_engine_backend_t *be, void *dst, size_t bytes);
    /** Wait; report and clear the first failure since the last sync(). */
    FM_MUST_USE fm_status_t (*sync)(fm_engine_backend_t *be, fm_error_t *err);

    /** out[rows, width] = table[ids[rows], width].  Row-invariant. */
    void (*gather)(fm_engine_backend_t *be, float *out, const float *table,
                   const int32_t *ids, size_t rows, size_t width);
    /** dtable[ids[rows], width] += dout[rows, width], in row order. */
    void (*scatter_add)(fm_engine_backend_t *be, float *dtable,
                        const float *dout, const int32_t *ids, size_t rows,
                        size_t width);

    /** rstd[rows] = 1/√(mean(x²) + eps); out = x · rstd · weight[width].
     *  Zhang and Sennrich, 2019.  Row-invariant. */
    void (*rmsnorm_forward)(fm_engine_backend_t *be, float *out, float *rstd,
                            const float *x, const float *weight, float eps,
                            size_t rows, size_t width);
    /** dx += …; dweight[width] += …, NULL: not wanted. */
    void (*rmsnorm_backward)(fm_engine_backend_t *be, float *dx, float *dweight,
                             const float *dout, const float *x,
                             const float *weight, const float *rstd,
                             size_t rows, size_t width);

    /** out[rows, n] = (or +=, when @p add) x[rows, k] · weight[n, k]ᵀ. */
    void (*linear_forward)(fm_engine_backend_t *be, float *out, const float *x,
                           const float *weight, size_t rows, size_t k, size_t n,
                           bool add);
    /** The same, row-invariant: for decoding. */
    void (*linear_rows)(fm_engine_backend_t *be, float *out, const float *x,
                        const float *weight, size_t rows, size_t k, size_t n,
                        bool add);
    /** out[rows, n], rows @p ldo floats apart, += scale · (x[rows, k] · aᵀ) ·
     * bᵀ with the matrices of adapter which[row] (device; −1: none) in the host
     *  table @p adapters; an entry without a is none.  Chen et al., 2023
     *  (Punica).  Row-invariant. */
    void (*lora_rows)(fm_engine_backend_t *be, float *out, size_t ldo,
                      const float *x, size_t rows, size_t k, size_t n,
                      const fm_engine_lora_t *adapters, const int32_t *which);
    /** dx[rows, k] = dout[rows, n] · weight[n, k];
     *  dweight[n, k] += doutᵀ · x; either output may be NULL. */
    void (*linear_backward)(fm_engine_backend_t *be, float *dx, float *dweight,
                            const float *dout, const float *x,
                            const float *weight, size_t rows, size_t k,
                            size_t n);

    /** x[rows, n] += bias[n].  Row-invariant. */
    void (*bias_add)(fm_engine_backend_t *be, float *x, const float *bias,
                     size_t rows, size_t n);
    /** dbias[n] += Σ over rows of dout[rows, n], in row order. */
    void (*bias_backward)(fm_engine_backend_t *be, float *dbias,
                          const float *dout, size_t rows, size_t n);

    /** RMS norm of each query and key head by itself, in place in qkv (Henry
     *  et al., 2020); weights [head_dim], one for queries, one for keys.  With
     *  @p unit [rows, heads + kv_heads, head_dim] and @p rstd [rows, heads +
     *  kv_heads], both or neither NULL, these receive x · rstd and rstd.
     *  Row-invariant. */
    void (*head_norm_forward)(fm_engine_backend_t *be, float *qkv, float *unit,
                              float *rstd, const float *q_weight,
                              const float *k_weight, float eps, size_t rows,
                              const fm_engine_heads_t *heads);
    /** dqkv in place, from what forward() gave; dq_weight, dk_weight
     *  [head_dim] +=, both NULL when not wanted. */
    void (*head_norm_backward)(fm_engine_backend_t *be, float *dqkv,
                               float *dq_weight, float *dk_weight,
                               const float *unit, const float *rstd,
                               const float *q_weight, const float *k_weight,
                               size_t rows, const fm_engine_heads_t *heads);
    /** out[row·ldo … + n) += scale · x[rows, k] · Aᵀ · Bᵀ; out points at the
     *  first of the n columns.  scratch[rows, rank] is overwritten. */
    void (*lora_forward)(fm_engine_backend_t *be, float *out, size_t ldo,
                         const float *x, const fm_engine_lora_t *lora,
                         float *scratch, size_t rows, size_t k, size_t n);
    /** dx[rows, k] += scale · dout · B · A; da[rank, k] and db[n, rank] +=
     *  their gradients, NULL: not wanted.  scratch[2, rows, rank]. */
    void (*lora_backward)(fm_engine_backend_t *be, float *dx, float *da,
                          float *db, const float *dout, size_t ldo,
                          const float *x, const fm_engine_lora_t *lora,
                          float *scratch, size_t rows, size_t k, size_t n);
    /** out[rows, width] = (or +=, when @p add) x · m / (1 − rate).  m is 0
     *  where the upper 32 bits of SplitMix64's output at counter (first_row +
     *  row) · width + column + 1 of the stream `key` are below rate · 2³²,
     *  else 1: the same mask on every device, whatever the micro-batch.
     *  Its own gradient, with x and out in each other's place. */
    void (*dropout)(fm_engine_backend_t *be, float *out, const float *x,
                    const fm_engine_mask_t *mask, size_t rows, size_t width,
                    bool add);

    /** Rotate the first heads + kv_heads heads of qkv in place by the angle of
     *  positions[rows]; table [position, 2, head_dim/2] holds cos, sin;
     *  dimension i pairs with i + head_dim/2.  @p back rotates backwards (the
     *  gradient).  Su et al., 2021.  Row-invariant. */
    void (*rope)(fm_engine_backend_t *be, float *qkv, const float *table,
                 const int32_t *positions, size_t rows,
                 const fm_engine_heads_t *heads, bool back);

    /** Causal attention inside each sequence of @p pack and the window of
     *  @p heads: out[rows, heads·dim] = softmax(q kᵀ/√dim) v; lse[rows, heads]
     * = log Σ exp of the scores. */
    void (*attention_forward)(fm_engine_backend_t *be, float *out, float *lse,
                              const float *qkv, const fm_engine_pack_t *pack,
                              const fm_engine_heads_t *heads);
    /** dqkv = …; the probabilities are computed anew from qkv and lse (Dao
     *  et al., 2022), so memory is linear in the rows. */
    void (*attention_backward)(fm_engine_backend_t *be, float *dqkv,
                               const float *dout, const float *out,
                               const float *qkv, const float *lse,
                               const fm_engine_pack_t *pack,
                               const fm_engine_heads_t *heads);
    /** Store k and v of qkv[rows] where @p paging says. */
    void (*cache_store)(fm_engine_backend_t *be, const fm_engine_cache_t *cache,
                        const float *qkv, const fm_engine_paging_t *paging,
                        size_t rows, const fm_engine_heads_t *heads);
    /** out[rows, heads·dim]: the query of each row against positions 0 … its
     *  own of its sequence, or the last `window` of these; what the pages
     *  hold elsewhere has no influence.  Kwon et al., 2023.  Row-invariant. */
    void (*attention_pages)(fm_engine_backend_t *be, float *out,
                            const float *qkv, const fm_engine_cache_t *cache,
                            const fm_engine_paging_t *paging, size_t rows,
                            const fm_engine_heads_t *heads);

    /** out[rows, width] = silu(gate) · up, with gate_up[rows, 2·width] =
     *  [gate | up].  Shazeer, 2020.  Row-invariant. */
    void (*swiglu_forward)(fm_engine_backend_t *be, float *out,
                           const float *gate_up, size_t rows, size_t width);
    void (*swiglu_backward)(fm_engine_backend_t *be, float *dgate_up,
                            const float *dout, const float *gate_up,
                            size_t rows, size_t width);

    /** logp[rows] = log softmax(logits[rows, vocab])[targets[rows]].  With
     *  @p scales[rows], logits becomes scales · d logp / d logits.
     *  Row-invariant. */
    void (*logprob)(fm_engine_backend_t *be, float *logp, float *logits,
                    const int32_t *targets, const float *scales, size_t rows,
                    size_t vocab);

    /** As logprob, with entropy[rows] = −Σ p log p in natural logarithms;
     *  logits becomes scales · d logp / d logits + entropy_scales ·
     *  d entropy / d logits.  Both scales, or neither. */
    void (*logprob_entropy)(fm_engine_backend_t *be, float *logp,
                            float *entropy, float *logits,
                            const int32_t *targets, const float *scales,
                            const float *entropy_scales, size_t rows,
                            size_t vocab);

    /** *sum (host) = Σ x², in float64; waits. */
    void (*sum_squares)(fm_engine_backend_t *be, double *sum, const float *x,
                        size_t count);
    /** Loshchilov and Hutter, 2019: with g = grad · grad_scale,
     *  m = β1 m + (1−β1) g; v = β2 v + (1−β2) g²;
     *  param −= lr (m/c1 / (√(v/c2) + eps) + weight_decay · param). */
    void (*adamw)(fm_engine_backend_t *be, float *param, const float *grad,
                  float *m, float *v, size_t count,
                  const fm_engine_adamw_t *update);
} fm_engine_ops_t;

/** A device in use; implementations embed it as their first member. */
struct fm_engine_backend {
    const fm_engine_ops_t *ops;
};

/** Bytes of host memory that this process may still take, by the machine and
 *  by its control groups; SIZE_MAX when nobody says. */
size_t fm_engine_cpu_memory_left(void);

/**
 * The CPU backend: one thread, OpenBLAS held to one thread for the whole
 * process, so results do not depend on a thread count.
 */
FM_MUST_USE fm_status_t fm_engine_backend_create_cpu(
    fm_engine_backend_t **backend_out, fm_error_t *err);
/** After everything that was allocated from it; returns NULL. */
fm_engine_backend_t *fm_engine_backend_destroy(fm_engine_backend_t *backend);

#endif
