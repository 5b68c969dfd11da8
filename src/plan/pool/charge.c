/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who pays what.  Estimates are held while a work is leased and go back when
 * it leaves the lease, whatever became of it; what a run has cost is then paid
 * in equal parts by the tenants who waited, and again divided when others
 * come to share the result.  Replaying the journal sees no leases, only what
 * was paid: so accounts are the same afterwards.
 */
#include "plan/pool/state.h"

static fm_tenant_cost_t estimate_of(const struct lease *lease,
                                    const struct work *work)
{
    double amount = (double)work->amount;

    return (fm_tenant_cost_t){.seconds = lease->rate.seconds * amount,
                              .dollars = lease->rate.dollars * amount,
                              .joules = lease->rate.joules * amount};
}

void fm_pool_charge_grant(fm_pool_t *pool, struct lease *lease, uint32_t id,
                          uint32_t tenant)
{
    const struct work *work = work_at(pool, id);
    fm_tenant_cost_t cost = estimate_of(lease, work);

    lease->payers[lease->count] = (uint16_t)tenant;
    fm_tenants_serve(pool->options.tenants, tenant,
                     lease->virtual_rate * (double)work->amount);
    fm_tenants_hold(pool->options.tenants, tenant, &cost, 1);
}

/* Each run of slots of one tenant is that part of the devices. */
static void devices_move(fm_pool_t *pool, const struct lease *lease,
                         double times)
{
    for (uint32_t from = 0, to = 0; from < lease->count; from = to) {
        while (to < lease->count && lease->payers[to] == lease->payers[from]) {
            to++;
        }
        fm_tenants_devices(pool->options.tenants, lease->payers[from],
                           times * lease->devices * (to - from) / lease->count);
    }
}

void fm_pool_charge_granted(fm_pool_t *pool, const struct lease *lease)
{
    devices_move(pool, lease, 1);
}

void fm_pool_charge_dropped(fm_pool_t *pool, const struct lease *lease)
{
    devices_move(pool, lease, -1);
}

void fm_pool_charge_refund(fm_pool_t *pool, const struct work *work)
{
    const struct lease *lease = &pool->leases[work->lease];
    fm_tenant_cost_t cost = estimate_of(lease, work);
    uint32_t payer = lease->payers[work->slot];

    fm_tenants_hold(pool->options.tenants, payer, &cost, -1);
    fm_tenants_serve(pool->options.tenants, payer,
                     -lease->virtual_rate * (double)work->amount);
}

/* The tenants of the waiting items, in the order in which they came; beyond
 * PAYERS_MAX the others are let off. */
static uint8_t payers_find(const fm_pool_t *pool, const struct work *work,
                           uint16_t payers[PAYERS_MAX])
{
    uint32_t node = work->head_node;
    uint32_t pos = work->head_pos;
    uint8_t count = 0;

    while (node != NONE && count < PAYERS_MAX) {
        const struct item *item = item_at(pool, node, pos);

        if (item->state == ITEM_WAIT) {
            uint16_t tenant = (uint16_t)tenant_of(pool, node);
            uint8_t i = 0;
            while (i < count && payers[i] != tenant) {
                i++;
            }
            if (i == count) {
                payers[count++] = tenant;
            }
        }
        node = item->next_node;
        pos = item->next_pos;
    }
    return count;
}

/* What a worker says is taken if it can be true (T7). */
static bool said(double measured)
{
    return measured > 0 && measured <= FM_POOL_COST_MAX;
}

static double known(double measured, double estimated)
{
    return said(measured) ? measured : estimated;
}

void fm_pool_charge_result(fm_pool_t *pool, uint32_t id,
                           const fm_pool_result_t *result, bool own)
{
    struct work *work = work_at(pool, id);
    fm_tenants_t *tenants = pool->options.tenants;
    fm_tenant_cost_t estimate = {0};
    double served = 0;
    uint16_t payers[PAYERS_MAX];

    if (own) {
        const struct lease *lease = &pool->leases[work->lease];
        estimate = estimate_of(lease, work);
        served =
            said(result->seconds)
                ? fm_tenants_dominant(tenants, lease->resource, result->seconds)
                : lease->virtual_rate * (double)work->amount;
        payers[0] = lease->payers[work->slot];
    }
    if (work->state == WORK_LEASED) {
        fm_pool_charge_refund(pool, work);
    }
    if (result->outcome == FM_POOL_INFRA_ERROR) {
        return; /* not their fault */
    }
    const fm_tenant_cost_t cost = {
        .seconds = known(result->seconds, estimate.seconds),
        .dollars = known(result->dollars, estimate.dollars),
        .joules = known(result->joules, estimate.joules)};
    if (work->waiters == 0 && own) {
        fm_tenants_serve(tenants, payers[0], served); /* it had the device */
    }
    uint8_t count = payers_find(pool, work, payers);
    for (uint8_t i = 0; i < count; i++) {
        fm_tenants_serve(tenants, payers[i], served / count);
        fm_tenants_pay(tenants, payers[i], &cost, 1.0 / count);
    }
    if (result->outcome == FM_POOL_OK) {
        work->seconds = (float)cost.seconds;
        work->dollars = (float)cost.dollars;
        work->joules = (float)cost.joules;
        work->payer_count = count;
        for (uint8_t i = 0; i < count; i++) {
            work->payers[i] = payers[i];
        }
    }
}

void fm_pool_charge_share(fm_pool_t *pool, struct work *work, uint32_t tenant)
{
    const fm_tenant_cost_t cost = {.seconds = (double)work->seconds,
                                   .dollars = (double)work->dollars,
                                   .joules = (double)work->joules};
    uint8_t count = work->payer_count;

    if (count == PAYERS_MAX ||
        (cost.seconds <= 0 && cost.dollars <= 0 && cost.joules <= 0)) {
        return;
    }
    for (uint8_t i = 0; i < count; i++) {
        if (work->payers[i] == tenant) {
            return;
        }
    }
    for (uint8_t i = 0; i < count; i++) {
        fm_tenants_pay(pool->options.tenants, work->payers[i], &cost,
                       1.0 / (count + 1) - 1.0 / count);
    }
    fm_tenants_pay(pool->options.tenants, tenant, &cost, 1.0 / (count + 1));
    work->payers[count] = (uint16_t)tenant;
    work->payer_count++;
}
