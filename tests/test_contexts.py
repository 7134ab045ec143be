"""backend(), trace(), strict() and emulate() hold in the thread or task that enters them, and nowhere else."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from typing import Any

import neurokern
import neurokern.functional as F
import pytest
import torch
from neurokern import _C
from neurokern.backends import emulation

needs_emulator = pytest.mark.skipif(emulation.missing() is not None, reason="built without the emulator")


def in_threads(*bodies: Callable[[], Any]) -> list[Any]:
    """What each returned, run at the same time; raises what one raised."""
    results: list[Any] = [None] * len(bodies)

    def run(i: int) -> None:
        try:
            results[i] = bodies[i]()
        except BaseException as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(bodies))]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    for r in results:
        if isinstance(r, BaseException):
            raise r
    return results


def is_strict() -> bool:
    with neurokern.trace() as launches, contextlib.suppress(RuntimeError):
        F.relu(torch.arange(3))
    return not launches


BLOCKS: dict[str, tuple[Callable[[], Any], Callable[[], bool]]] = {
    "strict": (neurokern.strict, is_strict),
    "backend": (lambda: neurokern.backend("cpu"), lambda: _C.backend() == "cpu"),
    "trace": (neurokern.trace, lambda: _C.running_log() is not None),
    "emulate": (neurokern.emulate, lambda: _C.backend() == "cuda"),
}


@pytest.fixture(params=[pytest.param(n, marks=needs_emulator if n == "emulate" else ()) for n in BLOCKS])
def block(request: pytest.FixtureRequest) -> tuple[Callable[[], Any], Callable[[], bool]]:
    return BLOCKS[request.param]


class TestThreads:
    def test_a_block_is_not_seen_by_another_thread(self, block: Any) -> None:
        make, holds = block
        with make():
            assert holds()
            assert in_threads(holds) == [False]
        assert not holds()

    def test_blocks_that_overlap_leave_nothing_on(self, block: Any) -> None:
        """The first to enter is the first to leave, in the middle of the other's block."""
        make, holds = block
        step = threading.Barrier(2, timeout=30)

        def first() -> list[bool]:
            with make():
                step.wait()  # both are in
                seen = [holds()]
            step.wait()  # this one has left
            step.wait()
            return [*seen, holds()]

        def second() -> list[bool]:
            with make():
                step.wait()
                step.wait()
                seen = [holds()]
            step.wait()  # both have left
            return [*seen, holds()]

        assert in_threads(first, second) == [[True, False], [True, False]]
        assert not holds()
        assert in_threads(holds) == [False]

    def test_a_trace_collects_its_own_launches_alone(self) -> None:
        x, inside, done = torch.randn(8), threading.Event(), threading.Event()

        def other() -> None:
            inside.wait(30)
            F.tanh(x)
            done.set()

        def mine() -> list[str]:
            with neurokern.trace() as launches:
                F.relu(x)
                inside.set()
                done.wait(30)
                F.gelu(x)
            return [entry.kernel for entry in launches]

        assert in_threads(mine, other)[0] == ["relu", "gelu"]

    @needs_emulator
    def test_one_thread_emulates_while_another_computes(self) -> None:
        x = torch.randn(300, 7)
        right = torch.softmax(x, -1)

        def emulated() -> set[str]:
            with neurokern.emulate(check=False), neurokern.trace() as launches:
                for _ in range(5):
                    assert torch.allclose(F.softmax(x, -1), right, atol=1e-6)
            assert all(entry.counters for entry in launches)
            return {entry.backend for entry in launches}

        def plain() -> set[str]:
            with neurokern.trace() as launches:
                for _ in range(200):
                    assert torch.allclose(F.softmax(x, -1), right, atol=1e-6)
            return {entry.backend for entry in launches}

        assert in_threads(emulated, plain) == [{"cuda"}, {"cpu"}]

    def test_a_statement_is_for_every_thread(self) -> None:
        neurokern.backend("cpu")
        try:
            assert in_threads(_C.backend) == ["cpu"]
            with neurokern.backend("auto"):
                assert in_threads(_C.backend) == ["cpu"]
            assert _C.backend() == "cpu"
        finally:
            neurokern.backend("auto")
        assert in_threads(_C.backend) == ["auto"]

    def test_a_statement_in_a_block_holds_to_its_end(self) -> None:
        with neurokern.strict():
            neurokern.backend("cpu")
            assert _C.backend() == "cpu"
            with neurokern.backend("auto"):
                assert _C.backend() == "auto"
            assert _C.backend() == "cpu"
        assert _C.backend() == "auto"

    def test_blocks_made_in_turns_by_two_threads(self) -> None:
        """Each is made before either is entered: no choice of a block is left for the process."""
        made = threading.Barrier(2, timeout=30)

        def enters() -> str:
            choice = neurokern.backend("cpu")
            made.wait()
            with choice:
                return _C.backend()

        assert in_threads(enters, enters) == ["cpu", "cpu"]
        assert _C.backend() == "auto"


class TestTasks:
    def test_a_block_is_not_seen_by_another_task(self, block: Any) -> None:
        make, holds = block

        async def enters(entered: asyncio.Event, looked: asyncio.Event) -> bool:
            with make():
                entered.set()
                await looked.wait()
                return holds()

        async def looks(entered: asyncio.Event, looked: asyncio.Event) -> bool:
            await entered.wait()
            seen = holds()
            looked.set()
            return seen

        async def both() -> list[bool]:
            events = asyncio.Event(), asyncio.Event()
            return list(await asyncio.gather(enters(*events), looks(*events)))

        assert asyncio.run(both()) == [True, False]

    def test_a_copied_context_is_in_the_block_until_that_ends(self, block: Any) -> None:
        make, holds = block
        with make():
            copied = contextvars.copy_context()
            assert copied.run(holds)
        assert not copied.run(holds)

    def test_a_block_that_another_context_leaves(self, block: Any) -> None:
        """As a generator that is closed elsewhere does."""
        make, holds = block
        opened = make()
        contextvars.copy_context().run(opened.__enter__)
        opened.__exit__(None, None, None)
        assert not holds()


def model(x: torch.Tensor) -> torch.Tensor:
    return F.softmax(F.linear(F.layer_norm(x, [4]), torch.ones(3, 4), activation="gelu"), -1).sum()


class TestBackward:
    def test_a_thread_has_the_context_of_the_call_that_made_the_node(self) -> None:
        x = torch.randn(5, 4, requires_grad=True)
        with neurokern.trace() as launches:
            y = model(x)
            forward = len(launches)
            in_threads(y.backward)
            assert len(launches) >= forward + 3

    def test_recorded_the_long_way_too(self) -> None:
        """A gradient with a graph of its own goes through Python."""
        x = torch.randn(5, 4, requires_grad=True)
        with neurokern.trace() as launches:
            (g,) = torch.autograd.grad(F.gelu(x).sum(), x, create_graph=True)
            before = len(launches)
            in_threads(g.sum().backward)
            assert len(launches) > before

    def test_its_own_block_goes_before(self) -> None:
        x = torch.randn(5, 4, requires_grad=True)
        with neurokern.trace() as outer:
            y = model(x)
            forward = len(outer)

            def own() -> int:
                with neurokern.trace() as inner:
                    y.backward()
                return len(inner)

            assert in_threads(own)[0] >= 3
            assert len(outer) == forward

    def test_a_block_that_has_ended_does_not_count(self) -> None:
        x = torch.randn(5, 4, requires_grad=True)
        with neurokern.trace() as launches:
            y = model(x)
        forward = len(launches)
        in_threads(y.backward)
        assert len(launches) == forward

    @needs_emulator
    def test_emulated(self) -> None:
        x = torch.randn(5, 4, requires_grad=True)
        with neurokern.emulate(), neurokern.trace() as launches:
            in_threads(model(x).backward)
        assert {entry.backend for entry in launches} == {"cuda"}


class TestTimes:
    def test_each_launch_is_measured(self) -> None:
        x = torch.randn(256, 256, requires_grad=True)
        with neurokern.trace(times=True) as launches:
            F.linear(F.gelu(x), x).sum().backward()
            F.relu(torch.arange(3))
        assert {entry.backend for entry in launches} == {"cpu", "torch"}
        assert all(entry.seconds is not None and 0 < entry.seconds < 5 for entry in launches)

    def test_not_unless_it_is_wanted(self) -> None:
        with neurokern.trace() as launches:
            F.gelu(torch.randn(4))
        assert launches[0].seconds is None

    def test_more_work_takes_more_time(self) -> None:
        small, large = torch.randn(8, 8), torch.randn(512, 512)
        with neurokern.trace(times=True) as launches:
            for x in (small, large) * 5:
                F.matmul(x, x)
        seconds = [entry.seconds for entry in launches]
        assert sorted(seconds[1::2])[2] > 5 * sorted(seconds[::2])[2]

    @needs_emulator
    def test_emulated(self) -> None:
        with neurokern.emulate(), neurokern.trace(times=True) as launches:
            F.softmax(torch.randn(4, 4), -1)
        assert launches[0].seconds > 0


class TestCompiled:
    @staticmethod
    def compiled() -> Any:
        torch._dynamo.reset()
        return torch.compile(lambda x: F.relu(x) + 1, backend="eager", fullgraph=True)

    def test_a_fall_back_within_a_trace(self) -> None:
        """It is on record when it is decided, which is while the graph is traced."""
        with neurokern.trace() as launches:
            assert self.compiled()(torch.arange(-1, 2)).tolist() == [1, 1, 2]
        (entry,) = launches
        assert (entry.op, entry.backend) == ("relu", "torch")
        assert "int64" in entry.reason
        assert "compiling" in entry.reason

    def test_kernels_within_a_trace(self) -> None:
        with neurokern.trace() as launches:
            self.compiled()(torch.randn(3))
        assert [entry.kernel for entry in launches] == ["relu"]

    @pytest.mark.parametrize("block", ["strict", "backend"])
    def test_what_was_compiled_before_the_block(self, block: str) -> None:
        f, x = self.compiled(), torch.arange(3)
        with neurokern.trace():
            f(x)
        f(x)
        says = "would fall back to torch" if block == "strict" else "backend 'cpu' was asked for"
        with BLOCKS[block][0](), pytest.raises(Exception, match=says):
            f(x)
        assert f(x).tolist() == [1, 2, 3]
