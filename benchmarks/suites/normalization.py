"""Normalizations over the last dimension: hidden layers of transformers, a vocabulary, many short rows."""

from __future__ import annotations

from functools import partial

import neurokern.functional as F
import torch
from neurokern.bench.cases import Case

from .activation import DTYPES, case

T = torch.nn.functional
SHAPES = {
    "8 x 64": (8, 64),
    "512 x 768": (512, 768),
    "4096 x 1024": (4096, 1024),
    "2048 x 4096": (2048, 4096),
    "32 x 50257": (32, 50257),
}


def norms(device: str, quick: bool) -> list[Case]:
    """layer_norm and rms_norm with their parameters, without and with the gradient."""
    cases = []
    for dtype in DTYPES:
        for grad in (False, True):
            for label, (rows, n) in list(SHAPES.items())[:: 2 if quick else 1]:
                layer = (partial(_layer_norm, F), partial(_layer_norm, T))
                cases.append(case("layer_norm", layer, label, dtype, grad, (rows, n), (n,), (n,)))
                rms = (partial(_rms_norm, F), partial(_rms_norm, T))
                cases.append(case("rms_norm", rms, label, dtype, grad, (rows, n), (n,)))
    return cases


def _layer_norm(functions, x, weight, bias):
    return functions.layer_norm(x, x.shape[-1:], weight, bias)


def _rms_norm(functions, x, weight):
    return functions.rms_norm(x, x.shape[-1:], weight)
