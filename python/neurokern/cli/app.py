"""What the commands are called, what they take, and their help in plain words."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="neurokern",
    help="Hand-written kernels for neural networks: what this machine has, correctness, speed, training.",
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
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None: ...


@app.command()
def info() -> None:
    """Show the processor, threads, backends (and why one is unavailable) and compiled kernels of this machine."""
    from .info import run

    run()


@app.command()
def check(
    op: Annotated[list[str] | None, typer.Option("--op", help="Only this op (repeat for several).")] = None,
    backend: Annotated[str | None, typer.Option(help="cpu, cuda or triton; default: all that are available.")] = None,
    dtype: Annotated[str | None, typer.Option(help="f32, f64, bf16 or f16; default: all four.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the random inputs; default: a new one.")] = None,
    counters: Annotated[
        bool, typer.Option("--counters", help="Count what each CUDA kernel does on the emulator, instead of comparing.")
    ] = False,
) -> None:
    """Compare every op with float64 on new random inputs, and its error with torch's.

    Takes about two minutes. Exits with 1 when an op is wrong.
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
    family: Annotated[
        str | None, typer.Argument(help="A family, such as models, matmul or softmax; default: all.")
    ] = None,
    suite: Annotated[list[str] | None, typer.Option(help="Only this suite (repeat for several; see --list).")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[str | None, typer.Option(help="Only f32, bf16 or f16.")] = None,
    backend: Annotated[str, typer.Option(help="Backend for our kernels: auto, cpu, cuda or triton.")] = "auto",
    threads: Annotated[str | None, typer.Option(help="CPU threads to measure with, such as 1,2 (the default).")] = None,
    json: Annotated[Path | None, typer.Option(help="Append one JSON line per measurement to this file.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer shapes and repetitions: about six minutes, half of them for models.")
    ] = False,
    enforce: Annotated[bool, typer.Option("--enforce", help="Exit with 1 when a target is missed.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the ratios into this PNG or SVG file.")] = None,
    cases: Annotated[
        bool, typer.Option("--cases", help="Print every case, not only the slowest of each suite.")
    ] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the suites and exit.")] = False,
    minutes: Annotated[float | None, typer.Option(help="Start no new measurement after this many minutes.")] = None,
    compiled: Annotated[
        bool, typer.Option("--compiled", help="Measure models with torch.compile, too (minutes more for each model).")
    ] = False,
    model: Annotated[list[str] | None, typer.Option(help="Only this whole model (repeat for several).")] = None,
) -> None:
    """Measure our kernels against torch, alternating between the two in one run (see benchmarks/protocol.md).

    Whole models come first (about 30 minutes; needs transformers), then single ops (about 25 minutes).
    """
    from ..bench import main as machinery

    if list_:
        machinery.list_suites()
        return
    limit = math.inf if minutes is None else minutes
    machinery.bench(
        machinery.Options(
            family, suite or (), device, dtype, threads, json, quick, enforce, cases, plot, backend, limit, compiled,
            model or (),
        )
    )  # fmt: skip


@app.command("time")
def time_(
    statement: Annotated[str, typer.Argument(help="Python code, such as 'F.relu(x)' or 'layer(x)'.")],
    setup: Annotated[
        list[str] | None,
        typer.Option(
            "--setup", "-s", help="Code that runs first, such as 'x = randn(300, 1000)' (repeat for several lines)."
        ),
    ] = None,
    torch: Annotated[str | None, typer.Option(help="Statement for torch, if not the same one.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda: the device that the work runs on.")] = "cpu",
    threads: Annotated[str, typer.Option(help="CPU threads to measure with, such as 1,2.")] = "1",
    backend: Annotated[str, typer.Option(help="Backend for our kernels: auto, cpu, cuda or triton.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of the random numbers in the setup.")] = 0,
) -> None:
    """Time a statement with our functions and with torch's, alternating between the two.

    F is neurokern.functional on one side and torch.nn.functional on the other; nn is neurokern.nn and torch.nn;
    neurokern.patch(model) patches on our side only. Functions, layers and torch's names work without a prefix, too.
    """
    from ..bench.main import numbers
    from ..bench.statement import time_statement

    time_statement(statement, setup or (), torch, device, numbers(threads), backend, seed)


@app.command()
def demo(
    networks: Annotated[
        list[str] | None,
        typer.Argument(
            help="perceptron, mlp, convolutional_network, residual_network, denoising_autoencoder, dcgan, "
            "vision_transformer, translator, char_transformer; default: all."
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs to train each network for; default: its own number.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the initial weights and the order of batches.")] = 0,
    output: Annotated[
        Path | None, typer.Option(help="Folder for pictures (PNG) by the denoising autoencoder and the DCGAN.")
    ] = None,
) -> None:
    """Train nine networks, of images, text and tables, with our kernels and with torch.nn side by side, and compare.

    Takes about four minutes. Exits with 1 when a test score or agreement misses its target.
    """
    from .demo import run

    run(networks or (), epochs, seed, output)
