// Channels last: a block of columns at a time, its sums in registers. What a row of the source holds is loaded once for
// all columns of the block that read it; what lies in the padding is left out.
#include "depthwise_last.h"

#include "depthwise_lanes.h"
#include "register.h"

namespace nk::NK_ISA {

namespace {

using cpu::DepthwisePack;
using cpu::DepthwisePart;
using cpu::DepthwiseShape;
using cpu::DepthwiseTask;

// Columns of one phase of a made row, for one vector of channels.
template <class T>
struct LastRow {
    const cpu::DepthwiseRead* reads;
    int64_t count;
    const T *x, *w;  // of a row's place 0; of a packed row
    T* out;
    int64_t pitch, weight_pitch, step;  // from place to place, tap to tap, column to column
    int64_t begin, end;                 // places that the source has, for column 0
    const T* bias;
    bool past;
    // From the last read and from the column made to those a row further, which are fetched ahead; 0: not.
    int64_t next_row, next_out;
};

template <class T, int Taps, int Stride, int N>
void block(const LastRow<T>& r, int64_t j) {
    using V = LastVec<T>;
    constexpr int kPlaces = (N - 1) * Stride + Taps;
    const int64_t begin = r.begin - j * Stride, end = r.end - j * Stride;
    V first(0.0f);
    if (r.bias != nullptr) load_wide(r.bias, first);
    V sum[N];
    unroll<N>([&](auto i) NK_LAMBDA_INLINE { sum[i] = first; });
    const T* const x = r.x + j * Stride * r.pitch;
    for (int64_t q = 0; q < r.count; ++q) {
        const T *at = x + r.reads[q].x, *wr = r.w + r.reads[q].w;
        V w[Taps];
        unroll<Taps>([&](auto k) NK_LAMBDA_INLINE {
            load_wide(wr, w[k]);
            wr += r.weight_pitch;
        });
        unroll<kPlaces>([&](auto p) NK_LAMBDA_INLINE {
            if (p >= begin && p < end) {
                V v;
                load_wide(at, v);
                unroll<N>([&](auto i) NK_LAMBDA_INLINE {
                    constexpr int k = p.value - i.value * Stride;
                    if constexpr (k >= 0 && k < Taps) sum[i] = mad(w[k], v, sum[i]);
                });
            }
            at += r.pitch;
        });
    }
    T* out = r.out + j * r.step;
    if (r.next_row != 0) {
        const T* const next = x + (r.count > 0 ? r.reads[r.count - 1].x : 0) + (Taps / 2) * r.pitch + r.next_row;
        for (int64_t i = 0; i < N * Stride; ++i) __builtin_prefetch(next + i * r.pitch, 0, 3);
        if (!r.past)
            for (int64_t i = 0; i < N; ++i) __builtin_prefetch(out + r.next_out + i * r.step, 1, 3);
    }
    unroll<N>([&](auto i) NK_LAMBDA_INLINE {
        put_wide(out, sum[i], r.past);
        out += r.step;
    });
}

// Registers: AVX-512 holds 8 sums of two vectors, AVX2 4.
template <class T>
constexpr int kColumns = LastVec<T>::lanes == 16 && vec<float>::lanes == 8 ? 4 : 8;

template <class T>
struct Block {
    void (*run)(const LastRow<T>&, int64_t j) = nullptr;
    int64_t columns = 1;
};

// Blocks of equal size where there are such; else the last overlaps the one before it.
template <class T, int Taps, int Stride>
Block<T> block_for(int64_t n) {
    constexpr int most = kColumns<T>;
    if (n >= most - 1 && n % most != 0 && (n % (most - 1) == 0 || n < most))
        return {block<T, Taps, Stride, most - 1>, most - 1};
    if (n >= most) return {block<T, Taps, Stride, most>, most};
    if (n >= 3) return {block<T, Taps, Stride, 3>, 3};
    return {block<T, Taps, Stride, 1>, 1};
}

// For n columns of a row.
template <class T>
Block<T> block_for(int64_t taps, int64_t stride, int64_t n) {
    if (stride >= 4) return {};
    switch (taps * 4 + stride) {
#define NK_FORM(taps, stride)   \
    case (taps) * 4 + (stride): \
        return block_for<T, taps, stride>(n);
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
            return {};
    }
}

template <class T>
bool serves(int64_t taps, int64_t stride, int64_t channels) {
    return channels >= LastVec<T>::lanes && block_for<T>(taps, stride, 1).run != nullptr;
}

// [depth][height][place in order][channel]
template <class T>
void pack(const DepthwiseShape& t, const DepthwisePack& p, int64_t v0, int64_t v1) {
    using V = vec<float>;
    constexpr int64_t kTaps = 64;
    const int64_t taps = t.all_taps(), rows = t.taps[0] * t.taps[1];
    const bool dense = (p.axis[2] == 1 || t.taps[2] == 1) && (p.axis[1] == t.taps[2] || t.taps[1] == 1) &&
                       (p.axis[0] == t.taps[1] * t.taps[2] || t.taps[0] == 1) && taps <= kTaps;
    alignas(64) float block[kTaps * V::lanes];
    const int64_t apart = p.image_made ? p.source : p.made;  // of a channel's weights
    for (int64_t v = v0; v < v1; ++v) {
        const LaneChannels<float> c(v * V::lanes, t.channels, 1, 1, 0, apart);
        const first<float> some(c.n);
        const T* from = static_cast<const T*>(p.data);
        T* to = static_cast<T*>(p.to) + v * V::lanes;
        if (dense) lanes_in(block, from, c, 1, taps);
        for (int64_t i = 0; i < rows; ++i)
            for (int64_t w = 0; w < t.taps[2]; ++w, to += t.channels) {
                const int64_t k = t.columns.order[w];
                const int64_t at = i / t.taps[1] * p.axis[0] + i % t.taps[1] * p.axis[1] + k * p.axis[2];
                if (!dense) lanes_in(block, from + at, c, 1, 1);
                store(to, load(dense ? block + (i * t.taps[2] + k) * V::lanes : block), some);
            }
    }
}

template <class T>
void run(const DepthwiseTask& t, const DepthwisePart& p) {
    const DepthwiseShape& shape = t.shape;
    const auto &depth = shape.axis[0], &height = shape.axis[1];
    const auto& c = shape.columns;
    auto* reads = reinterpret_cast<cpu::DepthwiseRead*>(p.work + p.work_reads);
    const T* const image = static_cast<const T*>(t.source.data) + p.image * t.source.image;
    T* const made = static_cast<T*>(t.made.data) + p.image * t.made.image;
    for (int64_t r = p.r0; r < p.r1; ++r) {
        const int64_t d = r / height.made, h = r % height.made;
        int64_t count = 0;
        for (int32_t e = depth.start[d]; e < depth.start[d + 1]; ++e)
            for (int32_t f = height.start[h]; f < height.start[h + 1]; ++f)
                reads[count++] = {depth.at[e] * t.source.axis[0] + height.at[f] * t.source.axis[1],
                                  (depth.tap[e] * shape.taps[1] + height.tap[f]) * shape.taps[2] * shape.channels};
        const bool more = r + 1 < p.r1 && h + 1 < height.made;
        T* const to = made + d * t.made.axis[0] + h * t.made.axis[1];
        for (int64_t i = 0; i < c.phase_count; ++i) {
            const cpu::DepthwisePhase& f = c.phases[i];
            const int64_t n = (c.made - f.first + c.step - 1) / c.step, before = c.before - f.from;
            const Block<T> block = block_for<T>(f.taps, c.stride, n);
            LastRow<T> row{reads,
                           count,
                           nullptr,
                           nullptr,
                           nullptr,
                           t.source.axis[2],
                           shape.channels,
                           c.step * t.made.axis[2],
                           before,
                           before + c.source,
                           nullptr,
                           t.past,
                           more ? t.source.axis[1] : 0,
                           t.made.axis[1]};
            for (int64_t v = p.v0; v < p.v1; ++v) {
                const int64_t channel = last_channel<T>(v, shape.channels);
                row.x = image + channel - before * t.source.axis[2];
                row.w = static_cast<const T*>(t.weight) + channel + f.weight * shape.channels;
                row.out = to + channel + f.first * t.made.axis[2];
                if (t.bias != nullptr) row.bias = static_cast<const T*>(t.bias) + channel;
                for (int64_t j = 0; j < n; j += block.columns)
                    block.run(row, j + block.columns <= n ? j : n - block.columns);
            }
        }
    }
}

template <class T>
void set_entries(cpu::DepthwiseEntries& e, DType dtype) {
    const int d = static_cast<int>(dtype);
    e.last_lanes[d] = LastVec<T>::lanes;
    e.last_serves[d] = serves<T>;
    e.last_pack[d] = pack<T>;
    e.last_run[d] = run<T>;
}

}  // namespace

void register_depthwise_last([[maybe_unused]] cpu::DepthwiseEntries& e) {
#if !defined(NK_ISA_scalar)
    set_entries<float>(e, DType::f32);
    set_entries<bf16>(e, DType::bf16);
#endif
}

}  // namespace nk::NK_ISA
