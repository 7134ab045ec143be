"""Random numbers by counters: those of the published algorithm, and the same bits on every level and backend."""

from __future__ import annotations

import neurokern
import numpy as np
import pytest
import torch
from neurokern import _C
from neurokern.backends import emulation
from neurokern.testing import Target
from torch import Tensor

LEVELS = ["scalar", "avx2", "avx512", "avx512bf16"]
AVAILABLE = LEVELS[: LEVELS.index(_C.cpu_detected()) + 1]
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
BITS = {torch.float32: 24, torch.float16: 11, torch.bfloat16: 8}

# Random123's known answers (kat_vectors): seed, block, stream, words
KNOWN = [
    (0, 0, 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (-1, -1, -1, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (0x299F31D0A4093822, 0x85A308D3243F6A88, 0x0370734413198A2E, (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]  # fmt: skip


def words(seed: int, block: int, stream: int, n: int) -> np.ndarray:
    """n blocks of four words by the definition, in Python's own integers."""
    mask, out = 0xFFFFFFFF, []
    for i in range(n):
        at = (block + i) % 2**64
        c = [at & mask, at >> 32, stream & mask, stream >> 32 & mask]
        k = [seed & mask, seed >> 32 & mask]
        for _ in range(10):
            a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
            c = [b >> 32 ^ c[1] ^ k[0], b & mask, a >> 32 ^ c[3] ^ k[1], a & mask]
            k = [(k[0] + 0x9E3779B9) & mask, (k[1] + 0xBB67AE85) & mask]
        out.append(c)
    return np.array(out, dtype=np.uint64)


def expected(seed: int, block: int, stream: int, n: int, dtype: torch.dtype) -> Tensor:
    if dtype == torch.float64:
        pairs = words(seed, block, stream, -(-n // 2)).reshape(-1, 2)
        values = ((pairs[:, 0] << 32 | pairs[:, 1]) >> 11).astype(np.float64) * 2.0**-53
    else:
        shift = np.uint64(32 - BITS[dtype])
        values = (words(seed, block, stream, -(-n // 4)).reshape(-1) >> shift) * 2.0 ** -BITS[dtype]
    return torch.from_numpy(values[:n]).to(dtype)


@pytest.mark.parametrize(("seed", "block", "stream", "answer"), KNOWN)
def test_known_answers(seed: int, block: int, stream: int, answer: tuple[int, ...]) -> None:
    assert words(seed % 2**64, block % 2**64, stream % 2**64, 1)[0].tolist() == list(answer)
    signed = [x - 2**64 if x >= 2**63 else x for x in (seed, block, stream)]
    got = _C.uniform(torch.empty(4), *signed)
    assert got.tolist() == [(w >> 8) * 2.0**-24 for w in answer]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", [0, 1, 5, 63, 1000, 70_001])
def test_every_level_and_thread_has_the_same(n: int, dtype: torch.dtype, seed: int) -> None:
    drawn = seed * 0x9E3779B97F4A7C15 % 2**63
    want = expected(drawn, 2**33 - 5, seed, n, dtype) if n <= 1000 else None
    before, threads = _C.cpu_level(), torch.get_num_threads()
    try:
        for level in AVAILABLE:
            for count in (1, threads):
                _C.set_cpu_level(level)
                torch.set_num_threads(count)
                got = _C.uniform(torch.empty(n, dtype=dtype), drawn, 2**33 - 5, seed)
                want = got if want is None else want
                assert torch.equal(got, want), (level, count)
    finally:
        _C.set_cpu_level(before)
        torch.set_num_threads(threads)
    assert got.shape == (n,)
    assert ((got >= 0) & (got < 1)).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("backend", ["cuda", "triton"])
def test_every_backend_has_the_same(backend: str, dtype: torch.dtype, seed: int) -> None:
    like = torch.empty(3, 347, dtype=dtype)
    calls = ((seed, 7, 2), (-1, -3, -1), (2**62 + seed, 2**40 - 1, -(2**50)))
    want = [_C.uniform(like, *c) for c in calls]
    if backend == "cuda":
        if (missing := emulation.missing()) is not None:
            pytest.skip(missing)
        with neurokern.emulate():
            got = [_C.uniform(like, *c) for c in calls]
    else:
        with neurokern.backend("triton"):
            got = [_C.uniform(like.to(Target("triton").device), *c).cpu() for c in calls]
    assert all(map(torch.equal, got, want))


def test_a_later_block_goes_on_where_the_first_ended(seed: int) -> None:
    whole = _C.uniform(torch.empty(4096), seed, 0, 0)
    assert torch.equal(_C.uniform(torch.empty(96), seed, 1000, 0), whole[4000:])
    assert not torch.equal(_C.uniform(torch.empty(96), seed, 1000, 1), whole[4000:])


def test_they_are_uniform(seed: int) -> None:
    """Mean, variance and the correlation of neighbours, each within six standard deviations."""
    n = 1 << 20
    x = _C.uniform(torch.empty(n, dtype=torch.float64), seed, 0, 0) - 0.5
    assert abs(x.mean()) < 6 * (1 / 12 / n) ** 0.5
    assert abs(x.square().mean() - 1 / 12) < 6 * (1 / 180 / n) ** 0.5
    assert abs((x[1:] * x[:-1]).mean()) < 6 / 12 / n**0.5


def test_bad_arguments() -> None:
    with pytest.raises(RuntimeError, match=r"uniform: argument like has dtype int64"):
        _C.uniform(torch.empty(3, dtype=torch.int64), 0, 0, 0)
    with pytest.raises(TypeError, match="uniform"):
        _C.uniform(torch.empty(3), 0.5, 0, 0)
