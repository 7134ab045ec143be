"""The calls of registered ops that a spec makes: what tests of schemas, decompositions and shardings take."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from .run import cotangents, evaluate
from .spec import Maker, OpSpec


class _Recorder(TorchDispatchMode):
    """Remembers the calls of our registered ops."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "neurokern":
            kept = tuple(a.detach().clone() if isinstance(a, Tensor) else a for a in args)
            self.calls.append((func.overloadpacket.__name__, kept))
        return func(*args, **(kwargs or {}))


def registered_calls(spec: OpSpec, seed: int, dtype: torch.dtype = torch.float32) -> list[tuple[str, tuple[Any, ...]]]:
    """Every registered op that forward, backward, double backward and in place call, with its arguments."""
    make = Maker.seeded(seed, spec.id, "registered", dtype=dtype)
    few = [s for s in spec.samples(make) if sum(t.numel() for t in s.args if isinstance(t, Tensor)) < 4000]
    few = [s for s in few if not s.alone]  # torch's own ops differ from themselves there
    with _Recorder() as recorder:  # under a mode, ops pass through torch.ops.neurokern
        with torch.no_grad():
            spec.op(*few[0].args, **few[0].kwargs)
        for sample in few:
            evaluate(spec.op, sample, spec.order, cotangents(make, spec.torch, sample))
        for sample in spec.smooth(make) if spec.smooth else ():
            evaluate(spec.op, sample, 2, cotangents(make, spec.torch, sample))
        if any(name.endswith("_") for name in spec.registered):
            first = few[0]
            spec.op(first.args[0].clone(), **first.kwargs, inplace=True)
    return recorder.calls
