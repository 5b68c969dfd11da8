#!/usr/bin/env python3
"""Hold every #include of src/ and kernels/ against the module list.

usage: layering.py SOURCE_DIR MODULES_JSON

1. A file includes only headers of its own module and API headers of modules
   it can reach through DEPS.
2. A third-party header is included only by modules that name it in FENCE.
3. PURE modules include no header that gives clocks, files, threads or MPI.
4. Every file under src/ belongs to exactly one module or program.
"""
import json
import pathlib
import re
import sys

INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.M)
IMPURE = {"time.h", "pthread.h", "unistd.h", "fcntl.h", "threads.h", "mpi.h",
          "signal.h", "sys/stat.h", "sys/time.h", "base/clock.h",
          "base/file.h", "base/log.h"}
STANDARD = {  # C17, POSIX and Linux: no fence
    "assert.h", "ctype.h", "dirent.h", "dlfcn.h", "errno.h", "fcntl.h",
    "float.h", "ftw.h", "getopt.h", "ifaddrs.h", "inttypes.h", "limits.h",
    "locale.h",
    "math.h", "netdb.h", "poll.h", "pthread.h", "pwd.h", "sched.h", "semaphore.h",
    "signal.h", "spawn.h", "stdalign.h", "stdarg.h", "stdatomic.h",
    "stdbool.h", "stddef.h", "stdint.h", "stdio.h", "stdlib.h", "string.h",
    "strings.h", "termios.h", "threads.h", "time.h", "unistd.h", "wchar.h",
    "immintrin.h"}


def reachable(module, modules):
    seen, todo = set(), [module]
    while todo:
        path = todo.pop()
        if path not in seen:
            seen.add(path)
            todo += modules[path]["deps"]
    return seen


def owner(path, modules):
    best = None
    for name in modules:
        if str(path).startswith(name + "/") and (
                best is None or len(name) > len(best)):
            best = name
    return best


def check_include(name, header, module, modules, errors):
    if module["pure"] and header in IMPURE:
        errors.append(f"{name}: {header}: {module['path']} is pure")
    if header.startswith(("sys/", "linux/", "net/", "netinet/", "arpa/")):
        return
    if header in STANDARD or header.startswith("flowmesh/"):
        return
    target = owner(header, modules)
    if target == module["path"]:
        return
    if target is None:
        if not any(header.startswith(f) for f in module["fence"]):
            errors.append(f"{name}: {header}: not in FENCE of "
                          f"{module['path']}")
    elif target not in reachable(module["path"], modules):
        errors.append(f"{name}: {header}: {target} is not in DEPS of "
                      f"{module['path']}")
    elif header not in modules[target]["api"]:
        errors.append(f"{name}: {header}: private to {target}")


def main(source_dir, modules_json):
    root = pathlib.Path(source_dir) / "src"
    modules = {m["path"]: m for m in json.load(open(modules_json))}
    errors = []
    files = sorted(p for p in root.rglob("*") if p.suffix in (".c", ".h"))
    for file in files:
        relative = file.relative_to(root)
        name = owner(relative, modules)
        if name is None:
            errors.append(f"{relative}: belongs to no module")
            continue
        module = modules[name]
        if file.suffix == ".c" and str(relative) not in module["sources"]:
            errors.append(f"{relative}: not in SOURCES of {name}")
        for header in INCLUDE.findall(file.read_text()):
            check_include(relative, header, module, modules, errors)
    print(f"layering: {len(files)} files, {len(modules)} modules, "
          f"{len(errors)} errors")
    print("\n".join(errors))
    return 1 if errors or not files else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
