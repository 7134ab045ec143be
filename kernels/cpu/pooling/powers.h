// What lp_pool does to an element and to a sum, and their derivatives; nothing, of an average.
#pragma once

#include "../elementwise/storage.h"

namespace nk::NK_ISA {

template <class V, class F>
NK_HD V of_each(V v, F f) {
    using S = typename V::scalar;
    alignas(64) S lane[V::lanes];
    store(lane, v);
    for (int i = 0; i < V::lanes; ++i) lane[i] = f(lane[i]);
    return load(lane);
}

// x^p as torch has it: NaN of a negative x where p is not whole.
template <class V>
NK_HD V power(V x, double p) {
    using S = typename V::scalar;
    if (p == 1) return x;
    if (p == 0) return V(S(1));
    if (p == static_cast<int>(p) && p > 0 && p <= 8) {
        V y = x;
        for (int i = 1; i < static_cast<int>(p); ++i) y = y * x;
        return y;
    }
    if (p == 0.5) return of_each(x, [](S v) { return static_cast<S>(__builtin_sqrt(v)); });
    if (p == -1) return V(S(1)) / x;
    return of_each(x, [p](S v) { return static_cast<S>(__builtin_pow(v, p)); });
}

struct Average {
    static constexpr bool powers = false;
    explicit Average(const cpu::Pool&) {}
    template <class V>
    NK_HD V element(V x) const {
        return x;
    }
    template <class V>
    NK_HD V result(V mean) const {
        return mean;
    }
};

// (mean of x^p * full)^(1/p)
struct Norm {
    static constexpr bool powers = true;
    double p, full;
    explicit Norm(const cpu::Pool& a) : p(a.norm), full(a.full) {}
    template <class V>
    NK_HD V element(V x) const {
        return power(x, p);
    }
    template <class V>
    NK_HD V result(V mean) const {
        return power(mean * V(static_cast<typename V::scalar>(full)), 1 / p);
    }
    // d result / d mean * p: nothing where the sum is 0, as in torch
    template <class V>
    NK_HD V of_result(V g, V y) const {
        using S = typename V::scalar;
        const V d = p == 2 ? V(S(1)) / y : power(y, 1 - p);
        return select(y == V(S(0)), V(S(0)), g * d * V(static_cast<S>(full)));
    }
    template <class V>
    NK_HD V of_element(V sum, V x) const {
        return sum * power(x, p - 1);
    }
};

}  // namespace nk::NK_ISA
