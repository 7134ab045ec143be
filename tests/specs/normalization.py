"""layer_norm and rms_norm."""

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

from ._inputs import elementwise_bytes

TF = torch.nn.functional


def parameters(make: Maker, rms: bool, *shape: int) -> dict[str, Tensor]:
    """A weight, and a bias where there is one."""
    weight = {"weight": make(*shape)}
    return weight if rms else {**weight, "bias": make(*shape)}


def samples(make: Maker, rms: bool) -> Iterator[Sample]:
    some = partial(parameters, make, rms)
    yield Sample("rows of a prime length, with parameters", (make(37, 67), [67]), some(67), chosen=True)
    yield Sample("without parameters", (make(5, 48), [48]))
    yield Sample("a weight alone", (make(3, 7, 33), [33]), {"weight": make(33)})
    yield Sample("several dims normalized together", (make(4, 3, 5, 6), [3, 5, 6]), some(3, 5, 6))
    yield Sample("the whole tensor is one row", (make(9, 11), [9, 11]), some(9, 11))
    yield Sample("a transposed input, whose rows are not contiguous", (make(29, 23).t(), [29]), some(29))
    strided = make(5, 6, 4, 7).permute(0, 2, 3, 1)[..., :5]
    yield Sample("rows of two strided dims", (strided, [7, 5]), some(7, 5))
    yield Sample("every other element of a row", (make(6, 50)[:, ::2], [25]), some(25))
    yield Sample("one row for all", (make(1, 40).expand(9, 40), [40]), some(40))
    yield Sample("a strided weight", (make(6, 20), [20]), {"weight": make(20, 2)[:, 1]})
    yield Sample("rows longer than a block of threads holds", (make(3, 9001), [9001]), some(9001), heavy=True)
    yield Sample("rows of a power of two, for every thread", (make(256, 768), [768]), some(768), heavy=True)
    yield Sample("no rows", (make(0, 12), [12]), some(12))
    mean = 100.0 if make.dtype in (torch.float16, torch.bfloat16) else 1e4
    yield Sample("a mean of many deviations", (make(7, 129) + mean, [129]), some(129), chosen=True)
    ends = make(6, 21)
    ends[0, 3], ends[1, 0], ends[2, 20] = math.nan, math.inf, -math.inf
    yield Sample("NaN and infinities spoil their rows alone", (ends, [21]), some(21))
    yield Sample("an eps that is felt", (make(5, 16) * 1e-2, [16]), {**some(16), "eps": 0.5})


def smooth(make: Maker, rms: bool) -> Iterator[Sample]:
    yield Sample("a few rows with parameters", (make(3, 7), [7]), parameters(make, rms, 7))
    yield Sample("two dims without parameters", (make(2, 3, 4), [3, 4]))


def drawn(make: Maker, draw: Draw, rms: bool) -> Sample:
    rows, length = draw.integer(0, 40), draw.integer(1, 300)
    return Sample("drawn", (make(rows, length), [length]), parameters(make, rms, length))


def bad(make: Maker, rms: bool) -> Iterator[BadCall]:
    yield BadCall("a list for a tensor", ([1.0, 2.0], [2]), says=("input", "list"))
    yield BadCall("rows of another length", (make(3, 4), [5]), says=("[3, 4]", "[5]"))
    yield BadCall("no dims to normalize", (make(3, 4), []), says=("normalized_shape",))
    yield BadCall("more dims than there are", (make(4), [3, 4]), says=("[4]", "[3, 4]"))
    yield BadCall("a weight of another length", (make(3, 4), [4]), {"weight": make(3)}, ("weight", "[3]"))
    yield BadCall("a number for the shape", (make(3, 4), 4), says=("normalized_shape",), raises=TypeError)


def scale(sample: Sample, g: tuple[Tensor, ...], reference: list[tuple[str, Tensor]], rms: bool) -> list[Tensor] | None:
    """Sizes of the terms: the mean that is subtracted counts, as do the sums over a row and over the rows."""
    x, shape = sample.args
    if len(reference) > 1 + len(g[1:]) or not x.numel():
        return None
    dims = tuple(range(-len(shape), 0))
    eps = sample.kwargs.get("eps", 1e-5)
    weight = sample.kwargs.get("weight", x.new_ones(shape)).abs()
    bias = sample.kwargs.get("bias", x.new_zeros(shape)).abs()
    centre = x if rms else x - x.mean(dims, keepdim=True)
    rstd = (centre.square().mean(dims, keepdim=True) + eps).rsqrt()
    # of the deviation: x itself, and the mean, which is a sum over the row
    size = (centre.abs() + (0 if rms else x.abs() + x.abs().mean(dims, keepdim=True))) * rstd
    sizes = [(size * weight + bias).expand(x.shape)]
    if len(reference) == 1:
        return sizes
    normal, gy = centre.abs() * rstd, g[0].abs() * weight
    along = gy + (0 if rms else gy.mean(dims, keepdim=True)) + size * (gy * normal).mean(dims, keepdim=True) * 2
    sizes.append((rstd * along * (1 + size / (normal + 1))).expand(x.shape))
    if "weight" in sample.kwargs:
        sizes.append((g[0].abs() * size).sum_to_size(shape))
    if "bias" in sample.kwargs:
        sizes.append(g[0].abs().sum_to_size(shape))
    return sizes


def norm_spec(name: str, reference: Callable[..., Tensor], cls: str) -> OpSpec:
    rms = name == "rms_norm"

    def layer(make: Maker) -> tuple[torch.nn.Module, torch.nn.Module, tuple[Any, ...]]:
        return getattr(nn, cls)([5, 7]), getattr(torch.nn, cls)([5, 7]), (make(3, 5, 7),)

    return OpSpec(
        name=name,
        family="normalization",
        op=getattr(F, name),
        torch=reference,
        samples=partial(samples, rms=rms),
        smooth=partial(smooth, rms=rms),
        drawn=partial(drawn, rms=rms),
        bench=lambda make, rows, columns: Sample(
            f"{rows} rows of {columns}", (make(rows, columns), [columns]), parameters(make, rms, columns)
        ),
        bytes=elementwise_bytes,
        registered=(name, f"{name}_recorded", f"{name}_backward"),
        scale=partial(scale, rms=rms),
        bad=partial(bad, rms=rms),
        layer=layer,
    )


SPECS: tuple[OpSpec, ...] = (
    norm_spec("layer_norm", TF.layer_norm, "LayerNorm"),
    norm_spec("rms_norm", TF.rms_norm, "RMSNorm"),
)
