/* SPDX-License-Identifier: Apache-2.0 */
/* store/cas: objects, tensors, sharing between handles, locators, counts. */
#include <hdf5.h>
#include <sys/stat.h>

#include "test_cas_util.h"

static void test_round_trip(void)
{
    static const size_t sizes[] = {
        0, 1, 7, 1000, 65535, 65536, 65537, 300000, 1 << 20, (3 << 20) + 5};
    fm_digest_t digests[FM_COUNT_OF(sizes)];
    fm_error_t err = {0};
    char *dir = scratch_make();
    fm_cas_t *cas = store_open(dir, "t-1");

    for (size_t i = 0; i < FM_COUNT_OF(sizes); i++) {
        digests[i] = put_seeded(cas, i, sizes[i]);
        CU_ASSERT(get_seeded(cas, &digests[i], i, sizes[i])); /* pending */
        fm_cas_locator_t locator;
        CU_ASSERT(fm_cas_has(cas, &digests[i]));
        CU_ASSERT(!fm_cas_locate(cas, &digests[i], &locator));
    }
    FM_ASSERT_OK(fm_cas_seal(cas, &err), &err);
    FM_ASSERT_OK(fm_cas_seal(cas, &err), &err); /* nothing pending: no file */
    for (int open = 0; open < 2; open++) {
        for (size_t i = 0; i < FM_COUNT_OF(sizes); i++) {
            fm_cas_locator_t locator;
            uint64_t bytes = 0;
            CU_ASSERT(get_seeded(cas, &digests[i], i, sizes[i]));
            CU_ASSERT(fm_cas_locate(cas, &digests[i], &locator));
            CU_ASSERT_STRING_EQUAL(locator.segment, "t-1-0.h5");
            CU_ASSERT(strncmp(locator.dataset,
                              sizes[i] <= 65536 ? "/objects/data" : "/blobs/",
                              7) == 0);
            CU_ASSERT(locator.length == sizes[i]);
            CU_ASSERT(fm_cas_size(cas, &digests[i], NULL, &bytes));
            CU_ASSERT(bytes == sizes[i]);
        }
        fm_cas_stat_t stat;
        FM_ASSERT_OK(fm_cas_stat(cas, &stat, &err), &err);
        CU_ASSERT(stat.object_count == FM_COUNT_OF(sizes));
        CU_ASSERT(stat.segment_count == 1 && stat.segment_bad_count == 0);
        CU_ASSERT(stat.physical_bytes > stat.logical_bytes);
        CU_ASSERT(stat.physical_bytes < stat.logical_bytes + 40000);
        fm_cas_close(cas);
        cas = store_open(dir, NULL);
    }
    fm_cas_close(cas);
    scratch_remove(dir);
}

static void test_known_digest(void)
{
    fm_error_t err = {0};
    fm_digest_t digest;
    char text[FM_DIGEST_TEXT_BYTES];
    char *dir = scratch_make();
    fm_cas_t *cas = store_open(dir, "t-1");

    FM_ASSERT_OK(fm_cas_put(cas, FM_CAS_ITEM, "abc", 3, &digest, &err), &err);
    CU_ASSERT_STRING_EQUAL(
        fm_digest_format(&digest, text),
        "sha256:"
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    fm_cas_close(cas);
    scratch_remove(dir);
}

static void test_dedup(void)
{
    fm_error_t err = {0};
    fm_cas_stat_t stat;
    char *dir = scratch_make();
    fm_cas_t *cas = store_open(dir, "t-1");

    (void)put_seeded(cas, 1, 5000);
    (void)put_seeded(cas, 1, 5000);
    FM_ASSERT_OK(fm_cas_seal(cas, &err), &err);
    fm_digest_t digest = put_seeded(cas, 1, 5000);
    FM_ASSERT_OK(fm_cas_stat(cas, &stat, &err), &err);
    CU_ASSERT(stat.object_count == 1 && stat.pending_count == 0);
    CU_ASSERT(stat.put_count == 3 && stat.dedup_count == 2);

    /* Its segment was collected: a put writes it again. */
    char *path = fm_asprintf("%s/segments/t-1-0.h5", dir);
    CU_ASSERT_FATAL(path && unlink(path) == 0);
    fm_cas_close(cas);
    cas = store_open(dir, "t-1");
    CU_ASSERT(!fm_cas_has(cas, &digest));
    (void)put_seeded(cas, 1, 5000);
    FM_ASSERT_OK(fm_cas_seal(cas, &err), &err);
    CU_ASSERT(access(path, F_OK) == 0);
    fm_cas_t *other = store_open(dir, "t-2");
    CU_ASSERT(unlink(path) == 0); /* while a handle knows it */
    (void)put_seeded(other, 1, 5000);
    FM_ASSERT_OK(fm_cas_seal(other, &err), &err);
    CU_ASSERT(get_seeded(other, &digest, 1, 5000));
    CU_ASSERT(get_seeded(cas, &digest, 1, 5000)); /* found by the rescan */
    fm_cas_close(other);
    fm_cas_close(cas);
    free(path);
    scratch_remove(dir);
}

static void test_tensor_dtypes(void)
{
    fm_error_t err = {0};
    fm_digest_t digests[FM_CAS_DTYPE_COUNT];
    const uint64_t shape[3] = {3, 5, 7};
    char *dir = scratch_make();
    fm_cas_t *cas = store_open(dir, "t-1");

    for (int d = 0; d < FM_CAS_DTYPE_COUNT; d++) {
        uint8_t *bytes = bytes_make((uint64_t)d + 50, 105 * 8);
        FM_ASSERT_OK(fm_cas_put_tensor(cas, (fm_cas_dtype_t)d, shape, 3, bytes,
                                       &digests[d], &err),
                     &err);
        free(bytes);
    }
    FM_ASSERT_OK(fm_cas_seal(cas, &err), &err);
    fm_cas_close(cas);
    cas = store_open(dir, NULL);
    for (int d = 0; d < FM_CAS_DTYPE_COUNT; d++) {
        fm_cas_tensor_t tensor;
        uint8_t data[105 * 8];
        size_t len = 105 * fm_cas_dtype_bytes((fm_cas_dtype_t)d);
        uint8_t *bytes = bytes_make((uint64_t)d + 50, sizeof(data));
        CU_ASSERT(fm_cas_get_tensor(cas, &digests[d], &tensor, data, len - 1,
                                    &err) == FM_ERR_LIMIT);
        FM_ASSERT_OK(fm_cas_get_tensor(cas, &digests[d], &tensor, data,
                                       sizeof(data), &err),
                     &err);
        CU_ASSERT(tensor.dtype == (fm_cas_dtype_t)d && tensor.rank == 3);
        CU_ASSERT(memcmp(tensor.shape, shape, sizeof(shape)) == 0);
        CU_ASSERT(tensor.bytes == len && memcmp(data, bytes, len) == 0);
        free(bytes);
    }
    fm_cas_close(cas);
    scratch_remove(dir);
}

static void test_tensor_shapes(void)
{
    fm_error_t err = {0};
    const uint64_t wide[8] = {1, 2, 1, 3, 1, 1, 2, 1};
    const uint64_t empty[2] = {4, 0};
    const uint64_t huge[2] = {UINT64_C(1) << 40, 1 << 20};
    const float values[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    fm_digest_t a, b, c, d;
    fm_cas_tensor_t tensor;
    char *dir = scratch_make();
    fm_cas_t *cas = store_open(dir, "t-1");

    FM_ASSERT_OK(fm_cas_put_tensor(cas, FM_CAS_F32, wide, 8, values, &a, &err),
                 &err);
    FM_ASSERT_OK(fm_cas_put_tensor(cas, FM_CAS_F32, NULL, 0, values, &b, &err),
                 &err);
    FM_ASSERT_OK(fm_cas_put_tensor(cas, FM_CAS_I8, empty, 2, NULL, &c, &err),
                 &err);
    CU_ASSERT(fm_cas_put_tensor(cas, FM_CAS_F32, huge, 2, values, &d, &err) ==
              FM_ERR_LIMIT);
    CU_ASSERT(fm_cas_put_tensor(cas, FM_CAS_F32, wide, 9, values, &d, &err) ==
              FM_ERR_INVALID);
    CU_ASSERT(fm_cas_put(cas, FM_CAS_TENSOR, values, 4, &d, &err) ==
              FM_ERR_INVALID);

    /* The same bytes as a blob first: the tensor still gets its shape. */
    FM_ASSERT_OK(fm_cas_put(cas, FM_CAS_BLOB, values, 8, &d, &err), &err);
    CU_ASSERT(fm_cas_get_tensor(cas, &d, &tensor, NULL, 0, &err) ==
              FM_ERR_INVALID);
    FM_ASSERT_OK(
        fm_cas_put_tensor(cas, FM_CAS_F32, wide + 1, 1, values, &d, &err),
        &err);
    FM_ASSERT_OK(fm_cas_seal(cas, &err), &err);
    fm_cas_close(cas);
    cas = store_open(dir, NULL);
    CU_ASSERT(fm_cas_tensor(cas, &a, &tensor) && tensor.rank == 8);
    CU_ASSERT(fm_cas_tensor(cas, &b, &tensor) && tensor.rank == 0);
    CU_ASSERT(tensor.bytes == 4);
    CU_ASSERT(fm_cas_tensor(cas, &c, &tensor) && tensor.bytes == 0);
    CU_ASSERT(tensor.rank == 2 && tensor.shape[0] == 4);
    CU_ASSERT(fm_cas_tensor(cas, &d, &tensor) && tensor.shape[0] == 2);
    fm_cas_close(cas);
    scratch_remove(dir);
}

/* What HDF5 itself reads is what was put. */
static void test_hdf5_reads(void)
{
    fm_error_t err = {0};
    const uint64_t shape[2] = {2, 3};
    const float values[6] = {1, 2, 3, 4, 5, 6};
    const uint8_t half[6] = {0x80, 0x3F, 0x00, 0x40, 0x40, 0xC0}; /* bf16 */
    fm_digest_t tensor, brain, small, large;
    char *dir = scratch_make();
    fm_cas_t *cas = store_open(dir, "t-1");
    uint8_t *bytes = bytes_make(9, 200000);

    FM_ASSERT_OK(
        fm_cas_put_tensor(cas, FM_CAS_F32, shape, 2, values, &tensor, &err),
        &err);
    FM_ASSERT_OK(
        fm_cas_put_tensor(cas, FM_CAS_BF16, shape + 1, 1, half, &brain, &err),
        &err);
    FM_ASSERT_OK(fm_cas_put(cas, FM_CAS_ITEM, bytes, 5000, &small, &err), &err);
    FM_ASSERT_OK(fm_cas_put(cas, FM_CAS_BLOB, bytes, 200000, &large, &err),
                 &err);
    FM_ASSERT_OK(fm_cas_seal(cas, &err), &err);

    char *path = fm_asprintf("%s/segments/t-1-0.h5", dir);
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    CU_ASSERT_FATAL(file >= 0);
    fm_cas_locator_t locator;
    CU_ASSERT_FATAL(fm_cas_locate(cas, &tensor, &locator));
    hid_t set = H5Dopen2(file, locator.dataset, H5P_DEFAULT);
    hid_t space = H5Dget_space(set);
    hsize_t dims[2] = {0, 0};
    float read_back[6] = {0};
    CU_ASSERT(H5Sget_simple_extent_dims(space, dims, NULL) == 2);
    CU_ASSERT(dims[0] == 2 && dims[1] == 3);
    CU_ASSERT(H5Dread(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT,
                      read_back) >= 0);
    CU_ASSERT(memcmp(read_back, values, sizeof(values)) == 0);
    CU_ASSERT(H5Sclose(space) >= 0 && H5Dclose(set) >= 0);

    CU_ASSERT_FATAL(fm_cas_locate(cas, &brain, &locator));
    set = H5Dopen2(file, locator.dataset, H5P_DEFAULT);
    CU_ASSERT(H5Dread(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT,
                      read_back) >= 0);
    CU_ASSERT(read_back[0] == 1.0F && read_back[1] == 2.0F &&
              read_back[2] == -3.0F);
    CU_ASSERT(H5Dclose(set) >= 0);

    CU_ASSERT_FATAL(fm_cas_locate(cas, &large, &locator));
    uint8_t *all = fm_malloc(200000);
    set = H5Dopen2(file, locator.dataset, H5P_DEFAULT);
    CU_ASSERT(H5Dread(set, H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL, H5P_DEFAULT,
                      all) >= 0);
    CU_ASSERT(memcmp(all, bytes, 200000) == 0);
    CU_ASSERT(H5Dclose(set) >= 0);
    CU_ASSERT_FATAL(fm_cas_locate(cas, &small, &locator));
    set = H5Dopen2(file, "/objects/data", H5P_DEFAULT);
    CU_ASSERT(H5Dread(set, H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL, H5P_DEFAULT,
                      all) >= 0);
    CU_ASSERT(memcmp(all + locator.offset, bytes, 5000) == 0);
    CU_ASSERT(H5Dclose(set) >= 0 && H5Fclose(file) >= 0);
    free(all);
    free(path);
    free(bytes);
    fm_cas_close(cas);
    scratch_remove(dir);
}

static void test_locator_text(void)
{
    static const char *const refused[] = {
        "",
        "a.h5",
        "a.h5:/objects/data:0",
        "a.h5:/objects/data:0:",
        "a.h5:/objects/data:0:1:2",
        "a.h5:/objects/data:00:1",
        "a.h5:/objects/data:-1:1",
        "a.h5:/objects/data:0:1 ",
        "a.h5:/objects/data:0:18446744073709551616",
        "a.h5:/objects/data:0:1099511627777",
        "../a.h5:/objects/data:0:1",
        ".a.h5:/objects/data:0:1",
        "a/b.h5:/objects/data:0:1",
        "a.h5.tmp:/objects/data:0:1",
        ".h5:/objects/data:0:1",
        "a.h5:/objects/other:0:1",
        "a.h5:/blobs/12:0:1",
        "a.h5:/blobs/"
        "BA7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad:0:1",
    };
    char text[FM_CAS_LOCATOR_TEXT_BYTES];
    fm_cas_locator_t parsed;
    fm_cas_locator_t locator = {.offset = 12345678901234, .length = 99};

    memset(locator.segment, 'w', sizeof(locator.segment) - 1);
    memcpy(locator.segment + sizeof(locator.segment) - 4, ".h5", 4);
    (void)snprintf(
        locator.dataset, sizeof(locator.dataset), "/tensors/%s",
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CU_ASSERT(
        fm_cas_locator_parse(fm_cas_locator_format(&locator, text), &parsed));
    CU_ASSERT(memcmp(&parsed, &locator, sizeof(parsed)) == 0);
    for (size_t i = 0; i < FM_COUNT_OF(refused); i++) {
        CU_ASSERT(!fm_cas_locator_parse(refused[i], &parsed));
    }
}

static void test_learn(void)
{
    fm_error_t err = {0};
    char *dir = scratch_make();
    fm_cas_t *writer = store_open(dir, "t-1");
    fm_cas_t *reader = store_open(dir, NULL);
    fm_cas_locator_t locator;
    fm_digest_t other = fm_sha256("x", 1);

    fm_digest_t first = put_seeded(writer, 1, 1000);
    fm_digest_t second = put_seeded(writer, 2, 100000);
    CU_ASSERT(!fm_cas_locate(writer, &first, &locator));
    FM_ASSERT_OK(fm_cas_seal(writer, &err), &err);
    CU_ASSERT(fm_cas_locate(writer, &first, &locator));
    CU_ASSERT(!fm_cas_has(reader, &first));
    FM_ASSERT_OK(fm_cas_learn(reader, &first, &locator, &err), &err);
    CU_ASSERT(fm_cas_has(reader, &first) && fm_cas_has(reader, &second));
    CU_ASSERT(get_seeded(reader, &first, 1, 1000));
    CU_ASSERT(fm_cas_learn(reader, &other, &locator, &err) == FM_ERR_NOT_FOUND);
    (void)snprintf(locator.segment, sizeof(locator.segment), "t-9-0.h5");
    CU_ASSERT(fm_cas_learn(reader, &first, &locator, &err) == FM_ERR_NOT_FOUND);
    (void)snprintf(locator.segment, sizeof(locator.segment), "../../passwd.h5");
    CU_ASSERT(fm_cas_learn(reader, &first, &locator, &err) == FM_ERR_INVALID);

    /* Found on a miss without a word from anybody. */
    fm_digest_t third = put_seeded(writer, 3, 10);
    FM_ASSERT_OK(fm_cas_seal(writer, &err), &err);
    CU_ASSERT(!fm_cas_has(reader, &third));
    CU_ASSERT(get_seeded(reader, &third, 3, 10));
    fm_buf_t out = {0};
    CU_ASSERT(fm_cas_get(reader, &other, &out, &err) == FM_ERR_NOT_FOUND);
    fm_buf_fini(&out);
    fm_cas_close(reader);
    fm_cas_close(writer);
    scratch_remove(dir);
}

static void test_auto_seal(void)
{
    fm_error_t err = {0};
    fm_cas_options_t opts = {.writer = "t-1", .seal_bytes = 10000};
    fm_digest_t digests[50];
    fm_cas_stat_t stat;
    fm_cas_t *cas = NULL;
    char *dir = scratch_make();

    FM_ASSERT_OK(fm_cas_open(dir, &opts, &cas, &err), &err);
    for (size_t i = 0; i < FM_COUNT_OF(digests); i++) {
        digests[i] = put_seeded(cas, i, i == 20 ? 100000 : 1000);
        FM_ASSERT_OK(fm_cas_stat(cas, &stat, &err), &err);
        CU_ASSERT(stat.pending_bytes <= opts.seal_bytes);
        CU_ASSERT(stat.object_count == i + 1);
    }
    CU_ASSERT(stat.segment_count >= 5);
    for (size_t i = 0; i < FM_COUNT_OF(digests); i++) {
        CU_ASSERT(get_seeded(cas, &digests[i], i, i == 20 ? 100000 : 1000));
    }
    fm_cas_close(cas); /* what was not sealed goes */
    cas = store_open(dir, NULL);
    for (size_t i = 0; i < FM_COUNT_OF(digests) - stat.pending_count; i++) {
        CU_ASSERT(get_seeded(cas, &digests[i], i, i == 20 ? 100000 : 1000));
    }
    CU_ASSERT(!fm_cas_has(cas, &digests[49]));
    fm_cas_close(cas);
    scratch_remove(dir);
}

static void test_open_files_bound(void)
{
    fm_error_t err = {0};
    fm_cas_options_t opts = {.writer = "t-1", .open_files_max = 3};
    fm_digest_t digests[12];
    fm_cas_t *cas = NULL;
    char *dir = scratch_make();

    FM_ASSERT_OK(fm_cas_open(dir, &opts, &cas, &err), &err);
    for (size_t i = 0; i < FM_COUNT_OF(digests); i++) {
        digests[i] = put_seeded(cas, i, 100);
        FM_ASSERT_OK(fm_cas_seal(cas, &err), &err);
    }
    int lowest = dup(0);
    CU_ASSERT_FATAL(lowest >= 0 && close(lowest) == 0);
    for (size_t i = 0; i < 5 * FM_COUNT_OF(digests); i++) {
        size_t at = i * 7 % FM_COUNT_OF(digests);
        CU_ASSERT(get_seeded(cas, &digests[at], at, 100));
    }
    int after = dup(0);
    CU_ASSERT(after <= lowest + 3);
    CU_ASSERT(close(after) == 0);
    fm_cas_close(cas);
    scratch_remove(dir);
}

static void test_iterate(void)
{
    fm_error_t err = {0};
    fm_cas_stat_t stat;
    fm_cas_object_t object;
    size_t cursor = 0;
    size_t count = 0;
    uint64_t bytes = 0;
    fm_digest_t digest;
    char *dir = scratch_make();
    fm_cas_t *cas = store_open(dir, "t-1");

    for (uint64_t i = 0; i < 30; i++) {
        (void)put_seeded(cas, i, 100 + i);
    }
    FM_ASSERT_OK(fm_cas_seal(cas, &err), &err);
    FM_ASSERT_OK(fm_cas_put(cas, FM_CAS_LINEAGE, "{}", 2, &digest, &err), &err);
    while (fm_cas_next(cas, &cursor, &object)) {
        count++;
        bytes += object.bytes;
        CU_ASSERT(object.sealed != fm_digest_equal(&object.digest, &digest));
        CU_ASSERT(!object.sealed ||
                  strcmp(object.locator.segment, "t-1-0.h5") == 0);
    }
    FM_ASSERT_OK(fm_cas_stat(cas, &stat, &err), &err);
    CU_ASSERT(count == 31 && stat.object_count == 31);
    CU_ASSERT(bytes == stat.logical_bytes);
    CU_ASSERT(stat.kinds[FM_CAS_BLOB].object_count == 30);
    CU_ASSERT(stat.kinds[FM_CAS_LINEAGE].logical_bytes == 2);
    CU_ASSERT(fm_cas_discard(cas) == 1 && !fm_cas_has(cas, &digest));
    cursor = 0;
    CU_ASSERT(fm_cas_next(cas, &cursor, &object));
    CU_ASSERT(fm_cas_forget(cas, &object.digest));
    CU_ASSERT(!fm_cas_forget(cas, &object.digest));
    CU_ASSERT(!fm_cas_has(cas, &object.digest));
    fm_cas_close(cas);
    scratch_remove(dir);
}

static void test_refusals(void)
{
    static const char *const names[] = {
        "",
        ".a",
        "a/b",
        "a b",
        "../x",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        "aaaaaaaaaaaaaaaaaaaaaaaa"};
    fm_error_t err = {0};
    fm_cas_t *cas = NULL;
    fm_digest_t digest;
    char *dir = scratch_make();

    for (size_t i = 0; i < FM_COUNT_OF(names); i++) {
        fm_cas_options_t opts = {.writer = names[i]};
        CU_ASSERT(fm_cas_open(dir, &opts, &cas, &err) == FM_ERR_INVALID);
    }
    CU_ASSERT(fm_cas_open(dir, NULL, &cas, &err) == FM_ERR_NOT_FOUND);
    CU_ASSERT(cas == NULL && strstr(err.text, dir) != NULL);
    fm_cas_close(store_open(dir, "t-1"));
    cas = store_open(dir, NULL);
    CU_ASSERT(fm_cas_put(cas, FM_CAS_BLOB, "x", 1, &digest, &err) ==
              FM_ERR_INVALID);
    fm_cas_close(cas);
    scratch_remove(dir);
}

/* A dead writer's torn file goes when its name comes back, or by age. */
static void test_torn(void)
{
    fm_error_t err = {0};
    fm_cas_stat_t count;
    size_t removed = 0;
    char *dir = scratch_make();

    fm_cas_close(store_open(dir, "t-1"));
    char *own = fm_asprintf("%s/segments/t-1.tmp", dir);
    char *other = fm_asprintf("%s/segments/t-2.tmp", dir);
    file_store(own, "torn", 4);
    file_store(other, "torn", 4);
    fm_cas_t *cas = store_open(dir, "t-1");
    CU_ASSERT(access(own, F_OK) != 0 && access(other, F_OK) == 0);
    FM_ASSERT_OK(fm_cas_stat(cas, &count, &err), &err);
    CU_ASSERT(count.torn_count == 1 && count.segment_bad_count == 0);
    FM_ASSERT_OK(fm_cas_remove_torn(cas, 3600, &removed, &err), &err);
    CU_ASSERT(removed == 0);
    FM_ASSERT_OK(fm_cas_remove_torn(cas, -10, &removed, &err), &err);
    CU_ASSERT(removed == 1 && access(other, F_OK) != 0);

    /* Two live writers of one name: refused, nothing overwritten. */
    file_store(own, "live", 4);
    (void)put_seeded(cas, 1, 10);
    CU_ASSERT(fm_cas_seal(cas, &err) == FM_ERR_BUSY);
    CU_ASSERT(unlink(own) == 0);
    char *taken = fm_asprintf("%s/segments/t-1-0.h5", dir);
    file_store(taken, "taken", 5);
    FM_ASSERT_OK(fm_cas_seal(cas, &err), &err);
    struct stat st;
    CU_ASSERT(stat(taken, &st) == 0 && st.st_size == 5);
    free(taken);
    free(own);
    free(other);
    fm_cas_close(cas);
    scratch_remove(dir);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"objects come back, pending, sealed, reopened", test_round_trip},
        {"the name is the SHA-256", test_known_digest},
        {"equal bytes are stored once", test_dedup},
        {"every dtype", test_tensor_dtypes},
        {"every rank, empty, too large", test_tensor_shapes},
        {"HDF5 reads what was put", test_hdf5_reads},
        {"locators as text", test_locator_text},
        {"objects sealed by others", test_learn},
        {"seals by itself, bounded memory", test_auto_seal},
        {"open files are bounded", test_open_files_bound},
        {"iterate, count, discard, forget", test_iterate},
        {"bad names, read-only, no store", test_refusals},
        {"torn files and taken names", test_torn},
    };

    return fm_test_main("store/cas", cases, FM_COUNT_OF(cases));
}
