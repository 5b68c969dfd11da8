/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rates of the store beside what dd, cat and openssl do with the same bytes
 * on the same disk, in the same rounds and in turns.  The peers are real
 * child processes: their start and their copies are part of what a user sees.
 * usage: bench_cas [DIRECTORY [ROUNDS]]
 */
#include <fcntl.h>
#include <inttypes.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "report/report.h"
#include "store/cas/cas.h"

#define LARGE_BYTES ((size_t)64 << 20)
#define SMALL_BYTES 1024
#define SMALL_COUNT 100000
#define SMALL_ROUNDS 3
#define ROUNDS 9
#define CHILD_WORDS_MAX 8
#define MIB ((double)(1 << 20))

extern char **environ;

static fm_error_t err;
static char *store_dir; /* removed at the end, however it comes */

static void require(fm_status_t rc)
{
    if (rc < 0) {
        (void)fprintf(stderr, "bench_cas: %s\n", err.text);
        exit(1);
    }
}

static void *must(void *pointer)
{
    if (!pointer) {
        require(fm_no_memory(&err));
    }
    return pointer;
}

static void fill(fm_rng_t *rng, uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i + 8 <= len; i += 8) {
        uint64_t word = fm_rng_u64(rng);
        memcpy(bytes + i, &word, 8);
    }
}

static double seconds_since(int64_t start)
{
    return (double)(fm_clock_mono_ns() - start) / (double)FM_NS_PER_S;
}

/* MiB/s of a large object since @p start. */
static double rate_since(int64_t start)
{
    return (double)LARGE_BYTES / MIB / seconds_since(start);
}

static void drop_cache(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd >= 0) {
        (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        (void)close(fd);
    }
}

/* Run a program to its end, its output into /dev/null or kept.  @p words end
 * with NULL.  False when it cannot be run, or fails. */
static bool child_run(const char *const words[], bool quiet)
{
    posix_spawn_file_actions_t actions;
    char *argv[CHILD_WORDS_MAX + 1] = {NULL};
    pid_t pid = -1;
    int status = -1;

    for (size_t i = 0; words[i] && i < CHILD_WORDS_MAX; i++) {
        argv[i] = must(fm_strdup(words[i]));
    }
    (void)posix_spawn_file_actions_init(&actions);
    if (quiet) {
        (void)posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO,
                                               "/dev/null", O_WRONLY, 0);
    }
    int rc = posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);
    (void)posix_spawn_file_actions_destroy(&actions);
    bool ok = rc == 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
              WEXITSTATUS(status) == 0;
    for (size_t i = 0; argv[i]; i++) {
        free(argv[i]);
    }
    return ok;
}

/* MiB/s of a program that goes through a large object. */
static double child_rate(const char *const words[])
{
    int64_t start = fm_clock_mono_ns();

    if (!child_run(words, true)) {
        (void)fprintf(stderr, "bench_cas: %s failed\n", words[0]);
        exit(1);
    }
    return rate_since(start);
}

/* --- large objects ------------------------------------------------------- */

struct large {
    const char *dir;
    fm_cas_t *cas;
    uint8_t *bytes; /* of the round's object */
    uint8_t *back;  /* what was read, once touched: no page faults of ours */
    char *source;   /* holds bytes, in the page cache: what dd copies */
    char *copy;     /* what dd wrote */
    char *segment;  /* what the store wrote */
    bool has_openssl;
    fm_digest_t digest;
    fm_bench_series_t put, dd;
    fm_bench_series_t cold, cat_cold;
    fm_bench_series_t cached, cat_cached, digest_cached;
};

static double put_rate(struct large *l)
{
    fm_cas_locator_t locator;
    int64_t start = fm_clock_mono_ns();

    require(fm_cas_put(l->cas, FM_CAS_BLOB, l->bytes, LARGE_BYTES, &l->digest,
                       &err));
    require(fm_cas_seal(l->cas, &err));
    double rate = rate_since(start);
    if (!fm_cas_locate(l->cas, &l->digest, &locator)) {
        exit(1);
    }
    l->segment = must(fm_asprintf("%s/segments/%s", l->dir, locator.segment));
    return rate;
}

static double dd_rate(const struct large *l)
{
    char *in = must(fm_asprintf("if=%s", l->source));
    char *out = must(fm_asprintf("of=%s", l->copy));
    const char *const words[] = {"dd",          in,  out, "bs=1M", "conv=fsync",
                                 "status=none", NULL};
    double rate = child_rate(words);

    free(in);
    free(out);
    return rate;
}

static double get_rate(struct large *l)
{
    size_t len = 0;
    int64_t start = fm_clock_mono_ns();

    require(fm_cas_read(l->cas, &l->digest, l->back, LARGE_BYTES, &len, &err));
    double rate = rate_since(start);
    if (len != LARGE_BYTES || memcmp(l->back, l->bytes, LARGE_BYTES) != 0) {
        (void)fprintf(stderr, "bench_cas: other bytes came back\n");
        exit(1);
    }
    return rate;
}

static double cat_rate(const struct large *l)
{
    const char *const words[] = {"cat", l->copy, NULL};

    return child_rate(words);
}

static double digest_rate(const struct large *l)
{
    const char *const words[] = {"openssl", "dgst", "-sha256", l->copy, NULL};

    return child_rate(words);
}

/* The same bytes through the store and through its peers; odd rounds have the
 * peer first.  Round 0 warms up and does not count. */
static void large_round(struct large *l, size_t round)
{
    bool ours_first = round % 2 == 0;
    fm_bench_series_t warm_up[7] = {{{0}, 0}};
    fm_bench_series_t *into[] = {&l->put,          &l->dd,     &l->cold,
                                 &l->cat_cold,     &l->cached, &l->cat_cached,
                                 &l->digest_cached};

    for (size_t i = 0; round == 0 && i < FM_COUNT_OF(into); i++) {
        into[i] = &warm_up[i];
    }
    for (int turn = 0; turn < 2; turn++) {
        bool ours = (turn == 0) == ours_first;
        fm_bench_add(into[ours ? 0 : 1], ours ? put_rate(l) : dd_rate(l));
    }
    drop_cache(l->segment);
    drop_cache(l->copy);
    for (int turn = 0; turn < 2; turn++) {
        bool ours = (turn == 0) == ours_first;
        fm_bench_add(into[ours ? 2 : 3], ours ? get_rate(l) : cat_rate(l));
    }
    for (int turn = 0; turn < 2; turn++) {
        bool ours = (turn == 0) == ours_first;
        fm_bench_add(into[ours ? 4 : 5], ours ? get_rate(l) : cat_rate(l));
    }
    if (l->has_openssl) {
        fm_bench_add(into[6], digest_rate(l));
    }
}

static void large_print(const struct large *l)
{
    fm_bench_print("cas.put_64MiB", &l->put, "MiB/s", FM_BENCH_MORE,
                   &(fm_bench_peer_t){"dd_fsync", &l->dd});
    fm_bench_print("cas.get_64MiB_cold", &l->cold, "MiB/s", FM_BENCH_MORE,
                   &(fm_bench_peer_t){"cat", &l->cat_cold});
    fm_bench_print("cas.get_64MiB_cached", &l->cached, "MiB/s", FM_BENCH_MORE,
                   &(fm_bench_peer_t){"cat", &l->cat_cached});
    if (l->has_openssl) {
        fm_bench_print("cas.get_64MiB_cached", &l->cached, "MiB/s",
                       FM_BENCH_MORE,
                       &(fm_bench_peer_t){"openssl_sha256", &l->digest_cached});
    } else {
        fm_bench_skip("cas.get_64MiB_cached",
                      "no openssl to compare with: apt-get install openssl");
    }
}

static void bench_large(fm_cas_t *cas, const char *dir, size_t rounds)
{
    const char *const words[] = {"openssl", "version", NULL};
    struct large l = {.dir = dir, .cas = cas};
    fm_rng_t rng;

    l.has_openssl = child_run(words, true);
    l.bytes = must(fm_malloc(LARGE_BYTES));
    l.back = must(fm_malloc(LARGE_BYTES));
    l.source = must(fm_asprintf("%s/source", dir));
    memset(l.back, 1, LARGE_BYTES);
    fm_rng_init(&rng, (uint64_t)fm_clock_wall_ns());
    for (size_t i = 0; i <= rounds; i++) {
        fill(&rng, l.bytes, LARGE_BYTES);
        require(fm_file_replace(l.source, l.bytes, LARGE_BYTES, &err));
        /* A new file each time, as a segment is: rewriting one would find its
         * pages in memory. */
        l.copy = must(fm_asprintf("%s/copy-%zu", dir, i));
        large_round(&l, i);
        (void)unlink(l.copy);
        free(l.copy);
        free(l.segment);
    }
    large_print(&l);
    free(l.source);
    free(l.bytes);
    free(l.back);
}

/* --- small objects ------------------------------------------------------- */

static void small_round(fm_cas_t *cas, fm_digest_t *digests,
                        fm_bench_series_t *put, fm_bench_series_t *get)
{
    uint8_t bytes[SMALL_BYTES];
    fm_rng_t rng;

    fm_rng_init(&rng, (uint64_t)fm_clock_wall_ns());
    fill(&rng, bytes, sizeof(bytes));
    int64_t start = fm_clock_mono_ns();
    for (uint32_t i = 0; i < SMALL_COUNT; i++) {
        memcpy(bytes, &i, sizeof(i));
        require(fm_cas_put(cas, FM_CAS_ITEM, bytes, sizeof(bytes), &digests[i],
                           &err));
    }
    require(fm_cas_seal(cas, &err));
    fm_bench_add(put, SMALL_COUNT / seconds_since(start));
    start = fm_clock_mono_ns();
    for (uint32_t i = 0; i < SMALL_COUNT; i++) {
        size_t len = 0;
        require(fm_cas_read(cas, &digests[(uint64_t)i * 7919 % SMALL_COUNT],
                            bytes, sizeof(bytes), &len, &err));
    }
    fm_bench_add(get, SMALL_COUNT / seconds_since(start));
}

static void bench_open(const char *dir)
{
    fm_bench_series_t series = {0};

    for (int i = 0; i <= SMALL_ROUNDS; i++) {
        fm_cas_t *cas = NULL;
        fm_cas_stat_t stat;
        int64_t start = fm_clock_mono_ns();
        require(fm_cas_open(dir, NULL, &cas, &err));
        double open_s = seconds_since(start);
        require(fm_cas_stat(cas, &stat, &err));
        fm_cas_close(cas);
        if (i > 0) { /* 0 warms up */
            fm_bench_add(&series, open_s * 1e9 / (double)stat.object_count);
        }
    }
    fm_bench_print("cas.open", &series, "ns/object", FM_BENCH_LESS, NULL);
}

static void bench_small(fm_cas_t *cas, const char *dir)
{
    fm_digest_t *digests = must(fm_calloc(SMALL_COUNT, sizeof(*digests)));
    fm_bench_series_t put = {0}, get = {0};

    for (int i = 0; i < SMALL_ROUNDS; i++) {
        small_round(cas, digests, &put, &get);
    }
    fm_bench_print("cas.put_1KiB", &put, "objects/s", FM_BENCH_MORE, NULL);
    fm_bench_print("cas.get_1KiB_cached", &get, "objects/s", FM_BENCH_MORE,
                   NULL);
    bench_open(dir);
    free(digests);
}

static void store_remove(void)
{
    if (fm_file_remove_tree(store_dir, &err) < 0) {
        (void)fprintf(stderr, "bench_cas: %s\n", err.text);
    }
    free(store_dir);
}

int main(int argc, char **argv)
{
    const char *temp = getenv("TMPDIR");
    const char *base = argc > 1 ? argv[1] : temp ? temp : "/tmp";
    size_t rounds = argc > 2 ? strtoull(argv[2], NULL, 10) : ROUNDS;
    fm_cas_options_t opts = {.writer = "bench"};
    fm_cas_t *cas = NULL;

    if (argc > 3 || rounds < 1 || rounds > FM_BENCH_ROUNDS_MAX) {
        (void)fprintf(stderr, "usage: bench_cas [DIRECTORY [ROUNDS]]\n");
        return 2;
    }
    store_dir = must(fm_asprintf("%s/bench-cas-%ld", base, (long)getpid()));
    (void)atexit(store_remove);
    require(fm_cas_open(store_dir, &opts, &cas, &err));
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    const char *const where[] = {"stat",    "-f", "-c", "store in %n on %T",
                                 store_dir, NULL};
    (void)child_run(where, false);
    (void)printf("put: until it is durable, fsync for both sides; cold: out "
                 "of the page cache;\nget: into memory, its SHA-256 verified; "
                 "cat: to /dev/null\n");
    bench_small(cas, store_dir);
    bench_large(cas, store_dir, rounds);
    fm_cas_close(cas);
    return 0;
}
