"""MultiheadAttention in others' hands: compiled, exported, transformed, patched, given what it refuses."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import neurokern
import neurokern.functional as F
import pytest
import torch
from neurokern import nn
from torch import Tensor

L, S, N, E, H = 5, 7, 3, 16, 4


def causal(size: int = L, other: int = L) -> Tensor:
    return torch.ones(size, other, dtype=torch.bool).triu(1)


def padding(lengths: tuple[int, ...] = (7, 3, 5), keys: int = S) -> Tensor:
    return torch.arange(keys).expand(len(lengths), keys) >= torch.tensor(lengths).unsqueeze(1)


def pair(**constructor: Any) -> tuple[nn.MultiheadAttention, torch.nn.MultiheadAttention]:
    """Ours and torch's of the same parameters."""
    ours, theirs = nn.MultiheadAttention(E, H, **constructor), torch.nn.MultiheadAttention(E, H, **constructor)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def step(layer: torch.nn.Module, x: Tensor, **given: Any) -> list[Tensor | None]:
    x = x.clone().requires_grad_()
    made = [t for t in layer(x, x, x, **given) if t is not None]
    sum(t.square().sum() for t in made).backward()
    return [*(t.detach() for t in made), x.grad, *(p.grad for p in layer.parameters())]


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("masks", ["none", "bool", "float"])
def test_compiles_whole(masks: str, need_weights: bool) -> None:
    ours, _ = pair(batch_first=True)
    given: dict[str, Any] = {"need_weights": need_weights}
    if masks == "bool":
        given |= {"attn_mask": causal(), "key_padding_mask": padding((5, 3, 4), L)}
    elif masks == "float":
        given |= {"attn_mask": torch.randn(N * H, L, L)}
    x = torch.randn(N, L, E)
    compiled = copy.deepcopy(ours)
    compiled.compile(fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(step(compiled, x, **given), step(ours, x, **given), rtol=2e-5, atol=2e-5)


def test_compiles_for_any_length() -> None:
    ours, _ = pair(batch_first=True)
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager", dynamic=True)
    for length in (4, 6, 9):
        x = torch.randn(2, length, E)
        for given in ({}, {"attn_mask": causal(length, length), "is_causal": True, "need_weights": False}):
            torch.testing.assert_close(compiled(x, x, x, **given)[0], ours(x, x, x, **given)[0])


def test_export() -> None:
    ours, theirs = pair(batch_first=True)
    ours.eval()
    x, mask = torch.randn(N, L, E), causal(L, L)
    length = torch.export.Dim("length", min=2, max=64)
    program = torch.export.export(
        ours,
        (x, x, x),
        {"attn_mask": mask, "need_weights": False},
        dynamic_shapes={
            **{name: {1: length} for name in ("query", "key", "value")},
            "attn_mask": {0: length, 1: length},
            "need_weights": None,
        },
    )
    x, mask = torch.randn(N, 9, E), causal(9, 9)
    given = {"attn_mask": mask, "need_weights": False}
    expected = theirs(x, x, x, **given)[0]
    torch.testing.assert_close(program.module()(x, x, x, **given)[0], expected, rtol=2e-5, atol=2e-5)
    aten = program.run_decompositions()
    assert not [n for n in aten.graph.nodes if "neurokern" in str(n.target)]
    torch.testing.assert_close(aten.module()(x, x, x, **given)[0], expected, rtol=2e-5, atol=2e-5)


def test_functional_transforms() -> None:
    ours, theirs = pair()
    x = torch.randn(4, L, N, E)
    results = [torch.func.vmap(lambda t, m=m: m(t, t, t, need_weights=False)[0])(x) for m in (ours, theirs)]
    torch.testing.assert_close(*results, rtol=2e-5, atol=2e-5)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "1-d query": ({"query": torch.ones(E)}, "query"),
    "unbatched key": ({"key": torch.ones(S, E)}, "key"),
    "features of the query": ({"query": torch.ones(L, N, E + 1)}, "query"),
    "features of the key": ({"key": torch.ones(S, N, E + 1), "value": torch.ones(S, N, E + 1)}, "weight"),
    "value unlike key": ({"value": torch.ones(S + 1, N, E)}, "value"),
    "2-d mask": ({"attn_mask": causal(L, S + 1)}, "attn_mask"),
    "3-d mask": ({"attn_mask": torch.zeros(N, L, S)}, "attn_mask"),
    "4-d mask": ({"attn_mask": torch.zeros(N, H, L, S)}, "attn_mask"),
    "integer mask": ({"attn_mask": torch.zeros(L, S, dtype=torch.int64)}, "attn_mask"),
    "integer padding": ({"key_padding_mask": torch.zeros(N, S, dtype=torch.uint8)}, "key_padding_mask"),
    "padding of other keys": ({"key_padding_mask": padding((7, 3, 5), S + 1)}, "key_padding_mask"),
    "padding of another batch": ({"key_padding_mask": padding((7, 3))}, "key_padding_mask"),
    "3-d padding": ({"key_padding_mask": torch.zeros(N, 1, S)}, "key_padding_mask"),
    "causal without a mask": ({"is_causal": True, "need_weights": False}, "attn_mask"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input(what: str) -> None:
    """The type that torch raises, with the argument's name."""
    bad, names = BAD[what]
    given = {"query": torch.randn(L, N, E), "key": torch.randn(S, N, E), "value": torch.randn(S, N, E), **bad}
    ours, theirs = pair()
    with pytest.raises(Exception) as expected:  # noqa: PT011
        theirs(**given)
    with pytest.raises(type(expected.value), match=rf"neurokern\.\w+: argument ({names})"):
        ours(**given)


def test_bad_constructor_and_types() -> None:
    for kind in (nn.MultiheadAttention, torch.nn.MultiheadAttention):
        with pytest.raises(ValueError, match="greater than 0"):
            kind(0, 1)
        with pytest.raises(AssertionError, match="divisible"):
            kind(7, 2)
    with pytest.raises(TypeError, match=r"neurokern\.multi_head_attention_forward: argument query is a int"):
        nn.MultiheadAttention(E, H)(3, 3, 3)
    x = torch.randn(L, N, E)
    arguments = (None, None, None, None, False, 0.0, torch.ones(E, E), None)
    with pytest.raises(AssertionError, match="in_proj_weight is None"):
        F.multi_head_attention_forward(x, x, x, E, H, *arguments)
    with pytest.raises(AssertionError, match="q_proj_weight is None"):
        F.multi_head_attention_forward(x, x, x, E, H, *arguments, use_separate_proj_weight=True)
    with pytest.raises(AssertionError, match="num_heads is 3"):
        F.multi_head_attention_forward(x, x, x, E, 3, *arguments)


def test_nested_tensors_are_torchs() -> None:
    ours, theirs = (layer.eval() for layer in pair(batch_first=True))
    x = torch.nested.nested_tensor([torch.randn(4, E), torch.randn(2, E)])
    with torch.no_grad(), neurokern.trace() as launches:
        y, expected = (m(x, x, x, need_weights=False)[0] for m in (ours, theirs))
    torch.testing.assert_close(y.to_padded_tensor(0.0), expected.to_padded_tensor(0.0))
    assert [row.reason for row in launches] == ["nested tensors have no kernel"]


def test_fx_keeps_our_function() -> None:
    ours, _ = pair()
    x = torch.randn(L, N, E)
    w_in, b_in, w_out, b_out = (p.detach() for p in ours.parameters())
    arguments = (E, H, w_in, b_in, None, None, False, 0.0, w_out, b_out)
    graph = torch.fx.symbolic_trace(lambda q: F.multi_head_attention_forward(q, q, q, *arguments))
    assert F.multi_head_attention_forward in [n.target for n in graph.graph.nodes]
    torch.testing.assert_close(graph(x), ours(x, x, x))


def test_patch() -> None:
    model = torch.nn.ModuleDict(
        {"a": torch.nn.MultiheadAttention(E, H), "b": torch.nn.MultiheadAttention(E, H, kdim=6)}
    )
    x = torch.randn(L, N, E)
    expected = model["a"](x, x, x)
    neurokern.patch(model)
    assert all(type(m) is nn.MultiheadAttention for m in model.values())
    torch.testing.assert_close(model["a"](x, x, x), expected, rtol=2e-5, atol=2e-5)
    rows = {r.name: (r.taken, r.reason) for r in neurokern.report(model).rows}
    assert rows["a"] == (True, "")
    assert rows["a.out_proj"] == (False, "never called: MultiheadAttention reads its parameters")
    neurokern.unpatch(model)
    assert all(type(m) is torch.nn.MultiheadAttention for m in model.values())


def test_the_module_of_this_name_is_torchs() -> None:
    import neurokern.nn.attention

    assert neurokern.nn.attention is torch.nn.attention
    assert inspect.getmodule(nn.MultiheadAttention).__name__ == "neurokern.nn.multi_head"
