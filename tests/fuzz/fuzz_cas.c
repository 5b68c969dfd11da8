/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hostile segments: seeded damage, half of it with every checksum made right
 * again, so that the checks behind the checksums are what is tested.  Nothing
 * may crash, read outside the file, or give out bytes that are not the
 * digest's. usage: fuzz_cas [rounds [first-seed]]
 */
#include "../unit/test_cas_util.h"

#define HEADER_BYTES 4096
#define ROW_BYTES 64

static uint64_t load_u64(const uint8_t *at)
{
    uint64_t value = 0;

    memcpy(&value, at, sizeof(value));
    return value;
}

static void store_u64(uint8_t *at, uint64_t value)
{
    memcpy(at, &value, sizeof(value));
}

/* A number a parser may trip over. */
static uint64_t nasty(fm_rng_t *rng, uint64_t file_bytes)
{
    const uint64_t values[] = {0,
                               1,
                               HEADER_BYTES - 1,
                               HEADER_BYTES,
                               file_bytes - 1,
                               file_bytes,
                               file_bytes + 1,
                               UINT64_C(1) << 24,
                               UINT64_C(1) << 40,
                               UINT64_C(1) << 63,
                               UINT64_MAX,
                               UINT64_MAX - 63,
                               UINT32_MAX,
                               fm_rng_u64(rng),
                               fm_rng_below(rng, file_bytes)};

    return values[fm_rng_below(rng, FM_COUNT_OF(values))];
}

/* Make index hash and header hash right, where the index is in the file. */
static void rehash(uint8_t *bytes, size_t len)
{
    uint64_t rows = load_u64(bytes + 24);
    uint64_t row_count = load_u64(bytes + 32);
    uint64_t shapes = load_u64(bytes + 40);
    uint64_t shape_count = load_u64(bytes + 48);
    fm_buf_t index = {0};

    if (rows <= len && row_count <= (len - rows) / 64 && shapes <= len &&
        shape_count <= (len - shapes) / 72) {
        fm_buf_add(&index, bytes + rows, (size_t)row_count * 64);
        fm_buf_add(&index, bytes + shapes, (size_t)shape_count * 72);
        store_u64(bytes + 72, fm_hash64(index.data, index.len));
        fm_buf_fini(&index);
    }
    store_u64(bytes + HEADER_BYTES - 8, fm_hash64(bytes, HEADER_BYTES - 8));
}

/* Change a field of the header, or of a row, or of a shape. */
static void field_mutate(fm_rng_t *rng, uint8_t *bytes, size_t len,
                         const uint8_t *whole)
{
    uint64_t rows = load_u64(whole + 24);
    uint64_t shapes = load_u64(whole + 40);
    uint64_t value = nasty(rng, len);

    switch (fm_rng_below(rng, 4)) {
    case 0:
        store_u64(bytes + 8 + 8 * fm_rng_below(rng, 10), value);
        break;
    case 1: /* address, length, offset */
        store_u64(bytes + rows + ROW_BYTES * fm_rng_below(rng, 5) + 32 +
                      8 * fm_rng_below(rng, 3),
                  value);
        break;
    case 2: /* shape, kind, place */
        bytes[rows + ROW_BYTES * fm_rng_below(rng, 5) + 56 +
              fm_rng_below(rng, 8)] = (uint8_t)value;
        break;
    default:
        bytes[shapes + fm_rng_below(rng, 72)] = (uint8_t)value;
        break;
    }
}

/* Open, look at, read and verify everything. */
static size_t exercise(const char *dir)
{
    fm_error_t err = {0};
    fm_cas_t *cas = NULL;
    fm_cas_object_t object;
    fm_cas_verify_result_t result;
    fm_cas_stat_t stat;
    size_t cursor = 0;
    size_t good = 0;
    fm_buf_t names = {0};

    FM_ASSERT_OK(fm_cas_open(dir, NULL, &cas, &err), &err);
    FM_ASSERT_OK(fm_cas_stat(cas, &stat, &err), &err);
    while (fm_cas_next(cas, &cursor, &object)) {
        fm_buf_add(&names, object.digest.bytes, 32);
    }
    for (size_t i = 0; i + 32 <= names.len; i += 32) {
        fm_buf_t out = {0};
        fm_digest_t digest;
        fm_cas_tensor_t tensor;
        memcpy(digest.bytes, names.data + i, 32);
        (void)fm_cas_tensor(cas, &digest, &tensor);
        if (fm_cas_get(cas, &digest, &out, &err) == FM_OK) {
            fm_digest_t found = fm_sha256(out.data, out.len);
            CU_ASSERT(fm_digest_equal(&found, &digest));
            good++;
        } else {
            CU_ASSERT(out.len == 0 && err.text[0] != '\0');
        }
        fm_buf_fini(&out);
    }
    FM_ASSERT_OK(fm_cas_verify(cas, false, NULL, NULL, &result, &err), &err);
    fm_buf_fini(&names);
    fm_cas_close(cas);
    return good;
}

static long rounds = 1500;
static uint64_t first_seed = 1;

static void test_hostile(void)
{
    fm_error_t err = {0};
    fm_digest_t digest;
    const uint64_t shape[2] = {3, 4};
    char *dir = scratch_make();
    char *path = fm_asprintf("%s/segments/z-0.h5", dir);
    fm_buf_t whole = {0};
    size_t refused = 0;
    size_t partial = 0;
    fm_cas_t *cas = store_open(dir, "z");
    uint8_t *bytes = bytes_make(5, 48);

    (void)put_seeded(cas, 1, 10);
    (void)put_seeded(cas, 2, 2000);
    (void)put_seeded(cas, 3, 0);
    (void)put_seeded(cas, 4, 66000);
    FM_ASSERT_OK(
        fm_cas_put_tensor(cas, FM_CAS_F32, shape, 2, bytes, &digest, &err),
        &err);
    FM_ASSERT_OK(fm_cas_seal(cas, &err), &err);
    fm_cas_close(cas);
    file_load(path, &whole);
    CU_ASSERT(exercise(dir) == 5);
    uint8_t *copy = fm_malloc(whole.len);
    CU_ASSERT_FATAL(copy != NULL);
    for (long i = 0; i < rounds; i++) {
        fm_rng_t rng;
        size_t len = whole.len;
        fm_rng_init(&rng, first_seed + (uint64_t)i);
        memcpy(copy, whole.data, whole.len);
        for (uint64_t n = 1 + fm_rng_below(&rng, 3); n > 0; n--) {
            if (i % 2 == 0) {
                field_mutate(&rng, copy, whole.len, whole.data);
            } else {
                copy[fm_rng_below(&rng, whole.len)] ^=
                    (uint8_t)(1U << fm_rng_below(&rng, 8));
            }
        }
        if (i % 2 == 0) {
            rehash(copy, whole.len);
        } else if (fm_rng_below(&rng, 4) == 0) {
            len = (size_t)fm_rng_below(&rng, whole.len);
        }
        file_store(path, copy, len);
        size_t good = exercise(dir);
        refused += good == 0;
        partial += good > 0 && good < 5;
    }
    /* Both kinds of damage were met, or the seeds test nothing. */
    CU_ASSERT(rounds < 500 || (refused > 50 && partial > 20));
    (void)printf("  %ld rounds, %zu refused, %zu partly read\n", rounds,
                 refused, partial);
    free(copy);
    free(bytes);
    free(path);
    fm_buf_fini(&whole);
    scratch_remove(dir);
}

/* Locators and quarantine lines come from outside as well. */
static void test_locator(void)
{
    static const char alphabet[] =
        "abc019:/._-h5objectsdatablobstensors\xff \n%";
    fm_rng_t rng;

    fm_rng_init(&rng, first_seed);
    for (int i = 0; i < 20000; i++) {
        char text[300] = "seg-1.h5:/objects/data:12:34";
        char again[FM_CAS_LOCATOR_TEXT_BYTES];
        fm_cas_locator_t locator;
        size_t len = i % 2 ? strlen(text) : fm_rng_below(&rng, 299);
        for (size_t k = 0; k < len; k++) {
            if (i % 2 == 0 || fm_rng_below(&rng, 20) == 0) {
                text[k] = alphabet[fm_rng_below(&rng, sizeof(alphabet))];
            }
        }
        if (fm_cas_locator_parse(text, &locator)) {
            CU_ASSERT_STRING_EQUAL(fm_cas_locator_format(&locator, again),
                                   text);
        }
    }
}

int main(int argc, char **argv)
{
    static const fm_test_case_t cases[] = {
        {"hostile segments", test_hostile},
        {"hostile locators", test_locator},
    };

    rounds = argc > 1 ? strtol(argv[1], NULL, 10) : rounds;
    first_seed = argc > 2 ? strtoull(argv[2], NULL, 10) : first_seed;
    return fm_test_main("store/cas fuzz", cases, FM_COUNT_OF(cases));
}
