"""What an op is, said once: its samples, reference, work and wrong calls.

A spec lives in ``tests/specs/<family>.py`` (installed as ``neurokern.specs``); tests, ``neurokern check`` and
``neurokern bench`` loop over the specs and never bring a reference of their own.
"""

from __future__ import annotations

import importlib
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pkgutil import iter_modules
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

T = TypeVar("T")


def mixed(seed: int, *names: object) -> int:
    """A seed of 32 bits that depends on the seed and on the names."""
    return zlib.crc32(repr((seed, *map(str, names))).encode())


@dataclass
class Maker:
    """Draws the tensors of a sample: fresh random values from `generator`, of one dtype, on one device."""

    dtype: torch.dtype
    generator: torch.Generator
    device: str = "cpu"
    requires_grad: bool = False

    @classmethod
    def seeded(cls, seed: int, *names: object, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Maker:
        """A maker whose values depend on the seed and on names (of a spec, of a draw): no two tests share them."""
        return cls(dtype, torch.Generator().manual_seed(mixed(seed, *names)), device)

    def __call__(self, *shape: int, scale: float = 1.0, low: float | None = None, high: float | None = None) -> Tensor:
        """Normal values of that scale, or uniform ones in [low, high)."""
        wide = torch.float64 if self.dtype == torch.float64 else torch.float32
        if low is None or high is None:
            t = torch.randn(shape, generator=self.generator, dtype=wide) * scale
        else:
            t = torch.rand(shape, generator=self.generator, dtype=wide) * (high - low) + low
        return self.wrap(t)

    def grid(self, *shape: int, step: float = 0.125, limit: int = 16) -> Tensor:
        """Multiples of `step` up to `limit` steps: sums of products are exact, so no rounding decides a comparison."""
        t = torch.randint(-limit, limit + 1, shape, generator=self.generator)
        return self.wrap(t.to(torch.float64) * step)

    def magnitudes(self, count: int, low: float, high: float) -> Tensor:
        """Numbers of both signs whose logarithm is uniform between those of 2**low and 2**high."""
        size = torch.rand(count, generator=self.generator, dtype=torch.float64) * (high - low) + low
        sign = torch.randint(0, 2, (count,), generator=self.generator) * 2 - 1
        return self.wrap(sign * size.exp2())

    def values(self, *numbers: float) -> Tensor:
        """These very numbers, rounded to the dtype."""
        return self.wrap(torch.tensor(numbers, dtype=torch.float64))

    def wrap(self, t: Tensor) -> Tensor:
        """A tensor drawn by other means, as a leaf of this maker's dtype and device."""
        return t.to(device=self.device, dtype=self.dtype).detach().requires_grad_(self.requires_grad)


class Draw(Protocol):
    """Who decides the shapes of a drawn sample: hypothesis, a replay, or a plain random generator."""

    def integer(self, low: int, high: int) -> int: ...

    def choice(self, options: Sequence[T]) -> T: ...


@dataclass(frozen=True)
class Sample:
    """Arguments of one call, and in words why this call is among the samples.

    `heavy` samples are left out where a call costs much more than on a processor (the Triton interpreter).
    `alone`: torch is asked for each element of the first argument by itself, because its vector loop and the remainder
    answer differently (the gradient of hardtanh at NaN); what it says of one element is what a GPU says too.
    `chosen` samples are those of targets that need only a few (`Target.few`): tiles with edges, and what decides ties.
    """

    why: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    heavy: bool = False
    alone: bool = False
    chosen: bool = False


@dataclass(frozen=True)
class BadCall:
    """A wrong call: words that the message must hold beside the op's name, and the exception.

    ``raises=None`` asks for the type that torch's own function raises on the same arguments.
    """

    why: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    says: tuple[str, ...] = ()
    raises: type[Exception] | None = None


@dataclass(frozen=True)
class OpSpec:
    """One public function of ``neurokern.functional``.

    Attributes:
        name: the public name; `variant` tells apart specs of one name.
        family: column of the grid.
        op: our function.
        torch: the same by torch (unfused where torch has no fused form): the reference, in float64, and the op to beat.
        samples: makes the samples of a dtype; small enough that the whole list runs in seconds. The list has the same
            length and order for every dtype, and its values come from the maker alone.
        smooth: small samples where the op is twice differentiable, for gradcheck and second derivatives.
        exact: like `torch`, where torch's own function is no reference: it lacks a second derivative, or loses
            digits to cancellation.
        from_output: torch and we make the derivatives from the rounded output, so torch's own errors are those to meet
            in the second derivative, too, and not those of `exact`.
        scale: what errors are measured against (see ``compare.py``). "magnitude": the result, of an elementwise
            function; "nudge": how far the result moves when the inputs do; "smooth": the same, of an elementwise
            function (but at its edges, the result); "absolute": the result for the absolute values of all inputs, of a
            product; or a function of (float64 sample, cotangents, names and reference results) that gives a tensor for
            each result, or None for "nudge".
        drawn: a sample whose shape a `Draw` decides.
        bench: arguments of one timed call from a shape of the op's suite.
        flops, bytes: work of a call, for GFLOP/s and GB/s.
        registered: names under ``torch.ops.neurokern`` that forward, backward and double backward exercise.
        act: the activation's name in ``kernels/activation.h`` that it is about, if any.
        bad: wrong calls (float32 makers).
        layer: makes (our layer, torch's layer, example arguments), where there is a layer.
        tolerance: factor on torch's own error (2 by the house's rule); a larger one needs its reason in `note`.
    """

    name: str
    family: str
    op: Callable[..., Any]
    torch: Callable[..., Any]
    samples: Callable[[Maker], Iterator[Sample]]
    smooth: Callable[[Maker], Iterator[Sample]] | None = None
    exact: Callable[..., Any] | None = None
    from_output: bool = False
    scale: str | Callable[[Sample, tuple[Tensor, ...], list[tuple[str, Tensor]]], list[Tensor] | None] = "magnitude"
    drawn: Callable[[Maker, Draw], Sample] | None = None
    variant: str = ""
    bench: Callable[..., Sample] | None = None
    flops: Callable[[Sample], float] | None = None
    bytes: Callable[[Sample], float] | None = None
    registered: tuple[str, ...] = ()
    act: str = ""
    bad: Callable[[Maker], Iterator[BadCall]] | None = None
    layer: Callable[[Maker], tuple[torch.nn.Module, torch.nn.Module, tuple[Any, ...]]] | None = None
    dtypes: tuple[torch.dtype, ...] = FLOATS
    backends: tuple[str, ...] = ("cpu", "cuda", "triton")
    differentiable: bool = True
    tolerance: float = 2.0
    note: str = ""

    @property
    def id(self) -> str:
        return f"{self.name}-{self.variant}" if self.variant else self.name

    @property
    def order(self) -> int:
        """Of the derivatives that every call has: 1, or 0 where there is none."""
        return 1 if self.differentiable else 0


@cache
def all_specs() -> tuple[OpSpec, ...]:
    """Every spec of every family."""
    found: list[OpSpec] = []
    package = importlib.import_module("neurokern.specs")
    for module in iter_modules(package.__path__):
        if not module.name.startswith("_"):
            found += importlib.import_module(f"neurokern.specs.{module.name}").SPECS
    return tuple(found)


def spec(id: str) -> OpSpec:
    """The spec of that id.

    Raises:
        KeyError: there is none.
    """
    for s in all_specs():
        if s.id == id:
            return s
    raise KeyError(f"no spec {id!r}; there are {', '.join(s.id for s in all_specs())}")


def numel(t: Tensor) -> int:
    """Elements of a tensor."""
    return math.prod(t.shape)
