"""Triton's own PTX on the emulator: its compiler runs without a GPU, and what it writes is launched on CPU tensors.

Within `triton_on(device)` the launch functions of `kernels/triton/` compile for a GPU of the capability given and run
the PTX through the driver API of `device`. It takes a process where Triton does not interpret (TRITON_INTERPRET=0
before the first import).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from ..kernels.triton import (
    _common,
    activation,
    attention,
    attention_backward,
    attention_cache,
    convolution,
    grid_sample,
    matmul,
    normalization,
    random,
    rearrangement,
    softmax,
)  # fmt: skip
from .ptx import Device

MODULES = (
    _common, activation, attention, attention_backward, attention_cache, convolution, grid_sample, matmul,
    normalization, random, rearrangement, softmax,
)  # fmt: skip
PLANNED_FOR = {90: _common.Device(), 80: _common.Device(80, 108, 163 * 1024)}
NUMBERS = {
    "i1": ctypes.c_int8, "i32": ctypes.c_int32, "i64": ctypes.c_int64, "fp32": ctypes.c_float, "fp64": ctypes.c_double,
}  # fmt: skip


class Target:
    """What Triton asks of a driver in order to compile. A device number is its capability."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return self.capability

    def get_current_stream(self, device: int) -> int:
        return 0


def extent(t: torch.Tensor) -> tuple[int, int]:
    """First byte and number of bytes that a tensor's elements lie in."""
    reach = sum((n - 1) * s for n, s in zip(t.shape, t.stride(), strict=True))
    return t.data_ptr(), (reach + 1) * t.element_size() if t.numel() else 0


def flat(types: Sequence[object], values: Sequence[object]) -> Iterator[tuple[str, object]]:
    """(type, value) of each parameter that the compiled kernel has: tuples spread out, constants left out."""
    for type_, value in zip(types, values, strict=True):
        if isinstance(type_, tuple):
            yield from flat(type_, value)
        elif type_ != "constexpr":
            yield type_, value


def run(device: Device, binary, grid: int, args: Sequence[object]) -> None:
    """Launch a compiled kernel; `args` are those of its parameters that are no `tl.constexpr`."""
    types = list(binary.src.signature.values())[: len(args)]
    values: list[ctypes._SimpleCData] = []
    registered = []
    try:
        for type_, value in flat(types, args):
            if type_.startswith("*"):
                address, bytes_ = extent(value)
                values.append(ctypes.c_uint64(address))
                if bytes_:
                    device.call("cuMemHostRegister_v2", ctypes.c_void_p(address), ctypes.c_size_t(bytes_), 0)
                    registered.append(address)
            else:
                values.append(NUMBERS[type_](value))
        values += [ctypes.c_uint64(0)] * 2  # Triton's scratch memories, of which none is asked for
        assert binary.metadata.global_scratch_size == 0
        device.run(
            device.function(binary.asm["ptx"], binary.metadata.name),
            values,
            (grid, 1, 1),
            (32 * binary.metadata.num_warps, 1, 1),
            binary.metadata.shared,
        )
    finally:
        for address in registered:
            device.call("cuMemHostUnregister", ctypes.c_void_p(address))


@contextmanager
def triton_on(device: Device, capability: int) -> Iterator[list[str]]:
    """Within the block, Triton's kernels are compiled for `capability` and run on `device`; yields the names of those
    that ran."""
    ran: list[str] = []

    def launch(kernel, grid, args, meta, plan, tensor, record) -> None:
        if record is not None:
            record(kernel.fn.__name__, f"{plan} grid={grid}")
        binary = kernel.warmup(*args, grid=(grid,), **meta, enable_fp_fusion=False)
        run(device, binary, grid, args)
        ran.append(kernel.fn.__name__)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(driver, "_active", Target(capability)))
        for module in MODULES:
            stack.enter_context(mock.patch.object(module, "launch", launch))
            if hasattr(module, "device_of"):
                plans = mock.patch.object(module, "device_of", return_value=PLANNED_FOR[capability])
                stack.enter_context(plans)
        yield ran
