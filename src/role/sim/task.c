/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Batch keys: what plan/place is told of them, and how long they really run.
 *
 * The true run time of inference is a roofline phase by phase (prefill is
 * arithmetic; a decode step reads all weights and the contexts), where
 * plan/cost has one straight line: decisions are as wrong as they are with
 * real devices.  Continuous batching: a lease larger than the executor's batch
 * refills it as items end, so steps ≥ tokens / batch.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "role/sim/internal.h"

#define SEED_SAMPLES 8 /* of a class whose costs are known beforehand */

enum salt { SALT_LENGTH = 101, SALT_HIDDEN };

static double tokens_trained(const fm_sim_stage_t *stage)
{
    double epochs = stage->epochs > 0 ? stage->epochs : 1;

    return stage->samples * epochs * stage->sequence;
}

static fm_cost_llm_t llm_of(const struct sim *sim, const fm_sim_stage_t *stage)
{
    const fm_sim_model_t *model = &sim->input->models[stage->model];
    static const fm_cost_llm_kind_t kinds[] = {
        [FM_SIM_INFERENCE] = FM_COST_LLM_INFERENCE,
        [FM_SIM_FORWARD] = FM_COST_LLM_FORWARD,
        [FM_SIM_TRAIN] = FM_COST_LLM_TRAIN,
        [FM_SIM_TRAIN_LORA] = FM_COST_LLM_LORA_TRAIN,
    };
    bool trains =
        stage->work == FM_SIM_TRAIN || stage->work == FM_SIM_TRAIN_LORA;

    return (fm_cost_llm_t){
        .kind = kinds[stage->work],
        .parameters = model->parameters,
        .bytes_per_parameter = (double)model->weight_bytes / model->parameters,
        .tokens_in = trains ? tokens_trained(stage) : stage->tokens_in,
        .tokens_out =
            stage->work == FM_SIM_INFERENCE ? fmax(stage->tokens_out, 1) : 0,
        .kv_bytes_per_token = fm_sim_kv_bytes(model),
        .overhead_s = sim->call_s,
    };
}

double fm_sim_item_tokens(const fm_sim_stage_t *stage, const fm_digest_t *key)
{
    double mean = fmax(stage->tokens_out, 1), s = stage->spread;

    if (s <= 0) {
        return mean;
    }
    return fmax(1, mean * exp(s * fm_sim_normal(key, SALT_LENGTH) - s * s / 2));
}

/* Items the executor runs at once on a device. */
static double executor_batch(const struct sim *sim, const struct task *task,
                             const fm_sim_class_t *class)
{
    double cap = task->batch_max, room;

    if (class->memory_bytes == 0 || task->kv_item_bytes <= 0) {
        return cap;
    }
    room = (double)class->memory_bytes -
           (double)sim->input->models[task->base].weight_bytes;
    return fmax(1, fmin(cap, floor(room / task->kv_item_bytes)));
}

static double line(const fm_cost_task_t *spec, const fm_cost_device_t *device,
                   double calls, double units)
{
    return calls * spec->bytes_per_call / device->bytes_per_s +
           units * fmax(spec->flops_per_unit / device->flops_per_s,
                        spec->bytes_per_unit / device->bytes_per_s);
}

double fm_sim_truth(const struct sim *sim, const struct task *task,
                    uint32_t class_index, const struct sums *sums)
{
    const fm_sim_class_t *class = &sim->classes[class_index];
    const struct shape *shape = &sim->shapes[task->shape];
    const fm_cost_device_t *device = &class->spec;
    double batch = executor_batch(sim, task, class), seconds = 0;

    switch (task->work) {
    case FM_SIM_INFERENCE: {
        const fm_sim_model_t *model = &sim->input->models[task->base];
        double steps = fmax(sums->out_max, sums->out / batch);
        double flops = 2 * model->parameters;
        double read = steps * (double)model->weight_bytes +
                      sums->context * fm_sim_kv_bytes(model);

        seconds = flops * sums->in / device->flops_per_s +
                  fmax(read / device->bytes_per_s,
                       flops * sums->out / device->flops_per_s);
        break;
    }
    case FM_SIM_FORWARD:
        seconds =
            line(&shape->spec, device, ceil(sums->items / batch), sums->in);
        break;
    case FM_SIM_TRAIN:
    case FM_SIM_TRAIN_LORA:
        seconds = line(&shape->spec, device, sums->items, sums->train);
        break;
    case FM_SIM_FIXED:
        seconds = sums->fixed_s;
        break;
    }
    return (task->work == FM_SIM_FIXED ? 0 : sim->call_s + device->overhead_s) +
           seconds * shape->factor[class_index];
}

void fm_sim_sums_add(const fm_sim_stage_t *stage, double out, struct sums *sums)
{
    sums->items++;
    switch (stage->work) {
    case FM_SIM_INFERENCE:
        sums->in += stage->tokens_in;
        sums->out += out;
        sums->out_max = fmax(sums->out_max, out);
        sums->context += out * (stage->tokens_in + out / 2);
        break;
    case FM_SIM_FORWARD:
        sums->in += stage->tokens_in;
        break;
    case FM_SIM_TRAIN:
    case FM_SIM_TRAIN_LORA:
        sums->train += tokens_trained(stage);
        break;
    case FM_SIM_FIXED:
        sums->fixed_s += stage->seconds;
        break;
    }
}

double fm_sim_likely_s(const struct sim *sim, uint32_t task, uint32_t items)
{
    const struct shape *shape = &sim->shapes[sim->tasks[task].shape];
    double best = INFINITY;

    for (uint32_t c = 0; c < sim->class_count; c++) {
        fm_cost_estimate_t estimate;

        fm_cost_estimate(sim->cost, shape->task_class, sim->device_classes[c],
                         shape->item_work * items, &estimate);
        best = fmin(best, estimate.seconds);
    }
    return best;
}

/* Decisions know the truth: results of sizes 1, 2, 4 … before any run. */
static fm_status_t shape_teach(struct sim *sim, const struct task *task,
                               const fm_sim_stage_t *stage, fm_error_t *err)
{
    const struct shape *shape = &sim->shapes[task->shape];
    fm_status_t rc = FM_OK;

    for (uint32_t c = 0; c < sim->class_count && rc == FM_OK; c++) {
        for (uint32_t i = 0; i < SEED_SAMPLES && rc == FM_OK; i++) {
            uint32_t items = 1u << i;
            struct sums sums = {0};

            for (uint32_t n = 0; n < items; n++) {
                fm_sim_sums_add(stage, fmax(stage->tokens_out, 1), &sums);
            }
            rc = fm_cost_learn(sim->cost, shape->task_class,
                               sim->device_classes[c], shape->item_work * items,
                               fm_sim_truth(sim, task, c, &sums), err);
        }
    }
    return rc;
}

static fm_status_t shape_add(struct sim *sim, const fm_sim_stage_t *stage,
                             const char *name, fm_error_t *err)
{
    struct shape shape = {.item_work = 1};
    fm_digest_t key = fm_sha256(name, strlen(name));
    fm_status_t rc = fm_grow(&sim->shapes, &sim->shape_capacity,
                             sim->shape_count, sizeof(*sim->shapes), err);

    if (rc < 0) {
        return rc;
    }
    if (stage->work != FM_SIM_FIXED) {
        fm_cost_llm_t llm = llm_of(sim, stage);

        shape.spec = fm_cost_llm_task(&llm);
        shape.item_work = fm_cost_llm_work(&llm);
    }
    if (!(shape.factor = fm_calloc(sim->class_count, sizeof(double)))) {
        return fm_no_memory(err);
    }
    for (uint32_t c = 0; c < sim->class_count; c++) {
        shape.factor[c] =
            stage->work == FM_SIM_FIXED
                ? 1
                : exp(sim->input->hidden *
                      fm_sim_normal(&key, sim->input->seed * 512 + c));
    }
    if ((rc = fm_cost_task_id(sim->cost, name,
                              stage->work == FM_SIM_FIXED ? NULL : &shape.spec,
                              &shape.task_class, err)) < 0 ||
        (rc = fm_strmap_put(sim->shape_ids, name, sim->shape_count, err)) < 0) {
        free(shape.factor);
        return rc;
    }
    sim->shapes[sim->shape_count++] = shape;
    return FM_OK;
}

static fm_status_t shape_of(struct sim *sim, const fm_sim_stage_t *stage,
                            struct task *task, fm_error_t *err)
{
    char name[FM_COST_NAME_BYTES_MAX + 1];
    const uint64_t *at;
    fm_status_t rc;

    if (stage->work == FM_SIM_FIXED) {
        (void)snprintf(name, sizeof(name), "fixed/%.6g", stage->seconds);
    } else {
        (void)snprintf(name, sizeof(name), "work-%u/model-%u/%.0f/%.0f/%.0f",
                       (unsigned)stage->work, stage->model, stage->tokens_in,
                       stage->tokens_out, tokens_trained(stage));
    }
    if ((at = fm_strmap_get(sim->shape_ids, name))) {
        task->shape = (uint32_t)*at;
        return FM_OK;
    }
    if ((rc = shape_add(sim, stage, name, err)) < 0) {
        return rc;
    }
    task->shape = (uint32_t)(sim->shape_count - 1);
    return sim->input->know || stage->work == FM_SIM_FIXED
               ? shape_teach(sim, task, stage, err)
               : FM_OK;
}

static void task_fill(const struct sim *sim, const fm_sim_stage_t *stage,
                      struct task *task)
{
    bool trains =
        stage->work == FM_SIM_TRAIN || stage->work == FM_SIM_TRAIN_LORA;

    task->base = stage->model;
    task->work = stage->work;
    task->task_type = stage->task_type;
    task->kind = stage->kind;
    task->device = stage->device;
    task->input_bytes = stage->input_bytes;
    task->input_domain = FM_SCHED_NONE;
    task->pool_id = NONE;
    task->batch_max = stage->batch_max ? stage->batch_max
                      : trains         ? 1
                                       : BATCH_MAX_DEFAULT;
    task->memory_bytes = stage->memory_bytes;
    if (stage->model != FM_SIM_NONE) {
        fm_cost_llm_t llm = llm_of(sim, stage);
        double need = fm_cost_llm_memory(&llm);

        task->kv_item_bytes =
            fm_sim_kv_bytes(&sim->input->models[stage->model]) *
            (stage->tokens_in + stage->tokens_out);
        if (stage->memory_bytes == 0) {
            task->memory_bytes = (uint64_t)need;
            task->item_memory_bytes =
                sim->whole ? 0 : (uint64_t)task->kv_item_bytes;
        } else if (!trains && (double)task->memory_bytes < need) {
            task->memory_bytes = (uint64_t)need;
        }
    }
}

fm_status_t fm_sim_task_place(struct sim *sim, struct task *task,
                              fm_error_t *err)
{
    fm_sched_object_t model = {.digest = task->model};

    if (task->has_model) {
        model.bytes = fm_sim_load_bytes(&sim->input->models[task->base]);
    }
    return fm_place_task_put(
        sim->place, &task->key,
        &(fm_place_task_t){
            .kind = task->kind,
            .task_class = sim->shapes[task->shape].task_class,
            .task_type = task->task_type,
            .size_max = task->batch_max,
            .device = task->device,
            .memory_bytes = task->memory_bytes,
            .item_memory_bytes = task->item_memory_bytes,
            .models = &model,
            .model_count = task->has_model,
            .item_input_bytes = task->input_bytes,
            .input_domain = task->input_domain,
            .checkpointable =
                task->work == FM_SIM_TRAIN || task->work == FM_SIM_TRAIN_LORA,
        },
        err);
}

fm_status_t fm_sim_task_of(struct sim *sim, const struct flow *flow,
                           uint32_t workflow, uint32_t node, uint32_t *task_out,
                           fm_error_t *err)
{
    const fm_sim_stage_t *stage = &flow->stages[node];
    fm_digest_t key = fm_sim_batch_key(sim, flow, workflow, node);
    const uint64_t *at = fm_map_get(sim->task_ids, &key);
    struct task task = {.key = key};
    fm_status_t rc;

    if (at) {
        struct task *known = &sim->tasks[*at];

        *task_out = (uint32_t)*at;
        if (stage->memory_bytes > known->memory_bytes) {
            known->memory_bytes = stage->memory_bytes;
            return fm_sim_task_place(sim, known, err);
        }
        return FM_OK;
    }
    task_fill(sim, stage, &task);
    task.has_model = fm_sim_node_model(sim, flow, node, &task.model);
    if ((rc = shape_of(sim, stage, &task, err)) < 0 ||
        (rc = fm_grow(&sim->tasks, &sim->task_capacity, sim->task_count,
                      sizeof(*sim->tasks), err)) < 0 ||
        (rc = fm_sim_task_place(sim, &task, err)) < 0 ||
        (rc = fm_map_put(sim->task_ids, &key, sim->task_count, err)) < 0) {
        return rc;
    }
    *task_out = (uint32_t)sim->task_count;
    sim->tasks[sim->task_count++] = task;
    return FM_OK;
}
