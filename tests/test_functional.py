"""neurokern.functional beside torch.nn.functional: signatures, in place, out=, autocast, repeatability, dtypes."""

from __future__ import annotations

import inspect

import neurokern
import neurokern.functional as F
import pytest
import torch
from neurokern.testing import Maker, OpSpec, Target, all_specs, evaluate
from neurokern.testing import spec as spec_of
from neurokern.testing.run import cotangents
from torch import Tensor

TF = torch.nn.functional

# what inspect can't read of torch's builtins: parameters and defaults as the documentation has them
BUILTIN = {
    "prelu": "(input, weight)",
    "gelu": "(input, approximate='none')",
    "logsigmoid": "(input)",
    "hardshrink": "(input, lambd=0.5)",
    "softshrink": "(input, lambd=0.5)",
    "softplus": "(input, beta=1.0, threshold=20.0)",
    "pixel_shuffle": "(input, upscale_factor)",
    "pixel_unshuffle": "(input, downscale_factor)",
    "channel_shuffle": "(input, groups)",
    "bilinear": "(input1, input2, weight, bias=None)",
    "linear": "(input, weight, bias=None)",
    "relu_": "(input)",
    "threshold_": "(input, threshold, value)",
    "hardtanh_": "(input, min_val=-1.0, max_val=1.0)",
    "elu_": "(input, alpha=1.0)",
    "selu_": "(input)",
    "celu_": "(input, alpha=1.0)",
    "leaky_relu_": "(input, negative_slope=0.01)",
    "rrelu_": "(input, lower=0.125, upper=0.3333333333333333, training=False)",
    "matmul": "(input, other, *, out=None)",
    "bmm": "(input, mat2, out_dtype=None, *, out=None)",
    "mm": "(input, mat2, out_dtype=None, *, out=None)",
    "scaled_dot_product_attention": (
        "(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, *, scale=None, enable_gqa=False)"
    ),
    **dict.fromkeys(
        ("conv1d", "conv2d", "conv3d"), "(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1)"
    ),
    **dict.fromkeys(
        ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
        "(input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1)",
    ),
    "avg_pool1d": "(input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True)",
    **dict.fromkeys(
        ("avg_pool2d", "avg_pool3d"),
        "(input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None)",
    ),
    "adaptive_avg_pool1d": "(input, output_size)",
    "addmm": "(input, mat1, mat2, out_dtype=None, *, beta=1, alpha=1, out=None)",
}
OURS_ALONE = {"attention", "attention_with_kv_cache", "swiglu", "geglu", "reglu", "squared_relu"}
# keyword-only, after torch's own
ADDED = {
    "linear": {"activation", "residual"},
    "multi_head_attention_forward": {"batch_first", "residual"},
    **{name: {"padding_mode", "activation", "residual"} for name in ("conv1d", "conv2d", "conv3d")},
}


def plain(signature: inspect.Signature, without: frozenset[str] | set[str] = frozenset()) -> str:
    """Names, kinds and defaults, without annotations."""
    kept = [p.replace(annotation=p.empty) for p in signature.parameters.values() if p.name not in without]
    return str(inspect.Signature(kept))


@pytest.mark.parametrize("name", sorted(F.NATIVE))
def test_signature_is_torchs(name: str) -> None:
    ours = plain(inspect.signature(getattr(F, name)), ADDED.get(name, frozenset()))
    if name in OURS_ALONE:
        assert ours.startswith(("(input", "(query, key, value, *", "(query, k_cache, v_cache, key=None, value=None, *"))
        return
    try:
        theirs = plain(inspect.signature(getattr(TF, name)))
    except (ValueError, AttributeError):
        theirs = BUILTIN[name]
    if theirs == "(*args, **kwargs)":  # one of two functions, by return_indices
        theirs = plain(inspect.signature(getattr(TF, f"{name}_with_indices")))
    assert ours == theirs
    for extra in ADDED.get(name, ()):
        assert inspect.signature(getattr(F, name)).parameters[extra].kind is inspect.Parameter.KEYWORD_ONLY


def test_other_names_are_torchs() -> None:
    assert F.cross_entropy is TF.cross_entropy
    assert F.dropout is TF.dropout
    assert set(dir(TF)) <= set(dir(F))
    with pytest.raises(AttributeError):
        F.no_such_function  # noqa: B018


INPLACE = [s for s in all_specs() if "inplace" in inspect.signature(s.op).parameters and s.name != "rrelu"]


@pytest.mark.parametrize("spec", INPLACE, ids=lambda s: s.id)
class TestInPlace:
    def test_values_and_gradient(self, spec: OpSpec, on: Target, seed: int) -> None:
        """The same memory, the values of the op out of place, and its gradient."""
        for dtype in (torch.float32, torch.bfloat16):
            make = Maker.seeded(seed, spec.id, "in place", dtype=dtype, device=on.device)
            x, kw = make(6, 11, scale=2), next(iter(spec.samples(make))).kwargs
            g = make(6, 11)
            results = []
            for inplace in (False, True):
                leaf = x.clone().requires_grad_()
                base = leaf * 1
                y = spec.op(base, **kw, inplace=inplace)
                assert (y.data_ptr() == base.data_ptr()) is inplace
                y.backward(g)
                results.append((y.detach(), leaf.grad))
            assert torch.equal(results[0][0], results[1][0])
            torch.testing.assert_close(results[1][1], results[0][1], rtol=0, atol=0)

    def test_returns_its_input_and_counts_the_version(self, spec: OpSpec, on: Target, seed: int) -> None:
        make = Maker.seeded(seed, spec.id, device=on.device)
        kw = next(iter(spec.samples(make))).kwargs
        for strided in (lambda t: t, lambda t: t[:, ::2], lambda t: t.t()):
            x = strided(make(4, 6))
            expected = spec.op(x, **kw)
            before = x._version
            y = spec.op(x, **kw, inplace=True)
            assert y is x
            assert x._version > before
            assert torch.equal(x, expected)

    def test_autograd_notices_what_was_overwritten(self, spec: OpSpec, on: Target, seed: int) -> None:
        """A tensor that an earlier op saved is written to: torch's error, not a wrong gradient."""
        make = Maker.seeded(seed, spec.id, device=on.device)
        kw = next(iter(spec.samples(make))).kwargs
        x = make(5).requires_grad_()
        y = x * 2
        z = y.sin()  # saves y
        spec.op(y, **kw, inplace=True)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            z.sum().backward()

    def test_second_derivative(self, spec: OpSpec, on: Target, seed: int) -> None:
        make = Maker.seeded(seed, spec.id, "second", dtype=torch.float64, device=on.device)
        kw = next(iter(spec.samples(make))).kwargs
        x, seconds = make(40), []
        for inplace in (False, True):
            leaf = x.clone().requires_grad_()
            y = spec.op(leaf * 1.5, **kw, inplace=inplace)
            (g,) = torch.autograd.grad(y.pow(3).sum(), leaf, create_graph=True)
            seconds.append(torch.autograd.grad(g.square().sum(), leaf)[0])
        torch.testing.assert_close(*seconds)

    def test_part_of_a_tensor(self, spec: OpSpec, on: Target, seed: int) -> None:
        """The rest of it keeps its gradient."""
        make = Maker.seeded(seed, spec.id, "part", device=on.device)
        kw = next(iter(spec.samples(make))).kwargs
        x, grads = make(4, 6), []
        for inplace in (False, True):
            leaf = x.clone().requires_grad_()
            whole = leaf * 1
            part = spec.op(whole[:, 1:3], **kw, inplace=inplace)
            if not inplace:
                whole = torch.cat((whole[:, :1], part, whole[:, 3:]), 1)
            whole.square().sum().backward()
            grads.append(leaf.grad)
        torch.testing.assert_close(*grads)

    def test_output_is_scaled_in_place(self, spec: OpSpec, on: Target, seed: int) -> None:
        if spec.name in ("relu", "leaky_relu"):
            pytest.skip("the output tells the gradient, in torch as well")
        make = Maker.seeded(seed, spec.id, "scaled", device=on.device)
        kw = next(iter(spec.samples(make))).kwargs
        x, grads = make(40), []
        for inplace in (False, True):
            leaf = x.clone().requires_grad_()
            spec.op(leaf * 1, **kw, inplace=inplace).mul_(3).sum().backward()
            grads.append(leaf.grad)
        torch.testing.assert_close(*grads)

    def test_a_chain(self, spec: OpSpec, on: Target, seed: int) -> None:
        make = Maker.seeded(seed, spec.id, device=on.device)
        kw = next(iter(spec.samples(make))).kwargs
        x = make(40)
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        spec.op(spec.op(a * 1, **kw, inplace=True) * 2, **kw, inplace=True).sum().backward()
        spec.op(spec.op(b * 1, **kw) * 2, **kw).sum().backward()
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["relu_", "leaky_relu_", "elu_", "selu_", "celu_", "hardtanh_", "rrelu_"])
def test_functions_named_for_being_in_place(name: str, seed: int) -> None:
    x = Maker.seeded(seed, name)(9)
    expected = getattr(F, name[:-1])(x)
    assert getattr(F, name)(x) is x
    assert torch.equal(x, expected)


def test_threshold_in_place(seed: int) -> None:
    x = Maker.seeded(seed, "threshold_")(9)
    expected = F.threshold(x, 0.1, 5.0)
    assert F.threshold_(x, 0.1, 5.0) is x
    assert torch.equal(x, expected)


def test_an_inference_tensor_in_place() -> None:
    with torch.inference_mode():
        x = torch.randn(3)
        F.relu_(x)
    kept = x.clone()
    with pytest.raises(RuntimeError, match=r"neurokern\.silu: .*inference"):
        F.silu(x, inplace=True)
    assert torch.equal(x, kept)


class TestAutocast:
    def test_products_take_autocasts_dtype(self, seed: int) -> None:
        make = Maker.seeded(seed, "autocast")
        x, w, b = make(5, 8).requires_grad_(), make(6, 8).requires_grad_(), make(6)
        with torch.autocast("cpu", torch.bfloat16):
            y, t = F.linear(x, w, b), TF.linear(x, w, b)
            assert F.matmul(x, w.t()).dtype == torch.bfloat16
            assert F.linear(x.double(), w.double()).dtype == torch.matmul(x.double(), w.double().t()).dtype
        assert y.dtype == t.dtype == torch.bfloat16
        torch.testing.assert_close(y, t, rtol=2**-7, atol=2**-6)
        y.float().sum().backward()
        assert x.grad.dtype == w.grad.dtype == torch.float32

    def test_bilinear_keeps_its_dtype(self) -> None:
        args = torch.randn(3, 4), torch.randn(3, 5), torch.randn(2, 4, 5)
        with torch.autocast("cpu", torch.bfloat16):
            y = F.bilinear(*args)
        torch.testing.assert_close(y, TF.bilinear(*args))
        with torch.autocast("cpu", torch.bfloat16), pytest.raises(RuntimeError, match=r"neurokern\.bilinear"):
            F.bilinear(args[0].bfloat16(), *args[1:])

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    def test_result_dtypes_are_torchs(self, dtype: torch.dtype) -> None:
        compared = 0
        for s in all_specs():
            if s.name in OURS_ALONE or s.variant:
                continue
            sample = next(iter(s.samples(Maker.seeded(0, dtype=dtype))))
            args = [a.detach() if isinstance(a, Tensor) else a for a in sample.args]
            with torch.autocast("cpu", torch.bfloat16):
                try:
                    theirs = s.torch(*args, **sample.kwargs).dtype
                except RuntimeError:
                    with pytest.raises(RuntimeError, match=r"neurokern\."):
                        s.op(*args, **sample.kwargs)
                else:
                    compared += 1
                    assert s.op(*args, **sample.kwargs).dtype == theirs, s.id
        assert compared > 30

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
    def test_prelu_takes_autocasts_dtype(self, dtype: torch.dtype) -> None:
        x, w = torch.randn(4, 6, dtype=dtype, requires_grad=True), torch.rand(6, requires_grad=True)
        found = []
        for f in (F.prelu, TF.prelu):
            with torch.autocast("cpu", torch.bfloat16):
                y = f(x, w)
            assert y.dtype == torch.bfloat16
            found.append((y, *torch.autograd.grad(y.sum(), (x, w))))
        torch.testing.assert_close(*found, rtol=2**-7, atol=2**-7)


def test_bitwise_repeatable(spec: OpSpec, on: Target, seed: int) -> None:
    """The same call gives the same bits, output and gradients, whatever ran between."""
    if on.interpreted and spec.name == "linear" and spec.variant:
        pytest.skip("the interpreter is slow: linear without activation stands for its epilogues")
    make = Maker.seeded(seed, spec.id, "repeat", device=on.device)
    for sample in spec.samples(make):
        if not on.takes(sample):
            continue
        g = cotangents(make, spec.torch, sample)
        first = evaluate(spec.op, sample, spec.order, g)
        torch.randn(1000).sort()
        for (name, a), (_, b) in zip(first, evaluate(spec.op, sample, spec.order, g), strict=True):
            same = (a == b) | (a.isnan() & b.isnan())
            assert same.all(), f"{spec.id} on {on.id}, sample '{sample.why}', {name}: {int((~same).sum())} differ"


def test_repeatable_at_every_number_of_threads(seed: int) -> None:
    """The same bits for the same number of threads; nothing is torn when it changes."""
    make = Maker.seeded(seed, "threads")
    x, w = make(300, 500), make(400, 500)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(F.linear(x, w), F.linear(x, w))
            assert torch.equal(F.gelu(x), F.gelu(x))
            torch.testing.assert_close(F.linear(x, w), TF.linear(x, w), rtol=1e-4, atol=1e-4)
    finally:
        torch.set_num_threads(before)


class TestRReLU:
    """Random in training: drawn anew, within bounds, kept for the gradient."""

    def test_training(self) -> None:
        x = (-torch.rand(20_000) - 0.5).requires_grad_()
        y = F.rrelu(x, 0.2, 0.6, training=True)
        factor = (y / x).detach()
        assert factor.min() >= 0.2 - 1e-6
        assert factor.max() <= 0.6 + 1e-6
        assert abs(factor.mean() - 0.4) < 0.005
        assert factor.std() == pytest.approx(0.4 / 12**0.5, rel=0.05)
        y.sum().backward()
        torch.testing.assert_close(x.grad, factor)
        assert not torch.equal(F.rrelu(x, 0.2, 0.6, training=True), y)

    def test_positive_values_pass(self) -> None:
        x = torch.rand(50) + 0.1
        assert torch.equal(F.rrelu(x, training=True), x)

    def test_same_seed_same_draw(self) -> None:
        x = torch.randn(50)
        torch.manual_seed(3)
        a = F.rrelu(x, training=True)
        torch.manual_seed(3)
        assert torch.equal(a, F.rrelu(x, training=True))

    def test_in_place(self) -> None:
        x = torch.randn(50)
        y = F.rrelu(x, training=True, inplace=True)
        assert y is x

    def test_in_place_keeps_what_the_gradient_needs(self) -> None:
        x = (-torch.rand(50) - 0.1).requires_grad_()
        y = F.rrelu(x * 1, training=True, inplace=True)
        y.sum().backward()
        torch.testing.assert_close(x.grad, (y / x).detach())


class TestSubclasses:
    """Tensors that are more than tensors."""

    def test_parameter(self) -> None:
        p = torch.nn.Parameter(torch.randn(3, 3))
        assert type(F.relu(p)) is Tensor

    def test_subclass_keeps_its_class(self) -> None:
        class Mine(Tensor):
            pass

        x = torch.randn(4).as_subclass(Mine)
        assert type(F.relu(x)) is type(torch.relu(x))
        torch.testing.assert_close(F.relu(x), torch.relu(x))

    def test_torch_function_objects(self) -> None:
        class Duck:
            @classmethod
            def __torch_function__(cls, func, types, args=(), kwargs=None):
                return "quack"

        assert F.relu(Duck()) == "quack"
        assert F.linear(Duck(), torch.zeros(2, 2)) == "quack"


@pytest.mark.backends("auto", "cuda", few=False)
def test_no_graph_is_kept_without_need(on: Target) -> None:
    x = torch.randn(3, 3, device=on.device, requires_grad=True)
    with torch.no_grad():
        assert not F.linear(x, x, activation="gelu").requires_grad
    assert not F.gelu(x.detach()).requires_grad
    assert F.gelu(x).grad_fn is not None
    with torch.inference_mode():
        assert F.swiglu(torch.randn(2, 4, device=on.device)).is_inference()


def test_specs_cover_the_public_functions() -> None:
    covered = {s.name for s in all_specs()}
    public = {n for n in F.NATIVE if not n.endswith(("_", "_with_indices"))}  # those are a flag of the others
    others = {"multi_head_attention_forward", "upsample", "upsample_nearest", "upsample_bilinear"}  # made of these
    assert public == covered | others, public ^ covered
    assert spec_of("linear").id == "linear"
    assert neurokern.functional is F


@pytest.mark.parametrize("name", ["relu", "sigmoid", "tanh"])
@pytest.mark.parametrize("compiled", [False, True])
def test_what_was_read_may_be_written_to(name: str, compiled: bool) -> None:
    ours = torch.compile(getattr(F, name), backend="aot_eager") if compiled else getattr(F, name)
    for backend in ("auto", "cpu"):
        x = torch.randn(40, requires_grad=True)
        grads = []
        for f in (ours, getattr(torch, name)):
            h = x * 1
            with neurokern.backend(backend):
                y = f(h)
            h.add_(5)
            grads += torch.autograd.grad(y.sum(), x)
        torch.testing.assert_close(*grads)


@pytest.mark.parametrize("name", ["relu", "sigmoid", "tanh"])
def test_what_was_written_is_kept(name: str) -> None:
    y = getattr(F, name)(torch.randn(40, requires_grad=True))
    y.detach().mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_gradients_of_gradients_in_a_batch_and_forwards(name: str, dtype: torch.dtype) -> None:
    x, found = torch.randn(9).to(dtype).requires_grad_(), []
    for f in (getattr(F, name), getattr(torch, name)):
        y = f(x)
        batch = torch.autograd.grad(y, x, torch.eye(9, dtype=dtype), is_grads_batched=True, retain_graph=True)[0]
        with torch.autograd.forward_ad.dual_level():
            g = torch.autograd.forward_ad.make_dual(torch.ones(9, dtype=dtype), torch.full((9,), 3.0, dtype=dtype))
            tangent = torch.autograd.forward_ad.unpack_dual(torch.autograd.grad(y, x, g)[0]).tangent
        found.append((batch, tangent))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("name", ["gelu", "tanh", "sigmoid", "softplus", "relu"])
def test_third_derivatives(name: str) -> None:
    x, thirds = torch.randn(7, dtype=torch.float64, requires_grad=True), []
    for f in (getattr(F, name), getattr(torch, name, None) or getattr(TF, name)):
        y = f(x).pow(2).sum()
        for _ in range(4):
            (g,) = torch.autograd.grad(y, x, create_graph=True)
            y = g.sum()
        thirds.append(g)
    torch.testing.assert_close(*thirds)
