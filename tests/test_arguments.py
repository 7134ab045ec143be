"""Arguments of the public functions: what torch takes is taken, what is wrong is named; out=."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable

import neurokern.functional as F
import numpy as np
import pytest
import torch
from neurokern.testing import Maker, all_specs
from torch import Tensor
from torch._subclasses import FakeTensorMode

TF = torch.nn.functional

# bounds are around all that is tried
OTHERS = {
    "hardtanh": {"min_val": 0.1, "max_val": 1.5},
    "rrelu": {"lower": 0.1, "upper": 1.5},
    "threshold": {"threshold": 0.5, "value": 1.0},
}
# every parameter of an activation that is a number
NUMBERS = [
    (s.name, p.name)
    for s in all_specs()
    if s.act and s.family == "activation" and not s.variant
    for p in list(inspect.signature(s.op).parameters.values())[1:]
    if p.default is p.empty or type(p.default) in (int, float)
]


class TestOut:
    """torch's rules for out=."""

    def test_values_and_memory(self, seed: int) -> None:
        make = Maker.seeded(seed, "out")
        a, b, c = make(3, 4), make(4, 5), make(3, 5)
        for f, args in ((F.matmul, (a, b)), (F.mm, (a, b)), (F.addmm, (c, a, b))):
            out = torch.full((3, 5), torch.nan)
            address = out.data_ptr()
            assert f(*args, out=out) is out
            assert out.data_ptr() == address
            assert torch.equal(out, f(*args))

    def test_strided_out(self, seed: int) -> None:
        make = Maker.seeded(seed, "out strided")
        a, b = make(3, 4), make(4, 5)
        store = torch.zeros(5, 6)
        F.mm(a, b, out=store[:, ::2].t())
        assert torch.equal(store[:, ::2].t(), F.mm(a, b))
        assert not store[:, 1::2].any()

    def test_out_that_is_an_input(self, seed: int) -> None:
        make = Maker.seeded(seed, "out input")
        a, b = make(4, 4), make(4, 4)
        expected = F.mm(a, b)
        F.mm(a, b, out=a)
        assert torch.equal(a, expected)

    def test_an_out_that_is_none_of_torchs(self) -> None:
        with pytest.raises(TypeError, match=r"neurokern\.mm: argument out is a list"):
            F.mm(torch.randn(2, 3), torch.randn(3, 2), out=[1.0])

    def test_an_out_of_another_shape_is_resized_with_a_warning(self) -> None:
        a, b, out = torch.randn(2, 3), torch.randn(3, 2), torch.empty(7)
        with pytest.warns(UserWarning, match=r"neurokern\.mm: argument out has shape \[7\]"):
            F.mm(a, b, out=out)
        assert torch.equal(out, F.mm(a, b))

    def test_autocast_leaves_out_alone(self) -> None:
        a, b = torch.randn(2, 3), torch.randn(3, 2)
        with torch.autocast("cpu", torch.bfloat16):
            ours, torchs = (mm(a, b, out=torch.empty(2, 2)) for mm in (F.mm, torch.mm))
        torch.testing.assert_close(ours, torchs)  # in float32's tolerance: bfloat16's would be far off

    def test_empty_out_grows(self, seed: int) -> None:
        make = Maker.seeded(seed, "out empty")
        out, args = torch.empty(0), (make(2, 3, 4), make(2, 4, 5))
        F.bmm(*args, out=out)
        torch.testing.assert_close(out, torch.bmm(*args))


class TestSoftmaxArguments:
    def test_dtype_converts_first(self, seed: int) -> None:
        x = Maker.seeded(seed, "softmax dtype", dtype=torch.bfloat16)(3, 5)
        y = F.softmax(x, -1, dtype=torch.float32)
        assert y.dtype == torch.float32
        torch.testing.assert_close(y, TF.softmax(x, -1, dtype=torch.float32))

    @pytest.mark.parametrize("n", range(5))
    def test_no_dim_is_torchs_choice_with_a_warning(self, n: int) -> None:
        x = torch.randn([3] * n)
        for name in ("softmax", "log_softmax", "softmin"):
            with pytest.warns(UserWarning, match="dim"):
                y = getattr(F, name)(x)
            with pytest.warns(UserWarning, match="dim"):
                torch.testing.assert_close(y, getattr(TF, name)(x))

    @pytest.mark.parametrize("name", ["softmax", "log_softmax", "softmin", "glu"])
    def test_dim_of_numpy_or_a_tensor(self, name: str) -> None:
        x = torch.randn(4, 6)
        for dim in (np.int64(1), np.int32(-1), torch.tensor(1)):
            assert torch.equal(getattr(F, name)(x, dim), getattr(F, name)(x, int(dim)))
        for dim in (True, 1.0, "1"):
            with pytest.raises(TypeError, match=rf"neurokern\.{name}: argument dim is"):
                getattr(F, name)(x, dim)
        with pytest.raises(IndexError, match=rf"neurokern\.{name}: argument dim is 10+, expected between"):
            getattr(F, name)(x, 10**15)


class TestNumbers:
    """Parameters are what torch takes for numbers, and what is none is named."""

    @pytest.mark.parametrize("name, parameter", NUMBERS)
    def test_of_other_kinds(self, name: str, parameter: str) -> None:
        x, others = torch.randn(9), {k: v for k, v in OTHERS.get(name, {}).items() if k != parameter}
        call = lambda value: getattr(F, name)(x, **{parameter: value}, **others)  # noqa: E731
        expected = call(0.25)
        for same in (np.float32(0.25), np.float64(0.25), torch.tensor(0.25), torch.tensor(0.25, dtype=torch.bfloat16)):
            assert torch.equal(call(same), expected)
        assert torch.equal(call(1), call(1.0))
        for wrong in ("a", None, [0.2], torch.tensor([0.2]), torch.tensor(0.2, requires_grad=True), np.array([0.2])):
            with pytest.raises(TypeError, match=rf"neurokern\.{name}: argument {parameter} is .*expected a number"):
                call(wrong)

    @pytest.mark.parametrize("parameter", ["alpha", "beta"])
    def test_of_addmm(self, parameter: str) -> None:
        c, a, b = torch.randn(3, 5), torch.randn(3, 4), torch.randn(4, 5)
        expected = torch.addmm(c, a, b, **{parameter: 0.25})
        for same in (np.float32(0.25), torch.tensor(0.25)):
            torch.testing.assert_close(F.addmm(c, a, b, **{parameter: same}), expected)
        for wrong in ("a", None, [0.2]):
            with pytest.raises(TypeError, match=rf"neurokern\.addmm: argument {parameter} is .*expected a number"):
                F.addmm(c, a, b, **{parameter: wrong})

    def test_bounds_without_order(self) -> None:
        x = torch.randn(9)
        for bounds in ((math.nan, 1.0), (-1.0, math.nan)):
            assert F.hardtanh(x, *bounds).isnan().all()
        assert torch.equal(F.hardtanh_(x.clone(), 2.0, 1.0), TF.hardtanh_(x.clone(), 2.0, 1.0))

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_not_finite(self, value: float) -> None:
        with pytest.raises(RuntimeError, match=r"neurokern\.softshrink: argument lambd"):
            F.softshrink(torch.randn(3), value)
        with pytest.raises(RuntimeError, match=r"neurokern\.rrelu: .*upper"):
            F.rrelu(torch.randn(3), 0.1, value)

    def test_other_arguments_of_a_wrong_type(self) -> None:
        with pytest.raises(TypeError, match=r"neurokern\.gelu: argument approximate"):
            F.gelu(torch.randn(3), approximate=None)
        with pytest.raises(TypeError, match=r"neurokern\.rrelu: argument training"):
            F.rrelu(torch.randn(3), training=1)
        with pytest.raises(TypeError, match=r"neurokern\.softmax: argument dtype"):
            F.softmax(torch.randn(3), 0, dtype="float32")


def test_nested_tensors() -> None:
    x, w = torch.nested.nested_tensor([torch.randn(2, 4), torch.randn(3, 4)]), torch.randn(5, 4)
    got = [f(F.relu(x), w).to_padded_tensor(0.0) for f in (F.linear, TF.linear)]
    torch.testing.assert_close(*got)


@pytest.mark.parametrize("f", [F.bmm, F.matmul], ids=["bmm", "matmul"])
def test_products_of_nested_tensors(f) -> None:
    a, b = [torch.randn(2, 4), torch.randn(3, 4)], [torch.randn(4, 5), torch.randn(4, 1)]
    for got, x, y in zip(f(torch.nested.nested_tensor(a), torch.nested.nested_tensor(b)).unbind(), a, b, strict=True):
        torch.testing.assert_close(got, x @ y)


class TestProducts:
    def test_a_bias_that_is_no_tensor(self) -> None:
        for activation in (None, "relu"):
            with pytest.raises(TypeError, match=r"neurokern\.linear: argument bias is a str"):
                F.linear(torch.randn(3, 4), torch.randn(5, 4), "a", activation=activation)

    def test_no_input_of_addmm(self) -> None:
        with pytest.raises(TypeError, match=r"neurokern\.addmm: argument input is a NoneType"):
            F.addmm(None, torch.randn(3, 4), torch.randn(4, 5))

    def test_0d_with_a_gradient(self) -> None:
        for a, b in ((torch.randn(()), torch.randn(4, 4, 4, 4, 4)), (torch.randn(4, 4, 4, 4, 4), torch.randn(()))):
            with pytest.raises(RuntimeError, match=r"neurokern\.matmul: .*shape \[\]"):
                F.matmul(a.requires_grad_(), b)

    def test_a_row_as_bias_of_a_vector(self) -> None:
        x, w, b = torch.randn(4), torch.randn(5, 4), torch.randn(1, 5)
        torch.testing.assert_close(F.linear(x, w, b), TF.linear(x, w, b))


@pytest.mark.parametrize(
    "bias", [torch.ones(5), torch.ones(1), torch.tensor(1.0), torch.ones(3, 5)], ids=["[5]", "[1]", "[]", "[3, 5]"]
)
@pytest.mark.parametrize(
    "like", [torch.empty(0, dtype=torch.int32), torch.empty(0, dtype=torch.complex64), torch.empty(0, device="meta")]
)
def test_bias_where_torch_does_the_product(bias: Tensor, like: Tensor) -> None:
    """Its rules for a bias of another dtype or device are torch's then, whatever the shape."""
    x, w = like.new_ones(3, 4), like.new_ones(5, 4)

    def outcome(linear: Callable[..., Tensor]) -> object:
        try:
            y = linear(x, w, bias)
            return y.shape, y.dtype, y.device
        except RuntimeError:
            return RuntimeError

    assert outcome(F.linear) == outcome(torch.nn.functional.linear)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "softmin", "softplus", "gelu", "sigmoid"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("on", ["", "cpu", "cuda"])
def test_dtypes_under_autocast(name: str, dtype: torch.dtype, device: str, on: str) -> None:
    """Without a GPU: fake tensors know devices that are not there."""
    kwargs = {} if name in ("softplus", "gelu", "sigmoid") else {"dim": 0}
    with FakeTensorMode():
        x = torch.empty(4, dtype=dtype, device=device)
        was = {d: torch.is_autocast_enabled(d) for d in ("cpu", "cuda")}
        try:
            for d in was:
                torch.set_autocast_enabled(d, d == on)
            ours, torchs = (getattr(f, name)(x, **kwargs) for f in (F, TF))
        finally:
            for d, enabled in was.items():
                torch.set_autocast_enabled(d, enabled)
    assert (ours.dtype, ours.device) == (torchs.dtype, torchs.device)
