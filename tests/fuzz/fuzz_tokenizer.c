/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer.json: what loads encodes a text of many scripts, with and without
 * offsets to the same ids, and decodes any ids; what is refused says why.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "text/bpe/bpe.h"

static const char text[] =
    "Hello  <s>w\xC3\xB6rld</s> \xE4\xBD\xA0\xE5\xA5\xBD 12345\t\n"
    "e\xCC\x81 \xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x91\xA7 aaaa abab <|x|>";

static void same_ids(const fm_bpe_t *bpe, bool parse_special)
{
    fm_bpe_encode_options_t options = {.parse_special = parse_special,
                                       .limit = 4096};
    fm_bpe_ids_t plain = {0};
    fm_bpe_ids_t tracked = {0};
    fm_error_t err = {0};
    fm_buf_t out = {0};
    fm_status_t first =
        fm_bpe_encode(bpe, text, sizeof(text) - 1, &options, &plain, &err);

    options.offsets = true;
    fm_status_t second =
        fm_bpe_encode(bpe, text, sizeof(text) - 1, &options, &tracked, &err);
    if (first != second || plain.count != tracked.count ||
        (first < 0 && (plain.count > 0 || err.text[0] == '\0'))) {
        abort();
    }
    for (size_t i = 0; i < plain.count; i++) {
        if (plain.ids[i] != tracked.ids[i] || plain.ids[i] < 0 ||
            plain.ids[i] >= fm_bpe_id_limit(bpe) ||
            tracked.begins[i] > sizeof(text)) {
            abort();
        }
    }
    const fm_bpe_decode_options_t how = {.keep_special = parse_special};
    if (fm_bpe_decode(bpe, plain.ids, plain.count, &how, &out, &err) < 0 &&
        err.text[0] == '\0') {
        abort();
    }
    fm_buf_fini(&out);
    fm_bpe_ids_fini(&plain);
    fm_bpe_ids_fini(&tracked);
}

static void any_ids(const fm_bpe_t *bpe)
{
    int32_t ids[64];
    int32_t limit = fm_bpe_id_limit(bpe);
    fm_error_t err = {0};
    fm_buf_t out = {0};

    for (int32_t i = 0; i < 64; i++) {
        ids[i] = (i * 37) % limit;
    }
    const fm_bpe_decode_options_t how = {.raw = true};
    (void)!fm_bpe_decode(bpe, ids, 64, &how, &out, &err);
    fm_buf_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fm_error_t err = {0};
    fm_bpe_t *bpe = NULL;

    if (fm_bpe_create(data, size, &bpe, &err) < 0) {
        if (bpe || err.text[0] == '\0') {
            abort(); /* a refusal says why and gives nothing */
        }
        return 0;
    }
    same_ids(bpe, false);
    same_ids(bpe, true);
    any_ids(bpe);
    fm_bpe_destroy(bpe);
    return 0;
}
