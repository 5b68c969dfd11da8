/* SPDX-License-Identifier: Apache-2.0 */
/* store/journal: replay, torn tails, damage, crashes, faults, rotation. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/file.h"
#include "base/mem.h"
#include "fmtest.h"
#include "store/journal/journal.h"

#define TYPE 17u
#define FILE_MAX_BYTES ((size_t)64 << 20)

static char root[64];

struct seen {
    uint64_t count; /* caller's records */
    uint64_t sum;   /* of their payload numbers */
    uint64_t last_number;
    bool in_order; /* numbers ascend by one */
    uint64_t snapshots;
    char snapshot[32];
};

static fm_status_t on_record(void *ctx, const fm_journal_record_t *record,
                             fm_error_t *err)
{
    struct seen *seen = ctx;
    uint64_t number = 0;

    if (record->type == FM_JOURNAL_TYPE_SNAPSHOT) {
        memset(seen->snapshot, 0, sizeof(seen->snapshot));
        memcpy(seen->snapshot, record->bytes,
               record->len < 31 ? record->len : 31);
        seen->snapshots++;
        return FM_OK;
    }
    if (record->type != TYPE || record->len < sizeof(number)) {
        return fm_error_set(err, FM_ERR_CORRUPT, "not what was written");
    }
    memcpy(&number, record->bytes, sizeof(number));
    seen->in_order =
        seen->count == 0 || (seen->in_order && number == seen->last_number + 1);
    seen->last_number = number;
    seen->sum += number;
    seen->count++;
    return FM_OK;
}

static char *fresh_dir(const char *name)
{
    fm_error_t err = {0};
    char *dir = fm_asprintf("%s/%s", root, name);

    CU_ASSERT_PTR_NOT_NULL_FATAL(dir);
    FM_ASSERT_OK(fm_file_remove_tree(dir, &err), &err);
    return dir;
}

static fm_journal_t *open_ok(const char *dir, struct seen *seen)
{
    fm_error_t err = {0};
    fm_journal_t *journal = NULL;

    memset(seen, 0, sizeof(*seen));
    FM_ASSERT_OK(fm_journal_open(dir, NULL, on_record, seen, &journal, &err),
                 &err);
    return journal;
}

/* Append numbers first … last, each padded by number % 5 bytes. */
static void append_numbers(fm_journal_t *journal, uint64_t first, uint64_t last)
{
    fm_error_t err = {0};
    uint8_t bytes[16] = {0};

    for (uint64_t i = first; i <= last; i++) {
        memcpy(bytes, &i, sizeof(i));
        FM_ASSERT_OK(fm_journal_append(journal, TYPE, bytes, sizeof(i) + i % 5,
                                       NULL, &err),
                     &err);
    }
}

static void flush_ok(fm_journal_t *journal)
{
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_journal_flush(journal, &err), &err);
}

static char *data_path(const char *dir, unsigned generation)
{
    char *path = fm_asprintf("%s/journal-%08u.fmj", dir, generation);

    CU_ASSERT_PTR_NOT_NULL_FATAL(path);
    return path;
}

static void write_file(const char *path, const uint8_t *data, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    CU_ASSERT_FATAL(fd >= 0);
    CU_ASSERT_FATAL(write(fd, data, len) == (ssize_t)len);
    CU_ASSERT_FATAL(close(fd) == 0);
}

static void test_append_replay(void)
{
    char *dir = fresh_dir("replay");
    struct seen seen;
    fm_journal_t *journal = open_ok(dir, &seen);

    CU_ASSERT(seen.count == 0);
    CU_ASSERT(fm_journal_info(journal).instance == 1);
    append_numbers(journal, 1, 50);
    uint64_t before = fm_journal_durable_seq(journal);
    flush_ok(journal);
    CU_ASSERT(fm_journal_durable_seq(journal) == before + 50);
    append_numbers(journal, 51, 60);
    flush_ok(journal);
    append_numbers(journal, 61, 70); /* never flushed: never durable */
    fm_journal_close(journal);

    journal = open_ok(dir, &seen);
    CU_ASSERT(seen.count == 60 && seen.in_order && seen.last_number == 60);
    CU_ASSERT(fm_journal_info(journal).instance == 2);
    CU_ASSERT(fm_journal_info(journal).torn_bytes == 0);
    fm_journal_close(journal);
    free(dir);
}

static void test_limits(void)
{
    char *dir = fresh_dir("limits");
    struct seen seen;
    fm_error_t err = {0};
    fm_journal_t *journal = open_ok(dir, &seen);
    size_t big = FM_JOURNAL_RECORD_MAX_BYTES;
    uint8_t *bytes = fm_calloc(1, big + 1);

    CU_ASSERT_PTR_NOT_NULL_FATAL(bytes);
    CU_ASSERT(fm_journal_append(journal, TYPE, bytes, big + 1, NULL, &err) ==
              FM_ERR_LIMIT);
    CU_ASSERT(fm_journal_append(journal, 3, bytes, 1, NULL, &err) ==
              FM_ERR_INVALID);
    for (int i = 0; i < 3; i++) {
        FM_ASSERT_OK(fm_journal_append(journal, TYPE, bytes, big, NULL, &err),
                     &err);
    }
    CU_ASSERT(fm_journal_append(journal, TYPE, bytes, big, NULL, &err) ==
              FM_ERR_FULL);
    flush_ok(journal); /* makes room again */
    FM_ASSERT_OK(fm_journal_append(journal, TYPE, bytes, big, NULL, &err),
                 &err);
    fm_journal_close(journal);
    free(bytes);
    free(dir);
}

/* A journal of three batches, as a crash leaves it: without an end mark.
 * The sizes after each batch come back in @p ends. */
static char *crashed(const char *name, fm_buf_t *content, uint64_t ends[3])
{
    char *dir = fresh_dir(name);
    fm_error_t err = {0};
    struct seen seen;
    fm_journal_t *journal = open_ok(dir, &seen);

    for (uint64_t batch = 0; batch < 3; batch++) {
        append_numbers(journal, 3 * batch + 1, 3 * batch + 3);
        flush_ok(journal);
        ends[batch] = fm_journal_info(journal).file_bytes;
    }
    char *path = data_path(dir, 1);
    FM_ASSERT_OK(fm_file_read(path, FILE_MAX_BYTES, content, &err), &err);
    CU_ASSERT_FATAL(content->len == ends[2]);
    fm_journal_close(journal);
    free(path);
    return dir;
}

static void test_truncate_every_byte(void)
{
    fm_buf_t content = {0};
    uint64_t ends[3];
    char *dir = crashed("truncate", &content, ends);
    char *path = data_path(dir, 1);
    uint64_t former = 0;

    for (size_t len = 0; len <= content.len; len++) {
        struct seen seen = {0};
        fm_error_t err = {0};
        fm_journal_t *journal = NULL;
        write_file(path, content.data, len);
        fm_status_t rc =
            fm_journal_open(dir, NULL, on_record, &seen, &journal, &err);
        if (len < 64) {
            CU_ASSERT(rc == FM_ERR_CORRUPT);
            CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "journal-00000001.fmj:0"));
            continue;
        }
        FM_ASSERT_OK(rc, &err);
        /* Whole batches survive, and a longer file never holds less. */
        for (uint64_t batch = 0; batch < 3; batch++) {
            CU_ASSERT(len < ends[batch] || seen.count >= 3 * (batch + 1));
        }
        CU_ASSERT(seen.count >= former && seen.count <= former + 1);
        CU_ASSERT(seen.count == 0 || seen.in_order);
        former = seen.count;
        /* What was cut is gone for good, and the journal goes on. */
        append_numbers(journal, seen.count + 1, seen.count + 1);
        flush_ok(journal);
        fm_journal_close(journal);
        uint64_t expected = seen.count + 1;
        fm_journal_close(open_ok(dir, &seen));
        CU_ASSERT(seen.count == expected && seen.in_order);
    }
    CU_ASSERT(former == 9);
    fm_buf_fini(&content);
    free(path);
    free(dir);
}

/* A torn tail longer than what is written next is cut, not overwritten. */
static void test_long_torn_tail(void)
{
    fm_buf_t content = {0};
    uint64_t ends[3];
    char *dir = crashed("tail", &content, ends);
    char *path = data_path(dir, 1);
    struct seen seen;
    struct stat st;

    for (int i = 0; i < 1000; i++) {
        fm_buf_add_u8(&content, (uint8_t)(i * 7));
    }
    write_file(path, content.data, content.len);
    fm_journal_t *journal = open_ok(dir, &seen);
    CU_ASSERT(seen.count == 9);
    CU_ASSERT(fm_journal_info(journal).torn_bytes == 1000);
    CU_ASSERT(stat(path, &st) == 0 &&
              (uint64_t)st.st_size == fm_journal_info(journal).file_bytes);
    fm_journal_close(journal);
    fm_buf_fini(&content);
    free(path);
    free(dir);
}

static void test_flip_every_byte(void)
{
    fm_buf_t content = {0};
    uint64_t ends[3];
    char *dir = crashed("flip", &content, ends);
    char *path = data_path(dir, 1);
    const fm_journal_options_t read_only = {.read_only = true};

    for (size_t at = 0; at < content.len; at++) {
        struct seen seen = {0};
        fm_error_t err = {0};
        fm_journal_t *journal = NULL;
        content.data[at] ^= 0x41;
        write_file(path, content.data, content.len);
        content.data[at] ^= 0x41;
        fm_status_t rc =
            fm_journal_open(dir, &read_only, on_record, &seen, &journal, &err);
        if (at < ends[1]) {
            /* A later batch proves that this one had been durable. */
            CU_ASSERT(rc == FM_ERR_CORRUPT);
            CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "journal-00000001.fmj:"));
            CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "restore"));
        } else {
            /* The last batch may have been under way: a torn write. */
            CU_ASSERT(rc == FM_OK && seen.count >= 6 && seen.count < 9);
            CU_ASSERT(rc == FM_OK && fm_journal_info(journal).torn_bytes > 0);
        }
        fm_journal_close(journal);
    }
    fm_buf_fini(&content);
    free(path);
    free(dir);
}

/* After a clean close a flip in any record of ours is found. */
static void test_flip_after_clean_close(void)
{
    fm_buf_t content = {0};
    uint64_t ends[3];
    char *dir = crashed("flip-clean", &content, ends);
    char *path = data_path(dir, 1);
    fm_error_t err = {0};

    fm_buf_clear(&content);
    FM_ASSERT_OK(fm_file_read(path, FILE_MAX_BYTES, &content, &err), &err);
    CU_ASSERT_FATAL(content.len > ends[2]); /* the end mark */
    for (size_t at = (size_t)ends[1]; at < ends[2]; at++) {
        fm_journal_t *journal = NULL;
        content.data[at] ^= 0x80;
        write_file(path, content.data, content.len);
        content.data[at] ^= 0x80;
        CU_ASSERT(fm_journal_open(dir, NULL, NULL, NULL, &journal, &err) ==
                  FM_ERR_CORRUPT);
        fm_journal_close(journal);
    }
    fm_buf_fini(&content);
    free(path);
    free(dir);
}

static void test_two_writers(void)
{
    char *dir = fresh_dir("two");
    struct seen seen;
    fm_error_t err = {0};
    fm_journal_t *other = NULL;
    const fm_journal_options_t read_only = {.read_only = true};
    char owner[32];
    fm_journal_t *journal = open_ok(dir, &seen);

    append_numbers(journal, 1, 3);
    flush_ok(journal);
    CU_ASSERT(fm_journal_open(dir, NULL, NULL, NULL, &other, &err) ==
              FM_ERR_BUSY);
    (void)snprintf(owner, sizeof(owner), "pid %ld on ", (long)getpid());
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, owner));
    /* A reader needs no lock and changes nothing. */
    memset(&seen, 0, sizeof(seen));
    FM_ASSERT_OK(
        fm_journal_open(dir, &read_only, on_record, &seen, &other, &err), &err);
    CU_ASSERT(seen.count == 3);
    CU_ASSERT(fm_journal_append(other, TYPE, "x", 1, NULL, &err) ==
              FM_ERR_UNSUPPORTED);
    fm_journal_close(other);
    fm_journal_close(journal);
    fm_journal_close(open_ok(dir, &seen)); /* the lock is free again */
    free(dir);
    dir = fresh_dir("nothing");
    CU_ASSERT(fm_journal_open(dir, &read_only, NULL, NULL, &other, &err) ==
              FM_ERR_NOT_FOUND);
    free(dir);
}

static void poisoned_by(const char *fault, fm_status_t expected)
{
    char *dir = fresh_dir("poison");
    struct seen seen;
    fm_error_t err = {0};
    fm_journal_t *journal = open_ok(dir, &seen);

    append_numbers(journal, 1, 5);
    flush_ok(journal);
    uint64_t durable = fm_journal_durable_seq(journal);
    append_numbers(journal, 6, 8);
    CU_ASSERT_FATAL(fm_fault_arm(fault));
    CU_ASSERT(fm_journal_flush(journal, &err) == expected);
    (void)fm_fault_arm(NULL);
    /* The fault is gone, the doubt is not. */
    CU_ASSERT(fm_journal_flush(journal, &err) == FM_ERR_IO);
    CU_ASSERT(fm_journal_append(journal, TYPE, "12345678", 8, NULL, &err) ==
              FM_ERR_IO);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "restart"));
    CU_ASSERT(fm_journal_rotate(journal, 1, "x", 1, &err) == FM_ERR_IO);
    CU_ASSERT(fm_journal_durable_seq(journal) == durable);
    CU_ASSERT(fm_journal_info(journal).poisoned);
    fm_journal_close(journal);
    fm_journal_close(open_ok(dir, &seen));
    CU_ASSERT(seen.count >= 5 && seen.in_order);
    free(dir);
}

static void test_poison(void)
{
    poisoned_by("journal.write:1", FM_ERR_FULL);
    poisoned_by("journal.fsync:1", FM_ERR_IO);
}

static void test_rotate(void)
{
    char *dir = fresh_dir("rotate");
    struct seen seen;
    fm_error_t err = {0};
    fm_journal_t *journal = open_ok(dir, &seen);

    append_numbers(journal, 1, 10);
    flush_ok(journal);
    uint64_t covers = fm_journal_durable_seq(journal) - 4; /* number 6 */
    append_numbers(journal, 11, 12);
    CU_ASSERT(fm_journal_rotate(journal, covers + 100, "x", 1, &err) ==
              FM_ERR_INVALID);
    FM_ASSERT_OK(fm_journal_rotate(journal, covers, "up to 6", 7, &err), &err);
    CU_ASSERT(fm_journal_info(journal).generation == 2);
    char *former = data_path(dir, 1);
    CU_ASSERT(access(former, F_OK) != 0);
    append_numbers(journal, 13, 14);
    flush_ok(journal);
    CU_ASSERT(fm_journal_rotate(journal, covers - 1, "x", 1, &err) ==
              FM_ERR_INVALID);
    fm_journal_close(journal);

    journal = open_ok(dir, &seen);
    CU_ASSERT(seen.snapshots == 1);
    CU_ASSERT_STRING_EQUAL(seen.snapshot, "up to 6");
    CU_ASSERT(seen.count == 8 && seen.in_order && seen.last_number == 14);
    CU_ASSERT(fm_journal_info(journal).instance == 2);
    FM_ASSERT_OK(fm_journal_rotate(journal, fm_journal_durable_seq(journal),
                                   "all", 3, &err),
                 &err);
    fm_journal_close(journal);
    journal = open_ok(dir, &seen);
    CU_ASSERT(seen.snapshots == 1 && seen.count == 0);
    CU_ASSERT_STRING_EQUAL(seen.snapshot, "all");
    CU_ASSERT(fm_journal_info(journal).instance == 3);
    fm_journal_close(journal);
    free(former);
    free(dir);
}

/* The snapshot was durable before the switch: no damage in it is "torn". */
static void test_flip_snapshot(void)
{
    char *dir = fresh_dir("flip-snapshot");
    struct seen seen;
    fm_error_t err = {0};
    fm_buf_t content = {0};
    fm_journal_t *journal = open_ok(dir, &seen);

    append_numbers(journal, 1, 4);
    flush_ok(journal);
    FM_ASSERT_OK(fm_journal_rotate(journal, fm_journal_durable_seq(journal),
                                   "state", 5, &err),
                 &err);
    char *path = data_path(dir, 2);
    FM_ASSERT_OK(fm_file_read(path, FILE_MAX_BYTES, &content, &err), &err);
    fm_journal_close(journal);
    for (size_t at = 0; at < content.len; at++) {
        content.data[at] ^= 1;
        write_file(path, content.data, content.len);
        content.data[at] ^= 1;
        CU_ASSERT(fm_journal_open(dir, NULL, on_record, &seen, &journal,
                                  &err) == FM_ERR_CORRUPT);
    }
    write_file(path, content.data, content.len - 1);
    CU_ASSERT(fm_journal_open(dir, NULL, on_record, &seen, &journal, &err) ==
              FM_ERR_CORRUPT);
    fm_buf_fini(&content);
    free(path);
    free(dir);
}

/* Fail each step of a rotation; what was durable stays, in either file. */
static void test_rotate_faults(void)
{
    static const struct {
        const char *fault;
        bool poisons;
    } cases[] = {{"journal.write:1", false}, {"journal.write:2", false},
                 {"journal.fsync:1", false}, {"journal.rename:1", false},
                 {"base.fsync:1", false},    {"base.write:1", false},
                 {"base.rename:1", false},   {"base.fsync:3", true}};

    for (size_t i = 0; i < FM_COUNT_OF(cases); i++) {
        char *dir = fresh_dir("rotate-faults");
        struct seen seen;
        fm_error_t err = {0};
        fm_journal_t *journal = open_ok(dir, &seen);
        append_numbers(journal, 1, 6);
        flush_ok(journal);
        CU_ASSERT_FATAL(fm_fault_arm(cases[i].fault));
        CU_ASSERT(fm_journal_rotate(journal, fm_journal_durable_seq(journal),
                                    "six", 3, &err) < 0);
        (void)fm_fault_arm(NULL);
        CU_ASSERT(fm_journal_info(journal).poisoned == cases[i].poisons);
        if (!cases[i].poisons) {
            append_numbers(journal, 7, 7);
            flush_ok(journal);
        }
        fm_journal_close(journal);
        fm_journal_close(open_ok(dir, &seen));
        CU_ASSERT(cases[i].poisons ? seen.snapshots == 1 && seen.count == 0
                                   : seen.snapshots == 0 && seen.count == 7);
        free(dir);
    }
}

/* In a child: append and flush for ever, telling the parent what is durable;
 * with @p rotate, compact after every 7th. */
static void writer_child(const char *dir, int report_fd, bool rotate)
{
    fm_error_t err = {0};
    fm_journal_t *journal = NULL;

    if (fm_journal_open(dir, NULL, NULL, NULL, &journal, &err) < 0) {
        _exit(3);
    }
    for (uint64_t i = 1;; i++) {
        if (fm_journal_append(journal, TYPE, &i, sizeof(i), NULL, &err) < 0 ||
            fm_journal_flush(journal, &err) < 0 ||
            write(report_fd, &i, sizeof(i)) != (ssize_t)sizeof(i)) {
            _exit(4);
        }
        if (rotate && i % 7 == 0 &&
            fm_journal_rotate(journal, fm_journal_durable_seq(journal), &i,
                              sizeof(i), &err) < 0) {
            _exit(5);
        }
    }
}

static void killed_writer(bool rotate, uint64_t kill_after)
{
    char *dir = fresh_dir("killed");
    int fds[2];
    uint64_t told = 0;
    uint64_t number = 0;
    int status = 0;
    struct seen seen;

    CU_ASSERT_FATAL(pipe(fds) == 0);
    pid_t child = fork();
    CU_ASSERT_FATAL(child >= 0);
    if (child == 0) {
        (void)close(fds[0]);
        writer_child(dir, fds[1], rotate);
    }
    (void)close(fds[1]);
    while (told < kill_after &&
           read(fds[0], &number, sizeof(number)) == (ssize_t)sizeof(number)) {
        told = number;
    }
    CU_ASSERT(kill(child, SIGKILL) == 0);
    while (read(fds[0], &number, sizeof(number)) == (ssize_t)sizeof(number)) {
        told = number;
    }
    (void)close(fds[0]);
    CU_ASSERT(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
    fm_journal_close(open_ok(dir, &seen));
    uint64_t last = seen.last_number;
    if (seen.snapshots > 0 && seen.count == 0) {
        memcpy(&last, seen.snapshot, sizeof(last));
    }
    CU_ASSERT(told >= kill_after);
    CU_ASSERT(last >= told && last <= told + 1);
    CU_ASSERT(rotate ? seen.snapshots == 1 : seen.count == last);
    free(dir);
}

static void test_kill(void)
{
    for (uint64_t i = 20; i < 26; i++) {
        killed_writer(false, i);
        killed_writer(true, i);
    }
}

struct flusher {
    fm_journal_t *journal;
    uint64_t target;
    fm_status_t status;
};

static void *flusher_main(void *arg)
{
    struct flusher *flusher = arg;
    fm_error_t err = {0};

    while (flusher->status >= 0 &&
           fm_journal_durable_seq(flusher->journal) < flusher->target) {
        flusher->status = fm_journal_flush(flusher->journal, &err);
    }
    return NULL;
}

/* Append here while another thread flushes. */
static void test_two_threads(void)
{
    char *dir = fresh_dir("threads");
    struct seen seen;
    fm_journal_t *journal = open_ok(dir, &seen);
    struct flusher flusher = {.journal = journal,
                              .target = fm_journal_durable_seq(journal) + 5000};
    pthread_t thread;

    CU_ASSERT_FATAL(pthread_create(&thread, NULL, flusher_main, &flusher) == 0);
    append_numbers(journal, 1, 5000);
    CU_ASSERT(pthread_join(thread, NULL) == 0);
    CU_ASSERT(flusher.status == FM_OK);
    fm_journal_close(journal);
    fm_journal_close(open_ok(dir, &seen));
    CU_ASSERT(seen.count == 5000 && seen.in_order);
    free(dir);
}

static void test_volatile(void)
{
    fm_error_t err = {0};
    fm_journal_t *journal = NULL;
    uint64_t seq = 0;

    FM_ASSERT_OK(fm_journal_open(NULL, NULL, NULL, NULL, &journal, &err), &err);
    FM_ASSERT_OK(fm_journal_append(journal, TYPE, "x", 1, &seq, &err), &err);
    CU_ASSERT(seq == 1 && fm_journal_durable_seq(journal) == 0);
    flush_ok(journal);
    CU_ASSERT(fm_journal_durable_seq(journal) == 1);
    FM_ASSERT_OK(fm_journal_rotate(journal, 1, "s", 1, &err), &err);
    fm_journal_close(journal);
}

static void test_manifest(void)
{
    char *dir = fresh_dir("manifest");
    struct seen seen;
    fm_error_t err = {0};
    fm_journal_t *journal = open_ok(dir, &seen);
    char *path = fm_asprintf("%s/manifest", dir);

    CU_ASSERT_PTR_NOT_NULL_FATAL(path);
    append_numbers(journal, 1, 2);
    flush_ok(journal);
    fm_journal_close(journal);
    write_file(path, (const uint8_t *)"flowmesh-journal 1\ngeneration 9x\n",
               33);
    CU_ASSERT(fm_journal_open(dir, NULL, NULL, NULL, &journal, &err) ==
              FM_ERR_CORRUPT);
    CU_ASSERT(unlink(path) == 0); /* records without a manifest */
    CU_ASSERT(fm_journal_open(dir, NULL, NULL, NULL, &journal, &err) ==
              FM_ERR_CORRUPT);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "journal-00000001.fmj"));
    free(path);
    free(dir);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"append, close, replay", test_append_replay},
        {"bounds of records and buffer", test_limits},
        {"cut at every byte", test_truncate_every_byte},
        {"a long torn tail", test_long_torn_tail},
        {"flip every byte", test_flip_every_byte},
        {"flip after a clean close", test_flip_after_clean_close},
        {"two writers, a reader", test_two_writers},
        {"fault: failed write and fsync", test_poison},
        {"rotation", test_rotate},
        {"flip every byte of a snapshot", test_flip_snapshot},
        {"fault: failures within a rotation", test_rotate_faults},
        {"kill -9 of a writer", test_kill},
        {"append while flushing", test_two_threads},
        {"volatile", test_volatile},
        {"bad and missing manifest", test_manifest},
    };
    fm_error_t err = {0};

    (void)snprintf(root, sizeof(root), "/tmp/fm-journal-%ld", (long)getpid());
    if (fm_file_make_dirs(root, 0700, &err) < 0) {
        (void)fprintf(stderr, "%s\n", err.text);
        return 2;
    }
    int rc = fm_test_main("store/journal", cases, FM_COUNT_OF(cases));
    if (fm_file_remove_tree(root, &err) < 0) {
        (void)fprintf(stderr, "%s\n", err.text);
        rc = rc ? rc : 2;
    }
    return rc;
}
