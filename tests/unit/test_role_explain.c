/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decisions in the state, and what is said of them: placements, waits, quotas,
 * sharing, isolation of keys, accounts.
 */
#include "plan/place/place.h"
#include "role/control/decision.h"
#include "role/control/explain.h"
#include "role/control/needs.h"
#include "role_fixture.h"

#define S INT64_C(1000000000)
#define START (1700000000 * S)

/* As world_submit(), under a policy. */
static void submit_under(world_t *world, uint32_t flow, const char *policy,
                         fm_isolation_t isolation)
{
    fm_record_submit_t record = {.workflow = flow,
                                 .wall_ns = START,
                                 .file = span_of("t.yaml"),
                                 .text = span_of(TWO_NODES),
                                 .files = span_of("{}"),
                                 .policy = span_of(policy),
                                 .isolation = isolation};
    fm_buf_t buf = {0};

    fm_record_submit_encode(&record, &buf);
    FM_ASSERT_OK(world_apply(world, FM_RECORD_SUBMIT, &buf), &world->err);
}

static void expand_at(world_t *world, uint32_t flow, int64_t wall_ns)
{
    fm_buf_t items = {0};
    fm_buf_t buf = {0};
    static const char *const texts[] = {"{\"value\":1}", "{\"value\":2}",
                                        "{\"value\":3}"};

    for (size_t i = 0; i < 3; i++) {
        fm_record_item_add(&items, texts[i], strlen(texts[i]));
    }
    fm_record_expand_t record = {.workflow = flow,
                                 .params = span_of("{}"),
                                 .hints = span_of("{}"),
                                 .count = 3,
                                 .items = {(const char *)items.data, items.len},
                                 .wall_ns = wall_ns};
    fm_record_expand_encode(&record, &buf);
    fm_buf_fini(&items);
    FM_ASSERT_OK(world_apply(world, FM_RECORD_EXPAND, &buf), &world->err);
}

static fm_decision_t decision_of(const world_t *world, int64_t wall_ns)
{
    return (fm_decision_t){
        .wall_ns = wall_ns,
        .batch_key = fm_state_run(world->state, 0)->vectors[0]->batch_key,
        .policy = span_of("flowmesh"),
        .text = span_of(""),
        .gang = 1};
}

static void place(world_t *world, uint64_t lease, int64_t wall_ns,
                  uint32_t first, uint32_t count)
{
    fm_decision_t decision = decision_of(world, wall_ns);
    fm_buf_t buf = {0};

    decision.lease = lease;
    decision.items = count;
    decision.looked_at = 7;
    decision.candidate_count = 2;
    decision.candidates[0] = (fm_decision_candidate_t){
        span_of("cell/w1"), count, true, {.total_s = 2, .utility = -0.5}};
    decision.candidates[1] = (fm_decision_candidate_t){
        span_of("cell/w2"), count, false, {.total_s = 3, .utility = -0.75}};
    decision.range_count = 1;
    decision.ranges[0] = (fm_decision_range_t){0, 0, first, count};
    fm_decision_encode(&decision, &buf);
    FM_ASSERT_OK(world_apply(world, FM_RECORD_PLACE, &buf), &world->err);
}

static void wait(world_t *world, int64_t wall_ns, fm_sched_verdict_t verdict,
                 const char *blocked)
{
    fm_decision_t decision = decision_of(world, wall_ns);
    fm_buf_t buf = {0};

    decision.verdict = verdict;
    decision.text = span_of(fm_sched_verdict_text(verdict));
    if (blocked) {
        decision.blocked_count = 1;
        decision.blocked[0] = (fm_decision_blocked_t){
            span_of(blocked), span_of("it is at its quota")};
    }
    fm_decision_encode(&decision, &buf);
    FM_ASSERT_OK(world_apply(world, FM_RECORD_WAIT, &buf), &world->err);
}

static fm_json_t *explain(const fm_state_t *state, uint32_t node, uint32_t item)
{
    fm_fabric_t fabric = {.state = (fm_state_t *)(uintptr_t)state};
    fm_json_t *report = NULL;
    fm_error_t err = {0};

    FM_ASSERT_OK(
        fm_explain(&fabric, fm_state_run(state, 0), node, item, &report, &err),
        &err);
    return report;
}

static const fm_json_t *at(const fm_json_t *value, const char *path)
{
    const fm_json_t *found = fm_json_path(value, path);
    CU_ASSERT_PTR_NOT_NULL_FATAL(found);
    return found;
}

static double real(const fm_json_t *value, const char *path)
{
    return fm_json_real_or(at(value, path), -1);
}

static const char *text(const fm_json_t *value, const char *path)
{
    return fm_json_str(at(value, path));
}

/* Checked live and after a replay: the records are all there is. */
static void check_history(const fm_state_t *state)
{
    fm_json_t *report = explain(state, 0, FM_EXPLAIN_ALL);

    CU_ASSERT_EQUAL(real(report, "placement_count"), 2);
    CU_ASSERT_EQUAL(real(report, "wait_count"), 2);
    CU_ASSERT_EQUAL(real(report, "placements.0.items"), 2);
    CU_ASSERT_EQUAL(real(report, "placements.0.after_s"), 5);
    CU_ASSERT_EQUAL(real(report, "placements.0.waited_s"), 3.5);
    CU_ASSERT_EQUAL(real(report, "placements.0.looked_at"), 7);
    CU_ASSERT_STRING_EQUAL(text(report, "placements.0.worker"), "cell/w1");
    CU_ASSERT_EQUAL(real(report, "placements.0.terms.total_s"), 2);
    CU_ASSERT_STRING_EQUAL(text(report, "placements.0.candidates.0.worker"),
                           "cell/w2");
    CU_ASSERT_EQUAL(real(report, "placements.0.candidates.0.lost_by"), 0.25);
    CU_ASSERT_STRING_EQUAL(text(report, "placements.0.outcome"), "results");
    CU_ASSERT_EQUAL(real(report, "placements.0.seconds"), 1);
    CU_ASSERT(strncmp(text(report, "placements.1.outcome"), "no result", 9) ==
              0);
    CU_ASSERT_EQUAL(real(report, "waits.0.after_s"), 3);
    CU_ASSERT_STRING_EQUAL(text(report, "now.why"),
                           "no worker has enough device memory");
    CU_ASSERT_PTR_NOT_NULL(strstr(text(report, "now.mend"), "memory"));
    fm_json_drop(report);

    report = explain(state, 0, 0); /* done: nothing to mend */
    CU_ASSERT_EQUAL(real(report, "placement_count"), 1);
    CU_ASSERT(fm_json_is(at(report, "now"), FM_JSON_NULL));
    fm_json_drop(report);
    report = explain(state, 1, FM_EXPLAIN_ALL); /* the second node */
    CU_ASSERT_STRING_EQUAL(text(report, "now.why"),
                           "waits for the results of first (running)");
    fm_json_drop(report);
}

static void test_history(void)
{
    world_t world;
    fm_state_t *replayed = state_make();
    fm_error_t err = {0};

    world_init(&world);
    submit_under(&world, 0, "", FM_ISOLATION_NONE);
    expand_at(&world, 0, START + S + S / 2);
    wait(&world, START + 3 * S, FM_SCHED_WAIT_BUSY, NULL);
    CU_ASSERT(world_lease(&world, 2) == 2);
    place(&world, world.lease, START + 5 * S, 0, 2);
    FM_ASSERT_OK(world_result(&world, 0, "1", false), &world.err);
    FM_ASSERT_OK(world_result(&world, 1, "2", true), &world.err);
    place(&world, 99, START + 6 * S, 2, 1); /* its worker was lost */
    wait(&world, START + 8 * S, FM_SCHED_WAIT_MEMORY, "somebody else");
    check_history(world.state);
    for (size_t i = 0; i < world.count; i++) {
        FM_ASSERT_OK(fm_state_apply(replayed, world.types[i],
                                    world.records[i].data, world.records[i].len,
                                    true, 0, &err),
                     &err);
    }
    check_history(replayed);
    fm_state_destroy(replayed);
    world_fini(&world);
}

static void test_quota_and_now(void)
{
    world_t world;
    fm_fabric_t fabric = {0};
    fm_json_t *report = NULL;
    fm_error_t err = {0};
    fm_tenant_config_t config = {.queued_max = 1};

    world_init(&world);
    submit_under(&world, 0, "", FM_ISOLATION_NONE);
    FM_ASSERT_OK(
        fm_tenants_configure(fm_pool_tenants(fm_state_pool(world.state)),
                             "default", &config, &err),
        &err);
    report = explain(world.state, 0, FM_EXPLAIN_ALL);
    CU_ASSERT_PTR_NOT_NULL(strstr(text(report, "now.why"), "its items are"));
    fm_json_drop(report);
    fabric.state = world.state;
    report = NULL;
    CU_ASSERT(fm_explain(&fabric, fm_state_run(world.state, 0), 0, 0, &report,
                         &err) == FM_ERR_NOT_FOUND);
    CU_ASSERT(report == NULL);
    expand_at(&world, 0, START + S);
    report = explain(world.state, 0, 1);
    CU_ASSERT_STRING_EQUAL(text(report, "now.why"), "is ready to be placed");
    fm_json_drop(report);
    wait(&world, START + 2 * S, FM_SCHED_WAIT_WORKERS, "default");
    report = explain(world.state, 0, 1);
    CU_ASSERT_STRING_EQUAL(text(report, "now.why"), "it is at its quota");
    CU_ASSERT_PTR_NOT_NULL(strstr(text(report, "now.mend"), "fabric.yaml"));
    fm_json_drop(report);
    world_fini(&world);
}

/* A decision that is damaged is refused, one of nothing known ignored. */
static void test_damage(void)
{
    world_t world;
    fm_decision_t decision = {
        .lease = 5, .policy = span_of(""), .text = span_of("")};
    fm_buf_t buf = {0};
    fm_error_t err = {0};

    world_init(&world);
    fm_decision_encode(&decision, &buf);
    CU_ASSERT(fm_state_apply(world.state, FM_RECORD_PLACE, buf.data, 20, true,
                             0, &err) == FM_ERR_CORRUPT);
    FM_ASSERT_OK(fm_state_apply(world.state, FM_RECORD_WAIT, buf.data, buf.len,
                                true, 0, &err),
                 &err);
    CU_ASSERT(fm_state_lease(world.state, 5) == NULL);
    fm_buf_fini(&buf);
    world_fini(&world);
}

/* --- isolation ------------------------------------------------------------ */

static fm_digest_t key_of(const world_t *world, uint32_t flow)
{
    return world_item(world->state, flow, 0, 0).key;
}

static bool batch_shared(const world_t *world, uint32_t a, uint32_t b)
{
    return fm_digest_equal(
        &fm_state_run(world->state, a)->vectors[0]->batch_key,
        &fm_state_run(world->state, b)->vectors[0]->batch_key);
}

static void test_isolation(void)
{
    static const struct {
        const char *policy;
        fm_isolation_t isolation;
        bool batches; /* shared with workflow 0 */
    } cases[] = {{"", FM_ISOLATION_NONE, true},
                 {"flowmesh", FM_ISOLATION_WORKFLOW, true},
                 {"adaptive", FM_ISOLATION_ACTION, true},
                 {"round_robin", FM_ISOLATION_NODE, false}};
    world_t world;

    world_init(&world);
    for (uint32_t i = 0; i < FM_COUNT_OF(cases); i++) {
        submit_under(&world, i, cases[i].policy, cases[i].isolation);
        expand_at(&world, i, START);
    }
    for (uint32_t i = 1; i < FM_COUNT_OF(cases); i++) {
        fm_digest_t plain = key_of(&world, 0);
        fm_digest_t made = fm_place_isolate(
            &plain, i,
            cases[i].isolation == FM_ISOLATION_WORKFLOW ? FM_PLACE_NONE : 0);
        fm_digest_t key = key_of(&world, i);
        CU_ASSERT(fm_digest_equal(&key, &made));
        CU_ASSERT(batch_shared(&world, 0, i) == cases[i].batches);
        CU_ASSERT_STRING_EQUAL(fm_state_run(world.state, i)->policy,
                               cases[i].policy);
    }
    CU_ASSERT_STRING_EQUAL(fm_state_run(world.state, 0)->policy, "flowmesh");
    world_fini(&world);
}

/* --- needs, accounts ------------------------------------------------------ */

static fm_batch_info_t needs_of(const char *hints)
{
    fm_batch_info_t info = {.memory_bytes = 1000};
    fm_json_t *json = NULL;

    CU_ASSERT_FATAL(fm_json_parse(hints, strlen(hints), "hints", &json, NULL) >=
                    0);
    fm_needs_read(json, &info);
    fm_json_drop(json);
    return info;
}

static void test_needs(void)
{
    fm_batch_info_t info = needs_of("{}");

    CU_ASSERT(info.memory_bytes == 1000 && info.gang == 1 &&
              info.device == FM_SCHED_ANY);
    info = needs_of("{\"resources\":{\"hardware\":{\"memory\":\"2K\","
                    "\"gpu\":{\"memory\":\"22Gi\",\"count\":2,"
                    "\"type\":\"any\"}}}}");
    CU_ASSERT(info.memory_bytes == UINT64_C(22) << 30 && info.gang == 2 &&
              info.device == FM_SCHED_ANY);
    info = needs_of("{\"resources\":{\"hardware\":{\"memory\":\"2K\"}}}");
    CU_ASSERT(info.memory_bytes == 2000);
    info = needs_of("{\"resources\":{\"hardware\":{\"memory\":500}}}");
    CU_ASSERT(info.memory_bytes == 1000); /* the model takes more */
    info = needs_of("{\"resources\":{\"hardware\":{\"gpu\":{\"type\":"
                    "\"h100\",\"count\":4000}}}}");
    CU_ASSERT(info.device == FM_SCHED_GPU && info.gang == FM_SCHED_GANG_MAX);
    info = needs_of("{\"resources\":{\"hardware\":{\"gpu\":{\"type\":"
                    "\"cpu\",\"count\":0}}}}");
    CU_ASSERT(info.device == FM_SCHED_CPU && info.gang == 1);
}

static void expand_with(world_t *world, uint32_t flow, const char *hints)
{
    fm_buf_t items = {0};
    fm_buf_t buf = {0};

    fm_record_item_add(&items, "{\"value\":1}", 11);
    fm_record_expand_t record = {
        .workflow = flow,
        .params = span_of("{}"),
        .hints = span_of(hints),
        .count = 1,
        .items = {(const char *)items.data, items.len}};
    fm_record_expand_encode(&record, &buf);
    fm_buf_fini(&items);
    FM_ASSERT_OK(world_apply(world, FM_RECORD_EXPAND, &buf), &world->err);
}

/* What one asks for must not hold up another's share of the same work. */
static void test_least_need_holds(void)
{
    world_t world;
    fm_digest_t key;
    const fm_batch_info_t *info = NULL;

    world_init(&world);
    submit_under(&world, 0, "", FM_ISOLATION_NONE);
    submit_under(&world, 1, "", FM_ISOLATION_NONE);
    submit_under(&world, 2, "", FM_ISOLATION_NONE);
    expand_with(&world, 0,
                "{\"resources\":{\"hardware\":{\"gpu\":{\"memory\":"
                "\"4000Gi\",\"count\":8,\"type\":\"h100\"}}}}");
    CU_ASSERT_FATAL(fm_state_next_batch(world.state, &key, &info));
    CU_ASSERT(info->gang == 8 && info->device == FM_SCHED_GPU &&
              info->memory_bytes == UINT64_C(4000) << 30);
    CU_ASSERT(!fm_state_next_batch(world.state, &key, &info));
    expand_with(&world, 1, "{}");
    CU_ASSERT_FATAL(fm_state_next_batch(world.state, &key, &info));
    CU_ASSERT(info->gang == 1 && info->device == FM_SCHED_ANY &&
              info->memory_bytes == 0);
    expand_with(&world, 2, "{}"); /* nothing new */
    CU_ASSERT(!fm_state_next_batch(world.state, &key, &info));
    world_fini(&world);
}

static double account(const fm_state_t *state, const char *member)
{
    fm_fabric_t fabric = {.state = (fm_state_t *)(uintptr_t)state};
    fm_json_t *list = NULL;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_explain_tenants(&fabric, &list, &err), &err);
    CU_ASSERT_FATAL(fm_json_len(list) == 1);
    double value = real(fm_json_at(list, 0), member);
    fm_json_drop(list);
    return value;
}

/* A replay pays what was paid. */
static void test_accounts(void)
{
    static const char *const members[] = {
        "device_seconds", "dollars", "joules", "ran", "shared", "queued"};
    world_t world;
    fm_state_t *replayed = state_make();
    fm_error_t err = {0};

    world_init(&world);
    submit_under(&world, 0, "", FM_ISOLATION_NONE);
    expand_at(&world, 0, START);
    CU_ASSERT(world_lease(&world, 2) == 2);
    FM_ASSERT_OK(world_result(&world, 0, "1", false), &world.err);
    FM_ASSERT_OK(world_result(&world, 1, "2", true), &world.err);
    for (size_t i = 0; i < world.count; i++) {
        FM_ASSERT_OK(fm_state_apply(replayed, world.types[i],
                                    world.records[i].data, world.records[i].len,
                                    true, 0, &err),
                     &err);
    }
    CU_ASSERT_DOUBLE_EQUAL(account(world.state, "device_seconds"), 1, 1e-9);
    CU_ASSERT_DOUBLE_EQUAL(account(world.state, "dollars"), 0.02, 1e-9);
    CU_ASSERT_EQUAL(account(world.state, "ran"), 2);
    CU_ASSERT_EQUAL(account(world.state, "queued"), 1);
    for (size_t i = 0; i < FM_COUNT_OF(members); i++) {
        CU_ASSERT_DOUBLE_EQUAL(account(replayed, members[i]),
                               account(world.state, members[i]), 1e-9);
    }
    fm_state_destroy(replayed);
    world_fini(&world);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"history", test_history},
        {"quota and now", test_quota_and_now},
        {"damage", test_damage},
        {"isolation", test_isolation},
        {"needs", test_needs},
        {"accounts", test_accounts},
        {"the least need holds", test_least_need_holds},
    };

    return fm_test_main("role explain", cases, FM_COUNT_OF(cases));
}
