"""softmax, log_softmax and softmin."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import neurokern.functional as F
import torch
from neurokern import nn
from neurokern.testing.spec import BadCall, Draw, Maker, OpSpec, Sample
from torch import Tensor

from ._inputs import drawn_input, elementwise_bytes

TF = torch.nn.functional


def softmax_samples(make: Maker) -> Iterator[Sample]:
    inf = math.inf
    yield Sample("rows of an odd size", (make(37, 53, scale=3), -1), chosen=True)
    yield Sample("columns", (make(53, 37, scale=3), 0), chosen=True)
    yield Sample("a dimension in the middle", (make(3, 11, 7, scale=3), 1))
    yield Sample("channels of an image", (make(2, 5, 6, 4), -3))
    yield Sample("transposed: rows are strided in memory", (make(19, 31, scale=3).t(), -1))
    yield Sample(
        "channels are contiguous in memory, the output's are not",
        (make(2, 18, 5, 4, scale=3).to(memory_format=torch.channels_last), 1),
    )
    yield Sample("every other element of a row", (make(7, 2 * 33, scale=3)[:, ::2], 1))
    yield Sample("one long row", (make(1, 5003, scale=4), -1), chosen=True)
    yield Sample("rows of one element", (make(9, 1), -1))
    yield Sample("a vector", (make(129, scale=2), 0))
    yield Sample("0-d", (make(), 0))
    yield Sample("0-d, counted from the end", (make(), -1))
    yield Sample("no rows", (make(0, 5), -1))
    yield Sample("rows of nothing", (make(4, 0), -1))
    yield Sample("large scores: exp overflows unless shifted", (make(23, 41, scale=200) + 300, -1))
    yield Sample("masked scores", (make.values(1, -inf, 2, -inf, 0.5, -inf, -inf, -inf, 3, 3, 3, 3).view(3, 4), -1))
    yield Sample("a row masked out wholly is NaN", (make.values(-inf, -inf, -inf, 1, 2, 3).view(2, 3), -1))
    ends = make.values(inf, 1, 2, math.nan, 1, 2, 0, 1, 2).view(3, 3)
    yield Sample("infinity and NaN in a row", (ends, -1), chosen=True)
    yield Sample("the same, along columns", (make.values(inf, 1, 2, math.nan, 1, 2, 0, 1, 2, 5, 5, -inf).view(3, 4), 0))
    yield Sample("all equal", (make.values(*[7.0] * 40).view(4, 10), -1))
    yield Sample("long enough for every thread", (make(96, 2051, scale=2), -1), heavy=True)
    yield Sample("columns for every thread", (make(257, 1500, scale=2), 0), heavy=True)


def softmax_smooth(make: Maker) -> Iterator[Sample]:
    yield Sample("rows", (make(3, 7), -1))
    yield Sample("a dimension in the middle", (make(2, 4, 3), 1))


def softmax_bad(make: Maker) -> Iterator[BadCall]:
    yield BadCall("a list for a tensor", ([1.0, 2.0], 0), says=("input", "list"), raises=None)
    yield BadCall("dim past the end", (make(2, 3), 2), says=("dim", "2"))
    yield BadCall("dim before the start", (make(2, 3), -3), says=("dim", "-3"))
    yield BadCall("dim of a 0-d tensor", (make(), 1), says=("dim", "1"))
    yield BadCall("dim is a word", (make(2, 3), "rows"), says=("dim",))


def softmax_drawn(make: Maker, draw: Draw) -> Sample:
    x = drawn_input(make, draw, 1)
    return Sample("drawn", (x, draw.integer(-x.dim(), x.dim() - 1)))


def softmax_scale(sample: Sample, g: tuple[Tensor, ...], reference: Any, kind: str) -> list[Tensor] | None:
    """Sizes of the terms: an error of the shifted score x is one of exp(x) times |x|; the gradient subtracts a sum."""
    if len(reference) > 2:
        return None
    x, dim = sample.args
    if not x.numel():
        return [x, x]
    x = -x if kind == "softmin" else x
    top = x.amax(dim, keepdim=True)
    y, spread = x.softmax(dim), (1 + (x - top).abs()).nan_to_num(1.0, 1.0)
    size = g[0].abs()
    if kind == "log_softmax":
        return [x.abs() + top.abs() + spread, size + y * spread * size.sum(dim, keepdim=True)]
    return [y * spread, y * spread * (size + (size * y * spread).sum(dim, keepdim=True))]


def exact_softmax(x: Tensor, dim: int, kind: str) -> Tensor:
    """From sums that torch adds up in cascades: those of its softmax run in a few long chains, and in float64 they
    would be the reference."""
    if not x.numel():
        return x * 1
    x = -x if kind == "softmin" else x
    top = x.detach().amax(dim, keepdim=True)
    shifted = x - torch.where(top == -math.inf, 0.0, top)
    e = shifted.exp()
    total = e.sum(dim, keepdim=True)
    return shifted - total.log() if kind == "log_softmax" else e / total


def softmax_spec(name: str, reference: Callable[..., Tensor], cls: str) -> OpSpec:
    def layer(make: Maker) -> tuple[torch.nn.Module, torch.nn.Module, tuple[Any, ...]]:
        return getattr(nn, cls)(1), getattr(torch.nn, cls)(1), (make(3, 5, 7, scale=3),)

    return OpSpec(
        name=name,
        family="softmax",
        op=getattr(F, name),
        torch=reference,
        exact=partial(exact_softmax, kind=name),
        samples=softmax_samples,
        smooth=softmax_smooth,
        drawn=softmax_drawn,
        bench=lambda make, rows, columns: Sample(f"{rows} rows of {columns}", (make(rows, columns, scale=2), -1)),
        bytes=elementwise_bytes,
        registered=("softmax", "softmax_backward"),
        scale=partial(softmax_scale, kind=name),
        bad=softmax_bad,
        layer=layer,
    )


SPECS: tuple[OpSpec, ...] = (
    softmax_spec("softmax", TF.softmax, "Softmax"),
    softmax_spec("log_softmax", TF.log_softmax, "LogSoftmax"),
    softmax_spec("softmin", TF.softmin, "Softmin"),
)
