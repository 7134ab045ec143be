"""Checkers of mbarriers, bulk copies, proxies and clusters: planted bugs are found, mended twins pass in silence."""

from __future__ import annotations

import time

import numpy as np
import pytest
from neurokern.backends import emulation
from neurokern.testing.ptx import DeviceError, TensorMap, on_hopper

pytestmark = pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing()))

# %t thread, %v warp, %r block's rank, %p in thread 0 alone, %z in warp 0 alone; %a a tile of 1024 bytes, %w the
# thread's word of it; %m and %e mbarriers; %g 1024 bytes of global memory, %h the thread's word; %d a tensor map of it
KERNEL = """.file 1 "/home/someone/kernels/cuda/planted.cu"
.visible .entry kernel(.param .align 64 .b8 map[128], .param .u64 data) {{
  .reg .pred %p, %q, %z; .reg .b32 %t, %v, %r, %a, %w, %m, %e, %x, %y, %b, %c; .reg .b16 %k;
  .reg .b64 %g, %h, %d, %l, %s;
  .shared .align 128 .b8 tile[1024]; .shared .align 8 .b8 bars[16];
  mov.u32 %t, %tid.x; shr.u32 %v, %t, 5; mov.u32 %r, %cluster_ctarank; setp.eq.u32 %p, %t, 0; setp.eq.u32 %z, %v, 0;
  mov.u32 %a, tile; mad.lo.u32 %w, %t, 4, %a; mov.u32 %m, bars; add.u32 %e, %m, 8;
  ld.param.u64 %g, [data]; mad.wide.u32 %h, %t, 4, %g; mov.b64 %d, map; cvta.param.u64 %d, %d; mov.u32 %x, %t;
  .loc 1 10 0
  {text}
  ret;
}}"""


def launch(text: str, blocks: int = 1) -> None:
    data = np.arange(256, dtype=np.uint32)
    tensor = TensorMap(data, 2, [16, 16], [64], [16, 4])
    on_hopper(KERNEL.format(text=text), [tensor, data], grid=(blocks, 1, 1), block=(64, 1, 1), cluster=(blocks, 1, 1))


MACROS = {
    "INIT1": "@%p mbarrier.init.shared::cta.b64 [%m], 1; @%p mbarrier.init.shared::cta.b64 [%e], 64; "
             "@%p fence.mbarrier_init.release.cluster; bar.sync 0;",
    "CSYNC": "barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;",
    "EXPECT": "@%p mbarrier.arrive.expect_tx.shared::cta.b64 _, [%m], 256;",
    "LOAD": "@%p cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes [%a], [%g], 256, [%m];",
    "WAIT": "W: mbarrier.try_wait.parity.shared::cta.b64 %q, [%m], 0; @!%q bra W;",
    "EWAIT": "E: mbarrier.try_wait.parity.shared::cta.b64 %q, [%e], 0; @!%q bra E;",
    "READ": "ld.shared.u32 %x, [%w];",
    "WRITE": "st.shared.u32 [%w], %x;",
    "FENCE": "fence.proxy.async.shared::cta;",
    "STORE": "@%p cp.async.bulk.global.shared::cta.bulk_group [%g], [%a], 256;",
    "COMMIT": "@%p cp.async.bulk.commit_group;",
    "DONE": "@%p cp.async.bulk.wait_group 0;",
    "PEER": "xor.b32 %y, %r, 1; mapa.shared::cluster.u32 %b, %w, %y; mapa.shared::cluster.u32 %c, %m, %y;",
}  # fmt: skip

# what is wrong; the bug ("!" before the culprit sets its source line to 77); its mended twin; the message; blocks
PLANTED = {
    # misuse of mbarriers
    "mbarrier: arrival at what was never initialized": (
        "!@%p mbarrier.arrive.shared::cta.b64 _, [%m];", "INIT1 @%p mbarrier.arrive.shared::cta.b64 _, [%m];",
        "mbarrier at shared address 0x400 of block rank 0 was never initialized", 1,
    ),
    "mbarrier: initialized twice": (
        "INIT1 !@%p mbarrier.init.shared::cta.b64 [%m], 1;",
        "INIT1 @%p mbarrier.inval.shared::cta.b64 [%m]; @%p mbarrier.init.shared::cta.b64 [%m], 1;",
        "initialized while it is in use", 1,
    ),
    "mbarrier: used after it was invalidated": (
        "INIT1 @%p mbarrier.inval.shared::cta.b64 [%m]; !@%p mbarrier.arrive.shared::cta.b64 _, [%m];",
        "INIT1 @%p mbarrier.arrive.shared::cta.b64 _, [%m]; @%p mbarrier.inval.shared::cta.b64 [%m];",
        "never initialized", 1,
    ),
    "mbarrier: more arrivals than it expects": (
        "INIT1 !@%p mbarrier.arrive.shared::cta.b64 _, [%m], 2;", "INIT1 @%p mbarrier.arrive.shared::cta.b64 _, "
        "[%m], 1;",
        "gets 2 arrivals, where 1 of 1 are pending", 1,
    ),
    "mbarrier: no arrivals at all": (
        "!@%p mbarrier.init.shared::cta.b64 [%m], 0;", "@%p mbarrier.init.shared::cta.b64 [%m], 1;",
        "can't expect 0 arrivals", 1,
    ),
    "mbarrier: a plain store over it": (
        "INIT1 !@%p st.shared.b64 [%m], %g;", "INIT1 @%p st.shared.b64 [%a], %g;", "touches an mbarrier by an "
        "access", 1,
    ),
    "mbarrier: a plain load of it": (
        "INIT1 !@%p ld.shared.b64 %l, [%m];", "INIT1 @%p st.shared.b64 [%a], %g; @%p ld.shared.b64 %l, [%a];",
        "touches an mbarrier by an access", 1,
    ),
    "mbarrier: initialized by another warp, with no barrier": (
        "@%p mbarrier.init.shared::cta.b64 [%m], 1; !@!%z mbarrier.arrive.shared::cta.b64 _, [%m], 1;",
        "@%p mbarrier.init.shared::cta.b64 [%m], 32; bar.sync 0; @!%z mbarrier.arrive.shared::cta.b64 _, [%m], 1;",
        "initialized by another warp with no barrier between", 1,
    ),
    "mbarrier: misaligned": (
        "INIT1 add.u32 %b, %m, 4; !@%p mbarrier.arrive.shared::cta.b64 _, [%b];",
        "INIT1 add.u32 %b, %m, 8; @%p mbarrier.arrive.shared::cta.b64 _, [%b];", "misaligned", 1,
    ),
    "mbarrier: noComplete that completes": (
        "INIT1 !@%p mbarrier.arrive.noComplete.shared::cta.b64 %l, [%m], 1;",
        "INIT1 @%p mbarrier.arrive.noComplete.shared::cta.b64 %l, [%e], 1;", "completed by an arrival with "
        ".noComplete", 1,
    ),
    "mbarrier: the tx-count overflows": (
        "INIT1 @%p mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%m], 1048575; "
        "!@%p mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%m], 1;",
        "INIT1 @%p mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%m], 1048575;", "tx-count overflows", 1,
    ),
    "mbarrier: invalidated under a copy": (
        "INIT1 EXPECT LOAD !@%p mbarrier.inval.shared::cta.b64 [%m];",
        "INIT1 EXPECT LOAD WAIT bar.sync 0; @%p mbarrier.inval.shared::cta.b64 [%m];", "while a copy is to "
        "complete at it", 1,
    ),
    # phases that can't complete
    "deadlock: more bytes are expected than come": (
        "INIT1 @%p mbarrier.arrive.expect_tx.shared::cta.b64 _, [%m], 272; LOAD !WAIT", "INIT1 EXPECT LOAD WAIT",
        r"deadlock: .*warp 0 stands waiting for the mbarrier at shared address 0x400 \(phase 0: 0 of 1 arrivals "
        r"pending, "
        r"272 bytes of tx-count, 256 bytes under way\).*warp 1 stands waiting", 1,
    ),
    "deadlock: fewer bytes are expected than come": (
        "INIT1 @%p mbarrier.arrive.expect_tx.shared::cta.b64 _, [%m], 240; LOAD !WAIT", "INIT1 EXPECT LOAD WAIT",
        "240 bytes of tx-count, 256 bytes under way", 1,
    ),
    "deadlock: an arrival is missing": (
        "INIT1 setp.ne.u32 %q, %t, 5; @%q mbarrier.arrive.shared::cta.b64 _, [%e]; !EWAIT",
        "INIT1 mbarrier.arrive.shared::cta.b64 _, [%e]; EWAIT", "1 of 64 arrivals pending, 0 bytes of tx-count", 1,
    ),
    "deadlock: the wrong parity": (
        "INIT1 @%p mbarrier.arrive.shared::cta.b64 _, [%m]; WAIT "
        "!L: mbarrier.try_wait.parity.shared::cta.b64 %q, [%m], 1; @!%q bra L;",
        "INIT1 @%p mbarrier.arrive.shared::cta.b64 _, [%m]; WAIT "
        "L: mbarrier.try_wait.parity.shared::cta.b64 %q, [%m], 0; @!%q bra L;",
        r"phase 1: 1 of 1 arrivals pending", 1,
    ),
    "deadlock: the copy completes at another barrier": (
        "INIT1 EXPECT @%p cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes [%a], [%g], 256, [%e]; !WAIT",
        "INIT1 EXPECT LOAD WAIT", "256 bytes of tx-count, 0 bytes under way", 1,
    ),
    "deadlock: two warps wait for each other": (
        "INIT1 @%z bra FIRST; WAIT mbarrier.arrive.shared::cta.b64 _, [%e], 2; bra OUT; "
        "!FIRST: EWAIT @%p mbarrier.arrive.shared::cta.b64 _, [%m]; OUT: mov.u32 %c, 0;",
        "INIT1 @%z bra FIRST; WAIT mbarrier.arrive.shared::cta.b64 _, [%e], 2; bra OUT; "
        "FIRST: @%p mbarrier.arrive.shared::cta.b64 _, [%m]; EWAIT OUT: mov.u32 %c, 0;",
        r"warp 0 stands waiting for the mbarrier at shared address 0x408 .*"
        r"warp 1 stands waiting for the mbarrier at shared address 0x400", 1,
    ),
    "deadlock: a cluster barrier that a block does not reach": (
        "setp.eq.u32 %q, %r, 1; @%q bra SKIP; !CSYNC bra OUT; SKIP: INIT1 WAIT OUT: mov.u32 %c, 0;",
        "setp.eq.u32 %q, %r, 1; @%q bra SKIP; CSYNC bra OUT; SKIP: CSYNC OUT: mov.u32 %c, 0;",
        "warp 0 of block rank 0 stands waiting at .*barrier.cluster.*warp 0 of block rank 1 stands waiting for "
        "the mbarrier", 2,
    ),
    # data that has not landed, or that nobody waited for
    "landing: no wait": ("INIT1 EXPECT LOAD !READ WAIT", "INIT1 EXPECT LOAD WAIT READ", "still on its way", 1),
    "landing: a warp that did not wait": (
        "INIT1 EXPECT LOAD @!%z bra ELSE; WAIT bar.sync 1, 64; bra OUT; ELSE: bar.arrive 2, 64; mov.u32 %y, 0; "
        "L: add.u32 %y, %y, 1; setp.lt.u32 %q, %y, 50000; @%q bra L; !READ bar.sync 1, 64; OUT: mov.u32 %c, 0; "
        "@%z bar.sync 2, 64;",
        "INIT1 EXPECT LOAD @!%z bra ELSE; WAIT bar.sync 1, 64; bra OUT; ELSE: bar.arrive 2, 64; bar.sync 1, 64; READ "
        "OUT: mov.u32 %c, 0; @%z bar.sync 2, 64;",
        "(without having waited for its mbarrier|still on its way)", 1,
    ),
    "landing: a wait of the other barrier": (
        "INIT1 EXPECT LOAD mbarrier.arrive.shared::cta.b64 _, [%e]; EWAIT !READ WAIT",
        "INIT1 EXPECT LOAD mbarrier.arrive.shared::cta.b64 _, [%e]; EWAIT WAIT READ", "still on its way", 1,
    ),
    "landing: a wait of the phase before": (
        "INIT1 EXPECT LOAD L: mbarrier.try_wait.parity.shared::cta.b64 %q, [%m], 1; @!%q bra L; !READ WAIT",
        "INIT1 EXPECT LOAD L: mbarrier.try_wait.parity.shared::cta.b64 %q, [%m], 0; @!%q bra L; READ",
        "still on its way", 1,
    ),
    "landing: a store where a copy is to land": (
        "INIT1 EXPECT LOAD bar.sync 0; !WRITE WAIT", "INIT1 EXPECT LOAD WAIT bar.sync 0; WRITE",
        "writes shared memory that an asynchronous copy is still on its way to", 1,
    ),
    "landing: a second copy where one is to land": (
        "INIT1 EXPECT LOAD !@%p cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes [%a+128], [%g], "
        "128, [%m];",
        "INIT1 @%p mbarrier.arrive.expect_tx.shared::cta.b64 _, [%m], 384; LOAD "
        "@%p cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes [%a+256], [%g], 128, [%m]; WAIT",
        "writes shared memory that an asynchronous copy is still on its way to", 1,
    ),
    "landing: a copy over what others still read": (
        "INIT1 WRITE FENCE bar.sync 0; xor.b32 %w, %w, 128; !READ EXPECT LOAD WAIT",
        "INIT1 WRITE FENCE bar.sync 0; xor.b32 %w, %w, 128; READ mbarrier.arrive.shared::cta.b64 _, [%e]; EWAIT "
        "EXPECT LOAD WAIT",
        "(another warp read with no barrier between|still on its way|without having waited)", 1,
    ),
    # groups of bulk copies
    "group: the source is overwritten without a wait": (
        "WRITE FENCE bar.sync 0; STORE COMMIT bar.sync 0; !WRITE DONE",
        "WRITE FENCE bar.sync 0; STORE COMMIT @%p cp.async.bulk.wait_group.read 0; bar.sync 0; WRITE DONE",
        "writes shared memory that a bulk copy still reads", 1,
    ),
    "group: no commit": (
        "WRITE FENCE bar.sync 0; !STORE DONE", "WRITE FENCE bar.sync 0; STORE COMMIT DONE",
        r"block ends while this bulk copy may still read .*or the commit", 1,
    ),
    "group: no wait at the end": (
        "WRITE FENCE bar.sync 0; !STORE COMMIT", "WRITE FENCE bar.sync 0; STORE COMMIT @%p "
        "cp.async.bulk.wait_group.read 0;",
        "block ends while this bulk copy may still read", 1,
    ),
    "group: a wait of all but one": (
        "WRITE FENCE bar.sync 0; STORE COMMIT @%p cp.async.bulk.wait_group.read 1; bar.sync 0; !WRITE DONE",
        "WRITE FENCE bar.sync 0; STORE COMMIT COMMIT @%p cp.async.bulk.wait_group.read 1; bar.sync 0; WRITE DONE",
        "writes shared memory that a bulk copy still reads", 1,
    ),
    "group: a wait by another thread": (
        "WRITE FENCE bar.sync 0; STORE COMMIT setp.eq.u32 %q, %t, 1; @%q cp.async.bulk.wait_group 0; bar.sync 0; "
        "!WRITE DONE",
        "WRITE FENCE bar.sync 0; STORE COMMIT DONE bar.sync 0; WRITE", "writes shared memory that a bulk copy "
        "still reads", 1,
    ),
    "group: the source is overwritten by the next copy": (
        "INIT1 WRITE FENCE bar.sync 0; STORE COMMIT !EXPECT LOAD WAIT DONE",
        "INIT1 WRITE FENCE bar.sync 0; STORE COMMIT @%p cp.async.bulk.wait_group.read 0; EXPECT LOAD WAIT DONE",
        "writes shared memory that a bulk copy still reads", 1,
    ),
    # the asynchronous proxy
    "proxy: no fence behind the stores": (
        "WRITE bar.sync 0; !STORE COMMIT DONE", "WRITE FENCE bar.sync 0; STORE COMMIT DONE",
        "no fence.proxy.async between", 1,
    ),
    "proxy: a fence in front of the stores": (
        "FENCE WRITE bar.sync 0; !STORE COMMIT DONE", "WRITE bar.sync 0; FENCE STORE COMMIT DONE",
        "no fence.proxy.async between", 1,
    ),
    "proxy: a fence of the other warp's stores alone": (
        "WRITE @!%z FENCE bar.sync 0; !STORE COMMIT DONE", "WRITE @!%z FENCE bar.sync 0; @%z FENCE STORE COMMIT DONE",
        "no fence.proxy.async between", 1,
    ),
    "proxy: a fence of global memory": (
        "WRITE fence.proxy.async.global; bar.sync 0; !STORE COMMIT DONE",
        "WRITE fence.proxy.async; bar.sync 0; STORE COMMIT DONE", "no fence.proxy.async between", 1,
    ),
    "proxy: a fence, but no barrier": (
        "WRITE FENCE !STORE COMMIT DONE", "WRITE FENCE bar.sync 0; STORE COMMIT DONE",
        "(another warp wrote with no barrier between|never written)", 1,
    ),
    "proxy: a copy over what was stored": (
        "INIT1 WRITE bar.sync 0; !EXPECT LOAD WAIT", "INIT1 WRITE FENCE bar.sync 0; EXPECT LOAD WAIT",
        "write where the generic proxy wrote, with no fence.proxy.async", 1,
    ),
    "proxy: a tensor copy of what was stored": (
        "WRITE bar.sync 0; !@%p cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%d, {0, 0}], [%a]; "
        "COMMIT DONE",
        "WRITE FENCE bar.sync 0; @%p cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%d, {0, 0}], [%a]; "
        "COMMIT DONE",
        "no fence.proxy.async between", 1,
    ),
    "proxy: an mbarrier of another block that it may not see": (
        "@%p mbarrier.init.shared::cta.b64 [%m], 1; CSYNC EXPECT PEER CSYNC "
        "!@%p cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%b], [%g], 256, [%c]; WAIT CSYNC",
        "INIT1 CSYNC EXPECT PEER CSYNC "
        "@%p cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%b], [%g], 256, [%c]; WAIT CSYNC",
        "fence.mbarrier_init is missing", 2,
    ),
    # clusters
    "cluster: memory of a block that has ended": (
        "WRITE CSYNC PEER setp.eq.u32 %q, %r, 0; @%q exit; CSYNC !ld.shared::cluster.u32 %x, [%b];",
        "WRITE CSYNC PEER ld.shared::cluster.u32 %x, [%b]; CSYNC",
        "accesses shared memory of block rank 0, which has ended", 2,
    ),
    "cluster: a block ends that another one reads": (
        "WRITE CSYNC PEER !ld.shared::cluster.u32 %x, [%b];", "WRITE CSYNC PEER ld.shared::cluster.u32 %x, [%b]; CSYNC",
        "(which has ended|may still access its shared memory)", 2,
    ),
    "cluster: a block ends before an arrival from another": (
        "INIT1 CSYNC PEER @%p mbarrier.arrive.shared::cluster.b64 _, [%c];",
        "INIT1 CSYNC PEER @%p mbarrier.arrive.shared::cluster.b64 _, [%c]; WAIT",
        "(which has ended|for which nobody waited)", 2,
    ),
    "cluster: a read with no barrier": (
        "WRITE PEER !ld.shared::cluster.u32 %x, [%b]; CSYNC", "WRITE CSYNC PEER ld.shared::cluster.u32 %x, [%b]; CSYNC",
        "(never written|a race)", 2,
    ),
    "cluster: a relaxed arrival without a fence": (
        "WRITE barrier.cluster.arrive.relaxed; barrier.cluster.wait; PEER !ld.shared::cluster.u32 %x, [%b]; CSYNC",
        "WRITE barrier.cluster.arrive.release; barrier.cluster.wait; PEER ld.shared::cluster.u32 %x, [%b]; CSYNC",
        "a race.*of block rank", 2,
    ),
    "cluster: a wait without an arrival": (
        "!barrier.cluster.wait;", "barrier.cluster.arrive; barrier.cluster.wait;", "without having arrived", 2,
    ),
    "cluster: two arrivals without a wait": (
        "barrier.cluster.arrive; !barrier.cluster.arrive; barrier.cluster.wait;",
        "barrier.cluster.arrive; barrier.cluster.wait; CSYNC", "without a wait between", 2,
    ),
    "cluster: a rank out of the cluster": (
        "!mapa.shared::cluster.u32 %b, %w, 2;", "mapa.shared::cluster.u32 %b, %w, 1;", "block rank 2 of a "
        "cluster of 2", 2,
    ),
    "cluster: multicast to more blocks than there are": (
        "INIT1 EXPECT CSYNC mov.b16 %k, 7; setp.eq.u32 %q, %r, 0; and.pred %q, %q, %p; !@%q "
        "cp.async.bulk.shared::cluster."
        "global.mbarrier::complete_tx::bytes.multicast::cluster [%a], [%g], 256, [%m], %k; WAIT CSYNC",
        "INIT1 EXPECT CSYNC mov.b16 %k, 3; setp.eq.u32 %q, %r, 0; and.pred %q, %q, %p; @%q "
        "cp.async.bulk.shared::cluster."
        "global.mbarrier::complete_tx::bytes.multicast::cluster [%a], [%g], 256, [%m], %k; WAIT CSYNC",
        "multicast to blocks 0x7 of a cluster of 2", 2,
    ),
    "cluster: another block's memory as one's own": (
        "WRITE CSYNC PEER !ld.shared::cta.u32 %x, [%b]; CSYNC", "WRITE CSYNC PEER ld.shared::cluster.u32 %x, "
        "[%b]; CSYNC",
        "out of bounds of shared::cta", 2,
    ),
    "cluster: a store on its way to a block that ends": (
        "INIT1 CSYNC PEER !st.async.shared::cluster.mbarrier::complete_tx::bytes.u32 [%b], %x, [%c];",
        "INIT1 EXPECT CSYNC PEER st.async.shared::cluster.mbarrier::complete_tx::bytes.u32 [%b], %x, [%c]; WAIT CSYNC",
        "(nobody waited for its mbarrier|which has ended)", 2,
    ),
    "cluster: an mbarrier that is not where the data goes": (
        "INIT1 EXPECT CSYNC PEER !st.async.shared::cluster.mbarrier::complete_tx::bytes.u32 [%b], %x, [%m]; WAIT CSYNC",
        "INIT1 EXPECT CSYNC PEER st.async.shared::cluster.mbarrier::complete_tx::bytes.u32 [%b], %x, [%c]; WAIT CSYNC",
        "not in the block that the data goes to", 2,
    ),
    # what bulk copies ask of addresses and sizes
    "bulk: a size of 8": (
        "INIT1 mov.u32 %y, 8; !@%p cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes [%a], [%g], %y, [%m];",
        "INIT1 EXPECT LOAD WAIT", "the size 0x8 is no multiple of 16", 1,
    ),
    "bulk: a source that is misaligned": (
        "INIT1 EXPECT !@%p cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes [%a], [%g+8], 256, [%m];",
        "INIT1 EXPECT @%p cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes [%a], [%g+16], 256, [%m]; WAIT",
        "the source's address .* no multiple of 16", 1,
    ),
    "bulk: a destination that is misaligned": (
        "INIT1 EXPECT !@%p cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes [%a+4], [%g], 256, [%m];",
        "INIT1 EXPECT @%p cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes [%a+16], [%g], 256, [%m]; WAIT",
        "the destination's address .* no multiple of 16", 1,
    ),
    "bulk: a tile that is misaligned": (
        "INIT1 EXPECT !@%p cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%a+64], "
        "[%d, {0, 0}], [%m];",
        "INIT1 EXPECT @%p cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%a+128], "
        "[%d, {0, 0}], [%m]; WAIT",
        "no multiple of 128", 1,
    ),
    "bulk: reads behind the end": (
        "INIT1 EXPECT !@%p cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes [%a], [%g+784], 256, [%m];",
        "INIT1 EXPECT @%p cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes [%a], [%g+768], 256, "
        "[%m]; WAIT",
        "reads 256 bytes of global memory .*out of bounds", 1,
    ),
    "bulk: writes behind the end": (
        "WRITE FENCE bar.sync 0; !@%p cp.async.bulk.global.shared::cta.bulk_group [%g+1008], [%a], 256;",
        "WRITE FENCE bar.sync 0; @%p cp.async.bulk.global.shared::cta.bulk_group [%g+768], [%a], 256; COMMIT DONE",
        "writes 256 bytes of global memory .*out of bounds", 1,
    ),
    "bulk: a tile that hangs over the block's shared memory": (
        "INIT1 EXPECT !@%p cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes [%a+896], [%g], 256, [%m];",
        "INIT1 EXPECT @%p cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes [%a+768], [%g], 256, "
        "[%m]; WAIT",
        "out of bounds", 1,
    ),
    "bulk: what is no tensor map": (
        "INIT1 EXPECT !@%p cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%a], "
        "[%g, {0, 0}], [%m];",
        "INIT1 EXPECT @%p cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%a], "
        "[%d, {0, 0}], [%m]; WAIT",
        "no tensor map", 1,
    ),
    "bulk: a tensor map of other dimensions": (
        "INIT1 EXPECT !@%p cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%a], "
        "[%d, {0, 0, 0}], [%m];",
        "INIT1 EXPECT @%p cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%a], "
        "[%d, {0, 15}], [%m]; WAIT",
        "3-dimensional tiled tensor with a 2-dimensional tiled", 1,
    ),
}  # fmt: skip


def placed(text: str) -> str:
    words = [
        word[: -len(word.lstrip("!"))] + MACROS[word.lstrip("!")] if word.lstrip("!") in MACROS else word
        for word in text.split(" ")
    ]
    return " ".join(words).replace("@!", "@@").replace("!", "\n.loc 1 77 0\n").replace("@@", "@!")


@pytest.mark.parametrize("what", PLANTED)
def test_planted(what: str) -> None:
    bug, mended, message, blocks = PLANTED[what]
    launch(placed(mended), blocks)
    start = time.perf_counter()
    with pytest.raises(DeviceError, match=message) as error:
        launch(placed(bug), blocks)
    assert time.perf_counter() - start < 5
    text = str(error.value)
    assert "kernel kernel, kernels/cuda/planted.cu:" in text
    assert "block (" in text
    assert "thread (" in text
    if "!" in bug.replace("@!", ""):
        assert "planted.cu:77" in text


@pytest.mark.parametrize("shuffle", range(1, 9))
@pytest.mark.parametrize("what", [w for w in PLANTED if not w.startswith("mbarrier")])
def test_mended_twins_are_silent_in_any_order(what: str, shuffle: int) -> None:
    emulation.set_option("shuffle", shuffle)
    try:
        launch(placed(PLANTED[what][1]), PLANTED[what][3])
    finally:
        emulation.set_option("shuffle", 0)
