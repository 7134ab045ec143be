"""What runs on our kernels in a model, what doesn't and why, and each module's share of the time."""

from __future__ import annotations

import importlib.util
import io
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

from .fold import is_folded
from .layer_table import is_ours, replaced


@dataclass
class Row:
    """A module of a model.

    Attributes:
        name: its qualified name; "" for the model itself.
        kind: the name of its class.
        taken: whether its forward is ours.
        reason: why it is not ours, or a remark if it is; may be "".
        calls: how often its forward ran while it was measured.
        seconds: its time, forward and backward, without that of its submodules; None: not measured.
        share: seconds as a fraction of those of all rows.
    """

    name: str
    kind: str
    taken: bool
    reason: str
    calls: int = 0
    seconds: float | None = None
    share: float | None = None


class Report:
    """`rows`, one for each module; ``str()`` gives a table that shows equal ones as one line with a count.

    As a context manager it measures what runs inside: the forward of each module, and the gradients of the ops that it
    ran. Its hooks are removed at the end. Hooks keep torch.nn.TransformerEncoderLayer and
    torch.nn.MultiheadAttention from their fused inference path, so their regular path is measured.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        if not isinstance(model, torch.nn.Module):
            raise TypeError(f"neurokern.report: argument model is a {type(model).__name__}, expected a torch.nn.Module")
        self._model = model
        self._clock: _Clock | None = None
        #: seconds of the whole block, of which the model's modules took a part; None: not measured
        self.seconds: float | None = None
        self.rows = [_row(name, module) for name, module in model.named_modules()]

    @property
    def share(self) -> float | None:
        """Our layers' fraction of the modules' time, 0 to 1; None if nothing was measured."""
        if self.seconds is None:
            return None
        return sum(r.share or 0.0 for r in self.rows if r.taken)

    def __enter__(self) -> Report:
        if self._clock is not None:
            raise RuntimeError("neurokern.report: this report is measuring already")
        self.rows = [_row(name, module) for name, module in self._model.named_modules()]
        self._clock = _Clock(self._model)
        return self

    def __exit__(self, *error: object) -> None:
        clock, self._clock = self._clock, None
        assert clock is not None
        self.seconds = clock.stop()
        modules = dict(self._model.named_modules())
        for row in self.rows:
            row.seconds = clock.seconds.get(modules.get(row.name), 0.0)
            row.calls = clock.calls.get(modules.get(row.name), 0)
        total = sum(r.seconds or 0.0 for r in self.rows)
        for row in self.rows:
            row.share = (row.seconds or 0.0) / total if total else 0.0

    def __str__(self) -> str:
        return _drawn(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.rows[0].kind}: {_summary(self)}>"


def report(model: torch.nn.Module) -> Report:
    """What runs on our kernels in ``model``, what doesn't, and why.

        print(neurokern.report(model))
        with neurokern.report(model) as r:  # also measures the time of each module
            model(x).sum().backward()
        print(r, r.share)

    Raises:
        TypeError: model is not a torch.nn.Module.
    """
    return Report(model)


def _row(name: str, module: torch.nn.Module) -> Row:
    kind = type_before_parametrizations(module).__name__
    if is_folded(module):
        return Row(name, kind, True, "folded into the convolution before it")
    if is_ours(module):
        return Row(name, kind, True, "parametrized" if is_parametrized(module) else "")
    taken, reason = replaced(module)
    return Row(name, kind, False, "not patched" if taken is not None else reason)


# ---- measuring ----


def _tensors(value: Any, depth: int = 8) -> Iterator[Tensor]:
    """The tensors in what a module takes or returns."""
    if isinstance(value, Tensor):
        yield value
    elif depth and isinstance(value, Mapping):
        for v in value.values():
            yield from _tensors(v, depth - 1)
    elif depth and isinstance(value, list | tuple):
        for v in value:
            yield from _tensors(v, depth - 1)
    elif depth and is_dataclass(value) and not isinstance(value, type):
        for f in fields(value):
            yield from _tensors(getattr(value, f.name, None), depth - 1)


class _Clock:
    """The time of each module less that of those within it: a stack of who runs, for each thread.

    A gradient is its module's whose forward made its node of the graph: a node is met first on the way back from the
    inputs of a module (then it is of the module around it), or from its outputs.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.seconds: dict[Any, float] = {}
        self.calls: dict[Any, int] = {}
        self._nodes: dict[Any, None] = {}  # kept, for a node's object is its identity
        self._handles: list[Any] = []
        self._of_thread = threading.local()
        self._on_gpu = any(p.is_cuda for p in model.parameters())
        for module in model.modules():
            if not isinstance(module, torch.jit.ScriptModule):
                # ours is first before the forward, and last behind it
                before = module.register_forward_pre_hook(self._before, prepend=True, with_kwargs=True)
                behind = module.register_forward_hook(self._behind, with_kwargs=True, always_call=True)
                self._handles += [before, behind]
        self._start = self._now()

    def stop(self) -> float:
        whole = self._now() - self._start
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._nodes.clear()
        return whole

    def _now(self) -> float:
        if self._on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter()

    def _frames(self) -> list[list[Any]]:
        """[who runs, since when, what those within have taken] of each that runs in this thread."""
        if not hasattr(self._of_thread, "frames"):
            self._of_thread.frames = []
        return self._of_thread.frames

    def _enter(self, who: Any) -> None:
        self._frames().append([who, self._now(), 0.0])

    def _leave(self) -> None:
        frames = self._frames()
        if not frames:  # entered before we measured
            return
        who, since, within = frames.pop()
        took = self._now() - since
        if who is not None:
            self.seconds[who] = self.seconds.get(who, 0.0) + took - within
        if frames:
            frames[-1][2] += took

    def _before(self, module: torch.nn.Module, args: Any, keywords: Any) -> None:
        frames = self._frames()
        started = time.perf_counter()
        self._claim((args, keywords), frames[-1][0] if frames else None)
        self._forget(time.perf_counter() - started)
        self.calls[module] = self.calls.get(module, 0) + 1
        self._enter(module)

    def _behind(self, module: torch.nn.Module, args: Any, keywords: Any, output: Any) -> None:
        self._leave()
        started = time.perf_counter()
        self._claim(output, module)
        self._forget(time.perf_counter() - started)

    def _forget(self, took: float) -> None:
        """Our own time is nobody's."""
        frames = self._frames()
        if frames:
            frames[-1][2] += took
        else:
            self._start += took

    def _claim(self, values: Any, who: Any) -> None:
        """Give the nodes behind these tensors that nobody has yet to ``who``."""
        ahead = [t.grad_fn for t in _tensors(values) if t.grad_fn is not None]
        while ahead:
            node = ahead.pop()
            if node in self._nodes:
                continue
            self._nodes[node] = None
            if who is not None:
                self._handles.append(node.register_prehook(lambda g: self._enter(who)))
                self._handles.append(node.register_hook(lambda gi, go: self._leave()))
            ahead += [n for n, _ in node.next_functions if n is not None]


# ---- printing ----

_COLUMNS = (">count", "class", "ours", "why", ">time", "such as")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _lines(report: Report) -> Iterator[tuple[str, ...]]:
    groups: dict[tuple[str, bool, str], list[Row]] = {}
    for row in report.rows:
        groups.setdefault((row.kind, row.taken, row.reason), []).append(row)

    def weight(rows: list[Row]) -> tuple[float, bool, int]:
        return sum(r.share or 0.0 for r in rows), rows[0].taken, len(rows)

    for (kind, taken, reason), rows in sorted(groups.items(), key=lambda item: weight(item[1]), reverse=True):
        time_ = "" if report.seconds is None else _percent(sum(r.share or 0.0 for r in rows))
        yield str(len(rows)), kind, "yes" if taken else "no", reason, time_, rows[0].name or "the model"


def _summary(report: Report) -> str:
    taken = sum(r.taken for r in report.rows)
    text = f"{taken} of {len(report.rows)} modules run on our kernels"
    if report.seconds is None:
        return text
    inside = sum(r.seconds or 0.0 for r in report.rows)
    return (
        f"{text}, in {_percent(report.share or 0.0)} of the model's time; the model took {1e3 * inside:.1f} ms "
        f"of {1e3 * report.seconds:.1f} ms"
    )


def _drawn(report: Report) -> str:
    drop = () if report.seconds is not None else (_COLUMNS.index(">time"),)
    columns = [c for i, c in enumerate(_COLUMNS) if i not in drop]
    rows = [[c for i, c in enumerate(line) if i not in drop] for line in _lines(report)]
    draw = _with_rich if importlib.util.find_spec("rich") else _plainly
    return f"{draw(columns, rows)}\n{_summary(report)}"


def _with_rich(columns: list[str], rows: list[list[str]]) -> str:
    # here, for it takes a while and few print
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for column in columns:
        table.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    text = io.StringIO()
    Console(file=text, width=140, markup=False).print(table)
    return text.getvalue().rstrip()


def _plainly(columns: list[str], rows: Iterable[list[str]]) -> str:
    lines = [[c.lstrip(">") for c in columns], *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    lines.insert(1, ["-" * w for w in widths])
    return "\n".join(
        "  ".join(
            cell.rjust(w) if c.startswith(">") else cell.ljust(w)
            for cell, w, c in zip(line, widths, columns, strict=True)
        ).rstrip()
        for line in lines
    )
