#!/usr/bin/env python3
"""Every pointer from and into the documentation leads somewhere.

usage: docs.py SOURCE_DIR

1. A relative link in README.md, CHANGELOG.md, docs/, bench/ or examples/
   names an existing file, and its #fragment a heading of that file.
2. A docs/….md path cited in source, build files or scripts exists.
"""
import pathlib
import re
import sys

LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)|!\[[^\]\n]*\]\(([^)\s]+)\)")
CITED = re.compile(r"\bdocs/[A-Za-z0-9_./-]+\.md\b")
FENCED = re.compile(r"^(```|~~~).*?^\1", re.M | re.S)
HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$", re.M)
CODE_SUFFIXES = {".c", ".h", ".cu", ".cuh", ".py", ".sh", ".cmake", ".txt",
                 ".sbatch", ".in"}
CODE_DIRS = ("src", "include", "kernels", "tests", "bench", "cmake",
             "examples", "scripts", "slurm", "spack")


def anchors(text):
    """The fragment names that a forge gives the headings of @p text."""
    found = set()
    for heading in HEADING.findall(FENCED.sub("", text)):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(slug)
    return found


def check_links(root, file, errors):
    text = file.read_text(encoding="utf-8")
    count = 0
    for match in LINK.finditer(FENCED.sub("", text)):
        target = match.group(1) or match.group(2)
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        count += 1
        path, _, fragment = target.partition("#")
        goal = (file.parent / path).resolve() if path else file
        name = file.relative_to(root)
        if not goal.exists():
            errors.append(f"{name}: link to {target}: no such file")
        elif fragment and goal.suffix == ".md" and (
                fragment not in anchors(goal.read_text(encoding="utf-8"))):
            errors.append(f"{name}: link to {target}: no such heading")
    return count


def main(source_dir):
    root = pathlib.Path(source_dir).resolve()
    errors, links, citations = [], 0, 0
    pages = [p for p in (root / "README.md", root / "CHANGELOG.md")
             if p.exists()]
    for folder in ("docs", "bench", "examples"):
        pages += sorted((root / folder).rglob("*.md"))
    for page in pages:
        links += check_links(root, page, errors)
    code = [root / "CMakeLists.txt"]
    for folder in CODE_DIRS:
        code += sorted(p for p in (root / folder).rglob("*")
                       if p.suffix in CODE_SUFFIXES and p.is_file())
    for file in code + pages:
        text = file.read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            for cited in CITED.findall(line):
                citations += 1
                if not (root / cited).exists():
                    errors.append(f"{file.relative_to(root)}:{number}: "
                                  f"{cited}: no such file")
    if not pages or not links:
        errors.append("no page or no link found: wrong directory?")
    print(f"docs: {len(pages)} pages, {links} links, {citations} citations, "
          f"{len(errors)} errors")
    print("\n".join(errors))
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
