"""OpSpec: one row for each op, serving correctness, gradients, compilation, layouts and speed."""

from .compare import Profile, mismatch, ulp
from .run import evaluate, expected, judge, nan_filled
from .spec import BadCall, Draw, Maker, OpSpec, Sample, all_specs, spec
from .targets import Target, interpret_without_gpu, targets

__all__ = [
    "BadCall",
    "Draw",
    "Maker",
    "OpSpec",
    "Profile",
    "Sample",
    "Target",
    "all_specs",
    "evaluate",
    "expected",
    "interpret_without_gpu",
    "judge",
    "mismatch",
    "nan_filled",
    "spec",
    "targets",
    "ulp",
]
