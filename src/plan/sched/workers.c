/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Workers: their hardware classes, and where they sit.  A change first makes
 * everything that may fail, then takes the new seats after the old ones are
 * left, and frees last what is empty.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "plan/sched/state.h"

#define RATE_DEFAULT 1e9 /* bytes/s where a worker states none */
/* Walltime ends are rounded down to a 16th of what is left, between a minute
 * and an hour, so that the workers of a job are one class. */
#define END_PARTS 16
#define END_MIN_NS (60 * INT64_C(1000000000))
#define END_MAX_NS (3600 * INT64_C(1000000000))
/* What costs nothing counts as this much: ratios need something. */
#define PRICE_MIN 0.01 /* dollars an hour */

/* --- models and domains -------------------------------------------------- */

static uint32_t named_make(fm_map_t *ids, struct list *free_list,
                           struct model **list, size_t *count, size_t *capacity,
                           const fm_digest_t *digest)
{
    const uint64_t *known = fm_map_get(ids, digest);
    uint32_t id = known ? (uint32_t)*known : NONE;

    if (id == NONE && free_list->count > 0) {
        id = free_list->at[free_list->count - 1];
    } else if (id == NONE) {
        if (fm_grow((void *)list, capacity, *count, sizeof(**list), NULL) < 0) {
            return NONE;
        }
        id = (uint32_t)*count;
    }
    if (!known) {
        if (fm_map_put(ids, digest, id, NULL) < 0) {
            return NONE;
        }
        (*list)[id] = (struct model){.digest = *digest, .pool_first = NONE};
        if (id == *count) {
            ++*count;
        } else {
            free_list->count--;
        }
    }
    (*list)[id].refs++;
    return id;
}

static void named_release(fm_map_t *ids, struct list *free_list,
                          struct model *list, uint32_t id)
{
    if (--list[id].refs > 0) {
        return;
    }
    (void)fm_map_remove(ids, &list[id].digest);
    free(list[id].batches.at);
    list[id].batches = (struct list){0};
    /* Out of memory: the number is lost, nothing else. */
    (void)!fm_sched_list_push(free_list, id, NULL);
}

uint32_t fm_sched_model_make(fm_sched_t *s, const fm_digest_t *digest)
{
    return named_make(s->model_ids, &s->free_models, &s->models,
                      &s->model_count, &s->model_capacity, digest);
}

uint32_t fm_sched_domain_make(fm_sched_t *s, uint32_t domain)
{
    fm_digest_t digest = fm_sha256(&domain, sizeof(domain));

    return named_make(s->domain_ids, &s->free_domains, &s->domains,
                      &s->domain_count, &s->domain_capacity, &digest);
}

void fm_sched_model_release(fm_sched_t *s, uint32_t model)
{
    named_release(s->model_ids, &s->free_models, s->models, model);
}

void fm_sched_domain_release(fm_sched_t *s, uint32_t domain)
{
    named_release(s->domain_ids, &s->free_domains, s->domains, domain);
}

/* --- classes ------------------------------------------------------------- */

static int64_t end_round(int64_t end_ns, int64_t now_ns)
{
    if (end_ns == 0) {
        return 0;
    }
    int64_t grain = END_MIN_NS;
    while (now_ns > 0 && grain < END_MAX_NS &&
           grain * 2 * END_PARTS <= end_ns - now_ns) {
        grain *= 2;
    }
    int64_t rounded = end_ns / grain * grain;
    return rounded ? rounded : 1;
}

static struct traits traits_of(const fm_sched_t *s,
                               const fm_sched_worker_t *worker)
{
    struct traits traits;

    memset(&traits, 0, sizeof(traits));
    traits.task_types = worker->task_types;
    traits.memory_bytes = worker->memory_bytes;
    traits.end_ns = end_round(worker->walltime_end_ns, s->now_ns);
    traits.price = worker->price_per_hour;
    traits.watts = worker->watts;
    traits.hazard = worker->hazard_per_hour;
    traits.load =
        worker->load_bytes_per_s > 0 ? worker->load_bytes_per_s : RATE_DEFAULT;
    traits.fetch = worker->fetch_bytes_per_s > 0 ? worker->fetch_bytes_per_s
                                                 : RATE_DEFAULT;
    traits.device_class = worker->device_class;
    traits.device = (uint32_t)worker->device;
    return traits;
}

/* Whether a class gives no estimate that another one does not give too. */
static bool class_has_sibling(const fm_sched_t *s, uint32_t id)
{
    const struct traits *a = &s->classes[id].traits;

    for (size_t i = 0; i < s->active_classes.count; i++) {
        uint32_t other = s->active_classes.at[i];
        const struct traits *b = &s->classes[other].traits;
        if (other != id && a->device_class == b->device_class &&
            a->device == b->device && a->task_types == b->task_types &&
            a->memory_bytes == b->memory_bytes) {
            return true;
        }
    }
    return false;
}

static bool class_room(fm_sched_t *s)
{
    if (fm_grow((void *)&s->classes, &s->class_capacity, s->class_count,
                sizeof(*s->classes), NULL) < 0) {
        return false;
    }
    struct list *lists[] = {&s->active_classes, &s->idle_classes};
    for (size_t i = 0; i < FM_COUNT_OF(lists); i++) {
        if (lists[i]->capacity < s->class_capacity) {
            uint32_t *at =
                fm_realloc(lists[i]->at, s->class_capacity, sizeof(*at));
            if (!at) {
                return false;
            }
            lists[i]->at = at;
            lists[i]->capacity = s->class_capacity;
        }
    }
    return true;
}

static uint32_t class_make(fm_sched_t *s, const struct traits *traits)
{
    fm_digest_t digest = fm_sha256(traits, sizeof(*traits));
    const uint64_t *known = fm_map_get(s->class_ids, &digest);
    bool reuse = s->free_classes.count > 0;

    if (known) {
        return (uint32_t)*known;
    }
    if (s->active_classes.count >= FM_SCHED_CLASSES_MAX ||
        (!reuse && !class_room(s))) {
        return NONE;
    }
    uint32_t id = reuse ? s->free_classes.at[s->free_classes.count - 1]
                        : (uint32_t)s->class_count;
    if (fm_map_put(s->class_ids, &digest, id, NULL) < 0) {
        return NONE;
    }
    if (reuse) {
        s->free_classes.count--;
    } else {
        s->class_count++;
    }
    double energy = traits->watts / 3.6e6 * s->options.energy_per_kwh;
    s->classes[id] = (struct class){
        .traits = *traits,
        .digest = digest,
        .pool = NONE,
        .domain_first = NONE,
        .idle_pos = NONE,
        .active = (uint32_t)s->active_classes.count,
        .rate = traits->price / 3600 + energy,
        .rate_min = fmax(traits->price, PRICE_MIN) / 3600 + energy,
        .used = true};
    s->active_classes.at[s->active_classes.count++] = id;
    s->sweep_all = s->sweep_all || !class_has_sibling(s, id);
    return id;
}

/* Free a class that has no workers. */
static void class_trim(fm_sched_t *s, uint32_t id)
{
    struct class *class = &s->classes[id];

    if (class->pool != NONE) {
        fm_sched_pool_trim(s, class->pool);
    }
    if (!class->used || class->pool != NONE) {
        return;
    }
    s->sweep_all = s->sweep_all || !class_has_sibling(s, id);
    (void)fm_map_remove(s->class_ids, &class->digest);
    for (size_t v = 0; v < VARIANTS; v++) {
        free(class->cells[v]);
        class->cells[v] = NULL;
    }
    uint32_t moved = s->active_classes.at[--s->active_classes.count];
    s->active_classes.at[class->active] = moved;
    s->classes[moved].active = class->active;
    class->used = false;
    /* Out of memory: the number is lost, nothing else. */
    (void)!fm_sched_list_push(&s->free_classes, id, NULL);
}

/* --- seats --------------------------------------------------------------- */

static bool pool_prepare(fm_sched_t *s, enum pool_kind kind, uint32_t class,
                         uint32_t owner)
{
    uint32_t pool = fm_sched_pool_make(s, kind, class, owner);

    return pool != NONE &&
           fm_sched_pool_reserve(s, pool, s->pools[pool].count + 1);
}

/* Where a worker will sit. */
struct place {
    uint32_t class, domain, model_count;
    uint32_t *models;
    struct seat *seats;
};

static void place_release(fm_sched_t *s, const struct place *place)
{
    for (uint32_t i = 0; i < place->model_count; i++) {
        for (uint32_t p = s->models[place->models[i]].pool_first; p != NONE;) {
            uint32_t next = s->pools[p].next;
            fm_sched_pool_trim(s, p);
            p = next;
        }
        fm_sched_model_release(s, place->models[i]);
    }
    if (place->domain != NONE) {
        for (uint32_t p = s->domains[place->domain].pool_first; p != NONE;) {
            uint32_t next = s->pools[p].next;
            fm_sched_pool_trim(s, p);
            p = next;
        }
        fm_sched_domain_release(s, place->domain);
    }
    if (place->class != NONE) {
        class_trim(s, place->class);
    }
    free(place->models);
    free(place->seats);
}

static bool place_prepare(fm_sched_t *s, const struct place *place)
{
    if (!pool_prepare(s, POOL_CLASS, place->class, NONE) ||
        (place->domain != NONE &&
         !pool_prepare(s, POOL_DOMAIN, place->class, place->domain))) {
        return false;
    }
    for (uint32_t i = 0; i < place->model_count; i++) {
        if (!pool_prepare(s, POOL_MODEL, place->class, place->models[i])) {
            return false;
        }
    }
    return true;
}

static bool worker_idle(const struct worker *worker)
{
    return worker->class != NONE && worker->free_at_ns == IDLE && !worker->held;
}

/* Leave all seats; what the worker had is the caller's to release. */
static struct place seats_leave(fm_sched_t *s, uint32_t id)
{
    struct worker *worker = &s->workers[id];
    struct place old = {worker->class, worker->domain, worker->model_count,
                        worker->models, worker->seats};

    if (worker->class != NONE) {
        s->idle_count -= worker_idle(worker);
        s->worker_count--;
        fm_sched_pool_remove(s, worker->seats[SEAT_CLASS]);
        if (worker->domain != NONE) {
            fm_sched_pool_remove(s, worker->seats[SEAT_DOMAIN]);
        }
        for (uint32_t i = 0; i < worker->model_count; i++) {
            fm_sched_pool_remove(s, worker->seats[SEAT_MODEL + i]);
            s->models[worker->models[i]].holders--;
        }
    }
    worker->class = worker->domain = NONE;
    worker->model_count = 0;
    worker->models = NULL;
    worker->seats = NULL;
    worker->version++;
    return old;
}

static uint32_t pool_of(const fm_sched_t *s, uint32_t first, uint32_t class)
{
    while (s->pools[first].class != class) {
        first = s->pools[first].next;
    }
    return first;
}

/* Everything is prepared. */
static void seats_take(fm_sched_t *s, uint32_t id, const struct place *place)
{
    struct worker *worker = &s->workers[id];

    worker->class = place->class;
    worker->domain = place->domain;
    worker->model_count = place->model_count;
    worker->models = place->models;
    worker->seats = place->seats;
    if (place->class == NONE) {
        return;
    }
    s->worker_count++;
    s->idle_count += worker_idle(worker);
    fm_sched_pool_push(s, s->classes[place->class].pool, id, SEAT_CLASS);
    if (place->domain != NONE) {
        fm_sched_pool_push(
            s, pool_of(s, s->domains[place->domain].pool_first, place->class),
            id, SEAT_DOMAIN);
    }
    for (uint32_t i = 0; i < place->model_count; i++) {
        struct model *model = &s->models[place->models[i]];
        model->holders++;
        fm_sched_pool_push(s, pool_of(s, model->pool_first, place->class), id,
                           SEAT_MODEL + i);
    }
}

/* --- putting ------------------------------------------------------------- */

static bool nonnegative(double value)
{
    return isfinite(value) && value >= 0;
}

static fm_status_t worker_check(const fm_sched_worker_t *w, fm_error_t *err)
{
    if (w->id >= FM_SCHED_WORKERS_MAX ||
        w->resident_count > FM_SCHED_RESIDENT_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "worker %u: ids are below %u, and %zu models are "
                            "resident, at most %u",
                            w->id, FM_SCHED_WORKERS_MAX, w->resident_count,
                            FM_SCHED_RESIDENT_MAX);
    }
    if (!nonnegative(w->price_per_hour) || !nonnegative(w->watts) ||
        !nonnegative(w->idle_watts) || !nonnegative(w->hazard_per_hour) ||
        !nonnegative(w->load_bytes_per_s) ||
        !nonnegative(w->fetch_bytes_per_s) || w->walltime_end_ns < 0 ||
        (unsigned)w->device > FM_SCHED_GPU) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "worker %u: price, watts, hazard, rates, walltime "
                            "or device kind make no sense",
                            w->id);
    }
    return FM_OK;
}

static fm_status_t workers_grow(fm_sched_t *s, uint32_t id, fm_error_t *err)
{
    if (id < s->worker_capacity) {
        return FM_OK;
    }
    size_t capacity = s->worker_capacity ? s->worker_capacity : 16;
    while (capacity <= id) {
        capacity *= 2;
    }
    struct worker *workers =
        fm_realloc(s->workers, capacity, sizeof(*s->workers));
    if (!workers) {
        return fm_no_memory(err);
    }
    for (size_t i = s->worker_capacity; i < capacity; i++) {
        workers[i] =
            (struct worker){.free_at_ns = IDLE, .class = NONE, .domain = NONE};
    }
    s->workers = workers;
    s->worker_capacity = capacity;
    return FM_OK;
}

static bool listed(const uint32_t *models, uint32_t count, uint32_t model)
{
    for (uint32_t i = 0; i < count; i++) {
        if (models[i] == model) {
            return true;
        }
    }
    return false;
}

/* Fill a place; false: out of memory, or out of classes. */
static bool place_make(fm_sched_t *s, const fm_sched_worker_t *from,
                       struct place *place)
{
    struct traits traits = traits_of(s, from);

    place->models =
        fm_malloc((from->resident_count + 1) * sizeof(*place->models));
    place->seats =
        fm_malloc((from->resident_count + SEAT_MODEL) * sizeof(*place->seats));
    if (!place->models || !place->seats) {
        return false;
    }
    for (size_t i = 0; i < from->resident_count; i++) {
        uint32_t model = fm_sched_model_make(s, &from->resident[i]);
        if (model == NONE) {
            return false;
        }
        if (listed(place->models, place->model_count, model)) {
            fm_sched_model_release(s, model);
        } else {
            place->models[place->model_count++] = model;
        }
    }
    if (from->domain != NONE &&
        (place->domain = fm_sched_domain_make(s, from->domain)) == NONE) {
        return false;
    }
    return (place->class = class_make(s, &traits)) != NONE &&
           place_prepare(s, place);
}

/* Whether it sits there already. */
static bool place_same(const fm_sched_t *s, uint32_t id,
                       const struct place *place)
{
    const struct worker *w = &s->workers[id];

    return w->class == place->class && w->domain == place->domain &&
           w->model_count == place->model_count &&
           (w->model_count == 0 || !w->models || !place->models ||
            memcmp(w->models, place->models,
                   w->model_count * sizeof(*w->models)) == 0);
}

fm_status_t fm_sched_worker_put(fm_sched_t *s, const fm_sched_worker_t *from,
                                fm_error_t *err)
{
    struct place place = {.class = NONE, .domain = NONE};
    fm_status_t rc = worker_check(from, err);

    if (rc < 0 || (rc = workers_grow(s, from->id, err)) < 0) {
        return rc;
    }
    if (!from->closed && !place_make(s, from, &place)) {
        bool full = s->active_classes.count >= FM_SCHED_CLASSES_MAX;
        place_release(s, &place);
        return full ? fm_error_set(err, FM_ERR_LIMIT,
                                   "more than %u classes of workers",
                                   FM_SCHED_CLASSES_MAX)
                    : fm_no_memory(err);
    }
    struct worker *worker = &s->workers[from->id];
    worker->known = true;
    worker->memory_bytes = from->memory_bytes;
    if (place_same(s, from->id, &place)) {
        place_release(s, &place);
        return FM_OK;
    }
    if (worker->held &&
        (worker->class != place.class || worker->domain != place.domain)) {
        fm_sched_reservation_lose(s, from->id);
    }
    struct place old = seats_leave(s, from->id);
    seats_take(s, from->id, &place);
    place_release(s, &old);
    return FM_OK;
}

/* --- busy, gone ---------------------------------------------------------- */

static void worker_rekey(fm_sched_t *s, uint32_t id)
{
    struct worker *worker = &s->workers[id];

    worker->version++;
    if (worker->class == NONE) {
        return;
    }
    fm_sched_pool_fix(s, worker->seats[SEAT_CLASS]);
    if (worker->domain != NONE) {
        fm_sched_pool_fix(s, worker->seats[SEAT_DOMAIN]);
    }
    for (uint32_t i = 0; i < worker->model_count; i++) {
        fm_sched_pool_fix(s, worker->seats[SEAT_MODEL + i]);
    }
}

void fm_sched_worker_busy(fm_sched_t *s, uint32_t id, int64_t free_at_ns)
{
    if (id >= s->worker_capacity || !s->workers[id].known ||
        s->workers[id].free_at_ns == free_at_ns) {
        return;
    }
    struct worker *worker = &s->workers[id];
    if (worker->held) {
        fm_sched_reservation_lose(s, id);
    }
    s->idle_count -= worker_idle(worker);
    /* Free times in the range of the keys of idle ones are long past. */
    worker->free_at_ns = free_at_ns != IDLE && free_at_ns <= IDLE_KEY_MAX
                             ? IDLE_KEY_MAX + 1
                             : free_at_ns;
    s->idle_count += worker_idle(worker);
    worker_rekey(s, id);
    if (worker_idle(worker)) {
        fm_sched_reservation_offer(s, id);
    }
}

void fm_sched_worker_hold(fm_sched_t *s, uint32_t id, bool held)
{
    struct worker *worker = &s->workers[id];

    s->idle_count -= worker_idle(worker);
    worker->held = held;
    s->idle_count += worker_idle(worker);
    worker_rekey(s, id);
}

void fm_sched_worker_drop(fm_sched_t *s, uint32_t id)
{
    if (id >= s->worker_capacity || !s->workers[id].known) {
        return;
    }
    if (s->workers[id].held) {
        fm_sched_reservation_lose(s, id);
    }
    struct place old = seats_leave(s, id);
    place_release(s, &old);
    s->workers[id].known = false;
    s->workers[id].free_at_ns = IDLE;
}

/* --- loading ------------------------------------------------------------- */

static bool needed(const struct batch *batch, uint32_t model)
{
    for (uint32_t i = 0; i < batch->need_count; i++) {
        if (batch->needs[i].model == model) {
            return true;
        }
    }
    return false;
}

/* The models a worker holds after loading: what does not fit beside the new
 * ones goes, the oldest first. */
static uint32_t models_after(const fm_sched_t *s, const struct worker *worker,
                             const struct batch *batch, uint32_t *models)
{
    uint32_t count = 0;
    double bytes = 0;

    for (uint32_t i = 0; i < batch->need_count; i++) {
        bytes += (double)batch->needs[i].bytes;
    }
    for (uint32_t i = worker->model_count; i-- > 0;) {
        uint32_t model = worker->models[i];
        double more = needed(batch, model) ? 0 : (double)s->models[model].bytes;
        if (needed(batch, model) || worker->memory_bytes == 0 ||
            bytes + more <= (double)worker->memory_bytes) {
            bytes += more;
            models[count++] = model;
        }
    }
    for (uint32_t i = 0; i < count / 2; i++) {
        uint32_t swap = models[i];
        models[i] = models[count - 1 - i];
        models[count - 1 - i] = swap;
    }
    for (uint32_t i = 0; i < batch->need_count; i++) {
        if (!listed(models, count, batch->needs[i].model)) {
            models[count++] = batch->needs[i].model;
        }
    }
    return count;
}

void fm_sched_worker_load(fm_sched_t *s, uint32_t id, const struct batch *batch)
{
    struct worker *worker = &s->workers[id];
    size_t room = (size_t)worker->model_count + batch->need_count;

    if (fm_sched_missing(s, batch, id) == 0 || room > FM_SCHED_RESIDENT_MAX) {
        return;
    }
    struct place place = {.class = worker->class, .domain = worker->domain};
    place.models = fm_malloc(room * sizeof(*place.models));
    place.seats = fm_malloc((room + SEAT_MODEL) * sizeof(*place.seats));
    if (place.models && place.seats) {
        place.model_count = models_after(s, worker, batch, place.models);
    }
    for (uint32_t i = 0; i < place.model_count; i++) {
        s->models[place.models[i]].refs++;
    }
    if (place.domain != NONE) {
        s->domains[place.domain].refs++;
    }
    /* Out of memory: the next fm_sched_worker_put() says what it holds. */
    if (place.model_count == 0 || !place_prepare(s, &place)) {
        place_release(s, &place);
        return;
    }
    struct place old = seats_leave(s, id);
    seats_take(s, id, &place);
    place_release(s, &old);
}
