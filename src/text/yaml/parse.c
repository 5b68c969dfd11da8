/* SPDX-License-Identifier: Apache-2.0 */
/*
 * YAML text to a tree of values: libyaml events, YAML 1.2 core schema.
 *
 * Bounded: text, depth, values after alias expansion.  An alias shares
 * the anchored subtree, and its size counts each time, so an "alias bomb" is
 * refused at the value count without being built.  Refused: duplicate and
 * non-string keys, tags other than !!str, merge keys, several documents.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/map.h"
#include "base/mem.h"
#include "text/yaml/yaml.h"

/* A list or map whose end has not been seen. */
struct frame {
    fm_json_type_t type;
    unsigned line, column;
    const char *anchor;
    fm_yaml_member_t *members;
    size_t count, capacity;
    const char *key; /* read, its value not yet */
    unsigned key_line, key_column;
};

struct builder {
    fm_yaml_arena_t *arena;
    const fm_yaml_source_t *source;
    fm_strmap_t *anchors; /* name → address of its value */
    struct frame stack[FM_YAML_DEPTH_MAX];
    size_t depth;
    size_t values;
    const fm_yaml_value_t *root;
    unsigned line, column; /* of the current event */
};

static fm_status_t no_memory(const struct builder *b)
{
    return fm_no_memory(b->source->err);
}

static fm_status_t fail(const struct builder *b, fm_status_t status,
                        const char *text)
{
    return fm_yaml_fail(b->source, b->line, b->column, status, "%s", text);
}

/* --- scalars: YAML 1.2 core schema ---------------------------------------- */

static bool one_of(const char *text, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(text, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_digits(const char *text, const char *digits)
{
    return *text && text[strspn(text, digits)] == '\0';
}

/* [-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)? */
static bool is_real(const char *text)
{
    static const char digits[] = "0123456789";

    text += *text == '-' || *text == '+';
    size_t whole = strspn(text, digits);
    text += whole;
    size_t fraction = 0;
    if (*text == '.') {
        fraction = strspn(++text, digits);
        text += fraction;
    }
    if (whole + fraction == 0) {
        return false;
    }
    if (*text == 'e' || *text == 'E') {
        text++;
        text += *text == '-' || *text == '+';
        return is_digits(text, digits);
    }
    return *text == '\0';
}

static int integer_base(const char *text, const char **digits_out)
{
    if (strncmp(text, "0x", 2) == 0 &&
        is_digits(text + 2, "0123456789abcdefABCDEF")) {
        *digits_out = text + 2;
        return 16;
    }
    if (strncmp(text, "0o", 2) == 0 && is_digits(text + 2, "01234567")) {
        *digits_out = text + 2;
        return 8;
    }
    *digits_out = text;
    return is_digits(text + (*text == '-' || *text == '+'), "0123456789") ? 10
                                                                          : 0;
}

static fm_status_t resolve_plain(const struct builder *b,
                                 fm_yaml_value_t *value)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL"};
    static const char *const trues[] = {"true", "True", "TRUE"};
    static const char *const falses[] = {"false", "False", "FALSE"};
    static const char *const others[] = {".inf",  ".Inf",  ".INF",  "+.inf",
                                         "+.Inf", "+.INF", "-.inf", "-.Inf",
                                         "-.INF", ".nan",  ".NaN",  ".NAN"};
    const char *text = value->text;
    const char *digits = NULL;
    int base = integer_base(text, &digits);

    if (one_of(text, nulls, FM_COUNT_OF(nulls))) {
        value->type = FM_JSON_NULL;
    } else if (one_of(text, trues, FM_COUNT_OF(trues)) ||
               one_of(text, falses, FM_COUNT_OF(falses))) {
        value->type = FM_JSON_BOOL;
        value->boolean = text[0] == 't' || text[0] == 'T';
    } else if (base) {
        errno = 0;
        value->type = FM_JSON_INT;
        value->integer = strtoll(digits, NULL, base);
        if (errno == ERANGE) {
            return fail(b, FM_ERR_INVALID,
                        "integer out of range; allowed: -2^63 to 2^63-1 "
                        "(quote it to mean text)");
        }
    } else if (is_real(text)) {
        value->type = FM_JSON_REAL;
        value->real = strtod(text, NULL);
        if (!isfinite(value->real)) {
            return fail(b, FM_ERR_INVALID,
                        "number out of range; allowed: up to 1.79e308");
        }
    } else if (one_of(text, others, FM_COUNT_OF(others))) {
        return fail(b, FM_ERR_INVALID,
                    "not a finite number (quote it to mean text)");
    }
    return FM_OK;
}

/* --- building ------------------------------------------------------------- */

/* A finished value joins the container above it, or is the document. */
static fm_status_t add_value(struct builder *b, const fm_yaml_value_t *value,
                             const char *anchor)
{
    fm_status_t rc = FM_OK;

    if (anchor) {
        rc = fm_strmap_put(b->anchors, anchor, (uint64_t)(uintptr_t)value,
                           b->source->err);
    }
    if (rc < 0 || b->depth == 0) {
        b->root = value;
        return rc;
    }
    struct frame *top = &b->stack[b->depth - 1];
    if (top->type == FM_JSON_OBJECT && !top->key) {
        if (value->type == FM_JSON_ARRAY || value->type == FM_JSON_OBJECT) {
            return fail(b, FM_ERR_INVALID,
                        "a list or map as a key; allowed: text");
        }
        if (strcmp(value->text, "<<") == 0) {
            return fail(b, FM_ERR_INVALID,
                        "merge key <<; YAML 1.2 has none: put shared keys "
                        "into the spec above the nodes");
        }
        top->key = value->text;
        top->key_line = value->line;
        top->key_column = value->column;
        return FM_OK;
    }
    if ((rc = fm_grow(&top->members, &top->capacity, top->count,
                      sizeof(*top->members), b->source->err)) < 0) {
        return rc;
    }
    top->members[top->count++] = (fm_yaml_member_t){
        .key = top->key,
        .line = top->key ? top->key_line : value->line,
        .column = top->key ? top->key_column : value->column,
        .value = value,
    };
    top->key = NULL;
    return FM_OK;
}

static fm_status_t check_room(const struct builder *b, size_t more)
{
    if (more > FM_YAML_VALUES_MAX || b->values > FM_YAML_VALUES_MAX - more) {
        return fm_yaml_fail(b->source, b->line, b->column, FM_ERR_LIMIT,
                            "more than %u values, aliases expanded",
                            FM_YAML_VALUES_MAX);
    }
    return FM_OK;
}

static fm_status_t on_scalar(struct builder *b, const yaml_event_t *event)
{
    const char *tag = (const char *)event->data.scalar.tag;
    const char *text = (const char *)event->data.scalar.value;
    size_t len = event->data.scalar.length;
    bool plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && !tag;
    fm_yaml_value_t *value = NULL;
    fm_status_t rc = check_room(b, 1);

    if (rc < 0) {
        return rc;
    }
    if (tag && strcmp(tag, YAML_STR_TAG) != 0) {
        return fail(b, FM_ERR_INVALID, "a tag; allowed: !!str");
    }
    if (memchr(text, '\0', len)) {
        return fail(b, FM_ERR_INVALID, "a NUL character in text");
    }
    if (!(value = fm_yaml_alloc(b->arena, sizeof(*value))) ||
        !(value->text = fm_yaml_text(b->arena, text, len))) {
        return no_memory(b);
    }
    value->type = FM_JSON_STRING;
    value->line = b->line;
    value->column = b->column;
    value->size = 1;
    value->height = 1;
    b->values++;
    bool is_key = b->depth > 0 &&
                  b->stack[b->depth - 1].type == FM_JSON_OBJECT &&
                  !b->stack[b->depth - 1].key;
    if (plain && !is_key && (rc = resolve_plain(b, value)) < 0) {
        return rc;
    }
    return add_value(b, value, (const char *)event->data.scalar.anchor);
}

static fm_status_t on_alias(struct builder *b, const yaml_event_t *event)
{
    const char *name = (const char *)event->data.alias.anchor;
    const uint64_t *found = fm_strmap_get(b->anchors, name);
    fm_status_t rc = FM_OK;

    if (!found) {
        return fm_yaml_fail(b->source, b->line, b->column, FM_ERR_INVALID,
                            "alias *%s before its anchor is complete", name);
    }
    const fm_yaml_value_t *value = (const fm_yaml_value_t *)(uintptr_t)*found;
    if ((rc = check_room(b, value->size)) < 0) {
        return rc;
    }
    if (b->depth + value->height > FM_YAML_DEPTH_MAX) {
        return fm_yaml_fail(b->source, b->line, b->column, FM_ERR_LIMIT,
                            "nested deeper than %u levels", FM_YAML_DEPTH_MAX);
    }
    b->values += value->size;
    return add_value(b, value, NULL);
}

static fm_status_t on_start(struct builder *b, fm_json_type_t type,
                            const yaml_char_t *anchor, const yaml_char_t *tag)
{
    const char *name = (const char *)anchor;
    fm_status_t rc = check_room(b, 1);

    if (rc < 0) {
        return rc;
    }
    if (tag) {
        return fail(b, FM_ERR_INVALID, "a tag; allowed: !!str");
    }
    if (b->depth + 1 >= FM_YAML_DEPTH_MAX) {
        return fm_yaml_fail(b->source, b->line, b->column, FM_ERR_LIMIT,
                            "nested deeper than %u levels", FM_YAML_DEPTH_MAX);
    }
    struct frame *frame = &b->stack[b->depth];
    *frame = (struct frame){.type = type, .line = b->line, .column = b->column};
    if (name && !(frame->anchor = fm_yaml_text(b->arena, name, strlen(name)))) {
        return no_memory(b);
    }
    b->values++;
    b->depth++;
    return FM_OK;
}

static int compare_members(const void *a, const void *b)
{
    const fm_yaml_member_t *const *left = a;
    const fm_yaml_member_t *const *right = b;
    int order = strcmp((*left)->key, (*right)->key);

    return order ? order : (*left < *right ? -1 : 1);
}

static fm_status_t refuse_duplicates(const struct builder *b,
                                     const struct frame *frame)
{
    const fm_yaml_member_t **sorted = fm_calloc(frame->count, sizeof(*sorted));
    fm_status_t rc = FM_OK;

    if (!sorted) {
        return no_memory(b);
    }
    if (frame->count > FM_YAML_KEYS_MAX) {
        rc = fm_yaml_fail(b->source, frame->line, frame->column, FM_ERR_LIMIT,
                          "a map of %zu keys; allowed: at most %u",
                          frame->count, FM_YAML_KEYS_MAX);
    }
    for (size_t i = 0; i < frame->count; i++) {
        sorted[i] = &frame->members[i];
    }
    qsort(sorted, frame->count, sizeof(*sorted), compare_members);
    for (size_t i = 1; i < frame->count && rc == FM_OK; i++) {
        if (strcmp(sorted[i - 1]->key, sorted[i]->key) == 0) {
            rc = fm_yaml_fail(b->source, sorted[i]->line, sorted[i]->column,
                              FM_ERR_INVALID,
                              "key %s is given twice; first at line %u",
                              sorted[i]->key, sorted[i - 1]->line);
        }
    }
    free(sorted);
    return rc;
}

static fm_status_t on_end(struct builder *b)
{
    struct frame *frame = &b->stack[b->depth - 1];
    fm_status_t rc =
        frame->type == FM_JSON_OBJECT ? refuse_duplicates(b, frame) : FM_OK;

    if (rc < 0) {
        return rc;
    }
    const fm_yaml_value_t *value =
        fm_yaml_container(b->arena, frame->type, frame->line, frame->column,
                          frame->members, frame->count);
    const char *anchor = frame->anchor;
    free(frame->members);
    frame->members = NULL;
    b->depth--;
    if (!value) {
        return no_memory(b);
    }
    return add_value(b, value, anchor);
}

static fm_status_t on_event(struct builder *b, const yaml_event_t *event)
{
    b->line = (unsigned)event->start_mark.line + 1;
    b->column = (unsigned)event->start_mark.column + 1;
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        return on_scalar(b, event);
    case YAML_ALIAS_EVENT:
        return on_alias(b, event);
    case YAML_SEQUENCE_START_EVENT:
        return on_start(b, FM_JSON_ARRAY, event->data.sequence_start.anchor,
                        event->data.sequence_start.tag);
    case YAML_MAPPING_START_EVENT:
        return on_start(b, FM_JSON_OBJECT, event->data.mapping_start.anchor,
                        event->data.mapping_start.tag);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        return on_end(b);
    case YAML_DOCUMENT_START_EVENT:
        return b->root ? fail(b, FM_ERR_INVALID,
                              "a second document; allowed: one a file")
                       : FM_OK;
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_STREAM_END_EVENT:
    case YAML_DOCUMENT_END_EVENT:
        break;
    }
    return FM_OK;
}

/* The reader knows only a byte offset; count lines up to it. */
static fm_status_t fail_reader(const struct builder *b,
                               const yaml_parser_t *parser, const char *text,
                               size_t len)
{
    size_t stop = parser->problem_offset < len ? parser->problem_offset : len;
    unsigned line = 1;
    unsigned column = 1;

    for (size_t i = 0; i < stop; i++) {
        line += text[i] == '\n';
        column = text[i] == '\n' ? 1 : column + 1;
    }
    return fm_yaml_fail(b->source, line, column, FM_ERR_INVALID,
                        "%s; allowed: UTF-8 text",
                        parser->problem ? parser->problem : "unreadable text");
}

static fm_status_t fail_parser(const struct builder *b,
                               const yaml_parser_t *parser, const char *text,
                               size_t len)
{
    if (parser->error == YAML_MEMORY_ERROR) {
        return no_memory(b);
    }
    if (parser->error == YAML_READER_ERROR) {
        return fail_reader(b, parser, text, len);
    }
    return fm_yaml_fail(
        b->source, (unsigned)parser->problem_mark.line + 1,
        (unsigned)parser->problem_mark.column + 1, FM_ERR_INVALID,
        "not YAML: %s%s%s", parser->problem ? parser->problem : "syntax error",
        parser->context ? " " : "", parser->context ? parser->context : "");
}

static fm_status_t run(struct builder *b, yaml_parser_t *parser,
                       const char *text, size_t len)
{
    fm_status_t rc = FM_OK;
    bool done = false;

    yaml_parser_set_encoding(parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(parser, (const unsigned char *)text, len);
    while (rc == FM_OK && !done) {
        yaml_event_t event;
        if (!yaml_parser_parse(parser, &event)) {
            return fail_parser(b, parser, text, len);
        }
        done = event.type == YAML_STREAM_END_EVENT;
        rc = on_event(b, &event);
        yaml_event_delete(&event);
    }
    return rc;
}

fm_status_t fm_yaml_parse(fm_yaml_arena_t *arena, const char *text, size_t len,
                          const fm_yaml_source_t *source,
                          const fm_yaml_value_t **root_out)
{
    struct builder *b = fm_calloc(1, sizeof(*b));
    yaml_parser_t parser;
    bool parser_ready = false;
    fm_status_t rc = FM_ERR_NO_MEMORY;

    if (!b || !(b->anchors = fm_strmap_create()) ||
        !(parser_ready = yaml_parser_initialize(&parser) == 1)) {
        (void)fm_no_memory(source->err);
        goto out;
    }
    b->arena = arena;
    b->source = source;
    if (len > FM_YAML_TEXT_BYTES_MAX) {
        rc = fm_yaml_fail(source, 1, 1, FM_ERR_LIMIT,
                          "text of %zu bytes; allowed: at most %u", len,
                          FM_YAML_TEXT_BYTES_MAX);
        goto out;
    }
    if ((rc = run(b, &parser, text, len)) < 0) {
        goto out;
    }
    if (!b->root) {
        rc = fm_yaml_fail(source, 1, 1, FM_ERR_INVALID, "the text is empty");
        goto out;
    }
    *root_out = b->root;
out:
    while (b && b->depth > 0) {
        free(b->stack[--b->depth].members);
    }
    if (parser_ready) {
        yaml_parser_delete(&parser);
    }
    if (b) {
        fm_strmap_destroy(b->anchors);
    }
    free(b);
    return rc;
}
