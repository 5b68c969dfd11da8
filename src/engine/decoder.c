/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/decoder.h"

#include <stdlib.h>

#include "base/mem.h"
#include "engine/layout.h"

struct fm_engine_decoder {
    fm_engine_model_t *model;
    fm_engine_backend_t *be;
    fm_engine_layout_t at;
    fm_engine_heads_t heads;
    fm_engine_rotary_t rotary;
    fm_engine_pass_t *pass; /* runs the prompts */
    size_t slots;

    float *cache_block;        /* device: all keys and values */
    fm_engine_cache_t *caches; /* [layers] */
    int32_t *ids;              /* device [3, slots]: token, position, slot */
    float *block;              /* device: everything below; B = slots */
    float *x;                  /* [B, C] the residual stream */
    float *normed;             /* [B, C] */
    float *rstd;               /* [B] */
    float *qkv;                /* [B, Q] */
    float *mixed;              /* [B, C] */
    float *gate_up;            /* [B, 2I] */
    float *product;            /* [B, I] */
    float *logits;             /* [B, vocab] */
};

static fm_status_t caches_create(fm_engine_decoder_t *d, size_t capacity,
                                 fm_error_t *err)
{
    const fm_engine_config_t *c = fm_engine_model_config(d->model);
    size_t layers = c->num_hidden_layers;
    size_t width = d->heads.kv_heads * d->heads.head_dim;
    size_t part = d->slots * capacity * width; /* < 2^12 · 2^20 · 2^16 */
    size_t bytes = 2 * layers * part * sizeof(float);

    d->caches = fm_calloc(layers, sizeof(*d->caches));
    d->cache_block =
        part <= SIZE_MAX / 8 / layers ? d->be->ops->alloc(d->be, bytes) : NULL;
    if (!d->caches || !d->cache_block) {
        return fm_error_set(err, FM_ERR_NO_MEMORY,
                            "no memory for the key-value cache of %zu slots x "
                            "%zu tokens; lower max_batch or max_new_tokens",
                            d->slots, capacity);
    }
    for (size_t l = 0; l < layers; l++) {
        d->caches[l] =
            (fm_engine_cache_t){.keys = d->cache_block + 2 * l * part,
                                .values = d->cache_block + (2 * l + 1) * part,
                                .capacity = capacity};
    }
    return FM_OK;
}

static fm_status_t rows_create(fm_engine_decoder_t *d, fm_error_t *err)
{
    const fm_engine_config_t *c = fm_engine_model_config(d->model);
    const struct {
        float **part;
        size_t width;
    } parts[] = {
        {&d->x, c->hidden_size},
        {&d->normed, c->hidden_size},
        {&d->rstd, 1},
        {&d->qkv, fm_engine_qkv_width(c)},
        {&d->mixed, fm_engine_mixed_width(c)},
        {&d->gate_up, 2 * c->intermediate_size},
        {&d->product, c->intermediate_size},
        {&d->logits, c->vocab_size},
    };
    size_t width = 0;

    for (size_t i = 0; i < FM_COUNT_OF(parts); i++) {
        width += parts[i].width;
    }
    d->block = d->be->ops->alloc(d->be, d->slots * width * sizeof(float));
    d->ids = d->be->ops->alloc(d->be, 3 * d->slots * sizeof(int32_t));
    if (!d->block || !d->ids) {
        return fm_no_memory(err);
    }
    float *at = d->block;
    for (size_t i = 0; i < FM_COUNT_OF(parts); i++) {
        *parts[i].part = at;
        at += d->slots * parts[i].width;
    }
    return FM_OK;
}

fm_status_t fm_engine_decoder_create(fm_engine_model_t *model, size_t slots,
                                     size_t capacity,
                                     fm_engine_decoder_t **decoder_out,
                                     fm_error_t *err)
{
    fm_engine_decoder_t *d = fm_calloc(1, sizeof(*d));
    fm_status_t rc = FM_OK;

    if (!d) {
        return fm_no_memory(err);
    }
    d->model = model;
    d->be = fm_engine_model_backend(model);
    d->at = fm_engine_layout(fm_engine_model_config(model));
    d->heads = fm_engine_config_heads(fm_engine_model_config(model));
    d->slots = slots;
    if ((rc = caches_create(d, capacity, err)) < 0 ||
        (rc = rows_create(d, err)) < 0 ||
        (rc = fm_engine_pass_create(model, false, &d->pass, err)) < 0 ||
        (rc = fm_engine_rotary_reach(&d->rotary, d->be,
                                     fm_engine_model_config(model), capacity,
                                     err)) < 0) {
        fm_engine_decoder_destroy(d);
        return rc;
    }
    *decoder_out = d;
    return FM_OK;
}

fm_engine_decoder_t *fm_engine_decoder_destroy(fm_engine_decoder_t *decoder)
{
    if (decoder) {
        const fm_engine_ops_t *ops = decoder->be->ops;
        fm_engine_pass_destroy(decoder->pass);
        ops->release(decoder->be, decoder->cache_block);
        ops->release(decoder->be, decoder->block);
        ops->release(decoder->be, decoder->ids);
        ops->release(decoder->be, decoder->rotary.table);
        free(decoder->caches);
        free(decoder);
    }
    return NULL;
}

fm_status_t fm_engine_decoder_prefill(fm_engine_decoder_t *decoder, size_t slot,
                                      const int32_t *tokens, size_t count,
                                      float *logits_out, fm_error_t *err)
{
    const int32_t offsets[2] = {0, (int32_t)count};
    const int32_t slots[1] = {(int32_t)slot};
    const int32_t last[1] = {(int32_t)count - 1};
    const fm_engine_batch_t batch = {
        .tokens = tokens, .offsets = offsets, .count = 1};
    fm_status_t rc = fm_engine_pass_forward(decoder->pass, &batch,
                                            decoder->caches, slots, err);

    return rc < 0
               ? rc
               : fm_engine_pass_logits(decoder->pass, last, 1, logits_out, err);
}

/* out[rows, n] = (or +=) a projection: weight and bias of a layer's @p w. */
static void project(fm_engine_decoder_t *d, float *out, const float *x,
                    const float *w, size_t weight, size_t bias, size_t rows,
                    size_t k, size_t n, bool add)
{
    d->be->ops->linear_rows(d->be, out, x, w + weight, rows, k, n, add);
    if (bias) {
        d->be->ops->bias_add(d->be, out, w + bias, rows, n);
    }
}

static void attention_step(fm_engine_decoder_t *d, size_t l, const float *w,
                           size_t rows)
{
    const fm_engine_config_t *c = fm_engine_model_config(d->model);
    const fm_engine_ops_t *ops = d->be->ops;
    fm_engine_heads_t heads = fm_engine_layer_heads(c, l);
    const int32_t *positions = d->ids + rows;
    const int32_t *slots = d->ids + 2 * rows;
    float eps = (float)c->rms_norm_eps;
    size_t hidden = c->hidden_size;

    ops->rmsnorm_forward(d->be, d->normed, d->rstd, d->x, w + d->at.input_norm,
                         eps, rows, hidden);
    project(d, d->qkv, d->normed, w, d->at.qkv, d->at.qkv_bias, rows, hidden,
            fm_engine_qkv_width(c), false);
    if (d->at.q_norm) {
        ops->head_norm_forward(d->be, d->qkv, NULL, NULL, w + d->at.q_norm,
                               w + d->at.k_norm, eps, rows, &heads);
    }
    ops->rope(d->be, d->qkv, d->rotary.table, positions, rows, &heads, false);
    ops->cache_store(d->be, &d->caches[l], d->qkv, slots, positions, rows,
                     &heads);
    ops->attention_decode(d->be, d->mixed, d->qkv, &d->caches[l], slots,
                          positions, rows, &heads);
    project(d, d->x, d->mixed, w, d->at.o, d->at.o_bias, rows,
            fm_engine_mixed_width(c), hidden, true);
}

static void mlp_step(fm_engine_decoder_t *d, const float *w, size_t rows)
{
    const fm_engine_config_t *c = fm_engine_model_config(d->model);
    const fm_engine_ops_t *ops = d->be->ops;
    size_t hidden = c->hidden_size;
    size_t width = c->intermediate_size;

    ops->rmsnorm_forward(d->be, d->normed, d->rstd, d->x, w + d->at.post_norm,
                         (float)c->rms_norm_eps, rows, hidden);
    project(d, d->gate_up, d->normed, w, d->at.gate_up, d->at.gate_up_bias,
            rows, hidden, 2 * width, false);
    ops->swiglu_forward(d->be, d->product, d->gate_up, rows, width);
    project(d, d->x, d->product, w, d->at.down, d->at.down_bias, rows, width,
            hidden, true);
}

static void layer_step(fm_engine_decoder_t *d, size_t l, size_t rows)
{
    const float *w =
        fm_engine_model_data(d->model) + d->at.first_layer + l * d->at.layer;

    attention_step(d, l, w, rows);
    mlp_step(d, w, rows);
}

fm_status_t fm_engine_decoder_step(fm_engine_decoder_t *decoder,
                                   const int32_t *inputs, size_t rows,
                                   float *logits_out, fm_error_t *err)
{
    fm_engine_decoder_t *d = decoder;
    const fm_engine_config_t *c = fm_engine_model_config(d->model);
    const float *w = fm_engine_model_data(d->model);
    const fm_engine_ops_t *ops = d->be->ops;

    ops->upload(d->be, d->ids, inputs, 3 * rows * sizeof(*inputs));
    ops->gather(d->be, d->x, w + d->at.embedding, d->ids, rows, c->hidden_size);
    for (size_t l = 0; l < c->num_hidden_layers; l++) {
        layer_step(d, l, rows);
    }
    ops->rmsnorm_forward(d->be, d->normed, d->rstd, d->x, w + d->at.norm,
                         (float)c->rms_norm_eps, rows, c->hidden_size);
    ops->linear_rows(d->be, d->logits, d->normed, w + d->at.head, rows,
                     c->hidden_size, c->vocab_size, false);
    ops->download(d->be, logits_out, d->logits,
                  rows * c->vocab_size * sizeof(float));
    return ops->sync(d->be, err);
}
