/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Statements: they write to the sink, set variables, jump.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/template/internal.h"

typedef fm_template_value_t value_t;
typedef fm_template_state_t state_t;
typedef fm_template_node_t node_t;

static void body_run(state_t *state, const node_t *node);

/* --- variables -------------------------------------------------------------
 */

static fm_template_scope_t *scope_push(state_t *state,
                                       fm_template_scope_t *parent)
{
    fm_template_scope_t *scope = fm_template_alloc(state, sizeof(*scope));

    if (scope) {
        scope->parent = parent;
    }
    return scope;
}

static void variable_set(state_t *state, const fm_template_str_t *name,
                         value_t value)
{
    value_t key = {.type = FM_TPL_STRING};

    key.str = name;
    fm_template_dict_set(state, &state->scope->vars, key, value);
}

/* One name takes the value, several its elements. */
static void targets_set(state_t *state, const node_t *names, value_t value)
{
    size_t count = 0;

    if (!names->next) {
        variable_set(state, &names->text, value);
        return;
    }
    const fm_template_list_t *list = fm_template_iterate(state, value);
    for (const node_t *name = names; name && list; name = name->next) {
        if (count < list->count) {
            variable_set(state, &name->text, list->items[count]);
        }
        count++;
    }
    if (list && count != list->count) {
        fm_template_fail(state, FM_ERR_INVALID, "%zu names for %zu values",
                         count, list->count);
    }
}

static void attribute_set(state_t *state, const node_t *node, value_t value)
{
    value_t space = fm_template_eval(state, node->a);
    value_t key = {.type = FM_TPL_STRING};

    state->at = node->at;
    if (!state->failed && space.type != FM_TPL_NAMESPACE) {
        fm_template_fail(state, FM_ERR_INVALID,
                         "only a namespace has attributes to set");
    }
    key.str = &node->text;
    if (!state->failed) {
        fm_template_dict_set(state, space.dict, key, value);
    }
}

/* What @p body writes, as a string. */
static value_t captured(state_t *state, const node_t *body)
{
    fm_template_sink_t sink = {0};
    fm_template_sink_t *outer = state->sink;

    state->sink = &sink;
    body_run(state, body);
    state->sink = outer;
    return fm_template_sink_take(state, &sink);
}

static void set_run(state_t *state, const node_t *node)
{
    value_t value = fm_template_none();

    if (node->a) {
        value = fm_template_eval(state, node->a);
    } else {
        fm_template_scope_t *outer = state->scope;
        state->scope = scope_push(state, outer);
        value = state->failed ? value : captured(state, node->first);
        state->scope = outer;
    }
    state->at = node->at;
    if (state->failed) {
        return;
    }
    if (node->named->kind == FM_TPL_ATTRIBUTE) {
        attribute_set(state, node->named, value);
    } else {
        targets_set(state, node->named, value);
    }
}

/* --- macros ----------------------------------------------------------------
 */

static void define_run(state_t *state, const node_t *node)
{
    fm_template_macro_t *macro = fm_template_alloc(state, sizeof(*macro));
    value_t value = {.type = FM_TPL_MACRO};

    if (macro) {
        *macro = (fm_template_macro_t){node, state->scope};
        value.macro = macro;
        variable_set(state, &node->text, value);
    }
}

static void parameters_set(state_t *state, const fm_template_macro_t *macro,
                           const fm_template_args_t *args)
{
    size_t index = 0;

    for (const node_t *name = macro->node->named; name && !state->failed;
         name = name->next, index++) {
        const value_t *named =
            args->named ? fm_template_dict_get(args->named, name->text.data,
                                               name->text.len)
                        : NULL;
        value_t value = index < args->count ? args->list[index]
                        : named             ? *named
                        : name->a           ? fm_template_eval(state, name->a)
                                            : fm_template_undefined(NULL);
        variable_set(state, &name->text, value);
    }
    if (args->count > index) {
        fm_template_fail(state, FM_ERR_INVALID,
                         "the macro \"%.*s\" takes %zu arguments, not %zu",
                         (int)macro->node->text.len, macro->node->text.data,
                         index, args->count);
    }
}

value_t fm_template_macro_call(state_t *state, const fm_template_macro_t *macro,
                               const fm_template_args_t *args)
{
    fm_template_scope_t *outer = state->scope;
    value_t value = fm_template_none();

    if (!fm_template_enter(state, state->at)) {
        return value;
    }
    state->scope = scope_push(state, macro->scope);
    if (state->scope) {
        parameters_set(state, macro, args);
        value = state->failed ? value : captured(state, macro->node->first);
    }
    state->scope = outer;
    fm_template_leave(state);
    return value;
}

/* --- loops -----------------------------------------------------------------
 */

static void loop_member(state_t *state, value_t loop, const char *name,
                        value_t value)
{
    fm_template_dict_set(state, loop.dict, fm_template_text(state, name),
                         value);
}

/* The variable "loop" of turn @p i.  The mapping is made once a loop. */
static void loop_set(state_t *state, value_t loop,
                     const fm_template_list_t *list, size_t i)
{
    size_t left = list->count - i;

    loop_member(state, loop, "index", fm_template_int((int64_t)i + 1));
    loop_member(state, loop, "index0", fm_template_int((int64_t)i));
    loop_member(state, loop, "revindex", fm_template_int((int64_t)left));
    loop_member(state, loop, "revindex0", fm_template_int((int64_t)left - 1));
    loop_member(state, loop, "first", fm_template_bool(i == 0));
    loop_member(state, loop, "last", fm_template_bool(left == 1));
    loop_member(state, loop, "length", fm_template_int((int64_t)list->count));
    loop_member(state, loop, "previtem",
                i > 0 ? list->items[i - 1] : fm_template_undefined("previtem"));
    loop_member(state, loop, "nextitem",
                left > 1 ? list->items[i + 1]
                         : fm_template_undefined("nextitem"));
}

/* Those of @p list for which the loop's filter holds. */
static fm_template_list_t *loop_filter(state_t *state, const node_t *node,
                                       fm_template_list_t *list)
{
    value_t kept = fm_template_list(state);
    fm_template_scope_t *outer = state->scope;

    for (size_t i = 0; !state->failed && i < list->count; i++) {
        state->scope = scope_push(state, outer);
        if (state->scope) {
            targets_set(state, node->named, list->items[i]);
            if (fm_template_truth(fm_template_eval(state, node->b))) {
                fm_template_list_add(state, kept.list, list->items[i]);
            }
        }
        state->scope = outer;
    }
    return state->failed ? NULL : kept.list;
}

static void for_run(state_t *state, const node_t *node)
{
    static const fm_template_str_t loop_name = {"loop", NULL, 4};
    value_t of = fm_template_eval(state, node->a);
    fm_template_scope_t *outer = state->scope;

    state->at = node->at;
    fm_template_list_t *list =
        state->failed ? NULL : fm_template_iterate(state, of);
    if (list && node->b) {
        list = loop_filter(state, node, list);
    }
    value_t loop = fm_template_dict(state);
    if (!list || state->failed) {
        return;
    }
    for (size_t i = 0; i < list->count && !state->failed; i++) {
        state->scope = scope_push(state, outer);
        if (state->scope) {
            loop_set(state, loop, list, i);
            variable_set(state, &loop_name, loop);
            targets_set(state, node->named, list->items[i]);
            body_run(state, node->first);
        }
        state->scope = outer;
        fm_template_jump_t jump = state->jump;
        state->jump = FM_TPL_GO_ON;
        if (jump == FM_TPL_JUMP_BREAK) {
            break;
        }
    }
    if (list->count == 0 && !state->failed) {
        body_run(state, node->c);
    }
}

/* --- output ----------------------------------------------------------------
 */

static void generation_run(state_t *state, const node_t *node)
{
    size_t begin = state->root.len;

    if (state->sink != &state->root) {
        fm_template_fail(state, FM_ERR_UNSUPPORTED,
                         "generation within a macro or a set block");
        return;
    }
    body_run(state, node->first);
    fm_status_t rc = fm_grow(&state->spans, &state->span_capacity,
                             state->span_count, sizeof(*state->spans), NULL);
    if (rc < 0) {
        fm_template_fail(state, rc, "out of memory");
        return;
    }
    state->spans[state->span_count++] =
        (fm_template_span_t){begin, state->root.len};
}

static void print_run(state_t *state, const node_t *node)
{
    value_t value = fm_template_eval(state, node->a);

    state->at = node->at;
    if (!state->failed) {
        fm_template_print(state, state->sink, value);
    }
}

static void statement_run(state_t *state, const node_t *node)
{
    switch (node->kind) {
    case FM_TPL_TEXT:
        fm_template_sink_add(state, state->sink, node->text.data,
                             node->text.len, 0);
        break;
    case FM_TPL_PRINT:
        print_run(state, node);
        break;
    case FM_TPL_IF:
        body_run(state, fm_template_truth(fm_template_eval(state, node->a))
                            ? node->first
                            : node->c);
        break;
    case FM_TPL_FOR:
        for_run(state, node);
        break;
    case FM_TPL_SET:
        set_run(state, node);
        break;
    case FM_TPL_DEFINE:
        define_run(state, node);
        break;
    case FM_TPL_GENERATION:
        generation_run(state, node);
        break;
    case FM_TPL_BREAK:
        state->jump = FM_TPL_JUMP_BREAK;
        break;
    case FM_TPL_CONTINUE:
        state->jump = FM_TPL_JUMP_CONTINUE;
        break;
    case FM_TPL_LITERAL:
    case FM_TPL_NAME:
    case FM_TPL_MAKE_LIST:
    case FM_TPL_MAKE_DICT:
    case FM_TPL_GET:
    case FM_TPL_SLICE:
    case FM_TPL_ATTRIBUTE:
    case FM_TPL_CALL:
    case FM_TPL_METHOD:
    case FM_TPL_FILTER:
    case FM_TPL_TEST:
    case FM_TPL_NOT:
    case FM_TPL_NEGATE:
    case FM_TPL_PLUS:
    case FM_TPL_AND:
    case FM_TPL_OR:
    case FM_TPL_CHOOSE:
    case FM_TPL_COMPARE:
    case FM_TPL_BINARY:
        break;
    }
}

static void body_run(state_t *state, const node_t *node)
{
    for (; node && !state->failed && state->jump == FM_TPL_GO_ON;
         node = node->next) {
        if (fm_template_enter(state, node->at)) {
            statement_run(state, node);
            fm_template_leave(state);
        }
    }
}

/* --- the whole -------------------------------------------------------------
 */

/* A message: all its text has the mark of the message but its role, which is
 * no more the assistant's words than the template is. */
static value_t message_make(state_t *state, const fm_json_t *json,
                            uint16_t mark)
{
    value_t message = fm_template_from_json(state, json, mark);
    const fm_json_t *role = fm_json_get(json, "role");

    if (!state->failed && role) {
        fm_template_dict_set(
            state, message.dict, fm_template_text(state, "role"),
            fm_template_from_json(state, role, FM_TEMPLATE_MARK_OTHER));
    }
    return message;
}

static void globals_set(state_t *state, const fm_json_t *object, bool trusted)
{
    void *iterator = NULL;
    const char *name = NULL;
    fm_json_t *json = NULL;

    while (!state->failed && fm_json_next(object, &iterator, &name, &json)) {
        value_t value = fm_template_list(state);
        if (!trusted && strcmp(name, "messages") == 0 &&
            fm_json_is(json, FM_JSON_ARRAY)) {
            if (fm_json_len(json) > FM_TEMPLATE_MESSAGES_MAX) {
                fm_template_fail(state, FM_ERR_LIMIT,
                                 "%zu messages; the limit is %d",
                                 fm_json_len(json), FM_TEMPLATE_MESSAGES_MAX);
            }
            for (size_t i = 0; !state->failed && i < fm_json_len(json); i++) {
                fm_template_list_add(state, value.list,
                                     message_make(state, fm_json_at(json, i),
                                                  (uint16_t)(i + 1)));
            }
        } else {
            value = fm_template_from_json(state, json,
                                          trusted ? 0 : FM_TEMPLATE_MARK_OTHER);
        }
        fm_template_dict_set(state, &state->scope->vars,
                             fm_template_text(state, name), value);
    }
}

static fm_status_t output_make(const state_t *state,
                               fm_template_output_t *output, fm_error_t *err)
{
    fm_template_output_t made = {.len = state->root.len};

    if (!(made.text = fm_malloc(made.len + 1)) ||
        !(made.marks = fm_calloc(made.len + 1, sizeof(*made.marks))) ||
        !(made.spans = fm_calloc(state->span_count + 1, sizeof(*made.spans)))) {
        fm_template_output_fini(&made);
        return fm_no_memory(err);
    }
    if (made.len > 0) {
        memcpy(made.text, state->root.data, made.len);
        memcpy(made.marks, state->root.marks, made.len * sizeof(*made.marks));
    }
    made.text[made.len] = '\0';
    made.span_count = state->span_count;
    if (made.span_count > 0) {
        memcpy(made.spans, state->spans, made.span_count * sizeof(*made.spans));
    }
    *output = made;
    return FM_OK;
}

void fm_template_output_fini(fm_template_output_t *output)
{
    free(output->text);
    free(output->marks);
    free(output->spans);
    *output = (fm_template_output_t){0};
}

fm_status_t fm_template_render(const fm_template_t *tpl,
                               const fm_template_input_t *input,
                               fm_template_output_t *output, fm_error_t *err)
{
    state_t state = {.tpl = tpl,
                     .input = input,
                     .arena = {.limit = FM_TEMPLATE_MEMORY_MAX},
                     .err = err};
    fm_status_t rc = FM_OK;

    state.sink = &state.root;
    state.scope = scope_push(&state, NULL);
    if (state.scope && input->untrusted) {
        globals_set(&state, input->untrusted, false);
    }
    if (!state.failed && input->trusted) {
        globals_set(&state, input->trusted, true);
    }
    if (!state.failed) {
        body_run(&state, tpl->body);
    }
    rc = state.failed ? state.status : output_make(&state, output, err);
    free(state.spans);
    fm_template_arena_fini(&state.arena);
    return rc;
}

/* Newlines as Jinja sees them: "\r\n" and "\r" are "\n", and one at the very
 * end is not part of the template. */
static size_t source_normalize(char *text, size_t len)
{
    size_t kept = 0;

    for (size_t i = 0; i < len; i++) {
        if (text[i] == '\r') {
            i += i + 1 < len && text[i + 1] == '\n';
            text[kept++] = '\n';
        } else {
            text[kept++] = text[i];
        }
    }
    kept -= kept > 0 && text[kept - 1] == '\n';
    text[kept] = '\0';
    return kept;
}

fm_status_t fm_template_create(const char *source, size_t len, const char *what,
                               fm_template_t **template_out, fm_error_t *err)
{
    fm_template_t *tpl = NULL;
    fm_status_t rc = FM_OK;

    if (len > FM_TEMPLATE_SOURCE_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "%s: %zu bytes; the limit is %zu", what, len,
                            FM_TEMPLATE_SOURCE_MAX);
    }
    if (fm_utf8_valid(source, len) < len || memchr(source, '\0', len)) {
        return fm_error_set(err, FM_ERR_INVALID, "%s: not UTF-8 text", what);
    }
    if (!(tpl = fm_calloc(1, sizeof(*tpl))) ||
        !(tpl->source = fm_strndup(source, len)) ||
        !(tpl->what = fm_strdup(what))) {
        rc = fm_no_memory(err);
        goto out;
    }
    tpl->len = source_normalize(tpl->source, len);
    tpl->arena.limit = FM_TEMPLATE_MEMORY_MAX;
    if ((rc = fm_template_parse(tpl, err)) < 0) {
        goto out;
    }
    *template_out = tpl;
    tpl = NULL;
out:
    fm_template_destroy(tpl);
    return rc;
}

void *fm_template_destroy(fm_template_t *tpl)
{
    if (tpl) {
        free(tpl->source);
        free(tpl->what);
        fm_template_arena_fini(&tpl->arena);
        free(tpl);
    }
    return NULL;
}

bool fm_template_has_generation(const fm_template_t *tpl)
{
    return tpl->has_generation;
}
