"""Pooling: maxima, averages and norms of windows, and the way back from maxima."""

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
SIZES: dict[int, tuple[int, ...]] = {1: (37,), 2: (13, 18), 3: (5, 7, 6)}
CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


def per_dim(n: int, *values: int) -> Any:
    """One value for each of n dims."""
    return values[0] if n == 1 else list(values[:n])


def inputs(make: Maker, n: int, channels: int = 3) -> Tensor:
    return make(2, channels, *SIZES[n])


def by_torch(name: str) -> Callable[..., Tensor]:
    """torch's function, through float32 where it has no kernel for 16 bits on the CPU."""
    f = getattr(TF, name)
    if name not in ("avg_pool3d", "lp_pool3d"):
        return f

    def wide(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if x.dtype in (torch.bfloat16, torch.float16) and not x.is_cuda:
            return f(x.float(), *args, **kwargs).to(x.dtype)
        return f(x, *args, **kwargs)

    return wide


def with_places(f: Callable[..., Any]) -> Callable[..., Any]:
    """f, given the indices as a list, since tensors among the arguments are taken for variables."""

    def called(x: Any, indices: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(indices, list):
            indices = torch.tensor(indices, dtype=torch.int64, device=x.device).view(x.shape)
        return f(x, indices, *args, **kwargs)

    return called


def with_samples(f: Callable[..., Any]) -> Callable[..., Any]:
    """f, given the random numbers as a list: they are no variables, and are the same in every dtype."""

    def called(x: Any, *args: Any, **kwargs: Any) -> Any:
        given = kwargs.get("_random_samples")
        if isinstance(given, list):
            kwargs["_random_samples"] = torch.tensor(given, dtype=x.dtype, device=x.device)
        return f(x, *args, **kwargs)

    return called


def plain_samples(make: Maker, n: int, name: str) -> Iterator[Sample]:
    avg, norm = name.startswith("avg"), name.startswith("lp")
    p = (2.0,) if norm else ()
    pad: tuple[Any, ...] = () if norm else (1,)
    more: dict[str, Any] = {} if avg or norm else {"dilation": 2}
    x = inputs(make, n)
    yield Sample("windows side by side", (x, *p, 2), chosen=True)
    yield Sample("windows that overlap", (x, *p, 3, 2, *pad), more, chosen=True)
    yield Sample("a last window that reaches beyond the end", (x, *p, 3, 2, *pad), {"ceil_mode": True}, chosen=True)
    yield Sample("windows far apart", (x, *p, 2, 11 if n < 3 else 3))
    yield Sample("each dim its own", (x, *p, per_dim(n, 3, 4, 2), per_dim(n, 1, 3, 2)))
    yield Sample("without a batch", (x[0], *p, 3, 1, *pad))
    yield Sample(
        "every other element", (make(2, 3, *(2 * s for s in SIZES[n]))[(..., *[slice(None, None, 2)] * n)], *p, 2)
    )
    yield Sample("no images", (x[:0], *p, 2))
    yield Sample("windows as large as the input", (x, *p, per_dim(n, *SIZES[n])))
    if n == 1:
        return
    images = make(2, 35, *SIZES[n]).to(memory_format=CHANNELS_LAST[n])
    yield Sample("channels innermost", (images, *p, 3, 2, *pad), more, chosen=True)
    yield Sample("one channel, which may lie either way", (images[:, :1], *p, 3, 1, *pad))
    if n == 2:
        yield Sample("channels for a block of vectors", (make(1, 80, 9, 9).to(memory_format=CHANNELS_LAST[n]), *p, 2))
        yield Sample("a wide image", (make(1, 2, 5, 131), *p, 3, 2), heavy=True)
    if avg:
        yield Sample("padding does not count", (x, 3, 2, 1, True, False), chosen=True)
        yield Sample("a divisor of its own", (x, 3, 2, 1), {"divisor_override": 5})
    if norm:
        yield Sample("one root and no power", (x, 1.0, 2))
        yield Sample("a third power", (x.abs() + 0.25, 3.0, 2))
        yield Sample("a power that is not whole", (x.abs() + 0.25, 2.5, 3, 2), {"ceil_mode": True})
        yield Sample("sums of nothing, which have no gradient", (torch.zeros_like(x), 2.0, 2))
    if not avg and not norm:
        ends = make.grid(2, 3, *SIZES[n], step=1.0, limit=1)
        yield Sample("many equal elements: the first one wins", (ends, 3, 2, 1), chosen=True)
        yield Sample("the same with the channels innermost", (ends.to(memory_format=CHANNELS_LAST[n]), 3, 2, 1))
        nans = torch.where(make(*ends.shape) > 1, make.values(math.nan), x)
        yield Sample("NaN wins", (nans, 3, 2, 1), chosen=True)
        low = torch.where(make(*ends.shape) > 0, make.values(-math.inf), make.values(math.inf))
        yield Sample("infinities, and windows of nothing but the lowest", (low, 2, 1, 1))


def adaptive_samples(make: Maker, n: int) -> Iterator[Sample]:
    x = inputs(make, n)
    yield Sample("windows of several lengths that overlap", (x, per_dim(n, 5, 4, 4)), chosen=True)
    # a grid: the few results of long sums say little about how torch's sums round
    yield Sample("one window", (make.grid(*x.shape), 1), chosen=True)
    yield Sample("more windows than elements", (x, per_dim(n, 41, 20, 2)))
    yield Sample("as many windows as elements", (x, per_dim(n, *SIZES[n])))
    yield Sample("without a batch", (x[0], 2))
    yield Sample("every other element", (make(2, 3, *(2 * s for s in SIZES[n]))[(..., *[slice(None, None, 2)] * n)], 3))
    yield Sample("no images", (x[:0], 2))
    if n > 1:
        yield Sample("a size that stays", (x, [None, 3, 2][:n]))
        images = make(2, 35, *SIZES[n]).to(memory_format=CHANNELS_LAST[n])
        yield Sample("channels innermost", (images, 3), chosen=True)
        whole = make.grid(*images.shape).to(memory_format=CHANNELS_LAST[n])
        yield Sample("one window, channels innermost", (whole, 1))


def fractional_samples(make: Maker, n: int) -> Iterator[Sample]:
    sizes = (11, 11, 6)[:n]
    x = make(2, 3, *sizes)
    # eighths, and starts that are 3 or 1 apart: every dtype finds the same windows
    random = make.grid(2, 3, n, limit=3).abs().tolist()
    out = [4, 4, 4][:n]
    yield Sample("windows of three elements", (x, 2, out), {"_random_samples": random}, chosen=True)
    yield Sample("one window", (x, 2, 1), {"_random_samples": random})
    yield Sample("no images", (x[:0], 2, out), {"_random_samples": random})
    yield Sample("a size as a share", (x, 2), {"output_ratio": (0.4, 0.4, 0.7)[:n], "_random_samples": random})
    yield Sample("without a batch", (x[0], 2, out), {"_random_samples": random[:1]})
    if n > 1:
        images = x.to(memory_format=CHANNELS_LAST[n])
        yield Sample("channels innermost", (images, 2, out), {"_random_samples": random}, chosen=True)


def unpool_samples(make: Maker, n: int) -> Iterator[Sample]:
    def of(x: Tensor, kernel: Any, stride: Any = None, **more: Any) -> tuple[Any, ...]:
        y, indices = getattr(TF, f"max_pool{n}d")(x.detach(), kernel, stride, **more, return_indices=True)
        return make.wrap(y), indices.tolist()

    x, even = inputs(make, n), make(2, 3, *(2 * s for s in SIZES[n]))
    size = {"output_size": list(x.shape[2:])}
    yield Sample("windows side by side", (*of(even, 2), 2), chosen=True)
    yield Sample("the size that was pooled", (*of(x, 2), 2), size, chosen=True)
    yield Sample("windows that overlap, which may have one place", (*of(x, 3, 2), 3, 2), size)
    yield Sample("without a batch", (*(t[0] for t in of(even, 2)), 2))
    empty, none = of(even, 2)
    yield Sample("no images", (empty[:0], none[:0], 2))
    if n > 1:
        images = even.to(memory_format=CHANNELS_LAST[n])
        y, indices = of(images, 2)
        yield Sample("channels innermost", (y.to(memory_format=CHANNELS_LAST[n]), indices, 2))


def smooth(make: Maker, n: int, name: str) -> Iterator[Sample]:
    x = make(1, 2, *(5, 4, 3)[:n])
    if name.startswith("adaptive"):
        yield Sample("a few windows", (x, 2))
    elif name.startswith("fractional"):
        x = make(1, 2, *(7, 7, 5)[:n])
        # the random numbers are no variables
        yield Sample("a few windows", (x, 2, 3), {"_random_samples": make.grid(1, 2, n, limit=3).abs().tolist()})
    elif name.startswith("lp"):
        yield Sample("squares", (x.abs() + 0.5, 2.0, 2))
        yield Sample("third powers, overlapping", (x.abs() + 0.5, 3.0, 2, 1), {"ceil_mode": True})
    elif name.startswith("max_unpool"):
        indices = torch.arange(math.prod((2, 2, 2)[:n]), device=make.device).view(1, 1, *(2, 2, 2)[:n])
        yield Sample("the first places", (make(1, 1, *(2, 2, 2)[:n]), (indices * 2).tolist(), 2))
    else:
        yield Sample("windows that overlap", (x, 2, 1), {"ceil_mode": True})
        yield Sample("windows with padding", (x, 3, 2, 1))


def drawn(make: Maker, draw: Draw, n: int, name: str) -> Sample:
    sizes = [draw.integer(3, (60, 20, 8)[n - 1]) for _ in range(n)]
    x = make(draw.integer(0, 2), draw.integer(1, 40), *sizes)
    if n > 1 and draw.integer(0, 1):
        x = x.to(memory_format=CHANNELS_LAST[n])
    if name.startswith("adaptive"):
        return Sample("drawn", (x, [draw.integer(1, 9) for _ in range(n)]))
    kernel, stride = draw.integer(1, 3), draw.integer(1, 10)
    p = (2.0,) if name.startswith("lp") else ()
    pad = () if p else (draw.integer(0, kernel // 2),)
    return Sample("drawn", (x, *p, kernel, stride, *pad), {"ceil_mode": bool(draw.integer(0, 1))})


def plain_bad(make: Maker, n: int, name: str) -> Iterator[BadCall]:
    p = (2.0,) if name.startswith("lp") else ()
    x = inputs(make, n)
    yield BadCall("a list for a tensor", ([1.0, 2.0], *p, 2), says=("input", "list"), raises=TypeError)
    yield BadCall("a window larger than the input", (x, *p, 50), says=("input", "50"))
    yield BadCall("a window of nothing", (x, *p, 0), says=("kernel_size", "0"))
    yield BadCall("no step", (x, *p, 2, 0), says=("stride", "0"), raises=RuntimeError)
    yield BadCall("too few dims", (x[0, 0], *p, 2), says=("input", "dimensions"))
    yield BadCall("a window of a fraction", (x, *p, 2.5), says=("kernel_size", "2.5"), raises=TypeError)
    if not p:
        yield BadCall("padding of more than half a window", (x, 3, 1, 2), says=("padding", "2"))
        yield BadCall("negative padding", (x, 3, 1, -1), says=("padding", "-1"), raises=RuntimeError)
        yield BadCall("four sizes", (x, [2, 2, 2, 2]), says=("kernel_size",))
    if name in ("avg_pool2d", "avg_pool3d"):
        yield BadCall("a divisor of 0", (x, 2), {"divisor_override": 0}, ("divisor_override", "0"))


def adaptive_bad(make: Maker, n: int) -> Iterator[BadCall]:
    x = inputs(make, n)
    yield BadCall("a negative size", (x, -1), says=("output_size", "-1"), raises=RuntimeError)
    yield BadCall("too many sizes", (x, [2] * 4), says=("output_size",), raises=RuntimeError)
    yield BadCall("too few dims", (x[0, 0], 2), says=("input", "dimensions"), raises=RuntimeError)
    yield BadCall("a fraction", (x, 2.5), says=("output_size", "2.5"), raises=TypeError)


def fractional_bad(make: Maker, n: int) -> Iterator[BadCall]:
    x, random = make(2, 3, *[9] * n), make.grid(2, 3, n).abs()
    yield BadCall("no size", (x, 2), says=("output_size", "output_ratio"))
    yield BadCall("too many windows", (x, 2, 9), {"_random_samples": random}, ("input", "9"))
    yield BadCall("numbers of another shape", (x, 2, 3), {"_random_samples": random[:1]}, ("_random_samples", "[1, 3"))
    yield BadCall("numbers of another dtype", (x, 2, 3), {"_random_samples": random.double()}, ("_random_samples",))


def unpool_bad(make: Maker, n: int) -> Iterator[BadCall]:
    y, indices = getattr(TF, f"max_pool{n}d")(inputs(make, n), 2, return_indices=True)
    yield BadCall("an index beyond the output", (y, indices + 10**6, 2), says=("indices", "expected 0 to"))
    yield BadCall("a negative index", (y, indices - 10**6, 2), says=("indices", "-"))
    yield BadCall("indices of 32 bits", (y, indices.int(), 2), says=("indices", "int32"))
    yield BadCall("indices of another shape", (y, indices[:1], 2), says=("indices", "[1, "))
    yield BadCall("a size that pools to another", (y, indices, 2), {"output_size": [99] * n}, ("output_size", "99"))
    yield BadCall("two lengths", (y, indices, 2), {"output_size": [9] * (n + 1)}, ("output_size",), ValueError)
    yield BadCall("too few dims", (y[0, 0], indices[0, 0], 2), says=("input", "dimensions"))


def scale(
    sample: Sample, g: tuple[Tensor, ...], reference: list[tuple[str, Tensor]], f: Callable[..., Tensor], linear: bool
) -> list[Tensor] | None:
    """Sizes of the terms: of what is averaged, and of the gradients that are added at an element."""
    if len(reference) > 2:
        return None
    x, *rest = sample.args
    given = x.detach().abs() if linear else x.detach()
    with torch.enable_grad():
        given.requires_grad_()
        y = f(given, *rest, **sample.kwargs)
        if not y.numel():
            return [torch.zeros_like(t) for _, t in reference]
        (gx,) = torch.autograd.grad(y, given, g[0].abs())
    return [y.detach().abs(), gx.abs()][: len(reference)]


def pool_spec(name: str, n: int, layer: tuple[Any, ...], with_indices: bool = False) -> OpSpec:
    kind = f"{name}{n}d"
    adaptive, fractional, back = (name.startswith(p) for p in ("adaptive", "fractional", "max_unpool"))
    average = "max" not in name
    entry = "avg_pool" if average else "max_pool"
    entry = {"lp_pool": "lp_pool", "max_unpool": "max_unpool", "fractional_max_pool": "fractional_max_pool"}.get(
        name, entry
    )
    samples = (
        partial(adaptive_samples, n=n)
        if adaptive
        else partial(fractional_samples, n=n)
        if fractional
        else partial(unpool_samples, n=n)
        if back
        else partial(plain_samples, n=n, name=name)
    )
    bad = (
        partial(adaptive_bad, n=n)
        if adaptive
        else partial(fractional_bad, n=n)
        if fractional
        else partial(unpool_bad, n=n)
        if back
        else partial(plain_bad, n=n, name=name)
    )
    cls = "".join(w if w == "LP" else w.title() for w in name.replace("lp", "LP").split("_")) + f"{n}d"
    theirs = by_torch(kind)

    def make_layer(make: Maker) -> tuple[torch.nn.Module, torch.nn.Module, tuple[Any, ...]]:
        x = (inputs(make, n),)
        return getattr(nn, cls)(*layer), getattr(torch.nn, cls)(*layer), x

    def value(f: Callable[..., Any]) -> Callable[..., Tensor]:
        return lambda *args, **kwargs: f(*args, **kwargs)[0]

    ours: Callable[..., Tensor] = getattr(F, kind)
    if with_indices:
        ours, theirs = value(getattr(F, f"{kind}_with_indices")), value(getattr(TF, f"{kind}_with_indices"))
    if fractional:
        ours, theirs = with_samples(ours), with_samples(theirs)
    if back:
        ours, theirs = with_places(ours), with_places(theirs)
    registered = (entry, f"{entry}_backward")
    if with_indices:
        registered = (f"{entry}_with_indices", f"{entry}_with_indices_backward")
    elif entry.endswith("max_pool"):
        registered = (entry, f"{entry}_recorded", f"{entry}_backward")
    return OpSpec(
        name=kind,
        variant="with_indices" if with_indices else "",
        family="pooling",
        op=ours,
        torch=theirs,
        samples=samples,
        smooth=partial(smooth, n=n, name=name),
        drawn=None if fractional or back else partial(drawn, n=n, name=name),
        bytes=elementwise_bytes,
        registered=registered,
        scale=partial(scale, f=theirs, linear=average),
        bad=bad,
        layer=None if with_indices or fractional or back else make_layer,
    )


_LAYERS: dict[str, tuple[Any, ...]] = {
    "max_pool": (3, 2, 1),
    "avg_pool": (3, 2, 1),
    "lp_pool": (2, 2),
    "adaptive_max_pool": (2,),
    "adaptive_avg_pool": (2,),
    "fractional_max_pool": (2, 3),
    "max_unpool": (2,),
}

SPECS: tuple[OpSpec, ...] = (
    *(pool_spec(name, n, layer) for name, layer in _LAYERS.items() for n in (1, 2, 3) if n > 1 or name[0] != "f"),
    pool_spec("max_pool", 2, (), with_indices=True),
    pool_spec("fractional_max_pool", 2, (), with_indices=True),
)
