#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The work of bench_data by datasketch: texts a CPU second, and how many it keeps.

usage: datasketch_peer.py FILE   (one text a line)
"""
import os
import sys
import time

os.environ["OPENBLAS_NUM_THREADS"] = "1"

try:
    from datasketch import MinHash, MinHashLSH
except ImportError as reason:
    print(reason, file=sys.stderr)
    sys.exit(77)

texts = open(sys.argv[1]).read().splitlines()
start = time.process_time()
lsh = MinHashLSH(threshold=0.8, num_perm=128)
kept = 0
for number, text in enumerate(texts):
    words = text.lower().split()
    shingles = {" ".join(words[i:i + 5]).encode()
                for i in range(max(len(words) - 4, 1))}
    sketch = MinHash(num_perm=128)
    sketch.update_batch(shingles)
    if not lsh.query(sketch):
        lsh.insert(str(number), sketch)
        kept += 1
print(len(texts) / (time.process_time() - start), kept)
