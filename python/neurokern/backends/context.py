"""What holds for the calls of one context, as contextvars have them (a thread, a task): the blocks that change it.

The extension keeps the blocks, for it asks at each call; a block counts where it was entered, and in what was copied
from there, until it is left.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.compiler import is_dynamo_compiling

from .. import _C


class _Anywhere:
    """What holds somewhere in the process: what compiled graphs are guarded by.

    They can't look into the running context; once it holds anywhere they are traced again, and the context asked then.
    """

    def __init__(self) -> None:
        self.strict = False
        self.backends: tuple[str, ...] = ()


anywhere = _Anywhere()
_blocks: Counter[tuple[str | None, bool]] = Counter()  # open, by their backend and whether they are strict


_lock = threading.Lock()


def _count(key: tuple[str | None, bool], by: int) -> None:
    with _lock:
        _blocks[key] += by
        _look()


def _look() -> None:
    anywhere.strict = any(strict for _, strict in +_blocks)
    anywhere.backends = tuple(sorted({_C.process_backend(), *(name for name, _ in +_blocks if name)} - {"auto"}))


def enter(*, backend: str | None = None, strict: bool = False, **changes: Any) -> tuple[Any, Any]:
    """Open a block of the running context (see ``_C.open_block``); `leave` ends it."""
    key = backend, strict
    opened = _C.open_block(backend=backend, strict=strict, **changes)
    _count(key, 1)
    return opened, key


def leave(opened: tuple[Any, Any]) -> None:
    """End the block, from whatever context."""
    block, key = opened
    _C.close_block(block)
    _count(key, -1)


@contextmanager
def block(**changes: Any) -> Iterator[None]:
    """What `enter` changes, within the block."""
    opened = enter(**changes)
    try:
        yield
    finally:
        leave(opened)


@contextmanager
def adopted(outer: Any) -> Iterator[None]:
    """Within the block, a thread that is in none of its own has the settings of ``outer``, of ``_C.captured_block``."""
    before = _C.adopt_block(outer)
    try:
        yield
    finally:
        _C.adopt_block(before)


def set_backend(name: str) -> str:
    """Choose a backend until the end of the innermost block, or for the process; returns the one before."""
    before = _C.set_backend(name)
    if not _C.in_block():
        _look()
    elif name != "auto":  # to the end of the block, and looked for by what is compiled from now on
        anywhere.backends = tuple(sorted({name, *anywhere.backends}))
    return before


def set_process_backend(name: str) -> None:
    """Choose a backend for all contexts, outside of blocks."""
    _C.set_process_backend(name)
    _look()


def _now_strict() -> bool:
    return _C.is_strict()


def _now_backend() -> str:
    return _C.backend()


# dynamo calls these while it traces, and takes the answers for constants
_now_strict._dynamo_marked_constant = _now_backend._dynamo_marked_constant = True  # type: ignore[attr-defined]


def is_strict() -> bool:
    """Whether `strict` holds here."""
    if is_dynamo_compiling():
        return anywhere.strict and _now_strict()
    return _C.is_strict()


def chosen() -> str:
    """The name of the backend that holds here."""
    if is_dynamo_compiling():
        return _now_backend() if anywhere.backends else "auto"
    return _C.backend()
