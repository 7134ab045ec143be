"""Printing: rich tables and progress where rich is installed, plain text where it isn't (`make gpu` may lack it)."""

from __future__ import annotations

import difflib
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


def pick(what: str, name: str, known: Iterable[str]) -> str:
    """The name, if it is a known one.

    Raises:
        Failure: it isn't; the message suggests the nearest.
    """
    names = sorted(known)
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, 1, 0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
    raise Failure(f"no {what} {name!r}; {hint}", 2)


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
