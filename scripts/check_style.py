#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks what a tool can check of the style: format, licence lines, names, paths; reports lengths and TODOs.

    scripts/check_style.py          check
    scripts/check_style.py --fix    let clang-format rewrite the C++ files first
"""

import ast
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
CLANG_FORMAT = "14"
LONG_FILE = 600  # lines; reported, not refused

LICENCE = "SPDX-License-Identifier: Apache-2.0"
SOURCE = {".cpp", ".hpp"}
TEXT = SOURCE | {".py", ".sh", ".cmake", ".in", ".md", ".yaml", ".yml", ".txt", ".json", ""}
NO_LICENCE_LINE = {"LICENSE", "CMakePresets.json"}  # the text itself; JSON has no comments
FORBIDDEN_NAMES = {"utils", "util", "misc", "common", "helpers", "helper"}
MACHINE_PATH = re.compile(r"(?<![\w.$}])/(work|root|home/\w+)/")
NETWORK = re.compile(r"\b(https?|ftp|git|ssh)://")
TODO = re.compile(r"\bTODO\b(\(\S[^)]*\))?")


def tracked_files():
    """What git knows and what it would add; without git (a release archive) everything but build/."""
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True, text=True)
    if listed.returncode == 0:
        names = listed.stdout.splitlines()
    else:
        names = [p.relative_to(ROOT).as_posix() for p in ROOT.rglob("*")]
        names = [n for n in names if not n.startswith(("build/", "out/", ".git/"))]
    paths = [ROOT / name for name in sorted(set(names))]
    return [p for p in paths if p.is_file() and "data" not in p.relative_to(ROOT).parts]


def clang_format():
    for name in (f"clang-format-{CLANG_FORMAT}", "clang-format"):
        if shutil.which(name):
            version = subprocess.run([name, "--version"], capture_output=True, text=True).stdout
            if f"version {CLANG_FORMAT}." in version:
                return name
    return None


def format_violations(files, fix):
    tool = clang_format()
    if tool is None:
        yield f"clang-format {CLANG_FORMAT} was not found; other versions format differently. " \
              f"On Debian: apt-get install clang-format-{CLANG_FORMAT}"
        return
    if fix:
        subprocess.run([tool, "-i", *files], check=True)
    result = subprocess.run([tool, "--dry-run", "--ferror-limit=1", *files], capture_output=True, text=True)
    for line in result.stderr.splitlines():
        match = re.match(r"(.*?):(\d+):\d+: (?:warning|error): code should be clang-formatted", line)
        if match:
            path = pathlib.Path(match.group(1)).relative_to(ROOT)
            yield f"{path}:{match.group(2)}: not formatted; scripts/check_style.py --fix does it"


def file_violations(path):
    name = path.relative_to(ROOT).as_posix()
    if path.stem.lower() in FORBIDDEN_NAMES or set(path.relative_to(ROOT).parts) & FORBIDDEN_NAMES:
        yield f"{name}: a file or folder is named after its subject, not 'utils' or the like"
    if path.suffix not in TEXT:
        return
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        return
    if not lines:
        yield f"{name}: empty"
        return
    first = lines[1] if lines[0].startswith("#!") and len(lines) > 1 else lines[0]
    if path.name not in NO_LICENCE_LINE and LICENCE not in first:
        yield f"{name}:1: the first line is to be '{LICENCE}' in a comment"
    if path.name == "LICENSE":
        return
    for number, line in enumerate(lines, start=1):
        if MACHINE_PATH.search(line):
            yield f"{name}:{number}: a path of one machine"
        if NETWORK.search(line) and name != "scripts/check_style.py":
            yield f"{name}:{number}: a network address"
        if path.suffix in SOURCE | {".py", ".sh", ".cmake", ""} and line != line.rstrip():
            yield f"{name}:{number}: blanks at the end of the line"
        if "<<<<<<<" in line and path.suffix in SOURCE:
            yield f"{name}:{number}: unresolved merge"
        for todo in TODO.finditer(line) if path.suffix in SOURCE else ():
            if not todo.group(1):
                yield f"{name}:{number}: TODO without an issue, a version or an event: TODO(#123)"
    if path.suffix == ".hpp" and "#pragma once" not in lines:
        yield f"{name}: no #pragma once"
    if path.suffix == ".py":
        try:
            ast.parse("\n".join(lines))
        except SyntaxError as error:
            yield f"{name}:{error.lineno}: {error.msg}"
    if lines[0].endswith("bash") and subprocess.run(["bash", "-n", path]).returncode != 0:
        yield f"{name}: bash does not parse it"


def report(files):
    sources = [p for p in files if p.suffix in SOURCE]
    lengths = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in sources}
    todos = sum(len(TODO.findall(p.read_text(encoding="utf-8"))) for p in sources)
    print(f"style: {len(sources)} C++ files, {sum(lengths.values())} lines, {todos} TODO")
    for path, length in sorted(lengths.items(), key=lambda item: -item[1]):
        if length > LONG_FILE:
            print(f"style: {path.relative_to(ROOT)} has {length} lines; past {LONG_FILE} a file usually has two subjects")


def main():
    files = tracked_files()
    sources = [p for p in files if p.suffix in SOURCE]
    found = list(format_violations(sources, "--fix" in sys.argv)) if sources else []
    for path in files:
        found.extend(file_violations(path))
    for violation in found:
        print(violation)
    report(files)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
