"""Registered ops: schema, fake, output allocation, choice of backend. No gradients here."""
