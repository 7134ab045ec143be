"""DTensors: each op's shardings are right, and layers in tensor parallelism run our kernels on their shards."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from neurokern.core.op import OPS
from neurokern.testing import OpSpec
from neurokern.testing.calls import registered_calls
from torch import Tensor

WRITES = {op.name for op in OPS.values() if op.writes}

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")


def shardings(name: str, args: tuple[Any, ...]) -> list[tuple[list[Any], list[Any]]]:
    """What the op of that name may choose from."""
    from neurokern.core.sharding import rules

    return rules()[getattr(torch.ops.neurokern, name)][1](*args)


def local(placement: Any, arg: Any, rank: int) -> Any:
    """The part of one of two processes."""
    if placement is None or placement.is_replicate():
        return arg
    if placement.is_partial():
        return arg * (0.25 + 0.5 * rank)
    return arg.chunk(2, placement.dim)[rank]


def whole(placement: Any, parts: list[Tensor]) -> Tensor:
    """What two processes have made."""
    if placement.is_replicate():
        torch.testing.assert_close(*parts)
        return parts[0]
    return parts[0] + parts[1] if placement.is_partial() else torch.cat(parts, placement.dim)


def test_every_op_has_rules() -> None:
    from neurokern.core.sharding import rules

    packets = [p for op in OPS.values() if not op.writes for p in (op.run, op.run_recorded, op.run_backward)]
    assert {*packets} - {None} == {*rules()}


def test_rules(spec: OpSpec, seed: int) -> None:
    """Run on halves and put together again, each op gives what it gives of the whole."""
    seen: dict[str, int] = {}
    cut = set()
    for name, args in registered_calls(spec, seed, torch.float64):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 4 or name in WRITES:
            continue
        op = getattr(torch.ops.neurokern, name)
        expected = op(*args)
        expected = expected if isinstance(expected, tuple) else (expected,)
        for outputs, inputs in shardings(name, args):
            assert len(outputs) == len(expected)
            assert [p is None for p in inputs] == [not isinstance(a, Tensor) for a in args]
            sizes = [a.shape[p.dim] for p, a in zip(inputs, args, strict=True) if p is not None and p.is_shard()]
            if any(size < 2 for size in sizes):
                continue  # as DTensor does
            cut |= {name} if sizes else set()
            made = [op(*(local(p, a, rank) for p, a in zip(inputs, args, strict=True))) for rank in (0, 1)]
            parts = [m if isinstance(m, tuple) else (m,) for m in made]
            for p, e, *pair in zip(outputs, expected, *parts, strict=True):
                torch.testing.assert_close(
                    whole(p, pair), e, equal_nan=True, msg=lambda m, n=name, p=p: f"{n} {p}: {m}"
                )
    assert cut == set(seen) - WRITES


def test_nobody_imports_it_for_those_who_need_it_not() -> None:
    check = "import sys, neurokern; sys.exit('torch.distributed.tensor' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


@pytest.mark.parametrize("processes", [1, 2])
def test_layers_in_parallel(processes: int) -> None:
    """tests/_parallel.py, once in each process."""
    address = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(processes)}
    script = [sys.executable, str(Path(__file__).with_name("_parallel.py"))]
    running = [
        subprocess.Popen(
            script,
            env={**os.environ, **address, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(processes)
    ]
    said = [p.communicate(timeout=100)[0] for p in running]
    assert [p.returncode for p in running] == [0] * processes, "\n".join(said)
