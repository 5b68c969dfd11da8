/* SPDX-License-Identifier: Apache-2.0 */
/*
 * text/bpe against the `tokenizers` library: ids and texts recorded by
 * tests/ref/tokenizer_reference.py for tokenizers in the shapes of published
 * families; and what a hostile tokenizer.json is told.
 */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "fmtest.h"
#include "text/bpe/bpe.h"

static const char *const families[] = {"llama2",  "llama3", "qwen2",
                                       "mistral", "gpt2",   "splits"};

static void file_read(const char *family, const char *suffix, fm_buf_t *out)
{
    fm_error_t err = {0};
    char path[512];

    (void)snprintf(path, sizeof(path), "%s/tokenizer/%s%s", FM_TEST_REF_DIR,
                   family, suffix);
    FM_ASSERT_OK(fm_file_read(path, 1 << 20, out, &err), &err);
}

static fm_bpe_t *family_load(const char *family)
{
    fm_error_t err = {0};
    fm_bpe_t *bpe = NULL;
    fm_buf_t text = {0};

    file_read(family, ".json", &text);
    FM_ASSERT_OK(fm_bpe_create(text.data, text.len, &bpe, &err), &err);
    fm_buf_fini(&text);
    return bpe;
}

static fm_json_t *cases_load(const char *family)
{
    fm_error_t err = {0};
    fm_json_t *json = NULL;
    fm_buf_t text = {0};

    file_read(family, ".cases.json", &text);
    FM_ASSERT_OK(
        fm_json_parse((char *)text.data, text.len, family, &json, &err), &err);
    fm_buf_fini(&text);
    return json;
}

static bool ids_equal(const fm_bpe_ids_t *ids, const fm_json_t *want)
{
    bool equal = ids->count == fm_json_len(want);

    for (size_t i = 0; equal && i < ids->count; i++) {
        equal = ids->ids[i] == fm_json_int_or(fm_json_at(want, i), -1);
    }
    return equal;
}

static void ids_show(const char *what, const int32_t *ids, size_t count)
{
    (void)fprintf(stderr, "  %s:", what);
    for (size_t i = 0; i < count; i++) {
        (void)fprintf(stderr, " %d", ids[i]);
    }
    (void)fprintf(stderr, "\n");
}

static void encode_check(const fm_bpe_t *bpe, const char *family,
                         const fm_json_t *one, bool parse_special)
{
    const fm_json_t *want = fm_json_get(one, parse_special ? "parsed" : "ids");
    const fm_json_t *text = fm_json_get(one, "text");
    const fm_bpe_encode_options_t plain = {.parse_special = parse_special,
                                           .limit = 1 << 20};
    fm_bpe_encode_options_t tracked = plain;
    fm_bpe_ids_t ids = {0};
    fm_bpe_ids_t again = {0};
    fm_error_t err = {0};

    want = want ? want : fm_json_get(one, "ids");
    tracked.offsets = true;
    FM_ASSERT_OK(fm_bpe_encode(bpe, fm_json_str(text), fm_json_str_len(text),
                               &plain, &ids, &err),
                 &err);
    FM_ASSERT_OK(fm_bpe_encode(bpe, fm_json_str(text), fm_json_str_len(text),
                               &tracked, &again, &err),
                 &err);
    if (!ids_equal(&ids, want)) {
        (void)fprintf(stderr, "%s: case \"%s\"%s\n", family,
                      fm_json_get_str(one, "name"),
                      parse_special ? ", specials parsed" : "");
        ids_show("ours", ids.ids, ids.count);
        char *dump = fm_json_dump(want);
        (void)fprintf(stderr, "  want: %s\n", dump);
        free(dump);
        CU_FAIL("ids differ");
    }
    CU_ASSERT(ids_equal(&again, want));
    for (size_t i = 1; i < again.count; i++) {
        CU_ASSERT(again.begins[i] >= again.begins[i - 1]);
        CU_ASSERT(again.begins[i] <= fm_json_str_len(text));
    }
    fm_bpe_ids_fini(&ids);
    fm_bpe_ids_fini(&again);
}

static void test_encode(void)
{
    for (size_t f = 0; f < FM_COUNT_OF(families); f++) {
        fm_bpe_t *bpe = family_load(families[f]);
        fm_json_t *json = cases_load(families[f]);
        const fm_json_t *cases = fm_json_get(json, "cases");
        CU_ASSERT(fm_json_len(cases) >= 30);
        for (size_t i = 0; i < fm_json_len(cases); i++) {
            encode_check(bpe, families[f], fm_json_at(cases, i), false);
            encode_check(bpe, families[f], fm_json_at(cases, i), true);
        }
        fm_json_drop(json);
        fm_bpe_destroy(bpe);
    }
}

/* What the post-processor adds is what the library's full encoding has. */
static void test_around(void)
{
    for (size_t f = 0; f < FM_COUNT_OF(families); f++) {
        fm_bpe_t *bpe = family_load(families[f]);
        fm_json_t *json = cases_load(families[f]);
        const fm_json_t *one = fm_json_at(fm_json_get(json, "cases"), 0);
        const fm_json_t *full = fm_json_get(one, "full");
        const fm_json_t *ids = fm_json_get(one, "ids");
        int32_t before = 0;
        int32_t after = 0;
        size_t count = fm_json_len(full ? full : ids);
        fm_bpe_around(bpe, &before, &after);
        CU_ASSERT(count == fm_json_len(ids) + (before >= 0) + (after >= 0));
        if (before >= 0) {
            CU_ASSERT(fm_json_int_or(fm_json_at(full, 0), -1) == before);
        }
        if (after >= 0) {
            CU_ASSERT(fm_json_int_or(fm_json_at(full, count - 1), -1) == after);
        }
        fm_json_drop(json);
        fm_bpe_destroy(bpe);
    }
}

static bool text_equal(const fm_buf_t *text, const fm_json_t *want)
{
    return text->len == fm_json_str_len(want) &&
           (text->len == 0 ||
            memcmp(text->data, fm_json_str(want), text->len) == 0);
}

static void decode_check(const fm_bpe_t *bpe, const char *family,
                         const fm_json_t *one, const char *key, bool special)
{
    const fm_bpe_decode_options_t options = {.keep_special = special};
    const fm_json_t *list = fm_json_get(one, "ids");
    size_t count = fm_json_len(list);
    int32_t *ids = fm_calloc(count + 1, sizeof(*ids));
    fm_buf_t text = {0};
    fm_error_t err = {0};

    CU_ASSERT_FATAL(ids != NULL);
    for (size_t i = 0; i < count; i++) {
        ids[i] = (int32_t)fm_json_int_or(fm_json_at(list, i), -1);
    }
    FM_ASSERT_OK(fm_bpe_decode(bpe, ids, count, &options, &text, &err), &err);
    if (!text_equal(&text, fm_json_get(one, key))) {
        ids_show(family, ids, count);
        (void)fprintf(stderr, "  ours: %s\n  want: %s\n", fm_buf_cstr(&text),
                      fm_json_get_str(one, key));
        CU_FAIL("texts differ");
    }
    fm_buf_fini(&text);
    free(ids);
}

static void test_decode(void)
{
    for (size_t f = 0; f < FM_COUNT_OF(families); f++) {
        fm_bpe_t *bpe = family_load(families[f]);
        fm_json_t *json = cases_load(families[f]);
        const fm_json_t *decodes = fm_json_get(json, "decodes");
        CU_ASSERT(fm_json_len(decodes) >= 40);
        for (size_t i = 0; i < fm_json_len(decodes); i++) {
            decode_check(bpe, families[f], fm_json_at(decodes, i), "text",
                         false);
            decode_check(bpe, families[f], fm_json_at(decodes, i), "all", true);
        }
        fm_json_drop(json);
        fm_bpe_destroy(bpe);
    }
}

/* A special token with a marked byte is ordinary text. */
static void test_marks(void)
{
    static const char text[] = "x<|im_end|>";
    uint16_t marks[sizeof(text)] = {0};
    fm_bpe_t *bpe = family_load("qwen2");
    fm_bpe_ids_t open = {0};
    fm_bpe_ids_t shut = {0};
    fm_bpe_ids_t plain = {0};
    fm_error_t err = {0};
    fm_bpe_encode_options_t options = {
        .parse_special = true, .marks = marks, .limit = 100};

    FM_ASSERT_OK(fm_bpe_encode(bpe, text, 11, &options, &open, &err), &err);
    marks[10] = 3;
    FM_ASSERT_OK(fm_bpe_encode(bpe, text, 11, &options, &shut, &err), &err);
    options = (fm_bpe_encode_options_t){.limit = 100};
    FM_ASSERT_OK(fm_bpe_encode(bpe, text, 11, &options, &plain, &err), &err);
    CU_ASSERT(open.count == 2);
    CU_ASSERT(shut.count > 2 && shut.count == plain.count &&
              memcmp(shut.ids, plain.ids, shut.count * sizeof(int32_t)) == 0);
    fm_bpe_ids_fini(&open);
    fm_bpe_ids_fini(&shut);
    fm_bpe_ids_fini(&plain);
    fm_bpe_destroy(bpe);
}

/* --- refusals ---------------------------------------------------------------
 */

static bool refused(const char *json, fm_status_t status, const char *part)
{
    fm_error_t err = {0};
    fm_bpe_t *bpe = NULL;
    fm_status_t rc = fm_bpe_create(json, strlen(json), &bpe, &err);
    bool good = rc == status && !bpe && strstr(err.text, part) != NULL;

    if (!good) {
        (void)fprintf(stderr, "%s\n  want \"%s\" in: %s: %s\n", json, part,
                      fm_status_name(rc), err.text);
        fm_bpe_destroy(bpe);
    }
    return good;
}

#define MODEL "\"model\":{\"type\":\"BPE\",\"vocab\":"
#define ABC "{\"a\":0,\"b\":1,\"ab\":2}"

static void test_refusals(void)
{
    static const struct {
        const char *json;
        fm_status_t status;
        const char *part;
    } table[] = {
        {"{", FM_ERR_INVALID, "tokenizer.json:1:"},
        {"[]", FM_ERR_INVALID, "model: want an object"},
        {"{" MODEL "{\"\\ud800\":0}}}", FM_ERR_INVALID, "tokenizer.json:1:"},
        {"{" MODEL "{\"a\":0,\"a\":1}}}", FM_ERR_INVALID, "duplicate"},
        {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{}}}",
         FM_ERR_UNSUPPORTED, "WordPiece"},
        {"{" MODEL "{}}}", FM_ERR_INVALID, "model.vocab"},
        {"{" MODEL "{\"a\":-1}}}", FM_ERR_INVALID, "\"a\": want an id"},
        {"{" MODEL "{\"a\":1.5}}}", FM_ERR_INVALID, "\"a\": want an id"},
        {"{" MODEL "{\"a\":999999999999}}}", FM_ERR_INVALID, "want an id"},
        {"{" MODEL "{\"a\":4000000}}}", FM_ERR_INVALID, "largest id is"},
        {"{" MODEL "{\"a\":0,\"b\":0}}}", FM_ERR_INVALID, "the same id 0"},
        {"{" MODEL "{\"\":0}}}", FM_ERR_INVALID, "a token of 0 bytes"},
        {"{" MODEL ABC "}}", FM_ERR_INVALID, "model.merges: want an array"},
        {"{" MODEL ABC ",\"merges\":[\"a\"]}}", FM_ERR_INVALID,
         "model.merges[0]: want"},
        {"{" MODEL ABC ",\"merges\":[\"a b\",\"a b c\"]}}", FM_ERR_INVALID,
         "model.merges[1]: want"},
        {"{" MODEL ABC ",\"merges\":[[\"a\",\"\"]]}}", FM_ERR_INVALID,
         "model.merges[0]: want"},
        {"{" MODEL ABC ",\"merges\":[\"b a\"]}}", FM_ERR_INVALID,
         "model.merges[0]: \"ba\" is not in"},
        {"{" MODEL ABC ",\"merges\":[\"a z\"]}}", FM_ERR_INVALID,
         "model.merges[0]: \"z\" is not in"},
        {"{" MODEL ABC ",\"merges\":[\"a b\",[\"a\",\"b\"]]}}", FM_ERR_INVALID,
         "model.merges[1]: the pair of model.merges[0] again"},
        {"{" MODEL ABC ",\"merges\":[],\"dropout\":0.1}}", FM_ERR_UNSUPPORTED,
         "model.dropout"},
        {"{" MODEL ABC ",\"merges\":[],\"unk_token\":\"u\"}}", FM_ERR_INVALID,
         "model.unk_token: \"u\""},
        {"{" MODEL ABC ",\"merges\":[],\"end_of_word_suffix\":\"</w>\"}}",
         FM_ERR_UNSUPPORTED, "end_of_word_suffix"},
        {"{\"added_tokens\":[{\"id\":1,\"content\":\"c\"}]," MODEL ABC
         ",\"merges\":[]}}",
         FM_ERR_INVALID, "added_tokens[0]: \"c\" has id 1, which"},
        {"{\"added_tokens\":[{\"id\":5,\"content\":\"a\"}]," MODEL ABC
         ",\"merges\":[]}}",
         FM_ERR_INVALID, "added_tokens[0]: \"a\" has id 5, in"},
        {"{\"added_tokens\":[{\"id\":3}]," MODEL ABC ",\"merges\":[]}}",
         FM_ERR_INVALID, "added_tokens[0].content"},
        {"{\"added_tokens\":[{\"id\":0,\"content\":\"a\"},{\"id\":0,"
         "\"content\":\"a\"}]," MODEL ABC ",\"merges\":[]}}",
         FM_ERR_INVALID, "have the same id 0"},
        {"{\"normalizer\":{\"type\":\"Precompiled\"}," MODEL ABC
         ",\"merges\":[]}}",
         FM_ERR_UNSUPPORTED, "normalizer: type \"Precompiled\""},
        {"{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":"
         "\"Prepend\"}]}," MODEL ABC ",\"merges\":[]}}",
         FM_ERR_INVALID, "normalizer[0].prepend"},
        {"{\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\","
         "\"pattern\":{\"Regex\":\"(\"}}," MODEL ABC ",\"merges\":[]}}",
         FM_ERR_INVALID, "pre_tokenizer: pattern"},
        {"{\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\","
         "\"pattern\":{\"Regex\":\"\\\\h\"}}," MODEL ABC ",\"merges\":[]}}",
         FM_ERR_UNSUPPORTED, "\\h is not supported"},
        {"{\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Odd\","
         "\"pattern\":{\"Regex\":\"a\"}}," MODEL ABC ",\"merges\":[]}}",
         FM_ERR_INVALID, "pre_tokenizer.behavior"},
        {"{\"decoder\":{\"type\":\"WordPiece\"}," MODEL ABC ",\"merges\":[]}}",
         FM_ERR_UNSUPPORTED, "decoder: type \"WordPiece\""},
        {"{\"post_processor\":{\"type\":\"BertProcessing\"}," MODEL ABC
         ",\"merges\":[]}}",
         FM_ERR_UNSUPPORTED, "BertProcessing"},
    };

    for (size_t i = 0; i < FM_COUNT_OF(table); i++) {
        CU_ASSERT(refused(table[i].json, table[i].status, table[i].part));
    }
}

/* What is refused when a text is encoded. */
static void test_texts_refused(void)
{
    static const char plain[] = "{" MODEL ABC ",\"merges\":[\"a b\"]}}";
    static const char hostile[] =
        "{\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\","
        "\"pattern\":{\"Regex\":\"(a|aa)+(?!a|$)b\"}}," MODEL ABC
        ",\"merges\":[\"a b\"]}}";
    const fm_bpe_encode_options_t options = {.limit = 4};
    fm_bpe_t *bpe = NULL;
    fm_bpe_ids_t ids = {0};
    fm_error_t err = {0};
    char as[400];

    FM_ASSERT_OK(fm_bpe_create(plain, sizeof(plain) - 1, &bpe, &err), &err);
    FM_ASSERT_OK(fm_bpe_encode(bpe, "aabb", 4, &options, &ids, &err), &err);
    CU_ASSERT(ids.count == 3 && ids.ids[1] == 2);
    CU_ASSERT(fm_bpe_encode(bpe, "a\xC3", 2, &options, &ids, &err) ==
                  FM_ERR_INVALID &&
              strstr(err.text, "byte 1 is not UTF-8"));
    CU_ASSERT(fm_bpe_encode(bpe, "\xC3\xA9", 2, &options, &ids, &err) ==
                  FM_ERR_INVALID &&
              strstr(err.text, "U+00E9"));
    CU_ASSERT(fm_bpe_encode(bpe, "aa", 2, &options, &ids, &err) ==
              FM_ERR_LIMIT);
    CU_ASSERT(ids.count == 3);
    bpe = fm_bpe_destroy(bpe);
    FM_ASSERT_OK(fm_bpe_create(hostile, sizeof(hostile) - 1, &bpe, &err), &err);
    memset(as, 'a', sizeof(as));
    CU_ASSERT(fm_bpe_encode(bpe, as, sizeof(as), &options, &ids, &err) ==
              FM_ERR_LIMIT);
    fm_bpe_destroy(bpe);
    fm_bpe_ids_fini(&ids);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"ids as the library gives them", test_encode},
        {"what the post-processor adds", test_around},
        {"texts as the library decodes them", test_decode},
        {"marked text spells no special token", test_marks},
        {"refused files", test_refusals},
        {"refused texts", test_texts_refused},
    };

    return fm_test_main("text/bpe", cases, FM_COUNT_OF(cases));
}
