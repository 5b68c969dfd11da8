/* SPDX-License-Identifier: Apache-2.0 */
/*
 * role/control fabric: what is found again on opening, by a writer and by
 * readers beside it, and what the store has lost.
 */
#include <unistd.h>

#include "base/file.h"
#include "role/control/fabric.h"
#include "role_fixture.h"

static const char *const abc[] = {"a", "b", "c"};
static char dir[64];

static void make_dir(void)
{
    (void)snprintf(dir, sizeof(dir), "/tmp/fm-fabric-XXXXXX");
    CU_ASSERT_FATAL(mkdtemp(dir) != NULL);
}

static void remove_dir(void)
{
    fm_error_t err = {0};
    FM_ASSERT_OK(fm_file_remove_tree(dir, &err), &err);
}

static fm_fabric_t *open_fabric(bool read_only)
{
    fm_fabric_options_t opts = {.read_only = read_only};
    fm_fabric_t *fabric = NULL;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_fabric_open(dir, &opts, &fabric, &err), &err);
    return fabric;
}

/* Put what @p world has seen since @p from into the journal, durably. */
static void append(fm_fabric_t *fabric, const world_t *world, size_t from)
{
    fm_error_t err = {0};

    for (size_t i = from; i < world->count; i++) {
        FM_ASSERT_OK(fm_journal_append(fabric->journal, world->types[i],
                                       world->records[i].data,
                                       world->records[i].len, NULL, &err),
                     &err);
    }
    FM_ASSERT_OK(fm_journal_flush(fabric->journal, &err), &err);
}

/* The first node done: outputs "A", "B", "C". */
static void play(world_t *world)
{
    static const char *const outputs[] = {"\"A\"", "\"B\"", "\"C\""};

    world_init(world);
    CU_ASSERT_FATAL(world_submit(world, 0, TWO_NODES) == FM_OK);
    CU_ASSERT_FATAL(world_expand(world, 0, 0, 0, abc, 3, false) == FM_OK);
    CU_ASSERT_FATAL(world_lease(world, 3) == 3);
    for (uint32_t i = 0; i < 3; i++) {
        CU_ASSERT_FATAL(world_result(world, i, outputs[i], i == 2) == FM_OK);
    }
}

static void check_result(fm_fabric_t *fabric)
{
    fm_json_t *result = NULL;
    fm_error_t err = {0};
    const fm_run_t *run = fm_state_run(fabric->state, 0);

    CU_ASSERT_FATAL(run != NULL);
    FM_ASSERT_OK(fm_fabric_result(fabric, run, 0, &result, &err), &err);
    fm_json_t *item = fm_json_path(result, "items.1.output");
    CU_ASSERT_FATAL(fm_json_str(item) != NULL);
    CU_ASSERT_STRING_EQUAL(fm_json_str(item), "B");
    fm_json_drop(result);
    result = NULL;
    CU_ASSERT(fm_fabric_result(fabric, run, 1, &result, &err) ==
              FM_ERR_NOT_FOUND);
    CU_ASSERT(result == NULL);
}

/* --- tests ---------------------------------------------------------------- */

static void test_nothing_there(void)
{
    fm_fabric_options_t opts = {.read_only = true};
    fm_fabric_t *fabric = NULL;
    fm_error_t err = {0};

    make_dir();
    CU_ASSERT(fm_fabric_open(dir, &opts, &fabric, &err) == FM_ERR_NOT_FOUND);
    CU_ASSERT(fabric == NULL);
    remove_dir();
}

/* Inline outputs live in the journal alone until a segment is sealed. */
static void test_reopen(void)
{
    world_t world;

    make_dir();
    play(&world);
    fm_fabric_t *fabric = open_fabric(false);
    append(fabric, &world, 0);
    fm_fabric_close(fabric);
    for (int round = 0; round < 2; round++) { /* as often as one likes */
        fabric = open_fabric(false);
        CU_ASSERT(fabric->lost_count == 0 && fabric->torn_bytes == 0);
        check_result(fabric);
        fm_fabric_close(fabric);
    }
    world_fini(&world);
    remove_dir();
}

static void test_readers_beside_a_writer(void)
{
    world_t world;
    fm_fabric_options_t opts = {0};
    fm_fabric_t *second = NULL;
    fm_error_t err = {0};

    make_dir();
    play(&world);
    fm_fabric_t *writer = open_fabric(false);
    append(writer, &world, 0);
    CU_ASSERT(fm_fabric_open(dir, &opts, &second, &err) == FM_ERR_BUSY);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, dir));
    fm_fabric_t *reader = open_fabric(true);
    check_result(reader); /* nothing is sealed yet: from the journal */
    fm_fabric_close(reader);
    size_t known = world.count;
    CU_ASSERT(world_submit(&world, 1, TWO_NODES) == FM_OK);
    append(writer, &world, known);
    reader = open_fabric(true);
    CU_ASSERT(fm_state_run_count(reader->state) == 2);
    fm_fabric_close(reader);
    fm_fabric_close(writer);
    world_fini(&world);
    remove_dir();
}

static void test_sealed_outputs(void)
{
    world_t world;
    fm_error_t err = {0};

    make_dir();
    play(&world);
    fm_fabric_t *fabric = open_fabric(false);
    append(fabric, &world, 0);
    fm_fabric_close(fabric);
    fabric = open_fabric(false); /* restored into the store's pending set */
    FM_ASSERT_OK(fm_cas_seal(fabric->cas, &err), &err);
    fm_fabric_close(fabric);
    fabric = open_fabric(true);
    CU_ASSERT(fabric->inline_count == 0); /* the segment has them */
    check_result(fabric);
    fm_fabric_close(fabric);
    world_fini(&world);
    remove_dir();
}

/* An output that is nowhere: its key is forgotten, its item runs again. */
static void test_lost_object(void)
{
    world_t world;
    fm_pool_ref_t ref;
    fm_pool_node_t node;
    fm_pool_batch_t batch;
    fm_buf_t entries = {0};
    fm_buf_t buf = {0};
    fm_error_t err = {0};

    make_dir();
    world_init(&world);
    CU_ASSERT(world_submit(&world, 0, TWO_NODES) == FM_OK);
    CU_ASSERT(world_expand(&world, 0, 0, 0, abc, 1, false) == FM_OK);
    CU_ASSERT(world_lease(&world, 1) == 1);
    CU_ASSERT_FATAL(
        fm_pool_lease_item(fm_state_pool(world.state), world.lease, 0, &ref));
    fm_record_entry_t entry = {
        .key = ref.key,
        .outcome = FM_OUTCOME_OK,
        .output = fm_sha256("gone", 4),
        .kind = 1,
        .bytes = span_of(""),
        .locator = span_of("w1.h5:/objects/data:0:4"),
        .objects = span_of(""),
    };
    fm_record_entry_add(&entries, &entry);
    fm_record_result_t record = {
        .lease = world.lease,
        .worker = span_of("w"),
        .device = span_of("d"),
        .placement = span_of(""),
        .final = true,
        .count = 1,
        .entries = {(const char *)entries.data, entries.len}};
    fm_record_result_encode(&record, &buf);
    CU_ASSERT(world_apply(&world, FM_RECORD_RESULT, &buf) == FM_OK);
    fm_fabric_t *fabric = open_fabric(false);
    append(fabric, &world, 0);
    fm_fabric_close(fabric);
    for (int round = 0; round < 2; round++) {
        fabric = open_fabric(false);
        CU_ASSERT(fabric->lost_count == (round == 0)); /* forgotten once */
        CU_ASSERT(fm_pool_node_get(fm_state_pool(fabric->state), 0, 0, &node) ==
                  FM_OK);
        CU_ASSERT(node.state == FM_POOL_RUNNING);
        CU_ASSERT(ready_batches(fm_state_pool(fabric->state), &batch) == 1);
        fm_fabric_close(fabric);
    }
    fabric = open_fabric(true);
    fm_buf_t none = {0};
    CU_ASSERT(fm_fabric_read(fabric, &entry.output, &none, &err) < 0);
    fm_buf_fini(&none);
    fm_fabric_close(fabric);
    fm_buf_fini(&entries);
    world_fini(&world);
    remove_dir();
}

/* A record that contradicts the ones before it: nothing is opened. */
static void test_contradiction(void)
{
    world_t world;
    fm_fabric_options_t opts = {0};
    fm_fabric_t *fabric = NULL;
    fm_error_t err = {0};

    make_dir();
    world_init(&world);
    CU_ASSERT(world_submit(&world, 3, TWO_NODES) == FM_ERR_CORRUPT);
    fm_fabric_t *writer = open_fabric(false);
    append(writer, &world, 0);
    fm_fabric_close(writer);
    CU_ASSERT(fm_fabric_open(dir, &opts, &fabric, &err) == FM_ERR_CORRUPT);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "SUBMIT of workflow 3"));
    CU_ASSERT(fabric == NULL);
    world_fini(&world);
    remove_dir();
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"nothing there", test_nothing_there},
        {"reopen", test_reopen},
        {"readers beside a writer", test_readers_beside_a_writer},
        {"sealed outputs", test_sealed_outputs},
        {"lost object", test_lost_object},
        {"contradiction", test_contradiction},
    };

    return fm_test_main("role fabric", cases, FM_COUNT_OF(cases));
}
