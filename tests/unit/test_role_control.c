/* SPDX-License-Identifier: Apache-2.0 */
/*
 * role/control with scripted workers: what it gives them, what it believes
 * them, what it takes away, and what its reports say afterwards.
 */
#include <stdlib.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "role/control/control.h"
#include "role/control/report.h"
#include "role_fixture.h"
#include "role_peer.h"

#define WORKERS 2
#define ONE_NODE                                                               \
    "apiVersion: flowmesh/v1\nmetadata: {name: one}\nspec:\n"                  \
    "  taskType: echo\n  data: {items: [a]}\n"
#define THREE_ITEMS                                                            \
    "apiVersion: flowmesh/v1\nmetadata: {name: three}\nspec:\n"                \
    "  taskType: echo\n  data: {items: [a, b, c]}\n"

struct stage {
    char dir[64];
    fm_reactor_t *reactor;
    fm_link_t *links[1 + WORKERS];
    peer_t workers[WORKERS];
    fm_control_t *control;
    int64_t silence_ns;
    uint32_t run;
    uint32_t instance;
    uint64_t memory_bytes; /* of workers that say hello; 0: 1 GiB */
    size_t taken[WORKERS]; /* leases that a loop has answered */
    int runs_ended, ups, downs, progresses, waits;
    char wait[320]; /* the last wait that will not end by itself */
    char why[256];  /* of the last worker event */
};

static void on_run(void *ctx, const fm_run_t *run)
{
    (void)run;
    ((struct stage *)ctx)->runs_ended++;
}

static void on_worker(void *ctx, const char *name, bool up, const char *why)
{
    struct stage *stage = ctx;

    CU_ASSERT(strncmp(name, "cell/w", 6) == 0 ||
              strcmp(name, "of peer 1") == 0);
    stage->ups += up;
    stage->downs += !up;
    (void)snprintf(stage->why, sizeof(stage->why), "%s", why);
}

static void on_wait(void *ctx, const fm_run_t *run, uint32_t node,
                    const char *text)
{
    struct stage *stage = ctx;

    CU_ASSERT(run->index == 0 && node == 0);
    (void)snprintf(stage->wait, sizeof(stage->wait), "%s", text);
    stage->waits++;
}

static void on_progress(void *ctx, const fm_run_t *run, uint32_t node,
                        double fraction, const char *metrics)
{
    CU_ASSERT(run->index == 0 && node == 0 && fraction > 0.4);
    CU_ASSERT_STRING_EQUAL(metrics, "{\"step\":1}");
    ((struct stage *)ctx)->progresses++;
}

static void on_fatal(void *ctx, fm_status_t status, const char *text)
{
    (void)ctx;
    (void)fprintf(stderr, "fatal: %s: %s\n", fm_status_name(status), text);
    CU_FAIL("the control plane gave up");
}

/* Open the fabric at stage->dir and take it over. */
static void start(struct stage *stage)
{
    fm_error_t err = {0};
    fm_fabric_t *fabric = NULL;
    fm_fabric_options_t options = {0};
    fm_control_options_t opts = {.events = {.on_run = on_run,
                                            .on_worker = on_worker,
                                            .on_progress = on_progress,
                                            .on_wait = on_wait,
                                            .on_fatal = on_fatal,
                                            .ctx = stage},
                                 .heartbeat_ns = 20 * FM_NS_PER_MS,
                                 .silence_ns = stage->silence_ns};

    FM_ASSERT_OK(fm_reactor_create(NULL, &stage->reactor, &err), &err);
    FM_ASSERT_OK(fm_link_loop_create(1 + WORKERS, NULL, stage->links, &err),
                 &err);
    for (uint32_t i = 0; i <= WORKERS; i++) {
        FM_ASSERT_OK(fm_link_attach(stage->links[i], stage->reactor, &err),
                     &err);
    }
    for (uint32_t i = 0; i < WORKERS; i++) {
        peer_open(&stage->workers[i], stage->reactor, stage->links[i + 1], 0);
    }
    FM_ASSERT_OK(fm_fabric_open(stage->dir, &options, &fabric, &err), &err);
    FM_ASSERT_OK(fm_control_open(stage->reactor, stage->links[0], fabric, &opts,
                                 &stage->control, &err),
                 &err);
}

static void submit(struct stage *stage, const char *text)
{
    fm_error_t err = {0};
    fm_json_t *files = fm_json_object();

    FM_ASSERT_OK(fm_control_submit(stage->control, text, strlen(text), "t.yaml",
                                   files, &stage->run, &err),
                 &err);
    fm_json_drop(files);
}

static void begin(struct stage *stage, const char *text)
{
    *stage = (struct stage){.silence_ns = 3600 * FM_NS_PER_S};
    (void)snprintf(stage->dir, sizeof(stage->dir), "/tmp/fm-control-XXXXXX");
    CU_ASSERT_FATAL(mkdtemp(stage->dir) != NULL);
    start(stage);
    submit(stage, text);
}

/* Let go of the control plane; the fabric stays. */
static void stop(struct stage *stage)
{
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_control_close(stage->control, &err), &err);
    stage->control = NULL;
    for (uint32_t i = 0; i < WORKERS; i++) {
        peer_close(&stage->workers[i]);
    }
    for (uint32_t i = 0; i <= WORKERS; i++) {
        fm_link_close(stage->links[i]);
    }
    fm_reactor_destroy(stage->reactor);
}

static void finish(struct stage *stage)
{
    fm_error_t err = {0};

    stop(stage);
    FM_ASSERT_OK(fm_file_remove_tree(stage->dir, &err), &err);
}

static void say_hello(struct stage *stage, uint32_t index)
{
    const fm_msg_device_t device = {
        .kind = "cpu",
        .name = "Zen 4",
        .memory_bytes = stage->memory_bytes ? stage->memory_bytes : 1u << 30,
        .cores = 1};
    static const char *const types[] = {"echo", "something_of_tomorrow"};
    char name[8];

    (void)snprintf(name, sizeof(name), "w%u", index + 1);
    fm_msg_t msg = {.type = FM_MSG_HELLO,
                    .hello = {.protocol = FM_WIRE_VERSION,
                              .cell = "cell",
                              .name = name,
                              .host = "node1",
                              .pid = 1,
                              .devices = &device,
                              .device_count = 1,
                              .task_types = types,
                              .task_type_count = 2,
                              .price_per_hour = 3600}};
    peer_say(&stage->workers[index], &msg);
}

static void join(struct stage *stage, uint32_t index)
{
    say_hello(stage, index);
    const fm_msg_welcome_t *welcome =
        &peer_wait(&stage->workers[index], FM_MSG_WELCOME)->welcome;
    CU_ASSERT_STRING_EQUAL(welcome->fabric_dir, stage->dir);
    CU_ASSERT(welcome->heartbeat_ms == 20);
    stage->instance = welcome->instance;
}

static const fm_msg_lease_t *take(struct stage *stage, uint32_t index)
{
    const fm_msg_lease_t *lease =
        &peer_wait(&stage->workers[index], FM_MSG_LEASE)->lease;

    CU_ASSERT_STRING_EQUAL(lease->task_type, "echo");
    CU_ASSERT(lease->instance == stage->instance && lease->deadline_ns > 0);
    return lease;
}

/* One item's end: output is JSON, or NULL for an error of @p status. */
static fm_msg_result_item_t item_of(uint32_t index, const char *output,
                                    fm_item_status_t status)
{
    fm_msg_result_item_t item = {.index = index,
                                 .status = output ? FM_ITEM_OK : status,
                                 .kind = "item",
                                 .locator = "",
                                 .error = output ? "" : "went wrong"};
    if (output) {
        item.digest = fm_sha256(output, strlen(output));
        item.inline_bytes = (const uint8_t *)output;
        item.inline_len = strlen(output);
    }
    return item;
}

static void send_result(struct stage *stage, uint32_t index, uint64_t lease,
                        uint32_t instance, const fm_msg_result_item_t *items,
                        size_t count, bool final)
{
    fm_msg_t msg = {.type = FM_MSG_RESULT,
                    .result = {.lease = lease,
                               .instance = instance,
                               .items = items,
                               .item_count = count,
                               .seconds = 2,
                               .cpu_seconds = 1,
                               .joules = 30,
                               .device = "Zen 4",
                               .final = final}};
    peer_say(&stage->workers[index], &msg);
}

/* Answer all of a lease: what echo would. */
static void answer(struct stage *stage, uint32_t index,
                   const fm_msg_lease_t *lease)
{
    fm_msg_result_item_t items[8];
    char *texts[8] = {NULL};

    CU_ASSERT_FATAL(lease->item_count <= 8);
    for (size_t i = 0; i < lease->item_count; i++) {
        fm_json_t *value = NULL;
        const char *text = lease->items[i].value;
        CU_ASSERT_FATAL(
            fm_json_parse(text, strlen(text), "item", &value, NULL) >= 0);
        texts[i] = fm_json_canonical(fm_json_get(value, "value"));
        fm_json_drop(value);
        items[i] = item_of(lease->items[i].index, texts[i], FM_ITEM_OK);
    }
    send_result(stage, index, lease->lease, stage->instance, items,
                lease->item_count, true);
    for (size_t i = 0; i < lease->item_count; i++) {
        free(texts[i]);
    }
}

static void wait_until(struct stage *stage, const int *what, int count)
{
    for (int turns = 0; *what < count && turns < TURNS_MAX; turns++) {
        turn(stage->reactor);
    }
    CU_ASSERT_EQUAL_FATAL(*what, count);
}

static const char *refusal(struct stage *stage, uint32_t index)
{
    return peer_wait(&stage->workers[index], FM_MSG_ERROR)->error.text;
}

static void bye(struct stage *stage, uint32_t index)
{
    fm_msg_t msg = {.type = FM_MSG_BYE, .bye = {"tired"}};
    peer_say(&stage->workers[index], &msg);
}

static fm_pool_node_t node_of(const struct stage *stage, uint32_t node)
{
    fm_pool_node_t info = {0};

    CU_ASSERT_FATAL(fm_pool_node_get(
                        fm_state_pool(fm_control_fabric(stage->control)->state),
                        stage->run, node, &info) == FM_OK);
    return info;
}

/* Until what was said of @p count items of the first node is durable. */
static void wait_ran(struct stage *stage, uint32_t count)
{
    for (int turns = 0; turns < TURNS_MAX && node_of(stage, 0).ran < count;
         turns++) {
        turn(stage->reactor);
    }
    CU_ASSERT_FATAL(node_of(stage, 0).ran == count);
}

/* --- tests ---------------------------------------------------------------- */

static const fm_json_t *at(const fm_json_t *value, const char *path)
{
    const fm_json_t *found = fm_json_path(value, path);
    CU_ASSERT_PTR_NOT_NULL_FATAL(found);
    return found;
}

/* What a finished run is told as (docs/spec/report.md). */
static void check_reports(struct stage *stage)
{
    fm_fabric_t *fabric = fm_control_fabric(stage->control);
    const fm_run_t *run = fm_state_run(fabric->state, stage->run);
    fm_json_t *report = NULL;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_report_run(fabric, run, &report, &err), &err);
    CU_ASSERT_STRING_EQUAL(fm_json_str(at(report, "workflow")), "w1");
    CU_ASSERT_STRING_EQUAL(fm_json_str(at(report, "name")), "two");
    CU_ASSERT_STRING_EQUAL(fm_json_str(at(report, "state")), "done");
    CU_ASSERT(fm_json_len(at(report, "nodes")) == 2);
    CU_ASSERT_STRING_EQUAL(fm_json_str(at(report, "nodes.1.name")), "second");
    CU_ASSERT(fm_json_int_or(at(report, "nodes.0.items"), 0) == 3);
    CU_ASSERT(fm_json_is(at(report, "nodes.0.error"), FM_JSON_NULL));
    CU_ASSERT(fm_json_int_or(at(report, "operators.planned"), 0) == 4);
    CU_ASSERT(fm_json_int_or(at(report, "operators.failed"), 9) == 0);
    CU_ASSERT(fm_json_len(at(report, "trials")) == 0);
    report = fm_json_drop(report);
    FM_ASSERT_OK(fm_report_items(fabric, run, 0, &report, &err), &err);
    CU_ASSERT(fm_json_len(report) == 3);
    CU_ASSERT_STRING_EQUAL(fm_json_str(at(report, "2.output")), "c");
    CU_ASSERT(strncmp(fm_json_str(at(report, "2.digest")), "sha256:", 7) == 0);
    CU_ASSERT(strncmp(fm_json_str(at(report, "2.key")), "sha256:", 7) == 0);
    report = fm_json_drop(report);
    FM_ASSERT_OK(fm_report_lineage(fabric, run, 1, 0, &report, &err), &err);
    CU_ASSERT_STRING_EQUAL(fm_json_str(at(report, "operator")), "echo");
    CU_ASSERT_STRING_EQUAL(fm_json_str(at(report, "upstream.0")), "w1/first");
    CU_ASSERT_STRING_EQUAL(fm_json_str(at(report, "execution.device")),
                           "Zen 4");
    CU_ASSERT_EQUAL(fm_json_real_or(at(report, "execution.seconds"), 0), 2);
    CU_ASSERT_EQUAL(fm_json_real_or(at(report, "execution.dollars"), 0), 2);
    CU_ASSERT(fm_json_is(at(report, "execution.placement"), FM_JSON_OBJECT));
    report = fm_json_drop(report);
    CU_ASSERT(fm_report_lineage(fabric, run, 0, 3, &report, &err) ==
              FM_ERR_NOT_FOUND);
    CU_ASSERT(report == NULL);
}

static void test_whole_run(void)
{
    struct stage stage;

    begin(&stage, TWO_NODES);
    join(&stage, 0);
    const fm_msg_lease_t *lease = take(&stage, 0);
    CU_ASSERT(lease->item_count == 3 && lease->attempt == 1);
    CU_ASSERT_STRING_EQUAL(lease->items[1].value, "{\"value\":\"b\"}");
    fm_msg_t progress = {.type = FM_MSG_PROGRESS,
                         .progress = {lease->lease, 0.5, "{\"step\":1}"}};
    peer_say(&stage.workers[0], &progress);
    answer(&stage, 0, lease);
    lease = take(&stage, 0); /* the second node reads the first */
    CU_ASSERT_STRING_EQUAL(lease->items[0].value, "{\"value\":\"say a\"}");
    CU_ASSERT(stage.runs_ended == 0);
    answer(&stage, 0, lease);
    wait_until(&stage, &stage.runs_ended, 1);
    CU_ASSERT(stage.progresses == 1 && stage.ups == 1);
    CU_ASSERT(node_of(&stage, 1).state == FM_POOL_DONE);
    check_reports(&stage);
    finish(&stage);
}

static void test_results_not_believed(void)
{
    struct stage stage;
    fm_msg_result_item_t item = item_of(0, "\"a\"", FM_ITEM_OK);

    begin(&stage, ONE_NODE);
    join(&stage, 0);
    uint64_t lease = take(&stage, 0)->lease;
    send_result(&stage, 0, lease + 1, stage.instance, &item, 1, true);
    CU_ASSERT_PTR_NOT_NULL(strstr(refusal(&stage, 0), "does not hold"));
    send_result(&stage, 0, lease, stage.instance + 1, &item, 1, true);
    CU_ASSERT_PTR_NOT_NULL(strstr(refusal(&stage, 0), "does not hold"));
    /* nor somebody else's, nor a stranger's */
    join(&stage, 1);
    send_result(&stage, 1, lease, stage.instance, &item, 1, true);
    CU_ASSERT_PTR_NOT_NULL(strstr(refusal(&stage, 1), "does not hold"));
    CU_ASSERT(node_of(&stage, 0).ran == 0);
    send_result(&stage, 0, lease, stage.instance, &item, 1, true);
    wait_until(&stage, &stage.runs_ended, 1);
    finish(&stage);
}

static void test_lies_cost_the_lease(void)
{
    struct stage stage;
    fm_msg_result_item_t item = item_of(0, "\"a\"", FM_ITEM_OK);

    begin(&stage, ONE_NODE);
    join(&stage, 0);
    uint64_t lease = take(&stage, 0)->lease;
    item.digest.bytes[0] ^= 1;
    send_result(&stage, 0, lease, stage.instance, &item, 1, true);
    CU_ASSERT_PTR_NOT_NULL(strstr(refusal(&stage, 0), "not its digest's"));
    const fm_msg_lease_t *again = take(&stage, 0);
    CU_ASSERT(again->lease != lease);
    item = item_of(7, "\"a\"", FM_ITEM_OK);
    send_result(&stage, 0, again->lease, stage.instance, &item, 1, true);
    CU_ASSERT_PTR_NOT_NULL(strstr(refusal(&stage, 0), "not leased"));
    answer(&stage, 0, take(&stage, 0));
    wait_until(&stage, &stage.runs_ended, 1);
    finish(&stage);
}

static void test_bad_messages(void)
{
    struct stage stage;
    fm_error_t err = {0};
    fm_msg_t empty = {.type = FM_MSG_HELLO,
                      .hello = {.protocol = FM_WIRE_VERSION,
                                .cell = "c",
                                .name = "n",
                                .host = "h"}};
    fm_msg_t welcome = {.type = FM_MSG_WELCOME,
                        .welcome = {.fabric_dir = "", .options = "{}"}};

    begin(&stage, ONE_NODE);
    FM_ASSERT_OK(fm_link_send(stage.links[1], 0, "FMx", 3, &err), &err);
    CU_ASSERT_STRING_NOT_EQUAL(refusal(&stage, 0), "");
    peer_say(&stage.workers[0], &empty);
    CU_ASSERT_PTR_NOT_NULL(strstr(refusal(&stage, 0), "without a device"));
    peer_say(&stage.workers[0], &welcome);
    CU_ASSERT_PTR_NOT_NULL(strstr(refusal(&stage, 0), "not a worker's"));

    CU_ASSERT(fm_control_worker_count(stage.control) == 0);
    join(&stage, 0);
    answer(&stage, 0, take(&stage, 0));
    wait_until(&stage, &stage.runs_ended, 1);
    finish(&stage);
}

/* A worker that could not even start its executor. */
static void test_bye_of_a_stranger(void)
{
    struct stage stage;

    begin(&stage, ONE_NODE);
    bye(&stage, 0);
    wait_until(&stage, &stage.downs, 1);
    CU_ASSERT_STRING_EQUAL(stage.why, "tired");
    CU_ASSERT(fm_control_worker_count(stage.control) == 0);
    CU_ASSERT(fm_control_gone_count(stage.control) == 1);
    join(&stage, 0); /* a second try */
    CU_ASSERT(fm_control_gone_count(stage.control) == 0);
    answer(&stage, 0, take(&stage, 0));
    wait_until(&stage, &stage.runs_ended, 1);
    finish(&stage);
}

static void test_bye_hands_over(void)
{
    struct stage stage;

    begin(&stage, THREE_ITEMS);
    join(&stage, 0);
    const fm_msg_lease_t *lease = take(&stage, 0);
    fm_msg_result_item_t item = item_of(1, "\"b\"", FM_ITEM_OK);
    send_result(&stage, 0, lease->lease, stage.instance, &item, 1, false);
    wait_ran(&stage, 1);
    bye(&stage, 0);
    wait_until(&stage, &stage.downs, 1);
    CU_ASSERT_STRING_EQUAL(stage.why, "tired");
    join(&stage, 1);
    lease = take(&stage, 1);
    CU_ASSERT(lease->item_count == 2); /* b is settled */
    answer(&stage, 1, lease);
    wait_until(&stage, &stage.runs_ended, 1);
    finish(&stage);
}

/* Needs of hardware: two devices of one host at once, 1 GiB each at most. */
#define GANG                                                                   \
    "apiVersion: flowmesh/v1\nmetadata: {name: gang}\nspec:\n  graph:\n"       \
    "    nodes:\n"                                                             \
    "      - {name: pair, spec: {taskType: echo, data: {items: [a]},\n"        \
    "         resources: {hardware: {gpu: {count: 2, memory: 1Gi}}}}}\n"       \
    "      - {name: after, dependsOn: pair, spec: {taskType: echo,\n"          \
    "         data: {items: [b, c]}}}\n"
#define TOO_LARGE                                                              \
    "apiVersion: flowmesh/v1\nmetadata: {name: big}\nspec:\n"                  \
    "  taskType: echo\n  data: {items: [a]}\n"                                 \
    "  resources: {hardware: {memory: 3Gi}}\n"

/* A gang waits for both workers, and holds both until its lease ends. */
static void test_gang_holds_its_workers(void)
{
    struct stage stage;

    begin(&stage, GANG);
    join(&stage, 0);
    join(&stage, 1);
    uint32_t leader = 0;
    for (int turns = 0; turns < TURNS_MAX; turns++) {
        size_t first = peer_heard(&stage.workers[0], FM_MSG_LEASE);
        size_t second = peer_heard(&stage.workers[1], FM_MSG_LEASE);
        if (first + second > 0) {
            CU_ASSERT(first + second == 1);
            leader = second > 0;
            break;
        }
        turn(stage.reactor);
    }
    const fm_msg_lease_t *lease = take(&stage, leader);
    CU_ASSERT(lease->item_count == 1);
    submit(&stage, THREE_ITEMS); /* the other is idle, and held */
    for (int turns = 0; turns < 20; turns++) {
        turn(stage.reactor);
    }
    CU_ASSERT(peer_heard(&stage.workers[!leader], FM_MSG_LEASE) == 0);
    answer(&stage, leader, lease);
    /* now both are free: what is left goes to either of them */
    for (int turns = 0; turns < TURNS_MAX && stage.runs_ended < 2; turns++) {
        for (uint32_t i = 0; i < WORKERS; i++) {
            size_t given = i == leader ? 1 : 0;
            while (peer_heard(&stage.workers[i], FM_MSG_LEASE) >
                   given + stage.taken[i]) {
                stage.taken[i]++;
                answer(&stage, i, take(&stage, i));
            }
        }
        turn(stage.reactor);
    }
    CU_ASSERT(stage.runs_ended == 2);
    finish(&stage);
}

/* What no worker can hold is told of, with both figures; it goes on when one
 * comes that can. */
static void test_unfit_is_told(void)
{
    struct stage stage;

    begin(&stage, TOO_LARGE);
    join(&stage, 0);
    wait_until(&stage, &stage.waits, 1);
    CU_ASSERT_PTR_NOT_NULL(strstr(stage.wait, "needs 3.00 GiB"));
    CU_ASSERT_PTR_NOT_NULL(strstr(stage.wait, "has 1.00 GiB"));
    CU_ASSERT(peer_heard(&stage.workers[0], FM_MSG_LEASE) == 0);
    for (int turns = 0; turns < 40; turns++) { /* many beats go by */
        turn(stage.reactor);
    }
    stage.memory_bytes = UINT64_C(4) << 30;
    join(&stage, 1);
    answer(&stage, 1, take(&stage, 1));
    wait_until(&stage, &stage.runs_ended, 1);
    CU_ASSERT(stage.waits == 1); /* once, not with every beat */
    finish(&stage);
}

static void test_drained_worker_gets_nothing(void)
{
    struct stage stage;
    fm_msg_t drain = {.type = FM_MSG_DRAIN, .drain = {"walltime", 1}};

    begin(&stage, TWO_NODES);
    join(&stage, 0);
    const fm_msg_lease_t *lease = take(&stage, 0);
    peer_say(&stage.workers[0], &drain);
    answer(&stage, 0, lease); /* what it holds still counts */
    join(&stage, 1);
    answer(&stage, 1, take(&stage, 1));
    wait_until(&stage, &stage.runs_ended, 1);
    CU_ASSERT(peer_heard(&stage.workers[0], FM_MSG_LEASE) == 1);
    finish(&stage);
}

/* What a drained worker leaves was not run: no fault is counted. */
static void test_drained_bye_is_no_fault(void)
{
    struct stage stage;
    fm_msg_t drain = {.type = FM_MSG_DRAIN, .drain = {"walltime", 1}};
    fm_pool_totals_t totals;

    begin(&stage, ONE_NODE);
    join(&stage, 0);
    (void)take(&stage, 0);
    peer_say(&stage.workers[0], &drain);
    bye(&stage, 0);
    join(&stage, 1);
    const fm_msg_lease_t *lease = take(&stage, 1);
    fm_pool_totals(fm_state_pool(fm_control_fabric(stage.control)->state),
                   &totals);
    CU_ASSERT(totals.retried_infra == 0);
    answer(&stage, 1, lease);
    wait_until(&stage, &stage.runs_ended, 1);
    finish(&stage);
}

static void beat(struct stage *stage, uint32_t index)
{
    fm_msg_t msg = {.type = FM_MSG_HEARTBEAT};
    peer_say(&stage->workers[index], &msg);
}

static void test_silence(void)
{
    struct stage stage;
    fm_msg_result_item_t item = item_of(0, "\"a\"", FM_ITEM_OK);

    begin(&stage, ONE_NODE);
    stop(&stage);
    stage.silence_ns = 200 * FM_NS_PER_MS;
    start(&stage);
    submit(&stage, ONE_NODE);
    join(&stage, 0);
    uint64_t lost = take(&stage, 0)->lease;
    for (int turns = 0; stage.downs == 0 && turns < TURNS_MAX; turns++) {
        turn(stage.reactor);
    }
    CU_ASSERT_STRING_EQUAL(stage.why, "silent");
    CU_ASSERT(fm_control_worker_count(stage.control) == 0);
    join(&stage, 1);
    const fm_msg_lease_t *lease = take(&stage, 1);
    CU_ASSERT(lease->lease != lost);
    beat(&stage, 0); /* it lives: welcome, but the lease is another's */
    wait_until(&stage, &stage.ups, 3);
    CU_ASSERT_STRING_EQUAL(stage.why, "heard again");
    send_result(&stage, 0, lost, stage.instance, &item, 1, true);
    CU_ASSERT_PTR_NOT_NULL(strstr(refusal(&stage, 0), "does not hold"));
    answer(&stage, 1, lease);
    wait_until(&stage, &stage.runs_ended, 1);
    finish(&stage);
}

/* Three failures of one item end the node; who still runs its mates is told. */
static void test_attempts_and_cancel(void)
{
    struct stage stage;
    fm_msg_result_item_t bad = item_of(0, NULL, FM_ITEM_TASK_ERROR);

    begin(&stage, THREE_ITEMS);
    join(&stage, 0);
    const fm_msg_lease_t *lease = take(&stage, 0);
    CU_ASSERT(lease->item_count == 3);
    uint64_t first = lease->lease;
    send_result(&stage, 0, first, stage.instance, &bad, 1, false);
    join(&stage, 1);
    for (uint32_t attempt = 2; attempt <= 3; attempt++) {
        const fm_msg_lease_t *alone = take(&stage, 1);
        CU_ASSERT(alone->item_count == 1 && alone->attempt == attempt);
        send_result(&stage, 1, alone->lease, stage.instance, &bad, 1, true);
    }
    const fm_msg_t *cancel = peer_wait(&stage.workers[0], FM_MSG_CANCEL);
    CU_ASSERT(cancel->cancel.lease == first);
    CU_ASSERT(stage.runs_ended == 1);
    CU_ASSERT(node_of(&stage, 0).state == FM_POOL_FAILED);
    const fm_run_t *run =
        fm_state_run(fm_control_fabric(stage.control)->state, 0);
    CU_ASSERT_STRING_EQUAL(run->errors[0], "went wrong");
    finish(&stage);
}

static void test_checkpoint_travels(void)
{
    struct stage stage;
    char text[FM_DIGEST_TEXT_BYTES];
    fm_digest_t digest = fm_sha256("x", 1);

    begin(&stage, ONE_NODE);
    join(&stage, 0);
    const fm_msg_lease_t *lease = take(&stage, 0);
    CU_ASSERT_STRING_EQUAL(lease->checkpoint, "");
    fm_msg_t saved = {.type = FM_MSG_CHECKPOINT,
                      .checkpoint = {.lease = lease->lease,
                                     .index = 0,
                                     .digest = digest,
                                     .locator = "",
                                     .step = 5}};
    peer_say(&stage.workers[0], &saved);
    saved.checkpoint.index = 9; /* no item of the lease: ignored */
    peer_say(&stage.workers[0], &saved);
    while (!fm_control_settled(stage.control)) {
        turn(stage.reactor);
    }
    bye(&stage, 0);
    wait_until(&stage, &stage.downs, 1);
    while (!fm_control_settled(stage.control)) {
        turn(stage.reactor);
    }
    join(&stage, 1);
    CU_ASSERT_STRING_EQUAL(take(&stage, 1)->checkpoint,
                           fm_digest_format(&digest, text));
    /* and over a restart */
    stop(&stage);
    start(&stage);
    submit(&stage, ONE_NODE);
    CU_ASSERT(stage.run == 0); /* the same, gone on with */
    join(&stage, 0);
    CU_ASSERT_STRING_EQUAL(take(&stage, 0)->checkpoint, text);
    finish(&stage);
}

static void test_restart(void)
{
    struct stage stage;
    fm_msg_result_item_t item = item_of(0, "\"a\"", FM_ITEM_OK);

    begin(&stage, THREE_ITEMS);
    join(&stage, 0);
    uint32_t before = stage.instance;
    const fm_msg_lease_t *lease = take(&stage, 0);
    send_result(&stage, 0, lease->lease, stage.instance, &item, 1, false);
    wait_ran(&stage, 1);
    stop(&stage);
    start(&stage);
    submit(&stage, THREE_ITEMS);
    CU_ASSERT(stage.run == 0);
    join(&stage, 0);
    CU_ASSERT(stage.instance != before);
    lease = take(&stage, 0);
    CU_ASSERT(lease->item_count == 2);
    answer(&stage, 0, lease);
    wait_until(&stage, &stage.runs_ended, 1);
    submit(&stage, THREE_ITEMS); /* it has ended: this is another */
    CU_ASSERT(stage.run == 1);
    wait_until(&stage, &stage.runs_ended, 2);
    CU_ASSERT(node_of(&stage, 0).shared == 3);
    finish(&stage);
}

static void test_shutdown(void)
{
    struct stage stage;

    begin(&stage, ONE_NODE);
    join(&stage, 0);
    const fm_msg_lease_t *lease = take(&stage, 0);
    fm_control_shutdown(stage.control, "enough");
    CU_ASSERT_STRING_EQUAL(
        peer_wait(&stage.workers[0], FM_MSG_SHUTDOWN)->shutdown.reason,
        "enough");
    say_hello(&stage, 1); /* too late: welcome and goodbye */
    (void)peer_wait(&stage.workers[1], FM_MSG_SHUTDOWN);
    answer(&stage, 0, lease); /* what is told until the end counts */
    bye(&stage, 0);
    bye(&stage, 1);
    wait_until(&stage, &stage.downs, 2);
    wait_until(&stage, &stage.runs_ended, 1);
    CU_ASSERT(fm_control_worker_count(stage.control) == 0);
    finish(&stage);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"whole run", test_whole_run},
        {"results not believed", test_results_not_believed},
        {"lies cost the lease", test_lies_cost_the_lease},
        {"bad messages", test_bad_messages},
        {"bye of a stranger", test_bye_of_a_stranger},
        {"bye hands over", test_bye_hands_over},
        {"a drained worker gets nothing", test_drained_worker_gets_nothing},
        {"a drained bye is no fault", test_drained_bye_is_no_fault},
        {"a gang holds its workers", test_gang_holds_its_workers},
        {"unfit is told", test_unfit_is_told},
        {"silence", test_silence},
        {"attempts and cancel", test_attempts_and_cancel},
        {"a checkpoint travels", test_checkpoint_travels},
        {"restart", test_restart},
        {"shutdown", test_shutdown},
    };

    return fm_test_main("role control", cases, FM_COUNT_OF(cases));
}
