"""Tensor maps and the copies that use them, against NumPy."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from neurokern.backends import emulation
from neurokern.testing.ptx import DeviceError, TensorMap, Within, emulator, on_hopper
from neurokern.testing.twins import but_nan

pytestmark = [
    pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing())),
    pytest.mark.usefixtures("snippets"),
]

# CUtensorMapDataType
TYPES = {0: "u1", 1: "u2", 2: "u4", 3: "i4", 4: "u8", 5: "i8", 6: "f2", 7: "f4", 8: "f8", 9: "u2", 10: "f4", 11: "f4",
         12: "f4"}  # fmt: skip
NAN = {6: 0x7FFF, 7: 0x7FFFFFFF, 8: 0x7FFFFFFFFFFFFFFF, 9: 0x7FFF}
FLOATING = {6: "f16", 7: "f32", 8: "f64", 9: "bf16", 10: "f32", 11: "f32", 12: "f32"}

ROUNDING = pytest.mark.emulator_only("how a copy rounds to tf32 is not told")

# %d: the map, %a: the tile, %m: an mbarrier that is ready, %p: in thread 0 alone, %c: coordinates, %h: im2col offsets
KERNEL = """.visible .entry kernel(.param .align 64 .b8 map[128], .param .u64 tile_data, .param .u64 at) {{
  .reg .pred %p, %q; .reg .b32 %t, %a, %m, %x, %b, %c<8>; .reg .b16 %h<4>; .reg .b64 %d, %o, %k;
  .shared .align 1024 .b8 tile[{bytes}]; .shared .align 8 .b64 bar;
  mov.u32 %t, %tid.x; mov.u32 %a, tile; mov.u32 %m, bar; mov.b64 %d, map; cvta.param.u64 %d, %d;
  ld.param.u64 %o, [tile_data]; ld.param.u64 %k, [at]; setp.eq.u32 %p, %t, 0; mad.wide.u32 %o, %t, 4, %o;
  @%p mbarrier.init.shared::cta.b64 [%m], 1; @%p fence.proxy.async.shared::cta; bar.sync 0;
  {coordinates}
  {body}
  ret;
}}"""
LOAD = """@%p mbarrier.arrive.expect_tx.shared::cta.b64 _, [%m], {bytes};
  {policy}
  @%p cp.async.bulk.tensor.{rank}d.shared::{space}.global.{mode}.mbarrier::complete_tx::bytes{hint}
    [%a], [%d, {{{at}}}], [%m]{extra};
W: mbarrier.try_wait.parity.shared::cta.b64 %q, [%m], 0; @!%q bra W;
  mad.lo.u32 %b, %t, 4, %a;
L: setp.ge.u32 %q, %t, {words}; @%q bra DONE; ld.shared.b32 %x, [%b]; st.global.b32 [%o], %x;
  add.u32 %t, %t, 32; add.u32 %b, %b, 128; add.u64 %o, %o, 128; bra L; DONE:"""
STORE = """mad.lo.u32 %b, %t, 4, %a;
L: setp.ge.u32 %q, %t, {words}; @%q bra FULL; ld.global.b32 %x, [%o]; st.shared.b32 [%b], %x;
  add.u32 %t, %t, 32; add.u32 %b, %b, 128; add.u64 %o, %o, 128; bra L;
FULL: fence.proxy.async.shared::cta; bar.sync 0;
  @%p {instruction} [%d, {{{at}}}], [%a]{extra};
  @%p cp.async.bulk.commit_group; @%p cp.async.bulk.wait_group 0;"""


def kernel(body: str, bytes_: int, numbers: int) -> str:
    loads = "".join(f"ld.global.b32 %c{n}, [%k+{4 * n}];" for n in range(min(numbers, 5)))
    loads += "".join(f"ld.global.b16 %h{n}, [%k+{20 + 2 * n}];" for n in range(3))
    return KERNEL.format(body=body, bytes=bytes_, coordinates=loads)


def coordinates(at: list[int], offsets: tuple[int, ...] = ()) -> np.ndarray:
    raw = np.zeros(8, np.int32)
    raw[: len(at)] = at
    raw[5:].view(np.uint16)[: len(offsets)] = offsets
    return raw


def which_nan(m: TensorMap) -> Within | None:
    """Which NaN is filled in, or comes out of one that is loaded, is not told."""
    return but_nan(FLOATING[m.type]) if m.type in FLOATING else None


def load(m: TensorMap, at: list[int], bytes_: int, offsets: tuple[int, ...] = (), space: str = "cluster") -> np.ndarray:
    """The bytes of shared memory after a load of the tile at these coordinates."""
    out = np.full(bytes_, 0x5A, np.uint8)
    hint, policy = "", ""
    if len(at) == 2:
        hint, policy = ".L2::cache_hint", "createpolicy.fractional.L2::evict_last.b64 %k, 1.0;"
    extra = ", {" + ", ".join(f"%h{n}" for n in range(len(offsets))) + "}" if offsets else ""
    body = LOAD.format(bytes=bytes_, rank=len(at), space=space, mode="im2col" if offsets else "tile", hint=hint,
                       policy=policy, at=", ".join(f"%c{n}" for n in range(len(at))), words=bytes_ // 4,
                       extra=extra + (", %k" if hint else ""))  # fmt: skip
    on_hopper(kernel(body, bytes_, len(at)), [m, out, coordinates(at, offsets)], within=which_nan(m))
    return out


def store(m: TensorMap, at: list[int], tile: np.ndarray, instruction: str, mode: str = "tile") -> None:
    body = STORE.format(instruction=instruction.format(rank=len(at), mode=mode), words=tile.nbytes // 4,
                        at=", ".join(f"%c{n}" for n in range(len(at))), extra="")  # fmt: skip
    on_hopper(kernel(body, tile.nbytes, len(at)), [m, tile.view(np.uint8), coordinates(at)])


def swizzled(tile: np.ndarray, mode: int) -> np.ndarray:
    """Tile bytes where they lie: of each line of 128 bytes, the 16-byte chunks change places with the line's number."""
    chunks = tile.reshape(-1, 16)
    out = np.zeros_like(chunks)
    span = 1 << mode  # chunks that change places among themselves
    for n, chunk in enumerate(chunks):
        line, place = divmod(n, 8)
        out[line * 8 + place // span * span + (place % span ^ line % span)] = chunk
    return out.reshape(-1) if mode else tile


def random_map(draw: random.Random, rank: int, swizzle: int, steps: bool) -> tuple[TensorMap, tuple, list[int]]:
    """A map of a padded array, the view of what it describes (outermost first), and coordinates near its borders."""
    type_ = draw.choice(sorted(TYPES)[:10])
    dtype = np.dtype(TYPES[type_])
    fill = int(type_ in NAN and draw.random() < 0.5)
    span = 16 << swizzle if swizzle else draw.choice([16, 32, 48, 64])
    inner = span // dtype.itemsize
    while inner > 256:
        inner //= 2
    element_strides = [draw.choice([1, 1, 2, 3]) if steps else 1 for _ in range(rank)]
    counts = [inner] + [draw.randint(1, 5 if rank > 3 else 9) for _ in range(rank - 1)]
    if swizzle and np.prod(counts[1:]) % 8:
        counts[1:] = [8] + [1] * (rank - 2) if rank > 1 else []
    box = [inner] + [c * s - draw.randint(0, s - 1) for c, s in zip(counts[1:], element_strides[1:], strict=True)]
    dims = [draw.randint(max(1, inner // 2), 2 * inner)] + [draw.randint(1, 12) for _ in range(rank - 1)]
    strides, pitch = [], dims[0] * dtype.itemsize
    for d in range(1, rank):
        pitch = (pitch + 15) // 16 * 16 + 16 * draw.randint(0, 2)
        strides.append(pitch)
        pitch *= dims[d]
    raw = np.frombuffer(draw.randbytes((pitch + 15) // 16 * 16), np.uint8).copy()
    view = np.ndarray(dims[::-1], dtype, raw, strides=[*strides[::-1], dtype.itemsize])
    at = [draw.randint(-b, d + 1) if draw.random() < 0.4 else draw.randint(0, max(0, d - b))
          for d, b in zip(dims, box, strict=True)]  # fmt: skip
    m = TensorMap(raw, type_, dims, strides, box, element_strides, swizzle, fill)
    return m, (view, counts), at


def elements(m: TensorMap, view: np.ndarray, counts: list[int], at: list[int]):
    """Index in the tile (outermost first), and in the tensor or None."""
    steps = [1, *m.element_strides[1:]]
    for index in itertools.product(*(range(c) for c in counts[::-1])):
        place = [a + i * s for a, i, s in zip(at, index[::-1], steps, strict=True)][::-1]
        yield index, tuple(place) if all(0 <= p < n for p, n in zip(place, view.shape, strict=True)) else None


def expected(m: TensorMap, view: np.ndarray, counts: list[int], at: list[int]) -> np.ndarray:
    tile = np.zeros(counts[::-1], view.dtype)
    if m.fill:
        tile.view(f"u{view.dtype.itemsize}")[:] = NAN[m.type]
    for index, place in elements(m, view, counts, at):
        if place is not None:
            tile[index] = view[place]
    return swizzled(tile.reshape(-1).view(np.uint8), m.swizzle)


REDUCTIONS = {
    "add": (2, np.add), "min": (3, np.minimum), "max": (3, np.maximum), "and": (2, np.bitwise_and),
    "or": (4, np.bitwise_or), "xor": (2, np.bitwise_xor),
    "inc": (2, lambda o, x: np.where(o >= x, 0, o + 1)),
    "dec": (2, lambda o, x: np.where((o == 0) | (o > x), x, o - 1)),
}  # fmt: skip


class TestTiles:
    @pytest.mark.parametrize("swizzle", range(4))
    @pytest.mark.parametrize("rank", range(1, 6))
    def test_load(self, rank: int, swizzle: int, seed: int) -> None:
        draw = random.Random(f"{seed} load {rank} {swizzle}")
        for n in range(4):
            m, (view, counts), at = random_map(draw, rank, swizzle if rank > 1 else 0, steps=n % 2 == 1)
            want = expected(m, view, counts, at)
            got = load(m, at, want.nbytes, space=draw.choice(["cluster", "cta"]))
            assert got.tobytes() == want.tobytes(), (m, at)

    @pytest.mark.parametrize("swizzle", range(4))
    @pytest.mark.parametrize("rank", range(1, 6))
    def test_store(self, rank: int, swizzle: int, seed: int) -> None:
        """What lies within the tensor is written, and nothing else."""
        draw = random.Random(f"{seed} store {rank} {swizzle}")
        for n in range(3):
            m, (view, counts), at = random_map(draw, rank, swizzle if rank > 1 else 0, steps=n % 2 == 1)
            tile = np.frombuffer(draw.randbytes(int(np.prod(counts)) * view.dtype.itemsize), view.dtype)
            tile = tile.reshape(counts[::-1]).copy()
            after = m.array.copy()
            result = np.ndarray(view.shape, view.dtype, after, strides=view.strides)
            for index, place in elements(m, view, counts, at):
                if place is not None:
                    result[place] = tile[index]
            stored = swizzled(tile.reshape(-1).view(np.uint8), m.swizzle)
            store(m, at, stored, "cp.async.bulk.tensor.{rank}d.global.shared::cta.{mode}.bulk_group")
            assert m.array.tobytes() == after.tobytes(), (m, at)

    @pytest.mark.parametrize("op", REDUCTIONS)
    def test_reduce(self, op: str, seed: int) -> None:
        type_, function = REDUCTIONS[op]
        generator = np.random.default_rng(seed)
        dtype = np.dtype(TYPES[type_])
        x = generator.integers(0, 9, (20, 32)).astype(dtype)
        tile = generator.integers(0, 9, (8, 16)).astype(dtype)
        want = x.copy()
        want[3:11, 20:] = function(want[3:11, 20:], tile[:, :12])
        m = TensorMap(x, type_, [32, 20], [32 * dtype.itemsize], [16, 8])
        name = f"cp.reduce.async.bulk.tensor.{{rank}}d.global.shared::cta.{op}.{{mode}}.bulk_group"
        store(m, [20, 3], tile.reshape(-1).view(np.uint8), name)
        assert x.tolist() == want.tolist()

    @pytest.mark.emulator_only("errors")
    @pytest.mark.parametrize(("op", "type_"), [("add", 8), ("add", 1), ("add", 5), ("add", 11), ("inc", 3), ("or", 6),
                                               ("max", 7)])  # fmt: skip
    def test_what_no_gpu_reduces(self, op: str, type_: int) -> None:
        x = np.zeros((16, 16), TYPES[type_])
        m = TensorMap(x, type_, [16, 16], [16 * x.itemsize], [16, 4])
        name = f"cp.reduce.async.bulk.tensor.{{rank}}d.global.shared::cta.{op}.{{mode}}.bulk_group"
        with pytest.raises(DeviceError, match=f"no reduction {op} of the tensor map's type"):
            store(m, [0, 4], x[:4].reshape(-1).view(np.uint8), name)

    @pytest.mark.parametrize("type_", [6, 7])
    def test_reduce_floating(self, type_: int, seed: int) -> None:
        generator = np.random.default_rng(seed)
        x, tile = (generator.standard_normal(s).astype(TYPES[type_]) for s in ((16, 16), (4, 16)))
        want = x.copy()
        want[4:8] = want[4:8] + tile
        m = TensorMap(x, type_, [16, 16], [16 * x.itemsize], [16, 4])
        store(m, [0, 4], tile.reshape(-1).view(np.uint8),
              "cp.reduce.async.bulk.tensor.{rank}d.global.shared::cta.add.{mode}.bulk_group")  # fmt: skip
        assert x.tobytes() == want.tobytes()

    @pytest.mark.parametrize(
        ("type_", "rounded"),
        [(10, True), (11, False), (12, False), *(pytest.param(t, True, marks=ROUNDING) for t in (11, 12))],
    )
    def test_elements_that_change_on_their_way(self, type_: int, rounded: bool) -> None:
        """Subnormal numbers to zero, or single precision to the 10 bits of tf32; NaN and infinity stay."""
        bits = np.array([0, 1, 0x80000001, 0x3F800FFF, 0x3F801000, 0x7F800000, 0xFFC00001, 0x00400000], np.uint32)
        if not rounded:
            bits &= np.uint32(0xFFFFE000)
        m = TensorMap(bits, type_, [8], [], [8])
        want = bits.astype(np.uint64)
        if type_ != 11:
            want = np.where((want & 0x7F800000) == 0, want & 0x80000000, want)
        if type_ != 10:
            finite = (want & 0x7F800000) != 0x7F800000
            want = np.where(finite, (want + 0x1000) & 0xFFFFE000, want)
        assert load(m, [0], 32).view(np.uint32).tolist() == want.tolist()


class TestImageToColumn:
    """Pixels one after the other within a bounding box, at an offset: the columns of a convolution."""

    def case(self, draw: random.Random, rank: int, swizzle: int) -> tuple[TensorMap, np.ndarray, list[int], tuple]:
        spatial = rank - 2
        c, n = draw.choice([8, 16, 24]), draw.randint(1, 3)
        size = [draw.randint(3, 7) for _ in range(spatial)]
        lower = [draw.randint(-2, 1) for _ in range(spatial)]
        upper = [draw.randint(-2, 1) for _ in range(spatial)]
        upper = [max(u, lo + 1 - s) for u, lo, s in zip(upper, lower, size, strict=True)]
        steps = [1, *(draw.randint(1, 2) for _ in range(spatial)), 1]
        channels = draw.choice([8, 16]) if not swizzle else 8 << swizzle
        dims = [c, *size, n]
        x = np.random.default_rng(draw.randrange(1 << 30)).integers(1, 2**16, dims[::-1], dtype=np.uint16)
        strides = list(x.strides[::-1][1:])
        pixels = draw.choice([8, 24, 40])
        m = TensorMap(x, 1, dims, strides, (channels, pixels), steps, swizzle, 0, (lower, upper))
        start = [draw.randrange(lo, s + u, st) for lo, s, u, st in zip(lower, size, upper, steps[1:], strict=False)]
        at = [draw.choice([0, 8]), *start, draw.randrange(n)]
        return m, x, at, tuple(draw.randint(0, 3) for _ in range(spatial))

    def pixels(self, m: TensorMap, at: list[int], offsets: tuple[int, ...]):
        """Positions (outermost first, without channels): all of the box, from the first on."""
        lower, upper = m.corners
        axes = [range(lo, s + u, st) for lo, s, u, st in
                zip(lower, m.dims[1:-1], upper, m.element_strides[1:-1], strict=True)]  # fmt: skip
        whole = itertools.product(range(m.dims[-1] + 99), *axes[::-1])
        from_first = itertools.dropwhile(lambda p: p != tuple(at[1:][::-1]), whole)
        for n, *p in itertools.islice(from_first, m.box[1]):
            yield (n, *(x + o for x, o in zip(p, offsets[::-1], strict=True)))

    @pytest.mark.parametrize("swizzle", [0, 1, 2, 3])
    @pytest.mark.parametrize("rank", [3, 4, 5])
    def test_load(self, rank: int, swizzle: int, seed: int) -> None:
        draw = random.Random(f"{seed} im2col {rank} {swizzle}")
        for _ in range(4):
            m, x, at, offsets = self.case(draw, rank, swizzle)
            channels, count = m.box
            want = np.zeros((count, channels), np.uint16)
            for k, p in enumerate(self.pixels(m, at, offsets)):
                if all(0 <= i < s for i, s in zip(p, x.shape, strict=False)):
                    row = x[p][at[0] : at[0] + channels]
                    want[k, : len(row)] = row
            want = swizzled(want.reshape(-1).view(np.uint8), swizzle)
            assert load(m, at, want.nbytes, offsets).tobytes() == want.tobytes(), (m, at, offsets)

    def test_store(self, seed: int) -> None:
        draw = random.Random(f"{seed} im2col store")
        for _ in range(4):
            m, x, at, _ = self.case(draw, 4, 0)
            channels, count = m.box
            tile = np.frombuffer(draw.randbytes(2 * count * channels), np.uint16).reshape(count, channels).copy()
            want = x.copy()
            for k, p in enumerate(self.pixels(m, at, (0, 0))):
                if all(0 <= i < s for i, s in zip(p, x.shape, strict=False)):
                    row = want[p][at[0] : at[0] + channels]
                    row[:] = tile[k, : len(row)]
            name = "cp.async.bulk.tensor.{rank}d.global.shared::cta.im2col_no_offs.bulk_group"
            store(m, at, tile.reshape(-1).view(np.uint8), name)
            assert x.tolist() == want.tolist(), (m, at)


PLACES = """.const .align 64 .b8 in_const[128]; .global .align 128 .b8 in_global[128];
.visible .entry kernel(.param .align 64 .b8 map[128], .param .u64 tile_data) {{
  .reg .pred %p, %q; .reg .b32 %t, %a, %m, %x; .reg .b64 %d, %e, %o, %v; .shared .align 128 .b8 tile[128];
  .shared .align 8 .b64 bar;
  mov.u32 %t, %tid.x; mov.u32 %a, tile; mov.u32 %m, bar; ld.param.u64 %o, [tile_data]; mad.wide.u32 %o, %t, 4, %o;
  setp.eq.u32 %p, %t, 0; @%p mbarrier.init.shared::cta.b64 [%m], 1; @%p fence.proxy.async; bar.sync 0;
  {place}
  @%p mbarrier.arrive.expect_tx.shared::cta.b64 _, [%m], 128;
  @%p cp.async.bulk.tensor.1d.shared::cluster.global.mbarrier::complete_tx::bytes [%a], [%d, {{2}}], [%m];
W: mbarrier.try_wait.parity.shared::cta.b64 %q, [%m], 0; @!%q bra W;
  mad.lo.u32 %a, %t, 4, %a; ld.shared.b32 %x, [%a]; st.global.b32 [%o], %x; ret;
}}"""


class TestWhereMapsLie:
    @pytest.mark.parametrize(
        "place",
        [
            "mov.b64 %d, map; cvta.param.u64 %d, %d; prefetch.tensormap [%d];",
            "mov.b64 %d, in_global; cvta.global.u64 %e, %d; "
            + "".join(f"ld.param.b64 %v, [map+{k}]; st.global.b64 [%d+{k}], %v;" for k in range(0, 128, 8))
            + "fence.proxy.tensormap::generic.release.gpu; fence.proxy.tensormap::generic.acquire.gpu [%e], 128;",
        ],
        ids=["parameter", "global"],
    )
    def test_load(self, place: str) -> None:
        x, out = np.arange(64, dtype=np.uint32), np.zeros(32, np.uint32)
        on_hopper(PLACES.format(place=place), [TensorMap(x, 2, [64], [], [32]), out])
        assert out.tolist() == list(range(2, 34))

    @pytest.mark.emulator_only("errors")
    @pytest.mark.parametrize(
        ("place", "message"),
        [
            ("mov.b64 %d, in_const; cvta.const.u64 %d, %d; prefetch.tensormap [%d];", "is given is no tensor map"),
            ("cvt.u64.u32 %d, %a; cvta.shared.u64 %d, %d;", "none of global, constant or parameter memory"),
            ("mov.b64 %d, map; cvta.param.u64 %d, %d; add.u64 %d, %d, 32;", "no multiple of 64"),
        ],
        ids=["empty", "shared", "misaligned"],
    )
    def test_what_is_no_map(self, place: str, message: str) -> None:
        x, out = np.arange(64, dtype=np.uint32), np.zeros(32, np.uint32)
        with pytest.raises(DeviceError, match=message):
            on_hopper(PLACES.format(place=place), [TensorMap(x, 2, [64], [], [32]), out])

    def test_a_tile_is_read_only_as_far_as_it_goes_out(self) -> None:
        """Rows of a tile that lie outside of the tensor need not have been written."""
        x = np.zeros((4, 8), np.uint32)
        m = TensorMap(x, 2, [8, 4], [32], [8, 8])
        body = """mov.u32 %x, 7; mad.lo.u32 %b, %t, 4, %a; st.shared.b32 [%b], %x;
  fence.proxy.async.shared::cta; bar.sync 0;
  @%p cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%d, {%c0, %c1}], [%a];
  @%p cp.async.bulk.commit_group; @%p cp.async.bulk.wait_group 0;"""
        on_hopper(kernel(body, 256, 2), [m, np.zeros(8, np.uint32), coordinates([0, 0])])
        assert x.tolist() == [[7] * 8] * 4


REPLACE = """.visible .entry kernel(.param .u64 data, .param .u64 scratch, .param .u64 tile_data) {{
  .reg .pred %p, %q; .reg .b32 %t, %a, %m, %x; .reg .b64 %d, %e, %o, %s; .shared .align 128 .b8 map[128];
  .shared .align 1024 .b8 tile[1024]; .shared .align 8 .b64 bar;
  mov.u32 %t, %tid.x; mov.u32 %a, map; mov.u32 %m, bar; setp.eq.u32 %p, %t, 0; mov.u32 %x, 0; mad.lo.u32 %a, %t, 4, %a;
  st.shared.b32 [%a], %x; @%p mbarrier.init.shared::cta.b64 [%m], 1; @%p fence.proxy.async; bar.sync 0;
  ld.param.u64 %d, [data]; ld.param.u64 %e, [scratch]; cvta.to.global.u64 %e, %e; mov.u64 %s, map; @!%p bra MADE;
  {replace}
MADE: bar.warp.sync -1;
  tensormap.cp_fenceproxy.global.shared::cta.tensormap::generic.release.gpu.sync.aligned [%e], [%s], 128;
  fence.proxy.tensormap::generic.acquire.gpu [%e], 128;
  mov.u32 %a, tile; ld.param.u64 %o, [tile_data]; mad.wide.u32 %o, %t, 4, %o;
  @%p mbarrier.arrive.expect_tx.shared::cta.b64 _, [%m], 1024;
  @%p cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%a], [%e, {{1, 3}}], [%m];
W: mbarrier.try_wait.parity.shared::cta.b64 %q, [%m], 0; @!%q bra W;
  mad.lo.u32 %a, %t, 4, %a;
L: ld.shared.b32 %x, [%a]; st.global.b32 [%o], %x; add.u32 %a, %a, 128; add.u64 %o, %o, 128; add.u32 %t, %t, 32;
  setp.lt.u32 %q, %t, 256; @%q bra L; ret;
}}"""
FIELDS = {
    "global_address": "b64 [%s], %d", "rank": "b32 [%s], 1", "box_dim 0": "b32 [%s], 0, 16",
    "box_dim 1": "b32 [%s], 1, 32",
    "global_dim 0": "b32 [%s], 0, 20", "global_dim 1": "b32 [%s], 1, 20", "global_stride": "b64 [%s], 0, 96",
    "element_stride 0": "b32 [%s], 0, 1", "element_stride 1": "b32 [%s], 1, 2", "elemtype": "b32 [%s], 0x7",
    "interleave_layout": "b32 [%s], 0x0", "swizzle_mode": "b32 [%s], 0x2", "fill_mode": "b32 [%s], 0x1",
}  # fmt: skip


class TestReplace:
    """Tensor maps that a program makes, from nothing, field by field."""

    def run(self, fields: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
        text = "\n".join(f"tensormap.replace.tile.{f.split()[0]}.shared::cta.b1024.{v};" for f, v in fields.items())
        x, out = np.arange(20 * 24, dtype=np.float32).reshape(20, 24), np.zeros(1024, np.uint8)
        on_hopper(REPLACE.format(replace=text), [x, np.zeros(128, np.uint8), out], within=but_nan("f32"), fresh=[1])
        return x, out

    def test_the_same_as_the_drivers(self) -> None:
        x, out = self.run(FIELDS)
        m = TensorMap(x, 7, [20, 20], [96], [16, 32], [1, 2], swizzle=2, fill=1)
        assert out.tobytes() == expected(m, x[:, :20], [16, 16], [1, 3]).tobytes()

    @pytest.mark.emulator_only("errors")
    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            ("rank", "b32 [%s], 5", "can't have 5 as its rank"),
            ("box_dim 0", "b32 [%s], 0, 257", "can't have 257 as its box_dim"),
            ("global_stride", "b64 [%s], 0, 72", "can't have 72 as its global_stride"),
            ("element_stride 1", None, "lacks fields"),
            ("global_address", "b64 [%s+64], %d", "out of bounds|no tensor map|never written"),
        ],
    )
    def test_what_is_wrong(self, field: str, value: str | None, message: str) -> None:
        fields = FIELDS | {field: value}
        with pytest.raises(DeviceError, match=message):
            self.run({f: v for f, v in fields.items() if v is not None})


def encode(**changed: object) -> None:
    x = np.zeros((64, 64), np.float32)
    given = {"array": x, "type": 7, "dims": [64, 64], "strides": [256], "box": [32, 16], "swizzle": 3} | changed
    TensorMap(**given).encode(emulator(), x.ctypes.data // 64 * 64 + int(changed.get("fill", 0) == 7))


WRONG = {
    "no such type": {"type": 16},
    "rank 0": {"dims": [], "strides": [], "box": []},
    "rank 6": {"dims": [4] * 6, "strides": [16] * 5, "box": [4] * 6},
    "a dimension of 0": {"dims": [64, 0]},
    "a dimension above 2^32": {"dims": [64, 2**32 + 1]},
    "a stride that is no multiple of 16": {"strides": [264]},
    "a stride of 2^40": {"strides": [2**40]},
    "a box of 0": {"box": [32, 0]},
    "a box above 256": {"box": [32, 257]},
    "a row of 8 bytes": {"box": [2, 16], "swizzle": 0},
    "a row larger than the swizzle": {"box": [32, 16], "swizzle": 2},
    "an element stride of 0": {"element_strides": [1, 0]},
    "an element stride of 9": {"element_strides": [1, 9]},
    "no such swizzle": {"swizzle": 9},
    "NaN for integers": {"type": 2, "fill": 1},
    "no such fill": {"fill": 2},
    "interleaved in two dimensions": {"interleave": 1, "swizzle": 0},
    "interleaved by 32 bytes, swizzled by 128": {
        "dims": [8, 8, 8], "strides": [32, 256], "box": [8, 8, 8], "interleave": 2,
    },
    "im2col of two dimensions": {"corners": ([], []), "box": (8, 8)},
    "im2col with 300 channels": {
        "dims": [8, 8, 8], "strides": [32, 256], "box": (300, 8), "corners": ([0], [0]), "swizzle": 0,
    },
    "im2col with 2000 pixels": {
        "dims": [8, 8, 8], "strides": [32, 256], "box": (8, 2000), "corners": ([0], [0]), "swizzle": 0,
    },
    "im2col with a corner too far": {
        "dims": [8] * 4, "strides": [32, 256, 2048], "box": (8, 8), "corners": ([0, 0], [200, 0]), "swizzle": 0,
    },
}  # fmt: skip


@pytest.mark.emulator_only("errors, and nothing runs")
class TestEncoding:
    def test_what_is_right_passes(self) -> None:
        encode()

    @pytest.mark.parametrize("what", WRONG)
    def test_what_is_wrong_is_refused(self, what: str) -> None:
        with pytest.raises(DeviceError, match="tensor map") as error:
            encode(**WRONG[what])
        assert error.value.code == 1

    def test_interleaved_maps_are_not_known(self) -> None:
        with pytest.raises(DeviceError, match="interleaved") as error:
            encode(dims=[8, 8, 8], strides=[32, 256], box=[8, 8, 8], interleave=1, swizzle=0)
        assert error.value.code == 801
