/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tokenizers in and out.  tokenizer.json goes through byte for byte; what is
 * said about it elsewhere goes into the description, and comes out as a
 * tokenizer_config.json that says the same.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "run/model/put.h"

/* A template is text for people: far more than any published one has. */
#define TEMPLATE_BYTES_MAX ((size_t)1 << 20)

/* --- in ------------------------------------------------------------------- */

static fm_status_t missing(const char *dir, fm_error_t *err)
{
    char *path = fm_asprintf("%s/tokenizer.model", dir);
    bool sentencepiece = path && access(path, F_OK) == 0;

    free(path);
    return fm_error_set(
        err, sentencepiece ? FM_ERR_UNSUPPORTED : FM_ERR_NOT_FOUND,
        sentencepiece
            ? "%s: has tokenizer.model only; convert it in Python: "
              "AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR) writes "
              "tokenizer.json"
            : "%s: has no tokenizer.json; copy it from where the model is from",
        dir);
}

struct files {
    fm_buf_t json;
    fm_buf_t chat;
    fm_json_t *config;
    fm_json_t *specials;
};

static void files_fini(struct files *files)
{
    fm_buf_fini(&files->json);
    fm_buf_fini(&files->chat);
    fm_json_drop(files->config);
    fm_json_drop(files->specials);
}

static fm_status_t files_read(const char *dir, struct files *files,
                              bool *has_chat_out, fm_error_t *err)
{
    bool found = false;
    fm_status_t rc =
        fm_source_file(dir, "tokenizer.json", FM_TOKENIZER_BYTES_MAX,
                       &files->json, &found, err);

    if (rc >= 0 && !found) {
        rc = missing(dir, err);
    }
    if (rc < 0 ||
        (rc = fm_source_json(dir, "tokenizer_config.json", &files->config,
                             err)) < 0 ||
        (rc = fm_source_json(dir, "special_tokens_map.json", &files->specials,
                             err)) < 0) {
        return rc;
    }
    return fm_source_file(dir, "chat_template.jinja", TEMPLATE_BYTES_MAX,
                          &files->chat, has_chat_out, err);
}

fm_status_t fm_model_tokenizer_import(fm_cas_t *cas, const char *dir,
                                      const fm_json_t *config,
                                      const fm_json_t *generation,
                                      fm_json_t **description_out,
                                      fm_error_t *err)
{
    struct files files = {0};
    char text[FM_DIGEST_TEXT_BYTES];
    fm_digest_t digest;
    bool has_chat = false;
    fm_status_t rc = files_read(dir, &files, &has_chat, err);

    if (rc < 0) {
        goto out;
    }
    digest = fm_sha256(files.json.data, files.json.len);
    const fm_tokenizer_files_t from = {
        .json = files.json.data,
        .json_len = files.json.len,
        .digest = fm_digest_format(&digest, text),
        .config = files.config,
        .specials = files.specials,
        .generation = generation,
        .model = config,
        .chat_template = has_chat ? fm_buf_cstr(&files.chat) : NULL};
    if ((rc = fm_tokenizer_import(&from, description_out, err)) < 0) {
        fm_error_wrap(err, "%s: tokenizer", dir);
        goto out;
    }
    if ((rc = fm_cas_put(cas, FM_CAS_BLOB, files.json.data, files.json.len,
                         &digest, err)) < 0) {
        *description_out = fm_json_drop(*description_out);
    }
out:
    files_fini(&files);
    return rc;
}

/* --- out ------------------------------------------------------------------ */

static fm_status_t file_write(const char *dir, const char *name,
                              const void *data, size_t len, fm_error_t *err)
{
    char *path = fm_asprintf("%s/%s", dir, name);
    fm_status_t rc =
        path ? fm_file_replace(path, data, len, err) : fm_no_memory(err);

    free(path);
    return rc;
}

/* The character that byte-level BPE writes a byte as: printable Latin-1 is
 * itself, the others follow from U+0100 on. */
static unsigned byte_letter(unsigned byte)
{
    unsigned next = 256;

    for (unsigned b = 0; b < 256; b++) {
        bool plain = (b >= 33 && b <= 126) || (b >= 161 && b != 173);
        if (b == byte) {
            return plain ? b : next;
        }
        next += plain ? 0 : 1;
    }
    return 0;
}

static void byte_vocab_add(fm_buf_t *buf)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        unsigned letter = byte_letter(byte);
        fm_buf_printf(buf, "%s\"", byte ? "," : "");
        if (letter == '"' || letter == '\\') {
            fm_buf_printf(buf, "\\%c", (char)letter);
        } else if (letter < 128) {
            fm_buf_printf(buf, "%c", (char)letter);
        } else {
            fm_buf_printf(buf, "\\u%04x", letter);
        }
        fm_buf_printf(buf, "\":%u", byte);
    }
}

/* A byte-level tokenizer as others read it: BPE without a merge. */
static void byte_json_make(fm_buf_t *buf)
{
    static const char *const specials[] = {"<s>", "</s>", "<pad>"};

    fm_buf_add_str(buf, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":"
                        "null,\"added_tokens\":[");
    for (size_t i = 0; i < FM_COUNT_OF(specials); i++) {
        fm_buf_printf(buf,
                      "%s{\"id\":%zu,\"content\":\"%s\",\"single_word\":false,"
                      "\"lstrip\":false,\"rstrip\":false,\"normalized\":false,"
                      "\"special\":true}",
                      i ? "," : "", FM_TOKENIZER_BYTE_BOS + i, specials[i]);
    }
    fm_buf_printf(
        buf,
        "],\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\","
        "\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false},"
        "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{"
        "\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}},{\"Sequence\":{"
        "\"id\":\"A\",\"type_id\":0}}],\"pair\":[{\"Sequence\":{\"id\":\"A\","
        "\"type_id\":0}},{\"Sequence\":{\"id\":\"B\",\"type_id\":1}}],"
        "\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":[%d],\"tokens\":["
        "\"<s>\"]}}},\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":"
        "true,\"trim_offsets\":true,\"use_regex\":true},\"model\":{\"type\":"
        "\"BPE\",\"dropout\":null,\"unk_token\":null,"
        "\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,"
        "\"fuse_unk\":false,\"byte_fallback\":false,\"ignore_merges\":false,"
        "\"vocab\":{",
        FM_TOKENIZER_BYTE_BOS);
    byte_vocab_add(buf);
    fm_buf_add_str(buf, "},\"merges\":[]}}");
}

/* Set @p key to the spelling of a token; nothing for no token. */
static fm_status_t token_set(fm_json_t *config, const char *key,
                             const fm_tokenizer_t *tokenizer, int32_t id,
                             const char *byte_name, fm_error_t *err)
{
    fm_buf_t text = {0};
    fm_status_t rc = FM_OK;

    if (id < 0) {
        return FM_OK;
    }
    if (byte_name) {
        fm_buf_add_str(&text, byte_name);
    } else {
        rc = fm_tokenizer_decode_all(tokenizer, &id, 1, &text, err);
    }
    if (rc >= 0 &&
        fm_json_set(config, key,
                    fm_json_stringn((const char *)text.data, text.len)) < 0) {
        rc = fm_no_memory(err);
    }
    fm_buf_fini(&text);
    return rc;
}

static fm_status_t config_make(const fm_json_t *description,
                               const fm_tokenizer_t *tokenizer,
                               size_t positions, fm_json_t *config,
                               fm_error_t *err)
{
    const fm_json_t *chat = fm_json_get(description, "chat_template");
    bool bytes = !fm_json_get(description, "digest");
    fm_status_t rc = FM_OK;

    if (fm_json_set(config, "tokenizer_class",
                    fm_json_string("PreTrainedTokenizerFast")) < 0 ||
        fm_json_set(config, "clean_up_tokenization_spaces",
                    fm_json_bool(false)) < 0 ||
        fm_json_set(config, "model_max_length",
                    fm_json_int((int64_t)positions)) < 0 ||
        (chat &&
         fm_json_set(config, "chat_template", fm_json_keep(chat)) < 0)) {
        return fm_no_memory(err);
    }
    if ((rc = token_set(config, "bos_token", tokenizer,
                        fm_tokenizer_bos(tokenizer), bytes ? "<s>" : NULL,
                        err)) < 0 ||
        (rc = token_set(config, "eos_token", tokenizer,
                        fm_tokenizer_eos(tokenizer), bytes ? "</s>" : NULL,
                        err)) < 0) {
        return rc;
    }
    return token_set(config, "pad_token", tokenizer,
                     fm_tokenizer_pad(tokenizer), bytes ? "<pad>" : NULL, err);
}

/* The bytes of tokenizer.json, and the tokenizer. */
static fm_status_t tokenizer_read(fm_cas_t *cas, const fm_json_t *description,
                                  fm_buf_t *json,
                                  fm_tokenizer_t **tokenizer_out,
                                  fm_error_t *err)
{
    const char *text = fm_json_get_str(description, "digest");
    fm_digest_t digest;
    fm_status_t rc = FM_OK;

    if (!text) {
        byte_json_make(json);
        return json->failed ? fm_no_memory(err)
                            : fm_tokenizer_create(description, NULL, 0,
                                                  tokenizer_out, err);
    }
    if (!fm_digest_parse(text, &digest)) {
        return fm_error_set(err, FM_ERR_INVALID, "tokenizer.digest: bad");
    }
    rc = fm_cas_get(cas, &digest, json, err);
    return rc < 0 ? rc
                  : fm_tokenizer_create(description, json->data, json->len,
                                        tokenizer_out, err);
}

fm_status_t fm_model_tokenizer_export(fm_cas_t *cas,
                                      const fm_model_manifest_t *manifest,
                                      const char *dir, fm_error_t *err)
{
    const fm_json_t *description = fm_json_get(manifest->json, "tokenizer");
    fm_tokenizer_t *tokenizer = NULL;
    fm_buf_t json = {0};
    fm_json_t *config = fm_json_object();
    char *text = NULL;
    fm_status_t rc =
        config ? tokenizer_read(cas, description, &json, &tokenizer, err)
               : fm_no_memory(err);

    if (rc < 0 ||
        (rc = config_make(description, tokenizer,
                          manifest->config.max_position_embeddings, config,
                          err)) < 0 ||
        (rc = file_write(dir, "tokenizer.json", json.data, json.len, err)) <
            0) {
        goto out;
    }
    text = fm_json_dump_pretty(config);
    rc = text
             ? file_write(dir, "tokenizer_config.json", text, strlen(text), err)
             : fm_no_memory(err);
out:
    free(text);
    fm_json_drop(config);
    fm_tokenizer_destroy(tokenizer);
    fm_buf_fini(&json);
    return rc;
}
