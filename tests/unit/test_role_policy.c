/* SPDX-License-Identifier: Apache-2.0 */
/*
 * role/control with the chains of several grpo trials and tenants: what runs
 * once, and what runs in one lease.  Two scripted workers: one updates
 * policies, the other does all else and is kept busy while policies change, so
 * that the rollouts of all of them wait together.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "plan/key/key.h"
#include "role/control/internal.h"
#include "role_fixture.h"
#include "role_peer.h"

#define MODEL_A                                                                \
    "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define TRIALS 3 /* of each workflow */
#define WORKFLOWS 2
#define POLICIES (TRIALS * WORKFLOWS)
#define PROMPTS 2
/* Tenants differ, and learning rates: iteration 1 is the same for all. */
#define GRPO(tenant, rates)                                                    \
    "apiVersion: flowmesh/v1\nmetadata: {name: " tenant ", owner: " tenant     \
    "}\nspec:\n  taskType: grpo\n"                                             \
    "  model: {source: {identifier: \"" MODEL_A "\"}}\n  lora: {r: 4}\n"       \
    "  data: {prompts: [one, two]}\n"                                          \
    "  reward: {type: length, max_tokens: 4}\n"                                \
    "  training: {steps: 2, batch_size: 2, group_size: 2}\n"                   \
    "  sweep: {matrix: {main.training.learning_rate: [" rates "]}}\n"

enum { SERVING, UPDATING, WORKERS };

struct stage {
    char dir[64];
    fm_reactor_t *reactor;
    fm_link_t *links[1 + WORKERS];
    peer_t workers[WORKERS];
    fm_control_t *control;
    uint32_t instance;
    int runs_ended;
    const fm_msg_t *held; /* rollouts that wait for the updates */
    /* what was seen */
    size_t leases[2];                    /* of rollouts, by iteration */
    size_t items[2];                     /* of rollouts, by iteration */
    size_t adapters_most;                /* distinct ones in a lease */
    size_t updates, references, rewards; /* items */
    size_t results; /* in memory, when the first iteration was over */
};

static void on_run(void *ctx, const fm_run_t *run)
{
    (void)run;
    ((struct stage *)ctx)->runs_ended++;
}

static void on_fatal(void *ctx, fm_status_t status, const char *text)
{
    (void)ctx;
    (void)fprintf(stderr, "fatal: %s: %s\n", fm_status_name(status), text);
    CU_FAIL("the control plane gave up");
}

static void say_hello(struct stage *stage, int worker)
{
    static const fm_msg_device_t device = {
        .kind = "cpu", .name = "Zen 4", .memory_bytes = 1 << 30, .cores = 1};
    static const char *const types[][3] = {
        [SERVING] = {"inference", "reward", "logprobs"}, [UPDATING] = {"grpo"}};
    fm_msg_t msg = {.type = FM_MSG_HELLO,
                    .hello = {.protocol = FM_WIRE_VERSION,
                              .cell = "cell",
                              .name = worker == SERVING ? "serve" : "update",
                              .host = "node1",
                              .pid = 1,
                              .devices = &device,
                              .device_count = 1,
                              .task_types = types[worker],
                              .task_type_count = worker == SERVING ? 3 : 1,
                              .price_per_hour = 1}};

    peer_say(&stage->workers[worker], &msg);
    stage->instance =
        peer_wait(&stage->workers[worker], FM_MSG_WELCOME)->welcome.instance;
}

static void start(struct stage *stage)
{
    fm_error_t err = {0};
    fm_fabric_t *fabric = NULL;
    fm_fabric_options_t options = {0};
    fm_control_options_t opts = {
        .events = {.on_run = on_run, .on_fatal = on_fatal, .ctx = stage},
        .heartbeat_ns = 20 * FM_NS_PER_MS,
        .silence_ns = 3600 * FM_NS_PER_S};

    *stage = (struct stage){0};
    (void)snprintf(stage->dir, sizeof(stage->dir), "/tmp/fm-policy-XXXXXX");
    CU_ASSERT_FATAL(mkdtemp(stage->dir) != NULL);
    FM_ASSERT_OK(fm_reactor_create(NULL, &stage->reactor, &err), &err);
    FM_ASSERT_OK(fm_link_loop_create(1 + WORKERS, NULL, stage->links, &err),
                 &err);
    for (uint32_t i = 0; i <= WORKERS; i++) {
        FM_ASSERT_OK(fm_link_attach(stage->links[i], stage->reactor, &err),
                     &err);
    }
    for (uint32_t i = 0; i < WORKERS; i++) {
        peer_open(&stage->workers[i], stage->reactor, stage->links[i + 1], 0);
    }
    FM_ASSERT_OK(fm_fabric_open(stage->dir, &options, &fabric, &err), &err);
    FM_ASSERT_OK(fm_control_open(stage->reactor, stage->links[0], fabric, &opts,
                                 &stage->control, &err),
                 &err);
}

static void finish(struct stage *stage)
{
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_control_close(stage->control, &err), &err);
    for (uint32_t i = 0; i < WORKERS; i++) {
        peer_close(&stage->workers[i]);
    }
    for (uint32_t i = 0; i <= WORKERS; i++) {
        fm_link_close(stage->links[i]);
    }
    fm_reactor_destroy(stage->reactor);
    FM_ASSERT_OK(fm_file_remove_tree(stage->dir, &err), &err);
}

static void submit(struct stage *stage, const char *text)
{
    fm_error_t err = {0};
    fm_json_t *files = fm_json_object();
    uint32_t run = 0;

    FM_ASSERT_OK(fm_control_submit(stage->control, text, strlen(text), "t.yaml",
                                   files, &run, &err),
                 &err);
    fm_json_drop(files);
}

/* --- what operators would say --------------------------------------------- */

static char *digest_of(const char *what, const fm_msg_lease_t *lease, size_t i)
{
    char text[FM_DIGEST_TEXT_BYTES];
    char *all =
        fm_asprintf("%s %s %s", what, lease->params, lease->items[i].value);
    fm_digest_t digest = fm_sha256(all, strlen(all));

    free(all);
    return fm_strdup(fm_digest_format(&digest, text));
}

static char *output_of(const fm_msg_lease_t *lease, size_t i)
{
    char *digest = digest_of("made", lease, i);
    char *output = NULL;

    if (strcmp(lease->task_type, "inference") == 0) {
        /* another digest, other tokens */
        char hex[8] = "";
        memcpy(hex, digest + 7, 7);
        int token = (int)strtol(hex, NULL, 16);
        output = fm_asprintf(
            "{\"completions\":[{\"text\":\"%s\",\"tokens\":[%d]},{\"text\":"
            "\"x\",\"tokens\":[%d]}],\"prompt_tokens\":[1]}",
            digest, token, token + 1);
    } else if (strcmp(lease->task_type, "reward") == 0) {
        output = fm_strdup("1");
    } else if (strcmp(lease->task_type, "logprobs") == 0) {
        output = fm_strdup("{\"logprobs\":[-1]}");
    } else {
        output = fm_asprintf("{\"adapter\":\"%s\",\"model\":\"" MODEL_A
                             "\",\"state\":\"%s\"}",
                             digest, digest);
    }
    free(digest);
    CU_ASSERT_FATAL(output != NULL);
    return output;
}

static void answer(struct stage *stage, int worker, const fm_msg_lease_t *lease)
{
    fm_msg_result_item_t *items = calloc(lease->item_count, sizeof(*items));
    char **texts = calloc(lease->item_count, sizeof(char *));

    CU_ASSERT_FATAL(items && texts);
    for (size_t i = 0; i < lease->item_count; i++) {
        texts[i] = output_of(lease, i);
        items[i] = (fm_msg_result_item_t){
            .index = lease->items[i].index,
            .status = FM_ITEM_OK,
            .kind = "item",
            .locator = "",
            .error = "",
            .digest = fm_sha256(texts[i], strlen(texts[i])),
            .inline_bytes = (const uint8_t *)texts[i],
            .inline_len = strlen(texts[i])};
    }
    fm_msg_t msg = {.type = FM_MSG_RESULT,
                    .result = {.lease = lease->lease,
                               .instance = stage->instance,
                               .items = items,
                               .item_count = lease->item_count,
                               .seconds = 1,
                               .device = "Zen 4",
                               .final = true}};
    peer_say(&stage->workers[worker], &msg);
    for (size_t i = 0; i < lease->item_count; i++) {
        free(texts[i]);
    }
    free(texts);
    free(items);
}

/* Distinct adapters among the items of a lease. */
static size_t adapters_of(const fm_msg_lease_t *lease)
{
    fm_strmap_t *seen = fm_strmap_create();
    fm_error_t err = {0};
    size_t count = 0;

    CU_ASSERT_FATAL(seen != NULL);
    for (size_t i = 0; i < lease->item_count; i++) {
        const char *text = lease->items[i].value;
        fm_json_t *value = NULL;
        FM_ASSERT_OK(fm_json_parse(text, strlen(text), "item", &value, &err),
                     &err);
        const char *adapter = fm_json_get_str(value, "adapter");
        if (adapter && !fm_strmap_get(seen, adapter)) {
            FM_ASSERT_OK(fm_strmap_put(seen, adapter, 1, &err), &err);
            count++;
        }
        fm_json_drop(value);
    }
    fm_strmap_destroy(seen);
    return count;
}

static void note(struct stage *stage, const fm_msg_lease_t *lease)
{
    if (strcmp(lease->task_type, "inference") == 0) {
        size_t adapters = adapters_of(lease);
        int iteration = adapters > 0;
        stage->leases[iteration]++;
        stage->items[iteration] += lease->item_count;
        stage->adapters_most =
            adapters > stage->adapters_most ? adapters : stage->adapters_most;
    }
    stage->updates +=
        strcmp(lease->task_type, "grpo") == 0 ? lease->item_count : 0;
    stage->references +=
        strcmp(lease->task_type, "logprobs") == 0 ? lease->item_count : 0;
    stage->rewards +=
        strcmp(lease->task_type, "reward") == 0 ? lease->item_count : 0;
}

/* Whether all that iteration 2 rolls out is leased or ready to be. */
static bool all_wait(const struct stage *stage)
{
    const fm_state_t *state = fm_control_fabric(stage->control)->state;
    const fm_pool_t *pool = fm_state_pool(state);
    size_t ready = 0;

    for (uint32_t id = 0; id < fm_pool_batch_ids(pool); id++) {
        fm_pool_batch_t batch;
        if (!fm_pool_batch_get(pool, id, &batch)) {
            continue;
        }
        const fm_batch_info_t *info = fm_state_batch(state, &batch.key);
        const char *task = fm_key_task_at(info->task_index)->name;
        ready += strcmp(task, "inference") == 0 ? batch.ready : 0;
    }
    return stage->items[1] + ready == POLICIES * PROMPTS;
}

/* Answer what came; the first rollouts of iteration 2 keep their worker busy
 * until those of all policies wait. */
static void serve(struct stage *stage, int worker)
{
    peer_t *peer = &stage->workers[worker];

    while (peer->seen < peer->count) {
        const fm_msg_t *msg = &peer->heard[peer->seen++];
        if (msg->type != FM_MSG_LEASE) {
            continue;
        }
        size_t before = stage->leases[1];
        note(stage, &msg->lease);
        if (stage->leases[1] == 1 && before == 0) {
            stage->held = msg; /* the peer keeps it */
        } else {
            answer(stage, worker, &msg->lease);
        }
    }
    if (worker == SERVING && stage->held && all_wait(stage)) {
        for (size_t i = 0; i < stage->control->result_count; i++) {
            stage->results += stage->control->result_list[i].value != NULL;
        }
        answer(stage, SERVING, &stage->held->lease);
        stage->held = NULL;
    }
}

static void test_shared_leases(void)
{
    struct stage stage;

    start(&stage);
    submit(&stage, GRPO("ada", "0.1, 0.2, 0.3"));
    submit(&stage, GRPO("bob", "0.4, 0.5, 0.6"));
    say_hello(&stage, UPDATING);
    say_hello(&stage, SERVING);
    for (int turns = 0; stage.runs_ended < WORKFLOWS && turns < TURNS_MAX;
         turns++) {
        turn(stage.reactor);
        serve(&stage, UPDATING);
        serve(&stage, SERVING);
    }
    CU_ASSERT_EQUAL(stage.runs_ended, WORKFLOWS);
    /* iteration 1: one policy, so every prompt is completed once, in one
     * lease; the other trials of both tenants share it */
    CU_ASSERT_EQUAL(stage.leases[0], 1);
    CU_ASSERT_EQUAL(stage.items[0], PROMPTS);
    /* iteration 2: six policies, and fewer leases than policies */
    CU_ASSERT_EQUAL(stage.items[1], POLICIES * PROMPTS);
    CU_ASSERT(stage.leases[1] < POLICIES);
    CU_ASSERT(stage.adapters_most >= POLICIES / 2);
    CU_ASSERT_EQUAL(stage.updates, 2 * POLICIES);
    /* of iteration 1 only the updates are still to be read */
    CU_ASSERT_EQUAL(stage.results, POLICIES);
    CU_ASSERT_EQUAL(stage.references, 2 * PROMPTS * (1 + POLICIES));
    (void)printf("  rollouts: %zu items in %zu leases, up to %zu adapters in "
                 "one\n",
                 stage.items[0] + stage.items[1],
                 stage.leases[0] + stage.leases[1], stage.adapters_most);
    finish(&stage);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"rollouts of several policies share leases", test_shared_leases},
    };

    return fm_test_main("role policy", cases, FM_COUNT_OF(cases));
}
