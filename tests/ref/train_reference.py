#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Write what every training method should compute, by PyTorch in float64.

usage: train_reference.py OUTPUT_DIR     (needs torch and transformers)

The model is Hugging Face's LlamaForCausalLM; an adapter is merged into its
weights (W + alpha/r B A), so autograd goes through the merge; losses are
written here as the papers have them, over padded matrices with masks.  For
each case, the whole model trained or an adapter over a frozen one, it writes
NAME.json (configuration, inputs, options, the metrics of each step, where
each block lies) and NAME.f32 (blocks, little-endian float32).
tests/unit/test_engine_methods.c reads them, so the tests need no Python.
"""
import json
import math
import pathlib
import struct
import sys

import torch
import torch.nn.functional as F
from torch.func import functional_call
from transformers import LlamaConfig, LlamaForCausalLM

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)

CONFIG = dict(
    vocab_size=24, hidden_size=16, intermediate_size=20, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
    rope_theta=500.0, rms_norm_eps=1e-5, tie_word_embeddings=False)
OPTIONS = dict(learning_rate=0.01, min_learning_rate=0.002, beta1=0.9,
               beta2=0.95, eps=1e-6, weight_decay=0.1, max_grad_norm=0.5,
               schedule="linear", warmup_steps=1, total_steps=9)
STEPS = 10  # the first has rate 0 (warm-up): it shows the untouched policy
LORA = {"r": 3, "alpha": 6.0, "dropout": 0.0, "target_modules": [
    "down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj",
    "v_proj"]}
DPO = {"sigmoid": dict(beta=0.3, label_smoothing=0.15),
       "ipo": dict(beta=0.4, label_smoothing=0.0)}
PPO = dict(clip_range=0.1, value_clip_range=0.1, value_coef=0.5, gamma=0.97,
           lam=0.9, kl_coef=0.1, entropy_coef=0.02)
GRPO = dict(group_size=3, beta=0.1, clip_range=0.05, clip_range_high=0.1,
            entropy_coef=0.01)


def rounded(t):
    """A value that float32 holds, so that both sides start alike."""
    return t.float().double()


class Policy:
    """The model, an adapter or none, a scalar head; what is trained."""

    def __init__(self, lora):
        config = LlamaConfig(**CONFIG, attn_implementation="eager")
        self.net = LlamaForCausalLM(config).double()
        self.base = {}
        for name, p in self.net.named_parameters():
            start = torch.randn(p.shape) * 0.2 + (1.0 if p.dim() == 1 else 0)
            self.base[name] = rounded(start)
        self.adapter = {}
        for name, w in self.base.items():
            module = name.split(".")[-2]
            if lora and module in LORA["target_modules"]:
                stem = "base_model.model." + name[:-len("weight")]
                shapes = {"lora_A": (LORA["r"], w.shape[1]),
                          "lora_B": (w.shape[0], LORA["r"])}
                for part, shape in shapes.items():
                    self.adapter[f"{stem}{part}.weight"] = rounded(
                        torch.randn(shape) * 0.2)
        self.value = {"score.weight": rounded(
            torch.randn(1, CONFIG["hidden_size"]) * 0.3)}

    def trained(self, value):
        blocks = self.adapter or self.base
        names = list(blocks) + (list(self.value) if value else [])
        return {n: {**blocks, **self.value}[n].clone().requires_grad_()
                for n in names}

    def run(self, trained, rows):
        """Padded logits and final hidden states of token lists."""
        longest = max(len(r) for r in rows)
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        for i, r in enumerate(rows):  # padding on the right: causal
            ids[i, :len(r)] = torch.tensor(r)
        weights = {n: trained.get(n, w) for n, w in self.base.items()}
        for name in self.adapter:
            if name.endswith("lora_A.weight"):
                stem = name[len("base_model.model."):-len("lora_A.weight")]
                b = trained[name.replace("lora_A", "lora_B")]
                weights[stem + "weight"] = weights[stem + "weight"] + \
                    LORA["alpha"] / LORA["r"] * b @ trained[name]
        out = functional_call(self.net, weights, (ids,), dict(
            output_hidden_states=True, use_cache=False))
        return out.logits, out.hidden_states[-1]


def sft(policy, w, samples, m):
    logits, _ = policy.run(w, [s["tokens"] for s in samples])
    total, count = 0.0, 0
    for i, s in enumerate(samples):
        n = len(s["tokens"])
        nll = F.cross_entropy(logits[i, :n - 1],
                              torch.tensor(s["tokens"][1:]), reduction="none")
        mask = torch.tensor(s["mask"][1:])
        total, count = total + (nll * mask).sum(), count + mask.sum().item()
    return total / count


def completion_sums(policy, w, pairs, side):
    logits, _ = policy.run(w, [p["prompt"] + p[side] for p in pairs])
    logp = F.log_softmax(logits, -1)
    return torch.stack([
        logp[i, len(p["prompt"]) - 1:len(p["prompt"]) + len(p[side]) - 1]
        .gather(1, torch.tensor(p[side])[:, None]).sum()
        for i, p in enumerate(pairs)])


def dpo(kind):
    def loss(policy, w, pairs, m):
        o = DPO[kind]
        up, down = (completion_sums(policy, w, pairs, side) - torch.tensor(
            [p["reference_" + side] for p in pairs])
            for side in ("chosen", "rejected"))
        h = up - down
        m["reward_chosen"] = (o["beta"] * up).mean().item()
        m["reward_rejected"] = (o["beta"] * down).mean().item()
        m["margin"] = (o["beta"] * h).mean().item()
        m["accuracy"] = (up > down).double().mean().item()
        if kind == "ipo":
            return ((h - 1 / (2 * o["beta"])) ** 2).mean()
        z, e = o["beta"] * h, o["label_smoothing"]
        return (-F.logsigmoid(z) * (1 - e) - F.logsigmoid(-z) * e).mean()
    return loss


def reward(policy, w, pairs, m):
    scores = []
    for side in ("chosen", "rejected"):
        rows = [p["prompt"] + p[side] for p in pairs]
        _, hidden = policy.run(w, rows)
        last = torch.stack([hidden[i, len(r) - 1] for i, r in enumerate(rows)])
        scores.append((last @ w["score.weight"].T)[:, 0])
    m["reward_chosen"], m["reward_rejected"] = (s.mean().item()
                                                for s in scores)
    m["margin"] = (scores[0] - scores[1]).mean().item()
    m["accuracy"] = (scores[0] > scores[1]).double().mean().item()
    return -F.logsigmoid(scores[0] - scores[1]).mean()


def completions(policy, w, rollouts, value):
    """[rollouts, longest] log-probs, entropies, values, mask."""
    logits, hidden = policy.run(
        w, [r["prompt"] + r["completion"] for r in rollouts])
    longest = max(len(r["completion"]) for r in rollouts)
    out = [[], [], []]
    mask = torch.zeros(len(rollouts), longest)
    for i, r in enumerate(rollouts):
        n, at = len(r["completion"]), len(r["prompt"]) - 1
        dist = torch.distributions.Categorical(logits=logits[i, at:at + n])
        rows = [dist.log_prob(torch.tensor(r["completion"])), dist.entropy()]
        rows.append((hidden[i, at:at + n] @ w["score.weight"].T)[:, 0]
                    if value else torch.zeros(n))
        for kept, row in zip(out, rows):
            kept.append(F.pad(row, (0, longest - n)))
        mask[i, :n] = 1
    return [torch.stack(rows) for rows in out] + [mask]


def references(rollouts, mask):
    ref = torch.zeros_like(mask)
    for i, r in enumerate(rollouts):
        ref[i, :len(r["reference"])] = torch.tensor(r["reference"])
    return ref


def mean(x, mask):
    return (x * mask).sum() / mask.sum()


def ratio_metrics(m, ratio, a, mask, low, high):
    """What both methods report of r = policy / old and the advantages."""
    on = mask.bool()
    r = ratio.detach()
    cut = (torch.clamp(r, 1 - low, 1 + high) * a < r * a).double()
    m["clip_fraction"] = mean(cut, mask).item()
    m["ratio_mean"] = mean(r, mask).item()
    m["ratio_min"], m["ratio_max"] = r[on].min().item(), r[on].max().item()
    m["policy_kl"] = mean(r - 1 - r.log(), mask).item()
    m["advantage_mean"] = mean(a, mask).item()
    m["advantage_std"] = a[on].std(unbiased=False).item()


def ppo_prepare(policy, w, rollouts):
    with torch.no_grad():
        old, _, values, mask = completions(policy, w, rollouts, True)
        ref = references(rollouts, mask)
        n, longest = mask.shape
        rewards = -PPO["kl_coef"] * (old - ref)
        for i, r in enumerate(rollouts):
            rewards[i, len(r["completion"]) - 1] += r["reward"]
        advantages = torch.zeros(n, longest)
        running = torch.zeros(n)
        for t in reversed(range(longest)):
            nxt = values[:, t + 1] * mask[:, t + 1] if t + 1 < longest else 0
            delta = rewards[:, t] + PPO["gamma"] * nxt - values[:, t]
            running = (delta + PPO["gamma"] * PPO["lam"] * running) * \
                mask[:, t]
            advantages[:, t] = running
        returns = advantages + values
        on = mask.bool()
        constant = {
            "kl": mean(old - ref, mask).item(),
            "value_mean": values[on].mean().item(),
            "return_mean": returns[on].mean().item(),
            "explained_variance": (1 - (returns - values)[on].var() /
                                   returns[on].var()).item()}
        spread = torch.sqrt(advantages[on].var() + 1e-8)
        white = (advantages - advantages[on].mean()) / spread * mask
    return dict(old=old, values=values, returns=returns, a=white,
                constant=constant)


def ppo(policy, w, rollouts, m, kept):
    logp, entropy, values, mask = completions(policy, w, rollouts, True)
    ratio, a, c = torch.exp(logp - kept["old"]), kept["a"], PPO["clip_range"]
    pg = mean(torch.max(-a * ratio, -a * torch.clamp(ratio, 1 - c, 1 + c)),
              mask)
    v = PPO["value_clip_range"]
    near = torch.clamp(values, kept["values"] - v, kept["values"] + v)
    free, held = ((x - kept["returns"]) ** 2 for x in (values, near))
    vf = 0.5 * mean(torch.max(free, held), mask)
    m.update(kept["constant"], policy_loss=pg.item(), value_loss=vf.item(),
             entropy=mean(entropy, mask).item(),
             value_clip_fraction=mean((held > free).double(), mask).item())
    ratio_metrics(m, ratio, a, mask, c, c)
    return pg + PPO["value_coef"] * vf - \
        PPO["entropy_coef"] * mean(entropy, mask)


def grpo_prepare(policy, w, rollouts):
    with torch.no_grad():
        old, _, _, mask = completions(policy, w, rollouts, False)
        groups = torch.tensor([r["reward"] for r in rollouts]).view(
            -1, GRPO["group_size"])
        a = (groups - groups.mean(1, keepdim=True)) / \
            (groups.std(1, keepdim=True) + 1e-4)
    return dict(old=old, a=a.view(-1, 1) * mask)


def grpo(policy, w, rollouts, m, kept):
    logp, entropy, _, mask = completions(policy, w, rollouts, False)
    d = references(rollouts, mask) - logp
    k3 = torch.exp(d) - d - 1
    ratio, a = torch.exp(logp - kept["old"]), kept["a"]
    low, high = GRPO["clip_range"], GRPO["clip_range_high"]
    gain = torch.min(ratio * a, torch.clamp(ratio, 1 - low, 1 + high) * a)

    def mean_of_means(x):
        return ((x * mask).sum(1) / mask.sum(1)).mean()
    m.update(policy_loss=-mean_of_means(gain).item(),
             kl=mean_of_means(k3).item(), entropy=mean(entropy, mask).item())
    ratio_metrics(m, ratio, a, mask, low, high)
    return mean_of_means(-gain + GRPO["beta"] * k3 -
                         GRPO["entropy_coef"] * entropy)


METHODS = {  # loss, data, what runs before the first step, a scalar head
    "sft": (sft, "samples", None, False),
    "dpo_sigmoid": (dpo("sigmoid"), "pairs", None, False),
    "dpo_ipo": (dpo("ipo"), "pairs", None, False),
    "reward": (reward, "pairs", None, True),
    "ppo": (ppo, "rollouts", ppo_prepare, True),
    "grpo": (grpo, "rollouts", grpo_prepare, False),
}


def rate(step):
    """Step from 0: warm-up from 0, then linear to the floor."""
    o = OPTIONS
    if step < o["warmup_steps"]:
        return o["learning_rate"] * step / o["warmup_steps"]
    part = (step - o["warmup_steps"]) / (o["total_steps"] - o["warmup_steps"])
    return o["min_learning_rate"] + (1 - part) * (
        o["learning_rate"] - o["min_learning_rate"])


def flat(tensors):
    return torch.cat([t.detach().reshape(-1) for t in tensors]).tolist()


def train(policy, name, data):
    """Metrics of each step; gradient of the first, parameters at the end."""
    loss_of, key, prepare, value = METHODS[name]
    w = policy.trained(value)
    kept = (prepare(policy, w, data[key]),) if prepare else ()
    groups = [{"params": [t for t in w.values() if t.dim() > 1],
               "weight_decay": OPTIONS["weight_decay"]},
              {"params": [t for t in w.values() if t.dim() == 1],
               "weight_decay": 0.0}]
    adamw = torch.optim.AdamW([g for g in groups if g["params"]],
                              betas=(OPTIONS["beta1"], OPTIONS["beta2"]),
                              eps=OPTIONS["eps"])
    record, first = [], None
    for step in range(STEPS):
        for g in adamw.param_groups:
            g["lr"] = rate(step)
        for t in w.values():  # a head that a loss leaves out has gradient 0
            t.grad = torch.zeros_like(t)
        m = {"learning_rate": rate(step)}
        loss = loss_of(policy, w, data[key], m, *kept)
        loss.backward()
        first = first or flat(t.grad for t in w.values())
        m["loss"] = loss.item()
        m["grad_norm"] = torch.nn.utils.clip_grad_norm_(
            w.values(), OPTIONS["max_grad_norm"]).item()
        adamw.step()
        record.append(m)
    return record, {f"{name}_gradient": first,
                    f"{name}_after": flat(w.values())}


def random_tokens(count):
    return torch.randint(0, CONFIG["vocab_size"], (count,)).tolist()


def data_make(policy):
    w = policy.trained(True)
    data = {"samples": [], "pairs": [], "rollouts": []}
    for length in (9, 30, 2, 17):
        mask = torch.randint(0, 2, (length,)).tolist()
        data["samples"].append({"tokens": random_tokens(length),
                                "mask": mask[:-1] + [1]})
    for lengths in ((5, 7, 3), (1, 2, 6), (12, 16, 1), (3, 4, 4)):
        prompt, chosen, rejected = (random_tokens(n) for n in lengths)
        data["pairs"].append({"prompt": prompt, "chosen": chosen,
                              "rejected": rejected})
    for side in ("chosen", "rejected"):
        sums = completion_sums(policy, w, data["pairs"], side)
        for p, s in zip(data["pairs"], sums.tolist()):
            p["reference_" + side] = s + torch.randn(()).item()
    for prompt in (random_tokens(4), random_tokens(1)):
        for length in (6, 1, 9):
            data["rollouts"].append({
                "prompt": prompt, "completion": random_tokens(length),
                "reward": torch.randn(()).item()})
    with torch.no_grad():
        logp, _, _, mask = completions(policy, w, data["rollouts"], False)
        near = logp + 0.3 * torch.randn(logp.shape)
        for i, r in enumerate(data["rollouts"]):
            r["reference"] = rounded(near[i, :len(r["completion"])]).tolist()
    return data


def write_case(name, lora, folder):
    torch.manual_seed(len(name))
    policy = Policy(lora)
    data = data_make(policy)
    blocks = {"params": flat(policy.base.values()),
              "value": flat(policy.value.values())}
    if lora:
        blocks["adapter"] = flat(policy.adapter.values())
    steps = {}
    for method in METHODS:
        steps[method], more = train(policy, method, data)
        blocks.update(more)
        assert all(math.isfinite(v) for m in steps[method]
                   for v in m.values())
    places, at = {}, 0
    with open(folder / f"{name}.f32", "wb") as out:
        for key, values in blocks.items():
            places[key] = {"offset": at, "count": len(values)}
            at += len(values)
            out.write(struct.pack(f"<{len(values)}f", *values))
    text = {"config": {"model_type": "llama", **CONFIG},
            "tensors": list(policy.base), "adapter": list(policy.adapter),
            "lora": LORA, "options": OPTIONS, "dpo": DPO, "ppo": PPO,
            "grpo": GRPO, "blocks": places, **data, "steps": steps}
    (folder / f"{name}.json").write_text(json.dumps(text) + "\n")


def main(folder):
    write_case("train_full", False, pathlib.Path(folder))
    write_case("train_lora", True, pathlib.Path(folder))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
