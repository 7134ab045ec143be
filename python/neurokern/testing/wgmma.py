"""A model of wgmma's operands: where the canonical layouts of the PTX ISA put each element, and kernels that multiply.

The layouts are written down as the ISA does, shapes with strides in units of elements, T elements to 16 bytes:

    K-major    none ((8,m),(T,k)):((1T,SBO),(1,LBO))       W bytes ((8,m),(T,k)):((W/16 T,SBO),(1,T))
    MN-major   none ((T,1,m),(8,k)):((1,T,SBO),(1T,LBO))   W bytes ((T,W/16,m),(8,k)):((1,T,LBO),(W/16 T,SBO))

followed by the swizzle, which exchanges bits of the byte address: Swizzle<B,4,3> with 2**B * 16 = W.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .ptx import Within, emulator
from .ptxas import complaint

HEADER = ".version 8.6\n.target sm_90a\n.address_size 64\n"
MODES = {0: 0, 128: 1, 64: 2, 32: 3}
TORCH = {
    "f16": torch.float16, "bf16": torch.bfloat16, "tf32": torch.float32, "e4m3": torch.float8_e4m3fn,
    "e5m2": torch.float8_e5m2, "s8": torch.int8, "u8": torch.uint8, "f32": torch.float32, "s32": torch.int32,
}  # fmt: skip
Mode = tuple[Sequence[int], Sequence[int]]


def along(mode: Mode, count: int) -> np.ndarray:
    """The offset of each coordinate below `count` of a mode with sub-shapes and strides."""
    rest, offset = np.arange(count), np.zeros(count, int)
    for size, stride in zip(*mode, strict=True):
        offset += rest % size * stride if size else rest * stride
        rest = rest // size if size else rest * 0
    return offset


@dataclass
class Layout:
    swizzle: int = 128
    mn_major: bool = False
    leading: int = 0  # bytes
    stride: int = 0

    def modes(self, size: int) -> tuple[Mode, Mode]:
        t = 16 // size
        lead, stride, chunks = self.leading // size, self.stride // size, max(1, self.swizzle // 16)
        if not self.mn_major:
            k = ((t, 0), (1, t if self.swizzle else lead))
            return ((8, 0), (chunks * t, stride)), k
        if self.swizzle:
            return ((t, chunks, 0), (1, t, lead)), ((8, 0), (chunks * t, stride))
        return ((t, 0), (1, stride)), ((8, 0), (t, lead))

    def addresses(self, rows: int, k: int, size: int, start: int = 0, base: int = 0) -> np.ndarray:
        row_mode, k_mode = self.modes(size)
        byte = start + size * (along(row_mode, rows)[:, None] + along(k_mode, k)[None, :])
        mask = (max(16, self.swizzle) // 16 - 1) << 4
        return byte ^ (((byte - 128 * base) >> 3) & mask)

    def descriptor(self, start: int, base: int = 0) -> int:
        return (
            (start & 0x3FFFF) >> 4
            | (self.leading >> 4) << 16
            | (self.stride >> 4) << 32
            | base << 49
            | MODES[self.swizzle] << 62
        )


def spacious(swizzle: int, mn_major: bool, rows: int, k: int, size: int) -> Layout:
    """A layout with gaps between its atoms, so that no offset can stand for another."""
    atom = 8 * max(16, swizzle)
    if not mn_major:
        return Layout(swizzle, False, 16, 2 * atom) if swizzle else Layout(0, False, 144, 9 * k * size + 32)
    groups = rows * size // max(16, swizzle) + 1
    if not swizzle:
        return Layout(0, True, groups * 160 + 32, 160)
    return Layout(swizzle, True, 2 * atom, (2 * groups + 1) * atom)


def put(image: np.ndarray, matrix: torch.Tensor, address: np.ndarray) -> None:
    size = matrix.element_size()
    data = matrix.contiguous().view(torch.uint8).numpy().reshape(*matrix.shape, size)
    for e in range(size):
        image[address + e] = data[:, :, e]


def draw(kind: str, shape: tuple[int, ...], generator: torch.Generator, whole: bool = False) -> torch.Tensor:
    """`whole`: -2 to 2, whose sums no order of addition rounds."""
    dtype = TORCH[kind]
    if kind in ("s8", "u8", "s32"):
        low, high = {"s8": (-128, 128), "u8": (0, 256), "s32": (-(10**6), 10**6)}[kind]
        return torch.randint(low, high, shape, generator=generator, dtype=torch.int32).to(dtype)
    if whole:
        return torch.randint(-2, 3, shape, generator=generator, dtype=torch.float64).to(dtype)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def exact(matrix: torch.Tensor, kind: str) -> torch.Tensor:
    """What takes part in the product, in double precision."""
    if kind == "tf32":  # without the low 13 bits
        matrix = (matrix.view(torch.int32) & ~0x1FFF).view(torch.float32)
    return matrix.double()


def accumulator_places(n: int, pairs: bool) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of what each thread holds: [thread, register] (or [thread, register, half])."""
    thread = np.arange(128)[:, None]
    row, column = thread // 32 * 16 + thread % 32 // 4, thread % 4 * 2
    if pairs:
        i, e = np.arange(n // 4)[None, :, None], np.arange(2)[None, None, :]
        return row[..., None] + 8 * (i % 2) + 0 * e, column[..., None] + 8 * (i // 2) + e
    i = np.arange(n // 2)[None, :]
    return row + 8 * (i // 2 % 2), column + 8 * (i // 4) + i % 2


def a_fragments(a: torch.Tensor) -> np.ndarray:
    """The four registers of A of each thread."""
    per = 4 // a.element_size()
    thread, i, e = np.arange(128)[:, None, None], np.arange(4)[None, :, None], np.arange(per)[None, None, :]
    row = thread // 32 * 16 + thread % 32 // 4 + 8 * (i % 2)
    k = 4 * per * (i // 2) + per * (thread % 4) + e
    words = a[torch.from_numpy(row + 0 * e), torch.from_numpy(k + 0 * row)].contiguous()
    return words.view(torch.uint8).numpy().reshape(128, 4, 4).view(np.uint32)[..., 0].copy()


def names(prefix: str, count: int) -> str:
    return "{" + ", ".join(f"%{prefix}{i}" for i in range(count)) + "}"


def kernel(body: str, accumulators: int, a_registers: int = 0) -> str:
    """%d: accumulators, loaded and stored; %a: registers of A; %x, %y: descriptors; %s: scale-d; `tile`: the image."""

    def each(text: str, count: int) -> str:
        return " ".join(text.format(i=i, at=4 * i) for i in range(count))

    return f"""{HEADER}.file 1 "/home/someone/kernels/cuda/planted.cu"
.extern .shared .align 1024 .b8 tile[];
.visible .entry kernel(.param .u64 image, .param .u64 bytes, .param .u64 d, .param .u64 a, .param .u64 x, .param .u64 y,
                       .param .u64 scale) {{
  .reg .pred %p, %q, %s; .reg .b32 %t, %n, %i, %u, %v, %w, %z, %c<4>, %d<{accumulators}>, %a<{max(1, a_registers)}>;
  .reg .b64 %f, %g, %o, %x, %y, %e;
  mov.u32 %t, %tid.x; ld.param.u64 %f, [image]; ld.param.u32 %n, [bytes]; ld.param.u64 %o, [d];
  ld.param.u64 %x, [x]; ld.param.u64 %y, [y]; ld.param.u32 %i, [scale]; setp.ne.u32 %s, %i, 0;
  mov.u32 %u, tile; shr.u32 %v, %u, 4; cvt.u64.u32 %e, %v; add.s64 %x, %x, %e; add.s64 %y, %y, %e;
  shl.b32 %i, %t, 4;
COPY: setp.ge.u32 %p, %i, %n; @%p bra COPIED; cvt.u64.u32 %g, %i; add.s64 %g, %f, %g; add.u32 %v, %u, %i;
  ld.global.v4.b32 {{%c0, %c1, %c2, %c3}}, [%g]; st.shared.v4.b32 [%v], {{%c0, %c1, %c2, %c3}};
  mov.u32 %v, %ntid.x; mad.lo.u32 %i, %v, 16, %i; bra COPY;
COPIED: fence.proxy.async; bar.sync 0;
  mad.wide.u32 %o, %t, {4 * accumulators}, %o; {each("ld.global.b32 %d{i}, [%o+{at}];", accumulators)}
  ld.param.u64 %g, [a]; mad.wide.u32 %g, %t, 16, %g; {each("ld.global.b32 %a{i}, [%g+{at}];", a_registers)}
  {body}
  {each("st.global.b32 [%o+{at}], %d{i};", accumulators)}
  ret;
}}"""


def run(
    body: str, d: np.ndarray, image: np.ndarray, a: np.ndarray | None = None, x: int = 0, y: int = 0, scale: int = 1,
    threads: int = 128, extra: int = 0, within: Within | None = None,
) -> None:  # fmt: skip
    """`d`: [thread, register], in and out; `extra`: bytes of shared memory behind the image."""
    text = kernel(body, d.shape[1], 0 if a is None else 4)
    assert complaint(text) == ""
    registers = np.zeros((128, 4), np.uint32) if a is None else a
    arguments = [np.ascontiguousarray(image), len(image), d, registers, x, y, scale]
    emulator().launch(text, arguments, block=(threads, 1, 1), shared=len(image) + extra, within=within)


def check(got: np.ndarray, want: torch.Tensor, total: str, n: int) -> None:
    """Accumulators against sums in double precision, rounded once but for what their order makes."""
    row, column = accumulator_places(n, total == "f16")
    expected = want[torch.from_numpy(row + 0 * column), torch.from_numpy(column + 0 * row)]
    value = torch.from_numpy(got).view(TORCH[total]).view(expected.shape).double()
    half = {"f16": 2.0**-11, "f32": 2.0**-24, "s32": 0.0}[total]
    least = {"f16": 2.0**-25, "f32": 2.0**-40, "s32": 0.0}[total]
    error = (value - expected).abs() - half * 1.0001 * expected.abs() - least
    worst = int(error.argmax())
    assert error.max() <= 0, (
        f"row {row.flat[worst]}, column {column.flat[worst]}: {value.flatten()[worst]},"
        f" expected {expected.flatten()[worst]}"
    )


SYNC = "wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0;"
