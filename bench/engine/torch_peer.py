#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The same work as bench_engine, by PyTorch on one CPU thread.

Prints a line with its version, then answers every line of standard input, a
JSON object with the shape and a "task" (sft, dpo, decode or embed), with one line:
the tokens per CPU second of one step.  Exits 77 without PyTorch.
"""
import json
import os
import sys
import time

# Before PyTorch loads its BLAS, which set_num_threads() does not reach.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

try:
    import torch
    import torch.nn as nn
    import torch.nn.functional as F
except ImportError as reason:
    print(reason, file=sys.stderr)
    sys.exit(77)


class Norm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(
            x.pow(2).mean(-1, keepdim=True) + 1e-6))


def rotate(x, turn):
    """x [B, heads, T, dim]; turn = (cos, sin) [T, dim]."""
    a, b = x.chunk(2, -1)
    return x * turn[0] + torch.cat((-b, a), -1) * turn[1]


class Layer(nn.Module):
    def __init__(self, s):
        super().__init__()
        h, i = s["hidden_size"], s["intermediate_size"]
        self.heads = s["num_attention_heads"]
        self.kvs = s["num_key_value_heads"]
        self.dim = h // self.heads
        self.norm1, self.norm2 = Norm(h), Norm(h)
        self.qkv = nn.Linear(h, (self.heads + 2 * self.kvs) * self.dim,
                             bias=False)
        self.o = nn.Linear(h, h, bias=False)
        self.gate_up = nn.Linear(h, 2 * i, bias=False)
        self.down = nn.Linear(i, h, bias=False)

    def forward(self, x, turn, mask, cache=None):
        b, t, h = x.shape
        qkv = self.qkv(self.norm1(x)).view(b, t, -1, self.dim).transpose(1, 2)
        q, k, v = qkv.split((self.heads, self.kvs, self.kvs), 1)
        q, k = rotate(q, turn), rotate(k, turn)
        if cache is not None:
            if cache:
                k = torch.cat((cache[0], k), 2)
                v = torch.cat((cache[1], v), 2)
            cache[:] = [k, v]
        if self.kvs != self.heads:
            k = k.repeat_interleave(self.heads // self.kvs, 1)
            v = v.repeat_interleave(self.heads // self.kvs, 1)
        s = q @ k.transpose(-1, -2) * self.dim ** -0.5
        if mask is not None:
            s = s + mask
        y = (torch.softmax(s, -1) @ v).transpose(1, 2).reshape(b, t, h)
        x = x + self.o(y)
        gate, up = self.gate_up(self.norm2(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


class Model(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.embed = nn.Embedding(s["vocab_size"], s["hidden_size"])
        self.layers = nn.ModuleList(
            Layer(s) for _ in range(s["num_hidden_layers"]))
        self.norm = Norm(s["hidden_size"])
        self.head = nn.Linear(s["hidden_size"], s["vocab_size"], bias=False)
        half = s["hidden_size"] // s["num_attention_heads"] // 2
        rate = 10000.0 ** (-torch.arange(half) / half)
        angle = torch.arange(s["max_position_embeddings"])[:, None] * rate
        self.cos = torch.cat((angle.cos(), angle.cos()), -1)
        self.sin = torch.cat((angle.sin(), angle.sin()), -1)

    def forward(self, tokens, caches=None, begin=0):
        return self.head(self.states(tokens, caches, begin))

    def states(self, tokens, caches=None, begin=0):
        t = tokens.shape[1]
        turn = (self.cos[begin:begin + t], self.sin[begin:begin + t])
        mask = torch.full((t, t), -torch.inf).triu(1) if t > 1 else None
        x = self.embed(tokens)
        for i, layer in enumerate(self.layers):
            x = layer(x, turn, mask, caches[i] if caches else None)
        return self.norm(x)


class Bench:
    """A model of one shape, its optimiser and its data."""

    def __init__(self, s):
        self.s = s
        self.model = Model(s)
        self.adamw = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self.data = torch.randint(0, s["vocab_size"], (s["batch"], s["seq"]))

    def step(self, loss):
        self.adamw.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.adamw.step()

    def sft(self):
        logits = self.model(self.data)[:, :-1]
        self.step(F.cross_entropy(logits.reshape(-1, self.s["vocab_size"]),
                                  self.data[:, 1:].reshape(-1)))
        return self.data.numel()

    def dpo(self):
        """Even rows are chosen, odd ones rejected; the reference is 0."""
        first = self.s["prompt"] - 1
        logits = self.model(self.data)[:, first:-1]
        logp = torch.log_softmax(logits, -1).gather(
            -1, self.data[:, first + 1:, None]).sum((1, 2))
        self.step(-F.logsigmoid(0.1 * (logp[0::2] - logp[1::2])).mean())
        return self.data.numel()

    @torch.no_grad()
    def embed(self):
        F.normalize(self.model.states(self.data).mean(1), dim=-1)
        return self.data.numel()

    @torch.no_grad()
    def decode(self):
        fresh = self.s["seq"] - self.s["prompt"]
        caches = [[] for _ in self.model.layers]
        prompt = self.data[:, :self.s["prompt"]]
        tokens = self.model(prompt, caches)[:, -1:].argmax(-1)
        for i in range(fresh - 1):
            tokens = self.model(tokens, caches,
                                self.s["prompt"] + i).argmax(-1)
        return self.s["batch"] * fresh


def main():
    torch.manual_seed(1)
    torch.set_num_threads(1)
    print(torch.__version__, flush=True)
    benches = {}
    for line in sys.stdin:
        shape = json.loads(line)
        task = shape.pop("task")
        key = json.dumps(shape)
        if key not in benches:
            benches[key] = Bench(shape)
        start = time.process_time()
        tokens = getattr(benches[key], task)()
        print(tokens / (time.process_time() - start), flush=True)


if __name__ == "__main__":
    main()
