// Integer arithmetic, logic, shifts and bit fields.
#include <limits>
#include <type_traits>

#include "families.h"
#include "lanes.h"

namespace emu::ops {

namespace {

template <class T>
using Unsigned = std::make_unsigned_t<T>;

// Arithmetic wraps, so it is done on unsigned numbers at least as wide as int.
template <class T>
using Wrap = std::conditional_t<(sizeof(T) < 4), uint32_t, Unsigned<T>>;

template <class T, class F>
Run same2(F f) {
    return map<T, T, T>(f);
}

template <class T>
constexpr T upper_half(T a, T b) {
    if constexpr (sizeof(T) == 8) {
        using Wide = std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>;
        return static_cast<T>((static_cast<Wide>(a) * b) >> 64);
    } else {
        using Wide = std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>;
        return static_cast<T>((static_cast<Wide>(a) * static_cast<Wide>(b)) >> (8 * sizeof(T)));
    }
}

// Division by zero gives all ones on the device (the ISA leaves it open); the least number by -1 wraps.
template <class T>
constexpr T quotient(T a, T b) {
    if (b == 0) return static_cast<T>(-1);
    if constexpr (std::is_signed_v<T>)
        if (b == -1) return static_cast<T>(Wrap<T>(0) - static_cast<Wrap<T>>(a));
    return static_cast<T>(a / b);
}

template <class T>
constexpr T remainder(T a, T b) {
    if (b == 0) return a;
    if constexpr (std::is_signed_v<T>)
        if (b == -1) return 0;
    return static_cast<T>(a % b);
}

// A shift by the width or more gives zero, or the sign.
template <class T>
constexpr T shift_left(T a, uint32_t n) {
    return n >= 8 * sizeof(T) ? T(0) : static_cast<T>(static_cast<Wrap<T>>(a) << n);
}
template <class T>
constexpr T shift_right(T a, uint32_t n) {
    constexpr uint32_t width = 8 * sizeof(T);
    if (n >= width) return std::is_signed_v<T> && a < 0 ? static_cast<T>(-1) : T(0);
    return static_cast<T>(a >> n);
}

int32_t saturated(int64_t x) {
    constexpr int64_t low = std::numeric_limits<int32_t>::min(), high = std::numeric_limits<int32_t>::max();
    return static_cast<int32_t>(x < low ? low : x > high ? high : x);
}

template <class F>
void uniform(Builder& b, F f) {
    const Type t = b.need_type();
    emit_map(b, with_integer(b, t, f), Class::integer, t, {t, t});
}

}  // namespace

void integer_add(Builder& b, bool subtract) {
    const bool sat = b.take("sat");
    const Type t = b.need_type();
    if (t == Type::u16 || t == Type::s16 || !sat || t != Type::s32) {
        if (sat) b.unsupported("saturation");
    }
    Run run;
    if (sat)
        run = subtract ? same2<int32_t>([](int32_t x, int32_t y) { return saturated(int64_t{x} - y); })
                       : same2<int32_t>([](int32_t x, int32_t y) { return saturated(int64_t{x} + y); });
    else
        run = with_integer(b, t, [&](auto z) {
            using T = Unsigned<decltype(z)>;
            return subtract ? same2<T>([](T x, T y) { return static_cast<T>(x - y); })
                            : same2<T>([](T x, T y) { return static_cast<T>(x + y); });
        });
    emit_map(b, run, Class::integer, t, {t, t});
}

void integer_mul(Builder& b) {
    const Name part = b.take_any({"lo", "hi", "wide"});
    const Type t = b.need_type();
    if (part == "wide") {
        const Type wide = t == Type::s16   ? Type::s32
                          : t == Type::u16 ? Type::u32
                          : t == Type::s32 ? Type::s64
                          : t == Type::u32 ? Type::u64
                                           : Type::none;
        Run run = nullptr;
        if (t == Type::s16) run = map<int32_t, int16_t, int16_t>([](int x, int y) { return x * y; });
        if (t == Type::u16) run = map<uint32_t, uint16_t, uint16_t>([](uint32_t x, uint32_t y) { return x * y; });
        if (t == Type::s32) run = map<int64_t, int32_t, int32_t>([](int64_t x, int64_t y) { return x * y; });
        if (t == Type::u32) run = map<uint64_t, uint32_t, uint32_t>([](uint64_t x, uint64_t y) { return x * y; });
        if (run == nullptr) b.unsupported("type");
        emit_map(b, run, Class::integer, wide, {t, t});
        return;
    }
    if (part.empty()) b.unsupported("mul of integers without .lo, .hi or .wide");
    emit_map(b,
             with_integer(b, t,
                          [&](auto z) {
                              using T = decltype(z);
                              using W = Wrap<T>;
                              return part == "lo" ? same2<T>([](T x, T y) {
                                  return static_cast<T>(static_cast<W>(x) * static_cast<W>(y));
                              })
                                                  : same2<T>([](T x, T y) { return upper_half(x, y); });
                          }),
             Class::integer, t, {t, t});
}

void integer_mad(Builder& b) {
    const Name part = b.take_any({"lo", "hi", "wide"});
    const Type t = b.need_type();
    if (part == "wide") {
        Run run = nullptr;
        Type wide = Type::none;
        if (t == Type::s16) {
            wide = Type::s32;
            run = map<uint32_t, int16_t, int16_t, uint32_t>(
                [](int x, int y, uint32_t z) { return static_cast<uint32_t>(x * y) + z; });
        }
        if (t == Type::u16) {
            wide = Type::u32;
            run = map<uint32_t, uint16_t, uint16_t, uint32_t>(
                [](uint32_t x, uint32_t y, uint32_t z) { return x * y + z; });
        }
        if (t == Type::s32) {
            wide = Type::s64;
            run = map<uint64_t, int32_t, int32_t, uint64_t>(
                [](int64_t x, int64_t y, uint64_t z) { return static_cast<uint64_t>(x * y) + z; });
        }
        if (t == Type::u32) {
            wide = Type::u64;
            run = map<uint64_t, uint32_t, uint32_t, uint64_t>(
                [](uint64_t x, uint64_t y, uint64_t z) { return x * y + z; });
        }
        if (run == nullptr) b.unsupported("type");
        emit_map(b, run, Class::integer, wide, {t, t, wide});
        return;
    }
    if (part.empty()) b.unsupported("mad of integers without .lo, .hi or .wide");
    if (part == "hi" && t == Type::s32 && b.take("sat")) {
        emit_map(b, map<int32_t, int32_t, int32_t, int32_t>([](int32_t x, int32_t y, int32_t z) {
                     return saturated(int64_t{upper_half(x, y)} + z);
                 }),
                 Class::integer, t, {t, t, t});
        return;
    }
    emit_map(b,
             with_integer(b, t,
                          [&](auto z) {
                              using T = decltype(z);
                              using W = Wrap<T>;
                              return part == "lo" ? map<T, T, T, T>([](T x, T y, T c) {
                                  return static_cast<T>(static_cast<W>(x) * static_cast<W>(y) + static_cast<W>(c));
                              })
                                                  : map<T, T, T, T>([](T x, T y, T c) {
                                                        return static_cast<T>(static_cast<W>(upper_half(x, y)) +
                                                                              static_cast<W>(c));
                                                    });
                          }),
             Class::integer, t, {t, t, t});
}

void integer_div(Builder& b) {
    uniform(b, [](auto z) {
        using T = decltype(z);
        return same2<T>([](T x, T y) { return quotient(x, y); });
    });
}

void integer_rem(Builder& b) {
    uniform(b, [](auto z) {
        using T = decltype(z);
        return same2<T>([](T x, T y) { return remainder(x, y); });
    });
}

void integer_min(Builder& b) {
    uniform(b, [](auto z) {
        using T = decltype(z);
        return same2<T>([](T x, T y) { return x < y ? x : y; });
    });
}

void integer_max(Builder& b) {
    uniform(b, [](auto z) {
        using T = decltype(z);
        return same2<T>([](T x, T y) { return x < y ? y : x; });
    });
}

void integer_neg(Builder& b) {
    const Type t = b.need_type();
    emit_map(b,
             with_bits(b, t,
                       [](auto z) {
                           using T = decltype(z);
                           return map<T, T>([](T x) { return static_cast<T>(T(0) - x); });
                       }),
             Class::integer, t, {t});
}

void integer_abs(Builder& b) {
    const Type t = b.need_type();
    if (!is_signed(t)) b.unsupported("type");
    emit_map(
        b,
        with_bits(b, t,
                  [](auto z) {
                      using T = decltype(z);
                      return map<T, T>([](T x) { return static_cast<T>(x >> (8 * sizeof(T) - 1) ? T(0) - x : x); });
                  }),
        Class::integer, t, {t});
}

namespace {

template <class P, class F>
void logic(Builder& b, P on_predicates, F on_numbers) {
    const Type t = b.need_type();
    if (t != Type::pred) {
        emit_map(b, with_bits(b, t, on_numbers), Class::integer, t, {t, t});
        return;
    }
    b.done();
    const Ref x = b.truth(b.operand(1)), y = b.truth(b.operand(2)), d = b.predicate_result(b.operand(0).name);
    Inst& i = b.emit(on_predicates, Class::integer);
    i.d = d, i.a = x, i.b = y;
}

}  // namespace

void logic_and(Builder& b) {
    logic(
        b, [](Warp& w, const Inst& i) { w.set_predicate(i.d, w.predicate(i.a) & w.predicate(i.b)); },
        [](auto z) {
            using T = decltype(z);
            return same2<T>([](T x, T y) { return static_cast<T>(x & y); });
        });
}

void logic_or(Builder& b) {
    logic(
        b, [](Warp& w, const Inst& i) { w.set_predicate(i.d, w.predicate(i.a) | w.predicate(i.b)); },
        [](auto z) {
            using T = decltype(z);
            return same2<T>([](T x, T y) { return static_cast<T>(x | y); });
        });
}

void logic_xor(Builder& b) {
    logic(
        b, [](Warp& w, const Inst& i) { w.set_predicate(i.d, w.predicate(i.a) ^ w.predicate(i.b)); },
        [](auto z) {
            using T = decltype(z);
            return same2<T>([](T x, T y) { return static_cast<T>(x ^ y); });
        });
}

void logic_not(Builder& b) {
    const Type t = b.need_type();
    if (t == Type::pred) {
        b.done();
        const Ref x = b.truth(b.operand(1)), d = b.predicate_result(b.operand(0).name);
        Inst& i = b.emit([](Warp& w, const Inst& i) { w.set_predicate(i.d, ~w.predicate(i.a)); }, Class::integer);
        i.d = d, i.a = x;
        return;
    }
    emit_map(b,
             with_bits(b, t,
                       [](auto z) {
                           using T = decltype(z);
                           return map<T, T>([](T x) { return static_cast<T>(~x); });
                       }),
             Class::integer, t, {t});
}

void shift_left(Builder& b) {
    const Type t = b.need_type();
    emit_map(b,
             with_bits(b, t,
                       [](auto z) {
                           using T = decltype(z);
                           return map<T, T, uint32_t>([](T x, uint32_t n) { return shift_left(x, n); });
                       }),
             Class::integer, t, {t, Type::u32});
}

void shift_right(Builder& b) {
    const Type t = b.need_type();
    emit_map(b,
             with_integer(b, t,
                          [](auto z) {
                              using T = decltype(z);
                              return map<T, T, uint32_t>([](T x, uint32_t n) { return shift_right(x, n); });
                          }),
             Class::integer, t, {t, Type::u32});
}

void funnel_shift(Builder& b) {
    const bool left = b.take("l");
    if (!left && !b.take("r")) b.unsupported("direction");
    const bool wraps = b.take("wrap");
    if (!wraps && !b.take("clamp")) b.unsupported("shift mode");
    const Type t = b.need_type();
    if (t != Type::b32) b.unsupported("type");
    // operands: low word, high word, amount
    using U = uint32_t;
    static constexpr auto l = [](U low, U high, U n) {
        const uint64_t both = uint64_t{high} << 32 | low;
        return static_cast<U>((n >= 32 ? both << 32 : both << n) >> 32);
    };
    static constexpr auto r = [](U low, U high, U n) {
        const uint64_t both = uint64_t{high} << 32 | low;
        return static_cast<U>(both >> (n > 32 ? 32 : n));
    };
    Run run;
    if (wraps)
        run = left ? map<U, U, U, U>([](U x, U y, U n) { return l(x, y, n & 31); })
                   : map<U, U, U, U>([](U x, U y, U n) { return r(x, y, n & 31); });
    else
        run = left ? map<U, U, U, U>([](U x, U y, U n) { return l(x, y, n); })
                   : map<U, U, U, U>([](U x, U y, U n) { return r(x, y, n); });
    emit_map(b, run, Class::integer, t, {t, t, Type::u32});
}

}  // namespace emu::ops
