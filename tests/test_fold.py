"""Batch norms folded into the convolutions before them: the same results, and everything given back."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import neurokern
import pytest
import torch
from torch import Tensor, nn

F = torch.nn.functional


class Block(nn.Module):
    """A block of a ResNet: what is folded is found by torch.fx, but for the Sequential."""

    def __init__(self, channels: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, padding_mode="reflect")
        self.bn2 = nn.BatchNorm2d(out, eps=1e-3, affine=False)
        shrinks = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        self.shortcut = shrinks if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + (x if self.shortcut is None else self.shortcut(x)))


def resnet() -> nn.Module:
    """Trained for a few steps, so that the statistics are some."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), Block(8, 8), Block(8, 12, 2))
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d) and m.affine:
            nn.init.normal_(m.weight), nn.init.normal_(m.bias)
    for _ in range(3):
        model(torch.randn(4, 3, 16, 16) * 3 + 1)
    return model.eval()


def small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()


def folded(model: nn.Module) -> list[str]:
    return [r.name for r in neurokern.report(model).rows if r.reason.startswith("folded")]


def both(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    return copy.deepcopy(model), neurokern.patch(model, fold_batch_norm=True)


def gradients(model: nn.Module, x: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    model.zero_grad()
    y = model(x)
    y.square().sum().backward()
    return [y.detach(), x.grad, *(p.grad for p in model.parameters())]


@pytest.fixture
def x(seed: int) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn(4, 3, 16, 16)


class TestResults:
    def test_evaluation(self, x: Tensor) -> None:
        before, model = both(resnet())
        assert folded(model) == ["1", "3.bn1", "3.bn2", "4.bn1", "4.bn2", "4.shortcut.1"]
        with torch.no_grad(), neurokern.trace() as launches:
            torch.testing.assert_close(model(x), before(x), rtol=1e-4, atol=1e-5)
        assert all(row.op != "batch_norm" for row in launches)

    def test_gradients_in_evaluation(self, x: Tensor) -> None:
        before, model = both(resnet())
        torch.testing.assert_close(gradients(model, x), gradients(before, x), rtol=1e-3, atol=1e-3)

    def test_training_is_as_ever(self, x: Tensor) -> None:
        """Not folded there, and what the statistics have become is in the weights afterwards."""
        before, model = both(resnet())
        for m in (model, before):
            with torch.no_grad():
                m(x)
            m.train()
        torch.testing.assert_close(gradients(model, x), gradients(before, x), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(model.state_dict(), before.state_dict())
        for m in (model, before):
            m.eval()
        with torch.no_grad():
            torch.testing.assert_close(model(x), before(x), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("dims", [1, 2, 3])
    @pytest.mark.parametrize("bias", [True, False])
    def test_each_kind(self, dims: int, bias: bool, seed: int) -> None:
        torch.manual_seed(seed)
        conv, norm = getattr(nn, f"Conv{dims}d"), getattr(nn, f"BatchNorm{dims}d")
        model = nn.Sequential(conv(4, 6, 3, groups=2, bias=bias, dtype=torch.float64), norm(6, dtype=torch.float64))
        x = torch.randn(5, 4, *[6] * dims, dtype=torch.float64)
        model(x)
        before, model = both(model.eval())
        assert folded(model) == ["1"]
        with torch.no_grad():
            torch.testing.assert_close(model(x), before(x))

    @pytest.mark.parametrize("backend", ["aot_eager", "export"])
    def test_compiled(self, backend: str, x: Tensor) -> None:
        before, model = both(resnet())
        with torch.no_grad():
            model(x)
            if backend == "export":
                program = torch.export.export(model, (x,))
                assert not any("batch_norm" in str(n.target) for n in program.graph.nodes)
                made = program.module()
            else:
                torch._dynamo.reset()
                made = torch.compile(model, fullgraph=True, backend=backend)
            torch.testing.assert_close(made(x), before(x), rtol=1e-4, atol=1e-5)

    def test_other_parameters(self, x: Tensor) -> None:
        """By torch.func, whose tensors are not to be remembered."""
        before, model = both(small())
        other = {k: v + 0.5 if v.is_floating_point() else v for k, v in model.state_dict().items()}
        expected = torch.func.functional_call(before, other, x)
        with torch.no_grad():
            torch.testing.assert_close(torch.func.functional_call(model, other, x), expected)
            torch.testing.assert_close(model(x), before(x))
        stacked = {
            k: torch.stack((v, v + 1)) if v.is_floating_point() else torch.stack((v, v)) for k, v in other.items()
        }

        def run(state: dict[str, Tensor]) -> Tensor:
            return torch.func.functional_call(model, state, x)

        with torch.no_grad():
            torch.testing.assert_close(torch.func.vmap(run)(stacked)[0], expected)
            torch.testing.assert_close(model(x), before(x))


class TestKept:
    """The scaled weights are made anew after any change of what they are made of."""

    @pytest.mark.parametrize(
        "change",
        [
            lambda m: m[0].weight.mul_(2),
            lambda m: m[0].bias.add_(1),
            lambda m: m[1].weight.mul_(-1),
            lambda m: m[1].bias.add_(1),
            lambda m: m[1].running_mean.add_(1),
            lambda m: m[1].running_var.add_(1),
            lambda m: m.train()(torch.full((2, 3, 8, 8), 2.0)),
            lambda m: m.load_state_dict({k: v + 1 for k, v in m.state_dict().items()}),
            lambda m: m.to(torch.bfloat16).to(torch.float32),
            lambda m: setattr(m[1], "bias", nn.Parameter(torch.ones(4))),
            lambda m: setattr(m[0], "bias", None),
            lambda m: setattr(m[1], "eps", 0.5),
        ],
        ids=["weight", "bias", "scale", "shift", "mean", "var", "train", "load", "to", "parameter", "no bias", "eps"],
    )
    def test_a_change(self, change: Callable[[Any], Any], x: Tensor) -> None:
        before, model = both(small())
        with torch.no_grad():
            first = model(x)
            for m in (model, before):
                change(m), m.eval()
            torch.testing.assert_close(model(x), before(x), rtol=1e-4, atol=1e-5)
            assert not torch.equal(model(x), first)

    def test_made_once(self, x: Tensor) -> None:
        _, model = both(small())
        with torch.no_grad():
            model(x)
            made = model[0]._folded._kept
            model(x)
            assert model[0]._folded._kept is made


class TestGivenBack:
    def test_everything(self, x: Tensor) -> None:
        model = resnet()
        state = copy.deepcopy(model.state_dict())
        attributes, kinds = [dict(vars(m)) for m in model.modules()], [type(m) for m in model.modules()]
        with torch.no_grad():
            expected = model(x)
            neurokern.patch(model, fold_batch_norm=True)
            torch.testing.assert_close(dict(model.state_dict()), dict(state), rtol=0, atol=0)
            assert neurokern.patch(model, fold_batch_norm=True) is model  # once more changes nothing
            model(x)
            neurokern.unpatch(model)
            assert [type(m) for m in model.modules()] == kinds
            assert [dict(vars(m)) for m in model.modules()] == attributes
            torch.testing.assert_close(dict(model.state_dict()), dict(state), rtol=0, atol=0)
            assert torch.equal(model(x), expected)

    @pytest.mark.parametrize(
        "change",
        [
            lambda m: neurokern.unpatch(m[0]),
            lambda m: neurokern.unpatch(m[1]),
            lambda m: m.__setitem__(1, copy.deepcopy(m[1])),
            lambda m: m.__setitem__(0, copy.deepcopy(m[0])),
            lambda m: m.__setitem__(1, nn.Identity()),
            lambda m: m.insert(1, nn.ReLU()),
        ],
        ids=["convolution", "batch norm", "another norm", "another convolution", "no norm", "one between"],
    )
    def test_half_of_it(self, change: Callable[[Any], Any], x: Tensor) -> None:
        """Where one of the two is no longer what it was, both are themselves."""
        before, model = both(small())
        with torch.no_grad():
            model(x)
            for m in (model, before):
                change(m)
            torch.testing.assert_close(model(x), before(x))

    def test_copies(self, x: Tensor) -> None:
        before, model = both(small())
        with torch.no_grad():
            for other in (
                copy.deepcopy(model),
                pickle.loads(pickle.dumps(model)),
                nn.Sequential(*map(copy.copy, model)),
            ):
                assert folded(other) == []
                torch.testing.assert_close(other(x), before(x))
                assert folded(neurokern.patch(other, fold_batch_norm=True)) == ["1"]
                torch.testing.assert_close(other(x), before(x))
            torch.testing.assert_close(copy.deepcopy(model[0])(x), before[0](x))
            torch.testing.assert_close(model(x), before(x))


class Calls(nn.Module):
    """conv and bn, called as the test says."""

    def __init__(self, forward: Callable[..., Tensor]) -> None:
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU()
        self.called = forward

    def forward(self, x: Tensor, more: Tensor | None = None) -> Tensor:
        return self.called(self, x, more)


def by_value(m: Any, x: Tensor, more: Any) -> Tensor:
    return m.bn(m.conv(x)) if x.sum() > 0 else m.conv(x)


def by_argument(m: Any, x: Tensor, more: Any) -> Tensor:
    return m.bn(m.conv(x)) if more is None else m.bn(m.relu(m.conv(x)))


def in_training(m: Any, x: Tensor, more: Any) -> Tensor:
    return m.conv(x) if m.training else m.bn(m.conv(x))


@pytest.mark.parametrize(
    ("forward", "expected"),
    [
        (lambda m, x, more: m.bn(m.conv(x)), True),
        (in_training, True),
        (lambda m, x, more: m.bn(m.relu(m.conv(x))), False),
        (lambda m, x, more: (y := m.conv(x)) + m.bn(y), False),
        (lambda m, x, more: m.bn(m.conv(m.conv(x))), False),
        (lambda m, x, more: m.bn(m.bn(m.conv(x))), False),
        (lambda m, x, more: m.bn(m.conv(x)) + m.conv(x), False),
        (lambda m, x, more: m.bn(x) + m.conv(x), False),
        (by_value, False),
        (by_argument, False),
    ],
    ids=["behind", "in evaluation", "relu between", "used twice", "conv twice", "bn twice", "conv elsewhere", "beside",
         "by a value", "by an argument"],
)  # fmt: skip
def test_what_is_certain(forward: Callable[..., Tensor], expected: bool, x: Tensor) -> None:
    before, model = both(Calls(forward).eval())
    assert bool(folded(model)) is expected
    with torch.no_grad():
        torch.testing.assert_close(model(x), before(x))
    assert not model.training


def shared() -> nn.Module:
    conv = nn.Conv2d(3, 3, 3, padding=1)
    return nn.Sequential(conv, nn.BatchNorm2d(3), conv)


def hooked() -> nn.Module:
    model = small()
    model[0].register_forward_hook(lambda *_: None)
    return model


def own_forward() -> nn.Module:
    class Own(nn.Conv2d):
        def _conv_forward(self, *args: Any) -> Tensor:
            return -super()._conv_forward(*args)

    return nn.Sequential(Own(3, 4, 3), nn.BatchNorm2d(4)).eval()


@pytest.mark.parametrize(
    "make",
    [
        shared,
        hooked,
        own_forward,
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)).eval(),
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4)).eval(),
        lambda: nn.Sequential(nn.ConvTranspose2d(3, 4, 3), nn.BatchNorm2d(4)).eval(),
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4)).eval(),
    ],
    ids=["shared", "hooked", "own forward", "no statistics", "parametrized", "transposed", "another norm"],
)
def test_what_is_left(make: Callable[[], nn.Module], x: Tensor) -> None:
    before, model = both(make())
    assert folded(model) == []
    with torch.no_grad():
        torch.testing.assert_close(model(x), before(x))


def test_the_shape_that_a_batch_norm_refuses() -> None:
    _, model = both(small())
    with torch.no_grad(), pytest.raises(ValueError, match="expected 4D input"):
        model(torch.randn(3, 8, 8))
