/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/serve/decoder.h"

#include <stdlib.h>

#include "base/mem.h"
#include "engine/model/lora.h"

struct fm_engine_decoder {
    fm_engine_model_t *model;
    fm_engine_backend_t *be;
    fm_engine_layout_t at;
    fm_engine_heads_t heads;
    fm_engine_rotary_t rotary;
    fm_engine_decoder_options_t options;

    float *cache_block;        /* device: all keys and values */
    fm_engine_cache_t *caches; /* [layers] */
    int32_t *ids;              /* device [5, rows]: tokens, positions,
                                  sequences, adapters, wanted */
    int32_t *tables;           /* device [sequences, stride] */
    float *block;              /* device: everything below; R = rows */
    float *x;                  /* [R, C] the residual stream */
    float *normed;             /* [R, C] */
    float *rstd;               /* [R] */
    float *qkv;                /* [R, Q] */
    float *mixed;              /* [R, heads·dim] */
    float *gate_up;            /* [R, 2I] */
    float *product;            /* [R, I] */
    float *logits;             /* device [sequences, vocab] */

    const fm_engine_step_t *step;
    fm_engine_lora_t *loras; /* [lora_capacity]: of one target */
    size_t lora_capacity;
};

size_t fm_engine_decoder_page_bytes(const fm_engine_config_t *config)
{
    fm_engine_heads_t heads = fm_engine_config_heads(config);

    return 2 * config->num_hidden_layers * heads.kv_heads * heads.head_dim *
           FM_ENGINE_PAGE_TOKENS * sizeof(float);
}

static fm_status_t caches_create(fm_engine_decoder_t *d, fm_error_t *err)
{
    const fm_engine_config_t *c = fm_engine_model_config(d->model);
    size_t layers = c->num_hidden_layers;
    size_t bytes = fm_engine_decoder_page_bytes(c);
    size_t part = d->options.pages * (bytes / sizeof(float) / 2 / layers);

    d->caches = fm_calloc(layers, sizeof(*d->caches));
    d->cache_block = d->options.pages <= SIZE_MAX / 2 / bytes
                         ? d->be->ops->alloc(d->be, d->options.pages * bytes)
                         : NULL;
    if (!d->caches || !d->cache_block) {
        return fm_error_set(err, FM_ERR_NO_MEMORY,
                            "no memory for a key-value cache of %zu pages of "
                            "%zu bytes; lower kv_bytes",
                            d->options.pages, bytes);
    }
    for (size_t l = 0; l < layers; l++) {
        d->caches[l] =
            (fm_engine_cache_t){.keys = d->cache_block + 2 * l * part,
                                .values = d->cache_block + (2 * l + 1) * part};
    }
    return FM_OK;
}

static fm_status_t rows_create(fm_engine_decoder_t *d, fm_error_t *err)
{
    const fm_engine_config_t *c = fm_engine_model_config(d->model);
    const fm_engine_ops_t *ops = d->be->ops;
    size_t rows = d->options.rows;
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
    };
    size_t width = 0;

    for (size_t i = 0; i < FM_COUNT_OF(parts); i++) {
        width += parts[i].width;
    }
    d->block = ops->alloc(d->be, rows * width * sizeof(float));
    d->ids = ops->alloc(d->be, 5 * rows * sizeof(int32_t));
    d->tables = ops->alloc(d->be, d->options.sequences * d->options.stride *
                                      sizeof(int32_t));
    d->logits =
        ops->alloc(d->be, d->options.sequences * c->vocab_size * sizeof(float));
    if (!d->block || !d->ids || !d->tables || !d->logits) {
        return fm_no_memory(err);
    }
    float *at = d->block;
    for (size_t i = 0; i < FM_COUNT_OF(parts); i++) {
        *parts[i].part = at;
        at += rows * parts[i].width;
    }
    return FM_OK;
}

fm_status_t fm_engine_decoder_create(fm_engine_model_t *model,
                                     const fm_engine_decoder_options_t *options,
                                     fm_engine_decoder_t **decoder_out,
                                     fm_error_t *err)
{
    const fm_engine_config_t *config = fm_engine_model_config(model);
    fm_engine_decoder_t *d = fm_calloc(1, sizeof(*d));
    fm_status_t rc = FM_OK;

    if (!d) {
        return fm_no_memory(err);
    }
    d->model = model;
    d->be = fm_engine_model_backend(model);
    d->at = fm_engine_layout(config);
    d->heads = fm_engine_config_heads(config);
    d->options = *options;
    if ((rc = caches_create(d, err)) < 0 || (rc = rows_create(d, err)) < 0) {
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
        void *blocks[] = {decoder->cache_block, decoder->block,
                          decoder->ids,         decoder->tables,
                          decoder->logits,      decoder->rotary.table};
        for (size_t i = 0; i < FM_COUNT_OF(blocks); i++) {
            ops->release(decoder->be, blocks[i]);
        }
        free(decoder->caches);
        free(decoder->loras);
        free(decoder);
    }
    return NULL;
}

/* What the adapters of the step add to a product. */
static void adapters_add(fm_engine_decoder_t *d, size_t layer,
                         fm_engine_matrix_t matrix, float *out, size_t ldo,
                         const float *x, size_t k)
{
    fm_engine_lora_part_t parts[FM_ENGINE_LORA_PARTS_MAX];
    const fm_engine_step_t *step = d->step;
    size_t count =
        fm_engine_lora_parts(fm_engine_model_config(d->model), matrix, parts);

    for (size_t i = 0; step->adapter_count > 0 && i < count; i++) {
        bool any = false;
        for (size_t a = 0; a < step->adapter_count; a++) {
            d->loras[a] = fm_engine_adapter_lora(step->adapters[a], layer,
                                                 parts[i].target);
            any = any || d->loras[a].a;
        }
        if (any) {
            d->be->ops->lora_rows(d->be, out + parts[i].column, ldo, x,
                                  step->count, k, parts[i].n, d->loras,
                                  d->ids + 3 * d->options.rows);
        }
    }
}

static fm_engine_product_t product_of(const fm_engine_decoder_t *d,
                                      fm_engine_matrix_t matrix)
{
    return fm_engine_product(fm_engine_model_config(d->model), &d->at, matrix);
}

bool fm_engine_decoder_fits(const fm_engine_decoder_t *decoder,
                            const fm_engine_adapter_t *adapter)
{
    const fm_engine_config_t *c = fm_engine_model_config(decoder->model);
    const fm_engine_adapter_config_t *a = fm_engine_adapter_config(adapter);
    size_t count = 0;
    size_t at = 0;
    const fm_engine_param_t *params = fm_engine_adapter_params(adapter, &count);

    for (fm_engine_matrix_t m = FM_ENGINE_QKV; m <= FM_ENGINE_DOWN; m++) {
        fm_engine_lora_part_t parts[FM_ENGINE_LORA_PARTS_MAX];
        size_t part_count = fm_engine_lora_parts(c, m, parts);
        size_t k = product_of(decoder, m).k;
        for (size_t i = 0; i < part_count; i++) {
            if ((a->targets & (uint32_t)parts[i].target) == 0) {
                continue;
            }
            if (at + 2 > count || params[at].shape[0] != a->rank ||
                params[at].shape[1] != k ||
                params[at + 1].shape[0] != parts[i].n ||
                params[at + 1].shape[1] != a->rank) {
                return false;
            }
            at += 2;
        }
    }
    return count == at * c->num_hidden_layers;
}

/* out = (or +=) the projection of x. */
static void project(fm_engine_decoder_t *d, size_t layer,
                    fm_engine_matrix_t matrix, float *out, const float *x,
                    bool add)
{
    const float *w = fm_engine_model_data(d->model) + d->at.first_layer +
                     layer * d->at.layer;
    fm_engine_product_t m = product_of(d, matrix);

    d->be->ops->linear_rows(d->be, out, x, w + m.weight, d->step->count, m.k,
                            m.n, add);
    if (m.bias) {
        d->be->ops->bias_add(d->be, out, w + m.bias, d->step->count, m.n);
    }
    adapters_add(d, layer, matrix, out, m.n, x, m.k);
}

static void layer_run(fm_engine_decoder_t *d, size_t l)
{
    const fm_engine_config_t *c = fm_engine_model_config(d->model);
    const float *w =
        fm_engine_model_data(d->model) + d->at.first_layer + l * d->at.layer;
    const fm_engine_ops_t *ops = d->be->ops;
    size_t rows = d->step->count;
    const fm_engine_paging_t paging = {.positions = d->ids + d->options.rows,
                                       .sequences =
                                           d->ids + 2 * d->options.rows,
                                       .tables = d->tables,
                                       .stride = d->step->stride};
    fm_engine_heads_t heads = fm_engine_layer_heads(c, l);
    float eps = (float)c->rms_norm_eps;

    ops->rmsnorm_forward(d->be, d->normed, d->rstd, d->x, w + d->at.input_norm,
                         eps, rows, c->hidden_size);
    project(d, l, FM_ENGINE_QKV, d->qkv, d->normed, false);
    if (d->at.q_norm) {
        ops->head_norm_forward(d->be, d->qkv, NULL, NULL, w + d->at.q_norm,
                               w + d->at.k_norm, eps, rows, &heads);
    }
    ops->rope(d->be, d->qkv, d->rotary.table, paging.positions, rows, &heads,
              false);
    ops->cache_store(d->be, &d->caches[l], d->qkv, &paging, rows, &heads);
    ops->attention_pages(d->be, d->mixed, d->qkv, &d->caches[l], &paging, rows,
                         &heads);
    project(d, l, FM_ENGINE_O, d->x, d->mixed, true);
    ops->rmsnorm_forward(d->be, d->normed, d->rstd, d->x, w + d->at.post_norm,
                         eps, rows, c->hidden_size);
    project(d, l, FM_ENGINE_GATE_UP, d->gate_up, d->normed, false);
    ops->swiglu_forward(d->be, d->product, d->gate_up, rows,
                        c->intermediate_size);
    project(d, l, FM_ENGINE_DOWN, d->x, d->product, true);
}

/* Bring a step to the device, with room for its adapters and positions. */
static fm_status_t step_load(fm_engine_decoder_t *d,
                             const fm_engine_step_t *step, fm_error_t *err)
{
    const fm_engine_ops_t *ops = d->be->ops;
    const struct {
        const int32_t *from;
        size_t count;
    } parts[] = {{step->tokens, step->count},
                 {step->positions, step->count},
                 {step->sequences, step->count},
                 {step->which, step->count},
                 {step->wanted, step->wanted_count}};
    int32_t last = 0;

    for (size_t i = 0; i < FM_COUNT_OF(parts); i++) {
        ops->upload(d->be, d->ids + i * d->options.rows, parts[i].from,
                    parts[i].count * sizeof(int32_t));
    }
    ops->upload(d->be, d->tables, step->tables,
                step->sequence_count * step->stride * sizeof(int32_t));
    for (size_t r = 0; r < step->count; r++) {
        last = step->positions[r] > last ? step->positions[r] : last;
    }
    if (step->adapter_count > d->lora_capacity) {
        fm_engine_lora_t *grown =
            fm_realloc(d->loras, step->adapter_count, sizeof(*grown));
        if (!grown) {
            return fm_no_memory(err);
        }
        d->loras = grown;
        d->lora_capacity = step->adapter_count;
    }
    d->step = step;
    return fm_engine_rotary_reach(&d->rotary, d->be,
                                  fm_engine_model_config(d->model),
                                  (size_t)last + 1, err);
}

fm_status_t fm_engine_decoder_run(fm_engine_decoder_t *decoder,
                                  const fm_engine_step_t *step,
                                  float *logits_out, fm_error_t *err)
{
    fm_engine_decoder_t *d = decoder;
    const fm_engine_config_t *c = fm_engine_model_config(d->model);
    const float *w = fm_engine_model_data(d->model);
    const fm_engine_ops_t *ops = d->be->ops;
    const int32_t *wanted = d->ids + 4 * d->options.rows;
    fm_status_t rc = step_load(d, step, err);

    if (rc < 0) {
        return rc;
    }
    ops->gather(d->be, d->x, w + d->at.embedding, d->ids, step->count,
                c->hidden_size);
    for (size_t l = 0; l < c->num_hidden_layers; l++) {
        layer_run(d, l);
    }
    if (step->wanted_count > 0) {
        /* the residual stream is done with: normed holds it, x what is picked
         */
        ops->rmsnorm_forward(d->be, d->normed, d->rstd, d->x, w + d->at.norm,
                             (float)c->rms_norm_eps, step->count,
                             c->hidden_size);
        ops->gather(d->be, d->x, d->normed, wanted, step->wanted_count,
                    c->hidden_size);
        ops->linear_rows(d->be, d->logits, d->x, w + d->at.head,
                         step->wanted_count, c->hidden_size, c->vocab_size,
                         false);
        ops->download(d->be, logits_out, d->logits,
                      step->wanted_count * c->vocab_size * sizeof(float));
    }
    return ops->sync(d->be, err);
}
