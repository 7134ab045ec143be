"""Every Triton kernel and configuration compiles for sm_90 and sm_80: no spills, tensor cores where they belong.

No GPU is needed: the launch functions run on meta tensors, and a stand-in driver names the target, so that types,
alignments and specialisations are those of a real launch.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton")
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")

if not INTERPRETED:
    from neurokern.kernels.triton import (
        activation,
        attention,
        attention_backward,
        attention_cache,
        convolution,
        matmul,
        normalization,
        random,
        rearrangement,
        softmax,
    )  # fmt: skip
    from neurokern.kernels.triton._common import accumulator
    from neurokern.kernels.triton._functions import ACTIVATIONS
    from neurokern.testing.triton_ptx import MODULES, Target
    from neurokern.testing.triton_ptx import PLANNED_FOR as DEVICES
    from triton.runtime import driver

    NAMES = [a[0] for a in ACTIVATIONS]
else:
    # Decorated for the interpreter, the kernels of this process cannot be compiled: another one does it.
    NAMES, DEVICES = [], {}

    @pytest.mark.slow
    @pytest.mark.parametrize("chosen", ["attention", "not attention"])
    def test_the_rest(in_a_process_of_its_own, chosen):
        # an explicit 0: without it conftest would choose the interpreter again, and this test itself without end
        in_a_process_of_its_own("0", chosen)


pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
HALF = (torch.bfloat16, torch.float16)
ALL = (torch.float32, torch.float64, *HALF)
GELU, SILU = 7, 9


@pytest.fixture(params=sorted(DEVICES, reverse=True), ids=lambda c: f"sm_{c}")
def compiled(request, monkeypatch, tmp_path):
    """List that fills with (name, kernel) for each launch, checked for spills as it comes."""
    monkeypatch.setattr(driver, "_active", Target(request.param))
    found = []

    def launch(kernel, grid, args, meta, plan, tensor, record):
        assert 0 < grid < 2**31
        binary = kernel.warmup(*args, grid=(grid,), **meta, enable_fp_fusion=False)
        used = resources(binary.asm["cubin"], tmp_path)
        what = f"{kernel.fn.__name__} {plan} {meta}"
        assert used["STACK"] == 0, f"{what} spills: {used}"
        assert used["LOCAL"] == 0, f"{what} spills: {used}"
        assert binary.metadata.shared <= DEVICES[request.param].shared, f"{what} takes {binary.metadata.shared} B"
        found.append((kernel, binary))

    for module in MODULES:
        monkeypatch.setattr(module, "launch", launch)
        if hasattr(module, "device_of"):
            monkeypatch.setattr(module, "device_of", lambda t: DEVICES[request.param])
    return found


def resources(cubin: bytes, folder: Path) -> dict[str, int]:
    """Registers, stack and local memory as cuobjdump reads them from the machine code."""
    file = folder / "kernel.cubin"
    file.write_bytes(cubin)
    text = subprocess.run([CUOBJDUMP, "-res-usage", file], capture_output=True, text=True, check=True).stdout
    return {k: int(v) for k, v in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


@pytest.mark.parametrize("act", range(len(NAMES)), ids=NAMES)
def test_every_activation(compiled, act):
    """Value and first derivative in one kernel, second in another; f32 on one target, f64 on the other."""
    target = driver.active.get_current_target().arch
    x = empty(4096, dtype=torch.float32 if target == 90 else torch.float64)
    activation.gated_backward(x, x, x, x, x, act, 1.0, 2.0)
    activation.unary_backward2(x, x, x, x, act, 1.0, 2.0)
    assert len(compiled) == 2


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_every_elementwise_kernel(compiled, dtype):
    x, w = empty(64, 64, dtype=dtype), empty(64, dtype=dtype)
    activation.unary(x, x, GELU, 0.0, 0.0)
    activation.unary_backward(x, x, x, GELU, 0.0, 0.0)
    activation.gated(x, x, x, GELU, 0.0, 0.0)
    activation.prelu(x, x, w.expand(64, 64))
    activation.prelu_backward(x, None, x, x, w.expand(64, 64))
    activation.prelu_backward(x, w, x, x, w.expand(64, 64))
    # Four elementwise, PReLU's two, and the sum over chunks.
    assert len(compiled) == 7
    for _, kernel in compiled[:3]:
        assert re.search(r"ld\.global\S*\.v[24]", kernel.asm["ptx"]), "loads are not vectorised"


def test_every_form_of_layout(compiled):
    x = empty(256, 128, dtype=torch.bfloat16)
    big = empty(2**17, 2**15, dtype=torch.bfloat16)
    slices = x[:, :64]
    for t in (
        x,
        x.reshape(-1)[:1001],
        slices,
        x[:, :63],
        x[:, ::2],
        empty(3, 5, 7, 9, 11, 13)[:, 1:, 1:, 1:, 1:, 1:],
        big,
        big[:, :511],
        big[:, :512],
    ):
        activation.unary(t, t, 1, 0.0, 0.0)
    assert "v4.b32" in compiled[2][1].asm["ptx"], "rows of an aligned slice are not read 16 bytes at a time"
    shape = (4, 16, 8, 8)
    for t in (empty(*shape), empty(*shape).to(memory_format=torch.channels_last), empty(2**18, 2**14)):
        w = empty(t.shape[1])
        activation.prelu_backward(t, w, t, t, w.reshape(1, -1, *[1] * (t.dim() - 2)).expand(t.shape))


ROWS = {
    "short rows, several in a tile": ((500, 10), 1),
    "one row in a tile": ((64, 1000), 1),
    "longest row in registers": ((64, 8192), 1),
    "online": ((4, 50000), 1),
    "channels of an image, in registers": ((2, 64, 32, 32), 1),
    "down a matrix, online": ((9000, 512), 0),
    "batch strides": ((3, 8, 200, 5), 2),
}


@pytest.mark.parametrize("dtype", ALL, ids=str)
@pytest.mark.parametrize("rows", ROWS)
def test_every_normalization(compiled, rows, dtype):
    shape, dim = ROWS[rows]
    x = empty(*shape, dtype=dtype).movedim(dim, -1)
    y = empty(*x.shape, dtype=dtype)
    w, rstd = empty(x.shape[-1], dtype=dtype), empty(*x.shape[:-1], dtype=accumulator(x))
    for bias, mean in ((w, rstd), (None, None)):
        normalization.normalize(y, x, w, bias, mean, rstd, 1, 1e-5)
        normalization.normalize_backward(y, w, bias, y, x, w, mean, rstd, 1)
    assert len(compiled) >= 4


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_random_numbers(compiled, dtype):
    random.uniform(empty(1001, dtype=dtype), 3, 5, 7)
    assert len(compiled) == 1


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_every_rearrangement(compiled, dtype):
    """Each mode of padding and of its gradient; windows."""
    x, y = empty(2, 3, 8, 9, dtype=dtype), empty(2, 3, 11, 12, dtype=dtype)
    for mode in rearrangement.MODES:
        rearrangement.pad(y, x, mode, [0, 0, 1, 2], 1.0)
        if mode != "constant":
            rearrangement.pad_sums(x, y, mode, [0, 0, 1, 2])
    columns = empty(2, 27, 72, dtype=dtype)
    window = ([3, 3], [1, 1], [1, 1], [1, 1])
    rearrangement.unfold(columns, x, *window)
    rearrangement.fold(x, columns, *window)
    assert len(compiled) == 9


@pytest.mark.parametrize("rows", ROWS)
def test_every_softmax(compiled, rows):
    """The three kinds with a dtype each on sm_90, the first on sm_80."""
    shape, dim = ROWS[rows]
    kinds = range(3) if driver.active.get_current_target().arch == 90 else range(1)
    for kind in kinds:
        x = empty(*shape, dtype=(torch.float32, torch.bfloat16, torch.float64)[kind])
        softmax.softmax(x, x, dim, kind)
        softmax.softmax_backward(x, x, x, dim, kind)
    assert len(compiled) == 2 * len(kinds)


def attend(dtype: torch.dtype, size: int, queries: int, everything: bool) -> None:
    """Forward and backward of causal attention with shared heads; with every rule."""
    keys, wide = 1024, accumulator(empty(1, dtype=dtype))
    q, k, out = (empty(2, h, n, size, dtype=dtype) for h, n in ((8, queries), (4, keys), (8, queries)))
    lse = empty(2, 8, queries, dtype=wide)
    more: dict[str, torch.Tensor | None] = dict.fromkeys(("mask", "bias", "slopes", "sink"))
    if everything:
        more["mask"] = empty(2, 1, queries, keys, dtype=torch.bool).expand(2, 8, -1, -1)
        more["bias"] = empty(8, queries, keys, dtype=dtype).expand(2, -1, -1, -1)
        more["slopes"], more["sink"] = empty(8, dtype=wide).expand(2, 8), empty(8, dtype=dtype)
    given = (q, k, k, *more.values(), None, None, empty(2, dtype=torch.int64) if everything else None)
    numbers = (None, 2.0, 0.25, (300, 0, 128, 1, 1, 0, 0)) if everything else (None, 0.0, 0.0, (-1, 0, 0, 0, 1, 0, 0))
    attention.attention(out, lse, *given, *numbers)
    gradients = (q, k, k, more["bias"], more["sink"])
    attention_backward.attention_backward(*gradients, out, lse if everything else None, *given, out, lse, *numbers)


ATTENTION = {
    "half": (torch.bfloat16, 64, 1024), "wide heads": (torch.bfloat16, 256, 300), "decode": (torch.bfloat16, 128, 1),
    "f32": (torch.float32, 64, 1024), "tf32": (torch.float32, 64, 1024), "f64": (torch.float64, 64, 300),
}  # fmt: skip


@pytest.mark.parametrize("everything", [False, True], ids=["causal", "every rule"])
@pytest.mark.parametrize("form", ATTENTION)
def test_attention(compiled, monkeypatch, form, everything):
    dtype, size, queries = ATTENTION[form]
    if "tf32" in form:
        monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    attend(dtype, size, queries, everything)
    names = [k.fn.__name__ for k, _ in compiled]
    assert names[:2] == ["attention_kernel", "attention_query_kernel"]
    assert len(names) == (5 if everything else 3)
    kind = "ieee" if dtype is torch.float32 and "tf32" not in form else "half"
    for kernel, binary in compiled:
        if kernel.fn.__name__.startswith("attention"):
            multiplies(kind, binary.asm["ptx"])


@pytest.mark.parametrize("page", [0, 1, 16, 48])
@pytest.mark.parametrize("form", ["half", "f32", "f64"])
def test_attention_of_a_cache(compiled, form, page):
    """A token of 8 heads, which share 2 of keys, and many; a few rules and none."""
    dtype, wide = ATTENTION[form][0], accumulator(empty(1, dtype=ATTENTION[form][0]))
    numbers = empty(3, dtype=torch.int32)
    k = empty(3000 if page else 3, 2, page or 4096, 128, dtype=dtype)
    table = empty(3, 4096 // page, dtype=torch.int32) if page else None
    attention_cache.append_to_cache(k, empty(3, 2, 1, 128, dtype=dtype), numbers, table)
    for tokens, everything in ((1, False), (1, True), (64, True)):
        q, lse = empty(3, 8, tokens, 128, dtype=dtype), empty(3, 8, tokens, dtype=wide)
        slopes, sink = (empty(3, 8, dtype=wide), empty(8, dtype=dtype)) if everything else (None, None)
        rules = (100, 0, 1, tokens, 0) if everything else (-1, 0, 1, tokens, 0)
        attention_cache.attention_of_cache(
            q, lse, q, k, k, numbers, table, slopes, sink, None, 2.0 if everything else 0.0, rules
        )
    names = [k.fn.__name__ for k, _ in compiled]
    assert names.count("attention_of_cache_kernel") == 3
    assert names.count("join_kernel") >= 2, "one token fills no GPU without parts of the keys"


def test_lengths_share_compilations_of_attention(compiled):
    for queries in (1000, 1001, 333):
        attend(torch.bfloat16, 64, queries, False)
    for kernel in {k for k, _ in compiled}:
        assert len({b.hash for k, b in compiled if k is kernel}) <= 2, kernel.fn.__name__  # of lse's stride, or not


def product(plan, dtype, monkeypatch, size: int, transposed=(False, True), act: int | None = None) -> None:
    """Compile a plan on a square problem, with a full epilogue where an activation is given."""
    monkeypatch.setattr(matmul, "config", lambda problem, device: plan)
    out, a, b = (empty(size, size, dtype=dtype) for _ in range(3))
    a = a.t() if transposed[0] else a
    b = b.t() if transposed[1] else b
    extra = (None, None, None) if act is None else (out[0], out, out)
    matmul.matmul(out, a, b, *extra, act or 0, 0.0, 0.0, 1.0, 1.0)


def multiplies(kind: str, ptx: str) -> None:
    if kind == "ieee":
        assert "mma" not in ptx, "f32 in full precision must not pass through tensor cores"
        assert "fma.rn.f32" in ptx
    else:
        assert re.search(r"wgmma\.mma_async|mma\.sync", ptx), "no tensor-core instruction"


TILES = [(kind, i) for kind, tiles in matmul._TILES.items() for i in range(len(tiles))] if NAMES else []


@pytest.mark.parametrize("kind, tile", TILES, ids=["-".join(map(str, (k, *matmul._TILES[k][i][:3]))) for k, i in TILES])
def test_every_matmul_tile(compiled, kind, tile, monkeypatch):
    """With the heaviest epilogue that the plan gives it: activation, bias, residual and preactivation, or none."""
    device = DEVICES[driver.active.get_current_target().arch]
    # half: bf16 on one target, f16 on the other.
    dtype = {"half": HALF[device.capability == 80], "f64": torch.float64}.get(kind, torch.float32)
    plan = matmul.candidates(kind, device)[tile]
    fused = plan in matmul.candidates(kind, device, plain=False)
    act = GELU if device.capability == 90 else SILU
    product(plan, dtype, monkeypatch, 1024, act=act if fused else None)
    ptx = compiled[0][1].asm["ptx"]
    multiplies(kind, ptx)
    assert "cp.async" in ptx, "loads are not pipelined"
    if kind == "half" and device.capability == 90 and plan.block_m >= 64:
        assert "wgmma.mma_async" in ptx


@pytest.mark.parametrize("kind", ["half", "tf32", "ieee"])
def test_unaligned_matmul(compiled, kind, monkeypatch):
    """Loads of single elements, whose addresses take registers: the largest tile that the plan then gives."""
    device = DEVICES[driver.active.get_current_target().arch]
    plan = max(matmul.candidates(kind, device, False, False), key=lambda p: p.block_m * p.block_n)
    product(plan, torch.bfloat16 if kind == "half" else torch.float32, monkeypatch, 1000, act=GELU)
    multiplies(kind, compiled[0][1].asm["ptx"])


@pytest.mark.parametrize("transposed", [(False, False), (True, False), (True, True)], ids=["NN", "TN", "TT"])
@pytest.mark.parametrize("kind", ["half", "tf32", "ieee"])
def test_every_matmul_order(compiled, kind, transposed, monkeypatch):
    device = DEVICES[driver.active.get_current_target().arch]
    dtype = torch.bfloat16 if kind == "half" else torch.float32
    product(matmul.candidates(kind, device)[0], dtype, monkeypatch, 1024, transposed)
    multiplies(kind, compiled[0][1].asm["ptx"])


def convolve(dtype: torch.dtype, tf32: bool, x: torch.Tensor, weight: torch.Tensor, groups: int, **geometry) -> None:
    """Forward with everything fused and with nothing, and all gradients."""
    numbers = {"stride": (1, 1, 1), "before": (0, 1, 1), "behind": (0, 1, 1), "dilation": (1, 1, 1)} | geometry
    g = convolution.Geometry(**numbers, groups=groups)
    walk = zip(x.shape[2:], g.before, g.behind, g.dilation, weight.shape[2:], g.stride, strict=True)
    pixels = [(n + a + b - d * (k - 1) - 1) // s + 1 for n, a, b, d, k, s in walk]
    last = torch.channels_last_3d if x.stride(1) == 1 else torch.contiguous_format
    y = empty(x.shape[0], weight.shape[0], *pixels, dtype=dtype).to(memory_format=last)
    bias = empty(weight.shape[0], dtype=dtype)
    convolution.forward(y, x, weight, g, bias, y, y, GELU, 0.0, 0.0, tf32=tf32)
    convolution.forward(y, x, weight, g, tf32=tf32)
    convolution.data_gradient(x, y, weight, g, None if g.mode != "zeros" else empty(x.shape[1], dtype=dtype), tf32=tf32)
    convolution.weight_gradient(weight, x, y, g, tf32=tf32)
    convolution.channel_sums(bias, y)


CONVOLUTIONS = {  # images, weights, groups, geometry
    "3 x 3": ((8, 64, 1, 56, 56), (128, 64, 1, 3, 3), 1, {}),
    "few channels, strides": ((8, 3, 1, 224, 224), (64, 3, 1, 7, 7), 1, {"stride": (1, 2, 2), "before": (0, 3, 3)}),
    "groups": ((8, 64, 1, 14, 14), (64, 16, 1, 3, 3), 4, {"dilation": (1, 2, 1)}),
    "depthwise": ((8, 96, 1, 28, 28), (96, 1, 1, 7, 7), 96, {}),
    "three dims": ((2, 33, 8, 15, 17), (50, 33, 3, 3, 3), 1, {"before": (1, 1, 1), "stride": (2, 1, 2)}),
    "reflect": ((2, 64, 1, 32, 32), (64, 64, 1, 3, 3), 1, {"mode": "reflect"}),
    "replicate": ((2, 64, 1, 32, 32), (64, 64, 1, 3, 3), 1, {"mode": "replicate"}),
    "circular": ((2, 64, 1, 32, 32), (64, 64, 1, 3, 3), 1, {"mode": "circular"}),
}


FORMS = [(f, d) for f in CONVOLUTIONS for d in (*ALL, "tf32") if f not in ("replicate", "circular") or d in HALF]


@pytest.mark.parametrize("form, dtype", FORMS, ids=[f"{f}-{d}" for f, d in FORMS])
def test_every_convolution(compiled, form, dtype):
    """On sm_80 those whose kernels differ most."""
    if driver.active.get_current_target().arch == 80 and form not in ("3 x 3", "groups", "three dims"):
        pytest.skip("compiled for sm_90")
    kind = "tf32" if dtype == "tf32" else matmul.kind_of(dtype, "ieee")
    dtype = torch.float32 if dtype == "tf32" else dtype
    image, weight, groups, geometry = CONVOLUTIONS[form]
    last = torch.channels_last_3d if dtype in (torch.bfloat16, torch.float32) else torch.contiguous_format
    x, w = empty(*image, dtype=dtype).to(memory_format=last), empty(*weight, dtype=dtype)
    convolve(dtype, kind == "tf32", x, w, groups, **geometry)
    products = [b.asm["ptx"] for k, b in compiled if k.fn.__name__ in ("product_kernel", "weight_kernel")]
    assert bool(products) == (form != "depthwise")
    for ptx in products:
        multiplies(kind, ptx)


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_split_and_bias_backward(compiled, dtype):
    out, a, b = empty(16, 32, dtype=dtype), empty(16, 8192, dtype=dtype), empty(8192, 32, dtype=dtype)
    matmul.matmul(out, a, b, out[0], out, out, GELU, 0.0, 0.0, 1.0, 1.0)
    assert [k.fn.__name__ for k, _ in compiled] == ["matmul_kernel", "split_kernel"]
    for t in (empty(512, 512, dtype=dtype), empty(512, 512, dtype=dtype).t()):
        matmul.activation_bias_backward(t, t[0], t, t, GELU, 0.0, 0.0)
    matmul.activation_bias_backward(None, t[0], t, None, 0, 0.0, 0.0)
    matmul.activation_bias_backward(t, None, t, t, GELU, 0.0, 0.0)


def test_batches_and_wide_offsets(compiled):
    a, b = empty(6, 7, 128, 64, dtype=torch.bfloat16), empty(1, 7, 64, 96, dtype=torch.bfloat16)
    matmul.matmul(empty(6, 7, 128, 96, dtype=a.dtype), a, b.expand(6, -1, -1, -1), None, None, None, 0, 0, 0, 1, 1)
    wide = empty(2**16, 2**15, dtype=torch.bfloat16)
    matmul.matmul(empty(2**16, 64, dtype=a.dtype), wide, wide[:64].t(), None, None, None, 0, 0, 0, 1, 1)
    for _, kernel in compiled:
        assert "cp.async" in kernel.asm["ptx"], "loads are not pipelined"


def test_shapes_share_compilations(compiled):
    """New lengths and numbers of rows do not compile anew."""

    def count(kernel) -> int:
        return len({b.hash for k, b in compiled if k is kernel})

    for n in (17, 1000, 1001, 4099, 70001):
        x = empty(n)
        activation.unary(x, x, 1, 0.0, 0.0)
    for n in (32, 48, 1024, 1008):
        x = empty(n)
        activation.unary(x, x, 1, 0.0, 0.0)
        rows = empty(n, 4096)[:, :2048]
        activation.unary(rows, rows, 1, 0.5, 0.25)
    assert count(activation.unary_kernel) == 3  # ragged, even, aligned rows
    for m in (300, 301, 515, 777):
        softmax.softmax(empty(m, 768), empty(m, 768), 1, 0)
        x, w = empty(m, 4096), empty(4096, 4096)
        matmul.activation_bias_backward(x, w[0], x, x, 1, 0.0, 0.0)
    assert count(softmax.softmax_kernel) == 1
    assert count(matmul.activation_bias_backward_kernel) == 1


@pytest.mark.parametrize("capability", list(DEVICES))
def test_plans_are_sound(capability):
    """Every plan fits its device and is the same each time; a tile is no larger than the problem needs."""
    device = DEVICES[capability]
    sizes = (1, 5, 16, 64, 197, 1000, 8192)
    for dtype in ALL:
        for m in sizes:
            for n in sizes:
                for k in (0, 1, 64, 4096, 100_000):
                    problem = matmul.Problem(m, n, k, 1, dtype)
                    plan = matmul.config(problem, device)
                    assert plan == matmul.config(problem, device)
                    assert plan.split == 1 or k >= 4 * plan.split * plan.block_k, (problem, plan)
                    assert m > 16 or plan.block_m <= 64, (problem, plan)
    assert matmul.config(matmul.Problem(16, 32, 100_000), device).split > 1
    text = str(matmul.config(matmul.Problem(8192, 8192, 8192, 1, torch.bfloat16), device))
    assert text.startswith("tile=128x256x64 group=8 split=1 warps=8 stages=3")
