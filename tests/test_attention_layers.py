"""MultiheadAttention beside torch.nn's: every argument, outputs, weights and gradients."""

from __future__ import annotations

import copy
import io
import itertools
import pickle
from collections.abc import Callable
from typing import Any

import neurokern
import neurokern.functional as F
import pytest
import torch
from neurokern import nn
from torch import Tensor

L, S, N, E, H = 5, 7, 3, 16, 4
INF = float("-inf")


def causal(size: int = L, other: int = L) -> Tensor:
    return torch.ones(size, other, dtype=torch.bool).triu(1)


def as_floats(mask: Tensor) -> Tensor:
    return torch.zeros(mask.shape).masked_fill(mask, INF)


def padding(lengths: tuple[int, ...] = (7, 3, 5), keys: int = S) -> Tensor:
    return torch.arange(keys).expand(len(lengths), keys) >= torch.tensor(lengths).unsqueeze(1)


def scattered(*shape: int) -> Tensor:
    """A mask that leaves every query its first key."""
    mask = torch.rand(shape) < 0.4
    mask[..., 0] = False
    return mask


def pair(**constructor: Any) -> tuple[nn.MultiheadAttention, torch.nn.MultiheadAttention]:
    """Ours and torch's of the same parameters, with biases that are not zero."""
    ours, theirs = nn.MultiheadAttention(E, H, **constructor), torch.nn.MultiheadAttention(E, H, **constructor)
    for p in theirs.parameters():
        p.data += 0.1 * torch.randn_like(p)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def leaves_of(given: dict[str, Any]) -> dict[str, Any]:
    """Fresh leaves; tensors that are one stay one."""
    made: dict[int, Tensor] = {}
    for t in given.values():
        if isinstance(t, Tensor) and id(t) not in made:
            made[id(t)] = t.clone().requires_grad_(t.is_floating_point() and bool(t.isfinite().all()))
    return {k: made[id(v)] if isinstance(v, Tensor) else v for k, v in given.items()}


def step(layer: Callable[..., Any], given: dict[str, Any]) -> list[Tensor | None]:
    """Outputs and all gradients of sums of them that tell elements apart."""
    leaves = leaves_of(given)
    made = layer(**leaves)
    made = [t for t in (made if isinstance(made, tuple) else (made,)) if t is not None]
    loss = sum((t * torch.linspace(-1, 2, t.numel(), dtype=t.dtype).view(t.shape)).sum() for t in made)
    loss.backward()
    grads = [t.grad for t in leaves.values() if isinstance(t, Tensor)]
    parameters = [p.grad for p in layer.parameters()] if isinstance(layer, torch.nn.Module) else []
    return [*(t.detach() for t in made), *grads, *parameters]


def same(ours: torch.nn.Module, theirs: torch.nn.Module, given: dict[str, Any]) -> None:
    with neurokern.strict():
        got = step(ours, given)
    torch.testing.assert_close(got, step(theirs, given), rtol=2e-5, atol=2e-5)


CONSTRUCTORS: dict[str, dict[str, Any]] = {
    "plain": {},
    "batch_first": {"batch_first": True},
    "no bias": {"bias": False},
    "kdim": {"kdim": 6},
    "vdim": {"vdim": 9, "batch_first": True},
    "kdim and vdim, no bias": {"kdim": 6, "vdim": 9, "bias": False},
    "bias_kv": {"add_bias_kv": True},
    "zero_attn": {"add_zero_attn": True, "batch_first": True},
    "bias_kv and zero_attn": {"add_bias_kv": True, "add_zero_attn": True},
    "dropout 0": {"dropout": 0.0},
    "one by one": {"dropout": 0.0, "kdim": E, "vdim": E},
}
# of queries, keys and heads: (attn_mask, key_padding_mask)
MASKS: dict[str, Callable[[int, int, int], tuple[Tensor | None, Tensor | None]]] = {
    "none": lambda q, k, b: (None, None),
    "bool 2-d": lambda q, k, b: (scattered(q, k), None),
    "bool 3-d": lambda q, k, b: (scattered(b, q, k), None),
    "float 2-d": lambda q, k, b: (torch.randn(q, k), None),
    "float 3-d": lambda q, k, b: (torch.randn(b, q, k), None),
    "-inf 2-d": lambda q, k, b: (as_floats(scattered(q, k)), None),
    "bool padding": lambda q, k, b: (None, padding((k, 3, 5), k)),
    "float padding": lambda q, k, b: (None, torch.randn(b // H, k)),
    "bool and bool padding": lambda q, k, b: (scattered(q, k), padding((k, 3, 5), k)),
    "float and float padding": lambda q, k, b: (torch.randn(b, q, k), torch.randn(b // H, k)),
}


WEIGHTS = ("weights", "of each head", "no weights")
FEW = ("none", "bool and bool padding", "float 3-d")
CROSSED = [
    (constructor, masks, weights)
    for constructor, masks, weights in itertools.product(CONSTRUCTORS, MASKS, WEIGHTS)
    if constructor in ("plain", "bias_kv and zero_attn") or (masks in FEW and weights != "of each head")
]


@pytest.mark.parametrize(("constructor", "masks", "weights"), CROSSED)
def test_cross_attention(constructor: str, masks: str, weights: str) -> None:
    ours, theirs = pair(**CONSTRUCTORS[constructor])
    attn_mask, key_padding_mask = MASKS[masks](L, S, N * H)
    given = {"query": torch.randn(L, N, E), "key": torch.randn(S, N, ours.kdim), "value": torch.randn(S, N, ours.vdim)}
    if ours.batch_first:
        given = {k: t.transpose(0, 1).contiguous() for k, t in given.items()}
    more = {"need_weights": weights != "no weights", "average_attn_weights": weights == "weights"}
    same(ours, theirs, {**given, "attn_mask": attn_mask, "key_padding_mask": key_padding_mask, **more})


@pytest.mark.parametrize("which", ["one tensor", "key is value", "three"])
@pytest.mark.parametrize(
    ("batch_first", "batched", "bias"), [*itertools.product((True, False), (True, False), (True, False))]
)
def test_who_is_who(which: str, batch_first: bool, batched: bool, bias: bool) -> None:
    """The projection is one product, two or three, by which tensors are the same."""
    ours, theirs = pair(batch_first=batch_first, bias=bias)
    q, k, v = (torch.randn((L, N, E) if batched else (L, E)) for _ in range(3))
    if which == "one tensor":
        k = v = q
    elif which == "key is value":
        v = k
    for need_weights in (True, False):
        same(ours, theirs, {"query": q, "key": k, "value": v, "need_weights": need_weights})
    products = {"one tensor": 2, "key is value": 3, "three": 4}[which]
    with neurokern.trace() as launches:
        ours(q, k, v, need_weights=False)
    assert [row.op for row in launches].count("matmul") == products


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("masks", ["bool 2-d", "bool 3-d", "float padding", "bool padding"])
def test_without_a_batch(masks: str, need_weights: bool) -> None:
    ours, theirs = pair(batch_first=True)
    attn_mask, key_padding_mask = MASKS[masks](L, S, H)
    if key_padding_mask is not None:
        key_padding_mask = key_padding_mask[0]
    given = {"query": torch.randn(L, E), "key": torch.randn(S, E), "value": torch.randn(S, E)}
    same(
        ours,
        theirs,
        {**given, "attn_mask": attn_mask, "key_padding_mask": key_padding_mask, "need_weights": need_weights},
    )


@pytest.mark.parametrize("batch_first", [True, False])
def test_memory_is_in_torchs_order(batch_first: bool) -> None:
    """Where torch's output can be viewed as a matrix, ours can."""
    ours, theirs = pair(batch_first=batch_first)
    x = torch.randn(4, 6, E)
    for need_weights in (True, False):
        y, expected = (m(x, x, x, need_weights=need_weights)[0] for m in (ours, theirs))
        assert y.is_contiguous() or not expected.is_contiguous()


class TestCausal:
    @pytest.mark.parametrize("floats", [True, False])
    @pytest.mark.parametrize("need_weights", [True, False])
    @pytest.mark.parametrize("padded", [True, False])
    def test_as_torchs(self, floats: bool, need_weights: bool, padded: bool) -> None:
        ours, theirs = pair(batch_first=True)
        mask, pad = causal(), padding((5, 3, 4), L) if padded else None
        if floats:
            mask, pad = as_floats(mask), None if pad is None else as_floats(pad)
        x = torch.randn(N, L, E)
        given = {"query": x, "key": x, "value": x, "attn_mask": mask, "key_padding_mask": pad}
        same(ours, theirs, {**given, "need_weights": need_weights, "is_causal": True})

    @pytest.mark.parametrize("need_weights", [True, False])
    @pytest.mark.parametrize("extra", [{}, {"add_bias_kv": True}, {"add_zero_attn": True}])
    @pytest.mark.parametrize("padded", [True, False])
    def test_with_another_mask_both_hold(self, need_weights: bool, extra: dict[str, Any], padded: bool) -> None:
        """torch leaves out one or the other, depending on need_weights and key_padding_mask."""
        ours, theirs = pair(**extra)
        x, mask = torch.randn(L, N, E), scattered(L, L)
        given = {"query": x, "key": x, "value": x, "key_padding_mask": padding((5, 3, 4), L) if padded else None}
        with neurokern.strict():
            got = step(ours, {**given, "attn_mask": mask, "is_causal": True, "need_weights": need_weights})
        expected = step(theirs, {**given, "attn_mask": mask | causal(), "need_weights": need_weights})
        torch.testing.assert_close(got, expected, rtol=2e-5, atol=2e-5)

    def test_a_bias_keeps_its_gradient(self) -> None:
        ours, _ = pair()
        x, bias = torch.randn(L, N, E), torch.randn(L, L, requires_grad=True)
        ours(x, x, x, attn_mask=bias, is_causal=True, need_weights=False)[0].square().sum().backward()
        assert (bias.grad[causal()] == 0).all()
        assert (bias.grad[~causal()][1:] != 0).all()  # the first query has one key, whose weight is 1

    def test_needs_a_mask(self) -> None:
        x = torch.randn(L, N, E)
        for layer in pair():
            with pytest.raises(RuntimeError, match=r"attn_mask"):
                layer(x, x, x, is_causal=True)


class TestNothingSeen:
    """A query without keys gets zeros, and what nobody sees counts nothing, whatever it is."""

    @pytest.mark.parametrize("need_weights", [True, False])
    @pytest.mark.parametrize("floats", [True, False])
    def test_finite_gradients(self, need_weights: bool, floats: bool) -> None:
        ours, _ = pair(bias=True)
        mask = scattered(N * H, L, S)
        mask[:H, 1] = True  # the second query of the first batch, in every head
        pad = padding((7, 0, 4))  # and every query of the second
        mask, pad = (as_floats(mask), as_floats(pad)) if floats else (mask, pad)
        given = {"query": torch.randn(L, N, E), "key": torch.randn(S, N, E), "value": torch.randn(S, N, E)}
        more = {"attn_mask": mask, "key_padding_mask": pad, "need_weights": need_weights}
        y, *rest = step(ours, {**given, **more, "average_attn_weights": False})
        assert torch.equal(y[1, 0], ours.out_proj.bias)
        assert torch.equal(y[:, 1], ours.out_proj.bias.expand(L, E))
        assert all(t.isfinite().all() for t in rest if t is not None)
        if need_weights:
            weights = rest[0]
            assert (weights[0, :, 1] == 0).all()
            assert (weights[1] == 0).all()
            torch.testing.assert_close(weights[2].sum(-1), torch.ones(H, L))

    @pytest.mark.parametrize("need_weights", [True, False])
    @pytest.mark.parametrize("floats", [True, False])
    def test_a_nan_in_padding(self, need_weights: bool, floats: bool) -> None:
        ours, theirs = pair()
        pad = padding((7, 3, 5))
        key, value, query = torch.randn(S, N, E), torch.randn(S, N, E), torch.randn(L, N, E)
        pad_given = as_floats(pad) if floats else pad
        given = {"key_padding_mask": pad_given, "need_weights": need_weights}
        expected = step(theirs, {"query": query, "key": key, "value": value, **given})
        hidden = pad.t().unsqueeze(-1)
        got = step(
            ours,
            {
                "query": query,
                "key": key.masked_fill(hidden, torch.nan),
                "value": value.masked_fill(hidden, torch.inf),
                **given,
            },
        )
        outputs = 1 + need_weights
        torch.testing.assert_close(got[: outputs + 1], expected[: outputs + 1], rtol=2e-5, atol=2e-5)

    @pytest.mark.parametrize("need_weights", [True, False])
    def test_a_nan_later(self, need_weights: bool) -> None:
        ours, theirs = pair()
        x = torch.randn(L, N, E)
        expected = theirs(x, x, x, attn_mask=causal())[0]
        broken = x.clone()
        broken[3] = torch.nan
        for mask in (causal(), as_floats(causal())):
            y = ours(
                broken, broken, broken, attn_mask=mask, need_weights=need_weights, is_causal=mask.is_floating_point()
            )[0]
            torch.testing.assert_close(y[:3], expected[:3], rtol=2e-5, atol=2e-5)
            assert y[3:].isnan().all()


def test_dropout() -> None:
    """In training alone; without weights and with them; the weights returned are those that were used."""
    ours, theirs = pair(dropout=0.5)
    x = torch.randn(L, N, E)
    torch.testing.assert_close(ours.eval()(x, x, x), theirs.eval()(x, x, x), rtol=2e-5, atol=2e-5)
    full = theirs(x, x, x, average_attn_weights=False)[1]
    ours.train()
    y, weights = ours(x, x, x, average_attn_weights=False)
    kept = weights != 0
    assert 0.2 < kept.double().mean() < 0.8
    torch.testing.assert_close(weights, torch.where(kept, full * 2, 0.0), rtol=2e-5, atol=2e-5)
    v = torch.nn.functional.linear(x, *(t.chunk(3)[2] for t in (ours.in_proj_weight, ours.in_proj_bias)))
    heads = weights @ v.view(L, N, H, -1).permute(1, 2, 0, 3)
    torch.testing.assert_close(y, ours.out_proj(heads.permute(2, 0, 1, 3).flatten(2)), rtol=2e-5, atol=2e-5)
    a, b = (ours(x, x, x, need_weights=False)[0] for _ in range(2))
    assert not torch.equal(a, b)
    many = torch.stack([ours(x, x, x, need_weights=False)[0] for _ in range(600)]).mean(0)
    right = theirs.eval()(x, x, x)[0]
    assert (many - right).abs().max() < 0.35 * (a - right).abs().max() + 0.1


def test_weights_are_said_to_be_products() -> None:
    ours, _ = pair()
    x = torch.randn(L, N, E)
    with neurokern.trace() as launches:
        ours(x, x, x)
    assert [row.reason for row in launches if row.reason] == ["need_weights: no fused kernel keeps the weights"]
    with neurokern.trace() as launches:
        ours(x, x, x, need_weights=False)
    assert not [row.reason for row in launches if row.reason]
    assert "softmax" not in [row.op for row in launches]


def test_static_keys_and_values() -> None:
    ours, _ = pair()
    x = torch.randn(L, N, E)
    k, v = torch.randn(N * H, S, E // H), torch.randn(N * H, S, E // H)
    for need_weights, add_zero_attn in itertools.product((True, False), (True, False)):
        results = []
        for functional in (F, torch.nn.functional):
            given = leaves_of({"query": x, "static_k": k, "static_v": v})
            made = functional.multi_head_attention_forward(
                given["query"],
                x,
                x,
                E,
                H,
                ours.in_proj_weight,
                ours.in_proj_bias,
                None,
                None,
                add_zero_attn,
                0.0,
                ours.out_proj.weight,
                ours.out_proj.bias,
                static_k=given["static_k"],
                static_v=given["static_v"],
                need_weights=need_weights,
            )
            made[0].square().sum().backward()
            results.append([*made, *(t.grad for t in given.values())])
        torch.testing.assert_close(*results, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("need_weights", [True, False])
def test_dtypes(dtype: torch.dtype, need_weights: bool) -> None:
    ours, theirs = (layer.to(dtype) for layer in pair(batch_first=True))
    x = torch.randn(N, L, E, dtype=dtype)
    mask = torch.randn(L, L, dtype=dtype)
    got = ours(x, x, x, attn_mask=mask, need_weights=need_weights)
    expected = theirs.double()(x.double(), x.double(), x.double(), attn_mask=mask.double(), need_weights=need_weights)
    bound = {torch.float64: 1e-12, torch.bfloat16: 2**-6, torch.float16: 2**-9}[dtype]
    for t, right in zip(got, expected, strict=True):
        if right is not None:
            assert t.dtype == dtype
            torch.testing.assert_close(t.double(), right, rtol=bound, atol=bound)


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("extra", [{}, {"add_bias_kv": True}])
def test_autocast(need_weights: bool, extra: dict[str, Any]) -> None:
    ours, theirs = pair(**extra)
    x = torch.randn(L, N, E)
    with torch.autocast("cpu", torch.bfloat16):
        y = ours(x, x, x, attn_mask=torch.randn(L, L), need_weights=need_weights)[0]
        y.float().square().sum().backward()
    assert y.dtype == torch.bfloat16
    assert ours.in_proj_weight.grad.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        y, expected = (m(x, x, x, need_weights=need_weights)[0] for m in (ours, theirs))
    torch.testing.assert_close(y, expected, rtol=2**-5, atol=2**-5)


def test_second_derivative() -> None:
    ours, theirs = (layer.double() for layer in pair())
    x = torch.randn(L, N, E, dtype=torch.float64)
    results = []
    for layer in (ours, theirs):
        leaf = x.clone().requires_grad_()
        y = layer(leaf, leaf, leaf, need_weights=layer is theirs)[0]  # torch's other path has no second derivative
        (g,) = torch.autograd.grad(y.square().sum(), leaf, create_graph=True)
        g.square().sum().backward()
        results.append((g.detach(), leaf.grad))
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9)


class TestState:
    @pytest.mark.parametrize("constructor", CONSTRUCTORS)
    def test_both_ways(self, constructor: str) -> None:
        torch.manual_seed(1)
        ours = nn.MultiheadAttention(E, H, **CONSTRUCTORS[constructor])
        torch.manual_seed(1)
        theirs = torch.nn.MultiheadAttention(E, H, **CONSTRUCTORS[constructor])
        a, b = ours.state_dict(), theirs.state_dict()
        assert list(a) == list(b)
        assert all(torch.equal(a[k], b[k]) for k in a), "drawn in another order"
        theirs.load_state_dict({k: v + 1 for k, v in a.items()})
        ours.load_state_dict(theirs.state_dict())
        assert torch.equal(ours.out_proj.weight, theirs.out_proj.weight)
        assert repr(ours) == repr(theirs)

    def test_copies(self) -> None:
        ours, _ = pair(batch_first=True)
        x = torch.randn(N, L, E)
        buffer = io.BytesIO()
        torch.save(ours, buffer)
        buffer.seek(0)
        for other in (
            copy.copy(ours),
            copy.deepcopy(ours),
            pickle.loads(pickle.dumps(ours)),
            torch.load(buffer, weights_only=False),
        ):
            assert type(other) is nn.MultiheadAttention
            assert torch.equal(other(x, x, x)[0], ours(x, x, x)[0])

    def test_an_old_pickle(self) -> None:
        """Of before kdim and vdim."""
        ours, _ = pair()
        state = {k: v for k, v in vars(ours).items() if k != "_qkv_same_embed_dim"}
        other = nn.MultiheadAttention.__new__(nn.MultiheadAttention)
        other.__setstate__(state)
        x = torch.randn(L, N, E)
        assert torch.equal(other(x, x, x)[0], ours(x, x, x)[0])


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_a_residual_is_added_to_the_output(batch_first: bool, batched: bool, nested: bool) -> None:
    if nested and not (batch_first and batched):
        pytest.skip("torch's nested tensors have the batch first")
    layer = nn.MultiheadAttention(E, H, batch_first=batch_first)
    x = torch.randn(N, L, E) if batched else torch.randn(L, E)
    residual = torch.randn(x.shape).requires_grad_()
    if nested:
        layer.eval()
        x = torch.nested.nested_tensor([t[: L - 1] for t in x])
        added = torch.nested.nested_tensor([t[: L - 1] for t in residual.detach()])
        with torch.no_grad():
            found = layer(x, x, x, need_weights=False, residual=added)[0].to_padded_tensor(0.0)
            plain = layer(x, x, x, need_weights=False)[0].to_padded_tensor(0.0)
        torch.testing.assert_close(found, plain + residual[:, : L - 1])
        return
    y, weights = layer(x, x, x, residual=residual)
    plain, same = layer(x, x, x)
    torch.testing.assert_close(y, plain + residual)
    torch.testing.assert_close(weights, same)
    y.sum().backward()
    torch.testing.assert_close(residual.grad, torch.ones_like(residual))


def test_a_residual_is_added_where_torch_computes() -> None:
    layer = nn.MultiheadAttention(E, H, batch_first=True)
    x, residual = torch.randn(4, N, L, E), torch.randn(4, N, L, E)

    def output(x: Tensor, residual: Tensor) -> Tensor:
        return layer(x, x, x, need_weights=False, residual=residual)[0]

    found = torch.func.vmap(output)(x, residual)
    torch.testing.assert_close(found, torch.stack([output(a, b) for a, b in zip(x, residual, strict=True)]))
