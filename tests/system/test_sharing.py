# SPDX-License-Identifier: Apache-2.0
"""The same work runs once: across runs, users, nodes and items."""
import os

import harness


def echo(items):
    return {"taskType": "echo", "data": {"type": "list", "items": items}}


class Sharing(harness.Case):
    def setUp(self):
        super().setUp()
        self.trace = harness.Trace(self.path("trace"))
        self.fabric = self.path("fabric")

    def check_node(self, report, name, **expected):
        node = harness.nodes_of(report)[name]
        self.assertEqual({key: node[key] for key in expected}, expected, name)

    def test_second_run_runs_nothing(self):
        file = self.workflow("twice", [
            {"name": "items", "spec": echo(list(range(50)))},
            self.trace.node("one", ["items"]),
            self.trace.node("two", ["one"])])
        first = self.run_json(file, self.fabric)
        self.assertEqual(first["operators"]["planned"], 52)
        self.assertEqual(first["operators"]["ran"], 52)
        self.assertEqual(first["operators"]["shared"], 0)
        second = self.run_json(file, self.fabric)
        self.assertEqual(second["operators"]["planned"], 52)
        self.assertEqual(second["operators"]["ran"], 0)
        self.assertEqual(second["operators"]["shared"], 52)
        self.assertNotEqual(first["workflow"], second["workflow"])
        self.assertEqual(self.trace.counts(), {"one": 1, "two": 1})
        self.assertEqual(self.items(first["workflow"], self.fabric),
                         self.items(second["workflow"], self.fabric))

    def test_other_user_shares_the_overlap(self):
        alice = self.workflow("alices", [
            {"name": "a", "spec": echo(list(range(0, 60)))},
            self.trace.node("work")], owner="alice")
        bob_work = self.trace.node("work")
        bob_work["name"] = "mine"
        bob = self.workflow("bobs", [
            {"name": "b", "spec": echo(list(range(40, 100)))},
            bob_work, self.trace.node("new", ["mine"])], owner="bob")
        self.run_json(alice, self.fabric)
        report = self.run_json(bob, self.fabric)
        self.check_node(report, "b", items=60, ran=40, shared=20)
        self.check_node(report, "mine", items=1, ran=0, shared=1)
        self.check_node(report, "new", items=1, ran=1, shared=0)
        self.assertEqual(self.trace.counts(), {"work": 1, "new": 1})
        self.assertEqual(self.items("bobs/b", self.fabric)["b"],
                         list(range(40, 100)))

    def test_two_users_at_once(self):
        """Several files in one run: shared while both run, each user's own
        report, and one that is refused refuses all."""
        files = []
        for user, first in (("alice", 0), ("bob", 40)):
            files.append(self.workflow(user + "s", [
                {"name": "a", "spec": echo(list(range(first, first + 60)))},
                self.trace.node("work", [], "sleep 0.2")], owner=user))
        result = self.call("run", *files, "--fabric", self.fabric, "--json")
        report = result.json()
        self.assertEqual([w["name"] for w in report["workflows"]],
                         ["alices", "bobs"])
        for workflow in report["workflows"]:
            self.assertEqual(workflow["state"], "done")
            self.assertLessEqual(workflow["seconds"], report["seconds"])
        self.assertEqual(sum(w["operators"]["ran"]
                             for w in report["workflows"]), 101)
        self.assertEqual(self.trace.counts(), {"work": 1})
        for name, first in (("alices/a", 0), ("bobs/a", 40)):
            self.assertEqual(self.items(name, self.fabric)["a"],
                             list(range(first, first + 60)))
        bad = self.write("bad.yaml", "kind: [\n")
        other = self.path("other")
        self.call("run", files[0], bad, "--fabric", other, status=2)
        self.assertFalse(os.path.exists(other))

    def test_equal_items_within_a_workflow(self):
        twin = self.trace.node("same", [], "sleep 0.2")
        other = dict(twin, name="other")
        file = self.workflow("inside", [
            {"name": "x", "spec": echo([1, 2, 3, 3, 2, 1, 1])},
            {"name": "y", "spec": echo([3, 4])}, twin, other])
        report = self.run_json(file, self.fabric)
        ran = harness.nodes_of(report)
        # who leads is free, how often each distinct item runs is not
        self.assertEqual(ran["x"]["ran"] + ran["y"]["ran"], 4)
        self.assertEqual(ran["x"]["shared"] + ran["y"]["shared"], 5)
        self.assertEqual(ran["same"]["ran"] + ran["other"]["ran"], 1)
        self.assertEqual(ran["same"]["shared"] + ran["other"]["shared"], 1)
        self.assertEqual(self.trace.counts(), {"same": 1})
        self.assertEqual(self.items("inside", self.fabric)["x"],
                         [1, 2, 3, 3, 2, 1, 1])

    def test_what_differs_is_not_shared(self):
        nodes = [{"name": "a", "spec": echo([1, "1", 1.5, {"k": 1}, [1]])}]
        report = self.run_json(self.workflow("differ", nodes), self.fabric)
        self.check_node(report, "a", items=5, ran=5, shared=0)
        seeded = {"taskType": "command", "command": ["echo", "x"]}
        report = self.run_json(self.workflow("seeds", [
            {"name": "s1", "spec": dict(seeded, seed=1)},
            {"name": "s2", "spec": dict(seeded, seed=2)},
            {"name": "e", "spec": dict(seeded, seed=1, env={"V": "1"})}]),
            self.fabric)
        self.assertEqual(report["operators"]["ran"], 3)

    def test_lineage_names_all_sharers(self):
        for name in ("first", "second", "third"):
            file = self.workflow(name, [
                {"name": "n_" + name, "spec": echo(["common", name])},
            ], owner=name)
            self.run_json(file, self.fabric)
        lineage = self.call("lineage", "second/n_second/0", "--fabric",
                            self.fabric).json()
        self.assertEqual(sorted(lineage["shared_by"]),
                         ["w1/n_first/0", "w2/n_second/0", "w3/n_third/0"])
        self.assertEqual(lineage["shared_count"], 3)
        self.assertTrue(lineage["shared"])
        self.assertEqual(lineage["operator"], "echo")
        self.assertEqual(lineage["value"], {"value": "common"})
        self.assertTrue(lineage["execution"]["worker"])
        alone = self.call("lineage", "second/n_second/1", "--fabric",
                          self.fabric).json()
        self.assertEqual(alone["shared_by"], ["w2/n_second/1"])
        self.assertFalse(alone["shared"])
        both = self.call("lineage", "w2/n_second", "--fabric",
                         self.fabric).json()
        self.assertEqual(both, [lineage, alone])

    def test_explain_miss_names_what_differs(self):
        seeded = {"taskType": "command", "command": ["echo", "x"]}
        self.run_json(self.workflow("pair", [
            {"name": "s1", "spec": dict(seeded, seed=1)},
            {"name": "s2", "spec": dict(seeded, seed=2)},
            {"name": "twin", "spec": dict(seeded, seed=1)},
            {"name": "long", "spec": echo(["y" * 70000, "x" * 70000])}]),
            self.fabric)

        def miss(a, b):
            return self.call("explain-miss", a, b, "--json", "--fabric",
                             self.fabric).json()

        self.assertEqual(miss("pair/s1", "pair/s2")["differences"],
                         [{"path": "params.seed", "a": 1, "b": 2}])
        self.assertTrue(miss("pair/s1", "pair/twin/0")["same"])
        # values that live in the store are compared by what they hold
        self.assertEqual([row["path"] for row in miss(
            "pair/long/0", "pair/long/1")["differences"]], ["value.value"])
        self.assertIn("params.seed", self.call(
            "explain-miss", "pair/s1", "pair/s2", "--fabric", self.fabric).out)


if __name__ == "__main__":
    harness.main()
