/* SPDX-License-Identifier: Apache-2.0 */
/* flowmesh model: models and adapters of a fabric, in, out and by name. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/map.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "role/launch/launch.h"
#include "run/model/library.h"

#define FABRIC_HELP "the fabric; default $FLOWMESH_FABRIC, else the latest"

static const fm_cli_option_t options[] = {
    {"fabric", "DIR", FABRIC_HELP},
};

static const fm_cli_option_t import_options[] = {
    {"fabric", "DIR", FABRIC_HELP},
    {"name", "NAME", "a name for it, which `model ls` lists"},
    {"base", "MODEL",
     "of an adapter: its model, a name, digest, path or ORG/NAME"},
    {"revision", "REVISION", "of ORG/NAME: branch, tag or commit"},
};

static const fm_cli_option_t export_options[] = {
    {"fabric", "DIR", FABRIC_HELP},
    {"dtype", "DTYPE", "write f32, f16 or bf16; default as stored"},
    {"shard-bytes", "N", "begin another file past this; default 5000000000"},
};

static const fm_cli_option_t ls_options[] = {
    {"fabric", "DIR", FABRIC_HELP},
    {"all", NULL, "also those without a name"},
};

static int open_library(const fm_cli_args_t *args,
                        const fm_cli_command_t *command, bool write,
                        fm_model_library_t **library_out)
{
    fm_error_t err = {0};
    char *dir = NULL;
    fm_status_t rc = fm_launch_fabric_dir(
        fm_cli_option(args, command, "fabric"), &dir, &err);

    if (rc >= 0) {
        rc = fm_model_library_open(dir, write, library_out, &err);
    }
    free(dir);
    return rc < 0 ? fm_cli_fail(FM_EXIT_NO_FABRIC, "%s", err.text) : FM_EXIT_OK;
}

/* Bad input is the caller's to mend, what else fails is not. */
static int exit_of(fm_status_t status)
{
    return status == FM_ERR_INVALID || status == FM_ERR_NOT_FOUND ||
                   status == FM_ERR_UNSUPPORTED || status == FM_ERR_EXISTS ||
                   status == FM_ERR_LIMIT
               ? FM_EXIT_USAGE
               : FM_EXIT_FAILED;
}

/* --- import --------------------------------------------------------------- */

static void print_imported(const char *source,
                           const fm_model_imported_t *imported)
{
    char text[FM_DIGEST_TEXT_BYTES];

    (void)printf("%s\n", fm_digest_format(&imported->digest, text));
    if (imported->from_cache) {
        (void)fprintf(stderr, "%s: unchanged since it was imported\n", source);
        return;
    }
    (void)fprintf(stderr,
                  "%s: %s of %" PRIu64 " parameters in %zu tensors, %" PRIu64
                  " bytes; the store had %zu of them, %" PRIu64
                  " bytes (%.1f %%)\n",
                  source, imported->is_adapter ? "adapter" : "model",
                  imported->parameters, imported->tensor_count, imported->bytes,
                  imported->shared_count, imported->shared_bytes,
                  imported->bytes ? 100.0 * (double)imported->shared_bytes /
                                        (double)imported->bytes
                                  : 0.0);
}

static int model_import(const fm_cli_args_t *args)
{
    const fm_cli_command_t *command = &fm_cli_model_import;
    const char *name = fm_cli_option(args, command, "name");
    fm_model_wish_t wish = {.source = args->operands[0],
                            .revision =
                                fm_cli_option(args, command, "revision"),
                            .base = fm_cli_option(args, command, "base")};
    fm_model_library_t *library = NULL;
    fm_model_imported_t imported = {0};
    fm_error_t err = {0};

    if (name && !fm_model_name_valid(name)) {
        return fm_cli_fail(FM_EXIT_USAGE,
                           "--name %s: a name is 1 to %d of [A-Za-z0-9._-] and "
                           "begins with a letter or digit",
                           name, FM_MODEL_NAME_MAX);
    }
    wish.is_hub =
        access(wish.source, F_OK) != 0 && fm_model_hub_spelled(wish.source);
    if (wish.revision && !wish.is_hub) {
        return fm_cli_fail(FM_EXIT_USAGE,
                           "--revision is of ORG/NAME, and %s is a path",
                           wish.source);
    }
    int status = open_library(args, command, true, &library);
    if (status != FM_EXIT_OK) {
        return status;
    }
    fm_status_t rc = fm_model_library_import(library, &wish, &imported, &err);
    if (rc >= 0 && name) {
        rc = fm_model_name_set(library, name, &imported.digest, &err);
    }
    if (rc < 0) {
        status = fm_cli_fail(exit_of(rc), "%s", err.text);
    } else {
        print_imported(wish.source, &imported);
    }
    fm_model_library_close(library);
    return status;
}

const fm_cli_command_t fm_cli_model_import = {
    .name = "model import",
    .operands = "SOURCE",
    .operand_min = 1,
    .operand_max = 1,
    .summary = "store a Hugging Face model or a PEFT adapter",
    .text = "Store the model or adapter in the directory SOURCE (config.json "
            "and tokenizer.json beside safetensors files), or ORG/NAME from "
            "the local Hugging Face cache, and print its digest.  Tensors that "
            "the store has already are shared.  Nothing is downloaded.",
    .options = import_options,
    .option_count = sizeof(import_options) / sizeof(import_options[0]),
    .run = model_import,
};

/* --- export --------------------------------------------------------------- */

static int parse_bytes(const char *text, uint64_t *bytes_out)
{
    char *end = NULL;

    errno = 0;
    unsigned long long value = text ? strtoull(text, &end, 10) : 0;
    if (text && (*text < '0' || *text > '9' || *end || errno || value == 0)) {
        return fm_cli_fail(FM_EXIT_USAGE, "--shard-bytes wants a number");
    }
    *bytes_out = value;
    return FM_EXIT_OK;
}

static int model_export(const fm_cli_args_t *args)
{
    const fm_cli_command_t *command = &fm_cli_model_export;
    const char *dtype = fm_cli_option(args, command, "dtype");
    fm_model_export_options_t opts = {.convert = dtype != NULL};
    fm_model_library_t *library = NULL;
    fm_digest_t digest;
    fm_error_t err = {0};
    int status = parse_bytes(fm_cli_option(args, command, "shard-bytes"),
                             &opts.shard_bytes);

    if (status != FM_EXIT_OK) {
        return status;
    }
    if (dtype && !fm_engine_dtype_parse(dtype, &opts.dtype)) {
        return fm_cli_fail(FM_EXIT_USAGE, "--dtype wants f32, f16 or bf16");
    }
    if ((status = open_library(args, command, false, &library)) != FM_EXIT_OK) {
        return status;
    }
    fm_status_t rc = fm_model_find(library, args->operands[0], &digest, &err);
    if (rc >= 0) {
        rc = fm_model_export(fm_model_library_cas(library), &digest,
                             args->operands[1], &opts, &err);
    }
    if (rc < 0) {
        status = fm_cli_fail(exit_of(rc), "%s", err.text);
    }
    fm_model_library_close(library);
    return status;
}

const fm_cli_command_t fm_cli_model_export = {
    .name = "model export",
    .operands = "MODEL DIR",
    .operand_min = 2,
    .operand_max = 2,
    .summary = "write a model or adapter as files",
    .text = "Write MODEL, a name or a digest, as the new directory DIR that "
            "transformers (a model) or PEFT (an adapter) load.  Nothing is "
            "overwritten; DIR appears when it is complete.",
    .options = export_options,
    .option_count = sizeof(export_options) / sizeof(export_options[0]),
    .run = model_export,
};

/* --- ls ------------------------------------------------------------------- */

static const char *dtype_of(const fm_model_manifest_t *manifest)
{
    const char *name = fm_engine_dtype_name(manifest->tensors[0].dtype);

    for (size_t i = 1; i < manifest->tensor_count; i++) {
        if (manifest->tensors[i].dtype != manifest->tensors[0].dtype) {
            return "mixed";
        }
    }
    return name;
}

static void sums(const fm_model_manifest_t *manifest, uint64_t *parameters_out,
                 uint64_t *bytes_out)
{
    *parameters_out = 0;
    *bytes_out = 0;
    for (size_t i = 0; i < manifest->tensor_count; i++) {
        *parameters_out += manifest->tensors[i].count;
        *bytes_out += fm_model_tensor_bytes(&manifest->tensors[i]);
    }
}

static void print_row(fm_cas_t *cas, const char *name,
                      const fm_digest_t *digest)
{
    fm_model_manifest_t manifest = {0};
    fm_error_t err = {0};
    char text[FM_DIGEST_TEXT_BYTES];
    uint64_t parameters = 0;
    uint64_t bytes = 0;

    if (fm_model_manifest_read(cas, digest, &manifest, &err) < 0) {
        (void)printf("%-24s %-8s %14s %-5s %14s %s\n", name, "-", "-", "-", "-",
                     fm_digest_format(digest, text));
        (void)fprintf(stderr, "flowmesh: %s: %s\n", name, err.text);
        return;
    }
    sums(&manifest, &parameters, &bytes);
    (void)printf("%-24s %-8s %14" PRIu64 " %-5s %14" PRIu64 " %s\n", name,
                 manifest.is_adapter ? "adapter" : "model", parameters,
                 dtype_of(&manifest), bytes, fm_digest_format(digest, text));
    fm_model_manifest_fini(&manifest);
}

static fm_status_t print_named(fm_model_library_t *library, fm_map_t *named,
                               fm_error_t *err)
{
    fm_json_t *names = NULL;
    fm_status_t rc = fm_model_names(library, &names, err);

    for (size_t i = 0; rc >= 0 && i < fm_json_len(names); i++) {
        const char *name = fm_json_str(fm_json_at(names, i));
        fm_digest_t digest;
        if ((rc = fm_model_name_get(library, name, &digest, err)) >= 0 &&
            (rc = fm_map_put(named, &digest, 1, err)) >= 0) {
            print_row(fm_model_library_cas(library), name, &digest);
        }
    }
    fm_json_drop(names);
    return rc;
}

static fm_status_t print_all(fm_model_library_t *library, bool unnamed,
                             fm_error_t *err)
{
    fm_cas_t *cas = fm_model_library_cas(library);
    fm_map_t *named = fm_map_create();
    fm_digest_t *digests = NULL;
    size_t count = 0;
    fm_status_t rc = FM_OK;

    (void)printf("%-24s %-8s %14s %-5s %14s %s\n", "name", "kind", "parameters",
                 "dtype", "bytes", "digest");
    rc = named ? print_named(library, named, err) : fm_no_memory(err);
    if (rc >= 0 && unnamed) {
        rc = fm_model_manifests(cas, &digests, &count, err);
    }
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        if (!fm_map_get(named, &digests[i])) {
            print_row(cas, "-", &digests[i]);
        }
    }
    free(digests);
    fm_map_destroy(named);
    return rc;
}

static int model_ls(const fm_cli_args_t *args)
{
    const fm_cli_command_t *command = &fm_cli_model_ls;
    fm_model_library_t *library = NULL;
    fm_error_t err = {0};
    int status = open_library(args, command, false, &library);

    if (status != FM_EXIT_OK) {
        return status;
    }
    fm_status_t rc =
        print_all(library, fm_cli_option(args, command, "all") != NULL, &err);
    if (rc < 0) {
        status = fm_cli_fail(exit_of(rc), "%s", err.text);
    }
    fm_model_library_close(library);
    return status;
}

const fm_cli_command_t fm_cli_model_ls = {
    .name = "model ls",
    .operands = "",
    .summary = "list models and adapters by name",
    .text = "List the named models and adapters of the fabric; with --all also "
            "every other one in the store, such as those that training made.",
    .options = ls_options,
    .option_count = sizeof(ls_options) / sizeof(ls_options[0]),
    .run = model_ls,
};

/* --- show ----------------------------------------------------------------- */

/* The tokenizer without its chat template, which may be long. */
static fm_json_t *tokenizer_of(const fm_model_manifest_t *manifest)
{
    fm_json_t *tokenizer =
        fm_json_copy(fm_json_get(manifest->json, "tokenizer"));
    bool chat = fm_json_get(tokenizer, "chat_template") != NULL;

    if (chat) {
        fm_json_remove(tokenizer, "chat_template");
    }
    if (tokenizer &&
        fm_json_set(tokenizer, "has_chat_template", fm_json_bool(chat)) < 0) {
        return fm_json_drop(tokenizer);
    }
    return tokenizer;
}

static fm_json_t *describe(const fm_digest_t *digest,
                           const fm_model_manifest_t *manifest, uint64_t shared)
{
    fm_json_t *json = fm_json_object();
    const fm_json_t *generation = fm_json_get(manifest->json, "generation");
    const fm_json_t *base = fm_json_get(manifest->json, "base");
    char text[FM_DIGEST_TEXT_BYTES];
    uint64_t parameters = 0;
    uint64_t bytes = 0;

    sums(manifest, &parameters, &bytes);
    if (!json ||
        fm_json_set(json, "digest",
                    fm_json_string(fm_digest_format(digest, text))) < 0 ||
        fm_json_set(
            json, "kind",
            fm_json_string(manifest->is_adapter ? "adapter" : "model")) < 0 ||
        fm_json_set(json, "parameters", fm_json_int((int64_t)parameters)) < 0 ||
        fm_json_set(json, "tensors",
                    fm_json_int((int64_t)manifest->tensor_count)) < 0 ||
        fm_json_set(json, "dtype", fm_json_string(dtype_of(manifest))) < 0 ||
        fm_json_set(json, "bytes", fm_json_int((int64_t)bytes)) < 0 ||
        fm_json_set(json, "shared_bytes", fm_json_int((int64_t)shared)) < 0 ||
        fm_json_set(json, "config",
                    fm_json_copy(fm_json_get(manifest->json, "config"))) < 0 ||
        (base && fm_json_set(json, "base", fm_json_keep(base)) < 0) ||
        (!manifest->is_adapter &&
         fm_json_set(json, "tokenizer", tokenizer_of(manifest)) < 0) ||
        (generation &&
         fm_json_set(json, "generation", fm_json_keep(generation)) < 0)) {
        return fm_json_drop(json);
    }
    return json;
}

static int model_show(const fm_cli_args_t *args)
{
    fm_model_library_t *library = NULL;
    fm_model_manifest_t manifest = {0};
    fm_digest_t digest;
    fm_error_t err = {0};
    uint64_t shared = 0;
    int status = open_library(args, &fm_cli_model_show, false, &library);

    if (status != FM_EXIT_OK) {
        return status;
    }
    fm_cas_t *cas = fm_model_library_cas(library);
    fm_status_t rc = fm_model_find(library, args->operands[0], &digest, &err);
    if (rc >= 0 &&
        (rc = fm_model_manifest_read(cas, &digest, &manifest, &err)) >= 0) {
        rc = fm_model_shared_bytes(cas, &digest, &manifest, &shared, &err);
    }
    if (rc < 0) {
        status = fm_cli_fail(exit_of(rc), "%s", err.text);
    } else {
        fm_json_t *json = describe(&digest, &manifest, shared);
        status = json ? fm_cli_print_json(json)
                      : fm_cli_fail(FM_EXIT_FAILED, "out of memory");
        fm_json_drop(json);
    }
    fm_model_manifest_fini(&manifest);
    fm_model_library_close(library);
    return status;
}

const fm_cli_command_t fm_cli_model_show = {
    .name = "model show",
    .operands = "MODEL",
    .operand_min = 1,
    .operand_max = 1,
    .summary = "describe a model or adapter",
    .text =
        "Describe MODEL, a name or a digest: its configuration, parameters, "
        "precision and tokenizer, and how many of its bytes other models "
        "in the store have as well.",
    .options = options,
    .option_count = sizeof(options) / sizeof(options[0]),
    .run = model_show,
};

/* --- rm ------------------------------------------------------------------- */

static int model_rm(const fm_cli_args_t *args)
{
    fm_model_library_t *library = NULL;
    fm_error_t err = {0};
    int status = open_library(args, &fm_cli_model_rm, false, &library);

    if (status != FM_EXIT_OK) {
        return status;
    }
    fm_status_t rc = fm_model_name_remove(library, args->operands[0], &err);
    if (rc < 0) {
        status = fm_cli_fail(exit_of(rc), "%s", err.text);
    }
    fm_model_library_close(library);
    return status;
}

const fm_cli_command_t fm_cli_model_rm = {
    .name = "model rm",
    .operands = "NAME",
    .operand_min = 1,
    .operand_max = 1,
    .summary = "forget the name of a model",
    .text = "Remove NAME.  The model itself stays in the store: results may "
            "depend on it.",
    .options = options,
    .option_count = sizeof(options) / sizeof(options[0]),
    .run = model_rm,
};
