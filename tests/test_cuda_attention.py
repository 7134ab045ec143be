"""Attention on CUDA: every kernel, on the emulator with its checkers, against float64 on the CPU."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import neurokern
import neurokern.functional as F
import pytest
import torch
from neurokern import _C
from neurokern.backends import emulation
from neurokern.testing import sass
from torch import Tensor

pytestmark = [
    pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing())),
]
DTYPES = {"f32": torch.float32, "f64": torch.float64, "bf16": torch.bfloat16, "f16": torch.float16}
EPS = {torch.float32: 2.0**-20, torch.float64: 2.0**-48, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}


@dataclass
class Case:
    """Shapes [batch, heads, rows, size] and what is asked for."""

    why: str
    q: tuple[int, ...] = (1, 2, 70, 64)
    keys: int = 70
    kv_heads: int = 0
    value_size: int = 0
    options: dict = field(default_factory=dict)
    mask: tuple[int, ...] | None = None
    bias: tuple[int, ...] | None = None
    slopes: bool = False
    sink: bool = False
    layout: str = "dense"
    packed: tuple[list[int], list[int]] | None = None


CASES = [
    Case("two tiles and a rest"),
    Case("causal", options={"is_causal": True}),
    Case("one query", q=(2, 2, 1, 64), keys=67),
    Case("more keys than queries, causal at the end", q=(1, 1, 40, 64), keys=100,
         options={"is_causal": True, "causal_align": "bottom-right"}),
    Case("more queries than keys: some see nothing", q=(1, 1, 100, 64), keys=40,
         options={"is_causal": True, "causal_align": "bottom-right"}),
    Case("window", q=(1, 1, 150, 64), keys=150, options={"window": (20, 3)}),
    Case("causal window", q=(1, 1, 150, 64), keys=150, options={"window": (40, 0), "is_causal": True}),
    Case("chunks", q=(1, 1, 130, 64), keys=130, options={"chunk": 48, "is_causal": True}),
    Case("grouped heads", q=(2, 4, 40, 64), keys=70, kv_heads=2, options={"enable_gqa": True}),
    Case("sizes of no tile", q=(1, 2, 33, 40), keys=35, value_size=72),
    Case("odd sizes", q=(1, 1, 33, 7), keys=35, value_size=13),
    Case("a large size", q=(1, 1, 20, 136), keys=35, value_size=200),
    Case("larger than any tile", q=(1, 1, 20, 264), keys=35, value_size=300),
    Case("96", q=(1, 1, 65, 96), keys=65, options={"is_causal": True}),
    Case("128", q=(1, 1, 130, 128), keys=140, options={"is_causal": True}),
    Case("256", q=(1, 1, 66, 256), keys=70, options={"is_causal": True}),
    Case("mask", mask=(1, 1, 70, 70)),
    Case("mask of keys alone", q=(2, 2, 33, 64), mask=(2, 1, 1, 70)),
    Case("mask and causal", mask=(1, 2, 70, 70), options={"is_causal": True}),
    Case("bias of all", q=(2, 2, 40, 64), bias=(2, 2, 40, 70)),
    Case("bias of heads", q=(2, 2, 40, 64), bias=(1, 2, 40, 70)),
    Case("bias of keys", q=(2, 2, 40, 64), bias=(2, 1, 1, 70)),
    Case("bias of queries", q=(2, 2, 40, 64), bias=(40, 1)),
    Case("slopes", slopes=True, options={"is_causal": True}),
    Case("softcap", options={"softcap": 2.0}),
    Case("sink", sink=True, options={"is_causal": True}),
    Case("sink where nothing is visible", q=(1, 1, 20, 64), keys=10, sink=True,
         options={"is_causal": True, "causal_align": "bottom-right"}),
    Case("dropout", options={"dropout_p": 0.3}),
    Case("everything", q=(2, 4, 40, 64), keys=70, kv_heads=2, mask=(1, 4, 40, 70), bias=(4, 40, 1),
         slopes=True, sink=True,
         options={"enable_gqa": True, "softcap": 3.0, "dropout_p": 0.2, "window": (50, 10), "scale": 0.2}),
    Case("rows of all heads (BSHD)", layout="bshd"),
    Case("transposed", q=(1, 2, 33, 40), keys=35, layout="transposed"),
    Case("every second column", layout="strided"),
    Case("unaligned rows", layout="unaligned"),
    Case("packed", q=(2, 100, 64), keys=120, packed=([0, 30, 30, 95], [0, 45, 50, 110]), options={"is_causal": True}),
    Case("packed, grouped, with a bias", q=(2, 60, 64), keys=70, kv_heads=1, bias=(2, 60, 70),
         packed=([0, 30, 55], [0, 20, 64]), options={"enable_gqa": True}),
    Case("two dims", q=(40, 64), keys=50),
    Case("several batch dims", q=(2, 3, 2, 17, 16), keys=18),
    Case("no keys", q=(1, 1, 5, 16), keys=0),
]  # fmt: skip


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The same numbers otherwise in memory."""
    if layout == "bshd":
        return x.transpose(-2, -3).contiguous().transpose(-2, -3)
    if layout == "transposed":
        return x.mT.contiguous().mT
    if layout == "strided":
        return torch.stack([x, x], -1).flatten(-2)[..., ::2]
    if layout == "unaligned":
        return torch.cat([x, x[..., :1], x[..., :2]], -1)[..., 1 : 1 + x.shape[-1]].copy_(x)
    return x


def inputs(case: Case, dtype: torch.dtype) -> tuple[list[Tensor], dict]:
    """Leaves (query, key, value, bias, sink) that want gradients, and the other arguments."""
    *outer, _, size = case.q
    if len(case.q) > 2:
        outer[-1] = case.kv_heads or outer[-1]
    shapes = [case.q, (*outer, case.keys, size), (*outer, case.keys, case.value_size or size)]
    leaves = [laid_out(torch.randn(s).to(dtype), case.layout) for s in shapes]
    options = dict(case.options)
    heads = case.q[-3] if len(case.q) > 2 else 1
    if case.bias is not None:
        leaves.append(torch.randn(case.bias).to(dtype))
        options["bias"] = len(leaves) - 1
    if case.sink:
        leaves.append(torch.randn(heads).to(dtype))
        options["sink"] = len(leaves) - 1
    if case.mask is not None:
        options["mask"] = torch.rand(case.mask) < 0.7
        if case.mask[-2] > 1:
            options["mask"][..., 5, :] = False  # a row that sees nothing
    if case.slopes:
        options["alibi_slopes"] = torch.rand(heads, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    if case.packed is not None:
        options["cu_seqlens_q"], options["cu_seqlens_k"] = (torch.tensor(c) for c in case.packed)
    if options.get("dropout_p"):
        options["seed"] = torch.tensor([123, 77])
    return leaves, options


def results(leaves: list[Tensor], options: dict, g: Tensor, g_lse: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """Output, lse and the gradients of the leaves."""
    xs = [x.detach().to(dtype).requires_grad_() if dtype != x.dtype else x.detach().requires_grad_() for x in leaves]
    more = {k: xs[v] if k in ("bias", "sink") else v for k, v in options.items()}
    if "alibi_slopes" in more and dtype == torch.float64:
        more["alibi_slopes"] = more["alibi_slopes"].double()
    out, lse = F.attention(*xs[:3], **more, return_lse=True)
    grads = torch.autograd.grad((out, lse), xs, (g.to(out.dtype), g_lse.to(lse.dtype).where(lse.isfinite(), 0.0)))
    return [out.detach(), lse.detach(), *grads]


def judge(case: Case, dtype: torch.dtype, leaves: list[Tensor], options: dict) -> None:
    out_shape = (*case.q[:-1], case.value_size or case.q[-1])
    g, g_lse = torch.randn(out_shape).to(dtype), torch.randn(case.q[:-1])
    want = results(leaves, options, g, g_lse, torch.float64)
    with neurokern.emulate(), neurokern.strict():
        got = results(leaves, options, g, g_lse, dtype)
    for name, x, y in zip(["output", "lse", "query", "key", "value", "bias or sink", "sink"], got, want, strict=False):
        finite = y.isfinite()
        assert torch.equal(x.isfinite(), finite), name
        assert torch.equal(x[~finite].double().nan_to_num(9.0), y[~finite].nan_to_num(9.0)), name
        scale = y[finite].abs().max() if finite.any() else torch.ones(())
        if "sink" in name:
            scale = scale.clamp(min=1)  # a sum over all queries, whose terms cancel
        error = (x.double() - y)[finite].abs().max() if finite.any() else torch.zeros(())
        assert error <= 4 * EPS[dtype] * scale, (name, float(error), float(scale))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.why)
def test_against_float64(case: Case, dtype: str) -> None:
    judge(case, DTYPES[dtype], *inputs(case, DTYPES[dtype]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("what", ["key", "value", "both"])
def test_what_is_not_visible_counts_for_nothing(dtype: str, what: str) -> None:
    """NaN and infinity in keys and values that a mask hides from all, or from some; those who see it show it."""
    kind = DTYPES[dtype]
    for size, value in ((64, torch.nan), (128, torch.inf)):
        q, k, v, g = (torch.randn(1, 2, 80, size).to(kind) for _ in range(4))
        clean = [q, k.clone(), v.clone()]
        hidden = torch.tensor([3, 66])
        mask = torch.ones(80, 80, dtype=torch.bool)
        mask[:, hidden] = False
        if what != "value":
            k[..., hidden, :] = value
        if what != "key":
            v[..., hidden, 5:] = value
        for causal in (False, True):
            want = results(clean, {"mask": mask, "is_causal": causal}, g, torch.zeros(1, 2, 80), torch.float64)
            with neurokern.emulate(), neurokern.strict():
                got = results([q, k, v], {"mask": mask, "is_causal": causal}, g, torch.zeros(1, 2, 80), kind)
            for x, y in zip(got, want, strict=True):
                assert (x.double() - y).abs().max() <= 4 * EPS[kind] * y.abs().max()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_query_that_is_nan_stays_so_and_harms_no_other(dtype: str) -> None:
    """Causal: keys behind a row of NaN get gradients that its share is not in."""
    kind = DTYPES[dtype]
    q, k, v, g = (torch.randn(1, 1, 70, 64).to(kind) for _ in range(4))
    q[..., 20, 3] = torch.nan
    g[..., 30, 4] = torch.nan
    with neurokern.emulate(), neurokern.strict():
        out, _, gq, gk, gv = results([q, k, v], {"is_causal": True}, g, torch.zeros(1, 1, 70), kind)
    assert out[..., 20, :].isnan().all()
    assert out[..., torch.arange(70) != 20, :].isfinite().all()
    others = (torch.arange(70) != 20) & (torch.arange(70) != 30)
    assert gq[..., 20, :].isnan().all()
    assert gq[..., others, :].isfinite().all()
    assert gk[..., :21, :].isnan().all()
    assert gk[..., 31:, :].isfinite().all()
    assert gv[..., :21, :].isnan().all()
    assert gv[..., 31:, :].isfinite().all()


@pytest.mark.parametrize("dtype", ["bf16", "f16"])
@pytest.mark.parametrize("step", [0.5, 3.0, 7.9, 8.1, 60.0])
def test_scores_that_grow_from_tile_to_tile(dtype: str, step: float) -> None:
    """The sums are relative to a maximum that may be some tiles old: each tile of keys adds `step` to the exponent of
    every second query, so that rows of a warp grow apart."""
    kind, size, tiles = DTYPES[dtype], 128, 6
    q, k, v = (torch.randn(1, 1, n, size).to(kind) for n in (40, 64 * tiles, 64 * tiles))
    q[..., 0] = (torch.arange(40) % 2).to(kind)
    k[..., 0] = (torch.arange(64 * tiles) // 64 * step * math.log(2) * math.sqrt(size)).to(kind)
    g, g_lse = torch.randn(1, 1, 40, size).to(kind), torch.zeros(1, 1, 40)
    want = results([q, k, v], {}, g, g_lse, torch.float64)
    with neurokern.emulate(), neurokern.strict(), neurokern.trace() as launches:
        got = results([q, k, v], {}, g, g_lse, kind)
    # no share was infinite, after which all is computed again
    assert launches[0].counters["matrix instructions"] == 2 * 48 * 64 * tiles * size // (16 * 8 * 16)
    for x, y in zip(got[:2], want[:2], strict=True):
        assert (x.double() - y).abs().max() <= 4 * EPS[kind] * y.abs().max()


def test_what_dropout_keeps_may_be_large() -> None:
    """f16: shares of a maximum that is a tile old, times 1 / (1 - p), would be infinite, and all be computed again."""
    q, k, v = torch.zeros(1, 4, 256, 64).half(), torch.zeros(1, 4, 128, 64).half(), torch.randn(1, 4, 128, 64).half()
    q[..., 0], k[..., 64:, 0] = 1, 7.5 * math.log(2) * 8
    options = {"dropout_p": 0.999, "seed": torch.tensor([5, 0])}
    want = F.attention(q.double(), k.double(), v.double(), **options)
    with neurokern.emulate(), neurokern.strict(), neurokern.trace() as launches:
        got = F.attention(q, k, v, **options)
    assert launches[0].counters["matrix instructions"] == 2 * 4 * 256 * 128 * 64 // (16 * 8 * 16)
    assert want.abs().max() > 1
    assert (got.double() - want).abs().max() <= 4 * EPS[torch.half] * want.abs().max()


def test_results_are_the_same_at_every_run() -> None:
    """Gradients of shared heads too: nothing is added in an order that chance decides."""
    q, k, v = torch.randn(1, 4, 100, 64).half(), torch.randn(1, 1, 100, 64).half(), torch.randn(1, 1, 100, 64).half()
    g = torch.randn(1, 4, 100, 64).half()
    options = {"is_causal": True, "enable_gqa": True}
    with neurokern.emulate(), neurokern.strict():
        first, second = (results([q, k, v], options, g, torch.ones(1, 4, 100), torch.half) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))


@pytest.mark.slow
def test_more_heads_than_the_second_dimension_of_a_grid_holds() -> None:
    """vllm PR #56974: batch times heads of 65,536."""
    q = torch.randn(65537, 1, 1, 8).half()
    with neurokern.emulate(), neurokern.strict():
        assert torch.equal(F.scaled_dot_product_attention(q, q, q), q)  # one key: its value


@pytest.mark.parametrize("size", [64, 128, 256])
def test_what_moves(size: int) -> None:
    """No bank conflict; each block reads its tiles once, and each sector of a result is written once."""
    queries, keys = 256, 512
    q, k, v = (torch.randn(1, 1, n, size).bfloat16().requires_grad_() for n in (queries, keys, keys))
    with neurokern.emulate(), neurokern.strict(), neurokern.trace() as launches:
        out = F.scaled_dot_product_attention(q, k, v)
        out.backward(torch.randn_like(out))
    kernels = {launch.kernel.rsplit("bf16", 1)[0]: launch.counters for launch in launches}
    row, tile = 2 * size, 16 * 8 * 16
    forward = kernels["attention_mma_"]
    assert forward["global bytes read"] == queries * row + queries // 128 * 2 * keys * row
    lse = 4 * queries  # eight rows of a warp at a time
    assert forward["global bytes written"] == 32 * forward["global sectors written"] == queries * row + lse
    assert forward["matrix instructions"] == 2 * queries * keys * size // tile
    of_query, of_key = kernels["attention_mma_backward_query_"], kernels["attention_mma_backward_key_"]
    twice = 2 if size == 256 else 1  # scores are computed by both warps that share rows
    assert of_query["matrix instructions"] == (2 * twice + 1) * queries * keys * size // tile
    assert of_key["matrix instructions"] == (2 * twice + 2) * queries * keys * size // tile
    assert 32 * of_query["global sectors written"] == of_query["global bytes written"] == queries * row
    assert 32 * of_key["global sectors written"] == of_key["global bytes written"] == 2 * keys * row
    assert all(c["bank conflicts"] == 0 for c in kernels.values())


def test_tiles_that_nobody_sees_are_skipped() -> None:
    """Causal: a little more than half of the products; a window: as many as it is wide."""
    q, k, v = (torch.randn(1, 1, 512, 64).bfloat16() for _ in range(3))
    counts = {}
    for name, options in (("all", {}), ("causal", {"is_causal": True}), ("window", {"window": (63, 0)})):
        with neurokern.emulate(), neurokern.trace() as launches:
            F.attention(q, k, v, **options)
        counts[name] = launches[0].counters["matrix instructions"]
    assert counts["causal"] < 0.6 * counts["all"]
    assert counts["window"] < 0.3 * counts["all"]


def test_nothing_spills() -> None:
    folder = Path(_C.cuda_info()["kernel_dir"])
    table = json.loads((folder / "resources.json").read_text())
    rows = [row for name, rows in table.items() if name.startswith("attention_") for row in rows]
    assert len(rows) >= 72  # kernels for two architectures
    assert [r for r in rows if r.get("stack") or r.get("spill_stores") or r.get("spill_loads")] == []


needs_cuobjdump = pytest.mark.skipif(sass.tools() is None, reason="no cuobjdump on this machine")


@needs_cuobjdump
@pytest.mark.parametrize(("size", "copies", "scores", "most"), [(64, 8, 64, 9), (128, 8, 32, 12), (256, 8, 16, 25)])
def test_instructions_beside_the_products(size: int, copies: int, scores: int, most: float) -> None:
    """bf16: of a warp's turn, `scores` for each lane, what is no HMMA, for each of them; no row exceeds its maximum."""
    for arch, code in sass.machine_code("attention_mma_forward_bf16", f"attention_mma_bf16_{size}").items():
        turn = sass.shortest_turn(code, products=128, copies=copies)
        beside = turn.total() - sum(n for name, n in turn.items() if name.startswith("HMMA"))
        assert beside / scores <= most, (arch, beside / scores, sorted(turn.items()))


@needs_cuobjdump
def test_instructions_of_few_rows() -> None:
    """bf16, size 128: a warp's turn of 16 rows and 16 of 64 keys is a fifth of the time that the keys and values take,
    1,600 clocks at 20 bytes a clock, where two blocks share a multiprocessor's four schedulers."""
    for arch, code in sass.machine_code("attention_mma_split_bf16", "attention_split_bf16_128_1").items():
        turn = sass.shortest_turn(code, products=32, copies=16)
        assert turn.total() <= 370, (arch, turn.total(), sorted(turn.items()))
