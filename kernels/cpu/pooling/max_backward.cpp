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

    // Adds what of a window's channels has its maximum at `here`; N channels, or n where N is 0.
    template <int N, class I>
    static NK_HD void add_chosen(S* __restrict sum, const T* __restrict g, const I* __restrict places, I here, int n) {
        alignas(64)
            S wide[kBlock];  // numbers of 16 bits are converted; of others the compiler won't load what it may not need
        const int count = N > 0 ? N : n;
        for (int v = 0; v < count; v += L) store(wide + v, count - v >= L ? load(g + v) : load(g + v, count - v));
        for (int c = 0; c < count; ++c) sum[c] += places[c] == here ? wide[c] : S(0);
    }

    template <int N, class I>
    static NK_HD void block(const cpu::Pool& p, const Holder<S>* list, int64_t windows, int64_t here, T* to, int64_t c,
                            int n) {
        alignas(64) S sum[kBlock] = {};
        for (int64_t k = 0; k < windows; ++k) {
            const int64_t at = list[k].output * p.channels + c;
            add_chosen<N>(sum, static_cast<const T*>(p.g) + at, static_cast<const I*>(p.indices) + at,
                          static_cast<I>(here), n);
        }
        const int count = N > 0 ? N : n;
        for (int v = 0; v < count; v += L)
            count - v >= L ? store(to + v, load(sum + v)) : store(to + v, load(sum + v), count - v);
    }

    template <class I>
    static void channels_as(const cpu::Pool& p) {
        const cpu::PoolAxis &ad = p.axis[0], &ah = p.axis[1], &aw = p.axis[2];
        auto* list = static_cast<Holder<S>*>(p.scratch);
        for (int64_t row = p.begin; row < p.end; ++row) {
            const int64_t h = row % ah.in, d = row / ah.in % ad.in, n = row / ah.in / ad.in;
            for (int64_t w = 0; w < aw.in; ++w) {
                const int64_t here = (d * ah.in + h) * aw.in + w, windows = holders(p, list, n, d, h, w);
                T* to = static_cast<T*>(p.out) + (row * aw.in + w) * p.channels;
                int64_t c = 0;
                for (; c + kBlock <= p.channels; c += kBlock) block<kBlock, I>(p, list, windows, here, to + c, c, 0);
                if (c < p.channels) block<0, I>(p, list, windows, here, to + c, c, static_cast<int>(p.channels - c));
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
