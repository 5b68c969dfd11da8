/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file config.h
 * The parts of a configuration that take more than one key: rotations and
 * windows.  Private to the engine.
 */
#ifndef FM_ENGINE_MODEL_CONFIG_H
#define FM_ENGINE_MODEL_CONFIG_H

#include "engine/model/model.h"

/** Checks and fills in: as fm_engine_config_check(), for these keys. */
FM_MUST_USE fm_status_t fm_engine_rope_check(fm_engine_config_t *config,
                                             fm_error_t *err);
/** rope_scaling, rope_parameters and rope_theta. */
FM_MUST_USE fm_status_t fm_engine_rope_parse(const fm_json_t *json,
                                             fm_engine_config_t *config,
                                             fm_error_t *err);
FM_MUST_USE fm_status_t fm_engine_rope_write(const fm_engine_config_t *config,
                                             fm_json_t *json);

FM_MUST_USE fm_status_t fm_engine_window_check(fm_engine_config_t *config,
                                               fm_error_t *err);
/** sliding_window, use_sliding_window, max_window_layers and layer_types; the
 *  number of layers is known already. */
FM_MUST_USE fm_status_t fm_engine_window_parse(const fm_json_t *json,
                                               fm_engine_config_t *config,
                                               fm_error_t *err);
FM_MUST_USE fm_status_t fm_engine_window_write(const fm_engine_config_t *config,
                                               fm_json_t *json);

#endif
