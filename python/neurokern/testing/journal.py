"""A plugin of pytest (``-p neurokern.testing.journal``): each test is a line of a file as it begins and as it ends.

So whatever ends the process, a fault, a kernel that hangs or a time limit, the file tells what passed, and in which
test it ended. The environment says what to do (`neurokern.bench.gpu.shards` sets it):

    NEUROKERN_JOURNAL   the file; tests that it has already are left out
    NEUROKERN_SHARD     ``1/4``: every fourth test, from the second on
    NEUROKERN_PATIENCE  seconds that a test may take; then the process ends
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import ptx, rehearsal

LOST = 77  # exit status: the GPU has to be begun anew, in another process
LONGEST = 2000  # characters of a message


class Journal:
    """A file of lines that several processes append to."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, **line: Any) -> None:
        """One line, in one write."""
        data = (json.dumps(line) + "\n").encode()
        with self.path.open("ab", buffering=0) as file:
            file.write(data)

    def lines(self) -> list[dict[str, Any]]:
        """All so far; a line that was cut is none."""
        found = []
        for text in self.path.read_text().splitlines() if self.path.exists() else ():
            try:
                found.append(json.loads(text))
            except json.JSONDecodeError:
                continue
        return found


def lost() -> str:
    """What happened to the GPU, if this process can do nothing more with it; else nothing."""
    return rehearsal.lost() or (ptx.driver().lost if ptx.driver.cache_info().currsize else "")


def family(item: pytest.Item) -> str:
    """Of the spec that a test is about, else what its file tests."""
    params = item.callspec.params if hasattr(item, "callspec") else {}
    spec = params.get("spec")
    if spec is not None:
        return spec.family
    stem = item.path.stem.removeprefix("test_")
    return "snippets" if stem.startswith("emulator_") else stem


def backend(item: pytest.Item) -> str:
    """The target of a test, as it is named in its parameters."""
    target = (item.callspec.params if hasattr(item, "callspec") else {}).get("target")
    return getattr(target, "backend", "cuda")


class Plugin:
    """Writes the journal of the tests that this process runs."""

    def __init__(self, journal: Journal, shard: str, patience: float) -> None:
        self.journal, self.patience = journal, patience
        self.number, self.of = (int(part) for part in shard.split("/"))
        self.reports: list[pytest.TestReport] = []
        self.stderr = os.dup(2)  # before the tests' own output is caught

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        done = {line["test"] for line in self.journal.lines() if "test" in line}
        mine = sorted(items, key=lambda item: backend(item) == "triton")[self.number :: self.of]
        items[:] = [item for item in mine if item.nodeid not in done]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and self.number == 0:
            self.journal.write(test=report.nodeid, family="collection", backend="", outcome="error",
                               message=str(report.longrepr)[-LONGEST:])  # fmt: skip

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        what = {"test": item.nodeid, "family": family(item), "backend": backend(item)}
        self.reports = []
        start = time.monotonic()
        self.journal.write(**what, shard=self.number, outcome="begun")
        # by a thread without the interpreter's lock: it sees a kernel that never ends
        faulthandler.dump_traceback_later(self.patience, exit=True, file=self.stderr)
        try:
            result = yield
        finally:
            faulthandler.cancel_dump_traceback_later()
        failed = next((r for r in self.reports if r.failed), None)
        gone = lost() if failed else ""
        outcome = "failed" if failed else "skipped" if any(r.skipped for r in self.reports) else "passed"
        message = str(failed.longrepr)[-LONGEST:] if failed else ""
        if outcome == "skipped":
            message = next((str(r.longrepr[2]) for r in self.reports if isinstance(r.longrepr, tuple)), "")
        self.journal.write(**what, outcome=outcome, seconds=round(time.monotonic() - start, 3),
                           **({"message": message} if message else {}), **({"lost": gone} if gone else {}))  # fmt: skip
        if gone:
            pytest.exit(f"the GPU was lost in {item.nodeid}: {gone}", returncode=LOST)
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.reports.append(report)


def pytest_configure(config: pytest.Config) -> None:
    # a process started in the background ignores it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if path := os.environ.get("NEUROKERN_JOURNAL"):
        shard, patience = os.environ.get("NEUROKERN_SHARD", "0/1"), float(os.environ.get("NEUROKERN_PATIENCE", "60"))
        config.pluginmanager.register(Plugin(Journal(Path(path)), shard, patience))
