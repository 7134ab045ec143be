"""What takes the place of layers of transformers, which is never imported for it: its classes are known by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import Module

from .. import functional as F
from .layer_table import FINDERS, Entry, leave, register_layer

_ACTIVATIONS = "transformers.activations"


@register_layer("transformers.pytorch_utils.Conv1D")
def conv1d(self: Module, x: Tensor) -> Tensor:
    """A linear layer whose weight is [in, out]: [..., in] -> [..., out]."""
    # as a product, not as a linear layer of weight.t(): the weight's gradient comes in the weight's own layout, then
    y = F.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight)
    return y.view(*x.shape[:-1], self.nf)


def _gelu_tanh(input: Tensor) -> Tensor:
    return F.gelu(input, approximate="tanh")


def _register_activation(name: str, function: Callable[[Tensor], Tensor]) -> None:
    def forward(self: Module, input: Tensor) -> Tensor:
        return function(input)

    register_layer(f"{_ACTIVATIONS}.{name}", forward)


for _name, _function in {
    "AccurateGELUActivation": _gelu_tanh,
    "NewGELUActivation": _gelu_tanh,
    "GELUTanh": _gelu_tanh,
    "PytorchGELUTanh": _gelu_tanh,  # its name in older versions
    "GELUActivation": F.gelu,
    "SiLUActivation": F.silu,
    "MishActivation": F.mish,
    "ReLUSquaredActivation": F.squared_relu,
}.items():
    _register_activation(_name, _function)


class FastGELU:
    """The tanh form with sqrt(2 / pi) to ten digits."""

    def forward(self, input: Tensor) -> Tensor:
        if input.dtype == torch.float64:  # which shows that
            return super().forward(input)
        return F.gelu(input, approximate="tanh")


register_layer(f"{_ACTIVATIONS}.FastGELUActivation", FastGELU)


leave(f"{_ACTIVATIONS}.LinearActivation", "computes nothing")
leave(f"{_ACTIVATIONS}.QuickGELUActivation", "no kernel of ours for x * sigmoid(1.702 x)")


# ---- RMS norms: every model has a class of its own, alike in all but the name ----


class RMSNorm:
    """x / sqrt(mean(x ** 2) + eps) * weight, rounded once."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        weight = self._parameters.get("weight")
        if weight is not None and weight.dtype != hidden_states.dtype:  # promoted in a way of the class's own
            return super().forward(hidden_states)
        y = F.rms_norm(hidden_states, hidden_states.shape[-1:], weight, _eps(self))
        return y.to(hidden_states.dtype)  # of autocast's float32


def _eps(module: Module) -> float | None:
    eps = getattr(module, "variance_epsilon", None)
    return getattr(module, "eps", None) if eps is None else eps


def _why_no_rms_norm(module: Module) -> str | None:
    """None where a copy of the module, of numbers that we choose, computes what `RMSNorm` does."""
    if module._modules:
        return "a container"
    others = set(module._parameters) - {"weight"}
    weight, eps = module._parameters.get("weight"), _eps(module)
    if others or module._buffers or not isinstance(eps, float):
        return "more than an RMS norm with a weight and an eps"
    if weight is not None and weight.dim() != 1:
        return f"a weight of {weight.dim()} dimensions"
    size = 64 if weight is None else weight.numel()
    probe = object.__new__(type(module))
    probe.__dict__.update(module.__dict__, _parameters={})
    with torch.no_grad(), torch.device("cpu"), torch.autocast("cpu", enabled=False):
        # rows from far below the eps to far above
        rows = torch.linspace(-2, 3, 8 * size).view(8, size).sin()
        rows *= torch.logspace(-4, 3, 8).unsqueeze(1)
        for dtype in (torch.float32, torch.bfloat16):
            x = rows.to(dtype)
            if weight is not None:
                probe._parameters["weight"] = torch.linspace(0.5, 2, size).to(dtype)
            exact = torch.nn.functional.rms_norm(x.double(), (size,), eps=eps)
            if weight is not None:
                exact *= probe._parameters["weight"]
            try:
                made = type(module).forward(probe, x)
                # its own roundings, of which there may be two of 16 bits
                torch.testing.assert_close(made, exact.to(dtype), rtol=4 * torch.finfo(dtype).eps, atol=0)
            except Exception:  # of a forward that may be anything
                return "computes something else than x / sqrt(mean(x ** 2) + eps) * weight"
    return None


def _find_norm(kind: type) -> Entry | None:
    """T5's is called a LayerNorm, and so are those of models made after it."""
    of_torch = issubclass(kind, torch.nn.LayerNorm | torch.nn.RMSNorm)
    if (
        of_torch
        or not kind.__module__.startswith("transformers")
        or not kind.__name__.endswith(("RMSNorm", "LayerNorm"))
    ):
        return None
    return Entry(RMSNorm, _why_no_rms_norm)


FINDERS.append(_find_norm)
