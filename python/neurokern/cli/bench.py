"""``neurokern bench``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..bench.main import bench, list_suites


def run(
    family: str | None,
    suites: Sequence[str],
    device: str,
    dtype: str | None,
    threads: str | None,
    file: Path | None,
    quick: bool,
    enforce: bool,
    plot: Path | None,
    cases: bool,
    only_list: bool,
) -> None:
    """Measure, print, and draw when asked to."""
    if only_list:
        list_suites()
        return
    if plot is not None:
        # before an hour of measuring, not after it
        from ..bench.plot import check_plot

        check_plot(plot)
    records = bench(family, suites, device, dtype, threads, file, quick, enforce, cases)
    if plot is not None:
        from ..bench.plot import draw

        draw(records, plot)
