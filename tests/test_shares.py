"""What each family takes of tests and build is counted once, and under the right name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from neurokern.testing import shares

LOG = """# ninja log v7
0\t9000\t1\tCMakeFiles/cpu_avx2.dir/kernels/cpu/matmul/matmul_f32.cpp.o\tolder
0\t1500\t1\tcuda/activation_gated.fatbin\taa
0\t1500\t1\tcuda/activation_gated.resources.txt\taa
100\t350\t1\tCMakeFiles/emulator.dir/Unity/unity_ops_1_cxx.cxx.o\tbb
0\t2000\t2\tCMakeFiles/cpu_avx2.dir/kernels/cpu/matmul/matmul_f32.cpp.o\tcc
2000\t2500\t2\t_C.cpython-311-x86_64-linux-gnu.so\tdd
"""


def test_a_step_counts_once_and_as_it_was_built_last() -> None:
    assert shares.of_build(LOG) == {"matmul": 2.0, "activation": 1.5, "emulator": 0.25, "mechanism": 0.5}


def test_names_of_files() -> None:
    assert shares.family_of("test_direct_products") == "matmul"
    assert shares.family_of("test_emulator_mma") == "emulator"
    assert shares.family_of("test_cuda_activation_plan") == "activation"
    assert shares.family_of("test_walls") == "mechanism"


@pytest.mark.parametrize("workers", [[], ["-n", "1"]], ids=["here", "in a worker"])
def test_the_sums_of_a_run(tmp_path: Path, workers: list[str]) -> None:
    (tmp_path / "conftest.py").write_text(
        "from neurokern.testing import shares\n"
        "shares.WORTH_SAYING = 0\n"
        "def pytest_configure(config): config.pluginmanager.register(shares.Shares())\n"
    )
    (tmp_path / "test_small_products.py").write_text("import time\ndef test_a(): time.sleep(0.21)\n")
    (tmp_path / "test_other.py").write_text("def test_b(): pass\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *workers, str(tmp_path)]
    out = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True).stdout
    rows = [line.split() for line in out.splitlines() if line.endswith(" s") and line.startswith("  ")]
    assert [row[0] for row in rows] == ["matmul", "mechanism"]
    assert 0.2 <= float(rows[0][1]) < 5
    assert float(rows[1][1]) < 0.2
