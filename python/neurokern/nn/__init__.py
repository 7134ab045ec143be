"""torch.nn on our kernels: layers of the same names, arguments and state_dict; every other name is torch.nn's own."""

from __future__ import annotations

from typing import Any

import torch as _torch

from .. import functional as functional
from . import activation as _activation
from . import matmul as _matmul
from . import normalization as _normalization
from . import softmax as _softmax
from .activation import *  # noqa: F403
from .matmul import *  # noqa: F403
from .normalization import *  # noqa: F403
from .softmax import *  # noqa: F403

#: names of the classes that run on our kernels
NATIVE: frozenset[str] = frozenset(name for m in (_activation, _matmul, _normalization, _softmax) for name in m.__all__)

__all__ = sorted((*NATIVE, "NATIVE", "functional"))


def __getattr__(name: str) -> Any:
    return getattr(_torch.nn, name)


def __dir__() -> list[str]:
    return sorted({*__all__, *dir(_torch.nn)})
