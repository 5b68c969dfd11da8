/* SPDX-License-Identifier: Apache-2.0 */
#include "base/mem.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"

void *fm_malloc(size_t bytes)
{
    return fm_fault("base.alloc") ? NULL : malloc(bytes ? bytes : 1);
}

void *fm_calloc(size_t count, size_t bytes)
{
    return fm_fault("base.alloc")
               ? NULL
               : calloc(count ? count : 1, bytes ? bytes : 1);
}

void *fm_realloc(void *block, size_t count, size_t bytes)
{
    if (fm_fault("base.alloc") || (bytes && count > SIZE_MAX / bytes)) {
        return NULL;
    }
    size_t total = count * bytes;
    return realloc(block, total ? total : 1);
}

char *fm_strndup(const char *text, size_t len)
{
    char *copy = fm_malloc(len + 1);

    if (copy) {
        memcpy(copy, text, len);
        copy[len] = '\0';
    }
    return copy;
}

char *fm_strdup(const char *text)
{
    return fm_strndup(text, strlen(text));
}

char *fm_asprintf(const char *format, ...)
{
    va_list args;
    va_list again;
    char *text = NULL;

    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    if (n >= 0 && (text = fm_malloc((size_t)n + 1))) {
        (void)vsnprintf(text, (size_t)n + 1, format, again);
    }
    va_end(again);
    va_end(args);
    return text;
}

fm_status_t fm_grow(void *array, size_t *capacity, size_t count, size_t bytes,
                    fm_error_t *err)
{
    if (count < *capacity) {
        return FM_OK;
    }
    size_t wanted = *capacity ? *capacity * 2 : 8;
    void *block = NULL;
    void *grown = NULL;

    memcpy(&block, array, sizeof(block));
    if (wanted < *capacity || !(grown = fm_realloc(block, wanted, bytes))) {
        return fm_no_memory(err);
    }
    memcpy(array, &grown, sizeof(grown));
    *capacity = wanted;
    return FM_OK;
}

#undef fm_no_memory /* the analyser sees a macro (mem.h) */
fm_status_t fm_no_memory(fm_error_t *err)
{
    return fm_error_set(err, FM_ERR_NO_MEMORY, "out of memory");
}
