"""Every op with every dtype that torch has: compiled and exported it does what eager does, be it that it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from neurokern.testing import Maker, OpSpec
from torch import Tensor

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:ComplexHalf")]

DTYPES = sorted({t for t in vars(torch).values() if isinstance(t, torch.dtype)}, key=str)
# one of each kind, for specs that share an entry with one of ALL: the entry decides
KINDS = (torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn)
ALL = ("relu", "tanh", "threshold", "glu", "prelu", "rrelu", "softmax", "layer_norm", "rms_norm", "linear", "matmul")


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(dtype)
    return value


def _arguments(spec: OpSpec, dtype: torch.dtype, seed: int) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Those of the first sample, in that dtype; None where torch can't make such tensors."""
    sample = next(iter(spec.samples(Maker.seeded(seed, spec.id, "dtypes"))))
    try:
        return tuple(_cast(a, dtype) for a in sample.args), {k: _cast(v, dtype) for k, v in sample.kwargs.items()}
    except (RuntimeError, TypeError):
        return None


def _outcome(run: Callable[[], Any]) -> Any:
    """What it returns, or the error."""
    torch.manual_seed(0)
    try:
        return run()
    except Exception as error:
        return error


def _compiled(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    torch._dynamo.reset()
    return torch.compile(call, backend="eager", fullgraph=True, dynamic=False)(*args, **kwargs)


class _Module(torch.nn.Module):
    def __init__(self, call: Callable[..., Any]) -> None:
        super().__init__()
        self.call = call

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(*args, **kwargs)


def _exported(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return torch.export.export(_Module(call), args, kwargs, strict=False).module()(*args, **kwargs)


def _same(a: Tensor, b: Tensor) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    wide = torch.complex128 if a.is_complex() else torch.float64
    return torch.allclose(a.to(wide), b.to(wide), rtol=1e-2, atol=1e-2, equal_nan=True)


def _difference(spec: OpSpec, way: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """Between what eager does and what ``way`` does, in words, or None."""
    eager = _outcome(lambda: spec.op(*args, **kwargs))
    other = _outcome(lambda: way(spec.op, args, kwargs))
    if isinstance(eager, Exception) and isinstance(other, Exception):
        fits = "DLPack" not in str(other)  # what the kernels' reading of tensors says was to be decided before
    elif isinstance(eager, Exception) or isinstance(other, Exception):
        # torch's fakes refuse less, and more, than its kernels
        torchs = _outcome(lambda: way(spec.torch, args, kwargs))
        fits = isinstance(other, Exception) == isinstance(torchs, Exception)
    else:
        fits = _same(eager, other)
    return None if fits else f"eager {eager!r:.200}, otherwise {other!r:.200}"


@pytest.mark.parametrize("way", [_compiled, _exported], ids=["compiled", "exported"])
def test_every_dtype(spec: OpSpec, way: Callable[..., Any], seed: int) -> None:
    wrong = []
    for dtype in DTYPES if spec.id in ALL else KINDS:
        given = _arguments(spec, dtype, seed)
        if given is not None and (what := _difference(spec, way, *given)) is not None:
            wrong.append(f"{dtype}: {what}")
    assert not wrong, "\n".join(wrong)
