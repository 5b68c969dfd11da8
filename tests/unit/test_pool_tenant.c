/* SPDX-License-Identifier: Apache-2.0 */
/* pool: who is served, who is stopped and who pays (docs/spec/tenants.md). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fmtest.h"
#include "plan/pool/pool.h"

static fm_pool_t *pool;
static fm_tenants_t *tenants;
static uint64_t lease_number;

static fm_digest_t digest(uint32_t n)
{
    return fm_sha256(&n, sizeof(n));
}

static void start(void)
{
    fm_pool_destroy(pool);
    pool = fm_pool_create(NULL);
    CU_ASSERT_FATAL(pool != NULL);
    tenants = fm_pool_tenants(pool);
}

static fm_status_t check(const fm_pool_event_t *event, fm_error_t *err)
{
    return fm_pool_check(pool, event, NULL, err);
}

static fm_status_t apply(fm_pool_event_t event)
{
    fm_error_t err = {0};
    fm_status_t rc = check(&event, &err);

    return rc < 0 ? rc : fm_pool_apply(pool, &event, &err);
}

static fm_pool_event_t expand_event(uint32_t flow, uint32_t first,
                                    uint32_t count)
{
    static fm_digest_t keys[64];

    for (uint32_t i = 0; i < count; i++) {
        keys[i] = digest(first + i);
    }
    return (fm_pool_event_t){.kind = FM_POOL_EXPAND,
                             .expand = {.workflow = flow,
                                        .batch_key = digest(0),
                                        .item_work = 1,
                                        .keys = keys,
                                        .count = count,
                                        .now_ns = 5}};
}

static fm_pool_event_t submit_event(const char *tenant, int32_t priority,
                                    uint64_t items)
{
    static const fm_pool_node_spec_t node = {NULL, 0};

    return (fm_pool_event_t){
        .kind = FM_POOL_SUBMIT,
        .submit = {.workflow = fm_pool_workflow_count(pool),
                   .tenant = tenant,
                   .priority = priority,
                   .items = items,
                   .nodes = &node,
                   .node_count = 1}};
}

/* A workflow of @p count items with keys @p first … */
static uint32_t flow(const char *tenant, uint32_t first, uint32_t count)
{
    uint32_t number = fm_pool_workflow_count(pool);

    CU_ASSERT_FATAL(apply(submit_event(tenant, 0, 0)) == FM_OK);
    CU_ASSERT_FATAL(apply(expand_event(number, first, count)) == FM_OK);
    return number;
}

static fm_status_t lease_of(fm_pool_lease_t with)
{
    with.lease = ++lease_number;
    with.batch_key = digest(0);
    return apply((fm_pool_event_t){.kind = FM_POOL_LEASE, .lease = with});
}

static fm_status_t lease(uint32_t most, double seconds, double dollars)
{
    return lease_of((fm_pool_lease_t){
        .max_items = most, .seconds = seconds, .dollars = dollars});
}

static fm_status_t result(uint64_t number, uint32_t position, uint32_t key,
                          fm_pool_outcome_t outcome, double dollars)
{
    return apply((fm_pool_event_t){.kind = FM_POOL_RESULT,
                                   .result = {.lease = number,
                                              .position = position,
                                              .key = digest(key),
                                              .outcome = outcome,
                                              .output = digest(key + 1000),
                                              .seconds = dollars,
                                              .dollars = dollars,
                                              .joules = 2 * dollars}});
}

static fm_status_t lease_end(fm_pool_lease_end_t how)
{
    return apply((fm_pool_event_t){.kind = FM_POOL_LEASE_END,
                                   .lease_end = {lease_number, how, 0}});
}

static fm_tenant_info_t info(const char *name)
{
    fm_tenant_info_t out;

    CU_ASSERT_FATAL(
        fm_tenants_get(tenants, fm_tenants_find(tenants, name), &out) == FM_OK);
    return out;
}

static bool has_paid(const char *name, double dollars)
{
    fm_tenant_info_t of = info(name);

    return fabs(of.dollars - dollars) < 1e-6 * (1 + dollars);
}

static void configure(const char *name, fm_tenant_config_t config)
{
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_tenants_configure(tenants, name, &config, &err), &err);
}

/* T7, T8: equal parts for those who waited, and again for who comes later. */
static void test_equal_parts(void)
{
    start();
    (void)flow("ann", 1, 2);
    (void)flow("ann", 1, 1); /* one tenant, however many items */
    (void)flow("bob", 1, 1);
    CU_ASSERT(lease(2, 10, 8) == FM_OK);
    CU_ASSERT(has_paid("ann", 8) && has_paid("bob", 0)); /* held: she leads */
    CU_ASSERT(result(lease_number, 0, 1, FM_POOL_OK, 6) == FM_OK);
    CU_ASSERT(has_paid("ann", 3 + 4) && has_paid("bob", 3));
    CU_ASSERT(result(lease_number, 1, 2, FM_POOL_OK, 0) == FM_OK);
    CU_ASSERT(has_paid("ann", 3 + 4)); /* nothing was said: as estimated */
    CU_ASSERT(fabs(info("bob").joules - 6) < 1e-9);
    (void)flow("cem", 1, 2);
    CU_ASSERT(has_paid("ann", 2 + 2) && has_paid("bob", 2) &&
              has_paid("cem", 2 + 2));
    (void)flow("cem", 1, 2); /* has paid */
    (void)flow("bob", 2, 1);
    CU_ASSERT(has_paid("ann", 2 + 4.0 / 3) && has_paid("bob", 2 + 4.0 / 3) &&
              has_paid("cem", 2 + 4.0 / 3));
    CU_ASSERT(info("ann").items_ran == 2 && info("ann").items_shared == 1 &&
              info("cem").items_shared == 4 && info("ann").queued == 0);
}

/* T8: the seventeenth and later ones share for nothing. */
static void test_many_payers(void)
{
    char name[8];

    start();
    for (int live = 1; live >= 0; live--) { /* followers, then memo hits */
        for (uint32_t t = 0; t < 10; t++) {
            (void)snprintf(name, sizeof(name), "%c%u", live ? 'l' : 'm', t);
            (void)flow(name, 1, 1);
        }
        if (live) {
            CU_ASSERT(lease(1, 1, 1) == FM_OK);
            CU_ASSERT(result(lease_number, 0, 1, FM_POOL_OK, 16) == FM_OK);
            CU_ASSERT(has_paid("l0", 1.6) && has_paid("l9", 1.6));
        }
    }
    CU_ASSERT(has_paid("l0", 1) && has_paid("m5", 1) && has_paid("m6", 0));
}

/* T2, T7, T9: failures, ends, orphans, late results. */
static void test_failures_and_orphans(void)
{
    start();
    (void)flow("ann", 1, 1);
    (void)flow("bob", 11, 1);
    CU_ASSERT(lease(1, 10, 8) == FM_OK && has_paid("ann", 8));
    CU_ASSERT(fabs(info("ann").served - 10) < 1e-9);
    CU_ASSERT(lease_end(FM_POOL_END_DRAINED) == FM_OK && has_paid("ann", 0));
    CU_ASSERT(fabs(info("ann").served) < 1e-9);

    start();
    uint32_t first = flow("ann", 1, 1);
    CU_ASSERT(lease(1, 10, 8) == FM_OK);
    CU_ASSERT(lease_end(FM_POOL_END_FAULT) == FM_OK && has_paid("ann", 0));
    CU_ASSERT(lease_of((fm_pool_lease_t){.max_items = 1,
                                         .ignore_avoid = true,
                                         .seconds = 10,
                                         .dollars = 8}) == FM_OK);
    CU_ASSERT(result(lease_number, 0, 1, FM_POOL_INFRA_ERROR, 5) == FM_OK);
    CU_ASSERT(has_paid("ann", 0));
    CU_ASSERT(lease_of((fm_pool_lease_t){.max_items = 1,
                                         .ignore_avoid = true}) == FM_OK);
    CU_ASSERT(result(lease_number, 0, 1, FM_POOL_TASK_ERROR, 5) == FM_OK);
    CU_ASSERT(has_paid("ann", 5)); /* her own mistake */
    CU_ASSERT(info("ann").devices_now < 1e-9);

    CU_ASSERT(lease_of((fm_pool_lease_t){.max_items = 1,
                                         .ignore_avoid = true,
                                         .dollars = 3}) == FM_OK);
    CU_ASSERT(info("ann").devices_now > 0.999 && has_paid("ann", 8));
    CU_ASSERT(apply((fm_pool_event_t){.kind = FM_POOL_CANCEL,
                                      .cancel = {first}}) == FM_OK);
    CU_ASSERT(result(lease_number, 0, 1, FM_POOL_OK, 7) == FM_OK);
    CU_ASSERT(has_paid("ann", 5) && info("ann").queued == 0);
    (void)flow("bob", 1, 1); /* finds it, and pays for it */
    CU_ASSERT(has_paid("bob", 7));
    (void)flow("ann", 1, 1);
    CU_ASSERT(has_paid("bob", 3.5) && has_paid("ann", 8.5));
    /* late, from an old instance: what it says it cost */
    (void)flow("ann", 2, 1);
    CU_ASSERT(result(UINT64_MAX, 0, 2, FM_POOL_OK, 1) == FM_OK);
    CU_ASSERT(has_paid("ann", 9.5));
    /* T10 */
    CU_ASSERT(apply((fm_pool_event_t){.kind = FM_POOL_FORGET,
                                      .forget = {.key = digest(2)}}) == FM_OK);
    (void)flow("bob", 2, 1);
    CU_ASSERT(lease(1, 1, 1) == FM_OK);
    CU_ASSERT(result(lease_number, 0, 2, FM_POOL_OK, 2) == FM_OK);
    CU_ASSERT(has_paid("ann", 9.5) && has_paid("bob", 5.5));
}

static fm_pool_batch_t summary(void)
{
    fm_pool_batch_t out;

    (void)fm_pool_batch_get(pool, 0, &out);
    return out;
}

/* Whether the batch was told to have changed. */
static bool told(void)
{
    uint32_t id = UINT32_MAX;
    uint32_t times = 0;

    while (fm_pool_next_dirty(pool, &id)) {
        CU_ASSERT_FATAL(id == 0 && times++ < 2); /* handed over after that */
    }
    return times > 0;
}

/* T6 */
static void test_device_quota(void)
{
    start();
    configure("ann", (fm_tenant_config_t){.devices_max = 2});
    (void)flow("ann", 1, 4);
    (void)flow("bob", 11, 2);
    CU_ASSERT(told() && !told());
    CU_ASSERT(lease(1, 1, 0) == FM_OK && lease(1, 1, 0) == FM_OK); /* in turn */
    CU_ASSERT(told() && summary().ready == 4 && summary().blocked == 0);
    CU_ASSERT(lease(1, 1, 0) == FM_OK);
    CU_ASSERT(told() && summary().ready == 1 && summary().blocked == 2);
    CU_ASSERT(summary().tenants == 1);
    CU_ASSERT(summary().tenant == fm_tenants_find(tenants, "bob"));
    CU_ASSERT(fm_tenants_blocked(tenants, fm_tenants_find(tenants, "ann")) !=
              NULL);
    CU_ASSERT(lease(8, 1, 0) == FM_OK); /* what is left of bob's alone */
    fm_pool_lease_info_t granted;
    CU_ASSERT(fm_pool_lease_get(pool, lease_number, &granted) &&
              granted.items == 1);
    CU_ASSERT(told() && summary().ready == 0 && summary().blocked == 2);
    CU_ASSERT(lease(8, 1, 0) == FM_ERR_NOT_FOUND);
    CU_ASSERT(!told());
    CU_ASSERT(result(lease_number - 4, 0, 1, FM_POOL_OK, 1) == FM_OK);
    CU_ASSERT(told() && summary().ready == 2 && summary().blocked == 0);
    CU_ASSERT(lease(8, 1, 0) == FM_OK && told()); /* one device, two items */
    CU_ASSERT(info("ann").devices_now > 1.999);
}

/* A lease of two tenants is half a device of each, until it ends. */
static void test_shared_device(void)
{
    start();
    (void)flow("ann", 1, 3);
    (void)flow("bob", 11, 1);
    CU_ASSERT(lease(4, 4, 0) == FM_OK);
    CU_ASSERT(fabs(info("ann").devices_now - 0.75) < 1e-9);
    CU_ASSERT(fabs(info("bob").devices_now - 0.25) < 1e-9);
    for (uint32_t p = 0; p < 4; p++) {
        fm_pool_ref_t ref;
        CU_ASSERT_FATAL(fm_pool_lease_item(pool, lease_number, p, &ref));
        CU_ASSERT(fabs(info("bob").devices_now - 0.25) < 1e-9);
        CU_ASSERT(result(lease_number, p, ref.workflow ? 11 : 1 + ref.item,
                         FM_POOL_OK, 1) == FM_OK);
    }
    CU_ASSERT(info("ann").devices_now < 1e-9 && info("bob").devices_now < 1e-9);
    (void)flow("ann", 21, 3);
    (void)flow("bob", 31, 1);
    CU_ASSERT(lease_of((fm_pool_lease_t){.max_items = 4, .devices = 8}) ==
              FM_OK); /* a gang */
    CU_ASSERT(fabs(info("ann").devices_now - 6) < 1e-9);
    CU_ASSERT(lease_end(FM_POOL_END_DRAINED) == FM_OK);
    CU_ASSERT(info("ann").devices_now < 1e-9);
}

/* Nobody waits for another's quota. */
static void test_handed_over(void)
{
    uint32_t unused = 0;

    start();
    configure("ann", (fm_tenant_config_t){.dollars_max = 5});
    configure("bob", (fm_tenant_config_t){.dollars_max = 1});
    (void)flow("ann", 1, 2);
    (void)flow("bob", 2, 1);            /* wants one of hers */
    CU_ASSERT(lease(1, 1, 5) == FM_OK); /* key 1: she may spend no more */
    CU_ASSERT(told() && summary().ready == 1 && summary().blocked == 0);
    CU_ASSERT(summary().tenant == fm_tenants_find(tenants, "bob"));
    CU_ASSERT(lease(1, 1, 0.5) == FM_OK && has_paid("bob", 0.5));
    CU_ASSERT(lease_end(FM_POOL_END_DRAINED) == FM_OK);

    configure("bob", (fm_tenant_config_t){.dollars_max = 1e-9});
    (void)flow("bob", 3, 1);
    CU_ASSERT(lease(1, 1, 1) == FM_OK); /* and he is at his */
    while (fm_pool_next_dirty(pool, &unused)) {
    }
    CU_ASSERT(summary().ready == 0 && summary().blocked == 1);
    (void)flow("cem", 3, 1); /* one who comes is served at once */
    CU_ASSERT(summary().ready + summary().blocked == 1);
    CU_ASSERT(summary().tenant == fm_tenants_find(tenants, "cem"));
    CU_ASSERT(lease(1, 1, 1) == FM_OK && has_paid("cem", 1));
}

/* However many: at once where the fabric would fall idle, otherwise some with
 * every look. */
static void test_many_handed_over(void)
{
    const fm_tenant_config_t none = {.dollars_max = 1e-9};

    for (int busy = 0; busy < 2; busy++) {
        start();
        configure("ann", none);
        configure("bob", none);
        (void)flow("ann", 9000, 1);
        (void)flow("bob", 9001, 1);
        CU_ASSERT(lease(1, 1, 1) == FM_OK && lease(1, 1, 1) == FM_OK);
        CU_ASSERT(result(lease_number - 1, 0, 9000, FM_POOL_OK, 1) == FM_OK);
        CU_ASSERT(result(lease_number, 0, 9001, FM_POOL_OK, 1) == FM_OK);
        for (uint32_t i = 0; i < 20; i++) {
            (void)flow("ann", 100 * i + 1, 50);
            (void)flow("bob", 100 * i + 1, 50);
        }
        (void)flow("cem", 8000, (uint32_t)busy);
        CU_ASSERT(told() && summary().ready == (uint32_t)busy);
        configure("bob", (fm_tenant_config_t){0});
        CU_ASSERT(told() && (summary().ready == 1000) == !busy);
        for (int looks = 0; looks < 5; looks++) {
            (void)told();
        }
        CU_ASSERT(summary().ready == 1000 + (uint32_t)busy);
        CU_ASSERT(summary().blocked == 0);
    }
}

static void test_queue_quota(void)
{
    fm_error_t err = {0};

    start();
    configure("*", (fm_tenant_config_t){.queued_max = 3});
    fm_pool_event_t event = submit_event("ann", 0, 4);
    CU_ASSERT(check(&event, &err) == FM_ERR_LIMIT);
    uint32_t first = flow("ann", 1, 2);
    CU_ASSERT(apply(submit_event("ann", 0, 0)) == FM_OK);
    event = expand_event(first + 1, 11, 2);
    CU_ASSERT(check(&event, &err) == FM_ERR_LIMIT);
    CU_ASSERT(strstr(err.text, "may queue 3") != NULL);
    CU_ASSERT(info("ann").queued == 2);
    CU_ASSERT(lease(2, 1, 1) == FM_OK);
    CU_ASSERT(result(lease_number, 0, 1, FM_POOL_OK, 1) == FM_OK);
    event = expand_event(first + 1, 1, 3); /* the memo knows one of the three */
    CU_ASSERT(check(&event, &err) == FM_OK);
    event = expand_event(first + 1, 2, 4);
    CU_ASSERT(check(&event, &err) == FM_ERR_LIMIT);
    /* what the journal holds was admitted */
    CU_ASSERT(fm_pool_apply(pool, &event, &err) == FM_OK);
    CU_ASSERT(info("ann").queued == 5);
    event = submit_event("ann", 0, 0);
    CU_ASSERT(check(&event, &err) == FM_ERR_LIMIT);
    event = submit_event("bob", 0, 3);
    CU_ASSERT(check(&event, &err) == FM_OK);
}

/* T1, T5: shares by weight, of leases on classes of different size. */
static void test_fair_leases(void)
{
    double seconds[2] = {0};

    start();
    configure("ann", (fm_tenant_config_t){.weight = 1});
    configure("bob", (fm_tenant_config_t){.weight = 3});
    fm_tenants_capacity(tenants, 2, 8);
    for (uint32_t i = 0; i < 20; i++) {
        (void)flow("ann", 10000 + 50 * i, 50);
        (void)flow("bob", 20000 + 50 * i, 50);
    }
    for (uint32_t i = 0; i < 100; i++) {
        fm_pool_ref_t ref;
        CU_ASSERT(lease_of((fm_pool_lease_t){.max_items = 10,
                                             .resource = 2,
                                             .seconds = 20 + i % 7}) == FM_OK);
        for (uint32_t p = 0; fm_pool_lease_item(pool, lease_number, p, &ref);
             p++) {
            seconds[ref.workflow % 2] += (20 + i % 7) / 10.0;
        }
    }
    CU_ASSERT(fabs(seconds[1] / seconds[0] - 3) < 0.05);
    CU_ASSERT(fabs(info("ann").served - seconds[0] / 8) < 1e-6);
    CU_ASSERT(fabs(info("ann").device_seconds - seconds[0]) < 1e-6);
}

/* A lease of a bounded number of nodes takes them whole, not in turns. */
static void test_max_nodes(void)
{
    fm_pool_lease_info_t granted;

    start();
    for (uint32_t i = 0; i < 4; i++) {
        (void)flow(i % 2 ? "bob" : "ann", 1 + 10 * i, 6);
    }
    for (uint32_t most = 1; most <= 2; most++) {
        bool seen[4] = {false};
        uint32_t nodes = 0;

        CU_ASSERT(lease_of((fm_pool_lease_t){.max_items = 64,
                                             .max_nodes = most}) == FM_OK);
        CU_ASSERT_FATAL(fm_pool_lease_get(pool, lease_number, &granted));
        CU_ASSERT(granted.items == 6 * most);
        for (uint32_t p = 0; p < granted.items; p++) {
            fm_pool_ref_t ref;
            CU_ASSERT_FATAL(fm_pool_lease_item(pool, lease_number, p, &ref));
            nodes += !seen[ref.workflow];
            seen[ref.workflow] = true;
        }
        CU_ASSERT(nodes == most);
    }
    CU_ASSERT(lease_of((fm_pool_lease_t){.max_items = 4, .max_nodes = 1}) ==
              FM_OK); /* sliced, if it must */
    CU_ASSERT(fm_pool_lease_get(pool, lease_number, &granted) &&
              granted.items == 4);
}

/* An estimate is ours: it must be a number.  What a worker says it cost, and
 * cannot be true, must not cost its result. */
static void test_bad_costs(void)
{
    const double bad[] = {-1, NAN, INFINITY, 1e300};

    start();
    (void)flow("ann", 1, 4);
    for (uint32_t i = 0; i < 4; i++) {
        CU_ASSERT(lease(1, bad[i], 0) == FM_ERR_INVALID);
        CU_ASSERT(lease(1, 0, bad[i]) == FM_ERR_INVALID);
        CU_ASSERT(lease(1, 2, 3) == FM_OK);
        CU_ASSERT(result(lease_number, 0, 1 + i, FM_POOL_OK, bad[i]) == FM_OK);
        CU_ASSERT(has_paid("ann", 3 * (i + 1)));
    }
    CU_ASSERT(fabs(info("ann").served - 8) < 1e-9);
    CU_ASSERT(apply(submit_event("*", 0, 0)) == FM_ERR_INVALID);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"equal parts", test_equal_parts},
        {"many payers", test_many_payers},
        {"failures and orphans", test_failures_and_orphans},
        {"device quota", test_device_quota},
        {"shared device", test_shared_device},
        {"handed over", test_handed_over},
        {"many handed over", test_many_handed_over},
        {"queue quota", test_queue_quota},
        {"fair leases", test_fair_leases},
        {"nodes of a lease", test_max_nodes},
        {"bad costs", test_bad_costs},
    };
    int rc =
        fm_test_main("pool_tenant", cases, sizeof(cases) / sizeof(cases[0]));

    fm_pool_destroy(pool);
    return rc;
}
