/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Incremental decoding.  Ids wait until their text can no longer change: no
 * open character at its end, no open run of byte-fallback tokens.  Then they
 * are decoded together, as a continuation of what came before.
 */
#include <stdlib.h>

#include "base/mem.h"
#include "text/tokenizer/kind.h"
#include "text/unicode/unicode.h"

/* Most ids that wait: longer runs of bytes are cut here.  No text of a model
 * has a character, or a run of rare ones, of this length. */
#define WAIT_MAX 4096

struct fm_engine_stream {
    const fm_tokenizer_t *tokenizer;
    fm_tokens_t wait;
    bool continued; /* a token was decoded before */
};

fm_status_t fm_engine_stream_create(const fm_tokenizer_t *tokenizer,
                                    fm_engine_stream_t **stream_out,
                                    fm_error_t *err)
{
    fm_engine_stream_t *stream = fm_calloc(1, sizeof(*stream));

    if (!stream) {
        return fm_no_memory(err);
    }
    stream->tokenizer = tokenizer;
    *stream_out = stream;
    return FM_OK;
}

fm_engine_stream_t *fm_engine_stream_destroy(fm_engine_stream_t *stream)
{
    if (stream) {
        fm_tokens_fini(&stream->wait);
        free(stream);
    }
    return NULL;
}

static fm_status_t wait_decode(fm_engine_stream_t *stream, bool raw,
                               fm_buf_t *text, fm_error_t *err)
{
    const fm_bpe_decode_options_t options = {.raw = raw,
                                             .continued = stream->continued};

    return fm_tokenizer_spell(stream->tokenizer, stream->wait.ids,
                              stream->wait.count, &options, text, err);
}

static fm_status_t wait_flush(fm_engine_stream_t *stream, fm_buf_t *text,
                              fm_error_t *err)
{
    fm_status_t rc = wait_decode(stream, false, text, err);

    if (rc >= 0) {
        stream->continued = stream->continued || stream->wait.count > 0;
        stream->wait.count = 0;
    }
    return rc;
}

/* Whether what waits ends within a character. */
static fm_status_t wait_is_open(fm_engine_stream_t *stream, bool *open_out,
                                fm_error_t *err)
{
    fm_buf_t raw = {0};
    fm_status_t rc = wait_decode(stream, true, &raw, err);

    *open_out =
        raw.len > 0 && fm_utf8_open_tail((const char *)raw.data, raw.len) > 0;
    fm_buf_fini(&raw);
    return rc;
}

fm_status_t fm_engine_stream_add(fm_engine_stream_t *stream, int32_t id,
                                 fm_buf_t *text, fm_error_t *err)
{
    const fm_tokenizer_t *tokenizer = stream->tokenizer;
    bool open = false;

    if (id < 0 || id >= tokenizer->vocab_size) {
        return fm_error_set(err, FM_ERR_INVALID, "token %d: ids are 0 to %d",
                            id, tokenizer->vocab_size - 1);
    }
    if (tokenizer->kind->is_special(tokenizer, id)) {
        return FM_OK; /* decoding leaves it out; bytes on both sides join */
    }
    fm_status_t rc = fm_tokens_add(&stream->wait, id, err);
    if (rc < 0) {
        return rc;
    }
    if (stream->wait.count < WAIT_MAX) {
        if (tokenizer->kind->is_byte(tokenizer, id)) {
            return FM_OK;
        }
        if ((rc = wait_is_open(stream, &open, err)) < 0 || open) {
            return rc;
        }
    }
    return wait_flush(stream, text, err);
}

fm_status_t fm_engine_stream_finish(fm_engine_stream_t *stream, fm_buf_t *text,
                                    fm_error_t *err)
{
    fm_status_t rc = wait_flush(stream, text, err);

    stream->continued = false;
    stream->wait.count = 0;
    return rc;
}
