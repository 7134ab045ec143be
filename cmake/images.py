"""Packs the PTX of a fatbin again, each kernel by itself: the driver then compiles what is launched, and nothing else.

images.py split NVCC FATBIN OUT     an image for each kernel of FATBIN, behind an index

OUT begins with a line for each kernel, "<kernel> <offset> <bytes>", and an empty line; offsets count from behind it.
"""

from __future__ import annotations

import re
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

MAGIC = 0xBA55ED50
PTX = 1  # kind of an entry
LZ4, ZSTD = 0x2000, 0x8000  # how it is compressed
WORD = re.compile(r"[A-Za-z_$%][\w$]*")
FUNCTION = re.compile(r"\.(entry|func)\b\s*(?:\.noreturn\s*)?(?:\([^)]*\)\s*)?([\w$]+)")
VARIABLE = re.compile(r"([\w$]+)\s*(?:\[[^\]]*\]\s*)*(?:=|;|$)")


def lz4(packed: bytes, size: int) -> bytes:
    """The LZ4 block format: literals, then a match that may overlap what it writes."""
    out, at = bytearray(), 0

    def length(n: int) -> int:
        nonlocal at
        more = 255 if n == 15 else 0
        while more == 255:
            more = packed[at]
            at += 1
            n += more
        return n

    while True:
        token = packed[at]
        at += 1
        literals = length(token >> 4)
        out += packed[at : at + literals]
        at += literals
        if len(out) >= size:
            return bytes(out)
        back = packed[at] | packed[at + 1] << 8
        at += 2
        count = length(token & 15) + 4
        start = len(out) - back
        while count:
            piece = out[start : start + count]
            out += piece
            count -= len(piece)


def ptx_of(fatbin: bytes) -> str:
    """The PTX text in it, of the newest architecture.

    Raises:
        ValueError: it is no fatbin, or has no PTX that can be read.
    """
    magic, _, header, size = struct.unpack_from("<IHHQ", fatbin)
    if magic != MAGIC:
        raise ValueError("no fatbin")
    at, best = header, (-1, "")
    while at + 64 <= header + size:
        kind, _, head, padded, packed, _, _, _, arch, _, _, flags, _, plain = struct.unpack_from(
            "<HHIQIIHHIIIQQQ", fatbin, at
        )
        data = fatbin[at + head : at + head + padded]
        if kind == PTX and arch > best[0]:
            if flags & ZSTD:
                raise ValueError("its PTX is compressed by zstd, expected LZ4 (nvcc --compress-mode=speed)")
            text = lz4(data[:packed], plain) if flags & LZ4 else data
            best = arch, text.rstrip(b"\0").decode()
        at += head + padded
    if best[0] < 0:
        raise ValueError("it has no PTX")
    return best[1]


def items(text: str) -> Iterator[str]:
    """Functions and variables of a PTX module, whole, in their order; what only debuggers read is left out."""
    text = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.S)
    text = re.sub(r"^[ \t]*\.loc\b[^\n]*\n|^[ \t]*\.file\b[^\n]*\n", "", text, flags=re.M)
    text = re.sub(r"^[ \t]*\.section\b[^{]*\{.*?^[ \t]*\}[ \t]*$", "", text, flags=re.M | re.S)
    start = depth = 0
    for m in re.finditer(r"[{};]", text):
        depth += {"{": 1, "}": -1, ";": 0}[m[0]]
        initial = m[0] == "}" and text[m.end() :].lstrip().startswith(";")  # of a variable
        if depth == 0 and not initial:
            yield text[start : m.end()].strip("\n")
            start = m.end()
    if text[start:].strip():
        raise ValueError(f"PTX that ends in the middle of {text[start:].strip()[:60]!r}")


def split(text: str) -> dict[str, str]:
    """A module for each kernel: what it needs of functions and variables, and nothing else.

    Raises:
        ValueError: the text is no PTX.
    """
    head = re.search(r"\.version[^\n]*\n\s*\.target[^\n]*\n\s*\.address_size[^\n]*\n", text)
    if head is None:
        raise ValueError("no PTX: there are no .version, .target and .address_size")
    parts = list(items(text[head.end() :]))
    named: dict[str, list[int]] = {}
    kernels = {}
    for number, part in enumerate(parts):
        front = part.partition("{")[0].partition("=")[0]
        function = FUNCTION.search(front)
        name = function[2] if function else VARIABLE.search(front)[1]
        if function and function[1] == "entry":
            kernels[name] = number
        named.setdefault(name, []).append(number)
    needs = [{i for word in set(WORD.findall(part)) for i in named.get(word, ())} for part in parts]

    def module(kernel: int) -> str:
        wanted, open_ = set(), [kernel]
        while open_:
            number = open_.pop()
            if number not in wanted:
                wanted.add(number)
                open_ += needs[number]
        return head[0] + "\n" + "\n".join(parts[i] for i in sorted(wanted)) + "\n"

    return {name: module(number) for name, number in kernels.items()}


def fatbinary_of(nvcc: str) -> str:
    """The tool beside nvcc, which itself says where that is: what was found may be a script that calls it."""
    done = subprocess.run(
        [nvcc, "--dryrun", "-fatbin", "-x", "cu", "/dev/null", "-o", "/dev/null"], capture_output=True, text=True
    )
    here = re.search(r"^#\$ _HERE_=(.+)$", done.stderr, re.M)
    if here is None:
        raise ValueError(f"{nvcc} --dryrun does not say where it is: {done.stderr[:200]}")
    return str(Path(here[1]) / "fatbinary")


def pack(nvcc: str, modules: dict[str, str], out: Path) -> None:
    """Each module as a fatbin of its own, compressed, all of them in one file behind their index."""
    tool = fatbinary_of(nvcc)
    index, images, offset = [], [], 0
    with tempfile.TemporaryDirectory() as folder:
        source, image = Path(folder) / "kernel.ptx", Path(folder) / "kernel.fatbin"
        for name, text in sorted(modules.items()):
            source.write_text(text)
            arch = re.search(r"\.target\s+sm_(\w+)", text)[1]
            what = f"--image3=kind=ptx,sm={arch},file={source}"
            subprocess.run([tool, f"--create={image}", "-64", "--compress-mode=speed", what], check=True)
            images.append(image.read_bytes())
            index.append(f"{name} {offset} {len(images[-1])}\n")
            offset += len(images[-1])
    out.write_bytes("".join([*index, "\n"]).encode() + b"".join(images))


def main(arguments: list[str]) -> int:
    match arguments:
        case ["split", nvcc, fatbin, out]:
            pack(nvcc, split(ptx_of(Path(fatbin).read_bytes())), Path(out))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
