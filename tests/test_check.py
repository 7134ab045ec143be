"""``neurokern check``: right ops pass, a wrong kernel fails, names are suggested."""

from __future__ import annotations

import re

import pytest
from neurokern.cli import main


def test_check_judges_an_op_and_prints_its_errors(capsys):
    assert main(["check", "--op", "relu", "--backend", "cpu", "--dtype", "f32"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"relu .*cpu.* 0\.00 / 0\.00 .*right", out)


def test_check_fails_when_a_kernel_is_wrong(capsys, monkeypatch):
    from neurokern.ops import activation

    right = activation.ACTIVATIONS["relu"]
    monkeypatch.setitem(activation.ACTIVATIONS, "relu", activation.ACTIVATIONS["relu6"])
    assert right != activation.ACTIVATIONS["relu"]
    assert main(["check", "--op", "relu", "--backend", "cpu", "--dtype", "f32", "--seed", "1"]) == 1
    captured = capsys.readouterr()
    assert "wrong" in captured.out
    assert "--seed 1" in captured.err


@pytest.mark.parametrize(
    "arguments,says",
    [
        (["check", "--op", "rellu"], "did you mean 'relu'"),
        (["check", "--backend", "cudda"], "did you mean 'cuda'"),
        (["check", "--dtype", "f33"], "did you mean"),
    ],
)
def test_check_suggests_the_name_that_was_meant(capsys, arguments, says):
    assert main(arguments) == 2
    assert says in capsys.readouterr().err
