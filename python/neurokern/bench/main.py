"""A benchmark run from its options to its tables; needs nothing but torch (rich and matplotlib where they are)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from ..ops.backends import BACKENDS
from .cases import Case
from .console import Failure, pick, progress, say, table
from .machine import DTYPES, commit
from .report import show_cases, show_summary, slowest
from .runner import Record, Run
from .suites import SUITES, Suite
from .timing import FULL, QUICK


def chosen_cases(
    family: str | None, names: Sequence[str], device: str, dtype: str | None, quick: bool
) -> list[tuple[Suite, list[Case]]]:
    """The suites and cases that the options ask for.

    Raises:
        Failure: no family, suite or dtype has that name, or nothing is left.
    """
    if family is not None:
        pick("family", family, {s.family for s in SUITES})
    for name in names:
        pick("suite", name, (s.name for s in SUITES))
    if dtype is not None:
        pick("dtype", dtype, DTYPES)
    suites = [s for s in SUITES if (family in (None, s.family)) and (not names or s.name in names)]
    found = [(s, [c for c in s.cases(device, quick) if dtype in (None, c.dtype)]) for s in suites]
    found = [(s, cases) for s, cases in found if cases]
    if not found:
        raise Failure("no case fits these options (see neurokern bench --list)", 2)
    return found


def thread_counts(text: str | None, device: str, quick: bool) -> list[int]:
    """``"1,2"`` as numbers; default: 1 and 2 (as many as there are), only the larger when quick.

    Raises:
        Failure: not numbers above zero.
    """
    if device == "cuda":
        return [torch.get_num_threads()]
    if text is None:
        most = min(2, torch.get_num_threads())
        return [most] if quick else sorted({1, most})
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1:
        raise Failure(f"--threads is {text!r}, expected numbers above zero, as in 1,2", 2)
    return counts


def check_device(device: str) -> None:
    """Raises Failure unless the device is one of ours and here."""
    pick("device", device, ("cpu", "cuda"))
    if device == "cuda":
        why = "torch sees no GPU" if not torch.cuda.is_available() else BACKENDS["cuda"].missing()
        if why is not None:
            raise Failure(f"can't benchmark on cuda: {why}")


def bench(
    family: str | None = None,
    suites: Sequence[str] = (),
    device: str = "cpu",
    dtype: str | None = None,
    threads: str | None = None,
    file: Path | None = None,
    quick: bool = False,
    enforce: bool = False,
    cases: bool = False,
    backend: str = "auto",
) -> list[Record]:
    """Run, print and return the records.

    Raises:
        Failure: wrong options; a case failed; with `enforce`, a bound is missed.
    """
    chosen = chosen_cases(family, suites, device, dtype, quick)
    counts = thread_counts(threads, device, quick)
    check_device(device)
    run = Run(device, counts, QUICK if quick else FULL, file, backend)
    say(f"neurokern against torch {torch.__version__} on {device}, commit {commit() or 'unknown'}, seed {run.seed}")
    records: list[Record] = []
    with progress() as bars:
        for suite, some in chosen:
            bar = bars.add_task(suite.title, total=len(some) * len(run.threads), status="")

            def told(text: str, bar: int = bar) -> None:
                bars.update(bar, status=text)
                bars.advance(bar)

            mine = run.suite(suite, some, told)
            records += mine
            if cases:
                show_cases(suite.title, mine)
    if not cases:
        for suite, _ in chosen:
            show_cases(
                f"{suite.title}: slowest against torch", slowest([r for r in records if r["suite"] == suite.name])
            )
    words = show_summary(records, device, quick)
    failures = sum(r["failed"] is not None for r in records)
    if failures:
        raise Failure(f"{failures} of {len(records)} cases failed")
    if enforce and words:
        raise Failure(f"{len(words)} bounds missed")
    return records


def list_suites(device: str = "cpu") -> None:
    """Print what there is to measure."""
    rows = [(s.name, s.title, s.family, len(s.cases(device, False)), s.bound.mean, s.bound.worst) for s in SUITES]
    table("suites", ("name", "what", "family", ">cases", ">mean asked", ">worst asked"), rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m neurokern.bench``: the command for machines without typer."""
    parser = argparse.ArgumentParser(prog="python -m neurokern.bench", description=bench.__doc__)
    parser.add_argument("family", nargs="?")
    parser.add_argument("--suite", action="append", default=[])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype")
    parser.add_argument("--threads")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--json", type=Path)
    for flag in ("--quick", "--enforce", "--cases"):
        parser.add_argument(flag, action="store_true")
    o = parser.parse_args(arguments)
    try:
        bench(o.family, o.suite, o.device, o.dtype, o.threads, o.json, o.quick, o.enforce, o.cases, o.backend)
    except Failure as failure:
        print(f"neurokern bench: {failure}", file=sys.stderr)
        return failure.code
    return 0
