/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Near duplicates: texts a second through MinHash and banding, ours verifying
 * each candidate by its shingles, next to datasketch, which does not, on the
 * same texts.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "report/report.h"
#include "run/ops/data/near.h"

#define TEXTS 4000u
#define WORDS 120u
#define VOCABULARY 20000u
#define ROUNDS 5

/* The first round warms up. */
static bool counts(int round)
{
    return round > 0;
}

/* Every fourth text is one before it with a word changed. */
static char *text_make(fm_rng_t *rng, char *const *texts, size_t index)
{
    fm_buf_t text = {0};
    const char *before =
        index % 4 == 3 ? texts[fm_rng_below(rng, index)] : NULL;

    if (before) {
        fm_buf_add_str(&text, before);
        fm_buf_printf(&text, " w%u", (unsigned)fm_rng_below(rng, VOCABULARY));
    }
    for (unsigned i = 0; !before && i < WORDS; i++) {
        fm_buf_printf(&text, "%sw%u", i ? " " : "",
                      (unsigned)fm_rng_below(rng, VOCABULARY));
    }
    char *copy = fm_strdup(fm_buf_cstr(&text));
    fm_buf_fini(&text);
    if (!copy) {
        (void)fputs("bench_data: out of memory\n", stderr);
        exit(1);
    }
    return copy;
}

static double ours(char *const *texts, size_t *kept_out)
{
    const fm_ops_near_options_t options = {.threshold = 0.8,
                                           .ngram = 5,
                                           .permutations = 128,
                                           .lowercase = true,
                                           .exact = true};
    fm_ops_near_t *near = NULL;
    fm_error_t err = {0};
    int64_t start = fm_clock_cpu_ns();

    if (fm_ops_near_create(&options, &near, &err) < 0) {
        (void)fprintf(stderr, "bench_data: %s\n", err.text);
        exit(1);
    }
    *kept_out = 0;
    for (uint32_t i = 0; i < TEXTS; i++) {
        fm_ops_near_verdict_t verdict = {0};
        if (fm_ops_near_add(near, i, texts[i], strlen(texts[i]), &verdict,
                            &err) < 0) {
            (void)fprintf(stderr, "bench_data: %s\n", err.text);
            exit(1);
        }
        *kept_out += !verdict.duplicate;
    }
    fm_ops_near_destroy(near);
    return TEXTS / ((double)(fm_clock_cpu_ns() - start) / 1e9);
}

/* Texts a CPU second of the peer, which reads them from a file; 0: no peer. */
static double theirs(const char *path, size_t *kept_out)
{
    const char *python = getenv("FM_DATASKETCH_PYTHON");
    char *command = fm_asprintf("%s %s %s", python ? python : "python3",
                                FM_BENCH_PEER, path);
    FILE *peer = command ? popen(command, "r") : NULL;
    char line[128] = "", *end = line;
    double rate = 0;

    if (peer && fgets(line, sizeof(line), peer)) {
        rate = strtod(line, &end);
        *kept_out = strtoul(end, NULL, 10);
    }
    if (peer) {
        (void)pclose(peer);
    }
    free(command);
    return rate;
}

int main(void)
{
    static char *texts[TEXTS];
    fm_bench_series_t mine = {0}, peers = {0};
    const fm_bench_peer_t peer = {"datasketch", &peers};
    char path[] = "/tmp/bench_data_XXXXXX";
    size_t kept = 0, peer_kept = 0;
    bool with_peer = true;
    int fd = mkstemp(path);
    FILE *file = fd >= 0 ? fdopen(fd, "w") : NULL;
    fm_rng_t rng;

    if (!file) {
        (void)fputs("bench_data: no temporary file\n", stderr);
        return 1;
    }
    fm_rng_init(&rng, 1);
    for (size_t i = 0; i < TEXTS; i++) {
        texts[i] = text_make(&rng, texts, i);
        (void)fprintf(file, "%s\n", texts[i]);
    }
    (void)fclose(file);
    for (int round = 0; round <= ROUNDS; round++) {
        double rate = ours(texts, &kept);
        double other = with_peer ? theirs(path, &peer_kept) : 0;
        with_peer = other > 0;
        if (counts(round)) {
            fm_bench_add(&mine, rate);
            fm_bench_add(&peers, other);
        }
    }
    (void)remove(path);
    (void)printf("%u texts of %u words, 128 permutations, threshold 0.8: %zu "
                 "kept, by datasketch %zu\n",
                 TEXTS, WORDS, kept, peer_kept);
    fm_bench_print("data.dedup_minhash", &mine, "texts/s", FM_BENCH_MORE,
                   with_peer ? &peer : NULL);
    if (!with_peer) {
        fm_bench_skip("data.dedup_minhash_peer",
                      "no datasketch to compare with: pip install datasketch, "
                      "or set FM_DATASKETCH_PYTHON");
    }
    for (size_t i = 0; i < TEXTS; i++) {
        free(texts[i]);
    }
    return 0;
}
