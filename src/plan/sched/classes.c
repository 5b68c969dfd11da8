/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Collapse workers into classes.  Two workers are alike when every field that
 * a term reads is equal; of their resident models only those that some batch
 * of this decision asks for count.  A worker that some batch avoids is a class
 * of its own.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "plan/sched/internal.h"

/* What makes workers alike: hashed, so it has no padding. */
struct traits {
    uint64_t task_types, memory_bytes, resident;
    int64_t walltime_end_ns;
    double price, watts, hazard, load, fetch;
    uint32_t device_class, device, domain, avoided;
};

static fm_status_t wanted_make(const fm_sched_input_t *input, fm_map_t *models,
                               fm_map_t *avoided, fm_error_t *err)
{
    for (size_t b = 0; b < input->batch_count; b++) {
        const fm_sched_batch_t *batch = &input->batches[b];
        fm_status_t rc;

        for (size_t i = 0; i < batch->model_count; i++) {
            if ((rc = fm_map_put(models, &batch->models[i].digest, 1, err)) <
                0) {
                return rc;
            }
        }
        for (size_t i = 0; i < batch->avoid_count; i++) {
            fm_digest_t key = fm_sha256(&batch->avoid[i], sizeof(uint32_t));
            if ((rc = fm_map_put(avoided, &key, 1, err)) < 0) {
                return rc;
            }
        }
    }
    return FM_OK;
}

static fm_digest_t traits_of(const fm_sched_worker_t *worker,
                             const fm_map_t *models, const fm_map_t *avoided)
{
    struct traits traits;
    fm_digest_t id = fm_sha256(&worker->id, sizeof(worker->id));

    memset(&traits, 0, sizeof(traits));
    traits.task_types = worker->task_types;
    traits.memory_bytes = worker->memory_bytes;
    traits.walltime_end_ns = worker->walltime_end_ns;
    traits.price = worker->price_per_hour;
    traits.watts = worker->watts;
    traits.hazard = worker->hazard_per_hour;
    traits.load = worker->load_bytes_per_s;
    traits.fetch = worker->fetch_bytes_per_s;
    traits.device_class = worker->device_class;
    traits.device = (uint32_t)worker->device;
    traits.domain = worker->domain;
    traits.avoided = fm_map_get(avoided, &id) ? worker->id + 1 : 0;
    /* A sum of hashes: the order of the models does not matter. */
    for (size_t i = 0; fm_map_count(models) && i < worker->resident_count;
         i++) {
        if (fm_map_get(models, &worker->resident[i])) {
            traits.resident += fm_hash64(worker->resident[i].bytes,
                                         sizeof(worker->resident[i].bytes));
        }
    }
    return fm_sha256(&traits, sizeof(traits));
}

static void class_refresh(struct classes *classes, struct class *class,
                          int64_t now_ns)
{
    class->idle = 0;
    class->free_at_ns = INT64_MAX;
    class->next = FM_SCHED_NONE;
    for (uint32_t i = 0; i < class->count; i++) {
        uint32_t worker = classes->members[class->first + i];
        int64_t free_at_ns = classes->free_at_ns[worker];

        free_at_ns = free_at_ns > now_ns ? free_at_ns : now_ns;
        class->idle += free_at_ns == now_ns;
        if (class->next == FM_SCHED_NONE || free_at_ns < class->free_at_ns) {
            class->free_at_ns = free_at_ns;
            class->next = worker;
        }
    }
}

/* Number the classes in the order of their first worker, then lay out the
 * members class by class. */
static fm_status_t classes_fill(const fm_sched_input_t *input,
                                const fm_map_t *models, const fm_map_t *avoided,
                                fm_map_t *seen, uint32_t *class_of,
                                struct classes *classes, fm_error_t *err)
{
    for (uint32_t i = 0; i < input->worker_count; i++) {
        classes->free_at_ns[i] = input->workers[i].free_at_ns;
        class_of[i] = FM_SCHED_NONE;
        if (input->workers[i].closed) {
            continue;
        }
        fm_digest_t key = traits_of(&input->workers[i], models, avoided);
        const uint64_t *known = fm_map_get(seen, &key);
        uint32_t id = known ? (uint32_t)*known : classes->count;
        if (!known) {
            fm_status_t rc = fm_map_put(seen, &key, id, err);
            if (rc < 0) {
                return rc;
            }
            classes->list[classes->count++] = (struct class){0};
        }
        class_of[i] = id;
        classes->list[id].count++;
    }
    uint32_t first = 0;
    for (uint32_t c = 0; c < classes->count; c++) {
        classes->list[c].first = first;
        first += classes->list[c].count;
        classes->list[c].count = 0;
    }
    for (uint32_t i = 0; i < input->worker_count; i++) {
        if (class_of[i] != FM_SCHED_NONE) {
            struct class *class = &classes->list[class_of[i]];
            classes->members[class->first + class->count++] = i;
        }
    }
    for (uint32_t c = 0; c < classes->count; c++) {
        class_refresh(classes, &classes->list[c], input->now_ns);
        classes->idle += classes->list[c].idle;
    }
    return FM_OK;
}

fm_status_t fm_sched_classes_make(const fm_sched_input_t *input,
                                  struct classes *classes, fm_error_t *err)
{
    size_t n = input->worker_count;
    fm_map_t *models = fm_map_create();
    fm_map_t *avoided = fm_map_create();
    fm_map_t *seen = fm_map_create();
    uint32_t *class_of = fm_malloc(n * sizeof(*class_of));
    fm_status_t rc = FM_ERR_NO_MEMORY;

    classes->list = fm_calloc(n, sizeof(*classes->list));
    classes->members = fm_malloc(n * sizeof(*classes->members));
    classes->free_at_ns = fm_malloc(n * sizeof(*classes->free_at_ns));
    if (!models || !avoided || !seen || !class_of || !classes->list ||
        !classes->members || !classes->free_at_ns) {
        fm_no_memory(err);
        goto out;
    }
    if ((rc = wanted_make(input, models, avoided, err)) == FM_OK) {
        rc = classes_fill(input, models, avoided, seen, class_of, classes, err);
    }
out:
    fm_map_destroy(models);
    fm_map_destroy(avoided);
    fm_map_destroy(seen);
    free(class_of);
    return rc;
}

void fm_sched_classes_fini(struct classes *classes)
{
    free(classes->list);
    free(classes->members);
    free(classes->free_at_ns);
}

void fm_sched_class_take(struct classes *classes, uint32_t id, int64_t now_ns,
                         int64_t until_ns)
{
    struct class *class = &classes->list[id];

    classes->idle -= class->idle;
    classes->free_at_ns[class->next] =
        until_ns > now_ns ? until_ns : now_ns + 1;
    class_refresh(classes, class, now_ns);
    classes->idle += class->idle;
    class->version++;
}
