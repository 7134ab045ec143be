"""The command line: ``neurokern info | check | bench | time | demo`` (also ``python -m neurokern``).

Each command lives in a file of its own and is imported when it is called. A command returns normally, or raises
`Failure` to end with one line on standard error and a non-zero exit code.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..bench.console import Failure


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (0: success, 1: failure, 2: wrong usage, 130: interrupted)."""
    try:
        import typer
    except ImportError:
        print("neurokern: the command line needs the packages typer and rich (pip install typer rich)", file=sys.stderr)
        return 1
    from .app import app

    command = typer.main.get_command(app)
    try:
        code = command.main(list(arguments) if arguments is not None else None, "neurokern", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except Failure as failure:
        print(f"neurokern: {failure}", file=sys.stderr)
        return failure.code
    except KeyboardInterrupt:
        return 130
    except OSError as error:  # nowhere to write to
        print(f"neurokern: {error}", file=sys.stderr)
        return 1
    except Exception as error:
        if type(error).__name__ == "Abort":  # Ctrl-C, in older releases of typer
            return 130
        # the parser's own errors, whichever copy of click typer brings: a wrong option, a missing value
        if not hasattr(error, "format_message"):
            raise
        text = " ".join(error.format_message().split())
        called = getattr(getattr(error, "ctx", None), "command_path", "neurokern")
        print(f"neurokern: {text or 'no command given'} (see {called} --help)", file=sys.stderr)
        return 2
