"""One statement of the user's, timed on our functions and on torch's: what no suite holds, anyone can measure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from types import CodeType
from typing import Any

import torch

from ..backends.choice import BACKENDS, backend
from .console import Failure, pick, say, table
from .runner import kernels_of, with_threads
from .timing import FULL, Call, paired, spread


class Torchs:
    """torch's functions by the names of ours: `torch.nn.functional` first, then `torch`."""

    def __getattr__(self, name: str) -> Any:
        for place in (torch.nn.functional, torch):
            if hasattr(place, name):
                return getattr(place, name)
        raise AttributeError(f"torch has no function {name!r}: name what it shall do instead with --torch")


def _compiled(what: str, text: str) -> CodeType:
    try:
        return compile(text, f"<{what}>", "exec")
    except SyntaxError as error:
        raise Failure(f"{what} {text!r}: {error.msg}", 2) from None


def _call(setup: CodeType, statement: CodeType, functional: Any, layers: Any, seed: int) -> Call:
    """The statement as a function, after its setup, with variables of its own."""
    names: dict[str, Any] = {"torch": torch, "F": functional, "nn": layers, "randn": torch.randn}
    torch.manual_seed(seed)
    exec(setup, names)
    return lambda: exec(statement, names)


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
        statement: where `F` is `neurokern.functional` and `nn` is `neurokern.nn`, then torch's.
        setup: lines that run once for each side, with the same names and the same random numbers.
        instead: another statement for torch's side.
        device: whose clock it is, ``"cpu"`` or ``"cuda"``; tensors lie where the setup puts them.
        threads: numbers of threads to measure with.
        chosen: backend to run ours on.

    Raises:
        Failure: the code does not compile or raises; no device or backend of that name.
    """
    import neurokern.functional
    import neurokern.nn

    pick("device", device, ("cpu", "cuda"))
    pick("backend", chosen, ("auto", *BACKENDS))
    before = _compiled("setup", "\n".join(setup))
    sides = [
        (statement, neurokern.functional, neurokern.nn),
        (instead or statement, Torchs(), torch.nn),
    ]
    rows, ratios = [], []
    for count in threads:
        with with_threads(count), backend(chosen):
            try:
                calls = [_call(before, _compiled("statement", text), f, nn, seed) for text, f, nn in sides]
                for call in calls:
                    call()
                kernels = kernels_of(calls[0])
            except Failure:
                raise
            except Exception as error:
                raise Failure(f"{type(error).__name__}: {error}") from error
            found = paired([calls[0]], [calls[1]], device, FULL)
        ratios.append(found.ratio)
        ours, theirs = (statistics.median(side) * 1e6 for side in (found.ours, found.theirs))
        rows.append(
            (count, f"{ours:.3g}", f"{theirs:.3g}", f"{found.ratio:.2f}", f"{spread(found.ratios):.2f}", kernels)
        )
    table(statement, (">threads", ">ours, us", ">torch, us", ">ratio", ">spread", "kernels"), rows)
    if not rows[0][-1]:
        say("  none of our kernels ran: the statement names none of F's functions or nn's layers", "yellow")
    return ratios
