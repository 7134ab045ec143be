"""Registered ops: schema, fake, output allocation, choice of backend. No gradients here."""

from . import hooks  # noqa: F401  (gives the extension its way to torch's allocator)
