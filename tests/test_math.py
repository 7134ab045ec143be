"""Accuracy of the vector exp, expm1, log, log1p, tanh, erf and sigmoid, in units in the last place, on every CPU level.

float32 walks through the bit patterns of all floats with a stride that is odd and thus meets every exponent, sign and
kind of NaN, and adds the edges; the reference is float64. float64 draws points over the range where the function does
something; the reference is numpy's long double.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from neurokern import _C

LEVELS = ["scalar", "avx2", "avx512", "avx512bf16"]
AVAILABLE = LEVELS[: LEVELS.index(_C.cpu_detected()) + 1]
STRIDE = 20011  # about 215,000 floats


def _erf(x: np.ndarray) -> np.ndarray:
    return torch.erf(torch.from_numpy(x.astype(np.float64))).numpy()


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


# name: (reference, bound in float32, bound in float64, range of the float64 points)
FUNCTIONS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float, float, tuple[float, float]]] = {
    "exp": (np.exp, 2, 2, (-700, 700)),
    "expm1": (np.expm1, 2, 3, (-40, 700)),
    "log": (np.log, 2, 2, (1e-300, 1e3)),
    "log1p": (np.log1p, 2, 2, (-1 + 1e-9, 10)),
    "tanh": (np.tanh, 2, 2, (-21, 21)),
    # torch's own float64 erf is the reference, and has an error of about one unit itself
    "erf": (_erf, 2, 4, (-6, 6)),
    "sigmoid": (_sigmoid, 2.5, 3, (-700, 40)),
}
EDGES = [0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1.0, -1.0, 0.5, -0.5, 0.92, 0.6, 88.72284, -103.97208]


@pytest.fixture(params=AVAILABLE)
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    before = _C.cpu_level()
    _C.set_cpu_level(request.param)
    yield request.param
    _C.set_cpu_level(before)


def ulps(got: np.ndarray, want: np.ndarray, bits: int, smallest: int, largest: float) -> np.ndarray:
    """Distance in units in the last place of a format with `bits` of significand; infinite for a wrong kind."""
    error = np.full(got.shape, np.inf)
    overflow = np.abs(want) > largest
    error[np.isnan(got) & np.isnan(want)] = 0
    error[np.isinf(got) & overflow & (np.sign(got) == np.sign(want))] = 0
    finite = np.isfinite(got) & np.isfinite(want)
    exponent = np.frexp(want[finite])[1]
    unit = np.ldexp(np.ones((), want.dtype), np.maximum(exponent - bits, smallest))
    error[finite] = np.abs(got[finite].astype(want.dtype) - want[finite]) / unit
    return error


@pytest.mark.parametrize("name", FUNCTIONS)
def test_float32(name: str, level: str) -> None:
    reference, bound, _, _ = FUNCTIONS[name]
    offset = int(torch.randint(STRIDE, ()))
    pattern = np.arange(offset, 2**32, STRIDE, dtype=np.uint64).astype(np.uint32)
    x = np.concatenate([pattern.view(np.float32), np.asarray(EDGES, np.float32)])
    out = _C.math(torch.from_numpy(x), name)
    with np.errstate(all="ignore"):
        error = ulps(out.numpy(), reference(x.astype(np.float64)), 24, -149, float(np.finfo(np.float32).max))
    worst = int(error.argmax())
    assert error[worst] <= bound, f"{name}({x[worst]!r}) = {out[worst].item()!r}: {error[worst]} ulp (offset {offset})"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_float64(name: str, level: str) -> None:
    reference, _, bound, (low, high) = FUNCTIONS[name]
    seed = int(torch.randint(2**31, ()))
    rng = np.random.default_rng(seed)
    wide = rng.uniform(low, high, 50000)
    near_zero = np.ldexp(rng.uniform(-1, 1, 50000), rng.integers(-60, 1, 50000))
    x = np.concatenate([wide, near_zero[(near_zero > low) & (near_zero < high)], [0.0, np.inf, -np.inf, np.nan]])
    out = _C.math(torch.from_numpy(x), name)
    with np.errstate(all="ignore"):
        want = reference(x.astype(np.longdouble)).astype(np.longdouble)
        error = ulps(out.numpy(), want, 53, -1074, float(np.finfo(np.float64).max))
    worst = int(error.argmax())
    assert error[worst] <= bound, f"{name}({x[worst]!r}) = {out[worst].item()!r}: {error[worst]} ulp (seed {seed})"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_rounds_once(dtype: torch.dtype, level: str) -> None:
    """All 65,536 values: within half a unit and what float32 is off of the exact result."""
    x = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype)
    out = _C.math(x, "exp")
    want = torch.exp(x.double())
    # a float32 result next to a tie may round the other way: both neighbours of such a tie are right
    low, high = (want * (1 - 2**-22)).to(dtype), (want * (1 + 2**-22)).to(dtype)
    right = (out == low) | (out == high) | (out.isnan() & want.isnan())
    assert right.all(), f"exp({x[~right][:5].tolist()}) = {out[~right][:5].tolist()}"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_storage_keeps_every_value(dtype: torch.dtype, level: str) -> None:
    """identity through load and store: denormals, infinities and NaN come back; lengths with and without tails."""
    if dtype.itemsize == 2:
        x = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype)
    else:
        x = torch.tensor([0.0, -0.0, 1.5, float("inf"), -float("inf"), float("nan"), 1e-40, -5e-324] * 40, dtype=dtype)
    for n in (1, 2, 3, 7, 8, 15, 16, 17, 31, 63, 64, 65, 127, x.numel()):
        end = x[x.numel() - n :]
        torch.testing.assert_close(_C.unary(end, "identity", 0.0, 0.0), end, rtol=0, atol=0, equal_nan=True)
        memory = torch.full((n + 1,), 7.0, dtype=dtype)
        _C.unary_(memory[:n].copy_(end), "identity", 0.0, 0.0)
        torch.testing.assert_close(memory[:n], end, rtol=0, atol=0, equal_nan=True)
        assert memory[n] == 7.0, f"wrote beyond {n} elements"
