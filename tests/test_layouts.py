"""Any strides in, no copy made to fit them; any strides of a gradient; the layout of the output is torch's."""

from __future__ import annotations

import inspect
from functools import partial

import neurokern.functional as F
import pytest
import torch
from neurokern.testing import Maker, OpSpec, Sample, Target, all_specs, evaluate, judge, spec
from neurokern.testing.run import expected_of
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# ops that copy a whole tensor; a kernel's own workspace is not among them
COPIES = {"clone", "copy_", "_to_copy", "contiguous", "cat", "_reshape_copy", "index_select", "repeat"}


class NoCopies(TorchDispatchMode):
    """An error at the first copy that Python code asks torch for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in COPIES:
            shapes = [list(a.shape) for a in args if isinstance(a, Tensor)]
            raise AssertionError(f"aten.{name} of {shapes}: nothing needs copying here")
        return func(*args, **(kwargs or {}))


def negative_view(t: Tensor) -> Tensor:
    """-t as a lazily negated view, as the imaginary part of a conjugate gives it."""
    if t.dtype not in (torch.float32, torch.float64):
        return t
    return torch.complex(torch.zeros_like(t), t).conj().imag


def image(make: Maker) -> Tensor:
    return make(2, 6, 5, 4, scale=2)


LAYOUTS = {
    "contiguous": image,
    "channels_last": lambda make: image(make).to(memory_format=torch.channels_last),
    "transposed": lambda make: make(4, 5, 6, 2, scale=2).permute(3, 2, 1, 0),
    "every other element": lambda make: make(2, 6, 5, 8, scale=2)[..., ::2],
    "every other row": lambda make: make(2, 6, 10, 4, scale=2)[:, :, ::2],
    "a window of a larger tensor": lambda make: make(4, 9, 8, 7, scale=2)[1:3, 2:8, 1:6, 3:],
    "memory not aligned to a vector": lambda make: make(241, scale=2)[1:].view(2, 6, 5, 4),
    "expanded along the last dimension": lambda make: make(2, 6, 5, 1, scale=2).expand(2, 6, 5, 4),
    "expanded along the first dimension": lambda make: make(1, 6, 5, 4, scale=2).expand(2, 6, 5, 4),
    "one element for all": lambda make: make(1, 1, 1, 1).expand(2, 6, 5, 4),
    "lazily negated": lambda make: negative_view(image(make)),
    "seven dimensions": lambda make: make(2, 1, 6, 1, 5, 2, 2, scale=2).permute(0, 6, 2, 3, 5, 4, 1),
}


STAND_FOR_ALL = ("every other row", "transposed", "expanded along the last dimension")


def of_images() -> list[OpSpec]:
    """The specs that take an image alone."""
    return [s for s in all_specs() if s.family == "activation" and s.name not in ("prelu", "rrelu")]


def of_each_kernel() -> list[OpSpec]:
    """The first of those that go the same way: a layout is the affair of the walk, not of the function."""
    return list({s.registered: s for s in reversed(of_images())}.values())


def sample_of(s: OpSpec, x: Tensor) -> Sample:
    """The spec's first sample with another input, along an even dimension where the op goes along one."""
    first = next(iter(s.samples(Maker.seeded(0))))
    if "dim" in inspect.signature(s.op).parameters:
        kw = {k: v for k, v in first.kwargs.items() if k != "dim"}
        even = 1 if x.dim() == 4 else 0
        return Sample("", (x, even), kw)
    return Sample("", (x, *first.args[1:]), first.kwargs)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_elementwise_and_softmax(layout: str, on: Target, seed: int) -> None:
    """Judged by the same rule as every sample, with gradients of every layout too, and no copy in between."""
    if (on.interpreted or on.few) and layout not in STAND_FOR_ALL:
        pytest.skip("three layouts stand for all")
    wrong = []
    for s in of_each_kernel():
        for dtype in (torch.float32, torch.bfloat16):
            make = Maker.seeded(seed, s.id, layout, dtype=dtype, device=on.device)
            sample = sample_of(s, LAYOUTS[layout](make))
            out = s.torch(*sample.args, **sample.kwargs)
            for gradient in ("dense", "stride 0", "transposed"):
                g = make(*out.shape)
                if gradient == "stride 0":  # what loss.sum() sends back
                    g = make(1).view([1] * out.dim()).expand(out.shape)
                elif gradient == "transposed":
                    g = make(*reversed(out.shape)).permute(*reversed(range(out.dim())))
                named = Sample(f"{layout}, gradient {gradient}", sample.args, sample.kwargs)
                wrong += [f"{s.id} {dtype}: {w}" for w in judge(s, expected_of(s, named, make, (g,)), 1)]
    if wrong:
        pytest.fail(f"{on.id}, seed {seed}:\n" + "\n".join(wrong), pytrace=False)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "lazily negated"])
@pytest.mark.backends("auto", "cuda", few=False)
def test_nothing_is_copied(layout: str, on: Target, seed: int) -> None:
    for s in of_images():
        make = Maker.seeded(seed, s.id, layout, device=on.device)
        x = LAYOUTS[layout](make)
        sample = sample_of(s, x)
        g = torch.ones_like(s.torch(*sample.args, **sample.kwargs))
        try:
            with NoCopies():
                evaluate(s.op, sample, 1, (g,))
        except AssertionError as error:
            pytest.fail(f"{s.id}, {layout}: {error}")


@pytest.mark.parametrize("name", ["linear", "linear-gelu", "matmul", "bmm", "mm", "addmm"])
@pytest.mark.backends("auto", "cuda", few=False)
def test_products_copy_nothing(name: str, on: Target, seed: int) -> None:
    """Packing happens inside the kernel: no operand is made contiguous before it, forward or backward."""
    s = spec(name)
    make = Maker.seeded(seed, name, "copies", device=on.device)
    for sample in s.samples(make):
        if "don't merge" in sample.why:
            continue  # rows whose strides allow no single matrix are gathered for the weight's gradient
        g = torch.ones_like(s.torch(*sample.args, **sample.kwargs))
        try:
            with NoCopies():
                evaluate(s.op, sample, 1, (g,))
        except AssertionError as error:
            pytest.fail(f"{name}, sample '{sample.why}': {error}")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_outputs_lie_as_torchs_do(layout: str, seed: int) -> None:
    make = Maker.seeded(seed, layout)
    x = LAYOUTS[layout](make)
    TF = torch.nn.functional
    training = (partial(F.rrelu, training=True), partial(TF.rrelu, training=True))
    for f, t in ((F.relu, torch.relu), (F.gelu, TF.gelu), (F.logsigmoid, TF.logsigmoid), training):
        assert f(x).stride() == t(x).stride(), (f, layout)
    for d in range(x.dim()):
        for f, t in ((F.softmax, torch.softmax), (F.log_softmax, torch.log_softmax), (F.softmin, torch.softmax)):
            assert f(x, d).stride() == t(x, d).stride(), (f.__name__, d, layout)
        if x.shape[d] % 2 == 0 and 0 not in x.stride():  # for expanded halves torch has an order of its own
            assert F.glu(x, d).stride() == torch.nn.functional.glu(x, d).stride(), (d, layout)


@pytest.mark.parametrize("transposed", ["NN", "NT", "TN", "TT"])
@pytest.mark.parametrize("step", [1, 2], ids=["dense", "sliced"])
def test_products_of_every_orientation(transposed: str, step: int, on: Target, seed: int) -> None:
    make_matrix = {
        "N": lambda make, m, n: make(m * step, n * step)[::step, ::step],
        "T": lambda make, m, n: make(n * step, m * step)[::step, ::step].t(),
    }
    wrong = []
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        for m, n, k in ((1, 37, 50), (4, 70, 33), (45, 39, 51)):
            make = Maker.seeded(seed, transposed, step, m, dtype=dtype, device=on.device)
            a, b = (make_matrix[c](make, *s) for c, s in zip(transposed, ((m, k), (k, n)), strict=True))
            g = make_matrix["T"](make, m, n)
            want = expected_of(spec("mm"), Sample(f"{m} x {n} x {k}", (a, b)), make, (g,))
            wrong += judge(spec("mm"), want, 1)
    if wrong:
        pytest.fail(f"{transposed} on {on.id}, seed {seed}:\n" + "\n".join(wrong), pytrace=False)


def test_a_view_that_is_lazily_negated(seed: int) -> None:
    """Such a view's memory holds the other sign."""
    make = Maker.seeded(seed, "negative")
    a, b = negative_view(make(5, 7)), negative_view(make(7, 3))
    assert a.is_neg()
    torch.testing.assert_close(F.matmul(a, b), torch.matmul(a, b))
    bias = negative_view(make(3))
    torch.testing.assert_close(F.linear(a, b.t(), bias), torch.nn.functional.linear(a, b.t(), bias))
    x = negative_view(make(9))
    torch.testing.assert_close(F.relu(x), torch.relu(x))
    y, z = x.clone(), negative_view(-x.clone())
    F.relu_(z)
    torch.testing.assert_close(z, torch.relu(y))


@pytest.mark.parametrize("length", [1, 16, 63, 64, 65, 1000])
@pytest.mark.parametrize("weights", [1, None], ids=["one weight", "weights"])
def test_rows_of_one_value(length: int, weights: int | None, seed: int) -> None:
    """Expanded along the last dimension: the kernel is given each value but once."""
    make = Maker.seeded(seed, "rows of one value")
    x = make(3, 1).expand(3, length)
    w = make(weights or length)
    torch.testing.assert_close(F.prelu(x, w), torch.prelu(x, w))
    negative = (-make(3, 1).abs() - 1).expand(3, length)
    torch.testing.assert_close(F.rrelu(negative, 0.25, 0.25, training=True), negative / 4)
