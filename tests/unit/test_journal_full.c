/* SPDX-License-Identifier: Apache-2.0 */
/* store/journal on a disk that is really full: a tmpfs of 256 KiB.  Skipped
 * (77) where this process may not mount. */
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "base/mem.h"
#include "fmtest.h"
#include "store/journal/journal.h"

static char dir[64];

struct count {
    uint64_t records;
};

static fm_status_t on_record(void *ctx, const fm_journal_record_t *record,
                             fm_error_t *err)
{
    struct count *count = ctx;

    (void)err;
    count->records += record->type == 20;
    return FM_OK;
}

static void test_full_disk(void)
{
    static const uint8_t bytes[1000];
    fm_error_t err = {0};
    fm_journal_t *journal = NULL;
    struct count count = {0};
    uint64_t acknowledged = 0;
    fm_status_t rc = FM_OK;

    FM_ASSERT_OK(fm_journal_open(dir, NULL, NULL, NULL, &journal, &err), &err);
    for (int i = 0; rc >= 0 && i < 1000; i++) {
        rc = fm_journal_append(journal, 20, bytes, sizeof(bytes), NULL, &err);
        if (rc >= 0 && (rc = fm_journal_flush(journal, &err)) >= 0) {
            acknowledged++;
        }
    }
    CU_ASSERT(rc == FM_ERR_FULL);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "No space left"));
    CU_ASSERT(acknowledged > 100 && acknowledged < 300);
    CU_ASSERT(fm_journal_append(journal, 20, "x", 1, NULL, &err) == FM_ERR_IO);
    fm_journal_close(journal);
    const fm_journal_options_t read_only = {.read_only = true};
    FM_ASSERT_OK(
        fm_journal_open(dir, &read_only, on_record, &count, &journal, &err),
        &err);
    CU_ASSERT(count.records == acknowledged);
    CU_ASSERT(fm_journal_info(journal).torn_bytes > 0);
    fm_journal_close(journal);
}

int main(void)
{
    static const fm_test_case_t cases[] = {{"full disk", test_full_disk}};

    (void)snprintf(dir, sizeof(dir), "/tmp/fm-journal-full-XXXXXX");
    if (!mkdtemp(dir)) {
        perror("mkdtemp");
        return 2;
    }
    if (mount("tmpfs", dir, "tmpfs", 0, "size=256k") != 0) {
        perror("skipped: mount tmpfs");
        (void)rmdir(dir);
        return 77;
    }
    int rc = fm_test_main("store/journal full", cases, FM_COUNT_OF(cases));
    (void)umount(dir);
    (void)rmdir(dir);
    return rc;
}
