/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What completions are worth to an evaluation: rewards and reward models,
 * weighted and summed.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "run/ops/infer/evaluate.h"

#define REWARDS_MAX 16
#define WEIGHT_MAX 1e9

typedef struct sum {
    double weight, *scores;
} sum_t;

static fm_status_t verdict_add(void *ctx, size_t index, fm_status_t status,
                               double score, const fm_error_t *why,
                               fm_error_t *err)
{
    const sum_t *sum = ctx;

    if (status < 0) {
        return fm_error_set(err, status, "completion %zu: %s", index,
                            why->text);
    }
    sum->scores[index] += sum->weight * score;
    return FM_OK;
}

/* A reward model's score of every item. */
static fm_status_t model_judge(fm_ops_run_t *run, const fm_json_t *reward,
                               const fm_json_t *items, const sum_t *sum,
                               fm_error_t *err)
{
    fm_engine_scorer_t *scorer = NULL;
    const fm_engine_value_t *head = NULL;
    fm_ops_side_t side = {0};
    fm_ops_limit_t limit = {0};
    fm_status_t rc = fm_ops_side_load(run, reward, &side, err);

    if (rc < 0) {
        return rc;
    }
    head = side.adapter && side.adapter->score ? side.adapter->score
                                               : side.model->score;
    if (!head) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "model: a reward model is needed");
    }
    if ((rc = fm_ops_limit_get(side.model, reward, &limit, err)) < 0 ||
        (rc = fm_engine_scorer_create(side.model->model, &scorer, err)) < 0) {
        return rc;
    }
    fm_engine_scorer_set_adapter(scorer,
                                 side.adapter ? side.adapter->adapter : NULL);
    for (size_t i = 0; rc >= 0 && i < fm_json_len(items); i++) {
        const fm_json_t *item = fm_json_at(items, i);
        fm_ops_sequence_t sequence = {0};
        double value = 0;
        if ((rc = fm_ops_stopping(run, err)) >= 0 &&
            (rc = fm_ops_sequence_make(side.model, fm_json_get(item, "prompt"),
                                       fm_json_get(item, "completion"), &limit,
                                       &sequence, err)) >= 0 &&
            (rc = fm_engine_score_value(
                 scorer, sequence.tokens.ids, sequence.tokens.count,
                 fm_engine_value_data(head), &value, err)) >= 0) {
            sum->scores[i] += sum->weight * value;
        }
        if (rc < 0 && rc != FM_ERR_CANCELLED) {
            fm_error_wrap(err, "completion %zu", i);
        }
        fm_ops_sequence_fini(&sequence);
    }
    fm_engine_scorer_destroy(scorer);
    return rc;
}

static fm_status_t reward_add(fm_ops_run_t *run, const fm_json_t *reward,
                              const fm_json_t *items, double *scores,
                              fm_error_t *err)
{
    const char *kind = fm_json_get_str(reward, "kind");
    sum_t sum = {1, scores};
    const fm_ops_judge_t judge = {verdict_add, &sum};
    fm_status_t rc = fm_ops_get_real(reward, "weight", -WEIGHT_MAX, WEIGHT_MAX,
                                     1, &sum.weight, err);

    if (rc < 0) {
        return rc;
    }
    if (kind ? strcmp(kind, "model") == 0 : fm_json_get(reward, "model") != 0) {
        return model_judge(run, reward, items, &sum, err);
    }
    return fm_ops_reward_judge(run, reward, items, &judge, err);
}

fm_status_t fm_ops_scores(fm_ops_run_t *run, const fm_json_t *rewards,
                          const fm_json_t *items, double *scores_out,
                          fm_error_t *err)
{
    bool list = fm_json_is(rewards, FM_JSON_ARRAY);
    size_t count = list ? fm_json_len(rewards) : 1;
    fm_status_t rc = FM_OK;

    if ((!list && !fm_json_is(rewards, FM_JSON_OBJECT)) || count < 1 ||
        count > REWARDS_MAX) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "reward: a map, or a list of 1 to %d, is needed",
                            REWARDS_MAX);
    }
    for (size_t i = 0; i < fm_json_len(items); i++) {
        scores_out[i] = 0;
    }
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        rc = reward_add(run, list ? fm_json_at(rewards, i) : rewards, items,
                        scores_out, err);
        if (rc < 0 && rc != FM_ERR_CANCELLED) {
            fm_error_wrap(err, "reward");
        }
    }
    return rc;
}
