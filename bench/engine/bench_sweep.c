/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of a DPO sweep with LoRA: eight trials over one base in one
 * executor, next to the base's own weights.  What is counted is the peak of a
 * process of its own that does the sweep, less that of one that does nothing.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "report/report.h"
#include "run/model/model.h"
#include "run/ops/ops.h"

enum { TRIALS = 8, PAIRS = 4 };

/* 150 million parameters: the base outweighs what a trial adds. */
static const char base_config[] =
    "{\"model_type\": \"llama\", \"vocab_size\": 260, \"hidden_size\": 1024,"
    " \"intermediate_size\": 2816, \"num_hidden_layers\": 12,"
    " \"num_attention_heads\": 16, \"max_position_embeddings\": 256,"
    " \"tie_word_embeddings\": true}";

static void must(fm_status_t rc, const fm_error_t *err)
{
    if (rc < 0) {
        (void)fprintf(stderr, "bench_sweep: %s\n", err->text);
        exit(1);
    }
}

static fm_json_t *json(const char *text)
{
    fm_error_t err = {0};
    fm_json_t *value = NULL;

    must(fm_json_parse(text, strlen(text), "text", &value, &err), &err);
    return value;
}

/* Store the base; its manifest's digest as text, its parameters' bytes. */
static size_t base_store(const char *dir, char *digest_out)
{
    const fm_cas_options_t writer = {.writer = "base"};
    fm_engine_backend_t *backend = NULL;
    fm_cas_t *cas = NULL;
    fm_json_t *config = json(base_config);
    fm_model_t model = {0};
    fm_digest_t digest;
    fm_error_t err = {0};

    must(fm_cas_open(dir, &writer, &cas, &err), &err);
    must(fm_engine_backend_create_cpu(&backend, &err), &err);
    must(fm_model_make(cas, config, NULL, backend, &model, &err), &err);
    must(fm_engine_model_init(model.model, 1, &err), &err);
    must(fm_model_store(cas, &model, NULL, NULL, &digest, &err), &err);
    must(fm_cas_seal(cas, &err), &err);
    size_t bytes = model.bytes;
    (void)fm_digest_format(&digest, digest_out);
    fm_model_fini(&model);
    fm_engine_backend_destroy(backend);
    fm_json_drop(config);
    fm_cas_close(cas);
    return bytes;
}

static fm_status_t on_item(void *ctx, const fm_ops_item_t *item,
                           fm_error_t *err)
{
    (void)ctx;
    return item->status < 0 ? fm_error_set(err, item->status, "%s", item->error)
                            : FM_OK;
}

static fm_status_t
on_checkpoint(void *ctx, const fm_ops_checkpoint_t *checkpoint, fm_error_t *err)
{
    (void)ctx;
    (void)checkpoint;
    (void)err;
    return FM_OK;
}

static fm_status_t on_progress(void *ctx, double fraction,
                               const fm_json_t *metrics, fm_error_t *err)
{
    (void)ctx;
    (void)fraction;
    (void)metrics;
    (void)err;
    return FM_OK;
}

static fm_json_t *items_make(void)
{
    fm_buf_t text = {0};

    fm_buf_printf(&text, "[{\"index\": 0, \"value\": {\"pairs\": [");
    for (int i = 0; i < PAIRS; i++) {
        fm_buf_printf(&text,
                      "%s{\"prompt\": \"Question %d: what is best?\","
                      " \"chosen\": \" The first of the answers.\","
                      " \"rejected\": \" Another one, and worse.\"}",
                      i ? ", " : "", i);
    }
    fm_buf_printf(&text, "], \"reference\": [");
    for (int i = 0; i < PAIRS; i++) {
        fm_buf_printf(&text,
                      "%s{\"chosen\": {\"logprob\": -150, \"tokens\": 27},"
                      " \"rejected\": {\"logprob\": -140, \"tokens\": 25}}",
                      i ? ", " : "");
    }
    fm_buf_printf(&text, "]}}]");
    fm_json_t *items = json(fm_buf_cstr(&text));
    fm_buf_fini(&text);
    return items;
}

static void trials_run(const char *dir, const char *base, int trials)
{
    const fm_cas_options_t writer = {.writer = "sweep"};
    const fm_ops_sink_t sink = {
        .item = on_item, .checkpoint = on_checkpoint, .progress = on_progress};
    fm_json_t *items = items_make();
    fm_json_t *hints = json("{\"gradient_checkpointing\": true}");
    fm_cas_t *cas = NULL;
    fm_ops_t *ops = NULL;
    fm_error_t err = {0};

    must(fm_cas_open(dir, &writer, &cas, &err), &err);
    const fm_ops_options_t options = {.cas = cas, .work_root = dir};
    must(fm_ops_create(&options, &ops, &err), &err);
    for (int t = 0; t < trials; t++) {
        char *text = fm_asprintf(
            "{\"model\": {\"digest\": \"%s\"}, \"lora\": {\"r\": 8,"
            " \"alpha\": 16, \"dropout\": 0, \"target_modules\":"
            " [\"q_proj\", \"v_proj\"]}, \"training\": {\"learning_rate\": "
            "%g, \"steps\": 1, \"batch_size\": %d, \"beta\": 0.1}}",
            base, 1e-4 * (t + 1), PAIRS);
        fm_json_t *params = json(text ? text : "");
        const fm_ops_batch_t batch = {.task_type = "dpo",
                                      .params = params,
                                      .hints = hints,
                                      .items = items};
        must(fm_ops_run(ops, &batch, &sink, &err), &err);
        fm_json_drop(params);
        free(text);
    }
    fm_ops_destroy(ops);
    fm_cas_close(cas);
    fm_json_drop(hints);
    fm_json_drop(items);
}

/* Peak memory, in MiB, of a process that runs @p trials trials. */
static double peak_mib(const char *dir, const char *base, int trials)
{
    struct rusage usage;
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        trials_run(dir, base, trials);
        _exit(0);
    }
    if (pid < 0 || wait4(pid, &status, 0, &usage) != pid ||
        !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        (void)fprintf(stderr, "bench_sweep: %d trials: no peak (status %d)\n",
                      trials, status);
        exit(1);
    }
    return (double)usage.ru_maxrss / 1024;
}

/* In a process of its own, or the weights would count for every child. */
static double base_mib(const char *dir, char *digest)
{
    int ends[2];
    size_t bytes = 0;

    if (pipe(ends) != 0) {
        return 0;
    }
    pid_t pid = fork();
    if (pid == 0) {
        bytes = base_store(dir, digest);
        bool sent = write(ends[1], &bytes, sizeof(bytes)) == sizeof(bytes) &&
                    write(ends[1], digest, FM_DIGEST_TEXT_BYTES) ==
                        FM_DIGEST_TEXT_BYTES;
        _exit(sent ? 0 : 1);
    }
    (void)close(ends[1]);
    bool got =
        pid > 0 && read(ends[0], &bytes, sizeof(bytes)) == sizeof(bytes) &&
        read(ends[0], digest, FM_DIGEST_TEXT_BYTES) == FM_DIGEST_TEXT_BYTES;
    (void)close(ends[0]);
    (void)waitpid(pid, NULL, 0);
    if (!got) {
        (void)fprintf(stderr, "bench_sweep: the base was not stored\n");
        exit(1);
    }
    return (double)bytes / (1024 * 1024);
}

int main(void)
{
    fm_bench_series_t one = {0};
    fm_bench_series_t sweep = {0};
    fm_bench_series_t weights = {0};
    char digest[FM_DIGEST_TEXT_BYTES] = "";
    char dir[] = "/tmp/bench_sweep.XXXXXX";

    if (!mkdtemp(dir)) {
        perror("bench_sweep: /tmp");
        return 1;
    }
    double base = base_mib(dir, digest);
    double idle = peak_mib(dir, digest, 0);
    fm_bench_add(&weights, base);
    fm_bench_add(&one, peak_mib(dir, digest, 1) - idle);
    fm_bench_add(&sweep, peak_mib(dir, digest, TRIALS) - idle);
    const fm_bench_peer_t peer = {"base_weights", &weights};
    fm_bench_print("engine.dpo_trial_memory", &one, "MiB", FM_BENCH_LESS,
                   &peer);
    fm_bench_print("engine.dpo_sweep_memory", &sweep, "MiB", FM_BENCH_LESS,
                   &peer);
    (void)!fm_file_remove_tree(dir, NULL);
    return 0;
}
