"""Special registers, clocks, hints and registers handed over, on the emulator."""

from __future__ import annotations

import numpy as np
import pytest
from neurokern.backends import emulation
from neurokern.testing.ptx import DeviceError, emulator
from neurokern.testing.ptxas import complaint

pytestmark = [
    pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing())),
    pytest.mark.usefixtures("snippets"),
]

HEADER = ".version 9.0\n.target sm_90a\n.address_size 64\n"


def kernel(body: str) -> str:
    """%x: the thread's word, %y: what is stored."""
    return f"""{HEADER}.file 1 "/home/someone/kernels/cuda/planted.cu"
.visible .entry kernel(.param .u64 data) .maxntid 1024, 1, 1 {{
  .reg .pred %p; .reg .b32 %x, %y, %t, %w, %a, %b; .reg .b64 %m, %n, %e, %f;
  mov.u32 %t, %tid.x; shr.u32 %w, %t, 7; ld.param.u64 %m, [data]; mad.wide.u32 %n, %t, 4, %m; ld.global.b32 %x, [%n];
  mov.b32 %y, %x;
  .loc 1 10 0
  {body}
  st.global.b32 [%n], %y; ret;
}}"""


def run(body: str, x: np.ndarray, assembles: bool = True) -> np.ndarray:
    text = kernel(body)
    assert not assembles or complaint(text) == ""
    out = x.astype(np.uint32)
    emulator().launch(text, [out], block=(len(x), 1, 1))
    return out


def test_a_matrix_across_the_warp_is_transposed(seed: int) -> None:
    matrix = np.random.default_rng(seed).integers(0, 2**16, (8, 8)).astype(np.uint16)
    words = matrix.copy().view(np.uint32).reshape(-1)
    got = run("movmatrix.sync.aligned.m8n8.trans.b16 %y, %x;", words)
    np.testing.assert_array_equal(got.view(np.uint16).reshape(8, 8), matrix.T)


@pytest.mark.emulator_only("clocks")
@pytest.mark.parametrize("name", ["clock", "clock64", "globaltimer", "globaltimer_lo"])
def test_clocks_go_forward(name: str) -> None:
    wide = name in ("clock64", "globaltimer")
    read = f"mov.u{64 if wide else 32} %{'e' if wide else 'a'}, %{name};"
    again = f"mov.u{64 if wide else 32} %{'f' if wide else 'b'}, %{name};"
    difference = "sub.u64 %e, %f, %e; cvt.u32.u64 %y, %e;" if wide else "sub.u32 %y, %b, %a;"
    assert set(run(f"{read} {again} {difference}", np.zeros(64)).tolist()) == {1}
    assert set(run(f"{read} add.u32 %x, %x, 1; add.u32 %x, %x, 1; {again} {difference}", np.zeros(32)).tolist()) == {3}


@pytest.mark.emulator_only("registers whose contents are the driver's affair")
def test_other_special_registers() -> None:
    text = """mov.u64 %e, %gridid; cvt.u32.u64 %a, %e; mov.u32 %b, %gridid; sub.u32 %y, %a, %b;
  mov.u32 %a, %envreg3; add.u32 %y, %y, %a; mov.u32 %a, %clock_hi; add.u32 %y, %y, %a; mov.u32 %a, %pm2;
  add.u32 %y, %y, %a; mov.u32 %a, WARP_SZ; add.u32 %y, %y, %a;"""
    assert set(run(text, np.zeros(32)).tolist()) == {32}


def test_hints_and_waits_that_change_nothing() -> None:
    text = """griddepcontrol.wait; griddepcontrol.launch_dependents; nanosleep.u32 20; pmevent 3; pmevent.mask 0xff;
  createpolicy.fractional.L2::evict_last.b64 %e, 0.5; ld.global.L2::cache_hint.b32 %a, [%n], %e;
  createpolicy.fractional.L2::evict_first.L2::evict_unchanged.b64 %f, 1.0; st.global.L2::cache_hint.b32 [%n], %a, %f;
  createpolicy.range.global.L2::evict_last.L2::evict_first.b64 %e, [%m], 128, 256; createpolicy.cvt.L2.b64 %f, 0x10;
  applypriority.global.L2::evict_normal [%m], 128; prefetch.global.L2 [%m]; add.u32 %y, %a, 1;"""
    assert run(text, np.arange(32)).tolist() == list(range(1, 33))


def test_a_warp_that_sleeps_lets_the_others_run() -> None:
    text = """setp.ge.u32 %p, %t, 32; @%p bra SET;
SPIN: nanosleep.u32 100; ld.volatile.global.b32 %a, [%m+128]; setp.ne.u32 %p, %a, 77; @%p bra SPIN; bra OUT;
SET: mov.b32 %y, 77; st.volatile.global.b32 [%n], %y;
OUT: bar.sync 0;"""
    assert run(text, np.zeros(64))[32:].tolist() == [77] * 32


def test_asynchronous_copies_with_policies() -> None:
    text = """.shared .align 16 .b8 tile[1024]; mov.u32 %a, tile; mad.lo.u32 %a, %t, 4, %a;
  createpolicy.fractional.L2::evict_last.b64 %e, 1.0; setp.lt.u32 %p, %t, 8; mov.b32 %b, 4;
  cp.async.ca.shared.global.L2::cache_hint.L2::128B [%a], [%n], 4, %e;
  cp.async.ca.shared.global.L2::cache_hint [%a+128], [%n], 4, %b, %e;
  cp.async.ca.shared.global.L2::cache_hint [%a+256], [%n], 4, %p, %e;
  cp.async.wait_all; ld.shared.b32 %y, [%a]; ld.shared.b32 %b, [%a+128]; add.u32 %y, %y, %b; ld.shared.b32 %b, [%a+256];
  add.u32 %y, %y, %b;"""
    assert run(text, np.arange(32)).tolist() == [i * (2 if i < 8 else 3) for i in range(32)]


DEC, INC = ("setmaxnreg.{}.sync.aligned.u32 {};".format(*x) for x in (("dec", 40), ("inc", 232)))
PRODUCER = "setp.ne.u32 %p, %w, 0; @%p bra CONSUMER;"


@pytest.mark.emulator_only("how many registers there are is ptxas's choice; on a GPU these wait for ever")
def test_registers_handed_over() -> None:
    """Three warpgroups of 168 each: one gives back 128, the others take 64 each, even if they come first."""
    text = f"{PRODUCER} {DEC} mov.b32 %y, 1; bra OUT; CONSUMER: {INC} mov.b32 %y, 2; OUT:"
    assert run(text, np.zeros(384)).tolist() == [1] * 128 + [2] * 256
    late = f"setp.ne.u32 %p, %w, 2; @%p bra CONSUMER; {DEC} mov.b32 %y, 1; bra OUT; CONSUMER: {INC} mov.b32 %y, 2; OUT:"
    assert run(late, np.zeros(384)).tolist() == [2] * 256 + [1] * 128


REGISTERS = {
    "more than there are": (f"{PRODUCER} bra OUT; CONSUMER: !{INC} OUT:", 384,
                            "deadlock: .*for registers that no other warpgroup gives back"),
    "an increase that takes away": (
        "setmaxnreg.dec.sync.aligned.u32 96; !setmaxnreg.inc.sync.aligned.u32 40;", 384,
        "inc to 40 of a warp that has 96",
    ),
    "a decrease that adds": ("!setmaxnreg.dec.sync.aligned.u32 240;", 384, "dec to 240 of a warp that has 168"),
    "one warp alone": (
        f"setp.ge.u32 %p, %t, 32; @%p bra OUT; !{DEC} OUT: !mov.b32 %a, 1; st.global.b32 [%n], %a; exit;", 128,
        "(leaves without a setmaxnreg that warp 0 of its warpgroup executed|left without this setmaxnreg)",
    ),
    "three warps alone": (
        f"setp.lt.u32 %p, %t, 32; @%p bra OUT; !{DEC} OUT: !mov.b32 %a, 1; st.global.b32 [%n], %a; exit;", 128,
        "(leaves without a setmaxnreg that warp . of its warpgroup executed|warp 0 of the warpgroup left without)",
    ),
    "warps that disagree": (
        f"setp.ge.u32 %p, %t, 32; @%p bra B; !{DEC} bra OUT; B: !setmaxnreg.dec.sync.aligned.u32 48; OUT:", 128,
        "set different numbers of registers: warp . set 4[08]",
    ),
    "half a warp": (f"and.b32 %a, %t, 1; setp.eq.u32 %p, %a, 0; @%p bra OUT; !{DEC} OUT: bar.warp.sync -1;", 128,
                    "divergence"),
    "a block that ends within a warpgroup": ("!" + DEC, 64, "the block ends within one"),
    "brkpt": ("!brkpt;", 32, "executes brkpt"),
}  # fmt: skip


@pytest.mark.emulator_only("errors")
@pytest.mark.parametrize("what", REGISTERS)
def test_registers_misused(what: str) -> None:
    body, threads, message = REGISTERS[what]
    with pytest.raises(DeviceError, match=message) as error:
        run(body.replace("!", "\n.loc 1 77 0\n"), np.zeros(threads), assembles=False)
    assert "planted.cu:77" in str(error.value)


REFUSED = ["setmaxnreg.inc.sync.aligned.u32 100;", "setmaxnreg.dec.sync.aligned.u32 16;", "griddepcontrol.sync;",
           "add.cc.u16 %h, %h, %h;", "set.eq.f64.f32 %e, %x, %x;", "testp.finite.f16 %p, %h;",
           "fma.rn.oob.f16 %h, %h, %h, %h;", "vadd.s32.u32.s32.sat %y, %x.b0, %y.h1;", "alloca.u64 %e, 16;",
           "multimem.ld_reduce.global.add.f32 %y, [%m];", "ld.global.b32 %y, [%n], %e;"]  # fmt: skip


@pytest.mark.emulator_only("errors")
@pytest.mark.parametrize("line", REFUSED)
def test_what_is_not_executed_is_refused(line: str) -> None:
    with pytest.raises(DeviceError, match=r"(the emulator has no|PTX line)"):
        emulator().launch(kernel(f".reg .b16 %h; {line}"), [np.zeros(32, np.uint32)])
