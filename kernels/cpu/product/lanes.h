// Vectors as products need them, over simd/vec.h.
// A Lanes class has: Unit (what a packed operand holds), Acc (what sums are kept in), Reg (a vector of units),
// AccReg (a vector of sums), W (lanes), group (k per unit), Mask (the first n lanes), and the sizes of a tile.
#pragma once

#include <cstdint>
#include <cstring>

#include "../simd/shuffle.h"
#include "../simd/vec.h"

#define NK_INLINE inline __attribute__((always_inline))
#define NK_LAMBDA_INLINE __attribute__((always_inline))

namespace nk::NK_ISA {

template <class S>
struct Lanes {
    using Unit = S;
    using Acc = S;
    using Reg = vec<S>;
    using AccReg = vec<S>;
    using Mask = first<S>;
    using Raw = decltype(Reg::v);  // what the machine has
    static constexpr int W = Reg::lanes, group = 1;
#if defined(NK_ISA_avx512) || defined(NK_ISA_avx512bf16)
    static constexpr int kMaxRows = 14, kVectors = 2, kWideRows = 6, kWideVectors = 4, kDotRows = 6;
    using Permutation = permutation<S>;
#elif defined(NK_ISA_avx2)
    static constexpr int kMaxRows = 6, kVectors = 2, kWideRows = 0, kWideVectors = 0, kDotRows = 3;
#else
    static constexpr int kMaxRows = 4, kVectors = 4, kWideRows = 0, kWideVectors = 0, kDotRows = 2;
#endif
    static constexpr bool kMaskIsFree = kFirstIsFree;

    static NK_INLINE Raw raw(Reg x) { return x.v; }
    static NK_INLINE Mask mask(int64_t n) { return Mask(n); }
    static NK_INLINE AccReg zero() { return AccReg(S(0)); }
    static NK_INLINE AccReg set(S x) { return AccReg(x); }
    template <class T>
    static NK_INLINE Reg load(const T* p) {
        return NK_ISA::load(p);
    }
    template <class T>
    static NK_INLINE Reg load(const T* p, Mask m) {
        return NK_ISA::load(p, m);
    }
    static NK_INLINE void store(S* p, AccReg x) { NK_ISA::store(p, x); }
    template <class T>
    static NK_INLINE void store(T* p, AccReg x, Mask m) {
        NK_ISA::store(p, x, m);
    }
    static NK_INLINE Reg broadcast(const char* p) { return Reg(*reinterpret_cast<const S*>(p)); }
    static NK_INLINE AccReg fma(Reg a, Reg b, AccReg c) { return mad(a, b, c); }
    static NK_INLINE AccReg add(AccReg a, AccReg b) { return a + b; }
    static NK_INLINE AccReg mul(AccReg a, AccReg b) { return a * b; }
};
using LanesF32 = Lanes<float>;
using LanesF64 = Lanes<double>;

// ---- pairs of bf16, summed in f32 ----

#if defined(__AVX512BF16__)
struct LanesPairs : LanesF32 {
    using Unit = uint32_t;  // two bf16, consecutive in k
    using Reg = __m512i;
    using Raw = __m512i;
    static constexpr int group = 2;

    static NK_INLINE Raw raw(Reg x) { return x; }

    using LanesF32::load;
    using LanesF32::store;
    // by the processor's instruction, which flushes subnormals as its products do
    static NK_INLINE void store(bf16* p, AccReg x, Mask m) {
        _mm256_mask_storeu_epi16(p, m.m, (__m256i)_mm512_cvtneps_pbh(x.v));
    }
    static NK_INLINE Reg load(const uint32_t* p) { return _mm512_loadu_si512(p); }
    static NK_INLINE Reg load(const uint32_t* p, Mask m) { return _mm512_maskz_loadu_epi32(m.m, p); }
    static NK_INLINE Reg broadcast(const char* p) { return _mm512_set1_epi32(*(const int*)p); }
    // one bf16, and a zero in the other's place
    static NK_INLINE Reg broadcast_half(const char* p) { return _mm512_set1_epi32(*(const uint16_t*)p); }
    static NK_INLINE AccReg fma(Reg a, Reg b, AccReg c) { return _mm512_dpbf16_ps(c.v, (__m512bh)a, (__m512bh)b); }
};
#endif

template <bool first, class A, class B>
struct SelectOf {
    using type = A;
};
template <class A, class B>
struct SelectOf<false, A, B> {
    using type = B;
};
template <bool first, class A, class B>
using Select = typename SelectOf<first, A, B>::type;

// f(Index<0>{}), ..., f(Index<N - 1>{}): a loop that is unrolled for certain, so that arrays stay in registers.
template <int I>
struct Index {
    static constexpr int value = I;
    constexpr operator int() const { return I; }
};
template <int N, class F>
NK_INLINE void unroll(F&& f) {
    if constexpr (N > 0) {
        unroll<N - 1>(f);
        f(Index<N - 1>{});
    }
}

}  // namespace nk::NK_ISA
