"""What an op is, said once: its samples, reference, tolerance, work and wrong calls.

A spec lives in ``tests/specs/<family>.py`` (installed as ``neurokern.specs``); tests, ``neurokern check`` and
``neurokern bench`` loop over the specs and never bring a reference of their own.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

FAMILIES = ("matmul", "activation")
FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@dataclass
class Maker:
    """Draws the tensors of a sample: fresh random values from `generator`, of one dtype, on one device."""

    dtype: torch.dtype
    generator: torch.Generator
    device: str = "cpu"
    requires_grad: bool = False

    def __call__(self, *shape: int, scale: float = 1.0, low: float | None = None, high: float | None = None) -> Tensor:
        """Normal values of that scale, or uniform ones in [low, high)."""
        wide = torch.float64 if self.dtype == torch.float64 else torch.float32
        if low is None or high is None:
            t = torch.randn(shape, generator=self.generator, dtype=wide) * scale
        else:
            t = torch.rand(shape, generator=self.generator, dtype=wide) * (high - low) + low
        return self.wrap(t)

    def values(self, *numbers: float) -> Tensor:
        """These very numbers, rounded to the dtype."""
        return self.wrap(torch.tensor(numbers, dtype=torch.float64))

    def wrap(self, t: Tensor) -> Tensor:
        """A tensor drawn by other means, as a leaf of this maker's dtype and device."""
        return t.to(device=self.device, dtype=self.dtype).detach().requires_grad_(self.requires_grad)


@dataclass(frozen=True)
class Sample:
    """Arguments of one call, and in words why this call is among the samples."""

    why: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class BadCall:
    """A wrong call: what it must raise, and words that the message must hold (op, argument, what it was)."""

    why: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    raises: type[Exception]
    says: tuple[str, ...]


@dataclass(frozen=True)
class OpSpec:
    """One public function of ``neurokern.functional``.

    Attributes:
        name: the public name; `variant` tells apart specs of one name.
        family: column of the grid.
        op: our function.
        torch: the same by torch (unfused where torch has no fused form): the reference, in float64, and the op to beat.
        samples: makes the samples of a dtype; small enough that the whole list runs in seconds.
        bench: arguments of one timed call from a shape of the op's suite.
        flops, bytes: work of a call, for GFLOP/s and GB/s.
        registered: names under ``torch.ops.neurokern`` that it exercises.
        bad: wrong calls.
        layer: makes (our layer, torch's layer, example arguments), where there is a layer.
        tolerance: factor on torch's own error (2 by the house's rule); a larger one needs its reason in `note`.
    """

    name: str
    family: str
    op: Callable[..., Any]
    torch: Callable[..., Any]
    samples: Callable[[Maker], Iterator[Sample]]
    variant: str = ""
    bench: Callable[..., Sample] | None = None
    flops: Callable[[Sample], float] | None = None
    bytes: Callable[[Sample], float] | None = None
    registered: tuple[str, ...] = ()
    bad: Callable[[Maker], Iterator[BadCall]] | None = None
    layer: Callable[[], tuple[torch.nn.Module, torch.nn.Module, tuple[Any, ...]]] | None = None
    dtypes: tuple[torch.dtype, ...] = FLOATS
    backends: tuple[str, ...] = ("cpu", "cuda", "triton")
    differentiable: bool = True
    tolerance: float = 2.0
    note: str = ""

    @property
    def id(self) -> str:
        return f"{self.name}-{self.variant}" if self.variant else self.name


@cache
def all_specs() -> tuple[OpSpec, ...]:
    """Every spec of every family."""
    found: list[OpSpec] = []
    for family in FAMILIES:
        found += importlib.import_module(f"neurokern.specs.{family}").SPECS
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
