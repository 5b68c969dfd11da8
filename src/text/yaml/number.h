/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file number.h
 * Numbers among the members of a checked map: plain, durations, sizes.
 *
 *   duration  seconds as a number, or text such as 90s, 15m, 1h30m, 2d, 50ms
 *   size      bytes as a number, or text such as 80G, 22Gi, 512MiB, 300GB
 *
 * Threads: any.
 */
#ifndef FM_TEXT_YAML_NUMBER_H
#define FM_TEXT_YAML_NUMBER_H

#include "text/yaml/yaml.h"

#define FM_YAML_SECONDS_MAX 1e9
#define FM_YAML_BYTES_MAX 1e15

/** The member as a number; @p fallback where it is absent or no number. */
double fm_yaml_real(const fm_yaml_value_t *map, const char *key,
                    double fallback);
int64_t fm_yaml_int(const fm_yaml_value_t *map, const char *key,
                    int64_t fallback);
bool fm_yaml_bool(const fm_yaml_value_t *map, const char *key, bool fallback);
/**
 * A duration in seconds, 0 to FM_YAML_SECONDS_MAX.
 * @param out  [out] untouched where @p key is absent, and on failure.
 * @retval FM_ERR_INVALID  the text names the place and what is allowed.
 */
FM_MUST_USE fm_status_t fm_yaml_seconds(const fm_yaml_value_t *map,
                                        const char *key, double *out,
                                        const fm_yaml_source_t *source);
/** A size in bytes, 0 to FM_YAML_BYTES_MAX; else as fm_yaml_seconds(). */
FM_MUST_USE fm_status_t fm_yaml_bytes(const fm_yaml_value_t *map,
                                      const char *key, double *out,
                                      const fm_yaml_source_t *source);
/** The duration that @p value is; -1 where it is none. */
double fm_yaml_seconds_of(const fm_yaml_value_t *value);
/** A size as text, such as "22Gi"; negative where it is none. */
double fm_yaml_bytes_of(const char *text);

#endif
