"""Selective checkpoints: a policy that names torch's ops decides of ours, and products that it saves run once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import neurokern
import neurokern.functional as F
import pytest
import torch
from neurokern import nn
from torch import Tensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

aten, ours = torch.ops.aten, torch.ops.neurokern
PRODUCTS = [aten.mm.default, aten.addmm.default, aten.bmm.default]
W, V, B = torch.randn(6, 4, requires_grad=True), torch.randn(4, 6, requires_grad=True), torch.randn(6)

# function, what a policy may name, the kernel that trace() shows
CASES: dict[str, tuple[Callable[[Tensor], Tensor], list[Any], str]] = {
    "linear": (lambda x: F.linear(x, W), [aten.mm.default], "matmul"),
    "linear, bias": (lambda x: F.linear(x, W, B), [aten.addmm.default], "matmul"),
    "linear, 2 dims": (lambda x: F.linear(x[0], W, B), [aten.addmm.default], "matmul"),
    "linear, gelu": (lambda x: F.linear(x, W, activation="gelu"), [aten.mm.default], "matmul"),
    "mm": (lambda x: F.mm(x[0], V), [aten.mm.default], "matmul"),
    "addmm": (lambda x: F.addmm(B, x[0], V), [aten.addmm.default], "matmul"),
    "bmm": (lambda x: F.bmm(x, x.mT), [aten.bmm.default], "matmul"),
    "matmul": (lambda x: F.matmul(x, x.mT), [aten.bmm.default], "matmul"),
    "gelu": (F.gelu, [aten.gelu.default], "unary"),
    "softmax": (lambda x: F.softmax(x, -1), [aten._softmax.default], "softmax"),
    "layer_norm": (lambda x: F.layer_norm(x, (4,)), [aten.native_layer_norm.default], "layer_norm"),
    "glu": (F.glu, [aten.glu.default], "gated"),
    "prelu": (lambda x: F.prelu(x, V[0, :1]), [aten._prelu_kernel.default], "prelu"),
}


def run(f: Callable[[Tensor], Tensor], policy: Any, of: str) -> tuple[int, list[Tensor]]:
    """How often forward and recomputation run the kernel, and the gradients of it and of what stands before it."""
    torch.manual_seed(3)
    x = torch.randn(2, 3, 4, requires_grad=True)

    def segment(t: Tensor) -> Tensor:
        return torch.sin(f(torch.cos(t))).square()  # sin needs what f has made

    context = partial(create_selective_checkpoint_contexts, policy)
    with neurokern.trace() as launches, neurokern.strict():
        y = checkpoint(segment, x, use_reentrant=False, context_fn=context)
        ran = []
        y.register_hook(lambda g: ran.append(len(launches)))
        (gx,) = torch.autograd.grad(y.sum(), x)
    forward = sum(e.op == of for e in launches[: ran[0]])
    assert forward == 1
    plain = x.detach().requires_grad_()
    (expected,) = torch.autograd.grad(segment(plain).sum(), plain)
    torch.testing.assert_close(gx, expected)
    return sum(e.op == of for e in launches)


@pytest.mark.parametrize("case", CASES)
def test_what_a_policy_saves_runs_once(case: str) -> None:
    f, named, kernel = CASES[case]
    saved, recomputed = run(f, named, kernel), run(f, [aten.tanh.default], kernel)
    assert recomputed == saved + 1


@pytest.mark.parametrize("policy", [[aten.silu_.default, ours.unary_.default], [aten.silu.default], [aten.mul.Tensor]])
def test_what_is_in_place_is_done_again(policy: list[Any]) -> None:
    f = lambda x: F.silu(torch.cos(x) * 1, inplace=True)  # noqa: E731
    if policy == [aten.mul.Tensor]:  # what was saved has been written to: torch's error
        with pytest.raises(RuntimeError, match="mutated"):
            run(f, policy, "unary")
    else:
        assert run(f, policy, "unary") == run(f, [aten.tanh.default], "unary")


@pytest.mark.parametrize("answer", [True, CheckpointPolicy.MUST_SAVE, CheckpointPolicy.PREFER_SAVE])
def test_a_policy_function_gets_what_torch_would_hand_it(answer: Any) -> None:
    seen: dict[str, list[Any]] = {"ours": [], "torch's": []}

    def policy(which: str, context: Any, op: Any, *args: Any, **keywords: Any) -> Any:
        if not context.is_recompute and op is aten.addmm.default:
            seen[which].append([tuple(a.shape) for a in args])
        return answer if op in PRODUCTS else CheckpointPolicy.PREFER_RECOMPUTE

    for which, functions in (("ours", F), ("torch's", torch.nn.functional)):
        f = lambda x, functions=functions: functions.linear(x, W, B)  # noqa: E731
        x = torch.randn(2, 3, 4, requires_grad=True)
        context = partial(create_selective_checkpoint_contexts, partial(policy, which))
        checkpoint(f, x, use_reentrant=False, context_fn=context).sum().backward()
    assert seen["ours"] == seen["torch's"] == [[(6,), (6, 4), (4, 6)]]


def test_a_policy_that_names_our_op() -> None:
    f = CASES["linear"][0]
    assert run(f, [ours.linear.default], "matmul") == run(f, PRODUCTS, "matmul")


def test_every_second_product() -> None:
    """As policies do that count the products."""
    count = 0

    def policy(context: Any, op: Any, *args: Any, **keywords: Any) -> Any:
        nonlocal count
        count += op in PRODUCTS
        save = op in PRODUCTS and count % 2 == 0
        return CheckpointPolicy.MUST_SAVE if save else CheckpointPolicy.PREFER_RECOMPUTE

    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(4)), nn.GELU())
    x = torch.randn(3, 4, requires_grad=True)
    context = partial(create_selective_checkpoint_contexts, policy)
    with neurokern.trace() as launches:
        checkpoint(model, x, use_reentrant=False, context_fn=context).square().sum().backward()
    assert count == 4
    assert sum(e.op == "matmul" for e in launches) == 4 + 2 + 8  # forward, recomputed, gradients


def test_compiled() -> None:
    """The graph of the gradient has no product of the forward when the policy saves it."""
    products: list[int] = []

    def backend(graph: torch.fx.GraphModule, example: Any) -> Any:
        from torch._dynamo.backends.common import aot_autograd
        from torch._functorch.partitioners import min_cut_rematerialization_partition

        def count(g: torch.fx.GraphModule, _: Any) -> Any:
            products.append(
                sum("neurokern.linear" in str(n.target) and "backward" not in str(n.target) for n in g.graph.nodes)
            )
            return g

        return aot_autograd(fw_compiler=count, bw_compiler=count, partition_fn=min_cut_rematerialization_partition)(
            graph, example
        )

    for policy, recomputed in ((PRODUCTS, 0), ([aten.tanh.default], 1)):
        torch._dynamo.reset()
        products.clear()
        context = partial(create_selective_checkpoint_contexts, policy)

        def f(x: Tensor, context: Any = context) -> Tensor:
            return checkpoint(
                lambda t: torch.sin(F.linear(torch.cos(t), W)), x, use_reentrant=False, context_fn=context
            )

        torch.compile(f, backend=backend)(torch.randn(3, 4, requires_grad=True)).sum().backward()
        assert products == [1, recomputed]
