"""torch.nn.functional's signatures on our kernels; names that are not ours fall through to torch.nn.functional."""

from __future__ import annotations

from typing import Any

import torch as _torch

from . import activation as _activation
from . import matmul as _products
from . import normalization as _normalizations
from . import softmax as _softmaxes
from .activation import *  # noqa: F403
from .matmul import *  # noqa: F403
from .normalization import *  # noqa: F403
from .softmax import *  # noqa: F403

__all__ = sorted(name for m in (_activation, _normalizations, _products, _softmaxes) for name in m.__all__)


def __getattr__(name: str) -> Any:
    return getattr(_torch.nn.functional, name)


def __dir__() -> list[str]:
    return sorted({*__all__, *dir(_torch.nn.functional)})
