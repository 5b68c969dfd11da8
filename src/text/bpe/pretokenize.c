/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pre-tokenizers: cut a text into the words that are merged on their own.
 * Each step cuts the ranges of the step before; Metaspace and ByteLevel also
 * rewrite the text.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/bpe/internal.h"

enum op {
    BYTE_LEVEL,
    DIGITS,
    METASPACE,
    PUNCTUATION,
    SPLIT,
    WHITESPACE,
    WHITESPACE_SPLIT
};

/* GPT-2's words (Radford et al. 2019): contractions, letters, numbers, the
 * rest, each with one space in front; runs of white space. */
static const char gpt2_words[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+|"
                                 " ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* --- reading ---------------------------------------------------------------
 */

static fm_status_t behavior_load(const fm_json_t *json, const char *what,
                                 fm_bpe_step_t *step, fm_error_t *err)
{
    static const char *const names[] = {
        [FM_BPE_ISOLATED] = "Isolated",
        [FM_BPE_REMOVED] = "Removed",
        [FM_BPE_CONTIGUOUS] = "Contiguous",
        [FM_BPE_MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
        [FM_BPE_MERGED_WITH_NEXT] = "MergedWithNext",
    };
    const char *name = fm_json_get_str(json, "behavior");

    for (size_t i = 0; name && i < FM_COUNT_OF(names); i++) {
        if (strcmp(name, names[i]) == 0) {
            step->behavior = (fm_bpe_behavior_t)i;
            return FM_OK;
        }
    }
    return fm_error_set(err, FM_ERR_INVALID,
                        "%s.behavior: \"%.32s\"; want Isolated, Removed, "
                        "Contiguous, MergedWithPrevious or MergedWithNext",
                        what, name ? name : "");
}

static fm_status_t split_load(const fm_json_t *json, const char *what,
                              fm_bpe_step_t *step, fm_error_t *err)
{
    fm_status_t rc = behavior_load(json, what, step, err);

    step->flag = fm_json_get_bool(json, "invert", false);
    return rc < 0 ? rc
                  : fm_bpe_pattern_load(fm_json_get(json, "pattern"), what,
                                        &step->pattern, err);
}

static fm_status_t punctuation_load(const fm_json_t *json, const char *what,
                                    fm_bpe_step_t *step, fm_error_t *err)
{
    return fm_json_get(json, "behavior") ? behavior_load(json, what, step, err)
                                         : FM_OK;
}

static fm_status_t digits_load(const fm_json_t *json, const char *what,
                               fm_bpe_step_t *step, fm_error_t *err)
{
    (void)what;
    (void)err;
    step->flag = fm_json_get_bool(json, "individual_digits", false);
    step->behavior = step->flag ? FM_BPE_ISOLATED : FM_BPE_CONTIGUOUS;
    return FM_OK;
}

static fm_status_t byte_level_load(const fm_json_t *json, const char *what,
                                   fm_bpe_step_t *step, fm_error_t *err)
{
    step->flag = fm_json_get_bool(json, "add_prefix_space", true);
    return fm_json_get_bool(json, "use_regex", true)
               ? fm_regex_create(gpt2_words, what, &step->pattern.regex, err)
               : FM_OK;
}

static fm_status_t metaspace_load(const fm_json_t *json, const char *what,
                                  fm_bpe_step_t *step, fm_error_t *err)
{
    step->behavior = FM_BPE_MERGED_WITH_NEXT;
    return fm_bpe_step_load_metaspace(json, what, step, err);
}

static fm_status_t removed_load(const fm_json_t *json, const char *what,
                                fm_bpe_step_t *step, fm_error_t *err)
{
    step->behavior = FM_BPE_REMOVED;
    return fm_bpe_step_load_nothing(json, what, step, err);
}

static const fm_bpe_step_type_t types[] = {
    {"ByteLevel", byte_level_load, BYTE_LEVEL},
    {"Digits", digits_load, DIGITS},
    {"Metaspace", metaspace_load, METASPACE},
    {"Punctuation", punctuation_load, PUNCTUATION},
    {"Split", split_load, SPLIT},
    {"Whitespace", fm_bpe_step_load_nothing, WHITESPACE},
    {"WhitespaceSplit", removed_load, WHITESPACE_SPLIT},
};

fm_status_t fm_bpe_pretokenizer_load(const fm_json_t *json,
                                     fm_bpe_steps_t *steps, fm_error_t *err)
{
    return fm_bpe_steps_load(json, "pre_tokenizer", "pretokenizers", types,
                             FM_COUNT_OF(types), steps, err);
}

void fm_bpe_words_fini(fm_bpe_words_t *words)
{
    fm_bpe_text_fini(&words->text);
    fm_bpe_text_fini(&words->spare_text);
    free(words->ranges.list);
    free(words->spare_ranges.list);
    free(words->matches.list);
    fm_regex_matcher_destroy(words->matcher);
    *words = (fm_bpe_words_t){0};
}

static fm_status_t range_add(fm_bpe_ranges_t *ranges, size_t begin, size_t end,
                             fm_error_t *err)
{
    fm_status_t rc = fm_grow(&ranges->list, &ranges->capacity, ranges->count,
                             sizeof(*ranges->list), err);

    if (rc >= 0) {
        ranges->list[ranges->count++] = (fm_bpe_range_t){begin, end};
    }
    return rc;
}

/* --- cutting ---------------------------------------------------------------
 */

/* How the pieces of one range, matches and gaps in turn, become words. */
struct cut {
    fm_bpe_behavior_t behavior;
    bool previous; /* the piece before was a match */
    bool pending;  /* a match waits for the piece behind it */
    fm_bpe_range_t wait;
    size_t first; /* index of the range's first word */
    fm_bpe_ranges_t *out;
};

static fm_status_t cut_add(struct cut *cut, size_t begin, size_t end,
                           bool match, fm_error_t *err)
{
    bool merge = false; /* with the word before */
    fm_status_t rc = FM_OK;

    switch (cut->behavior) {
    case FM_BPE_ISOLATED:
        break;
    case FM_BPE_REMOVED:
        if (match) {
            return FM_OK;
        }
        break;
    case FM_BPE_CONTIGUOUS:
        merge = match == cut->previous;
        break;
    case FM_BPE_MERGED_WITH_PREVIOUS:
        merge = match && !cut->previous;
        break;
    case FM_BPE_MERGED_WITH_NEXT:
        if (cut->pending &&
            match) { /* of matches in a row the last one waits */
            rc = range_add(cut->out, cut->wait.begin, cut->wait.end, err);
        }
        if (match) {
            cut->wait = (fm_bpe_range_t){begin, end};
            cut->pending = true;
            return rc;
        }
        begin = cut->pending ? cut->wait.begin : begin;
        cut->pending = false;
        break;
    }
    cut->previous = match;
    if (merge && cut->out->count > cut->first) {
        cut->out->list[cut->out->count - 1].end = end;
        return FM_OK;
    }
    return rc < 0 ? rc : range_add(cut->out, begin, end, err);
}

/* Matches of a pattern in a range; the offsets are the text's. */
static fm_status_t pattern_matches(const fm_bpe_pattern_t *pattern,
                                   fm_bpe_words_t *words, fm_bpe_range_t range,
                                   fm_error_t *err)
{
    const char *text = fm_bpe_text_at(&words->text, range.begin);
    size_t len = range.end - range.begin;
    size_t last = len + 1; /* end of the match before */

    for (size_t at = 0; at <= len;) {
        size_t begin = 0;
        size_t end = 0;
        fm_status_t rc = fm_bpe_pattern_find(pattern, words->matcher, text, len,
                                             at, &begin, &end, err);
        if (rc < 0) {
            return rc;
        }
        if (begin > len) {
            break;
        }
        begin = begin < at ? at : begin;
        if (end > begin || end != last) {
            rc = range_add(&words->matches, range.begin + begin,
                           range.begin + end, err);
            if (rc < 0) {
                return rc;
            }
        }
        last = end;
        at = end;
        if (end <= begin) {
            at += at < len ? fm_utf8_length(text + at, len - at) : 1;
        }
    }
    return FM_OK;
}

static bool char_matches(const fm_bpe_step_t *step, uint32_t c)
{
    switch ((enum op)step->type->op) {
    case DIGITS:
        return fm_unicode_is_number(c);
    case PUNCTUATION:
        return fm_unicode_is_punct(c);
    case WHITESPACE_SPLIT:
        return fm_unicode_is_space(c);
    case BYTE_LEVEL:
    case METASPACE:
    case SPLIT:
    case WHITESPACE:
        break;
    }
    return false;
}

/* Every character of a class is a match of its own. */
static fm_status_t class_matches(const fm_bpe_step_t *step,
                                 fm_bpe_words_t *words, fm_bpe_range_t range,
                                 fm_error_t *err)
{
    fm_status_t rc = FM_OK;
    size_t bytes = 0;

    for (size_t i = range.begin; i < range.end && rc >= 0; i += bytes) {
        uint32_t c = fm_utf8_decode(fm_bpe_text_at(&words->text, i), &bytes);
        if (char_matches(step, c)) {
            rc = range_add(&words->matches, i, i + bytes, err);
        }
    }
    return rc;
}

/* Whitespace: runs of \w, and of what is neither \w nor space, are words. */
static int whitespace_class(uint32_t c)
{
    return fm_unicode_is_word(c) ? 1 : fm_unicode_is_space(c) ? 0 : 2;
}

static fm_status_t whitespace_range(fm_bpe_words_t *words, fm_bpe_range_t range,
                                    fm_error_t *err)
{
    fm_status_t rc = FM_OK;
    size_t from = range.begin;
    int kind = 0;
    size_t bytes = 0;

    for (size_t i = range.begin; i <= range.end && rc >= 0; i += bytes) {
        bytes = 1;
        int now = i < range.end ? whitespace_class(fm_utf8_decode(
                                      fm_bpe_text_at(&words->text, i), &bytes))
                                : 0;
        if (now != kind) {
            rc = kind ? range_add(&words->spare_ranges, from, i, err) : FM_OK;
            from = i;
            kind = now;
        }
    }
    return rc;
}

/* The matches of one range become words of the spare list. */
static fm_status_t range_cut(const fm_bpe_step_t *step, fm_bpe_words_t *words,
                             fm_bpe_range_t range, fm_error_t *err)
{
    bool invert = step->type->op == SPLIT && step->flag;
    struct cut cut = {.behavior = step->behavior,
                      .first = words->spare_ranges.count,
                      .out = &words->spare_ranges};
    size_t at = range.begin;
    fm_status_t rc = FM_OK;

    for (size_t i = 0; i < words->matches.count && rc >= 0; i++) {
        fm_bpe_range_t match = words->matches.list[i];
        if (match.begin > at) {
            rc = cut_add(&cut, at, match.begin, invert, err);
        }
        if (rc >= 0) {
            rc = cut_add(&cut, match.begin, match.end, !invert, err);
        }
        at = match.end;
    }
    if (rc >= 0 && at < range.end) {
        rc = cut_add(&cut, at, range.end, invert, err);
    }
    if (rc >= 0 && cut.pending) {
        rc = range_add(cut.out, cut.wait.begin, cut.wait.end, err);
    }
    return rc;
}

static void ranges_swap(fm_bpe_words_t *words)
{
    fm_bpe_ranges_t swap = words->ranges;
    size_t kept = 0;

    words->ranges = words->spare_ranges;
    words->spare_ranges = swap;
    words->spare_ranges.count = 0;
    for (size_t i = 0; i < words->ranges.count; i++) { /* drop empty words */
        fm_bpe_range_t range = words->ranges.list[i];
        if (range.end > range.begin) {
            words->ranges.list[kept++] = range;
        }
    }
    words->ranges.count = kept;
}

static fm_status_t step_cut(const fm_bpe_step_t *step, fm_bpe_words_t *words,
                            fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    words->spare_ranges.count = 0;
    for (size_t i = 0; i < words->ranges.count && rc >= 0; i++) {
        fm_bpe_range_t range = words->ranges.list[i];
        words->matches.count = 0;
        if (step->type->op == WHITESPACE) {
            rc = whitespace_range(words, range, err);
            continue;
        }
        rc = step->pattern.regex || step->pattern.text
                 ? pattern_matches(&step->pattern, words, range, err)
                 : class_matches(step, words, range, err);
        if (rc >= 0) {
            rc = range_cut(step, words, range, err);
        }
    }
    if (rc >= 0) {
        ranges_swap(words);
    }
    return rc;
}

/* --- rewriting -------------------------------------------------------------
 */

static fm_status_t rewrite_end(fm_bpe_words_t *words, fm_error_t *err)
{
    fm_bpe_text_t swap = words->text;

    if (words->spare_text.bytes.failed) {
        return fm_no_memory(err);
    }
    words->text = words->spare_text;
    words->spare_text = swap;
    return FM_OK;
}

/* Spaces become the replacement; the range may get one in front. */
static fm_status_t metaspace_rewrite(const fm_bpe_step_t *step,
                                     fm_bpe_words_t *words, fm_error_t *err)
{
    const fm_bpe_text_t *from = &words->text;
    fm_bpe_text_t *to = &words->spare_text;

    fm_bpe_text_clear(to, from->tracked);
    for (size_t i = 0; i < words->ranges.count; i++) {
        fm_bpe_range_t *range = &words->ranges.list[i];
        const char *text = fm_bpe_text_at(from, range->begin);
        size_t len = range->end - range->begin;
        size_t begin = to->bytes.len;
        bool there = text[0] == ' ' ||
                     (len >= step->content_len &&
                      memcmp(text, step->content, step->content_len) == 0);
        if (!there && (step->prepend == FM_BPE_PREPEND_ALWAYS ||
                       (step->prepend == FM_BPE_PREPEND_FIRST &&
                        words->at_start && range->begin == 0))) {
            fm_bpe_text_add(to, step->content, step->content_len,
                            fm_bpe_text_origin(from, range->begin));
        }
        for (size_t at = 0; at < len;) {
            const char *space = memchr(text + at, ' ', len - at);
            size_t run = space ? (size_t)(space - text) - at : len - at;
            fm_bpe_text_copy(to, from, range->begin + at,
                             range->begin + at + run);
            at += run;
            if (space) {
                fm_bpe_text_add(to, step->content, step->content_len,
                                fm_bpe_text_origin(from, range->begin + at));
                at++;
            }
        }
        *range = (fm_bpe_range_t){begin, to->bytes.len};
    }
    return rewrite_end(words, err);
}

static fm_status_t metaspace_run(const fm_bpe_step_t *step,
                                 fm_bpe_words_t *words, fm_error_t *err)
{
    fm_bpe_step_t cut = *step;
    fm_status_t rc = metaspace_rewrite(step, words, err);

    if (rc >= 0 && step->flag) {
        cut.pattern =
            (fm_bpe_pattern_t){.text = step->content, .len = step->content_len};
        rc = step_cut(&cut, words, err);
    }
    return rc;
}

/* A space in front of every range that has none. */
static fm_status_t prefix_space(fm_bpe_words_t *words, fm_error_t *err)
{
    const fm_bpe_text_t *from = &words->text;
    fm_bpe_text_t *to = &words->spare_text;

    fm_bpe_text_clear(to, from->tracked);
    for (size_t i = 0; i < words->ranges.count; i++) {
        fm_bpe_range_t *range = &words->ranges.list[i];
        size_t begin = to->bytes.len;
        if (*fm_bpe_text_at(from, range->begin) != ' ') {
            fm_bpe_text_add(to, " ", 1, fm_bpe_text_origin(from, range->begin));
        }
        fm_bpe_text_copy(to, from, range->begin, range->end);
        *range = (fm_bpe_range_t){begin, to->bytes.len};
    }
    return rewrite_end(words, err);
}

/* Every byte becomes its printable character. */
static fm_status_t bytes_rewrite(fm_bpe_words_t *words, fm_error_t *err)
{
    const fm_bpe_text_t *from = &words->text;
    fm_bpe_text_t *to = &words->spare_text;
    char table[256][2];
    uint8_t bytes[256];

    for (size_t i = 0; i < 256; i++) {
        bytes[i] =
            (uint8_t)fm_utf8_encode(fm_bpe_byte_to_char((uint8_t)i), table[i]);
    }
    fm_bpe_text_clear(to, from->tracked);
    for (size_t i = 0; i < words->ranges.count; i++) {
        fm_bpe_range_t *range = &words->ranges.list[i];
        size_t begin = to->bytes.len;
        size_t len = range->end - range->begin;
        const uint8_t *text = from->bytes.data + range->begin;
        uint8_t *out = fm_buf_reserve(&to->bytes, 2 * len);
        if (!out) {
            return fm_no_memory(err);
        }
        if (to->tracked) {
            for (size_t at = 0; at < len; at++) {
                fm_bpe_text_add(to, table[text[at]], bytes[text[at]],
                                fm_bpe_text_origin(from, range->begin + at));
            }
        } else {
            uint8_t *end = out;
            for (size_t at = 0; at < len; at++) {
                *end++ = (uint8_t)table[text[at]][0];
                if (bytes[text[at]] == 2) {
                    *end++ = (uint8_t)table[text[at]][1];
                }
            }
            to->bytes.len += (size_t)(end - out);
        }
        *range = (fm_bpe_range_t){begin, to->bytes.len};
    }
    return rewrite_end(words, err);
}

static fm_status_t byte_level_run(const fm_bpe_step_t *step,
                                  fm_bpe_words_t *words, fm_error_t *err)
{
    fm_status_t rc = step->flag ? prefix_space(words, err) : FM_OK;

    if (rc >= 0 && step->pattern.regex) {
        rc = step_cut(step, words, err);
    }
    return rc < 0 ? rc : bytes_rewrite(words, err);
}

fm_status_t fm_bpe_pretokenize(const fm_bpe_steps_t *steps,
                               fm_bpe_words_t *words, fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    for (size_t i = 0; i < steps->count && rc >= 0; i++) {
        const fm_bpe_step_t *step = &steps->list[i];
        switch ((enum op)step->type->op) {
        case BYTE_LEVEL:
            rc = byte_level_run(step, words, err);
            break;
        case METASPACE:
            rc = metaspace_run(step, words, err);
            break;
        case DIGITS:
        case PUNCTUATION:
        case SPLIT:
        case WHITESPACE:
        case WHITESPACE_SPLIT:
            rc = step_cut(step, words, err);
            break;
        }
    }
    return rc;
}
