"""The judge judged: slightly wrong kernels are found, and right ones are not blamed."""

from __future__ import annotations

import dataclasses

import neurokern
import pytest
import torch
from neurokern.core.op import Op
from neurokern.testing import Maker, OpSpec, Sample, Target, expected, judge, nan_filled, spec, targets, ulp
from neurokern.testing.spec import all_specs, mixed
from torch import Tensor


def flaws(s: OpSpec, f, dtype: torch.dtype = torch.float32, seed: int = 0) -> list[str]:
    """What the suite says of `f` in place of the op."""
    flawed = dataclasses.replace(s, op=f)
    for want in expected(s, dtype, "cpu", seed, 1):
        if wrong := judge(flawed, want, 1):
            return wrong
    return []


IMPORTED = torch.rand(3)


def test_torchs_own_generator_starts_from_the_seed_and_the_name(seed: int, request: pytest.FixtureRequest) -> None:
    drawn = torch.rand(3)
    for node, values in ((request.node, drawn), (request.node.getparent(pytest.Module), IMPORTED)):
        generator = torch.Generator().manual_seed(mixed(seed, node.nodeid))
        torch.testing.assert_close(values, torch.rand(3, generator=generator), rtol=0, atol=0)


class Off(torch.autograd.Function):
    """An identity that changes its output, its gradient, or both."""

    @staticmethod
    def forward(ctx, x: Tensor, change, backward) -> Tensor:
        ctx.backward_change = backward
        return change(x)

    @staticmethod
    def backward(ctx, g: Tensor):
        return ctx.backward_change(g), None, None


def same(t: Tensor) -> Tensor:
    return t.clone()


def one_wrong(t: Tensor) -> Tensor:
    """The last element off by eight units in the last place."""
    t = t.clone(memory_format=torch.contiguous_format)
    if t.numel():
        t.view(-1)[-1] *= 1 + 16 * torch.finfo(t.dtype).eps
        t.view(-1)[-1] += torch.finfo(t.dtype).tiny
    return t


def unwritten(t: Tensor) -> Tensor:
    out = torch.empty_like(t, memory_format=torch.contiguous_format)
    if t.numel() > 1:
        out.view(-1)[:-1] = t.reshape(-1)[:-1]
    return out


def as_bf16(t: Tensor) -> Tensor:
    return t.bfloat16().to(t.dtype)


@pytest.mark.parametrize("name", ["relu", "silu", "softmax", "linear", "linear-relu", "glu"])
class TestFinds:
    @pytest.mark.parametrize("change", [one_wrong, unwritten, as_bf16, lambda t: t * (1 + 2.0**-12)])
    def test_a_wrong_output(self, name: str, change) -> None:
        s = spec(name)
        assert flaws(s, lambda *a, **k: Off.apply(s.torch(*a, **k), change, same))

    @pytest.mark.parametrize("change", [one_wrong, as_bf16, lambda t: t * (1 + 2.0**-12), torch.zeros_like])
    def test_a_wrong_gradient(self, name: str, change) -> None:
        s = spec(name)
        assert flaws(s, lambda *a, **k: s.torch(Off.apply(a[0], same, change), *a[1:], **k))

    @pytest.mark.slow
    def test_in_every_dtype(self, name: str) -> None:
        s = spec(name)
        for dtype in s.dtypes:
            far = 1 + 16 * torch.finfo(dtype).eps
            assert flaws(s, lambda *a, far=far, **k: s.torch(*a, **k) * far, dtype), dtype

    @pytest.mark.slow
    def test_nothing_in_torch_itself(self, name: str) -> None:
        s = spec(name)
        for dtype in s.dtypes:
            # torch's float64 vector and scalar code disagree with one another where a result underflows (silu at -708)
            if dtype != torch.float64:
                assert not flaws(s, s.torch, dtype)


def test_nan_and_infinity_in_the_wrong_place() -> None:
    s = spec("relu")
    assert flaws(s, lambda x, **k: torch.where(x.isnan(), 0.0, torch.relu(x)))
    assert flaws(s, lambda x, **k: torch.relu(x).clamp(max=torch.finfo(x.dtype).max))


def test_a_constant_in_a_dtype_of_few_digits() -> None:
    """A sigmoid that is 0.5 throughout is within 64 units in the last place of 1 + |y| in bfloat16."""
    assert flaws(spec("sigmoid"), lambda x, **k: torch.full_like(x, 0.5) + 0 * x, torch.bfloat16)


@pytest.mark.parametrize("name", ["celu", "hardsigmoid"])
def test_float64_of_float32s_digits(name: str) -> None:
    s = spec(name)
    assert flaws(s, lambda x, **k: s.torch(x.float(), **k).double(), torch.float64)


def test_a_tie_with_another_derivative() -> None:
    """A ReLU whose gradient at 0 is 1."""
    assert flaws(spec("relu"), lambda x, **k: torch.where(x >= 0, x, 0.0 * x.detach()))


def test_a_softmax_of_the_wrong_dimension() -> None:
    assert flaws(spec("softmax"), lambda x, dim: torch.softmax(x, 0))


def test_one_term_missing_of_a_long_sum() -> None:
    s = spec("linear")
    assert flaws(s, lambda x, w, b=None: torch.nn.functional.linear(x[..., :-1], w[:, :-1], b))


def test_new_memory_is_nan() -> None:
    with nan_filled():
        for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
            x = torch.zeros(5, dtype=dtype)
            assert torch.empty_like(x).isnan().all()
            assert x.new_empty((2, 3)).isnan().all()
    assert not torch.are_deterministic_algorithms_enabled()


def nodes(t: Tensor) -> set[str]:
    """The names of the autograd nodes that made t."""
    found, ahead = set(), [t.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is not None:
            found.add(type(node).__name__)
            ahead += [n for n, _ in node.next_functions]
    return found


@pytest.mark.parametrize("target", [t for t in targets() if t.missing() is None], ids=lambda t: t.id)
def test_the_suite_judges_the_call_in_c(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a spec calls goes the way of users' calls on every target, with and without a gradient: no other is open."""

    def shut(op: Op, args: object) -> str:
        raise AssertionError(f"{op.name} went the long way")

    monkeypatch.setattr(Op, "called", shut)
    with target.active():
        with pytest.raises(AssertionError, match="went the long way"):
            neurokern.functional.relu(torch.arange(3))
        for s in all_specs():
            sample = next(iter(s.samples(Maker.seeded(0, s.id, device=target.device))))
            if s.order > 0:
                args = [a.clone().requires_grad_() if isinstance(a, Tensor) else a for a in sample.args]
                out = s.op(*args, **sample.kwargs)
                assert any(name.startswith("Direct") for name in nodes(out)), (s.id, nodes(out))
            with torch.no_grad():
                s.op(*sample.args, **sample.kwargs)


def test_a_fault_without_a_gradient_alone_is_found() -> None:
    """Where nothing is recorded, other kernels run."""
    for s in map(spec, ("relu", "linear-gelu")):
        assert flaws(s, lambda *a, s=s, **k: (1 if a[0].requires_grad else 1 + 2.0**-12) * s.torch(*a, **k))
        assert not flaws(s, s.torch)


def test_every_spec_has_samples_for_targets_of_few() -> None:
    for s in all_specs():
        chosen = [sample for sample in s.samples(Maker.seeded(0)) if sample.chosen]
        assert any(not sample.heavy and sample.args[0].numel() for sample in chosen), s.id


def test_targets_refuse_to_hand_a_call_to_torch() -> None:
    """Else torch would be judged by itself."""
    for target in targets():
        if target.missing() is None:
            with target.active(), pytest.raises(RuntimeError, match="int64"):
                neurokern.functional.relu(torch.arange(3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_variance_that_cancels_is_refused(dtype: torch.dtype) -> None:
    """The mean square less the squared mean keeps no digit where the mean is many deviations."""

    def cancels(x: Tensor, shape: list[int], weight=None, bias=None, eps: float = 1e-5) -> Tensor:
        dims = tuple(range(-len(shape), 0))
        mean = x.mean(dims, keepdim=True)
        y = (x - mean) * (x.square().mean(dims, keepdim=True) - mean.square() + eps).rsqrt()
        y = y if weight is None else y * weight
        return y if bias is None else y + bias

    assert flaws(spec("layer_norm"), cancels, dtype)


def test_ulp() -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        info = torch.finfo(dtype)
        x = torch.tensor([1.0, 1.5, 2.0, 0.75, info.tiny, 0.0, info.max], dtype=torch.float64)
        unit = torch.tensor([1, 1, 2, 0.5, info.tiny, info.tiny], dtype=torch.float64) * info.eps
        assert torch.equal(ulp(x, dtype)[:6], unit)
        assert torch.equal(
            x.to(dtype)[:1].double() + unit[:1], torch.nextafter(x[:1].to(dtype), 2 * x[:1].to(dtype)).double()
        )


def test_values_depend_on_seed_and_name() -> None:
    a, b = Maker.seeded(1, "x")(4), Maker.seeded(2, "x")(4)
    assert not torch.equal(a, b)
    assert not torch.equal(a, Maker.seeded(1, "y")(4))
    assert torch.equal(a, Maker.seeded(1, "x")(4))
    assert isinstance(Sample("why", ()).kwargs, dict)
