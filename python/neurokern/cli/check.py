"""``neurokern check``: every op against float64, by the rule and on the samples of the test suite."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import torch

from .. import _C
from ..backends.choice import BACKENDS
from ..bench.console import Failure, pick, progress, roughly, say, table
from ..bench.machine import DTYPES
from ..testing import OpSpec, Target, all_specs, evaluate, expected, judge, ulp
from ..testing.run import Expected
from . import counters

#: that an op takes on a backend of a laptop's two cores, in all dtypes
SECONDS = {"cpu": 0.9, "cuda": 1.0, "triton": 10.0}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def _specs(names: Sequence[str]) -> list[OpSpec]:
    known = {s.name for s in all_specs()} | {s.id for s in all_specs()}
    for name in names:
        pick("op", name, known)
    return [s for s in all_specs() if not names or s.name in names or s.id in names]


def _targets(name: str | None) -> list[Target]:
    """The backend asked for, or all that can run; the CPU at the instruction set in force."""
    if name is not None:
        pick("backend", name, BACKENDS)
    rows = [b for b in BACKENDS if name in (None, b)]
    found = [Target(b, _C.cpu_level() if b == "cpu" else "") for b in rows]
    if name is not None and (why := found[0].missing()):
        raise Failure(f"backend {name} can't run here: {why}")
    return [t for t in found if t.missing() is None]


def _dtypes(name: str | None) -> list[torch.dtype]:
    return [DTYPES[pick("dtype", name, DTYPES)]] if name is not None else list(DTYPES.values())


def count(ops: Sequence[str], dtype: str | None, seed: int | None) -> None:
    """Print what each CUDA kernel does on the samples of the ops; the same seed (0) each time unless one is given.

    Raises:
        Failure: an unknown name; no emulator.
    """
    counters.run(_specs(ops), _dtypes(dtype), seed or 0)


def _errors(spec: OpSpec, want: Expected) -> tuple[float, float]:
    """Largest error of the output, ours and torch's, in units of the last place (of what was summed, for sums)."""
    (_, ours), (_, theirs), r = evaluate(spec.op, want.sample, 0, want.cotangents)[0], want.torch[0], want.results[0]
    unit = ulp(torch.maximum(r.reference.abs(), r.scale), theirs.dtype)
    found = []
    for result in (ours, theirs):
        off = (result.detach().double().flatten() - r.reference).abs() / unit
        off = off[off.isfinite()]
        found.append(float(off.max()) if off.numel() else 0.0)
    return found[0], found[1]


def run(ops: Sequence[str], backend: str | None, dtype: str | None, seed: int | None) -> None:
    """Compare, print one row per op and backend, and judge.

    Raises:
        Failure: an unknown name; a backend that can't run; an op that is wrong.
    """
    specs, targets, dtypes = _specs(ops), _targets(backend), _dtypes(dtype)
    seed = secrets.randbelow(1 << 31) if seed is None else seed
    pairs = [(s, t) for s in specs for t in targets if t.backend in s.backends]
    took = sum(SECONDS.get(t.backend, SECONDS["cuda"]) for _, t in pairs) * len(dtypes) / len(DTYPES)
    say(f"{len(specs)} ops on {', '.join(t.id for t in targets)}, compared with float64: {roughly(took)}")
    rows, styles, wrong, stopped = [], [], [], False
    try:
        with progress() as bars:
            bar = bars.add_task("comparing with float64", total=len(pairs), status="")
            for spec, target in pairs:
                bars.update(bar, status=f"{spec.id} on {target.id}")
                cells, words = [], []
                for d in dtypes:
                    cell, what = _compare(spec, target, d, seed) if d in spec.dtypes else ("", [])
                    cells.append(cell)
                    words += what
                bars.advance(bar)
                rows.append((spec.id, target.id, *cells, f"{len(words)} wrong" if words else "right"))
                styles.append("red" if words else "")
                wrong += [f"{spec.id} on {target.id}, {w}" for w in words]
    except KeyboardInterrupt:
        stopped = True
    columns = ("op", "backend", *(f">{NAMES[d]}" for d in dtypes), "output and gradients")
    table(
        f"largest error of the output in units of the last place, ours / torch's (seed {seed})", columns, rows, styles
    )
    if torch.float64 in dtypes:
        say("  reference: in f64, torch's own result is what ours is compared with")
    for line in wrong[:20]:
        say(f"  {line}", "red")
    if stopped:
        raise Failure(f"interrupted after {len(rows)} of {len(pairs)} (again with --seed {seed})", 130)
    if wrong:
        raise Failure(f"{len(wrong)} comparisons failed (again with --seed {seed})")


def _compare(spec: OpSpec, target: Target, dtype: torch.dtype, seed: int) -> tuple[str, list[str]]:
    """The cell of one dtype, and what is wrong with output or gradient of its samples."""
    order = 1 if spec.differentiable else 0
    errors, words = [(0.0, 0.0)], []
    with target.active():
        for want in expected(spec, dtype, target.device, seed, order):
            if not target.takes(want.sample, order):
                continue
            try:
                words += judge(spec, want, order)
                errors.append(_errors(spec, want))
            except Exception as error:
                words.append(f"sample '{want.sample.why}': {type(error).__name__}: {error}")
    mine, theirs = (max(e[k] for e in errors) for k in (0, 1))
    beside = "reference" if dtype == torch.float64 else f"{theirs:.2f}"
    return f"{mine:.2f} / {beside}", [f"{NAMES[dtype]}: {w}" for w in words]
