"""Shapes that hypothesis draws, forward and backward, on every backend; a failure is replayed by one line."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TypeVar

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from neurokern.testing import Maker, OpSpec, Target, judge
from neurokern.testing.run import expected_of

T = TypeVar("T")

# CI draws the same shapes each time; NEUROKERN_SHAPES=fresh draws new ones
FRESH = os.environ.get("NEUROKERN_SHAPES") == "fresh"
COUNT = int(os.environ.get("NEUROKERN_SHAPES_COUNT", "8"))


class Drawn:
    """A `Draw` that asks hypothesis, and remembers the answers."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.answers: list[int] = []

    def integer(self, low: int, high: int) -> int:
        self.answers.append(self.data.draw(st.integers(low, high)))
        return self.answers[-1]

    def choice(self, options: Sequence[T]) -> T:
        return options[self.integer(0, len(options) - 1)]


class Replayed:
    """A `Draw` that gives the answers of NEUROKERN_DRAW."""

    def __init__(self, answers: Iterator[int]) -> None:
        self.given = answers
        self.answers: list[int] = []

    def integer(self, low: int, high: int) -> int:
        self.answers.append(next(self.given))
        return self.answers[-1]

    def choice(self, options: Sequence[T]) -> T:
        return options[self.integer(0, len(options) - 1)]


def check(spec: OpSpec, dtype: torch.dtype, target: Target, seed: int, draw: Drawn | Replayed, node: str) -> None:
    make = Maker.seeded(seed, spec.id, "drawn", dtype=dtype, device=target.device)
    sample = spec.drawn(make, draw)
    wrong = judge(spec, expected_of(spec, sample, make), 1)
    if wrong:
        shapes = ", ".join(f"{list(a.shape)} strides {a.stride()}" for a in sample.args if isinstance(a, torch.Tensor))
        again = ",".join(map(str, draw.answers))
        pytest.fail(
            f"{spec.id} {dtype} on {target.id}: {shapes}, {sample.args[1:] if spec.name == 'softmax' else ''} "
            f"{list(sample.kwargs)}:\n" + "\n".join(wrong) + "\n"
            f"again: NEUROKERN_SEED={seed} NEUROKERN_DRAW={again} python -m pytest '{node}'",
            pytrace=False,
        )


@pytest.mark.specs_with("drawn")
def test_drawn_shapes(spec: OpSpec, on: Target, seed: int, request: pytest.FixtureRequest) -> None:
    node = request.node.nodeid
    dtypes = spec.dtypes
    if replay := os.environ.get("NEUROKERN_DRAW"):
        which, *answers = map(int, replay.split(","))
        draw = Replayed(iter(answers))
        draw.answers = [which]
        check(spec, dtypes[which], on, seed, draw, node)
        return

    # the interpreter takes a second for what a processor does in a microsecond
    count = 2 if on.interpreted else COUNT

    @settings(
        max_examples=count,
        deadline=None,
        derandomize=not FRESH,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @given(st.data())
    def run(data: st.DataObject) -> None:
        draw = Drawn(data)
        check(spec, draw.choice(dtypes), on, seed, draw, node)

    run()
