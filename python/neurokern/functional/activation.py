"""Activations with the signatures of ``torch.nn.functional``, and the gated units that it lacks.

Every function takes float32, float64, float16 or bfloat16 of any shape and strides (other dtypes go to torch, and the
trace says so), computes in at least float32 and rounds once. Kernels make gradients of the first and second
order, torch's own formulas those beyond.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling as is_compiling

from .. import _C
from ..autograd import activation as grad
from ..ops.activation import ACTIVATIONS, FROM_OUTPUT, PLAIN, TORCH
from ..ops.backends import is_refusal, renamed, state, to_torch, watched, why_not_ours
from ._common import PARAMETERS, any_autocast, autocast, index, not_plain, number, wide_in_autocast


def _unary(input: Tensor, act: str, p0: float = 0.0, p1: float = 0.0, inplace: bool = False) -> Tensor:
    if state.native is _C and not is_compiling():
        out: Any = NotImplemented
        if not inplace:
            out = _DIRECT[act](input, ACTIVATIONS[act], p0, p1)
        elif type(p0) is float and type(p1) is float:
            way = grad.direct_from_output_ if grad.kept_in_place(act, p0) else grad.direct_unary_
            out = way(input, ACTIVATIONS[act], p0, p1)
        if out is not NotImplemented:
            return out
    return _long_unary(input, act, p0, p1, inplace)


# A way of its own where lambdas keep arguments: for each of them Python makes a cell, a tenth of a small op's time.
def _long_unary(input: Tensor, act: str, p0: float, p1: float, inplace: bool) -> Tensor:
    if act == "softplus" and any_autocast():
        input = wide_in_autocast(input)
    if type(input) not in PLAIN:
        other = not_plain(
            act,
            (("input", input),),
            lambda: TORCH[act](input, p0, p1, **({"inplace": True} if inplace else {})),
            partial(_unary, input, act, p0, p1, inplace),
        )
        if other is not NotImplemented:
            return other
    if type(p0) is not float or type(p1) is not float:
        names = PARAMETERS.get(act, ())
        p0 = number(act, names[0], p0) if len(names) > 0 else 0.0
        p1 = number(act, names[1], p1) if len(names) > 1 else 0.0
    return grad.unary_(input, act, p0, p1) if inplace else grad.unary(input, act, p0, p1)


_DIRECT = dict.fromkeys(ACTIVATIONS, grad.direct_unary)
_DIRECT |= dict.fromkeys(
    ("relu", "sigmoid", "tanh"), grad.direct_from_output
)  # keep it for the gradient, as torch does
_DIRECT["softplus"] = grad.direct_autocasts
_RELU = ACTIVATIONS["relu"]


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0). Gradient 0 at 0."""
    if not inplace and state.native is _C and not is_compiling():
        out = grad.direct_from_output(input, _RELU, 0.0, 0.0)
        if out is not NotImplemented:
            return out
    return _unary(input, "relu", 0.0, 0.0, inplace)


def relu_(input: Tensor) -> Tensor:
    """In-place `relu`."""
    return _unary(input, "relu", 0.0, 0.0, True)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x, 0), 6)."""
    return _unary(input, "relu6", 0.0, 0.0, inplace)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where x > 0, else negative_slope * x."""
    return _unary(input, "leaky_relu", negative_slope, 0.0, inplace)


def leaky_relu_(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    """In-place `leaky_relu`."""
    return _unary(input, "leaky_relu", negative_slope, 0.0, True)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0, else alpha * (exp(x) - 1). Source: Clevert et al. 2016."""
    return _unary(input, "elu", alpha, 0.0, inplace)


def elu_(input: Tensor, alpha: float = 1.0) -> Tensor:
    """In-place `elu`."""
    return _unary(input, "elu", alpha, 0.0, True)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """scale * elu(x, alpha) with the constants of Klambauer et al. 2017."""
    return _unary(input, "selu", 0.0, 0.0, inplace)


def selu_(input: Tensor) -> Tensor:
    """In-place `selu`."""
    return _unary(input, "selu", 0.0, 0.0, True)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """max(x, 0) + min(0, alpha * (exp(x / alpha) - 1)). Source: Barron 2017.

    Raises:
        RuntimeError: alpha is 0.
    """
    if type(alpha) is not float:
        alpha = number("celu", "alpha", alpha)
    if alpha == 0:
        raise RuntimeError("neurokern.celu: argument alpha is 0, expected a number that is not 0")
    return _unary(input, "celu", alpha, 0.0, inplace)


def celu_(input: Tensor, alpha: float = 1.0) -> Tensor:
    """In-place `celu`."""
    return celu(input, alpha, True)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x * Phi(x); ``approximate="tanh"`` for the tanh form. Source: Hendrycks and Gimpel 2016.

    Raises:
        RuntimeError: approximate is neither "none" nor "tanh".
    """
    if approximate == "none":
        return _unary(input, "gelu")
    if approximate == "tanh":
        return _unary(input, "gelu_tanh")
    if not isinstance(approximate, str):
        raise TypeError(f"neurokern.gelu: argument approximate is {approximate!r}, expected a str")
    raise RuntimeError(f"neurokern.gelu: argument approximate is {approximate!r}, expected 'none' or 'tanh'")


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x * sigmoid(x). Source: Elfwing et al. 2017."""
    return _unary(input, "silu", 0.0, 0.0, inplace)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * tanh(softplus(x)). Source: Misra 2019."""
    return _unary(input, "mish", 0.0, 0.0, inplace)


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return _unary(input, "sigmoid", FROM_OUTPUT)


def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(x)), without overflow."""
    return _unary(input, "logsigmoid")


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x + 3, 0), 6) / 6."""
    return _unary(input, "hardsigmoid", 0.0, 0.0, inplace)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * hardsigmoid(x). Source: Howard et al. 2019."""
    return _unary(input, "hardswish", 0.0, 0.0, inplace)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """x clamped to [min_val, max_val].

    Raises:
        ValueError: min_val > max_val.
    """
    if type(min_val) is not float or type(max_val) is not float:
        min_val, max_val = number("hardtanh", "min_val", min_val), number("hardtanh", "max_val", max_val)
    if min_val > max_val:
        raise ValueError(f"neurokern.hardtanh: argument min_val is {min_val}, expected at most max_val = {max_val}")
    return _clamped(input, min_val, max_val, inplace)


def _clamped(input: Tensor, min_val: float, max_val: float, inplace: bool) -> Tensor:
    if min_val <= max_val:
        return _unary(input, "hardtanh", min_val, max_val, inplace)
    return _clamped_by_torch(input, min_val, max_val, inplace)


def _clamped_by_torch(input: Tensor, min_val: float, max_val: float, inplace: bool) -> Tensor:
    torchs = torch.nn.functional.hardtanh_ if inplace else torch.nn.functional.hardtanh
    return to_torch("hardtanh", f"no x lies between {min_val} and {max_val}", lambda: torchs(input, min_val, max_val))


def hardtanh_(input: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """In-place `hardtanh`, which takes min_val > max_val for max_val, as torch does."""
    return _clamped(input, number("hardtanh", "min_val", min_val), number("hardtanh", "max_val", max_val), True)


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x where abs(x) > lambd, else 0."""
    return _unary(input, "hardshrink", lambd)


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x moved towards 0 by lambd, 0 within it.

    Raises:
        RuntimeError: lambd is negative or not finite.
    """
    if type(lambd) is not float:
        lambd = number("softshrink", "lambd", lambd)
    if not 0 <= lambd < math.inf:
        raise RuntimeError(f"neurokern.softshrink: argument lambd is {lambd}, expected 0 or more, and finite")
    return _unary(input, "softshrink", lambd)


def tanhshrink(input: Tensor) -> Tensor:
    """x - tanh(x)."""
    return _unary(input, "tanhshrink")


def softsign(input: Tensor) -> Tensor:
    """x / (1 + abs(x))."""
    return _unary(input, "softsign")


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta * x)) / beta, and x itself where beta * x > threshold."""
    return _unary(input, "softplus", beta, threshold)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where x > threshold, else value."""
    return _unary(input, "threshold", threshold, value, inplace)


def threshold_(input: Tensor, threshold: float, value: float) -> Tensor:
    """In-place `threshold`."""
    return _unary(input, "threshold", threshold, value, True)


def tanh(input: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return _unary(input, "tanh", FROM_OUTPUT)


def squared_relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0) ** 2. Source: So et al. 2021 (Primer)."""
    return _unary(input, "squared_relu", 0.0, 0.0, inplace)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x where x > 0, else weight * x; weight has 1 element, or one for each channel (dimension 1).

    Source: He et al. 2015.

    Raises:
        RuntimeError: weight is not of that size, or its dtype differs.
    """
    if state.native is _C and not is_compiling():
        out = grad.direct_prelu(input, weight)
        if out is not NotImplemented:
            return out
    return _long_prelu(input, weight)


def _long_prelu(input: Tensor, weight: Tensor) -> Tensor:
    refusal = None
    if type(input) in PLAIN and type(weight) in PLAIN:
        try:
            if not (any_autocast() or watched()):
                return grad.prelu(input, weight)
        except (RuntimeError, NotImplementedError) as error:
            if not is_refusal(error):
                raise
            refusal = error  # explained below
    else:
        other = not_plain(
            "prelu",
            (("input", input), ("weight", weight)),
            lambda: torch.prelu(input, weight),
            partial(prelu, input, weight),
        )
        if other is not NotImplemented:
            return other
    input, weight = autocast(input, weight)
    reason = why_not_ours(input, weight)
    if reason is not None:
        return to_torch("prelu", reason, lambda: torch.prelu(input, weight))
    shape, given = input.shape, weight.shape
    channels = shape[1] if len(shape) > 1 else 1
    if len(given) > 1 or (given and given[0] not in (1, channels)):
        raise RuntimeError(
            f"neurokern.prelu: argument weight has shape {list(weight.shape)}, expected 1 element or {channels}, "
            f"the channels of input {list(input.shape)}"
        )
    if weight.dtype != input.dtype or weight.device != input.device:
        raise RuntimeError(
            f"neurokern.prelu: argument weight is {weight.dtype} on {weight.device}, expected {input.dtype} on "
            f"{input.device} as input"
        )
    if refusal is not None:
        raise renamed("prelu", refusal)
    return grad.prelu(input, weight)


def rrelu(
    input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False, inplace: bool = False
) -> Tensor:
    """x where x > 0, else a * x with a drawn from U(lower, upper) for each element in training, their mean otherwise.

    Source: Xu et al. 2015. The factors come from torch's generator, in another order than torch's own.

    Raises:
        RuntimeError: lower > upper, or one of them is not finite.
    """
    if type(lower) is not float or type(upper) is not float:
        lower, upper = number("rrelu", "lower", lower), number("rrelu", "upper", upper)
    if not -math.inf < lower <= upper < math.inf:
        raise RuntimeError(
            f"neurokern.rrelu: arguments lower and upper are {lower} and {upper}, expected finite bounds"
        )
    if type(training) is not bool:
        raise TypeError(f"neurokern.rrelu: argument training is {training!r}, expected a bool")
    by_torch = lambda: torch.nn.functional.rrelu(input, lower, upper, training, inplace)  # noqa: E731
    if type(input) not in PLAIN:
        other = not_plain(
            "rrelu", (("input", input),), by_torch, partial(rrelu, input, lower, upper, training, inplace)
        )
        if other is not NotImplemented:
            return other
    if not training:
        return leaky_relu(input, (lower + upper) / 2, inplace)
    reason = why_not_ours(input)
    if reason is not None:
        return to_torch("rrelu", reason, by_torch)
    noise = torch.empty_like(input, requires_grad=False).uniform_(lower, upper)
    # in place, the gradient needs the input that is overwritten
    return input.copy_(grad.rrelu(input.clone(), noise)) if inplace else grad.rrelu(input, noise)


def rrelu_(input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False) -> Tensor:
    """In-place `rrelu`."""
    return rrelu(input, lower, upper, training, True)


def _gated(op: str, input: Tensor, dim: int, act: str, first: bool) -> Tensor:
    if state.native is _C and not is_compiling():
        out = grad.direct_glu(input, dim, ACTIVATIONS[act], first)
        if out is not NotImplemented:
            return out
    return _long_gated(op, input, dim, act, first)


def _long_gated(op: str, input: Tensor, dim: int, act: str, first: bool) -> Tensor:
    def by_torch() -> Tensor:
        if op == "glu":
            return torch.nn.functional.glu(input, dim)
        a, b = input.chunk(2, dim) if first else reversed(input.chunk(2, dim))
        return TORCH[act](a, 0.0, 0.0) * b

    refusal = None
    if type(input) in PLAIN:
        try:
            if type(dim) is int and not watched():
                return grad.glu(input, dim, act, first)
        except (RuntimeError, NotImplementedError, IndexError, TypeError) as error:
            if not is_refusal(error):
                raise
            refusal = error  # explained below
    else:
        other = not_plain(op, (("input", input),), by_torch, partial(_gated, op, input, dim, act, first))
        if other is not NotImplemented:
            return other
    reason = why_not_ours(input)
    if reason is not None and op == "glu":
        return to_torch(op, reason, by_torch)
    n = input.dim()
    if n == 0:
        raise RuntimeError(f"neurokern.{op}: argument input has shape [], expected at least 1 dimension")
    dim = index(op, "dim", dim)
    if not -n <= dim < n:
        raise IndexError(f"neurokern.{op}: argument dim is {dim}, expected between {-n} and {n - 1}")
    dim %= n
    if input.shape[dim] % 2:
        raise RuntimeError(
            f"neurokern.{op}: argument input has shape {list(input.shape)}, expected an even size in dimension {dim}"
        )
    if reason is not None:
        return to_torch(op, reason, by_torch)
    if refusal is not None:
        raise renamed(op, refusal)
    return grad.glu(input, dim, act, first)


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """a * sigmoid(b) for the halves a, b of x along dim. Source: Dauphin et al. 2017.

    Raises:
        RuntimeError: 0-d input, or an odd size along dim.
        IndexError: dim out of range.
    """
    return _gated("glu", input, dim, "sigmoid", False)


def swiglu(input: Tensor, dim: int = -1) -> Tensor:
    """silu(a) * b for the halves a, b of x along dim. Source: Shazeer 2020. Errors as `glu`."""
    return _gated("swiglu", input, dim, "silu", True)


def geglu(input: Tensor, dim: int = -1, approximate: str = "none") -> Tensor:
    """gelu(a) * b for the halves a, b of x along dim. Source: Shazeer 2020. Errors as `glu` and `gelu`."""
    if not isinstance(approximate, str) or approximate not in ("none", "tanh"):
        raise RuntimeError(f"neurokern.geglu: argument approximate is {approximate!r}, expected 'none' or 'tanh'")
    return _gated("geglu", input, dim, "gelu" if approximate == "none" else "gelu_tanh", True)


def reglu(input: Tensor, dim: int = -1) -> Tensor:
    """relu(a) * b for the halves a, b of x along dim. Source: Shazeer 2020. Errors as `glu`."""
    return _gated("reglu", input, dim, "relu", True)
