/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sft and dpo: train a model on the samples of one item, store the result
 * (docs/spec/workflow.md §6.6, §6.7).
 *
 * Step s of a run takes batch_size × gradient_accumulation_steps samples of
 * the permutation of its epoch; the last step of an epoch takes what is left.
 * So the step alone says what comes next, and a resumed run repeats nothing.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "run/ops/internal.h"

#define SAMPLES_MAX 1000000
#define STEPS_MAX (INT64_C(1) << 40)
#define PROGRESS_COUNT 100 /* progress lines of a run, about */

/* What is trained on; pairs or samples, never both. */
typedef struct data {
    size_t count;
    fm_ops_sequence_t *sequences; /* [count], or [2 × count] for pairs */
    size_t sequence_count;
    fm_engine_sample_t *samples;
    uint8_t **masks;
    fm_engine_pair_t *pairs;
    double beta;
} data_t;

static void data_fini(data_t *data)
{
    for (size_t i = 0; i < data->sequence_count; i++) {
        fm_ops_sequence_fini(&data->sequences[i]);
        if (data->masks) {
            free(data->masks[i]);
        }
    }
    free(data->sequences);
    free(data->masks);
    free(data->samples);
    free(data->pairs);
}

static fm_status_t list_check(const fm_json_t *list, const char *name,
                              fm_error_t *err)
{
    size_t count = fm_json_len(list);

    if (!fm_json_is(list, FM_JSON_ARRAY) || count < 1 || count > SAMPLES_MAX) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "%s: a list of 1 to %d is needed", name,
                            SAMPLES_MAX);
    }
    return FM_OK;
}

/* {"text"} or {"prompt", "completion"} to tokens and the mask of the loss. */
static fm_status_t sample_make(const fm_ops_model_t *model,
                               const fm_json_t *sample, size_t limit,
                               data_t *data, size_t i, fm_error_t *err)
{
    const fm_json_t *text = fm_json_get(sample, "text");
    const fm_json_t *completion = fm_json_get(sample, "completion");
    const fm_json_t *prompt = fm_json_get(sample, "prompt");
    fm_status_t rc;

    if (!text && !prompt) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "text, or prompt and completion, are needed");
    }
    if ((rc = fm_ops_sequence_encode(model, text ? NULL : prompt,
                                     text ? text : completion, limit,
                                     &data->sequences[i], err)) < 0) {
        return rc;
    }
    data->sequence_count = i + 1;
    const fm_ops_sequence_t *made = &data->sequences[i];
    if (!(data->masks[i] = fm_calloc(made->tokens.count, 1))) {
        return fm_no_memory(err);
    }
    memset(data->masks[i] + made->prompt_count, 1,
           made->tokens.count - made->prompt_count);
    data->samples[i] = (fm_engine_sample_t){made->tokens.ids, data->masks[i],
                                            made->tokens.count};
    return FM_OK;
}

static fm_status_t samples_make(const fm_ops_model_t *model,
                                const fm_json_t *value, size_t limit,
                                data_t *data, fm_error_t *err)
{
    const fm_json_t *list = fm_json_get(value, "samples");
    fm_status_t rc = list_check(list, "samples", err);

    if (rc < 0) {
        return rc;
    }
    data->count = fm_json_len(list);
    if (!(data->sequences = fm_calloc(data->count, sizeof(*data->sequences))) ||
        !(data->masks = fm_calloc(data->count, sizeof(*data->masks))) ||
        !(data->samples = fm_calloc(data->count, sizeof(*data->samples)))) {
        return fm_no_memory(err);
    }
    for (size_t i = 0; i < data->count; i++) {
        if ((rc = sample_make(model, fm_json_at(list, i), limit, data, i,
                              err)) < 0) {
            fm_error_wrap(err, "samples[%zu]", i);
            return rc;
        }
    }
    return FM_OK;
}

static fm_status_t reference_get(const fm_json_t *reference, const char *side,
                                 double *out, fm_error_t *err)
{
    const fm_json_t *logprob =
        fm_json_get(fm_json_get(reference, side), "logprob");

    if (!fm_json_is_number(logprob)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "reference.%s.logprob: a number is needed", side);
    }
    *out = fm_json_real_or(logprob, 0);
    return FM_OK;
}

static fm_status_t pair_make(const fm_ops_model_t *model, const fm_json_t *pair,
                             const fm_json_t *reference, size_t limit,
                             data_t *data, size_t i, fm_error_t *err)
{
    static const char *const sides[2] = {"chosen", "rejected"};
    const fm_json_t *prompt = fm_json_get(pair, "prompt");
    fm_ops_sequence_t *made = &data->sequences[2 * i];
    double logp[2] = {0, 0};

    if (!prompt) {
        return fm_error_set(err, FM_ERR_INVALID, "prompt: a text is needed");
    }
    for (size_t side = 0; side < 2; side++) {
        fm_status_t rc = fm_ops_sequence_encode(model, prompt,
                                                fm_json_get(pair, sides[side]),
                                                limit, &made[side], err);
        if (rc < 0) {
            fm_error_wrap(err, "%s", sides[side]);
            return rc;
        }
        data->sequence_count++;
        if ((rc = reference_get(reference, sides[side], &logp[side], err)) <
            0) {
            return rc;
        }
    }
    size_t prompt_count = made[0].prompt_count;
    data->pairs[i] = (fm_engine_pair_t){
        .prompt = made[0].tokens.ids,
        .prompt_count = prompt_count,
        .chosen = made[0].tokens.ids + prompt_count,
        .chosen_count = made[0].tokens.count - prompt_count,
        .rejected = made[1].tokens.ids + prompt_count,
        .rejected_count = made[1].tokens.count - prompt_count,
        .reference_chosen = logp[0],
        .reference_rejected = logp[1]};
    return FM_OK;
}

static fm_status_t pairs_make(const fm_ops_model_t *model,
                              const fm_json_t *value, size_t limit,
                              data_t *data, fm_error_t *err)
{
    const fm_json_t *list = fm_json_get(value, "pairs");
    const fm_json_t *references = fm_json_get(value, "reference");
    fm_status_t rc = list_check(list, "pairs", err);

    if (rc < 0) {
        return rc;
    }
    data->count = fm_json_len(list);
    if (fm_json_len(references) != data->count) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "reference: one entry a pair is needed");
    }
    if (!(data->sequences =
              fm_calloc(2 * data->count, sizeof(*data->sequences))) ||
        !(data->pairs = fm_calloc(data->count, sizeof(*data->pairs)))) {
        return fm_no_memory(err);
    }
    for (size_t i = 0; i < data->count; i++) {
        if ((rc = pair_make(model, fm_json_at(list, i),
                            fm_json_at(references, i), limit, data, i, err)) <
            0) {
            fm_error_wrap(err, "pairs[%zu]", i);
            return rc;
        }
    }
    return FM_OK;
}

/* --- options ------------------------------------------------------------- */

typedef struct plan {
    fm_engine_train_options_t options;
    size_t batch;     /* samples of a step */
    size_t per_epoch; /* steps */
    uint64_t steps;
    int64_t save_steps; /* 0: only when stopped */
} plan_t;

static fm_status_t options_parse(const fm_json_t *training,
                                 fm_engine_train_options_t *options,
                                 fm_error_t *err)
{
    const char *schedule;
    int64_t warmup, seed;
    fm_status_t rc;

    fm_engine_train_defaults(options);
    if ((rc = fm_ops_get_real(training, "learning_rate", 0, 1e3, 1e-3,
                              &options->learning_rate, err)) < 0 ||
        (rc = fm_ops_get_real(training, "adam_beta1", 0, 0.999999, 0.9,
                              &options->beta1, err)) < 0 ||
        (rc = fm_ops_get_real(training, "adam_beta2", 0, 0.999999999, 0.999,
                              &options->beta2, err)) < 0 ||
        (rc = fm_ops_get_real(training, "adam_epsilon", 1e-30, 1, 1e-8,
                              &options->eps, err)) < 0 ||
        (rc = fm_ops_get_real(training, "weight_decay", 0, 1e3, 0,
                              &options->weight_decay, err)) < 0 ||
        (rc = fm_ops_get_real(training, "max_grad_norm", 0, 1e9, 1,
                              &options->max_grad_norm, err)) < 0 ||
        (rc = fm_ops_get_int(training, "warmup_steps", 0, STEPS_MAX, 0, &warmup,
                             err)) < 0 ||
        (rc = fm_ops_get_int(training, "seed", 0, INT64_MAX, 0, &seed, err)) <
            0 ||
        (rc = fm_ops_get_text(training, "schedule", "constant", &schedule,
                              err)) < 0) {
        return rc;
    }
    if (!fm_engine_schedule_parse(schedule, &options->schedule)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "schedule: constant, linear or cosine is allowed");
    }
    options->warmup_steps = (uint64_t)warmup;
    options->seed = (uint64_t)seed;
    return FM_OK;
}

static fm_status_t plan_make(const fm_ops_run_t *run, size_t samples,
                             plan_t *plan, fm_error_t *err)
{
    const fm_json_t *training = fm_json_get(run->params, "training");
    int64_t batch, accumulation, steps;
    double epochs;
    fm_status_t rc;

    if ((rc = options_parse(training, &plan->options, err)) < 0 ||
        (rc = fm_ops_get_int(training, "batch_size", 1, SAMPLES_MAX, 8, &batch,
                             err)) < 0 ||
        (rc = fm_ops_get_int(training, "gradient_accumulation_steps", 1,
                             SAMPLES_MAX, 1, &accumulation, err)) < 0 ||
        (rc = fm_ops_get_int(training, "steps", 0, STEPS_MAX, 0, &steps, err)) <
            0 ||
        (rc = fm_ops_get_real(training, "num_train_epochs", 0, 1e6, 1, &epochs,
                              err)) < 0 ||
        (rc = fm_ops_get_int(run->hints, "save_steps", 0, STEPS_MAX, 0,
                             &plan->save_steps, err)) < 0) {
        fm_error_wrap(err, "training");
        return rc;
    }
    plan->batch = (size_t)(batch * accumulation);
    plan->per_epoch = (samples + plan->batch - 1) / plan->batch;
    /* A part of an epoch counts as steps, rounded to the nearest, 1 at least */
    plan->steps = steps > 0
                      ? (uint64_t)steps
                      : (uint64_t)(epochs * (double)plan->per_epoch + 0.5);
    plan->steps = plan->steps ? plan->steps : 1;
    plan->options.total_steps = plan->steps;
    return FM_OK;
}

/* --- the run ------------------------------------------------------------- */

/* The samples of step @p step (from 0), gathered into @p chosen. */
typedef struct gather {
    size_t *order; /* permutation of @p epoch */
    uint64_t epoch;
    bool valid;
    fm_engine_sample_t *samples;
    fm_engine_pair_t *pairs;
    size_t count;
} gather_t;

static void step_gather(const fm_ops_training_t *training, const plan_t *plan,
                        const data_t *data, uint64_t step, gather_t *gather)
{
    uint64_t epoch = step / plan->per_epoch;
    size_t start = (size_t)(step % plan->per_epoch) * plan->batch;
    size_t left = data->count - start;

    if (!gather->valid || gather->epoch != epoch) {
        fm_engine_trainer_order(training->trainer, epoch, data->count,
                                gather->order);
        gather->epoch = epoch;
        gather->valid = true;
    }
    gather->count = left < plan->batch ? left : plan->batch;
    for (size_t i = 0; i < gather->count; i++) {
        size_t from = gather->order[start + i];
        if (data->pairs) {
            gather->pairs[i] = data->pairs[from];
        } else {
            gather->samples[i] = data->samples[from];
        }
    }
}

static fm_status_t progress(const fm_ops_run_t *run, const plan_t *plan,
                            const fm_engine_metrics_t *metrics, fm_error_t *err)
{
    uint64_t every = plan->steps / PROGRESS_COUNT;

    if (metrics->step % (every ? every : 1) != 0) {
        return FM_OK;
    }
    fm_json_t *said = fm_json_object();
    fm_status_t rc = FM_OK;
    if (!said ||
        fm_json_set(said, "step", fm_json_int((int64_t)metrics->step)) < 0 ||
        fm_json_set(said, "loss", fm_json_real(metrics->loss)) < 0) {
        rc = fm_no_memory(err);
    } else {
        rc = run->sink->progress(run->sink->ctx,
                                 (double)metrics->step / (double)plan->steps,
                                 said, err);
    }
    fm_json_drop(said);
    return rc;
}

/* Stop with a checkpoint when asked, save one when it is time. */
static fm_status_t step_end(fm_ops_training_t *training, const plan_t *plan,
                            const fm_engine_metrics_t *metrics, fm_error_t *err)
{
    fm_status_t rc = progress(training->run, plan, metrics, err);

    if (rc < 0 || metrics->step == plan->steps) {
        return rc;
    }
    fm_status_t stop = fm_ops_stopping(training->run, err);
    if (stop < 0 || (plan->save_steps > 0 &&
                     metrics->step % (uint64_t)plan->save_steps == 0)) {
        rc = fm_ops_checkpoint_save(training, stop < 0 ? NULL : err);
    }
    return stop < 0 ? stop : rc;
}

static fm_status_t steps_run(fm_ops_training_t *training, const plan_t *plan,
                             const data_t *data, fm_engine_metrics_t *last,
                             fm_error_t *err)
{
    const fm_engine_dpo_options_t options = {.beta = data->beta};
    size_t most = plan->batch < data->count ? plan->batch : data->count;
    gather_t gather = {.order = fm_calloc(data->count, sizeof(size_t)),
                       .samples = fm_calloc(most, sizeof(*gather.samples)),
                       .pairs = fm_calloc(most, sizeof(*gather.pairs))};
    fm_status_t rc = gather.order && gather.samples && gather.pairs
                         ? FM_OK
                         : fm_no_memory(err);

    for (uint64_t step = fm_engine_trainer_step(training->trainer);
         rc >= 0 && step < plan->steps; step++) {
        step_gather(training, plan, data, step, &gather);
        rc = data->pairs
                 ? fm_engine_trainer_dpo(training->trainer, gather.pairs,
                                         gather.count, &options, last, err)
                 : fm_engine_trainer_sft(training->trainer, gather.samples,
                                         gather.count, last, err);
        if (rc < 0) {
            break;
        }
        training->tokens += last->tokens;
        if (step == 0) {
            training->loss_first = last->loss;
        }
        rc = step_end(training, plan, last, err);
    }
    free(gather.order);
    free(gather.samples);
    free(gather.pairs);
    return rc;
}

/* --- the output ---------------------------------------------------------- */

static fm_json_t *metrics_make(const fm_ops_training_t *training,
                               const data_t *data,
                               const fm_engine_metrics_t *last)
{
    fm_json_t *metrics = fm_json_object();
    bool ok =
        metrics &&
        fm_json_set(metrics, "loss_first",
                    fm_json_real(training->loss_first)) >= 0 &&
        fm_json_set(metrics, "loss_last", fm_json_real(last->loss)) >= 0 &&
        fm_json_set(metrics, "grad_norm_last", fm_json_real(last->grad_norm)) >=
            0 &&
        fm_json_set(metrics, "steps", fm_json_int((int64_t)last->step)) >= 0 &&
        fm_json_set(metrics, "tokens",
                    fm_json_int((int64_t)training->tokens)) >= 0 &&
        fm_json_set(metrics, "samples", fm_json_int((int64_t)data->count)) >= 0;

    if (ok && data->pairs) {
        ok = fm_json_set(metrics, "accuracy_last",
                         fm_json_real(last->accuracy)) >= 0 &&
             fm_json_set(metrics, "margin_last", fm_json_real(last->margin)) >=
                 0 &&
             fm_json_set(metrics, "reward_chosen_last",
                         fm_json_real(last->reward_chosen)) >= 0 &&
             fm_json_set(metrics, "reward_rejected_last",
                         fm_json_real(last->reward_rejected)) >= 0;
    }
    return ok ? metrics : fm_json_drop(metrics);
}

static fm_status_t output_make(fm_ops_training_t *training, const data_t *data,
                               const fm_engine_metrics_t *last,
                               fm_ops_output_t *output, fm_error_t *err)
{
    fm_ops_t *ops = training->run->ops;
    char text[FM_DIGEST_TEXT_BYTES];
    fm_digest_t manifest;
    fm_status_t rc =
        fm_ops_model_store(ops, &training->model, output, &manifest, err);

    if (rc < 0) {
        return rc;
    }
    if (!(output->value = fm_json_object()) ||
        fm_json_set(output->value, "model",
                    fm_json_string(fm_digest_format(&manifest, text))) < 0 ||
        fm_json_set(output->value, "metrics",
                    metrics_make(training, data, last)) < 0) {
        return fm_no_memory(err);
    }
    /* The next stage often wants it: sealed first, as it may be dropped. */
    if ((rc = fm_cas_seal(ops->cas, err)) >= 0) {
        fm_engine_trainer_destroy(training->trainer);
        training->trainer = NULL;
        fm_ops_model_adopt(ops, &manifest, &training->model);
    }
    return rc;
}

/* Parameters and value, so that a state is never taken for another's. */
static fm_status_t work_digest(const fm_ops_run_t *run, size_t item,
                               fm_digest_t *out, fm_error_t *err)
{
    char *params = fm_json_canonical(run->params);
    char *value = fm_json_canonical(run->values[item]);
    char *all = params && value
                    ? fm_asprintf("%s\n%s\n%s", run->task_type, params, value)
                    : NULL;

    if (all) {
        *out = fm_sha256(all, strlen(all));
    }
    free(params);
    free(value);
    free(all);
    return all ? FM_OK : fm_no_memory(err);
}

static fm_status_t train(fm_ops_run_t *run, size_t item, bool preferences,
                         fm_ops_output_t *output, fm_error_t *err)
{
    fm_ops_training_t training = {.run = run, .item = item};
    const fm_json_t *options = fm_json_get(run->params, "training");
    fm_engine_metrics_t last = {0};
    plan_t plan = {0};
    data_t data = {0};
    size_t limit = 0;
    fm_status_t rc;

    if ((rc = fm_ops_model_build(run->ops, fm_json_get(run->params, "model"),
                                 &training.model, err)) < 0 ||
        (rc = work_digest(run, item, &training.work, err)) < 0 ||
        (rc = fm_ops_sequence_limit(&training.model, options, &limit, err)) <
            0 ||
        (rc = fm_ops_get_real(options, "beta", 1e-9, 1e9, 0.1, &data.beta,
                              err)) < 0) {
        goto out;
    }
    rc = preferences
             ? pairs_make(&training.model, run->values[item], limit, &data, err)
             : samples_make(&training.model, run->values[item], limit, &data,
                            err);
    if (rc < 0 || (rc = plan_make(run, data.count, &plan, err)) < 0 ||
        (rc = fm_engine_trainer_create(
             &(fm_engine_parts_t){.model = training.model.model}, &plan.options,
             &training.trainer, err)) < 0 ||
        (rc = fm_ops_checkpoint_load(&training, err)) < 0) {
        goto out;
    }
    if ((rc = steps_run(&training, &plan, &data, &last, err)) >= 0) {
        rc = output_make(&training, &data, &last, output, err);
    }
out:
    fm_engine_trainer_destroy(training.trainer);
    fm_ops_model_fini(&training.model);
    data_fini(&data);
    return rc;
}

fm_status_t fm_ops_sft(fm_ops_run_t *run, size_t item, fm_ops_output_t *output,
                       fm_error_t *err)
{
    return train(run, item, false, output, err);
}

fm_status_t fm_ops_dpo(fm_ops_run_t *run, size_t item, fm_ops_output_t *output,
                       fm_error_t *err)
{
    return train(run, item, true, output, err);
}
