"""Vector forms of atom and red on the emulator, each element by itself; sums of subnormal numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from neurokern.backends import emulation
from neurokern.testing.ptx import DeviceError, emulator
from neurokern.testing.ptxas import complaint
from neurokern.testing.twins import but_nan

pytestmark = [
    pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing())),
    pytest.mark.usefixtures("snippets"),
]

THREADS = 64
FORMATS = {
    "f32": (torch.float32, 1, "f32", ("add",), (2, 4)),
    "f16": (torch.float16, 1, "b16", ("add", "min", "max"), (2, 4, 8)),
    "bf16": (torch.bfloat16, 1, "b16", ("add", "min", "max"), (2, 4, 8)),
    "f16x2": (torch.float16, 2, "b32", ("add", "min", "max"), (2, 4)),
    "bf16x2": (torch.bfloat16, 2, "b32", ("add", "min", "max"), (2, 4)),
}
CASES = [(form, op, n) for form, (_, _, _, ops, sizes) in FORMATS.items() for op in ops for n in sizes]
MODEL = {"add": torch.add, "min": torch.fmin, "max": torch.fmax}


def kernel(instruction: str, form: str, count: int, address: str) -> str:
    """Thread t: the operation on its place in `to` by its place in `from`, old values to `old`."""
    _, _, register, _, _ = FORMATS[form]
    size = (4 if register == "f32" else int(register[1:]) // 8) * count
    names = [f"%x{k}" for k in range(count)]
    loads = " ".join(
        f"ld.global.{register} {x}, [%n+{k * size // count}]; mov.{register} %d{k}, {x};" for k, x in enumerate(names)
    )
    stores = " ".join(f"st.global.{register} [%o+{k * size // count}], %d{k};" for k in range(count))
    # the old values go to registers of the new ones, in another order
    old = ", ".join(f"%d{k}" for k in reversed(range(count)))
    text = instruction.format(old="{" + old + "}", new="{" + ", ".join(names) + "}", at=address)
    return f""".version 9.0
.target sm_90a
.address_size 64
.visible .entry kernel(.param .u64 to, .param .u64 from, .param .u64 old) {{
  .reg .{register} %x<8>, %d<8>; .reg .b32 %t; .reg .b64 %m, %n, %o, %p;
  mov.u32 %t, %tid.x; ld.param.u64 %m, [to]; ld.param.u64 %n, [from]; ld.param.u64 %o, [old];
  mul.wide.u32 %p, %t, {size}; add.u64 %n, %n, %p; add.u64 %o, %o, %p; add.u64 %p, %m, %p;
  {loads} {text} {stores} ret;
}}"""


def words(t: torch.Tensor) -> np.ndarray:
    return t.contiguous().view(torch.uint8).numpy().copy()


def opcode(form: str, op: str, count: int) -> str:
    return f"global.v{count}.{form}.{op}" + ("" if form == "f32" else ".noftz")


@pytest.mark.parametrize("form,op,count", CASES, ids=[f"{f}-{op}-v{n}" for f, op, n in CASES])
class TestVectors:
    def operands(self, form: str, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        dtype, packed, _, _, _ = FORMATS[form]
        generator = torch.Generator().manual_seed(seed)
        a, b = (
            (torch.randn(THREADS, count * packed, generator=generator) * 8).to(dtype) for _ in range(2)
        )  # of each pair of NaN, infinity and zero one that meets a number
        a[3, 0], b[4, -1], a[5, 1], b[6, 0] = torch.nan, torch.nan, torch.inf, -torch.inf
        return a, b

    def test_each_element(self, form: str, op: str, count: int, seed: int) -> None:
        a, b = self.operands(form, count, seed)
        want = MODEL[op](a.double(), b.double()).to(a.dtype)
        for instruction in ("atom.{} {{old}}, [{{at}}], {{new}};", "red.relaxed.gpu.{} [{{at}}], {{new}};"):
            text = kernel(instruction.format(opcode(form, op, count)), form, count, "%p")
            assert complaint(text) == ""
            to, old = words(a), np.zeros(words(a).shape, np.uint8)
            one = but_nan(form.removesuffix("x2"))
            emulator().launch(text, [to, words(b), old], block=(THREADS, 1, 1), within=one)
            got = torch.from_numpy(to).view(a.dtype)
            torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)
            # red gives nothing back: the registers hold b; atom's old values came in reversed order
            units = torch.from_numpy(old).view(a.dtype).view(THREADS, count, -1)
            source = a.view(THREADS, count, -1).flip(1) if "atom" in instruction else b.view(THREADS, count, -1)
            torch.testing.assert_close(units, source, rtol=0, atol=0, equal_nan=True)

    def test_all_on_one_place(self, form: str, op: str, count: int) -> None:
        """Small whole numbers, of which every order gives one result."""
        dtype, packed, _, _, _ = FORMATS[form]
        b = (torch.arange(THREADS * count * packed).reshape(THREADS, -1) % 4 - 1).to(dtype)
        a = torch.ones(count * packed, dtype=dtype)
        text = kernel(f"red.{opcode(form, op, count)} [{{at}}], {{new}};", form, count, "%m")
        to = words(a)
        emulator().launch(text, [to, words(b), np.zeros(words(b).shape, np.uint8)], block=(THREADS, 1, 1))
        steps = {"add": lambda: a + b.sum(0), "min": lambda: b.amin(0).clamp(max=1), "max": lambda: b.amax(0)}
        assert torch.equal(
            torch.from_numpy(to).view(dtype), torch.maximum(steps[op](), a) if op == "max" else steps[op]()
        )


@pytest.mark.parametrize("space", ["global", "shared", "generic to global", "generic to shared"])
def test_subnormal_sums(space: str) -> None:
    """Global memory's units flush, shared memory's don't; a generic address goes to either."""
    place = "%m" if space.endswith("global") else "%s"
    text = f""".version 9.0
.target sm_90a
.address_size 64
.visible .entry kernel(.param .u64 data) {{
  .reg .b32 %x, %y; .reg .f32 %f, %o; .reg .b64 %m, %s; .shared .align 4 .b8 tile[4];
  ld.param.u64 %m, [data]; mov.u64 %s, tile; {"cvta.shared.u64 %s, %s;" if "generic" in space else ""}
  ld.global.b32 %x, [%m]; st.shared.b32 [tile], %x; ld.global.f32 %f, [%m+4];
  atom{"" if "generic" in space else "." + space}.add.f32 %o, [{place}], %f;
  {"" if space.endswith("global") else "ld.shared.b32 %y, [tile]; st.global.b32 [%m], %y;"}
  st.global.f32 [%m+8], %o; ret;
}}"""
    assert complaint(text) == ""
    tiny, least, small = 0x00400000, 0x00800000, 0x80700000  # two subnormal numbers and the least normal one
    flushed = {(tiny, tiny): 0, (least, small): least, (small, small): 1 << 31, (least, least): 0x01000000}
    kept = {(tiny, tiny): least, (least, small): 0x00100000, (small, small): 0x80E00000, (least, least): 0x01000000}
    for (a, b), want in (flushed if space.endswith("global") else kept).items():
        data = np.array([a, b, 0], np.uint32)
        emulator().launch(text, [data], block=(1, 1, 1))
        assert (data[0], data[2]) == (want, a), (hex(a), hex(b), hex(data[0]))


@pytest.mark.emulator_only("errors")
class TestRefusals:
    def test_a_vector_off_its_alignment(self) -> None:
        text = kernel("red.global.v4.f32.add [{at}+8], {new};", "f32", 4, "%m")
        with pytest.raises(DeviceError, match="misaligned"):
            emulator().launch(text, [np.zeros(2048, np.uint8), np.zeros(2048, np.uint8), np.zeros(2048, np.uint8)])

    @pytest.mark.parametrize(
        "what", ["global.v8.f32.add", "global.v2.u32.add", "shared.v2.f32.add", "global.v2.f32.min"]
    )
    def test_what_the_isa_does_not_have(self, what: str) -> None:
        text = kernel(f"red.{what} [{{at}}], {{new}};", "f32", int(what.split(".v")[1][0]), "%m")
        with pytest.raises(DeviceError, match=r"red\."):
            emulator().launch(text, [np.zeros(64, np.uint8)] * 3)
        assert complaint(text) != ""
