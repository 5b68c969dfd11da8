/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MinHash: a text is a set of shingles, a signature the smallest hash of the
 * set under each permutation.  Kept texts hang in a hash table of bands, one
 * chain a (band, values of its rows); a text is compared with those it shares
 * a chain with, in the order they were kept.
 */
#include "run/ops/data/near.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"
#include "run/ops/field.h"

__extension__ typedef unsigned __int128 u128;

#define PRIME ((UINT64_C(1) << 61) - 1)
#define STEPS 500 /* of each integral that the banding is chosen by */
#define NO_LINK UINT32_MAX
#define LINKS_MAX 500000000u

typedef struct kept {
    uint32_t name;
    size_t count;       /* shingles */
    uint64_t *shingles; /* exact: sorted, distinct */
    uint32_t *places;   /* estimate: the signature */
} kept_t;

typedef struct link {
    uint32_t kept, next;
} link_t;

typedef struct slot {
    uint64_t key;
    uint32_t head; /* NO_LINK: empty */
} slot_t;

struct fm_ops_near {
    fm_ops_near_options_t options;
    size_t bands, rows;
    uint64_t *factors, *offsets; /* of the permutations */
    kept_t *kept;
    size_t kept_count, kept_capacity;
    link_t *links;
    size_t link_count, link_capacity;
    slot_t *slots;
    size_t slot_count, slots_used; /* a power of two; load ≤ 0.7 */
    /* Of the text at hand. */
    fm_buf_t words;
    size_t *starts;
    size_t word_count, start_capacity;
    uint64_t *shingles;
    size_t shingle_count, shingle_capacity;
    uint32_t *places;     /* [permutations] */
    uint64_t *band_keys;  /* [bands] */
    uint32_t *candidates; /* into kept */
    size_t candidate_count, candidate_capacity;
};

void *fm_ops_near_destroy(fm_ops_near_t *near)
{
    if (near) {
        for (size_t i = 0; i < near->kept_count; i++) {
            free(near->kept[i].shingles);
            free(near->kept[i].places);
        }
        fm_buf_fini(&near->words);
        free(near->factors);
        free(near->offsets);
        free(near->kept);
        free(near->links);
        free(near->slots);
        free(near->starts);
        free(near->shingles);
        free(near->places);
        free(near->band_keys);
        free(near->candidates);
        free(near);
    }
    return NULL;
}

/* Area of wrong candidates below the threshold and of missed pairs above. */
static double banding_error(double threshold, size_t bands, size_t rows)
{
    double wrong = 0, missed = 0;

    for (int i = 0; i < STEPS; i++) {
        double at = ((double)i + 0.5) / STEPS;
        double below = at * threshold;
        double above = threshold + at * (1 - threshold);
        wrong += 1 - pow(1 - pow(below, (double)rows), (double)bands);
        missed += pow(1 - pow(above, (double)rows), (double)bands);
    }
    return (wrong * threshold + missed * (1 - threshold)) / STEPS;
}

static void banding_choose(fm_ops_near_t *near)
{
    const fm_ops_near_options_t *options = &near->options;
    double best = INFINITY;

    for (size_t bands = 1; bands <= options->permutations; bands++) {
        for (size_t rows = 1; rows * bands <= options->permutations; rows++) {
            double error = banding_error(options->threshold, bands, rows);
            if (error < best) {
                best = error;
                near->bands = bands;
                near->rows = rows;
            }
        }
    }
}

fm_status_t fm_ops_near_create(const fm_ops_near_options_t *options,
                               fm_ops_near_t **near_out, fm_error_t *err)
{
    fm_ops_near_t *near = fm_calloc(1, sizeof(*near));
    size_t count = options->permutations;
    fm_rng_t rng;

    if (!near) {
        return fm_no_memory(err);
    }
    near->options = *options;
    banding_choose(near);
    near->slot_count = 1024;
    if (!(near->factors = fm_calloc(count, sizeof(uint64_t))) ||
        !(near->offsets = fm_calloc(count, sizeof(uint64_t))) ||
        !(near->places = fm_calloc(count, sizeof(uint32_t))) ||
        !(near->band_keys = fm_calloc(near->bands, sizeof(uint64_t))) ||
        !(near->slots = fm_malloc(near->slot_count * sizeof(slot_t)))) {
        fm_ops_near_destroy(near);
        return fm_no_memory(err);
    }
    memset(near->slots, 0xff, near->slot_count * sizeof(slot_t));
    fm_rng_init(&rng, options->seed);
    for (size_t i = 0; i < count; i++) {
        near->factors[i] = 1 + fm_rng_below(&rng, PRIME - 1);
        near->offsets[i] = fm_rng_below(&rng, PRIME);
    }
    *near_out = near;
    return FM_OK;
}

void fm_ops_near_bands(const fm_ops_near_t *near, size_t *bands_out,
                       size_t *rows_out)
{
    *bands_out = near->bands;
    *rows_out = near->rows;
}

/* --- a text to its set and signature ------------------------------------- */

/* Words one space apart, so that a run of words is a run of bytes. */
static fm_status_t words_cut(fm_ops_near_t *near, const char *text, size_t len,
                             fm_error_t *err)
{
    size_t at = 0, start = 0, size = 0;

    fm_buf_clear(&near->words);
    near->word_count = 0;
    while (fm_ops_text_word(text, len, &at, &start, &size)) {
        fm_status_t rc = fm_grow(&near->starts, &near->start_capacity,
                                 near->word_count, sizeof(size_t), err);
        if (rc < 0) {
            return rc;
        }
        near->starts[near->word_count++] = near->words.len;
        fm_buf_add(&near->words, text + start, size);
        fm_buf_add_u8(&near->words, ' ');
    }
    if (near->words.failed) {
        fm_buf_fini(&near->words);
        return fm_no_memory(err);
    }
    for (size_t i = 0; near->options.lowercase && i < near->words.len; i++) {
        uint8_t c = near->words.data[i];
        near->words.data[i] = c >= 'A' && c <= 'Z' ? (uint8_t)(c + 32) : c;
    }
    return FM_OK;
}

static int compare_u64(const void *a, const void *b)
{
    const uint64_t *left = a, *right = b;

    return *left < *right ? -1 : *left > *right;
}

static fm_status_t shingles_make(fm_ops_near_t *near, fm_error_t *err)
{
    size_t width = near->options.ngram < near->word_count ? near->options.ngram
                                                          : near->word_count;
    size_t count = near->word_count ? near->word_count - width + 1 : 0;
    size_t kept = 0;

    near->shingle_count = 0;
    for (size_t i = 0; i < count; i++) {
        size_t start = near->starts[i];
        size_t end = i + width < near->word_count ? near->starts[i + width]
                                                  : near->words.len;
        fm_status_t rc = fm_grow(&near->shingles, &near->shingle_capacity, i,
                                 sizeof(uint64_t), err);
        if (rc < 0) {
            return rc;
        }
        near->shingles[i] =
            fm_hash64(near->words.data + start, end - 1 - start);
    }
    if (count > 0) {
        qsort(near->shingles, count, sizeof(uint64_t), compare_u64);
    }
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || near->shingles[i] != near->shingles[i - 1]) {
            near->shingles[kept++] = near->shingles[i];
        }
    }
    near->shingle_count = kept;
    return FM_OK;
}

/* (a·x + b) mod 2^61 − 1, its low 32 bits. */
static uint32_t permuted(uint64_t factor, uint64_t offset, uint64_t x)
{
    u128 product = (u128)factor * x + offset;
    uint64_t folded = (uint64_t)(product & PRIME) + (uint64_t)(product >> 61);

    return (uint32_t)(folded >= PRIME ? folded - PRIME : folded);
}

static void signature_make(fm_ops_near_t *near)
{
    memset(near->places, 0xff, near->options.permutations * sizeof(uint32_t));
    for (size_t i = 0; i < near->shingle_count; i++) {
        uint64_t x = near->shingles[i] % PRIME;
        for (size_t p = 0; p < near->options.permutations; p++) {
            uint32_t value = permuted(near->factors[p], near->offsets[p], x);
            near->places[p] = value < near->places[p] ? value : near->places[p];
        }
    }
    for (size_t b = 0; b < near->bands; b++) {
        uint64_t key = fm_hash64(near->places + b * near->rows,
                                 near->rows * sizeof(uint32_t));
        /* Each band has chains of its own. */
        near->band_keys[b] = key ^ ((uint64_t)b * UINT64_C(0x9e3779b97f4a7c15));
    }
}

/* --- the table of bands -------------------------------------------------- */

static slot_t *slot_find(slot_t *slots, size_t slot_count, uint64_t key)
{
    size_t at = (size_t)key & (slot_count - 1);

    while (slots[at].head != NO_LINK && slots[at].key != key) {
        at = (at + 1) & (slot_count - 1);
    }
    return &slots[at];
}

static fm_status_t slots_grow(fm_ops_near_t *near, fm_error_t *err)
{
    size_t wider = near->slot_count;

    while ((near->slots_used + near->bands) * 10 > wider * 7) {
        wider *= 2;
    }
    if (wider == near->slot_count) {
        return FM_OK;
    }
    slot_t *slots = fm_malloc(wider * sizeof(*slots));
    if (!slots) {
        return fm_no_memory(err);
    }
    memset(slots, 0xff, wider * sizeof(*slots));
    for (size_t i = 0; i < near->slot_count; i++) {
        if (near->slots[i].head != NO_LINK) {
            *slot_find(slots, wider, near->slots[i].key) = near->slots[i];
        }
    }
    free(near->slots);
    near->slots = slots;
    near->slot_count = wider;
    return FM_OK;
}

static int compare_u32(const void *a, const void *b)
{
    const uint32_t *left = a, *right = b;

    return *left < *right ? -1 : *left > *right;
}

/* Kept texts that share a band, in the order they were kept. */
static fm_status_t candidates_find(fm_ops_near_t *near, fm_error_t *err)
{
    size_t distinct = 0;

    near->candidate_count = 0;
    for (size_t b = 0; b < near->bands; b++) {
        const slot_t *slot =
            slot_find(near->slots, near->slot_count, near->band_keys[b]);
        for (uint32_t at = slot->head; at != NO_LINK;
             at = near->links[at].next) {
            fm_status_t rc =
                fm_grow(&near->candidates, &near->candidate_capacity,
                        near->candidate_count, sizeof(uint32_t), err);
            if (rc < 0) {
                return rc;
            }
            near->candidates[near->candidate_count++] = near->links[at].kept;
        }
    }
    if (near->candidate_count > 0) {
        qsort(near->candidates, near->candidate_count, sizeof(uint32_t),
              compare_u32);
    }
    for (size_t i = 0; i < near->candidate_count; i++) {
        if (i == 0 || near->candidates[i] != near->candidates[i - 1]) {
            near->candidates[distinct++] = near->candidates[i];
        }
    }
    near->candidate_count = distinct;
    return FM_OK;
}

static double similarity(const fm_ops_near_t *near, const kept_t *kept)
{
    size_t same = 0;

    if (!near->options.exact) {
        for (size_t p = 0; p < near->options.permutations; p++) {
            same += kept->places[p] == near->places[p];
        }
        return (double)same / (double)near->options.permutations;
    }
    for (size_t i = 0, j = 0; i < kept->count && j < near->shingle_count;) {
        uint64_t a = kept->shingles[i], b = near->shingles[j];
        same += a == b;
        i += a <= b;
        j += b <= a;
    }
    size_t all = kept->count + near->shingle_count - same;
    return all ? (double)same / (double)all : 1;
}

static fm_status_t text_keep(fm_ops_near_t *near, uint32_t name,
                             fm_error_t *err)
{
    size_t places = near->options.permutations;
    kept_t kept = {.name = name, .count = near->shingle_count};
    fm_status_t rc = fm_grow(&near->kept, &near->kept_capacity,
                             near->kept_count, sizeof(kept_t), err);

    if (rc >= 0) {
        rc = slots_grow(near, err);
    }
    if (rc < 0) {
        return rc;
    }
    if (near->link_count > LINKS_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "more than %u bands of texts; take fewer "
                            "permutations or a higher threshold",
                            LINKS_MAX);
    }
    if (near->options.exact) {
        kept.shingles = fm_calloc(kept.count + 1, sizeof(uint64_t));
    } else {
        kept.places = fm_calloc(places, sizeof(uint32_t));
    }
    if (!kept.shingles && !kept.places) {
        return fm_no_memory(err);
    }
    if (kept.shingles && kept.count > 0) {
        memcpy(kept.shingles, near->shingles, kept.count * sizeof(uint64_t));
    } else if (kept.places) {
        memcpy(kept.places, near->places, places * sizeof(uint32_t));
    }
    near->kept[near->kept_count++] = kept;
    for (size_t b = 0; b < near->bands; b++) {
        if ((rc = fm_grow(&near->links, &near->link_capacity, near->link_count,
                          sizeof(link_t), err)) < 0) {
            return rc;
        }
        slot_t *slot =
            slot_find(near->slots, near->slot_count, near->band_keys[b]);
        near->slots_used += slot->head == NO_LINK;
        near->links[near->link_count] =
            (link_t){(uint32_t)(near->kept_count - 1), slot->head};
        *slot = (slot_t){near->band_keys[b], (uint32_t)near->link_count++};
    }
    return FM_OK;
}

fm_status_t fm_ops_near_add(fm_ops_near_t *near, uint32_t name,
                            const char *text, size_t len,
                            fm_ops_near_verdict_t *verdict_out, fm_error_t *err)
{
    fm_status_t rc = words_cut(near, text, len, err);

    if (rc < 0 || (rc = shingles_make(near, err)) < 0) {
        return rc;
    }
    signature_make(near);
    if ((rc = candidates_find(near, err)) < 0) {
        return rc;
    }
    for (size_t i = 0; i < near->candidate_count; i++) {
        const kept_t *kept = &near->kept[near->candidates[i]];
        double share = similarity(near, kept);
        if (share >= near->options.threshold) {
            *verdict_out = (fm_ops_near_verdict_t){true, kept->name, share};
            return FM_OK;
        }
    }
    *verdict_out = (fm_ops_near_verdict_t){0};
    return text_keep(near, name, err);
}
