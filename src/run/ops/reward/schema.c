/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON Schema: one table of keywords says what a keyword's value must be and
 * which test it is.  A keyword that is not in it is refused: passing it over
 * would call texts right that are not.  Source: JSON Schema 2020-12,
 * Validation.
 */
#include "run/ops/reward/schema.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "base/mem.h"
#include "run/ops/field.h"

#define DEPTH_MAX 32

typedef enum shape {
    SHAPE_ANY,
    SHAPE_SCHEMA,
    SHAPE_SCHEMAS,    /* list of them */
    SHAPE_SCHEMA_MAP, /* name → schema */
    SHAPE_PATTERN_MAP,
    SHAPE_NUMBER,
    SHAPE_POSITIVE,
    SHAPE_COUNT,
    SHAPE_BOOL,
    SHAPE_PATTERN,
    SHAPE_NAMES,
    SHAPE_LIST,
    SHAPE_TYPE
} shape_t;

typedef fm_status_t (*test_fn)(const fm_json_t *schema, const fm_json_t *word,
                               const fm_json_t *value, bool *allowed,
                               fm_error_t *err);

/* --- equality and order -------------------------------------------------- */

/* Equal as JSON values: 1 and 1.0 are. */
static fm_status_t same(const fm_json_t *a, const fm_json_t *b, bool *same_out,
                        fm_error_t *err)
{
    char *left = fm_json_canonical(a), *right = fm_json_canonical(b);
    fm_status_t rc = left && right ? FM_OK : fm_no_memory(err);

    *same_out = rc >= 0 && strcmp(left, right) == 0;
    free(left);
    free(right);
    return rc;
}

static int order(const fm_json_t *a, const fm_json_t *b)
{
    if (fm_json_is(a, FM_JSON_INT) && fm_json_is(b, FM_JSON_INT)) {
        int64_t left = fm_json_int_or(a, 0), right = fm_json_int_or(b, 0);
        return (left > right) - (left < right);
    }
    double left = fm_json_real_or(a, 0), right = fm_json_real_or(b, 0);
    return (left > right) - (left < right);
}

/* --- tests of any value -------------------------------------------------- */

static bool type_is(const char *name, const fm_json_t *value)
{
    static const char *const names[] = {
        "null", "boolean", "integer", "number", "string", "array", "object"};
    double number = fm_json_real_or(value, 0.5);

    if (fm_json_is_number(value)) {
        return strcmp(name, "number") == 0 ||
               (strcmp(name, "integer") == 0 && number == floor(number));
    }
    return strcmp(name, names[fm_json_type(value)]) == 0;
}

static fm_status_t test_type(const fm_json_t *schema, const fm_json_t *word,
                             const fm_json_t *value, bool *allowed,
                             fm_error_t *err)
{
    (void)schema;
    (void)err;
    *allowed = fm_json_str(word) && type_is(fm_json_str(word), value);
    for (size_t i = 0; fm_json_is(word, FM_JSON_ARRAY) && i < fm_json_len(word);
         i++) {
        *allowed |= type_is(fm_json_str(fm_json_at(word, i)), value);
    }
    return FM_OK;
}

static fm_status_t test_const(const fm_json_t *schema, const fm_json_t *word,
                              const fm_json_t *value, bool *allowed,
                              fm_error_t *err)
{
    (void)schema;
    return same(word, value, allowed, err);
}

static fm_status_t test_enum(const fm_json_t *schema, const fm_json_t *word,
                             const fm_json_t *value, bool *allowed,
                             fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    (void)schema;
    *allowed = false;
    for (size_t i = 0; rc >= 0 && !*allowed && i < fm_json_len(word); i++) {
        rc = same(fm_json_at(word, i), value, allowed, err);
    }
    return rc;
}

/* How many schemas of a list allow the value. */
static fm_status_t allowing(const fm_json_t *list, const fm_json_t *value,
                            size_t *count_out, fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    *count_out = 0;
    for (size_t i = 0; rc >= 0 && i < fm_json_len(list); i++) {
        bool one = false;
        rc = fm_ops_schema_allows(fm_json_at(list, i), value, &one, err);
        *count_out += one;
    }
    return rc;
}

static fm_status_t test_all_of(const fm_json_t *schema, const fm_json_t *word,
                               const fm_json_t *value, bool *allowed,
                               fm_error_t *err)
{
    size_t count = 0;
    fm_status_t rc = allowing(word, value, &count, err);

    (void)schema;
    *allowed = count == fm_json_len(word);
    return rc;
}

static fm_status_t test_any_of(const fm_json_t *schema, const fm_json_t *word,
                               const fm_json_t *value, bool *allowed,
                               fm_error_t *err)
{
    size_t count = 0;
    fm_status_t rc = allowing(word, value, &count, err);

    (void)schema;
    *allowed = count > 0;
    return rc;
}

static fm_status_t test_one_of(const fm_json_t *schema, const fm_json_t *word,
                               const fm_json_t *value, bool *allowed,
                               fm_error_t *err)
{
    size_t count = 0;
    fm_status_t rc = allowing(word, value, &count, err);

    (void)schema;
    *allowed = count == 1;
    return rc;
}

static fm_status_t test_not(const fm_json_t *schema, const fm_json_t *word,
                            const fm_json_t *value, bool *allowed,
                            fm_error_t *err)
{
    bool inner = false;
    fm_status_t rc = fm_ops_schema_allows(word, value, &inner, err);

    (void)schema;
    *allowed = !inner;
    return rc;
}

static fm_status_t test_if(const fm_json_t *schema, const fm_json_t *word,
                           const fm_json_t *value, bool *allowed,
                           fm_error_t *err)
{
    bool met = false;
    fm_status_t rc = fm_ops_schema_allows(word, value, &met, err);
    const fm_json_t *branch = fm_json_get(schema, met ? "then" : "else");

    *allowed = true;
    if (rc >= 0 && branch) {
        rc = fm_ops_schema_allows(branch, value, allowed, err);
    }
    return rc;
}

/* --- numbers and texts --------------------------------------------------- */

#define BOUND_TEST(name, relation)                                             \
    static fm_status_t name(const fm_json_t *schema, const fm_json_t *word,    \
                            const fm_json_t *value, bool *allowed,             \
                            fm_error_t *err)                                   \
    {                                                                          \
        (void)schema;                                                          \
        (void)err;                                                             \
        *allowed = !fm_json_is_number(value) || order(value, word) relation 0; \
        return FM_OK;                                                          \
    }
BOUND_TEST(test_minimum, >=)
BOUND_TEST(test_maximum, <=)
BOUND_TEST(test_exclusive_minimum, >)
BOUND_TEST(test_exclusive_maximum, <)

static fm_status_t test_multiple_of(const fm_json_t *schema,
                                    const fm_json_t *word,
                                    const fm_json_t *value, bool *allowed,
                                    fm_error_t *err)
{
    (void)schema;
    (void)err;
    if (fm_json_is(word, FM_JSON_INT) && fm_json_is(value, FM_JSON_INT)) {
        *allowed = fm_json_int_or(value, 0) % fm_json_int_or(word, 1) == 0;
    } else {
        double times = fm_json_real_or(value, 0) / fm_json_real_or(word, 1);
        *allowed = times == floor(times);
    }
    return FM_OK;
}

/* A count within a bound: @p kind has it, others are not meant. */
static fm_status_t count_test(bool meant, size_t count, const fm_json_t *word,
                              bool least, bool *allowed)
{
    double bound = fm_json_real_or(word, 0);

    *allowed =
        !meant || (least ? (double)count >= bound : (double)count <= bound);
    return FM_OK;
}

#define COUNT_TEST(name, meant, count, least)                                  \
    static fm_status_t name(const fm_json_t *schema, const fm_json_t *word,    \
                            const fm_json_t *value, bool *allowed,             \
                            fm_error_t *err)                                   \
    {                                                                          \
        (void)schema;                                                          \
        (void)err;                                                             \
        return count_test(meant, count, word, least, allowed);                 \
    }
COUNT_TEST(test_min_length, fm_json_str(value),
           fm_ops_text_characters(fm_json_str(value), fm_json_str_len(value)),
           true)
COUNT_TEST(test_max_length, fm_json_str(value),
           fm_ops_text_characters(fm_json_str(value), fm_json_str_len(value)),
           false)
COUNT_TEST(test_min_items, fm_json_is(value, FM_JSON_ARRAY), fm_json_len(value),
           true)
COUNT_TEST(test_max_items, fm_json_is(value, FM_JSON_ARRAY), fm_json_len(value),
           false)
COUNT_TEST(test_min_properties, fm_json_is(value, FM_JSON_OBJECT),
           fm_json_len(value), true)
COUNT_TEST(test_max_properties, fm_json_is(value, FM_JSON_OBJECT),
           fm_json_len(value), false)

static fm_status_t pattern_found(const char *pattern_text, size_t pattern_len,
                                 const char *text, size_t len, bool *found_out,
                                 fm_error_t *err)
{
    const fm_ops_pattern_options_t options = {0};
    fm_ops_pattern_t *pattern = NULL;
    fm_status_t rc = fm_ops_pattern_create(pattern_text, pattern_len, &options,
                                           &pattern, err);

    *found_out = false;
    if (rc >= 0) {
        rc = fm_ops_pattern_match(pattern, text, len, 0, 0, found_out, NULL,
                                  NULL, err);
    }
    fm_ops_pattern_destroy(pattern);
    return rc;
}

static fm_status_t test_pattern(const fm_json_t *schema, const fm_json_t *word,
                                const fm_json_t *value, bool *allowed,
                                fm_error_t *err)
{
    (void)schema;
    *allowed = true;
    return fm_json_str(value)
               ? pattern_found(fm_json_str(word), fm_json_str_len(word),
                               fm_json_str(value), fm_json_str_len(value),
                               allowed, err)
               : FM_OK;
}

/* --- lists --------------------------------------------------------------- */

static fm_status_t elements_test(const fm_json_t *schema,
                                 const fm_json_t *value, size_t from,
                                 bool *allowed, fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    for (size_t i = from; rc >= 0 && *allowed && i < fm_json_len(value); i++) {
        rc = fm_ops_schema_allows(schema, fm_json_at(value, i), allowed, err);
    }
    return rc;
}

static fm_status_t test_items(const fm_json_t *schema, const fm_json_t *word,
                              const fm_json_t *value, bool *allowed,
                              fm_error_t *err)
{
    size_t from = fm_json_len(fm_json_get(schema, "prefixItems"));

    *allowed = true;
    return fm_json_is(value, FM_JSON_ARRAY)
               ? elements_test(word, value, from, allowed, err)
               : FM_OK;
}

static fm_status_t test_prefix_items(const fm_json_t *schema,
                                     const fm_json_t *word,
                                     const fm_json_t *value, bool *allowed,
                                     fm_error_t *err)
{
    bool list = fm_json_is(value, FM_JSON_ARRAY);
    fm_status_t rc = FM_OK;

    (void)schema;
    *allowed = true;
    for (size_t i = 0; list && rc >= 0 && *allowed && i < fm_json_len(word) &&
                       i < fm_json_len(value);
         i++) {
        rc = fm_ops_schema_allows(fm_json_at(word, i), fm_json_at(value, i),
                                  allowed, err);
    }
    return rc;
}

static fm_status_t test_contains(const fm_json_t *schema, const fm_json_t *word,
                                 const fm_json_t *value, bool *allowed,
                                 fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    (void)schema;
    *allowed = !fm_json_is(value, FM_JSON_ARRAY);
    for (size_t i = 0; rc >= 0 && !*allowed && i < fm_json_len(value); i++) {
        rc = fm_ops_schema_allows(word, fm_json_at(value, i), allowed, err);
    }
    return rc;
}

static fm_status_t test_unique_items(const fm_json_t *schema,
                                     const fm_json_t *word,
                                     const fm_json_t *value, bool *allowed,
                                     fm_error_t *err)
{
    fm_map_t *seen = NULL;
    fm_status_t rc = FM_OK;

    (void)schema;
    *allowed = true;
    if (!fm_json_bool_or(word, false) || !fm_json_is(value, FM_JSON_ARRAY)) {
        return FM_OK;
    }
    if (!(seen = fm_map_create())) {
        return fm_no_memory(err);
    }
    for (size_t i = 0; rc >= 0 && *allowed && i < fm_json_len(value); i++) {
        char *text = fm_json_canonical(fm_json_at(value, i));
        if (!text) {
            rc = fm_no_memory(err);
            break;
        }
        fm_digest_t digest = fm_sha256(text, strlen(text));
        free(text);
        *allowed = !fm_map_get(seen, &digest);
        rc = fm_map_put(seen, &digest, 1, err);
    }
    fm_map_destroy(seen);
    return rc;
}

/* --- maps ---------------------------------------------------------------- */

static fm_status_t test_required(const fm_json_t *schema, const fm_json_t *word,
                                 const fm_json_t *value, bool *allowed,
                                 fm_error_t *err)
{
    bool map = fm_json_is(value, FM_JSON_OBJECT);

    (void)schema;
    (void)err;
    *allowed = true;
    for (size_t i = 0; map && i < fm_json_len(word); i++) {
        *allowed &=
            fm_json_get(value, fm_json_str(fm_json_at(word, i))) != NULL;
    }
    return FM_OK;
}

static fm_status_t test_properties(const fm_json_t *schema,
                                   const fm_json_t *word,
                                   const fm_json_t *value, bool *allowed,
                                   fm_error_t *err)
{
    void *iterator = NULL;
    const char *name = NULL;
    fm_json_t *inner = NULL;
    bool map = fm_json_is(value, FM_JSON_OBJECT);
    fm_status_t rc = FM_OK;

    (void)schema;
    *allowed = true;
    while (map && rc >= 0 && *allowed &&
           fm_json_next(word, &iterator, &name, &inner)) {
        const fm_json_t *member = fm_json_get(value, name);
        if (member) {
            rc = fm_ops_schema_allows(inner, member, allowed, err);
        }
    }
    return rc;
}

static fm_status_t test_pattern_properties(const fm_json_t *schema,
                                           const fm_json_t *word,
                                           const fm_json_t *value,
                                           bool *allowed, fm_error_t *err)
{
    void *iterator = NULL;
    const char *pattern = NULL;
    fm_json_t *inner = NULL;
    bool map = fm_json_is(value, FM_JSON_OBJECT);
    fm_status_t rc = FM_OK;

    (void)schema;
    *allowed = true;
    while (map && rc >= 0 && fm_json_next(word, &iterator, &pattern, &inner)) {
        void *at = NULL;
        const char *name = NULL;
        fm_json_t *member = NULL;
        while (rc >= 0 && *allowed &&
               fm_json_next(value, &at, &name, &member)) {
            bool found = false;
            rc = pattern_found(pattern, strlen(pattern), name, strlen(name),
                               &found, err);
            if (rc >= 0 && found) {
                rc = fm_ops_schema_allows(inner, member, allowed, err);
            }
        }
    }
    return rc;
}

/* Whether properties or patternProperties speak of @p name. */
static fm_status_t spoken_of(const fm_json_t *schema, const char *name,
                             bool *spoken_out, fm_error_t *err)
{
    const fm_json_t *patterns = fm_json_get(schema, "patternProperties");
    void *iterator = NULL;
    const char *pattern = NULL;
    fm_json_t *inner = NULL;
    fm_status_t rc = FM_OK;

    *spoken_out = fm_json_get(fm_json_get(schema, "properties"), name) != NULL;
    while (patterns && rc >= 0 && !*spoken_out &&
           fm_json_next(patterns, &iterator, &pattern, &inner)) {
        rc = pattern_found(pattern, strlen(pattern), name, strlen(name),
                           spoken_out, err);
    }
    return rc;
}

static fm_status_t test_additional(const fm_json_t *schema,
                                   const fm_json_t *word,
                                   const fm_json_t *value, bool *allowed,
                                   fm_error_t *err)
{
    void *iterator = NULL;
    const char *name = NULL;
    fm_json_t *member = NULL;
    bool map = fm_json_is(value, FM_JSON_OBJECT);
    fm_status_t rc = FM_OK;

    *allowed = true;
    while (map && rc >= 0 && *allowed &&
           fm_json_next(value, &iterator, &name, &member)) {
        bool spoken = false;
        rc = spoken_of(schema, name, &spoken, err);
        if (rc >= 0 && !spoken) {
            rc = fm_ops_schema_allows(word, member, allowed, err);
        }
    }
    return rc;
}

/* --- the table ----------------------------------------------------------- */

static const struct keyword {
    const char *name;
    shape_t shape;
    test_fn test; /* NULL: says nothing by itself */
} keywords[] = {
    {"type", SHAPE_TYPE, test_type},
    {"const", SHAPE_ANY, test_const},
    {"enum", SHAPE_LIST, test_enum},
    {"allOf", SHAPE_SCHEMAS, test_all_of},
    {"anyOf", SHAPE_SCHEMAS, test_any_of},
    {"oneOf", SHAPE_SCHEMAS, test_one_of},
    {"not", SHAPE_SCHEMA, test_not},
    {"if", SHAPE_SCHEMA, test_if},
    {"then", SHAPE_SCHEMA, NULL},
    {"else", SHAPE_SCHEMA, NULL},
    {"minimum", SHAPE_NUMBER, test_minimum},
    {"maximum", SHAPE_NUMBER, test_maximum},
    {"exclusiveMinimum", SHAPE_NUMBER, test_exclusive_minimum},
    {"exclusiveMaximum", SHAPE_NUMBER, test_exclusive_maximum},
    {"multipleOf", SHAPE_POSITIVE, test_multiple_of},
    {"minLength", SHAPE_COUNT, test_min_length},
    {"maxLength", SHAPE_COUNT, test_max_length},
    {"pattern", SHAPE_PATTERN, test_pattern},
    {"items", SHAPE_SCHEMA, test_items},
    {"prefixItems", SHAPE_SCHEMAS, test_prefix_items},
    {"contains", SHAPE_SCHEMA, test_contains},
    {"minItems", SHAPE_COUNT, test_min_items},
    {"maxItems", SHAPE_COUNT, test_max_items},
    {"uniqueItems", SHAPE_BOOL, test_unique_items},
    {"required", SHAPE_NAMES, test_required},
    {"properties", SHAPE_SCHEMA_MAP, test_properties},
    {"patternProperties", SHAPE_PATTERN_MAP, test_pattern_properties},
    {"additionalProperties", SHAPE_SCHEMA, test_additional},
    {"minProperties", SHAPE_COUNT, test_min_properties},
    {"maxProperties", SHAPE_COUNT, test_max_properties},
    {"$schema", SHAPE_ANY, NULL},
    {"$id", SHAPE_ANY, NULL},
    {"$comment", SHAPE_ANY, NULL},
    {"title", SHAPE_ANY, NULL},
    {"description", SHAPE_ANY, NULL},
    {"default", SHAPE_ANY, NULL},
    {"examples", SHAPE_ANY, NULL},
    {"format", SHAPE_ANY, NULL},
    {"deprecated", SHAPE_ANY, NULL},
};

static const struct keyword *keyword_find(const char *name)
{
    for (size_t i = 0; i < FM_COUNT_OF(keywords); i++) {
        if (strcmp(keywords[i].name, name) == 0) {
            return &keywords[i];
        }
    }
    return NULL;
}

fm_status_t fm_ops_schema_allows(const fm_json_t *schema,
                                 const fm_json_t *value, bool *allowed_out,
                                 fm_error_t *err)
{
    void *iterator = NULL;
    const char *name = NULL;
    fm_json_t *word = NULL;
    bool allowed = fm_json_bool_or(schema, true);
    bool map = fm_json_is(schema, FM_JSON_OBJECT);

    while (map && allowed && fm_json_next(schema, &iterator, &name, &word)) {
        const struct keyword *keyword = keyword_find(name);
        if (keyword && keyword->test) {
            fm_status_t rc = keyword->test(schema, word, value, &allowed, err);
            if (rc < 0) {
                return rc;
            }
        }
    }
    *allowed_out = allowed;
    return FM_OK;
}

/* --- checking a schema --------------------------------------------------- */

static fm_status_t schema_check(const fm_json_t *schema, size_t depth,
                                fm_error_t *err);

static fm_status_t pattern_check(const char *text, size_t len, fm_error_t *err)
{
    const fm_ops_pattern_options_t options = {0};
    fm_ops_pattern_t *pattern = NULL;
    fm_status_t rc = fm_ops_pattern_create(text, len, &options, &pattern, err);

    fm_ops_pattern_destroy(pattern);
    return rc;
}

static fm_status_t map_check(const fm_json_t *map, bool patterns, size_t depth,
                             fm_error_t *err)
{
    void *iterator = NULL;
    const char *name = NULL;
    fm_json_t *inner = NULL;
    fm_status_t rc = FM_OK;

    if (!fm_json_is(map, FM_JSON_OBJECT)) {
        return fm_error_set(err, FM_ERR_INVALID, "a map of schemas is needed");
    }
    while (rc >= 0 && fm_json_next(map, &iterator, &name, &inner)) {
        if (patterns) {
            rc = pattern_check(name, strlen(name), err);
        }
        if (rc >= 0) {
            rc = schema_check(inner, depth + 1, err);
        }
        if (rc < 0) {
            fm_error_wrap(err, "%.80s", name);
        }
    }
    return rc;
}

static fm_status_t list_check(const fm_json_t *list, size_t depth,
                              fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    if (!fm_json_is(list, FM_JSON_ARRAY) || fm_json_len(list) == 0) {
        return fm_error_set(err, FM_ERR_INVALID, "a list of schemas is needed");
    }
    for (size_t i = 0; rc >= 0 && i < fm_json_len(list); i++) {
        if ((rc = schema_check(fm_json_at(list, i), depth + 1, err)) < 0) {
            fm_error_wrap(err, "%zu", i);
        }
    }
    return rc;
}

static bool names_ok(const fm_json_t *list, bool types)
{
    static const char *const known[] = {
        "null", "boolean", "integer", "number", "string", "array", "object"};
    bool ok = fm_json_is(list, FM_JSON_ARRAY);

    for (size_t i = 0; ok && i < fm_json_len(list); i++) {
        const char *name = fm_json_str(fm_json_at(list, i));
        bool found = name && !types;
        for (size_t k = 0; name && types && k < FM_COUNT_OF(known); k++) {
            found |= strcmp(name, known[k]) == 0;
        }
        ok = found;
    }
    return ok;
}

static bool type_ok(const fm_json_t *word)
{
    fm_json_t *list = NULL;
    bool ok = false;

    if (fm_json_is(word, FM_JSON_ARRAY)) {
        return names_ok(word, true);
    }
    if ((list = fm_json_array()) &&
        fm_json_append(list, fm_json_keep(word)) >= 0) {
        ok = names_ok(list, true);
    }
    fm_json_drop(list);
    return ok;
}

static fm_status_t word_check(shape_t shape, const fm_json_t *word,
                              size_t depth, fm_error_t *err)
{
    double number = fm_json_real_or(word, -1);
    const char *want = NULL;

    switch (shape) {
    case SHAPE_ANY:
        break;
    case SHAPE_SCHEMA:
        return schema_check(word, depth + 1, err);
    case SHAPE_SCHEMAS:
        return list_check(word, depth, err);
    case SHAPE_SCHEMA_MAP:
    case SHAPE_PATTERN_MAP:
        return map_check(word, shape == SHAPE_PATTERN_MAP, depth, err);
    case SHAPE_PATTERN:
        if (fm_json_str(word)) {
            return pattern_check(fm_json_str(word), fm_json_str_len(word), err);
        }
        want = "a pattern";
        break;
    case SHAPE_NUMBER:
        want = fm_json_is_number(word) ? NULL : "a number";
        break;
    case SHAPE_POSITIVE:
        want = number > 0 ? NULL : "a number above 0";
        break;
    case SHAPE_COUNT:
        want = number >= 0 && number == floor(number) ? NULL : "a count";
        break;
    case SHAPE_BOOL:
        want = fm_json_is(word, FM_JSON_BOOL) ? NULL : "true or false";
        break;
    case SHAPE_NAMES:
        want = names_ok(word, false) ? NULL : "a list of names";
        break;
    case SHAPE_LIST:
        want = fm_json_is(word, FM_JSON_ARRAY) ? NULL : "a list";
        break;
    case SHAPE_TYPE:
        want = type_ok(word) ? NULL
                             : "null, boolean, integer, number, string, array "
                               "or object, or a list of them,";
        break;
    }
    return want ? fm_error_set(err, FM_ERR_INVALID, "%s is needed", want)
                : FM_OK;
}

static fm_status_t schema_check(const fm_json_t *schema, size_t depth,
                                fm_error_t *err)
{
    void *iterator = NULL;
    const char *name = NULL;
    fm_json_t *word = NULL;

    if (depth > DEPTH_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT, "more than %d levels",
                            DEPTH_MAX);
    }
    if (fm_json_is(schema, FM_JSON_BOOL)) {
        return FM_OK;
    }
    if (!fm_json_is(schema, FM_JSON_OBJECT)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "a schema is a map, true or false");
    }
    while (fm_json_next(schema, &iterator, &name, &word)) {
        const struct keyword *keyword = keyword_find(name);
        if (!keyword) {
            return fm_error_set(err, FM_ERR_UNSUPPORTED,
                                "%.80s: this keyword is not understood here",
                                name);
        }
        fm_status_t rc = word_check(keyword->shape, word, depth, err);
        if (rc < 0) {
            fm_error_wrap(err, "%s", name);
            return rc;
        }
    }
    return FM_OK;
}

fm_status_t fm_ops_schema_check(const fm_json_t *schema, fm_error_t *err)
{
    fm_status_t rc = schema_check(schema, 1, err);

    if (rc < 0) {
        fm_error_wrap(err, "schema");
    }
    return rc;
}
