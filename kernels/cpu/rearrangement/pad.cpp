// Padded rows, and the sums of what padding has brought together.
#include "../elementwise/storage.h"
#include "move.h"

namespace nk::NK_ISA {

namespace {

// ---- padding ----

template <class T>
NK_HD void pad_edge(const cpu::PadRows& a, T* to, const T* from, const int64_t* edge, int64_t units, T filler) {
    if (units == 0) return;
    if (edge == nullptr) return fill(to, filler, units * a.unit);
    for (int64_t k = 0; k < units; ++k, to += a.unit) {
        if (edge[k] < 0)
            fill(to, filler, a.unit);
        else if (a.unit == 1)
            *to = from[edge[k] * a.from_step];
        else
            move_elements(to, from + edge[k] * a.from_step, a.unit);
    }
}

template <class T>
void pad(const cpu::PadRows& given) {
    const cpu::PadRows a = given;  // what is written can't be a part of it
    const T filler = static_cast<T>(a.filler);
    T* to = static_cast<T*>(a.to);
    const int64_t behind = a.front + a.middle, width = a.size * a.unit;
    for (int64_t r = 0; r < a.rows; ++r, to += a.to_apart) {
        if (a.from == nullptr || a.row[r] < 0) {
            fill(to, filler, width);
            continue;
        }
        const T* const from = static_cast<const T*>(a.from) + a.row[r];
        pad_edge(a, to, from, a.edge, a.front, filler);
        T* const middle = to + a.front * a.unit;
        const T* const first = from + a.first * a.from_step;
        if (a.from_step == a.unit)
            move_elements(middle, first, a.middle * a.unit);
        else if (a.unit == 1)
            for (int64_t i = 0; i < a.middle; ++i) middle[i] = first[i * a.from_step];
        else
            for (int64_t i = 0; i < a.middle; ++i) move_elements(middle + i * a.unit, first + i * a.from_step, a.unit);
        pad_edge(a, to + behind * a.unit, from, a.edge == nullptr ? nullptr : a.edge + a.front, a.size - behind,
                 filler);
    }
}

// ---- its gradient ----

template <class T>
struct Sums {
    using S = scalar_for<T>;
    using V = compute_vec<T>;
    using R = Row<T>;
    static constexpr int L = V::lanes;

    static NK_HD void clear(T* to, int64_t n) {
        if (n > 0) __builtin_memset(to, 0, static_cast<size_t>(n) * sizeof(T));  // +0 in every type
    }

    // f(row of g) for each one that row r is a sum over.
    template <class F>
    static NK_HD void each_row(const cpu::PadSums& a, int64_t r, F f) {
        for (int64_t p = 0; p < a.planes; ++p)
            for (int64_t s = a.start[r]; s < a.start[r + 1]; ++s)
                f(static_cast<const T*>(a.g) + a.plane[p] + a.source[s]);
    }

    static NK_HD void middle_of(const cpu::PadSums& a, int64_t r, T* to) {
        const bool dense = a.inner == 1 && a.step == a.unit;
        const int64_t n = a.middle * a.unit;
        if (dense && a.planes * (a.start[r + 1] - a.start[r]) == 1)
            return move_elements(to, static_cast<const T*>(a.g) + a.plane[0] + a.source[a.start[r]] + a.first * a.unit,
                                 n);
        if (dense) {
            for (int64_t i = 0; i < n; i += L) {
                const int count = static_cast<int>(min64(L, n - i));
                V sum(S(0));
                each_row(a, r, [&](const T* g) { sum = sum + R::read_some(g + a.first * a.unit + i, count); });
                R::write_some(to + i, sum, count);
            }
            return;
        }
        for (int64_t u = 0; u < a.middle; ++u)
            for (int64_t i = 0; i < a.unit; ++i) {
                S sum = 0;
                each_row(a, r, [&](const T* g) { sum += to_number(g[(a.first + u) * a.step + i * a.inner]); });
                put_number(to[u * a.unit + i], sum);
            }
    }

    // Unit at[k], of the units of g that have come together in it.
    static NK_HD void edge_of(const cpu::PadSums& a, int64_t r, int64_t k, T* to) {
        const auto each = [&](auto f) {
            each_row(a, r, [&](const T* g) {
                for (int64_t m = a.of[k]; m < a.of[k + 1]; ++m) f(g + a.among[m] * a.step);
            });
        };
        if (a.inner == 1 && a.unit > 1) {
            for (int64_t i = 0; i < a.unit; i += L) {
                const int count = static_cast<int>(min64(L, a.unit - i));
                V sum(S(0));
                each([&](const T* g) { sum = sum + R::read_some(g + i, count); });
                R::write_some(to + i, sum, count);
            }
            return;
        }
        for (int64_t i = 0; i < a.unit; ++i) {
            S sum = 0;
            each([&](const T* g) { sum += to_number(g[i * a.inner]); });
            put_number(to[i], sum);
        }
    }

    static void run(const cpu::PadSums& given) {
        const cpu::PadSums a = given;  // what is written can't be a part of it
        T* to = static_cast<T*>(a.to);
        for (int64_t r = 0; r < a.rows; ++r, to += a.to_apart) {
            if (a.planes == 0 || a.start[r] == a.start[r + 1]) {
                clear(to, a.size * a.unit);
                continue;
            }
            clear(to, a.front * a.unit);
            middle_of(a, r, to + a.front * a.unit);
            const int64_t behind = a.front + a.middle;
            clear(to + behind * a.unit, (a.size - behind) * a.unit);
            for (int64_t k = 0; k < a.edges; ++k) edge_of(a, r, k, to + a.at[k] * a.unit);
        }
    }
};

}  // namespace

void register_pad(cpu::RearrangementEntries& e) {
    e.pad[0] = pad<uint16_t>;
    e.pad[1] = pad<uint32_t>;
    e.pad[2] = pad<uint64_t>;
    e.pad_sums[0] = Sums<storage<0>::type>::run;
    e.pad_sums[1] = Sums<storage<1>::type>::run;
    e.pad_sums[2] = Sums<storage<2>::type>::run;
    e.pad_sums[3] = Sums<storage<3>::type>::run;
}

}  // namespace nk::NK_ISA
