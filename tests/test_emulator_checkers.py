"""The emulator's checkers: planted bugs of each sort are found, with the place; their mended twins pass in silence."""

from __future__ import annotations

import time
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


def launch(
    text: str, threads: int = 64, valid: int = 256, shared: int = 0, blocks: int = 1, unchecked: str = ""
) -> np.ndarray:
    """%t: thread, %a: its place in `tile` (4 bytes each), %m: the array of 64 words, %n: the thread's word of it."""
    ptx = f"""{HEADER}{FILE}
.extern .shared .align 16 .b8 dynamic[];
.visible .entry kernel(.param .u64 data) {{
  .reg .pred %p, %q; .reg .b32 %x, %y, %t, %a, %b, %c, %w; .reg .b64 %m, %n, %o;
  .shared .align 16 .b8 tile[512];
  mov.u32 %t, %tid.x; ld.param.u64 %m, [data]; mad.wide.u32 %n, %t, 4, %m;
  mov.u32 %a, tile; mad.lo.u32 %a, %t, 4, %a; shr.u32 %w, %t, 5; mov.u32 %y, %t;
  .loc 1 10 0
  {text}
  ret;
}}"""
    out = np.zeros(64, np.uint32)
    device = emulator()
    if unchecked:
        emulation.set_option(unchecked, 0)
    device.launch(ptx, [out], block=(threads, 1, 1), grid=(blocks, 1, 1), shared=shared, valid=[valid])
    return out


# what is wrong; the bug (a line "!" before the culprit sets its source line to 77); its mended twin; kind of message;
# the thread that is named
PLANTED = {
    "global: one element too far": (
        "add.u32 %b, %t, 1; mad.wide.u32 %o, %b, 4, %m; !ld.global.u32 %y, [%o];",
        "add.u32 %b, %t, 1; min.u32 %b, %b, 63; mad.wide.u32 %o, %b, 4, %m; ld.global.u32 %y, [%o];",
        "out of bounds", 63,
    ),
    "global: before the beginning": (
        "sub.s32 %b, %t, 3; mad.wide.s32 %o, %b, 4, %m; !st.global.u32 [%o], %y;",
        "sub.s32 %b, %t, 3; setp.ge.s32 %p, %b, 0; mad.wide.s32 %o, %b, 4, %m; @%p st.global.u32 [%o], %y;",
        "out of bounds", 0,
    ),
    "global: a vector that hangs over the end": (
        ".reg .b32 %v<4>; mad.wide.u32 %o, %t, 8, %m; setp.gt.u32 %p, %t, 31; "
        "!@!%p ld.global.v4.u32 {%v0, %v1, %v2, %v3}, [%o];",
        ".reg .b32 %v<4>; mad.wide.u32 %o, %t, 8, %m; setp.gt.u32 %p, %t, 31; @!%p ld.global.v2.u32 {%v0, %v1}, [%o];",
        "misaligned", 1,
    ),
    "global: a null pointer": (
        "mov.u64 %o, 0; setp.eq.u32 %p, %t, 5; !@%p ld.global.u32 %y, [%o];",
        "mov.u64 %o, 0; setp.eq.u32 %p, %t, 999; @%p ld.global.u32 %y, [%o];",
        "out of bounds", 5,
    ),
    "generic: an atomic behind the end": (
        "add.s64 %o, %m, 256; setp.eq.u32 %p, %t, 33; !@%p atom.add.u32 %y, [%o], 1;",
        "add.s64 %o, %m, 252; setp.eq.u32 %p, %t, 33; @%p atom.add.u32 %y, [%o], 1;",
        "out of bounds", 33,
    ),
    "cp.async: reads behind the end": (
        "mad.wide.u32 %o, %t, 8, %m; setp.eq.u32 %p, %t, 40; !@%p cp.async.ca.shared.global [%a], [%o], 4;",
        "mad.wide.u32 %o, %t, 8, %m; setp.eq.u32 %p, %t, 31; @%p cp.async.ca.shared.global [%a], [%o], 4;",
        "out of bounds", 40,
    ),
    "shared: behind the block's memory": (
        "mad.lo.u32 %a, %t, 8, %a; !st.shared.u32 [%a], %y;",
        "st.shared.u32 [%a], %y;",
        "out of bounds", 43,
    ),
    "shared: a negative index": (
        "sub.u32 %a, %a, 4; !st.shared.u32 [%a], %y;", "st.shared.u32 [%a], %y;", "out of bounds", 0,
    ),
    "local: behind the thread's memory": (
        ".local .align 4 .b8 mine[16]; mov.u64 %o, mine; !st.local.u32 [%o+16], %y;",
        ".local .align 4 .b8 mine[16]; mov.u64 %o, mine; st.local.u32 [%o+12], %y;",
        "out of bounds", 0,
    ),
    "global: misaligned": (
        "add.s64 %o, %m, 2; setp.eq.u32 %p, %t, 7; !@%p ld.global.u32 %y, [%o];",
        "add.s64 %o, %m, 2; setp.eq.u32 %p, %t, 7; @%p ld.global.u16 %y, [%o];",
        "misaligned", 7,
    ),
    "shared: misaligned vector": (
        ".reg .b32 %v<2>; st.shared.u32 [%a], %y; bar.sync 0; setp.eq.u32 %p, %t, 3; "
        "!@%p ld.shared.v2.u32 {%v0, %v1}, [%a];",
        ".reg .b32 %v<2>; st.shared.u32 [%a], %y; bar.sync 0; setp.eq.u32 %p, %t, 4; "
        "@%p ld.shared.v2.u32 {%v0, %v1}, [%a];",
        "misaligned", 3,
    ),
    "cp.async: misaligned": (
        "add.s64 %o, %m, 4; setp.eq.u32 %p, %t, 0; !@%p cp.async.cg.shared.global [%a], [%o], 16;",
        "add.s64 %o, %m, 16; setp.eq.u32 %p, %t, 0; @%p cp.async.cg.shared.global [%a], [%o], 16;",
        "misaligned", 0,
    ),
    "init: nothing was written": ("!ld.shared.u32 %y, [%a];", "st.shared.u32 [%a], %y; ld.shared.u32 %y, [%a];",
                                  "never written", 0),
    "init: one thread did not write": (
        "setp.ne.u32 %p, %t, 50; @%p st.shared.u32 [%a], %y; bar.sync 0; !ld.shared.u32 %y, [%a];",
        "setp.ne.u32 %p, %t, 50; @%p st.shared.u32 [%a], %y; bar.sync 0; @%p ld.shared.u32 %y, [%a];",
        "never written", 50,
    ),
    "init: half of a word": (
        "st.shared.u16 [%a], %y16; bar.sync 0; !ld.shared.u32 %y, [%a];",
        "st.shared.u16 [%a], %y16; bar.sync 0; ld.shared.u16 %y, [%a];",
        "never written", 0,
    ),
    "init: an atomic on what was never set": (
        "!atom.shared.add.u32 %y, [%a], 1;",
        "st.shared.u32 [%a], 0; atom.shared.add.u32 %y, [%a], 1;",
        "never written", 0,
    ),
    "async: no wait": (
        "cp.async.ca.shared.global [%a], [%n], 4; cp.async.commit_group; bar.sync 0; !ld.shared.u32 %y, [%a];",
        "cp.async.ca.shared.global [%a], [%n], 4; cp.async.commit_group; cp.async.wait_group 0; bar.sync 0; "
        "ld.shared.u32 %y, [%a];",
        "a wait is missing", 0,
    ),
    "async: a wait for the wrong group": (
        "cp.async.ca.shared.global [%a], [%n], 4; cp.async.commit_group; cp.async.wait_group 1; bar.sync 0; "
        "!ld.shared.u32 %y, [%a];",
        "cp.async.ca.shared.global [%a], [%n], 4; cp.async.commit_group; cp.async.commit_group; "
        "cp.async.wait_group 1; bar.sync 0; ld.shared.u32 %y, [%a];",
        "a wait is missing", 0,
    ),
    "async: never committed": (
        "cp.async.ca.shared.global [%a], [%n], 4; cp.async.wait_group 0; bar.sync 0; !ld.shared.u32 %y, [%a];",
        "cp.async.ca.shared.global [%a], [%n], 4; cp.async.wait_all; bar.sync 0; ld.shared.u32 %y, [%a];",
        "a wait is missing", 0,
    ),
    "async: a wait of one's own copies alone": (
        "cp.async.ca.shared.global [%a], [%n], 4; cp.async.wait_all; xor.b32 %a, %a, 128; !ld.shared.u32 %y, [%a];",
        "cp.async.ca.shared.global [%a], [%n], 4; cp.async.wait_all; bar.sync 0; xor.b32 %a, %a, 128; "
        "ld.shared.u32 %y, [%a];",
        "(a wait is missing|never written|race)", None,
    ),
    "race: read after write": (
        "st.shared.u32 [%a], %y; xor.b32 %a, %a, 128; setp.ge.u32 %p, %t, 32; !@%p ld.shared.u32 %y, [%a];",
        "st.shared.u32 [%a], %y; bar.sync 0; xor.b32 %a, %a, 128; setp.ge.u32 %p, %t, 32; @%p ld.shared.u32 %y, [%a];",
        "race", 32,
    ),
    "race: write after read": (
        "st.shared.u32 [%a], %y; bar.sync 0; xor.b32 %b, %a, 128; !ld.shared.u32 %y, [%b]; st.shared.u32 [%a], %y;",
        "st.shared.u32 [%a], %y; bar.sync 0; xor.b32 %b, %a, 128; ld.shared.u32 %y, [%b]; bar.sync 0; "
        "st.shared.u32 [%a], %y;",
        "race", 32,
    ),
    "race: two writers": (
        "and.b32 %b, %t, 31; shl.b32 %b, %b, 2; mov.u32 %c, tile; add.u32 %b, %b, %c; !st.shared.u32 [%b], %y;",
        "setp.eq.u32 %p, %w, 0; and.b32 %b, %t, 31; shl.b32 %b, %b, 2; mov.u32 %c, tile; add.u32 %b, %b, %c; "
        "@%p st.shared.u32 [%b], %y;",
        "race", 32,
    ),
    "race: a store beside an atomic": (
        "setp.lt.u32 %p, %t, 32; mov.u32 %b, tile; @%p st.shared.u32 [%b], 0; !@!%p atom.shared.add.u32 %y, [%b], 1;",
        "setp.lt.u32 %p, %t, 32; mov.u32 %b, tile; @%p st.shared.u32 [%b], 0; bar.sync 0; "
        "@!%p atom.shared.add.u32 %y, [%b], 1;",
        "race", 32,
    ),
    "race: a barrier that another warp does not share": (
        "st.shared.u32 [%a], %y; bar.warp.sync -1; xor.b32 %a, %a, 128; setp.ge.u32 %p, %t, 32; "
        "!@%p ld.shared.u32 %y, [%a];",
        "st.shared.u32 [%a], %y; bar.sync 3, 64; xor.b32 %a, %a, 128; setp.ge.u32 %p, %t, 32; "
        "@%p ld.shared.u32 %y, [%a];",
        "race", 32,
    ),
    "race: a warp that arrives at a barrier and does not wait": (
        "st.shared.u32 [%a], %y; xor.b32 %a, %a, 128; setp.lt.u32 %p, %t, 32; @%p bar.sync 3, 64; "
        "@!%p bar.arrive 3, 64; !@!%p ld.shared.u32 %y, [%a];",
        "st.shared.u32 [%a], %y; xor.b32 %a, %a, 128; setp.lt.u32 %p, %t, 32; @%p bar.sync 3, 64; "
        "@!%p bar.arrive 3, 64; @%p ld.shared.u32 %y, [%a];",
        "race", 32,
    ),
    "race: what a warp does after it arrived": (
        "xor.b32 %b, %a, 128; setp.lt.u32 %p, %t, 32; @%p bar.sync 3, 64; @!%p bar.arrive 3, 64; "
        "@!%p st.shared.u32 [%a], %y; !@%p ld.shared.u32 %y, [%b];",
        "xor.b32 %b, %a, 128; setp.lt.u32 %p, %t, 32; @!%p st.shared.u32 [%a], %y; @%p bar.sync 3, 64; "
        "@!%p bar.arrive 3, 64; @%p ld.shared.u32 %y, [%b];",
        "race", 0,
    ),
    "race: two lanes of one store": (
        "shr.u32 %b, %t, 1; shl.b32 %b, %b, 2; mov.u32 %c, tile; add.u32 %b, %b, %c; !st.shared.u32 [%b], %y;",
        "shr.u32 %y, %t, 1; shl.b32 %b, %y, 2; mov.u32 %c, tile; add.u32 %b, %b, %c; st.shared.u32 [%b], %y;",
        "another value than lane 1 of its warp to shared address 0x0", 0,
    ),
    "race: two lanes of one vector store": (
        ".reg .b32 %v<2>; and.b32 %b, %t, 15; shl.b32 %b, %b, 3; mov.u32 %c, tile; add.u32 %b, %b, %c; "
        "setp.lt.u32 %p, %t, 32; !@%p st.shared.v2.u32 [%b], {0, %y};",
        "and.b32 %b, %t, 15; shl.b32 %b, %b, 3; mov.u32 %c, tile; add.u32 %b, %b, %c; and.b32 %y, %t, 15; "
        "setp.lt.u32 %p, %t, 32; @%p st.shared.v2.u32 [%b], {0, %y};",
        "another value than lane 16 of its warp", 0,
    ),
    "race: lanes that store a flag": (
        "setp.lt.u32 %p, %t, 32; mov.u32 %b, tile; !@%p st.shared.u32 [%b], %y;",
        "setp.lt.u32 %p, %t, 32; mov.u32 %b, tile; @%p st.shared.u32 [%b], 1;",
        "another value than lane 1 of its warp", 0,
    ),
    "race: warps that store what they hold a copy of": (
        "and.b32 %b, %t, 31; shl.b32 %b, %b, 2; mov.u32 %c, tile; add.u32 %b, %b, %c; !st.shared.u32 [%b], %y;",
        "and.b32 %y, %t, 31; shl.b32 %b, %y, 2; mov.u32 %c, tile; add.u32 %b, %b, %c; st.shared.u32 [%b], %y; "
        "bar.sync 0; ld.shared.u32 %x, [%b];",
        "race", 32,
    ),
    "race: warps that store a matrix of which they hold copies": (
        "and.b32 %b, %t, 7; shl.b32 %b, %b, 4; mov.u32 %c, tile; add.u32 %b, %b, %c; "
        "!stmatrix.sync.aligned.m8n8.x1.shared.b16 [%b], {%y};",
        "and.b32 %b, %t, 7; shl.b32 %b, %b, 4; mov.u32 %c, tile; add.u32 %b, %b, %c; and.b32 %y, %t, 31; "
        "stmatrix.sync.aligned.m8n8.x1.shared.b16 [%b], {%y}; bar.sync 0; ld.shared.u32 %x, [%b];",
        "race", 32,
    ),
    "sync: half of a warp at the barrier": (
        "and.b32 %b, %t, 1; setp.eq.u32 %p, %b, 0; @%p bra OUT; !bar.sync 0; OUT: mov.u32 %c, 0;",
        "and.b32 %b, %t, 1; setp.eq.u32 %p, %b, 0; @%p bra OUT; mov.u32 %c, 1; OUT: bar.sync 0;",
        "(divergence|mismatched)", None,
    ),
    "sync: a warp that leaves without the barrier": (
        "setp.ge.u32 %p, %t, 32; @%p exit; !bar.sync 0;",
        "setp.ge.u32 %p, %t, 32; @%p exit; bar.sync 0, 32;",
        "mismatched barrier", 0,
    ),
    "sync: barriers of different counts": (
        "setp.ge.u32 %p, %t, 32; @%p bra B; bar.sync 1, 64; bra OUT; B: !bar.sync 1, 32; OUT: mov.u32 %c, 0;",
        "setp.ge.u32 %p, %t, 32; @%p bra B; bar.sync 1, 64; bra OUT; B: bar.sync 1, 64; OUT: mov.u32 %c, 0;",
        "is for 32 threads here, for 64 elsewhere", 32,
    ),
    "sync: deadlock of two barriers": (
        "setp.ge.u32 %p, %t, 32; @%p bra B; bar.sync 1, 64; bar.sync 2, 64; bra OUT; B: bar.sync 2, 64; "
        "bar.sync 1, 64; OUT: mov.u32 %c, 0;",
        "setp.ge.u32 %p, %t, 32; @%p bra B; bar.sync 1, 64; bar.sync 2, 64; bra OUT; B: bar.sync 1, 64; "
        "bar.sync 2, 64; OUT: mov.u32 %c, 0;",
        "deadlock: .*warp 0 waits at barrier 1.*warp 1 waits at barrier 2", None,
    ),
    "sync: a shuffle with a lane that is elsewhere": (
        "setp.eq.u32 %p, %t, 9; @%p bra OUT; !shfl.sync.bfly.b32 %y, %y, 1, 31, -1; OUT: mov.u32 %c, 0;",
        "setp.eq.u32 %p, %t, 999; @%p bra OUT; shfl.sync.bfly.b32 %y, %y, 1, 31, -1; OUT: mov.u32 %c, 0;",
        "(divergence|does not take part)", None,
    ),
    "sync: ldmatrix by a part of a warp": (
        ".reg .b32 %r; st.shared.v4.u32 [tile], {0, 0, 0, 0}; setp.lt.u32 %p, %t, 16; mov.u32 %b, tile; "
        "!@%p ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r}, [%b];",
        ".reg .b32 %r; setp.lt.u32 %p, %t, 32; mov.u32 %b, tile; @%p st.shared.v4.u32 [tile], {0, 0, 0, 0}; "
        "@%p ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r}, [%b];",
        "(guard|race)", None,
    ),
}  # fmt: skip


def placed(text: str) -> str:
    return (".reg .b16 %y16; cvt.u16.u32 %y16, %y;" + text).replace("!@!", "\n.loc 1 77 0\n@@").replace(
        "@!", "@?"
    ).replace("!", "\n.loc 1 77 0\n").replace("@?", "@!").replace("@@", "@!")  # fmt: skip


@pytest.mark.parametrize("what", PLANTED)
def test_planted(what: str) -> None:
    bug, mended, message, thread = PLANTED[what]
    launch(placed(mended))
    start = time.perf_counter()
    with pytest.raises(DeviceError, match=message) as error:
        launch(placed(bug))
    assert time.perf_counter() - start < 5
    text = str(error.value)
    assert "kernel kernel, kernels/cuda/planted.cu:" in text
    assert "block (0, 0, 0)" in text
    if "\n.loc 1 77" in placed(bug):
        assert "planted.cu:77" in text
    if thread is not None:
        assert f"thread ({thread}, 0, 0)" in text


def test_the_block_is_named() -> None:
    text = "mov.u32 %b, %ctaid.x; setp.eq.u32 %p, %b, 3; @!%p bra OUT; mov.u64 %o, 64; st.global.u32 [%o], %y; OUT:"
    with pytest.raises(DeviceError, match=r"block \(3, 0, 0\), thread \(0, 0, 0\).* at address 0x40"):
        launch(text, blocks=6)


def test_dynamic_shared_memory_ends_where_the_launch_says() -> None:
    text = "setp.eq.u32 %p, %t, 0; mov.u32 %b, dynamic; @%p st.shared.u32 [%b+60], %y;"
    launch(text, shared=64)
    with pytest.raises(DeviceError, match=r"shared memory.*out of bounds"):
        launch(text, shared=60)


def test_checks_can_be_left_out() -> None:
    """Without them the same launch reads stale shared memory and goes on."""
    text = "ld.shared.u32 %y, [%a]; st.global.u32 [%n], %y;"
    assert set(launch(text, unchecked="shared").tolist()) == {0xFFFFFFFF}


def test_a_loop_without_end_is_reported() -> None:
    """A warp spins on a flag that nobody sets: where it stands is said in seconds."""
    text = "SPIN: ld.volatile.global.u32 %x, [%m]; setp.eq.u32 %p, %x, 0;\n.loc 1 78 0\n@%p bra SPIN;"
    emulation.set_option("seconds", 1)
    try:
        start = time.perf_counter()
        with pytest.raises(DeviceError, match=r"no end after 1 seconds; warp 0 stands at .*; warp 1 stands at"):
            launch(text)
        assert time.perf_counter() - start < 10
    finally:
        emulation.set_option("seconds", 120)


def test_shuffling_changes_the_order_and_repeats() -> None:
    """Blocks and warps that note when they came: another order for another seed, the same for the same."""
    ticket = "atom.global.add.u32 %x, [%m], 1; setp.ne.u32 %p, %t, 32; mov.u32 %b, %ctaid.x; @%p bra OUT;"
    text = f"{ticket} add.u32 %b, %b, 1; mad.wide.u32 %o, %b, 4, %m; st.global.u32 [%o], %x; OUT:"
    emulation.set_option("threads", 1)
    orders = []
    try:
        for shuffle in (0, 5, 5, 6):
            emulation.set_option("shuffle", shuffle)
            orders.append(launch(text, blocks=20)[1:21].tolist())
    finally:
        emulation.set_option("shuffle", 0)
        emulation.set_option("threads", 0)
    assert orders[0] == [64 * k + 32 for k in range(20)]
    assert orders[1] == orders[2]
    assert len({tuple(o) for o in orders}) == 3


class TestThroughTheOps:
    """Tensors define what is valid, on both sides, and the error reaches the caller with its op."""

    def test_tensors_are_known_for_the_time_of_the_call(self) -> None:
        x = torch.randn(1000)
        with neurokern.emulate():
            F.relu(x)
            assert emulation.library().cuMemHostUnregister(x.data_ptr()) != 0

    def test_an_error_says_which_op_and_where(self, tmp_path: Path) -> None:
        """A kernel in the place of ours stores far away: the op's error carries what the checker found."""
        (tmp_path / "activation_unary.fatbin").write_text(f"""{HEADER}{FILE}
.visible .entry activation_unary_f32(.param .align 8 .b8 p[8]) {{
  .reg .b64 %o; mov.u64 %o, 4096;
  .loc 1 5 0
  st.global.u32 [%o], 1; ret;
}}\0""")
        before = _C.cuda_info()["kernel_dir"]
        _C.set_kernel_dir(str(tmp_path))
        try:
            with (
                neurokern.emulate(),
                pytest.raises(RuntimeError, match=r"neurokern\.relu: kernel activation_unary_f32") as e,
            ):
                F.relu(torch.randn(10))
        finally:
            _C.set_kernel_dir(before)
        assert "CUDA_ERROR_ILLEGAL_ADDRESS" in str(e.value)
        assert "kernels/cuda/planted.cu:5" in str(e.value)
        assert "block (0, 0, 0), thread (0, 0, 0)" in str(e.value)

    @pytest.mark.parametrize("shuffle", [0, 1, 2])
    def test_correct_kernels_are_silent(self, shuffle: int) -> None:
        """Tiled, pipelined, reducing and shuffling kernels under all checkers, in several orders."""
        a, b = torch.randn(70, 130), torch.randn(90, 130)
        with neurokern.emulate(shuffle=shuffle):
            for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
                x, w = a.to(dtype), b.to(dtype)
                assert F.linear(x, w).isfinite().all()
                assert F.softmax(torch.randn(3, 5000).to(dtype), -1).isfinite().all()
                assert F.softmax(torch.randn(300, 7).to(dtype), 0).isfinite().all()
