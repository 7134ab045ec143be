"""Draws the ratios of a run: a point a case, one row a suite, the bounds as marks."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from .console import Failure
from .report import geometric_mean
from .runner import Record
from .suites import SUITES

FORMATS = (".png", ".svg")
INK, FAST, SLOW = "#555555", "#2a7f62", "#c0392b"


def check_plot(path: Path) -> None:
    """Raises Failure unless a plot can be drawn into this file."""
    if path.suffix not in FORMATS:
        raise Failure(f"--plot is {str(path)!r}, expected a name that ends in {' or '.join(FORMATS)}", 2)
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise Failure("a plot needs matplotlib: pip install neurokern[plot]") from None


def draw(records: Sequence[Record], path: Path) -> None:
    """One row a suite, times faster than torch on a logarithmic axis, apart enough that cases can be told."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    done = [r for r in records if not r["failed"]]
    suites = [s for s in SUITES if any(r["suite"] == s.name for r in done)]
    if not suites:
        raise Failure("nothing to draw: no case succeeded")
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.55 * len(suites)), constrained_layout=True)
    for row, suite in enumerate(suites):
        ratios = [r["ratio"] for r in done if r["suite"] == suite.name]
        at = [row + 0.28 * ((i * 0.618) % 1 - 0.5) * 2 for i in range(len(ratios))]
        axes.scatter(ratios, at, s=7, alpha=0.35, linewidths=0, c=[FAST if r >= 1 else SLOW for r in ratios])
        mean = geometric_mean(ratios)
        axes.plot([mean, mean], [row - 0.36, row + 0.36], color="black", lw=2.2)
        axes.annotate(f"{mean:.2f} x", (mean, row - 0.4), ha="center", va="bottom", fontsize=8)
        if done[0]["device"] == "cpu":
            axes.plot([suite.bound.mean] * 2, [row - 0.36, row + 0.36], color="black", lw=1, ls=":")
    axes.axvline(1.0, color=INK, lw=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(suites)), [s.title for s in suites])
    axes.set_ylim(len(suites) - 0.4, -0.75)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} x")
    first = done[0]
    where = first["machine"].get("gpu") or first["machine"]["cpu"]
    counts = " and ".join(map(str, sorted({r["threads"] for r in done})))
    threads = f", {counts} threads" if first["device"] == "cpu" else ""
    axes.set_xlabel("times faster than torch (bar: geometric mean, dotted: target)")
    axes.set_title(f"{where}{threads}, torch {first['versions']['torch']}, {first['date'][:10]}", fontsize=10)
    axes.grid(axis="x", which="major", color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m neurokern.bench.plot RECORDS.jsonl PICTURE``: draw the last measurement of every case in a file."""
    parser = argparse.ArgumentParser(prog="python -m neurokern.bench.plot", description=main.__doc__)
    parser.add_argument("records", type=Path)
    parser.add_argument("picture", type=Path)
    o = parser.parse_args(arguments)
    last = {}
    for line in o.records.read_text().splitlines():
        record = json.loads(line)
        key = ("suite", "op", "case", "dtype", "direction", "threads", "device", "backend")
        last[tuple(record[k] for k in key)] = record
    try:
        check_plot(o.picture)
        draw(list(last.values()), o.picture)
    except Failure as failure:
        print(f"neurokern: {failure}", file=sys.stderr)
        return failure.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
