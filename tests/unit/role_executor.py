# SPDX-License-Identifier: Apache-2.0
"""An executor for tests of the worker role: does what each value says."""
import json
import os
import signal
import sys


def say(**message):
    print(json.dumps(message), flush=True)


def act(lease, index, value, params):
    """The reply to one value, or None when there is none."""
    verb, _, rest = value.partition(":")
    reply = dict(type="item", lease=lease, index=index)
    if verb == "echo":
        return dict(reply, output=rest + params.get("suffix", ""))
    if verb == "error":
        return dict(reply, error={"kind": "task", "text": rest})
    if verb == "infra":
        return dict(reply, error={"kind": "infra", "text": rest})
    if verb == "file":  # an output of so many letters, in a file
        with open("out-%d" % index, "w", encoding="utf-8") as file:
            json.dump("x" * int(rest), file)
        return dict(reply, path="out-%d" % index)
    if verb == "long":  # the same, in the line
        return dict(reply, output="x" * int(rest))
    if verb == "path":
        return dict(reply, path=rest)
    if verb == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if verb == "exit":
        sys.exit(3)
    if verb == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if verb == "garbage":
        print("this is no JSON", flush=True)
    if verb == "stranger":
        return dict(reply, lease=lease + 1, output=1)
    if verb == "hang":
        signal.pause()
    if verb == "save":  # until told to stop; then a checkpoint, no answer
        say(type="progress", lease=lease, fraction=0.5, metrics={"step": 1})
        json.loads(sys.stdin.readline())
        say(type="checkpoint", lease=lease, index=index, step=7,
            digest="sha256:" + "ab" * 32, locator="there", objects=[])
        return None
    return reply


def load(value):
    if isinstance(value, dict) and "$object" in value:
        assert os.path.dirname(os.path.dirname(value["path"])) == os.getcwd()
        with open(value["path"], encoding="utf-8") as file:
            return json.load(file)
    return value


say(type="hello", protocol=1, name="test", version="1",
    task_types=["echo"], staging="files",
    resident=[{"model": "sha256:" + "cd" * 32, "bytes": 1}])
for line in iter(sys.stdin.readline, ""):
    request = json.loads(line)
    if request["type"] != "run":
        continue
    params = load(request["params"])
    for item in request["items"]:
        answer = act(request["lease"], item["index"], load(item["value"]),
                     params)
        if answer:
            say(**answer)
    say(type="done", lease=request["lease"], seconds=0, cpu_seconds=0.5)
