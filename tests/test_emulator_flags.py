"""Warps of a block that talk through flags in shared memory, and what cooperative groups keep there for themselves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from neurokern.backends import emulation
from neurokern.testing.ptx import HOPPER, DeviceError, emulator
from neurokern.testing.ptxas import complaint

pytestmark = [
    pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing())),
    pytest.mark.usefixtures("snippets"),
]

# Warp 1 leaves a number for warp 0 and raises a flag.
TEXT = """{header}
.visible .entry kernel(.param .u64 out) {{
  .shared .b32 number[32]; .shared .b32 flag;
  .reg .pred %p, %q; .reg .b32 %a, %l, %n, %t, %x; .reg .b64 %d;
  ld.param.u64 %d, [out]; mov.u32 %t, %tid.x; and.b32 %l, %t, 31; shl.b32 %l, %l, 2; mov.u32 %n, number;
  add.u32 %n, %n, %l; xor.b32 %a, %l, 124; sub.u32 %a, %n, %l; add.u32 %a, %a, 124; sub.u32 %a, %a, %l;
  setp.eq.u32 %p, %t, 0; @%p st.shared.u32 [flag], 0; bar.sync 0;
  setp.lt.u32 %p, %t, 32; @%p bra READER;
  add.u32 %x, %t, 5; st.shared.u32 [%n], %x; bar.warp.sync -1;
  setp.ne.u32 %q, %t, 32; @%q bra END;
  {raise_}
  bra END;
READER:
  {wait}
  ld.shared.u32 %x, [%a]; cvt.u64.u32 %d, %l; ld.param.u64 %d, [out]; mad.wide.u32 %d, %t, 4, %d;
  st.global.u32 [%d], %x;
END: ret;
}}"""
SPIN = "W: {} %x, [flag]; setp.eq.u32 %q, %x, 0; @%q bra W; "


def run(raise_: str, wait: str) -> list[int]:
    text = TEXT.format(header=HOPPER, raise_=raise_, wait=wait)
    assert complaint(text) == ""
    out = np.zeros(32, np.uint32)
    emulator().launch(text, [out], block=(64, 1, 1))
    return out.tolist()


FENCED = "membar.cta; st.volatile.shared.u32 [flag], 1;"
POLLED = SPIN.format("ld.volatile.shared.u32") + "membar.cta;"


@pytest.mark.parametrize("wait", [
    POLLED,
    SPIN.format("ld.acquire.cta.shared.u32"),
    SPIN.format("ld.relaxed.cta.shared.u32") + "fence.acq_rel.cta;",
    SPIN.replace("[flag]", "[flag], 0").format("atom.acquire.cta.shared.or.b32"),
])  # fmt: skip
@pytest.mark.parametrize("raise_", [
    FENCED,
    "st.release.cta.shared.u32 [flag], 1;",
    "fence.acq_rel.cta; st.relaxed.cta.shared.u32 [flag], 1;",
    "red.release.cta.shared.add.u32 [flag], 1;",
    "membar.gl; atom.shared.exch.b32 %x, [flag], 1;",
])  # fmt: skip
def test_a_flag_orders_what_is_before_and_behind(raise_: str, wait: str) -> None:
    assert run(raise_, wait) == [37 + 31 - t for t in range(32)]


@pytest.mark.emulator_only("races")
@pytest.mark.parametrize(
    ("raise_", "wait"),
    [
        ("st.volatile.shared.u32 [flag], 1;", POLLED),  # no fence in front of the store
        ("st.relaxed.cta.shared.u32 [flag], 1; membar.cta;", POLLED),
        (FENCED, SPIN.format("ld.volatile.shared.u32")),  # none behind the load
        ("atom.shared.exch.b32 %x, [flag], 1;", POLLED),
        # the flag itself by plain accesses
        ("membar.cta; st.shared.u32 [flag], 1;", POLLED),
        (FENCED, SPIN.format("ld.shared.u32") + "membar.cta;"),
    ],
)
def test_a_flag_without_a_fence_is_a_race(raise_: str, wait: str) -> None:
    with pytest.raises(DeviceError, match="race"):
        run(raise_, wait)


def test_one_thread_polls_for_its_warps() -> None:
    """The barrier behind the loop passes on what the polling thread saw."""
    ask = "setp.ne.u32 %q, %t, 0; @%q bra GO; " + SPIN.format("ld.relaxed.cta.shared.u32") + "GO: bar.sync 1, 32;"
    assert run(FENCED, ask) == [37 + 31 - t for t in range(32)]


SOURCE = """
#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>
namespace cg = cooperative_groups;
extern "C" __global__ void tiles(int* out, const int* in) {
    extern __shared__ int own[];
    own[threadIdx.x] = in[threadIdx.x];
    auto tile = cg::tiled_partition<64>(cg::this_thread_block());
    for (int k = 0; k < 3; ++k) {
        tile.sync();
        const int x = own[threadIdx.x ^ 63];
        tile.sync();
        own[threadIdx.x] = x + 1;
    }
    tile.sync();
    out[threadIdx.x] = cg::reduce(tile, own[threadIdx.x], cg::plus<int>()) + own[threadIdx.x ^ 32];
}
"""


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_tiles_of_several_warps(arch: str, nvcc: Callable[[str, str], str], seed: int) -> None:
    """They sync in shared memory that the system keeps (%reserved_smem_offset_1): no array of the kernel lies there."""
    x = np.random.default_rng(seed).integers(-100, 100, 256).astype(np.int32)
    out = np.zeros(256, np.int32)
    emulator().launch(nvcc(SOURCE, arch), [out, x], block=(256, 1, 1), shared=1024, name="tiles")
    last = x.reshape(4, 64)[:, ::-1] + 3
    want = last.sum(1, keepdims=True) + last[:, np.arange(64) ^ 32]
    np.testing.assert_array_equal(out, want.ravel())


@pytest.mark.emulator_only("errors")
def test_what_lies_between_is_out_of_bounds() -> None:
    text = f"""{HOPPER}.visible .entry kernel() {{ .reg .b32 %r; .shared .b32 own[3];
  mov.u32 %r, %reserved_smem_offset_0; st.shared.u32 [%r], 1; st.shared.u32 [%r+OFFSET], 1; ret; }}"""
    emulator().launch(text.replace("OFFSET", "1020"), [])
    for offset in (-4, 1024):
        with pytest.raises(DeviceError, match="out of bounds: the block has 12 bytes"):
            emulator().launch(text.replace("OFFSET", str(offset)), [])
