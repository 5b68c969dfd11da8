/* SPDX-License-Identifier: Apache-2.0 */
/* Batch keys with ready work, tenants' shares, and the scheduler's life. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "plan/sched/state.h"

#define LAMBDA_OTHER 0.5
#define LAMBDA_INFERENCE 0.4
#define LAMBDA_TRAINING 0.8
#define ENERGY_DEFAULT 0.15    /* dollars a kWh */
#define AGE_SCALE_DEFAULT 60.0 /* s */
#define GRAIN_DEFAULT 0.05     /* s */
#define PATIENCE_DEFAULT 1.0
#define PRIORITY_MAX 100
#define PRIORITY_DOUBLES 25.0 /* so 100 is worth 16 times 0 */
#define DEPTH_MAX 32u
#define DEPTH_GAIN 0.1 /* each node that waits below */
#define SHARE_MIN 0.001
#define TENANTS_MAX 1000000u

/* --- life ---------------------------------------------------------------- */

static bool option_ok(double value)
{
    return isfinite(value) && value >= 0;
}

static double or_default(double value, double fallback)
{
    return value > 0 ? value : fallback;
}

static fm_status_t options_check(const fm_sched_options_t *o, fm_error_t *err)
{
    for (size_t k = 0; k < FM_SCHED_KINDS; k++) {
        if (!option_ok(o->lambda[k]) || o->lambda[k] > 1) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "lambda[%zu] = %g is not in 0 to 1", k,
                                o->lambda[k]);
        }
    }
    const struct {
        const char *name;
        double value;
    } numbers[] = {{"energy_per_kwh", o->energy_per_kwh},
                   {"age_scale_s", o->age_scale_s},
                   {"grain_s", o->grain_s},
                   {"patience", o->patience}};
    for (size_t i = 0; i < FM_COUNT_OF(numbers); i++) {
        if (!option_ok(numbers[i].value)) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "%s = %g is not a number of 0 or more",
                                numbers[i].name, numbers[i].value);
        }
    }
    return FM_OK;
}

static fm_sched_options_t options_fill(const fm_sched_options_t *o)
{
    fm_sched_options_t out = *o;

    out.lambda[FM_SCHED_OTHER] =
        or_default(o->lambda[FM_SCHED_OTHER], LAMBDA_OTHER);
    out.lambda[FM_SCHED_INFERENCE] =
        or_default(o->lambda[FM_SCHED_INFERENCE], LAMBDA_INFERENCE);
    out.lambda[FM_SCHED_TRAINING] =
        or_default(o->lambda[FM_SCHED_TRAINING], LAMBDA_TRAINING);
    out.energy_per_kwh = or_default(o->energy_per_kwh, ENERGY_DEFAULT);
    out.age_scale_s = or_default(o->age_scale_s, AGE_SCALE_DEFAULT);
    out.grain_s = or_default(o->grain_s, GRAIN_DEFAULT);
    out.patience = or_default(o->patience, PATIENCE_DEFAULT);
    return out;
}

fm_status_t fm_sched_create(const fm_sched_options_t *opts,
                            const fm_cost_t *cost, fm_sched_t **out,
                            fm_error_t *err)
{
    static const fm_sched_options_t defaults;
    fm_status_t rc = options_check(opts ? opts : &defaults, err);

    if (rc < 0) {
        return rc;
    }
    fm_sched_t *s = fm_calloc(1, sizeof(*s));
    if (!s || !(s->class_ids = fm_map_create()) ||
        !(s->model_ids = fm_map_create()) ||
        !(s->domain_ids = fm_map_create())) {
        fm_sched_destroy(s);
        return fm_no_memory(err);
    }
    s->options = options_fill(opts ? opts : &defaults);
    s->cost = cost;
    s->pool_free = NONE;
    s->reservation.batch = NONE;
    *out = s;
    return FM_OK;
}

void *fm_sched_destroy(fm_sched_t *s)
{
    if (!s) {
        return NULL;
    }
    for (size_t i = 0; i < s->worker_capacity; i++) {
        free(s->workers[i].models);
        free(s->workers[i].seats);
    }
    for (size_t i = 0; i < s->pool_count; i++) {
        free(s->pools[i].heap);
    }
    for (size_t i = 0; i < s->class_count; i++) {
        for (size_t v = 0; v < VARIANTS; v++) {
            free(s->classes[i].cells[v]);
        }
    }
    for (size_t i = 0; i < s->model_count; i++) {
        free(s->models[i].batches.at);
    }
    for (size_t i = 0; i < s->domain_count; i++) {
        free(s->domains[i].batches.at);
    }
    for (size_t i = 0; i < s->batch_count; i++) {
        free(s->batches[i].needs);
        free(s->batches[i].avoid);
    }
    struct list *lists[] = {
        &s->touched,      &s->active_classes, &s->idle_classes,
        &s->free_models,  &s->free_domains,   &s->free_classes,
        &s->free_batches, &s->slots,          &s->active};
    for (size_t i = 0; i < FM_COUNT_OF(lists); i++) {
        free(lists[i]->at);
    }
    fm_map_destroy(s->class_ids);
    fm_map_destroy(s->model_ids);
    fm_map_destroy(s->domain_ids);
    free(s->workers);
    free(s->pools);
    free(s->classes);
    free(s->models);
    free(s->domains);
    free(s->batches);
    free(s->shares);
    free(s);
    return NULL;
}

size_t fm_sched_bytes(const fm_sched_t *s)
{
    size_t bytes = sizeof(*s) + s->worker_capacity * sizeof(*s->workers) +
                   s->pool_capacity * sizeof(*s->pools) +
                   s->class_capacity * sizeof(*s->classes) +
                   (s->model_capacity + s->domain_capacity) *
                       (sizeof(*s->models) + 2 * sizeof(fm_digest_t)) +
                   s->batch_capacity * sizeof(*s->batches) +
                   s->slots.capacity * sizeof(*s->slots.at) +
                   s->share_capacity * sizeof(*s->shares);

    for (size_t i = 0; i < s->worker_capacity; i++) {
        bytes += s->workers[i].model_count *
                     (sizeof(uint32_t) + sizeof(struct seat)) +
                 SEAT_MODEL * sizeof(struct seat);
    }
    for (size_t i = 0; i < s->pool_count; i++) {
        bytes += s->pools[i].capacity * sizeof(struct entry);
    }
    for (size_t i = 0; i < s->class_count; i++) {
        for (size_t v = 0; v < VARIANTS; v++) {
            bytes += s->classes[i].cells[v]
                         ? s->batch_capacity * sizeof(struct cell)
                         : 0;
        }
    }
    for (size_t i = 0; i < s->batch_count; i++) {
        bytes += s->batches[i].need_count * sizeof(struct need) +
                 s->batches[i].avoid_count * sizeof(uint32_t);
    }
    return bytes;
}

/* --- tenants ------------------------------------------------------------- */

void fm_sched_tenant_put(fm_sched_t *s, uint32_t tenant, double share)
{
    if (tenant >= TENANTS_MAX) {
        return;
    }
    if (tenant >= s->share_count) {
        if (tenant >= s->share_capacity) {
            size_t capacity = s->share_capacity ? s->share_capacity : 16;
            while (capacity <= tenant) {
                capacity *= 2;
            }
            double *shares = fm_realloc(s->shares, capacity, sizeof(*shares));
            if (!shares) {
                return;
            }
            s->shares = shares;
            s->share_capacity = capacity;
        }
        memset(s->shares + s->share_count, 0,
               (tenant + 1 - s->share_count) * sizeof(*s->shares));
        s->share_count = (size_t)tenant + 1;
    }
    s->shares[tenant] =
        share >= SHARE_MIN ? log(fmin(share, 1)) : log(SHARE_MIN);
}

/* --- estimates ----------------------------------------------------------- */

/* Seconds of an item on the fastest class, in a full slice. */
static double item_seconds(const fm_sched_t *s, const struct batch *batch)
{
    double best = INFINITY;
    uint32_t device_last = NONE;
    uint32_t cap_last = 0;

    for (size_t i = 0; i < s->active_classes.count; i++) {
        const struct class *class = &s->classes[s->active_classes.at[i]];
        uint32_t cap = fm_sched_cap(batch, class);
        if (cap == 0 ||
            (class->traits.device_class == device_last && cap == cap_last)) {
            continue; /* unfit, or told already */
        }
        device_last = class->traits.device_class;
        cap_last = cap;
        best = fmin(best, fm_sched_run_s(s, batch, class, cap) / cap);
    }
    if (isfinite(best)) {
        return best;
    }
    fm_cost_estimate_t unknown;
    fm_cost_estimate(s->cost, batch->task_class, NONE, batch->item_work,
                     &unknown);
    return unknown.seconds;
}

static void demand_set(fm_sched_t *s, struct batch *batch, double demand_s)
{
    double more = demand_s - batch->demand_s;

    s->demand_s += more;
    for (uint32_t i = 0; i < batch->need_count; i++) {
        s->models[batch->needs[i].model].backlog_s += more;
    }
    batch->demand_s = demand_s;
}

void fm_sched_batch_estimate(fm_sched_t *s, uint32_t slot)
{
    struct batch *batch = &s->batches[slot];

    batch->version = ++s->versions ? s->versions : ++s->versions;
    batch->item_s = item_seconds(s, batch);
    batch->stale = true;
    batch->best.score = INFINITY;
    batch->wait_check_ns = 0;
    demand_set(s, batch, batch->ready * batch->item_s);
}

void fm_sched_cost_changed(fm_sched_t *s)
{
    s->sweep = (uint32_t)s->active.count;
}

/* --- putting ------------------------------------------------------------- */

bool fm_sched_cells_grow(fm_sched_t *s, size_t capacity)
{
    for (size_t i = 0; i < s->class_count; i++) {
        for (size_t v = 0; v < VARIANTS; v++) {
            struct cell **cells = &s->classes[i].cells[v];
            struct cell *grown =
                *cells ? fm_realloc(*cells, capacity, sizeof(*grown)) : NULL;
            if (*cells && !grown) {
                return false;
            }
            if (grown) {
                memset(grown + s->batch_capacity, 0,
                       (capacity - s->batch_capacity) * sizeof(*grown));
                *cells = grown;
            }
        }
    }
    return true;
}

static fm_status_t batch_check(uint32_t id, const fm_sched_batch_t *b,
                               fm_error_t *err)
{
    if (id >= FM_SCHED_BATCHES_MAX || b->model_count > FM_SCHED_MODELS_MAX ||
        b->avoid_count > FM_SCHED_AVOID_MAX || b->gang > FM_SCHED_GANG_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "batch %u: ids are below %u; it has %zu models, "
                            "%zu workers to avoid, a gang of %u; at most %u, "
                            "%u and %u",
                            id, FM_SCHED_BATCHES_MAX, b->model_count,
                            b->avoid_count, b->gang, FM_SCHED_MODELS_MAX,
                            FM_SCHED_AVOID_MAX, FM_SCHED_GANG_MAX);
    }
    if ((unsigned)b->kind >= FM_SCHED_KINDS || b->task_type > 63 ||
        (unsigned)b->device > FM_SCHED_GPU || !option_ok(b->item_work) ||
        b->item_work <= 0 || !option_ok(b->item_input_bytes)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "batch %u: kind, task type, device, work or input "
                            "bytes make no sense",
                            id);
    }
    return FM_OK;
}

static fm_status_t slots_grow(fm_sched_t *s, uint32_t id, fm_error_t *err)
{
    while (s->slots.count <= id) {
        fm_status_t rc = fm_sched_list_push(&s->slots, NONE, err);
        if (rc < 0) {
            return rc;
        }
    }
    return FM_OK;
}

/* An empty slot, its place in s->active reserved. */
static fm_status_t slot_take(fm_sched_t *s, uint32_t *slot_out, fm_error_t *err)
{
    if (s->free_batches.count == 0) {
        if (s->batch_count == s->batch_capacity) {
            size_t capacity = s->batch_capacity ? 2 * s->batch_capacity : 16;
            struct batch *grown = NULL;
            if (!fm_sched_cells_grow(s, capacity) ||
                !(grown = fm_realloc(s->batches, capacity, sizeof(*grown)))) {
                return fm_no_memory(err);
            }
            s->batches = grown;
            s->batch_capacity = capacity;
        }
        s->batches[s->batch_count] = (struct batch){.active = NONE};
        fm_status_t rc =
            fm_sched_list_push(&s->free_batches, (uint32_t)s->batch_count, err);
        if (rc < 0) {
            return rc;
        }
        s->batch_count++;
    }
    uint32_t slot = s->free_batches.at[s->free_batches.count - 1];
    fm_status_t rc = fm_sched_list_push(&s->active, slot, err);
    if (rc == FM_OK) {
        s->free_batches.count--;
        *slot_out = slot;
    }
    return rc;
}

/* Fields that need no memory; true where estimates depend on a change. */
static bool fields_set(struct batch *to, const fm_sched_batch_t *from,
                       bool no_batching)
{
    uint32_t size_max = no_batching ? 1 : (from->size_max ? from->size_max : 1);
    uint32_t gang = from->gang ? from->gang : 1;
    uint32_t full = to->ready < to->size_max ? to->ready : to->size_max;
    bool changed =
        full != (from->ready < size_max ? from->ready : size_max) ||
        to->kind != (uint8_t)from->kind || to->task_class != from->task_class ||
        to->task_type != from->task_type || to->device != from->device ||
        to->gang != gang || to->checkpointable != from->checkpointable ||
        to->memory_bytes != from->memory_bytes ||
        to->item_memory_bytes != from->item_memory_bytes ||
        to->item_work < from->item_work || to->item_work > from->item_work ||
        to->item_input_bytes < from->item_input_bytes ||
        to->item_input_bytes > from->item_input_bytes;
    int32_t priority = from->priority > PRIORITY_MAX    ? PRIORITY_MAX
                       : from->priority < -PRIORITY_MAX ? -PRIORITY_MAX
                                                        : from->priority;
    uint32_t depth = from->depth < DEPTH_MAX ? from->depth : DEPTH_MAX;

    to->ready = from->ready;
    to->size_max = size_max;
    to->kind = (uint8_t)from->kind;
    to->task_class = from->task_class;
    to->task_type = (uint8_t)from->task_type;
    to->device = (uint8_t)from->device;
    to->gang = gang;
    to->checkpointable = from->checkpointable;
    to->memory_bytes = from->memory_bytes;
    to->item_memory_bytes = from->item_memory_bytes;
    to->item_work = from->item_work;
    to->item_input_bytes = from->item_input_bytes;
    to->oldest_ns = from->oldest_ns;
    to->deadline_ns = from->deadline_ns;
    to->stages = depth + 1.0;
    to->priority = priority;
    to->depth = depth;
    to->tenant = from->tenant;
    to->urgency =
        priority / PRIORITY_DOUBLES * log(2) + log(1 + DEPTH_GAIN * depth);
    return changed;
}

/* What a batch refers to, made before anything changes. */
struct refs {
    struct need *needs;
    uint32_t *avoid;
    uint32_t need_count, avoid_count, domain;
};

static void refs_release(fm_sched_t *s, struct refs *refs)
{
    for (uint32_t i = 0; i < refs->need_count; i++) {
        fm_sched_model_release(s, refs->needs[i].model);
    }
    if (refs->domain != NONE) {
        fm_sched_domain_release(s, refs->domain);
    }
    free(refs->needs);
    free(refs->avoid);
}

static bool listed(const struct refs *refs, uint32_t model)
{
    for (uint32_t i = 0; i < refs->need_count; i++) {
        if (refs->needs[i].model == model) {
            return true;
        }
    }
    return false;
}

static bool list_room(struct list *list)
{
    return fm_grow((void *)&list->at, &list->capacity, list->count,
                   sizeof(*list->at), NULL) == FM_OK;
}

static bool refs_make(fm_sched_t *s, const fm_sched_batch_t *from,
                      struct refs *refs)
{
    refs->needs = fm_malloc((from->model_count + 1) * sizeof(*refs->needs));
    refs->avoid = fm_malloc((from->avoid_count + 1) * sizeof(*refs->avoid));
    if (!refs->needs || !refs->avoid) {
        return false;
    }
    for (size_t i = 0; i < from->model_count; i++) {
        uint32_t model = fm_sched_model_make(s, &from->models[i].digest);
        if (model == NONE) {
            return false;
        }
        if (listed(refs, model)) {
            fm_sched_model_release(s, model);
            continue;
        }
        s->models[model].bytes = from->models[i].bytes;
        refs->needs[refs->need_count++] =
            (struct need){.model = model, .bytes = from->models[i].bytes};
        if (!list_room(&s->models[model].batches)) {
            return false;
        }
    }
    for (size_t i = 0; i < from->avoid_count; i++) {
        refs->avoid[refs->avoid_count++] = from->avoid[i];
    }
    if (from->input_domain != NONE && from->item_input_bytes > 0) {
        refs->domain = fm_sched_domain_make(s, from->input_domain);
        return refs->domain != NONE &&
               list_room(&s->domains[refs->domain].batches);
    }
    return true;
}

static bool refs_same(const struct batch *batch, const struct refs *refs)
{
    bool same = batch->domain == refs->domain &&
                batch->need_count == refs->need_count &&
                batch->avoid_count == refs->avoid_count;

    for (uint32_t i = 0; same && i < refs->need_count; i++) {
        same = batch->needs[i].model == refs->needs[i].model &&
               batch->needs[i].bytes == refs->needs[i].bytes;
    }
    for (uint32_t i = 0; same && i < refs->avoid_count; i++) {
        same = batch->avoid[i] == refs->avoid[i];
    }
    return same;
}

static void unlist(fm_sched_t *s, struct list *list, uint32_t pos,
                   uint32_t model)
{
    uint32_t moved = list->at[--list->count];

    list->at[pos] = moved;
    struct batch *batch = &s->batches[moved];
    if (model == NONE) {
        batch->domain_pos = pos;
        return;
    }
    for (uint32_t i = 0; i < batch->need_count; i++) {
        if (batch->needs[i].model == model) {
            batch->needs[i].pos = pos;
        }
    }
    if (list->count == 0) {
        s->models[model].backlog_s = 0; /* no rounding errors stay behind */
    }
}

/* Leave all lists; what the batch had is the caller's to release. */
static struct refs refs_leave(fm_sched_t *s, uint32_t slot)
{
    struct batch *batch = &s->batches[slot];
    struct refs old = {batch->needs, batch->avoid, batch->need_count,
                       batch->avoid_count, batch->domain};

    demand_set(s, batch, 0);
    for (uint32_t i = 0; i < batch->need_count; i++) {
        unlist(s, &s->models[batch->needs[i].model].batches,
               batch->needs[i].pos, batch->needs[i].model);
    }
    if (batch->domain != NONE) {
        unlist(s, &s->domains[batch->domain].batches, batch->domain_pos, NONE);
    }
    batch->needs = NULL;
    batch->avoid = NULL;
    batch->need_count = batch->avoid_count = 0;
    batch->domain = NONE;
    return old;
}

static void refs_take(fm_sched_t *s, uint32_t slot, const struct refs *refs)
{
    struct batch *batch = &s->batches[slot];

    batch->needs = refs->needs;
    batch->avoid = refs->avoid;
    batch->need_count = refs->need_count;
    batch->avoid_count = refs->avoid_count;
    batch->domain = refs->domain;
    for (uint32_t i = 0; i < batch->need_count; i++) {
        struct list *list = &s->models[batch->needs[i].model].batches;
        batch->needs[i].pos = (uint32_t)list->count;
        list->at[list->count++] = slot;
    }
    if (batch->domain != NONE) {
        struct list *list = &s->domains[batch->domain].batches;
        batch->domain_pos = (uint32_t)list->count;
        list->at[list->count++] = slot;
    }
}

fm_status_t fm_sched_batch_put(fm_sched_t *s, uint32_t id,
                               const fm_sched_batch_t *from, fm_error_t *err)
{
    struct refs refs = {.domain = NONE};
    fm_status_t rc = batch_check(id, from, err);

    if (rc < 0) {
        return rc;
    }
    if (from->ready == 0) {
        fm_sched_batch_drop(s, id);
        return FM_OK;
    }
    if ((rc = slots_grow(s, id, err)) < 0) {
        return rc;
    }
    if (!refs_make(s, from, &refs)) {
        refs_release(s, &refs);
        return fm_no_memory(err);
    }
    uint32_t slot = s->slots.at[id];
    bool fresh = slot == NONE;
    if (fresh && (rc = slot_take(s, &slot, err)) < 0) {
        refs_release(s, &refs);
        return rc;
    }
    struct batch *batch = &s->batches[slot];
    if (fresh) {
        *batch = (struct batch){.id = id,
                                .used = true,
                                .domain = NONE,
                                .active = (uint32_t)(s->active.count - 1)};
        s->slots.at[id] = slot;
    }
    bool changed = fields_set(batch, from, s->options.no_batching) || fresh;
    if (refs_same(batch, &refs)) {
        refs_release(s, &refs);
    } else {
        struct refs old = refs_leave(s, slot);
        refs_take(s, slot, &refs);
        refs_release(s, &old);
        changed = true;
    }
    batch->restless = batch->gang > 1 || batch->avoid_count > 0;
    if (changed) {
        fm_sched_batch_estimate(s, slot);
    } else {
        demand_set(s, batch, batch->ready * batch->item_s);
    }
    return FM_OK;
}

void fm_sched_batch_drop(fm_sched_t *s, uint32_t id)
{
    uint32_t slot = id < s->slots.count ? s->slots.at[id] : NONE;

    if (slot == NONE) {
        return;
    }
    struct batch *batch = &s->batches[slot];
    if (s->reservation.batch == slot) {
        fm_sched_reservation_drop(s);
    }
    struct refs old = refs_leave(s, slot);
    refs_release(s, &old);
    uint32_t moved = s->active.at[--s->active.count];
    s->active.at[batch->active] = moved;
    s->batches[moved].active = batch->active;
    s->slots.at[id] = NONE;
    *batch = (struct batch){.active = NONE};
    if (s->active.count == 0) {
        s->demand_s = 0; /* no rounding errors stay behind */
    }
    /* Out of memory: the slot is lost, nothing else. */
    (void)!fm_sched_list_push(&s->free_batches, slot, NULL);
}

double fm_sched_age_bound_s(double ratio, double age_scale_s)
{
    return (fmax(ratio, 1) - 1) * or_default(age_scale_s, AGE_SCALE_DEFAULT);
}
