/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file model_fixture.h
 * What the tests of run/model share: a scratch store, copies of the committed
 * Hugging Face directories, and ways to spoil them.
 */
#ifndef MODEL_FIXTURE_H
#define MODEL_FIXTURE_H

#include "engine/weights/safetensors.h"
#include "run/model/library.h"
#include "scratch.h"

typedef struct shelf {
    char *dir; /* of the test; the fabric is DIR/fabric */
    fm_model_library_t *library;
    fm_cas_t *cas;
} shelf_t;

void shelf_open(shelf_t *shelf);
void shelf_close(shelf_t *shelf);

/** The committed directory NAME; free() it. */
char *reference_path(const char *name);
/** DIR/to as a copy of the committed directory NAME; free() it. */
char *reference_copy(const shelf_t *shelf, const char *name, const char *to);
/** Parse DIR/name. */
fm_json_t *json_load(const char *dir, const char *name);
void json_save(const char *dir, const char *name, const fm_json_t *json);
/** Set @p key of a JSON file to @p value, a JSON text; NULL removes it. */
void json_edit(const char *dir, const char *name, const char *key,
               const char *value);

/** One change of one tensor of a file; what is NULL or 0 stays. */
typedef struct spoil {
    const char *tensor; /**< NULL: none */
    const char *rename;
    const char *dtype;
    uint64_t shape[2];
    bool drop;
    bool flip;       /**< change its first byte */
    const char *add; /**< a further tensor of 4 F32 */
} spoil_t;
/** Write DIR/name anew with the change. */
void tensors_edit(const char *dir, const char *name, const spoil_t *spoil);

/** Import; asserts that it works. */
fm_model_imported_t import_ok(shelf_t *shelf, const char *path,
                              const fm_digest_t *base);
/** Import; asserts that it is refused with @p words in the text. */
void import_refused(shelf_t *shelf, const char *path, const fm_digest_t *base,
                    fm_status_t status, const char *words);
/** Whether two files have the same bytes. */
bool files_equal(const char *dir_a, const char *dir_b, const char *name);

#endif
