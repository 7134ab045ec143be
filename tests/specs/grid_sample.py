"""Samples of images and volumes at the points of a grid, in every mode and padding, and the grids of affine maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import neurokern.functional as F
import torch
from neurokern.testing.spec import BadCall, Draw, Maker, OpSpec, Sample
from torch import Tensor

from ._inputs import elementwise_bytes

TF = torch.nn.functional
PADDINGS = ("zeros", "border", "reflection")
IMAGE: dict[int, tuple[int, ...]] = {2: (5, 7), 3: (3, 4, 5)}
GRID: dict[int, tuple[int, ...]] = {2: (4, 9), 3: (2, 3, 5)}
CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


def by_torch(x: Tensor, grid: Tensor, mode: str = "bilinear", padding_mode: str = "zeros", **kwargs: Any) -> Tensor:
    """torch's function; reflected through float32, since its second derivatives of 16 bits mix dtypes there."""
    if padding_mode == "reflection" and x.dtype in (torch.bfloat16, torch.float16) and x.dtype == grid.dtype:
        return TF.grid_sample(x.float(), grid.float(), mode, padding_mode, **kwargs).to(x.dtype)
    return TF.grid_sample(x, grid, mode, padding_mode, **kwargs)


def points(make: Maker, batch: int, *shape: int, reach: float = 1.3, step: int = 16) -> Tensor:
    """A grid whose coordinates are multiples of 1 / step, of which torch's kernels of 16 bits lose nothing either."""
    grid = make(batch, *shape, len(shape), low=-reach, high=reach).detach()
    return make.wrap((grid.double() * step).round() / step)


def samples(make: Maker, n: int, mode: str) -> Iterator[Sample]:
    x = make(2, 3, *IMAGE[n])
    grid = points(make, 2, *GRID[n])
    for padding in PADDINGS:
        for corners in (False, True):
            more = {"mode": mode, "padding_mode": padding, "align_corners": corners}
            chosen = corners == (padding == "border")
            yield Sample(f"{padding}, corners {corners}", (x, grid), more, chosen=chosen)
    more = {"mode": mode, "align_corners": False}
    last = make(2, 19, *IMAGE[n]).to(memory_format=CHANNELS_LAST[n])
    yield Sample("channels innermost", (last, grid), more, chosen=True)
    many = make(1, 37, *IMAGE[n])
    yield Sample("channels of two blocks", (many, grid[:1]), {"padding_mode": "border", **more})
    yield Sample("points on elements and halfway", (x, points(make, 2, *GRID[n], step=2)), more)
    small = points(make, 2, *[1] * n)
    yield Sample("a single point, which looks at few pixels", (make(2, 3, *(4 * s for s in IMAGE[n])), small), more)
    yield Sample("a single element", (x[(..., *[slice(1)] * n)], grid), {"padding_mode": "reflection", **more})
    moved = grid.movedim(-1, 1).contiguous().movedim(1, -1)
    every = make(2, 6, *(2 * s for s in IMAGE[n]))[(slice(None), slice(None, None, 2), *[slice(None, None, 2)] * n)]
    yield Sample("strides of all kinds", (every.transpose(-1, -2), moved), more, chosen=True)
    yield Sample("no images", (x[:0], grid[:0]), more)
    yield Sample("no channels", (x[:, :0], grid), more)
    yield Sample("no points", (x, grid[:, :0]), more)


def smooth(make: Maker, n: int, mode: str) -> Iterator[Sample]:
    x = make(1, 2, *(3, 4, 2)[:n])
    # between elements, wherever corners are
    grid = make.wrap((make(1, *(2, 1, 2)[:n], n, low=-4, high=4).detach().double().round() + 0.3) / 4.7)
    for i, padding in enumerate(PADDINGS):
        yield Sample(padding, (x, grid), {"mode": mode, "padding_mode": padding, "align_corners": i == 1})


def drawn(make: Maker, draw: Draw, n: int, mode: str) -> Sample:
    batch = draw.integer(0, 2)
    x = make(batch, draw.integer(1, 40), *(draw.integer(1, 9) for _ in range(n)))
    if draw.integer(0, 1):
        x = x.to(memory_format=CHANNELS_LAST[n])
    grid = points(make, batch, *(draw.integer(0, 7) for _ in range(n)))
    # sizes and steps whose quotients are not exact fall on either side of an edge
    more = {"mode": mode, "padding_mode": draw.choice(PADDINGS), "align_corners": bool(draw.integer(0, 1))}
    return Sample("drawn", (x, grid), more)


def bad(make: Maker, n: int, mode: str) -> Iterator[BadCall]:
    x, grid = make(2, 3, *IMAGE[n]), make(2, *GRID[n], n)
    more = {"mode": mode, "align_corners": False}
    yield BadCall("a list for a tensor", ([1.0, 2.0], grid), more, ("input", "list"), TypeError)
    yield BadCall("a list for the grid", (x, [1.0, 2.0]), more, ("grid", "list"), TypeError)
    yield BadCall("an image without a batch", (x[0], grid[0]), more, ("input", "[3, "))
    yield BadCall("a grid of other dims", (x, grid[0]), more, ("grid", "input"))
    yield BadCall("a grid of another batch", (x, grid[:1]), more, ("grid", "batch"))
    yield BadCall("a coordinate too few", (x, grid[..., 1:]), more, ("grid", "coordinates"))
    yield BadCall("an empty image", (x[..., :0], grid), more, ("input", "0]"))
    yield BadCall("an unknown mode", (x, grid), {**more, "mode": "cubic"}, ("mode", "cubic"))
    yield BadCall("an unknown padding", (x, grid), {**more, "padding_mode": "zero"}, ("padding_mode", "zero"))
    yield BadCall("corners that are no bool", (x, grid), {**more, "align_corners": "yes"}, ("align_corners", "yes"))
    yield BadCall("two dtypes", (x, grid.double()), more, ("grid", "float64"))
    yield BadCall("integers", (x.int(), grid.int()), more, ("int32",))
    if n == 3:
        yield BadCall("cubics of a volume", (x, grid), {**more, "mode": "bicubic"}, ("mode", "bicubic"))


def maps(make: Maker, n: int) -> Iterator[Sample]:
    theta = make(2, n, n + 1)
    for corners in (False, True):
        yield Sample(f"corners {corners}", (theta, (2, 3, *IMAGE[n])), {"align_corners": corners}, chosen=True)
    yield Sample("a single point", (theta, [2, 1, *[1] * n]), {"align_corners": False})
    yield Sample("no maps", (theta[:0], (0, 3, 1, *IMAGE[n][1:])), {"align_corners": True})
    yield Sample("one map, of a larger image", (theta[:1], (1, 3, *(3 * s for s in IMAGE[n]))), {"align_corners": True})
    yield Sample("maps as columns", (make(2, n + 1, n).transpose(1, 2), (2, 1, *IMAGE[n])), {"align_corners": False})


def grid_by_torch(theta: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """torch's function, through float32 where it has no kernel for 16 bits: of a single element in a dim."""
    if 1 in size[2:] and theta.dtype in (torch.bfloat16, torch.float16):
        return TF.affine_grid(theta.float(), size, align_corners).to(theta.dtype)
    return TF.affine_grid(theta, size, align_corners)


def smooth_maps(make: Maker, n: int) -> Iterator[Sample]:
    yield Sample("small", (make(2, n, n + 1), (2, 1, *(3, 4, 2)[:n])), {"align_corners": False})


def bad_maps(make: Maker, n: int) -> Iterator[BadCall]:
    theta, size = make(2, n, n + 1), (2, 3, *IMAGE[n])
    more = {"align_corners": False}
    yield BadCall("a list for a tensor", ([1.0, 2.0], size), more, ("theta", "list"))
    yield BadCall("integers", (theta.int(), size), more, ("theta", "int32"))
    yield BadCall("a map of other dims", (theta[..., 1:], size), more, ("theta", "[N, "))
    yield BadCall("one size too few", (theta, size[:3]), more, ("size",))
    yield BadCall("a size of 0", (theta, (*size[:-1], 0)), more, ("size", "0]"))
    yield BadCall("another batch", (theta, (3, *size[1:])), more, ("theta", "batch"))
    yield BadCall("a fraction", (theta, (2, 3, *[2.5] * n)), more, ("size", "2.5"))
    yield BadCall("corners that are no bool", (theta, size), {"align_corners": "yes"}, ("align_corners", "yes"))


_REGISTERED = (
    "grid_sample", "grid_sample_backward", "grid_sample_gradient", "grid_sample_gradient_backward",
)  # fmt: skip


def spec(mode: str, n: int) -> OpSpec:
    return OpSpec(
        name="grid_sample",
        variant=f"{mode}{n}d",
        family="resampling",
        op=F.grid_sample,
        torch=by_torch,
        samples=partial(samples, n=n, mode=mode),
        smooth=partial(smooth, n=n, mode=mode),
        drawn=partial(drawn, n=n, mode=mode),
        bytes=elementwise_bytes,
        registered=_REGISTERED,
        scale="nudge",
        bad=partial(bad, n=n, mode=mode),
    )


def affine(n: int) -> OpSpec:
    return OpSpec(
        name="affine_grid",
        variant=f"{n}d",
        family="resampling",
        op=F.affine_grid,
        torch=grid_by_torch,
        samples=partial(maps, n=n),
        smooth=partial(smooth_maps, n=n),
        bytes=elementwise_bytes,
        registered=("matmul", "matmul_backward"),
        scale="absolute",
        bad=partial(bad_maps, n=n),
    )


SPECS: tuple[OpSpec, ...] = (
    *(spec(mode, 2) for mode in ("bilinear", "nearest", "bicubic")),
    *(spec(mode, 3) for mode in ("bilinear", "nearest")),
    affine(2),
    affine(3),
)
