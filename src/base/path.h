/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file path.h
 * Rules about file names as text; nothing here looks at a file system.
 */
#ifndef FM_BASE_PATH_H
#define FM_BASE_PATH_H

#include <stdbool.h>

/* Leaves room for a work directory before it within PATH_MAX. */
#define FM_PATH_INSIDE_MAX_BYTES 1024

/**
 * @p path names something below the directory it is joined to: relative, at
 * most FM_PATH_INSIDE_MAX_BYTES, and every part a name, so no "", "." or "..",
 * and no "/" at the end.  False for NULL.  Symbolic links are not its matter.
 */
bool fm_path_is_inside(const char *path);

#endif
