// x, w -> x where x > 0, else w*x; and its gradients.
#include "../elementwise/walk.h"
#include "register.h"

namespace nk::NK_ISA {

namespace {

constexpr int64_t kShortRow = 512;  // elements; from here on rows gain by fetching ahead

// x is loaded once less than to select it.
const auto scaled = [](auto x, auto w) __attribute__((always_inline)) {
    using V = decltype(x);
    return x * select(x > V(0), V(1), w);
};

// One channel's elements where they are few: a step for each vector.
template <class T>
NK_HD void short_row(const T* x, T* y, int64_t n, compute_vec<T> w) {
    constexpr int L = compute_vec<T>::lanes;
    int64_t i = 0;
    for (; i + L <= n; i += L) store(y + i, scaled(load(x + i), w));
    const int rest = static_cast<int>(n - i);
    if (rest > 0 && i > 0 && x != y)  // once more what comes before it, which is cheaper than a mask
        store(y + n - L, scaled(load(x + n - L), w));
    else if (rest > 0)
        store(y + i, scaled(load(x + i, rest), w), rest);
}

template <class T>
void prelu(const cpu::Run& r) {
    using V = wide<compute_vec<T>, kWidth>;
    if (r.step[1] != 0) {
        walk<T, 2, 1, kWidth>(
            r, [](const V* in, V* out) __attribute__((always_inline)) { out[0] = scaled(in[0], in[1]); });
        return;
    }
    cpu::Run row = r;
    for (int64_t i = 0; i < r.rows; ++i) {  // of a channel each: often so short that the weight is read but once
        const T* weight = static_cast<const T*>(row.in[1]);
        scalar_for<T> one;
        if constexpr (sizeof(T) == sizeof(one))
            one = *weight;  // a masked store does not pass its value on to a load
        else
            store(&one, load(weight, 1), 1);
        if (r.n < kShortRow && r.step[0] == 1) {
            short_row(static_cast<const T*>(row.in[0]), static_cast<T*>(row.out[0]), r.n, compute_vec<T>(one));
        } else {
            const V w(one);
            walk<T, 1, 1, kWidth>(
                row, [&](const V* in, V* out) __attribute__((always_inline)) { out[0] = scaled(in[0], w); });
        }
        row.out[0] = static_cast<char*>(row.out[0]) + r.next_out;
        for (int j = 0; j < 2; ++j) row.in[j] = static_cast<const char*>(row.in[j]) + r.next_in[j];
    }
}

template <class T>
void prelu_backward(const cpu::PreluBackward& a) {
    using V = compute_vec<T>;
    using S = scalar_for<T>;
    const auto grad = [](const auto* in, auto* out) __attribute__((always_inline)) {
        using W = wide<V, kNarrow>;
        out[0] = select(in[1] > W(0), in[0], in[0] * in[2]);
    };
    if (a.sum == nullptr) {
        walk<T, 3, 1, kNarrow>(a.run, grad);
    } else if (a.run.step[2] == 0) {
        using W = wide<V, kNarrow>;
        W sum(0), total(0);
        int held = 0;  // in short chains, as torch sums: the error grows with their length
        walk<T, 3, 1, kNarrow, false>(a.run, [&](const W* in, W* out) __attribute__((always_inline)) {
            grad(in, out);
            sum = sum + select(in[1] > W(0), W(0), in[0] * in[1]);  // beyond a tail both inputs are 0
            if (++held == 16) {
                total = total + sum;
                sum = W(0);
                held = 0;
            }
        });
        *static_cast<S*>(a.sum) += reduce_add(total + sum);
    } else {
        const T* g = static_cast<const T*>(a.run.in[0]);
        const T* x = static_cast<const T*>(a.run.in[1]);
        S* sum = static_cast<S*>(a.sum);
        constexpr int L = V::lanes;
        for (int64_t i = 0; i < a.run.n; i += L) {
            const int k = static_cast<int>(min64(L, a.run.n - i));
            const V gv = load(g + i * a.run.step[0], k), xv = load(x + i * a.run.step[1], k);
            store(sum + i, load(sum + i, k) + select(xv > V(0), V(0), gv * xv), k);
        }
        walk<T, 3, 1, kNarrow>(a.run, grad);
    }
}

template <class T, cpu::MathFunction F>
void elementary(const cpu::Run& r) {
    using V = wide<compute_vec<T>, kNarrow>;
    using enum cpu::MathFunction;
    walk<T, 1, 1, kNarrow>(r, [](const V* in, V* out) __attribute__((always_inline)) {
        const V x = in[0];
        if constexpr (F == exp) out[0] = math::exp(x);
        if constexpr (F == expm1) out[0] = math::expm1(x);
        if constexpr (F == log) out[0] = math::log(x);
        if constexpr (F == log1p) out[0] = math::log1p(x);
        if constexpr (F == tanh) out[0] = math::tanh(x);
        if constexpr (F == erf) out[0] = math::erf(x);
        if constexpr (F == sigmoid) out[0] = math::sigmoid(x);
    });
}

template <cpu::MathFunction F>
void fill_elementary(cpu::ActivationEntries& e) {
    auto& row = e.math[static_cast<int>(F)];
    row[0] = elementary<float, F>;
    row[1] = elementary<double, F>;
    row[2] = through_float<f16, 1, 1, elementary<float, F>>;
    row[3] = through_float<bf16, 1, 1, elementary<float, F>>;
}

template <int D>
void fill_prelu(cpu::ActivationEntries& e) {
    using T = typename storage<D>::type;
    e.prelu[D] = prelu<T>;
    e.prelu_backward[D] = prelu_backward<T>;
}

}  // namespace

void register_prelu(cpu::ActivationEntries& e) {
    fill_prelu<0>(e);
    fill_prelu<1>(e);
    fill_prelu<2>(e);
    fill_prelu<3>(e);
    fill_elementary<cpu::MathFunction::exp>(e);
    fill_elementary<cpu::MathFunction::expm1>(e);
    fill_elementary<cpu::MathFunction::log>(e);
    fill_elementary<cpu::MathFunction::log1p>(e);
    fill_elementary<cpu::MathFunction::tanh>(e);
    fill_elementary<cpu::MathFunction::erf>(e);
    fill_elementary<cpu::MathFunction::sigmoid>(e);
}

}  // namespace nk::NK_ISA
