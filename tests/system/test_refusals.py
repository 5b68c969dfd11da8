# SPDX-License-Identifier: Apache-2.0
"""Bad input and usage, the shape of the report, reading while a run is live."""
import os
import re
import shutil
import subprocess

import harness

COMMANDS = ["run", "join", "validate", "result", "lineage", "explain",
            "explain-miss", "tenants", "devices", "slurm-template", "sim",
            "cas stat", "cas ls", "cas get", "cas verify", "model import",
            "model export", "model ls", "model show", "model rm"]
ECHO = {"taskType": "echo", "data": {"type": "list", "items": [1, 2]}}


class Refusals(harness.Case):
    def setUp(self):
        super().setUp()
        self.fabric = self.path("fabric")

    def refused(self, *args, status=2, match, **more):
        result = self.call(*args, status=status, **more)
        self.assertRegex(result.err, match)
        self.assertEqual(result.out, "")
        return result

    def test_bad_workflows(self):
        head = "apiVersion: flowmesh/v1\nkind: W\nspec:\n"
        cases = [
            ("tab.yaml", head + "  taskType: echo\n\tdata: 1\n", 5),
            ("key.yaml", head + "  taskType: echo\n  dat: {items: [1]}\n", 5),
            ("task.yaml", head + "  taskType: eco\n", 4),
            ("twice.yaml", head + "  taskType: echo\n  taskType: echo\n", 5),
            ("cycle.yaml", head + "  graph:\n    nodes:\n"
             "    - {name: a, dependsOn: b, spec: {taskType: echo,"
             " data: {items: [1]}}}\n"
             "    - {name: b, dependsOn: a, spec: {taskType: echo,"
             " data: {items: [1]}}}\n", None),
            ("empty.yaml", "", None),
            ("nul.yaml", head + "  taskType: \0\n", None),
        ]
        for name, text, line in cases:
            with self.subTest(name):
                file = self.write(name, text)
                where = re.escape(file) + ":%s:\\d+: ." % (
                    line if line else "\\d+")
                for command in (["validate"], ["run", "--fabric",
                                               self.fabric]):
                    self.refused(*command, file, match=where)
                self.assertFalse(os.path.exists(self.fabric))

    def test_bad_workflow_under_mpi(self):
        file = self.write("bad.yaml", "apiVersion: flowmesh/v1\nspec: 1\n")
        result = self.call("run", file, "--fabric", self.fabric, ranks=3,
                           status=2)
        self.assertRegex(result.err, re.escape(file) + ":2:\\d+: ")
        self.assertFalse(os.path.exists(self.fabric))

    def test_missing_data_file(self):
        file = self.workflow("nodata", [{"name": "d", "spec": {
            "taskType": "data_retrieval",
            "data": {"type": "jsonl", "path": "absent.jsonl"}}}])
        where = re.escape(file) + ":\\d+:\\d+: .*absent.jsonl"
        self.refused("run", file, "--fabric", self.fabric, match=where)
        result = self.call("run", file, "--fabric", self.fabric, ranks=3,
                           status=2)
        self.assertRegex(result.err, where)
        self.assertFalse(os.path.exists(self.fabric))
        # found out late, when the other ranks have started: the same end
        os.mkdir(self.path("absent.jsonl"))
        self.refused("run", file, "--fabric", self.fabric, match=where)
        result = self.call("run", file, "--fabric", self.fabric, ranks=3,
                           status=2)
        self.assertRegex(result.err, where)

    def test_usage(self):
        file = self.workflow("w", [{"name": "a", "spec": ECHO}])
        cases = [
            (["frobnicate"], "frobnicate: no such command.*--help"),
            (["run"], "wants FILE"),
            (["run", file, "--frob"], "--frob: no such option.*--help"),
            (["run", file, "-x"], "two dashes"),
            (["run", file, "--workers"], "--workers wants a value"),
            (["run", file, "--workers", "0"], "1 to 256"),
            (["run", file, "--workers", "many"], "1 to 256"),
            (["run", file, "--json=1"], "takes no value"),
            (["validate", file, "more"], "one operand too many"),
            (["run", self.path("absent.yaml")], "absent.yaml"),
            (["run", self.dir], re.escape(self.dir)),
            (["validate", self.path("absent.yaml")], "absent.yaml"),
            (["cas", "get", "sha256:12", "--fabric", self.fabric],
             "64 hex digits"),
        ]
        for args, match in cases:
            with self.subTest(args):
                self.refused(*args, match=match,
                             env={"FLOWMESH_FABRIC": self.fabric})
        self.assertFalse(os.path.exists(self.fabric))

    def test_no_fabric(self):
        for command in (["result", "w1"], ["lineage", "w1/a"], ["cas", "ls"],
                        ["cas", "stat"], ["cas", "verify"]):
            with self.subTest(command):
                result = self.call(*command, "--fabric", self.fabric,
                                   status=3)
                self.assertIn(self.fabric, result.err)
                self.assertFalse(os.path.exists(self.fabric))
                result = self.call(*command, status=3)
                self.assertIn("--fabric", result.err)

    def test_report_shape(self):
        file = self.workflow("shape", [
            {"name": "a", "spec": ECHO},
            {"name": "b", "dependsOn": "a", "spec": dict(
                ECHO, condition={"node": "a", "field": "items.0.output",
                                 "equals": 5})},
            {"name": "c", "spec": {"taskType": "command",
                                   "command": ["false"]}},
            {"name": "d", "dependsOn": "c", "spec": ECHO}])
        report = self.run_json(file, self.fabric, status=1)
        self.assertEqual(set(report), {
            "workflow", "name", "state", "nodes", "operators", "metrics",
            "trials", "seconds", "fabric", "policy", "account"})
        self.assertEqual(report["workflow"], "w1")
        self.assertEqual(report["name"], "shape")
        self.assertEqual(report["state"], "failed")
        self.assertEqual(report["fabric"], self.fabric)
        self.assertIsInstance(report["seconds"], float)
        self.assertEqual(set(report["operators"]),
                         {"planned", "ran", "shared", "failed"})
        nodes = harness.nodes_of(report)
        self.assertEqual(list(nodes), ["a", "b", "c", "d"])
        for node in nodes.values():
            self.assertEqual(set(node), {
                "name", "task", "owner", "trial", "state", "items", "ran",
                "shared", "skipped", "error"})
        self.assertEqual([nodes[n]["state"] for n in "abcd"],
                         ["done", "done", "failed", "failed"])
        self.assertEqual([nodes[n]["skipped"] for n in "abcd"],
                         [False, True, False, False])
        self.assertIsNone(nodes["a"]["error"])
        self.assertIn("exit status 1", nodes["c"]["error"])
        self.assertTrue(nodes["d"]["error"])

    def test_unknown_names_list_what_exists(self):
        file = self.workflow("known", [{"name": "alpha", "spec": ECHO},
                                       {"name": "beta", "spec": ECHO}])
        self.run_json(file, self.fabric)
        at = ["--fabric", self.fabric]
        result = self.refused("result", "unknown", *at, match="no workflow")
        self.assertIn("w1 (known)", result.err)
        for command in ("result", "lineage"):
            result = self.refused(command, "known/gamma", *at,
                                  match="no node gamma")
            self.assertIn("alpha", result.err)
            self.assertIn("beta", result.err)
        self.refused("lineage", "known/alpha/x", *at, match="number")
        self.refused("lineage", "known", *at, match="wants a node")
        self.refused("lineage", "known/alpha/2", *at, status=1,
                     match="2 items")
        self.refused("lineage", "known/alpha/-1", *at, match="number")
        self.refused("cas", "get", "sha256:" + "0" * 64, *at, status=1,
                     match="0{64}")

    def test_live_fabric(self):
        """A second run is refused by name; reading works meanwhile."""
        gate = self.path("gate")
        os.mkfifo(gate)
        file = self.workflow("live", [
            {"name": "early", "spec": ECHO},
            {"name": "late", "dependsOn": "early", "spec": {
                "taskType": "command", "command": ["cat", gate]}}])
        at = ["--fabric", self.fabric]
        run = self.start("run", file, *at, "--json")
        harness.wait_for(lambda: "early" in harness.done_nodes(run.err()),
                         "early is done")
        for ranks in (0, 2):
            result = self.call("run", file, *at, status=3, ranks=ranks)
            self.assertRegex(result.err, r"\b%d\b" % run.pid)
        self.assertEqual(self.items("live", self.fabric),
                         {"early": [1, 2], "late": None})
        self.assertEqual(
            self.call("result", "live/early", *at).out, "1\n2\n")
        self.call("result", "live/late", *at, status=1)
        self.assertEqual(len(self.call("lineage", "live/early",
                                       *at).json()), 2)
        self.call("cas", "stat", *at)
        self.call("cas", "ls", *at)
        self.call("cas", "verify", *at)
        self.assertTrue(run.running(), "a reader ended the run")
        patient = self.start("run", file, *at, "--json",
                             env={"FLOWMESH_LOCK_WAIT_S": "60"})
        with open(gate, "w", encoding="ascii") as file:
            file.write("opened")
        result = run.wait()
        self.assertEqual(result.status, 0, result.err)
        # by its id: the patient one may have submitted another "live" by now
        self.assertEqual(self.items("w1/late", self.fabric)["late"][0]
                         ["stdout"], "opened")
        result = patient.wait()
        self.assertEqual(result.status, 0, result.err)
        self.assertEqual(result.json()["operators"]["ran"], 0)
        # what the readers saw can still be read once everything is sealed
        self.call("cas", "verify", *at)


class Help(harness.Case):
    def options_of(self, command):
        text = self.call(*command.split(), "--help").out
        self.assertIn("usage: flowmesh " + command, text)
        return re.findall(r"^  --([a-z-]+)", text, re.M)

    def test_help_man_and_completion_agree(self):
        listed = self.call("--help").out
        man = self.call("--man").out
        completion = self.call("--completion").out
        subprocess.run(["bash", "-n"], input=completion.encode(), check=True)
        for command in COMMANDS:
            self.assertRegex(listed, r"(?m)^  %s " % command)
            self.assertIn(".SS flowmesh " + command, man)
            names = self.options_of(command)
            self.assertIn("help", names)
            section = man.split(".SS flowmesh %s " % command)[1].split(
                ".SS ")[0].split(".SH ")[0]
            script = ("%s\nCOMP_WORDS=(flowmesh %s --); "
                      "COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _flowmesh; "
                      "echo \"${COMPREPLY[@]}\"" % (completion, command))
            words = subprocess.run(["bash", "-c", script], check=True,
                                   capture_output=True).stdout.decode()
            self.assertEqual(sorted(words.split()),
                             sorted("--" + name for name in names), command)
            for name in names:
                if name != "help":
                    self.assertIn(".B \\-\\-%s" % name, section, command)
        in_help = {" ".join(line.split("  ")[1].split())
                   for line in listed.splitlines()
                   if re.match(r"  [a-z]", line)}
        self.assertEqual(in_help, set(COMMANDS), "COMMANDS is out of date")

    def test_version(self):
        self.assertRegex(self.call("--version").out,
                         r"^flowmesh \d+\.\d+\.\d+")

    def test_man_page_renders(self):
        man = self.call("--man").out
        checker = shutil.which("groff") or shutil.which("mandoc")
        if not checker:
            self.skipTest("neither groff nor mandoc is installed")
        argv = ([checker, "-man", "-Tascii", "-ww"]
                if checker.endswith("groff")
                else [checker, "-Tascii", "-Wwarning"])
        done = subprocess.run(argv, input=man.encode(), capture_output=True,
                              check=True)
        self.assertEqual(done.stderr, b"")
        text = re.sub(b".\b", b"", done.stdout)  # bold is overstruck
        self.assertIn(b"EXIT STATUS", text)
        self.assertIn(b"cas verify", text)


if __name__ == "__main__":
    harness.main()
