// cvt: between all integer and floating-point types.
#include "families.h"
#include "floating.h"

namespace emu::ops {

namespace {

// What a conversion is, for the ones without a Run of their own; in Inst::extra.
struct Kind {
    Type to, from;
    uint8_t to_register, from_register;  // bytes
};

uint32_t pack(Kind k) {
    return static_cast<uint32_t>(k.to) | static_cast<uint32_t>(k.from) << 8 | uint32_t{k.to_register} << 16 |
           uint32_t{k.from_register} << 24;
}
Kind unpack(uint32_t x) {
    return {static_cast<Type>(x & 0xff), static_cast<Type>(x >> 8 & 0xff), static_cast<uint8_t>(x >> 16 & 0xff),
            static_cast<uint8_t>(x >> 24)};
}

uint64_t read_register(const Warp& w, Ref r, uint32_t bytes, int l) {
    switch (bytes) {
        case 2:
            return w.at<uint16_t>(r)[l];
        case 4:
            return w.at<uint32_t>(r)[l];
        default:
            return w.at<uint64_t>(r)[l];
    }
}

void write_register(const Warp& w, Ref r, uint32_t bytes, int l, uint64_t x) {
    switch (bytes) {
        case 2:
            w.at<uint16_t>(r)[l] = static_cast<uint16_t>(x);
            break;
        case 4:
            w.at<uint32_t>(r)[l] = static_cast<uint32_t>(x);
            break;
        default:
            w.at<uint64_t>(r)[l] = x;
    }
}

// The low `bytes` of x, extended by the sign or by zeros.
uint64_t extended(uint64_t x, uint32_t bytes, bool is_signed) {
    if (bytes == 8) return x;
    const int shift = 64 - 8 * static_cast<int>(bytes);
    return is_signed ? static_cast<uint64_t>(static_cast<int64_t>(x << shift) >> shift) : x << shift >> shift;
}

uint64_t saturated_integer(uint64_t x, Type from, Type to) {
    const uint32_t bits = 8 * bytes_of(to);
    const __int128 value = is_signed(from) ? static_cast<__int128>(static_cast<int64_t>(x)) : static_cast<__int128>(x);
    const __int128 one = 1;
    const __int128 low = is_signed(to) ? -(one << (bits - 1)) : 0;
    const __int128 high = (is_signed(to) ? one << (bits - 1) : one << bits) - 1;
    return static_cast<uint64_t>(value < low ? low : value > high ? high : value);
}

double read_float(uint64_t bits, Type t) {
    switch (t) {
        case Type::f16:
            return from_half(static_cast<uint16_t>(bits));
        case Type::bf16:
            return from_bfloat(static_cast<uint16_t>(bits));
        case Type::f32:
            return std::bit_cast<float>(static_cast<uint32_t>(bits));
        default:
            return std::bit_cast<double>(bits);
    }
}

uint64_t write_float(double x, Type t, int rounding) {
    if (x != x) {
        if (t == Type::f64) return std::bit_cast<uint64_t>(x);
        return t == Type::f32 ? kNanF32 : kNanHalf;
    }
    switch (t) {
        case Type::f16:
            return to_half(to_odd(x), rounding);
        case Type::bf16:
            return to_bfloat(to_odd(x), rounding);
        case Type::f32: {
            volatile float narrow = static_cast<float>(x);  // under the rounding mode in force
            return std::bit_cast<uint32_t>(static_cast<float>(narrow));
        }
        default:
            return std::bit_cast<uint64_t>(x);
    }
}

double to_integral(double x, int rounding) {
    switch (rounding) {
        case 1:
            return std::trunc(x);
        case 2:
            return std::floor(x);
        case 3:
            return std::ceil(x);
        default:
            return std::nearbyint(x);
    }
}

uint64_t to_integer(double x, Type from, Type to, int rounding) {
    const uint32_t bits = 8 * bytes_of(to);
    if (x != x) return from != Type::f64 && bits < 64 ? 0 : uint64_t{1} << (bits - 1);
    const double whole = to_integral(x, rounding);
    const double limit = std::ldexp(1.0, static_cast<int>(is_signed(to) ? bits - 1 : bits));
    if (is_signed(to)) {
        if (whole >= limit) return (uint64_t{1} << (bits - 1)) - 1;
        if (whole < -limit) return static_cast<uint64_t>(int64_t{-1} << (bits - 1));
        return static_cast<uint64_t>(static_cast<int64_t>(whole));
    }
    if (whole >= limit) return bits == 64 ? ~uint64_t{0} : (uint64_t{1} << bits) - 1;
    return whole <= 0 ? 0 : static_cast<uint64_t>(whole);
}

template <class F>
void convert_lanes(Warp& w, const Inst& i, F f) {
    const Kind k = unpack(i.extra);
    for_lanes(w.mask, [&](int l) {
        const uint64_t x = read_register(w, i.a, k.from_register, l);
        const uint64_t r = f(extended(x, bytes_of(k.from), is_signed(k.from)), k);
        write_register(w, i.d, k.to_register, l, extended(r, bytes_of(k.to), is_signed(k.to)));
    });
}

void run_integer(Warp& w, const Inst& i) {
    const bool sat = i.flags & kSaturate;
    convert_lanes(w, i, [=](uint64_t x, Kind k) { return sat ? saturated_integer(x, k.from, k.to) : x; });
}

void run_to_float(Warp& w, const Inst& i) {
    const int rounding = i.flags & kRoundMask;
    const Rounding guard(i.flags);
    convert_lanes(w, i, [=](uint64_t x, Kind k) -> uint64_t {
        const bool negative = is_signed(k.from) && static_cast<int64_t>(x) < 0;
        if (k.to == Type::f32) {
            volatile float r = negative ? static_cast<float>(static_cast<int64_t>(x)) : static_cast<float>(x);
            return std::bit_cast<uint32_t>(static_cast<float>(r));
        }
        volatile double r = negative ? static_cast<double>(static_cast<int64_t>(x)) : static_cast<double>(x);
        return write_float(r, k.to, rounding);
    });
}

void run_to_integer(Warp& w, const Inst& i) {
    const int rounding = i.flags & kRoundMask;
    const bool ftz = i.flags & kFtz;
    convert_lanes(w, i, [=](uint64_t x, Kind k) {
        double value = read_float(x, k.from);
        if (ftz && k.from == Type::f32) value = flush(static_cast<float>(value));
        return to_integer(value, k.from, k.to, rounding);
    });
}

// Between floating-point types; imm: to a whole number in the same type.
void run_float(Warp& w, const Inst& i) {
    const int rounding = i.flags & kRoundMask;
    const uint16_t flags = i.flags;
    const bool integral = i.imm != 0;
    const Rounding guard(integral ? 0 : flags);
    convert_lanes(w, i, [=](uint64_t x, Kind k) {
        double value = read_float(x, k.from);
        if ((flags & kFtz) && k.from == Type::f32) value = flush(static_cast<float>(value));
        if (integral) value = to_integral(value, rounding);
        if (flags & kSaturate) value = saturate(value);
        uint64_t r = write_float(value, k.to, rounding);
        if ((flags & kFtz) && k.to == Type::f32)
            r = std::bit_cast<uint32_t>(flush(std::bit_cast<float>(static_cast<uint32_t>(r))));
        return r;
    });
}

template <class D>
Run quick_integer_from(Type from) {
    switch (from) {
        case Type::u16:
            return map<D, uint16_t>([](uint16_t x) { return static_cast<D>(x); });
        case Type::s16:
            return map<D, int16_t>([](int16_t x) { return static_cast<D>(x); });
        case Type::u32:
            return map<D, uint32_t>([](uint32_t x) { return static_cast<D>(x); });
        case Type::s32:
            return map<D, int32_t>([](int32_t x) { return static_cast<D>(x); });
        case Type::u64:
        case Type::s64:
            return map<D, uint64_t>([](uint64_t x) { return static_cast<D>(x); });
        default:
            return nullptr;
    }
}

// The common conversions, all lanes at once; null for the others.
Run quick(Type to, Type from, uint16_t flags) {
    if (flags != 0) return nullptr;
    const bool from_float = is_float(from), to_float = is_float(to);
    if (!from_float && !to_float) {
        switch (bytes_of(to)) {
            case 2:
                return quick_integer_from<uint16_t>(from);
            case 4:
                return quick_integer_from<uint32_t>(from);
            case 8:
                return quick_integer_from<uint64_t>(from);
            default:
                return nullptr;
        }
    }
    if (to == Type::f32 && from == Type::f16)
        return map<float, uint16_t>([](uint16_t x) { return canonical(from_half(x)); });
    if (to == Type::f32 && from == Type::bf16)
        return map<float, uint16_t>([](uint16_t x) { return canonical(from_bfloat(x)); });
    if (to == Type::f16 && from == Type::f32) return map<uint16_t, float>([](float x) { return to_half(x); });
    if (to == Type::bf16 && from == Type::f32) return map<uint16_t, float>([](float x) { return to_bfloat(x); });
    if (to == Type::f64 && from == Type::f32) return map<double, float>([](float x) { return static_cast<double>(x); });
    if (to == Type::f32 && from == Type::f64)
        return map<float, double>([](double x) { return canonical(static_cast<float>(x)); });
    if (to == Type::f32 && from == Type::s32)
        return map<float, int32_t>([](int32_t x) { return static_cast<float>(x); });
    return nullptr;
}

}  // namespace

void cvt(Builder& b) {
    if (is_packed_cvt(b.full_opcode())) return packed_cvt(b);
    const bool integral = b.take("rni") || b.take("rzi") || b.take("rmi") || b.take("rpi");
    const Name opcode = b.full_opcode();
    const uint16_t mode = !integral                           ? 0
                          : opcode.find(".rzi") != Name::npos ? 1
                          : opcode.find(".rmi") != Name::npos ? 2
                          : opcode.find(".rpi") != Name::npos ? 3
                                                              : 0;
    const Type to = b.need_type();
    const auto flags = static_cast<uint16_t>(b.rounding() | mode);
    const Type from = b.need_type();
    if (from == Type::f16x2 || from == Type::bf16x2 || from == Type::tf32) b.unsupported("type");
    b.done();
    Kind k{to, from, 0, 0};
    const uint32_t to_bytes = b.register_bytes(b.operand(0)), from_bytes = b.register_bytes(b.operand(1));
    k.to_register = static_cast<uint8_t>(to_bytes ? to_bytes : bytes_of(to));
    k.from_register = static_cast<uint8_t>(from_bytes ? from_bytes : bytes_of(from));
    if (k.to_register < bytes_of(to) || k.from_register < bytes_of(from)) b.unsupported("a register too narrow");
    Run run = k.to_register == bytes_of(to) && k.from_register == bytes_of(from) && !integral ? quick(to, from, flags)
                                                                                              : nullptr;
    const bool from_float = is_float(from), to_float = is_float(to);
    if (run == nullptr)
        run = from_float ? (to_float ? run_float : run_to_integer) : (to_float ? run_to_float : run_integer);
    constexpr Type bits[] = {Type::none, Type::b16,  Type::none, Type::b32,
                             Type::none, Type::none, Type::none, Type::b64};
    if (k.from_register == 1) b.unsupported("a number of 8 bits");
    const Ref a = b.source(b.operand(1), from_bytes == bytes_of(from) ? from : bits[k.from_register - 1]);
    const Ref d = b.destination(b.operand(0), k.to_register);
    Inst& i = b.emit(run, Class::convert);
    i.d = d, i.a = a, i.flags = flags, i.extra = pack(k), i.imm = integral && to_float;
}

}  // namespace emu::ops
