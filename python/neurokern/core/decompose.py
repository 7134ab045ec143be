"""Every op in aten's words: what ``ExportedProgram.run_decompositions()`` and ``torch.onnx.export`` put in its place.

The forward is torch's own function and the backward the formula of the entry. Only torch.export's default table is
told: eager calls and Inductor keep the kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import torch

from .on_import import on_import
from .op import OPS, Op, as_schema_has_it


def _forward(op: Op, *args: Any) -> Any:
    if op.writes:
        args[0].copy_(OPS[op.name.removesuffix("_")].torch(*args))
        return None
    return op.torch(*args)


def _backward(op: Op, *args: Any) -> Any:
    count = op.returns + len(op.saves)
    return as_schema_has_it(op.by_formula(args[: op.returns], (), args[op.returns :]), args[:count], op.wants)


def decompositions() -> dict[Any, Callable[..., Any]]:
    """The decomposition of each overload that entries have registered, and of what stands beside them."""
    made: dict[Any, Callable[..., Any]] = {torch.ops.neurokern.copied.default: torch.clone}

    def add(packet: Any, function: Callable[..., Any]) -> None:
        made.update((getattr(packet, overload), function) for overload in packet.overloads())

    for op in OPS.values():
        add(op.run, partial(_forward, op))
        if op.run_recorded is not op.run:
            add(op.run_recorded, op.torch_recorded)
        if op.run_backward is not None:
            add(op.run_backward, partial(_backward, op))
    return made


def _tell_the_default_table(module: ModuleType) -> None:
    """torch has no registry of decompositions of ops that are not composite: they go into each table as it is made."""
    table = module.CustomDecompTable
    make = table.__init__

    def make_with_ours(self: Any) -> None:
        make(self)
        self.update(decompositions())

    table.__init__ = make_with_ours


def _keep_kernels(inductor: ModuleType) -> None:
    """Inductor starts from the default table, too."""
    for op in decompositions():
        inductor.decompositions.pop(op, None)


on_import("torch.export.decomp_utils", _tell_the_default_table)
on_import("torch._inductor.decomposition", _keep_kernels)
