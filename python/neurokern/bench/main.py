"""A benchmark run from its options to its tables; needs nothing but torch (rich and matplotlib where they are)."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..backends.choice import BACKENDS
from .cases import Case
from .console import Failure, pick, progress, say, table
from .machine import DTYPES, commit
from .plot import check_plot, draw
from .report import show_cases, show_summary, slowest
from .runner import Record, Run
from .suites import SUITES, Suite
from .timing import FULL, QUICK


@dataclass(frozen=True)
class Options:
    """What to measure and how: the options of ``neurokern bench``."""

    family: str | None = None
    suites: Sequence[str] = ()
    device: str = "cpu"
    dtype: str | None = None
    threads: str | None = None
    file: Path | None = None
    quick: bool = False
    enforce: bool = False
    cases: bool = False
    plot: Path | None = None
    backend: str = "auto"
    minutes: float = math.inf


def chosen_cases(o: Options) -> list[tuple[Suite, list[Case]]]:
    """The suites and cases that the options ask for.

    Raises:
        Failure: no family, suite or dtype has that name, or nothing is left.
    """
    if o.family is not None:
        pick("family", o.family, {s.family for s in SUITES})
    for name in o.suites:
        pick("suite", name, (s.name for s in SUITES))
    if o.dtype is not None:
        pick("dtype", o.dtype, DTYPES)
    pick("device", o.device, ("cpu", "cuda"))
    suites = [s for s in SUITES if o.family in (None, s.family) and (not o.suites or s.name in o.suites)]
    found = [(s, [c for c in s.cases(o.device, o.quick) if o.dtype in (None, c.dtype)]) for s in suites]
    found = [(s, cases) for s, cases in found if cases]
    if not found:
        raise Failure("no case fits these options (see neurokern bench --list)", 2)
    return found


def thread_counts(o: Options) -> list[int]:
    """The numbers asked for; default: 1 and 2 (as many as there are), only the larger when quick.

    Raises:
        Failure: not numbers of threads that this machine has.
    """
    if o.device == "cuda":
        return [torch.get_num_threads()]
    if o.threads is None:
        most = min(2, torch.get_num_threads())
        return [most] if o.quick else sorted({1, most})
    return numbers(o.threads)


def numbers(threads: str) -> list[int]:
    """``"1,2"`` as numbers.

    Raises:
        Failure: not numbers from one to as many as the machine has processors.
    """
    most = os.cpu_count() or 1
    try:
        counts = [int(part) for part in threads.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1 or max(counts) > most:
        raise Failure(f"--threads is {threads!r}, expected numbers from 1 to {most}, as in 1,2", 2)
    return counts


def check_device(device: str) -> None:
    """Raises Failure unless the device is here."""
    if device == "cuda":
        why = "torch sees no GPU" if not torch.cuda.is_available() else BACKENDS["cuda"].missing()
        if why is not None:
            raise Failure(f"can't benchmark on cuda: {why}")


def check_backend(name: str) -> None:
    """Raises Failure unless the backend is known and can run here."""
    pick("backend", name, ("auto", *BACKENDS))
    if name != "auto" and (why := BACKENDS[name].missing()):
        raise Failure(f"backend {name} can't run here: {why}")


def check_writable(option: str, path: Path | None) -> None:
    """Raises Failure unless the file can be written; leaves none behind."""
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        there = path.exists()
        path.open("a").close()
        if not there:
            path.unlink()
    except OSError as error:
        raise Failure(f"{option} {path}: {error.strerror}", 2) from None


def bench(o: Options) -> list[Record]:
    """Measure our kernels against torch, print, and return the records.

    Raises:
        Failure: wrong options; a case failed; with `enforce`, a bound is missed.
    """
    # whatever is wrong is found before an hour of measuring, not after it, and the files last: no wrong call makes any
    if o.plot is not None:
        check_plot(o.plot)
    if not o.minutes > 0:
        raise Failure(f"--minutes is {o.minutes:g}, expected a number above zero", 2)
    chosen, threads = chosen_cases(o), thread_counts(o)
    check_device(o.device)
    check_backend(o.backend)
    check_writable("--json", o.file)
    check_writable("--plot", o.plot)
    effort = QUICK if o.quick else FULL
    run = Run(o.device, threads, effort, o.file, o.backend, seconds=60 * o.minutes)
    say(f"neurokern against torch {torch.__version__} on {o.device}, commit {commit() or 'unknown'}, seed {run.seed}")
    records: list[Record] = []
    with progress() as bars:
        for suite, some in chosen:
            bar = bars.add_task(suite.title, total=len(some) * len(run.threads), status="")

            def told(text: str, bar: int = bar) -> None:
                bars.update(bar, status=text)
                bars.advance(bar)

            mine = run.suite(suite, some, told)
            records += mine
            if o.cases:
                show_cases(suite.title, mine)
    if not o.cases:
        for suite, _ in chosen:
            mine = [r for r in records if r["suite"] == suite.name]
            show_cases(f"{suite.title}: slowest against torch", slowest(mine))
    missed = show_summary(records, o.device, o.quick)
    if run.left_out:
        missed.append(f"{run.left_out} cases left out: the time was up")
        say(f"  {missed[-1]}", "red")
    if o.plot is not None:
        draw(records, o.plot)
    failures = sum(r["failed"] is not None for r in records)
    if failures:
        raise Failure(f"{failures} of {len(records)} cases failed")
    if o.enforce and missed:
        raise Failure(f"{len(missed)} bounds missed")
    return records


def list_suites() -> None:
    """Print what there is to measure."""
    rows = [(s.name, s.title, s.family, len(s.cases("cpu", False)), s.bound.mean, s.bound.worst) for s in SUITES]
    table("suites", ("name", "what", "family", ">cases", ">mean asked", ">worst asked"), rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m neurokern.bench``: the command for machines without typer."""
    parser = argparse.ArgumentParser(prog="python -m neurokern.bench", description="Measure our kernels against torch.")
    parser.add_argument("family", nargs="?")
    parser.add_argument("--suite", dest="suites", action="append", default=[])
    for name in ("--device", "--backend", "--dtype", "--threads"):
        parser.add_argument(name, default=getattr(Options, name[2:]))
    parser.add_argument("--json", dest="file", type=Path)
    parser.add_argument("--minutes", type=float, default=math.inf)
    for flag in ("--quick", "--enforce", "--cases"):
        parser.add_argument(flag, action="store_true")
    try:
        bench(Options(**vars(parser.parse_args(arguments))))
    except Failure as failure:
        print(f"neurokern bench: {failure}", file=sys.stderr)
        return failure.code
    return 0
