/* SPDX-License-Identifier: Apache-2.0 */
/* Manifests of models and adapters: what is accepted has tensors of the sizes
 * that later code trusts, and is found by name. */
#include "fuzz.h"

#include <stdlib.h>

#include "run/model/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fm_error_t err = {0};
    fm_model_manifest_t manifest = {0};

    if (fm_model_manifest_parse((const char *)data, size, "input", &manifest,
                                &err) < 0) {
        if (manifest.json || err.text[0] == '\0') {
            abort();
        }
        return 0;
    }
    for (size_t i = 0; i < manifest.tensor_count; i++) {
        const fm_model_tensor_t *tensor = &manifest.tensors[i];
        if (tensor->count != tensor->shape[0] * tensor->shape[1] ||
            fm_model_manifest_find(&manifest, tensor->name) != tensor) {
            abort();
        }
    }
    fm_model_manifest_fini(&manifest);
    return 0;
}
