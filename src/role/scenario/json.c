/* SPDX-License-Identifier: Apache-2.0 */
/* The runs of a scenario as JSON: docs/spec/scenario.md §11. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "role/scenario/report.h"

#define VERSION 1

/* An object being made; the first failure sticks. */
typedef struct maker {
    fm_json_t *object;
    bool failed;
} maker_t;

static maker_t start(void)
{
    maker_t m = {.object = fm_json_object()};

    m.failed = !m.object;
    return m;
}

static void add(maker_t *m, const char *key, fm_json_t *value)
{
    if (m->failed) {
        fm_json_drop(value);
    } else if (fm_json_set(m->object, key, value) < 0) {
        m->failed = true;
    }
}

static void add_real(maker_t *m, const char *key, double value)
{
    add(m, key, fm_json_real(isfinite(value) ? value : 0));
}

static void add_count(maker_t *m, const char *key, uint64_t value)
{
    add(m, key, fm_json_int((int64_t)value));
}

static fm_json_t *finish(maker_t *m)
{
    return m->failed ? fm_json_drop(m->object) : m->object;
}

/* An array being made, likewise. */
static void append(fm_json_t **array, fm_json_t *value)
{
    if (!*array) {
        fm_json_drop(value);
    } else if (fm_json_append(*array, value) < 0) {
        *array = fm_json_drop(*array);
    }
}

/* --- parts ---------------------------------------------------------------- */

static fm_json_t *spread(const fm_sim_spread_t *s)
{
    maker_t m = start();

    add_count(&m, "count", s->count);
    add_real(&m, "mean", s->mean);
    add_real(&m, "p50", s->p50);
    add_real(&m, "p95", s->p95);
    add_real(&m, "p99", s->p99);
    add_real(&m, "max", s->max);
    return finish(&m);
}

static fm_json_t *categories(const fm_sim_result_t *r)
{
    fm_json_t *list = fm_json_array();

    for (size_t i = 0; i < r->latency_count; i++) {
        const fm_sim_latency_t *l = &r->latencies[i];
        maker_t m = start();
        add(&m, "category", fm_json_string(l->category));
        add(&m, "of", fm_json_string(l->workflows ? "workflows" : "stages"));
        add(&m, "queue", spread(&l->queue));
        add(&m, "run", spread(&l->run));
        add(&m, "total", spread(&l->total));
        append(&list, finish(&m));
    }
    return list;
}

static fm_json_t *classes(const fm_sim_result_t *r)
{
    fm_json_t *list = fm_json_array();

    for (size_t i = 0; i < r->class_count; i++) {
        const fm_sim_class_result_t *c = &r->classes[i];
        maker_t m = start();
        add(&m, "name", fm_json_string(c->name));
        add_real(&m, "up_s", c->up_s);
        add_real(&m, "busy_s", c->busy_s);
        add_real(&m, "load_s", c->load_s);
        add_real(&m, "cost", c->dollars);
        add_real(&m, "joules", c->joules);
        add_count(&m, "leases", c->leases);
        add_count(&m, "items", c->items);
        add_count(&m, "peak", c->peak);
        append(&list, finish(&m));
    }
    return list;
}

static fm_json_t *tenants(const fm_sim_result_t *r)
{
    fm_json_t *list = fm_json_array();

    for (size_t i = 0; i < r->tenant_count; i++) {
        const fm_sim_tenant_result_t *t = &r->tenants[i];
        maker_t m = start();
        add(&m, "name", fm_json_string(t->name));
        add_count(&m, "submitted", t->submitted);
        add_count(&m, "done", t->done);
        add_count(&m, "failed", t->failed);
        add_count(&m, "operators", t->items);
        add_count(&m, "ran", t->ran);
        add_count(&m, "shared", t->shared);
        add_real(&m, "device_s", t->device_s);
        add_real(&m, "dollars", t->dollars);
        add_real(&m, "joules", t->joules);
        add(&m, "total", spread(&t->total));
        append(&list, finish(&m));
    }
    return list;
}

static fm_json_t *timeline(const fm_sim_result_t *r)
{
    fm_json_t *list = fm_json_array();

    for (size_t i = 0; i < r->timeline_count; i++) {
        const fm_sim_sample_t *s = &r->timeline[i];
        maker_t m = start();
        add_real(&m, "t_s", s->t_s);
        add_real(&m, "up", s->up);
        add_real(&m, "busy", s->busy);
        add_real(&m, "ready", s->ready);
        add_real(&m, "running", s->running);
        add_real(&m, "done", s->done);
        add_real(&m, "cost", s->dollars);
        add_real(&m, "joules", s->joules);
        append(&list, finish(&m));
    }
    return list;
}

static fm_json_t *operators(const fm_sim_result_t *r)
{
    maker_t m = start();

    add_count(&m, "planned", r->planned);
    add_count(&m, "ran", r->ran);
    add_count(&m, "shared", r->shared);
    add_count(&m, "failed", r->items_failed);
    add_count(&m, "executed", r->executed);
    add_count(&m, "leases", r->leases);
    add_count(&m, "requeues", r->requeues);
    add_real(&m, "batch_mean", r->batch_mean);
    add_real(&m, "tokens", r->tokens);
    return finish(&m);
}

static fm_json_t *fleet(const fm_sim_result_t *r)
{
    maker_t m = start();

    add_real(&m, "up_s", r->up_s);
    add_real(&m, "busy_s", r->busy_s);
    add_real(&m, "load_s", r->load_s);
    add_real(&m, "wasted_s", r->wasted_s);
    add_count(&m, "loads", r->loads);
    add_real(&m, "load_bytes", r->load_bytes);
    add_count(&m, "starts", r->starts);
    add_count(&m, "drains", r->drains);
    add_count(&m, "preemptions", r->preemptions);
    add_count(&m, "losses", r->losses);
    add_count(&m, "walltimes", r->walltimes);
    add_count(&m, "task_errors", r->task_errors);
    add(&m, "classes", classes(r));
    return finish(&m);
}

static fm_json_t *planner(const fm_sim_result_t *r, bool timed)
{
    maker_t m = start();

    add_count(&m, "events", r->events);
    add_count(&m, "decisions", r->decisions);
    add_count(&m, "pool_bytes", r->pool_bytes);
    if (timed) {
        add_real(&m, "plan_s", r->plan_s);
        add_real(&m, "decide_s", r->decide_s);
    }
    return finish(&m);
}

static fm_json_t *ratios(const fm_sim_result_t *r, const fm_sim_result_t *first)
{
    const struct {
        const char *key;
        double value, first;
    } rows[] = {
        {"cost", r->cost, first->cost},
        {"joules", r->joules, first->joules},
        {"p50", r->total.p50, first->total.p50},
        {"p95", r->total.p95, first->total.p95},
        {"p99", r->total.p99, first->total.p99},
        {"makespan", r->makespan_s, first->makespan_s},
    };
    maker_t m = start();

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (rows[i].first > 0) {
            add_real(&m, rows[i].key, rows[i].value / rows[i].first);
        } else {
            add(&m, rows[i].key, fm_json_null());
        }
    }
    return finish(&m);
}

/* --- the whole ------------------------------------------------------------ */

static fm_json_t *latency(const fm_sim_result_t *r)
{
    maker_t m = start();

    add(&m, "total", spread(&r->total));
    add(&m, "queue", spread(&r->queue));
    add(&m, "run", spread(&r->run));
    add(&m, "categories", categories(r));
    return finish(&m);
}

static fm_json_t *one_run(const fm_scenario_t *scenario, size_t i,
                          const fm_sim_result_t *results, bool timed)
{
    const fm_sim_input_t *input = fm_scenario_input(scenario, i);
    const fm_sim_result_t *r = &results[i];
    char digest[24];
    maker_t m = start();

    (void)snprintf(digest, sizeof(digest), "%016" PRIx64, r->digest);
    add(&m, "name", fm_json_string(fm_scenario_run_name(scenario, i)));
    add(&m, "policy", fm_json_string(fm_place_policy_name(input->policy)));
    add_count(&m, "seed", input->seed);
    add(&m, "elastic", fm_json_bool(input->elastic));
    add(&m, "complete", fm_json_bool(r->complete));
    add_count(&m, "submitted", r->submitted);
    add_count(&m, "done", r->done);
    add_count(&m, "failed", r->failed);
    add_real(&m, "cost", r->cost);
    add_real(&m, "joules", r->joules);
    add_real(&m, "makespan_s", r->makespan_s);
    add_real(&m, "utilisation", r->utilisation);
    add(&m, "ratios", ratios(r, &results[0]));
    add(&m, "latency", latency(r));
    add(&m, "operators", operators(r));
    add(&m, "fleet", fleet(r));
    add(&m, "tenants", tenants(r));
    add(&m, "planner", planner(r, timed));
    add(&m, "timeline", timeline(r));
    add(&m, "digest", fm_json_string(digest));
    return finish(&m);
}

fm_json_t *fm_scenario_json(const fm_scenario_t *scenario,
                            const fm_sim_result_t *results, bool timed)
{
    fm_json_t *runs = fm_json_array();
    maker_t m = start();

    for (size_t i = 0; i < fm_scenario_run_count(scenario); i++) {
        append(&runs, one_run(scenario, i, results, timed));
    }
    add(&m, "v", fm_json_int(VERSION));
    add(&m, "scenario", fm_json_string(fm_scenario_name(scenario)));
    add(&m, "runs", runs);
    return finish(&m);
}
