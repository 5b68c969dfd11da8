/* SPDX-License-Identifier: Apache-2.0 */
/* store/cas: every damaged byte is found, and what is lost can be put again. */
#include "test_cas_util.h"

#include <sys/stat.h>

#define OBJECT_COUNT 6

static const size_t sizes[OBJECT_COUNT] = {0, 1, 100, 3000, 65536, 70000};

/* A store of one segment: packed objects, a blob, a tensor. */
struct sample {
    char *dir;
    char *path; /* of the segment */
    fm_digest_t digests[OBJECT_COUNT + 1];
    fm_buf_t bytes; /* of the segment, whole */
};

static void sample_make(struct sample *sample, size_t object_count)
{
    fm_error_t err = {0};
    const uint64_t shape[2] = {4, 5};

    memset(sample, 0, sizeof(*sample));
    sample->dir = scratch_make();
    fm_cas_t *cas = store_open(sample->dir, "d-1");
    for (size_t i = 0; i < object_count; i++) {
        sample->digests[i] = put_seeded(cas, i, sizes[i]);
    }
    uint8_t *bytes = bytes_make(99, 40);
    FM_ASSERT_OK(fm_cas_put_tensor(cas, FM_CAS_BF16, shape, 2, bytes,
                                   &sample->digests[object_count], &err),
                 &err);
    free(bytes);
    FM_ASSERT_OK(fm_cas_seal(cas, &err), &err);
    fm_cas_close(cas);
    sample->path = fm_asprintf("%s/segments/d-1-0.h5", sample->dir);
    CU_ASSERT_FATAL(sample->path != NULL);
    file_load(sample->path, &sample->bytes);
}

static void sample_remove(struct sample *sample)
{
    fm_buf_fini(&sample->bytes);
    free(sample->path);
    scratch_remove(sample->dir);
}

struct found {
    size_t objects;
    size_t segments;
    size_t metadata;
    size_t lost;
    fm_digest_t last;
};

static void on_bad(void *ctx, const fm_cas_bad_t *bad)
{
    struct found *found = ctx;

    CU_ASSERT(bad->segment != NULL && bad->reason && *bad->reason);
    switch (bad->damage) {
    case FM_CAS_DAMAGE_OBJECT:
        found->objects++;
        found->last = *bad->digest;
        break;
    case FM_CAS_DAMAGE_SEGMENT:
        found->segments++;
        break;
    case FM_CAS_DAMAGE_METADATA:
        found->metadata++;
        break;
    }
    found->lost += bad->lost ? 1 : 0;
}

static struct found verify(fm_cas_t *cas, bool quarantine)
{
    fm_error_t err = {0};
    struct found found = {0};
    fm_cas_verify_result_t result;

    FM_ASSERT_OK(fm_cas_verify(cas, quarantine, on_bad, &found, &result, &err),
                 &err);
    CU_ASSERT(result.bad_object_count == found.objects);
    return found;
}

static void test_clean(void)
{
    struct sample sample;

    sample_make(&sample, OBJECT_COUNT);
    fm_cas_t *cas = store_open(sample.dir, NULL);
    struct found found = verify(cas, true);
    CU_ASSERT(found.objects + found.segments + found.metadata == 0);
    char *path = fm_asprintf("%s/quarantine", sample.dir);
    CU_ASSERT(path && access(path, F_OK) != 0);
    free(path);
    fm_cas_close(cas);
    sample_remove(&sample);
}

/* One flipped bit at every byte of the file: verify finds each, names exactly
 * the damaged object when it is object data, and the others stay readable. */
static void test_every_byte(void)
{
    struct sample sample;

    sample_make(&sample, 4); /* a small file: no large objects */
    fm_cas_t *whole = store_open(sample.dir, NULL);
    fm_cas_close(whole);
    FILE *file = fopen(sample.path, "r+b");
    CU_ASSERT_FATAL(file != NULL);
    size_t missed = 0;
    size_t object_hits = 0;
    for (size_t at = 0; at < sample.bytes.len; at++) {
        int byte = sample.bytes.data[at];
        CU_ASSERT(fseek(file, (long)at, SEEK_SET) == 0 &&
                  fputc(byte ^ (1 << at % 8), file) >= 0 && fflush(file) == 0);
        fm_cas_t *cas = store_open(sample.dir, NULL);
        struct found found = verify(cas, false);
        missed += found.objects + found.segments + found.metadata != 1;
        object_hits += found.objects;
        fm_cas_close(cas);
        CU_ASSERT(fseek(file, (long)at, SEEK_SET) == 0 &&
                  fputc(byte, file) >= 0 && fflush(file) == 0);
    }
    CU_ASSERT(missed == 0);
    CU_ASSERT(object_hits == 1 + 100 + 3000 + 40);
    CU_ASSERT(fclose(file) == 0);
    sample_remove(&sample);
}

/* Cut anywhere, or grown: an error that names the segment, never a crash. */
static void test_truncation(void)
{
    struct sample sample;

    sample_make(&sample, 4);
    for (size_t len = 0; len < sample.bytes.len; len += 61) {
        file_store(sample.path, sample.bytes.data, len);
        fm_cas_t *cas = store_open(sample.dir, NULL);
        CU_ASSERT(!fm_cas_has(cas, &sample.digests[3]));
        struct found found = verify(cas, false);
        CU_ASSERT(found.segments == 1 && found.objects == 0);
        fm_cas_close(cas);
    }
    fm_buf_add_u8(&sample.bytes, 0);
    file_store(sample.path, sample.bytes.data, sample.bytes.len);
    fm_cas_t *cas = store_open(sample.dir, NULL);
    CU_ASSERT(verify(cas, false).segments == 1);
    fm_cas_close(cas);
    sample_remove(&sample);
}

static void object_flip(struct sample *sample, size_t i)
{
    fm_cas_locator_t locator;
    fm_cas_t *cas = store_open(sample->dir, NULL);

    CU_ASSERT_FATAL(fm_cas_locate(cas, &sample->digests[i], &locator));
    fm_cas_close(cas);
    uint8_t *bytes = bytes_make(i, sizes[i]);
    uint8_t *at =
        memmem(sample->bytes.data, sample->bytes.len, bytes, sizes[i]);
    CU_ASSERT_FATAL(at != NULL);
    at[sizes[i] / 2] ^= 0x10;
    file_store(sample->path, sample->bytes.data, sample->bytes.len);
    free(bytes);
}

/* The whole way: damaged, refused, in quarantine, put again, found. */
static void test_put_again(void)
{
    fm_error_t err = {0};
    fm_buf_t out = {0};
    struct sample sample;
    char text[FM_DIGEST_TEXT_BYTES];

    sample_make(&sample, OBJECT_COUNT);
    object_flip(&sample, 3);
    fm_cas_t *old = store_open(sample.dir, NULL); /* knows it, unaware */
    fm_cas_t *cas = store_open(sample.dir, "d-2");
    CU_ASSERT(fm_cas_get(cas, &sample.digests[3], &out, &err) ==
              FM_ERR_CORRUPT);
    CU_ASSERT(out.len == 0);
    CU_ASSERT(strstr(err.text, fm_digest_format(&sample.digests[3], text)) &&
              strstr(err.text, "d-1-0.h5") && strstr(err.text, "verify"));
    CU_ASSERT(!fm_cas_has(cas, &sample.digests[3]));
    CU_ASSERT(get_seeded(cas, &sample.digests[5], 5, sizes[5]));
    fm_cas_close(cas);

    cas = store_open(sample.dir, "d-2"); /* nobody recorded it yet */
    CU_ASSERT(fm_cas_has(cas, &sample.digests[3]));
    struct found found = verify(cas, true);
    CU_ASSERT(found.objects == 1 && found.lost == 1);
    CU_ASSERT(fm_digest_equal(&found.last, &sample.digests[3]));
    CU_ASSERT(!fm_cas_has(cas, &sample.digests[3]));
    CU_ASSERT(fm_cas_has(cas, &sample.digests[4]));
    fm_cas_close(cas);

    cas = store_open(sample.dir, "d-2"); /* recorded now */
    CU_ASSERT(!fm_cas_has(cas, &sample.digests[3]));
    FM_ASSERT_OK(fm_cas_refresh(old, &err), &err);
    CU_ASSERT(!fm_cas_has(old, &sample.digests[3]));
    (void)put_seeded(cas, 3, sizes[3]);
    FM_ASSERT_OK(fm_cas_seal(cas, &err), &err);
    CU_ASSERT(get_seeded(cas, &sample.digests[3], 3, sizes[3]));
    CU_ASSERT(get_seeded(old, &sample.digests[3], 3, sizes[3]));
    found = verify(cas, false);
    CU_ASSERT(found.objects == 0);
    fm_cas_close(cas);
    fm_cas_close(old);
    fm_buf_fini(&out);
    sample_remove(&sample);
}

static void test_segment_lost(void)
{
    fm_error_t err = {0};
    fm_cas_stat_t stat;
    struct sample sample;

    sample_make(&sample, OBJECT_COUNT);
    fm_cas_t *old = store_open(sample.dir, NULL); /* knew what is in it */
    sample.bytes.data[20] ^= 1;
    file_store(sample.path, sample.bytes.data, sample.bytes.len);
    fm_cas_t *cas = store_open(sample.dir, "d-2");
    FM_ASSERT_OK(fm_cas_stat(cas, &stat, &err), &err);
    CU_ASSERT(stat.segment_bad_count == 1 && stat.object_count == 0);
    CU_ASSERT(verify(old, false).segments == 1 + OBJECT_COUNT + 1);
    CU_ASSERT(verify(cas, true).segments == 1);
    CU_ASSERT(verify(cas, true).segments == 0); /* known by now */
    FM_ASSERT_OK(fm_cas_refresh(old, &err), &err);
    CU_ASSERT(!fm_cas_has(old, &sample.digests[2]));
    for (size_t i = 0; i < OBJECT_COUNT; i++) {
        (void)put_seeded(cas, i, sizes[i]);
    }
    FM_ASSERT_OK(fm_cas_seal(cas, &err), &err);
    for (size_t i = 0; i < OBJECT_COUNT; i++) {
        CU_ASSERT(get_seeded(old, &sample.digests[i], i, sizes[i]));
    }
    fm_cas_close(cas);
    fm_cas_close(old);
    sample_remove(&sample);
}

/* Two writers stored the same object: one damaged copy costs nothing. */
static void test_second_copy(void)
{
    fm_error_t err = {0};
    fm_cas_stat_t stat;
    struct sample sample;

    sample_make(&sample, OBJECT_COUNT);
    char *aside = fm_asprintf("%s/aside", sample.dir);
    CU_ASSERT_FATAL(aside && rename(sample.path, aside) == 0);
    fm_cas_t *cas = store_open(sample.dir, "d-2");
    (void)put_seeded(cas, 3, sizes[3]);
    FM_ASSERT_OK(fm_cas_seal(cas, &err), &err);
    CU_ASSERT(rename(aside, sample.path) == 0);
    fm_cas_close(cas);
    object_flip(&sample, 3);
    for (int open = 0; open < 2; open++) {
        cas = store_open(sample.dir, NULL);
        FM_ASSERT_OK(fm_cas_stat(cas, &stat, &err), &err);
        CU_ASSERT(stat.duplicate_count == (open == 0 ? 1 : 0));
        CU_ASSERT(get_seeded(cas, &sample.digests[3], 3, sizes[3]));
        struct found found = verify(cas, true);
        CU_ASSERT(found.objects == (open == 0 ? 1 : 0) && found.lost == 0);
        fm_cas_close(cas);
    }
    free(aside);
    sample_remove(&sample);
}

static void test_quarantine_file(void)
{
    static const char *const refused[] = {"no-digest.h5\n", "a.h5 sha256:12\n",
                                          "../a.h5 *\n",    "a.h5 * \n",
                                          "a.h5 *",         "\n",
                                          "a.h5 *\n\0\n"};
    fm_error_t err = {0};
    fm_cas_t *cas = NULL;
    struct sample sample;

    sample_make(&sample, 2);
    char *path = fm_asprintf("%s/quarantine", sample.dir);
    for (size_t i = 0; i < FM_COUNT_OF(refused); i++) {
        size_t len = strlen(refused[i]) + (i == 6 ? 2 : 0);
        file_store(path, refused[i], len);
        CU_ASSERT(fm_cas_open(sample.dir, NULL, &cas, &err) == FM_ERR_CORRUPT);
        CU_ASSERT(strstr(err.text, "quarantine:") != NULL);
    }
    file_store(path, "gone-1.h5 *\nd-1-0.h5 *\n", 23);
    cas = store_open(sample.dir, NULL);
    CU_ASSERT(!fm_cas_has(cas, &sample.digests[1]));
    fm_cas_close(cas);
    free(path);
    sample_remove(&sample);
}

/* Names in segments/ that are no segments, and no regular files. */
static void test_strange_files(void)
{
    fm_error_t err = {0};
    fm_cas_stat_t stat;
    struct sample sample;

    sample_make(&sample, 3);
    char *link_path = fm_asprintf("%s/segments/link.h5", sample.dir);
    char *dir_path = fm_asprintf("%s/segments/dir.h5", sample.dir);
    char *fifo_path = fm_asprintf("%s/segments/fifo.h5", sample.dir);
    char *note_path = fm_asprintf("%s/segments/README", sample.dir);
    CU_ASSERT(symlink("d-1-0.h5", link_path) == 0);
    CU_ASSERT(mkdir(dir_path, 0755) == 0 && mkfifo(fifo_path, 0644) == 0);
    file_store(note_path, "hello", 5);
    fm_cas_t *cas = store_open(sample.dir, NULL);
    FM_ASSERT_OK(fm_cas_stat(cas, &stat, &err), &err);
    CU_ASSERT(stat.segment_count == 1 && stat.segment_bad_count == 3);
    CU_ASSERT(get_seeded(cas, &sample.digests[2], 2, sizes[2]));
    CU_ASSERT(verify(cas, false).segments == 3);
    fm_cas_close(cas);
    free(link_path);
    free(dir_path);
    free(fifo_path);
    free(note_path);
    sample_remove(&sample);
}

/* Damaged far from either end, and cut short under a handle that knows it. */
static void test_large_object(void)
{
    const size_t len = (5 << 20) + 7;
    fm_error_t err = {0};
    fm_buf_t out = {0};
    char *dir = scratch_make();
    fm_cas_t *cas = store_open(dir, "d-1");
    fm_digest_t digest = put_seeded(cas, 1, len);

    FM_ASSERT_OK(fm_cas_seal(cas, &err), &err);
    CU_ASSERT(get_seeded(cas, &digest, 1, len));
    char *path = fm_asprintf("%s/segments/d-1-0.h5", dir);
    CU_ASSERT_FATAL(path != NULL);
    FILE *file = fopen(path, "r+b");
    CU_ASSERT_FATAL(file != NULL);
    CU_ASSERT(fseek(file, 3 << 20, SEEK_SET) == 0);
    int byte = fgetc(file);
    CU_ASSERT(fseek(file, 3 << 20, SEEK_SET) == 0 &&
              fputc(byte ^ 1, file) >= 0 && fclose(file) == 0);
    CU_ASSERT(fm_cas_get(cas, &digest, &out, &err) == FM_ERR_CORRUPT);
    CU_ASSERT(strstr(err.text, "bytes changed") != NULL && out.len == 0);

    fm_cas_close(cas);
    cas = store_open(dir, NULL);
    CU_ASSERT(truncate(path, 2 << 20) == 0);
    CU_ASSERT(fm_cas_get(cas, &digest, &out, &err) == FM_ERR_CORRUPT);
    CU_ASSERT(strstr(err.text, "ends too early") != NULL && out.len == 0);
    CU_ASSERT(strstr(err.text, "d-1-0.h5") != NULL);
    fm_cas_close(cas);
    fm_buf_fini(&out);
    free(path);
    scratch_remove(dir);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"a clean store has no findings", test_clean},
        {"a flip of every byte is found", test_every_byte},
        {"cut at every place", test_truncation},
        {"damaged, quarantined, put again", test_put_again},
        {"a segment whose index is lost", test_segment_lost},
        {"a second copy is served", test_second_copy},
        {"quarantine file as found", test_quarantine_file},
        {"a large object, changed and cut", test_large_object},
        {"strange files among segments", test_strange_files},
    };

    return fm_test_main("store/cas damage", cases, FM_COUNT_OF(cases));
}
