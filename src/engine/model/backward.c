/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The layers backward.  Only what is dear to compute again was kept: the
 * normalised inputs and the gated product are recomputed (with checkpointing
 * the whole layer, from its input).  One buffer, dx, carries the gradient of
 * the residual stream from the last layer to the first; every branch adds to
 * it.
 */
#include "engine/model/activations.h"
#include "engine/model/project.h"

static void mlp_backward(fm_engine_pass_t *pass, size_t l, float *grads)
{
    size_t at = pass->at.first_layer + l * pass->at.layer;
    const float *w = fm_engine_model_data(pass->model) + at;
    float *g = grads ? grads + at : NULL;
    const struct fm_engine_layer_kept *k = &pass->kept[l];
    const fm_engine_config_t *c = fm_engine_model_config(pass->model);
    const fm_engine_ops_t *ops = pass->be->ops;
    fm_engine_backend_t *be = pass->be;
    size_t n = pass->rows;
    size_t hidden = c->hidden_size;
    size_t width = c->intermediate_size;

    ops->swiglu_forward(be, pass->product, k->gate_up, n, width);
    fm_engine_project_backward(pass, l, FM_ENGINE_DOWN, pass->dproduct,
                               pass->dx, pass->product, grads);
    ops->swiglu_backward(be, pass->dgate_up, pass->dproduct, k->gate_up, n,
                         width);
    ops->rmsnorm_forward(be, pass->normed, k->mid_rstd, k->mid,
                         w + pass->at.post_norm, (float)c->rms_norm_eps, n,
                         hidden);
    fm_engine_project_backward(pass, l, FM_ENGINE_GATE_UP, pass->dnormed,
                               pass->dgate_up, pass->normed, grads);
    ops->rmsnorm_backward(be, pass->dx, g ? g + pass->at.post_norm : NULL,
                          pass->dnormed, k->mid, w + pass->at.post_norm,
                          k->mid_rstd, n, hidden);
}

static void attention_backward(fm_engine_pass_t *pass, size_t l, float *grads)
{
    size_t at = pass->at.first_layer + l * pass->at.layer;
    const float *w = fm_engine_model_data(pass->model) + at;
    float *g = grads ? grads + at : NULL;
    const struct fm_engine_layer_kept *k = &pass->kept[l];
    const fm_engine_config_t *c = fm_engine_model_config(pass->model);
    const fm_engine_ops_t *ops = pass->be->ops;
    fm_engine_backend_t *be = pass->be;
    fm_engine_heads_t heads = fm_engine_layer_heads(c, l);
    size_t n = pass->rows;
    size_t hidden = c->hidden_size;

    fm_engine_project_backward(pass, l, FM_ENGINE_O, pass->dmixed, pass->dx,
                               k->mixed, grads);
    ops->attention_backward(be, pass->dqkv, pass->dmixed, k->mixed, k->qkv,
                            k->lse, &pass->pack, &heads);
    ops->rope(be, pass->dqkv, pass->rotary.table, pass->ids + n, n, &heads,
              true);
    if (pass->at.q_norm) {
        ops->head_norm_backward(be, pass->dqkv, g ? g + pass->at.q_norm : NULL,
                                g ? g + pass->at.k_norm : NULL, k->unit,
                                k->unit_rstd, w + pass->at.q_norm,
                                w + pass->at.k_norm, n, &heads);
    }
    ops->rmsnorm_forward(be, pass->normed, k->rstd, k->x,
                         w + pass->at.input_norm, (float)c->rms_norm_eps, n,
                         hidden);
    fm_engine_project_backward(pass, l, FM_ENGINE_QKV, pass->dnormed,
                               pass->dqkv, pass->normed, grads);
    ops->rmsnorm_backward(be, pass->dx, g ? g + pass->at.input_norm : NULL,
                          pass->dnormed, k->x, w + pass->at.input_norm, k->rstd,
                          n, hidden);
}

fm_status_t fm_engine_pass_backward(fm_engine_pass_t *pass, float *grads,
                                    fm_error_t *err)
{
    const fm_engine_config_t *c = fm_engine_model_config(pass->model);
    const float *w = fm_engine_model_data(pass->model);
    const fm_engine_ops_t *ops = pass->be->ops;
    size_t layers = c->num_hidden_layers;

    if (!pass->train || pass->rows == 0) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "backward needs a training pass after forward");
    }
    ops->zero(pass->be, pass->dx, pass->rows * c->hidden_size * sizeof(float));
    ops->rmsnorm_backward(pass->be, pass->dx,
                          grads ? grads + pass->at.norm : NULL, pass->dhidden,
                          pass->kept[layers].x, w + pass->at.norm,
                          pass->hidden_rstd, pass->rows, c->hidden_size);
    for (size_t l = layers; l-- > 0;) {
        if (pass->checkpoint && l + 1 < layers) { /* the last is still there */
            fm_engine_layer_fill(pass, l);
        }
        mlp_backward(pass, l, grads);
        attention_backward(pass, l, grads);
    }
    if (grads) {
        ops->scatter_add(pass->be, grads + pass->at.embedding, pass->dx,
                         pass->ids, pass->rows, c->hidden_size);
    }
    return ops->sync(pass->be, err);
}
