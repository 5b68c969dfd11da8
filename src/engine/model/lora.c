/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The adapter's part of a layer's products.  Nothing is kept for the backward
 * pass: x·Aᵀ is cheap to compute again, and so is the dropout, whose mask is a
 * function of (key, layer, target, row of the step, column).
 */
#include "engine/model/lora.h"

#include "base/hash.h"
#include "engine/model/activations.h"

size_t
fm_engine_lora_parts(const fm_engine_config_t *config,
                     fm_engine_matrix_t matrix,
                     fm_engine_lora_part_t parts[FM_ENGINE_LORA_PARTS_MAX])
{
    fm_engine_heads_t heads = fm_engine_config_heads(config);
    size_t q = heads.heads * heads.head_dim;
    size_t kv = heads.kv_heads * heads.head_dim;
    size_t wide = config->intermediate_size;

    switch (matrix) {
    case FM_ENGINE_QKV:
        parts[0] = (fm_engine_lora_part_t){FM_ENGINE_TARGET_Q, 0, q};
        parts[1] = (fm_engine_lora_part_t){FM_ENGINE_TARGET_K, q, kv};
        parts[2] = (fm_engine_lora_part_t){FM_ENGINE_TARGET_V, q + kv, kv};
        return 3;
    case FM_ENGINE_O:
        parts[0] =
            (fm_engine_lora_part_t){FM_ENGINE_TARGET_O, 0, config->hidden_size};
        return 1;
    case FM_ENGINE_GATE_UP:
        parts[0] = (fm_engine_lora_part_t){FM_ENGINE_TARGET_GATE, 0, wide};
        parts[1] = (fm_engine_lora_part_t){FM_ENGINE_TARGET_UP, wide, wide};
        return 2;
    case FM_ENGINE_DOWN:
        parts[0] = (fm_engine_lora_part_t){FM_ENGINE_TARGET_DOWN, 0,
                                           config->hidden_size};
        return 1;
    }
    return 0;
}

void fm_engine_pass_set_adapter(fm_engine_pass_t *pass,
                                const fm_engine_adapter_t *adapter)
{
    pass->adapter = adapter;
    pass->adapter_grads = NULL;
    pass->rows = 0;
}

void fm_engine_pass_set_adapter_grads(fm_engine_pass_t *pass, float *grads)
{
    pass->adapter_grads = grads;
}

void fm_engine_pass_set_dropout(fm_engine_pass_t *pass,
                                const fm_engine_dropout_t *dropout)
{
    pass->dropout_on = dropout != NULL;
    if (dropout) {
        pass->dropout = *dropout;
    }
}

static float dropout_rate(const fm_engine_pass_t *pass)
{
    return pass->dropout_on
               ? (float)fm_engine_adapter_config(pass->adapter)->dropout
               : 0;
}

/* The widest input of a product. */
static size_t input_max(const fm_engine_pass_t *pass)
{
    const fm_engine_config_t *c = fm_engine_model_config(pass->model);
    size_t mixed = fm_engine_mixed_width(c);
    size_t width = mixed > c->hidden_size ? mixed : c->hidden_size;

    return c->intermediate_size > width ? c->intermediate_size : width;
}

fm_status_t fm_engine_lora_reach(fm_engine_pass_t *pass, size_t rows,
                                 fm_error_t *err)
{
    const fm_engine_ops_t *ops = pass->be->ops;

    if (!pass->adapter) {
        return FM_OK;
    }
    size_t rank = fm_engine_adapter_config(pass->adapter)->rank;
    size_t floats = 2 * rows * rank;
    if (dropout_rate(pass) > 0) {
        floats += 2 * rows * input_max(pass);
    }
    if (floats <= pass->lora_floats) {
        return FM_OK;
    }
    ops->release(pass->be, pass->lora_scratch);
    pass->lora_floats = 0;
    pass->lora_scratch = ops->alloc(pass->be, floats * sizeof(float));
    if (!pass->lora_scratch) {
        return fm_error_set(err, FM_ERR_NO_MEMORY,
                            "no memory for an adapter of rank %zu over %zu "
                            "tokens; use smaller micro-batches",
                            rank, rows);
    }
    pass->lora_floats = floats;
    return FM_OK;
}

/* The dropout of one target, as the backend wants it. */
static fm_engine_mask_t mask_of(const fm_engine_pass_t *pass, size_t layer,
                                fm_engine_target_t target)
{
    const uint64_t key[3] = {pass->dropout.key, layer, (uint64_t)target};

    return (fm_engine_mask_t){.key = fm_hash64(key, sizeof(key)),
                              .first_row = pass->dropout.first_row,
                              .rate = dropout_rate(pass)};
}

/* Parts of the scratch: two of [rows, rank], two of [rows, input]. */
static float *scratch_wide(const fm_engine_pass_t *pass, size_t i)
{
    size_t rank = fm_engine_adapter_config(pass->adapter)->rank;

    return pass->lora_scratch + pass->rows * (2 * rank + i * input_max(pass));
}

void fm_engine_lora_forward(fm_engine_pass_t *pass, size_t layer,
                            fm_engine_matrix_t matrix, float *out, size_t ldo,
                            const float *x, size_t k)
{
    const fm_engine_ops_t *ops = pass->be->ops;
    fm_engine_lora_part_t parts[FM_ENGINE_LORA_PARTS_MAX];
    size_t count = fm_engine_lora_parts(fm_engine_model_config(pass->model),
                                        matrix, parts);

    for (size_t i = 0; pass->adapter && i < count; i++) {
        fm_engine_lora_t lora =
            fm_engine_adapter_lora(pass->adapter, layer, parts[i].target);
        const float *input = x;
        if (!lora.a) {
            continue;
        }
        if (dropout_rate(pass) > 0) {
            fm_engine_mask_t mask = mask_of(pass, layer, parts[i].target);
            float *dropped = scratch_wide(pass, 0);
            ops->dropout(pass->be, dropped, x, &mask, pass->rows, k, false);
            input = dropped;
        }
        ops->lora_forward(pass->be, out + parts[i].column, ldo, input, &lora,
                          pass->lora_scratch, pass->rows, k, parts[i].n);
    }
}

void fm_engine_lora_backward(fm_engine_pass_t *pass, size_t layer,
                             fm_engine_matrix_t matrix, float *dx,
                             const float *dout, size_t ldo, const float *x,
                             size_t k)
{
    const fm_engine_ops_t *ops = pass->be->ops;
    fm_engine_lora_part_t parts[FM_ENGINE_LORA_PARTS_MAX];
    size_t count = fm_engine_lora_parts(fm_engine_model_config(pass->model),
                                        matrix, parts);
    size_t n = pass->rows;

    for (size_t i = 0; pass->adapter && i < count; i++) {
        fm_engine_lora_t lora =
            fm_engine_adapter_lora(pass->adapter, layer, parts[i].target);
        const float *d = dout + parts[i].column;
        if (!lora.a) {
            continue;
        }
        const float *block = fm_engine_adapter_data(pass->adapter);
        float *grads = pass->adapter_grads;
        float *da = grads ? grads + (lora.a - block) : NULL;
        float *db = grads ? grads + (lora.b - block) : NULL;
        if (dropout_rate(pass) > 0) {
            fm_engine_mask_t mask = mask_of(pass, layer, parts[i].target);
            float *dropped = scratch_wide(pass, 0);
            float *ddropped = scratch_wide(pass, 1);
            ops->dropout(pass->be, dropped, x, &mask, n, k, false);
            ops->zero(pass->be, ddropped, n * k * sizeof(float));
            ops->lora_backward(pass->be, ddropped, da, db, d, ldo, dropped,
                               &lora, pass->lora_scratch, n, k, parts[i].n);
            ops->dropout(pass->be, dx, ddropped, &mask, n, k, true);
        } else {
            ops->lora_backward(pass->be, dx, da, db, d, ldo, x, &lora,
                               pass->lora_scratch, n, k, parts[i].n);
        }
    }
}
