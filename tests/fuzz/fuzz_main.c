/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a fuzz target without a fuzzing engine: first every corpus file as it
 * is, then seeded mutations of them.
 *
 * usage: fuzz_NAME [--runs N] [--seed S] FILE|DIRECTORY…
 *
 * Mutation i depends on the seed S + i and the corpus alone (files of a
 * directory are taken in byte order of their names), so a crash at seed X is
 * replayed by `--seed X --runs 1`.  On a crash the seed and the input are
 * kept: the input in ./crash-SEED (./crash-corpus-N for an unchanged file).
 * Exit status: 0 no crash, 2 bad usage or unreadable corpus.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "fuzz.h"

/* Inputs larger than this find nothing that smaller ones do not. */
#define INPUT_MAX_BYTES ((size_t)1 << 20)
/* A parser that needs this long for 1 MiB hangs. */
#define HANG_SECONDS 60U
#define DEFAULT_RUNS UINT64_C(10000)

struct corpus {
    fm_buf_t *inputs;
    size_t count;
    size_t capacity;
};

/* What runs now, for the crash handler; set before each run. */
static struct {
    const uint8_t *data;
    size_t size;
    char name[64]; /* "seed 17" */
    char file[64]; /* "crash-17" */
} current;

static void put_text(const char *text)
{
    ssize_t written = write(STDERR_FILENO, text, strlen(text));
    (void)written;
}

/* Async-signal-safe: only write() and open(). */
static void keep_crash(void)
{
    if (!current.data) {
        return;
    }
    put_text("\nfuzz: crash at ");
    put_text(current.name);
    put_text(", input kept in ");
    put_text(current.file);
    put_text("\n");
    int fd = open(current.file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd >= 0) {
        ssize_t written = write(fd, current.data, current.size);
        (void)written;
        (void)close(fd);
    }
    current.data = NULL;
}

static void on_signal(int number)
{
    if (number == SIGALRM) {
        put_text("\nfuzz: the parser hangs");
    }
    keep_crash();
    (void)signal(number, SIG_DFL);
    (void)raise(number);
}

/* The sanitizers' runtime, where it is linked in. */
extern void __sanitizer_set_death_callback(void (*callback)(void))
    __attribute__((weak));

static void catch_crashes(void)
{
    static const int SIGNALS[] = {SIGABRT, SIGALRM, SIGBUS,
                                  SIGFPE,  SIGILL,  SIGSEGV};

    if (__sanitizer_set_death_callback) {
        __sanitizer_set_death_callback(keep_crash);
    }
    for (size_t i = 0; i < FM_COUNT_OF(SIGNALS); i++) {
        /* A sanitizer reports SEGV better, then calls back. */
        if (!__sanitizer_set_death_callback || SIGNALS[i] == SIGABRT ||
            SIGNALS[i] == SIGALRM) {
            (void)signal(SIGNALS[i], on_signal);
        }
    }
}

static void run_one(const uint8_t *data, size_t size, const char *kind,
                    uint64_t number)
{
    /* A copy of the exact size, so that an overread leaves the block; NULL
     * would be undefined to memcpy. */
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy) {
        (void)fputs("fuzz: out of memory\n", stderr);
        exit(2);
    }
    if (size) {
        memcpy(copy, data, size);
    }
    bool mutated = strcmp(kind, "seed") == 0;
    (void)snprintf(current.name, sizeof(current.name), "%s %" PRIu64, kind,
                   number);
    (void)snprintf(current.file, sizeof(current.file), "crash-%s%" PRIu64,
                   mutated ? "" : "corpus-", number);
    current.size = size;
    current.data = copy;
    (void)alarm(HANG_SECONDS);
    (void)LLVMFuzzerTestOneInput(copy, size);
    (void)alarm(0);
    current.data = NULL;
    free(copy);
}

static void add_file(struct corpus *corpus, const char *path)
{
    fm_error_t err = {0};

    if (fm_grow(&corpus->inputs, &corpus->capacity, corpus->count,
                sizeof(*corpus->inputs), &err) < 0) {
        (void)fprintf(stderr, "fuzz: %s\n", err.text);
        exit(2);
    }
    fm_buf_t *input = &corpus->inputs[corpus->count++];
    memset(input, 0, sizeof(*input));
    if (fm_file_read(path, INPUT_MAX_BYTES, input, &err) < 0) {
        (void)fprintf(stderr, "fuzz: %s\n", err.text);
        exit(2);
    }
}

static void add_path(struct corpus *corpus, const char *path)
{
    struct stat info;
    struct dirent **entries = NULL;

    if (stat(path, &info) != 0) {
        (void)fprintf(stderr, "fuzz: %s: %s\n", path, strerror(errno));
        exit(2);
    }
    if (!S_ISDIR(info.st_mode)) {
        add_file(corpus, path);
        return;
    }
    int count = scandir(path, &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char *child = fm_asprintf("%s/%s", path, entries[i]->d_name);
        if (child && stat(child, &info) == 0 && S_ISREG(info.st_mode)) {
            add_file(corpus, child);
        }
        free(child);
        free(entries[i]);
    }
    free((void *)entries);
}

/* --- mutation ------------------------------------------------------------ */

static size_t below(fm_rng_t *rng, size_t bound)
{
    return bound ? (size_t)fm_rng_below(rng, bound) : 0;
}

/* Replace [at, at + removed) by @p bytes; false when it would grow too far. */
static void replace(fm_buf_t *input, size_t at, size_t removed,
                    const uint8_t *bytes, size_t len)
{
    if (input->len - removed + len > INPUT_MAX_BYTES ||
        !fm_buf_reserve(input, len + 1)) {
        return;
    }
    memmove(input->data + at + len, input->data + at + removed,
            input->len - at - removed);
    if (len) {
        memcpy(input->data + at, bytes, len);
    }
    input->len = input->len - removed + len;
}

static const char *const TOKENS[] = {
    "0",     "-1",  "4294967296", "18446744073709551615",
    "1e999", "nan", "null",       "true",
    "\"",    "\\",  "{",          "}",
    "[",     "]",   ":",          ",",
    "\n",    "\t",  "&a",         "*a",
    "${",    "..",  "\xff",       "\xc3",
    "%s",    "#",   "- ",         "\r\n",
    "'",     "/"};

static const uint64_t NUMBERS[] = {0,
                                   1,
                                   0x7f,
                                   0x80,
                                   0xff,
                                   0x7fff,
                                   0xffff,
                                   0x7fffffff,
                                   0x80000000,
                                   0xffffffff,
                                   UINT64_C(0x7fffffffffffffff),
                                   UINT64_MAX};

static void mutate(fm_buf_t *input, const struct corpus *corpus, fm_rng_t *rng)
{
    const size_t len = input->len;
    const size_t at = below(rng, len + 1);
    const size_t rest = len - at;
    uint8_t bytes[16];

    switch (below(rng, 8)) {
    case 0: /* flip a bit */
        if (rest) {
            input->data[at] ^= (uint8_t)(1U << below(rng, 8));
        }
        break;
    case 1: /* a random byte */
        if (rest) {
            input->data[at] = (uint8_t)below(rng, 256);
        }
        break;
    case 2: { /* a number at an edge, little-endian, over what is there */
        uint64_t number = NUMBERS[below(rng, FM_COUNT_OF(NUMBERS))];
        size_t width = (size_t)1 << below(rng, 4);
        for (size_t i = 0; i < width && i < rest; i++) {
            input->data[at + i] = (uint8_t)(number >> (8 * i));
        }
        break;
    }
    case 3: /* truncate */
        input->len = at;
        break;
    case 4: /* cut a piece out */
        replace(input, at, below(rng, (rest < 64 ? rest : 64) + 1), NULL, 0);
        break;
    case 5: { /* insert a token */
        const char *token = TOKENS[below(rng, FM_COUNT_OF(TOKENS))];
        replace(input, at, 0, (const uint8_t *)token, strlen(token));
        break;
    }
    case 6: /* insert random bytes */
        for (size_t i = 0; i < sizeof(bytes); i++) {
            bytes[i] = (uint8_t)below(rng, 256);
        }
        replace(input, at, 0, bytes, below(rng, sizeof(bytes)) + 1);
        break;
    default: { /* a piece of another input, inserted or over */
        const fm_buf_t *other = &corpus->inputs[below(rng, corpus->count)];
        size_t from = below(rng, other->len + 1);
        size_t size = below(rng, other->len - from + 1);
        size_t over = below(rng, 2) ? 0 : (size < rest ? size : rest);
        replace(input, at, over, other->data ? other->data + from : bytes,
                other->data ? size : 0);
        break;
    }
    }
}

static void run_mutations(const struct corpus *corpus, uint64_t seed,
                          uint64_t runs)
{
    fm_buf_t input = {0};

    for (uint64_t i = 0; i < runs; i++) {
        fm_rng_t rng;
        fm_rng_init(&rng, seed + i);
        const fm_buf_t *base = &corpus->inputs[below(&rng, corpus->count)];
        fm_buf_clear(&input);
        fm_buf_add(&input, base->data, base->len);
        for (size_t n = below(&rng, 8) + 1; n > 0; n--) {
            mutate(&input, corpus, &rng);
        }
        run_one(input.data, input.len, "seed", seed + i);
    }
    fm_buf_fini(&input);
}

static bool parse_number(const char *text, uint64_t *out)
{
    char *end = NULL;

    errno = 0;
    *out = text ? strtoull(text, &end, 10) : 0;
    return text && *text && end && *end == '\0' && errno == 0;
}

int main(int argc, char **argv)
{
    struct corpus corpus = {0};
    uint64_t seed = 1;
    uint64_t runs = DEFAULT_RUNS;

    for (int i = 1; i < argc; i++) {
        uint64_t *number = strcmp(argv[i], "--runs") == 0   ? &runs
                           : strcmp(argv[i], "--seed") == 0 ? &seed
                                                            : NULL;
        if (!number) {
            add_path(&corpus, argv[i]);
        } else if (!parse_number(argv[++i], number)) {
            (void)fprintf(stderr, "fuzz: %s wants a number\n", argv[i - 1]);
            return 2;
        }
    }
    if (corpus.count == 0) {
        (void)fputs("usage: fuzz_NAME [--runs N] [--seed S] FILE|DIRECTORY...\n"
                    "fuzz: the corpus is empty\n",
                    stderr);
        return 2;
    }
    catch_crashes();
    run_one(NULL, 0, "corpus", 0);
    for (size_t i = 0; i < corpus.count; i++) {
        run_one(corpus.inputs[i].data, corpus.inputs[i].len, "corpus", i + 1);
    }
    run_mutations(&corpus, seed, runs);
    (void)printf("fuzz: %zu corpus inputs, %" PRIu64 " mutations from seed "
                 "%" PRIu64 "\n",
                 corpus.count, runs, seed);
    for (size_t i = 0; i < corpus.count; i++) {
        fm_buf_fini(&corpus.inputs[i]);
    }
    free(corpus.inputs);
    return 0;
}
