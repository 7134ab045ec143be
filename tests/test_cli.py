"""The command line: what it prints, how it ends, what it says of a wrong call."""

from __future__ import annotations

import re
import subprocess
import sys

import neurokern
import pytest
import torch
from neurokern.bench import statement as statement_module
from neurokern.bench.runner import kernels_of
from neurokern.bench.timing import Effort, paired
from neurokern.cli import main


def test_info_names_versions_level_and_every_backend(capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert neurokern.__version__ in out
    assert torch.__version__ in out
    assert neurokern._C.cpu_level() in out
    for name in ("cpu", "cuda", "triton"):
        assert re.search(rf"backend {name} .*(ready|unavailable: \w+)", out)
    assert "CUDA kernels" in out


def test_info_says_why_cuda_is_missing_where_there_is_no_driver(capsys):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    main(["info"])
    line = next(text for text in capsys.readouterr().out.splitlines() if "backend cuda" in text)
    assert "unavailable:" in line
    assert "ready" not in line


@pytest.mark.parametrize(
    "arguments,says",
    [
        (["inf"], "info"),
        (["bench", "--jsn", "x"], "--json"),
        (["check", "--op"], "--op"),
        (["demo", "--epochs", "many"], "--epochs"),
        (["demo", "--epochs", "0"], "--epochs"),
        (["demo", "perceptrn"], "no network 'perceptrn'; did you mean 'perceptron'?"),
        (["bench", "--json", "/proc/no/such"], "--json /proc/no/such: "),
        (["bench", "--plot", "/proc/no/such.svg"], "--plot /proc/no/such.svg: "),
        (["check", "--counters", "--backend", "cpu"], "'cpu'"),
        (["time", "F.relu(x"], "never closed"),
        (["time", "1", "--threads", "one"], "--threads"),
        (["time", "1", "--threads", "100000"], "--threads is '100000', expected numbers from 1 to "),
        (["time", "1", "--nothing"], "(see neurokern time --help)"),
        (["time", "1", "--backend", "cdua"], "'cuda'"),
        (["time", "1", "--device", "gpu"], "did you mean 'cuda'? There are cpu, cuda"),
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
    assert main(["demo", "perceptron", "mlp"]) == 0
    out = capsys.readouterr().out
    for example in examples:
        assert f"{example.NAME} ({example.DATA})" in out
    assert "cpu " in out.split("kernels that ran")[1]


def test_the_demo_fails_when_accuracy_or_agreement_misses_its_bound(capsys, monkeypatch, examples):
    perceptron, mlp = examples
    monkeypatch.setattr(perceptron, "ACCURACY", 1.01)
    monkeypatch.setattr(mlp, "AGREEMENT", -1.0)
    assert main(["demo", "perceptron", "mlp", "--epochs", "1"]) == 1
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
        err = capsys.readouterr().err
        assert err.startswith("neurokern: NameError: name 'y' is not defined; define it with -s")
        assert err.count("\n") == 1

    @pytest.mark.parametrize(
        "statement,kernel",
        [
            ("F.layer_norm(x, (5,))", "layer_norm"),
            ("layer_norm(x, (5,))", "layer_norm"),
            ("[softmax(row, -1) for row in x]", "softmax"),
            ("LayerNorm(5)(x)", "layer_norm"),
            ("neurokern.functional.relu(x)", "relu"),
            ("neurokern.nn.ReLU()(x)", "relu"),
            ("neurokern.patch(torch.nn.ReLU())(x)", "relu"),
        ],
    )
    def test_every_name_of_ours_is_known_on_both_sides(self, monkeypatch, capsys, statement, kernel):
        sides = []
        monkeypatch.setattr(statement_module, "paired", lambda a, b, *_: (sides.extend((*a, *b)), brief(a, b))[1])
        assert main(["time", statement, "-s", "x = randn(3, 5)"]) == 0
        assert f"cpu:{kernel}" in capsys.readouterr().out
        assert kernels_of(sides[0]) != ""
        assert kernels_of(sides[1]) == "", "torch's side runs ours"

    @pytest.mark.parametrize(
        "statement,says",
        [
            ("F.cross_entropy(x, x)", "cross_entropy is torch's on both sides"),
            ("torch.relu(x)", "call them as F.relu(x)"),
            ("x + 1", "operators of tensors are torch's"),
            ("F.relu", "call them as F.relu(x)"),
        ],
    )
    def test_where_none_of_ours_ran_it_says_why(self, monkeypatch, capsys, statement, says):
        monkeypatch.setattr(statement_module, "paired", lambda a, b, *_: brief(a, b))
        assert main(["time", statement, "-s", "x = randn(3, 5)"]) == 0
        assert says in capsys.readouterr().out

    def test_a_bare_name_that_torch_lacks_asks_for_a_statement(self, capsys):
        assert main(["time", "swiglu(x)", "-s", "x = randn(4, 6)"]) == 1
        assert (
            capsys.readouterr().err
            == "neurokern: torch has no swiglu: give a statement for torch's side with --torch\n"
        )


def brief(ours, theirs):
    return paired(ours, theirs, effort=Effort(3, 1e-5, 0.01))


def test_a_command_that_is_interrupted_shows_what_it_has_and_exits_with_130(capsys, monkeypatch):
    from neurokern.cli import check

    compared = check._compare

    def once(spec, *more):
        if spec.id != "relu":
            raise KeyboardInterrupt
        return compared(spec, *more)

    monkeypatch.setattr(check, "_compare", once)
    assert main(["check", "--op", "relu", "--op", "relu6", "--dtype", "f32", "--backend", "cpu"]) == 130
    captured = capsys.readouterr()
    assert re.search(r"relu .* 0\.00 / 0\.00", captured.out)
    assert captured.err.startswith("neurokern: interrupted after 1 of 2")


def test_an_interrupted_demo_shows_the_networks_that_are_done(capsys, monkeypatch, examples):
    from neurokern.cli import demo

    trained, done = demo.train, []

    def once(example, *more):
        if done:
            raise KeyboardInterrupt
        done.append(example)
        return trained(example, *more)

    monkeypatch.setattr(demo, "train", once)
    assert main(["demo", "perceptron", "mlp", "--epochs", "1"]) == 130
    captured = capsys.readouterr()
    assert "perceptron (breast cancer)" in captured.out
    assert captured.err == "neurokern: interrupted after 1 of 2 networks\n"


@pytest.mark.parametrize("command", [["check", "--op", "relu", "--dtype", "f32"], ["bench", "--minutes", "1e-9"]])
def test_long_commands_say_at_first_how_long_they_take(capsys, command):
    main(command)
    assert re.search(r"about \d+ (seconds|minutes?)", "".join(capsys.readouterr().out.splitlines()[:2]))
