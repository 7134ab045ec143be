"""What the emulator counts: exact numbers that repeat, and what they say of our kernels."""

from __future__ import annotations

import neurokern
import neurokern.functional as F
import numpy as np
import pytest
import torch
from neurokern.backends import emulation
from neurokern.testing.ptx import HEADER, emulator

pytestmark = pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing()))


def count(text: str, threads: int = 32, words: int = 4096) -> dict[str, int]:
    """The counters of a kernel: %t thread, %m an array, %a a place in 4096 bytes of shared memory."""
    ptx = f"""{HEADER}
.visible .entry kernel(.param .u64 data) {{
  .reg .pred %p; .reg .b32 %x, %y, %t, %a, %b; .reg .b64 %m, %n; .reg .b32 %v<4>; .shared .align 16 .b8 tile[4096];
  ld.param.u64 %m, [data]; mov.u32 %t, %tid.x; mov.u32 %a, tile;
  {text}
  ret;
}}"""
    emulation.record(True)
    emulator().launch(ptx, [np.zeros(words, np.uint32)], block=(threads, 1, 1))
    (launch,) = emulation.take()
    emulation.record(False)
    assert launch.block == (threads, 1, 1)
    return launch.counters


@pytest.mark.parametrize("stride, sectors", [(1, 4), (2, 8), (8, 32), (9, 32), (0, 1)])
def test_sectors_of_a_strided_load(stride: int, sectors: int) -> None:
    text = f"mul.lo.u32 %b, %t, {stride}; mad.wide.u32 %n, %b, 4, %m; ld.global.u32 %x, [%n];"
    counters = count(text)
    assert counters["global sectors read"] == sectors
    assert counters["global bytes read"] == 128


def test_sectors_of_an_offset_store() -> None:
    """One element off: a fifth sector."""
    text = "mad.wide.u32 %n, %t, 4, %m; st.global.u32 [%n+4], %t;"
    assert count(text)["global sectors written"] == 5


@pytest.mark.parametrize("stride, conflicts", [(1, 0), (2, 1), (4, 3), (32, 31), (33, 0), (0, 0)])
def test_bank_conflicts(stride: int, conflicts: int) -> None:
    text = f"mad.lo.u32 %a, %t, {4 * stride}, %a; st.shared.u32 [%a], %t;"
    if stride == 0:
        text = "st.shared.u32 [%a], 1; bar.sync 0; ld.shared.u32 %x, [%a];"
    elif stride == 33:
        text = "mad.lo.u32 %a, %t, 132, %a; st.shared.u32 [%a], %t;"
    assert count(text)["bank conflicts"] == conflicts


@pytest.mark.parametrize("stride, conflicts", [(16, 0), (32, 4), (64, 12)])
def test_wide_accesses_go_in_quarters(stride: int, conflicts: int) -> None:
    """16 bytes a lane: eight lanes at a time; at twice the stride two of them share each bank."""
    text = f"mad.lo.u32 %a, %t, {stride}, %a; st.shared.v4.u32 [%a], {{%t, %t, %t, %t}};"
    assert count(text)["bank conflicts"] == conflicts


def test_classes() -> None:
    text = """
  .reg .f32 %f; cvt.rn.f32.u32 %f, %t; add.f32 %f, %f, %f; mul.f32 %f, %f, %f; add.u32 %x, %t, 1;
  shfl.sync.bfly.b32 %x, %x, 1, 31, -1; bar.sync 0; bar.sync 0;"""
    counters = count(text, threads=64)
    assert counters["floating instructions"] == 4
    assert counters["convert instructions"] == 2
    assert counters["integer instructions"] == 2
    assert counters["shuffle instructions"] == 2
    assert counters["barrier instructions"] == 4
    assert counters["barriers"] == 2


class TestOurKernels:
    def traced(self, call) -> list[dict[str, int]]:
        found = []
        for _ in range(2):
            with neurokern.emulate(), neurokern.trace() as launches:
                call()
            found.append([entry.counters for entry in launches])
        assert found[0] == found[1], "counters differ from run to run"
        return found[0]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
    def test_elementwise_traffic_is_minimal(self, dtype: torch.dtype) -> None:
        n = 16384
        x, g = torch.randn(n).to(dtype), torch.randn(n).to(dtype)
        (c,) = self.traced(lambda: F.gelu(x))
        least = n * dtype.itemsize // 32
        assert c["global sectors read"] <= 1.05 * least
        assert c["global sectors written"] <= 1.05 * least
        both = torch.cat([x, g])
        (c,) = self.traced(lambda: F.glu(both, 0))
        assert c["global sectors read"] <= 2.1 * least

    def test_empty_tensors_launch_nothing(self) -> None:
        """Their rows have no counters, and those that follow keep their own."""
        shapes = [(0, 3), (4,), (2, 0), (500,)]
        with neurokern.emulate(), neurokern.trace() as launches:
            for shape in shapes:
                F.relu(torch.randn(shape))
        read = [None if x.counters is None else x.counters["global bytes read"] for x in launches]
        assert read == [None, 16, None, 2000]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
    def test_matmul(self, dtype: torch.dtype) -> None:
        """No bank conflict; each tile of the operands is read once for each tile of the result."""
        m, n, k = 128, 256, 128
        a, b = torch.randn(m, k).to(dtype), torch.randn(n, k).to(dtype)
        (c,) = self.traced(lambda: F.linear(a, b))
        assert c["bank conflicts"] == 0
        if dtype in (torch.float16, torch.bfloat16):
            assert c["matrix instructions"] == m * n * k // (16 * 8 * 16)
        with neurokern.emulate(), neurokern.trace() as launches:
            F.linear(a, b)
        splits = 0 if "split 1 " in launches[0].plan else int(launches[0].plan.split("split ")[1].split()[0])
        # parts of a split sum go to memory in float, and once more as the result
        parts = splits * m * n * max(4, dtype.itemsize) // 32
        assert c["global sectors written"] == m * n * dtype.itemsize // 32 + parts
        assert c["global sectors read"] >= (m + n) * k * dtype.itemsize // 32
