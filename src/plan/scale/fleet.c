/* SPDX-License-Identifier: Apache-2.0 */
/* The fleet as one decision sees it: per class, when workers are free, how
 * many may be added, and who holds the models that the demand wants. */
#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "plan/scale/internal.h"

#define LOAD_BYTES_PER_S 1e9
#define OCTAVE_FIRST (-2) /* bucket 1 holds [1/8, …) seconds and less */

uint32_t fm_scale_bucket(double seconds)
{
    int exponent = 0;

    if (seconds <= 0) {
        return 0;
    }
    double mantissa = frexp(seconds, &exponent);
    int at = (exponent - OCTAVE_FIRST) * 4 + (int)((mantissa - 0.5) * 8) + 1;
    int last = (int)FM_SCALE_BUCKETS - 1;
    return (uint32_t)(at < 1 ? 1 : at > last ? last : at);
}

double fm_scale_seconds(const struct decision *d, int64_t at_ns)
{
    double s = ((double)at_ns - (double)d->in->now_ns) * 1e-9;
    return at_ns > d->in->now_ns ? s : 0;
}

int64_t fm_scale_later(int64_t now_ns, double seconds)
{
    double at = (double)now_ns + ceil(seconds * 1e9);
    return at >= 9.2e18 ? INT64_MAX : now_ns + (int64_t)ceil(seconds * 1e9);
}

bool fm_scale_fits(const fm_scale_class_t *class, uint32_t task_type,
                   uint32_t device, uint64_t memory_bytes)
{
    return (class->task_types >> task_type & 1) != 0 &&
           (device == 0 || class->device == 0 || class->device == device) &&
           (class->memory_bytes == 0 || memory_bytes <= class->memory_bytes);
}

double fm_scale_load_s(const fm_scale_class_t *class, double bytes)
{
    double rate = class->load_bytes_per_s;
    return bytes / (rate > 0 ? rate : LOAD_BYTES_PER_S);
}

uint32_t fm_scale_model(const struct decision *d, const fm_digest_t *model)
{
    const uint64_t *row = model ? fm_map_get(d->models, model) : NULL;
    return row ? (uint32_t)*row : FM_SCALE_NONE;
}

static fm_status_t number_models(struct decision *d, fm_error_t *err)
{
    const fm_scale_input_t *in = d->in;
    size_t count = 0;

    if (!(d->models = fm_map_create())) {
        return fm_no_memory(err);
    }
    for (size_t i = 0; i < in->demand_count; i++) {
        const fm_digest_t *model = in->demands[i].model;
        if (model && !fm_map_get(d->models, model)) {
            fm_status_t rc = fm_map_put(d->models, model, count++, err);
            if (rc < 0) {
                return rc;
            }
        }
    }
    d->holders = fm_calloc(count * in->class_count + 1, sizeof(*d->holders));
    return d->holders ? FM_OK : fm_no_memory(err);
}

/* A worker whose walltime ends before a new one could be there is no capacity:
 * its replacement is due. */
static bool lasts(const fm_scale_worker_t *worker,
                  const fm_scale_class_t *class, int64_t now_ns)
{
    int64_t from = worker->free_at_ns > now_ns ? worker->free_at_ns : now_ns;
    return worker->ends_ns == 0 ||
           ((double)worker->ends_ns - (double)from) * 1e-9 >= class->startup_s;
}

static void add_worker(struct decision *d, const fm_scale_worker_t *worker)
{
    struct fleet_class *class = &d->classes[worker->class_index];

    class->room -= class->room > 0;
    if (worker->draining) {
        return;
    }
    class->live++;
    class->starting += worker->starting;
    class->idle += !worker->starting && worker->free_at_ns <= d->in->now_ns;
    if (!lasts(worker, class->spec, d->in->now_ns)) {
        return;
    }
    double free_s = fm_scale_seconds(d, worker->free_at_ns);
    /* One that should be up by now comes any moment, but is not idle. */
    if (worker->starting && free_s <= 0) {
        free_s = 1;
    }
    struct bucket *bucket = &class->buckets[fm_scale_bucket(free_s)];
    bucket->count++;
    bucket->sum_s += free_s;
    for (size_t i = 0; i < worker->resident_count; i++) {
        uint32_t model = fm_scale_model(d, &worker->resident[i]);
        if (model != FM_SCALE_NONE) {
            d->holders[model * d->in->class_count + worker->class_index]++;
        }
    }
}

fm_status_t fm_scale_fleet_make(struct decision *d, fm_error_t *err)
{
    const fm_scale_input_t *in = d->in;
    const fm_scale_options_t *opts = &d->scale->opts;
    fm_status_t rc = number_models(d, err);

    if (rc < 0) {
        return rc;
    }
    if (!(d->classes = fm_calloc(in->class_count + 1, sizeof(*d->classes)))) {
        return fm_no_memory(err);
    }
    for (size_t c = 0; c < in->class_count; c++) {
        const fm_scale_class_t *spec = &in->classes[c];
        d->classes[c] = (struct fleet_class){
            .spec = spec,
            .price_s = fm_cost_dollars(1, spec->price_per_hour) +
                       spec->watts * opts->energy_per_kwh / 3.6e6,
            .room = spec->max,
        };
    }
    for (size_t w = 0; w < in->worker_count; w++) {
        add_worker(d, &in->workers[w]);
    }
    d->total_room = opts->starts_max ? opts->starts_max : UINT32_MAX;
    if (opts->workers_max) {
        size_t left = in->worker_count < opts->workers_max
                          ? opts->workers_max - in->worker_count
                          : 0;
        d->total_room = left < d->total_room ? (uint32_t)left : d->total_room;
    }
    return FM_OK;
}

void fm_scale_fleet_fini(struct decision *d)
{
    fm_map_destroy(d->models);
    free(d->holders);
    free(d->classes);
}
