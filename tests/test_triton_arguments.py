"""Wrong calls that reach a kernel's launcher: each backend raises what the automatic one raises, in its words."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import neurokern.functional as F
import pytest
import torch
from neurokern.testing.targets import Target

f32, f64, f16 = torch.float32, torch.float64, torch.float16


def ones(*shape: int, dtype: torch.dtype = f32, wants: bool = False) -> torch.Tensor:
    return torch.ones(shape, dtype=dtype, requires_grad=wants)


CALLS: dict[str, Callable[[], object]] = {
    "matmul: inner sizes": lambda: F.matmul(ones(2, 3), ones(4, 5)),
    "matmul: vectors": lambda: F.matmul(ones(3), ones(4)),
    "matmul: batches": lambda: F.matmul(ones(2, 3, 4), ones(3, 4, 5)),
    "matmul: dtypes": lambda: F.matmul(ones(2, 3), ones(3, 4, dtype=f16)),
    "matmul: 0-d": lambda: F.matmul(ones(), ones(3)),
    "mm: a batch": lambda: F.mm(ones(2, 3, 4), ones(4, 5)),
    "bmm: batches": lambda: F.bmm(ones(2, 3, 4), ones(1, 4, 5)),
    "addmm: input": lambda: F.addmm(ones(3), ones(2, 3), ones(3, 4)),
    "addmm: input with beta 0": lambda: F.addmm(ones(3), ones(2, 3), ones(3, 4), beta=0),
    "addmm: dtype of input": lambda: F.addmm(ones(4, dtype=f64), ones(2, 3), ones(3, 4)),
    "addmm: inner sizes, alpha 0": lambda: F.addmm(ones(4), ones(2, 3), ones(2, 4), alpha=0),
    "linear: weight": lambda: F.linear(ones(2, 3), ones(5, 4)),
    "linear: a weight of 3 dimensions": lambda: F.linear(ones(2, 3), ones(5, 3, 1)),
    "linear: bias": lambda: F.linear(ones(2, 3), ones(5, 3), ones(4)),
    "linear: bias and activation": lambda: F.linear(ones(2, 3), ones(5, 3), ones(4), activation="gelu"),
    "linear: a bias of another dtype": lambda: F.linear(ones(2, 3), ones(5, 3), ones(5, dtype=f16)),
    "linear: residual": lambda: F.linear(ones(2, 3), ones(5, 3), residual=ones(3, 5)),
    "linear: a residual of another dtype": lambda: F.linear(ones(2, 3), ones(5, 3), residual=ones(2, 5, dtype=f64)),
    "linear: recorded": lambda: F.linear(ones(2, 3, wants=True), ones(5, 4), activation="silu"),
    "bilinear: weight": lambda: F.bilinear(ones(2, 3), ones(2, 4), ones(5, 4, 3)),
    "prelu: weight": lambda: F.prelu(ones(2, 3), ones(4)),
    "prelu: a weight of 2 dimensions": lambda: F.prelu(ones(2, 3), ones(1, 3)),
    "prelu: dtypes": lambda: F.prelu(ones(2, 3), ones(3, dtype=f64)),
    "glu: an odd size": lambda: F.glu(ones(2, 3)),
    "swiglu: an odd size": lambda: F.swiglu(ones(3, 2), 0),
    "glu: dim": lambda: F.glu(ones(2, 4), 2),
    "geglu: 0-d": lambda: F.geglu(ones()),
    "softmax: dim": lambda: F.softmax(ones(2, 3), 2),
    "log_softmax: a negative dim": lambda: F.log_softmax(ones(2, 3), -3),
    "relu_: an expanded tensor": lambda: F.relu_(ones(1).expand(4)),
    "silu: an expanded tensor in place": lambda: F.silu(ones(3, 1).expand(3, 4), inplace=True),
    "elu_: a tensor whose elements share memory": lambda: F.elu_(ones(9).as_strided((3, 3), (1, 1))),
    "gelu: a list": lambda: F.gelu([1.0]),
    "threshold: a word": lambda: F.threshold(ones(2), "a", 0.0),
}


def refusal(call: Callable[[], object]) -> tuple[type | None, str]:
    try:
        call()
    except Exception as error:
        return type(error), str(error)
    return None, ""


@pytest.mark.parametrize("target", [Target("cpu"), Target("cuda", emulated=True), Target("triton")], ids=lambda t: t.id)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_backends_refuse_alike(call: Callable[[], object], target: Target) -> None:
    if reason := target.missing():
        pytest.skip(reason)
    # where torch makes the tensors; as a mode it is none for the CPU, where no call should be watched
    with torch.device(target.device) if target.device != "cpu" else nullcontext():
        kind, words = refusal(call)
        with target.active():
            named, said = refusal(call)
    assert kind is not None
    assert named is kind, f"automatic: {kind.__name__} ({words}), {target.id}: {named and named.__name__} ({said})"
    # a backend that was asked for by name says that it doesn't hand on to torch
    if "torch says" not in words and "no kernel" not in said:
        assert said == words
