"""Tables of a run: every suite beside its targets, the slowest cases, failures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from .console import duration, say, table
from .runner import Record
from .suites import SUITES, Suite


def geometric_mean(ratios: Iterable[float]) -> float:
    """exp(mean(log(ratio))); NaN of nothing."""
    logs = [math.log(r) for r in ratios]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def name_of(record: Record) -> str:
    """A record's case in words."""
    threads = f", {record['threads']} thread{'s' if record['threads'] > 1 else ''}" if record["device"] == "cpu" else ""
    return f"{record['op']} {record['case']} {record['dtype']} {record['direction']}{threads}"


def missed(suite: Suite, records: Sequence[Record]) -> list[str]:
    """The targets of the suite that these records miss, in words."""
    done = [r["ratio"] for r in records if not r["failed"]]
    words = [f"{name_of(r)}: {r['failed']}" for r in records if r["failed"]]
    if done and geometric_mean(done) < suite.bound.mean:
        words.append(f"geometric mean {geometric_mean(done):.2f} below {suite.bound.mean:.2f}")
    below = sum(r < suite.bound.worst for r in done)
    if below:
        words.append(f"{below} of {len(done)} cases below {suite.bound.worst:.2f}")
    return words


def _figure(record: Record) -> str:
    if "gflops" in record:
        return f"{record['gflops']:.1f} GFLOP/s"
    return f"{record['gbps']:.1f} GB/s"


def _error(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.2f}"


def show_cases(title: str, records: Sequence[Record]) -> None:
    """One row a case; nothing where there is none."""
    if not records:
        return
    rows = []
    for r in records:
        if r["failed"]:
            rows.append((name_of(r), "failed", "", "", "", "", r["failed"]))
            continue
        rows.append((
            name_of(r),
            *(f"{duration(1e-6 * r[f'{w}_us'])} ± {duration(5e-7 * r[f'{w}_iqr_us'])}" for w in ("ours", "torch")),
            f"{r['ratio']:.2f}",
            _figure(r),
            f"{100 * r['share']:.0f} % of {r['share_of']}",
            f"{_error(r['error_ulps'])} / {_error(r['torch_error_ulps'])}",
        ))  # fmt: skip
    columns = ("case", ">ours", ">torch", ">ratio", ">speed", ">of the peak", ">error ulps, ours / torch")
    table(title, columns, rows)


def slowest(records: Sequence[Record], n: int = 3) -> list[Record]:
    """The failures and the n cases with the lowest ratio."""
    failed = [r for r in records if r["failed"]]
    return failed + sorted((r for r in records if not r["failed"]), key=lambda r: r["ratio"])[:n]


def show_summary(records: Sequence[Record], device: str, quick: bool) -> list[str]:
    """The table of suites; returns the targets missed, in words."""
    rows, styles, words = [], [], []
    for suite in SUITES:
        mine = [r for r in records if r["suite"] == suite.name]
        if not mine:
            continue
        done = [r for r in mine if not r["failed"]]
        worst = min(done, key=lambda r: r["ratio"], default=None)
        misses = missed(suite, mine) if device == "cpu" else [name_of(r) for r in mine if r["failed"]]
        words += [f"{suite.title}: {m}" for m in misses]
        bounded = device == "cpu"
        rows.append((
            suite.title,
            len(mine),
            f"{geometric_mean(r['ratio'] for r in done):.2f}",
            f"{suite.bound.mean:.2f}" if bounded else "",
            f"{worst['ratio']:.2f}" if worst else "",
            f"{suite.bound.worst:.2f}" if bounded else "",
            sum(r["ratio"] < (suite.bound.worst if bounded else 1.0) for r in done),
            name_of(worst) if worst else "",
            f"{len(misses)} missed" if misses else "met" if bounded else "ran",
        ))  # fmt: skip
        styles.append("red" if misses else "green")
    title = f"times faster than torch on {device}" + (" (quick)" if quick else "")
    columns = ("suite", ">cases", ">mean", ">target", ">worst", ">target", ">below", "worst case", "targets")
    table(title, columns, rows, styles)
    for line in words:
        say(f"  {line}", "red")
    return words
