"""The emulator's checkers of global memory: reads of what was never written, and races between blocks, between warps of
a block, and between lanes of a warp. Each planted bug is found, with the place; its mended twin passes in silence."""

from __future__ import annotations

import ctypes
from pathlib import Path

import neurokern
import neurokern.functional as F
import numpy as np
import pytest
import torch
from neurokern import _C
from neurokern.backends import emulation
from neurokern.testing.ptx import HEADER, DeviceError, emulator

pytestmark = pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing()))

FILE = '.file 1 "/home/someone/kernels/cuda/planted.cu"\n'


def launch(text: str, blocks: int = 2, threads: int = 64) -> np.ndarray:
    """%m: an array of 256 words that hold 0, %f: one that holds nothing; %t: thread, %b: block, %i: number of the
    thread in the grid, %n and %g: its place in %m and %f, %w: warp. A line behind "!" is line 77 of the source."""
    text = text.replace("!", "\n.loc 1 77 0\n").replace("~", "!")
    ptx = f"""{HEADER}{FILE}
.visible .entry kernel(.param .u64 data, .param .u64 fresh) {{
  .reg .pred %p, %q; .reg .b32 %x, %y, %t, %b, %i, %c, %w; .reg .b16 %h; .reg .b64 %m, %f, %n, %g, %o;
  .shared .align 16 .b8 tile[512];
  mov.u32 %t, %tid.x; mov.u32 %b, %ctaid.x; mov.u32 %i, %ntid.x; mad.lo.u32 %i, %b, %i, %t; shr.u32 %w, %t, 5;
  ld.param.u64 %m, [data]; ld.param.u64 %f, [fresh]; mad.wide.u32 %n, %i, 4, %m; mad.wide.u32 %g, %i, 4, %f;
  mov.u32 %y, %i; cvt.u16.u32 %h, %t;
  .loc 1 10 0
  {text}
OUT: ret;
}}"""
    out = np.zeros(256, np.uint32)
    emulator().launch(ptx, [out, out.copy()], grid=(blocks, 1, 1), block=(threads, 1, 1), fresh=[1])
    return out


# What is written is taken by whoever comes last to the counter [%m+512]: the pattern of a reduction in one launch.
TICKET = """
  st.global.u32 [%n], %y; {fence} bar.sync 0; setp.eq.u32 %p, %t, 0;
  @%p atom.global{scope}.add.u32 %x, [%m+512], 1; @%p st.shared.u32 [tile], %x;
  bar.sync 0; ld.shared.u32 %x, [tile]; setp.ne.u32 %q, %x, 1; @%q bra OUT;
  xor.b32 %c, %i, 64; mad.wide.u32 %o, %c, 4, %m; !ld.global.u32 %x, [%o];"""
# Block 0 writes, then sets a flag; block 1 waits for the flag and reads.
PASSED = """
  setp.eq.u32 %p, %b, 1; @%p bra READ; st.global.u32 [%n], %y; {before} bar.sync 0; setp.eq.u32 %q, %t, 0;
  @%q st{set}.global.u32 [%m+512], 1; bra OUT;
READ: ld{get}.global.u32 %x, [%m+512]; setp.eq.u32 %p, %x, 0; @%p bra READ; {after}
  mad.wide.u32 %o, %t, 4, %m; !ld.global.u32 %x, [%o];"""
STRONG = {"set": ".relaxed.gpu", "get": ".relaxed.gpu"}

# what is wrong; the bug; its mended twin; message
PLANTED = {
    "init: nothing was written": ("!ld.global.u32 %x, [%g];", "ld.global.u32 %x, [%n];", "never written"),
    "init: one thread did not write": (
        "setp.ne.u32 %p, %i, 50; @%p st.global.u32 [%g], %y; bar.sync 0; !ld.global.u32 %x, [%g];",
        "setp.ne.u32 %p, %i, 50; @%p st.global.u32 [%g], %y; bar.sync 0; @%p ld.global.u32 %x, [%g];",
        "thread \\(50, 0, 0\\).*never written",
    ),
    "init: half of a word": (
        "st.global.u16 [%g], %h; !ld.global.u32 %x, [%g];",
        "st.global.u16 [%g], %h; st.global.u16 [%g+2], %h; ld.global.u32 %x, [%g];",
        "never written",
    ),
    "init: an atomic on what was never set": (
        "!red.global.add.u32 [%f], 1;",
        "st.global.u32 [%g], %y; red.global.add.u32 [%g], 1;",
        "never written",
    ),
    "init: a copy from what was never written": (
        "shl.b32 %c, %t, 2; mov.u32 %x, tile; add.u32 %c, %c, %x; !cp.async.ca.shared.global [%c], [%g], 4;",
        "shl.b32 %c, %t, 2; mov.u32 %x, tile; add.u32 %c, %c, %x; cp.async.ca.shared.global [%c], [%n], 4; "
        "cp.async.wait_all;",
        "never written",
    ),
    "init: a vector of which the last word is missing": (
        ".reg .b32 %v<2>; mad.wide.u32 %o, %i, 8, %f; st.global.u32 [%o], %y; !ld.global.v2.u32 {%v0, %v1}, [%o];",
        ".reg .b32 %v<2>; mad.wide.u32 %o, %i, 8, %f; st.global.v2.u32 [%o], {%y, %y}; "
        "ld.global.v2.u32 {%v0, %v1}, [%o];",
        "never written",
    ),
    "blocks: two write one place": (
        "mad.wide.u32 %o, %t, 4, %m; !st.global.u32 [%o], %y;",
        "setp.eq.u32 %p, %b, 0; mad.wide.u32 %o, %t, 4, %m; @%p st.global.u32 [%o], %y;",
        "race.*other access by block \\([01], 0, 0\\)",
    ),
    "blocks: two write one place the same": (
        "mad.wide.u32 %o, %t, 4, %m; !st.global.u32 [%o], 7;",
        "mad.wide.u32 %o, %t, 4, %m; atom.global.exch.b32 %x, [%o], 7;",
        "race",
    ),
    "blocks: one reads what another wrote": (
        "setp.eq.u32 %p, %b, 0; @%p st.global.u32 [%n], %y; mad.wide.u32 %o, %t, 4, %m; setp.ne.u32 %p, %b, 0; "
        "!@%p ld.global.u32 %x, [%o];",
        "st.global.u32 [%n], %y; bar.sync 0; xor.b32 %c, %i, 32; mad.wide.u32 %o, %c, 4, %m; ld.global.u32 %x, [%o];",
        "race",
    ),
    "blocks: one writes what another read": (
        "xor.b32 %c, %i, 64; mad.wide.u32 %o, %c, 4, %m; !ld.global.u32 %x, [%o]; !st.global.u32 [%n], %y;",
        "ld.global.u32 %x, [%n]; st.global.u32 [%n], %y;",
        "race",
    ),
    "blocks: a vector that reaches into a neighbour's": (
        ".reg .b32 %v<2>; shl.b32 %c, %i, 1; setp.eq.u32 %p, %i, 63; mad.wide.u32 %o, %i, 4, %m; "
        "!st.global.u32 [%o], %y; setp.eq.u32 %q, %i, 64; mad.wide.u32 %o, 62, 4, %m; "
        "!@%q ld.global.v2.u32 {%v0, %v1}, [%o];",
        ".reg .b32 %v<2>; st.global.u32 [%n], %y; setp.eq.u32 %q, %i, 64; @%q ld.global.u32 %x, [%n];",
        "race",
    ),
    "blocks: a store beside an atomic": (
        "setp.eq.u32 %p, %b, 0; !@%p st.global.u32 [%m], 0; @~%p red.global.add.u32 [%m], 1;",
        "red.global.add.u32 [%m], 1;",
        "race",
    ),
    "blocks: an atomic for one block alone": (
        "!red.relaxed.cta.global.add.u32 [%m], 1;", "red.relaxed.gpu.global.add.u32 [%m], 1;", "race",
    ),
    "blocks: a ticket without a fence": (
        TICKET.format(fence="", scope=""), TICKET.format(fence="membar.gl;", scope=""), "race",
    ),
    "blocks: a ticket with a fence for one block alone": (
        TICKET.format(fence="membar.cta;", scope=""), TICKET.format(fence="fence.acq_rel.gpu;", scope=""), "race",
    ),
    "blocks: a ticket of relaxed atomics": (
        TICKET.format(fence="", scope=".relaxed.gpu"), TICKET.format(fence="", scope=".acq_rel.gpu"), "race",
    ),
    "blocks: a flag without fences": (
        PASSED.format(before="", after="", **STRONG),
        PASSED.format(before="fence.acq_rel.gpu;", after="fence.acq_rel.gpu;", **STRONG),
        "race",
    ),
    "blocks: a flag whose reader has no fence": (
        PASSED.format(before="fence.acq_rel.gpu;", after="", **STRONG),
        PASSED.format(before="fence.acq_rel.gpu;", after="", set=".relaxed.gpu", get=".acquire.gpu"),
        "race",
    ),
    "blocks: a flag whose writer has no fence": (
        PASSED.format(before="", after="membar.gl;", set=".volatile", get=".volatile"),
        PASSED.format(before="", after="membar.gl;", set=".release.gpu", get=".volatile"),
        "race",
    ),
    "blocks: a plain flag": (
        PASSED.format(before="membar.gl;", after="membar.gl;", set="", get=".volatile").replace("ld.vol", "!ld.vol"),
        PASSED.format(before="membar.gl;", after="membar.gl;", set=".volatile", get=".volatile"),
        "race",
    ),
    "warps: read after write": (
        "st.global.u32 [%n], %y; xor.b32 %c, %i, 32; mad.wide.u32 %o, %c, 4, %m; setp.ge.u32 %p, %t, 32; "
        "!@%p ld.global.u32 %x, [%o];",
        "st.global.u32 [%n], %y; bar.sync 0; xor.b32 %c, %i, 32; mad.wide.u32 %o, %c, 4, %m; setp.ge.u32 %p, %t, 32; "
        "@%p ld.global.u32 %x, [%o];",
        "race.*warp 0",
    ),
    "warps: write after read": (
        "xor.b32 %c, %i, 32; mad.wide.u32 %o, %c, 4, %m; !ld.global.u32 %x, [%o]; !st.global.u32 [%n], %y;",
        "xor.b32 %c, %i, 32; mad.wide.u32 %o, %c, 4, %m; ld.global.u32 %x, [%o]; bar.sync 0; st.global.u32 [%n], %y;",
        "race.*warp 0",
    ),
    "warps: two writers": (
        "and.b32 %c, %t, 31; mad.wide.u32 %o, %c, 4, %m; setp.eq.u32 %p, %b, 0; !@%p st.global.u32 [%o], %y;",
        "and.b32 %c, %t, 31; mad.wide.u32 %o, %c, 4, %m; setp.eq.u32 %p, %b, 0; @%p st.global.u32 [%o], %c;",
        "race.*warp 0",
    ),
    "warps: a barrier of one warp": (
        "st.global.u32 [%n], %y; bar.warp.sync -1; xor.b32 %c, %i, 32; mad.wide.u32 %o, %c, 4, %m; "
        "setp.ge.u32 %p, %t, 32; !@%p ld.global.u32 %x, [%o];",
        "st.global.u32 [%n], %y; bar.sync 3, 64; xor.b32 %c, %i, 32; mad.wide.u32 %o, %c, 4, %m; "
        "setp.ge.u32 %p, %t, 32; @%p ld.global.u32 %x, [%o];",
        "race",
    ),
    "lanes: a scatter with two to a place": (
        "shr.u32 %c, %i, 1; mad.wide.u32 %o, %c, 4, %m; !st.global.u32 [%o], %y;",
        "shr.u32 %y, %i, 1; mad.wide.u32 %o, %y, 4, %m; st.global.u32 [%o], %y;",
        "another value than lane 1 of its warp to global address",
    ),
    "lanes: all store their result": (
        "mad.wide.u32 %o, %b, 4, %m; setp.lt.u32 %p, %t, 32; !@%p st.global.u32 [%o], %y;",
        "mad.wide.u32 %o, %b, 4, %m; setp.eq.u32 %p, %t, 0; @%p st.global.u32 [%o], %y;",
        "another value than lane 1",
    ),
    "lanes: a permutation that is none": (
        "mul.lo.u32 %c, %t, 4; and.b32 %c, %c, 63; shl.b32 %x, %b, 6; or.b32 %c, %c, %x; mad.wide.u32 %o, %c, 4, %m; "
        "!st.global.u32 [%o], %y;",
        "mul.lo.u32 %c, %t, 5; and.b32 %c, %c, 63; shl.b32 %x, %b, 6; or.b32 %c, %c, %x; mad.wide.u32 %o, %c, 4, %m; "
        "st.global.u32 [%o], %y;",
        "another value than lane",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", PLANTED)
def test_planted(what: str) -> None:
    bug, mended, message = PLANTED[what]
    launch(mended)
    with pytest.raises(DeviceError, match=message) as error:
        launch(bug)
    text = str(error.value)
    assert "kernel kernel, kernels/cuda/planted.cu:77" in text
    assert "block (" in text


@pytest.mark.parametrize("what", [w for w in PLANTED if w.startswith(("blocks", "warps")) and "flag" not in w])
@pytest.mark.parametrize("shuffle", [1, 2, 3])
def test_planted_in_any_order(what: str, shuffle: int) -> None:
    """Blocks and warps may come in any order, but for the flags, which a block that comes first would wait for."""
    bug, mended, _ = PLANTED[what]
    emulation.set_option("shuffle", shuffle)
    try:
        launch(mended)
        with pytest.raises(DeviceError, match="race"):
            launch(bug)
    finally:
        emulation.set_option("shuffle", 0)


def test_what_is_known_is_passed_on() -> None:
    """Block 2 waits for block 1, which has waited for block 0: what block 0 wrote is block 2's to read."""
    text = """
  setp.ne.u32 %p, %b, 0; @%p bra WAIT; st.global.u32 [%n], %y; bar.sync 0; bra TELL;
WAIT: add.u32 %c, %b, 127; mad.wide.u32 %o, %c, 4, %m;
SPIN: ld.acquire.gpu.global.u32 %x, [%o]; setp.eq.u32 %p, %x, 0; @%p bra SPIN;
  bar.sync 0; mad.wide.u32 %o, %t, 4, %m; setp.eq.u32 %p, %b, 2; !@%p ld.global.u32 %x, [%o];
TELL: add.u32 %c, %b, 128; mad.wide.u32 %o, %c, 4, %m; setp.eq.u32 %p, %t, 0; {};
"""
    emulation.set_option("threads", 1)
    try:
        launch(text.format("@%p st.release.gpu.global.u32 [%o], 1"), blocks=3)
        # without the barrier, warp 1 of block 0 may be late
        with pytest.raises(DeviceError, match=r"race.*block \(0, 0, 0\), warp 1"):
            launch(text.replace("bar.sync 0; bra", "bra").format("@%p st.release.gpu.global.u32 [%o], 1"), blocks=3)
    finally:
        emulation.set_option("threads", 0)


def test_the_last_block_resets_the_counter() -> None:
    """After the last ticket, a plain store to the counter: the atomics of the others are behind it."""
    ending = " setp.eq.u32 %p, %t, 0; @%p st.global.u32 [%m+512], 0;"
    text = TICKET.format(fence="membar.gl;", scope="") + ending
    assert launch(text)[128] == 0


def test_launches_follow_one_another() -> None:
    """What one launch wrote is there for the next; what it left out is still never written."""
    ptx = HEADER + """
.visible .entry kernel(.param .u64 data, .param .u64 n) {
  .reg .pred %p; .reg .b32 %t, %x; .reg .b64 %m, %n, %j;
  mov.u32 %t, %tid.x; ld.param.u64 %m, [data]; ld.param.u64 %n, [n]; cvt.u64.u32 %j, %t; setp.ge.u64 %p, %j, %n;
  mad.wide.u32 %m, %t, 4, %m; @%p ld.global.u32 %x, [%m]; @!%p st.global.u32 [%m], %t; ret;
}"""  # fmt: skip
    device, address = emulator(), ctypes.c_uint64()
    device.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(64 * 4))

    def run(n: int) -> None:
        values = (address, ctypes.c_uint64(n))
        device.run(device.function(ptx, "kernel"), values, (1, 1, 1), (64, 1, 1), 0)

    try:
        run(64)
        run(0)
        device.call("cuMemDiscardBatchAsync", ctypes.byref(address), ctypes.byref(ctypes.c_size_t(256)), 1, 0, None)
        with pytest.raises(DeviceError, match=r"thread \(40, 0, 0\).*never written"):
            run(40)
        run(64)
        run(0)
    finally:
        device.call("cuMemFree_v2", address)


class TestThroughTheOps:
    """Outputs and scratch memory are new to the kernel; a tensor that is input and output is not."""

    @pytest.fixture
    def planted(self, tmp_path: Path):
        """A kernel in the place of ours that reads the output before it writes."""
        (tmp_path / "activation_unary.fatbin").write_text(f"""{HEADER}{FILE}
.visible .entry activation_unary_f32(.param .align 8 .b8 p[8]) {{
  .reg .b32 %x; .reg .b64 %o; ld.param.u64 %o, [p+OFFSET];
  .loc 1 5 0
  ld.global.u32 %x, [%o]; ret;
}}\0""")
        before = _C.cuda_info()["kernel_dir"]

        def use(offset: int) -> None:
            file = tmp_path / "activation_unary.fatbin"
            file.write_text(file.read_text().replace("OFFSET", str(offset)))
            _C.set_kernel_dir(str(tmp_path))

        yield use
        _C.set_kernel_dir(before)

    def test_an_output_is_new(self, planted) -> None:
        planted(0)
        with neurokern.emulate(), pytest.raises(RuntimeError, match=r"planted.cu:5.*never written"):
            F.relu(torch.randn(10))

    def test_in_place_is_not_new(self, planted) -> None:
        planted(0)
        with neurokern.emulate():
            F.relu(torch.randn(10), inplace=True)

    def test_it_can_be_left_out(self, planted) -> None:
        planted(0)
        with neurokern.emulate():
            with neurokern.emulate(check=False):
                F.relu(torch.randn(10))
            with pytest.raises(RuntimeError, match="never written"):
                F.relu(torch.randn(10))
        with pytest.raises(DeviceError, match="never written"):
            launch(PLANTED["init: nothing was written"][0])
