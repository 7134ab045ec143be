"""Elementwise activations, gated units and PReLU: arguments as in the ``_C`` functions of the same names.

Tensors are torch tensors on one CUDA device, or on the CPU under TRITON_INTERPRET=1; outputs come first and are
allocated by the caller. Any strides, nothing is copied. ``act`` is an id of kernels/activation.h, p0 and p1 its
parameters. ``record(kernel name, plan)`` is called before each launch; empty tensors launch nothing.
"""

from __future__ import annotations

import torch

import triton
import triton.language as tl

from ._common import (
    Record,
    accumulator,
    blocks,
    collapse,
    columns,
    device_of,
    elementwise,
    fold,
    index,
    launch,
    load,
    offset,
    store,
    times,
)
from ._functions import ACTIVATIONS, OF_OUTPUT

# Lengths and strides take part in no specialisation: a kernel is compiled once per activation, type and form. Where
# the length n is a multiple of 16 it comes divided by it (EVEN), so that the mask does not stop vector loads.
_SHAPES = ["n", "sizes", "s0", "s1", "s2", "s3", "s4"]


@triton.jit
def chain(g, d, SELECT: tl.constexpr):
    """g * d; with SELECT zero where d is zero, whatever g."""
    if SELECT:
        return tl.where(d == 0, 0.0, g * d)
    else:
        return g * d


@triton.jit(do_not_specialize=_SHAPES)
def unary_kernel(
    out, x, p0: tl.float64, p1: tl.float64, n, sizes, s0, s1,
    F: tl.constexpr, UNIT: tl.constexpr, EVEN: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out = f(x)."""
    i = index(tl.program_id(0), BLOCK, WIDE)
    live = i < times(n, EVEN, i.dtype)
    v = load(x, offset(i, sizes, s1, UNIT), live)
    y = F(v, tl.full((), p0, v.dtype), tl.full((), p1, v.dtype))
    store(out, offset(i, sizes, s0, UNIT), y, live)


@triton.jit(do_not_specialize=_SHAPES)
def unary_backward_kernel(
    out, g, x, p0: tl.float64, p1: tl.float64, n, sizes, s0, s1, s2,
    D: tl.constexpr, SELECT: tl.constexpr,
    UNIT: tl.constexpr, EVEN: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out = g f'(x)."""
    i = index(tl.program_id(0), BLOCK, WIDE)
    live = i < times(n, EVEN, i.dtype)
    u = load(g, offset(i, sizes, s1, UNIT), live)
    v = load(x, offset(i, sizes, s2, UNIT), live)
    d = D(v, tl.full((), p0, v.dtype), tl.full((), p1, v.dtype))
    store(out, offset(i, sizes, s0, UNIT), chain(u, d, SELECT), live)


@triton.jit(do_not_specialize=_SHAPES)
def unary_backward2_kernel(
    out, gg, g, x, p0: tl.float64, p1: tl.float64, n, sizes, s0, s1, s2, s3,
    DD: tl.constexpr, SELECT: tl.constexpr,
    UNIT: tl.constexpr, EVEN: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out = gg g f''(x)."""
    i = index(tl.program_id(0), BLOCK, WIDE)
    live = i < times(n, EVEN, i.dtype)
    t = load(gg, offset(i, sizes, s1, UNIT), live)
    u = load(g, offset(i, sizes, s2, UNIT), live)
    v = load(x, offset(i, sizes, s3, UNIT), live)
    d = DD(v, tl.full((), p0, v.dtype), tl.full((), p1, v.dtype))
    store(out, offset(i, sizes, s0, UNIT), chain(t * u, d, SELECT), live)


@triton.jit(do_not_specialize=_SHAPES)
def gated_kernel(
    out, a, b, p0: tl.float64, p1: tl.float64, n, sizes, s0, s1, s2,
    F: tl.constexpr, UNIT: tl.constexpr, EVEN: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out = f(a) b."""
    i = index(tl.program_id(0), BLOCK, WIDE)
    live = i < times(n, EVEN, i.dtype)
    v = load(a, offset(i, sizes, s1, UNIT), live)
    w = load(b, offset(i, sizes, s2, UNIT), live)
    y = F(v, tl.full((), p0, v.dtype), tl.full((), p1, v.dtype))
    store(out, offset(i, sizes, s0, UNIT), y * w, live)


@triton.jit(do_not_specialize=_SHAPES)
def gated_backward_kernel(
    ga, gb, g, a, b, p0: tl.float64, p1: tl.float64, n, sizes, s0, s1, s2, s3, s4,
    F: tl.constexpr, D: tl.constexpr, SELECT: tl.constexpr,
    UNIT: tl.constexpr, EVEN: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """ga = g b f'(a), gb = g f(a)."""
    i = index(tl.program_id(0), BLOCK, WIDE)
    live = i < times(n, EVEN, i.dtype)
    u = load(g, offset(i, sizes, s2, UNIT), live)
    v = load(a, offset(i, sizes, s3, UNIT), live)
    w = load(b, offset(i, sizes, s4, UNIT), live)
    q0 = tl.full((), p0, v.dtype)
    q1 = tl.full((), p1, v.dtype)
    store(ga, offset(i, sizes, s0, UNIT), chain(u * w, D(v, q0, q1), SELECT), live)
    store(gb, offset(i, sizes, s1, UNIT), u * F(v, q0, q1), live)


@triton.jit(do_not_specialize=_SHAPES)
def prelu_kernel(
    out, x, w, n, sizes, s0, s1, s2,
    UNIT: tl.constexpr, EVEN: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out = x where x > 0, else w x."""
    i = index(tl.program_id(0), BLOCK, WIDE)
    live = i < times(n, EVEN, i.dtype)
    v = load(x, offset(i, sizes, s1, UNIT), live)
    k = load(w, offset(i, sizes, s2, UNIT), live)
    store(out, offset(i, sizes, s0, UNIT), tl.where(v > 0, v, k * v), live)


@triton.jit(do_not_specialize=_SHAPES)
def prelu_backward_kernel(
    gx, g, x, w, n, sizes, s0, s1, s2, s3,
    UNIT: tl.constexpr, EVEN: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """gx = g where x > 0, else w g."""
    i = index(tl.program_id(0), BLOCK, WIDE)
    live = i < times(n, EVEN, i.dtype)
    u = load(g, offset(i, sizes, s1, UNIT), live)
    v = load(x, offset(i, sizes, s2, UNIT), live)
    k = load(w, offset(i, sizes, s3, UNIT), live)
    store(gx, offset(i, sizes, s0, UNIT), tl.where(v > 0, u, k * u), live)


@triton.jit(do_not_specialize=["n", "cols", "rows", "sizes", "s0", "s1", "s2", "s3", "c0", "c1", "c2", "c3"])
def prelu_backward_columns_kernel(
    gx, partial, g, x, w, n, cols, rows, sizes, s0, s1, s2, s3, c0, c1, c2, c3,
    WIDE: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """The same, and partial[chunk, c] = the chunk's sum of g x where not x > 0.

    A tile is BLOCK_R elements of the joined other dimensions by BLOCK_C channels; s and c are the strides over
    either. Each lane adds up its own column of tiles, lanes are added at the end: the order is fixed.
    """
    groups = tl.cdiv(cols, BLOCK_C)
    chunk = tl.program_id(0) // groups
    c = index(tl.program_id(0) % groups, BLOCK_C, WIDE)
    acc = tl.zeros((BLOCK_R, BLOCK_C), partial.dtype.element_ty)
    for step in range(tl.cdiv(rows, BLOCK_R)):
        r = index(chunk * tl.cdiv(rows, BLOCK_R) + step, BLOCK_R, WIDE)
        mask = (r < n)[:, None] & (c < cols)[None, :]
        u = load(g, offset(r, sizes, s1, 1)[:, None] + (c * c1)[None, :], mask)
        v = load(x, offset(r, sizes, s2, 1)[:, None] + (c * c2)[None, :], mask)
        k = load(w, offset(r, sizes, s3, 1)[:, None] + (c * c3)[None, :], mask)
        store(gx, offset(r, sizes, s0, 1)[:, None] + (c * c0)[None, :], tl.where(v > 0, u, k * u), mask)
        acc += tl.where(v > 0, 0.0, u * v)
    tl.store(partial + chunk.to(tl.int64) * cols + c, tl.sum(acc, axis=0), mask=c < cols)


def _run(kernel, operands, before, meta, record, label=""):
    """Plan and launch an elementwise kernel; ``operands`` output first, ``before`` the scalars behind them."""
    out = operands[0]
    if out.numel() == 0:
        return
    device_of(out)
    plan = elementwise(out.shape, *(t.stride() for t in operands))
    args = (*operands, *before, plan.count // plan.even, plan.sizes, *plan.strides)
    launch(kernel, plan.grid, args, {**plan.meta(), **meta}, f"{label}{plan}", out, record)


def unary(out, x, act: int, p0: float, p1: float, *, record: Record | None = None) -> None:
    """out = f(x); ``out`` may be ``x``."""
    name, f, _, _, _ = ACTIVATIONS[act]
    _run(unary_kernel, (out, x), (float(p0), float(p1)), {"F": f}, record, f"{name} ")


def unary_backward(
    out, g, x, act: int, p0: float, p1: float, *, from_output: bool = False, record: Record | None = None
) -> None:
    """out = g f'(x); from_output: x is f's output."""
    name, _, d, _, select = ACTIVATIONS[act]
    if from_output:
        d = OF_OUTPUT.get(name, (d,))[0]
    meta = {"D": d, "SELECT": select}
    _run(unary_backward_kernel, (out, g, x), (float(p0), float(p1)), meta, record, f"{name} ")


def unary_backward2(
    out, gg, g, x, act: int, p0: float, p1: float, *, from_output: bool = False, record: Record | None = None
) -> None:
    """out = gg g f''(x); from_output: x is f's output."""
    name, _, _, dd, select = ACTIVATIONS[act]
    if from_output and name in OF_OUTPUT:
        dd = OF_OUTPUT[name][1]
    # Where f'' is zero throughout, torch has no graph left and answers zero.
    meta = {"DD": dd, "SELECT": select or name in ("identity", "leaky_relu")}
    _run(unary_backward2_kernel, (out, gg, g, x), (float(p0), float(p1)), meta, record, f"{name} ")


def gated(out, a, b, act: int, p0: float, p1: float, *, record: Record | None = None) -> None:
    """out = f(a) b."""
    name, f, _, _, _ = ACTIVATIONS[act]
    _run(gated_kernel, (out, a, b), (float(p0), float(p1)), {"F": f}, record, f"{name} ")


def gated_backward(ga, gb, g, a, b, act: int, p0: float, p1: float, *, record: Record | None = None) -> None:
    """ga = g b f'(a), gb = g f(a)."""
    name, f, d, _, select = ACTIVATIONS[act]
    meta = {"F": f, "D": d, "SELECT": select}
    _run(gated_backward_kernel, (ga, gb, g, a, b), (float(p0), float(p1)), meta, record, f"{name} ")


def prelu(out, x, w, *, record: Record | None = None) -> None:
    """out = x where x > 0, else w x; ``w`` expanded to x's shape."""
    _run(prelu_kernel, (out, x, w), (), {}, record)


def prelu_backward(gx, gw, g, x, w, *, record: Record | None = None) -> None:
    """gx = g where x > 0, else w g; gw [x.size(1)] or [1], if given, the sums of g x where not x > 0."""
    if gw is None:
        _run(prelu_backward_kernel, (gx, g, x, w), (), {}, record)
        return
    gw = gw.reshape(-1) if gw.dim() == 0 else gw
    if gx.numel() == 0:
        gw.zero_()
        return
    device = device_of(gx)
    tensors = (gx, g, x, w)
    cols = gw.numel()
    # One weight: every dimension is summed over.
    channel = 1 if cols > 1 else None
    rest = [d for d in range(x.dim()) if d != channel]
    layout = collapse([x.shape[d] for d in rest], *([t.stride(d) for d in rest] for t in tensors))
    across = [0 if channel is None else t.stride(channel) for t in tensors]
    n = layout.count
    along_rows = cols == 1 or (bool(layout.sizes) and layout.strides[2][0] < across[2])
    plan = columns(n, cols, along_rows, device)
    reach = layout.reach + (cols + 64) * max(across)
    wide = max(reach, n + 1024, cols + 64) >= 2**31
    partial = torch.empty((plan.chunks, cols), dtype=accumulator(x), device=x.device)
    sizes, strides = (layout.sizes, layout.strides) if layout.sizes else ((1,), ((0,),) * 4)
    launch(
        prelu_backward_columns_kernel,
        plan.chunks * blocks(cols, plan.block_c),
        (gx, partial, g, x, w, n, cols, plan.rows, sizes, *strides, *across),
        {**plan.meta(), "WIDE": wide},
        plan,
        gx,
        record,
    )
    fold(gw, partial, record)
