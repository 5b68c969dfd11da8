/* SPDX-License-Identifier: Apache-2.0 */
/* The trainer's options, schedule, state and update. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"
#include "engine/trainer.h"

void fm_engine_train_defaults(fm_engine_train_options_t *options_out)
{
    *options_out = (fm_engine_train_options_t){
        .learning_rate = 5e-5,
        .beta1 = 0.9,
        .beta2 = 0.999,
        .eps = 1e-8,
        .max_grad_norm = 1,
        .schedule = FM_ENGINE_SCHEDULE_LINEAR,
        .micro_batch_tokens = 4096,
    };
}

bool fm_engine_schedule_parse(const char *text,
                              fm_engine_schedule_t *schedule_out)
{
    static const struct {
        const char *name;
        fm_engine_schedule_t schedule;
    } names[] = {{"constant", FM_ENGINE_SCHEDULE_CONSTANT},
                 {"linear", FM_ENGINE_SCHEDULE_LINEAR},
                 {"cosine", FM_ENGINE_SCHEDULE_COSINE}};

    for (size_t i = 0; i < FM_COUNT_OF(names); i++) {
        if (strcmp(text, names[i].name) == 0) {
            *schedule_out = names[i].schedule;
            return true;
        }
    }
    return false;
}

static fm_status_t options_check(const fm_engine_train_options_t *o,
                                 fm_error_t *err)
{
    const struct {
        const char *name;
        bool good;
        const char *range;
    } rules[] = {
        {"learning_rate", o->learning_rate >= 0 && o->learning_rate <= 1e3,
         "0 to 1000"},
        {"beta1", o->beta1 >= 0 && o->beta1 < 1, "at least 0, below 1"},
        {"beta2", o->beta2 >= 0 && o->beta2 < 1, "at least 0, below 1"},
        {"eps", o->eps > 1e-30 && o->eps <= 1, "above 1e-30, at most 1"},
        {"weight_decay", o->weight_decay >= 0 && o->weight_decay <= 1e3,
         "0 to 1000"},
        {"max_grad_norm", o->max_grad_norm >= 0 && o->max_grad_norm <= 1e30,
         "0 (off) to 1e30"},
        {"total_steps",
         o->schedule == FM_ENGINE_SCHEDULE_CONSTANT || o->total_steps > 0,
         "at least 1 unless the schedule is constant"},
        {"warmup_steps",
         o->schedule == FM_ENGINE_SCHEDULE_CONSTANT ||
             o->warmup_steps <= o->total_steps,
         "at most total_steps"},
        {"micro_batch_tokens",
         o->micro_batch_tokens > 0 &&
             o->micro_batch_tokens <= FM_ENGINE_BATCH_TOKENS,
         "1 to 4194304"},
    };

    for (size_t i = 0; i < FM_COUNT_OF(rules); i++) {
        if (!rules[i].good) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "training option %s: want %s", rules[i].name,
                                rules[i].range);
        }
    }
    return FM_OK;
}

fm_status_t fm_engine_trainer_create(fm_engine_model_t *model,
                                     const fm_engine_train_options_t *options,
                                     fm_engine_trainer_t **trainer_out,
                                     fm_error_t *err)
{
    fm_engine_backend_t *be = fm_engine_model_backend(model);
    size_t bytes = fm_engine_model_size(model) * sizeof(float);
    fm_engine_trainer_t *trainer = fm_calloc(1, sizeof(*trainer));
    fm_status_t rc = FM_ERR_NO_MEMORY;

    if (!trainer) {
        return fm_no_memory(err);
    }
    trainer->model = model;
    trainer->be = be;
    fm_engine_train_defaults(&trainer->options);
    trainer->options.schedule = FM_ENGINE_SCHEDULE_CONSTANT;
    if (options) {
        trainer->options = *options;
    }
    if ((rc = options_check(&trainer->options, err)) < 0) {
        goto out;
    }
    trainer->grads = be->ops->alloc(be, bytes);
    trainer->moments[0] = be->ops->alloc(be, bytes);
    trainer->moments[1] = be->ops->alloc(be, bytes);
    if (!trainer->grads || !trainer->moments[0] || !trainer->moments[1]) {
        rc = fm_error_set(err, FM_ERR_NO_MEMORY,
                          "no memory for gradient and moments (3 x %zu bytes)",
                          bytes);
        goto out;
    }
    if ((rc = fm_engine_pass_create(model, true, &trainer->pass, err)) < 0) {
        goto out;
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
        fm_engine_micro_t *micro = &trainer->micro;
        fm_engine_pass_destroy(trainer->pass);
        ops->release(trainer->be, trainer->grads);
        ops->release(trainer->be, trainer->moments[0]);
        ops->release(trainer->be, trainer->moments[1]);
        fm_engine_tokens_fini(&micro->tokens);
        fm_engine_tokens_fini(&micro->offsets);
        fm_engine_tokens_fini(&micro->rows);
        fm_engine_tokens_fini(&micro->targets);
        fm_engine_tokens_fini(&micro->owners);
        free(micro->scales);
        free(micro->logp);
        free(trainer);
    }
    return NULL;
}

double fm_engine_trainer_rate(const fm_engine_trainer_t *trainer, uint64_t step)
{
    const fm_engine_train_options_t *o = &trainer->options;
    const double pi = 3.14159265358979323846;
    uint64_t done = step > 0 ? step - 1 : 0;

    if (done < o->warmup_steps) {
        return o->learning_rate * (double)done / (double)o->warmup_steps;
    }
    if (o->schedule == FM_ENGINE_SCHEDULE_CONSTANT) {
        return o->learning_rate;
    }
    if (done >= o->total_steps) {
        return 0;
    }
    double progress = (double)(done - o->warmup_steps) /
                      (double)(o->total_steps - o->warmup_steps);
    return o->schedule == FM_ENGINE_SCHEDULE_LINEAR
               ? o->learning_rate * (1 - progress)
               : o->learning_rate * 0.5 * (1 + cos(pi * progress));
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

static fm_status_t range_check(const fm_engine_trainer_t *trainer,
                               size_t offset, size_t count, fm_error_t *err)
{
    size_t size = fm_engine_model_size(trainer->model);

    if (offset > size || count > size - offset) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "elements %zu+%zu are outside the block of %zu",
                            offset, count, size);
    }
    return FM_OK;
}

static fm_status_t block_read(const fm_engine_trainer_t *trainer,
                              const float *block, size_t offset, size_t count,
                              float *host, fm_error_t *err)
{
    fm_status_t rc = range_check(trainer, offset, count, err);

    if (rc < 0) {
        return rc;
    }
    trainer->be->ops->download(trainer->be, host, block + offset,
                               count * sizeof(float));
    return trainer->be->ops->sync(trainer->be, err);
}

fm_status_t fm_engine_trainer_read(const fm_engine_trainer_t *trainer,
                                   fm_engine_moment_t moment, size_t offset,
                                   size_t count, float *host, fm_error_t *err)
{
    return block_read(trainer, trainer->moments[moment], offset, count, host,
                      err);
}

fm_status_t fm_engine_trainer_read_gradient(const fm_engine_trainer_t *trainer,
                                            size_t offset, size_t count,
                                            float *host, fm_error_t *err)
{
    return block_read(trainer, trainer->grads, offset, count, host, err);
}

fm_status_t fm_engine_trainer_write(fm_engine_trainer_t *trainer,
                                    fm_engine_moment_t moment, size_t offset,
                                    size_t count, const float *host,
                                    fm_error_t *err)
{
    fm_status_t rc = range_check(trainer, offset, count, err);

    if (rc < 0) {
        return rc;
    }
    trainer->be->ops->upload(trainer->be, trainer->moments[moment] + offset,
                             host, count * sizeof(float));
    return trainer->be->ops->sync(trainer->be, err);
}

void fm_engine_trainer_begin(fm_engine_trainer_t *trainer)
{
    trainer->be->ops->zero(trainer->be, trainer->grads,
                           fm_engine_model_size(trainer->model) *
                               sizeof(float));
}

/* Neighbours of one kind, matrices or norms, in one call. */
static void update_apply(fm_engine_trainer_t *trainer,
                         fm_engine_adamw_t *update)
{
    size_t count = 0;
    const fm_engine_param_t *params =
        fm_engine_model_params(trainer->model, &count);
    float decay = update->weight_decay;

    for (size_t i = 0; i < count;) {
        size_t begin = params[i].offset;
        size_t rank = params[i].rank;
        size_t length = 0;
        for (; i < count && params[i].rank == rank; i++) {
            length += params[i].count;
        }
        update->weight_decay = rank > 1 ? decay : 0;
        trainer->be->ops->adamw(
            trainer->be, fm_engine_model_data(trainer->model) + begin,
            trainer->grads + begin, trainer->moments[0] + begin,
            trainer->moments[1] + begin, length, update);
    }
}

fm_status_t fm_engine_trainer_update(fm_engine_trainer_t *trainer,
                                     fm_engine_metrics_t *metrics,
                                     fm_error_t *err)
{
    const fm_engine_train_options_t *o = &trainer->options;
    uint64_t step = trainer->step + 1;
    double squares = 0;

    trainer->be->ops->sum_squares(trainer->be, &squares, trainer->grads,
                                  fm_engine_model_size(trainer->model));
    double norm = sqrt(squares);
    if (!isfinite(norm)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "step %llu: the gradient is not finite; lower the "
                            "learning rate or check the data",
                            (unsigned long long)step);
    }
    double scale = 1;
    if (o->max_grad_norm > 0 && norm > o->max_grad_norm) {
        scale = o->max_grad_norm / norm;
    }
    double rate = fm_engine_trainer_rate(trainer, step);
    fm_engine_adamw_t update = {
        .learning_rate = (float)rate,
        .beta1 = (float)o->beta1,
        .beta2 = (float)o->beta2,
        .eps = (float)o->eps,
        .weight_decay = (float)o->weight_decay,
        .correction1 = (float)(1 - pow(o->beta1, (double)step)),
        .correction2 = (float)(1 - pow(o->beta2, (double)step)),
        .grad_scale = (float)scale,
    };
    update_apply(trainer, &update);
    fm_status_t rc = trainer->be->ops->sync(trainer->be, err);
    if (rc < 0) {
        return rc;
    }
    trainer->step = step;
    metrics->step = step;
    metrics->grad_norm = norm;
    metrics->learning_rate = rate;
    return FM_OK;
}
