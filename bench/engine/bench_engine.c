/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tokens per CPU second of fine-tuning and decoding on one thread, and the
 * ratio to PyTorch doing the same in the same run.  CPU time and the best of a
 * few repeats: what else the machine does counts for neither side.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "engine/generate.h"
#include "engine/train.h"

enum { BATCH = 8, SEQ = 256, PROMPT = 64, FRESH = 128, REPEATS = 8 };

static const fm_engine_config_t config = {
    .vocab_size = 260,
    .hidden_size = 128,
    .intermediate_size = 344,
    .num_hidden_layers = 5,
    .num_attention_heads = 4,
    .num_key_value_heads = 4,
    .max_position_embeddings = 512,
};

static int32_t tokens[BATCH][SEQ];

static fm_status_t train_rate(fm_engine_model_t *model, double *best,
                              fm_error_t *err)
{
    fm_engine_sample_t samples[BATCH];
    fm_engine_trainer_t *trainer = NULL;
    fm_status_t rc = fm_engine_trainer_create(model, NULL, &trainer, err);

    for (size_t i = 0; i < BATCH; i++) {
        samples[i] = (fm_engine_sample_t){.tokens = tokens[i], .count = SEQ};
    }
    for (int i = 0; rc >= 0 && i <= REPEATS; i++) {
        int64_t begin = fm_clock_cpu_ns();
        rc = fm_engine_trainer_sft(trainer, samples, BATCH, NULL, err);
        double seconds = (double)(fm_clock_cpu_ns() - begin) * 1e-9;
        double rate = BATCH * SEQ / seconds;
        *best = i > 0 && rate > *best ? rate : *best; /* 0 warms up */
    }
    fm_engine_trainer_destroy(trainer);
    return rc;
}

static fm_status_t decode_rate(fm_engine_model_t *model, double *best,
                               fm_error_t *err)
{
    fm_engine_prompt_t prompts[BATCH];
    fm_engine_completion_t done[BATCH] = {{0}};
    const fm_engine_generate_options_t options = {.max_new_tokens = FRESH};
    fm_status_t rc = FM_OK;

    for (size_t i = 0; i < BATCH; i++) {
        prompts[i] = (fm_engine_prompt_t){.tokens = tokens[i], .count = PROMPT};
    }
    for (int i = 0; rc >= 0 && i <= REPEATS; i++) {
        int64_t begin = fm_clock_cpu_ns();
        rc = fm_engine_generate(model, prompts, BATCH, &options, done, err);
        double seconds = (double)(fm_clock_cpu_ns() - begin) * 1e-9;
        double rate = BATCH * FRESH / seconds;
        *best = i > 0 && rate > *best ? rate : *best;
        for (size_t p = 0; p < BATCH; p++) {
            fm_engine_completion_fini(&done[p]);
        }
    }
    return rc;
}

/* What the peer prints, or NULL: without PyTorch the peer is skipped, loudly.
 */
static fm_json_t *peer_run(void)
{
    const char *python = getenv("FM_TORCH_PYTHON");
    char line[1024] = "";
    fm_json_t *answer = NULL;
    fm_error_t err = {0};
    char *command = fm_asprintf(
        "%s %s '{\"vocab_size\": %zu, \"hidden_size\": %zu, "
        "\"intermediate_size\": %zu, \"num_hidden_layers\": %zu, "
        "\"num_attention_heads\": %zu, \"num_key_value_heads\": %zu, "
        "\"max_position_embeddings\": %zu, \"batch\": %d, \"seq\": %d, "
        "\"prompt\": %d, \"fresh\": %d, \"repeats\": %d}'",
        python ? python : "/usr/bin/python3", FM_BENCH_PEER, config.vocab_size,
        config.hidden_size, config.intermediate_size, config.num_hidden_layers,
        config.num_attention_heads, config.num_key_value_heads,
        config.max_position_embeddings, BATCH, SEQ, PROMPT, FRESH, REPEATS);
    FILE *pipe = command ? popen(command, "r") : NULL;

    free(command);
    if (!pipe) {
        return NULL;
    }
    (void)!fgets(line, sizeof(line), pipe);
    int status = pclose(pipe);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        printf("peer SKIPPED: PyTorch is missing; apt-get install "
               "python3-torch, or set FM_TORCH_PYTHON\n");
    } else if (status != 0 ||
               fm_json_parse(line, strlen(line), "peer", &answer, &err) < 0) {
        printf("peer FAILED: status %d %s\n", status, err.text);
    }
    return answer;
}

int main(void)
{
    fm_engine_backend_t *be = NULL;
    fm_engine_model_t *model = NULL;
    fm_error_t err = {0};
    fm_rng_t rng;
    double train = 0;
    double decode = 0;
    fm_status_t rc = FM_OK;

    fm_rng_init(&rng, 1);
    for (size_t i = 0; i < (size_t)BATCH * SEQ; i++) {
        tokens[i / SEQ][i % SEQ] =
            (int32_t)fm_rng_below(&rng, config.vocab_size);
    }
    if ((rc = fm_engine_backend_create_cpu(&be, &err)) < 0 ||
        (rc = fm_engine_model_create(&config, be, &model, &err)) < 0 ||
        (rc = fm_engine_model_init(model, 1, &err)) < 0 ||
        (rc = train_rate(model, &train, &err)) < 0 ||
        (rc = decode_rate(model, &decode, &err)) < 0) {
        (void)fprintf(stderr, "bench_engine: %s\n", err.text);
        goto out;
    }
    printf("%zu parameters, batch %d, 1 thread\n", fm_engine_model_size(model),
           BATCH);
    printf("engine: SFT %.0f tokens/s (seq %d), decode %.0f tokens/s "
           "(%d + %d)\n",
           train, SEQ, decode, PROMPT, FRESH);
    (void)fflush(stdout);
    fm_json_t *peer = peer_run();
    if (peer) {
        double peer_train = fm_json_get_real(peer, "train", 0);
        double peer_decode = fm_json_get_real(peer, "decode", 0);
        printf("torch %s: SFT %.0f tokens/s, decode %.0f tokens/s\n",
               fm_json_get_str(peer, "version"), peer_train, peer_decode);
        printf("ratio engine/torch: SFT %.2f, decode %.2f\n",
               train / peer_train, decode / peer_decode);
    }
    fm_json_drop(peer);
out:
    fm_engine_model_destroy(model);
    fm_engine_backend_destroy(be);
    return rc < 0 ? 1 : 0;
}
