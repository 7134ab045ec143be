"""tf32 on CUDA: the answer of torch's own products, whichever of its switches were set, and in which order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import neurokern
import neurokern.functional as F
import pytest
import torch
from neurokern.backends import emulation
from neurokern.core.torch_hooks import allows_tf32


def _set(owner: object, name: str, value: object) -> Callable[[], None]:
    return lambda: setattr(owner, name, value)


MATMUL = torch.backends.cuda.matmul
SWITCHES: dict[str, Callable[[], None]] = {
    **{f"matmul.fp32_precision {p}": _set(MATMUL, "fp32_precision", p) for p in ("tf32", "ieee", "none")},
    **{f"fp32_precision {p}": _set(torch.backends, "fp32_precision", p) for p in ("tf32", "ieee", "bf16", "none")},
    **{f"cudnn.fp32_precision {p}": _set(torch.backends.cudnn, "fp32_precision", p) for p in ("tf32", "none")},
    **{f"allow_tf32 {on}": _set(MATMUL, "allow_tf32", on) for on in (True, False)},
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "highest": lambda: torch.set_float32_matmul_precision("highest"),
}
# what each of them says of products by itself; None: it leaves the answer to the one below
SAYS = {"tf32": "tf32", "ieee": "ieee", "none": None, "bf16": None, "True": "tf32", "False": "ieee",
        "high": "tf32", "medium": "tf32", "highest": "ieee"}  # fmt: skip


def put_back() -> None:
    for name in ("highest", "fp32_precision none", "cudnn.fp32_precision none", "matmul.fp32_precision none"):
        SWITCHES[name]()


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    put_back()
    yield
    put_back()


def expected(names: tuple[str, ...]) -> bool:
    """torch's rule: the product's own word, else CUDA's, else everyone's."""
    levels: dict[str, str | None] = {}
    for name in names:
        level, _, value = name.rpartition(" ")
        if level == "fp32_precision":  # for all: what was said of some is forgotten
            levels.clear()
        place = {"fp32_precision": "all", "cudnn.fp32_precision": "cuda"}.get(level, "matmul")
        levels[place] = SAYS[value]
    return next((levels[p] for p in ("matmul", "cuda", "all") if levels.get(p)), None) == "tf32"


def test_every_order_of_the_switches() -> None:
    for names in itertools.product(SWITCHES, repeat=2):
        put_back()
        for name in names:
            SWITCHES[name]()
        want = MATMUL.fp32_precision == "tf32"
        assert allows_tf32() is want, names
        if all(n.startswith(("matmul", "allow", "high", "medium")) for n in names):
            assert want is expected(names), names


@pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing()))
@pytest.mark.parametrize("name", SWITCHES)
def test_products_follow_each_switch(name: str) -> None:
    a, b = torch.randn(64, 64), torch.randn(64, 64)
    SWITCHES[name]()
    with neurokern.emulate(check=False), neurokern.trace() as launches:
        out = F.matmul(a, b)
    assert ("tf32" in launches[0].kernel) is expected((name,))
    assert (out - a.double() @ b.double()).abs().max() < 0.2


@pytest.mark.triton
@pytest.mark.parametrize("name", SWITCHES)
def test_triton_asks_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    matmul = pytest.importorskip("neurokern.kernels.triton.matmul")

    def stop(problem: matmul.Problem, device: object) -> None:
        raise InterruptedError(problem.precision)

    monkeypatch.setattr(matmul, "config", stop)
    SWITCHES[name]()
    a = torch.randn(16, 16)
    with pytest.raises(InterruptedError, match=f"^{'tf32' if expected((name,)) else 'ieee'}$"):
        matmul.matmul(torch.empty(16, 16), a, a, None, None, None, 0, 0.0, 0.0, 1.0, 0.0)
