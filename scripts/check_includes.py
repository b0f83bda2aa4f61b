#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks that a folder includes only the folders below it, and that a library stays behind its wall."""

import pathlib
import re
import sys

ALLOWED = {
    "core": {"core"},
    "parallel": {"core", "parallel"},
    "layers": {"core", "parallel", "layers"},
    "io": {"core", "parallel", "io"},
    "app": {"core", "parallel", "layers", "io", "app"},
    "tests": {"core", "parallel", "layers", "io", "app", "tests"},
}

# Where a header of somebody else may be included: whole folders, or single files without suffix.
# Tests may look behind a wall when they check what stands there.
WALLED = {
    "mpi.h": {"parallel", "io"},
    "hdf5": {"io", "tests"},
    "H5": {"io", "tests"},
    "yaml-cpp/": {"io"},
    "nlohmann/": {"io", "tests"},
    "xxhash": {"io"},
    "zlib.h": {"io"},
    "zstd.h": {"io"},
    "pcre2.h": {"io"},
    "utf8proc": {"io"},
    "CLI/": {"app"},
    "gtest/": {"tests"},
    "gmock/": {"tests"},
    "dnnl": {"core/matmul"},
    "oneapi/": {"core/matmul"},
    "cublas": {"core/matmul"},
    "hipblas": {"core/matmul"},
    "rocblas": {"core/matmul"},
}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
SOURCES = (".hpp", ".cpp", ".cu", ".hip", ".h", ".c")


def behind_wall(relative, homes):
    """core/matmul stands for core/matmul.cpp, core/matmul_onednn.cpp and the folder core/matmul."""
    return any(
        relative.startswith(home + "/") or ("/" in home and relative.startswith(home)) for home in homes
    )


def violations(root):
    for folder, allowed in ALLOWED.items():
        for path in sorted((root / folder).rglob("*")):
            if path.suffix not in SOURCES:
                continue
            relative = path.relative_to(root).as_posix()
            text = path.read_text(encoding="utf-8", errors="replace")
            for number, line in enumerate(text.splitlines(), start=1):
                where = f"{relative}:{number}"
                if "MPI_COMM_WORLD" in line and not relative.startswith("parallel/runtime"):
                    yield f"{where}: MPI_COMM_WORLD is walled into parallel/runtime"
                match = INCLUDE.match(line)
                if not match:
                    continue
                quote, target = match.groups()
                if quote == '"' and target.split("/")[0] not in allowed:
                    yield f"{where}: {folder}/ may not include \"{target}\" (paths start at the root of the tree)"
                for prefix, homes in WALLED.items():
                    if target.startswith(prefix) and not behind_wall(relative, homes):
                        yield f"{where}: <{target}> is walled into {', '.join(sorted(homes))}"


if __name__ == "__main__":
    start = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parent.parent
    found = list(violations(start))
    for violation in found:
        print(violation)
    sys.exit(bool(found))
