/* SPDX-License-Identifier: Apache-2.0 */
/* safetensors headers: what is accepted tiles the data and is found by name;
 * what is refused says why and leaves nothing behind. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "engine/weights/safetensors.h"

static void file_check(const fm_engine_safetensors_t *file, uint64_t data_bytes)
{
    uint64_t at = 0;

    for (size_t i = 0; i < fm_engine_safetensors_count(file); i++) {
        const fm_engine_safetensor_t *tensor =
            fm_engine_safetensors_at(file, i);
        uint64_t bytes = fm_engine_safetensors_dtype_bytes(tensor->dtype);
        for (size_t k = 0; k < tensor->rank; k++) {
            bytes *= tensor->shape[k];
        }
        if (tensor->begin != at || tensor->bytes != bytes ||
            fm_engine_safetensors_find(file, tensor->name) != tensor) {
            abort();
        }
        at += tensor->bytes;
    }
    if (at != data_bytes) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fm_error_t err = {0};
    fm_engine_safetensors_t *file = NULL;
    size_t len = 0;

    if (size < 8) {
        return 0;
    }
    for (size_t i = 8; i-- > 0;) {
        len = len << 8 | data[i];
    }
    len = len < size - 8 ? len : size - 8;
    if (fm_engine_safetensors_parse(data + 8, len, size - 8 - len, "input",
                                    &file, &err) < 0) {
        if (file || err.text[0] == '\0') {
            abort();
        }
        return 0;
    }
    file_check(file, size - 8 - len);
    fm_engine_safetensors_close(file);
    return 0;
}
