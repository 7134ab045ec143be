"""The house's rule of correctness: at most twice torch's own error in the same dtype, plus one unit in the last place.

The reference is the same maths in float64 through torch. What makes the rule robust:

* torch's error belongs to a neighbourhood, not to one element, where it may be nought by luck. `Profile` divides every
  error by the element's scale, sorts by the scale, and gives an element the largest quotient among its neighbours
  (elementwise functions) or of all (sums, whose errors are alike once they are divided by the scale).
* The scale of an elementwise result is its own magnitude. That of a sum is the size of what was added up, which
  cancellation hides: the spec says how it is found (``OpSpec.scale``, ``run.scales_of``).
* Small tensors say little about torch's error, so the caller pools several samples or draws (see ``run.py``).
* float64 has no wider reference in torch. There the reference is torch's float64 result t, which carries an error E of
  its own: |ours - exact| <= 2 E + ulp gives |ours - t| <= 3 E + ulp. E is torch's float32 error on the same
  sample, anywhere in it, scaled by 2**-29, the quotient of the two units in the last place: the algorithms are alike.
  An elementwise reference's own error is added (REFERENCE_UNITS). An error that is absolute (1 - (1 - y) of a tiny y)
  meets its float32 twin at a scale 2**29 times larger.
* NaN and infinities stand where torch has them in the same dtype, or where the reference has them: torch overflows
  on the way to some finite results, and is not consistent about NaN between its vector loop and the remainder.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# torch's float64 products add in longer chains than its float32 ones: their largest error is 1.76 times as many
# units in the last place (M 260, N 390, K 515, both against long double)
LONGER_CHAINS = 2
# float64's erfcx and exp, of which the references of elementwise functions are made, leave their results so far off, in
# units of the size of the terms (gelu's slope in [-3, 3], 4001 points against mpmath)
REFERENCE_UNITS = 4
LEAST_WINDOW = 64  # neighbours on either side whose error of torch counts, or a quarter of all if that is more


def ulp(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Distance of the neighbouring numbers of `dtype` at |x| (float64 in and out), never below the least subnormal."""
    info = torch.finfo(dtype)
    size = x.abs().nan_to_num(info.max, info.max).clamp(info.smallest_normal, info.max)
    # frexp: size = m * 2**e with m in [0.5, 1), so that numbers there lie eps * 2**(e - 1) apart
    return torch.ldexp(torch.full_like(size, info.eps), torch.frexp(size).exponent - 1)


@dataclass(frozen=True)
class Result:
    """One output of torch's op with what judges it, all float64 and flat."""

    result: Tensor
    reference: Tensor
    scale: Tensor


@dataclass(frozen=True)
class Profile:
    """torch's error as a share of the scale, as a function of the scale."""

    scale: Tensor  # sorted
    share: Tensor  # the largest in the window about each
    local: bool = True

    @classmethod
    def of(cls, results: list[Result], local: bool, everywhere: bool = False) -> Profile:
        """From one output in several samples or draws.

        Args:
            local: errors differ from scale to scale.
            everywhere: each element gets the largest quotient of all nevertheless.
        """
        if not results:
            return cls(torch.zeros(0), torch.zeros(0), local)
        result, reference, scale = (
            torch.cat([getattr(r, n) for r in results]) for n in ("result", "reference", "scale")
        )
        finite = result.isfinite() & reference.isfinite()
        scale, order = scale[finite].sort()
        share = ((result - reference)[finite].abs()[order] / scale).nan_to_num(0.0, 0.0)
        if n := share.numel():
            window = max(LEAST_WINDOW, n // 4) if local and not everywhere else n
            # by doubling strides: a running maximum over [i - window, i + window]
            reach = 0
            while reach < window:
                step = min(reach + 1, window - reach, n)
                left = torch.cat([share[:1].expand(step), share])[:n]
                right = torch.cat([share, share[-1:].expand(step)])[step:]
                share = torch.maximum(share, torch.maximum(left, right))
                reach += step
        return cls(scale, share, local)

    def at(self, scale: Tensor) -> Tensor:
        """torch's share about these scales."""
        if not self.share.numel():
            return torch.zeros_like(scale)
        above = torch.searchsorted(self.scale, scale.contiguous()).clamp(max=len(self.scale) - 1)
        return torch.maximum(self.share[above], self.share[(above - 1).clamp(min=0)])


def same(a: Tensor, b: Tensor) -> Tensor:
    """Equal, or both NaN."""
    return (a == b) | (a.isnan() & b.isnan())


def mismatch(
    ours: Tensor, torchs: Tensor, reference: Tensor, scale: Tensor, profile: Profile, factor: float = 2.0
) -> str | None:
    """What is wrong with our result by the rule, or None.

    Args:
        ours, torchs: results of one dtype.
        reference, scale: float64, flat.
        profile: torch's errors; for float64 those of float32.
        factor: on torch's own error.
    """
    dtype = torchs.dtype
    if ours.dtype != dtype:
        return f"dtype {ours.dtype}, torch gives {dtype}"
    if ours.shape != torchs.shape:
        return f"shape {list(ours.shape)}, torch gives {list(torchs.shape)}"
    if not ours.numel():
        return None
    o, t, r = ours.detach().double().flatten(), torchs.detach().double().flatten(), reference
    unit = ulp(r, dtype)
    share = profile.at(scale)
    if dtype == torch.float64:
        share = share * 2.0**-29 * (1 if profile.local else LONGER_CHAINS)
        share = torch.where(scale < 2.0**-23, torch.maximum(share, profile.at(scale * 2.0**29)), share)
        # where exp underflows, at the end of either range
        least = [torch.finfo(d).smallest_normal for d in (torch.float32, torch.float64)]
        share = torch.where(scale < 4 * least[1], profile.at(torch.full_like(scale, least[0])), share)
        own = REFERENCE_UNITS * ulp(scale, dtype) if profile.local else 0.0
        allowed = (factor + 1) * share * scale + unit + own
    else:
        allowed = factor * torch.maximum(share * scale, (t - r).abs().nan_to_num(0.0, 0.0)) + unit
    error = (o - r).abs()
    finite = t.isfinite() & r.isfinite()
    fine = torch.where(finite, error <= allowed, same(o, t) | same(o, r) | (r.isfinite() & (error <= allowed)))
    # next to overflow, rounding decides between the largest number and infinity
    info = torch.finfo(dtype)
    fine |= (r.abs() >= info.max * (1 - 2 * info.eps)) & (o == torch.sign(r) * torch.inf)
    if fine.all():
        return None
    excess = torch.where(fine, -1.0, (error / allowed).nan_to_num(torch.inf, torch.inf))
    at = int(excess.argmax())
    index = [int(i) for i in torch.unravel_index(torch.tensor(at), ours.shape)]
    return (
        f"{int((~fine).sum())} of {o.numel()} elements of {list(ours.shape)} {dtype}; worst at {index}: "
        f"ours {o[at].item():.9g}, torch {t[at].item():.9g}, reference {r[at].item():.17g}; "
        f"off by {(error[at] / unit[at]).item():.3g} ulp, allowed {(allowed[at] / unit[at]).item():.3g}"
    )
