"""The Triton kernels in the interpreter: every function, dtype and form, against float64.

The specs test the public functions; here are the launch functions themselves, with layouts, edges and plans that
the layers above do not choose. Runs in a process of its own, as TRITON_INTERPRET decides when kernels are decorated.
"""

from __future__ import annotations

import mmap
import os
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from neurokern.ops.activation import TORCH
from neurokern.specs._exact import EXACT
from torch import Tensor

pytest.importorskip("triton")
pytestmark = pytest.mark.slow
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")

if INTERPRETED:
    from neurokern.kernels.triton import activation, matmul, softmax
    from neurokern.kernels.triton._functions import ACTIVATIONS

    NAMES = [a[0] for a in ACTIVATIONS]
else:
    NAMES = []

    def test_the_rest(in_a_process_of_its_own):
        in_a_process_of_its_own("1")


needs_interpreter = pytest.mark.skipif(not INTERPRETED, reason="runs in the process started above")
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
INF, NAN = float("inf"), float("nan")
EDGES = (NAN, INF, -INF, 0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.0, -3.0, 6.0, 1.5, 20.0, -20.0, 100.0, -100.0)
SEED = int(os.environ["NEUROKERN_SEED"])

PARAMETERS = {
    "leaky_relu": (0.1, 0.0), "elu": (1.3, 0.0), "celu": (1.5, 0.0), "hardtanh": (-1.0, 2.0), "hardshrink": (0.5, 0.0),
    "softshrink": (0.5, 0.0), "softplus": (2.0, 3.0), "threshold": (0.5, -7.0),
}  # fmt: skip


def _by_torch(name: str, x: Tensor) -> Tensor:
    """torch's own function of that name, as exact in float64 as it must be to judge by."""
    if name == "gelu" and x.dtype == torch.float64:
        return EXACT["gelu"](x)  # torch's 1 + erf has lost its digits below -5, in float64 too
    return TORCH[name](x * 1 if name == "identity" else x, *PARAMETERS.get(name, (0.0, 0.0)))


@pytest.fixture
def draw():
    """Normal values of a shape and dtype, from the seed of this run."""
    generator = torch.Generator().manual_seed(SEED)
    return lambda dtype, *shape: torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def nans(like: Tensor) -> Tensor:
    return torch.full(like.shape, NAN, dtype=like.dtype)


def check(what: str, ours: Tensor, exact: Tensor, torchs: Tensor | None = None, terms: float = 1.0) -> None:
    """Error at most twice torch's largest in the same dtype, plus ``terms`` units in the last place of the value."""
    __tracebackhide__ = True
    special = ~exact.isfinite()
    wide = ours.double()
    same = torch.where(special, (wide == exact) | (wide.isnan() & exact.isnan()), wide.isfinite())
    assert same.all(), f"{what}: {wide[~same][:4]} for {exact[~same][:4]} (NEUROKERN_SEED={SEED})"
    info = torch.finfo(ours.dtype)
    unit = info.eps * exact.abs() + info.smallest_normal
    theirs = torch.zeros(())
    if torchs is not None and torchs.isfinite().any():
        theirs = ((torchs.double() - exact) / unit).abs()[~special & torchs.isfinite()].max()
    error = ((wide - exact) / unit).abs()[~special]
    worst = error.max() if error.numel() else 0.0
    assert worst <= 2 * theirs + terms, (
        f"{what}: {worst:.3g} units in the last place, torch {theirs:.3g} (NEUROKERN_SEED={SEED})"
    )


def derivatives(f, x: Tensor) -> list[Tensor]:
    """f, f' and f'' by autograd; zero where torch has no second derivative."""
    x = x.detach().clone().requires_grad_()
    y = f(x)
    (d,) = torch.autograd.grad(y, x, torch.ones_like(y), create_graph=True)
    dd = None
    if d.requires_grad and not d.grad_fn.name().endswith("NotImplemented"):
        (dd,) = torch.autograd.grad(d, x, torch.ones_like(d), allow_unused=True)
    return [y.detach(), d.detach(), torch.zeros_like(x) if dd is None else dd]


@needs_interpreter
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("act", range(len(NAMES)), ids=NAMES)
def test_activation(draw, act, dtype):
    """f, f' and f'' on random values of which some are large; elementwise within 2x torch's worst + 2 units."""
    name = NAMES[act]
    p = PARAMETERS.get(name, (0.0, 0.0))
    # To -5 only: further out float64 torch itself cancels in the second derivatives.
    x = (draw(dtype, 2000) * 2).clamp(-5, 5)
    f = partial(_by_torch, name)
    exact, theirs = derivatives(f, x.double()), derivatives(f, x)
    ours, one = [nans(x) for _ in range(3)], torch.ones_like(x)
    activation.unary(ours[0], x, act, *p)
    activation.unary_backward(ours[1], one, x, act, *p)
    activation.unary_backward2(ours[2], one, one, x, act, *p)
    for k in range(3):
        # A derivative crosses zero: there units of the largest value count, as its terms are of that size.
        scale = exact[k].abs().max().clamp_min(1e-30)
        lift = lambda t, e=exact[k], s=scale: t.double() + torch.copysign(s, e)  # noqa: E731
        unit = torch.finfo(dtype).eps
        error, torchs = ((lift(t[k]) - lift(exact[k])).abs().max() / scale / unit for t in (ours, theirs))
        bound = 2 * torchs + 1 if dtype != torch.float64 or name not in ("celu", "hardsigmoid") else 2e8
        bound = max(bound, 8.0) if dtype == torch.float64 else bound
        assert error <= bound, (
            f"{name} derivative {k}: {error:.3g} against torch's {torchs:.3g} (NEUROKERN_SEED={SEED})"
        )
    if dtype in (torch.float32, torch.bfloat16, torch.float16) and name not in ("tanhshrink", "mish", "gelu_tanh"):
        check(f"{name} relative", ours[0], exact[0], theirs[0], terms=4)


@needs_interpreter
@pytest.mark.parametrize("act", range(len(NAMES)), ids=NAMES)
def test_edges(act):
    """NaN, infinities, ties: one element at a time, as torch's vector path answers differently for NaN in places."""
    name = NAMES[act]
    p = PARAMETERS.get(name, (0.0, 0.0))
    x = torch.tensor(EDGES, dtype=torch.float64)
    ours, one = [nans(x) for _ in range(3)], torch.ones_like(x)
    activation.unary(ours[0], x, act, *p)
    activation.unary_backward(ours[1], one, x, act, *p)
    activation.unary_backward2(ours[2], one, one, x, act, *p)
    for k, kind in enumerate(("value", "derivative", "second derivative")):
        if name == "hardsigmoid" and k == 2:
            continue
        for i, v in enumerate(EDGES):
            f = F.gelu if name == "gelu" else partial(_by_torch, name)
            want = derivatives(f, x[i : i + 1])[k].item()
            got = ours[k][i].item()
            same = got == want or (got != got and want != want) or abs(got - want) <= 1e-7 * max(1.0, abs(want))
            assert same, f"{kind} of {name} at {v}: {got}, torch says {want}"


@needs_interpreter
def test_selected_gradients():
    """Where torch selects zero, an infinite gradient does not turn into NaN."""
    x = torch.tensor([-1.0, 0.0, 7.0])
    for name in ("relu", "relu6", "threshold", "squared_relu"):
        out = nans(x)
        activation.unary_backward(out, torch.full_like(x, INF), x, NAMES.index(name), 0.0, 0.0)
        assert out[:2].tolist() == [0.0, 0.0], name


LAYOUTS = {
    "dense": lambda x: x,
    "rows of a wider matrix, aligned": lambda x: x[:, :, :, :16],
    "odd columns": lambda x: x[..., 1::2],
    "permuted": lambda x: x.permute(2, 0, 3, 1),
    "one element repeated": lambda x: x[0, 0, 0, 0].expand(4, 5),
    "a dimension repeated": lambda x: x[:, :1].expand(-1, 5, -1, -1),
    "offset": lambda x: x.reshape(-1)[7:1000],
    "scalar": lambda x: x[1, 1, 1, 1],
    "empty": lambda x: x[:0],
}


@needs_interpreter
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_layouts(draw, layout, dtype):
    """Strided in, strided out, and in place."""
    x = LAYOUTS[layout](draw(dtype, 3, 4, 5, 32))
    backing = torch.full((*x.shape, 2), NAN, dtype=dtype)
    out = backing[..., 0]
    said: list[tuple[str, str]] = []
    relu = NAMES.index("leaky_relu")
    activation.unary(out, x, relu, 0.25, 0.0, record=lambda *a: said.append(a))
    assert torch.equal(out, F.leaky_relu(x, 0.25))
    assert backing[..., 1].isnan().all(), "wrote between its elements"
    assert [k for k, _ in said] == (["unary_kernel"] if x.numel() else [])
    same = x.clone()
    activation.unary(same, same, relu, 0.25, 0.0)
    assert torch.equal(same, out)


@needs_interpreter
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["silu", "gelu", "relu"])
def test_gated(draw, name, dtype):
    a, b = draw(dtype, 13, 34).chunk(2, -1)
    g = draw(dtype, 17, 13).t()
    out, ga, gb = nans(g), nans(g), nans(g)
    act = NAMES.index(name)

    def reference(kind):
        u, v = (t.to(kind).detach().requires_grad_() for t in (a, b))
        y = _by_torch(name, u) * v
        return y.detach(), *torch.autograd.grad(y, (u, v), g.to(kind))

    activation.gated(out, a, b, act, 0.0, 0.0)
    activation.gated_backward(ga, gb, g, a, b, act, 0.0, 0.0)
    for what, got, exact, theirs in zip(
        ("out", "ga", "gb"), (out, ga, gb), reference(torch.float64), reference(dtype), strict=True
    ):
        # Derivatives cross zero; there the size of their terms counts.
        size = torch.maximum(exact.abs(), (g.double() * b.double() if what == "ga" else exact).abs())
        unit = torch.finfo(dtype).eps * size + 1e-40
        error, torchs = (((t.double() - exact).abs() / unit).max() for t in (got, theirs))
        assert error <= max(2 * torchs + 1, 8.0 if dtype == torch.float64 else 4.0), f"{name} {what}: {error:.3g}"


@needs_interpreter
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "shape, weights", [((5, 7, 3, 4), 7), ((300, 33), 33), ((9,), 1), ((40, 6, 5), 1), ((1, 70), 70), ((0, 3), 3)]
)
def test_prelu(draw, shape, weights, dtype):
    """Also with channels last, which turns the tile of the weight gradient."""
    w = draw(dtype, weights)
    wide = (w.reshape(1, -1, *[1] * (len(shape) - 2)) if weights > 1 else w).expand(shape)
    for turn in (False, True):
        x, g = (draw(dtype, *(reversed(shape) if turn else shape)) for _ in range(2))
        x, g = (t.permute(*reversed(range(t.dim()))) if turn else t for t in (x, g))
        out, gx, gw = nans(x), nans(x), nans(w)
        u, v = (t.double().requires_grad_() for t in (x, w))
        y = F.prelu(u, v)
        exact = torch.autograd.grad(y, (u, v), g.double())
        activation.prelu(out, x, wide)
        activation.prelu_backward(gx, gw, g, x, wide)
        check("out", out, y.detach())
        check("gx", gx, exact[0])
        # A sum's error is measured by its terms.
        others = [d for d in range(x.dim()) if weights == 1 or d != 1]
        size = (g.double() * x.double()).abs().sum(others).reshape(-1)
        error = (gw.double() - exact[1]).abs()
        assert (error <= torch.finfo(dtype).eps * size + 1e-30).all(), f"gw is off by {error} (NEUROKERN_SEED={SEED})"
        again = nans(w)
        activation.prelu_backward(gx, again, g, x, wide)
        assert torch.equal(gw, again)


SOFTMAX = [((5, 7), 1), ((9, 7), 0), ((2, 9000), 1), ((700, 33), 0), ((2, 5, 3, 4), 1), ((3, 4, 1, 5), 2), ((), 0)]


@needs_interpreter
@pytest.mark.parametrize("kind", range(3), ids=["softmax", "log_softmax", "softmin"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape, dim", SOFTMAX, ids=str)
def test_softmax(draw, shape, dim, dtype, kind):
    f = (F.softmax, F.log_softmax, F.softmin)[kind]
    x, g = draw(dtype, *shape) * 3, draw(dtype, *shape)
    out, gx = nans(x), nans(x)
    softmax.softmax(out, x, dim, kind)
    want = f(x.double(), dim)
    eps = torch.finfo(dtype).eps
    if kind == 1:
        # A logarithm of almost 1 is a difference of numbers of the size of the inputs.
        size = want.abs() + x.double().abs().max()
        assert ((out.double() - want).abs() <= 4 * eps * size).all(), f"NEUROKERN_SEED={SEED}"
    else:
        check("out", out, want, f(x, dim), terms=64 if dtype == torch.float64 else 4)
    u = x.double().requires_grad_()
    (exact,) = torch.autograd.grad(f(u, dim), u, g.double())
    softmax.softmax_backward(gx, g, out, dim, kind)
    # From a rounded output, as torch's own.
    sizes = (g.double().abs().sum(dim, keepdim=True) if shape else g.double().abs()) + g.double().abs()
    assert ((gx.double() - exact).abs() <= 4 * eps * sizes + torch.finfo(dtype).smallest_normal * eps).all(), (
        f"NEUROKERN_SEED={SEED}"
    )


@needs_interpreter
@pytest.mark.parametrize("length", [5, 9000], ids=["registers", "online"])
def test_softmax_edges(length):
    """Rows with NaN, with +inf, with -inf in places, with nothing but -inf."""
    x = torch.zeros(5, length)
    x[0, 3], x[1, 2], x[2, 1:3], x[3, :], x[4, -1] = NAN, INF, -INF, -INF, 80.0
    for kind, f in enumerate((F.softmax, F.log_softmax)):
        out = nans(x)
        softmax.softmax(out, x, 1, kind)
        torch.testing.assert_close(out, f(x, 1), equal_nan=True)


# (M, N, K): one element, odd, none of K, split K, one row, one column, more than a tile
PRODUCTS = [(1, 1, 1), (5, 7, 3), (3, 5, 0), (8, 16, 4096), (1, 300, 77), (130, 1, 50), (70, 133, 129)]


@needs_interpreter
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", PRODUCTS, ids=str)
def test_matmul(draw, size, dtype):
    """All four orders of a and b, epilogue on and off."""
    m, n, k = size
    for turn in range(4):
        a = draw(dtype, k, m).t() if turn & 1 else draw(dtype, m, k)
        b = draw(dtype, n, k).t() if turn & 2 else draw(dtype, k, n)
        bias, residual = draw(dtype, n), draw(dtype, n, m).t()
        out, preact = nans(residual), nans(residual)
        full = turn in (0, 3)
        if full:
            args = (bias, residual, preact, NAMES.index("silu"), 0.0, 0.0, 0.5, 2.0)
        else:
            args = (None, None, None, 0, 0.0, 0.0, 1.0, 1.0)
        said: list[str] = []
        matmul.matmul(out, a, b, *args, record=lambda name, plan, said=said: said.append(f"{name} {plan}"))
        assert len(said) == (2 if "split_kernel" in said[-1] else 1)
        v = a.double() @ b.double()
        size_of_terms = a.double().abs() @ b.double().abs() + 1
        exact = v
        if full:
            v = 0.5 * v + bias.double()
            size_of_terms = 2 * (size_of_terms + residual.double().abs() + bias.double().abs())
            exact = F.silu(v) + 2 * residual.double()
            error = ((preact.double() - v).abs() / size_of_terms).max()
            assert error <= torch.finfo(dtype).eps, f"preact is off by {error}"
        # Accumulated in f32 or f64, rounded once.
        inner = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
        bound = torch.finfo(dtype).eps * exact.abs() + 4 * inner * (k**0.5 + 4) * size_of_terms
        assert ((out.double() - exact).abs() <= bound).all(), f"{said} (NEUROKERN_SEED={SEED})"
        if turn == 3:
            again = nans(out)
            matmul.matmul(again, a, b, *args[:2], nans(out), *args[3:])
            assert torch.equal(out, again)


@needs_interpreter
def test_matmul_batches(draw):
    """Sliced, expanded, and a shared b, whose batches become rows of one product."""
    d = torch.float32
    a, b = draw(d, 3, 4, 6, 5, 8)[:, :, ::2], draw(d, 1, 4, 1, 8, 9).expand(3, 4, 3, 8, 9)
    shared = draw(d, 8, 9)
    cases = [(a, b), (a, shared.expand(3, 4, 3, 8, 9)), (a[:, :, :, :1], b), (a[0, 0], shared.expand(3, 8, 9))]
    for x, y in cases:
        plans: list[str] = []
        out = torch.full((*x.shape[:-1], 9), NAN)
        matmul.matmul(out, x, y, None, None, None, 0, 0.0, 0.0, 1.0, 1.0, record=lambda _, p, s=plans: s.append(p))
        torch.testing.assert_close(out, (x.double() @ y.double()).float())
    rows = draw(d, 3, 4, 5, 8)
    out = torch.full((3, 4, 5, 9), NAN)
    matmul.matmul(
        out, rows, shared.expand(3, 4, 8, 9), None, None, None, 0, 0.0, 0.0, 1.0, 1.0,
        record=lambda _, p: plans.append(p),
    )  # fmt: skip
    assert "M=60 N=9 K=8 batch=1" in plans[-1]
    torch.testing.assert_close(out, rows @ shared)


def far_apart(values: Tensor, *strides: int) -> Tensor:
    """``values`` with these strides, in memory of which only the elements are ever touched."""
    reach = sum((n - 1) * s for n, s in zip(values.shape, strides, strict=True)) + 1
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)
    memory = mmap.mmap(-1, reach * values.element_size(), flags=flags)
    return torch.frombuffer(memory, dtype=values.dtype).as_strided(values.shape, strides).copy_(values)


@needs_interpreter
@pytest.mark.parametrize("stride", [2**31, 2**31 + 5], ids=["aligned", "odd"])
def test_rows_beyond_32_bits(draw, stride):
    """A stride of 2^31 fits 32 bits divided by the unit of an aligned load, and not once it is multiplied again."""
    values = draw(torch.bfloat16, 2, 64)
    out = nans(values)
    activation.unary(out, far_apart(values, stride, 1), NAMES.index("relu"), 0.0, 0.0)
    assert torch.equal(out, values.relu())


@needs_interpreter
@pytest.mark.parametrize("count", [2**31, 2**31 + 1], ids=["even", "odd"])
def test_lengths_beyond_32_bits(draw, monkeypatch, count):
    """The first of the programs that would do 2^31 elements, whose length comes divided by 16."""
    launch = activation.launch
    monkeypatch.setattr(activation, "launch", lambda kernel, grid, *rest: launch(kernel, 1, *rest))
    values = draw(torch.bfloat16, 1000)
    x, out = (far_apart(values[:1].expand(2), count - 1).as_strided((count,), (1,)) for _ in range(2))
    x[:1000] = values
    out[:1000] = NAN
    activation.unary(out, x, NAMES.index("relu"), 0.0, 0.0)
    assert torch.equal(out[:1000], values.relu())


@needs_interpreter
def test_steps_of_a_product_beyond_32_bits(draw):
    """K is walked in steps whose distance in memory, and a bias in columns whose distance, need 64 bits."""
    a, b, bias = draw(torch.bfloat16, 3, 200), draw(torch.bfloat16, 200, 5), draw(torch.bfloat16, 5)
    exact = a.double() @ b.double() + bias.double()
    for far in ((far_apart(a, 1, 2**26), b, bias), (a, far_apart(b, 2**26, 1), bias), (a, b, far_apart(bias, 2**30))):
        out = torch.full((3, 5), NAN, dtype=a.dtype)
        matmul.matmul(out, *far, None, None, 0, 0.0, 0.0, 1.0, 1.0)
        torch.testing.assert_close(out.double(), exact, rtol=2**-8, atol=1e-4)


@needs_interpreter
def test_beta_zero_leaves_the_residual_unread(draw):
    a, out = draw(torch.float32, 4, 4), torch.full((4, 4), NAN)
    matmul.matmul(out, a, a, None, torch.full((4, 4), NAN), None, 0, 0.0, 0.0, 1.0, 0.0)
    torch.testing.assert_close(out, a @ a)


@needs_interpreter
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [(1, 1), (100, 37), (3000, 5), (7, 600), (0, 4), (4, 0)], ids=str)
def test_activation_bias_backward(draw, size, dtype):
    g, z = draw(dtype, *size), draw(dtype, *reversed(size)).t()
    gz, only = nans(g), torch.full((size[1],), NAN, dtype=dtype)
    gb = torch.full((size[1],), NAN, dtype=dtype)
    act = NAMES.index("gelu")
    matmul.activation_bias_backward(gz, gb, g, z, act, 0.0, 0.0)
    matmul.activation_bias_backward(None, only, g, None, 0, 0.0, 0.0)
    u = z.double().requires_grad_()
    (exact,) = torch.autograd.grad(F.gelu(u), u, g.double())
    eps = torch.finfo(dtype).eps
    smallest = torch.finfo(dtype).smallest_normal * eps
    room = 4 * eps * g.double().abs() + smallest  # a derivative near zero is a difference of terms of the size of g
    assert ((gz.double() - exact).abs() <= room).all()
    for got, terms in ((gb, exact), (only, g.double())):
        assert ((got.double() - terms.sum(0)).abs() <= room.sum(0)).all()
