"""An activation passed by its name: to layers of ours alone, and to the fused form of linear."""

from __future__ import annotations

import inspect
import subprocess
import sys
import textwrap
from functools import partial
from typing import Any

import neurokern.functional as F
import pytest
import torch
from neurokern import nn
from neurokern.functional.activation_name import parse_activation
from neurokern.ops.activation import ACTIVATIONS

# what people pass, and the name that the message gives them
KNOWN: dict[str, tuple[Any, Any]] = {
    "a function of torch": (torch.nn.functional.gelu, "gelu"),
    "a built-in function": (torch.relu, "relu"),
    "one of another name": (torch.nn.functional.logsigmoid, "logsigmoid"),
    "a function of ours": (F.squared_relu, "squared_relu"),
    "a module": (torch.nn.GELU(), "gelu"),
    "a module of ours": (nn.SiLU(), "silu"),
    "a module with a parameter": (torch.nn.LeakyReLU(0.3), ("leaky_relu", 0.3)),
    "a module with the default": (torch.nn.LeakyReLU(), "leaky_relu"),
    "a module with two": (torch.nn.Hardtanh(-2, 3), ("hardtanh", -2, 3)),
    "the tanh form": (torch.nn.GELU("tanh"), "gelu_tanh"),
    "the tanh form as a function": (partial(F.gelu, approximate="tanh"), "gelu_tanh"),
    "a class": (torch.nn.Mish, "mish"),
    "a list": (["elu", 0.5], ("elu", 0.5)),
    "nothing that we know": (len, None),
    "a number": (3, None),
    "an empty tuple": ((), None),
}


@pytest.mark.parametrize("case", KNOWN)
def test_what_is_no_name(case: str) -> None:
    given, name = KNOWN[case]
    x = torch.randn(2, 3)
    for op, call in (
        ("linear", lambda: F.linear(x, x, activation=given)),
        ("LinearActivation", lambda: nn.LinearActivation(3, 2, activation=given)),
    ):
        with pytest.raises(TypeError, match=rf"neurokern\.{op}: argument activation is .*, expected a name") as e:
            call()
        assert str(e.value).endswith("or None" if name is None else f"; pass {name!r}")
    if name is not None:
        parse_activation("linear", name)


def test_names_and_parameters() -> None:
    assert parse_activation("linear", None) == ("identity", 0.0, 0.0)
    for name, row in ACTIVATIONS.items():
        defaults = tuple(row.parameters.values())
        assert parse_activation("linear", name) == (name, *(*defaults, 0.0, 0.0)[:2])
        assert parse_activation("linear", (name, *defaults)) == parse_activation("linear", name)
    assert parse_activation("linear", ("softplus", 3)) == ("softplus", 3.0, 20.0)
    with pytest.raises(ValueError, match="activation is 'no', expected None or one of identity, relu"):
        parse_activation("linear", "no")
    with pytest.raises(ValueError, match="got 2 parameters, expected at most 1"):
        parse_activation("linear", ("elu", 1, 2))
    with pytest.raises(TypeError, match=r"neurokern\.linear: argument alpha is 'x'"):
        parse_activation("linear", ("elu", "x"))


@pytest.mark.parametrize("given", ["gelu", ("elu", 0.5), torch.nn.GELU(), 1, None])
def test_a_bias_that_is_none(given: Any) -> None:
    """In the third place stands the bias, as in torch.nn.Linear."""
    with pytest.raises(TypeError, match=r"neurokern\.LinearActivation: argument bias is .*, expected a bool"):
        nn.LinearActivation(3, 4, given)


def test_arguments_in_torchs_order() -> None:
    ours, theirs = inspect.signature(nn.LinearActivation), inspect.signature(torch.nn.Linear)
    assert list(ours.parameters)[: len(theirs.parameters)] == list(theirs.parameters)
    assert ours.parameters["activation"].kind is inspect.Parameter.KEYWORD_ONLY
    with pytest.raises(TypeError, match="argument device is 'gelu', expected a device; pass activation='gelu'"):
        nn.LinearActivation(3, 4, True, "gelu")
    layer = nn.LinearActivation(3, 4, False, "cpu", torch.float64, activation=None)
    assert layer.weight.dtype == torch.float64


def test_layers_of_ours_alone() -> None:
    for kind in (nn.SwiGLU, nn.GeGLU, nn.ReGLU):
        for dim in ("tanh", 0.5, None, True):
            with pytest.raises(
                TypeError, match=rf"neurokern\.{kind.__name__}: argument dim is {dim!r}, expected an int"
            ):
                kind(dim)
    for approximate, error in (("erf", RuntimeError), (3, TypeError)):
        with pytest.raises(error, match=r"neurokern\.GeGLU: argument approximate"):
            nn.GeGLU(-1, approximate)
        with pytest.raises(error, match=r"neurokern\.geglu: argument approximate"):
            F.geglu(torch.randn(2, 4), -1, approximate)
    with pytest.raises(TypeError, match=r"neurokern\.SquaredReLU: argument inplace is 'gelu'"):
        nn.SquaredReLU("gelu")
    with pytest.raises(TypeError, match=r"neurokern\.squared_relu: argument inplace is 'gelu'"):
        F.squared_relu(torch.randn(2), "gelu")


# torch's own, of every autograd.Function that it compiles
TORCHS = "ignore:<class 'torch.autograd.function.Function'> should not be instantiated:DeprecationWarning"


@pytest.mark.parametrize("gradient", [False, True])
def test_compiling_warns_of_nothing(gradient: bool) -> None:
    """Under -W error a warning of torch.compile, as of a cached function, is the end."""
    code = f"""
        import torch, neurokern.functional as F
        from neurokern import nn

        x = torch.randn(2, 4, requires_grad={gradient})
        layers = [nn.LinearActivation(4, 4, activation=a) for a in ("gelu", ("leaky_relu", 0.2), None)]
        model = nn.Sequential(*layers, nn.GeGLU(), nn.SquaredReLU(), nn.LayerNorm(2), nn.Softmax(-1))
        model.requires_grad_({gradient})
        f = torch.compile(lambda x: model(F.linear(x, x, activation="silu").repeat(1, 2)), backend="aot_eager")
        y = f(x).sum()
        {"y.backward()" if gradient else ""}
    """
    command = [sys.executable, "-W", "error", *(("-W", TORCHS) if gradient else ())]
    done = subprocess.run([*command, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
