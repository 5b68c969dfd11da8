/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Added tokens: found in the text before anything else looks at it.  At each
 * place the longest one wins, and what it covers is not looked at again
 * (leftmost-longest).  Two tries: of the contents as they are, searched in the
 * raw text, and of the normalised contents, searched in the normalised text.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/bpe/internal.h"

/* Children of a node are a list of siblings: few, but for the root, which is
 * an index by byte. */
struct node {
    uint8_t byte;
    int32_t sibling; /* index; 0: none (the root is no one's child) */
    int32_t child;
    int32_t added; /* index of the token that ends here; -1: none */
};

struct trie {
    struct node *nodes;
    size_t count;
    size_t capacity;
    int32_t root[256]; /* 0: no token begins so */
};

struct fm_bpe_finder {
    fm_bpe_added_t *list;
    size_t count;
    struct trie tries[2]; /* [normalized] */
};

/* --- reading ---------------------------------------------------------------
 */

static fm_status_t node_add(struct trie *trie, uint8_t byte, int32_t sibling,
                            int32_t *node_out, fm_error_t *err)
{
    fm_status_t rc = fm_grow(&trie->nodes, &trie->capacity, trie->count,
                             sizeof(*trie->nodes), err);

    if (rc >= 0) {
        *node_out = (int32_t)trie->count;
        trie->nodes[trie->count++] = (struct node){byte, sibling, 0, -1};
    }
    return rc;
}

static int32_t child_find(const struct trie *trie, int32_t first, uint8_t byte)
{
    while (first != 0 && trie->nodes[first].byte != byte) {
        first = trie->nodes[first].sibling;
    }
    return first;
}

static fm_status_t trie_add(struct trie *trie, const char *text, size_t len,
                            size_t index, fm_error_t *err)
{
    int32_t at = 0;
    fm_status_t rc = FM_OK;

    if (trie->count == 0 && (rc = node_add(trie, 0, 0, &at, err)) < 0) {
        return rc;
    }
    for (size_t i = 0; i < len; i++) {
        uint8_t byte = (uint8_t)text[i];
        int32_t first = i == 0 ? trie->root[byte] : trie->nodes[at].child;
        int32_t next = child_find(trie, first, byte);
        if (next == 0) {
            if ((rc = node_add(trie, byte, first, &next, err)) < 0) {
                return rc;
            }
            *(i == 0 ? &trie->root[byte] : &trie->nodes[at].child) = next;
        }
        at = next;
    }
    if (at != 0 && trie->nodes[at].added < 0) { /* of two alike the first */
        trie->nodes[at].added = (int32_t)index;
    }
    return FM_OK;
}

static fm_status_t added_load(const fm_json_t *json, fm_bpe_added_t *added,
                              fm_error_t *err)
{
    const fm_json_t *content = fm_json_get(json, "content");

    *added = (fm_bpe_added_t){
        .id = (int32_t)fm_json_get_int(json, "id", 0),
        .special = fm_json_get_bool(json, "special", false),
        .single_word = fm_json_get_bool(json, "single_word", false),
        .lstrip = fm_json_get_bool(json, "lstrip", false),
        .rstrip = fm_json_get_bool(json, "rstrip", false),
        .len = fm_json_str_len(content),
    };
    added->normalized = fm_json_get_bool(json, "normalized", !added->special);
    added->content = fm_strdup(fm_json_str(content));
    return added->content ? FM_OK : fm_no_memory(err);
}

static fm_status_t finder_index(fm_bpe_finder_t *finder,
                                const fm_bpe_steps_t *normalizer,
                                fm_error_t *err)
{
    fm_bpe_text_t text = {0};
    fm_bpe_text_t spare = {0};
    fm_regex_matcher_t *matcher = NULL;
    fm_status_t rc = fm_regex_matcher_create(&matcher, err);

    for (size_t i = 0; rc >= 0 && i < finder->count; i++) {
        const fm_bpe_added_t *added = &finder->list[i];
        fm_bpe_text_clear(&text, false);
        fm_bpe_text_add(&text, added->content, added->len, 0);
        if (added->normalized) {
            rc = fm_bpe_normalize(normalizer, matcher, &text, &spare, err);
        }
        if (rc >= 0 && text.bytes.failed) {
            rc = fm_no_memory(err);
        }
        if (rc >= 0) {
            rc = trie_add(&finder->tries[added->normalized],
                          fm_bpe_text_at(&text, 0), text.bytes.len, i, err);
        }
    }
    fm_regex_matcher_destroy(matcher);
    fm_bpe_text_fini(&text);
    fm_bpe_text_fini(&spare);
    return rc;
}

static int compare_ids(const void *a, const void *b)
{
    const fm_bpe_added_t *left = a;
    const fm_bpe_added_t *right = b;

    return (left->id > right->id) - (left->id < right->id);
}

fm_status_t fm_bpe_finder_load(const fm_json_t *json,
                               const fm_bpe_steps_t *normalizer,
                               fm_bpe_finder_t **finder_out, fm_error_t *err)
{
    size_t count = fm_json_len(json);
    fm_bpe_finder_t *finder = fm_calloc(1, sizeof(*finder));
    fm_status_t rc = FM_OK;

    if (count > FM_BPE_ADDED_MAX) {
        free(finder);
        return fm_error_set(err, FM_ERR_LIMIT,
                            "added_tokens: %zu; the limit is %zu", count,
                            FM_BPE_ADDED_MAX);
    }
    if (!finder ||
        !(finder->list = fm_calloc(count + 1, sizeof(*finder->list)))) {
        rc = fm_no_memory(err);
        goto out;
    }
    for (; finder->count < count; finder->count++) {
        rc = added_load(fm_json_at(json, finder->count),
                        &finder->list[finder->count], err);
        if (rc < 0) {
            goto out;
        }
    }
    qsort(finder->list, count, sizeof(*finder->list), compare_ids);
    for (size_t i = 1; i < count; i++) {
        if (finder->list[i].id == finder->list[i - 1].id) {
            rc = fm_error_set(err, FM_ERR_INVALID,
                              "added_tokens: \"%.64s\" and \"%.64s\" have the "
                              "same id %d",
                              finder->list[i - 1].content,
                              finder->list[i].content, finder->list[i].id);
            goto out;
        }
    }
    if ((rc = finder_index(finder, normalizer, err)) < 0) {
        goto out;
    }
    *finder_out = finder;
    finder = NULL;
out:
    fm_bpe_finder_destroy(finder);
    return rc;
}

void *fm_bpe_finder_destroy(fm_bpe_finder_t *finder)
{
    if (finder) {
        for (size_t i = 0; finder->list && i < finder->count; i++) {
            free(finder->list[i].content);
        }
        free(finder->list);
        free(finder->tries[0].nodes);
        free(finder->tries[1].nodes);
        free(finder);
    }
    return NULL;
}

const fm_bpe_added_t *fm_bpe_finder_by_id(const fm_bpe_finder_t *finder,
                                          int32_t id)
{
    const fm_bpe_added_t key = {.id = id};

    return bsearch(&key, finder->list, finder->count, sizeof(*finder->list),
                   compare_ids);
}

const fm_bpe_added_t *fm_bpe_finder_by_text(const fm_bpe_finder_t *finder,
                                            const char *text, size_t len)
{
    for (size_t i = 0; i < finder->count; i++) {
        const fm_bpe_added_t *added = &finder->list[i];
        if (added->len == len && memcmp(added->content, text, len) == 0) {
            return added;
        }
    }
    return NULL;
}

/* --- finding ---------------------------------------------------------------
 */

/* The longest token at @p at; its length goes to *len_out. */
static const fm_bpe_added_t *token_at(const fm_bpe_finder_t *finder,
                                      const struct trie *trie, const char *text,
                                      size_t at, size_t len, size_t *len_out)
{
    const fm_bpe_added_t *found = NULL;
    int32_t node = trie->root[(uint8_t)text[at]];

    for (size_t i = at; node != 0;) {
        i++;
        if (trie->nodes[node].added >= 0) {
            found = &finder->list[trie->nodes[node].added];
            *len_out = i - at;
        }
        node = i < len
                   ? child_find(trie, trie->nodes[node].child, (uint8_t)text[i])
                   : 0;
    }
    return found;
}

/* The character that ends before @p at. */
static uint32_t char_before(const char *text, size_t at)
{
    size_t bytes = 0;

    do {
        at--;
    } while (at > 0 && ((uint8_t)text[at] & 0xC0) == 0x80);
    return fm_utf8_decode(text + at, &bytes);
}

static bool stands_alone(const char *text, size_t len, size_t begin, size_t end)
{
    size_t bytes = 0;

    return (begin == 0 || !fm_unicode_is_word(char_before(text, begin))) &&
           (end == len ||
            !fm_unicode_is_word(fm_utf8_decode(text + end, &bytes)));
}

static bool marked(const fm_bpe_encode_options_t *options,
                   const uint32_t *origins, size_t begin, size_t end)
{
    for (size_t i = begin; options->marks && i < end; i++) {
        if (options->marks[origins ? origins[i] : i] != 0) {
            return true;
        }
    }
    return false;
}

static size_t spaces_before(const char *text, size_t at, size_t from)
{
    while (at > from && fm_unicode_is_space(char_before(text, at))) {
        do {
            at--;
        } while (((uint8_t)text[at] & 0xC0) == 0x80);
    }
    return at;
}

static size_t spaces_behind(const char *text, size_t at, size_t len)
{
    size_t bytes = 0;

    while (at < len && fm_unicode_is_space(fm_utf8_decode(text + at, &bytes))) {
        at += bytes;
    }
    return at;
}

static fm_status_t part_add(fm_bpe_parts_t *parts, size_t begin, size_t end,
                            const fm_bpe_added_t *added, fm_error_t *err)
{
    fm_status_t rc = fm_grow(&parts->list, &parts->capacity, parts->count,
                             sizeof(*parts->list), err);

    if (rc >= 0) {
        parts->list[parts->count++] = (fm_bpe_part_t){begin, end, added};
    }
    return rc;
}

fm_status_t fm_bpe_finder_split(const fm_bpe_finder_t *finder, bool normalized,
                                const char *text, size_t len,
                                const fm_bpe_encode_options_t *options,
                                const uint32_t *origins, fm_bpe_parts_t *parts,
                                fm_error_t *err)
{
    const struct trie *trie = &finder->tries[normalized];
    size_t done = 0; /* what comes before is in the list */
    size_t bytes = 0;
    fm_status_t rc = FM_OK;

    parts->count = 0;
    for (size_t at = 0; trie->count > 0 && at < len && rc >= 0; at += bytes) {
        const fm_bpe_added_t *added =
            token_at(finder, trie, text, at, len, &bytes);
        if (!added) {
            bytes = 1;
            continue;
        }
        size_t begin = at;
        size_t end = at + bytes;
        if ((added->special && (!options->parse_special ||
                                marked(options, origins, begin, end))) ||
            (added->single_word && !stands_alone(text, len, begin, end))) {
            continue;
        }
        if (added->lstrip) {
            begin = begin > done ? spaces_before(text, begin, done) : done;
        }
        if (added->rstrip) {
            end = spaces_behind(text, end, len);
        }
        if (done < begin) {
            rc = part_add(parts, done, begin, NULL, err);
        }
        if (rc >= 0) {
            rc = part_add(parts, begin, end, added, err);
        }
        done = end;
    }
    if (rc >= 0 && done < len) {
        rc = part_add(parts, done, len, NULL, err);
    }
    return rc;
}
