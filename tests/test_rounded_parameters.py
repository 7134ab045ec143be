"""Parameters of activations per dtype: what torch rounds to the input's dtype is rounded, all else is not."""

from __future__ import annotations

import neurokern.functional as F
import pytest
import torch

# values that each 16-bit format rounds up in one set and down in another
PARAMETERS = {
    "leaky_relu": ((0.1,), (0.3,)),
    "elu": ((0.1,), (0.7,)),
    "celu": ((0.1,), (0.7,)),
    "hardtanh": ((-0.1, 0.1), (-0.7, 0.3)),
    "hardshrink": ((0.1,), (0.7,), (0.3,)),
    "softshrink": ((0.1,), (0.7,), (0.3,)),
    "softplus": ((0.1, 20.1), (1.7, 0.3)),
    "threshold": ((0.1, 0.3), (0.7, 0.1)),
}
CASES = [(name, p) for name, sets in PARAMETERS.items() for p in sets]
# of these every result is a choice that a parameter decides, so that there is one right answer
CHOOSE = ("hardtanh", "hardshrink", "threshold")


def around(parameters: tuple[float, ...], dtype: torch.dtype) -> torch.Tensor:
    """The three numbers of the dtype on either side of each parameter, with both signs."""
    bits = torch.int16 if dtype.itemsize == 2 else torch.int32
    near = torch.tensor(parameters, dtype=torch.float64).abs().to(dtype).view(bits)
    steps = torch.arange(-3, 4, dtype=bits)
    x = (near[:, None] + steps).view(dtype).flatten()
    return torch.cat((x, -x))


def both(f, x: torch.Tensor, *parameters: float) -> tuple[torch.Tensor, torch.Tensor]:
    x = x.clone().requires_grad_()
    y = f(x, *parameters)
    (g,) = torch.autograd.grad(y, x, torch.full_like(y, 1.5))
    return y.detach(), g


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_next_to_a_parameter(on, case, dtype: torch.dtype) -> None:
    name, parameters = case
    x = around(parameters, dtype).to(on.device)
    for n in (x.numel(), 4096):  # from 4096 on, one bit of each element may be kept in the place of x
        t = x.repeat(-(-n // x.numel()))
        y, g = both(getattr(F, name), t, *parameters)
        want, slope = both(getattr(torch.nn.functional, name), t, *parameters)
        if name in CHOOSE:
            assert torch.equal(y, want)
        # zero or not is a choice in any of them
        assert torch.equal(y == 0, want == 0)
        assert torch.equal(g == 0, slope == 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["hardshrink", "softshrink"])
def test_next_to_a_parameter_behind_a_linear_layer(on, name: str, dtype: torch.dtype) -> None:
    for lambd in (0.1, 0.7, 0.3):
        x = around((lambd,), dtype)[:, None].to(on.device).requires_grad_()
        one = torch.ones(1, 1, dtype=dtype, device=on.device)
        y = F.linear(x, one, activation=(name, lambd))
        want = getattr(torch.nn.functional, name)(torch.nn.functional.linear(x, one), lambd)
        assert torch.equal(y == 0, want == 0)
        g = torch.ones_like(y)
        (ours,), (theirs,) = torch.autograd.grad(y, x, g), torch.autograd.grad(want, x, g)
        assert torch.equal(ours, theirs)
