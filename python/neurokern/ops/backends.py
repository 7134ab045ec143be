"""Backends: a row of data each, the choice among them, the trace of launches, strictness.

A backend is a namespace with the functions of ``neurokern._C`` (``unary(out, x, ...)`` and so on). One asked for by
name runs or raises; ``auto`` takes the first that can, and whatever has no kernel of ours at all goes to torch, with
the reason in the trace.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.compiler import is_dynamo_compiling

from .. import _C
from . import emulation


@dataclass(frozen=True)
class Launch:
    """One launch, as ``neurokern.trace()`` shows it."""

    op: str
    backend: str
    kernel: str
    plan: str = ""
    reason: str = ""
    counters: dict[str, int] | None = field(default=None, compare=False)  # what the emulator counted


@dataclass(frozen=True)
class Backend:
    """A row of the registry: its name, where its kernels run, why it can't run here (or None)."""

    name: str
    devices: tuple[str, ...]
    load: Callable[[], Any]
    missing: Callable[[], str | None]


def _triton_module() -> ModuleType:
    return importlib.import_module("neurokern.ops.triton_backend")


def _triton_missing() -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    if not torch.cuda.is_available() and not _interpreting():
        return "no GPU, and TRITON_INTERPRET is not 1"
    return None


def _interpreting() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def _cuda_missing() -> str | None:
    info = _C.cuda_info()
    if info["driver"] is None or not info["devices"]:
        return info["reason"] or "no CUDA device"
    return None if info["fatbins"] else "built without the CUDA kernels"


BACKENDS: dict[str, Backend] = {
    b.name: b
    for b in (
        Backend("cpu", ("cpu",), lambda: _C, lambda: None),
        Backend("cuda", ("cuda",), lambda: _C, _cuda_missing),
        Backend("triton", ("cuda", "cpu"), _triton_module, _triton_missing),
    )
}


class _State:
    """What `backend()`, `strict()` and `trace()` set. `native` is what ops call without further question."""

    def __init__(self) -> None:
        self.chosen = "auto"
        self.native: Any = _C  # read by every call: of the instance, where Python finds it at once
        self.strict = False
        self.launches: list[Launch] | None = None


state = _State()


class backend:
    """Choose the backend: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"triton"``.

    ``neurokern.backend("triton")`` sets it for the process; ``with neurokern.backend("triton"):`` for a block.

    Raises:
        ValueError: no backend has that name.
        RuntimeError: it can't run here (no GPU, not built, package missing).
    """

    def __init__(self, name: str) -> None:
        if name != "auto" and name not in BACKENDS:
            names = ", ".join(["auto", *BACKENDS])
            raise ValueError(f"neurokern.backend: name is {name!r}, expected one of {names}")
        self._previous = state.chosen
        _choose(name)

    def __enter__(self) -> backend:
        return self

    def __exit__(self, *exc: object) -> None:
        _choose(self._previous)


def _choose(name: str) -> None:
    emulation.apply(name)
    if name == "auto":
        state.chosen, state.native = "auto", _C
        return
    row = BACKENDS[name]
    if emulation.state.applied:
        row = replace(row, devices=("cpu",))
    why = row.missing()
    if why is not None:
        emulation.apply(state.chosen)
        raise RuntimeError(f"neurokern.backend: {name} can't run here: {why}")
    state.chosen, state.native = name, _Named(row)


class _Named:
    """A backend asked for by name: refuses tensors that are not on its devices, instead of handing them on."""

    def __init__(self, row: Backend) -> None:
        self._row = row
        self._module = row.load()

    def __getattr__(self, op: str) -> Callable[..., Any]:
        kernel: Callable[..., Any] = getattr(self._module, op)
        row = self._row

        def run(*args: Any) -> Any:
            for a in args:
                if isinstance(a, torch.Tensor) and a.device.type not in row.devices:
                    raise RuntimeError(
                        f"neurokern.{op}: backend {row.name!r} got a tensor of shape {list(a.shape)} on {a.device}, "
                        f"expected {' or '.join(row.devices)}"
                    )
            return kernel(*args)

        self.__dict__[op] = run
        return run


@contextmanager
def emulate(*, check: bool = True, count: bool = True, threads: int = 0, shuffle: int = 0) -> Iterator[None]:
    """Within the block the backend is "cuda", and its kernels run on the CPU, from their PTX, on CPU tensors.

    Args:
        check: look for accesses out of bounds, memory that was never written or whose copy has not arrived, races
            and divergence; what is found raises RuntimeError with kernel, source line, block and thread.
        count: sectors and bank conflicts, too, for ``trace()``.
        threads: how many, or 0 for all cores.
        shuffle: a seed that permutes the order of blocks and warps; 0: as they are numbered.

    Raises:
        RuntimeError: this build has no emulator, or the processor lacks what it needs.
    """
    if (why := emulation.missing()) is not None:
        raise RuntimeError(f"neurokern.emulate: {why}")
    options = dict.fromkeys(("memory", "shared", "global"), check)
    options |= {"count": count, "threads": threads, "shuffle": shuffle}
    outer = emulation.state.options
    emulation.set_options(options)
    emulation.state.depth += 1
    before = state.chosen
    try:
        _choose("cuda")
        yield
    finally:
        emulation.state.depth -= 1
        emulation.set_options(outer)
        _choose(before)


@contextmanager
def strict() -> Iterator[None]:
    """Within the block, a step down to another backend or to torch is a RuntimeError."""
    before, state.strict = state.strict, True
    try:
        yield
    finally:
        state.strict = before


@contextmanager
def trace() -> Iterator[list[Launch]]:
    """Record every launch within the block: yields a list of `Launch`, filled as the block runs.

    Blocks nest: an inner block's launches belong to the outer list too.
    """
    outer, mine = state.launches, TraceList()
    if outer is not None:
        outer.collect()
    state.launches = mine
    _C.trace_start(True)
    emulation.record(True)
    try:
        yield mine
    finally:
        mine.collect()
        state.launches = outer
        if outer is None:
            _C.trace_start(False)
            emulation.record(False)
        else:
            outer.extend(mine)


def _launched(row: Launch) -> bool:
    """Whether a kernel ran for it on CUDA; an empty tensor has none."""
    return row.backend == "cuda" and row.plan != "empty"


def _with_counters(rows: list[Launch]) -> list[Launch]:
    """Each row with the sum of what the emulator counted for its kernel and for those that finish its work."""
    emulated = emulation.take()
    counted = []
    for i, row in enumerate(rows):
        following = next((r.kernel for r in rows[i + 1 :] if _launched(r)), None)
        mine = []
        while emulated and _launched(row) and not (mine and emulated[0].kernel == following):
            mine.append(emulated.pop(0).counters)
        total = {name: sum(c[name] for c in mine) for name in mine[0]} if mine else None
        counted.append(replace(row, counters=total))
    return counted


class TraceList(list):
    """A list of launches that fetches what the extension has recorded before it is read."""

    def collect(self) -> None:
        if state.launches is self:
            self.extend(_with_counters([Launch(*row) for row in _C.trace_take()]))

    def __iter__(self) -> Iterator[Launch]:
        self.collect()
        return super().__iter__()

    def __len__(self) -> int:
        self.collect()
        return super().__len__()

    def __getitem__(self, index: Any) -> Any:
        self.collect()
        return super().__getitem__(index)


def record(op: str, backend_name: str, kernel: str, plan: str = "", reason: str = "") -> None:
    """Add a launch that the extension did not make itself."""
    if state.launches is not None:
        state.launches.collect()
        list.append(state.launches, Launch(op, backend_name, kernel, plan, reason))


_FLOATS = frozenset((torch.float32, torch.float64, torch.float16, torch.bfloat16))


_is_batch = torch._C._functorch.is_legacy_batchedtensor  # as torch.autograd.grad(is_grads_batched=True) makes them


def watched(*tensors: torch.Tensor) -> bool:
    """Whether something follows the ops that torch runs and would not see a kernel of ours: see `why_not_ours`."""
    if torch._C._are_functorch_transforms_active():
        return True
    if is_dynamo_compiling():
        return False
    if torch._C._is_tracing() or forward_ad._current_level >= 0:
        return True
    return any(map(_is_batch, tensors))


def why_not_ours(*tensors: Any) -> str | None:
    """Why no kernel of ours can take these tensors, or None when it is their fault or ours."""
    if torch._C._are_functorch_transforms_active():
        return "a functorch transform (vmap, grad) wraps the tensors"
    eager = not is_dynamo_compiling()
    if eager and torch._C._is_tracing():
        return "torch.jit.trace records ops of torch"
    dual = eager and forward_ad._current_level >= 0
    for t in tensors:
        if not isinstance(t, torch.Tensor):
            continue
        if eager and _is_batch(t):
            return "a batch of gradients has no kernel"
        if dual and forward_ad.unpack_dual(t).tangent is not None:
            return "forward-mode derivatives have no kernel"
        if t.dtype not in _FLOATS:
            return f"dtype {t.dtype} has no kernel"
        if t.layout is not torch.strided or t.is_nested:
            return f"layout {'nested' if t.is_nested else t.layout} has no kernel"
        if t.device.type not in ("cpu", "cuda"):
            return f"device {t.device.type} has no kernel"
        if t.device.type == "cuda" and (missing := BACKENDS["cuda"].missing()):
            return f"CUDA kernels can't run: {missing}"
    return None


def is_refusal(error: Exception) -> bool:
    """Whether the error is an op's, and not of a hook or mode of the user that torch called on the way."""
    if is_dynamo_compiling() or (trace := error.__traceback__) is None:
        return True
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_globals.get("__name__", "").partition(".")[0] in ("neurokern", "torch")


def renamed(op: str, error: Exception) -> Exception:
    """A kernel's error under the name of the function that the user called."""
    kernel, colon, rest = str(error).partition(": ")
    if type(error) is RuntimeError and colon and kernel.startswith("neurokern."):
        return RuntimeError(f"neurokern.{op}: {rest}").with_traceback(error.__traceback__)
    return error


def fall_back(op: str, error: Exception, torch_call: Callable[[], Any], *tensors: Any) -> Any:
    """After a kernel refused: torch's own op when the kind of tensor has no kernel, else the error itself."""
    if not is_refusal(error):
        raise error
    reason = why_not_ours(*tensors)
    if reason is None or state.chosen != "auto":
        raise renamed(op, error)
    return to_torch(op, reason, torch_call)


def to_torch(op: str, reason: str, torch_call: Callable[[], Any]) -> Any:
    """Run torch's own op, saying why; an error under ``strict()``."""
    if state.strict:
        raise RuntimeError(f"neurokern.{op}: would fall back to torch: {reason}")
    record(op, "torch", op, reason=reason)
    try:
        return torch_call()
    except Exception as error:
        if str(error).startswith("neurokern.") or type(error).__module__ != "builtins":
            raise
        raise type(error)(f"neurokern.{op}: {reason}, and torch says: {error}") from error
