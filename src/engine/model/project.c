/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/model/project.h"

#include "engine/model/activations.h"
#include "engine/model/lora.h"

fm_engine_product_t fm_engine_product(const fm_engine_config_t *config,
                                      const fm_engine_layout_t *at,
                                      fm_engine_matrix_t matrix)
{
    const fm_engine_product_t table[] = {
        [FM_ENGINE_QKV] = {at->qkv, at->qkv_bias, fm_engine_qkv_width(config),
                           config->hidden_size},
        [FM_ENGINE_O] = {at->o, at->o_bias, config->hidden_size,
                         fm_engine_mixed_width(config)},
        [FM_ENGINE_GATE_UP] = {at->gate_up, at->gate_up_bias,
                               2 * config->intermediate_size,
                               config->hidden_size},
        [FM_ENGINE_DOWN] = {at->down, at->down_bias, config->hidden_size,
                            config->intermediate_size},
    };

    return table[matrix];
}

static fm_engine_product_t product_of(const fm_engine_pass_t *pass,
                                      fm_engine_matrix_t matrix)
{
    return fm_engine_product(fm_engine_model_config(pass->model), &pass->at,
                             matrix);
}

void fm_engine_project(fm_engine_pass_t *pass, size_t layer,
                       fm_engine_matrix_t matrix, float *out, const float *x,
                       bool add)
{
    fm_engine_product_t m = product_of(pass, matrix);
    const float *w = fm_engine_model_data(pass->model) + pass->at.first_layer +
                     layer * pass->at.layer;

    pass->be->ops->linear_forward(pass->be, out, x, w + m.weight, pass->rows,
                                  m.k, m.n, add);
    if (m.bias) {
        pass->be->ops->bias_add(pass->be, out, w + m.bias, pass->rows, m.n);
    }
    fm_engine_lora_forward(pass, layer, matrix, out, m.n, x, m.k);
}

void fm_engine_project_backward(fm_engine_pass_t *pass, size_t layer,
                                fm_engine_matrix_t matrix, float *dx,
                                const float *dout, const float *x, float *grads)
{
    fm_engine_product_t m = product_of(pass, matrix);
    size_t at = pass->at.first_layer + layer * pass->at.layer;

    pass->be->ops->linear_backward(
        pass->be, dx, grads ? grads + at + m.weight : NULL, dout, x,
        fm_engine_model_data(pass->model) + at + m.weight, pass->rows, m.k,
        m.n);
    if (m.bias && grads) {
        pass->be->ops->bias_backward(pass->be, grads + at + m.bias, dout,
                                     pass->rows, m.n);
    }
    fm_engine_lora_backward(pass, layer, matrix, dx, dout, m.n, x, m.k);
}
