"""neurokern: hand-written CUDA, Triton and SIMD kernels for neural networks, as drop-in layers for PyTorch.

``from neurokern import nn`` has the names, arguments and state_dict of ``torch.nn``; ``neurokern.functional`` the
signatures of ``torch.nn.functional``, plus fused forms. ``backend()``, ``trace()`` and ``strict()``
choose, show and enforce what runs; ``emulate()`` runs the CUDA kernels on a machine without a GPU.
"""

from pathlib import Path as _Path

import torch as _torch  # noqa: F401  (first: its OpenMP runtime is the one that the kernels share)

from . import _C, functional, nn
from .nn.patch import patch, unpatch
from .ops.backends import Launch, backend, emulate, strict, trace

_C.set_kernel_dir(str(_Path(_C.__file__).parent / "_cuda"))

__version__ = "0.1.0"
__all__ = ["Launch", "backend", "emulate", "functional", "nn", "patch", "strict", "trace", "unpatch"]
