"""torch's own scaled_dot_product_attention on our kernels, by its registry of flash attention implementations."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import neurokern
import pytest
import torch
from neurokern.integrations import flash_attention
from torch import Tensor

registry = pytest.importorskip("torch.nn.attention._registry")
sdpa = torch.nn.functional.scaled_dot_product_attention


@pytest.fixture(autouse=True)
def hook() -> Iterator[None]:
    with flash_attention.register():
        yield
    assert "neurokern" not in registry.list_flash_attention_impls()
    assert registry.current_flash_attention_impl() is None


def step(function: Any, *inputs: Tensor, **keywords: Any) -> list[Tensor]:
    leaves = [t.detach().clone().requires_grad_() for t in inputs]
    y = function(*leaves, **keywords)
    (y * torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view(y.shape)).sum().backward()
    return [y.detach(), *(t.grad for t in leaves)]


def inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(torch.randn(2, 4, n, 8, dtype=dtype) for n in (5, 7, 7))


def activate() -> None:
    torch.nn.attention.activate_flash_attention_impl("neurokern")


@pytest.mark.parametrize(
    "keywords",
    [
        {},
        {"is_causal": True},
        {"attn_mask": torch.randn(5, 7)},
        {"attn_mask": torch.rand(2, 1, 5, 7) < 0.8},
        {"scale": 0.3},
    ],
    ids=["plain", "causal", "bias", "mask", "scale"],
)
def test_unchanged_calls(keywords: dict[str, Any]) -> None:
    given = inputs()
    expected = step(sdpa, *given, **keywords)
    activate()
    with neurokern.trace() as launches:
        got = step(sdpa, *given, **keywords)
    assert [(row.op, row.backend) for row in launches] == [
        ("attention", "cpu"),
        ("attention_backward", "cpu"),
    ]
    torch.testing.assert_close(got, expected, rtol=2e-5, atol=2e-5)
    assert [t.stride() for t in got] == [t.stride() for t in expected]
    torch.nn.attention.restore_flash_attention_impl()
    with neurokern.trace() as launches:
        again = step(sdpa, *given, **keywords)
    assert not launches
    assert all(torch.equal(a, b) for a, b in zip(again, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtypes(dtype: torch.dtype) -> None:
    given = inputs(dtype)
    exact = step(sdpa, *(t.double() for t in given))
    activate()
    got = step(sdpa, *given)
    bound = {torch.float64: 1e-10, torch.bfloat16: 2**-5, torch.float16: 2**-8}[dtype]
    assert all(t.dtype == dtype for t in got)
    torch.testing.assert_close([t.double() for t in got], exact, rtol=bound, atol=bound)


def test_torchs_layers_and_grouped_heads() -> None:
    layer, x = torch.nn.MultiheadAttention(16, 4, batch_first=True), torch.randn(2, 6, 16)
    q, (k, v) = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 2, 7, 8)
    expected = layer(x, x, x, need_weights=False)[0], sdpa(q, k, v, enable_gqa=True)
    activate()
    with neurokern.trace() as launches:
        got = layer(x, x, x, need_weights=False)[0], sdpa(q, k, v, enable_gqa=True)
    assert len(launches) == 2
    torch.testing.assert_close(got, expected, rtol=2e-5, atol=2e-5)


def test_sliced_and_compiled() -> None:
    qkv = torch.randn(2, 6, 3, 4, 8)

    def attend(t: Tensor) -> Tensor:
        q, k, v = t.permute(2, 0, 3, 1, 4)
        return sdpa(q, k, v, is_causal=True)

    expected = step(attend, qkv)
    activate()
    torch.testing.assert_close(step(attend, qkv), expected, rtol=2e-5, atol=2e-5)
    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(step(compiled, qkv), expected, rtol=2e-5, atol=2e-5)


def test_what_torch_calls_on_cuda() -> None:
    """The same kernels behind another signature; dropout's numbers come back in the backward."""
    q, k, v = inputs()
    y, lse, *_, state, _, _ = flash_attention._cuda(q, k, v, is_causal=True)
    expected = step(sdpa, q, k, v, is_causal=True)
    torch.testing.assert_close(y, expected[0], rtol=2e-5, atol=2e-5)
    g = torch.linspace(-1, 2, y.numel()).view(y.shape)
    made = flash_attention._cuda_backward(g, q, k, v, y, lse, None, None, 5, 7, 0.0, True, state, state)
    torch.testing.assert_close(list(made), expected[1:], rtol=2e-5, atol=2e-5)

    y, lse, *_, state, _, _ = flash_attention._cuda(q, k, v, 0.5)
    _, _, gv = flash_attention._cuda_backward(g, q, k, v, y, lse, None, None, 5, 7, 0.5, False, state, state)
    torch.testing.assert_close((gv * v).sum(), (g * y).sum())  # y is linear in v
    with pytest.raises(RuntimeError, match="return_debug_mask"):
        flash_attention._cuda(q, k, v, return_debug_mask=True)


def test_registry() -> None:
    with pytest.raises(ValueError, match="argument name is 'FA4'"):
        flash_attention.register("FA4")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with flash_attention.register("another") as hook:
            torch.nn.attention.activate_flash_attention_impl("another")
            assert registry.current_flash_attention_impl() == "another"
            activate()
            assert registry.current_flash_attention_impl() == "neurokern"
            hook.remove()
            assert registry.current_flash_attention_impl() == "neurokern"
            assert "another" not in registry.list_flash_attention_impls()


def test_nothing_happens_on_import() -> None:
    with neurokern.trace() as launches:
        sdpa(*inputs())
    assert not launches
