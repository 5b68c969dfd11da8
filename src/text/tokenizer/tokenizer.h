/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file tokenizer.h
 * Text to token ids and back.
 *
 * Two kinds stand behind one set of functions.  "byte" has one token a byte
 * and three specials after them: ids 0…255 are the bytes, 256 begins a
 * sequence, 257 ends one, 258 pads; the vocabulary is rounded up to 260.
 * "json" is a Hugging Face tokenizer.json (byte-level or byte-fallback BPE)
 * and gives the ids and texts of the `tokenizers` library.
 *
 * A description says which, as model manifests hold it:
 *   {"type": "byte", "chat_template": text?}
 *   {"type": "json", "digest": D, "chat_template": text?, "bos": id|null,
 *    "eos": [ids], "pad": id|null, "add_bos": bool, "add_eos": bool}
 * with D the digest of tokenizer.json, byte for byte.
 *
 * Threads: a tokenizer is immutable and may be shared; a stream belongs to one
 * thread.
 */
#ifndef FM_TEXT_TOKENIZER_TOKENIZER_H
#define FM_TEXT_TOKENIZER_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/json.h"

/** Ids of the byte-level tokenizer. */
#define FM_TOKENIZER_BYTE_BOS 256
#define FM_TOKENIZER_BYTE_EOS 257
#define FM_TOKENIZER_BYTE_PAD 258
#define FM_TOKENIZER_BYTE_VOCAB 260

/** Most tokens one encode yields: bounds a prompt before it reaches a model. */
#define FM_TOKENIZER_ENCODE_LIMIT ((size_t)1 << 24)
/** Largest tokenizer.json read (the largest published ones have 35 MB). */
#define FM_TOKENIZER_BYTES_MAX ((size_t)256 << 20)

typedef struct fm_tokenizer fm_tokenizer_t;

/** A growing list of token ids; zero-initialise it. */
typedef struct fm_tokens {
    int32_t *ids;
    size_t count;
    size_t capacity;
} fm_tokens_t;

/** Release the memory; the list is empty and usable again. */
void fm_tokens_fini(fm_tokens_t *tokens);
FM_MUST_USE fm_status_t fm_tokens_add(fm_tokens_t *tokens, int32_t id,
                                      fm_error_t *err);

/** The byte-level tokenizer. */
FM_MUST_USE fm_status_t fm_tokenizer_create_byte(fm_tokenizer_t **tokenizer_out,
                                                 fm_error_t *err);
/**
 * The tokenizer that @p description names, as fm_tokenizer_describe()
 * writes it.
 * @param json  of type "json" the @p len bytes of tokenizer.json, not kept;
 *              else NULL.  The caller has checked them against "digest".
 * @retval FM_ERR_UNSUPPORTED  a type, or a part of tokenizer.json, that this
 *                             build does not know: the text names it.
 * @retval FM_ERR_INVALID      the text names the entry.
 */
FM_MUST_USE fm_status_t fm_tokenizer_create(const fm_json_t *description,
                                            const void *json, size_t len,
                                            fm_tokenizer_t **tokenizer_out,
                                            fm_error_t *err);

/** The files of a published model that say how its tokenizer is used. */
typedef struct fm_tokenizer_files {
    const void *json; /**< tokenizer.json, @p json_len bytes */
    size_t json_len;
    const char *digest;          /**< of these bytes; "sha256:…" */
    const fm_json_t *config;     /**< tokenizer_config.json, or NULL */
    const fm_json_t *specials;   /**< special_tokens_map.json, or NULL */
    const fm_json_t *generation; /**< generation_config.json, or NULL */
    const fm_json_t *model;      /**< config.json, or NULL */
    const char *chat_template;   /**< chat_template.jinja, or NULL */
} fm_tokenizer_files_t;
/**
 * The description of a published tokenizer, for fm_tokenizer_create().
 *
 * bos, eos and pad come from tokenizer_config, else special_tokens_map, else
 * the ids of config.json; every eos_token_id of generation_config joins "eos",
 * the tokenizer's own first.  add_bos and add_eos are what the post-processor
 * of tokenizer.json adds to one text, else add_bos_token and add_eos_token.
 * The template is the file's, else tokenizer_config's ("default" of a list of
 * named ones; a list without it keeps its first).
 * @retval FM_ERR_INVALID      a token that the vocabulary does not have.
 * @retval FM_ERR_UNSUPPORTED  as fm_tokenizer_create(): the tokenizer
 *                             and its template are loaded once to see.
 */
FM_MUST_USE fm_status_t fm_tokenizer_import(const fm_tokenizer_files_t *files,
                                            fm_json_t **description_out,
                                            fm_error_t *err);

/** Description for fm_tokenizer_create(); new reference or NULL. */
FM_MUST_USE fm_json_t *fm_tokenizer_describe(const fm_tokenizer_t *tokenizer);
fm_tokenizer_t *fm_tokenizer_destroy(fm_tokenizer_t *tokenizer);

/** Ids are below this; a model needs vocab_size of at least as much. */
int32_t fm_tokenizer_vocab_size(const fm_tokenizer_t *tokenizer);
/** Let ids go up to @p vocab_size, those beyond its own vocabulary unused: a
 *  model's is often padded, and the model may give such an id.  Before the
 *  tokenizer is shared. */
void fm_tokenizer_reach(fm_tokenizer_t *tokenizer, int32_t vocab_size);
/** The id that begins, ends (the first of them), pads a sequence; -1: none. */
int32_t fm_tokenizer_bos(const fm_tokenizer_t *tokenizer);
int32_t fm_tokenizer_eos(const fm_tokenizer_t *tokenizer);
int32_t fm_tokenizer_pad(const fm_tokenizer_t *tokenizer);
/** Generation stops at any of these. */
const int32_t *fm_tokenizer_eos_ids(const fm_tokenizer_t *tokenizer,
                                    size_t *count_out);
bool fm_tokenizer_is_eos(const fm_tokenizer_t *tokenizer, int32_t id);
/** Whether a text of its own gets a bos in front, an eos behind. */
bool fm_tokenizer_adds_bos(const fm_tokenizer_t *tokenizer);
bool fm_tokenizer_adds_eos(const fm_tokenizer_t *tokenizer);
/** Whether decoding leaves @p id out. */
bool fm_tokenizer_is_special(const fm_tokenizer_t *tokenizer, int32_t id);
/** The id whose entry in the vocabulary is @p token, as the file spells it
 *  ("<|im_end|>", "Ġthe"); -1: none. */
int32_t fm_tokenizer_find(const fm_tokenizer_t *tokenizer, const char *token);

/**
 * Append the tokens of @p text (no bos, no eos: add them yourself).  Special
 * tokens cannot be spelled in it: "<|im_end|>" is ordinary text.  Added tokens
 * that the file does not call special are found in it, as by the library.
 * @param text  @p len bytes; any for kind "byte", else UTF-8.
 * @retval FM_ERR_LIMIT    more than FM_TOKENIZER_ENCODE_LIMIT tokens in all.
 * @retval FM_ERR_INVALID  not UTF-8, or a character without a token.
 */
FM_MUST_USE fm_status_t fm_tokenizer_encode(const fm_tokenizer_t *tokenizer,
                                            const char *text, size_t len,
                                            fm_tokens_t *tokens,
                                            fm_error_t *err);

typedef struct fm_engine_encode_options {
    bool parse_special; /**< specials spelled in the text become their ids */
    bool add_bos;       /**< a bos in front, if the tokenizer adds_bos */
    bool add_eos;       /**< an eos behind, if the tokenizer adds_eos */
} fm_engine_encode_options_t;
/** fm_tokenizer_encode() with @p options.  On failure the list is as it
 *  was. */
FM_MUST_USE fm_status_t
fm_tokenizer_encode_with(const fm_tokenizer_t *tokenizer, const char *text,
                         size_t len, const fm_engine_encode_options_t *options,
                         fm_tokens_t *tokens, fm_error_t *err);

/**
 * Append the text of @p ids; specials and unused ids give nothing.  The bytes
 * need not be UTF-8: a model may have sampled half a character.
 * @retval FM_ERR_INVALID  an id outside the vocabulary.
 */
FM_MUST_USE fm_status_t fm_tokenizer_decode(const fm_tokenizer_t *tokenizer,
                                            const int32_t *ids, size_t count,
                                            fm_buf_t *text, fm_error_t *err);
/**
 * The same as UTF-8, so that the text fits a JSON string: bytes that are no
 * character become U+FFFD, as the library's decode() does it (and NUL, which
 * it keeps).
 */
FM_MUST_USE fm_status_t
fm_tokenizer_decode_utf8(const fm_tokenizer_t *tokenizer, const int32_t *ids,
                         size_t count, fm_buf_t *text, fm_error_t *err);
/** fm_tokenizer_decode_utf8() that spells specials out. */
FM_MUST_USE fm_status_t fm_tokenizer_decode_all(const fm_tokenizer_t *tokenizer,
                                                const int32_t *ids,
                                                size_t count, fm_buf_t *text,
                                                fm_error_t *err);

/**
 * Incremental fm_tokenizer_decode_utf8(): what the calls append, one
 * after the other, is the text of all ids.  A character that is not complete
 * is held back; so is a run of byte-fallback tokens until another token ends
 * it, because one bad byte changes the whole run.
 */
typedef struct fm_engine_stream fm_engine_stream_t;
/** @param tokenizer  borrowed: outlives the stream. */
FM_MUST_USE fm_status_t fm_engine_stream_create(const fm_tokenizer_t *tokenizer,
                                                fm_engine_stream_t **stream_out,
                                                fm_error_t *err);
FM_MUST_USE fm_status_t fm_engine_stream_add(fm_engine_stream_t *stream,
                                             int32_t id, fm_buf_t *text,
                                             fm_error_t *err);
/** Append what is held back and begin anew. */
FM_MUST_USE fm_status_t fm_engine_stream_finish(fm_engine_stream_t *stream,
                                                fm_buf_t *text,
                                                fm_error_t *err);
fm_engine_stream_t *fm_engine_stream_destroy(fm_engine_stream_t *stream);

#endif
