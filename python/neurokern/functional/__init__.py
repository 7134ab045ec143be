"""torch.nn.functional's signatures on our kernels; names that are not ours fall through to torch.nn.functional."""

from __future__ import annotations

from types import ModuleType as _Module
from typing import Any

import torch as _torch

from . import activation as _activation
from . import attention as _attentions
from . import convolution as _convolutions
from . import matmul as _products
from . import multi_head as _multi_head
from . import normalization as _normalizations
from . import pooling as _poolings
from . import rearrangement as _rearrangements
from . import resampling as _resamplings
from . import softmax as _softmaxes
from .activation import *  # noqa: F403
from .attention import *  # noqa: F403
from .convolution import *  # noqa: F403
from .matmul import *  # noqa: F403
from .multi_head import *  # noqa: F403
from .normalization import *  # noqa: F403
from .pooling import *  # noqa: F403
from .rearrangement import *  # noqa: F403
from .resampling import *  # noqa: F403
from .softmax import *  # noqa: F403

_families = (
    _activation,
    _attentions,
    _convolutions,
    _multi_head,
    _normalizations,
    _poolings,
    _products,
    _rearrangements,
    _resamplings,
    _softmaxes,
)
#: names of the functions that run on our kernels
NATIVE: frozenset[str] = frozenset(name for m in _families for name in m.__all__)

_theirs = vars(_torch.nn.functional)
__all__ = sorted({*NATIVE, "NATIVE", *(n for n, v in _theirs.items() if n[0] != "_" and not isinstance(v, _Module))})


def __getattr__(name: str) -> Any:
    return getattr(_torch.nn.functional, name)


def __dir__() -> list[str]:
    return sorted({*__all__, *dir(_torch.nn.functional)})
