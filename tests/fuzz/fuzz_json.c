/* SPDX-License-Identifier: Apache-2.0 */
/* JSON text: what parses has one canonical text, and that text parses back. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fm_error_t err = {0};
    fm_json_t *value = NULL;
    fm_json_t *again = NULL;

    if (fm_json_parse((const char *)data, size, "input", &value, &err) < 0) {
        if (value || err.text[0] == '\0') {
            abort(); /* a refusal says why and gives nothing */
        }
        return 0;
    }
    char *text = fm_json_canonical(value);
    char *text_again = NULL;
    if (!text ||
        fm_json_parse(text, strlen(text), "canonical", &again, &err) < 0 ||
        !(text_again = fm_json_canonical(again)) ||
        strcmp(text, text_again) != 0) {
        abort();
    }
    free(text);
    free(text_again);
    fm_json_drop(value);
    fm_json_drop(again);
    return 0;
}
