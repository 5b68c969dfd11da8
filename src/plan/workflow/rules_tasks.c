/* SPDX-License-Identifier: Apache-2.0 */
/* Rules of the sections that belong to task types (docs/spec/workflow.md §6),
 * as far as the text tells. */
#include <string.h>

#include "base/mem.h"
#include "plan/workflow/graph.h"
#include "plan/workflow/model.h"
#include "plan/workflow/ref.h"
#include "plan/workflow/reward.h"

#define WHERE_DEPTH_MAX 16u   /* W62 */
#define WHERE_TESTS_MAX 1000u /* W62 */
#define PARTS_MAX 64u         /* W64 */

/* --- training ------------------------------------------------------------- */

static fm_status_t check_either(const fm_yaml_value_t *training,
                                const char *one, const char *other,
                                const fm_yaml_source_t *source)
{
    const fm_yaml_value_t *at = fm_yaml_get(training, one);

    if (!at || !fm_yaml_get(training, other)) {
        return FM_OK;
    }
    return fm_yaml_fail(source, at->line, at->column, FM_ERR_INVALID,
                        "training.%s with %s; allowed: one of them", one,
                        other);
}

static fm_status_t check_training(const fm_yaml_value_t *tree,
                                  const fm_yaml_source_t *source)
{
    const fm_yaml_value_t *training = fm_yaml_get(tree, "training");
    const fm_yaml_value_t *rslora =
        fm_yaml_get(fm_yaml_get(tree, "lora"), "use_rslora");
    fm_status_t rc = FM_OK;

    if ((rc = check_either(training, "steps", "num_train_epochs", source)) <
            0 ||
        (rc = check_either(training, "warmup_ratio", "warmup_steps", source)) <
            0) {
        return rc;
    }
    return rslora && rslora->type == FM_JSON_BOOL && rslora->boolean
               ? fm_yaml_fail(
                     source, rslora->line, rslora->column, FM_ERR_UNSUPPORTED,
                     "lora.use_rslora is not supported by this version; "
                     "allowed: false")
               : FM_OK;
}

/* What decides how many nodes a ppo or grpo becomes is literal (W21). */
static fm_status_t check_policy(const fm_yaml_value_t *tree, int task,
                                const fm_yaml_source_t *source)
{
    static const char *const literal[] = {"kl_coef", "beta"};
    const fm_yaml_value_t *training = fm_yaml_get(tree, "training");
    const fm_yaml_value_t *steps = fm_yaml_get(training, "steps");

    if (!steps || steps->type != FM_JSON_INT) {
        return fm_yaml_fail_at(source,
                               steps      ? steps
                               : training ? training
                                          : tree,
                               "ppo and grpo need training.steps: a literal "
                               "number of iterations, from 1 to 10000");
    }
    for (size_t i = 0; i < FM_COUNT_OF(literal); i++) {
        const fm_yaml_value_t *value = fm_yaml_get(training, literal[i]);
        if (fm_yaml_str(value)) {
            return fm_yaml_fail_at(source, value,
                                   "a reference; allowed: a literal number");
        }
    }
    return fm_wf_rewards_check(tree, task, source);
}

/* --- evaluate ------------------------------------------------------------- */

static fm_status_t fail_metric(const fm_yaml_value_t *metric,
                               const fm_yaml_source_t *source)
{
    static const char *const names[] = {
        "loss",        "perplexity", "preference_accuracy",
        "exact_match", "accuracy",   "pass_at_k",
        "win_rate"};
    const char *name = fm_yaml_str(metric);
    char hint[96];

    return fm_yaml_fail(
        source, metric->line, metric->column, FM_ERR_INVALID,
        "metric %.60s; allowed: loss, perplexity, "
        "preference_accuracy, exact_match, accuracy, pass_at_k, "
        "win_rate%s",
        name ? name : "that is no text",
        name ? fm_yaml_suggest(name, names, FM_COUNT_OF(names), hint,
                               sizeof(hint))
             : "");
}

static fm_status_t check_metrics(const fm_yaml_value_t *metrics,
                                 const fm_yaml_source_t *source, int *group_out)
{
    for (size_t i = 0; i < metrics->count; i++) {
        const fm_yaml_value_t *metric = metrics->members[i].value;
        int group = fm_wf_metric_group(fm_yaml_str(metric));
        if (group < 0) {
            return fail_metric(metric, source);
        }
        if (i > 0 && group != *group_out) {
            return fm_yaml_fail(
                source, metric->line, metric->column, FM_ERR_INVALID,
                "metric %s wants other samples than %s; allowed: "
                "a node each",
                metric->text, metrics->members[0].value->text);
        }
        *group_out = group;
    }
    return FM_OK;
}

static fm_status_t check_evaluate(const fm_yaml_value_t *tree,
                                  const fm_yaml_source_t *source)
{
    const fm_yaml_value_t *metrics = fm_yaml_get(tree, "metrics");
    const fm_yaml_value_t *opponent = fm_yaml_get(tree, "opponent");
    const fm_yaml_value_t *reward = fm_yaml_get(tree, "reward");
    fm_wf_model_origin_t origin = {0};
    int group = 0;
    fm_status_t rc = FM_OK;

    if (!metrics || metrics->type != FM_JSON_ARRAY || !metrics->count) {
        return fm_yaml_fail_at(
            source, metrics ? metrics : tree,
            "evaluate needs metrics: a list of loss, perplexity, "
            "preference_accuracy, exact_match, accuracy, pass_at_k, win_rate");
    }
    if ((rc = check_metrics(metrics, source, &group)) < 0) {
        return rc;
    }
    bool win = group == FM_WF_GROUP_WIN;
    if (win != (opponent != NULL)) {
        return fm_yaml_fail_at(source, opponent ? opponent : metrics,
                               win ? "win_rate needs an opponent: {source, ...}"
                                   : "opponent goes with win_rate");
    }
    if (opponent && (rc = fm_wf_model_read(opponent, source, &origin)) < 0) {
        return rc;
    }
    if (win || group == FM_WF_GROUP_PASS) {
        return fm_wf_rewards_check(tree, FM_WF_EVALUATE, source);
    }
    return reward ? fm_yaml_fail_at(source, reward,
                                    "reward goes with pass_at_k and win_rate")
                  : FM_OK;
}

/* --- data operators ------------------------------------------------------- */

struct where {
    const fm_yaml_value_t *at;
    const fm_yaml_source_t *source;
    size_t tests;
    bool strict;
};

static bool is_one_of(const char *text, const char *const *names, size_t count)
{
    for (size_t i = 0; text && i < count; i++) {
        if (strcmp(names[i], text) == 0) {
            return true;
        }
    }
    return false;
}

static bool test_fits(const struct where *w, const fm_json_t *test)
{
    static const char *const keys[] = {"field", "of", "op", "value"};
    static const char *const ops[] = {"eq",      "ne",    "lt", "le",
                                      "gt",      "ge",    "in", "contains",
                                      "matches", "exists"};
    static const char *const ofs[] = {"value", "length", "words"};
    const fm_json_t *field = fm_json_get(test, "field");
    const fm_json_t *op = fm_json_get(test, "op");
    const fm_json_t *of = fm_json_get(test, "of");
    const char *key = NULL;
    fm_json_t *value = NULL;
    void *at = NULL;
    bool fits = fm_json_is(test, FM_JSON_OBJECT) && field &&
                fm_json_get(test, "value") &&
                (fm_json_str(field) || fm_json_is(field, FM_JSON_NULL)) &&
                (!op || is_one_of(fm_json_str(op), ops, FM_COUNT_OF(ops))) &&
                (!of || is_one_of(fm_json_str(of), ofs, FM_COUNT_OF(ofs)));

    while (fits && fm_json_next(test, &at, &key, &value)) {
        fits = is_one_of(key, keys, FM_COUNT_OF(keys));
    }
    return fits || (!w->strict && fm_wf_ref_is_whole(fm_json_str(test)));
}

static bool where_fits(struct where *w, const fm_json_t *given, size_t depth)
{
    static const char *const lists[] = {"all", "any"};
    const fm_json_t *list = fm_json_is(given, FM_JSON_ARRAY) ? given : NULL;
    const fm_json_t *negated = fm_json_get(given, "not");
    bool fits = depth < WHERE_DEPTH_MAX;

    for (size_t i = 0; i < FM_COUNT_OF(lists) && !list; i++) {
        list = fm_json_get(given, lists[i]);
        fits = fits && (!list || fm_json_len(given) == 1);
    }
    if (!fits || (list && !fm_json_is(list, FM_JSON_ARRAY))) {
        return false;
    }
    if (list) {
        fits = fm_json_len(list) > 0;
        for (size_t i = 0; i < fm_json_len(list) && fits; i++) {
            fits = where_fits(w, fm_json_at(list, i), depth + 1);
        }
        return fits;
    }
    if (negated) {
        return fm_json_len(given) == 1 && where_fits(w, negated, depth + 1);
    }
    return ++w->tests <= WHERE_TESTS_MAX && test_fits(w, given);
}

fm_status_t fm_wf_where_check(const fm_json_t *where, const fm_yaml_value_t *at,
                              bool strict, const fm_yaml_source_t *source)
{
    struct where w = {.at = at, .source = source, .strict = strict};

    return where_fits(&w, where, 0)
               ? FM_OK
               : fm_yaml_fail_at(
                     source, at,
                     "filter.where; allowed: {field, op, value}, a list of "
                     "conditions (all hold), {all: [...]}, {any: [...]}, {not: "
                     "...}; op eq, ne, lt, le, gt, ge, in, contains, matches "
                     "or exists; of value, length or words");
}

/* Either a python function or what @p other says. */
static fm_status_t check_function(const fm_yaml_value_t *tree, const char *name,
                                  const char *other,
                                  const fm_yaml_source_t *source)
{
    const fm_yaml_value_t *section = fm_yaml_get(tree, name);
    const fm_yaml_value_t *code = fm_yaml_get(section, "code");
    const fm_yaml_value_t *rule = fm_yaml_get(section, other);
    const fm_yaml_value_t *entry = fm_yaml_get(section, "entrypoint");

    if (!code == !rule || (entry && !code)) {
        return fm_yaml_fail(source, (section ? section : tree)->line,
                            (section ? section : tree)->column, FM_ERR_INVALID,
                            "%s; allowed: {code, entrypoint} or {%s}", name,
                            other);
    }
    if (code) {
        return fm_wf_code_check(code, entry, section, source);
    }
    return strcmp(other, "where") == 0
               ? fm_wf_where_check(rule->json, rule, false, source)
               : FM_OK;
}

/* A term of a map: text, {from, default}, {value} or {template}. */
static bool term_fits(const fm_yaml_value_t *term)
{
    const fm_yaml_value_t *from = fm_yaml_get(term, "from");
    const fm_yaml_value_t *template = fm_yaml_get(term, "template");
    size_t known = fm_yaml_member(term, "default") ? 2 : 1;

    if (fm_yaml_str(term)) {
        return *term->text != '\0';
    }
    if (from) {
        return fm_yaml_str(from) && term->count == known;
    }
    return term->type == FM_JSON_OBJECT && term->count == 1 &&
           (fm_yaml_str(template) || fm_yaml_member(term, "value"));
}

static fm_status_t check_map(const fm_yaml_value_t *tree,
                             const fm_yaml_source_t *source)
{
    const fm_yaml_value_t *section = fm_yaml_get(tree, "map");
    const fm_yaml_value_t *fields = fm_yaml_get(section, "fields");
    const char *stray = fields ? "flatten" : "keep";
    fm_status_t rc = check_function(tree, "map", "fields", source);

    if (rc == FM_OK && fm_yaml_get(section, stray)) {
        rc = fm_yaml_fail_at(source, fm_yaml_get(section, stray),
                             fields ? "flatten goes with code"
                                    : "keep goes with fields");
    }
    for (size_t i = 0; fields && i < fields->count && rc == FM_OK; i++) {
        if (!term_fits(fields->members[i].value)) {
            rc = fm_yaml_fail_at(source, fields->members[i].value,
                                 "a field of map; allowed: a field's name, "
                                 "{from, default}, {value} or {template}");
        }
    }
    return rc;
}

static fm_status_t check_split(const fm_yaml_value_t *tree,
                               const fm_yaml_source_t *source)
{
    const fm_yaml_value_t *section = fm_yaml_get(tree, "split");
    const fm_yaml_value_t *parts = fm_yaml_get(section, "parts");
    size_t counts = 0;
    size_t fractions = 0;
    size_t rests = 0;
    double sum = 0;

    if (!parts || parts->type != FM_JSON_OBJECT || !parts->count ||
        parts->count > PARTS_MAX) {
        return fm_yaml_fail_at(
            source,
            parts     ? parts
            : section ? section
                      : tree,
            "split needs parts: {NAME: size, ...}, 1 to 64 of "
            "them");
    }
    for (size_t i = 0; i < parts->count; i++) {
        const fm_yaml_value_t *size = parts->members[i].value;
        const char *text = fm_yaml_str(size);
        bool late = fm_wf_ref_is_whole(text);
        bool fits = text ? late || strcmp(text, "rest") == 0
                    : size->type == FM_JSON_INT
                        ? size->integer >= 0
                        : size->type == FM_JSON_REAL && size->real > 0 &&
                              size->real <= 1;
        rests += text && !late;
        counts += size->type == FM_JSON_INT;
        fractions += size->type == FM_JSON_REAL;
        sum += size->type == FM_JSON_REAL ? size->real : 0;
        if (!fits || rests > 1 || (counts && fractions) || sum > 1 + 1e-9) {
            return fm_yaml_fail_at(
                source, size,
                "the size of a part; allowed: fractions such as 0.1 (in all "
                "at most 1) or counts such as 100, and rest, once");
        }
    }
    return FM_OK;
}

static fm_status_t check_sizes(const fm_yaml_value_t *tree, int task,
                               const fm_yaml_source_t *source)
{
    const fm_yaml_value_t *shard = fm_yaml_get(tree, "shard");
    const fm_yaml_value_t *sample = fm_yaml_get(tree, "sample");

    if (task == FM_WF_SHARD &&
        (!fm_yaml_get(shard, "index") || !fm_yaml_get(shard, "count"))) {
        return fm_yaml_fail_at(source, shard ? shard : tree,
                               "shard needs index and count");
    }
    if (task == FM_WF_SAMPLE &&
        !fm_yaml_get(sample, "count") == !fm_yaml_get(sample, "fraction")) {
        return fm_yaml_fail_at(source, sample ? sample : tree,
                               "sample; allowed: one of count, fraction");
    }
    return FM_OK;
}

fm_status_t fm_wf_rules_task(const fm_yaml_value_t *tree, int task,
                             const fm_yaml_source_t *source)
{
    fm_status_t rc =
        task & FM_WF_TRAINING ? check_training(tree, source) : FM_OK;

    if (rc < 0) {
        return rc;
    }
    switch (task) {
    case FM_WF_PPO:
    case FM_WF_GRPO:
        return check_policy(tree, task, source);
    case FM_WF_EVALUATE:
        return check_evaluate(tree, source);
    case FM_WF_REWARD:
        return fm_wf_rewards_check(tree, task, source);
    case FM_WF_FILTER:
        return check_function(tree, "filter", "where", source);
    case FM_WF_MAP_TASK:
        return check_map(tree, source);
    case FM_WF_SPLIT:
        return check_split(tree, source);
    default:
        return check_sizes(tree, task, source);
    }
}
