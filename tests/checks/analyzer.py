#!/usr/bin/env python3
"""gcc -fanalyzer over the C files of src/ and kernels/.

usage: analyzer.py SOURCE_DIR BUILD_DIR

Include paths and definitions come from compile_commands.json; sanitizers do
not, since they hide paths from the analyzer.  A file that passed is not read
again until it, a header or its flags change (stamps in BUILD_DIR/analyzer).
"""
import concurrent.futures
import hashlib
import json
import pathlib
import shlex
import shutil
import subprocess
import sys

# -O0: optimisation removes the very code that leaks.  Off, as gcc 12 is wrong
# about them: a pointer copied by memcpy after an in-place realloc is not
# uninitialised (clang's analyzer, in the tidy check, finds the true cases);
# a shift of vector lanes is not too wide; psabi is about calls, not bugs.
GCC = ["gcc", "-std=c17", "-O0", "-fanalyzer", "-Werror", "-DFM_ANALYSE",
       "-Wno-analyzer-use-of-uninitialized-value",
       "-Wno-analyzer-shift-count-overflow", "-Wno-psabi",
       "-S", "-o", "/dev/null"]


def flags_of(command):
    words, flags = shlex.split(command), []
    for i, word in enumerate(words):
        if word in ("-I", "-isystem", "-D"):
            flags += words[i:i + 2]
        elif word.startswith(("-I", "-D", "-isystem")):
            flags.append(word)
    return flags


def analyse(entry, headers, stamps):
    command = GCC + flags_of(entry["command"]) + [entry["file"]]
    digest = hashlib.sha256(headers)
    digest.update(" ".join(command).encode())
    digest.update(pathlib.Path(entry["file"]).read_bytes())
    stamp = stamps / digest.hexdigest()
    if stamp.exists():
        return ""
    run = subprocess.run(command, cwd=entry["directory"], text=True,
                         capture_output=True)
    if run.returncode:
        return run.stderr or f"{entry['file']}: gcc ended {run.returncode}"
    stamp.touch()
    return ""


def main(source_dir, build_dir):
    if not shutil.which("gcc"):
        print("gcc is missing: apt-get install gcc")
        return 1
    root, build = pathlib.Path(source_dir).resolve(), pathlib.Path(build_dir)
    roots = tuple(f"{root}/{folder}/" for folder in ("src", "kernels"))
    entries = {e["file"]: e
               for e in json.load(open(build / "compile_commands.json"))
               if e["file"].startswith(roots) and e["file"].endswith(".c")}
    headers = hashlib.sha256()
    for folder in ("src", "include", "kernels"):
        for header in sorted((root / folder).rglob("*.h")):
            headers.update(header.read_bytes())
    stamps = build / "analyzer"
    stamps.mkdir(exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        found = [text for text in pool.map(
            lambda e: analyse(e, headers.digest(), stamps),
            entries.values()) if text]
    print("\n".join(found))
    print(f"analyzer: {len(entries)} files, {len(found)} with findings")
    return 1 if found or not entries else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
