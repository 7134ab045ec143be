"""Pooling with the signatures of ``torch.nn.functional``.

Inputs are [N, C, *sizes] or [C, *sizes] with one to three sizes, of float32, float64, float16 or bfloat16; an output
is laid out as torch's. Wherever one number is enough, a list has one for each size.
Plain windows begin ``stride`` apart (None: their own size) after ``padding``, their elements ``dilation`` apart. With
``ceil_mode`` the last one may reach beyond the end, unless it would begin in the padding there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..core.autocast import autocast
from ..ops.pooling import avg_pool as _avg
from ..ops.pooling import fractional_max_pool as _fractional
from ..ops.pooling import fractional_max_pool_with_indices as _fractional_with_indices
from ..ops.pooling import lp_pool as _lp
from ..ops.pooling import max_pool as _max
from ..ops.pooling import max_pool_with_indices as _max_with_indices
from ..ops.pooling import max_unpool as _unpool

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool1d_with_indices",
    "adaptive_max_pool2d",
    "adaptive_max_pool2d_with_indices",
    "adaptive_max_pool3d",
    "adaptive_max_pool3d_with_indices",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "fractional_max_pool2d",
    "fractional_max_pool2d_with_indices",
    "fractional_max_pool3d",
    "fractional_max_pool3d_with_indices",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "max_pool1d",
    "max_pool1d_with_indices",
    "max_pool2d",
    "max_pool2d_with_indices",
    "max_pool3d",
    "max_pool3d_with_indices",
    "max_unpool1d",
    "max_unpool2d",
    "max_unpool3d",
]

Size = int | Sequence[int]
Sizes = int | Sequence[int | None] | None


def _list(value: Any) -> Any:
    """One number, or one for each dim, as the ops take it; None: none."""
    return [] if value is None else value if isinstance(value, list | tuple) else [value]


_wide = partial(autocast, "float32_on_cpu")  # what the CPU's autocast hands to pools of three dims


def _pool(
    kind: str,
    input: Tensor,
    kernel: Size,
    stride: Size | None,
    padding: Size,
    dilation: Size,
    ceil: bool,
    indices: bool,
) -> Any:
    run = _max_with_indices if indices else _max
    return run(input, kind, _list(kernel), _list(stride), _list(padding), _list(dilation), [], ceil)


def max_pool1d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The maximum of each window of [N, C, L] or [C, L]. NaN wins, and of equal elements the first.

    Args:
        return_indices: also return, as int64, where in its row each maximum is.

    Raises:
        RuntimeError: no window fits, padding is more than half of a window, or a size is not positive.
    """
    return _pool("max_pool1d", input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The maximum of each window of [N, C, H, W] or [C, H, W]; see `max_pool1d`. Places count h * W + w."""
    return _pool("max_pool2d", input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The maximum of each window of [N, C, D, H, W] or [C, D, H, W]; see `max_pool1d`. Places count through D."""
    return _pool("max_pool3d", *_wide((input,)), kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool1d_with_indices(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[Tensor, Tensor]:
    """`max_pool1d` with indices, whatever ``return_indices`` says."""
    return _pool("max_pool1d", input, kernel_size, stride, padding, dilation, ceil_mode, True)


def max_pool2d_with_indices(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[Tensor, Tensor]:
    """`max_pool2d` with indices, whatever ``return_indices`` says."""
    return _pool("max_pool2d", input, kernel_size, stride, padding, dilation, ceil_mode, True)


def max_pool3d_with_indices(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[Tensor, Tensor]:
    """`max_pool3d` with indices, whatever ``return_indices`` says."""
    return _pool("max_pool3d", *_wide((input,)), kernel_size, stride, padding, dilation, ceil_mode, True)


def avg_pool1d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The average of each window of [N, C, L] or [C, L].

    Args:
        count_include_pad: divide by the elements of the window in the input and its padding; False: in the input.

    Raises:
        RuntimeError: as `max_pool1d`.
    """
    more = ([], ceil_mode, count_include_pad, None)
    return _avg(input, "avg_pool1d", _list(kernel_size), _list(stride), _list(padding), *more)


def avg_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The average of each window of [N, C, H, W] or [C, H, W]; see `avg_pool1d`.

    Args:
        divisor_override: divide by this number instead; not 0.
    """
    more = ([], ceil_mode, count_include_pad, divisor_override)
    return _avg(input, "avg_pool2d", _list(kernel_size), _list(stride), _list(padding), *more)


def avg_pool3d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The average of each window of [N, C, D, H, W] or [C, D, H, W]; see `avg_pool2d`."""
    more = ([], ceil_mode, count_include_pad, divisor_override)
    return _avg(input, "avg_pool3d", _list(kernel_size), _list(stride), _list(padding), *more)


def _sizes(input: Tensor, size: Sizes, dims: int) -> list[int]:
    """An adaptive output size: one number stands for all, None for the input's own."""
    given = [size] * dims if not isinstance(size, list | tuple) else list(size)
    if None in given and len(given) == dims < len(getattr(input, "shape", ())):
        given = [n if s is None else s for s, n in zip(given, input.shape[-dims:], strict=True)]
    return given  # type: ignore[return-value]  # the op refuses None


def _adaptive_max(kind: str, input: Tensor, size: Sizes, dims: int, indices: bool) -> Any:
    run = _max_with_indices if indices else _max
    return run(input, kind, [], [], [], [], _sizes(input, size, dims), False)


def adaptive_max_pool1d(input: Tensor, output_size: Size, return_indices: bool = False) -> Any:
    """The maxima of output_size windows that cover [N, C, L] or [C, L] evenly.

    Window o of a row of L elements begins at floor(o * L / out) and ends before ceil((o + 1) * L / out).

    Raises:
        RuntimeError: output_size is negative or of another length, or input has no elements in a size.
    """
    return _adaptive_max("adaptive_max_pool1d", input, output_size, 1, return_indices)


def adaptive_max_pool2d(input: Tensor, output_size: Sizes, return_indices: bool = False) -> Any:
    """The same of [N, C, H, W] or [C, H, W]; a size of None is the input's. See `adaptive_max_pool1d`."""
    return _adaptive_max("adaptive_max_pool2d", input, output_size, 2, return_indices)


def adaptive_max_pool3d(input: Tensor, output_size: Sizes, return_indices: bool = False) -> Any:
    """The same of [N, C, D, H, W] or [C, D, H, W]; a size of None is the input's. See `adaptive_max_pool1d`."""
    return _adaptive_max("adaptive_max_pool3d", *_wide((input,)), output_size, 3, return_indices)


def adaptive_max_pool1d_with_indices(
    input: Tensor, output_size: Size, return_indices: bool = False
) -> tuple[Tensor, Tensor]:
    """`adaptive_max_pool1d` with indices, whatever ``return_indices`` says."""
    return _adaptive_max("adaptive_max_pool1d", input, output_size, 1, True)


def adaptive_max_pool2d_with_indices(
    input: Tensor, output_size: Sizes, return_indices: bool = False
) -> tuple[Tensor, Tensor]:
    """`adaptive_max_pool2d` with indices, whatever ``return_indices`` says."""
    return _adaptive_max("adaptive_max_pool2d", input, output_size, 2, True)


def adaptive_max_pool3d_with_indices(
    input: Tensor, output_size: Sizes, return_indices: bool = False
) -> tuple[Tensor, Tensor]:
    """`adaptive_max_pool3d` with indices, whatever ``return_indices`` says."""
    return _adaptive_max("adaptive_max_pool3d", *_wide((input,)), output_size, 3, True)


def _adaptive_avg(kind: str, input: Tensor, size: Sizes, dims: int) -> Tensor:
    return _avg(input, kind, [], [], [], _sizes(input, size, dims), False, True, None)


def adaptive_avg_pool1d(input: Tensor, output_size: Size) -> Tensor:
    """The averages of output_size windows that cover [N, C, L] or [C, L]; windows as in `adaptive_max_pool1d`."""
    return _adaptive_avg("adaptive_avg_pool1d", input, output_size, 1)


def adaptive_avg_pool2d(input: Tensor, output_size: Sizes) -> Tensor:
    """The same of [N, C, H, W] or [C, H, W]; a size of None is the input's."""
    return _adaptive_avg("adaptive_avg_pool2d", input, output_size, 2)


def adaptive_avg_pool3d(input: Tensor, output_size: Sizes) -> Tensor:
    """The same of [N, C, D, H, W] or [C, D, H, W]; a size of None is the input's."""
    return _adaptive_avg("adaptive_avg_pool3d", *_wide((input,)), output_size, 3)


def _norm(
    kind: str, max_kind: str, input: Tensor, p: float, kernel: Size, stride: Size | None, ceil_mode: bool
) -> Tensor:
    if p in (float("inf"), -float("inf")):  # torch's answer: the maximum, or the minimum as torch writes it
        most = _pool(max_kind, input.abs() if p > 0 else -input.abs(), kernel, stride, 0, 1, ceil_mode, False)
        return most if p > 0 else -most
    if p == 0:
        raise ZeroDivisionError(f"neurokern.{kind}: argument norm_type is 0, whose root does not exist")
    return _lp(input, kind, p, _list(kernel), _list(stride), ceil_mode)


def lp_pool1d(
    input: Tensor, norm_type: float, kernel_size: int, stride: Size | None = None, ceil_mode: bool = False
) -> Tensor:
    """(sum of x ** p) ** (1 / p) over each window of [N, C, L] or [C, L], with p = norm_type.

    A window that reaches beyond the end counts as if the rest of it were like what it holds. The gradient is 0 where
    the sum is.

    Raises:
        RuntimeError: as `max_pool1d`.
        ZeroDivisionError: norm_type is 0.
    """
    return _norm("lp_pool1d", "max_pool1d", input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(
    input: Tensor, norm_type: float, kernel_size: Size, stride: Size | None = None, ceil_mode: bool = False
) -> Tensor:
    """The same over each window of [N, C, H, W] or [C, H, W]; see `lp_pool1d`."""
    return _norm("lp_pool2d", "max_pool2d", input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(
    input: Tensor, norm_type: float, kernel_size: Size, stride: Size | None = None, ceil_mode: bool = False
) -> Tensor:
    """The same over each window of [N, C, D, H, W] or [C, D, H, W]; see `lp_pool1d`."""
    return _norm("lp_pool3d", "max_pool3d", input, norm_type, kernel_size, stride, ceil_mode)


def _random_windows(
    kind: str, input: Tensor, kernel: Size, size: Size | None, ratio: Any, samples: Tensor | None, indices: bool
) -> Any:
    dims = int(kind[-2])
    if size is None:
        if ratio is None:
            raise ValueError(f"neurokern.{kind}: neither output_size nor output_ratio is given, expected one of them")
        ratio = list(ratio) if isinstance(ratio, list | tuple) else [ratio] * dims
        if len(ratio) != dims:
            raise ValueError(f"neurokern.{kind}: argument output_ratio is {ratio}, expected one number or {dims}")
        size = [int(n * r) for n, r in zip(input.shape[-dims:], ratio, strict=True)]
    if samples is None and isinstance(input, Tensor) and input.dim() > dims:
        batch = input.shape[0] if input.dim() == dims + 2 else 1
        samples = torch.rand(batch, input.shape[-dims - 1], dims, dtype=input.dtype, device=input.device)
    run: Any = _fractional_with_indices if indices else _fractional
    return run(input, input if samples is None else samples, kind, _list(kernel), _list(size))


def fractional_max_pool2d(
    input: Tensor,
    kernel_size: Size,
    output_size: Size | None = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Any:
    """The maxima of windows of [N, C, H, W] or [C, H, W] whose starts are random. Source: Graham 2014.

    Args:
        output_size: number of windows; or
        output_ratio: the same as a share of the input's sizes.
        return_indices: also return where in its plane each maximum is.
        _random_samples: [N, C, 2] numbers of [0, 1), of W and of H; None: torch.rand.

    Raises:
        ValueError: neither output_size nor output_ratio is given.
        RuntimeError: the windows don't fit.
    """
    more = (output_size, output_ratio, _random_samples, return_indices)
    return _random_windows("fractional_max_pool2d", input, kernel_size, *more)


def fractional_max_pool3d(
    input: Tensor,
    kernel_size: Size,
    output_size: Size | None = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Any:
    """The same of [N, C, D, H, W] or [C, D, H, W]; _random_samples are [N, C, 3], of D, H and W."""
    more = (output_size, output_ratio, _random_samples, return_indices)
    return _random_windows("fractional_max_pool3d", input, kernel_size, *more)


def fractional_max_pool2d_with_indices(
    input: Tensor,
    kernel_size: Size,
    output_size: Size | None = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`fractional_max_pool2d` with indices, whatever ``return_indices`` says."""
    return _random_windows(
        "fractional_max_pool2d", input, kernel_size, output_size, output_ratio, _random_samples, True
    )


def fractional_max_pool3d_with_indices(
    input: Tensor,
    kernel_size: Size,
    output_size: Size | None = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`fractional_max_pool3d` with indices, whatever ``return_indices`` says."""
    return _random_windows(
        "fractional_max_pool3d", input, kernel_size, output_size, output_ratio, _random_samples, True
    )


def _back(
    kind: str,
    input: Tensor,
    indices: Tensor,
    kernel: Size,
    stride: Size | None,
    padding: Size,
    output_size: Sequence[int] | None,
) -> Tensor:
    dims = int(kind[-2])
    kernel, stride, padding = (
        list(v) if isinstance(v, list | tuple) else [v] * dims
        for v in (kernel, kernel if stride is None else stride, padding)
    )
    for name, given in (("kernel_size", kernel), ("stride", stride), ("padding", padding)):
        if len(given) != dims:
            raise IndexError(f"neurokern.{kind}: argument {name} is {given}, expected one number or {dims}")
    if isinstance(input, Tensor) and input.dim() < dims:
        raise IndexError(
            f"neurokern.{kind}: argument input has shape {list(input.shape)}, "
            f"expected {dims + 1} or {dims + 2} dimensions"
        )
    if not isinstance(input, Tensor) or input.dim() == dims:  # refused by the op
        return _unpool(input, indices, kind, list(kernel))
    usual = [(n - 1) * s + k - 2 * p for n, s, k, p in zip(input.shape[-dims:], stride, kernel, padding, strict=True)]
    if output_size is None:
        return _unpool(input, indices, kind, usual)
    size = list(output_size)[2:] if len(output_size) == dims + 2 else list(output_size)
    if len(size) != dims:
        raise ValueError(f"neurokern.{kind}: argument output_size is {size}, expected {dims} or {dims + 2} numbers")
    for given, n, s in zip(size, usual, stride, strict=True):
        if not n - s < given < n + s:
            raise ValueError(
                f"neurokern.{kind}: argument output_size is {size}, "
                f"expected {n - s + 1} to {n + s - 1} in the place of {given}"
            )
    return _unpool(input, indices, kind, size)


def max_unpool1d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Zeros, and the elements of input at the places that `max_pool1d` found them.

    Args:
        input: [N, C, L] or [C, L].
        indices: as `max_pool1d` returns them, int64, of the shape of input. Of several of one place the last counts.
        output_size: to choose among the sizes that pool to input's; None: the usual one.

    Raises:
        RuntimeError: an index is outside of the output (on a GPU it ends the kernel), or shapes don't match.
        ValueError: output_size pools to another size.
    """
    return _back("max_unpool1d", input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """The same of [N, C, H, W] or [C, H, W]; see `max_unpool1d`."""
    return _back("max_unpool2d", input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """The same of [N, C, D, H, W] or [C, D, H, W]; see `max_unpool1d`."""
    return _back("max_unpool3d", input, indices, kernel_size, stride, padding, output_size)
