/* SPDX-License-Identifier: Apache-2.0 */
/*
 * role/worker against a scripted control plane and a small real executor.
 * usage: test_role_worker PYTHON EXECUTOR
 */
#include <glob.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "role/worker/worker.h"
#include "role_peer.h"
#include "store/cas/cas.h"

#define INSTANCE 5u

static const char *executor[3];

struct stage {
    char dir[64];
    fm_reactor_t *reactor;
    fm_link_t *links[2];
    peer_t control;
    fm_worker_t *worker;
    int ends;
    fm_status_t end_status;
    char end_text[256];
};

static void on_end(void *ctx, fm_status_t status, const char *text)
{
    struct stage *stage = ctx;

    stage->ends++;
    stage->end_status = status;
    (void)snprintf(stage->end_text, sizeof(stage->end_text), "%s", text);
}

static void open_with(struct stage *stage, const char *const *argv)
{
    fm_error_t err = {0};

    memset(stage, 0, sizeof(*stage));
    (void)snprintf(stage->dir, sizeof(stage->dir), "/tmp/fm-worker-XXXXXX");
    CU_ASSERT_FATAL(mkdtemp(stage->dir) != NULL);
    CU_ASSERT_FATAL(setenv("TMPDIR", stage->dir, 1) == 0);
    FM_ASSERT_OK(fm_reactor_create(NULL, &stage->reactor, &err), &err);
    FM_ASSERT_OK(fm_link_loop_create(2, NULL, stage->links, &err), &err);
    for (int i = 0; i < 2; i++) {
        FM_ASSERT_OK(fm_link_attach(stage->links[i], stage->reactor, &err),
                     &err);
    }
    peer_open(&stage->control, stage->reactor, stage->links[0], 1);
    fm_worker_options_t opts = {.name = "w1",
                                .fabric_dir = stage->dir,
                                .writer = "w1-files",
                                .executor_argv = argv,
                                .cores = 2,
                                .price_per_hour = 3,
                                .on_end = on_end,
                                .ctx = stage};
    FM_ASSERT_OK(fm_worker_open(stage->reactor, stage->links[1], &opts,
                                &stage->worker, &err),
                 &err);
}

/* Started, greeted and welcomed. */
static void open_stage(struct stage *stage)
{
    open_with(stage, executor);
    (void)peer_wait(&stage->control, FM_MSG_HELLO);
    fm_msg_t welcome = {.type = FM_MSG_WELCOME,
                        .welcome = {.instance = INSTANCE,
                                    .fabric_dir = stage->dir,
                                    .heartbeat_ms = 1000,
                                    .options = "{}"}};
    peer_say(&stage->control, &welcome);
}

static void close_stage(struct stage *stage)
{
    fm_error_t err = {0};

    fm_worker_close(stage->worker);
    peer_close(&stage->control);
    fm_link_close(stage->links[0]);
    fm_link_close(stage->links[1]);
    fm_reactor_destroy(stage->reactor);
    FM_ASSERT_OK(fm_file_remove_tree(stage->dir, &err), &err);
}

/* A LEASE of values, which are JSON texts, counted from index 10. */
static void lease_json(struct stage *stage, uint64_t number, int64_t deadline,
                       const char *params, const char *const *values)
{
    fm_msg_lease_item_t items[20];
    size_t count = 0;

    for (; values[count]; count++) {
        items[count] =
            (fm_msg_lease_item_t){10 + (uint32_t)count, values[count]};
    }
    fm_msg_t msg = {.type = FM_MSG_LEASE,
                    .lease = {.lease = number,
                              .instance = INSTANCE,
                              .task_type = "echo",
                              .params = params,
                              .hints = "{}",
                              .items = items,
                              .item_count = count,
                              .deadline_ns = deadline,
                              .checkpoint = "",
                              .attempt = 1}};
    peer_say(&stage->control, &msg);
}

#define LEASE(stage, number, ...)                                              \
    lease_json((stage), (number), 0, "{}",                                     \
               (const char *const[]){__VA_ARGS__, NULL})

/* The next RESULT, which ends @p lease and has @p count items. */
static const fm_msg_result_t *result(struct stage *stage, uint64_t lease,
                                     size_t count)
{
    const fm_msg_t *msg = peer_wait(&stage->control, FM_MSG_RESULT);

    CU_ASSERT(msg->result.lease == lease && msg->result.final);
    CU_ASSERT(msg->result.instance == INSTANCE);
    CU_ASSERT_EQUAL_FATAL(msg->result.item_count, count);
    return &msg->result;
}

static bool says(const fm_msg_result_item_t *item, const char *text)
{
    fm_digest_t digest = fm_sha256(text, strlen(text));

    return item->status == FM_ITEM_OK && item->inline_len == strlen(text) &&
           memcmp(item->inline_bytes, text, item->inline_len) == 0 &&
           fm_digest_equal(&item->digest, &digest);
}

/* --- tests ---------------------------------------------------------------- */

static void test_hello_and_batch(void)
{
    struct stage stage;

    open_with(&stage, executor);
    const fm_msg_hello_t *hello =
        &peer_wait(&stage.control, FM_MSG_HELLO)->hello;
    CU_ASSERT_STRING_EQUAL(hello->name, "w1");
    CU_ASSERT(hello->device_count == 1 && hello->devices[0].cores == 2);
    CU_ASSERT(hello->task_type_count == 1);
    CU_ASSERT_STRING_EQUAL(hello->task_types[0], "echo");
    CU_ASSERT_EQUAL(hello->price_per_hour, 3);
    lease_json(&stage, 77, 0, "{\"suffix\":\"!\"}",
               (const char *const[]){"\"echo:a\"", "\"error:bad\"",
                                     "\"infra:disk\"", NULL});
    const fm_msg_result_t *got = result(&stage, 77, 3);
    CU_ASSERT(got->items[0].index == 10 && says(&got->items[0], "\"a!\""));
    CU_ASSERT(got->items[1].index == 11 &&
              got->items[1].status == FM_ITEM_TASK_ERROR);
    CU_ASSERT_STRING_EQUAL(got->items[1].error, "bad");
    CU_ASSERT(got->items[2].status == FM_ITEM_INFRA_ERROR);
    CU_ASSERT_EQUAL(got->cpu_seconds, 0.5);
    close_stage(&stage);
}

/* Who is to blame for a dead executor, and that another takes its place. */
static void test_executor_dies(void)
{
    static const struct {
        const char *value;
        fm_item_status_t status;
        const char *text;
    } ways[] = {
        {"\"crash\"", FM_ITEM_TASK_ERROR, "signal 11"},
        {"\"garbage\"", FM_ITEM_TASK_ERROR, ""},
        {"\"stranger\"", FM_ITEM_TASK_ERROR, ""},
        {"\"exit\"", FM_ITEM_INFRA_ERROR, "exit status 3"},
        {"\"kill\"", FM_ITEM_INFRA_ERROR, "signal 9"},
    };
    struct stage stage;
    uint64_t lease = 1;

    open_stage(&stage);
    for (size_t i = 0; i < FM_COUNT_OF(ways); i++) {
        LEASE(&stage, lease, "\"echo:first\"", ways[i].value, "\"echo:b\"");
        const fm_msg_result_t *got = result(&stage, lease++, 3);
        CU_ASSERT(says(&got->items[0], "\"first\"")); /* said before it died */
        for (size_t k = 1; k < 3; k++) {
            CU_ASSERT(got->items[k].status == ways[i].status);
            CU_ASSERT_PTR_NOT_NULL(strstr(got->items[k].error, ways[i].text));
        }
        LEASE(&stage, lease, "\"echo:again\"");
        CU_ASSERT(says(&result(&stage, lease++, 1)->items[0], "\"again\""));
    }
    CU_ASSERT(stage.ends == 0);
    CU_ASSERT(peer_heard(&stage.control, FM_MSG_HELLO) == 1);
    close_stage(&stage);
}

static void test_executor_never_works(void)
{
    static const char *const argv[] = {"false", NULL};
    struct stage stage;

    open_with(&stage, argv);
    const fm_msg_t *bye = peer_wait(&stage.control, FM_MSG_BYE);
    CU_ASSERT_PTR_NOT_NULL(strstr(bye->bye.reason, "exit status 1"));
    CU_ASSERT(stage.ends == 1 && stage.end_status < 0);
    CU_ASSERT(peer_heard(&stage.control, FM_MSG_HELLO) == 0);
    close_stage(&stage);
}

static void test_no_program(void)
{
    struct stage stage;
    static const char *const none[] = {"/nonexistent/executor", NULL};
    fm_worker_options_t opts = {.name = "w2",
                                .fabric_dir = "/nonexistent",
                                .writer = "w2",
                                .executor_argv = none};
    fm_worker_t *worker = NULL;
    fm_error_t err = {0};

    open_stage(&stage);
    CU_ASSERT(fm_worker_open(stage.reactor, stage.links[1], &opts, &worker,
                             &err) == FM_ERR_NOT_FOUND);
    CU_ASSERT(worker == NULL);
    close_stage(&stage);
}

/* The deadline passes, stop is not heard: SIGTERM ends it. */
static void test_hang(void)
{
    struct stage stage;

    open_stage(&stage);
    lease_json(&stage, 1, FM_NS_PER_MS, "{}",
               (const char *const[]){"\"hang\"", NULL});
    const fm_msg_result_t *got = result(&stage, 1, 1);
    CU_ASSERT(got->items[0].status == FM_ITEM_TASK_ERROR);
    CU_ASSERT_STRING_NOT_EQUAL(got->items[0].error, "");
    close_stage(&stage);
}

static void test_second_waits_third_returns(void)
{
    struct stage stage;

    open_stage(&stage);
    LEASE(&stage, 1, "\"save\"");
    (void)peer_wait(&stage.control, FM_MSG_PROGRESS);
    LEASE(&stage, 2, "\"echo:second\"");
    LEASE(&stage, 3, "\"echo:third\"");
    (void)result(&stage, 3, 0); /* given back, nothing run */
    LEASE(&stage, 4, "\"echo:fourth\"");
    (void)result(&stage, 4, 0);
    fm_msg_t cancel = {.type = FM_MSG_CANCEL, .cancel = {1, "not wanted"}};
    peer_say(&stage.control, &cancel);
    const fm_msg_result_t *got = result(&stage, 1, 1);
    CU_ASSERT(got->items[0].status == FM_ITEM_INFRA_ERROR);
    CU_ASSERT(says(&result(&stage, 2, 1)->items[0], "\"second\""));
    CU_ASSERT(peer_heard(&stage.control, FM_MSG_CHECKPOINT) == 1);
    close_stage(&stage);
}

static void test_cancel_what_waits(void)
{
    struct stage stage;

    open_stage(&stage);
    LEASE(&stage, 1, "\"save\"");
    (void)peer_wait(&stage.control, FM_MSG_PROGRESS);
    LEASE(&stage, 2, "\"echo:second\"");
    fm_msg_t cancel = {.type = FM_MSG_CANCEL, .cancel = {2, "not wanted"}};
    peer_say(&stage.control, &cancel);
    (void)result(&stage, 2, 0);
    cancel.cancel.lease = 99; /* nobody's: nothing happens */
    peer_say(&stage.control, &cancel);
    cancel.cancel.lease = 1;
    peer_say(&stage.control, &cancel);
    (void)result(&stage, 1, 1);
    close_stage(&stage);
}

static void test_bad_lease(void)
{
    struct stage stage;

    open_stage(&stage);
    LEASE(&stage, 1, "{not json");
    const fm_msg_result_t *got = result(&stage, 1, 1);
    CU_ASSERT(got->items[0].status == FM_ITEM_TASK_ERROR);
    CU_ASSERT_PTR_NOT_NULL(strstr(got->items[0].error, "lease item:1:"));
    lease_json(&stage, 2, 0, "[]", (const char *const[]){"\"echo:a\"", NULL});
    got = result(&stage, 2, 1);
    CU_ASSERT(got->items[0].status == FM_ITEM_TASK_ERROR);
    LEASE(&stage, 3, "\"echo:fine\"");
    CU_ASSERT(says(&result(&stage, 3, 1)->items[0], "\"fine\""));
    close_stage(&stage);
}

static void shut_down(struct stage *stage)
{
    fm_msg_t msg = {.type = FM_MSG_SHUTDOWN, .shutdown = {"enough"}};
    peer_say(&stage->control, &msg);
}

static void test_shutdown_idle(void)
{
    struct stage stage;

    open_stage(&stage);
    shut_down(&stage);
    CU_ASSERT_STRING_EQUAL(peer_wait(&stage.control, FM_MSG_BYE)->bye.reason,
                           "enough");
    CU_ASSERT(stage.ends == 1 && stage.end_status == FM_OK);
    CU_ASSERT(peer_heard(&stage.control, FM_MSG_DRAIN) == 1);
    CU_ASSERT(peer_heard(&stage.control, FM_MSG_RESULT) == 0);
    close_stage(&stage);
}

/* The first message of @p type about @p lease, whenever it came. */
static const fm_msg_t *heard_of(const struct stage *stage, fm_msg_type_t type,
                                uint64_t lease)
{
    const peer_t *peer = &stage->control;

    for (size_t i = 0; i < peer->count; i++) {
        const fm_msg_t *msg = &peer->heard[i];
        if (msg->type == type &&
            (type == FM_MSG_RESULT ? msg->result.lease
                                   : msg->checkpoint.lease) == lease) {
            return msg;
        }
    }
    return NULL;
}

/* What is done is told, what is not stays the control plane's.  A lease that
 * comes too late races with the executor's last words: no order is promised. */
static void test_shutdown_busy(void)
{
    struct stage stage;

    open_stage(&stage);
    LEASE(&stage, 1, "\"echo:done\"", "\"save\"");
    (void)peer_wait(&stage.control, FM_MSG_PROGRESS);
    shut_down(&stage);
    (void)peer_wait(&stage.control, FM_MSG_DRAIN);
    LEASE(&stage, 2, "\"echo:late\"");
    (void)peer_wait(&stage.control, FM_MSG_BYE);
    const fm_msg_t *late = heard_of(&stage, FM_MSG_RESULT, 2);
    const fm_msg_t *saved = heard_of(&stage, FM_MSG_CHECKPOINT, 1);
    const fm_msg_t *got = heard_of(&stage, FM_MSG_RESULT, 1);
    CU_ASSERT_FATAL(saved && got);
    CU_ASSERT(!late || late->result.item_count == 0);
    CU_ASSERT(saved->checkpoint.index == 11 && saved->checkpoint.step == 7);
    CU_ASSERT(!got->result.final && got->result.item_count == 1);
    CU_ASSERT(says(&got->result.items[0], "\"done\""));
    CU_ASSERT(stage.ends == 1 && stage.end_status == FM_OK);
    close_stage(&stage);
}

/* --- files ---------------------------------------------------------------- */

/* An output too long for a message, by whatever way, becomes an object. */
static void check_long_output(const char *value)
{
    struct stage stage;
    fm_cas_t *cas = NULL;
    fm_buf_t buf = {0};
    fm_error_t err = {0};

    open_stage(&stage);
    LEASE(&stage, 1, value, "\"echo:x\"", "\"file:3\"");
    const fm_msg_result_t *got = result(&stage, 1, 3);
    for (size_t i = 0; i < 3; i++) { /* in order of storing */
        const fm_msg_result_item_t *item = &got->items[i];
        if (item->index == 11) {
            CU_ASSERT(says(item, "\"x\""));
        } else if (item->index == 12) {
            CU_ASSERT(says(item, "\"xxx\""));
        } else {
            CU_ASSERT(item->index == 10 && item->status == FM_ITEM_OK);
            CU_ASSERT(item->inline_len == 0);
            CU_ASSERT_STRING_EQUAL(item->kind, "item");
            char *path = fm_asprintf("%s/cas", stage.dir);
            FM_ASSERT_OK(fm_cas_open(path, NULL, &cas, &err), &err);
            FM_ASSERT_OK(fm_cas_get(cas, &item->digest, &buf, &err), &err);
            CU_ASSERT(buf.len == 70002);
            CU_ASSERT(strncmp(item->locator, "w1-files", 8) == 0);
            free(path);
        }
    }
    fm_cas_close(cas);
    fm_buf_fini(&buf);
    close_stage(&stage);
}

static void test_output_files(void)
{
    check_long_output("\"file:70000\"");
}

static void test_output_long(void)
{
    check_long_output("\"long:70000\"");
}

static void test_bad_output_files(void)
{
    struct stage stage;
    char own[] = "\"path:none\"";

    open_stage(&stage);
    LEASE(&stage, 1, own, "\"path:.\"", "\"echo:x\"");
    const fm_msg_result_t *got = result(&stage, 1, 3);
    size_t errors = 0;
    for (size_t i = 0; i < 3; i++) {
        errors += got->items[i].status == FM_ITEM_TASK_ERROR &&
                  strncmp(got->items[i].error, "output file", 11) == 0;
    }
    CU_ASSERT(errors == 2);
    LEASE(&stage, 2, "\"path:../../etc/hostname\""); /* breaks X22 */
    CU_ASSERT(result(&stage, 2, 1)->items[0].status == FM_ITEM_TASK_ERROR);
    close_stage(&stage);
}

/* What stays of the staged files in the worker's directories. */
static size_t lease_dirs(const struct stage *stage)
{
    char *pattern = fm_asprintf("%s/flowmesh-w1-*/lease-*", stage->dir);
    glob_t found;

    CU_ASSERT_FATAL(pattern != NULL);
    int rc = glob(pattern, 0, NULL, &found);
    size_t count = rc == 0 ? found.gl_pathc : 0;
    if (rc == 0) {
        globfree(&found);
    }
    free(pattern);
    return count;
}

/* An object in place of a value, and of the parameters. */
static void test_staged_objects(void)
{
    struct stage stage;
    fm_cas_t *cas = NULL;
    fm_digest_t digests[2];
    char text[2][FM_DIGEST_TEXT_BYTES];
    fm_error_t err = {0};
    fm_cas_options_t opts = {.writer = "control"};

    open_stage(&stage);
    char *path = fm_asprintf("%s/cas", stage.dir);
    FM_ASSERT_OK(fm_cas_open(path, &opts, &cas, &err), &err);
    FM_ASSERT_OK(
        fm_cas_put(cas, FM_CAS_ITEM, "\"echo:long\"", 11, &digests[0], &err),
        &err);
    FM_ASSERT_OK(fm_cas_put(cas, FM_CAS_ITEM, "{\"suffix\":\"?\"}", 14,
                            &digests[1], &err),
                 &err);
    FM_ASSERT_OK(fm_cas_seal(cas, &err), &err);
    fm_cas_close(cas);
    char *value = fm_asprintf("{\"$object\":\"%s\"}",
                              fm_digest_format(&digests[0], text[0]));
    char *params = fm_asprintf("{\"$object\":\"%s\"}",
                               fm_digest_format(&digests[1], text[1]));
    lease_json(&stage, 1, 0, params,
               (const char *const[]){value, "\"echo:short\"", NULL});
    const fm_msg_result_t *got = result(&stage, 1, 2);
    CU_ASSERT(says(&got->items[0], "\"long?\""));
    CU_ASSERT(says(&got->items[1], "\"short?\""));
    value[20] = value[20] == '0' ? '1' : '0'; /* an object nobody has */
    LEASE(&stage, 2, value, "\"echo:x\"");
    got = result(&stage, 2, 2);
    CU_ASSERT(got->items[0].status == FM_ITEM_INFRA_ERROR);
    LEASE(&stage, 3, "\"echo:fine\"");
    CU_ASSERT(says(&result(&stage, 3, 1)->items[0], "\"fine\""));
    for (int turns = 0; turns < TURNS_MAX && lease_dirs(&stage); turns++) {
        turn(stage.reactor);
    }
    CU_ASSERT(lease_dirs(&stage) == 0);
    free(value);
    free(params);
    free(path);
    close_stage(&stage);
}

/* Closed while a file is being stored: the job ends by itself. */
static void test_close_while_storing(void)
{
    struct stage stage;

    open_stage(&stage);
    LEASE(&stage, 1, "\"file:3000000\"", "\"save\"");
    (void)peer_wait(&stage.control, FM_MSG_PROGRESS);
    close_stage(&stage);
}

int main(int argc, char **argv)
{
    static const fm_test_case_t cases[] = {
        {"hello and a batch", test_hello_and_batch},
        {"the executor dies", test_executor_dies},
        {"the executor never works", test_executor_never_works},
        {"no program", test_no_program},
        {"hang", test_hang},
        {"a second lease waits", test_second_waits_third_returns},
        {"cancel what waits", test_cancel_what_waits},
        {"bad lease", test_bad_lease},
        {"shutdown when idle", test_shutdown_idle},
        {"shutdown when busy", test_shutdown_busy},
        {"output files", test_output_files},
        {"a long output", test_output_long},
        {"bad output files", test_bad_output_files},
        {"staged objects", test_staged_objects},
        {"close while storing", test_close_while_storing},
    };

    if (argc < 3) {
        return 2;
    }
    executor[0] = argv[1];
    executor[1] = argv[2];
    return fm_test_main("role worker", cases, FM_COUNT_OF(cases));
}
