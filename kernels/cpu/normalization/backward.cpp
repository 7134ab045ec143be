// The gradients of layer_norm and rms_norm. With d = x - mean (x in rms_norm) and u = g * weight:
//
//   gx = rstd * u - a - d * b,  a = rstd * sum(u) / n,  b = rstd^3 * sum(u * d) / n      (a = 0 in rms_norm)
//   gw = sum over the rows of g * d * rstd,  gb = sum over the rows of g
//
// A few rows go together while they are in cache: first each row's two sums, then, column by column, gx of all of them
// and their terms of gw and gb, which are added up in registers before they touch the sums in memory.
#include "register.h"

namespace nk::NK_ISA {

namespace {

constexpr int kTogether = 4;                    // rows that go together at most
constexpr int64_t kTogetherBytes = 256 * 1024;  // of x and g: a quarter of L2

template <class T>
struct Gradient : Row<T> {
    using R = Row<T>;
    using typename R::S;
    using typename R::V;
    using typename R::W;

    // What one row's gradient needs beside its elements.
    struct Terms {
        const T *g, *x;
        T* gx;
        S mean, rstd, a, b;
    };

    template <bool Rms>
    static NK_HD void reduce(Terms& t, const T* weight, int64_t n) {
        double plain = 0, weighted = 0;
        for (int64_t begin = 0; begin < n; begin += R::sum_block) {
            W sum_u(S(0)), sum_ud(S(0));
            V rest_u(S(0)), rest_ud(S(0));
            R::walk(
                begin, min64(n, begin + R::sum_block),
                [&](int64_t i) {
                    W u = R::read(t.g + i);
                    if (weight != nullptr) u = u * R::read(weight + i);
                    const W x = R::read(t.x + i);
                    sum_ud = mad(u, Rms ? x : x - W(t.mean), sum_ud);
                    if constexpr (!Rms) sum_u = sum_u + u;
                },
                [&](int64_t i, int w) {
                    V u = R::read_some(t.g + i, w);  // 0 beyond the row's end, and so are the terms
                    if (weight != nullptr) u = u * R::read_some(weight + i, w);
                    const V x = R::read_some(t.x + i, w);
                    rest_ud = mad(u, Rms ? x : x - V(t.mean), rest_ud);
                    if constexpr (!Rms) rest_u = rest_u + u;
                });
            weighted += static_cast<double>(reduce_add(fold_add(sum_ud) + rest_ud));
            if constexpr (!Rms) plain += static_cast<double>(reduce_add(fold_add(sum_u) + rest_u));
        }
        const double rstd = static_cast<double>(t.rstd), count = static_cast<double>(n);
        t.a = static_cast<S>(rstd * plain / count);
        t.b = static_cast<S>(weighted * rstd / count * rstd * rstd);
    }

    template <bool Rms, class U, class Read, class Write>
    static NK_HD void column(const Terms* rows, int count, const cpu::NormRowsBackward& a, U& gw, U& gb, Read read,
                             Write write) {
        const U weight = a.weight != nullptr ? read(static_cast<const T*>(a.weight)) : U(S(1));
        for (int r = 0; r < count; ++r) {
            const Terms& t = rows[r];
            const U g = read(t.g), x = read(t.x), d = Rms ? x : x - U(t.mean);
            gw = mad(g * U(t.rstd), d, gw);
            gb = gb + g;
            if (a.gx == nullptr) continue;
            const U scaled = g * weight * U(t.rstd);
            write(t.gx, mad(d, U(-t.b), Rms ? scaled : scaled - U(t.a)));
        }
    }

    template <bool Rms>
    static NK_HD void columns(const Terms* rows, int count, const cpu::NormRowsBackward& a, bool fresh) {
        S *gw = static_cast<S*>(a.gw), *gb = static_cast<S*>(a.gb);
        R::walk(
            0, a.n,
            [&](int64_t i) {
                W w(S(0)), b(S(0));
                column<Rms>(
                    rows, count, a, w, b, [&](const T* p) { return R::read(p + i); },
                    [&](T* p, W v) { R::write(p + i, v, a.stream); });
                if (gw != nullptr) store_wide(gw + i, fresh ? w : R::read(gw + i) + w);
                if (gb != nullptr) store_wide(gb + i, fresh ? b : R::read(gb + i) + b);
            },
            [&](int64_t i, int n) {
                V w(S(0)), b(S(0));
                column<Rms>(
                    rows, count, a, w, b, [&](const T* p) { return R::read_some(p + i, n); },
                    [&](T* p, V v) { R::write_some(p + i, v, n); });
                if (gw != nullptr) R::write_some(gw + i, fresh ? w : R::read_some(gw + i, n) + w, n);
                if (gb != nullptr) R::write_some(gb + i, fresh ? b : R::read_some(gb + i, n) + b, n);
            });
    }

    template <bool Rms>
    static void backward(const cpu::NormRowsBackward& a) {
        const int64_t fit = kTogetherBytes / (2 * static_cast<int64_t>(sizeof(T)) * a.n);
        const int64_t most = fit < 1 ? 1 : min64(fit, kTogether);
        for (int64_t r = 0; r < a.rows; r += most) {
            const int count = static_cast<int>(min64(most, a.rows - r));
            Terms rows[kTogether];
            for (int k = 0; k < count; ++k) {
                Terms& t = rows[k];
                t.g = static_cast<const T*>(a.g) + (r + k) * a.g_stride;
                t.x = static_cast<const T*>(a.x) + (r + k) * a.x_stride;
                t.gx = static_cast<T*>(a.gx) + (r + k) * a.gx_stride;
                t.mean = Rms ? S(0) : static_cast<const S*>(a.mean)[r + k];
                t.rstd = static_cast<const S*>(a.rstd)[r + k];
                if (a.gx != nullptr) reduce<Rms>(t, static_cast<const T*>(a.weight), a.n);
            }
            columns<Rms>(rows, count, a, a.fresh && r == 0);
        }
    }

    static void add_parts(const cpu::NormSums& a) {
        const S* part = static_cast<const S*>(a.part);
        T* out = static_cast<T*>(a.out);
        const auto total = [&](auto read) {
            decltype(read(part)) sum(S(0));  // of no part, too
            for (int64_t p = 0; p < a.parts; ++p) sum = sum + read(part + p * a.stride);
            return sum;
        };
        R::walk(
            0, a.n, [&](int64_t i) { store_wide(out + i, total([&](const S* p) { return R::read(p + i); })); },
            [&](int64_t i, int n) {
                R::write_some(out + i, total([&](const S* p) { return R::read_some(p + i, n); }), n);
            });
    }
};

template <int D>
void fill(cpu::NormalizationEntries& e) {
    using G = Gradient<typename storage<D>::type>;
    e.layer_norm_backward[D] = G::template backward<false>;
    e.rms_norm_backward[D] = G::template backward<true>;
    e.add_parts[D] = G::add_parts;
}

}  // namespace

void register_norm_backward(cpu::NormalizationEntries& e) {
    fill<0>(e);
    fill<1>(e);
    fill<2>(e);
    fill<3>(e);
}

}  // namespace nk::NK_ISA
