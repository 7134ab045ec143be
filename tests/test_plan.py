"""The CUDA matmul plan, with no device: what it covers, what it may ask for, and that its tiles fit the machine."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from neurokern import _C

A100 = {
    "multiprocessors": 108,
    "shared_per_block": 163 * 1024,
    "shared_per_multiprocessor": 164 * 1024,
    "major": 8,
}
RTX = {"multiprocessors": 84, "shared_per_block": 99 * 1024, "shared_per_multiprocessor": 100 * 1024, "major": 8}
H200: dict[str, int] = {}
GPUS = [A100, RTX, H200]
DTYPES = ["float32", "float64", "float16", "bfloat16"]

SHAPES = [
    (1, 1, 1),
    (1, 4096, 4096),  # decoding one token: streams B
    (16, 4096, 4096),
    (197, 2304, 768),  # ViT-B, ragged rows
    (512, 3072, 768),
    (8192, 8192, 8192),
    (768, 768, 65536),  # a weight gradient: few tiles, long k
    (127, 131, 137),  # primes
    (5, 7, 0),
    (100_000_000, 64, 64),  # more rows than 32-bit offsets reach
]


def plans(dtype: str, gpu: dict[str, int]) -> list[dict]:
    return [
        plan
        for (m, n, k), a, b in itertools.product(SHAPES, [(True, 16), (False, 16), (True, 0)], [(True, 16), (False, 8)])
        for plan in _C.matmul_plan(m, n, k, dtype, a=a, b=b, all=True, **gpu)
    ]


@pytest.mark.parametrize("gpu", GPUS, ids=["A100", "RTX", "H200"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_plans_stay_within_the_machine(dtype: str, gpu: dict[str, int]) -> None:
    names = _C.matmul_kernels()
    for plan in plans(dtype, gpu):
        assert names[plan["kernel"]] == plan["fatbin"], plan["text"]
        assert plan["shared"] <= gpu.get("shared_per_block", 227 * 1024), plan["text"]
        assert plan["threads"] % 32 == 0
        assert plan["threads"] <= 1024
        assert 1 <= plan["group"] <= max(plan["tiles"][0], 1)
        assert 1 <= plan["splits"] <= 65535


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_splits_and_tiles_cover_the_problem(shape: tuple[int, int, int], dtype: str) -> None:
    """Every k belongs to exactly one split, splits end at whole tiles of k, and no split is empty."""
    m, n, k = shape
    for plan in _C.matmul_plan(m, n, k, dtype, all=True):
        tile_m, tile_n, tile_k = plan["tile"]
        tiles_m, tiles_n = plan["tiles"]
        assert (tiles_m - 1) * tile_m < max(m, 1) <= tiles_m * tile_m
        assert (tiles_n - 1) * tile_n < max(n, 1) <= tiles_n * tile_n
        splits, per_split = plan["splits"], plan["k_per_split"]
        assert splits * per_split >= k
        if splits == 1:
            assert plan["workspace_bytes"] == 0
            continue
        assert per_split % tile_k == 0
        assert (splits - 1) * per_split < k
        number = 8 if dtype == "float64" else 4
        assert plan["workspace_pitch"] % 4 == 0
        assert plan["workspace_pitch"] >= n
        assert plan["workspace_bytes"] == splits * m * plan["workspace_pitch"] * number


def test_the_best_plan_is_the_cheapest() -> None:
    for m, n, k in SHAPES:
        best = _C.matmul_plan(m, n, k, "bfloat16")
        assert best["clocks"] == min(p["clocks"] for p in _C.matmul_plan(m, n, k, "bfloat16", all=True))


def test_plans_fit_their_problem() -> None:
    """What a person would choose: large tiles for large products, splits for long k, few rows for few rows."""
    assert _C.matmul_plan(8192, 8192, 8192, "bfloat16")["tile"][:2] == (128, 256)
    assert _C.matmul_plan(1, 4096, 4096, "bfloat16")["tile"][0] == 16
    assert _C.matmul_plan(768, 768, 65536, "bfloat16")["splits"] > 1
    assert _C.matmul_plan(768, 768, 65536, "bfloat16", may_split=False)["splits"] == 1
    assert "plain" in _C.matmul_plan(20, 20, 20, "float32")["kernel"]
    assert "tf32" in _C.matmul_plan(1024, 1024, 1024, "float32", tf32=True)["kernel"]
    assert "simt" in _C.matmul_plan(1024, 1024, 1024, "float32")["kernel"]
    assert "mma_f64" in _C.matmul_plan(1024, 1024, 1024, "float64")["kernel"]


def test_plans_say_the_same_each_time() -> None:
    assert _C.matmul_plan(777, 888, 999, "float16") == _C.matmul_plan(777, 888, 999, "float16")


def test_every_kernel_was_compiled() -> None:
    table = Path(_C.__file__).parent / "_cuda" / "resources.json"
    if not table.is_file():
        pytest.skip("this build has no CUDA kernels")
    compiled = {
        (row["kernel"], fatbin)
        for fatbin, rows in json.loads(table.read_text()).items()
        if fatbin.startswith("matmul_") and fatbin != "matmul_bias_backward"  # which no plan chooses
        for row in rows
    }
    assert compiled == set(_C.matmul_kernels().items())


@pytest.mark.parametrize(("tiles_m", "tiles_n", "group"), [(1, 1, 1), (7, 5, 3), (16, 9, 16), (5, 1, 2), (33, 4, 8)])
def test_grouped_order_visits_each_tile_once(tiles_m: int, tiles_n: int, group: int) -> None:
    """The arithmetic of kernels/cuda/tile/scheduler.h."""

    def tile(index: int) -> tuple[int, int]:
        per_group = group * tiles_n
        first = index // per_group * group
        rows = min(tiles_m - first, group)
        within = index % per_group
        return first + within % rows, within // rows

    visited = {tile(i) for i in range(tiles_m * tiles_n)}
    assert visited == set(itertools.product(range(tiles_m), range(tiles_n)))


def _conflicts(banks: list[list[int]]) -> int:
    """The most words that fall into one bank, beyond one."""
    words = [word for lane in banks for word in lane]
    return max(len({w for w in words if w % 32 == bank}) for bank in range(32)) - 1


@pytest.mark.parametrize("row_bytes", [32, 64, 128, 256, 512])
def test_matrix_swizzle(row_bytes: int) -> None:
    """kernels/cuda/tile/swizzle.h: a bijection, and 8 rows of one chunk as well as 8 chunks of rows meet every bank."""
    ways = 8 if row_bytes >= 128 else row_bytes // 16
    chunks = row_bytes // 16

    def offset(row: int, chunk: int) -> int:
        return row * row_bytes + 16 * (chunk ^ (row // (8 // ways) & (ways - 1)))

    cells = list(itertools.product(range(64), range(chunks)))
    assert len({offset(*cell) for cell in cells}) == len(cells)
    for row, chunk in itertools.product(range(0, 64, 8), range(chunks)):
        assert len({offset(row + i, chunk) // 16 % 8 for i in range(8)}) == 8  # ldmatrix
    for first in range(0, len(cells), 8):
        assert len({offset(*cell) // 16 % 8 for cell in cells[first : first + 8]}) == 8  # cp.async


@pytest.mark.parametrize("row_bytes", [128, 256, 512, 1024])
def test_word_swizzle(row_bytes: int) -> None:
    """Single words of a tf32 operand, and accumulators put down in pairs, meet every bank once."""

    def word(row: int, column: int) -> int:
        return (row * row_bytes + 16 * (column // 4 ^ 2 * (row & 3))) // 4 + column % 4

    for outer in range(0, row_bytes // 4, 8):
        lanes = [[word(t, outer + g)] for g in range(8) for t in range(4)]
        assert _conflicts(lanes) == 0
        for half in range(2):  # 8-byte stores go by half warps
            pairs = [
                [word(g, outer + 2 * t), word(g, outer + 2 * t + 1)]
                for g in range(4 * half, 4 * half + 4)
                for t in range(4)
            ]
            assert _conflicts(pairs) == 0


@pytest.mark.parametrize(("element", "lanes_k", "outer"), [(4, 8, 128), (4, 8, 64), (8, 4, 64)])
def test_element_copy_pitch(element: int, lanes_k: int, outer: int) -> None:
    """kernels/cuda/tile/element_copy.h: stores along k and loads along the outer index meet every bank once."""
    pitch, words = outer + 4, element // 4

    def address(k: int, i: int) -> list[int]:
        return [(k * pitch + i) * words + w for w in range(words)]

    together = 32 // words  # lanes of one wavefront
    stores = [address(lane % lanes_k, lane // lanes_k) for lane in range(together)]
    assert _conflicts(stores) == 0
    if element == 8:
        assert _conflicts([address(lane % 4, lane // 4) for lane in range(together)]) == 0  # DMMA fragments
