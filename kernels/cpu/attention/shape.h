// Attention by tiles: operands as the microkernel takes them, and the product of queries and keys.
#pragma once

#include "../../math.h"
#include "../../math/philox.h"
#include "../product/micro.h"
#include "../product/pack.h"
#include "../simd/params.h"
#include "../simd/wide.h"
#include "tiles.h"

namespace nk::NK_ISA {

// Exponents are in these units: of log2(e), for powers of two; in f64 as they are, where a product with log2(e) would
// be off by more than the exponential itself.
template <class Acc>
inline constexpr Acc kUnit = sizeof(Acc) == 8 ? Acc(1) : Acc(1.4426950408889634);
template <class Acc>
inline constexpr Acc kNatural = sizeof(Acc) == 8 ? Acc(1) : Acc(0.6931471805599453);

template <class S>
NK_HD S minus_infinity() {
    return static_cast<S>(-__builtin_huge_val());
}

template <bool first, class A, class B>
struct ChoiceOf {
    using type = A;
};
template <class A, class B>
struct ChoiceOf<false, A, B> {
    using type = B;
};

#define NK_TEXT_(x) #x
#define NK_TEXT(x) NK_TEXT_(x)

template <class L, class S>
struct AttentionShape {
    static constexpr int kWide = L::W * L::kVectors;
    static constexpr bool kSameType = L::group == 2 || sizeof(S) == sizeof(typename L::Unit);
    // What a probability is as the microkernel takes it.
    using Probability = typename ChoiceOf<L::group == 2, bf16, typename L::Acc>::type;

    static constexpr cpu::AttentionTile tile(const char* name = nullptr) {
        return {name,
                NK_TEXT(NK_ISA),
                L::kMaxRows,
                kWide,
                L::W,
                L::group,
                static_cast<int>(sizeof(typename L::Unit)),
                static_cast<int>(sizeof(typename L::Acc)),
                kSameType && L::group == 1};
    }
};

// The exponential of x (not above 128) in these units.
template <class V>
NK_HD V power(V x) {
    if constexpr (math::is_f64<V>) {
        return math::exp_nonpositive(x);
    } else {
        const V magic = math::num<V>(math::format<float>::round_magic);
        const V y = max(math::num<V>(-160.0), x);
        const V n = (y + magic) - magic;
        return scale(math::exp2_reduced<math::Grade::exact>(y - n), n);
    }
}

template <class V>
NK_HD V finite_maximum(V x) {
    using A = math::scalar_t<V>;
    return select(x == V(minus_infinity<A>()), V(A(0)), x);
}

template <class S>
NK_INLINE bool lies_near(const cpu::HeadMatrix& m) {
    constexpr int64_t most = cpu::kAttentionAway / int64_t(sizeof(S));
    return m.column == 1 && m.row <= most && m.row >= -most;
}
// Whether the microkernel can take vectors of the rows as they lie.
template <class L, class S>
NK_INLINE bool reads_straight(const cpu::HeadMatrix& m) {
    return AttentionShape<L, S>::tile().same_type && lies_near<S>(m);
}

// Rows that the microkernel broadcasts, or its vectors: as they lie, or packed.
template <class L, class S>
struct Operand {
    using Unit = typename L::Unit;
    const Unit* data;
    int64_t row;  // units
    bool as_is;

    // Rows [first, first + rows) of a matrix with `columns`, whose rows are broadcast.
    NK_INLINE void take(const cpu::HeadMatrix& m, int64_t first, int64_t rows, int64_t columns, Unit* to, int64_t ld,
                        bool pack = true) {
        const S* from = static_cast<const S*>(m.data) + first * m.row;
        as_is = AttentionShape<L, S>::kSameType && lies_near<S>(m) && m.row % L::group == 0 && columns % L::group == 0;
        if (as_is) {
            data = reinterpret_cast<const Unit*>(from), row = m.row / L::group;
            return;
        }
        if (pack) pack_rows<L>(to, ld, from, m.row, m.column, rows, columns);
        data = to, row = ld;
    }
    // Rows that are vectors: as they lie, or packed by pack_values.
    NK_INLINE void as_packed(const cpu::HeadMatrix& m, const Unit* at, bool cleaned = false) {
        as_is = !cleaned && reads_straight<L, S>(m);
        data = as_is ? static_cast<const Unit*>(m.data) : at;
        row = m.row;
    }
};

// scores[n, r] = rows i .. i + n - 1 of a times the panels of keys r; r.begin is the first of a panel.
template <class L, class S>
NK_INLINE void products(const Operand<L, S>& a, int64_t i, int n, const typename L::Unit* panels, int64_t keys,
                        int64_t units, KeyRange r, typename L::Acc* scores, int64_t ld) {
    constexpr int W = L::W, kWide = AttentionShape<L, S>::kWide;
    using Unit = typename L::Unit;
    using Acc = typename L::Acc;
    // In f64, where little else is rounded, sums of a quarter of the terms: large scores are off by less.
    constexpr int kParts = sizeof(Acc) == 8 ? 4 : 1;
    MicroArgs<Acc> g{};
    g.a_row = a.row * int64_t(sizeof(Unit)), g.a_step = sizeof(Unit);
    g.c_ld = g.init_ld = ld, g.target_row = ld * int64_t(sizeof(Acc));
    for (int64_t k = r.begin; k < r.end; k += kWide) {
        const int64_t panel = cpu::attention_round_up(keys - k < kWide ? keys - k : kWide, W);
        const int64_t width = cpu::attention_round_up(r.end - k < kWide ? r.end - k : kWide, W);
        g.b_step = panel * int64_t(sizeof(Unit));
        g.c = scores + (k - r.begin), g.target = g.c, g.n = static_cast<int>(width);
        for (int part = 0; part < kParts; ++part) {
            const int64_t from = units * part / kParts;
            g.k = units * (part + 1) / kParts - from;
            g.a = reinterpret_cast<const char*>(a.data + i * a.row + from);
            g.b = reinterpret_cast<const char*>(panels + k * units + from * panel);
            g.init = part > 0 ? g.c : nullptr;
            pick_micro<L, Unit, Acc, L::kMaxRows>(n, static_cast<int>(width / W))(g);
        }
    }
}

// The panels of keys begin .. end - 1 (begin is the first of a panel) of a matrix whose rows are keys, transposed.
template <class L, class S>
NK_INLINE void pack_transposed(const cpu::HeadMatrix& m, int64_t size, int64_t begin, int64_t end,
                               typename L::Unit* to) {
    constexpr int W = L::W, kWide = AttentionShape<L, S>::kWide;
    const int64_t units = (size + L::group - 1) / L::group;
    for (int64_t k = begin; k < end; k += kWide) {
        const int64_t width = end - k < kWide ? end - k : kWide;
        pack_panel<L>(to + k * units, cpu::attention_round_up(width, W), static_cast<const S*>(m.data) + k * m.row,
                      m.row, m.column, width, size);
    }
}

// Panels of columns, rows begin .. end - 1 (a multiple of kWide first) of them; `units`: a panel's length.
template <class L, class S>
NK_INLINE void pack_straight(const cpu::HeadMatrix& m, int64_t columns, int64_t units, int64_t begin, int64_t end,
                             typename L::Unit* to) {
    constexpr int W = L::W, kWide = AttentionShape<L, S>::kWide;
    for (int64_t c = 0; c < columns; c += kWide) {
        const int64_t width = columns - c < kWide ? columns - c : kWide, ld = cpu::attention_round_up(width, W);
        pack_panel<L>(to + c * units + begin / L::group * ld, ld,
                      static_cast<const S*>(m.data) + begin * m.row + c * m.column, m.column, m.row, width,
                      end - begin);
    }
}

// Whether any number of these rows is infinite or NaN.
template <class S>
NK_INLINE bool any_unusual(const cpu::HeadMatrix& m, int64_t begin, int64_t end, int64_t columns) {
    using V = compute_vec<S>;
    using A = math::scalar_t<V>;
    constexpr int W = V::lanes;
    const V limit(sizeof(A) == 8 ? A(1.7976931348623157e308) : A(3.4028234663852886e38f));
    uint64_t found = 0;
    for (int64_t i = begin; i < end; ++i) {
        const S* x = static_cast<const S*>(m.data) + i * m.row;
        if (m.column == 1) {
            for (int64_t c = 0; c < columns; c += W) found |= pack(!(abs(load(x + c, first<A>(columns - c))) <= limit));
        } else {
            for (int64_t c = 0; c < columns; ++c) {
                const A number = to_number(x[c * m.column]);
                found |= !(number - number == A(0));
            }
        }
    }
    return found != 0;
}

// Packed numbers that are infinite or NaN become 0, so that no 0 meets them; `add_unusual` makes up for it.
template <class L, class S>
void clean(typename L::Unit* units, int64_t n) {
    auto* p = reinterpret_cast<typename AttentionShape<L, S>::Probability*>(units);
    for (int64_t i = 0; i < n * L::group; ++i) {
        const auto x = to_number(p[i]);
        if (!(x - x == 0)) p[i] = {};
    }
}

// out += weight * x for the infinite and NaN numbers of row `row`, unless the weight is 0: then it is hidden.
template <class S, class Acc>
void add_unusual(const cpu::HeadMatrix& m, int64_t row, int64_t columns, Acc weight, Acc* out) {
    if (weight == 0) return;
    const S* x = static_cast<const S*>(m.data) + row * m.row;
    for (int64_t c = 0; c < columns; ++c) {
        const Acc number = to_number(x[c * m.column]);
        if (!(number - number == 0)) out[c] += weight * number;
    }
}

}  // namespace nk::NK_ISA
