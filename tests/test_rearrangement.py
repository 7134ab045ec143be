"""Padding, shuffles and windows beyond what specs say: torch's layouts, what torch takes alone, plans, machine code."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import neurokern
import neurokern.functional as F
import pytest
import torch
from neurokern import _C, nn
from torch import Tensor

TF = torch.nn.functional
LAYERS = [f"{kind}Pad{d}d" for kind in ("Constant", "Zero", "Reflection", "Replication", "Circular") for d in (1, 2, 3)]


def layouts(*shape: int) -> Iterator[Tensor]:
    """One image in every layout that torch tells from others."""
    yield torch.randn(shape)
    yield torch.randn(shape).to(memory_format=torch.channels_last if len(shape) == 4 else torch.channels_last_3d)
    yield torch.randn(*shape[:-1], 2 * shape[-1])[..., ::2]
    yield torch.randn(shape[::-1]).permute(*reversed(range(len(shape))))
    yield torch.randn(*shape[:-1], 1).expand(shape)
    last = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    yield torch.randn(shape[0], 2 * shape[1], *shape[2:]).to(memory_format=last)[:, ::2]
    yield torch.randn(shape[0], 1, *shape[2:]).to(memory_format=last).expand(shape)


def same(ours: Callable[[Tensor], Tensor], theirs: Callable[[Tensor], Tensor], x: Tensor) -> None:
    y, right = ours(x), theirs(x)
    torch.testing.assert_close(y, right, rtol=0, atol=0)
    assert y.stride() == right.stride(), (list(x.shape), x.stride())
    if x.layout is torch.strided and x.is_floating_point() and right.numel():
        with torch.enable_grad():
            leaves = [x.detach().requires_grad_() for _ in range(2)]
            g = torch.randn(right.shape).as_strided(right.shape, right.stride()) if right.is_contiguous() else right
            made = [torch.autograd.grad(f(t), t, g)[0] for f, t in zip((ours, theirs), leaves, strict=True)]
        torch.testing.assert_close(*made)
        assert made[0].stride() == made[1].stride(), ("gradient", list(x.shape), x.stride())


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_padding_is_laid_out_as_torchs(mode: str) -> None:
    pads = {
        4: [(1, 2, 0, 1), (-1, -1, 0, -2), (-1, 1, 0, 0), (0, 0, 0, 0), (1, 0, 1, 1, 1, 1)],
        5: [(1, 0, 1, 1, 0, 1), (-1,) * 6],
    }
    for shape in ((2, 3, 4, 5), (2, 1, 4, 5), (2, 3, 4, 1), (2, 3, 4, 4, 5)):
        for x, pad in itertools.product(layouts(*shape), pads[len(shape)]):
            if shape[-1] == 1 and (mode in ("reflect", "circular") or min(pad) < 0):
                continue
            if shape[1] == 1 and mode == "reflect" and len(pad) == 6:
                continue
            same(lambda t, pad=pad: F.pad(t, pad, mode), lambda t, pad=pad: TF.pad(t, pad, mode), x)


@pytest.mark.parametrize("name", ["pixel_shuffle", "pixel_unshuffle", "channel_shuffle"])
def test_shuffles_are_laid_out_as_torchs(name: str) -> None:
    for shape in ((2, 8, 4, 6), (1, 4, 2, 2), (2, 3, 4, 4, 6)):
        for x in layouts(*shape):
            if name != "channel_shuffle" and len(shape) == 5 and not x.is_contiguous():
                continue  # of five dims torch takes no channels_last_3d
            factor = 3 if name == "channel_shuffle" and len(shape) == 5 else 2
            same(lambda t, f=factor: getattr(F, name)(t, f), lambda t, f=factor: getattr(TF, name)(t, f), x)


def test_an_empty_image_is_unshuffled_to_its_shape() -> None:
    """torch's keeps the shape that it had."""
    assert F.pixel_unshuffle(torch.empty(0, 2, 4, 6), 2).shape == (0, 8, 2, 3)


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.complex64, torch.int64, torch.uint8])
def test_what_has_no_kernel_goes_to_torch(dtype: torch.dtype) -> None:
    x = torch.ones(1, 4, 4, 4).to(dtype)
    for ours, theirs in (
        (lambda: F.pad(x, (1, 1), value=1), lambda: TF.pad(x, (1, 1), value=1)),
        (lambda: F.pixel_shuffle(x, 2), lambda: TF.pixel_shuffle(x, 2)),
        (lambda: F.channel_shuffle(x, 2), lambda: TF.channel_shuffle(x, 2)),
    ):
        with neurokern.trace() as trace:
            made = ours()
        assert torch.equal(made, theirs())
        assert made.dtype == dtype
        assert trace[0].backend == "torch"
        assert str(dtype) in trace[0].reason
        with neurokern.strict(), pytest.raises(RuntimeError, match=str(dtype)):
            ours()


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_pads_as_torchs(name: str) -> None:
    dims = int(name[-2])
    more = (2.5,) if name.startswith("Constant") else ()
    for shape in ((2, 3, *(5, 4, 6)[:dims]), (3, *(5, 4, 6)[:dims])):
        for padding in (1, tuple(range(2 * dims)) if dims == 1 else (1, 2, 0, 1, 1, 0)[: 2 * dims]):
            ours, theirs = getattr(nn, name)(padding, *more), getattr(torch.nn, name)(padding, *more)
            assert repr(ours) == repr(theirs)
            assert isinstance(ours, type(theirs))
            x = torch.randn(shape)
            with neurokern.strict():
                assert torch.equal(ours(x), theirs(x))
    patched = neurokern.patch(torch.nn.Sequential(getattr(torch.nn, name)(1, *more)))
    assert type(patched[0]) is getattr(nn, name)


def test_circular_layers_refuse_other_dims_as_torchs() -> None:
    with pytest.raises(ValueError, match="3D or 4D"):
        nn.CircularPad2d(1)(torch.randn(4, 5))


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("last", [False, True])
def test_gradients_are_the_same_bits_on_any_number_of_threads(mode: str, last: bool) -> None:
    x = torch.randn(4, 24, 33, 31)
    x = (x.to(memory_format=torch.channels_last) if last else x).requires_grad_()
    g = torch.randn(4, 24, 39, 37)
    threads = torch.get_num_threads()
    made = []
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            made.append(torch.autograd.grad(F.pad(x, (3,) * 4, mode), x, g)[0])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])


def test_a_copy_of_a_shuffle_goes_in_vectors() -> None:
    """The trace names the kernel: no shuffle of small factors is copied element by element."""
    last = torch.channels_last
    kernels = {
        "interleave": [
            lambda: F.pixel_shuffle(torch.randn(1, 8, 4, 6), 2),
            lambda: F.pixel_unshuffle(torch.randn(1, 8, 4, 6).to(memory_format=last), 2),
            lambda: F.channel_shuffle(torch.randn(1, 64, 4, 6).to(memory_format=last), 4),
        ],
        "deinterleave": [
            lambda: F.pixel_unshuffle(torch.randn(1, 8, 4, 6), 2),
            lambda: F.pixel_shuffle(torch.randn(1, 32, 4, 6).to(memory_format=last), 2),
        ],
        "copy_rows": [lambda: F.channel_shuffle(torch.randn(1, 64, 4, 6), 4)],
    }
    for kernel, calls in kernels.items():
        for call in calls:
            with neurokern.trace() as trace:
                call()
            assert trace[0].kernel == kernel, (kernel, trace[0])


def test_graphs_of_any_size() -> None:
    """torch.compile with the sizes of images left open: one graph, and torch's results."""

    def f(x: Tensor) -> Tensor:
        y = F.pixel_shuffle(F.pad(x, (1, 1, 2, 0), "reflect"), 2)
        return F.fold(F.unfold(y, 3, padding=1), y.shape[-2:], 3, padding=1)

    compiled = torch.compile(f, backend="aot_eager", dynamic=True, fullgraph=True)
    for h, w in ((6, 7), (8, 5)):
        x = torch.randn(2, 4, h, w, requires_grad=True)
        y = compiled(x)
        torch.testing.assert_close(y, f(x))
        g = torch.randn_like(y)
        torch.testing.assert_close(torch.autograd.grad(y, x, g), torch.autograd.grad(f(x), x, g))


FOLDER = Path(_C.cuda_info()["kernel_dir"])


@pytest.mark.skipif(not (FOLDER / "rearrangement_pad.fatbin").exists(), reason="this build has no CUDA kernels")
def test_registers_of_the_cuda_kernels() -> None:
    """Four blocks of 256 threads on an SM, three of the copy, and nothing spilled."""
    table = json.loads((FOLDER / "resources.json").read_text())
    for fatbin in ("rearrangement_copy", "rearrangement_pad", "rearrangement_windows"):
        for row in table[fatbin]:
            most = 80 if "copy" in fatbin else 64
            assert row["registers"] <= most, row
            assert row["spill_stores"] == row["spill_loads"] == 0, row
