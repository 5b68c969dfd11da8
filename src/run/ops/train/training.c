/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A training under way: what is trained and how, and what happens after each
 * step.  The table holds all that the result says of the steps, so a resumed
 * run, which continues the table, says the same.
 */
#include "run/ops/train/training.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"

#define PROGRESS_COUNT 100 /* progress lines of a run, about */
#define PROGRESS_MAX 10000 /* lines that logging_steps may ask for */
#define SAVE_SECONDS 300.0 /* work that a run may lose */

/* --- options ------------------------------------------------------------- */

static fm_status_t reals_parse(const fm_json_t *training,
                               fm_engine_train_options_t *options,
                               double *warmup_ratio, fm_error_t *err)
{
    const struct {
        const char *name;
        double low, high, fallback;
        double *out;
    } reals[] = {
        {"learning_rate", 0, 1e3, 1e-3, &options->learning_rate},
        {"min_learning_rate", 0, 1e3, 0, &options->min_learning_rate},
        {"adam_beta1", 0, 0.999999, 0.9, &options->beta1},
        {"adam_beta2", 0, 0.999999999, 0.999, &options->beta2},
        {"adam_epsilon", 1e-30, 1, 1e-8, &options->eps},
        {"weight_decay", 0, 1e3, 0, &options->weight_decay},
        {"max_grad_norm", 0, 1e9, 1, &options->max_grad_norm},
        {"warmup_ratio", 0, 1, 0, warmup_ratio},
    };
    fm_status_t rc = FM_OK;

    for (size_t i = 0; rc >= 0 && i < FM_COUNT_OF(reals); i++) {
        rc = fm_ops_get_real(training, reals[i].name, reals[i].low,
                             reals[i].high, reals[i].fallback, reals[i].out,
                             err);
    }
    return rc;
}

static fm_status_t options_parse(const fm_json_t *training,
                                 fm_engine_train_options_t *options,
                                 double *warmup_ratio, fm_error_t *err)
{
    const char *schedule;
    int64_t warmup, seed;
    fm_status_t rc;

    fm_engine_train_defaults(options);
    if ((rc = reals_parse(training, options, warmup_ratio, err)) < 0 ||
        (rc = fm_ops_get_int(training, "warmup_steps", 0, OPS_STEPS_MAX, 0,
                             &warmup, err)) < 0 ||
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
    if (*warmup_ratio > 0 && warmup > 0) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "warmup_ratio: not beside warmup_steps");
    }
    options->warmup_steps = (uint64_t)warmup;
    options->seed = (uint64_t)seed;
    return FM_OK;
}

void fm_ops_training_schedule(fm_ops_training_t *training, uint64_t total)
{
    fm_engine_train_options_t *options = &training->options;

    options->total_steps = total;
    if (training->warmup_ratio > 0) {
        options->warmup_steps =
            (uint64_t)ceil(training->warmup_ratio * (double)total);
    }
}

static fm_status_t hints_parse(fm_ops_training_t *training, fm_error_t *err)
{
    const fm_json_t *hints = training->run->hints;
    double seconds;
    fm_status_t rc;

    if ((rc = fm_ops_get_int(hints, "save_steps", 0, OPS_STEPS_MAX, 0,
                             &training->save_steps, err)) < 0 ||
        (rc = fm_ops_get_int(hints, "logging_steps", 0, OPS_STEPS_MAX, 0,
                             &training->log_steps, err)) < 0 ||
        (rc = fm_ops_get_bool(hints, "gradient_checkpointing", false,
                              &training->options.gradient_checkpointing, err)) <
            0 ||
        (rc = fm_ops_get_real(hints, "save_seconds", 1e-3, 1e7, SAVE_SECONDS,
                              &seconds, err)) < 0) {
        return rc;
    }
    training->save_ns = (int64_t)(seconds * (double)FM_NS_PER_S);
    training->saved_ns = training->said_ns = fm_clock_mono_ns();
    return FM_OK;
}

/* --- opening ------------------------------------------------------------- */

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

static bool given(const fm_json_t *value)
{
    return value && !fm_json_is(value, FM_JSON_NULL);
}

/* A given adapter is trained on: its rank, alpha and targets are its own. */
static fm_status_t adapter_open(fm_ops_training_t *training, fm_error_t *err)
{
    const fm_ops_run_t *run = training->run;
    const fm_json_t *lora = fm_json_get(run->params, "lora");
    fm_engine_adapter_config_t config;
    fm_digest_t digest;
    fm_status_t rc;

    if (given(fm_json_get(run->params, "adapter"))) {
        if ((rc = fm_ops_get_digest(run->params, "adapter", &digest, err)) >=
                0 &&
            (rc = fm_model_adapter_load(run->ops->cas, &digest, training->model,
                                        &training->adapter, err)) < 0) {
            fm_error_wrap(err, "adapter");
        }
        return rc;
    }
    if ((rc = fm_engine_adapter_config_parse(lora, &config, err)) < 0 ||
        (rc = fm_engine_adapter_create(&config, training->model->model,
                                       &training->adapter.adapter, err)) < 0) {
        fm_error_wrap(err, "lora");
        return rc;
    }
    return fm_engine_adapter_init(training->adapter.adapter,
                                  training->options.seed, err);
}

static fm_status_t model_open(fm_ops_training_t *training, fm_error_t *err)
{
    const fm_ops_run_t *run = training->run;
    const fm_json_t *source = fm_json_get(run->params, "model");
    bool lora = given(fm_json_get(run->params, "lora")) ||
                given(fm_json_get(run->params, "adapter"));
    fm_status_t rc;

    if (lora) {
        rc = fm_ops_model_load(run->ops, source, &training->model, err);
        return rc < 0 ? rc : adapter_open(training, err);
    }
    rc = fm_ops_model_build(run->ops, source, &training->own, err);
    training->model = &training->own;
    return rc;
}

/* A score goes on from the one there is; a critic always begins anew. */
static fm_status_t head_open(fm_ops_training_t *training, fm_error_t *err)
{
    const fm_engine_value_t *score = training->adapter.score
                                         ? training->adapter.score
                                         : training->model->score;
    size_t count;
    fm_status_t rc =
        fm_engine_value_create(training->model->model, &training->value, err);

    if (rc < 0 || training->head == OPS_HEAD_CRITIC || !score) {
        return rc < 0 ? rc
                      : fm_engine_value_init(training->value,
                                             training->options.seed, err);
    }
    count = fm_engine_value_size(score);
    float *host = fm_malloc(count * sizeof(*host));
    if (!host) {
        return fm_no_memory(err);
    }
    if ((rc = fm_engine_value_read(score, 0, count, host, err)) >= 0) {
        rc = fm_engine_value_write(training->value, 0, count, host, err);
    }
    free(host);
    return rc;
}

fm_status_t fm_ops_training_open(fm_ops_training_t *training, fm_error_t *err)
{
    fm_ops_run_t *run = training->run;
    const fm_json_t *options = fm_json_get(run->params, "training");
    fm_status_t rc;

    if ((rc = options_parse(options, &training->options,
                            &training->warmup_ratio, err)) < 0) {
        fm_error_wrap(err, "training");
        return rc;
    }
    if ((rc = hints_parse(training, err)) < 0 ||
        (rc = work_digest(run, training->item, &training->work, err)) < 0 ||
        (rc = model_open(training, err)) < 0) {
        return rc;
    }
    if (training->head != OPS_HEAD_NONE &&
        (rc = head_open(training, err)) < 0) {
        return rc;
    }
    if ((rc = fm_ops_limit_get(training->model, options, &training->limit,
                               err)) < 0) {
        fm_error_wrap(err, "training");
    }
    return rc;
}

fm_status_t fm_ops_training_start(fm_ops_training_t *training, fm_error_t *err)
{
    const fm_engine_parts_t parts = {
        training->model->model, training->adapter.adapter, training->value};

    return fm_engine_trainer_create(&parts, &training->options,
                                    &training->trainer, err);
}

void fm_ops_training_fini(fm_ops_training_t *training)
{
    fm_engine_trainer_destroy(training->trainer);
    fm_engine_value_destroy(training->value);
    fm_model_adapter_fini(&training->adapter);
    fm_ops_model_fini(&training->own);
    fm_ops_table_fini(&training->table);
}

/* --- after a step -------------------------------------------------------- */

/* A figure beyond all numbers (a ratio of a policy that ran away) is null. */
static bool real_set(fm_json_t *object, const char *key, double value)
{
    return fm_json_set(object, key,
                       isfinite(value) ? fm_json_real(value)
                                       : fm_json_null()) >= 0;
}

static bool columns_set(const fm_ops_training_t *training,
                        const fm_engine_metrics_t *metrics, fm_json_t *object)
{
    bool ok = real_set(object, "loss", metrics->loss) &&
              real_set(object, "learning_rate", metrics->learning_rate) &&
              real_set(object, "grad_norm", metrics->grad_norm);

    for (size_t i = 0; ok && i < training->column_count; i++) {
        double value;
        memcpy(&value, (const char *)metrics + training->columns[i].offset,
               sizeof(value));
        ok = real_set(object, training->columns[i].name, value);
    }
    return ok;
}

static fm_json_t *indices_make(const size_t *indices, size_t count)
{
    fm_json_t *list = fm_json_array();

    for (size_t i = 0; list && i < count; i++) {
        if (fm_json_append(list, fm_json_int((int64_t)indices[i])) < 0) {
            list = fm_json_drop(list);
        }
    }
    return list;
}

/* Timings are said here and nowhere else: the result is a function of the
 * input. */
static fm_status_t progress(fm_ops_training_t *training,
                            const fm_engine_metrics_t *metrics, fm_error_t *err)
{
    const fm_ops_sink_t *sink = training->run->sink;
    uint64_t every = training->log_steps > 0 ? (uint64_t)training->log_steps
                                             : training->steps / PROGRESS_COUNT;
    uint64_t done = metrics->step - training->step_begin;
    fm_json_t *said;
    fm_status_t rc;

    every = every > training->steps / PROGRESS_MAX
                ? every
                : training->steps / PROGRESS_MAX;
    if (done % (every ? every : 1) != 0) {
        return FM_OK;
    }
    int64_t now = fm_clock_mono_ns();
    double seconds =
        (double)(now - training->said_ns + 1) / (double)FM_NS_PER_S;
    uint64_t tokens = training->tokens - training->said_tokens;
    if (!(said = fm_json_object()) || !columns_set(training, metrics, said) ||
        fm_json_set(said, "step", fm_json_int((int64_t)metrics->step)) < 0 ||
        !real_set(said, "tokens_per_s", (double)tokens / seconds)) {
        rc = fm_no_memory(err);
    } else {
        rc = sink->progress(sink->ctx, (double)done / (double)training->steps,
                            said, err);
    }
    training->said_ns = now;
    training->said_tokens = training->tokens;
    fm_json_drop(said);
    return rc;
}

static fm_status_t row_add(fm_ops_training_t *training,
                           const fm_engine_metrics_t *metrics,
                           const size_t *samples, size_t count, uint64_t epoch,
                           fm_json_t *row, fm_error_t *err)
{
    if (!row || !columns_set(training, metrics, row) ||
        fm_json_set(row, "step", fm_json_int((int64_t)metrics->step)) < 0 ||
        fm_json_set(row, "epoch", fm_json_int((int64_t)epoch)) < 0 ||
        fm_json_set(row, "tokens", fm_json_int((int64_t)metrics->tokens)) < 0 ||
        fm_json_set(row, "samples", indices_make(samples, count)) < 0) {
        fm_json_drop(row);
        return fm_no_memory(err);
    }
    return fm_ops_table_add(&training->table, row, err);
}

static bool save_due(const fm_ops_training_t *training, uint64_t step)
{
    return (training->save_steps > 0 &&
            step % (uint64_t)training->save_steps == 0) ||
           fm_clock_mono_ns() - training->saved_ns >= training->save_ns;
}

fm_status_t fm_ops_training_stepped(fm_ops_training_t *training,
                                    const fm_engine_metrics_t *metrics,
                                    const size_t *samples, size_t count,
                                    uint64_t epoch, fm_json_t *row, bool more,
                                    fm_error_t *err)
{
    fm_status_t rc;

    training->tokens += metrics->tokens;
    if ((rc = row_add(training, metrics, samples, count, epoch, row, err)) <
            0 ||
        (rc = progress(training, metrics, err)) < 0 || !more) {
        return rc;
    }
    fm_status_t stop = fm_ops_stopping(training->run, err);
    if (stop < 0 || save_due(training, metrics->step)) {
        rc = fm_ops_checkpoint_save(training, stop < 0 ? NULL : err);
        training->saved_ns = fm_clock_mono_ns();
    }
    return stop < 0 ? stop : rc;
}

/* --- the output ---------------------------------------------------------- */

static fm_status_t name_set(fm_ops_output_t *output, const char *key,
                            const fm_digest_t *digest, fm_error_t *err)
{
    char text[FM_DIGEST_TEXT_BYTES];

    return fm_json_set(output->value, key,
                       fm_json_string(fm_digest_format(digest, text))) < 0
               ? fm_no_memory(err)
               : FM_OK;
}

static fm_status_t table_store(fm_ops_training_t *training,
                               fm_ops_output_t *output, fm_error_t *err)
{
    const fm_buf_t *text = &training->table.text;
    fm_digest_t digest;
    fm_status_t rc = fm_cas_put(training->run->ops->cas, FM_CAS_BLOB,
                                text->data, text->len, &digest, err);

    if (rc < 0 || (rc = fm_ops_output_object(output, &digest, err)) < 0) {
        return rc;
    }
    return name_set(output, "table", &digest, err);
}

/* The base as it is (stored first when it never was), and the adapter. */
static fm_status_t adapter_store(fm_ops_training_t *training,
                                 fm_ops_output_t *output, fm_error_t *err)
{
    const fm_ops_run_t *run = training->run;
    const fm_json_t *source = fm_json_get(run->params, "model");
    fm_digest_t base, digest;
    fm_status_t rc =
        fm_json_get(source, "digest")
            ? fm_ops_get_digest(source, "digest", &base, err)
            : fm_ops_model_store(run->ops, training->model, output, &base, err);

    if (rc < 0 ||
        (rc = fm_ops_adapter_store(run->ops, &training->adapter, &base, output,
                                   &digest, err)) < 0 ||
        (rc = name_set(output, "model", &base, err)) < 0) {
        return rc;
    }
    return name_set(output, "adapter", &digest, err);
}

/* The next stage often wants the model: it stays resident, once it is sealed,
 * as it may be dropped at any time. */
static fm_status_t model_store(fm_ops_training_t *training,
                               fm_ops_output_t *output, fm_error_t *err)
{
    fm_ops_t *ops = training->run->ops;
    fm_digest_t manifest;
    fm_status_t rc;

    if ((rc = fm_ops_model_store(ops, &training->own, output, &manifest, err)) <
            0 ||
        (rc = name_set(output, "model", &manifest, err)) < 0 ||
        (rc = fm_cas_seal(ops->cas, err)) < 0) {
        return rc;
    }
    training->trainer = fm_engine_trainer_destroy(training->trainer);
    fm_ops_model_adopt(ops, &manifest, &training->own);
    return FM_OK;
}

fm_status_t fm_ops_training_output(fm_ops_training_t *training,
                                   fm_json_t *metrics, fm_ops_output_t *output,
                                   fm_error_t *err)
{
    fm_status_t rc;

    if (!(output->value = fm_json_object())) {
        fm_json_drop(metrics);
        return fm_no_memory(err);
    }
    if (fm_json_set(output->value, "metrics", metrics) < 0) {
        return fm_no_memory(err);
    }
    if ((rc = table_store(training, output, err)) < 0) {
        return rc;
    }
    if (training->head == OPS_HEAD_SCORE) { /* it is part of the result */
        fm_engine_value_t **score = training->adapter.adapter
                                        ? &training->adapter.score
                                        : &training->own.score;
        training->trainer = fm_engine_trainer_destroy(training->trainer);
        fm_engine_value_destroy(*score);
        *score = training->value;
        training->value = NULL;
    }
    return training->adapter.adapter ? adapter_store(training, output, err)
                                     : model_store(training, output, err);
}
