"""How many threads share a piece of work on the CPU: decided from its length and from how OpenMP's threads wait."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("plans", Path(__file__).parent / "plans" / "library.py")
host = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(host)

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


def threads_for(work: float, most: int, spinning: bool) -> int:
    return host.load_threads().threads_for(ctypes.c_double(work), most, int(spinning))


def spins(policy: str | None, count: str | None) -> bool:
    return bool(host.load_threads().spins(*(None if v is None else v.encode() for v in (policy, count))))


@needs_compiler
@pytest.mark.parametrize(("spinning", "share"), [(True, 4000.0), (False, 10000.0)])
def test_a_thread_for_each_share_from_two_on(spinning, share):
    counts = [threads_for(share * k, 8, spinning) for k in (0.0, 1.0, 1.99, 2.0, 3.5, 8.0, 100.0)]
    assert counts == [1, 1, 1, 2, 3, 8, 8]
    assert threads_for(share * 100, 1, spinning) == 1


@needs_compiler
@pytest.mark.parametrize(
    ("policy", "count", "expected"),
    [
        (None, None, True), ("", "", True), ("active", None, True), ("ACTIVE", None, True),
        ("passive", None, False), ("PASSIVE", None, False), (" Passive ", None, False),
        ("passive", "1000", True), ("active", "0", False), (None, "0", False), (None, "infinity", True),
    ],
)  # fmt: skip
def test_threads_spin_unless_told_otherwise(policy, count, expected):
    assert spins(policy, count) is expected


PLAN = """
import torch, neurokern, neurokern.functional as F
torch.set_num_threads(2)
with neurokern.trace() as launches: F.relu(torch.ones(1 << 17))
print(launches[0].plan)
"""


@pytest.mark.parametrize(("policy", "threads"), [("active", 2), ("passive", 1)])
def test_relu_of_half_a_mebibyte_takes_a_second_thread_that_spins(policy, threads):
    env = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"} | {"OMP_WAIT_POLICY": policy}
    env["NEUROKERN_CPU_LEVEL"] = "avx2"
    found = subprocess.run([sys.executable, "-c", PLAN], env=env, capture_output=True, text=True, check=True)
    assert f"{threads} threads" in found.stdout
