# SPDX-License-Identifier: Apache-2.0
"""Runs the engine given as arguments and writes what both sides say to
$FM_TEST_TRACE, one JSON object a line."""
import json
import os
import subprocess
import sys
import threading

lock = threading.Lock()
engine = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE)


def copy(source, sink):
    for line in source:
        with lock, open(os.environ["FM_TEST_TRACE"], "ab") as trace:
            trace.write(line)
        try:
            sink.write(line)
            sink.flush()
        except OSError:
            break
    sink.close()


threading.Thread(target=copy, args=(sys.stdin.buffer, engine.stdin),
                 daemon=True).start()
copy(engine.stdout, sys.stdout.buffer)
sys.exit(engine.wait())
