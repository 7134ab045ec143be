// The weight's gradient where channels lie side by side: image and result are read in place, the sums of a row of taps
// stay in registers over a band of rows.
#include "depthwise_last.h"
#include "register.h"

namespace nk::NK_ISA {

namespace {

constexpr int64_t kChain = 32;  // columns after which a sum joins another, so that it rounds less

using cpu::DepthwisePart;
using cpu::DepthwiseShape;
using cpu::DepthwiseWeightTask;

template <class T>
struct LastTaps {
    const cpu::DepthwiseRead* reads;  // of image (x) and result (w)
    int64_t count;
    const T *x, *g;
    int64_t pitch, g_pitch, n;
    int64_t begin, end;  // places that the image has, for column 0
    LastVec<T>* total;
};

// N columns at a time; with few taps those of odd columns by themselves, or each sum would wait for the last.
template <class T, int Taps, int Stride>
void taps_of(const LastTaps<T>& r) {
    using V = LastVec<T>;
    constexpr int kSets = Taps < 4 && V::lanes == vec<float>::lanes ? 2 : 1, kColumns = 4;
    V sum[kSets][Taps], upper[Taps];
    unroll<Taps>([&](auto k) NK_LAMBDA_INLINE { upper[k] = V(0.0f); });
    const auto clear = [&]() NK_LAMBDA_INLINE {
        unroll<kSets>([&](auto e)
                          NK_LAMBDA_INLINE { unroll<Taps>([&](auto k) NK_LAMBDA_INLINE { sum[e][k] = V(0.0f); }); });
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
        const T *x = r.x + r.reads[q].x, *g = r.g + r.reads[q].w;
        const auto columns = [&](auto count, int64_t begin, int64_t end) NK_LAMBDA_INLINE {
            constexpr int kN = decltype(count)::value;
            V gs[kN];
            unroll<kN>([&](auto i) NK_LAMBDA_INLINE { load_wide(g + i * r.g_pitch, gs[i]); });
            const T* at = x;
            unroll<(kN - 1) * Stride + Taps>([&](auto p) NK_LAMBDA_INLINE {
                if (p >= begin && p < end) {
                    V v;
                    load_wide(at, v);
                    unroll<kN>([&](auto i) NK_LAMBDA_INLINE {
                        constexpr int k = p.value - i.value * Stride;
                        if constexpr (k >= 0 && k < Taps) {
                            constexpr int e = i.value % kSets;
                            sum[e][k] = mad(gs[i], v, sum[e][k]);
                        }
                    });
                }
                at += r.pitch;
            });
            x += kN * Stride * r.pitch, g += kN * r.g_pitch;
        };
        for (int64_t j = 0; j < r.n;) {
            const int64_t end = r.n - j > kChain ? j + kChain : r.n;
            summed += end - j;
            for (; j + kColumns <= end; j += kColumns)
                columns(Index<kColumns>{}, r.begin - j * Stride, r.end - j * Stride);
            for (; j < end; ++j) columns(Index<1>{}, r.begin - j * Stride, r.end - j * Stride);
            if (summed >= kChain) lift(), clear(), summed = 0;
        }
    }
    lift();
    unroll<Taps>([&](auto k) NK_LAMBDA_INLINE { r.total[k] = r.total[k] + upper[k]; });
}

template <class T>
using Taps = void (*)(const LastTaps<T>&);

template <class T>
Taps<T> taps_for(int64_t taps, int64_t stride) {
    if (stride >= 4) return nullptr;
    switch (taps * 4 + stride) {
#define NK_FORM(taps, stride)   \
    case (taps) * 4 + (stride): \
        return taps_of<T, taps, stride>;
        NK_FORM(3, 1)
        NK_FORM(5, 1)
        NK_FORM(7, 1)
        NK_FORM(3, 2)
        NK_FORM(5, 2)
#undef NK_FORM
        default:
            return nullptr;
    }
}

template <class T>
bool serves(int64_t taps, int64_t stride, int64_t channels) {
    return channels >= LastVec<T>::lanes && taps_for<T>(taps, stride) != nullptr;
}

// A vector of sums as numbers in the order of their channels.
inline void in_order(float* to, vec<float> v) { store(to, v); }
inline void in_order(float* to, two<vec<float>> v) {
    constexpr int lanes = vec<float>::lanes;
    alignas(64) float even[lanes], odd[lanes];
    store(even, v.lo), store(odd, v.hi);
    for (int l = 0; l < lanes; ++l) to[2 * l] = even[l], to[2 * l + 1] = odd[l];
}

template <class T>
void weight(const DepthwiseWeightTask& t, const DepthwisePart& p, void* sums) {
    using V = LastVec<T>;
    constexpr int lanes = vec<float>::lanes;
    const DepthwiseShape& shape = t.shape;
    const auto &depth = shape.axis[0], &height = shape.axis[1];
    const auto& c = shape.columns;
    auto* reads = reinterpret_cast<cpu::DepthwiseRead*>(p.work + p.work_reads);
    V* const totals = reinterpret_cast<V*>(p.work + p.work_made);
    const int64_t taps = shape.all_taps();
    for (int64_t i = 0; i < (p.v1 - p.v0) * taps; ++i) totals[i] = V(0.0f);
    const auto sum = taps_for<T>(shape.taps[2], c.stride);
    for (int64_t r = p.r0; r < p.r1;) {
        const int64_t n = r / (depth.made * height.made), d = r / height.made % depth.made, h = r % height.made;
        int64_t rows = p.band < p.r1 - r ? p.band : p.r1 - r;
        if (rows > height.made - h) rows = height.made - h;
        r += rows;
        const T* const image = static_cast<const T*>(t.source.data) + n * t.source.image;
        const T* const made = static_cast<const T*>(t.made.data) + n * t.made.image + d * t.made.axis[0];
        for (int32_t e = depth.start[d]; e < depth.start[d + 1]; ++e) {
            // of each row of taps, reads[first[k]] to reads[first[k + 1]]
            const int64_t most = rows;
            for (int64_t k = 0; k < shape.taps[1]; ++k) {
                int64_t count = 0;
                cpu::DepthwiseRead* own = reads + k * most;
                for (int64_t i = 0; i < rows; ++i)
                    for (int32_t f = height.start[h + i]; f < height.start[h + i + 1]; ++f)
                        if (height.tap[f] == k)
                            own[count++] = {depth.at[e] * t.source.axis[0] + height.at[f] * t.source.axis[1],
                                            (h + i) * t.made.axis[1]};
                if (count < most) own[count].x = -1, own[count].w = -1;
            }
            for (int64_t v = p.v0; v < p.v1; ++v) {
                const int64_t channel = last_channel<T>(v, shape.channels);
                LastTaps<T> row{nullptr,
                                0,
                                image + channel - c.before * t.source.axis[2],
                                made + channel,
                                t.source.axis[2],
                                t.made.axis[2],
                                c.made,
                                c.before,
                                c.before + c.source,
                                nullptr};
                for (int64_t k = 0; k < shape.taps[1]; ++k) {
                    row.reads = reads + k * most;
                    row.count = 0;
                    while (row.count < most && row.reads[row.count].w >= 0) ++row.count;
                    row.total = totals + (v - p.v0) * taps + (depth.tap[e] * shape.taps[1] + k) * shape.taps[2];
                    if (row.count > 0) sum(row);
                }
            }
        }
    }
    for (int64_t v = p.v0; v < p.v1; ++v)
        for (int64_t k = 0; k < taps; ++k) {
            alignas(64) float ordered[V::lanes];
            in_order(ordered, totals[(v - p.v0) * taps + k]);
            const int64_t channel = last_channel<T>(v, shape.channels);
            float* const to = static_cast<float*>(sums);
            if (channel % lanes == 0) {
                for (int64_t l = 0; l < V::lanes; l += lanes)
                    store(to + ((channel + l) / lanes * taps + k) * lanes, load(ordered + l));
                continue;
            }
            for (int64_t l = 0; l < V::lanes; ++l) {
                const int64_t own = channel + l;
                to[(own / lanes * taps + k) * lanes + own % lanes] = ordered[l];
            }
        }
}

template <class T>
void set_entries(cpu::DepthwiseEntries& e, DType dtype) {
    const int d = static_cast<int>(dtype);
    e.last_weight_serves[d] = serves<T>;
    e.last_weight[d] = weight<T>;
}

}  // namespace

void register_depthwise_last_weight([[maybe_unused]] cpu::DepthwiseEntries& e) {
#if !defined(NK_ISA_scalar)
    set_entries<float>(e, DType::f32);
    set_entries<bf16>(e, DType::bf16);
#endif
}

}  // namespace nk::NK_ISA
