/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file project.h
 * The matrix products of a layer: one place for all that a projection may be
 * besides a weight.  Private to the engine.
 */
#ifndef FM_ENGINE_MODEL_PROJECT_H
#define FM_ENGINE_MODEL_PROJECT_H

#include "engine/model/layout.h"
#include "engine/model/pass.h"

/** The four products of a layer; the widths are those of the layout. */
typedef enum fm_engine_matrix {
    FM_ENGINE_QKV,     /**< hidden → queries, keys, values */
    FM_ENGINE_O,       /**< heads·dim → hidden */
    FM_ENGINE_GATE_UP, /**< hidden → 2·intermediate */
    FM_ENGINE_DOWN     /**< intermediate → hidden */
} fm_engine_matrix_t;

/** Where a product stands in its layer. */
typedef struct fm_engine_product {
    size_t weight; /**< [n, k] */
    size_t bias;   /**< [n]; 0: none */
    size_t n;
    size_t k;
} fm_engine_product_t;

fm_engine_product_t fm_engine_product(const fm_engine_config_t *config,
                                      const fm_engine_layout_t *at,
                                      fm_engine_matrix_t matrix);

/** out[rows, n] = (or +=, when @p add) the projection of x[rows, k], the
 *  pass's adapter included. */
void fm_engine_project(fm_engine_pass_t *pass, size_t layer,
                       fm_engine_matrix_t matrix, float *out, const float *x,
                       bool add);
/** dx = …; @p grads (of the whole model, or NULL: frozen) +=; the adapter's
 *  gradient += as the pass was told. */
void fm_engine_project_backward(fm_engine_pass_t *pass, size_t layer,
                                fm_engine_matrix_t matrix, float *dx,
                                const float *dout, const float *x,
                                float *grads);

#endif
