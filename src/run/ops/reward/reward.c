/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reward: the number a completion earns (docs/spec/workflow.md §6.12).  An
 * item that cannot be judged fails alone.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "run/ops/internal.h"
#include "run/ops/reward/verify.h"

static fm_status_t item_check(const fm_json_t *item, fm_error_t *why)
{
    const fm_json_t *record = fm_json_get(item, "record");

    if (!fm_json_str(fm_json_get(item, "completion"))) {
        return fm_error_set(why, FM_ERR_INVALID,
                            "completion: a text is needed");
    }
    if (record && !fm_json_is(record, FM_JSON_OBJECT) &&
        !fm_json_is(record, FM_JSON_NULL)) {
        return fm_error_set(why, FM_ERR_INVALID, "record: a map is needed");
    }
    return FM_OK;
}

static fm_status_t verifier_judge(const fm_ops_run_t *run,
                                  const fm_json_t *params,
                                  const fm_json_t *items,
                                  const fm_ops_judge_t *judge, fm_error_t *err)
{
    fm_ops_verifier_t *verifier = NULL;
    fm_status_t rc = fm_ops_verifier_create(params, &verifier, err);

    for (size_t i = 0; rc >= 0 && i < fm_json_len(items); i++) {
        const fm_json_t *item = fm_json_at(items, i);
        const fm_json_t *text = fm_json_get(item, "completion");
        fm_error_t why = {0};
        double score = 0;
        if ((rc = fm_ops_stopping(run, err)) < 0) {
            break;
        }
        fm_status_t status = item_check(item, &why);
        if (status >= 0) {
            status = fm_ops_verify(verifier, fm_json_str(text),
                                   fm_json_str_len(text),
                                   fm_json_get(item, "record"), &score, &why);
        }
        rc = judge->verdict(judge->ctx, i, status, score, &why, err);
    }
    fm_ops_verifier_destroy(verifier);
    return rc;
}

/* --- python -------------------------------------------------------------- */

static fm_json_t *arguments_of(const fm_json_t *item)
{
    static const char *const names[] = {"prompt", "completion", "record"};
    fm_json_t *list = fm_json_array();

    for (size_t i = 0; list && i < FM_COUNT_OF(names); i++) {
        const fm_json_t *value = fm_json_get(item, names[i]);
        if (fm_json_append(list, value ? fm_json_keep(value) : fm_json_null()) <
            0) {
            list = fm_json_drop(list);
        }
    }
    return list;
}

/* What the function returned for one item. */
static fm_status_t line_score(const fm_json_t *line, const fm_error_t *ended,
                              double *score_out, fm_error_t *why)
{
    const fm_json_t *value = fm_json_get(line, "value");
    const char *text = fm_json_get_str(line, "error");

    if (!value) {
        return fm_error_set(why, FM_ERR_INVALID, "%s",
                            text ? text : ended->text);
    }
    if (fm_json_is(value, FM_JSON_BOOL)) {
        *score_out = fm_json_bool_or(value, false);
        return FM_OK;
    }
    if (!fm_json_is_number(value)) {
        return fm_error_set(why, FM_ERR_INVALID,
                            "the function returned a %s; a number is needed",
                            fm_json_type_name(value));
    }
    *score_out = fm_json_real_or(value, 0);
    return FM_OK;
}

static fm_status_t python_judge(fm_ops_run_t *run, const fm_json_t *params,
                                const fm_json_t *items,
                                const fm_ops_judge_t *judge, fm_error_t *err)
{
    fm_json_t *arguments = fm_json_array(), *results = NULL;
    fm_ops_each_t each = {params, "reward", arguments, false};
    fm_error_t ended = {0};
    fm_status_t rc = arguments ? FM_OK : fm_no_memory(err);

    for (size_t i = 0; rc >= 0 && i < fm_json_len(items); i++) {
        if (fm_json_append(arguments, arguments_of(fm_json_at(items, i))) < 0) {
            rc = fm_no_memory(err);
        }
    }
    if (rc >= 0) {
        rc = fm_ops_python_each(run, &each, &results, &ended, err);
    }
    for (size_t i = 0; rc >= 0 && i < fm_json_len(items); i++) {
        fm_error_t why = {0};
        double score = 0;
        fm_status_t status = item_check(fm_json_at(items, i), &why);
        if (status >= 0) {
            status = line_score(fm_json_at(results, i), &ended, &score, &why);
        }
        rc = judge->verdict(judge->ctx, i, status, score, &why, err);
    }
    fm_json_drop(arguments);
    fm_json_drop(results);
    return rc;
}

fm_status_t fm_ops_reward_judge(fm_ops_run_t *run, const fm_json_t *params,
                                const fm_json_t *items,
                                const fm_ops_judge_t *judge, fm_error_t *err)
{
    const char *kind = fm_json_get_str(params, "kind");

    return kind && strcmp(kind, "python") == 0
               ? python_judge(run, params, items, judge, err)
               : verifier_judge(run, params, items, judge, err);
}

/* --- the operator -------------------------------------------------------- */

typedef struct batch {
    fm_ops_run_t *run;
    size_t *place; /* [judged] → item */
} batch_t;

static fm_status_t verdict_report(void *ctx, size_t index, fm_status_t status,
                                  double score, const fm_error_t *why,
                                  fm_error_t *err)
{
    batch_t *batch = ctx;
    fm_ops_output_t output = {0};
    size_t item = batch->place[index];
    fm_status_t rc;

    if (status < 0) {
        return fm_ops_report_error(batch->run, item, status, why, err);
    }
    output.value = fm_json_real(score);
    rc = output.value ? fm_ops_report(batch->run, item, &output, err)
                      : fm_no_memory(err);
    fm_ops_output_fini(&output);
    return rc;
}

fm_status_t fm_ops_reward(fm_ops_run_t *run, fm_error_t *err)
{
    fm_json_t *items = fm_json_array();
    batch_t batch = {run, fm_calloc(run->count + 1, sizeof(size_t))};
    const fm_ops_judge_t judge = {verdict_report, &batch};
    fm_status_t rc = items && batch.place ? FM_OK : fm_no_memory(err);

    for (size_t i = 0; rc >= 0 && i < run->count; i++) {
        if (run->reported[i]) {
            continue;
        }
        batch.place[fm_json_len(items)] = i;
        if (fm_json_append(items, fm_json_keep(run->values[i])) < 0) {
            rc = fm_no_memory(err);
        }
    }
    if (rc >= 0) {
        rc = fm_ops_reward_judge(run, run->params, items, &judge, err);
    }
    free(batch.place);
    fm_json_drop(items);
    return rc;
}
