"""The CUDA plans of the activation family, without a device: every element is met exactly once, and wherever a plan
moves 16-byte units, every address that the kernel then forms is a multiple of 16.

The index arithmetic of the kernels is written down here a second time, from the drawing in their headers.
"""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import json
import math
import random
import shutil
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("plans", Path(__file__).parent / "plans" / "library.py")
host = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(host)

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

F32, F64, F16, BF16 = range(4)
SIZE = {F32: 4, F64: 8, F16: 2, BF16: 2}
THREADS = 256


def _array(values, kind=ctypes.c_int64):
    values = list(values)
    return (kind * len(values))(*values)


def contiguous(shape) -> list[int]:
    return [math.prod(shape[i + 1 :]) for i in range(len(shape))]


def elementwise_plan(shape, strides, dtype, outputs=1, addresses=None, multiprocessors=132) -> list[dict]:
    addresses = addresses or [4096] * len(strides)
    flat = _array(itertools.chain.from_iterable(strides))
    text = host.load().elementwise_plan(
        outputs, len(strides), len(shape), _array(shape), flat, _array(addresses, ctypes.c_uint64), dtype,
        multiprocessors,
    )  # fmt: skip
    return json.loads(text)


def softmax_plan(shape, strides, dim, dtype, addresses=None, multiprocessors=132) -> dict:
    addresses = addresses or [4096] * len(strides)
    flat = _array(itertools.chain.from_iterable(strides))
    return json.loads(
        host.load().softmax_plan(len(strides), len(shape), _array(shape), flat, dim,
                                 _array(addresses, ctypes.c_uint64), dtype, multiprocessors)
    )  # fmt: skip


def column_plan(rows, columns, vector, dtype, multiprocessors=132) -> dict:
    plan = host.load().column_plan
    plan.argtypes = [ctypes.c_int64, ctypes.c_int64, *[ctypes.c_int] * 3]
    return json.loads(plan(rows, columns, vector, dtype, multiprocessors))


def point_offset(layout: dict, tensor: int, point: int) -> int:
    at = 0
    for size, stride in zip(layout["size"][:-1], layout["stride"][tensor], strict=False):
        point, i = divmod(point, size)
        at += i * stride
    return at + point * layout["stride"][tensor][-1]


def elements_met(launch: dict, tensor: int, dtype: int) -> list[int]:
    """The elements of one tensor that a launch touches, in units or one by one, as offsets from the view's first."""
    unit = 16 // SIZE[dtype]
    met = []
    for block, step in itertools.product(range(launch["grid"]), range(launch["steps"])):
        for thread in range(THREADS):
            if launch["vector"]:
                point = (block * launch["steps"] + step) * THREADS + thread
                if point >= launch["count"]:
                    continue
                whole = len(launch["layout"]["size"]) > 1 or (point + 1) * unit <= launch["numel"]
                here = unit if whole else launch["numel"] - point * unit
                first = launch["offset"][tensor] + point_offset(launch["layout"], tensor, point)
                inner = launch["layout"]["stride"][tensor][0] // unit
                if whole and inner:
                    assert first % unit == 0, "a unit at an address that is no multiple of 16"
                met += [first + i * inner for i in range(here)]
            else:
                for place in range(unit):
                    point = ((block * launch["steps"] + step) * unit + place) * THREADS + thread
                    if point < launch["count"]:
                        met.append(launch["offset"][tensor] + point_offset(launch["layout"], tensor, point))
    return met


def all_elements(shape, stride) -> list[int]:
    return [sum(i * s for i, s in zip(index, stride, strict=True)) for index in itertools.product(*map(range, shape))]


LAYOUTS = {  # shape, strides of out, strides of an input
    "dense, a multiple of every unit": ((1024,), [1], [1]),
    "dense, a rest": ((1003,), [1], [1]),
    "fewer elements than a unit": ((3,), [1], [1]),
    "two dims that are one": ((30, 40), [40, 1], [40, 1]),
    "both transposed alike": ((30, 40), [1, 30], [1, 30]),
    "one transposed": ((16, 24), [24, 1], [1, 16]),
    "the half of wider rows": ((12, 64), [64, 1], [128, 1]),
    "the half of rows that are no whole units": ((12, 63), [63, 1], [126, 1]),
    "every second": ((700,), [1], [2]),
    "one value for all": ((16, 24), [24, 1], [0, 0]),
    "one value a row": ((16, 24), [24, 1], [1, 0]),
    "one row": ((16, 24), [24, 1], [0, 1]),
    "channels last against dense": ((2, 8, 3, 4), [96, 1, 32, 8], [96, 12, 4, 1]),
    "more dims than a launch walks": ((2, 1, 2, 2, 2, 2, 2, 3, 2, 2, 8), None, None),
}


@pytest.mark.parametrize("dtype", SIZE)
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_element_once(name: str, dtype: int) -> None:
    shape, out, x = LAYOUTS[name]
    if out is None:  # rows twice as wide in every dim: nothing can be merged
        out = contiguous([2 * n for n in shape])
        x = contiguous([3 * n for n in shape])
        out[-1] = x[-1] = 1
    for multiprocessors in (1, 132):
        launches = elementwise_plan(shape, [out, x], dtype, multiprocessors=multiprocessors)
        for tensor, stride in enumerate((out, x)):
            met = sorted(itertools.chain.from_iterable(elements_met(launch, tensor, dtype) for launch in launches))
            assert met == sorted(all_elements(shape, stride))


@pytest.mark.parametrize("dtype", SIZE)
def test_units_only_where_they_fit(dtype: int) -> None:
    unit = 16 // SIZE[dtype]
    vector = lambda *a, **k: elementwise_plan(*a, dtype, **k)[0]["vector"]  # noqa: E731
    assert vector((64,), [[1], [1]])
    assert vector((64,), [[1], [0]]), "an expanded scalar needs no alignment"
    assert vector((64,), [[1], [0]], addresses=[4096, 4096 + SIZE[dtype]])
    assert not vector((64,), [[1], [1]], addresses=[4096, 4096 + SIZE[dtype]]), "the input is misaligned"
    assert not vector((64,), [[1], [1]], addresses=[4096 + SIZE[dtype], 4096]), "the output is misaligned"
    assert not vector((64,), [[1], [2]]), "stride 2"
    assert vector((5, 4 * unit), [[4 * unit, 1], [8 * unit, 1]]), "whole units in every row"
    assert not vector((5, 4 * unit), [[4 * unit, 1], [8 * unit + 1, 1]]), "rows begin between units"
    assert not vector((5, 4 * unit - 1), [[4 * unit - 1, 1], [8 * unit, 1]]), "rows end between units"


def test_tensors_beyond_32_bits() -> None:
    """Dense ones stay one launch with 64-bit indices; strided ones are split below 2^31 points, in whole rows."""
    big = 3 * 2**31 + 5
    (launch,) = elementwise_plan((big,), [[1], [1]], BF16)
    assert launch["count"] == -(-big // 8)
    blocks = -(-launch["count"] // THREADS)
    assert launch["grid"] == -(-blocks // launch["steps"]) < 2**31

    rows, columns = 2**20, 2**12 + 1
    launches = elementwise_plan((rows, columns), [[columns, 1], [2 * columns, 1]], F32)
    assert len(launches) == 3
    assert sum(launch["count"] for launch in launches) == rows * columns
    done = 0
    for launch in launches:
        assert launch["count"] < 2**31
        assert launch["count"] % columns == 0
        assert launch["offset"] == [done, 2 * done]
        done += launch["count"]


def test_small_tensors_spread_and_large_ones_batch() -> None:
    (small,) = elementwise_plan((4096,), [[1], [1]], F32)
    (large,) = elementwise_plan((2**26,), [[1], [1]], F32)
    assert (small["steps"], small["grid"]) == (1, 4)
    assert large["steps"] == 4


def test_fast_division() -> None:
    divide = host.load().fast_divide
    divisors = [1, 2, 3, 5, 7, 10, 641, 2**16 - 1, 2**16, 2**16 + 1, 2**30, 2**30 + 1, 2**31 - 1]
    divisors += [random.randrange(1, 2**31) for _ in range(300)]
    for d in divisors:
        near = [k * d + e for k in (1, 2, 3, (2**31 - 1) // d) for e in (-1, 0, 1)]
        for n in [0, 1, 2**31 - 1, *near, *(random.randrange(2**31) for _ in range(50))]:
            if 0 <= n < 2**31:
                assert divide(n, d) == n // d, f"{n} / {d}"


@pytest.mark.parametrize("dtype", SIZE)
def test_column_parts(dtype: int) -> None:
    unit = 16 // SIZE[dtype]
    for rows, columns in [(1, 1), (8, 3), (100_000, 1), (4096, 4096), (1_000_000, 64), (0, 8), (37, 100_000)]:
        for vector in {0, int(columns % unit == 0)}:
            p = column_plan(rows, columns, vector, dtype)
            units = columns // unit if vector else columns
            assert (p["tiles"] - 1) * p["lanes"] < units <= p["tiles"] * p["lanes"]
            assert rows <= p["parts"] * p["rows_per_part"]
            assert rows == 0 or rows > (p["parts"] - 1) * p["rows_per_part"], "a part without rows"
            assert p["parts"] <= 65535
            alone = column_plan(rows, columns, vector, dtype, multiprocessors=1)
            assert alone["parts"] <= p["parts"], "fewer blocks for more multiprocessors"


@pytest.mark.parametrize("dtype", SIZE)
@pytest.mark.parametrize("tensors", [2, 3])
def test_softmax_rows_fit_their_kernel(tensors: int, dtype: int) -> None:
    """Rows are shorter than what the lanes of their kernel hold in registers, and each row has lanes of its own."""
    half = 2 if dtype == F64 else 1
    for length in [*range(1, 300), 511, 512, 513, 1024, 1025, 4096, 8192, 8193, 16384, 16385, 32768, 32769, 10**6]:
        rows = 77
        p = softmax_plan((rows, length), [[length, 1]] * tensors, 1, dtype)
        (launch,) = p["launches"]
        assert launch["rows"] == rows
        assert p["vector"] == (length % (16 // SIZE[dtype]) == 0)
        kernel, kept = p["kernel"].rstrip("0123456789"), p["kernel"].lstrip("abcdefghijklmnopqrstuvwxyz_")
        if kernel == "warp":
            lanes = p["lanes"]
            assert lanes <= 32
            assert not p["vector"] or kept != "2" or dtype == F64, "two values hold no unit"
            assert launch["grid"] * p["threads"] // lanes >= rows
        elif kernel == "block":
            lanes = p["threads"]
            assert lanes % 32 == 0
            assert lanes <= 1024
            assert launch["grid"] == rows
        else:
            assert p["kernel"] == "long"
            assert length > (16384 if tensors == 3 else 32768) // half
            continue
        assert length <= lanes * int(kept) // half


def test_softmax_across_rows() -> None:
    """Along a dim that is not innermost, neighbouring threads take neighbouring rows, in units where they fit."""
    p = softmax_plan((8, 1000, 64), [[64000, 64, 1]] * 2, 1, F32)
    assert p["kernel"] == "inner_unit"
    assert p["launches"][0]["rows"] == 8 * 64 // 4
    assert softmax_plan((8, 1000, 63), [[63000, 63, 1]] * 2, 1, F32)["kernel"] == "inner_element"
    assert softmax_plan((8, 1000, 64), [[64000, 64, 1]] * 2, 1, F32, [4096, 4100])["kernel"] == "inner_element"
    assert softmax_plan((1000, 64), [[1, 1000]] * 2, 0, F32)["kernel"] == "warp32", "transposed: rows are adjacent"
    short = softmax_plan((4, 3, 224, 224), [[3 * 224 * 224, 224 * 224, 224, 1]] * 2, 1, F32)
    assert short["lanes"] == 256, "three elements a row feed one thread each"
