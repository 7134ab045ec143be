"""How DTensors go through the ops, so that each process runs the kernels on its shards: made of the entries' ``dims``.

An entry names the dims of its tensors: those of one name are cut alike. A name that no output has is summed over, and
the output is partial; gradients are partial where a name of the output is none of the tensor's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from .dims import Names
from .on_import import on_import
from .op import OPS, Op


def _shape(arg: Any) -> Any:
    return getattr(arg, "shape", arg)


def _by_name(inputs: Sequence[Names | None], outputs: Sequence[Names | None], sums: Callable[[Any], bool]) -> list[Any]:
    """The placements (outputs, inputs) that DTensor may choose from, one dim of a mesh at a time.

    None in the place of inputs stands for what is no tensor, in that of outputs for a gradient that nobody wants.

    ``sums``: whether outputs that lack a name are partial. Inputs that lack it are added then, not multiplied.
    """
    from torch.distributed.tensor import Partial, Replicate, Shard

    def placed(names: Names, name: Any, otherwise: Any) -> Any:
        return Shard(names.index(name)) if name in names else otherwise()

    found: list[Any] = [([Replicate()] * len(outputs), [None if t is None else Replicate() for t in inputs])]
    for name in dict.fromkeys(n for t in inputs if t for n in t if n is not None):
        missing = Partial if sums(name) else Replicate
        added = Partial if missing is Partial and all(t is None or name not in t for t in outputs) else Replicate
        made = [Replicate() if t is None else placed(t, name, missing) for t in outputs]
        found.append((made, [None if t is None else placed(t, name, added) for t in inputs]))
    return found


def _forward(op: Op, count: int) -> Callable[..., list[Any]]:
    def shardings(*args: Any) -> list[Any]:
        inputs, outputs, *_ = op.dims(None, *map(_shape, args))
        given: list[Names | None] = [n if a is not None else None for n, a in zip(inputs, args, strict=False)]
        given = given[: op.tensors] + [None] * (len(args) - op.tensors)
        made = (outputs * count)[:count]
        return _by_name(given, made, lambda name: all(name not in t for t in made))

    return shardings


def _backward(op: Op) -> Callable[..., list[Any]]:
    def shardings(*args: Any) -> list[Any]:
        saved = dict(zip([(s.output, s.index) for s in op.saves], args[op.returns :], strict=False))
        tensors = [_shape(saved.get((False, i))) for i in range(op.tensors)]
        rest = args[op.returns + len(op.saves) :]
        inputs, outputs, *gradients = op.dims(_shape(args[0]), *tensors, *rest)
        wants = rest[-1] if op.wants else [True] * op.tensors
        outputs = outputs * (len(op.outputs) or 1)
        given: list[Names | None] = [*outputs[: op.returns]]
        for s in op.saves:
            names = outputs[s.index] if s.output else inputs[s.index]
            given.append(None if saved[s.output, s.index] is None else names)
        made = [n if w else None for n, w in zip((gradients or [inputs])[0], wants, strict=False)]
        return _by_name(given + [None] * len(rest), made, lambda name: name in outputs[0])

    return shardings


def rules() -> dict[Any, tuple[int, Callable[..., list[Any]]]]:
    """For each registered op the number of its tensors, and (arguments) -> the placements of outputs and inputs."""
    made: dict[Any, tuple[int, Callable[..., list[Any]]]] = {}
    for op in OPS.values():
        if op.writes:
            continue
        made[op.run] = op.tensors, _forward(op, op.returns)
        if op.run_recorded is not op.run:
            made[op.run_recorded] = op.tensors, _forward(op, len(op.outputs))
        if op.run_backward is not None:
            made[op.run_backward] = op.returns + len(op.saves), _backward(op)
    return made


def _tell_all(module: ModuleType) -> None:
    from torch.distributed.tensor._op_schema import RuntimeSchemaInfo
    from torch.distributed.tensor.experimental import register_sharding

    propagator = module.DTensor._op_dispatcher.sharding_propagator
    for packet, (tensors, shardings) in rules().items():
        for name in packet.overloads():
            overload = getattr(packet, name)
            register_sharding(overload)(shardings)
            # it takes for parameters that decide the ints alone; ours may be strings, bools and lists, too
            propagator.op_to_schema_info[overload] = RuntimeSchemaInfo(tensors)


on_import("torch.distributed.tensor", _tell_all)
