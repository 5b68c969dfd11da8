/* SPDX-License-Identifier: Apache-2.0 */
/* Sweeps: axes, trials and their names, effective specs (W12, W40 – W42). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "plan/workflow/graph.h"

#define VALUE_BYTES_MAX 32u /* of a value in a trial's name */

/* --- axes ----------------------------------------------------------------- */

static fm_status_t add_axis(fm_workflow_t *wf, const fm_yaml_member_t *member,
                            const fm_yaml_source_t *source)
{
    const char *dot = strchr(member->key, '.');
    char stage[160] = "";

    if (wf->axis_count == FM_WF_SWEEP_KEYS_MAX) {
        return fm_yaml_fail(source, member->line, member->column, FM_ERR_LIMIT,
                            "more than %u swept keys", FM_WF_SWEEP_KEYS_MAX);
    }
    if (!dot || dot == member->key || !dot[1] ||
        (size_t)(dot - member->key) >= sizeof(stage)) {
        return fm_yaml_fail(
            source, member->line, member->column, FM_ERR_INVALID,
            "swept key %.80s; allowed: NODE.path.in.its.spec or "
            "spec.path",
            member->key);
    }
    memcpy(stage, member->key, (size_t)(dot - member->key));
    const uint64_t *found = fm_strmap_get(wf->stage_names, stage);
    bool base = strcmp(stage, "spec") == 0;
    if (!found && !base) {
        char hint[192];
        return fm_yaml_fail(
            source, member->line, member->column, FM_ERR_INVALID,
            "swept key %.80s: %s is no node of this workflow%s", member->key,
            stage, fm_wf_suggest_stage(wf, stage, "spec", hint, sizeof(hint)));
    }
    if (strcmp(dot + 1, "taskType") == 0) {
        return fm_yaml_fail(
            source, member->line, member->column, FM_ERR_INVALID,
            "swept key %.80s: taskType cannot be swept", member->key);
    }
    wf->axes[wf->axis_count++] = (fm_wf_axis_t){
        .key = member->key,
        .stage = base ? FM_WF_NONE : (uint32_t)*found,
        .path = dot + 1,
        .line = member->line,
        .column = member->column,
        .values = member->value,
    };
    return FM_OK;
}

static bool ends_with(const char *key, const char *suffix)
{
    size_t len = strlen(key);
    size_t tail = strlen(suffix);

    return tail <= len && strcmp(key + len - tail, suffix) == 0 &&
           (tail == len || key[len - tail - 1] == '.');
}

static void shorten_keys(fm_workflow_t *wf)
{
    for (size_t i = 0; i < wf->axis_count; i++) {
        const char *key = wf->axes[i].key;
        const char *suffix = strrchr(key, '.') + 1;
        for (size_t k = 0; k < wf->axis_count; k++) {
            while (k != i && suffix > key &&
                   ends_with(wf->axes[k].key, suffix)) {
                suffix--; /* over the dot, back to the step before */
                while (suffix > key && suffix[-1] != '.') {
                    suffix--;
                }
            }
        }
        wf->axes[i].suffix = suffix;
    }
}

/* --- trials --------------------------------------------------------------- */

static void add_value_text(fm_buf_t *buf, const fm_yaml_value_t *value,
                           size_t position)
{
    if (!value->text || !*value->text) {
        fm_buf_printf(buf, "#%zu", position);
        return;
    }
    for (size_t i = 0; i < VALUE_BYTES_MAX && value->text[i]; i++) {
        char c = value->text[i];
        bool fits = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                    (c >= '0' && c <= '9') || strchr("._+-", c);
        fm_buf_add_u8(buf, (uint8_t)(fits ? c : '_'));
    }
}

static fm_status_t name_trial(fm_workflow_t *wf, fm_wf_trial_t *trial,
                              fm_strmap_t *names, fm_error_t *err)
{
    fm_buf_t buf = {0};
    fm_status_t rc = FM_ERR_NO_MEMORY;

    for (size_t i = 0; i < wf->axis_count; i++) {
        if (trial->values[i]) {
            fm_buf_printf(&buf, "%s%s=", buf.len ? "," : "",
                          wf->axes[i].suffix);
            add_value_text(&buf, trial->values[i], trial->positions[i]);
        }
    }
    if (!buf.len) {
        fm_buf_add_str(&buf, "base");
    }
    size_t len = buf.len;
    uint64_t *count = fm_strmap_get(names, fm_buf_cstr(&buf));
    uint64_t again = count ? *count + 1 : 1;
    if ((rc = fm_strmap_put(names, fm_buf_cstr(&buf), again, err)) == FM_OK) {
        trial->pub.name =
            again == 1
                ? fm_yaml_text(&wf->arena, (const char *)buf.data, len)
                : fm_yaml_printf(&wf->arena, "%s~%llu", fm_buf_cstr(&buf),
                                 (unsigned long long)again);
        rc = trial->pub.name && !buf.failed ? FM_OK : fm_no_memory(err);
    }
    fm_buf_fini(&buf);
    return rc;
}

/* {"dpo.training.beta": 0.1, …} */
static fm_status_t list_values(fm_workflow_t *wf, fm_wf_trial_t *trial,
                               const fm_yaml_source_t *source)
{
    fm_yaml_member_t members[FM_WF_SWEEP_KEYS_MAX];
    size_t count = 0;

    for (size_t i = 0; i < wf->axis_count; i++) {
        if (trial->values[i]) {
            members[count++] = (fm_yaml_member_t){.key = wf->axes[i].key,
                                                  .value = trial->values[i]};
        }
    }
    const fm_yaml_value_t *map =
        fm_yaml_container(&wf->arena, FM_JSON_OBJECT, 1, 1, members, count);
    trial->pub.values = map ? fm_yaml_json(&wf->arena, map) : NULL;
    return trial->pub.values ? FM_OK : fm_no_memory(source->err);
}

static fm_status_t make_trials(fm_workflow_t *wf, size_t count,
                               const fm_yaml_source_t *source)
{
    size_t axes = wf->axis_count;

    wf->trials = fm_yaml_alloc(&wf->arena, count * sizeof(*wf->trials));
    for (size_t i = 0; wf->trials && i < count; i++) {
        wf->trials[i].values =
            fm_yaml_alloc(&wf->arena, axes * sizeof(fm_yaml_value_t *));
        wf->trials[i].positions =
            fm_yaml_alloc(&wf->arena, axes * sizeof(size_t));
        if (!wf->trials[i].values || !wf->trials[i].positions) {
            return fm_no_memory(source->err);
        }
    }
    wf->trial_count = wf->trials ? count : 0;
    return wf->trials ? FM_OK : fm_no_memory(source->err);
}

static fm_status_t read_matrix(fm_workflow_t *wf, const fm_yaml_value_t *matrix,
                               const fm_yaml_source_t *source)
{
    size_t count = 1;
    fm_status_t rc = FM_OK;

    for (size_t i = 0; i < matrix->count && rc == FM_OK; i++) {
        const fm_yaml_member_t *member = &matrix->members[i];
        if (member->value->type != FM_JSON_ARRAY || !member->value->count) {
            return fm_yaml_fail(
                source, member->value->line, member->value->column,
                FM_ERR_INVALID,
                "swept key %.80s has no list of values; allowed: "
                "[value, ...]",
                member->key);
        }
        count *= member->value->count;
        if (count > FM_WORKFLOW_TRIALS_MAX) {
            return fm_yaml_fail(source, matrix->line, matrix->column,
                                FM_ERR_LIMIT, "more than %u trials",
                                FM_WORKFLOW_TRIALS_MAX);
        }
        rc = add_axis(wf, member, source);
    }
    if (rc < 0 || (rc = make_trials(wf, count, source)) < 0) {
        return rc;
    }
    for (size_t t = 0; t < count; t++) {
        size_t rest = t;
        for (size_t a = wf->axis_count; a-- > 0;) {
            const fm_yaml_value_t *values = wf->axes[a].values;
            size_t pick = rest % values->count;
            rest /= values->count;
            wf->trials[t].values[a] = values->members[pick].value;
            wf->trials[t].positions[a] = pick + 1;
        }
    }
    return FM_OK;
}

static size_t axis_find(const fm_workflow_t *wf, const char *key)
{
    size_t i = 0;

    while (i < wf->axis_count && strcmp(wf->axes[i].key, key) != 0) {
        i++;
    }
    return i;
}

static fm_status_t read_list(fm_workflow_t *wf, const fm_yaml_value_t *list,
                             const fm_yaml_source_t *source)
{
    fm_status_t rc = FM_OK;

    if (list->count > FM_WORKFLOW_TRIALS_MAX) {
        return fm_yaml_fail(source, list->line, list->column, FM_ERR_LIMIT,
                            "more than %u trials", FM_WORKFLOW_TRIALS_MAX);
    }
    for (size_t t = 0; t < list->count; t++) {
        const fm_yaml_value_t *entry = list->members[t].value;
        if (entry->type != FM_JSON_OBJECT) {
            return fm_yaml_fail(source, entry->line, entry->column,
                                FM_ERR_INVALID,
                                "a trial that is no map; allowed: {KEY: value, "
                                "...}");
        }
        for (size_t i = 0; i < entry->count && rc == FM_OK; i++) {
            if (axis_find(wf, entry->members[i].key) == wf->axis_count) {
                rc = add_axis(wf, &entry->members[i], source);
            }
        }
    }
    if (rc < 0 || (rc = make_trials(wf, list->count, source)) < 0) {
        return rc;
    }
    for (size_t t = 0; t < list->count; t++) {
        const fm_yaml_value_t *entry = list->members[t].value;
        for (size_t i = 0; i < entry->count; i++) {
            size_t axis = axis_find(wf, entry->members[i].key);
            wf->trials[t].values[axis] = entry->members[i].value;
            wf->trials[t].positions[axis] = t + 1;
        }
    }
    return FM_OK;
}

fm_status_t fm_wf_sweep_read(fm_workflow_t *wf, const fm_yaml_value_t *sweep,
                             const fm_yaml_source_t *source)
{
    const fm_yaml_value_t *matrix = fm_yaml_get(sweep, "matrix");
    const fm_yaml_value_t *list = fm_yaml_get(sweep, "list");
    const fm_yaml_value_t *given = matrix ? matrix : list;
    fm_json_type_t want = matrix ? FM_JSON_OBJECT : FM_JSON_ARRAY;
    fm_status_t rc = FM_OK;

    if (sweep->count != 1 || !given || given->type != want || !given->count) {
        return fm_yaml_fail(source, sweep->line, sweep->column, FM_ERR_INVALID,
                            "sweep; allowed: {matrix: {KEY: [value, ...]}} or "
                            "{list: [{KEY: value}, ...]}");
    }
    wf->axes =
        fm_yaml_alloc(&wf->arena, FM_WF_SWEEP_KEYS_MAX * sizeof(*wf->axes));
    if (!wf->axes) {
        return fm_no_memory(source->err);
    }
    rc = matrix ? read_matrix(wf, matrix, source) : read_list(wf, list, source);
    shorten_keys(wf);
    fm_strmap_t *names = fm_strmap_create();
    if (rc == FM_OK && !names) {
        rc = fm_no_memory(source->err);
    }
    for (size_t t = 0; t < wf->trial_count && rc == FM_OK; t++) {
        if ((rc = name_trial(wf, &wf->trials[t], names, source->err)) ==
            FM_OK) {
            rc = list_values(wf, &wf->trials[t], source);
        }
    }
    fm_strmap_destroy(names);
    return rc;
}

/* --- effective specs ------------------------------------------------------ */

/* What the task type takes of an inherited map (W12). */
static const fm_yaml_value_t *inherited(fm_workflow_t *wf,
                                        const fm_yaml_section_t *section,
                                        const fm_yaml_value_t *base, int task,
                                        bool *used)
{
    fm_yaml_member_t *kept = fm_calloc(base->count, sizeof(*kept));
    const fm_yaml_value_t *out = NULL;
    size_t count = 0;

    for (size_t i = 0; kept && i < base->count; i++) {
        const fm_yaml_key_t *key =
            fm_yaml_key_find(section, base->members[i].key, task);
        if (key && key->variants && !(key->variants & task)) {
            continue;
        }
        if (used) {
            used[i] = true;
        }
        kept[count] = base->members[i];
        if (key && key->section && kept[count].value->type == FM_JSON_OBJECT &&
            !(kept[count].value =
                  inherited(wf, key->section, kept[count].value, task, NULL))) {
            goto out;
        }
        count++;
    }
    if (kept) {
        out = fm_yaml_container(&wf->arena, FM_JSON_OBJECT, base->line,
                                base->column, kept, count);
    }
out:
    free(kept);
    return out;
}

static bool names_origin(const fm_yaml_value_t *data)
{
    static const char *const keys[] = {"type",        "items", "prompts",
                                       "preferences", "path",  "node",
                                       "nodes",       "jsonl", "template"};

    for (size_t i = 0; i < FM_COUNT_OF(keys); i++) {
        if (fm_yaml_get(data, keys[i])) {
            return true;
        }
    }
    return false;
}

/* A reward of its own: entire, in either spelling. */
static bool names_reward(const fm_yaml_value_t *own)
{
    const fm_yaml_value_t *reward = fm_yaml_get(own, "reward");

    return fm_yaml_get(own, "reward_model") ||
           (reward &&
            (reward->type == FM_JSON_ARRAY || fm_yaml_get(reward, "type")));
}

/* Where data or a model comes from, and what rewards, is one thing: own
 * replaces inherited.  An adapter belongs to its model. */
static const fm_yaml_value_t *drop_origins(fm_workflow_t *wf,
                                           const fm_yaml_value_t *base,
                                           const fm_yaml_value_t *own)
{
    const fm_yaml_value_t *model = fm_yaml_get(base, "model");

    if (names_origin(fm_yaml_get(own, "data"))) {
        base = fm_yaml_without(&wf->arena, base, "data");
    }
    if (base && names_reward(own)) {
        base = fm_yaml_without(&wf->arena, base, "reward");
        base = base ? fm_yaml_without(&wf->arena, base, "reward_model") : NULL;
    }
    if (base && model && model->type == FM_JSON_OBJECT &&
        fm_yaml_get(fm_yaml_get(own, "model"), "source")) {
        const fm_yaml_value_t *rest =
            fm_yaml_without(&wf->arena, model, "source");
        rest = rest ? fm_yaml_without(&wf->arena, rest, "adapters") : NULL;
        fm_error_t ignored = {0};
        if (!rest ||
            fm_yaml_put(&wf->arena, base, "model", rest, &base, &ignored) < 0) {
            return NULL;
        }
    }
    return base;
}

static fm_status_t put_axes(fm_workflow_t *wf, uint32_t stage, size_t trial,
                            const fm_yaml_source_t *source,
                            const fm_yaml_value_t **tree)
{
    for (size_t a = 0; a < wf->axis_count; a++) {
        const fm_wf_axis_t *axis = &wf->axes[a];
        const fm_yaml_value_t *value = wf->trials[trial].values[a];
        fm_error_t cause = {0};
        if (axis->stage != stage || !value) {
            continue;
        }
        fm_status_t rc =
            fm_yaml_put(&wf->arena, *tree, axis->path, value, tree, &cause);
        if (rc < 0) {
            return fm_yaml_fail(source, axis->line, axis->column, rc,
                                "swept key %.80s: %s", axis->key, cause.text);
        }
    }
    return FM_OK;
}

static fm_status_t find_task(const fm_workflow_t *wf,
                             const fm_wf_stage_t *stage,
                             const fm_yaml_source_t *source, int *task_out)
{
    const fm_yaml_value_t *type = fm_yaml_get(stage->own, "taskType");

    type = type ? type : fm_yaml_get(wf->base, "taskType");
    if (!type) {
        return fm_yaml_fail(source, stage->line, stage->column, FM_ERR_INVALID,
                            "node %s has no taskType", stage->name);
    }
    return fm_wf_task_check(source, type, task_out);
}

fm_status_t fm_wf_effective(fm_workflow_t *wf, uint32_t stage, size_t trial,
                            const fm_yaml_source_t *source,
                            const fm_yaml_value_t **out)
{
    fm_wf_stage_t *s = &wf->stages[stage];
    const fm_yaml_value_t *base = wf->base;
    fm_status_t rc = FM_OK;

    if ((rc = find_task(wf, s, source, &s->task)) < 0) {
        return rc;
    }
    if (s->own) {
        base = inherited(wf, &fm_wf_spec, base, s->task, wf->base_used);
    } else {
        memset(wf->base_used, 1, wf->base->count);
    }
    if (!base) {
        return fm_no_memory(source->err);
    }
    if (s->swept && (rc = put_axes(wf, FM_WF_NONE, trial, source, &base)) < 0) {
        return rc;
    }
    const fm_yaml_value_t *tree = base;
    if (s->own) {
        base = inherited(wf, &fm_wf_spec, base, s->task, NULL);
        base = base ? drop_origins(wf, base, s->own) : NULL;
        tree = base ? fm_yaml_merge(&wf->arena, base, s->own) : NULL;
    }
    if (!tree) {
        return fm_no_memory(source->err);
    }
    if (s->swept && (rc = put_axes(wf, stage, trial, source, &tree)) < 0) {
        return rc;
    }
    *out = tree;
    return FM_OK;
}

/* --- reach ---------------------------------------------------------------- */

/* Whether a node's own spec sets @p path, or something it would lie in. */
static bool overrides(const fm_yaml_value_t *own, const char *path)
{
    char step[160];

    while (own && *path) {
        size_t len = strcspn(path, ".");
        if (own->type != FM_JSON_OBJECT || len >= sizeof(step)) {
            return true;
        }
        memcpy(step, path, len);
        step[len] = '\0';
        own = fm_yaml_get(own, step);
        path += len + (path[len] == '.');
    }
    return own && own->type != FM_JSON_OBJECT;
}

static bool reaches(const fm_workflow_t *wf, const fm_wf_axis_t *axis,
                    uint32_t index)
{
    const fm_wf_stage_t *stage = &wf->stages[index];
    char section[160] = "";
    size_t len = strcspn(axis->path, ".");

    if (axis->stage != FM_WF_NONE) {
        return axis->stage == index;
    }
    if (!stage->own) {
        return true;
    }
    if (len < sizeof(section)) {
        memcpy(section, axis->path, len);
    }
    const fm_yaml_value_t *type = fm_yaml_get(stage->own, "taskType");
    type = type ? type : fm_yaml_get(wf->base, "taskType");
    int task = fm_yaml_str(type) ? fm_wf_task_bit(type->text) : 0;
    const fm_yaml_key_t *key = fm_yaml_key_find(&fm_wf_spec, section, task);
    bool taken = !key || !key->variants || (key->variants & task);
    return taken && !overrides(stage->own, axis->path);
}

void fm_wf_sweep_mark(fm_workflow_t *wf)
{
    for (size_t i = 0; i < wf->stage_count; i++) {
        uint32_t index = wf->order[i];
        fm_wf_stage_t *stage = &wf->stages[index];
        for (size_t a = 0; a < wf->axis_count && !stage->swept; a++) {
            stage->swept = reaches(wf, &wf->axes[a], index);
        }
        for (size_t k = 0; k < stage->dep_count && !stage->swept; k++) {
            stage->swept = wf->stages[stage->deps[k]].swept;
        }
    }
}
