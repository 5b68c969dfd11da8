/* SPDX-License-Identifier: Apache-2.0 */
/*
 * python: call a function of the user's module in a python3 of its own
 * (docs/spec/workflow.md, W47), once, or for each of many argument lists.
 *
 * Once: the function gets a map from upstream name to a directory that holds
 * results.json, {"result": {"items": [{"output": …}]}}, and returns a JSON
 * value.  Directories are numbered, since names may hold any character.
 *
 * Each: every call writes a line, {"value": …} or {"error": text}, at once,
 * so that what a dying child did is known, and where it died.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "run/ops/internal.h"

#define CODE_BYTES_MAX ((size_t)4 << 20)
#define RESULT_BYTES_MAX ((size_t)64 << 20)
#define LOG_BYTES 65536

/* Runs the module as a file, so that a traceback shows its lines. */
static const char driver[] =
    "import json, os, runpy, sys\n"
    "here = os.getcwd()\n"
    "with open('flowmesh-call.json') as f:\n"
    "    call = json.load(f)\n"
    "names = runpy.run_path('task.py', run_name='flowmesh_task')\n"
    "entry = names.get(call['entrypoint'])\n"
    "if not callable(entry):\n"
    "    sys.exit('task.py has no function ' + call['entrypoint'])\n"
    "paths = {k: os.path.join(here, v) for k, v in call['inputs'].items()}\n"
    "value = entry(paths)\n"
    "try:\n"
    "    text = json.dumps(value, allow_nan=False, ensure_ascii=True)\n"
    "except (TypeError, ValueError) as e:\n"
    "    sys.exit('the returned value is not JSON: %s' % e)\n"
    "os.chdir(here)\n"
    "with open('flowmesh-result.json', 'w') as f:\n"
    "    f.write(text)\n";

static const char each_driver[] =
    "import json, os, runpy, sys\n"
    "out = open('flowmesh-result.jsonl', 'w', buffering=1)\n"
    "with open('flowmesh-call.json') as f:\n"
    "    call = json.load(f)\n"
    "names = runpy.run_path('task.py', run_name='flowmesh_task')\n"
    "entry = names.get(call['entrypoint'])\n"
    "if not callable(entry):\n"
    "    sys.exit('task.py has no function ' + call['entrypoint'])\n"
    "for arguments in call['arguments']:\n"
    "    try:\n"
    "        line = {'value': entry(*arguments)}\n"
    "        text = json.dumps(line, allow_nan=False, ensure_ascii=True)\n"
    "    except Exception as e:\n"
    "        why = '%s: %s' % (type(e).__name__, e)\n"
    "        text = json.dumps({'error': why[:700]})\n"
    "        if call['first']:\n"
    "            out.write(text + '\\n')\n"
    "            break\n"
    "    out.write(text + '\\n')\n"
    "out.close()\n";

static fm_status_t file_in(const char *dir, const char *name, const void *data,
                           size_t len, fm_error_t *err)
{
    char *path = fm_asprintf("%s/%s", dir, name);
    fm_status_t rc =
        path ? fm_ops_file_write(path, data, len, err) : fm_no_memory(err);

    free(path);
    return rc;
}

static fm_status_t json_in(const char *dir, const char *name,
                           const fm_json_t *value, fm_error_t *err)
{
    char *text = fm_json_dump(value);
    fm_status_t rc =
        text ? file_in(dir, name, text, strlen(text), err) : fm_no_memory(err);

    free(text);
    return rc;
}

static fm_status_t code_stage(fm_ops_run_t *run, const fm_json_t *code,
                              const char *workdir, fm_error_t *err)
{
    const fm_json_t *text = fm_json_get(code, "text");
    fm_digest_t digest;
    fm_buf_t bytes = {0};
    fm_status_t rc;

    if (fm_json_str(text)) {
        return file_in(workdir, "task.py", fm_json_str(text),
                       fm_json_str_len(text), err);
    }
    if ((rc = fm_ops_get_digest(code, "digest", &digest, err)) < 0 ||
        (rc = fm_cas_get(run->ops->cas, &digest, &bytes, err)) < 0) {
        fm_error_wrap(err, "code");
    } else if (bytes.len > CODE_BYTES_MAX) {
        rc = fm_error_set(err, FM_ERR_LIMIT, "code: more than 4 MiB");
    } else {
        rc = file_in(workdir, "task.py", bytes.data, bytes.len, err);
    }
    fm_buf_fini(&bytes);
    return rc;
}

/* inputs/N/results.json for every upstream; @p map gets name → directory. */
static fm_status_t inputs_stage(const fm_json_t *inputs, const char *workdir,
                                fm_json_t *map, fm_error_t *err)
{
    void *iterator = NULL;
    const char *name;
    fm_json_t *result;
    fm_status_t rc = FM_OK;
    unsigned number = 0;

    while (rc >= 0 && fm_json_next(inputs, &iterator, &name, &result)) {
        char *dir = fm_asprintf("inputs/%u", number++);
        char *file = dir ? fm_asprintf("%s/results.json", dir) : NULL;
        fm_json_t *wrapped = fm_json_object();

        if (!file || !wrapped ||
            fm_json_set(wrapped, "result", fm_json_keep(result)) < 0 ||
            fm_json_set(map, name, fm_json_string(dir)) < 0) {
            rc = fm_no_memory(err);
        } else {
            rc = json_in(workdir, file, wrapped, err);
        }
        fm_json_drop(wrapped);
        free(file);
        free(dir);
    }
    return rc;
}

static fm_status_t call_stage(fm_ops_run_t *run, size_t item,
                              const char *workdir, fm_error_t *err)
{
    fm_json_t *call = fm_json_object(), *map = fm_json_object();
    const char *entry;
    fm_status_t rc =
        fm_ops_get_text(run->params, "entrypoint", "main", &entry, err);

    if (rc < 0) {
        goto out;
    }
    if (!call || !map ||
        fm_json_set(call, "entrypoint", fm_json_string(entry)) < 0 ||
        fm_json_set(call, "inputs", fm_json_keep(map)) < 0) {
        rc = fm_no_memory(err);
        goto out;
    }
    if ((rc = inputs_stage(fm_json_get(run->values[item], "inputs"), workdir,
                           map, err)) >= 0 &&
        (rc = json_in(workdir, "flowmesh-call.json", call, err)) >= 0) {
        rc = file_in(workdir, "flowmesh-driver.py", driver, sizeof(driver) - 1,
                     err);
    }
out:
    fm_json_drop(call);
    fm_json_drop(map);
    return rc;
}

static fm_status_t interpreter_run(fm_ops_run_t *run, const char *workdir,
                                   const fm_json_t *seed, fm_error_t *err)
{
    static const char *const argv[] = {"python3", "flowmesh-driver.py", NULL};
    fm_buf_t log = {0};
    double timeout_s = 0;
    char *seed_text = NULL;
    fm_status_t rc =
        fm_ops_get_real(run->hints, "timeout_s", 0, 1e9, 0, &timeout_s, err);

    if (rc < 0) {
        return rc;
    }
    if (fm_json_is(seed, FM_JSON_INT) &&
        !(seed_text = fm_asprintf("FLOWMESH_SEED=%lld",
                                  (long long)fm_json_int_or(seed, 0)))) {
        return fm_no_memory(err);
    }
    /* The order of a set of texts must not differ between two runs. */
    const char *env[] = {"PYTHONHASHSEED=0", "PYTHONDONTWRITEBYTECODE=1",
                         "PYTHONIOENCODING=utf-8", seed_text, NULL};
    fm_ops_process_t process = {.argv = argv,
                                .env = env,
                                .workdir = workdir,
                                .timeout_ns =
                                    (int64_t)(timeout_s * (double)FM_NS_PER_S),
                                .stdout_bytes_max = LOG_BYTES,
                                .stdout_tail = true,
                                .stopping = run->sink->stopping,
                                .ctx = run->sink->ctx};
    rc = fm_ops_process_run(&process, &log, err);
    fm_buf_fini(&log);
    free(seed_text);
    return rc;
}

static fm_status_t result_read(const char *workdir, fm_json_t **value_out,
                               fm_error_t *err)
{
    char *path = fm_asprintf("%s/flowmesh-result.json", workdir);
    fm_buf_t bytes = {0};
    fm_status_t rc;

    if (!path) {
        return fm_no_memory(err);
    }
    rc = fm_file_read(path, RESULT_BYTES_MAX, &bytes, err);
    if (rc == FM_ERR_NOT_FOUND) {
        rc = fm_error_set(err, FM_ERR_INVALID,
                          "python ended before the function returned");
    }
    if (rc >= 0) {
        rc = fm_json_parse((const char *)bytes.data, bytes.len,
                           "returned value", value_out, err);
    }
    free(path);
    fm_buf_fini(&bytes);
    return rc;
}

fm_status_t fm_ops_python(fm_ops_run_t *run, size_t item,
                          fm_ops_output_t *output, fm_error_t *err)
{
    char *workdir = NULL;
    fm_status_t rc = fm_ops_workdir_make(run->ops, &workdir, err);

    if (rc >= 0 &&
        (rc = code_stage(run, fm_json_get(run->params, "code"), workdir,
                         err)) >= 0 &&
        (rc = call_stage(run, item, workdir, err)) >= 0 &&
        (rc = interpreter_run(run, workdir, fm_json_get(run->params, "seed"),
                              err)) >= 0) {
        rc = result_read(workdir, &output->value, err);
    }
    if (workdir && fm_file_remove_tree(workdir, rc < 0 ? NULL : err) < 0 &&
        rc >= 0) {
        rc = FM_ERR_IO;
    }
    free(workdir);
    return rc;
}

/* --- each ---------------------------------------------------------------- */

static fm_status_t each_stage(fm_ops_run_t *run, const fm_ops_each_t *each,
                              const char *workdir, fm_error_t *err)
{
    fm_json_t *call = fm_json_object();
    const char *entry;
    fm_status_t rc = fm_ops_get_text(each->options, "entrypoint",
                                     each->entrypoint, &entry, err);

    if (rc >= 0 &&
        (!call || fm_json_set(call, "entrypoint", fm_json_string(entry)) < 0 ||
         fm_json_set(call, "first", fm_json_bool(each->first)) < 0 ||
         fm_json_set(call, "arguments", fm_json_keep(each->arguments)) < 0)) {
        rc = fm_no_memory(err);
    }
    if (rc >= 0 &&
        (rc = code_stage(run, fm_json_get(each->options, "code"), workdir,
                         err)) >= 0 &&
        (rc = json_in(workdir, "flowmesh-call.json", call, err)) >= 0) {
        rc = file_in(workdir, "flowmesh-driver.py", each_driver,
                     sizeof(each_driver) - 1, err);
    }
    fm_json_drop(call);
    return rc;
}

/* One line; what is no value of ours, such as a text with NUL, is the failure
 * of its call alone. */
static fm_status_t line_add(const char *text, size_t len, fm_json_t *results,
                            fm_error_t *err)
{
    fm_json_t *line = NULL;
    fm_error_t why = {0};
    fm_status_t rc = fm_json_parse(text, len, "returned value", &line, &why);

    if (rc == FM_ERR_INVALID) {
        if (!(line = fm_json_object()) ||
            fm_json_set(line, "error", fm_json_string(why.text)) < 0) {
            line = fm_json_drop(line);
        }
    }
    return !line || fm_json_append(results, line) < 0 ? fm_no_memory(err)
                                                      : FM_OK;
}

/* The lines that are whole, in order; a file that is not there has none. */
static fm_status_t lines_read(const char *workdir, fm_json_t *results,
                              fm_error_t *err)
{
    char *path = fm_asprintf("%s/flowmesh-result.jsonl", workdir);
    fm_buf_t bytes = {0};
    fm_status_t rc = path ? fm_file_read(path, OPS_VALUE_BYTES_MAX, &bytes, err)
                          : fm_no_memory(err);

    if (rc == FM_ERR_NOT_FOUND) {
        rc = FM_OK;
    }
    for (size_t at = 0; rc >= 0 && at < bytes.len;) {
        const uint8_t *end = memchr(bytes.data + at, '\n', bytes.len - at);
        if (!end) {
            break;
        }
        size_t size = (size_t)(end - bytes.data) - at;
        rc = line_add((const char *)bytes.data + at, size, results, err);
        at += size + 1;
    }
    free(path);
    fm_buf_fini(&bytes);
    return rc;
}

fm_status_t fm_ops_python_each(fm_ops_run_t *run, const fm_ops_each_t *each,
                               fm_json_t **results_out, fm_error_t *ended,
                               fm_error_t *err)
{
    fm_json_t *results = fm_json_array();
    char *workdir = NULL;
    fm_status_t child = FM_OK;
    fm_status_t rc = results ? fm_ops_workdir_make(run->ops, &workdir, err)
                             : fm_no_memory(err);

    if (rc >= 0 && (rc = each_stage(run, each, workdir, err)) >= 0) {
        child = interpreter_run(run, workdir,
                                fm_json_get(each->options, "seed"), ended);
        rc = lines_read(workdir, results, err);
    }
    if (rc >= 0 && child < 0 && child != FM_ERR_INVALID &&
        child != FM_ERR_TIMEOUT) { /* not the work's fault */
        rc = fm_error_set(err, child, "%s", ended->text);
    }
    if (workdir && fm_file_remove_tree(workdir, rc < 0 ? NULL : err) < 0 &&
        rc >= 0) {
        rc = FM_ERR_IO;
    }
    free(workdir);
    if (rc < 0) {
        fm_json_drop(results);
        return rc;
    }
    if (child >= 0) {
        (void)fm_error_set(ended, FM_ERR_INVALID,
                           "python ended before the function returned");
    }
    *results_out = results;
    return FM_OK;
}
