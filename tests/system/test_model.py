# SPDX-License-Identifier: Apache-2.0
"""Models of Hugging Face, in, out and used by workflows; imports that are
killed, that meet a full disk, and that must not need much memory."""
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import unittest

import harness

HF = ("tests", "ref", "data", "hf")


def reference(name):
    return os.path.join(harness.options.source, *HF, name)


def write_safetensors(path, tensors):
    """tensors: [(name, shape)], f16, content from a generator of its own."""
    header, at = {}, 0
    for name, shape in tensors:
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "F16", "shape": shape,
                        "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, _ in tensors:
            begin, end = header[name]["data_offsets"]
            file.write(random.Random(name).randbytes(end - begin))


def write_model(folder, hidden, inner, layers):
    """A Llama directory; its largest tensor has 2 * hidden * inner bytes."""
    shutil.copytree(reference("llama-f32"), folder, ignore=(
        shutil.ignore_patterns("*.safetensors", "*.index.json")))
    file = os.path.join(folder, "config.json")
    with open(file, encoding="utf-8") as text:
        config = json.load(text)
    config.update(hidden_size=hidden, intermediate_size=inner,
                  num_hidden_layers=layers, num_attention_heads=8,
                  num_key_value_heads=8, head_dim=hidden // 8)
    with open(file, "w", encoding="utf-8") as text:
        json.dump(config, text)
    tensors = [("model.embed_tokens.weight", [272, hidden])]
    for layer in range(layers):
        prefix = "model.layers.%d." % layer
        tensors += [(prefix + "input_layernorm.weight", [hidden]),
                    (prefix + "post_attention_layernorm.weight", [hidden])]
        tensors += [(prefix + "self_attn.%s_proj.weight" % part,
                     [hidden, hidden]) for part in "qkvo"]
        tensors += [(prefix + "mlp.gate_proj.weight", [inner, hidden]),
                    (prefix + "mlp.up_proj.weight", [inner, hidden]),
                    (prefix + "mlp.down_proj.weight", [hidden, inner])]
    tensors += [("model.norm.weight", [hidden]),
                ("lm_head.weight", [272, hidden])]
    write_safetensors(os.path.join(folder, "model.safetensors"), tensors)


class Models(harness.Case):
    def setUp(self):
        super().setUp()
        self.fabric = self.path("fabric")

    def model(self, *args, **more):
        return self.call("model", *args, "--fabric", self.fabric, **more)

    def imported(self, source, *args, **more):
        return self.model("import", source, *args, **more).out.strip()

    def inference(self, name, model, **more):
        return {"name": name, "spec": dict(
            taskType="inference", model=model, data={"items": ["the", "and"]},
            inference={"max_tokens": 4}, **more)}

    def test_in_and_out(self):
        digest = self.imported(reference("qwen3-bf16"), "--name", "tiny")
        self.assertRegex(digest, "^sha256:[0-9a-f]{64}$")
        again = self.model("import", reference("qwen3-bf16"))
        self.assertEqual(again.out.strip(), digest)
        shown = self.model("show", "tiny").json()
        self.assertEqual((shown["digest"], shown["dtype"], shown["kind"]),
                         (digest, "bf16", "model"))
        self.assertEqual(shown["config"]["model_type"], "qwen3")
        self.assertTrue(shown["tokenizer"]["has_chat_template"])
        self.assertEqual(shown["shared_bytes"], 0)
        self.model("export", "tiny", self.path("out"))
        with open(os.path.join(reference("qwen3-bf16"), "model.safetensors"),
                  "rb") as file, \
                open(self.path("out", "model.safetensors"), "rb") as out:
            self.assertEqual(file.read(), out.read())
        refused = self.model("export", "tiny", self.path("out"), status=2)
        self.assertIn("overwrites nothing", refused.err)
        self.assertEqual(self.imported(self.path("out")), digest)
        self.assertIn("tiny", self.model("ls").out)
        self.model("rm", "tiny")
        self.assertNotIn("tiny", self.model("ls").out)
        self.assertIn(digest, self.model("ls", "--all").out)
        missing = self.model("show", "tiny", status=2)
        self.assertIn("no model is named tiny", missing.err)

    def test_usage(self):
        for args, words in (
                (("import", self.path("none")), "No such file"),
                (("import", "some/thing"), "huggingface-cli download"),
                (("import", reference("qwen3-bf16"), "--name", "../x"),
                 "a name is"),
                (("import", reference("qwen3-bf16"), "--revision", "x"),
                 "--revision"),
                (("export", "x"), "wants"),
                (("export", "x", "y", "--dtype", "f8"), "f32, f16 or bf16"),
                (("export", "x", "y", "--shard-bytes", "-1"), "shard-bytes")):
            result = self.model(*args, status=2,
                                env={"HF_HUB_CACHE": self.path("hub")})
            self.assertIn(words, result.err)

    def test_workflow(self):
        """Models by path, hub and name, an adapter by path; and again."""
        commit = "0123456789abcdef0123456789abcdef01234567"
        hub = self.path("hub", "models--some--tiny")
        os.makedirs(os.path.join(hub, "refs"))
        with open(os.path.join(hub, "refs", "main"), "w",
                  encoding="utf-8") as file:
            file.write(commit)
        shutil.copytree(reference("qwen2-f16"),
                        os.path.join(hub, "snapshots", commit))
        base = self.imported(reference("llama-f32"), "--name", "llama")
        nodes = [
            self.inference("path", {"source": {
                "type": "path", "identifier": reference("qwen3-bf16")}}),
            self.inference("hub", {"source": {
                "type": "hub", "identifier": "some/tiny"}}),
            self.inference("name", {"source": {
                "type": "name", "identifier": "llama"}}),
            self.inference("digest", {"source": {
                "type": "digest", "identifier": base}}),
            self.inference("adapter", {
                "source": {"type": "name", "identifier": "llama"},
                "adapters": [{"type": "lora",
                              "path": reference("llama-lora")}]})]
        file = self.workflow("models", nodes)
        env = {"HF_HUB_CACHE": self.path("hub")}
        listed = self.call("validate", file, env=env)
        self.assertIn("some/tiny", listed.out)
        self.call("run", file, "--fabric", self.fabric, "--workers", "2",
                  env=env)
        items = self.items("models", self.fabric)
        self.assertEqual(items["name"], items["digest"])
        self.assertNotEqual(items["name"], items["adapter"])
        self.assertEqual({len(outputs) for outputs in items.values()}, {2})
        report = self.run_json(file, self.fabric, "--workers", "2", env=env)
        self.assertEqual(report["operators"]["ran"], 0)

        env["HF_HUB_CACHE"] = self.path("nowhere")
        refused = self.call("run", file, "--fabric", self.path("other"),
                            status=2, env=env)
        self.assertRegex(refused.err, r"models\.yaml:\d+:\d+: .*some/tiny")
        self.assertFalse(os.path.exists(self.path("other")))

    def segments(self):
        return os.listdir(os.path.join(self.fabric, "cas", "segments"))

    def test_killed_import(self):
        """Killed at every write in turn: nothing half is there, the next
        import works and clears what the killed one left."""
        source = reference("llama-f32")
        killed = 0
        for write in range(1, 30):
            result = self.model("import", source, "--name", "x", status=None,
                                env={"FM_FAULT": "base.write:%d!" % write})
            if result.status == 0:
                break
            self.assertEqual(result.status, -signal.SIGKILL, result.err)
            killed += 1
            self.call("cas", "verify", "--fabric", self.fabric)
            self.assertNotIn("\nx ", self.model("ls").out)
            shown = self.model("ls", "--all").out.splitlines()[1:]
            for line in shown: # a manifest that is there is whole
                self.model("export", line.split()[-1], self.path("out"))
                shutil.rmtree(self.path("out"))
        else:
            self.fail("never done")
        if killed == 0:
            raise unittest.SkipTest("this build has no fault points")
        self.assertGreater(killed, 3)
        self.assertIn("\nx ", self.model("ls").out)
        self.assertEqual([name for name in self.segments()
                          if name.endswith(".tmp")], [])

    def peak_bytes(self, folder, fabric):
        """Largest resident set of an import."""
        env = harness.environment(self.token, {
            "ASAN_OPTIONS": "quarantine_size_mb=1:detect_leaks=0"})
        with subprocess.Popen(
                [harness.options.flowmesh, "model", "import", folder,
                 "--fabric", fabric], env=env, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE) as process:
            text = process.stderr.read().decode()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        self.assertEqual(process.returncode, 0, text)
        return usage.ru_maxrss * 1024

    def test_memory_of_an_import(self):
        """What an import holds does not grow with the model."""
        tensor = 2 * 1024 * 2048
        write_model(self.path("small"), 64, 128, 1)
        write_model(self.path("large"), 1024, 2048, 12)
        total = os.path.getsize(self.path("large", "model.safetensors"))
        small = self.peak_bytes(self.path("small"), self.fabric)
        large = self.peak_bytes(self.path("large"), self.fabric)
        allowed = (64 << 20) + 4 * tensor + (24 << 20)
        self.assertGreater(total, 2 * allowed)
        self.assertLess(large - small, allowed)
        again = self.peak_bytes(self.path("large"), self.fabric)
        self.assertLess(again - small, allowed)
        print("  %d MiB imported with %d MiB" % (total >> 20,
                                                 (large - small) >> 20))


class FullDisk(harness.Case):
    def test_import_meets_a_full_disk(self):
        disk = self.path("disk")
        fabric = os.path.join(disk, "fabric")
        os.mkdir(disk)
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "flowmesh", disk],
            capture_output=True, check=False)
        if made.returncode != 0:
            raise unittest.SkipTest("cannot mount a tmpfs (root only): "
                                    + made.stderr.decode().strip())
        self.addCleanup(subprocess.run, ["umount", "-l", disk], check=True)
        ballast = os.path.join(disk, "ballast")
        with open(ballast, "wb") as file:
            file.write(b"\0" * (960 << 10))
        args = ("model", "import", reference("llama-f32"), "--name", "x",
                "--fabric", fabric)
        full = self.call(*args, status=1)
        self.assertIn("No space left on device", full.err)
        self.assertNotIn("\nx ", self.call("model", "ls", "--fabric",
                                           fabric).out)
        os.unlink(ballast)
        self.call(*args)
        self.call("cas", "verify", "--fabric", fabric)
        self.assertIn("\nx ", self.call("model", "ls", "--fabric", fabric).out)


if __name__ == "__main__":
    harness.main()
