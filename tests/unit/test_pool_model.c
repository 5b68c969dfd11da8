/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool against a slow, obvious model: seeded random events, and after
 * each the states of all keys, items and nodes must agree, and what every
 * tenant has paid.  In the end the journaled events alone, applied to another
 * pool, must lead to the same states and accounts.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "fmtest.h"
#include "plan/pool/pool.h"

#define ROUNDS 60
#define STEPS 2000
#define KEYS 40
#define NODES 4 /* of a workflow: 0, 1 ← 0, 2 ← 0 1, 3 */
#define FLOWS 60
#define ITEMS 6
#define ATTEMPTS 2
#define TENANTS 5
#define DEVICES_MAX 2 /* of the tenants that have a quota */
#define SEEN 16       /* waiting items looked at for one that may be served */

enum { K_NONE, K_READY, K_LEASED, K_SETTLED };

struct m_item {
    int flow, node, pos, key, state; /* fm_pool_item_state_t, READY = waits */
};

struct m_journal {
    fm_pool_event_t event;
    fm_digest_t keys[ITEMS];
};

struct model {
    fm_pool_t *pool;
    fm_tenants_t *tenants;
    fm_rng_t rng;
    struct m_item items[FLOWS * NODES * ITEMS];
    int item_count;
    int node_state[FLOWS][NODES];
    int flow_state[FLOWS];
    int flows;
    int key_state[KEYS], key_attempts[KEYS];
    uint64_t key_lease[KEYS];
    uint32_t key_pos[KEYS];
    double key_estimate[KEYS]; /* dollars, while leased */
    double key_cost[KEYS];     /* dollars, once settled */
    bool key_paid[KEYS][TENANTS];
    double paid[TENANTS]; /* dollars */
    int flow_tenant[FLOWS];
    uint64_t leases;
    int64_t now;
    fm_pool_batch_t told; /* when it was last said to have changed */
    struct m_journal *journal;
    int journal_count;
};

static const char *const names[TENANTS] = {"ann", "bob", "cem", "dan", "eve"};

static const int deps[NODES][2] = {{-1, -1}, {0, -1}, {0, 1}, {-1, -1}};

static fm_digest_t key_digest(int key)
{
    return fm_sha256(&key, sizeof(key));
}

static bool waits(const struct m_item *item)
{
    return item->state == FM_POOL_ITEM_READY;
}

static int leader_of(const struct model *m, int key)
{
    for (int i = 0; i < m->item_count; i++) {
        if (m->items[i].key == key && waits(&m->items[i])) {
            return i;
        }
    }
    return -1;
}

static bool below(int node, int above)
{
    for (int d = 0; d < 2; d++) {
        int dep = deps[node][d];
        if (dep >= 0 && (dep == above || below(dep, above))) {
            return true;
        }
    }
    return false;
}

static bool final_state(int state)
{
    return state >= FM_POOL_DONE;
}

static bool finished(int state)
{
    return state == FM_POOL_DONE || state == FM_POOL_SKIPPED;
}

/* After any change: what is complete is done, what may start is ready. */
static void m_settle_nodes(struct model *m, int f)
{
    if (m->flow_state[f] == FM_POOL_CANCELLED) {
        return;
    }
    for (int n = 0; n < NODES; n++) {
        int *state = &m->node_state[f][n];
        bool open = false;
        for (int i = 0; i < m->item_count; i++) {
            open = open || (m->items[i].flow == f && m->items[i].node == n &&
                            waits(&m->items[i]));
        }
        if (*state == FM_POOL_RUNNING && !open) {
            *state = FM_POOL_DONE;
        }
        if (*state == FM_POOL_WAITING || *state == FM_POOL_READY) {
            bool ready = true;
            for (int a = 0; a < NODES; a++) {
                ready =
                    ready && (!below(n, a) || finished(m->node_state[f][a]));
            }
            *state = ready ? FM_POOL_READY : FM_POOL_WAITING;
        }
    }
    bool all = true;
    bool failed = false;
    for (int n = 0; n < NODES; n++) {
        all = all && final_state(m->node_state[f][n]);
        failed = failed || m->node_state[f][n] == FM_POOL_FAILED;
    }
    m->flow_state[f] = !all     ? FM_POOL_RUNNING
                       : failed ? FM_POOL_FAILED
                                : FM_POOL_DONE;
}

static void m_drop(struct model *m, int i, int state)
{
    int key = m->items[i].key;
    bool led = leader_of(m, key) == i;

    m->items[i].state = state;
    m->items[i].key = -1;
    if (led) {
        m->key_attempts[key] = 0;
    }
    if (leader_of(m, key) < 0 && m->key_state[key] == K_READY) {
        m->key_state[key] = K_NONE;
    }
}

static void m_end_node(struct model *m, int f, int n, int state)
{
    if (final_state(m->node_state[f][n])) {
        return;
    }
    m->node_state[f][n] = state;
    for (int i = 0; i < m->item_count; i++) {
        if (m->items[i].flow == f && m->items[i].node == n &&
            waits(&m->items[i])) {
            m_drop(m, i, FM_POOL_ITEM_DROPPED);
        }
    }
}

static void m_fail_node(struct model *m, int f, int n)
{
    m_end_node(m, f, n, FM_POOL_FAILED);
    for (int b = 0; b < NODES; b++) {
        if (below(b, n)) {
            m_end_node(m, f, b, FM_POOL_FAILED);
        }
    }
    m_settle_nodes(m, f);
}

/* T7: in equal parts by who waits. */
static int m_pay(struct model *m, int key, double dollars)
{
    int count = 0;

    memset(m->key_paid[key], 0, sizeof(m->key_paid[key]));
    for (int i = 0; i < m->item_count; i++) {
        if (m->items[i].key == key && waits(&m->items[i])) {
            m->key_paid[key][m->flow_tenant[m->items[i].flow]] = true;
        }
    }
    for (int t = 0; t < TENANTS; t++) {
        count += m->key_paid[key][t];
    }
    for (int t = 0; t < TENANTS; t++) {
        m->paid[t] += m->key_paid[key][t] ? dollars / count : 0;
    }
    return count;
}

/* T8, T9: a newcomer takes a part, or pays what nobody has paid. */
static void m_share(struct model *m, int key, int tenant)
{
    int count = 0;

    for (int t = 0; t < TENANTS; t++) {
        count += m->key_paid[key][t];
    }
    if (m->key_paid[key][tenant]) {
        return;
    }
    for (int t = 0; t < TENANTS; t++) {
        if (m->key_paid[key][t]) {
            m->paid[t] += m->key_cost[key] * (1.0 / (count + 1) - 1.0 / count);
        }
    }
    m->key_paid[key][tenant] = true;
    m->paid[tenant] += m->key_cost[key] / (count + 1);
}

static void m_ok(struct model *m, int key)
{
    bool first = true;

    m->key_state[key] = K_SETTLED;
    for (int i = 0; i < m->item_count; i++) {
        if (m->items[i].key == key && waits(&m->items[i])) {
            m->items[i].state = first ? FM_POOL_ITEM_RAN : FM_POOL_ITEM_SHARED;
            first = false;
        }
    }
    for (int f = 0; f < m->flows; f++) {
        m_settle_nodes(m, f);
    }
}

static void m_task_error(struct model *m, int key)
{
    int i = leader_of(m, key);

    m->key_state[key] = i < 0 ? K_NONE : K_READY;
    if (i >= 0 && ++m->key_attempts[key] >= ATTEMPTS) {
        int f = m->items[i].flow;
        int n = m->items[i].node;
        m_drop(m, i, FM_POOL_ITEM_FAILED);
        m_fail_node(m, f, n);
    }
}

/* Leases are volatile; results are journaled when they change something. */
static void journal(struct model *m, const fm_pool_event_t *event)
{
    struct m_journal *entry = &m->journal[m->journal_count];

    if (event->kind == FM_POOL_LEASE || event->kind == FM_POOL_LEASE_END) {
        return;
    }
    m->journal_count++;
    entry->event = *event;
    if (event->kind == FM_POOL_RESULT) {
        entry->event.result.replayed = true;
    } else if (event->kind == FM_POOL_EXPAND) {
        memcpy(entry->keys, event->expand.keys,
               event->expand.count * sizeof(fm_digest_t));
        entry->event.expand.keys = entry->keys;
    }
}

static void apply(struct model *m, const fm_pool_event_t *event)
{
    fm_error_t err = {0};
    bool changes = false;

    FM_ASSERT_OK(fm_pool_check(m->pool, event, &changes, &err), &err);
    FM_ASSERT_OK(fm_pool_apply(m->pool, event, &err), &err);
    if (changes) {
        journal(m, event);
    }
}

static int pick(struct model *m, int bound)
{
    return (int)fm_rng_below(&m->rng, (uint64_t)bound);
}

static void do_submit(struct model *m)
{
    static const uint32_t d1[] = {0};
    static const uint32_t d2[] = {0, 1};
    static const fm_pool_node_spec_t nodes[NODES] = {
        {NULL, 0}, {d1, 1}, {d2, 2}, {NULL, 0}};
    int f = m->flows;

    if (f == FLOWS) {
        return;
    }
    m->flow_tenant[f] = pick(m, TENANTS);
    apply(m, &(fm_pool_event_t){
                 .kind = FM_POOL_SUBMIT,
                 .submit = {.workflow = (uint32_t)f,
                            .tenant = names[m->flow_tenant[f]],
                            .priority = pick(m, 3),
                            .deadline_ns = pick(m, 2) ? 1000 + pick(m, 99) : 0,
                            .now_ns = m->now,
                            .nodes = nodes,
                            .node_count = NODES}});
    m->flows++;
    m_settle_nodes(m, f);
}

static void do_node(struct model *m)
{
    int f = m->flows ? pick(m, m->flows) : 0;
    int n = pick(m, NODES);
    int what = pick(m, 20);
    fm_digest_t keys[ITEMS];

    if (m->flows == 0 || m->node_state[f][n] != FM_POOL_READY) {
        return;
    }
    fm_pool_event_t event = {.kind = what == 0   ? FM_POOL_SKIP
                                     : what == 1 ? FM_POOL_NODE_FAIL
                                                 : FM_POOL_EXPAND,
                             .node = {(uint32_t)f, (uint32_t)n}};
    if (what == 0) {
        m->node_state[f][n] = FM_POOL_SKIPPED;
    } else if (what == 1) {
        m_fail_node(m, f, n);
    } else {
        int count = pick(m, ITEMS + 1);

        m->node_state[f][n] = FM_POOL_RUNNING;
        for (int i = 0; i < count; i++) {
            int key = pick(m, KEYS);
            bool settled = m->key_state[key] == K_SETTLED;

            keys[i] = key_digest(key);
            if (leader_of(m, key) < 0) {
                m->key_attempts[key] = 0;
            }
            m->items[m->item_count++] = (struct m_item){
                f, n, i, key,
                settled ? FM_POOL_ITEM_SHARED : FM_POOL_ITEM_READY};
            if (settled) {
                m_share(m, key, m->flow_tenant[f]);
            }
            if (m->key_state[key] == K_NONE) {
                m->key_state[key] = K_READY;
            }
        }
        event.expand = (fm_pool_expand_t){.workflow = (uint32_t)f,
                                          .node = (uint32_t)n,
                                          .batch_key = key_digest(-1),
                                          .item_work = 1,
                                          .keys = keys,
                                          .count = (size_t)count,
                                          .now_ns = m->now};
    }
    apply(m, &event);
    m_settle_nodes(m, f);
}

/* Whether some tenant that waits for it, of the first few, has no quota in
 * the way. */
static bool m_servable(const struct model *m, int key)
{
    int seen = 0;

    if (m->key_state[key] != K_READY) {
        return false;
    }
    for (int i = leader_of(m, key); i < m->item_count && seen < SEEN; i++) {
        if (m->items[i].key == key) {
            int tenant = m->flow_tenant[m->items[i].flow];
            uint32_t id = fm_tenants_find(m->tenants, names[tenant]);
            seen++;
            if (waits(&m->items[i]) && !fm_tenants_is_blocked(m->tenants, id)) {
                return true;
            }
        }
    }
    return false;
}

static int key_of(const fm_digest_t *digest)
{
    for (int key = 0; key < KEYS; key++) {
        fm_digest_t of = key_digest(key);
        if (fm_digest_equal(&of, digest)) {
            return key;
        }
    }
    return KEYS;
}

static void take_dirty(struct model *m)
{
    uint32_t dirty = UINT32_MAX;

    while (fm_pool_next_dirty(m->pool, &dirty)) {
        CU_ASSERT_FATAL(dirty == 0);
        (void)fm_pool_batch_get(m->pool, 0, &m->told);
    }
}

/* What is there must agree with the model, and have been told. */
static bool batch_agrees(const struct model *m, const bool *servable)
{
    fm_pool_batch_t batch;
    uint32_t ready = 0;
    uint32_t all = 0;

    for (int k = 0; k < KEYS; k++) {
        ready += servable[k];
        all += m->key_state[k] == K_READY;
    }
    CU_ASSERT_FATAL(fm_pool_batch_get(m->pool, 0, &batch) == (ready > 0));
    CU_ASSERT_FATAL(batch.ready == ready && batch.blocked == all - ready);
    CU_ASSERT_FATAL(m->told.ready == ready && m->told.blocked == all - ready);
    return ready > 0;
}

static void do_lease(struct model *m)
{
    bool servable[KEYS];
    uint32_t ready = 0;
    bool suspect = false;

    take_dirty(m);
    for (int k = 0; k < KEYS; k++) {
        servable[k] = m_servable(m, k);
        ready += m->key_state[k] == K_READY;
    }
    if (!batch_agrees(m, servable)) {
        return;
    }
    fm_pool_ref_t next = fm_pool_batch_next(m->pool, 0);
    uint64_t id = ++m->leases;
    uint32_t most = 1 + (uint32_t)pick(m, 5);
    double dollars = pick(m, 9);
    apply(m, &(fm_pool_event_t){.kind = FM_POOL_LEASE,
                                .lease = {.lease = id,
                                          .worker = (uint32_t)pick(m, 3),
                                          .batch_key = key_digest(-1),
                                          .max_items = most,
                                          .ignore_avoid = true,
                                          .seconds = 1,
                                          .dollars = dollars}});
    fm_pool_lease_info_t info;
    CU_ASSERT_FATAL(fm_pool_lease_get(m->pool, id, &info));
    CU_ASSERT_FATAL(info.items > 0 && info.open == info.items);
    for (uint32_t p = 0; p < info.items; p++) {
        fm_pool_ref_t ref;
        CU_ASSERT_FATAL(fm_pool_lease_item(m->pool, id, p, &ref));
        CU_ASSERT(p > 0 || memcmp(&ref, &next, sizeof(ref)) == 0);
        int key = key_of(&ref.key);
        /* never two leaders for one key, never past a quota */
        CU_ASSERT_FATAL(key < KEYS && m->key_state[key] == K_READY &&
                        servable[key]);
        /* what has failed before goes alone (P10) */
        suspect = suspect || m->key_attempts[key] > 0;
        const struct m_item *item = &m->items[leader_of(m, key)];
        CU_ASSERT(item->flow == (int)ref.workflow &&
                  item->node == (int)ref.node && item->pos == (int)ref.item);
        m->key_state[key] = K_LEASED;
        m->key_lease[key] = id;
        m->key_pos[key] = p;
        m->key_estimate[key] = dollars / (most < ready ? most : ready);
    }
    CU_ASSERT(!suspect || info.items == 1);
}

static void do_result(struct model *m)
{
    int key = pick(m, KEYS);
    bool late = pick(m, 8) == 0;
    int what = pick(m, 8);
    double dollars = pick(m, 3) ? pick(m, 64) / 8.0 : 0; /* or unknown */
    fm_pool_event_t event = {
        .kind = FM_POOL_RESULT,
        .result = {.lease = late ? UINT64_MAX : m->key_lease[key],
                   .position = m->key_pos[key],
                   .key = key_digest(key),
                   .outcome = what < 5   ? FM_POOL_OK
                              : what < 7 ? FM_POOL_TASK_ERROR
                                         : FM_POOL_INFRA_ERROR,
                   .output = key_digest(key + 1000),
                   .seconds = dollars,
                   .dollars = dollars}};
    bool leased = m->key_state[key] == K_LEASED;
    fm_error_t err = {0};
    bool changes = false;

    if (!late && !leased) {
        return;
    }
    if (dollars <= 0 && !late) { /* for the sake of the replay, say it */
        dollars = m->key_estimate[key];
    }
    FM_ASSERT_OK(fm_pool_check(m->pool, &event, &changes, &err), &err);
    CU_ASSERT(changes == (event.result.outcome == FM_POOL_OK
                              ? m->key_state[key] != K_SETTLED
                              : !late));
    if (!changes) {
        apply(m, &event);
        return;
    }
    if (what < 7) {
        int payers = m_pay(m, key, dollars);
        m->key_cost[key] = dollars;
        CU_ASSERT(payers > 0 || leader_of(m, key) < 0);
    }
    apply(m, &event);
    m->journal[m->journal_count - 1].event.result.dollars = dollars;
    if (what < 5) {
        m_ok(m, key);
    } else if (what < 7) {
        m_task_error(m, key);
    } else {
        m->key_state[key] = leader_of(m, key) < 0 ? K_NONE : K_READY;
    }
}

static void m_lease_over(struct model *m, uint64_t lease)
{
    for (int k = 0; k < KEYS; k++) {
        if (m->key_state[k] == K_LEASED && m->key_lease[k] == lease) {
            m->key_state[k] = leader_of(m, k) < 0 ? K_NONE : K_READY;
        }
    }
}

static void lease_end(struct model *m, int key)
{
    if (m->key_state[key] == K_LEASED) {
        apply(m, &(fm_pool_event_t){
                     .kind = FM_POOL_LEASE_END,
                     .lease_end = {.lease = m->key_lease[key],
                                   .how = pick(m, 2) ? FM_POOL_END_FAULT
                                                     : FM_POOL_END_DRAINED}});
        m_lease_over(m, m->key_lease[key]);
    }
}

static void do_lease_end(struct model *m)
{
    lease_end(m, pick(m, KEYS));
}

static void do_cancel(struct model *m)
{
    int f = m->flows ? pick(m, m->flows) : 0;

    if (m->flows == 0 || m->flow_state[f] != FM_POOL_RUNNING) {
        return;
    }
    apply(m,
          &(fm_pool_event_t){.kind = FM_POOL_CANCEL, .cancel = {(uint32_t)f}});
    m->flow_state[f] = FM_POOL_CANCELLED;
    for (int n = 0; n < NODES; n++) {
        m_end_node(m, f, n, FM_POOL_CANCELLED);
    }
}

static bool m_needed(const struct model *m, const struct m_item *item)
{
    int state = m->node_state[item->flow][item->node];

    if (item->state != FM_POOL_ITEM_RAN && item->state != FM_POOL_ITEM_SHARED) {
        return false;
    }
    for (int n = 0; n < NODES && state == FM_POOL_DONE; n++) {
        if (below(n, item->node) &&
            !final_state(m->node_state[item->flow][n])) {
            return true;
        }
    }
    return state == FM_POOL_RUNNING;
}

static void do_forget(struct model *m)
{
    int key = pick(m, KEYS);

    apply(m, &(fm_pool_event_t){.kind = FM_POOL_FORGET,
                                .forget = {.key = key_digest(key)}});
    if (m->key_state[key] != K_SETTLED) {
        return;
    }
    m->key_state[key] = K_NONE;
    m->key_attempts[key] = 0;
    m->key_cost[key] = 0;
    memset(m->key_paid[key], 0, sizeof(m->key_paid[key]));
    for (int i = 0; i < m->item_count; i++) {
        struct m_item *item = &m->items[i];
        if (item->key == key && m_needed(m, item)) {
            item->state = FM_POOL_ITEM_READY;
            m->node_state[item->flow][item->node] = FM_POOL_RUNNING;
            m->key_state[key] = K_READY;
        }
    }
    for (int f = 0; f < m->flows; f++) {
        m_settle_nodes(m, f);
    }
}

static bool near(double a, double b)
{
    return fabs(a - b) < 1e-6 * (1 + fabs(b));
}

/* Accounts; held while leased; every device counted once. */
static void compare_tenants(const struct model *m)
{
    fm_pool_totals_t totals;
    uint64_t ran = 0;
    uint64_t shared = 0;
    double paid = 0;
    double held = 0;
    double dollars = 0;
    double devices = 0;

    fm_pool_totals(m->pool, &totals);
    for (int k = 0; k < KEYS; k++) {
        held += m->key_state[k] == K_LEASED ? m->key_estimate[k] : 0;
    }
    for (int t = 0; t < TENANTS; t++) {
        fm_tenant_info_t info;
        uint32_t id = fm_tenants_find(m->tenants, names[t]);
        uint64_t queued = 0;

        paid += m->paid[t];
        if (fm_tenants_get(m->tenants, id, &info) < 0) {
            continue; /* never submitted */
        }
        for (int i = 0; i < m->item_count; i++) {
            queued +=
                waits(&m->items[i]) && m->flow_tenant[m->items[i].flow] == t;
        }
        CU_ASSERT_FATAL(info.queued == queued);
        CU_ASSERT_FATAL(info.dollars > m->paid[t] - 1e-6);
        CU_ASSERT_FATAL(totals.leases > 0 || near(info.dollars, m->paid[t]));
        CU_ASSERT_FATAL(info.config.devices_max == 0 ||
                        info.devices_now < DEVICES_MAX + 1);
        ran += info.items_ran;
        shared += info.items_shared;
        dollars += info.dollars;
        devices += info.devices_now;
    }
    CU_ASSERT_FATAL(ran == totals.ran && shared == totals.shared);
    CU_ASSERT_FATAL(near(dollars, paid + held));
    CU_ASSERT_FATAL(near(devices, totals.leases));
}

static void compare(const struct model *m)
{
    fm_pool_totals_t totals;
    uint64_t counts[FM_POOL_ITEM_DROPPED + 1] = {0};

    compare_tenants(m);
    for (int f = 0; f < m->flows; f++) {
        fm_pool_workflow_t flow;
        CU_ASSERT_FATAL(fm_pool_workflow_get(m->pool, (uint32_t)f, &flow) ==
                        FM_OK);
        CU_ASSERT_FATAL((int)flow.state == m->flow_state[f]);
        for (int n = 0; n < NODES; n++) {
            fm_pool_node_t node;
            CU_ASSERT_FATAL(fm_pool_node_get(m->pool, (uint32_t)f, (uint32_t)n,
                                             &node) == FM_OK);
            CU_ASSERT_FATAL((int)node.state == m->node_state[f][n]);
        }
    }
    for (int i = 0; i < m->item_count; i++) {
        const struct m_item *item = &m->items[i];
        fm_pool_item_t got;
        CU_ASSERT_FATAL(fm_pool_item_get(m->pool, (uint32_t)item->flow,
                                         (uint32_t)item->node,
                                         (uint32_t)item->pos, &got) == FM_OK);
        int want = item->state;
        if (waits(item)) {
            want = leader_of(m, item->key) != i          ? FM_POOL_ITEM_FOLLOWS
                   : m->key_state[item->key] == K_LEASED ? FM_POOL_ITEM_LEASED
                                                         : FM_POOL_ITEM_READY;
        }
        CU_ASSERT_FATAL((int)got.state == want);
        CU_ASSERT_FATAL(item->key < 0 ||
                        got.has_output ==
                            (m->key_state[item->key] == K_SETTLED));
        counts[item->state]++;
    }
    fm_pool_totals(m->pool, &totals);
    CU_ASSERT_FATAL(totals.planned == (uint64_t)m->item_count);
    CU_ASSERT_FATAL(totals.ran == counts[FM_POOL_ITEM_RAN]);
    CU_ASSERT_FATAL(totals.shared == counts[FM_POOL_ITEM_SHARED]);
    CU_ASSERT_FATAL(totals.failed == counts[FM_POOL_ITEM_FAILED]);
    CU_ASSERT_FATAL(totals.dropped == counts[FM_POOL_ITEM_DROPPED]);
    CU_ASSERT_FATAL(totals.waiting == counts[FM_POOL_ITEM_READY]);
    uint64_t keys[4] = {0};
    for (int k = 0; k < KEYS; k++) {
        keys[m->key_state[k]]++;
    }
    CU_ASSERT_FATAL(totals.ready_work == keys[K_READY]);
    CU_ASSERT_FATAL(totals.leased_work == keys[K_LEASED]);
    CU_ASSERT_FATAL(totals.memo == keys[K_SETTLED]);
}

static void drain(struct model *m)
{
    fm_pool_notice_t notice;

    while (fm_pool_next_notice(m->pool, &notice)) {
        if (notice.kind == FM_POOL_LEASE_MOOT) {
            for (int k = 0; k < KEYS; k++) { /* only orphans were left */
                CU_ASSERT(m->key_state[k] != K_LEASED ||
                          m->key_lease[k] != notice.lease ||
                          leader_of(m, k) < 0);
            }
            m_lease_over(m, notice.lease);
        }
    }
}

/* Only what the journal holds, into another pool, with no quotas refusing. */
static void replay(struct model *m)
{
    fm_pool_t *live = m->pool;
    fm_tenants_t *live_tenants = m->tenants;
    fm_error_t err = {0};

    m->pool = fm_pool_create(&(fm_pool_options_t){.max_attempts = ATTEMPTS});
    CU_ASSERT_FATAL(m->pool != NULL);
    m->tenants = fm_pool_tenants(m->pool);
    for (int t = 0; t < TENANTS; t++) {
        FM_ASSERT_OK(
            fm_tenants_configure(m->tenants, names[t],
                                 &(fm_tenant_config_t){.queued_max = 1}, &err),
            &err);
    }
    for (int i = 0; i < m->journal_count; i++) {
        FM_ASSERT_OK(fm_pool_apply(m->pool, &m->journal[i].event, &err), &err);
    }
    compare(m);
    fm_pool_destroy(m->pool);
    m->pool = live;
    m->tenants = live_tenants;
}

static void quotas_set(struct model *m, bool limited)
{
    const fm_tenant_config_t config = {.devices_max = limited ? DEVICES_MAX : 0,
                                       .dollars_max = limited ? 60 : 0};
    fm_error_t err = {0};

    /* from the start: a tenant that has more than its new quota may keep it */
    for (int t = 0; t < 2; t++) {
        FM_ASSERT_OK(fm_tenants_configure(m->tenants, names[t], &config, &err),
                     &err);
    }
}

static void round_run(uint64_t seed)
{
    static void (*const actions[])(struct model *) = {
        do_submit, do_node,   do_node,   do_node,      do_lease, do_lease,
        do_result, do_result, do_result, do_lease_end, do_result};
    struct model *m = calloc(1, sizeof(*m));

    CU_ASSERT_FATAL(m != NULL);
    fm_rng_init(&m->rng, seed);
    m->journal = calloc(STEPS * 2 + 20000, sizeof(*m->journal));
    m->tenants = fm_tenants_create();
    CU_ASSERT_FATAL(m->journal != NULL && m->tenants != NULL);
    m->pool = fm_pool_create(
        &(fm_pool_options_t){.max_attempts = ATTEMPTS, .tenants = m->tenants});
    CU_ASSERT_FATAL(m->pool != NULL);
    quotas_set(m, true);
    for (int step = 0; step < STEPS; step++) {
        m->now++;
        actions[pick(m, (int)(sizeof(actions) / sizeof(actions[0])))](m);
        if (pick(m, 40) == 0) {
            do_cancel(m);
        }
        if (pick(m, 12) == 0) {
            do_forget(m);
        }
        if (pick(m, 3) == 0) {
            drain(m);
        }
        if (step % 4 == 0) {
            compare(m);
        }
    }
    /* Every wanted key settles, once quotas allow. */
    quotas_set(m, false);
    for (int guard = 0; guard < 10000; guard++) {
        fm_pool_totals_t totals;
        fm_pool_totals(m->pool, &totals);
        if (totals.waiting == 0) {
            break;
        }
        do_lease(m);
        do_result(m);
    }
    compare(m);
    fm_pool_totals_t totals;
    fm_pool_totals(m->pool, &totals);
    CU_ASSERT(totals.waiting == 0);
    for (int k = 0; k < KEYS; k++) { /* orphans */
        lease_end(m, k);
    }
    compare(m);
    replay(m);
    fm_pool_destroy(m->pool);
    fm_tenants_destroy(m->tenants);
    free(m->journal);
    free(m);
}

static void test_model(void)
{
    for (uint64_t seed = 1; seed <= ROUNDS; seed++) {
        round_run(seed);
    }
}

int main(void)
{
    static const fm_test_case_t cases[] = {{"random events", test_model}};

    return fm_test_main("pool_model", cases, 1);
}
