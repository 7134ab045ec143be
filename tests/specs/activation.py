"""Elementwise activations, PReLU and RReLU; the gated units come from _gated.py."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import neurokern.functional as F
import torch
from neurokern import nn
from neurokern.ops import activation as ops
from neurokern.testing.spec import BadCall, Draw, Maker, OpSpec, Sample
from torch import Tensor

from . import _exact as exact
from . import _gated as gated
from ._exact import EXACT
from ._inputs import Called, away, drawn_input, edges, elementwise_bytes

TF = torch.nn.functional


def unary_samples(make: Maker, variants: tuple[dict[str, Any], ...], points: Callable[..., tuple]) -> Iterator[Sample]:
    first = variants[0]
    for kw in variants:
        chosen = kw is first
        yield Sample(f"a prime number of elements, parameters {kw}", (make(1031, scale=3),), kw, chosen=chosen)
        yield Sample(f"edges, with parameters {kw}", (edges(make, points(**kw)),), kw, alone=True, chosen=chosen)
    top = 15 if make.dtype == torch.float16 else 26
    yield Sample(
        "magnitudes from the nearly vanishing to the huge",
        (make.magnitudes(2003, -14 if top == 15 else -40, top),),
        first,
        chosen=True,
    )
    yield Sample("where exponentials die out", (make(1500, low=-110, high=110),), first, chosen=True)
    yield Sample("0-d", (make(),), first)
    yield Sample("one element", (make(1, 1),), first)
    yield Sample("empty", (make(0),), first)
    yield Sample("empty with sizes around the 0", (make(3, 0, 2),), first)
    yield Sample("five dimensions", (make(2, 3, 1, 4, 5, scale=2),), first)
    yield Sample("transposed, so that rows are not contiguous", (make(37, 29, scale=2).t(),), first)
    yield Sample("long enough for every thread", (make(150_001, scale=2),), first, heavy=True)


def smooth_samples(make: Maker, variants: tuple[dict[str, Any], ...], points: Callable[..., tuple]) -> Iterator[Sample]:
    for kw in variants:
        yield Sample(f"away from kinks, parameters {kw}", (away(make(3, 11, scale=2), points(**kw)),), kw)


@dataclass(frozen=True)
class Row:
    """An elementwise activation: its parameters to try and its points without derivative."""

    act: str
    torch: Callable[..., Tensor]
    cls: str = ""
    op: Callable[..., Tensor] | None = None
    name: str = ""
    variant: str = ""
    variants: tuple[dict[str, Any], ...] = ({},)
    points: Callable[..., tuple[float, ...]] = lambda **_: ()
    inplace: bool = False
    bad: tuple[BadCall, ...] = ()
    layer_kwargs: dict[str, Any] = field(default_factory=dict)


def squared_relu(x: Tensor, inplace: bool = False) -> Tensor:
    """What torch has for squared ReLU."""
    y = TF.relu(x).square()
    return x.copy_(y) if inplace else y


def row_bad(row: Row, make: Maker) -> Iterator[BadCall]:
    needed = () if row.act != "threshold" else (0.5, -1.0)
    yield BadCall("a list for a tensor", ([1.0, 2.0], *needed), says=("input", "list"))
    yield BadCall("None for a tensor", (None, *needed), says=("input", "NoneType"))
    yield BadCall("a number for a tensor", (1.5, *needed), says=("input", "float"))
    if row.inplace:
        yield BadCall(
            "in place on an expanded tensor: one address, four elements",
            (make(3, 1).expand(3, 4), *needed),
            {"inplace": True},
            ("[3, 4]",),
        )
        yield BadCall(
            "in place on a leaf that requires grad",
            (make(2, 5).requires_grad_(), *needed),
            {"inplace": True},
            ("leaf", "[2, 5]"),
        )
    yield from row.bad


# with a derivative that crosses 0 and there is small by cancellation
SMOOTH = {"gelu", "gelu_tanh", "silu", "mish", "tanhshrink", "softplus", "hardswish"}


def registered(act: str, inplace: bool = False) -> tuple[str, ...]:
    """The ops that an activation passes through, with its derivatives."""
    forward = "unary_from_output" if act in ("relu", "sigmoid", "tanh") else "unary"
    names = ("softplus" if act == "softplus" else forward, f"{forward}_backward", f"{forward}_gradient")
    in_place = "unary_from_output_" if act in ("relu", "leaky_relu") else "unary_"
    return (*names, f"{forward}_backward2", *((in_place,) if inplace else ()))


def row_spec(row: Row) -> OpSpec:
    name = row.name or row.act
    op = row.op or getattr(F, name)

    def layer(make: Maker) -> tuple[torch.nn.Module, torch.nn.Module, tuple[Any, ...]]:
        theirs = getattr(torch.nn, row.cls)(**row.layer_kwargs) if hasattr(torch.nn, row.cls) else None
        ours = getattr(nn, row.cls)(**row.layer_kwargs)
        return ours, theirs or Called(row.torch), (make(3, 5, 7, scale=3),)

    return OpSpec(
        name=name,
        variant=row.variant,
        family="activation",
        op=op,
        torch=row.torch,
        samples=partial(unary_samples, variants=row.variants, points=row.points),
        smooth=partial(smooth_samples, variants=row.variants, points=row.points),
        exact=exact.gelu if name == "gelu" else EXACT.get(row.act),
        from_output=row.act in ("sigmoid", "tanh"),
        scale="smooth" if row.act in SMOOTH else "magnitude",
        drawn=lambda make, draw: Sample("drawn", (drawn_input(make, draw),), row.variants[0]),
        bench=lambda make, n: Sample(f"{n} elements", (make(n, scale=2),), row.variants[0]),
        bytes=elementwise_bytes,
        registered=registered(row.act, row.inplace),
        act=row.act,
        bad=partial(row_bad, row),
        layer=layer if row.cls else None,
    )


def at(*points: float) -> Callable[..., tuple[float, ...]]:
    return lambda **_: points


ROWS = (
    Row("relu", TF.relu, "ReLU", points=at(0.0), inplace=True),
    Row("relu6", TF.relu6, "ReLU6", points=at(0.0, 6.0), inplace=True),
    Row(
        "leaky_relu",
        TF.leaky_relu,
        "LeakyReLU",
        variants=({}, {"negative_slope": 0.3}, {"negative_slope": 0.0}, {"negative_slope": -0.5}),
        points=at(0.0),
        inplace=True,
        layer_kwargs={"negative_slope": 0.2},
    ),
    Row(
        "elu",
        TF.elu,
        "ELU",
        variants=({}, {"alpha": 0.5}, {"alpha": 2.0}),
        points=at(0.0),
        inplace=True,
        layer_kwargs={"alpha": 0.7},
    ),
    Row("selu", TF.selu, "SELU", points=at(0.0), inplace=True),
    Row(
        "celu",
        TF.celu,
        "CELU",
        variants=({}, {"alpha": 0.5}, {"alpha": 2.0}),
        points=at(0.0),
        inplace=True,
        bad=(BadCall("division by alpha = 0", (torch.zeros(2), 0.0), says=("alpha", "0")),),
        layer_kwargs={"alpha": 0.7},
    ),
    Row(
        "gelu",
        TF.gelu,
        "GELU",
        bad=(BadCall("no such approximation", (torch.zeros(2),), {"approximate": "erf"}, ("approximate", "'erf'")),),
    ),
    Row(
        "gelu_tanh",
        TF.gelu,
        "GELU",
        name="gelu",
        variant="tanh",
        variants=({"approximate": "tanh"},),
        layer_kwargs={"approximate": "tanh"},
    ),
    Row("silu", TF.silu, "SiLU", inplace=True),
    Row("mish", TF.mish, "Mish", inplace=True),
    Row("sigmoid", torch.sigmoid, "Sigmoid"),
    Row("logsigmoid", TF.logsigmoid, "LogSigmoid"),
    Row(
        "hardsigmoid",
        TF.hardsigmoid,
        "Hardsigmoid",
        points=at(-3.0, 3.0),
        inplace=True,
    ),
    Row("hardswish", TF.hardswish, "Hardswish", points=at(-3.0, 3.0), inplace=True),
    Row(
        "hardtanh",
        TF.hardtanh,
        "Hardtanh",
        variants=({}, {"min_val": -0.5, "max_val": 2.0}, {"min_val": 0.25, "max_val": 0.25}),
        points=lambda min_val=-1.0, max_val=1.0: (min_val, max_val),
        inplace=True,
        bad=(BadCall("bounds the wrong way round", (torch.zeros(2), 1.0, -1.0), says=("min_val", "max_val")),),
        layer_kwargs={"min_val": -2.0, "max_val": 0.5},
    ),
    Row(
        "hardshrink",
        TF.hardshrink,
        "Hardshrink",
        variants=({}, {"lambd": 1.25}, {"lambd": 0.0}),
        points=lambda lambd=0.5: (lambd, -lambd),
        layer_kwargs={"lambd": 0.75},
    ),
    Row(
        "softshrink",
        TF.softshrink,
        "Softshrink",
        variants=({}, {"lambd": 1.25}, {"lambd": 0.0}),
        points=lambda lambd=0.5: (lambd, -lambd),
        bad=(BadCall("a negative width", (torch.zeros(2), -0.5), says=("lambd", "-0.5")),),
        layer_kwargs={"lambd": 0.75},
    ),
    Row("tanhshrink", TF.tanhshrink, "Tanhshrink"),
    Row("softsign", TF.softsign, "Softsign", points=at(0.0)),
    Row(
        "softplus",
        TF.softplus,
        "Softplus",
        variants=({}, {"beta": 2.0, "threshold": 3.0}, {"beta": 0.5}),
        points=lambda beta=1.0, threshold=20.0: (threshold / beta,),
        layer_kwargs={"beta": 1.5, "threshold": 4.0},
    ),
    Row(
        "threshold",
        TF.threshold,
        "Threshold",
        variants=({"threshold": 0.5, "value": -2.0}, {"threshold": -1.0, "value": 20.0}),
        points=lambda threshold, value: (threshold,),
        inplace=True,
        layer_kwargs={"threshold": 0.25, "value": 1.5},
    ),
    Row("tanh", torch.tanh, "Tanh"),
    Row("squared_relu", squared_relu, "SquaredReLU", points=at(0.0), inplace=True),
)


def prelu_samples(make: Maker) -> Iterator[Sample]:
    yield Sample("one weight for all", (make(1031, scale=3), make(1)), chosen=True)
    yield Sample("a weight per channel", (make(4, 7, 13), make(7)), chosen=True)
    yield Sample("channels last in memory", (make(2, 5, 6, 4).to(memory_format=torch.channels_last), make(5)))
    yield Sample("rows of channels, none after them", (make(65, 33), make(33)), chosen=True)
    yield Sample("one weight, many dimensions", (make(2, 3, 2, 3, 2), make(1)))
    yield Sample("a vector has no channels", (make(9), make(1)))
    yield Sample("0-d", (make(), make(1)))
    yield Sample(
        "ties and ends",
        (make.values(0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0).repeat(11).view(7, 11), make(11)),
    )
    yield Sample("empty batch: the weight's gradient is a sum of nothing", (make(0, 3, 2), make(3)))
    yield Sample("small images", (make(33, 6, 5, 7), make(6)), heavy=True)
    yield Sample(
        "small images, channels last", (make(9, 24, 5, 7).to(memory_format=torch.channels_last), make(24)), heavy=True
    )
    yield Sample("long enough for every thread", (make(8, 16, 1200), make(16)), heavy=True)
    yield Sample("few channels, many rows", (make(70_000, 3), make(3)), heavy=True)


def prelu_smooth(make: Maker) -> Iterator[Sample]:
    yield Sample("a weight per channel", (away(make(3, 4, 5), (0.0,)), make(4)))
    yield Sample("one weight", (away(make(3, 4), (0.0,)), make(1)))


def prelu_drawn(make: Maker, draw: Draw) -> Sample:
    x = drawn_input(make, draw)
    channels = x.shape[1] if x.dim() > 1 and x.shape[1] and draw.integer(0, 1) else 1
    return Sample("drawn", (x, make(channels)))


def prelu_bad(make: Maker) -> Iterator[BadCall]:
    yield BadCall("a list for a tensor", ([1.0], make(1)), says=("input", "list"))
    yield BadCall("three weights for five channels", (make(2, 5), make(3)), says=("weight", "[3]", "5"))
    yield BadCall("weights of another dtype", (make(2, 5), make(5).double()), says=("weight", "float64"))
    yield BadCall("weights on another device", (make(2, 5), make(5).to("meta")), says=("meta",))
    yield BadCall("a matrix of weights", (make(2, 4), make(2, 2)), says=("weight", "[2, 2]"))


def rrelu_noise(x: Tensor, noise: Tensor) -> Tensor:
    return torch.where(x > 0, x, x * noise.detach())


def rrelu_noise_samples(make: Maker) -> Iterator[Sample]:
    yield Sample(
        "a factor for each element", (make(1031, scale=3), make(1031, low=0.1, high=0.4).detach()), chosen=True
    )
    yield Sample("transposed", (make(17, 9).t(), make(9, 17, low=0.1, high=0.4).detach()))
    yield Sample("empty", (make(0, 4), make(0, 4)))


def rrelu_eval_samples(make: Maker) -> Iterator[Sample]:
    yield from unary_samples(make, ({}, {"lower": 0.2, "upper": 0.6}), at(0.0))


def rrelu_bad(make: Maker) -> Iterator[BadCall]:
    yield BadCall("a list for a tensor", ([1.0, 2.0],), says=("input", "list"))
    yield BadCall("bounds the wrong way round", (make(3), 0.5, 0.25, True), says=("lower", "upper"))


SPECS: tuple[OpSpec, ...] = (
    *(row_spec(row) for row in ROWS),
    OpSpec(
        name="prelu",
        family="activation",
        op=F.prelu,
        torch=torch.prelu,
        samples=prelu_samples,
        smooth=prelu_smooth,
        drawn=prelu_drawn,
        bench=lambda make, n: Sample(f"{n} elements", (make(n), make(1))),
        bytes=elementwise_bytes,
        registered=("prelu", "prelu_backward"),
        scale="nudge",
        bad=prelu_bad,
        layer=lambda make: (nn.PReLU(5), torch.nn.PReLU(5), (make(3, 5, 7),)),
    ),
    OpSpec(
        name="rrelu",
        family="activation",
        op=F.rrelu,
        torch=TF.rrelu,
        samples=rrelu_eval_samples,
        smooth=partial(smooth_samples, variants=({},), points=at(0.0)),
        registered=registered("leaky_relu"),
        bad=rrelu_bad,
        layer=lambda make: (nn.RReLU().eval(), torch.nn.RReLU().eval(), (make(3, 5, 7),)),
    ),
    OpSpec(
        name="rrelu",
        variant="noise",
        family="activation",
        op=ops.rrelu,
        torch=rrelu_noise,
        samples=rrelu_noise_samples,
        registered=("rrelu", "rrelu_backward"),
        note="F.rrelu(training=True) with the factors given instead of drawn; they get no gradient.",
    ),
    *gated.SPECS,
)
