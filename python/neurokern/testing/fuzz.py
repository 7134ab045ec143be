"""Mangled PTX must be loaded or refused, and never crash: ``python -m neurokern.testing.fuzz --seconds 60 --seed 1``.

Bytes and tokens of valid modules are changed at random and given to the emulator's loader. The text at hand lies in a
file while it is loaded, so that a crash, or a load that takes 20 seconds, leaves it behind.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import math
import mmap
import re
import secrets
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ..bench.console import duration, progress, say
from .ptx import HEADER, emulator

BODIES = (
    """.reg .f32 %h<3>; .reg .b16 %s; fma.rn.f32 %f, %f, %g, 0f3F800000; @!%p bra OUT;
  shfl.sync.bfly.b32 %y|%p, %x, 1, 31, -1;
  { .param .b32 r; st.param.b32 [r], %x; ld.param.b32 %y, [r]; }
  cvt.rn.f16.f32 %s, %f; ld.shared.v2.u32 {%a, %b}, [tile+8];
OUT: bar.sync 0; setp.lt.and.f32 %p|%q, %f, %g, !%p;""",
    """.reg .b32 %v<8>; cp.async.ca.shared.global [%a], [%n], 4; cp.async.commit_group; cp.async.wait_group 0;
  ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%v0, %v1, %v2, %v3}, [%a];
  mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%v4, %v5, %v6, %v7}, {%v0, %v1, %v2, %v3}, {%v4, %v5},
    {%v4, %v5, %v6, %v7};
  atom.global.cas.b32 %x, [%m], %a, %b; red.global.add.f32 [%m+4], %f; membar.gl;""",
    """.reg .b32 %i; .local .align 8 .b8 own[24]; mov.u64 %o, own; st.local.v2.u32 [%o+8], {%x, %y};
T: .branchtargets A, B; and.b32 %i, %x, 1; brx.idx %i, T; A: lop3.b32 %y, %x, %a, %b, 0x96; B: prmt.b32 %y, %x, %y, %a;
  vote.sync.ballot.b32 %y, %p, -1; match.any.sync.b32 %x, %y, -1; redux.sync.add.s32 %a, %b, -1;
  bfi.b32 %y, %x, %a, 3, 5; cvta.shared.u64 %o, %o; isspacep.shared %p, %o; mad.wide.u32 %o, %x, 4, %m;
  ld.global.nc.L2::128B.v2.b32 {%a, %b}, [%o];""",
    """.reg .b64 %f; mov.u64 %f, fac; { .param .b32 in; .param .b32 out; st.param.b32 [in], %x;
  one: .callprototype (.param .b32 _) _ (.param .b32 _); call (out), %f, (in), one; ld.param.b32 %y, [out]; }
  those: .calltargets fac; ld.global.u64 %f, [table+8];
  { .param .b64 g; .param .b64 h; .param .b32 n; call (n), vprintf, (g, h); }""",
)
OUTSIDE = """.extern .func (.param .b32 n) vprintf(.param .b64 g, .param .b64 h);
.func (.param .b32 r) fac(.param .b32 v) {
  .local .align 8 .b8 kept[8]; .reg .b32 %x, %y; .reg .b64 %a; ld.param.b32 %x, [v]; mov.u64 %a, kept;
  { .param .b32 in; .param .b32 out; st.param.b32 [in], %x; call (out), fac, (in); ld.param.b32 %y, [out]; }
  st.param.b32 [r], %y; ret;
}
.global .align 8 .u64 table[3] = {fac, generic(table)+8, 0xff(fac)};"""
TOKENS = (
    b"{", b"}", b"[", b"]", b"(", b")", b";", b",", b"!", b"|", b"<9>", b".align 3", b"4294967296", b"-1", b'"',
    b".shared", b".param .b32 r", b"call", b"0f", b"/*", b"%r1", b".v4", b"::", b"%tid.x", b".func", b".b128",
    b"<4294967295>", b"@",
)  # fmt: skip
SPACE = 65536
EXPECTED = (0, 2, 200, 218, 222)  # loaded, out of memory, invalid or unsupported


def texts() -> list[bytes]:
    """Valid modules."""
    return [
        f"""{HEADER}{OUTSIDE}
.visible .entry kernel(.param .u64 data) {{
  .reg .pred %p, %q; .reg .b32 %x, %y, %l, %t, %a, %b, %c; .reg .b64 %m, %n, %o; .reg .f32 %f, %g;
  .shared .align 16 .b8 tile[64]; ld.param.u64 %m, [data]; mov.u32 %t, %tid.x; mad.wide.u32 %n, %t, 4, %m;
  {body}
  st.global.u32 [%n], %y; ret;
}}""".encode()
        for body in BODIES
    ]


def mangled(text: bytes, generator: np.random.Generator) -> bytes:
    """One to three changes: a byte or some replaced, deleted or put in, or a word by another of its kind."""
    found = bytearray(text)
    for _ in range(generator.integers(1, 4)):
        at = int(generator.integers(len(found)))
        kind = generator.integers(8)
        if kind == 0:
            found[at] = int(generator.integers(1, 256))
        elif kind == 1:
            del found[at : at + int(generator.integers(1, 30))]
        elif kind == 2:
            found[at:at] = TOKENS[generator.integers(len(TOKENS))]
        elif kind > 3:
            words = list(re.finditer((rb"\d+", rb"%\w+", rb"\.\w+", rb"\b[a-z]\w*\b")[kind - 4], found))
            if not words:
                continue
            one, two = (words[generator.integers(len(words))] for _ in range(2))
            found[one.start() : one.end()] = two[0]
        else:
            found[at:at] = found[int(generator.integers(len(found))) :][:40]
    return bytes(found)


def load(text: bytes) -> int:
    """The code that the loader answers with; what was loaded is given back."""
    module = ctypes.c_void_p()
    library = emulator().library
    code = library.cuModuleLoadData(ctypes.byref(module), text)
    if code == 0:
        library.cuModuleUnload(module)
    return code


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m neurokern.testing.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to run")
    parser.add_argument("--seed", type=int, help="of the changes; default: a new one")
    options = parser.parse_args(arguments)
    seed = secrets.randbelow(1 << 31) if options.seed is None else options.seed
    at_hand = Path(tempfile.gettempdir()) / f"neurokern-fuzz-{seed}.ptx"
    say(f"seed {seed}; the text at hand is in {at_hand}; this takes {duration(options.seconds)}")
    generator = np.random.default_rng(seed)
    originals = texts()
    assert all(load(text) == 0 for text in originals)
    faulthandler.enable()
    end, count, refused, odd = time.monotonic() + options.seconds, 0, 0, 0
    at_hand.write_bytes(bytes(SPACE))
    with at_hand.open("r+b") as file:
        place = mmap.mmap(file.fileno(), SPACE)  # it outlives a crash, and costs no system call
    interrupted = False
    try:
        with progress() as bars:
            bar = bars.add_task("seconds", total=math.ceil(options.seconds), status="")
            while (left := end - time.monotonic()) > 0:
                if count % 1000 == 0:
                    bars.update(bar, completed=int(options.seconds - left), status=f"{count} texts")
                    faulthandler.dump_traceback_later(20, exit=True)
                text = mangled(originals[count % len(originals)], generator)
                place[: len(text) + 1] = text + b"\0"
                code = load(text)
                count, refused = count + 1, refused + (code != 0)
                if code not in EXPECTED:
                    odd += 1
                    kept = at_hand.with_suffix(f".{odd}.ptx")
                    kept.write_bytes(text)
                    say(f"code {code}, the text is in {kept}")
    except KeyboardInterrupt:
        interrupted = True
    faulthandler.cancel_dump_traceback_later()
    at_hand.unlink()
    say(f"{count} texts, {refused} refused, {odd} with an unexpected answer, no crash")
    return 130 if interrupted else int(odd > 0)


if __name__ == "__main__":
    sys.exit(main())
