/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A state fed with records as the live control plane feeds it, which keeps
 * the records, so that a test can replay them.
 */
#ifndef ROLE_FIXTURE_H
#define ROLE_FIXTURE_H

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "fmtest.h"
#include "role/control/state.h"

#define RECORDS_MAX 64
/* Two echo nodes; the second reads the first. */
#define TWO_NODES                                                              \
    "apiVersion: flowmesh/v1\nmetadata: {name: two}\nspec:\n  graph:\n"        \
    "    nodes:\n"                                                             \
    "      - {name: first, spec: {taskType: echo, data: {items: [a, b, "       \
    "c]}}}\n"                                                                  \
    "      - {name: second, dependsOn: first, spec: {taskType: echo,\n"        \
    "         data: {items: ['say ${first.items.0.output}']}}}\n"

typedef struct world {
    fm_state_t *state;
    unsigned types[RECORDS_MAX];
    fm_buf_t records[RECORDS_MAX];
    size_t count;
    uint64_t lease;
    const char *placement; /* of the next results; NULL: some */
    double seconds;        /* 0: half a second */
    fm_error_t err;
} world_t;

static inline fm_span_t span_of(const char *text)
{
    return (fm_span_t){text, strlen(text)};
}

static inline fm_state_t *state_make(void)
{
    fm_state_t *state = NULL;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_state_create("cpu-f32", &state, &err), &err);
    return state;
}

static inline void world_init(world_t *world)
{
    *world = (world_t){.state = state_make()};
}

static inline void world_fini(world_t *world)
{
    for (size_t i = 0; i < world->count; i++) {
        fm_buf_fini(&world->records[i]);
    }
    fm_state_destroy(world->state);
}

/* Keep the record and apply it live; takes @p buf. */
static inline fm_status_t world_apply(world_t *world, unsigned type,
                                      fm_buf_t *buf)
{
    CU_ASSERT_FATAL(world->count < RECORDS_MAX && !buf->failed);
    world->types[world->count] = type;
    world->records[world->count++] = *buf;
    return fm_state_apply(world->state, type, buf->data, buf->len, false, 1,
                          &world->err);
}

static inline fm_status_t world_submit(world_t *world, uint32_t flow,
                                       const char *text)
{
    fm_record_submit_t record = {.workflow = flow,
                                 .wall_ns = 5,
                                 .file = span_of("t.yaml"),
                                 .text = span_of(text),
                                 .files = span_of("{}")};
    fm_buf_t buf = {0};

    fm_record_submit_encode(&record, &buf);
    return world_apply(world, FM_RECORD_SUBMIT, &buf);
}

/* Items are texts such as "a": {"value":"a"} each. */
static inline fm_status_t world_expand(world_t *world, uint32_t flow,
                                       uint32_t node, uint32_t first,
                                       const char *const *texts, uint32_t count,
                                       bool more)
{
    fm_record_expand_t record = {.workflow = flow,
                                 .node = node,
                                 .more = more,
                                 .params = span_of(more ? "" : "{}"),
                                 .hints = span_of(more ? "" : "{}"),
                                 .first = first,
                                 .count = count};
    fm_buf_t items = {0};
    fm_buf_t buf = {0};

    for (uint32_t i = 0; i < count; i++) {
        char *text = fm_asprintf("{\"value\":\"%s\"}", texts[i]);
        CU_ASSERT_FATAL(text != NULL);
        fm_record_item_add(&items, text, strlen(text));
        free(text);
    }
    record.items = (fm_span_t){(const char *)items.data, items.len};
    fm_record_expand_encode(&record, &buf);
    fm_buf_fini(&items);
    return world_apply(world, FM_RECORD_EXPAND, &buf);
}

static inline fm_pool_item_t world_item(const fm_state_t *state, uint32_t flow,
                                        uint32_t node, uint32_t item)
{
    fm_pool_item_t info = {0};

    CU_ASSERT_FATAL(fm_pool_item_get(fm_state_pool(state), flow, node, item,
                                     &info) == FM_OK);
    return info;
}

/* How many batch keys have ready work; @p out is one of them. */
static inline uint32_t ready_batches(const fm_pool_t *pool,
                                     fm_pool_batch_t *out)
{
    uint32_t count = 0;

    for (uint32_t id = 0; id < fm_pool_batch_ids(pool); id++) {
        fm_pool_batch_t batch;
        if (fm_pool_batch_get(pool, id, &batch)) {
            *out = batch;
            count++;
        }
    }
    return count;
}

/* Lease up to @p max items of the one batch key that is ready. */
static inline uint32_t world_lease(world_t *world, uint32_t max)
{
    fm_pool_t *pool = fm_state_pool(world->state);
    fm_pool_batch_t batch;
    fm_pool_lease_info_t info;

    CU_ASSERT_FATAL(ready_batches(pool, &batch) == 1);
    fm_pool_event_t event = {.kind = FM_POOL_LEASE,
                             .lease = {.lease = ++world->lease,
                                       .worker = (uint32_t)world->lease,
                                       .batch_key = batch.key,
                                       .max_items = max,
                                       .ignore_avoid = true,
                                       .now_ns = 2}};
    CU_ASSERT_FATAL(fm_pool_apply(pool, &event, NULL) == FM_OK);
    CU_ASSERT_FATAL(fm_pool_lease_get(pool, world->lease, &info));
    return info.items;
}

/* What position @p position of the present lease gave: a text (stored inline
 * as JSON), or NULL for a task error. */
static inline fm_status_t world_result(world_t *world, uint32_t position,
                                       const char *output, bool final)
{
    fm_pool_ref_t ref;
    fm_buf_t entries = {0};
    fm_buf_t buf = {0};

    CU_ASSERT_FATAL(fm_pool_lease_item(fm_state_pool(world->state),
                                       world->lease, position, &ref));
    fm_record_entry_t entry = {.position = position,
                               .workflow = ref.workflow,
                               .node = ref.node,
                               .item = ref.item,
                               .key = ref.key,
                               .outcome = output ? FM_OUTCOME_OK
                                                 : FM_OUTCOME_TASK_ERROR,
                               .kind = 1,
                               .locator = span_of(""),
                               .objects = span_of(""),
                               .error = span_of("went wrong")};
    if (output) {
        entry.output = fm_sha256(output, strlen(output));
        entry.bytes = span_of(output);
    }
    fm_record_entry_add(&entries, &entry);
    fm_record_result_t record = {
        .lease = world->lease,
        .instance = 1,
        .worker = span_of("local/w1"),
        .device = span_of("Zen 4"),
        .start_ns = 7,
        .seconds = world->seconds > 0 ? world->seconds : 0.5,
        .cpu_seconds = 0.25,
        .joules = 10,
        .dollars = 0.01,
        .placement =
            span_of(world->placement ? world->placement : "{\"total_s\":1}"),
        .final = final,
        .count = 1,
        .entries = {(const char *)entries.data, entries.len}};
    fm_record_result_encode(&record, &buf);
    fm_buf_fini(&entries);
    return world_apply(world, FM_RECORD_RESULT, &buf);
}

static inline fm_status_t world_node(world_t *world, unsigned type,
                                     uint32_t flow, uint32_t node,
                                     const char *text)
{
    fm_record_node_t record = {flow, node, span_of(text)};
    fm_buf_t buf = {0};

    fm_record_node_encode(&record, &buf);
    return world_apply(world, type, &buf);
}

#endif
