"""The PTX that Triton compiles from kernels/triton runs on the emulator, under all checkers: one test a kernel, against
what Triton's interpreter gives for the same numbers.

The interpreter needs a process of its own (TRITON_INTERPRET decides when kernels are decorated): this file run as a
script is the one that compiles, and pytest's is the one that interprets.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from neurokern.backends import emulation
from torch import Tensor

pytest.importorskip("triton")
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing())),
    pytest.mark.skipif(not INTERPRETED, reason="the interpreter gives the numbers to compare with"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
GELU, SILU, TANH = 7, 9, 22
EPS = {torch.float64: 2.0**-52, torch.float32: 2.0**-23, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}


@dataclass
class Run:
    """One call of a launch function: what it is given and what it leaves behind."""

    kernels: SimpleNamespace  # its modules by their names
    seed: int
    results: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # with the size of the terms behind each

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)

    def draw(self, dtype: torch.dtype, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64).to(dtype)

    def out(self, dtype: torch.dtype, *shape: int, scale: Tensor | float = 0.0) -> Tensor:
        """NaN to write into; `scale`: of what is added up in an element, beside its own size."""
        t = torch.full(shape, float("nan"), dtype=dtype)
        self.results.append((t, torch.as_tensor(scale, dtype=torch.float64)))
        return t


Case = Callable[[Run, torch.dtype], None]
CASES: dict[str, Case] = {}


def case(f: Case) -> Case:
    """A test under the name of its kernel."""
    CASES[f.__name__] = f
    return f


@case
def unary_kernel(r: Run, dtype: torch.dtype) -> None:
    """Dense and ragged, aligned rows of a slice, any strides."""
    views = ((1037,), ()), ((5, 64), (slice(None), slice(32))), ((9, 13), (slice(None), slice(1, None, 2)))
    for shape, view in views:
        x = r.draw(dtype, *shape)[view]
        for act in (GELU, SILU, TANH):
            r.kernels.activation.unary(r.out(dtype, *x.shape, scale=x.abs().double()), x, act, 0.0, 0.0)


@case
def unary_backward_kernel(r: Run, dtype: torch.dtype) -> None:
    x, g = r.draw(dtype, 1037), r.draw(dtype, 1037)
    r.kernels.activation.unary_backward(r.out(dtype, 1037, scale=g.abs().double()), g, x, GELU, 0.0, 0.0)


@case
def unary_backward2_kernel(r: Run, dtype: torch.dtype) -> None:
    x, g, gg = (r.draw(dtype, 1037) for _ in range(3))
    out = r.out(dtype, 1037, scale=(g * gg * (1 + x * x)).abs().double())
    r.kernels.activation.unary_backward2(out, gg, g, x, GELU, 0.0, 0.0)


@case
def gated_kernel(r: Run, dtype: torch.dtype) -> None:
    a, b = r.draw(dtype, 517), r.draw(dtype, 517)
    r.kernels.activation.gated(r.out(dtype, 517, scale=(a * b).abs().double()), a, b, SILU, 0.0, 0.0)


@case
def gated_backward_kernel(r: Run, dtype: torch.dtype) -> None:
    g, a, b = (r.draw(dtype, 517) for _ in range(3))
    ga, gb = (r.out(dtype, 517, scale=(g * t).abs().double()) for t in (b, a))
    r.kernels.activation.gated_backward(ga, gb, g, a, b, SILU, 0.0, 0.0)


@case
def prelu_kernel(r: Run, dtype: torch.dtype) -> None:
    x, w = r.draw(dtype, 7, 33), r.draw(dtype, 33)
    r.kernels.activation.prelu(r.out(dtype, 7, 33), x, w.expand(7, 33))


@case
def prelu_backward_kernel(r: Run, dtype: torch.dtype) -> None:
    g, x, w = r.draw(dtype, 7, 33), r.draw(dtype, 7, 33), r.draw(dtype, 33)
    r.kernels.activation.prelu_backward(r.out(dtype, 7, 33), None, g, x, w.expand(7, 33))


@case
def prelu_backward_columns_kernel(r: Run, dtype: torch.dtype) -> None:
    """And fold_kernel, which adds the chunks up: channels along memory and across it, one weight for all."""
    for shape, cols in (((600, 33), 33), ((3, 5, 70), 5), ((1500,), 1)):
        g, x, w = r.draw(dtype, *shape), r.draw(dtype, *shape), r.draw(dtype, cols)
        w = w.reshape(1, -1, *[1] * (len(shape) - 2)).expand(shape) if cols > 1 else w.expand(shape)
        gx, gw = r.out(dtype, *shape), r.out(dtype, cols, scale=float((g * x).abs().double().sum()) / cols)
        r.kernels.activation.prelu_backward(gx, gw, g, x, w)


def softmax_shapes(r: Run, dtype: torch.dtype, f: Callable[..., None], inputs: int) -> None:
    for shape, dim in (((5, 33), 1), ((40, 7), 0), ((2, 3, 50), 1), ((2, 9001), 1)):
        for kind in range(3):
            x = [r.draw(dtype, *shape) for _ in range(inputs)]
            if inputs == 2:
                x[1] = torch.softmax(x[1].double(), dim).to(dtype)
            g, y = x[0].double(), x[-1].double()
            terms = (g.abs() if kind == 1 else (g * y).abs()).sum(dim, keepdim=True)  # log_softmax: g - exp(y) sum(g)
            terms = g.abs() + (y.exp() * terms if kind == 1 else terms)
            f(r.out(dtype, *shape, scale=terms if inputs == 2 else (kind == 1) * 10.0), *x, dim, kind)


@case
def softmax_kernel(r: Run, dtype: torch.dtype) -> None:
    """Whole rows in registers and in two passes, along rows and across them."""
    softmax_shapes(r, dtype, r.kernels.softmax.softmax, 1)


@case
def softmax_backward_kernel(r: Run, dtype: torch.dtype) -> None:
    softmax_shapes(r, dtype, r.kernels.softmax.softmax_backward, 2)


@case
def norm_kernel(r: Run, dtype: torch.dtype) -> None:
    """Rows in registers and in two passes; with mean and bias, and without."""
    for rows, n in ((5, 33), (3, 768), (2, 9001)):
        x, w, b = r.draw(dtype, rows, n), r.draw(dtype, n), r.draw(dtype, n)
        wide = r.kernels.common.accumulator(x)
        size = (x.abs().double() + 1) * w.abs().double() + b.abs().double() + 1
        mean, rstd = r.out(wide, rows, scale=1.0), r.out(wide, rows, scale=1.0)
        r.kernels.normalization.normalize(r.out(dtype, rows, n, scale=size), x, w, b, mean, rstd, 1, 1e-5)
        y, rstd = r.out(dtype, rows, n, scale=size), r.out(wide, rows, scale=1.0)
        r.kernels.normalization.normalize(y, x, w, None, None, rstd, 1, 1e-5)


def norm_gradients(r: Run, dtype: torch.dtype, rows: int, n: int) -> tuple[Tensor, ...]:
    g, x, w = r.draw(dtype, rows, n), r.draw(dtype, rows, n), r.draw(dtype, n)
    wide = r.kernels.common.accumulator(x)
    return g, x, w, x.to(wide).mean(-1), x.to(wide).var(-1, correction=0).add(1e-5).rsqrt()


@case
def norm_backward_kernel(r: Run, dtype: torch.dtype) -> None:
    for rows, n in ((5, 33), (3, 768), (2, 9001)):
        g, x, w, mean, rstd = norm_gradients(r, dtype, rows, n)
        size = rstd.double()[:, None] * ((g * w).abs().double() + 1) * (x.abs().double() + 1)
        gx = r.out(dtype, rows, n, scale=size)
        r.kernels.normalization.normalize_backward(gx, None, None, g, x, w, mean, rstd, 1)


@case
def norm_columns_kernel(r: Run, dtype: torch.dtype) -> None:
    """And fold_kernel, which adds the chunks up."""
    for rows, n in ((600, 33), (9, 768)):
        g, x, w, mean, rstd = norm_gradients(r, dtype, rows, n)
        normal = (x.double() - mean.double()[:, None]) * rstd.double()[:, None]
        gw = r.out(dtype, n, scale=(g.double() * normal).abs().sum(0))
        gb = r.out(dtype, n, scale=g.abs().double().sum(0))
        r.kernels.normalization.normalize_backward(None, gw, gb, g, x, w, mean, rstd, 1)


@case
def uniform_kernel(r: Run, dtype: torch.dtype) -> None:
    r.kernels.random.uniform(r.out(dtype, 3001), 3, 2**33, 7)
    r.kernels.random.uniform(r.out(dtype, 301), -1, -3, -1)


@case
def pad_kernel(r: Run, dtype: torch.dtype) -> None:
    for mode in r.kernels.rearrangement.MODES:
        r.kernels.rearrangement.pad(r.out(dtype, 2, 3, 11, 12), r.draw(dtype, 2, 3, 8, 9), mode, [0, 0, 1, 2], 1.5)


@case
def pad_sums_kernel(r: Run, dtype: torch.dtype) -> None:
    for mode in r.kernels.rearrangement.MODES[1:]:
        g = r.draw(dtype, 2, 3, 11, 12)
        r.kernels.rearrangement.pad_sums(r.out(dtype, 2, 3, 8, 9, scale=30.0), g, mode, [0, 0, 1, 2])


WINDOW = ([2, 3], [1, 2], [1, 2], [2, 1])


@case
def unfold_kernel(r: Run, dtype: torch.dtype) -> None:
    r.kernels.rearrangement.unfold(r.out(dtype, 2, 18, 45), r.draw(dtype, 2, 3, 8, 9), *WINDOW)


@case
def fold_windows_kernel(r: Run, dtype: torch.dtype) -> None:
    r.kernels.rearrangement.fold(r.out(dtype, 2, 3, 8, 9, scale=30.0), r.draw(dtype, 2, 18, 45), *WINDOW)


def attend(r: Run, dtype: torch.dtype, everything: bool, size: int = 24) -> None:
    """Forward and backward, causal with shared heads; with every rule. Sizes of a result: of the terms of its sums."""
    queries, keys, wide = 37, 45, r.kernels.common.accumulator(torch.empty(0, dtype=dtype))
    q, k, v = r.draw(dtype, 4, queries, size), r.draw(dtype, 2, keys, size), r.draw(dtype, 2, keys, size)
    more: dict[str, Tensor | None] = dict.fromkeys(("mask", "bias", "slopes", "sink"))
    seed, numbers = None, (None, 0.0, 0.0, (-1, 0, 0, 1, 1, 0, 0))
    if everything:
        more["mask"] = (r.draw(wide, queries, keys) < 1).expand(4, -1, -1)
        more["bias"] = r.draw(dtype, 1, queries, keys).expand(4, -1, -1)
        more["slopes"], more["sink"] = r.draw(wide, 4).abs(), r.draw(dtype, 4)
        seed, numbers = torch.tensor([2**40 + 3, 5]), (None, 2.0, 0.25, (20, 9, 16, 1, 1, 0, 0))
    given = (q, k, v, *more.values(), None, None, seed)
    out, lse = r.out(dtype, 4, queries, size, scale=8.0), r.out(wide, 4, queries, scale=8.0)
    r.kernels.attention.attention(out, lse, *given, *numbers)
    g, g_lse = r.draw(dtype, 4, queries, size), r.draw(wide, 4, queries)
    gradients: list[Tensor | None] = [r.out(dtype, *t.shape, scale=16.0) for t in (q, k, v)] + [None, None]
    if everything:
        gradients[3:] = r.out(dtype, 1, queries, keys, scale=16.0).expand(4, -1, -1), r.out(dtype, 4, scale=64.0)
    r.kernels.attention_backward.attention_backward(*gradients, g, g_lse, *given, out, lse, *numbers)


@case
def attention_kernel(r: Run, dtype: torch.dtype) -> None:
    """And attention_query_kernel, attention_key_kernel."""
    attend(r, dtype, False)


@case
def attention_bias_kernel(r: Run, dtype: torch.dtype) -> None:
    """And the others with all rules."""
    attend(r, dtype, True)


@case
def append_kernel(r: Run, dtype: torch.dtype) -> None:
    """Rows behind those that are there, of a cache and of pages."""
    lengths = torch.tensor([3, 9], dtype=torch.int32)
    for table in (None, torch.tensor([[4, 1, 0, 6], [5, 2, 3, 7]])):
        cache = r.draw(dtype, *((2, 2, 16, 24) if table is None else (8, 2, 4, 24)))
        r.results.append((cache, torch.zeros(())))
        r.kernels.attention_cache.append_to_cache(cache, r.draw(dtype, 2, 2, 5, 24), lengths, table)


def attend_to_cache(r: Run, dtype: torch.dtype, parts: int, rules: bool) -> None:
    """Two tokens of heads that share keys, in pages; with rules the keys lie in a row."""
    wide = r.kernels.common.accumulator(torch.empty(0, dtype=dtype))
    table = None if rules else torch.randperm(20, generator=r.generator).view(2, 10).int()
    shape = (2, 2, 90) if rules else (20, 2, 9)
    q, k, v = r.draw(dtype, 2, 6, 2, 24), r.draw(dtype, *shape, 24), r.draw(dtype, *shape, 40)
    slopes, sink = (r.draw(wide, 2, 6).abs(), r.draw(dtype, 6)) if rules else (None, None)
    out, lse = r.out(dtype, 2, 6, 2, 40, scale=8.0), r.out(wide, 2, 6, 2, scale=8.0)
    numbers = (None, 2.0, (40, 0, 1, 2, parts)) if rules else (None, 0.0, (-1, 0, 1, 2, parts))
    lengths = torch.tensor([85, 5])
    r.kernels.attention_cache.attention_of_cache(out, lse, q, k, v, lengths, table, slopes, sink, *numbers)


@case
def attention_of_cache_kernel(r: Run, dtype: torch.dtype) -> None:
    attend_to_cache(r, dtype, 1, False)
    attend_to_cache(r, dtype, 1, True)


@case
def join_kernel(r: Run, dtype: torch.dtype) -> None:
    """Parts of which one sees nothing."""
    attend_to_cache(r, dtype, 3, False)
    attend_to_cache(r, dtype, 3, True)


def product(r: Run, dtype: torch.dtype, m: int, n: int, k: int, fused: bool = False, trans: str = "nt") -> None:
    a, b = r.draw(dtype, m, k), r.draw(dtype, k, n)
    scale = a.abs().double() @ b.abs().double()
    a, b = (t.t().contiguous().t() if order == "t" else t for t, order in zip((a, b), trans, strict=True))
    out = r.out(dtype, m, n, scale=scale)
    extra: tuple = (None, None, None)
    if fused:
        extra = (r.draw(dtype, n), r.draw(dtype, m, n), r.out(dtype, m, n, scale=scale))
    r.kernels.matmul.matmul(out, a, b, *extra, GELU if fused else 0, 0.0, 0.0, 1.0, 0.5)


@case
def matmul_kernel(r: Run, dtype: torch.dtype) -> None:
    """Ragged and aligned, all orders of memory, a full epilogue, batches."""
    for trans in ("nn", "nt", "tn", "tt"):
        product(r, dtype, 21, 35, 45, trans=trans)
    product(r, dtype, 32, 48, 64, fused=True)
    a, b = r.draw(dtype, 3, 17, 20), r.draw(dtype, 3, 20, 18)
    out = r.out(dtype, 3, 17, 18, scale=a.abs().double() @ b.abs().double())
    r.kernels.matmul.matmul(out, a, b, None, None, None, 0, 0.0, 0.0, 1.0, 1.0)


@case
def split_kernel(r: Run, dtype: torch.dtype) -> None:
    """A long sum in shares, added up by a second kernel that has the epilogue."""
    product(r, dtype, 16, 32, 4096, fused=True)


@case
def activation_bias_backward_kernel(r: Run, dtype: torch.dtype) -> None:
    for flip in (False, True):
        g, z = r.draw(dtype, 70, 45), r.draw(dtype, 70, 45)
        size = g.abs().double()
        gz = r.out(dtype, 45, 70, scale=size.t()).t() if flip else r.out(dtype, 70, 45, scale=size)
        gb = r.out(dtype, 45, scale=g.abs().double().sum(0))
        if flip:
            g, z = (t.t().contiguous().t() for t in (g, z))
        r.kernels.matmul.activation_bias_backward(gz, gb, g, z, GELU, 0.0, 0.0)


def convolve(groups: int, channels: int, mode: str, dims: str) -> Case:
    """Forward with all that is fused, and the gradients; tensors with channels outermost or innermost."""

    def run(r: Run, dtype: torch.dtype) -> None:
        c, last = r.kernels.convolution, torch.channels_last_3d if dims == "last" else torch.contiguous_format
        g = c.Geometry((1, 2, 1), (0, 1, 2), (0, 1, 1), (1, 1, 2), groups, mode)
        x = r.draw(dtype, 2, channels, 1, 6, 7).contiguous(memory_format=last)
        w, b = r.draw(dtype, 18, channels // groups, 1, 3, 2), r.draw(dtype, 18)
        y, gy = (r.draw(dtype, 2, 18, 1, 3, 8).contiguous(memory_format=last) for _ in range(2))
        c.forward(
            r.out(dtype, *y.shape, scale=200.0), x, w, g, b, y, r.out(dtype, *y.shape, scale=200.0), 1, tf32=False
        )
        c.data_gradient(r.out(dtype, *x.shape, scale=200.0), gy, w, g, tf32=False)
        c.weight_gradient(r.out(dtype, *w.shape, scale=200.0), x, gy, g, tf32=False)
        c.channel_sums(r.out(dtype, 18, scale=200.0), gy)

    return run


CASES |= {
    "product_kernel": convolve(1, 16, "zeros", "last"), "weight_kernel": convolve(1, 19, "circular", "first"),
    "gather_kernel": convolve(2, 32, "replicate", "last"), "sums_kernel": convolve(1, 3, "zeros", "first"),
    "direct_kernel": convolve(6, 6, "zeros", "last"), "direct_weight_kernel": convolve(3, 6, "replicate", "first"),
    "fold_padding_kernel": convolve(1, 8, "reflect", "first"),
}  # fmt: skip


# Every tile of the products is a kernel of its own: (kind, number in matmul._TILES, capability).
TILES = {"half": 10, "tf32": 6, "ieee": 6, "f64": 3}


def tile(kind: str, number: int, capability: int) -> Case:
    def run(r: Run, dtype: torch.dtype) -> None:
        m = r.kernels.matmul
        device = m.Device(capability, shared=(227 if capability == 90 else 163) * 1024)
        plan, before = m.candidates(kind, device)[number], m.config
        m.config = lambda problem, device=None: plan
        precision = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if kind == "tf32" else "highest")
        try:
            product(r, dtype, 80, 144, 96)
        finally:
            m.config = before
            torch.set_float32_matmul_precision(precision)

    return run


@dataclass(frozen=True)
class Job:
    id: str
    run: Case
    dtype: torch.dtype
    capability: int
    kernel: str
    loose: float = 0.0  # of the size of a sum, beside rounding

    def evaluate(self, kernels: SimpleNamespace) -> list[tuple[Tensor, Tensor]]:
        r = Run(kernels, int(os.environ["NEUROKERN_SEED"]) + sum(map(ord, self.id)))
        self.run(r, self.dtype)
        return r.results


def jobs() -> list[Job]:
    found = []
    for name, f in CASES.items():
        for dtype in DTYPES:
            # exp2 differs in the last bits, by which a probability of 16 bits may round the other way
            powers = name.startswith("attention") or name == "join_kernel"
            loose = EPS[dtype] / 8 if powers and dtype.itemsize == 2 else 0.0
            found.append(Job(f"{name}-{str(dtype)[6:]}", f, dtype, 90, name, loose))
    for kind, count in TILES.items():
        dtype = {"half": torch.bfloat16, "f64": torch.float64}.get(kind, torch.float32)
        for capability in (90, 80):
            for k in range(count):
                # the interpreter multiplies tf32 operands unrounded
                job = Job(
                    f"matmul-{kind}-{k}-sm_{capability}", tile(kind, k, capability), dtype, capability, "matmul_kernel",
                    2.0**-10 if kind == "tf32" else 0.0,
                )  # fmt: skip
                found.append(job)
    return found


JOBS = {j.id: j for j in jobs()}


def kernels() -> SimpleNamespace:
    from neurokern.kernels import triton
    from neurokern.testing.triton_ptx import MODULES

    assert all(m.__name__.startswith(triton.__name__) for m in MODULES)
    return SimpleNamespace(**{m.__name__.rpartition(".")[2].lstrip("_"): m for m in MODULES})


def compile_and_run() -> None:
    """The process that compiles: for each name of a job that comes in, a file's name, into which go its results, the
    kernels that ran, and what the driver said."""
    from neurokern.testing.ptx import DeviceError, emulator
    from neurokern.testing.triton_ptx import triton_on

    for line in sys.stdin:
        name, file = line.split()
        job = JOBS[name]
        with triton_on(emulator(), job.capability) as ran:
            try:
                answer = (job.evaluate(kernels()), ran, None)
            except DeviceError as error:
                answer = ([], ran, (error.code, str(error)))
        Path(file).write_bytes(pickle.dumps(answer))
        print("done", flush=True)


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory):
    """A function from a job's name to its results, by one process for all jobs of this worker."""
    folder = tmp_path_factory.mktemp("triton")
    env = dict(os.environ) | {"TRITON_INTERPRET": "0"}
    with (
        (folder / "errors").open("w+") as errors,
        subprocess.Popen(
            [sys.executable, __file__], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as child,
    ):

        def ask(job: str) -> tuple[list[tuple[Tensor, Tensor]], list[str], tuple[int, str] | None]:
            child.stdin.write(f"{job} {folder / 'answer'}\n")
            child.stdin.flush()
            for line in child.stdout:
                if line == "done\n":
                    return pickle.loads((folder / "answer").read_bytes())
            raise AssertionError(Path(errors.name).read_text())

        yield ask
        child.stdin.close()


@pytest.mark.parametrize("job", JOBS)
def test_as_the_interpreter(job: str, emulated: Callable[[str], tuple]) -> None:
    this = JOBS[job]
    results, ran, error = emulated(job)
    if error is not None:
        unsupported = 222
        if error[0] == unsupported:
            pytest.skip(error[1])
        raise AssertionError(error[1])
    assert this.kernel in ran
    want = this.evaluate(kernels())
    assert len(want) == len(results)
    for (ours, _), (theirs, scale) in zip(results, want, strict=True):
        assert not theirs.isnan().any()
        rounding = EPS[torch.float64 if this.dtype is torch.float64 else torch.float32]
        own = theirs.double().abs().clamp(min=torch.finfo(this.dtype).smallest_normal)
        bound = (EPS[this.dtype] + 4 * rounding) * own + (16 * rounding + this.loose) * scale
        error = (ours.double() - theirs.double()).abs()
        assert (error <= bound).all(), (float((error / bound).max()), ours.shape)


def test_every_kernel_is_here() -> None:
    """A kernel that is launched and has no test shows."""
    import triton

    k = kernels()
    launched = set()
    for module in set(vars(k).values()) - {k.grid_sample}:  # test_triton_grid_sample.py
        jitted = [n for n, v in vars(module).items() if isinstance(v, triton.runtime.KernelInterface)]
        launched |= {n for n in jitted if n.endswith("_kernel")}
    assert launched == set(CASES) | {"fold_kernel", "attention_query_kernel", "attention_key_kernel"}


if __name__ == "__main__":
    compile_and_run()
