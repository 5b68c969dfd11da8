/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file library.h
 * The models of a fabric directory: its store, names for what is in it, and
 * the memory of what was imported from where.
 *
 *   DIR/cas/             objects
 *   DIR/models/NAME      one line, the digest of a manifest
 *   DIR/models/.imports/ what an import of a path gave, and how the files were
 *   DIR/models/.writers/ locks: which writer names of the store are in use
 *
 * Any number of processes use one at the same time, beside a running fabric.
 * Threads: one at a time; writing calls HDF5 (store/cas/cas.h).
 */
#ifndef FM_RUN_MODEL_LIBRARY_H
#define FM_RUN_MODEL_LIBRARY_H

#include "run/model/transfer.h"

/** Bytes of a name at most: [A-Za-z0-9._-], the first a letter or digit. */
#define FM_MODEL_NAME_MAX 128

typedef struct fm_model_library fm_model_library_t;

/**
 * Open the models of @p dir.
 * @param write  for imports and names: takes a writer name that no living
 *               process has, and clears what a dead one of that name left.
 * @retval FM_ERR_NOT_FOUND  to read, and there is no store.
 */
FM_MUST_USE fm_status_t fm_model_library_open(const char *dir, bool write,
                                              fm_model_library_t **library_out,
                                              fm_error_t *err);
void *fm_model_library_close(fm_model_library_t *library);
fm_cas_t *fm_model_library_cas(fm_model_library_t *library);

/* --- names ---------------------------------------------------------------- */

bool fm_model_name_valid(const char *name);
/** Set or replace.  @retval FM_ERR_INVALID  not a name. */
FM_MUST_USE fm_status_t fm_model_name_set(fm_model_library_t *library,
                                          const char *name,
                                          const fm_digest_t *digest,
                                          fm_error_t *err);
/** @retval FM_ERR_NOT_FOUND  no such name; the text lists those there are. */
FM_MUST_USE fm_status_t fm_model_name_get(fm_model_library_t *library,
                                          const char *name,
                                          fm_digest_t *digest_out,
                                          fm_error_t *err);
/** The name only; what it stood for stays in the store. */
FM_MUST_USE fm_status_t fm_model_name_remove(fm_model_library_t *library,
                                             const char *name, fm_error_t *err);
/** All names, sorted.  @param names_out  array of texts; a new reference. */
FM_MUST_USE fm_status_t fm_model_names(fm_model_library_t *library,
                                       fm_json_t **names_out, fm_error_t *err);
/** A digest, spelled out, or a name. */
FM_MUST_USE fm_status_t fm_model_find(fm_model_library_t *library,
                                      const char *text, fm_digest_t *digest_out,
                                      fm_error_t *err);

/** Digests of all manifests of a store; free() them. */
FM_MUST_USE fm_status_t fm_model_manifests(fm_cas_t *cas,
                                           fm_digest_t **digests_out,
                                           size_t *count_out, fm_error_t *err);
/** Bytes of the tensors that @p manifest has in common with others. */
FM_MUST_USE fm_status_t fm_model_shared_bytes(
    fm_cas_t *cas, const fm_digest_t *digest,
    const fm_model_manifest_t *manifest, uint64_t *bytes_out, fm_error_t *err);

/* --- imports -------------------------------------------------------------- */

/** What an import is asked for; zero is a path without more. */
typedef struct fm_model_wish {
    const char *source;   /**< a path, or "org/name" when is_hub */
    bool is_hub;          /**< look in the cache of Hugging Face only */
    const char *revision; /**< of a hub; NULL: "main" */
    const char *base;     /**< of an adapter: digest, name, path or "org/name";
                               NULL: what the adapter itself says */
    int64_t now_ns;       /**< wall clock; 0: ask it */
} fm_model_wish_t;

/**
 * Import, or find that it was imported before and has not changed since: then
 * no file is read.  An adapter's base is imported first where it has to be.
 * @retval FM_ERR_INVALID  also: a file changed while it was read.
 */
FM_MUST_USE fm_status_t fm_model_library_import(
    fm_model_library_t *library, const fm_model_wish_t *wish,
    fm_model_imported_t *imported_out, fm_error_t *err);

/**
 * The directory of a model in the local cache of Hugging Face (HF_HUB_CACHE,
 * HF_HOME/hub, XDG_CACHE_HOME/huggingface/hub, ~/.cache/huggingface/hub).
 * @param dir_out  free() it.
 * @retval FM_ERR_NOT_FOUND  the text says where it was looked for and how to
 *                           get it; nothing goes to the network.
 */
FM_MUST_USE fm_status_t fm_model_hub_find(const char *identifier,
                                          const char *revision, char **dir_out,
                                          fm_error_t *err);
/** Whether @p text is spelled like "org/name". */
bool fm_model_hub_spelled(const char *text);

#endif
