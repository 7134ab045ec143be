"""What a PTX text says besides instructions: blocks with names of their own, constant expressions, initial values."""

from __future__ import annotations

import numpy as np
import pytest
from neurokern.backends import emulation
from neurokern.testing.ptx import HOPPER, DeviceError, emulator
from neurokern.testing.ptxas import complaint

pytestmark = [
    pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing())),
    pytest.mark.usefixtures("snippets"),
]


def run(body: str, module: str = "") -> int:
    """What the body leaves in %r0, in a kernel of one warp; %r1 is the lane."""
    text = f"""{HOPPER}{module}
.visible .entry kernel(.param .u64 out) {{
  .reg .b32 %r<20>; .reg .b64 %rd<20>; .reg .f32 %f<9>; .reg .b16 %h<9>; .reg .pred %p<9>;
  ld.param.u64 %rd0, [out]; mov.b32 %r0, 0; mov.u32 %r1, %tid.x;
  {body}
  st.global.u32 [%rd0], %r0; ret;
}}"""
    assert complaint(text) == ""
    out = np.zeros(1, np.uint32)
    emulator().launch(text, [out])
    return int(out[0])


LOOP = "mov.b32 %r2, 0; {{ L: add.u32 %r0, %r0, {}; add.u32 %r2, %r2, 1; setp.lt.u32 %p0, %r2, {}; @%p0 bra L; }}"
SWITCH = """{{ table: .branchtargets A, B; mov.b32 %r3, {}; brx.idx %r3, table;
  A: add.u32 %r0, %r0, {}; B: add.u32 %r0, %r0, {}; }}"""


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        # as inline asm that is inlined twice leaves it: a label of the same name in each block
        (LOOP.format(1, 3) + LOOP.format(100, 4), 403),
        ("{ bra M; mov.b32 %r0, 1; M: add.u32 %r0, %r0, 8; } bra M; mov.b32 %r0, 2; M: add.u32 %r0, %r0, 16;", 24),
        ("{ { bra M; add.u32 %r0, %r0, 1; M: } bra M; add.u32 %r0, %r0, 2; M: add.u32 %r0, %r0, 4; }", 4),
        ("{ { bra M; } add.u32 %r0, %r0, 2; M: add.u32 %r0, %r0, 4; }", 4),
        (SWITCH.format(1, 1, 8) + SWITCH.format(0, 16, 64), 88),
        # variables, of the same width and of another, alone and in families
        (".reg .b32 t; mov.b32 t, 5; { .reg .b32 t; mov.b32 t, 9; } mov.b32 %r0, t;", 5),
        (".reg .b32 t; mov.b32 t, 5; { .reg .b64 t; mov.b64 t, 9; } mov.b32 %r0, t;", 5),
        (".reg .b32 t; mov.b32 t, 5; { .reg .b32 t; mov.b32 t, 9; mov.b32 %r0, t; }", 9),
        ("mov.b32 %r3, 5; { .reg .b32 %r<4>; mov.b32 %r3, 9; } mov.b32 %r0, %r3;", 5),
        ("mov.b32 %r12, 5; { .reg .b32 %r<4>; mov.b32 %r3, 9; add.u32 %r12, %r12, %r3; } mov.b32 %r0, %r12;", 14),
        (".reg .pred q; setp.eq.u32 q, 1, 1; { .reg .pred q; setp.ne.u32 q, 1, 1; @q mov.b32 %r0, 1; }"
         "@q add.u32 %r0, %r0, 2;", 2),
        # memory: each block has its own
        ("{ .local .b8 a[16]; st.local.b32 [a+12], 7; { .local .b8 a[32]; st.local.b32 [a+12], 8; }"
         "ld.local.b32 %r0, [a+12]; }", 7),
        ("{ .local .b32 a[2]; st.local.b32 [a+4], 7; }"
         "{ .local .b32 a[1]; st.local.b32 [a], 8; ld.local.b32 %r0, [a]; }", 8),
    ],
)  # fmt: skip
def test_names_of_a_block(body: str, expected: int) -> None:
    assert run(body) == expected


def test_directives_without_a_space() -> None:
    """As cuda_bf16.h writes them."""
    assert run("{.reg.b32 t; .local.align 8 .b8 a[16]; mov.b32 t, 5; st.local.b32 [a], t; ld.local.b32 %r0, [a];}") == 5


def test_each_block_has_its_own_shared_memory() -> None:
    body = "{ .shared .b32 a; st.shared.b32 [a], 7; { .shared .b32 a; st.shared.b32 [a], 8; } ld.shared.b32 %r0, [a]; }"
    assert run(body) == 7


@pytest.mark.emulator_only("errors")
def test_a_label_declared_twice_is_an_error() -> None:
    text = HOPPER + ".visible .entry kernel() { L: L: ret; }"
    with pytest.raises(DeviceError, match="label L is declared twice"):
        emulator().function(text, "kernel")


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("3+4", 7), ("9-4", 5), ("(3+4)*2", 14), ("3+4*2", 11), ("20/4/5", 1), ("17 % 5", 2), ("1<<5", 32),
        ("1|6", 7), ("7&5|8", 13), ("6^5", 3), ("~0", -1), ("-(4)", -4), ("+4", 4), ("!4", 0), ("!0", 1),
        ("1 ? 7 : 8", 7), ("0 ? 7 : 1 ? 8 : 9", 8), ("2>1 && 3>=3", 1), ("2<1 || 3!=3", 0), ("-8>>1", -4),
        ("-8/3", -2), ("(.u64)-1 > 1", 1), ("-1 > 1", 0), ("(.s64)4", 4), ("WARP_SZ-1", 31), ("2*WARP_SZ", 64),
        ("0x10+010+0b11", 27), ("1<<2+1", 8), ("1 == 1 ? 2 : 3", 2),
    ],
)  # fmt: skip
def test_constant_expressions(expression: str, expected: int) -> None:
    assert run(f"mov.b32 %r0, {expression};") == expected % 2**32


@pytest.mark.parametrize(
    ("literal", "expected"),
    [(".5", 0.5), ("5.", 5), ("1e3", 1000), ("1.0+0.5", 1.5), ("-(1.5*2.0)", -3), ("3.0/2.0-0.25", 1.25)],
)
def test_floating_constants(literal: str, expected: float) -> None:
    assert np.uint32(run(f"mov.f32 %f0, {literal}; mov.b32 %r0, %f0;")).view(np.float32) == expected


def test_addresses_with_expressions() -> None:
    body = ".local .b32 a[8]; st.local.b32 [a+2*4], 11; mov.u32 %r3, a+(3*4); ld.local.b32 %r0, [%r3+-4];"
    assert run(body) == 11


F32 = {x: int(np.float32(x).view(np.uint32)) for x in (1, 1.5, -1.5)}


@pytest.mark.parametrize(
    ("variable", "offset", "expected"),
    [
        (".f32 g = 1.5", 0, F32[1.5]), (".f32 g = -1.5", 0, F32[-1.5]), (".f32 g = 0d3ff8000000000000", 0, F32[1.5]),
        (".f32 g = 0f3f800000", 0, F32[1]), (".f32 g[2] = {1.0, 1.0 + 0.5}", 4, F32[1.5]),
        (".f64 g = 1.5", 4, 0x3FF80000), (".f64 g = 0f3fc00000", 4, 0x3FF80000),
        (".b32 g[2][3] = {{1}, {2, 3}}", 12, 2), (".b32 g[2][3] = {{1}, {2, 3}}", 4, 0),
        (".b32 g[2][2][2] = {{{1}, {2}}, {{3, 4}}}", 8, 2), (".b32 g[2][2][2] = {{{1}, {2}}, {{3, 4}}}", 20, 4),
        (".b32 g[3] = {1 << 9, 3 * 4 + 1}", 0, 512), (".b32 g[3] = {1 << 9, 3 * 4 + 1}", 4, 13),
        (".b32 f = 1, g = 2", 0, 2), (".b32 f[2] = {1, 3}, g[2] = {4, 5}", 4, 5),
        (".attribute(.managed) .b32 g = 7", 0, 7),
    ],
)  # fmt: skip
def test_initial_values(variable: str, offset: int, expected: int) -> None:
    assert run(f"ld.global.b32 %r0, [g+{offset}];", f".global {variable};") == expected


def test_an_initial_address_with_an_expression() -> None:
    module = ".global .b32 a[4] = {1, 2, 3, 4}; .global .u64 g = a + 16 - 2 * 4;"
    assert run("ld.global.u64 %rd3, [g]; ld.global.b32 %r0, [%rd3];", module) == 3


def test_a_function_under_another_name() -> None:
    module = ".visible .func (.reg .b32 a) f1() { mov.b32 a, 7; ret; }"
    assert run("call (%r0), f2;", module + " .visible .func (.reg .b32 a) f2(); .alias f2, f1;") == 7


def test_arguments_that_are_numbers() -> None:
    module = ".func (.reg .b32 r) f(.reg .b32 a, .reg .f32 b) { .reg .b32 c; mov.b32 c, b; add.u32 r, a, c; ret; }"
    assert run("call (%r0), f, (41, 0f3f800000);", module) == 41 + F32[1]
    assert run("call (_), f, (41, 0f3f800000); mov.b32 %r0, 1;", module) == 1


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("setp.eq.u32 %p0, 1, 1; selp.b32 %r0, 3, 4, !%p0;", 4),
        ("setp.eq.u32 %p0, 1, 1; and.pred %p1, %p0, !%p0; selp.b32 %r0, 3, 4, %p1;", 4),
        ("setp.eq.u32 %p0, 1, 1; or.pred %p1, !%p0, !%p0; selp.b32 %r0, 3, 4, %p1;", 4),
        ("setp.eq.u32 %p0, 1, 1; xor.pred %p1, !%p0, %p0; selp.b32 %r0, 3, 4, %p1;", 3),
        ("setp.eq.u32 %p0, 1, 1; not.pred %p1, !%p0; selp.b32 %r0, 3, 4, %p1;", 3),
        ("setp.eq.u32 %p0, 1, 1; mov.pred %p1, !%p0; selp.b32 %r0, 3, 4, %p1;", 4),
    ],
)  # fmt: skip
def test_negated_predicates(body: str, expected: int) -> None:
    assert run(body) == expected


def test_a_parameter_of_the_entry() -> None:
    body = "ld.param::entry.u64 %rd1, [out]; mov.b64 %rd2, out; cvta.param::entry.u64 %rd2, %rd2; ld.u64 %rd3, [%rd2];"
    assert (
        run(body + " setp.eq.u64 %p0, %rd1, %rd0; setp.eq.and.u64 %p0, %rd3, %rd0, %p0; selp.b32 %r0, 1, 0, %p0;") == 1
    )


def test_accesses_to_memory_of_devices() -> None:
    body = "st.mmio.relaxed.sys.global.u32 [%rd0], 5; ld.mmio.relaxed.sys.global.u32 %r0, [%rd0];"
    assert run(body) == 5


def test_modifiers_behind_the_type() -> None:
    """As CUDA's own headers have them."""
    assert run("mov.b32 %r2, 0xfff00005; mov.b32 %r3, 0xfff10004; max.s16x2.relu %r0, %r2, %r3;") == 5
    assert run("mov.b32 %r2, 0xfff00005; min.s32.relu %r0, %r2, 4;") == 0
    assert run("mov.f32 %f1, 0f40400000; add.f32.rn.sat %f0, %f1, %f1; mov.b32 %r0, %f0;") == F32[1]
