"""Runs cases and makes records of them; a case that fails is a record too."""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from .. import _C
from ..backends.trace import trace
from ..testing.rehearsal import in_force, lost, place, rehearsed
from .cases import Case, Pool, calls, errors
from .clocks import Watch, gpu_id
from .console import Failure
from .graphs import gpu, paired_on_gpu
from .machine import Peaks, describe, stamp
from .suites import Suite
from .timing import FULL, Effort, Paired, paired, spread

Record = dict[str, Any]
Told = Callable[[str], None]


class DeviceLost(Failure):
    """A launch has ended what this process can do on the GPU."""


def why_lost(device: str) -> str:
    """What a launch of ours, torch's or Triton's did to the GPU, so that this process can't use it; else nothing."""
    return "" if device != "cuda" else _C.lost_devices() or lost()


def stop_if_lost(device: str) -> None:
    """Raises DeviceLost where no later case can run on the GPU either: after an illegal access, for example."""
    if why := why_lost(device):
        raise DeviceLost(f"the GPU is lost to this process: {why}")


class Run:
    """One benchmark run on one device.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        threads: numbers of CPU threads to measure at (on CUDA only the first counts).
        effort: how long a case is measured.
        file: JSON lines are appended to it as they come.
        chosen: backend to run ours on.
        seed: of the random data; a fresh one when None. It stands in every record.
        seconds: no case is begun after so many; `left_out` counts those.

    Attributes:
        records: all so far, also when a run is broken off.
        lost: what happened to the GPU, if nothing can be measured on it any more.
    """

    def __init__(
        self,
        device: str = "cpu",
        threads: Sequence[int] = (1,),
        effort: Effort = FULL,
        file: Path | None = None,
        chosen: str = "auto",
        seed: int | None = None,
        seconds: float = math.inf,
    ) -> None:
        self.device = device
        self.threads = tuple(threads)
        self.effort = effort
        self.chosen = chosen
        self.seed = secrets.randbelow(1 << 31) if seed is None else seed
        self.left_out = 0
        self.lost = ""
        self.records: list[Record] = []
        self.deadline = time.monotonic() + seconds
        self._file = file
        self._gpu = gpu() if device == "cuda" else None
        self._pool = Pool(self.seed, place(device))
        self._peaks = Peaks(device, self._gpu)
        self._clocks = Watch(None if rehearsed() else gpu_id()) if self._gpu else None
        self.common = {"date": stamp(), "seed": self.seed, "device": device, "backend": chosen, **describe(device)}
        if self._clocks:
            self.common["clocks_before"] = self._clocks.before
            if rehearsed():
                self.common["rehearsal"] = True

    def suite(self, suite: Suite, cases: Sequence[Case], told: Told = lambda _: None) -> list[Record]:
        """Measure cases of a suite at every number of threads; `told` hears each case's name before it starts."""
        before = len(self.records)
        for threads in self.threads:
            stream = self._gpu.stream() if self._gpu else nullcontext()
            with with_threads(threads), in_force(self.chosen, self.device), stream:
                for case in cases:
                    if time.monotonic() > self.deadline:
                        self.left_out += 1
                        continue
                    told(f"{case.name}, {threads} threads")
                    self.add(self._measure(suite, case, threads))
                    if self.lost:
                        raise DeviceLost(f"the GPU was lost in {case.name}: {self.lost}")
        return self.records[before:]

    def _measure(self, suite: Suite, case: Case, threads: int) -> Record:
        record: Record = {
            **self.common, "date": stamp(), "suite": suite.name, "family": suite.family, "op": case.op,
            "case": case.label, "dtype": case.dtype, "direction": case.direction, "threads": threads, "failed": None,
        }  # fmt: skip
        try:
            ours, theirs, out = calls(case, self._pool, self.device)
            if self._gpu is not None:
                times = paired_on_gpu(ours, theirs, self._gpu, self.effort)
            else:
                times = paired(ours, theirs, self.device, self.effort)
            if self.device == "cpu" and len(times.ours) > 1 and times.ratio < suite.bound.worst * 1.03:
                # near or below its bound, noise may have the word: measure again for longer, and count every pair
                times.extend(paired(ours, theirs, self.device, self.effort))
            kernel = kernels_of(ours[0])
            del ours, theirs
            record |= self._figures(case, times, out, threads)
            record["kernel"] = kernel
            record["error_ulps"], record["torch_error_ulps"] = (_finite(e) for e in errors(case, self._pool))
        except Exception as error:
            record["failed"] = f"{type(error).__name__}: {error}".splitlines()[0][:300]
            self.lost = why_lost(self.device)
        return record

    def _figures(self, case: Case, times: Paired, out: torch.Tensor, threads: int) -> Record:
        ours, theirs = times.medians()
        figures: Record = {
            "ours_us": ours * 1e6, "ours_iqr_us": spread(times.ours) * 1e6,
            "torch_us": theirs * 1e6, "torch_iqr_us": spread(times.theirs) * 1e6,
            "ratio": times.ratio, "ratio_iqr": spread(times.ratios), "pairs": len(times.ours),
        }  # fmt: skip
        if times.eager is not None and self._clocks is not None:
            figures |= {"timer": times.timer, "no_graph": times.no_graph, "clocks": self._clocks.latest}
            figures["ours_eager_us"], figures["torch_eager_us"] = (1e6 * t for t in times.eager)
        moved = case.bytes(out)
        if case.flops:
            figures["gflops"] = case.work() / ours * 1e-9
            peak = self._peaks.flops(case.dtype, threads)
            # few rows are bound by memory: the share is that of whichever peak is the nearer
            compute, traffic = case.work() / ours / peak, moved / ours / self._peaks.copy(moved, threads)
            figures["share"], figures["share_of"] = max((compute, "multiplication"), (traffic, "copy"))
        else:
            figures["share"], figures["share_of"] = moved / ours / self._peaks.copy(moved, threads), "copy"
        figures["gbps"] = moved / ours * 1e-9
        return figures

    def close(self) -> None:
        """No more readings of the clocks."""
        if self._clocks is not None:
            self._clocks.close()

    def add(self, record: Record) -> None:
        """Keep a record, and append it to the file."""
        self.records.append(record)
        if self._file is None:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a") as f:
            f.write(json.dumps(record) + "\n")


def kernels_of(call: Callable[[], Any]) -> str:
    """Which kernels one call runs."""
    with trace() as launches:
        call()
    return ", ".join(dict.fromkeys(f"{x.backend}:{x.kernel}" for x in launches))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


@contextmanager
def with_threads(n: int) -> Iterator[None]:
    """torch's number of threads within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
