"""Activations in float64 where torch's own loses digits to cancellation, so that a better kernel is not called wrong.

torch has 1 + erf(x) of a large negative x, 1 - tanh(x)**2, sigmoid(x) - 1, x - tanh(x), and a float32 sixth: their
float64 results are wrong by 2**-53 of 1 where the exact value is far less. Each entry gives value and derivative; the
second derivative comes from differentiating the latter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

TF = torch.nn.functional


class Given(torch.autograd.Function):
    """value(x), whose derivative is said to be slope(x)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Callable[[Tensor], Tensor], slope: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.slope = slope
        return value(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        return g * ctx.slope(x), None, None


def bump(x: Tensor) -> Tensor:
    """sigmoid'(x), even in x, without 1 - sigmoid(x)."""
    e = torch.exp(-x.abs())
    return e / (1 + e) ** 2


def _sigmoid(x: Tensor) -> Tensor:
    """Also where exp(-x) overflows."""
    e = torch.exp(-x.abs())
    return torch.where(x > 0, 1 / (1 + e), e / (1 + e))


def sigmoid(x: Tensor) -> Tensor:
    return Given.apply(x, _sigmoid, bump)


def tanh(x: Tensor) -> Tensor:
    return Given.apply(x, torch.tanh, lambda x: 4 * bump(2 * x))


def logsigmoid(x: Tensor) -> Tensor:
    return Given.apply(x, TF.logsigmoid, lambda x: sigmoid(-x))


def softplus(x: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    def slope(x: Tensor) -> Tensor:
        return torch.where(beta * x > threshold, 1.0, sigmoid(beta * x))

    return Given.apply(x, lambda x: TF.softplus(x, beta, threshold), slope)


def softsign(x: Tensor) -> Tensor:
    return Given.apply(x, TF.softsign, lambda x: 1 / (1 + x.abs()) ** 2)


def _tanhshrink(x: Tensor) -> Tensor:
    s = x * x
    terms = (1 / 3, 2 / 15, 17 / 315, 62 / 2835, 1382 / 155925, 21844 / 6081075, 929569 / 638512875)
    series = torch.zeros_like(x)
    for c in reversed(terms):
        series = c - s * series
    series = x * s * series
    return torch.where(x.abs() < 0.1, series, x - torch.tanh(x))


def tanhshrink(x: Tensor) -> Tensor:
    return Given.apply(x, _tanhshrink, lambda x: torch.tanh(x) ** 2)


def silu(x: Tensor, inplace: bool = False) -> Tensor:
    return Given.apply(x, lambda x: x * _sigmoid(x), lambda x: sigmoid(x) * (1 + x * sigmoid(-x)))


def _exp_half_square(x: Tensor) -> Tensor:
    """exp(-x**2 / 2), with the square in two parts: rounding it would cost x**2 / 2 units."""
    if x.dtype != torch.float64:
        return torch.exp(-x * x / 2)
    head = x.detach().float().double().clamp(-40.0, 40.0)  # beyond, all is 0, of infinities too
    return torch.exp(-head * head / 2) * torch.exp(-(x - head) * (x + head) / 2)


def _normal_cdf(x: Tensor) -> Tensor:
    if x.dtype != torch.float64:
        return 0.5 * torch.erfc(-x / math.sqrt(2))
    tail = 0.5 * torch.special.erfcx(x.abs() / math.sqrt(2)) * _exp_half_square(x)
    near = 0.5 + 0.5 * torch.erf(x / math.sqrt(2))  # erfcx would cost several units where nothing cancels
    return torch.where(x < -0.7, tail, near)


def _gelu_slope(x: Tensor) -> Tensor:
    return _normal_cdf(x) + x * _exp_half_square(x) / math.sqrt(2 * math.pi)


def _twice_argument(x: Tensor) -> Tensor:
    return 2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)


def _gelu_tanh_slope(x: Tensor) -> Tensor:
    u = _twice_argument(x)
    return sigmoid(u) + x * bump(u) * 2 * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    if approximate == "tanh":
        return Given.apply(x, lambda x: x * _sigmoid(_twice_argument(x)), _gelu_tanh_slope)
    return Given.apply(x, lambda x: x * _normal_cdf(x), _gelu_slope)


def _mish_parts(x: Tensor) -> tuple[Tensor, Tensor]:
    """tanh(softplus(x)) and 1 - its square, by n = exp(2 x) + 2 exp(x); both are settled beyond 30."""
    e = torch.exp(x.clamp(max=30))
    n = e * e + 2 * e
    return n / (n + 2), (4 * n + 4) / (n + 2) ** 2


def _mish_slope(x: Tensor) -> Tensor:
    t, rest = _mish_parts(x)
    return t + x.clamp(max=30) * rest * sigmoid(x)


def mish(x: Tensor, inplace: bool = False) -> Tensor:
    return Given.apply(x, lambda x: x * _mish_parts(x)[0], _mish_slope)


def hardsigmoid(x: Tensor, inplace: bool = False) -> Tensor:
    return torch.where((x > -3) & (x < 3), (x + 3) / 6, TF.hardsigmoid(x.detach()))


EXACT: dict[str, Callable[..., Tensor]] = {
    "gelu": gelu,
    "gelu_tanh": lambda x: gelu(x, "tanh"),
    "hardsigmoid": hardsigmoid,
    "logsigmoid": logsigmoid,
    "mish": mish,
    "sigmoid": sigmoid,
    "silu": silu,
    "softplus": softplus,
    "softsign": softsign,
    "tanh": tanh,
    "tanhshrink": tanhshrink,
}
