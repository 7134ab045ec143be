// Building Runs of floating-point functions: of f32 and f64 with their modifiers, and of the 16-bit formats, which
// compute in single precision and round once.
#pragma once

#include "lanes.h"
#include "numbers.h"

namespace emu {

struct FormatHalf {
    static constexpr float least = 0x1p-14f;  // normal number
    static float read(uint16_t x) { return from_half(x); }
    static uint16_t write(float x) { return to_half(x); }
};
struct FormatBfloat {
    static constexpr float least = 0x1p-126f;
    static float read(uint16_t x) { return from_bfloat(x); }
    static uint16_t write(float x) { return to_bfloat(x); }
};

template <class T>
T with_flags(T x, uint16_t flags, bool result) {
    if (flags & kFtz) x = flush(x);
    if (result && (flags & kSaturate)) x = saturate(x);
    return x;
}

// One, two or three numbers of T, without modifiers.
template <class T, class F>
[[gnu::always_inline]] inline Run plain(F, int sources) {
    if (sources == 1)
        if constexpr (std::is_invocable_v<F, T>) return map<T, T>([](T x) { return canonical(F{}(x)); });
    if (sources == 2)
        if constexpr (std::is_invocable_v<F, T, T>) return map<T, T, T>([](T x, T y) { return canonical(F{}(x, y)); });
    if constexpr (std::is_invocable_v<F, T, T, T>)
        return map<T, T, T, T>([](T x, T y, T z) { return canonical(F{}(x, y, z)); });
    return nullptr;
}

// The same with a rounding mode, flushing and saturation.
template <class T, class F>
Run modified(F) {
    return [](Warp& w, const Inst& i) {
        const T *a = w.at<T>(i.a), *b = i.b == kNoRef ? a : w.at<T>(i.b), *c = i.c == kNoRef ? a : w.at<T>(i.c);
        const uint16_t flags = i.flags;
        alignas(64) T r[kLanes];
        {
            const Rounding rounding(flags);
            for (int l = 0; l < kLanes; ++l) {
                const T x = with_flags(a[l], flags, false);
                if constexpr (std::is_invocable_v<F, T>)
                    r[l] = F{}(x);
                else if constexpr (std::is_invocable_v<F, T, T>)
                    r[l] = F{}(x, with_flags(b[l], flags, false));
                else
                    r[l] = F{}(x, with_flags(b[l], flags, false), with_flags(c[l], flags, false));
            }
        }
        each_lane<T>(w, i.d, [&](int l) { return canonical(with_flags(r[l], flags, true)); });
    };
}

template <class Format, class F>
uint16_t narrow_one(uint16_t x, uint16_t y, uint16_t z) {
    if constexpr (std::is_invocable_v<F, float>)
        return Format::write(F{}(Format::read(x)));
    else if constexpr (std::is_invocable_v<F, float, float>)
        return Format::write(F{}(Format::read(x), Format::read(y)));
    else
        return Format::write(F{}(Format::read(x), Format::read(y), Format::read(z)));
}

// With .ftz, .sat, .relu.
template <class Format, class F>
uint16_t narrow_limited(uint16_t x, uint16_t y, uint16_t z, uint16_t flags) {
    const auto flushed = [flags](uint16_t v) -> uint16_t {
        return (flags & kFtz) && std::fabs(Format::read(v)) < Format::least ? v & 0x8000 : v;
    };
    const uint16_t r = flushed(narrow_one<Format, F>(flushed(x), flushed(y), flushed(z)));
    const float value = Format::read(r);
    if (flags & kSaturate) return Format::write(saturate(value));
    return (flags & kRelu) && value <= 0 ? uint16_t{0} : r;
}

template <class Format, class F, bool Packed>
void run_limited(Warp& w, const Inst& i) {
    using T = std::conditional_t<Packed, uint32_t, uint16_t>;
    const T *a = w.at<T>(i.a), *b = i.b == kNoRef ? a : w.at<T>(i.b), *c = i.c == kNoRef ? a : w.at<T>(i.c);
    const uint16_t flags = i.flags;
    each_lane<T>(w, i.d, [=](int l) {
        const auto half = [&](int s) -> uint32_t {
            return narrow_limited<Format, F>(static_cast<uint16_t>(a[l] >> s), static_cast<uint16_t>(b[l] >> s),
                                             static_cast<uint16_t>(c[l] >> s), flags);
        };
        return static_cast<T>(Packed ? half(0) | half(16) << 16 : half(0));
    });
}

// 16 bits, or two of them in 32.
template <class Format, class F>
Run narrow(F, bool packed, uint16_t flags) {
    if (flags) return packed ? run_limited<Format, F, true> : run_limited<Format, F, false>;
    if (!packed)
        return [](Warp& w, const Inst& i) {
            using T = uint16_t;
            const T *a = w.at<T>(i.a), *b = i.b == kNoRef ? a : w.at<T>(i.b), *c = i.c == kNoRef ? a : w.at<T>(i.c);
            each_lane<T>(w, i.d, [=](int l) { return narrow_one<Format, F>(a[l], b[l], c[l]); });
        };
    return [](Warp& w, const Inst& i) {
        using T = uint32_t;
        const T *a = w.at<T>(i.a), *b = i.b == kNoRef ? a : w.at<T>(i.b), *c = i.c == kNoRef ? a : w.at<T>(i.c);
        each_lane<T>(w, i.d, [=](int l) {
            const auto half = [&](int s) -> uint32_t {
                return narrow_one<Format, F>(static_cast<uint16_t>(a[l] >> s), static_cast<uint16_t>(b[l] >> s),
                                             static_cast<uint16_t>(c[l] >> s));
            };
            return half(0) | half(16) << 16;
        });
    };
}

inline bool is_narrow(Type t) { return t == Type::f16 || t == Type::bf16 || t == Type::f16x2 || t == Type::bf16x2; }

// f on t with the flags; null if there is no such.
template <class F, class N>
Run floating_run(Type t, uint16_t flags, int sources, F f, N on_narrow) {
    if (t == Type::f32 && !(flags & kRelu)) return flags ? modified<float>(f) : plain<float>(f, sources);
    if (t == Type::f64 && !(flags & (kFtz | kSaturate | kRelu)))
        return flags ? modified<double>(f) : plain<double>(f, sources);
    if (flags & ~(kFtz | kSaturate | kRelu)) return nullptr;
    if (t == Type::f16 || t == Type::f16x2) return narrow<FormatHalf>(on_narrow, t == Type::f16x2, flags);
    if (t == Type::bf16 || t == Type::bf16x2) return narrow<FormatBfloat>(on_narrow, t == Type::bf16x2, flags);
    return nullptr;
}

inline Inst& emit_floating(Builder& b, Run run, Type t, uint16_t flags, int sources) {
    if (run == nullptr) b.unsupported("type or modifiers");
    Inst& i = sources == 1   ? emit_map(b, run, Class::floating, t, {t})
              : sources == 2 ? emit_map(b, run, Class::floating, t, {t, t})
                             : emit_map(b, run, Class::floating, t, {t, t, t});
    i.flags = static_cast<uint16_t>(i.flags | flags);
    return i;
}

}  // namespace emu
