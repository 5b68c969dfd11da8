/* SPDX-License-Identifier: Apache-2.0 */
/* Rewards and conditions: from {"params", "completion", "record", "where"} a
 * finite number or a refusal that says why, the same twice. */
#include "fuzz.h"

#include <math.h>
#include <stdlib.h>

#include "base/json.h"
#include "run/ops/field.h"
#include "run/ops/reward/verify.h"

static void check(bool holds)
{
    if (!holds) {
        abort();
    }
}

static void reward_try(const fm_json_t *input)
{
    const fm_json_t *text = fm_json_get(input, "completion");
    const fm_json_t *record = fm_json_get(input, "record");
    fm_ops_verifier_t *verifier = NULL;
    fm_error_t err = {0};
    double one = NAN, two = NAN;

    if (fm_ops_verifier_create(fm_json_get(input, "params"), &verifier, &err) <
        0) {
        check(!verifier && err.text[0]);
        return;
    }
    if (fm_json_str(text)) {
        fm_status_t rc =
            fm_ops_verify(verifier, fm_json_str(text), fm_json_str_len(text),
                          record, &one, &err);
        check(rc < 0 ? isnan(one) && err.text[0] : isfinite(one));
        check(fm_ops_verify(verifier, fm_json_str(text), fm_json_str_len(text),
                            record, &two, NULL) == rc);
        check(rc < 0 || (one <= two && two <= one));
    }
    fm_ops_verifier_destroy(verifier);
}

static void where_try(const fm_json_t *input)
{
    fm_ops_where_t *where = NULL;
    fm_error_t err = {0};
    bool met = false;

    if (fm_ops_where_create(fm_json_get(input, "where"), &where, &err) < 0) {
        check(!where && err.text[0]);
        return;
    }
    check(fm_ops_where_test(where, fm_json_get(input, "record"), &met, &err) >=
              0 ||
          err.text[0]);
    fm_ops_where_destroy(where);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fm_ops_figure_t figure = {0};
    fm_json_t *input = NULL;
    size_t at = 0, before = 0;

    while (fm_ops_figure_next((const char *)data, size, &at, &figure)) {
        check(isfinite(figure.value) && at > before && at <= size);
        before = at;
    }
    if (fm_json_parse((const char *)data, size, "input", &input, NULL) >= 0) {
        reward_try(input);
        where_try(input);
        fm_json_drop(input);
    }
    return 0;
}
