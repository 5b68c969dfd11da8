/* SPDX-License-Identifier: Apache-2.0 */
/*
 * role/control state: the same records give the same answers, live and
 * replayed; records that contradict what came before are refused.
 */
#include "role_fixture.h"

#include "base/rng.h"
#include "role/control/work.h"

static const char *const abc[] = {"a", "b", "c"};

/* --- everything a state can be asked, as text ----------------------------- */

static void dump_digest(fm_buf_t *out, const fm_digest_t *digest)
{
    char text[FM_DIGEST_TEXT_BYTES];
    fm_buf_printf(out, " %s", fm_digest_format(digest, text));
}

static void dump_node(const fm_state_t *state, const fm_run_t *run,
                      uint32_t index, fm_buf_t *out)
{
    const fm_vector_t *vector = run->vectors[index];
    fm_pool_node_t node;

    CU_ASSERT_FATAL(fm_pool_node_get(fm_state_pool(state), run->index, index,
                                     &node) == FM_OK);
    fm_buf_printf(out, "  node %u %s %u %u %u %u %s\n", index,
                  fm_pool_state_name(node.state), node.items, node.ran,
                  node.shared, node.failed,
                  run->errors[index] ? run->errors[index] : "-");
    for (uint32_t i = 0; vector && vector->params && i < vector->count; i++) {
        fm_pool_item_t item = world_item(state, run->index, index, i);
        fm_digest_t manifest;
        if (item.state == FM_POOL_ITEM_LEASED) {
            item.state = FM_POOL_ITEM_READY; /* leases are volatile */
        }
        fm_buf_printf(out, "   %s %d %d %u lease %llu",
                      fm_vector_item(vector, i), (int)item.state,
                      item.has_output, item.attempts,
                      (unsigned long long)(item.has_output ? item.lease : 0));
        dump_digest(out, &item.key);
        dump_digest(out, &item.output);
        if (fm_state_checkpoint(state, &item.key, &manifest)) {
            dump_digest(out, &manifest);
        }
        fm_buf_add_str(out, "\n");
    }
}

static void dump(const fm_state_t *state, uint64_t leases, fm_buf_t *out)
{
    fm_pool_totals_t totals;

    for (uint32_t r = 0; r < fm_state_run_count(state); r++) {
        const fm_run_t *run = fm_state_run(state, r);
        fm_buf_printf(out, "%s %s %s %lld\n", run->id, run->file, run->text,
                      (long long)run->submitted_ns);
        dump_digest(out, &run->text_digest);
        for (uint32_t n = 0; n < run->node_count; n++) {
            dump_node(state, run, n, out);
        }
    }
    for (uint64_t i = 1; i <= leases; i++) {
        const fm_lease_record_t *lease = fm_state_lease(state, i);
        if (lease) {
            fm_buf_printf(out, "lease %s %s %s %lld %g %g %g %g %u\n",
                          lease->worker, lease->device, lease->placement,
                          (long long)lease->start_ns, lease->seconds,
                          lease->cpu_seconds, lease->joules, lease->dollars,
                          lease->items);
        }
    }
    fm_json_t *learned = fm_cost_to_json(fm_state_cost(state));
    char *learned_text = fm_json_dump(learned); /* all digits: bit for bit */
    fm_buf_printf(out, "%s\n", learned_text ? learned_text : "?");
    free(learned_text);
    fm_json_drop(learned);
    fm_pool_totals(fm_state_pool(state), &totals);
    fm_buf_printf(
        out, "%llu %llu %llu %llu %llu %llu %llu\n",
        (unsigned long long)totals.planned, (unsigned long long)totals.ran,
        (unsigned long long)totals.shared, (unsigned long long)totals.failed,
        (unsigned long long)totals.dropped, (unsigned long long)totals.memo,
        (unsigned long long)totals.waiting);
}

/* A second state from the records alone answers as the live one. */
static void check_replay(const world_t *world)
{
    fm_state_t *again = state_make();
    fm_buf_t live = {0};
    fm_buf_t replayed = {0};
    fm_error_t err = {0};

    for (size_t i = 0; i < world->count; i++) {
        const fm_buf_t *buf = &world->records[i];
        FM_ASSERT_OK(fm_state_apply(again, world->types[i], buf->data, buf->len,
                                    true, 0, &err),
                     &err);
    }
    dump(world->state, world->lease, &live);
    dump(again, world->lease, &replayed);
    CU_ASSERT(!live.failed && !replayed.failed);
    CU_ASSERT_STRING_EQUAL(fm_buf_cstr(&live), fm_buf_cstr(&replayed));
    if (strcmp(fm_buf_cstr(&live), fm_buf_cstr(&replayed)) != 0) {
        (void)fprintf(stderr, "live:\n%s\nreplayed:\n%s\n", fm_buf_cstr(&live),
                      fm_buf_cstr(&replayed));
    }
    fm_buf_fini(&live);
    fm_buf_fini(&replayed);
    fm_state_destroy(again);
}

static fm_pool_state_t node_state(const world_t *world, uint32_t flow,
                                  uint32_t node)
{
    fm_pool_node_t info;

    CU_ASSERT_FATAL(fm_pool_node_get(fm_state_pool(world->state), flow, node,
                                     &info) == FM_OK);
    return info.state;
}

/* --- tests ---------------------------------------------------------------- */

static void start(world_t *world)
{
    world_init(world);
    CU_ASSERT_FATAL(world_submit(world, 0, TWO_NODES) == FM_OK);
    CU_ASSERT_FATAL(world_expand(world, 0, 0, 0, abc, 3, false) == FM_OK);
}

static void test_whole_life(void)
{
    world_t world;
    static const char *const tail[] = {"A"};

    start(&world);
    check_replay(&world);
    CU_ASSERT(world_lease(&world, 2) == 2);
    CU_ASSERT(world_result(&world, 0, "\"A\"", false) == FM_OK);
    check_replay(&world); /* cut off in the middle of a lease */
    CU_ASSERT(world_result(&world, 1, NULL, true) == FM_OK);
    CU_ASSERT(world_item(world.state, 0, 0, 1).attempts == 1);
    CU_ASSERT_STRING_EQUAL(fm_state_run(world.state, 0)->errors[0],
                           "went wrong");
    check_replay(&world);
    /* what failed goes alone, then the rest (pool.md, P10) */
    CU_ASSERT(world_lease(&world, 4) == 1);
    CU_ASSERT(world_result(&world, 0, "\"B\"", true) == FM_OK);
    CU_ASSERT(world_lease(&world, 4) == 1);
    CU_ASSERT(world_result(&world, 0, "\"C\"", true) == FM_OK);
    CU_ASSERT(node_state(&world, 0, 0) == FM_POOL_DONE);
    check_replay(&world);
    CU_ASSERT(world_expand(&world, 0, 1, 0, tail, 1, false) == FM_OK);
    CU_ASSERT(world_lease(&world, 1) == 1);
    CU_ASSERT(world_result(&world, 0, "\"A\"", true) == FM_OK);
    CU_ASSERT(node_state(&world, 0, 1) == FM_POOL_DONE);
    check_replay(&world);
    const fm_lease_record_t *lease = fm_state_lease(world.state, 1);
    CU_ASSERT_FATAL(lease != NULL);
    CU_ASSERT(lease->items == 2 && lease->joules == 20); /* of both parts */
    CU_ASSERT(fm_state_lease(world.state, 99) == NULL);
    world_fini(&world);
}

/* Seconds of @p device for one echo, by what the state has learned. */
static double seconds_on(const world_t *world, const char *device)
{
    fm_cost_t *cost = fm_state_cost(world->state);
    fm_cost_estimate_t out;
    uint32_t task = 0;
    uint32_t id = 0;

    CU_ASSERT(fm_cost_task_id(cost, "echo", NULL, &task, NULL) == FM_OK);
    CU_ASSERT(fm_cost_device_id(cost, device, NULL, &id, NULL) == FM_OK);
    fm_cost_estimate(cost, task, id, 1, &out);
    return out.seconds;
}

/* What is learned is of the class that the lease ran on, without the load of
 * its model, and a function of the records alone. */
static void test_learning(void)
{
    static const fm_work_site_t sites[] = {
        {.device_class = "fast", .spec = {.flops_per_s = 1e12}},
        {.device_class = "slow",
         .spec = {.flops_per_s = 1e10, .load_bytes_per_s = 1e8},
         .load_s = 20,
         .load_bytes = 1e9},
    };
    world_t world;
    fm_cost_estimate_t load;
    uint32_t slow = 0;

    start(&world);
    for (uint32_t i = 0; i < 3; i++) {
        const fm_work_site_t *site = &sites[i % 2];
        char *placement = fm_work_site_note("{\"total_s\":1}", site);
        CU_ASSERT_FATAL(placement != NULL);
        CU_ASSERT(world_lease(&world, 1) == 1);
        world.placement = placement;
        world.seconds = i % 2 ? 28 : 2;
        CU_ASSERT(world_result(&world, 0, "\"x\"", true) == FM_OK);
        free(placement);
        world.placement = NULL;
    }
    CU_ASSERT_DOUBLE_EQUAL(seconds_on(&world, "fast"), 2, 1e-9);
    CU_ASSERT_DOUBLE_EQUAL(seconds_on(&world, "slow"), 8, 1e-9);
    CU_ASSERT(fm_cost_device_id(fm_state_cost(world.state), "slow", NULL, &slow,
                                NULL) == FM_OK);
    fm_cost_load(fm_state_cost(world.state), slow, 1e9, &load);
    CU_ASSERT_DOUBLE_EQUAL(load.seconds, 20, 1e-9);
    check_replay(&world);
    world_fini(&world);
}

/* A placement from a damaged or hostile record teaches nothing wrong. */
static void test_hostile_sites(void)
{
    static const char *const placements[] = {
        "",
        "7",
        "{\"on\":3}",
        "{\"on\":{\"class\":3}}",
        "{\"on\":{\"class\":\"\"}}",
        "{\"on\":{\"class\":\"@load\"}}",
        "{\"on\":{\"class\":\"a\",\"flops_per_s\":-1}}",
        "{\"on\":{\"class\":\"b\",\"load_s\":1e9,\"load_bytes\":1}}",
        "{\"on\":{\"class\":\"b\",\"load_s\":\"1\",\"load_bytes\":[]}}",
    };

    for (size_t i = 0; i < FM_COUNT_OF(placements); i++) {
        world_t world;
        start(&world);
        CU_ASSERT(world_lease(&world, 1) == 1);
        world.placement = placements[i];
        CU_ASSERT(world_result(&world, 0, "\"x\"", true) == FM_OK);
        double seconds = seconds_on(&world, "b");
        CU_ASSERT(seconds > 0 && seconds <= 0.5 + 1e-9);
        check_replay(&world);
        world_fini(&world);
    }
}

static void test_shared(void)
{
    world_t world;

    start(&world);
    CU_ASSERT(world_submit(&world, 1, TWO_NODES) == FM_OK);
    CU_ASSERT(world_expand(&world, 1, 0, 0, abc, 3, false) == FM_OK);
    CU_ASSERT(world_lease(&world, 8) == 3);
    for (uint32_t i = 0; i < 3; i++) {
        CU_ASSERT(world_result(&world, i, "\"x\"", i == 2) == FM_OK);
    }
    CU_ASSERT(world_item(world.state, 0, 0, 0).state == FM_POOL_ITEM_RAN);
    CU_ASSERT(world_item(world.state, 1, 0, 0).state == FM_POOL_ITEM_SHARED);
    check_replay(&world);
    world_fini(&world);
}

static void test_parts(void)
{
    world_t world;

    world_init(&world);
    CU_ASSERT(world_submit(&world, 0, TWO_NODES) == FM_OK);
    CU_ASSERT(world_expand(&world, 0, 0, 0, abc, 2, true) == FM_OK);
    CU_ASSERT(node_state(&world, 0, 0) == FM_POOL_READY); /* not yet */
    check_replay(&world);
    CU_ASSERT(world_expand(&world, 0, 0, 2, abc + 2, 1, false) == FM_OK);
    CU_ASSERT(node_state(&world, 0, 0) == FM_POOL_RUNNING);
    CU_ASSERT_STRING_EQUAL(
        fm_vector_item(fm_state_run(world.state, 0)->vectors[0], 2),
        "{\"value\":\"c\"}");
    check_replay(&world);
    world_fini(&world);
}

/* The control plane died between two parts: the next one starts anew. */
static void test_cut_off_parts(void)
{
    world_t world;
    static const char *const fresh[] = {"x", "y", "z"};

    world_init(&world);
    CU_ASSERT(world_submit(&world, 0, TWO_NODES) == FM_OK);
    CU_ASSERT(world_expand(&world, 0, 0, 0, abc, 2, true) == FM_OK);
    CU_ASSERT(world_expand(&world, 0, 0, 0, fresh, 1, true) == FM_OK);
    CU_ASSERT(world_expand(&world, 0, 0, 1, fresh + 1, 2, false) == FM_OK);
    const fm_vector_t *vector = fm_state_run(world.state, 0)->vectors[0];
    CU_ASSERT(vector->count == 3);
    CU_ASSERT_STRING_EQUAL(fm_vector_item(vector, 0), "{\"value\":\"x\"}");
    CU_ASSERT_STRING_EQUAL(fm_vector_item(vector, 2), "{\"value\":\"z\"}");
    check_replay(&world);
    /* once whole, a repeat changes nothing */
    CU_ASSERT(world_expand(&world, 0, 0, 0, abc, 3, false) == FM_OK);
    CU_ASSERT_STRING_EQUAL(fm_vector_item(vector, 0), "{\"value\":\"x\"}");
    check_replay(&world);
    world_fini(&world);
}

static void test_skip_fail_cancel(void)
{
    world_t world;

    world_init(&world);
    for (uint32_t i = 0; i < 3; i++) {
        CU_ASSERT(world_submit(&world, i, TWO_NODES) == FM_OK);
    }
    CU_ASSERT(world_node(&world, FM_RECORD_SKIP, 0, 0, "") == FM_OK);
    CU_ASSERT(world_node(&world, FM_RECORD_NODE_FAIL, 1, 0, "no column") ==
              FM_OK);
    CU_ASSERT(world_node(&world, FM_RECORD_CANCEL, 2, 0, "") == FM_OK);
    CU_ASSERT(node_state(&world, 0, 0) == FM_POOL_SKIPPED);
    CU_ASSERT(node_state(&world, 1, 1) == FM_POOL_FAILED);
    CU_ASSERT(node_state(&world, 2, 0) == FM_POOL_CANCELLED);
    CU_ASSERT_STRING_EQUAL(fm_state_run(world.state, 1)->errors[0],
                           "no column");
    /* overtaken: the workflow is over already */
    CU_ASSERT(world_node(&world, FM_RECORD_SKIP, 2, 0, "") == FM_OK);
    check_replay(&world);
    world_fini(&world);
}

static void test_forget(void)
{
    world_t world;
    fm_buf_t key = {0};

    start(&world);
    CU_ASSERT(world_lease(&world, 8) == 3);
    for (uint32_t i = 0; i < 3; i++) {
        CU_ASSERT(world_result(&world, i, "\"x\"", i == 2) == FM_OK);
    }
    fm_pool_item_t item = world_item(world.state, 0, 0, 1);
    fm_buf_add(&key, item.key.bytes, 32);
    CU_ASSERT(world_apply(&world, FM_RECORD_FORGET, &key) == FM_OK);
    CU_ASSERT(node_state(&world, 0, 0) == FM_POOL_RUNNING);
    check_replay(&world);
    CU_ASSERT(world_lease(&world, 8) == 1);
    CU_ASSERT(world_result(&world, 0, "\"x\"", true) == FM_OK);
    CU_ASSERT(node_state(&world, 0, 0) == FM_POOL_DONE);
    check_replay(&world);
    world_fini(&world);
}

static void test_checkpoint(void)
{
    world_t world;
    fm_digest_t manifest = fm_sha256("m", 1);
    fm_digest_t found;

    start(&world);
    fm_pool_item_t item = world_item(world.state, 0, 0, 0);
    CU_ASSERT(!fm_state_checkpoint(world.state, &item.key, &found));
    for (int i = 0; i < 2; i++) { /* the latest counts */
        fm_buf_t pair = {0};
        fm_digest_t first = fm_sha256("f", 1);
        fm_buf_add(&pair, item.key.bytes, 32);
        fm_buf_add(&pair, i ? manifest.bytes : first.bytes, 32);
        CU_ASSERT(world_apply(&world, FM_RECORD_CHECKPOINT, &pair) == FM_OK);
    }
    CU_ASSERT(fm_state_checkpoint(world.state, &item.key, &found) &&
              fm_digest_equal(&found, &manifest));
    check_replay(&world);
    world_fini(&world);
}

static void test_find(void)
{
    world_t world;

    world_init(&world);
    CU_ASSERT(world_submit(&world, 0, TWO_NODES) == FM_OK);
    CU_ASSERT(world_submit(&world, 1, TWO_NODES) == FM_OK);
    CU_ASSERT(fm_state_find(world.state, "w1") == fm_state_run(world.state, 0));
    /* a name means the latest of that name */
    CU_ASSERT(fm_state_find(world.state, "two") ==
              fm_state_run(world.state, 1));
    CU_ASSERT(fm_state_find(world.state, "w3") == NULL);
    CU_ASSERT(fm_state_run(world.state, 2) == NULL);
    world_fini(&world);
}

static void test_contradictions(void)
{
    world_t world;
    fm_buf_t buf = {0};

    start(&world);
    CU_ASSERT(world_submit(&world, 2, TWO_NODES) == FM_ERR_CORRUPT);
    CU_ASSERT(world_submit(&world, 0, TWO_NODES) == FM_ERR_CORRUPT);
    CU_ASSERT(world_submit(&world, 1, "kind: [") < 0);
    CU_ASSERT(world_expand(&world, 7, 0, 0, abc, 1, false) == FM_ERR_CORRUPT);
    CU_ASSERT(world_expand(&world, 0, 9, 0, abc, 1, false) == FM_ERR_CORRUPT);
    /* a part without the one before it */
    CU_ASSERT(world_expand(&world, 0, 1, 5, abc, 1, false) == FM_ERR_CORRUPT);
    fm_buf_add_u8(&buf, 1);
    CU_ASSERT(world_apply(&world, 99, &buf) == FM_ERR_CORRUPT);
    CU_ASSERT_PTR_NOT_NULL(strstr(world.err.text, "later version"));
    buf = (fm_buf_t){0};
    fm_buf_add_str(&buf, "short");
    CU_ASSERT(world_apply(&world, FM_RECORD_FORGET, &buf) == FM_ERR_CORRUPT);
    CU_ASSERT(fm_state_run_count(world.state) == 1); /* nothing was changed */
    CU_ASSERT(node_state(&world, 0, 0) == FM_POOL_RUNNING);
    world_fini(&world);
}

/* Damage that the codec lets pass must not crash what applies it. */
static void test_mutated_records(void)
{
    world_t world;
    fm_rng_t rng;
    size_t refused = 0;

    fm_rng_init(&rng, 7);
    start(&world);
    CU_ASSERT(world_lease(&world, 8) == 3);
    CU_ASSERT(world_result(&world, 0, "\"x\"", false) == FM_OK);
    CU_ASSERT(world_result(&world, 1, NULL, true) == FM_OK);
    for (int round = 0; round < 400; round++) {
        fm_state_t *state = state_make();
        fm_status_t rc = FM_OK;
        size_t hit = fm_rng_below(&rng, world.count);
        for (size_t i = 0; rc >= 0 && i < world.count; i++) {
            const fm_buf_t *from = &world.records[i];
            fm_error_t err = {0};
            uint8_t *copy = fm_malloc(from->len);
            CU_ASSERT_FATAL(copy != NULL);
            memcpy(copy, from->data, from->len);
            for (int f = 0; i == hit && f < 3; f++) {
                copy[fm_rng_below(&rng, from->len)] =
                    (uint8_t)fm_rng_below(&rng, 256);
            }
            rc = fm_state_apply(state, world.types[i], copy, from->len, true, 0,
                                &err);
            free(copy);
        }
        refused += rc < 0;
        fm_state_destroy(state);
    }
    CU_ASSERT(refused > 40);
    world_fini(&world);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"whole life", test_whole_life},
        {"learning", test_learning},
        {"hostile sites", test_hostile_sites},
        {"shared", test_shared},
        {"parts", test_parts},
        {"cut-off parts", test_cut_off_parts},
        {"skip, fail, cancel", test_skip_fail_cancel},
        {"forget", test_forget},
        {"checkpoint", test_checkpoint},
        {"find", test_find},
        {"contradictions", test_contradictions},
        {"mutated records", test_mutated_records},
    };

    return fm_test_main("role state", cases, FM_COUNT_OF(cases));
}
