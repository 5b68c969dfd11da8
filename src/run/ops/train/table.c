/* SPDX-License-Identifier: Apache-2.0 */
/* The table of a training: one line of canonical JSON a step. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "run/ops/train/training.h"

void fm_ops_table_fini(fm_ops_table_t *table)
{
    fm_buf_fini(&table->text);
    table->last = 0;
}

fm_status_t fm_ops_table_add(fm_ops_table_t *table, fm_json_t *row,
                             fm_error_t *err)
{
    char *line = row ? fm_json_canonical(row) : NULL;
    size_t begin = table->text.len;

    fm_json_drop(row);
    if (!line) {
        return fm_no_memory(err);
    }
    fm_buf_add_str(&table->text, line);
    fm_buf_add(&table->text, "\n", 1);
    free(line);
    if (table->text.failed) {
        return fm_no_memory(err);
    }
    table->last = begin;
    return FM_OK;
}

fm_status_t fm_ops_table_set(fm_ops_table_t *table, const fm_buf_t *text,
                             fm_error_t *err)
{
    fm_buf_clear(&table->text);
    fm_buf_add(&table->text, text->data, text->len);
    if (table->text.failed) {
        return fm_no_memory(err);
    }
    table->last = text->len;
    while (table->last > 0 &&
           (table->last == text->len || text->data[table->last - 1] != '\n')) {
        table->last--;
    }
    return FM_OK;
}

fm_status_t fm_ops_table_row(const fm_ops_table_t *table, bool last,
                             fm_json_t **row_out, fm_error_t *err)
{
    const char *text = (const char *)table->text.data;
    const char *begin = text + (last ? table->last : 0);

    *row_out = NULL;
    if (table->text.len == 0) {
        return FM_OK;
    }
    const char *end =
        memchr(begin, '\n', table->text.len - (size_t)(begin - text));
    size_t len =
        end ? (size_t)(end - begin) : table->text.len - (size_t)(begin - text);
    return fm_json_parse(begin, len, "table", row_out, err);
}
