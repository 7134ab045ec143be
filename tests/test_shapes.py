"""Shapes that hypothesis draws, forward and backward, on every backend; a failure is replayed by one line."""

from __future__ import annotations

import os
import threading
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

    count = 2 if on.interpreted or on.few else COUNT

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


@pytest.mark.specs_with("differentiable")
def test_empty_tensors_in_a_new_thread(spec: OpSpec) -> None:
    """A thread's workspace is empty until something has a size: what is summed over nothing is 0 nevertheless."""
    wrong: list[str] = []

    def work() -> None:
        make = Maker.seeded(0, spec.id)
        for sample in spec.samples(make):
            if any(t.numel() == 0 for t in sample.args if isinstance(t, torch.Tensor)):
                wrong.extend(judge(spec, expected_of(spec, sample, make), 1))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not wrong, "\n".join(wrong)
