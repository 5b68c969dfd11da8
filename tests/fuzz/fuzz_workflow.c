/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzing of workflow text: parse, and where it parses, expand every node
 * against made-up upstream results.  Never a crash, a leak, or a failure
 * without text.
 *
 * With -DFM_LIBFUZZER it is a libFuzzer target.  Otherwise a program that
 * mutates the files it is given: fuzz_workflow ITERATIONS FILE…
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/rng.h"
#include "plan/workflow/workflow.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DIGEST                                                                 \
    "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define COMPLETION "{\"text\": \"c\", \"tokens\": [1, 2]}"
#define RECORD                                                                 \
    "{\"output\": {\"prompt\": \"p\", \"chosen\": \"c\", \"rejected\": "       \
    "\"r\", \"text\": \"t\", \"model\": \"" DIGEST "\", \"adapter\": "         \
    "\"" DIGEST "\", \"state\": \"" DIGEST "\", \"logprobs\": [-1, -2], "      \
    "\"prompt_tokens\": [1], \"completions\": [" COMPLETION ", " COMPLETION    \
    "]}}"
#define NUMBER "{\"output\": 1}"

/* What upstream nodes gave: one of these for all, then a mix of them, so that
 * some node of a chain finds each of its inputs whole. */
static const char *const results[] = {
    "{\"items\": [{\"output\": \"a\"}, {\"output\": {\"prompt\": \"p\", "
    "\"chosen\": \"c\", \"rejected\": \"r\"}}], \"export\": [{\"a\": 1}]}",
    "{\"items\": [" RECORD ", " RECORD "], \"parts\": {\"train\": [1]}}",
    "{\"items\": [" NUMBER ", " NUMBER ", " NUMBER ", " NUMBER "]}",
};
#define RESULT_COUNT (sizeof(results) / sizeof(results[0]))

struct world {
    fm_json_t *results[RESULT_COUNT];
    fm_json_t *files;
    const fm_workflow_t *wf;
    size_t turn;
};

static const fm_json_t *upstream(void *ctx, uint32_t node)
{
    const struct world *world = ctx;

    if (world->turn < RESULT_COUNT) {
        return world->results[world->turn];
    }
    /* rewards are numbers, all else is a record that fits most readers */
    bool number =
        strcmp(fm_workflow_node(world->wf, node)->task_type, "reward") == 0 ||
        strcmp(fm_workflow_node(world->wf, node)->task_type, "score") == 0;
    return world->results[number ? 2 : 1];
}

static void expand_all(const fm_workflow_t *wf, struct world *world)
{
    for (uint32_t i = 0; i < fm_workflow_node_count(wf) && i < 64; i++) {
        fm_workflow_work_t work = {0};
        fm_error_t err = {0};
        bool met = false;
        fm_status_t rc =
            fm_workflow_condition(wf, i, upstream, world, &met, &err);
        if (rc == FM_OK) {
            rc = fm_workflow_expand(wf, i, world->files, upstream, world, &work,
                                    &err);
        }
        if (rc < 0 && !err.text[0]) {
            abort();
        }
        fm_workflow_work_fini(&work);
    }
}

static void expand_each(const fm_workflow_t *wf)
{
    struct world world = {.wf = wf, .files = fm_json_object()};
    bool made = world.files != NULL;

    for (size_t i = 0; made && i < fm_workflow_file_count(wf); i++) {
        made = fm_json_set(world.files, fm_workflow_file(wf, i)->key,
                           fm_json_string(DIGEST)) == FM_OK;
    }
    for (size_t i = 0; made && i < RESULT_COUNT; i++) {
        made = fm_json_parse(results[i], strlen(results[i]), "result",
                             &world.results[i], NULL) == FM_OK;
    }
    for (world.turn = 0; made && world.turn <= RESULT_COUNT; world.turn++) {
        expand_all(wf, &world);
    }
    for (size_t i = 0; i < RESULT_COUNT; i++) {
        fm_json_drop(world.results[i]);
    }
    fm_json_drop(world.files);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fm_workflow_t *wf = NULL;
    fm_error_t err = {0};

    fm_status_t rc =
        fm_workflow_parse((const char *)data, size, "fuzz", &wf, &err);
    if (rc < 0) {
        if (!err.text[0] || wf) {
            abort();
        }
        return 0;
    }
    expand_each(wf);
    fm_workflow_destroy(wf);
    return 0;
}

#ifndef FM_LIBFUZZER
#include "base/file.h"

#define CORPUS_MAX 32
#define TEXT_BYTES_MAX 65536u

/* What breaks parsers: structure characters, numbers, our own words. */
static const char *const tokens[] = {
    "${",     "}",
    "$${",    "[",
    "]",      "{",
    "}",      ":",
    ": ",     "- ",
    "\n",     "  ",
    "&a ",    "*a",
    "!!str ", "|",
    "\"",     "'",
    "#",      "null",
    "1e999",  "-1",
    "0x7f",   "items[*]",
    "sweep",  "matrix",
    "node",   "dependsOn",
    "data",   "model",
    "\xff",   "\xC3\xA9",
    "~",      "18446744073709551616",
    "@",      "taskType",
    "reward", "steps",
    "lora",   "adapters",
    "grpo",   "code",
};

static void mutate(fm_buf_t *buf, const fm_buf_t *other, fm_rng_t *rng)
{
    size_t at = buf->len ? fm_rng_below(rng, buf->len) : 0;
    size_t span = fm_rng_below(rng, 16);
    fm_buf_t out = {0};

    span = span < buf->len - at ? span : buf->len - at;
    fm_buf_add(&out, buf->data, at);
    switch (fm_rng_below(rng, 5)) {
    case 0: /* another byte */
        fm_buf_add_u8(&out, (uint8_t)fm_rng_below(rng, 256));
        span = 1 < span ? 1 : span;
        break;
    case 1: /* a token in its place, or before it */
        fm_buf_add_str(
            &out, tokens[fm_rng_below(rng, sizeof(tokens) / sizeof(*tokens))]);
        span = fm_rng_below(rng, 2) ? span : 0;
        break;
    case 2: /* twice */
        fm_buf_add(&out, buf->data + at, span);
        span = 0;
        break;
    case 3: { /* a piece of another file */
        size_t from = other->len ? fm_rng_below(rng, other->len) : 0;
        size_t len = fm_rng_below(rng, 200);
        len = len < other->len - from ? len : other->len - from;
        fm_buf_add(&out, other->data + from, len);
        break;
    }
    default: /* gone */
        break;
    }
    fm_buf_add(&out, buf->data + at + span, buf->len - at - span);
    fm_buf_fini(buf);
    *buf = out;
}

int main(int argc, char **argv)
{
    fm_buf_t corpus[CORPUS_MAX] = {0};
    size_t count = 0;
    fm_error_t err = {0};
    long iterations = argc > 1 ? strtol(argv[1], NULL, 10) : 0;
    fm_rng_t rng;

    for (int i = 2; i < argc && count < CORPUS_MAX; i++) {
        if (fm_file_read(argv[i], TEXT_BYTES_MAX, &corpus[count], &err) < 0) {
            (void)fprintf(stderr, "%s\n", err.text);
            return 1;
        }
        (void)LLVMFuzzerTestOneInput(corpus[count].data, corpus[count].len);
        count++;
    }
    if (count == 0 || iterations < 1) {
        (void)fprintf(stderr, "usage: fuzz_workflow ITERATIONS FILE...\n");
        return 2;
    }
    fm_rng_init(&rng, 20260131);
    for (long n = 0; n < iterations; n++) {
        const fm_buf_t *seed = &corpus[fm_rng_below(&rng, count)];
        fm_buf_t text = {0};
        fm_buf_add(&text, seed->data, seed->len);
        for (uint64_t k = 1 + fm_rng_below(&rng, 6); k > 0; k--) {
            mutate(&text, &corpus[fm_rng_below(&rng, count)], &rng);
        }
        (void)LLVMFuzzerTestOneInput(text.data, text.len);
        fm_buf_fini(&text);
    }
    for (size_t i = 0; i < count; i++) {
        fm_buf_fini(&corpus[i]);
    }
    (void)printf("%ld texts\n", iterations);
    return 0;
}
#endif
