"""What the extension asks of torch: autograd's state, where new tensors come from, how exact f32 products must be."""

from __future__ import annotations

from typing import Any

import torch

from .. import _C

_precision = torch._C._get_fp32_precision_getter


def allows_tf32() -> bool:
    """Whether torch's own f32 products on CUDA may be rounded to tf32: what its cuBLAS handles are set by.

    ``torch.get_float32_matmul_precision`` raises once the precision was set for one backend, or for all.
    """
    return _precision("cuda", "matmul") == "tf32"


_C.set_tf32_hook(allows_tf32)


_guards = getattr(torch._C._dynamo, "guards", None)
_TensorGuards = getattr(_guards, "TensorGuards", None)


def make_guard(*tensors: torch.Tensor) -> Any:
    """What torch.compile guards a graph of these tensors by, less their sizes and strides."""
    unknown = [[None] * t.dim() for t in tensors]
    return _TensorGuards(*tensors, dynamic_dims_sizes=unknown, dynamic_dims_strides=unknown)


_C.set_torch_state(
    torch.is_grad_enabled,
    torch._C._are_functorch_transforms_active,
    torch._C._is_any_autocast_enabled,
    torch._C._is_tracing,
    torch.autograd.forward_ad,
    torch.utils._python_dispatch,
    torch.autograd.profiler,
    torch.Tensor,
    torch.nn.Parameter,
    torch._C._increment_version,
    torch._C._profiler._RecordFunctionFast,
)
_C.set_guards(_TensorGuards, make_guard)

_DTYPES = (
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int8, torch.uint8, torch.bool),
)

# empty_strided as Inductor's generated code calls it: half the price of torch.empty_like, where torch has it
_C.set_allocator(
    getattr(_guards, "_empty_strided_cpu", None),
    torch.empty_like,
    {str(t).removeprefix("torch."): t for t in _DTYPES},
)
