/* SPDX-License-Identifier: Apache-2.0 */
/* Reading checked members of a scenario: numbers, durations, sizes, names. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "role/scenario/internal.h"

#define SECONDS_MAX 1e9
#define BYTES_MAX 1e15

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

double fm_scenario_real(const fm_yaml_value_t *map, const char *key,
                        double fallback)
{
    const fm_yaml_value_t *value = fm_yaml_get(map, key);

    return !value                        ? fallback
           : value->type == FM_JSON_INT  ? (double)value->integer
           : value->type == FM_JSON_REAL ? value->real
                                         : fallback;
}

int64_t fm_scenario_int(const fm_yaml_value_t *map, const char *key,
                        int64_t fallback)
{
    const fm_yaml_value_t *value = fm_yaml_get(map, key);

    return value && value->type == FM_JSON_INT ? value->integer : fallback;
}

bool fm_scenario_bool(const fm_yaml_value_t *map, const char *key,
                      bool fallback)
{
    const fm_yaml_value_t *value = fm_yaml_get(map, key);

    return value && value->type == FM_JSON_BOOL ? value->boolean : fallback;
}

/* A number at the start of @p text without sign; NaN when there is none. */
static double leading_number(const char **text)
{
    size_t digits = strspn(*text, "0123456789.");
    char *end = NULL;

    if (digits == 0 || digits > 18) {
        return NAN;
    }
    double number = strtod(*text, &end);
    if (end != *text + digits) {
        return NAN;
    }
    *text = end;
    return number;
}

/* "1h30m", "45s"; NaN when it is something else. */
static double parse_seconds(const char *text)
{
    double total = 0;

    do {
        double count = leading_number(&text);
        double unit = *text == 's'   ? 1
                      : *text == 'm' ? 60
                      : *text == 'h' ? 3600
                      : *text == 'd' ? 86400
                                     : NAN;
        total += count * unit;
    } while (isfinite(total) && *++text);
    return total;
}

/* "22Gi", "80G", "512Mi"; NaN when it is something else. */
static double parse_bytes(const char *text)
{
    static const char prefixes[] = "KMGT";
    double count = leading_number(&text);
    const char *prefix = *text ? strchr(prefixes, *text) : NULL;

    if (!prefix) {
        return *text ? NAN : count;
    }
    double step = text[1] == 'i' ? 1024 : 1000;
    text += text[1] == 'i' ? 2 : 1;
    return strcmp(text, "") == 0 || strcmp(text, "B") == 0
               ? count * pow(step, (double)(prefix - prefixes + 1))
               : NAN;
}

static fm_status_t read_unit(const reader_t *r, const fm_yaml_value_t *map,
                             const char *key, double (*parse)(const char *text),
                             double most, const char *allowed, double *out)
{
    const fm_yaml_value_t *value = fm_yaml_get(map, key);
    double number = NAN;

    if (!value) {
        return FM_OK;
    }
    if (value->type == FM_JSON_STRING) {
        number = parse(value->text);
    } else {
        number = fm_scenario_real(map, key, NAN);
    }
    if (!(number >= 0 && number <= most)) {
        return fm_yaml_fail(&r->source, value->line, value->column,
                            FM_ERR_INVALID, "%s is %.60s; allowed: %s", key,
                            value->text ? value->text : "no number", allowed);
    }
    *out = number;
    return FM_OK;
}

fm_status_t fm_scenario_seconds(const reader_t *r, const fm_yaml_value_t *map,
                                const char *key, double *out)
{
    return read_unit(r, map, key, parse_seconds, SECONDS_MAX,
                     "seconds from 0 to 1e9, such as 90, 15m, 1h30m", out);
}

fm_status_t fm_scenario_bytes(const reader_t *r, const fm_yaml_value_t *map,
                              const char *key, double *out)
{
    return read_unit(r, map, key, parse_bytes, BYTES_MAX,
                     "bytes from 0 to 1e15, such as 22Gi, 80G, 512Mi", out);
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
