// An activation's parameters for a storage type: results that are rounded to 16 bits take shorter polynomials.
#pragma once

#include "../../math.h"
#include "vec.h"

namespace nk::NK_ISA {

template <class T>
inline constexpr math::Grade grade = math::Grade::exact;
template <>
inline constexpr math::Grade grade<f16> = math::Grade::f16;
template <>
inline constexpr math::Grade grade<bf16> = math::Grade::bf16;

template <class T>
NK_HD math::Params<typename compute<T>::type, grade<T>> params(const double* p) {
    using S = typename compute<T>::type;
    return {static_cast<S>(p[0]), static_cast<S>(p[1])};
}

// For Op's f, whose exact results are to be numbers of T. To clamp to a bound that was rounded gives the same as to
// clamp first: no number of T lies between the two.
template <class Op, class T>
NK_HD auto forward_params(const double* p) {
    auto own = params<T>(p);
    const auto rounded = [](auto value) {
        using V = compute_vec<T>;
        T all[V::lanes];
        store(all, V(value));
        return reduce_max(load(all));
    };
    if constexpr (Op::gives_p0) own.p0 = rounded(own.p0);
    if constexpr (Op::gives_p1) own.p1 = rounded(own.p1);
    return own;
}

}  // namespace nk::NK_ISA
