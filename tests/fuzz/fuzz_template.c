/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chat templates: what is read renders twice to the same text, or fails with a
 * reason, within its bounds.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "text/template/template.h"

static const char context[] =
    "{\"messages\":[{\"role\":\"system\",\"content\":\" be \"},"
    "{\"role\":\"user\",\"content\":\"h\\u00f6 <think>x</think> "
    "\\ud83d\\ude00\"},"
    "{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"id\":\"1\","
    "\"function\":{\"name\":\"f\",\"arguments\":{\"a\":1.5,\"b\":null}}}]},"
    "{\"role\":\"tool\",\"content\":[1,\"two\",{\"three\":3}]}],"
    "\"add_generation_prompt\":true,\"tools\":[{\"n\":[true,false]}],"
    "\"bos_token\":\"<s>\",\"eos_token\":\"</s>\"}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fm_error_t err = {0};
    fm_template_t *tpl = NULL;
    fm_json_t *json = NULL;
    fm_template_output_t once = {0};
    fm_template_output_t twice = {0};

    if (fm_template_create((const char *)data, size, "input", &tpl, &err) < 0) {
        if (tpl || err.text[0] == '\0') {
            abort(); /* a refusal says why and gives nothing */
        }
        return 0;
    }
    if (fm_json_parse(context, sizeof(context) - 1, "context", &json, &err) <
        0) {
        abort();
    }
    const fm_template_input_t input = {.untrusted = json};
    fm_status_t first = fm_template_render(tpl, &input, &once, &err);
    fm_status_t second = fm_template_render(tpl, &input, &twice, &err);
    if (first != second || (first < 0 && err.text[0] == '\0') ||
        once.len != twice.len ||
        (first >= 0 && memcmp(once.text, twice.text, once.len) != 0)) {
        abort();
    }
    for (size_t i = 0; i < once.span_count; i++) {
        if (once.spans[i].begin > once.spans[i].end ||
            once.spans[i].end > once.len) {
            abort();
        }
    }
    fm_template_output_fini(&once);
    fm_template_output_fini(&twice);
    fm_json_drop(json);
    fm_template_destroy(tpl);
    return 0;
}
