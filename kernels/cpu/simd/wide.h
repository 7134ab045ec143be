// two<V>: two vectors (or two<vec>s) that go through a computation side by side.
//
// A transcendental function is one long chain of dependent operations. A processor overlaps consecutive chains only as
// far as its scheduler reaches (64 operations on Zen 4: three chains); with the chains interleaved operation by
// operation, every entry of the scheduler is of use.
#pragma once

#include "vec.h"

namespace nk::NK_ISA {

template <class V>
struct two {
    using scalar = typename V::scalar;
    static constexpr int lanes = 2 * V::lanes;
    V lo, hi;
    two() = default;
    NK_HD two(V a, V b) : lo(a), hi(b) {}
    NK_HD two(scalar c) : lo(c), hi(c) {}
};
template <class M>
struct two_masks {
    M lo, hi;
};
template <class M>
two_masks(M, M) -> two_masks<M>;

#define NK_BINARY(op)                              \
    template <class V>                             \
    NK_HD two<V> operator op(two<V> a, two<V> b) { \
        return {a.lo op b.lo, a.hi op b.hi};       \
    }
NK_BINARY(+)
NK_BINARY(-)
NK_BINARY(*)
NK_BINARY(/)
#undef NK_BINARY

#define NK_COMPARE(op)                                \
    template <class V>                                \
    NK_HD auto operator op(two<V> a, two<V> b) {      \
        return two_masks{a.lo op b.lo, a.hi op b.hi}; \
    }
NK_COMPARE(<)
NK_COMPARE(<=)
NK_COMPARE(>)
NK_COMPARE(>=)
NK_COMPARE(==)
#undef NK_COMPARE

template <class M>
NK_HD two_masks<M> operator&(two_masks<M> a, two_masks<M> b) {
    return {a.lo & b.lo, a.hi & b.hi};
}
template <class M>
NK_HD two_masks<M> operator|(two_masks<M> a, two_masks<M> b) {
    return {a.lo | b.lo, a.hi | b.hi};
}

template <class M>
inline constexpr int mask_lanes = 0;
template <class S>
inline constexpr int mask_lanes<mask<S>> = vec<S>::lanes;
template <class M>
inline constexpr int mask_lanes<two_masks<M>> = 2 * mask_lanes<M>;
#if defined(NK_ISA_avx512)  // 64 bits in one store: half the instructions that shifting them together takes
NK_HD __mmask32 joined(two_masks<mask<float>> m) { return _mm512_kunpackw(m.hi.m, m.lo.m); }
NK_HD uint64_t pack(two_masks<two_masks<mask<float>>> m) {
    return _cvtmask64_u64(_mm512_kunpackd(joined(m.hi), joined(m.lo)));
}
#endif
template <class M>
NK_HD uint64_t pack(two_masks<M> m) {
    return pack(m.lo) | pack(m.hi) << mask_lanes<M>;
}
template <class M>
NK_HD void unpack(uint64_t bits, two_masks<M>& m) {
    unpack(bits, m.lo);
    unpack(bits >> mask_lanes<M>, m.hi);
}

template <class V>
NK_HD two<V> operator-(two<V> a) {
    return {-a.lo, -a.hi};
}
template <class M, class V>
NK_HD two<V> select(two_masks<M> m, two<V> a, two<V> b) {
    return {select(m.lo, a.lo, b.lo), select(m.hi, a.hi, b.hi)};
}

#define NK_ONE(name)                     \
    template <class V>                   \
    NK_HD two<V> name(two<V> a) {        \
        return {name(a.lo), name(a.hi)}; \
    }
#define NK_TWO(name)                                 \
    template <class V>                               \
    NK_HD two<V> name(two<V> a, two<V> b) {          \
        return {name(a.lo, b.lo), name(a.hi, b.hi)}; \
    }
#define NK_THREE(name)                                           \
    template <class V>                                           \
    NK_HD two<V> name(two<V> a, two<V> b, two<V> c) {            \
        return {name(a.lo, b.lo, c.lo), name(a.hi, b.hi, c.hi)}; \
    }
NK_ONE(abs)
NK_ONE(neg_abs)
NK_ONE(pow2)
NK_ONE(rough_reciprocal)
NK_TWO(max)
NK_TWO(min)
NK_TWO(copysign)
NK_TWO(scale)
NK_THREE(fma)
NK_THREE(mad)
NK_THREE(by_sign)
#undef NK_ONE
#undef NK_TWO
#undef NK_THREE

template <class V>
NK_HD two<V> split(two<V> x, two<V>& e) {
    return {split(x.lo, e.lo), split(x.hi, e.hi)};
}
template <class V>
NK_HD typename V::scalar reduce_add(two<V> a) {
    return reduce_add(a.lo + a.hi);
}

// Loads and stores as many elements as V has lanes.
template <class T, class S>
NK_HD void load_wide(const T* p, vec<S>& v) {
    v = load(p);
}
template <class T, class S>
NK_HD void load_wide(const T* p, two<vec<S>>& v) {
    load_pair(p, v.lo, v.hi);
}
template <class T, class V>
NK_HD void load_wide(const T* p, two<two<V>>& v) {
    load_wide(p, v.lo);
    load_wide(p + two<V>::lanes, v.hi);
}
// Exact: the numbers need no rounding.
template <bool Exact = false, class T, class S>
NK_HD void put_wide(T* p, vec<S> v, bool past) {
    put(p, v, past);
}
template <bool Exact = false, class T, class S>
NK_HD void put_wide(T* p, two<vec<S>> v, bool past) {
    if constexpr (Exact)
        put_pair_exact(p, v.lo, v.hi, past);
    else
        put_pair(p, v.lo, v.hi, past);
}
template <bool Exact = false, class T, class V>
NK_HD void put_wide(T* p, two<two<V>> v, bool past) {
    put_wide<Exact>(p, v.lo, past);
    put_wide<Exact>(p + two<V>::lanes, v.hi, past);
}

template <class T, class V>
NK_HD void store_wide(T* p, V v) {
    put_wide(p, v, false);
}

// V, or 2 or 4 of it side by side.
template <class V, int N>
struct widen {
    using type = two<typename widen<V, N / 2>::type>;
};
template <class V>
struct widen<V, 1> {
    using type = V;
};
template <class V, int N>
using wide = typename widen<V, N>::type;

}  // namespace nk::NK_ISA
