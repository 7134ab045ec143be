"""What a user's hook unpacks is taken as arguments are: views that are negated lazily, zeros, other strides."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from neurokern.testing import Maker, OpSpec
from torch import Tensor


def rearranged(t: Tensor) -> Tensor:
    """The same values at steps of two."""
    wide = t.new_empty((*t.shape, 2)) if t.dim() else t.new_empty(2)
    part = wide.select(-1, 0)
    part.copy_(t)
    return part


HOOKS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "negated": (
        lambda t: -t if t.is_floating_point() else t,
        lambda t: torch._neg_view(t) if t.is_floating_point() else t,
    ),
    "strided": (lambda t: t.clone(), rearranged),
    "zero": (lambda t: t, lambda t: torch._efficientzerotensor(t.shape, dtype=t.dtype)),
    "zeros": (lambda t: t, torch.zeros_like),
}


def gradients(spec: OpSpec, args: list, kwargs: dict, hook: str, second: bool) -> list[Tensor]:
    leaves = [a.detach().clone().requires_grad_() if isinstance(a, Tensor) else a for a in args]
    wanted = [a for a in leaves if isinstance(a, Tensor)]
    pack, unpack = HOOKS[hook]
    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        y = spec.op(*leaves, **kwargs)
        g = torch.ones_like(y).requires_grad_(second)
        first = torch.autograd.grad(y, wanted, g, create_graph=second, allow_unused=True)
    return [torch.zeros_like(w) if t is None else t.detach() for t, w in zip(first, wanted, strict=True)]


@pytest.mark.parametrize("second", [False, True], ids=["kernels", "formulas"])
def test_what_hooks_unpack(spec: OpSpec, second: bool, seed: int) -> None:
    if not spec.differentiable:
        pytest.skip("has no gradient")
    sample = next(s for s in spec.samples(Maker.seeded(seed, spec.id, "hooks")) if s.args[0].numel() > 1)
    args, kwargs = list(sample.args), dict(sample.kwargs)
    identity = gradients(spec, args, kwargs, "strided", second)
    negated = gradients(spec, args, kwargs, "negated", second)
    for ours, want in zip(negated, identity, strict=True):
        torch.testing.assert_close(ours, want, equal_nan=True)
    lazy, real = (gradients(spec, args, kwargs, hook, second) for hook in ("zero", "zeros"))
    for ours, want in zip(lazy, real, strict=True):
        torch.testing.assert_close(ours, want, equal_nan=True)
