/* SPDX-License-Identifier: Apache-2.0 */
/* Number formats and safetensors files, among them every kind of bad one. */
#include "engine/weights/safetensors.h"

#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "engine/weights/dtype.h"
#include "scratch.h"

/* --- formats -------------------------------------------------------------- */

static float from_bits(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof(value));
    return value;
}

static uint16_t narrowed(fm_engine_dtype_t dtype, float value)
{
    uint16_t out = 0;

    (void)fm_engine_dtype_narrow(dtype, &value, &out, 1);
    return out;
}

/* Every half there is, against ldexp(). */
static void test_half(void)
{
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        uint16_t half = (uint16_t)bits;
        int exponent = (int)(bits >> 10 & 31);
        double fraction = (double)(bits & 1023);
        float wide = 0;
        fm_engine_dtype_widen(FM_ENGINE_F16, &half, &wide, 1);
        if (exponent == 31) {
            CU_ASSERT(fraction > 0 ? isnan(wide) : isinf(wide));
            CU_ASSERT(fraction > 0 || narrowed(FM_ENGINE_F16, wide) == half);
            continue;
        }
        double value = exponent ? ldexp(1024 + fraction, exponent - 25)
                                : ldexp(fraction, -24);
        value = bits & 0x8000 ? -value : value;
        CU_ASSERT((double)wide == value);
        CU_ASSERT(narrowed(FM_ENGINE_F16, wide) == half);
    }
}

/* Between two neighbours the nearer one is taken, the even one of equals. */
static void test_rounding(void)
{
    for (uint32_t bits = 0; bits < 0x7bff; bits++) {
        uint16_t pair[2] = {(uint16_t)bits, (uint16_t)(bits + 1)};
        float ends[2];
        fm_engine_dtype_widen(FM_ENGINE_F16, pair, ends, 2);
        float middle = (ends[0] + ends[1]) / 2; /* exact */
        CU_ASSERT(narrowed(FM_ENGINE_F16, middle) ==
                  (bits & 1 ? pair[1] : pair[0]));
        CU_ASSERT(narrowed(FM_ENGINE_F16, nextafterf(middle, 0)) == pair[0]);
        CU_ASSERT(narrowed(FM_ENGINE_F16, nextafterf(middle, 1e9F)) == pair[1]);
    }
    CU_ASSERT(narrowed(FM_ENGINE_BF16, from_bits(0x3f808000)) == 0x3f80);
    CU_ASSERT(narrowed(FM_ENGINE_BF16, from_bits(0x3f818000)) == 0x3f82);
    CU_ASSERT(narrowed(FM_ENGINE_BF16, from_bits(0x3f808001)) == 0x3f81);
    CU_ASSERT(narrowed(FM_ENGINE_BF16, from_bits(0xbf80ffff)) == 0xbf81);
    CU_ASSERT((narrowed(FM_ENGINE_BF16, NAN) & 0x7fff) > 0x7f80);
    CU_ASSERT((narrowed(FM_ENGINE_F16, from_bits(0x7f800001)) & 0x7fff) >
              0x7c00);
}

static void test_overflow(void)
{
    const float values[] = {65504.0F, 65520.0F, -1e6F, INFINITY, 65519.0F};
    uint16_t out[5];

    CU_ASSERT(fm_engine_dtype_narrow(FM_ENGINE_F16, values, out, 5) == 2);
    CU_ASSERT(out[0] == 0x7bff && out[1] == 0x7c00 && out[2] == 0xfc00 &&
              out[3] == 0x7c00 && out[4] == 0x7bff);
    CU_ASSERT(fm_engine_dtype_narrow(FM_ENGINE_BF16, values, out, 5) == 0);
    const float edge = from_bits(0x7f7fffff);
    CU_ASSERT(fm_engine_dtype_narrow(FM_ENGINE_BF16, &edge, out, 1) == 1);
}

/* Widening where the narrow ones lie at the end of the same memory, and
 * narrowing in place; lengths around that of a chunk. */
static void test_in_place(void)
{
    static const size_t counts[] = {1, 2, 3, 1023, 1024, 1025, 5000};

    for (size_t k = 0; k < FM_COUNT_OF(counts); k++) {
        size_t n = counts[k];
        float *block = fm_malloc(n * sizeof(*block));
        CU_ASSERT_FATAL(block != NULL);
        for (size_t i = 0; i < n; i++) {
            block[i] = (float)(i % 251) - 100.0F;
        }
        CU_ASSERT(fm_engine_dtype_narrow(FM_ENGINE_BF16, block, block, n) == 0);
        memmove((char *)block + 2 * n, block, 2 * n);
        fm_engine_dtype_widen(FM_ENGINE_BF16, (char *)block + 2 * n, block, n);
        size_t wrong = 0;
        for (size_t i = 0; i < n; i++) {
            wrong += block[i] != (float)(i % 251) - 100.0F;
        }
        CU_ASSERT(wrong == 0);
        free(block);
    }
}

/* --- files ---------------------------------------------------------------- */

static void file_put(const char *path, uint64_t header_len, const char *header,
                     size_t data_bytes)
{
    fm_buf_t buf = {0};
    fm_error_t err = {0};

    fm_buf_add_u64(&buf, header_len);
    fm_buf_add_str(&buf, header);
    for (size_t i = 0; i < data_bytes; i++) {
        fm_buf_add_u8(&buf, (uint8_t)i);
    }
    FM_ASSERT_OK(fm_file_replace(path, buf.data, buf.len, &err), &err);
    fm_buf_fini(&buf);
}

/* Each is refused, and the text has the words that lead to the mend. */
static void test_hostile(void)
{
#define T(name, dtype, shape, begin, end)                                      \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape                   \
    ",\"data_offsets\":[" begin "," end "]}"
    static const struct {
        const char *header;
        size_t data;
        const char *words; /* in the text, besides the path */
        fm_status_t status;
    } cases[] = {
        {"{" T("a", "F32", "[2]", "0", "8"), 8, "header", FM_ERR_INVALID},
        {"[]", 0, "want an object", FM_ERR_INVALID},
        {"{" T("a", "F32", "[2]", "0", "8") "," T("a", "F32", "[2]", "0",
                                                  "8") "}",
         8, "duplicate", FM_ERR_INVALID},
        {"{" T("a", "F32", "[2]", "0", "8") "," T("b", "F32", "[1]", "4",
                                                  "8") "}",
         8, "b: its data overlaps that of a", FM_ERR_INVALID},
        {"{" T("a", "F32", "[1]", "0", "4") "," T("b", "F32", "[1]", "8",
                                                  "12") "}",
         12, "b: 4 bytes before its data", FM_ERR_INVALID},
        {"{" T("a", "F32", "[1]", "0", "4") "}", 6, "2 bytes at its end",
         FM_ERR_INVALID},
        {"{" T("a", "F32", "[4]", "0", "16") "}", 8, "tensor a: data_offsets",
         FM_ERR_INVALID},
        {"{" T("a", "F32", "[3]", "0", "8") "}", 8, "F32 of its shape takes 12",
         FM_ERR_INVALID},
        {"{" T("a", "F32", "[1]", "8", "4") "}", 8, "begin <= end",
         FM_ERR_INVALID},
        {"{" T("a", "F32", "[-1]", "0", "8") "}", 8, "shape[0]",
         FM_ERR_INVALID},
        {"{" T("a", "F32", "[1.5]", "0", "8") "}", 8, "shape[0]",
         FM_ERR_INVALID},
        {"{" T("a", "F32", "[4294967296,4294967296]", "0", "0") "}", 0,
         "tensor a", FM_ERR_INVALID},
        {"{" T("a", "F32", "[99999999999999999999]", "0", "0") "}", 0, "header",
         FM_ERR_INVALID},
        {"{" T("a", "Q4", "[8]", "0", "4") "}", 4, "\"Q4\" is not known",
         FM_ERR_UNSUPPORTED},
        {"{" T("a", "F32", "[1,1,1,1,1,1,1,1,1]", "0", "4") "}", 4,
         "9 dimensions", FM_ERR_LIMIT},
        {"{\"a\":3}", 0, "tensor a", FM_ERR_INVALID},
        {"{\"a\":{\"dtype\":1,\"shape\":[],\"data_offsets\":[0,4]}}", 4,
         "dtype: want a text", FM_ERR_INVALID},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":4,\"data_offsets\":[0,4]}}", 4,
         "shape", FM_ERR_INVALID},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0]}}", 4,
         "data_offsets", FM_ERR_INVALID},
        {"{" T("", "F32", "[1]", "0", "4") "}", 4, "name", FM_ERR_LIMIT},
        {"{\"__metadata__\":{\"a\":1}}", 0, "__metadata__", FM_ERR_INVALID},
        {"{\"a\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["
         "[[[[[[[[[[[",
         0, "deeper", FM_ERR_INVALID},
    };
    char *dir = scratch_make();
    char *path = fm_asprintf("%s/bad.safetensors", dir);

    for (size_t i = 0; i < FM_COUNT_OF(cases); i++) {
        fm_engine_safetensors_t *file = NULL;
        fm_error_t err = {0};
        file_put(path, strlen(cases[i].header), cases[i].header, cases[i].data);
        fm_status_t rc = fm_engine_safetensors_open(path, &file, &err);
        if (rc != cases[i].status || !strstr(err.text, cases[i].words) ||
            !strstr(err.text, path)) {
            (void)fprintf(stderr, "case %zu: %s: %s\n", i, fm_status_name(rc),
                          err.text);
            CU_ASSERT(false);
        }
        CU_ASSERT(file == NULL);
    }
    free(path);
    scratch_remove(dir);
}

static void refused(const char *path, fm_status_t status, const char *words)
{
    fm_engine_safetensors_t *file = NULL;
    fm_error_t err = {0};

    CU_ASSERT(fm_engine_safetensors_open(path, &file, &err) == status);
    CU_ASSERT(strstr(err.text, words) != NULL);
    CU_ASSERT(file == NULL);
}

static void test_outside(void)
{
    char *dir = scratch_make();
    char *path = fm_asprintf("%s/x.safetensors", dir);
    fm_error_t err = {0};

    refused(path, FM_ERR_NOT_FOUND, path);
    refused(dir, FM_ERR_INVALID, "not a regular file");
    FM_ASSERT_OK(fm_file_replace(path, "abc", 3, &err), &err);
    refused(path, FM_ERR_INVALID, "too short");
    file_put(path, 100000001, "{}", 0);
    refused(path, FM_ERR_LIMIT, "100000001");
    file_put(path, UINT64_MAX, "{}", 0);
    refused(path, FM_ERR_LIMIT, "another kind of file");
    file_put(path, 100, "{}", 0);
    refused(path, FM_ERR_INVALID, "cut short");
    CU_ASSERT_FATAL(unlink(path) == 0 && mkfifo(path, 0600) == 0);
    refused(path, FM_ERR_INVALID, "not a regular file");
    free(path);
    scratch_remove(dir);
}

/* A file that shrinks after it was opened. */
static void test_shrinks(void)
{
    char *dir = scratch_make();
    char *path = fm_asprintf("%s/x.safetensors", dir);
    const char *header = "{" T("w", "F32", "[4]", "0", "16") "}";
    fm_engine_safetensors_t *file = NULL;
    fm_error_t err = {0};
    float data[4];

    file_put(path, strlen(header), header, 16);
    FM_ASSERT_OK(fm_engine_safetensors_open(path, &file, &err), &err);
    const fm_engine_safetensor_t *tensor = fm_engine_safetensors_at(file, 0);
    FM_ASSERT_OK(fm_engine_safetensors_read(file, tensor, data, &err), &err);
    CU_ASSERT(((uint8_t *)data)[15] == 15);
    CU_ASSERT_FATAL(truncate(path, (off_t)(8 + strlen(header) + 9)) == 0);
    CU_ASSERT(fm_engine_safetensors_read(file, tensor, data, &err) ==
              FM_ERR_INVALID);
    CU_ASSERT(strstr(err.text, "tensor w") && strstr(err.text, path));
    fm_engine_safetensors_close(file);
    free(path);
    scratch_remove(dir);
}

/* --- writing -------------------------------------------------------------- */

static void test_write(void)
{
    char *dir = scratch_make();
    char *path = fm_asprintf("%s/x.safetensors", dir);
    fm_engine_safetensor_t tensors[] = {
        {.name = "b\"\\\xc3\xa9", .dtype = "F16", .rank = 1, .shape = {3}},
        {.name = "a", .dtype = "F32", .rank = 2, .shape = {2, 2}},
        {.name = "none", .dtype = "F32", .rank = 2, .shape = {0, 7}},
    };
    const uint8_t data[22] = {1, 2, 3, [16] = 9, [21] = 7};
    uint8_t back[16] = {0};
    fm_engine_safetensors_writer_t *writer = NULL;
    fm_engine_safetensors_t *file = NULL;
    fm_error_t err = {0};

    qsort(tensors, 3, sizeof(*tensors), fm_engine_safetensors_order);
    CU_ASSERT(strcmp(tensors[0].name, "a") == 0);
    FM_ASSERT_OK(fm_engine_safetensors_create(path, tensors, 3, &writer, &err),
                 &err);
    FM_ASSERT_OK(fm_engine_safetensors_append(writer, data, 5, &err), &err);
    CU_ASSERT(fm_engine_safetensors_finish(writer, &err) == FM_ERR_INVALID);
    FM_ASSERT_OK(fm_engine_safetensors_append(writer, data + 5, 17, &err),
                 &err);
    CU_ASSERT(fm_engine_safetensors_append(writer, data, 1, &err) ==
              FM_ERR_INVALID);
    FM_ASSERT_OK(fm_engine_safetensors_finish(writer, &err), &err);
    fm_engine_safetensors_destroy(writer);

    CU_ASSERT(fm_engine_safetensors_create(path, tensors, 3, &writer, &err) ==
              FM_ERR_EXISTS);
    CU_ASSERT(access(path, F_OK) == 0); /* another's file stays */
    FM_ASSERT_OK(fm_engine_safetensors_open(path, &file, &err), &err);
    CU_ASSERT(fm_engine_safetensors_count(file) == 3);
    for (size_t i = 0; i < 3; i++) {
        CU_ASSERT(fm_engine_safetensors_find(file, tensors[i].name) != NULL);
    }
    CU_ASSERT(fm_engine_safetensors_find(file, "c") == NULL);
    FM_ASSERT_OK(fm_engine_safetensors_read(
                     file, fm_engine_safetensors_find(file, "a"), back, &err),
                 &err);
    CU_ASSERT(memcmp(back, data, 16) == 0);
    fm_engine_safetensors_close(file);
    free(path);
    scratch_remove(dir);
}

/* What is given up half-way leaves no file. */
static void test_given_up(void)
{
    char *dir = scratch_make();
    char *path = fm_asprintf("%s/x.safetensors", dir);
    fm_engine_safetensor_t tensor = {
        .name = "a", .dtype = "F32", .rank = 1, .shape = {4}};
    fm_engine_safetensors_writer_t *writer = NULL;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_engine_safetensors_create(path, &tensor, 1, &writer, &err),
                 &err);
    FM_ASSERT_OK(fm_engine_safetensors_append(writer, "1234", 4, &err), &err);
    fm_engine_safetensors_destroy(writer);
    CU_ASSERT(access(path, F_OK) != 0);
    free(path);
    scratch_remove(dir);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"every half", test_half},
        {"rounding", test_rounding},
        {"too large for the format", test_overflow},
        {"in place", test_in_place},
        {"hostile headers", test_hostile},
        {"hostile files", test_outside},
        {"a file that shrinks", test_shrinks},
        {"write and read", test_write},
        {"a writer that gives up", test_given_up},
    };

    return fm_test_main("engine/safetensors", cases, FM_COUNT_OF(cases));
}
