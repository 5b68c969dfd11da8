/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Real executors under the supervisor: our engine and the Python example;
 * kill -9 of each side in the middle of a batch, and resumption after it.
 */
#include <errno.h>
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

#define PATIENCE_NS (90 * FM_NS_PER_S) /* reached only when something broke */

typedef struct session {
    fm_reactor_t *reactor;
    fm_exec_t *exec;
    bool greeted, done, exited, batched;
    char output[2048]; /* of item 0 */
    char error[2048];
    char checkpoint[FM_DIGEST_TEXT_BYTES];
    size_t items, errors, checkpoints, objects;
    size_t kill_after; /* checkpoints; then SIGKILL; 0: never */
    size_t stop_after; /* checkpoints; then `stop` */
    uint32_t missing;
    fm_exec_exit_t exit_info;
    char numerics[64];
    bool stage_files;
} session_t;

static void on_hello(void *ctx, const fm_exec_hello_t *hello)
{
    session_t *s = ctx;

    s->greeted = true;
    s->stage_files = hello->stage_files;
    (void)snprintf(s->numerics, sizeof(s->numerics), "%s", hello->numerics);
}

static void on_checkpoint(void *ctx, const fm_exec_checkpoint_t *checkpoint)
{
    session_t *s = ctx;

    (void)fm_digest_format(&checkpoint->digest, s->checkpoint);
    s->checkpoints++;
    if (s->checkpoints == s->kill_after) {
        CU_ASSERT_EQUAL(kill((pid_t)fm_exec_pid(s->exec), SIGKILL), 0);
    }
    if (s->checkpoints == s->stop_after) {
        fm_exec_stop(s->exec, PATIENCE_NS);
    }
}

static void on_item(void *ctx, const fm_exec_item_t *item)
{
    session_t *s = ctx;

    s->items++;
    s->objects += item->object_count;
    if (item->outcome != FM_EXEC_OK) {
        s->errors++;
        (void)snprintf(s->error, sizeof(s->error), "%s", item->error);
    } else if (item->index == 0 && item->output) {
        (void)snprintf(s->output, sizeof(s->output), "%s", item->output);
    }
}

static void on_done(void *ctx, const fm_exec_done_t *done)
{
    session_t *s = ctx;

    CU_ASSERT(done->seconds >= 0);
    s->missing = done->missing;
    s->done = true;
}

static void on_exit_(void *ctx, const fm_exec_exit_t *info)
{
    session_t *s = ctx;

    s->exit_info = *info;
    (void)snprintf(s->error, sizeof(s->error), "%s", info->text);
    s->exited = true;
}

static void turn_until(session_t *s, const bool *flag)
{
    int64_t end = fm_clock_mono_ns() + PATIENCE_NS;

    while (!*flag && !s->exited && fm_clock_mono_ns() < end) {
        CU_ASSERT_EQUAL_FATAL(
            fm_reactor_turn(s->reactor, 100 * FM_NS_PER_MS, NULL, NULL), FM_OK);
    }
    if (!*flag) {
        (void)fprintf(stderr, "%s\n", s->error);
    }
}

static void session_open(session_t *s, const char *const *argv,
                         const char *const *env)
{
    const fm_exec_options_t options = {.argv = argv, .env = env};
    const fm_exec_callbacks_t callbacks = {.on_hello = on_hello,
                                           .on_checkpoint = on_checkpoint,
                                           .on_item = on_item,
                                           .on_done = on_done,
                                           .on_exit = on_exit_,
                                           .ctx = s};
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_reactor_create(NULL, &s->reactor, &err), &err);
    FM_ASSERT_OK(fm_exec_open(s->reactor, &options, &callbacks, &s->exec, &err),
                 &err);
    turn_until(s, &s->greeted);
    CU_ASSERT_FATAL(s->greeted);
}

static void engine_open(session_t *s, const char *dir, const char *writer)
{
    const char *const argv[] = {FM_TEST_ENGINE, "--fabric", dir, "--writer",
                                writer,         "--work",   dir, NULL};

    session_open(s, argv, NULL);
    CU_ASSERT_STRING_EQUAL(s->numerics, "cpu-f32");
}

static void session_close(session_t *s)
{
    s->exec = fm_exec_close(s->exec);
    s->reactor = fm_reactor_destroy(s->reactor);
}

static fm_json_t *json(const char *text)
{
    fm_json_t *value = NULL;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_json_parse(text, strlen(text), "test", &value, &err), &err);
    return value;
}

/* One item of that value, to the end of the batch or of the executor. */
static void batch_start(session_t *s, const char *type, const char *params,
                        const char *value, const char *hints,
                        const char *checkpoint)
{
    fm_json_t *p = json(params), *v = json(value), *h = json(hints);
    const fm_exec_input_t item = {0, v};
    const fm_exec_batch_t batch = {.lease = 11,
                                   .task_type = type,
                                   .params = p,
                                   .hints = h,
                                   .items = &item,
                                   .item_count = 1,
                                   .checkpoint = checkpoint,
                                   .deadline_ns = PATIENCE_NS};
    fm_error_t err = {0};

    s->done = false;
    s->output[0] = '\0';
    FM_ASSERT_OK(fm_exec_run(s->exec, &batch, &err), &err);
    fm_json_drop(p);
    fm_json_drop(v);
    fm_json_drop(h);
}

static void batch_run(session_t *s, const char *type, const char *params,
                      const char *value, const char *hints,
                      const char *checkpoint)
{
    batch_start(s, type, params, value, hints, checkpoint);
    turn_until(s, &s->done);
}

static void dir_make(char *dir)
{
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(dir));
}

static void dir_remove(const char *dir)
{
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_file_remove_tree(dir, &err), &err);
}

static void test_python_example(void)
{
    const char *const argv[] = {FM_TEST_EXAMPLES "/uppercase.py", NULL};
    session_t s = {0};
    char path[] = "/tmp/fm-value-XXXXXX";
    const char *stored = "{\"value\":\"from a file\"}";
    fm_error_t err = {0};
    int fd = mkstemp(path);

    CU_ASSERT_FATAL(fd >= 0);
    FM_ASSERT_OK(fm_file_write_all(fd, stored, strlen(stored), path, &err),
                 &err);
    (void)close(fd);
    session_open(&s, argv, NULL);
    CU_ASSERT(s.stage_files);
    batch_run(&s, "uppercase", "{\"suffix\":\"!\"}", "{\"value\":\"abc\"}",
              "{}", NULL);
    CU_ASSERT_STRING_EQUAL(s.output, "\"ABC!\"");
    char *value =
        fm_asprintf("{\"$object\":\"sha256:%064d\",\"path\":\"%s\"}", 1, path);
    batch_run(&s, "uppercase", "{}", value, "{}", NULL);
    CU_ASSERT_STRING_EQUAL(s.output, "\"FROM A FILE\"");
    batch_run(&s, "uppercase", "{}", "{\"value\":5}", "{}", NULL);
    CU_ASSERT(s.done);
    CU_ASSERT_EQUAL(s.errors, 1);
    fm_exec_shutdown(s.exec, PATIENCE_NS);
    turn_until(&s, &s.exited);
    CU_ASSERT_EQUAL(s.exit_info.reason, FM_EXEC_STOPPED);
    CU_ASSERT_EQUAL(s.exit_info.code, 0);
    free(value);
    (void)unlink(path);
    session_close(&s);
}

static void test_engine(void)
{
    char dir[] = "/tmp/fm-engine-XXXXXX";
    session_t s = {0};

    dir_make(dir);
    engine_open(&s, dir, "w");
    batch_run(&s, "echo", "{}", "{\"value\":{\"z\":1,\"a\":2}}", "{}", NULL);
    CU_ASSERT_STRING_EQUAL(s.output, "{\"a\":2,\"z\":1}");
    batch_run(&s, "python",
              "{\"code\":{\"text\":\"def main(i):\\n  print('noise')\\n  "
              "return 6 * 7\"}}",
              "{\"inputs\":{}}", "{}", NULL);
    CU_ASSERT_STRING_EQUAL(s.output, "42");
    batch_run(&s, "command", "{\"argv\":[\"touch\",\"f\"],\"outputs\":[\"f\"]}",
              "{\"inputs\":{}}", "{}", NULL);
    CU_ASSERT_EQUAL(s.objects, 1);
    fm_exec_shutdown(s.exec, PATIENCE_NS);
    turn_until(&s, &s.exited);
    CU_ASSERT_EQUAL(s.exit_info.reason, FM_EXEC_STOPPED);
    CU_ASSERT_EQUAL(s.exit_info.code, 0); /* and no leak was found in it */
    session_close(&s);
    dir_remove(dir);
}

#define MODEL                                                                  \
    "{\"config\":{\"hidden_size\":32,\"intermediate_size\":64,"                \
    "\"num_hidden_layers\":2,\"num_attention_heads\":2,"                       \
    "\"max_position_embeddings\":64,\"vocab_size\":260},\"seed\":1}"
#define SFT                                                                    \
    "{\"model\":" MODEL ",\"training\":{\"batch_size\":2,\"steps\":40,"        \
    "\"learning_rate\":0.01}}"
#define SAMPLES                                                                \
    "{\"samples\":[{\"text\":\"one\"},{\"text\":\"two\"},"                     \
    "{\"text\":\"three\"}]}"

/* kill -9 after a checkpoint, a stop after another, then to the end: the
 * bytes are those of a run that nothing disturbed. */
static void test_kill_and_resume(void)
{
    char dir[] = "/tmp/fm-engine-XXXXXX";
    session_t whole = {0}, killed = {.kill_after = 2};
    session_t stopped = {.stop_after = 1}, last = {0};
    const char *hints = "{\"save_steps\":5}";

    dir_make(dir);
    engine_open(&whole, dir, "whole");
    batch_run(&whole, "sft", SFT, SAMPLES, "{}", NULL);
    CU_ASSERT(strlen(whole.output) > 0);
    session_close(&whole);

    engine_open(&killed, dir, "killed");
    batch_run(&killed, "sft", SFT, SAMPLES, hints, NULL);
    turn_until(&killed, &killed.exited);
    CU_ASSERT_EQUAL(killed.exit_info.reason, FM_EXEC_SIGNALLED);
    CU_ASSERT_EQUAL(killed.exit_info.code, SIGKILL);
    CU_ASSERT_EQUAL(killed.exit_info.lease, 11);
    session_close(&killed);

    engine_open(&stopped, dir, "stopped");
    batch_run(&stopped, "sft", SFT, SAMPLES, hints, killed.checkpoint);
    CU_ASSERT(stopped.done);
    CU_ASSERT_EQUAL(stopped.missing, 1);
    CU_ASSERT_STRING_NOT_EQUAL(stopped.checkpoint, killed.checkpoint);
    batch_run(&stopped, "echo", "{}", "{\"value\":1}", "{}", NULL);
    CU_ASSERT_STRING_EQUAL(stopped.output, "1"); /* it lives on */
    session_close(&stopped);

    engine_open(&last, dir, "last");
    batch_run(&last, "sft", SFT, SAMPLES, hints, stopped.checkpoint);
    CU_ASSERT_EQUAL(last.items, 1);
    CU_ASSERT_STRING_EQUAL(last.output, whole.output);
    session_close(&last);
    dir_remove(dir);
}

/* The pid that a script wrote, once it is there whole. */
static pid_t pid_wait(const char *path, session_t *s)
{
    int64_t end = fm_clock_mono_ns() + PATIENCE_NS;
    fm_buf_t text = {0};
    long pid = 0;

    while (pid == 0 && fm_clock_mono_ns() < end) {
        CU_ASSERT_EQUAL_FATAL(
            fm_reactor_turn(s->reactor, FM_NS_PER_MS, NULL, NULL), FM_OK);
        fm_buf_clear(&text);
        if (fm_file_read(path, 64, &text, NULL) == FM_OK && text.len > 0 &&
            text.data[text.len - 1] == '\n') {
            pid = strtol(fm_buf_cstr(&text), NULL, 10);
        }
    }
    fm_buf_fini(&text);
    CU_ASSERT_FATAL(pid > 0);
    return (pid_t)pid;
}

/* Orphans of the tree come to us (subreaper): wait until it has ended. */
static bool ends(pid_t pid)
{
    int64_t end = fm_clock_mono_ns() + PATIENCE_NS;

    while (fm_clock_mono_ns() < end) {
        while (waitpid(-1, NULL, WNOHANG) > 0) {
        }
        if (kill(pid, 0) != 0 && errno == ESRCH) {
            return true;
        }
        (void)usleep(1000);
    }
    return false;
}

#define GRANDCHILD                                                             \
    "{\"argv\":[\"sh\",\"-c\",\"sleep 1000 & echo $! > %s/pid; wait\"]}"

/* kill -9 of the engine takes what its command started. */
static void test_engine_killed(void)
{
    char dir[] = "/tmp/fm-engine-XXXXXX";
    session_t s = {0};

    dir_make(dir);
    char *params = fm_asprintf(GRANDCHILD, dir);
    char *path = fm_asprintf("%s/pid", dir);
    engine_open(&s, dir, "w");
    batch_start(&s, "command", params, "{}", "{}", NULL);
    pid_t grandchild = pid_wait(path, &s);
    CU_ASSERT_EQUAL(kill(grandchild, 0), 0);
    CU_ASSERT_EQUAL(kill((pid_t)fm_exec_pid(s.exec), SIGKILL), 0);
    turn_until(&s, &s.exited);
    CU_ASSERT_EQUAL(s.exit_info.reason, FM_EXEC_SIGNALLED);
    CU_ASSERT(ends(grandchild));
    free(params);
    free(path);
    session_close(&s);
    dir_remove(dir);
}

/* kill -9 of the supervisor takes engine and command. */
static void test_supervisor_killed(void)
{
    char dir[] = "/tmp/fm-engine-XXXXXX";
    session_t idle = {0};
    fm_error_t err = {0};

    dir_make(dir);
    char *params = fm_asprintf(GRANDCHILD, dir);
    char *path = fm_asprintf("%s/pid", dir);
    char *engine_path = fm_asprintf("%s/engine", dir);
    FM_ASSERT_OK(fm_reactor_create(NULL, &idle.reactor, &err), &err);
    pid_t supervisor = fork();
    CU_ASSERT_FATAL(supervisor >= 0);
    if (supervisor == 0) {
        session_t s = {0};
        engine_open(&s, dir, "w");
        char *pid = fm_asprintf("%d\n", (int)fm_exec_pid(s.exec));
        if (fm_file_replace(engine_path, pid, strlen(pid), NULL) < 0) {
            _exit(1);
        }
        batch_start(&s, "command", params, "{}", "{}", NULL);
        turn_until(&s, &s.done);
        _exit(1); /* killed before */
    }
    pid_t engine = pid_wait(engine_path, &idle);
    pid_t grandchild = pid_wait(path, &idle);
    CU_ASSERT_EQUAL(kill(supervisor, SIGKILL), 0);
    CU_ASSERT(ends(engine));
    CU_ASSERT(ends(grandchild));
    fm_reactor_destroy(idle.reactor);
    free(params);
    free(path);
    free(engine_path);
    dir_remove(dir);
}

/* The engine refuses a store it cannot open and says why. */
static void test_engine_refuses(void)
{
    const char *const argv[] = {FM_TEST_ENGINE, "--fabric", "/proc/nowhere",
                                "--writer",     "w",        NULL};
    const fm_exec_options_t options = {.argv = argv};
    session_t s = {0};
    const fm_exec_callbacks_t callbacks = {.on_exit = on_exit_, .ctx = &s};
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_reactor_create(NULL, &s.reactor, &err), &err);
    FM_ASSERT_OK(fm_exec_open(s.reactor, &options, &callbacks, &s.exec, &err),
                 &err);
    turn_until(&s, &s.exited);
    CU_ASSERT_EQUAL(s.exit_info.reason, FM_EXEC_EXITED);
    CU_ASSERT_EQUAL(s.exit_info.code, 1);
    CU_ASSERT_PTR_NOT_NULL(strstr(s.error, "/proc/nowhere"));
    session_close(&s);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"the Python example", test_python_example},
        {"the engine", test_engine},
        {"kill -9, stop, resume: the same bytes", test_kill_and_resume},
        {"kill -9 of the engine", test_engine_killed},
        {"kill -9 of the supervisor", test_supervisor_killed},
        {"the engine refuses", test_engine_refuses},
    };

    if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) {
        perror("prctl");
        return 2;
    }
    return fm_test_main("executor", cases, FM_COUNT_OF(cases));
}
