/* SPDX-License-Identifier: Apache-2.0 */
/* Reading checked members of a scenario: maps, lists, names. */
#include <stdlib.h>
#include <string.h>

#include "role/scenario/internal.h"

fm_status_t fm_scenario_check(const reader_t *r,
                              const fm_yaml_section_t *section,
                              const fm_yaml_value_t *map, const char *what)
{
    const fm_json_t *json = NULL;

    if (map->type != FM_JSON_OBJECT) {
        return fm_yaml_fail(&r->source, map->line, map->column, FM_ERR_INVALID,
                            "%s is no map; allowed: a map of its keys",
                            *what ? what : section->name);
    }
    if (!(json = fm_yaml_json(&r->scenario->arena, map))) {
        return fm_no_memory(r->source.err);
    }
    return fm_yaml_check(section, json, map, what, 0, NULL, &r->source);
}

fm_status_t fm_scenario_list(const reader_t *r, const fm_yaml_value_t *list,
                             const char *what, size_t most, size_t *count_out)
{
    size_t count = list && list->type == FM_JSON_ARRAY ? list->count : 0;

    if (count > most) {
        return fm_yaml_fail(&r->source, list->line, list->column, FM_ERR_LIMIT,
                            "%zu %s; allowed: at most %zu", count, what, most);
    }
    *count_out = count;
    return FM_OK;
}

fm_status_t fm_scenario_unknown(const reader_t *r, const fm_yaml_value_t *at,
                                const char *what, const char *const *names,
                                size_t count)
{
    char hint[192];
    const char *found = fm_scenario_written(at);

    return fm_yaml_fail(
        &r->source, at->line, at->column, FM_ERR_INVALID,
        "no %s is called %.80s%s", what, found,
        fm_yaml_suggest(found, names, count, hint, sizeof(hint)));
}

const char *fm_scenario_written(const fm_yaml_value_t *value)
{
    return value && value->text ? value->text : "";
}

void *fm_scenario_alloc(const reader_t *r, size_t count, size_t bytes)
{
    void *block =
        fm_yaml_alloc(&r->scenario->arena, (count ? count : 1) * bytes);

    if (!block) {
        (void)fm_no_memory(r->source.err);
    }
    return block;
}
