"""Gated units: the part of activation that is not one element in, one element out."""

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

from . import _exact as exact
from ._inputs import Called, away, drawn_input, elementwise_bytes

TF = torch.nn.functional


def torch_gated(act: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    def f(x: Tensor, dim: int = -1, **kw: Any) -> Tensor:
        a, b = x.chunk(2, dim)
        return act(a, **kw) * b

    return f


def exact_glu(x: Tensor, dim: int = -1) -> Tensor:
    a, b = x.chunk(2, dim)
    return a * exact.sigmoid(b)


def gated_samples(make: Maker, kwargs: dict[str, Any]) -> Iterator[Sample]:
    yield Sample("odd halves along the last dimension", (make(65, 2 * 37, scale=2),), kwargs, chosen=True)
    yield Sample("halves along the first dimension", (make(6, 11, scale=2),), {"dim": 0, **kwargs})
    yield Sample("channels of an image", (make(2, 6, 5, 3),), {"dim": 1, **kwargs})
    yield Sample("a vector", (make(258, scale=3),), kwargs)
    yield Sample("two elements", (make(2),), kwargs)
    yield Sample("transposed", (make(14, 9).t(),), kwargs)
    yield Sample("every other row", (make(12, 10)[::2],), {"dim": -2, **kwargs})
    yield Sample("a half of nothing", (make(3, 0),), kwargs)
    yield Sample("no rows", (make(0, 4),), kwargs)
    ends = make.values(0.0, -0.0, math.inf, -math.inf, math.nan, 80, -80, 1e4, -1e4).repeat(5)
    plain = make(45).abs() + 0.5
    first = {"dim": 0, **kwargs}
    yield Sample("zeros, infinities and NaN in the first half", (torch.cat((ends, plain)),), first, chosen=True)
    yield Sample("the same in the second half", (torch.cat((plain, ends)),), first)
    yield Sample("long enough for every thread", (make(64, 4096, scale=2),), kwargs, heavy=True)


def gated_smooth(make: Maker, kwargs: dict[str, Any]) -> Iterator[Sample]:
    yield Sample("away from kinks", (away(make(3, 8), (0.0,)),), kwargs)
    yield Sample("along a middle dimension", (away(make(2, 4, 3), (0.0,)),), {"dim": 1, **kwargs})


def gated_bad(make: Maker) -> Iterator[BadCall]:
    # the types that torch's glu raises
    yield BadCall("a list for a tensor", ([1.0, 2.0],), says=("input", "list"), raises=TypeError)
    yield BadCall("0-d input has no halves", (make(),), says=("input", "[]"), raises=RuntimeError)
    yield BadCall("an odd size has no halves", (make(2, 3),), says=("input", "[2, 3]"), raises=RuntimeError)
    yield BadCall("dim past the end", (make(2, 4), 2), says=("dim", "2"), raises=IndexError)
    yield BadCall("dim before the start", (make(2, 4), -3), says=("dim", "-3"), raises=IndexError)


def gated_drawn(make: Maker, draw: Draw, kwargs: dict[str, Any]) -> Sample:
    dim = draw.choice((0, -1))
    return Sample("drawn", (drawn_input(make, draw, 1, dim),), {"dim": dim, **kwargs})


def gated_spec(
    name: str,
    reference: Callable[..., Tensor],
    accurate: Callable[..., Tensor] | None,
    cls: str,
    variant: str = "",
    kwargs: dict[str, Any] | None = None,
) -> OpSpec:
    kw = kwargs or {}

    def layer(make: Maker) -> tuple[torch.nn.Module, torch.nn.Module, tuple[Any, ...]]:
        theirs = torch.nn.GLU() if cls == "GLU" else Called(partial(reference, **kw))
        return getattr(nn, cls)(**kw), theirs, (make(3, 5, 8),)

    return OpSpec(
        name=name,
        variant=variant,
        family="activation",
        op=getattr(F, name),
        torch=reference,
        exact=accurate,
        scale="smooth" if accurate else "magnitude",
        samples=partial(gated_samples, kwargs=kw),
        smooth=partial(gated_smooth, kwargs=kw),
        drawn=partial(gated_drawn, kwargs=kw),
        bench=lambda make, n: Sample(f"{n} outputs", (make(n // 1024 or 1, 2 * min(n, 1024)),), kw),
        bytes=lambda s: elementwise_bytes(s, 1) * 1.5,
        registered=("glu", "glu_backward", "unary", "unary_backward", "unary_gradient", "unary_backward2"),
        bad=gated_bad,
        layer=layer,
    )


SPECS: tuple[OpSpec, ...] = (
    gated_spec("glu", TF.glu, exact_glu, "GLU"),
    gated_spec("swiglu", torch_gated(TF.silu), torch_gated(exact.silu), "SwiGLU"),
    gated_spec("geglu", torch_gated(TF.gelu), torch_gated(exact.gelu), "GeGLU"),
    gated_spec("geglu", torch_gated(TF.gelu), torch_gated(exact.gelu), "GeGLU", "tanh", {"approximate": "tanh"}),
    gated_spec("reglu", torch_gated(TF.relu), None, "ReGLU"),
)
