/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file rows.h
 * Rows of the tables in short, for tables.c and tables_tasks.c.
 */
#ifndef FM_PLAN_WORKFLOW_ROWS_H
#define FM_PLAN_WORKFLOW_ROWS_H

#include "base/mem.h"
#include "plan/workflow/schema.h"

#define TUNING_TERMS (FM_WF_TUNING | FM_WF_LOGPROBS)

#define BIG 1e9                     /* counts: no run reaches it */
#define SEED_MAX 9007199254740991.0 /* 2^53 − 1: exact in every JSON reader */

#define ANY(n) .name = (n), .type = FM_WF_ANY
#define BOOL(n) .name = (n), .type = FM_WF_BOOL
#define INT(n, lo, hi) .name = (n), .type = FM_WF_INT, .min = (lo), .max = (hi)
#define REAL(n, lo, hi)                                                        \
    .name = (n), .type = FM_WF_REAL, .min = (lo), .max = (hi)
#define TEXT(n) .name = (n), .type = FM_WF_TEXT
#define LIST(n) .name = (n), .type = FM_WF_LIST
#define MAP(n) .name = (n), .type = FM_WF_MAP
#define SECTION(n, s) .name = (n), .type = FM_WF_SECTION, .section = &(s)
#define REFUSED(n, w) .name = (n), .type = FM_WF_REFUSED, .why = (w)
#define TABLE(symbol, title, rows)                                             \
    const fm_wf_section_t symbol = {title, rows, FM_COUNT_OF(rows)}

#endif
