/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading the steps of a normalizer, a pre-tokenizer or a decoder: the three
 * are written alike, {"type": …} or a "Sequence" of them, and differ in their
 * tables of types.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/bpe/internal.h"

#define NESTING_MAX 8 /* Sequence within Sequence */

fm_status_t fm_bpe_step_load_nothing(const fm_json_t *json, const char *what,
                                     fm_bpe_step_t *step, fm_error_t *err)
{
    (void)json;
    (void)what;
    (void)step;
    (void)err;
    return FM_OK;
}

fm_status_t fm_bpe_step_load_content(const fm_json_t *json, const char *key,
                                     const char *what, fm_bpe_step_t *step,
                                     fm_error_t *err)
{
    const char *content = fm_json_get_str(json, key);

    if (!content || strlen(content) > FM_BPE_TOKEN_MAX) {
        return fm_error_set(err, FM_ERR_INVALID, "%s.%s: want a short string",
                            what, key);
    }
    if (!(step->content = fm_strdup(content))) {
        return fm_no_memory(err);
    }
    step->content_len = strlen(content);
    return FM_OK;
}

fm_status_t fm_bpe_step_load_replace(const fm_json_t *json, const char *what,
                                     fm_bpe_step_t *step, fm_error_t *err)
{
    fm_status_t rc = fm_bpe_step_load_content(json, "content", what, step, err);

    return rc < 0 ? rc
                  : fm_bpe_pattern_load(fm_json_get(json, "pattern"), what,
                                        &step->pattern, err);
}

fm_status_t fm_bpe_step_load_metaspace(const fm_json_t *json, const char *what,
                                       fm_bpe_step_t *step, fm_error_t *err)
{
    fm_status_t rc =
        fm_bpe_step_load_content(json, "replacement", what, step, err);
    const char *scheme = fm_json_get_str(json, "prepend_scheme");

    if (rc < 0) {
        return rc;
    }
    if (fm_utf8_count(step->content, step->content_len) != 1) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "%s.replacement: want one character", what);
    }
    if (!scheme) { /* files older than the key */
        scheme = fm_json_get_bool(json, "add_prefix_space", true) ? "always"
                                                                  : "never";
    }
    if (strcmp(scheme, "always") == 0) {
        step->prepend = FM_BPE_PREPEND_ALWAYS;
    } else if (strcmp(scheme, "first") == 0) {
        step->prepend = FM_BPE_PREPEND_FIRST;
    } else if (strcmp(scheme, "never") == 0) {
        step->prepend = FM_BPE_PREPEND_NEVER;
    } else {
        return fm_error_set(err, FM_ERR_INVALID,
                            "%s.prepend_scheme: \"%.32s\"; want always, first "
                            "or never",
                            what, scheme);
    }
    step->flag = fm_json_get_bool(json, "split", true);
    return FM_OK;
}

struct chain {
    const char *list_key;
    const fm_bpe_step_type_t *types;
    size_t type_count;
    fm_bpe_steps_t *steps;
};

static fm_status_t step_load(const struct chain *chain, const fm_json_t *json,
                             const char *what, int depth, fm_error_t *err);

static fm_status_t sequence_load(const struct chain *chain,
                                 const fm_json_t *list, const char *what,
                                 int depth, fm_error_t *err)
{
    if (!fm_json_is(list, FM_JSON_ARRAY)) {
        return fm_error_set(err, FM_ERR_INVALID, "%s.%s: want an array", what,
                            chain->list_key);
    }
    for (size_t i = 0; i < fm_json_len(list); i++) {
        char *name = fm_asprintf("%s[%zu]", what, i);
        if (!name) {
            return fm_no_memory(err);
        }
        fm_status_t rc =
            step_load(chain, fm_json_at(list, i), name, depth + 1, err);
        free(name);
        if (rc < 0) {
            return rc;
        }
    }
    return FM_OK;
}

static fm_status_t step_load(const struct chain *chain, const fm_json_t *json,
                             const char *what, int depth, fm_error_t *err)
{
    const char *type = fm_json_get_str(json, "type");

    if (!type) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "%s: want an object with the string \"type\"",
                            what);
    }
    if (strcmp(type, "Sequence") == 0) {
        return depth < NESTING_MAX
                   ? sequence_load(chain, fm_json_get(json, chain->list_key),
                                   what, depth, err)
                   : fm_error_set(err, FM_ERR_LIMIT,
                                  "%s: sequences nested more than %d deep",
                                  what, NESTING_MAX);
    }
    for (size_t i = 0; i < chain->type_count; i++) {
        if (strcmp(type, chain->types[i].name) != 0) {
            continue;
        }
        if (chain->steps->count == FM_BPE_STEPS_MAX) {
            return fm_error_set(err, FM_ERR_LIMIT, "%s: more than %d steps",
                                what, FM_BPE_STEPS_MAX);
        }
        fm_bpe_step_t *step = &chain->steps->list[chain->steps->count++];
        step->type = &chain->types[i];
        return step->type->load(json, what, step, err);
    }
    return fm_error_set(err, FM_ERR_UNSUPPORTED,
                        "%s: type \"%.64s\" is not supported", what, type);
}

fm_status_t fm_bpe_steps_load(const fm_json_t *json, const char *what,
                              const char *list_key,
                              const fm_bpe_step_type_t *types,
                              size_t type_count, fm_bpe_steps_t *steps,
                              fm_error_t *err)
{
    const struct chain chain = {list_key, types, type_count, steps};

    if (fm_json_type(json) == FM_JSON_NULL) {
        return FM_OK;
    }
    return step_load(&chain, json, what, 0, err);
}

void fm_bpe_steps_fini(fm_bpe_steps_t *steps)
{
    for (size_t i = 0; i < steps->count; i++) {
        fm_bpe_pattern_fini(&steps->list[i].pattern);
        free(steps->list[i].content);
    }
    *steps = (fm_bpe_steps_t){0};
}
