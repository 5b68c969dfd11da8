/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lines of a hostile executor against the protocol parser: any bytes end as
 * callbacks with checked content or as an error, never otherwise.  Usable
 * with libFuzzer (FM_LIBFUZZER); alone it mutates a corpus, seeded.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "run/exec/internal.h"

#define LINES 60000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t accepted, refused;

static void expect(bool truth, const char *what)
{
    if (!truth) {
        (void)fprintf(stderr, "fuzz_executor: %s\n", what);
        abort();
    }
}

static void on_hello(void *ctx, const fm_exec_hello_t *hello)
{
    (void)ctx;
    expect(hello->name && hello->version && hello->numerics, "hello texts");
    expect(hello->task_type_count > 0, "hello types");
    for (size_t i = 0; i < hello->task_type_count; i++) {
        expect(hello->task_types[i] != NULL, "hello type");
    }
}

static void on_item(void *ctx, const fm_exec_item_t *item)
{
    (void)ctx;
    expect(item->lease == 7 && (item->index == 0 || item->index == 3),
           "item identity");
    if (item->outcome != FM_EXEC_OK) {
        expect(item->error != NULL, "item error");
        return;
    }
    expect((item->output != NULL) + (item->locator != NULL) +
                   (item->path != NULL) ==
               1,
           "item value");
    expect(!item->path ||
               (item->path[0] != '/' && strncmp(item->path, "../", 3) != 0),
           "item path");
    for (size_t i = 0; i < item->object_count; i++) {
        expect(item->objects[i].locator != NULL, "item object");
    }
}

static void on_progress(void *ctx, int64_t lease, double fraction,
                        const fm_json_t *metrics)
{
    (void)ctx;
    (void)metrics;
    expect(lease == 7 && fraction >= 0 && fraction <= 1, "progress");
}

static void on_checkpoint(void *ctx, const fm_exec_checkpoint_t *checkpoint)
{
    (void)ctx;
    expect(checkpoint->locator && checkpoint->step >= 0, "checkpoint");
}

static void on_done(void *ctx, const fm_exec_done_t *done)
{
    (void)ctx;
    expect(isfinite(done->seconds) && done->seconds >= 0, "done");
    expect(done->missing == 0, "done early");
}

static void one_line(fm_reactor_t *reactor, state_t state, const uint8_t *data,
                     size_t size)
{
    fm_error_t err = {0};
    fm_exec_t exec = {.reactor = reactor,
                      .callbacks = {on_hello, on_progress, on_checkpoint,
                                    on_item, on_done, NULL, NULL},
                      .state = state,
                      .lease = state == STATE_RUNNING ? 7 : 0,
                      .slot_count = 2};

    if (!(exec.slots = fm_calloc(2, sizeof(*exec.slots)))) {
        abort();
    }
    exec.slots[1].index = 3;
    if (fm_exec_message(&exec, (const char *)data, size, &err) < 0) {
        expect(err.text[0] != '\0', "an error without text");
        refused++;
    } else {
        accepted++;
    }
    free(exec.slots);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static fm_reactor_t *reactor;

    if (!reactor && fm_reactor_create(NULL, &reactor, NULL) < 0) {
        abort();
    }
    if (size < FM_EXECUTOR_LINE_BYTES) {
        one_line(reactor, STATE_GREETING, data, size);
        one_line(reactor, STATE_RUNNING, data, size);
    }
    if (size == 0) { /* the end of a run that is not libFuzzer's */
        reactor = fm_reactor_destroy(reactor);
    }
    return 0;
}

#ifndef FM_LIBFUZZER
#define DIGEST                                                                 \
    "\"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852"    \
    "b855\""

static const char *const corpus[] = {
    "{\"type\":\"hello\",\"protocol\":1,\"name\":\"n\",\"version\":\"1\","
    "\"task_types\":[\"echo\",\"sft\"],\"staging\":\"files\",\"resident\":[],"
    "\"numerics\":\"cpu-f32\",\"memory_bytes\":12,\"device\":{}}",
    "{\"type\":\"progress\",\"lease\":7,\"fraction\":0.5,\"metrics\":{}}",
    "{\"type\":\"checkpoint\",\"lease\":7,\"index\":3,\"step\":1,\"digest\":"
    "" DIGEST ",\"locator\":\"l\",\"objects\":[{\"digest\":" DIGEST
    ",\"locator\":\"m\"}]}",
    "{\"type\":\"item\",\"lease\":7,\"index\":0,\"output\":[1,2.5,\"x\"]}",
    "{\"type\":\"item\",\"lease\":7,\"index\":3,\"path\":\"a/b\"}",
    "{\"type\":\"item\",\"lease\":7,\"index\":3,\"digest\":" DIGEST
    ",\"locator\":\"l\",\"kind\":\"blob\",\"objects\":[]}",
    "{\"type\":\"item\",\"lease\":7,\"index\":3,\"error\":{\"text\":\"t\","
    "\"kind\":\"infra\"}}",
    "{\"type\":\"done\",\"lease\":7,\"seconds\":1.5,\"cpu_seconds\":1,"
    "\"resident\":[],\"metrics\":{}}",
};

static size_t mutate(fm_rng_t *rng, uint8_t *line, size_t len, size_t room)
{
    static const char *const bits[] = {"null",
                                       "-1",
                                       "1e999",
                                       "\"\"",
                                       "{}",
                                       "[]",
                                       "7",
                                       "0",
                                       "3",
                                       "\\u0000",
                                       "../",
                                       "true",
                                       "9223372036854775808"};
    size_t at = (size_t)fm_rng_below(rng, len + 1);
    const char *bit = bits[fm_rng_below(rng, FM_COUNT_OF(bits))];
    size_t size = strlen(bit);

    switch (fm_rng_below(rng, 5)) {
    case 0: /* a byte */
        line[at < len ? at : 0] = (uint8_t)fm_rng_u64(rng);
        return len;
    case 1: /* cut */
        return at;
    case 2: /* insert */
        if (len + size > room) {
            return len;
        }
        memmove(line + at + size, line + at, len - at);
        memcpy(line + at, bit, size);
        return len + size;
    case 3: /* drop one */
        if (at < len) {
            memmove(line + at, line + at + 1, len - at - 1);
            return len - 1;
        }
        return len;
    default: /* a digit */
        for (size_t i = 0; i < len; i++) {
            size_t j = (at + i) % len;
            if (line[j] >= '0' && line[j] <= '9') {
                line[j] = (uint8_t)('0' + fm_rng_below(rng, 10));
                break;
            }
        }
        return len;
    }
}

int main(void)
{
    uint8_t line[4096];
    fm_rng_t rng;

    fm_rng_init(&rng, 7);
    for (size_t i = 0; i < FM_COUNT_OF(corpus); i++) {
        size_t before = accepted;
        (void)LLVMFuzzerTestOneInput((const uint8_t *)corpus[i],
                                     strlen(corpus[i]));
        /* done comes before its items are answered: refused, rightly */
        expect((accepted > before) == (i + 1 < FM_COUNT_OF(corpus)), "corpus");
    }
    for (size_t i = 0; i < LINES; i++) {
        const char *seed = corpus[i % FM_COUNT_OF(corpus)];
        size_t len = strlen(seed);
        memcpy(line, seed, len);
        for (uint64_t n = 1 + fm_rng_below(&rng, 2); n-- > 0 && len > 0;) {
            len = mutate(&rng, line, len, sizeof(line));
        }
        if (len > 0) {
            (void)LLVMFuzzerTestOneInput(line, len);
        }
    }
    (void)LLVMFuzzerTestOneInput(line, 0);
    (void)printf("fuzz_executor: %zu accepted, %zu refused\n", accepted,
                 refused);
    return accepted > LINES / 30 && refused > LINES / 2 ? 0 : 1;
}
#endif
