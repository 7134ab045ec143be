"""The build backend: scikit-build-core, plus nvcc from PyPI for machines that have none.

pip asks the hooks below what a build needs. Where CUDA is wanted (NEUROKERN_CUDA is not OFF), the machine is Linux on
x86-64 and has no nvcc, they add the wheels of requirements-nvcc.txt, if those can be had at all; else the build goes on
without CUDA and says so.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import util
from pathlib import Path
from typing import Any

from scikit_build_core import build as _build
from scikit_build_core.build import (  # noqa: F401
    build_editable,
    build_sdist,
    build_wheel,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

ROOT = Path(__file__).resolve().parents[1]
Settings = dict[str, Any] | None

# ninja would start two jobs more than there are cores; on two cores the four fight for the caches (3:30 against 2:57)
os.environ.setdefault(
    "CMAKE_BUILD_PARALLEL_LEVEL", str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
)


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    """What scikit-build-core needs, and nvcc where it must be fetched."""
    return [*_build.get_requires_for_build_wheel(config_settings), *nvcc_wheels(config_settings)]


def get_requires_for_build_editable(config_settings: Settings = None) -> list[str]:
    """What scikit-build-core needs, and nvcc where it must be fetched."""
    return [*_build.get_requires_for_build_editable(config_settings), *nvcc_wheels(config_settings)]


def nvcc_wheels(config_settings: Settings = None) -> list[str]:
    """The requirements that bring nvcc, or none when the machine has one, needs none or can't have it."""
    wanted = (config_settings or {}).get("cmake.define.NEUROKERN_CUDA") or os.environ.get("NEUROKERN_CUDA") or "AUTO"
    if str(wanted).upper() == "OFF" or (sys.platform, platform.machine()) != ("linux", "x86_64") or _machine_nvcc():
        return []
    lines = (ROOT / "requirements-nvcc.txt").read_text().splitlines()
    wheels = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not _offered(wheels[0]):
        print("neurokern: no nvcc on this machine nor on PyPI: building without the CUDA kernels", file=sys.stderr)
        return []
    return wheels


def _machine_nvcc() -> list[str]:
    spec = util.spec_from_file_location("neurokern_nvcc", ROOT / "cmake" / "nvcc.py")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.find()


def _offered(requirement: str) -> bool:
    """Whether the package index that pip uses has this release."""
    name, _, version = requirement.partition("==")
    # -I: the isolated build environment has no pip of its own, the interpreter's is asked.
    command = [sys.executable, "-I", "-m", "pip", "index", "versions", name, "--timeout", "10", "--retries", "1"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and version in done.stdout.replace(",", " ").split()
