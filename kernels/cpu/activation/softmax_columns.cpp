// Softmax along another dim than the contiguous one: columns side by side, a vector of them at a time.
//
// A block of kWidth columns is walked row by row. Where its exponentials fit a cache they are kept (in the output, or
// in a block on the stack for 16-bit types) until the sums are known; else maximum and sum are found online, eight
// rows at a time, and the exponentials computed anew in a second pass.
#include "softmax.h"

#ifndef NK_ISA_avx512bf16

namespace nk::NK_ISA {

namespace {

constexpr int kVectors = 4;                 // vectors side by side: their maxima and sums stay in registers
constexpr int64_t kKeptBytes = 256 * 1024;  // largest block whose exponentials wait in the output
constexpr int kStackRows = 128;             // longest column of a 16-bit type kept on the stack
constexpr int64_t kSumBlock = 512;          // rows summed before they join the total
constexpr int kGroup = 8;                   // rows whose maximum is taken before their exponentials, when online

template <class T>
struct Columns {
    using S = scalar_for<T>;
    using V = compute_vec<T>;
    static constexpr int L = V::lanes;
    static constexpr int width = kVectors * L;

    // W vectors, of which the last has `tail` columns.
    template <int W>
    struct Row {
        V v[W];
    };
    template <int W, class P>
    static NK_HD Row<W> read(const P* p, int tail) {
        Row<W> r;
        for (int j = 0; j < W - 1; ++j) r.v[j] = load(p + j * L);
        r.v[W - 1] = tail == L ? load(p + (W - 1) * L) : load(p + (W - 1) * L, tail);
        return r;
    }
    template <int W, class P>
    static NK_HD void write(P* p, const Row<W>& r, int tail) {
        for (int j = 0; j < W - 1; ++j) store(p + j * L, r.v[j]);
        if (tail == L)
            store(p + (W - 1) * L, r.v[W - 1]);
        else
            store(p + (W - 1) * L, r.v[W - 1], tail);
    }

    template <int W>
    static NK_HD void block(const cpu::SoftmaxColumns& a, T* out, const T* x, int tail) {
        const bool log = a.kind == cpu::SoftmaxKind::log_softmax;
        const V sign(S(a.kind == cpu::SoftmaxKind::softmin ? -1 : 1));
        V m[W], sum[W];
        for (int j = 0; j < W; ++j) m[j] = V(minus_infinity<S>()), sum[j] = V(S(0));

        const bool fits = static_cast<int64_t>(sizeof(T)) * width * a.n <= kKeptBytes;
        constexpr bool half = sizeof(T) == 2;
        if (!log && (half ? a.n <= kStackRows : fits)) {
            for (int64_t i = 0; i < a.n; ++i) {
                const Row<W> r = read<W>(x + i * a.x_stride, tail);
                for (int j = 0; j < W; ++j) m[j] = max(r.v[j] * sign, m[j]);
            }
            for (int j = 0; j < W; ++j) m[j] = finite_or_zero(m[j]);
            alignas(64) S stack[half ? kStackRows * width : 1];
            S* keep = stack;
            int64_t keep_stride = width;
            if constexpr (!half) keep = out, keep_stride = a.out_stride;
            for (int64_t i = 0; i < a.n; ++i) {
                Row<W> r = read<W>(x + i * a.x_stride, tail);
                for (int j = 0; j < W; ++j) {
                    r.v[j] = math::exp_nonpositive(r.v[j] * sign - m[j]);
                    sum[j] = sum[j] + r.v[j];
                }
                write<W>(keep + i * keep_stride, r, tail);
            }
            for (int j = 0; j < W; ++j) sum[j] = V(S(1)) / sum[j];
            for (int64_t i = 0; i < a.n; ++i) {
                Row<W> r = read<W>(keep + i * keep_stride, tail);
                for (int j = 0; j < W; ++j) r.v[j] = r.v[j] * sum[j];
                write<W>(out + i * a.out_stride, r, tail);
            }
            return;
        }

        for (int64_t i = 0; i < a.n; i += kGroup) {
            const int64_t end = min64(a.n, i + kGroup);
            V grown[W];
            for (int j = 0; j < W; ++j) grown[j] = m[j];
            for (int64_t k = i; k < end; ++k) {
                const Row<W> r = read<W>(x + k * a.x_stride, tail);
                for (int j = 0; j < W; ++j) grown[j] = max(r.v[j] * sign, grown[j]);
            }
            V shift[W];
            for (int j = 0; j < W; ++j) {
                shift[j] = finite_or_zero(grown[j]);
                sum[j] = sum[j] * math::exp_nonpositive(finite_or_zero(m[j]) - shift[j]);
                sum[j] = select(m[j] == V(minus_infinity<S>()), V(S(0)), sum[j]);
                m[j] = grown[j];
            }
            for (int64_t k = i; k < end; ++k) {
                const Row<W> r = read<W>(x + k * a.x_stride, tail);
                for (int j = 0; j < W; ++j) sum[j] = sum[j] + math::exp_nonpositive(r.v[j] * sign - shift[j]);
            }
        }
        for (int j = 0; j < W; ++j) {
            m[j] = finite_or_zero(m[j]);
            sum[j] = log ? math::log(sum[j]) : V(S(1)) / sum[j];
        }
        for (int64_t i = 0; i < a.n; ++i) {
            Row<W> r = read<W>(x + i * a.x_stride, tail);
            for (int j = 0; j < W; ++j) {
                const V shifted = r.v[j] * sign - m[j];
                r.v[j] = log ? shifted - sum[j] : math::exp_nonpositive(shifted) * sum[j];
            }
            write<W>(out + i * a.out_stride, r, tail);
        }
    }

    template <int W>
    static NK_HD void block_backward(const cpu::SoftmaxColumns& a, T* out, const T* y, const T* g, int tail) {
        const bool log = a.kind == cpu::SoftmaxKind::log_softmax;
        const V sign(S(a.kind == cpu::SoftmaxKind::softmin ? -1 : 1));
        V sum[W];
        for (int j = 0; j < W; ++j) sum[j] = V(S(0));
        for (int64_t i = 0; i < a.n; i += kSumBlock) {
            V part[W];
            for (int j = 0; j < W; ++j) part[j] = V(S(0));
            for (int64_t k = i; k < min64(a.n, i + kSumBlock); ++k) {
                const Row<W> gr = read<W>(g + k * a.g_stride, tail);
                if (log) {
                    for (int j = 0; j < W; ++j) part[j] = part[j] + gr.v[j];
                } else {
                    const Row<W> yr = read<W>(y + k * a.x_stride, tail);
                    for (int j = 0; j < W; ++j) part[j] = mad(gr.v[j], yr.v[j], part[j]);
                }
            }
            for (int j = 0; j < W; ++j) sum[j] = sum[j] + part[j];
        }
        for (int64_t i = 0; i < a.n; ++i) {
            const Row<W> gr = read<W>(g + i * a.g_stride, tail);
            Row<W> r = read<W>(y + i * a.x_stride, tail);
            for (int j = 0; j < W; ++j)
                r.v[j] = log ? gr.v[j] - math::exp(r.v[j]) * sum[j] : r.v[j] * sign * (gr.v[j] - sum[j]);
            write<W>(out + i * a.out_stride, r, tail);
        }
    }

    // Blocks of full width, then vector by vector.
    static void forward(const cpu::SoftmaxColumns& a) {
        T* out = static_cast<T*>(a.out);
        const T* x = static_cast<const T*>(a.x);
        int64_t c = 0;
        for (; c + width <= a.columns; c += width) block<kVectors>(a, out + c, x + c, L);
        for (; c < a.columns; c += L) block<1>(a, out + c, x + c, static_cast<int>(min64(L, a.columns - c)));
    }
    static void backward(const cpu::SoftmaxColumns& a) {
        T* out = static_cast<T*>(a.out);
        const T* y = static_cast<const T*>(a.x);
        const T* g = static_cast<const T*>(a.g);
        int64_t c = 0;
        for (; c + width <= a.columns; c += width) block_backward<kVectors>(a, out + c, y + c, g + c, L);
        for (; c < a.columns; c += L)
            block_backward<1>(a, out + c, y + c, g + c, static_cast<int>(min64(L, a.columns - c)));
    }
};

template <int D>
void fill(cpu::ActivationEntries& e) {
    using C = Columns<typename storage<D>::type>;
    e.softmax_columns[D] = C::forward;
    e.softmax_columns_backward[D] = C::backward;
}

}  // namespace

void register_softmax_columns(cpu::ActivationEntries& e) {
    fill<0>(e);
    fill<1>(e);
    fill<2>(e);
    fill<3>(e);
}

}  // namespace nk::NK_ISA

#endif
