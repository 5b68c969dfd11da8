/* SPDX-License-Identifier: Apache-2.0 */
/* From hidden states to logits, log-probabilities and values, and back, a chunk
 * of rows at a time: a large vocabulary never costs memory for all rows. */
#include "engine/model/activations.h"

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

/* The hidden states of at most `chunk` rows into pass->picked. */
static void chunk_pick(fm_engine_pass_t *pass, const int32_t *rows,
                       size_t count)
{
    const fm_engine_ops_t *ops = pass->be->ops;

    ops->upload(pass->be, pass->row_ids, rows, count * sizeof(*rows));
    ops->gather(pass->be, pass->picked, pass->hidden, pass->row_ids, count,
                fm_engine_model_config(pass->model)->hidden_size);
}

/* Their logits into pass->logits. */
static void chunk_logits(fm_engine_pass_t *pass, const int32_t *rows,
                         size_t count)
{
    const fm_engine_config_t *c = fm_engine_model_config(pass->model);
    const fm_engine_ops_t *ops = pass->be->ops;

    chunk_pick(pass, rows, count);
    ops->linear_forward(pass->be, pass->logits, pass->picked,
                        fm_engine_model_data(pass->model) + pass->at.head,
                        count, c->hidden_size, c->vocab_size, false);
}

static void chunk_backward(fm_engine_pass_t *pass, size_t count, float *grads)
{
    const fm_engine_config_t *c = fm_engine_model_config(pass->model);
    const fm_engine_ops_t *ops = pass->be->ops;

    ops->linear_backward(pass->be, pass->dpicked,
                         grads ? grads + pass->at.head : NULL, pass->logits,
                         pass->picked,
                         fm_engine_model_data(pass->model) + pass->at.head,
                         count, c->hidden_size, c->vocab_size);
    ops->scatter_add(pass->be, pass->dhidden, pass->dpicked, pass->row_ids,
                     count, c->hidden_size);
}

/* Log-probs and entropies of the logits of a chunk that begins at row @p i;
 * with @p back the logits become the gradient. */
static void chunk_measure(fm_engine_pass_t *pass, const fm_engine_head_t *head,
                          size_t i, size_t n, bool back)
{
    size_t vocab = fm_engine_model_config(pass->model)->vocab_size;
    const fm_engine_ops_t *ops = pass->be->ops;
    const int32_t *targets = pass->row_ids + pass->chunk;
    float *logp = pass->row_floats;
    float *scales = back ? logp + pass->chunk : NULL;
    float *entropy = logp + 2 * pass->chunk;
    float *entropy_scales = back ? logp + 3 * pass->chunk : NULL;

    if (back) {
        ops->upload(pass->be, scales, head->scales + i, n * sizeof(*scales));
    }
    if (head->entropy_out) {
        if (back && head->entropy_scales) {
            ops->upload(pass->be, entropy_scales, head->entropy_scales + i,
                        n * sizeof(*entropy_scales));
        } else if (back) {
            ops->zero(pass->be, entropy_scales, n * sizeof(*entropy_scales));
        }
        ops->logprob_entropy(pass->be, logp, entropy, pass->logits, targets,
                             scales, entropy_scales, n, vocab);
        ops->download(pass->be, head->entropy_out + i, entropy,
                      n * sizeof(*entropy));
    } else {
        ops->logprob(pass->be, logp, pass->logits, targets, scales, n, vocab);
    }
    ops->download(pass->be, head->logp_out + i, logp, n * sizeof(*logp));
}

static fm_status_t chunk_run(fm_engine_pass_t *pass,
                             const fm_engine_head_t *head, size_t i, size_t n,
                             float *grads, fm_error_t *err)
{
    const fm_engine_ops_t *ops = pass->be->ops;
    fm_status_t rc = FM_OK;

    chunk_logits(pass, head->rows + i, n);
    ops->upload(pass->be, pass->row_ids + pass->chunk, head->targets + i,
                n * sizeof(*head->targets));
    if (head->slope) {
        chunk_measure(pass, head, i, n, false);
        if ((rc = ops->sync(pass->be, err)) < 0 ||
            (rc = head->slope(head->ctx, i, n, err)) < 0) {
            return rc;
        }
    }
    chunk_measure(pass, head, i, n, head->scales != NULL);
    if (head->scales) {
        chunk_backward(pass, n, grads);
    }
    return ops->sync(pass->be, err);
}

fm_status_t fm_engine_pass_logprobs(fm_engine_pass_t *pass,
                                    const fm_engine_head_t *head, size_t count,
                                    float *grads, fm_error_t *err)
{
    fm_status_t rc = rows_check(pass, head->rows, head->targets, count, err);

    if (rc >= 0 && head->scales && !pass->train) {
        rc =
            fm_error_set(err, FM_ERR_INVALID, "gradients need a training pass");
    }
    for (size_t i = 0; rc >= 0 && i < count; i += pass->chunk) {
        size_t left = count - i;
        rc = chunk_run(pass, head, i, left < pass->chunk ? left : pass->chunk,
                       grads, err);
    }
    return rc;
}

fm_status_t fm_engine_pass_head(fm_engine_pass_t *pass, const int32_t *rows,
                                const int32_t *targets, const float *scales,
                                size_t count, float *grads, float *logp_out,
                                fm_error_t *err)
{
    const fm_engine_head_t head = {.rows = rows,
                                   .targets = targets,
                                   .scales = scales,
                                   .logp_out = logp_out};

    return fm_engine_pass_logprobs(pass, &head, count, grads, err);
}

fm_status_t fm_engine_pass_value(fm_engine_pass_t *pass, const float *weight,
                                 const int32_t *rows, const float *scales,
                                 size_t count, float *dweight,
                                 float *values_out, fm_error_t *err)
{
    size_t width = fm_engine_model_config(pass->model)->hidden_size;
    const fm_engine_ops_t *ops = pass->be->ops;
    float *values = pass->row_floats;
    float *device_scales = values + pass->chunk;
    fm_status_t rc = rows_check(pass, rows, NULL, count, err);

    if (rc >= 0 && scales && !pass->train) {
        rc =
            fm_error_set(err, FM_ERR_INVALID, "gradients need a training pass");
    }
    for (size_t i = 0; rc >= 0 && i < count; i += pass->chunk) {
        size_t left = count - i;
        size_t n = left < pass->chunk ? left : pass->chunk;
        chunk_pick(pass, rows + i, n);
        ops->linear_forward(pass->be, values, pass->picked, weight, n, width, 1,
                            false);
        ops->download(pass->be, values_out + i, values, n * sizeof(*values));
        if (scales) {
            ops->upload(pass->be, device_scales, scales + i,
                        n * sizeof(*scales));
            ops->linear_backward(pass->be, pass->dpicked, dweight,
                                 device_scales, pass->picked, weight, n, width,
                                 1);
            ops->scatter_add(pass->be, pass->dhidden, pass->dpicked,
                             pass->row_ids, n, width);
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

fm_status_t fm_engine_pass_hidden(fm_engine_pass_t *pass, size_t first,
                                  size_t count, float *states_out,
                                  fm_error_t *err)
{
    size_t width = fm_engine_model_config(pass->model)->hidden_size;

    if (first > pass->rows || count > pass->rows - first) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "rows %zu to %zu are outside the batch of %zu",
                            first, first + count, pass->rows);
    }
    pass->be->ops->download(pass->be, states_out, pass->hidden + first * width,
                            count * width * sizeof(float));
    return pass->be->ops->sync(pass->be, err);
}
