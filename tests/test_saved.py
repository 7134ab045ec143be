"""What autograd keeps of each op: no more than torch keeps of its own, and it survives what torch's survives."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from neurokern.testing import Maker, OpSpec
from torch import Tensor

# Of these torch has no function of its own: what it is put together from keeps more or other tensors.
PUT_TOGETHER = {"attention", "swiglu", "geglu", "reglu", "squared_relu", "rrelu-noise"}
# The product of input1 and weight, which both other gradients are made from, in the place of what it is made from; of
# an affine grid the regular one, once for the batch, which torch makes again.
KEEPS_A_PRODUCT = {"bilinear", "affine_grid-2d", "affine_grid-3d"}
KEEPS_INPUT = "tanhshrink keeps its input, torch's the tanh of it"


def kept(f: Callable[[], Tensor]) -> tuple[int, int]:
    """Tensors that autograd keeps for f, and the bytes of memory that they hold."""
    found: dict[int, int] = {}
    count = 0

    def pack(t: Tensor) -> Tensor:
        nonlocal count
        count += 1
        found[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        f()
    return count, sum(found.values())


def judged(spec: OpSpec, request: pytest.FixtureRequest) -> None:
    """Skip what has no counterpart in torch."""
    if not spec.differentiable or spec.name in PUT_TOGETHER or spec.id in PUT_TOGETHER:
        pytest.skip("torch has no such gradient")


def first_sample(spec: OpSpec, seed: int):
    return next(s for s in spec.samples(Maker.seeded(seed, spec.id, "saved")) if s.args[0].numel() > 1)


def masks(arguments: list) -> list[tuple[bool, ...]]:
    """Which of the tensors want a gradient: each alone, then all of them."""
    at = [i for i, a in enumerate(arguments) if isinstance(a, Tensor)]
    return [tuple(i == j for i in range(len(arguments))) for j in at] + [tuple(i in at for i in range(len(arguments)))]


def leaves(arguments: list, mask: tuple[bool, ...]) -> list:
    return [
        a.detach().clone().requires_grad_(wanted) if isinstance(a, Tensor) else a
        for a, wanted in zip(arguments, mask, strict=True)
    ]


def flat(spec: OpSpec, seed: int) -> tuple[list, dict]:
    """The arguments by position and the tensors among the keywords behind them."""
    sample = first_sample(spec, seed)
    return list(sample.args), dict(sample.kwargs)


def test_no_more_than_torch_keeps(spec: OpSpec, seed: int, request: pytest.FixtureRequest) -> None:
    judged(spec, request)
    args, kwargs = flat(spec, seed)
    for mask in masks(args):
        ours, torchs = leaves(args, mask), leaves(args, mask)
        count, size = kept(lambda: spec.op(*ours, **kwargs))  # noqa: B023
        most, largest = kept(lambda: spec.torch(*torchs, **kwargs))  # noqa: B023
        if spec.id not in KEEPS_A_PRODUCT:
            assert size <= largest, f"{mask}: {size} bytes, torch {largest}"
            assert count <= most, f"{mask}: {count} tensors, torch {most}"


def gradient(f: Callable[..., Tensor], arguments: list, kwargs: dict, mask: tuple[bool, ...], written: int) -> object:
    """The gradients where argument ``written`` is changed between forward and backward; the exception's type if any."""
    given = leaves(arguments, mask)
    steps = [g * 1 if isinstance(g, Tensor) else g for g in given]
    y = f(*steps, **kwargs)
    with torch.no_grad():
        steps[written].add_(1)
    wanted = [g for g, w in zip(given, mask, strict=True) if w]
    try:
        return torch.autograd.grad(y.sum(), wanted, allow_unused=True)
    except RuntimeError as error:
        return error


def test_what_is_written_to_is_missed_only_where_torch_misses_it(
    spec: OpSpec, seed: int, request: pytest.FixtureRequest
) -> None:
    """An argument that changes after the call: right where torch is right; where we raise, torch raises, too."""
    judged(spec, request)
    if spec.name == "tanhshrink":
        request.applymarker(pytest.mark.xfail(strict=True, reason=KEEPS_INPUT))
    args, kwargs = flat(spec, seed)
    for mask in masks(args):
        for written in (i for i, a in enumerate(args) if isinstance(a, Tensor)):
            ours = gradient(spec.op, args, kwargs, mask, written)
            theirs = gradient(spec.torch, args, kwargs, mask, written)
            where = f"gradients of {mask}, argument {written} is written to"
            if isinstance(ours, Exception):
                assert isinstance(theirs, Exception), f"{where}: {ours}"
                assert "modified by an inplace operation" in str(ours), where
            elif not isinstance(theirs, Exception):
                # what was added to an argument shows in the first digits, the order of a sum in the last
                close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-4)
                close(ours, theirs, msg=lambda m: f"{where}: {m}")  # noqa: B023
