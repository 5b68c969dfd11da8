/* SPDX-License-Identifier: Apache-2.0 */
#include "base/hash.h"

#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/mem.h"

struct fm_sha256_ctx {
    EVP_MD_CTX *evp;
};

/* A failure below means a broken libcrypto (FIPS self-test, say): there is no
 * identity without a hash, so the process cannot go on. */
static void require(int ok)
{
    if (ok != 1) {
        abort();
    }
}

fm_sha256_ctx_t *fm_sha256_create(void)
{
    fm_sha256_ctx_t *ctx = fm_calloc(1, sizeof(*ctx));

    if (!ctx || !(ctx->evp = EVP_MD_CTX_new())) {
        free(ctx);
        return NULL;
    }
    require(EVP_DigestInit_ex(ctx->evp, EVP_sha256(), NULL));
    return ctx;
}

void fm_sha256_update(fm_sha256_ctx_t *ctx, const void *data, size_t len)
{
    require(EVP_DigestUpdate(ctx->evp, data, len));
}

fm_digest_t fm_sha256_finish(fm_sha256_ctx_t *ctx)
{
    fm_digest_t digest;

    require(EVP_DigestFinal_ex(ctx->evp, digest.bytes, NULL));
    require(EVP_DigestInit_ex(ctx->evp, EVP_sha256(), NULL));
    return digest;
}

void fm_sha256_destroy(fm_sha256_ctx_t *ctx)
{
    if (ctx) {
        EVP_MD_CTX_free(ctx->evp);
        free(ctx);
    }
}

/* One context a thread: making one costs more than hashing 64 bytes. */
static pthread_key_t thread_ctx_key;
static pthread_once_t thread_ctx_once = PTHREAD_ONCE_INIT;

static void thread_ctx_destroy(void *ctx)
{
    EVP_MD_CTX_free(ctx);
}

static void thread_ctx_init(void)
{
    require(pthread_key_create(&thread_ctx_key, thread_ctx_destroy) == 0);
}

fm_digest_t fm_sha256(const void *data, size_t len)
{
    fm_digest_t digest;

    require(pthread_once(&thread_ctx_once, thread_ctx_init) == 0);
    EVP_MD_CTX *evp = pthread_getspecific(thread_ctx_key);
    if (!evp) {
        evp = EVP_MD_CTX_new();
        require(evp && pthread_setspecific(thread_ctx_key, evp) == 0);
    }
    require(EVP_DigestInit_ex(evp, EVP_sha256(), NULL));
    require(EVP_DigestUpdate(evp, data, len));
    require(EVP_DigestFinal_ex(evp, digest.bytes, NULL));
    return digest;
}

char *fm_digest_format(const fm_digest_t *digest, char *text)
{
    static const char hex[] = "0123456789abcdef";

    memcpy(text, "sha256:", 7);
    for (size_t i = 0; i < sizeof(digest->bytes); i++) {
        text[7 + 2 * i] = hex[digest->bytes[i] >> 4];
        text[8 + 2 * i] = hex[digest->bytes[i] & 15];
    }
    text[FM_DIGEST_TEXT_BYTES - 1] = '\0';
    return text;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool fm_digest_parse(const char *text, fm_digest_t *digest_out)
{
    fm_digest_t digest;

    if (strlen(text) != FM_DIGEST_TEXT_BYTES - 1 ||
        memcmp(text, "sha256:", 7) != 0) {
        return false;
    }
    for (size_t i = 0; i < sizeof(digest.bytes); i++) {
        int high = hex_value(text[7 + 2 * i]);
        int low = hex_value(text[8 + 2 * i]);
        if (high < 0 || low < 0) {
            return false;
        }
        digest.bytes[i] = (uint8_t)(high << 4 | low);
    }
    *digest_out = digest;
    return true;
}

bool fm_digest_equal(const fm_digest_t *a, const fm_digest_t *b)
{
    return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

bool fm_digest_is_zero(const fm_digest_t *digest)
{
    static const fm_digest_t zero;

    return fm_digest_equal(digest, &zero);
}

uint64_t fm_hash64(const void *data, size_t len)
{
    return XXH3_64bits(data, len);
}
