// layer_norm and rms_norm of contiguous rows: y = (x - mean) * rstd * weight + bias, without mean and bias in rms_norm.
//
// A row's statistics come from chunks that stay in L1: each chunk's mean first, then the squares of the deviations from
// it, so that no large numbers cancel; chunks are merged as Chan, Golub and LeVeque (1983) do. A mean that float can't
// hold is kept as two floats: a row of 10,000 and small deviations comes out as well as the deviations alone. The
// second pass reads the row from L1 or L2.
#include "register.h"

namespace nk::NK_ISA {

namespace {

template <class T>
struct Norm : Row<T> {
    using R = Row<T>;
    using typename R::S;
    using typename R::V;
    using typename R::W;
    static constexpr int64_t kChunk = 2048 < R::sum_block ? 2048 : R::sum_block;  // L1 holds it, a lane adds few terms

    // The sum of f(i, W) in whole steps and f(i, V, count) beyond, over at most a sum_block of elements.
    template <class Whole, class Part>
    static NK_HD S sum(int64_t begin, int64_t end, Whole whole, Part part) {
        W total(S(0));
        V rest(S(0));
        R::walk(
            begin, end, [&](int64_t i) { total = whole(i, total); },
            [&](int64_t i, int n) { rest = part(i, n, rest); });
        return reduce_add(fold_add(total) + rest);
    }

    // n elements' mean and sum of squared deviations.
    struct Moments {
        double n = 0, mean = 0, squares = 0;

        NK_HD void merge(double count, double chunk_mean, double chunk_squares) {
            const double delta = chunk_mean - mean, all = n + count, share = count / all;
            mean += delta * share;
            squares += chunk_squares + delta * delta * (n * share);
            n = all;
        }
    };

    static NK_HD V deviation(const T* x, int64_t i, int n, S center) {
        const V d = R::read_some(x + i, n) - V(center);
        return n == R::L ? d : first_lanes(d, n);
    }
    // d in the first n lanes, 0 beyond.
    static NK_HD V first_lanes(V d, int n) {
        S all[R::L];
        store(all, d);
        return load(all, n);
    }

    static NK_HD Moments moments(const T* x, int64_t n) {
        Moments m;
        for (int64_t begin = 0; begin < n; begin += kChunk) {
            const int64_t end = min64(n, begin + kChunk);
            const double count = static_cast<double>(end - begin);
            const S center = static_cast<S>(sum(
                                                begin, end, [&](int64_t i, W t) { return t + R::read(x + i); },
                                                [&](int64_t i, int w, V t) { return t + R::read_some(x + i, w); }) /
                                            static_cast<S>(count));
            W left(S(0));  // what the rounding of the center left
            V left_rest(S(0));
            const S squares = sum(
                begin, end,
                [&](int64_t i, W t) {
                    const W d = R::read(x + i) - W(center);
                    left = left + d;
                    return mad(d, d, t);
                },
                [&](int64_t i, int w, V t) {
                    const V d = deviation(x, i, w, center);
                    left_rest = left_rest + d;
                    return mad(d, d, t);
                });
            const double residue = static_cast<double>(reduce_add(fold_add(left) + left_rest)) / count;
            m.merge(count, static_cast<double>(center) + residue,
                    static_cast<double>(squares) - residue * residue * count);
        }
        return m;
    }

    static NK_HD double mean_square(const T* x, int64_t n) {
        double total = 0;
        for (int64_t begin = 0; begin < n; begin += kChunk)
            total += static_cast<double>(sum(
                begin, min64(n, begin + kChunk),
                [&](int64_t i, W t) {
                    const W v = R::read(x + i);
                    return mad(v, v, t);
                },
                [&](int64_t i, int w, V t) {
                    const V v = R::read_some(x + i, w);
                    return mad(v, v, t);
                }));
        return total / static_cast<double>(n);
    }

    // y = ((x - mean) * rstd + shift) * weight + bias.
    template <bool Rms>
    static NK_HD void write_row(const cpu::NormRows& a, T* y, const T* x, S mean, S rstd, S shift) {
        const T *weight = static_cast<const T*>(a.weight), *bias = static_cast<const T*>(a.bias);
        const auto value = [&](auto v, auto at) {
            using U = decltype(v);
            v = Rms ? v * U(rstd) : mad(v - U(mean), U(rstd), U(shift));
            if (weight != nullptr && bias != nullptr) return mad(v, at(weight), at(bias));
            if (weight != nullptr) return v * at(weight);
            return bias != nullptr ? v + at(bias) : v;
        };
        R::walk_out(
            y, a.stream, 0, a.n,
            [&](int64_t i) {
                R::write(y + i, value(R::read(x + i), [&](const T* p) { return R::read(p + i); }), a.stream);
            },
            [&](int64_t i, int n) {
                R::write_some(y + i, value(R::read_some(x + i, n), [&](const T* p) { return R::read_some(p + i, n); }),
                              n);
            });
    }

    template <bool Rms>
    static void forward(const cpu::NormRows& a) {
        S *mean = static_cast<S*>(a.mean), *rstd = static_cast<S*>(a.rstd);
        for (int64_t r = 0; r < a.rows; ++r) {
            T* y = static_cast<T*>(a.y) + r * a.y_stride;
            const T* x = static_cast<const T*>(a.x) + r * a.x_stride;
            if constexpr (Rms) {
                rstd[r] = static_cast<S>(1 / __builtin_sqrt(mean_square(x, a.n) + a.eps));
                write_row<true>(a, y, x, S(0), rstd[r], S(0));
            } else {
                const Moments m = moments(x, a.n);
                const double scale = 1 / __builtin_sqrt(m.squares / m.n + a.eps);
                mean[r] = static_cast<S>(m.mean);
                rstd[r] = static_cast<S>(scale);
                const double left = m.mean - static_cast<double>(mean[r]);
                write_row<false>(a, y, x, mean[r], rstd[r], static_cast<S>(-left * scale));
            }
        }
    }
};

template <int D>
void fill(cpu::NormalizationEntries& e) {
    using N = Norm<typename storage<D>::type>;
    e.layer_norm[D] = N::template forward<false>;
    e.rms_norm[D] = N::template forward<true>;
}

}  // namespace

void register_norm_forward(cpu::NormalizationEntries& e) {
    fill<0>(e);
    fill<1>(e);
    fill<2>(e);
    fill<3>(e);
}

}  // namespace nk::NK_ISA
