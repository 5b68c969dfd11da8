/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file rows.h
 * What the rows of tables.c and tables_tasks.c share.
 */
#ifndef FM_PLAN_WORKFLOW_ROWS_H
#define FM_PLAN_WORKFLOW_ROWS_H

#include "plan/workflow/schema.h"
#include "text/yaml/rows.h"

#define TUNING_TERMS (FM_WF_TUNING | FM_WF_LOGPROBS)

#define SEED_MAX 9007199254740991.0 /* 2^53 − 1: exact in every JSON reader */

#endif
