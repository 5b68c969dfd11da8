/* SPDX-License-Identifier: Apache-2.0 */
/* Mix, arrivals, tenants, trace: docs/spec/scenario.md §7 to §9. */
#include <math.h>
#include <string.h>

#include "plan/cost/catalogue.h"
#include "role/scenario/internal.h"

#define COUNT 30            /* workflows where the process does not say */
#define PER_MINUTE 3.3      /* the mean of the published ramp */
#define FROM_PER_MINUTE 6.0 /* the published ramp */
#define TO_PER_MINUTE 0.6
#define RAMP_S 600.0
#define UP_CYCLES 2
#define USERS 8
#define OVERLAP 0.4

/* --- mix ------------------------------------------------------------------ */

static fm_status_t fail_mix(const reader_t *r, const fm_yaml_value_t *at)
{
    const char *names[TEMPLATES_MAX * 2 + 8];
    const run_t *run = r->run;
    const fm_yaml_value_t *mixes = fm_yaml_get(r->scenario->builtin, "mixes");
    size_t count = 0;

    for (size_t i = 0; i < run->template_count; i++) {
        names[count++] = run->templates[i].name;
    }
    for (size_t i = 0; i < mixes->count && i < 8; i++) {
        names[count++] = mixes->members[i].key;
    }
    return fm_scenario_unknown(r, at, "workflow or mix", names, count);
}

static fm_status_t add_kind(const reader_t *r, const fm_yaml_value_t *name,
                            const char *text, uint32_t weight)
{
    workload_t *w = &r->run->workload;
    size_t at = fm_scenario_template_find(r->run, text);

    if (at == r->run->template_count) {
        return fail_mix(r, name);
    }
    w->mix[w->mix_count] = (uint32_t)at;
    w->weights[w->mix_count++] = weight;
    return FM_OK;
}

/* {01_1: 2, own: 1} */
static fm_status_t add_weighted(const reader_t *r, const fm_yaml_value_t *map)
{
    fm_status_t rc = FM_OK;

    for (size_t i = 0; i < map->count && rc == FM_OK; i++) {
        const fm_yaml_member_t *member = &map->members[i];
        const fm_yaml_value_t *weight = member->value;
        const fm_yaml_value_t name = {.type = FM_JSON_STRING,
                                      .line = member->line,
                                      .column = member->column,
                                      .text = member->key};
        if (weight->type != FM_JSON_INT || weight->integer < 1 ||
            weight->integer > (int64_t)MIX_WEIGHT_MAX) {
            return fm_yaml_fail(
                &r->source, weight->line, weight->column, FM_ERR_INVALID,
                "the weight of %.80s is %.40s; allowed: whole "
                "numbers from 1 to %u",
                member->key, fm_scenario_written(weight), MIX_WEIGHT_MAX);
        }
        rc = add_kind(r, &name, member->key, (uint32_t)weight->integer);
    }
    return rc;
}

static fm_status_t read_mix(const reader_t *r, const fm_yaml_value_t *map,
                            const fm_yaml_value_t *root)
{
    const fm_yaml_value_t *mix = fm_yaml_get(map, "mix");
    workload_t *w = &r->run->workload;
    const fm_yaml_value_t *known =
        mix && mix->type != FM_JSON_ARRAY && mix->type != FM_JSON_OBJECT
            ? fm_yaml_get(fm_yaml_get(r->scenario->builtin, "mixes"),
                          fm_scenario_written(mix))
            : NULL;
    fm_status_t rc = FM_OK;

    if (!mix) {
        return fm_yaml_fail_at(&r->source, map ? map : root,
                               "workload.mix is missing; allowed: "
                               "inference_only, post_train, data_train, a "
                               "list of workflows, a map of their weights");
    }
    w->mix_name = mix->text ? mix->text : "own";
    const fm_yaml_value_t *list = known ? known : mix;
    size_t room = list->count ? list->count : 1;
    w->mix = fm_scenario_alloc(r, room, sizeof(*w->mix));
    w->weights = fm_scenario_alloc(r, room, sizeof(*w->weights));
    if (!w->mix || !w->weights) {
        return FM_ERR_NO_MEMORY;
    }
    if (list->type == FM_JSON_OBJECT) {
        rc = add_weighted(r, list);
    } else if (list->type == FM_JSON_ARRAY) {
        for (size_t i = 0; i < list->count && rc == FM_OK; i++) {
            const fm_yaml_value_t *name = list->members[i].value;
            rc = add_kind(r, name, fm_scenario_written(name), 1);
        }
    } else {
        rc = add_kind(r, list, fm_scenario_written(list), 1);
    }
    return rc == FM_OK && w->mix_count == 0
               ? fm_yaml_fail_at(&r->source, mix, "a mix of nothing")
               : rc;
}

/* --- arrivals ------------------------------------------------------------- */

static fm_status_t read_arrivals(const reader_t *r, const fm_yaml_value_t *map)
{
    static const struct {
        const char *name;
        fm_arrival_process_t process;
    } processes[] = {
        {"batched", FM_ARRIVAL_BATCHED}, {"random", FM_ARRIVAL_RANDOM},
        {"fixed", FM_ARRIVAL_FIXED},     {"ramp", FM_ARRIVAL_RAMP},
        {"up_ramp", FM_ARRIVAL_UP_RAMP}, {"poisson", FM_ARRIVAL_POISSON},
    };
    const char *name = fm_yaml_str(fm_yaml_get(map, "process"));
    const char *shape = fm_yaml_str(fm_yaml_get(map, "shape"));
    double scale = fm_yaml_real(map, "rate_scale", 1) / 60;
    fm_arrivals_t *a = &r->run->workload.arrivals;

    *a = (fm_arrivals_t){.process = FM_ARRIVAL_BATCHED, .seconds = RAMP_S};
    for (size_t i = 0; name && i < FM_COUNT_OF(processes); i++) {
        if (strcmp(processes[i].name, name) == 0) {
            a->process = processes[i].process;
        }
    }
    bool up = a->process == FM_ARRIVAL_UP_RAMP;
    a->count = (size_t)fm_yaml_int(map, "count", COUNT);
    a->per_second = scale * fm_yaml_real(map, "per_minute", PER_MINUTE);
    a->from_per_second =
        scale * fm_yaml_real(map, "from_per_minute",
                             up ? TO_PER_MINUTE : FROM_PER_MINUTE);
    a->to_per_second =
        scale * fm_yaml_real(map, "to_per_minute",
                             up ? FROM_PER_MINUTE : TO_PER_MINUTE);
    a->cycles = (unsigned)fm_yaml_int(map, "cycles", UP_CYCLES);
    a->geometric = shape && strcmp(shape, "geometric") == 0;
    fm_status_t rc = fm_yaml_seconds(map, "over", &a->seconds, &r->source);
    if (rc == FM_OK && a->seconds <= 0) {
        return fm_yaml_fail_at(&r->source, fm_yaml_get(map, "over"),
                               "a ramp over no time");
    }
    return rc;
}

/* --- tenants -------------------------------------------------------------- */

static fm_status_t read_tenant(const reader_t *r, const fm_yaml_value_t *map,
                               tenant_t *out)
{
    fm_status_t rc = fm_scenario_check(r, &fm_scenario_tenant, map, "a tenant");

    if (rc < 0) {
        return rc;
    }
    const char *name = fm_yaml_str(fm_yaml_get(map, "name"));
    if (!name || !*name) {
        return fm_yaml_fail_at(&r->source, map, "a tenant wants a name");
    }
    *out = (tenant_t){
        .sim = {.name = name,
                .config = {.weight = fm_yaml_real(map, "weight", 1),
                           .devices_max =
                               (uint32_t)fm_yaml_int(map, "devices_max", 0),
                           .queued_max =
                               (uint64_t)fm_yaml_int(map, "queued_max", 0),
                           .dollars_max = fm_yaml_real(map, "dollars_max", 0)}},
        .share = (uint32_t)fm_yaml_int(map, "share", 1),
        .priority = (int32_t)fm_yaml_int(map, "priority", 0),
    };
    return fm_yaml_seconds(map, "deadline", &out->deadline_s, &r->source);
}

/* Those listed, or `users` equal ones. */
static fm_status_t read_tenants(const reader_t *r, const fm_yaml_value_t *map)
{
    const fm_yaml_value_t *list = fm_yaml_get(map, "tenants");
    const fm_yaml_value_t *users = fm_yaml_get(map, "users");
    run_t *run = r->run;
    size_t listed = 0;
    fm_status_t rc = fm_scenario_list(r, list, "tenants", TENANTS_MAX, &listed);

    if (rc == FM_OK && listed > 0 && users) {
        return fm_yaml_fail_at(&r->source, users,
                               "users together with tenants; allowed: one of "
                               "them");
    }
    size_t count = listed ? listed : (size_t)fm_yaml_int(map, "users", USERS);
    if (rc < 0 ||
        !(run->tenants = fm_scenario_alloc(r, count, sizeof(*run->tenants))) ||
        !(run->sim_tenants =
              fm_scenario_alloc(r, count, sizeof(*run->sim_tenants)))) {
        return rc < 0 ? rc : FM_ERR_NO_MEMORY;
    }
    for (size_t i = 0; i < count && rc == FM_OK; i++) {
        if (listed) {
            rc = read_tenant(r, list->members[i].value, &run->tenants[i]);
        } else {
            run->tenants[i] =
                (tenant_t){.sim = {.name = fm_yaml_printf(&r->scenario->arena,
                                                          "user-%zu", i + 1),
                                   .config = {.weight = 1}},
                           .share = 1};
            rc = run->tenants[i].sim.name ? FM_OK : fm_no_memory(r->source.err);
        }
        run->sim_tenants[i] = run->tenants[i].sim;
    }
    run->input.tenants = run->sim_tenants;
    run->input.tenant_count = count;
    return rc;
}

/* --- trace ---------------------------------------------------------------- */

static fm_status_t read_trace(const reader_t *r, const fm_yaml_value_t *map)
{
    static const char *const formats[] = {
        [FM_TRACE_AZURE] = "azure",
        [FM_TRACE_MOONCAKE] = "mooncake",
        [FM_TRACE_ALIBABA_LORA] = "alibaba_lora",
    };
    const fm_yaml_value_t *path = fm_yaml_get(map, "path");
    const fm_yaml_value_t *format = fm_yaml_get(map, "format");
    const fm_yaml_value_t *model = fm_yaml_get(map, "model");
    const char *reference = fm_yaml_str(fm_yaml_get(map, "reference"));
    trace_plan_t *t = &r->run->trace;
    double memory = 0;
    fm_status_t rc = FM_OK;

    if (!path || !*path->text || !format) {
        return fm_yaml_fail_at(&r->source, map,
                               "a trace wants path and format");
    }
    *t = (trace_plan_t){
        .path = path->text,
        .options = {.limit = (size_t)fm_yaml_int(map, "limit", FM_ARRIVALS_MAX),
                    .speed = fm_yaml_real(map, "speed", 1)},
        .model = (uint32_t)fm_scenario_model_find(r->run,
                                                  model ? model->text : "1b"),
    };
    for (size_t i = 0; i < FM_COUNT_OF(formats); i++) {
        if (strcmp(formats[i], format->text) == 0) {
            t->options.format = (fm_trace_format_t)i;
        }
    }
    if (t->model == r->run->input.model_count) {
        return fm_scenario_unknown(r, model, "model", NULL, 0);
    }
    const fm_cost_catalogue_entry_t *device =
        fm_cost_catalogue_named(reference ? reference : "l4-24g");
    if (!device) {
        return fm_scenario_unknown(r, fm_yaml_get(map, "reference"),
                                   "device of the catalogue", NULL, 0);
    }
    t->reference_flops = device->flops_per_s;
    if ((rc = fm_yaml_seconds(map, "skip", &t->options.skip_s, &r->source)) <
            0 ||
        (rc = fm_yaml_bytes(map, "gpu_memory", &memory, &r->source)) < 0) {
        return rc;
    }
    t->memory_bytes = (uint64_t)memory;
    return FM_OK;
}

/* --- all of it ------------------------------------------------------------ */

fm_status_t fm_scenario_read_workload(reader_t *r, const fm_yaml_value_t *root)
{
    const fm_yaml_value_t *map = fm_yaml_get(root, "workload");
    const fm_yaml_value_t *trace = fm_yaml_get(root, "trace");
    workload_t *w = &r->run->workload;
    fm_status_t rc = read_tenants(r, map);

    w->overlap = fm_yaml_real(map, "overlap", OVERLAP);
    w->training_overlap = fm_yaml_real(map, "training_overlap", w->overlap);
    if (rc < 0) {
        return rc;
    }
    if (trace && trace->type == FM_JSON_OBJECT) {
        w->arrivals.process = FM_ARRIVAL_TRACE;
        w->mix_name = "trace";
        const fm_yaml_value_t *mix = fm_yaml_get(map, "mix");
        const fm_yaml_value_t *arrival = fm_yaml_get(map, "arrival");
        if (mix || arrival) {
            return fm_yaml_fail_at(&r->source, mix ? mix : arrival,
                                   "workload.mix and arrival together with a "
                                   "trace, which says what arrives when; "
                                   "allowed: one of them");
        }
        return read_trace(r, trace);
    }
    if ((rc = read_mix(r, map, root)) < 0) {
        return rc;
    }
    return read_arrivals(r, fm_yaml_get(map, "arrival"));
}
