"""Tests in several processes, each with a part of them; one that dies costs one test, and another goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ...testing.journal import LOST, Journal

RESTARTS = 24  # of all shards together: beyond it, little works
INTERRUPTED, NO_TESTS = 2, 5  # of pytest's exit statuses
MOST_FAILURES = 60  # of one process
OPTIONS = ("-q", "--no-header", "--tb=short", "--continue-on-collection-errors", "-p", "neurokern.testing.journal",
           "-p", "no:cacheprovider", "-p", "no:xdist")  # fmt: skip


class Shards:
    """Runs tests with pytest in `count` processes; `journal` gets their outcomes.

    Args:
        arguments: pytest's: files, and which of their tests.
        count: number of processes.
        patience: seconds that one test may take.
    """

    def __init__(self, arguments: Sequence[str], journal: Path, count: int, patience: float) -> None:
        self.arguments, self.journal, self.count, self.patience = arguments, Journal(journal), count, patience
        self.before = len(self.journal.lines())  # of stages that came first
        self.restarts = 0
        self.failed = False

    def start(self, number: int) -> subprocess.Popen:
        """The process of a shard, which leaves out what the journal has."""
        told = {"NEUROKERN_JOURNAL": self.journal.path, "NEUROKERN_SHARD": f"{number}/{self.count}",
                "NEUROKERN_PATIENCE": self.patience}  # fmt: skip
        env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")} | {
            k: str(v) for k, v in told.items()
        }
        command = [sys.executable, "-m", "pytest", *OPTIONS, f"--maxfail={MOST_FAILURES}", *self.arguments]
        return subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL)

    def ended(self, number: int, status: int) -> bool:
        """Notes how a process of the shard ended; whether another is to take what is left."""
        open_, last = {}, {}
        for line in self.journal.lines():
            if line.get("outcome") == "begun" and line["shard"] == number:
                open_ = {line["test"]: line}
            elif line.get("test") in open_:
                last = open_.pop(line["test"])
        if status in (0, NO_TESTS):
            return False
        self.failed = True
        if status == INTERRUPTED or (status != LOST and not open_):
            if status not in (1, INTERRUPTED):
                print(f"a process ended with status {status}, not in a test", flush=True)
            return False
        for line in open_.values():
            how = f"signal {-status}" if status < 0 else f"exit status {status}, as after {self.patience:g} s"
            self.journal.write(**line | {"outcome": "died", "message": f"the process ended in it: {how}"})
            print(f"{line['test']}: the process ended in it: {how}", flush=True)
        if status == LOST:
            print(f"the GPU was lost in {last.get('test', 'a test')}; a new process goes on", flush=True)
        self.restarts += 1
        if self.restarts > RESTARTS:
            print(f"stopped: {self.restarts} processes ended before their time", flush=True)
        return self.restarts <= RESTARTS

    def run(self) -> int:
        """Until all tests are done; 1 if one failed."""
        running = {n: self.start(n) for n in range(self.count)}
        try:
            while running:
                for number, process in list(running.items()):
                    status = process.poll()
                    if status is None:
                        continue
                    del running[number]
                    if self.ended(number, status):
                        running[number] = self.start(number)
                time.sleep(0.05)
        except KeyboardInterrupt:
            # the time is up: pytest has been told too, and prints what failed
            for process in running.values():
                try:
                    process.wait(4)
                except subprocess.TimeoutExpired:
                    process.kill()
            return 130
        outcomes = [line for line in self.journal.lines()[self.before :] if line.get("outcome") != "begun"]
        if all(line["outcome"] == "skipped" for line in outcomes):
            why = {line.get("message") for line in outcomes} or "there are none"
            print(f"no test ran: {why}", flush=True)
            return 1
        return int(self.failed)
