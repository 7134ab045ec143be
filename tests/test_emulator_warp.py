"""Shuffles, votes, divergence, calls, atomics and address spaces on the emulator, against models of 32 lanes."""

from __future__ import annotations

import numpy as np
import pytest
from neurokern.backends import emulation
from neurokern.testing.ptx import HEADER, DeviceError, emulator, run_elementwise

pytestmark = [
    pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing())),
    pytest.mark.usefixtures("snippets"),
]

FULL = 0xFFFFFFFF
LANES = np.arange(32)


def body(text: str, shared: int = 0, extra: str = "") -> str:
    """A kernel of one array: %x is the thread's element, %y what is stored; %l the lane, %t the thread."""
    return f"""{HEADER}{extra}
.visible .entry kernel(.param .u64 data) {{
  .reg .pred %p, %q; .reg .b32 %x, %y, %l, %t, %a, %b, %c; .reg .b64 %m, %n, %o; .reg .f32 %f, %g;
  {f".shared .align 16 .b8 tile[{shared}];" if shared else ""}
  ld.param.u64 %m, [data]; mov.u32 %t, %tid.x; mov.u32 %l, %laneid;
  mad.wide.u32 %n, %t, 4, %m; ld.global.u32 %x, [%n]; mov.u32 %y, %x;
  {text}
  st.global.u32 [%n], %y;
  ret;
}}"""


def run(text: str, x: np.ndarray, threads: int | None = None, **options: object) -> np.ndarray:
    out = np.ascontiguousarray(x, np.uint32).copy()
    emulator().launch(body(text, **options), [out], block=(threads or len(out), 1, 1))
    return out


class TestShuffles:
    """Source lane and predicate by the pseudocode of the PTX ISA."""

    @pytest.mark.parametrize("width", [32, 16, 8, 4, 2])
    @pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
    def test_all_amounts(self, mode: str, width: int) -> None:
        segment = 32 - width
        x = LANES * 1000 + 7
        for amount in [0, 1, 2, 3, 5, 8, 15, 16, 31]:
            clamp = 0 if mode == "up" else 31
            text = f"shfl.sync.{mode}.b32 %y|%p, %x, {amount}, {segment << 8 | clamp}, -1; @!%p add.u32 %y, %y, 500;"
            got = run(text, x)
            for lane in range(32):
                low = lane & segment
                high = low | (clamp & ~segment)
                j = {
                    "up": lane - amount,
                    "down": lane + amount,
                    "bfly": lane ^ amount,
                    "idx": low | (amount & ~segment & 31),
                }[mode]
                inside = j >= high if mode == "up" else j <= high
                want = x[j] if inside else x[lane] + 500
                assert got[lane] == want, (mode, width, amount, lane)

    def test_half_a_warp_that_parted(self) -> None:
        """Lanes on either side of a branch shuffle among themselves."""
        text = """
  setp.lt.u32 %p, %l, 16;
  @%p bra LOW;
  shfl.sync.bfly.b32 %y, %x, 1, 31, 0xffff0000; bra.uni JOIN;
LOW: shfl.sync.bfly.b32 %y, %x, 2, 31, 0x0000ffff;
JOIN:"""
        got = run(text, LANES)
        assert got.tolist() == [(i ^ 2 if i < 16 else i ^ 1) for i in range(32)]

    def test_lanes_meet_behind_a_branch(self) -> None:
        text = """
  and.b32 %a, %l, 1; setp.eq.u32 %p, %a, 0; @%p bra EVEN;
  add.u32 %x, %x, 100; bra.uni JOIN;
EVEN: add.u32 %x, %x, 200;
JOIN: shfl.sync.idx.b32 %y, %x, 3, 31, -1;"""
        assert set(run(text, LANES).tolist()) == {103}


class TestVotes:
    def test_all_kinds(self, seed: int) -> None:
        generator = np.random.default_rng(seed)
        for x in [np.zeros(32), np.ones(32), *generator.integers(0, 2, (6, 32))]:
            x = x.astype(np.uint32)
            bits = int((x.astype(np.uint64) << LANES.astype(np.uint64)).sum())
            base = "setp.ne.u32 %p, %x, 0;"
            assert set(run(f"{base} vote.sync.ballot.b32 %y, %p, -1;", x).tolist()) == {bits}
            assert set(run(f"{base} vote.sync.all.pred %q, %p, -1; selp.u32 %y, 1, 0, %q;", x)) == {int(x.all())}
            assert set(run(f"{base} vote.sync.any.pred %q, %p, -1; selp.u32 %y, 1, 0, %q;", x)) == {int(x.any())}
            uniform = int(x.all() or not x.any())
            assert set(run(f"{base} vote.sync.uni.pred %q, !%p, -1; selp.u32 %y, 1, 0, %q;", x)) == {uniform}

    def test_match(self, seed: int) -> None:
        x = np.random.default_rng(seed).integers(0, 5, 32)
        want = [sum(1 << j for j in range(32) if x[j] == x[i]) for i in range(32)]
        assert run("match.any.sync.b32 %y, %x, -1;", x).tolist() == want
        assert set(run("match.all.sync.b32 %y|%p, %x, -1; @!%p mov.u32 %y, 9;", x).tolist()) == {9}
        assert set(run("match.all.sync.b32 %y|%p, %x, -1; @!%p mov.u32 %y, 9;", x * 0).tolist()) == {FULL}

    @pytest.mark.parametrize("op", ["add", "min", "max", "and", "or", "xor"])
    def test_reductions(self, op: str, seed: int) -> None:
        x = np.random.default_rng(seed).integers(0, 2**32, 32)
        f = {"add": sum, "min": min, "max": max}.get(op)
        for t in ("u32", "s32") if f else ("b32",):
            v = [int(i) - 2**32 * (t == "s32" and i >= 2**31) for i in x]
            want = f(v) if f else int(getattr(np, f"bitwise_{op}").reduce(x))
            assert set(run(f"redux.sync.{op}.{t} %y, %x, -1;", x).tolist()) == {want % 2**32}

    def test_elect(self) -> None:
        """One leader, whom all lanes know."""
        text = """elect.sync %a|%p, -1; vote.sync.ballot.b32 %b, %p, -1; popc.b32 %y, %b; bfind.u32 %b, %b;
  sub.u32 %a, %a, %b; mad.lo.u32 %y, %a, 100, %y;"""
        out = LANES.astype(np.uint32)
        emulator().launch(body(text).replace("sm_80", "sm_90a"), [out])
        assert set(out.tolist()) == {1}

    @pytest.mark.emulator_only("the ISA does not say who is elected, nor who is active")
    def test_elect_and_activemask(self) -> None:
        assert run("elect.sync %y|%p, -1; @%p mov.u32 %y, 77;", LANES).tolist() == [77, *[0] * 31]
        text = "setp.lt.u32 %p, %l, 5; @!%p bra JOIN; activemask.b32 %y; JOIN:"
        assert run(text, LANES).tolist() == [31] * 5 + list(range(5, 32))


class TestControl:
    def test_loops_of_different_length(self, seed: int) -> None:
        x = np.random.default_rng(seed).integers(0, 50, 64)
        text = """
  mov.u32 %a, 0; mov.u32 %y, 0;
LOOP: setp.ge.u32 %p, %a, %x; @%p bra OUT; add.u32 %y, %y, %a; add.u32 %a, %a, 1; bra LOOP;
OUT:"""
        assert run(text, x).tolist() == [sum(range(i)) for i in x]

    def test_branch_by_index(self) -> None:
        text = """
  and.b32 %a, %l, 3;
TABLE: .branchtargets A, B, C, A;
  brx.idx %a, TABLE;
A: mov.u32 %y, 10; bra OUT;
B: mov.u32 %y, 20; bra OUT;
C: mov.u32 %y, 30;
OUT: shfl.sync.idx.b32 %b, %y, 2, 31, -1; add.u32 %y, %y, %b;"""
        assert run(text, LANES).tolist() == [{0: 40, 1: 50, 2: 60, 3: 40}[i % 4] for i in range(32)]

    def test_a_call_by_some_lanes(self) -> None:
        """Parameters of 4 and 8 bytes and a struct, results, a function that calls another."""
        extra = """
.func (.param .b32 r) twice(.param .b32 a) {
  .reg .b32 %a; ld.param.u32 %a, [a]; add.u32 %a, %a, %a; st.param.b32 [r], %a; ret;
}
.func (.param .align 8 .b8 r[16]) both(.param .b32 a, .param .b64 b) {
  .reg .b32 %a, %c; .reg .b64 %b; .reg .pred %p;
  ld.param.u32 %a, [a]; ld.param.u64 %b, [b];
  setp.gt.u32 %p, %a, 20; @%p bra BIG;
  { .param .b32 x; .param .b32 y; st.param.b32 [x], %a; call.uni (y), twice, (x); ld.param.b32 %a, [y]; }
BIG: st.param.b32 [r], %a; st.param.b64 [r+8], %b; ret;
}"""
        text = """
  and.b32 %a, %l, 1; setp.eq.u32 %p, %a, 0; @%p bra JOIN;
  cvt.u64.u32 %o, %x; shl.b64 %o, %o, 33;
  { .param .b32 p0; .param .b64 p1; .param .align 8 .b8 q[16]; st.param.b32 [p0], %x; st.param.b64 [p1], %o;
    call (q), both, (p0, p1); ld.param.b32 %y, [q]; ld.param.b64 %o, [q+8]; }
  shr.u64 %o, %o, 33; cvt.u32.u64 %b, %o; mad.lo.u32 %y, %b, 1000, %y;
JOIN:"""
        want = [(i * 1000 + (i if i > 20 else 2 * i)) if i % 2 else i for i in range(32)]
        assert run(text, LANES, extra=extra).tolist() == want

    def test_lanes_that_leave_early(self) -> None:
        got = run("setp.gt.u32 %p, %l, 20; @%p exit; add.u32 %y, %y, 1;", LANES)
        assert got.tolist() == [i + 1 if i <= 20 else i for i in range(32)]

    def test_a_warp_with_few_threads(self) -> None:
        assert run("vote.sync.ballot.b32 %y, 1, 0x1ff;", np.arange(9)).tolist() == [0x1FF] * 9

    def test_named_barriers(self) -> None:
        """Two warps hand over through barrier 1, the others do not take part."""
        text = """
  setp.ge.u32 %p, %t, 64; @%p bra OUT;
  setp.ge.u32 %p, %t, 32; @%p bra TAKE;
  shl.b32 %a, %t, 2; mov.u32 %b, tile; add.u32 %b, %b, %a; st.shared.u32 [%b], %x; bar.arrive 1, 64; bra OUT;
TAKE: bar.sync 1, 64; sub.u32 %a, 63, %t; shl.b32 %a, %a, 2; mov.u32 %b, tile; add.u32 %b, %b, %a;
  ld.shared.u32 %y, [%b];
OUT:"""
        got = run(text, np.arange(128) + 5, shared=128)
        assert got.tolist() == [i + 5 if not 32 <= i < 64 else 63 - i + 5 for i in range(128)]

    def test_a_warp_that_spins_lets_the_others_run(self) -> None:
        text = """
  setp.ge.u32 %p, %t, 32; @%p bra SET;
SPIN: ld.volatile.global.u32 %a, [%m+128]; setp.ne.u32 %q, %a, 77; @%q bra SPIN; bra OUT;
SET: mov.u32 %y, 77; st.volatile.global.u32 [%n], %y; ret;
OUT:"""
        assert run(text, np.arange(64))[32:].tolist() == [77] * 32


class TestMemory:
    @pytest.mark.parametrize("space", ["shared", "local", "generic shared", "generic local"])
    def test_spaces(self, space: str) -> None:
        """Each thread's word in its own place, through vectors, bytes and halves."""
        kind = space.split()[-1]
        declare = "" if kind == "shared" else ".local .align 16 .b8 tile[64];"
        index = "shl.b32 %a, %t, 4; cvt.u64.u32 %o, %a;" if kind == "shared" else "mov.u64 %o, 16;"
        place = "" if " " not in space else f"cvta.{kind}.u64 %w, %w;"
        s = "" if " " in space else f".{kind}"
        text = f"""
  .reg .b64 %w; .reg .b16 %h; {declare}
  {index} mov.u64 %w, tile; {place} add.s64 %w, %w, %o;
  add.u32 %b, %x, 1; add.u32 %c, %x, 2;
  st{s}.v4.u32 [%w], {{%x, %b, %c, %t}};
  ld{s}.v2.u32 {{%a, %b}}, [%w+8];
  mul.lo.u32 %y, %a, 100; add.u32 %y, %y, %b;
  st{s}.u8 [%w+3], %x; ld{s}.s8 %c, [%w+3]; add.u32 %y, %y, %c; ld{s}.u16 %h, [%w+4]; cvt.u32.u16 %c, %h;
  add.u32 %y, %y, %c;"""
        x = (np.arange(64) * 7919 + 1234567).astype(np.uint32)
        low = (x & 255).astype(np.int64)
        want = (x.astype(np.int64) + 2) * 100 + np.arange(64) + low - 256 * (low > 127) + ((x + 1) & 0xFFFF)
        assert run(text, x, shared=1024 if kind == "shared" else 0).tolist() == (want % 2**32).tolist()

    def test_constants_and_globals(self) -> None:
        extra = """
.const .align 4 .u32 table[4] = {11, 22, 33, 44};
.global .align 8 .u32 cell[2] = {5, 6};"""
        text = """
  .reg .b64 %w; and.b32 %a, %l, 3; mul.wide.u32 %o, %a, 4; mov.u64 %w, table; add.s64 %w, %w, %o;
  ld.const.u32 %y, [%w]; mov.u64 %w, cell; cvta.global.u64 %w, %w; ld.u32 %a, [%w+4]; add.u32 %y, %y, %a;
  ld.const.u32 %a, [table+8]; add.u32 %y, %y, %a;"""
        assert run(text, LANES, extra=extra).tolist() == [11 * (i % 4 + 1) + 6 + 33 for i in range(32)]

    @pytest.mark.parametrize("space", ["global", "shared"])
    def test_atomics(self, space: str) -> None:
        """All threads on one word: sums do not depend on the order; inc wraps; cas succeeds once."""
        place = "mov.b64 %o, %m;" if space == "global" else "mov.u64 %o, tile;"
        start = "" if space == "global" else "st.shared.u32 [%o], 0; "
        for op, want in {
            "add.u32 {0}, [%o], 3": 64 * 3,
            "max.s32 {0}, [%o], %t": 63,
            "or.b32 {0}, [%o], %t": 63,
            "inc.u32 {0}, [%o], 6": 64 % 7,
            "exch.b32 {0}, [%o], 9": 9,
            "cas.b32 {0}, [%o], 0, 5": 5,
        }.items():
            for form in ("atom", "red"):
                if form == "red" and ("exch" in op or "cas" in op):
                    continue
                operation = op.format("%a").replace("%a, ", "" if form == "red" else "%a, ", 1)
                text = f"""
  {place} setp.ne.u32 %p, %t, 0; @!%p {start or "mov.u32 %c, 0;"} bar.sync 0; add.u32 %c, %t, 1;
  {form}.{space}.{operation};
  bar.sync 0; mov.u32 %y, %x; @%p bra OUT; ld.{space}.u32 %y, [%o];
OUT: bar.sync 0;"""
                x = np.zeros(64, np.uint32)
                got = run(text.replace("@!%p st.shared", "@!%p st.shared"), x, shared=16 if space == "shared" else 0)
                assert got[0] == want, (space, form, op)

    def test_atomic_floats_of_many_blocks(self) -> None:
        """Blocks on several threads of the host add to one number."""
        text = """
  mov.f32 %f, 0f3F800000; red.global.add.f32 [%m+256], %f; ret;"""
        out = np.zeros(65, np.uint32)
        emulator().launch(body(text), [out], grid=(100, 1, 1), block=(64, 1, 1))
        assert out[64:].view(np.float32)[0] == 6400

    def test_special_registers(self) -> None:
        ptx = """
.visible .entry kernel(.param .u64 data) {
  .reg .b32 %a, %b, %c, %i; .reg .b64 %m;
  mov.u32 %a, %tid.z; mov.u32 %b, %ntid.y; mad.lo.u32 %i, %a, %b, 0; mov.u32 %b, %tid.y; add.u32 %i, %i, %b;
  mov.u32 %b, %ntid.x; mul.lo.u32 %i, %i, %b; mov.u32 %b, %tid.x; add.u32 %i, %i, %b;
  mov.u32 %c, %ctaid.y; mov.u32 %b, %nctaid.x; mul.lo.u32 %c, %c, %b; mov.u32 %b, %ctaid.x; add.u32 %c, %c, %b;
  mad.lo.u32 %a, %c, 24, %i; mul.lo.u32 %b, %c, 100; add.u32 %b, %b, %i;
  ld.param.u64 %m, [data]; mad.wide.u32 %m, %a, 4, %m; st.global.u32 [%m], %b; ret;
}"""
        out = np.zeros(6 * 24, np.uint32)
        emulator().launch(ptx, [out], grid=(3, 2, 1), block=(2, 3, 4))
        assert out.tolist() == [c * 100 + i for c in range(6) for i in range(24)]


class TestMoves:
    def test_packing(self, seed: int) -> None:
        x = np.random.default_rng(seed).integers(0, 2**32, 100)
        swap = ".reg .b16 %h, %k; mov.b32 {{%h, %k}}, {a}; mov.b32 {d}, {{%k, %h}};"
        assert run_elementwise(swap, "b32", [("b32", x)]).tolist() == [(v >> 16 | v << 16) & FULL for v in x.tolist()]
        wide = ".reg .b32 %x, %y; mov.b64 {{%x, %y}}, {a}; mov.b64 {d}, {{%y, %x}};"
        y = x.astype(np.uint64) << np.uint64(32) | np.uint64(7)
        assert run_elementwise(wide, "b64", [("b64", y)]).tolist() == [7 << 32 | v for v in x.tolist()]


@pytest.mark.emulator_only("the emulator's errors")
class TestRefusals:
    """What is not executed is an error when the module is loaded, with both lines."""

    @pytest.mark.parametrize(
        "line",
        [
            "tcgen05.wait::ld.sync.aligned;",
            "add.rn.bf16x4 %x, %x, %x;",
            "vadd.s32.u32.s32.sat %x, %x, %x;",
            "alloca.u64 %m, 16;",
        ],
    )
    def test_unsupported(self, line: str) -> None:
        source = '.file 1 "/somewhere/kernels/cuda/thing.cu"'
        text = f"{source}\n.visible .entry kernel() {{\n.reg .b32 %x;\n.loc 1 42 0\n{line}\nret;\n}}"
        with pytest.raises(DeviceError, match=r"kernels/cuda/thing\.cu:42") as error:
            emulator().launch(text, [])
        assert line in str(error.value)
        assert "PTX line 8" in str(error.value)

    @pytest.mark.parametrize("text", ["nonsense", ".version 9.0 .entry kernel( {", ".version 9.0\n@@", "\x7fELF"])
    def test_no_ptx(self, text: str) -> None:
        with pytest.raises(DeviceError):
            emulator().launch(".version\n" + text, [])
