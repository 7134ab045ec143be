"""torch.profiler sees our ops: a row of each call with its shapes and FLOPs, forward and backward."""

from __future__ import annotations

from typing import Any

import neurokern.functional as F
import pytest
import torch
from torch.profiler import ProfilerActivity, profile


def rows(run: Any, **options: Any) -> dict[str, Any]:
    """Our rows by name, each once."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True, **options) as profiler:
        run()
    found = [e for e in profiler.events() if e.name.startswith("neurokern::")]
    assert len({e.name for e in found}) == len(found), [e.name for e in found]
    return {e.name: e for e in found}


X, W, B = torch.randn(6, 4), torch.randn(3, 4), torch.randn(3)


class TestRows:
    def test_without_gradient(self) -> None:
        with torch.no_grad():
            (row,) = rows(lambda: F.linear(X, W, B)).values()
        assert row.name == "neurokern::linear"
        assert row.input_shapes[:3] == [[6, 4], [3, 4], [3]]

    def test_with_gradient(self) -> None:
        w = W.clone().requires_grad_()
        found = rows(lambda: F.linear(X, w, B).sum().backward())
        assert found["neurokern::linear"].input_shapes[:3] == [[6, 4], [3, 4], [3]]
        assert found["neurokern::linear_backward"].input_shapes[:3] == [[6, 3], [6, 4], []]

    @pytest.mark.parametrize("mode", ["inference", "autocast", "compiled"])
    def test_the_other_ways(self, mode: str) -> None:
        """A row comes from the extension or from the dispatcher, and never from both."""

        def run() -> Any:
            if mode == "autocast":
                with torch.autocast("cpu"):
                    return F.linear(X, W, B)
            with torch.inference_mode():
                return F.linear(X, W, B)

        if mode == "compiled":
            run = torch.compile(lambda: F.linear(X, W, B), backend="aot_eager")
            run()
        assert "neurokern::linear" in rows(run)

    def test_parameters(self) -> None:
        """Values of lists are recorded, and tuples are given as lists."""
        (row,) = rows(lambda: F.conv2d(torch.randn(1, 2, 5, 5), torch.randn(3, 2, 3, 3), None, (2, 1), 1)).values()
        assert row.concrete_inputs[4:8] == [[2, 1], [1, 1, 1, 1], [1, 1], 1]

    def test_every_family(self) -> None:
        x = torch.randn(4, 8, requires_grad=True)
        found = rows(lambda: F.softmax(F.layer_norm(F.glu(F.gelu(x)), [4]), -1).sum().backward())
        for name in ("unary", "glu", "softmax"):
            assert {f"neurokern::{name}", f"neurokern::{name}_backward"} <= set(found)
        assert any(name.startswith("neurokern::layer_norm") for name in found)

    def test_a_refusal_goes_through(self) -> None:
        with profile(activities=[ProfilerActivity.CPU]), pytest.raises(RuntimeError, match=r"neurokern\.linear"):
            F.linear(X, torch.randn(3, 5))

    def test_no_rows_without_a_profiler(self) -> None:
        rows(lambda: None)
        F.linear(X, W, B)
        assert not torch.autograd.profiler._is_profiler_enabled


class TestFlops:
    def test_of_a_linear_layer(self) -> None:
        (row,) = rows(lambda: F.linear(X, W, B), with_flops=True).values()
        assert row.flops == 2 * 6 * 4 * 3

    @pytest.mark.parametrize(("of_x", "of_w"), [(True, True), (True, False), (False, True)])
    def test_of_a_backward_pass(self, of_x: bool, of_w: bool) -> None:
        x, w = X.clone().requires_grad_(of_x), W.clone().requires_grad_(of_w)
        found = rows(lambda: F.linear(x, w, B).sum().backward(), with_flops=True)
        assert found["neurokern::linear_backward"].flops == 2 * 6 * 4 * 3 * (of_x + of_w)

    @pytest.mark.parametrize(("of_x", "of_w"), [(True, True), (True, False), (False, True)])
    @pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
    def test_of_convolutions(self, name: str, of_x: bool, of_w: bool) -> None:
        """Sizes of results depend on strides, which are in the row, as is what is wanted."""
        x, w = torch.randn(2, 4, 9, 8, requires_grad=of_x), torch.randn(4, 4, 3, 3, requires_grad=of_w)
        found = rows(lambda: getattr(F, name)(x, w, None, 2, 1).sum().backward(), with_flops=True)
        pixels = 5 * 4 if name == "conv2d" else 9 * 8
        forward, backward = (r.flops for n, r in sorted(found.items()))
        assert forward == 2 * 2 * pixels * 4 * 4 * 9
        assert backward == forward * (of_x + of_w)

    def test_as_torch_counts_its_own(self) -> None:
        a, b = torch.randn(5, 6, 4), torch.randn(5, 4, 7)
        (row,) = rows(lambda: F.bmm(a, b), with_flops=True).values()
        with profile(activities=[ProfilerActivity.CPU], with_flops=True) as profiler:
            torch.bmm(a, b)
        assert row.flops == sum(e.flops for e in profiler.events() if e.flops)

    def test_in_the_table(self) -> None:
        with profile(activities=[ProfilerActivity.CPU], with_flops=True) as profiler:
            F.linear(X, W, B)
        (row,) = [e for e in profiler.key_averages() if e.key == "neurokern::linear"]
        assert row.flops == 2 * 6 * 4 * 3
        assert "neurokern::linear" in profiler.key_averages().table()
