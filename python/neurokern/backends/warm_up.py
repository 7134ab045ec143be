"""Loading CUDA kernels ahead of their first launch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

import torch

from .. import _C
from . import choice


def _kernels(capability: tuple[int, int]) -> dict[str, list[str]]:
    """The kernels of each fatbin for that device."""
    path = Path(_C.cuda_info()["kernel_dir"]) / "resources.json"
    arch = f"{capability[0]}{capability[1]}a"
    found = {}
    for fatbin, rows in json.loads(path.read_text()).items():
        only = re.search(r"_sm(\d+a)$", fatbin)
        if only is None or only[1] == arch:
            found[fatbin] = sorted({row["kernel"] for row in rows})
    return found


def warm_up(families: str | Iterable[str] | None = None, *, device: torch.device | str | int | None = None) -> int:
    """Load CUDA kernels now, instead of each at its first launch; returns how many there are.

    On a GPU that is newer than the build, the driver compiles each kernel from PTX when it is loaded, and keeps what
    it has compiled for the processes to come (``~/.nv/ComputeCache``). Elsewhere it loads machine code.

    Args:
        families: names of families, such as "matmul", "activation" or "softmax", or one of them; None: all.
        device: the GPU, as torch names it; None: the current one.

    Raises:
        ValueError: no family has that name, or the device is no GPU.
        RuntimeError: our kernels can't run there.
    """
    emulated = _C.emulates()
    index = 0
    if not emulated:
        index = _index(device)
        if (why := choice.cuda_missing(index)) is not None:
            raise RuntimeError(f"neurokern.warm_up: CUDA kernels can't run: {why}")
    kernels = _kernels(_C.cuda_info()["devices"][index]["capability"])
    there = {fatbin.partition("_")[0] for fatbin in kernels}
    wanted = there if families is None else {families} if isinstance(families, str) else set(families)
    if unknown := sorted(wanted - there):
        raise ValueError(f"neurokern.warm_up: no family {unknown[0]!r}, expected some of {', '.join(sorted(there))}")
    # what several families launch
    chosen = [f for f in kernels if f.partition("_")[0] in (wanted | {"elementwise"} if wanted else wanted)]
    for fatbin in chosen:
        for kernel in kernels[fatbin]:
            _C.load_kernel(fatbin, kernel, index)
    return sum(len(kernels[fatbin]) for fatbin in chosen)


def _index(device: torch.device | str | int | None) -> int:
    if device is None:
        return torch.cuda.current_device() if torch.cuda.is_available() else 0
    if not isinstance(device, int):
        device = torch.device(device)
        if device.type != "cuda":
            raise ValueError(f"neurokern.warm_up: device is {str(device)!r}, expected a GPU, such as 'cuda:0'")
        return _index(None) if device.index is None else device.index
    return device
