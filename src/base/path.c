/* SPDX-License-Identifier: Apache-2.0 */
/* Rules about file names.  Pure. */
#include "base/path.h"

#include <string.h>

bool fm_path_is_inside(const char *path)
{
    if (!path || strlen(path) > FM_PATH_INSIDE_MAX_BYTES) {
        return false;
    }
    for (;;) {
        size_t len = strcspn(path, "/");
        if (len == 0 || (len == 1 && path[0] == '.') ||
            (len == 2 && path[0] == '.' && path[1] == '.')) {
            return false; /* an empty part: "", "/x", "a//b", "a/" */
        }
        if (!path[len]) {
            return true;
        }
        path += len + 1;
    }
}
