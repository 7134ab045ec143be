"""neurokern.nn beside torch.nn: classes, arguments, state, and the values of their forward and backward."""

from __future__ import annotations

import copy
import inspect
import io
import pickle

import neurokern
import neurokern.functional as F
import pytest
import torch
from neurokern import nn
from neurokern.testing import Maker, OpSpec, Target, all_specs

SHARED = sorted(name for name in nn.NATIVE if hasattr(torch.nn, name))
LAYERED = [s for s in all_specs() if s.layer]


def test_every_native_class_has_a_spec_with_a_layer() -> None:
    made = {type(s.layer(Maker.seeded(0))[0]).__name__ for s in LAYERED}
    # those of several ops: test_attention_layers.py, test_transformer_layers.py
    composed = {"MultiheadAttention", *nn.modules.transformer.__all__}
    lazy = {name for name in nn.NATIVE if name.startswith("Lazy")}
    # those of other dims, and of random or given places: test_rearrangement.py, test_pooling.py
    padding = {n for n in nn.NATIVE if n.endswith(("Pad1d", "Pad2d", "Pad3d"))} - made
    places = {n for n in nn.NATIVE if n.startswith(("FractionalMaxPool", "MaxUnpool"))}
    old = {"UpsamplingNearest2d", "UpsamplingBilinear2d"}  # test_resampling.py
    assert made == nn.NATIVE - {"Softmax2d", *lazy, *composed, *padding, *places, *old}


@pytest.mark.parametrize("name", SHARED)
def test_a_subclass_with_torchs_arguments(name: str) -> None:
    ours, theirs = getattr(nn, name), getattr(torch.nn, name)
    assert issubclass(ours, theirs)
    assert ours is not theirs
    assert ours.__name__ == name
    assert inspect.signature(ours) == inspect.signature(theirs)


def test_other_names_are_torchs() -> None:
    assert nn.BatchNorm2d is torch.nn.BatchNorm2d
    assert nn.Module is torch.nn.Module
    assert nn.Sequential is torch.nn.Sequential
    assert nn.init is torch.nn.init
    assert set(dir(torch.nn)) <= set(dir(nn))
    with pytest.raises(AttributeError):
        nn.NoSuchLayer  # noqa: B018


def test_native_is_what_it_says() -> None:
    assert isinstance(nn.NATIVE, frozenset)
    for name in nn.NATIVE:
        assert getattr(nn, name).__module__.startswith("neurokern.")
    activations = {n for n in dir(torch.nn.modules.activation) if isinstance(getattr(torch.nn, n, None), type)}
    without = {"Module", "Parameter"}
    assert activations - without <= nn.NATIVE, "an activation of torch.nn that is not ours"


def test_aliased_names_of_a_module_survive(seed: int) -> None:
    linear = nn.Linear(3, 2)
    assert repr(linear) == repr(torch.nn.Linear(3, 2))
    assert "LinearActivation(in_features=3" in repr(nn.LinearActivation(3, 2, activation="gelu"))


@pytest.mark.parametrize("spec", LAYERED, ids=lambda s: s.id)
@pytest.mark.backends("auto", "cuda", few=False)
def test_values_state_and_gradients(spec: OpSpec, on: Target, seed: int) -> None:
    """The torch layer's state loads, and then both give the same, forward and backward."""
    torch.manual_seed(seed)
    make = Maker.seeded(seed, spec.id, "layer", device=on.device)
    ours, theirs, args = spec.layer(make)
    ours, theirs = ours.to(on.device), theirs.to(on.device)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    results = []
    for layer in (ours, theirs):
        leaves = tuple(a.clone().requires_grad_() for a in args)
        y = layer(*leaves)
        y.square().sum().backward()
        results.append([y.detach(), *(t.grad for t in leaves), *(p.grad for p in layer.parameters())])
    torch.testing.assert_close(results[0], results[1], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("spec", LAYERED, ids=lambda s: s.id)
def test_copies(spec: OpSpec, seed: int) -> None:
    ours, _, args = spec.layer(Maker.seeded(seed, spec.id))
    expected = ours(*args)
    buffer = io.BytesIO()
    torch.save(ours, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=False)
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours)), loaded):
        assert type(other) is type(ours)
        assert torch.equal(other(*args), expected)
        assert all(a is not b for a, b in zip(other.parameters(), ours.parameters(), strict=True))


@pytest.mark.parametrize("spec", LAYERED, ids=lambda s: s.id)
def test_dtype_and_device_move_as_torchs(spec: OpSpec, seed: int) -> None:
    ours, theirs, args = spec.layer(Maker.seeded(seed, spec.id))
    ours, theirs = ours.to(torch.bfloat16), theirs.to(torch.bfloat16)
    ours.load_state_dict(theirs.state_dict())
    args = tuple(a.to(torch.bfloat16) for a in args)
    made = ours(*args)
    try:
        right = theirs(*args)
    except NotImplementedError:  # in 16 bits torch has it on a GPU alone
        right = theirs.float()(*(a.float() for a in args)).to(torch.bfloat16)
    differ = ~torch.isclose(made, right, rtol=2**-7, atol=2**-7)  # refuses another function
    # a value that two roundings put on either side of a jump
    assert differ.sum() <= (spec.act in ("hardshrink", "threshold")), (made[differ], right[differ])
    assert ours(*args).dtype == torch.bfloat16


def test_softmax2d(seed: int) -> None:
    make = Maker.seeded(seed, "softmax2d")
    for shape in ((2, 3, 4, 5), (3, 4, 5)):
        x = make(*shape)
        torch.testing.assert_close(nn.Softmax2d()(x), torch.nn.Softmax2d()(x))
    for layer in (nn.Softmax2d(), torch.nn.Softmax2d()):
        with pytest.raises(ValueError, match="Softmax2d"):
            layer(make(3, 4))


def test_training_draws_and_evaluation() -> None:
    layer, x = nn.RReLU(), -torch.ones(100)
    assert layer(x).std() > 0
    assert len(layer.eval()(x).unique()) == 1


def network() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Linear(6, 8),
        torch.nn.ReLU(inplace=True),
        torch.nn.ModuleDict({"inner": torch.nn.Sequential(torch.nn.PReLU(8), torch.nn.Linear(8, 4))})["inner"],
        torch.nn.Dropout(0.0),
        torch.nn.LogSoftmax(-1),
    )


class TestPatch:
    def test_swaps_and_gives_back(self, seed: int) -> None:
        torch.manual_seed(seed)
        model, x = network(), torch.randn(5, 6)
        before, classes = model(x), [type(m) for m in model.modules()]
        parameters = list(model.parameters())
        assert neurokern.patch(model) is model
        assert type(model[0]) is nn.Linear
        assert type(model[2][0]) is nn.PReLU
        assert type(model[3]) is torch.nn.Dropout
        assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
        with neurokern.trace() as launches:
            after = model(x)
        assert [entry.op for entry in launches] == ["matmul", "unary", "prelu", "matmul", "softmax"]
        assert {entry.backend for entry in launches} == {"cpu"}
        torch.testing.assert_close(after, before)
        assert neurokern.unpatch(model) is model
        assert [type(m) for m in model.modules()] == classes
        with neurokern.trace() as launches:
            assert torch.equal(model(x), before)
        assert not launches

    def test_keeps_hooks_mode_and_subclasses(self) -> None:
        class Mine(torch.nn.Linear):
            def forward(self, x):
                return super().forward(x) * 0

        model = torch.nn.Sequential(Mine(3, 3), torch.nn.Linear(3, 3)).eval()
        called = []
        model[1].register_forward_hook(lambda *_: called.append(1))
        neurokern.patch(model)
        assert type(model[0]) is Mine
        model(torch.randn(2, 3))
        assert called == [1]
        assert not model[1].training

    def test_a_parametrized_layer(self) -> None:
        layer, x = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(4, 3)), torch.randn(2, 4)
        twin, expected = copy.deepcopy(layer), layer(x)
        neurokern.patch(layer)
        with neurokern.trace() as launches:
            torch.testing.assert_close(layer(x), expected)
        assert launches
        assert not isinstance(twin, nn.Linear)
        neurokern.unpatch(layer)
        assert not isinstance(layer, nn.Linear)
        torch.nn.utils.parametrize.remove_parametrizations(neurokern.patch(layer), "weight")
        assert type(layer) is nn.Linear

    @pytest.mark.parametrize("name", sorted(name for name in nn.NATIVE if name.startswith("Lazy")))
    def test_a_lazy_layer(self, name: str) -> None:
        dims = int(name[-2]) if name.endswith("d") else 0
        more = (2,) if dims else ()
        for layer in (neurokern.patch(getattr(torch.nn, name)(3, *more)), getattr(nn, name)(3, *more)):
            x = torch.randn(2, 4, *[5] * dims)
            with neurokern.strict(), neurokern.trace() as launches:
                y = layer(x)
            assert len(launches) == 1  # the first call, too, which is that of the lazy class
            assert type(layer) is getattr(nn, name.removeprefix("Lazy"))
            torch.testing.assert_close(y, neurokern.unpatch(layer)(x))

    def test_a_layer_by_itself(self) -> None:
        layer = neurokern.patch(torch.nn.GELU())
        assert type(layer) is nn.GELU
        assert type(neurokern.unpatch(layer)) is torch.nn.GELU

    def test_refuses_what_is_no_module(self) -> None:
        with pytest.raises(TypeError, match=r"neurokern\.patch"):
            neurokern.patch([1, 2])


def test_trains_as_torchs(seed: int) -> None:
    """Three steps of SGD from the same start: the same losses."""
    losses = []
    for ours in (False, True):
        torch.manual_seed(seed)
        model = network()
        if ours:
            neurokern.patch(model)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        x, target = torch.randn(32, 6), torch.randint(0, 4, (32,))
        mine = []
        for _ in range(3):
            optimizer.zero_grad()
            loss = torch.nn.functional.nll_loss(model(x), target)
            loss.backward()
            optimizer.step()
            mine.append(loss.item())
        losses.append(mine)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_linear_activation(seed: int) -> None:
    torch.manual_seed(seed)
    layer = nn.LinearActivation(5, 3, activation=("leaky_relu", 0.2))
    x, r = torch.randn(4, 5), torch.randn(4, 3)
    expected = torch.nn.functional.leaky_relu(torch.nn.functional.linear(x, layer.weight, layer.bias), 0.2) + r
    torch.testing.assert_close(layer(x, r), expected)
    with pytest.raises(ValueError, match="activation"):
        nn.LinearActivation(5, 3, activation="no such")
    plain = torch.nn.Linear(5, 3)
    plain.load_state_dict(layer.state_dict())


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_script_compiles_torchs_layers() -> None:
    model, x = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.PReLU(), nn.Softmax(-1)), torch.randn(3, 4)
    expected = model(x)
    scripted = torch.jit.script(model)
    torch.testing.assert_close(scripted(x), expected)
    assert scripted[0].weight.data_ptr() == model[0].weight.data_ptr()


def test_fx_keeps_our_functions() -> None:
    def f(x, w, b):
        y = F.addmm(b, F.gelu(x), w, beta=2, alpha=3)
        return F.softmax(F.leaky_relu(F.linear(y, w, activation="relu"), 0.3), -1), F.swiglu(F.prelu(y, b[:1]))

    graph = torch.fx.symbolic_trace(f)
    args = torch.randn(3, 4), torch.randn(4, 4), torch.randn(4)
    with neurokern.trace() as launches:
        got = graph(*args)
    assert {row.backend for row in launches} == {"cpu"}
    torch.testing.assert_close(got, f(*args))
