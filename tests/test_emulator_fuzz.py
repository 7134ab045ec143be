"""Mangled PTX is loaded or refused, and no crash; a minute of it: ``python -m neurokern.testing.fuzz``."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
from neurokern.backends import emulation
from neurokern.testing import fuzz

pytestmark = pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing()))


@pytest.mark.parametrize("which", range(len(fuzz.BODIES)))
def test_mangled_text_is_an_error_and_no_crash(which: int, seed: int) -> None:
    """Bytes and tokens of a valid module, changed at random: each is loaded or refused."""
    generator = np.random.default_rng(seed + which)
    text = fuzz.texts()[which]
    assert fuzz.load(text) == 0
    codes = [fuzz.load(fuzz.mangled(text, generator)) for _ in range(1000)]
    assert set(codes) <= set(fuzz.EXPECTED)
    assert 200 < sum(c != 0 for c in codes) < 1000, f"seed {seed}"


def test_the_command() -> None:
    """The same seed gives the same texts; it says how many there were."""
    command = [sys.executable, "-m", "neurokern.testing.fuzz", "--seconds", "1", "--seed", "5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("seed 5;")
    assert int(re.search(r"(\d+) texts, \d+ refused, 0 with", done.stdout)[1]) > 50
    one, two = ([fuzz.mangled(fuzz.texts()[0], np.random.default_rng(5)) for _ in range(3)] for _ in range(2))
    assert one == two
