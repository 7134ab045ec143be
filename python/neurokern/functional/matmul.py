"""Matrix products with torch's signatures, and `linear` with a fused epilogue."""

from __future__ import annotations

import warnings
from functools import partial, reduce

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling as is_compiling

from .. import _C
from ..autograd import matmul as grad
from ..ops.activation import ACTIVATIONS, PLAIN
from ..ops.backends import is_refusal, renamed, state, to_torch, why_not_ours
from ._common import IDENTITY, Activation, agree, any_autocast, autocast, not_plain, number, parse_activation

direct_product = grad.direct_product


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
        RuntimeError: shapes, dtypes or devices do not fit.
        ValueError: no activation has that name.
    """
    if state.native is _C and not is_compiling():
        act, p0, p1 = IDENTITY if activation is None else parse_activation("linear", activation)
        out = grad.direct_linear(input, weight, bias, residual, ACTIVATIONS[act], p0, p1)
        if out is not NotImplemented:
            return out
    return _long_linear(input, weight, bias, residual, activation)


# Ways of their own where lambdas keep arguments: for each of them Python makes a cell, a tenth of a small op's time.
def _long_linear(
    input: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, activation: Activation
) -> Tensor:
    if (
        type(input) in PLAIN
        and type(weight) in PLAIN
        and (bias is None or type(bias) in PLAIN)
        and (residual is None or type(residual) in PLAIN)
    ):
        if not any_autocast():
            act, p0, p1 = IDENTITY if activation is None else parse_activation("linear", activation)
            try:
                return grad.linear(input, weight, bias, residual, act, p0, p1)
            except (RuntimeError, NotImplementedError) as error:
                if not is_refusal(error):  # torch's special cases, other dtypes, or wrong shapes: said below
                    raise
    else:
        arguments = (("input", input), ("weight", weight), ("bias", bias), ("residual", residual))
        act, p0, p1 = parse_activation("linear", activation)
        by_torch = lambda: grad.linear_by_torch(input, weight, bias, residual, act, p0, p1)  # noqa: E731
        other = not_plain(
            "linear",
            arguments,
            by_torch,
            partial(linear, input, weight, bias, activation=activation, residual=residual),
        )
        if other is not NotImplemented:
            return other
    return _linear(input, weight, bias, residual, activation)


def _linear(
    input: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, activation: Activation
) -> Tensor:
    act, p0, p1 = IDENTITY if activation is None else parse_activation("linear", activation)
    if input.is_nested:
        reason = str(why_not_ours(input))
        return to_torch("linear", reason, lambda: grad.linear_by_torch(input, weight, bias, residual, act, p0, p1))
    input, weight, bias, residual = autocast(input, weight, bias, residual)
    if weight.dim() != 2 or input.dim() < 1 or input.shape[-1] != weight.shape[1]:
        if weight.dim() == 1 and input.dim() >= 1 and residual is None:
            return _linear(input, weight.unsqueeze(0), bias, None, activation).squeeze(-1)
        raise RuntimeError(
            f"neurokern.linear: argument weight has shape {list(weight.shape)}, expected [N, K] where K is the last "
            f"size of input {list(input.shape)}, which has at least 1 dimension"
        )
    shape = (*input.shape[:-1], weight.shape[0])
    given = bias, residual  # torch's rules for them are its own where no kernel of ours is
    if bias is not None and bias.shape != shape[-1:]:
        if act != "identity" or residual is not None:
            raise RuntimeError(f"neurokern.linear: argument bias has shape {list(bias.shape)}, expected [{shape[-1]}]")
        bias, residual = None, bias
        while residual.dim() > len(shape) and residual.shape[0] == 1:
            residual = residual.squeeze(0)
    if residual is not None and residual.shape != shape:
        residual = _expanded("linear", "residual", residual, shape)
    try:
        return grad.linear(input, weight, bias, residual, act, p0, p1)
    except (RuntimeError, NotImplementedError) as error:
        if not is_refusal(error):
            raise
        reason = why_not_ours(input, weight, bias, residual)
        if reason is None:
            raise renamed("linear", error) from None
        return to_torch("linear", reason, lambda: grad.linear_by_torch(input, weight, *given, act, p0, p1))


def _expanded(op: str, argument: str, t: Tensor, shape: tuple[int, ...]) -> Tensor:
    try:
        return t.expand(shape)
    except RuntimeError:
        raise RuntimeError(
            f"neurokern.{op}: argument {argument} has shape {list(t.shape)}, "
            f"expected one that broadcasts to {list(shape)}"
        ) from None


def matmul(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Matrix product with torch.matmul's rules: vectors, matrices, and batches of them that broadcast.

    Raises:
        RuntimeError: a 0-d argument, or sizes, dtypes or devices that do not fit.
    """
    if out is None and state.native is _C and not is_compiling():
        made = direct_product(input, other, None, 0, 1.0, 1.0)
        if made is not NotImplemented:
            return made
    return _long_matmul(input, other, out)


def _long_matmul(input: Tensor, other: Tensor, out: Tensor | None) -> Tensor:
    if type(input) in PLAIN and type(other) in PLAIN:
        if out is None and not any_autocast():
            try:
                return grad.matmul(input, other)
            except (RuntimeError, NotImplementedError) as error:
                if not is_refusal(error):  # other dtypes, or wrong shapes: said below
                    raise
    else:
        foreign = not_plain(
            "matmul",
            (("input", input), ("other", other)),
            lambda: torch.matmul(input, other, out=out),
            partial(matmul, input, other, out=out),
        )
        if foreign is not NotImplemented:
            return foreign
    return _store("matmul", _matmul("matmul", input, other, out), out, input, other)


def _matmul(op: str, a: Tensor, b: Tensor, out: Tensor | None) -> Tensor:
    if out is None:  # torch's autocast leaves what is written to its place
        a, b = autocast(a, b)
    reason = why_not_ours(a, b)
    if reason is not None:
        return to_torch(op, reason, lambda: torch.matmul(a, b))
    agree(op, ("input", a), ("other" if op == "matmul" else "mat2", b))
    if a.dim() == 0 or b.dim() == 0:
        raise RuntimeError(
            f"neurokern.{op}: argument {'input' if a.dim() == 0 else 'other'} has shape [], "
            "expected at least 1 dimension"
        )
    row, column = a.dim() == 1, b.dim() == 1
    left, right = a.unsqueeze(0) if row else a, b.unsqueeze(1) if column else b
    if left.shape[-1] != right.shape[-2]:
        raise RuntimeError(
            f"neurokern.{op}: argument other has shape {list(b.shape)}, expected size {left.shape[-1]} in dimension "
            f"{0 if column else b.dim() - 2} to fit input {list(a.shape)}"
        )
    try:
        torch.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    except RuntimeError:
        raise RuntimeError(
            f"neurokern.{op}: batch dimensions of input {list(a.shape)} and other {list(b.shape)} do not broadcast"
        ) from None
    return grad.matmul(a, b)


def _store(op: str, y: Tensor, out: Tensor | None, *inputs: Tensor) -> Tensor:
    """torch's rules for ``out=``: no gradients, same dtype, resized when empty."""
    if out is None:
        return y
    if not isinstance(out, Tensor):
        raise TypeError(f"neurokern.{op}: argument out is a {type(out).__name__}, expected a torch.Tensor")
    if torch.is_grad_enabled() and any(t.requires_grad for t in (*inputs, out)):
        raise RuntimeError(f"neurokern.{op}: argument out can't be combined with arguments that require grad")
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


def bmm(input: Tensor, mat2: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Batched product [B, M, K] @ [B, K, N], no broadcasting.

    Raises:
        RuntimeError: an argument is not 3-d, or sizes, dtypes or devices do not fit.
    """
    if out is None and state.native is _C and not is_compiling():
        made = direct_product(input, mat2, None, 3, 1.0, 1.0)
        if made is not NotImplemented:
            return made
    return _long_bmm(input, mat2, out)


def _long_bmm(input: Tensor, mat2: Tensor, out: Tensor | None) -> Tensor:
    if type(input) in PLAIN and type(mat2) in PLAIN:
        if input.dim() == 3 == mat2.dim() and out is None and not any_autocast():
            try:
                if input.shape[0] == mat2.shape[0]:
                    return grad.matmul(input, mat2)
            except (RuntimeError, NotImplementedError) as error:
                if not is_refusal(error):  # other dtypes, or wrong shapes: said below
                    raise
    else:
        foreign = not_plain(
            "bmm",
            (("input", input), ("mat2", mat2)),
            lambda: torch.bmm(input, mat2, out=out),
            partial(bmm, input, mat2, out=out),
        )
        if foreign is not NotImplemented:
            return foreign
    nested = input.is_nested or mat2.is_nested  # which have no shape
    if input.dim() != 3 or mat2.dim() != 3 or (not nested and input.shape[0] != mat2.shape[0]):
        raise RuntimeError(
            f"neurokern.bmm: arguments input {list(input.shape)} and mat2 {list(mat2.shape)}, "
            "expected [B, M, K] and [B, K, N]"
        )
    return _store("bmm", _matmul("bmm", input, mat2, out), out, input, mat2)


def mm(input: Tensor, mat2: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Product [M, K] @ [K, N].

    Raises:
        RuntimeError: an argument is not 2-d, or sizes, dtypes or devices do not fit.
    """
    if out is None and state.native is _C and not is_compiling():
        made = direct_product(input, mat2, None, 2, 1.0, 1.0)
        if made is not NotImplemented:
            return made
    return _long_mm(input, mat2, out)


def _long_mm(input: Tensor, mat2: Tensor, out: Tensor | None) -> Tensor:
    if type(input) in PLAIN and type(mat2) in PLAIN:
        if input.dim() == 2 == mat2.dim() and out is None and not any_autocast():
            try:
                return grad.matmul(input, mat2)
            except (RuntimeError, NotImplementedError) as error:
                if not is_refusal(error):  # other dtypes, or wrong shapes: said below
                    raise
    else:
        foreign = not_plain(
            "mm",
            (("input", input), ("mat2", mat2)),
            lambda: torch.mm(input, mat2, out=out),
            partial(mm, input, mat2, out=out),
        )
        if foreign is not NotImplemented:
            return foreign
    if input.dim() != 2 or mat2.dim() != 2:
        raise RuntimeError(
            f"neurokern.mm: arguments input {list(input.shape)} and mat2 {list(mat2.shape)}, expected [M, K] and [K, N]"
        )
    return _store("mm", _matmul("mm", input, mat2, out), out, input, mat2)


def addmm(
    input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1, out: Tensor | None = None
) -> Tensor:
    """beta * input + alpha * mat1 @ mat2; input broadcasts to [M, N], and is not read where beta is 0.

    Raises:
        RuntimeError: sizes, dtypes or devices do not fit.
    """
    # beta 0 leaves input unread, so that nothing below would look at its shape
    if (
        out is None
        and input is not None
        and (type(beta) is int or type(beta) is float)
        and beta
        and state.native is _C
        and not is_compiling()
    ):
        made = direct_product(mat1, mat2, input, 2, alpha, beta)
        if made is not NotImplemented:
            return made
    return _long_addmm(input, mat1, mat2, beta, alpha, out)


def _long_addmm(input: Tensor, mat1: Tensor, mat2: Tensor, beta: float, alpha: float, out: Tensor | None) -> Tensor:
    if type(input) in PLAIN and type(mat1) in PLAIN and type(mat2) in PLAIN:
        if out is None and mat1.dim() == 2 == mat2.dim() and not any_autocast():
            by = number("addmm", "alpha", alpha), number("addmm", "beta", beta)
            try:
                if by[1]:
                    return grad.matmul(mat1, mat2, input, *by)
            except (RuntimeError, NotImplementedError) as error:
                if not is_refusal(error):  # other dtypes, or wrong shapes: said below
                    raise
    else:
        foreign = not_plain(
            "addmm",
            (("input", input), ("mat1", mat1), ("mat2", mat2)),
            lambda: torch.addmm(input, mat1, mat2, beta=beta, alpha=alpha, out=out),
            partial(addmm, input, mat1, mat2, beta=beta, alpha=alpha, out=out),
        )
        if foreign is not NotImplemented:
            return foreign
    if out is None:
        input, mat1, mat2 = autocast(input, mat1, mat2)
    reason = why_not_ours(input, mat1, mat2)
    if reason is not None:
        y = to_torch("addmm", reason, lambda: torch.addmm(input, mat1, mat2, beta=beta, alpha=alpha))
        return _store("addmm", y, out, input, mat1, mat2)
    agree("addmm", ("mat1", mat1), ("mat2", mat2), ("input", input))
    if mat1.dim() != 2 or mat2.dim() != 2 or mat1.shape[1] != mat2.shape[0]:
        raise RuntimeError(
            f"neurokern.addmm: arguments mat1 {list(mat1.shape)} and mat2 {list(mat2.shape)}, "
            "expected [M, K] and [K, N]"
        )
    residual = _expanded("addmm", "input", input, (mat1.shape[0], mat2.shape[1]))
    y = grad.matmul(mat1, mat2, residual, number("addmm", "alpha", alpha), number("addmm", "beta", beta))
    return _store("addmm", y, out, input, mat1, mat2)


def _widest(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """torch's autocast of bilinear: nothing on the CPU, elsewhere the widest of the dtypes."""
    given = [t for t in tensors if t is not None]
    device = given[0].device.type
    if device == "cpu" or not torch.is_autocast_enabled(device):
        return tensors
    dtype = reduce(torch.promote_types, (t.dtype for t in given))
    return tuple(t if t is None else t.to(dtype) for t in tensors)


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y[..., o] = input1[..., i] weight[o, i, j] input2[..., j] + bias[o].

    Args:
        input1: [..., I].
        input2: [..., J], leading dimensions as input1.
        weight: [O, I, J].
        bias: [O].

    Raises:
        RuntimeError: shapes, dtypes or devices do not fit.
    """
    arguments = (("input1", input1), ("input2", input2), ("weight", weight), ("bias", bias))
    if any(type(a) not in PLAIN for _, a in (arguments if bias is not None else arguments[:3])):
        foreign = not_plain(
            "bilinear",
            arguments,
            lambda: torch.nn.functional.bilinear(input1, input2, weight, bias),
            partial(bilinear, input1, input2, weight, bias),
        )
        if foreign is not NotImplemented:
            return foreign
    if any_autocast():
        input1, input2, weight, bias = _widest(input1, input2, weight, bias)
    reason = why_not_ours(input1, input2, weight, bias)
    if reason is not None:
        return to_torch("bilinear", reason, lambda: torch.nn.functional.bilinear(input1, input2, weight, bias))
    agree("bilinear", ("input1", input1), ("input2", input2), ("weight", weight), ("bias", bias))
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
    x1, x2 = input1.reshape(lead.numel(), i), input2.reshape(lead.numel(), j)
    # first over i for every o at once (the batch shares x1), then over j for every row
    inner = grad.matmul(x1.expand(o, *x1.shape), weight)
    y = grad.matmul(inner.transpose(0, 1), x2.unsqueeze(-1)).squeeze(-1)
    y = y.reshape(*lead, o)
    return y if bias is None else y + bias
