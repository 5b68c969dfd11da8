/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file rows.h
 * Rows of a table of keys in short; for the files that hold such tables.
 */
#ifndef FM_TEXT_YAML_ROWS_H
#define FM_TEXT_YAML_ROWS_H

#include "base/mem.h"
#include "text/yaml/schema.h"

#define BIG 1e9 /* counts: nothing real reaches it */

#define ANY(n) .name = (n), .type = FM_YAML_ANY
#define BOOL(n) .name = (n), .type = FM_YAML_BOOL
#define INT(n, lo, hi)                                                         \
    .name = (n), .type = FM_YAML_INT, .min = (lo), .max = (hi)
#define REAL(n, lo, hi)                                                        \
    .name = (n), .type = FM_YAML_REAL, .min = (lo), .max = (hi)
#define TEXT(n) .name = (n), .type = FM_YAML_TEXT
#define LIST(n) .name = (n), .type = FM_YAML_LIST
#define MAP(n) .name = (n), .type = FM_YAML_MAP
#define SECTION(n, s) .name = (n), .type = FM_YAML_SECTION, .section = &(s)
#define REFUSED(n, w) .name = (n), .type = FM_YAML_REFUSED, .why = (w)
#define TABLE(symbol, title, rows)                                             \
    const fm_yaml_section_t symbol = {title, rows, FM_COUNT_OF(rows)}

#endif
