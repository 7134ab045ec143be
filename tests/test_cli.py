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
        (["demo", "--epochs", "0"], "--epochs"),
        (["bench", "--json", "/proc/no/such"], "--json /proc/no/such: "),
        (["bench", "--plot", "/proc/no/such.svg"], "--plot /proc/no/such.svg: "),
        (["check", "--counters", "--backend", "cpu"], "'cpu'"),
        (["time", "F.relu(x"], "never closed"),
        (["time", "1", "--threads", "one"], "--threads"),
        (["time", "1", "--threads", "100000"], "--threads is '100000', expected numbers from 1 to "),
        (["time", "1", "--nothing"], "(see neurokern time --help)"),
        (["time", "1", "--backend", "cdua"], "'cuda'"),
        (["time", "1", "--device", "gpu"], "cpu"),
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
    for command in ([], ["info"], ["check"], ["bench"], ["time"], ["demo"]):
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


class TestTime:
    """`neurokern time`: one statement on ours and on torch's."""

    def test_ours_runs_on_our_kernels_and_torchs_does_not(self, capsys):
        assert main(["time", "layer(x); F.relu(x)", "-s", "x = randn(3, 5)", "-s", "layer = nn.Linear(5, 2)"]) == 0
        assert re.search(r"1 .*cpu:matmul_f32_\w+, cpu:relu", capsys.readouterr().out)
        assert main(["time", "torch.relu(x)", "-s", "x = randn(3)"]) == 0
        assert "none of our kernels ran" in capsys.readouterr().out

    def test_a_function_that_torch_lacks_needs_a_statement_for_torch(self, capsys):
        swiglu = ["time", "F.swiglu(x)", "-s", "x = randn(4, 6)"]
        assert main(swiglu) == 1
        assert "--torch" in capsys.readouterr().err
        assert main([*swiglu, "--torch", "F.silu(x)"]) == 0

    def test_an_error_of_the_statement_is_one_line(self, capsys):
        assert main(["time", "F.relu(y)"]) == 1
        assert capsys.readouterr().err == "neurokern: NameError: name 'y' is not defined\n"
