"""Registration with torch: ``torch.ops.neurokern.<name>`` with schema, body and fake, and what its FLOPs are.

Autograd stands outside (`core.op`): a registered op with a gradient costs ten times as much a call.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from .on_import import on_import

library = torch.library.Library("neurokern", "DEF")

REGISTERED: set[str] = set()  # names under torch.ops.neurokern of what entries make

# name -> formula for torch.utils.flop_counter: takes the op's arguments, shapes in the place of tensors
FLOPS: dict[str, Callable[..., int]] = {}
_counter: ModuleType | None = None


def register(
    schema: str, body: Callable[..., Any], fake: Callable[..., Any], flops: Callable[..., int] | None = None
) -> Any:
    """Define ``neurokern::<schema>``, with ``body`` on the CPU and on CUDA; returns its overload packet.

    Args:
        schema: in torch's language, the name first.
        body: calls the kernel.
        fake: makes the outputs from the arguments without computing them.
        flops: what FlopCounterMode counts for a call, from the arguments with shapes in the place of tensors.
    """
    name = schema.partition("(")[0]
    library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    for key in ("CPU", "CUDA"):
        library.impl(name, body, key)
    torch.library.register_fake(f"neurokern::{name}", fake, lib=library)
    if flops is not None:
        FLOPS[name] = flops
        if _counter is not None:
            _tell_flops(_counter, name)
    return getattr(torch.ops.neurokern, name.partition(".")[0])


def register_symbolic(
    schema: str, body: Callable[..., Any], fake: Callable[..., Any], flops: Callable[..., int] | None = None
) -> Any:
    """`register`, and where the schema has a ``Scalar`` an overload ``tensors`` that takes tensors of none for them.

    Inductor writes the value of a symbolic number into its code; that of a tensor it computes.
    """
    packet = register(schema, body, fake, flops)
    REGISTERED.add(schema.partition("(")[0])
    if "Scalar " in schema:
        name, rest = schema.partition("(")[::2]

        def body_of_tensors(*args: Any) -> Any:
            return body(*args[:first], *(a.item() if isinstance(a, torch.Tensor) else a for a in args[first:]))

        arguments = rest.rpartition(") -> ")[0].split(", ")
        first = next(i for i, a in enumerate(arguments) if not a.startswith("Tensor"))
        register(f"{name}.tensors({rest.replace('Scalar ', 'Tensor ')}", body_of_tensors, fake)
    return packet


def run_symbolic(packet: Any, parameters: tuple[Any, ...], *args: Any) -> Any:
    """``packet(*args)`` by the overload that fits the parameters, which stand among the arguments."""
    return packet.tensors(*args) if any(isinstance(p, torch.Tensor) for p in parameters) else packet(*args)


def _tell_flops(counter: ModuleType, name: str) -> None:
    formula = FLOPS[name]

    def count(*args: Any, out_shape: Any) -> int:
        return formula(*args)

    counter.register_flop_formula(getattr(torch.ops.neurokern, name))(count)


def _tell_all_flops(counter: ModuleType) -> None:
    global _counter
    _counter = counter
    for name in FLOPS:
        _tell_flops(counter, name)


on_import("torch.utils.flop_counter", _tell_all_flops)  # which imports triton
