"""One entry per op, in the file of its family; what the entries make is in `neurokern.core`."""

from ..core import decompose  # noqa: F401  (torch.export is told of the ops to come)
