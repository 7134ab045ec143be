"""wgmma on the emulator against products in double precision: types, shapes, every canonical layout, descriptors."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from neurokern.backends import emulation
from neurokern.testing import wgmma
from neurokern.testing.ptx import DeviceError
from neurokern.testing.twins import sums
from neurokern.testing.wgmma import SYNC, TORCH, Layout, draw, exact, names, put, run, spacious

pytestmark = [
    pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing())),
    pytest.mark.usefixtures("snippets"),
]

FENCE = "wgmma.fence.sync.aligned;"
CASES = [
    *(("f16", "f16", t) for t in ("f32", "f16")), ("bf16", "bf16", "f32"), ("tf32", "tf32", "f32"),
    *(("e4m3", b, t) for b in ("e4m3", "e5m2") for t in ("f32", "f16")), ("e5m2", "e4m3", "f32"),
    ("e5m2", "e5m2", "f32"), *((a, b, "s32") for a in ("s8", "u8") for b in ("s8", "u8")),
]  # fmt: skip


def instruction(
    n: int, a: str, b: str, total: str, scale: str = "%s", signs: tuple[int, int] = (1, 1),
    trans: tuple[int, ...] = (0, 0), left: str = "%x", right: str = "%y", suffix: str = "",
) -> str:  # fmt: skip
    k = 32 // TORCH[a].itemsize
    count = n // 4 if total == "f16" else n // 2
    immediates = [*map(str, signs)] if total != "s32" else []
    if TORCH[a].itemsize == 2:
        immediates += map(str, trans)
    tail = "".join(f", {i}" for i in immediates)
    kind = f"m64n{n}k{k}.{total}.{a}.{b}{suffix}"
    return f"wgmma.mma_async.sync.aligned.{kind} {names('d', count)}, {left}, {right}, {scale}{tail};"


class Problem:
    """Operands in shared memory, with their layouts and descriptors, and accumulators."""

    def __init__(
        self, n: int, types: tuple[str, str, str], layouts: tuple[Layout, Layout], seed: int, whole: bool = False
    ) -> None:
        self.n, (self.ta, self.tb, self.total) = n, types
        g = torch.Generator().manual_seed(seed)
        size = TORCH[self.ta].itemsize
        k = 32 // size
        self.a, self.b = draw(self.ta, (64, k), g, whole), draw(self.tb, (n, k), g, whole)
        self.c = draw(self.total, (64, n), g, whole)
        addresses_a = layouts[0].addresses(64, k, size)
        start = -(-(int(addresses_a.max()) + 16) // 1024) * 1024
        addresses_b = layouts[1].addresses(n, k, size, start)
        self.image = np.full(-(-(int(addresses_b.max()) + 16) // 16) * 16, 0x5A, np.uint8)
        put(self.image, self.a, addresses_a), put(self.image, self.b, addresses_b)
        self.x, self.y = layouts[0].descriptor(0), layouts[1].descriptor(start)
        self.places = row, column = wgmma.accumulator_places(n, self.total == "f16")
        c = self.c[torch.from_numpy(row + 0 * column), torch.from_numpy(column + 0 * row)].contiguous()
        self.d = c.view(torch.uint8).numpy().reshape(128, -1).view(np.uint32).copy()

    def product(self) -> torch.Tensor:
        return exact(self.a, self.ta) @ exact(self.b, self.tb).T

    def run(self, body: str, registers: bool = False, scale: int = 1) -> None:
        a = wgmma.a_fragments(self.a) if registers else None
        within = sums(self.ta, self.total, self.a.double(), self.b.double().T, self.c.double(), self.places)
        run(body, self.d, self.image, a, self.x, self.y, scale, within=within)

    def check(self, want: torch.Tensor) -> None:
        wgmma.check(self.d, want, self.total, self.n)


def plain(n: int, types: tuple[str, str, str]) -> tuple[Layout, Layout]:
    size = TORCH[types[0]].itemsize
    return spacious(128, False, 64, 32 // size, size), spacious(128, False, n, 32 // size, size)


@pytest.mark.parametrize("registers", [False, True], ids=["shared", "registers"])
@pytest.mark.parametrize("types", CASES, ids="-".join)
def test_types(types: tuple[str, str, str], registers: bool, seed: int) -> None:
    """Shapes of an odd number of 8 columns where the type has them, A from both places; random numbers, and whole ones,
    whose sums are exact in any order."""
    for n, whole in itertools.product((8, 24, 176, 256), (False, True)):
        p = Problem(n, types, plain(n, types), seed, whole)
        left = names("a", 4) if registers else "%x"
        p.run(f"{FENCE} {instruction(n, *types, left=left, trans=(0,) if registers else (0, 0))} {SYNC}", registers)
        p.check(p.product() + p.c.double())


@pytest.mark.parametrize("n", range(8, 257, 8))
def test_every_width(n: int, seed: int) -> None:
    types = ("bf16", "bf16", "f32")
    p = Problem(n, types, plain(n, types), seed)
    p.run(f"{FENCE} {instruction(n, *types)} {SYNC}")
    p.check(p.product() + p.c.double())


@pytest.mark.parametrize("swizzle_b", wgmma.MODES)
@pytest.mark.parametrize("swizzle_a", wgmma.MODES)
@pytest.mark.parametrize("majors", list(itertools.product([False, True], repeat=2)), ids=["kk", "kn", "mk", "mn"])
def test_layouts(majors: tuple[bool, bool], swizzle_a: int, swizzle_b: int, seed: int) -> None:
    for n, kind in ((96, "f16"), (256, "bf16"), (8, "bf16")):
        types = (kind, kind, "f32")
        layouts = spacious(swizzle_a, majors[0], 64, 16, 2), spacious(swizzle_b, majors[1], n, 16, 2)
        p = Problem(n, types, layouts, seed)
        p.run(f"{FENCE} {instruction(n, *types, trans=(int(majors[0]), int(majors[1])))} {SYNC}")
        p.check(p.product() + p.c.double())


@pytest.mark.parametrize("kind", ["tf32", "e4m3", "s8"])
@pytest.mark.parametrize("swizzle", wgmma.MODES)
def test_layouts_of_other_widths(kind: str, swizzle: int, seed: int) -> None:
    """Types that lie K-major alone."""
    types = (kind, kind, "s32" if kind == "s8" else "f32")
    size = TORCH[kind].itemsize
    p = Problem(32, types, (spacious(swizzle, False, 64, 32 // size, size),) * 2, seed)
    p.run(f"{FENCE} {instruction(32, *types)} {SYNC}")
    p.check(p.product() + p.c.double())


@pytest.mark.parametrize("swizzle", [128, 64, 32])
@pytest.mark.parametrize("base", [0, 1, 5])
def test_a_pattern_that_begins_off_its_boundary(swizzle: int, base: int, seed: int) -> None:
    """The base offset says at which 128 bytes the pattern begins."""
    g = torch.Generator().manual_seed(seed)
    a, b = draw("bf16", (64, 16), g), draw("bf16", (8, 16), g)
    layout = Layout(swizzle, False, 16, 8 * swizzle)
    first, second = 128 * base, 16384 + 128 * base
    image = np.full(32768, 0x5A, np.uint8)
    put(image, a, layout.addresses(64, 16, 2, first, base)), put(image, b, layout.addresses(8, 16, 2, second, base))
    d = np.zeros((128, 4), np.uint32)
    body = f"{FENCE} {instruction(8, 'bf16', 'bf16', 'f32')} {SYNC}"
    within = sums("bf16", "f32", a.double(), b.double().T, 0.0, wgmma.accumulator_places(8, False))
    run(body, d, image, None, layout.descriptor(first, base), layout.descriptor(second, base), within=within)
    wgmma.check(d, a.double() @ b.double().T, "f32", 8)


def test_steps_along_k(seed: int) -> None:
    """A loop over K as kernels write it: the start address moves by 32 bytes within the atoms of 128."""
    g = torch.Generator().manual_seed(seed)
    a, b = draw("f16", (64, 64), g), draw("f16", (40, 64), g)
    layout = Layout(128, False, 16, 1024)
    image = np.zeros(8192 + 5120, np.uint8)
    put(image, a, layout.addresses(64, 64, 2)), put(image, b, layout.addresses(40, 64, 2, 8192))
    d = np.full((128, 20), 0x7FC00000, np.uint32)  # NaN, which scale-d = 0 leaves out
    step = "add.s64 %x, %x, 2; add.s64 %y, %y, 2;"
    first, rest = (instruction(40, "f16", "f16", "f32", scale) for scale in ("0", "1"))
    x, y, within = layout.descriptor(0), layout.descriptor(8192), sums("f16", "f32", a.double(), b.double().T)
    run(f"{FENCE} {first} {(step + rest) * 3} {SYNC}", d, image, None, x, y, within=within)
    want = torch.zeros(64, 40, dtype=torch.float64)
    for k in range(0, 64, 16):  # each product is rounded to single precision
        want = (want + a[:, k : k + 16].double() @ b[:, k : k + 16].double().T).float().double()
    row, column = wgmma.accumulator_places(40, False)
    expected = want.numpy()[row, column]
    assert np.abs(d.view(np.float32) - expected).max() <= 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize("scale", [0, 1, -1], ids=["drops", "adds", "by predicate"])
@pytest.mark.parametrize("signs", list(itertools.product([1, -1], repeat=2)), ids=str)
def test_scales(signs: tuple[int, int], scale: int, seed: int) -> None:
    types = ("bf16", "bf16", "f32")
    for registers in (False, True):
        p = Problem(16, types, plain(16, types), seed)
        left, trans = (names("a", 4), (0,)) if registers else ("%x", (0, 0))
        text = instruction(16, *types, "!%s" if scale < 0 else "%s", signs, trans, left)
        p.run(f"{FENCE} {text} {SYNC}", registers, abs(scale))
        p.check(signs[0] * signs[1] * p.product() + (scale > 0) * p.c.double())


def test_sums_of_integers_wrap_or_saturate(seed: int) -> None:
    types = ("u8", "s8", "s32")
    for suffix in ("", ".satfinite"):
        p = Problem(16, types, plain(16, types), seed)
        p.c = torch.where(torch.arange(64)[:, None] % 2 == 0, 2**31 - 5, -(2**31) + 5).expand(64, 16).to(torch.int32)
        row, column = wgmma.accumulator_places(16, False)
        p.d = p.c.numpy()[row, column].view(np.uint32).copy()
        p.run(f"{FENCE} {instruction(16, *types, suffix=suffix)} {SYNC}")
        want = p.product() + p.c.double()
        p.check(want.clamp(-(2**31), 2**31 - 1) if suffix else (want + 2**31) % 2**32 - 2**31)


def test_bits(seed: int) -> None:
    """and.popc of 256 bits to an element of the sum."""
    generator = np.random.default_rng(seed)
    a, b = generator.integers(0, 2, (64, 256)), generator.integers(0, 2, (8, 256))
    layout = Layout(128, False, 16, 1024)
    image = np.zeros(8192 + 1024, np.uint8)
    for matrix, start in ((a, 0), (b, 8192)):
        data = torch.from_numpy(np.packbits(matrix, axis=1, bitorder="little"))
        put(image, data, layout.addresses(len(matrix), 32, 1, start))
    d = np.zeros((128, 4), np.uint32)
    body = "wgmma.mma_async.sync.aligned.m64n8k256.s32.b1.b1.and.popc {%d0, %d1, %d2, %d3}, %x, %y, 0;"
    run(f"{FENCE} {body} {SYNC}", d, image, None, layout.descriptor(0), layout.descriptor(8192))
    wgmma.check(d, torch.from_numpy(a @ b.T).double(), "s32", 8)


def test_numbers_at_the_edges() -> None:
    """Infinities, NaN, subnormal numbers and the largest ones of every 8-bit format, one at a time against ones."""
    for kind in ("e4m3", "e5m2"):
        types = (kind, kind, "f32")
        p = Problem(8, types, (Layout(128, False, 16, 1024),) * 2, 0)
        b = torch.zeros(8, 32).to(TORCH[kind])
        b[:, 0] = 1
        for first in range(0, 256, 64):
            codes = torch.arange(first, first + 64, dtype=torch.uint8)
            a = torch.zeros(64, 32, dtype=torch.uint8)
            a[:, 0] = codes
            put(p.image, a, Layout(128, False, 16, 1024).addresses(64, 32, 1))
            put(p.image, b, Layout(128, False, 16, 1024).addresses(8, 32, 1, (p.y & 0x3FFF) << 4))
            p.d[:] = 0
            p.run(f"{FENCE} {instruction(8, *types)} {SYNC}")
            row, _ = wgmma.accumulator_places(8, False)
            want = codes.view(TORCH[kind]).float().numpy()[row]
            np.testing.assert_array_equal(p.d.view(np.float32), want)


def test_several_warpgroups_each_for_itself(seed: int) -> None:
    """Two warpgroups with accumulators of their own, products in two groups, the older one awaited first."""
    types = ("bf16", "bf16", "f32")
    p = Problem(8, types, plain(8, types), seed)
    d = np.concatenate([p.d, p.d])
    twice = instruction(8, *types)
    body = f"""{FENCE} {twice} wgmma.commit_group.sync.aligned; {twice} wgmma.commit_group.sync.aligned;
  wgmma.wait_group.sync.aligned 1; wgmma.wait_group.sync.aligned 0;"""
    within = sums("bf16", "f32", torch.cat([p.a, p.a], 1).double(), torch.cat([p.b, p.b], 1).double().T, p.c.double())
    run(body, d, p.image, None, p.x, p.y, threads=256, within=within)
    for half in (d[:128], d[128:]):
        want = (p.product() + p.c.double()).float().double() + p.product()
        row, column = wgmma.accumulator_places(8, False)
        np.testing.assert_allclose(half.view(np.float32), want.numpy()[row, column], rtol=1e-6, atol=1e-6)


@pytest.mark.emulator_only("counters")
@pytest.mark.parametrize("swizzle", wgmma.MODES)
@pytest.mark.parametrize("majors", [(False, False), (True, True)], ids=["k", "mn"])
def test_counters(majors: tuple[bool, bool], swizzle: int, seed: int) -> None:
    """Operands are read once for the four warps, and a core matrix of any layout meets every bank once."""
    n, types = 64, ("bf16", "bf16", "f32")
    p = Problem(n, types, tuple(spacious(swizzle, m, r, 16, 2) for m, r in zip(majors, (64, n), strict=True)), seed)
    counters = []
    for body in ("", f"{FENCE} {instruction(n, *types, trans=tuple(map(int, majors)))} {SYNC}"):
        emulation.record(True)
        p.run(body)
        (launch,) = emulation.take()
        emulation.record(False)
        counters.append(launch.counters)
    more = {k: counters[1][k] - counters[0][k] for k in counters[0]}
    assert more["shared bytes"] == (64 + n) * 32
    assert more["bank conflicts"] == 0
    assert more["matrix instructions"] == 4


REFUSED = {
    "a shape that is not": "wgmma.mma_async.sync.aligned.m64n12k16.f32.bf16.bf16 {%d0}, %x, %y, 1, 1, 1, 0, 0;",
    "types that do not fit": "wgmma.mma_async.sync.aligned.m64n8k16.f16.bf16.bf16 {%d0, %d1}, %x, %y, 1, 1, 1, 0, 0;",
    "too few accumulators": "wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%d0, %d1}, %x, %y, 1, 1, 1, 0, 0;",
    "a scale of 2": "wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%d0, %d1, %d2, %d3}, %x, %y, 1, 2, 1, 0, 0;",
    "tf32 transposed":
        "wgmma.mma_async.sync.aligned.m64n8k8.f32.tf32.tf32 {%d0, %d1, %d2, %d3}, %x, %y, 1, 1, 1, 0, 1;",
}  # fmt: skip


@pytest.mark.emulator_only("errors")
@pytest.mark.parametrize("what", REFUSED)
def test_refused_when_loaded(what: str) -> None:
    text = wgmma.kernel(REFUSED[what], 4)
    assert wgmma.complaint(text) != "" or wgmma.complaint(wgmma.kernel("", 4)) == ""
    with pytest.raises(DeviceError, match=r"the emulator has no 'wgmma"):
        wgmma.emulator().launch(text, [np.zeros(16, np.uint8), 16, np.zeros(512, np.uint32), np.zeros(4), 0, 0, 0])
