"""Finds nvcc, runs it on one file, and reads what ptxas says of registers, spills and shared memory.

nvcc.py find                                        candidates, best first, one a line
nvcc.py compile NVCC SOURCE OUT -- [NVCC ARGS]      OUT.fatbin, OUT.d, OUT.resources.txt
nvcc.py collect RESOURCES.json NVCC BASE RESOURCES.txt...
                                                    one table of all kernels; beside it build.txt, for csrc/driver:
                                                    nvcc's version, BASE, and what each fatbin has code for
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path


def find() -> list[str]:
    """The nvcc that the user names, the machine's, or the one among the PyPI wheels."""
    named = [os.environ.get(name) for name in ("CUDACXX", "NVCC")]
    machine = [shutil.which("nvcc"), "/usr/local/cuda/bin/nvcc"]
    wheels = []
    places = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *sys.path]
    for place in dict.fromkeys(p for p in places if p):
        wheels += sorted(map(str, Path(place).glob("nvidia/cu1*/bin/nvcc")), reverse=True)
    found = []
    for candidate in [*named, *machine, *wheels]:
        path = shutil.which(candidate) if candidate else None
        if path and path not in found:
            found.append(path)
    return found


def includes(source: Path, seen: dict[Path, bytes] | None = None) -> dict[Path, bytes]:
    """The file and every header of ours that it includes, directly or not, with their contents."""
    seen = {} if seen is None else seen
    path = source.resolve()
    if path in seen or not path.is_file():
        return seen
    seen[path] = path.read_bytes()
    for header in re.findall(rb'^\s*#\s*include\s+"([^"]+)"', seen[path], re.MULTILINE):
        includes(path.parent / header.decode(), seen)
    return seen


def cache_folder() -> Path | None:
    """Where compiled kernels are kept between build folders; None when NEUROKERN_CUDA_CACHE is "off"."""
    named = os.environ.get("NEUROKERN_CUDA_CACHE")
    if named == "off":
        return None
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(named) if named else Path(base) / "neurokern" / "nvcc"


def in_makefile(path: Path | str) -> str:
    """A file's name as a rule of make has to write it."""
    return re.sub(r"([ #])", r"\\\1", str(path)).replace("$", "$$")


def compile_one(nvcc: str, source: str, out: str, arguments: list[str]) -> int:
    """One .cu to one fatbin; ptxas's report goes to a file, errors to the terminal.

    What was compiled before from the same sources by the same nvcc is taken from the cache.
    """
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    command = [nvcc, "-fatbin", "-std=c++20", "-O3", "-Xptxas=-v", "--expt-relaxed-constexpr", *arguments]
    files = includes(Path(source))
    dependencies = " ".join(map(in_makefile, files))
    Path(f"{out}.d").write_text(f"{in_makefile(out)}.fatbin: {dependencies}\n")

    start = time.perf_counter()
    version = subprocess.run([nvcc, "--version"], capture_output=True, check=True).stdout
    added = [os.environ.get(f"NVCC_{place}_FLAGS", "") for place in ("PREPEND", "APPEND")]  # nvcc reads them itself
    words = [a.encode() for a in (*added, *command[1:])]
    key = hashlib.sha256(b"\0".join([version, *words, *files.values()])).hexdigest()
    folder = cache_folder()
    cached = [folder / f"{key}{ending}" for ending in (".fatbin", ".resources.txt")] if folder else []
    made = [Path(f"{out}.fatbin"), Path(f"{out}.resources.txt")]
    if cached and all(path.is_file() for path in cached):
        for old, new in zip(cached, made, strict=True):
            new.write_bytes(old.read_bytes())
        print(f"CUDA: {Path(out).name}: as compiled before", flush=True)
        return 0

    done = subprocess.run(
        [*command, "-o", f"{out}.fatbin", source], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        print(f"{' '.join(command)}\n{done.stdout}", file=sys.stderr)
        return done.returncode
    made[1].write_text(done.stdout)
    keep(cached, made)
    warnings = [line for line in done.stdout.splitlines() if "warning" in line]
    kernels = len(set(re.findall(r"Compiling entry function '(\w+)'", done.stdout)))
    seconds = time.perf_counter() - start
    print("\n".join([*warnings, f"CUDA: {Path(out).name}: {kernels} kernels in {seconds:.1f} s"]), flush=True)
    return 0


def keep(cached: list[Path], made: list[Path]) -> None:
    """Copies results into the cache, each at once, so that builds side by side see whole files; failing is no harm."""
    try:
        for target, source in zip(cached, made, strict=bool(cached)):
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_suffix(f".{os.getpid()}")
            partial.write_bytes(source.read_bytes())
            partial.replace(target)
    except OSError:
        pass


def parse(text: str) -> list[dict]:
    """One row per kernel and architecture from the output of `ptxas -v`."""
    rows: list[dict] = []
    row: dict = {}
    entry = ""
    for line in text.splitlines():
        if m := re.search(r"Compiling entry function '(\w+)' for '(\w+)'", line):
            entry = m[1]
            row = {"kernel": m[1], "arch": m[2], "registers": 0, "stack": 0, "spill_stores": 0,
                   "spill_loads": 0, "shared": 0}  # fmt: skip
            rows.append(row)
        elif m := re.search(r"Function properties for (\w+)", line):
            entry = m[1]
        elif m := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            # A function that kernels call counts towards each of them, as their sum tells whether anything spills.
            target = row if entry == row.get("kernel") else row.setdefault("callees", {}).setdefault(entry, {})
            target.update(stack=int(m[1]), spill_stores=int(m[2]), spill_loads=int(m[3]))
        elif m := re.search(r"Used (\d+) registers", line):
            row["registers"] = int(m[1])
            if m := re.search(r"(\d+) bytes smem", line):
                row["shared"] = int(m[1])
    return rows


def version_of(nvcc: str) -> str:
    """The toolkit's, such as 13.0: what it makes is for drivers of that version and later ones."""
    text = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"release (\d+\.\d+)", text)
    return found[1] if found else ""


def collect(target: str, nvcc: str, base: str, records: list[str]) -> None:
    """All reports as one JSON file, kept beside the fatbins, and what the driver side has to know of them in build.txt.

    Its lines: "nvcc <version>", "ptx <base>", and for each fatbin its name, the architecture of its PTX, and those of
    its machine code.
    """
    table, lines = {}, [f"nvcc {version_of(nvcc)}", f"ptx {base}"]
    for record in sorted(records):
        name = Path(record).name.removesuffix(".resources.txt")
        table[name] = parse(Path(record).read_text())
        own = re.search(r"_sm(\d+a)$", name)  # for one architecture alone
        lines.append(" ".join([name, own[1] if own else base, *sorted({r["arch"][3:] for r in table[name]})]))
    Path(target).write_text(json.dumps(table, indent=1) + "\n")
    Path(target).with_name("build.txt").write_text("\n".join(lines) + "\n")


def main(arguments: list[str]) -> int:
    match arguments:
        case ["find"]:
            print("\n".join(find()))
        case ["compile", nvcc, source, out, "--", *rest]:
            return compile_one(nvcc, source, out, rest)
        case ["collect", target, nvcc, base, *records]:
            collect(target, nvcc, base, records)
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
