/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file template.h
 * Chat templates: the part of Jinja that published models use.
 *
 * Statements: for (else, if, break, continue), if/elif/else, set (names,
 * namespace attributes, unpacking, blocks), macro, generation.  Expressions:
 * Python's operators, slices, calls, filters, tests; filters.c, tests.c and
 * methods.c list the names.  As transformers renders: trim_blocks and
 * lstrip_blocks on, no escaping, an undefined name prints as nothing.  What is
 * not known is refused when the template is read, with line:column.
 *
 * Every byte of the output carries a mark: where it came from (see
 * fm_template_input_t).  Strings keep their marks through every operation.
 *
 * Rendering is a function of its input: the clock is an argument, and bounds
 * on steps, depth and memory end a template that does not end.
 *
 * Threads: a template is immutable and may be shared.
 */
#ifndef FM_TEXT_TEMPLATE_TEMPLATE_H
#define FM_TEXT_TEMPLATE_TEMPLATE_H

#include "base/buf.h"
#include "base/json.h"

/** Bytes of a template; the longest published ones have some 20,000. */
#define FM_TEMPLATE_SOURCE_MAX ((size_t)1 << 20)
/** Statements and expressions evaluated in one rendering. */
#define FM_TEMPLATE_STEPS_MAX 20000000u
/** Expressions, statements and macro calls within each other. */
#define FM_TEMPLATE_DEPTH_MAX 200
/** Memory of one rendering, output included, bytes. */
#define FM_TEMPLATE_MEMORY_MAX ((size_t)512 << 20)
/** Most messages: a mark has 16 bits. */
#define FM_TEMPLATE_MESSAGES_MAX 60000
/** The mark of untrusted input that is no message. */
#define FM_TEMPLATE_MARK_OTHER 65535

typedef struct fm_template fm_template_t;

/**
 * Read a template.
 * @param what  its name in error text, "what:line:column: reason".
 * @retval FM_ERR_INVALID      syntax.
 * @retval FM_ERR_UNSUPPORTED  a tag, filter, test or function not known here.
 */
FM_MUST_USE fm_status_t fm_template_create(const char *source, size_t len,
                                           const char *what,
                                           fm_template_t **template_out,
                                           fm_error_t *err);
void *fm_template_destroy(fm_template_t *tpl);
/** Whether it has {% generation %} blocks. */
bool fm_template_has_generation(const fm_template_t *tpl);

typedef struct fm_template_input {
    /** Object of variables whose strings have mark 0, or NULL. */
    const fm_json_t *trusted;
    /** Object of variables, or NULL.  All strings (and member names) within
     *  element i of the array "messages" have mark i + 1, but for its
     *  "role"; all others FM_TEMPLATE_MARK_OTHER. */
    const fm_json_t *untrusted;
    int64_t now_unix_s; /**< what strftime_now() formats, as UTC */
} fm_template_input_t;

/** A generation block's bytes [begin, end) of the output. */
typedef struct fm_template_span {
    size_t begin;
    size_t end;
} fm_template_span_t;

/** A rendering; zero-initialise it, release it with _fini(). */
typedef struct fm_template_output {
    char *text; /**< len bytes and a NUL */
    uint16_t *marks;
    size_t len;
    fm_template_span_t *spans;
    size_t span_count;
} fm_template_output_t;

void fm_template_output_fini(fm_template_output_t *output);

/**
 * Render.
 * @param output  zero-initialised; written on success.
 * @retval FM_ERR_INVALID  an operation on a wrong value, raise_exception().
 * @retval FM_ERR_LIMIT    one of the bounds above.
 */
FM_MUST_USE fm_status_t fm_template_render(const fm_template_t *tpl,
                                           const fm_template_input_t *input,
                                           fm_template_output_t *output,
                                           fm_error_t *err);

#endif
