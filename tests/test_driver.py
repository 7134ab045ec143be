"""csrc/driver on devices that are not there: which are used, how kernels are loaded and launched, what errors say."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import neurokern
import pytest
import torch
from neurokern import _C
from neurokern.backends import choice, fall_back
from neurokern.bench import runner
from neurokern.cli import info
from neurokern.testing import fake_driver as fakes
from neurokern.testing.fake_driver import A100, H100, RTX_5090, V100, CudaTensor, FakeDriver, fake_driver

pytestmark = pytest.mark.skipif(fakes.missing() is not None, reason=str(fakes.missing()))
ILLEGAL_ADDRESS = 700


@pytest.fixture(autouse=True)
def _no_context() -> Iterator[None]:
    yield
    CudaTensor.stream = 0x10


def relu(index: int = 0, n: int = 100) -> None:
    x = CudaTensor(torch.randn(n), index)
    y = _C.unary(x, "relu", 0.0, 0.0)
    assert y.index == index
    assert torch.equal(y.host, x.host.relu())


def on(device: str, dtype: torch.dtype = torch.float32) -> SimpleNamespace:
    """What `why_unknown` asks of a tensor."""

    class There(torch.Tensor):
        @property
        def device(self) -> torch.device:  # type: ignore[override]
            return torch.device(device)

    return torch.zeros(2, dtype=dtype).as_subclass(There)


class TestDevices:
    def test_each_for_itself(self) -> None:
        with fake_driver(V100, A100):
            assert choice.BACKENDS["cuda"].missing() is None
            relu(1)
            with pytest.raises(
                RuntimeError, match=r"relu: our CUDA kernels don't run on cuda:0 \(V100\): .* 7\.0.* 8\.0"
            ):
                relu(0)
            assert "7.0" in fall_back.why_unknown(on("cuda:0"))
            assert fall_back.why_unknown(on("cuda:1")) is None
            assert "no device cuda:2" in fall_back.why_unknown(on("cuda:2"))

    def test_none_that_is_new_enough(self) -> None:
        with fake_driver(V100):
            with pytest.raises(RuntimeError, match=r"backend: cuda can't run here: cuda:0 \(V100\): .*7\.0.*8\.0"):
                neurokern.backend("cuda")
            product = CudaTensor(torch.randn(8, 8))
            with pytest.raises(RuntimeError, match=r"linear: our CUDA kernels don't run on cuda:0"):
                _C.linear(product, product, None, None)

    @pytest.mark.parametrize(
        ("device", "version", "runs"),
        [
            (A100, 12090, False),  # machine code is for drivers of the same major version
            (A100, 13000, True),
            (A100, 14010, True),
            (RTX_5090, 13000, True),
        ],
    )
    def test_driver_of_another_version(self, device: tuple[str, int, int], version: int, runs: bool) -> None:
        assert _C.cuda_info()["nvcc"] == "13.0", "the versions here are meant for that one"
        with fake_driver(device, version=version):
            why = choice.BACKENDS["cuda"].missing()
            assert (why is None) is runs
            if why is not None:
                assert "driver is that of CUDA 12.9" in why
                assert "need the driver of CUDA 13.0 or later" in why
                with pytest.raises(RuntimeError, match=r"relu: .*driver of CUDA 13\.0 or later"):
                    relu()

    def test_minor_versions_matter_to_ptx_alone(self, tmp_path: Path) -> None:
        built = "\n".join(["nvcc 13.2", "ptx 80", "activation_unary 80 80 90a"])
        (tmp_path / "build.txt").write_text(built)
        (tmp_path / "activation_unary.fatbin").write_bytes(b"")
        before = _C.cuda_info()["kernel_dir"]
        _C.set_kernel_dir(str(tmp_path))
        try:
            with fake_driver(A100, RTX_5090, version=13010):
                assert _C.cuda_missing(0) == ""
                assert choice.BACKENDS["cuda"].missing() is None
                assert "13.1" in _C.cuda_missing(1)
                assert "13.2" in _C.cuda_missing(1)
        finally:
            _C.set_kernel_dir(before)

    def test_build_without_kernels(self, tmp_path: Path) -> None:
        before = _C.cuda_info()["kernel_dir"]
        _C.set_kernel_dir(str(tmp_path))
        try:
            with fake_driver(A100):
                assert choice.BACKENDS["cuda"].missing() == "built without the CUDA kernels"
                with pytest.raises(RuntimeError, match=r"relu: our CUDA kernels don't run .*: built without the CUDA"):
                    relu()
        finally:
            _C.set_kernel_dir(before)

    def test_driver_without_libraries(self) -> None:
        with fake_driver(A100, version=11080, defines=["NK_WITHOUT_LIBRARIES"]):
            why = choice.BACKENDS["cuda"].missing()
            assert "no function cuLibraryLoadData" in why
            assert "CUDA 11.8" in why

    def test_info_tells_of_each(self) -> None:
        with fake_driver(V100, A100):
            rows = dict(info.facts())
        assert rows["backend cuda"] == "ready"
        assert rows["GPU 0"].startswith("V100 (7.0), unavailable: it has compute capability 7.0")
        assert rows["GPU 1"] == "A100 (8.0), ready"

    def test_asking_makes_no_context(self) -> None:
        with fake_driver(A100, A100) as driver:
            info.facts()
            assert driver.names() == ["cuInit"]

    def test_found_by_its_name(self) -> None:
        """As a process of its own finds it: libcuda.so.1 on LD_LIBRARY_PATH, which has no device here."""
        env = {**os.environ, "LD_LIBRARY_PATH": str(fakes.library().parent)}
        code = "from neurokern import _C; i = _C.cuda_info(); print(i['driver'], i['reason'])"
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert done.stdout.split("\n")[0].endswith("no CUDA device")


class TestStream:
    def test_of_the_launch(self) -> None:
        with fake_driver(A100) as driver:
            CudaTensor.stream = 0xABC0
            relu()
            assert driver.calls()[-1].startswith("cuLaunchKernel stream 0xabc0 ")

    def test_that_cannot_be_had(self) -> None:
        with fake_driver(A100) as driver:
            CudaTensor.stream = None
            with pytest.raises(RuntimeError, match=r"relu: the current stream of cuda:0 can't be had"):
                relu()
            x = CudaTensor(torch.randn(8, 8))
            with pytest.raises(RuntimeError, match=r"the current stream of cuda:0 can't be had"):
                _C.linear(x, x, None, None)
            assert "cuLaunchKernel" not in driver.names()


LOADED = ["cuLibraryLoadData", "cuLibraryGetKernel", "cuKernelGetFunction", "cuFuncLoad"]


class TestLoading:
    def test_once_per_device(self) -> None:
        with fake_driver(A100, H100) as driver:
            relu(0)
            assert [n for n in driver.names() if n in LOADED] == LOADED
            relu(0)
            assert driver.names() == ["cuLaunchKernel"]
            relu(1)
            assert [n for n in driver.names() if n in LOADED] == LOADED

    def test_compiles_one_kernel_at_a_time(self, capfd: pytest.CaptureFixture) -> None:
        """Where there is no machine code, an image holds one kernel; it says what takes long, once."""
        with fake_driver(RTX_5090) as driver:
            driver.slow("cuLibraryLoadData", 400)
            relu()
            assert capfd.readouterr().err == (
                "neurokern: compiling activation_unary_f32 for sm_120 ..., kept by the driver's cache\n"
            )
            relu()
            assert capfd.readouterr().err == ""
            driver.calls()
            x = CudaTensor(torch.randn(100).half())
            _C.unary(x, "relu", 0.0, 0.0)  # another kernel of the same fatbin
            assert driver.names().count("cuLibraryLoadData") == 1
            assert "activation_unary_f16" in capfd.readouterr().err

    def test_says_nothing_of_what_is_quick(self, capfd: pytest.CaptureFixture) -> None:
        with fake_driver(RTX_5090, A100) as driver:
            relu(0)
            driver.slow("cuLibraryLoadData", 400)
            relu(1)  # machine code: nothing is compiled
            assert capfd.readouterr().err == ""

    def test_lets_others_run(self) -> None:
        """While a kernel is loaded the interpreter goes on, and launches of loaded kernels do."""
        with fake_driver(A100) as driver:
            relu()
            driver.slow("cuLibraryLoadData", 500)
            x = CudaTensor(torch.randn(8, 8))
            loading = threading.Thread(target=_C.softmax, args=(x, 1, "softmax"))
            start = time.perf_counter()
            loading.start()
            relu()
            took = time.perf_counter() - start
            alive = loading.is_alive()
            loading.join()
        assert alive
        assert took < 0.4

    def test_on_two_devices_goes_on_at_once(self) -> None:
        with fake_driver(A100, A100) as driver:
            driver.slow("cuLibraryLoadData", 500)
            threads = [threading.Thread(target=relu, args=(index,)) for index in range(2)]
            start = time.perf_counter()
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            assert time.perf_counter() - start < 0.9

    def test_of_one_kernel_in_two_threads_happens_once(self) -> None:
        with fake_driver(A100) as driver:
            driver.slow("cuLibraryLoadData", 100)
            threads = [threading.Thread(target=relu) for _ in range(4)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            names = driver.names()
        assert names.count("cuLibraryLoadData") == names.count("cuLibraryGetKernel") == 1
        assert names.count("cuLaunchKernel") == 4

    def test_that_failed_is_tried_again(self) -> None:
        with fake_driver(A100) as driver:
            driver.fail("cuLibraryLoadData", 2, times=1)
            with pytest.raises(
                RuntimeError, match=r"relu: kernel activation_unary_f32 .*cuLibraryLoadData.*OUT_OF_MEMORY"
            ):
                relu()
            relu()

    def test_while_a_graph_is_captured(self) -> None:
        """Relaxed around all that loads, and as before afterwards, also where it fails."""
        with fake_driver(A100) as driver:
            driver.capture(True)
            relu()
            names = driver.calls()
            relaxed, restored = (names.index(f"cuThreadExchangeStreamCaptureMode {mode}") for mode in (2, 0))
            first, last = (names.index(next(n for n in names if n.startswith(f))) for f in (LOADED[0], LOADED[-1]))
            assert relaxed < first < last < restored < names.index("cuLaunchKernel stream 0x10 in 0")
            driver.fail("cuLibraryGetKernel", 500)
            with pytest.raises(RuntimeError, match="NOT_FOUND"):
                _C.softmax(CudaTensor(torch.randn(8, 8)), 1, "softmax")
            assert driver.calls()[-1] == "cuThreadExchangeStreamCaptureMode 0"


class TestWarmUp:
    def test_leaves_nothing_to_load(self) -> None:
        with fake_driver(H100) as driver:
            count = neurokern.warm_up("activation", device=0)
            names = driver.names()
            assert names.count("cuLibraryGetKernel") == count > 20
            relu()
            assert driver.names() == ["cuLaunchKernel"]
            neurokern.warm_up(["activation"], device="cuda:0")
            assert driver.names() == []

    def test_of_another_device(self) -> None:
        with fake_driver(V100, A100) as driver:
            assert neurokern.warm_up("matmul", device=1) > 30
            assert "cuCtxSetCurrent 0x1001" in driver.calls()

    def test_wrong_arguments(self) -> None:
        with fake_driver(V100, A100):
            with pytest.raises(
                ValueError, match=r"warm_up: no family 'softmin', expected some of activation, .*softmax"
            ):
                neurokern.warm_up("softmin", device=1)
            with pytest.raises(ValueError, match=r"warm_up: device is 'cpu', expected a GPU"):
                neurokern.warm_up(device="cpu")
            with pytest.raises(RuntimeError, match=r"warm_up: CUDA kernels can't run: cuda:0 \(V100\): .*7\.0"):
                neurokern.warm_up(device=0)
            with pytest.raises(RuntimeError, match="no device cuda:7"):
                neurokern.warm_up(device=7)

    def test_without_a_driver(self) -> None:
        if torch.cuda.is_available():
            pytest.skip("a GPU is here")
        with pytest.raises(RuntimeError, match=r"warm_up: CUDA kernels can't run: no CUDA driver"):
            neurokern.warm_up()

    def test_emulated(self) -> None:
        with neurokern.emulate():
            assert neurokern.warm_up("softmax") > 50


class TestContexts:
    """A library's kernel runs in its stream's context; only a null stream means the one that is current."""

    def launched(self, driver: FakeDriver, stream: int, device: int) -> list[str]:
        CudaTensor.stream = stream
        driver.calls()
        relu(device)
        return driver.calls()

    def test_of_the_stream(self) -> None:
        with fake_driver(A100, A100) as driver:
            relu(1)
            driver.current(0)
            assert self.launched(driver, 0x40, 1) == ["cuLaunchKernel stream 0x40 in 0x1000"]

    @pytest.mark.parametrize("stream", [0, 1, 2])
    def test_null_streams_need_the_device(self, stream: int) -> None:
        with fake_driver(A100, A100) as driver:
            relu(1)
            driver.current(1)
            assert self.launched(driver, stream, 1) == ["cuCtxGetDevice", f"cuLaunchKernel stream {stream:#x} in 0x1001"
                                                        .replace("0x0 ", "0 ")]  # fmt: skip
            driver.current(1, green=True)
            assert self.launched(driver, stream, 1)[-1].endswith("in 0x2001")
            driver.current(0)
            assert self.launched(driver, stream, 1)[-2:] == [
                f"cuLaunchKernel stream {stream:#x} in 0x1001".replace("0x0 ", "0 "), "cuCtxSetCurrent 0x1000",
            ]  # fmt: skip
            driver.current(None)
            assert self.launched(driver, stream, 1)[-1] == "cuCtxSetCurrent 0"

    def test_green_ones_are_loaded_into(self) -> None:
        with fake_driver(A100) as driver:
            driver.current(0, green=True)
            relu()
            calls = driver.calls()
        assert "cuKernelGetFunction in 0x2000" in calls
        assert not any(c.startswith(("cuCtxSetCurrent", "cuDevicePrimaryCtxRetain")) for c in calls)


class TestLostDevice:
    def test_is_told_once_and_at_length(self) -> None:
        with fake_driver(A100, A100) as driver:
            relu()
            _C.softmax(CudaTensor(torch.randn(8, 8)), 1, "softmax")
            driver.fail("cuLaunchKernel", ILLEGAL_ADDRESS, times=1)
            with pytest.raises(RuntimeError) as first:
                relu()
            driver.calls()
            with pytest.raises(RuntimeError) as then:
                relu()
            assert driver.names() == []
            relu(1)  # the other one is well
        text = str(first.value)
        assert text.startswith(
            "neurokern.relu: cuda:0 (A100) is lost to this process: cuLaunchKernel says CUDA_ERROR_ILL"
        )
        assert text.index("latest first: activation_unary_f32, softmax_") < text.index(", activation_unary_f32. Start")
        assert str(then.value).startswith(
            "neurokern.relu: cuda:0 (A100) is lost to this process since CUDA_ERROR_ILLEGAL"
        )
        assert len(str(then.value)) < 200 < len(text)

    @pytest.mark.parametrize("code", [700, 702, 709, 710, 714, 715, 716, 717, 718, 719])
    def test_errors_that_last(self, code: int) -> None:
        with fake_driver(A100) as driver:
            driver.fail("cuLaunchKernel", code, times=1)
            with pytest.raises(RuntimeError, match="is lost to this process"):
                relu()

    @pytest.mark.parametrize(
        "function", ["cuLibraryLoadData", "cuFuncLoad", "cuCtxSetCurrent", "cuDevicePrimaryCtxRetain"]
    )
    def test_whichever_call_learns_of_it(self, function: str) -> None:
        with fake_driver(A100) as driver:
            driver.fail(function, ILLEGAL_ADDRESS, times=1)
            with pytest.raises(RuntimeError, match=rf"relu: cuda:0 \(A100\) is lost to this process: {function} says"):
                relu()
            with pytest.raises(RuntimeError, match="is lost to this process since"):
                relu()

    @pytest.mark.parametrize("code", [1, 2, 701, 801])
    def test_errors_that_pass(self, code: int) -> None:
        with fake_driver(A100) as driver:
            driver.fail("cuLaunchKernel", code, times=1)
            with pytest.raises(RuntimeError, match=r"kernel activation_unary_f32 <<<"):
                relu()
            relu()
            assert _C.lost_devices() == ""

    def test_is_found_by_waiting(self) -> None:
        with fake_driver(A100) as driver:
            assert _C.lost_devices() == ""
            assert "cuCtxSynchronize" not in driver.names()  # nothing was launched
            relu()
            driver.fail("cuCtxSynchronize", ILLEGAL_ADDRESS)
            assert "latest first: activation_unary_f32" in _C.lost_devices()
            with pytest.raises(RuntimeError, match="is lost to this process since"):
                relu()

    def test_ends_a_benchmark(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fails(*_: object) -> None:
            raise RuntimeError("anything")

        def measured() -> list[dict]:
            run = runner.Run("cpu", effort=runner.FULL)
            run.device, run.chosen = "cuda", "auto"
            suite = SimpleNamespace(name="s", family="f")
            case = SimpleNamespace(name="c", label="c", op="o", dtype="f32", direction="forward")
            return run.suite(suite, [case])

        monkeypatch.setattr(runner, "calls", fails)
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
        with fake_driver(A100) as driver:
            relu()
            driver.fail("cuCtxSynchronize", ILLEGAL_ADDRESS)
            with pytest.raises(runner.DeviceLost, match="latest first: activation_unary_f32"):
                measured()
        with fake_driver(A100):
            assert measured()[0]["failed"] == "RuntimeError: anything"
            monkeypatch.setattr(torch.cuda, "synchronize", fails)  # a launch of torch's
            with pytest.raises(runner.DeviceLost, match="lost in c: anything"):
                measured()
