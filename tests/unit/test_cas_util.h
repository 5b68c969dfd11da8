/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of store/cas share: a scratch store, objects from a seed. */
#ifndef TEST_CAS_UTIL_H
#define TEST_CAS_UTIL_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "scratch.h"
#include "store/cas/cas.h"

static inline fm_cas_t *store_open(const char *dir, const char *writer)
{
    fm_error_t err = {0};
    fm_cas_t *cas = NULL;
    fm_cas_options_t opts = {.writer = writer, .fabric = "test"};

    FM_ASSERT_OK(fm_cas_open(dir, &opts, &cas, &err), &err);
    return cas;
}

/* len bytes that only the seed decides. */
static inline uint8_t *bytes_make(uint64_t seed, size_t len)
{
    fm_rng_t rng;
    uint8_t *bytes = fm_malloc(len + 8);

    CU_ASSERT_FATAL(bytes != NULL);
    fm_rng_init(&rng, seed);
    for (size_t i = 0; i < len; i += 8) {
        uint64_t word = fm_rng_u64(&rng);
        memcpy(bytes + i, &word, 8);
    }
    return bytes;
}

static inline fm_digest_t put_seeded(fm_cas_t *cas, uint64_t seed, size_t len)
{
    fm_error_t err = {0};
    fm_digest_t digest;
    uint8_t *bytes = bytes_make(seed, len);

    FM_ASSERT_OK(fm_cas_put(cas, FM_CAS_BLOB, bytes, len, &digest, &err), &err);
    free(bytes);
    return digest;
}

/* True when the store gives back what put_seeded() put. */
static inline bool get_seeded(fm_cas_t *cas, const fm_digest_t *digest,
                              uint64_t seed, size_t len)
{
    fm_error_t err = {0};
    fm_buf_t out = {0};
    uint8_t *bytes = bytes_make(seed, len);
    bool same = fm_cas_get(cas, digest, &out, &err) == FM_OK &&
                out.len == len && memcmp(out.data, bytes, len) == 0;

    fm_buf_fini(&out);
    free(bytes);
    return same;
}

static inline void file_load(const char *path, fm_buf_t *out)
{
    fm_error_t err = {0};

    fm_buf_clear(out);
    FM_ASSERT_OK(fm_file_read(path, (size_t)1 << 30, out, &err), &err);
}

static inline void file_store(const char *path, const void *data, size_t len)
{
    FILE *file = fopen(path, "wb");

    CU_ASSERT_FATAL(file && fwrite(data, 1, len, file) == len);
    CU_ASSERT_FATAL(fclose(file) == 0);
}

#endif
