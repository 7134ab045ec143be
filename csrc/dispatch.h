// Visitors: from a run-time id to a compile-time value, in one place.
#pragma once

#include <utility>

#include "../kernels/dtype.h"

namespace nk {

template <DType T>
struct DTypeTag {
    static constexpr DType value = T;
};

// f(DTypeTag<...>) for one of the four floating types; the caller has checked that it is one.
template <class F>
decltype(auto) visit_floating(DType t, F&& f) {
    switch (t) {
        case DType::f64:
            return std::forward<F>(f)(DTypeTag<DType::f64>{});
        case DType::f16:
            return std::forward<F>(f)(DTypeTag<DType::f16>{});
        case DType::bf16:
            return std::forward<F>(f)(DTypeTag<DType::bf16>{});
        default:
            return std::forward<F>(f)(DTypeTag<DType::f32>{});
    }
}

}  // namespace nk
