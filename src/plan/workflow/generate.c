/* SPDX-License-Identifier: Apache-2.0 */
/* Parameters of what generates: inference, evaluate (§6.4, §6.8). */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "plan/workflow/graph.h"
#include "plan/workflow/model.h"
#include "plan/workflow/ref.h"
#include "plan/workflow/reward.h"

static int compare_texts(const void *a, const void *b)
{
    const char *const *left = a;
    const char *const *right = b;

    return strcmp(*left, *right);
}

fm_status_t fm_wf_text_set(const fm_wf_resolver_t *r, const fm_json_t *given,
                           const char *path, fm_json_t **out)
{
    bool one = fm_json_str(given) != NULL;
    size_t count = one ? 1 : fm_json_len(given);
    const char **texts = fm_calloc(count + 1, sizeof(*texts));
    fm_json_t *list = fm_json_array();
    fm_status_t rc = texts && list ? FM_OK : fm_wf_no_memory(r);
    bool fits = !given || one || fm_json_is(given, FM_JSON_NULL) ||
                fm_json_is(given, FM_JSON_ARRAY);

    for (size_t i = 0; i < count && rc == FM_OK && fits; i++) {
        texts[i] = fm_json_str(one ? given : fm_json_at(given, i));
        fits = texts[i] && *texts[i];
    }
    if (rc == FM_OK && !fits) {
        rc = fm_yaml_fail(&r->source, r->node->pub.line, r->node->pub.column,
                          FM_ERR_INVALID,
                          "node %s: %s; allowed: text, or a list of texts that "
                          "are not empty",
                          r->node->pub.name, path);
    }
    if (rc == FM_OK && count > 1) {
        qsort(texts, count, sizeof(*texts), compare_texts);
    }
    for (size_t i = 0; i < count && rc == FM_OK; i++) {
        if ((i == 0 || strcmp(texts[i], texts[i - 1]) != 0) &&
            fm_json_append(list, fm_json_string(texts[i])) < 0) {
            rc = fm_wf_no_memory(r);
        }
    }
    if (rc == FM_OK) {
        *out = list;
        list = NULL;
    }
    free(texts);
    fm_json_drop(list);
    return rc;
}

/* How much a key counts: at temperature 0 some change nothing, and must not
 * split equal work. */
static const struct drawing {
    const char *name;
    double greedy; /* its value at temperature 0 */
    bool fixed;    /* by that */
    bool integer;
} drawings[] = {
    {"temperature", 0, true, false},
    {"top_p", 1, true, false},
    {"top_k", 0, true, true},
    {"min_p", 0, true, false},
    {"repetition_penalty", 0, false, false},
};

fm_status_t fm_wf_drawing_params(const fm_wf_resolver_t *r,
                                 const fm_yaml_section_t *section,
                                 const fm_json_t *given, double temperature,
                                 fm_json_t *params)
{
    fm_json_t *full = fm_yaml_fill(section, given, r->node->task);
    double warmth = fm_json_get_real(given, "temperature", temperature);
    fm_json_t *stop = NULL;
    fm_status_t rc =
        full ? fm_wf_set(r, full, "temperature", fm_json_real(warmth))
             : fm_wf_no_memory(r);

    for (size_t i = 0; i < FM_COUNT_OF(drawings) && rc == FM_OK; i++) {
        const struct drawing *d = &drawings[i];
        fm_json_t *value = fm_json_keep(fm_json_get(full, d->name));
        if (warmth == 0 && d->fixed) {
            fm_json_drop(value);
            value = d->integer ? fm_json_int((int64_t)d->greedy)
                               : fm_json_real(d->greedy);
        }
        rc = fm_wf_set(r, params, d->name, value);
    }
    if (rc == FM_OK && (rc = fm_wf_text_set(r, fm_json_get(given, "stop"),
                                            "stop", &stop)) == FM_OK) {
        rc = fm_wf_set(r, params, "stop", stop);
    }
    fm_json_drop(full);
    return rc;
}

fm_status_t fm_wf_inference_params(const fm_wf_resolver_t *r, fm_json_t *params)
{
    static const char *const keys[] = {"max_tokens", "n", "return"};
    fm_json_t *given = NULL;
    fm_json_t *full = NULL;
    fm_status_t rc =
        fm_wf_section_read(r, "inference", &fm_wf_inference, &given);

    if (rc == FM_OK &&
        !(full = fm_yaml_fill(&fm_wf_inference, given, r->node->task))) {
        rc = fm_wf_no_memory(r);
    }
    for (size_t i = 0; i < FM_COUNT_OF(keys) && rc == FM_OK; i++) {
        rc = fm_wf_set(r, params, keys[i],
                       fm_json_keep(fm_json_get(full, keys[i])));
    }
    if (rc == FM_OK) {
        rc = fm_wf_drawing_params(r, &fm_wf_inference, given, 0, params);
    }
    if (rc == FM_OK && fm_json_get_real(params, "temperature", 0) > 0) {
        rc = fm_wf_put_seed(r, given, params); /* goes on into the items */
    }
    fm_json_drop(given);
    fm_json_drop(full);
    return rc;
}

/* --- evaluate ------------------------------------------------------------- */

static int compare_ints(const void *a, const void *b)
{
    const int64_t *left = a;
    const int64_t *right = b;

    return *left < *right ? -1 : *left > *right;
}

/* k of pass@k: sorted, distinct, 1 to n. */
static fm_status_t put_k(const fm_wf_resolver_t *r, const fm_json_t *given,
                         int64_t n, fm_json_t *params)
{
    bool one = !given || fm_json_is(given, FM_JSON_INT);
    size_t count = one ? 1 : fm_json_len(given);
    int64_t *list = fm_calloc(count + 1, sizeof(*list));
    fm_json_t *out = fm_json_array();
    bool fits = count > 0;
    fm_status_t rc = list && out ? FM_OK : fm_wf_no_memory(r);

    for (size_t i = 0; i < count && rc == FM_OK && fits; i++) {
        list[i] = !given ? 1
                  : one  ? fm_json_int_or(given, 0)
                         : fm_json_int_or(fm_json_at(given, i), 0);
        fits = list[i] >= 1 && list[i] <= n;
    }
    if (rc == FM_OK && !fits) {
        rc = fm_yaml_fail(&r->source, r->node->pub.line, r->node->pub.column,
                          FM_ERR_INVALID,
                          "node %s: generation.k; allowed: integers from 1 to "
                          "generation.n (%lld)",
                          r->node->pub.name, (long long)n);
    }
    if (rc == FM_OK && count > 1) {
        qsort(list, count, sizeof(*list), compare_ints);
    }
    for (size_t i = 0; i < count && rc == FM_OK; i++) {
        if ((i == 0 || list[i] != list[i - 1]) &&
            fm_json_append(out, fm_json_int(list[i])) < 0) {
            rc = fm_wf_no_memory(r);
        }
    }
    if (rc == FM_OK) {
        rc = fm_wf_set(r, params, "k", fm_json_keep(out));
    }
    free(list);
    fm_json_drop(out);
    return rc;
}

/* The one reward as a member: {"kind", …}, or {"model"} for a score. */
static fm_status_t put_reward(const fm_wf_resolver_t *r, fm_json_t *params)
{
    fm_json_t *reward = NULL;
    fm_json_t *adapter = NULL;
    double weight = 1;
    fm_status_t rc = fm_wf_reward_params(r, fm_wf_reward_at(r->node->tree, 0),
                                         &reward, &adapter, &weight);

    if (rc == FM_OK && fm_json_get(reward, "model")) {
        rc = fm_wf_set(r, reward, "kind", fm_json_string("model"));
    }
    if (rc == FM_OK && adapter) {
        rc = fm_wf_set(r, reward, "adapter", fm_json_keep(adapter));
    }
    if (rc == FM_OK) {
        rc = fm_wf_set(r, params, "reward", fm_json_keep(reward));
    }
    fm_json_drop(reward);
    fm_json_drop(adapter);
    return rc;
}

static fm_status_t put_opponent(const fm_wf_resolver_t *r, fm_json_t *params)
{
    fm_json_t *opponent = fm_json_object();
    fm_json_t *model = NULL;
    fm_json_t *adapter = NULL;
    fm_status_t rc =
        opponent ? fm_wf_model_params(r, fm_yaml_get(r->node->tree, "opponent"),
                                      "opponent", &model, &adapter)
                 : fm_wf_no_memory(r);

    if (rc == FM_OK) {
        rc = fm_wf_set(r, opponent, "model", fm_json_keep(model));
    }
    if (rc == FM_OK && adapter) {
        rc = fm_wf_set(r, opponent, "adapter", fm_json_keep(adapter));
    }
    if (rc == FM_OK) {
        rc = fm_wf_set(r, params, "opponent", fm_json_keep(opponent));
    }
    fm_json_drop(opponent);
    fm_json_drop(model);
    fm_json_drop(adapter);
    return rc;
}

/* The metrics asked for, sorted and distinct. */
static fm_status_t put_metrics(const fm_wf_resolver_t *r, bool *exact_out,
                               int *group_out, fm_json_t *params)
{
    const fm_yaml_value_t *metrics = fm_yaml_get(r->node->tree, "metrics");
    fm_json_t *given = NULL;
    fm_json_t *list = NULL;
    fm_status_t rc = fm_wf_resolve(r, metrics, false, &given);

    if (rc < 0 || (rc = fm_wf_text_set(r, given, "metrics", &list)) < 0) {
        goto out;
    }
    for (size_t i = 0; i < fm_json_len(list); i++) {
        const char *name = fm_json_str(fm_json_at(list, i));
        *group_out = fm_wf_metric_group(name);
        *exact_out = *exact_out || strcmp(name, "exact_match") == 0;
    }
    rc = fm_wf_set(r, params, "metrics", fm_json_keep(list));
out:
    fm_json_drop(given);
    fm_json_drop(list);
    return rc;
}

/* What pass_at_k and win_rate add. */
static fm_status_t put_contest(const fm_wf_resolver_t *r,
                               const fm_json_t *given, bool pass,
                               fm_json_t *params)
{
    int64_t n = fm_json_get_int(given, "n", 1);
    fm_json_t *drawn = fm_json_object();
    static const char *const keys[] = {"temperature", "top_p", "top_k"};
    fm_status_t rc = drawn
                         ? fm_wf_drawing_params(r, &fm_wf_generation, given,
                                                pass && n > 1 ? 0.8 : 0, drawn)
                         : fm_wf_no_memory(r);

    for (size_t i = 0; i < FM_COUNT_OF(keys) && rc == FM_OK; i++) {
        rc = fm_wf_set(r, params, keys[i],
                       fm_json_keep(fm_json_get(drawn, keys[i])));
    }
    if (rc == FM_OK) {
        rc = fm_json_get_real(drawn, "temperature", 0) > 0
                 ? fm_wf_put_seed(r, given, params)
                 : fm_wf_set(r, params, "seed", fm_json_int(0));
    }
    if (rc == FM_OK && pass) {
        double score = fm_json_get_real(given, "pass_score", 1);
        if ((rc = fm_wf_set(r, params, "samples", fm_json_int(n))) == FM_OK &&
            (rc = put_k(r, fm_json_get(given, "k"), n, params)) == FM_OK) {
            rc = fm_wf_set(r, params, "pass_score", fm_json_real(score));
        }
    } else if (rc == FM_OK) {
        rc = put_opponent(r, params);
    }
    fm_json_drop(drawn);
    return rc < 0 ? rc : put_reward(r, params);
}

fm_status_t fm_wf_evaluate_params(const fm_wf_resolver_t *r, fm_json_t *params)
{
    static const char *const nulls[] = {"samples", "k",          "temperature",
                                        "top_p",   "top_k",      "seed",
                                        "reward",  "pass_score", "opponent"};
    fm_json_t *given = NULL;
    bool exact = false;
    int group = 0;
    fm_status_t rc = put_metrics(r, &exact, &group, params);

    if (rc < 0 || (rc = fm_wf_section_read(r, "generation", &fm_wf_generation,
                                           &given)) < 0) {
        return rc;
    }
    bool contest = group == FM_WF_GROUP_PASS || group == FM_WF_GROUP_WIN;
    int64_t most = fm_json_int_or(
        fm_yaml_json_either(&fm_wf_generation, given, "max_new_tokens"), 64);
    const fm_json_t *length = fm_json_get(given, "max_seq_length");
    if ((rc = fm_wf_set(r, params, "max_new_tokens",
                        exact || contest ? fm_json_int(most)
                                         : fm_json_null())) == FM_OK) {
        rc = fm_wf_set(r, params, "max_seq_length",
                       length ? fm_json_keep(length) : fm_json_null());
    }
    for (size_t i = 0; i < FM_COUNT_OF(nulls) && rc == FM_OK; i++) {
        rc = fm_wf_set(r, params, nulls[i], fm_json_null());
    }
    if (rc == FM_OK && contest) {
        rc = put_contest(r, given, group == FM_WF_GROUP_PASS, params);
    }
    fm_json_drop(given);
    return rc;
}
