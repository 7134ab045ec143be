"""Convolutions by the CUDA kernels, on the emulator: the three products in every dtype, layout and padding mode."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import neurokern
import pytest
import torch
from neurokern import _C
from neurokern.backends import emulation
from neurokern.ops import convolution as ops
from neurokern.testing import sass
from torch import Tensor

pytestmark = pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing()))

DTYPES = {"f32": torch.float32, "f64": torch.float64, "f16": torch.float16, "bf16": torch.bfloat16}
EPS = {torch.float32: 2.0**-24, torch.float64: 2.0**-53, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
SUMS = {torch.float32: 2.0**-20, torch.float64: 2.0**-49, torch.float16: 2.0**-20, torch.bfloat16: 2.0**-20}

# image, weight, stride, padding before and behind each dim, dilation, groups, mode
CASES: dict[str, tuple[Any, ...]] = {
    "3x3": ((2, 8, 9, 10), (24, 8, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1, "zeros"),
    "1x1": ((2, 16, 7, 7), (72, 16, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1, "zeros"),
    "few channels": ((2, 3, 12, 11), (10, 3, 5, 4), (2, 2), (2, 2, 2, 1), (1, 1), 1, "zeros"),
    "stride": ((1, 16, 12, 11), (8, 16, 3, 2), (2, 3), (1, 1, 1, 0), (1, 1), 1, "zeros"),
    "1x1 of every second": ((2, 8, 9, 8), (16, 8, 1, 1), (2, 2), (0, 0, 0, 0), (1, 1), 1, "zeros"),
    "dilation": ((1, 24, 13, 13), (9, 24, 3, 3), (1, 1), (4, 4, 3, 3), (3, 2), 1, "zeros"),
    "stride and dilation": ((1, 8, 15, 14), (8, 8, 3, 3), (2, 3), (2, 0, 1, 2), (2, 3), 1, "zeros"),
    "groups": ((2, 24, 6, 7), (48, 8, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 3, "zeros"),
    "odd groups": ((2, 15, 6, 7), (20, 3, 3, 3), (1, 2), (1, 1, 1, 1), (1, 1), 5, "zeros"),
    "depthwise": ((2, 16, 8, 9), (16, 1, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 16, "zeros"),
    "depthwise stride": ((1, 10, 9, 9), (20, 1, 3, 5), (2, 1), (1, 1, 2, 2), (1, 1), 10, "zeros"),
    "reflect": ((1, 8, 6, 7), (16, 8, 3, 3), (1, 1), (2, 1, 3, 2), (1, 1), 1, "reflect"),
    "replicate": ((1, 8, 6, 7), (16, 4, 3, 3), (2, 1), (2, 1, 3, 8), (1, 2), 2, "replicate"),
    "circular": ((2, 5, 6, 5), (6, 5, 3, 3), (1, 2), (2, 6, 3, 5), (1, 1), 1, "circular"),
    "circular of one": ((2, 4, 1, 3), (6, 4, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1, "circular"),
    "window as large as the image": ((3, 8, 4, 4), (70, 8, 4, 4), (1, 1), (0, 0, 0, 0), (1, 1), 1, "zeros"),
    "no batch": ((8, 9, 10), (16, 8, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1, "zeros"),
    "1d": ((2, 16, 21), (24, 16, 5), (2,), (2, 1), (1,), 1, "zeros"),
    "3d": ((1, 8, 5, 6, 7), (16, 8, 2, 3, 3), (1, 2, 1), (1, 0, 1, 1, 1, 1), (1, 1, 2), 1, "zeros"),
    "long window": ((1, 8, 50), (8, 8, 40), (1,), (19, 20), (1,), 1, "zeros"),
}
TRANSPOSED: dict[str, tuple[Any, ...]] = {  # input, weight, stride, padding, output padding, dilation, groups
    "3x3": ((2, 8, 5, 6), (8, 16, 3, 3), (2, 2), (1, 1, 1, 1), (1, 0), (1, 1), 1),
    "groups": ((1, 16, 5, 6), (16, 5, 2, 3), (2, 3), (0, 1, 0, 0), (0, 2), (1, 1), 2),
    "few taps": ((1, 8, 4, 5), (8, 24, 2, 1), (3, 2), (0, 0, 0, 0), (2, 1), (1, 1), 1),
    "1d": ((2, 8, 9), (8, 16, 4), (2,), (1, 1), (0,), (1,), 1),
}
LAYOUTS = ["contiguous", "channels_last", "strided"]


def laid_out(x: Tensor, layout: str, dims: int) -> Tensor:
    if layout == "strided":  # every second number, the last dim first
        wide = x.new_full((*reversed(x.shape), 2), torch.nan)
        wide[..., 0] = x.permute(*reversed(range(x.dim())))
        return wide[..., 0].permute(*reversed(range(x.dim())))
    if layout == "channels_last" and dims > 1:
        order = torch.channels_last if dims == 2 else torch.channels_last_3d
        if x.dim() == dims + 2:
            return x.contiguous(memory_format=order)
        return x.unsqueeze(0).contiguous(memory_format=order).squeeze(0) if x.dim() == dims + 1 else x
    return x


def leaves(tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    return [None if t is None else t.detach().requires_grad_() for t in tensors]


def results(call: Any, tensors: Sequence[Tensor | None], g: Tensor) -> list[Tensor]:
    y = call(*tensors)
    wanted = [t for t in tensors if t is not None]
    return [y.detach(), *torch.autograd.grad(y, wanted, g.to(y.dtype))]


def judge(
    call: Any, by_torch: Any, tensors: Sequence[Tensor | None], g: Tensor, dtype: torch.dtype
) -> tuple[list[Tensor], list[Any]]:
    """Each result beside float64, within its rounding and that of its terms' sum; returns them, and the launches."""
    with neurokern.emulate(), neurokern.strict(), neurokern.trace() as launches:
        got = results(call, leaves(tensors), g)
    wide = [None if t is None else t.double() for t in tensors]
    want = results(by_torch, leaves(wide), g.double())
    terms = results(by_torch, leaves([None if t is None else t.abs() for t in wide]), g.double().abs())
    for x, y, of in zip(got, want, terms, strict=True):
        assert x.dtype == dtype
        assert x.shape == y.shape
        error = (x.double() - y).abs()
        assert (error <= EPS[dtype] * y.abs() + SUMS[dtype] * of).all(), (error.max(), y.abs().max())
    return got, list(launches)


def made(shape: Sequence[int], dtype: torch.dtype, layout: str, dims: int) -> Tensor:
    return laid_out(torch.randn(*shape).to(dtype), layout, dims)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_convolution(case: str, dtype: str, layout: str) -> None:
    """The result, and the gradients to image, weight and bias."""
    if dtype != "bf16" and layout == "strided" and case not in ("3x3", "odd groups"):
        pytest.skip("said by bf16")
    image, weight, stride, padding, dilation, groups, mode = CASES[case]
    kind, dims = DTYPES[dtype], len(stride)
    tensors = [made(image, kind, layout, dims), made(weight, kind, layout, dims), torch.randn(weight[0]).to(kind)]
    window = (f"conv{dims}d", list(stride), list(padding), list(dilation), groups, mode)
    shape = ops._by_torch(*(t.to("meta") for t in tensors), *window).shape
    g = made(shape, kind, layout, dims)
    judge(lambda *t: ops.convolution(*t, *window), lambda *t: ops._by_torch(*t, *window), tensors, g, kind)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", TRANSPOSED)
def test_transposed(case: str, dtype: str, layout: str) -> None:
    inputs, weight, stride, padding, more, dilation, groups = TRANSPOSED[case]
    kind, dims = DTYPES[dtype], len(stride)
    bias = torch.randn(weight[1] * groups).to(kind)
    tensors = [made(inputs, kind, layout, dims), made(weight, kind, layout, dims), bias]
    window = (f"conv_transpose{dims}d", list(stride), list(padding), list(more), list(dilation), groups)
    shape = ops._transpose_by_torch(*(t.to("meta") for t in tensors), *window).shape
    g = made(shape, kind, layout, dims)
    judge(
        lambda *t: ops.convolution_transpose(*t, *window),
        lambda *t: ops._transpose_by_torch(*t, *window),
        tensors, g, kind,
    )  # fmt: skip


ACTIVATIONS = [("relu", 0.0, 0.0), ("gelu", 0.0, 0.0), ("silu", 0.0, 0.0), ("leaky_relu", 0.1, 0.0)]


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("act", ACTIVATIONS, ids=[act[0] for act in ACTIVATIONS])
def test_epilogue(act: tuple[str, float, float], dtype: str, layout: str) -> None:
    """Bias, activation and residual in one pass; what goes into the activation is kept for the backward."""
    kind = DTYPES[dtype]
    tensors = [made((2, 16, 7, 9), kind, layout, 2), made((40, 8, 3, 3), kind, layout, 2)]
    tensors += [torch.randn(40).to(kind), made((2, 40, 7, 9), kind, layout, 2)]
    window, g = ("conv2d", [1, 1], [1, 1, 1, 1], [1, 1], 2, "zeros"), made((2, 40, 7, 9), kind, layout, 2)
    with neurokern.emulate(), neurokern.strict():
        got = results(lambda *t: ops.convolution_activation(*t, *window, *act), leaves(tensors), g)
        assert torch.equal(got[0], ops.convolution_activation(*tensors, *window, *act))
    wide = [t.double() for t in tensors]
    want = results(lambda *t: ops._activation_by_torch(*t, *window, *act), leaves(wide), g.double())
    identity = ("identity", 0.0, 0.0)
    terms = results(
        lambda *t: ops._activation_by_torch(*t, *window, *identity), leaves([t.abs() for t in wide]), g.double().abs()
    )
    assert got[0].stride() == ops._by_torch(*tensors[:3], *window).stride()
    slack = [SUMS[kind], *[1.2 * SUMS[kind] + 2 * EPS[kind]] * 4]  # a gradient is of another that was rounded
    for x, y, of, some in zip(got, want, terms, slack, strict=True):
        assert ((x.double() - y).abs() <= EPS[kind] * y.abs() + some * of).all()


def test_results_are_the_same_at_every_run() -> None:
    x, w, b = torch.randn(2, 16, 9, 9).bfloat16(), torch.randn(16, 16, 3, 3).bfloat16(), torch.randn(16).bfloat16()
    g = torch.randn(2, 16, 9, 9).bfloat16()
    window = ("conv2d", [1, 1], [1, 1, 1, 1], [1, 1], 1, "zeros")
    with neurokern.emulate(), neurokern.strict():
        first, second = (results(lambda *t: ops.convolution(*t, *window), leaves((x, w, b)), g) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))


def test_empty() -> None:
    """Without images, and without channels: a bias alone."""
    window = ("conv2d", [1, 1], [1, 1, 1, 1], [1, 1], 1, "zeros")
    for x, w in (((0, 8, 5, 5), (16, 8, 3, 3)), ((2, 0, 5, 5), (16, 0, 3, 3))):
        tensors = [torch.randn(x), torch.randn(w), torch.randn(16)]
        g = torch.randn(x[0], 16, 5, 5)
        with neurokern.emulate(), neurokern.strict():
            got = results(lambda *t: ops.convolution(*t, *window), leaves(tensors), g)
        bias = tensors[2].view(1, -1, 1, 1).expand(g.shape)
        assert torch.equal(got[0], bias)
        assert torch.equal(got[2], torch.zeros(w))
        torch.testing.assert_close(got[3], g.sum((0, 2, 3)))


# ---- tiles ----


@pytest.fixture
def only() -> Iterator[Callable[..., None]]:
    yield _C.convolution_only
    _C.convolution_only("")


@pytest.fixture
def tf32() -> Iterator[None]:
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision("highest")


def three_products(
    image: Sequence[int], weight: Sequence[int], dtype: torch.dtype, layout: str, *, stride: int = 1, padding: int = 1
) -> list[Any]:
    """Judges a convolution and its gradients; the launches."""
    window = ("conv2d", [stride] * 2, [padding] * 4, [1, 1], image[1] // weight[1], "zeros")
    tensors = [made(image, dtype, layout, 2), made(weight, dtype, layout, 2), torch.randn(weight[0]).to(dtype)]
    g = made(ops._by_torch(*(t.to("meta") for t in tensors), *window).shape, dtype, layout, 2)
    return judge(lambda *t: ops.convolution(*t, *window), lambda *t: ops._by_torch(*t, *window), tensors, g, dtype)[1]


def kernels_of(launches: list[Any]) -> set[str]:
    return {launch.kernel for launch in launches}


def of_product(launches: list[Any], product: str) -> Any:
    return next(launch for launch in launches if launch.plan.startswith(product))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(("dtype", "tile"), [("bf16", "128x128"), ("f16", "128x128"), ("f32", "128x128")])
def test_large_tiles(dtype: str, tile: str, layout: str, only: Callable[..., None]) -> None:
    """Ragged in every direction."""
    only(tile)
    launches = three_products((2, 40, 11, 9), (136, 40, 3, 3), DTYPES[dtype], layout)
    assert {f"convolution_mma_{dtype}_{tile}", f"convolution_weight_{dtype}_{tile}"} <= {
        launch.kernel for launch in launches
    }


@pytest.mark.parametrize("dtype", ["bf16", "f16", "f32", "f64"])
def test_parts_of_k(dtype: str) -> None:
    """Long sums are those of parts, in order: few pixels of many channels, and a weight's gradient of many pixels."""
    launches = three_products((1, 128, 5, 7), (24, 128, 3, 3), DTYPES[dtype], "channels_last")
    assert "split 1 " not in of_product(launches, "result").plan
    launches = three_products((2, 8, 40, 41), (16, 8, 3, 3), DTYPES[dtype], "contiguous")
    assert "split 1 " not in of_product(launches, "weight gradient").plan
    assert launches[-2].kernel == f"convolution_reduce_{dtype}"


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("tile", ["64x64", "128x128"])
def test_tf32(tile: str, layout: str, only: Callable[..., None], tf32: None) -> None:
    """float32 by tensor cores, where torch's own products may: operands of 11 bits are exact."""
    only(tile)
    x, w = (made(s, torch.bfloat16, layout, 2).float() for s in ((2, 24, 9, 8), (72, 12, 3, 3)))
    g = made((2, 72, 5, 4), torch.bfloat16, layout, 2).float()
    window = ("conv2d", [2, 2], [1, 1, 1, 1], [1, 1], 2, "zeros")
    _, launches = judge(
        lambda *t: ops.convolution(t[0], t[1], None, *window), lambda *t: ops._by_torch(t[0], t[1], None, *window),
        [x, w], g, torch.float32,
    )  # fmt: skip
    assert {f"convolution_mma_tf32_{tile}", f"convolution_weight_tf32_{tile}"} <= kernels_of(launches)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("channels", "layout"), [(16, "channels_last"), (9, "channels_last"), (9, "contiguous")])
def test_depthwise(channels: int, layout: str, dtype: str) -> None:
    """By kernels of their own: units of channels, single ones, pixels; a weight's gradient in parts."""
    launches = three_products((4, channels, 23, 21), (channels, 1, 3, 3), DTYPES[dtype], layout)
    units = "_units" if channels == 16 else ""
    assert {f"convolution_depthwise_{k}{units}_{dtype}" for k in ("forward", "data", "weight")} <= {
        launch.kernel for launch in launches
    }


def test_a_stride_makes_no_products_with_zeros() -> None:
    """The data gradient of 3x3 taps two apart is 4 products of 1, 2, 2 and 4 taps; of 1x1, one and three of nothing."""
    launches = []
    for kernel, padding in ((3, 1), (1, 0)):
        window = ("conv2d", [2, 2], [padding] * 4, [1, 1], 1, "zeros")
        x, w = (made(s, torch.bfloat16, "channels_last", 2) for s in ((1, 64, 16, 16), (64, 64, kernel, kernel)))
        with neurokern.emulate(), neurokern.strict(), neurokern.trace() as seen:
            y = ops.convolution(x.requires_grad_(), w, None, *window)
            torch.autograd.grad(y, x, torch.ones_like(y))
        launches.append([s for s in seen if "data gradient" in s.plan])
    products = [[s.counters["matrix instructions"] for s in seen] for seen in launches]
    one = 64 * 64 * 64 // (16 * 8 * 16)  # a tap of 64 pixels
    assert [sorted(p) for p in products] == [[one, 2 * one, 2 * one, 4 * one], [0, 0, 0, one]]


@pytest.mark.parametrize("layout", ["channels_last", "contiguous"])
@pytest.mark.parametrize("tile", ["64x64", "128x128"])
def test_what_moves(tile: str, layout: str, only: Callable[..., None]) -> None:
    """Each block reads the sectors of its tiles once, without bank conflicts; one of a result is written once."""
    only(tile)
    n, c, size, side = 2, 64 if tile == "64x64" else 48, 16, int(tile.split("x")[0])
    launches = three_products((n, c, size, size), (c, c, 3, 3), torch.bfloat16, layout)
    assert all(launch.counters["bank conflicts"] == 0 for launch in launches if "channel_sums" not in launch.kernel)
    pixels, row = n * size * size, 2 * c // 32  # sectors of a pixel's channels
    for product in ("result", "data gradient"):
        seen = of_product(launches, product).counters
        assert seen["global sectors read"] <= 1.1 * (pixels * 9 * row + pixels // side * 9 * c * row)
        assert seen["global sectors written"] == pixels * row
    seen, table = of_product(launches, "weight gradient").counters, 8 * pixels // 32
    blocks = -(-9 * c // side)
    assert seen["global sectors read"] <= 1.1 * (9 * pixels * row + blocks * pixels * row) + 9 * 8 * table * blocks


@pytest.mark.skipif(sass.tools() is None, reason="no cuobjdump on this machine")
def test_instructions_beside_matmuls() -> None:
    """A turn of the main loop, where no tap ends: at most 1.15 times as many as matmul's has for these products."""
    for element, products, tile in (("bf16", 64, "128x128"), ("bf16", 32, "64x64"), ("f16", 64, "128x128")):
        for kernel, layout in (("mma", "nt"), ("weight", "tn")):
            ours, theirs = (
                sass.machine_code(f"{family}_mma_{element}", f"{name}_{tile}")
                for family, name in (
                    ("convolution", f"convolution_{kernel}_{element}"),
                    ("matmul", f"matmul_mma_{element}_{layout}"),
                )
            )
            for arch, code in ours.items():
                turn = sass.shortest_turn(code, products=products, copies=8)
                most = sass.shortest_turn(theirs[arch], products=products, copies=8).total()
                assert turn.total() <= 1.15 * most, (kernel, tile, arch, turn.total(), most, sorted(turn.items()))


def resources() -> list[dict[str, Any]]:
    table = json.loads((Path(_C.cuda_info()["kernel_dir"]) / "resources.json").read_text())
    return [row for name, rows in table.items() if name.startswith("convolution_") for row in rows]


def test_nothing_spills() -> None:
    rows = resources()
    assert len(rows) >= 100  # kernels for two architectures
    assert [r for r in rows if r.get("stack") or r.get("spill_stores") or r.get("spill_loads")] == []


def test_every_tile_was_compiled() -> None:
    names = {row["kernel"] for row in resources()}
    for tile in _C.convolution_tiles():
        m, n, _ = tile["tile"]
        for product in ("mma", "weight", *(["mapped"] if m == 64 else [])):
            assert f"convolution_{product}_{tile['element']}_{m}x{n}" in names


def test_plans() -> None:
    """Large tiles for large products; parts of k where few tiles would leave multiprocessors idle."""
    assert _C.convolution_plan(32 * 56 * 56, 64, 576) == (64, 64, 1, 576)
    assert _C.convolution_plan(32 * 28 * 28, 128, 1152)[:3] == (128, 128, 1)
    assert _C.convolution_plan(64, 576, 32 * 56 * 56)[2] > 8
    assert _C.convolution_plan(49, 2048, 512 * 9)[2] > 1


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("dtype", ["bf16", "f64"])
def test_padding_modes_by_tiles(dtype: str, mode: str) -> None:
    """All three products; the image's gradient is added up from the padded one's, whose sums were not rounded."""
    kind, window = DTYPES[dtype], ("conv2d", [1, 1], [3, 2, 1, 4], [1, 2], 2, mode)
    tensors = [made(s, kind, "channels_last", 2) for s in ((2, 24, 6, 7), (10, 12, 3, 3))]
    g = made((2, 10, 9, 8), kind, "channels_last", 2)
    _, launches = judge(
        lambda x, w: ops.convolution(x, w, None, *window), lambda x, w: ops._by_torch(x, w, None, *window),
        tensors, g, kind,
    )  # fmt: skip
    kernels = ("mapped_{}_64x64", "mma_{}_64x64", "fold_{}", "weight_{}_64x64")
    assert {f"convolution_{kernel.format(dtype)}" for kernel in kernels} <= kernels_of(launches)


@pytest.mark.parametrize(("mode", "groups"), [("zeros", 1), ("circular", 2)])
def test_images_are_packed_some_at_a_time(mode: str, groups: int, only: Callable[..., None]) -> None:
    """A weight's gradient is then the sum of those of all parts."""
    only("", packed=4096)
    window = ("conv2d", [1, 1], [1, 1, 1, 1], [1, 1], groups, mode)
    x, w = (made(s, torch.bfloat16, "contiguous", 2) for s in ((5, 16, 9, 8), (8, 16 // groups, 3, 3)))
    _, launches = judge(
        lambda *t: ops.convolution(*t, None, *window), lambda *t: ops._by_torch(*t, None, *window),
        [x, w], made((5, 8, 9, 8), torch.bfloat16, "contiguous", 2), torch.bfloat16,
    )  # fmt: skip
    for product in ("result", "data gradient", "weight gradient"):
        assert sum(launch.plan.startswith(product) for launch in launches) > 1


@pytest.mark.parametrize("layout", ["channels_last", "contiguous"])
@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("tile", ["64x64", "128x128"])
def test_no_bank_conflicts(tile: str, dtype: str, layout: str, only: Callable[..., None]) -> None:
    """Elements that are turned on their way, and results that are staged as they are or transposed."""
    if (tile, dtype) == ("128x128", "f64"):
        pytest.skip("f64 has one tile")
    only(tile)
    launches = three_products((1, 24, 16, 8), (64, 24, 3, 3), DTYPES[dtype], layout)
    assert f"convolution_mma_{dtype}_{tile}" in kernels_of(launches)
    assert [launch.kernel for launch in launches if launch.counters["bank conflicts"]] == []
