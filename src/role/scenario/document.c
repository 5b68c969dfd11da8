/* SPDX-License-Identifier: Apache-2.0 */
/* The document: settings from outside, the runs of compare, and each run read
 * from its own version of the tree (docs/spec/scenario.md §1, §2, §10). */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "role/scenario/internal.h"

#define SETS_MAX 64u

/* --- settings ------------------------------------------------------------- */

/* @p root with @p value at @p path; @p at is where it was asked for. */
static fm_status_t put(fm_scenario_t *s, const fm_yaml_source_t *source,
                       const fm_yaml_value_t *at, const char *path,
                       const fm_yaml_value_t *value,
                       const fm_yaml_value_t **root)
{
    fm_error_t why = {0};
    fm_status_t rc = fm_yaml_put(&s->arena, *root, path, value, root, &why);

    return rc == FM_OK || rc == FM_ERR_NO_MEMORY
               ? (rc == FM_OK ? rc : fm_no_memory(source->err))
               : fm_yaml_fail(source, at->line, at->column, rc, "%s: %s", path,
                              why.text);
}

static fm_status_t put_text(fm_scenario_t *s, const fm_yaml_source_t *source,
                            const fm_yaml_value_t *at, const char *path,
                            const char *text, const fm_yaml_value_t **root)
{
    const fm_yaml_value_t *value = fm_yaml_string(&s->arena, text, at);

    return value ? put(s, source, at, path, value, root)
                 : fm_no_memory(source->err);
}

/* "path.to.key=value" */
static fm_status_t put_setting(fm_scenario_t *s, const char *set,
                               const fm_yaml_value_t **root, fm_error_t *err)
{
    const fm_yaml_source_t source = {"--set", err};
    const char *equals = strchr(set, '=');
    const fm_yaml_value_t *value = NULL;
    fm_status_t rc = FM_OK;

    if (!equals || equals == set) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "--set %.200s: allowed: path.to.key=value", set);
    }
    const char *path = fm_yaml_text(&s->arena, set, (size_t)(equals - set));
    if (!path) {
        return fm_no_memory(err);
    }
    rc = fm_yaml_parse(&s->arena, equals + 1, strlen(equals + 1), &source,
                       &value);
    return rc < 0 ? rc : put(s, &source, value, path, value, root);
}

static fm_status_t put_options(fm_scenario_t *s,
                               const fm_scenario_options_t *opts,
                               const fm_yaml_value_t **root, fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    for (size_t i = 0; i < opts->set_count && rc == FM_OK; i++) {
        rc = put_setting(s, opts->sets[i], root, err);
    }
    if (rc == FM_OK && opts->trace) {
        const fm_yaml_source_t source = {"--trace", err};
        const fm_yaml_value_t *trace = fm_yaml_get(*root, "trace");
        if (!trace || trace->type != FM_JSON_OBJECT) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "--trace: this scenario has no trace section");
        }
        rc = put_text(s, &source, trace, "trace.path", opts->trace, root);
    }
    return rc;
}

/* --- one run -------------------------------------------------------------- */

static fm_status_t read_without(reader_t *r, const fm_yaml_value_t *list)
{
    static const char *const names[] = {"batching",      "dedup",
                                        "locality",      "elasticity",
                                        "consolidation", "fair_share"};
    fm_sim_ablation_t *a = &r->run->input.ablation;
    bool *const flags[] = {&a->no_batching,      &a->no_dedup,
                           &a->no_locality,      &a->no_elasticity,
                           &a->no_consolidation, &a->no_fair_share};

    for (size_t i = 0; list && i < list->count; i++) {
        const fm_yaml_value_t *name = list->members[i].value;
        size_t k = 0;
        while (k < FM_COUNT_OF(names) &&
               strcmp(names[k], fm_scenario_written(name)) != 0) {
            k++;
        }
        if (k == FM_COUNT_OF(names)) {
            return fm_scenario_unknown(r, name, "part to leave out", names,
                                       FM_COUNT_OF(names));
        }
        *flags[k] = true;
    }
    return FM_OK;
}

static fm_status_t read_scheduler(reader_t *r, const fm_yaml_value_t *map)
{
    const fm_yaml_value_t *lambda = fm_yaml_get(map, "lambda");
    fm_sched_options_t *o = &r->run->input.sched;
    fm_status_t rc = FM_OK;

    o->lambda[FM_SCHED_INFERENCE] = fm_yaml_real(lambda, "inference", 0);
    o->lambda[FM_SCHED_TRAINING] = fm_yaml_real(lambda, "training", 0);
    o->lambda[FM_SCHED_OTHER] = fm_yaml_real(lambda, "other", 0);
    o->patience = fm_yaml_real(map, "patience", 0);
    o->energy_per_kwh = fm_yaml_real(map, "energy_per_kwh", 0);
    r->run->input.energy_per_kwh = o->energy_per_kwh;
    if ((rc = fm_yaml_seconds(map, "age_scale", &o->age_scale_s, &r->source)) <
        0) {
        return rc;
    }
    return fm_yaml_seconds(map, "grain", &o->grain_s, &r->source);
}

static fm_status_t read_execution(reader_t *r, const fm_yaml_value_t *map)
{
    const char *costs = fm_yaml_str(fm_yaml_get(map, "costs"));
    fm_sim_input_t *input = &r->run->input;
    fm_status_t rc = FM_OK;

    input->noise = fm_yaml_real(map, "noise", 0.1);
    input->hidden = fm_yaml_real(map, "hidden", 0.2);
    input->know = costs && strcmp(costs, "known") == 0;
    if ((rc = fm_yaml_seconds(map, "checkpoint", &input->checkpoint_s,
                              &r->source)) < 0 ||
        (rc = fm_yaml_seconds(map, "call", &input->call_s, &r->source)) < 0) {
        return rc;
    }
    return fm_yaml_seconds(map, "horizon", &input->horizon_s, &r->source);
}

static fm_status_t read_run(reader_t *r, const fm_yaml_value_t *root)
{
    const char *policy = fm_yaml_str(fm_yaml_get(root, "policy"));
    fm_sim_input_t *input = &r->run->input;
    fm_status_t rc = fm_scenario_check(r, &fm_scenario_root, root, "");

    if (rc < 0) {
        return rc;
    }
    input->seed = (uint64_t)fm_yaml_int(root, "seed", 1);
    if (!fm_place_policy_find(policy ? policy : "flowmesh", &input->policy)) {
        return fm_yaml_fail_at(&r->source, fm_yaml_get(root, "policy"),
                               "no such policy");
    }
    if ((rc = read_without(r, fm_yaml_get(root, "without"))) < 0 ||
        (rc = read_scheduler(r, fm_yaml_get(root, "scheduler"))) < 0 ||
        (rc = read_execution(r, fm_yaml_get(root, "execution"))) < 0 ||
        (rc = fm_scenario_read_models(r, root)) < 0 ||
        (rc = fm_scenario_read_cluster(r, root)) < 0 ||
        (rc = fm_scenario_read_workflows(r, root)) < 0) {
        return rc;
    }
    return fm_scenario_read_workload(r, root);
}

/* Read run number run_count of @p scenario. */
static fm_status_t add_run(fm_scenario_t *s, const fm_yaml_source_t *source,
                           const fm_yaml_value_t *root, const char *name,
                           const fm_yaml_value_t *at)
{
    run_t *run = &s->runs[s->run_count];
    reader_t r = {.scenario = s, .run = run, .source = *source};

    assert(name);
    for (size_t i = 0; i < s->run_count; i++) {
        if (strcmp(s->runs[i].name, name) == 0) {
            return fm_yaml_fail(source, at->line, at->column, FM_ERR_INVALID,
                                "two runs called %.80s; give one a name", name);
        }
    }
    run->name = name;
    fm_status_t rc = read_run(&r, root);
    if (rc == FM_OK) {
        s->run_count++;
    }
    return rc;
}

/* --- compare -------------------------------------------------------------- */

/* "flowmesh", "flowmesh without dedup, batching": a run that has no name. */
static const char *name_of(fm_scenario_t *s, const fm_yaml_value_t *entry,
                           const char *policy)
{
    const char *given = fm_yaml_str(fm_yaml_get(entry, "name"));
    const fm_yaml_value_t *without = fm_yaml_get(entry, "without");
    const fm_yaml_value_t *set = fm_yaml_get(entry, "set");
    const char *name = policy;

    if (given && *given) {
        return given;
    }
    for (size_t i = 0; name && without && i < without->count; i++) {
        name = fm_yaml_printf(&s->arena, "%s%s%s", name, i ? ", " : " without ",
                              fm_scenario_written(without->members[i].value));
    }
    for (size_t i = 0; name && set && i < set->count; i++) {
        const char *text = fm_scenario_written(set->members[i].value);
        name = fm_yaml_printf(&s->arena, "%s %s=%s", name, set->members[i].key,
                              *text ? text : "…");
    }
    return name;
}

static fm_status_t add_entry(fm_scenario_t *s, const fm_yaml_source_t *source,
                             const fm_yaml_value_t *root,
                             const fm_yaml_value_t *entry, const char *seed)
{
    reader_t r = {.scenario = s, .source = *source};
    const fm_yaml_value_t *set = NULL;
    fm_status_t rc = FM_OK;
    const char *policy = fm_yaml_str(entry);

    if (policy) {
        rc = put_text(s, source, entry, "policy", policy, &root);
        entry = NULL;
    } else {
        if ((rc = fm_scenario_check(&r, &fm_scenario_compare, entry,
                                    "an entry of compare")) < 0) {
            return rc;
        }
        static const char *const keys[] = {"policy", "without"};
        for (size_t i = 0; i < FM_COUNT_OF(keys) && rc == FM_OK; i++) {
            const fm_yaml_value_t *value = fm_yaml_get(entry, keys[i]);
            rc = value ? put(s, source, value, keys[i], value, &root) : FM_OK;
        }
        set = fm_yaml_get(entry, "set");
        if (rc == FM_OK && set && set->count > SETS_MAX) {
            return fm_yaml_fail(source, set->line, set->column, FM_ERR_LIMIT,
                                "%zu settings; allowed: at most %u", set->count,
                                SETS_MAX);
        }
    }
    for (size_t i = 0; set && i < set->count && rc == FM_OK; i++) {
        rc = put(s, source, set->members[i].value, set->members[i].key,
                 set->members[i].value, &root);
    }
    if (rc == FM_OK && seed) {
        rc = put_setting(s, seed, &root, source->err);
    }
    const char *now = fm_yaml_str(fm_yaml_get(root, "policy"));
    const char *name =
        rc == FM_OK ? name_of(s, entry, now ? now : "flowmesh") : NULL;
    if (rc == FM_OK && !name) {
        rc = fm_no_memory(source->err);
    }
    return rc == FM_OK && name
               ? add_run(s, source, root, name, entry ? entry : root)
               : rc;
}

/* "a,b" of --policy as entries of compare. */
static fm_status_t policies_list(fm_scenario_t *s, const char *policies,
                                 const fm_yaml_value_t *at,
                                 const fm_yaml_value_t **out, fm_error_t *err)
{
    fm_yaml_member_t members[16];
    size_t count = 0;

    while (*policies) {
        size_t len = strcspn(policies, ",");
        const char *name = fm_yaml_text(&s->arena, policies, len);
        const fm_yaml_value_t *value =
            name ? fm_yaml_string(&s->arena, name, at) : NULL;
        fm_place_policy_t known = FM_PLACE_FLOWMESH;
        if (!value) {
            return fm_no_memory(err);
        }
        if (count == FM_COUNT_OF(members) ||
            !fm_place_policy_find(name, &known)) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "--policy %.80s; allowed: flowmesh, "
                                "static_worker, fixed_pipeline, round_robin, "
                                "adaptive, or several with commas",
                                name);
        }
        members[count++] = (fm_yaml_member_t){.value = value};
        policies += len + (policies[len] == ',' ? 1 : 0);
    }
    *out = fm_yaml_container(&s->arena, FM_JSON_ARRAY, at->line, at->column,
                             members, count);
    return *out ? FM_OK : fm_no_memory(err);
}

static fm_status_t read_runs(fm_scenario_t *s, const fm_yaml_source_t *source,
                             const fm_yaml_value_t *root,
                             const fm_scenario_options_t *opts)
{
    const fm_yaml_value_t *compare = fm_yaml_get(root, "compare");
    reader_t r = {.scenario = s, .source = *source};
    fm_status_t rc = FM_OK;
    const char *seed = NULL;
    size_t count = 0;

    if (opts->seed &&
        !(seed = fm_yaml_printf(&s->arena, "seed=%s", opts->seed))) {
        return fm_no_memory(source->err);
    }
    if (opts->policies && (rc = policies_list(s, opts->policies, root, &compare,
                                              source->err)) < 0) {
        return rc;
    }
    if ((rc = fm_scenario_list(&r, compare, "runs", FM_SCENARIO_RUNS_MAX,
                               &count)) < 0) {
        return rc;
    }
    if (!(s->runs = fm_calloc(count ? count : 1, sizeof(*s->runs)))) {
        return fm_no_memory(source->err);
    }
    for (size_t i = 0; i < count && rc == FM_OK; i++) {
        rc = add_entry(s, source, root, compare->members[i].value, seed);
    }
    if (count == 0) {
        const fm_yaml_value_t *nothing = fm_yaml_container(
            &s->arena, FM_JSON_OBJECT, root->line, root->column, NULL, 0);
        rc = nothing ? add_entry(s, source, root, nothing, seed)
                     : fm_no_memory(source->err);
    }
    return rc;
}

/* --- the document --------------------------------------------------------- */

static fm_status_t check_head(const fm_yaml_value_t *root,
                              const fm_yaml_source_t *source)
{
    static const char *const wanted[][2] = {{"apiVersion", "flowmesh/v1"},
                                            {"kind", "Scenario"}};

    for (size_t i = 0; i < FM_COUNT_OF(wanted); i++) {
        const fm_yaml_value_t *value = fm_yaml_get(root, wanted[i][0]);
        const char *text = fm_yaml_str(value);
        if (!text || strcmp(text, wanted[i][1]) != 0) {
            return fm_yaml_fail(source, value ? value->line : root->line,
                                value ? value->column : root->column,
                                FM_ERR_INVALID, "%s %s%.60s; allowed: %s",
                                wanted[i][0], value ? "is " : "is missing",
                                fm_scenario_written(value), wanted[i][1]);
        }
    }
    return FM_OK;
}

static fm_status_t read_builtin(fm_scenario_t *s, fm_error_t *err)
{
    const fm_yaml_source_t source = {"built-in", err};
    fm_buf_t text = {0};

    for (size_t i = 0; fm_scenario_builtin[i]; i++) {
        fm_buf_add_str(&text, fm_scenario_builtin[i]);
    }
    fm_status_t rc = text.failed
                         ? fm_no_memory(err)
                         : fm_yaml_parse(&s->arena, fm_buf_cstr(&text),
                                         text.len, &source, &s->builtin);
    fm_buf_fini(&text);
    return rc;
}

static fm_status_t read_document(fm_scenario_t *s, const char *text, size_t len,
                                 const fm_scenario_options_t *opts,
                                 fm_error_t *err)
{
    const fm_yaml_source_t source = {s->file, err};
    reader_t r = {.scenario = s, .source = source};
    const fm_yaml_value_t *root = NULL;
    fm_status_t rc = FM_OK;

    if ((rc = read_builtin(s, err)) < 0 ||
        (rc = fm_yaml_parse(&s->arena, text, len, &source, &root)) < 0 ||
        (rc = fm_scenario_check(&r, &fm_scenario_root, root, "")) < 0 ||
        (rc = check_head(root, &source)) < 0 ||
        (rc = put_options(s, opts, &root, err)) < 0) {
        return rc;
    }
    const fm_yaml_value_t *meta = fm_yaml_get(root, "metadata");
    const char *name = fm_yaml_str(fm_yaml_get(meta, "name"));
    s->name = name && *name ? name : "scenario";
    return read_runs(s, &source, root, opts);
}

fm_status_t fm_scenario_parse(const char *text, size_t len, const char *file,
                              const fm_scenario_options_t *opts,
                              fm_scenario_t **out, fm_error_t *err)
{
    static const fm_scenario_options_t none;
    fm_scenario_t *s = fm_calloc(1, sizeof(*s));
    fm_status_t rc = FM_OK;

    if (!s || !(s->file = fm_yaml_text(&s->arena, file, strlen(file)))) {
        rc = fm_no_memory(err);
    } else {
        rc = read_document(s, text, len, opts ? opts : &none, err);
    }
    if (rc == FM_OK) {
        *out = s;
        s = NULL;
    }
    fm_scenario_destroy(s);
    return rc;
}

void *fm_scenario_destroy(fm_scenario_t *scenario)
{
    if (scenario) {
        free(scenario->runs);
        fm_yaml_arena_fini(&scenario->arena);
        free(scenario);
    }
    return NULL;
}

const char *fm_scenario_name(const fm_scenario_t *scenario)
{
    return scenario->name;
}

size_t fm_scenario_run_count(const fm_scenario_t *scenario)
{
    return scenario->run_count;
}

const char *fm_scenario_run_name(const fm_scenario_t *scenario, size_t run)
{
    return scenario->runs[run].name;
}

const fm_sim_input_t *fm_scenario_input(const fm_scenario_t *scenario,
                                        size_t run)
{
    return &scenario->runs[run].input;
}
