"""wmma on the emulator: loads, products and stores of tiles in every layout, against products in double precision."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from neurokern.backends import emulation
from neurokern.testing import fragments
from neurokern.testing.fragments import BITS
from neurokern.testing.ptx import DeviceError, emulator
from neurokern.testing.ptxas import complaint
from neurokern.testing.twins import sums
from neurokern.testing.wgmma import HEADER, names

pytestmark = [
    pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing())),
    pytest.mark.usefixtures("snippets"),
]

SIXTEEN = ((16, 16), (8, 32), (32, 8))
# type of A and B, of C, of D; M and N; K; registers of A, of B
CASES = [
    *(("f16", c, d, mn, 16, 8, 8) for mn in SIXTEEN for c, d in itertools.product(("f16", "f32"), repeat=2)),
    *(("bf16", "f32", "f32", (m, n), 16, m // 4, n // 4) for m, n in SIXTEEN),
    ("tf32", "f32", "f32", (16, 16), 8, 4, 4), ("f64", "f64", "f64", (8, 8), 4, 1, 1),
    *((t, "s32", "s32", (m, n), 16, m // 8, n // 8) for m, n in SIXTEEN for t in ("s8", "u8")),
    ("s4", "s32", "s32", (8, 8), 32, 1, 1), ("u4", "s32", "s32", (8, 8), 32, 1, 1),
    ("b1", "s32", "s32", (8, 8), 128, 1, 1),
]  # fmt: skip
TORCH = {"f16": torch.float16, "f32": torch.float32, "f64": torch.float64, "s32": torch.int32}


def draw(
    kind: str, shape: tuple[int, int], generator: np.random.Generator, whole: bool
) -> tuple[np.ndarray, np.ndarray]:
    if kind == "f64":
        x = generator.integers(-2, 3, shape).astype(float) if whole else generator.standard_normal(shape)
        return x.view(np.int64), x
    return fragments.draw(kind, shape, generator, whole)


def stored(codes: np.ndarray, bits: int, stride: int) -> np.ndarray:
    """Bytes of rows `stride` elements apart, the rest of which is not to be touched."""
    wide = np.full((len(codes), stride), 2**bits - 1 if bits < 64 else -1, np.int64)
    wide[:, : codes.shape[1]] = codes
    if bits < 8:
        per = 8 // bits
        parts = wide.reshape(-1, per) << np.arange(per) * bits
        return parts.sum(-1).astype(np.uint8)
    return wide.astype({8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}[bits]).view(np.uint8).reshape(-1)


def kernel(case: tuple, layouts: str, spaces: tuple[str, str], strides: tuple[int, ...], operation: str = "") -> str:
    kind, start, result, (m, n), k, count_a, count_b = case
    row, col = ({"r": "row", "c": "col"}[x] for x in layouts[:2])
    c_layout = {"r": "row", "c": "col"}[layouts[2]]
    wide = kind == "f64"
    size = {"f16": m * n // 64, "f32": m * n // 32, "s32": m * n // 32, "f64": m * n // 32}
    registers = "f64" if wide else "b32"
    types = {"f16": f"{result}.{start}"}.get(kind, f"{result}.{kind}.{kind}.{start}")
    shape = f"m{m}n{n}k{k}"
    source = "[%s]" if spaces[0] == ".shared" else "[%p]"
    stride = ", %l" if strides[0] else ""
    scale = "".join(f"add.f64 %d{i}, %d{i}, %d{i};" for i in range(size["f64"])) if wide else ""
    copy = ""
    if spaces[0] == ".shared":
        copy = """mov.u32 %s, tile; mov.u32 %i, %tid.x; mad.lo.u32 %s, %i, 16, %s; mad.wide.u32 %q, %i, 16, %p;
LOOP: setp.ge.u32 %x, %i, 256; @%x bra DONE; ld.global.v4.b32 {%e0, %e1, %e2, %e3}, [%q]; st.shared.v4.b32 [%s],
  {%e0, %e1, %e2, %e3}; add.u32 %i, %i, 32; add.u32 %s, %s, 512; add.u64 %q, %q, 512; bra LOOP;
DONE: bar.warp.sync -1; mov.u32 %s, tile;"""
    return f"""{HEADER}
.visible .entry kernel(.param .u64 a, .param .u64 b, .param .u64 c, .param .u64 d) {{
  .reg .{registers} %a<{count_a}>, %b<{count_b}>, %c<{size[start]}>, %d<{size[result]}>;
  .reg .b32 %s, %i, %l, %e<4>; .reg .b64 %p, %q; .reg .pred %x; .shared .align 32 .b8 tile[4096];
  ld.param.u64 %p, [a]; {copy} mov.u32 %l, {strides[0]};
  wmma.load.a.sync.aligned.{row}.{shape}{spaces[0]}.{kind} {names("a", count_a)}, {source}{stride};
  ld.param.u64 %p, [b]; mov.u32 %l, {strides[1]};
  wmma.load.b.sync.aligned.{col}.{shape}{spaces[1]}.{kind} {names("b", count_b)}, [%p]{stride};
  ld.param.u64 %p, [c]; mov.u32 %l, {strides[2]};
  wmma.load.c.sync.aligned.{c_layout}.{shape}{spaces[1]}.{start} {names("c", size[start])}, [%p]{stride};
  wmma.mma{operation}.sync.aligned.{row}.{col}.{shape}.{types} {names("d", size[result])}, {names("a", count_a)},
    {names("b", count_b)}, {names("c", size[start])};
  {scale}
  ld.param.u64 %p, [d]; mov.u32 %l, {strides[3]};
  wmma.store.d.sync.aligned.{c_layout}.{shape}{spaces[1]}.{result} [%p], {names("d", size[result])}{stride};
  ret;
}}"""


@pytest.mark.parametrize("layouts", ["rcr", "ccc", "rrc", "crr"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"m{c[3][0]}n{c[3][1]}k{c[4]}-{c[0]}-{c[1]}-{c[2]}")
def test_tiles(case: tuple, layouts: str, seed: int) -> None:
    """With gaps between rows and without, from global, shared and generic addresses; some numbers with sums that are
    exact in any order."""
    kind, start, result, (m, n), k, _, _ = case
    bits = 64 if kind == "f64" else BITS[kind]
    if bits < 8 and layouts != "rcr":
        pytest.skip("PTX has no such layout")
    generator = np.random.default_rng(seed)
    ways = ((0, (".global", ".global"), False), (32, (".shared", ""), True), (128, ("", ".global"), True))
    for gap, spaces, whole in ways:
        codes_a, a = draw(kind, (m, k), generator, whole)
        codes_b, b = draw(kind, (n, k), generator, whole)
        c = torch.from_numpy(generator.integers(-99, 99, (m, n)).astype(float)).to(TORCH[start])
        extent = (k if layouts[0] == "r" else m, k if layouts[1] == "c" else n, n if layouts[2] == "r" else m)
        strides = [e + gap for e in (*extent, extent[2])]
        image_a = stored(codes_a if layouts[0] == "r" else codes_a.T, bits, strides[0])
        image_a = np.concatenate([image_a, np.zeros(4096, np.uint8)])[: max(4096, len(image_a))]
        image_b = stored(codes_b if layouts[1] == "c" else codes_b.T, bits, strides[1])
        if len(image_a) > 4096:
            spaces = ("", spaces[1])
        held = c if layouts[2] == "r" else c.T
        size = c.element_size()
        ints = {2: torch.int16, 4: torch.int32, 8: torch.int64}[size]
        image_c = stored(held.contiguous().view(ints).numpy().astype(np.int64), 8 * size, strides[2])
        out = torch.full((len(held), strides[3]), 77, dtype=TORCH[result])
        image_d = out.view(torch.uint8).numpy().reshape(-1)
        for operation in (".and.popc", ".xor.popc") if kind == "b1" else ("",):
            text = kernel(case, layouts, spaces, strides if gap else (0, 0, 0, 0), operation)
            assert complaint(text) == ""
            scale = 2 if kind == "f64" else 1
            within = sums(kind, result, scale * a, b.T, scale * c.double())
            emulator().launch(text, [image_a, image_b, image_c, image_d], within=within)
            product = a @ b.T if operation != ".xor.popc" else (a[:, None] != b[None]).sum(-1)
            want = torch.from_numpy(product + c.double().numpy()) * (2 if kind == "f64" else 1)
            got = out[:, : held.shape[1]].double()
            got = got if layouts[2] == "r" else got.T
            half = {"f16": 2.0**-11, "f32": 2.0**-24, "f64": 2.0**-50, "s32": 0.0}[result]
            assert (got - want).abs().sub(half * 1.0001 * want.abs() + 2.0**-25 * (result != "s32")).max() <= 0
            assert (out[:, held.shape[1] :] == 77).all()


def test_sums_saturate(seed: int) -> None:
    case = ("s8", "s32", "s32", (16, 16), 16, 2, 2)
    generator = np.random.default_rng(seed)
    (codes_a, a), (codes_b, b) = (fragments.draw("s8", (16, 16), generator) for _ in range(2))
    c = np.where(np.arange(16)[:, None] % 2 == 0, 2**31 - 3, -(2**31) + 3) * np.ones(16, np.int64)
    for suffix in ("", ".satfinite"):
        d = np.zeros((16, 16), np.int32)
        text = kernel(case, "rcr", (".global", ".global"), (0, 0, 0, 0)).replace("s8.s8.s32", f"s8.s8.s32{suffix}")
        assert complaint(text) == ""
        images = [stored(codes_a, 8, 16), stored(codes_b, 8, 16), c.astype(np.int32)]
        emulator().launch(text, [*images, d])
        want = (a @ b.T).astype(np.int64) + c
        want = np.clip(want, -(2**31), 2**31 - 1) if suffix else (want + 2**31) % 2**32 - 2**31
        np.testing.assert_array_equal(d, want)


@pytest.mark.emulator_only("errors")
def test_tiles_out_of_bounds() -> None:
    """An access behind the end is found, with the instruction that makes it."""
    case = CASES[0]
    text = kernel(case, "rcr", (".global", ".global"), (0, 0, 0, 0))
    a, b, c, d = (np.zeros(512, np.uint8) for _ in range(4))
    emulator().launch(text, [a, b, c, d])
    with pytest.raises(DeviceError, match=r"wmma\.load\.b.*out of bounds"):
        emulator().launch(text, [a, b[:-16].copy(), c, d])
    with pytest.raises(DeviceError, match=r"wmma\.store\.d.*out of bounds"):
        emulator().launch(text, [a, b, c, d[:-2].copy()])
