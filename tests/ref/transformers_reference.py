#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Write what transformers and PyTorch compute for small models of each family.

usage: transformers_reference.py OUTPUT_DIR      (needs torch and transformers)

For each case NAME.json (configuration as people publish it, configuration as
transformers saves it, tokens, losses, where each block lies) and NAME.f32
(blocks, little-endian float32): logits, the gradient of every parameter, the
parameters after ten AdamW steps.  All in float32, attention "eager".  The
parameters are not stored: `weight_values` is twelve lines in any language.
tests/unit/test_engine_family.c reads the files, so the tests need no Python.
"""
import json
import pathlib
import struct
import sys
import tempfile

import numpy as np
import torch
import transformers

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)

CASES = {
    "family_llama3": {
        "model_type": "llama", "vocab_size": 40, "hidden_size": 24,
        "intermediate_size": 28, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
        "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
        "rope_theta": 500.0, "tie_word_embeddings": False,
        "rope_scaling": {"rope_type": "llama3", "factor": 4.0,
                         "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                         "original_max_position_embeddings": 32}},
    "family_llama_bias": {
        "model_type": "llama", "vocab_size": 33, "hidden_size": 24,
        "intermediate_size": 20, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": None,
        "max_position_embeddings": 96, "rms_norm_eps": 1e-6,
        "attention_bias": True, "mlp_bias": True,
        "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "linear", "factor": 2.5,
                            "rope_theta": 1000.0}},
    "family_mistral": {
        "model_type": "mistral", "vocab_size": 36, "hidden_size": 24,
        "intermediate_size": 36, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6,
        "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "sliding_window": 9,
        "tie_word_embeddings": False},
    "family_qwen2": {
        "model_type": "qwen2", "vocab_size": 40, "hidden_size": 24,
        "intermediate_size": 20, "num_hidden_layers": 3,
        "num_attention_heads": 6, "num_key_value_heads": 2,
        "max_position_embeddings": 128, "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0, "use_sliding_window": True,
        "sliding_window": 11, "max_window_layers": 1,
        "tie_word_embeddings": True},
    "family_qwen3": {
        "model_type": "qwen3", "vocab_size": 48, "hidden_size": 20,
        "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 10,
        "max_position_embeddings": 128, "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0, "attention_bias": False,
        "use_sliding_window": False, "sliding_window": None,
        "tie_word_embeddings": True},
}
OPTIONS = {"learning_rate": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8,
           "weight_decay": 0.1, "max_grad_norm": 1.0, "schedule": "cosine",
           "warmup_steps": 2, "total_steps": 12}
STEPS = 10
LENGTHS = (75, 3, 20)  # 75: more than one block of queries, many windows
GREEDY = 24


def weight_values(name, count):
    """Element i of a tensor: SplitMix64 at counter i + 1 of the stream
    FNV-1a(name), its upper 24 bits as a multiple of 2^-23 in [-1, 1)."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * \
            np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return ((z >> np.uint64(40)).astype(np.float64) - 2**23) / 2**23


def fill(model):
    """Matrices and biases in ±1/4, norms in 1 ± 1/4: exact in float32."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            v = weight_values(name, p.numel()) / 4
            v += "norm" in name
            p.copy_(torch.from_numpy(v.reshape(p.shape)).float())


def load(config):
    """The configuration as a file, as people have it, and a model of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "config.json"
        path.write_text(json.dumps(config))
        loaded = transformers.AutoConfig.from_pretrained(folder)
        model = transformers.AutoModelForCausalLM.from_config(
            loaded, attn_implementation="eager", dtype=torch.float32)
        model.save_pretrained(folder)
        saved = json.loads(path.read_text())
    fill(model)
    return model.train(), saved


def sample_list(config):
    ids = (weight_values("tokens", 2 * sum(LENGTHS)) + 1) / 2
    samples, at = [], 0
    for length in LENGTHS:
        tokens = (ids[at:at + length] * config["vocab_size"]).astype(int)
        mask = (ids[at + length:at + 2 * length] < 0.7).astype(int)
        mask[-1] = 1
        samples.append({"tokens": tokens.tolist(), "mask": mask.tolist()})
        at += 2 * length
    return samples


def mean_loss(model, samples):
    """The mean over all masked tokens of the step, as Trainer computes it."""
    count = sum(sum(s["mask"][1:]) for s in samples)
    total = 0.0
    for s in samples:
        ids = torch.tensor([s["tokens"]])
        labels = ids.masked_fill(torch.tensor([s["mask"]]) == 0, -100)
        total = total + model(input_ids=ids, labels=labels,
                              num_items_in_batch=count).loss
    return total


def train(model, samples):
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() == 1]
    adamw = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": OPTIONS["weight_decay"]},
         {"params": plain, "weight_decay": 0.0}], lr=OPTIONS["learning_rate"],
        betas=(OPTIONS["beta1"], OPTIONS["beta2"]), eps=OPTIONS["eps"])
    schedule = transformers.get_cosine_schedule_with_warmup(
        adamw, OPTIONS["warmup_steps"], OPTIONS["total_steps"])
    record = []
    for _ in range(STEPS):
        adamw.zero_grad()
        loss = mean_loss(model, samples)
        loss.backward()
        size = torch.nn.utils.clip_grad_norm_(model.parameters(),
                                              OPTIONS["max_grad_norm"])
        record.append({"loss": loss.item(), "grad_norm": size.item(),
                       "learning_rate": schedule.get_last_lr()[0]})
        adamw.step()
        schedule.step()
    return record


def check_conditioning(config, samples, model):
    """Adam turns an element of almost no gradient into a full step of either
    sign.  Where transformers disagrees with itself over it, take another case.
    """
    other, _ = load(config)
    other.set_attn_implementation("sdpa")
    train(other, samples)
    for (name, a), b in zip(model.named_parameters(), other.parameters()):
        assert (a - b).abs().max() < 1e-4 * b.abs().max(), name


def greedy(model, prompt):
    """What the model says next, and by how much each token won."""
    tokens, margin = list(prompt), float("inf")
    with torch.no_grad():
        for _ in range(GREEDY):
            row = model(input_ids=torch.tensor([tokens])).logits[0, -1]
            best = row.topk(2).values
            margin = min(margin, (best[0] - best[1]).item())
            tokens.append(row.argmax().item())
    assert margin > 1e-3, "too close to call: take another prompt"
    return tokens[len(prompt):]


def flat(tensors):
    return torch.cat([t.detach().reshape(-1) for t in tensors]).tolist()


def write_case(name, config, folder):
    model, saved = load(config)
    samples = sample_list(config)
    names = [n for n, _ in model.named_parameters()]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([samples[0]["tokens"]])).logits
    prompt = samples[0]["tokens"][:17]
    said = greedy(model, prompt)
    loss = mean_loss(model, samples)
    gradient = torch.autograd.grad(loss, list(model.parameters()))
    record = train(model, samples)
    check_conditioning(config, samples, model)
    blocks = {"logits": flat([logits]), "gradient": flat(gradient),
              "params_after": flat(model.parameters())}

    places, at = {}, 0
    with open(folder / f"{name}.f32", "wb") as out:
        for key, values in blocks.items():
            places[key] = {"offset": at, "count": len(values)}
            at += len(values)
            out.write(struct.pack(f"<{len(values)}f", *values))
    text = {"config": config, "saved_config": saved, "tensors": names,
            "shapes": [list(p.shape) for p in model.parameters()],
            "blocks": places, "samples": samples, "options": OPTIONS,
            "loss": loss.item(), "steps": record,
            "prompt": prompt, "greedy": said,
            "made_with": f"transformers {transformers.__version__}, "
                         f"torch {torch.__version__}"}
    (folder / f"{name}.json").write_text(json.dumps(text) + "\n")


def main(folder):
    for name, config in CASES.items():
        write_case(name, config, pathlib.Path(folder))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
