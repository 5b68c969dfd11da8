/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rates of the store beside raw I/O on the same disk in the same run: trust
 * the ratios.
 * usage: bench_cas [DIRECTORY [ROUNDS]]
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "store/cas/cas.h"

#define LARGE_BYTES ((size_t)64 << 20)
#define RAW_BYTES ((size_t)1 << 20) /* dd bs=1M */
#define SMALL_BYTES 1024
#define SMALL_COUNT 100000
#define ROUNDS_MAX 100

static fm_error_t err;

static void require(fm_status_t rc)
{
    if (rc < 0) {
        (void)fprintf(stderr, "bench_cas: %s\n", err.text);
        exit(1);
    }
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

static void drop_cache(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd >= 0) {
        (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        (void)close(fd);
    }
}

static double raw_write(const char *path, const uint8_t *bytes, size_t len)
{
    int64_t start = fm_clock_mono_ns();
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    if (fd < 0) {
        perror(path);
        exit(1);
    }
    for (size_t at = 0; at < len; at += RAW_BYTES) {
        require(fm_file_write_all(fd, bytes + at, RAW_BYTES, path, &err));
    }
    require(fm_file_fsync(fd, path, &err));
    (void)close(fd);
    return seconds_since(start);
}

static double raw_read(const char *path, uint8_t *bytes, size_t len)
{
    int64_t start = fm_clock_mono_ns();
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t done = 0;

    while (fd >= 0 && done < len) {
        ssize_t n = read(fd, bytes + done, RAW_BYTES);
        if (n <= 0) {
            perror(path);
            exit(1);
        }
        done += (size_t)n;
    }
    (void)close(fd);
    return seconds_since(start);
}

static int double_order(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static double median(double *values, size_t count)
{
    qsort(values, count, sizeof(*values), double_order);
    return values[count / 2];
}

static void show(const char *what, double raw_s, double cas_s)
{
    double mib = (double)LARGE_BYTES / (1 << 20);

    (void)printf("%-22s raw %7.0f MiB/s   cas %7.0f MiB/s   ratio %.2f\n", what,
                 mib / raw_s, mib / cas_s, raw_s / cas_s);
}

static void bench_large(fm_cas_t *cas, const char *dir, size_t rounds)
{
    double put[ROUNDS_MAX], get[ROUNDS_MAX], hot[ROUNDS_MAX];
    double write_s[ROUNDS_MAX], read_s[ROUNDS_MAX], hot_s[ROUNDS_MAX];
    uint8_t *bytes = fm_malloc(LARGE_BYTES);
    fm_rng_t rng;

    if (!bytes) {
        exit(1);
    }
    fm_rng_init(&rng, (uint64_t)fm_clock_wall_ns());
    for (size_t i = 0; i < rounds; i++) {
        fm_digest_t digest;
        fm_cas_locator_t locator;
        size_t len = 0;
        /* A new file each time, as a segment is: rewriting one would find its
         * pages in memory. */
        char *path = fm_asprintf("%s/raw-%zu", dir, i);
        if (!path) {
            exit(1);
        }
        fill(&rng, bytes, LARGE_BYTES);
        write_s[i] = raw_write(path, bytes, LARGE_BYTES);
        int64_t start = fm_clock_mono_ns();
        require(
            fm_cas_put(cas, FM_CAS_BLOB, bytes, LARGE_BYTES, &digest, &err));
        require(fm_cas_seal(cas, &err));
        put[i] = seconds_since(start);
        if (!fm_cas_locate(cas, &digest, &locator)) {
            exit(1);
        }
        char *segment = fm_asprintf("%s/segments/%s", dir, locator.segment);
        drop_cache(path);
        read_s[i] = raw_read(path, bytes, LARGE_BYTES);
        hot_s[i] = raw_read(path, bytes, LARGE_BYTES);
        drop_cache(segment);
        start = fm_clock_mono_ns();
        require(fm_cas_read(cas, &digest, bytes, LARGE_BYTES, &len, &err));
        get[i] = seconds_since(start);
        start = fm_clock_mono_ns();
        require(fm_cas_read(cas, &digest, bytes, LARGE_BYTES, &len, &err));
        hot[i] = seconds_since(start);
        free(segment);
        free(path);
    }
    show("put 64 MiB + seal", median(write_s, rounds), median(put, rounds));
    show("get 64 MiB, cold", median(read_s, rounds), median(get, rounds));
    show("get 64 MiB, cached", median(hot_s, rounds), median(hot, rounds));
    free(bytes);
}

static void bench_small(fm_cas_t *cas)
{
    fm_digest_t *digests = fm_calloc(SMALL_COUNT, sizeof(*digests));
    uint8_t bytes[SMALL_BYTES];
    fm_rng_t rng;

    if (!digests) {
        exit(1);
    }
    fm_rng_init(&rng, (uint64_t)fm_clock_wall_ns());
    fill(&rng, bytes, sizeof(bytes));
    int64_t start = fm_clock_mono_ns();
    for (uint32_t i = 0; i < SMALL_COUNT; i++) {
        memcpy(bytes, &i, sizeof(i));
        require(fm_cas_put(cas, FM_CAS_ITEM, bytes, sizeof(bytes), &digests[i],
                           &err));
    }
    require(fm_cas_seal(cas, &err));
    double put_s = seconds_since(start);
    start = fm_clock_mono_ns();
    for (uint32_t i = 0; i < SMALL_COUNT; i++) {
        size_t len = 0;
        require(fm_cas_read(cas, &digests[(uint64_t)i * 7919 % SMALL_COUNT],
                            bytes, sizeof(bytes), &len, &err));
    }
    double get_s = seconds_since(start);
    (void)printf("%-22s put+seal %8.0f /s   get %8.0f /s\n", "1 KiB objects",
                 SMALL_COUNT / put_s, SMALL_COUNT / get_s);
    free(digests);
}

static void bench_open(const char *dir)
{
    fm_cas_t *cas = NULL;
    fm_cas_stat_t stat;
    int64_t start = fm_clock_mono_ns();

    require(fm_cas_open(dir, NULL, &cas, &err));
    double open_s = seconds_since(start);
    require(fm_cas_stat(cas, &stat, &err));
    (void)printf("%-22s %.1f ms for %" PRIu64 " objects in %" PRIu64
                 " segments\n",
                 "open", open_s * 1e3, stat.object_count, stat.segment_count);
    fm_cas_close(cas);
}

int main(int argc, char **argv)
{
    char *dir = fm_asprintf("%s/bench-cas-%ld", argc > 1 ? argv[1] : "/tmp",
                            (long)getpid());
    size_t rounds = argc > 2 ? strtoull(argv[2], NULL, 10) : 5;
    fm_cas_options_t opts = {.writer = "bench"};
    fm_cas_t *cas = NULL;

    if (!dir || rounds < 1 || rounds > ROUNDS_MAX) {
        (void)fprintf(stderr, "usage: bench_cas [DIRECTORY [ROUNDS]]\n");
        return 2;
    }
    require(fm_cas_open(dir, &opts, &cas, &err));
    bench_small(cas);
    bench_open(dir);
    bench_large(cas, dir, rounds);
    fm_cas_close(cas);
    require(fm_file_remove_tree(dir, &err));
    free(dir);
    return 0;
}
