/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decoders: each step turns a list of token texts into another; the text is
 * what is left, put together.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/bpe/internal.h"

enum op { BYTE_FALLBACK, BYTE_LEVEL, FUSE, METASPACE, REPLACE, STRIP };

/* --- bytes -----------------------------------------------------------------
 */

/* Bytes that print stand for themselves, the others follow from U+0100 on. */
static bool byte_prints(uint8_t byte)
{
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
}

uint32_t fm_bpe_byte_to_char(uint8_t byte)
{
    uint32_t others = 0;

    if (byte_prints(byte)) {
        return byte;
    }
    for (unsigned i = 0; i < byte; i++) {
        others += !byte_prints((uint8_t)i);
    }
    return 0x100 + others;
}

int fm_bpe_char_to_byte(uint32_t c)
{
    if (c < 0x100) {
        return byte_prints((uint8_t)c) ? (int)c : -1;
    }
    if (c < 0x121) {
        return (int)c - 0x100; /* 0x00…0x20 */
    }
    if (c < 0x143) {
        return (int)c - 0x121 + 0x7F; /* 0x7F…0xA0 */
    }
    return c == 0x143 ? 0xAD : -1;
}

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

int fm_bpe_fallback_byte(const char *token, size_t len)
{
    if (len != 6 || memcmp(token, "<0x", 3) != 0 || token[5] != '>' ||
        hex(token[3]) < 0 || hex(token[4]) < 0) {
        return -1;
    }
    return hex(token[3]) * 16 + hex(token[4]);
}

/* --- reading ---------------------------------------------------------------
 */

static fm_status_t strip_load(const fm_json_t *json, const char *what,
                              fm_bpe_step_t *step, fm_error_t *err)
{
    fm_status_t rc = fm_bpe_step_load_content(json, "content", what, step, err);
    int64_t start = fm_json_get_int(json, "start", -1);

    if (rc < 0) {
        return rc;
    }
    if (start < 0 || start > (int64_t)FM_BPE_TOKEN_MAX ||
        fm_utf8_count(step->content, step->content_len) != 1) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "%s: want \"content\" of one character and a "
                            "count \"start\"",
                            what);
    }
    if (fm_json_get_int(json, "stop", 0) != 0) {
        return fm_error_set(err, FM_ERR_UNSUPPORTED,
                            "%s.stop: stripping behind is not supported", what);
    }
    step->start = (size_t)start;
    return FM_OK;
}

static const fm_bpe_step_type_t types[] = {
    {"ByteFallback", fm_bpe_step_load_nothing, BYTE_FALLBACK},
    {"ByteLevel", fm_bpe_step_load_nothing, BYTE_LEVEL},
    {"Fuse", fm_bpe_step_load_nothing, FUSE},
    {"Metaspace", fm_bpe_step_load_metaspace, METASPACE},
    {"Replace", fm_bpe_step_load_replace, REPLACE},
    {"Strip", strip_load, STRIP},
};

fm_status_t fm_bpe_decoder_load(const fm_json_t *json, fm_bpe_steps_t *steps,
                                fm_error_t *err)
{
    return fm_bpe_steps_load(json, "decoder", "decoders", types,
                             FM_COUNT_OF(types), steps, err);
}

bool fm_bpe_decoder_has_fallback(const fm_bpe_steps_t *steps)
{
    for (size_t i = 0; i < steps->count; i++) {
        if (steps->list[i].type->op == BYTE_FALLBACK) {
            return true;
        }
    }
    return false;
}

/* --- running ---------------------------------------------------------------
 */

/* What a step reads and writes. */
struct run {
    const fm_bpe_decode_options_t *options;
    fm_regex_matcher_t *matcher;
    const char *text; /* the tokens' */
    fm_bpe_ranges_t *tokens;
    fm_buf_t out;
    bool fused; /* the whole text is one token by now */
};

static const char *token_at(const struct run *run, size_t i, size_t *len_out)
{
    fm_bpe_range_t range = run->tokens->list[i];

    *len_out = range.end - range.begin;
    return run->text + range.begin;
}

/* One token of all the bytes that the characters stand for; a token with
 * another character stands for its own bytes. */
static void byte_level_run(struct run *run)
{
    fm_buf_t bytes = {0};

    for (size_t i = 0; i < run->tokens->count; i++) {
        size_t len = 0;
        const char *token = token_at(run, i, &len);
        size_t before = bytes.len;
        size_t used = 0;
        for (size_t at = 0; at < len; at += used) {
            int byte = fm_bpe_char_to_byte(fm_utf8_decode(token + at, &used));
            if (byte < 0) {
                bytes.len = before;
                fm_buf_add(&bytes, token, len);
                break;
            }
            fm_buf_add_u8(&bytes, (uint8_t)byte);
        }
    }
    if (run->options->raw) {
        fm_buf_add(&run->out, bytes.data, bytes.len);
    } else {
        fm_utf8_add_lossy(&run->out, (const char *)bytes.data, bytes.len);
    }
    run->out.failed = run->out.failed || bytes.failed;
    fm_buf_fini(&bytes);
    run->tokens->list[0] = (fm_bpe_range_t){0, run->out.len};
    run->tokens->count = run->tokens->count > 0 ? 1 : 0;
    run->fused = true;
}

/* Runs of "<0x4F>" become their characters; a run that is not UTF-8 becomes
 * one U+FFFD a byte. */
static void byte_fallback_run(struct run *run)
{
    size_t kept = 0;

    for (size_t i = 0; i < run->tokens->count;) {
        size_t len = 0;
        const char *token = token_at(run, i, &len);
        size_t begin = run->out.len;
        int byte = fm_bpe_fallback_byte(token, len);
        if (byte < 0) {
            fm_buf_add(&run->out, token, len);
            i++;
        }
        for (; byte >= 0; byte = i < run->tokens->count
                                     ? fm_bpe_fallback_byte(token, len)
                                     : -1) {
            fm_buf_add_u8(&run->out, (uint8_t)byte);
            i++;
            token = i < run->tokens->count ? token_at(run, i, &len) : token;
        }
        size_t bytes = run->out.len - begin;
        if (!run->options->raw && !run->out.failed && bytes > 0 &&
            fm_utf8_valid((const char *)run->out.data + begin, bytes) < bytes) {
            run->out.len = begin;
            while (bytes-- > 0) {
                fm_buf_add_str(&run->out, "\xEF\xBF\xBD");
            }
        }
        run->tokens->list[kept++] = (fm_bpe_range_t){begin, run->out.len};
    }
    run->tokens->count = kept;
}

static void fuse_run(struct run *run)
{
    for (size_t i = 0; i < run->tokens->count; i++) {
        size_t len = 0;
        const char *token = token_at(run, i, &len);
        fm_buf_add(&run->out, token, len);
    }
    if (run->tokens->count > 0) {
        run->tokens->list[0] = (fm_bpe_range_t){0, run->out.len};
        run->tokens->count = 1;
    }
    run->fused = true;
}

/* The replacement is a space; in the first token it is nothing, where one was
 * put in front. */
static void metaspace_run(const fm_bpe_step_t *step, struct run *run)
{
    for (size_t i = 0; i < run->tokens->count; i++) {
        size_t len = 0;
        const char *token = token_at(run, i, &len);
        size_t begin = run->out.len;
        bool drop = i == 0 && !run->options->continued &&
                    step->prepend != FM_BPE_PREPEND_NEVER;
        for (size_t at = 0; at < len;) {
            if (len - at >= step->content_len &&
                memcmp(token + at, step->content, step->content_len) == 0) {
                fm_buf_add(&run->out, " ", drop ? 0 : 1);
                at += step->content_len;
            } else {
                fm_buf_add_u8(&run->out, (uint8_t)token[at++]);
            }
        }
        run->tokens->list[i] = (fm_bpe_range_t){begin, run->out.len};
    }
}

static fm_status_t replace_run(const fm_bpe_step_t *step, struct run *run,
                               fm_error_t *err)
{
    for (size_t i = 0; i < run->tokens->count; i++) {
        size_t len = 0;
        const char *token = token_at(run, i, &len);
        size_t start = run->out.len;
        size_t done = 0;
        for (size_t at = 0; at <= len;) {
            size_t begin = 0;
            size_t end = 0;
            fm_status_t rc =
                fm_bpe_pattern_find(&step->pattern, run->matcher, token, len,
                                    at, &begin, &end, err);
            if (rc < 0) {
                return rc;
            }
            if (begin > len) {
                break;
            }
            begin = begin < done ? done : begin;
            fm_buf_add(&run->out, token + done, begin - done);
            fm_buf_add(&run->out, step->content, step->content_len);
            done = end > done ? end : done;
            at = done;
            if (end <= begin) {
                size_t next =
                    at < len ? fm_utf8_length(token + at, len - at) : 1;
                at += next > 0 ? next : 1;
            }
        }
        fm_buf_add(&run->out, token + done, len - done);
        run->tokens->list[i] = (fm_bpe_range_t){start, run->out.len};
    }
    return FM_OK;
}

static void strip_run(const fm_bpe_step_t *step, struct run *run)
{
    for (size_t i = 0; i < run->tokens->count; i++) {
        size_t len = 0;
        const char *token = token_at(run, i, &len);
        size_t begin = run->out.len;
        size_t at = 0;
        for (size_t n = 0;
             n < step->start && !(run->fused && run->options->continued) &&
             len - at >= step->content_len &&
             memcmp(token + at, step->content, step->content_len) == 0;
             n++) {
            at += step->content_len;
        }
        fm_buf_add(&run->out, token + at, len - at);
        run->tokens->list[i] = (fm_bpe_range_t){begin, run->out.len};
    }
}

static fm_status_t step_run(const fm_bpe_step_t *step, struct run *run,
                            fm_error_t *err)
{
    switch ((enum op)step->type->op) {
    case BYTE_FALLBACK:
        byte_fallback_run(run);
        break;
    case BYTE_LEVEL:
        byte_level_run(run);
        break;
    case FUSE:
        fuse_run(run);
        break;
    case METASPACE:
        metaspace_run(step, run);
        break;
    case REPLACE:
        return replace_run(step, run, err);
    case STRIP:
        strip_run(step, run);
        break;
    }
    return FM_OK;
}

fm_status_t fm_bpe_decode_run(const fm_bpe_steps_t *steps, bool joined,
                              const fm_bpe_decode_options_t *options,
                              fm_buf_t *text, fm_bpe_ranges_t *tokens,
                              fm_buf_t *out, fm_error_t *err)
{
    struct run run = {.options = options, .tokens = tokens};
    fm_status_t rc = fm_regex_matcher_create(&run.matcher, err);

    for (size_t i = 0; rc >= 0 && i < steps->count && tokens->count > 0; i++) {
        run.text = text->data ? (const char *)text->data : "";
        rc = step_run(&steps->list[i], &run, err);
        if (rc >= 0 && run.out.failed) {
            rc = fm_no_memory(err);
        }
        fm_buf_t swap = *text;
        *text = run.out;
        run.out = swap;
        fm_buf_clear(&run.out);
    }
    for (size_t i = 0; rc >= 0 && i < tokens->count; i++) {
        fm_bpe_range_t range = tokens->list[i];
        if (joined && (i > 0 || options->continued)) {
            fm_buf_add_u8(out, ' ');
        }
        if (range.end > range.begin) {
            fm_buf_add(out, text->data + range.begin, range.end - range.begin);
        }
    }
    if (rc >= 0 && out->failed) {
        rc = fm_no_memory(err);
    }
    fm_regex_matcher_destroy(run.matcher);
    fm_buf_fini(&run.out);
    return rc;
}
