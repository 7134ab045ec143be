"""What samples of one call don't show: points at NaN and far away, the same bits on any number of threads."""

from __future__ import annotations

import math

import neurokern
import neurokern.functional as F
import pytest
import torch

TF = torch.nn.functional
PADDINGS = ("zeros", "border", "reflection")
AWAY = (math.nan, math.inf, -math.inf, 1e30, -1e30, 3e9)
IMAGE = {2: (3, 4), 3: (2, 3, 4)}


def image_and_points(dims: int, place: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A point that is far away along W alone, and one beside it."""
    x = torch.arange(1.0, 1 + math.prod(IMAGE[dims])).reshape(1, 1, *IMAGE[dims])
    grid = torch.full((1, *[1] * (dims - 1), 2, dims), 0.1)
    grid[..., 0, 0] = place
    return x.requires_grad_(), grid.requires_grad_()


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(
    ("dims", "mode"), [(2, "bilinear"), (2, "nearest"), (2, "bicubic"), (3, "bilinear"), (3, "nearest")]
)
@pytest.mark.parametrize("backend", ("cpu", "cuda"))
def test_points_far_away_are_torchs(backend: str, dims: int, mode: str, padding: str) -> None:
    for place in AWAY:
        for corners in (False, True):
            x, grid = image_and_points(dims, place)
            with neurokern.emulate(), neurokern.backend(backend):
                y = F.grid_sample(x, grid, mode, padding, corners)
                made = torch.autograd.grad(y.sum(), (x, grid))
            expected = TF.grid_sample(x, grid, mode, padding, corners)
            torch.testing.assert_close(y, expected, equal_nan=True, msg=lambda m, at=place: f"at {at}: {m}")
            if dims == 2 and mode != "bicubic" and padding != "zeros" and not -1e31 < place < 1e31:
                # torch's gradients read and write outside of the image here: ours are those of its forward
                assert made[0].sum() == 2
                assert made[1][..., 0, 0] == 0
                continue
            theirs = torch.autograd.grad(expected.sum(), (x, grid))
            for ours, other in zip(made, theirs, strict=True):
                torch.testing.assert_close(ours, other, equal_nan=True, atol=1e-5, rtol=1e-5)


def test_threads_change_no_bit() -> None:
    """Of an image whose channels are shared out in other blocks, too."""
    x, grid = torch.randn(1, 70, 40, 40), torch.rand(1, 50, 50, 2) * 2 - 1
    g = torch.randn(1, 70, 50, 50)
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            inputs = x.clone().requires_grad_(), grid.clone().requires_grad_()
            y = F.grid_sample(*inputs, align_corners=False)
            found.append((y, *torch.autograd.grad(y, inputs, g)))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_a_point_is_made_only_of_what_it_is_in() -> None:
    """NaN and infinity in the image or in the gradient stay with the points and pixels around them."""
    x, grid = torch.randn(1, 3, 6, 6), torch.tensor([[[[-0.6, -0.6], [0.6, 0.6]]]])
    x[..., 5, 5] = math.nan
    g = torch.ones(1, 3, 1, 2)
    g[..., 0] = math.inf
    for backend in ("cpu", "cuda"):
        inputs = x.clone().requires_grad_(), grid.clone().requires_grad_()
        with neurokern.emulate(), neurokern.backend(backend):
            y = F.grid_sample(*inputs, align_corners=False)
            gx, _ = torch.autograd.grad(y, inputs, g)
        assert y[..., 0].isfinite().all()
        assert gx[..., 3:, 3:].isfinite().all()
        assert gx[..., :2, :2].isinf().any()


def test_none_for_corners_warns() -> None:
    x, grid, theta = torch.randn(1, 1, 3, 3), torch.zeros(1, 1, 1, 2), torch.eye(2, 3)[None]
    with pytest.warns(UserWarning, match="align_corners"):
        F.grid_sample(x, grid)
    with pytest.warns(UserWarning, match="align_corners"):
        F.affine_grid(theta, (1, 1, 3, 3))


def test_an_identity_gives_the_image_back() -> None:
    x = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    theta = torch.eye(2, 3, dtype=torch.float64).expand(2, -1, -1)
    for corners in (False, True):
        grid = F.affine_grid(theta, x.shape, align_corners=corners)
        torch.testing.assert_close(F.grid_sample(x, grid, align_corners=corners), x)
