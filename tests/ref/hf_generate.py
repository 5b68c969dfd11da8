#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What transformers generates, greedily and with a repetition penalty, from
the committed models of tests/ref/data/hf: tests/ref/data/hf_generate.json
(needs torch and transformers)."""
import json
import pathlib

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

DATA = pathlib.Path(__file__).parent / "data"
MESSAGES = [{"role": "user", "content": "Say something about the sea."}]

torch.set_num_threads(1)
out = {}
for name in ("llama-f32", "qwen2-f16", "qwen3-bf16"):
    path = DATA / "hf" / name
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(path)
    ids = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True,
                                        return_dict=True)["input_ids"]
    row = {"prompt_tokens": ids}
    for key, penalty in (("greedy", 1.0), ("penalised", 1.4)):
        got = model.generate(torch.tensor([ids]), max_new_tokens=20,
                             do_sample=False, repetition_penalty=penalty)
        row[key] = got[0, len(ids):].tolist()
    out[name] = row
text = json.dumps({"messages": MESSAGES, "models": out})
(DATA / "hf_generate.json").write_text(text + "\n")
print(text)
