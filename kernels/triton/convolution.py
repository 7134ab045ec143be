"""Convolutions as implicit products: forward, data gradient, weight gradient and the sums of channels.

All tensors have five dims, [images, channels, depth, height, width]; weights [o, c / groups, depth, height, width].
Outputs first, allocated by the caller; any strides, nothing copied.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ._common import Record, accumulator, blocks, device_of, fold, launch, power_of_two
from ._convolution import (
    direct_kernel,
    direct_weight_kernel,
    fold_padding_kernel,
    gather_kernel,
    product_kernel,
    sums_kernel,
    weight_kernel,
)
from ._functions import ACTIVATIONS
from .matmul import Plan, Problem, config

MODES = {"zeros": 0, "reflect": 1, "replicate": 2, "circular": 3}


@dataclass(frozen=True)
class Geometry:
    """A convolution of tensors of five dims, as csrc/convolution/problem.h has it."""

    stride: tuple[int, ...]
    before: tuple[int, ...]
    behind: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    mode: str = "zeros"


def _precision(t: Tensor, tf32: bool | None) -> str:
    allowed = torch.backends.cudnn.conv.fp32_precision == "tf32" if tf32 is None else tf32
    return "tf32" if allowed and t.dtype == torch.float32 else "ieee"


def _wide(*tensors: Tensor | None) -> bool:
    reach = [sum((n - 1) * abs(s) for n, s in zip(t.shape, t.stride(), strict=True)) for t in tensors if t is not None]
    return max([*reach, *(t.numel() for t in tensors if t is not None)]) + 4096 >= 2**31


def _vectors(t: Tensor) -> bool:
    """Whether a group's channels of neighboring positions can be read in vectors."""
    others = (s for i, s in enumerate(t.stride()) if i != 1)
    return t.stride(1) == 1 and t.data_ptr() % 16 == 0 and all(s % 16 == 0 for s in others)


def _plan(p: Problem, t: Tensor, longest_k: int) -> Plan:
    """matmul's tile for the product, whose steps are no longer than what lies along k at once.

    Positions take registers beside the sums and the addresses: steps of single elements are shorter than matmul's, and
    tiles in f64 are its smallest.
    """
    plan = config(p, device_of(t))
    if p.dtype == torch.float64:
        plan = replace(plan, block_m=16, block_n=32, block_k=32, warps=8)
    least = 32 if plan.precision == "tf32" else 16
    k = min(plan.block_k, max(least, power_of_two(longest_k)))
    while not p.aligned and k > least and (plan.block_m + plan.block_n) * k > 24 * 32 * plan.warps:
        k //= 2
    return replace(plan, block_k=k)


def _tile(plan: Plan, m: str, n: str, k: str) -> dict[str, object]:
    return {
        f"BLOCK_{m}": plan.block_m, f"BLOCK_{n}": plan.block_n, f"BLOCK_{k}": plan.block_k,
        "PRECISION": plan.precision, "num_warps": plan.warps, "num_stages": plan.stages,
    }  # fmt: skip


def _strides(t: Tensor | None) -> tuple[int, ...]:
    return (0,) * 5 if t is None else t.stride()


def _run(
    op: tuple[Tensor, Tensor, Tensor], rows: int, channels: int, w_row: int, w_channel: int, w_group: int,
    w_first: int, w_step: tuple[int, ...], taps: tuple[int, ...], a: tuple[int, ...], b: tuple[int, ...],
    c: tuple[int, ...], groups: int, mode: str, bias: Tensor | None, residual: Tensor | None, preact: Tensor | None,
    act: int, p0: float, p1: float, tf32: bool | None, record: Record | None,
) -> None:  # fmt: skip
    """One launch: ``rows`` channels of each group of ``out``, from ``channels`` of each group of ``x``."""
    out, x, weight = op
    sizes = out.shape[2:]
    M = out.shape[0] * math.prod(sizes)
    if M == 0 or rows == 0:
        return
    name, f, _, _, _ = ACTIVATIONS[act]
    K = channels * math.prod(taps)
    direct = K == 0 or channels < 8 or (groups > 1 and rows < 8)
    columns = rows * groups if direct else rows
    if direct:
        block_n = max(16, min(64, power_of_two(columns)))
        block_m = max(16, min(1024 // block_n, power_of_two(M)))
        meta: dict[str, object] = {"BLOCK_M": block_m, "BLOCK_N": block_n, "num_warps": 4}
        tile = f"tile={block_m}x{block_n}"
    else:
        vectors = _vectors(x) and channels % 16 == 0 and 1 in (w_row, w_channel)
        plain = act == 0 and residual is None and preact is None
        plan = _plan(Problem(M, rows, K, groups, x.dtype, _precision(x, tf32), vectors, plain, True), out, channels)
        block_m, block_n, tile = plan.block_m, plan.block_n, str(plan)
        # addresses of single elements and numbers of 64 bits leave an activation fewer registers
        columns_at_once = plan.meta()["COLUMNS"] if vectors and out.dtype != torch.float64 else 16
        meta = {**_tile(plan, "M", "N", "K"), "COLUMNS": columns_at_once}
    launch(
        direct_kernel if direct else product_kernel,
        blocks(M, block_m) * blocks(columns, block_n) * (1 if direct else groups),
        (
            out, x, weight, bias, residual, preact, float(p0), float(p1), M, rows, channels, groups,
            tuple(sizes), taps, tuple(x.shape[2:]), a, b, c, x.stride(), out.stride(), _strides(residual),
            _strides(preact), w_row, w_channel, w_group, w_first, w_step, 0 if bias is None else bias.stride(0),
        ),
        {**meta, "F": f, "MODE": MODES[mode], "WIDE": _wide(out, x, weight, bias, residual, preact)},
        f"{name} M={M} N={columns} K={channels}x{math.prod(taps)} {tile}",
        out,
        record,
    )  # fmt: skip


def forward(
    out: Tensor, x: Tensor, weight: Tensor, g: Geometry, bias: Tensor | None = None, residual: Tensor | None = None,
    preact: Tensor | None = None, act: int = 0, p0: float = 0.0, p1: float = 0.0,
    *, tf32: bool | None = None, record: Record | None = None,
) -> None:  # fmt: skip
    """out = f(x * weight + bias) + residual; preact receives what f is of."""
    rows, channels = weight.shape[0] // g.groups, weight.shape[1]
    w = weight.stride()
    _run(
        (out, x, weight), rows, channels, w[0], w[1], rows * w[0], 0, w[2:], tuple(weight.shape[2:]), g.stride,
        tuple(-p for p in g.before), g.dilation, g.groups, g.mode, bias, residual, preact, act, p0, p1, tf32, record,
    )  # fmt: skip


def _phase(g: Geometry, k: int, taps: int, first: int) -> tuple[int, int, int, int, int]:
    """(taps, first tap, step of taps, B, C) of the positions first, first + stride, ... of an image."""
    s, d = g.stride[k], g.dilation[k]
    mine = [t for t in range(taps) if (first + g.before[k] - t * d) % s == 0]
    if not mine:
        return 0, 0, 0, 0, 0
    step = mine[1] - mine[0] if len(mine) > 1 else 1
    return len(mine), mine[0], step, (first + g.before[k] - mine[0] * d) // s, -(step * d // s)


def data_gradient(
    image: Tensor, result: Tensor, weight: Tensor, g: Geometry, bias: Tensor | None = None,
    *, tf32: bool | None = None, record: Record | None = None,
) -> None:  # fmt: skip
    """image = result * weight, the transpose of the convolution, + bias: a launch for each phase of the strides."""
    if g.mode != "zeros" and any(g.before + g.behind):
        return _folded(image, result, weight, g, tf32, record)
    channels, rows = weight.shape[0] // g.groups, weight.shape[1]
    w = weight.stride()
    for first in itertools.product(*(range(min(s, n)) for s, n in zip(g.stride, image.shape[2:], strict=True))):
        phases = [_phase(g, k, weight.shape[2 + k], first[k]) for k in range(3)]
        count, tap, step, b, c = (tuple(p[i] for p in phases) for i in range(5))
        out = image[(slice(None), slice(None), *(slice(f, None, s) for f, s in zip(first, g.stride, strict=True)))]
        _run(
            (out, result, weight), rows, channels, w[1], w[0], channels * w[0],
            sum(t * s for t, s in zip(tap, w[2:], strict=True)),
            tuple(s * t for s, t in zip(step, w[2:], strict=True)), count, (1, 1, 1), b, c, g.groups, "zeros", bias,
            None, None, 0, 0.0, 0.0, tf32, record,
        )  # fmt: skip


def _folded(
    image: Tensor, result: Tensor, weight: Tensor, g: Geometry, tf32: bool | None, record: Record | None
) -> None:
    """The gradient of one padded image after the other, and of each the sums of what reads the same pixel."""
    sizes = image.shape[2:]
    shape = [n + a + b for n, a, b in zip(sizes, g.before, g.behind, strict=True)]
    padded = torch.empty((1, image.shape[1], *shape), dtype=accumulator(image), device=image.device)
    plain = Geometry(g.stride, (0, 0, 0), (0, 0, 0), g.dilation, g.groups)
    many = tuple(
        (1 + a + b if g.mode == "replicate" else 3) if a + b else 1 for a, b in zip(g.before, g.behind, strict=True)
    )
    for n in range(image.shape[0]):
        data_gradient(padded, result[n : n + 1], weight, plain, tf32=tf32, record=record)
        out = image[n : n + 1]
        M, C = math.prod(sizes), image.shape[1]
        launch(
            fold_padding_kernel,
            blocks(M * C, 256),
            (out, padded, M, C, tuple(sizes), g.before, g.behind, many, out.stride(), padded.stride()),
            {"MODE": MODES[g.mode], "BLOCK": 256, "num_warps": 4},
            f"{g.mode} {M}x{C}",
            out,
            record,
        )


def weight_gradient(
    gw: Tensor, x: Tensor, result: Tensor, g: Geometry, *, tf32: bool | None = None, record: Record | None = None
) -> None:
    """gw = the sums over positions of result times image; chunks of positions are added in order."""
    sizes, taps = tuple(result.shape[2:]), tuple(gw.shape[2:])
    M = result.shape[0] * math.prod(sizes)
    rows, C = gw.shape[0] // g.groups, gw.shape[1]
    if gw.numel() == 0:
        return
    if M == 0:
        gw.zero_()
        return
    direct = g.groups > 1 and min(rows, C) < 8
    kernel, device, count = (direct_weight_kernel if direct else weight_kernel), device_of(gw), math.prod(taps)
    if direct:
        block_o = max(16, min(64, power_of_two(gw.shape[0])))
        step = max(16, min(1024 // block_o, power_of_two(M)))
        tiles, tile = blocks(gw.shape[0], block_o) * C * count, f"tile={block_o}x{step}"
        meta: dict[str, object] = {"BLOCK_O": block_o, "BLOCK_M": step, "num_warps": 4}
    else:
        vectors = _vectors(x) and _vectors(result) and C % 16 == 0 and rows % 16 == 0
        problem = Problem(rows, C, M, g.groups * count, x.dtype, _precision(x, tf32), vectors)
        plan = _plan(problem, gw, M)
        step, meta, tile = plan.block_k, _tile(plan, "O", "C", "M"), str(plan)
        tiles = blocks(rows, plan.block_m) * blocks(C, plan.block_n) * g.groups * count
    steps = blocks(M, step)
    per = blocks(steps, max(1, min(steps, blocks(2 * device.multiprocessors, tiles))))
    chunks = blocks(steps, per)
    partial = torch.empty((chunks, gw.numel()), dtype=accumulator(gw), device=gw.device)
    launch(
        kernel,
        tiles * chunks,
        (
            partial, x, result, M, per * step, rows, C, g.groups, sizes, taps, tuple(x.shape[2:]), g.stride,
            tuple(-p for p in g.before), g.dilation, x.stride(), result.stride(),
        ),
        {**meta, "MODE": MODES[g.mode], "WIDE": _wide(x, result)},
        f"O={rows} C={C} taps={count} M={M} chunks={chunks} {tile}",
        gw,
        record,
    )  # fmt: skip
    launch(
        gather_kernel,
        blocks(gw.numel(), 256),
        (gw, partial, gw.numel(), chunks, C, taps, gw.stride()),
        {"BLOCK": 256, "num_warps": 4},
        f"chunks={chunks}",
        gw,
        record,
    )


def channel_sums(sums: Tensor, g: Tensor, *, record: Record | None = None) -> None:
    """sums[c] = the sum of all positions of g's channel c."""
    sizes, C = tuple(g.shape[2:]), g.shape[1]
    M = g.shape[0] * math.prod(sizes)
    if M == 0:
        sums.zero_()
        return
    block_c = max(1, min(32, power_of_two(C)))
    block_m = 1024 // block_c
    steps = blocks(M, block_m)
    per = blocks(steps, max(1, min(steps, blocks(2 * device_of(g).multiprocessors, blocks(C, block_c)))))
    chunks = blocks(steps, per)
    partial = torch.empty((chunks, C), dtype=accumulator(g), device=g.device)
    launch(
        sums_kernel,
        chunks * blocks(C, block_c),
        (partial, g, M, per * block_m, C, sizes, g.stride()),
        {"WIDE": _wide(g), "BLOCK_M": block_m, "BLOCK_C": block_c, "num_warps": 4},
        f"M={M} C={C} chunks={chunks}",
        g,
        record,
    )
    fold(sums, partial, record)
