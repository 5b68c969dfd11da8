/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ppo and grpo: one update of a policy with one iteration's rollouts.
 *
 * The state that goes from update to update is a checkpoint manifest
 * (checkpoint.c) whose "work" is of the parameters and the iteration it was
 * made in, so an update continues its own predecessor and nothing else.  A
 * checkpoint inside an update is on top of that state: old log-probabilities
 * and advantages are those of the state, and computed again from it.
 *
 * The schedule counts iterations: the learning rate of an update follows from
 * its number alone, whether an earlier one ended early or not.
 */
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "run/ops/train/rollouts.h"
#include "run/ops/train/training.h"

#define ITERATIONS_MAX 1000000
#define EPOCHS_MAX 1000

typedef struct policy policy_t;

/* What tells ppo from grpo. */
typedef struct algorithm {
    fm_ops_head_t head;
    const char *group_key;     /* completions a rollout; NULL: any number */
    const char *reference_key; /* above 0: the reference is needed */
    double reference_default;
    const fm_ops_column_t *columns;
    size_t column_count;
    fm_status_t (*experience)(policy_t *policy, fm_error_t *err);
} algorithm_t;

struct policy {
    fm_ops_training_t training;
    const algorithm_t *algorithm;
    const fm_json_t *options; /* params.training */
    int64_t iteration, iterations;
    fm_ops_rollouts_t rollouts;
    fm_engine_experience_t *experience;
    size_t rows_begin; /* in the table: of this iteration */
    bool stopped;      /* by target_kl */
};

/* --- reading ------------------------------------------------------------- */

typedef struct real_row {
    const char *name;
    double low, high, fallback;
    double *out;
} real_row_t;

static fm_status_t reals_get(const fm_json_t *options, const real_row_t *rows,
                             size_t count, fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    for (size_t i = 0; rc >= 0 && i < count; i++) {
        rc = fm_ops_get_real(options, rows[i].name, rows[i].low, rows[i].high,
                             rows[i].fallback, rows[i].out, err);
    }
    return rc;
}

/* Passes over the rollouts, and rollouts of a gradient step: all of them
 * unless said. */
static fm_status_t passes_get(const policy_t *policy, size_t epochs_default,
                              size_t *epochs_out, size_t *mini_batch_out,
                              fm_error_t *err)
{
    int64_t count = (int64_t)policy->rollouts.count;
    int64_t epochs, mini_batch;
    fm_status_t rc;

    if ((rc = fm_ops_get_int(policy->options, "epochs", 1, EPOCHS_MAX,
                             (int64_t)epochs_default, &epochs, err)) < 0 ||
        (rc = fm_ops_get_int(policy->options, "mini_batch_size", 1,
                             OPS_SAMPLES_MAX, count, &mini_batch, err)) < 0) {
        return rc;
    }
    *epochs_out = (size_t)epochs;
    *mini_batch_out = (size_t)(mini_batch < count ? mini_batch : count);
    return FM_OK;
}

static fm_status_t ppo_experience(policy_t *policy, fm_error_t *err)
{
    const fm_ops_rollouts_t *rollouts = &policy->rollouts;
    fm_engine_ppo_options_t o;
    fm_status_t rc;

    fm_engine_ppo_defaults(&o);
    const real_row_t rows[] = {
        {"clip_range", 1e-9, 0.999999, 0.2, &o.clip_range},
        {"value_clip_range", 0, 1e9, 0.2, &o.value_clip_range},
        {"value_coef", 0, 1e6, 0.1, &o.value_coef},
        {"gamma", 0, 1, 1, &o.gamma},
        {"lam", 0, 1, 0.95, &o.lam},
        {"kl_coef", 0, 1e6, 0.05, &o.kl_coef},
        {"entropy_coef", 0, 1e6, 0, &o.entropy_coef},
        {"target_kl", 0, 1e6, 0, &o.target_kl},
    };
    if ((rc = reals_get(policy->options, rows, FM_COUNT_OF(rows), err)) < 0 ||
        (rc = fm_ops_get_bool(policy->options, "whiten_advantages", true,
                              &o.whiten_advantages, err)) < 0 ||
        (rc = passes_get(policy, 4, &o.epochs, &o.mini_batch_size, err)) < 0) {
        fm_error_wrap(err, "training");
        return rc;
    }
    o.iteration = (uint64_t)policy->iteration;
    return fm_engine_experience_create_ppo(policy->training.trainer,
                                           rollouts->list, rollouts->count, &o,
                                           NULL, 0, &policy->experience, err);
}

static fm_status_t grpo_experience(policy_t *policy, fm_error_t *err)
{
    const fm_ops_rollouts_t *rollouts = &policy->rollouts;
    fm_engine_grpo_options_t o;
    fm_status_t rc;

    fm_engine_grpo_defaults(&o);
    const real_row_t rows[] = {
        {"beta", 0, 1e6, 0.04, &o.beta},
        {"clip_range", 1e-9, 0.999999, 0.2, &o.clip_range},
        {"clip_range_high", 0, 1e6, 0, &o.clip_range_high},
        {"entropy_coef", 0, 1e6, 0, &o.entropy_coef},
        {"target_kl", 0, 1e6, 0, &o.target_kl},
    };
    if ((rc = reals_get(policy->options, rows, FM_COUNT_OF(rows), err)) < 0 ||
        (rc = fm_ops_get_bool(policy->options, "scale_rewards", true,
                              &o.scale_rewards, err)) < 0 ||
        (rc = passes_get(policy, 1, &o.epochs, &o.mini_batch_size, err)) < 0) {
        fm_error_wrap(err, "training");
        return rc;
    }
    o.group_size = rollouts->group;
    o.iteration = (uint64_t)policy->iteration;
    return fm_engine_experience_create_grpo(policy->training.trainer,
                                            rollouts->list, rollouts->count, &o,
                                            NULL, 0, &policy->experience, err);
}

static fm_status_t rollouts_open(policy_t *policy, fm_error_t *err)
{
    const algorithm_t *algorithm = policy->algorithm;
    const fm_ops_training_t *training = &policy->training;
    int64_t group = 0;
    double coefficient;
    fm_status_t rc = algorithm->group_key
                         ? fm_ops_get_int(policy->options, algorithm->group_key,
                                          2, OPS_SAMPLES_MAX, 8, &group, err)
                         : FM_OK;

    if (rc < 0 || (rc = fm_ops_get_real(
                       policy->options, algorithm->reference_key, 0, 1e6,
                       algorithm->reference_default, &coefficient, err)) < 0) {
        fm_error_wrap(err, "training");
        return rc;
    }
    return fm_ops_rollouts_make(training->run->values[training->item],
                                fm_engine_model_config(training->model->model),
                                (size_t)group, coefficient > 0,
                                &policy->rollouts, err);
}

/* --- the state between updates ------------------------------------------- */

/* Of the parameters as update @p iteration has them. */
static fm_status_t state_work(const policy_t *policy, int64_t iteration,
                              fm_digest_t *out, fm_error_t *err)
{
    const fm_ops_run_t *run = policy->training.run;
    fm_json_t *params = fm_json_copy(run->params);
    char *text = NULL, *all = NULL;

    if (params &&
        fm_json_set(params, "iteration", fm_json_int(iteration)) >= 0 &&
        (text = fm_json_canonical(params)) &&
        (all = fm_asprintf("%s state\n%s", run->task_type, text))) {
        *out = fm_sha256(all, strlen(all));
    }
    bool ok = all != NULL;
    free(all);
    free(text);
    fm_json_drop(params);
    return ok ? FM_OK : fm_no_memory(err);
}

static fm_status_t state_open(policy_t *policy, fm_error_t *err)
{
    fm_ops_training_t *training = &policy->training;
    const fm_json_t *value = training->run->values[training->item];
    const fm_json_t *state = fm_json_get(value, "state");
    bool given = state && !fm_json_is(state, FM_JSON_NULL);
    fm_digest_t digest, work;
    fm_status_t rc;

    if (given != (policy->iteration > 1)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "state: %s is needed in iteration %lld",
                            given ? "null" : "that of the update before",
                            (long long)policy->iteration);
    }
    if (!given) {
        return FM_OK;
    }
    if ((rc = fm_ops_get_digest(value, "state", &digest, err)) >= 0 &&
        (rc = state_work(policy, policy->iteration - 1, &work, err)) >= 0 &&
        (rc = fm_ops_state_get(training, &digest, &work, err)) < 0) {
        fm_error_wrap(err, "state");
    }
    return rc;
}

/* --- the update ---------------------------------------------------------- */

/* What a row has besides the figures of its step. */
static fm_json_t *row_make(const policy_t *policy)
{
    const fm_ops_rollouts_t *rollouts = &policy->rollouts;
    fm_json_t *row = fm_json_object();
    bool ok =
        row &&
        fm_json_set(row, "iteration", fm_json_int(policy->iteration)) >= 0 &&
        fm_json_set(row, "reward_min", fm_json_real(rollouts->reward_min)) >=
            0 &&
        fm_json_set(row, "reward_max", fm_json_real(rollouts->reward_max)) >=
            0 &&
        fm_json_set(row, "length_mean", fm_json_real(rollouts->length_mean)) >=
            0 &&
        fm_json_set(row, "length_min", fm_json_real(rollouts->length_min)) >=
            0 &&
        fm_json_set(row, "length_max", fm_json_real(rollouts->length_max)) >=
            0 &&
        fm_json_set(row, "truncated_fraction",
                    fm_json_real(rollouts->truncated)) >= 0;

    return ok ? row : fm_json_drop(row);
}

static fm_status_t steps_run(policy_t *policy, fm_error_t *err)
{
    fm_ops_training_t *training = &policy->training;
    const size_t *chosen = NULL;
    size_t count = 0;
    bool more = fm_engine_experience_next(policy->experience, &chosen, &count);
    fm_status_t rc = FM_OK;

    while (rc >= 0 && more) {
        size_t epoch = fm_engine_experience_epoch(policy->experience);
        fm_engine_metrics_t metrics = {0};
        size_t *samples = fm_calloc(count, sizeof(*samples));
        if (!samples) {
            return fm_no_memory(err);
        }
        memcpy(samples, chosen, count * sizeof(*samples));
        size_t taken = count;
        rc = fm_engine_experience_step(policy->experience, &metrics, err);
        policy->stopped = metrics.stopped;
        if (rc >= 0) {
            more =
                fm_engine_experience_next(policy->experience, &chosen, &count);
        }
        if (rc >= 0 && !metrics.stopped) {
            rc = fm_ops_training_stepped(training, &metrics, samples, taken,
                                         epoch, row_make(policy), more, err);
        }
        free(samples);
    }
    return rc;
}

/* --- the output ---------------------------------------------------------- */

/* Add the figures of a row to those of the iteration; null stays null. */
static fm_status_t row_sum(const fm_json_t *row, fm_json_t *sums,
                           fm_error_t *err)
{
    void *iterator = NULL;
    const char *key;
    fm_json_t *value;

    while (fm_json_next(row, &iterator, &key, &value)) {
        bool none = fm_json_is(value, FM_JSON_NULL) ||
                    fm_json_is(fm_json_get(sums, key), FM_JSON_NULL);
        double sum = fm_json_get_real(sums, key, 0) + fm_json_real_or(value, 0);
        if (fm_json_is(value, FM_JSON_ARRAY) || strcmp(key, "epoch") == 0) {
            continue;
        }
        none = none || !isfinite(sum);
        if (fm_json_set(sums, key, none ? fm_json_null() : fm_json_real(sum)) <
            0) {
            return fm_no_memory(err);
        }
    }
    return FM_OK;
}

/* Sums over the rows of this iteration; tokens and step are no means. */
static fm_status_t rows_sum(const policy_t *policy, fm_json_t *sums,
                            size_t *rows_out, fm_error_t *err)
{
    const fm_buf_t *text = &policy->training.table.text;
    size_t at = policy->rows_begin;
    fm_status_t rc = FM_OK;

    for (*rows_out = 0; rc >= 0 && at < text->len; (*rows_out)++) {
        const char *line = (const char *)text->data + at;
        const char *end = memchr(line, '\n', text->len - at);
        size_t len = end ? (size_t)(end - line) : text->len - at;
        fm_json_t *row = NULL;
        rc = fm_json_parse(line, len, "table", &row, err);
        if (rc >= 0) {
            rc = row_sum(row, sums, err);
        }
        fm_json_drop(row);
        at += len + 1;
    }
    return rc;
}

static fm_status_t metrics_make(const policy_t *policy, fm_json_t **metrics_out,
                                fm_error_t *err)
{
    fm_json_t *sums = fm_json_object(), *metrics = fm_json_object();
    size_t rows = 0;
    void *iterator = NULL;
    const char *key;
    fm_json_t *value;
    fm_status_t rc = sums && metrics ? rows_sum(policy, sums, &rows, err)
                                     : fm_no_memory(err);

    if (rc < 0) {
        goto out;
    }
    bool ok = true;
    while (ok && fm_json_next(sums, &iterator, &key, &value)) {
        double mean = fm_json_real_or(value, 0) / (double)rows;
        ok = fm_json_set(metrics, key,
                         fm_json_is(value, FM_JSON_NULL)
                             ? fm_json_null()
                             : fm_json_real(mean)) >= 0;
    }
    const fm_ops_training_t *t = &policy->training;
    if (!ok ||
        fm_json_set(metrics, "iteration", fm_json_int(policy->iteration)) < 0 ||
        fm_json_set(metrics, "steps", fm_json_int((int64_t)rows)) < 0 ||
        fm_json_set(metrics, "step",
                    fm_json_int((int64_t)fm_engine_trainer_step(t->trainer))) <
            0 ||
        fm_json_set(metrics, "samples",
                    fm_json_int((int64_t)policy->rollouts.count)) < 0 ||
        fm_json_set(metrics, "tokens", fm_json_int((int64_t)t->tokens)) < 0 ||
        fm_json_set(metrics, "stopped_early", fm_json_bool(policy->stopped)) <
            0) {
        rc = fm_no_memory(err);
        goto out;
    }
    *metrics_out = metrics;
    metrics = NULL;
out:
    fm_json_drop(metrics);
    fm_json_drop(sums);
    return rc;
}

static fm_status_t output_make(policy_t *policy, fm_ops_output_t *output,
                               fm_error_t *err)
{
    fm_ops_training_t *training = &policy->training;
    char text[FM_DIGEST_TEXT_BYTES];
    fm_json_t *metrics = NULL;
    fm_digest_t work, state;
    fm_status_t rc;

    if ((rc = metrics_make(policy, &metrics, err)) < 0 ||
        (rc = state_work(policy, policy->iteration, &work, err)) < 0 ||
        (rc = fm_ops_state_put(training, &work, output, &state, err)) < 0) {
        fm_json_drop(metrics);
        return rc;
    }
    policy->experience = fm_engine_experience_destroy(policy->experience);
    if ((rc = fm_ops_training_output(training, metrics, output, err)) >= 0 &&
        fm_json_set(output->value, "state",
                    fm_json_string(fm_digest_format(&state, text))) < 0) {
        rc = fm_no_memory(err);
    }
    return rc;
}

/* --- the operators ------------------------------------------------------- */

static fm_status_t policy_open(policy_t *policy, fm_error_t *err)
{
    fm_ops_training_t *training = &policy->training;
    const fm_json_t *params = training->run->params;
    fm_status_t rc;

    policy->options = fm_json_get(params, "training");
    if ((rc = fm_ops_get_int(params, "iterations", 1, ITERATIONS_MAX, 1,
                             &policy->iterations, err)) < 0 ||
        (rc = fm_ops_get_int(params, "iteration", 1, policy->iterations, 1,
                             &policy->iteration, err)) < 0 ||
        (rc = fm_ops_training_open(training, err)) < 0 ||
        (rc = rollouts_open(policy, err)) < 0) {
        return rc;
    }
    fm_ops_training_schedule(training, (uint64_t)policy->iterations);
    fm_engine_train_options_t *options = &training->options;
    options->learning_rate =
        fm_engine_schedule_rate(options, (uint64_t)policy->iteration);
    options->min_learning_rate = 0;
    options->schedule = FM_ENGINE_SCHEDULE_CONSTANT;
    options->warmup_steps = 0;
    return fm_ops_training_start(training, err);
}

/* The state, the experience it makes, then a checkpoint on top of both. */
static fm_status_t policy_start(policy_t *policy, fm_error_t *err)
{
    fm_ops_training_t *training = &policy->training;
    fm_status_t rc = state_open(policy, err);

    if (rc < 0) {
        return rc;
    }
    policy->rows_begin = training->table.text.len;
    training->step_begin = fm_engine_trainer_step(training->trainer);
    if ((rc = policy->algorithm->experience(policy, err)) < 0 ||
        (rc = fm_ops_checkpoint_load(training, err)) < 0) {
        return rc;
    }
    training->steps = fm_engine_experience_steps(policy->experience);
    uint64_t position =
        fm_engine_trainer_step(training->trainer) - training->step_begin;
    fm_engine_experience_set_position(policy->experience, (size_t)position);
    return FM_OK;
}

static fm_status_t update(fm_ops_run_t *run, size_t item,
                          const algorithm_t *algorithm, fm_ops_output_t *output,
                          fm_error_t *err)
{
    policy_t policy = {.training = {.run = run,
                                    .item = item,
                                    .columns = algorithm->columns,
                                    .column_count = algorithm->column_count,
                                    .head = algorithm->head},
                       .algorithm = algorithm};
    fm_status_t rc;

    if ((rc = policy_open(&policy, err)) >= 0 &&
        (rc = policy_start(&policy, err)) >= 0 &&
        (rc = steps_run(&policy, err)) >= 0) {
        rc = output_make(&policy, output, err);
    }
    fm_engine_experience_destroy(policy.experience);
    fm_ops_rollouts_fini(&policy.rollouts);
    fm_ops_training_fini(&policy.training);
    return rc;
}

#define COLUMN(name, member)                                                   \
    {                                                                          \
        (name), offsetof(fm_engine_metrics_t, member)                          \
    }
#define COMMON_COLUMNS                                                         \
    COLUMN("reward_mean", reward_mean), COLUMN("reward_std", reward_std),      \
        COLUMN("policy_loss", policy_loss), COLUMN("entropy", entropy),        \
        COLUMN("kl", kl), COLUMN("approx_kl", policy_kl),                      \
        COLUMN("clip_fraction", clip_fraction),                                \
        COLUMN("ratio_mean", ratio_mean), COLUMN("ratio_min", ratio_min),      \
        COLUMN("ratio_max", ratio_max),                                        \
        COLUMN("advantage_mean", advantage_mean),                              \
        COLUMN("advantage_std", advantage_std)

fm_status_t fm_ops_ppo(fm_ops_run_t *run, size_t item, fm_ops_output_t *output,
                       fm_error_t *err)
{
    static const fm_ops_column_t columns[] = {
        COMMON_COLUMNS,
        COLUMN("value_loss", value_loss),
        COLUMN("value_clip_fraction", value_clip_fraction),
        COLUMN("value_mean", value_mean),
        COLUMN("return_mean", return_mean),
        COLUMN("explained_variance", explained_variance),
    };
    static const algorithm_t ppo = {
        OPS_HEAD_CRITIC,      NULL,          "kl_coef", 0.05, columns,
        FM_COUNT_OF(columns), ppo_experience};

    return update(run, item, &ppo, output, err);
}

fm_status_t fm_ops_grpo(fm_ops_run_t *run, size_t item, fm_ops_output_t *output,
                        fm_error_t *err)
{
    static const fm_ops_column_t columns[] = {COMMON_COLUMNS};
    static const algorithm_t grpo = {
        OPS_HEAD_NONE, "group_size",         "beta",         0.04,
        columns,       FM_COUNT_OF(columns), grpo_experience};

    return update(run, item, &grpo, output, err);
}
