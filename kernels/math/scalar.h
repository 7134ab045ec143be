// The operations that kernels/math builds on, for float and double on host and device. vec<float> and vec<double>
// (kernels/cpu/simd) bring functions of the same names, found by argument-dependent lookup.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define NK_HD __host__ __device__ __forceinline__
#else
// Always inlined, so that no copy built for one instruction set can be linked into another.
#define NK_HD inline __attribute__((always_inline))
#endif

namespace nk::math {

template <class V>
struct scalar_of {
    using type = typename V::scalar;
};
template <>
struct scalar_of<float> {
    using type = float;
};
template <>
struct scalar_of<double> {
    using type = double;
};
template <class V>
using scalar_t = typename scalar_of<V>::type;

template <class V>
inline constexpr bool is_f64 = sizeof(scalar_t<V>) == 8;

// A number's bits and the shape of its format, for S = float or double.
template <class S>
struct format;
template <>
struct format<float> {
    using bits = uint32_t;
    using sbits = int32_t;
    static constexpr int mantissa = 23, bias = 127;
    static constexpr double round_magic = 0x1.8p23;  // x + magic leaves round(x) in the low bits
    static constexpr bits sqrt_half = 0x3f3504f3u;   // bits of sqrt(1/2)
    static constexpr double min_normal = 0x1p-126;
};
template <>
struct format<double> {
    using bits = uint64_t;
    using sbits = int64_t;
    static constexpr int mantissa = 52, bias = 1023;
    static constexpr double round_magic = 0x1.8p52;
    static constexpr bits sqrt_half = 0x3fe6a09e667f3bcdull;
    static constexpr double min_normal = 0x1p-1022;
};

template <class S>
NK_HD typename format<S>::bits to_bits(S x) {
    typename format<S>::bits b;
    memcpy(&b, &x, sizeof b);
    return b;
}
template <class S>
NK_HD S from_bits(typename format<S>::bits b) {
    S x;
    memcpy(&x, &b, sizeof x);
    return x;
}

// a*b + c with one rounding.
NK_HD float fma(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
    return ::fmaf(a, b, c);
#elif defined(__FMA__)
    return __builtin_fmaf(a, b, c);
#else
    return static_cast<float>(static_cast<double>(a) * b + c);  // the product is exact
#endif
}
NK_HD double fma(double a, double b, double c) {
#if defined(__CUDA_ARCH__)
    return ::fma(a, b, c);
#else
    return __builtin_fma(a, b, c);
#endif
}

// a*b + c, fused where that is fast: for sums whose result does not hang on the rounding of the product.
template <class S>
NK_HD S mad_scalar(S a, S b, S c) {
#if defined(__CUDA_ARCH__) || defined(__FMA__)
    return fma(a, b, c);
#else
    return a * b + c;
#endif
}
NK_HD float mad(float a, float b, float c) { return mad_scalar(a, b, c); }
NK_HD double mad(double a, double b, double c) { return mad_scalar(a, b, c); }

// Both return b when a or b is NaN, as the x86 instructions do: max(bound, x) keeps a NaN in x.
NK_HD float max(float a, float b) { return a > b ? a : b; }
NK_HD float min(float a, float b) { return a < b ? a : b; }
NK_HD double max(double a, double b) { return a > b ? a : b; }
NK_HD double min(double a, double b) { return a < b ? a : b; }

NK_HD float select(bool m, float a, float b) { return m ? a : b; }
NK_HD double select(bool m, double a, double b) { return m ? a : b; }

// `negative` where x is below zero (its sign counts, so that of -0 may too), else `other`: cheaper than a mask.
NK_HD float by_sign(float x, float negative, float other) { return x < 0 ? negative : other; }
NK_HD double by_sign(double x, double negative, double other) { return x < 0 ? negative : other; }

// 1/x with at least 12 right bits, for normal x; 0 for infinity.
NK_HD float rough_reciprocal(float x) { return 1 / x; }

template <class S>
NK_HD S copysign_scalar(S magnitude, S sign) {
    constexpr auto top = typename format<S>::bits{1} << (8 * sizeof(S) - 1);
    return from_bits<S>((to_bits(magnitude) & ~top) | (to_bits(sign) & top));
}
NK_HD float copysign(float magnitude, float sign) { return copysign_scalar(magnitude, sign); }
NK_HD double copysign(double magnitude, double sign) { return copysign_scalar(magnitude, sign); }
NK_HD float abs(float x) { return copysign_scalar(x, 0.0f); }
NK_HD double abs(double x) { return copysign_scalar(x, 0.0); }

NK_HD float neg_abs(float x) { return copysign_scalar(x, -1.0f); }
NK_HD double neg_abs(double x) { return copysign_scalar(x, -1.0); }

// 2^n for an integral n whose power is a normal number; other n give no meaningful result.
template <class S>
NK_HD S pow2_scalar(S n) {
    using F = format<S>;
    return from_bits<S>((to_bits(n + static_cast<S>(F::round_magic)) << F::mantissa) +
                        (static_cast<typename F::bits>(F::bias) << F::mantissa));
}
NK_HD float pow2(float n) { return pow2_scalar(n); }
NK_HD double pow2(double n) { return pow2_scalar(n); }

// p * 2^n for p near 1 and integral |n| up to twice the exponent range, rounded once.
template <class S>
NK_HD S scale_scalar(S p, S n) {
    const S magic = static_cast<S>(format<S>::round_magic);
    const S half = (n * S(0.5) + magic) - magic;
    return p * pow2_scalar(half) * pow2_scalar(n - half);
}
NK_HD float scale(float p, float n) { return scale_scalar(p, n); }
NK_HD double scale(double p, double n) { return scale_scalar(p, n); }

// x = m * 2^e with m in [sqrt(1/2), sqrt(2)), for positive normal x.
template <class S>
NK_HD S split_scalar(S x, S& e) {
    using F = format<S>;
    using B = typename F::bits;
    const B b = to_bits(x);
    const B k = (b - F::sqrt_half + (static_cast<B>(F::bias) << F::mantissa)) >> F::mantissa;
    e = static_cast<S>(static_cast<typename F::sbits>(k) - F::bias);
    return from_bits<S>(b - ((k - F::bias) << F::mantissa));
}
NK_HD float split(float x, float& e) { return split_scalar(x, e); }
NK_HD double split(double x, double& e) { return split_scalar(x, e); }

}  // namespace nk::math
