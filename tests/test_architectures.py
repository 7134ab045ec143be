"""Kernels with instructions of one architecture, from <file>_sm90a.cu to their launch on the devices that have them."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from neurokern import _C
from neurokern.testing import fake_driver as fakes
from neurokern.testing.fake_driver import A100, H100, RTX_5090, fake_driver

ROOT = Path(__file__).parents[1]
CMAKE = ROOT / "cmake"
B200 = ("B200", 10, 0)


def nvcc() -> str | None:
    if not (CMAKE / "nvcc.py").is_file():
        return None
    found = subprocess.run([sys.executable, CMAKE / "nvcc.py", "find"], capture_output=True, text=True, check=True)
    return next(iter(found.stdout.split()), None)


def tool(name: str) -> str | None:
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(fakes.missing() is not None, reason=str(fakes.missing())),
    pytest.mark.skipif(nvcc() is None or not tool("cmake") or not tool("ninja"), reason="no nvcc, cmake or ninja"),
]

PLAIN = """
extern "C" __global__ void __launch_bounds__(128) add(float* x) { x[threadIdx.x] += 1.f; }
"""
# setmaxnreg is what producers and consumers of a wgmma kernel share the register file by
HOPPER = """
extern "C" __global__ void __launch_bounds__(128) add(float* x) {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 168;");
    x[threadIdx.x] += 2.f;
}
"""
PROJECT = """
cmake_minimum_required(VERSION 3.22)
project(tiny LANGUAGES NONE)
find_package(Python REQUIRED COMPONENTS Interpreter)
include(cmake/cuda.cmake)
nk_add_cuda_kernels()
"""


def configured(folder: Path, architectures: str) -> Path:
    """A tree with one family of one kernel and its variant for Hopper; returns the folder of its fatbins."""
    family = folder / "kernels" / "cuda" / "tiny"
    family.mkdir(parents=True)
    (folder / "cmake").symlink_to(CMAKE)
    (folder / "CMakeLists.txt").write_text(PROJECT)
    (family / "add.cu").write_text(PLAIN)
    (family / "add_sm90a.cu").write_text(HOPPER)
    command = [tool("cmake"), "-GNinja", f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}", "-S", folder, "-B", folder / "build",
               f"-DPython_EXECUTABLE={sys.executable}", f"-DNEUROKERN_CUDA_ARCHS={architectures}",
               "-DNEUROKERN_CUDA=ON", f"-DNEUROKERN_NVCC={nvcc()}"]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, text=True)
    return folder / "build" / "cuda"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    out = configured(folder, "80;90a")
    env = {**os.environ, "NEUROKERN_CUDA_CACHE": str(folder / "cache")}
    done = subprocess.run([tool("cmake"), "--build", folder / "build"], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    return out


@contextmanager
def kernels_of(folder: Path) -> Iterator[None]:
    before = _C.cuda_info()["kernel_dir"]
    _C.set_kernel_dir(str(folder))
    try:
        yield
    finally:
        _C.set_kernel_dir(before)


def added(index: int) -> float:
    """What the kernel `add` of the family adds on that device."""
    x = torch.zeros(128)
    _C.launch_kernel("tiny_add", "add", [struct.pack("<Q", x.data_ptr())], (1, 1, 1), (128, 1, 1), index=index)
    assert (x == x[0]).all()
    return float(x[0])


def test_the_build_says_what_is_for_whom(tree: Path) -> None:
    lines = (tree / "build.txt").read_text().splitlines()
    assert lines[1:] == ["ptx 80", "tiny_add 80 80 90a", "tiny_add_sm90a 90a 90a"]
    table = json.loads((tree / "resources.json").read_text())
    assert [(r["kernel"], r["arch"]) for r in table["tiny_add_sm90a"]] == [("add", "sm_90a")]
    assert {r["arch"] for r in table["tiny_add"]} == {"sm_80", "sm_90a"}


def test_each_device_takes_its_own(tree: Path) -> None:
    with kernels_of(tree), fake_driver(A100, H100, RTX_5090, B200) as driver:
        assert [_C.kernel_variant("tiny_add", i) for i in range(4)] == ["tiny_add", "tiny_add_sm90a", *["tiny_add"] * 2]
        assert [added(i) for i in range(4)] == [1, 2, 1, 1]
        names = driver.names()
    assert names.count("cuLibraryLoadData") == 4


def test_a_build_without_the_architecture_has_no_variant(tmp_path: Path) -> None:
    configured(tmp_path, "80")
    rules = (tmp_path / "build" / "build.ninja").read_text()
    assert "tiny_add.fatbin" in rules
    assert "tiny_add_sm90a" not in rules


def test_without_the_pass_the_instruction_is_refused(tree: Path, tmp_path: Path) -> None:
    """Why there is one: ptxas has no such instruction for compute_90, nor for what runs everywhere."""
    source = tmp_path / "add.cu"
    source.write_text(HOPPER)
    command = [sys.executable, CMAKE / "nvcc.py", "compile", nvcc(), source, tmp_path / "add", "--"]
    done = subprocess.run([*command, "-gencode=arch=compute_90,code=sm_90"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "setmaxnreg" in done.stderr


def test_emulated_hopper(tree: Path) -> None:
    """emulate() as well, when its device says that it is one."""
    import neurokern
    from neurokern.backends import emulation

    emulation.set_option("attribute 75", 9)
    try:
        with kernels_of(tree), neurokern.emulate(check=False):
            assert _C.kernel_variant("tiny_add") == "tiny_add_sm90a"
            assert added(0) == 2
    finally:
        emulation.set_option("attribute 75", 8)
