/* SPDX-License-Identifier: Apache-2.0 */
/* Preference pairs: what DPO and reward models have in common. */
#include <math.h>

#include "engine/train/trainer.h"

static fm_status_t pair_check(const fm_engine_trainer_t *trainer,
                              const fm_engine_pair_t *pair, size_t index,
                              bool references, fm_error_t *err)
{
    size_t longer = pair->chosen_count > pair->rejected_count
                        ? pair->chosen_count
                        : pair->rejected_count;
    fm_status_t rc = FM_OK;

    if (pair->prompt_count == 0 || pair->chosen_count == 0 ||
        pair->rejected_count == 0) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "pair %zu: prompt, chosen and rejected need a "
                            "token each",
                            index);
    }
    if (references && (!isfinite(pair->reference_chosen) ||
                       !isfinite(pair->reference_rejected))) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "pair %zu: a reference log-probability is not "
                            "finite",
                            index);
    }
    if ((rc = fm_tokens_check(trainer, "prompt of pair", index, pair->prompt,
                              pair->prompt_count, err)) < 0 ||
        (rc = fm_tokens_check(trainer, "chosen of pair", index, pair->chosen,
                              pair->chosen_count, err)) < 0 ||
        (rc = fm_tokens_check(trainer, "rejected of pair", index,
                              pair->rejected, pair->rejected_count, err)) < 0) {
        return rc;
    }
    return fm_engine_length_check(trainer, "pair", index,
                                  pair->prompt_count + longer, err);
}

fm_status_t fm_engine_pairs_check(const fm_engine_trainer_t *trainer,
                                  const fm_engine_pair_t *pairs, size_t count,
                                  bool references, fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    if (count == 0) {
        return fm_error_set(err, FM_ERR_INVALID, "no pairs in the step");
    }
    for (size_t p = 0; rc >= 0 && p < count; p++) {
        rc = pair_check(trainer, &pairs[p], p, references, err);
    }
    return rc;
}

size_t fm_engine_pair_tokens(const fm_engine_pair_t *pair)
{
    return 2 * pair->prompt_count + pair->chosen_count + pair->rejected_count;
}

fm_status_t fm_engine_pair_add(fm_engine_micro_t *micro,
                               const fm_engine_pair_t *pair, bool last,
                               fm_error_t *err)
{
    const int32_t *completions[2] = {pair->chosen, pair->rejected};
    const size_t counts[2] = {pair->chosen_count, pair->rejected_count};
    fm_status_t rc = FM_OK;

    for (size_t i = 0; rc >= 0 && i < 2; i++) {
        if ((rc = fm_engine_micro_open(micro, err)) < 0 ||
            (rc = fm_engine_micro_add(micro, pair->prompt, NULL,
                                      pair->prompt_count, false, err)) < 0 ||
            (rc = fm_engine_micro_add(micro, completions[i], NULL, counts[i],
                                      !last, err)) < 0) {
            return rc;
        }
        rc = last ? fm_engine_micro_last(micro, err) : FM_OK;
    }
    return rc;
}

double fm_engine_log_sigmoid(double x)
{
    return x >= 0 ? -log1p(exp(-x)) : x - log1p(exp(x));
}
