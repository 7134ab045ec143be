"""Under torch.autocast: the direct call, the copy of a weight that torch keeps, and what tells it to make another."""

from __future__ import annotations

from typing import Any

import neurokern.functional as F
import pytest
import torch
from neurokern.core.autocast import autocast
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

CAST = torch.autocast("cpu", dtype=torch.bfloat16)


def weight() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.randn(6, 4))


def lowered(*tensors: torch.Tensor) -> tuple[Any, ...]:
    return autocast("lower", tensors)


class TestWeights:
    @pytest.mark.parametrize("grad", [True, False])
    def test_a_weight_is_copied_once_in_a_block(self, grad: bool) -> None:
        w = weight()
        with CAST, torch.set_grad_enabled(grad):
            (first,), (second,) = lowered(w), lowered(w)
        assert torch.equal(first, w.bfloat16())
        assert first.data_ptr() == second.data_ptr()

    def test_and_once_more_in_the_next_block(self) -> None:
        w = weight()
        with CAST:
            (before,) = lowered(w)
        with torch.no_grad():
            w.add_(1)
        with CAST:
            (after,) = lowered(w)
        assert not torch.equal(before, after)
        assert torch.equal(after, w.bfloat16())

    def test_without_the_cache(self) -> None:
        w = weight()
        with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
            (first,), (second,) = lowered(w), lowered(w)
        assert first.data_ptr() != second.data_ptr()

    def test_what_is_no_weight_is_copied_each_time(self) -> None:
        x, w = torch.randn(6, 4), weight()
        with CAST:
            for t in (x, w.t(), w * 1):
                (first,), (second,) = lowered(t), lowered(t)
                assert first.data_ptr() != second.data_ptr()
                assert torch.equal(first, t.bfloat16())

    def test_in_inference_mode(self) -> None:
        w = weight()
        with CAST, torch.inference_mode():
            assert torch.equal(lowered(w)[0], w.bfloat16())

    def test_the_gradient_of_two_uses(self) -> None:
        w, x = weight(), torch.randn(3, 4)
        ours, torchs = [], []
        for linear, grads in ((F.linear, ours), (torch.nn.functional.linear, torchs)):
            w.grad = None
            with CAST:
                y = linear(x, w).sum() + (linear(2 * x, w)).square().sum()
            y.backward()
            grads.append(w.grad)
        assert ours[0].dtype == torch.float32
        assert torch.allclose(ours[0], torchs[0], rtol=2e-2, atol=2e-2)

    def test_one_that_was_first_used_without_gradient(self) -> None:
        w, x = weight(), torch.randn(3, 4)
        with CAST:
            with torch.no_grad():
                F.linear(x, w)
            F.linear(x, w).sum().backward()
        assert torch.allclose(w.grad, x.bfloat16().float().sum(0).expand(6, 4), rtol=2e-2, atol=2e-2)


class TestWatched:
    """The product that hands out torch's copy is no part of the model: whoever looks on must not meet it."""

    def test_hooks_on_saved_tensors(self) -> None:
        x, w, packed = torch.randn(3, 4), weight(), []

        def pack(t: torch.Tensor) -> torch.Tensor:
            packed.append(tuple(t.shape))
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), CAST:
            F.linear(x, w)
        assert packed == [(3, 4)]  # all that the weight's gradient needs

    def test_fake_tensors(self) -> None:
        with FakeTensorMode(), CAST:
            assert F.linear(torch.randn(3, 4), weight()).dtype == torch.bfloat16
        w = weight()
        with CAST:
            assert torch.equal(lowered(w)[0], w.bfloat16())

    def test_functorch(self) -> None:
        x, w = torch.randn(3, 4), torch.randn(6, 4)
        with CAST:
            g = torch.func.grad(lambda p: F.linear(x, p).float().sum())(w)
        assert torch.allclose(g, x.sum(0).expand(6, 4), rtol=2e-2, atol=2e-2)

    @pytest.mark.parametrize("reentrant", [True, False])
    def test_checkpoints(self, reentrant: bool) -> None:
        x, w = torch.randn(3, 4, requires_grad=True), weight()
        grads = []
        for linear in (F.linear, torch.nn.functional.linear):
            w.grad = None
            with CAST:
                checkpoint(lambda a, f: f(a, w).square().sum(), x, linear, use_reentrant=reentrant).backward()
            grads.append(w.grad)
        assert torch.allclose(*grads, rtol=2e-2, atol=2e-2)


class TestDirectCall:
    def test_what_autocast_leaves_alone(self) -> None:
        x = torch.randn(3, 4)
        with CAST:
            assert F.gelu(x).dtype == F.layer_norm(x, [4]).dtype == torch.float32
            assert F.linear(x.double(), weight().double()).dtype == torch.float64

    def test_it_does_not_pass_the_dispatcher(self) -> None:
        x, w = torch.randn(3, 4, requires_grad=True), weight()
        with CAST:
            y = F.linear(x, w)
        assert y.dtype == torch.bfloat16
        assert y.grad_fn.name() == "DirectLinearBackward"

    def test_a_refusal_is_explained(self) -> None:
        with CAST, pytest.raises(RuntimeError, match=r"neurokern\.linear"):
            F.linear(torch.randn(3, 5), weight())

    def test_integers_go_to_torch(self) -> None:
        x = torch.ones(3, 4, dtype=torch.long)
        with CAST:
            assert torch.equal(F.matmul(x, x.t()), x @ x.t())

    def test_a_mode_sees_the_op(self) -> None:
        seen = []

        class Mode(TorchDispatchMode):
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                seen.append(str(func))
                return func(*args, **(kwargs or {}))

        with CAST, Mode():
            F.linear(torch.randn(3, 4), weight())
        assert "neurokern.linear.default" in seen
