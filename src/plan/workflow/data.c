/* SPDX-License-Identifier: Apache-2.0 */
/* From records to samples, by task type (W45). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "plan/workflow/graph.h"
#include "plan/workflow/ref.h"

/* --- the sampler ---------------------------------------------------------- */

static const char *name_of(const fm_yaml_value_t *data, const char *key,
                           const char *field)
{
    const char *name = fm_yaml_str(fm_yaml_get(data, key));

    return name ? name
                : fm_yaml_str(fm_yaml_get(fm_yaml_get(data, "jsonl"), field));
}

static void read_columns(fm_wf_sampler_t *s, const fm_yaml_value_t *data)
{
    s->column = fm_yaml_str(fm_yaml_get(data, "column"));
    s->prompt = name_of(data, "prompt_column", "prompt_field");
    s->response = name_of(data, "response_column", "response_field");
    s->text = name_of(data, "text_column", "text_field");
    s->messages = name_of(data, "messages_column", "messages_field");
    s->chosen = name_of(data, "chosen_column", "chosen_field");
    s->rejected = name_of(data, "rejected_column", "rejected_field");
    s->choices = fm_yaml_str(fm_yaml_get(data, "choices_column"));
    s->answer = fm_yaml_str(fm_yaml_get(data, "answer_column"));
    s->separator = fm_yaml_str(fm_yaml_get(data, "separator"));
}

/* What `inference` or `generation` says about prompts. */
static fm_status_t read_prompting(fm_wf_sampler_t *s)
{
    bool policy = (s->r->node->task & FM_WF_POLICY) != 0;
    const char *name = policy ? "generation" : "inference";
    fm_json_t *given = NULL;
    fm_status_t rc = fm_wf_section_read(
        s->r, name, policy ? &fm_wf_generation : &fm_wf_inference, &given);

    if (rc == FM_OK) {
        s->system = fm_json_keep(fm_json_get(given, "system_prompt"));
        s->chat = fm_json_get_bool(given, "chat", false);
    }
    fm_json_drop(given);
    return rc;
}

int fm_wf_metric_group(const char *name)
{
    static const struct {
        const char *name;
        int group;
    } metrics[] = {
        {"loss", FM_WF_GROUP_LOSS},
        {"perplexity", FM_WF_GROUP_LOSS},
        {"exact_match", FM_WF_GROUP_LOSS},
        {"preference_accuracy", FM_WF_GROUP_PREFERENCE},
        {"accuracy", FM_WF_GROUP_ACCURACY},
        {"pass_at_k", FM_WF_GROUP_PASS},
        {"win_rate", FM_WF_GROUP_WIN},
    };

    for (size_t i = 0; name && i < FM_COUNT_OF(metrics); i++) {
        if (strcmp(metrics[i].name, name) == 0) {
            return metrics[i].group;
        }
    }
    return -1;
}

fm_status_t fm_wf_sampler_init(fm_wf_sampler_t *s, const fm_wf_resolver_t *r)
{
    const fm_yaml_value_t *metrics = fm_yaml_get(r->node->tree, "metrics");

    *s = (fm_wf_sampler_t){.r = r};
    read_columns(s, fm_wf_data_of(r));
    if (r->node->task == FM_WF_EVALUATE) {
        s->group = fm_wf_metric_group(metrics->members[0].value->text);
        return FM_OK;
    }
    return r->node->task & (FM_WF_INFERENCE | FM_WF_POLICY) ? read_prompting(s)
                                                            : FM_OK;
}

void fm_wf_sampler_fini(fm_wf_sampler_t *s)
{
    s->system = fm_json_drop(s->system);
}

/* Value of column @p name, else of @p first, else of @p second. */
static const fm_json_t *pick(const fm_json_t *record, const char *name,
                             const char *first, const char *second)
{
    if (name) {
        return fm_json_get(record, name);
    }
    const fm_json_t *value = fm_json_get(record, first);
    return value || !second ? value : fm_json_get(record, second);
}

/* A new text: @p value (numbers too) and @p tail; NULL where it is no text. */
static fm_json_t *text_with(const char *head, const fm_json_t *value,
                            const char *tail)
{
    fm_buf_t buf = {0};
    fm_json_t *text = NULL;

    if (!fm_json_is(value, FM_JSON_STRING) && !fm_json_is_number(value)) {
        return NULL;
    }
    if (head) {
        fm_buf_add_str(&buf, head);
        fm_buf_add_str(&buf, "\n\n");
    }
    fm_wf_add_text(&buf, value);
    fm_buf_add_str(&buf, tail ? tail : "");
    if (!buf.failed) {
        text = fm_json_stringn(buf.len ? (const char *)buf.data : "", buf.len);
    }
    fm_buf_fini(&buf);
    return text;
}

static fm_status_t add_member(const fm_wf_sampler_t *s, size_t index,
                              fm_json_t *sample, const char *key,
                              const fm_json_t *value, const char *tail)
{
    fm_json_t *text = text_with(NULL, value, tail);
    char message[96];

    if (!text) {
        (void)snprintf(message, sizeof(message),
                       "no text for %s; name its column in data", key);
        return fm_wf_record_fail(s->r, index, message);
    }
    return fm_json_set(sample, key, text) < 0 ? fm_wf_no_memory(s->r) : FM_OK;
}

/* --- messages and prompts ------------------------------------------------- */

static bool is_role(const char *text)
{
    static const char *const roles[] = {"system", "user", "assistant", "tool"};

    for (size_t i = 0; text && i < FM_COUNT_OF(roles); i++) {
        if (strcmp(roles[i], text) == 0) {
            return true;
        }
    }
    return false;
}

static fm_status_t check_messages(const fm_wf_sampler_t *s, size_t index,
                                  const fm_json_t *messages)
{
    bool fits = fm_json_is(messages, FM_JSON_ARRAY) && fm_json_len(messages);

    for (size_t i = 0; fits && i < fm_json_len(messages); i++) {
        const fm_json_t *message = fm_json_at(messages, i);
        fits = is_role(fm_json_get_str(message, "role")) &&
               fm_json_get_str(message, "content") && fm_json_len(message) == 2;
    }
    return fits ? FM_OK
                : fm_wf_record_fail(
                      s->r, index,
                      "messages; allowed: a list of {role, content}, "
                      "role system, user, assistant or tool");
}

static fm_json_t *message_of(const char *role, const fm_json_t *content)
{
    fm_json_t *message = fm_json_object();

    if (!message || fm_json_set(message, "role", fm_json_string(role)) < 0 ||
        fm_json_set(message, "content", fm_json_keep(content)) < 0) {
        return fm_json_drop(message);
    }
    return message;
}

/* The system prompt, unless they have one, then all of @p messages, then
 * @p last as what the user says; either may be NULL. */
static fm_status_t make_messages(const fm_wf_sampler_t *s,
                                 const fm_json_t *messages,
                                 const fm_json_t *last, fm_json_t **out)
{
    const char *first = fm_json_get_str(fm_json_at(messages, 0), "role");
    bool own = first && strcmp(first, "system") == 0;
    fm_json_t *list = fm_json_array();
    fm_status_t rc = list ? FM_OK : FM_ERR_NO_MEMORY;

    if (rc == FM_OK && s->system && !own) {
        rc = fm_json_append(list, message_of("system", s->system));
    }
    for (size_t i = 0; i < fm_json_len(messages) && rc == FM_OK; i++) {
        rc = fm_json_append(list, fm_json_keep(fm_json_at(messages, i)));
    }
    if (rc == FM_OK && last) {
        rc = fm_json_append(list, message_of("user", last));
    }
    if (rc < 0) {
        fm_json_drop(list);
        return fm_wf_no_memory(s->r);
    }
    *out = list;
    return FM_OK;
}

/* Whether a record is made of messages rather than of column @p name. */
static const fm_json_t *messages_of(const fm_wf_sampler_t *s,
                                    const fm_json_t *record, bool others)
{
    if (s->messages) {
        return fm_json_get(record, s->messages);
    }
    return others ? NULL : fm_json_get(record, "messages");
}

fm_status_t fm_wf_prompt_make(const fm_wf_sampler_t *s, size_t index,
                              const fm_json_t *record, fm_json_t **out)
{
    const char *name = s->column ? s->column : s->prompt;
    const fm_json_t *value = fm_json_is(record, FM_JSON_OBJECT)
                                 ? pick(record, name, "prompt", "text")
                                 : record;
    const fm_json_t *messages =
        messages_of(s, record, name != NULL || value != NULL);
    fm_json_t *item = fm_json_object();
    fm_json_t *made = NULL;
    const char *key = messages || s->chat ? "messages" : "prompt";
    fm_status_t rc = item ? FM_OK : fm_wf_no_memory(s->r);

    if (rc == FM_OK && messages) {
        rc = check_messages(s, index, messages);
    }
    if (rc == FM_OK && !messages) {
        made = text_with(s->chat ? NULL : fm_json_str(s->system), value, NULL);
        rc = made ? FM_OK
                  : fm_wf_record_fail(s->r, index,
                                      "no prompt text; name its column in "
                                      "data.column");
    }
    if (rc == FM_OK && (messages || s->chat)) {
        fm_json_t *last = made;
        made = NULL;
        rc = make_messages(s, messages, last, &made);
        fm_json_drop(last);
    }
    if (rc == FM_OK) {
        rc = fm_wf_set(s->r, item, key, made);
        made = NULL;
    }
    if (rc == FM_OK) {
        *out = item;
        item = NULL;
    }
    fm_json_drop(made);
    fm_json_drop(item);
    return rc;
}

/* --- samples -------------------------------------------------------------- */

static fm_status_t make_pair(const fm_wf_sampler_t *s, size_t index,
                             const fm_json_t *record, fm_json_t *sample)
{
    const fm_json_t *prompt = pick(record, s->prompt, "prompt", NULL);
    const fm_json_t *chosen = pick(record, s->chosen, "chosen", NULL);
    const fm_json_t *rejected = pick(record, s->rejected, "rejected", NULL);
    fm_status_t rc = FM_OK;

    if ((rc = add_member(s, index, sample, "prompt", prompt, s->separator)) <
            0 ||
        (rc = add_member(s, index, sample, "chosen", chosen, NULL)) < 0) {
        return rc;
    }
    return add_member(s, index, sample, "rejected", rejected, NULL);
}

static fm_status_t make_completion(const fm_wf_sampler_t *s, size_t index,
                                   const fm_json_t *record, fm_json_t *sample)
{
    const fm_json_t *prompt = pick(record, s->prompt, "prompt", NULL);
    fm_status_t rc =
        add_member(s, index, sample, "prompt", prompt, s->separator);

    return rc < 0
               ? rc
               : add_member(s, index, sample, "completion",
                            pick(record, s->response, "response", "completion"),
                            NULL);
}

/* {"text"}, {"messages"} or {"prompt", "completion"}. */
static fm_status_t make_text(fm_wf_sampler_t *s, size_t index,
                             const fm_json_t *record, fm_json_t *sample)
{
    bool map = fm_json_is(record, FM_JSON_OBJECT);
    const fm_json_t *prompt = pick(record, s->prompt, "prompt", NULL);
    const fm_json_t *text = map ? pick(record, s->text, "text", NULL) : record;
    bool evaluate = s->r->node->task == FM_WF_EVALUATE;
    const fm_json_t *messages =
        evaluate || !map ? NULL : messages_of(s, record, prompt || text);
    const char *kind = "text";
    fm_status_t rc = FM_OK;

    if (messages && !s->text) {
        if ((rc = check_messages(s, index, messages)) == FM_OK) {
            rc = fm_wf_set(s->r, sample, "messages", fm_json_keep(messages));
        }
    } else if (map && !s->text && (prompt || !text)) {
        kind = "completion";
        rc = make_completion(s, index, record, sample);
    } else {
        rc = add_member(s, index, sample, "text", text, NULL);
    }
    if (rc == FM_OK && evaluate && s->kind && strcmp(s->kind, kind) != 0) {
        rc = fm_wf_record_fail(s->r, index,
                               "another kind of sample than before");
    }
    s->kind = kind;
    return rc;
}

/* Position of the right choice: a number, or the text of one. */
static int64_t choice_of(const fm_json_t *choices, const fm_json_t *answer)
{
    if (fm_json_is(answer, FM_JSON_INT)) {
        return fm_json_int_or(answer, -1);
    }
    for (size_t i = 0; fm_json_str(answer) && i < fm_json_len(choices); i++) {
        if (fm_json_equal(fm_json_at(choices, i), answer)) {
            return (int64_t)i;
        }
    }
    return -1;
}

static fm_status_t make_choices(const fm_wf_sampler_t *s, size_t index,
                                const fm_json_t *record, fm_json_t *sample)
{
    const fm_json_t *choices = pick(record, s->choices, "choices", NULL);
    int64_t answer =
        choice_of(choices, pick(record, s->answer, "answer", NULL));
    bool fits = fm_json_is(choices, FM_JSON_ARRAY) && answer >= 0 &&
                (uint64_t)answer < fm_json_len(choices);
    fm_status_t rc =
        add_member(s, index, sample, "prompt",
                   pick(record, s->prompt, "prompt", NULL), s->separator);

    for (size_t i = 0; fits && i < fm_json_len(choices); i++) {
        fits = fm_json_str(fm_json_at(choices, i)) != NULL;
    }
    if (rc == FM_OK && !fits) {
        rc = fm_wf_record_fail(
            s->r, index,
            "choices and answer; allowed: a list of texts, and "
            "the position or the text of one of them");
    }
    if (rc == FM_OK && (rc = fm_wf_set(s->r, sample, "choices",
                                       fm_json_keep(choices))) == FM_OK) {
        rc = fm_wf_set(s->r, sample, "answer", fm_json_int(answer));
    }
    return rc;
}

/* The record, its prompt as text. */
static fm_status_t make_judged(const fm_wf_sampler_t *s, size_t index,
                               const fm_json_t *record, fm_json_t *sample)
{
    const char *name = s->column ? s->column : s->prompt;
    const fm_json_t *prompt = fm_json_is(record, FM_JSON_OBJECT)
                                  ? pick(record, name, "prompt", "text")
                                  : record;
    const char *key = NULL;
    fm_json_t *value = NULL;
    void *at = NULL;
    fm_status_t rc = FM_OK;

    while (rc == FM_OK && fm_json_next(record, &at, &key, &value)) {
        rc = fm_wf_set(s->r, sample, key, fm_json_keep(value));
    }
    return rc < 0 ? rc : add_member(s, index, sample, "prompt", prompt, NULL);
}

static fm_status_t make_evaluated(fm_wf_sampler_t *s, size_t index,
                                  const fm_json_t *record, fm_json_t *sample)
{
    switch (s->group) {
    case FM_WF_GROUP_PREFERENCE:
        return make_pair(s, index, record, sample);
    case FM_WF_GROUP_ACCURACY:
        return make_choices(s, index, record, sample);
    case FM_WF_GROUP_PASS:
    case FM_WF_GROUP_WIN:
        return make_judged(s, index, record, sample);
    default:
        return make_text(s, index, record, sample);
    }
}

/* echo: the record, or its column. */
static fm_status_t make_value(const fm_wf_sampler_t *s, size_t index,
                              const fm_json_t *record, fm_json_t *sample)
{
    const fm_json_t *value =
        s->column ? fm_json_get(record, s->column) : record;

    return value ? fm_wf_set(s->r, sample, "value", fm_json_keep(value))
                 : fm_wf_record_fail(s->r, index, "it has no such column");
}

static fm_status_t make_sample(fm_wf_sampler_t *s, size_t index,
                               const fm_json_t *record, fm_json_t *sample)
{
    const char *name = s->column ? s->column : s->text;
    fm_status_t rc = FM_OK;

    switch (s->r->node->task) {
    case FM_WF_ECHO:
        return make_value(s, index, record, sample);
    case FM_WF_EMBEDDING:
        return add_member(s, index, sample, "text",
                          fm_json_is(record, FM_JSON_OBJECT)
                              ? pick(record, name, "text", "prompt")
                              : record,
                          NULL);
    case FM_WF_SFT:
    case FM_WF_LORA_SFT:
        return make_text(s, index, record, sample);
    case FM_WF_EVALUATE:
        return make_evaluated(s, index, record, sample);
    case FM_WF_SCORE:
        return make_completion(s, index, record, sample);
    case FM_WF_REWARD:
        rc = make_completion(s, index, record, sample);
        return rc < 0 ? rc
                      : fm_wf_set(s->r, sample, "record", fm_json_keep(record));
    default:
        return make_pair(s, index, record, sample);
    }
}

fm_status_t fm_wf_samples(const fm_wf_resolver_t *r, const fm_json_t *records,
                          fm_json_t **out)
{
    fm_wf_sampler_t s = {0};
    fm_json_t *list = fm_json_array();
    fm_status_t rc = list ? fm_wf_sampler_init(&s, r) : fm_wf_no_memory(r);

    for (size_t i = 0; i < fm_json_len(records) && rc == FM_OK; i++) {
        const fm_json_t *record = fm_json_at(records, i);
        fm_json_t *sample = NULL;
        if (r->node->task == FM_WF_INFERENCE) {
            rc = fm_wf_prompt_make(&s, i, record, &sample);
        } else if (!(sample = fm_json_object())) {
            rc = fm_wf_no_memory(r);
        } else if ((rc = make_sample(&s, i, record, sample)) < 0) {
            sample = fm_json_drop(sample);
        }
        if (rc == FM_OK && fm_json_append(list, sample) < 0) {
            rc = fm_wf_no_memory(r);
        }
    }
    if (rc == FM_OK) {
        *out = list;
        list = NULL;
    }
    fm_wf_sampler_fini(&s);
    fm_json_drop(list);
    return rc;
}
