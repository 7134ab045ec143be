"""torch's encoder layer without its fused inference path, which would pass our layers by."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class TransformerEncoderLayer(torch.nn.TransformerEncoderLayer):
    """torch.nn.TransformerEncoderLayer that calls its layers in evaluation as in training."""

    @property
    def activation_relu_or_gelu(self) -> int:
        """What torch asks before it takes the fused path: 0 for an activation that this path lacks."""
        return 0

    @activation_relu_or_gelu.setter
    def activation_relu_or_gelu(self, value: int) -> None:
        vars(self)["activation_relu_or_gelu"] = value  # torch's own, for when the class is torch's again

    def forward(self, src: Tensor, *args: Any, **keywords: Any) -> Tensor:
        if not src.is_nested:
            return super().forward(src, *args, **keywords)
        # TransformerEncoder leaves padding out for the fused path, which alone takes that: padded again here
        lengths = torch.tensor([t.shape[0] for t in src.unbind()], device=src.device)
        padded = src.to_padded_tensor(0.0)
        padding = torch.arange(padded.shape[1], device=src.device).expand(padded.shape[:2]).ge(lengths.unsqueeze(1))
        y = super().forward(padded, src_key_padding_mask=padding)
        return torch._nested_tensor_from_mask(y, padding.logical_not(), mask_check=False)
