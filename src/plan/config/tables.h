/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of docs/spec/fabric.md; of plan/config alone. */
#ifndef FM_PLAN_CONFIG_TABLES_H
#define FM_PLAN_CONFIG_TABLES_H

#include "text/yaml/schema.h"

extern const fm_yaml_section_t fm_config_root;
extern const fm_yaml_section_t fm_config_class; /* an element of classes */
extern const fm_yaml_section_t fm_config_tenant;

/** Ablations that `without` may name. */
#define FM_CONFIG_WITHOUT "batching|locality|consolidation|fair_share"

#endif
