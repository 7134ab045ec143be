"""Interpolation in every mode, larger and smaller, in one to three dims."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import neurokern.functional as F
import torch
from neurokern import nn
from neurokern.testing.spec import BadCall, Draw, Maker, OpSpec, Sample
from torch import Tensor

from ._inputs import elementwise_bytes

TF = torch.nn.functional
SIZES: dict[int, tuple[int, ...]] = {1: (13,), 2: (7, 11), 3: (3, 5, 6)}
LARGER: dict[int, list[int]] = {1: [31], 2: [12, 29], 3: [7, 6, 13]}
SMALLER: dict[int, list[int]] = {1: [5], 2: [3, 4], 3: [2, 2, 3]}
CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


def by_torch(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """torch's function, through float32 where it has no kernel for 16 bits on the CPU."""
    wide = kwargs.get("antialias") or (kwargs.get("mode") == "area" and x.dim() == 5)
    if wide and x.dtype in (torch.bfloat16, torch.float16):
        return TF.interpolate(x.float(), *args, **kwargs).to(x.dtype)
    return TF.interpolate(x, *args, **kwargs)


def samples(make: Maker, n: int, more: dict[str, Any]) -> Iterator[Sample]:
    x = make(2, 3, *SIZES[n])
    corners = more["mode"] in ("linear", "bilinear", "bicubic", "trilinear")
    yield Sample("larger", (x, LARGER[n]), more, chosen=True)
    yield Sample("smaller", (x, SMALLER[n]), more, chosen=True)
    yield Sample("one size larger, the other smaller", (x, [*LARGER[n][:-1], SMALLER[n][-1]]), more)
    yield Sample("one size for all dims", (x, 4), more)
    yield Sample("a single element", (x, 1), more)
    yield Sample("of a single element", (x[(..., *[slice(1)] * n)], 3), more)
    yield Sample("twice as large", (x,), {"scale_factor": 2.0, **more}, chosen=True)
    yield Sample("a scale that is not whole", (x,), {"scale_factor": 1.7, **more})
    yield Sample("a scale for each dim", (x,), {"scale_factor": [2.5, 0.4, 1.25][:n], **more})
    yield Sample(
        "scales by rounded sizes", (x,), {"scale_factor": 1.7, "recompute_scale_factor": True, **more}, chosen=True
    )
    yield Sample("no images", (x[:0], LARGER[n]), more)
    yield Sample(
        "every other element", (make(2, 3, *(2 * s for s in SIZES[n]))[(..., *[slice(None, None, 2)] * n)], 5), more
    )
    if corners:
        yield Sample("corners that stay", (x, LARGER[n]), {"align_corners": True, **more}, chosen=True)
        yield Sample("corners that stay, smaller", (x, SMALLER[n]), {"align_corners": True, **more})
    if n > 1:
        images = make(2, 19, *SIZES[n]).to(memory_format=CHANNELS_LAST[n])
        yield Sample("channels innermost", (images, LARGER[n]), more, chosen=True)
        yield Sample("channels innermost, smaller", (images, SMALLER[n]), more)
        yield Sample("one channel, which may lie either way", (images[:, :1], SMALLER[n]), more)


def smooth(make: Maker, n: int, more: dict[str, Any]) -> Iterator[Sample]:
    x = make(1, 2, *(4, 3, 2)[:n])
    yield Sample("larger", (x, [5, 4, 3][:n]), more)
    yield Sample("smaller", (x, [3, 2, 1][:n]), more)


def drawn(make: Maker, draw: Draw, n: int, more: dict[str, Any]) -> Sample:
    x = make(draw.integer(0, 2), draw.integer(1, 20), *(draw.integer(1, 9) for _ in range(n)))
    if n > 1 and draw.integer(0, 1):
        x = x.to(memory_format=CHANNELS_LAST[n])
    # powers of two: torch's scales are exact in every dtype
    scale = draw.choice((0.5, 1.0, 2.0, 4.0)) if min(x.shape[2:]) > 1 else 2.0
    if more.get("antialias") and x.shape[-1] * scale < 2:
        scale = 2.0  # torch gives all rows of one column what it has for the first
    return Sample("drawn", (x,), {"scale_factor": scale, **more})


def bad(make: Maker, n: int, more: dict[str, Any]) -> Iterator[BadCall]:
    x = make(2, 3, *SIZES[n])
    yield BadCall("a list for a tensor", ([1.0, 2.0], 3), more, ("input", "list"), TypeError)
    yield BadCall("no size", (x,), more, ("size", "scale_factor"), ValueError)
    yield BadCall("a size and a scale", (x, 3, 2.0), more, ("size", "scale_factor"), ValueError)
    yield BadCall("a fraction", (x, [2.5] * n), more, ("size", "2.5"), TypeError)
    yield BadCall("too many sizes", (x, [2] * 4), more, ("size", "[2, 2, 2, 2]"), ValueError)
    yield BadCall("too many scales", (x, None, [2.0] * 4), more, ("scale_factor", "[2.0, 2.0"), ValueError)
    yield BadCall(
        "a size and rounded scales", (x, 3), {"recompute_scale_factor": True, **more}, ("recompute",), ValueError
    )
    if more["mode"] != "area":
        yield BadCall("a size of 0", (x, 0), more, ("size", "0"), RuntimeError)
    if more["mode"] in ("nearest", "nearest-exact", "area"):
        yield BadCall(
            "corners of a mode that has none", (x, 3), {"align_corners": False, **more}, ("align",), ValueError
        )
    if more["mode"] in ("nearest", "linear", "trilinear"):
        yield BadCall("a filter that it does not have", (x, 3), {"antialias": True, **more}, ("antialias",), ValueError)
    yield BadCall(
        "a mode for another number of dims", (x, 3), {"mode": "bilinear" if n != 2 else "linear"}, ("mode",),
        NotImplementedError,
    )  # fmt: skip


def scale(
    sample: Sample, g: tuple[Tensor, ...], reference: list[tuple[str, Tensor]], f: Callable[..., Tensor]
) -> list[Tensor] | None:
    """Sizes of the terms: of what is added for an element, and of the gradients that are added at one."""
    if len(reference) > 2:
        return None
    x, *rest = sample.args
    given = x.detach().abs()
    with torch.enable_grad():
        given.requires_grad_()
        y = f(given, *rest, **sample.kwargs)
        if not y.numel():
            return [torch.zeros_like(t) for _, t in reference]
        (gx,) = torch.autograd.grad(y, given, g[0].abs())
    return [y.detach().abs(), gx.abs()][: len(reference)]


_REGISTERED = ("interpolate", "interpolate_backward", "interpolate_gradient", "interpolate_gradient_backward")


def spec(mode: str, n: int, antialias: bool = False) -> OpSpec:
    more: dict[str, Any] = {"mode": mode, **({"antialias": True} if antialias else {})}

    def make_layer(make: Maker) -> tuple[torch.nn.Module, torch.nn.Module, tuple[Any, ...]]:
        given = {"scale_factor": 2.0, "mode": mode}
        return nn.Upsample(**given), torch.nn.Upsample(**given), (make(2, 3, *SIZES[n]),)

    return OpSpec(
        name="interpolate",
        variant=f"{mode}{n}d{'-antialias' if antialias else ''}",
        family="resampling",
        op=F.interpolate,
        torch=by_torch,
        samples=partial(samples, n=n, more=more),
        smooth=partial(smooth, n=n, more=more),
        drawn=partial(drawn, n=n, more=more),
        bytes=elementwise_bytes,
        registered=("avg_pool", "avg_pool_backward") if mode == "area" else _REGISTERED,
        scale=partial(scale, f=by_torch),
        bad=partial(bad, n=n, more=more),
        layer=None if antialias else make_layer,
    )


SPECS: tuple[OpSpec, ...] = (
    *(spec(mode, n) for mode in ("nearest", "nearest-exact", "area") for n in (1, 2, 3)),
    spec("linear", 1),
    spec("bilinear", 2),
    spec("trilinear", 3),
    spec("bicubic", 2),
    spec("bilinear", 2, antialias=True),
    spec("bicubic", 2, antialias=True),
)
