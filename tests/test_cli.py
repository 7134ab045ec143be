"""The command line: what it prints, how it ends, what it says of a wrong call."""

from __future__ import annotations

import re
import subprocess
import sys

import neurokern
import pytest
import torch
from neurokern.cli import main


def test_info_names_versions_level_and_every_backend(capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert neurokern.__version__ in out
    assert torch.__version__ in out
    assert neurokern._C.cpu_level() in out
    for name in ("cpu", "cuda", "triton"):
        assert re.search(rf"backend {name} .*(ready|not here: \w+)", out)
    assert "CUDA kernels" in out


def test_info_says_why_cuda_is_missing_where_there_is_no_driver(capsys):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    main(["info"])
    line = next(text for text in capsys.readouterr().out.splitlines() if "backend cuda" in text)
    assert "not here:" in line
    assert "ready" not in line


@pytest.mark.parametrize(
    "arguments,says",
    [
        (["inf"], "info"),
        (["bench", "--jsn", "x"], "--json"),
        (["check", "--op"], "--op"),
        (["demo", "--epochs", "many"], "--epochs"),
    ],
)
def test_a_wrong_call_is_one_line_on_stderr_and_exit_code_2(capsys, arguments, says):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("neurokern: ")
    assert says in captured.err


def test_help_is_there_for_every_command(capsys):
    for command in ([], ["info"], ["check"], ["bench"], ["demo"]):
        assert main([*command, "--help"]) == 0
        assert "Usage: neurokern" in capsys.readouterr().out


def test_python_m_neurokern_is_the_same_command():
    done = subprocess.run([sys.executable, "-m", "neurokern", "--version"], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout == f"neurokern {neurokern.__version__}\n"


@pytest.fixture
def examples():
    pytest.importorskip("sklearn")
    from neurokern.examples import mlp, perceptron

    return perceptron, mlp


@pytest.mark.slow
def test_the_demo_trains_agrees_with_torch_and_shows_its_kernels(capsys, examples):
    assert main(["demo"]) == 0
    out = capsys.readouterr().out
    for example in examples:
        assert f"{example.NAME} ({example.DATA})" in out
    assert "cpu " in out.split("kernels that ran")[1]


def test_the_demo_fails_when_accuracy_or_agreement_misses_its_bound(capsys, monkeypatch, examples):
    perceptron, mlp = examples
    monkeypatch.setattr(perceptron, "ACCURACY", 1.01)
    monkeypatch.setattr(mlp, "AGREEMENT", -1.0)
    assert main(["demo", "--epochs", "1"]) == 1
    err = capsys.readouterr().err
    assert "perceptron: test accuracy" in err
    assert "MLP: the loss curves differ" in err
