"""Activations with the signatures of ``torch.nn.functional``, and the gated units that it lacks.

Every function takes float32, float64, float16 or bfloat16 of any shape and strides (other dtypes go to torch, and the
trace says so), computes in at least float32 and rounds once. Kernels compute first and second derivatives, torch's own
formulas higher ones.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..backends.fall_back import to_torch
from ..core.parameters import as_float
from ..ops import activation as ops
from ..ops.activation import glu as _glu
from ..ops.activation import prelu as _prelu
from ..ops.activation import unary, unary_, unary_from_output, unary_from_output_

__all__ = [
    *("celu", "celu_", "elu", "elu_", "geglu", "gelu", "glu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh"),
    *("hardtanh_", "leaky_relu", "leaky_relu_", "logsigmoid", "mish", "prelu", "reglu", "relu", "relu6", "relu_"),
    *("rrelu", "rrelu_", "selu", "selu_", "sigmoid", "silu", "softplus", "softshrink", "softsign", "squared_relu"),
    *("swiglu", "tanh", "tanhshrink", "threshold", "threshold_"),
]


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0). Gradient 0 at 0."""
    return (unary_from_output_ if inplace else unary_from_output)(input, "relu", 0.0, 0.0)


def relu_(input: Tensor) -> Tensor:
    """In-place `relu`."""
    return unary_from_output_(input, "relu", 0.0, 0.0)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x, 0), 6)."""
    return (unary_ if inplace else unary)(input, "relu6", 0.0, 0.0)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where x > 0, else negative_slope * x."""
    return leaky_relu_(input, negative_slope) if inplace else unary(input, "leaky_relu", negative_slope, 0.0)


def leaky_relu_(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    """In-place `leaky_relu`."""
    slope = as_float("leaky_relu", "negative_slope", negative_slope)
    # of a positive slope the output has the sign of the input, and is kept, as torch does
    return (unary_from_output_ if slope > 0 else unary_)(input, "leaky_relu", slope, 0.0)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0, else alpha * (exp(x) - 1). Source: Clevert et al. 2016."""
    return (unary_ if inplace else unary)(input, "elu", alpha, 0.0)


def elu_(input: Tensor, alpha: float = 1.0) -> Tensor:
    """In-place `elu`."""
    return unary_(input, "elu", alpha, 0.0)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """scale * elu(x, alpha) with the constants of Klambauer et al. 2017."""
    return (unary_ if inplace else unary)(input, "selu", 0.0, 0.0)


def selu_(input: Tensor) -> Tensor:
    """In-place `selu`."""
    return unary_(input, "selu", 0.0, 0.0)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """max(x, 0) + min(0, alpha * (exp(x / alpha) - 1)). Source: Barron 2017.

    Raises:
        RuntimeError: alpha is 0.
    """
    alpha = as_float("celu", "alpha", alpha)
    if alpha == 0:
        raise RuntimeError("neurokern.celu: argument alpha is 0, expected a number that is not 0")
    return (unary_ if inplace else unary)(input, "celu", alpha, 0.0)


def celu_(input: Tensor, alpha: float = 1.0) -> Tensor:
    """In-place `celu`."""
    return celu(input, alpha, True)


def check_approximate(op: str, approximate: str) -> None:
    """Raise what torch does where it is neither "none" nor "tanh"."""
    if not isinstance(approximate, str):
        raise TypeError(f"neurokern.{op}: argument approximate is {approximate!r}, expected a str")
    if approximate not in ("none", "tanh"):
        raise RuntimeError(f"neurokern.{op}: argument approximate is {approximate!r}, expected 'none' or 'tanh'")


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x * Phi(x); ``approximate="tanh"`` for the tanh form. Source: Hendrycks and Gimpel 2016.

    Raises:
        RuntimeError: approximate is neither "none" nor "tanh".
    """
    if approximate == "none":
        return unary(input, "gelu", 0.0, 0.0)
    if approximate != "tanh":
        check_approximate("gelu", approximate)
    return unary(input, "gelu_tanh", 0.0, 0.0)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x * sigmoid(x). Source: Elfwing et al. 2017."""
    return (unary_ if inplace else unary)(input, "silu", 0.0, 0.0)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * tanh(softplus(x)). Source: Misra 2019."""
    return (unary_ if inplace else unary)(input, "mish", 0.0, 0.0)


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return unary_from_output(input, "sigmoid", 0.0, 0.0)


def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(x)), without overflow."""
    return unary(input, "logsigmoid", 0.0, 0.0)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x + 3, 0), 6) / 6."""
    return (unary_ if inplace else unary)(input, "hardsigmoid", 0.0, 0.0)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * hardsigmoid(x). Source: Howard et al. 2019."""
    return (unary_ if inplace else unary)(input, "hardswish", 0.0, 0.0)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """x clamped to [min_val, max_val].

    Raises:
        ValueError: min_val > max_val.
    """
    min_val, max_val = as_float("hardtanh", "min_val", min_val), as_float("hardtanh", "max_val", max_val)
    if min_val > max_val:
        raise ValueError(f"neurokern.hardtanh: argument min_val is {min_val}, expected at most max_val = {max_val}")
    return _clamped(input, min_val, max_val, inplace)


def _clamped(input: Tensor, min_val: float, max_val: float, inplace: bool) -> Tensor:
    if min_val <= max_val:
        return (unary_ if inplace else unary)(input, "hardtanh", min_val, max_val)
    return _clamped_by_torch(input, min_val, max_val, inplace)


def _clamped_by_torch(input: Tensor, min_val: float, max_val: float, inplace: bool) -> Tensor:
    torchs = torch.nn.functional.hardtanh_ if inplace else torch.nn.functional.hardtanh
    return to_torch("hardtanh", f"no x lies between {min_val} and {max_val}", lambda: torchs(input, min_val, max_val))


def hardtanh_(input: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """In-place `hardtanh`; if min_val > max_val, the result is max_val, as in torch."""
    return _clamped(input, as_float("hardtanh", "min_val", min_val), as_float("hardtanh", "max_val", max_val), True)


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x where abs(x) > lambd, else 0."""
    return unary(input, "hardshrink", lambd, 0.0)


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x moved towards 0 by lambd, 0 within it.

    Raises:
        RuntimeError: lambd is negative or not finite.
    """
    lambd = as_float("softshrink", "lambd", lambd)
    if not 0 <= lambd < math.inf:
        raise RuntimeError(f"neurokern.softshrink: argument lambd is {lambd}, expected 0 or more, and finite")
    return unary(input, "softshrink", lambd, 0.0)


def tanhshrink(input: Tensor) -> Tensor:
    """x - tanh(x)."""
    return unary(input, "tanhshrink", 0.0, 0.0)


def softsign(input: Tensor) -> Tensor:
    """x / (1 + abs(x))."""
    return unary(input, "softsign", 0.0, 0.0)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta * x)) / beta, and x itself where beta * x > threshold."""
    return ops.softplus(input, "softplus", beta, threshold)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where x > threshold, else value."""
    return (unary_ if inplace else unary)(input, "threshold", threshold, value)


def threshold_(input: Tensor, threshold: float, value: float) -> Tensor:
    """In-place `threshold`."""
    return unary_(input, "threshold", threshold, value)


def tanh(input: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return unary_from_output(input, "tanh", 0.0, 0.0)


def squared_relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0) ** 2. Source: So et al. 2021 (Primer).

    Raises:
        TypeError: inplace is not a bool.
    """
    if type(inplace) is not bool:
        raise TypeError(f"neurokern.squared_relu: argument inplace is {inplace!r}, expected a bool")
    return (unary_ if inplace else unary)(input, "squared_relu", 0.0, 0.0)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x where x > 0, else weight * x; weight has 1 element, or one for each channel (dimension 1).

    Source: He et al. 2015.

    Raises:
        RuntimeError: weight has another size or dtype.
    """
    return _prelu(input, weight)


def rrelu(
    input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False, inplace: bool = False
) -> Tensor:
    """x where x > 0, else a * x with a drawn from U(lower, upper) for each element in training, their mean otherwise.

    Source: Xu et al. 2015. The factors come from torch's generator, in a different order from torch's.

    Raises:
        RuntimeError: lower > upper, or one of them is not finite.
    """
    lower, upper = as_float("rrelu", "lower", lower), as_float("rrelu", "upper", upper)
    if not -math.inf < lower <= upper < math.inf:
        raise RuntimeError(
            f"neurokern.rrelu: arguments lower and upper are {lower} and {upper}, expected finite bounds"
        )
    if type(training) is not bool:
        raise TypeError(f"neurokern.rrelu: argument training is {training!r}, expected a bool")
    return ops.rrelu_between(input, lower, upper, training, inplace)


def rrelu_(input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False) -> Tensor:
    """In-place `rrelu`."""
    return rrelu(input, lower, upper, training, True)


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """a * sigmoid(b) for the halves a, b of x along dim. Source: Dauphin et al. 2017.

    Raises:
        RuntimeError: 0-d input, or an odd size along dim.
        IndexError: dim out of range.
    """
    return _glu(input, dim, "glu")


def swiglu(input: Tensor, dim: int = -1) -> Tensor:
    """silu(a) * b for the halves a, b of x along dim. Source: Shazeer 2020. Errors as `glu`."""
    return _glu(input, dim, "swiglu")


def geglu(input: Tensor, dim: int = -1, approximate: str = "none") -> Tensor:
    """gelu(a) * b for the halves a, b of x along dim. Source: Shazeer 2020. Errors as `glu` and `gelu`."""
    check_approximate("geglu", approximate)
    return _glu(input, dim, "geglu" if approximate == "none" else "geglu_tanh")


def reglu(input: Tensor, dim: int = -1) -> Tensor:
    """relu(a) * b for the halves a, b of x along dim. Source: Shazeer 2020. Errors as `glu`."""
    return _glu(input, dim, "reglu")
