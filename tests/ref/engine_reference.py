#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Write what the engine's numbers should be, computed by PyTorch in float64.

usage: engine_reference.py OUTPUT_DIR        (needs python3-torch)

An implementation of its own: rotation by complex numbers, one unpadded
sequence at a time, gradients by autograd, torch.optim.AdamW.  For each case it
writes NAME.json (configuration, inputs, scalars, where each block lies) and
NAME.f32 (the blocks, little-endian float32).  tests/unit/test_engine_ref.c
reads them, so the tests need no PyTorch.
"""
import json
import pathlib
import struct
import sys

import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)

CASES = {
    "engine_grouped": dict(
        vocab_size=24, hidden_size=16, intermediate_size=20,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=96, rope_theta=500.0, rms_norm_eps=1e-5,
        tie_word_embeddings=False),
    "engine_tied": dict(
        vocab_size=19, hidden_size=24, intermediate_size=17,
        num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        max_position_embeddings=96, rope_theta=10000.0, rms_norm_eps=1e-6,
        tie_word_embeddings=True),
}
SFT = dict(learning_rate=0.01, beta1=0.9, beta2=0.95, eps=1e-6,
           weight_decay=0.1, max_grad_norm=0.5, schedule="cosine",
           warmup_steps=2, total_steps=8, steps=5)
BETA = 0.3


def shapes(c):
    h, i, v = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
    kv = h // c["num_attention_heads"] * c["num_key_value_heads"]
    yield "model.embed_tokens.weight", (v, h)
    for n in range(c["num_hidden_layers"]):
        p = f"model.layers.{n}."
        yield p + "input_layernorm.weight", (h,)
        yield p + "self_attn.q_proj.weight", (h, h)
        yield p + "self_attn.k_proj.weight", (kv, h)
        yield p + "self_attn.v_proj.weight", (kv, h)
        yield p + "self_attn.o_proj.weight", (h, h)
        yield p + "post_attention_layernorm.weight", (h,)
        yield p + "mlp.gate_proj.weight", (i, h)
        yield p + "mlp.up_proj.weight", (i, h)
        yield p + "mlp.down_proj.weight", (h, i)
    yield "model.norm.weight", (h,)
    if not c["tie_word_embeddings"]:
        yield "lm_head.weight", (v, h)


def norm(x, w, eps):
    return w * x / torch.sqrt(torch.mean(x * x, -1, keepdim=True) + eps)


def rotate(x, theta):
    """x [T, heads, dim]: pairs (i, i + dim/2) as complex numbers."""
    steps, _, dim = x.shape
    rate = theta ** (-torch.arange(dim // 2) * 2.0 / dim)
    turn = torch.polar(torch.ones(steps, dim // 2),
                       torch.arange(steps)[:, None] * rate[None, :])
    z = torch.complex(x[..., :dim // 2], x[..., dim // 2:]) * turn[:, None]
    return torch.cat((z.real, z.imag), -1)


def logits_of(c, w, tokens):
    heads, kvs = c["num_attention_heads"], c["num_key_value_heads"]
    dim = c["hidden_size"] // heads
    eps, theta, steps = c["rms_norm_eps"], c["rope_theta"], len(tokens)
    x = w["model.embed_tokens.weight"][torch.tensor(tokens)]
    for n in range(c["num_hidden_layers"]):
        def p(name):
            return w[f"model.layers.{n}.{name}.weight"]
        y = norm(x, p("input_layernorm"), eps)
        q = rotate((y @ p("self_attn.q_proj").T).view(steps, heads, dim),
                   theta)
        k = rotate((y @ p("self_attn.k_proj").T).view(steps, kvs, dim), theta)
        v = (y @ p("self_attn.v_proj").T).view(steps, kvs, dim)
        k = k.repeat_interleave(heads // kvs, 1)
        v = v.repeat_interleave(heads // kvs, 1)
        s = torch.einsum("thd,shd->hts", q, k) / dim ** 0.5
        later = torch.triu(torch.ones(steps, steps, dtype=torch.bool), 1)
        a = torch.softmax(s.masked_fill(later, -torch.inf), -1)
        x = x + torch.einsum("hts,shd->thd", a, v).reshape(steps, -1) @ \
            p("self_attn.o_proj").T
        y = norm(x, p("post_attention_layernorm"), eps)
        x = x + (F.silu(y @ p("mlp.gate_proj").T) *
                 (y @ p("mlp.up_proj").T)) @ p("mlp.down_proj").T
    head = "model.embed_tokens" if c["tie_word_embeddings"] else "lm_head"
    return norm(x, w["model.norm.weight"], eps) @ w[head + ".weight"].T


def sft_loss(c, w, samples):
    total, count = 0.0, 0
    for s in samples:
        logp = F.log_softmax(logits_of(c, w, s["tokens"])[:-1], -1)
        for t in range(1, len(s["tokens"])):
            if s["mask"][t]:
                total, count = total - logp[t - 1, s["tokens"][t]], count + 1
    return total / count


def completion_logp(c, w, prompt, completion):
    logp = F.log_softmax(logits_of(c, w, prompt + completion), -1)
    at = len(prompt) - 1
    return sum(logp[at + i, t] for i, t in enumerate(completion))


def dpo_loss(c, w, pairs):
    losses = []
    for p in pairs:
        chosen = completion_logp(c, w, p["prompt"], p["chosen"])
        rejected = completion_logp(c, w, p["prompt"], p["rejected"])
        z = (chosen - p["reference_chosen"]) - \
            (rejected - p["reference_rejected"])
        losses.append(-F.logsigmoid(BETA * z))
    return torch.stack(losses).mean()


def flat(tensors):
    return torch.cat([t.reshape(-1) for t in tensors]).tolist()


def rate(step):
    """Hugging Face's cosine schedule with warm-up; step counts from 0."""
    warm, total = SFT["warmup_steps"], SFT["total_steps"]
    if step < warm:
        return SFT["learning_rate"] * step / warm
    part = (step - warm) / (total - warm)
    return SFT["learning_rate"] * 0.5 * (1 + torch.cos(
        torch.tensor(torch.pi * part)).item())


def train(c, w, samples):
    """A few AdamW steps; the record of each, and the parameters after."""
    w = {k: t.detach().clone().requires_grad_() for k, t in w.items()}
    groups = [{"params": [t for t in w.values() if t.dim() > 1],
               "weight_decay": SFT["weight_decay"]},
              {"params": [t for t in w.values() if t.dim() == 1],
               "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, betas=(SFT["beta1"], SFT["beta2"]),
                              eps=SFT["eps"])
    record = []
    for step in range(SFT["steps"]):
        for g in adamw.param_groups:
            g["lr"] = rate(step)
        adamw.zero_grad()
        loss = sft_loss(c, w, samples)
        loss.backward()
        size = torch.nn.utils.clip_grad_norm_(w.values(),
                                              SFT["max_grad_norm"])
        adamw.step()
        record.append({"loss": loss.item(), "grad_norm": size.item(),
                       "learning_rate": rate(step)})
    return record, w


def random_tokens(c, count):
    return torch.randint(0, c["vocab_size"], (count,)).tolist()


def write_case(name, c, folder):
    torch.manual_seed(len(name))
    w = {}
    for key, shape in shapes(c):
        start = torch.randn(shape) * 0.15 + (1.0 if len(shape) == 1 else 0.0)
        # float32 values, so that both sides start from the same numbers
        w[key] = start.float().double().requires_grad_()
    samples = []
    for length in (9, 70, 2, 17):  # 70: more than one block of queries
        samples.append({"tokens": random_tokens(c, length),
                        "mask": torch.randint(0, 2, (length,)).tolist()})
        samples[-1]["mask"][-1] = 1
    pairs = []
    for lengths in ((5, 7, 3), (1, 2, 6), (12, 66, 1)):
        prompt, chosen, rejected = (random_tokens(c, n) for n in lengths)
        logp = [completion_logp(c, w, prompt, x).item()
                for x in (chosen, rejected)]
        pairs.append({"prompt": prompt, "chosen": chosen,
                      "rejected": rejected, "logp_chosen": logp[0],
                      "logp_rejected": logp[1],
                      "reference_chosen": logp[0] - 1.5,
                      "reference_rejected": logp[1] + 0.75})
    blocks = {"params": flat(w.values()),
              "logits": flat([logits_of(c, w, samples[1]["tokens"])])}
    loss = sft_loss(c, w, samples)
    blocks["sft_gradient"] = flat(torch.autograd.grad(loss, w.values()))
    dpo = dpo_loss(c, w, pairs)
    blocks["dpo_gradient"] = flat(torch.autograd.grad(dpo, w.values()))
    record, after = train(c, w, samples)
    blocks["params_after"] = flat(after.values())

    places, at = {}, 0
    with open(folder / f"{name}.f32", "wb") as out:
        for key, values in blocks.items():
            places[key] = {"offset": at, "count": len(values)}
            at += len(values)
            out.write(struct.pack(f"<{len(values)}f", *values))
    text = {"config": c, "tensors": [k for k, _ in shapes(c)],
            "blocks": places, "samples": samples, "sft_loss": loss.item(),
            "options": SFT, "steps": record, "pairs": pairs, "beta": BETA,
            "dpo_loss": dpo.item()}
    (folder / f"{name}.json").write_text(json.dumps(text) + "\n")


def main(folder):
    for name, config in CASES.items():
        write_case(name, config, pathlib.Path(folder))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
