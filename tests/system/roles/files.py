# SPDX-License-Identifier: Apache-2.0
"""An executor that knows no store: long inputs come and outputs go as files.

A text of digits N becomes a text of N letters; any other text its length.
Both lists name what was staged and where it ran, for the test to look at.
"""
import json
import os
import sys

TRACE = os.environ["FM_TEST_TRACE"]


def say(**message):
    print(json.dumps(message), flush=True)


def trace(**entry):
    with open(TRACE, "a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def load(value):
    if "$object" not in value:
        return value
    trace(staged=value["path"], cwd=os.getcwd())
    with open(value["path"], encoding="utf-8") as file:
        return json.load(file)


def answer(lease, index, text):
    if text == "outside":
        name = "link-%d.json" % lease
        os.symlink("/etc/hostname", name)
        return say(type="item", lease=lease, index=index, path=name)
    if text == "broken":
        output = "{"
    else:
        output = json.dumps("x" * int(text) if text.isdigit()
                            else str(len(text)))
    path = "out-%d.json" % index
    with open(path, "w", encoding="utf-8") as file:
        file.write(output)
    say(type="item", lease=lease, index=index, path=path)


say(type="hello", protocol=1, name="files", version="1",
    task_types=["echo"], staging="files")
for line in sys.stdin:
    request = json.loads(line)
    if request["type"] == "run":
        for item in request["items"]:
            answer(request["lease"], item["index"],
                   load(item["value"])["value"])
        say(type="done", lease=request["lease"], seconds=0, cpu_seconds=0)
