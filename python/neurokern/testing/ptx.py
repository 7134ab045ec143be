"""Running small PTX kernels through the functions of CUDA's driver API that a library exports: the emulator's, or the
driver's own."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ..ops import emulation

HEADER = ".version 9.0\n.target sm_80\n.address_size 64\n"


class DeviceError(RuntimeError):
    """What the driver said, with its code."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Device:
    """A device behind a library of the driver API."""

    def __init__(self, library: str) -> None:
        self.library = ctypes.CDLL(library)
        self.call("cuInit", 0)
        context = ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
        self.call("cuCtxSetCurrent", context)
        self.modules: dict[str, ctypes.c_void_p] = {}

    def call(self, name: str, *arguments: object) -> None:
        code = getattr(self.library, name)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self.library.cuGetErrorString(code, ctypes.byref(text))
            raise DeviceError(code, (text.value or b"").decode())

    def function(self, ptx: str, name: str) -> ctypes.c_void_p:
        if ptx not in self.modules:
            module = ctypes.c_void_p()
            self.call("cuModuleLoadData", ctypes.byref(module), ptx.encode())
            self.modules[ptx] = module
        function = ctypes.c_void_p()
        self.call("cuModuleGetFunction", ctypes.byref(function), self.modules[ptx], name.encode())
        return function

    def launch(
        self,
        ptx: str,
        arguments: Sequence[np.ndarray | int],
        grid: tuple[int, int, int] = (1, 1, 1),
        block: tuple[int, int, int] = (32, 1, 1),
        shared: int = 0,
        name: str = "kernel",
        valid: Sequence[int] | None = None,
    ) -> None:
        """Arrays are copied there and back; integers are 64-bit parameters; `valid`: bytes given of each array."""
        if ".version" not in ptx:
            ptx = HEADER + ptx
        function = self.function(ptx, name)
        places = []
        values = []
        for k, a in enumerate(arguments):
            if isinstance(a, int):
                values.append(ctypes.c_uint64(a & (2**64 - 1)))
                continue
            assert a.flags.c_contiguous
            address = ctypes.c_uint64()
            bytes_ = a.nbytes if valid is None else valid[k]
            self.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(bytes_))
            self.call("cuMemcpyHtoD_v2", address, a.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(bytes_))
            places.append((a, address, bytes_))
            values.append(address)
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.cast(ctypes.byref(v), ctypes.c_void_p) for v in values))
        try:
            if shared > 48 * 1024:
                self.call("cuFuncSetAttribute", function, 8, shared)
            self.call("cuLaunchKernel", function, *grid, *block, shared, None, pointers, None)
            self.call("cuCtxSynchronize")
            for a, address, bytes_ in places:
                self.call("cuMemcpyDtoH_v2", a.ctypes.data_as(ctypes.c_void_p), address, ctypes.c_size_t(bytes_))
        finally:
            for _, address, _ in places:
                self.call("cuMemFree_v2", address)


@lru_cache(maxsize=1)
def emulator() -> Device:
    """The emulator with all checkers."""
    device = Device(str(emulation.LIBRARY))
    for option in ("memory", "shared", "count"):
        emulation.set_option(option, 1)
    return device


REGISTER = {"u8": "b16", "s8": "b16", "pred": "pred"}
DTYPES = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}


def bits_of(type_: str) -> int:
    """Of "s32", "f16x2" ..."""
    digits = type_.lstrip("abcdefghijklmnopqrstuvwxyz")
    return 2 * int(digits.removesuffix("x2")) if digits.endswith("x2") else int(digits)


def elementwise(instruction: str, result: str, sources: Sequence[str], declare: str = "") -> str:
    """A kernel that runs one instruction (or several lines) on each element: {d} from {a}, {b}, {c}, {e}."""
    names = "abce"[: len(sources)]
    lines = [f"  .reg .b{max(16, bits_of(t))} %{n};" for n, t in zip(names, sources, strict=True)]
    loads = []
    for k, (n, t) in enumerate(zip(names, sources, strict=True)):
        size = bits_of(t)
        loads += [
            f"  ld.param.u64 %p, [in{k}];",
            f"  mad.wide.u32 %p, %i, {size // 8}, %p;",
            f"  ld.global.{'u' if size == 8 else 'b'}{size} %{n}, [%p];",
        ]
    size = bits_of(result)
    body = instruction.format(d="%d", a="%a", b="%b", c="%c", e="%e")
    parameters = ", ".join(f".param .u64 {p}" for p in ["out", "n", *(f"in{k}" for k in range(len(sources)))])
    return "\n".join(
        [
            f".visible .entry kernel({parameters}) {{",
            "  .reg .pred %q, %r, %s; .reg .u32 %i, %t, %u; .reg .u64 %p, %n, %j;",
            f"  .reg .b{max(16, size)} %d;",
            *lines,
            declare,
            "  mov.u32 %i, %ctaid.x; mov.u32 %t, %ntid.x; mov.u32 %u, %tid.x; mad.lo.u32 %i, %i, %t, %u;",
            "  ld.param.u64 %n, [n]; cvt.u64.u32 %j, %i; setp.ge.u64 %q, %j, %n; @%q bra DONE;",
            *loads,
            f"  {body}",
            f"  ld.param.u64 %p, [out]; mad.wide.u32 %p, %i, {size // 8}, %p; st.global.b{size} [%p], %d;",
            "DONE: ret;",
            "}",
        ]
    )


def run_elementwise(
    instruction: str,
    result: str,
    inputs: dict[str, np.ndarray] | Sequence[tuple[str, np.ndarray]],
    header: str = HEADER,
) -> np.ndarray:
    """`inputs`: (PTX type, bits) of each operand."""
    pairs = list(inputs.items()) if isinstance(inputs, dict) else list(inputs)
    n = len(pairs[0][1])
    arrays = [np.ascontiguousarray(v.astype(DTYPES[bits_of(t)])) for t, v in pairs]
    out = np.zeros(n, DTYPES[bits_of(result)])
    ptx = header + elementwise(instruction, result, [t for t, _ in pairs])
    emulator().launch(ptx, [out, n, *arrays], grid=((n + 127) // 128, 1, 1), block=(128, 1, 1))
    return out
