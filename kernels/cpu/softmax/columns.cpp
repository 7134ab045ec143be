// Softmax along another dim than the contiguous one: columns side by side, a vector of them at a time.
//
// A block of columns is walked row by row. Where it fits L1 it is copied there as its maxima are found, because rows a
// power of two apart meet in the same few sets of a cache, and the next block is on its way from memory while the
// exponentials are computed. Longer columns find maximum and sum online, eight rows at a time, and compute the
// exponentials anew in a second pass.
#include "softmax.h"

namespace nk::NK_ISA {

namespace {

constexpr int kBlock = 8192;        // numbers that wait in L1: 32 KiB of f32
constexpr int64_t kSumBlock = 512;  // rows summed before they join the total
constexpr int kGroup = 8;           // rows whose maximum is taken before their exponentials, when online

template <class T>
struct Columns {
    using S = scalar_for<T>;
    using V = compute_vec<T>;
    using W = wide<V, kWidth>;  // side by side: their maxima and sums stay in registers
    static constexpr int L = V::lanes;

    // U is W, or V with only its first `tail` columns there.
    template <class U, class P>
    static NK_HD U read(const P* p, int tail) {
        U v;
        if (U::lanes != L || tail == L)
            load_wide(p, v);
        else if constexpr (U::lanes == L)
            v = load(p, tail);
        return v;
    }
    template <class U, class P>
    static NK_HD void write(P* p, U v, int tail) {
        if (U::lanes != L || tail == L)
            store_wide(p, v);
        else if constexpr (U::lanes == L)
            store(p, v, tail);
    }

    template <class U, bool Log>
    static NK_HD void block_kept(const cpu::SoftmaxColumns& a, T* out, const T* x, int tail, S* kept) {
        const U sign(S(a.kind == cpu::SoftmaxKind::softmin ? -1 : 1));
        U m(minus_infinity<S>()), sum(S(0));
        for (int64_t i = 0; i < a.n; ++i) {
            const U v = read<U>(x + i * a.x_stride, tail) * sign;
            store_wide(kept + i * U::lanes, v);
            m = max(v, m);
        }
        m = finite_or_zero(m);
        for (int64_t i = 0; i < a.n; ++i) {
            prefetch<U>(x + i * a.x_stride + U::lanes);
            U v;
            load_wide(kept + i * U::lanes, v);
            v = v - m;
            const U e = exponential<T>(v);
            sum = sum + e;
            store_wide(kept + i * U::lanes, Log ? v : e);
        }
        const U last = Log ? math::log(sum) : U(S(1)) / sum;
        for (int64_t i = 0; i < a.n; ++i) {
            U v;
            load_wide(kept + i * U::lanes, v);
            write(out + i * a.out_stride, Log ? v - last : v * last, tail);
        }
    }

    template <class U, bool Log>
    static NK_HD void block_online(const cpu::SoftmaxColumns& a, T* out, const T* x, int tail) {
        const U sign(S(a.kind == cpu::SoftmaxKind::softmin ? -1 : 1));
        U m(minus_infinity<S>()), sum(S(0));
        for (int64_t i = 0; i < a.n; i += kGroup) {
            const int64_t end = min64(a.n, i + kGroup);
            U grown = m;
            for (int64_t k = i; k < end; ++k) grown = max(read<U>(x + k * a.x_stride, tail) * sign, grown);
            const U shift = finite_or_zero(grown);
            sum = sum * exponential<T>(finite_or_zero(m) - shift);
            sum = select(m == U(minus_infinity<S>()), U(S(0)), sum);
            m = grown;
            for (int64_t k = i; k < end; ++k)
                sum = sum + exponential<T>(read<U>(x + k * a.x_stride, tail) * sign - shift);
        }
        m = finite_or_zero(m);
        const U last = Log ? math::log(sum) : U(S(1)) / sum;
        for (int64_t i = 0; i < a.n; ++i) {
            const U v = read<U>(x + i * a.x_stride, tail) * sign - m;
            write(out + i * a.out_stride, Log ? v - last : exponential<T>(v) * last, tail);
        }
    }

    template <class U, bool Log>
    static NK_HD void block(const cpu::SoftmaxColumns& a, T* out, const T* x, int tail, S* kept) {
        if (a.n * U::lanes <= kBlock)
            block_kept<U, Log>(a, out, x, tail, kept);
        else
            block_online<U, Log>(a, out, x, tail);
    }

    // The gradient is p*(g - w) with p = y and w = sum(g*y), or g - p*w with p = exp(y) and w = sum(g).
    template <class U, bool Log>
    static NK_HD U finish(U g, U p, U sign, U w) {
        return Log ? g - p * w : p * sign * (g - w);
    }

    template <class U, bool Log>
    static NK_HD void block_backward(const cpu::SoftmaxColumns& a, T* out, const T* y, const T* g, int tail, S* kept) {
        const U sign(S(a.kind == cpu::SoftmaxKind::softmin ? -1 : 1));
        const bool keep = 2 * a.n * U::lanes <= kBlock;
        S *kept_g = kept, *kept_p = kept + a.n * U::lanes;
        U sum(S(0));
        for (int64_t i = 0; i < a.n; i += kSumBlock) {
            U part(S(0));
            for (int64_t k = i; k < min64(a.n, i + kSumBlock); ++k) {
                const U gr = read<U>(g + k * a.g_stride, tail);
                if (Log && !keep) {
                    part = part + gr;
                    continue;
                }
                const U p = read<U>(y + k * a.x_stride, tail);
                part = Log ? part + gr : mad(gr, p, part);
                if (keep) {
                    store_wide(kept_g + k * U::lanes, gr);
                    store_wide(kept_p + k * U::lanes, Log ? exponential<T>(p) : p);
                }
            }
            sum = sum + part;
        }
        if (keep) {
            for (int64_t i = 0; i < a.n; ++i) {
                prefetch<U>(y + i * a.x_stride + U::lanes), prefetch<U>(g + i * a.g_stride + U::lanes);
                U gr, p;
                load_wide(kept_g + i * U::lanes, gr);
                load_wide(kept_p + i * U::lanes, p);
                write(out + i * a.out_stride, finish<U, Log>(gr, p, sign, sum), tail);
            }
            return;
        }
        for (int64_t i = 0; i < a.n; ++i) {
            const U p = read<U>(y + i * a.x_stride, tail), gr = read<U>(g + i * a.g_stride, tail);
            write(out + i * a.out_stride, finish<U, Log>(gr, Log ? exponential<T>(p) : p, sign, sum), tail);
        }
    }

    // Blocks of full width, then vector by vector.
    template <bool Log>
    static NK_HD void forward_as(const cpu::SoftmaxColumns& a) {
        alignas(64) S kept[kBlock];
        T* out = static_cast<T*>(a.out);
        const T* x = static_cast<const T*>(a.x);
        int64_t c = 0;
        for (; c + W::lanes <= a.columns; c += W::lanes) block<W, Log>(a, out + c, x + c, L, kept);
        for (; c < a.columns; c += L) block<V, Log>(a, out + c, x + c, static_cast<int>(min64(L, a.columns - c)), kept);
    }
    template <bool Log>
    static NK_HD void backward_as(const cpu::SoftmaxColumns& a) {
        alignas(64) S kept[kBlock];
        T* out = static_cast<T*>(a.out);
        const T* y = static_cast<const T*>(a.x);
        const T* g = static_cast<const T*>(a.g);
        int64_t c = 0;
        for (; c + W::lanes <= a.columns; c += W::lanes) block_backward<W, Log>(a, out + c, y + c, g + c, L, kept);
        for (; c < a.columns; c += L)
            block_backward<V, Log>(a, out + c, y + c, g + c, static_cast<int>(min64(L, a.columns - c)), kept);
    }
    static void forward(const cpu::SoftmaxColumns& a) {
        a.kind == cpu::SoftmaxKind::log_softmax ? forward_as<true>(a) : forward_as<false>(a);
    }
    static void backward(const cpu::SoftmaxColumns& a) {
        a.kind == cpu::SoftmaxKind::log_softmax ? backward_as<true>(a) : backward_as<false>(a);
    }
};

template <int D>
void fill(cpu::SoftmaxEntries& e) {
    using C = Columns<typename storage<D>::type>;
    e.columns[D] = C::forward;
    e.columns_backward[D] = C::backward;
}

}  // namespace

void register_columns(cpu::SoftmaxEntries& e) {
    fill<0>(e);
    fill<1>(e);
    fill<2>(e);
    fill<3>(e);
}

}  // namespace nk::NK_ISA
