/* SPDX-License-Identifier: Apache-2.0 */
/* A segment of format 1, written once, must stay readable for ever.
 * usage: golden_cas DIRECTORY_OF_THE_STORE */
#include <string.h>

#include "base/mem.h"
#include "fmtest.h"
#include "store/cas/cas.h"

static const char *golden_dir;

static const struct {
    const char *digest;
    const char *dataset;
    fm_cas_kind_t kind;
    uint64_t bytes;
} objects[] = {
    {"sha256:"
     "9616199278d37fa2d23d8289c807dac647522ed6fce77f00299ecafa73092958",
     "/objects/data", FM_CAS_ITEM, 12},
    {"sha256:"
     "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
     "/objects/data", FM_CAS_BLOB, 0},
    {"sha256:"
     "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
     "/objects/data", FM_CAS_LINEAGE, 2},
    {"sha256:"
     "24ae2dfe8df57c1b80e54cef3d90ac3b417fd98973345a5f616bbc9a75dcc202",
     "/tensors/"
     "24ae2dfe8df57c1b80e54cef3d90ac3b417fd98973345a5f616bbc9a75dcc202",
     FM_CAS_TENSOR, 24},
    {"sha256:"
     "54114f538801f6678fbd079c23daf4084457385ab206deba2abd70d219cde832",
     "/tensors/"
     "54114f538801f6678fbd079c23daf4084457385ab206deba2abd70d219cde832",
     FM_CAS_TENSOR, 4},
    {"sha256:"
     "2c78b7db1ff77634a0497543e2091fe507409b1d03395e17c35657bc4a97447a",
     "/blobs/"
     "2c78b7db1ff77634a0497543e2091fe507409b1d03395e17c35657bc4a97447a",
     FM_CAS_BLOB, 65537},
};

static void test_objects(void)
{
    fm_error_t err = {0};
    fm_cas_t *cas = NULL;
    fm_cas_verify_result_t result;
    fm_cas_stat_t stat;

    FM_ASSERT_OK(fm_cas_open(golden_dir, NULL, &cas, &err), &err);
    for (size_t i = 0; i < FM_COUNT_OF(objects); i++) {
        fm_digest_t digest;
        fm_cas_kind_t kind;
        fm_cas_locator_t locator;
        fm_buf_t out = {0};
        CU_ASSERT_FATAL(fm_digest_parse(objects[i].digest, &digest));
        FM_ASSERT_OK(fm_cas_get(cas, &digest, &out, &err), &err);
        CU_ASSERT(out.len == objects[i].bytes);
        CU_ASSERT(i != 0 || memcmp(out.data, "{\"golden\":1}", 12) == 0);
        CU_ASSERT(fm_cas_size(cas, &digest, &kind, NULL));
        CU_ASSERT(kind == objects[i].kind);
        CU_ASSERT(fm_cas_locate(cas, &digest, &locator));
        CU_ASSERT_STRING_EQUAL(locator.dataset, objects[i].dataset);
        fm_buf_fini(&out);
    }
    FM_ASSERT_OK(fm_cas_verify(cas, false, NULL, NULL, &result, &err), &err);
    CU_ASSERT(result.object_count == FM_COUNT_OF(objects));
    CU_ASSERT(result.bad_object_count + result.bad_segment_count == 0);
    FM_ASSERT_OK(fm_cas_stat(cas, &stat, &err), &err);
    CU_ASSERT(stat.segment_count == 1 &&
              stat.object_count == FM_COUNT_OF(objects));
    fm_cas_close(cas);
}

static void test_tensor(void)
{
    fm_error_t err = {0};
    fm_cas_t *cas = NULL;
    fm_digest_t digest;
    fm_cas_tensor_t tensor;
    const float expected[6] = {1, 2, 3, 4, 5, 6};
    float values[6];

    FM_ASSERT_OK(fm_cas_open(golden_dir, NULL, &cas, &err), &err);
    CU_ASSERT_FATAL(fm_digest_parse(objects[3].digest, &digest));
    FM_ASSERT_OK(
        fm_cas_get_tensor(cas, &digest, &tensor, values, sizeof(values), &err),
        &err);
    CU_ASSERT(tensor.dtype == FM_CAS_F32 && tensor.rank == 2);
    CU_ASSERT(tensor.shape[0] == 2 && tensor.shape[1] == 3);
    CU_ASSERT(memcmp(values, expected, sizeof(values)) == 0);
    CU_ASSERT_FATAL(fm_digest_parse(objects[4].digest, &digest));
    CU_ASSERT(fm_cas_tensor(cas, &digest, &tensor));
    CU_ASSERT(tensor.dtype == FM_CAS_BF16 && tensor.shape[0] == 2);
    fm_cas_close(cas);
}

int main(int argc, char **argv)
{
    static const fm_test_case_t cases[] = {
        {"objects of format 1", test_objects},
        {"tensors of format 1", test_tensor},
    };

    if (argc != 2) {
        (void)fprintf(stderr, "usage: golden_cas DIRECTORY\n");
        return 2;
    }
    golden_dir = argv[1];
    return fm_test_main("store/cas golden", cases, FM_COUNT_OF(cases));
}
