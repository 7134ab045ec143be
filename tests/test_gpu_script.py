"""`make gpu` from its first stage to its summary, with the emulator in the GPU's place and a machine that fails."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import neurokern
import pytest
import torch
from neurokern.backends import emulation
from neurokern.bench.gpu.summary import outcomes

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "benchmarks" / "gpu.sh"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SCRIPT.exists(), reason="no checkout"),
    pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing())),
]

SMI = """#!/bin/sh
case "$*" in
*=compute_cap\\ *) echo 9.0 ;;
*=name,*) echo "A GPU, 9.0, 580.1, 80000 MiB, 345 MHz, 2600 MHz, 1980 MHz, 2600 MHz, 75 W, 700 W, 30, On, Off, On" ;;
*loop-ms*) while echo "1410, 2600, 512.3, 41, 0x0000000000000000"; do sleep 0.2; done ;;
*) echo "1980, 2600, 75.1, 35, 0x0000000000000000" ;;
esac
"""
TOOL = """#!/bin/sh
echo "$0: of CUDA's tools"
while ! [ -x "$1" ]; do shift; done
exec "$@"
"""
ALL_WELL = """
*"neurokern.bench.gpu summary"* | *environment.py*) exec $REAL "$@" ;;
*) exit 0 ;;
"""


class Machine:
    """A PATH with tools of our own, and an interpreter that fails where `cases` (of a shell's `case "$*"`) says so."""

    def __init__(self, folder: Path, cases: str = "", tools: tuple[str, ...] = ()) -> None:
        self.out, self.bin = folder / "out", folder / "bin"
        self.bin.mkdir()
        self.add("nvidia-smi", SMI)
        for tool in tools:
            self.add(tool, TOOL)
        self.add("python", f'#!/bin/sh\nREAL={sys.executable}\ncase "$*" in\n{cases}esac\nexec $REAL "$@"\n')

    def add(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def run(self, **settings: object) -> tuple[int, str]:
        """Exit status and output of benchmarks/gpu.sh."""
        given = {"NEUROKERN_REHEARSAL": 1, "PYTHON": self.bin / "python", "OUT": self.out, "JOBS": 1,
                 "SITE": Path(neurokern.__file__).parents[1]} | settings  # fmt: skip
        env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        env |= {k: str(v) for k, v in given.items()} | {"PATH": f"{self.bin}:{os.environ['PATH']}"}
        done = subprocess.run(["bash", SCRIPT], env=env, capture_output=True, text=True, check=False, timeout=300)
        return done.returncode, done.stdout + done.stderr

    def lines(self, name: str) -> list[dict]:
        path = self.out / name
        return [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []

    def stages(self) -> dict[str, dict]:
        return {line["stage"]: line for line in self.lines("gpu-run.jsonl") if "stage" in line}


OWN_TESTS = """
import ctypes, time, pytest
pytestmark = pytest.mark.gpu
def test_before(): pass
def test_fault(): ctypes.string_at(0)
def test_wrong(): assert 1 == 2
def test_behind(): pass
def test_endless(): time.sleep(99)
def test_last(): pass
"""


def test_every_stage_runs_and_a_fault_costs_only_itself(tmp_path: Path) -> None:
    """A suite that crashes, and tests that crash, fail and hang."""
    crash = '*"--suite softmax"*) kill -SEGV $$ ;;\n'
    machine = Machine(tmp_path, crash, ("compute-sanitizer", "ncu"))
    own = tmp_path / "test_own.py"
    own.write_text(OWN_TESTS)
    # of the emulator's instruction tests and of the smallest samples a few; tiny's first cases
    code, output = machine.run(
        FIRST="tests/test_gpu_first.py -k relu6-float32", SNIPPETS="tests/test_emulator_warp.py -k shuffles",
        TESTS=own, SUITES="softmax tiny", BENCH="--quick --minutes 0.02", PATIENCE=8,
    )  # fmt: skip
    assert code == 1, output

    expected = {
        "environment": 0, "smallest": 0, "tests": 1, "memcheck": 0, "racecheck": 0, "bench-softmax": 139,
        "bench-tiny": 0, "ncu": 0, "snippets": 0,
    }  # fmt: skip
    assert {name: s["exit"] for name, s in machine.stages().items()} == expected, output
    files = {f"gpu-{name}" for name in ("run.jsonl", "tests.jsonl", "bench.jsonl", "snippets.jsonl", "summary.txt")}
    assert {p.name for p in machine.out.iterdir()} == files | {"gpu.log"}  # ncu and the build make two more: eight

    (facts,) = (line for line in machine.lines("gpu-run.jsonl") if "environment" in line)
    assert facts["rehearsal"] is True
    assert (facts["nvidia_smi"]["name"], facts["nvidia_smi"]["driver_version"]) == ("A GPU", "580.1")
    assert facts["packages"]["torch"] == facts["torch"]["version"] == torch.__version__

    tests = outcomes(machine.lines("gpu-tests.jsonl"))
    mine = {name.rpartition("::")[2]: line for name, line in tests.items() if "test_own" in name}
    assert {name: line["outcome"] for name, line in mine.items()} == {
        "test_before": "passed", "test_fault": "died", "test_wrong": "failed", "test_behind": "passed",
        "test_endless": "died", "test_last": "passed",
    }  # fmt: skip
    assert "signal 11" in mine["test_fault"]["message"]
    assert "assert 1 == 2" in mine["test_wrong"]["message"]
    others = [line for name, line in tests.items() if "test_own" not in name]
    assert {line["outcome"] for line in others} == {"passed"}
    assert {line["backend"] for line in others} == {"cuda", "triton"}
    assert {line["family"] for line in others} == {"activation", "matmul", "snippets"}

    bench = machine.lines("gpu-bench.jsonl")
    assert bench
    for record in bench:
        assert (record["suite"], record["failed"], record["rehearsal"]) == ("tiny", None, True)
        assert record["kernel"].startswith("cuda:")
        assert (record["timer"], record["no_graph"]) == ("graph", None)
        assert record["ours_eager_us"] > 0
        assert record["clocks_before"]["sm_mhz"] == 1980.0
    assert {record["clocks"]["sm_mhz"] for record in bench} <= {1980.0, 1410.0}
    assert bench[-1]["clocks"]["sm_mhz"] == 1410.0  # while it ran

    snippets = machine.lines("gpu-snippets.jsonl")
    assert snippets
    assert sum(line["launches"] for line in snippets) > 0
    assert output.count("layer_norm backward: launched") == 3

    text = (machine.out / "gpu-summary.txt").read_text()
    for words in ("A GPU, capability 9.0, driver 580.1", "a rehearsal", "test_own.py::test_fault: died: ",
                  "1 x test_own.py::test_wrong: failed: E   assert 1 == 2", "times faster than torch", "MHz",
                  "twins on", "exit 139"):  # fmt: skip
        assert words in text, words
        assert words in (machine.out / "gpu.log").read_text()


def test_a_build_that_fails_ends_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path, '*"-m pip install"*) echo "CMake Error: no compiler"; echo more; exit 3 ;;\n')
    code, output = machine.run(SITE="")
    assert code == 2
    assert "CMake Error: no compiler" in output
    assert "the build failed" in output
    assert list(machine.stages()) == ["environment", "build"]
    assert machine.stages()["build"]["exit"] == 3
    assert "no compiler" in (machine.out / "gpu-build.log").read_text()


def test_no_gpu_ends_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.add("nvidia-smi", "#!/bin/sh\nexit 9\n")
    code, output = machine.run()
    assert code == 2
    assert "nvidia-smi shows no GPU" in output
    assert not machine.lines("gpu-run.jsonl")


def test_all_well_is_exit_status_zero(tmp_path: Path) -> None:
    machine = Machine(tmp_path, ALL_WELL)
    code, output = machine.run()
    assert code == 0, output
    assert all(s["exit"] == 0 for s in machine.stages().values())
    assert next(s for s in machine.stages() if s.startswith("bench-")) == "bench-matmul-bf16"
    assert not {"memcheck", "ncu"} & set(machine.stages())  # there are no such tools


def test_no_stage_goes_past_the_end(tmp_path: Path) -> None:
    """One that does not even heed its interrupt is killed, and what it had is kept; the next ones have no time left."""
    endless = "trap '' INT; $REAL \"$@\"; echo hangs now; while :; do sleep 1; done"
    machine = Machine(tmp_path, f'*"--suite tiny"*) {endless} ;;\n{ALL_WELL}')
    total, start = 32, time.monotonic()
    code, output = machine.run(TOTAL=total, SUITES="tiny softmax", BENCH="--quick --minutes 0.02")
    assert time.monotonic() - start < total + 5
    assert code == 1
    stages = machine.stages()
    assert stages["bench-tiny"]["exit"] == 137, output
    assert stages["bench-tiny"]["ended"].startswith("cut at")
    assert {stages[name]["ended"] for name in ("bench-softmax", "snippets")} == {"no time left"}
    assert machine.lines("gpu-bench.jsonl")
    assert "hangs now" in (machine.out / "gpu.log").read_text()
    assert re.search(r"snippets.*no time left", (machine.out / "gpu-summary.txt").read_text())
