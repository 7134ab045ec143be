"""A benchmark run from its options to its tables; needs nothing but torch (rich and matplotlib where they are)."""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..backends.choice import BACKENDS
from ..testing import rehearsal
from .cases import Case
from .console import Failure, pick, progress, roughly, say, table
from .machine import DTYPES, commit
from .models import Plan, models_missing, show_models
from .plot import check_plot, draw
from .report import show_cases, show_summary, slowest
from .runner import DeviceLost, Record, Run
from .suites import SUITES, Suite
from .suites import models as networks
from .timing import FULL, QUICK

DEVICES = ("cpu", "cuda")


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
    compiled: bool = False
    models: Sequence[str] = ()


def chosen_cases(o: Options) -> list[tuple[Suite, list[Case]]]:
    """The suites and cases that the options ask for; models have suites of their own (`chosen_models`).

    Raises:
        Failure: no family, suite or dtype has that name.
    """
    if o.family is not None:
        pick("family", o.family, {networks.NAME, *(s.family for s in SUITES)})
    for name in o.suites:
        pick("suite", name, (networks.NAME, *(s.name for s in SUITES)))
    if o.dtype is not None:
        pick("dtype", o.dtype, DTYPES)
    pick("device", o.device, DEVICES)
    if o.models:
        return []
    suites = [s for s in SUITES if o.family in (None, s.family) and (not o.suites or s.name in o.suites)]
    found = [(s, [c for c in s.cases(o.device, o.quick) if o.dtype in (None, c.dtype)]) for s in suites]
    return [(s, cases) for s, cases in found if cases]


def chosen_models(o: Options) -> list[networks.Model]:
    """The models that the options ask for; none on a GPU, or where torch's is the only backend.

    Raises:
        Failure: no model has that name.
    """
    for name in o.models:
        pick("model", name, [m.name for m in networks.MODELS])
    if o.device != "cpu" or o.family not in (None, networks.NAME) or (o.suites and networks.NAME not in o.suites):
        return []
    every = [m for m in networks.MODELS if m.name in o.models] if o.models else networks.chosen(o.quick)
    return [m for m in every if o.dtype in (None, *networks.DTYPES)]


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
        why = rehearsal.missing()
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
        Failure: wrong options; a case failed; with `enforce`, a target is missed.
    """
    # whatever is wrong is found before an hour of measuring, not after it, and the files last: no wrong call makes any
    if o.plot is not None:
        check_plot(o.plot)
    if not o.minutes > 0:
        raise Failure(f"--minutes is {o.minutes:g}, expected a number above zero", 2)
    chosen, models, threads = chosen_cases(o), chosen_models(o), thread_counts(o)
    if not chosen and not models:
        raise Failure("no case fits these options (see neurokern bench --list)", 2)
    check_device(o.device)
    check_backend(o.backend)
    missing = models_missing() if models else None
    if missing is not None and not chosen:
        raise Failure(missing)
    check_writable("--json", o.file)
    check_writable("--plot", o.plot)
    effort = QUICK if o.quick else FULL
    run = Run(o.device, threads, effort, o.file, o.backend, seconds=60 * o.minutes)
    say(f"neurokern against torch {torch.__version__} on {o.device}, commit {commit() or 'unknown'}, seed {run.seed}")
    if missing is not None:
        say(f"models left out: {missing}", "yellow")
    plan = Plan(o, models if missing is None else [])
    total = sum(len(some) for _, some in chosen) * len(threads) + plan.measurements(threads)
    took = min(seconds_of_cases(chosen, o.quick) * len(threads) + plan.seconds(threads), 60 * o.minutes)
    say(f"{total} measurements: {roughly(took)} on two cores; Ctrl-C ends early and prints what was measured")
    stopped: bool = False
    lost: DeviceLost | None = None
    try:
        _measure(run, plan, chosen, o, total)
    except KeyboardInterrupt:
        stopped = True
    except DeviceLost as failure:
        lost = failure
    finally:
        run.close()
    missed = _show(run, chosen, o)
    if missing is not None:
        missed.append(f"models left out: {missing}")
    if stopped:
        raise Failure(f"interrupted after {len(run.records)} of {total} measurements", 130)
    if lost is not None:
        raise lost
    if o.plot is not None:
        draw(run.records, o.plot)
    failures = sum(r["failed"] is not None for r in run.records)
    if failures:
        raise Failure(f"{failures} of {len(run.records)} cases failed")
    if o.enforce and missed:
        raise Failure(f"{len(missed)} targets missed")
    return run.records


def seconds_of_cases(chosen: Sequence[tuple[Suite, list[Case]]], quick: bool) -> float:
    """What the cases take at one number of threads, about: measured on two cores."""
    return sum(len(cases) for _, cases in chosen) * (0.35 if quick else 0.65)


def _measure(run: Run, plan: Plan, chosen: Sequence[tuple[Suite, list[Case]]], o: Options, total: int) -> None:
    """All of it, the models first, under a bar for each part and one for the whole."""
    with progress() as bars:
        whole = bars.add_task("all", total=total, status="")

        def bar_of(title: str, count: int) -> Callable[[str], None]:
            bar = bars.add_task(title, total=count, status="")

            def told(text: str) -> None:
                bars.update(bar, status=text)
                bars.advance(bar)
                bars.advance(whole)

            return told

        if plan.models:
            plan.measure(run, bar_of(networks.NAME, plan.measurements(run.threads)))
        for suite, some in chosen:
            mine = run.suite(suite, some, bar_of(suite.title, len(some) * len(run.threads)))
            if o.cases:
                show_cases(suite.title, mine)


def _show(run: Run, chosen: Sequence[tuple[Suite, list[Case]]], o: Options) -> list[str]:
    """The tables of what was measured; returns the targets missed, in words."""
    models = [r for r in run.records if r["suite"] == networks.NAME]
    cases = [r for r in run.records if r["suite"] != networks.NAME]
    missed = show_models(models, o.cases, o.quick)
    if not o.cases:
        for suite, _ in chosen:
            show_cases(f"{suite.title}: slowest against torch", slowest([r for r in cases if r["suite"] == suite.name]))
    if cases:
        missed += show_summary(cases, o.device, o.quick)
    if run.left_out:
        missed.append(f"{run.left_out} cases left out: the time was up")
        say(f"  {missed[-1]}", "red")
    return missed


def list_suites() -> None:
    """Print what there is to measure."""
    rows = [(s.name, s.title, s.family, len(s.cases("cpu", False)), s.bound.mean, s.bound.worst) for s in SUITES]
    rows.insert(0, (networks.NAME, networks.TITLE, networks.NAME, len(networks.chosen(False)), "", networks.LEAST))
    table("suites", ("name", "what", "family", ">cases", ">target mean", ">target of each case"), rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m neurokern.bench``: the command for machines without typer."""
    parser = argparse.ArgumentParser(prog="python -m neurokern.bench", description="Measure our kernels against torch.")
    parser.add_argument("family", nargs="?")
    parser.add_argument("--suite", dest="suites", action="append", default=[])
    parser.add_argument("--model", dest="models", action="append", default=[])
    for name in ("--device", "--backend", "--dtype", "--threads"):
        parser.add_argument(name, default=getattr(Options, name[2:]))
    parser.add_argument("--json", dest="file", type=Path)
    parser.add_argument("--minutes", type=float, default=math.inf)
    for flag in ("--quick", "--enforce", "--cases", "--compiled"):
        parser.add_argument(flag, action="store_true")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process started in the background ignores it
    try:
        bench(Options(**vars(parser.parse_args(arguments))))
    except Failure as failure:
        print(f"neurokern bench: {failure}", file=sys.stderr)
        return failure.code
    return 0
