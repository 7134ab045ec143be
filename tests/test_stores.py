"""Which stores go past the caches: decided from sizes alone, in one place, and followed by every kernel that can."""

from __future__ import annotations

import ctypes
import importlib.util
import math
import shutil
from pathlib import Path

import neurokern
import neurokern.functional as F
import pytest
import torch
from neurokern import _C

_spec = importlib.util.spec_from_file_location("plans", Path(__file__).parent / "plans" / "library.py")
host = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(host)

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
MI = 1 << 20
F32 = 0


def goes_past(written: int, read: int, cache: int) -> bool:
    return bool(host.load_stores().goes_past(*map(ctypes.c_int64, (written, read, cache))))


def tensors_go_past(shape, strides, outputs, cache, addresses=None) -> bool:
    flat = [s for one in strides for s in one]
    addresses = addresses or [(t + 1) << 30 for t in range(len(strides))]
    return bool(
        host.load_stores().tensors_go_past(
            outputs, len(strides) - outputs, len(shape), (ctypes.c_int64 * len(shape))(*shape),
            (ctypes.c_int64 * len(flat))(*flat), (ctypes.c_uint64 * len(addresses))(*addresses), F32,
            ctypes.c_int64(cache),
        )
    )  # fmt: skip


@needs_compiler
@pytest.mark.parametrize("cache", [8 * MI, 32 * MI, 96 * MI])
def test_what_a_call_touches_decides_whatever_the_cache_holds(cache):
    half = cache // 2
    assert not goes_past(half, half, cache)
    assert goes_past(half + 1, half, cache)
    assert not goes_past(4 * MI, 4 * MI, cache), "4 MiB and as much read stay in any of these"


@needs_compiler
def test_an_expanded_input_counts_once_and_an_input_overwritten_keeps_its_place():
    shape, dense = (4096, 1024), (1024, 1)  # 16 MiB each
    assert not tensors_go_past(shape, [dense, dense], 1, 32 * MI)
    assert tensors_go_past(shape, [dense, dense, dense], 1, 32 * MI)
    assert not tensors_go_past(shape, [dense, dense, (0, 1)], 1, 33 * MI), "one row is 4 KiB"
    assert not tensors_go_past(shape, [dense, dense, dense], 1, 32 * MI, addresses=[1 << 30, 2 << 30, 1 << 30])


@needs_compiler
def test_rows_are_long_or_whole_lines():
    rows = host.load_stores().is_row_of_lines
    assert [bool(rows(ctypes.c_int64(n))) for n in (64, 788, 4095, 4096, 5000, 128)] == [1, 0, 0, 1, 1, 1]


def test_the_last_level_cache_is_the_machines():
    said = []
    for size in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = size.read_text().strip()
        said.append(int(text.rstrip("KM")) * {"K": 1 << 10, "M": MI}.get(text[-1], 1))
    found = _C.cpu_last_level_cache()
    assert found == max(said, default=found)
    assert found >= MI // 4


LLC = _C.cpu_last_level_cache()
USERS = {
    "relu": (F.relu, 1),
    "gelu": (F.gelu, 1),
    "swiglu": (F.swiglu, 2),
    "softmax": (lambda x: F.softmax(x, -1), 1),
    "layer_norm": (lambda x: F.layer_norm(x, x.shape[-1:]), 1),
    "rms_norm": (lambda x: F.rms_norm(x, x.shape[-1:]), 1),
}


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("name", USERS)
def test_every_user_follows(name, recorded):
    """An output that is 1.2 times as much as fits beside its input goes past, one of 0.8 doesn't, recorded or not."""
    op, times = USERS[name]
    for share, past in ((0.8, False), (1.2, True)):
        rows = math.ceil(share * LLC / (1 + times) / 4096)
        x = torch.ones(rows, 1024 * times, requires_grad=recorded)
        with neurokern.trace() as launches:
            op(x)
        assert ["past the caches" in launch.plan for launch in launches] == [past], (share, launches)


def test_results_past_the_caches_are_right_where_they_begin_inside_a_line():
    n = LLC // 4 + 1000
    x = torch.randn(n)[3:]  # of another line than its output
    assert torch.equal(F.relu(x), torch.relu(x))
    y = F.relu(x.requires_grad_())
    assert torch.equal(torch.autograd.grad(y, x, y)[0], torch.relu(x))
