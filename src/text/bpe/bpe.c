/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tokenizer.json as a whole: reads its parts, sends text through them.
 */
#include "text/bpe/bpe.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "text/bpe/internal.h"

struct fm_bpe {
    fm_bpe_steps_t normalizer;
    fm_bpe_steps_t pretokenizer;
    fm_bpe_steps_t decoder;
    bool joined; /* no decoder: tokens are joined by spaces */
    fm_bpe_vocab_t *vocab;
    fm_bpe_model_t *model;
    fm_bpe_finder_t *finder;
    int32_t before; /* what the post-processor adds; -1: nothing */
    int32_t after;
};

/* --- reading ---------------------------------------------------------------
 */

/* The id of a special token of a TemplateProcessing. */
static int32_t template_id(const fm_json_t *json, const char *name)
{
    const fm_json_t *ids = fm_json_get(
        fm_json_get(fm_json_get(json, "special_tokens"), name), "ids");

    return fm_json_len(ids) == 1
               ? (int32_t)fm_json_int_or(fm_json_at(ids, 0), -1)
               : -1;
}

static fm_status_t template_load(fm_bpe_t *bpe, const fm_json_t *json,
                                 fm_error_t *err)
{
    const fm_json_t *single = fm_json_get(json, "single");
    bool text_seen = false;

    for (size_t i = 0; i < fm_json_len(single); i++) {
        const fm_json_t *piece = fm_json_at(single, i);
        const char *name =
            fm_json_get_str(fm_json_get(piece, "SpecialToken"), "id");
        if (!name) {
            text_seen = true;
            continue;
        }
        int32_t id = template_id(json, name);
        int32_t *place = text_seen ? &bpe->after : &bpe->before;
        if (id < 0 || !fm_bpe_token(bpe, id, &(size_t){0})) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "post_processor.special_tokens: \"%.64s\": "
                                "want one id of the vocabulary",
                                name);
        }
        if (*place >= 0) {
            return fm_error_set(err, FM_ERR_UNSUPPORTED,
                                "post_processor.single[%zu]: more than one "
                                "token at one end is not supported",
                                i);
        }
        *place = id;
    }
    return FM_OK;
}

static fm_status_t post_load(fm_bpe_t *bpe, const fm_json_t *json, int depth,
                             fm_error_t *err)
{
    const char *type = fm_json_get_str(json, "type");

    if (fm_json_type(json) == FM_JSON_NULL ||
        (type && !strcmp(type, "ByteLevel"))) {
        return FM_OK; /* ByteLevel moves offsets only */
    }
    if (type && strcmp(type, "TemplateProcessing") == 0) {
        return template_load(bpe, json, err);
    }
    if (type && strcmp(type, "Sequence") == 0 && depth < 8) {
        const fm_json_t *list = fm_json_get(json, "processors");
        fm_status_t rc = FM_OK;
        for (size_t i = 0; i < fm_json_len(list) && rc >= 0; i++) {
            rc = post_load(bpe, fm_json_at(list, i), depth + 1, err);
        }
        return rc;
    }
    return fm_error_set(err, FM_ERR_UNSUPPORTED,
                        "post_processor: type \"%.64s\" is not supported",
                        type ? type : "");
}

static fm_status_t parts_load(fm_bpe_t *bpe, const fm_json_t *json,
                              fm_error_t *err)
{
    const fm_json_t *model = fm_json_get(json, "model");
    const fm_json_t *added = fm_json_get(json, "added_tokens");
    const char *type = fm_json_get_str(model, "type");
    fm_status_t rc = FM_OK;

    if (!fm_json_is(model, FM_JSON_OBJECT)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "model: want an object; this is no tokenizer.json");
    }
    if (type && strcmp(type, "BPE") != 0) {
        return fm_error_set(err, FM_ERR_UNSUPPORTED,
                            "model.type: \"%.64s\" is not supported; want BPE",
                            type);
    }
    bpe->joined = fm_json_type(fm_json_get(json, "decoder")) == FM_JSON_NULL;
    (void)((rc = fm_bpe_vocab_load(model, added, &bpe->vocab, err)) < 0 ||
           (rc = fm_bpe_model_load(model, bpe->vocab, &bpe->model, err)) < 0 ||
           (rc = fm_bpe_normalizer_load(fm_json_get(json, "normalizer"),
                                        &bpe->normalizer, err)) < 0 ||
           (rc = fm_bpe_pretokenizer_load(fm_json_get(json, "pre_tokenizer"),
                                          &bpe->pretokenizer, err)) < 0 ||
           (rc = fm_bpe_decoder_load(fm_json_get(json, "decoder"),
                                     &bpe->decoder, err)) < 0 ||
           (rc = fm_bpe_finder_load(added, &bpe->normalizer, &bpe->finder,
                                    err)) < 0 ||
           (rc = post_load(bpe, fm_json_get(json, "post_processor"), 0, err)));
    return rc;
}

fm_status_t fm_bpe_create(const void *json, size_t len, fm_bpe_t **bpe_out,
                          fm_error_t *err)
{
    fm_json_t *root = NULL;
    fm_bpe_t *bpe = fm_calloc(1, sizeof(*bpe));
    fm_status_t rc = FM_OK;

    if (!bpe) {
        return fm_no_memory(err);
    }
    bpe->before = -1;
    bpe->after = -1;
    rc = fm_json_parse(json, len, "tokenizer.json", &root, err);
    if (rc >= 0 && (rc = parts_load(bpe, root, err)) < 0) {
        fm_error_wrap(err, "tokenizer.json");
    }
    if (rc >= 0) {
        *bpe_out = bpe;
        bpe = NULL;
    }
    fm_json_drop(root);
    fm_bpe_destroy(bpe);
    return rc;
}

void *fm_bpe_destroy(fm_bpe_t *bpe)
{
    if (bpe) {
        fm_bpe_finder_destroy(bpe->finder);
        fm_bpe_model_destroy(bpe->model);
        fm_bpe_vocab_destroy(bpe->vocab);
        fm_bpe_steps_fini(&bpe->normalizer);
        fm_bpe_steps_fini(&bpe->pretokenizer);
        fm_bpe_steps_fini(&bpe->decoder);
        free(bpe);
    }
    return NULL;
}

int32_t fm_bpe_id_limit(const fm_bpe_t *bpe)
{
    return fm_bpe_vocab_limit(bpe->vocab);
}

const char *fm_bpe_token(const fm_bpe_t *bpe, int32_t id, size_t *len_out)
{
    return fm_bpe_vocab_token(bpe->vocab, id, len_out);
}

int32_t fm_bpe_find(const fm_bpe_t *bpe, const char *token, size_t len)
{
    const fm_bpe_added_t *added =
        fm_bpe_finder_by_text(bpe->finder, token, len);

    return added ? added->id : fm_bpe_vocab_find(bpe->vocab, token, len);
}

bool fm_bpe_is_special(const fm_bpe_t *bpe, int32_t id)
{
    const fm_bpe_added_t *added = fm_bpe_finder_by_id(bpe->finder, id);

    return added && added->special;
}

void fm_bpe_around(const fm_bpe_t *bpe, int32_t *before_out, int32_t *after_out)
{
    *before_out = bpe->before;
    *after_out = bpe->after;
}

bool fm_bpe_is_byte(const fm_bpe_t *bpe, int32_t id)
{
    size_t len = 0;
    const char *token = fm_bpe_token(bpe, id, &len);

    return token && fm_bpe_decoder_has_fallback(&bpe->decoder) &&
           fm_bpe_fallback_byte(token, len) >= 0;
}

/* --- encoding --------------------------------------------------------------
 */

void fm_bpe_ids_fini(fm_bpe_ids_t *ids)
{
    free(ids->ids);
    free(ids->begins);
    *ids = (fm_bpe_ids_t){0};
}

static fm_status_t ids_reserve(fm_bpe_ids_t *ids, size_t more,
                               const fm_bpe_encode_options_t *options,
                               fm_error_t *err)
{
    size_t want = ids->count + more;

    if (want > options->limit) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "text of more than %zu tokens: split the text",
                            options->limit);
    }
    if (want > ids->capacity || (options->offsets && !ids->begins)) {
        size_t capacity = want + want / 2 + 64;
        int32_t *more_ids = fm_realloc(ids->ids, capacity, sizeof(*more_ids));
        if (!more_ids) {
            return fm_no_memory(err);
        }
        ids->ids = more_ids;
        if (options->offsets) {
            uint32_t *begins =
                fm_realloc(ids->begins, capacity, sizeof(*begins));
            if (!begins) {
                return fm_no_memory(err);
            }
            ids->begins = begins;
        }
        ids->capacity = capacity;
    }
    return FM_OK;
}

static fm_status_t id_add(fm_bpe_ids_t *ids, int32_t id, size_t begin,
                          const fm_bpe_encode_options_t *options,
                          fm_error_t *err)
{
    fm_status_t rc = ids_reserve(ids, 1, options, err);

    if (rc >= 0) {
        if (options->offsets) {
            ids->begins[ids->count] = (uint32_t)begin;
        }
        ids->ids[ids->count++] = id;
    }
    return rc;
}

/* One encode: its input, its working memory, its output. */
struct encode {
    const fm_bpe_t *bpe;
    const fm_bpe_encode_options_t *options;
    const char *text;
    fm_bpe_ids_t *ids;
    fm_bpe_scratch_t *scratch;
    fm_bpe_words_t words;
    fm_bpe_text_t normal; /* a part of the text, normalised */
    fm_bpe_text_t spare;
    fm_bpe_parts_t raw_parts;
    fm_bpe_parts_t normal_parts;
    bool cuts; /* fm_bpe_model_cuts() */
};

static fm_status_t word_encode(struct encode *e, fm_bpe_range_t range,
                               fm_error_t *err)
{
    const fm_bpe_text_t *text = &e->words.text;
    fm_bpe_merged_t merged;
    fm_status_t rc = fm_bpe_model_merge(e->bpe->model, e->scratch,
                                        fm_bpe_text_at(text, range.begin),
                                        range.end - range.begin, &merged, err);

    if (rc < 0 ||
        (rc = ids_reserve(e->ids, merged.count, e->options, err)) < 0) {
        return rc;
    }
    memcpy(e->ids->ids + e->ids->count, merged.ids,
           merged.count * sizeof(*merged.ids));
    if (e->options->offsets) {
        size_t at = range.begin;
        for (size_t i = 0; i < merged.count; i++) {
            e->ids->begins[e->ids->count + i] = fm_bpe_text_origin(text, at);
            at += merged.bytes[i];
        }
    }
    e->ids->count += merged.count;
    return FM_OK;
}

/* End of the first part of a word that is merged by itself. */
static size_t part_end(const struct encode *e, fm_bpe_range_t range)
{
    const size_t space = sizeof(FM_BPE_SPACE) - 1;
    size_t at = range.begin;

    if (!e->cuts) {
        return range.end;
    }
    const char *text = fm_bpe_text_at(&e->words.text, 0);
    while (range.end - at >= space &&
           memcmp(text + at, FM_BPE_SPACE, space) == 0) {
        at += space;
    }
    const char *next = memmem(text + at, range.end - at, FM_BPE_SPACE, space);
    return next ? (size_t)(next - text) : range.end;
}

static fm_status_t parts_encode(struct encode *e, fm_bpe_range_t range,
                                fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    while (rc >= 0 && range.begin < range.end) {
        size_t end = part_end(e, range);
        rc = word_encode(e, (fm_bpe_range_t){range.begin, end}, err);
        range.begin = end;
    }
    return rc;
}

/* [begin, end) of the normalised text, where no added token is. */
static fm_status_t plain_encode(struct encode *e, size_t begin, size_t end,
                                bool at_start, fm_error_t *err)
{
    fm_bpe_words_t *words = &e->words;

    fm_bpe_text_clear(&words->text, e->options->offsets);
    fm_bpe_text_copy(&words->text, &e->normal, begin, end);
    words->ranges.count = 0;
    words->at_start = at_start;
    fm_status_t rc = fm_grow(&words->ranges.list, &words->ranges.capacity, 0,
                             sizeof(*words->ranges.list), err);
    if (rc < 0 || words->text.bytes.failed) {
        return rc < 0 ? rc : fm_no_memory(err);
    }
    words->ranges.list[words->ranges.count++] =
        (fm_bpe_range_t){0, end - begin};
    rc = fm_bpe_pretokenize(&e->bpe->pretokenizer, words, err);
    for (size_t i = 0; i < words->ranges.count && rc >= 0; i++) {
        rc = parts_encode(e, words->ranges.list[i], err);
    }
    return rc;
}

/* [begin, end) of the caller's text, between the raw added tokens. */
static fm_status_t part_encode(struct encode *e, size_t begin, size_t end,
                               fm_error_t *err)
{
    bool tracked = e->options->offsets || e->options->marks;

    fm_bpe_text_clear(&e->normal, tracked);
    fm_bpe_text_add_run(&e->normal, e->text + begin, end - begin,
                        (uint32_t)begin);
    fm_status_t rc = fm_bpe_normalize(&e->bpe->normalizer, e->words.matcher,
                                      &e->normal, &e->spare, err);
    if (rc < 0 || e->normal.bytes.failed) {
        return rc < 0 ? rc : fm_no_memory(err);
    }
    rc = fm_bpe_finder_split(e->bpe->finder, true,
                             fm_bpe_text_at(&e->normal, 0), e->normal.bytes.len,
                             e->options, tracked ? e->normal.origins : NULL,
                             &e->normal_parts, err);
    for (size_t i = 0; i < e->normal_parts.count && rc >= 0; i++) {
        fm_bpe_part_t part = e->normal_parts.list[i];
        rc = part.added ? id_add(e->ids, part.added->id,
                                 fm_bpe_text_origin(&e->normal, part.begin),
                                 e->options, err)
                        : plain_encode(e, part.begin, part.end,
                                       begin == 0 && part.begin == 0, err);
    }
    return rc;
}

static void encode_fini(struct encode *e)
{
    fm_bpe_scratch_destroy(e->scratch);
    fm_bpe_words_fini(&e->words);
    fm_bpe_text_fini(&e->normal);
    fm_bpe_text_fini(&e->spare);
    free(e->raw_parts.list);
    free(e->normal_parts.list);
}

fm_status_t fm_bpe_encode(const fm_bpe_t *bpe, const char *text, size_t len,
                          const fm_bpe_encode_options_t *options,
                          fm_bpe_ids_t *ids, fm_error_t *err)
{
    struct encode e = {.bpe = bpe,
                       .options = options,
                       .text = text,
                       .ids = ids,
                       .cuts = fm_bpe_model_cuts(bpe->model)};
    size_t before = ids->count;
    size_t valid = fm_utf8_valid(text, len);
    fm_status_t rc = FM_OK;

    if (valid < len) {
        return fm_error_set(err, FM_ERR_INVALID, "text: byte %zu is not UTF-8",
                            valid);
    }
    if (len >= UINT32_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "text of %zu bytes: split the text", len);
    }
    if ((rc = fm_bpe_scratch_create(len, &e.scratch, err)) < 0 ||
        (rc = fm_regex_matcher_create(&e.words.matcher, err)) < 0 ||
        (rc = fm_bpe_finder_split(bpe->finder, false, text, len, options, NULL,
                                  &e.raw_parts, err)) < 0) {
        goto out;
    }
    for (size_t i = 0; i < e.raw_parts.count && rc >= 0; i++) {
        fm_bpe_part_t part = e.raw_parts.list[i];
        rc = part.added ? id_add(ids, part.added->id, part.begin, options, err)
                        : part_encode(&e, part.begin, part.end, err);
    }
out:
    if (rc < 0) {
        ids->count = before;
    }
    encode_fini(&e);
    return rc;
}

/* --- decoding --------------------------------------------------------------
 */

fm_status_t fm_bpe_decode(const fm_bpe_t *bpe, const int32_t *ids, size_t count,
                          const fm_bpe_decode_options_t *options, fm_buf_t *out,
                          fm_error_t *err)
{
    fm_buf_t text = {0};
    fm_bpe_ranges_t tokens = {0};
    fm_status_t rc = FM_OK;

    for (size_t i = 0; i < count && rc >= 0; i++) {
        size_t len = 0;
        const char *token = fm_bpe_token(bpe, ids[i], &len);
        if (!token ||
            (!options->keep_special && fm_bpe_is_special(bpe, ids[i]))) {
            continue;
        }
        size_t begin = text.len;
        fm_buf_add(&text, token, len);
        rc = fm_grow(&tokens.list, &tokens.capacity, tokens.count,
                     sizeof(*tokens.list), err);
        if (rc >= 0) {
            tokens.list[tokens.count++] = (fm_bpe_range_t){begin, text.len};
        }
    }
    if (rc >= 0 && text.failed) {
        rc = fm_no_memory(err);
    }
    if (rc >= 0) {
        rc = fm_bpe_decode_run(&bpe->decoder, bpe->joined, options, &text,
                               &tokens, out, err);
    }
    fm_buf_fini(&text);
    free(tokens.list);
    return rc;
}
