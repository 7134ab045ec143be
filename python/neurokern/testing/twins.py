"""Running a PTX snippet on two devices, the emulator and the driver's, and comparing what they leave in memory: bit for
bit, but for instructions of which the PTX ISA only bounds the error."""

from __future__ import annotations

import ctypes
import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from . import ptx
from .ptx import Device, DeviceError, TensorMap

# What the PTX ISA (9.0) states of approximations: result, largest relative and absolute error. The emulator's result is
# exact and rounded once, so that the other may be as far from it as this and half a unit in the last place.
APPROXIMATIONS = {
    r"ex2\.approx(\.ftz)?\.f32": ("f32", 2**-22, 0.0),
    r"lg2\.approx(\.ftz)?\.f32": ("f32", 2**-22, 2**-22),
    r"rsqrt\.approx(\.ftz)?\.f32": ("f32", 2**-22.9, 0.0),
    r"rcp\.approx(\.ftz)?\.f32": ("f32", 2**-23, 0.0),
    r"sqrt\.approx(\.ftz)?\.f32": ("f32", 2**-23, 0.0),
    r"sin\.approx(\.ftz)?\.f32": ("f32", 0.0, 2**-20.5),
    r"cos\.approx(\.ftz)?\.f32": ("f32", 0.0, 2**-20.5),
    r"tanh\.approx\.f32": ("f32", 2**-10.987, 0.0),
    r"div\.(approx|full)(\.ftz)?\.f32": ("f32", 2**-22, 0.0),  # 2 units in the last place
    r"rcp\.approx\.ftz\.f64": ("f64", 2**-20, 0.0),
    r"rsqrt\.approx\.ftz\.f64": ("f64", 2**-20, 0.0),
    r"ex2\.approx\.(atype|f16|f16x2)\b": ("f16", 2**-9.9, 0.0),
    r"ex2\.approx\.ftz\.bf16(x2)?\b": ("bf16", 2**-7, 0.0),
    r"tanh\.approx\.f16(x2)?\b": ("f16", 0.0, 2**-10.987),
    r"tanh\.approx\.bf16(x2)?\b": ("bf16", 0.0, 2**-8),
}
UNIT = {"f64": 2.0**-52, "f32": 2.0**-23, "bf16": 2.0**-7, "f16": 2.0**-10}
LEAST = {"f64": 2.0**-1022, "f32": 2.0**-126, "bf16": 2.0**-126, "f16": 2.0**-14}
# Bits behind the point that tensor cores keep of a term once it is aligned to the largest, the rest being cut off: at
# least 23 of 16 bits and of tf32 (Fasi, Higham, Mikaitis, Pranesh: Numerical behavior of NVIDIA tensor cores, 2021), 13
# of 8 bits on Hopper, accumulators included (DeepSeek-V3's report, 3.3.2). The ISA leaves precision and order open.
KEPT = {"e4m3": 13, "e5m2": 13, "f64": 52}
KEPT_OF_OTHERS = 23
BLOCK = 4  # as few products are added at once, before the sum is rounded
# The PTX ISA that a driver reads, by the version of CUDA it came with.
ISA = {13000: "9.0", 12090: "8.8", 12080: "8.7", 12070: "8.6", 12050: "8.5", 12040: "8.4", 12030: "8.3", 12020: "8.2",
       12010: "8.1", 12000: "8.0"}  # fmt: skip
REFUSED = (209, 218, 222)  # no binary for this GPU, invalid PTX, unsupported PTX version

Argument = np.ndarray | TensorMap | int
Within = ptx.Within


class Difference(AssertionError):
    """Two devices do not agree about a snippet."""


def numbers(a: np.ndarray, form: str) -> np.ndarray:
    """The bytes as numbers of a format, in double precision."""
    raw = np.ascontiguousarray(a).reshape(-1).view(np.uint8)
    if form == "bf16":
        return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return raw.view({"f64": np.float64, "f32": np.float32, "f16": np.float16}[form]).astype(np.float64)


def stated(text: str) -> Within | None:
    """The bounds of the approximations in a snippet."""
    found = [rule for pattern, rule in APPROXIMATIONS.items() if re.search(pattern, text)]
    if not found:
        return None
    form = found[0][0]
    return form, max(r[1] for r in found), max(r[2] for r in found)


def but_nan(form: str) -> Within:
    """Bit for bit, but that the rules leave open which NaN a NaN is."""
    return form, 0.0, 0.0


def sums(kind: str, result: str, a, b, c=0.0, places: tuple[np.ndarray, np.ndarray] | None = None) -> Within | None:
    """The bounds of a @ b + c on tensor cores, from the size of the terms. Whole numbers so small that no order of
    addition rounds them, and integers, are equal bit for bit.

    Args:
        kind: type of the elements of a and b, which stand here in double precision.
        places: row and column of each number of the result; without them the largest sum bounds all.
    """
    if result == "s32":
        return None
    a, b, c = (np.asarray(x, np.float64) for x in (a, b, c))
    terms = np.abs(a) @ np.abs(b) + np.abs(c)
    kept, count = 2.0 ** -KEPT.get(kind, KEPT_OF_OTHERS), a.shape[-1]
    unit = max(kept, UNIT[result])
    if terms.max() <= 1 / unit and all((x == np.trunc(x)).all() for x in (a, b, c)):
        return None
    absolute = terms * ((count + 1) * kept + max(1, count // BLOCK) * unit)
    return result, 0.0, float(absolute.max()) if places is None else absolute[places].reshape(-1)


def disagreement(one: np.ndarray, two: np.ndarray, within: Within | None) -> str | None:
    """What is wrong with the second device's array, or None."""
    a, b = (np.ascontiguousarray(x).reshape(-1).view(np.uint8) for x in (one, two))
    if (a == b).all():
        return None
    # bounds for each number are those of one argument, the result
    if within is None or (np.ndim(within[2]) and np.size(within[2]) != len(numbers(one, within[0]))):
        at = int(np.flatnonzero(a != b)[0]) // one.itemsize
        return f"element {at} is {two.reshape(-1)[at]!r}, on the emulator {one.reshape(-1)[at]!r}"
    form, relative, absolute = within
    x, y = numbers(one, form), numbers(two, form)
    same = (a == b).reshape(len(x), -1).all(1) | (np.isnan(x) & np.isnan(y))
    exact = relative == 0 and np.ndim(absolute) == 0 and absolute == 0  # see but_nan
    with np.errstate(invalid="ignore"):
        allowed = np.abs(x) * 0 if exact else np.abs(x) * (relative + UNIT[form]) + absolute + LEAST[form]
        wrong = ~same & (exact | ~(np.isfinite(x) & (np.abs(x - y) <= allowed)))
    if not wrong.any():
        return None
    at = int(np.flatnonzero(wrong)[0])
    return f"element {at} is {y[at]!r}, on the emulator {x[at]!r}, allowed are {allowed[at]:.3g}"


def copies(arguments: Sequence[Argument]) -> list[Argument]:
    """With arrays of their own; those that occur twice, in a tensor map perhaps, do so here."""
    own: dict[int, np.ndarray] = {}

    def copy(a: np.ndarray) -> np.ndarray:
        return own.setdefault(id(a), a.copy())

    return [
        a if isinstance(a, int) else replace(a, array=copy(a.array)) if isinstance(a, TensorMap) else copy(a)
        for a in arguments
    ]


def readable(text: str, device: Device) -> str:
    """The snippet in the newest version of PTX that the device's driver reads."""
    version = ctypes.c_int()
    device.call("cuDriverGetVersion", ctypes.byref(version))
    isa = next((isa for since, isa in ISA.items() if version.value >= since), "8.0")
    return re.sub(r"\.version \d+\.\d+", f".version {isa}", text, count=1)


class Twins(Device):
    """The first device, with every launch repeated on the second one and compared."""

    def __init__(self, first: Device, second: Device, record: Path | None = None, test: str = "") -> None:
        self.first, self.second = first, second
        self.library, self.modules = first.library, first.modules
        self.record, self.test = record, test
        self.counts = {"launches": 0, "bytes equal": 0, "bytes within bounds": 0, "refused": 0}
        self.differences: list[str] = []

    def launch(self, text: str, arguments: Sequence[Argument], *, within=None, fresh=(), **options) -> None:
        twins = copies(arguments)
        self.first.launch(text, arguments, fresh=fresh, **options)
        self.counts["launches"] += 1
        if ".version" not in text:
            text = ptx.HEADER + text
        try:
            self.second.launch(readable(text, self.second), twins, fresh=fresh, **options)
        except DeviceError as error:
            if error.code not in REFUSED:
                # behind an error of the launch the device is as it was, behind one of the kernel nothing runs any more
                if self.second.lost or self.second.library.cuCtxSynchronize():
                    self.second.lost = f"{self.test}: {error}"
                raise
            self.counts["refused"] += 1
            return
        bounds = stated(text) or within
        for k, (a, b) in enumerate(zip(arguments, twins, strict=True)):
            if isinstance(a, int) or k in fresh:
                continue
            assert not isinstance(b, int)
            a, b = (x.array if isinstance(x, TensorMap) else x for x in (a, b))
            if (what := disagreement(a, b, bounds)) is not None:
                self.differences.append(f"argument {k}: {what}")
                raise Difference(f"argument {k}: {what}, of\n{text}")
            equal = int((a.reshape(-1).view(np.uint8) == b.reshape(-1).view(np.uint8)).sum())
            self.counts["bytes equal"] += equal
            self.counts["bytes within bounds"] += a.nbytes - equal

    def note(self) -> None:
        """One line of the record for this test."""
        if self.record is not None:
            line = {"test": self.test, "device": self.second.name, **self.counts, "differences": self.differences}
            with self.record.open("a") as file:
                file.write(json.dumps(line) + "\n")


@contextmanager
def compared(second: Device, record: Path | None = None, test: str = "") -> Iterator[Twins]:
    """Within the block, `ptx.emulator()` repeats each launch on the second device and raises `Difference`."""
    twins = Twins(ptx.emulator(), second, record, test)
    before, ptx.in_force.device = ptx.in_force.device, twins
    try:
        yield twins
    finally:
        ptx.in_force.device = before
        twins.note()


def summary(record: Path) -> str:
    """What a record says in all, and where devices disagreed or a snippet was refused."""
    lines = [json.loads(text) for text in record.read_text().splitlines()]
    counts = {name: sum(line[name] for line in lines) for name in lines[0] if isinstance(lines[0][name], int)}
    text = [f"{lines[0]['device']}: {len(lines)} tests, " + ", ".join(f"{n} {name}" for name, n in counts.items())]
    text += [f"{line['test']}: {what}" for line in lines for what in line["differences"]]
    text += [f"{line['test']}: {line['refused']} refused" for line in lines if line["refused"]]
    return "\n".join(text)


if __name__ == "__main__":
    print(summary(Path(sys.argv[1])))
