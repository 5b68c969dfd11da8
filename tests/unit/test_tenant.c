/* SPDX-License-Identifier: Apache-2.0 */
/* tenant: fair share, quotas, accounts (docs/spec/tenants.md). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/rng.h"
#include "fmtest.h"
#include "plan/tenant/tenant.h"

static fm_tenants_t *tenants;

static void start(void)
{
    fm_tenants_destroy(tenants);
    tenants = fm_tenants_create();
    CU_ASSERT_FATAL(tenants != NULL);
}

static uint32_t id(const char *name)
{
    uint32_t out = UINT32_MAX;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_tenants_id(tenants, name, &out, &err), &err);
    return out;
}

static fm_tenant_info_t info(uint32_t tenant)
{
    fm_tenant_info_t out;

    CU_ASSERT_FATAL(fm_tenants_get(tenants, tenant, &out) == FM_OK);
    return out;
}

static void configure(const char *name, fm_tenant_config_t config)
{
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_tenants_configure(tenants, name, &config, &err), &err);
}

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-9 * (1 + fabs(b));
}

/* Serve whoever is behind, seconds at a time; the share that each got of
 * @p leases. */
static void serve_in_turn(uint32_t count, uint32_t leases, double seconds,
                          double *got)
{
    for (uint32_t n = 0; n < leases; n++) {
        uint32_t least = 0;
        for (uint32_t t = 1; t < count; t++) {
            least = fm_tenants_served(tenants, t) <
                            fm_tenants_served(tenants, least)
                        ? t
                        : least;
        }
        fm_tenants_serve(tenants, least,
                         fm_tenants_dominant(tenants, 0, seconds));
        got[least] += 1.0 / leases;
    }
}

static void test_names(void)
{
    char longest[FM_TENANT_NAME_BYTES_MAX + 2];
    uint32_t out = 7;
    fm_error_t err = {0};

    start();
    CU_ASSERT(id("ann") == 0 && id("bob") == 1 && id("ann") == 0);
    CU_ASSERT(fm_tenants_count(tenants) == 2);
    CU_ASSERT(fm_tenants_find(tenants, "bob") == 1);
    CU_ASSERT(fm_tenants_find(tenants, "eve") == UINT32_MAX);
    CU_ASSERT(strcmp(info(1).name, "bob") == 0);
    CU_ASSERT(fm_tenants_id(tenants, "", &out, &err) == FM_ERR_INVALID);
    CU_ASSERT(fm_tenants_id(tenants, "*", &out, &err) == FM_ERR_INVALID);
    memset(longest, 'x', sizeof(longest));
    longest[FM_TENANT_NAME_BYTES_MAX + 1] = '\0';
    CU_ASSERT(fm_tenants_id(tenants, longest, &out, &err) == FM_ERR_INVALID);
    longest[FM_TENANT_NAME_BYTES_MAX] = '\0';
    CU_ASSERT(id(longest) == 2 && out == 7);
    fm_tenant_info_t unused;
    CU_ASSERT(fm_tenants_get(tenants, 3, &unused) == FM_ERR_NOT_FOUND);
}

/* T1, T2: weights are kept, and nobody gains by a class with many devices. */
static void test_weights_are_kept(void)
{
    double got[3] = {0};

    start();
    configure("a", (fm_tenant_config_t){.weight = 1});
    configure("b", (fm_tenant_config_t){.weight = 2});
    configure("c", (fm_tenant_config_t){.weight = 5});
    fm_tenants_capacity(tenants, 0, 16);
    for (uint32_t t = 0; t < 3; t++) {
        fm_tenants_ready(tenants, t, 1);
    }
    serve_in_turn(3, 8000, 30, got);
    CU_ASSERT(fabs(got[0] - 0.125) < 0.01 && fabs(got[1] - 0.25) < 0.01 &&
              fabs(got[2] - 0.625) < 0.01);
    for (uint32_t t = 0; t < 3; t++) { /* within one lease of the present */
        CU_ASSERT(fabs(info(t).deficit) <= 30.0 / 16 + 1e-6);
    }
}

static void test_dominant_resource(void)
{
    start();
    uint32_t wide = id("wide");
    uint32_t narrow = id("narrow");
    fm_tenants_capacity(tenants, 0, 100);
    fm_tenants_capacity(tenants, 1, 10);
    fm_tenants_capacity(tenants, FM_TENANT_RESOURCES_MAX, 50);
    CU_ASSERT(near(fm_tenants_dominant(tenants, 0, 50), 0.5));
    CU_ASSERT(near(fm_tenants_dominant(tenants, 1, 50), 5));
    CU_ASSERT(near(fm_tenants_dominant(tenants, 9, 50), 50)); /* never told */
    CU_ASSERT(
        near(fm_tenants_dominant(tenants, FM_TENANT_RESOURCES_MAX, 50), 50));
    fm_tenants_ready(tenants, wide, 1);
    fm_tenants_ready(tenants, narrow, 1);
    /* Ten times the devices of a class ten times as large: equals. */
    for (int i = 0; i < 10; i++) {
        fm_tenants_serve(tenants, wide, fm_tenants_dominant(tenants, 0, 50));
    }
    fm_tenants_serve(tenants, narrow, fm_tenants_dominant(tenants, 1, 50));
    CU_ASSERT(near(info(wide).served, info(narrow).served));
    CU_ASSERT(near(info(wide).deficit, 0) && near(info(wide).share, 1));
}

/* T3: who comes back starts at the present; T4: who is behind is owed, up to a
 * bound, and who is ahead has a smaller share. */
static void test_deficits(void)
{
    start();
    uint32_t a = id("a");
    uint32_t b = id("b");
    fm_tenants_ready(tenants, a, 1);
    fm_tenants_serve(tenants, a, 1000); /* alone: its own business */
    CU_ASSERT(near(info(a).deficit, 0) && near(info(a).share, 1));
    fm_tenants_ready(tenants, b, 1);
    CU_ASSERT(near(info(b).served, 1000)); /* no credit for being away */
    fm_tenants_serve(tenants, a, 20);
    CU_ASSERT(near(info(a).deficit, -10) && near(info(b).deficit, 10));
    CU_ASSERT(near(info(a).share, 0.5) && near(info(b).share, 1));
    fm_tenants_ready(tenants, b, -1);
    fm_tenants_ready(tenants, b, 1); /* gone and back: the debt is void */
    CU_ASSERT(near(info(b).deficit, 0));
    for (int i = 0; i < 100; i++) {
        fm_tenants_serve(tenants, a, 1e6);
        CU_ASSERT(near(info(b).deficit, 1800)); /* never owed more than that */
    }
    CU_ASSERT(near(info(a).share, FM_TENANT_SHARE_MIN));
    for (int i = 0; i < 100; i++) { /* ... nor is the other ahead for ever */
        fm_tenants_serve(tenants, a, 0);
    }
    CU_ASSERT(fabs(info(a).deficit + 1800) < 1e-3);
    fm_tenants_serve(tenants, b, 600);
    CU_ASSERT(fabs(info(b).deficit - 1500) < 1e-3);
    fm_tenants_serve(tenants, b, -600); /* a refund undoes it */
    CU_ASSERT(fabs(info(b).deficit - 1800) < 1e-3);
}

static bool flipped(uint32_t *tenant)
{
    return fm_tenants_next_flipped(tenants, tenant);
}

/* T5, T6. */
static void test_quotas(void)
{
    const fm_tenant_cost_t cost = {.dollars = 4};
    fm_error_t err = {0};
    uint32_t who = UINT32_MAX;

    start();
    uint32_t a = id("a");
    configure("a", (fm_tenant_config_t){
                       .devices_max = 2, .queued_max = 10, .dollars_max = 10});
    CU_ASSERT(!fm_tenants_blocked(tenants, a) && !flipped(&who));
    fm_tenants_devices(tenants, a, 1.75);
    CU_ASSERT(!fm_tenants_is_blocked(tenants, a));
    fm_tenants_devices(tenants, a, 0.25);
    CU_ASSERT(fm_tenants_is_blocked(tenants, a));
    CU_ASSERT(strstr(fm_tenants_blocked(tenants, a), "2 devices") != NULL);
    CU_ASSERT(flipped(&who) && who == a && !flipped(&who));
    fm_tenants_devices(tenants, a, -1);
    fm_tenants_devices(tenants, a, 1); /* there and back: no news */
    CU_ASSERT(!flipped(&who) && fm_tenants_is_blocked(tenants, a));
    fm_tenants_devices(tenants, a, -2);
    CU_ASSERT(flipped(&who) && !fm_tenants_blocked(tenants, a));
    fm_tenants_pay(tenants, a, &cost, 2);
    fm_tenants_devices(tenants, a, 1);
    fm_tenants_hold(tenants, a, &cost, 0.5); /* 8 paid and 2 held */
    CU_ASSERT(strstr(fm_tenants_blocked(tenants, a), "10.00 dollars") != NULL);
    CU_ASSERT(near(info(a).dollars, 10));
    fm_tenants_hold(tenants, a, &cost, -0.5);
    CU_ASSERT(!fm_tenants_blocked(tenants, a) && near(info(a).dollars, 8));

    fm_tenants_items(tenants, a, 6, 0, 0);
    CU_ASSERT(fm_tenants_admit(tenants, a, 4, &err) == FM_OK);
    CU_ASSERT(fm_tenants_admit(tenants, a, 5, &err) == FM_ERR_LIMIT);
    CU_ASSERT(strstr(err.text, "tenant a has 6 items queued, and 5") != NULL);
    fm_tenants_items(tenants, a, -6, 4, 2);
    CU_ASSERT(fm_tenants_admit(tenants, a, 10, &err) == FM_OK);
    CU_ASSERT(fm_tenants_admit(tenants, a, UINT64_MAX, &err) == FM_ERR_LIMIT);
    CU_ASSERT(info(a).items_ran == 4 && info(a).items_shared == 2);
}

static void test_configuration(void)
{
    const fm_tenant_config_t bad[] = {
        {.weight = -1},  {.weight = NAN},           {.weight = 1e-7},
        {.weight = 2e6}, {.dollars_max = INFINITY}, {.dollars_max = -0.5}};
    fm_error_t err = {0};

    start();
    uint32_t a = id("a");
    configure("b", (fm_tenant_config_t){.weight = 3});
    configure("*", (fm_tenant_config_t){.queued_max = 5});
    uint32_t c = id("c");
    CU_ASSERT(info(a).config.queued_max == 5 && info(c).config.queued_max == 5);
    CU_ASSERT(near(info(a).config.weight, 1));
    CU_ASSERT(info(1).config.queued_max == 0);
    /* one that was never heard of has the default too */
    CU_ASSERT(fm_tenants_admit(tenants, UINT32_MAX, 6, &err) == FM_ERR_LIMIT);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        CU_ASSERT(fm_tenants_configure(tenants, "a", &bad[i], &err) ==
                  FM_ERR_INVALID);
    }
    /* Weights and quotas may change while there is work. */
    fm_tenants_ready(tenants, a, 1);
    fm_tenants_ready(tenants, c, 1);
    configure("a", (fm_tenant_config_t){.weight = 3});
    fm_tenants_serve(tenants, a, 4);
    CU_ASSERT(near(info(c).deficit, 1)); /* the present moved by 4 / (3 + 1) */
    fm_tenants_devices(tenants, c, 1);
    configure("c", (fm_tenant_config_t){.devices_max = 1});
    CU_ASSERT(fm_tenants_is_blocked(tenants, c));
    fm_tenants_serve(tenants, a, 3); /* c is not there to wait */
    CU_ASSERT(near(info(a).served, 4.0 / 3 + 1));
    configure("c", (fm_tenant_config_t){0});
    CU_ASSERT(!fm_tenants_is_blocked(tenants, c));
    CU_ASSERT(near(info(c).deficit, 0));
}

/* Who is served when behind never falls back by more than one lease, however
 * tenants come, go and change the size of what they lease. */
static void test_random_shares(void)
{
    enum { COUNT = 8, STEPS = 20000 };
    fm_rng_t rng;
    bool ready[COUNT] = {false};

    start();
    fm_rng_init(&rng, 3);
    for (uint32_t t = 0; t < COUNT; t++) {
        char name[] = {(char)('a' + t), '\0'};
        configure(name, (fm_tenant_config_t){.weight = 1 + t % 3});
    }
    for (int step = 0; step < STEPS; step++) {
        uint32_t flip = (uint32_t)fm_rng_below(&rng, COUNT);
        if (fm_rng_below(&rng, 50) == 0) {
            ready[flip] = !ready[flip];
            fm_tenants_ready(tenants, flip, ready[flip] ? 1 : -1);
        }
        uint32_t least = UINT32_MAX;
        for (uint32_t t = 0; t < COUNT; t++) {
            if (ready[t] && (least == UINT32_MAX ||
                             fm_tenants_served(tenants, t) <
                                 fm_tenants_served(tenants, least))) {
                least = t;
            }
        }
        if (least == UINT32_MAX) {
            continue;
        }
        CU_ASSERT_FATAL(info(least).deficit > -1e-6);
        fm_tenants_serve(tenants, least, 1 + fm_rng_uniform(&rng));
        for (uint32_t t = 0; t < COUNT; t++) {
            CU_ASSERT_FATAL(!ready[t] || info(t).deficit < 2 * COUNT);
        }
    }
}

static void test_out_of_memory(void)
{
    fm_error_t err = {0};

    for (int nth = 1; nth < 12; nth++) {
        char spec[32];
        uint32_t out = UINT32_MAX;

        (void)snprintf(spec, sizeof(spec), "base.alloc:%d", nth);
        fm_tenants_destroy(tenants);
        (void)fm_fault_arm(spec);
        tenants = fm_tenants_create();
        fm_status_t rc = tenants ? fm_tenants_id(tenants, "a", &out, &err)
                                 : FM_ERR_NO_MEMORY;
        (void)fm_fault_arm(NULL);
        CU_ASSERT(rc == FM_OK || rc == FM_ERR_NO_MEMORY);
        if (tenants && rc < 0) {
            CU_ASSERT(fm_tenants_count(tenants) == 0 && id("a") == 0);
        }
    }
    fm_tenants_destroy(tenants);
    tenants = NULL;
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"names", test_names},
        {"weights", test_weights_are_kept},
        {"dominant resource", test_dominant_resource},
        {"deficits", test_deficits},
        {"quotas", test_quotas},
        {"configuration", test_configuration},
        {"random shares", test_random_shares},
        {"fault: out of memory", test_out_of_memory},
    };
    int rc = fm_test_main("tenant", cases, sizeof(cases) / sizeof(cases[0]));

    fm_tenants_destroy(tenants);
    return rc;
}
