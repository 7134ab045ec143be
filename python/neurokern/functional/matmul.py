"""Matrix products with torch's signatures, and `linear` with a fused epilogue."""

from __future__ import annotations

import math
import warnings
from functools import partial

import torch
from torch import Tensor

from ..backends.fall_back import to_torch, why_not_ours
from ..core.autocast import autocast
from ..core.subclass import not_plain
from ..core.tensors import PLAIN
from ..ops.matmul import linear as _linear
from ..ops.matmul import linear_activation
from ..ops.matmul import matmul as _matmul
from .activation_name import Activation, parse_activation

__all__ = ["addmm", "bilinear", "bmm", "linear", "matmul", "mm"]


def linear(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: Activation = None,
    residual: Tensor | None = None,
) -> Tensor:
    """activation(x @ weight.T + bias) + residual, in one pass.

    Args:
        input: [..., K].
        weight: [N, K], or [K] for an output without the last dimension.
        bias: [N], or a shape that broadcasts to the output (as in torch; then without activation).
        activation: a name ("gelu", "relu", ...; see ``neurokern.nn.LinearActivation``), (name, parameters...), or None.
        residual: broadcasts to the output [..., N].

    Raises:
        RuntimeError: shapes, dtypes or devices do not match.
        ValueError: no activation has that name.
    """
    if activation is None:
        return _linear(input, weight, bias, residual)
    return linear_activation(input, weight, bias, residual, *parse_activation("linear", activation))


def matmul(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Matrix product with torch.matmul's rules: vectors, matrices, and batches of them that broadcast.

    Raises:
        RuntimeError: a 0-d argument, or sizes, dtypes or devices that do not match.
    """
    if out is not None:
        return _store("matmul", out, input, other, None, 1.0, 1.0)
    return _matmul(input, other, None, "matmul", 1.0, 1.0)


def _store(op: str, out: Tensor, a: Tensor, b: Tensor, residual: Tensor | None, alpha: float, beta: float) -> Tensor:
    """The product by torch's rules for ``out=``: no gradients, same dtype, resized when empty, no autocast."""
    if not isinstance(out, Tensor):
        raise TypeError(f"neurokern.{op}: argument out is a {type(out).__name__}, expected a torch.Tensor")
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (a, b, residual, out)):
        raise RuntimeError(f"neurokern.{op}: argument out can't be combined with arguments that require grad")
    with torch.autocast(out.device.type, enabled=False):
        y = _matmul(a, b, residual, op, alpha, beta)
    if out.dtype != y.dtype or out.device != y.device:
        raise RuntimeError(
            f"neurokern.{op}: argument out is {out.dtype} on {out.device}, expected {y.dtype} on {y.device}"
        )
    if out.shape != y.shape:
        if out.numel():
            warnings.warn(
                f"neurokern.{op}: argument out has shape {list(out.shape)}, and is resized to {list(y.shape)}",
                stacklevel=4,
            )
        out.resize_(y.shape)
    return out.copy_(y)


def _wider(op: str, dtype: torch.dtype, *args: Tensor, out: Tensor | None, **kwargs: float) -> Tensor:
    """The product in another dtype than its operands', which only torch has, and it only on a GPU."""
    given = {**kwargs, "out_dtype": dtype, **({} if out is None else {"out": out})}
    return to_torch(op, "out_dtype has no kernel", lambda: getattr(torch, op)(*args, **given))


def bmm(input: Tensor, mat2: Tensor, out_dtype: torch.dtype | None = None, *, out: Tensor | None = None) -> Tensor:
    """Batched product [B, M, K] @ [B, K, N], no broadcasting; torch's own if ``out_dtype`` is given.

    Raises:
        RuntimeError: an argument is not 3-d, or sizes, dtypes or devices do not match.
    """
    if out_dtype is not None:
        return _wider("bmm", out_dtype, input, mat2, out=out)
    if out is not None:
        return _store("bmm", out, input, mat2, None, 1.0, 1.0)
    return _matmul(input, mat2, None, "bmm", 1.0, 1.0)


def mm(input: Tensor, mat2: Tensor, out_dtype: torch.dtype | None = None, *, out: Tensor | None = None) -> Tensor:
    """Product [M, K] @ [K, N]; torch's own if ``out_dtype`` is given.

    Raises:
        RuntimeError: an argument is not 2-d, or sizes, dtypes or devices do not match.
    """
    if out_dtype is not None:
        return _wider("mm", out_dtype, input, mat2, out=out)
    if out is not None:
        return _store("mm", out, input, mat2, None, 1.0, 1.0)
    return _matmul(input, mat2, None, "mm", 1.0, 1.0)


def addmm(
    input: Tensor,
    mat1: Tensor,
    mat2: Tensor,
    out_dtype: torch.dtype | None = None,
    *,
    beta: float = 1,
    alpha: float = 1,
    out: Tensor | None = None,
) -> Tensor:
    """beta * input + alpha * mat1 @ mat2; input broadcasts to [M, N], and is not read if beta is 0.

    If alpha is 0, mat1 and mat2 are not read. torch's own if ``out_dtype`` is given.

    Raises:
        RuntimeError: sizes, dtypes or devices do not match.
    """
    if input is None:
        raise TypeError("neurokern.addmm: argument input is a NoneType, expected a torch.Tensor")
    if out_dtype is not None:
        return _wider("addmm", out_dtype, input, mat1, mat2, beta=beta, alpha=alpha, out=out)
    if out is not None:
        return _store("addmm", out, mat1, mat2, input, alpha, beta)
    return _matmul(mat1, mat2, input, "addmm", alpha, beta)


def _agree(op: str, first: tuple[str, Tensor], *others: tuple[str, Tensor | None]) -> None:
    """All tensors have the dtype and device of the first, or a RuntimeError."""
    name, like = first
    for other, t in others:
        if t is not None and (t.dtype != like.dtype or t.device != like.device):
            raise RuntimeError(
                f"neurokern.{op}: argument {other} of shape {list(t.shape)} is {t.dtype} on {t.device}, "
                f"expected {like.dtype} on {like.device} as argument {name}"
            )


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y[..., o] = input1[..., i] weight[o, i, j] input2[..., j] + bias[o].

    Args:
        input1: [..., I].
        input2: [..., J], leading dimensions as input1.
        weight: [O, I, J].
        bias: [O].

    Raises:
        RuntimeError: shapes, dtypes or devices do not match.
    """
    arguments = [("input1", input1, False), ("input2", input2, False), ("weight", weight, False), ("bias", bias, True)]

    def by_torch() -> Tensor:
        return torch.nn.functional.bilinear(input1, input2, weight, bias)

    if any(type(a) not in PLAIN and not (optional and a is None) for _, a, optional in arguments):
        foreign = not_plain("bilinear", arguments, by_torch, partial(bilinear, input1, input2, weight, bias))
        if foreign is not NotImplemented:
            return foreign
    input1, input2, weight, bias = autocast("widest", (input1, input2, weight, bias))
    reason = why_not_ours("bilinear", input1, input2, weight, bias)
    if reason is not None:
        return to_torch("bilinear", reason, by_torch)
    _agree("bilinear", ("input1", input1), ("input2", input2), ("weight", weight), ("bias", bias))
    if (
        weight.dim() != 3
        or input1.dim() == 0
        or input1.shape[:-1] != input2.shape[:-1]
        or (input1.shape[-1], input2.shape[-1]) != weight.shape[1:]
    ):
        raise RuntimeError(
            f"neurokern.bilinear: arguments input1 {list(input1.shape)}, input2 {list(input2.shape)} and weight "
            f"{list(weight.shape)}, expected [..., I], [..., J] and [O, I, J]"
        )
    o, i, j = weight.shape
    if bias is not None and bias.shape != (o,):
        raise RuntimeError(f"neurokern.bilinear: argument bias has shape {list(bias.shape)}, expected [{o}]")
    lead = input1.shape[:-1]
    x1, x2 = input1.reshape(math.prod(lead), i), input2.reshape(math.prod(lead), j)
    # first over i for every o at once (the batch shares x1), then over j for every row; its dtype is autocast's by now
    with torch.autocast(input1.device.type, enabled=False):
        inner = _matmul(x1.expand(o, *x1.shape), weight, None, "matmul", 1.0, 1.0)
        y = _matmul(inner.transpose(0, 1), x2.unsqueeze(-1), None, "matmul", 1.0, 1.0).squeeze(-1)
    y = y.reshape(*lead, o)
    return y if bias is None else y + bias
