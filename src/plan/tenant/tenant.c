/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tenants: virtual time, quotas, accounts.
 *
 * Invariants: a tenant is active iff it has ready work and is not blocked;
 * weight_active and sum_active are the sums of weight and of weight × served
 * over those that are; blocked says whether a quota is met now.
 */
#include "plan/tenant/tenant.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "base/mem.h"

#define NONE UINT32_MAX
/* Ten seconds of the whole class ahead halve a share.  Over simulated mixes of
 * eight users cost and energy are the same within 0.3 % from 5 to 60 s, while a
 * light user beside a heavy one waits the less the smaller this is; below, cost
 * rises, because batches are torn. */
#define SHARE_SCALE_S 10.0
/* Half an hour of the whole class; older debts are forgiven: what waited for a
 * device that never came must not stop the others for as long. */
#define DEFICIT_MAX_S 1800.0
#define WEIGHT_MAX 1e6     /* beyond, sums of virtual times lose their digits */
#define DEVICES_SLACK 1e-6 /* parts of a device do not add up exactly */

struct tenant {
    char *name;
    fm_tenant_config_t config;
    double served;
    fm_tenant_cost_t paid, held;
    double devices;
    uint64_t queued, ran, shared;
    uint64_t ready;
    uint32_t flip_next;
    bool configured; /* has a configuration of its own */
    bool active, blocked, told, flip_queued;
};

struct fm_tenants {
    struct tenant *list;
    size_t count, capacity;
    fm_strmap_t *ids;
    fm_tenant_config_t others;
    double weight_active, sum_active;
    double present_before; /* where it stood when the last one left */
    size_t hand;           /* tenant whose debt is looked at next */
    uint32_t active_count;
    uint32_t flip_head, flip_tail;
    uint64_t flips;
    double devices[FM_TENANT_RESOURCES_MAX];
    char text[192];
};

fm_tenants_t *fm_tenants_create(void)
{
    fm_tenants_t *tenants = fm_calloc(1, sizeof(*tenants));

    if (!tenants || !(tenants->ids = fm_strmap_create())) {
        return fm_tenants_destroy(tenants);
    }
    tenants->others.weight = 1;
    tenants->flip_head = tenants->flip_tail = NONE;
    return tenants;
}

void *fm_tenants_destroy(fm_tenants_t *tenants)
{
    if (!tenants) {
        return NULL;
    }
    for (size_t i = 0; i < tenants->count; i++) {
        free(tenants->list[i].name);
    }
    free(tenants->list);
    fm_strmap_destroy(tenants->ids);
    free(tenants);
    return NULL;
}

uint32_t fm_tenants_count(const fm_tenants_t *tenants)
{
    return (uint32_t)tenants->count;
}

uint32_t fm_tenants_find(const fm_tenants_t *tenants, const char *name)
{
    const uint64_t *id = fm_strmap_get(tenants->ids, name);

    return id ? (uint32_t)*id : NONE;
}

fm_status_t fm_tenants_id(fm_tenants_t *tenants, const char *name,
                          uint32_t *id_out, fm_error_t *err)
{
    uint32_t id = fm_tenants_find(tenants, name);
    size_t len = strnlen(name, FM_TENANT_NAME_BYTES_MAX + 1);
    fm_status_t rc;

    if (id != NONE) {
        *id_out = id;
        return FM_OK;
    }
    if (len == 0 || len > FM_TENANT_NAME_BYTES_MAX || strcmp(name, "*") == 0) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "a tenant name has 1 to %u bytes and is not \"*\"",
                            FM_TENANT_NAME_BYTES_MAX);
    }
    if (tenants->count >= FM_TENANT_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT, "more than %u tenants",
                            FM_TENANT_MAX);
    }
    if ((rc = fm_grow((void *)&tenants->list, &tenants->capacity,
                      tenants->count, sizeof(*tenants->list), err)) < 0) {
        return rc;
    }
    char *copy = fm_strdup(name);
    if (!copy) {
        return fm_no_memory(err);
    }
    if ((rc = fm_strmap_put(tenants->ids, name, tenants->count, err)) < 0) {
        free(copy);
        return rc;
    }
    *id_out = (uint32_t)tenants->count;
    tenants->list[tenants->count++] = (struct tenant){
        .name = copy, .config = tenants->others, .flip_next = NONE};
    return FM_OK;
}

/* --- the present --------------------------------------------------------- */

static double present(const fm_tenants_t *tenants)
{
    return tenants->active_count > 0
               ? tenants->sum_active / tenants->weight_active
               : tenants->present_before;
}

static double served_now(const fm_tenants_t *tenants, const struct tenant *of)
{
    double least = present(tenants) - DEFICIT_MAX_S;

    return of->served > least ? of->served : least;
}

static void served_set(fm_tenants_t *tenants, struct tenant *tenant,
                       double served)
{
    if (tenant->active) {
        tenants->sum_active +=
            tenant->config.weight * (served - tenant->served);
    }
    tenant->served = served;
}

static void active_set(fm_tenants_t *tenants, struct tenant *tenant)
{
    bool active = tenant->ready > 0 && !tenant->blocked;
    double now = present(tenants);

    if (active == tenant->active) {
        return;
    }
    tenant->active = active;
    if (active) {
        if (tenant->served < now) {
            tenant->served = now;
        }
        tenants->active_count++;
        tenants->weight_active += tenant->config.weight;
        tenants->sum_active += tenant->config.weight * tenant->served;
    } else if (--tenants->active_count == 0) {
        tenants->present_before = now;
        tenants->weight_active = 0; /* rounding does not add up for ever */
        tenants->sum_active = 0;
    } else {
        tenants->weight_active -= tenant->config.weight;
        tenants->sum_active -= tenant->config.weight * tenant->served;
    }
}

void fm_tenants_serve(fm_tenants_t *tenants, uint32_t id, double cost)
{
    struct tenant *tenant = &tenants->list[id];

    served_set(tenants, tenant,
               served_now(tenants, tenant) + cost / tenant->config.weight);
    /* One that is never served would hold the present back: one a turn, they
     * are moved along. */
    tenants->hand = tenants->hand + 1 < tenants->count ? tenants->hand + 1 : 0;
    struct tenant *other = &tenants->list[tenants->hand];
    served_set(tenants, other, served_now(tenants, other));
}

double fm_tenants_served(const fm_tenants_t *tenants, uint32_t id)
{
    return served_now(tenants, &tenants->list[id]);
}

double fm_tenants_share(const fm_tenants_t *tenants, uint32_t id)
{
    double ahead = tenants->list[id].served - present(tenants);
    double share = ahead > 0 ? SHARE_SCALE_S / (SHARE_SCALE_S + ahead) : 1;

    return share > FM_TENANT_SHARE_MIN ? share : FM_TENANT_SHARE_MIN;
}

void fm_tenants_capacity(fm_tenants_t *tenants, uint32_t resource,
                         double devices)
{
    if (resource < FM_TENANT_RESOURCES_MAX) {
        tenants->devices[resource] = devices;
    }
}

double fm_tenants_dominant(const fm_tenants_t *tenants, uint32_t resource,
                           double seconds)
{
    double devices =
        resource < FM_TENANT_RESOURCES_MAX ? tenants->devices[resource] : 1;

    return devices > 1 ? seconds / devices : seconds;
}

/* --- quotas -------------------------------------------------------------- */

static bool devices_met(const struct tenant *tenant)
{
    return tenant->config.devices_max > 0 &&
           tenant->devices + DEVICES_SLACK >= tenant->config.devices_max;
}

static bool dollars_met(const struct tenant *tenant)
{
    return tenant->config.dollars_max > 0 &&
           tenant->paid.dollars + tenant->held.dollars >=
               tenant->config.dollars_max;
}

static void blocked_test(fm_tenants_t *tenants, struct tenant *tenant)
{
    bool blocked = devices_met(tenant) || dollars_met(tenant);
    uint32_t id = (uint32_t)(tenant - tenants->list);

    if (blocked == tenant->blocked) {
        return;
    }
    tenant->blocked = blocked;
    tenants->flips++;
    active_set(tenants, tenant);
    if (tenant->flip_queued) {
        return;
    }
    tenant->flip_queued = true;
    tenant->flip_next = NONE;
    if (tenants->flip_head == NONE) {
        tenants->flip_head = id;
    } else {
        tenants->list[tenants->flip_tail].flip_next = id;
    }
    tenants->flip_tail = id;
}

bool fm_tenants_next_flipped(fm_tenants_t *tenants, uint32_t *id_out)
{
    while (tenants->flip_head != NONE) {
        uint32_t id = tenants->flip_head;
        struct tenant *tenant = &tenants->list[id];

        tenants->flip_head = tenant->flip_next;
        tenant->flip_queued = false;
        if (tenant->told != tenant->blocked) { /* not there and back again */
            tenant->told = tenant->blocked;
            *id_out = id;
            return true;
        }
    }
    return false;
}

uint32_t fm_tenants_active(const fm_tenants_t *tenants)
{
    return tenants->active_count;
}

uint64_t fm_tenants_flips(const fm_tenants_t *tenants)
{
    return tenants->flips;
}

bool fm_tenants_is_blocked(const fm_tenants_t *tenants, uint32_t id)
{
    return tenants->list[id].blocked;
}

const char *fm_tenants_blocked(fm_tenants_t *tenants, uint32_t id)
{
    if (id >= tenants->count || !tenants->list[id].blocked) {
        return NULL;
    }
    const struct tenant *tenant = &tenants->list[id];
    if (devices_met(tenant)) {
        (void)snprintf(tenants->text, sizeof(tenants->text),
                       "%.64s has %.3g devices at work, of %u it may have at "
                       "once",
                       tenant->name, tenant->devices,
                       tenant->config.devices_max);
    } else {
        (void)snprintf(tenants->text, sizeof(tenants->text),
                       "%.64s has used %.2f dollars, of %.2f it may spend",
                       tenant->name,
                       tenant->paid.dollars + tenant->held.dollars,
                       tenant->config.dollars_max);
    }
    return tenants->text;
}

fm_status_t fm_tenants_admit(const fm_tenants_t *tenants, uint32_t id,
                             uint64_t items, fm_error_t *err)
{
    bool known = id < tenants->count;
    const fm_tenant_config_t *config =
        known ? &tenants->list[id].config : &tenants->others;
    uint64_t queued = known ? tenants->list[id].queued : 0;

    if (config->queued_max == 0 ||
        (queued < config->queued_max && items <= config->queued_max - queued)) {
        return FM_OK;
    }
    return fm_error_set(
        err, FM_ERR_LIMIT,
        "tenant %.64s has %llu items queued, and %llu more were asked for: it "
        "may queue %llu; submit again when some are done",
        known ? tenants->list[id].name : "(new)", (unsigned long long)queued,
        (unsigned long long)items, (unsigned long long)config->queued_max);
}

/* --- configuration ------------------------------------------------------- */

static void config_set(fm_tenants_t *tenants, struct tenant *tenant,
                       const fm_tenant_config_t *config)
{
    if (tenant->active) {
        double more = config->weight - tenant->config.weight;

        tenants->weight_active += more;
        tenants->sum_active += more * tenant->served;
    }
    tenant->config = *config;
    blocked_test(tenants, tenant);
}

fm_status_t fm_tenants_configure(fm_tenants_t *tenants, const char *name,
                                 const fm_tenant_config_t *config,
                                 fm_error_t *err)
{
    fm_tenant_config_t with = *config;
    uint32_t id = NONE;
    fm_status_t rc;

    if (with.weight != 0 &&
        !(with.weight >= 1 / WEIGHT_MAX && with.weight <= WEIGHT_MAX)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "tenant %.64s: a weight is between %g and %g, or 0 "
                            "for 1",
                            name, 1 / WEIGHT_MAX, WEIGHT_MAX);
    }
    if (!isfinite(with.dollars_max) || with.dollars_max < 0) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "tenant %.64s: dollars_max is finite and not "
                            "negative",
                            name);
    }
    with.weight = with.weight > 0 ? with.weight : 1;
    if (strcmp(name, "*") == 0) {
        tenants->others = with;
        for (size_t i = 0; i < tenants->count; i++) {
            if (!tenants->list[i].configured) {
                config_set(tenants, &tenants->list[i], &with);
            }
        }
        return FM_OK;
    }
    if ((rc = fm_tenants_id(tenants, name, &id, err)) < 0) {
        return rc;
    }
    tenants->list[id].configured = true;
    config_set(tenants, &tenants->list[id], &with);
    return FM_OK;
}

/* --- accounts ------------------------------------------------------------ */

static void cost_add(fm_tenant_cost_t *to, const fm_tenant_cost_t *cost,
                     double times)
{
    to->seconds += times * cost->seconds;
    to->dollars += times * cost->dollars;
    to->joules += times * cost->joules;
}

void fm_tenants_hold(fm_tenants_t *tenants, uint32_t id,
                     const fm_tenant_cost_t *cost, double times)
{
    cost_add(&tenants->list[id].held, cost, times);
    blocked_test(tenants, &tenants->list[id]);
}

void fm_tenants_pay(fm_tenants_t *tenants, uint32_t id,
                    const fm_tenant_cost_t *cost, double times)
{
    cost_add(&tenants->list[id].paid, cost, times);
    blocked_test(tenants, &tenants->list[id]);
}

void fm_tenants_devices(fm_tenants_t *tenants, uint32_t id, double more)
{
    struct tenant *tenant = &tenants->list[id];

    tenant->devices += more;
    if (tenant->devices < DEVICES_SLACK) { /* nothing is leased */
        tenant->devices = 0;
        tenant->held = (fm_tenant_cost_t){0};
    }
    blocked_test(tenants, tenant);
}

void fm_tenants_ready(fm_tenants_t *tenants, uint32_t id, int64_t more)
{
    struct tenant *tenant = &tenants->list[id];

    tenant->ready += (uint64_t)more;
    active_set(tenants, tenant);
}

void fm_tenants_items(fm_tenants_t *tenants, uint32_t id, int64_t queued,
                      int64_t ran, int64_t shared)
{
    struct tenant *tenant = &tenants->list[id];

    tenant->queued += (uint64_t)queued;
    tenant->ran += (uint64_t)ran;
    tenant->shared += (uint64_t)shared;
}

fm_status_t fm_tenants_get(const fm_tenants_t *tenants, uint32_t id,
                           fm_tenant_info_t *out)
{
    if (id >= tenants->count) {
        return FM_ERR_NOT_FOUND;
    }
    const struct tenant *tenant = &tenants->list[id];
    *out = (fm_tenant_info_t){
        .name = tenant->name,
        .config = tenant->config,
        .served = served_now(tenants, tenant),
        .deficit = present(tenants) - served_now(tenants, tenant),
        .share = fm_tenants_share(tenants, id),
        .device_seconds = tenant->paid.seconds + tenant->held.seconds,
        .dollars = tenant->paid.dollars + tenant->held.dollars,
        .joules = tenant->paid.joules + tenant->held.joules,
        .devices_now = tenant->devices,
        .queued = tenant->queued,
        .items_ran = tenant->ran,
        .items_shared = tenant->shared};
    return FM_OK;
}

size_t fm_tenants_bytes(const fm_tenants_t *tenants)
{
    return sizeof(*tenants) + tenants->capacity * sizeof(*tenants->list);
}
