/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading parameters with ranges, and values that live in the store.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "run/ops/internal.h"

static bool absent(const fm_json_t *value)
{
    return !value || fm_json_is(value, FM_JSON_NULL);
}

fm_status_t fm_ops_get_int(const fm_json_t *object, const char *key,
                           int64_t low, int64_t high, int64_t fallback,
                           int64_t *out, fm_error_t *err)
{
    const fm_json_t *value = fm_json_get(object, key);
    int64_t number = absent(value) ? fallback : fm_json_int_or(value, low);

    if ((!absent(value) && !fm_json_is(value, FM_JSON_INT)) || number < low ||
        number > high) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "%s: an integer from %lld to %lld is allowed", key,
                            (long long)low, (long long)high);
    }
    *out = number;
    return FM_OK;
}

fm_status_t fm_ops_get_real(const fm_json_t *object, const char *key,
                            double low, double high, double fallback,
                            double *out, fm_error_t *err)
{
    const fm_json_t *value = fm_json_get(object, key);
    double number = absent(value) ? fallback : fm_json_real_or(value, low);

    if ((!absent(value) && !fm_json_is_number(value)) ||
        !(number >= low && number <= high)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "%s: a number from %g to %g is allowed", key, low,
                            high);
    }
    *out = number;
    return FM_OK;
}

fm_status_t fm_ops_get_text(const fm_json_t *object, const char *key,
                            const char *fallback, const char **out,
                            fm_error_t *err)
{
    const fm_json_t *value = fm_json_get(object, key);
    const char *text = absent(value) ? fallback : fm_json_str(value);

    if (!text || (!absent(value) && strlen(text) != fm_json_str_len(value))) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "%s: a text without NUL is needed", key);
    }
    *out = text;
    return FM_OK;
}

fm_status_t fm_ops_get_bool(const fm_json_t *object, const char *key,
                            bool fallback, bool *out, fm_error_t *err)
{
    const fm_json_t *value = fm_json_get(object, key);

    if (!absent(value) && !fm_json_is(value, FM_JSON_BOOL)) {
        return fm_error_set(err, FM_ERR_INVALID, "%s: true or false is allowed",
                            key);
    }
    *out = absent(value) ? fallback : fm_json_bool_or(value, fallback);
    return FM_OK;
}

fm_status_t fm_ops_get_digest(const fm_json_t *object, const char *key,
                              fm_digest_t *out, fm_error_t *err)
{
    const char *text = fm_json_get_str(object, key);

    if (!text || !fm_digest_parse(text, out)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "%s: \"sha256:\" and 64 hexadecimal digits are "
                            "needed",
                            key);
    }
    return FM_OK;
}

fm_status_t fm_ops_resolve(fm_cas_t *cas, const fm_json_t *value,
                           fm_json_t **value_out, fm_error_t *err)
{
    const char *text = fm_json_get_str(value, "$object");
    const char *locator_text = fm_json_get_str(value, "locator");
    fm_cas_locator_t locator;
    fm_digest_t digest;
    fm_buf_t bytes = {0};
    uint64_t size = 0;
    fm_status_t rc;

    if (!text) {
        *value_out = value ? fm_json_keep(value) : fm_json_null();
        return *value_out ? FM_OK : fm_no_memory(err);
    }
    if (!fm_digest_parse(text, &digest)) {
        return fm_error_set(err, FM_ERR_INVALID, "$object: %.80s is no digest",
                            text);
    }
    if (locator_text && fm_cas_locator_parse(locator_text, &locator)) {
        /* A hint: when it is stale the search below decides. */
        (void)!fm_cas_learn(cas, &digest, &locator, NULL);
    }
    if (fm_cas_size(cas, &digest, NULL, &size) && size > OPS_VALUE_BYTES_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "$object: a value of %llu bytes; at most %zu",
                            (unsigned long long)size, OPS_VALUE_BYTES_MAX);
    }
    if ((rc = fm_cas_get(cas, &digest, &bytes, err)) >= 0) {
        rc = fm_json_parse((const char *)bytes.data, bytes.len, text, value_out,
                           err);
    }
    fm_buf_fini(&bytes);
    return rc;
}
