/* SPDX-License-Identifier: Apache-2.0 */
/* store/cas when the system refuses: every fault point, no memory, a full
 * disk, a kill at any moment. */
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "base/fault.h"
#include "test_cas_util.h"

#define SKIP 77

/* After a failed seal nothing is lost, and the next one publishes it all. */
static void test_failed_seal(void)
{
    static const char *const points[] = {
        "cas.flush:1", "base.write:1", "base.write:2", "base.write:3",
        "cas.fsync:1", "cas.rename:1", "base.fsync:1"};
    fm_error_t err = {0};
    fm_cas_stat_t stat;
    char *dir = scratch_make();
    fm_cas_t *cas = store_open(dir, "f-1");

    for (uint64_t i = 0; i < FM_COUNT_OF(points); i++) {
        fm_digest_t small = put_seeded(cas, 2 * i, 500);
        fm_digest_t large = put_seeded(cas, 2 * i + 1, 80000);
        CU_ASSERT_FATAL(fm_fault_arm(points[i]));
        fm_status_t rc = fm_cas_seal(cas, &err);
        CU_ASSERT(rc == FM_ERR_IO || rc == FM_ERR_FULL);
        CU_ASSERT(strncmp(err.text, "seal 2 objects", 14) == 0);
        CU_ASSERT(fm_fault_arm(NULL));
        fm_cas_t *other = store_open(dir, NULL);
        CU_ASSERT(!fm_cas_has(other, &small));
        FM_ASSERT_OK(fm_cas_stat(other, &stat, &err), &err);
        CU_ASSERT(stat.segment_count == i && stat.torn_count == 0);
        CU_ASSERT(get_seeded(cas, &large, 2 * i + 1, 80000));
        FM_ASSERT_OK(fm_cas_seal(cas, &err), &err);
        CU_ASSERT(get_seeded(other, &small, 2 * i, 500));
        CU_ASSERT(get_seeded(other, &large, 2 * i + 1, 80000));
        fm_cas_close(other);
    }
    fm_cas_close(cas);
    scratch_remove(dir);
}

/* A large object is read without the thread that would read ahead. */
static void test_no_thread(void)
{
    const size_t len = (4 << 20) + 3;
    fm_error_t err = {0};
    char *dir = scratch_make();
    fm_cas_t *cas = store_open(dir, "f-1");
    fm_digest_t digest = put_seeded(cas, 1, len);

    FM_ASSERT_OK(fm_cas_seal(cas, &err), &err);
    CU_ASSERT_FATAL(fm_fault_arm("cas.thread:1"));
    CU_ASSERT(get_seeded(cas, &digest, 1, len));
    CU_ASSERT(!fm_fault("cas.thread")); /* the second hit, not the first */
    CU_ASSERT(fm_fault_arm(NULL));
    fm_cas_close(cas);
    scratch_remove(dir);
}

/* An object that seals by itself: refused, and what was pending stays. */
static void test_failed_put(void)
{
    fm_error_t err = {0};
    fm_cas_options_t opts = {.writer = "f-1", .seal_bytes = 4096};
    fm_digest_t digest = {{0}};
    fm_digest_t expected;
    fm_cas_t *cas = NULL;
    char *dir = scratch_make();
    uint8_t *bytes = bytes_make(2, 5000);

    FM_ASSERT_OK(fm_cas_open(dir, &opts, &cas, &err), &err);
    fm_digest_t first = put_seeded(cas, 1, 1000);
    CU_ASSERT_FATAL(fm_fault_arm("base.write:1"));
    CU_ASSERT(fm_cas_put(cas, FM_CAS_BLOB, bytes, 5000, &digest, &err) ==
              FM_ERR_FULL);
    CU_ASSERT(fm_fault_arm(NULL));
    expected = fm_sha256(bytes, 5000);
    CU_ASSERT(fm_digest_is_zero(&digest) && !fm_cas_has(cas, &expected));
    CU_ASSERT(get_seeded(cas, &first, 1, 1000));
    FM_ASSERT_OK(fm_cas_put(cas, FM_CAS_BLOB, bytes, 5000, &digest, &err),
                 &err);
    fm_cas_locator_t locator;
    CU_ASSERT(fm_cas_locate(cas, &first, &locator)); /* sealed along */
    CU_ASSERT(get_seeded(cas, &digest, 2, 5000));
    free(bytes);
    fm_cas_close(cas);
    scratch_remove(dir);
}

/* One run of everything with the nth allocation failing; true when it went
 * through, so every earlier n has been refused cleanly. */
static bool run_without_memory(const char *dir, int nth)
{
    fm_error_t err = {0};
    fm_cas_t *cas = NULL;
    fm_buf_t out = {0};
    fm_digest_t digest;
    fm_cas_verify_result_t result;
    const uint64_t shape[1] = {100};
    char writer[32];
    char spec[32];
    uint8_t *bytes = bytes_make((uint64_t)nth + 1000, 70000);

    (void)snprintf(writer, sizeof(writer), "m-%d", nth);
    (void)snprintf(spec, sizeof(spec), "base.alloc:%d", nth);
    fm_cas_options_t opts = {.writer = writer};
    CU_ASSERT_FATAL(fm_fault_arm(spec));
    fm_status_t rc = fm_cas_open(dir, &opts, &cas, &err);
    if (rc >= 0) {
        rc = fm_cas_put(cas, FM_CAS_ITEM, bytes, 100, &digest, &err);
    }
    if (rc >= 0) {
        rc = fm_cas_put(cas, FM_CAS_BLOB, bytes, 70000, &digest, &err);
    }
    if (rc >= 0) {
        rc = fm_cas_put_tensor(cas, FM_CAS_F32, shape, 1, bytes + 7, &digest,
                               &err);
    }
    if (rc >= 0) {
        rc = fm_cas_seal(cas, &err);
    }
    if (rc >= 0) {
        rc = fm_cas_get(cas, &digest, &out, &err);
    }
    if (rc >= 0) {
        rc = fm_cas_verify(cas, false, NULL, NULL, &result, &err);
    }
    CU_ASSERT(fm_fault_arm(NULL));
    CU_ASSERT(rc >= 0 || err.text[0] != '\0');
    fm_buf_fini(&out);
    free(bytes);
    fm_cas_close(cas);
    return rc >= 0;
}

static void show_bad(void *ctx, const fm_cas_bad_t *bad)
{
    (void)ctx;
    (void)fprintf(stderr, "%s: %s\n", bad->segment, bad->reason);
}

/* Whatever was refused, what was sealed is whole. */
static void test_no_memory(void)
{
    fm_error_t err = {0};
    fm_cas_verify_result_t result;
    bool through = false;
    int nth = 0;

    while (!through && nth < 500) {
        char *dir = scratch_make();
        fm_cas_close(store_open(dir, "m-0"));
        through = run_without_memory(dir, ++nth);
        fm_cas_t *cas = store_open(dir, NULL);
        FM_ASSERT_OK(fm_cas_verify(cas, false, show_bad, NULL, &result, &err),
                     &err);
        CU_ASSERT(result.bad_object_count + result.bad_segment_count == 0);
        fm_cas_close(cas);
        scratch_remove(dir);
    }
    CU_ASSERT(through && nth > 20);
}

/* Puts and seals until killed; each seal's objects go to the pipe after it. */
static void child_run(const char *dir, int fd, uint64_t round)
{
    fm_error_t err = {0};
    fm_cas_t *cas = NULL;
    char writer[32];

    (void)snprintf(writer, sizeof(writer), "k-%d", (int)(round % 4));
    fm_cas_options_t opts = {.writer = writer};
    if (fm_cas_open(dir, &opts, &cas, &err) < 0) {
        _exit(3);
    }
    for (uint64_t i = 0;; i++) {
        uint64_t seeds[4];
        for (uint64_t k = 0; k < 4; k++) {
            size_t len = k == 3 ? 100000 : 1000;
            fm_digest_t digest;
            seeds[k] = round << 32 | i << 2 | k;
            uint8_t *bytes = bytes_make(seeds[k], len);
            if (fm_cas_put(cas, FM_CAS_BLOB, bytes, len, &digest, &err) < 0) {
                _exit(4);
            }
            free(bytes);
        }
        if (fm_cas_seal(cas, &err) < 0 ||
            write(fd, seeds, sizeof(seeds)) != (ssize_t)sizeof(seeds)) {
            _exit(5);
        }
    }
}

static void check_reported(fm_cas_t *cas, int fd, size_t *count)
{
    uint64_t seed = 0;

    while (read(fd, &seed, sizeof(seed)) == (ssize_t)sizeof(seed)) {
        size_t len = seed % 4 == 3 ? 100000 : 1000;
        uint8_t *bytes = bytes_make(seed, len);
        fm_digest_t digest = fm_sha256(bytes, len);
        free(bytes);
        CU_ASSERT(get_seeded(cas, &digest, seed, len));
        (*count)++;
    }
}

static void test_kill(void)
{
    char *dir = scratch_make();
    fm_error_t err = {0};
    fm_cas_verify_result_t result;
    fm_rng_t rng;
    size_t reported = 0;

    fm_rng_init(&rng, 7);
    fm_cas_close(store_open(dir, "k-0"));
    for (uint64_t round = 0; round < 16; round++) {
        int fds[2];
        CU_ASSERT_FATAL(pipe(fds) == 0);
        pid_t child = fork();
        CU_ASSERT_FATAL(child >= 0);
        if (child == 0) {
            (void)close(fds[0]);
            child_run(dir, fds[1], round);
        }
        (void)close(fds[1]);
        /* Wait for one report, then for a random moment of the next ones. */
        uint64_t seeds[4];
        CU_ASSERT_FATAL(read(fds[0], seeds, sizeof(seeds)) ==
                        (ssize_t)sizeof(seeds));
        (void)usleep((useconds_t)fm_rng_below(&rng, 20000));
        CU_ASSERT(kill(child, SIGKILL) == 0);
        int status = 0;
        CU_ASSERT(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
        fm_cas_t *cas = store_open(dir, NULL);
        check_reported(cas, fds[0], &reported);
        (void)close(fds[0]);
        fm_cas_close(cas);
    }
    CU_ASSERT(reported > 0);
    fm_cas_t *cas = store_open(dir, "k-0");
    FM_ASSERT_OK(fm_cas_verify(cas, false, NULL, NULL, &result, &err), &err);
    CU_ASSERT(result.bad_object_count + result.bad_segment_count == 0);
    CU_ASSERT(result.object_count >= reported);
    fm_cas_close(cas);
    scratch_remove(dir);
}

static char *full_dir; /* a mounted 2 MiB filesystem */

static void test_full_disk(void)
{
    fm_error_t err = {0};
    fm_digest_t digests[40];
    size_t sealed = 0;
    fm_status_t rc = FM_OK;
    fm_cas_t *cas = store_open(full_dir, "f-1");

    while (rc >= 0 && sealed < FM_COUNT_OF(digests)) {
        digests[sealed] = put_seeded(cas, sealed, 150000);
        rc = fm_cas_seal(cas, &err);
        sealed += rc >= 0 ? 1 : 0;
    }
    CU_ASSERT(rc == FM_ERR_FULL);
    CU_ASSERT(strstr(err.text, "No space left") != NULL);
    CU_ASSERT(sealed > 5 && sealed < FM_COUNT_OF(digests));
    CU_ASSERT(fm_cas_seal(cas, &err) == FM_ERR_FULL); /* still */
    fm_cas_stat_t stat;
    FM_ASSERT_OK(fm_cas_stat(cas, &stat, &err), &err);
    CU_ASSERT(stat.pending_count == 1 && stat.torn_count == 0);
    for (size_t i = 0; i <= sealed; i++) {
        CU_ASSERT(get_seeded(cas, &digests[i], i, 150000));
    }
    /* Room again: the pending object is published, nothing was lost. */
    fm_cas_t *other = store_open(full_dir, NULL);
    char *path = fm_asprintf("%s/segments/f-1-0.h5", full_dir);
    CU_ASSERT(path && unlink(path) == 0);
    free(path);
    fm_cas_close(other);
    fm_cas_close(cas);
    cas = store_open(full_dir, "f-1");
    digests[sealed] = put_seeded(cas, sealed, 150000);
    FM_ASSERT_OK(fm_cas_seal(cas, &err), &err);
    fm_cas_close(cas);
    cas = store_open(full_dir, NULL);
    for (size_t i = 1; i <= sealed; i++) {
        CU_ASSERT(get_seeded(cas, &digests[i], i, 150000));
    }
    fm_cas_close(cas);
}

static int run_on_full_disk(void)
{
    static const fm_test_case_t cases[] = {
        {"a full disk loses nothing", test_full_disk}};
    char path[] = "/tmp/fm-cas-full-XXXXXX";

    if (!mkdtemp(path)) {
        return 2;
    }
    if (mount("tmpfs", path, "tmpfs", 0, "size=2m") != 0) {
        perror("SKIPPED: mounting a small tmpfs needs root");
        (void)rmdir(path);
        return SKIP;
    }
    full_dir = path;
    int rc = fm_test_main("store/cas full disk", cases, FM_COUNT_OF(cases));
    if (umount2(path, MNT_DETACH) != 0 || rmdir(path) != 0) {
        perror("unmount");
        rc = 1;
    }
    return rc;
}

int main(int argc, char **argv)
{
    static const fm_test_case_t cases[] = {
        {"a failed seal at every step", test_failed_seal},
        {"a failed put", test_failed_put},
        {"no thread to read ahead", test_no_thread},
        {"no memory, at every allocation", test_no_memory},
        {"killed at any moment", test_kill},
    };

    if (argc > 1 && strcmp(argv[1], "full") == 0) {
        return run_on_full_disk();
    }
    if (!fm_fault_arm("cas.flush:1") || !fm_fault_arm(NULL)) {
        (void)fprintf(stderr, "SKIPPED: built without FM_FAULTS\n");
        return SKIP;
    }
    return fm_test_main("store/cas faults", cases, FM_COUNT_OF(cases));
}
