// The maximum of each window and its place in the plane.
//
// Planes: first the maximum over the rows of the windows, a vector of columns at a time, then over the columns of that
// one line (lines.h). A place is carried along as a number of the same vector type, which is exact below 2^24 (float);
// the host sends larger planes one element at a time. Of equal maxima the first wins, of NaNs the last, as in torch.
// Channels innermost: a vector of channels at a time, the elements of the window one after the other.
#include "lines.h"

namespace nk::NK_ISA {

namespace {

template <class S>
NK_HD S infinity() {
    return static_cast<S>(__builtin_huge_val());
}

template <class V>
NK_HD auto is_nan(V v) {
    return !(v == v);
}

// The next element of a window, which lies behind those before it.
template <bool Places, class V>
NK_HD void take(V& best, V& place, V v, V at) {
    const auto better = (v > best) | is_nan(v);
    best = select(better, v, best);
    if constexpr (Places) place = select(better, at, place);
}
// One that may lie before them.
template <bool Places, class V>
NK_HD void merge(V& best, V& place, V v, V at) {
    if constexpr (!Places) return take<false>(best, place, v, at);
    const auto better = (v > best) | ((v == best) & (at < place)) | (is_nan(v) & ((best == best) | (at > place)));
    best = select(better, v, best);
    place = select(better, at, place);
}

template <class I, class S>
NK_HD void put_places(I* __restrict to, const S* __restrict place, int64_t n, int64_t base) {
    for (int64_t i = 0; i < n; ++i) to[i] = static_cast<I>(base + static_cast<int32_t>(place[i]));
}

template <class S>
NK_HD void put_places(const cpu::Pool& p, int64_t at, const S* place, int64_t n, int64_t base) {
    if (p.wide)
        put_places(static_cast<int64_t*>(p.indices) + at, place, n, base);
    else
        put_places(static_cast<int32_t*>(p.indices) + at, place, n, base);
}

template <class T>
struct Max {
    using S = scalar_for<T>;
    using V = compute_vec<T>;
    static constexpr int L = V::lanes;

    struct Lines {
        LineShape shape;
        S *line, *places;          // over the rows of the windows
        S *phases, *place_phases;  // dealt out; the lines themselves where the stride is 1
        S* found;                  // places of a row of outputs
        Lines(const cpu::Pool& p) : shape(LineShape::of<L>(p.axis[2])) {
            line = static_cast<S*>(p.scratch), places = line + shape.length;
            phases = line, place_phases = places;
            found = places + shape.length;
            if (p.axis[2].regular && p.axis[2].stride > 1) {
                phases = found, place_phases = phases + p.axis[2].stride * shape.phase;
                found = place_phases + p.axis[2].stride * shape.phase;
            }
            fill(line, shape.length, -infinity<S>());
            fill(places, shape.length, infinity<S>());
        }
    };

    // Line and places of the windows (d, h), from the plane x; places count from `base`.
    template <bool Places>
    static NK_HD void over_rows(const cpu::Pool& p, const Lines& l, const T* x, int64_t d, int64_t h) {
        const cpu::PoolAxis &ad = p.axis[0], &ah = p.axis[1], &aw = p.axis[2];
        const int64_t d0 = ad.begin[d], h0 = ah.begin[h];
        S* line = l.line + aw.padding;
        S* places = l.places + aw.padding;
        for (int64_t w = 0; w < aw.in; w += L) {
            const int n = static_cast<int>(min64(L, aw.in - w));
            V best(-infinity<S>()), place(S(0));
            bool first = true;
            for (int64_t i = d0; i < ad.end[d]; i += ad.dilation)
                for (int64_t j = h0; j < ah.end[h]; j += ah.dilation) {
                    const T* at = x + (i * ah.in + j) * aw.in + w;
                    const V v = n == L ? load(at) : load(at, n);
                    if (first)
                        best = v, first = false;
                    else
                        take<Places>(best, place, v, V(static_cast<S>(((i - d0) * ah.in + j - h0) * aw.in)));
                }
            if (n == L)
                store(line + w, best);
            else
                store(line + w, best, n);
            if constexpr (Places) {
                static constexpr LaneNumbers<S> lane;
                place = place + load(lane.of) + V(static_cast<S>(w));
                if (n == L)
                    store(places + w, place);
                else
                    store(places + w, place, n);
            }
        }
    }

    template <bool Places>
    static NK_HD void regular_row(const cpu::Pool& p, const Lines& l, T* out) {
        const cpu::PoolAxis& a = p.axis[2];
        if (a.stride > 1) {
            deal(l.phases, l.line, l.shape.phase, a.stride);
            if constexpr (Places) deal(l.place_phases, l.places, l.shape.phase, a.stride);
        }
        for (int64_t o = 0; o < a.out; o += L) {
            V best(-infinity<S>()), place(infinity<S>());
            each_element(a, l.shape.phase, [&](int64_t at) {
                merge<Places>(best, place, load(l.phases + at + o), Places ? load(l.place_phases + at + o) : place);
            });
            const int n = static_cast<int>(min64(L, a.out - o));
            if (n == L)
                store(out + o, best);
            else
                store(out + o, best, n);
            if constexpr (Places) store(l.found + o, place);
        }
    }

    template <bool Places>
    static NK_HD void irregular_row(const cpu::Pool& p, const Lines& l, T* out) {
        const cpu::PoolAxis& a = p.axis[2];
        for (int64_t o = 0; o < a.out; ++o) {
            S best = -infinity<S>(), place = infinity<S>();
            for (int64_t w = a.begin[o]; w < a.end[o]; w += a.dilation) {
                const S v = l.line[a.padding + w], at = l.places[a.padding + w];
                const bool better = v > best || (v == best && at < place) || (v != v && (best == best || at > place));
                if (better) best = v, place = at;
            }
            put_number(out[o], best);
            l.found[o] = place;
        }
    }

    template <bool Places>
    static void planes_as(const cpu::Pool& p) {
        const cpu::PoolAxis &ad = p.axis[0], &ah = p.axis[1], &aw = p.axis[2];
        const Lines l(p);
        const int64_t in = ad.in * ah.in * aw.in;
        int64_t at = p.begin * ad.out * ah.out * aw.out;
        for (int64_t plane = p.begin; plane < p.end; ++plane)
            for (int64_t d = 0; d < ad.out; ++d)
                for (int64_t h = 0; h < ah.out; ++h, at += aw.out) {
                    over_rows<Places>(p, l, static_cast<const T*>(p.x) + plane * in, d, h);
                    T* out = static_cast<T*>(p.out) + at;
                    aw.regular ? regular_row<Places>(p, l, out) : irregular_row<Places>(p, l, out);
                    if constexpr (Places)
                        put_places(p, at, l.found, aw.out, (ad.begin[d] * ah.in + ah.begin[h]) * aw.in);
                }
    }
    static void planes(const cpu::Pool& p) { p.indices == nullptr ? planes_as<false>(p) : planes_as<true>(p); }

    // ---- channels innermost ----

    // U vectors of channels side by side; the last may be partly there.
    template <bool Places, int U>
    static NK_HD void pixel(const cpu::Pool& p, const T* x, int64_t at, int64_t c, int tail, const int64_t (&o)[3]) {
        const cpu::PoolAxis &ad = p.axis[0], &ah = p.axis[1], &aw = p.axis[2];
        V best[U], place[U];
        const int64_t first = (ad.begin[o[0]] * ah.in + ah.begin[o[1]]) * aw.in + aw.begin[o[2]];
        for (int u = 0; u < U; ++u) best[u] = V(-infinity<S>()), place[u] = V(static_cast<S>(first));
        for (int64_t i = ad.begin[o[0]]; i < ad.end[o[0]]; i += ad.dilation)
            for (int64_t j = ah.begin[o[1]]; j < ah.end[o[1]]; j += ah.dilation)
                for (int64_t k = aw.begin[o[2]]; k < aw.end[o[2]]; k += aw.dilation) {
                    const int64_t number = (i * ah.in + j) * aw.in + k;
                    const T* from = x + number * p.channels + c;
                    for (int u = 0; u < U; ++u) {
                        const V v = U > 1 || tail == L ? load(from + u * L) : load(from, tail);
                        take<Places>(best[u], place[u], v, V(static_cast<S>(number)));
                    }
                }
        T* out = static_cast<T*>(p.out) + at * p.channels + c;
        for (int u = 0; u < U; ++u)
            if (U > 1 || tail == L)
                store(out + u * L, best[u]);
            else
                store(out, best[u], tail);
        if constexpr (Places) {
            alignas(64) S found[U * L];
            for (int u = 0; u < U; ++u) store(found + u * L, place[u]);
            put_places(p, at * p.channels + c, found, U > 1 ? U * L : tail, 0);
        }
    }

    template <bool Places>
    static void channels_as(const cpu::Pool& p) {
        const cpu::PoolAxis &ad = p.axis[0], &ah = p.axis[1], &aw = p.axis[2];
        constexpr int U = L == 1 ? 1 : 4;
        const int64_t in = ad.in * ah.in * aw.in * p.channels;
        for (int64_t row = p.begin; row < p.end; ++row) {
            const int64_t h = row % ah.out, d = row / ah.out % ad.out, n = row / ah.out / ad.out;
            const T* x = static_cast<const T*>(p.x) + n * in;
            for (int64_t w = 0; w < aw.out; ++w) {
                const int64_t o[3] = {d, h, w};
                int64_t c = p.first_channel;
                if constexpr (U > 1)
                    for (; c + U * L <= p.last_channel; c += U * L) pixel<Places, U>(p, x, row * aw.out + w, c, L, o);
                for (; c < p.last_channel; c += L)
                    pixel<Places, 1>(p, x, row * aw.out + w, c, static_cast<int>(min64(L, p.last_channel - c)), o);
            }
        }
    }
    static void channels(const cpu::Pool& p) { p.indices == nullptr ? channels_as<false>(p) : channels_as<true>(p); }

    // ---- one element at a time ----

    static void each(const cpu::PoolEach& p) {
        const cpu::PoolAxis &ad = p.axis[0], &ah = p.axis[1], &aw = p.axis[2];
        const T* x = static_cast<const T*>(p.x);
        int64_t at = 0;
        for (int64_t d = 0; d < ad.out; ++d)
            for (int64_t h = 0; h < ah.out; ++h)
                for (int64_t w = 0; w < aw.out; ++w, ++at) {
                    S best = -infinity<S>();
                    int64_t place = (ad.begin[d] * ah.in + ah.begin[h]) * aw.in + aw.begin[w];
                    for (int64_t i = ad.begin[d]; i < ad.end[d]; i += ad.dilation)
                        for (int64_t j = ah.begin[h]; j < ah.end[h]; j += ah.dilation)
                            for (int64_t k = aw.begin[w]; k < aw.end[w]; k += aw.dilation) {
                                const int64_t number = (i * ah.in + j) * aw.in + k;
                                const S v = to_number(x[number * p.x_step]);
                                if (v > best || v != v) best = v, place = number;
                            }
                    put_number(static_cast<T*>(p.out)[at * p.out_step], best);
                    if (p.indices == nullptr) continue;
                    if (p.wide)
                        static_cast<int64_t*>(p.indices)[at * p.out_step] = place;
                    else
                        static_cast<int32_t*>(p.indices)[at * p.out_step] = static_cast<int32_t>(place);
                }
    }

    static void starts(const cpu::PoolStarts& p) {
        PoolDim d;
        d.in = p.in, d.out = p.out, d.kernel = p.kernel;
        const S sample = to_number(*static_cast<const T*>(p.sample));
        for (int64_t o = 0; o < p.out; ++o)
            p.begin[o] = fractional_start(d, o, sample, [](S v) {
                T rounded;
                put_number(rounded, v);
                return to_number(rounded);
            });
    }
};

template <int D>
void fill_table(cpu::PoolingEntries& e) {
    using M = Max<typename storage<D>::type>;
    e.max_planes[D] = M::planes;
    e.max_channels[D] = M::channels;
    e.max_each[D] = M::each;
    e.starts[D] = M::starts;
}

}  // namespace

void register_max(cpu::PoolingEntries& e) {
    fill_table<0>(e);
    fill_table<1>(e);
    fill_table<2>(e);
    fill_table<3>(e);
}

}  // namespace nk::NK_ISA
