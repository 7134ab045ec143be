"""What is asked of tensors before a kernel sees them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

PLAIN = frozenset((Tensor, torch.nn.Parameter))


def materialized(t: Tensor | None) -> Tensor | None:
    """Kernels read memory as it lies: a lazily negated view or a lazy zero is made real first."""
    if t is None:
        return None
    if t.is_neg():
        return t.resolve_neg()
    return t.clone() if t._is_zerotensor() else t


def is_compiling() -> bool:
    """Whether ops pass through torch's dispatcher: dynamo compiles, or a mode (make_fx, FakeTensorMode) looks on there.

    Other tracers show by the type of their tensors.
    """
    return is_dynamo_compiling() or is_in_torch_dispatch_mode(include_infra_modes=True)


@contextmanager
def above_autograd() -> Iterator[None]:
    """In a dispatch mode, which is asked below autograd: ops go through it again, and composite ones in their parts."""
    excluded = torch._C._dispatch_tls_local_exclude_set()
    for key in ("AutogradFunctionality", "AutogradOther", "ADInplaceOrView"):
        excluded = excluded.remove(getattr(torch._C.DispatchKey, key))
    with torch._C._ForceDispatchKeyGuard(torch._C._dispatch_tls_local_include_set(), excluded):
        yield


def recording(*tensors: object) -> bool:
    """Whether autograd will want a graph of an op of these."""
    return torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in tensors)
