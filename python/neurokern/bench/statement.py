"""One statement of the user's, timed on our functions and on torch's: what no suite holds, anyone can measure."""

from __future__ import annotations

import builtins
import statistics
from collections.abc import Iterator, Sequence
from types import CodeType, SimpleNamespace
from typing import Any, NamedTuple

import torch

from ..backends.choice import BACKENDS, backend
from .console import Failure, duration, pick, say, table
from .runner import kernels_of, with_threads
from .timing import FULL, Call, paired, spread


class _Side(NamedTuple):
    """What the names of a statement mean on one side."""

    functional: Any
    layers: Any
    package: Any


class Torchs:
    """torch's functions by the names of ours: `torch.nn.functional` first, then `torch`."""

    def __getattr__(self, name: str) -> Any:
        for place in (torch.nn.functional, torch):
            if hasattr(place, name):
                return getattr(place, name)
        raise AttributeError(
            f"torch has no function {name!r}: give a statement for torch's side with --torch", name=name
        )


def _compiled(what: str, text: str) -> CodeType:
    try:
        return compile(text, f"<{what}>", "exec")
    except SyntaxError as error:
        raise Failure(f"{what} {text!r}: {error.msg}", 2) from None


def _names(code: CodeType) -> Iterator[str]:
    """The global names that code uses, within its functions too."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _known(side: _Side, codes: Sequence[CodeType]) -> dict[str, Any]:
    """What the code is given: the modules, and every name that it uses of a function, a layer or of torch."""
    names: dict[str, Any] = {"torch": torch, "F": side.functional, "nn": side.layers, "neurokern": side.package}
    for name in {n for code in codes for n in _names(code)} - {*names, *dir(builtins)}:
        for place in (side.functional, side.layers, torch):
            try:
                names[name] = getattr(place, name)
                break
            except AttributeError:
                continue
    return names


def _call(setup: CodeType, statement: CodeType, side: _Side, seed: int) -> Call:
    """The statement as a function, after its setup, with variables of its own."""
    names = _known(side, (setup, statement))
    torch.manual_seed(seed)
    exec(setup, names)
    return lambda: exec(statement, names)


def _sides() -> tuple[_Side, _Side]:
    """Ours, and torch's, where `neurokern` has torch's functions and layers, and patches nothing."""
    import neurokern

    same = {name: lambda model: model for name in ("patch", "unpatch")}
    theirs = SimpleNamespace(functional=Torchs(), nn=torch.nn, **same)
    return _Side(neurokern.functional, neurokern.nn, neurokern), _Side(theirs.functional, torch.nn, theirs)


def _explained(error: Exception) -> str:
    """An error of the user's code in one line, with what to do where that is known."""
    text = f"{type(error).__name__}: {error}"
    name = error.name if isinstance(error, NameError) else None
    if name in _sides()[0].functional.NATIVE or name in _sides()[0].layers.NATIVE:
        text = f"torch has no {name}: give a statement for torch's side with --torch"
    elif name:
        text += f"; define it with -s, as in -s '{name} = randn(300, 1000)'"
    return text


def _without_kernels(statement: CodeType, functional: Any) -> str:
    """Why a statement that ran may have run none of our kernels."""
    used = set(_names(statement))
    theirs = sorted(n for n in used - {*functional.NATIVE} if callable(getattr(torch.nn.functional, n, None)))
    if theirs and "torch" not in used:
        return (
            f"none of our kernels ran: {', '.join(theirs)} {'are' if len(theirs) > 1 else 'is'} torch's on both sides"
        )
    return (
        "none of our kernels ran: call them as F.relu(x), nn.Linear(3, 5)(x) or neurokern.patch(model)(x); torch.* "
        "and operators of tensors are torch's on both sides"
    )


def time_statement(
    statement: str,
    setup: Sequence[str] = (),
    instead: str | None = None,
    device: str = "cpu",
    threads: Sequence[int] = (1,),
    chosen: str = "auto",
    seed: int = 0,
) -> list[float]:
    """Time Python code on our functions and on torch's, the two taking turns; print and return the ratios.

    Args:
        statement: where `F` is `neurokern.functional`, `nn` is `neurokern.nn` and `neurokern` the package, then torch's
            in their place. Their functions and layers, and torch's, are known by their bare names, too.
        setup: lines that run once for each side, with the same names and the same random numbers.
        instead: another statement for torch's side.
        device: ``"cpu"`` or ``"cuda"``: where to wait for the work to end; tensors lie where the setup puts them.
        threads: numbers of threads to measure with.
        chosen: backend to run ours on.

    Raises:
        Failure: the code does not compile or raises; no device or backend of that name.
    """
    pick("device", device, ("cpu", "cuda"))
    pick("backend", chosen, ("auto", *BACKENDS))
    before = _compiled("setup", "\n".join(setup))
    sides = list(zip((statement, instead or statement), _sides(), strict=True))
    rows, ratios = [], []
    for count in threads:
        with with_threads(count), backend(chosen):
            try:
                calls = [_call(before, _compiled("statement", text), side, seed) for text, side in sides]
                for call in calls:
                    call()
                kernels = kernels_of(calls[0])
            except Failure:
                raise
            except Exception as error:
                raise Failure(_explained(error)) from error
            found = paired([calls[0]], [calls[1]], device, FULL)
        ratios.append(found.ratio)
        ours, theirs = (duration(statistics.median(side)) for side in (found.ours, found.theirs))
        rows.append((count, ours, theirs, f"{found.ratio:.2f}", f"{spread(found.ratios):.2f}", kernels))
    table(statement, (">threads", ">ours", ">torch", ">ratio", ">spread", "kernels"), rows)
    if not rows[0][-1]:
        say(f"  {_without_kernels(_compiled('statement', statement), sides[0][1].functional)}", "yellow")
    return ratios
