// Softmax along contiguous rows, and its gradient.
//
// Three ways, by where the exponentials can wait for the sum:
//   in a register   the row is one vector
//   in memory       each chunk's maximum is found, its exponentials (of x minus the running maximum) are kept in the
//                   output or, for 16-bit types, in a block on the stack; the second pass scales every chunk by
//                   exp(its maximum - final maximum) / sum
//   nowhere         (long rows) the first pass keeps maximum and sum only, the second computes exp(x - maximum) anew:
//                   x is read twice and the output written once, which beats reading and writing it twice
#include "softmax.h"

#ifndef NK_ISA_avx512bf16

namespace nk::NK_ISA {

namespace {

constexpr int64_t kKeptBytes = 512 * 1024;  // longest row kept in the output: x and output fit a 1 MiB L2
constexpr int64_t kKeptHalves = 4096;       // longest row of 16-bit type kept on the stack, 16 KiB
constexpr int kChunks = 256;                // most chunks of a row that is kept
constexpr int64_t kSumBlock = 4096;         // elements summed before they join the total
constexpr int64_t kChunk = 512;             // elements of a chunk that stay in L1 between maximum and exponentials

// Applies body(i, count) over [begin, end) in vectors; count < lanes only in the last.
template <int L, class Body>
NK_HD void vectors(int64_t begin, int64_t end, Body body) {
    int64_t i = begin;
    for (; i + L <= end; i += L) body(i, L);
    if (i < end) body(i, static_cast<int>(end - i));
}
template <class T>
NK_HD compute_vec<T> load_some(const T* p, int n) {
    return n == compute_vec<T>::lanes ? load(p) : load(p, n);
}
template <class T, class V>
NK_HD void store_some(T* p, V v, int n) {
    if (n == V::lanes)
        store(p, v);
    else
        store(p, v, n);
}

template <class T>
struct Rows {
    using S = scalar_for<T>;
    using V = compute_vec<T>;
    static constexpr int L = V::lanes;

    // Lanes beyond the end take part as -infinity.
    static NK_HD V load_signed(const T* x, V sign, int n) {
        if (n == L) return load(x) * sign;
        S lane[L];
        for (int k = 0; k < L; ++k) lane[k] = k < n ? S(0) : minus_infinity<S>();
        return load(x, n) * sign + load(lane);
    }

    static NK_HD S maximum(const T* x, V sign, int64_t begin, int64_t end) {
        V a(minus_infinity<S>()), b = a, c = a, d = a;
        int64_t i = begin;
        for (; i + 4 * L <= end; i += 4 * L) {
            a = max(load(x + i) * sign, a);
            b = max(load(x + i + L) * sign, b);
            c = max(load(x + i + 2 * L) * sign, c);
            d = max(load(x + i + 3 * L) * sign, d);
        }
        vectors<L>(i, end, [&](int64_t k, int n) { a = max(load_signed(x + k, sign, n), a); });
        return reduce_max(max(max(a, b), max(c, d)));
    }

    // Sum of exp(x - m), each stored to `keep` unless that is null.
    static NK_HD S exponentials(const T* x, V sign, V m, S* keep, int64_t begin, int64_t end) {
        V sum(S(0)), sum2(S(0));
        int64_t i = begin;
        for (; i + 2 * L <= end; i += 2 * L) {
            const V e = math::exp_nonpositive(load(x + i) * sign - m);
            const V e2 = math::exp_nonpositive(load(x + i + L) * sign - m);
            if (keep != nullptr) store(keep + i, e), store(keep + i + L, e2);
            sum = sum + e;
            sum2 = sum2 + e2;
        }
        vectors<L>(i, end, [&](int64_t k, int n) {
            const V e = math::exp_nonpositive(load_signed(x + k, sign, n) - m);
            if (keep != nullptr) store_some(keep + k, e, n);
            sum = sum + e;
        });
        return reduce_add(sum + sum2);
    }

    static NK_HD void one_vector(T* out, const T* x, int n, V sign, bool log) {
        const V v = load_signed(x, sign, n);
        const V shifted = v - finite_or_zero(V(reduce_max(v)));
        const V e = math::exp_nonpositive(shifted);
        const V sum(reduce_add(e));
        store(out, log ? shifted - math::log(sum) : e / sum, n);
    }

    struct State {
        S m = minus_infinity<S>();  // of all chunks so far
        S sum = 0;                  // of exp(x - m)
    };
    static NK_HD S shift_of(S m) { return m == minus_infinity<S>() ? S(0) : m; }

    static NK_HD void add_chunk(State& s, const T* x, V sign, S* keep, int64_t begin, int64_t end) {
        const S m = maximum(x, sign, begin, end);
        if (m > s.m) {
            s.sum = s.m == minus_infinity<S>() ? S(0) : s.sum * exp_one(s.m - m);
            s.m = m;
        }
        s.sum += exponentials(x, sign, V(shift_of(s.m)), keep, begin, end);
    }

    static NK_HD void kept(T* out, const T* x, int64_t n, V sign, S* keep) {
        const int64_t chunk = n <= kChunk * kChunks ? kChunk : (n + kChunks - 1) / kChunks;
        S maxima[kChunks];
        State s;
        int c = 0;
        for (int64_t i = 0; i < n; i += chunk) {
            add_chunk(s, x, sign, keep, i, min64(n, i + chunk));
            maxima[c++] = s.m;
        }
        const S inverse = S(1) / s.sum;
        c = 0;
        for (int64_t i = 0; i < n; i += chunk, ++c) {
            const V factor(maxima[c] == s.m ? inverse : exp_one(maxima[c] - s.m) * inverse);
            vectors<L>(i, min64(n, i + chunk),
                       [&](int64_t k, int w) { store_some(out + k, load_some(keep + k, w) * factor, w); });
        }
    }

    static NK_HD void recomputed(T* out, const T* x, int64_t n, V sign, bool log) {
        State s;
        for (int64_t i = 0; i < n; i += kChunk) add_chunk(s, x, sign, nullptr, i, min64(n, i + kChunk));
        const V m(shift_of(s.m)), inverse(S(1) / s.sum);
        if (log) {
            const V log_sum(log_one(s.sum));
            vectors<L>(0, n,
                       [&](int64_t k, int w) { store_some(out + k, load_some(x + k, w) * sign - m - log_sum, w); });
        } else {
            vectors<L>(0, n, [&](int64_t k, int w) {
                store_some(out + k, math::exp_nonpositive(load_some(x + k, w) * sign - m) * inverse, w);
            });
        }
    }

    static void forward(const cpu::SoftmaxRows& a) {
        const bool log = a.kind == cpu::SoftmaxKind::log_softmax;
        const V sign(S(a.kind == cpu::SoftmaxKind::softmin ? -1 : 1));
        for (int64_t r = 0; r < a.rows; ++r) {
            T* out = static_cast<T*>(a.out) + r * a.out_stride;
            const T* x = static_cast<const T*>(a.x) + r * a.x_stride;
            if (a.n <= L) {
                one_vector(out, x, static_cast<int>(a.n), sign, log);
            } else if (log) {
                recomputed(out, x, a.n, sign, log);
            } else if constexpr (sizeof(T) == 2) {
                alignas(64) S block[kKeptHalves];
                if (a.n <= kKeptHalves)
                    kept(out, x, a.n, sign, block);
                else
                    recomputed(out, x, a.n, sign, log);
            } else if (a.n * static_cast<int64_t>(sizeof(T)) <= kKeptBytes) {
                kept(out, x, a.n, sign, out);
            } else {
                recomputed(out, x, a.n, sign, log);
            }
        }
    }

    static NK_HD S gradient_sum(const T* g, int64_t i, int64_t end) {
        V s[4] = {V(S(0)), V(S(0)), V(S(0)), V(S(0))};
        for (; i + 4 * L <= end; i += 4 * L)
            for (int u = 0; u < 4; ++u) s[u] = s[u] + load(g + i + u * L);
        vectors<L>(i, end, [&](int64_t k, int w) { s[0] = s[0] + load_some(g + k, w); });
        return reduce_add((s[0] + s[1]) + (s[2] + s[3]));
    }
    static NK_HD S product_sum(const T* g, const T* y, int64_t i, int64_t end) {
        V s[4] = {V(S(0)), V(S(0)), V(S(0)), V(S(0))};
        for (; i + 4 * L <= end; i += 4 * L)
            for (int u = 0; u < 4; ++u) s[u] = mad(load(g + i + u * L), load(y + i + u * L), s[u]);
        vectors<L>(i, end, [&](int64_t k, int w) { s[0] = mad(load_some(g + k, w), load_some(y + k, w), s[0]); });
        return reduce_add((s[0] + s[1]) + (s[2] + s[3]));
    }

    // y*(g - sum(g*y)), negated for softmin; g - exp(y)*sum(g) for log_softmax.
    static void backward(const cpu::SoftmaxRows& a) {
        const bool log = a.kind == cpu::SoftmaxKind::log_softmax;
        const V sign(S(a.kind == cpu::SoftmaxKind::softmin ? -1 : 1));
        for (int64_t r = 0; r < a.rows; ++r) {
            T* out = static_cast<T*>(a.out) + r * a.out_stride;
            const T* y = static_cast<const T*>(a.x) + r * a.x_stride;
            const T* g = static_cast<const T*>(a.g) + r * a.g_stride;
            // Summed in blocks, so that the error does not grow with the length of the row.
            S total = 0;
            for (int64_t i = 0; i < a.n; i += kSumBlock) {
                const int64_t end = min64(a.n, i + kSumBlock);
                total += log ? gradient_sum(g, i, end) : product_sum(g, y, i, end);
            }
            const V sum(total);
            if (log)
                vectors<L>(0, a.n, [&](int64_t k, int w) {
                    store_some(out + k, load_some(g + k, w) - math::exp(load_some(y + k, w)) * sum, w);
                });
            else
                vectors<L>(0, a.n, [&](int64_t k, int w) {
                    store_some(out + k, load_some(y + k, w) * sign * (load_some(g + k, w) - sum), w);
                });
        }
    }
};

template <int D>
void fill(cpu::ActivationEntries& e) {
    using R = Rows<typename storage<D>::type>;
    e.softmax_rows[D] = R::forward;
    e.softmax_rows_backward[D] = R::backward;
}

}  // namespace

void register_softmax_rows(cpu::ActivationEntries& e) {
    fill<0>(e);
    fill<1>(e);
    fill<2>(e);
    fill<3>(e);
}

}  // namespace nk::NK_ISA

#endif
