// Integer arithmetic on parts of registers: pairs of 16 bits, dot products of bytes, 24 bits; and other rare
// operations.
#include <algorithm>
#include <limits>

#include "families.h"
#include "lanes.h"

namespace emu::ops {

namespace {

using U = uint32_t;
using S = int32_t;

template <class T>
T half(U x, int n) {
    return static_cast<T>(x >> 16 * n);
}
template <class T>
T byte(U x, int n) {
    return static_cast<T>(x >> 8 * n);
}

template <class T, class F>
Run on_halves(F) {
    return map<U, U, U>([](U x, U y) {
        const auto one = [&](int n) { return static_cast<uint16_t>(F{}(half<T>(x, n), half<T>(y, n))); };
        return static_cast<U>(one(1) << 16 | one(0));
    });
}

template <class F>
Run on_halves_of(Builder& b, F f) {
    const Name t = b.take_next();
    if (t == "u16x2") return on_halves<uint16_t>(f);
    if (t == "s16x2") return on_halves<int16_t>(f);
    b.unsupported("type");
}

// a with elements of type A, b of type B; First: of b's bytes, the first that takes part.
template <class A, class B, int Count, int First>
Run dot() {
    return map<U, U, U, U>([](U x, U y, U sum) {
        for (int n = 0; n < Count; ++n) {
            const auto p = static_cast<int32_t>(Count == 4 ? byte<A>(x, n) : half<A>(x, n));
            sum += static_cast<U>(p * static_cast<int32_t>(byte<B>(y, First + n)));
        }
        return sum;
    });
}

template <class Wide, class Narrow, int Count, int First>
Run dot_of(bool a_signed, bool b_signed) {
    using SA = std::make_signed_t<Wide>;
    using UA = std::make_unsigned_t<Wide>;
    using SB = std::make_signed_t<Narrow>;
    using UB = std::make_unsigned_t<Narrow>;
    if (a_signed) return b_signed ? dot<SA, SB, Count, First>() : dot<SA, UB, Count, First>();
    return b_signed ? dot<UA, SB, Count, First>() : dot<UA, UB, Count, First>();
}

bool signed_word(Builder& b) {
    const Type t = type_of(b.take_next());
    if (t != Type::s32 && t != Type::u32) b.unsupported("type");
    return t == Type::s32;
}

int64_t low24(U x, bool is_signed) {
    return is_signed ? static_cast<int32_t>(x << 8) >> 8 : static_cast<int32_t>(x & 0xffffff);
}
template <bool Signed, bool High>
U product24(U x, U y) {
    const auto p = static_cast<uint64_t>(low24(x, Signed) * low24(y, Signed));
    return static_cast<U>(High ? p >> 16 : p);
}

template <bool Signed>
U extended(U x, U bits, bool wraps) {
    if (wraps) bits &= 31;
    if (bits >= 32) return x;
    if (bits == 0) return 0;
    const U shifted = x << (32 - bits);
    return Signed ? static_cast<U>(static_cast<S>(shifted) >> (32 - bits)) : shifted >> (32 - bits);
}

U find_nth_set(U mask, U base, S offset) {
    if (offset == 0) return base < 32 && mask >> base & 1 ? base : ~0u;
    U left = offset > 0 ? static_cast<U>(offset) - 1 : static_cast<U>(-static_cast<int64_t>(offset)) - 1;
    for (int64_t at = base; at >= 0 && at < 32; at += offset > 0 ? 1 : -1)
        if (mask >> at & 1)
            if (left-- == 0) return static_cast<U>(at);
    return ~0u;
}

}  // namespace

bool is_halves(Name opcode) { return opcode.find(".u16x2") != Name::npos || opcode.find(".s16x2") != Name::npos; }

void add_halves(Builder& b) {
    emit_map(b, on_halves_of(b, [](auto x, auto y) { return x + y; }), Class::integer, Type::b32,
             {Type::b32, Type::b32});
}

void extreme_halves(Builder& b, bool max) {
    const bool relu = b.take("relu");
    if (relu && b.full_opcode().find(".s16x2") == Name::npos) b.unsupported("relu");
    const auto pick = [&](auto f) { return on_halves_of(b, f); };
    const Run run = max    ? relu ? pick([](auto x, auto y) { return std::max<int>(std::max(x, y), 0); })
                                  : pick([](auto x, auto y) { return std::max(x, y); })
                       : relu ? pick([](auto x, auto y) { return std::max<int>(std::min(x, y), 0); })
                           : pick([](auto x, auto y) { return std::min(x, y); });
    emit_map(b, run, Class::integer, Type::b32, {Type::b32, Type::b32});
}

void extreme_relu(Builder& b, bool max) {
    if (!b.take("relu") || b.need_type() != Type::s32) b.unsupported("relu");
    emit_map(b, max ? map<S, S, S>([](S x, S y) { return std::max(std::max(x, y), 0); }) : map<S, S, S>([](S x, S y) {
                 return std::max(std::min(x, y), 0);
             }),
             Class::integer, Type::s32, {Type::s32, Type::s32});
}

void dp4a(Builder& b) {
    const bool x = signed_word(b), y = signed_word(b);
    const Type t = x || y ? Type::s32 : Type::u32;
    emit_map(b, dot_of<int8_t, int8_t, 4, 0>(x, y), Class::integer, t, {Type::b32, Type::b32, t});
}

void dp2a(Builder& b) {
    const bool high = b.take("hi");
    if (!high && !b.take("lo")) b.unsupported("dp2a without .lo or .hi");
    const bool x = signed_word(b), y = signed_word(b);
    const Type t = x || y ? Type::s32 : Type::u32;
    emit_map(b, high ? dot_of<int16_t, int8_t, 2, 2>(x, y) : dot_of<int16_t, int8_t, 2, 0>(x, y), Class::integer, t,
             {Type::b32, Type::b32, t});
}

void sad(Builder& b) {
    const Type t = b.need_type();
    emit_map(b,
             with_integer(b, t,
                          [](auto z) {
                              using T = decltype(z);
                              return map<T, T, T, T>([](T x, T y, T c) {
                                  using W = std::make_unsigned_t<T>;
                                  const W d = x < y ? static_cast<W>(static_cast<W>(y) - static_cast<W>(x))
                                                    : static_cast<W>(static_cast<W>(x) - static_cast<W>(y));
                                  return static_cast<T>(static_cast<W>(c) + d);
                              });
                          }),
             Class::integer, t, {t, t, t});
}

void mul24(Builder& b) {
    const bool high = b.take("hi");
    if (!high && !b.take("lo")) b.unsupported("mul24 without .lo or .hi");
    const Type t = b.need_type();
    if (t != Type::s32 && t != Type::u32) b.unsupported("type");
    const Run run = t == Type::s32 ? high ? map<U, U, U>([](U x, U y) { return product24<true, true>(x, y); })
                                          : map<U, U, U>([](U x, U y) { return product24<true, false>(x, y); })
                    : high ? map<U, U, U>([](U x, U y) { return product24<false, true>(x, y); })
                                   : map<U, U, U>([](U x, U y) { return product24<false, false>(x, y); });
    emit_map(b, run, Class::integer, t, {t, t});
}

void mad24(Builder& b) {
    const bool high = b.take("hi");
    if (!high && !b.take("lo")) b.unsupported("mad24 without .lo or .hi");
    const bool sat = high && b.take("sat");
    const Type t = b.need_type();
    if ((t != Type::s32 && t != Type::u32) || (sat && t != Type::s32)) b.unsupported("type");
    const Run run = sat ? map<S, U, U, S>([](U x, U y, S c) {
        const int64_t sum = int64_t{static_cast<S>(product24<true, true>(x, y))} + c;
        return static_cast<S>(std::clamp<int64_t>(sum, std::numeric_limits<S>::min(), std::numeric_limits<S>::max()));
    })
                    : t == Type::s32
                        ? high ? map<U, U, U, U>([](U x, U y, U c) { return product24<true, true>(x, y) + c; })
                               : map<U, U, U, U>([](U x, U y, U c) { return product24<true, false>(x, y) + c; })
                    : high ? map<U, U, U, U>([](U x, U y, U c) { return product24<false, true>(x, y) + c; })
                           : map<U, U, U, U>([](U x, U y, U c) { return product24<false, false>(x, y) + c; });
    emit_map(b, run, Class::integer, t, {t, t, t});
}

void cnot(Builder& b) {
    const Type t = b.need_type();
    emit_map(b,
             with_bits(b, t,
                       [](auto z) {
                           using T = decltype(z);
                           return map<T, T>([](T x) { return static_cast<T>(x == 0); });
                       }),
             Class::integer, t, {t});
}

namespace {

// Of four bytes each; with Add their sum and c, else one beside the other.
template <class T, bool Add>
Run distances() {
    return map<U, U, U, U>([](U x, U y, U c) {
        U sum = c, all = 0;
        for (int s = 0; s < 32; s += 8) {
            const auto d = static_cast<U>(std::abs(static_cast<T>(x >> s) - static_cast<T>(y >> s)));
            sum += d, all |= d << s;
        }
        return Add ? sum : all;
    });
}

}  // namespace

// The one video instruction that CUDA's headers use (__vabsdiffu4, __vsadu4).
void vabsdiff4(Builder& b) {
    const Name d = b.take_next(), x = b.take_next(), y = b.take_next();
    const bool adds = b.take("add"), is_signed = x == "s32";
    if (x != y || (x != "u32" && x != "s32") || d != "u32") b.unsupported("type");
    const Run run = is_signed ? adds ? distances<int8_t, true>() : distances<int8_t, false>()
                    : adds ? distances<uint8_t, true>()
                              : distances<uint8_t, false>();
    emit_map(b, run, Class::integer, Type::b32, {Type::b32, Type::b32, Type::b32});
}

void szext(Builder& b) {
    const bool wraps = b.take("wrap");
    if (!wraps && !b.take("clamp")) b.unsupported("mode");
    const Type t = b.need_type();
    if (t != Type::s32 && t != Type::u32) b.unsupported("type");
    const Run run = t == Type::s32 ? wraps ? map<U, U, U>([](U x, U n) { return extended<true>(x, n, true); })
                                           : map<U, U, U>([](U x, U n) { return extended<true>(x, n, false); })
                    : wraps ? map<U, U, U>([](U x, U n) { return extended<false>(x, n, true); })
                                   : map<U, U, U>([](U x, U n) { return extended<false>(x, n, false); });
    emit_map(b, run, Class::integer, t, {t, Type::u32});
}

void fns(Builder& b) {
    if (b.need_type() != Type::b32) b.unsupported("type");
    emit_map(b, map<U, U, U, S>([](U mask, U base, S offset) { return find_nth_set(mask, base, offset); }),
             Class::integer, Type::b32, {Type::b32, Type::b32, Type::s32});
}

}  // namespace emu::ops
