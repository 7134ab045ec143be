"""``neurokern check``: right ops pass, a wrong kernel fails, names are suggested."""

from __future__ import annotations

import re

import neurokern
import pytest
import torch
from neurokern.backends import emulation
from neurokern.cli import main
from neurokern.testing import Target, all_specs, evaluate
from neurokern.testing.run import cotangents, samples_of
from neurokern.testing.spec import Maker


def test_check_judges_an_op_and_prints_its_errors(capsys):
    assert main(["check", "--op", "relu", "--backend", "cpu", "--dtype", "f32"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"relu .*cpu.* 0\.00 / 0\.00 .*right", out)


def test_check_gives_no_error_of_torchs_where_torch_is_the_reference(capsys):
    assert main(["check", "--op", "tanh", "--backend", "cpu", "--dtype", "f64"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"tanh .*cpu.* \d+\.\d\d / reference", out)
    assert "in f64, torch's own result is what ours is compared with" in out


def test_check_fails_when_a_kernel_is_wrong(capsys, monkeypatch):
    import neurokern.functional as F
    from neurokern.functional import activation

    monkeypatch.setattr(activation, "unary_from_output", lambda x, act, *p: F.relu6(x))
    assert main(["check", "--op", "relu", "--backend", "cpu", "--dtype", "f32", "--seed", "1"]) == 1
    captured = capsys.readouterr()
    assert "wrong" in captured.out
    assert "--seed 1" in captured.err


@pytest.mark.parametrize(
    "arguments,says",
    [
        (["check", "--op", "rellu"], "did you mean 'relu'"),
        (["check", "--backend", "cudda"], "did you mean 'cuda'"),
        (["check", "--backend", "gpu"], "did you mean 'cuda'? There are cpu, cuda, triton"),
        (["check", "--dtype", "f33"], "did you mean"),
        (["check", "--dtype", "float32"], "did you mean 'f32'"),
        (["check", "--dtype", "torch.bfloat16"], "did you mean 'bf16'"),
        (["check", "--dtype", "int"], "there are bf16, f16, f32, f64"),
    ],
)
def test_check_suggests_the_name_that_was_meant(capsys, arguments, says):
    assert main(arguments) == 2
    assert says in capsys.readouterr().err


def counted(capsys, *arguments: str) -> list[list[str]]:
    """The rows of the two tables that --counters prints."""
    assert main(["check", "--counters", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    return [[c.strip() for c in line.strip("│ ").split("│")] for line in lines if line.startswith("│")]


@pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing()))
def test_counters_of_every_kernel_repeat(capsys):
    """The rows are those of trace() for the same call, and the same each time."""
    rows = counted(capsys, "--op", "linear", "--op", "gelu", "--dtype", "bf16")
    assert rows == counted(capsys, "--op", "linear", "--op", "gelu", "--dtype", "bf16")
    half = len(rows) // 2
    assert [r[0] for r in rows[:half]] == [r[0] for r in rows[half:]]
    instructions, memory = ({r[0]: r[1:] for r in part} for part in (rows[:half], rows[half:]))
    assert "activation_unary_bf16" in instructions
    assert "activation_unary_backward_bf16" in instructions
    products = [k for k in instructions if "matmul_mma_bf16" in k]
    assert products
    for kernel in products:
        assert int(instructions[kernel][-1]) > 0, "no tensor-core operation"
        assert int(memory[kernel][-2]) > 0, "no asynchronous bytes"
    read, sectors, ratio = memory["activation_unary_bf16"][:3]
    assert float(ratio) == pytest.approx(32 * int(sectors) / int(read), abs=1e-3)
    # f(x) reads as much as it writes, its derivative reads g and x
    assert memory["activation_unary_bf16"][0] == memory["activation_unary_bf16"][3]
    backward = memory["activation_unary_backward_bf16"]
    assert int(backward[0]) == 2 * int(backward[3])


@pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing()))
def test_counters_are_those_of_the_launches(capsys):
    """One spec of known samples: sums over its launches, forward and backward."""
    spec = next(s for s in all_specs() if s.id == "relu")
    target = Target("cuda", emulated=True)
    make = Maker.seeded(0, spec.id, 1, dtype=torch.float32, device="cpu")
    with target.active(), neurokern.trace() as launches:
        for sample in samples_of(spec, make, 1):
            if not sample.heavy:
                with neurokern.backend("cpu"):
                    g = cotangents(make, spec.torch, sample)
                evaluate(spec.op, sample, spec.order, g)
    rows = counted(capsys, "--op", "relu", "--dtype", "f32")
    for kernel in {x.kernel for x in launches}:
        mine = [x.counters for x in launches if x.kernel == kernel and x.counters is not None]
        (_, count, integer, *_), (_, read, *_) = (r for r in rows if r[0] == kernel)
        assert int(count) == len(mine)
        assert int(integer) == sum(c["integer instructions"] for c in mine)
        assert int(read) == sum(c["global bytes read"] for c in mine)
