"""What torch.profiler says of our ops: the extension gives it a row for each, as the dispatcher does; FLOPs are here.

Torch counts those of a few ops of its own as it records; ours are counted from the shapes of the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch

# name of a registered op -> what its call counts, from its row: shapes, None where a tensor was left out, and
# parameters, None where torch has no value of them (strings)
FORMULAS: dict[str, Callable[[Sequence[Any]], int]] = {}


def _count(events: Any) -> None:
    for event in events:
        space, _, name = event.name.partition("::")
        if space == "neurokern" and name in FORMULAS and event.input_shapes:
            values = event.concrete_inputs or [None] * len(event.input_shapes)
            row = [shape or value for shape, value in zip(event.input_shapes, values, strict=True)]
            event.flops = FORMULAS[name](row)


def _follow(profile: Any) -> None:
    parse = profile._parse_kineto_results

    @wraps(parse)
    def parse_and_count(self: Any, *args: Any, **keywords: Any) -> Any:
        events = parse(self, *args, **keywords)
        if self.with_flops:
            _count(events)
        return events

    profile._parse_kineto_results = parse_and_count


if hasattr(torch.autograd.profiler.profile, "_parse_kineto_results"):
    _follow(torch.autograd.profiler.profile)
