// The average of each window, and lp_pool: the sum over the rows of the windows, then over the columns of that line
// (lines.h); or, with channels innermost, a vector of channels at a time.
#include "lines.h"
#include "powers.h"

namespace nk::NK_ISA {

namespace {

constexpr int64_t kLarge = 16, kSums = 2048;  // elements of a large window, and channels summed together in it

template <class T, class Kind>
struct Mean {
    using S = scalar_for<T>;
    using V = compute_vec<T>;
    static constexpr int L = V::lanes;

    struct Lines {
        LineShape shape;
        S *line, *phases, *divisors;  // divisors of a row of outputs, less those of D and H
        Lines(const cpu::Pool& p) : shape(LineShape::of<L>(p.axis[2])) {
            const cpu::PoolAxis& a = p.axis[2];
            line = static_cast<S*>(p.scratch), phases = line, divisors = line + shape.length;
            if (a.regular && a.stride > 1) phases = divisors, divisors = phases + a.stride * shape.phase;
            fill(line, shape.length, S(0));
            for (int64_t o = 0; o < a.out; ++o)
                divisors[o] = static_cast<S>(p.divisor != 0 ? p.divisor : static_cast<double>(a.count[o]));
            fill(divisors + a.out, L, S(1));
        }
    };

    static NK_HD V some(const T* p, int n) { return n == L ? load(p) : load(p, n); }

    static NK_HD S result(const Kind& kind, S mean) {
        if constexpr (!Kind::powers) return mean;
        alignas(64) S lane[L];
        store(lane, kind.result(V(mean)));
        return lane[0];
    }

    static NK_HD V sum_of(const Kind& kind, const T* x, int64_t n) {
        V sum[4] = {V(S(0)), V(S(0)), V(S(0)), V(S(0))};
        int64_t i = 0;
        for (; i + 4 * L <= n; i += 4 * L)
            for (int k = 0; k < 4; ++k) sum[k] = sum[k] + kind.element(load(x + i + k * L));
        for (; i + L <= n; i += L) sum[0] = sum[0] + kind.element(load(x + i));
        if (i < n) sum[1] = sum[1] + kind.element(load(x + i, static_cast<int>(n - i)));
        return (sum[0] + sum[1]) + (sum[2] + sum[3]);
    }

    static NK_HD void over_rows(const cpu::Pool& p, const Kind& kind, S* line, const T* x, int64_t d, int64_t h) {
        const cpu::PoolAxis &ad = p.axis[0], &ah = p.axis[1], &aw = p.axis[2];
        for (int64_t w = 0; w < aw.in; w += L) {
            const int n = static_cast<int>(min64(L, aw.in - w));
            V sum(S(0));
            for (int64_t i = ad.begin[d]; i < ad.end[d]; ++i)
                for (int64_t j = ah.begin[h]; j < ah.end[h]; ++j)
                    sum = sum + kind.element(some(x + (i * ah.in + j) * aw.in + w, n));
            if (n == L)
                store(line + w, sum);
            else
                store(line + w, sum, n);
        }
    }

    static void planes(const cpu::Pool& p) {
        const cpu::PoolAxis &ad = p.axis[0], &ah = p.axis[1], &aw = p.axis[2];
        const Kind kind(p);
        const int64_t in = ad.in * ah.in * aw.in;
        const T* x = static_cast<const T*>(p.x) + p.begin * in;
        T* out = static_cast<T*>(p.out) + p.begin * ad.out * ah.out * aw.out;
        if (in == aw.in && ad.out * ah.out * aw.out == 1 && !aw.regular) {  // whole planes
            const S divisor = static_cast<S>(p.divisor != 0 ? p.divisor : static_cast<double>(aw.count[0]));
            for (int64_t plane = p.begin; plane < p.end; ++plane, x += in)
                put_number(*out++, result(kind, reduce_add(sum_of(kind, x, in)) / divisor));
            return;
        }
        const Lines l(p);
        for (int64_t plane = p.begin; plane < p.end; ++plane, x += in)
            for (int64_t d = 0; d < ad.out; ++d)
                for (int64_t h = 0; h < ah.out; ++h, out += aw.out) {
                    over_rows(p, kind, l.line + aw.padding, x, d, h);
                    const S rows = static_cast<S>(p.divisor != 0 ? 1 : ad.count[d] * ah.count[h]);
                    if (!aw.regular) {
                        for (int64_t o = 0; o < aw.out; ++o) {
                            S sum = 0;
                            for (int64_t w = aw.begin[o]; w < aw.end[o]; ++w) sum += l.line[w];
                            put_number(out[o], result(kind, sum / (l.divisors[o] * rows)));
                        }
                        continue;
                    }
                    if (aw.stride > 1) deal(l.phases, l.line, l.shape.phase, aw.stride);
                    for (int64_t o = 0; o < aw.out; o += L) {
                        V sum(S(0));
                        each_element(aw, l.shape.phase, [&](int64_t at) { sum = sum + load(l.phases + at + o); });
                        const V y = kind.result(sum / (load(l.divisors + o) * V(rows)));
                        const int n = static_cast<int>(min64(L, aw.out - o));
                        n == L ? store(out + o, y) : store(out + o, y, n);
                    }
                }
    }

    template <int U>
    static NK_HD void pixel(const cpu::Pool& p, const Kind& kind, const T* x, T* out, int tail, const int64_t (&o)[3]) {
        const cpu::PoolAxis &ad = p.axis[0], &ah = p.axis[1], &aw = p.axis[2];
        V sum[U];
        for (int u = 0; u < U; ++u) sum[u] = V(S(0));
        for (int64_t i = ad.begin[o[0]]; i < ad.end[o[0]]; ++i)
            for (int64_t j = ah.begin[o[1]]; j < ah.end[o[1]]; ++j)
                for (int64_t k = aw.begin[o[2]]; k < aw.end[o[2]]; ++k) {
                    const T* from = x + ((i * ah.in + j) * aw.in + k) * p.channels;
                    for (int u = 0; u < U; ++u)
                        sum[u] = sum[u] + kind.element(U > 1 ? load(from + u * L) : some(from, tail));
                }
        const double held = static_cast<double>(ad.count[o[0]] * ah.count[o[1]] * aw.count[o[2]]);
        const V divisor(static_cast<S>(p.divisor != 0 ? p.divisor : held));
        for (int u = 0; u < U; ++u) {
            const V y = kind.result(sum[u] / divisor);
            U > 1 || tail == L ? store(out + u * L, y) : store(out, y, tail);
        }
    }

    static NK_HD int64_t held_by(const cpu::Pool& p, const int64_t (&o)[3]) {
        int64_t n = 1;
        for (int k = 0; k < 3; ++k) n *= p.axis[k].end[o[k]] - p.axis[k].begin[o[k]];
        return n;
    }

    // Large windows pixel by pixel, so that memory is read in its order; the sums of `n` channels are in L1.
    static NK_HD void large(const cpu::Pool& p, const Kind& kind, const T* x, T* out, int64_t n,
                            const int64_t (&o)[3]) {
        const cpu::PoolAxis &ad = p.axis[0], &ah = p.axis[1], &aw = p.axis[2];
        S* sums = static_cast<S*>(p.scratch);
        fill(sums, round_up(n, L), S(0));
        for (int64_t i = ad.begin[o[0]]; i < ad.end[o[0]]; ++i)
            for (int64_t j = ah.begin[o[1]]; j < ah.end[o[1]]; ++j)
                for (int64_t k = aw.begin[o[2]]; k < aw.end[o[2]]; ++k) {
                    const T* from = x + ((i * ah.in + j) * aw.in + k) * p.channels;
                    int64_t c = 0;
                    for (; c + L <= n; c += L) store(sums + c, load(sums + c) + kind.element(load(from + c)));
                    if (c < n) {
                        const int tail = static_cast<int>(n - c);
                        store(sums + c, load(sums + c) + kind.element(load(from + c, tail)), tail);
                    }
                }
        const double held = static_cast<double>(ad.count[o[0]] * ah.count[o[1]] * aw.count[o[2]]);
        const V divisor(static_cast<S>(p.divisor != 0 ? p.divisor : held));
        for (int64_t c = 0; c < n; c += L) {
            const int tail = static_cast<int>(min64(L, n - c));
            const V y = kind.result(load(sums + c) / divisor);
            tail == L ? store(out + c, y) : store(out + c, y, tail);
        }
    }

    static void channels(const cpu::Pool& p) {
        const cpu::PoolAxis &ad = p.axis[0], &ah = p.axis[1], &aw = p.axis[2];
        constexpr int U = L == 1 ? 1 : 4;
        const Kind kind(p);
        const int64_t in = ad.in * ah.in * aw.in * p.channels;
        for (int64_t row = p.begin; row < p.end; ++row) {
            const int64_t h = row % ah.out, d = row / ah.out % ad.out, n = row / ah.out / ad.out;
            const T* x = static_cast<const T*>(p.x) + n * in;
            for (int64_t w = 0; w < aw.out; ++w) {
                const int64_t o[3] = {d, h, w};
                T* out = static_cast<T*>(p.out) + (row * aw.out + w) * p.channels;
                int64_t c = p.first_channel;
                if (held_by(p, o) >= kLarge) {
                    for (; c < p.last_channel; c += kSums)
                        large(p, kind, x + c, out + c, min64(kSums, p.last_channel - c), o);
                    continue;
                }
                if constexpr (U > 1)
                    for (; c + U * L <= p.last_channel; c += U * L) pixel<U>(p, kind, x + c, out + c, L, o);
                for (; c < p.last_channel; c += L)
                    pixel<1>(p, kind, x + c, out + c, static_cast<int>(min64(L, p.last_channel - c)), o);
            }
        }
    }
};

template <int D>
void fill_table(cpu::PoolingEntries& e) {
    using T = typename storage<D>::type;
    e.average_planes[D] = [](const cpu::Pool& p) {
        p.norm != 0 ? Mean<T, Norm>::planes(p) : Mean<T, Average>::planes(p);
    };
    e.average_channels[D] = [](const cpu::Pool& p) {
        p.norm != 0 ? Mean<T, Norm>::channels(p) : Mean<T, Average>::channels(p);
    };
}

}  // namespace

void register_average(cpu::PoolingEntries& e) {
    fill_table<0>(e);
    fill_table<1>(e);
    fill_table<2>(e);
    fill_table<3>(e);
}

}  // namespace nk::NK_ISA
