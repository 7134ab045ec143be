// Elements as they lie in memory and the numbers that kernels compute with: those of f16 and bf16 are f32, and rounding
// happens once, when a result is stored.
#pragma once

#include <stdint.h>

#include "../../dtype.h"
#include "../ptx/cvt.h"

namespace nk::cuda {

template <DType T>
struct Element {
    using memory = uint16_t;
    using compute = float;
};
template <>
struct Element<DType::f32> {
    using memory = float;
    using compute = float;
};
template <>
struct Element<DType::f64> {
    using memory = double;
    using compute = double;
};
template <DType T>
using memory_t = typename Element<T>::memory;
template <DType T>
using compute_t = typename Element<T>::compute;

template <DType T>
__device__ __forceinline__ compute_t<T> to_compute(memory_t<T> x) {
    if constexpr (T == DType::f16)
        return ptx::f16_to_f32(x);
    else if constexpr (T == DType::bf16)
        return __uint_as_float(static_cast<uint32_t>(x) << 16);
    else
        return x;
}
template <DType T>
__device__ __forceinline__ memory_t<T> to_memory(compute_t<T> x) {
    if constexpr (T == DType::f16)
        return static_cast<uint16_t>(ptx::pack_f16(x, 0.f));
    else if constexpr (T == DType::bf16)
        return static_cast<uint16_t>(ptx::pack_bf16(x, 0.f));
    else
        return x;
}

template <DType T>
__device__ __forceinline__ memory_t<T>* element(void* base, int64_t i) {
    return static_cast<memory_t<T>*>(base) + i;
}
template <DType T>
__device__ __forceinline__ const memory_t<T>* element(const void* base, int64_t i) {
    return static_cast<const memory_t<T>*>(base) + i;
}
template <DType T>
__device__ __forceinline__ compute_t<T> load(const void* base, int64_t i) {
    return to_compute<T>(*element<T>(base, i));
}
template <DType T>
__device__ __forceinline__ void store(void* base, int64_t i, compute_t<T> x) {
    *element<T>(base, i) = to_memory<T>(x);
}

}  // namespace nk::cuda
