"""neurokern: hand-written CUDA, Triton and SIMD kernels for neural networks, as drop-in layers for PyTorch.

``from neurokern import nn`` has the names, arguments and state_dict of ``torch.nn``; ``neurokern.functional`` the
signatures of ``torch.nn.functional``, plus fused forms. ``backend()``, ``trace()`` and ``strict()``
choose, show and enforce what runs; ``emulate()`` runs the CUDA kernels on a machine without a GPU.
"""

import torch as _torch  # noqa: F401  (first: its OpenMP runtime is the one that the kernels share)

from . import functional, nn
from .backends.choice import backend, emulate
from .backends.fall_back import strict
from .backends.trace import Launch, trace
from .nn.patch import patch, unpatch

__version__ = "0.1.0"
__all__ = ["Launch", "backend", "emulate", "functional", "nn", "patch", "strict", "trace", "unpatch"]
