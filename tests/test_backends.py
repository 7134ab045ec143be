"""backend(), trace(), strict() and CPU levels: what is asked for runs, and what ran is shown."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import neurokern
import neurokern.functional as F
import pytest
import torch
from neurokern import _C
from neurokern.testing import Target, targets
from neurokern.testing.targets import LEVELS


class TestBackend:
    def test_unknown_name(self) -> None:
        with pytest.raises(ValueError, match=r"neurokern\.backend: name is 'tpu'"):
            neurokern.backend("tpu")

    def test_context_gives_back(self) -> None:
        assert _C.backend() == "auto"
        with neurokern.backend("cpu"):
            assert _C.backend() == "cpu"
            with neurokern.backend("auto"):
                assert _C.backend() == "auto"
            assert _C.backend() == "cpu"
        assert _C.backend() == "auto"

    def test_gives_back_after_an_error(self) -> None:
        with pytest.raises(KeyError), neurokern.backend("cpu"):
            raise KeyError
        assert _C.backend() == "auto"

    def test_setter(self) -> None:
        neurokern.backend("cpu")
        try:
            assert _C.backend() == "cpu"
        finally:
            neurokern.backend("auto")

    @pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
    def test_cuda_without_a_gpu_says_why(self) -> None:
        with pytest.raises(RuntimeError, match=r"neurokern\.backend: cuda can't run here: \w+"):
            neurokern.backend("cuda")

    def test_a_named_backend_does_not_hand_on(self) -> None:
        """Integers have no kernel: auto goes to torch, a backend by name raises."""
        x = torch.arange(4)
        assert torch.equal(F.relu(x), torch.relu(x))
        with neurokern.backend("cpu"), pytest.raises((RuntimeError, NotImplementedError), match=r"neurokern\."):
            F.relu(x)

    def test_what_was_asked_for_is_what_ran(self, on: Target) -> None:
        x = torch.randn(4, 4, device=on.device, requires_grad=True)
        with neurokern.trace() as launches:
            F.softmax(
                F.linear(F.swiglu(x), torch.randn(3, 2, device=on.device), activation="gelu"), -1
            ).sum().backward()
        assert len(launches) >= 6
        assert {entry.backend for entry in launches} == {on.runs}


class TestTrace:
    def test_forward_and_backward(self) -> None:
        x = torch.randn(8, 8, requires_grad=True)
        with neurokern.trace() as launches:
            F.gelu(x).sum().backward()
        assert [entry.op for entry in launches] == ["unary", "unary_backward"]
        assert all(entry.backend == "cpu" and entry.kernel for entry in launches)

    def test_a_plan_of_a_product(self) -> None:
        with neurokern.trace() as launches:
            F.matmul(torch.randn(64, 64), torch.randn(64, 64))
        assert launches[0].op == "matmul"
        assert launches[0].kernel
        assert launches[0].plan

    def test_reason_of_a_fallback(self) -> None:
        with neurokern.trace() as launches:
            F.relu(torch.arange(3))
        assert launches[0].backend == "torch"
        assert "int64" in launches[0].reason

    def test_nests_and_ends(self) -> None:
        x = torch.randn(4)
        with neurokern.trace() as outer:
            F.relu(x)
            with neurokern.trace() as inner:
                F.tanh(x)
            F.gelu(x)
        F.relu(x)
        assert len(inner) == 1
        assert len(outer) == 3

    def test_is_filled_as_the_block_runs(self) -> None:
        with neurokern.trace() as launches:
            assert len(launches) == 0
            F.relu(torch.randn(2))
            assert len(launches) == 1

    def test_shows_the_level(self, on: Target) -> None:
        if not on.level:
            pytest.skip("levels are the CPU's")
        with neurokern.trace() as launches:
            F.gelu(torch.randn(64))
        assert _C.cpu_level() == on.level
        # a level may inherit an entry of a lower one, and then says so
        assert any(level in launches[0].kernel + launches[0].plan for level in LEVELS)


class TestStrict:
    def test_objects_to_torch(self) -> None:
        with neurokern.strict():
            F.relu(torch.randn(3))
            with pytest.raises(RuntimeError, match=r"neurokern\.relu: would fall back to torch: dtype torch\.int64"):
                F.relu(torch.arange(3))
        F.relu(torch.arange(3))

    def test_nests(self) -> None:
        with neurokern.strict():
            with neurokern.strict():
                pass
            with pytest.raises(RuntimeError, match="fall back"):
                F.linear(torch.arange(4), torch.arange(8).view(2, 4))


class TestLevels:
    def test_names(self) -> None:
        assert _C.cpu_detected() in LEVELS
        with pytest.raises(ValueError, match="expected scalar, avx2"):
            _C.set_cpu_level("sse9")

    def test_the_machine_runs_some(self) -> None:
        running = [t for t in targets() if t.level and t.missing() is None]
        assert running
        assert running[0].level == "scalar"

    @pytest.mark.parametrize("level", LEVELS)
    def test_environment_variable(self, level: str) -> None:
        code = "import neurokern; print(neurokern._C.cpu_level())"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "NEUROKERN_CPU_LEVEL": level},
            capture_output=True,
            text=True,
            check=True,
        )
        # it caps: a level beyond the machine's is the machine's
        assert done.stdout.strip() == min(level, _C.cpu_detected(), key=LEVELS.index)

    def test_environment_variable_of_no_level(self) -> None:
        done = subprocess.run(
            [sys.executable, "-c", "import neurokern; neurokern._C.cpu_level()"],
            env={**os.environ, "NEUROKERN_CPU_LEVEL": "sse9"},
            capture_output=True,
            text=True,
        )
        assert done.returncode != 0
        assert "NEUROKERN_CPU_LEVEL is 'sse9', expected scalar, avx2" in done.stderr


def test_threads_of_the_user(seed: int) -> None:
    """Calls from several threads at once give what one call gives."""
    torch.manual_seed(seed)
    x, w = torch.randn(50, 60), torch.randn(40, 60)
    expected = F.linear(x, w, activation="gelu"), F.softmax(x, -1)
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(20):
            got = F.linear(x, w, activation="gelu"), F.softmax(x, -1)
            if not all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(got, expected, strict=True)):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_data_loader_workers_may_fork() -> None:
    """A forked child computes too: OpenMP's pool of the parent is gone there."""
    code = """
import os, torch, neurokern.functional as F
torch.set_num_threads(2)
x = torch.randn(400, 400)
y = F.linear(x, x)
torch.set_num_threads(1)
pid = os.fork()
if pid == 0:
    os._exit(0 if torch.allclose(F.linear(x, x), y, rtol=1e-4, atol=1e-3) else 3)
assert os.waitpid(pid, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
