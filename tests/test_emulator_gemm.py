"""A product as kernels for sm_90 write it: a warp loads tiles by tensor maps, a warpgroup multiplies them by wgmma.

Block b makes rows 64 b .. 64 b + 63 of A * B (A of M x K, B of 64 x K, both by rows of K, bf16): tiles of
64 x 64 in a ring of three stages, swizzled by 128 bytes. A stage is given back when the product after it is issued,
by one thread for the four warps. Registers go from the loading warpgroup to the multiplying one.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from neurokern.backends import emulation
from neurokern.testing.ptx import DeviceError, TensorMap, altered, on_hopper

pytestmark = pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing()))

BLOCKS, TILES = 3, 7
ACCUMULATORS = ", ".join(f"%d{i}" for i in range(32))
PRODUCTS = "\n".join(
    f"  wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {{{ACCUMULATORS}}}, %da, %db, %more, 1, 1, 0, 0;"
    " setp.eq.u32 %more, %t, %t; add.s64 %da, %da, 2; add.s64 %db, %db, 2;"
    for _ in range(4)
)
STORES = "\n".join(
    f"  st.global.v2.f32 [%mo+{32 * j}], {{%d{4 * j}, %d{4 * j + 1}}};"
    f" st.global.v2.f32 [%mo+{2048 + 32 * j}], {{%d{4 * j + 2}, %d{4 * j + 3}}};"
    for j in range(8)
)
KERNEL = f""".file 1 "/home/someone/kernels/cuda/gemm.cu"
.visible .entry kernel(.param .align 64 .b8 map_a[128], .param .align 64 .b8 map_b[128], .param .u64 out,
    .param .u64 tiles) .maxntid 256 {{
  .reg .pred %p, %q, %more; .reg .b32 %t, %n, %i, %stage, %phase, %full, %empty, %a, %b, %x, %y, %before;
  .reg .b64 %ma, %mb, %mo, %l, %da, %db; .reg .f32 %d<32>;
  .shared .align 1024 .b8 stage_a[24576]; .shared .align 1024 .b8 stage_b[24576];
  .shared .align 8 .b64 fulls[3]; .shared .align 8 .b64 empties[3];
  mov.u32 %t, %tid.x; ld.param.u64 %l, [tiles]; cvt.u32.u64 %n, %l;
  mov.b64 %ma, map_a; cvta.param.u64 %ma, %ma; mov.b64 %mb, map_b; cvta.param.u64 %mb, %mb;
  setp.ne.u32 %p, %t, 0; @%p bra READY;
  mov.u32 %full, fulls; mov.u32 %empty, empties;
  mbarrier.init.shared::cta.b64 [%full], 1; mbarrier.init.shared::cta.b64 [%empty], 1;
  mbarrier.init.shared::cta.b64 [%full+8], 1; mbarrier.init.shared::cta.b64 [%empty+8], 1;
  mbarrier.init.shared::cta.b64 [%full+16], 1; mbarrier.init.shared::cta.b64 [%empty+16], 1;
  fence.mbarrier_init.release.cluster; fence.proxy.async;
READY:
  bar.sync 0; mov.u32 %i, 0; mov.u32 %stage, 0; mov.u32 %phase, 0;
  setp.ge.u32 %p, %t, 128; @%p bra CONSUMERS;
  setmaxnreg.dec.sync.aligned.u32 40;
  setp.ne.u32 %p, %t, 0; @%p bra DONE;
PRODUCE:
  shl.b32 %x, %stage, 3; mov.u32 %full, fulls; add.u32 %full, %full, %x; mov.u32 %empty, empties;
  add.u32 %empty, %empty, %x; xor.b32 %y, %phase, 1;
FREE: mbarrier.try_wait.parity.shared::cta.b64 %q, [%empty], %y;
  @!%q bra FREE;
  mbarrier.arrive.expect_tx.shared::cta.b64 _, [%full], 16384;
  shl.b32 %x, %stage, 13; mov.u32 %a, stage_a; add.u32 %a, %a, %x; mov.u32 %b, stage_b; add.u32 %b, %b, %x;
  shl.b32 %x, %i, 6; mov.u32 %y, %ctaid.x; shl.b32 %y, %y, 6; mov.u32 %before, 0;
  .loc 1 30 0
  cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%a], [%ma, {{%x, %y}}], [%full];
  cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes
    [%b], [%mb, {{%x, %before}}], [%full];
  add.u32 %stage, %stage, 1; setp.eq.u32 %q, %stage, 3; @%q mov.u32 %stage, 0; @%q xor.b32 %phase, %phase, 1;
  add.u32 %i, %i, 1; setp.lt.u32 %more, %i, %n; @%more bra PRODUCE;
  bra DONE;

CONSUMERS:
  setmaxnreg.inc.sync.aligned.u32 240; mov.u32 %before, 0;
CONSUME:
  shl.b32 %x, %stage, 3; mov.u32 %full, fulls; add.u32 %full, %full, %x;
FULL: mbarrier.try_wait.parity.shared::cta.b64 %q, [%full], %phase;
  @!%q bra FULL;
  shl.b32 %x, %stage, 13; mov.u32 %a, stage_a; add.u32 %a, %a, %x; mov.u32 %b, stage_b; add.u32 %b, %b, %x;
  shr.u32 %a, %a, 4; shr.u32 %b, %b, 4; cvt.u64.u32 %da, %a; cvt.u64.u32 %db, %b;
  or.b64 %da, %da, {1 << 62 | 64 << 32 | 1 << 16}; or.b64 %db, %db, {1 << 62 | 64 << 32 | 1 << 16};
  setp.ne.u32 %more, %i, 0;
  .loc 1 50 0
  wgmma.fence.sync.aligned;
{PRODUCTS}
  wgmma.commit_group.sync.aligned;
  wgmma.wait_group.sync.aligned 1;
  .loc 1 60 0
  setp.eq.u32 %p, %i, 0; @%p bra NEXT;
  shl.b32 %x, %before, 3; mov.u32 %empty, empties; add.u32 %empty, %empty, %x; setp.eq.u32 %p, %t, 192;
  @%p mbarrier.arrive.shared::cta.b64 _, [%empty];
NEXT:
  mov.u32 %before, %stage;
  add.u32 %stage, %stage, 1; setp.eq.u32 %q, %stage, 3; @%q mov.u32 %stage, 0; @%q xor.b32 %phase, %phase, 1;
  add.u32 %i, %i, 1; setp.lt.u32 %q, %i, %n; @%q bra CONSUME;
  wgmma.wait_group.sync.aligned 0;
  // row 16 warp + lane / 4 of the block's, columns 2 (lane % 4) and on
  ld.param.u64 %mo, [out]; mov.u32 %y, %ctaid.x; mad.wide.u32 %mo, %y, 16384, %mo; sub.u32 %x, %t, 128;
  shr.u32 %y, %x, 5;
  mad.wide.u32 %mo, %y, 4096, %mo; and.b32 %x, %x, 31; shr.u32 %y, %x, 2; mad.wide.u32 %mo, %y, 256, %mo;
  and.b32 %y, %x, 3; mad.wide.u32 %mo, %y, 8, %mo;
{STORES}
DONE:
  ret;
}}"""


def run(text: str = KERNEL, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """What the kernel makes, and what it has to be: small integers, so that sums are exact."""
    g = torch.Generator().manual_seed(seed)
    k = 64 * TILES
    a = torch.randint(-8, 9, (64 * BLOCKS, k), generator=g).bfloat16()
    b = torch.randint(-8, 9, (64, k), generator=g).bfloat16()
    out = np.full((64 * BLOCKS, 64), np.nan, np.float32)
    maps = [TensorMap(x.view(torch.int16).numpy().view(np.uint16), 9, [k, len(x)], [2 * k], [64, 64], swizzle=3)
            for x in (a, b)]  # fmt: skip
    on_hopper(text, [*maps, out, TILES], grid=(BLOCKS, 1, 1), block=(256, 1, 1))
    return torch.from_numpy(out), a.float() @ b.float().T


def test_product(seed: int) -> None:
    got, want = run(seed=seed)
    assert torch.equal(got, want)


def test_any_order(seed: int) -> None:
    try:
        for shuffle in range(1, 20):
            emulation.set_option("shuffle", shuffle)
            got, want = run(seed=seed)
            assert torch.equal(got, want), shuffle
    finally:
        emulation.set_option("shuffle", 0)


def test_counters() -> None:
    emulation.record(True)
    try:
        run()
        (launch,) = emulation.take()
    finally:
        emulation.record(False)
    c = launch.counters
    assert c["matrix instructions"] == BLOCKS * TILES * 4 * 4
    assert c["async bytes"] == BLOCKS * TILES * 2 * 8192
    assert c["bank conflicts"] == 0
    assert c["global bytes written"] == BLOCKS * 64 * 64 * 4


# what is changed; from what (a pattern), to what; the message
BUGS = {
    "products do not wait for their tiles": (
        "@!%q bra FULL;", "", "(still on its way|never written|without having waited|in flight)",
    ),
    "a stage is given back while its product is in flight": (
        "wgmma.wait_group.sync.aligned 1;", "wgmma.wait_group.sync.aligned 2;",
        "(still on its way|another warp read|without having waited|in flight)",
    ),
    "a stage is given back one round too early": (
        r"shl.b32 %x, %before, 3;", "shl.b32 %x, %stage, 3;",
        "(deadlock|still on its way|another warp read|without having waited|in flight)",
    ),
    "the producer does not wait": (
        "@!%q bra FREE;", "", "(still on its way|another warp read|without having waited|more threads arrive)",
    ),
    "results are stored without the last wait": (
        "wgmma.wait_group.sync.aligned 0;", "",
        "reads an accumulator of a wgmma in flight: a wgmma.wait_group is missing",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BUGS)
def test_what_is_broken_is_found(what: str) -> None:
    pattern, replacement, message = BUGS[what]
    with pytest.raises(DeviceError, match=message):
        run(altered(KERNEL, pattern, replacement))
