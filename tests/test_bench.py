"""The benchmark's own honesty: pairing, bounds, records, failures as rows, options."""

from __future__ import annotations

import itertools
import json
import math
import time

import pytest
import torch
from neurokern.bench import main as bench_main
from neurokern.bench.cases import Case, Pool, arguments, calls, errors
from neurokern.bench.console import Failure, duration
from neurokern.bench.machine import last_level_cache
from neurokern.bench.main import Options
from neurokern.bench.report import geometric_mean, missed
from neurokern.bench.runner import Run
from neurokern.bench.suites import SUITES, Bound, Suite
from neurokern.bench.timing import Effort, paired, spread
from neurokern.cli import main

BRIEF = Effort(pairs=5, sample=1e-4, budget=0.2)


def case(ours, theirs=torch.relu, n=1000, **kw):
    return Case("relu", str(n), "f32", ours, theirs, ((n,),), (1.0,), **kw)


def suite(mean=1.0, worst=0.5):
    return Suite("own", "own", "activation", Bound(mean, worst), lambda device, quick: [])


def test_paired_tells_which_side_is_slower_and_by_how_much():
    slow, fast = (lambda: time.sleep(0.004)), (lambda: time.sleep(0.001))
    found = paired([fast], [slow], effort=BRIEF)
    assert len(found.ours) == len(found.theirs) == 5
    assert 2.0 < found.ratio < 5.0


def test_paired_takes_turns_in_alternating_order():
    seen = []
    paired([lambda: seen.append("a") or time.sleep(2e-4)], [lambda: seen.append("b") or time.sleep(2e-4)], effort=BRIEF)
    # after warming up and calibrating, five pairs of one call each
    assert "".join(seen[-10:]) == "abbaabbaab"


def test_paired_measures_a_call_far_beyond_its_budget_once():
    count = []
    found = paired([lambda: count.append(1)], [lambda: time.sleep(1.0)], effort=BRIEF)
    assert len(found.theirs) == 1
    assert found.theirs[0] >= 1.0
    assert len(count) == 1


def test_paired_makes_equally_many_calls_of_both_sides_whatever_the_first_ones_took():
    seen = []

    def ours():
        seen.append("a")
        time.sleep(0.01 if seen.count("a") < 4 else 1e-4)

    paired([ours], [lambda: seen.append("b") or time.sleep(2e-4)], effort=Effort(pairs=4, sample=2e-3, budget=1.0))
    runs = ["".join(run) for _, run in itertools.groupby(reversed(seen))]
    first, second, third = (len(run) for run in runs[:3])
    assert first > 1
    assert (second, third) == (2 * first, 2 * first)  # a b, b a, a b, b a


def test_a_hot_case_has_one_buffer_set_and_a_cold_one_more_than_the_cache_holds():
    n = 1 << 20
    hot, cold = (len(calls(case(torch.relu, n=n, hot=h), Pool(0, "cpu"), "cpu")[0]) for h in (True, False))
    assert hot == 1
    assert cold * 2 * 4 * n >= last_level_cache()


def test_recorded_and_backward_cases_time_their_part_alone():
    both = {"forward": 0, "backward": 0}

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            both["forward"] += 1
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            both["backward"] += 1
            return g

    for way, counts in (("recorded", {"forward": 3, "backward": 0}), ("backward", {"forward": 0, "backward": 3})):
        own = case(Counted.apply, **{way: True})
        ours = calls(own, Pool(0, "cpu"), "cpu")[0]
        both.update(forward=0, backward=0)
        results = [ours[0]() for _ in range(3)]
        assert both == counts, own.direction
        assert way in own.direction
        assert way == "backward" or results[0].requires_grad


def test_buffer_sets_rotate_through_every_set():
    seen = []
    paired([lambda k=k: seen.append(k) for k in range(7)], [lambda: None] * 7, effort=BRIEF)
    assert set(seen) == set(range(7))


def test_spread_is_the_interquartile_range():
    assert spread([1.0, 2.0]) == 0.0
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(3.0)


def test_data_are_fresh_for_every_seed_and_every_set():
    a, b = (arguments(case(torch.relu), Pool(seed, "cpu"))[0] for seed in (1, 2))
    assert not torch.equal(a, b)
    pool = Pool(1, "cpu")
    assert not torch.equal(*(arguments(case(torch.relu), pool)[0] for _ in range(2)))


def test_large_cases_get_more_buffers_than_the_cache_holds():
    n = 1 << 20
    ours, theirs, _ = calls(case(torch.relu, n=n), Pool(0, "cpu"), "cpu")
    assert len(ours) == len(theirs)
    assert len(ours) * 2 * n * 4 >= min(2 * last_level_cache(), 64 * 2 * n * 4)
    assert len(calls(case(torch.relu, n=100), Pool(0, "cpu"), "cpu")[0]) == 1


def test_errors_are_told_in_units_of_the_last_place():
    exact, _ = errors(case(torch.relu), Pool(0, "cpu"))
    assert exact == 0.0
    # a float32 result that is off by one part in 2**20 is off by 8 to 16 units
    off, _ = errors(case(lambda x: torch.relu(x) * (1 + 2.0**-20)), Pool(0, "cpu"))
    assert 7.5 <= off <= 16.5
    wrong, _ = errors(case(lambda x: torch.full_like(x, math.nan)), Pool(0, "cpu"))
    assert wrong == math.inf


def test_errors_see_a_wrong_gradient():
    class Half(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return torch.relu(x)

        @staticmethod
        def backward(ctx, g):
            return g / 2

    ours, theirs = errors(case(Half.apply, grad=True), Pool(0, "cpu"))
    assert theirs <= 1.0
    assert ours > 1e5


def test_a_failing_case_is_a_row_and_misses_the_bound(tmp_path):
    def broken(x):
        raise RuntimeError("neurokern.relu: no luck")

    file = tmp_path / "records.jsonl"
    run = Run(effort=BRIEF, file=file, seed=3)
    records = run.suite(suite(), [case(broken), case(torch.relu)])
    assert [r["failed"] is None for r in records] == [False, True]
    assert "no luck" in records[0]["failed"]
    assert any("no luck" in words for words in missed(suite(), records))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert lines == records
    for key in ("date", "commit", "machine", "versions", "threads", "seed", "dtype", "ratio", "ratio_iqr", "pairs",
                "gbps", "share", "error_ulps", "torch_error_ulps", "ours_us", "torch_us", "kernel"):  # fmt: skip
        assert key in lines[1], key
    assert lines[1]["seed"] == 3


def test_records_are_appended_and_threads_obeyed(tmp_path):
    seen = []

    def watch(x):
        seen.append(torch.get_num_threads())
        return torch.relu(x)

    file = tmp_path / "records.jsonl"
    before = torch.get_num_threads()
    for _ in range(2):
        Run(threads=(1, 2), effort=BRIEF, file=file).suite(suite(), [case(watch)])
    assert [json.loads(line)["threads"] for line in file.read_text().splitlines()] == [1, 2, 1, 2]
    assert set(seen) == {1, 2}
    assert torch.get_num_threads() == before


def test_bounds_are_judged_by_mean_and_by_every_case():
    def row(ratio):
        return {"failed": None, "ratio": ratio, "op": "relu", "case": "9", "dtype": "f32", "direction": "forward",
                "threads": 1, "device": "cpu"}  # fmt: skip

    assert geometric_mean([1.0, 4.0]) == pytest.approx(2.0)
    assert missed(suite(2.0, 0.9), [row(1.0), row(4.0)]) == []
    assert missed(suite(2.0, 1.1), [row(1.0), row(4.0)]) == ["1 of 2 cases below 1.10"]
    assert missed(suite(2.1, 0.9), [row(1.0), row(4.0)]) == ["geometric mean 2.00 below 2.10"]


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_suite_has_cases_and_no_case_twice(device, quick):
    for s in SUITES:
        cases = s.cases(device, quick)
        names = [c.name for c in cases]
        assert cases, s.name
        assert len(set(names)) == len(names), s.name
        assert {c.dtype for c in cases} <= {"f32", "bf16", "f16"}


def test_suites_hold_what_they_promise():
    def labels(name):
        return {(c.op, c.label) for s in SUITES if s.name == name for c in s.cases("cpu", False)}

    for dtype in ("f32", "bf16", "f16"):
        have = labels(f"matmul-{dtype}")
        for n in (64, 128, 256, 512, 1024, 2048):
            assert ("matmul", f"{n} x {n} x {n}") in have
        for tokens in (1, 16, 197, 1024):
            for n, k in ((768, 768), (2304, 768), (3072, 768), (768, 3072)):
                assert ("linear", f"{tokens} x {n} x {k}") in have
    rows = {int(label.split()[0]) for _, label in labels("few-rows")}
    assert min(rows) == 1
    assert max(rows) == 16
    assert {"32 Ki", "4 Mi"} <= {label for _, label in labels("activation")}


@pytest.mark.parametrize(
    "arguments,says",
    [
        (["bench", "matmull"], "did you mean 'matmul'"),
        (["bench", "--suite", "few-row"], "did you mean 'few-rows'"),
        (["bench", "--dtype", "f31"], "did you mean 'f32'"),
        (["bench", "--device", "cdua"], "did you mean 'cuda'"),
        (["bench", "--backend", "cdua"], "did you mean 'cuda'"),
        (["bench", "--threads", "none"], "--threads"),
        (["bench", "--minutes", "0"], "--minutes is 0"),
        (["bench", "--minutes", "nan"], "--minutes is nan"),
        (["bench", "--plot", "x.bmp"], ".svg"),
        (["bench", "--plot", "/proc/no/such.svg"], "--plot /proc/no/such.svg: "),
    ],
)
def test_a_wrong_option_is_one_line_that_suggests_and_makes_no_file(capsys, tmp_path, arguments, says):
    file = tmp_path / "records.jsonl"
    assert main([*arguments, "--json", str(file)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert says in captured.err
    assert not file.exists()


def test_the_command_lists_its_suites(capsys):
    assert main(["bench", "--list"]) == 0
    out = capsys.readouterr().out
    assert all(s.name in out for s in SUITES)


def test_the_command_runs_prints_and_enforces(monkeypatch, tmp_path, capsys):
    def cases(device, quick):
        return [case(lambda x: torch.relu(x.clone().sin()), n=4096)]

    slow = Suite("tiny", "slow on purpose", "activation", Bound(5.0, 5.0), cases)
    monkeypatch.setattr(bench_main, "SUITES", (slow,))
    monkeypatch.setattr("neurokern.bench.report.SUITES", (slow,))
    file = tmp_path / "records.jsonl"
    bench_main.bench(Options("activation", quick=True, threads="1", file=file))
    assert "slow on purpose" in capsys.readouterr().out
    with pytest.raises(Failure, match="targets missed"):
        bench_main.bench(Options("activation", quick=True, threads="1", enforce=True))
    assert len(file.read_text().splitlines()) == 1


def test_an_interrupted_run_prints_and_keeps_what_was_measured(monkeypatch, tmp_path, capsys):
    def interrupted(x):
        raise KeyboardInterrupt

    some = Suite(
        "tiny", "own suite", "activation", Bound(1.0, 0.5), lambda *_: [case(torch.relu), case(interrupted, n=9)]
    )
    monkeypatch.setattr(bench_main, "SUITES", (some,))
    monkeypatch.setattr("neurokern.bench.report.SUITES", (some,))
    file = tmp_path / "records.jsonl"
    assert main(["bench", "activation", "--quick", "--threads", "1", "--json", str(file)]) == 130
    captured = capsys.readouterr()
    assert "relu 1000 f32 forward, 1 thread" in captured.out
    assert "own suite" in captured.out
    assert captured.err == "neurokern: interrupted after 1 of 2 measurements\n"
    assert len(file.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    "seconds,says",
    [
        (0.0, "0 ns"), (3.21e-10, "0.32 ns"), (7.77e-8, "77.7 ns"), (9.996e-7, "1.00 us"), (1.2345e-3, "1.23 ms"),
        (1234e-6, "1.23 ms"), (0.99951, "1.00 s"), (12.34, "12.3 s"), (1234.5, "1234 s"), (-2e-3, "-2.00 ms"),
        (9.999e-6, "10.0 us"),
    ],
)  # fmt: skip
def test_durations_have_a_unit_and_three_digits(seconds, says):
    assert duration(seconds) == says


def test_cases_left_out_for_time_are_told_and_have_no_table(capsys):
    assert bench_main.bench(Options(suites=("tiny",), threads="1", minutes=1e-9)) == []
    out = capsys.readouterr().out
    assert "cases left out: the time was up" in out
    assert "slowest against torch" not in out


def test_a_plot_is_drawn_from_the_records(tmp_path):
    pytest.importorskip("matplotlib")
    from neurokern.bench import plot

    record = {"failed": None, "ratio": 2.0, "suite": "tiny", "op": "relu", "case": "64", "dtype": "f32", "threads": 1,
              "direction": "forward", "device": "cpu", "backend": "auto", "machine": {"cpu": "some"},
              "versions": {"torch": "2"}, "date": "2026-01-01T00:00:00Z"}  # fmt: skip
    file, picture = tmp_path / "r.jsonl", tmp_path / "p.svg"
    file.write_text(json.dumps(record) + "\n")
    assert plot.main([str(file), str(picture)]) == 0
    assert "<svg" in picture.read_text()
