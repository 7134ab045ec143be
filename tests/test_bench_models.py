"""`neurokern bench models`: a tiny decoder from end to end; turns, memory, targets, no transformers."""

from __future__ import annotations

import json
import re
import time
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from neurokern.bench import models
from neurokern.bench.models import OURS, TORCH, WHAT, Bench, in_turns, least_of, peak_memory, show_models
from neurokern.bench.runner import kernels_of
from neurokern.bench.suites import models as suite
from neurokern.cli import main

TINY = suite.Model(
    "tiny GPT-2", "GPT2LMHeadModel", "GPT2Config", 2, "2 x 8 tokens", suite._tokens, 8, True,
    {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 64, "n_positions": 64,
     "bos_token_id": 0, "eos_token_id": 0},
)  # fmt: skip


@pytest.fixture
def tiny(monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setattr(suite, "MODELS", (TINY,))
    monkeypatch.setattr(models, "QUICK", (2, 2, 0.0))
    return TINY


def test_a_tiny_model_is_measured_from_end_to_end(tiny, tmp_path, capsys):
    file = tmp_path / "records.jsonl"
    assert main(["bench", "models", "--quick", "--threads", "1", "--json", str(file)]) == 0
    out = capsys.readouterr().out
    assert "whole models" in out
    assert "tiny GPT-2" in out
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert {(r["what"], r["dtype"], r["threads"]) for r in records} == {
        (w, d, 1) for w in WHAT for d in ("f32", "bf16")
    }
    for r in records:
        assert r["failed"] is None
        assert (r["suite"], r["model"]) == ("models", "tiny GPT-2")
        assert set(r["seconds"]) == {OURS, TORCH}
        assert all(s > 0 for s in r["seconds"].values())
        assert r["ratios"] == {OURS: r["ratio"], TORCH: 1.0}
        assert r["loss_difference"] < (1e-5 if r["dtype"] == "f32" else 5e-2)
    by_what = {r["what"]: r["seconds"][OURS] for r in records if r["dtype"] == "f32"}
    assert by_what["step with AdamW"] > by_what["training step"] > by_what["forward"]


def test_the_share_of_our_kernels_is_that_of_the_launches_that_are_timed(tiny, monkeypatch, capsys):
    @contextmanager
    def timed(times):
        assert times
        yield [SimpleNamespace(backend="cpu", seconds=1e-5), SimpleNamespace(backend="torch", seconds=1e9)] * 3

    monkeypatch.setattr(models, "trace", timed)
    assert models.kernel_seconds(lambda: None) == pytest.approx(3e-5)
    monkeypatch.setattr(models, "WHAT", ("training step",))
    assert main(["bench", "models", "--quick", "--threads", "1", "--dtype", "f32"]) == 0
    out = capsys.readouterr().out
    assert "kernels" in out
    assert re.search(r" \d+ % ", out)


@pytest.mark.slow
def test_compiled_variants_are_measured_where_wanted(tiny, monkeypatch, tmp_path):
    monkeypatch.setattr(models, "WHAT", ("forward",))
    monkeypatch.setattr(suite, "MODELS", (replace(TINY, options=TINY.options | {"n_layer": 1}),))
    file = tmp_path / "records.jsonl"
    wanted = ["--compiled", "--dtype", "f32", "--threads", "1", "--json", str(file)]
    assert main(["bench", "models", "--quick", *wanted]) == 0
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert [r["failed"] for r in records] == [None]
    names = {OURS, TORCH, f"{OURS}, compiled", f"{TORCH}, compiled"}
    assert all(set(r["seconds"]) == set(r["ratios"]) == names for r in records)


def test_ours_runs_our_kernels_on_the_same_parameters_and_torchs_none(tiny):
    bench = Bench(TINY, "f32", False)
    given = bench.draw()
    kernels = {v: kernels_of(lambda v=v: bench.forward(v)[0](given)) for v in (OURS, TORCH)}
    assert "cpu:layer_norm" in kernels[OURS]
    assert kernels[TORCH] == ""
    both = zip(bench.variants[OURS].parameters(), bench.variants[TORCH].parameters(), strict=True)
    assert all(a is b for a, b in both)
    assert not torch.equal(given["input_ids"], bench.draw()["input_ids"])


@pytest.mark.parametrize("model", [m for m in suite.MODELS if isinstance(m, suite.Network)], ids=lambda m: m.kind)
def test_a_network_of_the_examples_runs_on_both_sides_on_the_same_parameters(model):
    model = replace(model, batch=2)
    bench = Bench(model, "f32", False)
    both = zip(bench.variants[OURS].parameters(), bench.variants[TORCH].parameters(), strict=True)
    assert all(a is b for a, b in both)
    assert bench.difference() < 1e-5
    given = bench.draw()
    kernels = {v: kernels_of(lambda v=v: bench.training(v)[0](given)) for v in (OURS, TORCH)}
    transformer = "transformer" in model.kind or model.kind == "translator"
    assert ("cpu:attention" if transformer else "cpu:convolution_weight") in kernels[OURS]
    assert kernels[TORCH] == ""
    assert all(p.grad is not None for p in bench.variants[TORCH].parameters())
    assert {len(t) for t in bench.draw(1).values()} == {1}


def test_the_models_that_are_named_are_measured_alone(tiny, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(suite, "MODELS", (replace(TINY, name="other"), TINY))
    monkeypatch.setattr(models, "WHAT", ("forward",))
    file = tmp_path / "records.jsonl"
    arguments = ["--quick", "--threads", "1", "--dtype", "f32", "--json", str(file)]
    assert main(["bench", "--model", "tiny GPT-2", *arguments]) == 0
    assert [json.loads(line)["model"] for line in file.read_text().splitlines()] == ["tiny GPT-2"]
    assert main(["bench", "--model", "tiny GTP-2", *arguments]) == 2
    assert "no model 'tiny GTP-2'; did you mean 'tiny GPT-2'?" in capsys.readouterr().err


def test_a_model_that_fails_is_a_row_and_the_next_is_measured(tiny, monkeypatch, capsys):
    broken = suite.Model("broken", "GPT2LMHeadModel", "GPT2Config", 2, "none", suite._tokens, 8, options={"n_head": 7})
    monkeypatch.setattr(suite, "MODELS", (broken, TINY))
    assert main(["bench", "models", "--quick", "--threads", "1", "--dtype", "f32"]) == 1
    captured = capsys.readouterr()
    assert "broken none f32 forward, 1 thread: ValueError" in captured.out
    assert "1 of 6 cases failed" in captured.err


@pytest.mark.parametrize("ratio,rounds", [(0.99, 4), (0.5, 2), (2.0, 2)])
def test_a_measurement_near_its_target_is_repeated(tiny, monkeypatch, tmp_path, ratio, rounds):
    def turns(steps, *_):
        return models.Turns({v: [[1.0 if v == OURS else ratio]] * 2 for v in steps})

    monkeypatch.setattr(models, "in_turns", turns)
    monkeypatch.setattr(models, "WHAT", ("forward",))
    file = tmp_path / "records.jsonl"
    assert main(["bench", "models", "--threads", "1", "--dtype", "f32", "--json", str(file)]) == 0
    (record,) = (json.loads(line) for line in file.read_text().splitlines())
    assert (record["ratio"], record["pairs"]) == (ratio, rounds)


def test_without_transformers_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: None)
    assert main(["bench", "models"]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("neurokern: whole models need the package transformers (pip install transformers")
    # all suites: the models alone are left out
    assert main(["bench", "--quick", "--minutes", "1e-9"]) == 0
    assert "models left out" in capsys.readouterr().out


def test_the_time_limit_holds_for_models(tiny, capsys):
    assert main(["bench", "models", "--minutes", "1e-9", "--threads", "1"]) == 0
    assert "10 cases left out: the time was up" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["bench", "models", "--device", "cuda"], ["bench", "models", "--dtype", "f16"]])
def test_what_no_model_is_measured_on_is_refused(capsys, arguments):
    assert main(arguments) == 2
    assert "no case fits these options" in capsys.readouterr().err


def test_variants_take_turns_in_moving_order_on_inputs_of_each_round():
    seen, drawn = [], iter(range(100))
    steps = {name: (lambda given, name=name: seen.append((name, given)),) for name in "abc"}
    in_turns({**steps}, lambda: next(drawn), 2, 4, 10.0)
    assert seen[3:] == [(n, 3 + i) for i, order in enumerate(("abc", "bca", "cab", "abc")) for n in order]


def test_turns_tell_parts_and_ratios():
    steps = {
        OURS: (lambda _: time.sleep(0.004), lambda _: time.sleep(0.002)),
        TORCH: (lambda _: time.sleep(0.012), lambda _: time.sleep(0.002)),
    }
    found = in_turns(steps, dict, 3, 3, 1.0)
    assert all(whole > first for first, whole in zip(found.of(OURS, 0), found.of(OURS, 1), strict=True))
    assert 2.0 < sorted(found.ratios(OURS, 0))[1] < 4.0
    assert sorted(found.ratios(OURS, 1))[1] < sorted(found.ratios(OURS, 0))[1]


def test_peak_memory_is_what_a_call_needs_besides_and_not_what_was_freed_before():
    mib = 1 << 20

    def run(n):
        t = torch.ones(n * mib)
        del t
        return torch.ones(mib)

    found = peak_memory(lambda: run(48))
    if found is None:
        pytest.skip("this system does not tell the peak")
    assert 48 * 4 * mib * 0.95 < found < 60 * 4 * mib
    assert peak_memory(lambda: run(8)) < 16 * 4 * mib


def test_targets_are_judged_for_every_measurement(capsys):
    def record(what, dtype, ratio, model="GPT-2 small"):
        return {"model": model, "case": "2 x 128 tokens", "what": what, "dtype": dtype, "threads": 1, "failed": None,
                "ratio": ratio, "seconds": {OURS: 1.0, TORCH: ratio}, "ratios": {OURS: ratio, TORCH: 1.0}}  # fmt: skip

    assert least_of(record("training step", "f32", 1.0)) == 1.4
    good = [record("training step", "f32", 1.4), record("training step", "bf16", 1.0), record("forward", "f32", 1.0)]
    assert show_models(good, False, False) == []
    bad = [record("training step", "f32", 1.39), record("forward", "f32", 0.99)]
    assert show_models(bad, False, False) == [
        "GPT-2 small 2 x 128 tokens f32 training step, 1 thread: 1.39 below 1.40",
        "GPT-2 small 2 x 128 tokens f32 forward, 1 thread: 0.99 below 1.00",
    ]


@pytest.mark.parametrize("quick", [False, True])
def test_models_have_names_of_their_own(quick):
    names = [m.name for m in suite.chosen(quick)]
    assert len(set(names)) == len(names) >= 2
    assert {m for m, *_ in suite.LEAST_OF} <= {m.name for m in suite.MODELS}
