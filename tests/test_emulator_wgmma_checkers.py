"""Planted bugs in the use of wgmma: each is found, with its line; their mended twins pass in silence."""

from __future__ import annotations

import time

import numpy as np
import pytest
from neurokern.backends import emulation
from neurokern.testing.ptx import DeviceError
from neurokern.testing.wgmma import Layout, run

pytestmark = pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing()))

FENCE = "wgmma.fence.sync.aligned;"
COMMIT = "wgmma.commit_group.sync.aligned;"
WAIT = "wgmma.wait_group.sync.aligned 0;"
D = "{%d0, %d1, %d2, %d3}"
MMA = f"wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {D}, %x, %y, 1, 1, 1, 0, 0;"
MMA_A = f"wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {D}, {{%a0, %a1, %a2, %a3}}, %y, 1, 1, 1, 0;"
MMA_D = (
    "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%a0, %a1, %a2, %a3}, {%d0, %d1, %d2, %d3}, %y, 1, 1, 1, 0;"
)
F16 = "wgmma.mma_async.sync.aligned.m64n8k16.f16.f16.f16 {%d0, %d1}, %x, %y, 1, 1, 1, 0, 0;"
STORE = "st.shared.b32 [%u+8192], 64;"
WARP = "shr.u32 %w, %t, 5; setp.eq.u32 %q, %w, 2;"

# what is wrong: the bug (the culprit stands behind "!"), its mended twin, the message
PLANTED = {
    "no fence at all": (f"!{MMA} {COMMIT} {WAIT}", f"{FENCE} {MMA} {COMMIT} {WAIT}", "no wgmma.fence comes before"),
    "accumulators set behind the fence": (
        f"{FENCE} mov.b32 %d1, 0; !{MMA} {COMMIT} {WAIT}",
        f"mov.b32 %d1, 0; {FENCE} {MMA} {COMMIT} {WAIT}",
        "an accumulator was used by another instruction since the last wgmma.fence",
    ),
    "registers of A set behind the fence": (
        f"{FENCE} mov.b32 %a3, 0; !{MMA_A} {COMMIT} {WAIT}",
        f"mov.b32 %a3, 0; {FENCE} {MMA_A} {COMMIT} {WAIT}",
        "a register of A was used by another instruction since the last wgmma.fence",
    ),
    "accumulators read between two products, without a fence": (
        f"{FENCE} {MMA} {COMMIT} {WAIT} add.f32 %z, %d0, %d0; !{MMA} {COMMIT} {WAIT}",
        f"{FENCE} {MMA} {COMMIT} {WAIT} add.f32 %z, %d0, %d0; {FENCE} {MMA} {COMMIT} {WAIT}",
        "a fence is missing",
    ),
    "no wait": (
        f"{FENCE} {MMA} {COMMIT} !mov.b32 %z, %d2;",
        f"{FENCE} {MMA} {COMMIT} {WAIT} mov.b32 %z, %d2;",
        "reads an accumulator of a wgmma in flight: a wgmma.wait_group is missing",
    ),
    "a wait for the wrong group": (
        f"{FENCE} {MMA} {COMMIT} wgmma.wait_group.sync.aligned 1; !mov.b32 %z, %d2; {WAIT}",
        f"{FENCE} {MMA} {COMMIT} {COMMIT} wgmma.wait_group.sync.aligned 1; mov.b32 %z, %d2; {WAIT}",
        "reads an accumulator of a wgmma in flight",
    ),
    "no commit": (
        f"{FENCE} {MMA} {WAIT} !mov.b32 %z, %d2;",
        f"{FENCE} {MMA} {COMMIT} {WAIT} mov.b32 %z, %d2;",
        "reads an accumulator of a wgmma in flight: a wgmma.commit_group is missing",
    ),
    "accumulators cleared in flight": (
        f"{FENCE} {MMA} {COMMIT} !mov.b32 %d3, 0; {WAIT}",
        f"{FENCE} {MMA} {COMMIT} {WAIT} mov.b32 %d3, 0;",
        "writes an accumulator of a wgmma in flight",
    ),
    "A overwritten in flight": (
        f"{FENCE} {MMA_A} {COMMIT} !mov.b32 %a0, 0; {WAIT}",
        f"{FENCE} {MMA_A} {COMMIT} add.u32 %z, %a0, 1; {WAIT} mov.b32 %a0, 0;",
        "writes a register that a wgmma in flight reads A from",
    ),
    "A out of accumulators in flight": (
        f"{FENCE} {MMA} {COMMIT} !{MMA_D} {COMMIT} {WAIT}",
        f"{FENCE} {MMA} {COMMIT} {WAIT} {MMA_D} {COMMIT} {WAIT}",
        "reads A from registers that a wgmma in flight writes",
    ),
    "another shape on the same accumulators": (
        f"{FENCE} {MMA} !{F16} {COMMIT} {WAIT}",
        f"{FENCE} {MMA} {COMMIT} {WAIT} {F16} {COMMIT} {WAIT}",
        "a wgmma of another shape is in flight",
    ),
    "the warp leaves without a wait": (
        f"{FENCE} !{MMA} {COMMIT} exit;",
        f"{FENCE} {MMA} {COMMIT} {WAIT} exit;",
        "the warp leaves with this wgmma in flight: a wgmma.wait_group is missing",
    ),
    "one warp of the warpgroup goes another way": (
        f"{WARP} @%q bra OUT; {FENCE} {MMA} {COMMIT} !{WAIT} OUT:",
        f"{WARP} @%q bra OUT; mov.b32 %z, 0; OUT: {FENCE} {MMA} {COMMIT} {WAIT}",
        "deadlock: .*warp 0 waits for a wgmma that warps 2 of its warpgroup did not execute",
    ),
    "one warp executes another product": (
        f"{WARP} {FENCE} @%q bra OTHER; {MMA} bra.uni OUT; OTHER: !{MMA} OUT: {COMMIT} {WAIT}",
        f"{WARP} {FENCE} @%q bra OTHER; OTHER: {MMA} {COMMIT} {WAIT}",
        "the warps of a warpgroup execute different wgmma",
    ),
    "half of a warp": (
        f"and.b32 %w, %t, 1; setp.eq.u32 %q, %w, 0; @%q bra OUT; !{FENCE} OUT: {MMA} {COMMIT} {WAIT}",
        f"and.b32 %w, %t, 1; setp.eq.u32 %q, %w, 0; @%q bra OUT; mov.b32 %z, 0; OUT: {FENCE} {MMA} {COMMIT} {WAIT}",
        "divergence",
    ),
    "descriptors of one's own": (
        f"{WARP} @%q add.s64 %x, %x, 8; {FENCE} !{MMA} {COMMIT} {WAIT}",
        f"{WARP} @%q add.s64 %o, %o, 8; @%q sub.s64 %o, %o, 8; {FENCE} {MMA} {COMMIT} {WAIT}",
        "with different descriptors",
    ),
    "a descriptor that differs among lanes": (
        f"setp.eq.u32 %q, %t, 7; @%q add.s64 %y, %y, 8; {FENCE} !{MMA} {COMMIT} {WAIT}",
        f"setp.ne.u32 %q, %t, -1; @%q add.s64 %y, %y, 0; {FENCE} {MMA} {COMMIT} {WAIT}",
        "the descriptor of B differs among the lanes",
    ),
    "operands overwritten in flight": (
        f"{FENCE} !{MMA} {COMMIT} setp.lt.u32 %q, %t, 32; @%q {STORE} {WAIT}",
        f"{FENCE} {MMA} {COMMIT} setp.lt.u32 %q, %t, 32; {WAIT} bar.sync 0; @%q {STORE}",
        "reads shared memory that was written while it was in flight",
    ),
    "operands overwritten in flight, behind a barrier": (
        f"{FENCE} !{MMA} {COMMIT} bar.sync 0; {WARP} @%q {STORE} bar.sync 0; {WAIT}",
        f"{FENCE} {MMA} {COMMIT} {WAIT} bar.sync 0; {WARP} @%q {STORE} bar.sync 0;",
        "reads shared memory that was written while it was in flight",
    ),
    "operands stored with no barrier before the product": (
        f"{WARP} @%q {STORE} fence.proxy.async; {FENCE} !{MMA} {COMMIT} {WAIT}",
        f"{WARP} @%q {STORE} fence.proxy.async; bar.sync 0; {FENCE} {MMA} {COMMIT} {WAIT}",
        "by another warp with no barrier between",
    ),
    "operands stored with no proxy fence": (
        f"{WARP} @%q {STORE} bar.sync 0; {FENCE} !{MMA} {COMMIT} {WAIT}",
        f"{WARP} @%q {STORE} bar.sync 0; fence.proxy.async.shared::cta; {FENCE} {MMA} {COMMIT} {WAIT}",
        "written by ordinary stores, with no fence.proxy.async behind them",
    ),
    "a proxy fence before the store": (
        f"{WARP} fence.proxy.async; @%q {STORE} bar.sync 0; {FENCE} !{MMA} {COMMIT} {WAIT}",
        f"{WARP} @%q {STORE} fence.proxy.async; bar.sync 0; {FENCE} {MMA} {COMMIT} {WAIT}",
        "written by ordinary stores, with no fence.proxy.async behind them",
    ),
    "a proxy fence by a warp that does not know of the store": (
        f"{WARP} setp.ne.u32 %p, %w, 2; @%q {STORE} @%p fence.proxy.async; bar.sync 0; {FENCE} !{MMA} {COMMIT} {WAIT}",
        f"{WARP} setp.ne.u32 %p, %w, 2; @%q {STORE} bar.sync 0; @%p fence.proxy.async; "
        f"bar.sync 0; {FENCE} {MMA} {COMMIT} {WAIT}",
        "written by ordinary stores, with no fence.proxy.async behind them",
    ),
    "operands that were never written": (
        f"add.s64 %y, %y, 8; {FENCE} !{MMA} {COMMIT} {WAIT}",
        f"add.s64 %y, %y, 0; {FENCE} {MMA} {COMMIT} {WAIT}",
        "never written",
    ),
    "operands behind the block's memory": (
        f"add.s64 %x, %x, 1024; {FENCE} !{MMA} {COMMIT} {WAIT}",
        f"add.s64 %x, %x, 0; {FENCE} {MMA} {COMMIT} {WAIT}",
        "out of bounds",
    ),
}  # fmt: skip


def launch(text: str, threads: int = 128, extra: int = 1024) -> np.ndarray:
    """A of 64 x 16 at 0, B of 8 x 16 at 8192, all ones, with a swizzle of 128 bytes; behind B nothing is written."""
    layout = Layout(128, False, 16, 1024)
    image = np.full((9216 // 2, 2), (0x80, 0x3F), np.uint8).reshape(-1)
    d = np.zeros((threads, 4), np.uint32)
    for name in (COMMIT, WAIT, "OUT:"):
        text = text.replace(f" {name}", f"\n.loc 1 10 0\n{name}")
    a = np.zeros((threads, 4), np.uint32)
    run(
        text.replace("!", "\n.loc 1 77 0\n"),
        d,
        image,
        a,
        layout.descriptor(0),
        layout.descriptor(8192),
        1,
        threads,
        extra,
    )
    return d.view(np.float32)


@pytest.mark.parametrize("what", PLANTED)
def test_planted(what: str) -> None:
    bug, mended, message = PLANTED[what]
    launch(mended)
    start = time.perf_counter()
    with pytest.raises(DeviceError, match=message) as error:
        launch(bug)
    assert time.perf_counter() - start < 5
    assert "kernel kernel, kernels/cuda/planted.cu:77 (" in str(error.value)
    assert "block (0, 0, 0), thread (" in str(error.value)


def test_a_block_that_ends_within_a_warpgroup() -> None:
    text = f"{FENCE} {MMA} {COMMIT} {WAIT}"
    launch(text, 256)
    with pytest.raises(DeviceError, match="the four warps of a warpgroup, complete"):
        launch(text, 192)


def test_a_wait_is_for_the_reads_of_all_four_warps() -> None:
    """A warp may store to the operands after a wait of its own: the product as a whole is over."""
    text = f"{FENCE} {MMA} {COMMIT} {WAIT} {WARP} @%q {STORE}"
    assert set(launch(text).flatten().tolist()) == {16.0}


def test_registers_that_take_no_part_are_free() -> None:
    """Others may be used in flight, those of A read."""
    text = f"{FENCE} {MMA_A} {COMMIT} add.u32 %z, %a0, 1; mov.b32 %c0, %z; bar.sync 0; {WAIT}"
    assert set(launch(text).flatten().tolist()) == {0.0}


class TestAsLateAsAllowed:
    """Without checkers the same mistakes give the stale values that a GPU may give."""

    @pytest.fixture(autouse=True)
    def without_checkers(self):
        emulation.set_option("shared", 0)
        yield
        emulation.set_option("shared", 1)

    def test_accumulators_before_the_wait(self) -> None:
        assert set(launch(f"{FENCE} {MMA} {COMMIT} add.f32 %z, %d0, 0f40000000; {WAIT} mov.b32 %d0, %z;")[:, 0]) == {
            2.0
        }

    def test_operands_are_read_at_the_wait(self) -> None:
        got = launch(f"{FENCE} {MMA} {COMMIT} bar.sync 0; {WARP} @%q {STORE} bar.sync 0; {WAIT}")
        assert got[0, 0] != 16.0
        assert got[0, 1] == 16.0

    def test_without_a_commit_no_wait_lands_it(self) -> None:
        assert set(launch(f"{FENCE} {MMA} {WAIT}").flatten()) == {0.0}
        assert set(launch(f"{FENCE} {MMA} {COMMIT} {WAIT}").flatten()) == {16.0}

    def test_the_latest_groups_may_be_pending(self) -> None:
        other = MMA.replace(D, "{%a0, %a1, %a2, %a3}")
        text = f"{FENCE} {MMA} {COMMIT} {other} {COMMIT} wgmma.wait_group.sync.aligned 1; mov.b32 %d1, %a1;"
        got = launch(f"{text} {WAIT}")
        assert set(got[:, 0]) == {16.0}
        assert set(got[:, 1]) == {0.0}
