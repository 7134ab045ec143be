"""``neurokern check --counters``: what each CUDA kernel does on the samples of the specs, counted by the emulator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch

from ..backends import emulation
from ..bench.console import Failure, progress, roughly, say, table
from ..testing import OpSpec, Target, evaluate
from ..testing.run import cotangents, samples_of
from ..testing.spec import Maker

SECTOR = 32
SECONDS = 0.1  # that an op takes in a dtype, on two cores


def count(
    specs: Sequence[OpSpec], dtypes: Sequence[torch.dtype], seed: int
) -> tuple[dict[str, Counter[str]], dict[str, set[str]]]:
    """The sums of the counters of each kernel, with "launches" among them, and the specs that launch it; every sample
    with its gradients.
    """
    target = Target("cuda", emulated=True)
    say(f"{len(specs)} ops on the emulator: {roughly(SECONDS * len(specs) * len(dtypes))}")
    sums: dict[str, Counter[str]] = {}
    used: dict[str, set[str]] = {}
    with progress() as bars:
        bar = bars.add_task("counting on the emulator", total=len(specs), status="")
        for spec in specs:
            bars.update(bar, status=spec.id)
            order = 1 if spec.differentiable else 0
            for dtype in (d for d in dtypes if d in spec.dtypes):
                make = Maker.seeded(seed, spec.id, order, dtype=dtype, device=target.device)
                for sample in (s for s in samples_of(spec, make, order) if not s.heavy):
                    g = cotangents(make, spec.torch, sample)
                    emulation.record(True)
                    try:
                        with target.active():
                            evaluate(spec.op, sample, order, g)
                        launches = emulation.take()
                    finally:
                        emulation.record(False)
                    for launch in launches:
                        sums.setdefault(launch.kernel, Counter()).update({"launches": 1, **launch.counters})
                        used.setdefault(launch.kernel, set()).add(spec.id)
            bars.advance(bar)
    return sums, used


def ratio(c: Counter[str], direction: str) -> str:
    """Bytes of the sectors that were touched over the bytes that were requested."""
    requested = c[f"global bytes {direction}"]
    return f"{SECTOR * c[f'global sectors {direction}'] / requested:.3f}" if requested else ""


def run(specs: Sequence[OpSpec], dtypes: Sequence[torch.dtype], seed: int) -> None:
    """Count and print two tables, one row per kernel.

    Raises:
        Failure: there is no emulator in this build.
    """
    if (why := Target("cuda", emulated=True).missing()) is not None:
        raise Failure(f"--counters runs the CUDA kernels on the emulator: {why}")
    sums, used = count([s for s in specs if "cuda" in s.backends], dtypes, seed)
    rows = sorted(sums.items())
    others = [name for name in emulation.CLASSES if name != "matrix"]
    table(
        f"instructions of warps, by class (seed {seed})",
        ("kernel", ">launches", *(f">{name}" for name in others), ">tensor cores"),
        [
            (kernel, c["launches"], *(c[f"{name} instructions"] for name in others), c["matrix instructions"])
            for kernel, c in rows
        ],
    )
    table(
        f"memory: bytes requested, 32-byte sectors touched, their bytes over those requested (seed {seed})",
        (
            "kernel", ">bytes read", ">sectors", ">ratio", ">bytes written", ">sectors", ">ratio", ">shared bytes",
            ">bank conflicts", ">async bytes", ">barriers",
        ),
        [
            (
                kernel, c["global bytes read"], c["global sectors read"], ratio(c, "read"), c["global bytes written"],
                c["global sectors written"], ratio(c, "written"), c["shared bytes"], c["bank conflicts"],
                c["async bytes"], c["barriers"],
            )
            for kernel, c in rows
        ],
    )  # fmt: skip
    specs_run = len(set().union(*used.values())) if used else 0
    say(f"kernels: {len(rows)}, launches: {sum(c['launches'] for c in sums.values())}, ops: {specs_run}")
