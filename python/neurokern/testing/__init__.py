"""OpSpec: one row for each op, serving correctness, gradients, compilation, layouts and speed."""

from .spec import BadCall, Maker, OpSpec, Sample, all_specs, spec

__all__ = ["BadCall", "Maker", "OpSpec", "Sample", "all_specs", "spec"]
