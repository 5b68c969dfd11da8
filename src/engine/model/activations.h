/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file activations.h
 * What pass.c (forward), head.c and backward.c share.  Private to the engine.
 */
#ifndef FM_ENGINE_MODEL_ACTIVATIONS_H
#define FM_ENGINE_MODEL_ACTIVATIONS_H

#include "engine/model/layout.h"
#include "engine/model/pass.h"

/* What one layer keeps for its backward pass; N rows, C hidden, Q the width
 * of qkv, M heads·dim, I intermediate. */
struct fm_engine_layer_kept {
    float *x;         /* [N, C] input */
    float *rstd;      /* [N] of the input norm */
    float *qkv;       /* [N, Q] after rotation */
    float *unit;      /* [N, heads + kv, dim] q, k over their root mean square;
                         NULL without norms of heads, as is the next */
    float *unit_rstd; /* [N, heads + kv] */
    float *lse;       /* [N, heads] */
    float *mixed;     /* [N, M] attention output, before o_proj */
    float *mid;       /* [N, C] after attention */
    float *mid_rstd;
    float *gate_up; /* [N, 2I] */
};

struct fm_engine_pass {
    fm_engine_model_t *model;
    fm_engine_backend_t *be;
    fm_engine_layout_t at;
    fm_engine_heads_t heads;
    fm_engine_rotary_t rotary;
    bool train;
    bool checkpoint; /* layers keep x only; the rest is computed anew */

    const fm_engine_adapter_t *adapter; /* NULL: none */
    float *adapter_grads;               /* device, adapter size; NULL: none */
    bool dropout_on;
    fm_engine_dropout_t dropout;
    float *lora_scratch; /* see lora.c */
    size_t lora_floats;

    float *arena;
    size_t capacity; /* rows the arena holds */
    size_t rows;     /* rows of the last forward(); 0 before it */
    fm_engine_pack_t pack;
    size_t pack_capacity;
    int32_t *offsets;  /* device [pack_capacity + 1] */
    int32_t *ids;      /* device [2, capacity]: tokens, positions */
    int32_t *host_ids; /* host [2, capacity] */

    struct fm_engine_layer_kept *kept; /* [layers + 1]; only x in the last;
                                          layers may share what is not kept */
    float *normed;                     /* [N, C] */
    float *product;                    /* [N, I] */
    float *hidden;                     /* [N, C] after the last norm */
    float *hidden_rstd;                /* [N] */
    float *dhidden;                    /* [N, C]; train only, as all below */
    float *dx;                         /* [N, C] */
    float *dnormed;                    /* [N, C] */
    float *dmixed;                     /* [N, M] */
    float *dqkv;                       /* [N, Q] */
    float *dproduct;                   /* [N, I] */
    float *dgate_up;                   /* [N, 2I] */

    size_t chunk;      /* rows of logits at a time */
    float *logits;     /* device [chunk, vocab] */
    float *picked;     /* device [chunk, C] */
    float *dpicked;    /* device [chunk, C] */
    float *row_floats; /* device [4, chunk]: logp, scales, entropy and its */
    int32_t *row_ids;  /* device [2, chunk]: rows, targets */
};

/* Fill kept[l] from kept[l].x: the layer but for its last product.  The same
 * bits each time. */
void fm_engine_layer_fill(fm_engine_pass_t *pass, size_t l);

#endif
