/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Workflows of a run, one after another, as the simulator asks for them.
 *
 * Rows: the first `overlap` of a stage's items are rows 0 … of its dataset,
 * which everybody asks for; the rest are the workflow's own.  A training is on
 * the common samples with chance `training_overlap`, else on its own.  Stages
 * that read other stages have no rows: what they read makes them equal or not.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "role/scenario/internal.h"

#define OWN_ROWS_SHIFT 24 /* rows of one workflow: more than it may have */

struct fm_scenario_source {
    const run_t *run;
    fm_rng_t rng;
    size_t count, at;
    double *times;
    uint32_t *kinds;
    uint32_t share_total;
    fm_sim_stage_t *stages; /* of the workflow given last */
    fm_trace_t trace;
    fm_sim_model_t *models; /* the run's, then the trace's */
    size_t model_count;
};

void *fm_scenario_source_close(fm_scenario_source_t *source)
{
    if (source) {
        fm_trace_fini(&source->trace);
        free(source->times);
        free(source->kinds);
        free(source->stages);
        free(source->models);
        free(source);
    }
    return NULL;
}

size_t fm_scenario_source_count(const fm_scenario_source_t *source)
{
    return source->count;
}

/* --- opening -------------------------------------------------------------- */

static fm_status_t draw_arrivals(fm_scenario_source_t *s, fm_error_t *err)
{
    const workload_t *w = &s->run->workload;

    s->count = fm_arrivals_count(&w->arrivals);
    s->times = fm_calloc(s->count, sizeof(*s->times));
    s->kinds = fm_calloc(s->count, sizeof(*s->kinds));
    if (!s->times || !s->kinds) {
        return fm_no_memory(err);
    }
    fm_arrivals_times(&w->arrivals, &s->rng, s->times);
    return fm_arrivals_kinds(w->weights, w->mix_count,
                             w->arrivals.process == FM_ARRIVAL_BATCHED, &s->rng,
                             s->kinds, s->count, err);
}

/* A relative path begins where the scenario is. */
static char *trace_path(const fm_scenario_t *scenario, const char *path)
{
    const char *slash = strrchr(scenario->file, '/');

    return *path == '/' || !slash
               ? fm_strdup(path)
               : fm_asprintf("%.*s/%s", (int)(slash - scenario->file),
                             scenario->file, path);
}

/* The trace's base models, as large as the model that the scenario names. */
static fm_status_t add_models(fm_scenario_source_t *s, fm_error_t *err)
{
    const run_t *run = s->run;
    size_t own = run->input.model_count;

    if (own + s->trace.model_count > FM_SIM_MODELS_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "%zu models in the trace; allowed: %u with the "
                            "scenario's; take fewer rows (trace.limit)",
                            s->trace.model_count, FM_SIM_MODELS_MAX);
    }
    s->model_count = own + s->trace.model_count;
    if (!(s->models = fm_calloc(s->model_count, sizeof(*s->models)))) {
        return fm_no_memory(err);
    }
    memcpy(s->models, run->models, own * sizeof(*s->models));
    for (size_t i = 0; i < s->trace.model_count; i++) {
        s->models[own + i] = run->models[run->trace.model];
        s->models[own + i].name = s->trace.models[i];
    }
    return FM_OK;
}

static fm_status_t open_trace(fm_scenario_source_t *s,
                              const fm_scenario_t *scenario, fm_error_t *err)
{
    const trace_plan_t *plan = &s->run->trace;
    char *path = trace_path(scenario, plan->path);
    fm_status_t rc = path ? fm_trace_read(path, &plan->options, &s->trace, err)
                          : fm_no_memory(err);

    free(path);
    if (rc < 0) {
        return rc;
    }
    s->count = s->trace.count;
    return add_models(s, err);
}

fm_status_t fm_scenario_source_open(const fm_scenario_t *scenario, size_t run,
                                    fm_scenario_source_t **out, fm_error_t *err)
{
    fm_scenario_source_t *s = fm_calloc(1, sizeof(*s));
    const run_t *r = &scenario->runs[run];
    size_t most = 1;
    fm_status_t rc = FM_ERR_NO_MEMORY;

    for (size_t i = 0; i < r->template_count; i++) {
        size_t count = r->templates[i].stage_count;
        most = count > most ? count : most;
    }
    if (!s || !(s->stages = fm_calloc(most, sizeof(*s->stages)))) {
        (void)fm_no_memory(err);
        goto out;
    }
    s->run = r;
    fm_rng_init(&s->rng, r->input.seed);
    for (size_t i = 0; i < r->input.tenant_count; i++) {
        s->share_total += r->tenants[i].share;
    }
    rc = r->trace.path ? open_trace(s, scenario, err) : draw_arrivals(s, err);
    if (rc == FM_OK) {
        *out = s;
        s = NULL;
    }
out:
    fm_scenario_source_close(s);
    return rc;
}

/* --- workflows ------------------------------------------------------------ */

static const tenant_t *draw_tenant(fm_scenario_source_t *s)
{
    uint64_t at = fm_rng_below(&s->rng, s->share_total);
    const tenant_t *tenant = s->run->tenants;

    while (at >= tenant->share) {
        at -= tenant->share;
        tenant++;
    }
    return tenant;
}

static void give_rows(fm_scenario_source_t *s, const stage_plan_t *plan,
                      fm_sim_stage_t *stage)
{
    const workload_t *w = &s->run->workload;
    double common = plan->stage.work == FM_SIM_TRAIN ||
                            plan->stage.work == FM_SIM_TRAIN_LORA
                        ? fm_rng_uniform(&s->rng) < w->training_overlap
                        : round(w->overlap * stage->items);

    if (plan->own_rows) {
        stage->common_items = (uint32_t)common;
        stage->first_row = (uint64_t)(s->at + 1) << OWN_ROWS_SHIFT;
    }
}

static void next_of_mix(fm_scenario_source_t *s, fm_sim_workflow_t *out)
{
    const workload_t *w = &s->run->workload;
    const template_t *t = &s->run->templates[w->mix[s->kinds[s->at]]];
    const tenant_t *tenant = draw_tenant(s);
    int64_t arrival = (int64_t)(s->times[s->at] * (double)FM_NS_PER_S);

    for (size_t i = 0; i < t->stage_count; i++) {
        s->stages[i] = t->stages[i].stage;
        give_rows(s, &t->stages[i], &s->stages[i]);
    }
    *out = (fm_sim_workflow_t){
        .arrival_ns = arrival,
        .tenant = tenant->sim.name,
        .category = t->name,
        .priority = tenant->priority,
        .deadline_ns =
            tenant->deadline_s > 0
                ? arrival + (int64_t)(tenant->deadline_s * (double)FM_NS_PER_S)
                : 0,
        .stages = s->stages,
        .stage_count = t->stage_count,
    };
}

/* What a recorded request is here: completed by the model that the scenario
 * names, or, where only its seconds are known, as much arithmetic. */
static void request_stage(const fm_scenario_source_t *s,
                          const fm_trace_row_t *row, fm_sim_stage_t *out)
{
    const trace_plan_t *plan = &s->run->trace;
    bool timed = plan->options.format == FM_TRACE_ALIBABA_LORA;
    double flops = row->seconds * plan->reference_flops;

    *out = (fm_sim_stage_t){
        .name = "request",
        .category = timed ? "image" : "inference",
        .work = timed ? FM_SIM_FORWARD : FM_SIM_INFERENCE,
        .task_type = timed ? TASK_FORWARD : TASK_INFERENCE,
        .kind = FM_SCHED_INFERENCE,
        .model = timed ? (uint32_t)s->run->input.model_count + row->model
                       : plan->model,
        .model_of = FM_SIM_NONE,
        .adapter_of = FM_SIM_NONE,
        .items = 1,
        .memory_bytes = plan->memory_bytes,
        .dataset = 1,
        .first_row = row->content,
    };
    out->tokens_in =
        timed ? fmax(1, flops / (2 * s->models[out->model].parameters))
              : row->tokens_in;
    out->tokens_out = timed ? 0 : fmax(1, row->tokens_out);
}

static void next_of_trace(fm_scenario_source_t *s, fm_sim_workflow_t *out)
{
    const fm_trace_row_t *row = &s->trace.rows[s->at];
    const tenant_t *tenant = draw_tenant(s);

    request_stage(s, row, &s->stages[0]);
    *out = (fm_sim_workflow_t){
        .arrival_ns = (int64_t)(row->at_s * (double)FM_NS_PER_S),
        .tenant = s->trace.user_count > 0 ? s->trace.users[row->user]
                                          : tenant->sim.name,
        .category = "request",
        .priority = tenant->priority,
        .stages = s->stages,
        .stage_count = 1,
    };
}

fm_status_t fm_scenario_source_next(void *ctx, fm_sim_workflow_t *out,
                                    bool *more_out, fm_error_t *err)
{
    fm_scenario_source_t *s = ctx;

    (void)err;
    *more_out = s->at < s->count;
    if (*more_out) {
        if (s->run->trace.path) {
            next_of_trace(s, out);
        } else {
            next_of_mix(s, out);
        }
        s->at++;
    }
    return FM_OK;
}

fm_status_t fm_scenario_simulate(const fm_scenario_t *scenario, size_t run,
                                 int64_t (*clock_ns)(void *ctx),
                                 fm_sim_result_t *out, fm_error_t *err)
{
    fm_sim_input_t input = scenario->runs[run].input;
    fm_scenario_source_t *source = NULL;
    fm_status_t rc = fm_scenario_source_open(scenario, run, &source, err);

    if (rc == FM_OK) {
        input.source = fm_scenario_source_next;
        input.source_ctx = source;
        input.clock_ns = clock_ns;
        if (source->models) {
            input.models = source->models;
            input.model_count = source->model_count;
        }
        rc = fm_sim_run(&input, out, err);
    }
    fm_scenario_source_close(source);
    return rc;
}
