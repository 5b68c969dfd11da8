/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Import of a LoRA adapter in the layout of PEFT (adapter_config.json and
 * adapter_model.safetensors).  What would change the arithmetic in ways the
 * engine does not compute is refused by its key; the matrices are held against
 * those of the base, which must all be there.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "run/model/put.h"

#define CONFIG "adapter_config.json"
#define PREFIX "base_model.model."
#define MODULE_BYTES (FM_ENGINE_SAFETENSORS_NAME_MAX + 1)
#define NAME_BYTES (MODULE_BYTES + 32) /* with prefix and end */

/* --- configuration -------------------------------------------------------- */

static bool is_off(const fm_json_t *value)
{
    return !value || fm_json_is(value, FM_JSON_NULL) ||
           (fm_json_is(value, FM_JSON_BOOL) && !fm_json_bool_or(value, true)) ||
           ((fm_json_is(value, FM_JSON_OBJECT) ||
             fm_json_is(value, FM_JSON_ARRAY)) &&
            fm_json_len(value) == 0);
}

/* Only the head of a reward model may be saved beside the matrices. */
static bool saves_score_only(const fm_json_t *modules)
{
    for (size_t i = 0; i < fm_json_len(modules); i++) {
        const char *name = fm_json_str(fm_json_at(modules, i));
        if (!name ||
            (strcmp(name, "score") != 0 && strcmp(name, "classifier") != 0)) {
            return false;
        }
    }
    return true;
}

static fm_status_t features_check(const fm_json_t *config, fm_error_t *err)
{
    static const char *const off[] = {
        "use_dora",          "lora_bias",
        "fan_in_fan_out",    "rank_pattern",
        "alpha_pattern",     "layers_to_transform",
        "layer_replication", "trainable_token_indices",
        "target_parameters"};
    const char *type = fm_json_get_str(config, "peft_type");
    const char *bias = fm_json_get_str(config, "bias");
    const fm_json_t *start = fm_json_get(config, "init_lora_weights");
    const char *method = fm_json_str(start);

    if (!type || strcmp(type, "LORA") != 0) {
        return fm_error_set(err, FM_ERR_UNSUPPORTED,
                            "peft_type: only \"LORA\" is read");
    }
    for (size_t i = 0; i < FM_COUNT_OF(off); i++) {
        if (!is_off(fm_json_get(config, off[i]))) {
            return fm_error_set(err, FM_ERR_UNSUPPORTED,
                                "%s: not computed here; merge the adapter into "
                                "its model in Python and import that",
                                off[i]);
        }
    }
    if (bias && strcmp(bias, "none") != 0) {
        return fm_error_set(err, FM_ERR_UNSUPPORTED,
                            "bias: only \"none\" is read");
    }
    if (!saves_score_only(fm_json_get(config, "modules_to_save"))) {
        return fm_error_set(err, FM_ERR_UNSUPPORTED,
                            "modules_to_save: only [\"score\"], the head of a "
                            "reward model, is read");
    }
    if (method && strcmp(method, "gaussian") != 0 &&
        strcmp(method, "eva") != 0 && strcmp(method, "orthogonal") != 0) {
        return fm_error_set(err, FM_ERR_UNSUPPORTED,
                            "init_lora_weights: \"%.40s\" changes the base as "
                            "well; save the adapter with "
                            "path_initial_model_for_weight_conversion",
                            method);
    }
    return FM_OK;
}

/* Rank-stabilised LoRA scales by alpha / √r, the engine by alpha / r. */
static double alpha_of(const fm_json_t *config)
{
    double rank = fm_json_get_real(config, "r", 0);
    double alpha = fm_json_get_real(config, "lora_alpha", rank);

    return fm_json_get_bool(config, "use_rslora", false) ? alpha * sqrt(rank)
                                                         : alpha;
}

/* --- tensors -------------------------------------------------------------- */

/* What a tensor of the file is. */
struct matrix {
    char name[NAME_BYTES]; /* in the manifest */
    char base[NAME_BYTES]; /* the weight it adapts */
    uint32_t target;
    bool is_b;
    bool is_score;
    bool skip; /* the head as it was before training */
};

static uint32_t target_of(const char *module)
{
    const char *last = strrchr(module, '.');

    for (unsigned i = 0; i < FM_ENGINE_TARGETS; i++) {
        const char *name = fm_engine_target_name((fm_engine_target_t)(1U << i));
        if (last && name && strcmp(last + 1, name) == 0) {
            return 1U << i;
        }
    }
    return 0;
}

static bool matrix_parse(const char *name, struct matrix *matrix)
{
    static const char *const ends[] = {".lora_A.weight", ".lora_B.weight",
                                       ".lora_A.default.weight",
                                       ".lora_B.default.weight"};
    char module[MODULE_BYTES];

    memset(matrix, 0, sizeof(*matrix));
    if (strncmp(name, PREFIX, strlen(PREFIX)) != 0 ||
        strlen(name) > FM_ENGINE_SAFETENSORS_NAME_MAX) {
        return false;
    }
    (void)snprintf(module, sizeof(module), "%s", name + strlen(PREFIX));
    if (strncmp(module, "score.", 6) == 0) {
        matrix->skip = strstr(module, "original_module") != NULL;
        matrix->is_score = !matrix->skip;
        (void)snprintf(matrix->name, NAME_BYTES, FM_MODEL_SCORE);
        return true;
    }
    for (size_t i = 0; i < FM_COUNT_OF(ends); i++) {
        size_t length = strlen(module);
        size_t end = strlen(ends[i]);
        if (length > end && strcmp(module + length - end, ends[i]) == 0) {
            module[length - end] = '\0';
            matrix->is_b = i % 2 == 1;
            matrix->target = target_of(module);
            (void)snprintf(matrix->base, NAME_BYTES, "%s.weight", module);
            (void)snprintf(matrix->name, NAME_BYTES, PREFIX "%s.lora_%c.weight",
                           module, matrix->is_b ? 'B' : 'A');
            return matrix->target != 0;
        }
    }
    return false;
}

static fm_status_t matrix_check(const fm_source_tensor_t *entry,
                                const struct matrix *matrix,
                                const fm_model_manifest_t *base, uint64_t rank,
                                fm_error_t *err)
{
    const fm_engine_safetensor_t *tensor = entry->tensor;
    const fm_model_tensor_t *weight =
        fm_model_manifest_find(base, matrix->base);

    if (matrix->is_score) {
        if (tensor->rank != 2 || tensor->shape[0] != 1 ||
            tensor->shape[1] != base->config.hidden_size) {
            return fm_error_set(
                err, FM_ERR_INVALID, "%s: tensor %s: want [1, %zu]: one score",
                entry->path, tensor->name, base->config.hidden_size);
        }
        return FM_OK;
    }
    if (!weight) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "%s: tensor %s: the base has no %s; is it the base "
                            "that the adapter was trained with?",
                            entry->path, tensor->name, matrix->base);
    }
    uint64_t want[2] = {matrix->is_b ? weight->shape[0] : rank,
                        matrix->is_b ? rank : weight->shape[1]};
    if (tensor->rank != 2 || tensor->shape[0] != want[0] ||
        tensor->shape[1] != want[1]) {
        return fm_error_set(
            err, FM_ERR_INVALID,
            "%s: tensor %s: shape [%" PRIu64 ", %" PRIu64
            "]; r and the base ask for [%" PRIu64 ", %" PRIu64 "]",
            entry->path, tensor->name, tensor->shape[0],
            tensor->rank > 1 ? tensor->shape[1] : 1, want[0], want[1]);
    }
    return FM_OK;
}

/* Look at all, then at how many: names are distinct, so the right number of
 * fitting ones is all of them. */
static fm_status_t matrices_check(const fm_source_t *source,
                                  const fm_model_manifest_t *base,
                                  uint64_t rank, uint32_t *targets_out,
                                  fm_error_t *err)
{
    uint32_t targets = 0;
    size_t found = 0;
    size_t kinds = 0;
    fm_status_t rc = FM_OK;

    for (size_t i = 0; i < source->tensor_count; i++) {
        const fm_source_tensor_t *entry = &source->tensors[i];
        struct matrix matrix;
        if (!matrix_parse(entry->tensor->name, &matrix)) {
            return fm_error_set(err, FM_ERR_UNSUPPORTED,
                                "%s: tensor %.200s: not a lora_A or lora_B of "
                                "q, k, v, o, gate, up or down_proj",
                                entry->path, entry->tensor->name);
        }
        if (!matrix.skip &&
            (rc = matrix_check(entry, &matrix, base, rank, err)) < 0) {
            return rc;
        }
        targets |= matrix.target;
        found += matrix.target ? 1 : 0;
    }
    for (unsigned i = 0; i < FM_ENGINE_TARGETS; i++) {
        kinds += targets >> i & 1U;
    }
    if (found == 0 || found != 2 * kinds * base->config.num_hidden_layers) {
        return fm_error_set(err, FM_ERR_UNSUPPORTED,
                            "%s: %zu matrices; %zu kinds of projections in %zu "
                            "layers have %zu: an adapter of some layers only "
                            "is not computed here",
                            source->dir, found, kinds,
                            base->config.num_hidden_layers,
                            2 * kinds * base->config.num_hidden_layers);
    }
    *targets_out = targets;
    return FM_OK;
}

/* --- import --------------------------------------------------------------- */

static fm_status_t manifest_make(const fm_json_t *config, uint32_t targets,
                                 const fm_digest_t *base, fm_json_t **out,
                                 fm_error_t *err)
{
    const fm_engine_adapter_config_t lora = {
        .rank = (size_t)fm_json_get_int(config, "r", 0),
        .alpha = alpha_of(config),
        .dropout = fm_json_get_real(config, "lora_dropout", 0),
        .targets = targets};
    char text[FM_DIGEST_TEXT_BYTES];
    fm_json_t *json = fm_json_object();
    fm_engine_adapter_config_t checked;
    fm_status_t rc = FM_OK;

    if (!json ||
        fm_json_set(json, "format", fm_json_string(FM_MODEL_ADAPTER_FORMAT)) <
            0 ||
        fm_json_set(json, "base",
                    fm_json_string(fm_digest_format(base, text))) < 0 ||
        fm_json_set(json, "config", fm_engine_adapter_config_to_json(&lora)) <
            0) {
        rc = fm_no_memory(err);
    } else {
        rc = fm_engine_adapter_config_parse(fm_json_get(json, "config"),
                                            &checked, err);
    }
    if (rc < 0) {
        fm_json_drop(json);
        return rc;
    }
    *out = json;
    return FM_OK;
}

static fm_status_t matrices_put(fm_put_t *put, fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    for (size_t i = 0; rc >= 0 && i < put->source->tensor_count; i++) {
        const fm_source_tensor_t *entry = &put->source->tensors[i];
        struct matrix matrix;
        fm_digest_t digest;
        if (matrix_parse(entry->tensor->name, &matrix) && !matrix.skip) {
            rc = fm_put_tensor(put, entry, matrix.name, true, &digest, err);
        }
    }
    return rc;
}

static fm_status_t config_read(const char *dir, fm_json_t **config_out,
                               fm_error_t *err)
{
    fm_json_t *config = NULL;
    fm_status_t rc = fm_source_json(dir, CONFIG, &config, err);

    if (rc >= 0 && !config) {
        rc = fm_error_set(err, FM_ERR_NOT_FOUND, "%s: has no " CONFIG, dir);
    }
    if (rc >= 0 && (rc = features_check(config, err)) >= 0 &&
        fm_json_get_int(config, "r", 0) < 1) {
        rc =
            fm_error_set(err, FM_ERR_INVALID, "r: want a number of at least 1");
    }
    if (rc < 0) {
        if (config) {
            fm_error_wrap(err, "%s/" CONFIG, dir);
        }
        fm_json_drop(config);
        return rc;
    }
    *config_out = config;
    return FM_OK;
}

fm_status_t fm_model_adapter_import(fm_cas_t *cas, const char *path,
                                    const fm_digest_t *base,
                                    fm_model_imported_t *done_out,
                                    fm_error_t *err)
{
    fm_source_t source = {0};
    fm_put_t put = {0};
    fm_model_manifest_t model = {0};
    fm_json_t *config = NULL;
    fm_json_t *manifest = NULL;
    uint32_t targets = 0;
    fm_status_t rc = FM_OK;

    if (!base) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "%s: an adapter belongs to a model: import that "
                            "first and name it with --base",
                            path);
    }
    if ((rc = fm_source_open(path, "adapter_model", &source, err)) < 0 ||
        (rc = config_read(source.dir, &config, err)) < 0 ||
        (rc = fm_model_manifest_read(cas, base, &model, err)) < 0) {
        goto out;
    }
    if (model.is_adapter) {
        rc = fm_error_set(err, FM_ERR_INVALID, "%s: its base is an adapter",
                          path);
        goto out;
    }
    uint64_t rank = (uint64_t)fm_json_get_int(config, "r", 0);
    if ((rc = matrices_check(&source, &model, rank, &targets, err)) < 0 ||
        (rc = manifest_make(config, targets, base, &manifest, err)) < 0 ||
        (rc = fm_put_init(&put, cas, &source, err)) < 0 ||
        (rc = matrices_put(&put, err)) < 0 ||
        (rc = fm_put_finish(&put, manifest, err)) < 0) {
        goto out;
    }
    put.done.is_adapter = true;
    *done_out = put.done;
out:
    fm_put_fini(&put);
    fm_json_drop(manifest);
    fm_json_drop(config);
    fm_model_manifest_fini(&model);
    fm_source_fini(&source);
    return rc;
}

fm_status_t fm_model_adapter_base(const char *path, char **base_out,
                                  fm_error_t *err)
{
    char *dir = fm_source_dir(path);
    fm_json_t *config = NULL;
    fm_status_t rc =
        dir ? fm_source_json(dir, CONFIG, &config, err) : fm_no_memory(err);
    const char *name = fm_json_get_str(config, "base_model_name_or_path");
    char *base = name && *name ? fm_strdup(name) : NULL;

    if (rc >= 0 && name && *name && !base) {
        rc = fm_no_memory(err);
    }
    if (rc >= 0) {
        *base_out = base;
    }
    fm_json_drop(config);
    free(dir);
    return rc;
}
