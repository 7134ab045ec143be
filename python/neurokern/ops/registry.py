"""Registration of ops with torch: schema, body, fake. Autograd stands outside (see ``neurokern.autograd``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.compiler import is_dynamo_compiling
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

_library = torch.library.Library("neurokern", "DEF")

# name -> body; the direct path calls the body, the compiled path torch.ops.neurokern.<name>
BODIES: dict[str, Callable[..., Any]] = {}


def is_compiling() -> bool:
    """Whether ops pass through torch's dispatcher: dynamo compiles, or a mode (make_fx, FakeTensorMode) looks on there.

    Other tracers show by the type of their tensors.
    """
    return is_dynamo_compiling() or is_in_torch_dispatch_mode(include_infra_modes=True)


def register(schema: str, fake: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: define ``neurokern::<schema>``, with the decorated function as body on CPU and CUDA, and its fake."""
    name = schema.partition("(")[0]

    def wrap(body: Callable[..., Any]) -> Callable[..., Any]:
        _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
        for key in ("CPU", "CUDA"):
            _library.impl(name, body, key)
        torch.library.register_fake(f"neurokern::{name}", fake, lib=_library)
        BODIES[name] = body
        return body

    return wrap
