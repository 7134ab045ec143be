"""Global memory under everything that passes knowledge on: mbarriers, cluster barriers, bulk copies; and launches with
tensor maps repeated on a second device. Each planted race is found, its mended twin passes in silence."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
from neurokern.backends import emulation
from neurokern.testing import twins
from neurokern.testing.ptx import HOPPER, DeviceError, TensorMap, emulator, on_hopper

pytestmark = pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing()))

# %m: 256 words that hold 0, %f: as many that hold nothing; %t: thread, %b: block, %w: warp, %i: number of the thread
# in the grid, %n and %g: its words of %m and %f, %o: the word of %m 32 threads, %k: 64 threads away. %a: an mbarrier
# for 32 arrivals, %c: one for one, %s: a tile of 256 bytes, %v: the thread's word of it
KERNEL = """.visible .entry kernel(.param .u64 data, .param .u64 fresh) {{
  .reg .pred %p, %q, %r, %z; .reg .b32 %x, %y, %t, %b, %i, %w, %a, %c, %s, %v; .reg .b64 %m, %f, %n, %g, %o, %k;
  .shared .align 128 .b8 tile[256]; .shared .align 8 .b64 bar[2];
  mov.u32 %t, %tid.x; mov.u32 %b, %ctaid.x; mov.u32 %i, %ntid.x; mad.lo.u32 %i, %b, %i, %t; shr.u32 %w, %t, 5;
  ld.param.u64 %m, [data]; ld.param.u64 %f, [fresh]; mad.wide.u32 %n, %i, 4, %m; mad.wide.u32 %g, %i, 4, %f;
  xor.b32 %x, %i, 32; mad.wide.u32 %o, %x, 4, %m; xor.b32 %x, %i, 64; mad.wide.u32 %k, %x, 4, %m;
  mov.u32 %a, bar; add.u32 %c, %a, 8; mov.u32 %s, tile; mad.lo.u32 %v, %t, 4, %s; mov.u32 %y, 7; mov.u32 %x, 0;
  setp.eq.u32 %p, %t, 0; setp.eq.u32 %q, %w, 0; setp.eq.u32 %z, %b, 0;
  @%p mbarrier.init.shared::cta.b64 [%a], 32; @%p mbarrier.init.shared::cta.b64 [%c], 1;
  @%p fence.mbarrier_init.release.cluster; barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
  {body}
OUT: barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
  ret;
}}"""
# the warps of one kind arrive, the others wait
HAND_ON = """@{arrives} mbarrier.arrive.shared::cta.b64 _, [%a]; {waits} bra ON;
W: mbarrier.try_wait.parity.shared::cta.b64 %r, [%a], 0; @!%r bra W; ON:"""
FROM_0 = HAND_ON.format(arrives="%q", waits="@%q")
FROM_1 = HAND_ON.format(arrives="!%q", waits="@!%q")
CLUSTER = "barrier.cluster.arrive{}; barrier.cluster.wait.acquire;"
# block 0 writes and sets a flag, the warp 0 of block 1 waits for the flag
SET = "@!%z bra GET; st.global.u32 [%n], %y; {} @%p st.relaxed.gpu.global.u32 [%m+512], 1; bra OUT;"
GET = "GET: @!%q bra GO; L: ld.acquire.gpu.global.u32 %x, [%m+512]; setp.eq.u32 %r, %x, 0; @%r bra L; GO:"
READ_IT = "ld.global.u32 %x, [%k];"
STORE = "@%p cp.async.bulk.global.shared::cta.bulk_group [{}], [%s], 128; @%p cp.async.bulk.commit_group;"
ADD = STORE.replace("cp.async.bulk.global", "cp.reduce.async.bulk.global").replace("group [", "group.add.u32 [")
DONE = "@%p cp.async.bulk.wait_group 0;"
FILL = "st.shared.u32 [%v], %y; fence.proxy.async.shared::cta; bar.sync 0;"
LOAD = """@%p mbarrier.arrive.expect_tx.shared::cta.b64 _, [%c], 128;
@%p cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes [%s], [{}], 128, [%c];
V: mbarrier.try_wait.parity.shared::cta.b64 %r, [%c], 0; @!%r bra V;"""

# what is wrong; blocks; the bug; its mended twin; message
PLANTED = {
    "warps with no mbarrier between": (
        1, f"@%q st.global.u32 [%n], %y; {FROM_1} @!%q ld.global.u32 %x, [%o];",
        f"@%q st.global.u32 [%n], %y; {FROM_0} @!%q ld.global.u32 %x, [%o];", "global memory.*a race",
    ),
    "blocks of a cluster with no barrier between": (
        2, "st.global.u32 [%n], %y; bar.sync 0; " + READ_IT,
        f"st.global.u32 [%n], %y; {CLUSTER.format('.release')} {READ_IT}", "reads global memory.*a race",
    ),
    "a cluster barrier that releases nothing": (
        2, f"st.global.u32 [%n], %y; {CLUSTER.format('.relaxed')} {READ_IT}",
        f"st.global.u32 [%n], %y; fence.acq_rel.cluster; {CLUSTER.format('.relaxed')} {READ_IT}", "a race",
    ),
    "a flag of which an mbarrier tells other warps": (
        -2, f"{SET.format('fence.acq_rel.gpu; bar.sync 0;')} {GET} @!%q {READ_IT}",
        f"{SET.format('fence.acq_rel.gpu; bar.sync 0;')} {GET} {FROM_0} {READ_IT}", "other access by block .0, 0, 0",
    ),
    "a fence of which an mbarrier tells who sets the flag": (
        -2, f"{SET.format(FROM_1)} {GET} bar.sync 0; {READ_IT}",
        f"{SET.format('fence.acq_rel.gpu; ' + FROM_1)} {GET} bar.sync 0; {READ_IT}", "reads global memory.*a race",
    ),
    "a bulk copy of what was never written": (
        1, LOAD.format("%f"), "st.global.u32 [%g], %y; bar.sync 0; " + LOAD.format("%f"),
        "never written",
    ),
    "a bulk copy of what another warp wrote": (
        1, "@!%q st.global.u32 [%o], %y;" + LOAD.format("%m"),
        "@!%q st.global.u32 [%o], %y; bar.sync 0;" + LOAD.format("%m"), "reads global.*a race",
    ),
    "what a bulk copy wrote, read by another block": (
        -2, f"{FILL} @!%z bra ON; {STORE.format('%m')} {DONE} bra OUT; ON: @%q ld.global.u32 %x, [%k];",
        f"{FILL} @!%z bra ON; {STORE.format('%m')} {DONE} bra OUT; ON: @%q ld.global.u32 %x, [%n];", "a race",
    ),
    "two blocks copy to one place": (
        -2, f"{FILL} {STORE.format('%m')} {DONE}",
        f"{FILL} {ADD.format('%m')} {DONE}", "writes global memory.*a race",
    ),
}  # fmt: skip


def launch(body: str, blocks: int) -> None:
    """Negative: that many blocks, none of which is in a cluster with another."""
    out = np.zeros(256, np.uint32)
    arguments = [out, out.copy()]
    on_hopper(KERNEL.format(body=body), arguments, grid=(abs(blocks), 1, 1), block=(64, 1, 1), fresh=[1],
              cluster=(max(blocks, 1), 1, 1))  # fmt: skip


@pytest.mark.parametrize("what", PLANTED)
def test_planted(what: str) -> None:
    blocks, bug, mended, message = PLANTED[what]
    launch(mended, blocks)
    with pytest.raises(DeviceError, match=message):
        launch(bug, blocks)


def test_what_a_bulk_copy_wrote_is_written() -> None:
    launch(f"{FILL} {STORE.format('%f')} {DONE} bar.sync 0; @%q ld.global.u32 %x, [%g];", 1)
    with pytest.raises(DeviceError, match="never written"):
        launch(f"{FILL} {STORE.format('%f')} {DONE} bar.sync 0; ld.global.u32 %x, [%g];", 1)


@pytest.mark.parametrize("lies", [False, True])
def test_tensor_maps_and_clusters_have_twins(lies: bool) -> None:
    """The array of a tensor map is another one on the second device, and the same as the argument there."""
    text = f"""{HOPPER}.visible .entry kernel(.param .align 64 .b8 map[128], .param .u64 out) {{
  .reg .b64 %m, %o; .reg .b32 %a, %r, %x;
  .shared .align 128 .b8 tile[128];
  mov.b64 %m, map; cvta.param.u64 %m, %m; ld.param.u64 %o, [out]; mov.u32 %a, tile; mov.u32 %r, %ctaid.x;
  shl.b32 %r, %r, 2;
  mov.u32 %x, 5; st.shared.v4.b32 [%a], {{%x, %x, %x, %x}}; fence.proxy.async.shared::cta;
  cp.async.bulk.tensor.1d.global.shared::cta.bulk_group [%m, {{%r}}], [%a];
  cp.async.bulk.commit_group; cp.async.bulk.wait_group 0;
  ret;
}}"""
    source = np.zeros(32, np.uint32)
    arguments = [TensorMap(source, 2, [32], [], [4]), source]

    class Liar:
        def __getattr__(self, name: str) -> object:
            return getattr(emulator_, name)

        def launch(self, ptx: str, arguments: list, **options: object) -> None:
            emulator_.launch(ptx, arguments, **options)
            arguments[1][3] += lies

    emulator_ = emulator()
    with twins.compared(Liar()) as both:
        expected = pytest.raises(twins.Difference, match="argument 0: element 3") if lies else nullcontext()
        with expected:
            emulator().launch(text, arguments, grid=(4, 1, 1), block=(1, 1, 1), cluster=(2, 1, 1))
    assert both.counts["launches"] == 1
    assert source.tolist() == [5] * 16 + [0] * 16
