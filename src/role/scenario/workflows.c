/* SPDX-License-Identifier: Apache-2.0 */
/* Templates of workflows and their stages: docs/spec/scenario.md §6. */
#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "role/scenario/internal.h"

#define PROMPT_TOKENS 128.0
#define SEQUENCE 256.0

/* A template being read. */
typedef struct draft {
    const reader_t *r;
    template_t *template;
    const fm_yaml_value_t *map; /* of the stage at hand */
    double item_scale, token_scale;
} draft_t;

size_t fm_scenario_template_find(const run_t *run, const char *name)
{
    size_t i = run->template_count; /* the last of a name is the one meant */

    while (i > 0) {
        if (strcmp(run->templates[--i].name, name) == 0) {
            return i;
        }
    }
    return run->template_count;
}

static bool trains(task_t task)
{
    return task == TASK_SFT || task == TASK_LORA_SFT || task == TASK_DPO ||
           task == TASK_PPO;
}

static fm_status_t fail(const draft_t *d, const char *key, const char *text)
{
    const fm_yaml_value_t *at = fm_yaml_get(d->map, key);

    return fm_yaml_fail_at(&d->r->source, at ? at : d->map, text);
}

/* Index of an earlier stage that @p name names. */
static fm_status_t find_stage(const draft_t *d, const fm_yaml_value_t *name,
                              uint32_t *out)
{
    const char *names[FM_SIM_STAGES_MAX];
    const template_t *t = d->template;

    for (size_t i = 0; i < t->stage_count; i++) {
        names[i] = t->stages[i].stage.name;
        if (strcmp(names[i], fm_scenario_written(name)) == 0) {
            *out = (uint32_t)i;
            return FM_OK;
        }
    }
    return fm_scenario_unknown(d->r, name, "earlier stage of this workflow",
                               names, t->stage_count);
}

/* An earlier stage that makes what @p key asks for. */
static fm_status_t find_maker(const draft_t *d, const char *key, bool adapter,
                              uint32_t *out)
{
    const fm_yaml_value_t *name = fm_yaml_get(d->map, key);
    fm_status_t rc = FM_OK;

    *out = FM_SIM_NONE;
    if (!name) {
        return FM_OK;
    }
    if ((rc = find_stage(d, name, out)) < 0) {
        return rc;
    }
    task_t task = d->template->stages[*out].task;
    return trains(task) && (task == TASK_LORA_SFT) == adapter
               ? FM_OK
               : fail(d, key,
                      adapter ? "adapter_of names a stage that is no lora_sft"
                              : "model_of names a stage that trains no model; "
                                "allowed: sft, dpo, ppo");
}

/* --- what it does --------------------------------------------------------- */

static const struct {
    fm_sim_work_t work;
    fm_sched_kind_t kind;
    const char *category;
} task_facts[TASKS] = {
    [TASK_INFERENCE] = {FM_SIM_INFERENCE, FM_SCHED_INFERENCE, "inference"},
    [TASK_FORWARD] = {FM_SIM_FORWARD, FM_SCHED_INFERENCE, "inference"},
    [TASK_SFT] = {FM_SIM_TRAIN, FM_SCHED_TRAINING, "training"},
    [TASK_LORA_SFT] = {FM_SIM_TRAIN_LORA, FM_SCHED_TRAINING, "training"},
    [TASK_DPO] = {FM_SIM_TRAIN, FM_SCHED_TRAINING, "training"},
    [TASK_PPO] = {FM_SIM_TRAIN, FM_SCHED_TRAINING, "training"},
    [TASK_SCRIPT] = {FM_SIM_FIXED, FM_SCHED_OTHER, "other"},
};

/* Counts are scaled where they are more than one: one item is one thing. */
static double scaled(double count, double scale)
{
    return count > 1 ? fmax(1, round(count * scale)) : count;
}

static fm_status_t read_model_of_stage(const draft_t *d, stage_plan_t *plan)
{
    const fm_yaml_value_t *name = fm_yaml_get(d->map, "model");
    const run_t *run = d->r->run;
    const char *names[FM_SIM_MODELS_MAX];

    plan->stage.model = FM_SIM_NONE;
    if (plan->task == TASK_SCRIPT) {
        return name ? fail(d, "model", "a script has no model") : FM_OK;
    }
    if (!name) {
        return fail(d, "model", "a stage wants a model, but for a script");
    }
    size_t at = fm_scenario_model_find(run, name->text);
    if (at == run->input.model_count) {
        for (size_t i = 0; i < run->input.model_count; i++) {
            names[i] = run->models[i].name;
        }
        return fm_scenario_unknown(d->r, name, "model", names,
                                   run->input.model_count);
    }
    plan->stage.model = (uint32_t)at;
    fm_status_t rc = find_maker(d, "model_of", false, &plan->stage.model_of);
    return rc < 0 ? rc
                  : find_maker(d, "adapter_of", true, &plan->stage.adapter_of);
}

static fm_status_t read_amounts(const draft_t *d, stage_plan_t *plan)
{
    const fm_yaml_value_t *map = d->map;
    fm_sim_stage_t *stage = &plan->stage;
    bool inference = plan->task == TASK_INFERENCE;
    bool reads = inference || plan->task == TASK_FORWARD;
    double items = scaled((double)fm_yaml_int(map, "items", 1), d->item_scale);
    double memory = 0;
    fm_status_t rc = FM_OK;

    if (trains(plan->task) && fm_yaml_get(map, "items")) {
        return fail(d, "items", "a training has samples, not items");
    }
    if (items > 1e6) {
        return fail(d, "items", "more than 1,000,000 items after item_scale");
    }
    stage->items = (uint32_t)items;
    if (reads) {
        stage->tokens_in =
            d->token_scale * fm_yaml_real(map, "prompt_tokens", PROMPT_TOKENS);
        stage->tokens_out =
            d->token_scale * fm_yaml_real(map, "output_tokens", 0);
        stage->spread = fm_yaml_real(map, "spread", 0);
    }
    if (inference && stage->tokens_out <= 0) {
        return fail(d, "output_tokens",
                    "inference wants output_tokens above 0");
    }
    if (trains(plan->task)) {
        stage->samples = scaled(fm_yaml_real(map, "samples", 0), d->item_scale);
        stage->epochs = fm_yaml_real(map, "epochs", 1);
        stage->sequence =
            d->token_scale * fm_yaml_real(map, "sequence", SEQUENCE);
        if (stage->samples <= 0 || stage->epochs <= 0) {
            return fail(d, "samples", "a training wants samples above 0");
        }
    }
    if ((rc = fm_yaml_seconds(map, "seconds", &stage->seconds, &d->r->source)) <
            0 ||
        (rc = fm_yaml_bytes(map, "gpu_memory", &memory, &d->r->source)) < 0) {
        return rc;
    }
    stage->memory_bytes = (uint64_t)memory;
    stage->batch_max = (uint32_t)fm_yaml_int(map, "batch_max", 0);
    stage->gang = (uint32_t)fm_yaml_int(map, "gang", 0);
    return plan->task != TASK_SCRIPT || stage->seconds > 0
               ? FM_OK
               : fail(d, "seconds", "a script wants seconds above 0");
}

/* --- what it depends on --------------------------------------------------- */

/* Ascending, each once. */
static void add_dep(uint32_t *deps, size_t *count, uint32_t dep)
{
    size_t at = 0;

    while (at < *count && deps[at] < dep) {
        at++;
    }
    if (at < *count && deps[at] == dep) {
        return;
    }
    memmove(&deps[at + 1], &deps[at], (*count - at) * sizeof(*deps));
    deps[at] = dep;
    (*count)++;
}

/* What `after` names: a name, a list of names; absent: the stage before. */
static fm_status_t read_after(const draft_t *d, uint32_t *deps, size_t *count)
{
    const fm_yaml_value_t *after = fm_yaml_get(d->map, "after");
    bool list = after && after->type == FM_JSON_ARRAY;
    fm_status_t rc = FM_OK;

    if (!after && d->template->stage_count > 0) {
        add_dep(deps, count, (uint32_t)d->template->stage_count - 1);
    }
    for (size_t i = 0; after && i < (list ? after->count : 1); i++) {
        uint32_t dep = 0;
        rc = find_stage(d, list ? after->members[i].value : after, &dep);
        if (rc < 0) {
            return rc;
        }
        add_dep(deps, count, dep);
    }
    return FM_OK;
}

static fm_status_t read_origin(const draft_t *d, stage_plan_t *plan)
{
    const fm_yaml_value_t *of = fm_yaml_get(d->map, "of");
    const fm_yaml_value_t *dataset = fm_yaml_get(d->map, "dataset");
    const fm_yaml_value_t *after = fm_yaml_get(d->map, "after");
    fm_sim_stage_t *stage = &plan->stage;
    size_t room =
        4 + (after && after->type == FM_JSON_ARRAY ? after->count : 1);
    uint32_t *deps = fm_scenario_alloc(d->r, room, sizeof(*deps));
    fm_status_t rc = deps ? FM_OK : FM_ERR_NO_MEMORY;

    if (rc < 0 || (rc = read_after(d, deps, &stage->dep_count)) < 0) {
        return rc;
    }
    stage->form = FM_SIM_ROWS;
    if (of && dataset) {
        return fail(d, "of", "of together with dataset; allowed: one of them");
    }
    if (of) {
        if ((rc = find_stage(d, of, &stage->source)) < 0) {
            return rc;
        }
        add_dep(deps, &stage->dep_count, stage->source);
        bool rows =
            d->template->stages[stage->source].stage.items == stage->items;
        stage->form = rows ? FM_SIM_ROW_OF : FM_SIM_ALL_OF;
    }
    if (stage->model_of != FM_SIM_NONE) {
        add_dep(deps, &stage->dep_count, stage->model_of);
    }
    if (stage->adapter_of != FM_SIM_NONE) {
        add_dep(deps, &stage->dep_count, stage->adapter_of);
    }
    stage->deps = deps;
    const char *name = dataset ? dataset->text : stage->name;
    stage->dataset = of ? 0 : fm_hash64(name, strlen(name));
    plan->own_rows = !of;
    return FM_OK;
}

/* --- stages and workflows ------------------------------------------------- */

/* What decides a result beside model and input.  A stage over rows of its own
 * is told from others by its dataset, one that reads a stage by its name: two
 * such stages ask different things of the same text. */
static uint64_t parameters_of(const stage_plan_t *plan)
{
    const fm_sim_stage_t *stage = &plan->stage;
    const double amounts[] = {
        stage->tokens_in, stage->tokens_out, stage->samples, stage->epochs,
        stage->sequence,  stage->seconds,    stage->spread};
    uint64_t hash = fm_hash64(amounts, sizeof(amounts));

    return plan->own_rows ? hash
                          : hash ^ fm_hash64(stage->name, strlen(stage->name));
}

static fm_status_t read_stage(draft_t *d)
{
    const char *device = fm_yaml_str(fm_yaml_get(d->map, "device"));
    stage_plan_t *plan = &d->template->stages[d->template->stage_count];
    fm_status_t rc =
        fm_scenario_check(d->r, &fm_scenario_stage, d->map, "a stage");

    if (rc < 0) {
        return rc;
    }
    const fm_yaml_value_t *name = fm_yaml_get(d->map, "name");
    const fm_yaml_value_t *task = fm_yaml_get(d->map, "task");
    if (!name || !*name->text || !task) {
        return fail(d, "name", "a stage wants name and task");
    }
    for (size_t i = 0; i < d->template->stage_count; i++) {
        if (strcmp(d->template->stages[i].stage.name, name->text) == 0) {
            return fail(d, "name", "two stages of one name");
        }
    }
    (void)fm_scenario_task_find(task->text, &plan->task);
    plan->stage = (fm_sim_stage_t){
        .name = name->text,
        .category = task_facts[plan->task].category,
        .work = task_facts[plan->task].work,
        .task_type = (uint32_t)plan->task,
        .kind = task_facts[plan->task].kind,
        .model_of = FM_SIM_NONE,
        .adapter_of = FM_SIM_NONE,
        .device = !device                      ? FM_SCHED_ANY
                  : strcmp(device, "cpu") == 0 ? FM_SCHED_CPU
                  : strcmp(device, "gpu") == 0 ? FM_SCHED_GPU
                                               : FM_SCHED_ANY,
    };
    if ((rc = read_model_of_stage(d, plan)) < 0 ||
        (rc = read_amounts(d, plan)) < 0 || (rc = read_origin(d, plan)) < 0) {
        return rc;
    }
    plan->stage.parameters = parameters_of(plan);
    d->template->stage_count++;
    return FM_OK;
}

static fm_status_t read_workflow(draft_t *d, const fm_yaml_value_t *map)
{
    size_t count = 0;
    fm_status_t rc =
        fm_scenario_check(d->r, &fm_scenario_workflow, map, "a workflow");

    if (rc < 0) {
        return rc;
    }
    const char *name = fm_yaml_str(fm_yaml_get(map, "name"));
    const fm_yaml_value_t *list = fm_yaml_get(map, "stages");
    rc = fm_scenario_list(d->r, list, "stages", FM_SIM_STAGES_MAX, &count);
    if (rc < 0) {
        return rc;
    }
    if (!name || !*name || count == 0) {
        return fm_yaml_fail_at(&d->r->source, map,
                               "a workflow wants name and stages");
    }
    *d->template = (template_t){.name = name};
    d->template->stages =
        fm_scenario_alloc(d->r, count, sizeof(*d->template->stages));
    rc = d->template->stages ? FM_OK : FM_ERR_NO_MEMORY;
    for (size_t i = 0; i < count && rc == FM_OK; i++) {
        d->map = list->members[i].value;
        rc = read_stage(d);
    }
    return rc;
}

/* The scenario's workflows after the built-in ones: a name may be taken over.
 */
fm_status_t fm_scenario_read_workflows(reader_t *r, const fm_yaml_value_t *root)
{
    const fm_yaml_value_t *lists[] = {
        fm_yaml_get(r->scenario->builtin, "workflows"),
        fm_yaml_get(root, "workflows"),
    };
    const fm_yaml_value_t *workload = fm_yaml_get(root, "workload");
    size_t counts[2] = {0};
    fm_status_t rc = FM_OK;

    for (size_t l = 0; l < 2 && rc == FM_OK; l++) {
        rc = fm_scenario_list(r, lists[l], "workflows", TEMPLATES_MAX,
                              &counts[l]);
    }
    r->run->templates = rc == FM_OK
                            ? fm_scenario_alloc(r, counts[0] + counts[1],
                                                sizeof(*r->run->templates))
                            : NULL;
    if (!r->run->templates) {
        return rc == FM_OK ? FM_ERR_NO_MEMORY : rc;
    }
    for (size_t l = 0; l < 2 && rc == FM_OK; l++) {
        for (size_t i = 0; i < counts[l] && rc == FM_OK; i++) {
            draft_t d = {
                .r = r,
                .template = &r->run->templates[r->run->template_count],
                .item_scale = fm_yaml_real(workload, "item_scale", 1),
                .token_scale = fm_yaml_real(workload, "token_scale", 1),
            };
            rc = read_workflow(&d, lists[l]->members[i].value);
            r->run->template_count += rc == FM_OK ? 1 : 0;
        }
    }
    return rc;
}
