# SPDX-License-Identifier: Apache-2.0
"""Over MPI ranks: policies, tenants, and what `explain` says of operators that
were placed, wait, are held by a quota, or fit nowhere."""
import json
import signal

import harness

POLICIES = ["flowmesh", "static_worker", "fixed_pipeline", "round_robin",
            "adaptive"]
HEAD = "apiVersion: flowmesh/v1\nkind: Fabric\n"


class Explain(harness.Case):
    def setUp(self):
        super().setUp()
        self.trace = harness.Trace(self.path("trace"))
        self.fabric = self.path("fabric")

    def gate(self, name, after=()):
        """A command node that waits for the file `gate`."""
        return self.trace.node(name, after, "while [ ! -e '%s' ]; do "
                               "sleep 0.02; done" % self.path("gate"))

    def open_gate(self):
        self.write("gate", "")

    def wait_count(self, name, count=1):
        harness.wait_for(lambda: self.trace.counts().get(name, 0) >= count,
                         "%s started %d times" % (name, count))

    def left_out(self, names):
        """The one of these gates that has not started when the others have."""
        harness.wait_for(
            lambda: len(self.trace.counts()) == len(names) - 1,
            "all gates but one have started")
        return (set(names) - set(self.trace.counts())).pop()

    def explain(self, operator, *args, **more):
        return self.call("explain", operator, "--json", "--fabric",
                         self.fabric, *args, **more).json()

    def until(self, operator, text, *args):
        """Explanation of an operator that waits, once it says `text`."""
        def found():
            report = self.explain(operator, *args)
            now = report["now"] or {}
            return report if text in (now.get("why") or "") else None
        return harness.wait_for(found, "%s: %s" % (operator, text))

    # --- explain -----------------------------------------------------------

    def test_placed_waited_unfit(self):
        file = self.workflow("ex", [
            self.gate("gate0"), self.gate("gate1"), self.gate("gate2"),
            dict(self.trace.node("big"), spec=dict(
                self.trace.node("big")["spec"],
                resources={"hardware": {"gpu": {"memory": "4000Gi"}}})),
            self.trace.node("after", ["big"])])
        run = self.start("run", file, "--fabric", self.fabric, ranks=3)
        name = self.left_out(["gate0", "gate1", "gate2"])
        # beside the running fabric: from its journal
        late = self.until(name, "no idle worker")
        self.assertEqual(late["placements"], [])
        self.assertTrue(late["now"]["mend"])
        big = self.until("big", "no worker has enough device memory")
        self.assertIn("it needs 4000.00 GiB", big["now"]["why"])
        self.assertIn("resources.hardware", big["now"]["mend"])
        after = self.explain("after")
        self.assertIn("waits for the results of big", after["now"]["why"])
        self.open_gate()
        harness.wait_for(lambda: self.explain(name)["state"] == "done",
                         name + " is done")
        rank0 = [pid for pid in self.pids("flowmesh") if self.rank(pid) == 0]
        harness.kill(rank0[0], signal.SIGTERM)
        result = run.wait()
        self.assertIn("waits     w1/big: no worker has enough", result.err)
        # at rest
        late = self.explain(name + "[0]", "--run", "ex")
        self.assertEqual(late["item"], 0)
        self.assertIsNone(late["now"])
        self.assertEqual(late["placement_count"], 1)
        self.assertGreaterEqual(late["wait_count"], 1)
        self.check_placement(late["placements"][0], late["waits"][0])
        text = self.call("explain", name, "--fabric", self.fabric).out
        for part in ("waits: no idle worker", "placed on ", "T ", "V ", "U "):
            self.assertIn(part, text)
        text = self.call("explain", "big", "--fabric", self.fabric).out
        self.assertIn("now: no worker has enough device memory", text)
        self.assertIn("to mend: add a worker", text)

    def rank(self, pid):
        with open("/proc/%d/environ" % pid, "rb") as file:
            for entry in file.read().split(b"\0"):
                name, _, value = entry.partition(b"=")
                if name == b"OMPI_COMM_WORLD_RANK":
                    return int(value)
        return None

    def check_placement(self, placed, wait):
        self.assertGreater(placed["after_s"], wait["after_s"])
        self.assertGreaterEqual(placed["waited_s"], 1)
        self.assertEqual(placed["outcome"], "results")
        self.assertEqual(placed["policy"], "flowmesh")
        terms = placed["terms"]
        self.assertAlmostEqual(terms["total_s"], terms["wait_s"] +
                               terms["load_s"] + terms["fetch_s"] +
                               terms["run_s"], places=5)
        self.assertGreater(terms["age"], 1)
        for name in ("value", "survival", "utility", "gain", "loss", "share",
                     "priority", "deadline", "path", "lambda"):
            self.assertIn(name, terms)

    def test_runner_up(self):
        """What was not taken is named: another worker, or another size."""
        config = self.write("fabric.yaml", HEAD + "classes:\n"
                            "  - {name: dear, workers: w1, price_per_hour: 9}\n"
                            "  - {name: cheap, workers: w2, price_per_hour: 1}\n")
        file = self.workflow("two", [
            self.trace.node("first"), {"name": "next", "spec": {
                "taskType": "echo", "data": {"items": [1, 2, 3, 4]}},
                "dependsOn": ["first"]}])
        self.call("run", file, "--fabric", self.fabric, "--config", config,
                  ranks=3)
        report = self.explain("next")
        placed = report["placements"][0]
        others = placed["candidates"]
        self.assertGreaterEqual(placed["looked_at"], len(others))
        self.assertTrue(any(other["worker"] != placed["worker"]
                            for other in others), others)
        self.assertEqual(others, sorted(
            others, key=lambda one: -one["terms"]["utility"]))
        for other in others:
            self.assertNotEqual((other["worker"], other["items"]),
                                (placed["worker"], placed["batch_items"]))
            self.assertAlmostEqual(
                other["lost_by"],
                placed["terms"]["utility"] - other["terms"]["utility"],
                places=4)

    def test_quota_and_refusals(self):
        config = self.write("fabric.yaml", HEAD + "tenants:\n"
                            "  - {name: ada, devices_max: 1}\n"
                            "  - {name: bob, queued_max: 2}\n")
        file = self.workflow("held", [self.gate("gate1"), self.gate("gate2")],
                             tenant="ada")
        run = self.start("run", file, "--fabric", self.fabric, "--config",
                         config, ranks=3)
        name = self.left_out(["gate1", "gate2"])
        report = self.until(name, "ada has 1 devices at work, of 1")
        self.assertIn("tenants", report["now"]["mend"])
        self.open_gate()
        self.assertEqual(run.wait().status, 0)
        self.assertEqual(self.explain(name)["placement_count"], 1)
        many = self.workflow("many", [self.trace.node("n%d" % i)
                                      for i in range(3)], tenant="bob")
        refused = self.call("run", many, "--fabric", self.fabric, "--config",
                            config, ranks=3, status=2)
        self.assertIn("3 more were asked for: it may queue 2", refused.err)
        self.assertIn("queued_max in " + config, refused.err)
        for operator, text in (("nothing", "has a node nothing"),
                               ("gate1[7]", "has 1 items so far")):
            result = self.call("explain", operator, "--fabric", self.fabric,
                               status=2)
            self.assertIn(text, result.err)

    def test_queue_quota_holds_nodes_back(self):
        """Nodes whose items would be too many wait for others to settle."""
        config = self.write("fabric.yaml", HEAD +
                            "tenants: [{name: ada, queued_max: 7}]\n")
        nodes = [{"name": "n%d" % i, "spec": {
            "taskType": "echo", "data": {"items": [10 * i + k
                                                   for k in range(3)]}}}
                 for i in range(6)]
        file = self.workflow("queue", nodes, tenant="ada")
        report = self.run_json(file, self.fabric, "--config", config, ranks=2)
        self.assertEqual(report["operators"]["ran"], 18)
        wide = dict(nodes[0], spec={"taskType": "echo",
                                    "data": {"items": list(range(8))}})
        file = self.workflow("wide", [wide], tenant="ada")
        report = self.run_json(file, self.fabric, "--config", config, ranks=2,
                               status=1)
        self.assertIn("8 items are more than tenant ada may have queued",
                      report["nodes"][0]["error"])

    # --- policies ----------------------------------------------------------

    def example(self, name):
        return self.workflow(name, [
            {"name": "a", "spec": {"taskType": "echo",
                                   "data": {"items": ["x", "y", "z"]}}},
            {"name": "b", "spec": {"taskType": "echo",
                                   "data": {"items": ["x", "y", "w"]}}},
            {"name": "c", "dependsOn": ["a"], "spec": {
                "taskType": "python", "entrypoint": "main",
                "code": "def main(up):\n    return len(up)\n"}},
            {"name": "d", "dependsOn": ["b", "c"], "spec": {
                "taskType": "echo",
                "data": {"items": ["n ${c.items.0.output}"]}}}])

    def test_policies_agree(self):
        """The same results, shared by flowmesh alone, on the same ranks."""
        results = {}
        file = self.example("pol")
        for policy in POLICIES:
            fabric = self.path("fabric-" + policy)
            report = self.run_json(file, fabric, "--policy", policy, ranks=3)
            self.assertEqual(report["state"], "done")
            self.assertEqual(report["policy"], policy)
            self.assertEqual(report["operators"]["ran"],
                             6 if policy == "flowmesh" else 8)
            results[policy] = self.items("pol", fabric)
        for policy in POLICIES:
            self.assertEqual(results[policy], results["flowmesh"])
        refused = self.call("run", file, "--fabric", self.fabric, "--policy",
                            "fastest", status=2)
        self.assertIn("round_robin, adaptive", refused.err)

    def test_a_fabric_of_another_policy(self):
        """Keys are those of the policy that a workflow was submitted under."""
        file = self.example("pol")
        first = self.run_json(file, self.fabric, "--policy", "round_robin",
                              "--workers", 2)
        second = self.run_json(file, self.fabric, "--workers", 2)
        again = self.run_json(file, self.fabric, "--workers", 2)
        self.assertEqual(first["operators"]["ran"], 8)
        self.assertEqual(second["operators"]["ran"], 6)
        self.assertEqual(again["operators"]["ran"], 0)
        self.assertEqual(self.items("w1", self.fabric),
                         self.items("w2", self.fabric))
        miss = self.call("explain-miss", "w1/a/0", "w2/a/0", "--json",
                         "--fabric", self.fabric).json()
        self.assertFalse(miss["same"])
        self.assertEqual([row["path"] for row in miss["differences"]],
                         ["isolation"])

    def test_ablations(self):
        file = self.example("pol")
        report = self.run_json(file, self.fabric, "--without",
                               "batching,locality,consolidation,fair_share",
                               "--workers", 2)
        self.assertEqual(report["operators"]["ran"], 6)
        self.assertEqual(self.explain("a")["placement_count"], 3)
        again = self.run_json(file, self.fabric, "--without", "sharing",
                              "--workers", 2)
        self.assertEqual(again["operators"]["ran"], 6)  # nothing from w1

    # --- tenants -----------------------------------------------------------

    def tenants(self):
        return {one["tenant"]: one for one in self.call(
            "tenants", "--json", "--fabric", self.fabric).json()}

    def test_shares_and_accounts(self):
        """Weights 1 and 2 on one worker: of the first 30, a third and two
        thirds; a restart keeps the accounts."""
        config = self.write("fabric.yaml", HEAD + "tenants:\n"
                            "  - {name: ada, weight: 1}\n"
                            "  - {name: bob, weight: 2}\n")
        gate = self.gate("gate")  # the same work: both wait for one run of it
        pause = "sleep 0.02"
        ada = self.workflow("ada", [gate] + [
            self.trace.node("ada%d" % i, ["gate"], pause)
            for i in range(40)], tenant="ada")
        bob = self.workflow("bob", [gate] + [
            self.trace.node("bob%d" % i, ["gate"], pause)
            for i in range(40)], tenant="bob")
        run = self.start("run", ada, "--fabric", self.fabric, "--config",
                         config, ranks=2)
        self.wait_count("gate")
        rank0 = [pid for pid in self.pids("flowmesh") if self.rank(pid) == 0]
        harness.kill(rank0[0], signal.SIGTERM)
        run.wait()
        run = self.start("run", bob, "--fabric", self.fabric, "--config",
                         config, "--json", ranks=2)
        self.wait_count("gate", 2)
        self.open_gate()
        report = json.loads(run.wait().out)
        order = [name for name in harness._read(self.trace.path).decode()
                 .split() if name != "gate"]
        bobs = sum(name.startswith("bob") for name in order[:30])
        self.assertTrue(17 <= bobs <= 23, "%d of 30: %s" % (bobs, order))
        kept = self.tenants()
        account = report["account"]
        self.assertEqual(account["tenant"], "bob")
        self.assertEqual(account["weight"], 2)
        self.assertEqual(account["ran"] + account["shared"], 41)
        for name in ("device_seconds", "dollars", "joules"):
            self.assertGreater(account[name], 0)
            self.assertAlmostEqual(kept["bob"][name] / account[name], 1,
                                   places=6)
        self.assertEqual(kept["bob"]["ran"], account["ran"])
        run = self.run_json(ada, self.fabric, "--config", config, ranks=2)
        self.assertEqual(run["account"]["ran"] + run["account"]["shared"], 41)
        self.assertAlmostEqual(self.tenants()["bob"]["dollars"] /
                               account["dollars"], 1, places=6)


if __name__ == "__main__":
    harness.main()
