"""One timed case: which two functions, on what data, how much work, and how far each is from float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..testing.compare import ulp
from .machine import DTYPES, cache_bytes

#: a case whose tensors take less than this stays in cache between calls, as it would in a network
RESIDENT = 1 << 20
MOST_SETS, MOST_BYTES = {"cpu": 64, "cuda": 256}, 1 << 30


@dataclass(frozen=True)
class Case:
    """Our function against torch's on the same arguments.

    Attributes:
        op: public name; `label`: the shape in words.
        dtype: key of ``DTYPES``.
        ours, theirs: take the arguments of one buffer set. In float64, `theirs` is the reference.
        shapes: of the arguments; the rows of the first can be computed apart from one another.
        scales: standard deviation of each argument's normal values.
        flops: of the forward pass; 0 where bytes are what counts.
        grad: time the gradients of all arguments too, from a random gradient of the result.
        hot: call it with the same tensors again and again; else those that no cache keeps take turns.
        recorded: time the forward pass that autograd records, by itself.
        backward: time the gradients by themselves, of a result that is kept.
        reduces: results are sums of many terms: their error is told in units of a typical result.
        together: arguments that have the rows of the first, so that some of them can be computed apart.
    """

    op: str
    label: str
    dtype: str
    ours: Callable[..., Tensor]
    theirs: Callable[..., Tensor]
    shapes: tuple[tuple[int, ...], ...]
    scales: tuple[float, ...]
    flops: float = 0.0
    grad: bool = False
    hot: bool = False
    recorded: bool = False
    backward: bool = False
    reduces: bool = False
    together: int = 1

    @property
    def direction(self) -> str:
        if self.grad:
            return "forward+backward"
        return "backward" if self.backward else "recorded forward" if self.recorded else "forward"

    @property
    def name(self) -> str:
        return f"{self.op} {self.label} {self.dtype} {self.direction}"

    def bytes(self, out: Tensor) -> float:
        """Least traffic: each argument read and the result written once; with gradients, all of it three times."""
        elements = sum(math.prod(s) for s in self.shapes) + out.numel()
        return elements * out.element_size() * (3 if self.grad else 2 if self.backward else 1)

    def work(self) -> float:
        """Operations of the timed call: a gradient costs two products for the one of the forward pass."""
        return self.flops * (3 if self.grad else 2 if self.backward else 1)


class Pool:
    """Fresh random numbers for every buffer set, cut from one large draw."""

    def __init__(self, seed: int, device: str) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._values = torch.randn(1 << 22, generator=self._generator).to(device)

    def draw(self, shape: tuple[int, ...], scale: float, dtype: torch.dtype) -> Tensor:
        """Normal values of that standard deviation."""
        n, have = math.prod(shape), self._values.numel()
        out = torch.empty(n, dtype=dtype, device=self._values.device)
        for start in range(0, n, have // 2):
            length = min(have // 2, n - start)
            at = int(torch.randint(have - length + 1, (), generator=self._generator))
            torch.mul(self._values[at : at + length], scale, out=out[start : start + length])
        return out.view(shape)

    def rows(self, n: int, most: int) -> Tensor:
        """At most that many different row numbers below n."""
        if n <= most:
            return torch.arange(n, device=self._values.device)
        return torch.randint(n, (most,), generator=self._generator).unique().to(self._values.device)


def arguments(case: Case, pool: Pool) -> list[Tensor]:
    """One buffer set."""
    drawn = [pool.draw(s, k, DTYPES[case.dtype]) for s, k in zip(case.shapes, case.scales, strict=True)]
    return [t.requires_grad_(case.grad or case.recorded or case.backward) for t in drawn]


def _step(function: Callable[..., Tensor], args: list[Tensor], g: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(function(*args), args, g)


def _kept(function: Callable[..., Tensor], sets: list[list[Tensor]], grads: list[Tensor]) -> list[Callable[[], Any]]:
    results = [function(*args) for args in sets]
    return [
        partial(torch.autograd.grad, y, a, g, retain_graph=True) for y, a, g in zip(results, sets, grads, strict=True)
    ]


def calls(case: Case, pool: Pool, device: str) -> tuple[list[Callable[[], Any]], list[Callable[[], Any]], Tensor]:
    """The calls of both sides, one per buffer set, and a result (for its size)."""
    args = arguments(case, pool)
    with torch.no_grad():
        out = case.ours(*args)
    size = sum(t.numel() for t in [*args, out]) * out.element_size()
    cache = (4 if device == "cuda" else 2) * cache_bytes(device)
    count = 1
    if not case.hot and size > RESIDENT:
        count = max(1, min(MOST_SETS[device], -(-cache // size), MOST_BYTES // size))
    sets = [args, *(arguments(case, pool) for _ in range(count - 1))]
    if not (case.grad or case.backward):
        return [partial(case.ours, *a) for a in sets], [partial(case.theirs, *a) for a in sets], out
    grads = [pool.draw(tuple(out.shape), 1.0, out.dtype) for _ in sets]
    if case.backward:
        return _kept(case.ours, sets, grads), _kept(case.theirs, sets, grads), out
    ours = [partial(_step, case.ours, a, g) for a, g in zip(sets, grads, strict=True)]
    return ours, [partial(_step, case.theirs, a, g) for a, g in zip(sets, grads, strict=True)], out


def errors(case: Case, pool: Pool) -> tuple[float, float]:
    """Largest error of ours and of torch's, in units of the last place of the float64 result.

    A sample of the rows is compared, of the result and of the first argument's gradient; ours come from the whole call.
    """
    args = arguments(case, pool)
    n = case.shapes[0][0]
    rows = pool.rows(n, 1 << 16 if len(case.shapes[0]) == 1 else max(16, (1 << 16) // math.prod(case.shapes[0][1:])))
    cut = case.together
    narrow = [*(a.detach()[rows].requires_grad_(case.grad) for a in args[:cut]), *args[cut:]]
    wide = [a.detach().double().requires_grad_(case.grad) for a in narrow]
    reference = case.theirs(*wide)
    # torch's own error is that of its call on these rows alone: its whole float16 products take minutes on a CPU
    results = [case.ours(*args), case.theirs(*narrow)]
    found = [ulps(r[k].detach(), reference.detach(), case.reduces) for r, k in zip(results, (rows, ...), strict=True)]
    if case.grad:
        g = pool.draw(tuple(results[0].shape), 1.0, results[0].dtype)
        (exact,) = torch.autograd.grad(reference, wide[:1], g[rows].double())
        (mine,) = torch.autograd.grad(results[0], args[:1], g)
        (theirs,) = torch.autograd.grad(results[1], narrow[:1], g[rows])
        found = [max(found[0], ulps(mine[rows], exact, True)), max(found[1], ulps(theirs, exact, True))]
    return found[0], found[1]


def ulps(got: Tensor, exact: Tensor, typical: bool) -> float:
    """Largest difference in units of the last place of `exact`, or of a typical element where that is larger."""
    size = exact.abs()
    if typical:
        size = size.clamp_min(float(exact.square().mean().sqrt()))
    worst = ((got.double() - exact).abs() / ulp(size, got.dtype)).max()
    return math.inf if torch.isnan(worst) else float(worst)
