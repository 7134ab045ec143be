"""Registration of ops with torch: schema, body, fake. Autograd stands outside (see ``neurokern.autograd``)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch.compiler import is_dynamo_compiling
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

_library = torch.library.Library("neurokern", "DEF")

# name -> body; the direct path calls the body, the compiled path torch.ops.neurokern.<name>
BODIES: dict[str, Callable[..., Any]] = {}

# name -> formula for torch.utils.flop_counter: takes the op's arguments, shapes in the place of tensors
FLOPS: dict[str, Callable[..., int]] = {}


def is_compiling() -> bool:
    """Whether ops pass through torch's dispatcher: dynamo compiles, or a mode (make_fx, FakeTensorMode) looks on there.

    Other tracers show by the type of their tensors.
    """
    return is_dynamo_compiling() or is_in_torch_dispatch_mode(include_infra_modes=True)


def _tell_flops(counter: ModuleType, name: str) -> None:
    formula = FLOPS[name]

    def count(*args: Any, out_shape: Any) -> int:
        return formula(*args)

    counter.register_flop_formula(getattr(torch.ops.neurokern, name))(count)


class _FlopCounter(MetaPathFinder):
    """Tells torch.utils.flop_counter of `FLOPS` when somebody imports it: it imports triton, which takes 0.17 s."""

    name = "torch.utils.flop_counter"

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_tell(module: ModuleType) -> None:
                load(module)
                for op in FLOPS:
                    _tell_flops(module, op)

            spec.loader.exec_module = load_and_tell  # type: ignore[method-assign]
        return spec


if _FlopCounter.name not in sys.modules:
    sys.meta_path.insert(0, _FlopCounter())


def register(
    schema: str, fake: Callable[..., Any], flops: Callable[..., int] | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: define ``neurokern::<schema>``, with the decorated function as body on CPU and CUDA.

    Args:
        schema: in torch's language, the name first.
        fake: makes the outputs from the arguments without computing them.
        flops: what FlopCounterMode counts for a call, from the arguments with shapes in the place of tensors.
    """
    name = schema.partition("(")[0]

    def wrap(body: Callable[..., Any]) -> Callable[..., Any]:
        _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
        for key in ("CPU", "CUDA"):
            _library.impl(name, body, key)
        torch.library.register_fake(f"neurokern::{name}", fake, lib=_library)
        BODIES[name] = body
        if flops is not None:
            FLOPS[name] = flops
            if (counter := sys.modules.get(_FlopCounter.name)) is not None:
                _tell_flops(counter, name)
        return body

    return wrap
