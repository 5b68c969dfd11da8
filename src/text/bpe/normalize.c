/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Normalizers: each step rewrites the whole text.
 */
#include <string.h>

#include "base/mem.h"
#include "text/bpe/internal.h"

enum op { FORM, LOWERCASE, PREPEND, REPLACE, STRIP };

static fm_status_t form_load(const fm_json_t *json, const char *what,
                             fm_bpe_step_t *step, fm_error_t *err)
{
    static const char *const names[] = {
        [FM_UNICODE_NFC] = "NFC",
        [FM_UNICODE_NFD] = "NFD",
        [FM_UNICODE_NFKC] = "NFKC",
        [FM_UNICODE_NFKD] = "NFKD",
    };

    (void)json;
    (void)what;
    (void)err;
    for (size_t i = 0; i < FM_COUNT_OF(names); i++) {
        if (strcmp(step->type->name, names[i]) == 0) {
            step->form = (fm_unicode_form_t)i;
        }
    }
    return FM_OK;
}

static fm_status_t prepend_load(const fm_json_t *json, const char *what,
                                fm_bpe_step_t *step, fm_error_t *err)
{
    return fm_bpe_step_load_content(json, "prepend", what, step, err);
}

static fm_status_t strip_load(const fm_json_t *json, const char *what,
                              fm_bpe_step_t *step, fm_error_t *err)
{
    (void)what;
    (void)err;
    step->left = fm_json_get_bool(json, "strip_left", true);
    step->right = fm_json_get_bool(json, "strip_right", true);
    return FM_OK;
}

static const fm_bpe_step_type_t types[] = {
    {"NFC", form_load, FORM},
    {"NFD", form_load, FORM},
    {"NFKC", form_load, FORM},
    {"NFKD", form_load, FORM},
    {"Lowercase", fm_bpe_step_load_nothing, LOWERCASE},
    {"Prepend", prepend_load, PREPEND},
    {"Replace", fm_bpe_step_load_replace, REPLACE},
    {"Strip", strip_load, STRIP},
};

fm_status_t fm_bpe_normalizer_load(const fm_json_t *json, fm_bpe_steps_t *steps,
                                   fm_error_t *err)
{
    return fm_bpe_steps_load(json, "normalizer", "normalizers", types,
                             FM_COUNT_OF(types), steps, err);
}

/* Normal form or lower case, chunk by chunk where origins are tracked: an
 * ASCII character never joins what stands before it, so each begins one. */
static fm_status_t map_run(const fm_bpe_step_t *step, const fm_bpe_text_t *from,
                           fm_bpe_text_t *to, fm_error_t *err)
{
    size_t len = from->bytes.len;
    fm_buf_t made = {0};
    fm_status_t rc = FM_OK;

    for (size_t begin = 0, end = 0; begin < len && rc >= 0; begin = end) {
        end = from->tracked ? begin + 1 : len;
        while (end < len && (uint8_t)*fm_bpe_text_at(from, end) >= 0x80) {
            end++;
        }
        fm_buf_clear(&made);
        if (step->type->op == LOWERCASE) {
            fm_unicode_lower(fm_bpe_text_at(from, begin), end - begin, &made);
        } else {
            rc = fm_unicode_normalize(step->form, fm_bpe_text_at(from, begin),
                                      end - begin, &made, err);
        }
        if (rc >= 0 && made.len == end - begin) {
            size_t at = to->bytes.len; /* most often nothing changed */
            fm_bpe_text_copy(to, from, begin, end);
            if (!to->bytes.failed) {
                memcpy(to->bytes.data + at, made.data, made.len);
            }
        } else if (rc >= 0) {
            fm_bpe_text_add(to, (const char *)made.data, made.len,
                            fm_bpe_text_origin(from, begin));
        }
    }
    if (made.failed) {
        to->bytes.failed = true;
    }
    fm_buf_fini(&made);
    return rc;
}

static fm_status_t replace_run(const fm_bpe_step_t *step,
                               fm_regex_matcher_t *matcher,
                               const fm_bpe_text_t *from, fm_bpe_text_t *to,
                               fm_error_t *err)
{
    const char *text = fm_bpe_text_at(from, 0);
    size_t len = from->bytes.len;
    size_t done = 0;
    size_t at = 0;

    while (at <= len) {
        size_t begin = 0;
        size_t end = 0;
        fm_status_t rc = fm_bpe_pattern_find(&step->pattern, matcher, text, len,
                                             at, &begin, &end, err);
        if (rc < 0) {
            return rc;
        }
        if (begin > len) {
            break;
        }
        begin = begin < done ? done : begin;
        fm_bpe_text_copy(to, from, done, begin);
        fm_bpe_text_add(to, step->content, step->content_len,
                        fm_bpe_text_origin(from, begin));
        done = end > done ? end : done;
        at = done;
        if (end <=
            begin) { /* an empty match: go on behind the next character */
            at += at < len ? fm_utf8_length(text + at, len - at) : 1;
        }
    }
    fm_bpe_text_copy(to, from, done, len);
    return FM_OK;
}

static void strip_run(const fm_bpe_step_t *step, const fm_bpe_text_t *from,
                      fm_bpe_text_t *to)
{
    size_t begin = 0;
    size_t end = from->bytes.len;
    size_t last = 0; /* end of the last character that is no space */
    size_t bytes = 0;

    for (size_t i = 0; i < end; i += bytes) {
        uint32_t c = fm_utf8_decode(fm_bpe_text_at(from, i), &bytes);
        if (!fm_unicode_is_space(c)) {
            last = i + bytes;
        } else if (last == 0 && step->left) {
            begin = i + bytes;
        }
    }
    if (step->right) {
        end = last > begin ? last : begin;
    }
    fm_bpe_text_copy(to, from, begin, end);
}

fm_status_t fm_bpe_normalize(const fm_bpe_steps_t *steps,
                             fm_regex_matcher_t *matcher, fm_bpe_text_t *text,
                             fm_bpe_text_t *spare, fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    for (size_t i = 0; i < steps->count && rc >= 0 && text->bytes.len > 0;
         i++) {
        const fm_bpe_step_t *step = &steps->list[i];
        fm_bpe_text_clear(spare, text->tracked);
        switch ((enum op)step->type->op) {
        case FORM:
        case LOWERCASE:
            rc = map_run(step, text, spare, err);
            break;
        case PREPEND:
            fm_bpe_text_add(spare, step->content, step->content_len,
                            fm_bpe_text_origin(text, 0));
            fm_bpe_text_copy(spare, text, 0, text->bytes.len);
            break;
        case REPLACE:
            rc = replace_run(step, matcher, text, spare, err);
            break;
        case STRIP:
            strip_run(step, text, spare);
            break;
        }
        if (rc >= 0 && spare->bytes.failed) {
            rc = fm_no_memory(err);
        }
        fm_bpe_text_t swap = *text;
        *text = *spare;
        *spare = swap;
    }
    return rc;
}
