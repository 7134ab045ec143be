"""Bulk copies without tensor maps, the moments when they land, and the same for cp.async."""

from __future__ import annotations

import numpy as np
import pytest
from neurokern.backends import emulation
from neurokern.testing.ptx import DeviceError, on_hopper

pytestmark = [
    pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing())),
    pytest.mark.usefixtures("snippets"),
]

# %t thread, %p in thread 0 alone, %a a tile of 512 bytes, %w the thread's word of it, %m an mbarrier for one arrival,
# %g and %o the arguments, %h and %n the thread's words of them
KERNEL = """.visible .entry kernel(.param .u64 from, .param .u64 out) {{
  .reg .pred %p, %q; .reg .b32 %t, %a, %w, %m, %x, %y, %r, %b, %c; .reg .b16 %k; .reg .b64 %g, %o, %h, %n, %l;
  .shared .align 128 .b8 tile[512]; .shared .align 128 .b8 other[512]; .shared .align 8 .b64 bar;
  mov.u32 %t, %tid.x; mov.u32 %a, tile; mov.u32 %m, bar; mov.u32 %b, other; mad.lo.u32 %w, %t, 4, %a;
  ld.param.u64 %g, [from]; ld.param.u64 %o, [out]; mov.u32 %r, %cluster_ctarank; mad.lo.u32 %c, %t, 4, %b;
  mad.wide.u32 %h, %t, 4, %g; mad.wide.u32 %n, %t, 4, %o; setp.eq.u32 %p, %t, 0;
  @%p mbarrier.init.shared::cta.b64 [%m], 1; @%p fence.mbarrier_init.release.cluster; bar.sync 0;
  barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
  {body}
  barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
  ret;
}}"""
EXPECT = "@%p mbarrier.arrive.expect_tx.shared::cta.b64 _, [%m], 128;"
LOAD = "cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes [%a], [%g], 128, [%m];"
WAIT = "W: mbarrier.try_wait.parity.shared::cta.b64 %q, [%m], 0; @!%q bra W;"
OUT = "ld.shared.b32 %x, [%w]; st.global.b32 [%n], %x;"
FILL = "ld.global.b32 %x, [%h]; st.shared.b32 [%w], %x;"
FENCE = "fence.proxy.async.shared::cta; bar.sync 0;"
COMMIT = "@%p cp.async.bulk.commit_group;"


def run(body: str, source: np.ndarray, out: np.ndarray, blocks: int = 1, **options: object) -> np.ndarray:
    cluster = (blocks, 1, 1)
    on_hopper(KERNEL.format(body=body), [source, out], grid=cluster, cluster=cluster, **options)
    return out


def words(n: int = 32) -> np.ndarray:
    return np.arange(1, n + 1, dtype=np.uint32)


OPERATIONS = [
    ("add", "u32", np.uint32, np.add), ("add", "s32", np.int32, np.add), ("add", "u64", np.uint64, np.add),
    ("add", "f32", np.float32, np.add), ("add", "f64", np.float64, np.add), ("add.noftz", "f16", np.float16, np.add),
    ("min", "u32", np.uint32, np.minimum), ("max", "s32", np.int32, np.maximum), ("max", "s64", np.int64, np.maximum),
    ("min", "f16", np.float16, np.minimum), ("max", "f16", np.float16, np.maximum),
    ("and", "b32", np.uint32, np.bitwise_and), ("or", "b64", np.uint64, np.bitwise_or),
    ("xor", "b32", np.uint32, np.bitwise_xor),
    ("inc", "u32", np.uint32, lambda o, x: np.where(o >= x, 0, o + 1)),
    ("dec", "u32", np.uint32, lambda o, x: np.where((o == 0) | (o > x), x, o - 1)),
]  # fmt: skip


class TestCopies:
    @pytest.mark.parametrize(
        "instruction",
        [
            "shared::cta.global.mbarrier::complete_tx::bytes [%a], [%g], 128, [%m];",
            "shared::cluster.global.mbarrier::complete_tx::bytes [%a], [%g], 128, [%m];",
            "shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%a], [%g], 128, [%m], %l;",
        ],
    )
    def test_load(self, instruction: str) -> None:
        body = f"{EXPECT} @%p cp.async.bulk.{instruction} {WAIT} {OUT}"
        policy = "createpolicy.fractional.L2::evict_last.b64 %l, 1.0;"
        got = run(policy + body, words(), np.zeros(32, np.uint32))
        assert got.tolist() == words().tolist()

    def test_bytes_may_land_before_they_are_expected(self) -> None:
        """The tx-count may pass below zero while an arrival is pending."""
        body = f"@%p {LOAD} {EXPECT} {WAIT} {OUT}"
        assert run(body, words(), np.zeros(32, np.uint32)).tolist() == words().tolist()

    def test_several_copies_for_one_phase(self) -> None:
        parts = "".join(
            LOAD.replace("128", "16").replace("[%a]", f"[%a+{k}]").replace("[%g]", f"[%g+{k}]") + "\n@%p "
            for k in range(0, 128, 16)
        )
        got = run(f"{EXPECT} @%p {parts} mov.u32 %x, 0; {WAIT} {OUT}", words(), np.zeros(32, np.uint32))
        assert got.tolist() == words().tolist()

    def test_every_lane_copies(self) -> None:
        """16 bytes each, of 512 in all."""
        body = """@%p mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%m], 512; mad.lo.u32 %b, %t, 16, %a;
  mad.wide.u32 %h, %t, 16, %g;
  cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes [%b], [%h], 16, [%m];
  @%p mbarrier.arrive.shared::cta.b64 _, [%m];"""
        got = run(
            f"{body} {WAIT} ld.shared.b32 %x, [%b+12]; st.global.b32 [%n], %x;", words(128), np.zeros(32, np.uint32)
        )
        assert got.tolist() == list(range(4, 129, 4))

    @pytest.mark.parametrize("wait", ["wait_group 0", "wait_group.read 0"])
    def test_store(self, wait: str) -> None:
        body = f"{FILL} {FENCE} @%p cp.async.bulk.global.shared::cta.bulk_group [%o], [%a], 128; {COMMIT}"
        got = run(f"{body} @%p cp.async.bulk.{wait};", words(), np.zeros(32, np.uint32))
        assert got.tolist() == words().tolist()

    def test_groups_are_read_in_order(self) -> None:
        """With one group pending, the first has been read and its tile can be used again."""
        store = "@%p cp.async.bulk.global.shared::cta.bulk_group [%o+{0}], [{1}], 128; " + COMMIT
        body = f"""{FILL} st.shared.b32 [%c], %x; {FENCE} {store.format(0, "%a")} {store.format(128, "%b")}
  @%p cp.async.bulk.wait_group.read 1; bar.sync 0; mov.u32 %x, 99; st.shared.b32 [%w], %x; {FENCE}
  {store.format(256, "%a")} @%p cp.async.bulk.wait_group 0;"""
        got = run(body, words(), np.zeros(96, np.uint32))
        assert got.tolist() == [*words().tolist(), *words().tolist(), *[99] * 32]

    @pytest.mark.parametrize(
        ("op", "type_", "dtype", "function"), OPERATIONS, ids=lambda v: v if type(v) is str else ""
    )
    def test_reduce_to_global(self, op: str, type_: str, dtype: type, function, seed: int) -> None:
        generator = np.random.default_rng(seed)
        n = 128 // np.dtype(dtype).itemsize
        x, y = (generator.integers(0, 50, n).astype(dtype) for _ in range(2))
        want = function(y, x)
        body = f"{FILL} {FENCE} @%p cp.reduce.async.bulk.global.shared::cta.bulk_group.{op}.{type_} [%o], [%a], 128;"
        run(f"{body} {COMMIT} @%p cp.async.bulk.wait_group 0;", x.view(np.uint32), y.view(np.uint32))
        assert y.tolist() == want.tolist()

    def test_prefetch_only_reads(self) -> None:
        body = "cp.async.bulk.prefetch.L2.global [%g], 128;"
        assert run(body, words(), words()).tolist() == words().tolist()

    @pytest.mark.emulator_only("errors")
    def test_prefetch_out_of_bounds(self) -> None:
        with pytest.raises(DeviceError, match="out of bounds"):
            run("cp.async.bulk.prefetch.L2.global [%g], 144;", words(), np.zeros(32, np.uint32))


class TestClusters:
    def test_between_blocks(self) -> None:
        """Each block sends its tile to the next one and tells its mbarrier."""
        body = f"""add.u32 %x, %r, 1; and.b32 %x, %x, 3; mapa.shared::cluster.u32 %b, %b, %x;
  mapa.shared::cluster.u32 %y, %m, %x; mad.lo.u32 %x, %r, 100, %t; st.shared.b32 [%w], %x; {FENCE} {EXPECT}
  @%p cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%b], [%a], 128, [%y];
  {WAIT} ld.shared.b32 %x, [%c]; mad.wide.u32 %n, %r, 128, %n; st.global.b32 [%n], %x;"""
        got = run(body, words(), np.zeros(128, np.uint32), blocks=4)
        assert got.reshape(4, 32).tolist() == [[(r + 3) % 4 * 100 + t for t in range(32)] for r in range(4)]

    @pytest.mark.parametrize("mask", [0b1111, 0b0101, 0b1000])
    def test_multicast(self, mask: int) -> None:
        """One block's load lands at the same place of each block in the mask, and at its mbarrier."""
        load = "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"
        load += " [%a], [%g], 128, [%m], %k;"
        body = f"""mov.u32 %y, {mask}; shr.u32 %y, %y, %r; and.b32 %y, %y, 1; setp.eq.u32 %q, %y, 0; @%q bra OUT;
  {EXPECT} bar.sync 0;
OUT: barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned; mov.b16 %k, {mask};
  setp.eq.u32 %q, %r, 2; and.pred %q, %q, %p; @%q {load}
  setp.eq.u32 %q, %y, 0; @%q bra END; {WAIT} ld.shared.b32 %x, [%w]; mad.wide.u32 %n, %r, 128, %n;
  st.global.b32 [%n], %x; END:"""
        got = run(body, words(), np.zeros(128, np.uint32), blocks=4)
        want = [words().tolist() if mask >> r & 1 else [0] * 32 for r in range(4)]
        assert got.reshape(4, 32).tolist() == want

    @pytest.mark.parametrize("op", ["add", "max", "xor"])
    def test_reduce_into_another_block(self, op: str) -> None:
        """All blocks reduce into the first one's tile."""
        type_ = "b32" if op == "xor" else "u32"
        body = f"""st.shared.b32 [%c], %t; mad.lo.u32 %x, %r, 7, %t; st.shared.b32 [%w], %x; {FENCE}
  setp.eq.u32 %q, %r, 0; and.pred %q, %q, %p; @%q mbarrier.arrive.expect_tx.shared::cta.b64 _, [%m], 512;
  mapa.shared::cluster.u32 %b, %b, 0; mapa.shared::cluster.u32 %y, %m, 0;
  barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
  @%p cp.reduce.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes.{op}.{type_}
    [%b], [%a], 128, [%y];
  setp.ne.u32 %q, %r, 0; @%q bra END; {WAIT} ld.shared.b32 %x, [%c]; st.global.b32 [%n], %x; END:"""
        got = run(body, words(), np.zeros(32, np.uint32), blocks=4)
        function = {"add": np.add, "max": np.maximum, "xor": np.bitwise_xor}[op]
        t = np.arange(32)
        assert got.tolist() == function.reduce([t, *(7 * r + t for r in range(4))]).tolist()


@pytest.fixture
def unchecked():
    emulation.set_option("shared", 0)
    yield
    emulation.set_option("shared", 1)
    emulation.set_option("shuffle", 0)


LOADS = {
    "cp.async": "cp.async.ca.shared.global [%w], [%h], 4; cp.async.commit_group;",
    "bulk": f"{EXPECT} @%p {LOAD}",
}  # fmt: skip
WAITS = {"cp.async": "cp.async.wait_all; bar.sync 0;", "bulk": WAIT}
# a while in which something may land: turns of the warp end at a barrier that it shares with another
WHILE = "bar.sync 1, 64; " * 3
SPLIT = "setp.ge.u32 %q, %t, 32; @%q bra OTHER; {0} bra JOIN; OTHER: {1} JOIN: mov.u32 %x, 0;"


@pytest.mark.emulator_only("races, and the emulator's options")
@pytest.mark.usefixtures("unchecked")
class TestLateness:
    """Without its wait a kernel sees what was there before: always, unless the moment of landing is drawn."""

    def outcomes(self, body: str, source: np.ndarray | None = None) -> list[list[int]]:
        found = []
        for seed in range(30):
            emulation.set_option("shuffle", seed)
            given = words() if source is None else source.copy()
            text = SPLIT.format(body, WHILE).replace("bar.sync 0;", "bar.sync 2, 32;")
            found.append(run(text, given, np.zeros(64, np.uint32), block=(64, 1, 1))[:32].tolist())
        return found

    @pytest.mark.parametrize("kind", LOADS)
    def test_no_wait(self, kind: str) -> None:
        stale, *drawn = self.outcomes(f"{LOADS[kind]} {WHILE} {OUT}")
        assert stale == [0xFFFFFFFF] * 32
        assert any(words().tolist() == o for o in drawn) or kind == "cp.async"
        assert len({tuple(o) for o in drawn}) > 1

    @pytest.mark.parametrize("kind", LOADS)
    def test_the_source_is_read_when_it_lands(self, kind: str) -> None:
        """A store to the source behind the copy, which is a mistake, shows."""
        change = "bar.warp.sync -1; mov.u32 %x, 5; st.global.b32 [%h], %x; bar.warp.sync -1;"
        late, *drawn = self.outcomes(f"{LOADS[kind]} {WHILE} {change} {WAITS[kind]} {OUT}")
        assert late == [5] * 32
        assert any(o != late for o in drawn)

    @pytest.mark.parametrize("kind", LOADS)
    def test_correct_kernels_do_not_care(self, kind: str) -> None:
        emulation.set_option("shared", 1)
        found = self.outcomes(f"{LOADS[kind]} {WHILE} {WAITS[kind]} {OUT}")
        assert all(o == words().tolist() for o in found)

    def test_a_store_reads_its_source_when_a_wait_demands_it(self) -> None:
        change = "mov.u32 %x, 5; st.shared.b32 [%w], %x; bar.warp.sync -1;"
        body = f"{FILL} {FENCE} @%p cp.async.bulk.global.shared::cta.bulk_group [%o], [%a], 128; {COMMIT}"
        late, *drawn = self.outcomes(f"{body} {WHILE} {change} @%p cp.async.bulk.wait_group 0;")
        assert late == [5] * 32
        assert any(o != late for o in drawn)
