"""Matrix products: linear with its fused epilogues, matmul, bmm, mm, addmm, bilinear."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import neurokern.functional as F
import torch
from neurokern import nn
from neurokern.functional.activation_name import parse_activation
from neurokern.ops.activation import ACTIVATIONS, TORCH
from neurokern.testing.spec import BadCall, Draw, Maker, OpSpec, Sample
from torch import Tensor

from ._exact import EXACT
from .activation import ROWS

TF = torch.nn.functional
KINKED = {r.act for r in ROWS if r.points(**r.variants[0])}  # without derivative at some point


STAND_FOR_ALL = {"relu", "gelu"}  # of the fused forms


def spread(make: Maker, *shape: int) -> Tensor:
    """Weights of the size that keeps a product's elements about 1."""
    return make(*shape, scale=1 / math.sqrt(max(shape[-1], 1)))


def linear_samples(make: Maker) -> Iterator[Sample]:
    def case(why: str, m: tuple[int, ...], n: int, k: int, bias: bool = True, **more: bool) -> Sample:
        return Sample(why, (make(*m, k), spread(make, n, k), *([make(n)] if bias else [])), **more)

    yield case("a usual small layer", (32,), 48, 64)
    yield case("all sizes prime: every tile has an edge", (37,), 53, 71, chosen=True)
    yield case("one number", (1,), 1, 1)
    yield case("one row: the weights are streamed", (1,), 67, 129, chosen=True)
    yield case("two rows", (2,), 65, 33, bias=False)
    yield case("as many rows as the few-rows path may take, and one more", (17,), 40, 96, chosen=True)
    yield case("one output", (19,), 1, 45)
    yield case("K = 1", (9,), 11, 1)
    yield case("longer than a block of K", (5,), 7, 1100)
    yield case("more columns than a block", (3,), 1301, 5)
    yield case("more rows than a block", (700,), 6, 9)
    yield case("sizes of a vector each, no edge", (64,), 64, 64, bias=False)
    yield case("leading dimensions", (2, 3, 5), 7, 11)
    yield case("a vector", (), 13, 17)
    yield case("no rows", (0,), 3, 4)
    yield case("no outputs", (4,), 0, 3)
    yield case("K = 0: the bias alone", (4,), 3, 0)
    yield case("an empty leading dimension", (2, 0), 3, 4)
    yield Sample("input transposed", (make(21, 18).t(), spread(make, 10, 21), make(10)))
    yield Sample("weight transposed", (make(18, 21), spread(make, 21, 10).t(), make(10)))
    yield Sample("both transposed", (make(21, 18).t(), spread(make, 21, 10).t()), chosen=True)
    yield Sample("every other row and column", (make(22, 46)[::2, ::2], spread(make, 18, 46)[::2, 1::2], make(18)[::2]))
    yield Sample("one row for all: stride 0", (make(1, 15).expand(8, 15), spread(make, 6, 15), make(1).expand(6)))
    yield Sample(
        "memory not aligned to a vector", (make(9 * 16 + 1)[1:].view(9, 16), spread(make, 7 * 16 + 3)[3:].view(7, 16))
    )
    yield Sample("leading dimensions that don't merge", (make(4, 3, 8).transpose(0, 1), spread(make, 5, 8), make(5)))
    yield case("blocks in every direction", (260,), 390, 515, heavy=True, chosen=True)


def linear_smooth(make: Maker) -> Iterator[Sample]:
    yield Sample("all sizes differ", (make(3, 5), make(4, 5), make(4)))
    yield Sample("leading dimensions, no bias", (make(2, 2, 3), make(2, 3)))


def linear_bad(make: Maker) -> Iterator[BadCall]:
    yield BadCall("a list for a tensor", ([1.0], make(2, 3)), says=("input", "list"))
    yield BadCall("K differs", (make(2, 3), make(4, 5)), says=("weight", "[4, 5]", "[2, 3]"))
    yield BadCall("0-d input", (make(), make(4, 5)), says=("weight", "[4, 5]", "[]"))
    yield BadCall(
        "a bias that doesn't fit", (make(2, 3), make(4, 3), make(5)), says=("argument bias", "[5]", "expected [4]")
    )
    yield BadCall("a bias of as many as rows", (make(5, 3), make(4, 3), make(5)), says=("argument bias", "[5]"))
    yield BadCall("a bias of more dimensions", (make(2, 3), make(4, 3), make(2, 2, 4)), says=("argument bias", "[2, 2"))
    yield BadCall("a vector and a bias", (make(3), make(4, 3), make(5)), says=("argument bias", "[5]"))
    yield BadCall("a weight of one row and a bias", (make(2, 3), make(3), make(5)), says=("argument bias", "[5]"))
    yield BadCall(
        "a bias that broadcasts, of another dtype",
        (make(2, 3), make(4, 3), make(2, 4).half()),
        says=("argument bias", "float16"),
    )
    yield BadCall("a weight of 3 dimensions", (make(2, 3), make(4, 3, 3)), says=("weight", "[4, 3, 3]"))
    yield BadCall("a weight of another dtype", (make(2, 3), make(4, 3).double()), says=("weight", "float64"))
    yield BadCall("a bias of another dtype", (make(2, 3), make(4, 3), make(4).half()), says=("bias", "float16"))
    yield BadCall("a weight on another device", (make(2, 3), make(4, 3).to("meta")), says=("meta",))
    yield BadCall("a weight of integers", (make(2, 3), torch.ones(4, 3, dtype=torch.int64)), says=("int64",))


def drawn_matrix(make: Maker, draw: Draw, rows: int, columns: int) -> Tensor:
    layout = draw.choice(("plain", "transposed", "sliced", "shifted"))
    if layout == "transposed":
        return make(columns, rows).t()
    if layout == "sliced":
        return make(rows, 2 * columns)[:, ::2]
    if layout == "shifted":
        return make(rows, columns + 3)[:, 3:]
    return make(rows, columns)


def sizes(draw: Draw) -> tuple[int, int, int]:
    """Small ones of every kind, sometimes one large."""
    m, n, k = (draw.choice((draw.integer(0, 5), draw.integer(6, 70))) for _ in range(3))
    large = draw.choice(("none", "none", "M", "N", "K"))
    size = draw.integer(100, 600)
    return (size if large == "M" else m, size if large == "N" else n, size if large == "K" else k)


def linear_drawn(make: Maker, draw: Draw) -> Sample:
    m, n, k = sizes(draw)
    args = [drawn_matrix(make, draw, m, k), drawn_matrix(make, draw, n, k)]
    return Sample("drawn", (*args, *([make(n)] if draw.integer(0, 1) else [])))


def linear_bench(make: Maker, m: int, n: int, k: int) -> Sample:
    return Sample(f"M {m}, N {n}, K {k}", (make(m, k), spread(make, n, k), make(n)))


def linear_flops(sample: Sample) -> float:
    x, w = sample.args[:2]
    return 2.0 * x.numel() * w.shape[0]


def moved(sample: Sample, out: Callable[[Sample], int]) -> float:
    """Bytes of the inputs read once and of the output written once."""
    tensors = [t for t in sample.args if isinstance(t, Tensor)]
    return float(sum(t.numel() for t in tensors) + out(sample)) * tensors[0].element_size()


LINEAR = OpSpec(
    name="linear",
    family="matmul",
    op=F.linear,
    torch=TF.linear,
    samples=linear_samples,
    smooth=linear_smooth,
    scale="absolute",
    drawn=linear_drawn,
    bench=linear_bench,
    flops=linear_flops,
    bytes=partial(moved, out=lambda s: s.args[0].numel() // max(s.args[1].shape[1], 1) * s.args[1].shape[0]),
    registered=("linear", "linear_backward", "matmul", "matmul_backward"),
    act="identity",
    bad=linear_bad,
    layer=lambda make: (nn.Linear(7, 5), torch.nn.Linear(7, 5), (make(3, 4, 7),)),
)


def torch_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, activation: Any = None, residual: Tensor | None = None
) -> Tensor:
    """What torch has for the fused form: one op after the other."""
    act, p0, p1 = parse_activation("linear", activation)
    y = TF.linear(x, weight, bias)
    y = y if act == "identity" else TORCH[act](y, p0, p1)
    return y if residual is None else y + residual


def exact_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, activation: Any, residual: Tensor | None = None
) -> Tensor:
    """The same for a float64 reference."""
    if activation not in EXACT:
        return torch_linear(x, weight, bias, activation=activation, residual=residual)
    y = EXACT[activation](TF.linear(x, weight, bias))
    return y if residual is None else y + residual


def fused_samples(make: Maker, act: str) -> Iterator[Sample]:
    """On a grid, with biases between its points: no preactivation of a kinked function is rounded across a kink.

    The layouts and sizes are the product's affair: two activations stand for all, one of them with a kink.
    """

    def case(why: str, m: tuple[int, ...], n: int, k: int, residual: bool, **more: bool) -> Sample:
        if act in KINKED:
            x, w, bias = make.grid(*m, k), make.grid(n, k, limit=4), make.grid(n) + 2.0**-7
        else:
            x, w, bias = make(*m, k), make(n, k, scale=1.5 / math.sqrt(max(k, 1))), make(n)
        kw = {"activation": act, **({"residual": make(*m, n)} if residual else {})}
        return Sample(why, (x, w, bias.detach()), kw, **more)

    yield case("all sizes prime", (29,), 37, 31, False, chosen=True)
    yield case("a few rows, with residual", (3,), 347, 19, True, chosen=True)
    yield case("no rows", (0,), 3, 4, True)
    if act not in STAND_FOR_ALL:
        return
    yield case("one row", (1,), 331, 40, False)
    yield case("leading dimensions, with residual", (2, 5), 9, 13, True)
    yield case("K = 0: the activation of the bias", (4,), 6, 0, True)
    yield case("blocks in every direction", (130,), 140, 270, True, heavy=True)


def fused_smooth(make: Maker, act: str) -> Iterator[Sample]:
    # sums of grid points shifted by 2**-4 of a step: never nearer to a kink than that
    x, w = make.grid(3, 5, step=0.5, limit=3), make.grid(4, 5, step=0.5, limit=3)
    yield Sample("bias and residual", (x, w, make.grid(4) + 2.0**-4), {"activation": act, "residual": make(3, 4)})


def fused_bad(make: Maker, act: str) -> Iterator[BadCall]:
    x, w, b = make(2, 3), make(4, 3), make(4)
    kw = {"activation": act}
    yield BadCall("a residual that doesn't fit", (x, w, b), {**kw, "residual": make(3, 4)}, ("residual", "[3, 4]"))
    yield BadCall(
        "a residual of another dtype",
        (x, w, b),
        {**kw, "residual": make(2, 4).double()},
        ("residual", "float64"),
        RuntimeError,
    )
    yield BadCall("a bias that doesn't fit", (x, w, make(5)), kw, ("neurokern.linear:", "bias", "[5]", "expected [4]"))
    yield BadCall("no such activation", (x, w, b), {"activation": "reul"}, ("activation", "'reul'"))
    yield BadCall("a parameter too many", (x, w, b), {"activation": ("relu", 0.5)}, ("activation", "'relu'"))
    yield BadCall("K differs", (x, make(4, 5), b), kw, ("weight", "[4, 5]"))


def fused_drawn(make: Maker, draw: Draw, act: str) -> Sample:
    m, n, k = draw.integer(0, 40), draw.integer(0, 40), draw.integer(0, 40)
    kw: dict[str, Any] = {"activation": act}
    if draw.integer(0, 1):
        kw["residual"] = drawn_matrix(make, draw, m, n)
    return Sample("drawn", (make.grid(m, k), make.grid(n, k, limit=4), (make.grid(n) + 2.0**-7).detach()), kw)


def fused_spec(act: str) -> OpSpec:
    return OpSpec(
        name="linear",
        variant=act,
        family="matmul",
        op=F.linear,
        torch=torch_linear,
        exact=exact_linear,
        samples=partial(fused_samples, act=act),
        smooth=partial(fused_smooth, act=act),
        scale="nudge",
        drawn=partial(fused_drawn, act=act) if act in STAND_FOR_ALL else None,
        bench=lambda make, m, n, k: Sample(
            f"M {m}, N {n}, K {k}", linear_bench(make, m, n, k).args, {"activation": act}
        ),
        flops=linear_flops,
        bytes=LINEAR.bytes,
        registered=(
            *("linear_activation", "linear_activation_recorded", "linear_activation_backward"),
            *("matmul", "matmul_backward", "unary_gradient", "unary_backward2"),
        ),
        act=act,
        bad=partial(fused_bad, act=act),
        layer=lambda make: (
            nn.LinearActivation(7, 5, activation=act),
            LinearThen(7, 5, act),
            (make(3, 4, 7),),
        ),
    )


class LinearThen(torch.nn.Linear):
    """torch's linear layer with an activation after it."""

    def __init__(self, k: int, n: int, act: str) -> None:
        super().__init__(k, n)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return torch_linear(x, self.weight, self.bias, activation=self.act)


def matmul_samples(make: Maker) -> Iterator[Sample]:
    yield Sample("two matrices", (make(37, 53), make(53, 41)), chosen=True)
    yield Sample("left transposed", (make(33, 20).t(), make(33, 17)))
    yield Sample("right transposed", (make(20, 33), make(17, 33).t()))
    yield Sample("both transposed", (make(33, 20).t(), make(17, 33).t()))
    yield Sample("two vectors", (make(63), make(63)))
    yield Sample("vector and matrix", (make(23), make(23, 31)))
    yield Sample("matrix and vector", (make(31, 23), make(23)), chosen=True)
    yield Sample("batches", (make(3, 9, 14), make(3, 14, 8)))
    yield Sample(
        "batches of two dimensions, transposed heads",
        (make(2, 6, 3, 8).transpose(1, 2), make(2, 6, 3, 8).permute(0, 2, 3, 1)),
    )
    yield Sample("a batch and one matrix", (make(4, 5, 6), make(6, 7)))
    yield Sample("one matrix and a batch", (make(5, 6), make(4, 6, 7)))
    yield Sample("batch dimensions broadcast from both sides", (make(3, 1, 4, 6), make(2, 6, 5)))
    yield Sample("vector and batch", (make(6), make(4, 6, 5)))
    yield Sample("batch and vector", (make(4, 5, 6), make(6)))
    yield Sample("an expanded batch: stride 0", (make(1, 5, 6).expand(4, 5, 6), make(4, 6, 3)))
    yield Sample("sliced in every dimension", (make(4, 10, 12)[::2, 1::3, ::4], make(2, 6, 10)[:, ::2, ::2]))
    yield Sample("a column and a row: an outer product", (make(19, 1), make(1, 23)))
    yield Sample("long K", (make(4, 2000), make(2000, 3)))
    yield Sample("many small products", (make(150, 3, 4), make(150, 4, 2)), heavy=True, chosen=True)
    yield Sample("an empty batch", (make(0, 3, 4), make(0, 4, 2)))
    yield Sample("K = 0: zeros", (make(2, 3, 0), make(2, 0, 4)))
    yield Sample("no columns", (make(3, 4), make(4, 0)))
    yield Sample("five dimensions", (make(2, 1, 3, 2, 4), make(3, 1, 4, 3)))
    yield Sample("blocks in every direction", (make(200, 300), make(300, 260)), heavy=True)


def matmul_bad(make: Maker) -> Iterator[BadCall]:
    yield BadCall("a list for a tensor", ([1.0], make(2, 3)), says=("input", "list"))
    yield BadCall("0-d input", (make(), make(2, 3)), says=("input", "[]"))
    yield BadCall("0-d other", (make(2, 3), make()), says=("other", "[]"))
    yield BadCall("K differs", (make(2, 3), make(4, 5)), says=("other", "[4, 5]", "[2, 3]"))
    yield BadCall("vectors of two lengths", (make(3), make(4)), says=("[4]", "[3]"))
    yield BadCall("batches don't broadcast", (make(2, 3, 4), make(3, 4, 5)), says=("[2, 3, 4]", "[3, 4, 5]"))
    yield BadCall("two dtypes", (make(2, 3), make(3, 4).double()), says=("float64",))
    yield BadCall("two devices", (make(2, 3), make(3, 4).to("meta")), says=("meta",))
    yield BadCall("out of another dtype", (make(2, 3), make(3, 4)), {"out": make(2, 4).double()}, ("out", "float64"))
    yield BadCall(
        "out with a gradient wanted", (make(2, 3).requires_grad_(), make(3, 4)), {"out": make(2, 4)}, ("out",)
    )


def matmul_smooth(make: Maker) -> Iterator[Sample]:
    yield Sample("matrices", (make(3, 4), make(4, 2)))
    yield Sample("broadcast batches", (make(2, 1, 2, 3), make(2, 3, 2)))
    yield Sample("matrix and vector", (make(3, 4), make(4)))


def matmul_drawn(make: Maker, draw: Draw) -> Sample:
    m, n, k = sizes(draw)
    if draw.integer(0, 1):
        return Sample("drawn", (drawn_matrix(make, draw, m, k), drawn_matrix(make, draw, k, n)))
    batch = [draw.integer(0, 3) for _ in range(draw.integer(1, 3))]
    m, n, k = min(m, 20), min(n, 20), min(k, 20)
    left = [1 if draw.integer(0, 3) == 0 else b for b in batch]
    right = batch[draw.integer(0, len(batch)) :]
    a = make(*left, k, m).mT if draw.integer(0, 1) else make(*left, m, k)
    return Sample("drawn", (a, make(*right, k, n)))


def matmul_bench(make: Maker, m: int, n: int, k: int) -> Sample:
    return Sample(f"M {m}, N {n}, K {k}", (make(m, k), make(k, n)))


def bmm_samples(make: Maker) -> Iterator[Sample]:
    yield Sample("batches of odd sizes", (make(5, 17, 13), make(5, 13, 19)), chosen=True)
    yield Sample("attention scores: right transposed", (make(6, 20, 8), make(6, 20, 8).mT))
    yield Sample("one batch", (make(1, 9, 7), make(1, 7, 5)))
    yield Sample("one matrix for every batch: stride 0", (make(4, 6, 5), make(1, 5, 3).expand(4, 5, 3)))
    yield Sample("no batch", (make(0, 2, 3), make(0, 3, 2)))
    yield Sample("K = 0", (make(2, 2, 0), make(2, 0, 3)))


def bmm_bad(make: Maker) -> Iterator[BadCall]:
    yield BadCall("two dimensions", (make(2, 3), make(2, 3, 4)), says=("input", "[2, 3]"))
    yield BadCall(
        "batches differ: bmm does not broadcast", (make(1, 2, 3), make(2, 3, 4)), says=("[1, 2, 3]", "[2, 3, 4]")
    )
    yield BadCall("K differs", (make(2, 2, 3), make(2, 4, 4)), says=("[2, 4, 4]",))
    yield BadCall("two dtypes", (make(2, 2, 3), make(2, 3, 4).double()), says=("float64",))
    yield BadCall("a list for a tensor", ([1.0], make(2, 3, 4)), says=("input", "list"))


def bmm_smooth(make: Maker) -> Iterator[Sample]:
    yield Sample("batches", (make(2, 2, 3), make(2, 3, 2)))


def mm_smooth(make: Maker) -> Iterator[Sample]:
    yield Sample("matrices", (make(2, 3), make(3, 2)))


def mm_samples(make: Maker) -> Iterator[Sample]:
    yield Sample("odd sizes", (make(31, 29), make(29, 37)), chosen=True)
    yield Sample("both transposed", (make(29, 31).t(), make(37, 29).t()))
    yield Sample("no rows", (make(0, 3), make(3, 2)))


def mm_bad(make: Maker) -> Iterator[BadCall]:
    yield BadCall("three dimensions", (make(2, 2, 3), make(3, 4)), says=("input", "[2, 2, 3]"))
    yield BadCall("K differs", (make(2, 3), make(4, 4)), says=("[4, 4]",))
    yield BadCall("two dtypes", (make(2, 3), make(3, 4).double()), says=("float64",))


def addmm_samples(make: Maker) -> Iterator[Sample]:
    yield Sample("input of the output's shape", (make(23, 31), make(23, 17), make(17, 31)))
    yield Sample("a row for all", (make(31), make(23, 17), make(17, 31)), {"beta": 0.5, "alpha": -2.0}, chosen=True)
    yield Sample("a column for all", (make(23, 1), make(23, 17), make(17, 31)), {"alpha": 0.25})
    yield Sample("one number for all", (make(), make(5, 6), make(6, 7)), {"beta": 3.0})
    yield Sample(
        "beta = 0: a NaN in input is not read",
        (make.values(*[math.nan] * 12).view(3, 4), make(3, 5), make(5, 4)),
        {"beta": 0.0},
    )
    yield Sample("alpha = 0", (make(3, 4), make(3, 5), make(5, 4)), {"alpha": 0.0})
    yield Sample("K = 0", (make(3, 4), make(3, 0), make(0, 4)), {"beta": 2.0})
    yield Sample("no rows", (make(4), make(0, 3), make(3, 4)))
    yield Sample("transposed in every place", (make(9, 7).t(), make(5, 7).t(), make(9, 5).t()), {"alpha": 1.5})


def addmm_smooth(make: Maker) -> Iterator[Sample]:
    yield Sample("a row for all", (make(3), make(2, 4), make(4, 3)), {"beta": 0.5, "alpha": -2.0})


def addmm_bad(make: Maker) -> Iterator[BadCall]:
    yield BadCall("an input that doesn't broadcast", (make(5), make(2, 3), make(3, 4)), says=("input", "[5]"))
    yield BadCall("K differs", (make(4), make(2, 3), make(5, 4)), says=("mat2", "[5, 4]"))
    yield BadCall("a vector", (make(4), make(3), make(3, 4)), says=("mat1", "[3]"))
    yield BadCall("two dtypes", (make(4), make(2, 3), make(3, 4).double()), says=("float64",))


def bilinear_samples(make: Maker) -> Iterator[Sample]:
    yield Sample("odd sizes", (make(13, 7), make(13, 9), spread(make, 5, 7, 9), make(5)), chosen=True)
    yield Sample("leading dimensions, no bias", (make(2, 3, 4), make(2, 3, 5), spread(make, 6, 4, 5)))
    yield Sample("transposed inputs", (make(7, 13).t(), make(9, 13).t(), spread(make, 5, 7, 9), make(5)))
    yield Sample("one output", (make(8, 3), make(8, 2), spread(make, 1, 3, 2), make(1)))
    yield Sample("a vector each", (make(4), make(5), spread(make, 3, 4, 5), make(3)))
    yield Sample("no rows", (make(0, 3), make(0, 2), spread(make, 4, 3, 2), make(4)))


def bilinear_smooth(make: Maker) -> Iterator[Sample]:
    yield Sample("all sizes differ", (make(2, 3), make(2, 4), make(5, 3, 4), make(5)))


def bilinear_bad(make: Maker) -> Iterator[BadCall]:
    yield BadCall("leading dimensions differ", (make(2, 3), make(4, 5), make(6, 3, 5)), says=("input2", "[4, 5]"))
    yield BadCall("a weight that doesn't fit", (make(2, 3), make(2, 5), make(6, 5, 3)), says=("weight", "[6, 5, 3]"))
    yield BadCall("a bias that doesn't fit", (make(2, 3), make(2, 5), make(6, 3, 5), make(4)), says=("bias", "[4]"))
    yield BadCall("two dtypes", (make(2, 3), make(2, 5).double(), make(6, 3, 5)), says=("float64",))


def product(name: str, reference: Callable[..., Tensor], samples: Any, bad: Any, **more: Any) -> OpSpec:
    more.setdefault("registered", ("matmul", "matmul_backward"))
    return OpSpec(
        name=name,
        family="matmul",
        op=getattr(F, name),
        torch=reference,
        samples=samples,
        bad=bad,
        scale="absolute",
        **more,
    )


SPECS: tuple[OpSpec, ...] = (
    LINEAR,
    *(fused_spec(act) for act in ACTIVATIONS if act != "identity"),
    product(
        "matmul",
        torch.matmul,
        matmul_samples,
        matmul_bad,
        smooth=matmul_smooth,
        drawn=matmul_drawn,
        bench=matmul_bench,
        flops=lambda s: 2.0 * s.args[0].numel() * s.args[1].shape[-1],
        bytes=partial(moved, out=lambda s: s.args[0].shape[0] * s.args[1].shape[1]),
        registered=("matmul", "matmul_backward"),
    ),
    product("bmm", torch.bmm, bmm_samples, bmm_bad, smooth=bmm_smooth),
    product("mm", torch.mm, mm_samples, mm_bad, smooth=mm_smooth),
    product("addmm", torch.addmm, addmm_samples, addmm_bad, smooth=addmm_smooth),
    product(
        "bilinear",
        TF.bilinear,
        bilinear_samples,
        bilinear_bad,
        smooth=bilinear_smooth,
        layer=lambda make: (nn.Bilinear(4, 5, 3), torch.nn.Bilinear(4, 5, 3), (make(2, 4), make(2, 5))),
    ),
)  # fmt: skip
