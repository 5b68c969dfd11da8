/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kinds of verifiable rewards as a table: what a kind reads from its
 * parameters, and what it makes of a completion.
 */
#include "run/ops/reward/verify.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "run/ops/field.h"
#include "run/ops/internal.h"
#include "run/ops/reward/schema.h"

#define UNITS_MAX (INT64_C(1) << 32)

typedef fm_status_t (*score_fn)(const fm_ops_verifier_t *verifier,
                                const char *text, size_t len,
                                const fm_json_t *record, double *score,
                                fm_error_t *err);

struct fm_ops_verifier {
    fm_json_t *params;
    score_fn score;
    const char *field, *marker; /* of params */
    bool strip, ignore_case, extract, characters;
    double tolerance;
    fm_ops_pattern_t *pattern;
    size_t group;
    const fm_json_t *schema;     /* of params */
    int64_t target, least, most; /* −1: not given */
};

/* A run of bytes of a text. */
typedef struct piece {
    const char *text;
    size_t len;
} piece_t;

static piece_t stripped(piece_t piece)
{
    while (piece.len > 0 && strchr(" \t\n\v\f\r", piece.text[piece.len - 1]) &&
           piece.text[piece.len - 1]) {
        piece.len--;
    }
    while (piece.len > 0 && strchr(" \t\n\v\f\r", *piece.text) && *piece.text) {
        piece.text++;
        piece.len--;
    }
    return piece;
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

static bool pieces_equal(piece_t a, piece_t b, bool ignore_case)
{
    if (a.len != b.len) {
        return false;
    }
    for (size_t i = 0; i < a.len; i++) {
        if (ignore_case ? lower(a.text[i]) != lower(b.text[i])
                        : a.text[i] != b.text[i]) {
            return false;
        }
    }
    return true;
}

/* What follows the last marker; false where there is none. */
static bool after_marker(const char *marker, piece_t *piece)
{
    size_t size = marker ? strlen(marker) : 0;
    const char *found = NULL, *at = piece->text;
    const char *end = piece->text + piece->len;

    while (size > 0 && (at = memmem(at, (size_t)(end - at), marker, size))) {
        at += size;
        found = at;
    }
    if (size > 0 && !found) {
        return false;
    }
    if (found) {
        piece->len = (size_t)(end - found);
        piece->text = found;
    }
    return true;
}

/* The field of the record; one of a list by @p index. */
static fm_status_t field_get(const fm_ops_verifier_t *verifier,
                             const fm_json_t *record,
                             const fm_json_t **value_out, fm_error_t *err)
{
    const fm_json_t *value = fm_ops_field(record, verifier->field);

    if (!value) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "the record has no %.80s to compare with",
                            verifier->field);
    }
    *value_out = value;
    return FM_OK;
}

/* Whether @p got is the text of @p value, or of an element of it. */
static fm_status_t text_matches(const fm_ops_verifier_t *verifier, piece_t got,
                                const fm_json_t *value, bool *equal_out,
                                fm_error_t *err)
{
    bool list = fm_json_is(value, FM_JSON_ARRAY);
    size_t count = list ? fm_json_len(value) : 1;
    bool equal = false;

    for (size_t i = 0; !equal && i < count; i++) {
        fm_buf_t text = {0};
        fm_ops_field_add_text(&text, list ? fm_json_at(value, i) : value);
        if (text.failed) {
            fm_buf_fini(&text);
            return fm_no_memory(err);
        }
        piece_t want = {(const char *)text.data, text.len};
        equal = pieces_equal(verifier->strip ? stripped(got) : got,
                             verifier->strip ? stripped(want) : want,
                             verifier->ignore_case);
        fm_buf_fini(&text);
    }
    *equal_out = equal;
    return FM_OK;
}

/* --- exact_match, numeric ------------------------------------------------ */

static fm_status_t score_exact(const fm_ops_verifier_t *verifier,
                               const char *text, size_t len,
                               const fm_json_t *record, double *score,
                               fm_error_t *err)
{
    piece_t got = {text, len};
    const fm_json_t *value = NULL;
    bool equal = false;
    fm_status_t rc = field_get(verifier, record, &value, err);

    if (rc >= 0 && after_marker(verifier->marker, &got)) {
        rc = text_matches(verifier, got, value, &equal, err);
    }
    *score = equal;
    return rc;
}

static bool close_to(double x, double y, double tolerance)
{
    double scale = fabs(y) > 1 ? fabs(y) : 1;

    return fabs(x - y) <= tolerance * scale;
}

static bool figures_equal(const fm_ops_figure_t *x, const fm_ops_figure_t *y,
                          double tolerance)
{
    for (int i = 0; i < (x->percent ? 2 : 1); i++) {
        for (int j = 0; j < (y->percent ? 2 : 1); j++) {
            if (close_to(i ? x->value / 100 : x->value,
                         j ? y->value / 100 : y->value, tolerance)) {
                return true;
            }
        }
    }
    return false;
}

/* The last number, or with a marker the first after it. */
static bool figure_find(const char *marker, piece_t piece,
                        fm_ops_figure_t *figure_out)
{
    size_t at = 0;
    bool found = false;

    if (!after_marker(marker, &piece)) {
        return false;
    }
    while (fm_ops_figure_next(piece.text, piece.len, &at, figure_out)) {
        found = true;
        if (marker) {
            break;
        }
    }
    return found;
}

static fm_status_t score_numeric(const fm_ops_verifier_t *verifier,
                                 const char *text, size_t len,
                                 const fm_json_t *record, double *score,
                                 fm_error_t *err)
{
    fm_ops_figure_t got = {0}, want = {0};
    const fm_json_t *value = NULL;
    fm_status_t rc = field_get(verifier, record, &value, err);

    if (rc < 0) {
        return rc;
    }
    if (fm_json_is_number(value)) {
        want.value = fm_json_real_or(value, 0);
    } else {
        piece_t piece = {fm_json_str(value), fm_json_str_len(value)};
        /* The marker may stand in the record too, as in GSM8K. */
        if (!piece.text || !(figure_find(verifier->marker, piece, &want) ||
                             figure_find(NULL, piece, &want))) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "%.80s of the record holds no number",
                                verifier->field);
        }
    }
    *score = figure_find(verifier->marker, (piece_t){text, len}, &got) &&
             figures_equal(&got, &want, verifier->tolerance);
    return FM_OK;
}

/* --- regex --------------------------------------------------------------- */

static fm_status_t score_regex(const fm_ops_verifier_t *verifier,
                               const char *text, size_t len,
                               const fm_json_t *record, double *score,
                               fm_error_t *err)
{
    const fm_json_t *value = NULL;
    fm_ops_span_t span = {0}, last = {0};
    bool matched = false, any = false, equal = false;
    size_t from = 0;
    fm_status_t rc = FM_OK;

    if (verifier->field &&
        (rc = field_get(verifier, record, &value, err)) < 0) {
        return rc;
    }
    do {
        rc = fm_ops_pattern_match(verifier->pattern, text, len, from,
                                  verifier->group, &matched, &span, &from, err);
        if (rc >= 0 && matched) {
            any = true;
            last = span;
        }
    } while (rc >= 0 && matched && verifier->field);
    if (rc >= 0 && any && verifier->field) {
        rc = text_matches(verifier,
                          (piece_t){text + last.start, last.end - last.start},
                          value, &equal, err);
    }
    *score = verifier->field ? equal : any;
    return rc;
}

/* --- json_schema --------------------------------------------------------- */

/* The end of the value that opens at @p at, or 0: brackets outside texts. */
static size_t value_end(const char *text, size_t len, size_t at)
{
    size_t depth = 0;
    bool quoted = false;

    for (size_t i = at; i < len; i++) {
        char c = text[i];
        if (quoted) {
            i += c == '\\';
            quoted = c != '"';
        } else if (c == '"') {
            quoted = true;
        } else if (c == '{' || c == '[') {
            depth++;
        } else if ((c == '}' || c == ']') && --depth == 0) {
            return i + 1;
        }
    }
    return 0;
}

/* Tries of one completion at most: each may read it to its end. */
#define TRIES_MAX 64

static fm_json_t *json_search(const char *text, size_t len)
{
    static const char fence[] = "```json";
    const char *fenced = memmem(text, len, fence, sizeof(fence) - 1);
    fm_json_t *value = NULL;
    int tries = 0;

    if (fenced) {
        const char *body = fenced + sizeof(fence) - 1;
        size_t left = len - (size_t)(body - text);
        const char *end = memmem(body, left, "```", 3);
        if (end && fm_json_parse(body, (size_t)(end - body), "block", &value,
                                 NULL) >= 0) {
            return value;
        }
    }
    for (size_t i = 0; i < len && tries < TRIES_MAX; i++) {
        if (text[i] != '{' && text[i] != '[') {
            continue;
        }
        size_t end = value_end(text, len, i);
        tries++;
        if (end &&
            fm_json_parse(text + i, end - i, "block", &value, NULL) >= 0) {
            return value;
        }
    }
    return NULL;
}

static fm_status_t score_schema(const fm_ops_verifier_t *verifier,
                                const char *text, size_t len,
                                const fm_json_t *record, double *score,
                                fm_error_t *err)
{
    fm_json_t *value = NULL;
    bool allowed = false;
    fm_status_t rc = FM_OK;

    (void)record;
    if (verifier->extract) {
        value = json_search(text, len);
    } else {
        (void)!fm_json_parse(text, len, "completion", &value, NULL);
    }
    if (value) {
        rc = fm_ops_schema_allows(verifier->schema, value, &allowed, err);
    }
    fm_json_drop(value);
    *score = allowed;
    return rc;
}

/* --- length -------------------------------------------------------------- */

static fm_status_t score_length(const fm_ops_verifier_t *verifier,
                                const char *text, size_t len,
                                const fm_json_t *record, double *score,
                                fm_error_t *err)
{
    double count = 0;

    (void)record;
    (void)err;
    if (verifier->characters) {
        count = (double)fm_ops_text_characters(text, len);
    } else {
        size_t at = 0, start = 0, size = 0;
        while (fm_ops_text_word(text, len, &at, &start, &size)) {
            count += 1;
        }
    }
    *score = 1;
    if (verifier->target > 0) {
        double target = (double)verifier->target;
        double near = 1 - fabs(count - target) / target;
        *score = near > 0 ? near : 0;
    } else if (verifier->least >= 0 && count < (double)verifier->least) {
        *score = count / (double)verifier->least;
    } else if (verifier->most >= 0 && count > (double)verifier->most) {
        *score = (double)verifier->most / count;
    }
    return FM_OK;
}

/* --- parameters ---------------------------------------------------------- */

static fm_status_t text_param(const fm_ops_verifier_t *verifier,
                              const char *key, const char *fallback,
                              const char **out, fm_error_t *err)
{
    const char *text = NULL;
    fm_status_t rc = fm_ops_get_text(verifier->params, key,
                                     fallback ? fallback : "", &text, err);
    if (rc >= 0) {
        *out = *text || fallback ? text : NULL;
    }
    return rc;
}

static fm_status_t parse_exact(fm_ops_verifier_t *verifier, fm_error_t *err)
{
    fm_status_t rc =
        text_param(verifier, "field", "answer", &verifier->field, err);

    verifier->strip = fm_json_get_bool(verifier->params, "strip", true);
    verifier->ignore_case =
        fm_json_get_bool(verifier->params, "ignore_case", false);
    return rc < 0
               ? rc
               : text_param(verifier, "marker", NULL, &verifier->marker, err);
}

static fm_status_t parse_numeric(fm_ops_verifier_t *verifier, fm_error_t *err)
{
    fm_status_t rc = parse_exact(verifier, err);

    return rc < 0 ? rc
                  : fm_ops_get_real(verifier->params, "tolerance", 0, 1e9, 1e-6,
                                    &verifier->tolerance, err);
}

static fm_status_t parse_regex(fm_ops_verifier_t *verifier, fm_error_t *err)
{
    const fm_json_t *pattern = fm_json_get(verifier->params, "pattern");
    fm_ops_pattern_options_t options = {0};
    const char *mode = NULL;
    int64_t group = 0;
    fm_status_t rc;

    if (!fm_json_str(pattern)) {
        return fm_error_set(err, FM_ERR_INVALID, "pattern: a text is needed");
    }
    if ((rc = text_param(verifier, "field", NULL, &verifier->field, err)) < 0 ||
        (rc = text_param(verifier, "mode", "search", &mode, err)) < 0) {
        return rc;
    }
    verifier->strip = fm_json_get_bool(verifier->params, "strip", true);
    options.ignore_case =
        fm_json_get_bool(verifier->params, "ignore_case", false);
    options.full = strcmp(mode, "full") == 0;
    if (!options.full && strcmp(mode, "search") != 0) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "mode: search or full is allowed");
    }
    if ((rc = fm_ops_pattern_create(fm_json_str(pattern),
                                    fm_json_str_len(pattern), &options,
                                    &verifier->pattern, err)) < 0) {
        return rc;
    }
    size_t groups = fm_ops_pattern_groups(verifier->pattern);
    if ((rc = fm_ops_get_int(verifier->params, "group", 0, (int64_t)groups,
                             verifier->field ? 1 : 0, &group, err)) < 0) {
        return rc;
    }
    verifier->group = (size_t)group;
    return FM_OK;
}

static fm_status_t parse_schema(fm_ops_verifier_t *verifier, fm_error_t *err)
{
    verifier->schema = fm_json_get(verifier->params, "schema");
    verifier->extract = fm_json_get_bool(verifier->params, "extract", false);
    return fm_ops_schema_check(verifier->schema, err);
}

static fm_status_t parse_length(fm_ops_verifier_t *verifier, fm_error_t *err)
{
    const fm_json_t *params = verifier->params;
    const char *unit = NULL;
    fm_status_t rc;

    if ((rc = fm_ops_get_int(params, "target", 1, UNITS_MAX, 1,
                             &verifier->target, err)) < 0 ||
        (rc = fm_ops_get_int(params, "min_tokens", 0, UNITS_MAX, 0,
                             &verifier->least, err)) < 0 ||
        (rc = fm_ops_get_int(params, "max_tokens", 0, UNITS_MAX, 0,
                             &verifier->most, err)) < 0 ||
        (rc = text_param(verifier, "unit", "tokens", &unit, err)) < 0) {
        return rc;
    }
    bool target = fm_json_is(fm_json_get(params, "target"), FM_JSON_INT);
    bool least = fm_json_is(fm_json_get(params, "min_tokens"), FM_JSON_INT);
    bool most = fm_json_is(fm_json_get(params, "max_tokens"), FM_JSON_INT);
    if (target == (least || most) ||
        (least && most && verifier->least > verifier->most)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "either target, or min_tokens up to max_tokens, is "
                            "needed");
    }
    verifier->target = target ? verifier->target : -1;
    verifier->least = least ? verifier->least : -1;
    verifier->most = most ? verifier->most : -1;
    verifier->characters = strcmp(unit, "characters") == 0;
    return verifier->characters || strcmp(unit, "tokens") == 0
               ? FM_OK
               : fm_error_set(err, FM_ERR_INVALID,
                              "unit: tokens or characters is allowed");
}

static const struct kind {
    const char *name;
    fm_status_t (*parse)(fm_ops_verifier_t *verifier, fm_error_t *err);
    score_fn score;
} kinds[] = {
    {"exact_match", parse_exact, score_exact},
    {"numeric", parse_numeric, score_numeric},
    {"regex", parse_regex, score_regex},
    {"json_schema", parse_schema, score_schema},
    {"length", parse_length, score_length},
};

fm_status_t fm_ops_verifier_create(const fm_json_t *params,
                                   fm_ops_verifier_t **verifier_out,
                                   fm_error_t *err)
{
    const char *name = fm_json_get_str(params, "kind");
    const struct kind *kind = NULL;
    fm_ops_verifier_t *verifier = NULL;
    fm_status_t rc;

    for (size_t i = 0; name && i < FM_COUNT_OF(kinds); i++) {
        kind = strcmp(kinds[i].name, name) == 0 ? &kinds[i] : kind;
    }
    if (!kind) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "kind: exact_match, numeric, regex, json_schema, "
                            "length or python is allowed");
    }
    if (!(verifier = fm_calloc(1, sizeof(*verifier)))) {
        return fm_no_memory(err);
    }
    verifier->params = fm_json_keep(params);
    verifier->score = kind->score;
    if ((rc = kind->parse(verifier, err)) < 0) {
        fm_ops_verifier_destroy(verifier);
        return rc;
    }
    *verifier_out = verifier;
    return FM_OK;
}

void *fm_ops_verifier_destroy(fm_ops_verifier_t *verifier)
{
    if (verifier) {
        fm_ops_pattern_destroy(verifier->pattern);
        fm_json_drop(verifier->params);
        free(verifier);
    }
    return NULL;
}

fm_status_t fm_ops_verify(const fm_ops_verifier_t *verifier,
                          const char *completion, size_t len,
                          const fm_json_t *record, double *score_out,
                          fm_error_t *err)
{
    double score = 0;
    fm_status_t rc =
        verifier->score(verifier, completion, len, record, &score, err);

    if (rc >= 0) {
        *score_out = score;
    }
    return rc;
}
