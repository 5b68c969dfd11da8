/* SPDX-License-Identifier: Apache-2.0 */
/* run/ops: inference, logprobs, score and embedding, with adapters. */
#include <math.h>

#include "base/file.h"
#include "base/rng.h"
#include "engine/model/pass.h"
#include "ops_fixture.h"
#include "run/model/transfer.h"

/* A stored reward model and adapters of it. */
struct stored {
    fm_engine_backend_t *be;
    fm_model_t model;
    char *digest;      /* texts */
    char *adapters[2]; /* of it */
    char *stranger;    /* an adapter of another base */
};

static char *digest_text(const fm_digest_t *digest)
{
    char text[FM_DIGEST_TEXT_BYTES];

    return fm_strdup(fm_digest_format(digest, text));
}

static char *adapter_store(world_t *world, const struct stored *s,
                           const fm_digest_t *base, uint64_t seed)
{
    const fm_engine_adapter_config_t config = {
        .rank = 2, .alpha = 4, .targets = 127};
    fm_model_adapter_t made = {0};
    fm_digest_t digest;
    fm_error_t err = {0};
    fm_rng_t rng;

    FM_ASSERT_OK(
        fm_engine_adapter_create(&config, s->model.model, &made.adapter, &err),
        &err);
    size_t size = fm_engine_adapter_size(made.adapter);
    float *values = fm_calloc(size, sizeof(*values));
    CU_ASSERT_PTR_NOT_NULL_FATAL(values);
    fm_rng_init(&rng, seed);
    for (size_t i = 0; i < size; i++) {
        values[i] = (float)fm_rng_normal(&rng);
    }
    FM_ASSERT_OK(fm_engine_adapter_write(made.adapter, 0, size, values, &err),
                 &err);
    free(values);
    FM_ASSERT_OK(fm_model_adapter_store(world->cas, &made, base, NULL, NULL,
                                        &digest, &err),
                 &err);
    fm_model_adapter_fini(&made);
    return digest_text(&digest);
}

static void stored_open(world_t *world, struct stored *s)
{
    static const char config[] =
        "{\"hidden_size\":16,\"intermediate_size\":32,\"num_hidden_layers\":2,"
        "\"num_attention_heads\":2,\"max_position_embeddings\":64,"
        "\"vocab_size\":260}";
    fm_json_t *json = json_of(config);
    fm_error_t err = {0};
    fm_digest_t digest;
    const fm_digest_t other = fm_sha256("other", 5);

    *s = (struct stored){0};
    FM_ASSERT_OK(fm_engine_backend_create_cpu(&s->be, &err), &err);
    FM_ASSERT_OK(fm_model_make(world->cas, json, NULL, s->be, &s->model, &err),
                 &err);
    fm_json_drop(json);
    FM_ASSERT_OK(fm_engine_model_init(s->model.model, 3, &err), &err);
    FM_ASSERT_OK(fm_engine_value_create(s->model.model, &s->model.score, &err),
                 &err);
    FM_ASSERT_OK(fm_engine_value_init(s->model.score, 4, &err), &err);
    FM_ASSERT_OK(
        fm_model_store(world->cas, &s->model, NULL, NULL, &digest, &err), &err);
    s->model.digest = digest;
    s->digest = digest_text(&digest);
    s->adapters[0] = adapter_store(world, s, &digest, 1);
    s->adapters[1] = adapter_store(world, s, &digest, 2);
    s->stranger = adapter_store(world, s, &other, 2);
    FM_ASSERT_OK(fm_cas_seal(world->cas, &err), &err);
}

static void stored_close(struct stored *s)
{
    fm_model_fini(&s->model);
    fm_engine_backend_destroy(s->be);
    free(s->digest);
    free(s->adapters[0]);
    free(s->adapters[1]);
    free(s->stranger);
}

static char *params_of(const struct stored *s, const char *more)
{
    return fm_asprintf("{\"model\":{\"digest\":\"%s\"}%s}", s->digest, more);
}

/* Requests for many adapters in one batch: each as if it were alone. */
static void test_adapters(void)
{
    world_t world = {0};
    struct stored s;
    seen_t all = {0};

    world_open(&world, "w");
    stored_open(&world, &s);
    char *params = params_of(&s, ",\"max_tokens\":12,\"temperature\":1,\"n\":2,"
                                 "\"repetition_penalty\":1.1,\"min_p\":0.001");
    char *values[5] = {
        fm_strdup("{\"prompt\":\"abcdefghijklmnopqrstuvwxyz\"}"),
        fm_asprintf("{\"prompt\":\"abcdefghijklmnopqrstuvwxyz\",\"adapter\":"
                    "\"%s\"}",
                    s.adapters[0]),
        fm_asprintf("{\"prompt\":\"abcdefghijklmnopqrstuvwxyz\",\"adapter\":"
                    "\"%s\"}",
                    s.adapters[1]),
        fm_strdup("{\"prompt\":\"abcdefghijklmnopqrstuvwxyz\",\"seed\":5}"),
        fm_asprintf("{\"prompt\":\"a\",\"adapter\":\"%s\"}", s.stranger)};
    char *list = fm_asprintf("[%s,%s,%s,%s,%s]", values[0], values[1],
                             values[2], values[3], values[4]);
    world_run(&world, "inference", params, list, &all);
    CU_ASSERT_EQUAL(all.items, 5);
    CU_ASSERT_EQUAL(all.errors, 1);
    CU_ASSERT_PTR_NOT_NULL(strstr(all.error, "adapter"));
    CU_ASSERT(!all.infra);
    for (size_t i = 0; i < 4; i++) {
        seen_t alone = {0};
        char *one = fm_asprintf("[%s]", values[i]);
        world_run(&world, "inference", params, one, &alone);
        CU_ASSERT_PTR_NOT_NULL_FATAL(all.outputs[i]);
        CU_ASSERT_STRING_EQUAL(alone.outputs[0], all.outputs[i]);
        for (size_t j = 0; j < i; j++) {
            CU_ASSERT_STRING_NOT_EQUAL(all.outputs[i], all.outputs[j]);
        }
        fm_json_t *texts = json_of(all.outputs[i]);
        CU_ASSERT_EQUAL(fm_json_len(texts), 2);
        CU_ASSERT(!fm_json_equal(fm_json_at(texts, 0), fm_json_at(texts, 1)));
        fm_json_drop(texts);
        seen_fini(&alone);
        free(one);
    }
    for (size_t i = 0; i < 5; i++) {
        free(values[i]);
    }
    free(list);
    free(params);
    seen_fini(&all);
    stored_close(&s);
    world_close(&world, true);
}

/* A rollout says tokens, text and log-probs; logprobs of the same ids, with
 * the same adapter, are those. */
static void check_rollout(world_t *world, const struct stored *s,
                          const char *adapter, const fm_json_t *rollout)
{
    const fm_json_t *list = fm_json_get(rollout, "completions");
    char *prompt = fm_json_canonical(fm_json_get(rollout, "prompt_tokens"));
    char *params = params_of(s, ",\"tokens\":true");

    CU_ASSERT_EQUAL(fm_json_len(list), 3);
    for (size_t i = 0; i < fm_json_len(list); i++) {
        const fm_json_t *completion = fm_json_at(list, i);
        const fm_json_t *logprobs = fm_json_get(completion, "logprobs");
        char *tokens = fm_json_canonical(fm_json_get(completion, "tokens"));
        char *values = fm_asprintf(
            "[{\"prompt_tokens\":%s,\"completion_tokens\":%s%s%s%s}]", prompt,
            tokens, adapter ? ",\"adapter\":\"" : "", adapter ? adapter : "",
            adapter ? "\"" : "");
        const char *finish = fm_json_get_str(completion, "finish");
        seen_t seen = {0};
        double sum = 0;
        CU_ASSERT(strcmp(finish, "stop") == 0 || strcmp(finish, "length") == 0);
        CU_ASSERT(strcmp(finish, "stop") == 0 || fm_json_len(logprobs) == 9);
        world_run(world, "logprobs", params, values, &seen);
        fm_json_t *want = json_of(seen.outputs[0]);
        CU_ASSERT_EQUAL(fm_json_get_int(want, "tokens", -1),
                        (int64_t)fm_json_len(logprobs));
        for (size_t t = 0; t < fm_json_len(logprobs); t++) {
            double ours = fm_json_real_or(fm_json_at(logprobs, t), 1);
            double theirs = fm_json_real_or(
                fm_json_at(fm_json_get(want, "logprobs"), t), -1);
            CU_ASSERT(fabs(ours - theirs) < 1e-4);
            sum += theirs;
        }
        CU_ASSERT(fabs(sum - fm_json_get_real(want, "logprob", 1)) < 1e-6);
        fm_json_drop(want);
        seen_fini(&seen);
        free(tokens);
        free(values);
    }
    free(prompt);
    free(params);
}

static void test_rollouts(void)
{
    world_t world = {0};
    struct stored s;
    seen_t seen = {0};

    world_open(&world, "w");
    stored_open(&world, &s);
    char *params = params_of(&s, ",\"max_tokens\":9,\"temperature\":1.5,"
                                 "\"n\":3,\"return\":\"tokens\"");
    char *values = fm_asprintf("[{\"prompt\":\"two words\",\"seed\":1},"
                               "{\"prompt\":\"\",\"seed\":1,\"adapter\":\"%s\"}"
                               "]",
                               s.adapters[1]);
    world_run(&world, "inference", params, values, &seen);
    CU_ASSERT_EQUAL(seen.errors, 0);
    for (size_t i = 0; i < 2; i++) {
        fm_json_t *rollout = json_of(seen.outputs[i]);
        check_rollout(&world, &s, i == 1 ? s.adapters[1] : NULL, rollout);
        fm_json_drop(rollout);
    }
    free(values);
    free(params);
    seen_fini(&seen);
    stored_close(&s);
    world_close(&world, true);
}

static void test_stop(void)
{
    world_t world = {0};
    struct stored s;
    seen_t full = {0};
    seen_t cut = {0};

    world_open(&world, "w");
    stored_open(&world, &s);
    char *params = params_of(&s, ",\"max_tokens\":30,\"temperature\":1,"
                                 "\"top_k\":40");
    const char *values = "[{\"prompt\":\"x\",\"seed\":3}]";
    world_run(&world, "inference", params, values, &full);
    free(params);
    fm_json_t *text = json_of(full.outputs[0]);
    const char *whole = fm_json_str(text);
    CU_ASSERT_FATAL(strlen(whole) > 4);
    size_t at = strlen(whole) / 2; /* not inside a character */
    while (((unsigned char)whole[at] & 0xC0) == 0x80) {
        at--;
    }
    fm_json_t *stop = fm_json_string(whole + at);
    char *quoted = fm_json_canonical(stop);
    char *more = fm_asprintf(",\"max_tokens\":30,\"temperature\":1,\"top_k\":40"
                             ",\"stop\":[%s]",
                             quoted);
    params = params_of(&s, more);
    world_run(&world, "inference", params, values, &cut);
    fm_json_t *rest = json_of(cut.outputs[0]);
    size_t want = (size_t)(strstr(whole, whole + at) - whole);
    CU_ASSERT_EQUAL(fm_json_str_len(rest), want);
    CU_ASSERT_EQUAL(strncmp(fm_json_str(rest), whole, want), 0);
    fm_json_drop(text);
    fm_json_drop(stop);
    fm_json_drop(rest);
    free(quoted);
    free(more);
    free(params);
    seen_fini(&full);
    seen_fini(&cut);
    stored_close(&s);
    world_close(&world, true);
}

/* The score of the last token, computed here from its hidden state. */
static double score_of(const struct stored *s, const int32_t *tokens,
                       size_t count)
{
    const int32_t offsets[2] = {0, (int32_t)count};
    const fm_engine_batch_t batch = {
        .tokens = tokens, .offsets = offsets, .count = 1};
    fm_engine_pass_t *pass = NULL;
    fm_error_t err = {0};
    float state[16], weight[16];
    double sum = 0;

    FM_ASSERT_OK(fm_engine_pass_create(s->model.model, false, &pass, &err),
                 &err);
    FM_ASSERT_OK(fm_engine_pass_forward(pass, &batch, &err), &err);
    FM_ASSERT_OK(fm_engine_pass_hidden(pass, count - 1, 1, state, &err), &err);
    FM_ASSERT_OK(fm_engine_value_read(s->model.score, 0, 16, weight, &err),
                 &err);
    fm_engine_pass_destroy(pass);
    for (size_t i = 0; i < 16; i++) {
        sum += (double)state[i] * (double)weight[i];
    }
    return sum;
}

static void test_score(void)
{
    world_t world = {0};
    struct stored s;
    seen_t seen = {0};
    const int32_t tokens[] = {256, 'h', 'i', ' ', 'y', 'o', 257};

    world_open(&world, "w");
    stored_open(&world, &s);
    char *params = params_of(&s, "");
    char *values = fm_asprintf(
        "[{\"prompt\":\"hi\",\"completion\":\" yo\"},"
        "{\"prompt_tokens\":[256,104,105],\"completion_tokens\":[32,121,111,"
        "257]},{\"prompt\":\"hi\",\"completion\":\" yo\",\"adapter\":\"%s\"},"
        "{\"prompt_tokens\":[256],\"completion_tokens\":[260]},"
        "{\"prompt_tokens\":[256],\"completion_tokens\":[]}]",
        s.adapters[0]);
    world_run(&world, "score", params, values, &seen);
    CU_ASSERT_EQUAL(seen.errors, 2);
    CU_ASSERT_PTR_NOT_NULL_FATAL(seen.outputs[0]);
    CU_ASSERT(fabs(atof(seen.outputs[0]) - score_of(&s, tokens, 7)) < 1e-5);
    CU_ASSERT_STRING_EQUAL(seen.outputs[0], seen.outputs[1]);
    CU_ASSERT_STRING_NOT_EQUAL(seen.outputs[0], seen.outputs[2]);
    world_refuse(&world, "score", "{\"model\":" MODEL "}",
                 "[{\"prompt\":\"a\",\"completion\":\"b\"}]",
                 "a reward model is needed");
    free(params);
    params = params_of(&s, ",\"max_seq_length\":3");
    world_refuse(&world, "score", params,
                 "[{\"prompt_tokens\":[1,2],\"completion_tokens\":[3,4]}]",
                 "2 and 2 pass max_seq_length 3");
    free(params);
    free(values);
    seen_fini(&seen);
    stored_close(&s);
    world_close(&world, true);
}

static void test_embedding(void)
{
    world_t world = {0};
    struct stored s;
    static const char *const forms[] = {
        ",\"pooling\":\"mean\"", ",\"pooling\":\"last\"",
        ",\"pooling\":\"mean\",\"normalize\":false"};
    double vectors[3][16] = {{0}};
    char *outputs[3][2] = {{NULL}};

    world_open(&world, "w");
    stored_open(&world, &s);
    char *values = fm_asprintf("[{\"text\":\"some words\"},{\"text\":\"some "
                               "words\",\"adapter\":\"%s\"},{\"text\":7}]",
                               s.adapters[0]);
    for (size_t i = 0; i < 3; i++) {
        char *params = params_of(&s, forms[i]);
        seen_t seen = {0};
        double square = 0;
        world_run(&world, "embedding", params, values, &seen);
        CU_ASSERT_EQUAL(seen.errors, 1);
        CU_ASSERT_PTR_NOT_NULL_FATAL(seen.outputs[0]);
        fm_json_t *list = json_of(seen.outputs[0]);
        CU_ASSERT_EQUAL(fm_json_len(list), 16);
        for (size_t k = 0; k < 16; k++) {
            vectors[i][k] = fm_json_real_or(fm_json_at(list, k), NAN);
            square += vectors[i][k] * vectors[i][k];
        }
        CU_ASSERT((fabs(square - 1) < 1e-5) == (i < 2));
        fm_json_drop(list);
        outputs[i][0] = fm_strdup(seen.outputs[0]);
        outputs[i][1] = fm_strdup(seen.outputs[1]);
        CU_ASSERT_STRING_NOT_EQUAL(outputs[i][0], outputs[i][1]);
        seen_fini(&seen);
        free(params);
    }
    CU_ASSERT_STRING_NOT_EQUAL(outputs[0][0], outputs[1][0]);
    double scale = vectors[2][0] / vectors[0][0];
    for (size_t k = 0; k < 16; k++) { /* one direction */
        CU_ASSERT(fabs(vectors[0][k] * scale - vectors[2][k]) < 1e-4);
    }
    for (size_t i = 0; i < 3; i++) {
        free(outputs[i][0]);
        free(outputs[i][1]);
    }
    world_refuse(&world, "embedding", "{\"model\":" MODEL ",\"pooling\":\"x\"}",
                 "[{\"text\":\"a\"}]", "pooling: mean or last");
    free(values);
    stored_close(&s);
    world_close(&world, true);
}

/* One model of tests/ref/data/hf against what transformers generated. */
static void check_reference(world_t *world, const char *name,
                            const fm_json_t *messages, const fm_json_t *want)
{
    static const struct {
        const char *key, *penalty;
    } rows[] = {{"greedy", "1"}, {"penalised", "1.4"}};
    char *path = fm_asprintf("%s/hf/%s", FM_TEST_REF_DIR, name);
    char *chat = fm_json_canonical(messages);
    char *values = fm_asprintf("[{\"messages\":%s}]", chat);
    char text[FM_DIGEST_TEXT_BYTES];
    fm_model_imported_t imported;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_model_import(world->cas, path, NULL, &imported, &err),
                 &err);
    for (size_t i = 0; i < FM_COUNT_OF(rows); i++) {
        char *params = fm_asprintf(
            "{\"model\":{\"digest\":\"%s\"},\"max_tokens\":20,\"return\":"
            "\"tokens\",\"repetition_penalty\":%s}",
            fm_digest_format(&imported.digest, text), rows[i].penalty);
        seen_t seen = {0};
        world_run(world, "inference", params, values, &seen);
        CU_ASSERT_EQUAL(seen.errors, 0);
        CU_ASSERT_PTR_NOT_NULL_FATAL(seen.outputs[0]);
        fm_json_t *got = json_of(seen.outputs[0]);
        CU_ASSERT(fm_json_equal(fm_json_get(got, "prompt_tokens"),
                                fm_json_get(want, "prompt_tokens")));
        CU_ASSERT(fm_json_equal(
            fm_json_get(fm_json_at(fm_json_get(got, "completions"), 0),
                        "tokens"),
            fm_json_get(want, rows[i].key)));
        fm_json_drop(got);
        seen_fini(&seen);
        free(params);
    }
    free(path);
    free(chat);
    free(values);
}

/* Chat template, families, end of text and penalty as in transformers. */
static void test_reference(void)
{
    world_t world = {0};
    fm_buf_t text = {0};
    fm_error_t err = {0};
    void *iterator = NULL;
    const char *name = NULL;
    fm_json_t *want = NULL;

    FM_ASSERT_OK(
        fm_file_read(FM_TEST_REF_DIR "/hf_generate.json", 1 << 20, &text, &err),
        &err);
    fm_json_t *all = json_of(fm_buf_cstr(&text));
    const fm_json_t *models = fm_json_get(all, "models");
    CU_ASSERT_EQUAL(fm_json_len(models), 3);
    world_open(&world, "w");
    while (fm_json_next(models, &iterator, &name, &want)) {
        check_reference(&world, name, fm_json_get(all, "messages"), want);
    }
    world_close(&world, true);
    fm_json_drop(all);
    fm_buf_fini(&text);
}

static void test_refusals(void)
{
    static const struct {
        const char *params, *value, *part;
    } cases[] = {
        {",\"n\":0", "{\"prompt\":\"a\"}", "n"},
        {",\"min_p\":2", "{\"prompt\":\"a\"}", "min_p"},
        {",\"repetition_penalty\":0", "{\"prompt\":\"a\"}",
         "repetition_penalty"},
        {",\"stop\":\"x\"", "{\"prompt\":\"a\"}", "stop: a list"},
        {",\"stop\":[\"x\",\"\"]", "{\"prompt\":\"a\"}", "stop[1]"},
        {",\"return\":\"ids\"", "{\"prompt\":\"a\"}", "return: text or tokens"},
        {",\"max_tokens\":64", "{\"prompt\":\"abc\"}",
         "4 tokens + max_new_tokens 64 exceed max_position_embeddings 64"},
        {"", "{\"prompt\":\"a\",\"adapter\":\"sha256:1\"}", "adapter"},
        {"", "{\"prompt\":\"a\",\"adapter\":7}", "adapter"},
        {"", "{\"prompt\":\"a\",\"seed\":-1}", "seed"},
        {"", "{\"prompt\":null}", "prompt"},
        {"", "{}", "prompt"},
        {"", "7", "prompt"},
        {"", "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}",
         "chat template"},
    };
    world_t world = {0};

    world_open(&world, "w");
    for (size_t i = 0; i < FM_COUNT_OF(cases); i++) {
        char *params = fm_asprintf("{\"model\":" MODEL "%s}", cases[i].params);
        char *values = fm_asprintf("[%s]", cases[i].value);
        world_refuse(&world, "inference", params, values, cases[i].part);
        free(params);
        free(values);
    }
    world_close(&world, true);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"adapters in one batch", test_adapters},
        {"rollouts", test_rollouts},
        {"stop texts", test_stop},
        {"scores", test_score},
        {"embeddings", test_embedding},
        {"as transformers generates", test_reference},
        {"refusals", test_refusals},
    };

    return fm_test_main("inference operators", cases, FM_COUNT_OF(cases));
}
