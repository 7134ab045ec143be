"""The machine code of compiled CUDA kernels, for tests that count instructions."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

from .. import _C


def tools() -> str | None:
    """A folder with cuobjdump: the machine's, or the one that Triton's package carries."""
    if found := shutil.which("cuobjdump"):
        return str(Path(found).parent)
    spec = find_spec("triton")
    folder = Path(spec.origin).parent / "backends" / "nvidia" / "bin" if spec and spec.origin else None
    return str(folder) if folder and (folder / "cuobjdump").is_file() else None


def shortest_turn(code: list[tuple[int, str]], products: int, copies: int) -> Counter:
    """The instructions of one turn of the main loop, on its shortest path with so many HMMA and LDGSTS."""
    place = {address: i for i, (address, _) in enumerate(code)}
    names = [re.sub(r"^@!?U?P\w+ ", "", text).split()[0] for _, text in code]
    first = names.index(next(n for n in names if n.startswith("HMMA")))
    last = max(i for i, n in enumerate(names) if n.startswith("HMMA"))
    jumps = {i: place[int(m[1], 16)] for i, (_, t) in enumerate(code) if (m := re.search(r"\bBRA.* (0x[0-9a-f]+)$", t))}
    back = [(i, to) for i, to in jumps.items() if i > last and to < first]
    back = [(i, to) for i, to in back if to == max(t for _, t in back)]  # of the innermost loop
    best = None
    for end, start in back:
        states = {(start, 0, 0): (0, None)}
        queue = [(start, 0, 0)]
        while queue:
            ahead = []
            for state in queue:
                i, done, copied = state
                done += names[i].startswith("HMMA")
                copied += names[i].startswith("LDGSTS")
                if i == end and (done, copied) == (products, copies):
                    path = Counter()
                    at = state
                    while at is not None:
                        path[names[at[0]]] += 1
                        at = states[at][1]
                    if best is None or path.total() < best.total():
                        best = path
                    continue
                guarded = code[i][1].startswith("@")
                following = [jumps[i]] if i in jumps else []
                if i not in jumps or guarded:
                    following.append(i + 1)
                for j in following:
                    fresh = (j, done, copied)
                    if j < len(code) and j > start and fresh not in states and done <= products and copied <= copies:
                        states[fresh] = (states[state][0] + 1, state)
                        ahead.append(fresh)
            queue = ahead
    assert best is not None
    return best


def machine_code(fatbin: str, kernel: str) -> dict[str, list[tuple[int, str]]]:
    """Addresses and instructions of a kernel, for each architecture."""
    folder = tools()
    if folder is None:
        raise RuntimeError("there is no cuobjdump on this machine, nor in Triton's package")
    text = subprocess.run(
        [f"{folder}/cuobjdump", "-sass", "-fun", kernel, str(Path(_C.cuda_info()["kernel_dir"]) / f"{fatbin}.fatbin")],
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    code: dict[str, list[tuple[int, str]]] = {}
    arch = ""
    for line in text.splitlines():
        if m := re.match(r"\s*arch = (\w+)", line):
            arch = m[1]
        elif m := re.match(r"\s+/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;", line):
            code.setdefault(arch, []).append((int(m[1], 16), m[2]))
    return code
