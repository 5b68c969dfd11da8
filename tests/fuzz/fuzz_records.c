/* SPDX-License-Identifier: Apache-2.0 */
/* Data files: what is read has the shape its format gives; what is refused
 * says where. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "run/ops/data/records.h"

/* The first byte says the format, the second the window, whose start moves
 * back up to three bytes, to the start of a character. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const formats[] = {"csv", "jsonl", "text", "text"};
    unsigned which = size > 0 ? data[0] % 4u : 0;
    size_t window = which == 3 && size > 2 ? data[1] % 32u + 1 : 0;
    size_t skip = size > 2 ? 2 : size;
    fm_json_t *list = fm_json_array();
    fm_error_t err = {0};
    size_t columns = 0;

    fm_status_t rc =
        fm_ops_records_parse(formats[which], (const char *)data + skip,
                             size - skip, window, window / 2 + 1, list, &err);
    if (rc < 0 && err.text[0] == '\0') {
        abort();
    }
    for (size_t i = 0; rc >= 0 && i < fm_json_len(list); i++) {
        const fm_json_t *record = fm_json_at(list, i);
        if (which == 0) {
            columns = i ? columns : fm_json_len(record);
            if (!fm_json_is(record, FM_JSON_OBJECT) ||
                fm_json_len(record) != columns) {
                abort();
            }
        } else if (which > 1 &&
                   (!fm_json_str(record) ||
                    (window && fm_json_str_len(record) > window + 3))) {
            abort();
        }
    }
    fm_json_drop(list);
    return 0;
}
