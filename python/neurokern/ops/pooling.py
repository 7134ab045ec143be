"""The pooling family as ops: maxima, averages and norms of windows, and the way back from maxima.

``kind`` is the face's name, which messages use; a plain op has a kernel size, an adaptive one an output size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.op import op

_F = torch.nn.functional
_aten = torch.ops.aten
Ints = Sequence[int]
Maybe = Tensor | None

# whose output torch lays out as channels_last where the input is
_KEEP_CHANNELS_LAST = {
    "max_pool2d", "adaptive_max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "lp_pool2d", "max_unpool2d", "max_pool3d",
}  # fmt: skip


def _spatial(kind: str) -> int:
    return int(kind[-2])


def _each(values: Ints, kind: str) -> Any:
    """One number for each dim; none stays none."""
    return list(values) * _spatial(kind) if len(values) == 1 else list(values)


def _dims(y: Any, x: Any, *rest: Any) -> tuple[list[Any], list[Any]]:
    """Batch and channels may be cut."""
    kind = next(r for r in rest if isinstance(r, str))
    shape = next(s for s in (x, y) if s is not None)
    names = [i if i < len(shape) - _spatial(kind) else None for i in range(len(shape))]
    # random numbers are [N, C, dims], of one batch where there is none
    other = [*([None] if len(shape) == _spatial(kind) + 1 else []), *[n for n in names if n is not None], None]
    return [names, other if kind.startswith("fractional") else names], [names, names]


def _layout(x: Tensor, kind: str) -> torch.memory_format:
    ambiguous = kind == "lp_pool2d" and x.shape[-3] == 1  # powers of one channel lie as planes
    if kind in _KEEP_CHANNELS_LAST and x.dim() == _spatial(kind) + 2 and not ambiguous:
        return torch._prims_common.suggest_memory_format(x)
    return torch.contiguous_format


def _like(x: Tensor, kind: str) -> Tensor:
    if kind[-2] == "1" and x.dim() == 3 and not (kind == "lp_pool1d" and x.shape[1] == 1):  # an image of one row
        return _like(x.unsqueeze(-2), "avg_pool2d").squeeze(-2)
    return torch.empty_like(x, memory_format=_layout(x, kind))


def _wide(t: Tensor) -> Tensor:
    """In float32 at least: several roundings of 16 bits lie within a formula."""
    return t.float() if t.dtype in (torch.float16, torch.bfloat16) else t


# ---- maxima ----


def _max_value_by_torch(
    x: Tensor,
    kind: str,
    kernel: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    size: Ints,
    ceil_mode: bool,
    indices: bool = False,
) -> Any:
    """Without indices it is another op of torch's, which more of its exporters know."""
    more = {"return_indices": True} if indices else {}
    if kind.startswith("adaptive"):
        return getattr(_F, kind)(x, size, **more)
    kernel, stride, padding, dilation = (_each(v, kind) for v in (kernel, stride, padding, dilation))
    return getattr(_F, kind)(x, kernel, stride or None, padding, dilation, ceil_mode, **more)


def _max_by_torch(x: Tensor, *parameters: Any) -> tuple[Tensor, Tensor]:
    return _max_value_by_torch(x, *parameters, indices=True)


def _fractional_by_torch(x: Tensor, samples: Tensor, kind: str, kernel: Ints, size: Ints) -> tuple[Tensor, Tensor]:
    kernel, size = (_each(v, kind) for v in (kernel, size))
    return getattr(_F, kind)(x, kernel, size, return_indices=True, _random_samples=samples)


def _in_plane(x: Tensor, indices: Tensor, kind: str) -> Tensor:
    """Indices that a gradient alone sees: 32 bits, unless a plane has more elements."""
    shape = x.shape[-_spatial(kind) :]
    large = all(type(s) is int for s in shape) and math.prod(shape) >= 2**31
    return indices if large else indices.int()


def _max_fake(x: Tensor, kind: str, *rest: Any) -> tuple[Tensor, Tensor]:
    y, indices = _max_by_torch(x, kind, *rest)
    return y, _in_plane(x, indices, kind)


def _fractional_fake(x: Tensor, samples: Tensor, kind: str, *rest: Any) -> tuple[Tensor, Tensor]:
    y, indices = _fractional_by_torch(x, samples, kind, *rest)
    return y, _in_plane(x, indices, kind)


def _to_places(g: Tensor, x: Tensor, indices: Tensor, kind: str) -> Tensor:
    """The gradient of the maxima at the places that they came from."""
    n = _spatial(kind)
    zeros = g.new_zeros((*x.shape[:-n], math.prod(x.shape[-n:])), dtype=_wide(g).dtype)
    gx = zeros.scatter_add(-1, indices.flatten(-n).long(), _wide(g).flatten(-n))
    return gx.reshape(x.shape).to(x.dtype)


_WINDOWS = "str kind, int[] kernel_size, int[] stride, int[] padding, int[] dilation, int[] output_size, bool ceil_mode"
_STARTS = "Tensor input, Tensor _random_samples, str kind, int[] kernel_size, int[] output_size"

max_pool = op(
    f"max_pool(Tensor input, {_WINDOWS}) -> (Tensor y, Tensor indices)",
    fake=_max_fake,
    returns=1,
    saves="input indices",
    constants="indices",
    gradients=lambda g, x, indices, kind, *_: _like(x, kind),
    formula=lambda g, x, indices, kind, *_: _to_places(g, x, indices, kind),
    torch=_max_value_by_torch,
    torch_recorded=_max_fake,
    label="kind",
    dims=_dims,
)
max_pool_with_indices = op(
    f"max_pool_with_indices(Tensor input, {_WINDOWS}) -> (Tensor y, Tensor indices)",
    fake=_max_by_torch,
    saves="input indices",
    constants="indices",
    gradients=lambda g, g_indices, x, indices, kind, *_: _like(x, kind),
    formula=lambda g, g_indices, x, indices, kind, *_: _to_places(g, x, indices, kind),
    torch=_max_by_torch,
    label="kind",
    dims=_dims,
)
fractional_max_pool = op(
    f"fractional_max_pool({_STARTS}) -> (Tensor y, Tensor indices)",
    fake=_fractional_fake,
    returns=1,
    saves="input indices",
    constants="_random_samples indices",
    gradients=lambda g, x, indices, kind, *_: (_like(x, kind), None),
    formula=lambda g, x, indices, kind, *_: (_to_places(g, x, indices, kind), None),
    torch=lambda *args: _fractional_by_torch(*args)[0],
    torch_recorded=_fractional_fake,
    label="kind",
    dims=_dims,
    autocast="float32_on_cpu",
)
fractional_max_pool_with_indices = op(
    f"fractional_max_pool_with_indices({_STARTS}) -> (Tensor y, Tensor indices)",
    fake=_fractional_by_torch,
    saves="input indices",
    constants="_random_samples indices",
    gradients=lambda g, g_indices, x, indices, kind, *_: (_like(x, kind), None),
    formula=lambda g, g_indices, x, indices, kind, *_: (_to_places(g, x, indices, kind), None),
    torch=_fractional_by_torch,
    label="kind",
    dims=_dims,
    autocast="float32_on_cpu",
)

# ---- averages ----


def _avg_by_torch(
    x: Tensor,
    kind: str,
    kernel: Ints,
    stride: Ints,
    padding: Ints,
    size: Ints,
    ceil_mode: bool,
    include_pad: bool,
    divisor: int | None,
) -> Tensor:
    if kind.startswith("adaptive"):
        return getattr(_F, kind)(x, size)
    more = () if kind == "avg_pool1d" else (divisor,)
    kernel, stride, padding = (_each(v, kind) for v in (kernel, stride, padding))
    return getattr(_F, kind)(x, kernel, stride or None, padding, ceil_mode, include_pad, *more)


def _avg_gradient(
    g: Tensor,
    x: Tensor,
    kind: str,
    kernel: Ints,
    stride: Ints,
    padding: Ints,
    size: Ints,
    ceil_mode: bool,
    include_pad: bool,
    divisor: int | None,
) -> Tensor:
    """By torch's own, which can be differentiated again."""
    if kind[-2] == "1":  # an image of one row
        stride, kernel, padding = [1, *(stride or kernel)], [1, *kernel], [0, *padding]
        more = (kernel, stride, padding, size, ceil_mode, include_pad, divisor)
        return _avg_gradient(g.unsqueeze(-2), x.unsqueeze(-2), kind[:-2] + "2d", *more).squeeze(-2)
    gw, xw = (_wide(t) for t in (g, x))  # in three dims torch has no kernel for 16 bits
    if kind.startswith("adaptive"):
        return getattr(_aten, f"_{kind}_backward")(gw, xw).to(x.dtype)
    more = (kernel, stride, padding, ceil_mode, include_pad, divisor)
    return getattr(_aten, f"{kind}_backward")(gw, xw, *more).to(x.dtype)


avg_pool = op(
    "avg_pool(Tensor input, str kind, int[] kernel_size, int[] stride, int[] padding, int[] output_size,"
    " bool ceil_mode, bool count_include_pad, int? divisor_override) -> Tensor y",
    fake=_avg_by_torch,
    saves="input",
    gradients=lambda g, x, kind, *_: _like(x, kind),
    formula=_avg_gradient,
    torch=_avg_by_torch,
    label="kind",
    dims=_dims,
)


def _lp_by_torch(x: Tensor, kind: str, norm: float, kernel: Ints, stride: Ints, ceil_mode: bool) -> Tensor:
    size = _each(kernel, kind)
    stride = _each(stride, kind) or None
    return getattr(_F, kind)(x, norm, size[0] if len(size) == 1 else size, stride, ceil_mode)


def _lp_gradient(
    g: Tensor, x: Tensor, y: Tensor, kind: str, norm: float, kernel: Ints, stride: Ints, ceil_mode: bool
) -> Tensor:
    """Of the input, so that it can be differentiated again; nothing where the sum is 0, as in torch."""
    avg = (f"avg{kind[2:]}", kernel, stride, [0] * _spatial(kind), [], ceil_mode, True, None)
    g, xw = _wide(g), _wide(x)
    size = math.prod(_each(kernel, kind))
    total = _avg_by_torch(xw.pow(norm), *avg) * size
    zero = total == 0
    root = torch.where(zero, 1.0, total).pow(1 / norm - 1)
    gx = _avg_gradient(torch.where(zero, 0.0, g * root * size), xw, *avg) * xw.pow(norm - 1)
    return gx.to(x.dtype)


lp_pool = op(
    "lp_pool(Tensor input, str kind, float norm_type, int[] kernel_size, int[] stride, bool ceil_mode) -> Tensor y",
    fake=_lp_by_torch,
    saves="input y",
    gradients=lambda g, x, y, kind, *_: _like(x, kind),
    formula=_lp_gradient,
    torch=_lp_by_torch,
    label="kind",
    dims=_dims,
)


# ---- the way back ----


def _unpool_by_torch(x: Tensor, indices: Tensor, kind: str, size: Ints) -> Tensor:
    if kind == "max_unpool1d":
        made = torch._C._nn.max_unpool2d(x.unsqueeze(-1), indices.unsqueeze(-1), [*size, 1])
        return made.squeeze(-1)
    if kind == "max_unpool2d":
        return torch._C._nn.max_unpool2d(x, indices, size)
    return torch._C._nn.max_unpool3d(x, indices, size, [1] * 3, [0] * 3)


def _unpool_fake(x: Tensor, indices: Tensor, kind: str, size: Ints) -> Tensor:
    shape = (*x.shape[: x.dim() - _spatial(kind)], *size)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=_layout(x, kind))


def _from_places(g: Tensor, indices: Tensor, kind: str, size: Ints, wants: Any) -> tuple[Tensor, None]:
    n = _spatial(kind)
    return g.flatten(-n).gather(-1, indices.flatten(-n)).reshape(indices.shape), None


max_unpool = op(
    "max_unpool(Tensor input, Tensor indices, str kind, int[] output_size) -> Tensor y",
    fake=_unpool_fake,
    saves="indices",
    integers="indices",
    constants="indices",
    gradients=lambda g, indices, *_: (g.new_empty(indices.shape), None),
    formula=_from_places,
    torch=_unpool_by_torch,
    label="kind",
    dims=_dims,
    autocast="float32_on_cpu",
)
