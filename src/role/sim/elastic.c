/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The elastic fleet: plan/scale is told of ready work, of work queued behind
 * nodes that are not done, and of the workers; its starts and drains are
 * carried out.
 */
#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "role/sim/internal.h"

/* --- demand
 * ------------------------------------------------------------------- */

static fm_status_t demand_add(struct sim *sim, size_t *count,
                              const fm_scale_demand_t *demand, fm_error_t *err)
{
    fm_status_t rc = fm_grow(&sim->demands, &sim->demand_capacity, *count,
                             sizeof(*sim->demands), err);

    if (rc == FM_OK) {
        sim->demands[(*count)++] = *demand;
    }
    return rc;
}

static fm_scale_demand_t demand_of(const struct sim *sim,
                                   const struct task *task)
{
    const struct shape *shape = &sim->shapes[task->shape];
    fm_scale_demand_t demand = {
        .task_class = shape->task_class,
        .task_type = task->task_type,
        .device = task->device,
        .memory_bytes = task->memory_bytes,
        .size_max = task->batch_max,
        .item_work = shape->item_work,
    };

    if (task->has_model) {
        demand.model = &task->model;
        demand.model_bytes =
            (double)fm_sim_load_bytes(&sim->input->models[task->base]);
    }
    return demand;
}

static uint32_t clamp32(double value)
{
    return value > 4e9 ? UINT32_C(4000000000) : (uint32_t)value;
}

/* Rows of one batch key; false: it has no work now. */
static fm_status_t task_demand(struct sim *sim, struct task *task,
                               size_t *count, bool *any_out, fm_error_t *err)
{
    fm_scale_demand_t demand = demand_of(sim, task);
    fm_pool_batch_t batch;
    fm_status_t rc = FM_OK;
    bool any = false;

    if (task->pool_id == NONE) {
        task->pool_id = fm_pool_batch_id(sim->pool, &task->key);
    }
    if (task->pool_id != NONE &&
        fm_pool_batch_get(sim->pool, task->pool_id, &batch)) {
        any = true;
        demand.items = batch.ready;
        demand.item_work = batch.work / batch.ready;
        demand.oldest_ns = batch.oldest_ns;
        demand.deadline_ns = batch.deadline_ns;
        demand.waiters = fmax(task->open_nodes, 1);
        rc = demand_add(sim, count, &demand, err);
    }
    if (rc == FM_OK && task->queued_nodes > 0) {
        any = true;
        demand.items = clamp32((double)task->queued_items);
        demand.item_work = sim->shapes[task->shape].item_work;
        demand.oldest_ns = 0;
        demand.deadline_ns = 0;
        demand.waiters = task->queued_nodes;
        demand.ready_in_s = fmax(1, task->queued_ready_s / task->queued_nodes -
                                        seconds_of(sim->now_ns));
        rc = demand_add(sim, count, &demand, err);
    }
    *any_out = any;
    return rc;
}

static fm_status_t demands_make(struct sim *sim, size_t *count_out,
                                fm_error_t *err)
{
    size_t kept = 0;

    *count_out = 0;
    for (size_t i = 0; i < sim->listed_count; i++) {
        struct task *task = &sim->tasks[sim->listed[i]];
        bool any = false;
        fm_status_t rc = FM_OK;

        if (*count_out + 2 <= FM_SCALE_DEMANDS_MAX) {
            rc = task_demand(sim, task, count_out, &any, err);
        } else {
            any = true; /* later */
        }
        if (rc < 0) {
            return rc;
        }
        if (any) {
            sim->listed[kept++] = sim->listed[i];
        } else {
            task->listed = false;
        }
    }
    sim->listed_count = kept;
    return FM_OK;
}

/* --- supply
 * --------------------------------------------------------------------- */

/* Seconds of training since its last checkpoint. */
static double at_risk(const struct sim *sim, const struct lease *lease)
{
    double run_s = seconds_of(sim->now_ns - lease->execute_ns);
    fm_sim_work_t work = sim->tasks[lease->task].work;

    run_s = fmax(0, run_s);
    return work == FM_SIM_TRAIN || work == FM_SIM_TRAIN_LORA
               ? fmod(run_s, sim->checkpoint_s)
               : run_s;
}

static size_t workers_make(struct sim *sim)
{
    size_t count = 0;

    for (uint32_t w = 0; w < sim->worker_count; w++) {
        const struct worker *at = &sim->workers[w];
        fm_scale_worker_t *to = &sim->scale_workers[count];

        if (at->state == WORKER_OFF) {
            continue;
        }
        *to = (fm_scale_worker_t){
            .id = w,
            .class_index = at->class_index,
            .starting = at->state == WORKER_STARTING,
            .draining = at->draining || at->warned,
            .free_at_ns =
                at->state == WORKER_STARTING ? at->ready_ns : sim->now_ns,
            .idle_since_ns = at->idle_ns,
            .up_since_ns = at->up_ns,
            .ends_ns = at->walltime_end_ns,
            .resident = at->objects,
            .resident_count = at->resident_count,
        };
        if (at->lease.id != 0) {
            const struct task *task = &sim->tasks[at->lease.task];
            int64_t end_ns =
                at->lease.begin_ns + fm_sim_ns(at->lease.expected_s);

            to->free_at_ns =
                end_ns > sim->now_ns ? end_ns : sim->now_ns + fm_sim_ns(0.001);
            to->at_risk_s = at_risk(sim, &at->lease);
            to->task_class = sim->shapes[task->shape].task_class;
            to->task_type = task->task_type;
            to->memory_bytes = task->memory_bytes;
        }
        count++;
    }
    return count;
}

/* --- actions
 * --------------------------------------------------------------------- */

static fm_status_t start(struct sim *sim, uint32_t class_index, uint32_t count,
                         fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    for (uint32_t w = sim->class_first[class_index];
         w < sim->class_first[class_index + 1] && count > 0 && rc == FM_OK;
         w++) {
        if (sim->workers[w].state == WORKER_OFF) {
            rc = fm_sim_worker_start(sim, w, err);
            sim->metrics.result.starts++;
            count--;
        }
    }
    return rc;
}

fm_status_t fm_sim_elastic(struct sim *sim, fm_error_t *err)
{
    fm_scale_input_t input = {.now_ns = sim->now_ns,
                              .classes = sim->scale_classes,
                              .class_count = sim->class_count,
                              .workers = sim->scale_workers};
    size_t count = 0;
    int64_t start_ns = fm_sim_clock(sim);
    fm_status_t rc;

    if ((rc = demands_make(sim, &input.demand_count, err)) < 0) {
        return rc;
    }
    input.demands = sim->demands;
    input.worker_count = workers_make(sim);
    rc = fm_scale_decide(sim->scale, &input, sim->actions, sim->action_capacity,
                         &count, err);
    sim->plan_ns += fm_sim_clock(sim) - start_ns;
    for (size_t a = 0; a < count && rc == FM_OK; a++) {
        const fm_scale_action_t *action = &sim->actions[a];

        switch (action->kind) {
        case FM_SCALE_START:
            rc = start(sim, action->class_index, action->count, err);
            break;
        case FM_SCALE_DRAIN:
            rc = fm_sim_worker_drain(sim, action->worker, action->now, err);
            break;
        case FM_SCALE_HOLD:
            break;
        }
    }
    if (rc < 0) {
        return rc;
    }
    return fm_sim_at(sim, sim->now_ns + sim->scale_interval_ns, EVENT_SCALE, 0,
                     0, err);
}
