"""Whole models, ours and torch's taking turns: time, memory and the share of our kernels (benchmarks/protocol.md)."""

from __future__ import annotations

import copy
import ctypes
import gc
import importlib.util
import itertools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from ..backends.choice import backend
from ..backends.trace import trace
from .console import duration, say, table
from .machine import DTYPES, stamp
from .runner import Record, Run, stop_if_lost, with_threads
from .suites import models as suite
from .suites.models import Model
from .timing import spread

OURS, TORCH = "ours", "torch"
FORWARD, TRAINING, WHOLE = "forward", "training step", "step with AdamW"
LATENCY, GENERATION = "batch of 1", f"{suite.NEW_TOKENS} tokens"
WHAT = (FORWARD, TRAINING, WHOLE, LATENCY, GENERATION)
#: of one measurement of one model, dtype and number of threads: rounds at least and at most, seconds for them
FULL, QUICK = (3, 9, 6.0), (2, 5, 3.0)


class Chosen(Protocol):
    """The options that matter here (`main.Options`)."""

    dtype: str | None
    quick: bool
    compiled: bool


def models_missing() -> str | None:
    """Why no model can be measured, or None."""
    if importlib.util.find_spec("transformers") is None:
        return "whole models need the package transformers (pip install transformers==5.24.0)"
    return None


@dataclass
class Turns:
    """Seconds of each part of each variant's step, round by round."""

    seconds: dict[str, list[list[float]]]

    def of(self, variant: str, part: int) -> list[float]:
        """Seconds from the start of the step to the end of that part."""
        return [sum(parts[: part + 1]) for parts in self.seconds[variant]]

    def extend(self, more: Turns) -> None:
        """Add further rounds of the same steps."""
        for variant, rounds in more.seconds.items():
            self.seconds[variant] += rounds

    def ratios(self, variant: str, part: int) -> list[float]:
        """How many times faster than torch, round by round."""
        return [t / o for o, t in zip(self.of(variant, part), self.of(TORCH, part), strict=True)]


Step = Sequence[Callable[[dict[str, Any]], Any]]


def in_turns(steps: dict[str, Step], draw: Callable[[], dict[str, Any]], least: int, most: int, budget: float) -> Turns:
    """Time the variants in turn, each round on inputs of its own, the order moving on by one.

    Args:
        steps: of each variant the parts of its step, each given what `draw` drew.
        least, most: rounds; after `budget` seconds no more than the least.
    """
    found = Turns({name: [] for name in steps})
    names = list(steps)
    for name in names:  # not timed: plans are made, code is compiled, pages are touched
        given = draw()
        for part in steps[name]:
            part(given)
    deadline = time.perf_counter() + budget
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for i in range(most):
            if i >= least and time.perf_counter() > deadline:
                break
            given = draw()
            for name in names[i % len(names) :] + names[: i % len(names)]:
                times = [time.perf_counter()]
                for part in steps[name]:
                    part(given)
                    times.append(time.perf_counter())
                found.seconds[name].append([b - a for a, b in itertools.pairwise(times)])
    finally:
        if enabled:
            gc.enable()
    return found


def peak_memory(run: Callable[[], Any]) -> int | None:
    """Bytes by which the process grows at most while it runs; None where the system does not tell."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what the last step freed goes back, or this one would seem to need nothing
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
        before = _status("VmRSS")
        run()
        return max(0, _status("VmHWM") - before)
    except (OSError, AttributeError):
        return None


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) << 10
    raise OSError(f"/proc/self/status has no {name}")


def kernel_seconds(run: Callable[[], Any]) -> float | None:
    """Seconds that our kernels take of it; None where the trace does not time its launches."""
    try:
        block = trace(times=True)  # type: ignore[call-arg]
    except TypeError:
        return None
    with block as launches:
        run()
    return sum(x.seconds or 0.0 for x in launches if x.backend != "torch")


def _variants(model: Model, stock: torch.nn.Module, compiled: bool) -> dict[str, torch.nn.Module]:
    """The model on torch and on our kernels, with the same parameters; compiled, too, if asked."""
    found = {OURS: model.ours(stock), TORCH: stock}
    if compiled:
        shared = {id(t): t for t in (*stock.parameters(), *stock.buffers())}
        found |= {f"{name}, compiled": torch.compile(copy.deepcopy(m, dict(shared))) for name, m in found.items()}
    return found


class Bench:
    """One model in one dtype: its steps, by what is measured."""

    def __init__(self, model: Model, dtype: str, compiled: bool) -> None:
        self.model, self.dtype = model, DTYPES[dtype]
        stock = model.make().to(self.dtype)
        self.config = stock.config
        self.variants = _variants(model, stock, compiled)
        self._optimizer = torch.optim.AdamW(stock.parameters(), lr=1e-6, fused=True)

    def draw(self, batch: int | None = None) -> dict[str, Any]:
        """Fresh inputs in the model's dtype."""
        return self._converted(self.model.draw(self.config, batch))

    def prompt(self) -> dict[str, Any]:
        """Fresh inputs to generate from."""
        return self._converted(self.model.prompt(self.config))

    def _converted(self, given: dict[str, Any]) -> dict[str, Any]:
        return {k: v.to(self.dtype) if v.is_floating_point() else v for k, v in given.items()}

    def train(self, on: bool) -> None:
        """Dropout and the like, on or off."""
        for m in self.variants.values():
            m.train(on)

    def forward(self, variant: str) -> Step:
        """Without gradients."""
        return (lambda given: self._forward(variant, given),)

    @torch.no_grad()
    def _forward(self, variant: str, given: dict[str, Any]) -> Any:
        return self.variants[variant](**given).loss

    def training(self, variant: str) -> Step:
        """Forward, loss and backward; then AdamW's step."""

        def backward(given: dict[str, Any]) -> None:
            self.variants[variant](**given).loss.backward()

        def update(_: dict[str, Any]) -> None:
            self._optimizer.step()
            self._optimizer.zero_grad()

        return backward, update

    def generation(self, variant: str) -> Step:
        """Greedy, with a cache of keys and values."""
        n = suite.NEW_TOKENS
        options = {"max_new_tokens": n, "min_new_tokens": n, "do_sample": False, "use_cache": True, "num_beams": 1}

        @torch.no_grad()
        def generate(given: dict[str, Any]) -> None:
            self.variants[variant].generate(**given, **options)

        return (generate,)

    def difference(self) -> float:
        """How far the losses of ours and torch's lie apart on the same inputs, over torch's."""
        self.train(False)
        given = self.draw()
        ours, theirs = (float(self._forward(v, given)) for v in (OURS, TORCH))
        return abs(ours - theirs) / abs(theirs)


class Plan:
    """What is measured of which models."""

    def __init__(self, options: Chosen, models: Sequence[Model]) -> None:
        self._compiled, self._quick = options.compiled, options.quick
        self.models = list(models)
        self._dtypes = [d for d in suite.DTYPES if options.dtype in (None, d)]

    def measurements(self, threads: Sequence[int]) -> int:
        """How many records there will be."""
        return sum(len(self._what(m)) for m in self.models) * len(self._dtypes) * len(threads)

    def seconds(self, threads: Sequence[int]) -> float:
        """About how long they take on two cores."""
        each = (9.0 if self._quick else 11.0) + (60.0 if self._compiled else 0.0)
        return self.measurements(threads) * each

    @staticmethod
    def _what(model: Model) -> list[str]:
        return [w for w in WHAT if (w != GENERATION or model.generates) and (w != LATENCY or model.batch > 1)]

    def measure(self, run: Run, told: Callable[[str], None]) -> None:
        """Measure all; a model that fails leaves a record that says why."""
        for model in self.models:
            for dtype in self._dtypes:
                count = len(self._what(model)) * len(run.threads)
                if time.monotonic() > run.deadline:
                    run.left_out += count
                    continue
                before = len(run.records)
                torch.manual_seed(run.seed)
                try:
                    with backend(run.chosen):
                        self._measure(run, model, dtype, told)
                except Exception as error:
                    stop_if_lost(run.device)
                    failed = f"{type(error).__name__}: {error}".splitlines()[0][:300]
                    done = {(r["direction"], r["threads"]) for r in run.records[before:]}
                    what = next((w for w in self._what(model) if (w, run.threads[0]) not in done), FORWARD)
                    run.add(self._record(run, model, what, dtype, run.threads[0]) | {"failed": failed})

    def _record(self, run: Run, model: Model, what: str, dtype: str, threads: int) -> Record:
        return {
            **run.common, "date": stamp(), "suite": suite.NAME, "family": suite.NAME, "op": model.name,
            "case": model.label, "model": model.name, "what": what, "direction": what, "dtype": dtype,
            "threads": threads, "failed": None,
        }  # fmt: skip

    def _measure(self, run: Run, model: Model, dtype: str, told: Callable[[str], None]) -> None:
        bench = Bench(model, dtype, self._compiled)
        difference = bench.difference()
        if not math.isfinite(difference):
            raise ArithmeticError(f"the losses of ours and of torch's differ by {difference}")
        for threads in run.threads:
            with with_threads(threads):
                for what in self._what(model):
                    told(f"{model.name} {dtype}, {what}, {threads} threads")
                    if time.monotonic() > run.deadline:
                        run.left_out += 1
                    elif what != WHOLE:  # it is measured with the training step
                        self._add(run, bench, what, self._record(run, model, what, dtype, threads), difference)

    def _add(self, run: Run, bench: Bench, what: str, record: Record, difference: float) -> None:
        makers = {TRAINING: bench.training, GENERATION: bench.generation}
        draws = {GENERATION: bench.prompt, LATENCY: lambda: bench.draw(1)}
        make, draw = makers.get(what, bench.forward), draws.get(what, bench.draw)
        bench.train(what == TRAINING)
        names = [v for v in bench.variants if what != GENERATION or v in (OURS, TORCH)]
        steps = {v: make(v) for v in names}
        least, most, budget = QUICK if self._quick else FULL
        found = in_turns(steps, draw, least, most, min(budget * len(names) / 2, run.deadline - time.monotonic()))
        ratio, target = statistics.median(found.ratios(OURS, 0)), least_of(record)
        if not self._quick and 0.95 * target < ratio < 1.03 * target and time.monotonic() < run.deadline:
            # as near to its target as noise reaches: once more, and every round counts
            found.extend(in_turns(steps, draw, least, most, budget))
        record["loss_difference"] = difference
        memory, share = None, None
        if what in (FORWARD, TRAINING):
            given = draw()

            def once(variant: str) -> Callable[[], None]:
                return lambda: [part(given) for part in steps[variant]]

            memory = {v: peak_memory(once(v)) for v in names}
            begun = time.perf_counter()
            kernels = kernel_seconds(lambda: steps[OURS][0](given))
            share = None if kernels is None else kernels / (time.perf_counter() - begun)
        for part, name in enumerate((TRAINING, WHOLE) if what == TRAINING else (what,)):
            run.add(
                record
                | {
                    "what": name,
                    "direction": name,
                    "seconds": {v: statistics.median(found.of(v, part)) for v in names},
                    "ratios": {v: statistics.median(found.ratios(v, part)) for v in names},
                    "ratio": statistics.median(found.ratios(OURS, part)),
                    "ratio_iqr": spread(found.ratios(OURS, part)),
                    "pairs": len(found.seconds[OURS]),
                    "peak_bytes": memory,
                    "kernel_share": share if name != WHOLE else None,
                }
            )


def least_of(record: Record) -> float:
    """The target of a record's ratio."""
    return suite.LEAST_OF.get((record["model"], record["what"], record["dtype"]), suite.LEAST)


def _words(r: Record) -> str:
    return f"{r['model']} {r['case']} {r['dtype']} {r['what']}, {r['threads']} thread{'s' if r['threads'] > 1 else ''}"


def _cell(r: Record | None) -> str:
    if r is None:
        return ""
    return "failed" if r["failed"] else f"{r['ratio']:.2f} ({duration(r['seconds'][OURS])})"


def _memory(r: Record | None) -> str:
    if r is None or not r.get("peak_bytes") or None in r["peak_bytes"].values():
        return ""
    return " / ".join(f"{r['peak_bytes'][v] / 2**20:.0f}" for v in (OURS, TORCH))


def show_models(records: Sequence[Record], every: bool, quick: bool) -> list[str]:
    """The table of models, a row for each dtype and number of threads; returns the targets missed, in words.

    Args:
        every: a row for each measurement besides, with the time of every variant.
    """
    if not records:
        return []
    rows: dict[tuple[Any, ...], dict[str, Record]] = {}
    for r in records:
        rows.setdefault((r["model"], r["case"], r["dtype"], r["threads"]), {})[r["what"]] = r
    cells, styles = [], []
    for key, found in rows.items():
        share = (found.get(TRAINING) or {}).get("kernel_share")
        told = "" if share is None else f"{100 * share:.0f} %"
        memory = (_memory(found.get(FORWARD)), _memory(found.get(TRAINING)))
        cells.append((*key, *(_cell(found.get(w)) for w in WHAT), *memory, told))
        below = any(r["failed"] or r["ratio"] < least_of(r) for r in found.values())
        styles.append("red" if below else "")
    columns = (
        "model",
        "inputs",
        "dtype",
        ">threads",
        *(f">{w}" for w in WHAT),
        ">forward, MiB",
        ">training, MiB",
        ">kernels",
    )
    if not any(c[-1] for c in cells):
        columns, cells = columns[:-1], [c[:-1] for c in cells]
    title = "whole models: times faster than torch (our time); memory at most, ours / torch"
    table(title + (" (quick)" if quick else ""), columns, cells, styles)
    if every or any(len(r.get("seconds", ())) > 2 for r in records):
        _show_variants([r for r in records if not r["failed"]])
    missed = [f"{_words(r)}: {r['failed']}" for r in records if r["failed"]]
    missed += [
        f"{_words(r)}: {r['ratio']:.2f} below {least_of(r):.2f}"
        for r in records
        if not r["failed"] and r["ratio"] < least_of(r)
    ]
    for line in missed:
        say(f"  {line}", "red")
    return missed


def _show_variants(records: Sequence[Record]) -> None:
    names = list(dict.fromkeys(v for r in records for v in r["seconds"]))
    rows = [
        (
            _words(r),
            *(f"{duration(r['seconds'][v])} ({r['ratios'][v]:.2f})" if v in r["seconds"] else "" for v in names),
        )
        for r in records
    ]
    table("whole models: time (times faster than torch)", ("what", *(f">{v}" for v in names)), rows)
