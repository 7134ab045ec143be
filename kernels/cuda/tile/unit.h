// A unit: 16 bytes of one tensor, what one thread moves by one load or store, and its elements as numbers.
//
//   unit of f32   word[0]   word[1]   word[2]   word[3]        unit of f16, bf16   word[i] = element 2i (low half)
//                 elem 0    elem 1    elem 2    elem 3                                       and 2i + 1 (high half)
#pragma once

#include "../ptx/store.h"
#include "element.h"

namespace nk::cuda {

inline constexpr int kUnitBytes = 16;  // the widest load: LDG.128
template <DType T>
inline constexpr int kUnit = kUnitBytes / size_of(T);  // elements of a unit

struct alignas(kUnitBytes) Unit {
    uint32_t word[4];
};

// The pointers must be 16-byte aligned: the plan sees to it.
__device__ __forceinline__ Unit load_unit(const void* p) {
    const uint4 v = *static_cast<const uint4*>(p);
    return {{v.x, v.y, v.z, v.w}};
}
__device__ __forceinline__ void store_unit(void* p, const Unit& u) {
    *static_cast<uint4*>(p) = make_uint4(u.word[0], u.word[1], u.word[2], u.word[3]);
}

// The first N elements of a unit as numbers, and back; the words behind them are not touched.
template <DType T, int N>
__device__ __forceinline__ void unpack(const Unit& u, compute_t<T> (&x)[N]) {
    static_assert(N <= kUnit<T> && (N * size_of(T)) % 4 == 0, "whole words of one unit");
    if constexpr (T == DType::f64) {
#pragma unroll
        for (int i = 0; i < N; ++i) x[i] = __hiloint2double(u.word[2 * i + 1], u.word[2 * i]);
    } else if constexpr (T == DType::f32) {
#pragma unroll
        for (int i = 0; i < N; ++i) x[i] = __uint_as_float(u.word[i]);
    } else {
#pragma unroll
        for (int i = 0; i < N / 2; ++i) {
            x[2 * i] = to_compute<T>(static_cast<uint16_t>(u.word[i]));
            if constexpr (T == DType::bf16)
                x[2 * i + 1] = __uint_as_float(u.word[i] & 0xffff0000u);  // a mask, where a shift pair would be two
            else
                x[2 * i + 1] = to_compute<T>(static_cast<uint16_t>(u.word[i] >> 16));
        }
    }
}
template <DType T, int N>
__device__ __forceinline__ void pack(const compute_t<T> (&x)[N], Unit& u) {
    static_assert(N <= kUnit<T> && (N * size_of(T)) % 4 == 0, "whole words of one unit");
    if constexpr (T == DType::f64) {
#pragma unroll
        for (int i = 0; i < N; ++i) {
            u.word[2 * i] = __double2loint(x[i]);
            u.word[2 * i + 1] = __double2hiint(x[i]);
        }
    } else if constexpr (T == DType::f32) {
#pragma unroll
        for (int i = 0; i < N; ++i) u.word[i] = __float_as_uint(x[i]);
    } else {
#pragma unroll
        for (int i = 0; i < N / 2; ++i)
            u.word[i] =
                T == DType::f16 ? ptx::pack_f16(x[2 * i], x[2 * i + 1]) : ptx::pack_bf16(x[2 * i], x[2 * i + 1]);
    }
}
template <DType T>
__device__ __forceinline__ Unit pack(const compute_t<T> (&x)[kUnit<T>]) {
    Unit u;
    pack<T>(x, u);
    return u;
}

// A piece: the at most 4 elements of a unit that are computed side by side. Code that loops over the pieces of a unit,
// not unrolled, is half as long for 16-bit types and needs half the registers; the pieces pass through its front.
template <DType T>
inline constexpr int kPiece = kUnit<T> < 4 ? kUnit<T> : 4;
template <DType T>
inline constexpr int kPieces = kUnit<T> / kPiece<T>;

template <DType T>
__device__ __forceinline__ void take_piece(Unit& u, compute_t<T> (&x)[kPiece<T>]) {
    unpack<T>(u, x);
    if constexpr (kPieces<T> == 2) u.word[0] = u.word[2], u.word[1] = u.word[3];
}
template <DType T>
__device__ __forceinline__ void put_piece(const compute_t<T> (&x)[kPiece<T>], Unit& u) {
    if constexpr (kPieces<T> == 2) {
        Unit front;
        pack<T>(x, front);
        u.word[0] = u.word[2], u.word[1] = u.word[3];
        u.word[2] = front.word[0], u.word[3] = front.word[1];
    } else {
        pack<T>(x, u);
    }
}

// A piece of neighbouring elements by one access: 16 bytes of f32 or f64, 8 of a 16-bit type.
template <DType T>
__device__ __forceinline__ void load_piece(const memory_t<T>* p, compute_t<T> (&x)[kPiece<T>]) {
    if constexpr (kPieces<T> == 1) {
        unpack<T>(load_unit(p), x);
    } else {
        const uint2 v = *reinterpret_cast<const uint2*>(p);
        unpack<T>(Unit{{v.x, v.y}}, x);
    }
}
template <DType T>
__device__ __forceinline__ void store_piece(memory_t<T>* p, const compute_t<T> (&x)[kPiece<T>]) {
    if constexpr (kPieces<T> == 1) {
        ptx::store_16(p, x);
    } else {
        Unit u;
        pack<T>(x, u);
        *reinterpret_cast<uint2*>(p) = make_uint2(u.word[0], u.word[1]);
    }
}

// One element in every place of a unit: what a tensor of stride 0 holds.
template <DType T>
__device__ __forceinline__ Unit splat(memory_t<T> e) {
    if constexpr (T == DType::f64) {
        const uint32_t lo = __double2loint(e), hi = __double2hiint(e);
        return {{lo, hi, lo, hi}};
    } else if constexpr (T == DType::f32) {
        const uint32_t w = __float_as_uint(e);
        return {{w, w, w, w}};
    } else {
        const uint32_t w = e * 0x10001u;
        return {{w, w, w, w}};
    }
}

// The last, partly filled unit of a dense tensor: `count` elements exist, the rest are left zero.
template <DType T>
__device__ __forceinline__ Unit load_partial(const memory_t<T>* p, int count) {
    Unit u = {};
#pragma unroll
    for (int i = 0; i < kUnit<T>; ++i) {
        if (i >= count) continue;
        if constexpr (T == DType::f64) {
            u.word[2 * i] = __double2loint(p[i]);
            u.word[2 * i + 1] = __double2hiint(p[i]);
        } else if constexpr (T == DType::f32) {
            u.word[i] = __float_as_uint(p[i]);
        } else {
            u.word[i / 2] |= static_cast<uint32_t>(p[i]) << (16 * (i % 2));
        }
    }
    return u;
}
template <DType T>
__device__ __forceinline__ void store_partial(memory_t<T>* p, const Unit& u, int count) {
#pragma unroll
    for (int i = 0; i < kUnit<T>; ++i) {
        if (i >= count) continue;
        if constexpr (T == DType::f64)
            p[i] = __hiloint2double(u.word[2 * i + 1], u.word[2 * i]);
        else if constexpr (T == DType::f32)
            p[i] = __uint_as_float(u.word[i]);
        else
            p[i] = static_cast<uint16_t>(u.word[i / 2] >> (16 * (i % 2)));
    }
}

}  // namespace nk::cuda
