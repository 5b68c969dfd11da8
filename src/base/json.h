/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file json.h
 * JSON values: a fence around jansson (the only place that includes it).
 *
 * Values are reference counted.  Functions that return `fm_json_t *` as a
 * "new reference" want fm_json_drop(); getters return borrowed references.
 * A function that stores a value ("takes") consumes the caller's reference,
 * also on failure, so `fm_json_set(o, "k", fm_json_int(1))` cannot leak.
 *
 * Threads: a value belongs to one thread at a time.
 */
#ifndef FM_BASE_JSON_H
#define FM_BASE_JSON_H

#include <flowmesh/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct json_t fm_json_t;

typedef enum fm_json_type {
    FM_JSON_NULL,
    FM_JSON_BOOL,
    FM_JSON_INT,
    FM_JSON_REAL,
    FM_JSON_STRING,
    FM_JSON_ARRAY,
    FM_JSON_OBJECT
} fm_json_type_t;

/* Making values: new references; NULL when memory is out (or, for a string,
 * when @p text is not UTF-8; for a real, when it is not finite). */
FM_MUST_USE fm_json_t *fm_json_null(void);
FM_MUST_USE fm_json_t *fm_json_bool(bool value);
FM_MUST_USE fm_json_t *fm_json_int(int64_t value);
FM_MUST_USE fm_json_t *fm_json_real(double value);
FM_MUST_USE fm_json_t *fm_json_string(const char *text);
FM_MUST_USE fm_json_t *fm_json_stringn(const char *text, size_t len);
FM_MUST_USE fm_json_t *fm_json_array(void);
FM_MUST_USE fm_json_t *fm_json_object(void);
FM_MUST_USE fm_json_t *fm_json_copy(const fm_json_t *value); /**< deep */
/** Another reference to @p value (NULL gives NULL). */
fm_json_t *fm_json_keep(const fm_json_t *value);
/** Give a reference back; NULL is ignored; returns NULL. */
void *fm_json_drop(fm_json_t *value);

/* Reading.  Getters accept NULL and any type: a mismatch yields NULL, or the
 * fallback, so a chain of lookups needs one check at its end. */
fm_json_type_t fm_json_type(const fm_json_t *value);
const char *fm_json_type_name(const fm_json_t *value);
bool fm_json_is(const fm_json_t *value, fm_json_type_t type);
bool fm_json_is_number(const fm_json_t *value);
size_t fm_json_len(const fm_json_t *value); /**< elements or members, else 0 */
fm_json_t *fm_json_get(const fm_json_t *object, const char *key);
fm_json_t *fm_json_at(const fm_json_t *array, size_t index);
const char *fm_json_str(const fm_json_t *value); /**< NULL unless a string */
size_t fm_json_str_len(const fm_json_t *value);
int64_t fm_json_int_or(const fm_json_t *value, int64_t fallback);
double fm_json_real_or(const fm_json_t *value,
                       double fallback); /**< ints too */
bool fm_json_bool_or(const fm_json_t *value, bool fallback);
const char *fm_json_get_str(const fm_json_t *object, const char *key);
int64_t fm_json_get_int(const fm_json_t *object, const char *key,
                        int64_t fallback);
double fm_json_get_real(const fm_json_t *object, const char *key,
                        double fallback);
bool fm_json_get_bool(const fm_json_t *object, const char *key, bool fallback);
bool fm_json_equal(const fm_json_t *a, const fm_json_t *b);

/** Iterate members in insertion order: start with *iterator = NULL. */
bool fm_json_next(const fm_json_t *object, void **iterator,
                  const char **key_out, fm_json_t **value_out);

/**
 * Follow a path such as `items[0].output`, `items.0.output` or `a.b`.
 * @return a borrowed reference, NULL when any step is missing.
 */
fm_json_t *fm_json_path(const fm_json_t *value, const char *path);

/* Changing.  Take @p value; NULL @p value is FM_ERR_NO_MEMORY, so makers nest.
 */
FM_MUST_USE fm_status_t fm_json_set(fm_json_t *object, const char *key,
                                    fm_json_t *value);
FM_MUST_USE fm_status_t fm_json_append(fm_json_t *array, fm_json_t *value);
FM_MUST_USE fm_status_t fm_json_replace(fm_json_t *array, size_t index,
                                        fm_json_t *value);
void fm_json_remove(fm_json_t *object, const char *key);

/**
 * Parse untrusted text: at most 64 levels deep, no duplicate keys, UTF-8.
 * @param what  name of the source for error text, such as a file name.
 * @retval FM_ERR_INVALID  text "what:line:column: reason".
 */
FM_MUST_USE fm_status_t fm_json_parse(const char *text, size_t len,
                                      const char *what, fm_json_t **value_out,
                                      fm_error_t *err);

/** Compact text in member order; free() it; NULL when memory is out. */
FM_MUST_USE char *fm_json_dump(const fm_json_t *value);
/** Indented text for people. */
FM_MUST_USE char *fm_json_dump_pretty(const fm_json_t *value);
/**
 * Canonical text: members sorted by key bytes, no white space, integers in
 * decimal, reals shortest round-trip ("%.17g" at most), a real that is an
 * integer below 2^53 written as that integer.  Equal values give equal bytes;
 * docs/spec/keys.md states the rules.
 */
FM_MUST_USE char *fm_json_canonical(const fm_json_t *value);

#endif
