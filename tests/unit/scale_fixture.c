/* SPDX-License-Identifier: Apache-2.0 */
#include "scale_fixture.h"

fm_cost_t *cost;
uint32_t task, slow_device, fast_device;
const fm_digest_t model_a = {{0xa}};
const fm_digest_t model_b = {{0xb}};

static bool make_cost(void)
{
    fm_error_t err = {0};
    const fm_cost_task_t work = {.flops_per_unit = 1e12, .overhead_s = 1e-6};
    const fm_cost_device_t slow = {.flops_per_s = 1e12, .overhead_s = 1e-6};
    const fm_cost_device_t fast = {.flops_per_s = 4e12, .overhead_s = 1e-6};

    cost = fm_cost_create();
    return cost && fm_cost_task_id(cost, "work", &work, &task, &err) == FM_OK &&
           fm_cost_device_id(cost, "slow", &slow, &slow_device, &err) ==
               FM_OK &&
           fm_cost_device_id(cost, "fast", &fast, &fast_device, &err) == FM_OK;
}

void site_init(struct site *s, const fm_scale_options_t *opts)
{
    fm_error_t err = {0};

    *s = (struct site){.class_count = 2, .now_ns = NOW};
    s->classes[SLOW] = (fm_scale_class_t){
        .device_class = slow_device,
        .task_types = 1,
        .memory_bytes = 24 * GIB,
        .price_per_hour = 1,
        .startup_s = 60,
        .max = 100,
    };
    s->classes[FAST] = (fm_scale_class_t){
        .device_class = fast_device,
        .task_types = 3,
        .memory_bytes = 80 * GIB,
        .price_per_hour = 6,
        .startup_s = 60,
        .max = 100,
    };
    FM_ASSERT_OK(fm_scale_create(opts, cost, &s->scale, &err), &err);
}

void site_fini(struct site *s)
{
    s->scale = fm_scale_destroy(s->scale);
}

fm_scale_demand_t *add_row(struct site *s, uint32_t items, double item_work,
                           double waiters)
{
    fm_scale_demand_t *row = &s->rows[s->row_count++];
    *row = (fm_scale_demand_t){
        .task_class = task,
        .items = items,
        .size_max = 1,
        .item_work = item_work,
        .waiters = waiters,
        .memory_bytes = 20 * GIB,
    };
    return row;
}

fm_scale_worker_t *add_worker(struct site *s, uint32_t class_index,
                              double idle_s)
{
    fm_scale_worker_t *w = &s->workers[s->worker_count];
    *w = (fm_scale_worker_t){
        .id = (uint32_t)(1000 + s->worker_count),
        .class_index = class_index,
        .free_at_ns = s->now_ns - (int64_t)(idle_s * 1e9),
        .idle_since_ns = s->now_ns - (int64_t)(idle_s * 1e9),
        .up_since_ns = s->now_ns - 3600 * S + (int64_t)s->worker_count,
        .task_class = task,
        .memory_bytes = 20 * GIB,
    };
    s->worker_count++;
    return w;
}

fm_status_t try_decide(struct site *s, size_t cap, fm_error_t *err)
{
    fm_scale_input_t in = {.now_ns = s->now_ns,
                           .classes = s->classes,
                           .class_count = s->class_count,
                           .demands = s->rows,
                           .demand_count = s->row_count,
                           .workers = s->workers,
                           .worker_count = s->worker_count};
    return fm_scale_decide(s->scale, &in, s->actions, cap, &s->count, err);
}

void decide(struct site *s)
{
    fm_error_t err = {0};
    FM_ASSERT_OK(try_decide(s, ACTIONS, &err), &err);
}

uint32_t total(const struct site *s, fm_scale_kind_t kind, uint32_t class_index)
{
    uint32_t n = 0;
    for (size_t i = 0; i < s->count; i++) {
        if (s->actions[i].kind == kind &&
            s->actions[i].class_index == class_index) {
            n += s->actions[i].count;
        }
    }
    return n;
}

const fm_scale_action_t *first(const struct site *s, fm_scale_kind_t kind)
{
    for (size_t i = 0; i < s->count; i++) {
        if (s->actions[i].kind == kind) {
            return &s->actions[i];
        }
    }
    return NULL;
}

int scale_main(const char *suite, const fm_test_case_t *cases, size_t count)
{
    int rc = make_cost() ? fm_test_main(suite, cases, count) : 2;

    fm_cost_destroy(cost);
    return rc;
}
