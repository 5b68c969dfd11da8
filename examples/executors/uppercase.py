#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A FlowMesh executor in plain Python: text in, upper-case text out.

Requests arrive on standard input, replies leave on standard output, one JSON
object a line; standard error is the log (docs/spec/executor.md).  Replace
work() by a call into vLLM, TRL or anything else and you have a worker for it.
"""
import json
import sys
import time


def say(**message):
    print(json.dumps(message), flush=True)


def load(value):
    """A value too large for a line was staged as a file for us (X21)."""
    if isinstance(value, dict) and "$object" in value:
        with open(value["path"], encoding="utf-8") as file:
            return json.load(file)
    return value


def work(params, value):
    return value["value"].upper() + params.get("suffix", "")


say(type="hello", protocol=1, name="uppercase", version="1.0",
    task_types=["uppercase"], staging="files")
for line in sys.stdin:  # ends with the supervisor: then so do we
    request = json.loads(line)
    if request["type"] != "run":
        continue  # `stop`: every item here ends at once anyway
    lease, start = request["lease"], time.monotonic()
    params = load(request["params"])
    for item in request["items"]:
        reply = dict(type="item", lease=lease, index=item["index"])
        try:
            reply["output"] = work(params, load(item["value"]))
        except Exception as error:  # the item's fault, not ours
            reply["error"] = {"kind": "task", "text": repr(error)}
        say(**reply)
    say(type="done", lease=lease, seconds=time.monotonic() - start,
        cpu_seconds=time.process_time())
