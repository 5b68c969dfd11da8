/* SPDX-License-Identifier: Apache-2.0 */
/* Stop texts, which may begin in one token and end in another: whenever the
 * text grows, only what a stop text could reach back to is searched. */
#include "engine/serve/stops.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct fm_engine_stops {
    const fm_engine_generate_options_t *options;
    fm_engine_stream_t *stream;
    fm_buf_t text;
    size_t longest; /* stop text */
    bool stopped;
};

fm_status_t fm_engine_stops_create(const fm_engine_generate_options_t *options,
                                   fm_engine_stops_t **stops_out,
                                   fm_error_t *err)
{
    fm_engine_stops_t *stops = fm_calloc(1, sizeof(*stops));

    if (!stops) {
        return fm_no_memory(err);
    }
    stops->options = options;
    for (size_t i = 0; i < options->stop_text_count; i++) {
        size_t len = strlen(options->stop_texts[i]);
        stops->longest = len > stops->longest ? len : stops->longest;
    }
    fm_status_t rc =
        fm_engine_stream_create(options->tokenizer, &stops->stream, err);
    if (rc < 0) {
        fm_engine_stops_destroy(stops);
        return rc;
    }
    *stops_out = stops;
    return FM_OK;
}

fm_engine_stops_t *fm_engine_stops_destroy(fm_engine_stops_t *stops)
{
    if (stops) {
        fm_engine_stream_destroy(stops->stream);
        fm_buf_fini(&stops->text);
        free(stops);
    }
    return NULL;
}

/* Search what is new since the text had @p before bytes; the first stop text
 * in it cuts it. */
static void search(fm_engine_stops_t *stops, size_t before)
{
    const fm_engine_generate_options_t *o = stops->options;
    size_t reach = stops->longest > 0 ? stops->longest - 1 : 0;
    size_t from = before > reach ? before - reach : 0;
    size_t cut = stops->text.len;

    for (size_t i = 0; i < o->stop_text_count && stops->text.len > 0; i++) {
        const char *begin = (const char *)stops->text.data;
        const char *hit = memmem(begin + from, stops->text.len - from,
                                 o->stop_texts[i], strlen(o->stop_texts[i]));
        if (hit && (size_t)(hit - begin) <= cut) {
            cut = (size_t)(hit - begin);
            stops->stopped = true;
        }
    }
    stops->text.len = cut;
}

fm_status_t fm_engine_stops_add(fm_engine_stops_t *stops, int32_t token,
                                bool *stopped_out, fm_error_t *err)
{
    const fm_tokenizer_t *tokenizer = stops->options->tokenizer;
    size_t before = stops->text.len;
    fm_status_t rc = FM_OK;

    /* a model may have more rows than its tokenizer has tokens: no text */
    if (token < fm_tokenizer_vocab_size(tokenizer)) {
        rc = fm_engine_stream_add(stops->stream, token, &stops->text, err);
    }

    if (rc >= 0) {
        search(stops, before);
        *stopped_out = stops->stopped;
    }
    return rc;
}

fm_status_t fm_engine_stops_finish(fm_engine_stops_t *stops, bool *stopped_out,
                                   fm_error_t *err)
{
    size_t before = stops->text.len;
    fm_status_t rc =
        stops->stopped
            ? FM_OK
            : fm_engine_stream_finish(stops->stream, &stops->text, err);

    if (rc >= 0 && !stops->stopped) {
        search(stops, before);
    }
    *stopped_out = stops->stopped;
    return rc;
}

const fm_buf_t *fm_engine_stops_text(const fm_engine_stops_t *stops)
{
    return &stops->text;
}
