"""Attention beyond its specs: public reports of other implementations, NaN behind a mask, memory, randomness."""

from __future__ import annotations

import math
import resource
import subprocess
import sys

import neurokern
import neurokern.functional as F
import pytest
import torch
from neurokern.ops.attention import attention_by_torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

TF = torch.nn.functional


def three(*shape: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(3)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
class TestWhatIsHidden:
    def test_rows_that_see_nothing(self, dtype: torch.dtype) -> None:
        """pytorch #41508: such a row made all gradients NaN."""
        q, k, v = three(1, 2, 4, 8, dtype=dtype)
        mask = torch.ones(4, 4, dtype=torch.bool)
        mask[2] = False
        out, lse = F.attention(q, k, v, mask=mask, return_lse=True)
        assert (out[:, :, 2] == 0).all()
        assert (lse[:, :, 2] == -math.inf).all()
        grads = torch.autograd.grad(out.sum() + lse[:, :, :2].sum(), (q, k, v))
        assert all(g.isfinite().all() for g in grads)
        assert (grads[0][:, :, 2] == 0).all()

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("what", ["mask", "numbers", "causal"])
    def test_hidden_keys_and_values_count_nothing(self, dtype: torch.dtype, what: str, bad: float) -> None:
        """pytorch #103749, #101967: NaN of masked keys and values leaked, forward and backward."""
        q, k, v = (t.detach() for t in three(1, 2, 40, 16, dtype=dtype))
        g = torch.randn(1, 2, 40, 16).to(dtype)
        seen = torch.rand(40, 40) < 0.6
        if what == "causal":
            seen = torch.ones(40, 40, dtype=torch.bool).tril()
        seen[:, 33] = False
        given = torch.where(seen, 0.0, -math.inf).to(dtype) if what == "numbers" else seen

        def run(k: Tensor, v: Tensor) -> list[Tensor]:
            leaves = [t.clone().requires_grad_() for t in (q, k, v)]
            out = F.scaled_dot_product_attention(*leaves, given)
            return [out, *torch.autograd.grad(out, leaves, g)]

        spoiled_k, spoiled_v = k.clone(), v.clone()
        spoiled_v[:, :, 33] = bad
        if what != "numbers":  # what is added to a NaN leaves it one
            spoiled_k[:, :, 33] = bad
        for a, b in zip(run(k, v), run(spoiled_k, spoiled_v), strict=True):
            assert torch.equal(a, b)

    def test_other_queries_count_nothing(self, dtype: torch.dtype) -> None:
        """A NaN in a query, or in its cotangent, reaches the keys that it sees and no other."""
        q, k, v = (t.detach() for t in three(1, 1, 20, 8, dtype=dtype))
        q[:, :, 3] = math.nan
        leaves = [t.requires_grad_() for t in (q, k, v)]
        out = F.scaled_dot_product_attention(*leaves, is_causal=True)
        assert out[0, 0, 3].isnan().all()  # pytorch #141128: it vanished
        assert out[0, 0, [0, 1, 2, 4, 19]].isfinite().all()
        gq, gk, gv = torch.autograd.grad(out, leaves, torch.ones_like(out))
        for grad in (gk, gv):
            assert grad[0, 0, :4].isnan().all()
            assert grad[0, 0, 4:].isfinite().all()
        assert gq[0, 0, 4:].isfinite().all()


def test_bottom_right_rows_without_keys_are_zero() -> None:
    """flash-attention #1778, #517, #282."""
    q, k, v = torch.randn(1, 1, 5, 8), torch.randn(1, 1, 2, 8), torch.randn(1, 1, 2, 8)
    out = F.attention(q, k, v, is_causal=True, causal_align="bottom-right")
    assert (out[0, 0, :3] == 0).all()
    torch.testing.assert_close(out[0, 0, 3], v[0, 0, 0])
    top = F.attention(q, k, v, is_causal=True)
    torch.testing.assert_close(top, TF.scaled_dot_product_attention(q, k, v, is_causal=True))


def test_a_window_counts_the_others() -> None:
    """transformers #39408, flash-attention #1133: (left, right) of FlashAttention leaves the place itself out."""
    q, k = torch.zeros(1, 1, 9, 4), torch.zeros(1, 1, 9, 4)
    out = F.attention(q, k, torch.eye(9).view(1, 1, 9, 9), window=(2, 0))
    assert out[0, 0, 5].nonzero().flatten().tolist() == [3, 4, 5]


def test_a_mask_and_causal_count_both() -> None:
    """pytorch #187801: one of them was ignored silently."""
    q, k, v = torch.randn(3, 1, 2, 12, 8)
    mask = torch.rand(12, 12) < 0.7
    mask[:, 0] = True
    want = F.scaled_dot_product_attention(q, k, v, mask & torch.ones_like(mask).tril())
    assert torch.equal(F.scaled_dot_product_attention(q, k, v, mask, is_causal=True), want)


def test_sequences_of_no_length() -> None:
    """flash-attention #1537, #2562, #1254; pytorch #176793: rows behind the last sequence get gradients of 0."""
    q, k, v = three(2, 9, 8)
    ends_q, ends_k = torch.tensor([0, 3, 3, 6]), torch.tensor([0, 0, 4, 7])
    out, lse = F.attention(q, k, v, cu_seqlens_q=ends_q, cu_seqlens_k=ends_k, return_lse=True)
    assert (out[:, [0, 1, 2, 6, 7, 8]] == 0).all()
    assert (lse[:, [0, 1, 2, 6, 7, 8]] == -math.inf).all()
    gq, gk, gv = torch.autograd.grad(out.sum(), (q, k, v))
    assert (gq[:, [0, 1, 2, 6, 7, 8]] == 0).all()
    assert (gk[:, [0, 1, 2, 3, 7, 8]] == 0).all()
    assert (gv[:, [7, 8]] == 0).all()


def test_the_gradient_through_the_sum() -> None:
    """flash-attention #889, #1137, #1817: it was silently zero. For lse.sum(): dq = scale * softmax(scale * q k') k."""
    q, k, v = three(1, 2, 7, 8, dtype=torch.float64)
    _, lse = F.attention(q, k, v, return_lse=True)
    (gq,) = torch.autograd.grad(lse.sum(), q)
    scale = 8**-0.5
    torch.testing.assert_close(gq, scale * torch.softmax(scale * q @ k.mT, -1) @ k)


def test_the_sinks_gradient() -> None:
    """flash-attention #1973, #2102: minus the sum of p_sink * delta."""
    q, k, v = three(2, 3, 7, 8, dtype=torch.float64)
    sink = torch.randn(3, dtype=torch.float64, requires_grad=True)
    out, lse = F.attention(q, k, v, sink=sink, return_lse=True)
    g = torch.randn_like(out)
    (found,) = torch.autograd.grad(out, sink, g)
    share = (sink[:, None] - lse).exp()
    torch.testing.assert_close(found, -(share * (g * out).sum(-1)).sum((0, 2)))


def test_shared_heads_are_the_same_each_time() -> None:
    """flash-attention #746, #2158: GQA's gradients differed from run to run."""
    q, k, v = torch.randn(1, 8, 130, 64), torch.randn(1, 2, 130, 64), torch.randn(1, 2, 130, 64)
    leaves = [t.requires_grad_() for t in (q, k, v)]
    g = torch.randn(1, 8, 130, 64)

    def run() -> tuple[Tensor, ...]:
        out = F.scaled_dot_product_attention(*leaves, is_causal=True, enable_gqa=True)
        return (out, *torch.autograd.grad(out, leaves, g))

    first = run()
    for _ in range(9):
        assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_layouts_do_not_matter(dtype: torch.dtype) -> None:
    """pytorch #187506, flash-attention #2665: a strided last dim, heads within rows, a value that is not contiguous."""
    q, k, v = (t.detach() for t in three(2, 3, 33, 64, dtype=dtype))
    want = F.scaled_dot_product_attention(q, k, v)
    strided = [t.mT.contiguous().mT for t in (q, k, v)]
    inner = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v)]
    for given in (strided, inner, (q, k, strided[2]), (inner[0], k, v)):
        torch.testing.assert_close(F.scaled_dot_product_attention(*given), want)


@pytest.mark.parametrize("length", [1, 15, 65, 129, 197])
def test_lengths_of_no_tile(length: int) -> None:
    """pytorch #153799: lengths that are no multiple of a tile gave NaN in the backward."""
    q, k, v = three(1, 2, length, 40)
    for causal in (False, True):
        ours = torch.autograd.grad(F.scaled_dot_product_attention(q, k, v, is_causal=causal).sum(), (q, k, v))
        torchs = torch.autograd.grad(TF.scaled_dot_product_attention(q, k, v, is_causal=causal).sum(), (q, k, v))
        torch.testing.assert_close(ours, torchs, rtol=1e-4, atol=1e-5)


class TestDropout:
    def test_the_mask_is_a_function_of_seed_and_place(self) -> None:
        q, k, v = torch.randn(3, 2, 3, 17, 8)
        seed = torch.tensor([12, 5])
        a, b = (F.attention(q, k, v, dropout_p=0.4, seed=seed) for _ in range(2))
        assert torch.equal(a, b)
        assert not torch.equal(a, F.attention(q, k, v, dropout_p=0.4, seed=torch.tensor([13, 5])))
        rules = [-1, -1, 0, 0, 0, 0, 0]
        want, _ = attention_by_torch(q, k, v, None, None, None, None, None, None, seed, None, 0.0, 0.4, rules)
        torch.testing.assert_close(a, want)

    def test_share_and_mean(self) -> None:
        q = k = torch.zeros(4, 4, 64, 8)
        out = F.scaled_dot_product_attention(q, k, torch.eye(64).expand(4, 4, 64, 64), dropout_p=0.3)
        dropped = (out == 0).double().mean().item()
        assert abs(dropped - 0.3) < 0.01
        torch.testing.assert_close(out[out != 0], torch.full_like(out[out != 0], 1 / 64 / 0.7))

    def test_a_checkpoint_draws_the_same(self) -> None:
        q, k, v = three(1, 2, 20, 8)

        def f(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(q, k, v, dropout_p=0.5)

        torch.manual_seed(3)
        want = torch.autograd.grad(f(q, k, v).square().sum(), (q, k, v))
        torch.manual_seed(3)
        got = torch.autograd.grad(checkpoint(f, q, k, v, use_reentrant=False).square().sum(), (q, k, v))
        assert all(torch.equal(a, b) for a, b in zip(want, got, strict=True))

    def test_everything_dropped(self) -> None:
        q, k, v = three(1, 1, 5, 8)
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=1.0)
        assert (out == 0).all()
        assert all((g == 0).all() for g in torch.autograd.grad(out.sum(), (q, k, v)))

    def test_exported(self) -> None:
        """The decomposition draws the mask in torch's ops, as the kernel does."""

        class Model(torch.nn.Module):
            def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
                return F.scaled_dot_product_attention(q, k, v, dropout_p=0.3)

        given = tuple(t.detach() for t in three(1, 2, 6, 8))
        program = torch.export.export(Model(), given).run_decompositions()
        assert "neurokern" not in str(program.graph)
        torch.manual_seed(7)
        want = Model()(*given)
        torch.manual_seed(7)
        torch.testing.assert_close(program.module()(*given), want)


def test_batches_of_gradients() -> None:
    """The formula asks no value of tensors that stand for several."""
    q, k, v = three(1, 2, 5, 4, dtype=torch.float64)
    sink = torch.randn(2, dtype=torch.float64, requires_grad=True)
    out = F.attention(q, k, v, sink=sink, window=(1, 1))
    g = torch.randn(3, *out.shape, dtype=torch.float64)
    together = torch.autograd.grad(out, (q, k, v, sink), g, is_grads_batched=True, retain_graph=True)
    for i in range(3):
        alone = torch.autograd.grad(out, (q, k, v, sink), g[i], retain_graph=True)
        torch.testing.assert_close(tuple(t[i] for t in together), alone)


MEMORY = """
import resource, torch, neurokern, neurokern.functional as F
q, k, v = (torch.randn(1, 1, {length}, 16, requires_grad=True) for _ in range(3))
F.scaled_dot_product_attention(q[:, :, :64], k, v, is_causal=True).sum().backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
F.scaled_dot_product_attention(q[:, :, :2048], k, v, is_causal=True).sum().backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_memory_is_linear_in_length() -> None:
    """2,048 queries of 16,384 keys: their scores alone would be 128 MiB in float32."""
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0
    done = subprocess.run(
        [sys.executable, "-c", MEMORY.format(length=16384)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 32 << 20


def test_what_the_backward_is_given_is_checked() -> None:
    """A hook may unpack anything in the place of what was saved."""
    q, k, v = (t.detach() for t in three(1, 2, 5, 8))
    output, lse = F.attention(q, k, v, return_lse=True)
    backward, wants = torch.ops.neurokern.attention_backward, [True] * 3 + [False] * 7
    wrong = [(q[..., :4, :], output, lse), (q, output[..., :3], lse)]
    for given in (*wrong, (q, output, lse[..., :2]), (q, output, lse.double())):
        g, *made = given
        with pytest.raises(RuntimeError, match=r"argument (g|output|lse) of shape"):
            backward(g, q, k, v, *[None] * 7, *made, None, 0.0, 0.0, [-1, -1, 0, 0, 0, 0, 0], wants)


def test_no_heads() -> None:
    given = three(2, 0, 4, 8)
    assert all(
        t.shape == (2, 0, 4, 8) for t in torch.autograd.grad(F.scaled_dot_product_attention(*given).sum(), given)
    )


def test_a_size_of_nothing() -> None:
    """All scores are 0, and every key counts the same."""
    q, k, v = torch.randn(2, 2, 4, 0), torch.randn(2, 2, 5, 0), torch.randn(2, 2, 5, 3)
    torch.testing.assert_close(F.scaled_dot_product_attention(q, k, v), v.mean(-2, keepdim=True).expand(2, 2, 4, 3))


def test_the_sinks_gradient_is_the_same_each_time() -> None:
    """Which thread takes a head is a matter of time, and the order of its sum is not."""
    q, k, v = three(61, 7, 33, 16, dtype=torch.float64)
    sink = torch.randn(7, dtype=torch.float64, requires_grad=True)
    out = F.attention(q, k, v, sink=sink)
    g = torch.randn_like(out)
    found = {tuple(torch.autograd.grad(out, sink, g, retain_graph=True)[0].tolist()) for _ in range(20)}
    assert len(found) == 1


def test_what_torch_broadcasts() -> None:
    for shapes in (((2, 1, 5, 8), (2, 8, 5, 8)), ((5, 4), (3, 5, 4)), ((4, 1, 2, 5, 8), (3, 1, 6, 8))):
        lone, many = (torch.randn(s) for s in shapes)
        torch.testing.assert_close(
            F.scaled_dot_product_attention(lone, many, many), TF.scaled_dot_product_attention(lone, many, many)
        )
    q, k, v = three(2, 4, 5, 8)
    for other in (slice(None), slice(1)):
        one_k, one_v = k[:, other].detach(), v[:, other].detach()
        torch.testing.assert_close(
            F.scaled_dot_product_attention(q, one_k, one_v), TF.scaled_dot_product_attention(q, one_k, one_v)
        )
    single = k[:1, :1].detach().requires_grad_()
    ours = F.scaled_dot_product_attention(q, single, single)
    theirs = TF.scaled_dot_product_attention(q, single, single)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(
        torch.autograd.grad(ours.sum(), single), torch.autograd.grad(theirs.sum(), single), rtol=1e-4, atol=1e-5
    )
    fewer = k[0].detach()  # of fewer dims
    torch.testing.assert_close(
        F.scaled_dot_product_attention(q, fewer, fewer), TF.scaled_dot_product_attention(q, fewer, fewer)
    )


def test_more_batch_dims_than_kernels_decode() -> None:
    shape = (2, 1, 3, 2, 2, 2, 2, 5, 4)
    given = [torch.randn(shape).transpose(0, 2).transpose(1, 3).transpose(4, 5) for _ in range(3)]
    torch.testing.assert_close(F.scaled_dot_product_attention(*given), TF.scaled_dot_product_attention(*given))


def test_what_a_gradient_needs_alone_is_kept() -> None:
    q, k, v = three(1, 2, 6, 8)
    with torch.no_grad():
        assert F.scaled_dot_product_attention(q, k, v).grad_fn is None
    with neurokern.trace() as launches:
        F.scaled_dot_product_attention(q, k, v)
    assert launches[0].backend == "cpu"
