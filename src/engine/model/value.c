/* SPDX-License-Identifier: Apache-2.0 */
/* A scalar head: one row of weights on the device. */
#include "engine/model/value.h"

#include <stdlib.h>

#include "base/mem.h"
#include "base/rng.h"

struct fm_engine_value {
    fm_engine_backend_t *be;
    fm_engine_param_t param;
    float *data;
};

fm_status_t fm_engine_value_create(const fm_engine_model_t *model,
                                   fm_engine_value_t **value_out,
                                   fm_error_t *err)
{
    size_t width = fm_engine_model_config(model)->hidden_size;
    fm_engine_value_t *value = fm_calloc(1, sizeof(*value));

    if (!value) {
        return fm_no_memory(err);
    }
    value->be = fm_engine_model_backend(model);
    value->param = (fm_engine_param_t){
        .name = "score.weight", .rank = 2, .shape = {1, width}, .count = width};
    value->data = value->be->ops->alloc(value->be, width * sizeof(float));
    if (!value->data) {
        fm_engine_value_destroy(value);
        return fm_no_memory(err);
    }
    *value_out = value;
    return FM_OK;
}

fm_engine_value_t *fm_engine_value_destroy(fm_engine_value_t *value)
{
    if (value) {
        value->be->ops->release(value->be, value->data);
        free(value);
    }
    return NULL;
}

fm_status_t fm_engine_value_init(fm_engine_value_t *value, uint64_t seed,
                                 fm_error_t *err)
{
    size_t width = value->param.count;
    float *host = fm_malloc(width * sizeof(*host));
    fm_rng_t rng;

    if (!host) {
        return fm_no_memory(err);
    }
    fm_rng_init(&rng, seed);
    for (size_t i = 0; i < width; i++) {
        host[i] = (float)(0.02 * fm_rng_normal(&rng));
    }
    fm_status_t rc = fm_engine_value_write(value, 0, width, host, err);
    free(host);
    return rc;
}

const fm_engine_param_t *fm_engine_value_param(const fm_engine_value_t *value)
{
    return &value->param;
}

size_t fm_engine_value_size(const fm_engine_value_t *value)
{
    return value->param.count;
}

float *fm_engine_value_data(const fm_engine_value_t *value)
{
    return value->data;
}

static fm_status_t range_check(const fm_engine_value_t *value, size_t offset,
                               size_t count, fm_error_t *err)
{
    if (offset > value->param.count || count > value->param.count - offset) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "elements %zu+%zu are outside the head of %zu",
                            offset, count, value->param.count);
    }
    return FM_OK;
}

fm_status_t fm_engine_value_read(const fm_engine_value_t *value, size_t offset,
                                 size_t count, float *host, fm_error_t *err)
{
    fm_status_t rc = range_check(value, offset, count, err);

    if (rc < 0) {
        return rc;
    }
    value->be->ops->download(value->be, host, value->data + offset,
                             count * sizeof(float));
    return value->be->ops->sync(value->be, err);
}

fm_status_t fm_engine_value_write(fm_engine_value_t *value, size_t offset,
                                  size_t count, const float *host,
                                  fm_error_t *err)
{
    fm_status_t rc = range_check(value, offset, count, err);

    if (rc < 0) {
        return rc;
    }
    value->be->ops->upload(value->be, value->data + offset, host,
                           count * sizeof(float));
    return value->be->ops->sync(value->be, err);
}
