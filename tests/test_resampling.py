"""What samples of one call don't show: layouts of gradients, old names, layers, scales that are nearly whole."""

from __future__ import annotations

import neurokern.functional as F
import pytest
import torch
from neurokern import nn

TF = torch.nn.functional
MODES = [(1, "linear"), (2, "nearest"), (2, "bilinear"), (2, "bicubic"), (3, "nearest"), (3, "trilinear")]
LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


@pytest.mark.parametrize("channels", (1, 3))
@pytest.mark.parametrize("last", [(False, False), (False, True), (True, False), (True, True)])
@pytest.mark.parametrize(("n", "mode"), MODES)
def test_layouts_are_torchs(n: int, mode: str, last: tuple[bool, bool], channels: int) -> None:
    shape = (2, channels, *(5, 6, 7)[:n])
    x, g = torch.randn(shape), torch.randn(2, channels, *(8, 9, 4)[:n])
    if n > 1:
        x, g = (t.to(memory_format=LAST[n]) if to else t for t, to in zip((x, g), last, strict=True))
    found = []
    for f in (F, TF):
        y = f.interpolate(x.requires_grad_(), (8, 9, 4)[:n], mode=mode)
        (gx,) = torch.autograd.grad(y, x, g)
        found.append((y.stride(), gx.stride()))
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ("upsample", "upsample_nearest", "upsample_bilinear"))
def test_old_names_warn(name: str) -> None:
    x = torch.randn(2, 3, 4, 5)
    with pytest.warns(UserWarning, match="interpolate"):
        y = getattr(F, name)(x, scale_factor=2)
    with pytest.warns(UserWarning, match="deprecated"):
        torch.testing.assert_close(y, getattr(TF, name)(x, scale_factor=2))


@pytest.mark.parametrize("name", ("UpsamplingNearest2d", "UpsamplingBilinear2d"))
def test_layers_of_two_dims(name: str) -> None:
    x = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(getattr(nn, name)((7, 9))(x), getattr(torch.nn, name)((7, 9))(x))


def test_a_gradient_is_that_of_the_forward_where_a_scale_is_nearly_whole() -> None:
    """Three elements by 2.1 are six, but not two of each."""
    x = torch.randn(1, 1, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: F.interpolate(t, scale_factor=2.1), x)
    torch.testing.assert_close(F.interpolate(x, scale_factor=2.1), TF.interpolate(x, scale_factor=2.1))
