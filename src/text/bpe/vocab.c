/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vocabulary: texts by id and ids by text.  All texts lie in one block; an
 * open-addressing table of ids finds them.  Added tokens have texts by id
 * here, and are looked up by the finder.
 */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "text/bpe/internal.h"

struct entry {
    size_t begin; /* in the block */
    uint32_t len;
    bool used;
};

struct fm_bpe_vocab {
    struct entry *entries; /* [limit] */
    size_t limit;
    fm_buf_t block;
    int32_t *slots; /* id, or -1; slot_count is a power of two */
    size_t slot_count;
};

static fm_status_t id_check(const fm_json_t *id, const char *where,
                            const char *token, size_t *limit, fm_error_t *err)
{
    int64_t value = fm_json_int_or(id, -1);

    if (value < 0 || value >= FM_BPE_ID_LIMIT) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "%s: \"%.64s\": want an id of 0 to %lld", where,
                            token, (long long)FM_BPE_ID_LIMIT - 1);
    }
    *limit = (size_t)value >= *limit ? (size_t)value + 1 : *limit;
    return FM_OK;
}

/* The largest id, and that not most ids are holes: then it is a mistake, and
 * every table sized by it a waste. */
static fm_status_t limit_find(const fm_json_t *vocab, const fm_json_t *added,
                              size_t *limit_out, fm_error_t *err)
{
    void *iterator = NULL;
    const char *token = NULL;
    fm_json_t *id = NULL;
    size_t limit = 0;
    size_t count = fm_json_len(vocab) + fm_json_len(added);

    while (fm_json_next(vocab, &iterator, &token, &id)) {
        fm_status_t rc = id_check(id, "model.vocab", token, &limit, err);
        if (rc < 0) {
            return rc;
        }
    }
    for (size_t i = 0; i < fm_json_len(added); i++) {
        const fm_json_t *entry = fm_json_at(added, i);
        const char *content = fm_json_get_str(entry, "content");
        fm_status_t rc = id_check(fm_json_get(entry, "id"), "added_tokens",
                                  content ? content : "", &limit, err);
        if (rc < 0) {
            return rc;
        }
    }
    if (limit / 2 > count) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "model.vocab: the largest id is %zu, but there "
                            "are only %zu tokens: most ids are unused",
                            limit - 1, count);
    }
    *limit_out = limit;
    return FM_OK;
}

static size_t slot_of(const fm_bpe_vocab_t *vocab, const char *token,
                      size_t len)
{
    size_t slot = (size_t)fm_hash64(token, len) & (vocab->slot_count - 1);

    while (vocab->slots[slot] >= 0) {
        const struct entry *entry = &vocab->entries[vocab->slots[slot]];
        if (entry->len == len &&
            memcmp(vocab->block.data + entry->begin, token, len) == 0) {
            break;
        }
        slot = (slot + 1) & (vocab->slot_count - 1);
    }
    return slot;
}

static fm_status_t entry_set(fm_bpe_vocab_t *vocab, int64_t id,
                             const char *token, size_t len, fm_error_t *err)
{
    struct entry *entry = &vocab->entries[id];

    *entry = (struct entry){vocab->block.len, (uint32_t)len, true};
    fm_buf_add(&vocab->block, token, len);
    return vocab->block.failed ? fm_no_memory(err) : FM_OK;
}

static fm_status_t tokens_load(fm_bpe_vocab_t *vocab, const fm_json_t *json,
                               fm_error_t *err)
{
    void *iterator = NULL;
    const char *token = NULL;
    fm_json_t *value = NULL;

    while (fm_json_next(json, &iterator, &token, &value)) {
        int64_t id = fm_json_int_or(value, -1);
        size_t len = strlen(token);
        if (len == 0 || len > FM_BPE_TOKEN_MAX) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "model.vocab: id %lld: a token of %zu bytes; "
                                "want 1 to %zu",
                                (long long)id, len, FM_BPE_TOKEN_MAX);
        }
        if (vocab->entries[id].used) {
            size_t other_len = 0;
            const char *other =
                fm_bpe_vocab_token(vocab, (int32_t)id, &other_len);
            return fm_error_set(err, FM_ERR_INVALID,
                                "model.vocab: \"%.64s\" and \"%.*s\" have the "
                                "same id %lld",
                                token, (int)(other_len < 64 ? other_len : 64),
                                other, (long long)id);
        }
        fm_status_t rc = entry_set(vocab, id, token, len, err);
        if (rc < 0) {
            return rc;
        }
        vocab->slots[slot_of(vocab, token, len)] = (int32_t)id;
    }
    return FM_OK;
}

/* Added tokens fill ids of their own, or name a token of the vocabulary. */
static fm_status_t added_load(fm_bpe_vocab_t *vocab, const fm_json_t *added,
                              fm_error_t *err)
{
    for (size_t i = 0; i < fm_json_len(added); i++) {
        const fm_json_t *entry = fm_json_at(added, i);
        const fm_json_t *value = fm_json_get(entry, "content");
        const char *content = fm_json_str(value);
        size_t len = fm_json_str_len(value);
        int64_t id = fm_json_get_int(entry, "id", -1);
        if (!content || len == 0 || len > FM_BPE_TOKEN_MAX) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "added_tokens[%zu].content: want a string of 1 "
                                "to %zu bytes",
                                i, FM_BPE_TOKEN_MAX);
        }
        int32_t known = fm_bpe_vocab_find(vocab, content, len);
        if (known >= 0 && known != id) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "added_tokens[%zu]: \"%.64s\" has id %lld, in "
                                "model.vocab %d",
                                i, content, (long long)id, known);
        }
        if (known < 0 && vocab->entries[id].used) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "added_tokens[%zu]: \"%.64s\" has id %lld, "
                                "which another token has",
                                i, content, (long long)id);
        }
        fm_status_t rc =
            known < 0 ? entry_set(vocab, id, content, len, err) : FM_OK;
        if (rc < 0) {
            return rc;
        }
    }
    return FM_OK;
}

fm_status_t fm_bpe_vocab_load(const fm_json_t *model, const fm_json_t *added,
                              fm_bpe_vocab_t **vocab_out, fm_error_t *err)
{
    const fm_json_t *json = fm_json_get(model, "vocab");
    fm_bpe_vocab_t *vocab = fm_calloc(1, sizeof(*vocab));
    fm_status_t rc = FM_OK;

    if (!vocab) {
        return fm_no_memory(err);
    }
    if (!fm_json_is(json, FM_JSON_OBJECT) || fm_json_len(json) == 0) {
        rc = fm_error_set(err, FM_ERR_INVALID,
                          "model.vocab: want an object of at least one token");
        goto out;
    }
    if ((rc = limit_find(json, added, &vocab->limit, err)) < 0) {
        goto out;
    }
    vocab->slot_count = 16;
    while (vocab->slot_count < 2 * fm_json_len(json)) {
        vocab->slot_count *= 2;
    }
    if (!(vocab->entries = fm_calloc(vocab->limit, sizeof(*vocab->entries))) ||
        !(vocab->slots =
              fm_malloc(vocab->slot_count * sizeof(*vocab->slots)))) {
        rc = fm_no_memory(err);
        goto out;
    }
    memset(vocab->slots, 0xFF, vocab->slot_count * sizeof(*vocab->slots));
    if ((rc = tokens_load(vocab, json, err)) < 0 ||
        (rc = added_load(vocab, added, err)) < 0) {
        goto out;
    }
    *vocab_out = vocab;
    vocab = NULL;
out:
    fm_bpe_vocab_destroy(vocab);
    return rc;
}

void *fm_bpe_vocab_destroy(fm_bpe_vocab_t *vocab)
{
    if (vocab) {
        free(vocab->entries);
        free(vocab->slots);
        fm_buf_fini(&vocab->block);
        free(vocab);
    }
    return NULL;
}

int32_t fm_bpe_vocab_limit(const fm_bpe_vocab_t *vocab)
{
    return (int32_t)vocab->limit;
}

const char *fm_bpe_vocab_token(const fm_bpe_vocab_t *vocab, int32_t id,
                               size_t *len_out)
{
    if (id < 0 || (size_t)id >= vocab->limit || !vocab->entries[id].used) {
        return NULL;
    }
    *len_out = vocab->entries[id].len;
    return (const char *)vocab->block.data + vocab->entries[id].begin;
}

int32_t fm_bpe_vocab_find(const fm_bpe_vocab_t *vocab, const char *token,
                          size_t len)
{
    return vocab->slots[slot_of(vocab, token, len)];
}
