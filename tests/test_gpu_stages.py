"""The stages of `make gpu`, each by itself: timing by graphs, clocks, tests that survive what they do, the summary."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from neurokern.bench import clocks, graphs, machine
from neurokern.bench.cases import Case, Pool, calls
from neurokern.bench.clocks import Watch, parsed
from neurokern.bench.console import Failure
from neurokern.bench.gpu import summary
from neurokern.bench.gpu.shards import Shards
from neurokern.bench.graphs import LEAST_CALLS, Emulator, Gpu, graph_calls, paired_on_gpu
from neurokern.bench.runner import Run
from neurokern.bench.suites import Bound, Suite
from neurokern.bench.timing import Effort
from neurokern.testing import Target, rehearsal
from neurokern.testing.journal import LOST, Journal

BRIEF = Effort(pairs=4, sample=1e-4, budget=0.5)


def case(ours, n: int = 1000, **kw) -> Case:
    return Case("relu", str(n), "f32", ours, torch.relu, ((n,),), (1.0,), **kw)


class Recorded:
    """torch.cuda's graphs, events and streams, on a clock that each launch of a side moves on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, refuses: bool = False) -> None:
        self.now, self.capturing, self.replays = 0.0, None, []
        recorded = self

        class Graph:
            def capture_begin(self, capture_error_mode: str) -> None:
                self.launches, recorded.capturing = [], self

            def capture_end(self) -> None:
                recorded.capturing = None
                if refuses:
                    raise RuntimeError("operation not permitted when stream is capturing")

            def replay(self) -> None:
                recorded.replays.append(self)
                recorded.now += sum(seconds for _, seconds in self.launches)

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                self.at = recorded.now

            def synchronize(self) -> None: ...

            def elapsed_time(self, last: Event) -> float:
                return 1e3 * (last.at - self.at)

        for name, value in (("CUDAGraph", Graph), ("Event", Event), ("synchronize", lambda: None),
                            ("Stream", lambda: None), ("stream", lambda _: nullcontext())):  # fmt: skip
            monkeypatch.setattr(torch.cuda, name, value)

    def side(self, name: str, sets: int, seconds: float) -> list:
        """Calls, one for each set, that launch something that long."""

        def launch(k: int) -> object:
            if self.capturing is None:
                self.now += seconds
            else:
                self.capturing.launches.append((f"{name}{k}", seconds))
            return object()

        return [lambda k=k: launch(k) for k in range(sets)]


def test_graphs_hold_each_buffer_set_once_and_are_replayed_in_turn(monkeypatch):
    gpu = Recorded(monkeypatch)
    found = paired_on_gpu(gpu.side("a", 20, 1e-6), gpu.side("b", 20, 3e-6), Gpu(), BRIEF)
    assert found.ratio == pytest.approx(3.0)
    assert found.medians() == (pytest.approx(1e-6), pytest.approx(3e-6))
    assert found.eager == (pytest.approx(1e-6), pytest.approx(3e-6))
    assert (found.timer, found.no_graph) == ("graph", None)
    names = [[name for name, _ in graph.launches] for graph in dict.fromkeys(gpu.replays)]
    assert names == [[f"{side}{k}" for k in range(20)] for side in "ab"]
    # the last pairs: a b, b a, each of as many replays
    runs = [gpu.replays[-1].launches[0][0]]
    for graph in reversed(gpu.replays):
        if graph.launches[0][0] != runs[-1]:
            runs.append(graph.launches[0][0])
    assert len(runs) >= 3


def test_what_no_graph_can_hold_is_timed_by_events_on_both_sides(monkeypatch):
    gpu = Recorded(monkeypatch, refuses=True)
    found = paired_on_gpu(gpu.side("a", 3, 2e-6), gpu.side("b", 3, 1e-6), Gpu(), BRIEF)
    assert found.timer == "events"
    assert "not permitted when stream is capturing" in found.no_graph
    assert found.ratio == pytest.approx(0.5)
    assert not gpu.replays
    assert gpu.capturing is None


def test_a_graph_keeps_as_many_results_as_there_are_buffer_sets(monkeypatch):
    Recorded(monkeypatch)

    class Result:
        alive = 0

        def __init__(self) -> None:
            Result.alive += 1
            most.append(Result.alive)

        def __del__(self) -> None:
            Result.alive -= 1

    for sets in (1, 3):
        most: list[int] = []
        replay = Gpu().capture([Result] * 9, sets)
        assert max(most) == Result.alive == sets
        replay()
        del replay


def test_an_error_within_a_capture_ends_it(monkeypatch):
    gpu = Recorded(monkeypatch)

    def wrong():
        raise RuntimeError("a module is loaded")

    with pytest.raises(RuntimeError, match="a module is loaded"):
        Gpu().capture([wrong], 1)
    assert gpu.capturing is None


def test_graphs_have_calls_for_every_set_unless_they_are_slow():
    assert graph_calls(100, 1e-6, BRIEF) == 100
    assert graph_calls(1, 1e-6, BRIEF) == LEAST_CALLS
    assert graph_calls(100, 1e-3, BRIEF) == 2
    assert graph_calls(100, 10.0, BRIEF) == 1


def test_buffers_rotate_past_the_gpus_cache_and_not_the_processors(monkeypatch):
    l2 = 6 << 20
    monkeypatch.setattr("neurokern.bench.cases.cache_bytes", lambda device: l2 if device == "cuda" else 1 << 30)
    n = 1 << 18
    ours, theirs, _ = calls(case(torch.relu, n=n), Pool(0, "cpu"), "cuda")
    assert len(ours) == len(theirs)
    assert 4 * l2 <= len(ours) * 2 * 4 * n < 4 * l2 + 2 * 4 * n
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: type("P", (), {"L2_cache_size": 60 << 20}))
    assert machine.cache_bytes("cuda") == 60 << 20
    assert machine.cache_bytes("cpu") == machine.last_level_cache()


def test_clocks_are_read_before_and_while_it_runs(monkeypatch, tmp_path):
    script = tmp_path / "nvidia-smi"
    script.write_text(
        '#!/bin/sh\ncase "$*" in *--loop-ms*) echo "1980, 2600, [N/A], 60, 0x4"; exec sleep 9 ;; esac\n'
        'echo "345, 2600, 75.5, 30, 0x0"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    before = {"sm_mhz": 345.0, "memory_mhz": 2600.0, "watts": 75.5, "celsius": 30.0, "throttled_by": "0x0"}
    assert clocks.read() == before
    watch = Watch()
    assert watch.before == before
    deadline = time.monotonic() + 20
    while watch.latest["sm_mhz"] != 1980.0 and time.monotonic() < deadline:
        time.sleep(0.01)
    watch.close()
    assert watch.latest == {
        "sm_mhz": 1980.0,
        "memory_mhz": 2600.0,
        "watts": None,
        "celsius": 60.0,
        "throttled_by": "0x4",
    }
    assert parsed("no such field") is None
    script.write_text("#!/bin/sh\nexit 9\n")
    assert Watch().latest is None


def test_a_lost_gpu_ends_the_suite_and_its_case_is_a_row(monkeypatch, tmp_path):
    monkeypatch.setenv("NEUROKERN_REHEARSAL", "1")
    monkeypatch.setattr("neurokern.bench.runner.lost", lambda: "CUDA error: an illegal memory access")

    def broken(x):
        raise RuntimeError("CUDA error")

    own = Suite("own", "own", "activation", Bound(1.0, 0.5), lambda *_: [])
    run = Run("cuda", effort=BRIEF, file=tmp_path / "r.jsonl")
    with pytest.raises(Failure, match=r"the GPU was lost in relu 7 .*illegal memory access"):
        run.suite(own, [case(torch.relu), case(broken, n=7), case(torch.relu, n=9)])
    run.close()
    rows = [json.loads(text) for text in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [(r["case"], r["failed"]) for r in rows] == [("1000", None), ("7", "RuntimeError: CUDA error")]


def test_what_stands_in_for_the_gpu_runs_our_cuda_kernels(monkeypatch):
    import neurokern
    from neurokern import functional as F

    monkeypatch.setenv("NEUROKERN_REHEARSAL", "1")
    assert Target("cuda").device == "cpu"
    assert Target("cuda").on_gpu
    assert Target("triton").on_gpu
    assert not Target("cuda", emulated=True).on_gpu
    with rehearsal.in_force("auto"), neurokern.trace() as launches:
        F.relu(torch.randn(9))
    assert [x.backend for x in launches] == ["cuda"]
    assert isinstance(graphs.gpu(), Emulator)
    monkeypatch.delenv("NEUROKERN_REHEARSAL")
    assert Target("triton").on_gpu == torch.cuda.is_available()


TESTS = """
import os, time, pytest
from neurokern.testing import journal
STATE = {"lost": ""}
journal.lost = lambda: STATE["lost"]
@pytest.mark.parametrize("k", range(4))
def test_passes(k): pass
def test_loses():
    STATE["lost"] = "CUDA error: unspecified launch failure"
    raise RuntimeError("CUDA error")
@pytest.mark.skip(reason="not today")
def test_skipped(): pass
def test_exits(): os._exit(3)
def test_hangs(): time.sleep(99)
@pytest.mark.parametrize("k", range(4))
def test_after(k): pass
"""


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3])
def test_a_process_that_dies_costs_one_test(tmp_path: Path, count: int, capfd) -> None:
    file, journal = tmp_path / "test_own.py", tmp_path / "journal"
    file.write_text(TESTS)
    (tmp_path / "test_broken.py").write_text("import no_such_module")
    assert Shards(["--import-mode=importlib", str(tmp_path)], journal, count, patience=4).run() == 1
    lines = Journal(journal).lines()
    got = {k.rpartition("::")[2]: line for k, line in summary.outcomes(lines).items()}
    outcomes = {name: line["outcome"] for name, line in got.items() if "[" not in name and "broken" not in name}
    assert outcomes == {"test_loses": "failed", "test_skipped": "skipped", "test_exits": "died", "test_hangs": "died"}
    assert got["test_loses"]["lost"] == "CUDA error: unspecified launch failure"
    assert [line["outcome"] for name, line in got.items() if "[" in name] == 8 * ["passed"]
    assert [line["outcome"] for name, line in got.items() if "broken" in name] == ["error"]
    begun = [line["test"] for line in lines if line["outcome"] == "begun"]
    assert len(begun) == len(set(begun))  # none is tried twice
    out = capfd.readouterr()
    assert f"the GPU was lost in {file.name}::test_loses" in out.out.replace(f"{tmp_path}/", "")
    assert "in test_hangs" in out.err  # where it hung


@pytest.mark.slow
def test_tests_that_are_interrupted_say_what_failed(tmp_path: Path) -> None:
    """As `timeout -s INT` does it: the signal goes to every process of the group."""
    file, journal = tmp_path / "test_own.py", tmp_path / "journal"
    file.write_text("import time\ndef test_wrong(): assert 1 == 2\ndef test_long(): time.sleep(99)\n")
    command = ["timeout", "-s", "INT", "-k", "20", "60", sys.executable, "-m", "neurokern.bench.gpu", "tests"]
    command += ["--journal", str(journal), "--patience", "90", "--", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        deadline = time.monotonic() + 60
        while len(Journal(journal).lines()) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)  # timeout passes it on
        out, _ = process.communicate(timeout=60)
    assert "assert 1 == 2" in out
    outcomes = summary.outcomes(Journal(journal).lines()).values()
    assert [line["outcome"] for line in outcomes] == ["failed", "cut"]


@pytest.mark.slow
def test_a_stage_whose_tests_are_all_skipped_has_not_passed(tmp_path: Path, capfd) -> None:
    file = tmp_path / "test_own.py"
    file.write_text("import pytest\ndef test_one(): pytest.skip('torch sees no GPU')\n")
    assert Shards([str(file)], tmp_path / "journal", 1, patience=30).run() == 1
    assert "no test ran: {'Skipped: torch sees no GPU'}" in capfd.readouterr().out
    assert Shards([str(file), "-k", "nothing"], tmp_path / "journal", 1, patience=30).run() == 1


def test_a_cut_line_is_none_and_a_test_without_an_end_was_cut(tmp_path):
    file = tmp_path / "journal"
    journal = Journal(file)
    journal.write(test="a", outcome="begun", shard=0)
    journal.write(test="b", outcome="begun", shard=0)
    journal.write(test="a", outcome="passed")
    with file.open("a") as f:
        f.write('{"test": "c", "outco')
    assert {k: v["outcome"] for k, v in summary.outcomes(summary.lines(file)).items()} == {"a": "passed", "b": "cut"}
    assert LOST not in (0, 1, 2, 3, 4, 5)  # pytest's own


def test_the_summary_of_a_run_that_went_wrong(tmp_path, capsys):
    """Whatever files there are: failures, slow cases, twins that differ, what ncu said."""

    def put(name: str, *rows: dict) -> None:
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    common = {"suite": "activation", "case": "4 Mi", "dtype": "f32", "direction": "forward", "threads": 1,
              "device": "cuda", "op": "relu"}  # fmt: skip
    timed = {"ours_us": 10.0, "ours_eager_us": 20.0, "torch_eager_us": 10.0, "share": 0.5, "share_of": "copy",
             "kernel": "cuda:k", "failed": None, "clocks": {"sm_mhz": 1500.0, "watts": 300.0}}  # fmt: skip
    put("gpu-run.jsonl", {"stage": "tests", "exit": 1, "ended": "exit 1", "seconds": 9})
    failure = {"family": "softmax", "backend": "triton", "outcome": "failed"}
    put("gpu-tests.jsonl", *(failure | {"test": f"tests/t.py::x{k}", "message": f"E   ValueError: off by {k}.5 ulp"}
                             for k in range(20)),
        failure | {"test": "tests/t.py::y", "message": "E   RuntimeError: why", "lost": "CUDA error 700"})  # fmt: skip
    put("gpu-bench.jsonl", common | timed | {"ratio": 2.0, "torch_us": 20.0, "timer": "graph", "no_graph": None},
        common | timed | {"ratio": 0.5, "torch_us": 5.0, "op": "gelu", "timer": "events", "no_graph": "can't",
                           "error_ulps": None, "torch_error_ulps": 1.0},
        common | {"failed": "RuntimeError: bad"})  # fmt: skip
    put(
        "gpu-snippets.jsonl", {"test": "t::add", "device": "H", "launches": 2, "differences": ["argument 0: element 7"]}
    )
    (tmp_path / "gpu-ncu.csv").write_text(
        '==PROF== connected\n"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"\n'
        '"0","relu_f32","Duration","us","12.5"\n"0","relu_f32","DRAM Throughput","%","91.5"\n'
    )
    assert summary.show(tmp_path) == 1
    out = capsys.readouterr().out
    for words in (
        "20 x t.py::x0: failed: E   ValueError: off by 0.5 ulp",
        "1 x t.py::y: failed: E   RuntimeError: why (the GPU was lost: CUDA error 700)",
        "1.00",  # the mean of 2 and 0.5
        "0.50 gelu 4 Mi f32 forward: 10.0 us, torch 5.0, 50 % of copy",
        "wrong? gelu 4 Mi f32 forward: None ulps",
        "RuntimeError: bad",
        "no graph: gelu",
        "1500-1500-1500 MHz",
        "differs: t::add: argument 0: element 7",
        "12.5 us",
        "91.5 %",
        "exit 1",
    ):
        assert words in out, words
    put("gpu-run.jsonl", {"stage": "tests", "exit": 0, "ended": "passed", "seconds": 9})
    assert summary.show(tmp_path) == 0
    assert summary.show(tmp_path / "no such folder") == 0


def test_the_environment_is_known_before_anything_is_built(tmp_path):
    """Its script imports nothing of ours."""
    script, file = Path(graphs.__file__).parent / "gpu" / "environment.py", tmp_path / "run.jsonl"
    code = "import runpy, sys; runpy.run_path(sys.argv[1])['main'](sys.argv[2]); sys.exit('neurokern' in sys.modules)"
    subprocess.run([sys.executable, "-c", code, str(script), str(file)], check=True)
    line = json.loads(file.read_text())
    assert line["torch"]["version"] == torch.__version__
    assert line["cores"] == len(os.sched_getaffinity(0))
