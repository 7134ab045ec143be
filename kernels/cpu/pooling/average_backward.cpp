// The gradient of the average of windows, and of lp_pool: each element has the gradients of the windows that hold it,
// divided as they were. Planes: the sum over the windows' rows, then spread over the columns of that line (lines.h).
#include "lines.h"
#include "powers.h"

namespace nk::NK_ISA {

namespace {

template <class T, class Kind>
struct MeanBackward {
    using S = scalar_for<T>;
    using V = compute_vec<T>;
    static constexpr int L = V::lanes;

    static NK_HD V some(const T* p, int n) { return n == L ? load(p) : load(p, n); }

    // The gradient of a mean, or of what takes its place in lp_pool.
    static NK_HD V gradient(const cpu::Pool& p, const Kind& kind, int64_t at, int n) {
        const V g = some(static_cast<const T*>(p.g) + at, n);
        if constexpr (!Kind::powers) return g;
        if constexpr (Kind::powers) return kind.of_result(g, some(static_cast<const T*>(p.y) + at, n));
    }

    struct Lines {
        LineShape shape;
        int64_t before;  // zeros before the windows' gradients, for elements that fewer windows hold
        S *line, *phases, *windows, *factors;
        Lines(const cpu::Pool& p) : shape(LineShape::of<L>(p.axis[2])) {
            const cpu::PoolAxis& a = p.axis[2];
            before = a.regular ? (a.kernel - 1) / a.stride : 0;
            line = static_cast<S*>(p.scratch), phases = line;
            windows = line + shape.length + 2 * L;
            if (a.regular && a.stride > 1) phases = windows, windows = phases + a.stride * shape.phase;
            factors = windows + before + shape.phase + L;
            fill(windows, before + shape.phase + L, S(0));
            for (int64_t o = 0; o < a.out; ++o)
                factors[o] = static_cast<S>(1 / (p.divisor != 0 ? p.divisor : static_cast<double>(a.count[o])));
            fill(factors + a.out, L, S(1));
        }
    };

    // For each window along W the sum over those along D and H that hold row (d, h).
    static NK_HD void over_rows(const cpu::Pool& p, const Kind& kind, const Lines& l, int64_t plane, int64_t d,
                                int64_t h) {
        const cpu::PoolAxis &ad = p.axis[0], &ah = p.axis[1], &aw = p.axis[2];
        for (int64_t o = 0; o < aw.out; o += L) {
            const int n = static_cast<int>(min64(L, aw.out - o));
            V sum(S(0));
            for (int64_t i = ad.first[d]; i < ad.last[d]; ++i)
                for (int64_t j = ah.first[h]; j < ah.last[h]; ++j) {
                    const S rows = p.divisor != 0 ? S(1) : S(1) / static_cast<S>(ad.count[i] * ah.count[j]);
                    const int64_t at = ((plane * ad.out + i) * ah.out + j) * aw.out + o;
                    sum = mad(gradient(p, kind, at, n), load(l.factors + o) * V(rows), sum);
                }
            S* to = l.windows + l.before + o;
            n == L ? store(to, sum) : store(to, sum, n);
        }
    }

    static NK_HD void spread(const cpu::PoolAxis& a, const Lines& l) {
        if (!a.regular) {
            S* row = l.line + a.padding;
            fill(row, a.in, S(0));
            for (int64_t o = 0; o < a.out; ++o)
                for (int64_t w = a.begin[o]; w < a.end[o]; ++w) row[w] += l.windows[o];
            return;
        }
        for (int64_t j = 0; j < a.stride; ++j) {
            S* phase = l.phases + j * l.shape.phase;
            for (int64_t q = 0; q < l.shape.phase; q += L) {
                V sum(S(0));
                int64_t back = 0;
                for (int64_t c = j; c < a.kernel; c += a.stride, ++back)
                    sum = sum + load(l.windows + l.before + q - back);
                store(phase + q, sum);
            }
        }
        if (a.stride > 1) collect(l.line, l.phases, l.shape.phase, a.stride);
    }

    static void whole_planes(const cpu::Pool& p) {
        const int64_t in = p.axis[2].in;
        const S divisor = static_cast<S>(p.divisor != 0 ? p.divisor : static_cast<double>(p.axis[2].count[0]));
        for (int64_t plane = p.begin; plane < p.end; ++plane) {
            T* out = static_cast<T*>(p.out) + plane * in;
            const V v(to_number(static_cast<const T*>(p.g)[plane]) / divisor);
            int64_t w = 0;
            for (; w + L <= in; w += L) store(out + w, v);
            if (w < in) store(out + w, v, static_cast<int>(in - w));
        }
    }

    static void planes(const cpu::Pool& p) {
        const cpu::PoolAxis &ad = p.axis[0], &ah = p.axis[1], &aw = p.axis[2];
        const Kind kind(p);
        const int64_t in = ad.in * ah.in * aw.in;
        if (in == aw.in && ad.out * ah.out * aw.out == 1 && !aw.regular && !Kind::powers) return whole_planes(p);
        const Lines l(p);
        for (int64_t plane = p.begin; plane < p.end; ++plane)
            for (int64_t d = 0; d < ad.in; ++d)
                for (int64_t h = 0; h < ah.in; ++h) {
                    const int64_t at = plane * in + (d * ah.in + h) * aw.in;
                    T* out = static_cast<T*>(p.out) + at;
                    const bool same = h > 0 && ah.first[h] == ah.first[h - 1] && ah.last[h] == ah.last[h - 1];
                    if (same && !Kind::powers) {
                        memcpy(out, out - aw.in, static_cast<size_t>(aw.in) * sizeof(T));
                        continue;
                    }
                    if (!same) {
                        over_rows(p, kind, l, plane, d, h);
                        spread(aw, l);
                    }
                    for (int64_t w = 0; w < aw.in; w += L) {
                        const int n = static_cast<int>(min64(L, aw.in - w));
                        V v = load(l.line + aw.padding + w);
                        if constexpr (Kind::powers)
                            v = kind.of_element(v, some(static_cast<const T*>(p.x) + at + w, n));
                        n == L ? store(out + w, v) : store(out + w, v, n);
                    }
                }
    }

    // U vectors of channels from c on of the element number `at`.
    template <int U>
    static NK_HD void pixel(const cpu::Pool& p, const Kind& kind, const Holder<S>* list, int64_t windows, int64_t at,
                            int64_t c, int n) {
        V sum[U];
        for (int u = 0; u < U; ++u) sum[u] = V(S(0));
        for (int64_t k = 0; k < windows; ++k) {
            const int64_t from = list[k].output * p.channels + c;
            for (int u = 0; u < U; ++u) sum[u] = mad(gradient(p, kind, from + u * L, n), V(list[k].factor), sum[u]);
        }
        at = at * p.channels + c;
        for (int u = 0; u < U; ++u) {
            if constexpr (Kind::powers)
                sum[u] = kind.of_element(sum[u], some(static_cast<const T*>(p.x) + at + u * L, n));
            T* to = static_cast<T*>(p.out) + at + u * L;
            n == L ? store(to, sum[u]) : store(to, sum[u], n);
        }
    }

    static void channels(const cpu::Pool& p) {
        const cpu::PoolAxis &ad = p.axis[0], &ah = p.axis[1], &aw = p.axis[2];
        constexpr int U = L == 1 ? 1 : 4;
        const Kind kind(p);
        auto* list = static_cast<Holder<S>*>(p.scratch);
        for (int64_t row = p.begin; row < p.end; ++row) {
            const int64_t h = row % ah.in, d = row / ah.in % ad.in, n = row / ah.in / ad.in;
            for (int64_t w = 0; w < aw.in; ++w) {
                const int64_t windows = holders(p, list, n, d, h, w), at = row * aw.in + w;
                int64_t c = p.first_channel;
                if constexpr (U > 1)
                    for (; c + U * L <= p.last_channel; c += U * L) pixel<U>(p, kind, list, windows, at, c, L);
                for (; c < p.last_channel; c += L)
                    pixel<1>(p, kind, list, windows, at, c, static_cast<int>(min64(L, p.last_channel - c)));
            }
        }
    }
};

template <int D>
void fill_table(cpu::PoolingEntries& e) {
    using T = typename storage<D>::type;
    e.average_backward_planes[D] = [](const cpu::Pool& p) {
        p.norm != 0 ? MeanBackward<T, Norm>::planes(p) : MeanBackward<T, Average>::planes(p);
    };
    e.average_backward_channels[D] = [](const cpu::Pool& p) {
        p.norm != 0 ? MeanBackward<T, Norm>::channels(p) : MeanBackward<T, Average>::channels(p);
    };
}

}  // namespace

void register_average_backward(cpu::PoolingEntries& e) {
    fill_table<0>(e);
    fill_table<1>(e);
    fill_table<2>(e);
    fill_table<3>(e);
}

}  // namespace nk::NK_ISA
