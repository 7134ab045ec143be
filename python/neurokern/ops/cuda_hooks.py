"""What the extension asks of torch while it launches on CUDA: how exact f32 products must be."""

from __future__ import annotations

import torch

from .. import _C


def allows_tf32() -> bool:
    """torch's own switch: ``torch.set_float32_matmul_precision``, "highest" by default."""
    return torch.get_float32_matmul_precision() != "highest"


if hasattr(_C, "set_tf32_hook"):
    _C.set_tf32_hook(allows_tf32)
