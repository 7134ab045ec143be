// Floating-point arithmetic.
#include "floating.h"

#include "families.h"

namespace emu::ops {

namespace {

template <class F>
void binary(Builder& b, F f) {
    const uint16_t flags = b.rounding();
    const Type t = b.need_type();
    emit_floating(b, floating_run(t, flags, 2, f, f), t, flags, 2);
}

// A product and a sum in one rounding, for the 16-bit formats: the product of two is exact in double precision.
struct FmaToOdd {
    float operator()(float x, float y, float z) const { return to_odd(sum_to_odd(static_cast<double>(x) * y, z)); }
};

struct Fma {
    float operator()(float x, float y, float z) const { return __builtin_fmaf(x, y, z); }
    double operator()(double x, double y, double z) const { return __builtin_fma(x, y, z); }
};

template <bool Max>
struct Extreme {
    template <class T>
    T operator()(T x, T y) const {
        // a number wins over NaN, and -0 is less than +0
        if (x != x) return y;
        if (y != y) return x;
        if (x == y) return std::signbit(x) == Max ? y : x;
        return (x < y) == Max ? y : x;
    }
};

template <bool Max>
struct ExtremeNan {
    template <class T>
    T operator()(T x, T y) const {
        return x != x ? x : y != y ? y : Extreme<Max>{}(x, y);
    }
};

// .xorsign.abs: of the magnitudes, with the product of the signs.
template <class F>
struct Signed {
    template <class T>
    T operator()(T x, T y) const {
        const T r = F{}(std::fabs(x), std::fabs(y));
        return std::signbit(x) != std::signbit(y) ? -r : r;
    }
};

template <bool Max>
void extreme(Builder& b) {
    const uint16_t flags = b.rounding();
    const bool keeps_nan = b.take("NaN"), sign = b.take("xorsign");
    if (sign && !b.take("abs")) b.unsupported("xorsign without abs");
    const Type t = b.need_type();
    using Plain = Signed<Extreme<Max>>;
    using Nan = Signed<ExtremeNan<Max>>;
    const Run run = sign && keeps_nan ? floating_run(t, flags, 2, Nan{}, Nan{})
                    : sign            ? floating_run(t, flags, 2, Plain{}, Plain{})
                    : keeps_nan       ? floating_run(t, flags, 2, ExtremeNan<Max>{}, ExtremeNan<Max>{})
                                      : floating_run(t, flags, 2, Extreme<Max>{}, Extreme<Max>{});
    emit_floating(b, run, t, flags, 2);
}

// Functions that the device approximates are computed exactly and rounded once.
template <class F>
void approximate(Builder& b, F) {
    b.take("approx");
    const uint16_t flags = b.rounding();
    const Type t = b.need_type();
    const auto wide = [](auto x) { return static_cast<decltype(x)>(F{}(static_cast<double>(x))); };
    emit_floating(b, floating_run(t, flags, 1, wide, wide), t, flags, 1);
}

template <class U, class F>
Run bitwise(F f) {
    return map<U, U>(f);
}

// neg and abs change the sign bit alone; with .ftz they flush first.
template <class F32, class F>
void sign(Builder& b, F32 f32, F with_mask) {
    const uint16_t flags = b.rounding();
    const Type t = b.need_type();
    const Run run = flags && t == Type::f64 ? nullptr : flags ? floating_run(t, flags, 1, f32, f32) : with_mask(t);
    emit_floating(b, run, t, flags, 1);
}

}  // namespace

void floating_add(Builder& b) {
    binary(b, [](auto x, auto y) { return x + y; });
}
void floating_sub(Builder& b) {
    binary(b, [](auto x, auto y) { return x - y; });
}
void floating_mul(Builder& b) {
    binary(b, [](auto x, auto y) { return x * y; });
}

void fma(Builder& b) {
    const auto flags = static_cast<uint16_t>(b.rounding() | (b.take("relu") ? kRelu : 0));
    const Type t = b.need_type();
    emit_floating(b, floating_run(t, flags, 3, Fma{}, FmaToOdd{}), t, flags, 3);
}

void floating_div(Builder& b) {
    if (!b.take("approx")) b.take("full");
    binary(b, [](auto x, auto y) { return x / y; });
}

namespace {

double upper_word(double x) { return std::bit_cast<double>(std::bit_cast<uint64_t>(x) >> 32 << 32); }
double flushed(double x) { return std::fabs(x) < std::numeric_limits<double>::min() ? std::copysign(0., x) : x; }

// .approx.ftz.f64: the upper 32 bits of the source make the upper 32 bits of the result.
template <class F>
void approximate_double(Builder& b, F) {
    emit_map(b, map<double, double>([](double x) { return upper_word(flushed(F{}(flushed(upper_word(x))))); }),
             Class::floating, Type::f64, {Type::f64});
}

}  // namespace

void rcp(Builder& b) {
    const bool approx = b.take("approx");
    const uint16_t flags = b.rounding();
    const Type t = b.need_type();
    if (approx && flags == kFtz && t == Type::f64) return approximate_double(b, [](double x) { return 1 / x; });
    if (is_narrow(t)) b.unsupported("type");
    const auto f = [](auto x) { return decltype(x)(1) / x; };
    emit_floating(b, floating_run(t, flags, 1, f, f), t, flags, 1);
}

void sqrt(Builder& b) {
    b.take("approx");
    const uint16_t flags = b.rounding();
    const Type t = b.need_type();
    if (is_narrow(t)) b.unsupported("type");
    const auto f = [](auto x) { return std::sqrt(x); };
    emit_floating(b, floating_run(t, flags, 1, f, f), t, flags, 1);
}

void rsqrt(Builder& b) {
    if (b.full_opcode() == "rsqrt.approx.ftz.f64") {
        b.take("approx"), b.take("ftz"), b.need_type();
        return approximate_double(b, [](double x) { return 1 / std::sqrt(x); });
    }
    approximate(b, [](double x) { return 1 / std::sqrt(x); });
}
void ex2(Builder& b) {
    approximate(b, [](double x) { return std::exp2(x); });
}
void lg2(Builder& b) {
    approximate(b, [](double x) { return std::log2(x); });
}
void sin(Builder& b) {
    approximate(b, [](double x) { return std::sin(x); });
}
void cos(Builder& b) {
    approximate(b, [](double x) { return std::cos(x); });
}
void tanh(Builder& b) {
    approximate(b, [](double x) { return std::tanh(x); });
}

void floating_min(Builder& b) { extreme<false>(b); }
void floating_max(Builder& b) { extreme<true>(b); }

void floating_neg(Builder& b) {
    sign(
        b, [](float x) { return -x; },
        [](Type t) -> Run {
            switch (t) {
                case Type::f32:
                    return bitwise<uint32_t>([](uint32_t x) { return x ^ 0x80000000; });
                case Type::f64:
                    return bitwise<uint64_t>([](uint64_t x) { return x ^ (uint64_t{1} << 63); });
                case Type::f16:
                case Type::bf16:
                    return bitwise<uint16_t>([](uint16_t x) { return x ^ 0x8000; });
                case Type::f16x2:
                case Type::bf16x2:
                    return bitwise<uint32_t>([](uint32_t x) { return x ^ 0x80008000; });
                default:
                    return nullptr;
            }
        });
}

void floating_abs(Builder& b) {
    sign(
        b, [](float x) { return std::fabs(x); },
        [](Type t) -> Run {
            switch (t) {
                case Type::f32:
                    return bitwise<uint32_t>([](uint32_t x) { return x & 0x7fffffff; });
                case Type::f64:
                    return bitwise<uint64_t>([](uint64_t x) { return x & ~(uint64_t{1} << 63); });
                case Type::f16:
                case Type::bf16:
                    return bitwise<uint16_t>([](uint16_t x) { return x & 0x7fff; });
                case Type::f16x2:
                case Type::bf16x2:
                    return bitwise<uint32_t>([](uint32_t x) { return x & 0x7fff7fff; });
                default:
                    return nullptr;
            }
        });
}

void copysign(Builder& b) {
    const Type t = b.need_type();
    // the sign of the first operand, the magnitude of the second
    const auto f = [](auto x, auto y) { return std::copysign(y, x); };
    if (t != Type::f32 && t != Type::f64) b.unsupported("type");
    emit_floating(b, t == Type::f32 ? map<float, float, float>(f) : map<double, double, double>(f), t, 0, 2);
}

}  // namespace emu::ops
