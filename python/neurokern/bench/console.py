"""Printing: rich tables and progress where rich is installed, plain text where it isn't (`make gpu` may lack it)."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

try:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Table

    _console: Any = Console()
    if not _console.is_terminal:
        _console = Console(width=200)  # into a file or a pipe: wide enough that a row stays one line
except ImportError:
    _console = None


class Failure(Exception):
    """A command that failed: its message in one line, its exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


# what people write for names of ours
_MEANT = {
    "gpu": "cuda", "nvidia": "cuda", "x86": "cpu", "host": "cpu", "default": "auto", "double": "f64", "half": "f16",
    "bfloat16": "bf16", "brain": "bf16", **{f"{w}{n}": f"f{n}" for w in ("float", "fp") for n in (16, 32, 64)},
}  # fmt: skip
_FEW = 8  # choices that a message lists all


def pick(what: str, name: str, known: Iterable[str]) -> str:
    """The name, if it is a known one.

    Raises:
        Failure: it isn't; the message suggests what was meant, and lists the choices where they are few.
    """
    names = sorted(known)
    if name in names:
        return name
    low = name.lower().removeprefix("torch.")
    meant = [n for n in (low, _MEANT.get(low)) if n in names] or difflib.get_close_matches(low, names, 1, 0.5)
    hints = [f"did you mean {meant[0]!r}?"] if meant else []
    if len(names) <= _FEW or not meant:
        hints.append(f"{'T' if meant else 't'}here {'are' if len(names) > 1 else 'is'} {', '.join(names)}")
    raise Failure(f"no {what} {name!r}; {' '.join(hints)}", 2)


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them, with three significant digits."""
    if not math.isfinite(seconds):
        return str(seconds)
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9)):
        value = float(f"{abs(seconds) / size:.3g}")
        if value >= 1 or unit == "ns":
            break
    digits = max(0, 3 - len(str(int(value)))) if value else 0
    return f"{'-' if seconds < 0 and value else ''}{abs(seconds) / size if unit == 's' else value:.{digits}f} {unit}"


def roughly(seconds: float) -> str:
    """How long something takes, for people: "about 20 seconds", "about 3 minutes"."""
    if seconds < 50:
        n = max(5, 5 * round(seconds / 5))
        return f"about {n} seconds"
    n = max(1, round(seconds / 60))
    return f"about {n} minute{'s' if n > 1 else ''}"


def say(text: str = "", style: str | None = None) -> None:
    """One line."""
    if _console is None:
        print(text, flush=True)
    else:
        _console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], styles: Sequence[str] = ()) -> None:
    """A table; a column whose name starts with ``>`` is set to the right. `styles` colour the rows."""
    cells = [[str(c) for c in row] for row in rows]
    names = [c.lstrip(">") for c in columns]
    if _console is not None:
        drawn = Table(title=title, title_justify="left", title_style="bold")
        for name, column in zip(names, columns, strict=True):
            drawn.add_column(name, justify="right" if column.startswith(">") else "left", overflow="fold")
        for i, row in enumerate(cells):
            drawn.add_row(*row, style=styles[i] if i < len(styles) else None)
        _console.print(drawn)
        return
    widths = [max(len(r[i]) for r in [names, *cells]) for i in range(len(names))]
    print(f"\n{title}")
    for row in [names, ["-" * w for w in widths], *cells]:
        aligned = (
            c.rjust(w) if k.startswith(">") else c.ljust(w) for c, w, k in zip(row, widths, columns, strict=True)
        )
        print("  ".join(aligned).rstrip(), flush=True)


class _PlainBars:
    """Progress without a terminal: a line for each bar."""

    def add_task(self, text: str, **_: object) -> int:
        print(text, flush=True)
        return 0

    def update(self, *_: object, **__: object) -> None: ...

    def advance(self, *_: object) -> None: ...


@contextmanager
def progress() -> Iterator[Any]:
    """A rich progress display (``add_task``, ``update``, ``advance``), or a plain one; tasks have a ``status``."""
    if _console is None or not _console.is_terminal:
        yield _PlainBars()
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[status]}", style="dim"),
        console=_console,
    ) as bars:
        yield bars
