"""Wrong calls raise what torch raises, and say what was wrong; calls that torch accepts are accepted."""

from __future__ import annotations

import neurokern
import pytest
import torch
from neurokern.testing import BadCall, Maker, OpSpec


def raised(f, call: BadCall) -> Exception | None:
    # each function gets tensors of its own: one of them may have been written to before the other raises
    args = [
        a.detach().clone().requires_grad_() if isinstance(a, torch.Tensor) and a.requires_grad else a for a in call.args
    ]
    try:
        f(*args, **call.kwargs)
    except Exception as error:
        return error
    return None


def deliberate(error: Exception | None) -> type[Exception] | None:
    """The type of torch's exception; its AttributeErrors are accidents of Python code, where TypeError is right."""
    return TypeError if isinstance(error, AttributeError) else error and type(error)


@pytest.mark.specs_with("bad")
def test_wrong_calls(spec: OpSpec, seed: int) -> None:
    wrong = []
    for call in spec.bad(Maker.seeded(seed, spec.id, "bad")):
        ours = raised(spec.op, call)
        theirs = call.raises or deliberate(raised(spec.torch, call))
        if theirs is None:  # torch goes on (mixed devices, in some releases): so may we, to the same answer
            theirs = type(ours)
        if theirs is type(None):
            with torch.no_grad():
                found = [f(*call.args, **call.kwargs) for f in (spec.op, spec.torch)]
            if len({(t.shape, t.dtype, t.device) for t in found}) > 1:
                wrong.append(f"{call.why}: neither raises, and the answers differ")
            continue
        if ours is None:
            wrong.append(f"{call.why}: nothing raised, torch raises {theirs.__name__}")
            continue
        if type(ours) is not theirs:
            wrong.append(f"{call.why}: {type(ours).__name__} ({ours}), torch raises {theirs.__name__}")
        text = str(ours)
        missing = [w for w in (f"neurokern.{spec.name}", *call.says) if w not in text]
        if missing:
            wrong.append(f"{call.why}: the message lacks {missing}: {text}")
    if wrong:
        pytest.fail(f"{spec.id}:\n" + "\n".join(wrong), pytrace=False)


@pytest.mark.parametrize("kind", [torch.int64, torch.int8, torch.bool, torch.complex64], ids=str)
def test_other_dtypes_do_what_torch_does(spec: OpSpec, kind: torch.dtype, seed: int) -> None:
    """Our kernels know four dtypes: the rest is torch's affair, answer and exception alike, and strict() objects."""
    if not spec.op.__module__.startswith("neurokern.functional"):
        pytest.skip("not a public function")
    make = Maker.seeded(seed, spec.id, kind)
    sample = next(s for s in spec.samples(make) if all(t.numel() for t in s.args if isinstance(t, torch.Tensor)))

    def converted(t):
        return (t * 3).to(kind) if isinstance(t, torch.Tensor) else t

    call = BadCall("", tuple(map(converted, sample.args)), {k: converted(v) for k, v in sample.kwargs.items()})
    theirs = raised(spec.torch, call)
    ours = raised(spec.op, call)
    assert type(ours) is type(theirs), f"{spec.id} {kind}: ours {ours!r}, torch {theirs!r}"
    if theirs is None:
        torch.testing.assert_close(
            spec.op(*call.args, **call.kwargs), spec.torch(*call.args, **call.kwargs), equal_nan=True
        )
        with neurokern.strict(), pytest.raises(RuntimeError, match="neurokern"):
            spec.op(*call.args, **call.kwargs)
    else:
        assert "neurokern." in str(ours)


@pytest.mark.specs_with("layer")
def test_layers_refuse_what_torchs_refuse(spec: OpSpec, seed: int) -> None:
    """0-d input, a list, None."""
    make = Maker.seeded(seed, spec.id)
    ours, theirs, args = spec.layer(make)
    for why, first in (("0-d", make()), ("a list", [1.0, 2.0]), ("None", None)):
        call = BadCall(why, (first, *args[1:]))
        mine, other = raised(ours, call), raised(theirs, call)
        if hasattr(torch.nn, type(ours).__name__) or (mine is None) != (other is None):
            assert (mine and type(mine)) is deliberate(other), (
                f"{type(ours).__name__}, {why}: ours {mine!r}, torch {other!r}"
            )


def test_meta_tensors_take_torchs_way(spec: OpSpec, seed: int) -> None:
    """All arguments on the meta device: the shape of the answer, as torch gives it."""
    if not spec.op.__module__.startswith("neurokern.functional"):
        pytest.skip("not a public function")
    make = Maker.seeded(seed, spec.id, device="meta")
    make_cpu = Maker.seeded(seed, spec.id)
    sample = next(iter(spec.samples(make_cpu)))
    move = lambda t: t.to("meta") if isinstance(t, torch.Tensor) else t  # noqa: E731
    args, kwargs = tuple(map(move, sample.args)), {k: move(v) for k, v in sample.kwargs.items()}
    out = spec.op(*args, **kwargs)
    assert out.device.type == make.device
    assert out.shape == spec.torch(*args, **kwargs).shape


class TestKernelsCheckForThemselves:
    """The extension's functions never trust Python: wrong tensors raise there too."""

    def test_an_output_of_one_address(self) -> None:
        with pytest.raises(RuntimeError, match=r"neurokern\.relu: argument input of shape \[4\] has more than one"):
            neurokern._C.unary_(torch.zeros(1).expand(4), "relu", 0.0, 0.0)

    def test_wrong_shapes(self) -> None:
        with pytest.raises(RuntimeError, match=r"neurokern\.mm: .*\[3, 4\]"):
            neurokern._C.matmul(torch.zeros(2, 5), torch.zeros(3, 4), None, "mm", 1.0, 1.0)

    def test_an_activation_that_is_none(self) -> None:
        with pytest.raises(ValueError, match=r"argument act is 'rleu', expected one of identity, relu"):
            neurokern._C.unary(torch.zeros(2), "rleu", 0.0, 0.0)
        with pytest.raises(TypeError, match="argument act is a int, expected a str"):
            neurokern._C.unary(torch.zeros(2), 1, 0.0, 0.0)

    def test_an_output_that_does_not_tell_the_derivative(self) -> None:
        with pytest.raises(ValueError, match="'gelu', whose output does not tell its derivative"):
            neurokern._C.unary_from_output(torch.zeros(2), "gelu", 0.0, 0.0)

    def test_no_tensor(self) -> None:
        with pytest.raises(TypeError, match="argument input is a list"):
            neurokern._C.unary([1.0, 2.0], "relu", 0.0, 0.0)

    def test_a_dim_out_of_range(self) -> None:
        with pytest.raises(IndexError, match="argument dim is 2, expected between -2 and 1"):
            neurokern._C.softmax(torch.zeros(2, 3), 2, "softmax")

    def test_a_meta_tensor_has_nothing_to_read(self) -> None:
        with pytest.raises(RuntimeError, match=r"neurokern\.relu: argument input"):
            neurokern._C.unary(torch.zeros(2, device="meta"), "relu", 0.0, 0.0)

    def test_numbers_of_arguments(self) -> None:
        with pytest.raises(
            TypeError, match=r"neurokern\.softmax: 2 arguments, expected 3 to 3: softmax\(input: Tensor"
        ):
            neurokern._C.softmax(torch.zeros(2, 3), 1)
