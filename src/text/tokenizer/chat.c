/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conversations: render the template, encode what it wrote, find the
 * assistant's turns in it.
 */
#include "text/tokenizer/chat.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/tokenizer/kind.h"

static const fm_chat_options_t defaults = {0};

bool fm_chat_available(const fm_tokenizer_t *tokenizer)
{
    return tokenizer->chat != NULL;
}

/* --- rendering -------------------------------------------------------------
 */

static fm_status_t messages_check(const fm_tokenizer_t *tokenizer,
                                  const fm_json_t *messages, fm_error_t *err)
{
    if (!tokenizer->chat) {
        return fm_error_set(err, FM_ERR_UNSUPPORTED,
                            "the tokenizer has no chat template: give a "
                            "prompt, or a model with one");
    }
    if (!fm_json_is(messages, FM_JSON_ARRAY)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "messages: want an array of {\"role\", "
                            "\"content\"}");
    }
    for (size_t i = 0; i < fm_json_len(messages); i++) {
        if (!fm_json_get_str(fm_json_at(messages, i), "role")) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "messages[%zu]: want an object with the "
                                "string \"role\"",
                                i);
        }
    }
    return FM_OK;
}

static bool token_set(fm_json_t *object, const char *name,
                      const fm_tokenizer_t *tokenizer, int32_t id)
{
    size_t len = 0;
    const char *text =
        id >= 0 ? tokenizer->kind->token(tokenizer, id, &len) : NULL;

    return !text || fm_json_set(object, name, fm_json_stringn(text, len)) >= 0;
}

/* The variables whose text the template's author may spell specials with. */
static fm_json_t *trusted_make(const fm_tokenizer_t *tokenizer,
                               const fm_chat_options_t *options, bool prompt)
{
    fm_json_t *object = fm_json_object();
    bool good =
        object && token_set(object, "bos_token", tokenizer, tokenizer->bos) &&
        token_set(object, "eos_token", tokenizer,
                  fm_tokenizer_eos(tokenizer)) &&
        token_set(object, "pad_token", tokenizer, tokenizer->pad) &&
        fm_json_set(object, "add_generation_prompt", fm_json_bool(prompt)) >=
            0 &&
        fm_json_set(object, "documents", fm_json_null()) >= 0 &&
        (options->tools || fm_json_set(object, "tools", fm_json_null()) >= 0);

    return good ? object : fm_json_drop(object);
}

static fm_json_t *untrusted_make(const fm_json_t *messages, size_t count,
                                 const fm_chat_options_t *options)
{
    fm_json_t *object = fm_json_object();
    fm_json_t *list = fm_json_array();
    void *iterator = NULL;
    const char *name = NULL;
    fm_json_t *value = NULL;
    bool good = object && list;

    while (good && options->variables &&
           fm_json_next(options->variables, &iterator, &name, &value)) {
        good = fm_json_set(object, name, fm_json_keep(value)) >= 0;
    }
    for (size_t i = 0; good && i < count; i++) {
        good = fm_json_append(list, fm_json_keep(fm_json_at(messages, i))) >= 0;
    }
    good = good && fm_json_set(object, "messages", fm_json_keep(list)) >= 0 &&
           (!options->tools ||
            fm_json_set(object, "tools", fm_json_copy(options->tools)) >= 0);
    fm_json_drop(list);
    return good ? object : fm_json_drop(object);
}

/* The first @p count messages. */
static fm_status_t render(const fm_tokenizer_t *tokenizer,
                          const fm_json_t *messages, size_t count,
                          const fm_chat_options_t *options, bool prompt,
                          fm_template_output_t *output, fm_error_t *err)
{
    fm_json_t *trusted = trusted_make(tokenizer, options, prompt);
    fm_json_t *untrusted = untrusted_make(messages, count, options);
    const fm_template_input_t input = {.trusted = trusted,
                                       .untrusted = untrusted,
                                       .now_unix_s = options->date_unix_s
                                                         ? options->date_unix_s
                                                         : FM_CHAT_DATE};
    fm_status_t rc =
        trusted && untrusted
            ? fm_template_render(tokenizer->chat, &input, output, err)
            : fm_no_memory(err);

    fm_json_drop(trusted);
    fm_json_drop(untrusted);
    return rc;
}

fm_status_t fm_chat_text(const fm_tokenizer_t *tokenizer,
                         const fm_json_t *messages,
                         const fm_chat_options_t *options, fm_buf_t *text,
                         fm_error_t *err)
{
    fm_template_output_t output = {0};
    fm_status_t rc = messages_check(tokenizer, messages, err);

    options = options ? options : &defaults;
    if (rc >= 0) {
        rc = render(tokenizer, messages, fm_json_len(messages), options,
                    options->add_generation_prompt, &output, err);
    }
    if (rc >= 0) {
        fm_buf_add(text, output.text, output.len);
        rc = text->failed ? fm_no_memory(err) : FM_OK;
    }
    fm_template_output_fini(&output);
    return rc;
}

/* --- the assistant's turns --------------------------------------------------
 */

/* One rendering, its tokens, and a byte for each. */
struct turns {
    const fm_tokenizer_t *tokenizer;
    const fm_json_t *messages;
    const fm_chat_options_t *options;
    const fm_template_output_t *output;
    const fm_bpe_ids_t *ids;
    uint8_t *mask; /* [ids->count] */
};

/* End of token @p i in the text; a token without width has one. */
static size_t token_end(const struct turns *turns, size_t i)
{
    const fm_bpe_ids_t *ids = turns->ids;
    size_t end = i + 1 < ids->count ? ids->begins[i + 1] : turns->output->len;

    return end > ids->begins[i] ? end : (size_t)ids->begins[i] + 1;
}

static void bytes_mark(struct turns *turns, size_t begin, size_t end)
{
    for (size_t i = 0; i < turns->ids->count; i++) {
        if (turns->ids->begins[i] < end && token_end(turns, i) > begin) {
            turns->mask[i] = 1;
        }
    }
}

/* Length of the rendering of the first @p count messages, if it is how the
 * whole begins; else, and where the template refuses them, SIZE_MAX. */
static fm_status_t prefix_length(const struct turns *turns, size_t count,
                                 bool prompt, size_t *length_out,
                                 fm_error_t *err)
{
    fm_template_output_t part = {0};
    fm_error_t cause = {0};
    fm_status_t rc = render(turns->tokenizer, turns->messages, count,
                            turns->options, prompt, &part, &cause);

    *length_out = SIZE_MAX;
    if (rc >= 0 && part.len <= turns->output->len &&
        memcmp(part.text, turns->output->text, part.len) == 0) {
        *length_out = part.len;
    }
    fm_template_output_fini(&part);
    if (rc == FM_ERR_NO_MEMORY) {
        return fm_no_memory(err);
    }
    return FM_OK;
}

/* The bytes from the first to the last that came from message @p index. */
static void own_bytes(const struct turns *turns, size_t index,
                      size_t *begin_out, size_t *end_out)
{
    const fm_template_output_t *output = turns->output;

    *begin_out = SIZE_MAX;
    *end_out = 0;
    for (size_t i = 0; i < output->len; i++) {
        if (output->marks[i] == index + 1) {
            *begin_out = *begin_out == SIZE_MAX ? i : *begin_out;
            *end_out = i + 1;
        }
    }
}

/* Where the turn ends whose own text ends at @p end: behind the template's
 * next special token, unless another message comes first. */
static size_t turn_end(const struct turns *turns, size_t end)
{
    const fm_template_output_t *output = turns->output;

    for (size_t i = 0; i < turns->ids->count; i++) {
        size_t begin = turns->ids->begins[i];
        if (begin < end) {
            continue;
        }
        if (begin < output->len && output->marks[begin] != 0) {
            break;
        }
        if (fm_tokenizer_is_special(turns->tokenizer, turns->ids->ids[i])) {
            return token_end(turns, i);
        }
    }
    return end;
}

static fm_status_t turn_mark(struct turns *turns, size_t index, fm_error_t *err)
{
    size_t begin = 0;
    size_t end = 0;
    size_t own_begin = 0;
    size_t own_end = 0;
    fm_status_t rc = prefix_length(turns, index, true, &begin, err);

    if (rc >= 0) {
        rc = prefix_length(turns, index + 1, false, &end, err);
    }
    if (rc < 0) {
        return rc;
    }
    own_bytes(turns, index, &own_begin, &own_end);
    if (begin == SIZE_MAX || begin > own_begin) {
        begin = own_begin;
    }
    if (end == SIZE_MAX || end < own_end) {
        end = own_end > 0 ? turn_end(turns, own_end) : 0;
    }
    if (begin < end) {
        bytes_mark(turns, begin, end);
    }
    return FM_OK;
}

static fm_status_t turns_mark(struct turns *turns, fm_error_t *err)
{
    const fm_template_output_t *output = turns->output;
    fm_status_t rc = FM_OK;

    if (fm_template_has_generation(turns->tokenizer->chat)) {
        for (size_t i = 0; i < output->span_count; i++) {
            if (output->spans[i].begin < output->spans[i].end) {
                bytes_mark(turns, output->spans[i].begin, output->spans[i].end);
            }
        }
        return FM_OK;
    }
    for (size_t i = 0; i < fm_json_len(turns->messages) && rc >= 0; i++) {
        const char *role =
            fm_json_get_str(fm_json_at(turns->messages, i), "role");
        if (strcmp(role, "assistant") == 0) {
            rc = turn_mark(turns, i, err);
        }
    }
    return rc;
}

/* --- tokens ----------------------------------------------------------------
 */

static fm_status_t result_append(const fm_bpe_ids_t *ids, const uint8_t *mask,
                                 fm_tokens_t *tokens, fm_buf_t *assistant,
                                 fm_error_t *err)
{
    size_t before = tokens->count;
    fm_status_t rc = FM_OK;

    for (size_t i = 0; i < ids->count && rc >= 0; i++) {
        rc = fm_tokens_add(tokens, ids->ids[i], err);
    }
    if (rc >= 0 && assistant) {
        fm_buf_add(assistant, mask, ids->count);
        rc = assistant->failed ? fm_no_memory(err) : FM_OK;
    }
    if (rc < 0) {
        tokens->count = before;
    }
    return rc;
}

fm_status_t fm_chat_render(const fm_tokenizer_t *tokenizer,
                           const fm_json_t *messages,
                           const fm_chat_options_t *options,
                           fm_tokens_t *tokens, fm_buf_t *assistant,
                           fm_error_t *err)
{
    fm_template_output_t output = {0};
    fm_bpe_ids_t ids = {0};
    uint8_t *mask = NULL;
    fm_status_t rc = messages_check(tokenizer, messages, err);

    options = options ? options : &defaults;
    if (rc < 0 ||
        (rc = render(tokenizer, messages, fm_json_len(messages), options,
                     options->add_generation_prompt, &output, err)) < 0) {
        return rc;
    }
    const fm_bpe_encode_options_t how = {
        .parse_special = true,
        .marks = output.marks,
        .offsets = true,
        .limit = tokens->count < FM_TOKENIZER_ENCODE_LIMIT
                     ? FM_TOKENIZER_ENCODE_LIMIT - tokens->count
                     : 0};
    rc = tokenizer->kind->encode(tokenizer, output.text, output.len, &how, &ids,
                                 err);
    if (rc >= 0 && !(mask = fm_calloc(ids.count + 1, 1))) {
        rc = fm_no_memory(err);
    }
    if (rc >= 0 && assistant) {
        struct turns turns = {tokenizer, messages, options,
                              &output,   &ids,     mask};
        rc = turns_mark(&turns, err);
    }
    if (rc >= 0) {
        rc = result_append(&ids, mask, tokens, assistant, err);
    }
    free(mask);
    fm_bpe_ids_fini(&ids);
    fm_template_output_fini(&output);
    return rc;
}
