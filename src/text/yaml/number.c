/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers with units.  Digits and one point, no sign, no exponent: nothing of
 * what strtod() also takes ("inf", "0x1p3") is a duration. */
#include "text/yaml/number.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DIGITS_MAX 18u

double fm_yaml_real(const fm_yaml_value_t *map, const char *key,
                    double fallback)
{
    const fm_yaml_value_t *value = fm_yaml_get(map, key);

    return !value                        ? fallback
           : value->type == FM_JSON_INT  ? (double)value->integer
           : value->type == FM_JSON_REAL ? value->real
                                         : fallback;
}

int64_t fm_yaml_int(const fm_yaml_value_t *map, const char *key,
                    int64_t fallback)
{
    const fm_yaml_value_t *value = fm_yaml_get(map, key);

    return value && value->type == FM_JSON_INT ? value->integer : fallback;
}

bool fm_yaml_bool(const fm_yaml_value_t *map, const char *key, bool fallback)
{
    const fm_yaml_value_t *value = fm_yaml_get(map, key);

    return value && value->type == FM_JSON_BOOL ? value->boolean : fallback;
}

/* The number at the start of @p text, which is moved past it; NaN: none. */
static double leading_number(const char **text)
{
    size_t digits = strspn(*text, "0123456789.");
    char *end = NULL;

    if (digits == 0 || digits > DIGITS_MAX) {
        return NAN;
    }
    double number = strtod(*text, &end);
    /* "1e5": strtod() would go on past the digits; "1.2.3": end before */
    if (end != *text + digits) {
        return NAN;
    }
    *text = end;
    return number;
}

static double parse_seconds(const char *text)
{
    static const struct {
        const char *name;
        double seconds;
    } units[] = {{"ms", 1e-3}, {"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}};
    double total = 0;

    do {
        double count = leading_number(&text);
        double unit = NAN;
        for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
            size_t len = strlen(units[i].name);
            if (strncmp(text, units[i].name, len) == 0) {
                unit = units[i].seconds;
                text += len;
                break;
            }
        }
        total += count * unit;
    } while (isfinite(total) && *text);
    return total;
}

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

static fm_status_t read_unit(const fm_yaml_value_t *map, const char *key,
                             double (*parse)(const char *text), double most,
                             const char *allowed, double *out,
                             const fm_yaml_source_t *source)
{
    const fm_yaml_value_t *value = fm_yaml_get(map, key);
    double number = NAN;

    if (!value) {
        return FM_OK;
    }
    number = value->type == FM_JSON_STRING ? parse(value->text)
                                           : fm_yaml_real(map, key, NAN);
    if (!(number >= 0 && number <= most)) {
        return fm_yaml_fail(source, value->line, value->column, FM_ERR_INVALID,
                            "%s is %.60s; allowed: %s", key,
                            value->text ? value->text : "no number", allowed);
    }
    *out = number;
    return FM_OK;
}

fm_status_t fm_yaml_seconds(const fm_yaml_value_t *map, const char *key,
                            double *out, const fm_yaml_source_t *source)
{
    return read_unit(map, key, parse_seconds, FM_YAML_SECONDS_MAX,
                     "seconds from 0 to 1e9, such as 90, 50ms, 15m, 1h30m", out,
                     source);
}

fm_status_t fm_yaml_bytes(const fm_yaml_value_t *map, const char *key,
                          double *out, const fm_yaml_source_t *source)
{
    return read_unit(map, key, parse_bytes, FM_YAML_BYTES_MAX,
                     "bytes from 0 to 1e15, such as 22Gi, 80G, 512Mi", out,
                     source);
}

double fm_yaml_seconds_of(const fm_yaml_value_t *value)
{
    double seconds = value->type == FM_JSON_STRING ? parse_seconds(value->text)
                     : value->type == FM_JSON_INT  ? (double)value->integer
                     : value->type == FM_JSON_REAL ? value->real
                                                   : -1;

    return seconds >= 0 && seconds <= FM_YAML_SECONDS_MAX ? seconds : -1;
}

double fm_yaml_bytes_of(const char *text)
{
    double bytes = parse_bytes(text);

    return bytes >= 0 && bytes <= FM_YAML_BYTES_MAX ? bytes : -1;
}
