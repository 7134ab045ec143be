"""Calls on the emulator: recursion, calls by address, printf and assert, in PTX by hand."""

from __future__ import annotations

import numpy as np
import pytest
from neurokern.backends import emulation
from neurokern.testing.ptx import HEADER, HOPPER, DeviceError, emulator
from neurokern.testing.ptxas import complaint

pytestmark = [
    pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing())),
    pytest.mark.usefixtures("snippets"),
]

errors = pytest.mark.emulator_only("errors")
prints = pytest.mark.emulator_only("what is printed")
LANES = np.arange(32, dtype=np.uint32)


def run(
    text: str, outside: str, x: np.ndarray = LANES, good: bool = True, header: str = HEADER, shared: int = 0
) -> np.ndarray:
    """A kernel of one array: %x is the thread's element, %y what is stored; `outside`: what stands in front of it.
    `good`: whether the assembler has to take it."""
    ptx = f"""{header}{outside}
.visible .entry kernel(.param .u64 data) {{
  .reg .pred %p, %q; .reg .b32 %x, %y, %l, %a, %b; .reg .b64 %m, %n, %o, %f;
  ld.param.u64 %m, [data]; mov.u32 %l, %tid.x; mad.wide.u32 %n, %l, 4, %m; ld.global.u32 %x, [%n]; mov.u32 %y, %x;
  {text}
  st.global.u32 [%n], %y;
  ret;
}}"""
    assert not good or not complaint(ptx), complaint(ptx)
    out = np.ascontiguousarray(x, np.uint32).copy()
    emulator().launch(ptx, [out], block=(len(out), 1, 1), shared=shared)
    return out


def function(name: str, text: str) -> str:
    """A device function from %x to %y."""
    return f"""
.func (.param .b32 result) {name}(.param .b32 given) {{
  .reg .pred %p, %q; .reg .b32 %x, %y, %a, %b; .reg .b64 %m, %n, %o;
  ld.param.b32 %x, [given]; mov.u32 %y, %x;
  {text}
  st.param.b32 [result], %y; ret;
}}
"""


def call(name: str, argument: str, result: str, prototype: str = "") -> str:
    behind = f", {prototype}" if prototype else ""
    return f"""{{ .param .b32 in; .param .b32 out; st.param.b32 [in], {argument};
  call (out), {name}, (in){behind}; ld.param.b32 {result}, [out]; }}"""


FIBONACCI = function(
    "fib",
    f"""setp.lt.u32 %p, %x, 2; @%p bra DONE;
  sub.u32 %a, %x, 1; {call("fib", "%a", "%y")} sub.u32 %a, %x, 2; {call("fib", "%a", "%b")} add.u32 %y, %y, %b;
DONE:""",
)
# the sum of what each call left in its own array: x + (x - 1) + ... + 1, and of its neighbour in the caller's
LOCALS = ".func (.param .b32 result) sum(.param .b32 given, .param .b64 above);" + (
    """
.func (.param .b32 result) sum(.param .b32 given, .param .b64 above) {
  .local .align 8 .b8 kept[16]; .reg .pred %p; .reg .b32 %x, %y, %a, %b, %s; .reg .b64 %m, %n, %c;
  ld.param.b32 %x, [given]; ld.param.b64 %n, [above];
  mov.u64 %m, kept; cvta.local.u64 %c, %m; st.local.u32 [kept+4], %x; st.u32 [%n], %x;
  mov.u32 %y, 0; setp.eq.u32 %p, %x, 0; @%p bra DONE; sub.u32 %a, %x, 1; add.u64 %m, %c, 8;
  { .param .b32 in; .param .b64 to; .param .b32 out; st.param.b32 [in], %a; st.param.b64 [to], %m;
    call (out), sum, (in, to); ld.param.b32 %y, [out]; }
  ld.u32 %b, [%c+4]; add.u32 %y, %y, %b; mov.u32 %s, kept; ld.local.u32 %b, [%s+8];
  add.u32 %b, %b, 1; sub.u32 %b, %x, %b; add.u32 %y, %y, %b;
DONE: st.param.b32 [result], %y; ret;
}
"""
)


class TestRecursion:
    def test_lanes_of_different_depth(self) -> None:
        want = [0, 1]
        while len(want) < 12:
            want.append(want[-1] + want[-2])
        got = run("rem.u32 %a, %x, 12;" + call("fib", "%a", "%y"), FIBONACCI)
        assert got.tolist() == [want[k % 12] for k in range(32)]

    def test_functions_that_call_each_other(self) -> None:
        """even and odd; what their registers hold differs in width, and lanes are in both at once."""

        def other(name: str, zero: int) -> str:
            wide = "cvt.u64.u32 %m, %x; sub.u64 %m, %m, 1; cvt.u32.u64 %a, %m;" if zero else "sub.u32 %a, %x, 1;"
            text = f"setp.eq.u32 %p, %x, 0; mov.u32 %y, {zero}; @%p bra DONE; {wide} {call(name, '%a', '%y')} DONE:"
            return function("even" if zero else "odd", text)

        declared = ".func (.param .b32 result) odd(.param .b32 given);"
        got = run(call("even", "%x", "%y"), declared + other("odd", 1) + other("even", 0))
        assert got.tolist() == [1 - k % 2 for k in range(32)]

    def test_each_call_has_its_own_local_variables(self) -> None:
        text = """{ .local .align 4 .b8 mine[4]; .param .b32 in; .param .b64 to; .param .b32 out;
  mov.u64 %m, mine; cvta.local.u64 %m, %m; st.param.b32 [in], %x; st.param.b64 [to], %m;
  call (out), sum, (in, to); ld.param.b32 %y, [out]; ld.local.u32 %a, [mine]; sub.u32 %a, %a, %x;
  add.u32 %y, %y, %a; }"""
        assert run(text, LOCALS).tolist() == [k * (k + 1) // 2 for k in range(32)]

    @pytest.mark.emulator_only("needs a larger stack than a GPU gives")
    def test_many_calls(self) -> None:
        """Each 1000 deep."""
        text = f"setp.eq.u32 %p, %x, 0; @%p bra DONE; sub.u32 %a, %x, 1; {call('sum', '%a', '%b')}"
        got = run("add.u32 %a, %x, 1000;" + call("sum", "%a", "%y"), function("sum", text + "add.u32 %y, %b, %x;DONE:"))
        assert got.tolist() == [(k + 1000) * (k + 1001) // 2 for k in range(32)]

    def test_lanes_that_wait_in_another_function(self) -> None:
        """Half a warp waits within one function for what the other half does in another: their registers, which differ
        in width, lie apart."""
        outside = """
.func (.param .b32 result) waits(.param .b32 given, .param .b32 at) {
  .reg .pred %p; .reg .b32 %x, %b; .reg .b64 %m, %n, %o;
  ld.param.b32 %x, [given]; ld.param.b32 %b, [at];
  cvt.u64.u32 %m, %x; mul.lo.u64 %n, %m, 0x300000007; mul.lo.u64 %o, %m, 5;
WAIT: mbarrier.try_wait.parity.shared.b64 %p, [%b], 0; @!%p bra WAIT;
  shr.u64 %m, %n, 32; sub.u64 %m, %m, %o; cvt.u32.u64 %x, %m; st.param.b32 [result], %x; ret;
}
.func (.param .b32 result) comes(.param .b32 given, .param .b32 at) {
  .reg .pred %p; .reg .b32 %x, %b, %c<20>; .reg .b64 %s;
  ld.param.b32 %x, [given]; ld.param.b32 %b, [at];""" + (
            "".join(f"mov.u32 %c{k}, -1;" for k in range(20))
            + """mbarrier.arrive.shared.b64 %s, [%b]; add.u32 %x, %x, %c19; st.param.b32 [result], %x; ret;
}
"""
        )
        both = [
            f"{{ .param .b32 a; .param .b32 b; .param .b32 r; st.param.b32 [a], %x; st.param.b32 [b], %b; "
            f"call (r), {name}, (a, b); ld.param.b32 %y, [r]; }}"
            for name in ("waits", "comes")
        ]
        text = f"""{{ .shared .align 8 .b64 bar; mov.u32 %b, bar; setp.eq.u32 %p, %l, 0;
  @%p mbarrier.init.shared.b64 [bar], 16; }} bar.warp.sync -1;
  setp.ge.u32 %p, %l, 16; @%p bra HIGH; {both[0]} bra OUT; HIGH: {both[1]} OUT:"""
        got = run(text, outside, LANES + 100, header=HOPPER)
        assert got.tolist() == [(-2 * k) % 2**32 if k < 116 else k - 1 for k in range(100, 132)]

    @errors
    def test_a_recursion_without_end(self) -> None:
        for text, outside in (
            (call("on", "%x", "%y"), function("on", f"add.u32 %a, %x, 1; {call('on', '%a', '%y')}")),
            ("call on;", ".func on() { call on; ret; }"),  # that takes no memory
        ):
            with pytest.raises(
                DeviceError, match=r"kernel kernel, .*thread \(0, 0, 0\): stack overflow: on is called \d+"
            ):
                run(text, outside)

    @errors
    def test_a_recursion_that_takes_too_long(self) -> None:
        emulation.set_option("seconds", 1)
        try:
            with pytest.raises(DeviceError, match="no end after 1 seconds; warp 0 stands at"):
                run("mov.u32 %x, 60;" + call("fib", "%x", "%y"), FIBONACCI)
        finally:
            emulation.set_option("seconds", 120)

    @errors
    def test_a_local_variable_out_of_bounds(self) -> None:
        with pytest.raises(DeviceError, match=r"of local memory at address .* out of bounds"):
            run("mov.u64 %m, 0x1000000; ld.local.u32 %y, [%m];" + call("fib", "%y", "%y"), FIBONACCI)


ONE = ".callprototype (.param .b32 _) _ (.param .b32 _);"
MAPS = function("twice", "add.u32 %y, %x, %x;") + function("square", "mul.lo.u32 %y, %x, %x;")
TABLE = MAPS + ".global .align 8 .u64 table[3] = {twice, square, twice};\n"


class TestByAddress:
    def test_of_a_register(self) -> None:
        got = run(f"mov.u64 %f, square; one: {ONE} {call('%f', '%x', '%y', 'one')}", MAPS)
        assert got.tolist() == (LANES**2).tolist()

    @pytest.mark.parametrize("guard", ["", "@%p "])
    def test_lanes_with_different_targets(self, guard: str) -> None:
        """They part, and are together behind the call: the shuffle names them all."""
        text = f"""rem.u32 %a, %l, 3; mad.wide.u32 %o, %a, 8, 0; mov.u64 %f, table; add.u64 %o, %o, %f;
  ld.global.u64 %f, [%o]; setp.ne.u32 %p, %l, 7; setp.ne.u32 %q, %l, 40; one: {ONE}
  {call("%f", "%x", "%y", "one").replace("call", guard + "call")}
  @!%p mov.u32 %y, 99; shfl.sync.bfly.b32 %y, %y, 1, 31, -1;"""
        want = [(k + 5) * (k + 5) if k % 3 == 1 else 2 * (k + 5) for k in range(32)]
        want[7] = 99
        assert run(text, TABLE, LANES + 5).tolist() == [want[k ^ 1] for k in range(32)]

    def test_targets_by_name(self) -> None:
        text = f"""setp.lt.u32 %p, %l, 9; mov.u64 %f, twice; mov.u64 %o, square; selp.b64 %f, %f, %o, %p;
  those: .calltargets twice, square; {call("%f", "%x", "%y", "those")}"""
        assert run(text, MAPS).tolist() == [2 * k if k < 9 else k * k for k in range(32)]

    def test_a_function_without_results(self) -> None:
        text = """.func keep(.param .b64 to, .param .b32 x) { .reg .b64 %m; .reg .b32 %x; ld.param.b64 %m, [to];
  ld.param.b32 %x, [x]; add.u32 %x, %x, 9; st.global.u32 [%m], %x; ret; }"""
        call_ = """mov.u64 %f, keep; { .param .b64 a; .param .b32 b; st.param.b64 [a], %n; st.param.b32 [b], %x;
  p: .callprototype _ (.param .b64 _, .param .b32 _); call %f, (a, b), p; } ld.global.u32 %y, [%n];"""
        assert run(call_, text).tolist() == (LANES + 9).tolist()

    def test_small_parameters(self) -> None:
        """Bytes and halves of a struct, from registers and numbers."""
        text = """.func (.param .b32 r) parts(.param .align 4 .b8 x[8]) { .reg .b16 %h; .reg .b32 %a, %b;
  ld.param.u8 %a, [x]; ld.param.s8 %b, [x+1]; mad.lo.u32 %a, %b, 1000, %a; ld.param.u16 %h, [x+2];
  cvt.u32.u16 %b, %h; mad.lo.u32 %a, %b, 100000, %a; ld.param.b32 %b, [x+4]; add.u32 %a, %a, %b;
  st.param.b32 [r], %a; ret; }"""
        call_ = """{ .reg .b16 %h; cvt.u16.u32 %h, %x; .param .align 4 .b8 x[8]; .param .b32 r; st.param.b8 [x], 200;
  st.param.b8 [x+1], 255; st.param.b16 [x+2], %h; st.param.b32 [x+4], 7; call (r), parts, (x);
  ld.param.b32 %y, [r]; }"""
        assert run(call_, text).tolist() == [(200 - 1000 + 100000 * k + 7) % 2**32 for k in range(32)]

    def test_recursion_by_address(self) -> None:
        """A function that gets its own address from a table."""
        text = f"""setp.eq.u32 %p, %x, 0; @%p bra DONE; ld.global.u64 %m, [self]; sub.u32 %a, %x, 1;
  one: {ONE} {call("%m", "%a", "%b", "one")} add.u32 %y, %x, %b; DONE:"""
        outside = """.func (.param .b32 result) sum(.param .b32 given); .global .align 8 .u64 self = sum;"""
        assert run(call("sum", "%x", "%y"), outside + function("sum", text)).tolist() == [
            k * (k + 1) // 2 for k in range(32)
        ]

    def test_addresses_as_initial_values(self) -> None:
        """Of variables and parts of them, in their space and generic; of functions in constant memory; bytes of one."""
        outside = (
            MAPS
            + """
.global .align 4 .u32 words[4] = {10, 20, 30, 40}; .const .align 4 .u32 fixed[2] = {100, 200};
.const .align 8 .u64 maps[2] = {square, twice};
.global .align 8 .u64 places[4] = {words+4, generic(words)+8, generic(fixed)+4, 0};
.global .align 8 .u8 bytes[8] = {0xFF(words), 0xFF00(words), 0xFF0000(words), 0xFF000000(words), 0xFF00000000(words),
  0xFF0000000000(words), 0xFF000000000000(words), 0xFF00000000000000(words)};
"""
        )
        text = f"""ld.const.u64 %f, [maps+8]; one: {ONE} {call("%f", "%x", "%y", "one")}
  ld.global.u64 %o, [places]; ld.global.u32 %a, [%o]; add.u32 %y, %y, %a;
  ld.global.u64 %o, [places+8]; ld.u32 %a, [%o]; add.u32 %y, %y, %a;
  ld.global.u64 %o, [places+16]; ld.u32 %a, [%o]; add.u32 %y, %y, %a;
  ld.global.u64 %o, [bytes]; ld.global.u32 %a, [%o+12]; add.u32 %y, %y, %a;"""
        assert run(text, outside).tolist() == (2 * LANES + 20 + 30 + 200 + 40).tolist()

    @errors
    @pytest.mark.parametrize("address", ["0", "1234", "table", "%n"])
    def test_an_address_of_no_function(self, address: str) -> None:
        text = f"mov.u64 %f, {address}; one: {ONE} {call('%f', '%x', '%y', 'one')}"
        with pytest.raises(DeviceError, match=r"thread \(0, 0, 0\): calls address 0x[0-9a-f]+, where no function is"):
            run(text, TABLE)

    @errors
    def test_a_prototype_of_another_function(self) -> None:
        text = "mov.u64 %f, more; one: " + ONE + call("%f", "%x", "%y", "one")
        outside = function("more", "").replace("given)", "given, .param .b32 second)")
        with pytest.raises(DeviceError, match="more, whose parameters are not those of the call's prototype"):
            run(text, outside)

    @pytest.mark.parametrize("used", [False, True])
    def test_a_kernel_with_static_and_dynamic_shared_memory(self, used: bool) -> None:
        """A function that uses the dynamic one itself knows one address of it for all kernels."""
        outside = ".extern .shared .align 16 .b8 rest[];" + (
            MAPS.replace("add.u32", "mov.u32 %a, rest; st.shared.u32 [%a+124], 9; add.u32") if used else MAPS
        )
        text = f""".shared .align 4 .b8 own[128]; shl.b32 %a, %l, 2; mov.u32 %b, own; add.u32 %a, %a, %b;
  st.shared.u32 [%a], %x; {call("twice", "%x", "%y")} ld.shared.u32 %a, [%a]; add.u32 %y, %y, %a;"""
        if used:
            text += " ld.shared.u32 %a, [rest+124]; add.u32 %y, %y, %a;"
        assert run(text, outside, shared=128).tolist() == (3 * LANES + 9 * used).tolist()

    @errors
    def test_a_function_defined_twice(self) -> None:
        with pytest.raises(DeviceError, match="twice is defined twice"):
            run("", MAPS + MAPS, good=False)

    @errors
    @pytest.mark.parametrize("wrong", ["call (out), %f, (in), missing;", "call (out), %f, (in, in), one;"])
    def test_calls_that_are_refused(self, wrong: str) -> None:
        text = f"mov.u64 %f, square; one: {ONE} {{ .param .b32 in; .param .b32 out; {wrong} }}"
        with pytest.raises(DeviceError, match=r"the emulator has no 'mov.u64 %f, square.*call"):
            run(text, MAPS, good=False)


PRINTF = ".extern .func (.param .b32 n) vprintf(.param .b64 format, .param .b64 arguments);\n"


def text_of(name: str, text: str) -> str:
    data = [*text.encode(), 0]
    return f".global .align 1 .b8 {name}[{len(data)}] = {{{', '.join(map(str, data))}}};\n"


def print_of(stores: str, format_: str = "format") -> str:
    """Arguments are stored to `%o`, the number of them comes back in %y."""
    return f"""{{ .local .align 8 .b8 kept[64]; .param .b64 f; .param .b64 a; .param .b32 n;
  mov.u64 %f, {format_}; {"cvta.global.u64 %f, %f;" if format_ != "0" else ""}
  mov.u64 %o, kept; {stores} cvta.local.u64 %o, %o;
  st.param.b64 [f], %f; st.param.b64 [a], %o; call (n), vprintf, (f, a); ld.param.b32 %y, [n]; }}"""


class TestPrintf:
    def test_what_it_returns(self) -> None:
        """The number of its arguments; -1 where there is no format."""
        outside = PRINTF + text_of("format", "")
        assert run(print_of(""), outside).tolist() == [0] * 32
        assert run(print_of("", "0"), outside).tolist() == [0xFFFFFFFF] * 32

    @prints
    def test_numbers_of_every_size(self, capfd: pytest.CaptureFixture[str]) -> None:
        """Arguments are aligned as in C; lanes print one after the other."""
        outside = PRINTF + text_of("format", "%d|%5.2f|%-4u|%+lld|%c %#x %hhd%%\n")
        stores = """st.local.u32 [%o], %x; st.local.u64 [%o+8], 0x3FF8000000000000; st.local.u32 [%o+16], 7;
  st.local.u64 [%o+24], -5000000000; st.local.u32 [%o+32], 65; st.local.u32 [%o+36], 255; st.local.u32 [%o+40], 511;"""
        assert run(print_of(stores), outside, LANES[:3]).tolist() == [7] * 3
        assert capfd.readouterr().out == "".join(f"{k}| 1.50|7   |-5000000000|A 0xff -1%\n" for k in range(3))

    @prints
    def test_texts_and_widths_from_arguments(self, capfd: pytest.CaptureFixture[str]) -> None:
        outside = PRINTF + text_of("format", "[%*d] [%-*.*s] [%s] %y\n") + text_of("name", "emulator")
        stores = """st.local.u32 [%o], 5; st.local.u32 [%o+4], %x; st.local.u32 [%o+8], 6; st.local.u32 [%o+12], 3;
  mov.u64 %m, name; cvta.global.u64 %m, %m; st.local.u64 [%o+16], %m; st.local.u64 [%o+24], 0;"""
        assert run(print_of(stores), outside, LANES[:1] + 42).tolist() == [6]
        assert capfd.readouterr().out == "[   42] [emu   ] [(null)] %y\n"

    @prints
    def test_blocks_in_order(self, capfd: pytest.CaptureFixture[str]) -> None:
        ptx = f"""{HEADER}{PRINTF}{text_of("format", "%u ")}
.visible .entry kernel() {{ .reg .b32 %x, %y; .reg .b64 %f, %o; mov.u32 %x, %ctaid.x;
  {print_of("st.local.u32 [%o], %x;")} ret; }}"""
        emulator().launch(ptx, [], grid=(9, 1, 1), block=(1, 1, 1))
        assert capfd.readouterr().out == "0 1 2 3 4 5 6 7 8 "

    @errors
    def test_a_launch_that_fails_has_printed(self, capfd: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(DeviceError, match="executes trap"):
            run(print_of("") + "trap;", PRINTF + text_of("format", "x\n"), LANES[:2])
        assert capfd.readouterr().out == "x\nx\n"

    @errors
    def test_arguments_that_are_not_there(self) -> None:
        with pytest.raises(DeviceError, match="out of bounds"):
            run(print_of("add.u64 %o, %o, 62;"), PRINTF + text_of("format", "%d\n"))

    @errors
    def test_assert(self, capfd: pytest.CaptureFixture[str]) -> None:
        outside = f"""{text_of("what", "x < 3")}{text_of("file", "a.cu")}{text_of("who", "void f(int)")}
.extern .func __assertfail(.param .b64 a, .param .b64 b, .param .b32 c, .param .b64 d, .param .b64 e);"""
        stores = "".join(
            f"mov.u64 %m, {name}; cvta.global.u64 %m, %m; st.param.b64 [{to}], %m;"
            for to, name in (("a", "what"), ("b", "file"), ("d", "who"))
        )
        text = f"""setp.lt.u32 %p, %x, 3; @%p bra GOOD; {{ .param .b64 a; .param .b64 b; .param .b32 c; .param .b64 d;
  .param .b64 e; {stores} st.param.b32 [c], 17; st.param.b64 [e], 1; call __assertfail, (a, b, c, d, e); }} GOOD:"""
        with pytest.raises(DeviceError, match=r"thread \(3, 0, 0\): Assertion `x < 3` failed. \(a.cu:17: void f") as e:
            run(text, outside, LANES[:4])
        assert e.value.code == 710
        assert capfd.readouterr().err == (
            "a.cu:17: void f(int): block: [0,0,0], thread: [3,0,0] Assertion `x < 3` failed.\n"
        )
