# SPDX-License-Identifier: Apache-2.0
"""Every construct of the workflow language, from its text to its results."""
import json

import harness

READ = ("import json, os\n"
        "def read(inputs, name):\n"
        "    path = os.path.join(inputs[name], 'results.json')\n"
        "    with open(path) as f:\n"
        "        return json.load(f)['result']\n")


class Language(harness.Case):
    def setUp(self):
        super().setUp()
        self.fabric = self.path("fabric")

    def outputs(self, text, name="main.yaml", status=0):
        """Run a workflow text; {node: [outputs]} and the report's nodes."""
        file = self.write(name, "apiVersion: flowmesh/v1\nkind: Workflow\n"
                          + text)
        report = self.run_json(file, self.fabric, status=status)
        return (self.items(report["workflow"], self.fabric),
                harness.nodes_of(report), report)

    def test_single_task_and_postprocess_of_text(self):
        items, _, report = self.outputs("""
metadata: {name: solo, owner: ann}
spec:
  taskType: echo
  data: {prompts: [a, "two words", "ünïcode ✓"]}
""")
        self.assertEqual(items, {"main": ["a", "two words", "ünïcode ✓"]})
        self.assertEqual(report["name"], "solo")
        self.assertEqual(self.call("result", "solo/main", "--fabric",
                                   self.fabric).out,
                         "a\ntwo words\nünïcode ✓\n")

    def test_stages_inherit_and_chain(self):
        items, nodes, _ = self.outputs("""
spec:
  taskType: echo
  data: {type: list, items: [base]}
  stages:
  - name: first
  - name: second
    spec: {data: {items: [own, items]}}
  - name: third
    dependsOn: [first, second]
    spec: {data: {items: ["${first.items.0.output}-${second.items[1].output}",
                          "${second.items}", "$${second}"]}}
""")
        self.assertEqual(items["first"], ["base"])
        self.assertEqual(items["second"], ["own", "items"])
        self.assertEqual(items["third"], [
            "base-items", [{"output": "own"}, {"output": "items"}],
            "${second}"])
        self.assertEqual(list(nodes), ["first", "second", "third"])

    def test_graph_conditions_and_skipping(self):
        items, nodes, report = self.outputs("""
spec:
  graph:
    nodes:
    - name: last
      dependsOn: [no, probe]
      spec: {taskType: echo, data: {items: [ran anyway]}}
    - name: reads
      dependsOn: no
      spec: {taskType: echo, data: {type: node, node: no}}
    - name: no
      dependsOn: probe
      spec:
        taskType: echo
        data: {items: [x]}
        condition: {node: probe, field: items.0.output.score, equals: 2}
    - name: yes
      dependsOn: probe
      spec:
        taskType: echo
        data: {items: [y]}
        condition: {node: probe, field: items.0.output.score, equals: 1.0}
    - name: absent
      dependsOn: probe
      spec:
        taskType: echo
        data: {items: [z]}
        condition: {node: probe, field: items.7.output, equals: 1}
    - name: probe
      spec: {taskType: echo, data: {items: [{score: 1}]}}
""")
        self.assertEqual(report["state"], "done")
        skipped = {name for name, node in nodes.items() if node["skipped"]}
        self.assertEqual(skipped, {"no", "reads", "absent"})
        self.assertEqual(items["yes"], ["y"])
        self.assertEqual(items["last"], ["ran anyway"])
        self.assertEqual(items["no"], [])

    def test_values_by_node_and_path(self):
        items, _, _ = self.outputs("""
spec:
  graph:
    nodes:
    - name: src
      spec: {taskType: echo, data: {items: [{k: [1, 2, {deep: true}]}, b]}}
    - name: dst
      dependsOn: src
      spec:
        taskType: echo
        data:
          items:
          - {node: src, path: "items[0].output.k.2.deep"}
          - {inside: [{node: src, path: items.1.output}]}
          - "${src.items.0.output.k}"
          - "n=${src.items.0.output.k.1}"
    - name: all
      dependsOn: src
      spec: {taskType: echo, data: {type: node, node: src}}
""")
        self.assertEqual(items["dst"], [True, {"inside": ["b"]},
                                        [1, 2, {"deep": True}], "n=2"])
        self.assertEqual(items["all"], [{"k": [1, 2, {"deep": True}]}, "b"])

    def test_missing_value_fails_the_reader(self):
        _, nodes, report = self.outputs("""
spec:
  graph:
    nodes:
    - {name: a, spec: {taskType: echo, data: {items: [1]}}}
    - {name: b, dependsOn: a,
       spec: {taskType: echo, data: {items: ["${a.items.5.output}"]}}}
""", status=1)
        self.assertEqual(report["state"], "failed")
        self.assertIn("items.5", nodes["b"]["error"])
        self.assertEqual(nodes["a"]["state"], "done")

    def test_template_export_and_jsonl_node(self):
        items, _, _ = self.outputs("""
spec:
  graph:
    nodes:
    - name: qs
      spec:
        taskType: echo
        data: {items: [{q: one, n: 1}, {q: two, n: 2}, {q: "", n: 3}]}
        postprocess:
          jsonl_export:
            path: out.jsonl
            fields:
              prompt: {from: output, key: q}
              source: {from: literal, value: demo 1}
              row: {from: metadata, key: index}
            required_fields: [prompt]
    - name: rows
      dependsOn: qs
      spec:
        taskType: inference
        model:
          source: {type: random}
          config: {hidden_size: 16, intermediate_size: 16,
                   num_hidden_layers: 1, num_attention_heads: 2,
                   max_position_embeddings: 64}
        inference: {max_tokens: 2}
        data: {jsonl: {node: qs, prompt_field: source}}
    - name: ref
      dependsOn: qs
      spec: {taskType: echo, data: {items: ["${qs.export}"]}}
    - name: ask
      dependsOn: qs
      spec:
        taskType: echo
        data:
          type: graph_template
          template:
            name: t
            columns:
            - {label: Q, node: qs, path: "items[*].output.q"}
            - {label: First, node: qs, path: items.0.output.n}
            options: {intro: Hello, closing: Answer.}
""")
        rows = [{"prompt": "one", "source": "demo 1", "row": 0},
                {"prompt": "two", "source": "demo 1", "row": 1}]
        lineage = self.call("lineage", "w1/rows", "--fabric",
                            self.fabric).json()
        self.assertEqual([one["value"] for one in lineage],
                         [{"prompt": "demo 1"}, {"prompt": "demo 1"}])
        self.assertEqual(len(items["rows"]), 2)
        self.assertEqual(items["ref"], [rows])
        self.assertEqual(items["ask"], [
            "Hello\n\nQ: one\nFirst: 1\n\nAnswer.",
            "Hello\n\nQ: two\nFirst: 1\n\nAnswer.",
            "Hello\n\nQ: \nFirst: 1\n\nAnswer."])

    def test_matrix_sweep(self):
        items, nodes, report = self.outputs("""
metadata: {name: grid}
spec:
  sweep:
    matrix:
      work.data.items.0: [1, 2]
      work.seed: [7, 8]
  graph:
    nodes:
    - {name: common, spec: {taskType: echo, data: {items: [c]}}}
    - name: work
      dependsOn: common
      spec: {taskType: echo, seed: 0, data: {items: [0, "${common.items.0.output}"]}}
    - {name: post, dependsOn: work,
       spec: {taskType: echo, data: {type: node, node: work}}}
""")
        names = [trial["trial"] for trial in report["trials"]]
        self.assertEqual(len(set(names)), 4)
        self.assertIn("seed=7", names[0])
        self.assertIn("seed=8", names[1])  # the last key varies fastest
        self.assertEqual(report["trials"][0]["values"],
                         {"work.data.items.0": 1, "work.seed": 7})
        self.assertEqual(set(nodes), {"common"} | {
            "%s@%s" % (node, name) for node in ("work", "post")
            for name in names})
        self.assertEqual([items["post@" + name][0] for name in names],
                         [1, 1, 2, 2])
        # echo takes no seed into its work: equal trials ran once, and what
        # "common" echoes not again
        self.assertEqual(sum(node["ran"] for name, node in nodes.items()
                             if name.startswith("work@")), 2)

    def test_list_sweep(self):
        items, nodes, report = self.outputs("""
spec:
  sweep:
    list:
    - {say.command.1: one, spec.seed: 1}
    - {say.command.1: two, spec.seed: 2}
    - {say.command.1: two, spec.seed: 2}
  graph:
    nodes:
    - {name: say, spec: {taskType: command, command: [echo, none]}}
""")
        names = [trial["trial"] for trial in report["trials"]]
        self.assertEqual(len(names), 3)
        self.assertTrue(names[2].endswith("~2"), names)
        self.assertEqual([items["say@" + name][0]["stdout"] for name in names],
                         ["one\n", "two\n", "two\n"])
        self.assertEqual(sum(node["ran"] for node in nodes.values()), 2)

    def test_python(self):
        self.write("module.py", READ +
                   "def total(inputs):\n"
                   "    return {'sum': sum(i['output'] for i in"
                   " read(inputs, 'many')['items'])}\n")
        code = json.dumps(READ +
                          "def main(inputs):\n"
                          "    n = read(inputs, 'src')['items'][0]['output']\n"
                          "    return [i * i for i in range(n)]\n")
        items, nodes, _ = self.outputs("""
spec:
  graph:
    nodes:
    - {name: src, spec: {taskType: echo, data: {items: [5]}}}
    - {name: many, dependsOn: src,
       spec: {taskType: python, emits: items, code: %s}}
    - {name: value, dependsOn: src, spec: {taskType: python, code: %s}}
    - {name: each, dependsOn: many,
       spec: {taskType: echo, data: {type: node, node: many}}}
    - {name: total, dependsOn: many,
       spec: {taskType: python, entrypoint: total, code: {path: module.py}}}
""" % (code, code))
        squares = [0, 1, 4, 9, 16]
        self.assertEqual(items["many"], squares)
        self.assertEqual(items["value"], [squares])
        self.assertEqual(items["each"], squares)
        self.assertEqual(nodes["each"]["items"], 5)
        self.assertEqual(items["total"], [{"sum": 30}])

    def test_command_inputs_and_outputs(self):
        self.write("local.txt", "from a file\n")
        items, _, _ = self.outputs("""
spec:
  graph:
    nodes:
    - {name: src, spec: {taskType: echo, data: {items: [text, {a: 1}]}}}
    - name: make
      dependsOn: src
      spec:
        taskType: command
        command: [sh, -c, 'cat local.txt word obj > all; printf "%s" "$V" > v']
        env: {V: 42}
        inputs: {local.txt: local.txt, word: "${src.items.0.output}",
                 obj: {node: src, path: items.1.output}}
        outputs: [all, v]
    - name: use
      dependsOn: make
      spec:
        taskType: command
        command: [sh, -c, 'echo "$1"', sh, "${make.items.0.output.files.all}"]
""")
        made = items["make"][0]
        self.assertEqual(made["exit"], 0)
        self.assertEqual(set(made["files"]), {"all", "v"})
        at = ["--fabric", self.fabric]
        self.assertEqual(self.call("cas", "get", made["files"]["all"],
                                   *at).out, 'from a file\ntext{"a":1}')
        self.assertEqual(self.call("cas", "get", made["files"]["v"], *at).out,
                         "42")
        self.assertEqual(items["use"][0]["stdout"],
                         made["files"]["all"] + "\n")

    def test_command_that_makes_no_output_fails(self):
        _, nodes, _ = self.outputs("""
spec: {taskType: command, command: ["true"], outputs: [promised]}
""", status=1)
        self.assertIn("promised", nodes["main"]["error"])

    def test_data_retrieval(self):
        rows = [{"id": i, "text": "t%d" % i, "x": i % 3} for i in range(20)]
        self.write("rows.jsonl", "".join(json.dumps(row) + "\n\n"
                                         for row in rows))
        self.write("table.csv", 'id,name\r\n1,"a, ""b"""\r\n2,"two\nlines"\r\n')
        self.write("prose.txt", "alpha\n\nbeta\ngamma\n")
        items, _, _ = self.outputs("""
spec:
  taskType: data_retrieval
  graph:
    nodes:
    - {name: jsonl, spec: {data: {type: jsonl, path: rows.jsonl}}}
    - {name: part, spec: {data: {type: jsonl, path: rows.jsonl,
        split: "train[:3]", columns: [id]}}}
    - {name: percent, spec: {data: {type: dataset, path: rows.jsonl,
        split: "all[50%:60%]", columns: [id]}}}
    - {name: train, spec: {data: {path: rows.jsonl, split: train,
        test_fraction: 0.25, seed: 3, columns: [id]}}}
    - {name: test, spec: {data: {path: rows.jsonl, split: test,
        test_fraction: 0.25, seed: 3, columns: [id]}}}
    - {name: mixed, spec: {data: {path: rows.jsonl, shuffle: true, seed: 5,
        columns: [id]}}}
    - {name: csv, spec: {data: {type: csv, path: table.csv}}}
    - {name: text, spec: {data: {type: text, path: prose.txt}}}
    - {name: chunks, spec: {data: {type: text, path: prose.txt,
        chunk: {bytes: 8, stride: 6}}}}
    - name: short
      spec: {taskType: echo, data: {type: jsonl, path: rows.jsonl,
             column: text, max_samples: 2}}
""")
        ids = {name: [row["id"] for row in items[name]]
               for name in ("part", "percent", "train", "test", "mixed")}
        self.assertEqual(items["jsonl"], rows)
        self.assertEqual(ids["part"], [0, 1, 2])
        self.assertEqual(ids["percent"], [10, 11])
        self.assertEqual(len(ids["test"]), 5)
        self.assertEqual(sorted(ids["train"] + ids["test"]), list(range(20)))
        self.assertEqual(ids["train"], sorted(ids["train"]))
        self.assertEqual(sorted(ids["mixed"]), list(range(20)))
        self.assertNotEqual(ids["mixed"], list(range(20)))
        self.assertEqual(items["csv"], [{"id": "1", "name": 'a, "b"'},
                                        {"id": "2", "name": "two\nlines"}])
        self.assertEqual([row["text"] if isinstance(row, dict) else row
                          for row in items["text"]],
                         ["alpha", "beta", "gamma"])
        self.assertEqual([row["text"] if isinstance(row, dict) else row
                          for row in items["chunks"]],
                         self.windows("alpha\n\nbeta\ngamma\n", 8, 6))
        self.assertEqual(items["short"], ["t0", "t1"])

    @staticmethod
    def windows(text, size, stride):
        found = []
        for start in range(0, len(text), stride):
            if found and start - stride + size >= len(text):
                break  # inside the one before
            found.append(text[start:start + size])
        return found

    def test_workflow_from_standard_input_and_environment(self):
        file = self.write("w.yaml", "apiVersion: flowmesh/v1\nkind: W\nspec: "
                          "{taskType: echo, data: {items: [1]}}\n")
        argv = ["sh", "-c", '"$0" run - --quiet < "$1"',
                harness.options.flowmesh, file]
        done = harness.subprocess.run(
            argv, env=harness.environment(self.token, {
                "FLOWMESH_FABRIC": self.fabric}), cwd=self.dir,
            capture_output=True, timeout=harness.RUN_S, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        result = self.call("result", "w1", env={
            "FLOWMESH_FABRIC": self.fabric})
        self.assertEqual(result.out, "== main\n1\n")
        # without either, a fresh fabric is made and "latest" names it
        state = self.path("state")
        first = self.call("run", file, "--json", env={
            "XDG_STATE_HOME": state}).json()
        self.assertTrue(first["fabric"].startswith(state))
        self.assertEqual(self.call("result", "w1", env={
            "XDG_STATE_HOME": state}).out, "== main\n1\n")


if __name__ == "__main__":
    harness.main()
