/* SPDX-License-Identifier: Apache-2.0 */
/* One call: a server of just the size, and a list of what it reports. */
#include "engine/serve/generate.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/serve/decoder.h"
#include "engine/serve/server.h"

void fm_engine_completion_fini(fm_engine_completion_t *completion)
{
    free(completion->tokens);
    free(completion->logp);
    free(completion->text);
    *completion = (fm_engine_completion_t){0};
}

static fm_status_t collect(void *ctx, size_t prompt,
                           fm_engine_completion_t *completion,
                           fm_status_t status, const fm_error_t *why,
                           fm_error_t *err)
{
    fm_engine_completion_t *completions = ctx;

    if (!completion) {
        return fm_error_set(err, status, "%s", why->text);
    }
    completions[prompt] = *completion;
    return FM_OK;
}

/* Room for the longest sequences side by side. */
static fm_engine_server_options_t
server_size(const fm_engine_model_t *model, const fm_engine_prompt_t *prompts,
            size_t count, const fm_engine_generate_options_t *options)
{
    const fm_engine_config_t *config = fm_engine_model_config(model);
    size_t limit = config->max_position_embeddings;
    size_t fresh = options->max_new_tokens ? options->max_new_tokens : 128;
    size_t lanes = options->max_batch ? options->max_batch : 16;
    size_t longest = 0;

    for (size_t p = 0; p < count; p++) {
        longest = prompts[p].count > longest ? prompts[p].count : longest;
    }
    longest =
        fresh < limit && longest < limit - fresh ? longest + fresh : limit;
    lanes = lanes < count ? lanes : count;
    size_t one = (longest + FM_ENGINE_PAGE_TOKENS - 1) / FM_ENGINE_PAGE_TOKENS *
                 fm_engine_decoder_page_bytes(config);
    size_t fit = ((size_t)1 << 30) / one;
    fit = fit < 1 ? 1 : fit;
    return (fm_engine_server_options_t){
        .kv_bytes = one * (lanes < fit ? lanes : fit), .lanes = lanes};
}

fm_status_t fm_engine_generate(fm_engine_model_t *model,
                               const fm_engine_prompt_t *prompts, size_t count,
                               const fm_engine_generate_options_t *options,
                               fm_engine_completion_t *completions_out,
                               fm_error_t *err)
{
    fm_engine_generate_options_t o = {0};
    fm_engine_server_t *server = NULL;
    fm_engine_completion_t *completions = NULL;
    fm_status_t rc = FM_OK;

    if (count == 0) {
        return FM_OK;
    }
    if (options) {
        o = *options;
    }
    const fm_engine_server_options_t size =
        server_size(model, prompts, count, &o);
    if (!(completions = fm_calloc(count, sizeof(*completions)))) {
        return fm_no_memory(err);
    }
    const fm_engine_sink_t sink = {.ctx = completions, .done = collect};
    if ((rc = fm_engine_server_create(model, &size, &server, err)) < 0 ||
        (rc = fm_engine_serve(server, prompts, count, &o, &sink, err)) < 0) {
        for (size_t p = 0; p < count; p++) {
            fm_engine_completion_fini(&completions[p]);
        }
        goto out;
    }
    memcpy(completions_out, completions, count * sizeof(*completions_out));
out:
    free(completions);
    fm_engine_server_destroy(server);
    return rc;
}
