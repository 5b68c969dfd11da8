/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file internal.h
 * What the files of text/template share: syntax trees, values, a rendering.
 *
 * Memory of a tree or a rendering comes from an arena and goes with it; so
 * nothing here is released on its own.  A failed operation records its error
 * in the state and returns NULL, false or an undefined value; whoever called
 * looks at state->failed.
 */
#ifndef FM_TEXT_TEMPLATE_INTERNAL_H
#define FM_TEXT_TEMPLATE_INTERNAL_H

#include <stdarg.h>

#include "text/template/template.h"
#include "text/unicode/unicode.h"

/* --- arena -----------------------------------------------------------------
 */

struct fm_template_chunk;

typedef struct fm_template_arena {
    struct fm_template_chunk *chunks;
    size_t used;  /**< in the first chunk */
    size_t size;  /**< of the first chunk */
    size_t total; /**< of all */
    size_t limit;
} fm_template_arena_t;

/** Zeroed memory, aligned for anything; NULL: none, or past the limit. */
void *fm_template_arena_alloc(fm_template_arena_t *arena, size_t bytes);
void fm_template_arena_fini(fm_template_arena_t *arena);

/* --- values ----------------------------------------------------------------
 */

typedef enum fm_template_type {
    FM_TPL_UNDEFINED,
    FM_TPL_NONE,
    FM_TPL_BOOL,
    FM_TPL_INT,
    FM_TPL_REAL,
    FM_TPL_STRING,
    FM_TPL_LIST,
    FM_TPL_DICT,
    FM_TPL_NAMESPACE,
    FM_TPL_MACRO
} fm_template_type_t;

/** Immutable bytes; marks is NULL where all are 0. */
typedef struct fm_template_str {
    const char *data;
    const uint16_t *marks;
    size_t len;
} fm_template_str_t;

struct fm_template_list;
struct fm_template_dict;
struct fm_template_macro;

typedef struct fm_template_value {
    fm_template_type_t type;
    union {
        bool truth;
        int64_t integer;
        double real;
        const fm_template_str_t *str;
        struct fm_template_list *list;
        struct fm_template_dict *dict; /**< also of a namespace */
        const struct fm_template_macro *macro;
        const char *name; /**< of an undefined value; NULL: unknown */
    };
} fm_template_value_t;

typedef struct fm_template_list {
    fm_template_value_t *items;
    size_t count;
    size_t capacity;
    bool tuple; /**< prints in parentheses */
} fm_template_list_t;

typedef struct fm_template_dict {
    fm_template_value_t *keys;
    fm_template_value_t *values;
    size_t count;
    size_t capacity;
} fm_template_dict_t;

/* --- syntax trees ----------------------------------------------------------
 */

typedef enum fm_template_kind {
    /* expressions */
    FM_TPL_LITERAL,
    FM_TPL_NAME,
    FM_TPL_MAKE_LIST,
    FM_TPL_MAKE_DICT, /* first: key, value, key, value … */
    FM_TPL_GET,       /* a[b] */
    FM_TPL_SLICE,     /* a[b:c:d], d in first */
    FM_TPL_ATTRIBUTE, /* a.text */
    FM_TPL_CALL,      /* a(first…, named…) */
    FM_TPL_METHOD,    /* a.text(first…, named…) */
    FM_TPL_FILTER,    /* a | filter(first…, named…) */
    FM_TPL_TEST,      /* a is test(first…) */
    FM_TPL_NOT,
    FM_TPL_NEGATE,
    FM_TPL_PLUS,
    FM_TPL_AND,
    FM_TPL_OR,
    FM_TPL_CHOOSE,  /* b if a else c */
    FM_TPL_COMPARE, /* a op b, chained: c is the next comparison */
    FM_TPL_BINARY,  /* a op b */
    /* statements */
    FM_TPL_TEXT,
    FM_TPL_PRINT,  /* a */
    FM_TPL_IF,     /* a; first: body, c: list of the else branch */
    FM_TPL_FOR,    /* named: targets, a in b, b: filter, first, c: else */
    FM_TPL_SET,    /* named: targets = a, or first: block */
    FM_TPL_DEFINE, /* macro text(named) first */
    FM_TPL_GENERATION,
    FM_TPL_BREAK,
    FM_TPL_CONTINUE
} fm_template_kind_t;

typedef enum fm_template_op {
    FM_TPL_ADD,
    FM_TPL_SUB,
    FM_TPL_MUL,
    FM_TPL_DIV,
    FM_TPL_FLOORDIV,
    FM_TPL_MOD,
    FM_TPL_POW,
    FM_TPL_CONCAT,
    FM_TPL_EQ,
    FM_TPL_NE,
    FM_TPL_LT,
    FM_TPL_LE,
    FM_TPL_GT,
    FM_TPL_GE,
    FM_TPL_IN,
    FM_TPL_NOT_IN
} fm_template_op_t;

struct fm_template_filter;
struct fm_template_test;

typedef struct fm_template_node {
    fm_template_kind_t kind;
    fm_template_op_t op;
    size_t at; /**< offset in the source, for error text */
    struct fm_template_node *a, *b, *c;
    struct fm_template_node *first; /**< head of a list linked by next */
    struct fm_template_node *named; /**< likewise: text = name, a = value */
    struct fm_template_node *next;
    fm_template_str_t text;
    fm_template_value_t value; /**< of a literal */
    const struct fm_template_filter *filter;
    const struct fm_template_test *test;
} fm_template_node_t;

struct fm_template {
    char *source;
    size_t len;
    char *what;
    fm_template_arena_t arena; /**< of the tree */
    fm_template_node_t *body;
    bool has_generation;
};

/* --- lexer -----------------------------------------------------------------
 */

typedef enum fm_template_token_kind {
    FM_TPL_T_END,
    FM_TPL_T_TEXT,        /* between tags, trimmed */
    FM_TPL_T_PRINT_BEGIN, /* {{ */
    FM_TPL_T_PRINT_END,
    FM_TPL_T_TAG_BEGIN, /* {% */
    FM_TPL_T_TAG_END,
    FM_TPL_T_NAME,
    FM_TPL_T_STRING, /* text has the value */
    FM_TPL_T_INT,
    FM_TPL_T_REAL,
    FM_TPL_T_OPERATOR /* text: one to two characters */
} fm_template_token_kind_t;

typedef struct fm_template_token {
    fm_template_token_kind_t kind;
    size_t at;
    const char *text;
    size_t len;
    int64_t integer;
    double real;
} fm_template_token_t;

/** All tokens of tpl->source, ended by FM_TPL_T_END, in its arena. */
fm_status_t fm_template_lex(fm_template_t *tpl,
                            fm_template_token_t **tokens_out, fm_error_t *err);
/** "what:line:column: reason". */
fm_status_t fm_template_fail_at(const fm_template_t *tpl, size_t at,
                                fm_status_t status, fm_error_t *err,
                                const char *format, va_list args)
    FM_PRINTF(5, 0);
fm_status_t fm_template_parse(fm_template_t *tpl, fm_error_t *err);

/* --- a rendering -----------------------------------------------------------
 */

/** Text under construction, in the arena. */
typedef struct fm_template_sink {
    char *data;
    uint16_t *marks;
    size_t len;
    size_t capacity;
} fm_template_sink_t;

typedef struct fm_template_scope {
    fm_template_dict_t vars;
    struct fm_template_scope *parent;
} fm_template_scope_t;

typedef struct fm_template_macro {
    const fm_template_node_t *node;
    fm_template_scope_t *scope; /**< where it was defined */
} fm_template_macro_t;

typedef enum fm_template_jump {
    FM_TPL_GO_ON,
    FM_TPL_JUMP_BREAK,
    FM_TPL_JUMP_CONTINUE
} fm_template_jump_t;

typedef struct fm_template_state {
    const fm_template_t *tpl;
    const fm_template_input_t *input;
    fm_template_arena_t arena;
    fm_template_scope_t *scope;
    fm_template_sink_t *sink; /**< where output goes now */
    fm_template_sink_t root;
    fm_template_span_t *spans;
    size_t span_count;
    size_t span_capacity;
    unsigned steps;
    int depth;
    size_t at; /**< of the node at work, for error text */
    fm_template_jump_t jump;
    bool failed;
    fm_status_t status;
    fm_error_t *err;
} fm_template_state_t;

typedef struct fm_template_args {
    const fm_template_value_t *list;
    size_t count;
    const fm_template_dict_t *named;
} fm_template_args_t;

/** Record the first failure at state->at. */
void fm_template_fail(fm_template_state_t *state, fm_status_t status,
                      const char *format, ...) FM_PRINTF(3, 4);
/** Count work on @p bytes as steps, so that big values cost what they take. */
void fm_template_charge(fm_template_state_t *state, size_t bytes);
/** Memory of the rendering; NULL (and failed) past the limit. */
void *fm_template_alloc(fm_template_state_t *state, size_t bytes);

void fm_template_sink_add(fm_template_state_t *state, fm_template_sink_t *sink,
                          const char *bytes, size_t len, uint16_t mark);
/** Append bytes [begin, end) of @p str with their marks. */
void fm_template_sink_add_str(fm_template_state_t *state,
                              fm_template_sink_t *sink,
                              const fm_template_str_t *str, size_t begin,
                              size_t end);
/** What @p sink holds as a value; the sink is not used again. */
fm_template_value_t fm_template_sink_take(fm_template_state_t *state,
                                          const fm_template_sink_t *sink);

/* values: making */
fm_template_value_t fm_template_none(void);
fm_template_value_t fm_template_undefined(const char *name);
fm_template_value_t fm_template_bool(bool truth);
fm_template_value_t fm_template_int(int64_t integer);
fm_template_value_t fm_template_real(double real);
fm_template_value_t fm_template_text(fm_template_state_t *state,
                                     const char *text);
fm_template_value_t fm_template_slice_of(fm_template_state_t *state,
                                         const fm_template_str_t *str,
                                         size_t begin, size_t end);
fm_template_value_t fm_template_list(fm_template_state_t *state);
void fm_template_list_add(fm_template_state_t *state, fm_template_list_t *list,
                          fm_template_value_t value);
fm_template_value_t fm_template_dict(fm_template_state_t *state);
void fm_template_dict_set(fm_template_state_t *state, fm_template_dict_t *dict,
                          fm_template_value_t key, fm_template_value_t value);
fm_template_value_t *fm_template_dict_get(const fm_template_dict_t *dict,
                                          const char *key, size_t len);
fm_template_value_t *fm_template_dict_find(const fm_template_dict_t *dict,
                                           fm_template_value_t key);
fm_template_value_t fm_template_from_json(fm_template_state_t *state,
                                          const fm_json_t *json, uint16_t mark);

/* values: asking */
const char *fm_template_type_name(fm_template_value_t value);
bool fm_template_truth(fm_template_value_t value);
bool fm_template_is_string(fm_template_value_t value, const char *text);
bool fm_template_equal(fm_template_value_t a, fm_template_value_t b);
bool fm_template_number(fm_template_value_t value, double *real_out);
/** <0, 0, >0; fails unless both are numbers or both strings. */
int fm_template_order(fm_template_state_t *state, fm_template_value_t a,
                      fm_template_value_t b);
bool fm_template_contains(fm_template_state_t *state, fm_template_value_t all,
                          fm_template_value_t one);
/** The elements that a loop over @p value sees; fails when there are none to
 *  see (a number, None). */
fm_template_list_t *fm_template_iterate(fm_template_state_t *state,
                                        fm_template_value_t value);
/** value[key]; undefined when there is none. */
fm_template_value_t fm_template_get(fm_template_state_t *state,
                                    fm_template_value_t value,
                                    fm_template_value_t key);

/* print.c: as Python's str(), repr(), json.dumps() write them */
void fm_template_print(fm_template_state_t *state, fm_template_sink_t *sink,
                       fm_template_value_t value);
void fm_template_print_json(fm_template_state_t *state,
                            fm_template_sink_t *sink, fm_template_value_t value,
                            int64_t indent /* -1: one line */);
/** str(value). */
const fm_template_str_t *fm_template_str(fm_template_state_t *state,
                                         fm_template_value_t value);

/* text.c: what filters and methods of strings share */
fm_template_value_t fm_template_strip(fm_template_state_t *state,
                                      const fm_template_str_t *str,
                                      const fm_template_str_t *chars, bool left,
                                      bool right);
fm_template_value_t fm_template_replace(fm_template_state_t *state,
                                        const fm_template_str_t *str,
                                        const fm_template_str_t *old,
                                        const fm_template_str_t *fresh,
                                        int64_t count);
fm_template_value_t fm_template_split(fm_template_state_t *state,
                                      const fm_template_str_t *str,
                                      const fm_template_str_t *separator,
                                      int64_t most);
fm_template_value_t fm_template_lines(fm_template_state_t *state,
                                      const fm_template_str_t *str);
fm_template_value_t fm_template_join(fm_template_state_t *state,
                                     const fm_template_list_t *list,
                                     const fm_template_str_t *separator);
typedef enum fm_template_case {
    FM_TPL_UPPER,
    FM_TPL_LOWER,
    FM_TPL_TITLE,
    FM_TPL_CAPITALIZE
} fm_template_case_t;
fm_template_value_t fm_template_recase(fm_template_state_t *state,
                                       const fm_template_str_t *str,
                                       fm_template_case_t to);
/** Byte offset of @p part in @p str at or after @p from; str->len + 1: none. */
size_t fm_template_find(const fm_template_str_t *str,
                        const fm_template_str_t *part, size_t from);

/* the tables of names */
typedef struct fm_template_filter {
    const char *name;
    fm_template_value_t (*run)(fm_template_state_t *state,
                               fm_template_value_t value,
                               const fm_template_args_t *args);
} fm_template_filter_t;
typedef struct fm_template_test {
    const char *name;
    bool (*run)(fm_template_state_t *state, fm_template_value_t value,
                const fm_template_args_t *args);
} fm_template_test_t;
const fm_template_filter_t *fm_template_filter_find(const char *name,
                                                    size_t len);
const fm_template_test_t *fm_template_test_find(const char *name, size_t len);
/** value.name(args); fails for a name that the value's type does not have. */
fm_template_value_t fm_template_method(fm_template_state_t *state,
                                       fm_template_value_t value,
                                       const fm_template_str_t *name,
                                       const fm_template_args_t *args);
/** A function that is no variable: range, namespace, …; *found_out false when
 *  there is none of this name. */
fm_template_value_t fm_template_function(fm_template_state_t *state,
                                         const fm_template_str_t *name,
                                         const fm_template_args_t *args,
                                         bool *found_out);

/** Argument @p index, or named @p name; undefined when it is not given. */
fm_template_value_t fm_template_arg(const fm_template_args_t *args,
                                    size_t index, const char *name);
/** The string argument, or NULL (and, if @p need, failed). */
const fm_template_str_t *fm_template_arg_str(fm_template_state_t *state,
                                             const fm_template_args_t *args,
                                             size_t index, const char *name,
                                             bool need);

/* eval.c, exec.c */
fm_template_value_t fm_template_eval(fm_template_state_t *state,
                                     const fm_template_node_t *node);
fm_template_value_t fm_template_macro_call(fm_template_state_t *state,
                                           const fm_template_macro_t *macro,
                                           const fm_template_args_t *args);
bool fm_template_enter(fm_template_state_t *state, size_t at);
static inline void fm_template_leave(fm_template_state_t *state)
{
    state->depth--;
}

#endif
