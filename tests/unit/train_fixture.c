/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of training share (train_fixture.h). */
#include "train_fixture.h"

#include <math.h>
#include <stdio.h>

/* The object that member @p key of @p output names. */
fm_buf_t object_of(world_t *world, const char *output, const char *key)
{
    fm_json_t *value = json_of(output);
    const char *text = fm_json_get_str(value, key);
    fm_digest_t digest;
    fm_buf_t bytes = {0};
    fm_error_t err = {0};

    CU_ASSERT_FATAL(text && fm_digest_parse(text, &digest));
    FM_ASSERT_OK(fm_cas_get(world->cas, &digest, &bytes, &err), &err);
    fm_json_drop(value);
    return bytes;
}

/* The rows of the table that @p output names; fm_json_drop() the list. */
fm_json_t *table_of(world_t *world, const char *output)
{
    fm_buf_t text = object_of(world, output, "table");
    fm_json_t *rows = fm_json_array();

    for (char *line = strtok((char *)(uintptr_t)fm_buf_cstr(&text), "\n"); line;
         line = strtok(NULL, "\n")) {
        CU_ASSERT_EQUAL(fm_json_append(rows, json_of(line)), FM_OK);
    }
    fm_buf_fini(&text);
    return rows;
}

double figure(const fm_json_t *rows, bool last, const char *key)
{
    const fm_json_t *row = fm_json_at(rows, last ? fm_json_len(rows) - 1 : 0);

    CU_ASSERT(fm_json_is_number(fm_json_get(row, key)));
    return fm_json_get_real(row, key, NAN);
}

char *member_of(const char *output, const char *key)
{
    fm_json_t *value = json_of(output);
    char *text = fm_strdup(fm_json_get_str(value, key));

    fm_json_drop(value);
    CU_ASSERT_PTR_NOT_NULL_FATAL(text);
    return text;
}

static fm_status_t leg_item(void *ctx, const fm_ops_item_t *item,
                            fm_error_t *err)
{
    return seen_item(&((leg_t *)ctx)->seen, item, err);
}

static fm_status_t leg_checkpoint(void *ctx,
                                  const fm_ops_checkpoint_t *checkpoint,
                                  fm_error_t *err)
{
    return seen_checkpoint(&((leg_t *)ctx)->seen, checkpoint, err);
}

static fm_status_t leg_progress(void *ctx, double fraction,
                                const fm_json_t *metrics, fm_error_t *err)
{
    ((leg_t *)ctx)->steps++;
    return seen_progress(&((leg_t *)ctx)->seen, fraction, metrics, err);
}

static bool leg_stopping(void *ctx)
{
    const leg_t *leg = ctx;

    return leg->after && leg->steps >= leg->after;
}

fm_status_t leg_run(world_t *world, const char *type, const char *params_text,
                    const char *values_text, const char *checkpoint, leg_t *leg)
{
    fm_json_t *params = json_of(params_text), *values = json_of(values_text);
    fm_json_t *items = fm_json_array(), *item = fm_json_object();
    const fm_ops_sink_t sink = {leg_item, leg_checkpoint, leg_progress,
                                leg_stopping, leg};
    fm_error_t err = {0};

    CU_ASSERT_EQUAL(fm_json_set(item, "index", fm_json_int(0)), FM_OK);
    CU_ASSERT_EQUAL(
        fm_json_set(item, "value", fm_json_keep(fm_json_at(values, 0))), FM_OK);
    CU_ASSERT_EQUAL(fm_json_append(items, item), FM_OK);
    const fm_ops_batch_t batch = {type, params, NULL, items, checkpoint};
    fm_status_t rc = fm_ops_run(world->ops, &batch, &sink, &err);
    fm_json_drop(params);
    fm_json_drop(values);
    fm_json_drop(items);
    return rc;
}

/* The output of a run that is stopped every @p every steps, each leg in a
 * fresh context. */
char *legs_run(world_t *world, const char *type, const char *params,
               const char *values, size_t every)
{
    char checkpoint[FM_DIGEST_TEXT_BYTES] = "";
    char *output = NULL;

    for (int legs = 0; !output; legs++) {
        char writer[16];
        leg_t leg = {.after = every};
        CU_ASSERT_FATAL(legs < 20);
        world_close(world, false);
        (void)snprintf(writer, sizeof(writer), "w%zu-%d", every, legs);
        world_open(world, writer);
        fm_status_t rc = leg_run(world, type, params, values, checkpoint, &leg);
        CU_ASSERT_STRING_EQUAL(leg.seen.error, "");
        CU_ASSERT(rc == FM_OK || rc == FM_ERR_CANCELLED);
        CU_ASSERT_EQUAL(leg.seen.checkpoints, rc == FM_OK ? 0 : 1);
        CU_ASSERT(legs == 0 || checkpoint[0]);
        (void)fm_digest_format(&leg.seen.checkpoint, checkpoint);
        if (rc == FM_OK) {
            CU_ASSERT_PTR_NOT_NULL_FATAL(leg.seen.outputs[0]);
            output = fm_strdup(leg.seen.outputs[0]);
            CU_ASSERT(legs > 0); /* it was stopped at all */
        }
        seen_fini(&leg.seen);
    }
    return output;
}
