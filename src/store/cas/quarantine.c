/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The quarantine file: one line a damaged copy, "<segment> sha256:<hex>", or
 * "<segment> *" for a whole segment.  It only grows while its segments exist;
 * two verifiers at once may lose a line, which the next verify finds again.
 * Replaced whole; a line that does not parse makes the file an error, since
 * skipping it would trust what was found damaged.
 */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "store/cas/store.h"

/* 100,000 damaged objects: past that the segment should be removed. */
#define QUARANTINE_BYTES_MAX ((size_t)16 << 20)
#define LINE_BYTES 192 /* 95 of the segment, a space, 71 of the digest */

static char *quarantine_path(const fm_cas_t *cas)
{
    return fm_asprintf("%s/quarantine", cas->dir);
}

static void line_format(char *line, const char *segment,
                        const fm_digest_t *digest)
{
    size_t len = strlen(segment);

    memcpy(line, segment, len);
    line[len] = ' ';
    if (digest) {
        (void)fm_digest_format(digest, line + len + 1);
    } else {
        memcpy(line + len + 1, "*", 2);
    }
}

static bool line_valid(char *line)
{
    char *space = strchr(line, ' ');
    fm_digest_t digest;

    if (!space) {
        return false;
    }
    *space = '\0';
    bool ok = fm_cas_segment_name_valid(line);
    *space = ' ';
    return ok &&
           (strcmp(space + 1, "*") == 0 || fm_digest_parse(space + 1, &digest));
}

static fm_status_t quarantine_parse(const fm_cas_t *cas, fm_strmap_t *lines,
                                    fm_buf_t *text, fm_error_t *err)
{
    size_t number = 1;
    size_t at = 0;
    fm_status_t rc = FM_OK;

    for (; at < text->len && rc >= 0; number++) {
        char line[LINE_BYTES];
        const uint8_t *start = text->data + at;
        const uint8_t *end = memchr(start, '\n', text->len - at);
        size_t len = end ? (size_t)(end - start) : sizeof(line);
        if (len < sizeof(line)) {
            memcpy(line, start, len);
            line[len] = '\0';
        }
        if (len >= sizeof(line) || strlen(line) != len || !line_valid(line)) {
            return fm_error_set(err, FM_ERR_CORRUPT,
                                "%s/quarantine:%zu: expected \"<segment> "
                                "<digest or *>\"; correct or remove the line, "
                                "then run `flowmesh cas verify --quarantine`",
                                cas->dir, number);
        }
        rc = fm_strmap_put(lines, line, 1, err);
        at += len + 1;
    }
    return rc;
}

fm_status_t fm_cas_quarantine_load(fm_cas_t *cas, fm_error_t *err)
{
    fm_buf_t text = {0};
    char *path = quarantine_path(cas);
    fm_status_t rc = path ? fm_file_read(path, QUARANTINE_BYTES_MAX, &text, err)
                          : fm_no_memory(err);

    if (rc == FM_ERR_NOT_FOUND) {
        rc = FM_OK;
    } else if (rc >= 0) {
        rc = quarantine_parse(cas, cas->quarantine, &text, err);
    }
    free(path);
    fm_buf_fini(&text);
    return rc;
}

bool fm_cas_quarantine_has(const fm_cas_t *cas, const char *segment,
                           const fm_digest_t *digest)
{
    char line[LINE_BYTES];

    if (fm_strmap_count(cas->quarantine) == 0) {
        return false;
    }
    line_format(line, segment, digest);
    return fm_strmap_get(cas->quarantine, line) != NULL;
}

fm_status_t fm_cas_quarantine_add(fm_cas_t *cas, const char *segment,
                                  const fm_digest_t *digest, fm_error_t *err)
{
    char line[LINE_BYTES];

    line_format(line, segment, digest);
    return fm_strmap_put(cas->quarantine, line, 1, err);
}

fm_status_t fm_cas_quarantine_save(fm_cas_t *cas, fm_error_t *err)
{
    const char *line = NULL;
    uint64_t value = 0;
    size_t cursor = 0;
    fm_buf_t text = {0};
    char *path = quarantine_path(cas);
    fm_status_t rc =
        path ? fm_cas_quarantine_load(cas, err) : fm_no_memory(err);

    while (rc >= 0 && fm_strmap_next(cas->quarantine, &cursor, &line, &value)) {
        fm_buf_printf(&text, "%s\n", line);
    }
    if (rc >= 0 && text.failed) {
        rc = fm_no_memory(err);
    }
    if (rc >= 0) {
        rc = fm_file_replace(path, text.data, text.len, err);
    }
    free(path);
    fm_buf_fini(&text);
    return rc;
}
