/* SPDX-License-Identifier: Apache-2.0 */
/* The options and schedule of training, and the update of a step. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "engine/train/trainer.h"

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

fm_status_t fm_engine_train_options_check(const fm_engine_train_options_t *o,
                                          fm_error_t *err)
{
    const struct {
        const char *name;
        bool good;
        const char *range;
    } rules[] = {
        {"learning_rate", o->learning_rate >= 0 && o->learning_rate <= 1e3,
         "0 to 1000"},
        {"min_learning_rate",
         o->min_learning_rate >= 0 && o->min_learning_rate <= o->learning_rate,
         "0 to learning_rate"},
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

double fm_engine_schedule_rate(const fm_engine_train_options_t *o,
                               uint64_t step)
{
    const double pi = 3.14159265358979323846;
    uint64_t done = step > 0 ? step - 1 : 0;

    if (done < o->warmup_steps) {
        return o->learning_rate * (double)done / (double)o->warmup_steps;
    }
    if (o->schedule == FM_ENGINE_SCHEDULE_CONSTANT) {
        return o->learning_rate;
    }
    if (done >= o->total_steps) {
        return o->min_learning_rate;
    }
    double progress = (double)(done - o->warmup_steps) /
                      (double)(o->total_steps - o->warmup_steps);
    double part = o->schedule == FM_ENGINE_SCHEDULE_LINEAR
                      ? 1 - progress
                      : 0.5 * (1 + cos(pi * progress));
    return o->min_learning_rate +
           (o->learning_rate - o->min_learning_rate) * part;
}

double fm_engine_trainer_rate(const fm_engine_trainer_t *trainer, uint64_t step)
{
    return fm_engine_schedule_rate(&trainer->options, step);
}

void fm_engine_trainer_begin(fm_engine_trainer_t *trainer)
{
    trainer->step_rows = 0;
    for (size_t b = 0; b < trainer->block_count; b++) {
        trainer->be->ops->zero(trainer->be, trainer->planes[b].grads,
                               trainer->blocks[b].size * sizeof(float));
    }
}

/* One block: neighbours of one kind, matrices or norms, in one call. */
static void block_update(fm_engine_trainer_t *trainer, size_t b,
                         const fm_engine_adamw_t *update)
{
    const fm_engine_block_t *block = &trainer->blocks[b];
    const fm_engine_planes_t *at = &trainer->planes[b];
    const fm_engine_param_t *params = block->params;

    for (size_t i = 0; i < block->param_count;) {
        fm_engine_adamw_t part = *update;
        size_t begin = params[i].offset;
        size_t rank = params[i].rank;
        size_t length = 0;
        for (; i < block->param_count && params[i].rank == rank; i++) {
            length += params[i].count;
        }
        part.weight_decay = rank > 1 ? part.weight_decay : 0;
        trainer->be->ops->adamw(trainer->be, at->params + begin,
                                at->grads + begin, at->moments[0] + begin,
                                at->moments[1] + begin, length, &part);
    }
}

/* The norm of the gradient over all blocks. */
static double gradient_norm(fm_engine_trainer_t *trainer)
{
    double total = 0;

    for (size_t b = 0; b < trainer->block_count; b++) {
        double squares = 0;
        trainer->be->ops->sum_squares(trainer->be, &squares,
                                      trainer->planes[b].grads,
                                      trainer->blocks[b].size);
        total += squares;
    }
    return sqrt(total);
}

fm_status_t fm_engine_trainer_update(fm_engine_trainer_t *trainer,
                                     fm_engine_metrics_t *metrics,
                                     fm_error_t *err)
{
    const fm_engine_train_options_t *o = &trainer->options;
    uint64_t step = trainer->step + 1;
    double norm = gradient_norm(trainer);

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
    const fm_engine_adamw_t update = {
        .learning_rate = (float)rate,
        .beta1 = (float)o->beta1,
        .beta2 = (float)o->beta2,
        .eps = (float)o->eps,
        .weight_decay = (float)o->weight_decay,
        .correction1 = (float)(1 - pow(o->beta1, (double)step)),
        .correction2 = (float)(1 - pow(o->beta2, (double)step)),
        .grad_scale = (float)scale,
    };
    for (size_t b = 0; b < trainer->block_count; b++) {
        block_update(trainer, b, &update);
    }
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
