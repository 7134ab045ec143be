// vec<float> and vec<double> of the instruction set being compiled: `lanes` numbers with elementwise arithmetic.
//
// Together with kernels/math/scalar.h this is the interface that the functions in kernels/math.h are written against:
//   V(c)                      c in every lane
//   + - * / and unary -       elementwise
//   < <= > >= ==              a mask, with & | and !; comparisons with NaN are false
//   select(m, a, b)           m ? a : b
//   pack(m), unpack(bits, m)  a mask as one bit for each lane, from the lowest
//   by_sign(x, a, b)          a where x's sign is set, else b
//   rough_reciprocal(x)       1/x to 12 bits (float)
//   max, min                  b where a or b is NaN, so max(bound, x) keeps a NaN in x
//   fma, mad                  a*b + c with one rounding; mad may round twice where the machine has no fma
//   abs, neg_abs, copysign, pow2, scale, split    as in kernels/math/scalar.h
// and, for loops over memory (T = float, double, f16, bf16; halves are computed as float):
//   load(p), load(p, n)       all lanes, or the first n (the others 0)
//   store(p, v), store(p, v, n)          round to nearest even; NaN stays NaN
//   load_pair(p, a, b), put_pair(p, a, b, past)   twice as many lanes at once; for bf16 a has the even elements and b
//   the
//                             odd ones, which saves moving them apart and together; a NaN must come from a bf16 or
//                             from the machine, so that rounding can't carry it out of the NaNs
//   put_pair_exact(p, a, b, past)        put_pair where a and b are numbers of T already
//   put(p, v, past)           store; past: past the caches, p aligned to the vector.
//   load(p, first<S>(n)), store(p, v, first<S>(n))    the first n lanes, any n, prepared for many of them
//   reduce_add(v), reduce_max(v)         reduce_max gives NaN when a lane is NaN
#pragma once

#include "../../math/scalar.h"
#include "half.h"
#include "number.h"

namespace nk::NK_ISA {

template <class S>
struct vec;
template <class S>
struct mask;
template <class S>
struct first;

// The number type that a storage type is computed in.
template <class T>
struct compute {
    using type = float;
};
template <>
struct compute<double> {
    using type = double;
};
template <class T>
using compute_vec = vec<typename compute<T>::type>;

}  // namespace nk::NK_ISA

#if defined(NK_ISA_avx512) || defined(NK_ISA_avx512bf16)
#include "vec_avx512.h"
#elif defined(NK_ISA_avx2)
#include "vec_avx2.h"
#else
#include "vec_scalar.h"
#endif

namespace nk::NK_ISA {

template <class S>
NK_HD vec<S> operator+(vec<S> a, vec<S> b) {
    return a.v + b.v;
}
template <class S>
NK_HD vec<S> operator-(vec<S> a, vec<S> b) {
    return a.v - b.v;
}
template <class S>
NK_HD vec<S> operator*(vec<S> a, vec<S> b) {
    return a.v * b.v;
}
template <class S>
NK_HD vec<S> operator/(vec<S> a, vec<S> b) {
    return a.v / b.v;
}
template <class S>
NK_HD vec<S> operator-(vec<S> a) {
    return -a.v;
}
template <class S>
NK_HD vec<S> mad(vec<S> a, vec<S> b, vec<S> c) {
#if defined(NK_ISA_scalar)
    return a * b + c;
#else
    return fma(a, b, c);
#endif
}

template <class T, class V>
NK_HD void load_pair(const T* p, V& a, V& b) {
    a = load(p);
    b = load(p + V::lanes);
}
template <class T, class V>
NK_HD void put_pair(T* p, V a, V b, bool past) {
    put(p, a, past);
    put(p + V::lanes, b, past);
}

template <class T, class V>
NK_HD void put_pair_exact(T* p, V a, V b, bool past) {
    put_pair(p, a, b, past);
}

}  // namespace nk::NK_ISA
