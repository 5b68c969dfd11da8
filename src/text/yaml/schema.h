/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file schema.h
 * A language as tables: one table a section, one row a key.
 *
 * A row says what a value may be, which variants of the document take it and
 * what it defaults to.  The same rows check the text and fill in what it does
 * not say; an unknown key is an error that names the place and the nearest
 * known one.
 */
#ifndef FM_TEXT_YAML_SCHEMA_H
#define FM_TEXT_YAML_SCHEMA_H

#include "text/yaml/yaml.h"

typedef enum fm_yaml_type {
    FM_YAML_ANY,
    FM_YAML_BOOL,
    FM_YAML_INT,
    FM_YAML_REAL,
    FM_YAML_TEXT,
    FM_YAML_LIST,
    FM_YAML_MAP,     /* free-form */
    FM_YAML_SECTION, /* a map with a table of its own */
    FM_YAML_REFUSED  /* part of the language, not of this version */
} fm_yaml_type_t;

typedef struct fm_yaml_key {
    const char *name;
    fm_yaml_type_t type;
    double min, max;     /* FM_YAML_INT, FM_YAML_REAL; inclusive */
    const char *choices; /* FM_YAML_TEXT: "a|b|c", else NULL */
    const struct fm_yaml_section *section;
    const char *fallback; /* default as JSON text; NULL: none */
    int variants;         /* task types that take it, as bits; 0: all */
    bool hint;            /* the result does not depend on it */
    bool nullable;        /* null may be written: none */
    const char *same_as;  /* a second spelling of that key */
    const char *why;      /* FM_YAML_REFUSED: the mend */
} fm_yaml_key_t;

typedef struct fm_yaml_section {
    const char *name;
    const fm_yaml_key_t *keys;
    size_t count;
} fm_yaml_section_t;

/** Whether a string may stand for a value of any type. */
typedef bool fm_yaml_passes_fn(const char *text);

/** The row of @p name that @p variant takes; else one that others
 *  take; NULL when there is none. */
const fm_yaml_key_t *fm_yaml_key_find(const fm_yaml_section_t *section,
                                      const char *name, int variant);
/** Value of @p key in @p map under either spelling; NULL when absent. */
const fm_yaml_value_t *fm_yaml_get_either(const fm_yaml_section_t *section,
                                          const fm_yaml_value_t *map,
                                          const char *key);
const fm_json_t *fm_yaml_json_either(const fm_yaml_section_t *section,
                                     const fm_json_t *map, const char *key);
/**
 * Hold @p json against @p section, recursively.
 *
 * @param json    the values: those of @p tree, or what they resolve to.
 * @param tree    where they were written; same shape but for references.
 * @param path    for error text, such as "training"; "" at the root.
 * @param variant  bit; a key that it does not take is an error.
 * @param passes   strings that pass as any type; NULL: none.
 */
FM_MUST_USE fm_status_t fm_yaml_check(const fm_yaml_section_t *section,
                                      const fm_json_t *json,
                                      const fm_yaml_value_t *tree,
                                      const char *path, int variant,
                                      fm_yaml_passes_fn *passes,
                                      const fm_yaml_source_t *source);

/**
 * Copy @p json with every default filled in, hints and sections left out,
 * integers in real keys turned into reals.
 * @param json  checked; may be NULL: all defaults.
 * @return new reference; NULL when memory is out.
 */
FM_MUST_USE fm_json_t *fm_yaml_fill(const fm_yaml_section_t *section,
                                    const fm_json_t *json, int variant);

#endif
