/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operators against a real store: what each yields, what it refuses, and that
 * it yields the same twice.
 */
#include <math.h>

#include "base/file.h"
#include "ops_fixture.h"

static void test_echo(void)
{
    world_t world = {0};
    seen_t seen = {0};
    char text[FM_DIGEST_TEXT_BYTES];

    world_open(&world, "w");
    world_run(&world, "echo", "{}",
              "[{\"value\":{\"b\":1,\"a\":2.0}},{\"value\":7}]", &seen);
    CU_ASSERT_STRING_EQUAL(seen.outputs[0], "{\"a\":2,\"b\":1}");
    CU_ASSERT_STRING_EQUAL(seen.outputs[1], "7");
    seen_fini(&seen);
    /* A value that lives in the store; one inside a value is user data. */
    char *values =
        fm_asprintf("[{\"$object\":\"%s\"},{\"value\":{\"$object\":\"x\"}}]",
                    world_store(&world, "{\"value\":[1,2]}", text));
    world_run(&world, "echo", "{}", values, &seen);
    CU_ASSERT_STRING_EQUAL(seen.outputs[0], "[1,2]");
    CU_ASSERT_STRING_EQUAL(seen.outputs[1], "{\"$object\":\"x\"}");
    free(values);
    seen_fini(&seen);
    values = fm_asprintf("[{\"$object\":\"sha256:%064d\"}]", 7);
    world_run(&world, "echo", "{}", values, &seen);
    CU_ASSERT_EQUAL(seen.errors, 1);
    CU_ASSERT(seen.infra); /* lost: its producer must run again */
    free(values);
    seen_fini(&seen);
    world_refuse(&world, "teleport", "{}", "[1]", "teleport");
    world_close(&world, true);
}

/* An output over the bound is an object of the store with the same bytes. */
static void test_large_output(void)
{
    world_t world = {0};
    seen_t seen = {0};
    fm_error_t err = {0};
    fm_buf_t bytes = {0};
    char *text = fm_malloc(100001);

    world_open(&world, "w");
    memset(text, 'a', 100000);
    text[100000] = '\0';
    char *values = fm_asprintf("[{\"value\":\"%s\"}]", text);
    world_run(&world, "echo", "{}", values, &seen);
    CU_ASSERT_EQUAL(seen.errors, 0);
    FM_ASSERT_OK(fm_cas_get(world.cas, &seen.stored, &bytes, &err), &err);
    CU_ASSERT_EQUAL(bytes.len, 100002);
    CU_ASSERT_EQUAL(memcmp(bytes.data + 1, text, 100000), 0);
    fm_cas_locator_t locator;
    CU_ASSERT(fm_cas_locate(world.cas, &seen.stored, &locator));
    fm_buf_fini(&bytes);
    free(values);
    free(text);
    seen_fini(&seen);
    world_close(&world, true);
}

static void test_python(void)
{
    world_t world = {0};
    seen_t seen = {0};
    char text[FM_DIGEST_TEXT_BYTES];

    world_open(&world, "w");
    world_expect(
        &world, "python",
        "{\"code\":{\"text\":\"import json, os\\ndef go(inputs):\\n  return "
        "{k: json.load(open(os.path.join(v, 'results.json'))) for k, v in "
        "inputs.items()}\"},\"entrypoint\":\"go\"}",
        "[{\"inputs\":{\"a@b/c\":{\"items\":[{\"output\":3}]}}}]",
        "{\"a@b/c\":{\"result\":{\"items\":[{\"output\":3}]}}}");
    char *params = fm_asprintf(
        "{\"code\":{\"digest\":\"%s\"},\"seed\":5}",
        world_store(
            &world,
            "import os\ndef main(i): return [os.environ['FLOWMESH_SEED'], "
            "list({'a', 'b', 'c', 'd'}) == list({'a', 'b', 'c', 'd'})]",
            text));
    world_expect(&world, "python", params, "[{\"inputs\":{}}]", "[\"5\",true]");
    free(params);
    world_refuse(
        &world, "python",
        "{\"code\":{\"text\":\"def main(i): raise ValueError('oh dear')\"}}",
        "[{}]", "ValueError: oh dear");
    world_refuse(&world, "python", "{\"code\":{\"text\":\"x = 1\"}}", "[{}]",
                 "no function main");
    world_refuse(&world, "python", "{\"code\":{\"text\":\"def main(i\"}}",
                 "[{}]", "SyntaxError");
    world_refuse(&world, "python",
                 "{\"code\":{\"text\":\"def main(i): return {1, 2}\"}}", "[{}]",
                 "not JSON");
    world_refuse(&world, "python",
                 "{\"code\":{\"text\":\"def main(i): return float('nan')\"}}",
                 "[{}]", "not JSON");
    world_refuse(
        &world, "python",
        "{\"code\":{\"text\":\"import os\\ndef main(i): os._exit(0)\"}}",
        "[{}]", "before the function returned");
    world_refuse(&world, "python", "{}", "[{}]", "code");
    CU_ASSERT_EQUAL(
        world_run_hints(
            &world, "python",
            "{\"code\":{\"text\":\"import subprocess\\ndef main(i): "
            "subprocess.run(['sleep', '1000'])\"}}",
            "[{}]", "{\"timeout_s\":0.2}", NULL, &seen),
        FM_OK);
    CU_ASSERT_PTR_NOT_NULL(strstr(seen.error, "not finished after 0.2 s"));
    CU_ASSERT(!seen.infra);
    seen_fini(&seen);
    world_close(&world, true);
}

static void test_command(void)
{
    world_t world = {0};
    seen_t seen = {0};
    char text[FM_DIGEST_TEXT_BYTES];
    fm_error_t err = {0};
    fm_buf_t bytes = {0};

    world_open(&world, "w");
    world_expect(&world, "command",
                 "{\"argv\":[\"sh\",\"-c\",\"echo $X $FLOWMESH_SEED; cat\"],"
                 "\"env\":{\"X\":1.5},\"seed\":9}",
                 "[{\"inputs\":{}}]",
                 "{\"exit\":0,\"files\":{},\"stdout\":\"1.5 9\\n\"}");
    char *values = fm_asprintf("[{\"inputs\":{\"d/f\":{\"digest\":\"%s\"},"
                               "\"t\":{\"value\":\"text\"},"
                               "\"j\":{\"value\":{\"b\":1,\"a\":[]}}}}]",
                               world_store(&world, "bytes", text));
    world_run(&world, "command",
              "{\"argv\":[\"sh\",\"-c\",\"mkdir o; cat d/f t j > o/all\"],"
              "\"outputs\":[\"o/all\"]}",
              values, &seen);
    free(values);
    CU_ASSERT_PTR_NOT_NULL_FATAL(seen.outputs[0]);
    CU_ASSERT_EQUAL(seen.objects, 1);
    const char *want = "bytestext{\"a\":[],\"b\":1}";
    fm_digest_t digest = fm_sha256(want, strlen(want));
    CU_ASSERT_PTR_NOT_NULL(
        strstr(seen.outputs[0], fm_digest_format(&digest, text)));
    FM_ASSERT_OK(fm_cas_get(world.cas, &digest, &bytes, &err), &err);
    fm_buf_fini(&bytes);
    seen_fini(&seen);
    world_refuse(&world, "command",
                 "{\"argv\":[\"sh\",\"-c\",\"echo no such luck >&2; exit 4\"]}",
                 "[{}]", "exit status 4; last words: no such luck");
    world_refuse(&world, "command", "{\"argv\":[\"sh\",\"-c\",\"kill -9 $$\"]}",
                 "[{}]", "signal 9");
    world_refuse(&world, "command", "{\"argv\":[\"fm-no-such-program\"]}",
                 "[{}]", "no such program");
    world_refuse(&world, "command", "{\"argv\":[]}", "[{}]", "argv");
    world_refuse(&world, "command", "{\"argv\":[\"true\"],\"outputs\":[\"x\"]}",
                 "[{}]", "did not write");
    world_refuse(&world, "command",
                 "{\"argv\":[\"true\"],\"outputs\":[\"../x\"]}", "[{}]",
                 "without ..");
    world_refuse(&world, "command",
                 "{\"argv\":[\"mkfifo\",\"x\"],\"outputs\":[\"x\"]}", "[{}]",
                 "did not write");
    world_refuse(&world, "command", "{\"argv\":[\"true\"]}",
                 "[{\"inputs\":{\"/etc/x\":{\"value\":1}}}]", "without ..");
    world_refuse(&world, "command", "{\"argv\":[\"printf\",\"\\\\377\"]}",
                 "[{}]", "not UTF-8");
    world_refuse(&world, "command", "{\"argv\":[\"printf\",\"a\\\\0b\"]}",
                 "[{}]", "U+0000");
    world_refuse(&world, "command", "{\"argv\":[\"yes\"]}", "[{}]",
                 "bytes on standard output");
    world_close(&world, true);
}

/* data_retrieval of @p bytes with further parameters. */
static void retrieve(world_t *world, const char *format, const char *bytes,
                     const char *more, const char *want)
{
    char text[FM_DIGEST_TEXT_BYTES];
    char *params = fm_asprintf("{\"format\":\"%s\",\"file\":{\"digest\":\"%s\"}"
                               "%s%s}",
                               format, world_store(world, bytes, text),
                               *more ? "," : "", more);
    if (*want == '{') {
        world_expect(world, "data_retrieval", params, "[{}]", want);
    } else {
        world_refuse(world, "data_retrieval", params, "[{}]", want);
    }
    free(params);
}

static void test_data(void)
{
    world_t world = {0};

    world_open(&world, "w");
    retrieve(&world, "jsonl", "{\"a\":1}\r\n\n[2]\n3", "",
             "{\"items\":[{\"a\":1},[2],3]}");
    retrieve(&world, "jsonl", "1\n{bad\n", "", "line 2");
    retrieve(&world, "text", "one\n\n  \ntwo\r\n", "",
             "{\"items\":[\"one\",\"two\"]}");
    retrieve(&world, "text", "abcdef", "\"chunk\":{\"bytes\":4,\"stride\":2}",
             "{\"items\":[\"abcd\",\"cdef\"]}");
    retrieve(&world, "text",
             "a\xc3\xa9"
             "bc",
             "\"chunk\":{\"bytes\":2,\"stride\":2}",
             "{\"items\":[\"a\",\"\xc3\xa9"
             "b\",\"c\"]}");
    retrieve(&world, "text", "\xff", "", "not UTF-8");
    retrieve(&world, "csv", "x,y\n1,\"a \"\"b\"\"\n,c\"\r\n2,\n", "",
             "{\"items\":[{\"x\":\"1\",\"y\":\"a \\\"b\\\"\\n,c\"},"
             "{\"x\":\"2\",\"y\":\"\"}]}");
    retrieve(&world, "csv", "x,y\n1\n", "", "line 2: 1 fields");
    retrieve(&world, "csv", "x\n1\n\"a\nb\"\n1,2\n", "", "line 5: 2 fields");
    retrieve(&world, "csv", "\xef\xbb\xbfx,y\r\n1,2\r\n", "",
             "{\"items\":[{\"x\":\"1\",\"y\":\"2\"}]}");
    retrieve(&world, "csv", "x,y\r1,2\r", "", "line 1: a carriage return");
    retrieve(&world, "csv", "x,y\n1,\xff\n", "", "line 2: column y is not");
    retrieve(&world, "csv", "x\n1\"2\n", "", "line 2: a quote inside");
    retrieve(&world, "jsonl", "\xef\xbb\xbf{\"a\":1}\n", "",
             "{\"items\":[{\"a\":1}]}");
    retrieve(&world, "jsonl", "1\n\xff\n", "", "line 2");
    retrieve(&world, "jsonl", "{\"a\":1,\"a\":2}\n", "", "duplicate");
    retrieve(&world, "csv", "x,x\n", "", "column 2");
    retrieve(&world, "csv", "x\n\"1", "", "never closed");
    retrieve(&world, "csv", "x\n\"1\"2\n", "", "after a closing quote");
    retrieve(&world, "csv", "x,y\n1,2\n", "\"columns\":[\"y\"]",
             "{\"items\":[{\"y\":\"2\"}]}");
    retrieve(&world, "csv", "x,y\n1,2\n", "\"columns\":[\"z\"]", "no z");
    retrieve(&world, "xml", "", "", "text or hdf5 is allowed");
    retrieve(&world, "jsonl", "1\n2\n3\n4\n5\n",
             "\"split\":{\"part\":\"all\",\"unit\":\"records\",\"from\":1,"
             "\"to\":-1}",
             "{\"items\":[2,3,4]}");
    retrieve(&world, "jsonl", "1\n2\n3\n4\n5\n",
             "\"split\":{\"unit\":\"percent\",\"from\":20,\"to\":60}",
             "{\"items\":[2,3]}");
    retrieve(&world, "jsonl", "1\n2\n", "\"split\":{\"from\":5,\"to\":null}",
             "{\"items\":[]}");
    retrieve(&world, "jsonl", "1", "\"test_fraction\":2", "test_fraction");
    world_close(&world, true);
}

/* Train and test are disjoint, complete, in file order; shuffle permutes. */
static void test_data_parts(void)
{
    world_t world = {0};
    seen_t train = {0}, test = {0}, mixed = {0};
    char text[FM_DIGEST_TEXT_BYTES];
    bool found[10] = {false};

    world_open(&world, "w");
    (void)world_store(&world, "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n", text);
    for (int i = 0; i < 3; i++) {
        static const char *const parts[] = {"train", "test", "all"};
        seen_t *to[] = {&train, &test, &mixed};
        char *params = fm_asprintf(
            "{\"format\":\"jsonl\",\"file\":{\"digest\":\"%s\"},\"seed\":3,"
            "\"test_fraction\":0.3,\"split\":{\"part\":\"%s\"},"
            "\"shuffle\":%s}",
            text, parts[i], i == 2 ? "true" : "false");
        world_run(&world, "data_retrieval", params, "[{}]", to[i]);
        free(params);
    }
    const seen_t *sides[] = {&train, &test};
    const size_t counts[] = {7, 3};
    for (int side = 0; side < 2; side++) {
        fm_json_t *value = json_of(sides[side]->outputs[0]);
        const fm_json_t *items = fm_json_get(value, "items");
        int64_t before = -1;
        CU_ASSERT_EQUAL(fm_json_len(items), counts[side]);
        for (size_t i = 0; i < fm_json_len(items); i++) {
            int64_t n = fm_json_int_or(fm_json_at(items, i), 0);
            CU_ASSERT(n > before && !found[n]);
            found[n] = true;
            before = n;
        }
        fm_json_drop(value);
    }
    CU_ASSERT_EQUAL(strlen(mixed.outputs[0]),
                    strlen("{\"items\":[0,1,2,3,4,5,6,7,8,9]}"));
    CU_ASSERT_STRING_NOT_EQUAL(mixed.outputs[0],
                               "{\"items\":[0,1,2,3,4,5,6,7,8,9]}");
    seen_fini(&train);
    seen_fini(&test);
    seen_fini(&mixed);
    world_close(&world, true);
}

static void test_inference(void)
{
    world_t world = {0};
    seen_t both = {0}, alone = {0};
    const char *params = "{\"model\":" MODEL ",\"max_tokens\":8,"
                         "\"temperature\":1,\"seed\":4}";

    world_open(&world, "w");
    world_run(&world, "inference", params,
              "[{\"prompt\":\"abc\"},{\"prompt\":\"defgh\"},{\"prompt\":5},"
              "{\"prompt\":\"0123456789012345678901234567890123456789"
              "01234567890123456789\"}]",
              &both);
    world_run(&world, "inference", params, "[{\"prompt\":\"abc\"}]", &alone);
    CU_ASSERT_EQUAL(both.items, 4);
    CU_ASSERT_EQUAL(both.errors, 2); /* no text, too long: theirs alone */
    CU_ASSERT_PTR_NOT_NULL_FATAL(both.outputs[0]);
    CU_ASSERT_PTR_NOT_NULL(both.outputs[1]);
    CU_ASSERT_STRING_EQUAL(both.outputs[0], alone.outputs[0]);
    seen_fini(&both);
    seen_fini(&alone);
    world_refuse(&world, "inference", "{\"model\":{\"config\":{}}}",
                 "[{\"prompt\":\"a\"}]", "config");
    world_refuse(&world, "inference", "{}", "[{\"prompt\":\"a\"}]", "model");
    world_refuse(&world, "inference", "{\"model\":" MODEL ",\"top_p\":2}",
                 "[{\"prompt\":\"a\"}]", "top_p");
    world_close(&world, true);
}

#define SFT                                                                    \
    "{\"model\":" MODEL ",\"training\":{\"batch_size\":2,\"steps\":7,"         \
    "\"learning_rate\":0.01,\"seed\":1}}"
#define SAMPLES                                                                \
    "[{\"samples\":[{\"text\":\"aaaa\"},{\"prompt\":\"b\",\"completion\":"     \
    "\"cc\"},{\"text\":\"dd\"}]}]"

static char *model_of(const char *output)
{
    fm_json_t *value = json_of(output);
    char *model = fm_strdup(fm_json_get_str(value, "model"));

    CU_ASSERT_PTR_NOT_NULL_FATAL(model);
    fm_json_drop(value);
    return model;
}

/* sft → logprobs → dpo → evaluate, the way a workflow chains them. */
static void test_post_training(void)
{
    world_t world = {0};
    seen_t sft = {0}, logp = {0}, dpo = {0}, eval = {0};

    world_open(&world, "w");
    world_run(&world, "sft", SFT, SAMPLES, &sft);
    CU_ASSERT_PTR_NOT_NULL_FATAL(sft.outputs[0]);
    CU_ASSERT_EQUAL(sft.progresses, 7);
    fm_json_t *value = json_of(sft.outputs[0]);
    const fm_json_t *metrics = fm_json_get(value, "metrics");
    CU_ASSERT_EQUAL(fm_json_get_int(metrics, "steps", 0), 7);
    CU_ASSERT(fm_json_get_real(metrics, "loss_last", 9) <
              fm_json_get_real(metrics, "loss_first", 0));
    fm_json_drop(value);
    char *model = model_of(sft.outputs[0]);
    char *params = fm_asprintf("{\"model\":{\"digest\":\"%s\"}}", model);
    world_run(&world, "logprobs", params,
              "[{\"prompt\":\"a\",\"completion\":\"aa\"},"
              "{\"prompt\":\"a\",\"completion\":\"zz\"}]",
              &logp);
    CU_ASSERT_PTR_NOT_NULL_FATAL(logp.outputs[1]);
    char *pairs = fm_asprintf(
        "[{\"pairs\":[{\"prompt\":\"a\",\"chosen\":\"aa\",\"rejected\":"
        "\"zz\"}],\"reference\":[{\"chosen\":%s,\"rejected\":%s}]}]",
        logp.outputs[0], logp.outputs[1]);
    char *dpo_params =
        fm_asprintf("{\"model\":{\"digest\":\"%s\"},\"training\":{\"steps\":5,"
                    "\"learning_rate\":0.01,\"beta\":0.5}}",
                    model);
    world_run(&world, "dpo", dpo_params, pairs, &dpo);
    CU_ASSERT_PTR_NOT_NULL_FATAL(dpo.outputs[0]);
    value = json_of(dpo.outputs[0]);
    metrics = fm_json_get(value, "metrics");
    /* Policy equals reference at first: log 2, a check of the reference. */
    CU_ASSERT_DOUBLE_EQUAL(fm_json_get_real(metrics, "loss_first", 0), log(2),
                           1e-5);
    CU_ASSERT(fm_json_get_real(metrics, "margin_last", -1) > 0);
    fm_json_drop(value);
    char *tuned = model_of(dpo.outputs[0]);
    char *eval_params =
        fm_asprintf("{\"model\":{\"digest\":\"%s\"},\"metrics\":["
                    "\"preference_accuracy\"]}",
                    tuned);
    world_run(&world, "evaluate", eval_params,
              "[{\"samples\":[{\"prompt\":\"a\",\"chosen\":\"aa\",\"rejected\":"
              "\"zz\"}]}]",
              &eval);
    CU_ASSERT_PTR_NOT_NULL_FATAL(eval.outputs[0]);
    CU_ASSERT_STRING_EQUAL(
        eval.outputs[0],
        "{\"metrics\":{\"preference_accuracy\":1},\"samples\":1}");
    free(eval_params);
    free(tuned);
    free(dpo_params);
    free(pairs);
    free(params);
    free(model);
    seen_fini(&sft);
    seen_fini(&logp);
    seen_fini(&dpo);
    seen_fini(&eval);
    world_close(&world, true);
}

static void test_evaluate(void)
{
    world_t world = {0};
    seen_t seen = {0};

    world_open(&world, "w");
    world_run(&world, "evaluate",
              "{\"model\":" MODEL ",\"metrics\":[\"exact_match\",\"loss\","
              "\"perplexity\"],\"max_new_tokens\":4}",
              "[{\"samples\":[{\"prompt\":\"a\",\"completion\":\"b\"}]}]",
              &seen);
    CU_ASSERT_PTR_NOT_NULL_FATAL(seen.outputs[0]);
    fm_json_t *value = json_of(seen.outputs[0]);
    double loss = fm_json_real_or(fm_json_path(value, "metrics.loss"), 0);
    CU_ASSERT(loss > 4 && loss < 7); /* log(260) = 5.56, untrained */
    CU_ASSERT_DOUBLE_EQUAL(
        fm_json_real_or(fm_json_path(value, "metrics.perplexity"), 0),
        exp(loss), 1e-9 * exp(loss));
    CU_ASSERT_EQUAL(
        fm_json_real_or(fm_json_path(value, "metrics.exact_match"), -1), 0);
    fm_json_drop(value);
    seen_fini(&seen);
    world_refuse(&world, "evaluate",
                 "{\"model\":" MODEL ",\"metrics\":[\"bleu\"]}",
                 "[{\"samples\":[{\"text\":\"a\"}]}]", "win_rate are allowed");
    world_refuse(&world, "evaluate",
                 "{\"model\":" MODEL ",\"metrics\":[\"loss\"]}",
                 "[{\"samples\":[]}]", "samples");
    world_close(&world, true);
}

/* Two stores, two writers: the same work gives the same bytes. */
static void test_same_bytes(void)
{
    world_t one = {0}, two = {0};
    seen_t a = {0}, b = {0};

    world_open(&one, "w1");
    world_open(&two, "other");
    world_run(&one, "sft", SFT, SAMPLES, &a);
    world_run(&two, "sft", SFT, SAMPLES, &b);
    CU_ASSERT_PTR_NOT_NULL_FATAL(a.outputs[0]);
    CU_ASSERT_PTR_NOT_NULL_FATAL(b.outputs[0]);
    CU_ASSERT_STRING_EQUAL(a.outputs[0], b.outputs[0]);
    seen_fini(&a);
    seen_fini(&b);
    world_close(&one, true);
    world_close(&two, true);
}

/* Stopped after every checkpoint, resumed by a fresh process state. */
static void test_resume(void)
{
    world_t world = {0};
    seen_t whole = {0}, part = {0};
    char checkpoint[FM_DIGEST_TEXT_BYTES] = "";
    int legs = 0;

    world_open(&world, "w0");
    world_run(&world, "sft", SFT, SAMPLES, &whole);
    CU_ASSERT_PTR_NOT_NULL_FATAL(whole.outputs[0]);
    for (fm_status_t rc = FM_ERR_CANCELLED; rc == FM_ERR_CANCELLED; legs++) {
        char writer[16];
        CU_ASSERT_FATAL(legs < 10);
        world_close(&world, false);
        (void)snprintf(writer, sizeof(writer), "w%d", legs + 1);
        world_open(&world, writer);
        seen_fini(&part);
        part.stop_after = 1;
        rc = world_run_hints(&world, "sft", SFT, SAMPLES, "{\"save_steps\":2}",
                             checkpoint, &part);
        (void)fm_digest_format(&part.checkpoint, checkpoint);
    }
    CU_ASSERT_EQUAL(legs, 3); /* saved at 2, stop heard at 3: 3, 6, 7 */
    CU_ASSERT_PTR_NOT_NULL_FATAL(part.outputs[0]);
    CU_ASSERT_STRING_EQUAL(part.outputs[0], whole.outputs[0]);
    seen_fini(&part);
    /* A state of other work is refused, a lost one is started over. */
    seen_t other = {0};
    part.stop_after = 1;
    CU_ASSERT_EQUAL(world_run_hints(&world, "sft", SFT, SAMPLES,
                                    "{\"save_steps\":2}", NULL, &part),
                    FM_ERR_CANCELLED);
    (void)fm_digest_format(&part.checkpoint, checkpoint);
    CU_ASSERT_EQUAL(world_run_hints(&world, "sft", SFT,
                                    "[{\"samples\":[{\"text\":\"other\"}]}]",
                                    "{}", checkpoint, &other),
                    FM_OK);
    CU_ASSERT_PTR_NOT_NULL(strstr(other.error, "other work"));
    seen_fini(&other);
    (void)snprintf(checkpoint, sizeof(checkpoint), "sha256:%064d", 5);
    CU_ASSERT_EQUAL(
        world_run_hints(&world, "sft", SFT, SAMPLES, "{}", checkpoint, &other),
        FM_OK);
    CU_ASSERT_PTR_NOT_NULL_FATAL(other.outputs[0]);
    CU_ASSERT_STRING_EQUAL(other.outputs[0], whole.outputs[0]);
    seen_fini(&other);
    seen_fini(&part);
    seen_fini(&whole);
    world_close(&world, true);
}

/* Residents stay within their bytes, the latest stays. */
static void test_resident(void)
{
    world_t world = {0};

    world_open(&world, "w"); /* 100,000 bytes: two models of 43,712 */
    for (int seed = 1; seed <= 4; seed++) {
        seen_t seen = {0};
        char *params = fm_asprintf(
            "{\"model\":{\"config\":{\"hidden_size\":16,"
            "\"intermediate_size\":32,\"num_hidden_layers\":1,"
            "\"num_attention_heads\":2,\"vocab_size\":260},\"seed\":%d}}",
            seed);
        world_run(&world, "logprobs", params,
                  "[{\"prompt\":\"a\",\"completion\":\"b\"}]", &seen);
        CU_ASSERT_EQUAL(seen.errors, 0);
        free(params);
        seen_fini(&seen);
        fm_json_t *resident = fm_ops_resident(world.ops);
        CU_ASSERT_EQUAL(fm_json_len(resident), seed < 2 ? 1 : 2);
        fm_json_drop(resident);
    }
    world_close(&world, true);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"echo", test_echo},
        {"large outputs", test_large_output},
        {"python", test_python},
        {"command", test_command},
        {"data_retrieval", test_data},
        {"data_retrieval: parts", test_data_parts},
        {"inference", test_inference},
        {"sft, logprobs, dpo, evaluate", test_post_training},
        {"evaluate", test_evaluate},
        {"the same bytes elsewhere", test_same_bytes},
        {"resume bit for bit", test_resume},
        {"resident models", test_resident},
    };
    return fm_test_main("run/ops", cases, FM_COUNT_OF(cases));
}
