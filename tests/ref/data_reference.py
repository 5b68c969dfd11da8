#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write what data operators and rewards should say, computed elsewhere.

usage: data_reference.py OUTPUT_DIR   (needs numpy, jsonschema, datasketch, h5py)

Near duplicates by comparing every pair of shingle sets, the banding by
datasketch, figures by numpy, schemas by jsonschema, pass@k by counting every
choice of k samples; HDF5 tables by h5py.  tests/unit/test_ops_data.c and
test_ops_reward.c read the files, so the tests need no Python.
"""
import itertools
import json
import pathlib
import random
import sys

import datasketch.lsh
import h5py
import jsonschema
import numpy as np


def shingles(text, n):
    words = text.lower().split()
    n = min(n, len(words))
    return {" ".join(words[i:i + n]) for i in range(len(words) - n + 1)} \
        if words else set()


def jaccard(a, b):
    return len(a & b) / len(a | b) if a | b else 1.0


def near_duplicates(rng, threshold=0.7, n=3):
    vocabulary = [f"w{i}" for i in range(400)]
    texts = []
    for _ in range(40):
        base = rng.choices(vocabulary, k=rng.randint(40, 90))
        texts.append(" ".join(base))
        for _ in range(rng.randint(0, 3)):
            changed = list(base)
            for _ in range(rng.choice([0, 1, 20])):
                changed[rng.randrange(len(changed))] = rng.choice(vocabulary)
            if rng.random() < 0.5:
                changed[0] = changed[0].upper()
            texts.append("  ".join(changed))
    texts += ["", "lone", "Lone", " "]
    rng.shuffle(texts)
    sets = [shingles(t, n) for t in texts]
    kept, clusters = [], {}
    for i, s in enumerate(sets):
        for k in kept:
            share = jaccard(s, sets[k])
            assert not 0.6 < share < 0.8, share   # no luck is involved
            if share >= threshold:
                clusters.setdefault(k, []).append([i, share])
                break
        else:
            kept.append(i)
    return {"threshold": threshold, "ngram": n, "texts": texts, "kept": kept,
            "clusters": [[k, v] for k, v in clusters.items()]}


def banding():
    return [[t, p, *datasketch.lsh._optimal_param(t, p, 0.5, 0.5)]
            for t in (0.5, 0.7, 0.8, 0.9) for p in (64, 128, 256)]


def figures(rng):
    values = [round(rng.gauss(3, 10), 6) for _ in range(201)] + [1e6, -7]
    at = [0, 0.01, 0.1, 0.25, 0.5, 0.9, 0.99, 1]
    return {"values": values, "at": at,
            "quantiles": [float(np.quantile(values, q)) for q in at],
            "mean": float(np.mean(values)),
            "std": float(np.std(values, ddof=1))}


def pass_at_k():
    rows = []
    for n, c, k in [(1, 0, 1), (1, 1, 1), (5, 2, 1), (5, 2, 3), (8, 1, 4),
                    (8, 6, 3), (10, 3, 10)]:
        marks = [i < c for i in range(n)]
        choices = list(itertools.combinations(marks, k))
        rows.append([n, c, k, sum(map(any, choices)) / len(choices)])
    return rows


def schema(rng, depth=0):
    kind = rng.choice(["type", "number", "text", "list", "map", "values",
                       "logic"] if depth < 3 else ["type", "number", "text"])
    inner = lambda: schema(rng, depth + 1)
    if kind == "type":
        return {"type": rng.choice(["integer", "number", "string", "null",
                                    "boolean", "array", "object",
                                    ["string", "integer"]])}
    if kind == "number":
        return rng.choice([{"minimum": 1}, {"maximum": 2.5},
                           {"exclusiveMinimum": 1}, {"multipleOf": 0.5},
                           {"exclusiveMaximum": 2}, {"multipleOf": 2}])
    if kind == "text":
        return rng.choice([{"minLength": 2}, {"maxLength": 1},
                           {"pattern": "^a"}, {"pattern": "b$"}])
    if kind == "list":
        return rng.choice([
            {"items": inner()}, {"minItems": 1}, {"maxItems": 1},
            {"uniqueItems": True}, {"contains": inner()},
            {"prefixItems": [inner()], "items": inner()}])
    if kind == "map":
        return rng.choice([
            {"properties": {"a": inner(), "b": inner()}, "required": ["a"]},
            {"properties": {"a": inner()}, "additionalProperties": False},
            {"patternProperties": {"^a": inner()},
             "additionalProperties": inner()},
            {"minProperties": 1}, {"maxProperties": 1}])
    if kind == "values":
        return rng.choice([{"enum": [1, "ab", None, [1]]}, {"const": 1.0},
                           {"const": {"a": 1}}])
    return rng.choice([{"allOf": [inner(), inner()]},
                       {"anyOf": [inner(), inner()]},
                       {"oneOf": [inner(), inner()]}, {"not": inner()},
                       {"if": inner(), "then": inner(), "else": inner()}])


VALUES = [None, True, 0, 1, 1.0, 2, 2.5, 7, "", "a", "ab", "\u00e9\u00e9", [],
          [1], [1, 1.0], [1, "ab"], [[1], None], {}, {"a": 1}, {"a": "ab"},
          {"b": 2}, {"a": 1, "b": None}, {"a": [1], "c": {}}]


def schemas(rng):
    cases = []
    for _ in range(150):
        s = schema(rng)
        validator = jsonschema.Draft202012Validator(s)
        cases.append([s, "".join("1" if validator.is_valid(v) else "0"
                                 for v in VALUES)])
    return {"values": VALUES, "cases": cases}


def tables(out):
    """One file with a compound table, and one with columns in a group."""
    with h5py.File(out / "table.h5", "w", libver=("earliest", "v110")) as f:
        text = h5py.string_dtype()
        colour = h5py.enum_dtype({"RED": 0, "GREEN": 1}, basetype="u1")
        row = np.dtype([("id", ">i4"), ("big", "<u8"), ("score", "<f8"),
                        ("half", "<f2"), ("name", text), ("code", "S4"),
                        ("flag", "?"), ("colour", colour)])
        data = np.zeros(3, dtype=row)
        data["id"] = [1, -2, 3]
        data["big"] = [0, 5, 2**63 - 1]
        data["score"] = [0.5, -1e300, 3]
        data["half"] = [1.5, 2, -0.25]
        data["name"] = ["one", "zw\u00f6lf", ""]
        data["code"] = [b"ab", b"abcd", b""]
        data["flag"] = [True, False, True]
        data["colour"] = [0, 1, 0]
        f.create_dataset("t/rows", data=data, chunks=(2,), compression="gzip")
        g = f.create_group("t/columns")
        g.create_dataset("a", data=np.arange(4, dtype="i2"))
        g.create_dataset("b", data=["x", "y", "z", "w"], dtype=text)
        bad = f.create_group("bad")
        bad.create_dataset("a", data=np.arange(4))
        bad.create_dataset("b", data=np.arange(3))
        f.create_dataset("grid", data=np.zeros((2, 2)))
        f.create_dataset("nan", data=np.array([1.0, np.nan]))
        f.create_dataset("plain", data=np.array([3, 4], dtype="u2"))
        f.create_dataset("over", data=np.array([2**64 - 1], dtype="u8"))


def elsewhere(out):
    """Datasets that lead out of their file: not one of them may be read."""
    with h5py.File(out / "table_links.h5", "w", libver=("earliest", "v110")) as f:
        f["link"] = h5py.ExternalLink("table.h5", "/plain")
        f.create_group("group")["link"] = h5py.ExternalLink("table.h5",
                                                            "/plain")
        f.create_dataset("outside", (4,), dtype="u1",
                         external=[("table.h5", 0, 4)])
        layout = h5py.VirtualLayout(shape=(2,), dtype="u2")
        layout[:] = h5py.VirtualSource("table.h5", "plain", shape=(2,))
        f.create_virtual_dataset("virtual", layout)
        f["soft"] = h5py.SoftLink("/group")
        f.create_dataset("loop/a", data=np.arange(2))
        f["loop/self"] = f["loop"]


def main(directory):
    out = pathlib.Path(directory)
    rng = random.Random(20260101)
    reference = {"near": near_duplicates(rng), "banding": banding(),
                 "figures": figures(rng), "pass_at_k": pass_at_k(),
                 "schemas": schemas(rng)}
    (out / "data_operators.json").write_text(
        json.dumps(reference, indent=None, separators=(",", ":")) + "\n")
    tables(out)
    elsewhere(out)


if __name__ == "__main__":
    main(sys.argv[1])
