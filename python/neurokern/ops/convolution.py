"""Convolutions, transposed ones and the gradient of their weights: three products that are each other's gradients.

``padding`` has two numbers for each spatial dim, before and behind; ``face`` is the torch function that it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format

from ..core.op import op
from .activation import TORCH, unary_gradient

_F = torch.nn.functional
Shape = Sequence[int]


# ---- shapes and layouts ----


def _pairs(padding: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip(padding[::2], padding[1::2], strict=True))


def _result_size(pixels: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape) -> list[int]:
    walk = zip(pixels, kernel, stride, _pairs(padding), dilation, strict=True)
    return [(n + sum(p) - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in walk]


def _image_size(pixels: Shape, kernel: Shape, stride: Shape, padding: Shape, more: Shape, dilation: Shape) -> list[int]:
    walk = zip(pixels, kernel, stride, _pairs(padding), more, dilation, strict=True)
    return [(n - 1) * s - sum(p) + d * (k - 1) + 1 + m for n, k, s, p, m, d in walk]


def _shape(images: Tensor, dims: int, channels: int, pixels: Sequence[int]) -> list[int]:
    return [*images.shape[: images.dim() - dims - 1], channels, *pixels]


def _has_layouts(images: Tensor, weight: Tensor) -> bool:
    """torch's kernels for volumes of float64 know one layout."""
    return weight.dim() == 4 or (weight.dim() == 5 and images.dtype != torch.float64)


def _is_last(t: Tensor) -> bool:
    return suggest_memory_format(t) in (torch.channels_last, torch.channels_last_3d)


def _last(weight: Tensor) -> torch.memory_format:
    return torch.channels_last if weight.dim() == 4 else torch.channels_last_3d


def _batch(images: Tensor, weight: Tensor) -> Tensor:
    return images if images.dim() == weight.dim() else images.unsqueeze(0)


def _is_empty(t: Tensor) -> bool:
    n = t.numel()
    return type(n) is int and n == 0  # a symbolic one is of tensors that are not


def _laid_out(images: Tensor, weight: Tensor, shape: Sequence[int]) -> Tensor:
    """A new tensor of that shape, in the memory format that torch makes of these two."""
    batch = _batch(images, weight)
    if not _has_layouts(images, weight) or _is_empty(images) or not (_is_last(batch) or _is_last(weight)):
        return images.new_empty(shape)
    made = images.new_empty(shape if len(shape) == weight.dim() else (1, *shape)).to(memory_format=_last(weight))
    return made if len(shape) == weight.dim() else made.squeeze(0)


def _like_weight(images: Tensor, weight: Tensor) -> Tensor:
    last = _has_layouts(images, weight) and _is_last(weight)
    if not last and _has_layouts(images, weight) and _is_last(_batch(images, weight)):
        # in float64 torch turns a contiguous one, which nothing turns where it lies in both layouts
        both = weight.shape[1] == 1 or math.prod(weight.shape[2:]) == 1
        last = images.dtype != torch.float64 or not both
    if not last:
        return torch.empty_like(weight, memory_format=torch.contiguous_format)
    return weight.new_empty(weight.shape).to(memory_format=_last(weight))


def _fake(x: Tensor, weight: Tensor, stride: Shape, padding: Shape, dilation: Shape) -> Tensor:
    dims = weight.dim() - 2
    pixels = _result_size(x.shape[x.dim() - dims :], weight.shape[2:], stride, padding, dilation)
    return _laid_out(x, weight, _shape(x, dims, weight.shape[0], pixels))


def _gradients_fake(
    x: Tensor, weight: Tensor, channels: int, wants: Sequence[bool], g: Tensor | None = None
) -> tuple[Tensor | None, ...]:
    made = (
        (torch.empty_like(x) if _is_empty(x) else _laid_out(x, weight, list(x.shape))) if wants[0] else None,
        _like_weight(x, weight) if wants[1] else None,
        x.new_empty(channels) if wants[2] else None,
    )
    return made if len(wants) == 3 else (*made, torch.empty_like(g) if wants[3] else None)


# ---- by torch ----


def _padded(x: Tensor, padding: Sequence[int], dims: int, mode: str) -> tuple[Tensor, Any]:
    """The input and torch's own padding: the input padded where torch has no argument for it."""
    if mode == "zeros" and all(before == behind for before, behind in _pairs(padding)):
        return x, list(padding[::2])
    around = [p for pair in reversed(_pairs(padding)) for p in pair]
    return _F.pad(x, around, mode="constant" if mode == "zeros" else mode), [0] * dims


def _by_torch(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    face: str,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    mode: str,
) -> Tensor:
    x, around = _padded(x, padding, len(stride), mode)
    return getattr(_F, face)(x, weight, bias, stride, around, dilation, groups)


def _activation_by_torch(x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, *more: Any) -> Tensor:
    return _activation_recorded_by_torch(x, weight, bias, residual, *more)[0]


def _activation_recorded_by_torch(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, *more: Any
) -> tuple[Tensor, Tensor]:
    *window, act, p0, p1 = more
    preact = _by_torch(x, weight, bias, *window)
    y = TORCH[act](preact, p0, p1)
    return y if residual is None else y + residual, preact


def _transpose_by_torch(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    face: str,
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    pairs = _pairs(padding)
    around = [min(pair) for pair in pairs]
    y = getattr(_F, face)(x, weight, bias, stride, around, output_padding, groups, dilation)
    cut = [p - a for pair, a in zip(reversed(pairs), reversed(around), strict=True) for p in pair]
    return _F.pad(y, [-c for c in cut]) if any(cut) else y


def _weight_gradient_by_torch(
    g: Tensor,
    x: Tensor,
    face: str,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    mode: str,
) -> Tensor:
    dims = len(kernel)
    x, around = _padded(x, padding, dims, mode)
    if x.dim() == dims + 1:
        x, g = x.unsqueeze(0), g.unsqueeze(0)
    shape = (g.shape[1], x.shape[1] // groups, *kernel)
    return getattr(torch.nn.grad, f"{face}_weight")(x, shape, g, stride, around, dilation, groups)


# ---- formulas ----


def _read(x: Tensor, padding: Sequence[int], mode: str) -> list[Tensor]:
    """For each spatial dim, which pixel of x a padded image has at each place."""
    made = []
    for i, (before, behind) in enumerate(_pairs(padding)):
        n = x.shape[i - len(padding) // 2]
        at = torch.arange(-before, n + behind, device=x.device)
        if mode == "replicate":
            at = at.clamp(0, n - 1)
        elif mode == "circular":
            at = at % n
        else:
            at = torch.where(at < 0, -at, at)
            at = torch.where(at >= n, 2 * (n - 1) - at, at)
        made.append(at)
    return made


def _gradients(
    g: Tensor,
    x: Tensor,
    weight: Tensor,
    face: str,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    mode: str,
    wants: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    dims = len(stride)
    places = [] if mode == "zeros" else _read(x, padding, mode)
    shape = [x.shape]
    for i, at in enumerate(places):  # a padded image, as one that is not: its padding may then be that of any mode
        x = x.index_select(i - dims, at)
        shape.append(x.shape)
    if places:
        padding = [0] * len(padding)
    gx = gw = None
    if wants[0]:
        sizes = x.shape[x.dim() - dims :]
        least = _image_size(g.shape[g.dim() - dims :], weight.shape[2:], stride, padding, [0] * dims, dilation)
        more = [n - m for n, m in zip(sizes, least, strict=True)]
        transposed = face.replace("conv", "conv_transpose")
        gx = convolution_transpose(g, weight, None, transposed, stride, padding, more, dilation, groups)
        for i in reversed(range(len(places))):
            gx = gx.new_zeros(shape[i]).index_add(i - dims, places[i], gx)
    if wants[1]:
        gw = convolution_weight_gradient(g, x, face, list(weight.shape[2:]), stride, padding, dilation, groups, "zeros")
    return gx, gw, _channel_sums(g, dims) if wants[2] else None


def _channel_sums(g: Tensor, dims: int) -> Tensor:
    return g.sum([d for d in range(g.dim()) if d != g.dim() - dims - 1])


def _activation_gradients(
    g: Tensor | None, g_preact: Tensor | None, x: Tensor, weight: Tensor, preact: Tensor, *more: Any
) -> tuple[Tensor | None, ...]:
    *window, act, p0, p1, wants = more
    gz = None if g is None else unary_gradient(g, preact, act, p0, p1)
    if g_preact is not None:
        gz = g_preact if gz is None else gz + g_preact
    if gz is None:
        return None, None, None, None
    return *_gradients(gz, x, weight, *window, wants[:3]), g if wants[3] else None


def _transpose_gradients(
    g: Tensor,
    x: Tensor,
    weight: Tensor,
    face: str,
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    wants: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    face = face.replace("_transpose", "")
    window = (stride, padding, dilation, groups, "zeros")
    gx = convolution(g, weight, None, face, *window) if wants[0] else None
    gw = convolution_weight_gradient(x, g, face, list(weight.shape[2:]), *window) if wants[1] else None
    return gx, gw, _channel_sums(g, len(stride)) if wants[2] else None


def _weight_gradient_gradients(
    gg: Tensor,
    g: Tensor,
    x: Tensor,
    face: str,
    kernel: Sequence[int],
    *window: Any,
) -> tuple[Tensor | None, ...]:
    *window, wants = window
    to_g = convolution(x, gg, None, face, *window) if wants[0] else None
    to_x = _gradients(g, x, gg, face, *window, [True, False, False])[0] if wants[1] else None
    return to_g, to_x


# ---- work, and what may be cut ----


def _flops(x: Shape, weight: Shape, *more: Any) -> int:
    stride, padding, dilation = (more[i] for i in _WINDOW[len(more)])
    pixels = _result_size(x[len(x) - len(stride) :], weight[2:], stride, padding, dilation)
    return 2 * math.prod(x[: len(x) - len(stride) - 1]) * math.prod(pixels) * math.prod(weight)


_WINDOW = {7: (2, 3, 4), 11: (3, 4, 5)}  # where stride, padding and dilation stand behind input and weight


def _backward_flops(g: Shape, x: Shape, weight: Shape, *more: Any) -> int:
    dims = len(weight) - 2
    images = math.prod(g[: len(g) - dims - 1]) * math.prod(g[len(g) - dims :])
    return 2 * images * math.prod(weight) * sum(more[-1][:2])


def _transpose_flops(x: Shape, weight: Shape, *_: Any) -> int:
    dims = len(weight) - 2
    return 2 * math.prod(x[: len(x) - dims - 1]) * math.prod(x[len(x) - dims :]) * math.prod(weight)


def _transpose_backward_flops(g: Shape, x: Shape, weight: Shape, *more: Any) -> int:
    return _transpose_flops(x, weight) * sum(more[-1][:2])


def _weight_gradient_flops(g: Shape, x: Shape, face: str, kernel: Shape, *more: Any) -> int:
    dims, groups = len(kernel), more[3]
    images = math.prod(g[: len(g) - dims - 1]) * math.prod(g[len(g) - dims :])
    return 2 * images * g[len(g) - dims - 1] * x[len(x) - dims - 1] // groups * math.prod(kernel)


def _cut(images: Shape, dims: int, channels: str | None) -> list[Any]:
    """Names of the dims of images: of the batch, where there is one, and of the channels."""
    return [*["n"] * (len(images) - dims - 1), channels, *[None] * dims]


def _dims(x: Shape, weight: Shape, groups: int, whole: bool = False, transposed: bool = False) -> tuple[Any, Any]:
    """Batches may be cut, and channels where they are one group; those summed over not where ``whole``."""
    dims = len(weight) - 2
    o, c = ("o", "c") if groups == 1 else (None, None)
    c = None if whole else c
    named, y = [c, o] if transposed else [o, c], _cut(x, dims, o)
    return [_cut(x, dims, c), [*named, *[None] * dims], [o], y], [y, y]


def _activation_dims(
    y: Shape | None, x: Shape, weight: Shape, bias: Any, residual: Shape | None, *more: Any
) -> tuple[Any, ...]:
    """A sum that is not whole yet has no activation; a residual is not cut where it broadcasts."""
    groups, act = more[4], more[6]
    inputs, outputs = _dims(x, weight, groups, act != "identity")
    gradients = inputs
    if residual is not None:
        names = inputs[3][len(inputs[3]) - len(residual) :]
        inputs = [*inputs[:3], [None if n == 1 else name for n, name in zip(residual, names, strict=True)]]
    return inputs, outputs, gradients


def _weight_gradient_dims(gw: Any, g: Shape, x: Shape, face: str, kernel: Shape, *more: Any) -> tuple[Any, Any]:
    o, c = ("o", "c") if more[3] == 1 else (None, None)
    dims = len(kernel)
    return [_cut(g, dims, o), _cut(x, dims, c)], [[o, c, *[None] * dims]]


_COMMON: dict[str, Any] = {"returns": 1, "autocast": "lower", "label": "face"}
convolution = op(
    "convolution(Tensor input, Tensor weight, Tensor? bias, str face, int[] stride, int[] padding, int[] dilation, "
    "int groups, str mode) -> Tensor",
    fake=lambda x, weight, bias, face, stride, padding, dilation, groups, mode: _fake(
        x, weight, stride, padding, dilation
    ),
    saves="input weight",
    gradients=lambda g, x, weight, *more: _gradients_fake(x, weight, weight.shape[0], more[-1]),
    formula=_gradients,
    torch=_by_torch,
    flops=_flops,
    backward_flops=_backward_flops,
    dims=lambda y, x, weight, bias, *more: _dims(x, weight, more[4]),
    **_COMMON,
)
convolution_activation = op(
    "convolution_activation(Tensor input, Tensor weight, Tensor? bias, Tensor? residual, str face, int[] stride, "
    "int[] padding, int[] dilation, int groups, str mode, str act, Scalar p0, Scalar p1) -> (Tensor y, Tensor preact)",
    fake=lambda x, weight, bias, residual, face, stride, padding, dilation, *_: tuple(
        _fake(x, weight, stride, padding, dilation) for _ in range(2)
    ),
    attached="preact",
    saves="input weight preact",
    gradients=lambda g, x, weight, preact, *more: _gradients_fake(x, weight, weight.shape[0], more[-1], g),
    formula=_activation_gradients,
    torch=_activation_by_torch,
    torch_recorded=_activation_recorded_by_torch,
    flops=_flops,
    backward_flops=_backward_flops,
    dims=_activation_dims,
    **_COMMON,
)
convolution_transpose = op(
    "convolution_transpose(Tensor input, Tensor weight, Tensor? bias, str face, int[] stride, int[] padding, "
    "int[] output_padding, int[] dilation, int groups) -> Tensor",
    fake=lambda x, weight, bias, face, stride, padding, more, dilation, groups: _laid_out(
        x,
        weight,
        _shape(
            x,
            weight.dim() - 2,
            weight.shape[1] * groups,
            _image_size(x.shape[x.dim() - weight.dim() + 2 :], weight.shape[2:], stride, padding, more, dilation),
        ),
    ),
    saves="input weight",
    gradients=lambda g, x, weight, *more: _gradients_fake(x, weight, weight.shape[1] * more[-2], more[-1]),
    formula=_transpose_gradients,
    torch=_transpose_by_torch,
    flops=_transpose_flops,
    backward_flops=_transpose_backward_flops,
    dims=lambda y, x, weight, bias, *more: _dims(x, weight, more[5], transposed=True),
    **_COMMON,
)
convolution_weight_gradient = op(
    "convolution_weight_gradient(Tensor g, Tensor input, str face, int[] kernel, int[] stride, int[] padding, "
    "int[] dilation, int groups, str mode) -> Tensor",
    fake=lambda g, x, face, kernel, *more: x.new_empty(
        (g.shape[g.dim() - len(kernel) - 1], x.shape[x.dim() - len(kernel) - 1] // more[3], *kernel)
    ),
    saves="g input",
    gradients=lambda gg, g, x, *more: tuple(
        _laid_out(x, gg, list(t.shape)) if want else None for t, want in zip((g, x), more[-1], strict=True)
    ),
    formula=_weight_gradient_gradients,
    torch=_weight_gradient_by_torch,
    flops=_weight_gradient_flops,
    dims=_weight_gradient_dims,
    **_COMMON,
)
