/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tokens per CPU second of fine-tuning, preference optimisation, decoding and
 * embedding on one thread, beside PyTorch doing the same in turns; and of
 * serving many adapters and common prefixes, beside ourselves without.  CPU
 * time: what else the machine does counts for neither side.
 * usage: bench_engine [ROUNDS [SHAPE]]
 */
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "engine/serve/generate.h"
#include "engine/serve/score.h"
#include "engine/train/train.h"
#include "report/report.h"

enum { BATCH_MAX = 32, SEQ_MAX = 256, ADAPTERS = 8, ROUNDS = 5 };

extern char **environ;

/* A model and the data of one step. */
struct shape {
    const char *name;
    fm_engine_config_t config;
    size_t batch;  /* sequences; half as many pairs */
    size_t seq;    /* tokens of each */
    size_t prompt; /* of them; the rest is decoded, or chosen and rejected */
    bool train;
};

#define SHAPE(vocab, hidden, layers, intermediate)                             \
    {                                                                          \
        .vocab_size = (vocab), .hidden_size = (hidden),                        \
        .intermediate_size = (intermediate), .num_hidden_layers = (layers),    \
        .num_attention_heads = (hidden) / 32,                                  \
        .num_key_value_heads = (hidden) / 32, .max_position_embeddings = 512,  \
    }

static const struct shape shapes[] = {
    {"128x5", SHAPE(260, 128, 5, 344), 8, 256, 128, true},
    {"demo_128x4", SHAPE(260, 128, 4, 384), 16, 192, 64, true},
    {"256x6", SHAPE(260, 256, 6, 688), 8, 256, 128, true},
    {"1024x6", SHAPE(8192, 1024, 6, 2816), 8, 96, 64, false},
};

/* What one shape runs on. */
struct subject {
    const struct shape *shape;
    size_t batch; /* of the task at hand */
    fm_engine_model_t *model;
    fm_engine_trainer_t *trainer; /* NULL where nothing is trained */
    fm_engine_scorer_t *scorer;
    fm_engine_adapter_t *adapters[ADAPTERS];
};

static int32_t tokens[BATCH_MAX][SEQ_MAX];

/* --- ours: one step, its tokens ------------------------------------------ */

static fm_status_t sft_step(struct subject *s, size_t *tokens_out,
                            fm_error_t *err)
{
    fm_engine_sample_t samples[BATCH_MAX];

    for (size_t i = 0; i < s->shape->batch; i++) {
        samples[i] =
            (fm_engine_sample_t){.tokens = tokens[i], .count = s->shape->seq};
    }
    *tokens_out = s->shape->batch * s->shape->seq;
    return fm_engine_trainer_sft(s->trainer, samples, s->shape->batch, NULL,
                                 err);
}

static fm_status_t dpo_step(struct subject *s, size_t *tokens_out,
                            fm_error_t *err)
{
    fm_engine_pair_t pairs[BATCH_MAX / 2] = {{0}};
    size_t count = s->shape->batch / 2;
    size_t prompt = s->shape->prompt;

    for (size_t i = 0; i < count; i++) {
        pairs[i].prompt = tokens[2 * i];
        pairs[i].prompt_count = prompt;
        pairs[i].chosen = tokens[2 * i] + prompt;
        pairs[i].rejected = tokens[2 * i + 1] + prompt;
        pairs[i].chosen_count = s->shape->seq - prompt;
        pairs[i].rejected_count = s->shape->seq - prompt;
    }
    *tokens_out = s->shape->batch * s->shape->seq;
    return fm_engine_trainer_dpo(s->trainer, pairs, count,
                                 &(fm_engine_dpo_options_t){.beta = 0.1}, NULL,
                                 err);
}

/* Continue prompts, in a cache of their own. */
static fm_status_t prompts_run(const struct subject *s,
                               const fm_engine_prompt_t *prompts, size_t count,
                               size_t fresh, fm_error_t *err)
{
    fm_engine_completion_t done[BATCH_MAX] = {{0}};
    const fm_engine_generate_options_t options = {.max_new_tokens = fresh,
                                                  .max_batch = count};
    fm_status_t rc =
        fm_engine_generate(s->model, prompts, count, &options, done, err);

    for (size_t i = 0; i < count; i++) {
        fm_engine_completion_fini(&done[i]);
    }
    return rc;
}

static fm_status_t decode_step(struct subject *s, size_t *tokens_out,
                               fm_error_t *err)
{
    fm_engine_prompt_t prompts[BATCH_MAX];
    size_t fresh = s->shape->seq - s->shape->prompt;

    for (size_t i = 0; i < s->batch; i++) {
        prompts[i] = (fm_engine_prompt_t){.tokens = tokens[i],
                                          .count = s->shape->prompt};
    }
    *tokens_out = s->batch * fresh;
    return prompts_run(s, prompts, s->batch, fresh, err);
}

static fm_status_t embed_step(struct subject *s, size_t *tokens_out,
                              fm_error_t *err)
{
    float vector[1024];
    fm_status_t rc = FM_OK;

    *tokens_out = s->batch * s->shape->seq;
    for (size_t i = 0; rc >= 0 && i < s->batch; i++) {
        rc = fm_engine_embed(s->scorer, tokens[i], s->shape->seq,
                             FM_ENGINE_POOL_MEAN, true, vector, err);
    }
    return rc;
}

/* A short prompt for each adapter: together, or one after the other. */
static fm_status_t adapters_run(struct subject *s, bool together,
                                size_t *tokens_out, fm_error_t *err)
{
    fm_engine_prompt_t prompts[ADAPTERS];
    size_t fresh = s->shape->seq - s->shape->prompt;
    fm_status_t rc = FM_OK;

    for (size_t i = 0; i < ADAPTERS; i++) {
        prompts[i] = (fm_engine_prompt_t){
            .tokens = tokens[i], .count = 8, .adapter = s->adapters[i]};
    }
    *tokens_out = ADAPTERS * fresh;
    if (together) {
        return prompts_run(s, prompts, ADAPTERS, fresh, err);
    }
    for (size_t i = 0; rc >= 0 && i < ADAPTERS; i++) {
        rc = prompts_run(s, &prompts[i], 1, fresh, err);
    }
    return rc;
}

static fm_status_t adapters_together(struct subject *s, size_t *tokens_out,
                                     fm_error_t *err)
{
    return adapters_run(s, true, tokens_out, err);
}

static fm_status_t adapters_apart(struct subject *s, size_t *tokens_out,
                                  fm_error_t *err)
{
    return adapters_run(s, false, tokens_out, err);
}

/* Prompts of one sequence's length, the first three quarters the same. */
static fm_status_t prefix_run(struct subject *s, bool shared,
                              size_t *tokens_out, fm_error_t *err)
{
    static int32_t texts[BATCH_MAX][SEQ_MAX];
    fm_engine_prompt_t prompts[BATCH_MAX];
    size_t common = shared ? s->shape->seq * 3 / 4 : 0;

    for (size_t i = 0; i < s->batch; i++) {
        memcpy(texts[i], tokens[i], sizeof(texts[i]));
        memcpy(texts[i], tokens[0], common * sizeof(texts[i][0]));
        prompts[i] =
            (fm_engine_prompt_t){.tokens = texts[i], .count = s->shape->seq};
    }
    *tokens_out = s->batch * s->shape->seq;
    return prompts_run(s, prompts, s->batch, 1, err);
}

static fm_status_t prefix_shared(struct subject *s, size_t *tokens_out,
                                 fm_error_t *err)
{
    return prefix_run(s, true, tokens_out, err);
}

static fm_status_t prefix_apart(struct subject *s, size_t *tokens_out,
                                fm_error_t *err)
{
    return prefix_run(s, false, tokens_out, err);
}

typedef fm_status_t step_fn(struct subject *s, size_t *tokens_out,
                            fm_error_t *err);

static const struct task {
    const char *name;
    const char *peer_task; /* of torch_peer.py; NULL: compared with ourselves */
    step_fn *step;
    step_fn *other; /* ourselves in the other way, and its name */
    const char *other_name;
    size_t batch; /* 0: the shape's */
    bool train;
} tasks[] = {
    {"sft", "sft", sft_step, NULL, NULL, 0, true},
    {"dpo", "dpo", dpo_step, NULL, NULL, 0, true},
    {"decode", "decode", decode_step, NULL, NULL, 0, false},
    {"decode_1", "decode", decode_step, NULL, NULL, 1, false},
    {"decode_32", "decode", decode_step, NULL, NULL, 32, false},
    {"embed", "embed", embed_step, NULL, NULL, 0, false},
    {"adapters_8", NULL, adapters_together, adapters_apart, "one_by_one", 0,
     false},
    {"prefix_16", NULL, prefix_shared, prefix_apart, "unshared", 16, false},
};

/* --- the peer ------------------------------------------------------------ */

struct peer {
    pid_t pid;
    FILE *answers; /* NULL: there is none */
    int questions;
    char version[40];
};

static bool peer_line(struct peer *peer, char *line, size_t capacity)
{
    return fgets(line, (int)capacity, peer->answers) != NULL;
}

static void peer_stop(struct peer *peer)
{
    if (peer->answers) {
        (void)fclose(peer->answers);
        (void)close(peer->questions);
        (void)waitpid(peer->pid, NULL, 0);
        peer->answers = NULL;
    }
}

/* Without PyTorch it ends at once, and there is no peer. */
static void peer_start(struct peer *peer)
{
    const char *set = getenv("FM_TORCH_PYTHON");
    char *python = fm_strdup(set ? set : "/usr/bin/python3");
    char script[] = FM_BENCH_PEER;
    char *const argv[] = {python, script, NULL};
    posix_spawn_file_actions_t actions;
    int ends[2] = {-1, -1};

    if (!python ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
        free(python);
        return;
    }
    (void)posix_spawn_file_actions_init(&actions);
    (void)posix_spawn_file_actions_adddup2(&actions, ends[1], STDIN_FILENO);
    (void)posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    if (posix_spawn(&peer->pid, python, &actions, NULL, argv, environ) == 0) {
        peer->questions = ends[0];
        peer->answers = fdopen(dup(ends[0]), "r");
    } else {
        (void)close(ends[0]);
    }
    (void)close(ends[1]);
    (void)posix_spawn_file_actions_destroy(&actions);
    free(python);
    if (peer->answers &&
        !peer_line(peer, peer->version, sizeof(peer->version))) {
        peer_stop(peer);
    }
    peer->version[strcspn(peer->version, "\n")] = '\0';
}

/* One step of the peer; 0 when it failed. */
static double peer_rate(struct peer *peer, const struct subject *s,
                        const char *task)
{
    const struct shape *shape = s->shape;
    const fm_engine_config_t *c = &shape->config;
    char line[80] = "";
    char *question = fm_asprintf(
        "{\"task\": \"%s\", \"vocab_size\": %zu, \"hidden_size\": %zu, "
        "\"intermediate_size\": %zu, \"num_hidden_layers\": %zu, "
        "\"num_attention_heads\": %zu, \"num_key_value_heads\": %zu, "
        "\"max_position_embeddings\": %zu, \"batch\": %zu, \"seq\": %zu, "
        "\"prompt\": %zu}\n",
        task, c->vocab_size, c->hidden_size, c->intermediate_size,
        c->num_hidden_layers, c->num_attention_heads, c->num_key_value_heads,
        c->max_position_embeddings, s->batch, shape->seq, shape->prompt);
    size_t len = question ? strlen(question) : 0;
    bool ok =
        question &&
        send(peer->questions, question, len, MSG_NOSIGNAL) == (ssize_t)len &&
        peer_line(peer, line, sizeof(line));

    free(question);
    return ok ? strtod(line, NULL) : 0;
}

/* --- the rounds ---------------------------------------------------------- */

static fm_status_t step_rate(struct subject *s, step_fn *step, double *rate_out,
                             fm_error_t *err)
{
    size_t count = 0;
    int64_t begin = fm_clock_cpu_ns();
    fm_status_t rc = step(s, &count, err);

    *rate_out = (double)count / ((double)(fm_clock_cpu_ns() - begin) * 1e-9);
    return rc;
}

/* One round of the other side; 0 when there is none. */
static fm_status_t other_rate(struct subject *s, const struct task *task,
                              struct peer *peer, double *rate_out,
                              fm_error_t *err)
{
    *rate_out = 0;
    if (task->other) {
        return step_rate(s, task->other, rate_out, err);
    }
    if (peer->answers) {
        *rate_out = peer_rate(peer, s, task->peer_task);
        if (!(*rate_out > 0)) {
            return fm_error_set(err, FM_ERR_IO, "%s: the peer failed",
                                task->name);
        }
    }
    return FM_OK;
}

/* Round 0 warms up. */
static fm_status_t task_bench(struct subject *s, const struct task *task,
                              size_t rounds, struct peer *peer, fm_error_t *err)
{
    fm_bench_series_t ours = {{0}, 0};
    fm_bench_series_t theirs = {{0}, 0};
    const fm_bench_peer_t other = {task->other ? task->other_name : "torch",
                                   &theirs};
    bool compared = task->other || peer->answers;
    fm_status_t rc = FM_OK;

    s->batch = task->batch ? task->batch : s->shape->batch;
    for (size_t i = 0; i <= rounds; i++) {
        double rate = 0;
        double beside = 0;
        if ((rc = step_rate(s, task->step, &rate, err)) < 0 ||
            (rc = other_rate(s, task, peer, &beside, err)) < 0) {
            return rc;
        }
        if (i > 0) {
            fm_bench_add(&ours, rate);
            fm_bench_add(&theirs, beside);
        }
    }
    char *name = fm_asprintf("engine.%s_%s", task->name, s->shape->name);
    if (!name) {
        return fm_no_memory(err);
    }
    fm_bench_print(name, &ours, "tokens/s", FM_BENCH_MORE,
                   compared ? &other : NULL);
    if (!compared) {
        fm_bench_skip(name, "no PyTorch to compare with: apt-get install "
                            "python3-torch, or set FM_TORCH_PYTHON");
    }
    free(name);
    return FM_OK;
}

static fm_status_t adapters_make(struct subject *s, fm_error_t *err)
{
    const fm_engine_adapter_config_t config = {
        .rank = 8, .alpha = 16, .targets = (1U << FM_ENGINE_TARGETS) - 1};
    fm_status_t rc = FM_OK;

    for (size_t i = 0; rc >= 0 && i < ADAPTERS; i++) {
        rc = fm_engine_adapter_create(&config, s->model, &s->adapters[i], err);
        if (rc >= 0) {
            rc = fm_engine_adapter_init(s->adapters[i], i, err);
        }
    }
    return rc;
}

static fm_status_t shape_bench(const struct shape *shape,
                               fm_engine_backend_t *be, size_t rounds,
                               struct peer *peer, fm_error_t *err)
{
    struct subject s = {.shape = shape};
    fm_status_t rc = FM_OK;

    if ((rc = fm_engine_model_create(&shape->config, be, &s.model, err)) < 0 ||
        (rc = fm_engine_model_init(s.model, 1, err)) < 0 ||
        (shape->train &&
         (rc = fm_engine_trainer_create(&(fm_engine_parts_t){.model = s.model},
                                        NULL, &s.trainer, err)) < 0) ||
        (rc = fm_engine_scorer_create(s.model, &s.scorer, err)) < 0 ||
        (rc = adapters_make(&s, err)) < 0) {
        goto out;
    }
    (void)printf("%s: hidden %zu, %zu layers, %zu parameters; %zu sequences "
                 "of %zu tokens, prompts of %zu\n",
                 shape->name, shape->config.hidden_size,
                 shape->config.num_hidden_layers, fm_engine_model_size(s.model),
                 shape->batch, shape->seq, shape->prompt);
    for (size_t t = 0; rc >= 0 && t < FM_COUNT_OF(tasks); t++) {
        if (shape->train || !tasks[t].train) {
            rc = task_bench(&s, &tasks[t], rounds, peer, err);
        }
    }
out:
    for (size_t i = 0; i < ADAPTERS; i++) {
        fm_engine_adapter_destroy(s.adapters[i]);
    }
    fm_engine_scorer_destroy(s.scorer);
    fm_engine_trainer_destroy(s.trainer);
    fm_engine_model_destroy(s.model);
    return rc;
}

int main(int argc, char **argv)
{
    size_t rounds = argc > 1 ? strtoull(argv[1], NULL, 10) : ROUNDS;
    fm_engine_backend_t *be = NULL;
    struct peer peer = {0};
    fm_error_t err = {0};
    fm_status_t rc = FM_OK;
    fm_rng_t rng;

    if (argc > 3 || rounds < 1 || rounds > FM_BENCH_ROUNDS_MAX) {
        (void)fprintf(stderr, "usage: bench_engine [ROUNDS [SHAPE]]\n");
        return 2;
    }
    fm_rng_init(&rng, 1);
    for (size_t i = 0; i < (size_t)BATCH_MAX * SEQ_MAX; i++) {
        tokens[i / SEQ_MAX][i % SEQ_MAX] = (int32_t)fm_rng_below(&rng, 260);
    }
    peer_start(&peer);
    (void)printf("tokens per CPU second, one thread, float32 on the CPU; "
                 "PyTorch %s\n",
                 peer.answers ? peer.version : "is missing");
    if ((rc = fm_engine_backend_create_cpu(&be, &err)) < 0) {
        goto out;
    }
    for (size_t i = 0; rc >= 0 && i < FM_COUNT_OF(shapes); i++) {
        if (argc < 3 || strcmp(argv[2], shapes[i].name) == 0) {
            rc = shape_bench(&shapes[i], be, rounds, &peer, &err);
        }
    }
out:
    if (rc < 0) {
        (void)fprintf(stderr, "bench_engine: %s\n", err.text);
    }
    peer_stop(&peer);
    fm_engine_backend_destroy(be);
    return rc < 0 ? 1 : 0;
}
