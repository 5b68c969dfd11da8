/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages in one array.  Those held by nobody stand in one list, free ones in
 * front, kept ones behind in the order of their last use: take() takes the
 * first.  Named pages stand in the chains of a hash table besides.
 */
#include "engine/serve/pages.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "engine/backend.h"

enum { NONE = -1 };

typedef struct page {
    uint64_t serial; /* 0: not named */
    uint64_t before; /* the name, with tokens */
    int32_t tokens[FM_ENGINE_PAGE_TOKENS];
    size_t holders;
    int32_t left; /* neighbours in the list of those not held */
    int32_t right;
    int32_t chain; /* next of the same bucket */
} page_t;

struct fm_engine_pages {
    page_t *pages;
    size_t count;
    size_t available;
    int32_t first, last; /* of those not held */
    int32_t *buckets;    /* [bucket_count] */
    size_t bucket_count; /* a power of two */
    uint64_t serials;    /* given out */
};

static void list_put(fm_engine_pages_t *p, int32_t at, bool front)
{
    page_t *page = &p->pages[at];

    page->left = front ? NONE : p->last;
    page->right = front ? p->first : NONE;
    if (p->first == NONE) {
        p->first = p->last = at;
    } else if (front) {
        p->pages[p->first].left = at;
        p->first = at;
    } else {
        p->pages[p->last].right = at;
        p->last = at;
    }
    p->available++;
}

static void list_cut(fm_engine_pages_t *p, int32_t at)
{
    const page_t *page = &p->pages[at];

    *(page->left == NONE ? &p->first : &p->pages[page->left].right) =
        page->right;
    *(page->right == NONE ? &p->last : &p->pages[page->right].left) =
        page->left;
    p->available--;
}

fm_status_t fm_engine_pages_create(size_t count, fm_engine_pages_t **pages_out,
                                   fm_error_t *err)
{
    fm_engine_pages_t *p = fm_calloc(1, sizeof(*p));

    if (!p) {
        return fm_no_memory(err);
    }
    p->bucket_count = 1;
    while (p->bucket_count < count) {
        p->bucket_count *= 2;
    }
    p->count = count;
    p->first = p->last = NONE;
    p->pages = fm_calloc(count, sizeof(*p->pages));
    p->buckets = fm_calloc(p->bucket_count, sizeof(*p->buckets));
    if (!p->pages || !p->buckets) {
        fm_engine_pages_destroy(p);
        return fm_no_memory(err);
    }
    memset(p->buckets, 0xFF, p->bucket_count * sizeof(*p->buckets));
    for (size_t i = 0; i < count; i++) {
        list_put(p, (int32_t)i, false);
    }
    *pages_out = p;
    return FM_OK;
}

fm_engine_pages_t *fm_engine_pages_destroy(fm_engine_pages_t *pages)
{
    if (pages) {
        free(pages->pages);
        free(pages->buckets);
        free(pages);
    }
    return NULL;
}

static int32_t *bucket_of(const fm_engine_pages_t *p, uint64_t before,
                          const int32_t *tokens)
{
    size_t bytes = FM_ENGINE_PAGE_TOKENS * sizeof(*tokens);
    const uint64_t parts[2] = {before, fm_hash64(tokens, bytes)};

    return &p->buckets[fm_hash64(parts, sizeof(parts)) & (p->bucket_count - 1)];
}

static int32_t lookup(const fm_engine_pages_t *p, uint64_t before,
                      const int32_t *tokens)
{
    int32_t at = *bucket_of(p, before, tokens);

    while (at != NONE && (p->pages[at].before != before ||
                          memcmp(p->pages[at].tokens, tokens,
                                 sizeof(p->pages[at].tokens)) != 0)) {
        at = p->pages[at].chain;
    }
    return at;
}

static void unname(fm_engine_pages_t *p, int32_t at)
{
    page_t *page = &p->pages[at];
    int32_t *link = bucket_of(p, page->before, page->tokens);

    while (*link != at) {
        link = &p->pages[*link].chain;
    }
    *link = page->chain;
    page->serial = 0;
}

int32_t fm_engine_pages_take(fm_engine_pages_t *pages)
{
    int32_t at = pages->first;

    if (at == NONE) {
        return NONE;
    }
    list_cut(pages, at);
    if (pages->pages[at].serial != 0) {
        unname(pages, at);
    }
    pages->pages[at].holders = 1;
    return at;
}

void fm_engine_pages_drop(fm_engine_pages_t *pages, int32_t page)
{
    if (--pages->pages[page].holders == 0) {
        list_put(pages, page, pages->pages[page].serial == 0);
    }
}

static int32_t hold(fm_engine_pages_t *p, int32_t at)
{
    if (p->pages[at].holders++ == 0) {
        list_cut(p, at);
    }
    return at;
}

int32_t fm_engine_pages_find(fm_engine_pages_t *pages, uint64_t before,
                             const int32_t *tokens)
{
    int32_t at = lookup(pages, before, tokens);

    return at == NONE ? NONE : hold(pages, at);
}

int32_t fm_engine_pages_name(fm_engine_pages_t *pages, int32_t page,
                             uint64_t before, const int32_t *tokens)
{
    int32_t older = lookup(pages, before, tokens);

    if (older != NONE) {
        (void)hold(pages, older);
        fm_engine_pages_drop(pages, page);
        return older;
    }
    page_t *named = &pages->pages[page];
    int32_t *bucket = bucket_of(pages, before, tokens);
    named->serial = ++pages->serials;
    named->before = before;
    memcpy(named->tokens, tokens, sizeof(named->tokens));
    named->chain = *bucket;
    *bucket = page;
    return page;
}

uint64_t fm_engine_pages_serial(const fm_engine_pages_t *pages, int32_t page)
{
    return pages->pages[page].serial;
}

uint64_t fm_engine_pages_root(fm_engine_pages_t *pages)
{
    return ++pages->serials;
}

void fm_engine_pages_forget(fm_engine_pages_t *pages)
{
    for (size_t i = 0; i < pages->count; i++) {
        if (pages->pages[i].serial != 0) {
            unname(pages, (int32_t)i);
        }
    }
}

size_t fm_engine_pages_count(const fm_engine_pages_t *pages)
{
    return pages->count;
}

size_t fm_engine_pages_available(const fm_engine_pages_t *pages)
{
    return pages->available;
}
