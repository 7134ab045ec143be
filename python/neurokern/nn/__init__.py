"""torch.nn on our kernels: layers with the same names, arguments and state_dict; every other name is torch.nn's own.

Submodules such as ``neurokern.nn.utils`` are torch's, too; ``neurokern.nn.functional`` is neurokern.functional.
"""

from __future__ import annotations

import sys as _sys
from typing import Any

import torch as _torch

from .. import functional as functional
from . import activation as _activation
from . import convolution as _convolution
from . import matmul as _matmul
from . import multi_head as _multi_head
from . import normalization as _normalization
from . import pooling as _pooling
from . import rearrangement as _rearrangement
from . import resampling as _resampling
from . import softmax as _softmax
from . import transformer as _transformer
from .activation import *  # noqa: F403
from .convolution import *  # noqa: F403
from .matmul import *  # noqa: F403
from .multi_head import *  # noqa: F403
from .normalization import *  # noqa: F403
from .pooling import *  # noqa: F403
from .rearrangement import *  # noqa: F403
from .resampling import *  # noqa: F403
from .softmax import *  # noqa: F403
from .submodules import install as _install
from .transformer import *  # noqa: F403

_families = (
    _activation,
    _convolution,
    _matmul,
    _multi_head,
    _normalization,
    _pooling,
    _rearrangement,
    _resampling,
    _softmax,
    _transformer,
)
#: names of the classes that run on our kernels
NATIVE: frozenset[str] = frozenset(name for m in _families for name in m.__all__)

_install(functional, {name: globals()[name] for name in NATIVE})

__all__ = sorted({*NATIVE, "NATIVE", "functional", *(name for name in dir(_torch.nn) if not name.startswith("_"))})


def __getattr__(name: str) -> Any:
    module = _sys.modules.get(f"{__name__}.{name}")
    return getattr(_torch.nn, name) if module is None else module


def __dir__() -> list[str]:
    return sorted({*__all__, *dir(_torch.nn)})
