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

}  // namespace nk::NK_ISA
