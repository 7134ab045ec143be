"""neurokern: hand-written kernels for neural networks, as drop-in layers for PyTorch."""

import torch as _torch  # noqa: F401  (loads the OpenMP runtime that the kernels share)

__version__ = "0.1.0"
