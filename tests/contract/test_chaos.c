/* SPDX-License-Identifier: Apache-2.0 */
/* What chaos does to messages, and that a seed does it the same way twice. */
#include <string.h>

#include "base/mem.h"
#include "fmtest.h"
#include "io/link/link.h"

#define COUNT 2000u

struct outcome {
    uint32_t seen[COUNT]; /* how often each number arrived */
    uint32_t order[3 * COUNT];
    uint32_t arrived;
    uint32_t inversions; /* arrivals below the one before */
};

static void on_message(void *ctx, uint32_t peer, const uint8_t *bytes,
                       size_t len)
{
    struct outcome *outcome = ctx;
    uint32_t number = COUNT;

    CU_ASSERT_FATAL(peer == 0 && len == sizeof(number));
    memcpy(&number, bytes, sizeof(number));
    CU_ASSERT_FATAL(number < COUNT && outcome->arrived < 3 * COUNT);
    outcome->seen[number]++;
    if (outcome->arrived > 0 && number < outcome->order[outcome->arrived - 1]) {
        outcome->inversions++;
    }
    outcome->order[outcome->arrived++] = number;
}

/* Send COUNT numbers from 0 to 1 through @p chaos. */
static void send_all(const fm_link_chaos_t *chaos, struct outcome *outcome)
{
    fm_link_t *links[2] = {0};
    fm_error_t err = {0};
    const fm_link_handler_t handler = {.on_message = on_message,
                                       .ctx = outcome};

    memset(outcome, 0, sizeof(*outcome));
    FM_ASSERT_OK(fm_link_loop_create(2, NULL, links, &err), &err);
    FM_ASSERT_OK(fm_link_chaos_create(links[0], chaos, &links[0], &err), &err);
    fm_link_handle(links[0], &handler);
    fm_link_handle(links[1], &handler);
    for (uint32_t i = 0; i < COUNT; i++) {
        FM_ASSERT_OK(fm_link_send(links[0], 1, &i, sizeof(i), &err), &err);
        if (i % 8 == 7) {
            (void)fm_link_poll(links[0]);
            (void)fm_link_poll(links[1]);
        }
    }
    for (uint32_t i = 0; fm_link_queued(links[0]) > 0 && i < 10000; i++) {
        (void)fm_link_poll(links[0]);
        (void)fm_link_poll(links[1]);
    }
    CU_ASSERT(fm_link_queued(links[0]) == 0);
    fm_link_close(links[0]);
    fm_link_close(links[1]);
}

static uint32_t count_seen(const struct outcome *outcome, uint32_t times)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < COUNT; i++) {
        count += outcome->seen[i] == times;
    }
    return count;
}

static struct outcome outcome;
static struct outcome again;

static void test_drop(void)
{
    const fm_link_chaos_t chaos = {.seed = 1, .drop_ppm = 100000};

    send_all(&chaos, &outcome);
    CU_ASSERT(count_seen(&outcome, 0) > COUNT / 20);
    CU_ASSERT(count_seen(&outcome, 0) < COUNT / 5);
    CU_ASSERT(outcome.inversions == 0);
}

static void test_duplicate(void)
{
    const fm_link_chaos_t chaos = {.seed = 2, .duplicate_ppm = 100000};

    send_all(&chaos, &outcome);
    CU_ASSERT(count_seen(&outcome, 2) > COUNT / 20);
    CU_ASSERT(count_seen(&outcome, 1) + count_seen(&outcome, 2) == COUNT);
    CU_ASSERT(outcome.inversions == 0);
}

static void test_delay_keeps_order(void)
{
    const fm_link_chaos_t chaos = {
        .seed = 3, .delay_ppm = 200000, .delay_polls_max = 9};

    send_all(&chaos, &outcome);
    CU_ASSERT(count_seen(&outcome, 1) == COUNT);
    CU_ASSERT(outcome.inversions == 0);
}

static void test_reorder(void)
{
    const fm_link_chaos_t chaos = {
        .seed = 4, .reorder_ppm = 200000, .delay_polls_max = 9};

    send_all(&chaos, &outcome);
    CU_ASSERT(count_seen(&outcome, 1) == COUNT);
    CU_ASSERT(outcome.inversions > COUNT / 50);
}

static void test_seed(void)
{
    fm_link_chaos_t chaos = {.seed = 5,
                             .drop_ppm = 50000,
                             .duplicate_ppm = 50000,
                             .delay_ppm = 50000,
                             .reorder_ppm = 50000,
                             .delay_polls_max = 5};

    send_all(&chaos, &outcome);
    send_all(&chaos, &again);
    CU_ASSERT(memcmp(&outcome, &again, sizeof(outcome)) == 0);
    chaos.seed = 6;
    send_all(&chaos, &again);
    CU_ASSERT(memcmp(&outcome, &again, sizeof(outcome)) != 0);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"drop", test_drop},
        {"duplicate", test_duplicate},
        {"delay", test_delay_keeps_order},
        {"reorder", test_reorder},
        {"seed", test_seed},
    };

    return fm_test_main("io/link chaos", cases, FM_COUNT_OF(cases));
}
