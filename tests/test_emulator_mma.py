"""mma.sync of rare types and shapes, and with a sparse A, on the emulator against products in double precision."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from neurokern.backends import emulation
from neurokern.testing import fragments, wgmma
from neurokern.testing.fragments import BITS
from neurokern.testing.ptx import DeviceError, emulator
from neurokern.testing.ptxas import complaint
from neurokern.testing.twins import Within, sums
from neurokern.testing.wgmma import HEADER, names

pytestmark = [
    pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing())),
    pytest.mark.usefixtures("snippets"),
]

FP8 = list(itertools.product(["e4m3", "e5m2"], repeat=2))
BYTES = list(itertools.product(["s8", "u8"], repeat=2))
NIBBLES = list(itertools.product(["s4", "u4"], repeat=2))
# rows, k, types of A and B, type of the sums
DENSE = [
    *((16, k, a, b, t) for k in (16, 32) for a, b in FP8 for t in ("f32", "f16")),
    *((8, 16, a, b, "s32") for a, b in BYTES), *((16, k, a, b, "s32") for k in (16, 32) for a, b in BYTES),
    *((m, k, a, b, "s32") for m, k in ((8, 32), (16, 32), (16, 64)) for a, b in NIBBLES),
    *((m, k, "b1", "b1", "s32") for m, k in ((8, 128), (16, 128), (16, 256))),
]  # fmt: skip
SPARSE = [
    *((k, x, x, t) for k in (16, 32) for x, t in (("f16", "f32"), ("f16", "f16"), ("bf16", "f32"))),
    (8, "tf32", "tf32", "f32"), (16, "tf32", "tf32", "f32"), *((k, a, b, "s32") for k in (32, 64) for a, b in BYTES),
    *((k, a, b, "s32") for k in (64, 128) for a, b in NIBBLES), *((64, a, b, "f32") for a, b in FP8),
]  # fmt: skip


def kernel(instruction: str, counts: tuple[int, int, int, int]) -> str:
    """%a, %b, %c (in and out), %m from arrays of [lane, register]."""
    text = ""
    for name, count in zip("abcm", counts, strict=True):
        text += (
            f".reg .b32 %{name}<{max(1, count)}>; ld.param.u64 %p, [{name}]; mad.wide.u32 %p, %t, {4 * count}, %p;\n"
        )
        if name == "c":
            text += "mov.u64 %q, %p;\n"
        text += "".join(f"ld.global.b32 %{name}{i}, [%p+{4 * i}];" for i in range(count))
    stores = "".join(f"st.global.b32 [%q+{4 * i}], %c{i};" for i in range(counts[2]))
    return f"""{HEADER.replace("8.6", "8.7")}
.visible .entry kernel(.param .u64 a, .param .u64 b, .param .u64 c, .param .u64 m) {{
  .reg .b32 %t; .reg .b64 %p, %q; mov.u32 %t, %tid.x; {text}
  {instruction}
  {stores} ret;
}}"""


def check(got: np.ndarray, want: np.ndarray, total: str) -> None:
    rows = len(want)
    row, column = fragments.total_places(rows, total == "f16")
    value = torch.from_numpy(got).view(wgmma.TORCH[total]).view(row.shape if total == "f16" else got.shape).double()
    expected = want[row, column]
    half, least = {"f16": (2.0**-11, 2.0**-25), "f32": (2.0**-24, 2.0**-40), "s32": (0.0, 0.0)}[total]
    assert (np.abs(value.numpy() - expected) <= half * 1.0001 * np.abs(expected) + least).all()


def totals(rows: int, total: str, generator: np.random.Generator, whole: bool) -> tuple[np.ndarray, np.ndarray]:
    """C as a matrix, and as registers."""
    if total == "s32":
        c = torch.from_numpy(generator.integers(-(2**20), 2**20, (rows, 8)).astype(np.int32))
    else:
        x = generator.integers(-9, 10, (rows, 8)).astype(float) if whole else generator.standard_normal((rows, 8))
        c = torch.from_numpy(x).to(wgmma.TORCH[total])
    row, column = fragments.total_places(rows, total == "f16")
    held = c[torch.from_numpy(row), torch.from_numpy(column)].contiguous()
    return c.double().numpy(), held.view(torch.uint8).numpy().reshape(32, -1).view(np.uint32).copy()


def run(
    tail: str, head: str, a: np.ndarray, b: np.ndarray, c: np.ndarray, m: np.ndarray | None = None,
    within: Within | None = None,
) -> None:  # fmt: skip
    lists = ", ".join(names(n, x.shape[1]) for n, x in zip("cabc", (c, a, b, c), strict=True))
    m = np.zeros((32, 0), np.uint32) if m is None else m.reshape(32, 1)
    text = kernel(f"{head} {lists}{tail};", (a.shape[1], b.shape[1], c.shape[1], m.shape[1]))
    assert complaint(text) == ""
    emulator().launch(text, [a, b, c, m if m.size else 0], within=within)


@pytest.mark.parametrize("case", DENSE, ids=lambda c: f"m{c[0]}n8k{c[1]}-{c[2]}-{c[3]}-{c[4]}")
def test_dense(case: tuple, seed: int) -> None:
    """Random numbers, and whole ones, whose sums are exact in any order."""
    m, k, ka, kb, total = case
    generator = np.random.default_rng(seed)
    operations = (".and.popc", ".xor.popc") if ka == "b1" else ("",)
    for operation, whole in itertools.product(operations, [False] if total == "s32" else [False, True]):
        (a, exact_a), (b, exact_b) = (fragments.draw(t, (n, k), generator, whole) for t, n in ((ka, m), (kb, 8)))
        exact_c, c = totals(m, total, generator, whole)
        head = f"mma.sync.aligned.m{m}n8k{k}.row.col.{total}.{ka}.{kb}.{total}{operation}"
        within = sums(ka, total, exact_a, exact_b.T, exact_c, fragments.total_places(m, total == "f16"))
        run("", head, fragments.left(a, BITS[ka]), fragments.right(b, BITS[kb]), c, within=within)
        product = exact_a @ exact_b.T
        if operation == ".xor.popc":
            product = (a[:, None, :] != b[None, :, :]).sum(-1)
        check(c, product + exact_c, total)


@pytest.mark.parametrize("ordered", ["", "::ordered_metadata"], ids=["plain", "ordered"])
@pytest.mark.parametrize("case", SPARSE, ids=lambda c: f"k{c[0]}-{c[1]}-{c[2]}-{c[3]}")
def test_sparse(case: tuple, ordered: str, seed: int) -> None:
    k, ka, kb, total = case
    generator = np.random.default_rng(seed)
    bits = BITS[ka]
    chunks = k // {32: 2, 4: 8}.get(bits, 4)
    for selector, whole in itertools.product(range(16 // chunks), [False] if total == "s32" else [False, True]):
        codes, exact_a, nibbles = fragments.sparse(ka, k, generator, whole)
        b, exact_b = fragments.draw(kb, (8, k), generator, whole)
        exact_c, c = totals(16, total, generator, whole)
        head = f"mma.sp{ordered}.sync.aligned.m16n8k{k}.row.col.{total}.{ka}.{kb}.{total}"
        meta = fragments.metadata(nibbles, bits, selector)
        within = sums(ka, total, exact_a, exact_b.T, exact_c, fragments.total_places(16, total == "f16"))
        run(f", %m0, {selector}", head, fragments.left(codes, bits), fragments.right(b, bits), c, meta, within)
        check(c, exact_a @ exact_b.T + exact_c, total)


@pytest.mark.emulator_only("errors")
def test_metadata_that_names_an_element_twice() -> None:
    """Invalid, and out of order where order is promised: errors that name the chunk."""
    zeros = np.zeros((32, 4), np.uint32)
    good = np.full(32, 0x4E4E4E4E, np.uint32)
    bad, backwards = good.copy(), good.copy()
    bad[5] = 0x4E4E5E4E
    backwards[4] = 0x4E4E1E4E
    head = "mma.sp{}.sync.aligned.m16n8k32.row.col.f32.f16.f16.f32"
    for form in ("", "::ordered_metadata"):
        run(", %m0, 0", head.format(form), zeros, zeros, zeros.copy(), good)
        with pytest.raises(DeviceError, match=r"metadata 0x4e4e5e4e names elements 1 and 1 of chunk 7 of row 1"):
            run(", %m0, 0", head.format(form), zeros, zeros, zeros.copy(), bad)
    run(", %m0, 0", head.format(""), zeros, zeros, zeros.copy(), backwards)
    with pytest.raises(DeviceError, match=r"names elements 1 and 0 of chunk 3 of row 1"):
        run(", %m0, 0", head.format("::ordered_metadata"), zeros, zeros, zeros.copy(), backwards)


def test_sums_saturate(seed: int) -> None:
    generator = np.random.default_rng(seed)
    for kind, k in (("s8", 16), ("u4", 32)):
        (a, exact_a), (b, exact_b) = (fragments.draw(kind, (8, k), generator) for _ in range(2))
        start = np.where(np.arange(8)[:, None] % 2 == 0, 2**31 - 3, -(2**31) + 3) * np.ones(8, int)
        row, column = fragments.total_places(8, False)
        for suffix in ("", ".satfinite"):
            c = start[row, column].astype(np.int32).view(np.uint32)
            head = f"mma.sync.aligned.m8n8k{k}.row.col{suffix}.s32.{kind}.{kind}.s32"
            run("", head, fragments.left(a, BITS[kind]), fragments.right(b, BITS[kind]), c)
            want = exact_a @ exact_b.T + start
            check(c, np.clip(want, -(2**31), 2**31 - 1) if suffix else (want + 2**31) % 2**32 - 2**31, "s32")


@pytest.mark.parametrize(
    ("kind", "partner", "k"), [("f16", "f16", 32), ("bf16", "bf16", 32), ("tf32", "tf32", 16), ("s8", "u8", 64),
                               ("e4m3", "e5m2", 64)])  # fmt: skip
@pytest.mark.parametrize("registers", [False, True], ids=["shared", "registers"])
def test_sparse_wgmma(kind: str, partner: str, k: int, registers: bool, seed: int) -> None:
    """Four warps, each with the metadata of its 16 rows; B in each layout that holds 64 bytes of k."""
    generator = np.random.default_rng(seed)
    bits, total = BITS[kind], "s32" if kind == "s8" else "f32"
    n = 32
    selectors = range(2 if bits >= 16 else 1)
    for selector, swizzle, whole in itertools.product(selectors, (0, 64, 128), (False, True)):
        parts = [fragments.sparse(kind, k, generator, whole) for _ in range(4)]
        codes, exact_a = np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
        b, exact_b = fragments.draw(partner, (n, k), generator, whole)
        dtype = {8: torch.uint8, 16: torch.int16, 32: torch.int32}[bits]
        store = {8: np.uint8, 16: np.uint16, 32: np.uint32}[bits]
        layout_a = wgmma.spacious(32, False, 64, k // 2, bits // 8)
        layout_b = wgmma.spacious(swizzle, False, n, k, bits // 8)
        image = np.zeros(40960, np.uint8)
        matrix_a, matrix_b = (torch.from_numpy(x.astype(store)).view(dtype) for x in (codes, b))
        wgmma.put(image, matrix_a, layout_a.addresses(64, k // 2, bits // 8))
        wgmma.put(image, matrix_b, layout_b.addresses(n, k, bits // 8, 16384))
        d = np.zeros((128, n // 2), np.uint32)
        a = np.concatenate([fragments.left(p[0], bits) for p in parts])
        meta = np.concatenate([fragments.metadata(p[2], bits, selector) for p in parts])
        scales = "" if total == "s32" else ", 1, 1" + (", 0" * (2 - registers) if bits == 16 else "")
        left = names("a", 4) if registers else "%x"
        body = f"""ld.param.u64 %g, [scale]; mad.wide.u32 %g, %t, 4, %g; ld.global.b32 %z, [%g];
  wgmma.fence.sync.aligned; wgmma.mma_async.sp.sync.aligned.m64n{n}k{k}.{total}.{kind}.{partner}
  {names("d", n // 2)}, {left}, %y, %z, {selector}, 0{scales}; {wgmma.SYNC}"""
        text = wgmma.kernel(body, n // 2, 4 if registers else 0)
        assert complaint(text) == ""
        x, y = layout_a.descriptor(0), layout_b.descriptor(16384)
        within = sums(kind, total, exact_a, exact_b.T, 0.0, wgmma.accumulator_places(n, False))
        arguments = [image, len(image), d, a, x, y, meta]
        emulator().launch(text, arguments, block=(128, 1, 1), shared=len(image), within=within)
        wgmma.check(d, torch.from_numpy(exact_a @ exact_b.T), total, n)


QUADS = [(a, b, *t) for a, b in itertools.product(["row", "col"], repeat=2) for t in (("f32", "f32"), ("f16", "f16"),
                                                                                     ("f32", "f16"))]  # fmt: skip


@pytest.mark.parametrize("whole", [False, True], ids=["random", "whole"])
@pytest.mark.parametrize("case", QUADS, ids="-".join)
def test_products_of_quads(case: tuple[str, str, str, str], whole: bool, seed: int) -> None:
    """mma.m8n8k4 of f16: four products at once, the places of elements by the ISA's formulas."""
    order_a, order_b, total, start = case
    g = torch.Generator().manual_seed(seed)
    a, b = wgmma.draw("f16", (4, 8, 4), g, whole), wgmma.draw("f16", (4, 4, 8), g, whole)
    c = wgmma.draw(start, (4, 8, 8), g, whole)
    held_a, held_b = torch.zeros(32, 4, dtype=torch.float16), torch.zeros(32, 4, dtype=torch.float16)
    places = {}
    for lane in range(32):
        quad, upper = lane // 4 % 4, 4 * (lane >= 16)
        for i in range(4):
            held_a[lane, i] = a[quad, lane % 4 + upper, i] if order_a == "row" else a[quad, i % 4 + upper, lane % 4]
            held_b[lane, i] = b[quad, lane % 4, i + upper] if order_b == "row" else b[quad, i, lane % 4 + upper]
        for i in range(8):
            places["f16", lane, i] = quad, lane % 4 + upper, i
            places["f32", lane, i] = quad, (lane & 1) + (i & 2) + upper, (i & 4) + (lane & 2) + (i & 1)
    held_c = torch.stack([torch.stack([c[places[start, lane, i]] for i in range(8)]) for lane in range(32)])
    registers = [x.view(torch.uint8).numpy().reshape(32, -1).view(np.uint32).copy() for x in (held_a, held_b, held_c)]
    out = np.zeros((32, 8 if total == "f32" else 4), np.uint32)
    lists = [names(n, x.shape[1]) for n, x in zip("abc", registers, strict=True)]
    count = out.shape[1]
    text = kernel(
        f".reg .b32 %d<{count}>; mma.sync.aligned.m8n8k4.{order_a}.{order_b}.{total}.f16.f16.{start} "
        f"{names('d', count)}, {', '.join(lists)}; ld.param.u64 %q, [m]; mad.wide.u32 %q, %t, {4 * count}, %q;"
        + "".join(
            f"mov.b32 %c{i}, %d{i};" for i in range(min(count, held_c.shape[1] * 4 // (8 if start == "f16" else 4)))
        ),
        (2, 2, registers[2].shape[1], 0),
    )
    text = (
        text[: text.rindex("st.global.b32 [%q+0]")]
        + "".join(f"st.global.b32 [%q+{4 * i}], %d{i};" for i in range(count))
        + " ret;\n}"
    )
    assert complaint(text) == ""
    emulator().launch(text, [*registers, out], within=sums("f16", total, a.double(), b.double(), c.double()))
    got = torch.from_numpy(out).view(wgmma.TORCH[total]).view(32, 8).double()
    want = a.double() @ b.double() + c.double()
    half, least = {"f16": (2.0**-11, 2.0**-25), "f32": (2.0**-24, 2.0**-40)}[total]
    for lane, i in itertools.product(range(32), range(8)):
        expected = want[places[total, lane, i]]
        assert abs(got[lane, i] - expected) <= half * 1.0001 * abs(expected) + least, (lane, i)
