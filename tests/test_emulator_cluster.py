"""Clusters of blocks: special registers, distributed shared memory, barrier.cluster, launches."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from neurokern.backends import emulation
from neurokern.testing.ptx import DeviceError, on_hopper

pytestmark = [
    pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing())),
    pytest.mark.usefixtures("snippets"),
]

SYNC = "barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;"
# %t thread, %r rank, %a a tile of 512 bytes, %w the thread's word of it, %m an mbarrier, %n the thread's word of the
# block's 128 bytes in the output
KERNEL = """.visible .entry kernel(.param .u64 out) {directives} {{
  .reg .pred %p, %q; .reg .b32 %t, %r, %a, %w, %m, %x, %y, %z, %b; .reg .b64 %n, %l, %k; .reg .f32 %f;
  .shared .align 128 .b8 tile[512]; .shared .align 8 .b64 bar;
  mov.u32 %t, %tid.x; mov.u32 %r, %ctaid.x; mov.u32 %a, tile; mad.lo.u32 %w, %t, 4, %a; mov.u32 %m, bar;
  ld.param.u64 %n, [out]; mad.wide.u32 %n, %r, 128, %n; mad.wide.u32 %n, %t, 4, %n; mov.u32 %r, %cluster_ctarank;
  setp.eq.u32 %p, %t, 0; mov.u32 %x, 0;
  {body}
  ret;
}}"""
INIT = f"@%p mbarrier.init.shared::cta.b64 [%m], 1; @%p fence.mbarrier_init.release.cluster; {SYNC}"
OUT = "st.global.b32 [%n], %x;"


def run(
    body: str, blocks: int = 4, cluster: int | None = 4, directives: str = "", grid: int | None = None
) -> np.ndarray:
    """The output, block by block."""
    out = np.zeros((blocks, 32), np.uint32)
    on_hopper(KERNEL.format(body=body, directives=directives), [out], grid=(grid or blocks, 1, 1),
              cluster=None if cluster is None else (cluster, 1, 1))  # fmt: skip
    return out


REGISTERS = ("cluster_ctaid.x", "cluster_ctaid.y", "cluster_ctaid.z", "cluster_nctaid.x", "cluster_nctaid.y",
             "cluster_nctaid.z", "clusterid.x", "clusterid.y", "clusterid.z", "nclusterid.x", "nclusterid.y",
             "nclusterid.z", "cluster_ctarank", "cluster_nctarank", "ctaid.x", "ctaid.y", "ctaid.z")  # fmt: skip


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 1), (2, 2, 1), (1, 2, 3), (2, 1, 4)])
def test_special_registers(shape: tuple[int, int, int]) -> None:
    grid = tuple(n * k for n, k in zip(shape, (3, 2, 2), strict=True))
    reads = "".join(f"mov.u32 %x, %{name}; st.global.b32 [%o+{4 * k}], %x;\n" for k, name in enumerate(REGISTERS))
    out = np.zeros((grid[2], grid[1], grid[0], 18), np.uint32)
    on_hopper(
        f""".visible .entry kernel(.param .u64 out) {{
  .reg .pred %p; .reg .b32 %x, %y, %i; .reg .b64 %o;
  mov.u32 %i, %ctaid.z; mov.u32 %x, %nctaid.y; mov.u32 %y, %ctaid.y; mad.lo.u32 %i, %i, %x, %y;
  mov.u32 %x, %nctaid.x; mov.u32 %y, %ctaid.x; mad.lo.u32 %i, %i, %x, %y;
  ld.param.u64 %o, [out]; mad.wide.u32 %o, %i, 72, %o;
  {reads} mov.pred %p, %is_explicit_cluster; selp.u32 %x, 1, 0, %p; st.global.b32 [%o+68], %x;
  ret;
}}""",
        [out],
        grid=grid,
        block=(1, 1, 1),
        cluster=shape,
    )
    for z, y, x in itertools.product(*(range(n) for n in grid[::-1])):
        inside = [i % n for i, n in zip((x, y, z), shape, strict=True)]
        which = [i // n for i, n in zip((x, y, z), shape, strict=True)]
        rank = inside[0] + shape[0] * (inside[1] + shape[1] * inside[2])
        want = [*inside, *shape, *which, 3, 2, 2, rank, int(np.prod(shape)), x, y, z, 1]
        assert out[z, y, x].tolist() == want


class TestDistributedSharedMemory:
    NEIGHBOUR = "add.u32 %y, %r, 1; and.b32 %y, %y, 3;"
    WANT = [[(r + 1) % 4 * 100 + t for t in range(32)] for r in range(4)]  # noqa: RUF012
    FILL = f"mad.lo.u32 %x, %r, 100, %t; st.shared.b32 [%w], %x; {SYNC}"

    @pytest.mark.parametrize(
        "load",
        [
            "mapa.shared::cluster.u32 %z, %w, %y; ld.shared::cluster.b32 %x, [%z];",
            "cvt.u64.u32 %l, %w; cvta.shared.u64 %l, %l; mapa.u64 %l, %l, %y; ld.b32 %x, [%l];",
            "cvt.u64.u32 %l, %w; cvta.shared.u64 %l, %l; mapa.u64 %l, %l, %y; cvta.to.shared::cluster.u64 %l, %l; "
            "ld.shared::cluster.b32 %x, [%l];",
            "mapa.shared::cluster.u32 %z, %w, %y; ld.shared::cluster.v2.b32 {%x, %b}, [%z];",
        ],
        ids=["window", "generic", "back to the window", "vector"],
    )
    def test_load(self, load: str) -> None:
        if ".v2" in load:  # even threads alone
            load = f"and.b32 %b, %t, 30; mad.lo.u32 %w, %b, 4, %a; {load} and.b32 %z, %t, 1; setp.eq.u32 %q, %z, 1; "
            load += "@%q mov.b32 %x, %b;"
        assert run(f"{self.FILL} {self.NEIGHBOUR} {load} {OUT} {SYNC}").tolist() == self.WANT

    def test_store(self) -> None:
        body = f"""{self.NEIGHBOUR} mad.lo.u32 %x, %r, 100, %t; mapa.shared::cluster.u32 %z, %w, %y;
  {SYNC} st.shared::cluster.b32 [%z], %x; {SYNC} ld.shared.b32 %x, [%w]; {OUT}"""
        assert run(body).tolist() == [[(r + 3) % 4 * 100 + t for t in range(32)] for r in range(4)]

    def test_own_memory_by_way_of_the_cluster(self) -> None:
        body = f"{self.FILL} mapa.shared::cluster.u32 %z, %w, %r; ld.shared::cluster.b32 %x, [%z]; {OUT}"
        assert run(body).tolist() == [[r * 100 + t for t in range(32)] for r in range(4)]
        plain = f"{self.FILL} ld.shared::cluster.b32 %x, [%w]; {OUT}"
        assert run(plain).tolist() == [[r * 100 + t for t in range(32)] for r in range(4)]

    @pytest.mark.parametrize("kind", ["red", "atom"])
    def test_atomics(self, kind: str) -> None:
        """All threads of the cluster add to one word of the last block."""
        result = "%b, " if kind == "atom" else ""
        body = f"""@%p st.shared.b32 [%a], %r; {SYNC} mapa.shared::cluster.u32 %z, %a, 3;
  {kind}.relaxed.cluster.shared::cluster.add.u32 {result}[%z], %t; {SYNC} ld.shared.b32 %x, [%a]; {OUT}"""
        assert run(body)[:, 0].tolist() == [0, 1, 2, 3 + 4 * sum(range(32))] or kind == "red"
        assert run(body)[3].tolist() == [3 + 4 * sum(range(32))] * 32

    def test_whose_it_is(self) -> None:
        body = """add.u32 %y, %r, 2; and.b32 %y, %y, 3; mapa.shared::cluster.u32 %z, %w, %y;
  getctarank.shared::cluster.u32 %x, %z; cvt.u64.u32 %l, %w; cvta.shared.u64 %l, %l; mapa.u64 %k, %l, %y;
  getctarank.u64 %y, %k; mad.lo.u32 %x, %x, 10, %y; getctarank.shared::cluster.u32 %y, %w; mad.lo.u32 %x, %x, 10, %y;
  isspacep.shared::cluster %q, %k; selp.u32 %y, 1, 0, %q; mad.lo.u32 %x, %x, 10, %y;
  isspacep.shared::cta %q, %k; selp.u32 %y, 1, 0, %q; mad.lo.u32 %x, %x, 10, %y;
  isspacep.shared %q, %l; selp.u32 %y, 1, 0, %q; mad.lo.u32 %x, %x, 10, %y;"""
        want = [[int(f"{(r + 2) % 4}{(r + 2) % 4}{r}101")] * 32 for r in range(4)]
        assert run(body + OUT).tolist() == want


class TestAsynchronousStores:
    EXPECT = "@%p mbarrier.arrive.expect_tx.shared::cta.b64 _, [%m], {};"
    WAIT = "W: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 %q, [%m], 0; @!%q bra W;"
    TO = "add.u32 %y, %r, 1; and.b32 %y, %y, 3; mapa.shared::cluster.u32 %b, %m, %y;"

    @pytest.mark.parametrize("space", [".shared::cluster", ""])
    @pytest.mark.parametrize(
        ("type_", "values"), [("b32", "%x"), ("v2.u32", "{%x, %t}"), ("v4.s32", "{%x, %t, %r, %y}"), ("b64", "%l")]
    )
    def test_store(self, type_: str, values: str, space: str) -> None:
        size = {"b32": 4, "v2": 8, "v4": 16, "b64": 8}[type_.split(".")[0]]
        body = f"""{INIT} {self.EXPECT.format(32 * size)} {SYNC} {self.TO}
  mad.lo.u32 %x, %r, 100, %t; cvt.u64.u32 %l, %x;
  mad.lo.u32 %w, %t, {size}, %a; mapa.shared::cluster.u32 %z, %w, %y;
  st.async{space}.mbarrier::complete_tx::bytes.{type_} [%z], {values}, [%b];
  {self.WAIT} ld.shared.b32 %x, [%w]; {OUT} {SYNC}"""
        assert run(body).tolist() == [[(r + 3) % 4 * 100 + t for t in range(32)] for r in range(4)]

    OPERATIONS = {  # noqa: RUF012
        "add.u32": lambda a: a.sum(0), "min.s32": lambda a: a.min(0), "max.u32": lambda a: a.max(0),
        "and.b32": np.bitwise_and.reduce, "or.b32": np.bitwise_or.reduce, "xor.b32": np.bitwise_xor.reduce,
    }  # fmt: skip

    @pytest.mark.parametrize("op", OPERATIONS)
    def test_reduce(self, op: str) -> None:
        """All blocks reduce into the first."""
        body = f"""mov.u32 %x, 77; st.shared.b32 [%w], %x; {INIT} setp.eq.u32 %q, %r, 0; and.pred %p, %p, %q;
  {self.EXPECT.format(512)} {SYNC} mapa.shared::cluster.u32 %b, %m, 0; mapa.shared::cluster.u32 %z, %w, 0;
  mad.lo.u32 %x, %r, 13, %t; or.b32 %x, %x, 64;
  red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.{op} [%z], %x, [%b];
  setp.ne.u32 %q, %r, 0; @%q bra END; {self.WAIT} ld.shared.b32 %x, [%w]; {OUT} END: {SYNC}"""
        given = np.array([[77] * 32, *([13 * r + t | 64 for t in range(32)] for r in range(4))])
        assert run(body)[0].tolist() == self.OPERATIONS[op](given).tolist()


class TestBarriers:
    @pytest.mark.parametrize("arrive", ["arrive", "arrive.release", "arrive.release.aligned"])
    @pytest.mark.parametrize("wait", ["wait", "wait.acquire", "wait.acquire.aligned"])
    def test_orders_what_is_before_and_behind(self, arrive: str, wait: str) -> None:
        both = f"barrier.cluster.{arrive}; barrier.cluster.{wait};"
        body = f"""add.u32 %y, %r, 1; and.b32 %y, %y, 3; mapa.shared::cluster.u32 %z, %w, %y; mov.u32 %b, 0;
  st.shared.b32 [%w], %r; {both}
L: ld.shared::cluster.b32 %x, [%z]; add.u32 %x, %x, 1; {both} st.shared.b32 [%w], %x; {both}
  add.u32 %b, %b, 1; setp.lt.u32 %q, %b, 5; @%q bra L; {OUT}"""
        assert run(body)[:, 0].tolist() == [(r + 5) % 4 + 5 for r in range(4)]

    def test_fence_in_front_of_relaxed_arrivals(self) -> None:
        """A fence publishes what a relaxed arrival does not."""
        body = f"""st.shared.b32 [%w], %r; fence.acq_rel.cluster; barrier.cluster.arrive.relaxed; barrier.cluster.wait;
  xor.b32 %y, %r, 1; mapa.shared::cluster.u32 %z, %w, %y; ld.shared::cluster.b32 %x, [%z]; {OUT} {SYNC}"""
        assert run(body)[:, 0].tolist() == [1, 0, 3, 2]

    def test_lanes_may_arrive_apart(self) -> None:
        """Without .aligned: half of each warp waits while the other half has yet to arrive."""
        body = f"""st.shared.b32 [%w], %r; setp.lt.u32 %q, %t, 16; @%q bra FIRST;
  barrier.cluster.arrive; barrier.cluster.wait; bra JOIN;
FIRST: barrier.cluster.arrive; barrier.cluster.wait;
JOIN: bar.warp.sync -1; xor.b32 %y, %r, 2; mapa.shared::cluster.u32 %z, %w, %y; ld.shared::cluster.b32 %x, [%z];
  {OUT} {SYNC}"""
        assert run(body)[:, 31].tolist() == [2, 3, 0, 1]

    def test_threads_that_exited_count_as_there(self) -> None:
        body = f"setp.gt.u32 %q, %t, 7; @%q exit; {SYNC.replace('.aligned', '')} mov.u32 %x, 5; {OUT}"
        assert run(body).tolist() == [[5] * 8 + [0] * 24] * 4

    def test_arrivals_from_all_blocks_at_one_mbarrier(self) -> None:
        body = f"""@%p mbarrier.init.shared::cta.b64 [%m], 4; fence.mbarrier_init.release.cluster; mov.u32 %x, 0;
  st.shared.b32 [%w], %r; {SYNC} mapa.shared::cluster.u32 %z, %m, 0; add.u32 %x, %r, 7;
  mapa.shared::cluster.u32 %b, %a, 0;
  mad.lo.u32 %b, %r, 4, %b; @%p st.shared::cluster.b32 [%b+256], %x;
  @%p mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%z]; setp.ne.u32 %q, %r, 0; @%q bra END;
W: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 %q, [%m], 0; @!%q bra W;
  and.b32 %y, %t, 3; mad.lo.u32 %y, %y, 4, %a; ld.shared.b32 %x, [%y+256]; {OUT}
END: {SYNC}"""
        assert run(body)[0].tolist() == [7, 8, 9, 10] * 8

    def test_a_cluster_of_one(self) -> None:
        """Every launch is of clusters."""
        body = f"{SYNC} mov.u32 %x, %cluster_nctarank; {OUT}"
        assert run(body, blocks=3, cluster=None)[:, 0].tolist() == [1, 1, 1]


class TestLaunches:
    RANK = f"mov.u32 %x, %cluster_nctarank; mad.lo.u32 %x, %r, 10, %x; {OUT}"

    def test_the_kernel_says_how_large_a_cluster_is(self) -> None:
        got = run(self.RANK, cluster=None, directives=".explicitcluster .reqnctapercluster 2, 1, 1")
        assert got[:, 0].tolist() == [2, 12, 2, 12]
        assert run(self.RANK, cluster=2, directives=".reqnctapercluster 2")[:, 0].tolist() == [2, 12, 2, 12]

    def test_blocks_are_clusters(self) -> None:
        directives = ".blocksareclusters .reqntid 32 .reqnctapercluster 2, 1, 1"
        assert run(self.RANK, blocks=4, grid=2, cluster=None, directives=directives)[:, 0].tolist() == [2, 12, 2, 12]

    @pytest.mark.emulator_only("errors")
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"blocks": 3, "cluster": 2}, "no multiple"),
            ({"blocks": 16, "cluster": 16}, "a cluster of 16 blocks"),
            ({"cluster": 4, "directives": ".reqnctapercluster 2, 1, 1"}, "is not the one of .reqnctapercluster"),
            ({"cluster": 4, "directives": ".maxclusterrank 2"}, ".maxclusterrank is 2"),
            ({"cluster": None, "directives": ".explicitcluster"}, "names no cluster"),
        ],
    )
    def test_what_is_wrong_is_refused(self, options: dict, message: str) -> None:
        with pytest.raises(DeviceError, match=message) as error:
            run(self.RANK, **options)
        assert error.value.code == 912
