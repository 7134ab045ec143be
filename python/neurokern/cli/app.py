"""What the commands are called, what they take, and their help in plain words."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="neurokern",
    help="Hand-written kernels for neural networks: what is here, is it right, is it fast, does it train.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        typer.echo(f"neurokern {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None: ...


@app.command()
def info() -> None:
    """Show what this machine offers: processor, threads, backends (and why one is missing), compiled kernels."""
    from .info import run

    run()


@app.command()
def check(
    op: Annotated[list[str] | None, typer.Option("--op", help="Only this op (may be given more than once).")] = None,
    backend: Annotated[str | None, typer.Option(help="cpu, cuda or triton; default: all that can run here.")] = None,
    dtype: Annotated[str | None, typer.Option(help="f32, f64, bf16 or f16; default: all.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the random inputs; default: a fresh one.")] = None,
    counters: Annotated[
        bool, typer.Option("--counters", help="Instead, count what each CUDA kernel does on the emulator.")
    ] = False,
) -> None:
    """Compare every op with float64 on fresh random inputs, and its error with torch's own.

    Ends with a non-zero exit code when an op is wrong.
    """
    from ..bench.console import Failure
    from .check import count, run

    if counters and backend not in (None, "cuda"):
        raise Failure(f"--counters counts what CUDA kernels do, not those of backend {backend!r}", 2)
    if counters:
        count(op or [], dtype, seed)
    else:
        run(op or [], backend, dtype, seed)


@app.command()
def bench(
    family: Annotated[str | None, typer.Argument(help="A family, such as matmul or softmax; default: all.")] = None,
    suite: Annotated[list[str] | None, typer.Option(help="Only this suite (may be given more than once).")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[str | None, typer.Option(help="Only f32, bf16 or f16.")] = None,
    backend: Annotated[str, typer.Option(help="Backend of ours: auto, cpu, cuda or triton.")] = "auto",
    threads: Annotated[str | None, typer.Option(help="Numbers of CPU threads, as in 1,2 (the default).")] = None,
    json: Annotated[Path | None, typer.Option(help="Append one JSON line per case to this file.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer shapes and repetitions: about three minutes.")] = False,
    enforce: Annotated[bool, typer.Option("--enforce", help="Fail when a suite misses its bounds.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the ratios into this PNG or SVG file.")] = None,
    cases: Annotated[bool, typer.Option("--cases", help="Print every case, not only the slowest of a suite.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the suites and leave.")] = False,
    minutes: Annotated[float | None, typer.Option(help="Begin no further case after so many minutes.")] = None,
) -> None:
    """Measure our kernels against torch, the two taking turns in one run (see benchmarks/protocol.md)."""
    from ..bench import main as machinery

    if list_:
        machinery.list_suites()
        return
    limit = math.inf if minutes is None else minutes
    machinery.bench(
        machinery.Options(
            family, suite or (), device, dtype, threads, json, quick, enforce, cases, plot, backend, limit
        )
    )


@app.command("time")
def time_(
    statement: Annotated[str, typer.Argument(help="Python code, as in 'F.relu(x)' or 'layer(x)'.")],
    setup: Annotated[
        list[str] | None,
        typer.Option(
            "--setup", "-s", help="Code that runs before, as in 'x = randn(300, 1000)' (more than once: lines)."
        ),
    ] = None,
    torch: Annotated[str | None, typer.Option(help="Another statement for torch's side.")] = None,
    device: Annotated[str, typer.Option(help="Whose clock: cpu or cuda.")] = "cpu",
    threads: Annotated[str, typer.Option(help="Numbers of CPU threads, as in 1,2.")] = "1",
    backend: Annotated[str, typer.Option(help="Backend of ours: auto, cpu, cuda or triton.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of torch's random numbers in the setup.")] = 0,
) -> None:
    """Time a statement on our functions and on torch's, the two taking turns.

    The code knows torch, randn, F (neurokern.functional, then torch's functions) and nn (neurokern.nn, then torch.nn).
    """
    from ..bench.main import numbers
    from ..bench.statement import time_statement

    time_statement(statement, setup or (), torch, device, numbers(threads), backend, seed)


@app.command()
def demo(
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs for every network, instead of each one's own.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of initial weights and batch order.")] = 0,
) -> None:
    """Train real networks on our kernels and on torch.nn, side by side, and compare.

    Ends with a non-zero exit code when accuracy or agreement misses its bound.
    """
    from .demo import run

    run(epochs, seed)
