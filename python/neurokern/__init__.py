"""neurokern: hand-written CUDA, Triton and SIMD kernels for neural networks, as drop-in layers for PyTorch.

``from neurokern import nn`` has the names, arguments and state_dict of ``torch.nn``; ``neurokern.functional`` the
signatures of ``torch.nn.functional``, plus fused forms. ``backend()``, ``trace()`` and ``strict()``
choose, show and enforce what runs; ``patch()`` puts our layers into a model, and ``report()`` shows what it skipped;
``emulate()`` runs the CUDA kernels on a machine without a GPU; ``warm_up()`` loads them ahead of their first launch.
"""

import torch as _torch  # noqa: F401  (first: its OpenMP runtime is the one that the kernels share)

from . import functional, nn
from .backends.choice import backend, emulate
from .backends.fall_back import strict
from .backends.trace import Launch, trace
from .backends.warm_up import warm_up
from .core import checkpoint as _checkpoint  # noqa: F401  (these tell torch of the ops that are there now)
from .core import decompose as _decompose  # noqa: F401
from .core import sharding as _sharding  # noqa: F401
from .nn.layer_table import register_layer, unregister_layer
from .nn.patch import patch, unpatch
from .nn.report import Report, report

__version__ = "0.1.0"
__all__ = [
    "Launch",
    "Report",
    "backend",
    "emulate",
    "functional",
    "nn",
    "patch",
    "register_layer",
    "report",
    "strict",
    "trace",
    "unpatch",
    "unregister_layer",
    "warm_up",
]
