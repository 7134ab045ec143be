// Elements as they lie in memory and the numbers that kernels compute with.
#pragma once

#include <stdint.h>

#include "../../dtype.h"
#include "../ptx/cvt.h"
#include "../ptx/store.h"

namespace nk::tile {

template <DType T>
struct Element;

template <>
struct Element<DType::f32> {
    using Stored = float;
    using Number = float;
    static __device__ __forceinline__ float load(float x) { return x; }
    static __device__ __forceinline__ float store(float x) { return x; }
};

template <>
struct Element<DType::f64> {
    using Stored = double;
    using Number = double;
    static __device__ __forceinline__ double load(double x) { return x; }
    static __device__ __forceinline__ double store(double x) { return x; }
};

template <>
struct Element<DType::f16> {
    using Stored = uint16_t;
    using Number = float;
    static __device__ __forceinline__ float load(uint16_t x) { return ptx::f16_to_f32(x); }
    static __device__ __forceinline__ uint32_t pair(float lo, float hi) { return ptx::pack_f16(lo, hi); }
    static __device__ __forceinline__ uint16_t store(float x) { return static_cast<uint16_t>(pair(x, 0.f)); }
};

template <>
struct Element<DType::bf16> {
    using Stored = uint16_t;
    using Number = float;
    static __device__ __forceinline__ float load(uint16_t x) { return __uint_as_float(uint32_t{x} << 16); }
    static __device__ __forceinline__ uint32_t pair(float lo, float hi) { return ptx::pack_bf16(lo, hi); }
    static __device__ __forceinline__ uint16_t store(float x) { return static_cast<uint16_t>(pair(x, 0.f)); }
};

// The number of accumulators in 16 bytes, and so of columns that an epilogue handles at once.
template <DType T>
inline constexpr int kLanes = 16 / static_cast<int>(sizeof(typename Element<T>::Number));

// kLanes<T> neighbouring elements in one access (4 of f32 or 2 of f64: 16 bytes; 4 of 16 bits: 8 bytes).
template <DType T>
__device__ __forceinline__ void load_wide(const typename Element<T>::Stored* p,
                                          typename Element<T>::Number (&v)[kLanes<T>]) {
    if constexpr (T == DType::f32) {
        const float4 x = *reinterpret_cast<const float4*>(p);
        v[0] = x.x, v[1] = x.y, v[2] = x.z, v[3] = x.w;
    } else if constexpr (T == DType::f64) {
        const double2 x = *reinterpret_cast<const double2*>(p);
        v[0] = x.x, v[1] = x.y;
    } else {
        const uint2 x = *reinterpret_cast<const uint2*>(p);
        v[0] = Element<T>::load(static_cast<uint16_t>(x.x)), v[1] = Element<T>::load(static_cast<uint16_t>(x.x >> 16));
        v[2] = Element<T>::load(static_cast<uint16_t>(x.y)), v[3] = Element<T>::load(static_cast<uint16_t>(x.y >> 16));
    }
}

template <DType T>
__device__ __forceinline__ void store_wide(typename Element<T>::Stored* p,
                                           const typename Element<T>::Number (&v)[kLanes<T>]) {
    if constexpr (T == DType::f32 || T == DType::f64)
        ptx::store_16(p, v);
    else
        *reinterpret_cast<uint2*>(p) = make_uint2(Element<T>::pair(v[0], v[1]), Element<T>::pair(v[2], v[3]));
}

}  // namespace nk::tile
