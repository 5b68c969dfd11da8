/* SPDX-License-Identifier: Apache-2.0 */
/* A pass: its arena of activations, and the layers forward. */
#include "engine/model/pass.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/model/activations.h"
#include "engine/model/lora.h"
#include "engine/model/project.h"

/* Hands out parts of a block; with base NULL only counts. */
struct carver {
    float *base;
    size_t used;
};

static float *carve(struct carver *c, size_t count)
{
    float *part = c->base ? c->base + c->used : NULL;

    c->used += (count + 15) / 16 * 16; /* parts begin on a cache line */
    return part;
}

/* All of a layer but x. */
static void carve_layer(struct carver *c, struct fm_engine_layer_kept *kept,
                        size_t rows, const fm_engine_config_t *config)
{
    size_t normed = config->num_attention_heads + config->num_key_value_heads;

    if (fm_engine_layout(config).q_norm) {
        kept->unit = carve(c, rows * normed * config->head_dim);
        kept->unit_rstd = carve(c, rows * normed);
    }
    kept->rstd = carve(c, rows);
    kept->qkv = carve(c, rows * fm_engine_qkv_width(config));
    kept->lse = carve(c, rows * config->num_attention_heads);
    kept->mixed = carve(c, rows * fm_engine_mixed_width(config));
    kept->mid = carve(c, rows * config->hidden_size);
    kept->mid_rstd = carve(c, rows);
    kept->gate_up = carve(c, rows * 2 * config->intermediate_size);
}

/* Place all activations for @p rows; returns the floats they take. */
static size_t carve_all(fm_engine_pass_t *pass, float *base, size_t rows)
{
    const fm_engine_config_t *config = fm_engine_model_config(pass->model);
    size_t layers = config->num_hidden_layers;
    size_t hidden = rows * config->hidden_size;
    struct carver c = {.base = base};

    for (size_t l = 0; l <= layers; l++) {
        struct fm_engine_layer_kept *kept = &pass->kept[l];
        *kept = pass->kept[0];
        if (l == 0 || pass->train) {
            kept->x = carve(&c, hidden);
        }
        if (l == 0 || (l < layers && pass->train && !pass->checkpoint)) {
            carve_layer(&c, kept, rows, config);
        }
    }
    pass->normed = carve(&c, hidden);
    pass->product = carve(&c, rows * config->intermediate_size);
    pass->hidden = carve(&c, hidden);
    pass->hidden_rstd = carve(&c, rows);
    if (pass->train) {
        pass->dhidden = carve(&c, hidden);
        pass->dx = carve(&c, hidden);
        pass->dnormed = carve(&c, hidden);
        pass->dmixed = carve(&c, rows * fm_engine_mixed_width(config));
        pass->dqkv = carve(&c, rows * fm_engine_qkv_width(config));
        pass->dproduct = carve(&c, rows * config->intermediate_size);
        pass->dgate_up = carve(&c, rows * 2 * config->intermediate_size);
    }
    return c.used;
}

static fm_status_t arena_reach(fm_engine_pass_t *pass, size_t rows,
                               fm_error_t *err)
{
    const fm_engine_ops_t *ops = pass->be->ops;

    if (rows <= pass->capacity) {
        return FM_OK;
    }
    ops->release(pass->be, pass->arena);
    ops->release(pass->be, pass->ids);
    free(pass->host_ids);
    pass->capacity = 0;
    size_t floats = carve_all(pass, NULL, rows);
    size_t id_bytes = 2 * rows * sizeof(int32_t);
    pass->arena = ops->alloc(pass->be, floats * sizeof(float));
    pass->ids = ops->alloc(pass->be, id_bytes);
    pass->host_ids = fm_malloc(id_bytes);
    if (!pass->arena || !pass->ids || !pass->host_ids) {
        return fm_error_set(err, FM_ERR_NO_MEMORY,
                            "no memory for the activations of %zu tokens (%zu "
                            "floats); use smaller micro-batches",
                            rows, floats);
    }
    (void)carve_all(pass, pass->arena, rows);
    pass->capacity = rows;
    return FM_OK;
}

static fm_status_t pack_reach(fm_engine_pass_t *pass, size_t count,
                              fm_error_t *err)
{
    if (count <= pass->pack_capacity) {
        return FM_OK;
    }
    int32_t *grown =
        pass->be->ops->alloc(pass->be, (count + 1) * sizeof(*grown));
    if (!grown) {
        return fm_no_memory(err);
    }
    pass->be->ops->release(pass->be, pass->offsets);
    pass->offsets = grown;
    pass->pack_capacity = count;
    return FM_OK;
}

fm_status_t fm_engine_pass_create(fm_engine_model_t *model, unsigned flags,
                                  fm_engine_pass_t **pass_out, fm_error_t *err)
{
    const size_t chunk_floats = (size_t)1 << 22; /* 16 MiB of logits */
    const size_t chunk_min = 16; /* rows that keep the BLAS busy */
    const size_t chunk_max = 256;
    const fm_engine_config_t *config = fm_engine_model_config(model);
    fm_engine_backend_t *be = fm_engine_model_backend(model);
    fm_engine_pass_t *pass = fm_calloc(1, sizeof(*pass));
    fm_status_t rc = FM_ERR_NO_MEMORY;

    if (!pass) {
        return fm_no_memory(err);
    }
    size_t fit = chunk_floats / config->vocab_size;
    pass->model = model;
    pass->be = be;
    pass->at = fm_engine_layout(config);
    pass->heads = fm_engine_config_heads(config);
    pass->train = flags & FM_ENGINE_PASS_TRAIN;
    pass->checkpoint = flags & FM_ENGINE_PASS_CHECKPOINT;
    pass->chunk = fit > chunk_max ? chunk_max : fit;
    pass->chunk = pass->chunk < chunk_min ? chunk_min : pass->chunk;
    size_t hidden_bytes = pass->chunk * config->hidden_size * sizeof(float);
    pass->kept = fm_calloc(config->num_hidden_layers + 1, sizeof(*pass->kept));
    pass->logits =
        be->ops->alloc(be, pass->chunk * config->vocab_size * sizeof(float));
    pass->picked = be->ops->alloc(be, hidden_bytes);
    pass->dpicked = be->ops->alloc(be, hidden_bytes);
    pass->row_floats = be->ops->alloc(be, 4 * pass->chunk * sizeof(float));
    pass->row_ids = be->ops->alloc(be, 2 * pass->chunk * sizeof(int32_t));
    if (!pass->kept || !pass->logits || !pass->picked || !pass->dpicked ||
        !pass->row_floats || !pass->row_ids) {
        rc = fm_no_memory(err);
        goto out;
    }
    *pass_out = pass;
    pass = NULL;
    rc = FM_OK;
out:
    fm_engine_pass_destroy(pass);
    return rc;
}

fm_engine_pass_t *fm_engine_pass_destroy(fm_engine_pass_t *pass)
{
    if (pass) {
        fm_engine_backend_t *be = pass->be;
        void *blocks[] = {pass->arena,        pass->ids,     pass->offsets,
                          pass->rotary.table, pass->logits,  pass->picked,
                          pass->dpicked,      pass->row_ids, pass->row_floats,
                          pass->lora_scratch};
        for (size_t i = 0; i < FM_COUNT_OF(blocks); i++) {
            be->ops->release(be, blocks[i]);
        }
        free(pass->host_ids);
        free(pass->kept);
        free(pass);
    }
    return NULL;
}

static fm_status_t sequence_check(const fm_engine_config_t *config,
                                  const fm_engine_batch_t *batch, size_t s,
                                  fm_error_t *err)
{
    int32_t begin = batch->offsets[s];
    int32_t end = batch->offsets[s + 1];

    if (end <= begin) {
        return fm_error_set(err, FM_ERR_INVALID, "sequence %zu is empty", s);
    }
    if ((size_t)(end - begin) > config->max_position_embeddings) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "sequence %zu has %d tokens: "
                            "max_position_embeddings is %zu",
                            s, end - begin, config->max_position_embeddings);
    }
    for (int32_t i = begin; i < end; i++) {
        if (batch->tokens[i] < 0 ||
            (size_t)batch->tokens[i] >= config->vocab_size) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "sequence %zu, token %d is %d: vocab_size is "
                                "%zu",
                                s, i - begin, batch->tokens[i],
                                config->vocab_size);
        }
    }
    return FM_OK;
}

/* Check the batch, make room for it, bring ids to the device. */
static fm_status_t batch_load(fm_engine_pass_t *pass,
                              const fm_engine_batch_t *batch, fm_error_t *err)
{
    const fm_engine_config_t *config = fm_engine_model_config(pass->model);
    fm_status_t rc = FM_OK;
    size_t longest = 0;

    pass->rows = 0;
    if (batch->count == 0 || batch->offsets[0] != 0) {
        return fm_error_set(err, FM_ERR_INVALID, "an empty batch");
    }
    for (size_t s = 0; s < batch->count; s++) {
        if ((rc = sequence_check(config, batch, s, err)) < 0) {
            return rc;
        }
        size_t length = (size_t)(batch->offsets[s + 1] - batch->offsets[s]);
        longest = length > longest ? length : longest;
    }
    size_t rows = (size_t)batch->offsets[batch->count];
    if (rows > FM_ENGINE_BATCH_TOKENS) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "a batch of %zu tokens: the limit is %zu", rows,
                            FM_ENGINE_BATCH_TOKENS);
    }
    if ((rc = arena_reach(pass, rows, err)) < 0 ||
        (rc = fm_engine_lora_reach(pass, rows, err)) < 0 ||
        (rc = pack_reach(pass, batch->count, err)) < 0 ||
        (rc = fm_engine_rotary_reach(&pass->rotary, pass->be, config, longest,
                                     err)) < 0) {
        return rc;
    }
    memcpy(pass->host_ids, batch->tokens, rows * sizeof(int32_t));
    for (size_t s = 0; s < batch->count; s++) {
        for (int32_t i = batch->offsets[s]; i < batch->offsets[s + 1]; i++) {
            pass->host_ids[rows + (size_t)i] = i - batch->offsets[s];
        }
    }
    pass->be->ops->upload(pass->be, pass->ids, pass->host_ids,
                          2 * rows * sizeof(int32_t));
    pass->be->ops->upload(pass->be, pass->offsets, batch->offsets,
                          (batch->count + 1) * sizeof(int32_t));
    pass->pack = (fm_engine_pack_t){
        .offsets = pass->offsets, .count = batch->count, .longest = longest};
    pass->rows = rows;
    return FM_OK;
}

void fm_engine_layer_fill(fm_engine_pass_t *pass, size_t l)
{
    const fm_engine_config_t *c = fm_engine_model_config(pass->model);
    const float *w = fm_engine_model_data(pass->model) + pass->at.first_layer +
                     l * pass->at.layer;
    const fm_engine_ops_t *ops = pass->be->ops;
    fm_engine_backend_t *be = pass->be;
    struct fm_engine_layer_kept *k = &pass->kept[l];
    fm_engine_heads_t heads = fm_engine_layer_heads(c, l);
    float eps = (float)c->rms_norm_eps;
    size_t n = pass->rows;
    size_t hidden = c->hidden_size;
    const int32_t *positions = pass->ids + n;

    ops->rmsnorm_forward(be, pass->normed, k->rstd, k->x,
                         w + pass->at.input_norm, eps, n, hidden);
    fm_engine_project(pass, l, FM_ENGINE_QKV, k->qkv, pass->normed, false);
    if (pass->at.q_norm) {
        ops->head_norm_forward(be, k->qkv, k->unit, k->unit_rstd,
                               w + pass->at.q_norm, w + pass->at.k_norm, eps, n,
                               &heads);
    }
    ops->rope(be, k->qkv, pass->rotary.table, positions, n, &heads, false);
    ops->attention_forward(be, k->mixed, k->lse, k->qkv, &pass->pack, &heads);
    ops->copy(be, k->mid, k->x, n * hidden * sizeof(float));
    fm_engine_project(pass, l, FM_ENGINE_O, k->mid, k->mixed, true);

    ops->rmsnorm_forward(be, pass->normed, k->mid_rstd, k->mid,
                         w + pass->at.post_norm, eps, n, hidden);
    fm_engine_project(pass, l, FM_ENGINE_GATE_UP, k->gate_up, pass->normed,
                      false);
}

static void layer_finish(fm_engine_pass_t *pass, size_t l)
{
    const fm_engine_config_t *c = fm_engine_model_config(pass->model);
    const fm_engine_ops_t *ops = pass->be->ops;
    const struct fm_engine_layer_kept *k = &pass->kept[l];
    float *next = pass->kept[l + 1].x;

    ops->swiglu_forward(pass->be, pass->product, k->gate_up, pass->rows,
                        c->intermediate_size);
    ops->copy(pass->be, next, k->mid,
              pass->rows * c->hidden_size * sizeof(float));
    fm_engine_project(pass, l, FM_ENGINE_DOWN, next, pass->product, true);
}

fm_status_t fm_engine_pass_forward(fm_engine_pass_t *pass,
                                   const fm_engine_batch_t *batch,
                                   fm_error_t *err)
{
    const fm_engine_config_t *c = fm_engine_model_config(pass->model);
    const float *w = fm_engine_model_data(pass->model);
    const fm_engine_ops_t *ops = pass->be->ops;
    fm_status_t rc = batch_load(pass, batch, err);

    if (rc < 0) {
        return rc;
    }
    ops->gather(pass->be, pass->kept[0].x, w + pass->at.embedding, pass->ids,
                pass->rows, c->hidden_size);
    for (size_t l = 0; l < c->num_hidden_layers; l++) {
        fm_engine_layer_fill(pass, l);
        layer_finish(pass, l);
    }
    ops->rmsnorm_forward(pass->be, pass->hidden, pass->hidden_rstd,
                         pass->kept[c->num_hidden_layers].x, w + pass->at.norm,
                         (float)c->rms_norm_eps, pass->rows, c->hidden_size);
    if (pass->train) {
        ops->zero(pass->be, pass->dhidden,
                  pass->rows * c->hidden_size * sizeof(float));
    }
    return ops->sync(pass->be, err);
}
