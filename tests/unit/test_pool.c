/* SPDX-License-Identifier: Apache-2.0 */
/* pool: which event is allowed in which state, and what follows from it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "fmtest.h"
#include "plan/pool/pool.h"

static fm_pool_t *pool;
static uint64_t lease_number;

static fm_digest_t digest(uint32_t n)
{
    return fm_sha256(&n, sizeof(n));
}

static fm_status_t apply(fm_pool_event_t event)
{
    fm_error_t err = {0};

    return fm_pool_apply(pool, &event, &err);
}

static void start(void)
{
    fm_pool_destroy(pool);
    pool = fm_pool_create(NULL);
    CU_ASSERT_FATAL(pool != NULL);
}

static fm_status_t submit(const char *tenant, int32_t priority, uint32_t nodes)
{
    static const uint32_t deps[] = {0, 1, 2, 3, 4, 5, 6, 7};
    fm_pool_node_spec_t specs[8] = {{NULL, 0}};

    for (uint32_t i = 1; i < nodes; i++) {
        specs[i] = (fm_pool_node_spec_t){&deps[i - 1], 1};
    }
    return apply(
        (fm_pool_event_t){.kind = FM_POOL_SUBMIT,
                          .submit = {.workflow = fm_pool_workflow_count(pool),
                                     .tenant = tenant,
                                     .priority = priority,
                                     .nodes = specs,
                                     .node_count = nodes}});
}

static fm_status_t expand(uint32_t flow, uint32_t node, uint32_t first,
                          uint32_t count)
{
    fm_digest_t keys[16];

    for (uint32_t i = 0; i < count; i++) {
        keys[i] = digest(first + i);
    }
    return apply((fm_pool_event_t){.kind = FM_POOL_EXPAND,
                                   .expand = {.workflow = flow,
                                              .node = node,
                                              .batch_key = digest(0),
                                              .item_work = 1,
                                              .keys = keys,
                                              .count = count,
                                              .now_ns = 5}});
}

static fm_status_t node_event(fm_pool_event_kind_t kind, uint32_t flow,
                              uint32_t node)
{
    return apply((fm_pool_event_t){.kind = kind, .node = {flow, node}});
}

static fm_status_t lease(uint32_t worker, uint32_t max)
{
    return apply((fm_pool_event_t){.kind = FM_POOL_LEASE,
                                   .lease = {.lease = ++lease_number,
                                             .worker = worker,
                                             .batch_key = digest(0),
                                             .max_items = max,
                                             .expires_ns = 100}});
}

static fm_status_t result(uint64_t number, uint32_t position, uint32_t key,
                          fm_pool_outcome_t outcome)
{
    return apply((fm_pool_event_t){.kind = FM_POOL_RESULT,
                                   .result = {.lease = number,
                                              .position = position,
                                              .key = digest(key),
                                              .outcome = outcome,
                                              .output = digest(key + 1000)}});
}

static fm_status_t cancel(uint32_t flow)
{
    return apply((fm_pool_event_t){.kind = FM_POOL_CANCEL, .cancel = {flow}});
}

static fm_status_t forget(uint32_t key)
{
    return apply((fm_pool_event_t){.kind = FM_POOL_FORGET,
                                   .forget = {.key = digest(key)}});
}

static fm_pool_state_t node_state(uint32_t flow, uint32_t node)
{
    fm_pool_node_t out;

    CU_ASSERT_FATAL(fm_pool_node_get(pool, flow, node, &out) == FM_OK);
    return out.state;
}

static fm_pool_item_t item(uint32_t flow, uint32_t node, uint32_t pos)
{
    fm_pool_item_t out;

    CU_ASSERT_FATAL(fm_pool_item_get(pool, flow, node, pos, &out) == FM_OK);
    return out;
}

/* Whether something may be leased. */
static bool any_ready(void)
{
    fm_pool_batch_t batch;

    return fm_pool_batch_get(pool, 0, &batch);
}

/* Notices as text, such as "ready 0.0;done 0.1;". */
static const char *notices(void)
{
    static const char *const names[] = {"ready",  "done",      "failed", "DONE",
                                        "FAILED", "CANCELLED", "moot"};
    static char text[512];
    size_t len = 0;
    fm_pool_notice_t notice;

    text[0] = '\0';
    while (fm_pool_next_notice(pool, &notice) && len < sizeof(text) - 32) {
        len +=
            (size_t)snprintf(text + len, sizeof(text) - len, "%s %u.%u;",
                             names[notice.kind], notice.workflow, notice.node);
    }
    return text;
}

/* Bring node 0 of a fresh workflow into each state. */
static void make_state(fm_pool_state_t state)
{
    start();
    CU_ASSERT_FATAL(submit("t", 0, 2) == FM_OK);
    switch (state) {
    case FM_POOL_WAITING: /* node 1 is: see below */
    case FM_POOL_READY:
        break;
    case FM_POOL_RUNNING:
        CU_ASSERT_FATAL(expand(0, 0, 1, 2) == FM_OK);
        break;
    case FM_POOL_DONE:
        CU_ASSERT_FATAL(expand(0, 0, 1, 0) == FM_OK);
        break;
    case FM_POOL_SKIPPED:
        CU_ASSERT_FATAL(node_event(FM_POOL_SKIP, 0, 0) == FM_OK);
        break;
    case FM_POOL_FAILED:
        CU_ASSERT_FATAL(node_event(FM_POOL_NODE_FAIL, 0, 0) == FM_OK);
        break;
    case FM_POOL_CANCELLED:
        CU_ASSERT_FATAL(cancel(0) == FM_OK);
        break;
    }
}

static void test_states_by_events(void)
{
    enum { OK = FM_OK, BAD = FM_ERR_INVALID, NO = FM_ERR_NOT_FOUND };
    static const struct {
        fm_pool_state_t state;
        int expand, skip, fail, lease, cancel;
    } rows[] = {
        {FM_POOL_WAITING, BAD, BAD, OK, NO, OK},
        {FM_POOL_READY, OK, OK, OK, NO, OK},
        {FM_POOL_RUNNING, BAD, BAD, OK, OK, OK},
        {FM_POOL_DONE, BAD, BAD, BAD, NO, OK},
        {FM_POOL_SKIPPED, BAD, BAD, BAD, NO, OK},
        {FM_POOL_FAILED, BAD, BAD, BAD, NO, BAD},
        {FM_POOL_CANCELLED, BAD, BAD, BAD, NO, OK},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint32_t node = rows[i].state == FM_POOL_WAITING ? 1 : 0;

        make_state(rows[i].state);
        CU_ASSERT(node_state(0, node) == rows[i].state);
        CU_ASSERT((int)expand(0, node, 1, 1) == rows[i].expand);
        make_state(rows[i].state);
        CU_ASSERT((int)node_event(FM_POOL_SKIP, 0, node) == rows[i].skip);
        make_state(rows[i].state);
        CU_ASSERT((int)node_event(FM_POOL_NODE_FAIL, 0, node) == rows[i].fail);
        make_state(rows[i].state);
        CU_ASSERT((int)lease(1, 4) == rows[i].lease);
        make_state(rows[i].state);
        CU_ASSERT((int)cancel(0) == rows[i].cancel);
        /* Always allowed, without effect where there is nothing to do. */
        CU_ASSERT(forget(77) == FM_OK);
        CU_ASSERT(apply((fm_pool_event_t){.kind = FM_POOL_LEASE_END,
                                          .lease_end = {.lease = 9999}}) ==
                  FM_OK);
        CU_ASSERT(result(9999, 0, 500, FM_POOL_TASK_ERROR) == FM_OK);
        CU_ASSERT(result(9999, 0, 500, FM_POOL_OK) == FM_OK);
        CU_ASSERT(submit("u", 0, 1) == FM_OK);
    }
    CU_ASSERT(expand(9, 0, 1, 1) == FM_ERR_NOT_FOUND);
    CU_ASSERT(cancel(9) == FM_ERR_NOT_FOUND);
    CU_ASSERT(submit("", 0, 1) == FM_ERR_INVALID);
    CU_ASSERT(submit("t", 0, 0) == FM_ERR_INVALID);
}

static void test_notices_and_failure(void)
{
    start();
    CU_ASSERT(submit("t", 0, 3) == FM_OK);
    CU_ASSERT_STRING_EQUAL(notices(), "ready 0.0;");
    CU_ASSERT(expand(0, 0, 1, 1) == FM_OK);
    CU_ASSERT(lease(1, 4) == FM_OK);
    CU_ASSERT(result(lease_number, 0, 2, FM_POOL_OK) == FM_ERR_PROTOCOL);
    CU_ASSERT(result(lease_number, 1, 1, FM_POOL_OK) == FM_ERR_PROTOCOL);
    CU_ASSERT(result(lease_number, 0, 1, FM_POOL_OK) == FM_OK);
    CU_ASSERT_STRING_EQUAL(notices(), "done 0.0;ready 0.1;");
    CU_ASSERT(result(lease_number, 0, 1, FM_POOL_OK) == FM_OK); /* repeat */
    CU_ASSERT_STRING_EQUAL(notices(), "");
    CU_ASSERT(expand(0, 1, 2, 2) == FM_OK);
    for (uint32_t attempt = 1; attempt <= 3; attempt++) {
        CU_ASSERT(node_state(0, 1) == FM_POOL_RUNNING);
        CU_ASSERT(lease(attempt, 1) == FM_OK);
        CU_ASSERT(result(lease_number, 0, 2, FM_POOL_TASK_ERROR) == FM_OK);
    }
    CU_ASSERT_STRING_EQUAL(notices(), "failed 0.1;failed 0.2;FAILED 0.0;");
    fm_pool_node_t node;
    CU_ASSERT(fm_pool_node_get(pool, 0, 1, &node) == FM_OK);
    CU_ASSERT(node.reason == FM_POOL_REASON_TASK && node.failed_item == 0);
    CU_ASSERT(item(0, 1, 0).state == FM_POOL_ITEM_FAILED);
    CU_ASSERT(item(0, 1, 1).state == FM_POOL_ITEM_DROPPED);
    CU_ASSERT(!any_ready());
}

static void test_followers_take_over(void)
{
    start();
    CU_ASSERT(submit("a", 0, 1) == FM_OK && submit("b", 0, 1) == FM_OK &&
              submit("c", 0, 1) == FM_OK);
    for (uint32_t f = 0; f < 3; f++) {
        CU_ASSERT(expand(f, 0, 1, 1) == FM_OK);
    }
    CU_ASSERT(item(0, 0, 0).state == FM_POOL_ITEM_READY);
    CU_ASSERT(item(2, 0, 0).state == FM_POOL_ITEM_FOLLOWS);
    CU_ASSERT(cancel(0) == FM_OK); /* the leader goes while ready */
    CU_ASSERT(item(1, 0, 0).state == FM_POOL_ITEM_READY);
    for (uint32_t attempt = 1; attempt <= 3; attempt++) {
        CU_ASSERT(lease(attempt, 1) == FM_OK);
        CU_ASSERT(result(lease_number, 0, 1, FM_POOL_TASK_ERROR) == FM_OK);
    }
    CU_ASSERT(node_state(1, 0) == FM_POOL_FAILED);
    CU_ASSERT(item(2, 0, 0).state == FM_POOL_ITEM_READY);
    CU_ASSERT(item(2, 0, 0).attempts == 0); /* attempts of its own */
    CU_ASSERT(lease(9, 1) == FM_OK);
    (void)notices();
    CU_ASSERT(cancel(2) == FM_OK); /* leased, nobody left: an orphan */
    CU_ASSERT_STRING_EQUAL(notices(), "CANCELLED 2.0;moot 0.0;");
    CU_ASSERT(result(lease_number, 0, 1, FM_POOL_OK) == FM_OK); /* late */
    CU_ASSERT(submit("d", 0, 1) == FM_OK && expand(3, 0, 1, 1) == FM_OK);
    CU_ASSERT(item(3, 0, 0).state == FM_POOL_ITEM_SHARED);
    CU_ASSERT(item(3, 0, 0).lease == lease_number);
    CU_ASSERT(node_state(3, 0) == FM_POOL_DONE);
}

static void test_infra_is_no_attempt(void)
{
    fm_pool_totals_t totals;
    fm_pool_batch_t batch;

    start();
    CU_ASSERT(submit("a", 0, 1) == FM_OK && expand(0, 0, 1, 2) == FM_OK);
    for (uint32_t i = 0; i < 20; i++) {
        CU_ASSERT(lease(100 + i, 2) == FM_OK);
        CU_ASSERT(apply((fm_pool_event_t){
                      .kind = FM_POOL_LEASE_END,
                      .lease_end = {.lease = lease_number,
                                    .how = i % 2 ? FM_POOL_END_FAULT
                                                 : FM_POOL_END_DRAINED}}) ==
                  FM_OK);
    }
    fm_pool_totals(pool, &totals);
    CU_ASSERT(totals.retried_infra == 20 && totals.retried_task == 0);
    CU_ASSERT(node_state(0, 0) == FM_POOL_RUNNING);
    CU_ASSERT(fm_pool_batch_get(pool, 0, &batch));
    CU_ASSERT(batch.ready == 2 && batch.avoid_count == 3);
    CU_ASSERT(batch.avoid[2] == 119);
    CU_ASSERT(lease(119, 2) == FM_ERR_NOT_FOUND);
    CU_ASSERT(lease(118, 2) == FM_OK);
    fm_pool_ref_t ref;
    CU_ASSERT(fm_pool_lease_item(pool, lease_number, 0, &ref));
    CU_ASSERT(ref.item == 0); /* order is kept */
    uint64_t found[2];
    CU_ASSERT(fm_pool_leases_expired(pool, 99, found, 2) == 0);
    CU_ASSERT(fm_pool_leases_expired(pool, 100, found, 2) == 1);
    CU_ASSERT(found[0] == lease_number);
    CU_ASSERT(fm_pool_leases_of(pool, 118, found, 2) == 1);
    CU_ASSERT(fm_pool_lease_renew(pool, lease_number, 200));
    CU_ASSERT(fm_pool_leases_expired(pool, 100, found, 2) == 0);
}

static void test_replayed_attempts_count(void)
{
    start();
    CU_ASSERT(submit("a", 0, 1) == FM_OK && expand(0, 0, 1, 1) == FM_OK);
    for (int i = 0; i < 3; i++) {
        CU_ASSERT(
            apply((fm_pool_event_t){.kind = FM_POOL_RESULT,
                                    .result = {.lease = 1,
                                               .key = digest(1),
                                               .outcome = FM_POOL_TASK_ERROR,
                                               .replayed = true}}) == FM_OK);
    }
    CU_ASSERT(node_state(0, 0) == FM_POOL_FAILED);
}

static void test_forget_reopens(void)
{
    start();
    CU_ASSERT(submit("a", 0, 3) == FM_OK && expand(0, 0, 1, 1) == FM_OK);
    CU_ASSERT(lease(1, 1) == FM_OK);
    CU_ASSERT(result(lease_number, 0, 1, FM_POOL_OK) == FM_OK);
    (void)notices();
    CU_ASSERT(node_state(0, 1) == FM_POOL_READY);
    CU_ASSERT(forget(1) == FM_OK);
    CU_ASSERT(node_state(0, 0) == FM_POOL_RUNNING);
    CU_ASSERT(node_state(0, 1) == FM_POOL_WAITING);
    CU_ASSERT(!item(0, 0, 0).has_output);
    CU_ASSERT(lease(1, 1) == FM_OK);
    CU_ASSERT(result(lease_number, 0, 1, FM_POOL_OK) == FM_OK);
    CU_ASSERT_STRING_EQUAL(notices(), "done 0.0;ready 0.1;");
    CU_ASSERT(expand(0, 1, 2, 0) == FM_OK && expand(0, 2, 2, 0) == FM_OK);
    CU_ASSERT(forget(1) == FM_OK); /* nobody needs it: nothing runs again */
    CU_ASSERT(node_state(0, 0) == FM_POOL_DONE);
    CU_ASSERT(!any_ready());
    CU_ASSERT(submit("b", 0, 1) == FM_OK && expand(1, 0, 1, 1) == FM_OK);
    CU_ASSERT(item(1, 0, 0).state == FM_POOL_ITEM_READY);
}

/* P7: tenants in turn, whatever they call urgent; priority inside each. */
static void test_order(void)
{
    static const uint32_t expected[] = {0, 2, 0, 1, 0, 1, 0, 1, 1};

    start();
    CU_ASSERT(submit("a", 0, 1) == FM_OK && submit("b", 0, 1) == FM_OK &&
              submit("b", 5, 1) == FM_OK);
    CU_ASSERT(expand(0, 0, 1, 4) == FM_OK && expand(1, 0, 11, 4) == FM_OK &&
              expand(2, 0, 21, 1) == FM_OK);
    CU_ASSERT(lease(1, 9) == FM_OK);
    for (uint32_t p = 0; p < 9; p++) {
        fm_pool_ref_t ref;
        CU_ASSERT_FATAL(fm_pool_lease_item(pool, lease_number, p, &ref));
        CU_ASSERT(ref.workflow == expected[p]);
    }
}

static void test_follower_brings_its_deadline(void)
{
    const fm_pool_node_spec_t node = {NULL, 0};
    fm_pool_batch_t batch;

    start();
    CU_ASSERT(submit("a", 0, 1) == FM_OK && expand(0, 0, 1, 1) == FM_OK);
    CU_ASSERT(fm_pool_batch_get(pool, 0, &batch));
    CU_ASSERT(batch.deadline_ns == 0);
    CU_ASSERT(apply((fm_pool_event_t){.kind = FM_POOL_SUBMIT,
                                      .submit = {.workflow = 1,
                                                 .tenant = "b",
                                                 .deadline_ns = 700,
                                                 .nodes = &node,
                                                 .node_count = 1}}) == FM_OK);
    CU_ASSERT(expand(1, 0, 1, 1) == FM_OK);
    CU_ASSERT(fm_pool_batch_get(pool, 0, &batch));
    CU_ASSERT(batch.ready == 1 && batch.deadline_ns == 700);
    CU_ASSERT(cancel(1) == FM_OK && cancel(0) == FM_OK);
    CU_ASSERT(!any_ready());
}

static void test_memory(void)
{
    enum { FLOWS = 500, ITEMS = 200 };
    static fm_digest_t keys[ITEMS];
    fm_pool_node_spec_t node = {NULL, 0};
    fm_pool_totals_t totals;

    start();
    for (uint32_t f = 0; f < FLOWS; f++) {
        CU_ASSERT_FATAL(apply((fm_pool_event_t){.kind = FM_POOL_SUBMIT,
                                                .submit = {.workflow = f,
                                                           .tenant = "t",
                                                           .deadline_ns = 1000,
                                                           .nodes = &node,
                                                           .node_count = 1}}) ==
                        FM_OK);
        for (uint32_t i = 0; i < ITEMS; i++) {
            keys[i] = digest(f * ITEMS + i);
        }
        CU_ASSERT_FATAL(
            apply((fm_pool_event_t){.kind = FM_POOL_EXPAND,
                                    .expand = {.workflow = f,
                                               .batch_key = digest(0),
                                               .item_work = 1,
                                               .keys = keys,
                                               .count = ITEMS}}) == FM_OK);
    }
    fm_pool_totals(pool, &totals);
    double each = (double)totals.bytes / (FLOWS * ITEMS);
    (void)printf("%.0f bytes a queued item; ", each);
    CU_ASSERT(totals.ready_work == FLOWS * ITEMS && each < 300);
}

/* Whatever allocation fails, the pool is as it was, and works afterwards. */
static void test_out_of_memory(void)
{
    if (!fm_fault_arm(NULL)) {
        (void)printf("no fault points in this build; ");
    }
    bool failed = true; /* the last round finds nothing left to fail */
    for (int nth = 1; failed || nth < 20; nth++) {
        char spec[32];

        start();
        CU_ASSERT(submit("a", 0, 1) == FM_OK);
        (void)snprintf(spec, sizeof(spec), "base.alloc:%d", nth);
        (void)fm_fault_arm(spec);
        fm_status_t second = submit("b", 0, 1);
        fm_status_t rc = expand(0, 0, 1, 8);
        fm_status_t granted = rc == FM_OK ? lease(1, 8) : FM_OK;
        (void)fm_fault_arm(NULL);
        failed = second < 0 || rc < 0 || granted < 0;
        CU_ASSERT(rc == FM_OK || rc == FM_ERR_NO_MEMORY);
        CU_ASSERT(second == FM_OK || fm_pool_workflow_count(pool) == 1);
        CU_ASSERT(rc == FM_OK || node_state(0, 0) == FM_POOL_READY);
        CU_ASSERT(rc == FM_OK || expand(0, 0, 1, 8) == FM_OK);
        CU_ASSERT((rc == FM_OK && granted == FM_OK) || lease(1, 8) == FM_OK);
        fm_pool_totals_t totals;
        fm_pool_totals(pool, &totals);
        CU_ASSERT(totals.planned == 8 && totals.leased_work == 8);
        fm_tenant_info_t a;
        CU_ASSERT(fm_tenants_get(fm_pool_tenants(pool), 0, &a) == FM_OK &&
                  a.queued == 8 && a.devices_now > 0.999);
    }
    fm_pool_destroy(pool);
    pool = NULL;
}

/* P10: what failed once never shares a batch again. */
static void test_suspects_go_alone(void)
{
    fm_pool_lease_info_t info;

    start();
    CU_ASSERT(submit("a", 0, 1) == FM_OK && submit("a", 0, 1) == FM_OK);
    CU_ASSERT(expand(0, 0, 1, 4) == FM_OK);
    CU_ASSERT(lease(1, 8) == FM_OK);
    CU_ASSERT(expand(1, 0, 11, 4) == FM_OK); /* fresh work in between */
    for (uint32_t i = 0; i < 4; i++) {       /* one of them killed them all */
        CU_ASSERT(result(lease_number, i, 1 + i, FM_POOL_TASK_ERROR) == FM_OK);
    }
    uint32_t alone = 0;
    uint32_t failures = 0;
    uint32_t fresh = 0;
    for (uint32_t worker = 2; any_ready(); worker++) {
        CU_ASSERT_FATAL(lease(worker, 8) == FM_OK);
        CU_ASSERT_FATAL(fm_pool_lease_get(pool, lease_number, &info));
        bool suspect = false;
        for (uint32_t i = 0; i < info.items; i++) {
            fm_pool_ref_t ref;
            CU_ASSERT_FATAL(fm_pool_lease_item(pool, lease_number, i, &ref));
            suspect =
                suspect || item(ref.workflow, ref.node, ref.item).attempts > 0;
        }
        CU_ASSERT(!suspect || info.items == 1);
        alone += suspect;
        fresh += suspect ? 0 : info.items;
        for (uint32_t i = 0; i < info.items; i++) {
            fm_pool_ref_t ref;
            CU_ASSERT_FATAL(fm_pool_lease_item(pool, lease_number, i, &ref));
            bool poison = ref.workflow == 0 && ref.item == 2;
            uint32_t key = ref.workflow ? 11 + ref.item : 1 + ref.item;
            failures += poison;
            CU_ASSERT(result(lease_number, i, key,
                             poison ? FM_POOL_TASK_ERROR : FM_POOL_OK) ==
                      FM_OK);
        }
    }
    CU_ASSERT(alone == 5 && failures == 2 && fresh == 4);
    CU_ASSERT(node_state(0, 0) == FM_POOL_FAILED);
    CU_ASSERT(node_state(1, 0) == FM_POOL_DONE);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"states by events", test_states_by_events},
        {"notices and failure", test_notices_and_failure},
        {"followers take over", test_followers_take_over},
        {"infrastructure faults", test_infra_is_no_attempt},
        {"replayed attempts", test_replayed_attempts_count},
        {"forget", test_forget_reopens},
        {"order", test_order},
        {"suspects go alone", test_suspects_go_alone},
        {"follower's deadline", test_follower_brings_its_deadline},
        {"memory", test_memory},
        {"out of memory", test_out_of_memory},
    };

    return fm_test_main("pool", cases, sizeof(cases) / sizeof(cases[0]));
}
