"""mbarrier on the emulator, against a model of it in Python."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np
import pytest
from neurokern.backends import emulation
from neurokern.testing.ptx import on_hopper

pytestmark = [
    pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing())),
    pytest.mark.usefixtures("snippets"),
]


@dataclass
class Model:
    """What the PTX ISA says an mbarrier is: arrivals pending in this phase, expected in the next, bytes, phase."""

    pending: int
    expected: int
    tx: int = 0
    phase: int = 0

    def settle(self) -> None:
        if self.pending == 0 and self.tx == 0:
            self.phase += 1
            self.pending = self.expected

    def arrive(self, count: int = 1, drop: bool = False, expect: int = 0) -> int:
        before = self.pending
        self.tx += expect
        if drop:
            self.expected -= count
        self.pending -= count
        self.settle()
        return before

    def completes(self, count: int, expect: int = 0) -> bool:
        trial = replace(self)
        trial.arrive(count, expect=expect)
        return trial.phase != self.phase


def program(draw: random.Random, steps: int) -> tuple[str, list[int]]:
    """One thread's operations on a barrier, and what each of its reports must be, in order."""
    model = Model(*[draw.randint(2, 9)] * 2)
    space = lambda: draw.choice(["", ".shared", ".shared::cta"])  # noqa: E731
    where = lambda s: "[%g]" if s == "" else "[%m]"  # noqa: E731
    order = lambda: draw.choice(["", ".release.cta", ".release.cluster", ".relaxed.cta", ".relaxed.cluster"])  # noqa: E731
    wait_order = lambda: draw.choice(["", ".acquire.cta", ".acquire.cluster", ".relaxed.cluster"])  # noqa: E731
    text = [f"mbarrier.init.shared::cta.b64 [%m], {model.expected};"]
    reports: list[int] = []

    def report(register: str, value: int) -> None:
        text.append(f"st.global.u32 [%o+{4 * len(reports)}], {register};")
        reports.append(value)

    state_phase = None
    for _ in range(steps):
        s, free = space(), draw.randint(1, max(1, model.pending))
        kinds = ["wait", "wait", "state", "expect", "complete"]
        if model.pending > 0:
            kinds += ["arrive"] * 4 + ["arrive_tx", "noComplete"]
            if model.expected > free:
                kinds.append("drop")
        kind = draw.choice(kinds)
        if kind == "arrive":
            count = free
            given = f", {count}" if count > 1 or draw.random() < 0.5 else ""
            text.append(f"mbarrier.arrive{order()}{s}.b64 %s, {where(s)}{given}; mbarrier.pending_count.b64 %x, %s;")
            state_phase = model.phase
            report("%x", model.arrive(count))
        elif kind == "noComplete" and not model.completes(free):
            text.append(f"mbarrier.arrive.noComplete{s}.b64 %s, {where(s)}, {free};")
            state_phase = model.phase
            model.arrive(free)
        elif kind == "arrive_tx":
            n = draw.choice([0, 16, 1000])
            text.append(f"mbarrier.arrive.expect_tx{order()}{s}.b64 _, {where(s)}, {n};")
            model.arrive(1, expect=n)
        elif kind == "drop":
            text.append(f"mbarrier.arrive_drop{order()}{s}.b64 %s, {where(s)}, {free};")
            state_phase = model.phase
            model.arrive(free, drop=True)
        elif kind == "expect":
            n = draw.randint(1, 100)
            text.append(f"mbarrier.expect_tx.relaxed.{draw.choice(['cta', 'cluster'])}{s}.b64 {where(s)}, {n};")
            model.tx += n
        elif kind == "complete" and model.tx > 0:
            n = draw.choice([model.tx, model.tx, draw.randint(1, model.tx)])
            text.append(f"mbarrier.complete_tx.relaxed.cta{s}.b64 {where(s)}, {n};")
            model.tx -= n
            model.settle()
        elif kind == "wait":
            parity, how = draw.randint(0, 1), draw.choice(["test_wait", "try_wait"])
            hint = ", 100" if how == "try_wait" and draw.random() < 0.3 else ""
            text.append(f"mbarrier.{how}.parity{wait_order()}{s}.b64 %p, {where(s)}, {parity}{hint};")
            text.append("selp.u32 %x, 1, 0, %p;")
            report("%x", int(model.phase % 2 != parity))
        elif kind == "state" and state_phase is not None and model.phase - state_phase < 2:
            text.append(f"mbarrier.test_wait{wait_order()}{s}.b64 %p, {where(s)}, %s; selp.u32 %x, 1, 0, %p;")
            report("%x", int(model.phase != state_phase))
    return "\n  ".join(text), reports


@pytest.mark.parametrize("part", range(20))
def test_one_thread_against_the_model(part: int, seed: int) -> None:
    text, want = program(random.Random(f"{seed} {part}"), 60)
    out = np.full(len(want), 77, np.uint32)
    on_hopper(
        f""".visible .entry kernel(.param .u64 out) {{
  .reg .pred %p; .reg .b32 %m, %x; .reg .b64 %o, %s, %g; .shared .align 8 .b64 bar;
  ld.param.u64 %o, [out]; mov.u32 %m, bar; mov.u64 %g, bar; cvta.shared.u64 %g, %g;
  {text}
  ret;
}}""",
        [out],
        block=(1, 1, 1),
    )
    assert out.tolist() == want


RING = """.visible .entry kernel(.param .u64 from, .param .u64 out, .param .u64 rounds) {{
  .reg .pred %p, %q; .reg .b32 %t, %w, %m, %e, %a, %x, %i, %n, %f, %l; .reg .b64 %g, %o, %r;
  .shared .align 16 .b8 tile[128]; .shared .align 8 .b64 full; .shared .align 8 .b64 empty;
  mov.u32 %t, %tid.x; shr.u32 %w, %t, 5; and.b32 %l, %t, 31;
  mov.u32 %m, full; mov.u32 %e, empty; mov.u32 %a, tile; mad.lo.u32 %a, %l, 4, %a;
  ld.param.u64 %g, [from]; mad.wide.u32 %g, %l, 4, %g; ld.param.u64 %o, [out]; mad.wide.u32 %o, %l, 4, %o;
  ld.param.u64 %r, [rounds]; cvt.u32.u64 %n, %r; mov.u32 %i, 0; mov.u32 %f, 0;
  setp.eq.u32 %p, %t, 0; @!%p bra READY;
  mbarrier.init.shared::cta.b64 [%m], {arrivals}; mbarrier.init.shared::cta.b64 [%e], 32;
READY: bar.sync 0; setp.eq.u32 %p, %w, 1; @%p bra CONSUMER;
PRODUCER: xor.b32 %x, %f, 1;
E: mbarrier.try_wait.parity.shared::cta.b64 %p, [%e], %x; @!%p bra E;
  {produce}
  add.u64 %g, %g, 128; xor.b32 %f, %f, 1; add.u32 %i, %i, 1; setp.lt.u32 %p, %i, %n; @%p bra PRODUCER; bra DONE;
CONSUMER: {wait}
  ld.shared.u32 %x, [%a]; st.global.u32 [%o], %x; mbarrier.arrive.shared::cta.b64 _, [%e];
  add.u64 %o, %o, 128; xor.b32 %f, %f, 1; add.u32 %i, %i, 1; setp.lt.u32 %p, %i, %n; @%p bra CONSUMER;
DONE: ret;
}}"""
WAIT = "F: mbarrier.{how}.parity.shared::cta.b64 %q, [%m], %f; @!%q bra F;"


class TestWarps:
    """A warp that fills a tile and one that empties it, by two barriers; under all checkers."""

    def ring(self, produce: str, arrivals: int, wait: str = WAIT.format(how="try_wait")) -> None:
        rounds = 7
        source = np.arange(32 * rounds, dtype=np.uint32)
        out = np.zeros_like(source)
        on_hopper(RING.format(produce=produce, arrivals=arrivals, wait=wait), [source, out, rounds], block=(64, 1, 1))
        assert out.tolist() == source.tolist()

    @pytest.mark.parametrize("how", ["try_wait", "test_wait"])
    def test_stores(self, how: str) -> None:
        load = "ld.global.u32 %x, [%g]; st.shared.u32 [%a], %x; mbarrier.arrive.shared::cta.b64 _, [%m];"
        self.ring(load, 32, WAIT.format(how=how))

    def test_one_arrival_of_many(self) -> None:
        load = """ld.global.u32 %x, [%g]; st.shared.u32 [%a], %x; bar.warp.sync -1; setp.eq.u32 %q, %l, 0;
  @%q mbarrier.arrive.shared::cta.b64 _, [%m], 32;"""
        self.ring(load, 32)

    def test_cp_async_noinc(self) -> None:
        """The arrivals of the copies are the ones that the barrier expects."""
        load = "cp.async.ca.shared.global [%a], [%g], 4; cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%m];"
        self.ring(load, 32)

    def test_cp_async_with_its_own_count(self) -> None:
        """The arrivals of the copies come on top of the thread's own."""
        load = """cp.async.ca.shared.global [%a], [%g], 4; cp.async.mbarrier.arrive.shared::cta.b64 [%m];
  mbarrier.arrive.shared::cta.b64 _, [%m];"""
        self.ring(load, 32)

    def test_lanes_of_one_warp_wait_for_each_other(self) -> None:
        """Lane 0 spins first in the code for what the others do behind it."""
        out = np.zeros(32, np.uint32)
        on_hopper(
            """.visible .entry kernel(.param .u64 out) {
  .reg .pred %p, %q; .reg .b32 %t, %m, %a, %x; .reg .b64 %o; .shared .align 8 .b64 bar; .shared .b32 sum;
  mov.u32 %t, %tid.x; mov.u32 %m, bar; mov.u32 %a, sum; setp.eq.u32 %p, %t, 0;
  @%p mbarrier.init.shared::cta.b64 [%m], 31; @%p st.shared.u32 [%a], 0; bar.warp.sync -1;
  @!%p bra OTHERS;
W: mbarrier.test_wait.parity.shared::cta.b64 %q, [%m], 0; @!%q bra W;
  ld.shared.u32 %x, [%a]; ld.param.u64 %o, [out]; st.global.u32 [%o], %x; ret;
OTHERS: red.shared.add.u32 [%a], %t; mbarrier.arrive.shared::cta.b64 _, [%m]; ret;
}""",
            [out],
        )
        assert out[0] == sum(range(32))

    @pytest.mark.emulator_only("counters")
    def test_a_wait_counts_twice(self) -> None:
        """It fails once and then lasts, however long that is."""
        counts = []
        for spin in (1, 3000):
            emulation.record(True)
            out = np.zeros(1, np.uint32)
            on_hopper(
                f""".visible .entry kernel(.param .u64 out) {{
  .reg .pred %p, %q; .reg .b32 %t, %m, %i; .shared .align 8 .b64 bar;
  mov.u32 %t, %tid.x; mov.u32 %m, bar; setp.eq.u32 %p, %t, 0; @%p mbarrier.init.shared::cta.b64 [%m], 32; bar.sync 0;
  setp.lt.u32 %p, %t, 32; @%p bra WAIT; mov.u32 %i, 0;
L: add.u32 %i, %i, 1; setp.lt.u32 %q, %i, {spin}; @%q bra L;
  mbarrier.arrive.shared::cta.b64 _, [%m]; ret;
WAIT: mbarrier.try_wait.parity.shared::cta.b64 %q, [%m], 0; @!%q bra WAIT; ret;
}}""",
                [out],
                block=(64, 1, 1),
            )
            (launch,) = emulation.take()
            emulation.record(False)
            counts.append(launch.counters["barrier instructions"])
        # two warps at init and bar.sync, one arrival, a wait
        assert counts == [7, 7]
