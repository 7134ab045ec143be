"""The transformer layers beside torch.nn's: every argument, training and evaluation."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from functools import partial
from typing import Any

import neurokern
import pytest
import torch
from neurokern import nn
from torch import Tensor

D, H, FF, N, S, T = 16, 4, 24, 3, 7, 5
pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor", "ignore:The PyTorch API of nested tensors")


def causal(size: int) -> Tensor:
    return torch.ones(size, size, dtype=torch.bool).triu(1)


def padding(lengths: tuple[int, ...], keys: int) -> Tensor:
    return torch.arange(keys).expand(len(lengths), keys) >= torch.tensor(lengths).unsqueeze(1)


def as_floats(mask: Tensor) -> Tensor:
    return torch.zeros(mask.shape).masked_fill(mask, float("-inf"))


def pair(name: str, *args: Any, **keywords: Any) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Ours and torch's from the same random numbers, then with weights of norms that show."""
    made = []
    for home in (nn, torch.nn):
        torch.manual_seed(3)
        made.append(getattr(home, name)(*args, **keywords))
    ours, theirs = made
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    for p in theirs.parameters():
        p.data += 0.1 * torch.randn_like(p)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def step(layer: torch.nn.Module, *inputs: Tensor, **keywords: Any) -> list[Tensor | None]:
    leaves = [t.clone().requires_grad_() for t in inputs]
    y = layer(*leaves, **keywords)
    (y * torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view(y.shape)).sum().backward()
    return [y.detach(), *(t.grad for t in leaves), *(p.grad for p in layer.parameters())]


def same(ours: torch.nn.Module, theirs: torch.nn.Module, *inputs: Tensor, **keywords: Any) -> None:
    with neurokern.strict(), neurokern.trace() as launches:
        got = step(ours, *inputs, **keywords)
    assert "attention" in [row.op for row in launches]
    torch.testing.assert_close(got, step(theirs, *inputs, **keywords), rtol=5e-5, atol=5e-5)
    with torch.no_grad():
        for layer in (ours, theirs):
            layer.eval()
        torch.testing.assert_close(ours(*inputs, **keywords), theirs(*inputs, **keywords), rtol=5e-5, atol=5e-5)


def no_name(x: Tensor) -> Tensor:
    return x.sin()


CONSTRUCTORS: dict[str, dict[str, Any]] = {
    "plain": {},
    "batch_first": {"batch_first": True},
    "norm_first": {"norm_first": True},
    "no bias": {"bias": False, "batch_first": True},
    "gelu by name": {"activation": "gelu", "batch_first": True},
    "function": {"activation": torch.nn.functional.silu},
    "module": {"activation": torch.nn.GELU("tanh")},
    "unknown function": {"activation": no_name},
    "eps": {"layer_norm_eps": 0.1},
    "odd heads": {"nhead": 1, "batch_first": True},
}


def arguments(constructor: str) -> dict[str, Any]:
    return {"d_model": D, "nhead": H, "dim_feedforward": FF, "dropout": 0.0, **CONSTRUCTORS[constructor]}


def sequence(length: int, batch_first: bool) -> Tensor:
    return torch.randn((N, length, D) if batch_first else (length, N, D))


GIVEN = ("none", "mask", "3-d mask", "padding", "both", "causal")
CASES = [("batch_first", given, floats) for given in GIVEN for floats in (False, True)]
CASES += [
    (name, given, given == "both") for name in CONSTRUCTORS for given in ("none", "both") if name != "batch_first"
]


@pytest.mark.parametrize(("constructor", "given", "floats"), CASES)
def test_encoder_layer(constructor: str, given: str, floats: bool) -> None:
    keywords = arguments(constructor)
    ours, theirs = pair("TransformerEncoderLayer", **keywords)
    mask = {"mask": causal(S), "both": causal(S).t(), "causal": causal(S)}.get(given)
    if given == "3-d mask":
        mask = (torch.rand(N * keywords["nhead"], S, S) < 0.3) & ~torch.eye(S, dtype=torch.bool)
    pad = padding((7, 3, 5), S) if given in ("padding", "both") else None
    if given == "both":  # every query sees the first key
        mask[:, 0] = False
    mask, pad = (None if m is None else as_floats(m) if floats else m for m in (mask, pad))
    same(
        ours,
        theirs,
        sequence(S, keywords.get("batch_first", False)),
        src_mask=mask,
        src_key_padding_mask=pad,
        is_causal=given == "causal",
    )


@pytest.mark.parametrize("constructor", CONSTRUCTORS)
def test_decoder_layer(constructor: str) -> None:
    keywords = arguments(constructor)
    first = keywords.get("batch_first", False)
    ours, theirs = pair("TransformerDecoderLayer", **keywords)
    tgt, memory = sequence(T, first), sequence(S, first)
    memory_mask = torch.rand(T, S) < 0.3
    memory_mask[:, 0] = False
    same(ours, theirs, tgt, memory)
    same(
        ours.train(),
        theirs.train(),
        tgt,
        memory,
        tgt_mask=causal(T),
        memory_mask=memory_mask,
        tgt_key_padding_mask=padding((5, 2, 4), T),
        memory_key_padding_mask=padding((7, 3, 5), S),
    )
    same(ours.train(), theirs.train(), tgt, memory, tgt_mask=as_floats(causal(T)), tgt_is_causal=True)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("given", ["none", "causal", "padding", "padding on the left", "both", "hint"])
@pytest.mark.parametrize("kind", ["ours", "torch's"])
def test_encoder(kind: str, given: str, norm: bool) -> None:
    """Evaluation without a gradient leaves padding out, as torch's fused path does."""
    inner = pair("TransformerEncoderLayer", **arguments("batch_first"))
    norms = (nn.LayerNorm(D), torch.nn.LayerNorm(D)) if norm else (None, None)
    layers = inner if kind == "ours" else (inner[1], inner[1])
    ours = nn.TransformerEncoder(layers[0], 2, norms[0])
    theirs = torch.nn.TransformerEncoder(layers[1], 2, norms[1])
    mask = causal(S) if given in ("causal", "both") else as_floats(causal(S)) if given == "hint" else None
    pad = padding((7, 3, 5), S) if given in ("padding", "both") else None
    if given == "padding on the left":
        pad = padding((7, 3, 5), S).flip(1)
    x, keywords = torch.randn(N, S, D), {"mask": mask, "src_key_padding_mask": pad}
    if given == "hint":
        keywords["is_causal"] = True
    got, expected = (step(m, x, **keywords) for m in (ours, theirs))
    torch.testing.assert_close(got, expected, rtol=5e-5, atol=5e-5)
    with torch.no_grad():
        got, expected = (m.eval()(x, **keywords) for m in (ours, theirs))
    torch.testing.assert_close(got, expected, rtol=5e-5, atol=5e-5)
    assert given != "padding" or norm or (got[1, 3:] == 0).all()


def test_no_warning_of_our_layers() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(D, H, FF, batch_first=True), 1)
    assert encoder.use_nested_tensor


@pytest.mark.parametrize("constructor", ["plain", "batch_first", "norm_first", "no bias", "gelu by name"])
def test_transformer(constructor: str) -> None:
    keywords = {"num_encoder_layers": 2, "num_decoder_layers": 2, **arguments(constructor)}
    first = keywords.get("batch_first", False)
    ours, theirs = pair("Transformer", **keywords)
    src, tgt = sequence(S, first), sequence(T, first)
    same(
        ours,
        theirs,
        src,
        tgt,
        src_mask=None,
        tgt_mask=nn.Transformer.generate_square_subsequent_mask(T),
        src_key_padding_mask=padding((7, 3, 5), S),
        tgt_key_padding_mask=as_floats(padding((5, 2, 4), T)),
        memory_key_padding_mask=padding((7, 3, 5), S),
    )
    kinds = {type(m) for m in ours.modules() if type(m).__module__.startswith("torch.nn.")}
    assert {k.__name__ for k in kinds} <= {"ModuleList", "Dropout", "NonDynamicallyQuantizableLinear"}


def test_custom_parts_stay() -> None:
    encoder = torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(D, H, FF), 1)
    ours = nn.Transformer(D, H, 1, 1, FF, custom_encoder=encoder)
    assert ours.encoder is encoder
    assert type(encoder) is torch.nn.TransformerEncoder
    assert type(encoder.layers[0].linear1) is torch.nn.Linear
    assert type(ours.decoder) is nn.TransformerDecoder
    activation = torch.nn.Sequential(torch.nn.Linear(FF, FF))
    layer = nn.TransformerEncoderLayer(D, H, FF, activation=activation)
    assert type(layer.activation[0]) is torch.nn.Linear


def test_the_activation_is_fused() -> None:
    layer, x = nn.TransformerEncoderLayer(D, H, FF, 0.0, "gelu"), torch.randn(S, N, D)
    with neurokern.trace() as launches:
        expected = layer(x)
    assert "unary" not in [row.op for row in launches]
    seen = []
    handle = layer.linear1.register_forward_hook(lambda m, i, o: seen.append(o))
    with neurokern.trace() as launches:
        torch.testing.assert_close(layer(x), expected)
    assert len(seen) == 1
    assert [row.op for row in launches].count("unary") == 1
    handle.remove()
    torch.nn.utils.parametrizations.weight_norm(layer.linear1)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("watched", ["forward hook", "backward hook", "forward of its own"])
def test_who_watches_the_activation_is_told(watched: str) -> None:
    layer, x = nn.TransformerEncoderLayer(D, H, FF, 0.0, torch.nn.GELU()), torch.randn(S, N, D, requires_grad=True)
    seen: list[str] = []
    if watched == "forward hook":
        layer.activation.register_forward_hook(lambda *_: seen.append(watched))
    elif watched == "backward hook":
        layer.activation.register_full_backward_hook(lambda *_: seen.append(watched))
    else:
        layer.activation.forward = lambda t: seen.append(watched) or torch.relu(t)
    layer(x).sum().backward()
    assert seen == [watched]


def test_activations_with_parameters_are_fused() -> None:
    x = torch.randn(S, N, D)
    for activation in (torch.nn.LeakyReLU(0.2), partial(torch.nn.functional.gelu, approximate="tanh")):
        layer = nn.TransformerEncoderLayer(D, H, FF, 0.0, activation)
        theirs = torch.nn.TransformerEncoderLayer(D, H, FF, 0.0, activation)
        theirs.load_state_dict(layer.state_dict())
        with neurokern.trace() as launches:
            ours = layer(x)
        assert "unary" not in [row.op for row in launches]
        torch.testing.assert_close(ours, theirs(x))


def test_overridden_blocks_are_called() -> None:
    class Mine(nn.TransformerEncoderLayer):
        def _sa_block(self, *args: Any, **keywords: Any) -> Tensor:
            return super()._sa_block(*args, **keywords) * 0

    class Theirs(torch.nn.TransformerEncoderLayer):
        def _sa_block(self, *args: Any, **keywords: Any) -> Tensor:
            return super()._sa_block(*args, **keywords) * 0

    x = torch.randn(S, N, D)
    ours, theirs = Mine(D, H, FF, 0.0), Theirs(D, H, FF, 0.0)
    ours.load_state_dict(theirs.state_dict())
    expected = theirs(x)
    torch.testing.assert_close(ours(x), expected)
    torch.testing.assert_close(neurokern.patch(theirs)(x), expected)


def test_dropout_is_in_training_alone() -> None:
    x = torch.randn(S, N, D)
    for layer in (nn.TransformerEncoderLayer(D, H, FF, 0.5), nn.TransformerDecoderLayer(D, H, FF, 0.5)):
        inputs = (x,) if isinstance(layer, nn.TransformerEncoderLayer) else (x, x)
        assert not torch.equal(layer(*inputs), layer(*inputs))
        assert torch.equal(layer.eval()(*inputs), layer(*inputs))


MODELS = {
    "TransformerEncoderLayer": lambda home: home.TransformerEncoderLayer(D, H, FF, 0.0),
    "TransformerDecoderLayer": lambda home: home.TransformerDecoderLayer(D, H, FF, 0.0, norm_first=True),
    "TransformerEncoder": lambda home: home.TransformerEncoder(home.TransformerEncoderLayer(D, H, FF, 0.0), 2),
    "TransformerDecoder": lambda home: home.TransformerDecoder(home.TransformerDecoderLayer(D, H, FF, 0.0), 2),
    "Transformer": lambda home: home.Transformer(D, H, 1, 1, FF, 0.0),
}


def inputs_of(name: str) -> tuple[Tensor, ...]:
    x = torch.randn(S, N, D)
    return (x,) if "Encoder" in name else (x, torch.randn(T, N, D))


@pytest.mark.parametrize("name", MODELS)
def test_copies(name: str) -> None:
    model, inputs = MODELS[name](nn), inputs_of(name)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(buffer, weights_only=False)):
        assert [type(m) for m in other.modules()] == [type(m) for m in model.modules()]
        assert torch.equal(other(*inputs), model(*inputs))


@pytest.mark.parametrize("name", MODELS)
def test_patch(name: str) -> None:
    model, inputs = MODELS[name](torch.nn), inputs_of(name)
    expected, kinds = step(model, *inputs), [type(m) for m in model.modules()]
    model.zero_grad()
    neurokern.patch(model)
    left = {type(m).__name__ for m in model.modules() if type(m).__module__.startswith("torch.nn.")}
    assert left <= {"ModuleList", "Dropout", "NonDynamicallyQuantizableLinear"}
    with neurokern.trace() as launches:
        got = step(model, *inputs)
    torch.testing.assert_close(got, expected, rtol=5e-5, atol=5e-5)
    assert {row.backend for row in launches} == {"cpu"}
    rows = {r.name: (r.kind, r.taken) for r in neurokern.report(model).rows}
    assert rows[""] == (name, True)
    neurokern.unpatch(model)
    assert [type(m) for m in model.modules()] == kinds


@pytest.mark.parametrize(("name", "train"), [("Transformer", True), ("TransformerEncoderLayer", False)])
def test_compiles_whole(name: str, train: bool) -> None:
    model, inputs = MODELS[name](nn).train(train), inputs_of(name)
    expected = model(*inputs)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*inputs), expected)


@pytest.mark.parametrize("name", ["Transformer", "TransformerEncoderLayer"])
def test_exports(name: str) -> None:
    model, inputs = MODELS[name](nn).eval(), inputs_of(name)
    program = torch.export.export(model, inputs)
    torch.testing.assert_close(program.module()(*inputs), model(*inputs))
    program = program.run_decompositions()
    assert not [n for n in program.graph.nodes if "neurokern" in str(n.target)]
    torch.testing.assert_close(program.module()(*inputs), model(*inputs), rtol=2e-5, atol=2e-5)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("name", MODELS)
def test_script_and_trace(name: str) -> None:
    model, inputs = MODELS[name](nn).eval(), inputs_of(name)
    expected, kinds = model(*inputs), [type(m) for m in model.modules()]
    if name in ("TransformerEncoderLayer", "TransformerDecoderLayer"):  # torch's others can't be compiled
        torch.testing.assert_close(torch.jit.script(model)(*inputs), expected, rtol=2e-5, atol=2e-5)
    assert [type(m) for m in model.modules()] == kinds
    torch.testing.assert_close(torch.jit.trace(model, inputs)(*inputs), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("home", [nn, torch.nn], ids=["ours", "torch's"])
def test_bad_input(home: Any) -> None:
    x = torch.randn(S, N, D)
    with pytest.raises(RuntimeError, match="activation should be relu/gelu"):
        home.TransformerEncoderLayer(D, H, FF, activation="no such")
    with pytest.raises(RuntimeError, match="batch number"):
        home.Transformer(D, H, 1, 1, FF)(x, x[:, :2])
    with pytest.raises(RuntimeError, match="feature number"):
        home.Transformer(D, H, 1, 1, FF)(x[..., :8], x)
    layer = home.TransformerEncoderLayer(D, H, FF)
    with pytest.raises(AssertionError, match="mask"):
        layer(x, src_key_padding_mask=torch.zeros(N, S, dtype=torch.int64))
    with pytest.raises(RuntimeError, match="attn_mask"):
        layer(x, causal(S + 1))
    with pytest.raises(RuntimeError, match="attn_mask"):
        layer(x, is_causal=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("batch_first", [True, False])
def test_dtypes(dtype: torch.dtype, batch_first: bool) -> None:
    ours, theirs = pair("TransformerEncoderLayer", D, H, FF, 0.0, batch_first=batch_first)
    x = sequence(S, batch_first).to(dtype)
    got, exact = ours.to(dtype)(x), theirs.to(dtype).double()(x.double())
    assert got.dtype == dtype
    bound = 1e-12 if dtype == torch.float64 else 2**-5
    torch.testing.assert_close(got.double(), exact, rtol=bound, atol=bound)


LAYERS = {
    "TransformerEncoderLayer": (("self_attn", "_sa_block"), ("linear2", "_ff_block")),
    "TransformerDecoderLayer": (("self_attn", "_sa_block"), ("multihead_attn", "_mha_block"), ("linear2", "_ff_block")),
}
SUMS = [(name, *names) for name, blocks in LAYERS.items() for names in blocks]


def sums(layer: torch.nn.Module, x: Tensor) -> int:
    """How many sums torch computes in the layer's forward."""
    given = (x, x.flip(0)) if isinstance(layer, torch.nn.TransformerDecoderLayer) else (x,)
    with torch.profiler.profile() as profile:
        layer(*given)
    return sum(event.count for event in profile.key_averages() if event.key == "aten::add")


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_the_sum_behind_a_block_is_the_last_layers(name: str, norm_first: bool) -> None:
    x = sequence(S, True)
    layer = getattr(nn, name)(D, H, FF, 0.0, batch_first=True, norm_first=norm_first)
    assert sums(layer, x) == 0
    dropping = getattr(nn, name)(D, H, FF, 0.1, batch_first=True, norm_first=norm_first)
    assert sums(dropping, x) == len(LAYERS[name])
    assert sums(dropping.eval(), x) == 0


@pytest.mark.parametrize("name,last,block", SUMS)
def test_what_a_block_returns_is_seen_before_the_sum(name: str, last: str, block: str) -> None:
    ours, theirs = pair(name, D, H, FF, 0.0, batch_first=True)
    x, seen = sequence(S, True), {ours: [], theirs: []}
    given = (x, x.flip(0)) if name == "TransformerDecoderLayer" else (x,)
    for layer in (ours, theirs):

        def see(_: Any, __: Any, y: Any, layer: torch.nn.Module = layer) -> None:
            seen[layer].append(y[0] if isinstance(y, tuple) else y)

        getattr(layer, last).register_forward_hook(see)
        getattr(layer, {"linear2": f"dropout{len(LAYERS[name])}"}.get(last, "dropout1")).register_forward_hook(see)
        layer(*given)
    torch.testing.assert_close(seen[ours], seen[theirs], rtol=2e-5, atol=2e-5)
    other = copy.deepcopy(ours)
    setattr(other, block, lambda x, *_: torch.zeros_like(x))
    fresh, _ = pair(name, D, H, FF, 0.0, batch_first=True)
    assert not torch.allclose(other(*given), fresh(*given))
    assert sums(other, x) > sums(fresh, x) == 0


def test_under_autocast_the_sum_is_of_torchs_dtype() -> None:
    ours, theirs = pair("TransformerEncoderLayer", D, H, FF, 0.0, norm_first=True)
    x = sequence(S, False)
    with torch.autocast("cpu", torch.bfloat16):
        got, expected = ours(x), theirs(x)
    assert got.dtype == expected.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=2**-5, atol=2**-5)


@pytest.mark.parametrize("backend", ["cuda", "triton"])
def test_layers_run_wherever_their_ops_do(backend: str) -> None:
    """Outputs and gradients are the CPU's, and nothing of a layer goes to torch."""
    torch.manual_seed(0)
    x = torch.randn(2, 5, 16, requires_grad=True)
    encoder = nn.TransformerEncoderLayer(16, 2, 24, dropout=0.0, batch_first=True, activation="gelu")
    decoder = nn.TransformerDecoderLayer(16, 2, 24, dropout=0.0, batch_first=True)
    for layer, given in ((encoder, (x,)), (decoder, (x, x))):
        expected = layer(*given)
        (wanted,) = torch.autograd.grad(expected.sum(), x)
        elsewhere = neurokern.emulate() if backend == "cuda" else neurokern.backend(backend)
        with elsewhere, neurokern.strict(), neurokern.trace() as launches:
            made = layer(*given)
            (got,) = torch.autograd.grad(made.sum(), x)
        torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
        assert {c.backend for c in launches} == {backend}
