/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From an input to a simulator ready to run: everything is checked, defaults
 * are filled in, the plan modules are made, the fleet is laid out.
 */
#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "role/sim/internal.h"

#define CHECKPOINT_S 300.0
#define CALL_S 0.05
#define SCALE_INTERVAL_S 10.0
#define REPAIR_S 60.0
#define FLAP_UP_S 60.0
#define FLAP_DOWN_S 30.0
#define HORIZON_S (90.0 * 86400)
#define RATE 1e9 /* bytes a second, where none is given */
#define PARTS 4u
#define ENERGY_PER_KWH 0.15

/* --- checks
 * -------------------------------------------------------------------- */

static bool amount(double value)
{
    return isfinite(value) && value >= 0;
}

static fm_status_t class_check(const fm_sim_class_t *class, size_t index,
                               fm_error_t *err)
{
    const double amounts[] = {class->spec.overhead_s,
                              class->price_per_hour,
                              class->watts,
                              class->idle_watts,
                              class->load_bytes_per_s,
                              class->fetch_bytes_per_s,
                              class->startup_s,
                              class->walltime_s,
                              class->hazard_per_hour};

    if (!class->name || class->name[0] == '\0') {
        return fm_error_set(err, FM_ERR_INVALID, "class %zu has no name",
                            index);
    }
    for (size_t i = 0; i < FM_COUNT_OF(amounts); i++) {
        if (!amount(amounts[i])) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "class %s: %g is neither 0 nor positive",
                                class->name, amounts[i]);
        }
    }
    if (!(class->spec.flops_per_s > 0) || !(class->spec.bytes_per_s > 0)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "class %s: flops and bytes a second are needed",
                            class->name);
    }
    if (class->device != FM_SCHED_CPU && class->device != FM_SCHED_GPU) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "class %s: a device is a CPU or a GPU",
                            class->name);
    }
    if (class->max > 0 && class->min > class->max) {
        return fm_error_set(err, FM_ERR_INVALID, "class %s: min %u > max %u",
                            class->name, class->min, class->max);
    }
    return FM_OK;
}

static fm_status_t input_check(const fm_sim_input_t *input, fm_error_t *err)
{
    const fm_sim_failures_t *failures = &input->failures;
    const double amounts[] = {input->noise,
                              input->hidden,
                              input->checkpoint_s,
                              input->call_s,
                              input->horizon_s,
                              input->scale_interval_s,
                              input->energy_per_kwh,
                              failures->preempt_mean_s,
                              failures->warning_s,
                              failures->node_loss_mean_s,
                              failures->repair_s,
                              failures->flap_share,
                              failures->flap_up_s,
                              failures->flap_down_s,
                              failures->task_error_share};

    for (size_t i = 0; i < FM_COUNT_OF(amounts); i++) {
        if (!amount(amounts[i])) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "input: %g is neither 0 nor positive",
                                amounts[i]);
        }
    }
    if (!input->source || input->class_count == 0) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "input: a source and a class are needed");
    }
    if (input->class_count > FM_SIM_CLASSES_MAX ||
        input->model_count > FM_SIM_MODELS_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "input: at most %u classes and %u models",
                            FM_SIM_CLASSES_MAX, FM_SIM_MODELS_MAX);
    }
    if (input->settle_parts > PARTS_MAX || failures->flap_share > 1 ||
        failures->task_error_share > 1) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "input: a share is at most 1, parts %u", PARTS_MAX);
    }
    for (size_t m = 0; m < input->model_count; m++) {
        const fm_sim_model_t *model = &input->models[m];

        if (!model->name || !(model->parameters > 0) ||
            !isfinite(model->parameters) || model->weight_bytes == 0 ||
            !amount(model->kv_bytes_per_token)) {
            return fm_error_set(
                err, FM_ERR_INVALID,
                "model %zu: a name, parameters and bytes are needed", m);
        }
    }
    return FM_OK;
}

static bool earlier(uint32_t stage, size_t index)
{
    return stage == FM_SIM_NONE || stage < index;
}

static fm_status_t stage_check(const struct sim *sim,
                               const fm_sim_workflow_t *workflow, size_t index,
                               fm_error_t *err)
{
    const fm_sim_stage_t *stage = &workflow->stages[index];
    const double amounts[] = {stage->tokens_in, stage->tokens_out,
                              stage->spread,    stage->samples,
                              stage->epochs,    stage->sequence,
                              stage->seconds,   stage->input_bytes};
    bool model = stage->model != FM_SIM_NONE;

    for (size_t i = 0; i < FM_COUNT_OF(amounts); i++) {
        if (!amount(amounts[i])) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "stage %zu: %g is neither 0 nor positive",
                                index, amounts[i]);
        }
    }
    if ((unsigned)stage->work > FM_SIM_FIXED || stage->task_type > 63 ||
        stage->items == 0 || stage->items > FM_POOL_ITEMS_MAX) {
        return fm_error_set(
            err, FM_ERR_INVALID, "stage %zu: work %u, task type %u or %u items",
            index, (unsigned)stage->work, stage->task_type, stage->items);
    }
    if (model == (stage->work == FM_SIM_FIXED) ||
        (model && stage->model >= sim->input->model_count)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "stage %zu: all but fixed work has a model, below "
                            "%zu",
                            index, sim->input->model_count);
    }
    if (!earlier(stage->model_of, index) ||
        !earlier(stage->adapter_of, index) ||
        (stage->form == FM_SIM_ROW_OF &&
         (stage->source >= index ||
          workflow->stages[stage->source].items < stage->items))) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "stage %zu: what it reads is no stage before it, "
                            "or has fewer items",
                            index);
    }
    for (size_t d = 0; d < stage->dep_count; d++) {
        if (stage->deps[d] >= index) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "stage %zu depends on stage %u", index,
                                stage->deps[d]);
        }
    }
    if (stage->gang > 1) {
        return fm_error_set(err, FM_ERR_UNSUPPORTED,
                            "stage %zu: gangs are not simulated", index);
    }
    return FM_OK;
}

fm_status_t fm_sim_check_workflow(const struct sim *sim,
                                  const fm_sim_workflow_t *workflow,
                                  fm_error_t *err)
{
    if (workflow->stage_count == 0 ||
        workflow->stage_count > FM_SIM_STAGES_MAX || !workflow->tenant) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "workflow %llu: a tenant and 1 to %u stages",
                            (unsigned long long)sim->metrics.result.submitted,
                            FM_SIM_STAGES_MAX);
    }
    for (size_t s = 0; s < workflow->stage_count; s++) {
        fm_status_t rc = stage_check(sim, workflow, s, err);

        if (rc < 0) {
            fm_error_wrap(err, "workflow %llu",
                          (unsigned long long)sim->metrics.result.submitted);
            return rc;
        }
    }
    return FM_OK;
}

/* --- defaults
 * -------------------------------------------------------------------- */

static double or_default(double value, double fallback)
{
    return value > 0 ? value : fallback;
}

static void options_fill(struct sim *sim)
{
    const fm_sim_input_t *input = sim->input;

    sim->whole = fm_place_policy_isolates(input->policy);
    sim->merges = fm_place_policy_merges(input->policy);
    sim->unshared = sim->whole || input->ablation.no_dedup;
    sim->elastic = input->elastic && !input->ablation.no_elasticity;
    sim->checkpoint_s = or_default(input->checkpoint_s, CHECKPOINT_S);
    sim->call_s = or_default(input->call_s, CALL_S);
    sim->settle_parts = input->settle_parts ? input->settle_parts : PARTS;
    sim->horizon_ns = fm_sim_ns(or_default(input->horizon_s, HORIZON_S));
    sim->scale_interval_ns =
        fm_sim_ns(or_default(input->scale_interval_s, SCALE_INTERVAL_S));
    sim->failures = input->failures;
    sim->failures.repair_s = or_default(input->failures.repair_s, REPAIR_S);
    sim->failures.flap_up_s = or_default(input->failures.flap_up_s, FLAP_UP_S);
    sim->failures.flap_down_s =
        or_default(input->failures.flap_down_s, FLAP_DOWN_S);
    sim->wake_ns = INT64_MAX;
}

static fm_status_t classes_make(struct sim *sim, fm_error_t *err)
{
    const fm_sim_input_t *input = sim->input;
    uint64_t total = 0;
    fm_status_t rc = FM_OK;

    sim->class_count = input->class_count;
    sim->classes = fm_calloc(sim->class_count, sizeof(*sim->classes));
    sim->device_classes =
        fm_calloc(sim->class_count, sizeof(*sim->device_classes));
    sim->class_first = fm_calloc(sim->class_count + 1, sizeof(uint32_t));
    sim->usage = fm_calloc(sim->class_count, sizeof(*sim->usage));
    if (!sim->classes || !sim->device_classes || !sim->class_first ||
        !sim->usage) {
        return fm_no_memory(err);
    }
    for (size_t c = 0; c < sim->class_count && rc == FM_OK; c++) {
        fm_sim_class_t *class = &sim->classes[c];

        if ((rc = class_check(&input->classes[c], c, err)) < 0) {
            return rc;
        }
        *class = input->classes[c];
        class->task_types = class->task_types ? class->task_types : UINT64_MAX;
        class->load_bytes_per_s = or_default(class->load_bytes_per_s, RATE);
        class->fetch_bytes_per_s = or_default(class->fetch_bytes_per_s, RATE);
        class->domain_size = class->domain_size ? class->domain_size : 1;
        class->max = class->max ? class->max : class->count;
        class->spec.load_bytes_per_s = class->load_bytes_per_s;
        total += sim->elastic ? class->max : class->count;
        if (total > FM_SIM_WORKERS_MAX) {
            return fm_error_set(err, FM_ERR_LIMIT, "more than %u workers",
                                FM_SIM_WORKERS_MAX);
        }
        sim->class_first[c + 1] = (uint32_t)total;
        rc = fm_cost_device_id(sim->cost, class->name, &class->spec,
                               &sim->device_classes[c], err);
    }
    sim->worker_count = (uint32_t)total;
    if (rc == FM_OK && total == 0) {
        return fm_error_set(err, FM_ERR_INVALID, "the fleet has no worker");
    }
    return rc;
}

/* --- plan
 * ------------------------------------------------------------------------- */

static fm_status_t tenants_make(struct sim *sim, fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    for (size_t t = 0; t < sim->input->tenant_count && rc == FM_OK; t++) {
        const fm_sim_tenant_t *tenant = &sim->input->tenants[t];

        rc = fm_tenants_configure(sim->tenants, tenant->name, &tenant->config,
                                  err);
    }
    return rc;
}

static fm_status_t plan_make(struct sim *sim, fm_error_t *err)
{
    const fm_sim_input_t *input = sim->input;
    fm_place_options_t options = {.policy = input->policy,
                                  .sched = input->sched};
    fm_status_t rc;

    options.sched.no_locality |= input->ablation.no_locality;
    options.sched.no_consolidation |= input->ablation.no_consolidation;
    options.sched.no_fair_share |= input->ablation.no_fair_share;
    if (!(options.sched.energy_per_kwh > 0)) {
        options.sched.energy_per_kwh =
            or_default(input->energy_per_kwh, ENERGY_PER_KWH);
    }
    sim->tenants = fm_tenants_create();
    sim->cost = fm_cost_create();
    sim->task_ids = fm_map_create();
    sim->shape_ids = fm_strmap_create();
    sim->progress = fm_map_create();
    if (!sim->tenants || !sim->cost || !sim->task_ids || !sim->shape_ids ||
        !sim->progress) {
        return fm_no_memory(err);
    }
    if ((rc = classes_make(sim, err)) < 0 ||
        (rc = tenants_make(sim, err)) < 0) {
        return rc;
    }
    sim->pool = fm_pool_create(&(fm_pool_options_t){.tenants = sim->tenants});
    if (!sim->pool) {
        return fm_no_memory(err);
    }
    return fm_place_create(&options, sim->pool, sim->cost, &sim->place, err);
}

static fm_status_t scale_make(struct sim *sim, fm_error_t *err)
{
    size_t classes = sim->class_count;

    if (!sim->elastic) {
        return FM_OK;
    }
    sim->action_capacity = classes + sim->worker_count;
    sim->scale_classes = fm_calloc(classes, sizeof(*sim->scale_classes));
    sim->scale_workers =
        fm_calloc(sim->worker_count, sizeof(*sim->scale_workers));
    sim->actions = fm_calloc(sim->action_capacity, sizeof(*sim->actions));
    if (!sim->scale_classes || !sim->scale_workers || !sim->actions) {
        return fm_no_memory(err);
    }
    for (size_t c = 0; c < classes; c++) {
        const fm_sim_class_t *from = &sim->classes[c];

        sim->scale_classes[c] = (fm_scale_class_t){
            .device_class = sim->device_classes[c],
            .device = from->device,
            .task_types = from->task_types,
            .memory_bytes = from->memory_bytes,
            .price_per_hour = from->price_per_hour,
            .watts = from->watts,
            .startup_s = from->startup_s,
            .load_bytes_per_s = from->load_bytes_per_s,
            .min = from->min,
            .max = from->max,
        };
    }
    return fm_scale_create(&sim->input->scale, sim->cost, &sim->scale, err);
}

/* --- the fleet
 * -------------------------------------------------------------------- */

static fm_status_t workers_make(struct sim *sim, fm_error_t *err)
{
    fm_rng_t chooser;

    sim->workers = fm_calloc(sim->worker_count, sizeof(*sim->workers));
    sim->domains = fm_calloc(sim->worker_count, sizeof(*sim->domains));
    if (!sim->workers || !sim->domains) {
        return fm_no_memory(err);
    }
    fm_rng_init(&chooser, sim->input->seed ^ UINT64_C(0x9e3779b97f4a7c15));
    for (uint32_t c = 0; c < sim->class_count; c++) {
        uint32_t first = sim->class_first[c];

        for (uint32_t w = first; w < sim->class_first[c + 1]; w++) {
            struct worker *at = &sim->workers[w];

            if ((w - first) % sim->classes[c].domain_size == 0) {
                struct domain *domain = &sim->domains[sim->domain_count++];

                domain->first = w;
                fm_rng_init(&domain->rng, fm_rng_u64(&chooser));
            }
            at->class_index = c;
            at->domain = sim->domain_count - 1;
            at->flaps = fm_rng_uniform(&chooser) < sim->failures.flap_share;
            fm_rng_init(&at->rng, fm_rng_u64(&chooser));
            sim->domains[at->domain].count++;
        }
    }
    return FM_OK;
}

static fm_status_t fleet_start(struct sim *sim, fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    for (uint32_t d = 0; d < sim->domain_count && rc == FM_OK; d++) {
        rc = fm_sim_domain_arm(sim, d, err);
    }
    for (uint32_t w = 0; w < sim->worker_count && rc == FM_OK; w++) {
        uint32_t c = sim->workers[w].class_index;
        struct usage *usage = fm_sim_usage(sim, c);

        if (sim->elastic && w - sim->class_first[c] >= sim->classes[c].warm) {
            continue;
        }
        usage->peak = ++usage->up;
        sim->workers[w].life = 1;
        sim->coming++;
        rc = fm_sim_worker_ready(sim, w, err);
    }
    return rc == FM_OK && sim->elastic
               ? fm_sim_at(sim, 0, EVENT_SCALE, 0, 0, err)
               : rc;
}

fm_status_t fm_sim_setup(struct sim *sim, const fm_sim_input_t *input,
                         fm_error_t *err)
{
    fm_status_t rc;

    sim->input = input;
    if ((rc = input_check(input, err)) < 0) {
        return rc;
    }
    options_fill(sim);
    sim->model_digests =
        fm_calloc(input->model_count, sizeof(*sim->model_digests));
    if (input->model_count > 0 && !sim->model_digests) {
        return fm_no_memory(err);
    }
    for (size_t m = 0; m < input->model_count; m++) {
        const char *name = input->models[m].name;

        sim->model_digests[m] = fm_sha256(name, strlen(name));
    }
    if ((rc = fm_sim_metrics_init(sim, err)) < 0 ||
        (rc = plan_make(sim, err)) < 0 || (rc = workers_make(sim, err)) < 0 ||
        (rc = scale_make(sim, err)) < 0) {
        return rc;
    }
    return fleet_start(sim, err);
}

void fm_sim_teardown(struct sim *sim)
{
    fm_place_destroy(sim->place);
    fm_pool_destroy(sim->pool);
    fm_scale_destroy(sim->scale);
    fm_cost_destroy(sim->cost);
    fm_tenants_destroy(sim->tenants);
    for (size_t f = 0; f < sim->flow_count; f++) {
        fm_sim_flow_destroy(sim->flows[f]);
    }
    for (size_t s = 0; s < sim->shape_count; s++) {
        free(sim->shapes[s].factor);
    }
    for (uint32_t w = 0; sim->workers && w < sim->worker_count; w++) {
        free(sim->workers[w].objects);
        free(sim->workers[w].residents);
        free(sim->workers[w].lease.order);
    }
    fm_map_destroy(sim->task_ids);
    fm_map_destroy(sim->progress);
    fm_strmap_destroy(sim->shape_ids);
    fm_sim_metrics_fini(sim);
    free(sim->classes);
    free(sim->model_digests);
    free(sim->device_classes);
    free(sim->queue.heap);
    free((void *)sim->flows);
    free(sim->tasks);
    free(sim->listed);
    free(sim->shapes);
    free(sim->workers);
    free(sim->class_first);
    free(sim->domains);
    free(sim->usage);
    free(sim->keys);
    free(sim->lengths);
    free(sim->scale_classes);
    free(sim->demands);
    free(sim->scale_workers);
    free(sim->actions);
    free(sim);
}
