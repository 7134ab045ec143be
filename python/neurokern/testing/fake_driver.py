"""CUDA without a GPU: a driver that pretends to have devices, and tensors on them, whose memory is the host's.

The driver (fake_driver.c) writes down each call and fails where it is told to; the emulator runs the kernels. So what
csrc/driver does with devices, contexts, streams and errors is tested on any machine with a C compiler.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

from .. import _C
from ..backends import emulation

SOURCE = Path(__file__).with_suffix(".c")
A100, H100, V100, RTX_5090 = ("A100", 8, 0), ("H100", 9, 0), ("V100", 7, 0), ("RTX 5090", 12, 0)


def missing() -> str | None:
    """Why there can be no such driver here, or None."""
    if shutil.which("cc") is None:
        return "no C compiler"
    return emulation.missing() or (None if _C.cuda_info()["fatbins"] else "built without the CUDA kernels")


@cache
def library(*defines: str) -> Path:
    """The driver, compiled: its folder can be put in front of LD_LIBRARY_PATH, its name being libcuda.so.1."""
    words = [f'-DNK_EMULATOR="{emulation.LIBRARY}"', *(f"-D{d}" for d in defines)]
    key = hashlib.sha256(SOURCE.read_bytes() + repr(words).encode()).hexdigest()[:16]
    to = Path(tempfile.gettempdir()) / f"neurokern_fake_driver_{os.getuid()}_{key}" / "libcuda.so.1"
    if not to.is_file():
        to.parent.mkdir(mode=0o700, exist_ok=True)
        made = to.with_name(f"{os.getpid()}.so")
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-fvisibility=hidden", "-O1", "-Wall", "-Wextra", "-Werror", *words,
             "-o", made, SOURCE, "-ldl", "-lpthread"], check=True,
        )  # fmt: skip
        made.replace(to)
    return to


class FakeDriver:
    """What a test tells the driver, and what it has seen."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        self._library.fakeLog.restype = ctypes.c_char_p

    def reset(self, devices: Sequence[tuple[str, int, int]], version: int) -> None:
        self._library.fakeReset(version)
        for name, major, minor in devices:
            self._library.fakeDevice(name.encode(), major, minor)

    def fail(self, function: str, code: int, times: int = -1) -> None:
        """The next ``times`` calls of a function return that code; -1: all."""
        self._library.fakeRule(function.encode(), code, times, 0)

    def slow(self, function: str, milliseconds: int) -> None:
        """Each call of a function takes so long."""
        self._library.fakeRule(function.encode(), 0, -1, milliseconds)

    def capture(self, on: bool) -> None:
        """Whether some thread captures a graph in global mode: loading is an error then, but for relaxed threads."""
        self._library.fakeCapture(int(on))

    def current(self, device: int | None, *, green: bool = False) -> None:
        """Make the device's primary context (0x1000 + device) current, or a green one (0x2000 + device), or none."""
        self._library.fakeCurrent(-1 if device is None else device, int(green))

    def calls(self) -> list[str]:
        """The calls since the last time, each a line: the function, and what matters of its arguments."""
        lines = self._library.fakeLog().decode().splitlines()
        self._library.fakeClear()
        return lines

    def names(self) -> list[str]:
        """`calls`, only the functions."""
        return [line.partition(" ")[0] for line in self.calls()]


@contextmanager
def fake_driver(
    *devices: tuple[str, int, int], version: int = 13000, defines: Sequence[str] = ()
) -> Iterator[FakeDriver]:
    """Within the block, neurokern's CUDA driver is a fake one that has these devices: (name, major, minor)."""
    path = library(*defines)
    driver = FakeDriver(path)
    driver.reset(devices, version)
    _C.set_driver(str(path))
    try:
        yield driver
    finally:
        _C.set_driver("")


class _Device(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int32), ("id", ctypes.c_int32))


class _DataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p), ("device", _Device), ("ndim", ctypes.c_int32), ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )  # fmt: skip


class _Managed(ctypes.Structure):
    _fields_ = (
        ("version", ctypes.c_uint32 * 2), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64), ("tensor", _Tensor),
    )  # fmt: skip


_REFUSE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p)
_ALLOCATE = ctypes.PYFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(_Tensor), ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p, _REFUSE
)
_TO_OBJECT = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p))
_VIEW = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.POINTER(_Tensor))
_STREAM = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_int32, ctypes.c_int32, ctypes.POINTER(ctypes.c_void_p))


class _ExchangeApi(ctypes.Structure):
    _fields_ = (
        ("version", ctypes.c_uint32 * 2), ("previous", ctypes.c_void_p), ("allocate", _ALLOCATE),
        ("from_object", ctypes.c_void_p), ("to_object", _TO_OBJECT), ("view", _VIEW), ("stream", _STREAM),
    )  # fmt: skip


_DTYPES = {
    torch.float32: (2, 32), torch.float64: (2, 64), torch.float16: (2, 16), torch.bfloat16: (4, 16),
    torch.int64: (0, 64), torch.int32: (0, 32), torch.int8: (0, 8), torch.uint8: (1, 8), torch.bool: (6, 8),
}  # fmt: skip
_OF_CODE = {code: dtype for dtype, code in _DTYPES.items()}


class CudaTensor:
    """A tensor that says it is on cuda:``index``; its memory is that of ``host``."""

    stream: int | None = 0x10  # that is current on every device; None: to ask for it fails
    __dlpack_c_exchange_api__: Any

    def __init__(self, host: torch.Tensor, index: int = 0) -> None:
        self.host, self.index = host, index
        self._shape = (ctypes.c_int64 * max(host.dim(), 1))(*host.shape)
        self._strides = (ctypes.c_int64 * max(host.dim(), 1))(*host.stride())

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), keywords: Any = None) -> Any:
        if function is torch.empty_like:  # as csrc/tensor/allocate.cpp calls it
            return CudaTensor(torch.empty_like(args[0].host), args[0].index)
        return NotImplemented


def _view(tensor: CudaTensor, out: Any) -> int:
    host, to = tensor.host, out[0]
    to.data, to.device.type, to.device.id = host.data_ptr(), 2, tensor.index
    to.ndim, to.byte_offset, to.dtype.lanes = host.dim(), 0, 1
    to.dtype.code, to.dtype.bits = _DTYPES[host.dtype]
    to.shape = ctypes.cast(tensor._shape, ctypes.POINTER(ctypes.c_int64))
    to.strides = ctypes.cast(tensor._strides, ctypes.POINTER(ctypes.c_int64))
    return 0


_made: dict[int, tuple[CudaTensor, _Managed]] = {}  # on their way to an object


def _allocate(prototype: Any, out: Any, context: Any, refuse: Any) -> int:
    p = prototype[0]
    sizes, strides = p.shape[: p.ndim], p.strides[: p.ndim]
    made = CudaTensor(torch.empty_strided(sizes, strides, dtype=_OF_CODE[p.dtype.code, p.dtype.bits]), p.device.id)
    managed = _Managed()
    out[0] = ctypes.addressof(managed)
    _made[ctypes.addressof(managed)] = made, managed
    return 0


def _to_object(managed: int, out: Any) -> int:
    made, _ = _made.pop(managed)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(made))
    out[0] = id(made)
    return 0


def _stream(kind: int, index: int, out: Any) -> int:
    if CudaTensor.stream is None:
        return -1
    out[0] = CudaTensor.stream
    return 0


_API = _ExchangeApi((1, 3), None, _ALLOCATE(_allocate), None, _TO_OBJECT(_to_object), _VIEW(_view), _STREAM(_stream))
_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.argtypes, _new_capsule.restype = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p), ctypes.py_object
_NAME = b"dlpack_exchange_api"
CudaTensor.__dlpack_c_exchange_api__ = _new_capsule(ctypes.addressof(_API), _NAME, None)
