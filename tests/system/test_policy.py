# SPDX-License-Identifier: Apache-2.0
"""Policies: unrolled into operators, which trials share and run together."""
import json

import harness

CONFIG = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
          "num_attention_heads": 2, "max_position_embeddings": 64}
BASE = {"name": "base", "spec": {
    "taskType": "sft",
    "model": {"source": {"type": "random"}, "config": CONFIG},
    "data": {"items": ["one two three", "four five six"]},
    "training": {"steps": 2, "batch_size": 2}}}


def policy(task, **keys):
    """A node `rl` over the model of `base`."""
    spec = {"taskType": task,
            "model": {"source": {"type": "node", "node": "base"}},
            "data": {"prompts": ["one", "two", "three"]},
            "generation": {"max_new_tokens": 6}}
    return {"name": "rl", "dependsOn": ["base"], "spec": dict(spec, **keys)}


class Policy(harness.Case):
    def setUp(self):
        super().setUp()
        self.fabric = self.path("fabric")

    def run_sweep(self, nodes, matrix):
        document = {"apiVersion": "flowmesh/v1", "metadata": {"name": "rl"},
                    "spec": {"seed": 7, "graph": {"nodes": nodes}}}
        if matrix:
            document["spec"]["sweep"] = {"matrix": matrix}
        file = self.write("rl.yaml", json.dumps(document))
        return self.run_json(file, self.fabric, "--workers", 1)

    def lineage(self, node):
        found = self.call("lineage", "rl/" + node, "--fabric",
                          self.fabric).json()
        return found if isinstance(found, list) else [found]

    def output(self, node):
        items = self.items("rl/" + node, self.fabric)[node]
        self.assertEqual(len(items), 1)
        return items[0]

    def test_grpo_of_several_seeds(self):
        seeds = [1, 2, 3, 4]
        rl = policy("grpo", lora={"r": 2},
                    reward=[{"type": "length", "max_tokens": 2},
                            {"type": "regex", "pattern": "[a-m]",
                             "weight": 0.5}],
                    training={"steps": 2, "batch_size": 2, "group_size": 2,
                              "learning_rate": 0.01})
        report = self.run_sweep([BASE, rl], {"rl.training.seed": seeds})
        self.assertEqual(report["state"], "done")
        base = self.output("base")
        adapters = set()
        leases = set()
        parts = [part + str(iteration) for iteration in (1, 2)
                 for part in ("rollout.", "reference.", "reward.")]
        parts = [part + which for part in parts
                 for which in ((".1", ".2") if "reward" in part else ("",))]
        for seed in seeds:
            name = "rl@seed=%d" % seed
            output = self.output(name)
            # training an adapter leaves its base alone
            self.assertEqual(output["model"], base["model"])
            self.assertEqual(output["metrics"]["iteration"], 2)
            adapters.add(output["adapter"])
            for part in parts:
                items = self.lineage(name + "/" + part)
                self.assertEqual(len(items), 2 if "rollout" in part else 4)
                leases.update(item["execution"]["lease"] for item in items)
            update = self.lineage(name + "/update.1")[0]
            self.assertIn("w1/%s/reward.1.2" % name, update["upstream"])
        self.assertEqual(len(adapters), len(seeds))
        # what became ready together in different trials ran in one batch
        self.assertLess(len(leases), len(seeds) * len(parts))

    def test_equal_rollouts_run_once(self):
        rl = policy("grpo", reward={"type": "length", "target": 3},
                    training={"steps": 1, "batch_size": 3, "group_size": 2})
        report = self.run_sweep(
            [BASE, rl], {"rl.training.learning_rate": [0.1, 0.2, 0.3]})
        keys = [sorted(item["key"] for item in self.lineage(
            "rl@learning_rate=%s/rollout.1" % rate))
                for rate in ("0.1", "0.2", "0.3")]
        self.assertEqual(keys[0], keys[1])
        self.assertEqual(keys[0], keys[2])
        # base; 3 rollouts, and at most 6 rewards and 6 reference
        # log-probabilities, for all; an update each
        self.assertLessEqual(report["operators"]["ran"], 1 + 3 + 12 + 3)
        self.assertEqual(report["operators"]["planned"], 1 + 3 * (3 + 12 + 1))

    def test_ppo_with_a_reward_model(self):
        judge = {"name": "judge", "dependsOn": ["base"], "spec": {
            "taskType": "reward_model",
            "model": {"source": {"type": "node", "node": "base"}},
            "data": {"preferences": [
                {"prompt": "one", "chosen": "two", "rejected": "zz"}]},
            "training": {"steps": 2, "batch_size": 1}}}
        rl = policy("ppo", reward_model={"identifier": "judge",
                                         "type": "node"},
                    training={"steps": 2, "batch_size": 2, "ppo_epochs": 2,
                              "learning_rate": 0.01, "save_freq": 10})
        rl["dependsOn"] = ["base", "judge"]
        first = self.run_sweep([BASE, judge, rl], None)
        self.assertEqual(first["state"], "done")
        output = self.output("rl")
        self.assertNotEqual(output["model"], self.output("base")["model"])
        self.assertNotIn("adapter", output)
        score = self.lineage("rl/reward.2")[0]
        self.assertEqual(score["operator"], "score")
        # the second update starts from the first one's state
        self.assertIn("w1/rl/update.1", self.lineage("rl")[0]["upstream"])
        second = self.run_sweep([BASE, judge, rl], None)
        self.assertEqual(second["operators"]["ran"], 0)
        self.assertEqual(self.output("rl"), output)


if __name__ == "__main__":
    harness.main()
