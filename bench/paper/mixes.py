# SPDX-License-Identifier: Apache-2.0
"""The paper's three workflow mixes, shrunk to CPU models of 2 and 8 million
parameters.

What stays: the stages and their order, two sizes of model, the proportions of
items and of tokens.  What shrinks: items and tokens to a fifth, models.
A workflow belongs to one of a few users.  Of its rows the first part is common
to all users, the rest its user's own; a training uses the common rows alone
with the probability of the same number, else it has its user's rows and seed.
"""
import random

MODELS = {
    "1B": {"hidden_size": 192, "intermediate_size": 576,
           "num_hidden_layers": 4, "num_attention_heads": 4,
           "max_position_embeddings": 256},
    "3B": {"hidden_size": 320, "intermediate_size": 960,
           "num_hidden_layers": 6, "num_attention_heads": 5,
           "max_position_embeddings": 256},
}
WORDS = ("mesh", "node", "grain", "delta", "river", "stone", "orbit", "cloud",
         "amber", "pixel", "quiet", "north", "ember", "field", "solar", "tide")
MIXES = {
    "inference_only": ["01_1", "01_2", "01_3", "02"],
    "post_train": ["01_1", "01_2", "01_3", "02", "03", "04", "05", "06"],
    "data_train": ["01_1", "01_2", "01_3", "02", "03_02", "05_02", "06_02"],
}


def model(size):
    return {"source": {"type": "random"}, "config": MODELS[size], "seed": 1}


def row(dataset, number):
    rng = random.Random("%s/%s" % (dataset, number))
    return " ".join(rng.choice(WORDS) for _ in range(6))


class Author:
    """Writes the stages of one workflow."""

    def __init__(self, user, serial, overlap, rng):
        self.user, self.overlap = user, overlap
        self.own = "user %d workflow %d" % (user, serial)
        self.common_training = rng.random() < overlap

    def rows(self, dataset, count, common=None):
        share = self.overlap if common is None else float(common)
        shared = round(count * share)
        return [row(dataset, i) if i < shared else
                row("%s of %s" % (dataset, self.own), i)
                for i in range(count)]

    def prompts(self, dataset, count):
        return {"type": "list", "items": self.rows(dataset, count)}

    def training(self, **more):
        seed = 0 if self.common_training else 1000 + self.user
        return {"learning_rate": 0.001, "batch_size": 4, "seed": seed, **more}

    def samples(self, dataset, count):
        rows = self.rows(dataset, count, self.common_training)
        return [{"prompt": text[:16], "response": text[16:]} for text in rows]

    def pairs(self, dataset, count):
        rows = self.rows(dataset, count, self.common_training)
        return [{"prompt": text[:16], "chosen": text[16:],
                 "rejected": text[16:][::-1]} for text in rows]


def infer(name, source, data, tokens, **more):
    return {"name": name, "spec": {
        "taskType": "inference", "model": source, "data": data,
        "inference": {"max_tokens": tokens, "temperature": 0}, **more}}


def three_sets(author, sizes):
    sets = (("gsm8k", 40, 51), ("truthfulqa", 30, 38), ("mmlu", 30, 32))
    return [infer(name, model(size), author.prompts(name, items), tokens)
            for (name, items, tokens), size in zip(sets, sizes)]


def drafts(author):
    def about(label, node):
        return {"type": "graph_template", "template": {
            "columns": [{"label": label, "node": node}],
            "options": {"intro": "Improve", "closing": "Answer:"}}}
    return [infer("draft", model("1B"), author.prompts("topics", 13), 51),
            infer("critique", model("1B"), about("draft", "draft"), 51),
            infer("rewrite", model("1B"), about("critique", "critique"), 51)]


def trained(node):
    return {"source": {"type": "node", "node": node}}


def sft(author):
    return [{"name": "sft", "spec": {
        "taskType": "sft", "model": model("1B"),
        "data": {"type": "list", "items": author.samples("alpaca", 40)},
        "training": author.training(num_train_epochs=1)}},
        infer("infer", trained("sft"), author.prompts("gsm8k", 40), 51)]


def lora(author):
    return [{"name": "lora", "spec": {
        "taskType": "lora_sft", "model": model("1B"),
        "lora": {"r": 16, "alpha": 32},
        "data": {"type": "list", "items": author.samples("alpaca", 40)},
        "training": author.training(num_train_epochs=1)}},
        infer("infer", trained("lora"), author.prompts("gsm8k", 40), 51)]


def dpo(author):
    return [{"name": "dpo", "spec": {
        "taskType": "dpo", "model": model("1B"),
        "data": {"type": "list", "items": author.pairs("hh", 51)},
        "training": author.training(num_train_epochs=1)}},
        infer("brief", trained("dpo"), author.prompts("briefs", 1), 51),
        infer("infer", trained("dpo"), author.prompts("gsm8k", 40), 51)]


def ppo_spec(author, data):
    return {"taskType": "ppo", "model": model("1B"), "data": data,
            "reward": {"type": "length", "unit": "characters", "target": 12},
            "generation": {"max_new_tokens": 12, "temperature": 1},
            "training": author.training(steps=2, batch_size=5, epochs=2)}


def ppo(author):
    rows = author.rows("imdb", 5, author.common_training)
    return [{"name": "ppo", "spec": ppo_spec(
        author, {"type": "list", "items": rows})},
        infer("notes", trained("ppo"), author.prompts("notes", 1), 51),
        infer("infer", trained("ppo"), author.prompts("gsm8k", 12), 51)]


def exported(author, fields):
    """Inference whose prompts and outputs become rows to train on."""
    return infer("teacher", model("1B"), author.prompts("gsm8k", 40), 51,
                 postprocess={"jsonl_export": {"path": "rows.jsonl",
                                               "fields": fields}})


ROWS = {"jsonl": {"node": "teacher"}}
PROMPT = {"from": "metadata", "key": "text"}


def data_sft(author):
    return [exported(author, {"prompt": {"from": "literal", "value": "say: "},
                              "response": {"from": "output"}}),
            {"name": "sft", "spec": {
                "taskType": "sft", "model": model("1B"), "data": ROWS,
                "training": author.training(num_train_epochs=1)}}]


def data_dpo(author):
    return [exported(author, {"prompt": {"from": "literal", "value": "say: "},
                              "chosen": {"from": "literal", "value": "mesh"},
                              "rejected": {"from": "output"}}),
            {"name": "dpo", "spec": {
                "taskType": "dpo", "model": model("1B"), "data": ROWS,
                "training": author.training(num_train_epochs=1)}}]


def data_ppo(author):
    return [exported(author, {"prompt": {"from": "output"}}),
            {"name": "ppo", "spec": ppo_spec(
                author, {"jsonl": {"node": "teacher"}, "max_samples": 5})}]


TEMPLATES = {
    "01_1": lambda a: three_sets(a, ("1B", "1B", "1B")),
    "01_2": lambda a: three_sets(a, ("3B", "3B", "3B")),
    "01_3": lambda a: three_sets(a, ("1B", "1B", "3B")),
    "02": drafts, "03": sft, "04": lora, "05": dpo, "06": ppo,
    "03_02": data_sft, "05_02": data_dpo, "06_02": data_ppo,
}


def workflows(mix, count, users, overlap, seed):
    """`count` workflows of `users` users, templates in seeded rounds: each
    comes as often as any other, give or take one."""
    rng = random.Random("%s/%d" % (mix, seed))
    bag, result = [], []
    for serial in range(count):
        if not bag:
            bag = rng.sample(MIXES[mix], len(MIXES[mix]))
        template = bag.pop()
        user = serial % users
        author = Author(user, serial, overlap, rng)
        name = "u%d-%d-%s" % (user, serial, template)
        result.append((name, {
            "apiVersion": "flowmesh/v1",
            "metadata": {"name": name, "owner": "user%d" % user},
            "spec": {"stages": TEMPLATES[template](author)}}))
    return result
