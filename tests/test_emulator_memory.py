"""Entering the emulator again and again costs no memory: what was loaded through it stays, once."""

from __future__ import annotations

from pathlib import Path

import neurokern
import neurokern.functional as F
import torch


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_modules_are_loaded_once() -> None:
    def enter() -> None:
        with neurokern.emulate():
            F.softmax(torch.randn(3, 100), -1)
            F.relu(torch.randn(100))

    enter()
    before = resident()
    for _ in range(10):
        enter()
    assert resident() - before < 50e6  # decoding both again would take 60 MB each time
