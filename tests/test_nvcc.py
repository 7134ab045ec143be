"""cmake/nvcc.py, by which the build finds and runs nvcc: with a compiler that only writes down what it is asked."""

from __future__ import annotations

import importlib.util
import json
import re
import stat
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "cmake" / "nvcc.py"
pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="not in a checkout")

# `--version` answers; a compilation counts itself in $0.runs and copies its last argument, the source, to -o's file.
COMPILER = """#!/bin/sh
if [ "$1" = --version ]; then echo "made up"; exit; fi
echo run >> "$0.runs"
for last; do :; done
while [ "$1" != -o ]; do shift; done
grep -q broken "$last" && { echo "error: $last is broken"; exit 3; }
echo "ptxas info    : Compiling entry function 'k' for 'sm_90a'"
cp "$last" "$2"
"""


@pytest.fixture
def nvcc() -> ModuleType:
    spec = importlib.util.spec_from_file_location("neurokern_nvcc_under_test", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kernel that includes a header that includes another, in a folder whose name make would misread."""
    top = tmp_path / "a b $x #1"
    (top / "tile").mkdir(parents=True)
    (top / "kernel.cu").write_text('#include "tile/one.h"\n#include <cuda_fp16.h>\nkernel\n')
    (top / "tile" / "one.h").write_text('  #  include "two.h"\n')
    (top / "tile" / "two.h").write_text("two\n")
    compiler = top / "nvcc"
    compiler.write_text(COMPILER)
    compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("NEUROKERN_CUDA_CACHE", str(tmp_path / "cache"))
    return top


def compile_kernel(nvcc: ModuleType, tree: Path, *arguments: str) -> int:
    return nvcc.main(
        ["compile", str(tree / "nvcc"), str(tree / "kernel.cu"), str(tree / "out" / "k"), "--", *arguments]
    )


def runs(tree: Path) -> int:
    return len((tree / "nvcc.runs").read_text().split())


def test_dependencies_are_what_make_reads(nvcc: ModuleType, tree: Path) -> None:
    assert compile_kernel(nvcc, tree) == 0
    rule = (tree / "out" / "k.d").read_text().rstrip("\n")
    names = re.findall(r"(?:\\.|[^\\ ])+", rule)
    plain = [re.sub(r"\\(.)", r"\1", n).replace("$$", "$") for n in names]
    assert plain == [f"{tree}/out/k.fatbin:", *(f"{tree}/{n}" for n in ("kernel.cu", "tile/one.h", "tile/two.h"))]
    assert not re.search(r"(?<!\\)#|(?<!\$)\$(?!\$)", rule)


def test_what_was_compiled_before_is_taken_from_the_cache(
    nvcc: ModuleType, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compile_kernel(nvcc, tree, "-O3") == 0
    made = [tree / "out" / f"k.{ending}" for ending in ("fatbin", "resources.txt")]
    first = [path.read_text() for path in made]
    for path in made:
        path.unlink()
    assert compile_kernel(nvcc, tree, "-O3") == 0
    assert runs(tree) == 1
    assert [path.read_text() for path in made] == first

    changes = {
        "another flag": lambda: compile_kernel(nvcc, tree, "-O2"),
        "an inner header": lambda: (tree / "tile" / "two.h").write_text("2\n"),
        "flags that nvcc reads itself": lambda: monkeypatch.setenv("NVCC_APPEND_FLAGS", "-g"),
        "no cache": lambda: monkeypatch.setenv("NEUROKERN_CUDA_CACHE", "off"),
    }
    for number, (what, change) in enumerate(changes.items(), 2):
        change()
        assert compile_kernel(nvcc, tree, "-O2") == 0
        assert runs(tree) == number, what


def test_a_failed_compilation_says_why_and_is_not_kept(
    nvcc: ModuleType, tree: Path, capfd: pytest.CaptureFixture
) -> None:
    (tree / "kernel.cu").write_text("broken\n")
    assert compile_kernel(nvcc, tree) == 3
    assert "kernel.cu is broken" in capfd.readouterr().err
    assert compile_kernel(nvcc, tree) == 3
    assert runs(tree) == 2


def test_the_named_compiler_comes_first(nvcc: ModuleType, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVCC", str(tree / "nvcc"))
    monkeypatch.setenv("CUDACXX", str(tree / "missing"))
    found = nvcc.find()
    assert found[0] == str(tree / "nvcc")
    assert len(set(found)) == len(found)


def test_report_of_ptxas(nvcc: ModuleType) -> None:
    """Two architectures of a kernel; what a function that it calls spills is its callee's."""
    text = """ptxas info    : Compiling entry function 'k' for 'sm_80'
ptxas info    : Function properties for k
    16 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 16 bytes stack, 2048 bytes smem, 400 bytes cmem[0]
ptxas info    : Compiling entry function 'k' for 'sm_90a'
ptxas info    : Function properties for helper
    8 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads
ptxas info    : Function properties for k
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 32 registers, used 0 barriers
"""
    old, new = nvcc.parse(text)
    assert old == {"kernel": "k", "arch": "sm_80", "registers": 40, "stack": 16, "spill_stores": 12, "spill_loads": 8,
                   "shared": 2048}  # fmt: skip
    assert (new["arch"], new["registers"], new["shared"], new["spill_stores"]) == ("sm_90a", 32, 0, 0)
    assert new["callees"] == {"helper": {"stack": 8, "spill_stores": 4, "spill_loads": 4}}


def test_what_the_driver_side_is_told(nvcc: ModuleType, tree: Path) -> None:
    """The toolkit's version, as nvcc says it; the architectures of each fatbin, and those of a file for one alone."""
    (tree / "nvcc").write_text("#!/bin/sh\necho 'Cuda compilation tools, release 14.2, V14.2.7'\n")
    lines = {"f_x": ("sm_80", "sm_90a"), "f_x_sm90a": ("sm_90a",), "f_empty": ()}
    for name, arches in lines.items():
        text = "".join(f"ptxas info    : Compiling entry function 'k' for '{a}'\n" for a in arches)
        (tree / f"{name}.resources.txt").write_text(text)
    records = [str(tree / f"{name}.resources.txt") for name in lines]
    assert nvcc.main(["collect", str(tree / "resources.json"), str(tree / "nvcc"), "80", *records]) == 0
    assert (tree / "build.txt").read_text() == "nvcc 14.2\nptx 80\nf_empty 80\nf_x 80 80 90a\nf_x_sm90a 90a 90a\n"
    assert set(json.loads((tree / "resources.json").read_text())) == set(lines)


def test_both_lists_of_build_tools_pin_the_same_versions() -> None:
    """pip reads pyproject.toml, `make` requirements-dev.txt."""
    text = re.search(r"^requires = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    isolated = re.findall(r'"([^"]+)"', text)
    lines = (ROOT / "requirements-dev.txt").read_text().splitlines()
    assert isolated
    assert [r for r in isolated if r not in lines] == []
