/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file pages.h
 * Who holds which page of the key-value cache, and what full pages hold.
 * Host only.  Private to the engine.
 *
 * A page is free, held by one or more sequences, or kept: full, named and held
 * by nobody, until its room is needed (least recently used first).  A name is
 * (serial of the page before it, the page's tokens); a page gets a serial
 * never used before when it is named, so two pages of one name have equal
 * tokens all the way back to a root.  Nothing rests on a hash being unique.
 */
#ifndef FM_ENGINE_SERVE_PAGES_H
#define FM_ENGINE_SERVE_PAGES_H

#include <flowmesh/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct fm_engine_pages fm_engine_pages_t;

FM_MUST_USE fm_status_t fm_engine_pages_create(size_t count,
                                               fm_engine_pages_t **pages_out,
                                               fm_error_t *err);
fm_engine_pages_t *fm_engine_pages_destroy(fm_engine_pages_t *pages);

/** A page for new content, held once; −1 when all are held. */
int32_t fm_engine_pages_take(fm_engine_pages_t *pages);
/** One holder less.  Drop a sequence's pages from the last to the first, so
 *  that a page goes before those it follows. */
void fm_engine_pages_drop(fm_engine_pages_t *pages, int32_t page);
/** The page of this name, held once more; −1: there is none. */
int32_t fm_engine_pages_find(fm_engine_pages_t *pages, uint64_t before,
                             const int32_t *tokens);
/**
 * Name a held page.  When there is a page of that name already, the caller
 * holds that one from now on instead of @p page.
 * @return the page that has the name.
 */
int32_t fm_engine_pages_name(fm_engine_pages_t *pages, int32_t page,
                             uint64_t before, const int32_t *tokens);
/** Of a named page; never 0. */
uint64_t fm_engine_pages_serial(const fm_engine_pages_t *pages, int32_t page);
/** A serial that no page has: a root. */
uint64_t fm_engine_pages_root(fm_engine_pages_t *pages);
/** Take all names away; kept pages become free. */
void fm_engine_pages_forget(fm_engine_pages_t *pages);

size_t fm_engine_pages_count(const fm_engine_pages_t *pages);
/** Pages that fm_engine_pages_take() could hand out: free and kept ones. */
size_t fm_engine_pages_available(const fm_engine_pages_t *pages);

#endif
