"""``out_dtype`` of mm, bmm and addmm is torch's affair: its answer, and on a CPU its exception."""

from __future__ import annotations

import neurokern
import neurokern.functional as F
import pytest
import torch

CALLS = {
    "mm": lambda f, x, **k: f(x[0], x[0], **k),
    "bmm": lambda f, x, **k: f(x, x, **k),
    "addmm": lambda f, x, **k: f(x[0], x[0], x[0], beta=2, alpha=3, **k),
}


@pytest.mark.parametrize("name", CALLS)
def test_out_dtype_goes_to_torch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 3, 3)
    call = CALLS[name]
    with pytest.raises(NotImplementedError) as theirs:
        call(getattr(torch, name), x, out_dtype=torch.float64)
    with neurokern.trace() as launches, pytest.raises(NotImplementedError) as ours:
        call(getattr(F, name), x, out_dtype=torch.float64)
    assert str(ours.value) == f"neurokern.{name}: out_dtype has no kernel, and torch says: {theirs.value}"
    assert [launch.backend for launch in launches] == ["torch"]
    with neurokern.strict(), pytest.raises(RuntimeError, match=f"neurokern.{name}: .*out_dtype"):
        call(getattr(F, name), x, out_dtype=torch.float64)
    # where torch has it, all that was given arrives
    monkeypatch.setattr(torch, name, lambda *args, **kwargs: (args, kwargs))
    args, kwargs = call(getattr(F, name), x, out_dtype=torch.float64, out=x)
    assert len(args) == (3 if name == "addmm" else 2)
    assert kwargs.pop("out") is x
    assert kwargs == {"out_dtype": torch.float64, **({"beta": 2, "alpha": 3} if name == "addmm" else {})}
