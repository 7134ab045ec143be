"""Every layer is exported with a dynamic batch, strict and not, and the program runs at another size."""

from __future__ import annotations

import pytest
import torch
from neurokern.testing import Maker, OpSpec
from torch.export import Dim, export

pytestmark = pytest.mark.slow


@pytest.mark.specs_with("layer")
@pytest.mark.parametrize("strict", [False, True], ids=["traced", "strict"])
def test_a_dynamic_batch(spec: OpSpec, strict: bool, seed: int) -> None:
    layer, _, args = spec.layer(Maker.seeded(seed, spec.id, "export"))
    program = export(layer, args, dynamic_shapes=tuple({0: Dim("batch")} for _ in args), strict=strict)
    larger = tuple(torch.cat((a, a, a[:1])) for a in args)
    assert torch.equal(program.module()(*larger), layer(*larger))
