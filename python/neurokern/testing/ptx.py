"""Running small PTX kernels through the functions of CUDA's driver API that a library exports: the emulator's, or the
driver's own."""

from __future__ import annotations

import ctypes
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..backends import emulation
from . import rehearsal
from .ptxas import complaint

HEADER = ".version 9.0\n.target sm_80\n.address_size 64\n"
HOPPER = HEADER.replace("sm_80", "sm_90a")
NOT_READY, TIMEOUT = 600, 702  # CUresult
STACK = 8192  # bytes of a thread
PATIENCE = 20  # seconds that a snippet may take on a GPU

# format, relative and absolute error (one for all numbers, or one for each) of a result that is not bit for bit
Within = tuple[str, float, float | np.ndarray]


class DeviceError(RuntimeError):
    """What the driver said, with its code."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class TensorMap:
    """A kernel's parameter: a tensor map of this array. Innermost dimension first; strides in bytes from the second."""

    array: np.ndarray
    type: int  # CUtensorMapDataType
    dims: Sequence[int]
    strides: Sequence[int]
    box: Sequence[int]  # im2col: channels per pixel, pixels per column
    element_strides: Sequence[int] = ()
    swizzle: int = 0  # 1, 2, 3: of 32, 64, 128 bytes
    fill: int = 0  # 1: NaN
    corners: tuple[Sequence[int], Sequence[int]] | None = None  # im2col: lower, upper
    interleave: int = 0

    def encode(self, device: Device, address: int) -> ctypes.Array:
        """The 128 bytes, for the array at this address."""
        whole = (ctypes.c_uint8 * 256)()
        offset = -ctypes.addressof(whole) % 64
        rank = len(self.dims)
        sizes = (ctypes.c_uint64 * rank)(*self.dims)
        strides = (ctypes.c_uint64 * max(1, rank - 1))(*self.strides)
        steps = (ctypes.c_uint32 * rank)(*(self.element_strides or [1] * rank))
        head = (
            ctypes.c_void_p(ctypes.addressof(whole) + offset),
            self.type,
            rank,
            ctypes.c_void_p(address),
            sizes,
            strides,
        )
        tail = (self.interleave, self.swizzle, 0, self.fill)
        if self.corners is None:
            box = (ctypes.c_uint32 * rank)(*self.box)
            device.call("cuTensorMapEncodeTiled", *head, box, steps, *tail)
        else:
            lower, upper = ((ctypes.c_int * (rank - 2))(*c) for c in self.corners)
            device.call("cuTensorMapEncodeIm2col", *head, lower, upper, *self.box, steps, *tail)
        return (ctypes.c_uint8 * 128).from_buffer_copy(whole, offset)


class _Attribute(ctypes.Structure):
    _fields_ = [("id", ctypes.c_int), ("pad", ctypes.c_int), ("value", ctypes.c_uint32 * 16)]


class _Config(ctypes.Structure):
    _fields_ = [
        ("grid", ctypes.c_uint32 * 3), ("block", ctypes.c_uint32 * 3), ("shared", ctypes.c_uint32),
        ("stream", ctypes.c_void_p), ("attributes", ctypes.POINTER(_Attribute)), ("count", ctypes.c_uint32),
    ]  # fmt: skip


class Device:
    """A device behind a library of the driver API."""

    lost = ""  # what happened to it: nothing can be done with it any more

    def __init__(self, library: str) -> None:
        self.library = ctypes.CDLL(library)
        self.call("cuInit", 0)
        context = ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
        self.call("cuCtxSetCurrent", context)
        if hasattr(self.library, "cuCtxSetLimit"):  # recursive functions need more than the 1 KB of the beginning
            self.call("cuCtxSetLimit", 0, ctypes.c_size_t(STACK))
        self.modules: dict[str, ctypes.c_void_p] = {}
        name, version = ctypes.create_string_buffer(256), ctypes.c_int()
        self.call("cuDeviceGetName", name, len(name), 0)
        self.call("cuDriverGetVersion", ctypes.byref(version))
        self.name = f"{name.value.decode()}, driver {version.value // 1000}.{version.value % 1000 // 10}"

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

    def run(
        self,
        function: ctypes.c_void_p,
        values: Sequence[ctypes._SimpleCData | ctypes.Array],
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        shared: int,
        cluster: tuple[int, int, int] | None = None,
    ) -> None:
        """Launch with parameters as they are, and wait."""
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.cast(ctypes.byref(v), ctypes.c_void_p) for v in values))
        if shared > 48 * 1024:
            self.call("cuFuncSetAttribute", function, 8, shared)
        if cluster is None:
            self.call("cuLaunchKernel", function, *grid, *block, shared, None, pointers, None)
        else:
            size = _Attribute(4, 0, (ctypes.c_uint32 * 16)(*cluster))
            config = _Config(grid, block, shared, None, ctypes.pointer(size), 1)
            self.call("cuLaunchKernelEx", ctypes.byref(config), function, pointers, None)
        self.wait()

    def wait(self) -> None:
        """For what was launched; a kernel that does not end can't be stopped, nor memory freed beside it."""
        if hasattr(self.library, "cuStreamQuery"):
            end = time.monotonic() + PATIENCE
            while self.library.cuStreamQuery(None) == NOT_READY:
                if time.monotonic() > end:
                    self.lost = f"a kernel runs for more than {PATIENCE} s"
                    raise DeviceError(TIMEOUT, self.lost)
                time.sleep(1e-4)
        self.call("cuCtxSynchronize")

    def launch(
        self,
        ptx: str,
        arguments: Sequence[np.ndarray | TensorMap | int],
        grid: tuple[int, int, int] = (1, 1, 1),
        block: tuple[int, int, int] = (32, 1, 1),
        shared: int = 0,
        name: str = "kernel",
        valid: Sequence[int] | None = None,
        fresh: Sequence[int] = (),
        within: Within | None = None,
        cluster: tuple[int, int, int] | None = None,
    ) -> None:
        """Arrays (those of tensor maps, too) are copied there and back; integers are 64-bit parameters.

        Args:
            within: by how much another device's results may differ (see `twins`).
            valid: bytes given of each array.
            fresh: numbers of arguments whose memory is only allocated and holds nothing.
        """
        if ".version" not in ptx:
            ptx = HEADER + ptx
        function = self.function(ptx, name)
        places: dict[int, tuple[np.ndarray, ctypes.c_uint64, int]] = {}
        values = []

        def placed(a: np.ndarray, bytes_: int, holds: bool = True) -> ctypes.c_uint64:
            if id(a) not in places:
                assert a.flags.c_contiguous
                address = ctypes.c_uint64()
                self.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(bytes_))
                places[id(a)] = (a, address, bytes_)
                if holds:
                    self.call("cuMemcpyHtoD_v2", address, a.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(bytes_))
            return places[id(a)][1]

        try:
            for k, a in enumerate(arguments):
                if isinstance(a, int):
                    values.append(ctypes.c_uint64(a & (2**64 - 1)))
                elif isinstance(a, TensorMap):
                    values.append(a.encode(self, placed(a.array, a.array.nbytes).value))
                else:
                    values.append(placed(a, a.nbytes if valid is None else valid[k], k not in fresh))
            self.run(function, values, grid, block, shared, cluster)
            for a, address, bytes_ in places.values():
                self.call("cuMemcpyDtoH_v2", a.ctypes.data_as(ctypes.c_void_p), address, ctypes.c_size_t(bytes_))
        finally:
            for _, address, _ in places.values() if not self.lost else ():
                self.call("cuMemFree_v2", address)


class _InForce:
    device: Device | None = None  # that takes the emulator's place (see `twins`)


in_force = _InForce()


@lru_cache(maxsize=1)
def driver() -> Device:
    """The GPU behind the driver of this machine, or behind the library that NEUROKERN_DRIVER names.

    Raises:
        OSError: there is no driver.
        DeviceError: it finds no GPU.
    """
    return Device(os.environ.get("NEUROKERN_DRIVER") or rehearsal.driver())


def emulator() -> Device:
    """The emulator with all checkers; within `twins.compared()`, with each launch repeated on another device."""
    return in_force.device or _emulator()


@lru_cache(maxsize=1)
def _emulator() -> Device:
    device = Device(str(emulation.LIBRARY))
    check_all()
    return device


def check_all() -> None:
    """Turn all checkers on: the options are the library's, and a launch within emulate() leaves its own."""
    for option in ("memory", "shared", "global", "count"):
        emulation.set_option(option, 1)


def on_hopper(ptx: str, arguments: Sequence[np.ndarray | TensorMap | int], **options: object) -> None:
    """Launch a PTX text for sm_90a on the emulator, after a real assembler has taken it."""
    text = HOPPER + ptx
    assert not complaint(text), complaint(text)
    emulator().launch(text, arguments, **options)


REGISTER = {"u8": "b16", "s8": "b16", "pred": "pred"}
DTYPES = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}


def altered(text: str, pattern: str, replacement: str) -> str:
    """A kernel with a fault planted in it: every place of the pattern, of which there is at least one."""
    text, count = re.subn(pattern, replacement, text)
    assert count > 0, f"nothing in the kernel is {pattern!r}"
    return text


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
    within: Within | None = None,
) -> np.ndarray:
    """`inputs`: (PTX type, bits) of each operand. Of double precision the rules leave open which NaN comes out."""
    pairs = list(inputs.items()) if isinstance(inputs, dict) else list(inputs)
    n = len(pairs[0][1])
    arrays = [np.ascontiguousarray(v.astype(DTYPES[bits_of(t)])) for t, v in pairs]
    out = np.full(n, -1, np.int64).astype(DTYPES[bits_of(result)])
    ptx = header + elementwise(instruction, result, [t for t, _ in pairs])
    if within is None and result == "f64":
        within = "f64", 0.0, 0.0
    emulator().launch(ptx, [out, n, *arrays], grid=((n + 127) // 128, 1, 1), block=(128, 1, 1), within=within)
    return out
