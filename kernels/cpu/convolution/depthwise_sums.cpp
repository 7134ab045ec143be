// A block of columns at a time, its sums in registers: what a row of the source holds is loaded once for all columns of
// the block that read it, and a row of taps once for the block.
//
// Register budget, AVX-512: 8 sums + 7 taps + 1 column of 32; AVX2: 8 + 7 + 1 of 16.
#include "depthwise_sums.h"

namespace nk::NK_ISA {

namespace {

constexpr int kBlock = 8;       // columns
constexpr int64_t kChain = 32;  // columns after which a sum joins another, so that it rounds less

template <class S, int Taps, int Stride, int N>
NK_INLINE void block(const LaneRow<S>& r, const S* x, S* out) {
    using V = vec<S>;
    V sum[N];
    unroll<N>([&](auto i) NK_LAMBDA_INLINE { sum[i] = r.init != nullptr ? load(r.init) : V(S(0)); });
    for (int64_t q = 0; q < r.count; ++q) {
        const S *xr = x + r.reads[q].x, *wr = r.w + r.reads[q].w;
        V w[Taps];
        unroll<Taps>([&](auto k) NK_LAMBDA_INLINE { w[k] = load(wr + k * V::lanes); });
        unroll<(N - 1) * Stride + Taps>([&](auto p) NK_LAMBDA_INLINE {
            const V v = load(xr + p * V::lanes);
            unroll<N>([&](auto i) NK_LAMBDA_INLINE {
                constexpr int k = p.value - i.value * Stride;
                if constexpr (k >= 0 && k < Taps) sum[i] = mad(w[k], v, sum[i]);
            });
        });
    }
    unroll<N>([&](auto i) NK_LAMBDA_INLINE { store(out + i * r.step, sum[i]); });
}

// Any taps, stride and dilation.
template <class S, int N>
NK_INLINE void any_block(const LaneRow<S>& r, const S* x, S* out) {
    using V = vec<S>;
    V sum[N];
    unroll<N>([&](auto i) NK_LAMBDA_INLINE { sum[i] = r.init != nullptr ? load(r.init) : V(S(0)); });
    for (int64_t q = 0; q < r.count; ++q) {
        const S *xr = x + r.reads[q].x, *wr = r.w + r.reads[q].w;
        for (int64_t k = 0; k < r.taps; ++k) {
            const V w = load(wr + k * V::lanes);
            const S* at = xr + k * r.dilation * V::lanes;
            unroll<N>([&](auto i) NK_LAMBDA_INLINE { sum[i] = mad(w, load(at + i * r.stride * V::lanes), sum[i]); });
        }
    }
    unroll<N>([&](auto i) NK_LAMBDA_INLINE { store(out + i * r.step, sum[i]); });
}

template <class S, int Taps, int Stride, int N>
void tail(const LaneRow<S>& r, const S* x, S* out, int64_t n) {
    if constexpr (N > 0) {
        if (n == N) return block<S, Taps, Stride, N>(r, x, out);
        tail<S, Taps, Stride, N - 1>(r, x, out, n);
    }
}

template <class S, int Taps, int Stride>
void blocks(const LaneRow<S>& r) {
    constexpr int lanes = vec<S>::lanes;
    int64_t j = 0;
    for (; j + kBlock <= r.n; j += kBlock)
        block<S, Taps, Stride, kBlock>(r, r.x + j * Stride * lanes, r.out + j * r.step);
    tail<S, Taps, Stride, kBlock - 1>(r, r.x + j * Stride * lanes, r.out + j * r.step, r.n - j);
}

template <class S>
void any_blocks(const LaneRow<S>& r) {
    constexpr int lanes = vec<S>::lanes;
    int64_t j = 0;
    for (; j + kBlock <= r.n; j += kBlock) any_block<S, kBlock>(r, r.x + j * r.stride * lanes, r.out + j * r.step);
    for (; j < r.n; ++j) any_block<S, 1>(r, r.x + j * r.stride * lanes, r.out + j * r.step);
}

// Sums of four columns at a time; with few taps, those of odd columns by themselves, or each would wait for the last.
template <class S, int Taps, int Stride>
void taps_of(const LaneTaps<S>& r) {
    using V = vec<S>;
    constexpr int kSets = Taps < 4 ? 2 : 1, kColumns = 4;
    V sum[kSets][Taps], upper[Taps];
    unroll<Taps>([&](auto k) NK_LAMBDA_INLINE { upper[k] = V(S(0)); });
    const auto clear = [&]() NK_LAMBDA_INLINE {
        unroll<kSets>([&](auto e)
                          NK_LAMBDA_INLINE { unroll<Taps>([&](auto k) NK_LAMBDA_INLINE { sum[e][k] = V(S(0)); }); });
    };
    const auto lift = [&]() NK_LAMBDA_INLINE {
        unroll<Taps>([&](auto k) NK_LAMBDA_INLINE {
            if constexpr (kSets == 2)
                upper[k] = upper[k] + (sum[0][k] + sum[1][k]);
            else
                upper[k] = upper[k] + sum[0][k];
        });
    };
    clear();
    int64_t summed = 0;
    for (int64_t q = 0; q < r.count; ++q) {
        const S *x = r.x + r.reads[q].x, *g = r.g + r.reads[q].w;
        for (int64_t j = 0; j < r.n;) {
            const int64_t end = r.n - j > kChain ? j + kChain : r.n;
            summed += end - j;
            for (; j + kColumns <= end; j += kColumns, x += kColumns * Stride * V::lanes, g += kColumns * V::lanes) {
                V gs[kColumns];
                unroll<kColumns>([&](auto i) NK_LAMBDA_INLINE { gs[i] = load(g + i * V::lanes); });
                unroll<(kColumns - 1) * Stride + Taps>([&](auto p) NK_LAMBDA_INLINE {
                    const V v = load(x + p * V::lanes);
                    unroll<kColumns>([&](auto i) NK_LAMBDA_INLINE {
                        constexpr int k = p.value - i.value * Stride;
                        if constexpr (k >= 0 && k < Taps) {
                            constexpr int e = i.value % kSets;
                            sum[e][k] = mad(gs[i], v, sum[e][k]);
                        }
                    });
                });
            }
            for (; j < end; ++j, x += Stride * V::lanes, g += V::lanes) {
                const V gv = load(g);
                unroll<Taps>([&](auto k) NK_LAMBDA_INLINE { sum[0][k] = mad(gv, load(x + k * V::lanes), sum[0][k]); });
            }
            if (summed >= kChain) lift(), clear(), summed = 0;
        }
    }
    lift();
    unroll<Taps>([&](auto k)
                     NK_LAMBDA_INLINE { store(r.total + k * V::lanes, load(r.total + k * V::lanes) + upper[k]); });
}

// N taps from `first` on.
template <class S, int N>
void any_taps(const LaneTaps<S>& r, int64_t first) {
    using V = vec<S>;
    V sum[N], upper[N];
    unroll<N>([&](auto k) NK_LAMBDA_INLINE { sum[k] = upper[k] = V(S(0)); });
    const auto lift = [&]() NK_LAMBDA_INLINE {
        unroll<N>([&](auto k) NK_LAMBDA_INLINE { upper[k] = upper[k] + sum[k], sum[k] = V(S(0)); });
    };
    const int64_t apart = r.dilation * V::lanes;
    int64_t summed = 0;
    for (int64_t q = 0; q < r.count; ++q) {
        const S *x = r.x + r.reads[q].x + first * apart, *g = r.g + r.reads[q].w;
        for (int64_t j = 0; j < r.n; ++j, x += r.stride * V::lanes, g += V::lanes) {
            const V gv = load(g);
            unroll<N>([&](auto k) NK_LAMBDA_INLINE { sum[k] = mad(gv, load(x + k * apart), sum[k]); });
            if (++summed == kChain / 2) lift(), summed = 0;
        }
    }
    lift();
    S* to = r.total + first * V::lanes;
    unroll<N>([&](auto k) NK_LAMBDA_INLINE { store(to + k * V::lanes, load(to + k * V::lanes) + upper[k]); });
}

// Four at a time.
template <class S>
void any_taps(const LaneTaps<S>& r) {
    int64_t k = 0;
    for (; k + 4 <= r.taps; k += 4) any_taps<S, 4>(r, k);
    for (; k < r.taps; ++k) any_taps<S, 1>(r, k);
}

}  // namespace

#if defined(NK_ISA_scalar)
void lane_row(const LaneRow<float>& r) { any_blocks(r); }
void lane_taps(const LaneTaps<float>& r) { any_taps(r); }
#else
void lane_row(const LaneRow<float>& r) {
    const int64_t form = (r.dilation == 1 || r.taps == 1) && r.stride < 4 ? r.taps * 4 + r.stride : 0;
    switch (form) {
#define NK_FORM(taps, stride)   \
    case (taps) * 4 + (stride): \
        return blocks<float, taps, stride>(r);
        NK_FORM(1, 1)
        NK_FORM(2, 1)
        NK_FORM(3, 1)
        NK_FORM(4, 1)
        NK_FORM(5, 1)
        NK_FORM(7, 1)
        NK_FORM(3, 2)
        NK_FORM(5, 2)
#undef NK_FORM
        default:
            any_blocks(r);
    }
}

void lane_taps(const LaneTaps<float>& r) {
    const int64_t form = (r.dilation == 1 || r.taps == 1) && r.stride < 4 ? r.taps * 4 + r.stride : 0;
    switch (form) {
#define NK_FORM(taps, stride)   \
    case (taps) * 4 + (stride): \
        return taps_of<float, taps, stride>(r);
        NK_FORM(3, 1)
        NK_FORM(5, 1)
        NK_FORM(7, 1)
        NK_FORM(3, 2)
        NK_FORM(5, 2)
#undef NK_FORM
        default:
            any_taps(r);
    }
}
#endif
void lane_row(const LaneRow<double>& r) { any_blocks(r); }
void lane_taps(const LaneTaps<double>& r) { any_taps(r); }

}  // namespace nk::NK_ISA
