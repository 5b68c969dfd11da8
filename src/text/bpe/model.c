/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The merges.  A word becomes a chain of symbols, one a character (or bytes of
 * it, or unknown); then, again and again, the neighbours whose pair has the
 * lowest rank, of equals the leftmost, become one symbol (Sennrich, Haddow and
 * Birch 2016).  Short words scan their pairs; long ones (whole texts, where
 * nothing cuts them) keep candidates in a heap: O(n log n).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "text/bpe/internal.h"

#define NO_RANK UINT32_MAX
#define SCAN_MAX 48        /* symbols; more goes to the heap */
#define DIRECT_CHARS 0x800 /* characters looked up by index */
#define SPACE_BYTES (sizeof(FM_BPE_SPACE) - 1)
#define CACHE_SLOTS 16384 /* power of two; a full table starts over */
#define CACHE_WORDS (CACHE_SLOTS / 2)
#define CACHE_WORD_MAX 64     /* bytes of a cached word */
#define CACHE_FROM_BYTES 4096 /* shorter texts hardly repeat themselves */

struct merge {
    uint64_t pair; /* left << 32 | right; both ids below 2^22 */
    uint32_t rank; /* NO_RANK: empty slot */
    int32_t id;
};

struct fm_bpe_model {
    const fm_bpe_vocab_t *vocab;
    struct merge *merges;
    size_t slot_count; /* power of two */
    int32_t direct[DIRECT_CHARS];
    int32_t bytes[256]; /* of byte fallback; -1: not in the vocabulary */
    int32_t unk;        /* -1: none */
    bool byte_fallback;
    bool fuse_unk;
    bool ignore_merges;
    bool joins_spaces; /* see fm_bpe_model_cuts() */
};

/* --- reading ---------------------------------------------------------------
 */

static struct merge *merge_slot(const fm_bpe_model_t *model, int32_t left,
                                int32_t right)
{
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    uint64_t hash = pair * 0x9E3779B97F4A7C15u; /* Fibonacci hashing */
    size_t slot = (size_t)(hash >> 20) & (model->slot_count - 1);

    while (model->merges[slot].rank != NO_RANK &&
           model->merges[slot].pair != pair) {
        slot = (slot + 1) & (model->slot_count - 1);
    }
    return &model->merges[slot];
}

/* The two texts of an entry: "a b", or ["a", "b"]. */
static bool merge_parts(const fm_json_t *entry, const char **left,
                        size_t *left_len, const char **right, size_t *right_len)
{
    const char *text = fm_json_str(entry);

    if (text) {
        const char *space = strchr(text, ' ');
        if (!space || strchr(space + 1, ' ')) {
            return false;
        }
        *left = text;
        *left_len = (size_t)(space - text);
        *right = space + 1;
        *right_len = strlen(space + 1);
    } else {
        *left = fm_json_str(fm_json_at(entry, 0));
        *right = fm_json_str(fm_json_at(entry, 1));
        if (!*left || !*right || fm_json_len(entry) != 2) {
            return false;
        }
        *left_len = strlen(*left);
        *right_len = strlen(*right);
    }
    return *left_len > 0 && *right_len > 0;
}

static bool begins_with_space(const char *text, size_t len)
{
    return len >= SPACE_BYTES && memcmp(text, FM_BPE_SPACE, SPACE_BYTES) == 0;
}

static fm_status_t merge_load(fm_bpe_model_t *model, const fm_json_t *entry,
                              size_t index, fm_buf_t *joined, fm_error_t *err)
{
    const char *left = NULL;
    const char *right = NULL;
    size_t left_len = 0;
    size_t right_len = 0;

    if (!merge_parts(entry, &left, &left_len, &right, &right_len)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "model.merges[%zu]: want \"left right\" or "
                            "[\"left\", \"right\"]",
                            index);
    }
    fm_buf_clear(joined);
    fm_buf_add(joined, left, left_len);
    fm_buf_add(joined, right, right_len);
    if (joined->failed) {
        return fm_no_memory(err);
    }
    int32_t a = fm_bpe_vocab_find(model->vocab, left, left_len);
    int32_t b = fm_bpe_vocab_find(model->vocab, right, right_len);
    int32_t made = fm_bpe_vocab_find(model->vocab, (const char *)joined->data,
                                     joined->len);
    if (a < 0 || b < 0 || made < 0) {
        const char *part = a < 0 ? left : b < 0 ? right : fm_buf_cstr(joined);
        size_t len = a < 0 ? left_len : b < 0 ? right_len : joined->len;
        return fm_error_set(err, FM_ERR_INVALID,
                            "model.merges[%zu]: \"%.*s\" is not in model.vocab",
                            index, (int)(len < 64 ? len : 64), part);
    }
    if (begins_with_space(right, right_len) &&
        !(left_len >= SPACE_BYTES &&
          begins_with_space(left + left_len - SPACE_BYTES, SPACE_BYTES))) {
        model->joins_spaces = true;
    }
    struct merge *slot = merge_slot(model, a, b);
    if (slot->rank != NO_RANK) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "model.merges[%zu]: the pair of model.merges[%u] "
                            "again",
                            index, slot->rank);
    }
    *slot = (struct merge){(uint64_t)(uint32_t)a << 32 | (uint32_t)b,
                           (uint32_t)index, made};
    return FM_OK;
}

static fm_status_t merges_load(fm_bpe_model_t *model, const fm_json_t *json,
                               fm_error_t *err)
{
    size_t count = fm_json_len(json);
    fm_buf_t joined = {0};
    fm_status_t rc = FM_OK;

    if (!fm_json_is(json, FM_JSON_ARRAY) || count > FM_BPE_MERGES_MAX) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "model.merges: want an array of at most %zu",
                            FM_BPE_MERGES_MAX);
    }
    model->slot_count = 16;
    while (model->slot_count < 2 * count) {
        model->slot_count *= 2;
    }
    model->merges = fm_malloc(model->slot_count * sizeof(*model->merges));
    if (!model->merges) {
        return fm_no_memory(err);
    }
    for (size_t i = 0; i < model->slot_count; i++) {
        model->merges[i].rank = NO_RANK;
    }
    for (size_t i = 0; i < count && rc >= 0; i++) {
        rc = merge_load(model, fm_json_at(json, i), i, &joined, err);
    }
    fm_buf_fini(&joined);
    return rc;
}

static fm_status_t options_load(fm_bpe_model_t *model, const fm_json_t *json,
                                fm_error_t *err)
{
    static const char *const affixes[] = {"continuing_subword_prefix",
                                          "end_of_word_suffix"};
    const char *unk = fm_json_get_str(json, "unk_token");

    for (size_t i = 0; i < FM_COUNT_OF(affixes); i++) {
        const char *affix = fm_json_get_str(json, affixes[i]);
        if (affix && *affix) {
            return fm_error_set(err, FM_ERR_UNSUPPORTED,
                                "model.%s: \"%.32s\" is not supported",
                                affixes[i], affix);
        }
    }
    if (fm_json_get_real(json, "dropout", 0.0) != 0.0) {
        return fm_error_set(err, FM_ERR_UNSUPPORTED,
                            "model.dropout: random merges are not supported; "
                            "want null");
    }
    model->byte_fallback = fm_json_get_bool(json, "byte_fallback", false);
    model->fuse_unk = fm_json_get_bool(json, "fuse_unk", false);
    model->ignore_merges = fm_json_get_bool(json, "ignore_merges", false);
    model->unk = unk ? fm_bpe_vocab_find(model->vocab, unk, strlen(unk)) : -1;
    if (unk && model->unk < 0) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "model.unk_token: \"%.64s\" is not in model.vocab",
                            unk);
    }
    return FM_OK;
}

fm_status_t fm_bpe_model_load(const fm_json_t *json,
                              const fm_bpe_vocab_t *vocab,
                              fm_bpe_model_t **model_out, fm_error_t *err)
{
    fm_bpe_model_t *model = fm_calloc(1, sizeof(*model));
    char text[8];

    if (!model) {
        return fm_no_memory(err);
    }
    model->vocab = vocab;
    fm_status_t rc = options_load(model, json, err);
    if (rc >= 0) {
        rc = merges_load(model, fm_json_get(json, "merges"), err);
    }
    if (rc < 0) {
        fm_bpe_model_destroy(model);
        return rc;
    }
    for (uint32_t c = 0; c < DIRECT_CHARS; c++) {
        model->direct[c] =
            fm_bpe_vocab_find(vocab, text, fm_utf8_encode(c, text));
    }
    for (unsigned i = 0; i < 256; i++) {
        (void)snprintf(text, sizeof(text), "<0x%02X>", i);
        model->bytes[i] = fm_bpe_vocab_find(vocab, text, 6);
    }
    *model_out = model;
    return FM_OK;
}

void *fm_bpe_model_destroy(fm_bpe_model_t *model)
{
    if (model) {
        free(model->merges);
        free(model);
    }
    return NULL;
}

bool fm_bpe_model_cuts(const fm_bpe_model_t *model)
{
    /* unknown characters join, too: it has to be a known one */
    return !model->joins_spaces && !model->ignore_merges &&
           fm_bpe_vocab_find(model->vocab, FM_BPE_SPACE, SPACE_BYTES) >= 0;
}

/* --- working memory --------------------------------------------------------
 */

struct symbol {
    int32_t id;
    uint32_t bytes; /* 0: merged into the one before */
    int32_t prev;   /* indices; -1: none */
    int32_t next;
};

struct candidate {
    uint32_t rank;
    uint32_t at; /* left symbol */
    int32_t id;  /* of the merged pair */
};

struct cached {
    uint64_t hash; /* 0: empty */
    uint32_t word; /* offset in words */
    uint32_t len;
    uint32_t first; /* offset in ids and bytes */
    uint32_t count;
};

struct fm_bpe_scratch {
    struct symbol *symbols;
    size_t symbol_count;
    size_t symbol_capacity;
    struct candidate *heap;
    size_t heap_count;
    size_t heap_capacity;
    int32_t *ids; /* the result */
    uint32_t *bytes;
    size_t result_capacity;
    struct cached *cache; /* NULL: none */
    size_t cache_count;
    fm_buf_t words;
    int32_t *cache_ids;
    uint32_t *cache_bytes;
    size_t cache_used;
    size_t cache_capacity;
};

fm_status_t fm_bpe_scratch_create(size_t text_bytes,
                                  fm_bpe_scratch_t **scratch_out,
                                  fm_error_t *err)
{
    fm_bpe_scratch_t *scratch = fm_calloc(1, sizeof(*scratch));

    if (!scratch ||
        (text_bytes >= CACHE_FROM_BYTES &&
         !(scratch->cache = fm_calloc(CACHE_SLOTS, sizeof(*scratch->cache))))) {
        fm_bpe_scratch_destroy(scratch);
        return fm_no_memory(err);
    }
    *scratch_out = scratch;
    return FM_OK;
}

void *fm_bpe_scratch_destroy(fm_bpe_scratch_t *scratch)
{
    if (scratch) {
        free(scratch->symbols);
        free(scratch->heap);
        free(scratch->ids);
        free(scratch->bytes);
        free(scratch->cache);
        fm_buf_fini(&scratch->words);
        free(scratch->cache_ids);
        free(scratch->cache_bytes);
        free(scratch);
    }
    return NULL;
}

/* Two arrays of one capacity. */
static fm_status_t pair_reserve(int32_t **ids, uint32_t **bytes,
                                size_t *capacity, size_t want, fm_error_t *err)
{
    if (want <= *capacity) {
        return FM_OK;
    }
    size_t count = want + want / 2 + 64;
    int32_t *more_ids = fm_realloc(*ids, count, sizeof(**ids));
    if (!more_ids) {
        return fm_no_memory(err);
    }
    *ids = more_ids;
    uint32_t *more_bytes = fm_realloc(*bytes, count, sizeof(**bytes));
    if (!more_bytes) {
        return fm_no_memory(err);
    }
    *bytes = more_bytes;
    *capacity = count;
    return FM_OK;
}

/* --- symbols ---------------------------------------------------------------
 */

static fm_status_t symbol_add(fm_bpe_scratch_t *scratch, int32_t id,
                              size_t bytes, fm_error_t *err)
{
    fm_status_t rc = fm_grow(&scratch->symbols, &scratch->symbol_capacity,
                             scratch->symbol_count, sizeof(struct symbol), err);

    if (rc >= 0) {
        scratch->symbols[scratch->symbol_count++] =
            (struct symbol){.id = id, .bytes = (uint32_t)bytes};
    }
    return rc;
}

static bool fallback_possible(const fm_bpe_model_t *model, const char *s,
                              size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (model->bytes[(uint8_t)s[i]] < 0) {
            return false;
        }
    }
    return model->byte_fallback;
}

/* The word's characters as symbols.  Unknown ones wait in *pending (their
 * bytes) as long as more of them may join. */
static fm_status_t symbols_make(const fm_bpe_model_t *model,
                                fm_bpe_scratch_t *scratch, const char *word,
                                size_t len, fm_error_t *err)
{
    size_t pending = 0;
    fm_status_t rc = FM_OK;

    scratch->symbol_count = 0;
    for (size_t i = 0, bytes = 0; i < len && rc >= 0; i += bytes) {
        uint32_t c = fm_utf8_decode(word + i, &bytes);
        int32_t id = c < DIRECT_CHARS
                         ? model->direct[c]
                         : fm_bpe_vocab_find(model->vocab, word + i, bytes);
        if (id >= 0) {
            if (pending > 0) {
                rc = symbol_add(scratch, model->unk, pending, err);
                pending = 0;
            }
            rc = rc < 0 ? rc : symbol_add(scratch, id, bytes, err);
        } else if (fallback_possible(model, word + i, bytes)) {
            for (size_t k = 0; k < bytes && rc >= 0; k++) {
                rc = symbol_add(scratch, model->bytes[(uint8_t)word[i + k]], 1,
                                err);
            }
        } else if (model->unk < 0) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "text: the vocabulary has no token for U+%04X",
                                c);
        } else if (pending > 0 && !model->fuse_unk) {
            rc = symbol_add(scratch, model->unk, pending, err);
            pending = bytes;
        } else {
            pending += bytes;
        }
    }
    if (rc >= 0 && pending > 0) {
        rc = symbol_add(scratch, model->unk, pending, err);
    }
    return rc;
}

/* --- merging ---------------------------------------------------------------
 */

/* Few symbols: an array of them, one of the ranks of their pairs. */
static void merge_scan(const fm_bpe_model_t *model, fm_bpe_scratch_t *scratch)
{
    struct symbol *symbols = scratch->symbols;
    size_t count = scratch->symbol_count;
    const struct merge *pairs[SCAN_MAX];

    for (size_t i = 0; i + 1 < count; i++) {
        pairs[i] = merge_slot(model, symbols[i].id, symbols[i + 1].id);
    }
    while (count > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < count; i++) {
            best = pairs[i]->rank < pairs[best]->rank ? i : best;
        }
        if (pairs[best]->rank == NO_RANK) {
            break;
        }
        symbols[best].id = pairs[best]->id;
        symbols[best].bytes += symbols[best + 1].bytes;
        count--;
        size_t tail = count - best - 1;
        memmove(&symbols[best + 1], &symbols[best + 2],
                tail * sizeof(*symbols));
        if (tail > 0) {
            memmove(&pairs[best], &pairs[best + 1], tail * sizeof(*pairs));
            pairs[best] =
                merge_slot(model, symbols[best].id, symbols[best + 1].id);
        }
        if (best > 0) {
            pairs[best - 1] =
                merge_slot(model, symbols[best - 1].id, symbols[best].id);
        }
    }
    scratch->symbol_count = count;
}

static bool candidate_before(const struct candidate *a,
                             const struct candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static fm_status_t heap_push(const fm_bpe_model_t *model,
                             fm_bpe_scratch_t *scratch, size_t left,
                             size_t right, fm_error_t *err)
{
    const struct merge *merge = merge_slot(model, scratch->symbols[left].id,
                                           scratch->symbols[right].id);
    if (merge->rank == NO_RANK) {
        return FM_OK;
    }
    fm_status_t rc =
        fm_grow(&scratch->heap, &scratch->heap_capacity, scratch->heap_count,
                sizeof(struct candidate), err);
    if (rc < 0) {
        return rc;
    }
    struct candidate made = {merge->rank, (uint32_t)left, merge->id};
    size_t at = scratch->heap_count++;
    while (at > 0 && candidate_before(&made, &scratch->heap[(at - 1) / 2])) {
        scratch->heap[at] = scratch->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    scratch->heap[at] = made;
    return FM_OK;
}

static struct candidate heap_pop(fm_bpe_scratch_t *scratch)
{
    struct candidate *heap = scratch->heap;
    struct candidate top = heap[0];
    struct candidate last = heap[--scratch->heap_count];
    size_t count = scratch->heap_count;
    size_t at = 0;

    for (size_t child = 1; child < count; child = 2 * at + 1) {
        if (child + 1 < count &&
            candidate_before(&heap[child + 1], &heap[child])) {
            child++;
        }
        if (!candidate_before(&heap[child], &last)) {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = last;
    return top;
}

static void symbols_link(fm_bpe_scratch_t *scratch)
{
    size_t count = scratch->symbol_count;

    for (size_t i = 0; i < count; i++) {
        scratch->symbols[i].prev = (int32_t)i - 1;
        scratch->symbols[i].next = i + 1 < count ? (int32_t)i + 1 : -1;
    }
}

static void symbols_compact(fm_bpe_scratch_t *scratch)
{
    size_t kept = 0;

    for (size_t i = 0; i < scratch->symbol_count; i++) {
        if (scratch->symbols[i].bytes > 0) {
            scratch->symbols[kept++] = scratch->symbols[i];
        }
    }
    scratch->symbol_count = kept;
}

/* Many symbols: a list of them and a heap of pairs.  A candidate is stale when
 * its symbols have become others; the pair there now has its own. */
static fm_status_t merge_heap(const fm_bpe_model_t *model,
                              fm_bpe_scratch_t *scratch, fm_error_t *err)
{
    struct symbol *symbols = scratch->symbols;
    fm_status_t rc = FM_OK;

    symbols_link(scratch);
    scratch->heap_count = 0;
    for (size_t i = 0; i + 1 < scratch->symbol_count && rc >= 0; i++) {
        rc = heap_push(model, scratch, i, i + 1, err);
    }
    while (rc >= 0 && scratch->heap_count > 0) {
        struct candidate top = heap_pop(scratch);
        struct symbol *left = &symbols[top.at];
        if (left->bytes == 0 || left->next < 0) {
            continue;
        }
        struct symbol *right = &symbols[left->next];
        const struct merge *merge = merge_slot(model, left->id, right->id);
        if (merge->rank != top.rank) {
            continue;
        }
        left->id = top.id;
        left->bytes += right->bytes;
        left->next = right->next;
        right->bytes = 0;
        if (left->next >= 0) {
            symbols[left->next].prev = (int32_t)top.at;
            rc = heap_push(model, scratch, top.at, (size_t)left->next, err);
        }
        if (rc >= 0 && left->prev >= 0) {
            rc = heap_push(model, scratch, (size_t)left->prev, top.at, err);
        }
    }
    symbols_compact(scratch);
    return rc;
}

static fm_status_t word_merge(const fm_bpe_model_t *model,
                              fm_bpe_scratch_t *scratch, const char *word,
                              size_t len, fm_bpe_merged_t *merged_out,
                              fm_error_t *err)
{
    fm_status_t rc = symbols_make(model, scratch, word, len, err);

    if (rc < 0) {
        return rc;
    }
    if (scratch->symbol_count <= SCAN_MAX) {
        merge_scan(model, scratch);
    } else if ((rc = merge_heap(model, scratch, err)) < 0) {
        return rc;
    }
    size_t count = scratch->symbol_count;
    rc = pair_reserve(&scratch->ids, &scratch->bytes, &scratch->result_capacity,
                      count, err);
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        scratch->ids[i] = scratch->symbols[i].id;
        scratch->bytes[i] = scratch->symbols[i].bytes;
    }
    *merged_out = (fm_bpe_merged_t){scratch->ids, scratch->bytes, count};
    return rc;
}

/* --- cache -----------------------------------------------------------------
 */

static struct cached *cache_slot(fm_bpe_scratch_t *scratch, const char *word,
                                 size_t len, uint64_t hash)
{
    size_t slot = (size_t)hash & (CACHE_SLOTS - 1);

    while (scratch->cache[slot].hash != 0) {
        struct cached *entry = &scratch->cache[slot];
        if (entry->hash == hash && entry->len == len &&
            memcmp(scratch->words.data + entry->word, word, len) == 0) {
            break;
        }
        slot = (slot + 1) & (CACHE_SLOTS - 1);
    }
    return &scratch->cache[slot];
}

static fm_status_t cache_add(fm_bpe_scratch_t *scratch, const char *word,
                             size_t len, uint64_t hash,
                             const fm_bpe_merged_t *merged, fm_error_t *err)
{
    if (scratch->cache_count == CACHE_WORDS) {
        memset(scratch->cache, 0, CACHE_SLOTS * sizeof(*scratch->cache));
        scratch->cache_count = 0;
        scratch->cache_used = 0;
        fm_buf_clear(&scratch->words);
    }
    fm_status_t rc = pair_reserve(&scratch->cache_ids, &scratch->cache_bytes,
                                  &scratch->cache_capacity,
                                  scratch->cache_used + merged->count, err);
    if (rc < 0) {
        return rc;
    }
    struct cached *entry = cache_slot(scratch, word, len, hash);
    *entry =
        (struct cached){hash, (uint32_t)scratch->words.len, (uint32_t)len,
                        (uint32_t)scratch->cache_used, (uint32_t)merged->count};
    for (size_t i = 0; i < merged->count; i++) {
        scratch->cache_ids[scratch->cache_used + i] = merged->ids[i];
        scratch->cache_bytes[scratch->cache_used + i] = merged->bytes[i];
    }
    scratch->cache_used += merged->count;
    scratch->cache_count++;
    fm_buf_add(&scratch->words, word, len);
    return scratch->words.failed ? fm_no_memory(err) : FM_OK;
}

fm_status_t fm_bpe_model_merge(const fm_bpe_model_t *model,
                               fm_bpe_scratch_t *scratch, const char *word,
                               size_t len, fm_bpe_merged_t *merged_out,
                               fm_error_t *err)
{
    if (model->ignore_merges) {
        int32_t id = fm_bpe_vocab_find(model->vocab, word, len);
        if (id >= 0) {
            fm_status_t rc = pair_reserve(&scratch->ids, &scratch->bytes,
                                          &scratch->result_capacity, 1, err);
            if (rc >= 0) {
                scratch->ids[0] = id;
                scratch->bytes[0] = (uint32_t)len;
                *merged_out =
                    (fm_bpe_merged_t){scratch->ids, scratch->bytes, 1};
            }
            return rc;
        }
    }
    if (!scratch->cache || len > CACHE_WORD_MAX) {
        return word_merge(model, scratch, word, len, merged_out, err);
    }
    uint64_t hash = fm_hash64(word, len) | 1; /* 0 marks an empty slot */
    const struct cached *entry = cache_slot(scratch, word, len, hash);
    if (entry->hash != 0) {
        *merged_out = (fm_bpe_merged_t){scratch->cache_ids + entry->first,
                                        scratch->cache_bytes + entry->first,
                                        entry->count};
        return FM_OK;
    }
    fm_status_t rc = word_merge(model, scratch, word, len, merged_out, err);
    return rc < 0 ? rc : cache_add(scratch, word, len, hash, merged_out, err);
}
