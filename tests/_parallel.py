"""Layers in tensor parallelism beside the same ones in one process; one of the processes of test_sharding.py."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import neurokern
import neurokern.functional as F
import pytest
import torch
import torch.distributed as dist
from neurokern import nn
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)


class Mlp(torch.nn.Module):
    """Norms and activations between two products, as in a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.gate = nn.RMSNorm(8), nn.Linear(8, 16), nn.Linear(8, 16)
        self.act, self.down = nn.ReLU(inplace=True), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return self.down(self.act(F.silu(self.up(x)) * self.gate(x)))


class Attention(torch.nn.Module):
    """Heads side by side; each process has some of them."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.norm, self.heads = nn.LayerNorm(8), heads
        self.q, self.k, self.v = (nn.LinearActivation(8, 8, activation="tanh") for _ in "qkv")
        self.out, self.softmax = nn.Linear(8, 8), nn.Softmax(-1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        q, k, v = (f(x).unflatten(-1, (self.heads, 2)).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = F.matmul(self.softmax(F.matmul(q, k.transpose(-1, -2))), v)
        return self.out(y.transpose(1, 2).flatten(2))


def full(t: Any) -> Tensor:
    return t.full_tensor() if isinstance(t, DTensor) else t


def same(model: torch.nn.Module, plan: dict[str, Any], mesh: Any, sharded: bool) -> None:
    """In parallel the model gives what it gives in one process, by our kernels alone."""
    x = torch.randn(2, 6, 8)
    parallel = parallelize_module(deepcopy(model), mesh, plan)
    if hasattr(parallel, "heads"):
        parallel.heads //= mesh.size()
    expected = model(x)
    expected.square().sum().backward()
    given = distribute_tensor(x, mesh, [Shard(1)]) if sharded else x
    with neurokern.trace() as launches:
        y = full(parallel(given))
        y.square().sum().backward()
    assert not [e for e in launches if e.backend == "torch"], launches
    products = sum(e.op == "matmul" for e in launches)
    assert products >= 3 * sum(isinstance(m, torch.nn.Linear) for m in model.modules()), launches
    torch.testing.assert_close(y, expected)
    for (name, p), q in zip(model.named_parameters(), parallel.parameters(), strict=True):
        torch.testing.assert_close(full(q.grad), p.grad, msg=lambda m, name=name: f"{name}: {m}")


def functions(mesh: Any) -> None:
    """Ops that stand in no plan: along every dim, with a gradient."""
    cases: dict[str, Callable[..., Tensor]] = {
        "gelu": F.gelu,
        "leaky_relu": lambda x: F.leaky_relu(x * 1, 0.2, inplace=True),
        "silu in place": lambda x: F.silu(x * 1, inplace=True),
        "rrelu": lambda x: F.rrelu(x, 0.3, 0.3, training=True),
        "glu": lambda x: F.glu(x, 1),
        "softmax": lambda x: F.log_softmax(x, 2),
        "norm of two dims": lambda x: F.layer_norm(x, (6, 4)),
    }
    for name, f in cases.items():
        for placement in (Replicate(), Shard(0), Shard(1), Shard(2)):
            x = torch.randn(4, 6, 4, requires_grad=True)
            d = distribute_tensor(x.detach(), mesh, [placement]).requires_grad_()
            y = f(x)
            with neurokern.trace() as launches, neurokern.strict():
                z = f(d)
            y.square().sum().backward()
            z.square().sum().backward()
            assert launches
            torch.testing.assert_close(full(z), y, msg=lambda m, n=name, p=placement: f"{n} {p}: {m}")
            torch.testing.assert_close(full(d.grad), x.grad, msg=lambda m, n=name, p=placement: f"{n} {p}: {m}")
    weight = torch.rand(6)
    x = torch.randn(4, 6, 4)
    got = F.prelu(distribute_tensor(x, mesh, [Shard(1)]), distribute_tensor(weight, mesh, [Replicate()]))
    assert got.placements == (Shard(1),)
    torch.testing.assert_close(full(got), F.prelu(x, weight))
    # the same shapes and placements, other parameters: no sharding of before is taken
    for dim in (0, 1, 2):
        torch.testing.assert_close(full(F.softmax(distribute_tensor(x, mesh, [Shard(1)]), dim)), F.softmax(x, dim))
    for kind in (F.swiglu, F.reglu):
        torch.testing.assert_close(full(kind(distribute_tensor(x, mesh, [Shard(1)]))), kind(x))


def mixed(mesh: Any) -> None:
    """A weight that is a DTensor and an input that is none: an error, torch's."""
    weight = distribute_tensor(torch.randn(6, 4), mesh, [Shard(0)])
    for functional in (torch.nn.functional, F):
        with pytest.raises(RuntimeError, match=r"got mixed torch.Tensor and DTensor"):
            functional.linear(torch.randn(3, 4), weight)


def main() -> None:
    dist.init_process_group("gloo")
    mesh = dist.init_device_mesh("cpu", (dist.get_world_size(),))
    torch.manual_seed(7)
    columns, rows = ColwiseParallel(), RowwiseParallel()
    mlp = {"up": columns, "gate": columns, "down": rows}
    same(Mlp(), mlp, mesh, sharded=False)
    cut = {
        "norm": SequenceParallel(),
        "up": ColwiseParallel(input_layouts=Shard(1)),
        "gate": ColwiseParallel(input_layouts=Shard(1)),
        "down": RowwiseParallel(output_layouts=Shard(1), use_local_output=False),
    }
    same(Mlp(), cut, mesh, sharded=True)
    same(Attention(4), {"q": columns, "k": columns, "v": columns, "out": rows}, mesh, sharded=False)
    functions(mesh)
    mixed(mesh)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
