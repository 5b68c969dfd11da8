/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The supervisor against children that behave, lie, hang and die.  Children
 * are shell scripts, so the bytes they send are the test's own.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "fmtest.h"
#include "run/exec/exec.h"
#include "scratch.h"

#define HELLO                                                                  \
    "echo '{\"type\":\"hello\",\"protocol\":1,\"name\":\"t\",\"version\":"     \
    "\"1\",\"task_types\":[\"echo\"]}'; "
#define ITEM0                                                                  \
    "echo '{\"type\":\"item\",\"lease\":7,\"index\":0,\"output\":5}'; "
#define DONE "echo '{\"type\":\"done\",\"lease\":7,\"seconds\":0.5}'; "

/* What one supervised child did. */
typedef struct log {
    fm_exec_t *exec;
    int hellos, items, dones, exits, progresses, checkpoints;
    int errors;       /* items that failed */
    char output[256]; /* of the last item */
    char error[256];  /* of the last failed one */
    uint32_t missing; /* of the last done */
    double seconds;   /* of it */
    fm_exec_reason_t reason;
    int code;
    int64_t lease;      /* of the exit */
    char text[4096];    /* of the exit */
    bool run_on_hello;  /* start the batch of two items */
    bool close_on_item; /* destroy the handle in its own callback */
    bool shutdown_on_done;
    int64_t deadline_ns, stop_ns;
    fm_status_t run_rc;
} log_t;

static fm_status_t run_two(log_t *log)
{
    fm_json_t *value = fm_json_string("x");
    const fm_exec_input_t items[2] = {{0, value}, {3, value}};
    const fm_exec_batch_t batch = {.lease = 7,
                                   .task_type = "echo",
                                   .items = items,
                                   .item_count = 2,
                                   .deadline_ns = log->deadline_ns};
    fm_status_t rc = fm_exec_run(log->exec, &batch, NULL);

    fm_json_drop(value);
    return rc;
}

static void on_hello(void *ctx, const fm_exec_hello_t *hello)
{
    log_t *log = ctx;

    log->hellos++;
    CU_ASSERT_STRING_EQUAL(hello->name, "t");
    CU_ASSERT_EQUAL(hello->task_type_count, 1);
    if (log->run_on_hello) {
        CU_ASSERT(fm_exec_idle(log->exec));
        log->run_rc = run_two(log);
        CU_ASSERT_EQUAL(run_two(log), FM_ERR_BUSY);
    }
    if (log->stop_ns) {
        fm_exec_stop(log->exec, log->stop_ns);
    }
}

static void on_item(void *ctx, const fm_exec_item_t *item)
{
    log_t *log = ctx;

    log->items++;
    CU_ASSERT_EQUAL(item->lease, 7);
    if (item->outcome != FM_EXEC_OK) {
        log->errors++;
        (void)snprintf(log->error, sizeof(log->error), "%s", item->error);
    } else if (item->output) {
        CU_ASSERT_EQUAL(item->output_bytes, strlen(item->output));
        (void)snprintf(log->output, sizeof(log->output), "%s", item->output);
    } else if (item->path) {
        (void)snprintf(log->output, sizeof(log->output), "%s", item->path);
    } else {
        (void)snprintf(log->output, sizeof(log->output), "%s", item->locator);
    }
    if (log->close_on_item) {
        log->exec = fm_exec_close(log->exec);
    }
}

static void on_progress(void *ctx, int64_t lease, double fraction,
                        const fm_json_t *metrics)
{
    log_t *log = ctx;

    CU_ASSERT_EQUAL(lease, 7);
    CU_ASSERT_DOUBLE_EQUAL(fraction, 0.5, 1e-12);
    CU_ASSERT_EQUAL(fm_json_get_int(metrics, "step", 0), 9);
    log->progresses++;
}

static void on_checkpoint(void *ctx, const fm_exec_checkpoint_t *checkpoint)
{
    log_t *log = ctx;

    CU_ASSERT_EQUAL(checkpoint->step, 4);
    CU_ASSERT_EQUAL(checkpoint->index, 3);
    CU_ASSERT_EQUAL(checkpoint->object_count, 1);
    CU_ASSERT_STRING_EQUAL(checkpoint->locator, "here");
    log->checkpoints++;
}

static void on_done(void *ctx, const fm_exec_done_t *done)
{
    log_t *log = ctx;

    log->dones++;
    log->missing = done->missing;
    log->seconds = done->seconds;
    if (log->shutdown_on_done) {
        fm_exec_shutdown(log->exec, FM_NS_PER_S);
    }
}

static void on_exit_(void *ctx, const fm_exec_exit_t *info)
{
    log_t *log = ctx;

    log->exits++;
    log->reason = info->reason;
    log->code = info->code;
    log->lease = info->lease;
    (void)snprintf(log->text, sizeof(log->text), "%s", info->text);
}

static fm_status_t open_argv(fm_reactor_t *reactor, const char *const *argv,
                             const char *log_path, log_t *log, fm_error_t *err)
{
    const fm_exec_options_t options = {.argv = argv,
                                       .log_path = log_path,
                                       .log_bytes = 1 << 16,
                                       .hello_timeout_ns = 20 * FM_NS_PER_S,
                                       .stop_grace_ns = 50 * FM_NS_PER_MS,
                                       .term_grace_ns = 50 * FM_NS_PER_MS};
    const fm_exec_callbacks_t callbacks = {
        on_hello, on_progress, on_checkpoint, on_item, on_done, on_exit_, log};
    return fm_exec_open(reactor, &options, &callbacks, &log->exec, err);
}

/* Turn until the child is gone or its handle was closed by a callback. */
static void turn_until_exit(fm_reactor_t *reactor, log_t *log)
{
    int64_t end = fm_clock_mono_ns() + 60 * FM_NS_PER_S; /* only if broken */

    while (log->exits == 0 && log->exec && fm_clock_mono_ns() < end) {
        CU_ASSERT_EQUAL_FATAL(
            fm_reactor_turn(reactor, 100 * FM_NS_PER_MS, NULL, NULL), FM_OK);
    }
}

static void supervise(const char *script, log_t *log)
{
    const char *const argv[] = {"sh", "-c", script, NULL};
    fm_reactor_t *reactor = NULL;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_reactor_create(NULL, &reactor, &err), &err);
    FM_ASSERT_OK(open_argv(reactor, argv, NULL, log, &err), &err);
    turn_until_exit(reactor, log);
    if (log->exec) {
        CU_ASSERT_EQUAL(log->exits, 1);
        CU_ASSERT_EQUAL(fm_exec_pid(log->exec), 0);
        CU_ASSERT_EQUAL(run_two(log), FM_ERR_CLOSED);
    }
    log->exec = fm_exec_close(log->exec);
    fm_reactor_destroy(reactor);
}

#define READ "read line; "

static void test_batch(void)
{
    log_t log = {.run_on_hello = true, .shutdown_on_done = true};

    supervise(HELLO READ
              "echo '{\"type\":\"progress\",\"lease\":7,\"fraction\":0.5,"
              "\"metrics\":{\"step\":9},\"unknown\":1}'; "
              "D=sha256:$(printf %064d 0); "
              "echo '{\"type\":\"checkpoint\",\"lease\":7,\"index\":3,"
              "\"step\":4,\"digest\":\"'$D'\",\"locator\":\"here\","
              "\"objects\":[{\"digest\":\"'$D'\",\"locator\":\"l\"}]}'; "
              "echo '{\"type\":\"item\",\"lease\":7,\"index\":3,\"error\":"
              "{\"text\":\"bad luck\",\"kind\":\"infra\"}}'; "
              "echo '{\"type\":\"item\",\"lease\":7,\"index\":0,"
              "\"output\":{\"b\":1,\"a\":2.0}}'; " DONE "cat >/dev/null",
              &log);
    CU_ASSERT_EQUAL(log.run_rc, FM_OK);
    CU_ASSERT_EQUAL(log.items, 2);
    CU_ASSERT_EQUAL(log.errors, 1);
    CU_ASSERT_EQUAL(log.progresses, 1);
    CU_ASSERT_EQUAL(log.checkpoints, 1);
    CU_ASSERT_STRING_EQUAL(log.output, "{\"a\":2,\"b\":1}");
    CU_ASSERT_STRING_EQUAL(log.error, "bad luck");
    CU_ASSERT_EQUAL(log.dones, 1);
    CU_ASSERT_DOUBLE_EQUAL(log.seconds, 0.5, 1e-12);
    CU_ASSERT_EQUAL(log.reason, FM_EXEC_STOPPED);
}

/* A reply written just before the end counts. */
static void test_last_words(void)
{
    log_t log = {.run_on_hello = true};

    supervise(HELLO READ ITEM0 "echo one >&2; echo two >&2; kill -SEGV $$",
              &log);
    CU_ASSERT_EQUAL(log.items, 1);
    CU_ASSERT_EQUAL(log.dones, 0);
    CU_ASSERT_EQUAL(log.reason, FM_EXEC_SIGNALLED);
    CU_ASSERT_EQUAL(log.code, SIGSEGV);
    CU_ASSERT_EQUAL(log.lease, 7);
    CU_ASSERT_PTR_NOT_NULL(strstr(log.text, "signal 11"));
    CU_ASSERT_PTR_NOT_NULL(strstr(log.text, "last words: one|two"));
}

static void test_exit_status(void)
{
    log_t log = {0};

    supervise(HELLO "exit 3", &log);
    CU_ASSERT_EQUAL(log.reason, FM_EXEC_EXITED);
    CU_ASSERT_EQUAL(log.code, 3);
    CU_ASSERT_EQUAL(log.hellos, 1);
    CU_ASSERT_EQUAL(log.lease, 0);
}

/* A grandchild holds the pipes: its group ends with the child all the same. */
static void test_group(void)
{
    log_t log = {.run_on_hello = true};
    int64_t end = fm_clock_mono_ns() + 10 * FM_NS_PER_S;

    supervise(HELLO READ "sleep 1000 & echo '{\"type\":\"item\",\"lease\":7,"
                         "\"index\":0,\"output\":'$!'}'; kill -KILL $$",
              &log);
    CU_ASSERT_EQUAL(log.reason, FM_EXEC_SIGNALLED);
    CU_ASSERT_EQUAL(log.code, SIGKILL);
    pid_t grandchild = (pid_t)strtol(log.output, NULL, 10);
    CU_ASSERT_FATAL(grandchild > 1);
    while (kill(grandchild, 0) == 0 && fm_clock_mono_ns() < end) {
        (void)waitpid(grandchild, NULL, WNOHANG); /* we are its reaper */
    }
    CU_ASSERT_NOT_EQUAL(kill(grandchild, 0), 0);
}

/* Limits reach the child. */
static void test_limits(void)
{
    static const char *const argv[] = {
        "sh", "-c",
        HELLO READ "echo '{\"type\":\"item\",\"lease\":7,\"index\":3,"
                   "\"output\":0}'; echo '{\"type\":\"item\",\"lease\":7,"
                   "\"index\":0,\"output\":'$(ulimit -n)'}'; exit 0",
        NULL};
    log_t log = {.run_on_hello = true};
    const fm_exec_options_t options = {.argv = argv, .limit_files = 37};
    const fm_exec_callbacks_t callbacks = {.on_hello = on_hello,
                                           .on_item = on_item,
                                           .on_exit = on_exit_,
                                           .ctx = &log};
    fm_reactor_t *reactor = NULL;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_reactor_create(NULL, &reactor, &err), &err);
    FM_ASSERT_OK(fm_exec_open(reactor, &options, &callbacks, &log.exec, &err),
                 &err);
    turn_until_exit(reactor, &log);
    CU_ASSERT_STRING_EQUAL(log.output, "37");
    fm_exec_close(log.exec);
    fm_reactor_destroy(reactor);
}

static void test_hung(void)
{
    log_t log = {.run_on_hello = true, .deadline_ns = 20 * FM_NS_PER_MS};

    supervise("trap '' TERM; " HELLO READ ITEM0 "while :; do sleep 1000; done",
              &log);
    CU_ASSERT_EQUAL(log.reason, FM_EXEC_HUNG);
    CU_ASSERT_EQUAL(log.items, 1);
    CU_ASSERT_EQUAL(log.lease, 7);
}

/* `stop` is heard: the child answers done and lives on. */
static void test_stop(void)
{
    log_t log = {.run_on_hello = true,
                 .stop_ns = 30 * FM_NS_PER_S,
                 .shutdown_on_done = true};

    supervise(HELLO READ "read stop; case $stop in *'\"stop\",\"lease\":7'*) "
                         "echo '{\"type\":\"done\",\"lease\":7}';; esac; "
                         "cat >/dev/null",
              &log);
    CU_ASSERT_EQUAL(log.dones, 1);
    CU_ASSERT_EQUAL(log.missing, 2);
    CU_ASSERT_EQUAL(log.reason, FM_EXEC_STOPPED);
}

static const struct lie {
    const char *script;
    const char *text; /* of the exit */
} lies[] = {
    {"echo hello; sleep 1000", "reply:1:"},
    {"printf '\\001\\377\\n'; sleep 1000", "in: ??"},
    {"echo '{\"type\":\"hello\",\"protocol\":2,\"name\":\"t\",\"version\":"
     "\"1\",\"task_types\":[\"echo\"]}'; sleep 1000",
     "it speaks protocol 2, we speak 1"},
    {"echo '{\"type\":\"hello\",\"protocol\":1,\"name\":\"t\",\"version\":"
     "\"1\",\"task_types\":[]}'; sleep 1000",
     "task_types"},
    {HELLO HELLO "sleep 1000", "wrong time"},
    {HELLO DONE "sleep 1000", "wrong time"},
    {HELLO "exec >&-; sleep 1000", "closed its standard output"},
    {HELLO "printf '{}'", "no end"},
    {HELLO "yes | tr -d '\\n'", "more than 1048576"},
    {HELLO "echo '{\"type\":\"nonsense\"}'; sleep 1000", "no message type"},
    {HELLO "echo 17; sleep 1000", "no message type"},
};

static void test_lies(void)
{
    for (size_t i = 0; i < FM_COUNT_OF(lies); i++) {
        log_t log = {0};
        supervise(lies[i].script, &log);
        CU_ASSERT_EQUAL(log.reason, FM_EXEC_VIOLATION);
        CU_ASSERT_PTR_NOT_NULL(strstr(log.text, lies[i].text));
        if (!strstr(log.text, lies[i].text)) {
            (void)fprintf(stderr, "lie %zu: %s\n", i, log.text);
        }
    }
}

static const struct lie batch_lies[] = {
    {ITEM0 ITEM0, "answered before"},
    {ITEM0 DONE, "before every item"},
    {"echo '{\"type\":\"item\",\"lease\":7,\"index\":1,\"output\":1}'; ",
     "not in the batch"},
    {"echo '{\"type\":\"item\",\"lease\":8,\"index\":0,\"output\":1}'; ",
     "not the running lease"},
    {"echo '{\"type\":\"item\",\"lease\":7,\"index\":0}'; ", "exactly one"},
    {"echo '{\"type\":\"item\",\"lease\":7,\"index\":0,\"output\":1,"
     "\"path\":\"a\"}'; ",
     "exactly one"},
    {"echo '{\"type\":\"item\",\"lease\":7,\"index\":0,\"path\":\"a/../b\"}'"
     "; ",
     "below the work directory"},
    {"echo '{\"type\":\"item\",\"lease\":7,\"index\":0,\"path\":\"/etc\"}'; ",
     "below the work directory"},
    {"echo '{\"type\":\"item\",\"lease\":7,\"index\":0,\"digest\":\"x\"}'; ",
     "64 hexadecimal"},
    {"echo '{\"type\":\"item\",\"lease\":7,\"index\":0,\"error\":1}'; ",
     "item.error"},
    {"echo '{\"type\":\"progress\",\"lease\":7,\"fraction\":1.5}'; ",
     "fraction"},
    {"echo '{\"type\":\"checkpoint\",\"lease\":7,\"index\":0,\"step\":-1}'; ",
     "step"},
};

static void test_batch_lies(void)
{
    for (size_t i = 0; i < FM_COUNT_OF(batch_lies); i++) {
        log_t log = {.run_on_hello = true};
        char *script =
            fm_asprintf(HELLO READ "%s sleep 1000", batch_lies[i].script);
        CU_ASSERT_PTR_NOT_NULL_FATAL(script);
        supervise(script, &log);
        free(script);
        CU_ASSERT_EQUAL(log.reason, FM_EXEC_VIOLATION);
        CU_ASSERT_EQUAL(log.lease, 7);
        CU_ASSERT_PTR_NOT_NULL(strstr(log.text, batch_lies[i].text));
        if (!strstr(log.text, batch_lies[i].text)) {
            (void)fprintf(stderr, "batch lie %zu: %s\n", i, log.text);
        }
    }
}

static void test_no_hello(void)
{
    const char *const argv[] = {"sleep", "1000", NULL};
    const fm_exec_options_t options = {.argv = argv, .hello_timeout_ns = 1};
    log_t log = {0};
    const fm_exec_callbacks_t callbacks = {.on_exit = on_exit_, .ctx = &log};
    fm_reactor_t *reactor = NULL;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_reactor_create(NULL, &reactor, &err), &err);
    FM_ASSERT_OK(fm_exec_open(reactor, &options, &callbacks, &log.exec, &err),
                 &err);
    CU_ASSERT_EQUAL(run_two(&log), FM_ERR_BUSY);
    turn_until_exit(reactor, &log);
    CU_ASSERT_EQUAL(log.reason, FM_EXEC_NO_HELLO);
    fm_exec_close(log.exec);
    fm_reactor_destroy(reactor);
}

/* 4 MiB of stderr: nothing blocks, the log is bounded, the end is kept. */
static void test_stderr_flood(void)
{
    static const char *const argv[] = {
        "sh", "-c",
        HELLO READ "yes abcdefgh | head -c 4500000 >&2; echo the end >&2; "
                   "kill -KILL $$",
        NULL};
    char *dir = scratch_make();
    log_t log = {.run_on_hello = true};
    fm_reactor_t *reactor = NULL;
    fm_buf_t now = {0}, before = {0};
    fm_error_t err = {0};

    char *path = fm_asprintf("%s/log", dir),
         *old = fm_asprintf("%s/log.1", dir);
    FM_ASSERT_OK(fm_reactor_create(NULL, &reactor, &err), &err);
    FM_ASSERT_OK(open_argv(reactor, argv, path, &log, &err), &err);
    turn_until_exit(reactor, &log);
    fm_exec_close(log.exec);
    fm_reactor_destroy(reactor);
    CU_ASSERT_EQUAL(log.code, SIGKILL);
    CU_ASSERT_PTR_NOT_NULL(strstr(log.text, "the end"));
    CU_ASSERT_PTR_NOT_NULL(strstr(log.text, "last words"));
    FM_ASSERT_OK(fm_file_read(path, 1 << 17, &now, &err), &err);
    FM_ASSERT_OK(fm_file_read(old, 1 << 17, &before, &err), &err);
    CU_ASSERT(before.len > 1 << 16);
    fm_buf_fini(&now);
    fm_buf_fini(&before);
    free(path);
    free(old);
    scratch_remove(dir);
}

static void test_close_in_callback(void)
{
    log_t log = {.run_on_hello = true, .close_on_item = true};

    supervise(HELLO READ ITEM0 ITEM0 "sleep 1000", &log);
    CU_ASSERT_EQUAL(log.items, 1);
    CU_ASSERT_EQUAL(log.exits, 0);
}

static void test_open_refusals(void)
{
    static const char *const missing[] = {"fm-no-such-program", NULL};
    static const char *const sh[] = {"sh", NULL};
    static const char *const text[] = {"/etc/passwd", NULL};
    const fm_exec_callbacks_t callbacks = {0};
    fm_exec_options_t options = {.argv = missing};
    fm_reactor_t *reactor = NULL;
    fm_exec_t *exec = NULL;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_reactor_create(NULL, &reactor, &err), &err);
    CU_ASSERT_EQUAL(fm_exec_open(reactor, &options, &callbacks, &exec, &err),
                    FM_ERR_NOT_FOUND);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "fm-no-such-program"));
    options.argv = text;
    CU_ASSERT_EQUAL(fm_exec_open(reactor, &options, &callbacks, &exec, &err),
                    FM_ERR_NOT_FOUND);
    options.argv = sh;
    options.workdir = "/no/such/dir";
    CU_ASSERT_EQUAL(fm_exec_open(reactor, &options, &callbacks, &exec, &err),
                    FM_ERR_NOT_FOUND);
    options.argv = sh + 1;
    CU_ASSERT_EQUAL(fm_exec_open(reactor, &options, &callbacks, &exec, &err),
                    FM_ERR_INVALID);
    CU_ASSERT_PTR_NULL(exec);
    fm_exec_close(NULL);
    fm_reactor_destroy(reactor);
}

static void on_hello_refuse(void *ctx, const fm_exec_hello_t *hello)
{
    log_t *log = ctx;
    fm_json_t *value = fm_json_string("x"), *big = NULL;
    fm_exec_input_t items[2] = {{4, value}, {4, value}};
    fm_exec_batch_t batch = {
        .lease = 7, .task_type = "echo", .items = items, .item_count = 2};
    char *text = fm_malloc(FM_EXECUTOR_LINE_BYTES);

    (void)hello;
    CU_ASSERT_EQUAL(fm_exec_run(log->exec, &batch, NULL), FM_ERR_INVALID);
    items[1].index = 5;
    batch.lease = 0;
    CU_ASSERT_EQUAL(fm_exec_run(log->exec, &batch, NULL), FM_ERR_INVALID);
    batch.lease = 7;
    batch.item_count = 0;
    CU_ASSERT_EQUAL(fm_exec_run(log->exec, &batch, NULL), FM_ERR_INVALID);
    batch.item_count = 2;
    batch.params = value;
    CU_ASSERT_EQUAL(fm_exec_run(log->exec, &batch, NULL), FM_ERR_INVALID);
    batch.params = NULL;
    CU_ASSERT_PTR_NOT_NULL_FATAL(text);
    memset(text, 'a', FM_EXECUTOR_LINE_BYTES);
    big = fm_json_stringn(text, FM_EXECUTOR_LINE_BYTES);
    items[0].value = big;
    CU_ASSERT_EQUAL(fm_exec_run(log->exec, &batch, NULL), FM_ERR_LIMIT);
    CU_ASSERT(fm_exec_idle(log->exec));
    fm_json_drop(big);
    fm_json_drop(value);
    free(text);
    log->hellos++;
    fm_exec_shutdown(log->exec, FM_NS_PER_S);
    CU_ASSERT(!fm_exec_idle(log->exec));
}

static void test_run_refusals(void)
{
    static const char *const argv[] = {"sh", "-c", HELLO "cat >/dev/null",
                                       NULL};
    log_t log = {0};
    const fm_exec_options_t options = {.argv = argv};
    const fm_exec_callbacks_t callbacks = {
        .on_hello = on_hello_refuse, .on_exit = on_exit_, .ctx = &log};
    fm_reactor_t *reactor = NULL;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_reactor_create(NULL, &reactor, &err), &err);
    FM_ASSERT_OK(fm_exec_open(reactor, &options, &callbacks, &log.exec, &err),
                 &err);
    turn_until_exit(reactor, &log);
    CU_ASSERT_EQUAL(log.hellos, 1);
    CU_ASSERT_EQUAL(log.reason, FM_EXEC_STOPPED);
    CU_ASSERT_EQUAL(log.code, 0);
    fm_exec_close(log.exec);
    fm_reactor_destroy(reactor);
}

static void test_environment(void)
{
    log_t log = {.run_on_hello = true, .shutdown_on_done = true};

    CU_ASSERT_EQUAL(setenv("FLOWMESH_DEVICE", "wrong", 1), 0);
    supervise(HELLO READ "echo '{\"type\":\"item\",\"lease\":7,\"index\":3,"
                         "\"output\":\"'$FLOWMESH_DEVICE'\"}'; " ITEM0 DONE
                         "cat > /dev/null",
              &log);
    CU_ASSERT_EQUAL(log.items, 2);
    CU_ASSERT_STRING_EQUAL(log.output, "5");
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"a batch, all messages", test_batch},
        {"replies before a crash count; last words", test_last_words},
        {"exit status", test_exit_status},
        {"a grandchild that holds the pipes", test_group},
        {"deadline: stop, TERM, KILL", test_hung},
        {"stop", test_stop},
        {"lies while idle", test_lies},
        {"lies about a batch", test_batch_lies},
        {"no hello", test_no_hello},
        {"stderr flood", test_stderr_flood},
        {"close in a callback", test_close_in_callback},
        {"what open refuses", test_open_refusals},
        {"what run refuses", test_run_refusals},
        {"environment", test_environment},
        {"limits", test_limits},
    };

    if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) {
        perror("prctl");
        return 2;
    }
    return fm_test_main("run/exec", cases, FM_COUNT_OF(cases));
}
