/* SPDX-License-Identifier: Apache-2.0 */
/* From hidden states to logits and log-probabilities, and back, a chunk of
 * rows at a time: a large vocabulary never costs memory for all rows. */
#include "engine/activations.h"

static fm_status_t rows_check(const fm_engine_pass_t *pass, const int32_t *rows,
                              const int32_t *targets, size_t count,
                              fm_error_t *err)
{
    size_t vocab = fm_engine_model_config(pass->model)->vocab_size;

    for (size_t i = 0; i < count; i++) {
        if (rows[i] < 0 || (size_t)rows[i] >= pass->rows) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "row %d is outside the batch of %zu", rows[i],
                                pass->rows);
        }
        if (targets && (targets[i] < 0 || (size_t)targets[i] >= vocab)) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "target %d: vocab_size is %zu", targets[i],
                                vocab);
        }
    }
    return FM_OK;
}

/* Logits of at most `chunk` rows into pass->logits. */
static void chunk_logits(fm_engine_pass_t *pass, const int32_t *rows,
                         size_t count)
{
    const fm_engine_config_t *c = fm_engine_model_config(pass->model);
    const fm_engine_ops_t *ops = pass->be->ops;

    ops->upload(pass->be, pass->row_ids, rows, count * sizeof(*rows));
    ops->gather(pass->be, pass->picked, pass->hidden, pass->row_ids, count,
                c->hidden_size);
    ops->linear_forward(pass->be, pass->logits, pass->picked,
                        fm_engine_model_data(pass->model) + pass->at.head,
                        count, c->hidden_size, c->vocab_size, false);
}

static void chunk_backward(fm_engine_pass_t *pass, size_t count, float *grads)
{
    const fm_engine_config_t *c = fm_engine_model_config(pass->model);
    const fm_engine_ops_t *ops = pass->be->ops;

    ops->linear_backward(pass->be, pass->dpicked, grads + pass->at.head,
                         pass->logits, pass->picked,
                         fm_engine_model_data(pass->model) + pass->at.head,
                         count, c->hidden_size, c->vocab_size);
    ops->scatter_add(pass->be, pass->dhidden, pass->dpicked, pass->row_ids,
                     count, c->hidden_size);
}

fm_status_t fm_engine_pass_head(fm_engine_pass_t *pass, const int32_t *rows,
                                const int32_t *targets, const float *scales,
                                size_t count, float *grads, float *logp_out,
                                fm_error_t *err)
{
    size_t vocab = fm_engine_model_config(pass->model)->vocab_size;
    const fm_engine_ops_t *ops = pass->be->ops;
    float *device_scales = scales ? pass->row_floats + pass->chunk : NULL;
    int32_t *device_targets = pass->row_ids + pass->chunk;
    fm_status_t rc = rows_check(pass, rows, targets, count, err);

    if (rc >= 0 && scales && (!pass->train || !grads)) {
        rc =
            fm_error_set(err, FM_ERR_INVALID, "gradients need a training pass");
    }
    for (size_t i = 0; rc >= 0 && i < count; i += pass->chunk) {
        size_t left = count - i;
        size_t n = left < pass->chunk ? left : pass->chunk;
        chunk_logits(pass, rows + i, n);
        ops->upload(pass->be, device_targets, targets + i,
                    n * sizeof(*targets));
        if (scales) {
            ops->upload(pass->be, device_scales, scales + i,
                        n * sizeof(*scales));
        }
        ops->logprob(pass->be, pass->row_floats, pass->logits, device_targets,
                     device_scales, n, vocab);
        ops->download(pass->be, logp_out + i, pass->row_floats,
                      n * sizeof(*logp_out));
        if (scales) {
            chunk_backward(pass, n, grads);
        }
        rc = ops->sync(pass->be, err);
    }
    return rc;
}

fm_status_t fm_engine_pass_logits(fm_engine_pass_t *pass, const int32_t *rows,
                                  size_t count, float *logits_out,
                                  fm_error_t *err)
{
    size_t vocab = fm_engine_model_config(pass->model)->vocab_size;
    fm_status_t rc = rows_check(pass, rows, NULL, count, err);

    for (size_t i = 0; rc >= 0 && i < count; i += pass->chunk) {
        size_t left = count - i;
        size_t n = left < pass->chunk ? left : pass->chunk;
        chunk_logits(pass, rows + i, n);
        pass->be->ops->download(pass->be, logits_out + i * vocab, pass->logits,
                                n * vocab * sizeof(float));
        rc = pass->be->ops->sync(pass->be, err);
    }
    return rc;
}
