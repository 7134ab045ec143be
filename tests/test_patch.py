"""What patch takes besides torch.nn's own classes, and that it gives everything back."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import neurokern
import neurokern.functional as F
import pytest
import torch
from neurokern import nn


class MyLinear(torch.nn.Linear):
    """A subclass with nothing of its own but a name for the repr."""

    def extra_repr(self) -> str:
        return "mine"


class Mixed(torch.nn.Module):
    def greet(self) -> str:
        return "hello"


class MixedNorm(Mixed, torch.nn.LayerNorm):
    pass


class OwnForward(MyLinear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).neg()


class Theirs(torch.nn.Module):
    """What some package might have: no layer of torch's."""

    def __init__(self, scale: float = 2.0) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((4,), scale))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x) * self.weight


class Derived(Theirs):
    pass


class Ours(Theirs):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x).mul(self.weight)


class Apart:
    """Not a subclass of theirs: it goes before it, and super() is theirs."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(F.relu(x))


def launches_of(model: Callable[..., Any], *args: Any) -> list[str]:
    with neurokern.trace() as launches:
        model(*args)
    return [row.op for row in launches]


def saved(module: torch.nn.Module) -> torch.nn.Module:
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def copies(module: torch.nn.Module) -> list[torch.nn.Module]:
    return [
        copy.copy(module),
        copy.deepcopy(module),
        *(pickle.loads(pickle.dumps(module, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)),
        saved(module),
    ]


class TestSubclasses:
    @pytest.mark.parametrize(
        "make",
        [lambda: MyLinear(4, 3), lambda: MixedNorm(4), lambda: torch.nn.Sequential(MyLinear(4, 4), MixedNorm(4))],
    )
    def test_round_trip(self, make: Callable[[], torch.nn.Module], seed: int) -> None:
        torch.manual_seed(seed)
        model, x = make().eval(), torch.randn(5, 4)
        called: list[int] = []
        model.register_forward_hook(lambda *_: called.append(1))
        model.register_buffer("more", torch.ones(2))
        expected, kinds, text = model(x), [type(m) for m in model.modules()], repr(model)
        state, attributes = copy.deepcopy(model.state_dict()), dict(vars(model))
        neurokern.patch(model)
        assert launches_of(model, x)
        torch.testing.assert_close(model(x), expected)
        assert all(isinstance(m, k) for m, k in zip(model.modules(), kinds, strict=True))
        assert repr(model) == text
        assert not model.training
        assert len(called) == 3
        assert vars(model) == attributes
        assert list(model.state_dict()) == list(state)
        assert neurokern.patch(model) is model  # once more changes nothing
        made = [type(m) for m in model.modules()]
        neurokern.patch(model)
        assert [type(m) for m in model.modules()] == made
        neurokern.unpatch(model)
        assert [type(m) for m in model.modules()] == kinds
        assert torch.equal(model(x), expected)

    def test_two_modules_share_one_class(self) -> None:
        a, b = neurokern.patch(MyLinear(4, 3)), neurokern.patch(MyLinear(2, 2))
        assert type(a) is type(b)
        assert isinstance(a, nn.Linear)
        assert a.extra_repr() == "mine"
        assert neurokern.patch(MixedNorm(3)).greet() == "hello"

    @pytest.mark.parametrize("make", [lambda: MyLinear(4, 3), lambda: MixedNorm(4)])
    def test_copies(self, make: Callable[[], torch.nn.Module], seed: int) -> None:
        torch.manual_seed(seed)
        module, x = neurokern.patch(make()), torch.randn(2, 4)
        for other in copies(module):
            assert type(other) is type(module)
            assert torch.equal(other(x), module(x))
            assert launches_of(other, x)
            assert not isinstance(neurokern.unpatch(other), (nn.Linear, nn.LayerNorm))

    def test_left_alone(self) -> None:
        own, set_on = OwnForward(4, 3), torch.nn.Linear(4, 3)
        set_on.forward = lambda x: x
        model = neurokern.patch(torch.nn.Sequential(own, set_on))
        assert [type(m) for m in model] == [OwnForward, torch.nn.Linear]
        reasons = [r.reason for r in neurokern.report(model).rows]
        assert reasons == ["a container", "a forward of its own", "a forward of its own, set on the module"]

    def test_a_class_that_refuses_subclasses(self) -> None:
        class Final(torch.nn.Linear):
            def __init_subclass__(cls) -> None:
                raise TypeError("Final is final")

        layer = neurokern.patch(Final(2, 2))
        assert type(layer) is Final
        assert "Final is final" in neurokern.report(layer).rows[0].reason

    def test_a_subclass_of_ours_stays(self) -> None:
        class Mine(nn.Linear):
            pass

        layer = Mine(2, 2)
        assert type(neurokern.patch(layer)) is Mine
        assert type(neurokern.unpatch(layer)) is Mine
        assert neurokern.report(layer).rows[0].taken

    def test_a_parametrized_subclass(self, seed: int) -> None:
        torch.manual_seed(seed)
        layer, x = torch.nn.utils.parametrizations.weight_norm(MyLinear(4, 3)), torch.randn(2, 4)
        expected = layer(x)
        neurokern.patch(layer)
        assert launches_of(layer, x)
        torch.testing.assert_close(layer(x), expected)
        torch.nn.utils.parametrize.register_parametrization(layer, "bias", torch.nn.Identity())
        neurokern.unpatch(layer)
        assert not launches_of(layer, x)
        torch.testing.assert_close(layer(x), expected)
        torch.nn.utils.parametrize.remove_parametrizations(layer, "bias")
        torch.nn.utils.parametrize.remove_parametrizations(layer, "weight")
        assert type(layer) is MyLinear

    @pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
    def test_script_compiles_theirs(self) -> None:
        layer, x = neurokern.patch(torch.nn.Sequential(MyLinear(4, 3))), torch.randn(2, 4)
        torch.testing.assert_close(torch.jit.script(layer)(x), layer(x))


class TestRegister:
    @pytest.fixture(autouse=True)
    def forget(self) -> Iterator[None]:
        yield
        neurokern.unregister_layer(Theirs)
        neurokern.unregister_layer(f"{__name__}.Theirs")

    @pytest.mark.parametrize("ours", [Ours, Apart, lambda self, x: F.relu(x).mul(self.weight)])
    @pytest.mark.parametrize("theirs", [Theirs, f"{__name__}.Theirs"])
    @pytest.mark.parametrize("kind", [Theirs, Derived])
    def test_takes_and_gives_back(self, ours: Any, theirs: Any, kind: type) -> None:
        assert neurokern.register_layer(theirs, ours) is ours
        module, x = kind(3.0), torch.tensor([-1.0, 0.0, 2.0, 3.0])
        expected = module(x)
        neurokern.patch(module)
        assert isinstance(module, kind)
        assert launches_of(module, x) == ["unary"]
        assert torch.equal(module(x), expected)
        for other in copies(module):
            assert launches_of(other, x) == ["unary"]
        assert type(neurokern.unpatch(module)) is kind
        assert not launches_of(module, x)

    def test_decorators(self) -> None:
        @neurokern.register_layer(Theirs, unless=lambda m: "too large" if m.weight[0] > 5 else None)
        def forward(self: Theirs, x: torch.Tensor) -> torch.Tensor:
            return F.relu(x).mul(self.weight)

        model = neurokern.patch(torch.nn.Sequential(Theirs(1.0), Theirs(9.0)))
        assert [r.taken for r in neurokern.report(model).rows] == [False, True, False]
        assert neurokern.report(model).rows[2].reason == "too large"
        assert callable(forward)

    def test_what_is_patched_outlives_the_registration(self) -> None:
        neurokern.register_layer(Theirs, Apart)
        module = neurokern.patch(Derived())
        neurokern.unregister_layer(Theirs)
        assert type(copy.deepcopy(module)) is Derived  # nothing takes its place now
        assert type(neurokern.unpatch(module)) is Derived
        neurokern.register_layer(Theirs, Ours)
        module = neurokern.patch(Theirs())
        neurokern.unregister_layer(Theirs)
        assert type(neurokern.unpatch(module)) is Theirs
        assert type(neurokern.unpatch(Ours())) is Ours

    def test_errors(self) -> None:
        with pytest.raises(TypeError, match=r"register_layer: argument theirs is 3"):
            neurokern.register_layer(3, Ours)
        with pytest.raises(ValueError, match=r"register_layer: argument theirs is 'Theirs'"):
            neurokern.register_layer("Theirs", Ours)
        with pytest.raises(TypeError, match=r"register_layer: argument ours is Linear"):
            neurokern.register_layer(Theirs, torch.nn.Linear(2, 2))
        with pytest.raises(TypeError, match=r"register_layer: argument ours is <class 'int'>, which has no forward"):
            neurokern.register_layer(Theirs, int)
        with pytest.raises(TypeError, match=r"register_layer: argument unless is 'x'"):
            neurokern.register_layer(Theirs, Ours, unless="x")
        with pytest.raises(ValueError, match="itself"):
            neurokern.register_layer(Theirs, Theirs)
        neurokern.register_layer(Theirs, Ours)
        with pytest.raises(ValueError, match=r"Theirs has a layer already; pass replace=True"):
            neurokern.register_layer(Theirs, Apart)
        with pytest.raises(ValueError, match="already"):
            neurokern.register_layer(torch.nn.Linear, Ours)
        assert neurokern.register_layer(Theirs, Apart, replace=True) is Apart
        with pytest.raises(TypeError, match=r"neurokern\.unpatch"):
            neurokern.unpatch([])


class TestEncoder:
    """torch's fused inference path would pass our layers by."""

    @pytest.fixture
    def encoder(self, seed: int) -> torch.nn.TransformerEncoder:
        torch.manual_seed(seed)
        layer = torch.nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, activation="gelu")
        return torch.nn.TransformerEncoder(layer, 2).eval()

    @pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
    @pytest.mark.parametrize("lengths", [None, [7, 3, 5]], ids=["whole", "padded"])
    def test_evaluation(self, encoder: torch.nn.TransformerEncoder, lengths: list[int] | None) -> None:
        x = torch.randn(3, 7, 16)
        mask = None if lengths is None else torch.arange(7).expand(3, 7) >= torch.tensor(lengths).unsqueeze(1)
        with torch.no_grad():
            expected = encoder(x, src_key_padding_mask=mask)
            neurokern.patch(encoder)
            got = launches_of(lambda: torch.testing.assert_close(encoder(x, src_key_padding_mask=mask), expected))
            assert got.count("layer_norm") == 4
            for other in (copy.deepcopy(encoder), saved(encoder)):
                torch.testing.assert_close(other(x, src_key_padding_mask=mask), expected)
            neurokern.unpatch(encoder)
            assert not launches_of(encoder, x)
            assert torch.equal(encoder(x, src_key_padding_mask=mask), expected)
        assert type(encoder.layers[0]) is torch.nn.TransformerEncoderLayer
        assert encoder.layers[0].activation_relu_or_gelu == 2

    def test_what_reads_parameters_alone_is_left(self, encoder: torch.nn.TransformerEncoder) -> None:
        row = next(r for r in neurokern.report(neurokern.patch(encoder)).rows if r.name.endswith("out_proj"))
        assert (row.taken, row.reason[:12]) == (False, "never called")


def test_sharded_by_fsdp() -> None:
    code = """
        import torch, neurokern
        from torch.distributed.fsdp import FSDPModule, fully_shard

        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
        mesh = torch.distributed.init_device_mesh("cpu", (1,))
        x = torch.randn(3, 4)
        for first in (True, False):  # sharded, then patched; and the other way round
            model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.GELU(), torch.nn.Linear(5, 2))
            expected = model(x)
            if not first:
                neurokern.patch(model)
            for layer in (model[0], model[2], model):
                fully_shard(layer, mesh=mesh)
            before = type(model[0])
            neurokern.patch(model)
            assert isinstance(model[0], FSDPModule) and isinstance(model[0], neurokern.nn.Linear)
            with neurokern.trace() as launches:
                y = model(x)
            torch.testing.assert_close(y, expected)
            assert len([row for row in launches if row.backend == "cpu"]) == 3, launches
            y.sum().backward()
            assert model[0].weight.grad is not None
            assert neurokern.report(model).rows[1].taken
            neurokern.unpatch(model)
            assert isinstance(model[0], FSDPModule) and not isinstance(model[0], neurokern.nn.Linear)
            assert not first or type(model[0]) is before
            torch.testing.assert_close(model(x), expected)
        torch.distributed.destroy_process_group()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class TestReport:
    def model(self) -> torch.nn.Module:
        return torch.nn.Sequential(
            torch.nn.Linear(64, 256), torch.nn.GELU(), torch.nn.BatchNorm1d(1), OwnForward(256, 8), torch.nn.ReLU(True)
        )

    def test_rows(self) -> None:
        model = self.model()
        before = {r.name: (r.kind, r.taken, r.reason) for r in neurokern.report(model).rows}
        assert before["0"] == ("Linear", False, "not patched")
        after = {r.name: (r.kind, r.taken, r.reason) for r in neurokern.report(neurokern.patch(model)).rows}
        assert after == {
            "": ("Sequential", False, "a container"),
            "0": ("Linear", True, ""),
            "1": ("GELU", True, ""),
            "2": ("BatchNorm1d", False, "no layer of ours for torch.nn.BatchNorm1d"),
            "3": ("OwnForward", False, "a forward of its own"),
            "4": ("ReLU", True, ""),
        }

    def test_parametrized(self) -> None:
        layer = neurokern.patch(torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(4, 3)))
        row = neurokern.report(layer).rows[0]
        assert (row.kind, row.taken, row.reason) == ("Linear", True, "parametrized")

    @pytest.mark.parametrize("rich", [True, False])
    def test_equal_rows_are_one_line(self, rich: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        if not rich:
            monkeypatch.setitem(sys.modules, "rich", None)
        else:
            pytest.importorskip("rich")
        model = neurokern.patch(
            torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(300)), torch.nn.Bilinear(2, 2, 2))
        )
        text = str(neurokern.report(model))
        assert len(text.splitlines()) < 12
        line = next(part for part in text.splitlines() if "Linear" in part)
        assert "300" in line
        assert text.splitlines()[-1] == "301 of 302 modules run on our kernels"

    def test_verbose(self, capsys: pytest.CaptureFixture[str]) -> None:
        neurokern.patch(self.model(), verbose=True)
        assert "no layer of ours for torch.nn.BatchNorm1d" in capsys.readouterr().out

    def test_measures(self) -> None:
        model = neurokern.patch(self.model())
        x = torch.randn(200, 1, 64, requires_grad=True)
        hooks = [(dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in model.modules()]
        with neurokern.report(model) as r:
            model(x).sum().backward()
            forward = model(x.detach())
        assert [(dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in model.modules()] == hooks
        assert all(row.calls == 2 and row.seconds > 0 for row in r.rows)
        assert sum(row.share for row in r.rows) == pytest.approx(1)
        assert 0 < r.share < 1
        assert r.share == pytest.approx(sum(row.share for row in r.rows if row.taken))
        assert sum(row.seconds for row in r.rows) < r.seconds
        assert " %" in str(r)
        torch.testing.assert_close(forward, model(x))

    def test_time_is_that_of_the_module_itself(self) -> None:
        """Forward and backward, less what is within; a parent's ops between its children are the parent's."""
        import time

        class Slow(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, x: torch.Tensor, forward: float, backward: float) -> torch.Tensor:
                ctx.backward = backward
                time.sleep(forward)
                return x.clone()

            @staticmethod
            def backward(ctx: Any, g: torch.Tensor) -> Any:
                time.sleep(ctx.backward)
                return g, None, None

        class Child(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return Slow.apply(x, 0.01, 0.02)

        class Parent(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first, self.second = Child(), Child()

            def forward(self, x: torch.Tensor) -> dict[str, list[torch.Tensor]]:
                return {"y": [self.second(Slow.apply(self.first(x), 0.05, 0.06))]}

        model = Parent()
        with neurokern.report(model) as r:
            model(torch.ones(2, requires_grad=True))["y"][0].sum().backward()
        assert [row.seconds for row in r.rows] == pytest.approx([0.11, 0.03, 0.03], abs=0.01)

    def test_an_exception_leaves_no_hooks(self) -> None:
        model = neurokern.patch(self.model())
        with pytest.raises(RuntimeError), neurokern.report(model):
            model(torch.randn(3, 5))
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())

    def test_errors(self) -> None:
        with pytest.raises(TypeError, match=r"neurokern\.report"):
            neurokern.report(3)
        r = neurokern.report(self.model())
        assert r.share is None
        with pytest.raises(RuntimeError, match="measuring already"), r, r:
            pass
