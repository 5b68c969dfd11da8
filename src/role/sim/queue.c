/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event queue.  Order is (time, scheduling number), so events of one
 * moment happen in the order in which they were scheduled and a run is the
 * same every time.
 */
#include "base/mem.h"
#include "role/sim/internal.h"

static bool before(const struct event *a, const struct event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

fm_status_t fm_sim_queue_push(struct queue *queue, struct event event,
                              fm_error_t *err)
{
    fm_status_t rc = fm_grow(&queue->heap, &queue->capacity, queue->count,
                             sizeof(*queue->heap), err);
    size_t i = queue->count;

    if (rc < 0) {
        return rc;
    }
    event.order = queue->order++;
    queue->count++;
    while (i > 0 && before(&event, &queue->heap[(i - 1) / 4])) {
        queue->heap[i] = queue->heap[(i - 1) / 4];
        i = (i - 1) / 4;
    }
    queue->heap[i] = event;
    return FM_OK;
}

bool fm_sim_queue_pop(struct queue *queue, struct event *out)
{
    struct event last;
    size_t i = 0;

    if (queue->count == 0) {
        return false;
    }
    *out = queue->heap[0];
    last = queue->heap[--queue->count];
    for (;;) {
        size_t child = 4 * i + 1, best = child;

        if (child >= queue->count) {
            break;
        }
        for (size_t c = child + 1; c < child + 4 && c < queue->count; c++) {
            if (before(&queue->heap[c], &queue->heap[best])) {
                best = c;
            }
        }
        if (!before(&queue->heap[best], &last)) {
            break;
        }
        queue->heap[i] = queue->heap[best];
        i = best;
    }
    if (queue->count > 0) {
        queue->heap[i] = last;
    }
    return true;
}

int64_t fm_sim_queue_next_ns(const struct queue *queue)
{
    return queue->count > 0 ? queue->heap[0].at_ns : INT64_MAX;
}
