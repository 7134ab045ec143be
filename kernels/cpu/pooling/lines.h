// Lines of numbers in scratch memory, on which windows along W are worked on.
//
// A line holds `padding` numbers that count for nothing, the row, and more of the same. With stride s it is dealt out
// to s phases, so that element c of the windows o, o + 1, ... lies side by side whatever the stride:
//
//   line     p p a b c d e f g ...      stride 2, phase 0: p a c e g ...   phase 1: p b d f ...
//   element c of window o = line[o s + c dilation] = phase[c dilation % s][o + c dilation / s]
#pragma once

#include "../../pooling.h"
#include "../elementwise/walk.h"
#include "register.h"

namespace nk::NK_ISA {

NK_HD int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

struct LineShape {
    int64_t phase;   // numbers of a phase
    int64_t length;  // of the line

    template <int L>
    static NK_HD LineShape of(const cpu::PoolAxis& a) {
        LineShape s;
        const int64_t reach = a.regular ? (a.kernel - 1) * a.dilation / a.stride : 0;
        s.phase = round_up(a.out + reach + 1, L) + L;
        const int64_t all = a.regular ? a.stride * s.phase : 0;
        const int64_t row = a.padding + a.in + 2 * L;
        s.length = round_up(all > row ? all : row, L);
        return s;
    }
};

template <class S>
struct LaneNumbers {
    S of[vec<S>::lanes];
    constexpr LaneNumbers() : of() {
        for (int i = 0; i < vec<S>::lanes; ++i) of[i] = static_cast<S>(i);
    }
};

template <class S>
NK_HD void fill(S* __restrict p, int64_t n, S value) {
    for (int64_t i = 0; i < n; ++i) p[i] = value;
}

// phase[j] of the line, each `n` long.
template <class S>
NK_HD void deal(S* __restrict phases, const S* __restrict line, int64_t n, int64_t stride) {
    if (stride == 2) {
        S* __restrict even = phases, * __restrict odd = phases + n;
        for (int64_t i = 0; i < n; ++i) even[i] = line[2 * i], odd[i] = line[2 * i + 1];
        return;
    }
    for (int64_t j = 0; j < stride; ++j)
        for (int64_t i = 0; i < n; ++i) phases[j * n + i] = line[i * stride + j];
}

// The other way round.
template <class S>
NK_HD void collect(S* __restrict line, const S* __restrict phases, int64_t n, int64_t stride) {
    if (stride == 2) {
        const S* __restrict even = phases, * __restrict odd = phases + n;
        for (int64_t i = 0; i < n; ++i) line[2 * i] = even[i], line[2 * i + 1] = odd[i];
        return;
    }
    for (int64_t j = 0; j < stride; ++j)
        for (int64_t i = 0; i < n; ++i) line[i * stride + j] = phases[j * n + i];
}

// A window that may hold an element: the number of its output, and what its gradient is multiplied by.
template <class S>
struct Holder {
    int64_t output;
    S factor;
};

// Those of element (d, h, w) of image n, in scratch memory; an average's divisors are multiplied by.
template <class S>
NK_HD int64_t holders(const cpu::Pool& p, Holder<S>* list, int64_t n, int64_t d, int64_t h, int64_t w) {
    const cpu::PoolAxis &ad = p.axis[0], &ah = p.axis[1], &aw = p.axis[2];
    int64_t count = 0;
    for (int64_t i = ad.first[d]; i < ad.last[d]; ++i)
        for (int64_t j = ah.first[h]; j < ah.last[h]; ++j)
            for (int64_t k = aw.first[w]; k < aw.last[w]; ++k) {
                const double held = static_cast<double>(ad.count[i] * ah.count[j] * aw.count[k]);
                list[count++] = {((n * ad.out + i) * ah.out + j) * aw.out + k,
                                 static_cast<S>(1 / (p.divisor != 0 ? p.divisor : held))};
            }
    return count;
}

// f(offset into the phases) for each element of a window.
template <class F>
NK_HD void each_element(const cpu::PoolAxis& a, int64_t phase, F f) {
    int64_t j = 0, q = 0;
    for (int64_t c = 0; c < a.kernel; ++c) {
        f(j * phase + q);
        j += a.dilation;
        while (j >= a.stride) j -= a.stride, ++q;
    }
}

}  // namespace nk::NK_ISA
