/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Life of the control plane and the commit cycle:
 *
 *   record → journal buffer → (storage thread) write, fdatasync, store the
 *   inline outputs → applied in order → consequences
 *
 * One flush is under way at a time; what arrives meanwhile forms the next
 * group.  Records are applied by the function that replays them after a
 * restart, so there is no second meaning.
 */
#include "role/control/control.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "role/control/internal.h"
#include "role/control/needs.h"

/* A local input file: beyond this it belongs on the filesystem as an object
 * that is imported once. */
#define INGEST_MAX_BYTES ((size_t)1 << 30)

/* --- failure -------------------------------------------------------------- */

void fm_control_fatal(fm_control_t *control, const fm_error_t *err)
{
    if (control->failed) {
        return;
    }
    control->failed = true;
    control->closing = true;
    if (control->events.on_fatal) {
        control->events.on_fatal(control->events.ctx, err->status, err->text);
    }
}

void fm_control_offload(fm_control_t *control, fm_reactor_offload_fn work,
                        fm_reactor_done_fn done, void *ctx)
{
    fm_error_t err = {0};

    if (fm_reactor_offload(control->reactor, work, done, ctx, &err) < 0) {
        done(ctx, err.status, &err);
    }
}

/* --- commit --------------------------------------------------------------- */

void fm_control_remark(fm_control_t *control, unsigned type,
                       const uint8_t *bytes, size_t len)
{
    struct pending_record record = {.type = type, .len = len};
    fm_error_t err = {0};

    if (control->failed) {
        return;
    }
    if (!(record.bytes = fm_malloc(len)) ||
        fm_grow(&control->records, &control->record_capacity,
                control->record_count, sizeof(*control->records), &err) < 0) {
        free(record.bytes);
        (void)fm_no_memory(&err);
        fm_control_fatal(control, &err);
        return;
    }
    memcpy(record.bytes, bytes, len);
    if (fm_journal_append(control->fabric->journal, type, bytes, len,
                          &record.seq, &err) < 0) {
        free(record.bytes);
        fm_control_fatal(control, &err);
        return;
    }
    control->records[control->record_count++] = record;
}

void fm_control_record(fm_control_t *control, unsigned type,
                       const uint8_t *bytes, size_t len)
{
    control->urgent = true;
    fm_control_remark(control, type, bytes, len);
}

/* A group on its way to the disk: records [head, head + count). */
struct flush {
    fm_control_t *control;
    size_t count;
    struct pending_record *records; /* copies; bytes owned by the FIFO */
    fm_status_t store_status;
    fm_error_t store_error;
};

/* Storage thread: keep the inline outputs of a durable RESULT. */
static fm_status_t store_inlines(fm_cas_t *cas,
                                 const struct pending_record *record,
                                 fm_error_t *err)
{
    fm_record_result_t result;
    fm_record_entry_t entry;
    fm_digest_t digest;
    fm_status_t rc =
        fm_record_result_decode(record->bytes, record->len, &result, err);

    while (rc >= 0 && fm_record_entry_next(&result.entries, &entry)) {
        if (entry.outcome == FM_OUTCOME_OK && entry.bytes.len > 0) {
            rc = fm_cas_put(cas, (fm_cas_kind_t)entry.kind, entry.bytes.text,
                            entry.bytes.len, &digest, err);
        }
    }
    return rc;
}

static fm_status_t flush_work(void *ctx, fm_error_t *err)
{
    struct flush *flush = ctx;
    fm_fabric_t *fabric = flush->control->fabric;
    fm_status_t rc = fm_journal_flush(fabric->journal, err);

    for (size_t i = 0; rc >= 0 && i < flush->count; i++) {
        if (flush->records[i].type == FM_RECORD_RESULT &&
            flush->store_status >= 0) {
            flush->store_status = store_inlines(fabric->cas, &flush->records[i],
                                                &flush->store_error);
        }
    }
    return rc;
}

static void notices_drain(fm_control_t *control)
{
    const fm_control_events_t *events = &control->events;
    fm_pool_notice_t notice;

    while (fm_pool_next_notice(control->pool, &notice)) {
        const fm_run_t *run =
            fm_state_run(control->fabric->state, notice.workflow);
        switch (notice.kind) {
        case FM_POOL_NODE_READY:
            fm_control_expand_later(control, notice.workflow, notice.node);
            break;
        case FM_POOL_NODE_DONE:
        case FM_POOL_NODE_FAILED:
            if (events->on_node) {
                events->on_node(events->ctx, run, notice.node);
            }
            break;
        case FM_POOL_WORKFLOW_DONE:
        case FM_POOL_WORKFLOW_FAILED:
        case FM_POOL_WORKFLOW_CANCELLED:
            fm_control_results_drop(control, notice.workflow);
            if (events->on_run) {
                events->on_run(events->ctx, run);
            }
            break;
        case FM_POOL_LEASE_MOOT:
            for (size_t i = 0; i < control->worker_count; i++) {
                struct worker *worker = &control->workers[i];
                fm_msg_t msg = {.type = FM_MSG_CANCEL,
                                .cancel = {notice.lease, "no longer wanted"}};
                if (worker->state == WORKER_UP && worker->lease &&
                    worker->lease->lease == notice.lease) {
                    /* a hint: the lease ends by its RESULT in any case */
                    (void)!fm_control_send(control, worker->peer, &msg, NULL);
                }
            }
            break;
        }
    }
}

/* The last part of a vector: its items count in the pool from here on. */
static void expanded_note(fm_control_t *control,
                          const struct pending_record *record)
{
    fm_record_expand_t expand;

    if (fm_record_expand_decode(record->bytes, record->len, &expand, NULL) >=
            0 &&
        !expand.more) {
        fm_control_staged_end(control, expand.workflow,
                              (size_t)expand.first + expand.count);
    }
}

/*
 * Apply the records of a flush.  One appended while it was under way may be
 * durable as well, but its outputs are not in the store yet: it is for the
 * next flush, or a reader would find nothing and have it made again.
 */
static void apply_durable(fm_control_t *control, size_t count)
{
    int64_t now = fm_reactor_now_ns(control->reactor);
    fm_error_t err = {0};
    bool settled = false;

    while (control->record_head < count) {
        struct pending_record *record = &control->records[control->record_head];
        bool forget = record->type == FM_RECORD_FORGET;
        fm_status_t rc =
            fm_state_apply(control->fabric->state, record->type, record->bytes,
                           record->len, false, now, &err);
        if (rc >= 0 && record->type == FM_RECORD_EXPAND) {
            expanded_note(control, record);
            settled = true; /* shared items are done at once */
        }
        control->learned = control->learned || record->type == FM_RECORD_RESULT;
        settled = settled || record->type == FM_RECORD_RESULT;
        free(record->bytes);
        control->record_head++;
        if (rc < 0) {
            fm_control_fatal(control, &err);
            return;
        }
        if (forget) {
            fm_control_expand_scan(control);
        }
    }
    /* while results keep coming, the next group is always there: without
     * this the applied ones would pile up in front of it */
    control->record_count -= control->record_head;
    memmove(control->records, control->records + control->record_head,
            control->record_count * sizeof(*control->records));
    control->record_head = 0;
    control->place_wanted = true;
    notices_drain(control);
    if (settled) {
        fm_control_deferred_retry(control, false);
    }
}

static void flush_done(void *ctx, fm_status_t status, const fm_error_t *err)
{
    struct flush *flush = ctx;
    fm_control_t *control = flush->control;

    control->flushing = false;
    if (flush->store_status < 0) {
        /* nothing is lost: the journal has these bytes as well */
        fm_log(FM_LOG_WARN, "store: %s", flush->store_error.text);
    }
    size_t count = flush->count;
    free(flush->records);
    free(flush);
    if (status < 0) {
        fm_control_fatal(control, err);
        return;
    }
    apply_durable(control, count);
}

/* End of turn: send what was appended to the disk. */
static size_t journal_hook(void *ctx)
{
    fm_control_t *control = ctx;
    size_t count = control->record_count - control->record_head;

    if (control->flushing || count == 0 || control->failed ||
        !(control->urgent || control->closing)) {
        return 0;
    }
    struct flush *flush = fm_calloc(1, sizeof(*flush));
    struct pending_record *records = fm_calloc(count, sizeof(*records));
    if (!flush || !records) {
        fm_error_t err = {0};
        free(flush);
        free(records);
        (void)fm_no_memory(&err);
        fm_control_fatal(control, &err);
        return 0;
    }
    memcpy(records, control->records + control->record_head,
           count * sizeof(*records));
    *flush =
        (struct flush){.control = control, .count = count, .records = records};
    control->flushing = true;
    control->urgent = false;
    fm_control_offload(control, flush_work, flush_done, flush);
    return 1;
}

static size_t schedule_hook(void *ctx)
{
    fm_control_t *control = ctx;
    size_t done = fm_control_expand_all(control);

    if (control->place_wanted && !control->closing) {
        control->place_wanted = false;
        done += fm_control_place(control);
    }
    return done;
}

bool fm_control_settled(const fm_control_t *control)
{
    return control->failed ||
           (!control->flushing && control->record_count == 0);
}

/* --- submission ----------------------------------------------------------- */

fm_status_t fm_control_ingest(fm_control_t *control, const char *path,
                              fm_digest_t *digest_out, fm_error_t *err)
{
    fm_buf_t buf = {0};
    fm_status_t rc = fm_file_read(path, INGEST_MAX_BYTES, &buf, err);

    if (rc >= 0) {
        rc = fm_cas_put(control->fabric->cas, FM_CAS_BLOB, buf.data, buf.len,
                        digest_out, err);
    }
    fm_buf_fini(&buf);
    return rc;
}

/* An unfinished submission of the same text and files; or false. */
static bool find_unfinished(const fm_control_t *control,
                            const fm_digest_t *digest, uint32_t *run_out)
{
    const fm_state_t *state = control->fabric->state;

    for (uint32_t i = fm_state_run_count(state); i > 0; i--) {
        const fm_run_t *run = fm_state_run(state, i - 1);
        fm_pool_workflow_t info;
        if (fm_digest_equal(&run->text_digest, digest) &&
            run->isolation == control->isolation &&
            strcmp(run->policy, control->policy) == 0 &&
            fm_pool_workflow_get(control->pool, run->index, &info) >= 0 &&
            info.state == FM_POOL_RUNNING) {
            *run_out = run->index;
            return true;
        }
    }
    return false;
}

/* The largest need of a workflow, as far as its text says. */
static fm_status_t workflow_put(fm_control_t *control, uint32_t run,
                                fm_error_t *err)
{
    const fm_workflow_t *workflow =
        fm_state_run(control->fabric->state, run)->workflow;
    uint64_t memory_bytes = 0;

    for (size_t i = 0; i < fm_workflow_node_count(workflow); i++) {
        fm_batch_info_t info = {0};
        fm_needs_read(fm_workflow_node(workflow, i)->spec, &info);
        memory_bytes =
            info.memory_bytes > memory_bytes ? info.memory_bytes : memory_bytes;
    }
    return fm_place_workflow_put(control->place, run, memory_bytes, err);
}

/* Refuse what the queue quota of its tenant does not allow: a node is an item
 * at the least. */
static fm_status_t check_quota(const fm_control_t *control, const char *text,
                               size_t len, const char *file, fm_error_t *err)
{
    const fm_tenants_t *tenants = fm_pool_tenants(control->pool);
    const fm_config_t *config = control->config;
    fm_workflow_t *workflow = NULL;
    bool any = false;
    fm_status_t rc = FM_OK;

    for (size_t i = 0; config && i < config->tenant_count; i++) {
        any = any || config->tenants[i].config.queued_max > 0;
    }
    if (!any || (rc = fm_workflow_parse(text, len, file, &workflow, err)) < 0) {
        return rc;
    }
    rc = fm_tenants_admit(
        tenants, fm_tenants_find(tenants, fm_workflow_tenant(workflow)),
        fm_workflow_node_count(workflow), err);
    if (rc < 0) {
        fm_error_wrap(err,
                      "%s: over the quota of queued work (queued_max in "
                      "%s)",
                      file, config->file);
    }
    fm_workflow_destroy(workflow);
    return rc;
}

static fm_status_t submit_new(fm_control_t *control, const char *text,
                              size_t len, const char *file, fm_json_t *files,
                              fm_error_t *err)
{
    fm_fabric_t *fabric = control->fabric;
    char *table = fm_json_canonical(files);
    fm_buf_t buf = {0};
    fm_record_submit_t record = {.workflow = fm_state_run_count(fabric->state),
                                 .wall_ns = fm_clock_wall_ns(),
                                 .file = {file, strlen(file)},
                                 .text = {text, len}};
    fm_status_t rc = FM_OK;

    if (!table) {
        return fm_no_memory(err);
    }
    record.files = (fm_span_t){table, strlen(table)};
    if (control->isolation || strcmp(control->policy, "flowmesh") != 0) {
        record.policy = (fm_span_t){control->policy, strlen(control->policy)};
        record.isolation = control->isolation;
    }
    fm_record_submit_encode(&record, &buf);
    /* files first: the journal must not speak of objects nobody stored */
    if (buf.failed) {
        rc = fm_no_memory(err);
    } else if ((rc = fm_cas_seal(fabric->cas, err)) >= 0 &&
               (rc = fm_journal_append(fabric->journal, FM_RECORD_SUBMIT,
                                       buf.data, buf.len, NULL, err)) >= 0 &&
               (rc = fm_journal_flush(fabric->journal, err)) >= 0) {
        rc = fm_state_apply(fabric->state, FM_RECORD_SUBMIT, buf.data, buf.len,
                            false, fm_reactor_now_ns(control->reactor), err);
    }
    fm_buf_fini(&buf);
    free(table);
    return rc;
}

fm_status_t fm_control_submit(fm_control_t *control, const char *text,
                              size_t len, const char *file, fm_json_t *files,
                              uint32_t *run_out, fm_error_t *err)
{
    fm_digest_t digest = fm_run_digest(text, len, files);
    fm_status_t rc = FM_OK;

    if (find_unfinished(control, &digest, run_out)) {
        return FM_OK;
    }
    uint32_t index = fm_state_run_count(control->fabric->state);
    if ((rc = check_quota(control, text, len, file, err)) < 0) {
        return rc;
    }
    if ((rc = submit_new(control, text, len, file, files, err)) >= 0 &&
        (rc = workflow_put(control, index, err)) >= 0) {
        *run_out = index;
        notices_drain(control);
    }
    return rc;
}

/* --- life ----------------------------------------------------------------- */

/* What keys of new submissions are made of. */
static fm_isolation_t isolation_of(fm_place_policy_t policy, bool no_sharing)
{
    if (!fm_place_policy_isolates(policy)) {
        return no_sharing ? FM_ISOLATION_WORKFLOW : FM_ISOLATION_NONE;
    }
    return fm_place_policy_merges(policy) ? FM_ISOLATION_ACTION
                                          : FM_ISOLATION_NODE;
}

/* Policy, scheduler and tenants as configured.  Quotas come after the replay:
 * what was admitted once is not refused by what is written now. */
static fm_status_t policy_open(fm_control_t *control, const fm_fabric_t *fabric,
                               const fm_control_options_t *opts,
                               fm_error_t *err)
{
    static const fm_place_options_t defaults = {0};
    const fm_config_t *config = opts->config;
    const fm_place_options_t *place = config ? &config->place : &defaults;
    fm_tenants_t *tenants = fm_pool_tenants(control->pool);
    fm_status_t rc = FM_OK;

    control->isolation = isolation_of(place->policy, opts->no_sharing);
    control->policy = fm_strdup(fm_place_policy_name(place->policy));
    if (!control->policy) {
        return fm_no_memory(err);
    }
    for (size_t i = 0; rc >= 0 && config && i < config->tenant_count; i++) {
        rc = fm_tenants_configure(tenants, config->tenants[i].name,
                                  &config->tenants[i].config, err);
    }
    return rc < 0 ? rc
                  : fm_place_create(place, control->pool,
                                    fm_state_cost(fabric->state),
                                    &control->place, err);
}

fm_fabric_t *fm_control_fabric(const fm_control_t *control)
{
    return control->fabric;
}

fm_status_t fm_control_open(fm_reactor_t *reactor, fm_link_t *link,
                            fm_fabric_t *fabric,
                            const fm_control_options_t *opts,
                            fm_control_t **control_out, fm_error_t *err)
{
    fm_control_t *control = fm_calloc(1, sizeof(*control));
    fm_status_t rc = FM_ERR_NO_MEMORY;

    if (!control) {
        return fm_no_memory(err);
    }
    control->reactor = reactor;
    if (!(control->results = fm_map_create()) ||
        !(control->marks = fm_map_create())) {
        (void)fm_control_close(control, NULL);
        return fm_no_memory(err);
    }
    control->link = link;
    control->pool = fm_state_pool(fabric->state);
    control->events = opts->events;
    control->config = opts->config;
    if ((rc = policy_open(control, fabric, opts, err)) < 0) {
        (void)fm_control_close(control, NULL);
        return rc;
    }
    control->heartbeat_ns =
        opts->heartbeat_ns ? opts->heartbeat_ns : FM_NS_PER_S;
    control->silence_ns = opts->silence_ns ? opts->silence_ns : 5 * FM_NS_PER_S;
    control->instance = fm_journal_info(fabric->journal).instance;
    control->tick_ns = fm_reactor_now_ns(reactor);
    if ((rc = fm_reactor_hook_add(reactor, FM_REACTOR_JOURNAL, journal_hook,
                                  control, err)) < 0 ||
        (rc = fm_reactor_hook_add(reactor, FM_REACTOR_SCHEDULE, schedule_hook,
                                  control, err)) < 0 ||
        (rc = fm_reactor_timer_start(reactor, control->heartbeat_ns,
                                     control->heartbeat_ns, fm_control_tick,
                                     control, &control->tick_timer, err)) < 0) {
        (void)fm_control_close(control, NULL);
        return rc;
    }
    control->fabric = fabric;
    for (uint32_t i = 0; rc >= 0 && i < fm_state_run_count(fabric->state);
         i++) {
        rc = workflow_put(control, i, err);
    }
    if (rc < 0) {
        control->fabric = NULL; /* the caller's, on failure */
        (void)fm_control_close(control, NULL);
        return rc;
    }
    fm_link_handler_t handler = {fm_control_on_message, fm_control_on_peer,
                                 control};
    fm_link_handle(link, &handler);
    fm_control_expand_scan(control);
    control->place_wanted = true;
    *control_out = control;
    return FM_OK;
}

fm_status_t fm_control_close(fm_control_t *control, fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    if (!control) {
        return FM_OK;
    }
    fm_reactor_timer_stop(control->reactor, control->tick_timer);
    if (control->wake_timer) {
        fm_reactor_timer_stop(control->reactor, control->wake_timer);
    }
    fm_reactor_hook_remove(control->reactor, FM_REACTOR_JOURNAL, journal_hook,
                           control);
    fm_reactor_hook_remove(control->reactor, FM_REACTOR_SCHEDULE, schedule_hook,
                           control);
    for (size_t i = control->record_head; i < control->record_count; i++) {
        free(control->records[i].bytes);
    }
    free(control->records);
    for (size_t i = 0; i < control->worker_count; i++) {
        if (control->workers[i].state == WORKER_SILENT) {
            /* the link must not wait for its farewell */
            fm_link_drop(control->link, control->workers[i].peer);
        }
        fm_control_worker_fini(&control->workers[i]);
    }
    free(control->workers);
    free(control->gone);
    free(control->told);
    free(control->deferred);
    free(control->staged);
    free(control->expansions);
    free(control->waiting);
    for (size_t i = 0; i < control->result_count; i++) {
        fm_json_drop(control->result_list[i].value);
        free(control->result_list[i].error);
    }
    free(control->result_list);
    for (size_t i = 0; i < control->reader_runs; i++) {
        free(control->readers[i]);
    }
    free(control->readers);
    fm_place_destroy(control->place);
    free(control->policy);
    fm_map_destroy(control->results);
    fm_map_destroy(control->marks);
    if (control->fabric) {
        rc = fm_cas_seal(control->fabric->cas, err);
        fm_fabric_close(control->fabric);
    }
    free(control);
    return rc;
}

void fm_control_shutdown(fm_control_t *control, const char *reason)
{
    fm_msg_t msg = {.type = FM_MSG_SHUTDOWN, .shutdown = {reason}};

    control->closing = true;
    for (size_t i = 0; i < control->worker_count; i++) {
        if (control->workers[i].state != WORKER_GONE) {
            /* a worker that cannot be told sees the link close */
            (void)!fm_control_send(control, control->workers[i].peer, &msg,
                                   NULL);
        }
    }
}

size_t fm_control_worker_count(const fm_control_t *control)
{
    size_t count = 0;

    for (size_t i = 0; i < control->worker_count; i++) {
        count += control->workers[i].state == WORKER_UP;
    }
    return count;
}

size_t fm_control_gone_count(const fm_control_t *control)
{
    return control->gone_count;
}
