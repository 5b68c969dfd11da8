/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop of sft, dpo and reward_model: train on the samples of one item,
 * store the result (docs/spec/workflow.md §6.6, §6.7).
 *
 * Step s of a run takes batch_size × gradient_accumulation_steps samples of
 * the permutation of its epoch; the last step of an epoch takes what is left.
 * So the step alone says what comes next, and a resumed run repeats nothing.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "run/ops/train/training.h"

typedef struct plan {
    size_t samples;   /* of the data */
    size_t batch;     /* samples of a step */
    size_t per_epoch; /* steps */
    uint64_t steps;
} plan_t;

static fm_status_t plan_make(const fm_json_t *training, size_t samples,
                             plan_t *plan, fm_error_t *err)
{
    int64_t batch, accumulation, steps;
    double epochs;
    fm_status_t rc;

    if ((rc = fm_ops_get_int(training, "batch_size", 1, OPS_SAMPLES_MAX, 8,
                             &batch, err)) < 0 ||
        (rc = fm_ops_get_int(training, "gradient_accumulation_steps", 1,
                             OPS_SAMPLES_MAX, 1, &accumulation, err)) < 0 ||
        (rc = fm_ops_get_int(training, "steps", 0, OPS_STEPS_MAX, 0, &steps,
                             err)) < 0 ||
        (rc = fm_ops_get_real(training, "num_train_epochs", 0, 1e6, 1, &epochs,
                              err)) < 0) {
        fm_error_wrap(err, "training");
        return rc;
    }
    plan->samples = samples;
    plan->batch = (size_t)(batch * accumulation);
    plan->per_epoch = (samples + plan->batch - 1) / plan->batch;
    /* A part of an epoch counts as steps, rounded to the nearest, 1 at least */
    plan->steps = steps > 0
                      ? (uint64_t)steps
                      : (uint64_t)(epochs * (double)plan->per_epoch + 0.5);
    plan->steps = plan->steps ? plan->steps : 1;
    return FM_OK;
}

/* The permutation of an epoch, and the part of it that a step takes. */
typedef struct order {
    size_t *samples; /* [plan.samples] */
    uint64_t epoch;
    bool valid;
} order_t;

static const size_t *order_take(const fm_ops_training_t *training,
                                const plan_t *plan, uint64_t step,
                                order_t *order, size_t *count_out)
{
    uint64_t epoch = step / plan->per_epoch;
    size_t start = (size_t)(step % plan->per_epoch) * plan->batch;
    size_t left = plan->samples - start;

    if (!order->valid || order->epoch != epoch) {
        fm_engine_trainer_order(training->trainer, epoch, plan->samples,
                                order->samples);
        order->epoch = epoch;
        order->valid = true;
    }
    *count_out = left < plan->batch ? left : plan->batch;
    return order->samples + start;
}

static fm_status_t steps_run(fm_ops_training_t *training,
                             const fm_ops_method_t *method, const plan_t *plan,
                             const fm_ops_samples_t *samples, fm_error_t *err)
{
    order_t order = {.samples = fm_calloc(plan->samples, sizeof(size_t))};
    fm_status_t rc = order.samples ? FM_OK : fm_no_memory(err);

    for (uint64_t step = fm_engine_trainer_step(training->trainer);
         rc >= 0 && step < plan->steps; step++) {
        fm_engine_metrics_t metrics = {0};
        size_t count = 0;
        const size_t *chosen = order_take(training, plan, step, &order, &count);

        fm_engine_trainer_name(training->trainer, chosen);
        rc = method->step(training, samples, chosen, count, &metrics, err);
        if (rc >= 0) {
            rc = fm_ops_training_stepped(training, &metrics, chosen, count,
                                         order.epoch, fm_json_object(),
                                         step + 1 < plan->steps, err);
        }
    }
    free(order.samples);
    return rc;
}

/* --- what the result says of the steps ----------------------------------- */

static bool copy(fm_json_t *to, const char *key, const char *suffix,
                 const fm_json_t *row)
{
    char *name = fm_asprintf("%s%s", key, suffix);
    bool ok =
        name && fm_json_set(to, name, fm_json_keep(fm_json_get(row, key))) >= 0;

    free(name);
    return ok;
}

static fm_status_t metrics_make(const fm_ops_training_t *training,
                                const plan_t *plan, fm_json_t **metrics_out,
                                fm_error_t *err)
{
    fm_json_t *first = NULL, *last = NULL, *metrics = fm_json_object();
    fm_status_t rc = fm_ops_table_row(&training->table, false, &first, err);

    if (rc < 0 ||
        (rc = fm_ops_table_row(&training->table, true, &last, err)) < 0) {
        goto out;
    }
    bool ok = metrics && copy(metrics, "loss", "_first", first) &&
              copy(metrics, "loss", "_last", last) &&
              copy(metrics, "grad_norm", "_last", last) &&
              fm_json_set(metrics, "steps",
                          fm_json_keep(fm_json_get(last, "step"))) >= 0 &&
              fm_json_set(metrics, "tokens",
                          fm_json_int((int64_t)training->tokens)) >= 0 &&
              fm_json_set(metrics, "samples",
                          fm_json_int((int64_t)plan->samples)) >= 0;
    for (size_t i = 0; ok && i < training->column_count; i++) {
        ok = copy(metrics, training->columns[i].name, "_last", last);
    }
    if (!ok) {
        rc = fm_no_memory(err);
        goto out;
    }
    *metrics_out = metrics;
    metrics = NULL;
out:
    fm_json_drop(metrics);
    fm_json_drop(first);
    fm_json_drop(last);
    return rc;
}

fm_status_t fm_ops_train(fm_ops_run_t *run, size_t item,
                         const fm_ops_method_t *method, fm_ops_output_t *output,
                         fm_error_t *err)
{
    fm_ops_training_t training = {.run = run,
                                  .item = item,
                                  .columns = method->columns,
                                  .column_count = method->column_count,
                                  .head = method->head};
    fm_json_t *metrics = NULL;
    fm_ops_samples_t samples = {0};
    plan_t plan = {0};
    fm_status_t rc;

    if ((rc = fm_ops_training_open(&training, err)) < 0 ||
        (rc = method->samples(&training, &samples, err)) < 0 ||
        (rc = plan_make(fm_json_get(run->params, "training"), samples.count,
                        &plan, err)) < 0) {
        goto out;
    }
    training.steps = plan.steps;
    fm_ops_training_schedule(&training, plan.steps);
    if ((rc = fm_ops_training_start(&training, err)) >= 0 &&
        (rc = fm_ops_checkpoint_load(&training, err)) >= 0 &&
        (rc = steps_run(&training, method, &plan, &samples, err)) >= 0 &&
        (rc = metrics_make(&training, &plan, &metrics, err)) >= 0) {
        rc = fm_ops_training_output(&training, metrics, output, err);
    }
out:
    fm_ops_training_fini(&training);
    fm_ops_samples_fini(&samples);
    return rc;
}
