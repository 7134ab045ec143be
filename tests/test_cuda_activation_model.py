"""The CUDA kernels of the activation family, compiled for the CPU, against torch in float64.

Every op, element type and activation over drawn shapes and layouts: outputs start as NaN and lie in the middle of
larger memory, so that a missing or a stray store shows.
"""

from __future__ import annotations

import importlib.util
import math
import random
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from neurokern.ops.activation import ACTIVATIONS as IDS
from neurokern.ops.activation import TORCH
from neurokern.specs._exact import EXACT
from neurokern.specs.gated import exact_softmax

_spec = importlib.util.spec_from_file_location("cuda_on_host", Path(__file__).parent / "cuda_on_host" / "library.py")
host = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(host)

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

ULP = {torch.float32: 2.0**-23, torch.float64: 2.0**-52, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}
NAN = float("nan")
PARAMETERS = {
    "leaky_relu": (0.125,), "elu": (0.75,), "celu": (0.5,), "hardtanh": (-0.75, 1.25), "hardshrink": (0.375,),
    "softshrink": (0.375,), "softplus": (1.5, 2.0), "threshold": (0.125, 0.25),
}  # fmt: skip


def _torchs(name: str, x: torch.Tensor) -> torch.Tensor:
    p0, p1, *_ = (*PARAMETERS.get(name, ()), 0.0, 0.0)
    return TORCH[name](x * 1 if name == "identity" else x, p0, p1)


ACTIVATIONS = {name: (partial(_torchs, name), PARAMETERS.get(name, ())) for name in IDS}
SOFTMAX = ("softmax", "log_softmax", "softmin")

# name -> a tensor of that layout from a filler of the memory behind it
OUT_LAYOUTS = {
    "dense": lambda s, new: new(s),
    "slice at an odd offset": lambda s, new: new((*s[:-1], 2 * s[-1] + 3))[..., 1 : 1 + s[-1]],
    "first part, rows aligned": lambda s, new: new((*s[:-1], 2 * s[-1] + (-2 * s[-1]) % 16))[..., : s[-1]],
    "second half": lambda s, new: new((*s[:-1], 2 * s[-1]))[..., s[-1] :],
    "every second": lambda s, new: new((*s[:-1], 2 * s[-1]))[..., ::2],
    "all dims turned round": lambda s, new: new(tuple(reversed(s))).permute(*reversed(range(len(s)))),
    "channels last": lambda s, new: new((s[0], *s[2:], s[1])).movedim(-1, 1) if len(s) > 2 else new(s),
}
IN_LAYOUTS = OUT_LAYOUTS | {
    "one value": lambda s, new: new((1,) * len(s)).expand(s),
    "one value a row": lambda s, new: new((*s[:-1], 1)).expand(s),
    "one row": lambda s, new: new((1, *s[1:])).expand(s),
}
SHAPES = [(1,), (7,), (8,), (1000,), (9000,), (5, 16), (3, 64), (33, 40), (2, 3, 5, 7), (2, 8, 4, 4), (2, 16, 3, 8),
          (2, 3, 64), (4, 1, 6), (3, 4, 5, 6, 8), (2,) * 10, (0,), (3, 0, 2)]  # fmt: skip


class Draw:
    """Random cases from one seed."""

    def __init__(self, seed: int, dtype: torch.dtype) -> None:
        self.r, self.dtype, self.seed = random.Random(seed), dtype, seed
        self.generator = torch.Generator().manual_seed(seed)
        self.layouts: list[str] = []

    def numbers(self, shape: tuple[int, ...]) -> torch.Tensor:
        return (2 * torch.randn(shape, generator=self.generator, dtype=torch.float64)).to(self.dtype)

    def small_negatives(self, shape: tuple[int, ...]) -> torch.Tensor:
        return -self.numbers(shape).abs() / 4

    def inputs(self, shape: tuple[int, ...], n: int) -> list[torch.Tensor]:
        same = self.r.random() < 0.4
        names = [self.r.choice(list(OUT_LAYOUTS if same else IN_LAYOUTS)) for _ in range(n)]
        self.layouts = [names[0]] * n if same else names
        return [IN_LAYOUTS[name](shape, self.numbers) for name in self.layouts]

    def output(self, shape: tuple[int, ...]) -> torch.Tensor:
        name = self.layouts[0] if self.layouts and self.layouts[0] in OUT_LAYOUTS and self.r.random() < 0.6 else None
        name = name or self.r.choice(list(OUT_LAYOUTS))
        self.layouts.append(name)
        return OUT_LAYOUTS[name](shape, lambda s: torch.full(s, NAN, dtype=self.dtype))


def stray(out: torch.Tensor) -> int:
    """Stores into the memory around an output: what is behind it, less the output itself, must still be NaN."""
    behind = torch.empty(0, dtype=out.dtype).set_(out.untyped_storage())
    return int((~behind.isnan()).sum()) - int((~out.isnan()).sum())


def check(got: torch.Tensor, expected: torch.Tensor, ulps: float, case: str) -> None:
    error = (got.double() - expected).abs()
    allowed = ulps * ULP[got.dtype] * (1 + expected.abs())
    right = (error <= allowed) | (got.double() == expected) | (got.isnan() & expected.isnan())
    right |= got.isinf() & (expected.abs() > 0.99 * torch.finfo(got.dtype).max)
    assert right.all(), f"{case}: {got[~right][:3]} for {expected[~right][:3]}"
    assert stray(got) == 0, f"{case}: stores outside the output"


@pytest.mark.parametrize("dtype", host.DTYPES, ids=str)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_elementwise(name: str, dtype: torch.dtype) -> None:
    f, p = ACTIVATIONS[name]
    f = (
        f if p else EXACT.get(name, f)
    )  # torch's own loses digits in float64, which a product with large gradients magnifies
    act, p = IDS[name], (*p, 0.0, 0.0)[:2]
    # torch computes some constants in float, whatever the type
    ulps = 2.0**30 if dtype == torch.float64 and name in ("hardsigmoid", "hardswish") else 64
    for seed in random.sample(range(10**6), 4):
        d = Draw(seed, dtype)
        shape = d.r.choice(SHAPES)
        x, g, gg = d.inputs(shape, 3)
        xd = x.double().contiguous().requires_grad_()
        y = f(xd)
        (gx,) = torch.autograd.grad(y, xd, g.double(), create_graph=True)
        cases = {
            "unary": ([x], [y]),
            "unary_backward": ([g, x], [gx]),
            "gated": ([x, g], [y * g]),
            "gated_backward": ([gg, x, g], [gx * gg, gg * y]),
        }
        if name != "hardsigmoid":  # which torch can't differentiate twice
            ggx = torch.autograd.grad(gx, xd, gg.double(), allow_unused=True)[0] if gx.requires_grad else None
            cases["unary_backward2"] = ([gg, g, x], [torch.zeros_like(xd) if ggx is None else ggx])
        for op, (inputs, expected) in cases.items():
            outs = [d.output(shape) for _ in expected]
            launches = host.run(op, [*outs, *inputs], act, p, multiprocessors=d.r.choice((1, 2, 132)))
            for out, reference in zip(outs, expected, strict=True):
                check(out, reference.detach(), ulps, f"{op} {name} seed {seed} {shape} {d.layouts} {launches}")
        inplace = OUT_LAYOUTS[d.r.choice(list(OUT_LAYOUTS))](shape, d.numbers)
        expected = f(inplace.double())
        host.run("unary", [inplace, inplace], act, p)
        error = (inplace.double() - expected).abs()
        assert (error <= ulps * ULP[dtype] * (1 + expected.abs())).all(), f"in place: {name} seed {seed} {shape}"


@pytest.mark.parametrize("dtype", host.DTYPES, ids=str)
@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_derivatives_from_the_output(name: str, dtype: torch.dtype) -> None:
    slope, bend = {
        "sigmoid": (lambda y: y * (1 - y), lambda y: 1 - 2 * y),
        "tanh": (lambda y: 1 - y * y, lambda y: -2 * y),
    }[name]
    act = list(ACTIVATIONS).index(name)
    for seed in random.sample(range(10**6), 4):
        d = Draw(seed, dtype)
        shape = d.r.choice(SHAPES)
        y, g, gg = d.inputs(shape, 3)
        cases = {
            "unary_backward": ([g, y], g.double() * slope(y.double())),
            "unary_backward2": ([gg, g, y], gg.double() * g.double() * bend(y.double())),
        }
        for op, (inputs, expected) in cases.items():
            out = d.output(shape)
            host.run(op, [out, *inputs], act, (1.0, 0.0))
            check(out, expected, 64, f"{op} {name} seed {seed} {shape} {d.layouts}")


@pytest.mark.parametrize("dtype", host.DTYPES, ids=str)
def test_prelu(dtype: torch.dtype) -> None:
    kernels = set()
    for seed in random.sample(range(10**6), 40):
        d = Draw(seed, dtype)
        shape = d.r.choice([s for s in SHAPES if 2 <= len(s) < 9])
        channels = shape[1] if d.r.random() < 0.7 else 1
        x, g = d.inputs(shape, 2)
        w = d.numbers((channels,))
        expanded = (w.view(1, channels, *(1,) * (len(shape) - 2)) if channels != 1 else w).expand(shape)
        xd, wd = x.double().contiguous().requires_grad_(), w.double().requires_grad_()
        y = F.prelu(xd, wd) if x.numel() else xd * 1
        gx, gw = torch.autograd.grad(y, (xd, wd), g.double(), allow_unused=True)
        case = f"seed {seed} {shape} channels {channels} {d.layouts}"
        out = d.output(shape)
        host.run("prelu", [out, x, expanded])
        check(out, y.detach(), 2, case)
        out = d.output(shape)
        host.run("prelu_backward", [out, None, g, x, expanded])
        check(out, gx, 2, case)
        for multiprocessors in (9, 1) if channels > 0 else ():  # many parts, and few
            out, sums = d.output(shape), torch.full((2 * channels,), NAN, dtype=dtype)[::2]
            launches = host.run("prelu_backward", [out, sums, g, x, expanded], multiprocessors=multiprocessors)
            kernels |= {line.split(":")[0].rsplit("_", 1)[0] for line in launches.splitlines()}
            check(out, gx, 2, f"{case} {launches}")
            total = torch.zeros_like(wd) if gw is None else gw
            check(sums, total, 8 * math.sqrt(1 + x.numel() / channels), f"{case} {launches}")
    assert kernels == {"activation_prelu_rows", "activation_prelu_columns"}


@pytest.mark.parametrize("dtype", host.DTYPES, ids=str)
@pytest.mark.parametrize("name", ["identity", "relu", "gelu", "silu"])
def test_activation_bias_backward(name: str, dtype: torch.dtype) -> None:
    f, _ = ACTIVATIONS[name]
    shapes = [(1, 1), (5, 8), (300, 3), (1000, 1), (64, 256), (7, 1024), (0, 8), (3, 0), (700, 40), (33, 17)]
    for seed in random.sample(range(10**6), 8):
        d = Draw(seed, dtype)
        rows, columns = shape = d.r.choice(shapes)
        g, z = d.inputs(shape, 2)
        zd = z.double().contiguous().requires_grad_()
        (gz,) = torch.autograd.grad(f(zd), zd, g.double())
        out = d.output(shape) if d.r.random() < 0.7 else None
        sums = torch.full((2 * columns,), NAN, dtype=dtype)[::2] if out is None or d.r.random() < 0.8 else None
        tensors = [out, sums, g, None if name == "identity" else z]
        act = IDS[name]
        launches = host.run("activation_bias_backward", tensors, act, multiprocessors=d.r.choice((1, 4, 132)))
        case = f"{name} seed {seed} {shape} {d.layouts} {launches}"
        if out is not None:
            check(out, gz, 16, case)
        if sums is not None:
            check(sums, gz.sum(0), 8 * math.sqrt(1 + rows), case)


@pytest.mark.parametrize("dtype", host.DTYPES, ids=str)
@pytest.mark.parametrize("kind", [0, 1, 2])
def test_softmax(kind: int, dtype: torch.dtype) -> None:
    lengths = [1, 2, 3, 8, 10, 16, 17, 31, 33, 64, 65, 100, 128, 256, 257, 300, 512, 600, 1000, 1024, 1032, 1500, 4096,
               8200, 17000, 40000]  # fmt: skip
    for seed in random.sample(range(10**6), 30):
        d = Draw(seed, dtype)
        shape = [d.r.choice((1, 2, 3, 5, 8, 16)) for _ in range(d.r.randint(1, 4))]
        dim = d.r.randrange(len(shape))
        length = shape[dim] = d.r.choice(lengths)
        while math.prod(shape) > 50000 and math.prod(shape) > length:
            shape[max((i for i in range(len(shape)) if i != dim), key=lambda i: shape[i])] = 1
        shape = tuple(shape)
        (x,) = d.inputs(shape, 1)
        if d.r.random() < 0.3 and d.layouts[0] in OUT_LAYOUTS:
            for _ in range(3):
                x[tuple(d.r.randrange(n) for n in shape)] = d.r.choice((NAN, math.inf, -math.inf))
            if d.r.random() < 0.3 and len(shape) > 1:
                x.select(0, 0).fill_(-math.inf)
        expected = exact_softmax(x.double(), dim, SOFTMAX[kind])
        out = d.output(shape)
        launches = host.run("softmax", [out, x], kind, dim=dim, multiprocessors=d.r.choice((1, 132)))
        check(out, expected, 8, f"kind {kind} seed {seed} {shape} dim {dim} {d.layouts} {launches}")

        (g,) = d.inputs(shape, 1)
        name = d.r.choice(list(IN_LAYOUTS))
        y = IN_LAYOUTS[name](shape, d.small_negatives)  # a fair size for a probability and for its logarithm
        d.layouts.append(name)
        gd, yd = g.double(), y.double()
        if kind == 1:
            expected = gd - yd.exp() * gd.sum(dim, keepdim=True)
        else:
            expected = yd * (gd - (gd * yd).sum(dim, keepdim=True)) * (-1 if kind == 2 else 1)
        out = d.output(shape)
        launches = host.run("softmax_backward", [out, g, y], kind, dim=dim, multiprocessors=d.r.choice((1, 132)))
        case = f"backward kind {kind} seed {seed} {shape} dim {dim} {d.layouts} {launches}"
        check(out, expected, 32 * math.sqrt(length), case)


@pytest.mark.parametrize("kind", range(3), ids=SOFTMAX)
@pytest.mark.parametrize("dtype", host.DTYPES, ids=str)
@pytest.mark.parametrize(
    "shape, dim, kernel", [((1, 40000), 1, "long"), ((500, 16), 0, "inner"), ((500, 3), 0, "inner")], ids=str
)
def test_softmax_of_stretches_without_weight(shape, dim: int, kernel: str, dtype: torch.dtype, kind: int) -> None:
    """All that some threads see is -inf (of softmin +inf): they have no maximum and must not make the sum a NaN."""
    x = torch.full(shape, math.inf if kind == 2 else -math.inf, dtype=dtype)
    x.select(dim, 7).copy_(torch.randn(x.select(dim, 7).shape))
    x.select(dim, 9).copy_(torch.randn(x.select(dim, 9).shape))
    out = torch.full(shape, NAN, dtype=dtype)
    launches = host.run("softmax", [out, x], kind, dim=dim)
    assert kernel in launches
    check(out, exact_softmax(x.double(), dim, SOFTMAX[kind]), 8, launches)


@pytest.mark.parametrize("dtype", host.DTYPES, ids=str)
def test_prelu_of_a_partly_filled_unit(dtype: torch.dtype) -> None:
    """77 elements, dense and aligned: the last unit's other places belong to somebody else."""
    around = [torch.full((128,), NAN, dtype=dtype) for _ in range(3)]
    out, g, x = (t[16 : 16 + 77].view(7, 11) for t in around)
    for t in (g, x):
        t.copy_(torch.randn(7, 11))
    w = torch.randn(1).to(dtype)
    sums = torch.full((1,), NAN, dtype=dtype)
    launches = host.run("prelu_backward", [out, sums, g, x, w.expand(7, 11)])
    assert "prelu_rows" in launches
    positive = x.double() > 0
    check(out, torch.where(positive, g.double(), g.double() * w.double()), 2, launches)
    terms = torch.where(positive, 0.0, g.double() * x.double())
    error = (sums.double() - terms.sum()).abs().item()
    assert error <= ULP[dtype] * (terms.abs().sum().item() + 1), launches


@pytest.mark.parametrize("dtype", host.DTYPES, ids=str)
def test_sums_of_more_parts_than_row_groups(dtype: torch.dtype) -> None:
    """15 parts, which 8 groups of threads add up in turns."""
    g = torch.randn(900, 256).to(dtype)
    sums = torch.full((256,), NAN, dtype=dtype)
    launches = host.run("activation_bias_backward", [None, sums, g, None], IDS["identity"], multiprocessors=132)
    assert " x 15" in launches
    check(sums, g.double().sum(0), 8 * math.sqrt(900), launches)
