"""cp.async, ldmatrix, stmatrix and mma on the emulator, by the tables of the PTX ISA."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from neurokern.backends import emulation
from neurokern.testing.ptx import HEADER, emulator
from neurokern.testing.twins import sums

pytestmark = [
    pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing())),
    pytest.mark.usefixtures("snippets"),
]

LANES = range(32)


@pytest.mark.parametrize("trans", ["", ".trans"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_ldmatrix(count: int, trans: str, seed: int) -> None:
    """Rows in drawn places of shared memory; lane l names row l % 8 of matrix l / 8."""
    generator = np.random.default_rng(seed)
    memory = generator.integers(0, 2**16, (64, 8), dtype=np.uint16)
    rows = generator.permutation(64)[:32].astype(np.uint32)
    registers = ", ".join(f"%r{k}" for k in range(count))
    stores = "".join(f"st.global.u32 [%o+{4 * k}], %r{k};" for k in range(count))
    ptx = f"""{HEADER}
.visible .entry kernel(.param .u64 memory, .param .u64 rows, .param .u64 out) {{
  .reg .b32 %r<4>, %t, %a; .reg .b64 %m, %o; .reg .b32 %x<4>; .shared .align 16 .b8 tile[1024];
  mov.u32 %t, %tid.x; ld.param.u64 %m, [memory]; mad.wide.u32 %m, %t, 32, %m;
  mov.u32 %a, tile; mad.lo.u32 %a, %t, 32, %a;
  ld.global.v4.u32 {{%x0, %x1, %x2, %x3}}, [%m]; st.shared.v4.u32 [%a], {{%x0, %x1, %x2, %x3}};
  ld.global.v4.u32 {{%x0, %x1, %x2, %x3}}, [%m+16]; st.shared.v4.u32 [%a+16], {{%x0, %x1, %x2, %x3}};
  bar.sync 0;
  ld.param.u64 %m, [rows]; mad.wide.u32 %m, %t, 4, %m; ld.global.u32 %a, [%m];
  shl.b32 %a, %a, 4; mov.u32 %x0, tile; add.u32 %a, %a, %x0;
  ldmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 {{{registers}}}, [%a];
  ld.param.u64 %o, [out]; mad.wide.u32 %o, %t, {4 * count}, %o; {stores} ret;
}}"""
    out = np.zeros((32, count, 2), np.uint16)
    emulator().launch(ptx, [memory, rows, out])
    for lane, matrix, e in itertools.product(LANES, range(count), range(2)):
        row, column = lane // 4, 2 * (lane % 4) + e
        if trans:
            row, column = column, row
        assert out[lane, matrix, e] == memory[rows[8 * matrix + row], column], (lane, matrix, e)


# m, n, k, type of a and b, of c and d
SHAPES = [
    (16, 8, 16, "bf16", "f32"), (16, 8, 8, "bf16", "f32"), (16, 8, 16, "f16", "f32"), (16, 8, 8, "f16", "f32"),
    (16, 8, 16, "f16", "f16"), (16, 8, 8, "f16", "f16"), (16, 8, 8, "tf32", "f32"), (16, 8, 4, "tf32", "f32"),
    (8, 8, 4, "f64", "f64"), (16, 8, 32, "s8", "s32"), (16, 8, 16, "u8", "s32"),
]  # fmt: skip


def a_element(lane: int, i: int, e: int, per: int) -> tuple[int, int]:
    """Row and k of element e of register i of the fragment of A."""
    return lane // 4 + 8 * (i % 2), 4 * per * (i // 2) + per * (lane % 4) + e


def b_element(lane: int, i: int, e: int, per: int) -> tuple[int, int]:
    return 4 * per * i + per * (lane % 4) + e, lane // 4


def c_element(lane: int, i: int, e: int, per: int) -> tuple[int, int]:
    if per == 2:
        return lane // 4 + 8 * i, 2 * (lane % 4) + e
    return lane // 4 + 8 * (i // 2), 2 * (lane % 4) + i % 2


TORCH = {"bf16": torch.bfloat16, "f16": torch.float16, "tf32": torch.float32, "f32": torch.float32,
         "f64": torch.float64, "s8": torch.int8, "u8": torch.uint8, "s32": torch.int32}  # fmt: skip


def pieces(matrix: torch.Tensor, registers: int, element, per: int) -> np.ndarray:
    """The fragment of each lane, register by register."""
    rows = [[[matrix[element(lane, i, e, per)] for e in range(per)] for i in range(registers)] for lane in LANES]
    flat = torch.stack([v for lane in rows for register in lane for v in register])
    return np.ascontiguousarray(flat.view(torch.uint8).numpy())


@pytest.mark.parametrize("whole", [False, True], ids=["random", "whole"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"m{s[0]}n{s[1]}k{s[2]}-{s[3]}-{s[4]}")
def test_mma(shape: tuple, whole: bool, seed: int) -> None:
    """Random numbers, and whole ones, whose sums are exact in any order."""
    m, n, k, source, result = shape
    g = torch.Generator().manual_seed(seed)
    wide = source == "f64"
    size = TORCH[source].itemsize
    per = 1 if wide else 4 // size
    per_c = 2 if result == "f16" else 1

    def draw(*of: int, dtype: torch.dtype) -> torch.Tensor:
        if dtype in (torch.int8, torch.uint8, torch.int32):
            return torch.randint(0 if dtype is torch.uint8 else -100, 100, of, generator=g, dtype=dtype)
        if whole:
            return torch.randint(-2, 3, of, generator=g, dtype=torch.float64).to(dtype)
        return torch.randn(of, generator=g, dtype=torch.float64).to(dtype)

    a, b, c = draw(m, k, dtype=TORCH[source]), draw(k, n, dtype=TORCH[source]), draw(m, n, dtype=TORCH[result])
    counts = {"a": m * k // 32 // per, "b": k * n // 32 // per, "c": m * n // 32 // per_c}
    fragments = [pieces(x, counts[name], f, p) for x, name, f, p in
                 ((a, "a", a_element, per), (b, "b", b_element, per), (c, "c", c_element, per_c))]  # fmt: skip
    unit = 8 if wide else 4
    text, names = "", {}
    for name in "abc":
        names[name] = ", ".join(f"%{name}{i}" for i in range(counts[name]))
        text += f".reg .b{8 * unit} %{name}<{counts[name]}>;"
        text += f"ld.param.u64 %p, [{name}]; mad.wide.u32 %p, %t, {unit * counts[name]}, %p;"
        text += "".join(f"ld.global.b{8 * unit} %{name}{i}, [%p+{unit * i}];" for i in range(counts[name]))
    stores = "".join(f"st.global.b{8 * unit} [%p+{unit * i}], %c{i};" for i in range(counts["c"]))
    c_list = f"{{{names['c']}}}"
    ptx = f"""{HEADER}
.visible .entry kernel(.param .u64 a, .param .u64 b, .param .u64 c) {{
  .reg .b32 %t; .reg .b64 %p; mov.u32 %t, %tid.x; {text}
  mma.sync.aligned.m{m}n{n}k{k}.row.col.{result}.{source}.{source}.{result}
    {c_list}, {{{names["a"]}}}, {{{names["b"]}}}, {c_list};
  {stores} ret;
}}"""
    emulator().launch(ptx, fragments, within=sums(source, result, a.double(), b.double(), c.double()))
    got = torch.from_numpy(fragments[2]).view(TORCH[result]).view(32, counts["c"], per_c)
    if source == "tf32":  # the low 13 bits do not take part
        a, b = ((x.view(torch.int32) & ~0x1FFF).view(torch.float32) for x in (a, b))
    exact = a.double() @ b.double() + c.double()
    for lane, i, e in itertools.product(LANES, range(counts["c"]), range(per_c)):
        want = exact[c_element(lane, i, e, per_c)]
        value = got[lane, i, e].double()
        # a sum in double precision, rounded once: half a unit in the last place, and what the sum's order makes
        half = {"f16": 2.0**-11, "f32": 2.0**-24, "f64": 2.0**-49, "s32": 0.0}[result]
        assert abs(value - want) <= half * 1.0001 * abs(want) + 2.0**-44 * (result != "s32"), (lane, i, e)


COPY = """
.visible .entry kernel(.param .u64 from, .param .u64 out) {{
  .reg .b32 %t, %a, %y; .reg .b64 %m, %o; .shared .align 16 .b8 tile[2048];
  mov.u32 %t, %tid.x; ld.param.u64 %m, [from]; mad.wide.u32 %m, %t, 16, %m; ld.param.u64 %o, [out];
  mad.wide.u32 %o, %t, 4, %o; mov.u32 %a, tile; mad.lo.u32 %a, %t, 16, %a;
  {text}
  st.global.u32 [%o], %y; ret;
}}"""


def copy(text: str) -> np.ndarray:
    source = (np.arange(256) + 1).astype(np.uint32)
    out = np.full(32, 99, np.uint32)
    emulator().launch(COPY.format(text=text), [source, out])
    return out


class TestAsyncCopies:
    @pytest.mark.parametrize("size", [4, 8, 16])
    def test_sizes(self, size: int) -> None:
        how = "cg" if size == 16 else "ca"
        text = f"""cp.async.{how}.shared.global [%a], [%m], {size}; cp.async.commit_group; cp.async.wait_group 0;
  ld.shared.u32 %y, [%a+{size - 4}];"""
        assert copy(text).tolist() == [4 * i + size // 4 for i in LANES]

    @pytest.mark.parametrize("valid", [0, 4, 12, 16])
    def test_what_is_not_valid_is_zero(self, valid: int) -> None:
        text = f""".reg .b32 %s; mov.u32 %s, {valid};
  cp.async.cg.shared.global [%a], [%m], 16, %s; cp.async.wait_all; ld.shared.u32 %y, [%a+8];"""
        assert copy(text).tolist() == [4 * i + 3 if valid > 8 else 0 for i in LANES]

    def test_groups_land_in_order(self) -> None:
        """With one group pending the first has landed, and a store in the meantime is overwritten by neither."""
        text = """cp.async.ca.shared.global [%a], [%m], 4; cp.async.commit_group;
  cp.async.ca.shared.global [%a+4], [%m+4], 4; cp.async.commit_group;
  cp.async.wait_group 1; ld.shared.u32 %y, [%a]; st.shared.u32 [%a+8], %y;
  cp.async.wait_group 0; ld.shared.u32 %t, [%a+4]; mad.lo.u32 %y, %t, 1000, %y;"""
        assert copy(text).tolist() == [(4 * i + 2) * 1000 + 4 * i + 1 for i in LANES]

    @pytest.mark.emulator_only("a race, which the emulator decides")
    def test_data_is_read_as_late_as_allowed(self) -> None:
        """The source changes between the copy and the wait: the later contents land."""
        text = """cp.async.ca.shared.global [%a], [%m], 4; cp.async.commit_group;
  st.global.u32 [%m], 77; cp.async.wait_all; ld.shared.u32 %y, [%a];"""
        assert set(copy(text).tolist()) == {77}
