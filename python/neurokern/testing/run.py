"""Runs a spec's samples on our kernels and compares them, with their gradients, with torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from .. import _C
from .compare import Profile, Result, mismatch, ulp
from .spec import Maker, OpSpec, Sample

ENOUGH = 1024  # elements from which torch's error can be told
# the same for a sum in float64, where these alone bound the error, and those of an outer product share theirs
ENOUGH_FOR_FLOAT64 = 16 * ENOUGH
DRAWS = 32  # at most so many draws to reach them
NUDGES = 4  # movements of the inputs that tell the scale of a sum
NUDGES_ALONE = 16  # for one element by itself: a few terms, in most of their combinations of signs


@contextmanager
def nan_filled() -> Iterator[None]:
    """Within the block, new memory holds NaN, so that an element that a kernel forgets to write is seen."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    _C.poison_new_tensors(True)  # the extension allocates by a way that does not heed torch's switch
    try:
        yield
    finally:
        _C.poison_new_tensors(False)
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


Named = list[tuple[str, Tensor]]


def _leaves(sample: Sample, dtype: torch.dtype | None, grad: bool) -> tuple[list[Any], Any, list[int]]:
    """The arguments as fresh leaves (same memory and strides where the dtype stays), and which are floating tensors."""
    flat, tree = tree_flatten((sample.args, sample.kwargs))
    floating = [i for i, v in enumerate(flat) if isinstance(v, Tensor) and v.is_floating_point()]
    for i in floating:
        t = flat[i].detach()
        flat[i] = (t if dtype is None else t.to(dtype)).requires_grad_(grad)
    return flat, tree, floating


def evaluate(
    f: Callable[..., Any], sample: Sample, order: int, cotangents: tuple[Tensor, ...], wide: bool = False
) -> Named:
    """The output of f and, up to `order`, the derivatives with respect to every floating argument, named.

    Args:
        f: one tensor out.
        cotangents: of the output and, for the second order, of each first derivative.
        wide: compute in float64.
    """
    dtype = torch.float64 if wide else None
    flat, tree, floating = _leaves(sample, dtype, order > 0)
    args, kwargs = tree_unflatten(flat, tree)
    out = f(*args, **kwargs)
    found = [("output", out.detach())]
    if order == 0 or not out.requires_grad:
        return found
    g, *second = (c if dtype is None else c.to(dtype) for c in cotangents)
    inputs = [flat[i] for i in floating]
    if order > 1:
        g = g.detach().requires_grad_()
    first = torch.autograd.grad(out, inputs, g, create_graph=order > 1, allow_unused=True)
    found += [(f"gradient of tensor {k}", v.detach()) for k, v in enumerate(first) if v is not None]
    if order > 1:
        pairs = [(v, c) for v, c in zip(first, second, strict=True) if v is not None and v.requires_grad]
        twice = torch.autograd.grad([v for v, _ in pairs], [*inputs, g], [c for _, c in pairs], allow_unused=True)
        # an argument that a derivative does not depend on has None or zeros: both mean the same
        zeros = [torch.zeros_like(v) if w is None else w for v, w in zip((*inputs, g), twice, strict=True)]
        found += [(f"second derivative of tensor {k}", v.detach()) for k, v in enumerate(zeros)]
    return found


def _one_by_one(
    f: Callable[..., Any], sample: Sample, order: int, cotangents: tuple[Tensor, ...], wide: bool = False
) -> Named:
    """`evaluate` for each element of a vector by itself."""
    x, *rest = sample.args
    parts = []
    for i in range(len(x)):
        one = slice(i, i + 1)
        g = tuple(c[one] for c in cotangents)
        parts.append(evaluate(f, Sample("", (x[one], *rest), sample.kwargs), order, g, wide))
    return [(name, torch.cat([p[k][1] for p in parts])) for k, (name, _) in enumerate(parts[0])]


def cotangents(make: Maker, f: Callable[..., Any], sample: Sample) -> tuple[Tensor, ...]:
    """Random ones for the output and for each floating argument."""
    flat, tree, floating = _leaves(sample, None, False)
    args, kwargs = tree_unflatten(flat, tree)
    with torch.no_grad():
        out = f(*args, **kwargs)
    g = make(*out.shape).to(out.dtype)
    return (g, *(make(*flat[i].shape).to(flat[i].dtype) for i in floating))


def sensitivity(
    f: Callable[..., Any], sample: Sample, order: int, g: tuple[Tensor, ...], reference: Named, make: Maker, alone: bool
) -> list[Tensor]:
    """How far each result moves, relative to the movement, when every input moves by a share of itself."""
    flat, tree, floating = _leaves(sample, torch.float64, False)
    total = [torch.zeros_like(r.flatten()) for _, r in reference]
    step = 2.0**-20

    def moved(t: Tensor) -> Tensor:
        sign = torch.randint(0, 2, t.shape, generator=make.generator) * 2 - 1
        return t.double() * (1 + step * sign.to(t.device))

    count = NUDGES_ALONE if alone else NUDGES
    for _ in range(count):
        nudged = list(flat)
        for i in floating:
            nudged[i] = moved(flat[i])
        args, kwargs = tree_unflatten(nudged, tree)
        near = evaluate(f, Sample("", args, kwargs), order, tuple(moved(c) for c in g), wide=True)
        for k, ((_, n), (_, r)) in enumerate(zip(near, reference, strict=True)):
            move = ((n - r).flatten() / step).abs().nan_to_num(0.0, 0.0)
            total[k] = torch.maximum(total[k], move) if alone else torch.hypot(total[k], move)
    # the terms of one element move together in some draw; a few that cancelled in each would be called exact
    if alone:
        return total
    scales = [t / count**0.5 for t in total]
    # terms within a derivative may move together and cancel: then the rest of the tensor tells their size
    return [s if k == 0 or not s.numel() else s.clamp(min=s.square().mean().sqrt() / 4) for k, s in enumerate(scales)]


def elementwise(spec: OpSpec) -> bool:
    """Whether an element of the result depends on one place of the inputs, so that one profile serves all samples."""
    return spec.scale in ("magnitude", "smooth")


def scales_of(
    spec: OpSpec,
    f: Callable[..., Any],
    sample: Sample,
    order: int,
    g: tuple[Tensor, ...],
    reference: Named,
    make: Maker,
) -> list[Tensor]:
    """The size of the terms of each result, by the spec's rule."""
    magnitude = [r.flatten().abs() for _, r in reference]
    if spec.from_output and order == 1:
        # 1 - y and 1 - y^2 carry the rounding of y, though they vanish where y is near 1
        y = reference[0][1].flatten()
        magnitude[1] = torch.maximum(magnitude[1], g[0].double().flatten().abs() * y.square())
    # an edge's neighbours may lie across a kink: nothing is moved there
    if spec.scale == "magnitude" or (spec.scale == "smooth" and sample.alone):
        return magnitude
    scales = None
    if spec.scale == "absolute":
        scales = [v for _, v in evaluate(f, _mapped(sample, abs), order, tuple(c.abs() for c in g), wide=True)]
    elif callable(spec.scale):
        scales = spec.scale(_mapped(sample, lambda v: v), tuple(c.double() for c in g), reference)
    if scales is None:
        scales = sensitivity(f, sample, order, g, reference, make, elementwise(spec))
    return [torch.maximum(a, b.flatten()) for a, b in zip(magnitude, scales, strict=True)]


def _mapped(sample: Sample, f: Callable[[Any], Any]) -> Sample:
    """The sample in float64, with f applied to every tensor and number."""
    flat, tree, _ = _leaves(sample, torch.float64, False)
    args, kwargs = tree_unflatten([f(v) if isinstance(v, Tensor | float) else v for v in flat], tree)
    return Sample(sample.why, args, kwargs)


@dataclass(frozen=True)
class Expected:
    """A sample with all that judging a result needs."""

    sample: Sample
    cotangents: tuple[Tensor, ...]
    torch: Named
    results: list[Result]
    profiles: list[Profile]


def samples_of(spec: OpSpec, make: Maker, order: int, count: int | None = None) -> list[Sample]:
    """The spec's samples (the first `count`); those of second derivatives stay away from points where there is none."""
    if order > 1:
        return list(islice(spec.smooth(make), count)) if spec.smooth else []
    return list(islice(spec.samples(make), count))


def _results(
    spec: OpSpec, sample: Sample, order: int, g: tuple[Tensor, ...], make: Maker
) -> tuple[Named, list[Result]]:
    """torch's results for a sample, and the same with reference and scale."""
    exact = spec.exact or spec.torch
    in_float64 = make.dtype == torch.float64
    run = _one_by_one if sample.alone else evaluate
    named = run(exact if in_float64 or (order > 1 and not spec.from_output) else spec.torch, sample, order, g)
    if in_float64 and spec.exact and order == 1:
        # NaN and infinity stay torch's
        own = run(spec.torch, sample, order, g)
        named = [(n, torch.where(t.isfinite(), e, t)) for (n, e), (_, t) in zip(named, own, strict=True)]
    reference = named if in_float64 else run(exact, sample, order, g, wide=True)
    scales = scales_of(spec, exact, sample, order, g, reference, make)
    least = torch.finfo(make.dtype).smallest_normal
    return named, [
        Result(t.double().flatten(), r.flatten(), s.clamp(min=least).nan_to_num(0.0, 0.0))
        for (_, t), (_, r), s in zip(named, reference, scales, strict=True)
    ]


@lru_cache(maxsize=16)
def expected(spec: OpSpec, dtype: torch.dtype, device: str, seed: int, order: int) -> tuple[Expected, ...]:
    """Every sample with torch's results and errors; computed once for all targets.

    The profile of a sum is that of its sample, in as many draws as make it tell something; an elementwise function
    has one profile over all its samples.
    """
    error_dtype = torch.float32 if dtype == torch.float64 else dtype
    fresh = Maker.seeded(seed, spec.id, order, dtype=dtype, device=device)
    samples = samples_of(spec, fresh, order)
    asked = []
    for sample in samples:
        g = cotangents(fresh, spec.torch, sample)
        asked.append((sample, g, *_results(spec, sample, order, g, fresh)))
    # pools[i][n]: torch's errors for output n of sample i, or of all samples under one key
    pools: dict[int, list[list[Result]]] = {}
    key = (lambda i: -1) if elementwise(spec) else (lambda i: i)
    enough = ENOUGH_FOR_FLOAT64 if dtype == torch.float64 and not elementwise(spec) else ENOUGH
    for i, (_, _, _, results) in enumerate(asked):
        pool = pools.setdefault(key(i), [[] for _ in results])
        if dtype != torch.float64:
            for n, r in enumerate(results):
                pool[n].append(r)
    for k in range(DRAWS):
        thin = [i for i, a in enumerate(asked) if _thin(pools[key(i)], a[3], enough)]
        if not thin:
            break
        make = Maker.seeded(seed, spec.id, order, "draw", k, dtype=error_dtype, device=device)
        drawn = samples_of(spec, make, order, thin[-1] + 1)
        for i in thin:
            g = cotangents(make, spec.torch, drawn[i])
            for pool, r in zip(pools[key(i)], _results(spec, drawn[i], order, g, make)[1], strict=True):
                if _small(pool, enough):
                    pool.append(r)
    # float32's error at one place says little about float64's reference there
    how = elementwise(spec), dtype == torch.float64
    profiles = {at: [Profile.of(p, *how) for p in pool] for at, pool in pools.items()}
    return tuple(Expected(s, g, t, r, profiles[key(i)]) for i, (s, g, t, r) in enumerate(asked))


def expected_of(spec: OpSpec, sample: Sample, make: Maker, g: tuple[Tensor, ...] | None = None) -> Expected:
    """One sample that is not among the spec's, to the first order; torch's errors are those of this call, and for an
    elementwise function also those of the spec's own samples.

    Args:
        g: cotangent of the output; drawn when None.
    """
    order = 1 if spec.differentiable else 0
    g = g or cotangents(make, spec.torch, sample)
    named, results = _results(spec, sample, order, g, make)
    if elementwise(spec) or make.dtype == torch.float64:
        return Expected(sample, g, named, results, _profiles(spec, make.dtype, make.device, len(results), sample, make))
    pool = [[r] for r in results]
    for _ in range(DRAWS):
        if not _thin(pool, results, ENOUGH):
            break
        again = cotangents(make, spec.torch, sample)
        like = _redrawn(sample, make)
        for p, r in zip(pool, _results(spec, like, order, again, make)[1], strict=True):
            if _small(p, ENOUGH):
                p.append(r)
    return Expected(sample, g, named, results, [Profile.of(p, False) for p in pool])


def _redrawn(sample: Sample, make: Maker) -> Sample:
    """Other values of the same shapes and about the same sizes."""

    def other(v: Any) -> Any:
        if not (isinstance(v, Tensor) and v.is_floating_point()):
            return v
        spread = v.detach().double().flatten()
        order = torch.randperm(v.numel(), generator=make.generator).to(v.device)
        return spread[order].view(v.shape).to(make.dtype)

    return Sample(sample.why, tuple(map(other, sample.args)), {k: other(v) for k, v in sample.kwargs.items()})


@lru_cache(maxsize=256)
def _elementwise_profiles(spec: OpSpec, dtype: torch.dtype, device: str) -> list[Profile]:
    """torch's errors over all the spec's samples: a few MiB, asked for again with every layout and shape."""
    return expected(spec, dtype, device, 0, 1 if spec.differentiable else 0)[0].profiles


def _profiles(
    spec: OpSpec, dtype: torch.dtype, device: str, outputs: int, sample: Sample, make: Maker
) -> list[Profile]:
    """torch's errors: of all the spec's samples for an elementwise function, of float32 twins for a float64 sum."""
    if elementwise(spec):
        return _elementwise_profiles(spec, dtype, device)
    error = Maker(torch.float32, make.generator, device)
    pool: list[list[Result]] = [[] for _ in range(outputs)]
    for _ in range(DRAWS):
        like = _redrawn(sample, error)
        g = cotangents(error, spec.torch, like)
        for p, r in zip(pool, _results(spec, like, 1, g, error)[1], strict=True):
            p.append(r)
        if not _thin(pool, [p[-1] for p in pool], ENOUGH_FOR_FLOAT64):
            break
    return [Profile.of(p, False) for p in pool]


def _thin(pool: list[list[Result]], results: list[Result], enough: int) -> bool:
    """Whether a pool says too little about torch's error of one of these results."""
    return any(r.result.numel() and _small(p, enough) for r, p in zip(results, pool, strict=True))


def _small(pool: list[Result], enough: int) -> bool:
    return sum(r.result.numel() for r in pool) < enough


def judge(spec: OpSpec, want: Expected, order: int) -> list[str]:
    """What is wrong with our result for one sample, output and derivatives, on the target in force.

    Without a gradient, too, where the way through an op is another.
    """
    with nan_filled():
        ours = evaluate(spec.op, want.sample, order, want.cotangents)
        plain = evaluate(spec.op, want.sample, 0, ())[0][1] if order == 1 else None
    names = [n for n, _ in ours]
    if names != [n for n, _ in want.torch]:
        return [f"sample '{want.sample.why}': we give {names}, torch {[n for n, _ in want.torch]}"]
    every = [(order, at, name, o) for at, (name, o) in enumerate(ours)]
    if plain is not None:
        every.append((0, 0, "output without a gradient", plain))
    wrong = []
    for way, at, name, o in every:
        r = want.results[at]
        what = mismatch(o, want.torch[at][1], r.reference, r.scale, want.profiles[at], spec.tolerance)
        if what and not (_may_be_luck(spec, want, order) and _usually_right(spec, want, order, at, o, way)):
            wrong.append(f"{name} for sample '{want.sample.why}': {what}")
    return wrong


def _may_be_luck(spec: OpSpec, want: Expected, order: int) -> bool:
    """The largest error of a few sums is a matter of luck, ours and torch's; float64 has only a bound on torch's.

    A second derivative is a sum, of a few products, for elementwise functions, too.
    """
    return (order > 1 or not elementwise(spec)) and want.torch[0][1].dtype != torch.float64


def _usually_right(spec: OpSpec, want: Expected, order: int, at: int, ours: Tensor, way: int) -> bool:
    """Result number `at` over many draws: the root mean square of our errors is within the rule, and none, this draw's
    included, is more than twice as far as the rule allows.

    Args:
        way: the order to which we compute it, 0 where no gradient is wanted.
    """
    result = want.results[at]
    make = Maker.seeded(0, spec.id, want.sample.why, dtype=ours.dtype, device=ours.device.type)
    mine, theirs = [], []

    def note(o: Tensor, r: Result) -> None:
        # where NaN and infinity belong is the sample's own question
        finite = r.result.isfinite() & r.reference.isfinite()
        error = (o.double().flatten() - r.reference).abs() - ulp(r.reference, ours.dtype)
        mine.append((error.clamp(min=0.0) / r.scale)[finite])
        theirs.append(((r.result - r.reference).abs() / r.scale)[finite])

    note(ours, result)
    for _ in range(DRAWS):
        sample = _redrawn(want.sample, make)
        g = cotangents(make, spec.torch, sample)
        results = _results(spec, sample, order, g, make)[1]
        note(evaluate(spec.op, sample, way, g)[at][1], results[at])
    m, t = torch.cat(mine), torch.cat(theirs)
    if not m.isfinite().all():
        return False
    allowed = spec.tolerance * t.square().mean().sqrt()
    return bool(m.square().mean().sqrt() <= allowed and m.max() <= 2 * spec.tolerance * t.max())
