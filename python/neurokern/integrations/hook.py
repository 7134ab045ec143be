"""What a hook has changed, and how it is put back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Hook:
    """A change that `remove` takes back; as a context manager, at the end of the block."""

    def __init__(self, *undo: Callable[[], Any]) -> None:
        self._undo = list(undo)

    def remove(self) -> None:
        """Put back what was there before. A second call does nothing."""
        while self._undo:
            self._undo.pop()()

    def __enter__(self) -> Hook:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()
