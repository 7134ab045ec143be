"""``python -m neurokern.bench.gpu STAGE``: what benchmarks/gpu.sh starts, one process a stage."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from . import launches, summary
from .shards import Shards


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m neurokern.bench.gpu", description="The stages of `make gpu`.")
    stages = parser.add_subparsers(dest="stage", required=True)
    tests = stages.add_parser("tests", help="pytest in several processes; its arguments follow --")
    tests.add_argument("--journal", type=Path, required=True, help="file that gets a line for each test")
    tests.add_argument("--processes", type=int, default=1)
    tests.add_argument("--patience", type=float, default=45, help="seconds that one test may take")
    tests.add_argument("pytest", nargs="+")
    stages.add_parser("launches", help="one launch of each kind of kernel").add_argument("--large", action="store_true")
    stages.add_parser("summary", help="what all stages found").add_argument("folder", type=Path)
    o = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process started in the background ignores it
    if o.stage == "tests":
        return Shards(o.pytest, o.journal, o.processes, o.patience).run()
    if o.stage == "launches":
        return launches.run(o.large)
    return summary.show(o.folder)


if __name__ == "__main__":
    sys.exit(main())
