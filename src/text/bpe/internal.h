/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file internal.h
 * What the files of text/bpe share: the parts of a tokenizer and the text on
 * its way through them.
 */
#ifndef FM_TEXT_BPE_INTERNAL_H
#define FM_TEXT_BPE_INTERNAL_H

#include "base/json.h"
#include "text/bpe/bpe.h"
#include "text/unicode/regex.h"
#include "text/unicode/unicode.h"

/** Most steps of a normalizer, pre-tokenizer or decoder, sequences unrolled. */
#define FM_BPE_STEPS_MAX 32
/** Longest text of one token or option, bytes. */
#define FM_BPE_TOKEN_MAX ((size_t)64 << 10)

/* --- text: bytes, and where each came from ---------------------------------
 */

/** Bytes on their way; origins is kept up only where offsets are wanted. */
typedef struct fm_bpe_text {
    fm_buf_t bytes;
    uint32_t *origins; /**< one a byte: its offset in the caller's text */
    size_t origins_capacity;
    bool tracked;
} fm_bpe_text_t;

void fm_bpe_text_fini(fm_bpe_text_t *text);
void fm_bpe_text_clear(fm_bpe_text_t *text, bool tracked);
/** Append bytes that all come from @p origin. */
void fm_bpe_text_add(fm_bpe_text_t *text, const char *bytes, size_t len,
                     uint32_t origin);
/** Append bytes that come from @p origin, @p origin + 1, …. */
void fm_bpe_text_add_run(fm_bpe_text_t *text, const char *bytes, size_t len,
                         uint32_t origin);
/** Append [begin, end) of @p from with its origins. */
void fm_bpe_text_copy(fm_bpe_text_t *text, const fm_bpe_text_t *from,
                      size_t begin, size_t end);
/** The offset byte @p at came from; of the end: one past the last's. */
uint32_t fm_bpe_text_origin(const fm_bpe_text_t *text, size_t at);
static inline const char *fm_bpe_text_at(const fm_bpe_text_t *text, size_t at)
{
    return text->bytes.data ? (const char *)text->bytes.data + at : "";
}

/* --- patterns --------------------------------------------------------------
 */

/** {"String": s} or {"Regex": s}; regex is NULL for a string. */
typedef struct fm_bpe_pattern {
    char *text;
    size_t len;
    fm_regex_t *regex;
} fm_bpe_pattern_t;

fm_status_t fm_bpe_pattern_load(const fm_json_t *json, const char *what,
                                fm_bpe_pattern_t *pattern_out, fm_error_t *err);
void fm_bpe_pattern_fini(fm_bpe_pattern_t *pattern);
/** As fm_regex_find(). */
fm_status_t fm_bpe_pattern_find(const fm_bpe_pattern_t *pattern,
                                fm_regex_matcher_t *matcher, const char *text,
                                size_t len, size_t from, size_t *begin_out,
                                size_t *end_out, fm_error_t *err);

/* --- steps of normalizer, pre-tokenizer, decoder ----------------------------
 */

typedef enum fm_bpe_behavior {
    FM_BPE_ISOLATED,
    FM_BPE_REMOVED,
    FM_BPE_CONTIGUOUS,
    FM_BPE_MERGED_WITH_PREVIOUS,
    FM_BPE_MERGED_WITH_NEXT
} fm_bpe_behavior_t;

typedef enum fm_bpe_prepend {
    FM_BPE_PREPEND_ALWAYS,
    FM_BPE_PREPEND_FIRST,
    FM_BPE_PREPEND_NEVER
} fm_bpe_prepend_t;

struct fm_bpe_step_type;

/** One step, of any of the three chains; which fields count is its type's. */
typedef struct fm_bpe_step {
    const struct fm_bpe_step_type *type;
    fm_bpe_pattern_t pattern; /**< Replace, Split, ByteLevel */
    char *content;            /**< Replace, Prepend, Strip, Metaspace */
    size_t content_len;
    fm_bpe_behavior_t behavior;
    fm_bpe_prepend_t prepend;
    fm_unicode_form_t form;
    bool flag; /**< Split: invert; ByteLevel: add_prefix_space; Metaspace:
                    split; Digits: individual_digits */
    bool left, right; /**< Strip */
    size_t start;     /**< Strip of a decoder: at most so many in front */
} fm_bpe_step_t;

typedef struct fm_bpe_steps {
    fm_bpe_step_t list[FM_BPE_STEPS_MAX];
    size_t count;
} fm_bpe_steps_t;

/** How a chain reads one step; the rest of the row is its own. */
typedef struct fm_bpe_step_type {
    const char *name;
    fm_status_t (*load)(const fm_json_t *json, const char *what,
                        fm_bpe_step_t *step, fm_error_t *err);
    int op; /**< the chain's own enum */
} fm_bpe_step_type_t;

/** Read null, one step or a Sequence of them (member @p list_key). */
fm_status_t fm_bpe_steps_load(const fm_json_t *json, const char *what,
                              const char *list_key,
                              const fm_bpe_step_type_t *types,
                              size_t type_count, fm_bpe_steps_t *steps,
                              fm_error_t *err);
void fm_bpe_steps_fini(fm_bpe_steps_t *steps);
/** Readers that several rows share. */
fm_status_t fm_bpe_step_load_nothing(const fm_json_t *json, const char *what,
                                     fm_bpe_step_t *step, fm_error_t *err);
fm_status_t fm_bpe_step_load_replace(const fm_json_t *json, const char *what,
                                     fm_bpe_step_t *step, fm_error_t *err);
fm_status_t fm_bpe_step_load_metaspace(const fm_json_t *json, const char *what,
                                       fm_bpe_step_t *step, fm_error_t *err);
fm_status_t fm_bpe_step_load_content(const fm_json_t *json, const char *key,
                                     const char *what, fm_bpe_step_t *step,
                                     fm_error_t *err);

/* --- the three chains ------------------------------------------------------
 */

fm_status_t fm_bpe_normalizer_load(const fm_json_t *json, fm_bpe_steps_t *steps,
                                   fm_error_t *err);
/** Run on @p text in place; @p spare is working memory. */
fm_status_t fm_bpe_normalize(const fm_bpe_steps_t *steps,
                             fm_regex_matcher_t *matcher, fm_bpe_text_t *text,
                             fm_bpe_text_t *spare, fm_error_t *err);

/** A word: bytes [begin, end) of the text. */
typedef struct fm_bpe_range {
    size_t begin;
    size_t end;
} fm_bpe_range_t;

typedef struct fm_bpe_ranges {
    fm_bpe_range_t *list;
    size_t count;
    size_t capacity;
} fm_bpe_ranges_t;

fm_status_t fm_bpe_pretokenizer_load(const fm_json_t *json,
                                     fm_bpe_steps_t *steps, fm_error_t *err);
/** What a pre-tokenizer works on: text, and its words so far. */
typedef struct fm_bpe_words {
    fm_bpe_text_t text;
    fm_bpe_ranges_t ranges;
    fm_bpe_text_t spare_text;
    fm_bpe_ranges_t spare_ranges;
    fm_bpe_ranges_t matches;
    fm_regex_matcher_t *matcher;
    bool at_start; /**< the text begins where the caller's does */
} fm_bpe_words_t;

void fm_bpe_words_fini(fm_bpe_words_t *words);
fm_status_t fm_bpe_pretokenize(const fm_bpe_steps_t *steps,
                               fm_bpe_words_t *words, fm_error_t *err);

fm_status_t fm_bpe_decoder_load(const fm_json_t *json, fm_bpe_steps_t *steps,
                                fm_error_t *err);
/** @param tokens  the token texts, one a range of @p text; both are consumed.
 *  @param joined  there is no decoder at all: tokens are joined by spaces. */
fm_status_t fm_bpe_decode_run(const fm_bpe_steps_t *steps, bool joined,
                              const fm_bpe_decode_options_t *options,
                              fm_buf_t *text, fm_bpe_ranges_t *tokens,
                              fm_buf_t *out, fm_error_t *err);
/** Whether the chain has a ByteFallback step. */
bool fm_bpe_decoder_has_fallback(const fm_bpe_steps_t *steps);
/** The byte that "<0x4F>" stands for; -1: another token. */
int fm_bpe_fallback_byte(const char *token, size_t len);

/** The printable character of each byte (GPT-2's table), and back. */
uint32_t fm_bpe_byte_to_char(uint8_t byte);
int fm_bpe_char_to_byte(uint32_t c); /**< -1: none */

/* --- vocabulary and merges --------------------------------------------------
 */

typedef struct fm_bpe_vocab fm_bpe_vocab_t;

fm_status_t fm_bpe_vocab_load(const fm_json_t *model, const fm_json_t *added,
                              fm_bpe_vocab_t **vocab_out, fm_error_t *err);
void *fm_bpe_vocab_destroy(fm_bpe_vocab_t *vocab);
int32_t fm_bpe_vocab_limit(const fm_bpe_vocab_t *vocab);
const char *fm_bpe_vocab_token(const fm_bpe_vocab_t *vocab, int32_t id,
                               size_t *len_out);
/** Of the model's vocabulary alone. */
int32_t fm_bpe_vocab_find(const fm_bpe_vocab_t *vocab, const char *token,
                          size_t len);

typedef struct fm_bpe_model fm_bpe_model_t;

fm_status_t fm_bpe_model_load(const fm_json_t *json,
                              const fm_bpe_vocab_t *vocab,
                              fm_bpe_model_t **model_out, fm_error_t *err);
void *fm_bpe_model_destroy(fm_bpe_model_t *model);
/** U+2581, which stands for a space in SentencePiece's vocabularies. */
#define FM_BPE_SPACE "\xE2\x96\x81"
/** Whether no merge joins a character with a FM_BPE_SPACE behind it: then a
 *  text may be cut before each run of them, and gives the same tokens. */
bool fm_bpe_model_cuts(const fm_bpe_model_t *model);
/** Working memory of merges, and words seen before. */
typedef struct fm_bpe_scratch fm_bpe_scratch_t;
/** @param text_bytes  of all that will be encoded: short texts get no cache. */
fm_status_t fm_bpe_scratch_create(size_t text_bytes,
                                  fm_bpe_scratch_t **scratch_out,
                                  fm_error_t *err);
void *fm_bpe_scratch_destroy(fm_bpe_scratch_t *scratch);
/** The tokens of one word: ids and, one each, their bytes of the word. */
typedef struct fm_bpe_merged {
    const int32_t *ids;
    const uint32_t *bytes;
    size_t count;
} fm_bpe_merged_t;
/** @p merged_out is valid until the next call. */
fm_status_t fm_bpe_model_merge(const fm_bpe_model_t *model,
                               fm_bpe_scratch_t *scratch, const char *word,
                               size_t len, fm_bpe_merged_t *merged_out,
                               fm_error_t *err);

/* --- added tokens -----------------------------------------------------------
 */

typedef struct fm_bpe_added {
    int32_t id;
    bool special, single_word, lstrip, rstrip, normalized;
    char *content;
    size_t len;
} fm_bpe_added_t;

/** Added tokens and the two tries that find them. */
typedef struct fm_bpe_finder fm_bpe_finder_t;

fm_status_t fm_bpe_finder_load(const fm_json_t *json,
                               const fm_bpe_steps_t *normalizer,
                               fm_bpe_finder_t **finder_out, fm_error_t *err);
void *fm_bpe_finder_destroy(fm_bpe_finder_t *finder);
const fm_bpe_added_t *fm_bpe_finder_by_id(const fm_bpe_finder_t *finder,
                                          int32_t id);
const fm_bpe_added_t *fm_bpe_finder_by_text(const fm_bpe_finder_t *finder,
                                            const char *text, size_t len);

/** A found token, or (added NULL) what lies between two. */
typedef struct fm_bpe_part {
    size_t begin;
    size_t end;
    const fm_bpe_added_t *added;
} fm_bpe_part_t;

typedef struct fm_bpe_parts {
    fm_bpe_part_t *list;
    size_t count;
    size_t capacity;
} fm_bpe_parts_t;

/**
 * Replace the content of @p parts by those of @p text.
 * @param normalized  which of the two sets.
 * @param origins     NULL: byte i of the text is byte i of options->marks;
 *                    else origins[i].
 */
fm_status_t fm_bpe_finder_split(const fm_bpe_finder_t *finder, bool normalized,
                                const char *text, size_t len,
                                const fm_bpe_encode_options_t *options,
                                const uint32_t *origins, fm_bpe_parts_t *parts,
                                fm_error_t *err);

#endif
