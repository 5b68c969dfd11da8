# SPDX-License-Identifier: Apache-2.0
"""An executor that dies by SIGSEGV, before it answers anything, when one
value of its batch is "poison"."""
import json
import os
import signal
import sys


def say(**message):
    print(json.dumps(message), flush=True)


say(type="hello", protocol=1, name="poison", version="1",
    task_types=["echo"])
for line in sys.stdin:
    request = json.loads(line)
    if request["type"] != "run":
        continue
    values = [item["value"]["value"] for item in request["items"]]
    if "poison" in values:
        os.kill(os.getpid(), signal.SIGSEGV)
    for item, value in zip(request["items"], values):
        say(type="item", lease=request["lease"], index=item["index"],
            output=value.upper())
    say(type="done", lease=request["lease"], seconds=0, cpu_seconds=0)
