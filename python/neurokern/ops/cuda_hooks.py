"""What the extension asks of torch while it launches on CUDA: scratch memory, and how exact f32 products must be."""

from __future__ import annotations

import torch

from .. import _C


def allocate(size: int, device: int) -> torch.Tensor:
    """Scratch of `size` bytes; torch's allocator reuses it in stream order, so it may be dropped after the launch."""
    return torch.empty(size, dtype=torch.uint8, device=torch.device("cuda", device))


def allows_tf32() -> bool:
    """torch's own switch: ``torch.set_float32_matmul_precision``, "highest" by default."""
    return torch.get_float32_matmul_precision() != "highest"


if hasattr(_C, "set_cuda_hooks"):
    _C.set_cuda_hooks(allocate, allows_tf32)
