"""A whole kernel for sm_90: tiles come by tensor maps through a ring of stages, for a cluster of two blocks.

Block b sums A[i] * B_b[i] over the tiles i and stores the sums as a tile of its own. Both blocks of a cluster use the
same A: each loads half of its tile and sends it to both (multicast). One warp produces, four consume; a stage is free
when the consumers of both blocks have said so.
"""

from __future__ import annotations

import numpy as np
import pytest
from neurokern.backends import emulation
from neurokern.testing.ptx import DeviceError, TensorMap, altered, on_hopper

pytestmark = pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing()))

STAGES, TILES, CLUSTERS = 3, 10, 3
ROWS, COLUMNS = 8, 32  # of a tile of single-precision numbers, swizzled by 128 bytes

KERNEL = """.file 1 "/home/someone/kernels/cuda/pipeline.cu"
.visible .entry kernel(.param .align 64 .b8 map_a[128], .param .align 64 .b8 map_b[128],
    .param .align 64 .b8 map_out[128], .param .u64 tiles) .explicitcluster .reqnctapercluster 2, 1, 1 .maxntid 160 {
  .reg .pred %p, %q, %more; .reg .b32 %t, %warp, %lane, %rank, %n, %i, %stage, %phase, %full, %empty, %a, %b, %x, %y;
  .reg .b32 %row, %at, %peer, %half, %block; .reg .b16 %mask; .reg .b64 %ma, %mb, %mo, %l; .reg .f32 %f, %g, %s<2>;
  .shared .align 1024 .b8 stage_a[3072]; .shared .align 1024 .b8 stage_b[3072]; .shared .align 1024 .b8 sums[1024];
  .shared .align 8 .b64 fulls[3]; .shared .align 8 .b64 empties[3];
  mov.u32 %t, %tid.x; shr.u32 %warp, %t, 5; and.b32 %lane, %t, 31; mov.u32 %rank, %cluster_ctarank;
  ld.param.u64 %l, [tiles]; cvt.u32.u64 %n, %l; mov.u32 %block, %ctaid.x;
  mov.b64 %ma, map_a; cvta.param.u64 %ma, %ma; mov.b64 %mb, map_b; cvta.param.u64 %mb, %mb;
  mov.b64 %mo, map_out; cvta.param.u64 %mo, %mo;
  setp.ne.u32 %p, %t, 0; @%p bra READY;
  prefetch.tensormap [%ma]; prefetch.tensormap [%mb];
  mov.u32 %full, fulls; mov.u32 %empty, empties;
  // a producer's arrival; the four consumer warps of each block
  mbarrier.init.shared::cta.b64 [%full], 1; mbarrier.init.shared::cta.b64 [%empty], 8;
  mbarrier.init.shared::cta.b64 [%full+8], 1; mbarrier.init.shared::cta.b64 [%empty+8], 8;
  mbarrier.init.shared::cta.b64 [%full+16], 1; mbarrier.init.shared::cta.b64 [%empty+16], 8;
  fence.mbarrier_init.release.cluster;
READY:
  barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;
  mov.u32 %i, 0; mov.u32 %stage, 0; mov.u32 %phase, 0;
  setp.ne.u32 %p, %warp, 0; @%p bra CONSUMERS;

  // ---- one thread of the first warp ----
  setp.ne.u32 %p, %lane, 0; @%p bra DONE;
  mov.b16 %mask, 3; shl.b32 %half, %rank, 9;
PRODUCE:
  shl.b32 %x, %stage, 3; mov.u32 %full, fulls; add.u32 %full, %full, %x; mov.u32 %empty, empties;
  add.u32 %empty, %empty, %x; xor.b32 %y, %phase, 1;
  .loc 1 20 0
FREE: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 %q, [%empty], %y;
  @!%q bra FREE;
  mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%full], 2048;
  shl.b32 %x, %stage, 10; mov.u32 %a, stage_a; add.u32 %a, %a, %x; add.u32 %a, %a, %half; mov.u32 %b, stage_b;
  add.u32 %b, %b, %x;
  shr.u32 %x, %block, 1; mad.lo.u32 %x, %x, %n, %i; shl.b32 %x, %x, 3; mad.lo.u32 %x, %rank, 4, %x;
  mov.u32 %y, 0;
  .loc 1 30 0
  cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster
    [%a], [%ma, {%y, %x}], [%full], %mask;
  mad.lo.u32 %x, %block, %n, %i; shl.b32 %x, %x, 3;
  .loc 1 31 0
  cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%b], [%mb, {%y, %x}], [%full];
  add.u32 %stage, %stage, 1; setp.eq.u32 %q, %stage, 3; @%q mov.u32 %stage, 0; @%q xor.b32 %phase, %phase, 1;
  add.u32 %i, %i, 1; setp.lt.u32 %more, %i, %n; @%more bra PRODUCE;
  bra DONE;

  // ---- four warps: two rows each, a column to each lane ----
CONSUMERS:
  sub.u32 %row, %warp, 1; shl.b32 %row, %row, 1; mov.f32 %s0, 0f00000000; mov.f32 %s1, 0f00000000;
  xor.b32 %peer, %rank, 1;
CONSUME:
  shl.b32 %x, %stage, 3; mov.u32 %full, fulls; add.u32 %full, %full, %x; mov.u32 %empty, empties;
  add.u32 %empty, %empty, %x;
  .loc 1 40 0
FULL: mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 %q, [%full], %phase;
  @!%q bra FULL;
  shl.b32 %x, %stage, 10; mov.u32 %a, stage_a; add.u32 %a, %a, %x; mov.u32 %b, stage_b; add.u32 %b, %b, %x;
  // 16-byte chunks change places with the row's number
  shr.u32 %x, %lane, 2; xor.b32 %x, %x, %row; shl.b32 %x, %x, 4; and.b32 %y, %lane, 3; mad.lo.u32 %at, %y, 4, %x;
  mad.lo.u32 %at, %row, 128, %at; add.u32 %x, %a, %at; add.u32 %y, %b, %at;
  .loc 1 44 0
  ld.shared.f32 %f, [%x]; ld.shared.f32 %g, [%y]; fma.rn.f32 %s0, %f, %g, %s0;
  xor.b32 %at, %at, 16; add.u32 %at, %at, 128; add.u32 %x, %a, %at; add.u32 %y, %b, %at;
  .loc 1 46 0
  ld.shared.f32 %f, [%x]; ld.shared.f32 %g, [%y]; fma.rn.f32 %s1, %f, %g, %s1;
  bar.warp.sync -1; setp.eq.u32 %p, %lane, 0; mapa.shared::cluster.u32 %y, %empty, %peer;
  @%p mbarrier.arrive.release.cta.shared::cta.b64 _, [%empty];
  @%p mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%y];
  add.u32 %stage, %stage, 1; setp.eq.u32 %q, %stage, 3; @%q mov.u32 %stage, 0; @%q xor.b32 %phase, %phase, 1;
  add.u32 %i, %i, 1; setp.lt.u32 %more, %i, %n; @%more bra CONSUME;

  mov.u32 %x, sums; mad.lo.u32 %x, %row, 128, %x; mad.lo.u32 %x, %lane, 4, %x;
  st.shared.f32 [%x], %s0; st.shared.f32 [%x+128], %s1;
  fence.proxy.async.shared::cta;
  bar.sync 1, 128;
  setp.ne.u32 %p, %t, 32; @%p bra DONE;
  mov.u32 %x, sums; mov.u32 %y, 0; shl.b32 %at, %block, 3;
  .loc 1 60 0
  cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%mo, {%y, %at}], [%x];
  cp.async.bulk.commit_group;
  cp.async.bulk.wait_group.read 0;
DONE:
  barrier.cluster.arrive; barrier.cluster.wait;
  ret;
}"""


def run(text: str = KERNEL, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """What the kernel makes, and what it has to be: small integers, so that sums are exact in any order."""
    generator = np.random.default_rng(seed)
    a = generator.integers(-8, 9, (CLUSTERS, TILES, ROWS, COLUMNS)).astype(np.float32)
    b = generator.integers(-8, 9, (2 * CLUSTERS, TILES, ROWS, COLUMNS)).astype(np.float32)
    out = np.full((2 * CLUSTERS, ROWS, COLUMNS), np.nan, np.float32)

    def rows_of(x: np.ndarray, rows: int, swizzle: int) -> TensorMap:
        return TensorMap(x, 7, [COLUMNS, x.size // COLUMNS], [4 * COLUMNS], [COLUMNS, rows], swizzle=swizzle)

    maps = [rows_of(a, ROWS // 2, 3), rows_of(b, ROWS, 3), rows_of(out, ROWS, 0)]
    on_hopper(text, [*maps, TILES], grid=(2 * CLUSTERS, 1, 1), block=(160, 1, 1))
    return out, np.einsum("btrc,btrc->brc", np.repeat(a, 2, 0), b)


def test_sums(seed: int) -> None:
    got, want = run(seed=seed)
    assert got.tolist() == want.tolist()


def test_counters() -> None:
    """Multicast reads A once for two blocks; swizzled rows have no bank conflicts."""
    emulation.record(True)
    try:
        run()
        run()
        launch, same = emulation.take()
    finally:
        emulation.record(False)
    assert launch == same
    c, tile = launch.counters, 4 * ROWS * COLUMNS
    assert c["global bytes read"] == CLUSTERS * TILES * 3 * tile
    assert c["global sectors read"] == c["global bytes read"] // 32
    assert c["global bytes written"] == 2 * CLUSTERS * tile
    assert c["async bytes"] == 2 * CLUSTERS * (TILES * 2 + 1) * tile
    assert c["bank conflicts"] == 0
    # of each block: tensor loads, the store, its commit and its wait
    assert c["async instructions"] == 2 * CLUSTERS * (2 * TILES + 3)
    # 6 to set up; two cluster barriers of 5 warps, of which two may come to the second one in parts; of each tile a
    # wait and an arrival of the producer, a wait, two arrivals and a bar.warp.sync of each consumer; bar.sync. A wait
    # may fail once.
    least, waits = 6 + 20 + 2 * TILES + 4 * (4 * TILES + 1), 5 * TILES
    assert 2 * CLUSTERS * least <= c["barrier instructions"] <= 2 * CLUSTERS * (least + 4 + waits)


def test_any_order(seed: int) -> None:
    try:
        for shuffle in range(1, 40):
            emulation.set_option("shuffle", shuffle)
            got, want = run(seed=seed)
            assert got.tolist() == want.tolist(), shuffle
    finally:
        emulation.set_option("shuffle", 0)


# what is changed; from what (a pattern), to what; the message
BUGS = {
    "the other block's consumers are not waited for": (
        r"\[%empty(\+\d+)?\], 8;", r"[%empty\1], 4;", "(deadlock|a race|no barrier between|still on its way)",
    ),
    "the other block is not told that a stage is free": (
        r"@%p mbarrier.arrive.release.cluster.shared::cluster.b64 _, \[%y\];", "",
        "deadlock: .*4 of 8 arrivals pending",
    ),
    "bytes of the own loads alone are expected": (
        "2048;", "1536;", "(deadlock|overflows|still on its way|never written|without having waited)",
    ),
    "consumers do not wait": ("@!%q bra FULL;", "", "(still on its way|never written|without having waited)"),
    "the producer does not wait": ("@!%q bra FREE;", "", "(still on its way|another warp read|without having waited)"),
    "consumers say that a stage is free before they read it": (
        r"(shl.b32 %x, %stage, 10; mov.u32 %a, stage_a; add.u32 %a, %a, %x; mov.u32 %b, stage_b; add.u32 %b, %b, %x;)",
        r"\1 mapa.shared::cluster.u32 %y, %empty, %peer; setp.eq.u32 %p, %lane, 0; "
        r"@%p mbarrier.arrive.shared::cta.b64 _, [%empty]; @%p mbarrier.arrive.shared::cluster.b64 _, [%y];",
        "(deadlock|still on its way|another warp read|without having waited)",
    ),
    "no fence in front of the store": (r"fence.proxy.async.shared::cta;", "", "no fence.proxy.async between"),
    "no barrier in front of the store": (r"bar.sync 1, 128;", "", "(never written|a race|another warp wrote)"),
    "no wait behind the store": (
        "cp.async.bulk.wait_group.read 0;", "", "block ends while this bulk copy may still read",
    ),
    "no fence behind the initialization": (
        "fence.mbarrier_init.release.cluster;", "", "fence.mbarrier_init is missing",
    ),
    "no cluster barrier behind the initialization": (
        r"barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;", "bar.sync 0;",
        "(never initialized|initialized by another warp)",
    ),
    "no cluster barrier at the end": (
        r"barrier.cluster.arrive; barrier.cluster.wait;", "", "(which has ended|may still access its shared memory)",
    ),
    "multicast of a whole tile": (r"mov.b16 %mask, 3;", "mov.b16 %mask, 1;", "deadlock"),
}  # fmt: skip


@pytest.mark.parametrize("what", BUGS)
def test_what_is_broken_is_found(what: str) -> None:
    pattern, replacement, message = BUGS[what]
    with pytest.raises(DeviceError, match=message):
        run(altered(KERNEL, pattern, replacement))
