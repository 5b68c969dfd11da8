/* SPDX-License-Identifier: Apache-2.0 */
/** @file scratch.h  A directory of a test's own, below $TMPDIR or /tmp. */
#ifndef SCRATCH_H
#define SCRATCH_H

#include <stdlib.h>

#include "base/file.h"
#include "base/mem.h"
#include "fmtest.h"

/** A fresh, empty directory; give its path to scratch_remove(). */
static inline char *scratch_make(void)
{
    const char *base = getenv("TMPDIR");
    char *path = fm_asprintf("%s/fm-test-XXXXXX", base ? base : "/tmp");

    CU_ASSERT_FATAL(path && mkdtemp(path) == path);
    return path;
}

/** rm -r, and free the path. */
static inline void scratch_remove(char *path)
{
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_file_remove_tree(path, &err), &err);
    free(path);
}

#endif
