"""What each family takes of the tests' time, and of the build's.

As a plugin of pytest (tests/conftest.py registers it) it adds up tests; ``python -m neurokern.testing.shares build``
reads what ninja wrote about the build.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

from .spec import all_specs

WORTH_SAYING = 30.0  # seconds of tests from which the table is printed
REST = "mechanism"
# words of file names that are not a family's own
ALSO = {"products": "matmul", "linear": "matmul", "emulator": "emulator", "nvcc": "emulator", "softmax": "softmax"}


@cache
def _words() -> dict[str, str]:
    return ALSO | {s.family: s.family for s in all_specs()}


def family_of(path: str) -> str:
    """The family whose name, or a word for it, stands first in the path of a file."""
    return next((_words()[w] for w in re.split(r"[^a-z]+", path.lower()) if w in _words()), REST)


def table(seconds: dict[str, float], what: str) -> list[str]:
    """A row for each family, the longest first."""
    rows = [f"  {name:<14}{took:8.1f} s" for name, took in sorted(seconds.items(), key=lambda row: -row[1])]
    return [f"{what}, one after the other: {sum(seconds.values()):.0f} s", *rows]


class Shares:
    """Adds up the durations of tests by the family of their spec, or else of their file."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item):
        params = item.callspec.params if hasattr(item, "callspec") else {}
        family = params["spec"].family if "spec" in params else family_of(item.path.stem)
        outcome = yield
        outcome.get_result().user_properties.append(("family", family))  # workers hand it to the process that prints

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # the report of a test that took its process along has no family
        self.seconds[dict(report.user_properties).get("family", "mechanism")] += report.duration

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if sum(self.seconds.values()) >= WORTH_SAYING:
            terminalreporter.section("time by family")
            for line in table(self.seconds, "tests"):
                terminalreporter.write_line(line)


def of_build(log: str) -> dict[str, float]:
    """Seconds that the steps of a build took, by family, from the text of ninja's log."""
    latest = {}
    for line in log.splitlines():
        if not line.startswith("#"):
            start, end, _, output, command = line.split("\t")
            latest[output] = (command, int(start), int(end))
    # a step with several outputs has a line for each
    steps = {step: output for output, step in latest.items()}
    found: dict[str, float] = defaultdict(float)
    for (_, start, end), output in steps.items():
        found[family_of(output)] += (end - start) / 1000
    return found


def main() -> None:
    """Print the table of each build within the folders that are the arguments."""
    for folder in sys.argv[1:]:
        for log in sorted(Path(folder).glob("*/.ninja_log")):
            print("\n".join(table(of_build(log.read_text()), "steps of the build")))


if __name__ == "__main__":
    main()
