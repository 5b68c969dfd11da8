/* SPDX-License-Identifier: Apache-2.0 */
/* The trainer: which blocks are trained, their memory, and its state. */
#include <stdlib.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"
#include "engine/train/trainer.h"

static void blocks_list(fm_engine_trainer_t *trainer)
{
    const fm_engine_parts_t *parts = &trainer->parts;
    fm_engine_block_t *block = &trainer->blocks[0];
    fm_engine_planes_t *planes = &trainer->planes[0];

    if (parts->adapter) {
        block->name = "adapter";
        block->size = fm_engine_adapter_size(parts->adapter);
        block->params =
            fm_engine_adapter_params(parts->adapter, &block->param_count);
        planes->params = fm_engine_adapter_data(parts->adapter);
    } else {
        block->name = "model";
        block->size = fm_engine_model_size(parts->model);
        block->params =
            fm_engine_model_params(parts->model, &block->param_count);
        planes->params = fm_engine_model_data(parts->model);
    }
    trainer->block_count = 1;
    if (parts->value) {
        trainer->blocks[1] =
            (fm_engine_block_t){.name = "value",
                                .size = fm_engine_value_size(parts->value),
                                .params = fm_engine_value_param(parts->value),
                                .param_count = 1};
        trainer->planes[1].params = fm_engine_value_data(parts->value);
        trainer->block_count = 2;
    }
}

static fm_status_t planes_alloc(fm_engine_trainer_t *trainer, fm_error_t *err)
{
    const fm_engine_ops_t *ops = trainer->be->ops;

    for (size_t b = 0; b < trainer->block_count; b++) {
        size_t bytes = trainer->blocks[b].size * sizeof(float);
        fm_engine_planes_t *at = &trainer->planes[b];
        at->grads = ops->alloc(trainer->be, bytes);
        at->moments[0] = ops->alloc(trainer->be, bytes);
        at->moments[1] = ops->alloc(trainer->be, bytes);
        if (!at->grads || !at->moments[0] || !at->moments[1]) {
            return fm_error_set(err, FM_ERR_NO_MEMORY,
                                "no memory for gradient and moments (3 x %zu "
                                "bytes)",
                                bytes);
        }
    }
    trainer->model_grads =
        trainer->parts.adapter ? NULL : trainer->planes[0].grads;
    trainer->value_grads =
        trainer->parts.value ? trainer->planes[1].grads : NULL;
    return FM_OK;
}

fm_status_t fm_engine_trainer_create(const fm_engine_parts_t *parts,
                                     const fm_engine_train_options_t *options,
                                     fm_engine_trainer_t **trainer_out,
                                     fm_error_t *err)
{
    fm_engine_trainer_t *trainer = fm_calloc(1, sizeof(*trainer));
    fm_status_t rc = FM_ERR_NO_MEMORY;

    if (!trainer) {
        return fm_no_memory(err);
    }
    trainer->parts = *parts;
    trainer->be = fm_engine_model_backend(parts->model);
    fm_engine_train_defaults(&trainer->options);
    trainer->options.schedule = FM_ENGINE_SCHEDULE_CONSTANT;
    if (options) {
        trainer->options = *options;
    }
    unsigned flags = FM_ENGINE_PASS_TRAIN;
    if (trainer->options.gradient_checkpointing) {
        flags |= FM_ENGINE_PASS_CHECKPOINT;
    }
    blocks_list(trainer);
    if ((rc = fm_engine_train_options_check(&trainer->options, err)) < 0 ||
        (rc = planes_alloc(trainer, err)) < 0 ||
        (rc = fm_engine_pass_create(parts->model, flags, &trainer->pass, err)) <
            0) {
        goto out;
    }
    if (parts->adapter) {
        fm_engine_pass_set_adapter(trainer->pass, parts->adapter);
        fm_engine_pass_set_adapter_grads(trainer->pass,
                                         trainer->planes[0].grads);
    }
    *trainer_out = trainer;
    trainer = NULL;
out:
    fm_engine_trainer_destroy(trainer);
    return rc;
}

fm_engine_trainer_t *fm_engine_trainer_destroy(fm_engine_trainer_t *trainer)
{
    if (trainer) {
        const fm_engine_ops_t *ops = trainer->be->ops;
        fm_engine_pass_destroy(trainer->pass);
        for (size_t b = 0; b < trainer->block_count; b++) {
            ops->release(trainer->be, trainer->planes[b].grads);
            ops->release(trainer->be, trainer->planes[b].moments[0]);
            ops->release(trainer->be, trainer->planes[b].moments[1]);
        }
        fm_engine_micro_fini(&trainer->micro);
        free(trainer);
    }
    return NULL;
}

void fm_engine_trainer_order(const fm_engine_trainer_t *trainer, uint64_t epoch,
                             size_t count, size_t *order_out)
{
    const uint64_t key[2] = {trainer->options.seed, epoch};
    fm_rng_t rng;

    fm_rng_init(&rng, fm_hash64(key, sizeof(key)));
    for (size_t i = 0; i < count; i++) {
        order_out[i] = i;
    }
    for (size_t i = count; i > 1; i--) { /* Fisher and Yates */
        size_t j = (size_t)fm_rng_below(&rng, i);
        size_t swap = order_out[i - 1];
        order_out[i - 1] = order_out[j];
        order_out[j] = swap;
    }
}

uint64_t fm_engine_trainer_step(const fm_engine_trainer_t *trainer)
{
    return trainer->step;
}

void fm_engine_trainer_set_step(fm_engine_trainer_t *trainer, uint64_t step)
{
    trainer->step = step;
}

const fm_engine_block_t *
fm_engine_trainer_blocks(const fm_engine_trainer_t *trainer, size_t *count_out)
{
    *count_out = trainer->block_count;
    return trainer->blocks;
}

/* The device address of elements of a plane, if they are inside it. */
static fm_status_t plane_find(const fm_engine_trainer_t *trainer, size_t block,
                              fm_engine_plane_t plane, size_t offset,
                              size_t count, float **at_out, fm_error_t *err)
{
    if (block >= trainer->block_count) {
        return fm_error_set(err, FM_ERR_INVALID, "block %zu: there are %zu",
                            block, trainer->block_count);
    }
    size_t size = trainer->blocks[block].size;
    if (offset > size || count > size - offset) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "elements %zu+%zu are outside the block of %zu",
                            offset, count, size);
    }
    const fm_engine_planes_t *at = &trainer->planes[block];
    float *const planes[] = {[FM_ENGINE_PLANE_PARAMS] = at->params,
                             [FM_ENGINE_PLANE_FIRST] = at->moments[0],
                             [FM_ENGINE_PLANE_SECOND] = at->moments[1],
                             [FM_ENGINE_PLANE_GRADIENT] = at->grads};
    *at_out = planes[plane] + offset;
    return FM_OK;
}

fm_status_t fm_engine_trainer_read(const fm_engine_trainer_t *trainer,
                                   size_t block, fm_engine_plane_t plane,
                                   size_t offset, size_t count, float *host,
                                   fm_error_t *err)
{
    float *at = NULL;
    fm_status_t rc = plane_find(trainer, block, plane, offset, count, &at, err);

    if (rc < 0) {
        return rc;
    }
    trainer->be->ops->download(trainer->be, host, at, count * sizeof(float));
    return trainer->be->ops->sync(trainer->be, err);
}

fm_status_t fm_engine_trainer_write(fm_engine_trainer_t *trainer, size_t block,
                                    fm_engine_plane_t plane, size_t offset,
                                    size_t count, const float *host,
                                    fm_error_t *err)
{
    float *at = NULL;
    fm_status_t rc = plane_find(trainer, block, plane, offset, count, &at, err);

    if (rc < 0) {
        return rc;
    }
    trainer->be->ops->upload(trainer->be, at, host, count * sizeof(float));
    return trainer->be->ops->sync(trainer->be, err);
}
