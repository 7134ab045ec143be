// The gradient of max_pool from the places of the maxima.
//
// Planes: each output's gradient is added at its place, in the order of the outputs; of 16-bit types in float, so that
// a sum is rounded once. Channels innermost: each element asks the windows that may hold it whether it was their
// maximum, a few channels side by side. Places outside the plane are left out.
#include "lines.h"

namespace nk::NK_ISA {

namespace {

constexpr int kBlock = 64;  // channels side by side

template <class T>
struct MaxBackward {
    using S = scalar_for<T>;
    using V = compute_vec<T>;
    static constexpr int L = V::lanes;

    template <class I, class A>
    static NK_HD void scatter(A* to, const T* g, const I* places, int64_t n, int64_t size) {
        for (int64_t i = 0; i < n; ++i) {
            const uint64_t at = static_cast<uint64_t>(static_cast<int64_t>(places[i]));
            if (at >= static_cast<uint64_t>(size)) continue;
            if constexpr (sizeof(A) == sizeof(T) && sizeof(T) == 2)
                to[at] = g[i];
            else
                to[at] = to[at] + to_number(g[i]);
        }
    }

    template <class I>
    static void planes_as(const cpu::Pool& p) {
        const int64_t in = p.axis[0].in * p.axis[1].in * p.axis[2].in;
        const int64_t out = p.axis[0].out * p.axis[1].out * p.axis[2].out;
        for (int64_t plane = p.begin; plane < p.end; ++plane) {
            T* gx = static_cast<T*>(p.out) + plane * in;
            const T* g = static_cast<const T*>(p.g) + plane * out;
            const I* places = static_cast<const I*>(p.indices) + plane * out;
            if constexpr (sizeof(T) == 2) {
                if (!p.apart) {
                    S* sums = static_cast<S*>(p.scratch);
                    memset(sums, 0, static_cast<size_t>(in) * sizeof(S));
                    scatter(sums, g, places, out, in);
                    for (int64_t i = 0; i < in; i += L) {
                        const int n = static_cast<int>(min64(L, in - i));
                        n == L ? store(gx + i, load(sums + i)) : store(gx + i, load(sums + i, n), n);
                    }
                    continue;
                }
            }
            memset(gx, 0, static_cast<size_t>(in) * sizeof(T));
            scatter(gx, g, places, out, in);
        }
    }
    static void planes(const cpu::Pool& p) { p.wide ? planes_as<int64_t>(p) : planes_as<int32_t>(p); }

    // `n` channels from `at` on of window `o` that have their maximum at `here`.
    template <class I>
    static NK_HD void add_chosen(S* __restrict sum, const S* __restrict g, const I* __restrict places, I here, int n) {
        for (int c = 0; c < n; ++c) sum[c] += places[c] == here ? g[c] : S(0);
    }

    template <class I>
    static void channels_as(const cpu::Pool& p) {
        const cpu::PoolAxis &ad = p.axis[0], &ah = p.axis[1], &aw = p.axis[2];
        const int64_t C = p.channels;
        for (int64_t row = p.begin; row < p.end; ++row) {
            const int64_t h = row % ah.in, d = row / ah.in % ad.in, n = row / ah.in / ad.in;
            for (int64_t w = 0; w < aw.in; ++w) {
                const int64_t here = (d * ah.in + h) * aw.in + w;
                T* to = static_cast<T*>(p.out) + (row * aw.in + w) * C;
                for (int64_t c = 0; c < C; c += kBlock) {
                    const int count = static_cast<int>(min64(kBlock, C - c));
                    alignas(64) S sum[kBlock] = {}, g[kBlock];
                    for (int64_t i = ad.first[d]; i < ad.last[d]; ++i)
                        for (int64_t j = ah.first[h]; j < ah.last[h]; ++j)
                            for (int64_t k = aw.first[w]; k < aw.last[w]; ++k) {
                                const int64_t at = (((n * ad.out + i) * ah.out + j) * aw.out + k) * C + c;
                                const T* from = static_cast<const T*>(p.g) + at;
                                for (int v = 0; v < count; v += L)
                                    store(g + v, count - v >= L ? load(from + v) : load(from + v, count - v));
                                add_chosen(sum, g, static_cast<const I*>(p.indices) + at, static_cast<I>(here), count);
                            }
                    for (int v = 0; v < count; v += L)
                        count - v >= L ? store(to + c + v, load(sum + v)) : store(to + c + v, load(sum + v), count - v);
                }
            }
        }
    }
    static void channels(const cpu::Pool& p) { p.wide ? channels_as<int64_t>(p) : channels_as<int32_t>(p); }
};

template <int D>
void fill_table(cpu::PoolingEntries& e) {
    using M = MaxBackward<typename storage<D>::type>;
    e.max_backward_planes[D] = M::planes;
    e.max_backward_channels[D] = M::channels;
}

}  // namespace

void register_max_backward(cpu::PoolingEntries& e) {
    fill_table<0>(e);
    fill_table<1>(e);
    fill_table<2>(e);
    fill_table<3>(e);
}

}  // namespace nk::NK_ISA
