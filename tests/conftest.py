"""What every test shares: seeds that can be replayed, targets, threads, markers."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from neurokern.testing.targets import Target, interpret_without_gpu, targets

interpret_without_gpu()  # before anything imports triton

import pytest  # noqa: E402
import torch  # noqa: E402
from neurokern.backends import emulation  # noqa: E402
from neurokern.testing import OpSpec, all_specs, ptx, twins  # noqa: E402
from neurokern.testing.shares import Shares  # noqa: E402
from neurokern.testing.spec import mixed  # noqa: E402

# the emulator's tests that belong to `make check`; the others take two minutes
QUICK_EMULATOR_TESTS = {f"test_emulator_{part}" for part in ("async", "checkers", "counters", "memory")}

# fused with a linear layer, two activations stand for all in `make check`
QUICK_FUSED = {"linear-relu", "linear-gelu"}

# in `make check`, ops of two dims stand for those of one and three, and two instruction sets for all
OF_IMAGES = {"convolution", "pooling", "rearrangement", "resampling"}

HALVES = (torch.bfloat16, torch.float16)


def pytest_configure(config: pytest.Config) -> None:
    # workers of xdist inherit the environment: one seed for all, fresh each run unless it is given
    os.environ.setdefault("NEUROKERN_SEED", str(random.SystemRandom().randrange(1 << 31)))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    torch.set_num_threads(2 if workers == 1 else max(1, min(2, (os.cpu_count() or 1) // workers)))
    config.pluginmanager.register(Shares())


def _seed_what_has_no_generator(*names: str) -> None:
    number = mixed(int(os.environ["NEUROKERN_SEED"]), *names)
    torch.manual_seed(number)
    random.seed(number)


def pytest_collectstart(collector: pytest.Collector) -> None:
    if isinstance(collector, pytest.Module):  # what it draws when it is imported
        _seed_what_has_no_generator(collector.nodeid)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    _seed_what_has_no_generator(item.nodeid)


def pytest_report_header(config: pytest.Config) -> str:
    running = [t.id for t in targets() if t.missing() is None]
    return f"neurokern: NEUROKERN_SEED={os.environ['NEUROKERN_SEED']}, targets: {', '.join(running)}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    asked = config.getoption("-m") or ""
    # minutes each: the last test of a worker would leave the other without work
    items.sort(key=lambda item: "in_a_process_of_its_own" not in getattr(item, "fixturenames", ()))
    for item in items:
        if item.path.name.startswith("test_emulator_") and item.path.stem not in QUICK_EMULATOR_TESTS:
            item.add_marker(pytest.mark.slow)
        params = item.callspec.params if hasattr(item, "callspec") else {}
        if (spec := params.get("spec")) and spec.id.startswith("linear-") and spec.id not in QUICK_FUSED:
            item.add_marker(pytest.mark.slow)
        level = getattr(params.get("target"), "level", "")
        of_images = (spec := params.get("spec")) and spec.family in OF_IMAGES
        if of_images and (level in ("scalar", "avx512") or re.search("[13]d", spec.id)):
            item.add_marker(pytest.mark.slow)
        # the kernels of second derivatives are the same source for every dtype
        if getattr(item, "originalname", "") == "test_second_derivatives" and params.get("dtype") in HALVES:
            item.add_marker(pytest.mark.slow)
        target = params.get("target")
        if isinstance(target, Target):
            if target.backend == "triton":
                item.add_marker(pytest.mark.triton)
                item.add_marker(pytest.mark.slow)
            if target.on_gpu:
                item.add_marker(pytest.mark.gpu)
            if target.emulated or target.few:
                item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("large") and "large" not in asked:
            item.add_marker(pytest.mark.skip(reason="needs 24 GiB: run with -m large"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        again = f"NEUROKERN_SEED={os.environ['NEUROKERN_SEED']} python -m pytest '{item.nodeid}'"
        report.sections.append(("to see it again", again))


@pytest.fixture(params=["emulated", pytest.param("real", marks=pytest.mark.gpu)])
def snippets(request: pytest.FixtureRequest):
    """For tests of PTX snippets: on the emulator, and on the GPU with the results compared. NEUROKERN_SNIPPETS names
    the record."""
    if request.param == "emulated":
        yield
        return
    if only := request.node.get_closest_marker("emulator_only"):
        pytest.skip(only.args[0])
    try:
        device = ptx.driver()
    except (OSError, ptx.DeviceError) as error:
        pytest.skip(f"no GPU: {error}")
    if device.lost:
        pytest.skip(f"the GPU was lost in {device.lost}")
    record = os.environ.get("NEUROKERN_SNIPPETS")
    with twins.compared(device, Path(record) if record else None, request.node.nodeid):
        yield


@pytest.fixture(scope="session")
def nvcc(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """The PTX that nvcc writes of a source for an architecture (and with further flags); a skip where no nvcc or header
    for it is installed."""
    finder = Path(__file__).parents[1] / "cmake" / "nvcc.py"

    def compiled(source: str, architecture: str, *flags: str) -> str:
        found = subprocess.run([sys.executable, finder, "find"], capture_output=True, text=True, check=True).stdout
        if not found:
            pytest.skip("no nvcc")
        compiler = found.splitlines()[0]
        known = subprocess.run([compiler, "--list-gpu-code"], capture_output=True, text=True, check=True).stdout
        if architecture.rstrip("af") not in known.split():
            pytest.skip(f"{compiler} knows no {architecture}")
        folder = tmp_path_factory.mktemp("nvcc")
        (folder / "kernels.cu").write_text(source)
        command = [compiler, "-std=c++20", f"-arch={architecture}", "-ptx", "kernels.cu", "-o", "kernels.ptx", *flags]
        run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
        if run.returncode != 0 and "No such file" in run.stderr:
            pytest.skip(f"nvcc: {run.stderr[-300:]}")  # CUDA's own headers come apart from the compiler
        assert run.returncode == 0, run.stderr
        return (folder / "kernels.ptx").read_text()

    return compiled


@pytest.fixture
def in_a_process_of_its_own(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Runs the test's file, or those of -k in it, with this TRITON_INTERPRET, by which kernels are decorated."""

    def run(interpret: str, chosen: str = "") -> None:
        env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")} | {"TRITON_INTERPRET": interpret}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(request.path)]
        command += ["-k", chosen] if chosen else []
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    return run


@pytest.fixture(autouse=True)
def checkers() -> None:
    """The emulator's are on when a test begins, whatever the test before it launched without them."""
    if emulation.missing() is None:
        ptx.check_all()


@pytest.fixture
def seed() -> int:
    """The seed of this run, for generators; torch's own and `random` start from it and the test's name."""
    return int(os.environ["NEUROKERN_SEED"])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    given = {n for m in metafunc.definition.iter_markers("parametrize") for n in str(m.args[0]).split(",")}
    names = set(metafunc.fixturenames) - given
    if "spec" in names:
        specs: list[OpSpec] = [s for s in all_specs() if _wanted(metafunc, s)]
        if "dtype" in names:
            mark = metafunc.definition.get_closest_marker("dtypes")
            pairs = [(s, d) for s in specs for d in s.dtypes if mark is None or d in mark.args]
            ids = [f"{s.id}-{str(d).removeprefix('torch.')}" for s, d in pairs]
            metafunc.parametrize("spec,dtype", pairs, ids=ids)
        else:
            metafunc.parametrize("spec", specs, ids=[s.id for s in specs])
    if "target" in names:
        mark = metafunc.definition.get_closest_marker("backends")
        chosen = list(targets())
        if mark is not None:
            chosen = [t for t in chosen if t.backend in mark.args and (mark.kwargs.get("few", True) or not t.few)]
        metafunc.parametrize("target", chosen, ids=[t.id for t in chosen])


def _wanted(metafunc: pytest.Metafunc, spec: OpSpec) -> bool:
    """A test marked `specs_with("bad")` runs on the specs that have that field."""
    mark = metafunc.definition.get_closest_marker("specs_with")
    return mark is None or all(getattr(spec, name) for name in mark.args)


@pytest.fixture
def on(target: Target, request: pytest.FixtureRequest):
    """The target in force for the test, or a skip with the reason."""
    spec = request.node.callspec.params.get("spec")
    if isinstance(spec, OpSpec) and target.backend not in ("auto", *spec.backends):
        pytest.skip(f"{spec.id} has no kernel for {target.backend} yet")
    if reason := target.missing():
        pytest.skip(f"{target.id}: {reason}")
    with target.active():
        yield target
