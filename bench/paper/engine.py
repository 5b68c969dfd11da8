# SPDX-License-Identifier: Apache-2.0
"""flowmesh-engine as a task system drives it: one call, one node of a workflow.

A worker process of Ray, Parsl or Dask holds one executor, started once, and
speaks docs/spec/executor.md with it.  All items of a node go in one `run`, so
the executor batches them as it does for FlowMesh.
"""
import atexit
import json
import os
import subprocess

LINE_BYTES_MAX = 1 << 20  # docs/spec/executor.md X4


class Engine:
    def __init__(self, program, fabric):
        writer = "peer-%d" % os.getpid()
        self.lease = 0
        self.child = subprocess.Popen(
            [program, "--fabric", fabric, "--writer", writer, "--device",
             "cpu"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL)
        atexit.register(self.close)
        if self.read()["type"] != "hello":
            raise RuntimeError("the executor does not say hello")

    def read(self):
        line = self.child.stdout.readline()
        if not line:
            raise RuntimeError("the executor has ended")
        return json.loads(line)

    def close(self):
        self.child.stdin.close()
        self.child.wait()

    def run(self, call):
        """Outputs of the items, in their order."""
        self.lease += 1
        line = json.dumps({
            "type": "run", "lease": self.lease, "task_type": call["task_type"],
            "params": call["params"], "hints": {}, "items": [
                {"index": i, "value": value}
                for i, value in enumerate(call["values"])]}).encode() + b"\n"
        if len(line) > LINE_BYTES_MAX:
            raise RuntimeError("%d bytes in one line" % len(line))
        self.child.stdin.write(line)
        self.child.stdin.flush()
        outputs = [None] * len(call["values"])
        while True:
            reply = self.read()
            if reply["type"] == "done":
                return outputs
            if reply["type"] == "item":
                if "error" in reply:
                    raise RuntimeError(reply["error"]["text"])
                outputs[reply["index"]] = reply.get(
                    "output", {"$object": reply.get("digest")})


ENGINE = None


def engine():
    """The executor of this worker process."""
    global ENGINE
    if ENGINE is None:
        ENGINE = Engine(os.environ["FM_PEER_ENGINE"],
                        os.environ["FM_PEER_FABRIC"])
    return ENGINE


def warm(seconds):
    """Start the executor and hold the worker, so that the next call goes to
    another one; says which process it is."""
    import time
    engine()
    time.sleep(seconds)
    return os.getpid()


def filled(work, upstream):
    """The one value of an update with what its rollouts, rewards and reference
    gave here: the record has numbers to nine digits, which is not enough to
    compute the same bits."""
    value = dict(work["values"][0])
    for member, place in work["from_upstream"].items():
        outputs = upstream[place]
        if member == "rewards":
            outputs = [[number] for number in outputs]
        elif member == "reference" and "pairs" in value:
            outputs = [{"chosen": a, "rejected": b}
                       for a, b in zip(outputs[::2], outputs[1::2])]
        elif member == "reference":
            outputs = [[text["logprobs"]] for text in outputs]
        value[member] = outputs
    return dict(work, values=[value])


def call(work, *upstream):
    """Run a node; `upstream` are the outputs of the nodes it waits for."""
    if work["from_upstream"]:
        work = filled(work, upstream)
    return engine().run(work)


def no_op(value):
    return value
