#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The probabilities that transformers samples from, for the table in
tests/unit/test_engine_serve.c (needs torch and transformers)."""
import torch
from transformers.generation.logits_process import (
    MinPLogitsWarper, RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper)

LOGITS = [2.0, -1.0, 0.5, 3.0, -0.25, 1.5, 2.5, -2.0, 0.0, 1.0]
SEEN = [3, 1, 3, 6, 8]
CASES = [  # temperature, top_k, top_p, min_p, repetition_penalty
    (1.0, 0, 1.0, 0.0, 1.3),
    (0.7, 0, 1.0, 0.0, 0.8),
    (1.5, 4, 1.0, 0.0, 1.2),
    (1.0, 0, 0.8, 0.0, 1.0),
    (1.2, 6, 0.7, 0.0, 1.5),
    (1.0, 0, 1.0, 0.3, 1.0),
    (0.9, 8, 0.95, 0.2, 1.1),
]

torch.set_num_threads(1)
for temperature, top_k, top_p, min_p, penalty in CASES:
    ids = torch.tensor([SEEN])
    x = torch.tensor([LOGITS])
    if penalty != 1.0:
        x = RepetitionPenaltyLogitsProcessor(penalty)(ids, x)
    x = TemperatureLogitsWarper(temperature)(ids, x)
    if top_k:
        x = TopKLogitsWarper(top_k)(ids, x)
    if top_p < 1.0:
        x = TopPLogitsWarper(top_p)(ids, x)
    if min_p:
        x = MinPLogitsWarper(min_p)(ids, x)
    p = torch.softmax(x.double(), -1)[0].tolist()
    print("    {%g, %d, %g, %g, %g,\n     {%s}}," % (
        temperature, top_k, top_p, min_p, penalty,
        ", ".join("%.6f" % v if v else "0" for v in p)))
