/* SPDX-License-Identifier: Apache-2.0 */
/* Parameters of data_retrieval and of the data operators (§6.2, §6.11). */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "plan/workflow/graph.h"
#include "plan/workflow/origin.h"
#include "plan/workflow/ref.h"

/* --- data_retrieval ------------------------------------------------------- */

static fm_status_t split_params(const fm_wf_resolver_t *r, const char *text,
                                double fraction, fm_json_t *params)
{
    fm_wf_split_t split = {.part = "all", .open = true};
    const fm_yaml_value_t *data = fm_yaml_get(r->node->tree, "data");

    if (text && !fm_wf_split_parse(text, &split)) {
        return fm_yaml_fail(
            &r->source, data->line, data->column, FM_ERR_INVALID,
            "node %s: split %.60s; allowed: all, train or test, "
            "and a slice such as train[:200]",
            r->node->pub.name, text);
    }
    bool whole = strcmp(split.part, "train") == 0 && fraction == 0;
    fm_json_t *made = fm_json_object();
    if (!made ||
        fm_json_set(made, "part", fm_json_string(whole ? "all" : split.part)) <
            0 ||
        fm_json_set(made, "unit",
                    fm_json_string(split.percent ? "percent" : "records")) <
            0 ||
        fm_json_set(made, "from", fm_json_int(split.from)) < 0 ||
        fm_json_set(made, "to",
                    split.open ? fm_json_null() : fm_json_int(split.to)) < 0) {
        fm_json_drop(made);
        return fm_wf_no_memory(r);
    }
    return fm_wf_set(r, params, "split", made);
}

static fm_status_t chunk_params(const fm_wf_resolver_t *r,
                                const fm_json_t *chunk, fm_json_t *params)
{
    if (!chunk) {
        return fm_wf_set(r, params, "chunk", fm_json_null());
    }
    int64_t bytes = fm_json_get_int(chunk, "bytes", 512);
    int64_t stride = fm_json_get_int(chunk, "stride", bytes);
    fm_json_t *made = fm_json_object();
    if (!made || fm_json_set(made, "bytes", fm_json_int(bytes)) < 0 ||
        fm_json_set(made, "stride", fm_json_int(stride)) < 0) {
        fm_json_drop(made);
        return fm_wf_no_memory(r);
    }
    return fm_wf_set(r, params, "chunk", made);
}

static fm_status_t retrieval_params(const fm_wf_resolver_t *r,
                                    fm_json_t *params)
{
    fm_wf_origin_t origin = {0};
    fm_json_t *data = NULL;
    fm_json_t *file = NULL;
    fm_status_t rc = fm_wf_section_read(r, "data", &fm_wf_data, &data);

    if (rc < 0 ||
        (rc = fm_wf_origin_read(fm_yaml_get(r->node->tree, "data"), &r->source,
                                &origin)) < 0 ||
        (rc = fm_wf_digest_of(r, origin.path, &file)) < 0) {
        goto out;
    }
    double fraction = fm_json_get_real(data, "test_fraction", 0);
    bool shuffle = fm_json_get_bool(data, "shuffle", false);
    const fm_json_t *columns = fm_json_get(data, "columns");
    const fm_json_t *dataset = fm_json_get(data, "dataset");
    if ((rc = fm_wf_set(r, params, "file", fm_json_keep(file))) < 0 ||
        (rc = fm_wf_set(r, params, "format", fm_json_string(origin.format))) <
            0 ||
        (rc = fm_wf_set(r, params, "test_fraction", fm_json_real(fraction))) <
            0 ||
        (rc = fm_wf_set(r, params, "shuffle", fm_json_bool(shuffle))) < 0 ||
        (rc = fm_wf_set(r, params, "columns",
                        columns ? fm_json_keep(columns) : fm_json_null())) <
            0 ||
        (rc = split_params(r, fm_json_get_str(data, "split"), fraction,
                           params)) < 0 ||
        (rc = chunk_params(r, fm_json_get(data, "chunk"), params)) < 0 ||
        (dataset &&
         (rc = fm_wf_set(r, params, "dataset", fm_json_keep(dataset))) < 0)) {
        goto out;
    }
    rc = shuffle || fraction > 0 ? fm_wf_put_seed(r, data, params)
                                 : fm_wf_set(r, params, "seed", fm_json_int(0));
out:
    fm_json_drop(file);
    fm_json_drop(data);
    return rc;
}

/* --- data operators ------------------------------------------------------- */

/* Every key of the section, defaults filled in; NULL section: none. */
static fm_status_t fill(const fm_wf_resolver_t *r, const char *name,
                        const fm_yaml_section_t *section, fm_json_t *params,
                        fm_json_t **given_out)
{
    const char *key = NULL;
    fm_json_t *value = NULL;
    void *at = NULL;
    fm_json_t *given = NULL;
    fm_json_t *full = NULL;
    fm_status_t rc = fm_wf_section_read(r, name, section, &given);

    if (rc == FM_OK && !(full = fm_yaml_fill(section, given, r->node->task))) {
        rc = fm_wf_no_memory(r);
    }
    while (rc == FM_OK && fm_json_next(full, &at, &key, &value)) {
        rc = fm_wf_set(r, params, key, fm_json_keep(value));
    }
    fm_json_drop(full);
    if (rc < 0) {
        fm_json_drop(given);
        return rc;
    }
    *given_out = given;
    return FM_OK;
}

/* `method`, `code`, `entrypoint` and `seed` of a python function. */
static fm_status_t code_params(const fm_wf_resolver_t *r,
                               const fm_yaml_value_t *code,
                               const fm_json_t *given, fm_json_t *params)
{
    const char *entry = fm_json_get_str(given, "entrypoint");
    fm_json_t *made = NULL;
    fm_status_t rc = fm_wf_code_param(r, code, &made);

    if (rc < 0 || (rc = fm_wf_set(r, params, "code", made)) < 0 ||
        (rc = fm_wf_set(r, params, "entrypoint",
                        fm_json_string(entry ? entry : "main"))) < 0 ||
        (rc = fm_wf_set(r, params, "method", fm_json_string("python"))) < 0) {
        return rc;
    }
    return fm_wf_put_seed_or_null(r, params);
}

/* A condition with `op` and `of` explicit; a list means all of them. */
static fm_status_t make_condition(const fm_wf_resolver_t *r,
                                  const fm_json_t *given, fm_json_t **out);

static fm_status_t make_conditions(const fm_wf_resolver_t *r, const char *key,
                                   const fm_json_t *list, fm_json_t **out)
{
    fm_json_t *made = fm_json_object();
    fm_json_t *all = fm_json_array();
    fm_status_t rc = made && all ? FM_OK : fm_wf_no_memory(r);

    for (size_t i = 0; i < fm_json_len(list) && rc == FM_OK; i++) {
        fm_json_t *one = NULL;
        rc = make_condition(r, fm_json_at(list, i), &one);
        if (rc == FM_OK && fm_json_append(all, one) < 0) {
            rc = fm_wf_no_memory(r);
        }
    }
    if (rc == FM_OK) {
        rc = fm_wf_set(r, made, key, fm_json_keep(all));
    }
    fm_json_drop(all);
    if (rc < 0) {
        fm_json_drop(made);
        return rc;
    }
    *out = made;
    return FM_OK;
}

static fm_status_t make_test(const fm_wf_resolver_t *r, const fm_json_t *given,
                             fm_json_t **out)
{
    static const char *const keys[][2] = {{"field", "null"},
                                          {"of", "\"value\""},
                                          {"op", "\"eq\""},
                                          {"value", "null"}};
    fm_json_t *made = fm_json_object();
    fm_status_t rc = made ? FM_OK : fm_wf_no_memory(r);

    for (size_t i = 0; i < FM_COUNT_OF(keys) && rc == FM_OK; i++) {
        fm_json_t *value = fm_json_keep(fm_json_get(given, keys[i][0]));
        if (!value) {
            rc = fm_json_parse(keys[i][1], strlen(keys[i][1]), keys[i][0],
                               &value, r->source.err);
        }
        rc = rc < 0 ? rc : fm_wf_set(r, made, keys[i][0], value);
    }
    if (rc < 0) {
        fm_json_drop(made);
        return rc;
    }
    *out = made;
    return FM_OK;
}

static fm_status_t make_condition(const fm_wf_resolver_t *r,
                                  const fm_json_t *given, fm_json_t **out)
{
    const char *key = fm_json_get(given, "all") ? "all" : "any";
    const fm_json_t *negated = fm_json_get(given, "not");
    fm_json_t *inner = NULL;
    fm_json_t *made = NULL;
    fm_status_t rc = FM_OK;

    if (fm_json_is(given, FM_JSON_ARRAY)) {
        return make_conditions(r, "all", given, out);
    }
    if (fm_json_get(given, key)) {
        return make_conditions(r, key, fm_json_get(given, key), out);
    }
    if (!negated) {
        return make_test(r, given, out);
    }
    if ((rc = make_condition(r, negated, &inner)) < 0) {
        return rc;
    }
    made = fm_json_object();
    if (!made || fm_json_set(made, "not", fm_json_keep(inner)) < 0) {
        made = fm_json_drop(made);
        rc = fm_wf_no_memory(r);
    }
    fm_json_drop(inner);
    *out = made ? made : *out;
    return rc;
}

static fm_status_t filter_params(const fm_wf_resolver_t *r, fm_json_t *params)
{
    const fm_yaml_value_t *tree = fm_yaml_get(r->node->tree, "filter");
    const fm_yaml_value_t *code = fm_yaml_get(tree, "code");
    fm_json_t *given = NULL;
    fm_json_t *where = NULL;
    fm_status_t rc = fm_wf_section_read(r, "filter", &fm_wf_filter, &given);

    if (rc == FM_OK && code) {
        rc = code_params(r, code, given, params);
    } else if (rc == FM_OK) {
        const fm_json_t *asked = fm_json_get(given, "where");
        if ((rc = fm_wf_where_check(asked, fm_yaml_get(tree, "where"), true,
                                    &r->source)) == FM_OK &&
            (rc = make_condition(r, asked, &where)) == FM_OK &&
            (rc = fm_wf_set(r, params, "where", where)) == FM_OK) {
            rc = fm_wf_set(r, params, "method", fm_json_string("where"));
        }
    }
    fm_json_drop(given);
    return rc;
}

/* Terms: a text alone is a field. */
static fm_status_t put_fields(const fm_wf_resolver_t *r, const fm_json_t *given,
                              fm_json_t *params)
{
    const char *name = NULL;
    fm_json_t *term = NULL;
    void *at = NULL;
    fm_json_t *fields = fm_json_object();
    fm_status_t rc = fields ? FM_OK : fm_wf_no_memory(r);

    while (rc == FM_OK &&
           fm_json_next(fm_json_get(given, "fields"), &at, &name, &term)) {
        fm_json_t *made = fm_json_str(term) ? fm_json_object() : NULL;
        if (made && fm_json_set(made, "from", fm_json_keep(term)) < 0) {
            made = fm_json_drop(made);
        }
        rc = fm_wf_set(r, fields, name,
                       fm_json_str(term) ? made : fm_json_keep(term));
    }
    if (rc == FM_OK) {
        rc = fm_wf_set(r, params, "fields", fm_json_keep(fields));
    }
    fm_json_drop(fields);
    return rc;
}

static fm_status_t map_params(const fm_wf_resolver_t *r, fm_json_t *params)
{
    const fm_yaml_value_t *code =
        fm_yaml_get(fm_yaml_get(r->node->tree, "map"), "code");
    fm_json_t *given = NULL;
    fm_status_t rc = fm_wf_section_read(r, "map", &fm_wf_map, &given);

    if (rc == FM_OK && code) {
        bool flatten = fm_json_get_bool(given, "flatten", false);
        if ((rc = code_params(r, code, given, params)) == FM_OK) {
            rc = fm_wf_set(r, params, "flatten", fm_json_bool(flatten));
        }
    } else if (rc == FM_OK) {
        bool keep = fm_json_get_bool(given, "keep", false);
        if ((rc = put_fields(r, given, params)) == FM_OK &&
            (rc = fm_wf_set(r, params, "keep", fm_json_bool(keep))) == FM_OK) {
            rc = fm_wf_set(r, params, "method", fm_json_string("fields"));
        }
    }
    fm_json_drop(given);
    return rc;
}

static fm_status_t dedup_params(const fm_wf_resolver_t *r, fm_json_t *params)
{
    static const char *const keys[] = {"threshold", "ngram",  "permutations",
                                       "lowercase", "verify", "seed"};
    fm_json_t *given = NULL;
    fm_status_t rc = fill(r, "dedup", &fm_wf_dedup, params, &given);

    if (rc == FM_OK &&
        strcmp(fm_json_get_str(params, "method"), "exact") != 0) {
        rc = fm_wf_put_seed(r, given, params);
    } else {
        for (size_t i = 0; i < FM_COUNT_OF(keys); i++) {
            fm_json_remove(params, keys[i]); /* they change nothing */
        }
    }
    fm_json_drop(given);
    return rc;
}

/* {"name", "fraction", "count"} of one part; both null: the rest. */
static fm_status_t part_of(const fm_wf_resolver_t *r,
                           const fm_yaml_member_t *member, fm_json_t **out)
{
    fm_json_t *size = NULL;
    fm_json_t *part = fm_json_object();
    fm_status_t rc = part ? fm_wf_resolve(r, member->value, false, &size)
                          : fm_wf_no_memory(r);
    const char *text = fm_json_str(size);
    double number = fm_json_real_or(size, -1);
    bool whole = fm_json_is(size, FM_JSON_INT);
    bool fits = text    ? strcmp(text, "rest") == 0
                : whole ? number >= 0
                        : number > 0 && number <= 1;

    if (rc == FM_OK && !fits) {
        rc = fm_yaml_fail(
            &r->source, member->line, member->column, FM_ERR_INVALID,
            "node %s: part %.60s; allowed: a fraction such as 0.1, "
            "a count such as 100, or rest",
            r->node->pub.name, member->key);
    }
    if (rc == FM_OK &&
        (rc = fm_wf_set(r, part, "name", fm_json_string(member->key))) ==
            FM_OK &&
        (rc = fm_wf_set(r, part, "count",
                        whole ? fm_json_keep(size) : fm_json_null())) ==
            FM_OK) {
        rc = fm_wf_set(r, part, "fraction",
                       text || whole ? fm_json_null() : fm_json_keep(size));
    }
    fm_json_drop(size);
    if (rc < 0) {
        fm_json_drop(part);
        return rc;
    }
    *out = part;
    return FM_OK;
}

static fm_status_t parts_params(const fm_wf_resolver_t *r, fm_json_t *params)
{
    const fm_yaml_value_t *parts =
        fm_yaml_get(fm_yaml_get(r->node->tree, "split"), "parts");
    fm_json_t *given = NULL;
    fm_json_t *list = fm_json_array();
    fm_status_t rc = list ? fill(r, "split", &fm_wf_split_parts, params, &given)
                          : fm_wf_no_memory(r);

    for (size_t i = 0; i < parts->count && rc == FM_OK; i++) {
        fm_json_t *part = NULL;
        rc = part_of(r, &parts->members[i], &part);
        if (rc == FM_OK && fm_json_append(list, part) < 0) {
            rc = fm_wf_no_memory(r);
        }
    }
    if (rc == FM_OK) {
        rc = fm_wf_set(r, params, "parts", fm_json_keep(list));
    }
    if (rc == FM_OK) {
        rc = fm_json_get_bool(params, "shuffle", true)
                 ? fm_wf_put_seed(r, given, params)
                 : fm_wf_set(r, params, "seed", fm_json_null());
    }
    fm_json_drop(given);
    fm_json_drop(list);
    return rc;
}

static fm_status_t shard_params(const fm_wf_resolver_t *r, fm_json_t *params)
{
    fm_json_t *given = NULL;
    fm_status_t rc = fill(r, "shard", &fm_wf_shard, params, &given);

    if (rc == FM_OK && fm_json_get_int(params, "index", 0) >=
                           fm_json_get_int(params, "count", 1)) {
        rc = fm_yaml_fail_at(&r->source, fm_yaml_get(r->node->tree, "shard"),
                             "shard.index; allowed: 0 to count − 1");
    }
    fm_json_drop(given);
    return rc;
}

static fm_status_t sample_params(const fm_wf_resolver_t *r, fm_json_t *params)
{
    fm_json_t *given = NULL;
    fm_status_t rc = fill(r, "sample", &fm_wf_sample, params, &given);

    if (rc == FM_OK) {
        rc = fm_wf_put_seed(r, given, params);
    }
    fm_json_drop(given);
    return rc;
}

static int compare_reals(const void *a, const void *b)
{
    const double *left = a;
    const double *right = b;

    return *left < *right ? -1 : *left > *right;
}

static fm_status_t profile_params(const fm_wf_resolver_t *r, fm_json_t *params)
{
    static const double usual[] = {0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99};
    double wanted[64];
    fm_json_t *given = NULL;
    fm_json_t *list = fm_json_array();
    fm_status_t rc = list ? fill(r, "profiling", &fm_wf_profile, params, &given)
                          : fm_wf_no_memory(r);
    const fm_json_t *asked = fm_json_get(given, "quantiles");
    size_t count = asked ? fm_json_len(asked) : FM_COUNT_OF(usual);
    bool fits = count <= FM_COUNT_OF(wanted);

    for (size_t i = 0; i < count && fits; i++) {
        wanted[i] =
            asked ? fm_json_real_or(fm_json_at(asked, i), -1) : usual[i];
        fits = wanted[i] >= 0 && wanted[i] <= 1;
    }
    if (rc == FM_OK && !fits) {
        rc = fm_yaml_fail_at(
            &r->source,
            fm_yaml_get(fm_yaml_get(r->node->tree, "profiling"), "quantiles"),
            "profiling.quantiles; allowed: at most 64 numbers from 0 to 1");
    }
    if (rc == FM_OK && count > 1) {
        qsort(wanted, count, sizeof(*wanted), compare_reals);
    }
    for (size_t i = 0; i < count && rc == FM_OK; i++) {
        if ((i == 0 || wanted[i] > wanted[i - 1]) &&
            fm_json_append(list, fm_json_real(wanted[i])) < 0) {
            rc = fm_wf_no_memory(r);
        }
    }
    if (rc == FM_OK) {
        rc = fm_wf_set(r, params, "quantiles", fm_json_keep(list));
    }
    fm_json_drop(list);
    fm_json_drop(given);
    return rc;
}

/* fields: NAME → field; a list names both alike. */
static fm_status_t export_params(const fm_wf_resolver_t *r, fm_json_t *params)
{
    fm_json_t *given = NULL;
    fm_json_t *map = NULL;
    fm_json_t *required = NULL;
    fm_status_t rc = fill(r, "jsonl_export", &fm_wf_export, params, &given);
    const fm_json_t *fields = fm_json_get(given, "fields");

    bool fits = !fields || fm_json_is(fields, FM_JSON_OBJECT) ||
                fm_json_is(fields, FM_JSON_NULL);

    if (rc == FM_OK && fm_json_is(fields, FM_JSON_ARRAY)) {
        fits = true;
        rc = (map = fm_json_object()) ? FM_OK : fm_wf_no_memory(r);
        for (size_t i = 0; i < fm_json_len(fields) && rc == FM_OK && fits;
             i++) {
            const fm_json_t *name = fm_json_at(fields, i);
            fits = fm_json_str(name) != NULL;
            rc = fits ? fm_wf_set(r, map, fm_json_str(name), fm_json_keep(name))
                      : FM_OK;
        }
        if (rc == FM_OK) {
            rc = fm_wf_set(r, params, "fields", fm_json_keep(map));
        }
    }
    if (rc == FM_OK && !fits) {
        rc = fm_yaml_fail_at(
            &r->source,
            fm_yaml_get(fm_yaml_get(r->node->tree, "jsonl_export"), "fields"),
            "jsonl_export.fields; allowed: {NAME: field}, or a list of names");
    }
    if (rc == FM_OK &&
        (rc = fm_wf_text_set(r, fm_json_get(given, "required"),
                             "jsonl_export.required", &required)) == FM_OK) {
        rc = fm_wf_set(r, params, "required", required);
    }
    fm_json_drop(map);
    fm_json_drop(given);
    return rc;
}

fm_status_t fm_wf_data_params(const fm_wf_resolver_t *r, fm_json_t *params)
{
    switch (r->node->task) {
    case FM_WF_RETRIEVAL:
        return retrieval_params(r, params);
    case FM_WF_MAP_TASK:
        return map_params(r, params);
    case FM_WF_FILTER:
        return filter_params(r, params);
    case FM_WF_DEDUP:
        return dedup_params(r, params);
    case FM_WF_SPLIT:
        return parts_params(r, params);
    case FM_WF_SHARD:
        return shard_params(r, params);
    case FM_WF_SAMPLE:
        return sample_params(r, params);
    case FM_WF_PROFILE:
        return profile_params(r, params);
    case FM_WF_EXPORT:
        return export_params(r, params);
    default:
        return FM_OK;
    }
}
