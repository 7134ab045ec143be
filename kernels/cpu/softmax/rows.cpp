// Softmax along contiguous rows, and its gradient.
//
// Four ways, by where the exponentials can wait for the sum:
//   in a register   the row is one vector
//   in L1           short rows, several together: all their maxima, then all their exponentials, then all quotients, so
//                   that one row's reduction to a single number runs beside the next one's vectors; meanwhile the next
//                   rows are on their way from memory
//   in the output   each chunk's maximum is found, its exponentials (of x minus the running maximum) are kept; the
//                   second pass scales every chunk by exp(its maximum - final maximum) / sum
//   nowhere         (long rows) the first pass keeps maximum and sum only, the second computes exp(x - maximum) anew:
//                   x is read twice and the output written once, which beats reading and writing it twice
#include "softmax.h"

namespace nk::NK_ISA {

namespace {

constexpr int64_t kShort = 4096;  // longest row whose exponentials wait in L1: 16 KiB of them in f32
constexpr int64_t kGroup = 1024;  // elements of the rows that go together, with the next ones beside them in L1
constexpr int kTogether = 8;      // rows that go together at most
constexpr int64_t kKeptBytes = 512 * 1024;  // longest row kept in the output: x and output fit a 1 MiB L2
constexpr int kChunks = 256;                // most chunks of a row that is kept
constexpr int64_t kChunk = 2048;            // elements of a chunk that stay in L1 between maximum and exponentials

template <class T>
struct Rows : Row<T> {
    using typename Row<T>::S, typename Row<T>::V, typename Row<T>::W;
    using Row<T>::L, Row<T>::sum_block, Row<T>::can_stream;
    using Row<T>::walk, Row<T>::walk_out, Row<T>::read, Row<T>::read_some, Row<T>::write, Row<T>::write_some;

    static NK_HD V read_signed(const T* p, S sign, int n) {
        return n == L ? load(p) * V(sign) : load_or_minus_infinity(p, V(sign), n);
    }

    static NK_HD S maximum(const T* x, S sign, int64_t begin, int64_t end) {
        W most(minus_infinity<S>());
        V rest(minus_infinity<S>());
        walk(
            begin, end, [&](int64_t i) { most = max(read(x + i) * W(sign), most); },
            [&](int64_t i, int n) { rest = max(read_signed(x + i, sign, n), rest); });
        return reduce_max(max(fold_max(most), rest));
    }

    // Sum of exp(x - m), each stored to `keep` where Keep; x[ahead] and on are fetched, for what comes next.
    template <bool Keep>
    static NK_HD S exponentials(const T* x, S sign, S m, S* keep, int64_t begin, int64_t end, int64_t ahead) {
        S total = 0;
        for (int64_t first = begin; first < end; first += sum_block) {
            W sum(S(0));
            V rest(S(0));
            walk(
                first, min64(end, first + sum_block),
                [&](int64_t i) {
                    prefetch<W>(x + i + ahead);
                    const W v = exponential<T>(read(x + i) * W(sign) - W(m));
                    if constexpr (Keep) store_wide(keep + i, v);
                    sum = sum + v;
                },
                [&](int64_t i, int n) {
                    const V v = exponential<T>(read_signed(x + i, sign, n) - V(m));
                    if constexpr (Keep) write_some(keep + i, v, n);
                    rest = rest + v;
                });
            total += reduce_add(fold_add(sum) + rest);
        }
        return total;
    }

    static NK_HD void one_vector(T* out, const T* x, int n, S sign, bool log) {
        const V v = read_signed(x, sign, n);
        const V shifted = v - finite_or_zero(V(reduce_max(v)));
        const V e = exponential<T>(shifted);
        const V sum(reduce_add(e));
        write_some(out, log ? shifted - math::log(sum) : e / sum, n);
    }

    static NK_HD void scaled(T* out, const S* kept, S factor, int64_t begin, int64_t end, bool streaming = false) {
        walk_out(
            out, streaming, begin, end,
            [&](int64_t i) {
                W v;
                load_wide(kept + i, v);
                write(out + i, v * W(factor), streaming);
            },
            [&](int64_t i, int n) {
                write_some(out + i, (n == L ? load(kept + i) : load(kept + i, n)) * V(factor), n);
            });
    }
    static NK_HD void logarithms(T* out, const T* x, S sign, S m, S log_sum, int64_t n, bool streaming) {
        walk_out(
            out, streaming, 0, n,
            [&](int64_t i) { write(out + i, read(x + i) * W(sign) - W(m) - W(log_sum), streaming); },
            [&](int64_t i, int w) { write_some(out + i, read_some(x + i, w) * V(sign) - V(m) - V(log_sum), w); });
    }
    static NK_HD S shift_of(S m) { return m == minus_infinity<S>() ? S(0) : m; }

    template <bool Log>
    static NK_HD void together(const cpu::SoftmaxRows& a, T* out, const T* x, int rows, S sign, S* kept) {
        S m[kTogether], sum[kTogether];
        const int64_t ahead = rows * a.x_stride;
        for (int r = 0; r < rows; ++r) m[r] = shift_of(maximum(x + r * a.x_stride, sign, 0, a.n));
        for (int r = 0; r < rows; ++r)
            sum[r] = exponentials<!Log>(x + r * a.x_stride, sign, m[r], kept + r * a.n, 0, a.n, ahead);
        for (int r = 0; r < rows; ++r) {
            if constexpr (Log)
                logarithms(out + r * a.out_stride, x + r * a.x_stride, sign, m[r], log_one(sum[r]), a.n, a.stream);
            else
                scaled(out + r * a.out_stride, kept + r * a.n, S(1) / sum[r], 0, a.n, a.stream);
        }
    }

    struct State {
        S m = minus_infinity<S>();  // of all chunks so far
        S sum = 0;                  // of exp(x - m)
    };
    template <bool Keep>
    static NK_HD void add_chunk(State& s, const T* x, S sign, S* keep, int64_t begin, int64_t end) {
        const S m = maximum(x, sign, begin, end);
        if (m > s.m) {
            s.sum = s.m == minus_infinity<S>() ? S(0) : s.sum * exponential_of_one<T>(s.m - m);
            s.m = m;
        }
        s.sum += exponentials<Keep>(x, sign, shift_of(s.m), keep, begin, end, end - begin);
    }

    static NK_HD void kept(T* out, const T* x, int64_t n, S sign, S* keep) {
        const int64_t chunk = n <= kChunk * kChunks ? kChunk : (n + kChunks - 1) / kChunks;
        S maxima[kChunks];
        State s;
        int c = 0;
        for (int64_t i = 0; i < n; i += chunk) {
            add_chunk<true>(s, x, sign, keep, i, min64(n, i + chunk));
            maxima[c++] = s.m;
        }
        const S inverse = S(1) / s.sum;
        c = 0;
        for (int64_t i = 0; i < n; i += chunk, ++c)
            scaled(out, keep, maxima[c] == s.m ? inverse : exponential_of_one<T>(maxima[c] - s.m) * inverse, i,
                   min64(n, i + chunk));
    }

    static NK_HD void recomputed(T* out, const T* x, int64_t n, S sign, bool log, bool streaming) {
        State s;
        for (int64_t i = 0; i < n; i += kChunk) add_chunk<false>(s, x, sign, nullptr, i, min64(n, i + kChunk));
        const S m = shift_of(s.m), inverse = S(1) / s.sum;
        if (log) return logarithms(out, x, sign, m, log_one(s.sum), n, streaming);
        walk(
            0, n, [&](int64_t i) { store_wide(out + i, exponential<T>(read(x + i) * W(sign) - W(m)) * W(inverse)); },
            [&](int64_t i, int w) {
                write_some(out + i, exponential<T>(read_some(x + i, w) * V(sign) - V(m)) * V(inverse), w);
            });
    }

    static NK_HD int count_together(int64_t n, int64_t left) {
        return static_cast<int>(min64(left, n > kGroup ? 1 : min64(kTogether, kGroup / n)));
    }

    static void forward(const cpu::SoftmaxRows& a) {
        const bool log = a.kind == cpu::SoftmaxKind::log_softmax;
        const S sign = a.kind == cpu::SoftmaxKind::softmin ? -1 : 1;
        alignas(64) S block[kShort];
        for (int64_t r = 0, rows = 1; r < a.rows; r += rows) {
            T* out = static_cast<T*>(a.out) + r * a.out_stride;
            const T* x = static_cast<const T*>(a.x) + r * a.x_stride;
            rows = 1;
            if (a.n <= L) {
                one_vector(out, x, static_cast<int>(a.n), sign, log);
            } else if (a.n <= kShort) {
                rows = count_together(a.n, a.rows - r);
                if (log)
                    together<true>(a, out, x, static_cast<int>(rows), sign, block);
                else
                    together<false>(a, out, x, static_cast<int>(rows), sign, block);
            } else if (log || sizeof(T) == 2 || a.n * static_cast<int64_t>(sizeof(T)) > kKeptBytes) {
                recomputed(out, x, a.n, sign, log, a.stream);
            } else if constexpr (sizeof(T) != 2) {
                kept(out, x, a.n, sign, out);
            }
        }
    }

    // sum(g), or sum(g*y) for those whose gradient needs it.
    template <bool Log>
    static NK_HD S weight(const T* g, const T* y, int64_t n) {
        S total = 0;
        for (int64_t first = 0; first < n; first += sum_block) {
            W sum(S(0));
            V rest(S(0));
            walk(
                first, min64(n, first + sum_block),
                [&](int64_t i) {
                    if constexpr (Log)
                        sum = sum + read(g + i);
                    else
                        sum = mad(read(g + i), read(y + i), sum);
                },
                [&](int64_t i, int w) {
                    if constexpr (Log)
                        rest = rest + read_some(g + i, w);
                    else
                        rest = mad(read_some(g + i, w), read_some(y + i, w), rest);
                });
            total += reduce_add(fold_add(sum) + rest);
        }
        return total;
    }

    template <bool Log, class U>
    static NK_HD U gradient(U g, U y, S sign, S sum) {
        if constexpr (Log)
            return g - exponential<T>(y) * U(sum);
        else
            return y * U(sign) * (g - U(sum));
    }

    // y*(g - sum(g*y)), negated for softmin; g - exp(y)*sum(g) for log_softmax. What comes `ahead` is fetched.
    template <bool Log>
    static NK_HD void gradients(T* out, const T* g, const T* y, S sign, S sum, int64_t n, int64_t g_ahead,
                                int64_t y_ahead, bool streaming) {
        walk_out(
            out, streaming, 0, n,
            [&](int64_t i) {
                prefetch_row<W>(y + i + y_ahead), prefetch_row<W>(g + i + g_ahead);
                write(out + i, gradient<Log>(read(g + i), read(y + i), sign, sum), streaming);
            },
            [&](int64_t i, int w) {
                write_some(out + i, gradient<Log>(read_some(g + i, w), read_some(y + i, w), sign, sum), w);
            });
    }
    template <bool Log>
    static NK_HD void backward_as(const cpu::SoftmaxRows& a) {
        const S sign = a.kind == cpu::SoftmaxKind::softmin ? -1 : 1;
        const int64_t n = a.n, out_stride = a.out_stride, y_stride = a.x_stride, g_stride = a.g_stride;
        const bool streaming = a.stream;
        T* out = static_cast<T*>(a.out);
        const T *y = static_cast<const T*>(a.x), *g = static_cast<const T*>(a.g);
        const int most = count_together(n, a.rows);
        for (int64_t left = a.rows; left > 0;) {
            const int rows = static_cast<int>(min64(most, left));
            left -= rows;
            S sum[kTogether];
            for (int k = 0; k < rows; ++k) sum[k] = weight<Log>(g + k * g_stride, y + k * y_stride, n);
            for (int k = 0; k < rows; ++k, out += out_stride, g += g_stride, y += y_stride)
                gradients<Log>(out, g, y, sign, sum[k], n, rows * g_stride, rows * y_stride, streaming);
        }
    }
    static void backward(const cpu::SoftmaxRows& a) {
        if (a.kind == cpu::SoftmaxKind::log_softmax)
            backward_as<true>(a);
        else
            backward_as<false>(a);
    }
};

template <int D>
void fill(cpu::SoftmaxEntries& e) {
    using R = Rows<typename storage<D>::type>;
    e.rows[D] = R::forward;
    e.rows_backward[D] = R::backward;
}

}  // namespace

void register_rows(cpu::SoftmaxEntries& e) {
    fill<0>(e);
    fill<1>(e);
    fill<2>(e);
    fill<3>(e);
}

}  // namespace nk::NK_ISA
