// One lane: the reference for the other levels and the code for processors without AVX2.
#pragma once

namespace nk::NK_ISA {

template <class S>
struct vec {
    using scalar = S;
    static constexpr int lanes = 1;
    S v;
    vec() = default;
    NK_HD vec(S x) : v(x) {}
};

template <class S>
struct mask {
    bool m;
};
template <class S>
NK_HD mask<S> operator&(mask<S> a, mask<S> b) {
    return {a.m && b.m};
}
template <class S>
NK_HD mask<S> operator|(mask<S> a, mask<S> b) {
    return {a.m || b.m};
}
template <class S>
NK_HD mask<S> operator!(mask<S> a) {
    return {!a.m};
}
template <class S>
NK_HD mask<S> operator<(vec<S> a, vec<S> b) {
    return {a.v < b.v};
}
template <class S>
NK_HD mask<S> operator<=(vec<S> a, vec<S> b) {
    return {a.v <= b.v};
}
template <class S>
NK_HD mask<S> operator>(vec<S> a, vec<S> b) {
    return {a.v > b.v};
}
template <class S>
NK_HD mask<S> operator>=(vec<S> a, vec<S> b) {
    return {a.v >= b.v};
}
template <class S>
NK_HD mask<S> operator==(vec<S> a, vec<S> b) {
    return {a.v == b.v};
}
template <class S>
NK_HD uint64_t pack(mask<S> m) {
    return m.m;
}
template <class S>
NK_HD void unpack(uint64_t bits, mask<S>& m) {
    m.m = (bits & 1) != 0;
}
template <class S>
NK_HD vec<S> select(mask<S> m, vec<S> a, vec<S> b) {
    return m.m ? a : b;
}
template <class S>
NK_HD vec<S> max(vec<S> a, vec<S> b) {
    return math::max(a.v, b.v);
}
template <class S>
NK_HD vec<S> min(vec<S> a, vec<S> b) {
    return math::min(a.v, b.v);
}
template <class S>
NK_HD vec<S> fma(vec<S> a, vec<S> b, vec<S> c) {
    return math::fma(a.v, b.v, c.v);
}
template <class S>
NK_HD vec<S> by_sign(vec<S> x, vec<S> negative, vec<S> other) {
    return math::by_sign(x.v, negative.v, other.v);
}
NK_HD vec<float> rough_reciprocal(vec<float> x) { return 1 / x.v; }
template <class S>
NK_HD vec<S> abs(vec<S> a) {
    return math::abs(a.v);
}
template <class S>
NK_HD vec<S> neg_abs(vec<S> a) {
    return math::neg_abs(a.v);
}
template <class S>
NK_HD vec<S> copysign(vec<S> magnitude, vec<S> sign) {
    return math::copysign(magnitude.v, sign.v);
}
template <class S>
NK_HD vec<S> pow2(vec<S> n) {
    return math::pow2(n.v);
}
template <class S>
NK_HD vec<S> scale(vec<S> p, vec<S> n) {
    return math::scale(p.v, n.v);
}
template <class S>
NK_HD vec<S> split(vec<S> x, vec<S>& e) {
    return math::split(x.v, e.v);
}
template <class S>
NK_HD S reduce_add(vec<S> a) {
    return a.v;
}
template <class S>
NK_HD S reduce_max(vec<S> a) {
    return a.v;
}

NK_HD vec<float> load(const float* p) { return *p; }
NK_HD vec<double> load(const double* p) { return *p; }
NK_HD vec<float> load(const bf16* p) { return to_number(*p); }
NK_HD vec<float> load(const f16* p) { return to_number(*p); }

NK_HD void store(float* p, vec<float> a) { *p = a.v; }
NK_HD void store(double* p, vec<double> a) { *p = a.v; }
NK_HD void store(bf16* p, vec<float> a) { put_number(*p, a.v); }
NK_HD void store(f16* p, vec<float> a) { put_number(*p, a.v); }

// The first n lanes, for loads and stores that are many.
template <class S>
struct first {
    bool m;
    first() = default;
    explicit NK_HD first(int64_t n) : m(n > 0) {}
};
inline constexpr bool kFirstIsFree = false;

template <class T, class S>
NK_HD vec<S> load(const T* p, first<S> f) {
    return f.m ? load(p) : vec<S>(0);
}
template <class T, class S>
NK_HD void store(T* p, vec<S> a, first<S> f) {
    if (f.m) store(p, a);
}
template <class T>
NK_HD auto load(const T* p, int n) {
    return n > 0 ? load(p) : compute_vec<T>(0);
}
template <class T, class V>
NK_HD void store(T* p, V a, int n) {
    if (n > 0) store(p, a);
}
template <class T, class V>
NK_HD void put(T* p, V a, bool) {
    store(p, a);
}

}  // namespace nk::NK_ISA
