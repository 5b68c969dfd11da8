/* SPDX-License-Identifier: Apache-2.0 */
/* HDF5 files: each line that is read is a JSON value, what is refused says
 * why, and whatever the library does happens to a child. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "store/table/table.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const paths[] = {"t/rows", "t/columns", "plain", "bad"};
    fm_buf_t lines = {0};
    fm_error_t err = {0};
    size_t sum = 0;

    for (size_t i = 0; i < size; i += 97) {
        sum += data[i];
    }
    fm_status_t rc = fm_table_read(data, size, paths[sum % 4], &lines, &err);
    if (rc < 0 && (err.text[0] == '\0' || lines.len > 0)) {
        abort();
    }
    for (size_t at = 0; rc >= 0 && at < lines.len;) {
        const uint8_t *end = memchr(lines.data + at, '\n', lines.len - at);
        fm_json_t *value = NULL;
        size_t len = end ? (size_t)(end - lines.data) - at : 0;
        if (!end || fm_json_parse((const char *)lines.data + at, len, "line",
                                  &value, &err) < 0) {
            abort();
        }
        fm_json_drop(value);
        at += len + 1;
    }
    fm_buf_fini(&lines);
    return 0;
}
