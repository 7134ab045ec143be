"""What makes an entry into an op: registration, the recorded call, the long way. No op's name stands here."""

from . import torch_hooks  # noqa: F401  (gives the extension its way to torch's functions)
